"""What the sensors ask for, tick by tick, and that nothing is asked for twice."""

import contextlib
import datetime as dt
import os
import shutil
import sqlite3
import time

import dagster as dg
import pytest

from wombat_dagster.domain import Apphot
from wombat_dagster.products import PRODUCTS
from wombat_dagster.resources import ObservatoryResource
from wombat_dagster.sensors import data as sensor
from wombat_dagster.sensors import recalibration, recovery
from wombat_dagster.sensors.asking import MAX_REQUESTS_PER_TICK, Asked, requests
from wombat_dagster.sensors.data import Memory, look, sight
from wombat_dagster.simulate.aavso import Service
from wombat_dagster.stages import due as due_module
from wombat_dagster.stages.due import due_observations, parked
from wombat_dagster.stages.work import Why
from wombat_dagster.store import layout
from wombat_dagster.store.remade import remade
from wombat_dagster.store.stage_runs import StageRuns

NIGHT = "20251014"
SV_WOM_V, SV_WOM_B = "20251014__SV_Wom__V", "20251014__SV_Wom__B"
QUIET_S = 60.0  # of the place's configuration


class Ticks:
    """Ticks of the data sensor on a clock of the test's own; its memory is the cursor alone."""

    def __init__(self, place):
        self.place, self.now_s, self.cursor = place, 1_000_000.0, None

    def due(self, *, after_s=QUIET_S, busy=()):
        self.now_s += after_s
        memory = Memory(self.cursor)
        with self.place.in_force() as observatory:
            seen = sight(observatory, memory, now_s=self.now_s)
            found = look(observatory, seen, busy=busy)
        self.cursor = memory.cursor()
        return found

    def tick(self, **how):
        """Return the (job, key) pairs that one tick asks for; nothing is run."""
        return [(one.job, one.key) for one in self.due(**how)]

    def work(self, **how):
        """Run what one tick asks for; return the pairs."""
        found = self.due(**how)
        assert self.place.carry_out(*found) == {}
        return [(one.job, one.key) for one in found]

    def recalibration(self):
        """Return what one tick of the recalibration sensor asks for."""
        with self.place.in_force() as observatory:
            return recalibration.look(observatory, busy=set())


@pytest.fixture
def ticks(place):
    place.take("20251014/Bias/*", "20251014/Flat/*", "20251014/Light/SV Wom/*")
    return Ticks(place)


@pytest.fixture
def finished(ticks):
    """A night whose V observation is finished."""
    for path in ticks.place.data.glob("20251014/Light/SV Wom/*B.fit"):
        path.unlink()
    assert [ticks.work() for _ in range(4)] == [
        [],
        [("night_job", NIGHT)],
        [("observation_job", SV_WOM_V)],
        [],
    ]
    assert ticks.place.row("SV Wom").apphot == Apphot.VALIDATE
    return ticks


def test_masters_are_asked_for_before_observations(ticks):
    assert ticks.tick() == []  # seen for the first time
    assert ticks.tick() == [("night_job", NIGHT)]
    assert ticks.work() == [("night_job", NIGHT)]  # until it has begun it stays due
    assert ticks.tick(busy={NIGHT}) == []
    assert ticks.tick() == [("observation_job", SV_WOM_B), ("observation_job", SV_WOM_V)]
    assert ticks.tick(busy={SV_WOM_B}) == [("observation_job", SV_WOM_V)]


def test_what_is_done_is_not_asked_for_again_without_any_memory(finished):
    finished.cursor = None
    assert [finished.tick() for _ in range(3)] == [[], [], []]
    assert finished.recalibration() == []


def test_a_night_being_copied_is_left_alone(ticks, sky, edit):
    """Every new file starts the quiet time again, and what is known of it is in the cursor."""
    ticks.tick()
    late = ticks.place.data / NIGHT / "Light" / "SV Wom" / "late.fit"
    edit(sky.lights_v[0], late, cards={"DATE-OBS": "2025-10-15T03:00:00"})
    assert ticks.tick(after_s=QUIET_S - 1) == []
    # The calibrations were quiet long enough, the lights are not.
    assert ticks.work(after_s=QUIET_S - 1) == [("night_job", NIGHT)]
    assert ticks.tick(after_s=0.5) == []
    assert len(ticks.tick(after_s=0.5)) == 2


