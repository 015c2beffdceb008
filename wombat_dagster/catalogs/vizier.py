"""Comparison stars from catalogues of VizieR, for the time that VSP is away: APASS, ATLAS-REFCAT2.

They are a way out and not a sequence: nobody at the AAVSO looked at these stars. So they never have
AUIDs but names like ``APASS_0601123-151234`` (J2000, cut to 0.1 s and 1"; 20 characters, what an
AAVSO report takes), the `CompSequence` says where it is from, and whoever uses it does it again
when VSP is back. Stars that their catalogue calls variable, that are doubled, blended, saturated or
poorly known are left out, and of the rest only the nearest of each half magnitude stay: a
catalogue holds thousands where a sequence holds a dozen.

VizieR is asked through astroquery, whose own cache stays off. What came is kept in
`cache_dir`/vizier, without end: these catalogues do not change. Column names and flags: DOMAIN
section 8 and real answers (`reference/aavso`). Traps met there: VizieR says in a valid VOTable with
status 200 that its database is down; it gives 50 rows unless told otherwise; an error of 0 means
that a star was seen once.
"""

import io
import logging
import math
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import numpy as np

from wombat_dagster.catalogs.base import (
    DOWN_STATUSES,
    PROCESS_PACE,
    Down,
    Pace,
    Service,
    retry_after_s,
    user_agent,
)
from wombat_dagster.catalogs.breaker import Away, Breaker
from wombat_dagster.catalogs.cache import AnswerCache, CachedAnswer, exact_name
from wombat_dagster.catalogs.clock import SYSTEM_CLOCK, Clock
from wombat_dagster.catalogs.vsp import FOV_LADDER_ARCMIN, chart_request
from wombat_dagster.config import AavsoSettings
from wombat_dagster.domain import BandMagnitude, CompSequence, CompStar, FloatArray, VspUnavailable

log = logging.getLogger(__name__)

Row = Mapping[str, Any]
"""One star of the answer by column; what is not known is None."""
Bands = dict[str, BandMagnitude]

MAX_FOV_ARCMIN = 60.0  # wider ones hold more stars than a comparison needs
N_PER_BIN = 12
BIN_MAG = 0.5
MAX_ERROR_MAG = 0.1
MIN_NIGHTS = 3  # of APASS
APASS_SATURATED_MAG = 10.0
APASS_BLEND_ARCSEC = 10.0  # of 2.6" pixels; its doubled rows lie nearer
REFCAT2_SATURATED_MAG = 6.0
REFCAT2_BLEND_ARCSEC = 10.0
COLOUR_RANGE = (-0.3, 1.3)  # of g - r: redder dwarfs leave the polynomials
PROBE_FIELD = (132.838, 11.801, 0.05)  # M 67: RA, Dec, radius in degrees
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
CHUNK_BYTES = 65536
SHOWN_CHARACTERS = 200

_ERROR = re.compile(rb'<(?:\w+:)?INFO\b[^>]*\bname="Error"[^>]*\bvalue="([^"]*)"')
_STATUS = re.compile(rb'<(?:\w+:)?INFO\b[^>]*\bname="QUERY_STATUS"[^>]*\bvalue="ERROR"')


