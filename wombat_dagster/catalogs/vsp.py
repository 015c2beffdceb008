"""Comparison stars: the photometry of an AAVSO VSP chart, and the charts kept on disk.

The rules of asking (DOMAIN section 2) live here, so that one chart serves many nights: the centre
is rounded to 0.001 degrees, the field goes up a short ladder, and VSP is never asked by name (one
client's tests document a VSP that hangs on ``star=``). A valid answer without stars is a
`CompSequence` without stars, never an outage; what that means, the caller decides.
"""

import hashlib
import json
import logging
import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
from astropy.coordinates import angular_separation

from wombat_dagster.catalogs.base import (
    PROCESS_PACE,
    SYSTEM_CLOCK,
    BadAnswer,
    Clock,
    JsonObject,
    JsonService,
    Pace,
)
from wombat_dagster.catalogs.cache import AnswerCache, CachedAnswer
from wombat_dagster.config import AavsoSettings
from wombat_dagster.domain import (
    BandMagnitude,
    CompSequence,
    CompStar,
    VspUnavailable,
    slug,
)

log = logging.getLogger(__name__)

FOV_LADDER_ARCMIN = (10.0, 15.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 180.0)
"""VSP refuses wider fields unless maglimit <= 12."""
EMPTY_CHART_MAX_AGE_DAYS = 1.0
"""A field without comparison stars is asked for again soon: one can ask the AAVSO for a sequence.
Beyond this age it does not stand in for VSP either: an outage must not become `nocomps`."""
SPECIAL, STANDARD_FIELD = "special", "std_field"
"""The parameter of VSP, and its value that gives the stars of a standard field alone."""
PROBE_FIELD = {"ra": "132.838", "dec": "11.801", "fov": "10", "maglimit": "12"}  # M 67

_SEXAGESIMAL = re.compile(r"^\s*([+-]?)\s*(\d+)[: ](\d+)[: ](\d+(?:\.\d*)?)\s*$")


def chart_fov_arcmin(needed_arcmin: float) -> float:
    """Return the field to ask for: the next step of the ladder, at most 180 arcmin.

    `needed_arcmin` is twice the largest distance from the target to a corner of a frame. A wider
    frame gets comps from its inner 180 arcmin; the caller says so.
    """
    for step in FOV_LADDER_ARCMIN:
        if needed_arcmin <= step:
            return step
    return FOV_LADDER_ARCMIN[-1]


class Vsp:
    """Fetches charts from VSP, with a memory in `cache_dir`/vsp."""

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
        self._cache = AnswerCache(cache_dir / "vsp")
        self._service = JsonService(
            name="VSP",
            urls=settings.vsp_urls,
            unavailable=VspUnavailable,
            settings=settings,
            clock=clock,
            pace=pace,
            transport=transport,
        )

    def chart(
        self,
        ra_deg: float,
        dec_deg: float,
        fov_arcmin: float,
        maglimit: float,
        *,
        standard_field: bool = False,
    ) -> CompSequence:
        """Return the comparison stars around a place (degrees, J2000) brighter than `maglimit`.

        Of a `standard_field` only its standard stars.

        A chart on disk serves when what *it* was asked for covers this request and VSP gave it less
        than `chart_max_age_days` ago; an older one is asked for again and kept if its stars are the
        same. With VSP away the newest covering chart serves whatever its age, which `notes` says.

        Raises
        ------
        VspUnavailable
            VSP is away and no chart on disk covers the request.
        BadRequest
            VSP refuses the request.
        """
        wanted = _request(ra_deg, dec_deg, fov_arcmin, maglimit, standard_field)
        kept = self._newest_covering(wanted)
        if kept is None:
            return self._fetch(wanted)
        name, cached = kept
        sequence = _as_sequence(cached)
        age_days = cached.age_days(self._clock.now_utc())
        limit_days = (
            self._settings.chart_max_age_days if sequence.stars else EMPTY_CHART_MAX_AGE_DAYS
        )
        if age_days <= limit_days:
            return sequence
        try:
            return self._fetch(cached.request, known=(name, cached))
        except VspUnavailable as away:
            if not sequence.stars:
                raise
            log.warning("VSP is away, chart %s from the cache is used", sequence.chart_id)
            note = (
                f"chart {sequence.chart_id} from the cache, VSP last gave it {age_days:.0f} days "
                f"ago ({cached.confirmed_utc})"
            )
            return replace(sequence, notes=(note, str(away)))

    def probe(self) -> bool:
        """Return whether VSP answers a small request; one try per host, nothing is cached."""
        try:
            self._service.get({**PROBE_FIELD, "format": "json"}, read_chart, retries=0)
        except VspUnavailable:
            return False
        return True

    def _newest_covering(self, wanted: Mapping[str, Any]) -> tuple[str, CachedAnswer] | None:
        covering = [
            (name, kept) for name, kept in self._cache.all() if covers(kept.request, wanted)
        ]
        return max(covering, key=lambda pair: (pair[1].fetched_utc, pair[0]), default=None)

    def _fetch(
        self, request: Mapping[str, Any], *, known: tuple[str, CachedAnswer] | None = None
    ) -> CompSequence:
        """Ask VSP and keep the answer; with the same stars `known`, an older one, stays."""
        special = {SPECIAL: request[SPECIAL]} if SPECIAL in request else {}
        answer = self._service.get(
            {
                "ra": f"{request['ra_deg']:.3f}",
                "dec": f"{request['dec_deg']:.3f}",
                "fov": f"{request['fov_arcmin']:g}",
                "maglimit": f"{request['maglimit']:g}",
                "format": "json",
                **special,
            },
            read_chart,
        )
        fetched = CachedAnswer(
            request=request,
            url=answer.url,
            fetched_utc=answer.fetched_utc,
            confirmed_utc=answer.fetched_utc,
            content=answer.content,
        )
        sequence = _as_sequence(fetched)
        if known is not None:
            name, kept = known
            if stars_hash(_as_sequence(kept)) == stars_hash(sequence):
                self._cache.write(name, replace(kept, confirmed_utc=answer.fetched_utc))
                return _as_sequence(kept)
        self._cache.write(_version_name(sequence.chart_id, fetched), fetched)
        return sequence


