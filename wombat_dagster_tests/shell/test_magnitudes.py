"""Magnitudes on the road: what siblings make of them, what is told of them, what was not there."""

import dataclasses

import dagster as dg
import numpy as np
import pytest

from wombat_dagster.assets.photometry import describe_magnitudes
from wombat_dagster.products import PRODUCTS
from wombat_dagster.stages.coefficients import coefficients_of
from wombat_dagster.stages.siblings import COEFFICIENTS, sibling_versions, stale_inputs
from wombat_dagster.stages.standard import standard_magnitudes_of

B, V = "20251014__SV_Wom__B", "20251014__SV_Wom__V"
INSTRUMENT = (
    '[[instrument]]\ntransform = { Tb_bv = 0.05, Tv_bv = -0.06 }\nfilters = { B = "B", V = "V" }'
)


def made(place, key, asset, version, inputs=None):
    place.observatory.status.record_product(
        key, asset, path="x", content_hash="x", version=version, inputs=inputs or {}, status={}
    )


def with_coefficients(place, inputs=None):
    """Return inputs together with the version of the coefficients in force."""
    rows = {row.observation.key: row.observation for row in place.observatory.status.targets()}
    camera = place.observatory.status.light_cameras()[V]
    version = coefficients_of(place.observatory, camera, rows[V].date).version
    return {**(inputs or {}), COEFFICIENTS: version}


def stale(place):
    return [observation.key for observation in stale_inputs(place.observatory)]


@pytest.fixture
def pair(place):
    """B and V of one night, V with magnitudes that know of no B."""
    place.take("20251014/Light/SV Wom/*")
    place.configure(tail=INSTRUMENT)
    place.observatory.scan()
    for key in (B, V):
        made(place, key, "photometry_table", "1")
    made(place, V, "standard_magnitudes", "1")
    return place


def test_magnitudes_are_stale_until_they_know_the_sibling_s_version(pair):
    assert stale(pair) == [V]
    made(pair, V, "standard_magnitudes", "2", inputs=with_coefficients(pair, {B: "1"}))
    assert stale(pair) == []
    made(pair, B, "photometry_table", "2")
    assert stale(pair) == [V]
    assert sibling_versions(pair.observatory, pair.row("SV Wom").observation) == {B: "2"}


def test_magnitudes_are_stale_when_a_coefficient_of_the_configuration_changes(pair):
    made(pair, V, "standard_magnitudes", "2", inputs=with_coefficients(pair, {B: "1"}))
    pair.configure(tail=INSTRUMENT.replace("-0.06", "-0.07"))
    assert stale(pair) == [V]


def test_without_coefficients_nothing_is_stale_and_no_observation_is_read(pair, monkeypatch):
    pair.configure()
    monkeypatch.setattr(type(pair.observatory.status), "targets", None)
    assert stale_inputs(pair.observatory) == {}


def test_a_camera_without_coefficients_has_no_stale_magnitudes(pair):
    pair.configure(tail=INSTRUMENT.replace("transform", 'camera = "Another"\ntransform'))
    assert stale(pair) == []


def test_a_sibling_of_another_camera_is_none(place, sky, edit):
    """Coefficients are a camera's own."""
    place.take("20251014/Light/SV Wom/*V.fit")
    for source in sorted(sky.data.glob("20251014/Light/SV Wom/*B.fit")):
        edit(
            source,
            place.data / source.relative_to(sky.data),
            cards={"INSTRUME": "Another camera"},
        )
    place.configure(tail=INSTRUMENT)
    place.observatory.scan()
    for key in (B, V):
        made(place, key, "photometry_table", "1")
        made(place, key, "standard_magnitudes", "1", inputs=with_coefficients(place))
    assert len(set(place.observatory.status.light_cameras().values())) == 2
    assert stale(place) == []
    assert sibling_versions(place.observatory, place.row("SV Wom").observation) == {}


def test_the_number_of_queries_does_not_grow_with_the_observations(pair, monkeypatch):
    status, opened = pair.observatory.status, []
    reading = type(status)._reading
    monkeypatch.setattr(type(status), "_reading", lambda self: (opened.append(1), reading(self))[1])
    stale(pair)
    one, opened[:] = len(opened), []
    with status._writing() as connection:
        for number in range(20):
            connection.execute(
                "INSERT INTO target (date, target, filter, night, key) VALUES (?,?,?,?,?)",
                ("2025-10-14", f"S{number}", "V", "20251014", f"20251014__S{number}__V"),
            )
    for number in range(20):
        key = f"20251014__S{number}__V"
        made(pair, key, "standard_magnitudes", "1", inputs=with_coefficients(pair))
    opened.clear()
    assert stale(pair) == [V]
    assert len(opened) == one


