"""What a person may decide, what is refused in words, and when wombat takes an approval back."""

import contextlib
import dataclasses
import getpass
import sqlite3

import numpy as np
import pytest

from wombat_dagster.config import Settings
from wombat_dagster.domain import DecisionKind as Kind
from wombat_dagster.domain import PointState, StandardMagnitudes, Variable
from wombat_dagster.observatory import Observatory
from wombat_dagster.products import PRODUCTS
from wombat_dagster.stages import decisions
from wombat_dagster.stages.decisions import Refusal
from wombat_dagster.stages.remade import (
    differs_from_approved,
    recall_if_moved,
    record_change,
)
from wombat_dagster.store.decisions import Decisions, Overtaken
from wombat_dagster.store.report_ledger import NewLine, ReportLedger
from wombat_dagster_tests.magnitude_tables import noisy_night, standardised

KEY, OTHER = "20251015__TX_Eri__V", "20251016__TX_Eri__V"
HASHES = tuple(f"{i:08x}" for i in range(6))
CLOUDED = 4  # the point that is proposed to be rejected


@pytest.fixture(scope="module")
def night() -> StandardMagnitudes:
    made = standardised(noisy_night(n_frames=6))
    proposed = tuple("cloud" if i == CLOUDED else "" for i in range(6))
    return dataclasses.replace(made, raw_hashes=HASHES, proposed_rejected=proposed)


@pytest.fixture
def observatory(tmp_path, night):
    opened = Observatory(Settings(base=tmp_path))
    sql(
        opened,
        "INSERT INTO target (date, target, filter, night, key, apphot) VALUES"
        " ('2025-10-15', 'TX Eri', 'V', '20251015', ?, 'validate'),"
        " ('2025-10-16', 'TX Eri', 'V', '20251016', ?, 'novsp')",
        KEY,
        OTHER,
    )
    write(opened, "standard_magnitudes", night)
    return opened


@pytest.fixture
def journal(observatory):
    return Decisions(observatory.status.path)


def sql(observatory, statement, *values):
    with contextlib.closing(sqlite3.connect(observatory.status.path)) as connection, connection:
        connection.execute(statement, values)


def write(observatory, asset, value):
    path = PRODUCTS[asset].path(observatory.layout, KEY)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(PRODUCTS[asset].encode(value))


def submitted(observatory):
    return observatory.status.target_row(KEY).submitted


def approve(observatory, **more):
    return decisions.approve(observatory, KEY, who="XYZ", **more)


def moved(night, by_mag, at=slice(None), **changes):
    t1_mag = night.t1_mag.copy()
    t1_mag[at] += by_mag
    return dataclasses.replace(night, t1_mag=t1_mag, **changes)


# ------------------------------------------------------------------------------------- the rules


def test_who_decides_is_the_observer_code_else_the_login(monkeypatch):
    assert decisions.who_decides(Settings(observer={"code": "XYZ"})) == "XYZ"
    monkeypatch.setattr(getpass, "getuser", lambda: "ada")
    assert decisions.who_decides(Settings()) == "ada"


def test_a_proposed_point_stays_out_until_the_person_restores_it(night):
    says = {HASHES[0]: True, HASHES[1]: False, HASHES[CLOUDED]: False}
    states = decisions.point_states(night, says)
    assert states[:2] == (PointState.REJECTED, PointState.GOOD)
    assert states[CLOUDED] is PointState.RESTORED
    assert decisions.point_states(night, {})[CLOUDED] is PointState.PROPOSED
    assert [*decisions.kept(night, says)] == [False, True, True, True, True, True]
    assert [*decisions.kept(night, {})] == [True, True, True, True, False, True]
    assert decisions.kept(moved(night, np.nan, 1), {}).sum() == 4


def test_what_leaves_proposed_points_out_follows_the_person(night):
    says = {HASHES[0]: True, HASHES[CLOUDED]: False}
    assert decisions.as_decided(night, says).proposed_rejected == ("observer", *[""] * 5)
    assert decisions.as_decided(night, {}).proposed_rejected == night.proposed_rejected