class VizierUnavailable(VspUnavailable):
    """VizieR did not answer usefully either: there are no comparison stars."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Polynomial:
    """magnitude = `base` + a0 + a1 x + a2 x², x = `blue` - `red`, and its scatter in magnitudes."""

    base: str
    blue: str
    red: str
    a0: float
    a1: float
    a2: float
    scatter_mag: float

    def apply(self, bands: Mapping[str, BandMagnitude]) -> BandMagnitude | None:
        """Return the magnitude with its error, scatter included; None where a band is missing."""
        if not {self.base, self.blue, self.red} <= bands.keys():
            return None
        colour = bands[self.blue].mag - bands[self.red].mag
        slope = self.a1 + 2.0 * self.a2 * colour
        by_band = dict.fromkeys((self.base, self.blue, self.red), 0.0)
        for band, part in ((self.base, 1.0), (self.blue, slope), (self.red, -slope)):
            by_band[band] += part
        errors = [part * (bands[band].error_mag or 0.0) for band, part in by_band.items()]
        return BandMagnitude(
            mag=round(bands[self.base].mag + self.a0 + self.a1 * colour + self.a2 * colour**2, 4),
            error_mag=round(math.hypot(self.scatter_mag, *errors), 4),
        )


def _of_gr(base: str, a0: float, a1: float, a2: float, scatter_mag: float) -> Polynomial:
    return Polynomial(base=base, blue="g", red="r", a0=a0, a1=a1, a2=a2, scatter_mag=scatter_mag)


FROM_PAN_STARRS = {
    "B": _of_gr("g", 0.212, 0.556, 0.034, 0.032),
    "V": _of_gr("r", 0.005, 0.462, 0.013, 0.012),
    "Rc": _of_gr("r", -0.137, -0.108, -0.029, 0.015),
    "Ic": _of_gr("i", -0.366, -0.136, -0.018, 0.017),
}
"""Pan-STARRS1 gri to Johnson-Cousins: Tonry et al. (2012), ApJ 750, 99, table 6."""
FROM_SLOAN = {
    "Rc": Polynomial(
        base="r", blue="r", red="i", a0=-0.1439, a1=-0.2936, a2=0.0, scatter_mag=0.0072
    ),
    "Ic": Polynomial(
        base="r", blue="r", red="i", a0=-0.3820, a1=-1.2444, a2=0.0, scatter_mag=0.0078
    ),
}
"""Sloan ri to Cousins: Lupton (2005), www.sdss.org "Transformations between SDSS and UBVRcIc"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """A catalogue of VizieR: what is asked of it, and how its rows become stars.

    `stars` takes the rows of an answer and returns those that are fit to compare with, any order.
    """

    table: str
    title: str
    columns: tuple[str, ...]
    limited: str  # the column that is asked for brighter than the magnitude limit
    stars: Callable[[Sequence[Row]], list[CompStar]]
    band_notes: Mapping[str, str]


