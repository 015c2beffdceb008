"""Star detection on painted frames whose stars are known."""

import warnings

import numpy as np
import pytest
from scipy.special import erf

from wombat_dagster.domain import Detections
from wombat_dagster.science.detection import detect_stars

SKY_ADU, NOISE_ADU = 300.0, 10.0
SIGMA_OF_FWHM = 1.0 / 2.354820045


def grid_of_stars(rng, n_side=12, step_px=60.0):
    """Return x, y of stars at random places within pixels, and fluxes from faint to bright."""
    x, y = np.meshgrid(np.arange(n_side) * step_px + 40, np.arange(n_side) * step_px + 40)
    x, y = x.ravel() + rng.uniform(-0.5, 0.5, n_side**2), y.ravel() + rng.uniform(-0.5, 0.5, x.size)
    return x, y, 10 ** rng.uniform(4.0, 5.5, x.size)


def paint(rng, x, y, flux, *, fwhm_px=3.0, integrated=True, shape=(760, 760), stretch=1.0):
    """Gaussians over flat sky; `integrated` over the pixels or sampled at their centres."""
    image = rng.normal(SKY_ADU, NOISE_ADU, shape)
    sigma = fwhm_px * SIGMA_OF_FWHM
    reach = int(np.ceil(5 * sigma * stretch)) + 1

    def profile(offset, s):
        if integrated:
            return 0.5 * (erf((offset + 0.5) / s / 2**0.5) - erf((offset - 0.5) / s / 2**0.5))
        return np.exp(-0.5 * (offset / s) ** 2) / (s * np.sqrt(2 * np.pi))

    for x0, y0, f in zip(x, y, flux, strict=True):
        xi = np.arange(max(0, int(x0) - reach), min(shape[1], int(x0) + reach + 1))
        yi = np.arange(max(0, int(y0) - reach), min(shape[0], int(y0) + reach + 1))
        image[np.ix_(yi, xi)] += f * np.outer(
            profile(yi - y0, sigma), profile(xi - x0, sigma * stretch)
        )
    return image


@pytest.mark.parametrize("fwhm_px", [2.5, 3.0, 5.0, 8.0])
def test_fwhm_of_sampled_gaussians_is_unbiased(fwhm_px):
    rng = np.random.default_rng(1)
    stars = detect_stars(paint(rng, *grid_of_stars(rng), fwhm_px=fwhm_px, integrated=False))
    assert np.median(stars.fwhm_px) == pytest.approx(fwhm_px, rel=0.01)


def test_fwhm_of_integrated_gaussians_is_that_of_the_pixels_profile():
    """Integration over a pixel adds 1/12 px² to the variance: 3.00 becomes 3.08 by hand."""
    rng = np.random.default_rng(2)
    stars = detect_stars(paint(rng, *grid_of_stars(rng), fwhm_px=3.0))
    by_hand = np.sqrt((3.0 * SIGMA_OF_FWHM) ** 2 + 1 / 12) / SIGMA_OF_FWHM
    assert np.median(stars.fwhm_px) == pytest.approx(by_hand, rel=0.01)
    assert np.median(stars.fwhm_px) == pytest.approx(3.0, rel=0.03)


def test_every_star_is_found_in_its_place_brightest_first():
    rng = np.random.default_rng(3)
    x, y, flux = grid_of_stars(rng)
    stars = detect_stars(paint(rng, x, y, flux))
    assert len(stars) == len(x)
    assert np.all(np.diff(stars.flux_adu) <= 0)
    distance = np.hypot(np.subtract.outer(stars.x_px, x), np.subtract.outer(stars.y_px, y))
    assert np.all(distance.min(axis=0)[flux > 3e4] < 0.1)
    assert distance.min(axis=0).max() < 0.5
    measured = stars.flux_adu / flux[distance.argmin(axis=1)]
    assert np.median(measured) == pytest.approx(1.0, abs=0.03)
    assert stars.sky_adu == pytest.approx(SKY_ADU, abs=1.0)
    assert stars.sky_rms_adu == pytest.approx(NOISE_ADU, rel=0.05)


@pytest.mark.parametrize("distance_px", [8.0, 9.0, 10.0])
def test_a_faint_neighbour_of_a_bright_star_keeps_its_place_and_flux(distance_px):
    """5 % at 2.7 to 3.3 FWHM; the light of the bright star, 20 times, must not become its own."""
    rng = np.random.default_rng(12)
    x, y, flux = grid_of_stars(rng, n_side=5)
    flux[:] = 2e5
    angle = np.linspace(0.0, 2 * np.pi, len(x))
    near_x, near_y = x + distance_px * np.cos(angle), y + distance_px * np.sin(angle)
    image = paint(
        rng, np.append(x, near_x), np.append(y, near_y), np.append(flux, 0.05 * flux),
        shape=(340, 340),
    )  # fmt: skip
    stars = detect_stars(image)
    assert len(stars) == 2 * len(x)
    distance = np.hypot(
        np.subtract.outer(stars.x_px, near_x), np.subtract.outer(stars.y_px, near_y)
    )
    assert distance.min(axis=0).max() < 0.5
    own = distance.argmin(axis=0)
    assert stars.flux_adu[own] == pytest.approx(0.05 * flux, rel=0.15)
    assert np.median(stars.flux_adu[own] / (0.05 * flux)) == pytest.approx(1.0, abs=0.06)
    assert np.max(stars.fwhm_px) < 1.5 * 3.0


