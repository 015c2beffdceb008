"""The tangent plane against astropy, and the least-squares refit."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wombat_dagster.domain import WcsSolution
from wombat_dagster.solvers.fitting import (
    agreement,
    centred,
    distortion_order,
    fit_tan,
    pair_nearest,
    refine,
)
from wombat_dagster.tangent import deproject, pixel_to_sky, project, sky_to_pixel

SOLUTION = WcsSolution(
    ra_deg=359.9,
    dec_deg=61.0,
    crpix_x=200.0,
    crpix_y=711.0,
    cd11=-5e-4,
    cd12=1e-4,
    cd21=1.1e-4,
    cd22=5.1e-4,
)
X, Y = np.array([0.0, 899.0, 450.0, 12.5]), np.array([0.0, 699.0, 350.0, 600.25])


def test_pixels_and_sky_agree_with_astropy():
    ra, dec = SOLUTION.to_wcs().all_pix2world(X, Y, 0)
    our_ra, our_dec = pixel_to_sky(SOLUTION, X, Y)
    np.testing.assert_allclose(our_ra, ra, atol=1e-10)
    np.testing.assert_allclose(our_dec, dec, atol=1e-10)
    np.testing.assert_allclose(sky_to_pixel(SOLUTION, ra, dec), [X, Y], atol=1e-6)


@given(st.floats(0, 359.99), st.floats(-89, 89), st.floats(-20, 20), st.floats(-20, 20))
def test_projection_survives_its_round_trip(ra0, dec0, xi, eta):
    ra, dec = deproject(np.array([xi]), np.array([eta]), ra0_deg=ra0, dec0_deg=dec0)
    back = project(ra, dec, ra0_deg=ra0, dec0_deg=dec0)
    np.testing.assert_allclose(np.ravel(back), [xi, eta], atol=1e-8)


def test_the_far_side_of_the_sky_is_not_projected():
    xi, _ = project(np.array([180.0]), np.array([0.0]), ra0_deg=0.0, dec0_deg=0.0)
    assert np.isnan(xi[0])


def test_moving_the_reference_point_moves_no_star():
    moved = centred(SOLUTION, width_px=900, height_px=700)
    assert (moved.crpix_x, moved.crpix_y) == (450.5, 350.5)
    ra, dec = pixel_to_sky(SOLUTION, X, Y)
    np.testing.assert_allclose(sky_to_pixel(moved, ra, dec), [X, Y], atol=0.01)


def test_a_perfect_match_gives_back_its_solution_and_outliers_are_clipped():
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0, 900, 60), rng.uniform(0, 700, 60)
    truth = replace(SOLUTION, crpix_x=450.5, crpix_y=350.5)  # a TAN about the image's centre
    ra, dec = pixel_to_sky(truth, x, y)
    x[:5] += 2.5
    start = WcsSolution(
        ra_deg=359.92, dec_deg=61.01, crpix_x=1, crpix_y=1, cd11=-5e-4, cd12=0, cd21=0, cd22=5e-4
    )
    fitted, residual_px = fit_tan(x, y, ra, dec, start=start, width_px=900, height_px=700)
    assert np.isnan(residual_px[:5]).all()
    assert np.nanmax(residual_px) < 1e-4
    corners = pixel_to_sky(truth, X, Y)
    np.testing.assert_allclose(sky_to_pixel(fitted, *corners), [X, Y], atol=1e-4)


@pytest.mark.parametrize("n_stars", [0, 1, 3])
def test_too_few_stars_are_not_fitted(n_stars):
    some = np.linspace(0, 100, n_stars)
    ra, dec = pixel_to_sky(SOLUTION, some, some**1.5)
    assert fit_tan(some, some, ra, dec, start=SOLUTION, width_px=900, height_px=700) is None


def test_stars_on_one_line_are_not_fitted():
    line = np.linspace(0, 600, 20)
    ra, dec = pixel_to_sky(SOLUTION, line, line)
    assert fit_tan(line, line, ra, dec, start=SOLUTION, width_px=900, height_px=700) is None


def test_a_solution_off_by_27_arcsec_finds_no_agreement_and_is_refined(sky):
    """The size of ASTAP's false solution (PLATE_SOLVING section 2)."""
    truth = sky.wcs(rotation_deg=5)
    stars = sky.detections(truth)
    size = {"width_px": 900, "height_px": 700}
    right = refine(_solution_of(truth), stars, sky.table, **size)
    wrong = _solution_of(truth, dec_error_deg=27 / 3600)
    assert agreement(right.solution, stars, sky.table, **size).n_matched == right.n_matched
    assert agreement(wrong, stars, sky.table, **size).n_matched < 0.3 * right.n_expected
    assert right.n_matched > 0.7 * right.n_expected


