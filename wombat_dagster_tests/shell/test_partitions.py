"""Partition keys: safe whatever a directory is called, and never a path out of the products."""

import datetime as dt

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wombat_dagster import runs
from wombat_dagster.domain import Observation, distinct_slug, slug
from wombat_dagster.partitions import NIGHTS, OBSERVATIONS
from wombat_dagster.store.layout import Layout

EVIL = "../../x"


@pytest.fixture
def layout(tmp_path):
    return Layout(data=tmp_path / "data", products=tmp_path / "products", cache=tmp_path / "cache")


@pytest.mark.parametrize(
    "key", [EVIL, "20251014__../../x__V", "/etc/passwd", "20251014__a/b__V", "20251014__..__V", ""]
)
def test_a_key_that_would_be_a_path_is_refused(layout, key):
    with pytest.raises(ValueError, match="no observation's key"):
        layout.observation_dir(key)


@given(target=st.text(min_size=1), filter=st.text(min_size=1))
def test_no_name_leads_out_of_the_products(tmp_path_factory, target, filter):
    root = tmp_path_factory.getbasetemp()
    layout = Layout(data=root / "d", products=root / "p", cache=root / "c")
    key = f"20251014__{slug(target)}__{slug(filter)}"
    directory = layout.observation_dir(
        Observation(date=dt.date(2025, 10, 14), target=target, filter=filter, key=key)
    )
    assert directory.parent.parent.parent == layout.products
    assert ".." not in directory.parts


@given(names=st.lists(st.text(min_size=1, max_size=6), min_size=2, max_size=8, unique=True))
def test_different_names_have_different_slugs(names):
    """Once each slug's owner is known; file systems that ignore case included."""
    taken = {}
    for name in names:
        taken[distinct_slug(name, taken).casefold()] = name
    assert sorted(taken.values()) == sorted(names)


def test_names_of_one_spelling_get_keys_of_their_own_that_stay(place, sky, hard_link):
    for name in ("TX Eri", "TX_Eri", "tx eri", "Tx/Eri".replace("/", "|")):
        hard_link(sky.lights_v[0], place.data / "20251014" / "Light" / name / "1.fit")
    place.observatory.scan()
    keys = {row.observation.target: row.observation.key for row in place.rows}
    assert len({key.casefold() for key in keys.values()}) == 4
    hard_link(sky.lights_v[0], place.data / "20251014" / "Light" / "TX-Eri!" / "1.fit")
    hard_link(sky.lights_v[0], place.data / "20251013" / "Light" / "tx eri" / "1.fit")
    place.observatory.scan()
    later = {row.observation.key for row in place.rows}
    assert set(keys.values()) < later
    assert len(later) == 6


def test_registering_twice_adds_each_partition_once(place):
    place.take("20251014/Light/SV Wom/*")
    place.observatory.scan()
    for _ in range(2):
        runs.register(place.instance, place.observatory)
    assert place.instance.get_dynamic_partitions(NIGHTS.name) == ["20251014"]
    assert sorted(place.instance.get_dynamic_partitions(OBSERVATIONS.name)) == [
        "20251014__SV_Wom__B",
        "20251014__SV_Wom__V",
    ]


def test_an_evil_partition_in_dagster_ends_red_and_writes_nothing(place):
    """Dagster checks no keys: a partition somebody added by hand is no observation of ours."""
    place.take("20251014/Light/SV Wom/*V.fit")
    with place.in_force():
        from wombat_dagster.definitions import defs

        place.instance.add_dynamic_partitions(OBSERVATIONS.name, [EVIL])
        place.observatory.scan()
        before = set(place.root.parent.rglob("*"))
        result = defs.resolve_job_def("observation_job").execute_in_process(
            partition_key=EVIL, instance=place.instance, run_config=runs.QUIET, raise_on_error=False
        )
    assert not result.success
    assert set(place.root.parent.rglob("*")) <= before


def test_every_asset_of_the_jobs_exists_and_choices_see_all_nights():
    """The default mapping between two dynamic partitions is Identity, and silently wrong."""
    from wombat_dagster.definitions import defs
    from wombat_dagster.jobs import NIGHT_ASSETS, OBSERVATION_ASSETS

    graph = defs.resolve_asset_graph()
    assert {key.to_user_string() for key in graph.get_all_asset_keys()} == {
        *NIGHT_ASSETS,
        *OBSERVATION_ASSETS,
        "aavso_report",  # on a person's wish alone
    }
    node = graph.get(dg.AssetKey("calibration_choice"))
    for name in ("master_bias", "master_flats", "master_darks"):
        mapping = node.partition_mappings[dg.AssetKey(name)]
        assert isinstance(mapping, dg.AllPartitionMapping)


@pytest.mark.parametrize(
    ("name", "part"),
    [("CON", "x_CON"), ("nul.fits", "x_nul.fits"), ("--config", "config"), ("..x", "x")],
)
def test_names_that_systems_take_for_something_else_are_made_plain(name, part):
    assert slug(name) == part


def test_a_very_long_name_becomes_a_short_one_of_its_own():
    first, second = slug("A" * 250), slug("A" * 249 + "B")
    assert len(first) == len(second) == 80
    assert first != second
    assert slug(first) == first