class Vizier:
    """Fetches comparison stars from a catalogue of VizieR, with a memory in `cache_dir`/vizier."""

    def __init__(
        self,
        settings: AavsoSettings,
        cache_dir: Path,
        catalogue: Literal["apass", "refcat2"],
        *,
        clock: Clock = SYSTEM_CLOCK,
        pace: Pace = PROCESS_PACE,
    ) -> None:
        self._catalogue: Catalogue = CATALOGUES[catalogue]
        self._clock = clock
        self._cache = AnswerCache(cache_dir / "vizier")
        self._service = Service(
            name="VizieR",
            urls=[settings.vizier_url.rstrip("/")],
            unavailable=VizierUnavailable,
            settings=settings,
            breaker=Breaker("VizieR", cache_dir, settings, clock),
            clock=clock,
            pace=pace,
        )

    def chart(
        self, ra_deg: float, dec_deg: float, fov_arcmin: float, maglimit: float
    ) -> CompSequence:
        """Return comparison stars around a place (degrees, J2000) brighter than `maglimit` in V.

        The field goes up VSP's ladder to 60 arcmin; a wider one gets its stars from there. A field
        without stars is an answer, and not kept.

        Raises
        ------
        VizierUnavailable
            VizieR is away, or refuses, and nothing on disk covers the request.
        """
        asked = chart_request(ra_deg, dec_deg, min(fov_arcmin, MAX_FOV_ARCMIN), maglimit)
        ladder = [f for f in FOV_LADDER_ARCMIN if asked.fov_arcmin <= f <= MAX_FOV_ARCMIN]
        requests = [
            {
                "catalogue": self._catalogue.table,
                "ra_deg": asked.ra_deg,
                "dec_deg": asked.dec_deg,
                "fov_arcmin": fov,
                "maglimit": maglimit,
            }
            for fov in ladder
        ]
        for request in requests:
            kept = self._cache.read(_name(request))
            if kept is not None:
                return _as_sequence(self._catalogue, kept)
        rows = self._service.ask(lambda url, limit_s: self._rows(url, requests[0], limit_s))
        now = self._clock.utc_text()
        answer = CachedAnswer(
            request=requests[0],
            url=self._service.urls[0],
            fetched_utc=now,
            confirmed_utc=now,
            content={
                "columns": list(self._catalogue.columns),
                "rows": [[row[column] for column in self._catalogue.columns] for row in rows],
            },
        )
        if rows:
            self._cache.write(_name(requests[0]), answer)
        return _as_sequence(self._catalogue, answer)

    def probe(self) -> bool:
        """Return whether VizieR answers a small request; one try, nothing is kept."""
        ra_deg, dec_deg, radius_deg = PROBE_FIELD
        field = {"ra_deg": ra_deg, "dec_deg": dec_deg, "fov_arcmin": 120.0 * radius_deg}
        return self._service.probe(
            lambda url, limit_s: self._rows(url, field | {"maglimit": 12.0}, limit_s)
        )

    def away(self) -> Away | None:
        """Return the outage that is known of; nobody is asked."""
        return self._service.breaker.away()

    def _rows(self, url: str, request: Mapping[str, Any], limit_s: float) -> list[dict[str, Any]]:
        """Ask once; raise Down unless a whole answer came, with rows or without."""
        import requests as http
        from astropy import units
        from astropy.coordinates import SkyCoord
        from astroquery.exceptions import TableParseError
        from astroquery.vizier import VizierClass

        catalogue = self._catalogue

        class At(VizierClass):  # type: ignore[misc]  # astroquery has no types
            """VizieR at the address that is configured: astroquery takes hosts of https alone."""

            def _server_to_url(self, return_type: str = "votable") -> str:
                return f"{url}/viz-bin/{return_type}"

        vizier = At(
            columns=list(catalogue.columns),
            column_filters={catalogue.limited: f"<{request['maglimit']:g}"},
            catalog=catalogue.table,
            row_limit=-1,
            timeout=limit_s,
        )
        session = vizier._session
        session.headers["User-Agent"] = f"{user_agent()} {session.headers['User-Agent']}"
        session.trust_env = urlsplit(url).hostname not in LOOPBACK  # proxies cannot reach us here
        for scheme in ("http://", "https://"):
            session.mount(scheme, _guarded_adapter(limit_s, self._clock))
        try:
            tables = vizier.query_region(
                SkyCoord(request["ra_deg"], request["dec_deg"], unit="deg"),
                radius=request["fov_arcmin"] / 2.0 * units.arcmin,
                cache=False,
                frame="icrs",
            )
        except http.RequestException as error:
            raise Down(f"{type(error).__name__} {error}".strip()) from error
        except TableParseError as error:
            words = str(error)[:SHOWN_CHARACTERS]
            raise Down(f"not a VOTable that can be read: {words}") from error
        if tables is None:
            raise Down("not a VOTable that astroquery knows")
        if catalogue.table not in tables.keys():  # noqa: SIM118 - a TableList, not a dict
            return []
        return _as_rows(tables[catalogue.table], catalogue.columns)


def _guarded_adapter(limit_s: float, clock: Clock) -> Any:
    """Return what carries a session's requests: it bounds their time and judges what comes.

    requests begins its time-out again with every byte, and astroquery takes an answer of any status
    and any kind for a table, or for none.
    """
    import urllib3
    from requests.adapters import HTTPAdapter

    class Guarded(HTTPAdapter):
        def send(self, request: Any, **options: Any) -> Any:  # type: ignore[override]
            until_s = clock.monotonic_s() + limit_s
            response = super().send(request, **options)
            parts = []
            try:
                for part in response.raw.stream(CHUNK_BYTES, decode_content=True):
                    parts.append(part)
                    if clock.monotonic_s() > until_s:
                        raise Down(f"time-out in the middle, {sum(map(len, parts))} bytes came")
            except urllib3.exceptions.HTTPError as error:
                raise Down(f"{type(error).__name__} {error}") from error
            finally:
                response.raw.close()
            body = b"".join(parts)
            if not response.is_redirect:
                _judge(response.status_code, response.headers, body, clock)
            response.raw = io.BytesIO(body)
            response.encoding = "utf-8"  # or astroquery's log guesses at megabytes
            return response

    return Guarded()


