"""The AAVSO's exoplanet report of one transit observation.

One observation is one file. Format: AAVSO Exoplanet WebObs Users Guide, revision 1.0
(apps.aavso.org/exosite/doc), and DOMAIN section 3. Only what is known is said: nothing is fitted
here, so PRIORS and RESULTS hold what VSX says or ``na``. The text is checked before it is returned.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from wombat_dagster.domain import FloatArray, Variable
from wombat_dagster.reports.export import NormalisedFlux

DELIMITER: Final = ","
MAX_EXPOSURE_S: Final = 600.0
MAX_DETREND: Final = 4
DETREND_ORDER: Final = ("AIRMASS", "X", "Y", "SKY")
"""What may be detrended with, AIRMASS first; the format has room for four."""
BINNINGS: Final = ("1x1", "2x2", "3x3", "4x4")
FILTERS: Final = frozenset(
    {
        "U", "B", "V", "R", "I", "RJ", "IJ", "J", "H", "K", "SU", "SG", "SR", "SI", "SZ", "STU",
        "STV", "STB", "STY", "STHBW", "STHBN", "MA", "MB", "MI", "ZS", "Y", "TB", "TG", "TR", "CV",
        "CR", "CBB", "HA", "HAC", "O",
    }
)  # fmt: skip
"""AAVSO codes (DOMAIN section 3)."""
LIMITS: Final = {
    "OBSCODE": 5,
    "SOFTWARE": 255,
    "STAR_NAME": 100,
    "EXOPLANET_NAME": 100,
    "DETREND_PARAMETERS": 100,
    "SECONDARY_OBSCODES": 60,
    "PRIORS": 250,
    "RESULTS": 250,
}
NOT_KNOWN: Final = "na"

_PLANET_TYPE = re.compile(r"(?<![A-Z])EP(?![A-Z])")
_PLANET_LETTER = re.compile(r".*\d[ _]?[b-i]", re.DOTALL)
_CODE = re.compile(r"[A-Z]{1,5}")


class NoReport(ValueError):
    """There can be no report; the message says what is missing or wrong."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TransitFacts:
    """What the report says of the observation beside its measurements."""

    observer_code: str
    software: str
    star: Variable
    planet: str
    binning: str
    exposure_s: FloatArray
    band: str
    camera: str | None
    chart_id: str
    comp_names: tuple[str, ...]


def hosts_planet(variability_type: str | None) -> bool:
    """Tell whether VSX's type names a planet that passes before its star: EP, ``DSCT+EP``, EP:."""
    return _PLANET_TYPE.search(variability_type or "") is not None


def planet_of_directory(directory: str) -> str | None:
    """Return the planet's name when a target directory ends in its letter: ``WASP-135b``."""
    name = " ".join(directory.replace("_", " ").split())
    return name if _PLANET_LETTER.fullmatch(name) else None


def exoplanet_report(facts: TransitFacts, flux: NormalisedFlux) -> str:
    """Return the report, every line ended.

    Raises
    ------
    NoReport
        The star is not of type EP, a required fact or the size of the errors is not known, or a
        line would break the rules.
    """
    detrend = _detrend(flux)
    header = {
        "TYPE": "EXOPLANET",
        "OBSCODE": facts.observer_code,
        "SECONDARY_OBSCODES": NOT_KNOWN,
        "SOFTWARE": facts.software,
        "DELIM": DELIMITER,
        "DATE_TYPE": "BJD_TDB",
        "OBSTYPE": "CCD",  # the guide: a CMOS camera is CCD too, and named in the notes
        "STAR_NAME": facts.star.name,
        "EXOPLANET_NAME": facts.planet,
        "BINNING": facts.binning,
        "EXPOSURE_TIME": _exposure(facts.exposure_s),
        "FILTER": facts.band,
        "DETREND_PARAMETERS": DELIMITER.join(detrend),
        "MEASUREMENT_TYPE": "Rnflux",
        "PRIORS": _priors(facts.star),
        "RESULTS": NOT_KNOWN,
        "NOTES": _notes(facts, flux),
    }
    cleaned = {name: " ".join(words.split()) for name, words in header.items()}
    _check(facts, flux, cleaned)
    titles = ["DATE", "DIFF", "ERR", *(f"DETREND_{i}" for i in range(1, len(detrend) + 1))]
    lines = [f"#{name}={words}" for name, words in cleaned.items()]
    lines.append("#" + DELIMITER.join(titles))
    lines += [_row(flux, detrend, i) for i in range(len(flux.flux))]
    text = "\n".join(lines) + "\n"
    check_report(text)
    return text


# ----------------------------------------------------------------------------------- header lines


def _detrend(flux: NormalisedFlux) -> dict[str, FloatArray]:
    """Return up to four detrend parameters that vary, airmass first."""
    found = {}
    for name in DETREND_ORDER:
        values = flux.detrend.get(name)
        if (
            values is not None
            and np.isfinite(values).any()
            and np.nanmax(values) > np.nanmin(values)
        ):
            found[name] = values
    return found


def _exposure(exposure_s: FloatArray) -> str:
    return f"{float(np.median(exposure_s)):.10g}"


def _priors(star: Variable) -> str:
    known = {"Period": star.period_d, "Tc(HJD)": star.epoch_hjd}
    words = [f"{name}={value:.14g}" for name, value in known.items() if value is not None]
    return f"{DELIMITER.join(words)} ({star.source})" if words else NOT_KNOWN


