"""Serves the review page: JSON about observations, their pictures, and the writes of decisions.

Whoever can reach the port may read and decide, so: only names of this machine are answered (a page
elsewhere cannot rebind its own name to it), or, bound to a network, only who has the token. Writes
are JSON with a header of ours, which no foreign page can send unasked. Keys and hashes are looked
up in the database and never made into paths; nothing is kept by the browser but pictures.
"""

import gzip
import hashlib
import importlib.metadata
import importlib.util
import json
import logging
import re
import secrets
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wombat_dagster.domain import Decision
from wombat_dagster.observatory import Observatory
from wombat_dagster.remedies import REMEDIES
from wombat_dagster.stages import decisions, review
from wombat_dagster.store.decisions import Overtaken
from wombat_dagster.store.disks import DiskFull
from wombat_dagster.store.report_ledger import ReportLedger

log = logging.getLogger(__name__)

STATIC: Final = Path(__file__).parent / "static"
TYPES: Final = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
MAX_BODY_BYTES: Final = 1_000_000
MAX_POINTS: Final = 12_000  # of one decision; a hash is 64 characters
OUR_HEADER: Final = b"x-wombat"
LOOPBACK_NAMES: Final = frozenset(("localhost", "127.0.0.1", "::1"))
YEAR_S: Final = 31_536_000
POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",  # Plotly writes styles into its elements
        "img-src 'self' data: blob:",  # its camera button
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
}
NO_STORE: Final = {"cache-control": "no-store"}
PICTURE: Final = {"cache-control": "private, max-age=3600"}  # its address holds a version

NOT_NOW: Final = (
    "SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_CANTOPEN", "SQLITE_IOERR", "SQLITE_READONLY",
)  # fmt: skip
"""How the names of SQLite's errors begin when another is writing, or the disk is away."""
ON_MAGNITUDES: Final = frozenset(("approve", "reject-points", "restore-points"))
"""Decisions on what the curve shows: they hold of the magnitudes that were seen."""

Opener = Callable[[], Observatory]


# ------------------------------------------------------------------------------- who may come in


@dataclass(frozen=True, slots=True, kw_only=True)
class _Refusal:
    status: int
    words: str


