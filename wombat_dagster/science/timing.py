"""Times, altitude and airmass of a night's frames, as AstroImageJ's converter gives them.

One vectorised call per night: astropy works on all mid-exposures at once (a loop over frames costs
twenty times as much). Nothing is downloaded: the tables that come with astropy are used whatever
their age, and beyond their end UT1 = UTC, which is 13 arcsec of altitude at most.

Formulas: DOMAIN section 5. Times are astropy's (they agree with AstroImageJ's to 0.2 s and are the
better ones); refraction and airmass are AstroImageJ's, so that its tables and ours compare.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import astropy.units as u
import numpy as np
from astropy.coordinates import AltAz, EarthLocation, SkyCoord
from astropy.time import Time, TimeDelta
from astropy.utils import iers
from astropy.utils.exceptions import AstropyWarning
from numpy.typing import NDArray

from wombat_dagster.domain import FloatArray, FrameTimes, NoTime, Site
from wombat_dagster.science.earth import earth_orientation

SECONDS_PER_DAY = 86400.0
DAYS_PER_JULIAN_YEAR = 365.25
JD_OF_1970 = 2440587.5
MAS_TO_RADIAN = np.pi / (180.0 * 3600.0 * 1000.0)

REFRACTION_FLOOR_DEG = 15.0
"""Below this altitude AstroImageJ keeps the refraction of this altitude."""
BELOW_HORIZON = -1.0
"""AstroImageJ's airmass at and below the horizon."""


def stay_offline() -> None:
    """Let astropy use the Earth tables on this disk, of whatever age: it never downloads one.

    The one place where that is set, for the whole process. `auto_max_age` must be None too: with a
    finite age astropy raises once the bundled predictions are older than that.
    """
    iers.conf.auto_download = False
    iers.conf.auto_max_age = None
    iers.conf.iers_degraded_accuracy = "ignore"
    iers.earth_orientation_table.set(earth_orientation())


@contextmanager
def bundled_earth_tables() -> Iterator[None]:
    """Work offline, without astropy's warnings about dates outside its tables."""
    stay_offline()
    with warnings.catch_warnings():
        # Past the end of the tables astropy takes UT1 = UTC and no new leap second, as we would.
        warnings.filterwarnings("ignore", ".*IERS data", AstropyWarning)
        warnings.filterwarnings("ignore", ".*leap-second", AstropyWarning)
        warnings.filterwarnings("ignore", ".*dubious year", UserWarning)  # erfa.ErfaWarning
        yield


def frame_times(
    start_utc: Sequence[str] | Time,
    exposure_s: Sequence[float] | FloatArray,
    *,
    ra_deg: float,
    dec_deg: float,
    pm_ra_mas_yr: float | None = None,
    pm_dec_mas_yr: float | None = None,
    site: Site,
) -> FrameTimes:
    """Return JD, HJD, BJD at mid-exposure, apparent altitude and airmass of n frames.

    Parameters
    ----------
    start_utc
        Starts of the exposures, ISO 8601 on the UTC scale without offset, shape (n,).
    exposure_s
        Exposure times in seconds, shape (n,).
    ra_deg, dec_deg, pm_ra_mas_yr, pm_dec_mas_yr
        The star at J2000 (ICRS) and its proper motion, the RA term with cos(dec).

    Raises
    ------
    NoTime
        A start cannot be read as a time, an exposure is not a finite number, or the two do not
        have the same length.
    """
    with bundled_earth_tables():
        start, exposure = _checked(start_utc, exposure_s)
        mid = start + TimeDelta(exposure / 2.0, format="sec")
        star = star_at(
            mid,
            ra_deg=ra_deg,
            dec_deg=dec_deg,
            pm_ra_mas_yr=pm_ra_mas_yr,
            pm_dec_mas_yr=pm_dec_mas_yr,
        )
        place = earth_location(site)
        helio, bary = (
            mid.light_travel_time(star, kind=kind, location=place, ephemeris="builtin")
            for kind in ("heliocentric", "barycentric")
        )
        jd_start = calendar_jd(start)
        jd_mid = jd_start + exposure / 2.0 / SECONDS_PER_DAY
        altitude = apparent_altitude_deg(true_altitude_deg(mid, star, place))
        return FrameTimes(
            jd_start_utc=jd_start,
            jd_utc=jd_mid,
            hjd_utc=jd_mid + helio.to_value(u.day),
            # TDB has no leap seconds, so here the stretched day does no harm.
            bjd_tdb=(mid.tdb + bary).jd,
            altitude_deg=altitude,
            airmass=airmass(altitude),
        )


