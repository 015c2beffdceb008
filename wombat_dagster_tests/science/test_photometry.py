"""Aperture photometry on stars of known light. Outside truth: photutils, sep, numbers by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import erf

from wombat_dagster import domain
from wombat_dagster.domain import Flag, MaskBit
from wombat_dagster.science import photometry

APERTURE = domain.Aperture(radius_px=8.0, sky_inner_px=13.0, sky_outer_px=20.0)
SIGMA_PX = 2.0


def sky_with(stars, *, shape=(120, 140), sky_adu=100.0, sigma_px=(SIGMA_PX, SIGMA_PX)):
    """Gaussian stars (x, y, total ADU), each integrated over the pixels exactly."""
    image = np.full(shape, sky_adu)
    edges_x, edges_y = np.arange(shape[1] + 1) - 0.5, np.arange(shape[0] + 1) - 0.5
    for x, y, total in stars:
        in_x = np.diff(erf((edges_x - x) / (math.sqrt(2) * sigma_px[0]))) / 2
        in_y = np.diff(erf((edges_y - y) / (math.sqrt(2) * sigma_px[1]))) / 2
        image += total * np.outer(in_y, in_x)
    return image


def measure(image, x, y, *, mask=None, aperture=APERTURE, **changes):
    settings = {
        "gain_e_adu": 1.0,
        "read_noise_e": 0.0,
        "recentre_limit_px": 0.0,
    } | changes
    return photometry.measure_stars(image, mask, x, y, aperture=aperture, **settings)


# ------------------------------------------------------------------------------ exact sums


def test_sums_equal_photutils_and_sep():
    import sep
    from photutils.aperture import CircularAperture

    rng = np.random.default_rng(1)
    image = rng.normal(300.0, 30.0, (200, 200)).astype(np.float32)
    x, y = rng.uniform(25, 175, 40), rng.uniform(25, 175, 40)
    got = measure(image, x, y)
    sums = got.source_sky_adu + got.n_source_px * got.sky_adu_px
    apertures = CircularAperture(np.transpose([x, y]), r=8.0)
    theirs, _ = apertures.do_photometry(image.astype(float), method="exact")
    assert sums == pytest.approx(theirs, rel=1e-9)
    assert sums == pytest.approx(sep.sum_circle(image, x, y, 8.0, subpix=0)[0], rel=1e-9)


def test_a_star_gives_the_light_inside_the_circle():
    """A Gaussian holds 1 − exp(−r²/2σ²) of its light within r.

    The pixels blur it twice by 1/12 px²: once on the detector, once under the exact circle.
    """
    wide = domain.Aperture(radius_px=8.0, sky_inner_px=25.0, sky_outer_px=35.0)
    got = measure(sky_with([(70.3, 60.1, 50_000.0)]), [70.3], [60.1], aperture=wide)
    lit = 1 - math.exp(-64 / (2 * (SIGMA_PX**2 + 2 / 12)))
    assert got.source_sky_adu[0] == pytest.approx(50_000 * lit, rel=2e-6)
    assert got.sky_adu_px[0] == pytest.approx(100.0, abs=1e-6)
    assert got.n_source_px[0] == pytest.approx(math.pi * 64)
    assert got.mean_adu[0] == pytest.approx(got.source_sky_adu[0] / (math.pi * 64))
    assert got.snr[0] == pytest.approx(got.source_sky_adu[0] / got.source_error_adu[0])


# ------------------------------------------------------------------------------------- sky


def test_annulus_pixels_have_their_centres_between_the_radii():
    """r1 = 1, r2 = 2 about a pixel centre: distances 1, √2 and 2, four pixels each."""
    small = domain.Aperture(radius_px=0.9, sky_inner_px=1.0, sky_outer_px=2.0)
    got = measure(np.full((20, 20), 7.0), [10.0], [10.0], aperture=small)
    assert got.n_sky_px[0] == 12


# ------------------------------------------------------------------------------------ errors


def test_error_of_a_hundred_electrons():
    """S = 50 ADU at g = 2 is 100 e-; 4 px of 5 e- rms and no sky: 100 + 4 (25 + 0.083521·4)."""
    error = photometry.source_error(
        50.0, 0.0, n_source_px=4.0, n_sky_px=np.inf, gain_e_adu=2.0, read_noise_e=5.0
    )
    assert float(error) == pytest.approx(math.sqrt(100 + 4 * (25 + 0.083521 * 4)) / 2, rel=1e-14)


def test_sky_and_dark_count_with_the_annulus_noise():
    """n(1 + n/n_b) = 10·1.1, b·g + D = 30 + 6: 400 + 11·(36 + 0.083521)."""
    error = photometry.source_error(
        400.0,
        30.0,
        n_source_px=10.0,
        n_sky_px=100.0,
        gain_e_adu=None,
        read_noise_e=None,
        dark_e_px=6.0,
    )
    assert float(error) == pytest.approx(math.sqrt(400 + 11 * 36.083521), rel=1e-14)


def test_negative_light_and_sky_do_not_make_an_error_imaginary():
    error = photometry.source_error(
        -500.0, -3.0, n_source_px=4.0, n_sky_px=8.0, gain_e_adu=1.0, read_noise_e=1.0
    )
    assert float(error) == pytest.approx(math.sqrt(6 * 1.083521))


def test_stated_errors_cover_the_scatter():
    """200 noisy exposures of one star: the pulls have unit scatter within 3/√(2·200)."""
    rng = np.random.default_rng(5)
    truth = sky_with([(30.0, 30.0, 4000.0)], shape=(61, 61), sky_adu=50.0)
    aperture = domain.Aperture(radius_px=7.0, sky_inner_px=14.0, sky_outer_px=28.0)
    lit = 4000.0 * (1 - math.exp(-(7.0**2) / 8))
    pulls = []
    for _ in range(200):
        counts = rng.poisson(truth * 2.0) + rng.normal(0, 6.0, truth.shape)
        got = measure(
            np.rint(counts / 2.0), [30.0], [30.0], aperture=aperture, gain_e_adu=2.0,
            read_noise_e=6.0,
        )  # fmt: skip
        pulls.append((got.source_sky_adu[0] - lit) / got.source_error_adu[0])
    assert np.std(pulls) == pytest.approx(1.0, abs=0.15)
    assert abs(np.mean(pulls)) < 0.25


# --------------------------------------------------------------------------------- centroids


def test_the_aperture_follows_the_star_a_little():
    image = sky_with([(70.3, 60.6, 50_000.0), (30.0, 30.0, 3_000.0)])
    got = measure(image, [69.5, 30.8], [61.5, 29.3], recentre_limit_px=4.7)
    assert got.x_px == pytest.approx([70.3, 30.0], abs=0.01)
    assert got.y_px == pytest.approx([60.6, 30.0], abs=0.01)
    assert got.flags.tolist() == [0, 0]


def test_a_star_too_far_off_is_measured_where_it_was_predicted():
    got = measure(sky_with([(70.0, 60.0, 50_000.0)]), [74.0], [60.0], recentre_limit_px=2.0)
    assert (got.x_px[0], got.y_px[0]) == (74.0, 60.0)
    assert got.flags[0] & Flag.OFF_CENTRE


def test_an_empty_place_is_measured_where_it_was_predicted():
    got = measure(np.full((120, 140), 100.0), [74.2], [60.1], recentre_limit_px=2.0)
    assert (got.x_px[0], got.y_px[0]) == (74.2, 60.1)
    assert got.flags[0] == Flag.OFF_CENTRE | Flag.LOW_SNR
    assert got.source_sky_adu[0] == pytest.approx(0.0, abs=1e-8)


def test_a_neighbour_does_not_pull_the_centroid():
    image = sky_with([(70.0, 60.0, 50_000.0), (79.0, 60.0, 20_000.0)])
    got = measure(image, [70.4], [60.0], recentre_limit_px=4.7)
    assert got.x_px[0] == pytest.approx(70.0, abs=0.03)  # the centre of gravity is 0.4 px off


def test_without_a_limit_the_prediction_is_kept():
    got = measure(sky_with([(70.3, 60.6, 50_000.0)]), [70.0], [60.0])
    assert (got.x_px[0], got.y_px[0], got.flags[0]) == (70.0, 60.0, 0)


def test_places_measured_carry_their_sky_position():
    field = domain.WcsSolution(
        ra_deg=30.0, dec_deg=46.0, crpix_x=71.0, crpix_y=61.0,
        cd11=-4e-4, cd12=0.0, cd21=0.0, cd22=4e-4,
    )  # fmt: skip
    image = sky_with([(70.0, 60.0, 50_000.0)])
    got = measure(image, [70.0], [60.0], solution=field)
    assert (got.ra_deg[0], got.dec_deg[0]) == (pytest.approx(30.0), pytest.approx(46.0))
    assert np.isnan(measure(image, [70.0], [60.0]).ra_deg[0])


def test_the_centre_of_gravity_by_hand():
    """10 ADU in one pixel and 30 in the next along x, 1 px apart in y: (0.75, 0.75) of the way."""
    image = np.full((60, 60), 100.0)
    image[30, 30], image[31, 31] = 110.0, 130.0
    got = measure(image, [30.0], [30.0], recentre_limit_px=2.0, centroid="howell")
    assert (got.x_px[0], got.y_px[0]) == (pytest.approx(30.75), pytest.approx(30.75))


def test_the_centre_of_gravity_follows_a_neighbour():
    """Which the windowed one does not: 20,000 of 70,000 ADU at 7 px are 2 px."""
    image = sky_with([(70.0, 60.0, 50_000.0), (77.0, 60.0, 20_000.0)])
    wide = domain.Aperture(radius_px=14.0, sky_inner_px=20.0, sky_outer_px=30.0)
    near = {"aperture": wide, "recentre_limit_px": 4.0, "fwhm_px": 4.7}
    gravity = measure(image, [70.0], [60.0], centroid="howell", **near)
    window = measure(image, [70.0], [60.0], centroid="windowed", **near)
    assert gravity.x_px[0] == pytest.approx(72.0, abs=0.02)
    assert abs(window.x_px[0] - 70.0) < 0.2


@pytest.mark.parametrize("kind", ["windowed", "howell"])
def test_a_bad_pixel_in_the_core_does_not_move_the_centroid(kind):
    """Left out, the pixel beside the centre of a star of sigma 2 px would move it by 0.2 px."""
    image = sky_with([(70.3, 60.1, 50_000.0)])
    mask = np.zeros(image.shape, np.uint8)
    image[60, 71], mask[60, 71] = 9_000.0, MaskBit.BAD
    got = measure(image, [70.0], [60.0], mask=mask, recentre_limit_px=3.0, centroid=kind)
    assert (got.x_px[0], got.y_px[0]) == (
        pytest.approx(70.3, abs=0.02),
        pytest.approx(60.1, abs=0.02),
    )


def test_where_no_centroid_is_wanted_the_prediction_is_kept():
    image = sky_with([(70.3, 60.6, 50_000.0)])
    got = measure(image, [70.0], [60.0], recentre_limit_px=4.0, centroid="off")
    assert (got.x_px[0], got.y_px[0], got.flags[0]) == (70.0, 60.0, 0)


def test_a_centroid_does_not_depend_on_the_stars_beside_it():
    rng = np.random.default_rng(3)
    image = rng.normal(300.0, 12.0, (200, 200))
    x, y = rng.uniform(30, 170, (2, 30))
    together = measure(image, x, y, recentre_limit_px=4.7)
    alone = measure(image, x[:1], y[:1], recentre_limit_px=4.7)
    assert (alone.x_px[0], alone.y_px[0]) == (together.x_px[0], together.y_px[0])


# ----------------------------------------------------------------------------- several radii


def crowd(n_stars, *, seed, shape=(400, 400)):
    """A noisy frame of stars, some over the edge, with hot, bad and saturated pixels."""
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(-4, shape[1] + 4, n_stars), rng.uniform(-4, shape[0] + 4, n_stars)
    light = 10 ** rng.uniform(3, 5, n_stars)
    image = sky_with(list(zip(x, y, light, strict=True)), shape=shape)
    image += rng.normal(0.0, 5.0, shape)
    mask = np.zeros(shape, np.uint8)
    mask[tuple(rng.integers(0, shape[0], (2, 500)))] = rng.choice([1, 2, 4, 8], 500)
    image[tuple(rng.integers(0, shape[0], (2, 50)))] = np.nan
    return image.astype(np.float32), mask, x + rng.normal(0, 0.5, n_stars), y


def sums(image, mask, x, y, radii_px, **changes):
    settings = {
        "sky_inner_px": 13.0,
        "sky_outer_px": 20.0,
        "gain_e_adu": 1.0,
        "read_noise_e": 0.0,
        "recentre_limit_px": 3.0,
    } | changes
    return photometry.sum_stars(image, mask, x, y, radii_px=np.array(radii_px), **settings)


@pytest.mark.parametrize("kind", ["windowed", "howell", "off"])
def test_the_sum_at_one_radius_is_that_of_the_full_measurement(kind):
    """300 stars: more than one block of them."""
    image, mask, x, y = crowd(300, seed=1)
    full = measure(image, x, y, mask=mask, recentre_limit_px=3.0, centroid=kind)
    short = sums(image, mask, x, y, [APERTURE.radius_px], centroid=kind)
    assert (full.flags & Flag.BAD_PIXEL).any()
    assert (full.flags & Flag.UNMEASURED).any()
    assert np.array_equal(short.flags[:, 0], full.flags)
    for name in ("x_px", "y_px"):
        assert np.array_equal(getattr(short, name), getattr(full, name))
    for name in ("source_sky_adu", "source_error_adu", "snr"):
        np.testing.assert_allclose(getattr(short, name)[:, 0], getattr(full, name), rtol=1e-9)
    measured = (full.flags & Flag.UNMEASURED) == 0
    assert np.array_equal(short.sky_adu_px[measured], full.sky_adu_px[measured])
    assert np.array_equal(short.n_sky_px[measured], full.n_sky_px[measured])


def test_each_radius_has_its_own_sum_and_flags():
    """That of 9 px holds the saturated pixel and leaves the frame, that of 5 does neither."""
    image = sky_with([(70.0, 60.0, 50_000.0), (7.0, 60.0, 50_000.0)])
    mask = np.zeros(image.shape, np.uint8)
    mask[60, 77] = MaskBit.SATURATED
    got = sums(image, mask, [70.0, 7.0], [60.0, 60.0], [9.0, 5.0], recentre_limit_px=0.0)
    edge = Flag.NEAR_EDGE
    assert got.flags.tolist() == [[Flag.SATURATED, 0], [edge | Flag.UNMEASURED, edge]]
    for index, radius in enumerate((9.0, 5.0)):
        lit = 1 - math.exp(-(radius**2) / (2 * (SIGMA_PX**2 + 2 / 12)))
        assert got.source_sky_adu[0, index] == pytest.approx(50_000 * lit, rel=1e-3)
    assert np.isnan(got.source_sky_adu[1, 0])
    assert got.source_sky_adu[1, 1] == pytest.approx(got.source_sky_adu[0, 1], rel=1e-3)
    assert got.source_sky_adu.shape == got.snr.shape == (2, 2)
    assert got.sky_adu_px.shape == got.n_sky_px.shape == (2,)


def test_no_stars_have_no_sums():
    assert sums(np.full((60, 60), 1.0), None, [], [], [2.0, 3.0]).source_sky_adu.shape == (0, 2)


# ------------------------------------------------------------------------------------- shapes


def test_widths_of_a_round_star_are_its_fwhm():
    """A pixel adds 1/12 to a Gaussian's variance; the circle at 4 sigma cuts 0.3 % of the width."""
    got = measure(sky_with([(70.3, 60.6, 50_000.0)]), [70.3], [60.6])
    fwhm = 2.354820 * math.sqrt(SIGMA_PX**2 + 1 / 12)
    assert got.width_px[0] == pytest.approx(fwhm, rel=0.005)
    assert got.fwhm_px[0] == pytest.approx(fwhm, rel=0.005)
    assert got.roundness[0] == pytest.approx(1.0, abs=1e-4)


