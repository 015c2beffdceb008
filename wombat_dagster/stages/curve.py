"""Finds every observation of a star over all nights, and joins its magnitudes to one curve.

A star's history goes by its VSX number, else by its position, never by the name of a directory:
names only say which star is asked for.
"""

import datetime as dt
import logging
import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from wombat_dagster.catalogs.vsx import name_variants
from wombat_dagster.domain import (
    Apphot,
    PhotometryTable,
    StandardMagnitudes,
    Variable,
    distinct_slug,
    slug,
)
from wombat_dagster.observatory import Observatory
from wombat_dagster.products import read_product
from wombat_dagster.reports.curve_plot import Fold
from wombat_dagster.reports.exoplanet import TransitFacts, hosts_planet, planet_of_directory
from wombat_dagster.reports.export import NormalisedFlux, magnitude_flux, relative_flux
from wombat_dagster.reports.star_curve import (
    CurveNight,
    LeftOut,
    StarCurve,
    concatenate,
    curve_night,
)
from wombat_dagster.science.noise import relative_extra
from wombat_dagster.stages.decisions import as_decided
from wombat_dagster.store.decisions import Decisions
from wombat_dagster.store.status import TargetRow
from wombat_dagster.store.tables import UnreadableProduct

log = logging.getLogger(__name__)

RADIUS_ARCSEC = 10.0
MEASURED = (Apphot.VALIDATE, Apphot.HELD)
REJECTED = "usrrej"  # word of `submitted`: the person wants none of it
MAX_STARS_IN_WORDS = 12

_OID = re.compile(r"\d+")
_AUID = re.compile(r"\d{3}-[A-Z]{3}-\d{3}", re.IGNORECASE)
_SINGLE_LETTER = re.compile(r"[A-Za-z] [A-Za-z]{3}")
_DECIMAL = re.compile(r"[+-]?\d+(\.\d*)?")
_SEXAGESIMAL = re.compile(r"([+-]?)(\d+)[: hd°](\d+)[: m'](\d+(?:\.\d*)?)[s\"]?")


