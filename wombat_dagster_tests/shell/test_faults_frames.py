"""Raw frames that vanish, change or grow while they are worked on, and ASTAPs that misbehave.

The stages are called as the assets do, so that a fault can strike between any two steps.
"""

import contextlib
import json
import os
import re
import sqlite3
import sys
from pathlib import Path

import pytest

from wombat_dagster.config import CONFIG_NAME
from wombat_dagster.domain import NoFrames, NoWcs
from wombat_dagster.solvers import astap as astap_module
from wombat_dagster.stages import reduction
from wombat_dagster.stages.choice import choose_calibration
from wombat_dagster.stages.reduction import reduce_observation
from wombat_dagster.stages.solving import solve_observation
from wombat_dagster.store import raw_frames
from wombat_dagster.store.frames import read_reduced

LIGHTS_V = "20251014/Light/SV Wom/*V.fit"


@pytest.fixture
def lit(place):
    """A place with four V lights and nothing to calibrate them with, looked at once."""
    place.take(LIGHTS_V)
    place.observatory.scan()
    return place


def lights_of(place):
    return sorted(place.data.glob(LIGHTS_V))


def reduced(place):
    observatory, one = place.observatory, place.row("SV Wom").observation
    return reduce_observation(observatory, one, choose_calibration(observatory, one))


def solved(place, made):
    return solve_observation(place.observatory, place.row("SV Wom").observation, made)


def wcs_rows(place):
    with contextlib.closing(sqlite3.connect(place.observatory.status.path)) as connection:
        connection.row_factory = sqlite3.Row
        return connection.execute("SELECT * FROM WCS ORDER BY file").fetchall()


# ------------------------------------------------------------------------------- frames that vanish


def test_a_frame_that_vanishes_after_the_scan_is_left_out_and_named(lit):
    gone = lights_of(lit)[1]
    gone.unlink()
    made = reduced(lit)
    assert len(made.frames) == 3
    (path, reason), *others = made.left_out
    assert (path, others) == (gone.relative_to(lit.data).as_posix(), [])
    assert reason == "cannot be read: No such file or directory"


def test_a_frame_that_vanishes_between_its_two_readings_is_left_out_and_named(lit, monkeypatch):
    gone = lights_of(lit)[2]
    again = reduction._reduced

    def after_the_first_looks(*arguments):
        gone.unlink()
        return again(*arguments)

    monkeypatch.setattr(reduction, "_reduced", after_the_first_looks)
    made = reduced(lit)
    assert [frame.raw.rsplit("/", 1)[1] for frame in made.frames] == [
        path.name for path in lights_of(lit)
    ]
    assert [(path.rsplit("/", 1)[1], reason) for path, reason in made.left_out] == [
        (gone.name, "cannot be read: No such file or directory")
    ]
    kept = sorted(lit.root.glob("products/20251014/SV_Wom/V/reduced/*.fits"))
    assert len(kept) == 3
    for path in kept:
        read_reduced(path)  # checks the sums


def test_frames_that_are_kept_are_solved_though_the_raw_ones_have_vanished(lit):
    made = reduced(lit)
    for path in lights_of(lit):
        path.unlink()
    assert [one.solution is not None for one in solved(lit, made)] == [True] * 4


def test_a_disk_that_goes_away_altogether_ends_in_words(lit):
    lit.data.rename(lit.root / "unmounted")
    with pytest.raises(NoFrames, match="0 of 4 frames could be read: cannot be read: No such file"):
        reduced(lit)
    (lit.root / "unmounted").rename(lit.data)
    assert len(reduced(lit).frames) == 4


# --------------------------------------------------------------------------------- frames that grow


def test_a_frame_still_being_copied_is_left_out_and_taken_when_it_is_whole(place):
    """A copy in progress: half of it at the scan, more while the others are reduced."""
    place.take(LIGHTS_V)
    growing = lights_of(place)[3]
    whole = growing.read_bytes()
    growing.unlink()
    growing.write_bytes(whole[:60_000])
    place.observatory.scan()
    before = place.observatory.status.light_signatures()
    growing.write_bytes(whole[:120_000])
    assert len(reduced(place).frames) == 3
    row = place.row("SV Wom", filter="unknown")  # what is cut says nothing of itself
    assert (row.n_frames, row.n_quarantined) == (0, 1)
    assert row.reason.startswith("0 of 1 frames usable: truncated: ")

    growing.write_bytes(whole)
    place.observatory.scan()
    assert place.observatory.status.light_signatures() != before
    assert len(reduced(place).frames) == 4
    assert growing.read_bytes() == whole


def test_a_file_that_is_cut_between_scan_and_reading_is_left_out(lit):
    cut = lights_of(lit)[0]
    content = cut.read_bytes()
    cut.unlink()  # the session's frames are hard links
    cut.write_bytes(content[:100_000])
    made = reduced(lit)
    assert len(made.frames) == 3
    assert made.left_out[0][1].startswith("truncated: ")