def _judge(status: int, headers: Mapping[str, str], body: bytes, clock: Clock) -> None:
    """Raise Down unless the answer is a whole VOTable that reports no error."""
    if status in DOWN_STATUSES or status >= 400:
        raise Down(f"HTTP {status}", retry_after_s(headers, clock))
    if b"VOTABLE" not in body[:2000] or not body.rstrip().endswith(b"VOTABLE>"):
        raise Down(f"not a whole VOTable ({len(body)} bytes, begins {body[:40]!r})")
    error = _ERROR.search(body)
    if error is not None or _STATUS.search(body):
        said = error[1].decode("utf-8", "replace") if error else "QUERY_STATUS is ERROR"
        raise Down(f"VizieR says: {said[:SHOWN_CHARACTERS]}")


def _as_rows(table: Any, columns: Sequence[str]) -> list[dict[str, Any]]:
    """Return an astropy table as rows of plain values; what is masked or NaN is None."""
    names = {}
    for column in columns:
        spellings = [name for name in (column, column.replace("'", "_")) if name in table.colnames]
        if not spellings:
            raise Down(f"no column {column} among {', '.join(table.colnames)}")
        names[column] = spellings[0]
    values = {column: _plain(table[name]) for column, name in names.items()}
    return [{column: values[column][i] for column in columns} for i in range(len(table))]


def _plain(column: Any) -> list[Any]:
    missing = np.ma.getmaskarray(np.ma.asarray(column))
    single = column.dtype.kind == "f" and column.dtype.itemsize == 4
    found = []
    for value, absent in zip(np.asarray(column).tolist(), missing, strict=True):
        unknown = absent or (isinstance(value, float) and not math.isfinite(value))
        # VizieR has three decimals; single precision would show more.
        found.append(None if unknown else round(value, 4) if single else value)
    return found


def charts_kept(cache_dir: Path, titles: Collection[str]) -> Iterator[CompSequence]:
    """Yield the charts of catalogues called `titles` made of what `cache_dir`/vizier holds.

    Nobody is asked.
    """
    wanted = {c.table: c for c in CATALOGUES.values() if c.title in titles}
    if not wanted:
        return
    for _, kept in AnswerCache(cache_dir / "vizier").all():
        try:
            yield _as_sequence(wanted[kept.request["catalogue"]], kept)
        except (KeyError, TypeError, ValueError):
            continue  # of another catalogue, or damaged


def _as_sequence(catalogue: Catalogue, kept: CachedAnswer) -> CompSequence:
    request, columns = kept.request, kept.content["columns"]
    rows = [dict(zip(columns, row, strict=True)) for row in kept.content["rows"]]
    place = float(request["ra_deg"]), float(request["dec_deg"])
    stars = [
        star
        for star in catalogue.stars(rows)
        if "V" in star.bands and star.bands["V"].mag < request["maglimit"]
    ]
    chosen = _sparse(stars, *place)
    title = catalogue.title
    note = f"{len(chosen)} of {len(stars)} fit stars of {title} from VizieR, in place of VSP's"
    return CompSequence(
        chart_id=title,
        ra_deg=place[0],
        dec_deg=place[1],
        fov_arcmin=request["fov_arcmin"],
        maglimit=request["maglimit"],
        stars=tuple(chosen),
        fetched_utc=kept.fetched_utc,
        source=f"{title} (VizieR)",
        notes=(note,),
        band_notes=catalogue.band_notes,
    )


