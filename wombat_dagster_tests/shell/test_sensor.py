"""What the data sensor finds new, tick by tick, and that nothing is asked for twice."""

import dagster as dg
import pytest

from wombat_dagster.resources import ObservatoryResource
from wombat_dagster.sensors import data as sensor
from wombat_dagster.sensors.data import Memory, look
from wombat_dagster.store import layout

SV_WOM_V, SV_WOM_B = "20251014__SV_Wom__V", "20251014__SV_Wom__B"
QUIET_S = 60.0  # of the place's configuration


class Ticks:
    """The sensor's ticks on a clock of the test's own, its memory kept as the cursor only."""

    def __init__(self, place):
        self.place, self.now_s, self.cursor = place, 1_000_000.0, None

    def tick(self, *, after_s=QUIET_S, masters_running=False):
        """Return the (job, key) pairs that one tick asks for."""
        self.now_s += after_s
        memory = Memory(self.cursor)
        requests = look(
            self.place.observatory, memory, now_s=self.now_s, masters_running=masters_running
        )
        self.cursor = memory.cursor()
        return [(request.job, request.key) for request in requests]


@pytest.fixture
def ticks(place):
    place.take("20251014/Bias/*", "20251014/Flat/*", "20251014/Light/SV Wom/*")
    return Ticks(place)


def test_masters_are_asked_for_before_observations(ticks):
    assert ticks.tick() == []  # seen for the first time
    assert ticks.tick() == [("night_job", "20251014")]
    assert ticks.tick(masters_running=True) == []
    assert ticks.tick() == [("observation_job", SV_WOM_B), ("observation_job", SV_WOM_V)]


def test_nothing_is_asked_for_twice(ticks):
    for _ in range(3):
        ticks.tick()
    assert [ticks.tick() for _ in range(3)] == [[], [], []]


def test_a_night_being_copied_is_left_alone(ticks, sky, edit):
    """Every new file starts the quiet time again, and what is known of it is in the cursor."""
    ticks.tick()
    late = ticks.place.data / "20251014" / "Light" / "SV Wom" / "late.fit"
    edit(sky.lights_v[0], late, cards={"DATE-OBS": "2025-10-15T03:00:00"})
    assert ticks.tick(after_s=QUIET_S - 1) == []
    # The calibrations were quiet long enough, the lights are not.
    assert ticks.tick(after_s=QUIET_S - 1) == [("night_job", "20251014")]
    assert ticks.tick(after_s=0.5) == []
    assert len(ticks.tick(after_s=0.5)) == 2


def test_late_frames_ask_for_exactly_their_observation(ticks, sky, edit):
    for _ in range(3):
        ticks.tick()
    late = ticks.place.data / "20251014" / "Light" / "SV Wom" / "late.fit"
    edit(sky.lights_v[0], late, pixels=lambda image: image + 1)
    assert ticks.tick() == []
    assert ticks.tick() == [("observation_job", SV_WOM_V)]
    assert ticks.place.row("SV Wom").n_frames == 5


def test_new_biases_ask_for_the_night_alone(ticks, sky, edit):
    for _ in range(3):
        ticks.tick()
    late = ticks.place.data / "20251014" / "Bias" / "late.fit"
    edit(sorted(sky.data.glob("20251014/Bias/*"))[0], late, pixels=lambda image: image + 1)
    ticks.tick()
    assert ticks.tick() == [("night_job", "20251014")]
    assert ticks.tick() == []


def test_an_observation_waits_for_its_own_night_s_calibrations(ticks, sky, edit):
    """Its lights are quiet, a bias is still coming: what it would be made with is not there yet."""
    for _ in range(2):
        ticks.tick()
    late = ticks.place.data / "20251014" / "Bias" / "late.fit"
    edit(sorted(sky.data.glob("20251014/Bias/*"))[0], late, pixels=lambda image: image + 1)
    assert ticks.tick(after_s=QUIET_S / 2) == []
    assert ticks.tick() == [("night_job", "20251014")]
    assert ticks.tick() == [("observation_job", SV_WOM_B), ("observation_job", SV_WOM_V)]