def test_approving_takes_t1_of_the_points_to_be_reported_and_the_version(
    observatory, journal, night
):
    decisions.reject_points(observatory, KEY, [HASHES[0]], who="XYZ", why="satellite")
    said = approve(observatory)
    assert submitted(observatory) == "approved"
    assert said.version == PRODUCTS["standard_magnitudes"].version(night)
    wanted = {HASHES[i]: pytest.approx(night.t1_mag[i]) for i in (1, 2, 3, 5)}
    assert journal.approved_mag(KEY) == wanted
    chosen = decisions.to_report(night, journal.points(KEY), journal.approved_mag(KEY))
    assert [*np.flatnonzero(chosen)] == [1, 2, 3, 5]
    decisions.restore_points(observatory, KEY, [HASHES[0], HASHES[CLOUDED]], who="XYZ")
    chosen = decisions.to_report(night, journal.points(KEY), journal.approved_mag(KEY))
    assert chosen.all()


def test_a_point_that_nobody_approved_is_not_reported(night):
    approved = dict.fromkeys(HASHES[:3], 12.0)
    assert [*np.flatnonzero(decisions.to_report(night, {}, approved))] == [0, 1, 2]
    assert decisions.to_report(night, {}, {}).sum() == 5  # the word was written by hand


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("UPDATE target SET apphot = 'nocomps', reason = '2 comps'", r"it is nocomps \(2 comps\)"),
        ("UPDATE target SET apphot = NULL", "not measured yet"),
        ("UPDATE target SET apphot = 'held', reason = 'T2 0.2 mag off'", "0.2 mag off.*say why"),
        ("DELETE FROM target", "no observation"),
    ],
)
def test_what_has_no_good_magnitudes_is_not_approved(observatory, journal, statement, words):
    sql(observatory, statement)
    with pytest.raises(Refusal, match=words):
        approve(observatory)
    assert journal.history(KEY) == ()


def test_one_that_is_held_is_approved_with_a_reason(observatory):
    sql(observatory, "UPDATE target SET apphot = 'held', reason = 'T2 0.2 mag off'")
    said = approve(observatory, why=" the check star varies ")
    assert said.why == "although held: T2 0.2 mag off; the check star varies"
    assert decisions.accepts_hold(said)


@pytest.mark.parametrize("words", ["seeing was 4 arcsec", "although held: so it was"])
def test_words_on_a_night_that_was_not_held_accept_no_later_hold(observatory, night, words):
    assert not decisions.accepts_hold(approve(observatory, why=words))
    held = dataclasses.replace(night, held_reason="T2 0.2 mag off")
    assert recall_if_moved(observatory, KEY, held) is not None
    sql(observatory, "UPDATE target SET apphot = 'held', reason = 'T2 0.2 mag off'")
    write(observatory, "standard_magnitudes", held)
    with pytest.raises(Refusal, match="say why"):
        approve(observatory)
    approve(observatory, why="the check star varies")
    assert recall_if_moved(observatory, KEY, held) is None


def test_magnitudes_that_are_held_want_a_reason_whatever_the_row_says(observatory, night):
    held = dataclasses.replace(night, held_reason="T2 0.2 mag off")
    write(observatory, "standard_magnitudes", held)
    with pytest.raises(Refusal, match=r"T2 0\.2 mag off.*say why"):
        approve(observatory)


def test_magnitudes_that_are_gone_or_damaged_are_not_approved(observatory):
    path = PRODUCTS["standard_magnitudes"].path(observatory.layout, KEY)
    path.write_text("rubbish")
    with pytest.raises(Refusal, match="cannot be read"):
        approve(observatory)
    path.unlink()
    with pytest.raises(Refusal, match=r"magnitudes\.csv is not there"):
        approve(observatory)


def test_nothing_is_approved_that_has_no_point_left(observatory):
    decisions.reject_points(observatory, KEY, HASHES[:4], who="XYZ")
    approve(observatory)
    with pytest.raises(Refusal, match="no point left"):
        decisions.reject_points(observatory, KEY, HASHES[5:], who="XYZ")
    decisions.undo(observatory, KEY, who="XYZ")
    decisions.reject_points(observatory, KEY, HASHES[5:], who="XYZ")
    with pytest.raises(Refusal, match="not one of its 6 points"):
        approve(observatory)


