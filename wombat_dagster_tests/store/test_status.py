"""The status database: what a scan records, which words may be written, and what never goes."""

import dataclasses
import datetime as dt
import sqlite3
from contextlib import closing

import pytest

from wombat_dagster.domain import (
    Apphot,
    FrameGroup,
    FrameKind,
    FrameSolution,
    Master,
    NoCalibration,
    NoComps,
    NoFrames,
    NoWcs,
    Proc,
    RawFrame,
    SolveAttempt,
    SolveStatus,
    VspUnavailable,
    WcsSolution,
)
from wombat_dagster.store.status import StatusDatabase

NIGHT = dt.date(2025, 10, 14)
GROUP = FrameGroup(width_px=320, height_px=256, binning="1x1", camera="cam", readout=None)
KEY = "20251014__TX_Eri__V"
UNKNOWN = dict.fromkeys(
    (
        "ccd_temperature_c", "ra_hint_deg", "dec_hint_deg", "scale_hint_arcsec_px", "site_hint",
        "airmass_header", "gain_header_e_adu", "gain_header_source", "read_noise_header_e",
        "saturation_header_adu", "pedestal_adu", "bayer_pattern", "calibration_status",
    )
)  # fmt: skip


def frame(path, **changes):
    """Return a frame of the night; a light of TX Eri in V unless changed."""
    known = {
        "path": path, "night_directory": path.split("/")[0], "date": NIGHT,
        "kind": FrameKind.LIGHT, "target": "TX Eri", "filter": "V", "size_bytes": 10,
        "mtime_ns": 1, "pixel_hash": path, "group": GROUP, "exposure_s": 60.0,
        "start_utc": f"2025-10-15T01:00:00.{len(path)}", **UNKNOWN,
    }  # fmt: skip
    return RawFrame(**known | changes)


def light(number, **changes):
    return frame(f"20251014/Light/TX Eri/{number}.fit", **changes)


def bias(number, **changes):
    return frame(
        f"20251014/Bias/{number}.fit", kind=FrameKind.BIAS, target=None, filter=None, **changes
    )


@pytest.fixture
def status(tmp_path):
    return StatusDatabase(tmp_path / "wombatpipeline.db")


@pytest.fixture
def scanned(status):
    status.record_scan([light(1), light(2), bias(1)], {NIGHT})
    return status


def execute(status, sql, *values):
    with closing(sqlite3.connect(status.path)) as connection, connection:
        return connection.execute(sql, values).fetchall()


def test_a_scan_records_each_observation_once(status):
    for _ in range(2):
        status.record_scan([light(1), light(2), bias(1)], {NIGHT})
    (row,) = status.targets()
    assert (row.n_frames, row.n_quarantined, row.night) == (2, 0, "20251014")
    assert execute(status, "SELECT type, filter, count FROM cal") == [("bias", None, 1)]


def test_late_frames_update_the_count_and_nothing_else(scanned):
    scanned.set_status(KEY, {"proc": Proc.SOLVED, "apphot": Apphot.VALIDATE})
    scanned.record_scan([light(1), light(2), light(3), bias(1)], {NIGHT})
    row = scanned.target_row(KEY)
    assert (row.n_frames, row.proc, row.apphot) == (3, "solved", "validate")


def test_an_observation_is_never_forgotten_but_its_frames_are(scanned):
    execute(scanned, "UPDATE target SET submitted = 'submitted'")
    scanned.record_scan([], {NIGHT})
    row = scanned.target_row(KEY)
    assert (row.n_frames, row.n_quarantined, row.submitted) == (0, 0, "submitted")
    assert scanned.night_frames(NIGHT) == []


def test_no_word_speaks_of_frames_that_are_gone(scanned):
    scanned.set_status(KEY, {"proc": Proc.SOLVED, "apphot": Apphot.VALIDATE})
    scanned.record_scan([], {NIGHT})
    row = scanned.target_row(KEY)
    assert (row.proc, row.apphot, row.lights) == ("noframes", None, None)
    assert row.reason == "no light frame is left: those found before are gone"


def test_what_a_person_submitted_keeps_its_words_without_frames(scanned):
    scanned.set_status(KEY, {"proc": Proc.SOLVED, "apphot": Apphot.VALIDATE})
    execute(scanned, "UPDATE target SET submitted = 'submitted'")
    scanned.record_scan([], {NIGHT})
    row = scanned.target_row(KEY)
    assert (row.proc, row.apphot, row.submitted) == ("solved", "validate", "submitted")


def test_a_slow_scan_never_undoes_a_later_one(scanned):
    """The sensor's scan began before flats were moved, and ends after the move was recorded."""
    other = dt.date(2025, 10, 15)
    slow, quick = scanned.begin_scan(), scanned.begin_scan()
    scanned.record_scan([light(1), light(2), light(3)], {NIGHT}, serial=quick)
    before_the_move = [light(1), frame("20251015/Light/TX Eri/9.fit", date=other)]
    scanned.record_scan(before_the_move, {NIGHT, other}, serial=slow)
    assert scanned.target_row(KEY).n_frames == 3
    assert scanned.target_row("20251015__TX_Eri__V").n_frames == 1  # nobody else saw this night
    scanned.record_scan([light(1)], {NIGHT})
    assert scanned.target_row(KEY).n_frames == 1


