"""`wombat events`: what it shows, to people and to programs, and what it refuses."""

import dataclasses
import datetime as dt
import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from wombat_dagster import config
from wombat_dagster.commands.events import events
from wombat_dagster.observatory import open_observatory
from wombat_dagster.products import PRODUCTS
from wombat_dagster.store.events import EventKind, Events
from wombat_dagster_tests.curves import TX_ERI, observation, store

NOW = dt.datetime.now(dt.UTC)


@pytest.fixture
def root(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "wombat.toml").write_text("[site]\nlatitude_deg = 40.5\nlongitude_deg = -75.8\n")
    monkeypatch.setenv(config.CONFIG_ENV, str(tmp_path / "wombat.toml"))
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path


@pytest.fixture
def kept(root):
    """Two events: a flare, and an eclipse that is over."""
    kept = Events(open_observatory().status.path)
    key = "20251019__TX_Eri__V"
    words = "TX \x1b[31mEri V 11.00: 1.00 mag brighter"
    kept.record(EventKind.BRIGHTER, "a", key=key, words=words, now_utc=NOW)
    at = NOW - dt.timedelta(hours=1)
    kept.record(EventKind.ECLIPSE, "b", key=key, words="eclipse of TX", now_utc=NOW, at_utc=at)
    return kept


def wombat_events(*arguments):
    ended = CliRunner().invoke(events, arguments, catch_exceptions=False)
    assert ended.exit_code == 0, ended.output
    return ended.output


def test_what_is_new_is_shown_and_what_is_over_is_counted(kept):
    said = wombat_events()
    assert "mag brighter" in said
    assert "\x1b" not in said
    assert "20251019__TX_Eri__V" in said
    assert "eclipse of TX" not in said
    assert "1 event seen or over: --all." in said
    assert "eclipse of TX" in wombat_events("--all")


def test_what_was_seen_is_not_shown_again(kept):
    assert "mag brighter" in wombat_events("--seen")
    said = wombat_events()
    assert "Nothing new." in said
    assert "2 events seen or over" in said
    assert [e.seen_utc is not None for e in kept.all()] == [
        False,
        True,
    ]  # the eclipse was not shown


def test_programs_get_all_of_it(kept):
    content = json.loads(wombat_events("--json", "--all"))
    assert {e["kind"] for e in content["events"]} == {"brighter", "eclipse"}
    assert content["not_foretold"] == []


def test_stars_that_cannot_be_foretold_are_named(kept):
    observatory = open_observatory()
    star = dataclasses.replace(TX_ERI, variability_type="EA", period_d=None)
    night = (NOW.date() - observation().date).days
    key = store(observatory, observation(night), variable=star)
    observatory.status.record_product(
        key, "variable", path="", content_hash="", version=PRODUCTS["variable"].version(star),
        inputs={}, status={},
    )  # fmt: skip
    assert "Not foretold: TX Eri: no period is known (VSX)" in wombat_events()


def test_before_the_first_run_nothing_is_known(root):
    ended = CliRunner().invoke(events, [])
    assert ended.exit_code == 2
    assert "nothing is known yet" in ended.output
    assert not (root / "wombatpipeline.db").exists()


def test_importing_the_command_loads_nothing_heavy():
    code = (
        "import sys\nfrom wombat_dagster.commands import events\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))\n"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert not {"numpy", "astropy", "dagster", "pandas", "pydantic", "rich"} & set(loaded)
