"""How services are asked politely, a client of those that speak JSON, and what counts as an answer.

A request ends in one of four ways (DOMAIN section 2), and they are never taken for one another:

- *ok*, *empty*: an `Answer` comes back; whether something is in it, its reader knows;
- *down*: time-out, connection error, 403, 408, 429, 5xx, a body that is not the JSON expected (a
  challenge page, half an answer): the other hosts and further rounds are tried, then
  `VsxUnavailable` or `VspUnavailable` is raised with hosts, errors and time, and from then on, by
  all processes, at once and without a request, until the service's next try (`breaker`);
- *bad request*: any other 4xx is our fault: `BadRequest`, at once.

A host that answers 404 or 410 does not have the service at that address (AAVSO moved it before):
the next host is asked, and only when all of them say so is it a bad request.
"""

import datetime as dt
import functools
import json
import logging
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Generic, TypeVar

import httpx

from wombat_dagster.catalogs.breaker import Breaker, KnownAway
from wombat_dagster.catalogs.clock import SYSTEM_CLOCK, Clock
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


class Down(Exception):
    """One try failed; `retry_after_s` is what the service asked for, 0 when it did not."""

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Elsewhere(Down):
    """The host does not have the service."""


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


PROCESS_PACE = Pace()
"""The pace of this process, shared by all its clients."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer(Generic[T]):
    """What a service answered: the JSON as it came, and `value` as its reader understood it."""

    url: str
    fetched_utc: str
    content: JsonObject
    value: T


class Service:
    """A service on one or more hosts: asked patiently, and left alone while it is known away."""

    def __init__(
        self,
        *,
        name: str,
        urls: Sequence[str],
        unavailable: type[ServiceUnavailable],
        settings: AavsoSettings,
        breaker: Breaker,
        clock: Clock = SYSTEM_CLOCK,
        pace: Pace = PROCESS_PACE,
    ) -> None:
        self.name = name
        self.urls = tuple(urls)
        self.clock = clock
        self.breaker = breaker
        self._unavailable = unavailable
        self._settings = settings
        self._pace = pace

    def ask(self, once: Callable[[str, float], T], *, retries: int | None = None) -> T:
        """Return the first good answer of the hosts, tried in order, round after round.

        `once` asks one address, given with a time-out in seconds, and raises `Down` when no good
        answer came. All tries and the back-off between rounds together take at most `patience_s`,
        time spent queueing behind other requests of this process excepted. A failure is remembered:
        until the next try is due nobody asks again.

        Raises
        ------
        VsxUnavailable, VspUnavailable
            No host gave a good answer, or the service is known to be away.
        BadRequest
            The request itself was refused.
        """
        try:
            with self.breaker.turn():
                again = self._settings.retries if retries is None else retries
                return self._insist(once, 1 + again, remember=True)
        except KnownAway as away:
            raise self._unavailable(str(away)) from away

    def probe(self, once: Callable[[str, float], T]) -> bool:
        """Return whether the service answers now, asked once per host whatever is known of it.

        An answer ends an outage; that there is none begins no new one.
        """
        try:
            self._insist(once, 1, remember=self.breaker.away() is not None)
        except self._unavailable:
            return False
        return True

    def _insist(self, once: Callable[[str, float], T], rounds: int, *, remember: bool) -> T:
        """Ask up to `rounds` times, and let the breaker know the end; a failure if `remember`."""
        deadline_s = self.clock.monotonic_s() + self._settings.patience_s
        failures: dict[str, Down] = {}
        tries = 0
        for round_number in range(rounds):
            if round_number and (
                self.breaker.away() is not None  # one try, or somebody gave it up meanwhile
                or not self._back_off(round_number, failures, deadline_s)
            ):
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
                        answer = once(url, min(self._settings.timeout_s, left_s))
                    except Down as down:
                        log.info("%s: %s: %s", self.name, url, down)
                        failures[url] = down
                        continue
                    except BadRequest:
                        self.breaker.answered()
                        raise
                    self.breaker.answered()
                    return answer
            if len(failures) == len(self.urls) and all(
                isinstance(f, Elsewhere) for f in failures.values()
            ):
                raise BadRequest(f"{self.name} is at none of its addresses: {_each(failures)}")
        words = f"{tries} {'try' if tries == 1 else 'tries'}: {_each(failures)}"
        if remember:
            self.breaker.failed(words, retry_after_s=_longest_retry_after_s(failures))
        raise self._unavailable(f"{self.name} away at {self.clock.utc_text()} after {words}")

    def _back_off(self, round_number: int, failures: Mapping[str, Down], deadline_s: float) -> bool:
        """Sleep before a further round; False when patience does not reach so far."""
        wait_s = FIRST_BACK_OFF_S * BACK_OFF_FACTOR ** (round_number - 1)
        wait_s = max(wait_s, _longest_retry_after_s(failures))
        if self.clock.monotonic_s() + wait_s >= deadline_s:
            return False
        self.clock.sleep(wait_s)
        return True


class JsonService:
    """A service that answers GET requests in JSON."""

    def __init__(
        self,
        *,
        name: str,
        urls: Sequence[str],
        unavailable: type[ServiceUnavailable],
        settings: AavsoSettings,
        breaker: Breaker,
        clock: Clock = SYSTEM_CLOCK,
        pace: Pace = PROCESS_PACE,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.breaker = breaker
        self._service = Service(
            name=name,
            urls=urls,
            unavailable=unavailable,
            settings=settings,
            breaker=breaker,
            clock=clock,
            pace=pace,
        )
        self._name = name
        self._clock = clock
        self._transport = transport

    def get(
        self,
        params: Mapping[str, str],
        read: Callable[[JsonObject], T],
        *,
        retries: int | None = None,
    ) -> Answer[T]:
        """Return the first good answer to a request; see `Service.ask`, also for what it raises.

        `read` turns the JSON object into the value wanted and raises `BadAnswer` when it cannot.
        """
        return self._service.ask(
            lambda url, timeout_s: self._ask(url, params, read, timeout_s), retries=retries
        )

    def probe(self, params: Mapping[str, str], read: Callable[[JsonObject], T]) -> bool:
        """Return whether a request is answered now; see `Service.probe`."""
        return self._service.probe(lambda url, timeout_s: self._ask(url, params, read, timeout_s))

    def _ask(
        self,
        url: str,
        params: Mapping[str, str],
        read: Callable[[JsonObject], T],
        timeout_s: float,
    ) -> Answer[T]:
        """Ask one host once."""
        until_s = self._clock.monotonic_s() + timeout_s
        try:
            with (
                self._client() as client,
                client.stream("GET", url, params=dict(params), timeout=timeout_s) as response,
            ):
                body = self._body(response, until_s)
        except httpx.RequestError as error:
            raise Down(f"{type(error).__name__} {error}".strip()) from error
        self._check_status(response, body)
        try:
            content = json.loads(body)
        except ValueError as error:
            raise Down(f"not JSON ({len(body)} bytes, begins {body[:40]!r})") from error
        if not isinstance(content, dict):
            raise Down(f"a JSON object was expected, {type(content).__name__} came")
        try:
            value = read(content)
        except BadAnswer as error:
            raise Down(str(error)) from error
        return Answer(
            url=str(response.url),
            fetched_utc=self._clock.utc_text(),
            content=content,
            value=value,
        )

    def _body(self, response: httpx.Response, until_s: float) -> bytes:
        """Read the body; httpx's own time-out starts again with every byte that trickles in."""
        parts = []
        for part in response.iter_bytes():
            parts.append(part)
            if self._clock.monotonic_s() > until_s:
                raise Down(f"time-out in the middle of the answer, {sum(map(len, parts))} bytes")
        return b"".join(parts)

    def _check_status(self, response: httpx.Response, body: bytes) -> None:
        status = response.status_code
        if status in ELSEWHERE_STATUSES:
            raise Elsewhere(f"HTTP {status}")
        if status in DOWN_STATUSES or status >= 500:
            raise Down(f"HTTP {status}", retry_after_s(response.headers, self._clock))
        if 400 <= status < 500:
            text = body.decode("utf-8", "replace")[:LOGGED_BODY_CHARACTERS]
            log.error("%s refused %s with HTTP %d: %s", self._name, response.url, status, text)
            raise BadRequest(f"{self._name} refused {response.url}: HTTP {status}: {text}")

    def _client(self) -> httpx.Client:
        return httpx.Client(
            headers={"User-Agent": user_agent(), "Accept": "application/json"},
            follow_redirects=True,
            transport=self._transport,
            verify=_tls(),
            # A proxy of the environment cannot reach a stand-in on this machine.
            mounts={"all://127.0.0.1": None, "all://localhost": None},
        )


