"""Comparison stars: the photometry of an AAVSO VSP chart, and the charts kept on disk.

The rules of asking (DOMAIN section 2) live here, so that one chart serves many nights: the centre
is rounded to 0.001 degrees, the field goes up a short ladder, and VSP is never asked by name (one
client's tests document a VSP that hangs on ``star=``). A valid answer without stars is a
`CompSequence` without stars, never an outage; what that means, the caller decides.
"""

import datetime as dt
import hashlib
import json
import logging
import math
import re
import threading
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import httpx
from astropy.coordinates import angular_separation

from wombat_dagster.catalogs.base import (
    PROCESS_PACE,
    BadAnswer,
    BadRequest,
    JsonObject,
    JsonService,
    Pace,
)
from wombat_dagster.catalogs.breaker import Away, Breaker
from wombat_dagster.catalogs.cache import AnswerCache, CachedAnswer
from wombat_dagster.catalogs.clock import SYSTEM_CLOCK, Clock
from wombat_dagster.config import AavsoSettings
from wombat_dagster.domain import (
    BandMagnitude,
    ChartRequest,
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Refreshed:
    """A chart that was asked for again; `changed`: its stars are other ones than before."""

    chart_id: str
    changed: bool


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
        self._shelf = _Shelf(self._cache)
        self._refused: set[str] = set()
        self._service = JsonService(
            name="VSP",
            urls=settings.vsp_urls,
            unavailable=VspUnavailable,
            settings=settings,
            breaker=Breaker("VSP", cache_dir, settings, clock),
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
        wanted = asdict(chart_request(ra_deg, dec_deg, fov_arcmin, maglimit))
        if standard_field:
            wanted[SPECIAL] = STANDARD_FIELD
        kept = self._newest_covering(wanted)
        if kept is None:
            return self._fetch(wanted)
        name, cached = kept
        sequence = _as_sequence(cached)
        age_days = cached.age_days(self._clock.now_utc())
        if age_days <= self._limit_days(len(sequence.stars)):
            return sequence
        try:
            return self._fetch(cached.request, known=(name, cached))
        except VspUnavailable:
            if not sequence.stars:
                raise
            log.warning("VSP is away, chart %s from the cache is used", sequence.chart_id)
            note = (
                f"chart {sequence.chart_id} from the cache, VSP last gave it {age_days:.0f} days "
                f"ago ({cached.confirmed_utc})"
            )
            return replace(sequence, notes=(note, self.note_of_outage()))

    def probe(self) -> bool:
        """Return whether VSP answers now; one try per host, nothing is cached.

        It is asked whatever is known of it. An answer ends an outage that is known of, for all
        processes.
        """
        return self._service.probe({**PROBE_FIELD, "format": "json"}, read_chart)

    def probe_due(self) -> bool:
        """Return whether VSP is known to be away and it is time to look whether it still is."""
        return self._service.breaker.due()

    def away(self) -> Away | None:
        """Return the outage that is known of; nobody is asked."""
        return self._service.breaker.away()

    def note_of_outage(self) -> str:
        """Return what a product made meanwhile notes: ``VSP did not answer on 2026-11-21 UTC``."""
        return self._service.breaker.note()

    def version_now(self, request: ChartRequest) -> str | None:
        """Return `chart_version` of the chart on disk that serves a request; None without one.

        Nobody is asked. Made for thousands of calls: files are read when they are new, and then
        once.
        """
        return self._shelf.version(request)

    def refresh_oldest(self, in_use: Collection[ChartRequest]) -> Refreshed | None:
        """Ask again for one chart, and return whether its stars are other ones now.

        Of the charts on disk that serve the requests `in_use`, it is the one that VSP confirmed
        longest ago. None when none of them is older than `chart_max_age_days`. One try per host;
        a chart that VSP refuses is left alone from then on, by this object.

        Raises
        ------
        VspUnavailable
            VSP is away.
        """
        serving = {
            chart.name: chart for request in set(in_use) if (chart := self._serving(request))
        }
        now_utc = self._clock.now_utc()
        old = [
            chart
            for chart in serving.values()
            if chart.name not in self._refused
            and chart.age_days(now_utc) > self._limit_days(chart.n_stars)
        ]
        for chart in sorted(old, key=lambda chart: (chart.confirmed_utc, chart.name)):
            kept = self._cache.read(chart.name)
            if kept is None:
                continue
            before = _as_sequence(kept)
            try:
                after = self._fetch(kept.request, known=(chart.name, kept), retries=0)
            except BadRequest as refusal:
                log.warning("chart %s is not asked for again: %s", before.chart_id, refusal)
                self._refused.add(chart.name)
                continue
            return Refreshed(
                chart_id=after.chart_id, changed=stars_hash(before) != stars_hash(after)
            )
        return None

    def _limit_days(self, n_stars: int) -> float:
        return self._settings.chart_max_age_days if n_stars else EMPTY_CHART_MAX_AGE_DAYS

    def _serving(self, request: ChartRequest) -> "_Chart | None":
        return self._shelf.newest_covering(asdict(request))

    def _newest_covering(self, wanted: Mapping[str, Any]) -> tuple[str, CachedAnswer] | None:
        chart = self._shelf.newest_covering(wanted)
        kept = None if chart is None else self._cache.read(chart.name)
        return None if chart is None or kept is None else (chart.name, kept)

    def _fetch(
        self,
        request: Mapping[str, Any],
        *,
        known: tuple[str, CachedAnswer] | None = None,
        retries: int | None = None,
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
            retries=retries,
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


def chart_request(
    ra_deg: float, dec_deg: float, fov_arcmin: float, maglimit: float
) -> ChartRequest:
    """Return what VSP is asked for: the centre to 0.001 degrees, the field of the ladder."""
    return ChartRequest(
        ra_deg=round(ra_deg, 3) % 360.0,
        dec_deg=round(dec_deg, 3),
        fov_arcmin=chart_fov_arcmin(fov_arcmin),
        maglimit=maglimit,
    )


def covers(asked: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
    """Return whether a chart that was `asked` for holds every star of the one `wanted`.

    Circles of diameter `fov_arcmin` are compared, which holds for square charts too. A chart of
    comparison stars does not stand for one of standard stars, nor the other way.
    """
    if asked.get(SPECIAL) != wanted.get(SPECIAL):
        return False
    try:
        spare_arcmin = (asked["fov_arcmin"] - wanted["fov_arcmin"]) / 2.0
        north_arcmin = 60.0 * abs(asked["dec_deg"] - wanted["dec_deg"])
        if asked["maglimit"] < wanted["maglimit"] or north_arcmin > spare_arcmin:
            return False
        return _distance_arcmin(asked, wanted) <= spare_arcmin
    except (KeyError, TypeError):
        return False


def _distance_arcmin(here: Mapping[str, Any], there: Mapping[str, Any]) -> float:
    lon1, lat1, lon2, lat2 = (
        math.radians(place[key]) for place in (here, there) for key in ("ra_deg", "dec_deg")
    )
    return 60.0 * math.degrees(angular_separation(lon1, lat1, lon2, lat2))


def chart_version(sequence: CompSequence, request: ChartRequest) -> str:
    """Return a hash of the stars of a chart that lie inside a request's circle.

    A wider or deeper chart of the same sequence has the same version as the one that was asked for;
    its version changes with the stars that a user of the request can see.
    """
    circle = asdict(request)
    deeper = sequence.maglimit > request.maglimit
    return _hash(
        star
        for star in sequence.stars
        if _distance_arcmin({"ra_deg": star.ra_deg, "dec_deg": star.dec_deg}, circle)
        <= request.fov_arcmin / 2.0
        and not (deeper and _brightness(star) >= request.maglimit)
    )


def stars_hash(sequence: CompSequence) -> str:
    """Return a hash of the stars alone: equal for two charts that hold the same sequence."""
    return _hash(sequence.stars)


def _hash(stars: Iterable[CompStar]) -> str:
    values = sorted(
        (
            star.auid,
            star.label,
            star.ra_deg,
            star.dec_deg,
            star.comment,
            sorted((band, value.mag, value.error_mag) for band, value in star.bands.items()),
        )
        for star in stars
    )
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:12]


def _brightness(star: CompStar) -> float:
    """Return V, or the brightest band where the chart has no V."""
    if "V" in star.bands:
        return star.bands["V"].mag
    return min((band.mag for band in star.bands.values()), default=-math.inf)


# ------------------------------------------------------------------------------- charts on disk


@dataclass(frozen=True, slots=True, kw_only=True)
class _Chart:
    """A chart on disk without its stars."""

    name: str
    request: Mapping[str, Any]
    fetched_utc: str
    confirmed_utc: str
    n_stars: int

    def age_days(self, now_utc: dt.datetime) -> float:
        age = now_utc - dt.datetime.fromisoformat(self.confirmed_utc)
        return age.total_seconds() / 86400.0


class _Shelf:
    """Which charts are on disk. Each file is read once, and again when it changed.

    Threads may share it: a sensor compares versions while another thread asks for a chart again.
    """

    def __init__(self, cache: AnswerCache) -> None:
        self._cache = cache
        self._lock = threading.RLock()
        self._state: int | None = None
        self._files: dict[str, tuple[tuple[int, int], _Chart | None]] = {}
        self._versions: dict[ChartRequest, str | None] = {}  # until a file changes
        self._hashes: dict[tuple[str, tuple[int, int], ChartRequest], str] = {}

    def newest_covering(self, wanted: Mapping[str, Any]) -> _Chart | None:
        """Return the chart that VSP gave last, of those that cover what is `wanted`."""
        with self._lock:
            covering = [chart for chart in self._charts() if covers(chart.request, wanted)]
        return max(covering, key=lambda chart: (chart.fetched_utc, chart.name), default=None)

    def version(self, request: ChartRequest) -> str | None:
        """Return `chart_version` of the chart that serves a request; None without one."""
        with self._lock:
            self._charts()
            if request not in self._versions:
                chart = self.newest_covering(asdict(request))
                self._versions[request] = None if chart is None else self._hash(chart.name, request)
            return self._versions[request]

    def _hash(self, name: str, request: ChartRequest) -> str | None:
        key = (name, self._files[name][0], request)
        if key not in self._hashes:
            kept = self._cache.read(name)
            if kept is None:
                return None
            self._hashes[key] = chart_version(_as_sequence(kept), request)
        return self._hashes[key]

    def _charts(self) -> list[_Chart]:
        """Return the charts, after a look whether any was written since the last call."""
        state = self._cache.state()
        if state is None or state != self._state:
            signatures = self._cache.signatures()
            if signatures != {name: signature for name, (signature, _) in self._files.items()}:
                self._files = {
                    name: known
                    if (known := self._files.get(name)) is not None and known[0] == signature
                    else (signature, self._read(name))
                    for name, signature in signatures.items()
                }
                self._versions = {}
            self._state = state
        return [chart for _, chart in self._files.values() if chart is not None]

    def _read(self, name: str) -> _Chart | None:
        kept = self._cache.read(name)
        if kept is None:
            return None
        try:
            _, stars = read_chart(kept.content)
        except BadAnswer as error:
            log.warning("chart %s is left aside: %s", name, error)
            return None
        return _Chart(
            name=name,
            request=kept.request,
            fetched_utc=kept.fetched_utc,
            confirmed_utc=kept.confirmed_utc,
            n_stars=len(stars),
        )


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