class NoCurve(Exception):
    """There is no such curve; the message says what is there instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """An observation, and the star that it was found to be of; None: not looked up yet."""

    row: TargetRow
    variable: Variable | None
    damage: str | None = None  # why the star of an observation cannot be told


# --------------------------------------------------------------------------------- which star it is


def known_observations(observatory: Observatory) -> list[Known]:
    """Return every observation with its star, by date, target and filter."""
    return [_known(observatory, row) for row in observatory.status.targets()]


def _known(observatory: Observatory, row: TargetRow) -> Known:
    try:
        star = read_product(observatory, "variable", row.observation.key)
    except FileNotFoundError:
        return Known(row=row, variable=None)
    except (UnreadableProduct, UnicodeDecodeError, OSError) as error:
        return Known(row=row, variable=None, damage=f"variable.json is damaged: {_short(error)}")
    return Known(row=row, variable=star)


def find_star(known: Sequence[Known], asked: str) -> Variable:
    """Return the star that `asked` means: VSX number, AUID, name, directory, or ``RA,DEC``.

    As the newest night has it.

    Raises
    ------
    NoCurve
        No observation is of such a star, or several stars could be meant.
    """
    words = " ".join(asked.split())
    place = parse_position(words)
    if place is not None:
        hits = [k for k in known if k.variable and _arcsec(place, _place(k.variable)) <= _REACH]
        if not hits:
            raise NoCurve(
                f'no observed star within {RADIUS_ARCSEC:g}" of {place[0]:.5f},{place[1]:+.5f}; '
                f"{_stars_there(known)}"
            )
        return _the_one(hits, asked)
    hits = _called(known, words)
    if not hits:
        raise NoCurve(f"no observation of {asked!r}; {_stars_there(known)}")
    looked_up = [k for k in hits if k.variable is not None]
    if not looked_up:
        raise NoCurve(f"no magnitudes of {asked!r} yet: {_endings(hits)}")
    return _the_one(looked_up, asked)


_REACH = RADIUS_ARCSEC * (1 + 1e-9)


def _called(known: Sequence[Known], words: str) -> list[Known]:
    """Return the observations whose star or directory is called so, the best kind of match only."""
    if _OID.fullmatch(words):
        by_number = [k for k in known if k.variable and k.variable.oid == words]
        if by_number:
            return by_number
    if _AUID.fullmatch(words):
        return [k for k in known if k.variable and k.variable.auid == words.upper()]
    spellings = name_variants(words)
    exact = [k for k in known if k.variable and k.variable.name in spellings]
    if exact:
        return exact
    folded = {spelling.casefold() for spelling in spellings}
    by_name = [k for k in known if k.variable and k.variable.name.casefold() in folded]
    _refuse_other_case(words, by_name)
    return by_name or [
        k for k in known if not folded.isdisjoint(map(str.casefold, _directory_names(k)))
    ]


def _directory_names(known: Known) -> tuple[str, ...]:
    return name_variants(known.row.observation.target)


def _refuse_other_case(asked: str, found: Sequence[Known]) -> None:
    """Refuse to take ``R Car`` for ``r Car``, which is another star."""
    spelled = asked.replace("_", " ")
    names = {k.variable.name for k in found if k.variable}
    if _SINGLE_LETTER.fullmatch(spelled) and names and not any(n[0] == spelled[0] for n in names):
        there = ", ".join(sorted(repr(n) for n in names))
        raise NoCurve(f"{asked!r} was asked for and {there} is there, which may be another star")


def _the_one(hits: Sequence[Known], asked: str) -> Variable:
    stars: list[Variable] = []
    for one in reversed(hits):  # the newest first: what is known of a star grows
        if one.variable and not any(same_star(one.variable, star) for star in stars):
            stars.append(one.variable)
    if len(stars) > 1:
        names = ", ".join(sorted(_star_words(star) for star in stars))
        raise NoCurve(
            f"{asked!r} may be {len(stars)} stars: {names}; say the VSX number or the position"
        )
    return stars[0]


def same_star(a: Variable, b: Variable) -> bool:
    """Tell whether two are one star: by VSX number when both have one, else within 10 arcsec."""
    if a.oid and b.oid:
        return a.oid == b.oid
    return _arcsec(_place(a), _place(b)) <= RADIUS_ARCSEC


def parse_position(text: str) -> tuple[float, float] | None:
    """Return RA and Dec in degrees out of ``RA,DEC``; None when `text` is no position.

    Both decimal degrees, or both sexagesimal (RA in hours): ``79.94,-15.2``,
    ``05:19:46.1,-15:12:00``, ``05 19 46.1, -15 12 00``.

    Raises
    ------
    NoCurve
        Two numbers that are no place on the sky.
    """
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 2:
        return None
    if all(_DECIMAL.fullmatch(part) for part in parts):
        ra_deg, dec_deg = map(float, parts)
    else:
        found = [_SEXAGESIMAL.fullmatch(part) for part in parts]
        if found[0] is None or found[1] is None:
            return None
        ra_deg, dec_deg = 15.0 * _value(found[0], text), _value(found[1], text)
    if not (0 <= ra_deg < 360 and -90 <= dec_deg <= 90):
        raise NoCurve(f"{text!r} is no place on the sky: RA 0 to 360 deg, Dec -90 to 90 deg")
    return ra_deg, dec_deg


def _value(found: re.Match[str], text: str) -> float:
    whole, minutes, seconds = (float(found[i]) for i in (2, 3, 4))
    if minutes >= 60 or seconds >= 60:
        raise NoCurve(f"{text!r} is no place on the sky: minutes and seconds are below 60")
    return (-1 if found[1] == "-" else 1) * (whole + minutes / 60 + seconds / 3600)


def _place(star: Variable) -> tuple[float, float]:
    return star.ra_deg, star.dec_deg


def _arcsec(a: tuple[float, float], b: tuple[float, float]) -> float:
    """Return the angle between two places, haversine."""
    ra_a, dec_a, ra_b, dec_b = map(math.radians, (*a, *b))
    half = (
        math.sin((dec_b - dec_a) / 2) ** 2
        + math.cos(dec_a) * math.cos(dec_b) * math.sin((ra_b - ra_a) / 2) ** 2
    )
    return 3600 * math.degrees(2 * math.asin(min(1.0, math.sqrt(half))))


# ------------------------------------------------------------------------------------- the curve


def curve_of(
    observatory: Observatory,
    known: Sequence[Known],
    star: Variable,
    *,
    filters: Collection[str] = (),
    first: dt.date | None = None,
    last: dt.date | None = None,
) -> StarCurve:
    """Return all magnitudes of `star`, of the asked filters or bands and nights only.

    Observations that the status table does not call measured, and products that are gone or
    damaged, are left out and named.

    Raises
    ------
    NoCurve
        Nothing of what was asked for has magnitudes; the message says what is there.
    """
    mine = _observations_of(known, star)
    dated = [k for k in mine if _between(k.row.observation.date, first, last)]
    if not dated:
        days = sorted({k.row.observation.date for k in mine})
        raise NoCurve(f"{star.name} was not observed then: {_days(days)}")
    parts: list[tuple[CurveNight, StandardMagnitudes]] = []
    left_out: list[LeftOut] = []
    bands: dict[str, str | None] = {}
    for one in dated:
        unit = one.row.observation
        found = _magnitudes(observatory, one)
        bands.setdefault(unit.filter, None)
        if isinstance(found, LeftOut):
            left_out.append(found)
        else:
            bands[unit.filter] = found.band
            night = curve_night(unit, found, status=one.row.submitted or str(one.row.apphot))
            parts.append((night, found))
    if filters:
        wanted = _wanted(filters, bands, star)
        parts = [part for part in parts if part[0].filter in wanted]
        left_out = [one for one in left_out if one.filter in wanted]
    if not parts:
        raise NoCurve(
            f"no magnitudes of {star.name} yet: "
            + "; ".join(f"{one.key}: {one.words} ({one.reason})" for one in left_out)
        )
    return concatenate(star, parts, left_out=left_out)


def _observations_of(known: Sequence[Known], star: Variable) -> list[Known]:
    """Return the observations of a star, and those under its names that were never looked up."""
    mine = [k for k in known if k.variable and same_star(k.variable, star)]
    names = {name.casefold() for k in mine for name in _directory_names(k)}
    names |= {name.casefold() for name in name_variants(star.name)}
    return [
        k
        for k in known
        if (k.variable and same_star(k.variable, star))
        or (k.variable is None and not names.isdisjoint(map(str.casefold, _directory_names(k))))
    ]


def _magnitudes(observatory: Observatory, one: Known) -> StandardMagnitudes | LeftOut:
    """Return an observation's magnitudes, or why it has none to show."""
    row = one.row
    if one.damage is not None:
        return _left_out(row, one.damage)
    if row.submitted == REJECTED:
        return _left_out(row, "rejected by the observer")
    if row.apphot not in MEASURED and row.submitted is None:
        return _left_out(row, row.reason or "not finished")
    try:
        magnitudes: StandardMagnitudes = read_product(
            observatory, "standard_magnitudes", row.observation.key
        )
    except FileNotFoundError:
        return _left_out(row, "magnitudes.csv is gone")
    except (UnreadableProduct, UnicodeDecodeError, OSError) as error:
        return _left_out(row, f"magnitudes.csv is damaged: {_short(error)}")
    return as_decided(magnitudes, Decisions(observatory.status.path).points(row.observation.key))