def test_rejecting_needs_a_reason(observatory):
    with pytest.raises(Refusal, match="needs a reason"):
        decisions.reject(observatory, KEY, who="XYZ", why="  ")
    decisions.reject(observatory, KEY, who="XYZ", why="clouds")
    assert submitted(observatory) == "usrrej"
    with pytest.raises(Refusal, match="rejected already"):
        decisions.reject(observatory, KEY, who="XYZ", why="clouds")
    with pytest.raises(Refusal, match="novsp"):
        decisions.reject(observatory, OTHER, who="XYZ", why="clouds")


def test_the_same_is_not_decided_twice(observatory, journal):
    approve(observatory)
    with pytest.raises(Refusal, match=r"approved already \(XYZ, "):
        approve(observatory)
    decisions.reject_points(observatory, KEY, [HASHES[0]], who="XYZ")
    with pytest.raises(Refusal, match="1 point is rejected already"):
        decisions.reject_points(observatory, KEY, [HASHES[0]], who="XYZ")
    with pytest.raises(Refusal, match="not rejected"):
        decisions.restore_points(observatory, KEY, [HASHES[1]], who="XYZ")
    assert len(journal.history(KEY)) == 2


def test_points_are_named_by_their_frames_or_by_number_and_others_refused(observatory, night):
    names = dataclasses.replace(
        night, labels=("A-1.fit", "a-2.fit", "a-2.fits", "d.fit", "e.fit", "f.fit")
    )
    called = decisions.points_called(names, ["a-1.FIT", "d"])
    assert called == (HASHES[0], HASHES[3])
    with pytest.raises(Refusal, match=r"x, y: no frame of this observation, which has 6 like A-1"):
        decisions.points_called(names, ["x", "A-1.fit", "y"])
    with pytest.raises(Refusal, match="a-2: several"):
        decisions.points_called(names, ["a-2"])
    with pytest.raises(Refusal, match=r"a-2\.fts: several"):
        decisions.points_called(names, ["a-2.fts"])
    raw = decisions.points_called(names, ["D.fits", "e.fits.fz", "a-2.fit"])
    assert raw == (HASHES[3], HASHES[4], HASHES[1])
    with pytest.raises(Refusal, match=r"d\.1: no frame"):
        decisions.points_called(names, ["d.1"])
    assert decisions.points_numbered(names, [1, 6]) == (HASHES[0], HASHES[5])
    with pytest.raises(Refusal, match="0, 7: the points are numbered from 1 to 6"):
        decisions.points_numbered(names, [0, 7])
    with pytest.raises(Refusal, match="no point of the frame deadbeef"):
        decisions.reject_points(observatory, KEY, [HASHES[0], "deadbeef"], who="XYZ")


def test_a_point_without_a_magnitude_cannot_be_restored(observatory, night):
    write(observatory, "standard_magnitudes", moved(night, np.nan, CLOUDED))
    with pytest.raises(Refusal, match="T1 has no value"):
        decisions.restore_points(observatory, KEY, [HASHES[CLOUDED]], who="XYZ")


def report(observatory, *points, file="a.txt", amends=None):
    lines = [
        NewLine(
            observer="XYZ", star="TX Eri", band="V", jd=f"2460963.{i + 1}", content_hash=file,
            line="…", key=KEY, raw_hash=HASHES[i], amends=amends,
        )
        for i in points
    ]  # fmt: skip
    ReportLedger(observatory.status.path).record(lines, file=file, who="XYZ")


def test_what_was_reported_is_not_rejected_as_a_whole_before_it_is_withdrawn(observatory):
    approve(observatory)
    report(observatory, 0)
    ledger = ReportLedger(observatory.status.path)
    with pytest.raises(Refusal, match=r"do not upload it.*--withdraw a\.txt"):
        decisions.reject(observatory, KEY, who="XYZ", why="clouds")
    with pytest.raises(Refusal, match=r"a\.txt.*withdraw"):
        decisions.undo(observatory, KEY, who="XYZ")
    ledger.submit(file="a.txt", who="XYZ")
    for word in ("submitted", "approved", None):  # whatever it says
        sql(observatory, "UPDATE target SET submitted = ? WHERE key = ?", word, KEY)
        with pytest.raises(Refusal, match=rf"delete them at the AAVSO.*--withdraw {KEY}"):
            decisions.reject(observatory, KEY, who="XYZ", why="clouds")
    ledger.withdraw(keys=[KEY], who="XYZ")
    decisions.reject(observatory, KEY, who="XYZ", why="clouds")


