"""Extinction within a frame (DOMAIN 6g): by the airmass of each star, and by its colour.

First order only where the field is wide or low enough for it. Second order is a colour term that
grows with the airmass, also where all stars share one: it is `colour_terms`' to apply.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from wombat_dagster.domain import FloatArray, Site

MIN_AIRMASS_DIFFERENCE: Final = 0.01
LOWEST_ALTITUDE_DEG: Final = 5.0  # below it an airmass is a guess

# Earth rotation angle: IAU 2000, Capitaine et al. (2000), A&A 355, 398.
TURNS_AT_J2000: Final = 0.7790572732640
TURNS_PER_DAY: Final = 1.00273781191135448
JD_J2000: Final = 2451545.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Extinction:
    """Magnitudes per airmass by band, and where the telescope stands."""

    mag_per_airmass: Mapping[str, float]
    site: Site


def first_order_extinction(
    mag_per_airmass: float, airmass_star: FloatArray, airmass_comp: FloatArray
) -> FloatArray:
    """Return the correction -k1 (X_s - X_c) to a magnitude (DOMAIN 6g)."""
    return -mag_per_airmass * (airmass_star - airmass_comp)


def second_order_extinction(
    mag_per_airmass_colour: float, colour_airmass_difference: FloatArray
) -> FloatArray:
    """Return the correction -k2 Δ(colour X) to a magnitude (DOMAIN 6g).

    `colour_airmass_difference` is colour times airmass of the star less that of the comps.
    """
    return -mag_per_airmass_colour * colour_airmass_difference


def star_airmass(
    ra_deg: FloatArray, dec_deg: FloatArray, jd_utc: FloatArray, site: Site
) -> FloatArray:
    """Return the airmass of stars at the times, shape (n_frames, n_stars).

    For differences between stars: J2000 places and the Earth's rotation alone, without precession,
    which moves all of them by the same 0.4 deg at most until 2030 and changes a difference by 3 %
    at two airmasses. Stars below 5 degrees count as at 5.
    """
    from wombat_dagster.science.timing import airmass, apparent_altitude_deg

    turns = TURNS_AT_J2000 + TURNS_PER_DAY * (jd_utc - JD_J2000)
    sidereal = 2 * np.pi * np.mod(turns, 1.0) + np.radians(site.longitude_deg)
    hour_angle = sidereal[:, None] - np.radians(ra_deg)
    latitude, dec = np.radians(site.latitude_deg), np.radians(dec_deg)
    sine = np.sin(latitude) * np.sin(dec) + np.cos(latitude) * np.cos(dec) * np.cos(hour_angle)
    altitude_deg = np.degrees(np.arcsin(np.clip(sine, -1.0, 1.0)))
    return airmass(apparent_altitude_deg(np.maximum(altitude_deg, LOWEST_ALTITUDE_DEG)))


def extinction_to_target(
    extinction: Extinction,
    band: str,
    jd_utc: FloatArray,
    *,
    target: tuple[float, float],
    ra_deg: FloatArray,
    dec_deg: FloatArray,
) -> FloatArray | None:
    """Return what brings stars to the airmass of the target, magnitudes (n_frames, n_stars).

    None where the band has no coefficient or no star's airmass differs by more than 0.01 on any
    frame: all of the night is corrected or nothing, so that no step appears. `target` and the
    stars' places in degrees, J2000.
    """
    if band not in extinction.mag_per_airmass or not len(ra_deg):
        return None
    own, stars = (
        star_airmass(np.asarray(ra), np.asarray(dec), jd_utc, extinction.site)
        for ra, dec in (([target[0]], [target[1]]), (ra_deg, dec_deg))
    )
    if not (np.abs(stars - own) > MIN_AIRMASS_DIFFERENCE).any():
        return None
    return first_order_extinction(extinction.mag_per_airmass[band], stars, own)