@functools.cache
def _tls() -> ssl.SSLContext:
    """Return the authorities that are trusted: reading them takes longer than an answer does."""
    return httpx.create_ssl_context()


def user_agent() -> str:
    """Return how wombat introduces itself."""
    try:
        number = version("wombat-dagster")
    except PackageNotFoundError:
        number = "unknown"
    return f"wombat-dagster/{number} (variable-star photometry pipeline; Python httpx)"


def retry_after_s(headers: Mapping[str, str], clock: Clock) -> float:
    """Return the seconds that a Retry-After asks for, as a number or as a date; 0 without one."""
    text = headers.get("retry-after", "").strip()
    if text.isdecimal():
        return float(text)
    try:
        until = parsedate_to_datetime(text)
    except ValueError:
        return 0.0
    until = until if until.tzinfo is not None else until.replace(tzinfo=dt.UTC)
    return max(0.0, (until - clock.now_utc()).total_seconds())


def _longest_retry_after_s(failures: Mapping[str, Down]) -> float:
    return max((failure.retry_after_s for failure in failures.values()), default=0.0)


def _each(failures: Mapping[str, Down]) -> str:
    if not failures:
        return "no address is configured"
    return "; ".join(f"{httpx.URL(url).host}: {failure}" for url, failure in failures.items())