def test_masters_go_with_their_night_s_directory_only(scanned):
    scanned.record_masters([master()])
    scanned.record_scan([], {NIGHT})
    assert scanned.masters() == [master()]
    assert scanned.known_dates() == {NIGHT}
    scanned.record_scan([], {NIGHT}, without_directory={NIGHT})
    assert scanned.masters() == []


def test_frames_of_some_nights_can_be_asked_for(scanned):
    other = dt.date(2025, 10, 15)
    scanned.record_scan([frame("20251015/Light/TX Eri/9.fit", date=other)], {other})
    assert list(scanned.known_frames([other])) == ["20251015/Light/TX Eri/9.fit"]
    assert len(scanned.known_frames()) == 4


def test_a_scan_of_one_night_leaves_the_others(scanned):
    other = dt.date(2025, 10, 15)
    scanned.record_scan([frame("20251015/Light/TX Eri/9.fit", date=other)], {other})
    assert scanned.night_keys() == ["20251014", "20251015"]
    assert scanned.target_row(KEY).n_frames == 2


def test_an_unreadable_frame_gives_its_own_reason(scanned):
    scanned.record_scan(
        [light(1), light(2, filter=None, group=None, reason="empty file (0 bytes)")], {NIGHT}
    )
    rows = {row.observation.filter: row for row in scanned.targets()}
    assert (rows["V"].n_frames, rows["V"].proc) == (1, None)
    assert rows["unknown"].proc == "noframes"
    assert rows["unknown"].reason == "0 of 1 frames usable: empty file (0 bytes)"
    assert scanned.light_frames(rows["unknown"].observation)[0].reason == "empty file (0 bytes)"


def test_signatures_change_with_their_own_frames_only(scanned):
    blue = [light(5, filter="B")]
    scanned.record_scan([light(1), light(2), *blue], {NIGHT})
    before = scanned.light_signatures()
    assert set(before) == {KEY, "20251014__TX_Eri__B"}
    scanned.record_scan([light(1), light(2, mtime_ns=2), *blue], {NIGHT})
    after = scanned.light_signatures()
    assert after[KEY] != before[KEY]
    assert after["20251014__TX_Eri__B"] == before["20251014__TX_Eri__B"]


@pytest.mark.parametrize("nothing", [None, 0, "0", ""])
@pytest.mark.parametrize("column", ["proc_bias", "proc_flat", "proc", "apphot", "submitted"])
def test_null_and_zero_both_mean_not_done(scanned, column, nothing):
    execute(scanned, f"UPDATE target SET {column} = ?", nothing)
    assert getattr(scanned.target_row(KEY), column) is None


def test_submitted_cannot_be_written_by_a_run(scanned):
    with pytest.raises(ValueError, match=r"not status columns: \['submitted'\]"):
        scanned.set_status(KEY, {"submitted": None})


@pytest.mark.parametrize(
    ("ending", "proc", "apphot"),
    [
        (NoWcs("0 of 3"), "nowcs", "nowcs"),
        (NoComps("0 stars"), "solved", "nocomps"),
        (VspUnavailable("away"), "solved", "novsp"),
        (NoFrames("0 of 3 usable"), "noframes", None),
        (NoCalibration("2 biases"), "solved", None),
    ],
)
def test_an_ending_writes_its_words_and_leaves_none_of_later_stages(scanned, ending, proc, apphot):
    scanned.set_status(KEY, {"proc": Proc.SOLVED, "apphot": Apphot.VALIDATE})
    scanned.record_shortfall(KEY, ending)
    row = scanned.target_row(KEY)
    assert (row.proc, row.apphot, row.reason) == (proc, apphot, str(ending))


def test_a_failing_write_leaves_nothing_behind(scanned):
    with pytest.raises(ValueError, match="not status columns"):
        scanned.record_product(
            KEY,
            "variable",
            path="p",
            content_hash="h",
            version="v",
            inputs={},
            status={"nonsense": "x"},
        )
    assert scanned.product_version(KEY, "variable") is None


def test_an_unknown_key_is_an_error(scanned):
    with pytest.raises(LookupError, match="no observation 20251014__Y__V in wombatpipeline"):
        scanned.target_row("20251014__Y__V")


def test_names_are_data_whatever_they_hold(status):
    name = "'; DROP TABLE target; --"
    status.record_scan([light(1, target=name, filter="V'\"")], {NIGHT})
    (row,) = status.targets()
    assert (row.observation.target, row.observation.filter) == (name, "V'\"")
    assert len(status.light_frames(row.observation)) == 1


def test_calibrations_of_a_night_without_lights_are_no_rows_of_cal(status):
    status.record_scan([bias(1)], {NIGHT})
    assert execute(status, "SELECT count(*) FROM cal") == [(0,)]