def test_the_halves_of_a_star_that_two_masked_rows_cut_are_one_star():
    rng = np.random.default_rng(13)
    x, y, flux = grid_of_stars(rng, n_side=5)
    image = paint(rng, x, y, np.full_like(flux, 2e5), fwhm_px=6.0, shape=(340, 340))
    mask = np.zeros(image.shape, bool)
    rows = (y + 0.5).astype(int)
    mask[rows] = mask[rows + 1] = True
    assert len(detect_stars(image, mask)) == len(x)


def test_hot_pixels_and_clusters_are_no_stars():
    """The two clusters of the BSU camera, and fifty single pixels; the stars stay."""
    rng = np.random.default_rng(4)
    x, y, flux = grid_of_stars(rng)
    image = paint(rng, x, y, flux, fwhm_px=5.0)
    hot = rng.integers(10, 750, (50, 2))
    far = np.array([np.hypot(x - b, y - a).min() > 15 for a, b in hot])
    image[tuple(hot[far].T)] += 20000.0
    image[305:307, 308:310] += [[48500, 25800], [48500, 26100]]
    image[247:250, 67:69] += [[46700, 450], [48000, 6100], [8000, 90]]
    stars = detect_stars(image)
    distance = np.hypot(np.subtract.outer(stars.x_px, x), np.subtract.outer(stars.y_px, y))
    assert np.all(distance.min(axis=1) < 3.0)
    assert len(stars) >= 0.97 * len(x)


@pytest.mark.parametrize("fwhm_px", [3.0, 8.0])
def test_more_hot_pixels_than_stars_do_not_set_the_typical_width(fwhm_px):
    rng = np.random.default_rng(11)
    x, y, flux = grid_of_stars(rng, n_side=5)
    image = paint(rng, x, y, flux.clip(3e4), fwhm_px=fwhm_px, shape=(340, 340))
    hot = rng.integers(10, 330, (200, 2))
    far = np.array([np.hypot(x - b, y - a).min() > 4 * fwhm_px for a, b in hot])
    image[tuple(hot[far].T)] += 15000.0
    stars = detect_stars(image)
    distance = np.hypot(np.subtract.outer(stars.x_px, x), np.subtract.outer(stars.y_px, y))
    assert far.sum() > len(x)
    assert np.median(stars.fwhm_px) == pytest.approx(fwhm_px, rel=0.05)
    assert np.sum(distance.min(axis=1) > 3.0) <= 5  # hot pixels side by side, or nearly
    assert len(stars) >= 24


def test_trailed_stars_are_found_and_say_so():
    rng = np.random.default_rng(5)
    x, y, flux = grid_of_stars(rng)
    stars = detect_stars(paint(rng, x, y, flux, stretch=3.0))
    assert len(stars) == len(x)
    assert np.median(stars.axis_ratio) == pytest.approx(1 / 3, abs=0.05)


def test_saturated_stars_are_kept_and_do_not_hide_the_others():
    rng = np.random.default_rng(6)
    x, y, flux = grid_of_stars(rng)
    image = np.minimum(paint(rng, x, y, flux * 30.0), 4095.0)
    stars = detect_stars(image, saturation_adu=4095.0)
    distance = np.hypot(np.subtract.outer(stars.x_px, x), np.subtract.outer(stars.y_px, y))
    assert distance.min(axis=0).max() < 1.0
    assert len(stars) == len(x)


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((100, 100)),
        np.full((100, 100), 7, np.uint16),
        np.full((100, 100), np.nan),
        np.zeros((3, 3)),
        np.zeros((0, 0)),
        np.random.default_rng(7).normal(SKY_ADU, NOISE_ADU, (200, 200)),
    ],
    ids=["zero", "constant", "nan", "tiny", "no pixels", "noise"],
)
def test_a_frame_without_stars_gives_none_and_no_error(image):
    stars = detect_stars(image)
    assert isinstance(stars, Detections)
    assert len(stars) == 0
    assert stars.fwhm_px.shape == (0,)


@pytest.mark.parametrize("kind", [">i2", "<u2", ">f4", ">f8", "<i4"])
def test_any_number_type_and_byte_order_gives_the_same_stars(kind):
    rng = np.random.default_rng(8)
    image = np.rint(paint(rng, *grid_of_stars(rng, n_side=5), shape=(340, 340)))
    image = np.clip(image, 0, 32000)
    expected, stars = detect_stars(image), detect_stars(image.astype(kind))
    np.testing.assert_allclose(stars.x_px, expected.x_px, atol=1e-6)


def test_masked_and_nan_pixels_are_not_stars_and_the_frame_is_left_alone():
    rng = np.random.default_rng(9)
    x, y, flux = grid_of_stars(rng, n_side=5)
    image = paint(rng, x, y, flux, shape=(340, 340))
    mask = np.zeros(image.shape, bool)
    mask[:70, :] = True  # the first row of stars
    image[130:190, 130:190] = np.nan  # one star
    before = image.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stars = detect_stars(image, mask)
    np.testing.assert_array_equal(image, before)
    assert len(stars) == 25 - 5 - 1
    assert np.all(stars.y_px > 69)


def test_max_stars_keeps_the_brightest():
    rng = np.random.default_rng(10)
    image = paint(rng, *grid_of_stars(rng, n_side=5), shape=(340, 340))
    everything, few = detect_stars(image), detect_stars(image, max_stars=7)
    np.testing.assert_array_equal(few.flux_adu, everything.flux_adu[:7])