def test_a_clock_set_back_only_begins_the_quiet_time_again(ticks):
    ticks.tick()
    assert ticks.tick(after_s=-86400.0) == []
    assert ticks.tick(after_s=QUIET_S - 1) == []
    assert ticks.tick(after_s=1) == [("night_job", NIGHT)]


def test_late_frames_ask_for_exactly_their_observation(finished, sky, edit):
    late = finished.place.data / NIGHT / "Light" / "SV Wom" / "late.fit"
    cards = {"DATE-OBS": "2025-10-15T03:00:00"}
    edit(sky.lights_v[0], late, pixels=lambda image: image + 1, cards=cards)
    assert finished.tick() == []
    assert finished.work() == [("night_job", NIGHT)]  # opens the new files, keeps the masters
    (asked,) = finished.due()
    assert (asked.key, asked.why) == (SV_WOM_V, Why.LATE_FRAMES)
    assert finished.place.carry_out(asked) == {}
    assert finished.place.row("SV Wom").n_frames == 5
    assert [finished.tick(), finished.recalibration()] == [[], []]


def test_frames_that_are_gone_retire_their_observation_and_keep_the_decision(finished):
    place = finished.place
    decide(place, "submitted")
    lights = place.data / NIGHT / "Light" / "SV Wom"
    lights.rename(place.data / "elsewhere")
    (place.data / NIGHT / "Light" / "Other").mkdir()
    assert place.row("SV Wom").retired_utc is None
    shutil.copy(sorted((place.data / "elsewhere").iterdir())[0], lights.with_name("Other"))
    finished.tick()
    assert finished.work() == [("night_job", NIGHT)]
    row = place.row("SV Wom")
    assert (row.retired_utc is not None, row.submitted, row.apphot) == (
        True,
        "submitted",
        "validate",
    )
    (place.data / "elsewhere").rename(lights)
    finished.tick()
    finished.work()
    row = place.row("SV Wom")
    assert (row.retired_utc, row.submitted) == (None, "submitted")


def test_a_renamed_target_keeps_what_was_decided(finished):
    place = finished.place
    decide(place, "submitted")
    lights = place.data / NIGHT / "Light" / "SV Wom"
    lights.rename(lights.with_name("SV Wombat"))
    finished.tick()
    assert finished.work() == [("night_job", NIGHT)]
    row = place.row("SV Wombat")
    assert (row.submitted, row.changed_since) == ("submitted", f"renamed: was {SV_WOM_V}")
    assert place.row("SV Wom").retired_utc is not None


def test_a_night_that_is_gone_is_retired_without_a_run(finished):
    shutil.rmtree(finished.place.data / NIGHT)
    (finished.place.data / "20251101").mkdir()  # an empty disk is one that is not mounted
    assert finished.tick() == []
    assert finished.place.row("SV Wom").retired_utc is not None
    assert finished.tick() == []


def test_new_biases_ask_for_the_night_and_then_for_what_they_concern(finished, sky, edit):
    late = finished.place.data / NIGHT / "Bias" / "late.fit"
    edit(sorted(sky.data.glob("20251014/Bias/*"))[0], late, pixels=lambda image: image + 1)
    finished.tick()
    assert finished.work() == [("night_job", NIGHT)]
    assert finished.tick() == []
    (again,) = finished.recalibration()
    assert (again.job, again.key, again.why) == ("observation_job", SV_WOM_V, Why.MASTERS)
    assert finished.place.carry_out(again) == {}
    assert finished.recalibration() == []
    (change,) = remade(finished.place.observatory.status.path, SV_WOM_V)
    assert change.why == Why.MASTERS
    assert change.what.startswith("bias 2025-10-14 (")
    assert 0 < abs(change.t1_largest_change_mag) < 0.05


def test_masters_of_another_night_concern_nobody_who_has_closer_ones(finished):
    finished.place.take("20251015/Flat/*", "20251015/Light/SV Wom/*")
    finished.tick()
    assert finished.work() == [("night_job", "20251015")]
    assert finished.work() == [("observation_job", "20251015__SV_Wom__V")]
    assert finished.recalibration() == []
    assert len(StageRuns(finished.place.observatory.status.path).history(SV_WOM_V)) == len(
        [*due_module.STAGES, *due_module.LAST_STAGES, due_module.TRIAGE]
    )