def test_a_word_by_hand_without_any_line_is_no_report_to_be_withdrawn(observatory):
    sql(observatory, "UPDATE target SET submitted = 'submitted' WHERE key = ?", KEY)
    with pytest.raises(Refusal, match="wombat has reported nothing of it"):
        decisions.reject(observatory, KEY, who="XYZ", why="clouds")
    with pytest.raises(Refusal, match="already"):
        approve(observatory)


def test_an_export_while_the_person_rejects_is_not_overruled(observatory, monkeypatch):
    approve(observatory)
    real = decisions._reported

    def meanwhile(opened, key):
        found = real(opened, key)
        report(opened, 0)
        return found

    monkeypatch.setattr(decisions, "_reported", meanwhile)
    with pytest.raises(Overtaken, match="wrote it into a report"):
        decisions.reject(observatory, KEY, who="XYZ", why="clouds")
    assert submitted(observatory) == "exported"


def test_points_that_were_reported_are_rejected_and_it_says_what_to_do(observatory):
    def to_take_back(*points):
        return decisions.to_take_back(observatory, KEY, [HASHES[i] for i in points])

    approve(observatory)
    report(observatory, 0, 1)
    report(observatory, 2, file="b.txt")
    ReportLedger(observatory.status.path).submit(file="a.txt", who="XYZ")
    decisions.reject_points(observatory, KEY, HASHES[:4], who="XYZ", why="satellite")
    assert submitted(observatory) == "exported"
    assert to_take_back(3) == ()
    assert to_take_back(0, 1) == ("delete at the AAVSO: TX Eri, V, JD 2460963.1, 2460963.2",)
    (words,) = to_take_back(2, 3)
    assert "1 line in b.txt. Do not upload it" in words
    assert "a.txt" not in words
    decisions.reject_points(observatory, KEY, HASHES[4:], who="XYZ")  # none is left
    decisions.restore_points(observatory, KEY, HASHES[:1], who="XYZ")
    assert submitted(observatory) == "exported"


def test_the_line_before_an_amendment_that_is_not_uploaded_is_named_too(observatory):
    approve(observatory)
    report(observatory, 0)
    ledger = ReportLedger(observatory.status.path)
    ledger.submit(file="a.txt", who="XYZ")
    report(observatory, 0, file="b.txt", amends=ledger.lines(key=KEY)[0].id)
    (words,) = decisions.to_take_back(observatory, KEY, HASHES[:1])
    assert "--withdraw b.txt" in words
    assert "line before it is to be deleted at the AAVSO" in words


@pytest.mark.parametrize("word", ["exported", "submitted"])
def test_what_was_reported_and_moved_is_approved_as_it_is_and_keeps_its_word(
    observatory, journal, night, word
):
    approve(observatory)
    report(observatory, 0)
    if word == "submitted":
        ReportLedger(observatory.status.path).submit(file="a.txt", who="XYZ")
    with pytest.raises(Refusal, match=r"already.*nothing changed since"):
        approve(observatory)
    now = moved(night, 0.5)
    record_change(observatory, KEY, night, now, why=None)
    write(observatory, "standard_magnitudes", now)
    assert differs_from_approved(observatory, KEY, now) is not None
    approve(observatory)
    row = observatory.status.target_row(KEY)
    assert (row.submitted, row.changed_since) == (word, None)
    assert differs_from_approved(observatory, KEY, now) is None
    assert journal.approved_mag(KEY)[HASHES[0]] == pytest.approx(now.t1_mag[0])
    decisions.undo(observatory, KEY, who="XYZ")
    assert submitted(observatory) == word
    assert differs_from_approved(observatory, KEY, now) is not None
    ReportLedger(observatory.status.path).withdraw(file="a.txt", who="XYZ")
    assert submitted(observatory) == "approved"


