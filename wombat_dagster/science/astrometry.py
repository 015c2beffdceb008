"""Between sky and pixels: positions, frame corners, what lies inside, how wide a chart must be.

Finding a solution stays out: that is the solvers' work.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from wombat_dagster import domain, tangent
from wombat_dagster.domain import BoolArray, FloatArray

J2000_JD = 2451545.0
DAYS_PER_JULIAN_YEAR = 365.25
MAS_PER_RADIAN = np.degrees(1.0) * 3600.0e3


def project(
    solution: domain.WcsSolution, ra_deg: ArrayLike, dec_deg: ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """Return the 0-based pixel positions (x, y) of sky positions, shaped as the input.

    NaN for places 90 degrees or more from the frame's centre, which have no image in a gnomonic
    projection.
    """
    return tangent.sky_to_pixel(solution, np.asarray(ra_deg, float), np.asarray(dec_deg, float))


def sky(
    solution: domain.WcsSolution, x_px: ArrayLike, y_px: ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """Return the sky positions (ra_deg in [0, 360), dec_deg) of 0-based pixel positions."""
    return tangent.pixel_to_sky(solution, np.asarray(x_px, float), np.asarray(y_px, float))


def separation_deg(
    ra1_deg: ArrayLike, dec1_deg: ArrayLike, ra2_deg: ArrayLike, dec2_deg: ArrayLike
) -> FloatArray:
    """Return the angle between two places on the sky; exact for the smallest ones (haversine)."""
    ra1, dec1, ra2, dec2 = (
        np.radians(np.asarray(a, dtype=float)) for a in (ra1_deg, dec1_deg, ra2_deg, dec2_deg)
    )
    haversine = (
        np.sin((dec2 - dec1) / 2) ** 2 + np.cos(dec1) * np.cos(dec2) * np.sin((ra2 - ra1) / 2) ** 2
    )
    return np.degrees(2 * np.arcsin(np.sqrt(np.clip(haversine, 0.0, 1.0))))


def frame_corners(
    solution: domain.WcsSolution, width_px: int, height_px: int
) -> tuple[FloatArray, FloatArray]:
    """Return (ra_deg, dec_deg), each of shape (4,), of the outer corners of the frame."""
    left, right, low, high = -0.5, width_px - 0.5, -0.5, height_px - 0.5
    return sky(solution, [left, right, right, left], [low, low, high, high])


def inside_frame(
    x_px: ArrayLike, y_px: ArrayLike, width_px: int, height_px: int, *, margin_px: float = 0.0
) -> BoolArray:
    """Return where positions lie on the frame and at least `margin_px` from its edges.

    The frame spans -0.5 to width - 0.5: pixel centres are integers. NaN is outside.
    """
    x, y = np.asarray(x_px, dtype=float), np.asarray(y_px, dtype=float)
    low = margin_px - 0.5
    inside: BoolArray = (
        (x >= low)
        & (x <= width_px - 0.5 - margin_px)
        & (y >= low)
        & (y <= height_px - 0.5 - margin_px)
    )
    return inside


def chart_radius_arcmin(
    solutions: Iterable[domain.WcsSolution],
    width_px: int,
    height_px: int,
    ra_deg: float,
    dec_deg: float,
) -> float:
    """Return the largest distance from a place to a frame corner over all `solutions`.

    A chart of this radius about the place holds every star that any of the frames shows.
    """
    distances = [
        separation_deg(*frame_corners(solution, width_px, height_px), ra_deg, dec_deg).max()
        for solution in solutions
    ]
    return 60.0 * float(max(distances))


def position_at_epoch(variable: domain.Variable, jd: float) -> tuple[float, float]:
    """Return (ra_deg, dec_deg) of a star at `jd`, its J2000 place moved by its proper motion.

    A star without a known proper motion stays where it is. The motion runs along a great circle,
    which also holds near the poles.
    """
    if variable.pm_ra_mas_yr is None or variable.pm_dec_mas_yr is None:
        return variable.ra_deg, variable.dec_deg
    years = (jd - J2000_JD) / DAYS_PER_JULIAN_YEAR
    east = variable.pm_ra_mas_yr * years / MAS_PER_RADIAN
    north = variable.pm_dec_mas_yr * years / MAS_PER_RADIAN
    ra, dec = np.radians(variable.ra_deg), np.radians(variable.dec_deg)
    place = np.array([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])
    to_east = np.array([-np.sin(ra), np.cos(ra), 0.0])
    to_north = np.array([-np.sin(dec) * np.cos(ra), -np.sin(dec) * np.sin(ra), np.cos(dec)])
    moved = place + east * to_east + north * to_north
    new_ra = np.degrees(np.arctan2(moved[1], moved[0])) % 360.0
    return float(new_ra), float(np.degrees(np.arctan2(moved[2], np.hypot(moved[0], moved[1]))))


def parallactic_angle_deg(
    jd_utc: ArrayLike, site: domain.Site, ra_deg: float, dec_deg: float
) -> FloatArray:
    """Return the angle at a place on the sky from the pole to the zenith, in [-180, 180].

    By it the field turns on a mount without a third axis. From the pole of date, and with UTC for
    UT1: the difference of two is good to some hundredths of a degree, but not at the zenith itself.

    Notes
    -----
    Meeus (1998), Astronomical Algorithms, 2nd ed., equations 12.4 (sidereal time, its two leading
    terms), 14.1, and chapter 21 (precession since J2000, of first order).
    """
    days = np.asarray(jd_utc, dtype=float) - J2000_JD
    years = days / DAYS_PER_JULIAN_YEAR
    ra, dec = np.radians(ra_deg), np.radians(dec_deg)
    ra_of_date_deg = ra_deg + (46.1244 + 20.0431 * np.sin(ra) * np.tan(dec)) * years / 3600.0
    dec = dec + np.radians(20.0431 * np.cos(ra) * years / 3600.0)
    greenwich_deg = 280.46061837 + 360.98564736629 * days
    hour = np.radians(greenwich_deg + site.longitude_deg - ra_of_date_deg)
    latitude = np.radians(site.latitude_deg)
    to_zenith = np.tan(latitude) * np.cos(dec) - np.sin(dec) * np.cos(hour)
    return np.degrees(np.arctan2(np.sin(hour), to_zenith))