def test_a_master_that_the_person_replaced_is_taken_up(finished):
    place = finished.place
    path = place.data / NIGHT / "mbias.fits"
    from astropy.io import fits

    with fits.open(path) as hdus:
        pixels, group = hdus[0].data + 3.0, hdus[0].header["INSTRUME"]
    path.unlink()
    header = fits.Header({"INSTRUME": group, "XBINNING": 1, "YBINNING": 1})
    fits.PrimaryHDU(pixels, header).writeto(path)
    (night,) = finished.recalibration()
    assert (night.key, night.why) == (NIGHT, Why.MASTER_REPLACED)
    assert place.carry_out(night) == {}
    (again,) = finished.recalibration()
    assert (again.key, again.why) == (SV_WOM_V, Why.MASTERS)


def test_what_a_person_decided_on_is_listed_and_not_made_again(finished, sky, edit):
    decide(finished.place, "approved")
    late = finished.place.data / NIGHT / "Bias" / "late.fit"
    edit(sorted(sky.data.glob("20251014/Bias/*"))[0], late, pixels=lambda image: image + 1)
    finished.tick()
    finished.work()
    assert finished.recalibration() == []
    row = finished.place.row("SV Wom")
    assert row.submitted == "approved"
    assert row.changed_since == "other masters: masters (calibration_choice)"


def test_chosen_comps_ask_for_their_target_alone_from_the_variable_on(finished):
    from wombat_dagster.store.comp_choices import Choice, CompChoices

    auid = finished.place.sky.good_comps[0]
    path = finished.place.observatory.status.path
    CompChoices(path).change(["SV Wom"], choose={auid: Choice.BAN})
    (again,) = finished.recalibration()
    assert (again.job, again.key, again.why) == ("stars_job", SV_WOM_V, Why.CHOICES)
    assert finished.place.carry_out(again) == {}
    assert finished.recalibration() == []


def test_another_setting_is_said_by_name(finished):
    finished.place.configure(photometry="radius_fwhm = 1.5")
    (again,) = finished.recalibration()
    assert (again.job, again.why) == ("stars_job", Why.SETTINGS)
    assert "photometry_table" in again.words


def test_a_run_that_was_killed_is_taken_up_again(finished):
    runs = StageRuns(finished.place.observatory.status.path)
    runs.begin(SV_WOM_V, "calibration_choice", inputs={"light frames": "x"}, run_id="k", why=None)
    with finished.place.in_force() as observatory:
        # Not at once: in a backfill Dagster itself begins it again.
        assert due_observations(observatory).due == ()
        (again,) = due_observations(observatory, now_utc=later(minutes=2)).due
        assert again.why is Why.INTERRUPTED
        assert due_observations(observatory, now_utc=later(minutes=2), busy={SV_WOM_V}).due == ()


def test_what_is_killed_over_and_over_is_tried_daily(finished):
    runs = StageRuns(finished.place.observatory.status.path)
    for _ in range(30):
        runs.begin(SV_WOM_V, "calibration_choice", inputs={}, run_id="killed", why=None)
    with finished.place.in_force() as observatory:
        assert due_observations(observatory, now_utc=later(hours=23)).due == ()
        assert len(due_observations(observatory, now_utc=later(hours=25)).due) == 1


def test_what_failed_waits_longer_every_time(finished):
    runs = StageRuns(finished.place.observatory.status.path)

    def fail():
        number = runs.begin(SV_WOM_V, "calibration_choice", inputs={}, run_id="1", why=None)
        runs.end(number, "failed", "disk full", inputs={})

    def is_due(**after):
        with finished.place.in_force() as observatory:
            return [one.words for one in due_observations(observatory, now_utc=later(**after)).due]

    fail()
    assert is_due(seconds=30) == []
    assert is_due(seconds=90) == ["calibration_choice: disk full"]
    fail()
    assert is_due(seconds=90) == []
    assert len(is_due(minutes=5)) == 1


