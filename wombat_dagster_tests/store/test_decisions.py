"""Decisions are kept for good, hold or are undone, and `target.submitted` follows from them."""

import multiprocessing
import sqlite3
import threading
import time
from contextlib import closing

import pytest

from wombat_dagster.domain import DecisionKind as Kind
from wombat_dagster.store import schema
from wombat_dagster.store.decisions import Decisions, Overtaken, decision_words
from wombat_dagster.store.status import StatusDatabase

KEY, OTHER = "20251015__TX_Eri__V", "20251016__TX_Eri__B"


def insert(path, key):
    date, target, filter = key.split("__")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "INSERT INTO target (date, target, filter, night, key) VALUES (?,?,?,?,?)",
            (f"{date[:4]}-{date[4:6]}-{date[6:]}", target.replace("_", " "), filter, date, key),
        )


@pytest.fixture
def status(tmp_path):
    found = StatusDatabase(tmp_path / "wombatpipeline.db")
    insert(found.path, KEY)
    return found


@pytest.fixture
def journal(status):
    return Decisions(status.path)


def submitted(status, key=KEY):
    return status.target_row(key).submitted


def by_hand(status, word):
    with closing(sqlite3.connect(status.path)) as connection, connection:
        connection.execute("UPDATE target SET submitted = ?", (word,))


def test_who_when_why_and_on_which_version_are_kept(journal):
    said = journal.record(KEY, Kind.REJECT, who="XYZ", why="clouds", version="4f5a")
    assert journal.history(KEY) == (said,)
    assert (said.who, said.why, said.version, said.undone_utc) == ("XYZ", "clouds", "4f5a", None)
    assert decision_words(said) == f"{said.decided_utc[:16]}Z XYZ rejected it (clouds)"


@pytest.mark.parametrize(
    ("kind", "word"),
    [(Kind.APPROVE, "approved"), (Kind.REJECT, "usrrej"), (Kind.EXPORT, "exported"),
     (Kind.SUBMIT, "submitted"), (Kind.RECALL, None)],
)  # fmt: skip
def test_the_owner_s_word_follows_from_the_last_decision(status, journal, kind, word):
    journal.record(KEY, Kind.APPROVE, who="XYZ")
    journal.record(KEY, kind, who="XYZ")
    assert submitted(status) == word


def test_undoing_brings_back_what_was_before(status, journal):
    journal.record(KEY, Kind.REJECT, who="XYZ", why="clouds")
    journal.record(KEY, Kind.APPROVE, who="XYZ", approved_mag={"a": 12.0})
    assert journal.approved_mag(KEY) == {"a": 12.0}
    assert journal.undo(KEY, who="XYZ").kind is Kind.APPROVE
    assert (submitted(status), journal.approved_mag(KEY)) == ("usrrej", {})
    assert journal.undo(KEY, who="XYZ").kind is Kind.REJECT
    assert submitted(status) is None
    assert journal.undo(KEY, who="XYZ") is None
    assert [one.undone_utc is not None for one in journal.history(KEY)] == [True, True]


@pytest.mark.parametrize(
    ("kind", "words"),
    [(Kind.EXPORT, "a.txt"), (Kind.SUBMIT, "withdraw"), (Kind.RECALL, "anew")],
)
def test_what_left_the_house_is_not_undone_by_a_key_press(status, journal, kind, words):
    journal.record(KEY, Kind.APPROVE, who="XYZ")
    journal.record(KEY, kind, who="XYZ", why="a.txt")
    before = submitted(status)
    with pytest.raises(ValueError, match=words):
        journal.undo(KEY, who="XYZ")
    assert submitted(status) == before


@pytest.mark.parametrize(
    ("kinds", "word"),
    [((Kind.APPROVE, Kind.EXPORT, Kind.APPROVE), "exported"),
     ((Kind.APPROVE, Kind.EXPORT, Kind.SUBMIT, Kind.APPROVE), "submitted"),
     ((Kind.APPROVE, Kind.RECALL, Kind.APPROVE), "approved"),
     ((Kind.REJECT, Kind.APPROVE), "approved")],
)  # fmt: skip
def test_an_approval_leaves_the_word_of_what_was_reported(status, journal, kinds, word):
    for kind in kinds:
        journal.record(KEY, kind, who="XYZ")
    assert submitted(status) == word


def test_points_follow_the_last_decision_on_each(journal):
    journal.record(KEY, Kind.REJECT_POINTS, who="XYZ", raw_hashes=["a", "b"])
    journal.record(KEY, Kind.RESTORE_POINTS, who="XYZ", raw_hashes=["b", "c"])
    assert journal.points(KEY) == {"a": True, "b": False, "c": False}
    journal.undo(KEY, who="XYZ")
    assert journal.points(KEY) == {"a": True, "b": True}


