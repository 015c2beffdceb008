"""Phases, and when a periodic star is at one: by an epoch and a period as a catalogue writes them.

A prediction is as good as the digits it is made of. Half a unit in the last written place of the
period, times the cycles since the epoch, is how far the time may be off by rounding alone; real
periods change as well, so this is a lower bound. Where that is more than a quarter of a period
nothing is predicted. Epochs are heliocentric (HJD, as VSX says); what an observer is told is
JD(UTC) at the site, the light-time across the Earth's orbit taken out. Whether an epoch's HJD is on
the UTC or the terrestrial scale VSX does not say: 69 s at most, in the error of every prediction.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
from astropy.time import Time

from wombat_dagster.domain import FloatArray, Site
from wombat_dagster.science.flats import sun_altitude_deg
from wombat_dagster.science.timing import bundled_earth_tables, frame_times

MIN_PERIOD_D = 0.003
"""The shortest orbits known take 5 min (HM Cnc, 321 s): what is shorter is no orbit."""
EPOCHS_JD = (2_000_000.0, 2_600_000.0)  # AD 763 to 2406: full Julian dates, not JD - 2400000
MAX_ERROR_PHASE = 0.25
SCALE_ERROR_D = 0.0008  # 69 s: terrestrial time less UTC since 2017
MAX_TIMES = 2000  # of one star that are looked at ahead
LIGHT_TIME_D = 0.006  # more than HJD and JD ever differ by
MIN_ALTITUDE_DEG = 15.0
MAX_SUN_DEG = -12.0

_WRITTEN = re.compile(
    r"(?P<limit>[<>])?\s*(?P<open>\()?\s*(?P<value>(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?)\s*"
    r"(?P<doubt>[:?])?\s*\)?\s*(?P<doubt_too>[:?])?\s*(?P<multiple>[*/]\s*\w*)?"
)
_ECLIPSING = re.compile(r"E([ABCDWP]|SD)?(-.*)?")
_TRANSIT = "EP"


class NoPrediction(Exception):
    """Nothing can be foretold; the message says why, with the numbers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ephemeris:
    """When a star is at phase 0: `epoch_hjd` and every `period_d` days before and after.

    The errors are half a unit in the last place that was written, which is a bound, not a sigma.
    """

    period_d: float
    period_error_d: float
    epoch_hjd: float
    epoch_error_d: float

    def error_d(self, cycle: int) -> float:
        """Return by how much the time of a cycle may be off, in days, by rounding alone."""
        return self.epoch_error_d + abs(cycle) * self.period_error_d


@dataclass(frozen=True, slots=True, kw_only=True)
class Extreme:
    """One time of phase 0 as a site sees it; `jd_utc` at the Earth, altitudes in degrees.

    `altitude_deg` is with refraction, the Sun's without. `error_d` holds what the digits and the
    unknown time scale allow.
    """

    cycle: int
    hjd: float
    jd_utc: float
    error_d: float
    altitude_deg: float
    sun_altitude_deg: float


def phase(jd: FloatArray | float, *, epoch_jd: float, period_d: float) -> FloatArray:
    """Return the phases at `jd`, any shape, in [0, 1); epoch and times on one scale.

    NaN stays NaN.
    """
    cycles = (np.asarray(jd, dtype=float) - epoch_jd) / period_d
    found = cycles - np.floor(cycles)
    return np.where(found >= 1.0, 0.0, found)  # of -1e-17 the difference rounds to 1


# ------------------------------------------------------------------------ what a catalogue writes


def read_ephemeris(period: str | None, epoch: str | None) -> Ephemeris:
    """Return the ephemeris of a period in days and an epoch (HJD) as VSX writes them.

    Raises
    ------
    NoPrediction
        One is missing, or not a plain number: marked as uncertain (``95:``), a limit (``>300``), a
        mean cycle (``(50)``), perhaps a multiple (``0.5*2``), or out of all reason.
    """
    period_d, period_error_d = _number(period, "period")
    epoch_hjd, epoch_error_d = _number(epoch, "epoch")
    if not period_d >= MIN_PERIOD_D:
        raise NoPrediction(
            f"a period of {period} d is no orbit's: at least {MIN_PERIOD_D} d wanted"
        )
    if not EPOCHS_JD[0] <= epoch_hjd <= EPOCHS_JD[1]:
        raise NoPrediction(f"the epoch {epoch} is no full Julian date")
    return Ephemeris(
        period_d=period_d,
        period_error_d=period_error_d,
        epoch_hjd=epoch_hjd,
        epoch_error_d=epoch_error_d,
    )


def _number(text: str | None, what: str) -> tuple[float, float]:
    """Return a written number and half a unit in its last place."""
    if text is None or not text.strip():
        raise NoPrediction(f"no {what} is known")
    found = _WRITTEN.fullmatch(text.strip())
    if found is None:
        raise NoPrediction(f"the {what} {text!r} is no number")
    if found["limit"]:
        raise NoPrediction(f"the {what} {text} is a limit only")
    if found["open"]:
        raise NoPrediction(f"the {what} {text} is a mean cycle, not kept to")
    if found["multiple"]:
        raise NoPrediction(f"the {what} {text} may be a multiple of the true one")
    if found["doubt"] or found["doubt_too"]:
        raise NoPrediction(f"the {what} {text} is marked as uncertain")
    number = Decimal(found["value"])
    exponent = number.as_tuple().exponent
    assert isinstance(exponent, int), "the pattern takes no NaN"
    value, error = float(number), float(Decimal(5).scaleb(exponent - 1))
    if not (math.isfinite(value) and math.isfinite(error)):
        raise NoPrediction(f"the {what} {text} is out of all reason")
    return value, error