def test_an_observation_waits_for_its_own_night_s_calibrations(ticks, sky, edit):
    """Its lights are quiet, a bias is still coming: what it would be made with is not there yet."""
    ticks.tick()
    ticks.work()
    late = ticks.place.data / NIGHT / "Bias" / "late.fit"
    edit(sorted(sky.data.glob("20251014/Bias/*"))[0], late, pixels=lambda image: image + 1)
    assert ticks.tick(after_s=QUIET_S / 2) == []
    assert ticks.work() == [("night_job", NIGHT)]
    assert ticks.tick() == [("observation_job", SV_WOM_B), ("observation_job", SV_WOM_V)]


def test_an_observation_waits_where_masters_could_not_be_made_by_our_fault(ticks):
    ticks.tick()
    ticks.work()
    runs = StageRuns(ticks.place.observatory.status.path)
    number = runs.begin(NIGHT, "master_flats", inputs={}, run_id="2", why=None)
    runs.end(number, "failed", "disk full", inputs={})
    with ticks.place.in_force() as observatory:
        outlook = due_observations(observatory)
    assert outlook.due == ()
    assert NIGHT in outlook.waiting[SV_WOM_V]


def test_a_night_on_a_failing_disk_holds_up_nobody_else(ticks, monkeypatch):
    ticks.place.take("20251015/Flat/*", "20251015/Light/SV Wom/*")
    real = layout.night_signatures

    def fail(night):
        if night.name == NIGHT:
            raise OSError(5, "Input/output error")
        return real(night)

    monkeypatch.setattr(layout, "night_signatures", fail)
    ticks.tick()
    assert ticks.tick() == [("night_job", "20251015")]


@pytest.mark.parametrize("text", ["[sensors", "[sensors]\ninterval_s = 0", None])
def test_the_code_loads_though_the_configuration_is_broken(tmp_path, monkeypatch, caplog, text):
    from wombat_dagster import sensors

    path = tmp_path / "wombat.toml"
    if text is not None:
        path.write_text(text)
    monkeypatch.setenv("WOMBAT_CONFIG", str(path))
    assert sensors.interval_s() == 30
    assert str(path) in caplog.text
    path.write_text("[sensors]\ninterval_s = 7")
    assert sensors.interval_s() == 7


def test_an_observation_of_unusable_frames_has_its_end_too(place, sky, edit):
    place.take("20251014/Light/SV Wom/*V.fit")
    for name, keyword in (("No Date", "DATE-OBS"), ("No Filter", "FILTER")):
        edit(
            sky.lights_v[0],
            place.data / NIGHT / "Light" / name / "1.fit",
            remove=(keyword,),
        )
    ticks = Ticks(place)
    ticks.tick()
    ticks.work()
    asked = ticks.tick()
    assert ("observation_job", "20251014__No_Date__V") in asked
    assert ("observation_job", "20251014__No_Filter__unknown") in asked


def test_a_tick_asks_for_so_many_runs_and_no_more(place):
    from wombat_dagster.stages.work import Due

    due = [
        Due(job="observation_job", key=f"k{n}", why=Why.NEW, words="", signature="s")
        for n in range(100)
    ]
    asked = Asked(place.instance)
    assert len(requests(due, place.observatory, asked, n_busy=0)) == MAX_REQUESTS_PER_TICK
    assert len(requests(due, place.observatory, asked, n_busy=45)) == 5
    assert len(requests(due, place.observatory, asked, n_busy=60)) == 0


def test_a_run_that_wrote_nothing_down_is_asked_for_again_and_holds_up_nobody(place):
    """Killed before its first stage: what was asked for shows in Dagster's runs alone."""
    from wombat_dagster.stages.work import Due

    due = Due(job="night_job", key=NIGHT, why=Why.NEW, words="", signature="s")

    def asked():
        found = requests([due], place.observatory, Asked(place.instance), n_busy=0)
        return [one.run_key for one in found]

    def end_run(status):
        (request,) = requests([due], place.observatory, Asked(place.instance), n_busy=0)
        run = place.instance.create_run_for_job(
            defs.resolve_job_def("night_job"),
            tags={**request.tags, "dagster/partition": NIGHT},
            status=status,
        )
        return run.run_id

    from wombat_dagster.definitions import defs

    place.instance.add_dynamic_partitions("night", [NIGHT])
    first = asked()
    run_id = end_run(dg.DagsterRunStatus.STARTED)
    assert asked() == []
    run = place.instance.get_run_by_id(run_id)
    place.instance.report_run_failed(run)
    assert asked() == []  # not at once
    with pytest.MonkeyPatch.context() as patch:
        later_s = time.time() + 120.0
        patch.setattr("wombat_dagster.sensors.asking.time.time", lambda: later_s)
        again = asked()
    assert len(again) == 1
    assert again != first


