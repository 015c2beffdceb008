"""``wombat status``: what a person, or a program, is told of every observation."""

import datetime as dt
import json
import re

import pytest
from click.testing import CliRunner

from wombat_dagster import config
from wombat_dagster.catalogs.breaker import Breaker
from wombat_dagster.cli import main
from wombat_dagster.config import AavsoSettings
from wombat_dagster.domain import Finding, FrameKind, FrameTriage, RawFrame, Severity
from wombat_dagster.products import PRODUCTS
from wombat_dagster.store.layout import Layout
from wombat_dagster.store.locks import held
from wombat_dagster.store.stage_runs import FAILED, StageRuns
from wombat_dagster.store.status import StatusDatabase
from wombat_dagster.store.tables import dump_json

NAMES = {
    "date", "target", "filter", "key", "night", "proc_bias", "proc_flat", "proc_dark", "proc",
    "apphot", "submitted", "reason", "n_frames", "n_quarantined", "updated_utc", "changed_since",
    "retired_utc", "word", "cause", "remedy", "due", "broken", "night_broken", "waits_for",
    "products", "log", "at_work",
}  # fmt: skip
"""What ``--json`` promises; programs of others read them."""
UNKNOWN = dict.fromkeys(
    (
        "pixel_hash", "group", "ccd_temperature_c", "ra_hint_deg", "dec_hint_deg",
        "scale_hint_arcsec_px", "site_hint", "airmass_header", "gain_header_e_adu",
        "gain_header_source", "read_noise_header_e", "saturation_header_adu", "pedestal_adu",
        "bayer_pattern", "calibration_status",
    )
)  # fmt: skip


def light(night, target):
    return RawFrame(
        path=f"{night:%Y%m%d}/Light/{target}/a.fits", night_directory=f"{night:%Y%m%d}", date=night,
        kind=FrameKind.LIGHT, target=target, filter="V", size_bytes=1, mtime_ns=1,
        exposure_s=60.0, start_utc=f"{night}T22:00:00", **UNKNOWN,
    )  # fmt: skip


class Archive:
    """A database with one observation a night, to be written into."""

    def __init__(self, root):
        self.root = root
        (root / "data").mkdir()
        (root / config.CONFIG_NAME).write_text("")
        self.path = root / "wombatpipeline.db"
        self.status = StatusDatabase(self.path)
        self.stages = StageRuns(self.path)

    def add(self, day, target="TX Eri", **columns):
        night = dt.date(2025, 10, day)
        known = [*self.status.known_frames().values(), light(night, target)]
        self.status.record_scan(known, [night])
        key = f"{night:%Y%m%d}__{target.replace(' ', '_')}__V"
        with self.status._writing() as connection:
            for name, value in columns.items():
                connection.execute(f"UPDATE target SET {name} = ? WHERE key = ?", (value, key))
        return key

    def stage(self, key, asset, ending, reason=None, run_id="0123456789"):
        number = self.stages.begin(key, asset, inputs={}, run_id=run_id, why="new")
        if ending is not None:
            self.stages.end(number, ending, reason, inputs={})


@pytest.fixture
def archive(tmp_path):
    return Archive(tmp_path)


