"""The maps of bad pixels through the assets: what they are made from, when, and where they lie."""

import datetime as dt

import dagster as dg
import numpy as np
import pytest
from astropy.io import fits

from wombat_dagster.domain import FrameKind, NoCalibration
from wombat_dagster.science.bad_pixels import BadPixel
from wombat_dagster.simulate.camera import make_detector
from wombat_dagster.stages.bad_pixels import (
    counts_by_source,
    make_bad_pixel_maps,
    map_png,
    read_map,
)

NIGHT, KEY = dt.date(2025, 10, 14), "20251014"
LENDING = dt.date(2025, 10, 15)
FILE = "bad_pixels_320x256_bin1.fits"


@pytest.fixture
def night(place):
    """The first night: five biases, four flats each in B and V, four lights in each."""
    place.take("20251014/*/*.fit", "20251014/Light/SV Wom/*")
    return place


def the_map(place):
    (one,) = place.observatory.status.bad_pixel_maps()
    return one, read_map(place.observatory, one)


def ending_of(place):
    records = place.instance.fetch_observations(
        dg.AssetRecordsFilter(asset_key=dg.AssetKey("bad_pixels"), asset_partitions=[KEY]), limit=1
    ).records
    return records[0].asset_observation.metadata["reason"].value


def test_a_night_s_map_holds_the_dead_and_the_hot_pixels_of_the_chip(night):
    """Of the hot ones those that make a spike of 10 sigma, about 120 ADU, in a light of 60 s."""
    assert night.run_night(NIGHT) == {}
    one, bits = the_map(night)
    assert one.path == f"{KEY}/{FILE}"
    assert night.product("bad_pixels", KEY) == (one,)
    assert night.materialized("bad_pixels") == {KEY}
    assert one.sources == (FrameKind.BIAS, FrameKind.FLAT, FrameKind.LIGHT)
    assert one.n_bad == np.count_nonzero(bits)
    chip = make_detector(night.sky.telescope, ("B", "V"))
    inner = np.s_[4:-4, 4:-4]
    assert (bits[inner][chip.dead[inner]] & BadPixel.RESPONSE).all()
    strong = chip.hot & (chip.dark_e_s * 60.0 / night.sky.telescope.gain_e_adu > 300.0)
    assert np.mean(bits[inner][strong[inner]] > 0) > 0.8
    assert np.mean(chip.hot | chip.dead) > 0
    assert np.count_nonzero((bits > 0) & ~chip.hot & ~chip.dead) <= 3


def test_no_star_of_the_simulated_night_is_in_the_map(night):
    night.run_night(NIGHT)
    _, bits = the_map(night)
    chip = make_detector(night.sky.telescope, ("B", "V"))
    light = fits.getdata(night.sky.lights_v[0]).astype(float)
    bright = light > np.median(light) + 1000
    assert np.count_nonzero(bright) > 50
    assert not (bright & (bits > 0) & ~chip.hot & ~chip.dead).any()


def test_the_map_is_made_after_the_masters(night):
    night.run_night(NIGHT)
    (run,) = night.instance.get_runs()
    records = night.instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.STEP_START)
    order = [record.event_log_entry.step_key for record in records.records]
    masters = ("master_bias", "master_darks", "master_flats")
    assert max(order.index(name) for name in masters) < order.index("bad_pixels")


def test_the_map_shows_in_the_ui_with_counts_and_a_small_picture(night):
    night.run_night(NIGHT)
    event = night.instance.get_latest_materialization_event(dg.AssetKey("bad_pixels"))
    metadata = event.asset_materialization.metadata
    (row,) = metadata["maps"].records
    _, bits = the_map(night)
    assert row.data["bad"] == np.count_nonzero(bits)
    assert row.data["from_lights"] == counts_by_source(bits)["from_lights"]
    picture = metadata[f"picture of {KEY}/{FILE}"].value
    assert picture.startswith("![bad pixels](data:image/png;base64,")
    assert len(picture) < 200_000


def test_the_same_frames_give_the_same_map_and_it_is_not_made_again(night):
    night.run_night(NIGHT)
    path = night.observatory.layout.product_file(f"{KEY}/{FILE}")
    first, bytes_before, time_before = the_map(night)[0], path.read_bytes(), path.stat().st_mtime_ns
    night.run_night(NIGHT)
    assert path.stat().st_mtime_ns == time_before
    path.unlink()
    night.run_night(NIGHT)
    assert path.read_bytes() == bytes_before
    assert the_map(night)[0] == first


