"""A stand-in for VSX, VSP and VizieR: real HTTP on this machine, in the services' own formats.

The demo and the tests ask the same one. It can also fail, each service in each way that clients of
the real ones guard against, switched at run time from Python or by
``/control?service=vsp&fail=500``. What is known of the formats: DOMAIN sections 1 and 2; what is
not (the body of a refusal), is plain text here and nobody may rely on it. VizieR's catalogues are
made of the same comparison stars.
"""

import hashlib
import json
import logging
import re
import socket
import socketserver
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import numpy as np

from wombat_dagster.simulate import vizier

log = logging.getLogger(__name__)

HOST = "127.0.0.1"
HANG_S = 120.0
VSX_PATH = "/vsx/index.php"
VSP_PATH = "/vsp/api/chart/"
VIZIER_PATH = "/viz-bin/votable"
JSON = "application/json"
MAX_FOV_ARCMIN = 180.0
WIDE_FIELD_MAGLIMIT = 12.0
STANDARD_FIELD = "std_field"  # value of VSP's parameter special
SAME_STAR_DEG = 0.002  # a chart centred so near to a variable is that variable's
CHALLENGE_PAGE = (
    "<!DOCTYPE html><html><head><title>Just a moment...</title></head>"
    "<body>Checking your browser before accessing aavso.org</body></html>"
)


class Service(StrEnum):
    """The services imitated."""

    VSX = "vsx"
    VSP = "vsp"
    VIZIER = "vizier"


class Failure(StrEnum):
    """How a service answers."""

    NONE = "none"
    SERVER_ERROR = "500"
    FORBIDDEN = "403"
    TOO_MANY = "429"
    HTML = "html"  # a challenge page with status 200
    EMPTY_BODY = "empty-body"
    CUT = "cut"  # half of the answer
    HANG = "hang"
    REFUSED = "refused"  # the connection is reset without an answer
    VALID_EMPTY = "valid-empty"  # a good answer with nothing in it
    DATABASE = "database"  # VizieR's alone: a VOTable with status 200 that says it has no database


