"""Sky and pixels with a lens that distorts, against astropy's own reading of the same cards."""

from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS
from hypothesis import given, settings
from hypothesis import strategies as st

from wombat_dagster.domain import FrameSolution, Sip, SolveStatus, WcsSolution, sip_powers
from wombat_dagster.science import astrometry
from wombat_dagster.solvers.fitting import fit_tan
from wombat_dagster.store.frames import replace_wcs
from wombat_dagster.store.tables import dump_json, load_json
from wombat_dagster.tangent import pixel_to_sky, sky_to_pixel

WIDTH_PX, HEIGHT_PX = 1500, 1000
REACH_PX = 0.5 * float(np.hypot(WIDTH_PX, HEIGHT_PX))


def lens(a, b, *, scale_arcsec=10.0, angle_deg=30.0, parity=-1):
    """Return a solution with polynomials of order 3: `a`, `b` in pixels at the frame's corner."""
    scale, angle = scale_arcsec / 3600.0, np.radians(angle_deg)
    size = [REACH_PX ** -(p + q) for p, q in sip_powers(2, 3)]
    inverse = (0.0,) * len(sip_powers(0, 2))
    return WcsSolution(
        ra_deg=359.5,
        dec_deg=-62.0,
        crpix_x=0.5 * (WIDTH_PX + 1),
        crpix_y=0.5 * (HEIGHT_PX + 1),
        cd11=parity * scale * np.cos(angle),
        cd12=scale * np.sin(angle),
        cd21=-parity * scale * np.sin(angle),
        cd22=scale * np.cos(angle),
        sip=Sip(
            order=3,
            a=tuple(np.multiply(a, size).tolist()),
            b=tuple(np.multiply(b, size).tolist()),
            inverse_order=2,
            ap=inverse,
            bp=inverse,
            reach_px=REACH_PX,
        ),
    )


BARREL = lens([0, 0, 0, -5, 0, -5, 0], [0, 0, 0, 0, -5, 0, -5])
"""k1 r³ of 5 px in the corners."""
CROOKED = lens([3, -1, 2, 4, 1, -2, 0.5], [-2, 0.3, 1, 0, 2, 2, -4])


def pixels():
    x, y = np.meshgrid(np.linspace(-0.5, WIDTH_PX - 0.5, 13), np.linspace(-0.5, HEIGHT_PX - 0.5, 9))
    return x.ravel(), y.ravel()


@pytest.mark.parametrize("field", [BARREL, CROOKED])
@pytest.mark.parametrize("parity", [-1, 1])
def test_a_distorted_frame_agrees_with_astropy_both_ways(field, parity):
    x, y = pixels()
    wcs = field.to_wcs()
    assert list(wcs.wcs.ctype) == ["RA---TAN-SIP", "DEC--TAN-SIP"]
    ra, dec = pixel_to_sky(field, x, y)
    true_ra, true_dec = wcs.all_pix2world(x, y, 0)
    assert astrometry.separation_deg(ra, dec, true_ra, true_dec).max() * 3600 < 1e-6
    back_x, back_y = sky_to_pixel(field, true_ra, true_dec)
    assert np.hypot(back_x - x, back_y - y).max() < 1e-5
    straight_x, straight_y = sky_to_pixel(replace(field, sip=None), true_ra, true_dec)
    assert np.hypot(straight_x - x, straight_y - y).max() > 4.0


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-3, 3), min_size=14, max_size=14), st.floats(0, 1), st.floats(0, 1))
def test_pixel_sky_pixel_is_the_same_pixel_for_any_lens(coefficients, right, up):
    field = lens(coefficients[:7], coefficients[7:])
    x, y = np.array([right * (WIDTH_PX - 1)]), np.array([up * (HEIGHT_PX - 1)])
    back = sky_to_pixel(field, *pixel_to_sky(field, x, y))
    np.testing.assert_allclose(np.ravel(back), [x[0], y[0]], atol=1e-4)


