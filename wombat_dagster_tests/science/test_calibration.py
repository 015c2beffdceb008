import datetime as dt
import itertools
import re

import ccdproc
import numpy as np
import pytest
from astropy.nddata import CCDData
from astropy.stats import mad_std
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wombat_dagster.domain import CalibrationChoice, FrameGroup, FrameKind, MaskBit, Master, Sourced
from wombat_dagster.science import calibration as cal

GROUP = FrameGroup(width_px=64, height_px=48, binning="1x1", camera="CAM", readout=None)


def master(date, **changes):
    values = {
        "kind": FrameKind.BIAS, "filter": None, "group": GROUP, "path": f"{date}/mbias.fits",
        "content_hash": date, "n_used": 5, "n_refused": 0,
    }  # fmt: skip
    return Master(date=dt.date.fromisoformat(date), **(values | changes))


def ccdproc_combine(stack):
    """What SPEC section 4 names as the truth."""
    frames = [CCDData(frame.astype(float), unit="adu") for frame in stack]
    return np.asarray(
        ccdproc.combine(
            frames,
            method="median",
            sigma_clip=True,
            sigma_clip_low_thresh=5,
            sigma_clip_high_thresh=5,
            sigma_clip_func=np.ma.median,
            sigma_clip_dev_func=mad_std,
        )
    )


@pytest.mark.parametrize("n", [3, 4, 5, 10])
def test_a_master_equals_ccdproc_to_the_bit(n):
    rng = np.random.default_rng(n)
    stack = rng.poisson(1000, (n, 40, 50)).astype(np.uint16)
    hit = rng.random(stack.shape) < 0.02
    stack[hit] += rng.integers(50, 30000, hit.sum()).astype(np.uint16)
    combined, rejected = cal.clipped_median(stack)
    np.testing.assert_array_equal(combined, ccdproc_combine(stack))
    assert rejected > 0


def test_a_cosmic_ray_in_one_of_three_biases_does_not_reach_the_master():
    stack = np.full((3, 4, 4), 100.0)
    stack[:, 1, 1] = [99.0, 101.0, 60000.0]
    combined, rejected = cal.clipped_median(stack)
    assert combined[1, 1] == 100.0
    assert rejected == 1


@settings(max_examples=30, deadline=None)
@given(arrays(np.uint16, st.tuples(st.integers(3, 7), st.just(3), st.just(4))), st.randoms())
def test_the_order_of_the_frames_changes_nothing(stack, random):
    shuffled = list(stack)
    random.shuffle(shuffled)
    np.testing.assert_array_equal(
        cal.clipped_median(stack)[0], cal.clipped_median(np.array(shuffled))[0]
    )


def test_a_master_flat_has_median_one_in_its_central_half_and_masks_dark_corners():
    flat = np.full((40, 40), 20000.0)
    flat[:2, :2] = 100.0
    flat[20, 20] = 24000.0
    normalised, unusable = cal.normalised_master_flat(flat)
    assert np.median(normalised[10:30, 10:30]) == 1.0
    assert normalised[20, 20] == np.float32(1.2)
    assert unusable.sum() == 4
    assert normalised[0, 0] == 1.0  # never divided by


def extremes(maximum, n, level=200.0):
    return cal.RawExtremes(maximum_adu=maximum, n_at_maximum=n, level_adu=level)


def refusal(level, saturation, *, maximum=65000.0):
    return cal.flat_refusal(
        extremes(maximum, 1, level), bias_level_adu=1000, saturation=saturation,
        min_fraction=0.05, max_fraction=0.95,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("level", "words"),
    [(30000.0, None), (64000.0, "64000 ADU, below"), (1100.0, "1100 ADU, at least")],
)
def test_flats_too_bright_or_too_dark_are_refused_with_their_level(level, words):
    found = refusal(level, Sourced(value=60000.0, source="header"))
    assert (found is None) if words is None else (words in found)


def test_a_flat_of_a_12_bit_camera_is_not_too_dark_for_a_range_nobody_stated():
    unknown = cal.saturation_of([], configured_adu=None, header_adu=None)
    assert unknown.value == cal.DEFAULT_SATURATION_ADU
    assert refusal(2048.0, unknown, maximum=3000.0) is None
    assert "1000 ADU, at least" in refusal(1000.0, unknown)  # no light


def test_a_flat_at_the_stop_of_its_camera_is_too_bright():
    """One alone by its own counts, the others by where they pile up."""
    unknown = cal.saturation_of([], configured_adu=None, header_adu=None)
    assert "highest count" in refusal(4095.0, unknown, maximum=4095.0)
    piled = cal.saturation_of(
        [extremes(4095.0, 9, 2000.0)] * 4, configured_adu=None, header_adu=None
    )
    assert piled.source == "pile-up at 4095.0 ADU"
    assert "below" in refusal(4000.0, piled, maximum=4095.0)
    assert refusal(2000.0, piled, maximum=4095.0) is None


def test_the_frame_is_raw_minus_bias_minus_dark_over_flat():
    """(5000 - 1000 - 2 * 30) / 0.985 = 4000, by hand."""
    image, mask = cal.calibrate(
        np.full((2, 2), 5000, np.uint16),
        bias=np.full((2, 2), 1000, np.float32),
        dark_per_s=np.full((2, 2), 2, np.float32),
        exposure_s=30.0,
        flat=np.full((2, 2), 0.985, np.float32),
        flat_unusable=None,
        saturation_adu=60000,
        linearity_adu=40000,
    )
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, 4000, rtol=1e-6)
    assert not mask.any()