def _left_out(row: TargetRow, reason: str) -> LeftOut:
    unit = row.observation
    words = [row.submitted, row.apphot or row.proc]
    return LeftOut(
        key=unit.key,
        date=unit.date,
        filter=unit.filter,
        words=" ".join(filter(None, words)) or "not done",
        reason=reason,
    )


def _wanted(filters: Collection[str], bands: dict[str, str | None], star: Variable) -> set[str]:
    """Return the header filters that are meant by filters or bands, by case where that tells."""
    wanted: set[str] = set()
    for asked in filters:
        exact = {name for name, band in bands.items() if asked in (name, band)}
        folded = {
            name
            for name, band in bands.items()
            if asked.casefold() in (name.casefold(), (band or "").casefold())
        }
        if not folded:
            there = ", ".join(
                name if band in (None, name) else f"{name} ({band})" for name, band in bands.items()
            )
            raise NoCurve(f"no observation of {star.name} in {asked!r}; there are: {there}")
        wanted |= exact or folded
    return wanted


def _between(date: dt.date, first: dt.date | None, last: dt.date | None) -> bool:
    return (first is None or date >= first) and (last is None or date <= last)


# ------------------------------------------------------------------------------- period and files


def fold_of(observatory: Observatory, curve: StarCurve) -> Fold:
    """Return how to fold a curve: the period that ``[[target]]`` says today, else VSX's.

    Without an epoch phase 0 is the first point's, and the words say so.

    Raises
    ------
    NoCurve
        Nobody says one.
    """
    for night in reversed(curve.nights):
        target = observatory.settings.for_target(night.target)
        if target is not None and target.period_d is not None:
            return _fold(curve, target.period_d, "wombat.toml")
    if curve.variable.period_d:
        return _fold(curve, curve.variable.period_d, curve.variable.source)
    raise NoCurve(
        f"the period of {curve.variable.name} is not known: {curve.variable.source} has none; "
        "period_d of its [[target]] in wombat.toml can say it"
    )