def _checked(
    start_utc: Sequence[str] | Time, exposure_s: Sequence[float] | FloatArray
) -> tuple[Time, FloatArray]:
    if len(start_utc) == 0:
        raise NoTime("no frames to give times to")
    try:
        start = (
            start_utc if isinstance(start_utc, Time) else Time(list(start_utc), scale="utc")
        ).utc
    except ValueError as error:
        raise NoTime(f"a start of exposure is not a UTC time: {error}") from error
    exposure = np.asarray(exposure_s, dtype=float)
    if exposure.shape != start.shape:
        raise NoTime(f"{exposure.size} exposure times for {start.size} starts of exposure")
    unknown = int(np.count_nonzero(~(np.isfinite(exposure) & (exposure >= 0))))
    if unknown:
        raise NoTime(f"{unknown} of {exposure.size} frames have no usable exposure time")
    return start, exposure


def calendar_jd(time: Time) -> FloatArray:
    """Return the plain calendar Julian date on the UTC scale, every day 86400 seconds long.

    Astropy's own ``.jd`` stretches a day with a leap second: it is 1 s off at its end, and neither
    AstroImageJ nor the AAVSO counts so.
    """
    parts = time.utc.ymdhms
    midnight = calendar_days(parts["year"], parts["month"], parts["day"])
    seconds = parts["hour"] * 3600.0 + parts["minute"] * 60.0 + parts["second"]
    return JD_OF_1970 + midnight + seconds / SECONDS_PER_DAY


def calendar_days(year: NDArray, month: NDArray, day: NDArray) -> FloatArray:
    """Return the days from 1970-01-01 to the dates, shaped as the arguments."""
    months = np.asarray(year - 1970, dtype="timedelta64[Y]").astype("datetime64[Y]").astype(
        "datetime64[M]"
    ) + np.asarray(month - 1, dtype="timedelta64[M]")
    first = months.astype("datetime64[D]").astype(float)
    return np.asarray(first + day - 1)


def star_at(
    time: Time,
    *,
    ra_deg: float,
    dec_deg: float,
    pm_ra_mas_yr: float | None = None,
    pm_dec_mas_yr: float | None = None,
) -> SkyCoord:
    """Return where the star stands at `time` after its proper motion since J2000.

    A scalar coordinate when it does not move, else shaped as `time`. The motion is a straight line
    in space at zero radial velocity; `pm_ra_mas_yr` includes cos(dec).
    """
    if not pm_ra_mas_yr and not pm_dec_mas_yr:
        return SkyCoord(ra_deg, dec_deg, unit="deg")
    ra, dec = np.radians(ra_deg), np.radians(dec_deg)
    towards = np.array([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])
    east = np.array([-np.sin(ra), np.cos(ra), 0.0])
    north = np.array([-np.sin(dec) * np.cos(ra), -np.sin(dec) * np.sin(ra), np.cos(dec)])
    motion = MAS_TO_RADIAN * ((pm_ra_mas_yr or 0.0) * east + (pm_dec_mas_yr or 0.0) * north)
    years = np.asarray(time.tdb.jyear) - 2000.0
    x, y, z = np.moveaxis(towards + years[..., np.newaxis] * motion, -1, 0)
    return SkyCoord(np.arctan2(y, x), np.arctan2(z, np.hypot(x, y)), unit="rad")


def earth_location(site: Site) -> EarthLocation:
    """Return the site as astropy knows places (WGS84, longitude east)."""
    return EarthLocation.from_geodetic(
        lon=site.longitude_deg * u.deg, lat=site.latitude_deg * u.deg, height=site.elevation_m * u.m
    )


def true_altitude_deg(time: Time, star: SkyCoord, place: EarthLocation) -> FloatArray:
    """Return the altitude without refraction, in degrees, shaped as `time`."""
    frame = AltAz(obstime=time, location=place, pressure=0 * u.hPa)
    return np.asarray(star.transform_to(frame).alt.deg)


def apparent_altitude_deg(altitude_deg: FloatArray) -> FloatArray:
    """Return the altitude with refraction added, as AstroImageJ's ALT_OBJ (10 °C, 760 torr).

    58.276" tan z - 0.0824" tan³ z; its 15° value below 15°, nothing below the horizon.
    """
    tangent = np.tan(np.radians(90.0 - np.maximum(altitude_deg, REFRACTION_FLOOR_DEG)))
    refraction_arcsec = 58.276 * tangent - 0.0824 * tangent**3
    return np.where(altitude_deg < 0, altitude_deg, altitude_deg + refraction_arcsec / 3600.0)


def airmass(altitude_deg: FloatArray) -> FloatArray:
    """Return AstroImageJ's airmass at an *apparent* altitude; -1 at and below the horizon.

    Notes
    -----
    Polynomial in sec z - 1 to Snell & Heiser (1968), as JSkyCalc has it; sec z - 1.5 beyond
    sec z = 12, where the polynomial is of no use.
    """
    altitude = np.asarray(altitude_deg, dtype=float)
    up = altitude > 0
    secant = 1.0 / np.sin(np.radians(np.where(up, altitude, 90.0)))
    x = secant - 1.0
    curved = secant - x * (2.879465e-3 + x * (3.033104e-3 + x * (1.351167e-3 - x * 4.716679e-5)))
    return np.where(up, np.where(secant > 12.0, secant - 1.5, curved), BELOW_HORIZON)
