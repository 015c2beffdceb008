"""A star out of its range, an eclipse ahead: found once, told once, taken back when it was none."""

import contextlib
import dataclasses
import datetime as dt
import json
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest

from wombat_dagster import config
from wombat_dagster.domain import DecisionKind
from wombat_dagster.observatory import Observatory
from wombat_dagster.products import PRODUCTS
from wombat_dagster.stages import events as stage
from wombat_dagster.stages.events import (
    events_words,
    is_look_due,
    look,
    note_brightness,
    note_eclipses,
    tell,
    tell_soon,
)
from wombat_dagster.store.decisions import Decisions
from wombat_dagster.store.events import Events
from wombat_dagster_tests.curves import TX_ERI, hours, magnitudes, observation, store

NOW = dt.datetime(2025, 10, 24, 12, 0, tzinfo=dt.UTC)
SITE = {"latitude_deg": 40.515, "longitude_deg": -75.785, "elevation_m": 100.0}
RANGED = dataclasses.replace(
    TX_ERI, mag_bright=11.5, mag_faint=12.5, mag_bright_band="V", mag_faint_band="V"
)
SHELL = pytest.mark.skipif(sys.platform == "win32", reason="the command is a shell script")


def opened(tmp_path, **tables):
    return Observatory(config.Settings(base=tmp_path, site=SITE, **tables))


@pytest.fixture
def observatory(tmp_path):
    return opened(tmp_path)


def observed(observatory, night=0, mag=12.0, *, star=TX_ERI, band="V", target=None, **how):
    """Store a measured night of `star` as the pipeline would; return its key."""
    standard = magnitudes(hours(night), mag, band=band, **how.pop("changes", {}))
    products = {"variable": star, "standard_magnitudes": standard}
    one = observation(night, band, target or star.name)
    key = store(observatory, one, **products, **how)
    for asset, value in products.items():
        observatory.status.record_product(
            key, asset, path="", content_hash="", version=PRODUCTS[asset].version(value),
            inputs={}, status={},
        )  # fmt: skip
    return key


def decide(observatory, key, word):
    with contextlib.closing(sqlite3.connect(observatory.status.path)) as connection, connection:
        connection.execute("UPDATE target SET submitted = ? WHERE key = ?", (word, key))


def noted(observatory, night, mag, *, star=TX_ERI, band="V", now=NOW, **changes):
    """Note a night whose magnitudes are just being made."""
    standard = magnitudes(hours(night), mag, band=band, **changes)
    apphot = "held" if changes.get("held_reason") else "validate"
    key = observed(observatory, night, mag, star=star, band=band, changes=changes, apphot=apphot)
    one = observatory.status.target_row(key).observation
    return note_brightness(observatory, one, star, standard, now_utc=now)


def all_events(observatory):
    return Events(observatory.status.path).all()


def a_history(observatory, n=3, **how):
    for night in range(n):
        observed(observatory, night, 12.0 + night / 10, **how)


# ----------------------------------------------------------------------------- brighter or fainter


def test_a_star_brighter_than_its_history_is_told_with_the_numbers(observatory):
    a_history(observatory)
    (words,) = noted(observatory, 5, 11.0)
    assert words == (
        "TX Eri V 11.00 (median of 20 points): 1.00 mag brighter than on its 3 earlier nights"
        " (12.00 to 12.20)"
    )
    (event,) = all_events(observatory)
    assert (event.kind, event.signature) == ("brighter", "brighter:20251019__TX_Eri__V")
    assert events_words(observatory, event.key) == words


def test_a_usual_night_and_a_short_history_are_no_news(observatory):
    a_history(observatory, 2)
    assert noted(observatory, 5, 9.0) == ()
    observed(observatory, 2, 12.0)
    assert noted(observatory, 6, 12.3) == ()
    assert not all_events(observatory)


def test_beyond_history_and_vsx_it_is_one_event(observatory):
    a_history(observatory, star=RANGED)
    (words,) = noted(observatory, 5, 10.9, star=RANGED)
    assert words.endswith(
        "1.10 mag brighter than on its 3 earlier nights (12.00 to 12.20); 0.60 mag brighter than"
        " the range of VSX (11.50 V to 12.50 V)"
    )
    assert len(all_events(observatory)) == 1


