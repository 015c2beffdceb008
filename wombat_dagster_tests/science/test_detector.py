import datetime as dt
import itertools
import re
from dataclasses import replace

import numpy as np
import pytest

from wombat_dagster.domain import DetectorMeasurement, DetectorQuantity, FrameGroup
from wombat_dagster.science import detector as cal

RISING_E = np.linspace(500, 3000, 40)


def extremes(maximum, n, level=200.0):
    return cal.RawExtremes(maximum_adu=maximum, n_at_maximum=n, level_adu=level)


GAIN, NOISE_E, SHAPE = 1.7, 8.0, (256, 320)
NOISE_ADU = np.hypot(NOISE_E / GAIN, np.sqrt(1 / 12))  # the converter rounds


def frames(levels_e, *, seed, shape=SHAPE):
    """Return raw frames of a bias level of 500 ADU and so many electrons in every pixel."""
    rng = np.random.default_rng(seed)
    return [
        np.round((rng.poisson(e, shape) + rng.normal(0, NOISE_E, shape)) / GAIN + 500).astype(
            np.uint16
        )
        for e in levels_e
    ]


def tiles(images, offset=0.0):
    return [cal.tiles(image - np.float32(offset)) for image in images]


def measured(seed, n=5):
    """Return read noise, gain and dark current of n biases, flats, and darks of 0.4 e-/s."""
    levels = np.random.default_rng([seed, 7]).uniform(30000, 50000, n)
    noise = cal.read_noise(tiles(frames([0] * n, seed=[seed, 1])))
    pairs = cal.flat_pairs(
        tiles(frames(levels, seed=[seed, 2]), 500),
        read_noise_adu=noise.value,
        read_noise_error_adu=noise.error,
    )
    dark = cal.dark_current(tiles(frames([24] * n, seed=[seed, 3]), 500), exposure_s=60.0)
    return noise, pairs.gain_e_adu, dark


def test_read_noise_gain_and_dark_current_come_back_with_honest_errors():
    """Photon transfer with 1.7 e-/ADU, 8 e-, 0.4 e-/s; 24 nights: the pull of each is about 1.

    The rms of 24 pulls of unit variance scatters by 0.14.
    """
    nights = [measured(seed) for seed in range(24)]
    for found, truth in zip(zip(*nights, strict=True), (NOISE_ADU, GAIN, 0.4 / GAIN), strict=True):
        values, errors = (
            np.array([getattr(m, name) for m in found]) for name in ("value", "error")
        )
        assert values == pytest.approx(truth, rel=0.03)
        assert np.mean(values) == pytest.approx(truth, rel=0.005)
        assert 0.6 < np.sqrt(np.mean(((values - truth) / errors) ** 2)) < 1.5
        assert {m.n_frames for m in found} == {5}


def test_all_pairs_count_not_the_first_one():
    """Ten biases know the noise about three times better than two."""
    few, many = (cal.read_noise(tiles(frames([0] * n, seed=3))) for n in (2, 10))
    assert many.error < few.error / 2
    assert cal.read_noise(tiles(frames([0], seed=3))) is None


def test_a_night_of_drifting_bias_levels_makes_the_dark_current_uncertain():
    """Levels that wander by 4 ADU between five darks of 60 s: 4 / sqrt 5 / 60 ADU/s, no less."""
    levels = 500.0 + np.array([-5.0, -1.0, 0.0, 1.0, 5.0])
    darks = [
        image + level - 500 for image, level in zip(frames([24] * 5, seed=4), levels, strict=True)
    ]
    found = cal.dark_current(tiles(darks, 500), exposure_s=60.0)
    assert found.error == pytest.approx(np.std(levels, ddof=1) / np.sqrt(5) / 60, rel=0.2)
    steady = cal.dark_current(tiles(frames([24] * 5, seed=4), 500), exposure_s=60.0)
    assert steady.error < found.error / 5


def test_a_dark_current_below_one_count_is_not_rounded_away():
    """1.2 e- in 60 s are 0.7 ADU: the median of whole counts would say 0 or 1."""
    found = cal.dark_current(tiles(frames([1.2] * 9, seed=5), 500), exposure_s=60.0)
    assert found.value == pytest.approx(0.02 / GAIN, abs=3 * found.error)
    assert found.error < 0.1 * found.value
    assert cal.dark_current(tiles(frames([1.2] * 3, seed=5), 500), exposure_s=0.0) is None