def test_a_star_hardly_wider_than_a_pixel_has_a_fwhm_too():
    """sigma 0.45 and the pixel's 1/12: of the peak the four neighbours have 15 %, none has 25 %."""
    image = sky_with([(70.0, 60.0, 50_000.0)], sigma_px=(0.45, 0.45))
    got = measure(image, [70.0], [60.0])
    fwhm = 2.354820 * math.sqrt(0.45**2 + 1 / 12)
    assert got.fwhm_px[0] == pytest.approx(fwhm, rel=0.1)


def test_a_star_with_a_hollow_core_has_a_fwhm_too():
    """Like HAT-P-32 on frame 38 of 2017-12-19: the highest pixels above a quarter lie outside."""
    core = np.array([
        [351, 356, 358, 361, 365, 365, 361, 357, 355],
        [354, 358, 369, 405, 463, 497, 399, 362, 358],
        [356, 365, 487, 1033, 1156, 1454, 579, 381, 365],
        [357, 364, 540, 1273, 1090, 963, 554, 380, 365],
        [355, 359, 388, 467, 457, 419, 384, 361, 357],
    ])  # fmt: skip
    image = np.full((60, 60), 354.0)
    image[28:33, 26:35] = core
    small = domain.Aperture(radius_px=3.4, sky_inner_px=8.4, sky_outer_px=13.5)
    assert 2.0 < measure(image, [30.12], [30.43], aperture=small).fwhm_px[0] < 6.0