class StandInAavso:
    """VSX, VSP and VizieR on a port of 127.0.0.1; a context manager that serves in a thread.

    Parameters
    ----------
    variables
        Objects as VSX's JSON has them: every value a string, ``Name``, ``RA2000``,
        ``Declination2000`` (degrees) at least.
    comps
        Entries as VSP's ``photometry`` has them. A chart holds those inside its field (a square on
        the sky) and brighter than its limit in V, or in their first band.
    standards
        Entries of the same form, which a chart with ``special=std_field`` holds instead.
    port
        0: any free one.
    """

    def __init__(
        self,
        variables: Iterable[Mapping[str, str]] = (),
        comps: Iterable[Mapping[str, Any]] = (),
        *,
        standards: Iterable[Mapping[str, Any]] = (),
        port: int = 0,
    ) -> None:
        self.requests: Counter[Service] = Counter()
        self.queries: list[tuple[Service, dict[str, str]]] = []
        self.retry_after: str | None = None  # what a 429 asks for
        self._variables: list[dict[str, str]] = []
        self._comps: dict[str, dict[str, Any]] = {}
        self._standards: dict[str, dict[str, Any]] = {}
        self._charts: dict[str, dict[str, Any]] = {}
        self._failures = dict.fromkeys(Service, Failure.NONE)
        self._released = threading.Event()
        self._thread: threading.Thread | None = None
        self.add(variables, comps, standards)
        handler = type("Handler", (_Handler,), {"aavso": self})
        self._server = _Server((HOST, port), handler)

    @classmethod
    def from_directory(cls, directory: Path, *, port: int = 0) -> "StandInAavso":
        """Return a stand-in for the answers there: ``vsx_object_*.json``, ``vsp_chart_*.json``.

        Further variables of the field may lie there as ``vsx_list_*.json``, standard stars as
        ``vsp_standards_*.json``.
        """
        variables: list[Mapping[str, str]] = []
        for path in sorted(directory.glob("vsx_object_*.json")):
            found = json.loads(path.read_text(encoding="utf-8"))["VSXObject"]
            variables += found if isinstance(found, list) else [found]
        for path in sorted(directory.glob("vsx_list_*.json")):
            listed = json.loads(path.read_text(encoding="utf-8"))["VSXObjects"]
            known = {star["Name"] for star in variables}
            variables += [s for s in listed["VSXObject"] if s["Name"] not in known]
        charts: dict[str, list[Mapping[str, Any]]] = {"vsp_chart": [], "vsp_standards": []}
        for stem, stars in charts.items():
            for path in sorted(directory.glob(f"{stem}_*.json")):
                stars += json.loads(path.read_text(encoding="utf-8"))["photometry"]
        return cls(variables, charts["vsp_chart"], standards=charts["vsp_standards"], port=port)

    def add(
        self,
        variables: Iterable[Mapping[str, str]] = (),
        comps: Iterable[Mapping[str, Any]] = (),
        standards: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        """Add stars; a comparison or standard star of an AUID already there replaces it."""
        self._variables += [dict(star) for star in variables]
        self._comps |= {comp["auid"]: dict(comp) for comp in comps}
        self._standards |= {star["auid"]: dict(star) for star in standards}

    # ------------------------------------------------------------------------------------ serving

    @property
    def port(self) -> int:
        """The port it listens on."""
        return int(self._server.server_address[1])

    @property
    def vsx_url(self) -> str:
        """What to put into ``[aavso] vsx_urls``."""
        return f"http://{HOST}:{self.port}{VSX_PATH}"

    @property
    def vsp_url(self) -> str:
        """What to put into ``[aavso] vsp_urls``."""
        return f"http://{HOST}:{self.port}{VSP_PATH}"

    @property
    def vizier_url(self) -> str:
        """What to put into ``[aavso] vizier_url``."""
        return f"http://{HOST}:{self.port}"

    def serve_forever(self) -> None:
        """Serve in this thread until interrupted."""
        try:
            self._server.serve_forever(poll_interval=0.05)
        finally:
            self._released.set()
            self._server.server_close()

    def __enter__(self) -> "StandInAavso":
        self._thread = threading.Thread(target=self.serve_forever, name="stand-in AAVSO")
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._released.set()
        self._server.shutdown()
        if self._thread is not None:
            self._thread.join()

    def fail(self, service: Service | str, failure: Failure | str) -> None:
        """Let a service fail from now on; ``"none"`` mends it and releases who hangs."""
        if Failure(failure) is Failure.DATABASE and Service(service) is not Service.VIZIER:
            raise ValueError(f"{service} does not fail by {failure}")
        self._failures[Service(service)] = Failure(failure)
        self._released.set()
        self._released = threading.Event()

    def failure(self, service: Service) -> Failure:
        """Return how the service answers now."""
        return self._failures[service]

    def hang(self) -> None:
        """Wait until somebody changes a failure or the stand-in closes."""
        self._released.wait(HANG_S)

    # ------------------------------------------------------------------------------------ answers

    def state(self) -> dict[str, Any]:
        """Return failures and counts, as ``/control`` shows them."""
        return {
            service.value: {
                "fail": self._failures[service].value,
                "requests": self.requests[service],
            }
            for service in Service
        }

    def vsx_object(self, name: str) -> dict[str, Any]:
        """Return VSX's answer to ``view=api.object``."""
        found = [star for star in self._variables if star["Name"].casefold() == name.casefold()]
        if not found:
            return {"VSXObject": []}
        return {"VSXObject": found[0] if len(found) == 1 else found}

    def vsx_list(
        self, ra_deg: float, dec_deg: float, radius_deg: float, tomag: float = np.inf
    ) -> dict[str, Any]:
        """Return VSX's answer to ``view=api.list``; an unknown maximum is never too faint."""
        found = [
            star
            for star in self._variables
            if np.hypot(*_offsets_deg(star_position(star), (ra_deg, dec_deg))) <= radius_deg
            and _maximum(star) <= tomag
        ]
        return {"VSXObjects": {"VSXObject": found} if found else []}

    def vsp_chart(
        self,
        ra_deg: float,
        dec_deg: float,
        fov_arcmin: float,
        maglimit: float,
        special: str | None = None,
    ) -> dict[str, Any]:
        """Return VSP's answer; the same request always gets the same chart id."""
        centre = (ra_deg, dec_deg)
        star: dict[str, str] = {}
        for variable in self._variables:
            if np.hypot(*_offsets_deg(star_position(variable), centre)) < SAME_STAR_DEG:
                star = variable
        empty = self._failures[Service.VSP] is Failure.VALID_EMPTY
        name = chart_id(ra_deg, dec_deg, fov_arcmin, maglimit, special)
        chart = {
            "chartid": name,
            "image_uri": "",
            "star": star.get("Name", ""),
            "fov": fov_arcmin,
            "maglimit": maglimit,
            "title": "",
            "comment": "",
            "resolution": 150,
            "dss": False,
            "special": special,
            "photometry": []
            if empty
            else [
                comp
                for comp in (self._standards if special == STANDARD_FIELD else self._comps).values()
                if _brightness(comp) < maglimit
                and np.max(np.abs(_offsets_deg(comp_position(comp), centre))) * 60 <= fov_arcmin / 2
            ],
            "auid": star.get("AUID", ""),
            "ra": sexagesimal(ra_deg / 15.0, 2),
            "dec": sexagesimal(dec_deg, 1),
        }
        self._charts[name] = chart
        return chart

    def votable(self, asked: Mapping[str, str]) -> str:
        """Return VizieR's answer to what astroquery asks."""
        match self._failures[Service.VIZIER]:
            case Failure.DATABASE:
                return vizier.error_votable("The database is not currently reachable.")
            case Failure.VALID_EMPTY:
                return vizier.votable(asked, ())
        return vizier.votable(asked, map(_catalogued, self._comps.values()))

    def known_chart(self, name: str) -> dict[str, Any] | None:
        """Return a chart served before."""
        return self._charts.get(name)


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def server_bind(self) -> None:
        # HTTPServer asks DNS for its own name here, which takes seconds on a machine without one.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = HOST, self.server_address[1]


class _Refusal(Exception):
    """The request is wrong: the status and what to say."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    aavso: ClassVar[StandInAavso]

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {key: values[-1] for key, values in parse_qs(url.query).items()}
        self._guarded(lambda: self._get(url.path, query))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0"))).decode()
        self._guarded(lambda: self._post(urlsplit(self.path).path, vizier.parse(body)))

    def _guarded(self, respond: Callable[[], None]) -> None:
        try:
            respond()
        except _Refusal as refusal:
            self._text(refusal.status, str(refusal))
        except vizier.BadQuery as error:
            self._text(400, str(error))
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the client gave up waiting

    def _post(self, path: str, asked: dict[str, str]) -> None:
        if path != VIZIER_PATH:
            self._text(404, "not found")
            return
        kind = "application/x-votable+xml"
        self._serve(Service.VIZIER, asked, lambda: (self.aavso.votable(asked), kind))

    def _get(self, path: str, query: dict[str, str]) -> None:
        if path == "/control":
            self._text(200, json.dumps(self._control(query)), JSON)
        elif path == VSX_PATH:
            self._serve(Service.VSX, query, lambda: (json.dumps(self._vsx(query)), JSON))
        elif path.startswith(VSP_PATH):
            name = path.removeprefix(VSP_PATH).strip("/")
            self._serve(Service.VSP, query, lambda: (json.dumps(self._vsp(name, query)), JSON))
        else:
            self._text(404, "not found")

    def _control(self, query: Mapping[str, str]) -> dict[str, Any]:
        if "fail" in query:
            try:
                self.aavso.fail(query.get("service", ""), query["fail"])
            except ValueError as error:
                raise _Refusal(400, str(error)) from error
        return self.aavso.state()

    def _serve(
        self, service: Service, query: dict[str, str], answer: Callable[[], tuple[str, str]]
    ) -> None:
        self.aavso.requests[service] += 1
        self.aavso.queries.append((service, query))
        match self.aavso.failure(service):
            case Failure.SERVER_ERROR:
                self._text(500, "<html><body>Internal Server Error</body></html>", "text/html")
            case Failure.FORBIDDEN:
                self._text(403, CHALLENGE_PAGE, "text/html")
            case Failure.TOO_MANY:
                self._text(429, "Too Many Requests", retry_after=self.aavso.retry_after)
            case Failure.HTML:
                self._text(200, CHALLENGE_PAGE, "text/html")
            case Failure.EMPTY_BODY:
                self._text(200, "", JSON)
            case Failure.CUT:
                whole, kind = answer()
                self._text(200, whole[: len(whole) // 2], kind)
            case Failure.HANG:
                self.aavso.hang()
                self.close_connection = True
            case Failure.REFUSED:
                self._reset()
            case Failure.NONE | Failure.VALID_EMPTY | Failure.DATABASE:
                self._text(200, *answer())

    def _vsx(self, query: Mapping[str, str]) -> dict[str, Any]:
        empty = self.aavso.failure(Service.VSX) is Failure.VALID_EMPTY
        match query.get("view"):
            case "api.object":
                return {"VSXObject": []} if empty else self.aavso.vsx_object(query.get("ident", ""))
            case "api.list":
                if empty:
                    return {"VSXObjects": []}
                asked = ["ra", "dec", "radius", *(["tomag"] if "tomag" in query else [])]
                return self.aavso.vsx_list(*_numbers(query, *asked))
            case view:
                raise _Refusal(400, f"no view {view!r}")

    def _vsp(self, name: str, query: Mapping[str, str]) -> dict[str, Any]:
        if name:
            chart = self.aavso.known_chart(name)
            if chart is None:
                raise _Refusal(404, f"no chart {name}")
            return chart
        ra_deg, dec_deg, fov_arcmin, maglimit = _numbers(query, "ra", "dec", "fov", "maglimit")
        if fov_arcmin > MAX_FOV_ARCMIN and maglimit > WIDE_FIELD_MAGLIMIT:
            raise _Refusal(400, "fov > 180 needs maglimit <= 12")
        special = query.get("special") or None
        return self.aavso.vsp_chart(ra_deg, dec_deg, fov_arcmin, maglimit, special)

    def _text(
        self, status: int, text: str, kind: str = "text/plain", *, retry_after: str | None = None
    ) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        if retry_after is not None:
            self.send_header("Retry-After", retry_after)
        self.end_headers()
        self.wfile.write(body)

    def _reset(self) -> None:
        """Close so that the client sees a reset connection instead of an end."""
        at_once = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
        self.connection.close()
        self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
        log.debug(format, *args)


def _numbers(query: Mapping[str, str], *names: str) -> list[float]:
    try:
        return [float(query[name]) for name in names]
    except (KeyError, ValueError) as error:
        raise _Refusal(400, f"wanted as numbers: {', '.join(names)}; {error!r}") from error


def star_position(star: Mapping[str, str]) -> tuple[float, float]:
    """Return RA and Dec in degrees of an object as VSX has it."""
    return float(star["RA2000"]), float(star["Declination2000"])


def _maximum(star: Mapping[str, str]) -> float:
    """Return MaxMag as a number, -inf where there is none."""
    found = re.search(r"-?\d+(\.\d*)?", star.get("MaxMag", ""))
    return float(found[0]) if found else -np.inf


def comp_position(comp: Mapping[str, Any]) -> tuple[float, float]:
    """Return RA and Dec in degrees of a star as VSP has it."""
    hours, degrees = (
        (-1 if text.startswith("-") else 1)
        * float(np.dot([abs(float(part)) for part in text.split(":")], [1, 1 / 60, 1 / 3600]))
        for text in (comp["ra"], comp["dec"])
    )
    return 15.0 * hours, degrees


def _catalogued(comp: Mapping[str, Any]) -> vizier.Star:
    ra_deg, dec_deg = comp_position(comp)
    return vizier.Star(
        ra_deg=ra_deg,
        dec_deg=dec_deg,
        mags={entry["band"]: entry["mag"] for entry in comp["bands"]},
        errors_mag={entry["band"]: entry["error"] for entry in comp["bands"]},
    )


def _offsets_deg(star: tuple[float, float], centre: tuple[float, float]) -> np.ndarray:
    """Return the offsets east and north of `star` from `centre` on the tangent plane, degrees."""
    ra, dec, ra0, dec0 = np.radians([*star, *centre])
    cosine = np.sin(dec0) * np.sin(dec) + np.cos(dec0) * np.cos(dec) * np.cos(ra - ra0)
    if cosine <= 0:
        return np.array([np.inf, np.inf])
    east = np.cos(dec) * np.sin(ra - ra0) / cosine
    north = np.cos(dec0) * np.sin(dec) - np.sin(dec0) * np.cos(dec) * np.cos(ra - ra0)
    return np.degrees([east, north / cosine])


def _brightness(comp: Mapping[str, Any]) -> float:
    bands = {entry["band"]: entry["mag"] for entry in comp["bands"]}
    return float(bands.get("V", next(iter(bands.values()), np.inf)))


def chart_id(
    ra_deg: float, dec_deg: float, fov_arcmin: float, maglimit: float, special: str | None = None
) -> str:
    """Return an id shaped like VSP's, ``X42585ESI``, made from the request."""
    text = f"{ra_deg:.4f} {dec_deg:.4f} {fov_arcmin:g} {maglimit:g}"
    if special:
        text += f" {special}"
    number = int(hashlib.sha256(text.encode()).hexdigest()[:12], 16)
    digits, rest = number % 100_000, number // 100_000
    letters = "".join(chr(ord("A") + rest // 26**power % 26) for power in range(3))
    return f"X{digits:05d}{letters}"


def sexagesimal(value: float, decimals: int) -> str:
    """Return hours or degrees as VSP writes them: ``-05:22:31.2``, no sign when positive."""
    unit = 10**decimals
    total = round(abs(value) * 3600 * unit)
    minutes, seconds = divmod(total, 60 * unit)
    sign = "-" if value < 0 and total else ""
    return (
        f"{sign}{minutes // 60:02d}:{minutes % 60:02d}:"
        f"{seconds // unit:02d}.{seconds % unit:0{decimals}d}"
    )
