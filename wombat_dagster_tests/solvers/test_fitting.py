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
    fit_tan,
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