def _name(request: Mapping[str, Any]) -> str:
    return exact_name("{catalogue} {ra_deg} {dec_deg} {fov_arcmin} {maglimit}".format(**request))


# ------------------------------------------------------------------------------------------ stars


def _apass(rows: Sequence[Row]) -> list[CompStar]:
    """Return the stars of APASS DR9 seen on 3 nights at least, alone, and below saturation."""
    alone = _alone(rows, "RAJ2000", "DEJ2000", APASS_BLEND_ARCSEC)
    stars = []
    for row, single in zip(rows, alone, strict=True):
        given = {
            band: _magnitude(row, column, flag=f"u_e_{column}")
            for band, column in APASS_BANDS.items()
        }
        known = {band: value for band, value in given.items() if value is not None}
        v = known.get("V")
        if single and v is not None and v.mag >= APASS_SATURATED_MAG and _seen(row):
            sloan = {band: known[name] for band, name in SLOAN.items() if name in known}
            stars.append(_star("APASS", row["RAJ2000"], row["DEJ2000"], known | _cousins(sloan)))
    return stars


def _seen(row: Row) -> bool:
    return row["nobs"] is not None and row["nobs"] >= MIN_NIGHTS


def _cousins(sloan: Bands) -> Bands:
    if not _in_range(sloan):
        return {}
    found = {band: polynomial.apply(sloan) for band, polynomial in FROM_SLOAN.items()}
    return {band: value for band, value in found.items() if value is not None}


def _refcat2(rows: Sequence[Row]) -> list[CompStar]:
    """Return the stars of ATLAS-REFCAT2 that are none of the variable, doubled and blended ones.

    ``dupvar`` holds Gaia's flags: odd is variable, 4 and more a duplicate. Without a proper motion
    it may be a galaxy. ``rp1`` is the radius in which others give a tenth of its light.
    """
    stars = []
    for row in rows:
        pan_starrs = {
            band: value
            for band in ("g", "r", "i")
            if (value := _magnitude(row, f"{band}mag")) is not None
        }
        flags = row["dupvar"]
        if (
            flags is None
            or flags % 2
            or flags >= 4
            or row["e_pmRA"] is None
            or row["rp1"] is None
            or row["rp1"] < REFCAT2_BLEND_ARCSEC
            or not _in_range(pan_starrs)
        ):
            continue
        found = {band: polynomial.apply(pan_starrs) for band, polynomial in FROM_PAN_STARRS.items()}
        bands = {
            band: value
            for band, value in found.items()
            if value is not None and (value.error_mag or 0.0) <= MAX_ERROR_MAG
        }
        if "V" in bands and bands["V"].mag >= REFCAT2_SATURATED_MAG:
            stars.append(_star("REFC2", row["RA_ICRS"], row["DE_ICRS"], bands))
    return stars


def _in_range(bands: Mapping[str, BandMagnitude]) -> bool:
    """Return whether g - r is known, and one that the transformations hold for."""
    if not {"g", "r"} <= bands.keys():
        return False
    return COLOUR_RANGE[0] <= bands["g"].mag - bands["r"].mag <= COLOUR_RANGE[1]


def _magnitude(row: Row, column: str, *, flag: str | None = None) -> BandMagnitude | None:
    """Return a magnitude with an error that means something: flagged, 0 and large ones do not."""
    mag, error_mag = row[column], row[f"e_{column}"]
    if mag is None or error_mag is None or (flag is not None and row[flag]):
        return None
    if not 0.0 < error_mag <= MAX_ERROR_MAG:
        return None
    return BandMagnitude(mag=float(mag), error_mag=float(error_mag))


def _star(prefix: str, ra_deg: float, dec_deg: float, bands: Bands) -> CompStar:
    tenths = math.floor(10.0 * bands["V"].mag + 0.5)  # as VSP labels: 118 is 11.8
    return CompStar(
        auid=star_id(prefix, ra_deg, dec_deg),
        label=str(tenths),
        ra_deg=float(ra_deg),
        dec_deg=float(dec_deg),
        bands=bands,
    )