def test_stars_trails_and_slopes_of_the_sky_do_not_change_the_gain():
    """A star in every flat at another place, and a slope that turns from flat to flat."""
    rng = np.random.default_rng(6)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    flats = []
    for number, image in enumerate(frames([40000] * 6, seed=8)):
        slope = 1 + 0.05 * np.cos(number) * x / SHAPE[1] + 0.05 * np.sin(number) * y / SHAPE[0]
        spoiled = (image - 500.0) * slope
        trail = np.abs(y - rng.uniform(80, 170) - 0.3 * x) < 3
        flats.append(spoiled + np.where(trail, 3000.0, 0.0) + 500)
    found = cal.flat_pairs(tiles(flats, 500), read_noise_adu=NOISE_ADU).gain_e_adu
    assert found.value == pytest.approx(GAIN, rel=0.03)


def test_the_read_noise_does_not_count_for_the_gain_of_faint_flats():
    """500 e- and 8 e-: 11 % of the variance is not the photons'."""
    flats = tiles(frames([500] * 12, seed=12), 500)
    found = cal.flat_pairs(flats, read_noise_adu=NOISE_ADU).gain_e_adu
    assert found.value == pytest.approx(GAIN, rel=0.03)
    neglected = cal.flat_pairs(flats, read_noise_adu=0.0).gain_e_adu
    assert neglected.value < 0.93 * GAIN


def test_flats_without_light_tell_no_gain():
    pairs = cal.flat_pairs(tiles(frames([0] * 3, seed=9), 600), read_noise_adu=NOISE_ADU)
    assert pairs.gain_e_adu is None
    assert pairs.noise is None


def test_the_noise_of_a_flat_is_that_of_its_photons():
    """40000 e-: 0.5 %, with 8 e- of read noise."""
    pairs = cal.flat_pairs(tiles(frames([40000] * 4, seed=10), 500), read_noise_adu=NOISE_ADU)
    assert pairs.noise == pytest.approx(np.sqrt(40000 + 64) / 40000, rel=0.01)


@pytest.mark.parametrize(("n", "variance"), [(3, 0.4487), (4, 0.2982), (5, 0.2868), (6, 0.2147)])
def test_the_noise_of_a_median_of_few_is_that_of_order_statistics(n, variance):
    """Variances of the median of n normal values: Kendall & Stuart 1, 14; Teichroew (1956)."""
    assert cal.noise_of_median(1.0, n) == pytest.approx(np.sqrt(variance), rel=0.01)


def test_the_light_of_an_amplifier_is_told_from_an_even_dark():
    rng = np.random.default_rng(11)
    even = rng.normal(20.0, 3.0, SHAPE)
    assert cal.glow_adu(even) is None
    corner = np.hypot(*np.ogrid[: SHAPE[0], : SHAPE[1]])
    assert cal.glow_adu(even + 60 * np.exp(-corner / 25)) == pytest.approx(40, abs=15)


def test_what_is_no_number_does_not_count_for_the_level():
    image = np.full((40, 40), 7.0)
    image[20, 20] = np.nan
    assert cal.central_median(image) == 7.0
    assert np.isnan(cal.central_median(np.full((40, 40), np.nan)))


# ------------------------------------------------------------------------------- night after night

GROUP = FrameGroup(width_px=320, height_px=256, binning="1x1", camera="Cam", readout="GAIN=1")


def night(day, value, *, error=0.01, quantity=DetectorQuantity.GAIN, temperature_c=-20.0, **other):
    return DetectorMeasurement(
        date=dt.date(2025, 10, day), quantity=quantity, value=value, error=error, n_frames=5,
        ccd_temperature_c=temperature_c, **({"group": GROUP} | other),
    )  # fmt: skip


STEADY = [night(day, 1.30 + 0.004 * (-1) ** day) for day in range(1, 13)]


def test_a_gain_that_jumps_is_a_step_and_one_that_wanders_is_none():
    words = cal.step_words(night(20, 1.45), STEADY)
    assert words == "gain 1.45 e-/ADU, 1.3 on the 10 nights before (+11.5%, 12 sigma)"
    assert cal.step_words(night(20, 1.35), STEADY) is None  # 4 %
    assert cal.step_words(night(20, 1.45, error=0.05), STEADY) is None  # 3 sigma
    assert cal.step_words(night(20, 1.45), []) is None
    restless = [night(day, 1.30 + 0.1 * (-1) ** day) for day in range(1, 13)]
    assert cal.step_words(night(20, 1.45), restless) is None


def test_only_earlier_nights_of_the_same_detector_and_quantity_are_compared():
    others = [
        *(night(day, 1.30) for day in range(21, 25)),
        *(night(day, 1.30, group=replace(GROUP, readout="GAIN=2")) for day in range(1, 9)),
        *(night(day, 1.30, quantity=DetectorQuantity.READ_NOISE) for day in range(1, 9)),
    ]
    assert cal.step_words(night(20, 1.45), others) is None