def test_a_night_that_comes_back_is_taken_up_whole(finished):
    night = finished.place.data / NIGHT
    (finished.place.data / "20251101").mkdir()
    night.rename(finished.place.root / "away")
    assert finished.tick() == []
    (finished.place.root / "away").rename(night)
    finished.tick()
    assert finished.work() == [("night_job", NIGHT)]
    (again,) = finished.due()
    assert (again.key, again.words) == (SV_WOM_V, "its frames are back")
    assert finished.place.carry_out(again) == {}
    row = finished.place.row("SV Wom")
    assert (row.proc, row.apphot, row.proc_bias) == ("solved", "validate", "2025-10-14")
    assert [finished.tick(), finished.recalibration()] == [[], []]


def test_what_only_reports_does_not_hold_up_a_night(ticks):
    ticks.tick()
    ticks.work()
    runs = StageRuns(ticks.place.observatory.status.path)
    number = runs.begin(NIGHT, "detector_noise", inputs={}, run_id="2", why=None)
    runs.end(number, "failed", "a fault", inputs={})
    with ticks.place.in_force() as observatory:
        assert len(due_observations(observatory).due) == 2


def test_looking_changes_nothing_in_the_data_directory(ticks):
    before = ticks.place.raw_files()
    for _ in range(4):
        ticks.tick()
    assert ticks.place.raw_files() == before
    assert list(ticks.place.data.rglob("m*.fits")) == []


def test_a_night_without_lights_asks_for_nothing(place):
    place.take("20251014/Bias/*")
    ticks = Ticks(place)
    assert [ticks.tick() for _ in range(3)] == [[], [], []]
    assert place.observatory.status.night_keys() == []


def test_the_sensor_itself_adds_partitions_and_keeps_its_cursor(ticks):
    """Through Dagster: keys, requests and cursor; partitions of what is retired are taken away."""
    ticks.place.configure(sensors="interval_s = 30")
    text = (ticks.place.root / "wombat.toml").read_text().replace("quiet_s = 60.0", "quiet_s = 0.0")
    (ticks.place.root / "wombat.toml").write_text(text)
    instance = ticks.place.instance
    instance.add_dynamic_partitions("observation", ["20001231__Gone__V"])

    def tick(cursor):
        from wombat_dagster.definitions import defs

        with dg.build_sensor_context(
            instance=instance,
            cursor=cursor,
            repository_def=defs.get_repository_def(),
            resources={"observatory": ObservatoryResource()},
        ) as context:
            result = sensor.data_sensor(context)
        changes = {
            (type(one).__name__, key)
            for one in result.dynamic_partitions_requests
            for key in one.partition_keys
        }
        return result.cursor, [(r.job_name, r.partition_key) for r in result.run_requests], changes

    with ticks.place.in_force():
        cursor, asked, changes = tick(None)
        assert asked == [("night_job", NIGHT)]
        assert changes == {
            ("AddDynamicPartitionsRequest", NIGHT),
            ("DeleteDynamicPartitionsRequest", "20001231__Gone__V"),
        }
        ticks.work()
        _, asked, changes = tick(cursor)
    assert asked == [("observation_job", SV_WOM_B), ("observation_job", SV_WOM_V)]
    assert {key for _, key in changes} >= {"20001231__Gone__V"}


def test_two_directories_of_one_date_are_one_night(place, sky, hard_link):
    place.take("20251014/Bias/*", "20251014/Light/SV Wom/*V.fit")
    for frame in sorted(sky.data.glob("20251014/Flat/*V.fit")):
        hard_link(frame, place.data / "2025-10-14_b" / "Flat" / frame.name)
    ticks = Ticks(place)
    ticks.tick()
    assert ticks.work() == [("night_job", NIGHT)]
    assert ticks.tick() == [("observation_job", SV_WOM_V)]


