"""Decisions follow an observation that is renamed, goes and comes back, or loses its row."""

import dataclasses
import datetime as dt
import sqlite3
from contextlib import closing

import pytest

from wombat_dagster.domain import DecisionKind as Kind
from wombat_dagster.domain import FrameGroup, FrameKind, RawFrame
from wombat_dagster.store.decisions import Decisions
from wombat_dagster.store.report_ledger import NewLine, ReportLedger
from wombat_dagster.store.status import StatusDatabase

DATE = dt.date(2025, 10, 14)
KEY, RENAMED = "20251014__SV_Wom__V", "20251014__SV_Wombat__V"
PIXELS = ("a", "b", "c")


def light(target, pixels, date=DATE):
    fields = {field.name: None for field in dataclasses.fields(RawFrame)}
    return RawFrame(
        **fields
        | {
            "path": f"{date:%Y%m%d}/Light/{target}/{pixels}.fit",
            "date": date,
            "night_directory": f"{date:%Y%m%d}",
            "kind": FrameKind.LIGHT,
            "target": target,
            "filter": "V",
            "pixel_hash": pixels,
            "size_bytes": 1,
            "mtime_ns": 1,
            "warnings": (),
            "group": FrameGroup(width_px=1, height_px=1, binning="1x1", camera=None, readout=None),
        }
    )


def lights(target, pixels=PIXELS, date=DATE):
    return [light(target, one, date) for one in pixels]


@pytest.fixture
def status(tmp_path):
    found = StatusDatabase(tmp_path / "wombatpipeline.db")
    found.record_scan(lights("SV Wom"), [DATE])
    return found


@pytest.fixture
def journal(status):
    found = Decisions(status.path)
    found.record(KEY, Kind.REJECT_POINTS, who="XYZ", raw_hashes=["a"])
    found.record(KEY, Kind.APPROVE, who="XYZ", approved_mag={"b": 12.0, "c": 12.1})
    return found


def test_a_renamed_observation_takes_its_decisions_and_reported_lines_along(status, journal):
    line = NewLine(
        observer="XYZ", star="SV Wom", band="V", jd="2460963.5", content_hash="1", line="…",
        key=KEY, raw_hash="b",
    )  # fmt: skip
    ReportLedger(status.path).record([line], file="a.txt", who="XYZ")
    status.record_scan(lights("SV Wombat"), [DATE])
    row = status.target_row(RENAMED)
    assert (row.submitted, row.changed_since) == ("exported", f"renamed: was {KEY}")
    assert (journal.history(KEY), journal.points(RENAMED)) == ((), {"a": True})
    assert journal.approved_mag(RENAMED) == {"b": 12.0, "c": 12.1}
    assert ReportLedger(status.path).submit(keys=[RENAMED], who="XYZ") == 1
    assert status.target_row(RENAMED).submitted == "submitted"
    assert status.target_row(KEY).submitted is None


def test_renamed_there_and_back_nothing_is_lost(status, journal):
    status.record_scan(lights("SV Wombat"), [DATE])
    journal.undo(RENAMED, who="XYZ")
    journal.record(RENAMED, Kind.REJECT, who="XYZ", why="clouds")
    status.record_scan(lights("SV Wom"), [DATE])
    assert status.target_row(KEY).submitted == "usrrej"
    assert len(journal.history(KEY)) == 3
    assert (status.target_row(RENAMED).submitted, journal.history(RENAMED)) == (None, ())


def test_frames_that_come_back_in_a_later_scan_under_another_name_are_known(status, journal):
    status.record_scan([], [DATE])
    assert status.target_row(KEY).submitted == "approved"
    status.record_scan(lights("SV Wombat"), [DATE])
    assert status.target_row(RENAMED).submitted == "approved"
    assert journal.points(RENAMED) == {"a": True}


def test_another_target_s_frames_inherit_nothing(status, journal):
    status.record_scan(lights("SV Wombat", ("x", "y", "c")), [DATE])
    assert status.target_row(RENAMED).submitted is None
    assert len(journal.history(KEY)) == 2


def test_a_recalled_approval_stays_one_under_the_new_name(status, journal):
    journal.record(KEY, Kind.RECALL, who="wombat", why="T1 +0.1 mag")
    status.note_changed_since(KEY, "T1 +0.1 mag")
    status.record_scan(lights("SV Wombat"), [DATE])
    row = status.target_row(RENAMED)
    assert (row.submitted, row.changed_since) == (None, "made again T1 +0.1 mag")
    assert journal.history(RENAMED)[-1].kind is Kind.RECALL


def test_a_row_that_a_person_deletes_comes_back_with_what_was_decided(status, journal):
    with closing(sqlite3.connect(status.path)) as connection, connection:
        connection.execute("DELETE FROM target")
    assert len(journal.history(KEY)) == 2
    status.record_scan(lights("SV Wom"), [DATE])
    assert status.target_row(KEY).submitted == "approved"


def test_a_scan_leaves_a_word_written_by_hand_alone(status, journal):
    with closing(sqlite3.connect(status.path)) as connection, connection:
        connection.execute("UPDATE target SET submitted = 'submitted'")
    status.record_scan(lights("SV Wom"), [DATE])
    assert status.target_row(KEY).submitted == "submitted"
    status.record_scan(lights("SV Wombat"), [DATE])
    assert status.target_row(RENAMED).submitted == "submitted"