def test_limits_fainter_than_vsx_s_range_are_told_when_nothing_was_seen(observatory):
    limits = {"t1_upper_limit": np.ones(20, bool)}
    (words,) = noted(observatory, 0, 13.6, star=RANGED, **limits)
    assert words.startswith("TX Eri V not seen, < 13.60 (20 upper limits): 1.10 mag fainter than")
    seen_once = {"t1_upper_limit": np.arange(20) > 0}
    mag = np.where(np.arange(20) > 0, 13.6, 12.4)
    assert noted(observatory, 1, mag, star=RANGED, **seen_once) == ()


def test_the_history_is_the_star_s_in_one_band(observatory):
    a_history(observatory, star=dataclasses.replace(TX_ERI, oid="999"), target="another")
    a_history(observatory, band="B")
    assert noted(observatory, 5, 9.0) == ()  # nothing of this star in V


def test_later_nights_are_no_history(observatory):
    """An old night that is made late, or again, is judged by those before it."""
    for night in (7, 8, 9):
        observed(observatory, night, 12.0)
    assert noted(observatory, 6, 9.0) == ()
    assert len(noted(observatory, 10, 7.0)) == 1


def test_a_star_is_itself_under_another_directory_s_name(observatory):
    for night, name in enumerate(("TX Eri", "my favourite", "GSC 5903.00430")):
        observed(observatory, night, 12.0, target=name)
    assert len(noted(observatory, 5, 11.0)) == 1


def test_held_and_rejected_nights_are_no_history(observatory):
    a_history(observatory)
    observed(observatory, 3, 10.0, apphot="held")
    rejected = observed(observatory, 4, 10.0)
    decide(observatory, rejected, "usrrej")
    (words,) = noted(observatory, 5, 11.0)
    assert "3 earlier nights" in words


def test_a_held_night_needs_more_than_its_check_star_s_offset(observatory):
    a_history(observatory)
    off = {"held_reason": "T2 is off", "check_offset_mag": 0.4}
    assert noted(observatory, 5, 11.0, **off) == ()  # 1.0 mag are 2.5 sigma
    (words,) = noted(observatory, 6, 10.0, **off)
    assert "held: T2 is off" in words


def test_made_again_it_is_the_same_event_and_withdrawn_when_it_is_none(observatory):
    a_history(observatory)
    noted(observatory, 5, 11.0)
    (before,) = all_events(observatory)
    Events(observatory.status.path).mark_told(before.id, NOW)
    noted(observatory, 5, 10.9)
    (again,) = all_events(observatory)
    assert (again.id, again.told_utc) == (before.id, "2025-10-24T12:00:00+00:00")
    assert "10.90" in again.words
    noted(observatory, 5, 12.1)
    (after,) = all_events(observatory)
    assert after.is_withdrawn
    assert events_words(observatory, after.key) is None


def test_what_the_person_has_decided_on_is_no_news(observatory):
    a_history(observatory)
    key = observed(observatory, 5, 11.0)
    decide(observatory, key, "approved")
    standard = magnitudes(hours(5), 11.0)
    one = observatory.status.target_row(key).observation
    assert note_brightness(observatory, one, TX_ERI, standard, now_utc=NOW)
    (event,) = all_events(observatory)
    assert event.seen_utc is not None


def test_each_way_can_be_switched_off(tmp_path):
    observatory = opened(tmp_path, events={"brighter_mag": None, "fainter_mag": 0.5})
    a_history(observatory)
    assert noted(observatory, 5, 9.0) == ()
    assert len(noted(observatory, 6, 14.0)) == 1


def test_a_night_s_file_is_read_once_for_every_version(observatory, monkeypatch):
    a_history(observatory)
    noted(observatory, 5, 11.0)
    reads = []
    real = stage.read_product
    monkeypatch.setattr(
        stage, "read_product", lambda o, asset, key: reads.append(asset) or real(o, asset, key)
    )
    noted(observatory, 6, 11.0)
    assert reads == ["variable", "standard_magnitudes"]  # of night 5; one star, one file
    observed(observatory, 1, 10.8)  # made again
    reads.clear()
    assert noted(observatory, 7, 11.0) == ()
    assert reads.count("standard_magnitudes") == 2  # of nights 6 and 1


def test_points_that_the_person_rejected_are_no_history(observatory):
    """A satellite in three frames of night 1, rejected by the person, undone, rejected again."""
    trail = np.where(np.arange(20) < 3, 9.0, 12.0)
    for night in (0, 2):
        observed(observatory, night, 12.0)
    key = observed(observatory, 1, trail)
    assert noted(observatory, 5, 11.0) == ()
    decisions = Decisions(observatory.status.path)
    hashes = ("V0", "V1", "V2")
    decisions.record(key, DecisionKind.REJECT_POINTS, who="XYZ", raw_hashes=hashes)
    assert len(noted(observatory, 5, 11.0)) == 1
    decisions.undo(key, who="XYZ")
    assert noted(observatory, 5, 11.0) == ()