def test_a_file_that_changes_while_it_is_looked_at_is_not_recorded_as_whole(place, monkeypatch):
    """Size and time are taken before the pixels are read: the next scan looks at it again."""
    place.take(LIGHTS_V)
    changing, other = lights_of(place)[:2]
    content, final = changing.read_bytes(), other.read_bytes()
    changing.unlink()
    changing.write_bytes(content)
    read_image = raw_frames.read_image

    def meanwhile(path):
        found = read_image(path)
        if path == changing and path.read_bytes() == content:
            path.write_bytes(final + b"more")
            os.utime(path, (2_000_000_000, 2_000_000_000))
        return found

    monkeypatch.setattr(raw_frames, "read_image", meanwhile)
    place.observatory.scan()
    monkeypatch.undo()
    seen = place.observatory.status.light_signatures()
    place.observatory.scan()
    assert place.observatory.status.light_signatures() != seen


# ------------------------------------------------------------------- ASTAP, as the stage runs it

HANGS = "exec sleep 600"
CRASHES = "kill -SEGV $$"
NOTHING = "exit 0"
DELETES = 'rm -f "$2"; exit 0'
LIES = 'echo "PLTSOLVD=T" > "$4.ini"; exit 0'
LITTERS = 'echo x > "${2%.fits}.wcs"; echo x > "${2%.fits}.bak"; echo PLTSOLVD=F > "$4.ini"; exit 1'


@pytest.fixture
def with_astap(lit, monkeypatch, tmp_path):
    """Return the function that puts a shell script in ASTAP's place, impatiently waited for."""
    if sys.platform == "win32":
        pytest.skip("the fakes are POSIX scripts")
    monkeypatch.setattr(astap_module, "ANALYSE_TIMEOUT_S", 0.1)

    def put(script, *, alone=False):
        program = tmp_path / "astap_cli"
        program.write_text(f'#!/bin/sh\necho run >> "{tmp_path}/runs"\n{script}\n')
        program.chmod(0o755)
        lit.configure(astap=f'program = "{program}"\ntimeout_s = 0.1')
        if alone:  # nobody else has stars to solve by
            file = lit.root / CONFIG_NAME
            file.write_text(re.sub(r"star_table = .*", "", file.read_text()))
            os.utime(file, (1_800_000_000, 1_800_000_000))
        return lit

    return put


def children():
    """Return the children of this process, dead ones that nobody waited for included."""
    tasks = Path("/proc/self/task")
    if not tasks.exists():
        pytest.skip("only Linux tells of children without taking them away")
    return {child for path in tasks.glob("*/children") for child in path.read_text().split()}


@pytest.mark.parametrize(
    ("script", "word"),
    [
        (HANGS, "timeout"), (CRASHES, "crashed"), (NOTHING, "crashed"), (DELETES, "crashed"),
        (LIES, "crashed"), (LITTERS, "no_match"),
    ],
    ids=["hangs", "crashes", "nothing", "deletes", "lies", "litters"],
)  # fmt: skip
def test_a_bad_astap_costs_time_and_no_frame(with_astap, tmp_path, script, word):
    """The next solver answers; what ASTAP did stands in the attempts of the frame's row."""
    place = with_astap(script)
    made, others = reduced(place), children()
    found = solved(place, made)
    assert all(one.solution is not None for one in found)
    first = next(one for one in found if one.reference_file is None)
    assert {a.outcome for a in first.attempts if a.solver == "astap"} == {word}
    assert first.solver != "astap"
    for frame in made.frames:
        read_reduced(place.root / "products" / frame.path)  # whole, by its sums
    files = {p.name for p in (place.root / "products/20251014/SV_Wom/V/reduced").iterdir()}
    assert files == {frame.label for frame in made.frames}
    assert children() <= others
    n_runs = len((tmp_path / "runs").read_text().splitlines())
    assert n_runs <= 12  # of one frame, with the banner and the analysis: the rest is carried over


@pytest.mark.parametrize(("script", "word"), [(HANGS, "timeout"), (NOTHING, "crashed")])
def test_with_a_bad_astap_alone_the_observation_is_nowcs_with_the_reason(with_astap, script, word):
    place = with_astap(script, alone=True)
    raw = place.raw_files()
    made = reduced(place)
    with pytest.raises(NoWcs, match=rf"0 of 4 frames solved \(.*{word} "):
        solved(place, made)
    rows = wcs_rows(place)
    assert [row["status"] for row in rows] == ["failed"] * 4
    for row in rows:
        attempts = json.loads(row["attempts"])
        assert {a["outcome"] for a in attempts if a["solver"] == "astap"} == {word}
    for frame in made.frames:
        read_reduced(place.root / "products" / frame.path)
    assert place.raw_files() == raw


def test_a_hanging_astap_is_asked_about_two_frames_of_an_observation(with_astap, tmp_path):
    """The banner, two frames in vain and one analysis; of the others nothing is asked."""
    place = with_astap(HANGS, alone=True)
    made = reduced(place)
    with pytest.raises(NoWcs, match=r"0 of 4 frames solved \(.*timeout "):
        solved(place, made)
    assert len((tmp_path / "runs").read_text().splitlines()) == 4
    told = [json.loads(row["attempts"])[0]["message"] for row in wcs_rows(place)]
    assert [words.startswith("not asked: on 2 frames before") for words in told].count(True) == 2
