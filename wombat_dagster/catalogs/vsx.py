"""The variable star from AAVSO VSX: by name and its spellings, by position, or by configuration.

A name VSX does not know, several stars, and VSX being away are three different endings. Good
answers are kept on disk: within `chart_max_age_days` they serve without network, later ones only
when VSX is away, and that is said in `Variable.notes`. The variables of a field are kept likewise.
Formats: DOMAIN section 1.
"""

import logging
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
from astropy.coordinates import angular_separation

from wombat_dagster.catalogs.base import (
    PROCESS_PACE,
    Answer,
    BadAnswer,
    JsonObject,
    JsonService,
    Pace,
)
from wombat_dagster.catalogs.breaker import Away, Breaker
from wombat_dagster.catalogs.cache import AnswerCache, CachedAnswer, exact_name
from wombat_dagster.catalogs.clock import SYSTEM_CLOCK, Clock
from wombat_dagster.config import AavsoSettings, TargetSettings
from wombat_dagster.domain import (
    AmbiguousVariable,
    KnownVariable,
    UnknownVariable,
    Variable,
    VsxUnavailable,
)

log = logging.getLogger(__name__)

Entry = Mapping[str, Any]
"""One star of VSX: every value is a string, what is not known is not there."""

POSITION_RADIUS_ARCSEC = 10.0
PROBE_STAR = "SS Cyg"
FIELD_LADDER_DEG = (0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0)
"""Radii that are asked for around a field's centre; 5 degrees is where other clients stop."""
FIELD_FAINTER_MAG = 1.0  # beyond the charts' limit: VSX's bands are not theirs
EMPTY_FIELD_MAX_AGE_DAYS = 1.0
CONSTANT_TYPE = "CST"

_MAGNITUDE = re.compile(
    r"^\s*(?P<limit>[<>])?\s*(?P<amplitude>\()?\s*(?P<value>-?\d+(\.\d*)?)\s*(?P<unsure>:)?\s*\)?"
    r"(?P<unsure_too>:)?\s*(?P<band>[^\s:()]+)?\s*$"
)
_FIRST_NUMBER = re.compile(r"-?\d+(\.\d*)?([eE][+-]?\d+)?")
_GSC = re.compile(r"^G(?:SC)?[ _]?0*(\d{1,5})[-. _]0*(\d{1,5})$", re.IGNORECASE)
_GCVS_NUMBER = re.compile(r"^V0*(\d{3,4}) (\w+)$", re.IGNORECASE)
_NOT_VARIABLE = re.compile(r"\bnon\b|\bnot\b|\bconstant\b", re.IGNORECASE)  # in a Category
_SINGLE_LETTER = re.compile(r"^([A-Za-z]) [A-Za-z]{3}$")