def test_of_many_nights_the_last_ten_count():
    older = [night(day, 5.0) for day in range(1, 8)]
    assert cal.step_words(night(20, 1.30), older + [night(d, 1.30) for d in range(8, 18)]) is None
    assert cal.step_words(night(20, 1.30), older) is not None


def test_dark_currents_are_compared_at_one_temperature():
    """A chip 10 degrees warmer has four times the current, and is no other chip for that."""
    cold = [
        night(day, 0.02, error=1e-4, quantity=DetectorQuantity.DARK_CURRENT) for day in range(1, 9)
    ]
    warm = night(20, 0.08, error=1e-4, quantity=DetectorQuantity.DARK_CURRENT, temperature_c=-10.0)
    assert cal.step_words(warm, cold) is None
    assert "dark current 0.08 ADU/s" in cal.step_words(replace(warm, ccd_temperature_c=-19.2), cold)
    assert cal.step_words(replace(warm, ccd_temperature_c=None), cold) is None


def test_filters_that_disagree_on_the_gain_make_it_less_certain():
    """1.3 and 1.4, each to 0.01: 1.35 with half their distance over sqrt 1, by hand 0.05."""
    agree, differ = (
        cal.weighted_mean([cal.Measured(value=v, error=0.01, n_frames=5) for v in values])
        for values in ((1.3, 1.3), (1.3, 1.4))
    )
    assert (agree.value, agree.n_frames) == (pytest.approx(1.3), 10)
    assert agree.error == pytest.approx(0.01 / np.sqrt(2))
    assert (differ.value, differ.error) == (pytest.approx(1.35), pytest.approx(0.05))


def skies(levels_e, *, gain, spread=None, seed=8):
    """Return the noise of every two consecutive skies; `spread` mixes what pixels hold."""
    rng = np.random.default_rng(seed)

    def frame(electrons):
        image = rng.poisson(electrons, (256, 320)) / gain
        return (image if spread is None else spread(image)) + 300

    frames = [frame(electrons) for electrons in levels_e]
    return [cal.sky_noise(a, b) for a, b in itertools.pairwise(frames)]


def test_gain_comes_from_a_sky_that_brightens_and_not_from_one_that_does_not():
    found = cal.gain_of_sky(skies(RISING_E, gain=2.0))
    assert found.value == pytest.approx(2.0, rel=0.06)
    assert re.fullmatch(r"frame differences, [\d.]+ \+- [\d.]+", found.source)
    assert cal.gain_of_sky(skies([900.0] * 40, gain=2.0)) is None
    assert cal.gain_of_sky(skies(RISING_E[:10], gain=2.0)) is None


def test_no_gain_comes_from_frames_whose_pixels_share_their_noise():
    """Neighbours averaged, as an interpolation does: single pixels seem to have twice the gain."""
    shared = skies(RISING_E, gain=2.0, spread=lambda image: (image + np.roll(image, 1, axis=0)) / 2)
    level, pixel, block = np.concatenate(shared).T
    assert np.polyfit(level, pixel, 1)[0] < 0.6 * np.polyfit(level, block, 1)[0]
    assert cal.gain_of_sky(shared) is None


def test_stars_that_stay_or_move_a_little_do_not_change_the_gain():
    rng = np.random.default_rng(9)
    y, x = np.mgrid[:256, :320]
    places = rng.uniform((0, 0), (256, 320), (25, 2))

    def frame(electrons):
        dy, dx = rng.normal(0, 0.5, 2)
        stars = sum(
            20000 * np.exp(-((y - py - dy) ** 2 + (x - px - dx) ** 2) / 8) for py, px in places
        )
        return rng.poisson(electrons + stars) / 2.0 + 300

    frames = [frame(electrons) for electrons in RISING_E]
    found = cal.gain_of_sky([cal.sky_noise(a, b) for a, b in itertools.pairwise(frames)])
    assert found.value == pytest.approx(2.0, rel=0.15)


def test_counts_pile_up_where_the_nights_maximum_recurs():
    assert cal.pile_up_stop([extremes(4095, 9)] * 3 + [extremes(3000, 1)]) == 4095
    assert cal.pile_up_stop([extremes(4095, 9)] * 2) is None  # too few frames
    assert cal.pile_up_stop([extremes(60000 + i, 1) for i in range(9)]) is None


def test_a_pixel_without_a_number_does_not_hide_where_the_counts_pile_up():
    raw = np.full((40, 40), 300.0)
    raw[:3, :3] = 4095.0
    holed = raw.copy()
    holed[30, 30] = np.nan
    found = [cal.raw_extremes(image) for image in (holed, raw, raw)]
    assert cal.pile_up_stop(found) == 4095.0
    assert found[0].n_at_maximum == 9
