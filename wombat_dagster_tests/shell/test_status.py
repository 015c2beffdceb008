"""The status row through re-runs: parked and released, never losing what a person decided."""

import datetime as dt
import shutil
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest

from wombat_dagster import runs
from wombat_dagster.domain import Apphot
from wombat_dagster.store import layout

SV_WOM = "20251014__SV_Wom__V"
FIRST, SECOND = dt.date(2025, 10, 14), dt.date(2025, 10, 15)


def test_a_parked_observation_goes_on_when_vsp_is_back(services, ending):
    services.aavso.fail("vsp", "500")
    assert ending(services).apphot == Apphot.NOVSP
    services.aavso.fail("vsp", "none")
    row = ending(services)
    assert (row.apphot, row.reason) == (Apphot.VALIDATE, None)
    assert SV_WOM in services.materialized("light_curve")


def test_a_person_s_word_survives_every_re_run(services, ending):
    """`submitted` is never erased, whatever the run ends in."""
    database = services.observatory.status
    with database._writing() as connection:
        connection.execute("UPDATE target SET submitted = 'approved' WHERE key = ?", (SV_WOM,))
    try:
        services.aavso.fail("vsp", "500")
        assert ending(services).submitted == "approved"
        services.aavso.fail("vsp", "none")
        row = ending(services)
        assert (row.apphot, row.submitted) == (Apphot.VALIDATE, "approved")
    finally:
        with database._writing() as connection:
            connection.execute("UPDATE target SET submitted = NULL WHERE key = ?", (SV_WOM,))


def test_our_own_mistake_is_red_and_leaves_the_status_alone(services, ending):
    assert ending(services).apphot == Apphot.VALIDATE
    before = services.row("SV Wom")
    with services.in_force() as observatory:
        # An AttributeError, deep inside the run.
        observatory.__dict__["vsx"] = SimpleNamespace(away=lambda: None)
        try:
            failures = services.run(nights=False, night=dt.date(2025, 10, 14))
        finally:
            del observatory.__dict__["vsx"]
    assert list(failures) == [SV_WOM]
    assert "variable: AttributeError" in failures[SV_WOM]
    row = services.row("SV Wom")
    assert (row.apphot, row.submitted, row.reason) == (before.apphot, None, before.reason)


def test_a_killed_run_is_made_good_by_the_next(services, ending):
    """Products without rows, as a crash leaves them, are made again with their rows."""
    assert ending(services).apphot == Apphot.VALIDATE
    database = services.observatory.status
    with database._writing() as connection:
        connection.execute("DELETE FROM product WHERE key = ?", (SV_WOM,))
        connection.execute("UPDATE target SET apphot = 0, proc = 0 WHERE key = ?", (SV_WOM,))
    assert services.row("SV Wom").apphot is None
    assert ending(services).apphot == Apphot.VALIDATE
    assert database.product_version(SV_WOM, "light_curve") is not None


def test_plans_hold_what_is_not_finished(services, ending):
    """0 and NULL both mean not done yet; a finished observation is left alone."""
    assert ending(services).apphot == Apphot.VALIDATE
    observatory = services.observatory
    assert runs.plan(observatory).observations == ()
    for value in (None, 0, "0", "novsp"):
        with observatory.status._writing() as connection:
            connection.execute("UPDATE target SET apphot = ? WHERE key = ?", (value, SV_WOM))
        assert [row.observation.key for row in runs.plan(observatory).observations] == [SV_WOM]


def planned_keys(place):
    return [row.observation.key for row in runs.plan(place.observatory).observations]


def test_late_frames_reopen_a_finished_observation(place, sky, hard_link):
    place.take("20251014/Bias/*", "20251014/Flat/*V.fit")
    for light in sky.lights_v[:3]:
        hard_link(light, place.data / light.relative_to(sky.data))
    assert place.run() == {}
    assert (place.row("SV Wom").apphot, planned_keys(place)) == (Apphot.VALIDATE, [])
    late = sky.lights_v[3]
    hard_link(late, place.data / late.relative_to(sky.data))
    assert planned_keys(place) == [SV_WOM]
    assert place.run() == {}
    assert len(place.product("standard_magnitudes", SV_WOM).t1_mag) == 4
    assert planned_keys(place) == []


def lend_biases(place, hard_link):
    """Give the biases of the first night to the second, which comes after it."""
    for bias in sorted(place.sky.data.glob("20251014/Bias/*")):
        hard_link(bias, place.data / "20251015" / "Bias" / bias.name)


def test_a_night_may_borrow_the_bias_of_a_later_one(place, hard_link):
    """The order of nights does not matter: flats of 10-14 wait for the biases of 10-15."""
    place.take("20251014/Flat/*V.fit", "20251014/Light/SV Wom/*V.fit")
    place.take("20251015/Light/SV Wom/*V.fit")
    lend_biases(place, hard_link)
    assert place.run() == {}
    for date in (FIRST, SECOND):
        row = place.row("SV Wom", date=date)
        assert (row.proc_bias, row.proc_flat) == ("2025-10-15", "2025-10-14")
    assert planned_keys(place) == []