class Vsx:
    """Looks variables up in VSX, with a memory in `cache_dir`/vsx."""

    def __init__(
        self,
        settings: AavsoSettings,
        cache_dir: Path,
        *,
        clock: Clock = SYSTEM_CLOCK,
        pace: Pace = PROCESS_PACE,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._cache = AnswerCache(cache_dir / "vsx")
        self._service = JsonService(
            name="VSX",
            urls=settings.vsx_urls,
            unavailable=VsxUnavailable,
            settings=settings,
            breaker=Breaker("VSX", cache_dir, settings, clock),
            clock=clock,
            pace=pace,
            transport=transport,
        )

    def variable(self, name: str, target_settings: TargetSettings | None = None) -> Variable:
        """Return the star a target directory called `name` means.

        What ``[[target]]`` says counts first: a position with a magnitude range needs no VSX
        (unless a VSX name stands beside them; then it replaces an answer that does not come), a
        VSX name replaces the directory's, a position is searched when the name is not known.

        Raises
        ------
        UnknownVariable
            VSX answered and knows none of the spellings; the message lists them.
        AmbiguousVariable
            VSX answered with several stars.
        VsxUnavailable
            VSX is away and the star is not in the cache.
        """
        target = target_settings or TargetSettings(directory=[name])
        own = configured_variable(name, target)
        if own is not None and target.vsx is None:
            return own
        try:
            found = self._by_name(target.vsx or name)
            if found is None:
                found = self._by_position(target)
        except VsxUnavailable:
            if own is None:
                raise
            return replace(own, notes=(f"from wombat.toml alone: {self.note_of_outage()}",))
        if found is None:
            if own is not None:
                return replace(own, notes=(f"VSX does not know {target.vsx!r}",))
            raise UnknownVariable(_unknown_words(target.vsx or name, target))
        return with_target_settings(found, target)

    def variables_around(
        self, ra_deg: float, dec_deg: float, radius_deg: float
    ) -> tuple[KnownVariable, ...]:
        """Return the stars around a place (degrees, J2000) that VSX lists as variable.

        Suspected ones are among them, and whatever stands at the place itself; constant stars are
        not. The radius goes up a ladder, and ends at 5 degrees; stars whose maximum is more than
        1 mag fainter than what charts are asked for are not wanted. An answer serves for
        `chart_max_age_days`, one without stars for a day; with VSX away one of any age does. VSX is
        tried once: the work goes on without it.

        Raises
        ------
        VsxUnavailable
            VSX is away and no answer on disk covers the field.
        BadRequest
            VSX refuses the request.
        """
        radii_deg = [r for r in FIELD_LADDER_DEG if r >= radius_deg] or [FIELD_LADDER_DEG[-1]]
        requests = [self._field_params(ra_deg, dec_deg, r) for r in radii_deg]
        kept = [k for r in requests if (k := self._cache.read(_field_name(r))) is not None]
        newest = max(kept, key=lambda answer: answer.confirmed_utc, default=None)
        if newest is not None:
            stars = known_variables(newest.content)
            limit_days = self._settings.chart_max_age_days if stars else EMPTY_FIELD_MAX_AGE_DAYS
            if newest.age_days(self._clock.now_utc()) <= limit_days:
                return stars
        try:
            answer = self._service.get(requests[0], known_variables, retries=0)
        except VsxUnavailable:
            if newest is None:
                raise
            log.warning("VSX is away, its list of the field's variables: %s", _age_note(newest))
            return known_variables(newest.content)
        self._cache.write(_field_name(requests[0]), _as_kept(requests[0], answer))
        return answer.value

    def _field_params(self, ra_deg: float, dec_deg: float, radius_deg: float) -> dict[str, str]:
        return {
            "view": "api.list",
            "ra": f"{round(ra_deg, 3) % 360.0:.3f}",
            "dec": f"{dec_deg:.3f}",
            "radius": f"{radius_deg:g}",  # degrees
            "tomag": f"{self._settings.maglimit + FIELD_FAINTER_MAG:g}",
            "format": "json",
        }

    def probe(self) -> bool:
        """Return whether VSX answers now; one try per host, nothing is cached.

        It is asked whatever is known of it. An answer ends an outage that is known of, for all
        processes.
        """
        return self._service.probe(_object_params(PROBE_STAR), read_object)

    def probe_due(self) -> bool:
        """Return whether VSX is known to be away and it is time to look whether it still is."""
        return self._service.breaker.due()

    def away(self) -> Away | None:
        """Return the outage that is known of; nobody is asked."""
        return self._service.breaker.away()

    def note_of_outage(self) -> str:
        """Return what a product made meanwhile notes: ``VSX did not answer on 2026-11-21 UTC``."""
        return self._service.breaker.note()

    def _by_name(self, name: str) -> Variable | None:
        spellings = name_variants(name)
        kept = self._kept(spellings, fresh_only=True)
        if kept is not None:
            return kept
        try:
            for spelling in spellings:
                answer = self._service.get(_object_params(spelling), read_object)
                if answer.value:
                    star = the_star_asked_for(spelling, answer.value)
                    self._keep(f"object {spelling}", answer)
                    return _as_variable(star, match=_match(spelling, name))
        except VsxUnavailable:
            kept = self._kept(spellings, fresh_only=False)
            if kept is None:
                raise
            log.warning("%s: VSX is away, its cached answer is used", name)
            return replace(kept, notes=(*kept.notes, self.note_of_outage()))
        return None

    def _by_position(self, target: TargetSettings) -> Variable | None:
        if target.ra_deg is None or target.dec_deg is None:
            return None
        place = f"{target.ra_deg:.5f},{target.dec_deg:+.5f}"
        stars, notes = self._stars_around(target.ra_deg, target.dec_deg)
        near = [
            star
            for star in stars
            if _separation_arcsec(target.ra_deg, target.dec_deg, star) <= POSITION_RADIUS_ARCSEC
        ]
        if len(near) > 1:
            raise AmbiguousVariable(
                f'VSX has {len(near)} stars within {POSITION_RADIUS_ARCSEC:g}" of {place}, '
                f"one wanted: {_names(near)}"
            )
        return replace(_as_variable(near[0], match="position"), notes=notes) if near else None

    def _stars_around(self, ra_deg: float, dec_deg: float) -> tuple[list[Entry], tuple[str, ...]]:
        """Return the stars of VSX at a place, and notes on where they come from."""
        asked = f"list {ra_deg:.5f},{dec_deg:+.5f}"
        kept = self._cache.read(exact_name(asked))
        if kept is not None and self._is_fresh(kept):
            return read_list(kept.content), ()
        try:
            answer = self._service.get(_list_params(ra_deg, dec_deg), read_list)
        except VsxUnavailable as away:
            if kept is None:
                raise
            return read_list(kept.content), (_age_note(kept), str(away))
        if answer.value:
            self._keep(asked, answer)
        return answer.value, ()

    def _kept(self, spellings: Sequence[str], *, fresh_only: bool) -> Variable | None:
        for spelling in spellings:
            kept = self._cache.read(exact_name(f"object {spelling}"))
            if kept is None or (fresh_only and not self._is_fresh(kept)):
                continue
            star = the_star_asked_for(spelling, read_object(kept.content))
            variable = _as_variable(star, match=_match(spelling, spellings[0]))
            return variable if fresh_only else replace(variable, notes=(_age_note(kept),))
        return None

    def _is_fresh(self, kept: CachedAnswer) -> bool:
        return kept.age_days(self._clock.now_utc()) <= self._settings.chart_max_age_days

    def _keep(self, asked: str, answer: Answer[list[Entry]]) -> None:
        self._cache.write(exact_name(asked), _as_kept({"asked": asked}, answer))


def _as_kept(request: Mapping[str, str], answer: Answer[Any]) -> CachedAnswer:
    return CachedAnswer(
        request=request,
        url=answer.url,
        fetched_utc=answer.fetched_utc,
        confirmed_utc=answer.fetched_utc,
        content=answer.content,
    )


def _field_name(request: Mapping[str, str]) -> str:
    return exact_name("field {ra},{dec} {radius} {tomag}".format(**request))


# --------------------------------------------------------------------------------------- spellings


def name_variants(name: str) -> tuple[str, ...]:
    """Return the spellings of `name` to try, the name itself first, each once.

    ``V730_Ori`` gives ``V730 Ori`` and ``V0730 Ori``, ``G5903.00430`` gives ``GSC 05903-00430``.
    """
    raw = name.strip()
    spaced = " ".join(raw.replace("_", " ").split())
    spellings = [raw, spaced]
    if gsc := _GSC.match(spaced):
        spellings.append(f"GSC {int(gsc[1]):05d}-{int(gsc[2]):05d}")
    if gcvs := _GCVS_NUMBER.match(spaced):
        spellings += [f"V{int(gcvs[1]):04d} {gcvs[2]}", f"V{int(gcvs[1])} {gcvs[2]}"]
    return tuple(dict.fromkeys(spellings))


def _match(spelling: str, name: str) -> str:
    return "name" if spelling == name.strip() else "variant"


def the_star_asked_for(asked: str, stars: Sequence[Entry]) -> Entry:
    """Return the one of `stars` that `asked` means, by the letter where only case tells them apart.

    ``R Car`` (a Mira) and ``r Car`` are two stars, and VSX takes one for the other.

    Raises
    ------
    AmbiguousVariable
        Several stars and none, or more than one, is spelled exactly so; or the one star's name
        differs by the case of its single letter.
    """
    exact = [star for star in stars if _name(star) == asked]
    if len(exact) == 1:
        return exact[0]
    if len(stars) > 1:
        raise AmbiguousVariable(
            f"VSX has {len(stars)} stars called {asked!r}, one wanted: {_names(stars)}"
        )
    answered = _name(stars[0])
    other_case = asked[0] != answered[0] and asked.casefold() == answered.casefold()
    if other_case and _SINGLE_LETTER.match(asked):
        raise AmbiguousVariable(
            f"{asked!r} was asked for and VSX answered {answered!r}, which may be another star"
        )
    return stars[0]


# ----------------------------------------------------------------------------------------- answers


def read_object(content: JsonObject) -> list[Entry]:
    """Return the stars of an ``api.object`` answer; empty when the name is not known."""
    if "VSXObject" not in content:
        raise BadAnswer(f"no VSXObject among {sorted(content)}")
    return _entries(content["VSXObject"])


def read_list(content: JsonObject) -> list[Entry]:
    """Return the stars of an ``api.list`` answer; empty when nothing is there."""
    return _entries(_listed(content))


def known_variables(content: JsonObject) -> tuple[KnownVariable, ...]:
    """Return the stars of an ``api.list`` answer that are no constant ones, in its order.

    One star that cannot be read is left out, logged. A suspected variable's type says so.
    """
    stars = []
    for entry in _in_list(_listed(content)):
        try:
            _check(entry)
        except BadAnswer as fault:
            log.warning("VSX: a star of the field is left out, %s", fault)
            continue
        if not is_constant(entry):
            stars.append(_as_known(entry))
    return tuple(stars)


def is_constant(star: Entry) -> bool:
    """Return whether VSX keeps a star that it found constant, or that does not exist.

    Its type is ``CST`` and nothing beside it (``CST|EA`` may be an eclipsing star), or its category
    says that it is none.
    """
    types = re.split(r"[|/+]", (_text(star, "VariabilityType") or "").replace(":", ""))
    category = _text(star, "Category") or ""
    return {t.strip() for t in types} == {CONSTANT_TYPE} or bool(_NOT_VARIABLE.search(category))


def _as_known(star: Entry) -> KnownVariable:
    ra_deg, dec_deg = _position(star)
    kind = _text(star, "VariabilityType")
    if (_text(star, "Category") or "").casefold() == "suspected":
        kind = f"{kind}, suspected" if kind else "suspected"
    return KnownVariable(
        name=_name(star),
        ra_deg=ra_deg,
        dec_deg=dec_deg,
        auid=_text(star, "AUID"),
        variability_type=kind,
    )


def _listed(content: JsonObject) -> object:
    stars = content.get("VSXObjects")
    if isinstance(stars, Mapping):
        return stars.get("VSXObject", [])
    if stars == []:
        return []
    raise BadAnswer(f"no VSXObjects among {sorted(content)}")


def _in_list(found: object) -> list[Any]:
    """Return a list of stars: VSX gives one as an object, several as a list, none as ``[]``."""
    entries = [found] if isinstance(found, Mapping) else found
    if not isinstance(entries, list):
        raise BadAnswer(f"VSXObject is {type(found).__name__}")
    return [entry for entry in entries if entry]


def _entries(found: object) -> list[Entry]:
    stars = _in_list(found)
    for star in stars:
        _check(star)
    return stars


def _check(star: object) -> None:
    """Raise BadAnswer unless `star` has a name and a place."""
    if not isinstance(star, Mapping):
        raise BadAnswer(f"a star is {type(star).__name__}")
    for key in ("Name", "RA2000", "Declination2000"):
        if key not in star:
            raise BadAnswer(f"a star without {key}: {dict(star)}")
    _position(star)


def _as_variable(star: Entry, *, match: str) -> Variable:
    bright, bright_band, is_amplitude = magnitude(star.get("MaxMag"))
    if is_amplitude:
        bright = None  # a maximum that is an amplitude says nothing
    faint, faint_band, is_amplitude = magnitude(star.get("MinMag"))
    if faint is not None and is_amplitude:
        faint = None if bright is None else round(bright + faint, 4)
    ra_deg, dec_deg = _position(star)
    return Variable(
        name=_name(star),
        ra_deg=ra_deg,
        dec_deg=dec_deg,
        pm_ra_mas_yr=first_number(star.get("ProperMotionRA")),
        pm_dec_mas_yr=first_number(star.get("ProperMotionDec")),
        auid=_text(star, "AUID"),
        oid=_text(star, "OID"),
        variability_type=_text(star, "VariabilityType"),
        period_d=first_number(star.get("Period")),
        epoch_hjd=first_number(star.get("Epoch")),
        period_text=_text(star, "Period"),
        epoch_text=_text(star, "Epoch"),
        eclipse_duration_percent=first_number(star.get("EclipseDuration")),
        mag_bright_is_limit=bright is not None and _is_limit(star.get("MaxMag")),
        mag_faint_is_limit=faint is not None and _is_limit(star.get("MinMag")),
        mag_bright=bright,
        mag_faint=faint,
        mag_bright_band=bright_band if bright is not None else None,
        mag_faint_band=faint_band if faint is not None else None,
        match=match,
    )


def magnitude(text: str | None) -> tuple[float | None, str | None, bool]:
    """Return value, band and whether it is an amplitude, of ``12.5: V``, ``>14.3 V``, ``(0.2) B``.

    ``?``, nothing, and what cannot be read have the value None. A limit counts as its number.
    """
    found = _MAGNITUDE.match(text or "")
    if found is None:
        return None, None, False
    return float(found["value"]), found["band"], found["amplitude"] is not None


def _is_limit(text: str | None) -> bool:
    found = _MAGNITUDE.match(text or "")
    return found is not None and found["limit"] is not None


def first_number(text: str | None) -> float | None:
    """Return the number in ``95:``, ``>300``, ``(0.5)``; None where there is none."""
    found = _FIRST_NUMBER.search(text or "")
    return float(found[0]) if found else None


def _position(star: Entry) -> tuple[float, float]:
    """Return RA and Dec (J2000) in degrees."""
    try:
        return float(star["RA2000"]), float(star["Declination2000"])
    except (TypeError, ValueError) as error:
        raise BadAnswer(f"a star without a usable position: {dict(star)}") from error


def _name(star: Entry) -> str:
    """Return the star's name on one line: Gaia names come with a line break inside."""
    return " ".join(str(star["Name"]).split())


def _names(stars: Sequence[Entry]) -> str:
    return ", ".join(f"{_name(star)} (OID {_text(star, 'OID') or '?'})" for star in stars)


def _text(star: Entry, key: str) -> str | None:
    return str(star.get(key) or "").strip() or None


# ----------------------------------------------------------------------------------- configuration


def configured_variable(name: str, target: TargetSettings) -> Variable | None:
    """Return the star as ``[[target]]`` gives it; None unless position and range are both there."""
    if target.ra_deg is None or target.dec_deg is None or target.mag_range is None:
        return None
    star = Variable(
        name=target.vsx or name,
        ra_deg=target.ra_deg,
        dec_deg=target.dec_deg,
        match="configuration",
        source="wombat.toml",
    )
    return with_target_settings(star, target)


def with_target_settings(star: Variable, target: TargetSettings) -> Variable:
    """Return `star` with the range and period the observer gave in place of VSX's."""
    if target.mag_range is not None:
        star = replace(
            star,
            mag_bright=min(target.mag_range),
            mag_faint=max(target.mag_range),
            mag_bright_band="V",
            mag_faint_band="V",
            mag_bright_is_limit=False,
            mag_faint_is_limit=False,
        )
    if target.period_d is not None:
        star = replace(star, period_d=target.period_d, period_text=None)
    return star


# ---------------------------------------------------------------------------------------- requests


def _object_params(name: str) -> dict[str, str]:
    return {"view": "api.object", "ident": name, "format": "json"}


def _list_params(ra_deg: float, dec_deg: float) -> dict[str, str]:
    return {
        "view": "api.list",
        "ra": f"{ra_deg:.5f}",
        "dec": f"{dec_deg:.5f}",
        "radius": f"{POSITION_RADIUS_ARCSEC / 3600.0:.6f}",  # degrees
        "format": "json",
    }


def _separation_arcsec(ra_deg: float, dec_deg: float, star: Entry) -> float:
    """Return the angle between a place and a star."""
    lon, lat, star_lon, star_lat = map(math.radians, (ra_deg, dec_deg, *_position(star)))
    return 3600.0 * math.degrees(angular_separation(lon, lat, star_lon, star_lat))


def _unknown_words(name: str, target: TargetSettings) -> str:
    tried = ", ".join(repr(spelling) for spelling in name_variants(name))
    if target.ra_deg is None:
        return f"VSX knows none of {tried}; [[target]] in wombat.toml can say which star is meant"
    return (
        f"VSX knows none of {tried} and has no star within "
        f'{POSITION_RADIUS_ARCSEC:g}" of {target.ra_deg:.5f},{target.dec_deg:+.5f}'
    )


def _age_note(kept: CachedAnswer) -> str:
    return f"VSX answer of {kept.confirmed_utc} from the cache"
