"""Whether a star is brighter or fainter than it was seen before, or than its catalogue says.

A night is told by its third brightest and third faintest good point, so that no single frame makes
news; with fewer than three points all of them must agree. Good: a value, a random error, and not
rejected. A night without any detection is told by its upper limits.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from wombat_dagster.domain import BoolArray, StandardMagnitudes

N_AGREEING = 3
N_SIGMA = 3.0
MIN_NIGHTS = 3  # of a history: fewer are no range
OTHER_BAND_MAG = 0.5  # allowance where a catalogue's band is not like V (DOMAIN section 7)
LIKE_V = frozenset({"V", "CV", "g"})  # VSX's names
OBSERVED_LIKE_V = frozenset({"V", "CV", "TG", "SG"})  # AAVSO's codes


@dataclass(frozen=True, slots=True, kw_only=True)
class NightBrightness:
    """One night of a star in one band, magnitudes; `bright_mag` is numerically the smaller.

    `error_mag` is that of one point with the night's zero point, 1 sigma. `is_limit`: the star was
    not detected, and the magnitudes are upper limits, both ends the third deepest.
    """

    n_points: int
    median_mag: float
    bright_mag: float
    faint_mag: float
    error_mag: float
    is_limit: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Range:
    """Between which magnitudes a star is expected; an end that is None is not known.

    `allowance_mag` is to be added to what counts as a departure.
    """

    bright_mag: float | None
    faint_mag: float | None
    bright_error_mag: float = 0.0
    faint_error_mag: float = 0.0
    bright_allowance_mag: float = 0.0
    faint_allowance_mag: float = 0.0


def night_brightness(magnitudes: StandardMagnitudes, fit: BoolArray) -> NightBrightness | None:
    """Return how bright T1 was on the frames that are `fit`; None when none of them is good.

    Of a held night T2's offset counts as an error of the zero point.
    """
    zero_point_mag = magnitudes.zp_err_mag
    if magnitudes.held_reason and magnitudes.check_offset_mag is not None:
        zero_point_mag = float(np.hypot(zero_point_mag, magnitudes.check_offset_mag))
    if not np.isfinite(zero_point_mag):
        return None
    fit = fit & np.isfinite(magnitudes.t1_mag)
    limit = np.asarray(magnitudes.t1_upper_limit, dtype=bool)
    seen = fit & ~limit & np.isfinite(magnitudes.t1_random_mag)
    is_limit = not seen.any()
    used = fit & limit if is_limit else seen
    if not used.any():
        return None
    values = np.sort(magnitudes.t1_mag[used])
    place = min(N_AGREEING, len(values)) - 1
    random_mag = 0.0 if is_limit else float(np.median(magnitudes.t1_random_mag[used]))
    return NightBrightness(
        n_points=len(values),
        median_mag=float(np.median(values)),
        bright_mag=float(values[-1 - place if is_limit else place]),
        faint_mag=float(values[-1 - place]),
        error_mag=float(np.hypot(random_mag, zero_point_mag)),
        is_limit=is_limit,
    )


def history_range(nights: Sequence[NightBrightness]) -> Range | None:
    """Return between what a star was seen on earlier nights; None when they are too few.

    A night without a detection says that the star was no brighter than its deepest limits, and the
    range reaches there on both sides.
    """
    if len(nights) < MIN_NIGHTS:
        return None
    brightest = min(nights, key=lambda night: night.bright_mag)
    faintest = max(nights, key=lambda night: night.faint_mag)
    return Range(
        bright_mag=brightest.bright_mag,
        faint_mag=faintest.faint_mag,
        bright_error_mag=brightest.error_mag,
        faint_error_mag=faintest.error_mag,
    )


def catalogue_range(
    band: str,
    *,
    bright_mag: float | None,
    bright_band: str | None,
    faint_mag: float | None,
    faint_band: str | None,
) -> Range | None:
    """Return VSX's range as it can be held against magnitudes in `band`; None when it cannot.

    An end in the same band counts as it is, and one in V, CV or g against what is like V; other
    ends get half a magnitude of allowance against V, and are not compared with red or blue bands.
    """
    ends = [
        (mag, _allowance_mag(band, of_band)) if mag is not None else (None, None)
        for mag, of_band in ((bright_mag, bright_band), (faint_mag, faint_band))
    ]
    (bright, bright_more), (faint, faint_more) = ends
    if bright_more is None and faint_more is None:
        return None
    return Range(
        bright_mag=None if bright_more is None else bright,
        faint_mag=None if faint_more is None else faint,
        bright_allowance_mag=bright_more or 0.0,
        faint_allowance_mag=faint_more or 0.0,
    )


def _allowance_mag(band: str, of_band: str | None) -> float | None:
    if band == of_band or (band in OBSERVED_LIKE_V and of_band in LIKE_V):
        return 0.0
    return OTHER_BAND_MAG if band in OBSERVED_LIKE_V else None


def brighter_by_mag(night: NightBrightness, usual: Range, more_mag: float) -> float | None:
    """Return by how much a night is brighter than the range; None when that is no news.

    News: more than `more_mag` and the range's allowance, and more than three sigma of both nights'
    errors, zero points included. A star that was not detected is not brighter.
    """
    if usual.bright_mag is None or night.is_limit:
        return None
    excess_mag = usual.bright_mag - night.bright_mag
    least_mag = more_mag + usual.bright_allowance_mag
    return _news(excess_mag, least_mag, night.error_mag, usual.bright_error_mag)


def fainter_by_mag(night: NightBrightness, usual: Range, more_mag: float) -> float | None:
    """Return by how much a night is fainter than the range; None when that is no news.

    Of a star that was not detected: by how much the limits are.
    """
    if usual.faint_mag is None:
        return None
    excess_mag = night.faint_mag - usual.faint_mag
    least_mag = more_mag + usual.faint_allowance_mag
    return _news(excess_mag, least_mag, night.error_mag, usual.faint_error_mag)


def _news(excess_mag: float, least_mag: float, *errors_mag: float) -> float | None:
    sigma_mag = float(np.hypot.reduce(np.array(errors_mag, dtype=float)))
    return excess_mag if excess_mag > least_mag and excess_mag > N_SIGMA * sigma_mag else None
