"""One polite HTTP client for the AAVSO services, and what counts as an answer.

A request ends in one of four ways (DOMAIN section 2), and they are never taken for one another:

- *ok*, *empty*: an `Answer` comes back; whether something is in it, its reader knows;
- *down*: time-out, connection error, 403, 408, 429, 5xx, a body that is not the JSON expected (a
  challenge page, half an answer): the other hosts and further rounds are tried, then
  `VsxUnavailable` or `VspUnavailable` is raised with hosts, errors and time;
- *bad request*: any other 4xx is our fault: `BadRequest`, at once.

A host that answers 404 or 410 does not have the service at that address (AAVSO moved it before):
the next host is asked, and only when all of them say so is it a bad request.
"""

import datetime as dt
import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Generic, TypeVar

import httpx

from wombat_dagster.config import AavsoSettings
from wombat_dagster.domain import ServiceUnavailable

log = logging.getLogger(__name__)

T = TypeVar("T")
JsonObject = Mapping[str, Any]

FIRST_BACK_OFF_S = 2.0
BACK_OFF_FACTOR = 2.0
MIN_TIMEOUT_S = 0.1
DOWN_STATUSES = frozenset({403, 408, 429})
ELSEWHERE_STATUSES = frozenset({404, 410})
LOGGED_BODY_CHARACTERS = 500


class BadRequest(Exception):
    """The service understood us and refuses: a fault of ours, never an outage."""


class BadAnswer(Exception):
    """The body is JSON but not what this service answers: counts as *down*. Raised by readers."""


class _Down(Exception):
    """One try failed; `retry_after_s` is what the service asked for, 0 when it did not."""

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class _Elsewhere(_Down):
    """The host does not have the service."""


def _utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """Time as the clients see it; tests bring their own and wait for nothing."""

    monotonic_s: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    now_utc: Callable[[], dt.datetime] = _utc_now

    def utc_text(self) -> str:
        """Return the time as ISO 8601 to the second, ``2026-11-21T03:47:16+00:00``."""
        return self.now_utc().isoformat(timespec="seconds")


class Pace:
    """Lets one request at a time through, a minimum time after the one before."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last_end_s: float | None = None

    @contextmanager
    def turn(self, min_interval_s: float, clock: Clock) -> Iterator[float]:
        """Wait for our turn; yield the seconds spent queueing behind other threads."""
        asked_s = clock.monotonic_s()
        with self._lock:
            queued_s = clock.monotonic_s() - asked_s
            if self._last_end_s is not None:
                pause_s = self._last_end_s + min_interval_s - clock.monotonic_s()
                if pause_s > 0:
                    clock.sleep(pause_s)
            try:
                yield queued_s
            finally:
                self._last_end_s = clock.monotonic_s()


SYSTEM_CLOCK = Clock()
PROCESS_PACE = Pace()
"""The pace of this process, shared by all its clients."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer(Generic[T]):
    """What a service answered: the JSON as it came, and `value` as its reader understood it."""

    url: str
    fetched_utc: str
    content: JsonObject
    value: T