def test_no_star_from_far_away_is_folded_into_the_frame():
    """A cubic turns round somewhere: 12 frames away it would bring stars back."""
    rng = np.random.default_rng(1)
    distance, angle = rng.uniform(1.3, 20, 2000) * REACH_PX, rng.uniform(0, 2 * np.pi, 2000)
    straight = replace(BARREL, sip=None)
    ra, dec = pixel_to_sky(
        straight,
        straight.crpix_x - 1 + distance * np.cos(angle),
        straight.crpix_y - 1 + distance * np.sin(angle),
    )
    for field in (BARREL, CROOKED):
        x, y = sky_to_pixel(field, ra, dec)
        r = np.hypot(x + 1 - field.crpix_x, y + 1 - field.crpix_y)
        assert np.abs(r - distance).max() < 15


def test_a_single_place_and_the_far_side_of_the_sky_are_no_trouble():
    x, y = astrometry.project(BARREL, 359.5, -62.0)
    assert (float(x), float(y)) == pytest.approx((0.5 * (WIDTH_PX - 1), 0.5 * (HEIGHT_PX - 1)))
    assert np.isnan(astrometry.project(BARREL, 179.5, 62.0)[0])


def test_corners_and_chart_know_of_the_distortion():
    straight = replace(BARREL, sip=None)
    corners = astrometry.frame_corners(BARREL, WIDTH_PX, HEIGHT_PX)
    without = astrometry.frame_corners(straight, WIDTH_PX, HEIGHT_PX)
    off_px = astrometry.separation_deg(*corners, *without) * 3600 / 10.0
    assert off_px == pytest.approx(5.0, rel=0.05)


def test_the_inverse_polynomials_serve_programs_that_do_not_iterate():
    """AP and BP as the cards of a fit have them, behind astropy's linear part."""
    x, y = pixels()
    fitted, _ = fit_tan(
        x, y, *pixel_to_sky(BARREL, x, y),
        start=BARREL, width_px=WIDTH_PX, height_px=HEIGHT_PX, order=3,
    )  # fmt: skip
    cards = fitted.header_cards()
    straight_x, straight_y = fitted.to_wcs().wcs_world2pix(*pixel_to_sky(BARREL, x, y), 1)
    u, v = straight_x - cards["CRPIX1"], straight_y - cards["CRPIX2"]
    back = [
        axis + sum(cards.get(f"{name}_{p}_{q}", 0.0) * u**p * v**q for p, q in sip_powers(0, 5))
        for name, axis in (("AP", straight_x), ("BP", straight_y))
    ]
    assert np.hypot(straight_x - 1 - x, straight_y - 1 - y).max() > 4.9
    assert np.hypot(back[0] - 1 - x, back[1] - 1 - y).max() < 0.01


def test_a_distortion_survives_its_storage():
    frame = FrameSolution(file="x.fits", status=SolveStatus.SOLVED, solution=CROOKED)
    assert load_json(FrameSolution, dump_json(frame)) == frame


def test_a_solution_stored_before_there_was_distortion_can_be_read():
    plain = dump_json(replace(BARREL, sip=None))
    old = plain.replace(', "sip": null', "")
    assert "sip" not in old
    assert load_json(WcsSolution, old).sip is None


def test_the_cards_of_a_distortion_reach_the_file_and_leave_it_again(tmp_path):
    path = tmp_path / "frame.fits"
    fits.PrimaryHDU(np.zeros((4, 5), np.float32)).writeto(path)
    replace_wcs(path, CROOKED.header_cards())
    x, y = pixels()
    truth = WCS(fits.getheader(path)).all_pix2world(x, y, 0)
    off_deg = astrometry.separation_deg(*pixel_to_sky(CROOKED, x, y), *truth)
    assert off_deg.max() * 3600 < 1e-6
    replace_wcs(path, replace(CROOKED, sip=None).header_cards())
    header = fits.getheader(path)
    assert header["CTYPE1"] == "RA---TAN"
    assert not [card for card in header if card.startswith(("A_", "B_", "AP_", "BP_"))]