def _notes(facts: TransitFacts, flux: NormalisedFlux) -> str:
    shortest, longest = float(facts.exposure_s.min()), float(facts.exposure_s.max())
    words = [
        f"DIFF is the {flux.source}",
        "normalised to the median of all points (no transit was fitted) and not detrended",
        flux.error_words,
        f"comparison stars {' '.join(facts.comp_names)}, chart {facts.chart_id}",
        f"camera {_ascii(facts.camera)}" if facts.camera else "",
        f"exposures {shortest:g} to {longest:g} s" if longest > shortest else "",
        "frames left out: " + ", ".join(f"{n} {why}" for why, n in flux.left_out.items())
        if flux.left_out
        else "",
    ]
    return "; ".join(filter(None, words))


def _ascii(text: str) -> str:
    return text.encode("ascii", "replace").decode()


def _check(facts: TransitFacts, flux: NormalisedFlux, header: Mapping[str, str]) -> None:
    """Raise NoReport with everything that is missing or against the rules, in one message."""
    faults = []
    if not hosts_planet(facts.star.variability_type):
        kind = facts.star.variability_type or "not known"
        faults.append(f"the type of {facts.star.name} is {kind}, EP (planet) wanted")
    if not _CODE.fullmatch(facts.observer_code):
        faults.append(f"observer code {facts.observer_code!r}: up to 5 capital letters wanted")
    if facts.binning not in BINNINGS:
        faults.append(f"binning {facts.binning}, one of {' '.join(BINNINGS)} wanted")
    if facts.band not in FILTERS:
        faults.append(f"{facts.band!r} is no AAVSO filter code")
    shortest, longest = float(facts.exposure_s.min()), float(facts.exposure_s.max())
    if not (shortest > 0 and longest <= MAX_EXPOSURE_S):
        faults.append(f"exposures {shortest:g} to {longest:g} s, up to {MAX_EXPOSURE_S:g} s wanted")
    if not flux.errors_known:
        faults.append(flux.error_words)
    for name, limit in LIMITS.items():
        if len(header[name]) > limit:
            faults.append(f"{name} has {len(header[name])} characters, at most {limit} go")
    faults += [
        f"{name} is empty"
        for name in ("STAR_NAME", "EXOPLANET_NAME", "SOFTWARE")
        if not header[name]
    ]
    if faults:
        raise NoReport("; ".join(faults))


# ------------------------------------------------------------------------------------------- rows


def _row(flux: NormalisedFlux, detrend: Mapping[str, FloatArray], i: int) -> str:
    cells = [f"{flux.bjd_tdb[i]:.8f}", f"{flux.flux[i]:.8f}", f"{flux.error[i]:.6f}"]
    for values in detrend.values():
        cells.append(f"{values[i]:.6f}" if math.isfinite(values[i]) else NOT_KNOWN)
    return DELIMITER.join(cells)


def check_report(text: str) -> None:
    """Raise NoReport where a line of a report breaks the guide's rules.

    ASCII without blank lines; the required parameters, each once; rows of as many fields as there
    are detrend parameters and three; dates in order, positive fluxes and errors, no NaN.
    """
    if not text.isascii():
        found = sorted({c for c in text if not c.isascii()})
        raise NoReport(f"only ASCII goes into a report, found {' '.join(found)}")
    lines = text.splitlines()
    parameters = [line[1:].partition("=") for line in lines if line.startswith("#") and "=" in line]
    names = [name for name, _, _ in parameters]
    for name in _REQUIRED:
        if names.count(name) != 1:
            raise NoReport(f"#{name}= stands {names.count(name)} times, once wanted")
    words = {name: value for name, _, value in parameters}
    n_detrend = len([one for one in words["DETREND_PARAMETERS"].split(",") if one.strip()])
    if n_detrend > MAX_DETREND:
        raise NoReport(f"{n_detrend} detrend parameters, at most {MAX_DETREND} go")
    before = -math.inf
    n_rows = 0
    for number, line in enumerate(lines, start=1):
        if line.startswith("#"):
            continue
        n_rows += 1
        before = _check_row(line, number, n_fields=3 + n_detrend, before=before)
    if not n_rows:
        raise NoReport("no measurement in the report")


_REQUIRED: Final = (
    "TYPE", "OBSCODE", "SOFTWARE", "DELIM", "DATE_TYPE", "OBSTYPE", "STAR_NAME", "EXOPLANET_NAME",
    "BINNING", "EXPOSURE_TIME", "FILTER", "DETREND_PARAMETERS", "MEASUREMENT_TYPE",
)  # fmt: skip


def _check_row(line: str, number: int, *, n_fields: int, before: float) -> float:
    """Return the date of a row that keeps the rules."""
    fields = line.split(DELIMITER)
    if len(fields) != n_fields:
        raise NoReport(f"line {number} has {len(fields)} fields, {n_fields} wanted: {line!r}")
    try:
        bjd, diff, error = map(float, fields[:3])
        detrend = [float(one) for one in fields[3:] if one != NOT_KNOWN]
    except ValueError as wrong:
        raise NoReport(f"line {number} holds what is no number: {line!r}") from wrong
    if not all(map(math.isfinite, (bjd, diff, error, *detrend))):
        raise NoReport(f"line {number} holds NaN or an infinity: {line!r}")
    if diff <= 0 or error <= 0:
        raise NoReport(f"line {number}: flux and error are positive: {line!r}")
    if bjd < before:
        raise NoReport(f"line {number} is earlier than the line before: {line!r}")
    return bjd
