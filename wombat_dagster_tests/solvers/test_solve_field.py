"""solve-field's wrapper: programs that behave badly, and the real one where it is installed."""

import os
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from wombat_dagster.domain import StarTable
from wombat_dagster.science.astrometry import separation_deg
from wombat_dagster.science.detection import detect_stars
from wombat_dagster.solvers import solve_field as module
from wombat_dagster.solvers.base import Reason, RungOptions, SolveRequest
from wombat_dagster.solvers.catalogue import CatalogueSolver
from wombat_dagster.solvers.solve_field import (
    SolveField,
    find_indexes,
    find_program,
    find_solve_field,
    index_missing,
)
from wombat_dagster.solvers.star_database import read_star_table_csv
from wombat_dagster.tangent import pixel_to_sky

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there is no solve-field")

PRELUDE = """#!/bin/sh
'''exec' "{python}" "$0" "$@"  # a shebang cannot hold a path with blanks
'''
import os, sys, time, subprocess
from pathlib import Path
here = Path({here!r})
arguments = sys.argv[1:]
value = dict(zip(arguments, arguments[1:]))
(here / "arguments.txt").write_text(" ".join(arguments))
wcs, corr = Path(value.get("--wcs", "none")), Path(value.get("--corr", "none"))
def solve():
    for name in ("wcs", "corr"):
        Path(value["--" + name]).write_bytes((here / ("answer." + name)).read_bytes())
    print("  log-odds ratio 102.383 (2.91338e+44), 15 match, 0 conflict, 7 distractors, 40 index.")
"""
UNSOLVED = "print('Did not solve (or no WCS file was written).')"


@pytest.fixture
def fake(tmp_path, sky):
    """Return a maker of a solve-field whose behaviour is the given Python lines."""
    from astropy.io import fits

    truth = sky.wcs(rotation_deg=10)
    stars = sky.detections(truth, n_stars=40, n_false=0)
    ra, dec = truth.all_pix2world(stars.x_px, stars.y_px, 0)
    pairs = {
        "field_x": stars.x_px + 1, "field_y": stars.y_px + 1, "index_ra": ra, "index_dec": dec,
    }  # fmt: skip
    table = [fits.Column(name, "D", array=values) for name, values in pairs.items()]
    fits.BinTableHDU.from_columns(table).writeto(tmp_path / "answer.corr")
    # A similarity beside the truth, as the program's own fit is.
    header = sky.wcs(rotation_deg=10.1, east_px=1.0).to_header()
    for i in (1, 2):
        for j in (1, 2):
            header[f"CD{i}_{j}"] = header.pop(f"PC{i}_{j}", 0.0) * header[f"CDELT{i}"]
    header.tofile(tmp_path / "answer.wcs")
    path = tmp_path / "bin" / "solve-field"
    path.parent.mkdir()

    def make(body):
        path.write_text(PRELUDE.format(python=sys.executable, here=str(tmp_path)) + body)
        path.chmod(0o755)
        return SolveField(path, "fake")

    return make


@pytest.fixture
def frame(sky):
    return sky.request(sky.detections(sky.wcs(rotation_deg=10)), timeout_s=20.0)


def test_the_solution_is_fitted_to_the_stars_that_were_matched(fake, frame, sky, tmp_path):
    outcome = fake("solve()").solve(frame, RungOptions(radius_deg=3.0))
    assert outcome.reason is None
    assert sky.worst_error_px(outcome.solution, sky.wcs(rotation_deg=10)) < 1e-3
    assert (outcome.solution.crpix_x, outcome.solution.crpix_y) == (450.5, 350.5)
    assert (outcome.solver, outcome.solver_version) == ("solve-field", "fake")
    said = (tmp_path / "arguments.txt").read_text()
    assert "--ra 100.000000 --dec 40.000000 --radius 3" in said
    assert "--scale-units arcsecperpix --scale-low 1.8182 --scale-high 2.2 " in said
    assert "--width 900 --height 700" in said
    assert str(frame.image_path) not in said


def test_the_table_testifies_where_it_can_and_the_index_stars_where_not(fake, frame, sky):
    """Of the table's stars the ladder takes count; 40 index stars lie on the image."""
    outcome = fake("solve()").solve(frame, RungOptions())
    assert (outcome.n_matched, outcome.n_expected, outcome.rms_px) == (None, None, None)
    nothing = np.zeros(0)
    empty = StarTable(ra_deg=nothing, dec_deg=nothing, mag=nothing, name="empty")
    for table in (None, empty):
        alone = sky.request(frame.detections, star_table=table)
        outcome = fake("solve()").solve(alone, RungOptions())
        assert (outcome.n_matched, outcome.n_expected) == (40, 40)
        assert outcome.rms_px < 1e-3


