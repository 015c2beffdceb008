"""``wombat approve``, ``reject``, ``restore``, ``undo``, ``confirm`` and ``submitted``."""

import contextlib
import dataclasses
import datetime as dt
import json
import sqlite3

import pytest
from click.testing import CliRunner

from wombat_dagster import config
from wombat_dagster.commands import decide
from wombat_dagster.commands.explain import explain
from wombat_dagster.commands.submitted import submitted
from wombat_dagster.domain import PointState
from wombat_dagster.products import PRODUCTS
from wombat_dagster.stages.decisions import point_states
from wombat_dagster.stages.due import due_observations
from wombat_dagster.store.decisions import Decisions
from wombat_dagster.store.report_ledger import NewLine, ReportLedger

KEY = "20251014__SV_Wom__V"
NIGHT = dt.date(2025, 10, 14)
COMMANDS = {
    one.name: one
    for one in (
        decide.approve, decide.reject, decide.restore, decide.undo, decide.confirm, explain,
        submitted,
    )
}  # fmt: skip


@pytest.fixture(scope="module")
def measured(open_place, tmp_path_factory):
    with open_place(tmp_path_factory.mktemp("decided") / "obs") as place:
        place.configure(observer='code = "XYZ"')
        place.take("20251014/Bias/*", "20251014/Flat/*V.fit", "20251014/Light/SV Wom/*V.fit")
        assert place.run() == {}
        yield place


@pytest.fixture
def place(measured):
    """The place with nothing decided."""
    path = measured.observatory.status.path
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        for table in ("decision", "approved_point", "report_line"):
            connection.execute(f"DELETE FROM {table}")
        connection.execute("UPDATE target SET submitted = NULL, changed_since = NULL")
    return measured