def test_an_elongated_star_has_its_angle_and_roundness():
    """sigma² 9 and 4: roundness 1 − (5/13)² by hand, with the pixels 1 − (5/13.17)²; along y."""
    image = sky_with([(70.0, 60.0, 50_000.0)], sigma_px=(2.0, 3.0))
    wide = domain.Aperture(radius_px=14.0, sky_inner_px=20.0, sky_outer_px=30.0)
    got = measure(image, [70.0], [60.0], aperture=wide)
    assert got.roundness[0] == pytest.approx(1 - (5 / 13.1667) ** 2, abs=2e-3)
    assert got.angle_deg[0] == pytest.approx(90.0, abs=0.01)
    assert got.y_width_px[0] / got.x_width_px[0] == pytest.approx(1.492, abs=0.005)
    assert got.width_px[0] == pytest.approx((got.x_width_px[0] + got.y_width_px[0]) / 2)


def test_roundness_as_a_real_astroimagej_table_has_it():
    """Widths 27.879440644, 24.945844916 at 1.1573485 deg: 0.987719637 (LHS 352, first row).

    m_xy follows from the angle: tan 2θ = 2 m_xy / (m_xx − m_yy).
    """
    m_xx, m_yy = 27.879440644443406**2, 24.945844915582807**2
    two_m_xy = math.tan(2 * math.radians(1.1573485061621716)) * (m_xx - m_yy)
    roundness = 1 - ((m_xx - m_yy) ** 2 + two_m_xy**2) / (m_xx + m_yy) ** 2
    assert roundness == pytest.approx(0.987719637372611, abs=1e-12)