@pytest.mark.parametrize(
    ("options", "known", "words", "absent"),
    [
        ({"fov_deg": 0.0}, {}, "--ra", "--scale"),
        ({"fov_deg": 7.0}, {}, "--scale-low 32.727 --scale-high 39.6", "nothing"),
        ({}, {"scale_arcsec_px": None}, "--ra", "--scale"),
        ({}, {"scale_tolerance": 0.25}, "--scale-low 1.6 --scale-high 2.5", "nothing"),
        ({"radius_deg": 180.0}, {}, "--scale-low", "--ra"),
        ({}, {"ra_deg": None, "dec_deg": None}, "--scale-low", "--radius"),
        ({"timeout_s": 7.5}, {}, "--cpulimit 8", "nothing"),
    ],
)
def test_what_is_not_known_is_not_said(fake, sky, tmp_path, options, known, words, absent):
    request = sky.request(sky.detections(sky.wcs()), **known)
    fake("solve()").solve(request, RungOptions(**options))
    said = (tmp_path / "arguments.txt").read_text()
    assert words in said
    assert absent not in said


def test_the_stars_go_in_from_all_over_the_frame(fake, stars_at, sky, tmp_path):
    """A cluster in one corner holds all the brightest: each box still sends one of the first."""
    from astropy.io import fits

    rng = np.random.default_rng(0)
    x = np.r_[rng.uniform(0, 100, 300), rng.uniform(0, 900, 200)]
    y = np.r_[rng.uniform(0, 100, 300), rng.uniform(0, 700, 200)]
    flux = np.r_[rng.uniform(1e5, 1e6, 300), rng.uniform(1e3, 1e4, 200)]
    program = fake("(here / 'sent').write_bytes(Path(arguments[-1]).read_bytes()); " + UNSOLVED)
    outcome = program.solve(sky.request(stars_at(x, y, flux)), RungOptions())
    sent = fits.getdata(tmp_path / "sent")
    first = np.argsort(-sent["PRIORITY"])[:20]
    assert np.sum((sent["X"][first] < 150) & (sent["Y"][first] < 120)) <= 2
    assert outcome.n_stars == len(sent) == 150
    assert sent["X"].min() >= 1.0


@pytest.mark.parametrize(
    ("body", "reason", "words"),
    [
        (UNSOLVED, Reason.NO_MATCH, ""),
        ("sys.exit(0)", Reason.CRASHED, "exit code 0 and no solution"),
        ("print('Aborting'); os.kill(os.getpid(), 11)", Reason.CRASHED, "exit code -11"),
        ("solve(); wcs.write_text('garbage')", Reason.CRASHED, "no solution"),
        ("solve(); wcs.unlink(); " + UNSOLVED, Reason.NO_MATCH, ""),
        ("solve(); corr.write_bytes(b'')", Reason.CRASHED, "no solution"),
        (
            "print('You must list at least one index in the config file'); sys.exit(255)",
            Reason.NO_DATABASE,
            "data.astrometry.net",
        ),
        ("print(\"Couldn't find index 'x'.\"); sys.exit(1)", Reason.NO_DATABASE, "index files"),
    ],
)
def test_bad_ends_have_a_reason(fake, frame, body, reason, words):
    outcome = fake(body).solve(frame, RungOptions())
    assert outcome.solution is None
    assert outcome.reason is reason
    assert words in outcome.message


def test_a_hanging_program_is_killed_with_its_children(fake, frame, tmp_path):
    """The child would leave its mark if it outlived the time-out."""
    body = (
        "child = 'import time, pathlib; time.sleep(1.5); pathlib.Path(%r).touch()'"
        " % str(here / 'survived')\n"
        "subprocess.Popen([sys.executable, '-c', child])\n"
        "time.sleep(600)"
    )
    outcome = fake(body).solve(frame, RungOptions(timeout_s=0.7))
    assert (outcome.reason, outcome.exit_code) == (Reason.TIMEOUT, None)
    assert outcome.message == "killed after 0.7 s"
    time.sleep(1.5)
    assert not (tmp_path / "survived").exists()


def test_too_few_stars_do_not_start_the_program(fake, sky, tmp_path):
    few = sky.detections(sky.wcs(), n_stars=3, n_false=0)
    outcome = fake("solve()").solve(sky.request(few), RungOptions())
    assert outcome.reason is Reason.NO_STARS
    assert "3 stars" in outcome.message
    assert not (tmp_path / "arguments.txt").exists()


def test_a_program_that_is_gone_is_an_outcome(frame, tmp_path):
    outcome = SolveField(tmp_path / "nowhere").solve(frame, RungOptions())
    assert outcome.reason is Reason.CRASHED
    assert "nowhere" in outcome.message