@pytest.fixture
def wombat(place, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv(config.CONFIG_ENV, str(place.root / config.CONFIG_NAME))

    def run(name, *words, exit_code=0):
        ended = CliRunner().invoke(COMMANDS[name], words)
        assert ended.exit_code == exit_code, ended.output
        return ended.output

    return run


def word(place):
    return place.row("SV Wom").submitted


def states(place):
    points = Decisions(place.observatory.status.path).points(KEY)
    return point_states(place.product("standard_magnitudes", KEY), points)


def report(place, file="a.txt"):
    magnitudes = place.product("standard_magnitudes", KEY)
    lines = [
        NewLine(
            observer="XYZ", star="SV Wom", band="V", jd=f"{magnitudes.jd_utc[i]:.6f}",
            content_hash="1", line="…", key=KEY, raw_hash=magnitudes.raw_hashes[i],
        )
        for i in (1, 2)
    ]  # fmt: skip
    ReportLedger(place.observatory.status.path).record(lines, file=file, who="XYZ")


def test_an_evening_of_decisions(place, wombat):
    label = place.product("standard_magnitudes", KEY).labels[0]
    said = wombat("reject", KEY, "--frames", label, "--why", "satellite")
    assert said == f"{KEY}: 1 point rejected; 3 of 4 points to be reported\n"
    wombat("reject", "20251014", "sv wom", "--points", "2,3-4")
    assert set(states(place)) == {PointState.REJECTED}
    wombat("restore", KEY, "--points", "3", "--frames", label)
    assert [one is PointState.REJECTED for one in states(place)] == [False, True, False, True]
    wombat("undo", KEY)
    assert set(states(place)) == {PointState.REJECTED}
    wombat("undo", KEY)
    assert wombat("approve", KEY) == f"{KEY}: approved, 3 of 4 points\n"
    assert word(place) == "approved"
    assert Decisions(place.observatory.status.path).history(KEY)[-1].who == "XYZ"
    said = wombat("undo", KEY)
    assert "undone is approve (XYZ, " in said
    assert said.endswith("it is not decided on\n")
    wombat("reject", KEY, "--why", "clouds")
    assert word(place) == "usrrej"


def test_refusals_are_words_and_exit_with_2(wombat):
    assert "needs a reason" in wombat("reject", KEY, exit_code=2)
    assert "numbered from 1 to 4" in wombat("reject", KEY, "--points", "6", exit_code=2)
    assert '"a" is no number' in wombat("reject", KEY, "--points", "1,a", exit_code=2)
    assert "nosuch.fit: no frame" in wombat("reject", KEY, "--frames", "nosuch.fit", exit_code=2)
    assert "which points" in wombat("restore", KEY, exit_code=2)
    for option in ("--points", "--frames"):  # of an empty variable
        said = wombat("reject", KEY, option, "", "--why", "satellite", exit_code=2)
        assert "no point is named" in said
    assert "nothing was decided" in wombat("undo", KEY, exit_code=2)
    assert "found by its name" in wombat("confirm", KEY, exit_code=2)
    assert "no observation" in wombat("approve", "20251014", "Nobody", exit_code=2)
    assert "no report in the ledger" in wombat("submitted", "b.txt", exit_code=2)
    assert f"nothing of {KEY} was reported" in wombat("submitted", KEY, exit_code=2)


def test_a_star_found_by_position_is_confirmed_with_the_approval_or_later(place, wombat):
    path = PRODUCTS["variable"].path(place.observatory.layout, KEY)
    before = path.read_bytes()
    star = dataclasses.replace(place.product("variable", KEY), match="position")
    path.write_bytes(PRODUCTS["variable"].encode(star))
    try:
        assert f"wombat confirm {KEY}" in wombat("approve", KEY)
        assert f"{star.name} ({star.auid}) confirmed" in wombat("confirm", KEY)
        wombat("undo", KEY)
        wombat("undo", KEY)
        assert "confirmed" in wombat("approve", KEY, "--confirm")
        assert "confirmed already" in wombat("confirm", KEY, exit_code=2)
    finally:
        path.write_bytes(before)


def test_uploaded_reports_are_marked_and_may_be_withdrawn(place, wombat):
    wombat("approve", KEY)
    report(place)
    assert word(place) == "exported"
    assert "withdraw" in wombat("undo", KEY, exit_code=2)
    assert wombat("submitted", "products/reports/a.txt") == "a.txt: 2 lines marked as submitted\n"
    assert word(place) == "submitted"
    assert "every line was marked" in wombat("submitted", "20251014", "SV Wom")
    assert wombat("submitted", "--withdraw", KEY) == f"{KEY}: 2 lines withdrawn\n"
    assert word(place) == "approved"


def test_points_that_were_reported_are_rejected_with_what_to_do_at_the_aavso(place, wombat):
    wombat("approve", KEY)
    report(place)
    assert "Do not upload it: wombat submitted --withdraw a.txt" in wombat(
        "reject", KEY, "--points", "2"
    )
    wombat("submitted", "a.txt")
    jd = place.product("standard_magnitudes", KEY).jd_utc[2]
    said = wombat("reject", KEY, "--points", "3,4")
    assert f"{KEY}: delete at the AAVSO: SV Wom, V, JD {jd:.6f}\n" in said
    assert word(place) == "submitted"
    assert f"--withdraw {KEY}" in wombat("reject", KEY, "--why", "clouds", exit_code=2)


@pytest.fixture
def other(place):
    """The key of the same target's observation through another filter, a row alone."""
    key = KEY.replace("__V", "__B")
    _sql(
        place,
        "INSERT INTO target (date, target, filter, night, key, apphot) VALUES"
        " ('2025-10-14', 'SV Wom', 'B', '20251014', ?, 'nocomps')",
        key,
    )
    yield key
    _sql(place, "DELETE FROM target WHERE key = ?", key)


def _sql(place, statement, *values):
    path = place.observatory.status.path
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement, values)


