"""Star detection on painted frames whose stars are known."""

import subprocess
import sys
import threading
import warnings

import numpy as np
import pytest
import sep
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


def distances(stars, x, y):
    """Return the distance of every detection (rows) to every true star (columns)."""
    return np.hypot(np.subtract.outer(stars.x_px, x), np.subtract.outer(stars.y_px, y))


def paint(
    rng, x, y, flux, *,
    fwhm_px=3.0, integrated=True, shape=(760, 760), stretch=1.0, noise_adu=NOISE_ADU,
):  # fmt: skip
    """Gaussians over flat sky; `integrated` over the pixels or sampled at their centres."""
    image = rng.normal(SKY_ADU, noise_adu, shape)
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


def test_places_are_as_good_as_the_light_allows():
    """sigma / SNR per axis; 1.3 px / 500 at 3e5 ADU and less than 0.02 px from 3e4 on."""
    rng = np.random.default_rng(14)
    x, y, flux = grid_of_stars(rng)
    flux = flux.clip(3e4)
    stars = detect_stars(paint(rng, x, y, flux))
    distance = distances(stars, x, y).min(axis=0)
    sigma_px, snr = 3.0 * SIGMA_OF_FWHM, flux / (NOISE_ADU * np.sqrt(np.pi) * 3.0)
    assert np.sqrt(np.mean((distance / (sigma_px / snr)) ** 2)) < 2.0  # 2**0.5 in theory
    assert np.median(distance) < 0.02


def test_the_width_of_a_moffat_star_is_twice_its_half_flux_radius():
    """Half of a Moffat star of beta 3 is within alpha (2**0.5 - 1)**0.5, by its integral."""
    rng = np.random.default_rng(15)
    x, y, _ = grid_of_stars(rng, n_side=4)
    alpha_px = 4.0
    yy, xx = np.mgrid[:280, :280]
    image = rng.normal(SKY_ADU, 1.0, (280, 280))
    for x0, y0 in zip(x, y, strict=True):
        image += 2e4 / (1 + ((xx - x0) ** 2 + (yy - y0) ** 2) / alpha_px**2) ** 3
    stars = detect_stars(image)
    assert len(stars) == len(x)
    by_hand = 2 * alpha_px * np.sqrt(np.sqrt(2.0) - 1.0)
    # 5 %: the light beyond the reach of the measurement is not counted
    assert np.median(stars.fwhm_px) == pytest.approx(by_hand, rel=0.05)


@pytest.mark.parametrize("side_px", [760, 701])
def test_a_sloping_sky_hides_no_star_and_makes_none_up_to_the_edges(side_px):
    """300 ADU from corner to corner, and 10 % of vignetting."""
    rng = np.random.default_rng(16)
    x, y, flux = grid_of_stars(rng, n_side=11)
    x, y = x - 30.0, y - 30.0  # the first are 10 px from the edge
    flat = detect_stars(image := paint(rng, x, y, flux, shape=(side_px, side_px)))
    yy, xx = np.mgrid[:side_px, :side_px] / side_px
    slope = 200.0 * xx + 100.0 * yy - 0.1 * SKY_ADU * ((xx - 0.5) ** 2 + (yy - 0.5) ** 2)
    stars = detect_stars(image + slope)
    assert len(stars) == len(flat) == len(x)
    own = distances(stars, x, y).argmin(axis=0)
    assert distances(stars, x, y).min(axis=0).max() < 0.5
    flat_flux = flat.flux_adu[distances(flat, x, y).argmin(axis=0)]
    noise_adu = NOISE_ADU * np.sqrt(np.pi) * 2.5 * 1.5  # of the sky in an aperture
    assert np.std(stars.flux_adu[own] - flat_flux) < 0.75 * noise_adu
    assert stars.sky_rms_adu == pytest.approx(NOISE_ADU, rel=0.2)  # with the slope in a box


def test_the_sky_beside_a_large_masked_part_is_that_of_the_frame():
    rng = np.random.default_rng(21)
    x, y, flux = grid_of_stars(rng)
    x, y = x - 30.0, y - 30.0  # a row of stars 7 px beside the mask, within a box of the sky
    image = paint(rng, x, y, flux)
    mask = np.zeros(image.shape, bool)
    mask[:483, :483] = True
    whole, part = detect_stars(image), detect_stars(image, mask)
    beside = (x > 483) | (y > 483)
    assert len(part) == np.count_nonzero(beside)
    own_whole = distances(whole, x, y).argmin(axis=0)[beside]
    own_part = distances(part, x, y).argmin(axis=0)[beside]
    noise_adu = NOISE_ADU * np.sqrt(np.pi) * 2.5 * 1.5  # of the sky in an aperture
    difference = part.flux_adu[own_part] - whole.flux_adu[own_whole]
    # apertures that the mask cuts are part of it; a tenth of the sky would be 20 noises
    assert np.abs(difference).max() < 10.0 * noise_adu


@pytest.mark.parametrize("noise_adu", [0.35, 0.6, 1.2])
@pytest.mark.parametrize("sky_adu", [300.0, 300.3, 300.5, 300.7])
def test_a_sky_of_few_digits_is_measured_finer_than_its_digits(sky_adu, noise_adu):
    """As MicroObservatory's 12-bit frames; the rms of rounding adds as 1/12 ADU²."""
    rng = np.random.default_rng(17)
    x, y, flux = grid_of_stars(rng, n_side=5)
    image = paint(rng, x, y, flux, shape=(340, 340), noise_adu=noise_adu) + sky_adu - SKY_ADU
    stars = detect_stars(np.rint(image).astype(np.uint16))
    assert len(stars) == len(x)
    assert stars.sky_adu == pytest.approx(sky_adu, abs=0.35)
    assert stars.sky_rms_adu == pytest.approx(np.sqrt(noise_adu**2 + 1 / 12), rel=0.35)