def _fold(curve: StarCurve, period_d: float, source: str) -> Fold:
    epoch = curve.variable.epoch_hjd
    words = f"P = {period_d:.12g} d ({source})"
    if epoch is not None:
        words += f", epoch HJD {epoch:.14g} ({curve.variable.source})"
    else:
        known = curve.hjd_utc[np.isfinite(curve.hjd_utc)]
        if not len(known):
            raise NoCurve(
                f"no HJD of {curve.variable.name} is known, and no epoch: nothing to fold"
            )
        epoch = float(known.min())
        words += f", no epoch known: phase 0 is the first point, HJD {epoch:.5f}"
    return Fold(period_d=period_d, epoch_hjd=epoch, words=words)


def file_stem(known: Sequence[Known], star: Variable) -> str:
    """Return the name of a star's files; ``r Car``'s is not ``R Car``'s on any disk."""
    plain = slug(star.name)
    rivals = {
        k.variable.name
        for k in known
        if k.variable
        and not same_star(k.variable, star)
        and slug(k.variable.name).casefold() == plain.casefold()
    }
    if not rivals:
        return plain
    if star.oid:
        return f"{plain}-{slug(star.oid)}"
    return distinct_slug(star.name, {plain.casefold(): sorted(rivals)[0]})


# ------------------------------------------------------------------------------------- transits


def transit_flux(
    observatory: Observatory, night: CurveNight, *, keep_rejected: bool
) -> NormalisedFlux:
    """Return an observation's normalised flux: of the measurement table, else of the magnitudes.

    Raises
    ------
    NoCurve
        Neither gives two points.
    """
    standard = _product(observatory, "standard_magnitudes", night, "magnitudes.csv")
    if isinstance(standard, str):
        raise NoCurve(f"{night.key}: {standard}")
    standard = as_decided(standard, Decisions(observatory.status.path).points(night.key))
    table = _product(observatory, "photometry_table", night, "the measurement table")
    try:
        if isinstance(table, str):
            log.warning("%s: %s, the flux is made of the magnitudes", night.key, table)
            return magnitude_flux(standard, keep_rejected=keep_rejected)
        reasons = dict(zip(standard.labels, standard.proposed_rejected, strict=True))
        rejected = () if keep_rejected else [reasons.get(label, "") for label in table.labels]
        return relative_flux(table, extra=relative_extra(table), rejected=rejected)
    except ValueError as error:
        raise NoCurve(f"{night.key}: {error}") from error