def test_night_and_target_are_all_filters_for_what_is_decided_as_a_whole(place, wombat, other):
    said = wombat("approve", "20251014", "SV Wom", exit_code=2)
    assert f"{KEY}: approved" in said
    assert f"{other} cannot be approved: it has no magnitudes, it is nocomps" in said
    wombat("undo", "20251014", "SV Wom", "V")
    _sql(place, "UPDATE target SET apphot = 'validate' WHERE key = ?", other)
    said = wombat("reject", "20251014", "sv", "--why", "clouds")
    assert said.splitlines() == [f"{other}: rejected", f"{KEY}: rejected"]
    for command in (("undo",), ("reject", "--points", "1")):  # of one at a time
        assert "may be each of" in wombat(*command, "20251014", "SV Wom", exit_code=2)


def test_a_star_is_confirmed_with_all_filters_of_its_night(place, wombat, other):
    path, new = (PRODUCTS["variable"].path(place.observatory.layout, key) for key in (KEY, other))
    before = path.read_bytes()
    star = dataclasses.replace(place.product("variable", KEY), match="position")
    new.parent.mkdir(parents=True, exist_ok=True)
    try:
        for one in (path, new):
            one.write_bytes(PRODUCTS["variable"].encode(star))
        said = wombat("confirm", "20251014", "SV Wom").splitlines()
        assert said[0].startswith(f"{other}: {star.name} ")
        assert said[1:] == [f"{KEY}: confirmed with {other}"]
    finally:
        path.write_bytes(before)
        new.unlink()


def test_explain_tells_what_was_decided_and_reported(place, wombat):
    assert "Decisions" not in wombat("explain", KEY)
    wombat("reject", KEY, "--points", "1", "--why", "satellite")
    wombat("approve", KEY)
    wombat("undo", KEY)
    wombat("approve", KEY)
    report(place)
    said = wombat("explain", KEY)
    assert "XYZ rejected points of it: 1 (satellite)" in said
    assert "XYZ approved it; undone " in said
    assert "points: 3 good, 1 rejected" in said
    assert "reported in a.txt: 2 lines, 0 of them submitted" in said
    told = json.loads(wombat("explain", KEY, "--json"))["sections"]
    (facts,) = [one["facts"] for one in told if one["name"] == "decisions"]
    assert [one["kind"] for one in facts["decisions"]] == [
        "reject-points", "approve", "approve", "export",
    ]  # fmt: skip
    assert "this point is rejected" in wombat("explain", KEY, "--frame", "1")
    assert "reported as …" in wombat("explain", KEY, "--frame", "2")


def test_an_approved_night_made_again_by_hand_with_other_comps_waits_again_and_is_left_in_peace(
    place, wombat
):
    """Without its best comp T1 is another one by more than nothing; nothing is due after that."""
    wombat("approve", KEY)
    before = place.product("standard_magnitudes", KEY)
    place.configure(
        observer='code = "XYZ"',
        report="changed_mag = 0.0",
        tail=f'[[target]]\ndirectory = ["SV Wom"]\nban = ["{before.comp_names[0]}"]',
    )
    observatory = place.observatory
    outlook = due_observations(observatory, check_for_s=None)
    assert (outlook.due, [*outlook.changed_since]) == ((), [KEY])
    assert place.run(night=NIGHT, nights=False) == {}
    after = place.product("standard_magnitudes", KEY)
    assert set(after.comp_names) != set(before.comp_names)
    row = place.row("SV Wom")
    assert (row.submitted, row.apphot) == (None, "validate")
    assert "after you approved: T1 " in row.changed_since
    assert f"comps left out: {before.comp_names[0]}" in row.changed_since
    outlook = due_observations(observatory, check_for_s=None)
    assert (outlook.due, outlook.changed_since) == ((), {})
    observatory.status.record_changed_since({})
    assert "changed since it was decided on: made again" in wombat("explain", KEY)
    wombat("approve", KEY)
    assert place.row("SV Wom").changed_since is None
    place.configure(observer='code = "XYZ"')