def test_peak_is_the_highest_pixel_with_its_sky():
    image = sky_with([(70.0, 60.0, 50_000.0)])
    image[60, 78] = 9e9  # 8 px off: half of it inside
    image[60, 79] = 9e10  # beyond
    assert measure(image, [70.0], [60.0]).peak_adu[0] == 9e9


def test_peak_leaves_out_a_pixel_of_which_less_than_a_hundredth_is_inside():
    """Radius 8.505: of the pixel 9 px off a sliver 0.005 px high, 0.3 % of it, is inside."""
    image = sky_with([(70.0, 60.0, 50_000.0)])
    image[60, 79] = 9e9
    small, large = (
        domain.Aperture(radius_px=r, sky_inner_px=13.0, sky_outer_px=20.0) for r in (8.505, 8.53)
    )
    assert measure(image, [70.0], [60.0], aperture=small).peak_adu[0] < 9e9
    assert measure(image, [70.0], [60.0], aperture=large).peak_adu[0] == 9e9


# --------------------------------------------------------------------------- masks and edges


def test_saturated_and_non_linear_pixels_flag_and_still_count():
    image = sky_with([(70.0, 60.0, 50_000.0), (30.0, 30.0, 50_000.0), (30.0, 90.0, 5.0e4)])
    mask = np.zeros(image.shape, np.uint8)
    mask[60, 70] = MaskBit.SATURATED | MaskBit.NON_LINEAR
    mask[31, 30] = MaskBit.NON_LINEAR
    mask[90, 45] = MaskBit.SATURATED  # in the annulus of the third star only
    x, y = [70.0, 30.0, 30.0], [60.0, 30.0, 90.0]
    got, clean = measure(image, x, y, mask=mask), measure(image, x, y)
    assert got.flags.tolist() == [Flag.SATURATED | Flag.NON_LINEAR, Flag.NON_LINEAR, 0]
    assert got.source_sky_adu == pytest.approx(clean.source_sky_adu, rel=1e-6)


