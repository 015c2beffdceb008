"""Where the telescope stood: the configured site, or a header's once its longitude is understood.

Headers count longitude east or west of Greenwich as they like and seldom say which. Both signs are
tried against the sky: the target must be up in every frame, and where the header gives an airmass
it must agree. What cannot be decided is not guessed: a wrong site shifts BJD by up to 40 ms only,
but airmass and altitude without limit.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from wombat_dagster.domain import BadSite, FloatArray, NoSite, Site
from wombat_dagster.science.timing import frame_times

HEADER_MIN_ALTITUDE_DEG = 10.0
"""A site from a header counts only where the target is higher than this in every frame."""
AIRMASS_TOLERANCE = 0.05
"""Largest departure of header airmass, as a fraction: half a wide frame of pointing at X = 3, or
another formula, stay below 3 %; a longitude of the wrong sign is far outside unless it is small."""
CLEARLY_BETTER = 3.0
"""Both signs pass: the one whose airmass departs so many times less is kept."""
SAME_PLACE_DEG = 0.02
"""A longitude so near 0 or 180 that its sign does not matter (0.02 deg is 5 s of hour angle)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SkyAtSite:
    """What the frames look like from one site; `airmass_departure` is None without header airmass.

    The departure is the median over frames of |header - computed| / computed, where the header may
    mean the start, the middle or the end of the exposure.
    """

    lowest_altitude_deg: float
    airmass_departure: float | None


def choose_site(
    configured: Site | None,
    header_hint: Site | None,
    start_utc: Sequence[str],
    exposure_s: Sequence[float] | FloatArray,
    *,
    ra_deg: float,
    dec_deg: float,
    airmass_header: Sequence[float | None] | None = None,
) -> Site:
    """Return the observer's site: the configured one, else the header's with the sign that fits.

    `start_utc`, `exposure_s` and `airmass_header` have one entry per frame; `header_hint` holds the
    header's longitude with the sign as written.

    Raises
    ------
    NoSite
        Neither is there, or the header's longitude fits with either sign.
    BadSite
        The target stands below the horizon at the configured site; or at the header's, with either
        sign, below 10 degrees or in disagreement with the header's airmass.
    NoTime
        The times cannot be read.
    """
    if configured is not None:
        sky = sky_at(configured, start_utc, exposure_s, ra_deg=ra_deg, dec_deg=dec_deg)
        if sky.lowest_altitude_deg < 0:
            raise BadSite(
                f"site or time wrong: from {_place(configured)} ({configured.source}) the target "
                f"stands at {sky.lowest_altitude_deg:.1f} deg in a frame, at least 0 wanted"
            )
        return configured
    # 0, 0 is what programs write that do not know: the Gulf of Guinea has no observatory.
    if header_hint is None or header_hint.latitude_deg == header_hint.longitude_deg == 0:
        raise NoSite("no [site] in wombat.toml and none in the headers")
    return _site_from_header(
        header_hint, start_utc, exposure_s, ra_deg, dec_deg, airmass_header=airmass_header
    )


def sky_at(
    site: Site,
    start_utc: Sequence[str],
    exposure_s: Sequence[float] | FloatArray,
    *,
    ra_deg: float,
    dec_deg: float,
    airmass_header: Sequence[float | None] | None = None,
) -> SkyAtSite:
    """Return how low the target gets at `site`, and how far header airmasses depart from it."""
    exposure = np.asarray(exposure_s, dtype=float)
    middle = frame_times(start_utc, exposure, ra_deg=ra_deg, dec_deg=dec_deg, site=site)
    lowest = float(np.min(middle.altitude_deg))
    header = np.array([np.nan if x is None else x for x in airmass_header or ()], dtype=float)
    given = np.isfinite(header) & (header >= 1.0)  # 0 and -1 are written for "not known"
    if not given.any():
        return SkyAtSite(lowest_altitude_deg=lowest, airmass_departure=None)
    edges = [
        frame_times(start_utc, doubled, ra_deg=ra_deg, dec_deg=dec_deg, site=site).airmass
        for doubled in (0.0 * exposure, 2.0 * exposure)  # their middle: our start and our end
    ]
    computed = np.stack([middle.airmass, *edges])[:, given]
    with_sky = np.where(computed > 0, computed, np.nan)
    departures = np.abs(header[given] - with_sky) / with_sky
    # Below the horizon there is no airmass: nothing departs more.
    nearest = np.min(np.where(np.isfinite(departures), departures, np.inf), axis=0)
    return SkyAtSite(lowest_altitude_deg=lowest, airmass_departure=float(np.median(nearest)))


def _site_from_header(
    written: Site,
    start_utc: Sequence[str],
    exposure_s: Sequence[float] | FloatArray,
    ra_deg: float,
    dec_deg: float,
    *,
    airmass_header: Sequence[float | None] | None,
) -> Site:
    candidates = [
        replace(written, source="header"),
        replace(
            written,
            longitude_deg=-written.longitude_deg,
            source="header, longitude taken as positive to the west",
        ),
    ]
    if abs((written.longitude_deg + 90.0) % 180.0 - 90.0) < SAME_PLACE_DEG:
        del candidates[1]
    skies = {
        site: sky_at(
            site,
            start_utc,
            exposure_s,
            ra_deg=ra_deg,
            dec_deg=dec_deg,
            airmass_header=airmass_header,
        )
        for site in candidates
    }
    fitting = [site for site, sky in skies.items() if _fits(sky)]
    found = "; ".join(f"{_place(site)}: {_words(sky)}" for site, sky in skies.items())
    if not fitting:
        raise BadSite(
            f"site or time wrong: wanted the target above {HEADER_MIN_ALTITUDE_DEG:g} deg in every "
            f"frame and header airmass within {AIRMASS_TOLERANCE:.0%}; header site {found}"
        )
    fitting.sort(key=lambda site: skies[site].airmass_departure or 0.0)
    if len(fitting) > 1 and not _clearly_better(*(skies[site] for site in fitting)):
        raise NoSite(f"the header's longitude fits with either sign ({found}): write [site]")
    return fitting[0]


def _fits(sky: SkyAtSite) -> bool:
    return sky.lowest_altitude_deg > HEADER_MIN_ALTITUDE_DEG and (
        sky.airmass_departure is None or sky.airmass_departure <= AIRMASS_TOLERANCE
    )


def _clearly_better(first: SkyAtSite, second: SkyAtSite) -> bool:
    if first.airmass_departure is None or second.airmass_departure is None:
        return False
    # 0.001: header airmasses are often written with three decimals.
    return second.airmass_departure > CLEARLY_BETTER * max(first.airmass_departure, 0.001)


def _place(site: Site) -> str:
    return f"latitude {site.latitude_deg:.4f}, longitude {site.longitude_deg:.4f} (east positive)"


def _words(sky: SkyAtSite) -> str:
    words = f"lowest altitude {sky.lowest_altitude_deg:.1f} deg"
    if sky.airmass_departure is None:
        return words + ", no header airmass"
    if not np.isfinite(sky.airmass_departure):
        return words + ", no airmass below the horizon"
    return words + f", header airmass off by {sky.airmass_departure:.1%}"
