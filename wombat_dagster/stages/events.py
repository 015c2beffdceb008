"""What the observer is told of at once: a star out of its range, an eclipse ahead.

Found where magnitudes are made (`note_brightness`) and where somebody looks (`look`: ``wombat
events``, a sensor once an hour). Told by the command of ``[events]``, in Dagster as a check of the
standard magnitudes, and on the page. An event is told once, whatever is made again.
"""

import datetime as dt
import json
import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wombat_dagster.domain import Apphot, Observation, StandardMagnitudes, Submitted, Variable
from wombat_dagster.observatory import Observatory
from wombat_dagster.products import read_product
from wombat_dagster.science.brightness import (
    NightBrightness,
    Range,
    brighter_by_mag,
    catalogue_range,
    fainter_by_mag,
    history_range,
    night_brightness,
)
from wombat_dagster.stages.curve import same_star
from wombat_dagster.stages.decisions import kept
from wombat_dagster.store.decisions import Decisions
from wombat_dagster.store.events import Event, EventKind, Events, NightRow
from wombat_dagster.store.hook import HookFailed, give
from wombat_dagster.store.locks import held, is_held
from wombat_dagster.store.status import TargetRow
from wombat_dagster.store.tables import UnreadableProduct

log = logging.getLogger(__name__)

OBSERVED_WITHIN = dt.timedelta(days=60)  # stars whose eclipses are foretold
TELL_WITHIN = dt.timedelta(days=7)  # what could not be told for so long is no news
COMMAND_LIMIT_S = 30.0
LOOK_EVERY_S = 3600.0
MINUTES_PER_DAY = 1440.0
JD_OF_1970 = 2440587.5
LOCK = "events.lock"
LOOKED = "events.looked"
FAILED = "events.failed"
PATIENCE_S = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What a look found: eclipses that are new or known, and which stars' cannot be foretold."""

    n_eclipses: int
    not_foretold: tuple[str, ...]  # star and reason in words


# ---------------------------------------------------------------------------- brighter or fainter


def note_brightness(
    observatory: Observatory,
    observation: Observation,
    star: Variable,
    magnitudes: StandardMagnitudes,
    *,
    now_utc: dt.datetime | None = None,
) -> tuple[str, ...]:
    """Write down whether a night is brighter or fainter than the star's history or VSX's range.

    Returns
    -------
    tuple of str
        The events in words; what was one before and is no longer is taken back.
    """
    settings, events = observatory.settings.events, Events(observatory.status.path)
    now = now_utc or dt.datetime.now(dt.UTC)
    points = Decisions(observatory.status.path).points(observation.key)
    tonight = night_brightness(magnitudes, kept(magnitudes, points))
    found: dict[EventKind, str] = {}
    if tonight is not None:
        ranges = _ranges(observatory, observation, star, magnitudes.band)
        for kind, excess, more_mag in (
            (EventKind.BRIGHTER, brighter_by_mag, settings.brighter_mag),
            (EventKind.FAINTER, fainter_by_mag, settings.fainter_mag),
        ):
            if more_mag is not None:
                words = _departures(tonight, ranges, excess, more_mag, kind)
                if words:
                    found[kind] = _night_words(star, magnitudes, tonight) + "; ".join(words)
    row = observatory.status.target_row(observation.key)
    for kind in (EventKind.BRIGHTER, EventKind.FAINTER):
        signature = f"{kind}:{observation.key}"
        if kind in found:
            events.record(
                kind,
                signature,
                key=observation.key,
                words=found[kind],
                now_utc=now,
                is_seen=row.submitted is not None,
            )
        else:
            events.withdraw([signature])
    return tuple(found.values())


def _departures(
    tonight: NightBrightness,
    ranges: Sequence[tuple[Range, str]],
    excess: Callable[[NightBrightness, Range, float], float | None],
    more_mag: float,
    kind: EventKind,
) -> list[str]:
    by_mag = [(excess(tonight, usual, more_mag), words) for usual, words in ranges]
    return [f"{by:.2f} mag {kind} than {words}" for by, words in by_mag if by is not None]


def _night_words(star: Variable, magnitudes: StandardMagnitudes, tonight: NightBrightness) -> str:
    held_back = ", held: T2 is off" if magnitudes.held_reason else ""
    n = tonight.n_points
    if tonight.is_limit:
        points = f"not seen, < {tonight.faint_mag:.2f} ({n} upper limit{'s' if n > 1 else ''}"
    else:
        points = f"{tonight.median_mag:.2f} (median of {n} point{'s' if n > 1 else ''}"
    return f"{star.name} {magnitudes.band} {points}{held_back}): "