def _solution_of(wcs, *, dec_error_deg=0.0):
    (cd11, cd12), (cd21, cd22) = wcs.wcs.cd
    return WcsSolution(
        ra_deg=wcs.wcs.crval[0],
        dec_deg=wcs.wcs.crval[1] + dec_error_deg,
        crpix_x=wcs.wcs.crpix[0],
        crpix_y=wcs.wcs.crpix[1],
        cd11=cd11,
        cd12=cd12,
        cd21=cd21,
        cd22=cd22,
    )


@given(st.integers(0, 40), st.integers(0, 40), st.floats(0.5, 50), st.integers(0, 1000))
def test_pairs_are_those_that_every_distance_would_give(n_here, n_there, radius_px, seed):
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(0, 200, (2, n_here))
    x_other, y_other = rng.uniform(0, 200, (2, n_there))
    apart = np.hypot(np.subtract.outer(x, x_other), np.subtract.outer(y, y_other))
    wanted = [
        (i, j)
        for i, j in np.argwhere(apart <= radius_px)
        if apart[i].argmin() == j and apart[:, j].argmin() == i
    ]
    assert list(zip(*pair_nearest(x, y, x_other, y_other, radius_px), strict=True)) == wanted


# ----------------------------------------------------------------------------------- distortion

SIZE = {"width_px": 900, "height_px": 700}


def seen_through(sky, k1_px, *, seed=0, n_stars=400, **aim):
    """Return a rough solution, the detections, and where the truth puts sky places on the chip.

    The lens moves a star outwards by `k1_px` (r / half diagonal)³; the truth is astropy's TAN and
    that formula.
    """
    wcs = sky.wcs(**aim)
    reach = np.hypot(450, 350)

    def bent(x, y):
        u, v = x - 449.5, y - 349.5
        more = 1.0 + k1_px / reach * (np.hypot(u, v) / reach) ** 2
        return 449.5 + u * more, 349.5 + v * more

    straight = sky.detections(wcs, seed=seed, n_stars=n_stars, n_false=10, noise_px=0.1)
    x, y = bent(straight.x_px, straight.y_px)
    stars = replace(straight, x_px=x, y_px=y)
    return _solution_of(wcs), stars, lambda ra, dec: bent(*wcs.all_world2pix(ra, dec, 0))


def worst_px(solution, truth, *, margin_px=0.0):
    x, y = np.meshgrid(
        np.linspace(margin_px, 899 - margin_px, 13), np.linspace(margin_px, 699 - margin_px, 11)
    )
    ra, dec = pixel_to_sky(solution, x.ravel(), y.ravel())
    true_x, true_y = truth(ra, dec)
    return np.hypot(true_x - x.ravel(), true_y - y.ravel()).max()