def test_limits_are_applied_to_raw_counts_not_to_flattened_ones():
    raw = np.array([[40000, 50000, 61000, 100]], np.uint16)
    _, mask = cal.calibrate(
        raw,
        bias=np.full((1, 4), 20000, np.float32),
        dark_per_s=None,
        exposure_s=1,
        flat=np.full((1, 4), 0.5, np.float32),
        flat_unusable=np.array([[False, False, False, True]]),
        saturation_adu=60000,
        linearity_adu=45000,
    )
    assert mask.tolist() == [
        [0, MaskBit.NON_LINEAR, MaskBit.SATURATED | MaskBit.NON_LINEAR, MaskBit.BAD]
    ]


def test_read_noise_and_gain_come_back_from_frame_pairs():
    """Photon transfer with gain 1.7 e-/ADU and 8 e- read noise; to 1 %."""
    rng = np.random.default_rng(7)
    gain, noise_e, shape = 1.7, 8.0, (400, 400)

    def frame(level_e):
        electrons = rng.poisson(level_e, shape) + rng.normal(0, noise_e, shape)
        return np.round(electrons / gain + 500).astype(np.uint16)

    biases, flats = (frame(0), frame(0)), (frame(50000), frame(47000))
    assert cal.read_noise_of_biases(*biases) * gain == pytest.approx(noise_e, rel=0.03)
    offset = np.full(shape, 500.0)
    measured = cal.gain_of_flats(*flats, offset=offset, read_noise_adu=noise_e / gain)
    assert measured == pytest.approx(gain, rel=0.03)


def skies(levels_e, *, gain, spread=None, seed=8):
    """Return the noise of every two consecutive skies; `spread` mixes what pixels hold."""
    rng = np.random.default_rng(seed)

    def frame(electrons):
        image = rng.poisson(electrons, (256, 320)) / gain
        return (image if spread is None else spread(image)) + 300

    frames = [frame(electrons) for electrons in levels_e]
    return [cal.sky_noise(a, b) for a, b in itertools.pairwise(frames)]


RISING_E = np.linspace(500, 3000, 40)


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


def test_the_nearest_master_may_lie_in_the_future():
    found, words = cal.closest_master(
        [master("2025-10-10"), master("2025-10-16")],
        kind=FrameKind.BIAS, date=dt.date(2025, 10, 15), group=GROUP,
    )  # fmt: skip
    assert found.date == dt.date(2025, 10, 16)
    assert "1 days away" in words


def test_of_two_equally_near_masters_the_earlier_is_taken():
    found, _ = cal.closest_master(
        [master("2025-10-16"), master("2025-10-14")],
        kind=FrameKind.BIAS, date=dt.date(2025, 10, 15), group=GROUP,
    )  # fmt: skip
    assert found.date == dt.date(2025, 10, 14)


def test_a_nearer_master_of_another_binning_loses_and_is_named():
    binned = FrameGroup(width_px=32, height_px=24, binning="2x2", camera="CAM", readout=None)
    found, words = cal.closest_master(
        [master("2025-10-15", group=binned)],
        kind=FrameKind.BIAS, date=dt.date(2025, 10, 15), group=GROUP,
    )  # fmt: skip
    assert found is None
    assert "32x24 2x2" in words


@given(
    days=st.lists(st.integers(-400, 400), min_size=1, max_size=8, unique=True),
    own=st.integers(-400, 400),
)
def test_no_other_night_is_nearer(days, own):
    start = dt.date(2025, 6, 1)
    masters = [master((start + dt.timedelta(d)).isoformat()) for d in days]
    found, _ = cal.closest_master(
        masters, kind=FrameKind.BIAS, date=start + dt.timedelta(own), group=GROUP
    )
    assert abs((found.date - start).days - own) == min(abs(d - own) for d in days)


def test_a_master_too_warm_or_too_old_is_not_used_when_limits_are_set():
    warm = master("2025-10-15", ccd_temperature_c=-5.0)
    found, words = cal.closest_master(
        [warm], kind=FrameKind.BIAS, date=dt.date(2025, 10, 15), group=GROUP,
        ccd_temperature_c=-20.0, max_temperature_difference_c=2.0,
    )  # fmt: skip
    assert found is None
    assert "-5.0 C" in words
    found, words = cal.closest_master(
        [master("2025-01-01")], kind=FrameKind.BIAS, date=dt.date(2025, 10, 15), group=GROUP,
        max_age_days=30,
    )  # fmt: skip
    assert found is None
    assert "287 days away, at most 30" in words


def test_a_dark_of_no_exposure_is_compared_without_dividing_by_it():
    dark = master("2025-10-15", kind=FrameKind.DARK, exposure_s=0.0)
    for wanted_s, fits in ((0.0, True), (2.0, False)):
        found, _ = cal.closest_master(
            [dark], kind=FrameKind.DARK, date=dt.date(2025, 10, 15), group=GROUP,
            exposure_s=wanted_s,
        )  # fmt: skip
        assert (found is not None) is fits


def test_a_bias_and_dark_in_one_is_not_a_missing_bias():
    dark, flat = master("2025-10-15", kind=FrameKind.DARK), master("2025-10-15")
    for bias_dark, missing in ((dark, ()), (None, ("bias",))):
        choice = CalibrationChoice(bias=None, dark=bias_dark, flat=flat, reasons=())
        assert choice.missing == missing
    assert CalibrationChoice(bias=flat, dark=None, flat=None, reasons=()).missing == ("flat",)