@pytest.fixture
def status(archive, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")

    def run(*words, exit_code=0):
        for name in (config.CONFIG_ENV, "DAGSTER_HOME"):
            monkeypatch.setenv(name, "")
            monkeypatch.delenv(name)
        file = str(archive.root / config.CONFIG_NAME)
        ended = CliRunner().invoke(main, ["--config", file, "status", *words])
        assert ended.exit_code == exit_code, ended.output
        return json.loads(ended.stdout) if "--json" in words else ended.output

    return run


def line_with(text, words):
    (line,) = [line for line in text.splitlines() if words in line]
    return line


def test_the_last_line_counts_the_words(archive, status):
    for day in range(1, 5):
        archive.add(day, apphot="validate" if day < 4 else "novsp")
    assert status().splitlines()[-1] == "4 observations in 4 nights: 3 validate, 1 novsp."


def test_what_changed_since_a_person_decided_is_listed(archive, status):
    archive.add(1, apphot="validate", submitted="approved", changed_since="other masters: bias")
    text = status()
    assert "changed since: other masters: bias" in text
    assert "1 changed since decided" in text
    assert len(status("--reason", "changed", "--json")) == 1


def test_retired_observations_are_counted_and_shown_when_asked_for(archive, status):
    archive.add(1, apphot="validate")
    archive.add(2, apphot="validate", retired_utc="2025-11-01T00:00:00+00:00")
    assert "2025-10-02" not in status()
    assert status().splitlines()[-1].endswith("1 retired and hidden (--all).")
    assert "retired 2025-11-01" in status("--all")
    assert len(status("--json")) == 2


def test_a_failed_stage_is_said_with_where_to_look(archive, status):
    key = archive.add(1)
    archive.stage(key, "calibration_choice", "made")
    archive.stage(key, "reduced_frames", FAILED, "No space left on the disk")
    words = line_with(status(), "reduced_frames failed")
    assert "No space left on the disk" in words
    assert str(archive.root / "products/20251001/TX_Eri/V/log.txt") in words
    assert "run 01234567" in words
    (one,) = status("--reason", "failed", "--json")
    assert [(b["asset"], b["ending"]) for b in one["broken"]] == [("reduced_frames", FAILED)]


def test_a_stage_that_failed_and_was_made_since_is_no_more_said(archive, status):
    key = archive.add(1)
    archive.stage(key, "calibration_choice", FAILED, "a fault", run_id="first")
    archive.stage(key, "calibration_choice", "made", run_id="second")
    assert "a fault" not in status()


def test_what_broke_in_an_earlier_run_is_no_more_said(archive, status):
    """Only what is broken in the last run is tried again."""
    key = archive.add(1)
    archive.stage(key, "diagnostics", FAILED, "a fault", run_id="first")
    archive.stage(key, "standard_magnitudes", "made", run_id="second")
    assert "a fault" not in status()


def test_a_stage_without_an_end_whose_lock_nobody_holds_did_not_end(archive, status):
    key = archive.add(1)
    archive.stage(key, "calibration_choice", None)
    (one,) = status("--reason", "failed", "--json")
    assert one["broken"][0]["ending"] is None
    assert one["at_work"] is None
    text = status()
    assert "did not end: killed" in text
    assert "1 failed or did not end" in text


def test_a_stage_at_work_is_told_from_one_that_was_killed(archive, status):
    key = archive.add(1)
    archive.stage(key, "calibration_choice", "made")
    archive.stage(key, "photometry_table", None)
    with held(archive.root / "products/20251001/TX_Eri/V/.lock"):
        text = status()
        (one,) = status("--json")
    assert (one["broken"], one["at_work"]["asset"], one["due"]) == ([], "photometry_table", None)
    assert re.search(r"at work: measuring, since \d{4}-\d\d-\d\d \d\d:\d\d UTC", text)
    assert "1 at work" in text
    assert "failed" not in text
    assert "did not end" not in text


def test_masters_at_work_are_no_failure(archive, status):
    archive.add(1)
    archive.stage("20251001", "master_flats", None)
    with held(archive.root / "products/20251001/.lock"):
        text = status()
    assert "Night 20251001: at work: master flats, since" in text
    assert "did not end" not in text


def test_a_retired_observation_has_a_remedy_of_its_own(archive, status):
    archive.add(1, proc="noframes", retired_utc="2025-11-01T00:00:00+00:00")
    text = status("--all")
    assert "retired: its frames are gone from the data. → put them back and it goes on" in text
    assert "mend headers" not in text
    (one,) = status("--json")
    assert one["remedy"].startswith("put them back")


def test_what_helps_against_frames_not_solved_goes_by_the_commonest_reason(archive, status):
    archive.add(1, apphot="nowcs", reason="0 of 5 frames solved (no_stars 4, timeout 1)")
    archive.add(2, apphot="nowcs", reason="0 of 5 frames solved (no_database 5); none")
    lines = [line for line in status().splitlines() if line.startswith("nowcs: ")]
    assert ["clouds" in line for line in lines] == [True, False]
    assert ["wombat doctor" in line for line in lines] == [False, True]


def test_why_the_night_has_no_flat_is_passed_on(archive, status):
    archive.add(1, proc="solved", proc_bias="nocal", proc_flat="nocal")
    archive.stage("20251001", "master_flats", "NoCalibration", "12 flats in V, but no bias")
    assert "flats of the night: 12 flats in V, but no bias" in status()


def doubtful(archive, key, words):
    warning = Finding(severity=Severity.WARNING, about="sun", words=words)
    note = Finding(severity=Severity.NOTE, about="cards", words="a small thing")
    triage = FrameTriage(key=key, grades=(), findings=(warning, note), best_frame=None, usual={})
    path = PRODUCTS["frame_triage"].path(Layout.of(config.Settings(base=archive.root)), key)
    path.parent.mkdir(parents=True)
    path.write_text(dump_json(triage))


def test_times_and_site_in_doubt_are_said_of_the_rows_shown(archive, status):
    for day in (1, 2):
        doubtful(archive, archive.add(day, apphot="validate"), "the Sun stands at up to +30 deg")
    archive.add(3, apphot="validate")
    lines = [line for line in status().splitlines() if line.startswith("Time and site: ")]
    assert lines == [
        f"Time and site: 2025100{day}__TX_Eri__V: the Sun stands at up to +30 deg" for day in (2, 1)
    ]
    assert "Time and site" not in status("--nights", "20251003")


def test_of_many_in_doubt_the_newest_are_named_and_the_others_counted(archive, status):
    for day in range(1, 9):
        doubtful(archive, archive.add(day, apphot="validate"), "the Sun was up")
    text = status()
    assert text.count("the Sun was up") == 5
    assert "Time and site: 3 more in doubt; wombat explain says why" in text


def test_quarantined_frames_are_shown_by_the_page_of_frames(archive, status):
    archive.add(1, n_quarantined=14)
    assert "14 quarantined light frames (why: frames.html" in status()


def test_a_night_whose_masters_failed_is_said_once(archive, status):
    archive.add(1, "TX Eri")
    archive.add(1, "SV Wom")
    archive.stage("20251001", "master_flats", FAILED, "a fault")
    text = status()
    assert len(re.findall("master_flats failed", text)) == 1
    assert str(archive.root / "products/20251001/log.txt") in text
    assert all(one["night_broken"] for one in status("--json"))


def test_what_was_never_begun_is_due(archive, status):
    archive.add(1)
    (one,) = status("--reason", "due", "--json")
    assert one["word"] == "new"
    assert one["due"] == {"why": "new", "words": "never begun", "job": "observation_job"}
    assert "Due now (1): 1 new." in status()


def test_a_service_known_to_be_away_is_said_where_an_observation_waits(archive, status):
    archive.add(1, apphot="novsp")
    archive.add(2, apphot="validate")
    Breaker("VSP", archive.root / "cache", AavsoSettings()).failed("HTTP 503 of vsp.aavso.org")
    waiting, done = status("--json")
    assert waiting["waits_for"]["words"] == "HTTP 503 of vsp.aavso.org"
    assert done["waits_for"] is None
    assert "VSP is away since" in status()


def test_the_names_in_json_are_those_promised(archive, status):
    archive.add(1, apphot="novsp")
    (one,) = status("--json")
    assert set(one) == NAMES
    assert one["remedy"].endswith("wombat retry --reason novsp")


@pytest.mark.parametrize(
    ("words", "days"),
    [
        (("--nights", "20251002..20251003"), {2, 3}),
        (("--nights", "2025-10-03.."), {3, 4}),
        (("--nights", "..20251001"), {1}),
        (("--nights", "20251004"), {4}),
        (("--target", "sv wom"), {3}),
        (("--target", "sv_wom"), {3}),
        (("--reason", "nocal"), {2}),
        (("--reason", "novsp"), {4}),
        (("--reason", "validate", "--nights", "..20251002"), {1, 2}),
    ],
)
def test_a_part_of_a_large_archive_is_picked(archive, status, words, days):
    archive.add(1, apphot="validate")
    archive.add(2, apphot="validate", proc_flat="nocal")
    archive.add(3, "SV Wom", apphot="validate")
    archive.add(4, apphot="novsp")
    found = status(*words, "--json")
    assert {dt.date.fromisoformat(one["date"]).day for one in found} == days


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        (("--nights", "tonight"), "is no night"),
        (("--nights", ".."), "are no nights"),
        (("--nights", "20251002..20251001"), "comes before"),
        (("--reason", "novps"), "is no status word"),
        (("--target", "M 31"), "no target"),
    ],
)
def test_a_slip_of_the_pen_is_refused(archive, status, words, refusal):
    archive.add(1)
    assert refusal in status(*words, exit_code=2)


def test_status_writes_nothing(archive, status):
    archive.add(1)
    before = {path: path.stat().st_mtime_ns for path in archive.root.iterdir() if path.is_file()}
    content = archive.path.read_bytes()
    status()
    assert archive.path.read_bytes() == content
    assert {path.name for path in archive.root.iterdir() if path.is_file()} <= {
        *(path.name for path in before), "wombatpipeline.db-wal", "wombatpipeline.db-shm",
    }  # fmt: skip