@pytest.mark.parametrize("k1_px", [5.0, -5.0, 10.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_distortion_of_a_wide_lens_is_found(sky_at, k1_px, seed):
    sky = sky_at(seed, scale_arcsec_px=30.0, n_stars=8000)
    start, stars, truth = seen_through(sky, k1_px, seed=seed)
    fit = refine(start, stars, sky.table, **SIZE)
    assert fit.solution.sip.order == 3
    assert worst_px(fit.solution, truth) < 0.2
    flat = refine(start, stars, sky.table, find_distortion=False, **SIZE)
    assert flat.solution.sip is None
    assert worst_px(flat.solution, truth) > 0.9
    assert fit.rms_px < 0.8 * flat.rms_px


@pytest.mark.parametrize("seed", range(12))
def test_a_field_without_distortion_stays_tan(sky_at, seed):
    sky = sky_at(seed, n_stars=8000)
    start, stars, truth = seen_through(sky, 0.0, seed=seed, n_stars=200)
    fit = refine(start, stars, sky.table, **SIZE)
    assert fit.n_fitted > 100
    assert fit.solution.sip is None
    assert worst_px(fit.solution, truth) < 0.1


def test_few_stars_are_no_witness_of_a_distortion(sky_at):
    sky = sky_at(1, scale_arcsec_px=30.0, n_stars=8000)
    start, stars, _ = seen_through(sky, 5.0, n_stars=35)
    assert refine(start, stars, sky.table, **SIZE).solution.sip is None


def test_stars_in_the_middle_say_nothing_of_the_corners(sky_at):
    sky = sky_at(1, scale_arcsec_px=30.0, n_stars=9000)
    start, stars, _ = seen_through(sky, 60.0, n_stars=600)
    middle = np.hypot(stars.x_px - 449.5, stars.y_px - 349.5) < 200
    assert middle.sum() > 80
    names = ("x_px", "y_px", "flux_adu", "peak_adu", "fwhm_px", "axis_ratio", "snr")
    few = replace(stars, **{name: getattr(stars, name)[middle] for name in names})
    fit = refine(start, few, sky.table, **SIZE)
    assert fit.solution.sip is None


def test_a_known_distortion_is_kept_where_stars_are_too_few_to_find_it(sky_at):
    sky = sky_at(2, scale_arcsec_px=30.0, n_stars=8000)
    start, stars, truth = seen_through(sky, 8.0)
    known = refine(start, stars, sky.table, **SIZE).solution
    _, few, _ = seen_through(sky, 8.0, seed=5, n_stars=20)
    fit = refine(known, few, sky.table, **SIZE)
    assert fit.solution.sip == known.sip
    assert worst_px(fit.solution, truth) < 0.5


def shown_order(n_stars, k1_px, *, seed=0, within_px=np.inf, noise_px=0.02):
    """Return the order found from matched stars all over the frame, or near its middle."""
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(0, 899, 40 * n_stars), rng.uniform(0, 699, 40 * n_stars)
    near = np.flatnonzero(np.hypot(x - 449.5, y - 349.5) < within_px)[:n_stars]
    x, y = x[near], y[near]
    flat = WcsSolution(
        ra_deg=80.0, dec_deg=20.0, crpix_x=450.5, crpix_y=350.5,
        cd11=-1e-3, cd12=0.0, cd21=0.0, cd22=1e-3,
    )  # fmt: skip
    ra, dec = pixel_to_sky(flat, x, y)
    more = k1_px / 570.0 * (np.hypot(x - 449.5, y - 349.5) / 570.0) ** 2
    x, y = x + more * (x - 449.5), y + more * (y - 349.5)
    x, y = x + rng.normal(0, noise_px, len(x)), y + rng.normal(0, noise_px, len(y))
    return distortion_order(x, y, ra, dec, solution=flat, **SIZE)


def test_a_third_order_wants_sixty_stars():
    assert [shown_order(n, 8.0) for n in (25, 59, 60, 150)] == [1, 1, 3, 3]


def test_what_was_not_seen_in_the_corners_is_not_made_up_there():
    assert shown_order(150, 80.0, within_px=180.0) == 1
    assert shown_order(150, 80.0) == 3


def test_noise_is_no_distortion():
    """To their own fit thirty stars come 15 % nearer in 6 of 300 fields, by chance alone."""
    orders = [shown_order(30, 0.0, seed=seed, noise_px=0.5) for seed in range(300)]
    assert set(orders) == {1}