# --------------------------------------------------------------------------------------- outages


def recovery_look(place, **how):
    with place.in_force() as observatory:
        released = recovery.look(observatory, **how)
        recovery.INQUIRIES.wait()
    return released


def test_an_outage_parks_and_its_end_releases_exactly_what_is_parked(ticks):
    place = ticks.place
    place.configure(tail="", aavso="probe_s = 300.0")
    place.aavso.fail(Service.VSP, "500")
    ticks.tick()
    ticks.work()
    ticks.work()
    assert {row.apphot for row in place.rows} == {"novsp"}
    n_asked = place.aavso.requests[Service.VSP]
    assert n_asked == 1  # the second observation was parked without a request
    assert [ticks.tick(), ticks.recalibration()] == [[], []]
    place.aavso.fail(Service.VSP, "none")
    assert recovery_look(place) == []  # not yet time to ask
    assert place.aavso.requests[Service.VSP] == n_asked
    let_the_wait_pass(place, "vsp")
    assert recovery_look(place) == []  # asks
    (released,) = recovery_look(place)
    assert released.service == "VSP"
    assert set(released.assets) == {SV_WOM_B, SV_WOM_V}
    assert released.assets[SV_WOM_V][0] == "comp_list"
    assert recovery_look(place, busy={SV_WOM_B, SV_WOM_V}) == []


def test_a_release_is_one_backfill_of_exactly_these_partitions(ticks):
    from wombat_dagster.definitions import defs

    released = recovery.Release(
        service="VSP",
        assets={SV_WOM_B: ("standard_magnitudes", "light_curve"), SV_WOM_V: ("light_curve",)},
    )
    ticks.place.instance.add_dynamic_partitions("observation", [SV_WOM_B, SV_WOM_V])
    graph = defs.get_repository_def().asset_graph
    request = recovery.backfill_request(released, graph)
    subset = request.asset_graph_subset
    found = {
        (one.asset_key.to_user_string(), one.partition_key)
        for one in subset.iterate_asset_partitions()
    }
    assert found == {
        ("standard_magnitudes", SV_WOM_B),
        ("light_curve", SV_WOM_B),
        ("light_curve", SV_WOM_V),
    }
    assert request.tags[recovery.RELEASE_TAG] == "VSP"


def test_what_failed_after_its_release_is_not_released_for_ever(ticks):
    runs = StageRuns(ticks.place.observatory.status.path)
    ticks.place.observatory.scan()
    number = runs.begin(SV_WOM_V, "photometry_table", inputs={}, run_id="1", why=None)
    runs.end(number, "failed", "a fault", inputs={})
    ticks.place.observatory.status.set_status(SV_WOM_V, {"apphot": "novsp"})
    assert parked(ticks.place.observatory, Apphot.NOVSP) == []


def test_a_decided_observation_that_broke_is_listed_and_not_made_again(finished):
    decide(finished.place, "approved")
    runs = StageRuns(finished.place.observatory.status.path)
    runs.begin(SV_WOM_V, "light_curve", inputs={}, run_id="k", why=None)
    with finished.place.in_force() as observatory:
        outlook = due_observations(observatory, now_utc=later(minutes=5))
    assert outlook.due == ()
    assert "interrupted" in outlook.changed_since[SV_WOM_V]


@pytest.mark.parametrize(
    ("asset", "job"),
    [
        ("reduced_frames", "observation_job"),
        ("photometry_table", "stars_job"),
        ("standard_magnitudes", "magnitudes_job"),
    ],
)
def test_a_product_that_somebody_deleted_is_made_again(finished, asset, job):
    place = finished.place
    PRODUCTS[asset].path(place.observatory.layout, SV_WOM_V).unlink()
    assert finished.work() == [(job, SV_WOM_V)]
    assert PRODUCTS[asset].path(place.observatory.layout, SV_WOM_V).exists()
    assert finished.work() == []


def test_a_night_s_product_that_somebody_deleted_is_made_again(finished):
    path = PRODUCTS["bad_pixels"].path(finished.place.observatory.layout, NIGHT)
    path.unlink()
    assert finished.work() == [("night_job", NIGHT)]
    assert path.exists()
    assert finished.work() == []