def test_the_program_is_found_where_it_was_said_to_be_and_on_the_path(fake, tmp_path, monkeypatch):
    program = fake("print('Revision 0.93'); print('0.93')").program
    found = find_solve_field(str(program))
    assert (found.program, found.version) == (program, "0.93")
    monkeypatch.setenv("WOMBAT_SOLVE_FIELD", str(program))
    assert find_program() == program
    assert find_program(str(tmp_path / "elsewhere")) is None
    monkeypatch.delenv("WOMBAT_SOLVE_FIELD")
    monkeypatch.setenv("PATH", str(program.parent))
    assert find_program() == program
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(module, "USUAL_PROGRAMS", {})
    assert find_solve_field() is None


def test_missing_index_files_are_told_with_the_place_where_they_should_be(fake, tmp_path):
    program = fake("").program
    assert "no astrometry.cfg beside" in index_missing(program)
    config = tmp_path / "etc" / "astrometry.cfg"
    folder = tmp_path / "index files"
    config.parent.mkdir()
    config.write_text(f"# a comment\ncpulimit 300\nadd_path {folder}  # here\nautoindex\n")
    assert f"no index files in {folder} ({config})" in index_missing(program)
    folder.mkdir()
    (folder / "index-4110.fits").touch()
    assert index_missing(program) == ""
    config.write_text(f"add_path {folder}\nindex index-4110\nindex index-4107\n")
    found = find_indexes(program)
    assert (found.config, found.folders, found.n_files) == (config, (folder,), 1)


# ------------------------------------------------------------------------------ the real program

real = pytest.mark.skipif(shutil.which("solve-field") is None, reason="solve-field is not on PATH")


@real
def test_the_real_program_has_a_word_for_noise_and_for_no_index_files(sky, stars_at, tmp_path):
    rng = np.random.default_rng(0)
    noise = stars_at(rng.uniform(0, 900, 50), rng.uniform(0, 700, 50), rng.uniform(1, 9, 50))
    program = find_solve_field()
    request = sky.request(noise, scale_arcsec_px=20.0, timeout_s=30.0)
    if index_missing(program.program):
        pytest.skip(index_missing(program.program))
    outcome = program.solve(request, RungOptions(radius_deg=1.0))
    assert outcome.reason is Reason.NO_MATCH
    assert program.version
    # The same program with a configuration that leads nowhere.
    config = tmp_path / "astrometry.cfg"
    config.write_text(f"add_path {tmp_path}\nautoindex\n")
    wrapper = tmp_path / "wrapper"
    wrapper.write_text(f'#!/bin/sh\nexec "{program.program}" --config "{config}" "$@"\n')
    wrapper.chmod(0o755)
    assert SolveField(wrapper).solve(request, RungOptions()).reason is Reason.NO_DATABASE


DATA = Path(os.environ.get("WOMBAT_REFERENCE_DATA", "/nonexistent"))
NIGHT = DATA / "microobservatory" / "20171219"


@real
@pytest.mark.skipif(not NIGHT.is_dir(), reason="WOMBAT_REFERENCE_DATA does not name the frames")
def test_two_roads_to_the_same_place_on_real_frames():
    """Trailed, saturated frames of HAT-P-32: another program, its own index, against our solver.

    3 arcsec are 0.6 px; all 142 frames stay within 3.2.
    """
    from astropy.io import fits

    program = find_solve_field()
    if index_missing(program.program):
        pytest.skip(index_missing(program.program))
    table = read_star_table_csv(DATA / "catalogs" / "tycho2_hatp32.csv")
    x, y = np.array([0, 649, 0, 649, 324.5]), np.array([0, 0, 499, 499, 249.5])
    for packed in sorted(NIGHT.rglob("*.fz"))[10::40]:
        with fits.open(packed, ignore_missing_simple=True) as hdus:
            pixels = next(hdu.data for hdu in hdus if hdu.data is not None)
        request = SolveRequest(
            file=packed.name,
            image_path=packed,
            width_px=pixels.shape[1],
            height_px=pixels.shape[0],
            scale_arcsec_px=5.21,
            ra_deg=31.312099,
            dec_deg=46.769087,
            detections=detect_stars(pixels, saturation_adu=4095),
            star_table=table,
        )
        theirs = program.solve(request, RungOptions()).solution
        ours = CatalogueSolver().solve(request, RungOptions()).solution
        apart_deg = separation_deg(*pixel_to_sky(theirs, x, y), *pixel_to_sky(ours, x, y))
        assert apart_deg.max() * 3600 < 3.0
        assert theirs.sip is None