def star_id(prefix: str, ra_deg: float, dec_deg: float) -> str:
    """Return a name made of the place, cut as is the custom: ``APASS_0601123-151234``."""
    time_tenths = math.floor(ra_deg % 360.0 / 15.0 * 36000.0 + 1e-6)
    arcsec = math.floor(abs(dec_deg) * 3600.0 + 1e-6)
    hours, rest = divmod(time_tenths, 36000)
    minutes, tenths = divmod(rest, 600)
    degrees, rest_arcsec = divmod(arcsec, 3600)
    return (
        f"{prefix}_{hours:02d}{minutes:02d}{tenths:03d}{'-' if dec_deg < 0 else '+'}"
        f"{degrees:02d}{rest_arcsec // 60:02d}{rest_arcsec % 60:02d}"
    )


def _alone(rows: Sequence[Row], ra: str, dec: str, radius_arcsec: float) -> list[bool]:
    """Return which rows have no other row within a radius."""
    from scipy.spatial import cKDTree

    if not rows:
        return []
    places = _directions([row[ra] for row in rows], [row[dec] for row in rows])
    chord = 2.0 * math.sin(math.radians(radius_arcsec / 3600.0) / 2.0)
    crowded = cKDTree(places).query_pairs(chord, output_type="ndarray")
    alone = np.ones(len(rows), dtype=bool)
    alone[crowded.ravel()] = False
    return alone.tolist()


def _directions(ra_deg: Sequence[float], dec_deg: Sequence[float]) -> FloatArray:
    """Return unit vectors, shape (n, 3)."""
    ra, dec = np.radians(np.array(ra_deg, dtype=float)), np.radians(np.array(dec_deg, dtype=float))
    return np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)], axis=-1)


def _sparse(stars: Sequence[CompStar], ra_deg: float, dec_deg: float) -> list[CompStar]:
    """Return the 12 stars nearest to a place of every half magnitude in V, brightest first."""
    if not stars:
        return []
    centre = _directions([ra_deg], [dec_deg])[0]
    nearness = _directions([s.ra_deg for s in stars], [s.dec_deg for s in stars]) @ centre
    by_bin: dict[int, list[CompStar]] = {}
    for index in np.argsort(-nearness, kind="stable").tolist():
        star = stars[index]
        by_bin.setdefault(math.floor(star.bands["V"].mag / BIN_MAG), []).append(star)
    chosen = {s.auid: s for group in by_bin.values() for s in reversed(group[:N_PER_BIN])}
    return sorted(chosen.values(), key=lambda star: (star.bands["V"].mag, star.auid))


APASS_BANDS = {"V": "Vmag", "B": "Bmag", "SG": "g'mag", "SR": "r'mag", "SI": "i'mag"}
SLOAN = {"g": "SG", "r": "SR", "i": "SI"}
CATALOGUES = {
    "apass": Catalogue(
        table="II/336/apass9",
        title="APASS DR9",
        columns=(
            "RAJ2000",
            "DEJ2000",
            "nobs",
            *(f"{of}{mag}" for mag in APASS_BANDS.values() for of in ("", "e_", "u_e_")),
        ),
        limited="Vmag",
        stars=_apass,
        band_notes=dict.fromkeys(("Rc", "Ic"), "Rc and Ic from Sloan r and i by Lupton (2005)"),
    ),
    "refcat2": Catalogue(
        table="J/ApJ/867/105/refcat2",
        title="ATLAS-REFCAT2",
        columns=(
            "RA_ICRS",
            "DE_ICRS",
            "e_pmRA",
            "dupvar",
            "rp1",
            *(f"{of}{band}mag" for band in ("g", "r", "i") for of in ("", "e_")),
        ),
        limited="rmag",
        stars=_refcat2,
        band_notes=dict.fromkeys(
            FROM_PAN_STARRS, "B, V, Rc and Ic from Pan-STARRS g, r and i by Tonry et al. (2012)"
        ),
    ),
}