def _ranges(
    observatory: Observatory, observation: Observation, star: Variable, band: str
) -> list[tuple[Range, str]]:
    """Return the ranges that a night is held against, each with its words."""
    ranges = []
    nights = earlier_nights(observatory, observation, star, band)
    history = history_range(nights)
    if history is not None:
        words = f"on its {len(nights)} earlier nights ({history.bright_mag:.2f} to"
        ranges.append((history, f"{words} {history.faint_mag:.2f})"))
    catalogue = catalogue_range(
        band,
        bright_mag=None if star.mag_bright_is_limit else star.mag_bright,
        bright_band=star.mag_bright_band,
        faint_mag=None if star.mag_faint_is_limit else star.mag_faint,
        faint_band=star.mag_faint_band,
    )
    if catalogue is not None:
        ranges.append((catalogue, f"the range of {star.source} ({_range_words(star)})"))
    return ranges


def _range_words(star: Variable) -> str:
    ends = (star.mag_bright, star.mag_bright_band), (star.mag_faint, star.mag_faint_band)
    return " to ".join("?" if m is None else f"{m:.2f} {band or ''}".strip() for m, band in ends)


def earlier_nights(
    observatory: Observatory, observation: Observation, star: Variable, band: str
) -> list[NightBrightness]:
    """Return how bright the star was in `band` on the nights before, oldest first.

    Nights that are held or rejected by the observer, or without a good point, are left out. A file
    is read once for every version of it: afterwards the database knows.
    """
    before = [
        row
        for row in _rows_of_star(observatory, star)
        if row.observation.date < observation.date
        and row.submitted != Submitted.REJECTED
        and (row.apphot == Apphot.VALIDATE or row.submitted)
    ]
    nights = _night_rows(observatory, [row.observation.key for row in before])
    return [
        NightBrightness(
            n_points=night.n_points,
            median_mag=night.median_mag,
            bright_mag=night.bright_mag,
            faint_mag=night.faint_mag,
            error_mag=night.error_mag,
            is_limit=night.is_limit,
        )
        for row in before
        if (night := nights.get(row.observation.key)) is not None
        and night.band == band
        and night.median_mag is not None
        and night.bright_mag is not None
        and night.faint_mag is not None
        and night.error_mag is not None
    ]


def _rows_of_star(observatory: Observatory, star: Variable) -> list[TargetRow]:
    """Return the observations of a star, oldest first."""
    rows = observatory.status.targets()
    stars = _stars_of(observatory, [row.observation.key for row in rows])
    return [row for row in rows if (one := stars.get(row.observation.key)) and same_star(one, star)]


def _stars_of(observatory: Observatory, keys: Collection[str]) -> dict[str, Variable]:
    """Return the stars of observations by key, those that are known.

    Observations with the same version of `variable` share its content: one file of each is read.
    """
    versions = observatory.status.product_versions("variable")
    together = defaultdict(list)
    for key in keys:
        if key in versions:
            together[versions[key]].append(key)
    found: dict[str, Variable] = {}
    for alike in together.values():
        star = next((s for key in alike if (s := _read(observatory, "variable", key))), None)
        if star is not None:
            found |= dict.fromkeys(alike, star)
    return found


def _night_rows(observatory: Observatory, keys: Collection[str]) -> dict[str, NightRow]:
    """Return how bright nights were by key; files that are not known as they are now are read.

    Points that the person rejected or restored since make another version of a night.
    """
    events, decisions = Events(observatory.status.path), Decisions(observatory.status.path)
    versions = observatory.status.product_versions("standard_magnitudes")
    decided = decisions.last_ids()
    known = events.nights()
    nights, new = {}, []
    for key in keys:
        version = f"{versions.get(key, 'gone')}+{decided.get(key, 0)}"
        if key in known and known[key].version == version:
            nights[key] = known[key]
            continue
        magnitudes = _read(observatory, "standard_magnitudes", key)
        if magnitudes is not None:
            fit = kept(magnitudes, decisions.points(key))
            new.append(_night_row(key, version, magnitudes.band, night_brightness(magnitudes, fit)))
    events.remember_nights(new)
    return nights | {row.key: row for row in new}