def test_a_reported_night_that_is_held_since_is_approved_with_a_reason(observatory, night):
    approve(observatory)
    report(observatory, 0)
    held = dataclasses.replace(night, held_reason="T2 0.2 mag off")
    write(observatory, "standard_magnitudes", held)
    with pytest.raises(Refusal, match="say why"):
        approve(observatory)
    approve(observatory, why="the check star varies")
    assert differs_from_approved(observatory, KEY, held) is None
    assert submitted(observatory) == "exported"


def test_a_hold_on_the_very_magnitudes_that_were_approved_can_be_accepted(observatory):
    approve(observatory)
    sql(observatory, "UPDATE target SET apphot = 'held', reason = 'T2 0.2 mag off'")
    assert decisions.accepts_hold(approve(observatory, why="the check star varies"))
    with pytest.raises(Refusal, match="approved already"):
        approve(observatory, why="the check star varies")


@pytest.mark.parametrize("decide", [approve, lambda o: decisions.reject(o, KEY, who="X", why="x")])
def test_undoing_what_followed_a_recall_says_again_what_changed(observatory, night, decide):
    approve(observatory)
    now = moved(night, 0.5)
    record_change(observatory, KEY, night, now, why=None)
    write(observatory, "standard_magnitudes", now)
    words = observatory.status.target_row(KEY).changed_since
    decide(observatory)
    decisions.undo(observatory, KEY, who="XYZ")
    assert observatory.status.target_row(KEY).changed_since == words
    assert submitted(observatory) is None


def test_of_two_pages_the_slower_one_is_told(observatory, journal):
    approve(observatory, seen=0)
    with pytest.raises(Overtaken, match="XYZ approved it"):
        decisions.reject_points(observatory, KEY, [HASHES[0]], who="XYZ", seen=0)
    with pytest.raises(Overtaken):
        decisions.undo(observatory, KEY, who="XYZ", seen=0)
    assert len(journal.history(KEY)) == 1


def test_a_star_found_by_position_is_to_be_confirmed_once(observatory, journal):
    star = Variable(name="TX Eri", ra_deg=58.0, dec_deg=-15.0, oid="42", match="position")
    assert decisions.star_to_confirm(observatory, KEY) is None  # there is none
    write(observatory, "variable", dataclasses.replace(star, match="name"))
    with pytest.raises(Refusal, match="found by its name"):
        decisions.confirm_star(observatory, KEY, who="XYZ")
    write(observatory, "variable", star)
    assert decisions.star_to_confirm(observatory, KEY) == star
    decisions.confirm_star(observatory, KEY, who="XYZ")
    assert decisions.star_to_confirm(observatory, KEY) is None
    with pytest.raises(Refusal, match="confirmed already"):
        decisions.confirm_star(observatory, KEY, who="XYZ")
    write(observatory, "variable", dataclasses.replace(star, oid="43"))
    assert decisions.star_to_confirm(observatory, KEY) is not None
    assert submitted(observatory) is None


# ------------------------------------------------------------------ magnitudes that are made again


def test_an_approved_night_that_moves_by_more_than_allowed_waits_again(observatory, journal, night):
    approve(observatory)
    now = moved(night, 0.02, 1)
    found = record_change(observatory, KEY, night, now, why="by hand")
    row = observatory.status.target_row(KEY)
    assert (row.submitted, row.apphot) == (None, "validate")
    assert "T1 +0.000 mag in the median, +0.020 at most, more than 0.01 on 1 of 5 points" in (
        row.changed_since
    )
    assert found.what in row.changed_since
    last = journal.history(KEY)[-1]
    assert (last.kind, last.who) == (Kind.RECALL, "wombat")
    assert journal.approved_mag(KEY)[HASHES[1]] == pytest.approx(night.t1_mag[1])
    with pytest.raises(Refusal, match="anew"):
        decisions.undo(observatory, KEY, who="XYZ")
    write(observatory, "standard_magnitudes", now)
    approve(observatory)
    row = observatory.status.target_row(KEY)
    assert (row.submitted, row.changed_since) == ("approved", None)