def test_other_masters_make_another_map(night, edit):
    night.run_night(NIGHT)
    before = night.observatory.status.bad_pixels_signature()

    def with_a_dead_pixel(data):
        data = data.copy()
        data[100, 120] = 1005
        return data

    for path in sorted((night.data / KEY).rglob("Flat*V*.fit")):
        aside = path.rename(path.with_suffix(".aside"))
        edit(aside, path, pixels=with_a_dead_pixel)
        aside.unlink()
    night.run_night(NIGHT)
    assert the_map(night)[1][100, 120] & BadPixel.RESPONSE
    assert night.observatory.status.bad_pixels_signature() != before


def test_two_lights_and_nothing_else_make_no_map_and_that_is_said(place, hard_link):
    lights = place.sky.lights_v
    for light in lights[:2]:
        hard_link(light, place.data / light.relative_to(place.sky.data))
    assert place.run_night(NIGHT) == {}
    assert place.materialized("bad_pixels") == set()
    assert place.observatory.status.bad_pixel_maps() == []
    assert ending_of(place) == (
        "no map of bad pixels: 2025-10-14: 2 lights, 0 biases, no master (320x256 1x1):"
        " 3 lights or a master wanted"
    )


def test_a_map_goes_when_its_frames_do(place, hard_link):
    lights = [hard_link(p, place.data / p.relative_to(place.sky.data)) for p in place.sky.lights_v]
    place.run_night(NIGHT)
    path = place.observatory.layout.product_file(f"{KEY}/{FILE}")
    assert path.exists()
    assert the_map(place)[0].sources == (FrameKind.LIGHT,)
    for light in lights[2:]:
        light.unlink()
    place.run_night(NIGHT)
    assert not path.exists()
    assert place.observatory.status.bad_pixel_maps() == []


def test_a_night_without_calibrations_takes_another_night_s_masters(place):
    """Else its own map, of lights alone, would be nearer than the better one of the other night."""
    place.take("20251014/*/*.fit", "20251014/Light/SV Wom/*", "20251015/Light/*/*")
    assert place.run_night(NIGHT) == {}
    assert place.run_night(LENDING) == {}
    maps = {one.date: one for one in place.observatory.status.bad_pixel_maps()}
    assert FrameKind.FLAT in maps[LENDING].sources
    chip = make_detector(place.sky.telescope, ("B", "V"))
    inner = np.s_[4:-4, 4:-4]
    bits = read_map(place.observatory, maps[LENDING])
    assert (bits[inner][chip.dead[inner]] & BadPixel.RESPONSE).all()


def test_what_calls_too_many_pixels_bad_is_not_believed(night, edit):
    """Flats with a tenth of the pixels dead: something else is wrong than pixels."""

    def spoilt(data):
        data = data.copy()
        data[np.random.default_rng(1).random(data.shape) < 0.1] = 1005
        return data

    for path in sorted((night.data / KEY).rglob("Flat*.fit")):
        aside = path.rename(path.with_suffix(".aside"))
        edit(aside, path, pixels=spoilt)
        aside.unlink()
    assert night.run_night(NIGHT) == {}
    one, bits = the_map(night)
    assert not (bits & BadPixel.RESPONSE).any()
    assert any(
        words.startswith("flat: ") and "at most 2 % believed: left out" in words
        for words in one.notes
    )


def test_a_map_that_somebody_changed_is_not_used(night):
    night.run_night(NIGHT)
    one, bits = the_map(night)
    path = night.observatory.layout.product_file(one.path)
    fits.PrimaryHDU(np.zeros_like(bits)).writeto(path, overwrite=True)
    with pytest.raises(NoCalibration, match="is not the map of bad pixels that was recorded"):
        read_map(night.observatory, one)
    assert make_bad_pixel_maps(night.observatory, NIGHT) == (one,)
    assert np.array_equal(read_map(night.observatory, one), bits)


def test_maps_of_a_night_take_the_place_of_those_before(night):
    night.run_night(NIGHT)
    status = night.observatory.status
    (one,) = status.bad_pixel_maps()
    status.record_bad_pixel_maps(LENDING, [])
    assert status.bad_pixel_maps() == [one]
    status.record_bad_pixel_maps(NIGHT, [])
    assert status.bad_pixel_maps() == []


def test_the_picture_of_a_large_map_is_small_and_shows_every_bad_pixel():
    import io

    from matplotlib.image import imread

    bits = np.zeros((4096, 4096), np.uint8)
    bits[np.random.default_rng(2).random(bits.shape) < 0.005] = BadPixel.LIGHT
    assert len(map_png(bits)) < 200_000
    alone = np.zeros((4096, 4096), np.uint8)
    alone[0, 0] = BadPixel.HOT
    picture = imread(io.BytesIO(map_png(alone)))
    assert max(picture.shape[:2]) <= 800
    red = np.argwhere(picture[:, :, 0] > picture[:, :, 1] + 0.1)
    last = picture.shape[0] - 1  # row 0 is at the bottom
    assert red.tolist() == [[last - 1, 0], [last - 1, 1], [last, 0], [last, 1]]