def _night_row(key: str, version: str, band: str, night: NightBrightness | None) -> NightRow:
    return NightRow(
        key=key,
        version=version,
        band=band,
        n_points=0 if night is None else night.n_points,
        median_mag=None if night is None else night.median_mag,
        bright_mag=None if night is None else night.bright_mag,
        faint_mag=None if night is None else night.faint_mag,
        error_mag=None if night is None else night.error_mag,
        is_limit=night is not None and night.is_limit,
    )


def _read(observatory: Observatory, asset: str, key: str) -> Any:
    """Return a product, None when it is gone or damaged."""
    try:
        return read_product(observatory, asset, key)
    except FileNotFoundError:
        return None
    except (UnreadableProduct, OSError) as damage:
        log.warning("%s: %s is left out of its star's history: %s", key, asset, damage)
        return None


# --------------------------------------------------------------------------------- eclipses ahead


def note_eclipses(observatory: Observatory, *, now_utc: dt.datetime | None = None) -> Outlook:
    """Write down the next eclipse that can be seen of every star observed in the last 60 days.

    Within ``[events] eclipse_ahead_h`` hours, at the ``[site]``.
    """
    from wombat_dagster.science.ephemeris import NoPrediction, is_eclipsing

    now = now_utc or dt.datetime.now(dt.UTC)
    if not observatory.settings.events.eclipse_ahead_h:
        return Outlook(n_eclipses=0, not_foretold=())
    stars = [s for s in _observed_lately(observatory, now) if is_eclipsing(s[1].variability_type)]
    if stars and observatory.settings.site is None:
        words = "no eclipse is foretold: there is no [site] in wombat.toml"
        return Outlook(n_eclipses=0, not_foretold=(words,))
    n_found, in_vain = 0, []
    for row, star in stars:
        try:
            n_found += _note_eclipse(observatory, row.observation, star, now)
        except NoPrediction as why:
            in_vain.append(f"{star.name}: {why} ({_period_source(observatory, row, star)})")
    return Outlook(n_eclipses=n_found, not_foretold=tuple(in_vain))


def _observed_lately(
    observatory: Observatory, now: dt.datetime
) -> list[tuple[TargetRow, Variable]]:
    """Return the stars of the last nights, each with its newest observation."""
    since = (now - OBSERVED_WITHIN).date()
    rows = [row for row in observatory.status.targets() if row.observation.date >= since]
    stars = _stars_of(observatory, [row.observation.key for row in rows])
    found: list[tuple[TargetRow, Variable]] = []
    for row in reversed(rows):
        star = stars.get(row.observation.key)
        if star is not None and not any(same_star(star, other) for _, other in found):
            found.append((row, star))
    return found


def _note_eclipse(
    observatory: Observatory, observation: Observation, star: Variable, now: dt.datetime
) -> bool:
    """Write down the next eclipse of a star; return whether there is one. Raises NoPrediction."""
    from wombat_dagster.science import ephemeris as science

    settings = observatory.settings
    assert settings.site is not None
    period, epoch = written_ephemeris(observatory, observation.target, star)
    ephemeris = science.read_ephemeris(period, epoch)
    jd = JD_OF_1970 + now.timestamp() / 86400.0
    ahead = science.observable_minima(
        ephemeris,
        ra_deg=star.ra_deg,
        dec_deg=star.dec_deg,
        pm_ra_mas_yr=star.pm_ra_mas_yr,
        pm_dec_mas_yr=star.pm_dec_mas_yr,
        site=settings.site.site(),
        first_jd=jd,
        last_jd=jd + settings.events.eclipse_ahead_h / 24.0,
    )
    if not ahead:
        return False
    first = ahead[0]
    at_utc = dt.datetime.fromtimestamp((first.jd_utc - JD_OF_1970) * 86400.0, dt.UTC)
    what = "transit" if science.is_transiting(star.variability_type) else "eclipse"
    minutes = max(1, math.ceil(first.error_d * MINUTES_PER_DAY))
    words = (
        f"{what} of {star.name} at {at_utc + dt.timedelta(seconds=30):%Y-%m-%d %H:%M} UT"
        f" ± {minutes} min, altitude {first.altitude_deg:.0f} deg"
    )
    lasts_h = science.eclipse_hours(star.eclipse_duration_percent, ephemeris.period_d)
    if lasts_h is not None:
        words += f", lasts {lasts_h:.1f} h"
    if not science.is_surely_eclipsing(star.variability_type):
        words += f", if it is one: type {star.variability_type}"
    Events(observatory.status.path).record(
        EventKind.ECLIPSE,
        f"{EventKind.ECLIPSE}:{star.identity}:{period}:{epoch}:{first.cycle}",
        key=observation.key,
        words=words,
        now_utc=now,
        at_utc=at_utc,
    )
    return True