def test_one_that_moves_by_less_stays_approved_and_says_so(observatory, journal, night):
    approve(observatory)
    record_change(observatory, KEY, night, moved(night, 0.009), why=None)
    row = observatory.status.target_row(KEY)
    assert row.submitted == "approved"
    assert "T1 +0.009 mag" in row.changed_since
    assert len(journal.history(KEY)) == 1


def test_small_steps_add_up(observatory, night):
    """Each step against the last is below 0.01 mag, the second against the approved one is not."""
    approve(observatory)
    once, twice = moved(night, 0.007), moved(night, 0.014)
    record_change(observatory, KEY, night, once, why=None)
    assert submitted(observatory) == "approved"
    record_change(observatory, KEY, once, twice, why=None)
    assert submitted(observatory) is None


def test_points_that_are_not_to_be_reported_do_not_recall(observatory, night):
    decisions.reject_points(observatory, KEY, [HASHES[0]], who="XYZ")
    approve(observatory)
    record_change(observatory, KEY, night, moved(night, 1.0, [0, CLOUDED]), why=None)
    assert submitted(observatory) == "approved"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"proposed_rejected": ("",) * 6}, "1 point to be reported that was not there"),
        ({"raw_hashes": tuple("uvwxyz")}, "none of the 5 points"),
        ({"proposed_rejected": ("cloud",) * 6}, "none of the 5 points"),
        ({"held_reason": "T2 0.2 mag off"}, "held: T2 0.2 mag off"),
    ],
)
def test_points_and_verdicts_that_the_person_has_not_seen_recall(
    observatory, night, changes, words
):
    approve(observatory)
    now = dataclasses.replace(night, **changes)
    assert words in recall_if_moved(observatory, KEY, now)
    assert submitted(observatory) is None


def test_a_point_that_the_person_restored_later_does_not_recall(observatory, night):
    approve(observatory)
    decisions.restore_points(observatory, KEY, [HASHES[CLOUDED]], who="XYZ")
    assert recall_if_moved(observatory, KEY, night) is None
    assert submitted(observatory) == "approved"


@pytest.mark.parametrize("kind", [Kind.EXPORT, Kind.SUBMIT, Kind.REJECT])
def test_what_was_reported_or_rejected_stays_so_and_says_what_changed(
    observatory, journal, night, kind
):
    approve(observatory)
    journal.record(KEY, kind, who="XYZ", why="a")
    before = submitted(observatory)
    record_change(observatory, KEY, night, moved(night, 0.5), why=None)
    assert submitted(observatory) == before
    assert "T1 +0.500 mag" in observatory.status.target_row(KEY).changed_since


def test_one_that_waits_again_says_how_it_differs_now(observatory, journal, night):
    approve(observatory)
    record_change(observatory, KEY, night, moved(night, 0.5), why=None)
    record_change(observatory, KEY, moved(night, 0.5), moved(night, 0.25), why=None)
    assert "T1 +0.250 mag" in observatory.status.target_row(KEY).changed_since
    assert [one.kind for one in journal.history(KEY)] == [Kind.APPROVE, Kind.RECALL]


def test_a_renamed_star_that_is_another_one_is_recalled_though_it_had_no_magnitudes(
    observatory, night
):
    """The new name has no magnitudes of before: only what was approved can tell."""
    approve(observatory)
    assert record_change(observatory, KEY, None, night, why=None) is None
    assert submitted(observatory) == "approved"
    assert record_change(observatory, KEY, None, moved(night, 2.0), why=None) is None
    assert submitted(observatory) is None


def test_a_person_who_rejects_while_the_magnitudes_are_made_is_not_overruled(
    observatory, journal, night, monkeypatch
):
    approve(observatory)
    approved_mag = Decisions.approved_mag

    def meanwhile(self, key):  # between what is looked at and what is written
        if len(journal.history(KEY)) == 1:
            decisions.reject(observatory, KEY, who="XYZ", why="clouds")
        return approved_mag(self, key)

    monkeypatch.setattr(Decisions, "approved_mag", meanwhile)
    record_change(observatory, KEY, night, moved(night, 0.5), why=None)
    assert submitted(observatory) == "usrrej"
    assert "after you approved" not in observatory.status.target_row(KEY).changed_since
    assert [one.kind for one in journal.history(KEY)] == [Kind.APPROVE, Kind.REJECT]
