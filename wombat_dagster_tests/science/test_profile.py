"""The star profile of synthetic frames whose profile is known, and frames without one."""

import math

import numpy as np
import pytest

from wombat_dagster import domain
from wombat_dagster.science import profile

SKY_ADU, SKY_RMS_ADU = 200.0, 12.0


def moffat_star(image, x, y, peak, *, fwhm, axis_ratio=1.0, beta=3.0, angle_deg=0.0):
    """Add an elliptical Moffat; `fwhm` is the geometric mean of its two."""
    v, u = np.indices(image.shape, dtype=float)
    u, v, angle = u - x, v - y, math.radians(angle_deg)
    along = u * math.cos(angle) + v * math.sin(angle)
    across = v * math.cos(angle) - u * math.sin(angle)
    width = fwhm / (2 * math.sqrt(2 ** (1 / beta) - 1))
    major, minor = width / math.sqrt(axis_ratio), width * math.sqrt(axis_ratio)
    image += peak * (1 + (along / major) ** 2 + (across / minor) ** 2) ** -beta


def found(places, peaks, *, fwhm=4.0, fwhms=None, snr=200.0):
    """What a detection would say of stars at `places`."""
    order = np.argsort(-np.asarray(peaks, float), kind="stable")
    x, y = np.array(places, float).reshape(-1, 2).T
    peaks = np.asarray(peaks, float)[order]
    widths = np.full(len(peaks), fwhm) if fwhms is None else np.asarray(fwhms, float)[order]
    return domain.Detections(
        x_px=x[order],
        y_px=y[order],
        flux_adu=peaks * widths**2,
        peak_adu=peaks,
        fwhm_px=widths,
        axis_ratio=np.ones(len(peaks)),
        snr=np.full(len(peaks), snr),
        sky_adu=SKY_ADU,
        sky_rms_adu=SKY_RMS_ADU,
    )


PLACES = [(40.3, 40.1), (120.7, 45.4), (200.2, 50.9), (60.5, 150.5), (150.1, 160.8)]
PEAKS = [25_000.0, 18_000.0, 12_000.0, 9_000.0, 6_000.0]


def frame(seed=1, *, places=PLACES, peaks=PEAKS, gain=1.5, **shape):
    """Stars with photon noise at `gain` e-/ADU over a sky of SKY_RMS_ADU."""
    image = np.zeros((200, 250))
    for (x, y), peak in zip(places, peaks, strict=True):
        moffat_star(image, x, y, peak, **shape)
    rng = np.random.default_rng(seed)
    return rng.poisson(image * gain) / gain + rng.normal(SKY_ADU, SKY_RMS_ADU, image.shape)


def fit(image, detections, mask=None, **changes):
    settings = {"gain_e_adu": 1.5, "linearity_adu": 40_000.0} | changes
    return profile.fit_frame_profile(image, mask, detections, **settings)


@pytest.mark.parametrize(
    ("fwhm", "ratio", "beta", "angle"),
    [(1.8, 0.9, 3.0, 40.0), (4.0, 1.0, 4.5, 0.0), (4.0, 0.65, 2.6, 120.0), (9.0, 0.8, 3.5, 75.0)],
)
def test_width_and_axis_ratio_are_recovered(fwhm, ratio, beta, angle):
    shape = {"fwhm": fwhm, "axis_ratio": ratio, "beta": beta, "angle_deg": angle}
    got = fit(frame(**shape), found(PLACES, PEAKS, fwhm=fwhm * 1.1))
    assert got.n_stars == 5
    assert got.fwhm_px == pytest.approx(fwhm, rel=0.01)
    assert got.axis_ratio == pytest.approx(ratio, abs=0.02)
    assert got.beta == pytest.approx(beta, rel=0.05)
    assert got.elongated == (ratio < 0.7)
    assert got.notes == ((f"stars elongated: axis ratio {got.axis_ratio:.2f}",) * (ratio < 0.7))


def test_a_gaussian_star_nearly_keeps_its_width():
    """The Moffat's beta ends at 6 and its wings are wider: the best fit is 5 % narrower at half."""
    image = np.random.default_rng(2).normal(SKY_ADU, SKY_RMS_ADU, (200, 250))
    v, u = np.indices(image.shape)
    image += 20_000 * np.exp(-((u - 100.4) ** 2 + (v - 90.2) ** 2) / (2 * 2.0**2))
    got = fit(image, found([(100.0, 90.0)], [20_000.0], fwhm=4.7))
    assert got.fwhm_px == pytest.approx(4.7096, rel=0.06)
    assert got.gaussian_fwhm_px == pytest.approx(4.7096, rel=0.003)


def test_fitted_centres_are_the_stars():
    got = fit(frame(fwhm=4.0), found([(40.0, 40.0)], [25_000.0]))
    assert (got.stars[0].x_px, got.stars[0].y_px) == (
        pytest.approx(40.3, abs=0.02),
        pytest.approx(40.1, abs=0.02),
    )