class Guard:
    """Lets through whoever may come in, and puts the headers of safety on every answer.

    `token` None: the server is bound to this machine's loopback, and only its names are answered.
    """

    def __init__(self, app: ASGIApp, *, token: str | None, cookie: str) -> None:
        self._app, self._token, self._cookie = app, token, cookie

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "websocket":  # there is none here
                await send({"type": "websocket.close", "code": 1008})
                return
            await self._app(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        asked = self._asked_token(scope)
        is_guest = self._token is not None and self._is_right(asked)

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                extra = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                if is_guest:
                    extra.append((b"set-cookie", self._set_cookie()))
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        refusal = self._refusal(scope, headers, is_guest=is_guest)
        answer: ASGIApp = self._app
        if refusal is not None:
            answer = _error(refusal.status, refusal.words)
        await answer(scope, receive, send_safely)

    def _refusal(
        self, scope: Scope, headers: Mapping[bytes, bytes], *, is_guest: bool
    ) -> _Refusal | None:
        host = headers.get(b"host", b"").decode("latin-1")
        if self._token is None:
            if _host_name(host) not in LOOPBACK_NAMES:
                return _Refusal(status=421, words="this page answers to localhost only")
        elif not is_guest and not self._is_right(self._cookie_of(headers)):
            return _Refusal(
                status=401, words="open the address with ?token=… that wombat review has printed"
            )
        if scope["method"] in ("GET", "HEAD"):
            return None
        return _refused_write(headers, host)

    def _asked_token(self, scope: Scope) -> str | None:
        if scope["method"] != "GET" or scope["path"] != "/":
            return None
        values = parse_qs(scope["query_string"].decode("latin-1")).get("token")
        return values[0] if values else None

    def _cookie_of(self, headers: Mapping[bytes, bytes]) -> str | None:
        jar = SimpleCookie()
        try:
            jar.load(headers.get(b"cookie", b"").decode("latin-1"))
        except CookieError:
            return None
        found = jar.get(self._cookie)
        return found.value if found is not None else None

    def _is_right(self, token: str | None) -> bool:
        if token is None or self._token is None:
            return False
        return secrets.compare_digest(token.encode(errors="replace"), self._token.encode())

    def _set_cookie(self) -> bytes:
        text = f"{self._cookie}={self._token}; Path=/; HttpOnly; SameSite=Strict"
        return text.encode("latin-1")


def _host_name(host: str) -> str:
    """Return the name in a Host header, without its port and brackets."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _refused_write(headers: Mapping[bytes, bytes], host: str) -> _Refusal | None:
    """Return why a write is not ours: a foreign page sends its Origin, and cannot set our header.

    Nor JSON: a browser would ask first, and nobody here answers such questions.
    """
    origin = headers.get(b"origin")
    if origin is not None and urlsplit_netloc(origin.decode("latin-1")) != host.lower():
        return _Refusal(status=403, words="a write that another page asks for is refused")
    if headers.get(b"sec-fetch-site", b"same-origin") not in (b"same-origin", b"none"):
        return _Refusal(status=403, words="a write that another page asks for is refused")
    if OUR_HEADER not in headers:
        return _Refusal(status=403, words="a write without the header X-Wombat is refused")
    kind = headers.get(b"content-type", b"").split(b";")[0].strip().lower()
    if kind != b"application/json":
        return _Refusal(status=415, words="a write is application/json")
    return None


def urlsplit_netloc(address: str) -> str:
    """Return host and port of an address, "" of what is none (``null``)."""
    try:
        return urlsplit(address).netloc.lower()
    except ValueError:
        return ""


# ------------------------------------------------------------------------------------ answers


def _json(value: Any, status: int = 200) -> Response:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    data = text.encode(errors="replace")  # a name that is no text
    return Response(data, status, NO_STORE, media_type="application/json")


def _error(status: int, words: str) -> Response:
    return _json({"error": words}, status)


async def _on_http_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    answer = _error(error.status_code, str(error.detail))
    for name, value in (error.headers or {}).items():
        answer.headers[name] = value
    return answer


async def _on_no_room(_request: Request, error: Exception) -> Response:
    log.error("not written: %s", error)
    return _error(507, f"the disk is full, nothing was written: {error}")


async def _on_busy(_request: Request, error: Exception) -> Response:
    if not getattr(error, "sqlite_errorname", "").startswith(NOT_NOW):
        raise error
    log.error("the database does not answer: %s", error)
    return _error(503, f"the database does not answer ({error}); try again in a moment")


# ------------------------------------------------------------------------------ files of the page


@dataclass(frozen=True, slots=True, kw_only=True)
class _Static:
    data: bytes
    packed: bytes
    kind: str
    tag: str


def _plotly_file() -> Path:
    """Return where Plotly's script lies in the installed package `plotly`, which is not imported.

    Raises
    ------
    FileNotFoundError
        It is not installed, or another version keeps it elsewhere.
    """
    found = importlib.util.find_spec("plotly")
    for place in (found.submodule_search_locations or ()) if found else ():
        path = Path(place) / "package_data" / "plotly.min.js"
        if path.is_file():
            return path
    raise FileNotFoundError("plotly.min.js: pip install plotly")


@cache
def _static(name: str) -> _Static:
    path = _plotly_file() if name == "plotly.min.js" else STATIC / name
    data = path.read_bytes()
    if name == "index.html":
        version = re.sub(r"[^0-9A-Za-z.+-]", "", importlib.metadata.version("plotly"))
        data = data.replace(b"{{plotly}}", version.encode())
    digest = hashlib.sha256(data).hexdigest()[:16]
    return _Static(data=data, packed=gzip.compress(data, 6), kind=TYPES[path.suffix], tag=digest)


@cache
def _static_names() -> frozenset[str]:
    ours = {path.name for path in STATIC.iterdir() if path.suffix in TYPES}
    return frozenset(ours | {"plotly.min.js"})


def _static_answer(request: Request, name: str) -> Response:
    found = _static(name)
    keep = f"public, max-age={YEAR_S}, immutable" if name == "plotly.min.js" else "no-cache"
    headers = {"cache-control": keep, "etag": f'"{found.tag}"', "vary": "accept-encoding"}
    if request.headers.get("if-none-match") == headers["etag"]:
        return Response(status_code=304, headers=headers)
    data = found.data
    if "gzip" in request.headers.get("accept-encoding", ""):
        data, headers["content-encoding"] = found.packed, "gzip"
    return Response(data, headers=headers, media_type=found.kind)


# ------------------------------------------------------------------------------- what is asked


def _is_text(value: str) -> str:
    """Refuse half surrogate pairs, which JSON can say and no database or file can hold."""
    value.encode()
    return value


Text = Annotated[str, AfterValidator(_is_text)]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


Kind = TypeVar("Kind", bound=_Asked)


class AskedDecision(_Asked):
    """What a page sends with a decision: also what it has seen, so that none is overrun."""

    key: Annotated[Text, Field(max_length=500)]
    kind: Literal[
        "approve", "reject", "reject-points", "restore-points", "confirm-star", "undo"
    ]  # fmt: skip
    raw_hashes: Annotated[
        list[Annotated[Text, Field(max_length=128)]], Field(max_length=MAX_POINTS)
    ]
    why: Annotated[Text, Field(max_length=1000)] | None = None
    seen: Annotated[int, Field(ge=0, lt=2**62)]
    version: Annotated[Text, Field(max_length=128)] | None


class AskedReport(_Asked):
    """Which approved observations to write into a report."""

    keys: Annotated[list[Annotated[Text, Field(max_length=500)]], Field(max_length=MAX_POINTS)]
    amendments: bool = False


class AskedSubmitted(_Asked):
    """Which report the person has uploaded."""

    file: Annotated[Text, Field(max_length=500)]


class AskedSeen(_Asked):
    """Which events the person has seen."""

    ids: Annotated[list[Annotated[int, Field(ge=0, lt=2**62)]], Field(max_length=MAX_POINTS)]


async def _body(request: Request) -> bytes:
    """Return what was sent; nothing of what is too long is kept."""
    data = bytearray()
    try:
        async for part in request.stream():
            data += part
            if len(data) > MAX_BODY_BYTES:
                raise HTTPException(413, f"more than {MAX_BODY_BYTES} bytes")
    except ClientDisconnect as error:
        raise HTTPException(400, "the connection ended within the request") from error
    return bytes(data)


async def _asked(request: Request, kind: type[Kind]) -> Kind:
    data = await _body(request)
    try:
        plain = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, "the request is no JSON") from error
    try:
        return kind.model_validate(plain)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in problem["loc"]) or "the request"
        raise HTTPException(422, f"{where}: {problem['msg']}") from error


# ------------------------------------------------------------------------------------- the pages


class _Pages:
    """The answers, of whatever observatory `opener` opens: its configuration may change."""

    def __init__(self, opener: Opener) -> None:
        self._opener = opener

    def _observatory(self) -> Observatory:
        try:
            return self._opener()
        except (OSError, ValueError) as error:
            raise HTTPException(503, f"wombat.toml cannot be read: {error}") from error

    def _known(self, key: str) -> Observatory:
        """Return the observatory, for an observation that it knows."""
        observatory = self._observatory()
        try:
            observatory.status.target_row(key)
        except LookupError as error:
            raise HTTPException(404, "no such observation") from error
        return observatory

    def index(self, request: Request) -> Response:
        return _static_answer(request, "index.html")

    def static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in _static_names():
            raise HTTPException(404, "no such file")
        return _static_answer(request, name)

    def list(self, _request: Request) -> Response:
        observatory = self._observatory()
        return _json(
            {
                **review.overview(observatory),
                "who": decisions.who_decides(observatory.settings),
                "words": {
                    word: {"cause": one.cause, "remedy": one.remedy}
                    for word, one in REMEDIES.items()
                },
            }
        )

    def observation(self, request: Request) -> Response:
        key = request.path_params["key"]
        return _json(review.observation(self._known(key), key))

    def earlier(self, request: Request) -> Response:
        key = request.path_params["key"]
        return _json({"nights": review.earlier_nights(self._known(key), key)})

    def chart(self, request: Request) -> Response:
        key = request.path_params["key"]
        png = review.chart_png(self._known(key), key)
        if png is None:
            raise HTTPException(404, "no finding chart")
        return Response(png, headers=PICTURE, media_type="image/png")

    def thumbnail(self, request: Request) -> Response:
        key, raw_hash = request.path_params["key"], request.path_params["raw_hash"]
        jpeg = review.thumbnail_jpeg(self._known(key), key, raw_hash)
        if jpeg is None:
            raise HTTPException(404, "no picture of this frame")
        return Response(jpeg, headers=PICTURE, media_type="image/jpeg")

    def reports(self, _request: Request) -> Response:
        return _json({"reports": review.reports(self._observatory())})

    def report_text(self, request: Request) -> Response:
        text = review.report_text(self._observatory(), request.path_params["name"])
        if text is None:
            raise HTTPException(404, "no such report")
        headers = {**NO_STORE, "content-disposition": "attachment"}
        return Response(text, headers=headers, media_type="text/plain; charset=ascii")

    async def decide(self, request: Request) -> Response:
        return await run_in_threadpool(self._decide, await _asked(request, AskedDecision))

    async def report(self, request: Request) -> Response:
        return await run_in_threadpool(self._report, await _asked(request, AskedReport))

    async def submitted(self, request: Request) -> Response:
        return await run_in_threadpool(self._submitted, await _asked(request, AskedSubmitted))

    async def seen(self, request: Request) -> Response:
        return await run_in_threadpool(self._seen, await _asked(request, AskedSeen))

    def _decide(self, asked: AskedDecision) -> Response:
        observatory = self._known(asked.key)
        try:
            carry_out(observatory, asked)
        except Overtaken as overtaken:
            state = review.observation(observatory, asked.key)
            return _json({"error": str(overtaken), "observation": state}, 409)
        except decisions.Refusal as refused:
            return _error(422, str(refused))
        log.info("%s: %s from the page", asked.key, asked.kind)
        return _json(review.observation(observatory, asked.key))

    def _report(self, asked: AskedReport) -> Response:
        observatory = self._observatory()
        who = decisions.who_decides(observatory.settings)
        try:
            return _json(
                review.write_report(observatory, asked.keys, amendments=asked.amendments, who=who)
            )
        except decisions.Refusal as refused:
            return _error(422, str(refused))

    def _submitted(self, asked: AskedSubmitted) -> Response:
        observatory = self._observatory()
        who = decisions.who_decides(observatory.settings)
        try:
            n = ReportLedger(observatory.status.path).submit(file=asked.file, who=who)
        except KeyError as error:
            raise HTTPException(404, str(error.args[0])) from error
        except Overtaken as error:
            return _error(409, str(error))
        return _json({"n_lines": n})

    def _seen(self, asked: AskedSeen) -> Response:
        return _json({"n_events": review.mark_seen(self._observatory(), asked.ids)})


def carry_out(observatory: Observatory, asked: AskedDecision) -> Decision:
    """Do what a page asks. Raises `decisions.Refusal` and `Overtaken`.

    Also when the magnitudes are no longer those that the page has shown.
    """
    version = observatory.status.product_version(asked.key, review.MAGNITUDES)
    if asked.kind in ON_MAGNITUDES and asked.version != version:
        raise Overtaken(f"the magnitudes of {asked.key} were made again meanwhile: look once more")
    who, seen, key = decisions.who_decides(observatory.settings), asked.seen, asked.key
    match asked.kind:
        case "approve":
            return decisions.approve(observatory, key, who=who, seen=seen, why=asked.why)
        case "reject":
            return decisions.reject(observatory, key, who=who, seen=seen, why=asked.why or "")
        case "reject-points":
            return decisions.reject_points(
                observatory, key, asked.raw_hashes, who=who, seen=seen, why=asked.why
            )
        case "restore-points":
            return decisions.restore_points(
                observatory, key, asked.raw_hashes, who=who, seen=seen, why=asked.why
            )
        case "confirm-star":
            return decisions.confirm_star(observatory, key, who=who, seen=seen)
        case "undo":
            return decisions.undo(observatory, key, who=who, seen=seen)


def make_app(opener: Opener, *, token: str | None, port: int) -> ASGIApp:
    """Return the application that serves the page.

    `opener` returns the observatory, `token` is what lets one in (None: bound to the loopback,
    whose names alone are answered), `port` tells the cookies of two pages of one machine apart.
    """
    pages = _Pages(opener)
    one = "/api/observation/{key}"
    app = Starlette(
        routes=[
            Route("/", pages.index),
            Route("/static/{name}", pages.static),
            Route("/api/list", pages.list),
            Route(one, pages.observation),
            Route(f"{one}/earlier", pages.earlier),
            Route(f"{one}/chart.png", pages.chart),
            Route(f"{one}/thumbnail/{{raw_hash}}.jpg", pages.thumbnail),
            Route("/api/reports", pages.reports),
            Route("/api/reports/{name}", pages.report_text),
            Route("/api/decide", pages.decide, methods=["POST"]),
            Route("/api/report", pages.report, methods=["POST"]),
            Route("/api/submitted", pages.submitted, methods=["POST"]),
            Route("/api/seen", pages.seen, methods=["POST"]),
        ],
        exception_handlers={
            HTTPException: _on_http_error,
            DiskFull: _on_no_room,
            sqlite3.OperationalError: _on_busy,
        },
    )
    return Guard(app, token=token, cookie=f"wombat_review_{port}")
