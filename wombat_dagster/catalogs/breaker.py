"""Services known to be away: what all processes know of an outage, so that none asks in vain.

One small JSON file per service beside the cache, ``away_vsp.json``, is the whole state: it is there
while the service is away. It appears when a request failed with all its retries, and goes with the
first good answer. A file that cannot be read counts as none. When its time has come one request
goes through, once and without retries; the process that makes it holds ``away_vsp.try`` meanwhile,
so that many at once do not rush a service that comes up. Every such try in vain doubles the wait.

Times are the clock's on the wall, which a person may set back: a last try that lies in the future,
or a next one too far from it, is taken for a reason to try now.
"""

import datetime as dt
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from wombat_dagster.catalogs.cache import write_whole
from wombat_dagster.catalogs.clock import SYSTEM_CLOCK, Clock
from wombat_dagster.config import AavsoSettings

log = logging.getLogger(__name__)

FORMAT = 1
"""Version of the files; others are skipped."""
LONGEST_WAIT_S = 3600.0
LONGEST_RETRY_AFTER_S = 86400.0  # a service may ask for more patience than we had meant to show
CLAIM_SPARE_S = 60.0  # beyond the patience of one request
CLOCK_SPARE_S = 60.0  # a claim may seem so much younger than now


class KnownAway(Exception):
    """The service is known to be away, and it is not our turn to try."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Away:
    """An outage as it is known; times are ISO 8601. `words` is what the last try ended with."""

    service: str
    since_utc: str
    last_utc: str
    next_try_utc: str
    n_failures: int
    words: str

    def sentence(self) -> str:
        """Return what a person should know of it."""
        return (
            f"{self.service} is away since {self.since_utc} and is asked again at "
            f"{self.next_try_utc}; try {self.n_failures} failed at {self.last_utc}: {self.words}"
        )


def away(cache_dir: Path, service: str) -> Away | None:
    """Return what is known of an outage of `service` ("VSP", "VSX", "VizieR"), None when nothing.

    Nobody is asked.
    """
    path = _file(cache_dir, service)
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["wombat_away"] != FORMAT:
            return None
        known = Away(
            service=str(kept["service"]),
            since_utc=str(kept["since_utc"]),
            last_utc=str(kept["last_utc"]),
            next_try_utc=str(kept["next_try_utc"]),
            n_failures=int(kept["n_failures"]),
            words=str(kept["words"]),
        )
        for text in (known.since_utc, known.last_utc, known.next_try_utc):
            if dt.datetime.fromisoformat(text).tzinfo is None:
                raise ValueError(f"{text} has no offset")  # noqa: TRY301 - one home for bad files
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s is left aside: %s: %s", path, type(error).__name__, error)
        return None
    return known


class Breaker:
    """Decides for one service whether a request may be made, and remembers how it ended."""

    def __init__(
        self,
        service: str,
        cache_dir: Path,
        settings: AavsoSettings,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.service = service
        self._cache_dir = cache_dir
        self._settings = settings
        self._clock = clock

    def away(self) -> Away | None:
        """Return the outage that is known of; nobody is asked."""
        return away(self._cache_dir, self.service)

    def note(self) -> str:
        """Return of the outage what stays true, for products' notes: a day without an answer."""
        known = self.away()  # None: another process had an answer since, or the disk is full
        day = f" on {known.last_utc[:10]} UTC" if known else ""
        return f"{self.service} did not answer{day}"

    def due(self) -> bool:
        """Return whether the service is known to be away and the time for the next try has come."""
        known = self.away()
        return known is not None and self._is_due(known)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Let a request through: any one when the service is well, a single one when it is away.

        Raises
        ------
        KnownAway
            The service is away and not to be asked now; the message says all that is known.
        """
        known = self.away()
        if known is None:
            yield
            return
        if not self._is_due(known):
            raise KnownAway(known.sentence())
        if not self._claim():
            raise KnownAway(f"{known.sentence()}; another run is asking it now")
        try:
            known = self.away()
            if known is not None and not self._is_due(known):  # another was quicker
                raise KnownAway(known.sentence())
            yield
        finally:
            self._path(".try").unlink(missing_ok=True)

    def answered(self) -> None:
        """Remember that the service answered: it is not away."""
        try:
            self._path(".json").unlink()
        except FileNotFoundError:
            return
        except OSError as error:
            log.warning("%s: %s", self._path(".json"), error)
            return
        log.info("%s answers again", self.service)

    def failed(self, words: str, *, retry_after_s: float = 0.0) -> None:
        """Remember that a request failed with all its retries: the service is away, now or still.

        A try that was due puts the next one off for twice as long. Others (a person's, one that had
        begun before the outage was known) only leave their words.
        """
        now = self._clock.now_utc()
        known = self.away()
        if known is not None and not self._is_due(known):
            self._keep(replace(known, last_utc=_text(now), words=words))
            return
        n_failures = 1 if known is None else known.n_failures + 1
        since = now if known is None else min(now, dt.datetime.fromisoformat(known.since_utc))
        wait_s = max(self._wait_s(n_failures), min(retry_after_s, LONGEST_RETRY_AFTER_S))
        self._keep(
            Away(
                service=self.service,
                since_utc=_text(since),
                last_utc=_text(now),
                next_try_utc=_text(now + dt.timedelta(seconds=wait_s)),
                n_failures=n_failures,
                words=words,
            )
        )

    def _wait_s(self, n_failures: int) -> float:
        """Return `probe_s` after the first failure, twice as long after every further one."""
        doubled_s = self._settings.probe_s * 2.0 ** min(n_failures - 1, 32)
        return min(doubled_s, max(LONGEST_WAIT_S, self._settings.probe_s))

    def _is_due(self, known: Away) -> bool:
        # To the second, as the file has it, or a try could seem to lie in the future.
        now = self._clock.now_utc().replace(microsecond=0)
        last, following = map(dt.datetime.fromisoformat, (known.last_utc, known.next_try_utc))
        longest_s = max(LONGEST_RETRY_AFTER_S, self._settings.probe_s)
        nonsense = now < last or (following - last).total_seconds() > longest_s
        return nonsense or now >= following

    def _keep(self, known: Away) -> None:
        """Write the state. A disk that takes nothing must not hide the outage itself."""
        text = json.dumps({"wombat_away": FORMAT, **asdict(known)}, indent=1, ensure_ascii=False)
        try:
            write_whole(self._path(".json"), text)
        except OSError as error:
            log.warning("%s: %s", self._path(".json"), error)

    def _claim(self) -> bool:
        """Return whether the try is ours; one that its process left behind is taken over."""
        path = self._path(".try")
        try:
            if path.exists() and self._is_left_behind(path):
                path.unlink(missing_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
        except FileExistsError:
            return False
        except OSError as error:
            log.warning("%s: %s", path, error)
        return True

    def _is_left_behind(self, path: Path) -> bool:
        # The age of a file is the disk's business: its clock is the system's, whatever ours is.
        try:
            age_s = time.time() - path.stat().st_mtime
        except FileNotFoundError:
            return False
        return not -CLOCK_SPARE_S <= age_s <= self._settings.patience_s + CLAIM_SPARE_S

    def _path(self, suffix: str) -> Path:
        return _file(self._cache_dir, self.service).with_suffix(suffix)


def _file(cache_dir: Path, service: str) -> Path:
    return cache_dir / f"away_{service.casefold()}.json"


def _text(time_utc: dt.datetime) -> str:
    return time_utc.isoformat(timespec="seconds")