def test_a_hot_pixel_in_the_mask_is_mended_and_flagged():
    image = sky_with([(70.0, 60.0, 50_000.0)])
    clean = measure(image, [70.0], [60.0]).source_sky_adu[0]
    mask = np.zeros(image.shape, bool)
    image[63, 72], mask[63, 72] = 60_000.0, True
    got = measure(image, [70.0], [60.0], mask=mask, recentre_limit_px=2.0)
    assert got.flags[0] == Flag.BAD_PIXEL
    assert got.source_sky_adu[0] == pytest.approx(clean, rel=0.005)
    assert got.peak_adu[0] < 3000


def test_a_nan_pixel_counts_as_bad():
    image = sky_with([(70.0, 60.0, 50_000.0)])
    image[63, 72] = np.nan
    got = measure(image, [70.0], [60.0], recentre_limit_px=2.0)
    assert got.flags[0] == Flag.BAD_PIXEL
    assert np.isfinite(got.source_sky_adu[0])


@pytest.mark.parametrize("sigma_px", [(1.0, 1.0), (1.5, 1.5), (1.2, 2.4)])
@pytest.mark.parametrize("at", [(0, 0), (1, 0), (-1, 1)])
def test_a_bad_pixel_in_the_core_costs_the_star_little(sigma_px, at):
    """The mean of the neighbours would cost a star of sigma 1 px 7 % of its light."""
    aperture = domain.Aperture(radius_px=5.0, sky_inner_px=12.0, sky_outer_px=20.0)
    image = sky_with([(70.2, 60.3, 50_000.0)], sigma_px=sigma_px)
    whole = measure(image, [70.2], [60.3], aperture=aperture).source_sky_adu[0]
    mask = np.zeros(image.shape, np.uint8)
    where = (60 + at[1], 70 + at[0])
    image[where], mask[where] = 9_000.0, MaskBit.BAD
    mended = measure(image, [70.2], [60.3], mask=mask, aperture=aperture).source_sky_adu[0]
    assert mended == pytest.approx(whole, rel=0.01)


