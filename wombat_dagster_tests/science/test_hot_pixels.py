"""Hot pixels that only add a steady count are told from the others, and cured."""

import numpy as np
import pytest

from wombat_dagster import domain
from wombat_dagster.domain import MaskBit
from wombat_dagster.science import hot_pixels
from wombat_dagster.science.bad_pixels import BadPixel

JD = 2458107.6 + np.arange(10) * 0.02
EXPOSURE_S = np.full(10, 60.0)
NOWHERE = np.array([np.nan]), np.array([np.nan])


def stars_at(*places):
    x, y = np.array(places, float).reshape(-1, 2).T
    other = np.ones(x.size)
    return domain.Detections(
        x_px=x, y_px=y, flux_adu=other, peak_adu=other, fwhm_px=other, axis_ratio=other, snr=other,
        sky_adu=100.0, sky_rms_adu=2.0,
    )  # fmt: skip


def steady(samples_adu, **changes):
    n = samples_adu.shape[1]
    settings = {"jd": JD, "exposure_s": EXPOSURE_S, "sky_rms_adu": 2.0} | changes
    return hot_pixels.steady(np.arange(n), np.arange(n), samples_adu, **settings)


def test_only_hot_pixels_that_a_star_meets_matter():
    bits = np.zeros((40, 50), np.uint8)
    bits[10, 12] = BadPixel.LIGHT
    bits[11, 12] = BadPixel.HOT | BadPixel.LIGHT
    bits[10, 13] = BadPixel.LIGHT | BadPixel.RESPONSE  # dark: nothing to take off
    bits[30, 40] = BadPixel.HOT  # far from all stars
    places = np.array([[11.0, 48.0], [np.nan, -3.0]]), np.array([[10.0, 2.0], [5.0, 39.0]])
    x, y = hot_pixels.hot_in_apertures(bits, *places, 3.0)
    assert sorted(zip(x.tolist(), y.tolist(), strict=True)) == [(12, 10), (12, 11)]


def test_what_a_pixel_adds_is_told_from_its_neighbours():
    image = np.full((40, 40), 100.0)
    image[20, 20], image[5, 5], image[30, 10] = 150.0, 170.0, 180.0
    mask = np.zeros(image.shape, np.uint8)
    mask[[20, 5], [20, 5]] = MaskBit.BAD
    mask[30, 10] = MaskBit.BAD | MaskBit.SATURATED
    x, y = np.array([20, 5, 10, 0]), np.array([20, 5, 30, 39])
    got = hot_pixels.excess_adu(
        image, mask, x, y, stars_at((7.0, 5.0)), places_px=NOWHERE, fwhm_px=2.0
    )
    assert got[0] == 50.0
    assert np.isnan(got[1])  # a star 2 px away
    assert np.isnan(got[2])  # no linear count
    assert got[3] == 0.0  # in the corner eight neighbours are left


def test_the_light_of_a_star_that_stays_on_a_hot_pixel_is_never_taken_for_its_current():
    """On a night guided to the pixel a faint star adds the same to every frame, and with its core
    masked nobody detects it: where it will be measured is known all the same.
    """
    image = np.full((40, 40), 100.0)
    image[18:23, 18:23] += 30.0
    image[20, 20] += 150.0
    mask = np.zeros(image.shape, np.uint8)
    mask[20, 20] = MaskBit.BAD
    pixel = np.array([20]), np.array([20])
    asked = {"stars": stars_at(), "fwhm_px": 2.0}
    place = np.array([20.4]), np.array([19.7])
    assert np.isnan(hot_pixels.excess_adu(image, mask, *pixel, places_px=place, **asked))
    assert hot_pixels.excess_adu(image, mask, *pixel, places_px=NOWHERE, **asked) == 150.0


def test_a_slope_that_noise_explains_is_not_carried_on_to_later_frames():
    samples = np.full((10, 1), np.nan)
    samples[:5, 0] = [50.0, 51.0, 50.0, 52.0, 51.0]
    got = steady(samples)
    assert got.excess_adu(JD[9], 60.0) == pytest.approx([50.8])


def test_a_current_that_falls_with_the_cameras_warmth_is_steady():
    """The MicroObservatory's: 53 ADU at dusk, 42 at dawn."""
    falls = np.linspace(53.0, 42.0, 10)[:, None]
    got = steady(falls)
    assert got.excess_adu(JD[3], 60.0) == pytest.approx(falls[3], abs=1e-6)
    assert got.excess_adu(JD[3], 120.0) == pytest.approx(2 * falls[3], abs=1e-6)


def test_switching_and_little_known_pixels_stay_bad():
    rng = np.random.default_rng(1)
    noise = rng.normal(0.0, 2.0, (10, 5))
    level = np.full((10, 5), 60.0)
    level[5:, 1] = 130.0  # switches between levels
    level[:, 2] = -40.0  # a dark frame took off too much
    level[2:8, 3] = np.nan  # four samples
    got = steady(level + noise)
    assert got.x.tolist() == [0, 2, 4]
    assert got.excess_adu(JD[0], 60.0)[1] == pytest.approx(-40.0, abs=4.0)


def test_the_excess_is_taken_off_and_the_pixel_serves():
    image, mask = np.full((5, 5), 100.0, np.float32), np.zeros((5, 5), np.uint8)
    image[2, 3], mask[2, 3], mask[0, 0] = 160.0, MaskBit.BAD | MaskBit.NON_LINEAR, MaskBit.BAD
    hot = hot_pixels.HotPixels(
        x=np.array([3]),
        y=np.array([2]),
        jd=JD[0],
        rate_adu_s=np.array([0.5]),
        change_adu_s_d=np.array([1.0]),
    )
    hot_pixels.cure(image, mask, hot, jd=JD[0] + 0.5, exposure_s=60.0)
    assert image[2, 3] == 100.0  # (0.5 + 0.5) ADU/s for 60 s
    assert mask[2, 3] == MaskBit.NON_LINEAR
    assert mask[0, 0] == MaskBit.BAD