def test_a_damaged_night_is_left_out_and_logged(observatory, caplog):
    a_history(observatory, 4)
    for name in ("magnitudes.csv", "variable.json"):
        (observatory.layout.observation_dir("20251014__TX_Eri__V") / name).write_text("no")
    (words,) = noted(observatory, 5, 11.0)
    assert "3 earlier nights (12.10 to 12.30)" in words
    assert "20251014__TX_Eri__V: standard_magnitudes is left out" in caplog.text


# --------------------------------------------------------------------------------- eclipses ahead

# DOMAIN section 5: SS Cyg's place at HJD 2460963.561506 is JD 2460963.558515, altitude 86 deg.
BINARY = dataclasses.replace(
    TX_ERI, name="XX Cyg", oid="7", ra_deg=325.6785, dec_deg=43.5861, variability_type="EA/SD",
    period_d=2.500001, epoch_hjd=2460963.561506,
)  # fmt: skip
BEFORE = dt.datetime(2025, 10, 15, 0, 0, tzinfo=dt.UTC)


def test_an_eclipse_ahead_is_told_in_the_observer_s_time(observatory):
    """JD 2460963.558515 is 2025-10-15 01:24:16 UT; ± 69 s and half of 1e-6 d: 2 minutes."""
    observed(observatory, star=BINARY)
    assert note_eclipses(observatory, now_utc=BEFORE).n_eclipses == 1
    (event,) = all_events(observatory)
    assert event.words == "eclipse of XX Cyg at 2025-10-15 01:24 UT ± 2 min, altitude 86 deg"
    assert event.at_utc.startswith("2025-10-15T01:24:1")
    assert event.key == "20251014__XX_Cyg__V"


def test_looked_for_again_it_is_the_same_eclipse_and_later_the_next_one(observatory):
    observed(observatory, star=BINARY)
    for minutes in (0, 30, 60):
        note_eclipses(observatory, now_utc=BEFORE + dt.timedelta(minutes=minutes))
    assert len(all_events(observatory)) == 1
    two_days_later = BEFORE + dt.timedelta(days=4, hours=12)  # 5 d after: cycle 2, by night again
    note_eclipses(observatory, now_utc=two_days_later)
    assert [e.at_utc[:13] for e in all_events(observatory)] == ["2025-10-20T01", "2025-10-15T01"]


@pytest.mark.parametrize(
    "changes",
    [{"variability_type": "ELL"}, {"variability_type": None}, {"dec_deg": -60.0},
     {"epoch_hjd": 2460963.1}, {"epoch_hjd": 2460965.0}],
)  # fmt: skip
def test_no_eclipse_no_event(observatory, changes):
    """Not of that type, never up, by day (JD .1 is 14 h UT), the day after tomorrow."""
    observed(observatory, star=dataclasses.replace(BINARY, **changes))
    outlook = note_eclipses(observatory, now_utc=BEFORE)
    assert (outlook.n_eclipses, outlook.not_foretold) == (0, ())


def test_a_doubtful_type_is_said_and_a_planet_transits(observatory):
    observed(observatory, star=dataclasses.replace(BINARY, variability_type="EA|RRC"))
    note_eclipses(observatory, now_utc=BEFORE)
    assert all_events(observatory)[0].words.endswith("86 deg, if it is one: type EA|RRC")
    observed(
        observatory, star=dataclasses.replace(BINARY, oid="8", variability_type="EP", name="b")
    )
    note_eclipses(observatory, now_utc=BEFORE)
    assert any(e.words.startswith("transit of b at") for e in all_events(observatory))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"period_d": None}, "XX Cyg: no period is known (VSX)"),
        ({"epoch_hjd": None}, "XX Cyg: no epoch is known (VSX)"),
        ({"period_d": 1e-9}, "no orbit's"),
        ({"period_d": 1e300, "epoch_hjd": 2460953.5}, "off by"),
        ({"period_d": 0.5, "epoch_hjd": 2450000.5}, "more than a quarter of the period"),
        ({"epoch_hjd": 52746.486}, "no full Julian date"),
        ({"epoch_hjd": float("nan")}, "is no number"),
    ],
)
def test_what_cannot_be_foretold_is_said_and_stops_nobody_else(observatory, changes, words):
    observed(observatory, star=dataclasses.replace(BINARY, **changes))
    observed(observatory, star=dataclasses.replace(BINARY, name="good", oid="8"))
    outlook = note_eclipses(observatory, now_utc=BEFORE)
    assert outlook.n_eclipses == 1
    assert len(outlook.not_foretold) == 1
    assert words in outlook.not_foretold[0]