@pytest.fixture(scope="module")
def measured(open_place, tmp_path_factory):
    """Both filters run through, each with the other's colour."""
    with open_place(tmp_path_factory.mktemp("siblings") / "obs") as place:
        place.take("20251014/Bias/*", "20251014/Flat/*", "20251014/Light/SV Wom/*")
        place.configure(tail=INSTRUMENT)
        assert place.run() == {}
        yield place


def test_a_run_leaves_nothing_stale(measured):
    assert stale(measured) == []
    assert measured.product("standard_magnitudes", V).method == "two-filter"


def test_what_the_person_needs_is_in_the_metadata(measured):
    event = measured.instance.get_latest_materialization_event(
        dg.AssetKey("standard_magnitudes")
    ).asset_materialization
    metadata = event.metadata
    magnitudes = measured.product("standard_magnitudes", event.partition)
    assert metadata["notes"].value == list(magnitudes.notes)
    assert [*metadata][:3] == ["chart", "comps_from", "colour_term"]
    assert metadata["comps_from"].value == magnitudes.comp_source == "VSP"
    assert metadata["colour_term"].value.endswith(f"({magnitudes.transformation.source})")
    assert magnitudes.made_with["bias"].startswith("2025-10-14 (")
    comps = [record.data for record in metadata["comps"].records]
    assert [comp["comp"] for comp in comps] == list(magnitudes.comp_names)
    assert [comp["frames"] for comp in comps] == [4] * len(comps)
    residuals = [comp["residual_mag"] for comp in comps]
    assert residuals == pytest.approx(
        [one.residual_mag for one in magnitudes.comp_residuals], abs=6e-5
    )
    assert np.abs(residuals).max() < 0.2


def test_a_night_of_upper_limits_has_no_nan_in_its_metadata(measured):
    """The UI's GraphQL refuses NaN."""
    magnitudes = measured.product("standard_magnitudes", V)
    nothing = np.full(4, np.nan)
    limits = dataclasses.replace(
        magnitudes, t1_upper_limit=np.ones(4, dtype=bool), t1_random_mag=nothing,
        check_scatter_mag=np.nan,
    )  # fmt: skip
    facts = describe_magnitudes(limits)
    assert facts["upper_limits"] == 4
    numbers = [fact for fact in facts.values() if isinstance(fact, float)]
    assert np.isfinite(numbers).all()
    assert not {"median_mag", "random_mag", "t2_scatter_mag"} & set(facts)
    assert {"median_mag", "random_mag", "t2_scatter_mag"} <= set(describe_magnitudes(magnitudes))


@pytest.mark.parametrize("how", ["gone", "damaged"])
def test_a_lost_sibling_is_none_and_noted(measured, how):
    observatory, observation = measured.observatory, measured.row("SV Wom").observation
    path = PRODUCTS["photometry_table"].path(observatory.layout, B)
    whole = path.read_bytes()
    path.unlink()
    if how == "damaged":
        path.write_bytes(whole[:1000])
    try:
        magnitudes = standard_magnitudes_of(
            observatory,
            observation,
            measured.product("reduced_frames", V),
            measured.product("photometry_table", V),
        )
    finally:
        path.write_bytes(whole)
    assert f"no colour from {B}: its measurements are {how}" in magnitudes.notes
    assert set(magnitudes.sibling_versions) == {COEFFICIENTS}
    assert magnitudes.method != "two-filter"


def test_without_biases_the_sky_holds_the_pedestal_and_everybody_is_told(place):
    place.take("20251014/Flat/*V.fit", "20251014/Light/SV Wom/*V.fit")
    assert place.run() == {}
    table = place.product("photometry_table", V)
    assert not table.pedestal_removed
    notes = place.product("standard_magnitudes", V).notes
    assert notes[: len(table.notes)] == table.notes
    assert notes[0].startswith("not calibrated for: bias")
    assert any(note.startswith("bias not subtracted") for note in notes)


def test_with_biases_the_pedestal_is_gone(measured):
    assert measured.product("photometry_table", V).pedestal_removed


def test_what_the_check_star_says_is_remembered_for_the_nights_after(measured):
    table = measured.product("photometry_table", V)
    magnitudes = measured.product("standard_magnitudes", V)
    (night,) = measured.observatory.status.check_nights(
        table.variable.identity, table.band, table.camera
    )
    assert (night.key, night.check_name) == (V, magnitudes.check_name)
    assert night.reference_mag == magnitudes.check_reference_mag == night.catalogue_mag
    assert min(night.allowed_mag, magnitudes.check_allowed_mag) >= 0.05
