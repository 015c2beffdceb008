"""The camera: light is conserved, noise is what was asked for, patterns belong to the chip."""

import numpy as np
import pytest

from wombat_dagster.simulate.camera import (
    add_cosmic_rays,
    add_stars,
    core_sigma_px,
    expose,
    make_detector,
    read_out,
)
from wombat_dagster.simulate.sky import Telescope

SCOPE = Telescope(width_px=300, height_px=260)
FLAT_SCOPE = Telescope(
    width_px=300,
    height_px=260,
    vignetting=0.0,
    pixel_response_rms=0.0,
    dead_fraction=0.0,
    hot_fraction=0.0,
    dark_e_s=0.0,
)


def one_star(x, y, *, flux=1000.0, fwhm_px=3.2, size=101):
    image = np.zeros((size, size), dtype=np.float64)
    add_stars(
        image, np.array([x]), np.array([y]), np.array([flux]), telescope=SCOPE, fwhm_px=fwhm_px
    )
    return image


@pytest.mark.parametrize("fwhm_px", [1.1, 3.2, 6.0])
@pytest.mark.parametrize(("x", "y"), [(50.0, 50.0), (50.5, 49.5), (47.13, 52.81)])
def test_an_isolated_star_holds_its_flux_at_its_place(x, y, fwhm_px):
    """However coarse the sampling; the stamp cuts 1e-7, float32 rounds to as much."""
    image = one_star(x, y, fwhm_px=fwhm_px)
    assert image.sum() == pytest.approx(1000.0, rel=1e-5)
    # Pixels move the centroid of a Gaussian by up to exp(-2 (pi sigma)^2) / pi.
    aliasing = np.exp(-2 * (np.pi * fwhm_px / 2.4) ** 2) / np.pi
    rows, columns = np.mgrid[:101, :101]
    assert (image * columns).sum() / image.sum() == pytest.approx(x, abs=1e-4 + aliasing)
    assert (image * rows).sum() / image.sum() == pytest.approx(y, abs=1e-4 + aliasing)


def test_the_profile_has_the_fwhm_asked_for():
    """Wide against the pixel: half of the centre's value at half the FWHM, to the pixel's width."""
    image = one_star(300.0, 300.0, fwhm_px=60.0, size=601)
    assert image[300, 330] / image[300, 300] == pytest.approx(0.5, abs=1e-3)
    assert image[270, 300] / image[300, 300] == pytest.approx(0.5, abs=1e-3)


def test_a_trail_is_even_as_long_as_asked_for_and_about_the_star_s_place():
    """Moments of a uniform line of length L: the variance along it grows by L² / 12."""
    image, still = np.zeros((101, 101)), one_star(50.3, 49.6)
    add_stars(
        image,
        np.array([50.3]),
        np.array([49.6]),
        np.array([1000.0]),
        telescope=SCOPE,
        fwhm_px=3.2,
        trail_px=(12.0, -5.0),
    )
    assert image.sum() == pytest.approx(1000.0, rel=1e-5)
    rows, columns = np.mgrid[:101, :101]
    assert (image * columns).sum() / 1000.0 == pytest.approx(50.3, abs=1e-3)
    assert (image * rows).sum() / 1000.0 == pytest.approx(49.6, abs=1e-3)
    along = ((columns - 50.3) * 12.0 - (rows - 49.6) * 5.0) / 13.0
    grown = ((image - still) * along**2).sum() / 1000.0
    assert grown == pytest.approx(13.0**2 / 12, rel=0.01)


def test_without_a_halo_the_sigma_is_the_gaussians():
    bare = Telescope(halo_fraction=0.0)
    assert core_sigma_px(bare, 2.3548) == pytest.approx(1.0, abs=1e-4)


def test_stars_over_the_edge_are_cut_and_stars_beyond_it_skipped():
    assert one_star(-0.5, 50.0).sum() == pytest.approx(500.0, rel=1e-4)
    assert one_star(50.0, 100.5).sum() == pytest.approx(500.0, rel=1e-4)
    assert one_star(-80.0, 50.0).sum() == 0
    assert one_star(50.0, 190.0).sum() == 0


def test_a_star_outside_the_frame_does_not_wrap_around():
    image = one_star(-3.0, 50.0)
    assert image[:, 50:].sum() == 0


def test_photon_transfer_of_bias_and_flat_pairs_recovers_gain_and_read_noise():
    """78,000 pixels: variances to 1/sqrt(39,000) = 0.5 %, so gain and read noise to 3 % safely."""
    detector = make_detector(SCOPE, ["V"])
    rng = np.random.default_rng(5)
    bias = [read_out(detector, rng, None).astype(float) for _ in range(2)]
    flat = [
        expose(detector, rng, 40000.0, filter="V", exposure_s=3.0)[0].astype(float)
        for _ in range(2)
    ]
    middle = np.s_[80:180, 100:200]
    bias_variance = np.var(bias[0] - bias[1]) / 2
    flat_variance = np.var((flat[0] - flat[1])[middle]) / 2
    level = np.mean((flat[0] - bias[0])[middle])
    gain = level / (flat_variance - bias_variance)
    assert gain == pytest.approx(SCOPE.gain_e_adu, rel=0.05)
    assert np.sqrt(bias_variance) * gain == pytest.approx(SCOPE.read_noise_e, rel=0.05)