def test_a_crowded_field_does_not_raise_its_own_sky():
    rng = np.random.default_rng(18)
    n_stars = 3000
    x, y = rng.uniform(5, 755, (2, n_stars))
    image = paint(rng, x, y, 10 ** rng.uniform(2.5, 4.5, n_stars))
    assert detect_stars(image).sky_adu == pytest.approx(SKY_ADU, abs=0.5 * NOISE_ADU)


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


@pytest.mark.parametrize("masked_above_adu", [30000, 4000, 200])
@pytest.mark.parametrize("fwhm_px", [2.0, 5.0])
def test_what_a_mask_leaves_of_a_hot_cluster_is_no_star(fwhm_px, masked_above_adu):
    """Clusters as in the BSU camera's lights (``data/README.md``), masked whole or core only."""
    clusters = {
        (65, 70): [[48500, 25800], [48500, 26100]],
        (125, 130): [[46700, 450, 0], [48000, 6100, 70], [8000, 90, 20]],
        (185, 190): [[300, 40, 20], [48900, 650, 41], [49000, 614, 55]],
    }
    rng = np.random.default_rng(4)
    x, y, flux = grid_of_stars(rng, n_side=6)
    image = paint(rng, x, y, flux.clip(3e4), fwhm_px=fwhm_px, shape=(400, 400))
    mask = np.zeros(image.shape, bool)
    for (top, left), cluster in clusters.items():
        here = np.s_[top : top + len(cluster), left : left + len(cluster[0])]
        image[here] += cluster
        mask[here] = np.array(cluster) > masked_above_adu
    stars = detect_stars(image, mask)
    assert len(stars) == len(x)
    assert distances(stars, x, y).min(axis=1).max() < 1.0


def test_the_wings_of_a_light_whose_core_is_masked_are_seldom_stars():
    """As a hot cluster as wide as the stars leaves them; on half of the places."""
    rng = np.random.default_rng(4)
    x, y, flux = grid_of_stars(rng, n_side=6)
    image = paint(rng, x, y, flux.clip(3e4), shape=(400, 400))
    yy, xx = np.mgrid[:400, :400]
    mask = np.zeros(image.shape, bool)
    for x0, y0 in zip(x[::2], y[::2], strict=True):
        mask |= np.hypot(xx - x0, yy - y0) < 1.5
    stars = detect_stars(image, mask)
    assert distances(stars, x[1::2], y[1::2]).min(axis=0).max() < 0.5
    assert len(stars) - len(x[1::2]) <= len(x[::2]) / 3


@pytest.mark.parametrize("fwhm_px", [2.0, 3.0, 5.0])
def test_scattered_bad_pixels_hide_no_star(fwhm_px):
    """One pixel in a hundred, so that a third of the stars have one in their core."""
    rng = np.random.default_rng(22)
    x, y, flux = grid_of_stars(rng)
    image = paint(rng, x, y, flux, fwhm_px=fwhm_px)
    stars = detect_stars(image, rng.random(image.shape) < 0.01)
    assert len(stars) == len(x)
    assert distances(stars, x, y).min(axis=0).max() < 1.0


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


@pytest.fixture(name="small_buffer")
def _small_buffer():
    usual = sep.get_extract_pixstack()
    sep.set_extract_pixstack(300)
    yield 300
    sep.set_extract_pixstack(usual)


def test_a_frame_too_crowded_for_seps_buffer_gets_a_larger_one_for_the_time(small_buffer):
    rng = np.random.default_rng(19)
    image = paint(rng, *grid_of_stars(rng, n_side=5), fwhm_px=12.0, shape=(340, 340))
    with pytest.raises(Exception, match="internal pixel buffer full"):
        sep.extract(image - SKY_ADU, 5 * NOISE_ADU)
    assert len(detect_stars(image)) == 25
    assert sep.get_extract_pixstack() == small_buffer


@pytest.mark.usefixtures("small_buffer")
def test_frames_in_several_threads_give_the_stars_that_they_give_alone():
    rng = np.random.default_rng(20)
    images = [
        paint(rng, *grid_of_stars(rng, n_side=4), fwhm_px=12.0, shape=(280, 280)) for _ in range(4)
    ]
    alone = [detect_stars(image) for image in images]
    results = {}

    def work(index):
        for _ in range(3):
            results[index] = detect_stars(images[index])

    threads = [threading.Thread(target=work, args=(index,)) for index in range(len(images))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, expected in enumerate(alone):
        np.testing.assert_array_equal(results[index].x_px, expected.x_px)
        np.testing.assert_array_equal(results[index].fwhm_px, expected.fwhm_px)


def test_detecting_stars_does_not_load_scipy():
    """Whose spatial part alone takes 0.2 s to import."""
    script = (
        "import sys, numpy as np; from wombat_dagster.science.detection import detect_stars;"
        "assert 'sep' not in sys.modules;"
        "image = np.random.default_rng(1).normal(300, 10, (200, 200));"
        "image[50:54, 50:54] += 1000; image[90:94, 95:99] += 500;"
        "print(len(detect_stars(image)), 'scipy' in sys.modules)"
    )
    said = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert said.stdout.split() == ["2", "False"]