def is_eclipsing(variability_type: str | None) -> bool:
    """Tell whether a type of VSX's, or one of its alternatives, means eclipses or transits.

    ``EA/SD+DSCTC``, ``EW|RRC``, ``E:``, ``E-DO``; not ``ELL`` or ``RS``.
    """
    return any(_eclipsing_alternatives(variability_type))


def is_surely_eclipsing(variability_type: str | None) -> bool:
    """Tell whether the type leaves no doubt about eclipses: every alternative of it has them."""
    alternatives = _eclipsing_alternatives(variability_type)
    return bool(alternatives) and all(alternatives) and ":" not in (variability_type or "")


def is_transiting(variability_type: str | None) -> bool:
    """Tell whether what eclipses the star is a planet (``EP``)."""
    return _TRANSIT in re.split(r"[|+/]", (variability_type or "").replace(":", ""))


def _eclipsing_alternatives(variability_type: str | None) -> list[bool]:
    words = (variability_type or "").replace(":", "").replace(" ", "")
    return [
        any(_ECLIPSING.fullmatch(kind.split("/")[0]) for kind in alternative.split("+"))
        for alternative in words.split("|")
        if alternative
    ]


def eclipse_hours(duration_percent: float | None, period_d: float) -> float | None:
    """Return how long an eclipse lasts in hours; VSX's EclipseDuration is in % of the period."""
    if duration_percent is None or not 0 < duration_percent <= 100:
        return None
    return 24.0 * period_d * duration_percent / 100.0


# ----------------------------------------------------------------------------------- times ahead


def times_at_phase_0(
    ephemeris: Ephemeris, first_hjd: float, last_hjd: float
) -> tuple[Sequence[int], FloatArray]:
    """Return the cycles at phase 0 from `first_hjd` to `last_hjd` and their HJDs, shape (n,).

    No more than the first `MAX_TIMES`.

    Raises
    ------
    NoPrediction
        By now the digits allow an error above a quarter of a period.
    """
    begin = math.ceil((first_hjd - ephemeris.epoch_hjd) / ephemeris.period_d)
    end = math.floor((last_hjd - ephemeris.epoch_hjd) / ephemeris.period_d)
    error_d = ephemeris.error_d(begin)
    if error_d > MAX_ERROR_PHASE * ephemeris.period_d:
        raise NoPrediction(
            f"the period of {ephemeris.period_d:.12g} d is written to ±"
            f" {ephemeris.period_error_d:.2g} d, the epoch to ± {ephemeris.epoch_error_d:.2g} d:"
            f" after {abs(begin)} cycles a time may be off by {error_d:.3g} d, more than a quarter"
            " of the period"
        )
    cycles = range(begin, min(end, begin + MAX_TIMES - 1) + 1)
    return cycles, ephemeris.epoch_hjd + ephemeris.period_d * np.array(cycles, dtype=float)


def observable_minima(
    ephemeris: Ephemeris,
    *,
    ra_deg: float,
    dec_deg: float,
    pm_ra_mas_yr: float | None = None,
    pm_dec_mas_yr: float | None = None,
    site: Site,
    first_jd: float,
    last_jd: float,
) -> tuple[Extreme, ...]:
    """Return the times of phase 0 between two JD(UTC) with the star up at the site, and it dark.

    Up: 15 degrees or more; dark: the Sun 12 degrees or more below the horizon. Raises NoPrediction.
    """
    cycles, hjd = times_at_phase_0(ephemeris, first_jd - LIGHT_TIME_D, last_jd + LIGHT_TIME_D)
    if not len(cycles):
        return ()
    exposure_s = np.zeros(len(cycles))
    jd = hjd
    for _ in range(2):  # the light-time of where the Earth is 8 min later differs by 0.05 s
        moments = Time(jd, format="jd", scale="utc")
        sky = frame_times(
            moments,
            exposure_s,
            ra_deg=ra_deg,
            dec_deg=dec_deg,
            pm_ra_mas_yr=pm_ra_mas_yr,
            pm_dec_mas_yr=pm_dec_mas_yr,
            site=site,
        )
        jd = hjd - (sky.hjd_utc - sky.jd_utc)
    with bundled_earth_tables():  # beyond the leap seconds that astropy knows, too
        sun_deg, _ = sun_altitude_deg(list(moments.isot), list(exposure_s), site)
    return tuple(
        Extreme(
            cycle=cycle,
            hjd=float(hjd[i]),
            jd_utc=float(jd[i]),
            error_d=ephemeris.error_d(cycle) + SCALE_ERROR_D,
            altitude_deg=float(sky.altitude_deg[i]),
            sun_altitude_deg=float(sun_deg[i]),
        )
        for i, cycle in enumerate(cycles)
        if first_jd <= jd[i] <= last_jd
        and sky.altitude_deg[i] >= MIN_ALTITUDE_DEG
        and sun_deg[i] <= MAX_SUN_DEG
    )