def test_bad_pixels_of_each_aperture_are_counted():
    """Two in the first aperture and one outside it; none in the second; half a one in the third."""
    image = sky_with([(70.0, 60.0, 50_000.0), (30.0, 30.0, 50_000.0), (30.0, 90.0, 5.0e4)])
    mask = np.zeros(image.shape, np.uint8)
    mask[60, 70], mask[61, 70] = MaskBit.BAD, MaskBit.EDGE
    mask[60, 79] = MaskBit.BAD  # 9 px off, of radius 8
    mask[30, 31] = MaskBit.SATURATED  # flagged, and counts
    mask[90, 38] = MaskBit.BAD  # half of it within 8 px
    got = measure(image, [70.0, 30.0, 30.0, 3.0], [60.0, 30.0, 90.0, 60.0], mask=mask)
    assert got.n_bad_px[:3].tolist() == [2.0, 0.0, 1.0]
    assert np.isnan(got.n_bad_px[3])  # the aperture leaves the frame: not known
    assert ((got.flags & Flag.BAD_PIXEL) != 0).tolist() == [True, False, True, False]


def test_a_star_that_is_not_measured_still_says_how_many_of_its_pixels_are_bad():
    image = sky_with([(70.0, 60.0, 50_000.0)])
    mask = np.zeros(image.shape, bool)
    mask[58:63, 68:73] = True
    got = measure(image, [70.0], [60.0], mask=mask)
    assert got.flags[0] & Flag.UNMEASURED
    assert got.n_bad_px[0] == 25.0