def written_ephemeris(
    observatory: Observatory, target: str, star: Variable
) -> tuple[str | None, str | None]:
    """Return period and epoch of a star as they are written; what wombat.toml says comes first.

    A number that lost its trailing zeros counts as less exact than it was, never as more.
    """
    own = observatory.settings.for_target(target)
    if own is not None and own.period_d is not None:
        return _written(own.period_d), star.epoch_text or _written(star.epoch_hjd)
    return (
        star.period_text or _written(star.period_d),
        star.epoch_text or _written(star.epoch_hjd),
    )


def _written(number: float | None) -> str | None:
    return None if number is None else f"{number:.15g}"


def _period_source(observatory: Observatory, row: TargetRow, star: Variable) -> str:
    own = observatory.settings.for_target(row.observation.target)
    return "wombat.toml" if own is not None and own.period_d is not None else star.source


# ----------------------------------------------------------------------------------------- telling


def look(observatory: Observatory, *, now_utc: dt.datetime | None = None) -> Outlook:
    """Look for eclipses ahead, and tell the observer's command what it was not told yet."""
    now = now_utc or dt.datetime.now(dt.UTC)
    mark = _beside_cache(observatory, LOOKED)
    mark.parent.mkdir(parents=True, exist_ok=True)
    mark.touch()
    outlook = note_eclipses(observatory, now_utc=now)
    tell(observatory, now_utc=now)
    return outlook


def is_look_due(observatory: Observatory) -> bool:
    """Tell whether the last look, by whatever process, was more than an hour ago."""
    mark = _beside_cache(observatory, LOOKED)
    return not mark.exists() or not 0 <= time.time() - mark.stat().st_mtime < LOOK_EVERY_S


def tell_soon(observatory: Observatory, *, now_utc: dt.datetime | None = None) -> int:
    """`tell`, unless the command failed within the last ten minutes: a run does not wait for it."""
    failed = _beside_cache(observatory, FAILED)
    if failed.exists() and 0 <= time.time() - failed.stat().st_mtime < PATIENCE_S:
        return 0
    return tell(observatory, now_utc=now_utc)


def tell(observatory: Observatory, *, now_utc: dt.datetime | None = None) -> int:
    """Give the command of ``[events]`` each event that is new; return how many it took.

    As JSON on its standard input, one program at a time, also between processes: while another one
    tells, this one leaves it to it. Where the command fails it is logged, and the rest is told at
    the next look. Eclipses that are over, and events of more than a week ago, are not told.
    """
    command = observatory.settings.events.command
    now = now_utc or dt.datetime.now(dt.UTC)
    lock, failed = (_beside_cache(observatory, name) for name in (LOCK, FAILED))
    if not command or is_held(lock):
        return 0
    events, n_told = Events(observatory.status.path), 0
    with held(lock):
        for event in events.untold(now - TELL_WITHIN):
            if event.is_past(now):
                continue
            try:
                give(
                    command,
                    json.dumps(_facts(observatory, event), ensure_ascii=False) + "\n",
                    folder=observatory.settings.base,
                    timeout_s=COMMAND_LIMIT_S,
                )
            except HookFailed as failure:
                failed.touch()
                log.warning("[events] command, tried again at the next look: %s", failure)
                return n_told
            events.mark_told(event.id, now)
            failed.unlink(missing_ok=True)
            n_told += 1
    return n_told


def _beside_cache(observatory: Observatory, name: str) -> Path:
    return observatory.layout.cache / name


def _facts(observatory: Observatory, event: Event) -> dict[str, str | None]:
    """Return what the command is given of an event."""
    try:
        unit = observatory.status.target_row(event.key).observation
    except KeyError:  # its row was merged into another
        unit = None
    return {
        "kind": event.kind.value,
        "words": event.words,
        "observation": event.key,
        "night": None if unit is None else unit.date.isoformat(),
        "target": None if unit is None else unit.target,
        "filter": None if unit is None else unit.filter,
        "found_utc": event.made_utc,
        "at_utc": event.at_utc,
    }


# ------------------------------------------------------------------------------------- for people


def events_words(observatory: Observatory, key: str) -> str | None:
    """Return what stands out of one observation, for its check in Dagster; None: nothing."""
    events = Events(observatory.status.path).of(key)
    found = [e.words for e in events if e.kind is not EventKind.ECLIPSE and not e.is_withdrawn]
    return "; ".join(found) or None