def test_what_was_deleted_of_a_decided_observation_stays_away(finished):
    decide(finished.place, "submitted")
    shutil.rmtree(finished.place.observatory.layout.observation_dir(SV_WOM_V))
    assert finished.work() == []


@pytest.mark.parametrize("column", ["proc_bias", "proc_flat", "proc"])
def test_what_a_person_sets_to_not_done_is_done_again_from_the_beginning(finished, column):
    """The owner's text: NULL and 0 mean that it has not been done."""
    with contextlib.closing(sqlite3.connect(finished.place.observatory.status.path)) as connection:
        connection.execute(f"UPDATE target SET {column} = 0 WHERE key = ?", (SV_WOM_V,))
        connection.commit()
    assert finished.work() == [("observation_job", SV_WOM_V)]
    assert getattr(finished.place.row("SV Wom"), column) is not None
    assert finished.work() == []


def test_a_frame_without_a_filter_makes_nothing_else_again(finished, sky, edit):
    """In the year's drill a frame still being copied made a target's every night again."""
    late = finished.place.data / "20251015" / "Light" / "SV Wom" / "odd.fit"
    edit(sky.lights_v[0], late, pixels=lambda image: image + 1, remove=("FILTER",))
    with finished.place.in_force() as observatory:
        observatory.scan()
        assert "unknown" in {row.observation.filter for row in finished.place.rows}
        due = due_observations(observatory).due
    assert SV_WOM_V not in {one.key for one in due}


def test_another_filter_s_colour_is_listed_for_what_a_person_decided_on(finished, monkeypatch):
    one = finished.place.row("SV Wom").observation
    monkeypatch.setattr(due_module, "stale_inputs", lambda _: {one: {SV_WOM_B: "1"}})
    with finished.place.in_force() as observatory:
        (again,) = due_observations(observatory).due
        assert (again.job, again.why) == ("magnitudes_job", Why.SIBLING)
        decide(finished.place, "submitted")
        outlook = due_observations(observatory)
    assert outlook.due == ()
    assert outlook.changed_since == {SV_WOM_V: f"{Why.SIBLING}: standard magnitudes"}


def test_what_was_noted_of_a_decided_observation_stays(finished):
    status = finished.place.observatory.status
    status.note_changed_since(SV_WOM_V, "2026-11-21: T1 +0.05 mag")
    status.record_changed_since({SV_WOM_V: "other masters"})
    status.record_changed_since({})
    assert finished.place.row("SV Wom").changed_since == "made again 2026-11-21: T1 +0.05 mag"


def test_a_service_that_only_answers_probes_is_not_rushed(ticks):
    """Released in vain once, an observation waits; longer every time."""
    place = ticks.place
    runs = StageRuns(place.observatory.status.path)
    place.observatory.scan()

    def park():
        number = runs.begin(SV_WOM_V, "comp_list", inputs={}, run_id="1", why=None)
        runs.end(number, "VspUnavailable", "away", inputs={})
        place.observatory.status.set_status(SV_WOM_V, {"apphot": "novsp"})

    def released():
        return [one.key for one in parked(place.observatory, Apphot.NOVSP, patiently=True)]

    park()
    assert released() == [SV_WOM_V]
    park()
    assert released() == []
    assert [one.key for one in parked(place.observatory, Apphot.NOVSP)] == [SV_WOM_V]


# ------------------------------------------------------------------------------------------- words


def decide(place, word):
    import sqlite3

    with sqlite3.connect(place.observatory.status.path) as connection:
        connection.execute("UPDATE target SET submitted = ?", (word,))


def later(**after):
    return dt.datetime.now(dt.UTC) + dt.timedelta(**after)


def let_the_wait_pass(place, service):
    """Make the outage an hour older."""
    import json

    path = place.root / "cache" / f"away_{service}.json"
    kept = json.loads(path.read_text())
    for name in ("since_utc", "last_utc", "next_try_utc"):
        time = dt.datetime.fromisoformat(kept[name]) - dt.timedelta(hours=1)
        kept[name] = time.isoformat()
    path.write_text(json.dumps(kept))
    os.utime(path)