def test_closer_masters_reopen_what_is_not_submitted(place, hard_link):
    place.take("20251014/Light/SV Wom/*V.fit")
    assert place.run() == {}
    assert (place.row("SV Wom").proc_bias, planned_keys(place)) == ("nocal", [])
    place.take("20251015/Light/SV Wom/*V.fit")
    lend_biases(place, hard_link)
    assert place.run_night(SECOND) == {}
    assert SV_WOM in planned_keys(place)
    database = place.observatory.status
    with database._writing() as connection:
        connection.execute("UPDATE target SET submitted = 'approved' WHERE key = ?", (SV_WOM,))
    assert SV_WOM not in planned_keys(place)
    with database._writing() as connection:
        connection.execute("UPDATE target SET submitted = NULL WHERE key = ?", (SV_WOM,))
    assert place.run() == {}
    assert place.row("SV Wom").proc_bias == "2025-10-15"
    assert planned_keys(place) == []


def test_a_night_that_is_gone_makes_nothing_red(place):
    """Its frames and masters are forgotten; its observations stay, with 0 frames."""
    place.take("20251014/Bias/*", "20251014/Light/SV Wom/*V.fit", "20251015/Light/SV Wom/*V.fit")
    assert place.run() == {}
    second = place.row("SV Wom", date=SECOND)
    assert (second.proc_bias, second.apphot) == ("2025-10-14", Apphot.VALIDATE)
    shutil.rmtree(place.data / "20251014")
    assert place.run() == {}
    assert place.observatory.status.night_keys() == ["20251015"]
    gone = place.row("SV Wom")
    assert (gone.n_frames, gone.proc, gone.apphot) == (0, "noframes", None)
    second = place.row("SV Wom", date=SECOND)
    assert (second.proc_bias, second.apphot) == ("nocal", Apphot.VALIDATE)


def test_a_night_that_is_gone_is_forgotten_though_only_it_is_looked_at(place):
    place.take("20251014/Light/SV Wom/*V.fit", "20251015/Light/SV Wom/*V.fit")
    place.observatory.scan()
    (place.data / "20251014").rename(place.root / "elsewhere")
    place.observatory.scan([FIRST])
    assert place.row("SV Wom").n_frames == 0
    assert place.row("SV Wom", date=SECOND).n_frames == 4


@pytest.mark.parametrize("dates", [None, [FIRST]])
def test_a_data_directory_that_is_not_mounted_changes_nothing(place, dates):
    place.take("20251014/Light/SV Wom/*V.fit")
    place.observatory.scan()
    place.data.rename(place.root / "elsewhere")
    place.observatory.scan(dates)
    place.data.mkdir()
    place.observatory.scan(dates)
    assert place.row("SV Wom").n_frames == 4


@pytest.mark.parametrize("dates", [None, [FIRST]])
def test_a_night_that_cannot_be_read_stays_as_it_was(place, hard_link, monkeypatch, caplog, dates):
    """Also when the other directory of its date can be read."""
    place.take("20251014/Light/SV Wom/*V.fit", "20251015/Light/SV Wom/*V.fit")
    blue = sorted(place.sky.data.glob("20251014/Light/*/*B.fit"))[0]
    hard_link(blue, place.data / "2025-10-14_b" / "Light" / "SV Wom" / blue.name)
    place.observatory.scan()
    real = layout.os.scandir

    def fail(path):
        if Path(path).name == "Light" and "20251014" in str(path):
            raise OSError(5, "Input/output error")
        return real(path)

    monkeypatch.setattr(layout.os, "scandir", fail)
    place.observatory.scan(dates)
    monkeypatch.undo()
    assert "20251014 cannot be read and stays as it was: [Errno 5]" in caplog.text
    assert place.row("SV Wom").n_frames == 4
    assert place.row("SV Wom", date=SECOND).n_frames == 4


def test_dagster_shows_what_was_met_on_the_way(place, sky, hard_link):
    """In the metadata and in the log of the run."""
    place.take("20251014/Light/SV Wom/*V.fit")
    hard_link(sky.lights_v[0], place.data / "20251014" / "loose.fit")
    assert place.run_night(FIRST) == {}
    words = "20251014: 1 FITS files lie directly in 20251014, not in Bias, Dark, Flat or Light"
    event = place.instance.get_latest_materialization_event(dg.AssetKey("raw_frames"))
    (shown,) = event.asset_materialization.metadata["warnings"].value
    assert shown.startswith(words)
    logged = [entry.user_message for entry in place.instance.all_logs(event.run_id)]
    assert any(words in message for message in logged)