def transit_facts(
    observatory: Observatory,
    night: CurveNight,
    star: Variable,
    *,
    planet: str | None,
    software: str,
) -> TransitFacts:
    """Return what an exoplanet report says beside its measurements.

    Raises
    ------
    NoCurve
        Something that the report must say is not known; the message names it all.
    """
    missing = []
    code = observatory.settings.observer.code
    if not code:
        missing.append("no observer code: code of [observer] in wombat.toml says it")
    name = planet or planet_of_directory(night.target)
    if name is None:
        missing.append("the planet's name is not known: --planet says it")
    table = _product(observatory, "photometry_table", night, "the measurement table")
    reduction = _product(observatory, "reduced_frames", night, "the record of the reduction")
    missing += [words for words in (table, reduction) if isinstance(words, str)]
    if isinstance(table, PhotometryTable) and not table.band_confirmed:
        missing.append(
            f"filter {night.filter} was taken for {night.band}: filters of [[instrument]] in"
            " wombat.toml must confirm it"
        )
    if not hosts_planet(star.variability_type):
        kind = star.variability_type or "not known"
        missing.insert(0, f"the type of {star.name} is {kind}, EP (planet) wanted")
    if missing or code is None or name is None:
        raise NoCurve(f"{night.key}: {'; '.join(missing)}")
    return TransitFacts(
        observer_code=code,
        software=software,
        star=star,
        planet=name,
        binning=reduction.group.binning,
        exposure_s=table.exposure_s,
        band=table.band,
        camera=table.camera or reduction.group.camera,
        chart_id=table.chart_id,
        comp_names=tuple(table.stars[i].name for i in table.ensemble),
    )


def _product(observatory: Observatory, asset: str, night: CurveNight, name: str) -> Any:
    """Return a product of an observation, or in words why it cannot be had."""
    try:
        return read_product(observatory, asset, night.key)
    except FileNotFoundError:
        return f"{name} is gone"
    except (UnreadableProduct, UnicodeDecodeError, OSError) as error:
        return f"{name} is damaged: {_short(error)}"


# ------------------------------------------------------------------------------------------ words


def _short(error: Exception) -> str:
    line = " ".join(str(error).split())
    return line if len(line) <= 120 else f"{line[:119]}…"


def _star_words(star: Variable) -> str:
    number = f"OID {star.oid}" if star.oid else f"{star.ra_deg:.5f},{star.dec_deg:+.5f}"
    return f"{star.name} ({number})"


def _stars_there(known: Sequence[Known]) -> str:
    stars: dict[str, str] = {}
    for one in known:
        if one.variable:
            stars[one.variable.identity] = one.variable.name
        else:
            stars.setdefault(one.row.observation.target, one.row.observation.target)
    names = sorted(set(stars.values()))
    if not names:
        return "nothing was observed yet"
    more = f" and {len(names) - MAX_STARS_IN_WORDS} more" if len(names) > MAX_STARS_IN_WORDS else ""
    return f"there are: {', '.join(names[:MAX_STARS_IN_WORDS])}{more}"


def _endings(known: Sequence[Known]) -> str:
    return "; ".join(
        f"{one.row.observation.key}: {one.row.apphot or one.row.proc or 'not done'}"
        + (f" ({why})" if (why := one.damage or one.row.reason) else "")
        for one in known
    )


def _days(days: Sequence[dt.date]) -> str:
    if len(days) == 1:
        return f"its one night is {days[0]}"
    return f"its {len(days)} nights are {days[0]} to {days[-1]}"