def test_a_night_on_a_failing_disk_holds_up_nobody_else(ticks, monkeypatch):
    ticks.place.take("20251015/Flat/*", "20251015/Light/SV Wom/*")
    real = layout.night_signatures

    def fail(night):
        if night.name == "20251014":
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
            place.data / "20251014" / "Light" / name / "1.fit",
            remove=(keyword,),
        )
    ticks = Ticks(place)
    asked = [request for _ in range(3) for request in ticks.tick()]
    assert ("observation_job", "20251014__No_Date__V") in asked
    assert ("observation_job", "20251014__No_Filter__unknown") in asked


def test_a_tick_asks_for_so_many_runs_and_no_more(ticks, monkeypatch, hard_link, sky):
    monkeypatch.setattr(sensor, "MAX_REQUESTS_PER_TICK", 2)
    for number in range(3):
        light = sky.lights_v[0]
        hard_link(light, ticks.place.data / "20251014" / "Light" / f"Star {number}" / light.name)
    ticks.tick()
    assert ticks.tick() == [("night_job", "20251014")]
    asked = [ticks.tick() for _ in range(4)]
    assert [len(requests) for requests in asked] == [2, 2, 1, 0]
    assert len({request for requests in asked for request in requests}) == 5


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
    """Through Dagster: the first tick only looks, a later one brings keys, requests and cursor."""
    ticks.place.configure(sensors="interval_s = 30")
    text = (ticks.place.root / "wombat.toml").read_text().replace("quiet_s = 60.0", "quiet_s = 0.0")
    (ticks.place.root / "wombat.toml").write_text(text)
    with ticks.place.in_force():
        from wombat_dagster.definitions import defs

        cursor, asked, keys = None, [], []
        for _ in range(3):
            with dg.build_sensor_context(
                instance=ticks.place.instance,
                cursor=cursor,
                repository_def=defs.get_repository_def(),
                resources={"observatory": ObservatoryResource()},
            ) as context:
                result = sensor.data_sensor(context)
            cursor = result.cursor
            asked.append([(r.job_name, r.partition_key) for r in result.run_requests])
            for request in result.dynamic_partitions_requests:
                keys += request.partition_keys
                ticks.place.instance.add_dynamic_partitions(
                    request.partitions_def_name, request.partition_keys
                )
    assert asked[0] == [("night_job", "20251014")]
    assert asked[1] == [("observation_job", SV_WOM_B), ("observation_job", SV_WOM_V)]
    assert asked[2] == []
    assert sorted(keys) == ["20251014", SV_WOM_B, SV_WOM_V]


def test_a_failed_run_keeps_no_other_sibling_from_its_magnitudes(place, monkeypatch):
    """Whoever was asked for and is still stale is not asked for again, until a table changes."""
    from wombat_dagster.sensors import siblings

    place.take("20251014/Light/SV Wom/*")
    observatory = place.observatory
    observatory.scan()
    observations = {row.observation.key: row.observation for row in place.rows}

    def measured(key, version):
        observatory.status.record_product(
            key, "photometry_table", path="p", content_hash="h", version=version, inputs={},
            status={},
        )  # fmt: skip

    measured(SV_WOM_V, "1")
    monkeypatch.setattr(siblings, "MAX_REQUESTS_PER_TICK", 1)
    monkeypatch.setattr(
        siblings, "stale_inputs", lambda _: {key: {} for key in observations.values()}
    )
    cursor = None

    def tick():
        nonlocal cursor
        with dg.build_sensor_context(
            instance=place.instance,
            cursor=cursor,
            resources={"observatory": ObservatoryResource()},
        ) as context:
            result = siblings.sibling_sensor(context)
        cursor = result.cursor
        return [request.partition_key for request in result.run_requests]

    with place.in_force():
        assert [tick() for _ in range(3)] == [[SV_WOM_B], [SV_WOM_V], []]
        measured(SV_WOM_V, "2")
        assert tick() == [SV_WOM_B]


def test_two_directories_of_one_date_are_one_night(place, sky, hard_link):
    place.take("20251014/Bias/*", "20251014/Light/SV Wom/*V.fit")
    for frame in sorted(sky.data.glob("20251014/Flat/*V.fit")):
        hard_link(frame, place.data / "2025-10-14_b" / "Flat" / frame.name)
    ticks = Ticks(place)
    ticks.tick()
    assert ticks.tick() == [("night_job", "20251014")]
    assert ticks.tick() == [("observation_job", SV_WOM_V)]
