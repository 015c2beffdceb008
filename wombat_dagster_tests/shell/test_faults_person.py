"""A person who edits rows of the database, sensibly or not, while wombat goes on."""

import contextlib
import sqlite3

import pytest

from wombat_dagster.domain import Apphot, NoComps, Proc

KEY = "20251014__SV_Wom__V"


@pytest.fixture
def lit(place):
    place.take("20251014/Light/SV Wom/*V.fit")
    place.observatory.scan()
    return place


def edit(place, statement, *values):
    with contextlib.closing(sqlite3.connect(place.observatory.status.path)) as connection:
        connection.execute(statement, values)
        connection.commit()


@pytest.mark.parametrize("word", ["approved", "usrrej", "aproved by me"])
def test_a_decision_survives_whatever_the_run_writes_afterwards(lit, word):
    status = lit.observatory.status
    edit(lit, "UPDATE target SET submitted = ?", word)
    status.set_status(KEY, {"proc": Proc.SOLVED, "apphot": Apphot.VALIDATE, "reason": None})
    assert lit.row("SV Wom").submitted == word
    status.record_shortfall(KEY, NoComps("0 comparison stars"))
    lit.observatory.scan()
    assert (lit.row("SV Wom").submitted, lit.row("SV Wom").apphot) == (word, Apphot.NOCOMPS)


@pytest.mark.parametrize("nothing", [None, 0, "0", ""])
def test_apphot_set_back_by_hand_is_not_done(lit, nothing):
    lit.observatory.status.set_status(KEY, {"apphot": Apphot.VALIDATE})
    edit(lit, "UPDATE target SET apphot = ?", nothing)
    assert lit.row("SV Wom").apphot is None


def test_a_row_deleted_by_hand_comes_back_with_the_next_scan(lit):
    edit(lit, "DELETE FROM target")
    lit.observatory.status.set_status(KEY, {"proc": Proc.SOLVED})  # a run that is at it
    assert lit.rows == []
    lit.observatory.scan()
    row = lit.row("SV Wom")
    assert (row.observation.key, row.proc, row.n_frames) == (KEY, None, 4)


def test_nonsense_in_the_words_is_a_word_like_another(lit):
    edit(lit, "UPDATE target SET proc = 'junk', apphot = 'nönsense', proc_bias = 'yes', reason = 5")
    lit.observatory.scan()
    row = lit.row("SV Wom")
    assert (row.proc, row.apphot, row.proc_bias) == ("junk", "nönsense", "yes")


@pytest.mark.parametrize(("column", "value"), [("target", "SV WOM"), ("filter", "Visual")])
def test_a_row_renamed_by_hand_keeps_its_decision_and_the_frames_get_a_new_one(lit, column, value):
    edit(lit, f"UPDATE target SET {column} = ?, submitted = 'approved'", value)
    lit.observatory.scan()
    renamed = next(row for row in lit.rows if row.observation.key == KEY)
    assert (renamed.submitted, renamed.n_frames) == ("approved", 0)
    new = lit.row("SV Wom")
    assert (new.submitted, new.n_frames) == (None, 4)
    assert new.observation.key != KEY


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("date", "14.10.2025"), ("date", "2025-10-13"), ("key", "nonsense"),
        ("key", "a__b__c__d"), ("key", "../../../x__y__z"),
    ],
)  # fmt: skip
def test_a_date_or_key_edited_by_hand_is_mended_by_the_next_scan(lit, column, value):
    """The directories say what a night is; a key is what the products are called."""
    edit(lit, f"UPDATE target SET {column} = ?, submitted = 'approved'", value)
    assert lit.rows == []
    lit.observatory.scan()
    row = lit.row("SV Wom")
    assert (row.observation.key, row.submitted, row.n_frames) == (KEY, "approved", 4)
    assert len(lit.rows) == 1