def test_flats_show_what_lights_suffer():
    """Light over flat is even to the noise where each by itself falls by the vignetting."""
    detector = make_detector(Telescope(width_px=300, height_px=260, vignetting=0.3), ["V"])
    rng = np.random.default_rng(6)
    flat, light = (
        np.mean([expose(detector, rng, e, filter="V", exposure_s=1.0)[0] for _ in range(5)], axis=0)
        - detector.bias_adu
        for e in (50000.0, 20000.0)
    )
    assert light[:20, :20].mean() / light[120:140, 140:160].mean() < 0.8
    ratio = light / flat
    good = ~detector.dead & ~detector.hot
    # 5 lights of 20000 e-: 0.32 %; 5 flats of 50000 e-: 0.2 %; more in the corners.
    assert np.std(ratio[good]) / np.mean(ratio[good]) < 0.0055


def test_dust_and_pixels_differ_from_filter_to_filter_only_in_the_dust():
    detector = make_detector(SCOPE, ["B", "V"])
    blue, visual = detector.response["B"], detector.response["V"]
    assert not np.allclose(blue, visual)
    ratio = blue / visual
    assert np.median(np.abs(np.diff(ratio, axis=1))) < 1e-4  # smooth: pixel response cancels
    assert np.std(blue[100:140, 130:170]) > 0.5 * SCOPE.pixel_response_rms


def test_the_chip_follows_from_its_seed_and_no_filter_disturbs_another():
    one, two = make_detector(SCOPE, ["V"]), make_detector(SCOPE, ["B", "V"])
    assert np.array_equal(one.response["V"], two.response["V"])
    assert np.array_equal(one.bias_adu, two.bias_adu)
    other = make_detector(Telescope(width_px=300, height_px=260, detector_seed=1), ["V"])
    assert not np.array_equal(one.hot, other.hot)


def test_hot_pixels_glow_in_darks_and_not_in_biases():
    detector = make_detector(Telescope(width_px=300, height_px=260, hot_fraction=0.001), ["V"])
    rng = np.random.default_rng(7)
    dark, _ = expose(detector, rng, 0.0, filter=None, exposure_s=120.0)
    bias = read_out(detector, rng, None)
    excess = dark.astype(float) - bias
    # The faintest hot pixel, 2 e-/s: 240 e- = 185 ADU against 9 ADU of noise.
    assert detector.hot.sum() > 40
    assert excess[detector.hot].min() > 100
    assert np.median(excess[~detector.hot]) == pytest.approx(0.02 * 120 / 1.3, abs=1.0)
    assert abs(bias[detector.hot].mean() - bias[~detector.hot].mean()) < 10


@pytest.mark.parametrize("stop_adu", [65535, 4095])
def test_counts_stop_at_the_converter(stop_adu):
    scope = Telescope(width_px=60, height_px=50, stop_adu=stop_adu)
    counts, _ = expose(
        make_detector(scope, ["V"]),
        np.random.default_rng(1),
        np.full((50, 60), 1e6),
        filter="V",
        exposure_s=1.0,
    )
    assert counts.dtype == np.uint16
    assert counts.max() == stop_adu
    assert np.mean(counts == stop_adu) > 0.99


def test_noise_of_an_even_light_is_poissonian():
    """10,000 e- at 1.3 e-/ADU with 8 e-: rms sqrt(10000 + 64) / 1.3 = 77.2 ADU."""
    detector = make_detector(FLAT_SCOPE, ["V"])
    rng = np.random.default_rng(3)
    counts, _ = expose(detector, rng, 10000.0, filter="V", exposure_s=1.0)
    net = counts - detector.bias_adu
    undusted = detector.response["V"] > 0.9999
    assert undusted.sum() > 20000
    assert np.mean(net[undusted]) == pytest.approx(10000 / 1.3, rel=1e-3)
    assert np.std(net[undusted]) == pytest.approx(77.2, rel=0.02)


def test_cosmic_rays_come_as_often_as_asked():
    rng = np.random.default_rng(4)
    image = np.zeros((200, 200))
    n_hit = add_cosmic_rays(image, rng, 100.0)
    assert n_hit == np.count_nonzero(image)
    # 100 +- 10 tracks of 1 to 6 pixels, of which some overlap.
    assert 150 < n_hit < 450
    assert add_cosmic_rays(image, rng, 0.0) == 0
