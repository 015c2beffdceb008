"""Positions on the sky and on the frame. Outside truth: astropy's WCS and its proper motions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wombat_dagster import domain
from wombat_dagster.science import astrometry


def solution(ra_deg=30.0, dec_deg=46.0, angle_deg=20.0, scale_arcsec=1.5, parity=-1):
    scale, angle = scale_arcsec / 3600.0, np.radians(angle_deg)
    return domain.WcsSolution(
        ra_deg=ra_deg,
        dec_deg=dec_deg,
        crpix_x=512.5,
        crpix_y=400.25,
        cd11=parity * scale * np.cos(angle),
        cd12=scale * np.sin(angle),
        cd21=-parity * scale * np.sin(angle),
        cd22=scale * np.cos(angle),
    )


@pytest.mark.parametrize("dec_deg", [-89.9, -30.0, 0.0, 46.0, 89.95])
@pytest.mark.parametrize("parity", [-1, 1])
def test_projection_agrees_with_astropy(dec_deg, parity):
    field = solution(ra_deg=359.99, dec_deg=dec_deg, parity=parity)
    x, y = np.meshgrid(np.linspace(-50, 1100, 9), np.linspace(-50, 900, 7))
    ra, dec = astrometry.sky(field, x, y)
    true_ra, true_dec = field.to_wcs().all_pix2world(x, y, 0)
    assert astrometry.separation_deg(ra, dec, true_ra, true_dec).max() * 3600 < 1e-6
    back_x, back_y = astrometry.project(field, true_ra, true_dec)
    assert np.hypot(back_x - x, back_y - y).max() < 1e-6


@settings(deadline=None)
@given(st.floats(0, 359.99), st.floats(-89, 89), st.floats(-180, 180))
def test_sky_and_back_is_the_same_pixel(ra_deg, dec_deg, angle_deg):
    field = solution(ra_deg=ra_deg, dec_deg=dec_deg, angle_deg=angle_deg)
    x, y = astrometry.project(field, *astrometry.sky(field, [3.0, 1000.0], [700.0, 5.0]))
    assert x == pytest.approx([3.0, 1000.0], abs=1e-6)
    assert y == pytest.approx([700.0, 5.0], abs=1e-6)


def test_the_other_side_of_the_sky_has_no_pixel():
    x, _ = astrometry.project(solution(ra_deg=10.0, dec_deg=0.0), [190.0, 10.0], [0.0, 0.0])
    assert np.isnan(x[0])
    assert np.isfinite(x[1])


def test_the_frame_ends_half_a_pixel_beyond_the_last_centre():
    inside = astrometry.inside_frame(
        [-0.6, -0.5, 99.5, 99.6, 50.0, np.nan], [5, 5, 5, 5, 5, 5], 100, 10
    )
    assert inside.tolist() == [False, True, True, False, True, False]
    assert not astrometry.inside_frame(5.0, 5.0, 100, 10, margin_px=6.0)


def test_chart_radius_is_the_farthest_corner_of_the_night():
    """100x100 px of 60": corners 50√2' from the centre by hand; 40' further for the moved frame."""
    still = solution(dec_deg=0.0, angle_deg=0.0, scale_arcsec=60.0)
    still = domain.WcsSolution(
        **{n: getattr(still, n) for n in ("ra_deg", "dec_deg", "cd11", "cd12", "cd21", "cd22")},
        crpix_x=50.5,
        crpix_y=50.5,
    )
    radius = astrometry.chart_radius_arcmin([still], 100, 100, 30.0, 0.0)
    assert radius == pytest.approx(50 * np.sqrt(2), rel=3e-4)  # gnomonic: 2e-4 at 0.7 deg
    moved = astrometry.chart_radius_arcmin([still], 100, 100, 30.0, 40 / 60)
    assert moved == pytest.approx(np.hypot(50, 90), rel=5e-4)


@pytest.mark.filterwarnings('ignore:ERFA function "pmsafe"')  # distance and speed are invented
def test_proper_motion_agrees_with_astropy():
    """Barnard's star, whose motion is the largest: -801.6, 10362.4 mas/yr (Gaia DR3)."""
    from astropy import units as u
    from astropy.coordinates import SkyCoord
    from astropy.time import Time

    star = domain.Variable(
        name="V2500 Oph",
        ra_deg=269.4521,
        dec_deg=4.6934,
        pm_ra_mas_yr=-801.6,
        pm_dec_mas_yr=10362.4,
    )
    ra, dec = astrometry.position_at_epoch(star, 2461000.5)
    truth = SkyCoord(
        star.ra_deg * u.deg,
        star.dec_deg * u.deg,
        pm_ra_cosdec=star.pm_ra_mas_yr * u.mas / u.yr,
        pm_dec=star.pm_dec_mas_yr * u.mas / u.yr,
        distance=10 * u.kpc,
        radial_velocity=0 * u.km / u.s,
        obstime=Time(2451545.0, format="jd", scale="tdb"),
    ).apply_space_motion(Time(2461000.5, format="jd", scale="tdb"))
    off = astrometry.separation_deg(ra, dec, truth.ra.deg, truth.dec.deg) * 3600
    assert off < 1e-3
    assert astrometry.separation_deg(ra, dec, star.ra_deg, star.dec_deg) * 3600 > 260


@pytest.mark.parametrize("hours_from_the_meridian", [-5.0, -1.0, -0.1, 0.4, 6.0])
@pytest.mark.parametrize(("latitude_deg", "dec_deg"), [(41.31, 38.1), (-33.0, -60.0), (5.0, 70.0)])
def test_the_field_turns_in_twenty_minutes_as_astropy_s_zenith_does(
    latitude_deg, dec_deg, hours_from_the_meridian
):
    """By the position angle of the zenith; near it, 26 years of precession are degrees."""
    from astropy import units as u
    from astropy.coordinates import AltAz, EarthLocation, SkyCoord
    from astropy.time import Time

    site = domain.Site(latitude_deg=latitude_deg, longitude_deg=-72.92)
    place = EarthLocation(lat=latitude_deg * u.deg, lon=-72.92 * u.deg)
    time = Time(2460964.6 + np.array([0.0, 20 / 1440]), format="jd")
    ra_deg = time[0].sidereal_time("mean", place.lon).deg - 15.0 * hours_from_the_meridian
    star = SkyCoord(ra_deg, dec_deg, unit="deg")
    overhead = AltAz(obstime=time, location=place)
    zenith = SkyCoord(alt=[90, 90] * u.deg, az=[0, 0] * u.deg, frame=overhead)
    expected_deg = np.diff(star.position_angle(zenith.icrs).deg)[0]
    found_deg = np.diff(astrometry.parallactic_angle_deg(time.jd, site, ra_deg, dec_deg))[0]
    assert abs((found_deg - expected_deg + 180.0) % 360.0 - 180.0) < 0.1


def test_a_star_without_proper_motion_stays():
    star = domain.Variable(name="x", ra_deg=10.0, dec_deg=20.0, pm_ra_mas_yr=5.0)
    assert astrometry.position_at_epoch(star, 2461000.5) == (10.0, 20.0)
