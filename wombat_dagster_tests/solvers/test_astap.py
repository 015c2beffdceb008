"""ASTAP's wrapper against programs that behave badly, each in a way seen or feared."""

import hashlib
import shutil
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits

from wombat_dagster.solvers import astap as astap_module
from wombat_dagster.solvers.astap import Astap, find_astap, find_database, find_program
from wombat_dagster.solvers.base import Reason, RungOptions

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the fakes are POSIX scripts")

SOLVED_INI = """PLTSOLVD=T
CRPIX1= 3.2550000000000000E+002
CRPIX2= 2.5050000000000000E+002
CRVAL1= 3.1248793062109151E+001
CRVAL2= 4.6740926650905259E+001
CDELT1= 1.4343541926495418E-003
CD1_1=-1.4343446415488030E-003
CD1_2= 5.2373415775076507E-006
CD2_1=-5.2344275288715420E-006
CD2_2=-1.4347908595035009E-003
CMDLINE=astap_cli -f x.fits
WARNING=Warning, small image dimensions!!
"""
STDOUT = """ASTAP astrometric solver version CLI-2022.11.11
567 stars, 500 quads selected in the image. 436 database stars, 384 database quads required
18 of 23 quads selected matching within 0.007 tolerance.
Solved in 0.4 sec
"""
PRELUDE = """#!/bin/sh
'''exec' "{python}" "$0" "$@"  # a shebang cannot hold a path with blanks
'''
import os, sys, time, subprocess
from pathlib import Path
here = Path({here!r})
arguments = sys.argv[1:]
value = dict(zip(arguments, arguments[1:]))
(here / "arguments.txt").write_text(" ".join(arguments))
source = Path(value.get("-f", "none"))
ini = Path(value.get("-o", str(source.with_suffix("")))).with_suffix(".ini")
SOLVED = {solved!r}
STDOUT = {stdout!r}
"""


@pytest.fixture
def fake(tmp_path):
    """Return a maker of an ASTAP whose behaviour is the given Python lines."""

    def make(body):
        path = tmp_path / "fake_astap"
        prelude = PRELUDE.format(
            python=sys.executable, here=str(tmp_path), solved=SOLVED_INI, stdout=STDOUT
        )
        path.write_text(prelude + body)
        path.chmod(0o755)
        return Astap(path, tmp_path, "fake")

    return make


@pytest.fixture
def request_on_disk(tmp_path, sky):
    image = tmp_path / "private" / "my frame.fits"
    image.parent.mkdir()
    fits.PrimaryHDU(np.arange(500 * 650, dtype=np.float32).reshape(500, 650)).writeto(image)
    stars = sky.detections(sky.wcs())
    return sky.request(stars, image_path=image, timeout_s=20.0, ra_deg=31.3121, dec_deg=46.769087)