class JsonService:
    """A service on one or more hosts that answers GET requests in JSON."""

    def __init__(
        self,
        *,
        name: str,
        urls: Sequence[str],
        unavailable: type[ServiceUnavailable],
        settings: AavsoSettings,
        clock: Clock = SYSTEM_CLOCK,
        pace: Pace = PROCESS_PACE,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.name = name
        self.urls = tuple(urls)
        self.clock = clock
        self._unavailable = unavailable
        self._settings = settings
        self._pace = pace
        self._transport = transport

    def get(
        self,
        params: Mapping[str, str],
        read: Callable[[JsonObject], T],
        *,
        retries: int | None = None,
    ) -> Answer[T]:
        """Return the first good answer of the hosts, tried in order, round after round.

        `read` turns the JSON object into the value wanted and raises `BadAnswer` when it cannot.
        All tries and the back-off between rounds together take at most `patience_s`, time spent
        queueing behind other requests of this process excepted.

        Raises
        ------
        VsxUnavailable, VspUnavailable
            No host gave a good answer.
        BadRequest
            The request itself was refused.
        """
        rounds = 1 + (self._settings.retries if retries is None else retries)
        deadline_s = self.clock.monotonic_s() + self._settings.patience_s
        failures: dict[str, _Down] = {}
        tries = 0
        with self._client() as client:
            for round_number in range(rounds):
                if round_number and not self._back_off(round_number, failures, deadline_s):
                    break
                for url in self.urls:
                    pause_s = self._settings.min_interval_s if tries else 0.0
                    if self.clock.monotonic_s() + pause_s >= deadline_s:
                        break
                    with self._pace.turn(self._settings.min_interval_s, self.clock) as queued_s:
                        deadline_s += queued_s
                        left_s = max(deadline_s - self.clock.monotonic_s(), MIN_TIMEOUT_S)
                        tries += 1
                        try:
                            return self._ask(
                                client, url, params, read, min(self._settings.timeout_s, left_s)
                            )
                        except _Down as down:
                            log.info("%s: %s: %s", self.name, url, down)
                            failures[url] = down
                if len(failures) == len(self.urls) and all(
                    isinstance(f, _Elsewhere) for f in failures.values()
                ):
                    raise BadRequest(f"{self.name} is at none of its addresses: {_each(failures)}")
        raise self._unavailable(
            f"{self.name} away at {self.clock.utc_text()} after {tries} tries: {_each(failures)}"
        )

    def _back_off(
        self, round_number: int, failures: Mapping[str, _Down], deadline_s: float
    ) -> bool:
        """Sleep before a further round; False when patience does not reach so far."""
        asked_for_s = max((failure.retry_after_s for failure in failures.values()), default=0.0)
        wait_s = max(FIRST_BACK_OFF_S * BACK_OFF_FACTOR ** (round_number - 1), asked_for_s)
        if self.clock.monotonic_s() + wait_s >= deadline_s:
            return False
        self.clock.sleep(wait_s)
        return True

    def _ask(
        self,
        client: httpx.Client,
        url: str,
        params: Mapping[str, str],
        read: Callable[[JsonObject], T],
        timeout_s: float,
    ) -> Answer[T]:
        """Ask one host once."""
        until_s = self.clock.monotonic_s() + timeout_s
        try:
            with client.stream("GET", url, params=dict(params), timeout=timeout_s) as response:
                body = self._body(response, until_s)
        except httpx.RequestError as error:
            raise _Down(f"{type(error).__name__} {error}".strip()) from error
        self._check_status(response, body)
        try:
            content = json.loads(body)
        except ValueError as error:
            raise _Down(f"not JSON ({len(body)} bytes, begins {body[:40]!r})") from error
        if not isinstance(content, dict):
            raise _Down(f"a JSON object was expected, {type(content).__name__} came")
        try:
            value = read(content)
        except BadAnswer as error:
            raise _Down(str(error)) from error
        return Answer(
            url=str(response.url),
            fetched_utc=self.clock.utc_text(),
            content=content,
            value=value,
        )

    def _body(self, response: httpx.Response, until_s: float) -> bytes:
        """Read the body; httpx's own time-out starts again with every byte that trickles in."""
        parts = []
        for part in response.iter_bytes():
            parts.append(part)
            if self.clock.monotonic_s() > until_s:
                raise _Down(f"time-out in the middle of the answer, {sum(map(len, parts))} bytes")
        return b"".join(parts)

    def _check_status(self, response: httpx.Response, body: bytes) -> None:
        status = response.status_code
        if status in ELSEWHERE_STATUSES:
            raise _Elsewhere(f"HTTP {status}")
        if status in DOWN_STATUSES or status >= 500:
            raise _Down(f"HTTP {status}", _retry_after_s(response))
        if 400 <= status < 500:
            text = body.decode("utf-8", "replace")[:LOGGED_BODY_CHARACTERS]
            log.error("%s refused %s with HTTP %d: %s", self.name, response.url, status, text)
            raise BadRequest(f"{self.name} refused {response.url}: HTTP {status}: {text}")

    def _client(self) -> httpx.Client:
        return httpx.Client(
            headers={"User-Agent": user_agent(), "Accept": "application/json"},
            follow_redirects=True,
            transport=self._transport,
            # A proxy of the environment cannot reach a stand-in on this machine.
            mounts={"all://127.0.0.1": None, "all://localhost": None},
        )


def user_agent() -> str:
    """Return how wombat introduces itself."""
    try:
        number = version("wombat-dagster")
    except PackageNotFoundError:
        number = "unknown"
    return f"wombat-dagster/{number} (variable-star photometry pipeline; Python httpx)"


def _retry_after_s(response: httpx.Response) -> float:
    """Return the seconds of Retry-After; 0 when absent or given as a date."""
    text = response.headers.get("retry-after", "")
    return float(text) if text.isdecimal() else 0.0


def _each(failures: Mapping[str, _Down]) -> str:
    if not failures:
        return "no address is configured"
    return "; ".join(f"{httpx.URL(url).host}: {failure}" for url, failure in failures.items())