def test_more_than_a_tenth_masked_is_not_measured():
    """Three rows are a segment 2.5 px high: 20.06 of 201.06 px, 9.98 %; a pixel more is 10.5 %."""
    image = sky_with([(70.0, 60.0, 50_000.0)])
    mask = np.zeros(image.shape, np.uint8)
    mask[52:55, :] = 1
    assert np.isfinite(measure(image, [70.0], [60.0], mask=mask).source_sky_adu[0])
    mask[55, 70] = 1
    got = measure(image, [70.0], [60.0], mask=mask)
    assert got.flags[0] & Flag.UNMEASURED
    for name in ("source_sky_adu", "source_error_adu", "snr", "peak_adu", "fwhm_px"):
        assert np.isnan(getattr(got, name)[0])


def test_masked_pixels_do_not_reach_the_sky():
    image = np.full((120, 140), 100.0)
    image[::2] += 10.0
    image[60, 85:] = 113.0  # a bright row crossing the annulus, within 2 sigma: not clipped
    mask = np.zeros(image.shape, np.uint8)
    mask[60, 85:] = 1
    rest = image.copy()
    rest[60, 85:] = np.nan
    got, without = measure(image, [70.0], [60.0], mask=mask), measure(rest, [70.0], [60.0])
    assert got.sky_adu_px[0] == without.sky_adu_px[0]
    assert got.n_sky_px[0] == without.n_sky_px[0]
    unmasked = measure(image, [70.0], [60.0])
    assert got.sky_adu_px[0] < unmasked.sky_adu_px[0] - 0.05
    assert got.n_sky_px[0] < unmasked.n_sky_px[0]


def test_stars_at_and_over_the_edge():
    image = sky_with([(70.0, 60.0, 50_000.0), (12.0, 20.0, 50_000.0), (3.0, 60.0, 50_000.0)])
    got = measure(
        image,
        [70.0, 12.0, 3.0, -400.0, np.nan],
        [60.0, 20.0, 60.0, 60.0, 60.0],
        recentre_limit_px=2.0,
    )
    assert got.flags.tolist() == [0, Flag.NEAR_EDGE] + [Flag.NEAR_EDGE | Flag.UNMEASURED] * 3
    assert np.isfinite(got.source_sky_adu).tolist() == [True, True, False, False, False]
    assert got.source_sky_adu[1] == pytest.approx(got.source_sky_adu[0], rel=1e-3)


def test_no_stars_is_an_empty_answer():
    assert measure(np.full((60, 60), 1.0), [], []).source_sky_adu.shape == (0,)


# ------------------------------------------------------------------------- relative fluxes


def night(source, error):
    nothing = np.zeros(np.shape(source))
    columns = dict.fromkeys(domain.StarMeasurements.__slots__, nothing)
    columns |= {"source_sky_adu": np.asarray(source), "source_error_adu": np.asarray(error)}
    return domain.StarMeasurements(**columns)


def stars(*roles_and_mags):
    return [
        domain.ApertureStar(
            role=role, name=role, auid=None, ra_deg=0.0, dec_deg=0.0,
            catalogue_mag=mag, catalogue_error_mag=None if mag is None else 0.02,
        )
        for role, mag in roles_and_mags
    ]  # fmt: skip