def test_the_period_of_wombat_toml_comes_first(tmp_path):
    own = {"directory": ["XX Cyg"], "period_d": 2.0}
    observatory = opened(tmp_path, target=[own])
    observed(observatory, star=dataclasses.replace(BINARY, epoch_hjd=2460763.561506))
    outlook = note_eclipses(observatory, now_utc=BEFORE)  # 100 cycles of 2 ± 0.5 d
    assert outlook.not_foretold[0].startswith("XX Cyg: the period of 2 d is written to ± 0.5 d")
    assert outlook.not_foretold[0].endswith("(wombat.toml)")


def test_stars_of_long_ago_are_left_alone(observatory):
    observed(observatory, star=BINARY)
    later = BEFORE + dt.timedelta(days=70)
    outlook = note_eclipses(observatory, now_utc=later)
    assert (outlook.n_eclipses, outlook.not_foretold) == (0, ())


def test_without_a_site_it_is_said_once_and_0_hours_switch_it_off(tmp_path):
    for settings, said in (({"site": None}, 1), ({"events": {"eclipse_ahead_h": 0}}, 0)):
        observatory = Observatory(
            config.Settings(**{"base": tmp_path / str(said), "site": SITE} | settings)
        )
        observed(observatory, star=BINARY)
        observed(observatory, 1, star=dataclasses.replace(BINARY, oid="8"))
        outlook = note_eclipses(observatory, now_utc=BEFORE)
        assert outlook.n_eclipses == 0
        assert len(outlook.not_foretold) == said
        assert all("[site]" in words for words in outlook.not_foretold)


# ----------------------------------------------------------------------------------------- telling


def hook(tmp_path, text):
    file = tmp_path / "hook"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return {"events": {"command": [str(file)]}}


def flare(observatory, *, now=NOW, nights=(5,)):
    a_history(observatory)
    for night in nights:
        noted(observatory, night, 16.0 - night, now=now)


@SHELL
def test_the_command_gets_each_event_once_as_json(tmp_path):
    observatory = opened(tmp_path, **hook(tmp_path, "cat >> got"))
    flare(observatory)
    assert (tell(observatory, now_utc=NOW), tell(observatory, now_utc=NOW)) == (1, 0)
    (line,) = (tmp_path / "got").read_text().splitlines()
    assert json.loads(line) == {
        "kind": "brighter", "words": all_events(observatory)[0].words,
        "observation": "20251019__TX_Eri__V", "night": "2025-10-19", "target": "TX Eri",
        "filter": "V", "found_utc": "2025-10-24T12:00:00+00:00", "at_utc": None,
    }  # fmt: skip


@SHELL
def test_a_command_that_fails_is_logged_and_tried_again(tmp_path, caplog):
    observatory = opened(tmp_path, **hook(tmp_path, "echo x >> tries; test -e network"))
    flare(observatory, nights=(5, 6))
    assert tell(observatory, now_utc=NOW) == 0
    assert "tried again at the next look" in caplog.text
    assert (tmp_path / "tries").read_text() == "x\n"  # the second event is not tried in vain
    assert all(e.told_utc is None for e in all_events(observatory))
    (tmp_path / "network").touch()
    assert tell(observatory, now_utc=NOW) == 2


@SHELL
def test_a_run_does_not_wait_again_for_a_command_that_just_failed(tmp_path, monkeypatch):
    observatory = opened(tmp_path, **hook(tmp_path, "echo x >> tries; test -e network"))
    flare(observatory)
    for _ in range(3):
        assert tell_soon(observatory, now_utc=NOW) == 0
    assert (tmp_path / "tries").read_text() == "x\n"
    (tmp_path / "network").touch()
    assert tell_soon(observatory, now_utc=NOW) == 0
    assert tell(observatory, now_utc=NOW) == 1  # a person asks
    noted(observatory, 6, 9.0)
    assert tell_soon(observatory, now_utc=NOW) == 1  # it works again