def test_one_good_star_is_enough():
    image = frame(fwhm=4.0)
    image[42, 41:44] += 20_000.0  # the first is spoiled
    got = fit(image, found(PLACES[:2], PEAKS[:2]))
    assert (got.n_stars, got.n_tried) == (1, 2)
    assert got.fwhm_px == pytest.approx(4.0, rel=0.02)


def test_only_peaks_in_range_are_fitted():
    peaks = [31_000.0, 30_000.0, 5_000.0, 4_900.0, 100.0]
    got = fit(frame(peaks=peaks, fwhm=4.0), found(PLACES, peaks))
    assert sorted(round(star.x_px, 1) for star in got.stars) == [120.7, 200.2]


def test_a_low_stop_moves_the_range():
    """4095 · 0.9 < 30000: 0.15 to 0.8 of it, 614.25 to 3276."""
    assert profile.peak_range(5000.0, 30000.0, 4095.0) == pytest.approx((614.25, 3276.0))
    assert profile.peak_range(5000.0, 30000.0, 65535.0) == (5000.0, 30000.0)
    assert profile.peak_range(5000.0, 30000.0, None) == (5000.0, 30000.0)


def test_without_a_star_in_range_the_brightest_below_linearity_serves():
    peaks = [4_000.0, 3_000.0, 2_000.0, 60_000.0, 45_000.0]
    got = fit(frame(peaks=peaks, fwhm=4.0), found(PLACES, peaks))
    assert got.n_stars == 1
    assert got.stars[0].x_px == pytest.approx(40.3, abs=0.05)
    assert "4000 ADU" in got.notes[0]
    with pytest.raises(domain.BadPsf, match="SNR above 50"):
        fit(frame(peaks=peaks, fwhm=4.0), found(PLACES, peaks, snr=49.0))


def test_crowded_and_masked_stars_are_left_alone():
    places = [*PLACES, (45.0, 48.0)]
    peaks = [*PEAKS, 5_500.0]
    image = frame(places=places, peaks=peaks, fwhm=4.0)
    mask = np.zeros(image.shape, np.uint8)
    mask[46, 121] = 2
    got = fit(image, found(places, peaks), mask)
    assert sorted(round(star.x_px, 1) for star in got.stars) == [60.5, 150.1, 200.2]


def test_no_more_than_ten_stars_are_fitted():
    places = [(20.0 + 40 * i, 20.0 + 40 * j) for i in range(5) for j in range(4)]
    peaks = [10_000.0 + 100 * i for i in range(20)]
    got = fit(frame(places=places, peaks=peaks, fwhm=4.0), found(places, peaks))
    assert (got.n_stars, got.n_tried) == (10, 10)


def test_a_flat_image_has_no_profile():
    image = np.random.default_rng(3).normal(SKY_ADU, SKY_RMS_ADU, (200, 250))
    with pytest.raises(domain.BadPsf, match="0 of 0 stars"):
        fit(image, found([], []))
    with pytest.raises(domain.BadPsf, match="none of 5 star profiles is good"):
        fit(image, found(PLACES, PEAKS))  # detections where nothing is


@pytest.mark.parametrize(
    "cluster",
    [
        [[1.0]],
        [[1.0, 0.5]],
        [[1.0], [0.9], [0.8]],
        [[1.0, 0.8], [0.7, 0.0]],
        [[1.0, 0.0, 0.9], [0.0, 0.8, 0.0]],
    ],
)
def test_hot_pixels_are_not_stars(cluster):
    image = np.random.default_rng(3).normal(SKY_ADU, SKY_RMS_ADU, (200, 250))
    for x, y in [(50, 50), (120, 90), (200, 150)]:
        shape = np.array(cluster)
        image[y : y + shape.shape[0], x : x + shape.shape[1]] += 20_000.0 * shape
    detections = found([(50.3, 50.2), (120.3, 90.2), (200.3, 150.2)], [20_000.0] * 3, fwhm=1.3)
    with pytest.raises(domain.BadPsf, match="none of 3"):
        fit(image, detections)


def test_hot_pixels_among_stars_are_told_by_their_sharpness():
    image = frame(fwhm=4.0)
    image[100, 100] += 15_000.0
    places, peaks = [*PLACES, (100.0, 100.0)], [*PEAKS, 15_000.0]
    got = fit(image, found(places, peaks, fwhms=[4.0] * 5 + [1.0]))
    assert got.n_tried == 5


def test_trailed_stars_are_refused_with_their_axis_ratio():
    image = frame(fwhm=6.0, axis_ratio=0.4, angle_deg=30.0)
    with pytest.raises(domain.BadPsf, match=r"axis ratio 0\.4"):
        fit(image, found(PLACES, PEAKS, fwhm=6.0))


def test_stars_wider_than_fifteen_pixels_are_out_of_focus():
    image = frame(places=PLACES[3:4], peaks=[20_000.0], fwhm=17.0)
    with pytest.raises(domain.BadPsf, match=r"FWHM 1[67]"):
        fit(image, found(PLACES[3:4], [20_000.0], fwhm=17.0))