def _version_name(chart_id: str, kept: CachedAnswer) -> str:
    """Return a file name for one version: a changed chart never replaces its older self."""
    text = json.dumps([dict(kept.request), kept.content], sort_keys=True)
    return f"{slug(chart_id)}_{hashlib.sha256(text.encode()).hexdigest()[:10]}"


# ------------------------------------------------------------------------------------ what covers


def _request(
    ra_deg: float, dec_deg: float, fov_arcmin: float, maglimit: float, standard_field: bool
) -> dict[str, Any]:
    request: dict[str, Any] = {
        "ra_deg": round(ra_deg, 3) % 360.0,
        "dec_deg": round(dec_deg, 3),
        "fov_arcmin": chart_fov_arcmin(fov_arcmin),
        "maglimit": maglimit,
    }
    return request | {SPECIAL: STANDARD_FIELD} if standard_field else request


def covers(asked: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Return whether a chart that was `asked` for holds every star of the one `wanted`.

    Circles of diameter `fov_arcmin` are compared, which holds for square charts too. A chart of
    comparison stars does not stand for one of standard stars, nor the other way.
    """
    if asked.get(SPECIAL) != wanted.get(SPECIAL):
        return False
    try:
        lon1, lat1, lon2, lat2 = (
            math.radians(place[key]) for place in (asked, wanted) for key in ("ra_deg", "dec_deg")
        )
        distance_arcmin = 60.0 * math.degrees(angular_separation(lon1, lat1, lon2, lat2))
        spare_arcmin = (asked["fov_arcmin"] - wanted["fov_arcmin"]) / 2.0
        return bool(distance_arcmin <= spare_arcmin and asked["maglimit"] >= wanted["maglimit"])
    except (KeyError, TypeError):
        return False


def stars_hash(sequence: CompSequence) -> str:
    """Return a hash of the stars alone: equal for two charts that hold the same sequence."""
    stars = sorted(
        (
            star.auid,
            star.label,
            star.ra_deg,
            star.dec_deg,
            star.comment,
            sorted((band, value.mag, value.error_mag) for band, value in star.bands.items()),
        )
        for star in sequence.stars
    )
    return hashlib.sha256(json.dumps(stars).encode()).hexdigest()[:12]


# ---------------------------------------------------------------------------------------- answers


def read_chart(content: JsonObject) -> tuple[str, tuple[CompStar, ...]]:
    """Return chart id and stars of an answer; one star that cannot be read is left out, logged."""
    photometry = content.get("photometry")
    if not isinstance(photometry, list):
        raise BadAnswer(f"no list of photometry among {sorted(content)}")
    chart_id = content.get("chartid")
    if not isinstance(chart_id, str) or not chart_id:
        raise BadAnswer("no chartid")
    stars: dict[str, CompStar] = {}
    for entry in photometry:
        try:
            star = _comp_star(entry)
        except (KeyError, TypeError, ValueError) as error:
            log.warning("chart %s: a star is left out, %r in %r", chart_id, error, entry)
            continue
        stars.setdefault(star.auid, star)
    return chart_id, tuple(stars.values())


def _comp_star(entry: Mapping[str, Any]) -> CompStar:
    if not entry["auid"]:
        raise ValueError("no AUID")
    return CompStar(
        auid=str(entry["auid"]),
        label=str(entry["label"]),
        ra_deg=15.0 * sexagesimal(entry["ra"]),
        dec_deg=sexagesimal(entry["dec"]),
        bands=_bands(entry["bands"]),
        comment=str(entry.get("comments") or ""),
    )


def _bands(entries: list[Mapping[str, Any]]) -> dict[str, BandMagnitude]:
    """Return the magnitudes by band. An error of null is not known, and neither is one of 0."""
    bands: dict[str, BandMagnitude] = {}
    for entry in entries:
        if entry["mag"] is None:
            continue
        error = float(entry["error"]) if entry.get("error") else None
        bands.setdefault(
            str(entry["band"]), BandMagnitude(mag=float(entry["mag"]), error_mag=error)
        )
    return bands


def sexagesimal(text: str) -> float:
    """Return ``-00:12:30.5`` as a number; the sign counts for the whole, on -00 as well.

    Raises
    ------
    ValueError
        The text is not three numbers, or minutes or seconds reach 60.
    """
    found = _SEXAGESIMAL.match(text)
    if found is None:
        raise ValueError(f"{text!r} is not sexagesimal")
    sign, whole, minutes, seconds = found.groups()
    if int(minutes) >= 60 or float(seconds) > 60:  # 60.0 is a rounded 59.96
        raise ValueError(f"{text!r} is not sexagesimal")
    value = int(whole) + int(minutes) / 60.0 + float(seconds) / 3600.0
    return -value if sign == "-" else value


def _as_sequence(kept: CachedAnswer) -> CompSequence:
    chart_id, stars = read_chart(kept.content)
    return CompSequence(
        chart_id=chart_id,
        ra_deg=kept.request["ra_deg"],
        dec_deg=kept.request["dec_deg"],
        fov_arcmin=kept.request["fov_arcmin"],
        maglimit=kept.request["maglimit"],
        stars=stars,
        fetched_utc=kept.fetched_utc,
    )