def test_a_missing_command_stops_nothing(tmp_path, caplog):
    observatory = opened(tmp_path, events={"command": ["/no/such/program"]})
    flare(observatory)
    assert tell(observatory, now_utc=NOW) == 0
    assert "/no/such/program cannot be run" in caplog.text


@SHELL
def test_a_hanging_command_is_ended_in_time(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(stage, "COMMAND_LIMIT_S", 0.3)
    observatory = opened(tmp_path, **hook(tmp_path, "sleep 60"))
    flare(observatory)
    assert tell(observatory, now_utc=NOW) == 0
    assert "killed after 0.3 s" in caplog.text


@SHELL
def test_old_seen_and_past_events_are_not_told(tmp_path):
    observatory = opened(tmp_path, **hook(tmp_path, "cat >> got"))
    flare(observatory, now=BEFORE - dt.timedelta(days=8))
    noted(observatory, 6, 9.0)
    Events(observatory.status.path).mark_seen([all_events(observatory)[0].id], NOW)
    observed(observatory, star=BINARY)
    note_eclipses(observatory, now_utc=BEFORE)
    assert tell(observatory, now_utc=BEFORE + dt.timedelta(hours=2)) == 0
    assert tell(observatory, now_utc=NOW) == 0
    assert not (tmp_path / "got").exists()


@SHELL
def test_two_processes_never_tell_the_same_event(tmp_path):
    slow = hook(tmp_path, "cat >> got; sleep 0.2")
    observatory = opened(tmp_path, **slow)
    flare(observatory, nights=(5, 6, 7))
    code = (
        "import sys, pathlib, datetime as dt\n"
        "from wombat_dagster import config\n"
        "from wombat_dagster.observatory import Observatory\n"
        "from wombat_dagster.stages.events import tell\n"
        "settings = config.Settings(base=pathlib.Path(sys.argv[1]),"
        " events={'command': [sys.argv[1] + '/hook']})\n"
        "tell(Observatory(settings), now_utc=dt.datetime.fromisoformat(sys.argv[2]))\n"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path), NOW.isoformat()])
    while not (tmp_path / "got").exists() and other.poll() is None:
        time.sleep(0.01)
    while other.poll() is None:  # while the other one is at it
        tell(observatory, now_utc=NOW)
    assert other.returncode == 0
    tell(observatory, now_utc=NOW)
    told = [json.loads(line)["observation"] for line in (tmp_path / "got").read_text().splitlines()]
    assert sorted(told) == [f"202510{day}__TX_Eri__V" for day in (19, 20, 21)]


@SHELL
def test_a_look_finds_eclipses_tells_them_and_is_due_again_after_an_hour(tmp_path, monkeypatch):
    observatory = opened(tmp_path, **hook(tmp_path, "cat >> got"))
    observed(observatory, star=BINARY)
    assert is_look_due(observatory)
    assert look(observatory, now_utc=BEFORE).n_eclipses == 1
    assert json.loads((tmp_path / "got").read_text())["at_utc"].startswith("2025-10-15T01:24")
    assert not is_look_due(observatory)
    monkeypatch.setattr(stage, "LOOK_EVERY_S", 0.0)
    assert is_look_due(observatory)


# ------------------------------------------------------------------------------ as VSX writes it


def test_vsx_s_own_digits_and_doubts_count(observatory):
    """2.5000000 d: its zeros make ± 5e-8 d of it; 2.5 d would be ± 0.05 d. 14 % are 8.4 h."""
    written = dataclasses.replace(
        BINARY, period_d=2.5, period_text="2.5000000", epoch_hjd=2460863.561506,
        epoch_text="2460863.561506", eclipse_duration_percent=14.0,
    )  # fmt: skip
    observed(observatory, star=written)
    assert note_eclipses(observatory, now_utc=BEFORE).n_eclipses == 1
    assert all_events(observatory)[0].words.endswith("± 2 min, altitude 86 deg, lasts 8.4 h")
    observed(observatory, star=dataclasses.replace(written, period_text="2.5:"))
    outlook = note_eclipses(observatory, now_utc=BEFORE)
    assert outlook.not_foretold == ("XX Cyg: the period 2.5: is marked as uncertain (VSX)",)


def test_a_limit_of_vsx_s_is_no_end_of_the_range(observatory):
    star = dataclasses.replace(RANGED, mag_faint_is_limit=True)
    assert noted(observatory, 0, 15.0, star=star) == ()
    assert len(noted(observatory, 1, 10.0, star=star)) == 1