def test_relative_fluxes_by_hand():
    """S = 100 50 300 100, σ = 3 4 12 5; ΣC = 400 ± 13; rel T1 = .25, C3 = 300/100."""
    got = photometry.relative_fluxes(
        night([[100.0, 50.0, 300.0, 100.0]], [[3.0, 4.0, 12.0, 5.0]]),
        stars(("T1", None), ("T2", 12.0), ("C3", 10.0), ("C4", 11.0)),
    )
    assert got.rel_flux[0].tolist() == [0.25, 0.125, 3.0, 1 / 3]
    assert got.tot_c_adu.tolist() == [400.0]
    assert got.tot_c_err_adu.tolist() == [13.0]
    t1_error = 0.25 * math.sqrt(9 / 100**2 + 169 / 400**2)
    c3_error = 3.0 * math.sqrt(144 / 300**2 + 25 / 100**2)
    assert got.rel_flux_err[0, [0, 2]] == pytest.approx([t1_error, c3_error], rel=1e-14)
    assert got.rel_flux_snr[0, 0] == pytest.approx(0.25 / t1_error)


def test_source_magnitudes_by_hand():
    """Two comps of mag 10 make 9.247425 together; a star with half their light is 0.752575 fainter.

    T stars get the magnitude of the ensemble, T2 as well; a comp its catalogue value.
    """
    mag, error = photometry.source_magnitudes(
        night([[100.0, 200.0, 100.0, 100.0]], [[3.0, 4.0, 3.0, 4.0]]),
        stars(("T1", None), ("T2", 12.0), ("C3", 10.0), ("C4", 10.0)),
    )
    assert mag[0] == pytest.approx([10.0, 9.247425010840047, 10.0, 10.0], rel=1e-12)
    assert error[0, 0] == pytest.approx(2.5 * math.log10(1 + math.sqrt(9e-4 + 25 / 200**2)))
    assert error[0, 2] == 0.02


def test_a_missing_comp_leaves_no_relative_flux_rather_than_a_step():
    got = photometry.relative_fluxes(
        night([[100.0, 300.0, np.nan], [100.0, 300.0, 100.0]], np.ones((2, 3))),
        stars(("T1", None), ("C2", 10.0), ("C3", 11.0)),
    )
    assert np.isnan(got.rel_flux[0, 0])
    assert got.rel_flux[1, 0] == 0.25


def test_the_only_comp_has_no_flux_relative_to_others():
    got = photometry.relative_fluxes(
        night([[100.0, 300.0]], np.ones((1, 2))), stars(("T1", None), ("C2", 10.0))
    )
    assert got.rel_flux[0, 0] == pytest.approx(1 / 3)
    assert np.isnan(got.rel_flux[0, 1])


def test_a_star_without_light_has_no_magnitude():
    got = photometry.relative_fluxes(
        night([[-5.0, 300.0]], np.ones((1, 2))), stars(("T1", None), ("C2", 10.0))
    )
    assert np.isnan(got.source_amag[0, 0])
    assert np.isnan(got.source_amag_err[0, 0])
    assert got.rel_flux_err[0, 0] > 0


@settings(deadline=None)
@given(st.floats(0.01, 100.0))
def test_magnitudes_shift_with_the_flux_scale(scale):
    shift = photometry.instrumental_mag(1000.0 * scale, 30.0) - photometry.instrumental_mag(
        1000.0, 30.0
    )
    assert float(shift) == pytest.approx(-2.5 * math.log10(scale), abs=1e-12)


def test_instrumental_magnitude_is_per_second():
    """1000 ADU in 10 s: -2.5 log10 100 = -5; 1 % error is 0.010857 mag; no light, no magnitude."""
    assert float(photometry.instrumental_mag(1000.0, 10.0)) == -5.0
    assert float(photometry.instrumental_mag_error(1000.0, 10.0)) == pytest.approx(0.0108573620)
    assert np.isnan(photometry.instrumental_mag(-1.0, 10.0))