def test_refused_calibrations_do_not_count(scanned):
    scanned.record_scan([light(1), bias(1), bias(2, reason="truncated")], {NIGHT})
    assert execute(scanned, "SELECT count FROM cal") == [(1,)]


def test_two_directories_of_one_date_are_one_night(status):
    frames = [
        frame("2025-10-14_b/Light/TX Eri/1.fit"),
        frame("20251014/Light/TX Eri/2.fit"),
    ]
    status.record_scan(frames, {NIGHT})
    (row,) = status.targets()
    assert (row.n_frames, row.night) == (2, "2025-10-14_b")  # the first by name
    assert status.night_keys() == ["20251014"]


def master(**changes):
    known = {
        "kind": FrameKind.BIAS, "date": NIGHT, "filter": None, "group": GROUP,
        "path": "20251014/mbias.fits", "content_hash": "abc", "n_used": 5, "n_refused": 0,
    }  # fmt: skip
    return Master(**known | changes)


def test_masters_come_back_by_kind_and_can_be_forgotten(status):
    flat = master(kind=FrameKind.FLAT, filter="V", path="20251014/mflatV.fits")
    status.record_masters([master(), flat])
    assert status.masters() == [master(), flat]
    assert status.masters(FrameKind.FLAT) == [flat]
    status.forget_masters(NIGHT, FrameKind.BIAS, keep=[])
    assert status.masters() == [flat]


def test_a_master_of_ours_stays_ours_when_it_is_forgotten(status):
    status.remember_our_master("abc")
    status.remember_our_master("abc")
    status.record_masters([master()])
    status.forget_masters(NIGHT, FrameKind.BIAS, keep=[])
    assert status.is_our_master("abc")
    assert not status.is_our_master("def")


def solution(**changes):
    known = {
        "file": "20251014/Light/TX Eri/1.fit", "status": SolveStatus.SOLVED,
        "solution": WcsSolution(
            ra_deg=65.0, dec_deg=-9.0, crpix_x=160.5, crpix_y=128.5,
            cd11=-0.0004, cd12=0.0, cd21=0.0, cd22=0.0004,
        ),
        "attempts": (SolveAttempt(rung="1", solver="astap", outcome="no_match"),),
    }  # fmt: skip
    return FrameSolution(**known | changes)


def test_a_frame_is_one_row_of_wcs_with_its_attempts_as_json(scanned):
    observation = scanned.target_row(KEY).observation
    for _ in range(2):
        scanned.record_solutions(
            observation, [solution()], centres={"20251014/Light/TX Eri/1.fit": (65.1, -9.1)}
        )
    scanned.record_target_places(observation, {"20251014/Light/TX Eri/1.fit": (12.5, 13.5)})
    rows = execute(
        scanned,
        "SELECT status, ra_center, scale_x, parity, target_x, target_y,"
        " json_extract(attempts, '$[0].outcome') FROM WCS",
    )
    assert rows == [("solved", 65.1, pytest.approx(1.44), -1, 12.5, 13.5, "no_match")]


def test_solving_again_keeps_rows_and_places_and_forgets_frames_that_are_gone(scanned):
    observation = scanned.target_row(KEY).observation
    files = [f"20251014/Light/TX Eri/{n}.fit" for n in (1, 2)]
    scanned.record_solutions(observation, [solution(file=f) for f in files], centres={})
    scanned.record_target_places(observation, {files[1]: (12.5, 13.5)})
    rows = "SELECT id, file, target_x, n_stars FROM WCS"
    (_, kept) = execute(scanned, rows)
    scanned.record_solutions(observation, [solution(file=files[1], n_stars=7)], centres={})
    assert execute(scanned, rows) == [(*kept[:3], 7)]
    assert kept[2] == 12.5


def test_an_ended_row_knows_the_frames_its_run_began_with(scanned):
    for asset, inputs in (("calibration_choice", {"lights": "abc"}), ("variable", {})):
        scanned.record_product(
            KEY, asset, path="p", content_hash="h", version="v", inputs=inputs, status={}
        )
    assert scanned.target_row(KEY).lights is None
    scanned.set_status(KEY, {"apphot": Apphot.VALIDATE})
    assert scanned.target_row(KEY).lights == "abc"


def test_the_signature_of_masters_is_that_of_paths_and_pixels(scanned):
    scanned.record_masters([master()])
    before = scanned.masters_signature()
    scanned.record_masters([master(n_used=4)])
    assert scanned.masters_signature() == before
    scanned.record_masters([master(content_hash="def")])
    assert scanned.masters_signature() != before


def test_an_unsolved_frame_has_a_row_with_its_reason(scanned):
    failed = dataclasses.replace(
        solution(), status=SolveStatus.FAILED, solution=None, reason="no_match"
    )
    scanned.record_solutions(scanned.target_row(KEY).observation, [failed], centres={})
    assert execute(scanned, "SELECT status, reason, scale_x FROM WCS") == [
        ("failed", "no_match", None)
    ]