def content_hash(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_solution_is_read_from_the_cd_cards(fake, request_on_disk, tmp_path):
    """Cards and output as Debian's CLI-2022.11.11 wrote them for a MicroObservatory frame."""
    astap = fake("ini.write_text(SOLVED); print(STDOUT)")
    options = RungOptions(fov_deg=0.717, radius_deg=5.0, max_stars=300, tolerance=0.01)
    outcome = astap.solve(request_on_disk, options)
    assert outcome.reason is None
    assert outcome.solution.ra_deg == pytest.approx(31.248793062109151)
    assert outcome.solution.crpix_y == 250.5
    assert outcome.solution.cd21 == pytest.approx(-5.2344275288715420e-6)
    assert outcome.solution.scale_arcsec_px == pytest.approx(5.1645, abs=1e-3)
    assert (outcome.n_stars, outcome.n_quads, outcome.exit_code) == (567, 18, 0)
    assert outcome.message == "Warning, small image dimensions!!"
    said = (tmp_path / "arguments.txt").read_text()
    assert "-fov 0.717 -ra 2.087473 -spd 136.769087 -r 5 -s 300 -t 0.01 -d" in said
    assert "-update" not in said
    assert str(request_on_disk.image_path) not in said


@pytest.mark.parametrize(
    ("body", "reason", "words"),
    [
        ("sys.exit(0)", Reason.CRASHED, "exit code 0 and no result file"),
        ("print('EInOutError'); sys.exit(0)", Reason.CRASHED, "EInOutError"),
        ("os.kill(os.getpid(), 11)", Reason.CRASHED, "exit code -11"),
        ("ini.write_text('garbage')", Reason.CRASHED, "no result file"),
        ("ini.write_text('PLTSOLVD=T\\nCRVAL1=1')", Reason.CRASHED, "without a usable CD"),
        ("ini.write_text('PLTSOLVD=T\\nCRVAL1=x')", Reason.CRASHED, "without a usable CD"),
        ("ini.write_text(SOLVED.replace('5.2373', 'NAN')); print()", Reason.CRASHED, "usable"),
        ("ini.write_text('PLTSOLVD=F\\n'); sys.exit(1)", Reason.NO_MATCH, ""),
        (
            "ini.write_text('PLTSOLVD=F\\nERROR=Not enough stars.\\n'); sys.exit(1)",
            Reason.NO_STARS,
            "Not enough stars.",
        ),
        (
            "ini.write_text('PLTSOLVD=F\\nERROR=No star database found.\\n'); sys.exit(1)",
            Reason.NO_DATABASE,
            "No star database found.",
        ),
        (
            "ini.write_text('PLTSOLVD=F\\nERROR=Error reading image file.\\n'); sys.exit(1)",
            Reason.BAD_FILE,
            "",
        ),
        ("print('Error, accessing the file!'); sys.exit(1)", Reason.BAD_FILE, ""),
        ("ini.write_text(SOLVED); os.utime(ini, (1e9, 1e9))", Reason.CRASHED, "no result file"),
        ("source.unlink()", Reason.CRASHED, ""),
        ("source.write_bytes(b'')", Reason.CRASHED, ""),
    ],
)
def test_bad_ends_have_a_reason_and_never_touch_the_frame(
    fake, request_on_disk, body, reason, words
):
    before = content_hash(request_on_disk.image_path)
    outcome = fake(body).solve(request_on_disk, RungOptions(fov_deg=1.0))
    assert outcome.solution is None
    assert outcome.reason is reason
    assert words in outcome.message
    assert content_hash(request_on_disk.image_path) == before
    assert list(request_on_disk.image_path.parent.iterdir()) == [request_on_disk.image_path]


def test_a_program_that_writes_into_its_input_reaches_a_copy_only(fake, request_on_disk):
    before = content_hash(request_on_disk.image_path)
    body = "source.open('r+b').write(b'XXXX'); source.unlink(); ini.write_text(SOLVED)"
    assert fake(body).solve(request_on_disk, RungOptions()).solution is not None
    assert content_hash(request_on_disk.image_path) == before


def test_a_hanging_program_is_killed_with_its_children(fake, request_on_disk, tmp_path):
    """The child would leave its mark if it outlived the time-out."""
    body = (
        "child = 'import time, pathlib; time.sleep(1.5); pathlib.Path(%r).touch()'"
        " % str(here / 'survived')\n"
        "subprocess.Popen([sys.executable, '-c', child])\n"
        "time.sleep(600)"
    )
    outcome = fake(body).solve(request_on_disk, RungOptions(timeout_s=0.7))
    assert (outcome.reason, outcome.exit_code) == (Reason.TIMEOUT, None)
    assert outcome.message == "killed after 0.7 s"
    time.sleep(1.5)
    assert not (tmp_path / "survived").exists()


def test_a_file_cut_in_the_middle_is_not_given_to_astap(fake, request_on_disk):
    """ASTAP 2022 solves a truncated frame without a word (PLATE_SOLVING section 1)."""
    path = request_on_disk.image_path
    path.write_bytes(path.read_bytes()[:500_000])
    outcome = fake("ini.write_text(SOLVED)").solve(request_on_disk, RungOptions())
    assert outcome.reason is Reason.BAD_FILE
    assert "500000 bytes, 1302880 wanted" in outcome.message


@pytest.mark.parametrize("content", [b"", b"no FITS at all", b"SIMPLE  =" * 400])
def test_what_is_no_fits_is_a_bad_file(fake, request_on_disk, content):
    request_on_disk.image_path.write_bytes(content)
    outcome = fake("ini.write_text(SOLVED)").solve(request_on_disk, RungOptions())
    assert outcome.reason is Reason.BAD_FILE


def test_a_missing_image_or_program_is_an_outcome(fake, request_on_disk, tmp_path):
    astap = fake("ini.write_text(SOLVED)")
    gone = Astap(tmp_path / "nowhere")
    assert gone.solve(request_on_disk, RungOptions()).reason is Reason.CRASHED
    request_on_disk.image_path.unlink()
    assert astap.solve(request_on_disk, RungOptions()).reason is Reason.BAD_FILE
    assert astap.analyse(request_on_disk.image_path, 10) is None


TILE = bytes(109) + bytes([5]) + bytes(10)


def sets_in(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        content = bytes([1, 0, 0, 0]) + bytes(12) if name.endswith("001") else TILE
        (folder / name).write_bytes(content)
    return folder


ALL_SETS = ("d50_0101.1476", "g05_0101.290", "w08_0101.001")


@pytest.mark.parametrize(
    ("version", "fov_deg", "sets", "name"),
    [
        ("CLI-2026.07.16", 1.0, ALL_SETS, "d50"),
        ("CLI-2026.07.16", 6.1, ALL_SETS, "g05"),
        ("CLI-2026.07.16", 20.1, ALL_SETS, "w08"),
        ("CLI-2026.07.16", 20.1, ALL_SETS[:2], "g05"),
        ("CLI-2026.07.16", 10.0, ALL_SETS[:1], "d50"),
        ("CLI-2026.07.16", 0.0, ALL_SETS, None),
        ("CLI-2022.11.11", 1.0, ALL_SETS, None),
        (None, 1.0, ALL_SETS, None),
    ],
)
def test_a_new_astap_is_told_which_set_suits_the_field(
    fake, request_on_disk, tmp_path, version, fov_deg, sets, name
):
    """PLATE_SOLVING section 1; the version of 2022 knows no -D and takes what it finds."""
    folder = sets_in(tmp_path / "sets", *sets)
    astap = replace(fake("ini.write_text(SOLVED)"), version=version, database=folder)
    astap.solve(request_on_disk, RungOptions(fov_deg=fov_deg))
    said = (tmp_path / "arguments.txt").read_text().split()
    assert said[said.index("-d") + 1] == str(folder)
    assert (said[said.index("-D") + 1] if "-D" in said else None) == name
    assert "-z" not in said  # above 4 the version of 2022 leaves without a word


@pytest.mark.parametrize(
    ("sets", "reason", "words"),
    [
        (["h18_0101.1476", "h18_0201.1476"], Reason.NO_MATCH, "2 of 1476 tiles"),
        (["h18_0201.1476"], Reason.NO_DATABASE, "half a set"),
        ([], Reason.NO_DATABASE, "no set of .1476 or .290 tiles"),
    ],
)
def test_a_missing_tile_is_no_missing_database(
    fake, request_on_disk, tmp_path, sets, reason, words
):
    """For both ASTAP says the same (run with the CLI of 2022)."""
    folder = sets_in(tmp_path / "sets", *sets)
    body = "ini.write_text('PLTSOLVD=F\\nERROR=Error reading star database.\\n'); sys.exit(1)"
    outcome = replace(fake(body), database=folder).solve(request_on_disk, RungOptions())
    assert outcome.reason is reason
    assert outcome.message.startswith("Error reading star database.")
    assert words in outcome.message


KEEP_COPY = "import shutil; shutil.copyfile(source, here / 'seen.fits'); ini.write_text(SOLVED)"


@pytest.mark.parametrize(
    ("sky_adu", "sky_rms_adu", "dtype", "is_levelled"),
    [
        (300.0, 10.0, np.float32, False),
        (-30.0, 10.0, np.float32, True),
        (0.01, 0.001, np.float32, True),
        (3e5, 100.0, np.int32, True),
    ],
)
def test_counts_where_astap_sees_no_stars_are_levelled_in_its_copy(
    fake, request_on_disk, tmp_path, sky_adu, sky_rms_adu, dtype, is_levelled
):
    pixels = (sky_adu + sky_rms_adu * np.tile([-1.0, 0.0, 1.0, 60.0], (40, 10))).astype(dtype)
    path = request_on_disk.image_path
    fits.writeto(path, pixels, overwrite=True)
    before = content_hash(path)
    stars = replace(request_on_disk.detections, sky_adu=sky_adu, sky_rms_adu=sky_rms_adu)
    fake(KEEP_COPY).solve(replace(request_on_disk, detections=stars), RungOptions())
    seen = fits.getdata(tmp_path / "seen.fits")
    if is_levelled:
        np.testing.assert_allclose(seen[0, :4], [990, 1000, 1010, 1600], rtol=1e-4)
    else:
        np.testing.assert_array_equal(seen, pixels)
    assert content_hash(path) == before


@pytest.mark.parametrize(
    ("platform", "program", "stars"),
    [
        ("darwin", "Applications/ASTAP.app/Contents/MacOS/astap", "usr/local/opt/astap"),
        ("win32", "Program Files/astap/astap_cli.exe", "Program Files/astap"),
        ("linux", "opt/astap/astap", "usr/share/astap/data"),
    ],
)
def test_astap_is_found_in_the_usual_places_of_every_system(
    tmp_path, monkeypatch, platform, program, stars
):
    """The places are those of the manual, here below a directory of the test's own."""

    def below(places):
        return tuple(
            str(tmp_path / place.replace("\\", "/").removeprefix("C:").lstrip("/"))
            for place in places
        )

    for name in ("USUAL_PROGRAMS", "USUAL_DATABASES"):
        places = getattr(astap_module, name)
        monkeypatch.setattr(astap_module, name, {platform: below(places[platform])})
    monkeypatch.setattr(astap_module.sys, "platform", platform)
    monkeypatch.delenv("WOMBAT_ASTAP", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    there = tmp_path / program
    there.parent.mkdir(parents=True)
    there.write_text("#!/bin/sh\n")
    there.chmod(0o755)
    assert find_program() == there
    (tmp_path / stars).mkdir(parents=True, exist_ok=True)
    sets_in(tmp_path / stars, "d50_0101.1476")
    assert find_database(there) == tmp_path / stars


@pytest.mark.parametrize(
    ("stdout", "hfd", "n_stars"),
    [("HFD_MEDIAN=3.0\\nSTARS=566", 3.0, 566), ("HFD_MEDIAN=99.0\\nSTARS=0", None, 0)],
)
def test_the_analysis_is_read(fake, request_on_disk, stdout, hfd, n_stars):
    analysis = fake(f"print('{stdout}')").analyse(request_on_disk.image_path, 12)
    assert (analysis.hfd_median_px, analysis.n_stars) == (hfd, n_stars)


def test_an_analysis_that_says_nothing_is_none(fake, request_on_disk):
    assert fake("sys.exit(1)").analyse(request_on_disk.image_path, 12) is None


def test_astap_is_found_where_it_was_said_to_be(fake, tmp_path, monkeypatch):
    fake("print(STDOUT)")
    program = str(tmp_path / "fake_astap")
    found = find_astap(program, database=str(tmp_path))
    assert (str(found.program), found.database) == (program, tmp_path)
    assert found.version == "CLI-2022.11.11"
    monkeypatch.setenv("WOMBAT_ASTAP", program)
    assert str(find_program()) == program
    assert find_program(str(tmp_path / "elsewhere")) is None


def test_astap_is_found_on_the_path_and_a_database_beside_it(fake, tmp_path, monkeypatch):
    fake("print('hello')")
    (tmp_path / "fake_astap").rename(tmp_path / "astap_cli")
    (tmp_path / "d50_0101.1476").touch()
    monkeypatch.delenv("WOMBAT_ASTAP", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    found = find_astap()
    assert found.program == tmp_path / "astap_cli"
    assert found.database == tmp_path
    assert found.version is None


def test_no_astap_is_none(tmp_path, monkeypatch):
    monkeypatch.delenv("WOMBAT_ASTAP", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(astap_module, "USUAL_PROGRAMS", {})
    assert find_astap() is None


@pytest.mark.needs_astap
@pytest.mark.skipif(shutil.which("astap_cli") is None, reason="astap_cli is not on PATH")
@pytest.mark.parametrize(("noise_adu", "reason"), [(10, Reason.NO_STARS), (0, Reason.CRASHED)])
def test_the_real_program_has_a_word_for_a_starless_frame(
    request_on_disk, tmp_path, noise_adu, reason
):
    """Noise is refused; of zeros in float32 the 2022 CLI dies by a division, with exit code 0."""
    path = request_on_disk.image_path
    pixels = np.random.default_rng(0).normal(0, 1, (500, 650)) * noise_adu
    fits.writeto(path, pixels.astype(np.float32), overwrite=True)
    (tmp_path / "h18_0101.1476").write_bytes(b"empty".ljust(109) + bytes([5]))
    astap = find_astap("astap_cli", database=str(tmp_path))
    if reason is Reason.CRASHED and astap.version != "CLI-2022.11.11":
        pytest.skip(f"measured with CLI-2022.11.11, this is {astap.version}")
    assert astap.solve(request_on_disk, RungOptions(fov_deg=0.7)).reason is reason
    assert list(path.parent.iterdir()) == [path]