def test_a_point_restored_after_the_approval_is_approved_with_its_magnitude(journal):
    journal.record(KEY, Kind.APPROVE, who="XYZ", approved_mag={"a": 12.0})
    journal.record(KEY, Kind.RESTORE_POINTS, who="XYZ", raw_hashes=["b"], approved_mag={"b": 12.5})
    assert journal.approved_mag(KEY) == {"a": 12.0, "b": 12.5}
    journal.record(KEY, Kind.APPROVE, who="XYZ", approved_mag={"a": 12.1})
    assert journal.approved_mag(KEY) == {"a": 12.1}


def test_a_word_written_by_hand_stands_until_the_next_decision_about_it(status, journal):
    by_hand(status, "submitted")
    journal.record(KEY, Kind.REJECT_POINTS, who="XYZ", raw_hashes=["a"])
    journal.undo(KEY, who="XYZ")
    assert submitted(status) == "submitted"
    journal.record(KEY, Kind.REJECT, who="XYZ", why="clouds")
    assert submitted(status) == "usrrej"


def test_an_unknown_observation_is_refused_and_nothing_is_written(journal):
    with pytest.raises(KeyError, match="no observation"):
        journal.record(OTHER, Kind.APPROVE, who="XYZ")
    assert journal.history(OTHER) == ()


def test_who_decided_since_the_person_looked_is_said_and_nothing_is_written(journal):
    seen = journal.last_id(KEY)
    first = journal.record(KEY, Kind.APPROVE, who="ABC", seen=seen)
    with pytest.raises(Overtaken, match="ABC approved it"):
        journal.record(KEY, Kind.REJECT, who="XYZ", why="clouds", seen=seen)
    journal.undo(KEY, who="ABC", seen=first.id)
    with pytest.raises(Overtaken, match=r"ABC undid .* that ABC approved it"):
        journal.record(KEY, Kind.REJECT, who="XYZ", why="clouds", seen=first.id)
    assert [one.kind for one in journal.history(KEY)] == [Kind.APPROVE]
    assert journal.last_ids() == {KEY: journal.last_id(KEY)}
    journal.record(KEY, Kind.REJECT, who="XYZ", why="clouds", seen=journal.last_id(KEY))


def test_an_approval_ends_what_changed_since_the_one_before(status, journal):
    status.note_changed_since(KEY, "T1 +0.05 mag")
    journal.record(KEY, Kind.REJECT_POINTS, who="XYZ", raw_hashes=["a"])
    assert status.target_row(KEY).changed_since is not None
    journal.record(KEY, Kind.APPROVE, who="XYZ")
    assert status.target_row(KEY).changed_since is None


def test_a_star_once_confirmed_is_so_for_its_target_and_no_other(status, journal):
    insert(status.path, OTHER)
    journal.record(KEY, Kind.CONFIRM_STAR, who="XYZ", version="oid:42")
    assert journal.is_confirmed(OTHER, "oid:42")
    assert not journal.is_confirmed(OTHER, "oid:43")
    assert not journal.is_confirmed("20251015__TX_Ari__V", "oid:42")
    journal.undo(KEY, who="XYZ")
    assert not journal.is_confirmed(OTHER, "oid:42")


def test_of_decisions_at_the_same_time_none_is_lost(journal):
    def decide(number):
        for i in range(5):
            journal.record(KEY, Kind.REJECT_POINTS, who="XYZ", raw_hashes=[f"{number}.{i}"])

    threads = [threading.Thread(target=decide, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(journal.points(KEY)) == 20
    assert len({one.id for one in journal.history(KEY)}) == 20


def _approve(path, seen, answers):
    try:
        Decisions(path).record(KEY, Kind.APPROVE, who="XYZ", seen=seen)
        answers.put("approved")
    except Overtaken:
        answers.put("overtaken")


def test_of_two_processes_that_saw_the_same_one_decides(status, journal):
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    processes = [context.Process(target=_approve, args=(status.path, 0, answers)) for _ in range(2)]
    for process in processes:
        process.start()
    assert sorted(answers.get(timeout=60) for _ in processes) == ["approved", "overtaken"]
    for process in processes:
        process.join()
    assert len(journal.history(KEY)) == 1


def test_a_locked_database_is_waited_for(status, journal):
    locked = threading.Event()

    def hold():
        with closing(schema.connect(status.path)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            locked.set()
            time.sleep(0.3)
            connection.execute("ROLLBACK")

    thread = threading.Thread(target=hold)
    thread.start()
    locked.wait()
    journal.record(KEY, Kind.APPROVE, who="XYZ")
    thread.join()
    assert submitted(status) == "approved"
