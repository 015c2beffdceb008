"""What a person chose stays chosen, and what was measured with other stars is due again."""

import datetime as dt
import sqlite3
from contextlib import closing

import pytest

from wombat_dagster.store.comp_choices import Choice, CompChoices
from wombat_dagster.store.status import StatusDatabase

PIN, BAN, CHECK = Choice.PIN, Choice.BAN, Choice.CHECK


@pytest.fixture
def database(tmp_path):
    return StatusDatabase(tmp_path / "wombatpipeline.db")


@pytest.fixture
def choices(database):
    return CompChoices(database.path)


def test_what_was_chosen_is_there_when_the_file_is_opened_again(database, choices):
    assert choices.of(["TX Eri"]) == {}
    choices.change(["TX Eri"], choose={"000-A": PIN, "000-B": BAN, "000-C": CHECK})
    again = CompChoices(StatusDatabase(database.path).path)
    assert again.of(["tx eri"]) == {"000-A": PIN, "000-B": BAN, "000-C": CHECK}
    assert again.of(["TX Er"]) == {}


def test_a_star_has_one_choice_and_a_target_one_check_star(choices):
    choices.change(["x"], choose={"000-A": PIN, "000-C": CHECK})
    choices.change(["x"], choose={"000-A": BAN, "000-D": CHECK})
    assert choices.of(["x"]) == {"000-A": BAN, "000-D": CHECK}
    choices.change(["x"], choose={}, clear=["000-A"])
    assert choices.of(["x"]) == {"000-D": CHECK}


def test_directories_of_one_star_share_their_choices(choices):
    choices.change(["HAT-P-32"], choose={"000-A": PIN, "000-C": CHECK})
    choices.change(["hat32", "HAT-P-32"], choose={"000-B": BAN})
    assert choices.of(["HAT-P-32", "hat32"]) == {"000-A": PIN, "000-B": BAN, "000-C": CHECK}
    choices.change(["HAT-P-32", "hat32"], choose={}, clear=["000-A", "000-B", "000-C"])
    assert choices.of(["hat32"]) == {}


def observed(database, **columns):
    """Add a measured night of a target and return the reader of its `lights`."""
    row = {"date": "2025-10-14", "target": "TX Eri", "filter": "V", "night": "n"}
    row |= {"apphot": "validate", "lights": "signature"} | columns
    row["key"] = "__".join(row[name] for name in ("date", "target", "filter"))
    names = ", ".join(row)
    with closing(sqlite3.connect(database.path)) as connection:
        marks = ", ".join("?" * len(row))
        connection.execute(f"INSERT INTO target ({names}) VALUES ({marks})", [*row.values()])
        connection.commit()
    return lambda: database.target_row(row["key"]).lights


def test_a_change_makes_measured_nights_due_and_no_others(database, choices):
    measured = observed(database)
    parked = observed(database, date="2025-10-15", apphot=None)
    approved = observed(database, date="2025-10-16", submitted="approved")
    other = observed(database, target="V730 Ori")
    by_the_owner = observed(database, date="2025-10-17", submitted="0")  # his "not done"
    assert choices.change(["tx ERI"], choose={"000-A": BAN}) == 2
    assert (measured(), by_the_owner()) == (None, None)
    assert (parked(), approved(), other()) == ("signature",) * 3


def test_choosing_the_same_again_makes_nothing_due(database, choices):
    choices.change(["TX Eri"], choose={"000-A": BAN})
    lights = observed(database, date=dt.date(2025, 10, 18).isoformat())
    assert choices.change(["TX Eri"], choose={"000-A": BAN}, clear=["000-B"]) == 0
    assert lights() == "signature"
