"""The memory of the network on disk: one readable JSON file per good answer, written atomically.

A file holds what was asked, the URL, when it came, when it was last confirmed, and the answer as it
came. Nothing is ever deleted; a file that cannot be read is skipped with a warning, as if it had
never been. What may be served from here and for how long, the clients decide.
"""

import datetime as dt
import hashlib
import json
import logging
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wombat_dagster.domain import slug

log = logging.getLogger(__name__)

FORMAT = 1
"""Version of the files; others are skipped."""
SETTLED_NS = 2_000_000_000  # the coarsest time stamps of file systems


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedAnswer:
    """One good answer. `confirmed_utc` is when the service last gave the same one; ISO 8601."""

    request: Mapping[str, Any]
    url: str
    fetched_utc: str
    confirmed_utc: str
    content: Mapping[str, Any]

    def age_days(self, now_utc: dt.datetime) -> float:
        """Return the days since the service last gave this answer."""
        age = now_utc - dt.datetime.fromisoformat(self.confirmed_utc)
        return age.total_seconds() / 86400.0


class AnswerCache:
    """A directory of answers."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def read(self, name: str) -> CachedAnswer | None:
        """Return the answer kept under `name`, None when there is none."""
        return _read(self._path(name))

    def write(self, name: str, answer: CachedAnswer) -> None:
        """Keep `answer` under `name`; what was there is replaced in one step."""
        text = json.dumps(
            {
                "wombat_cache": FORMAT,
                "request": dict(answer.request),
                "url": answer.url,
                "fetched_utc": answer.fetched_utc,
                "confirmed_utc": answer.confirmed_utc,
                "content": dict(answer.content),
            },
            indent=1,
            ensure_ascii=False,
        )
        write_whole(self._path(name), text)

    def signatures(self) -> dict[str, tuple[int, int]]:
        """Return the names of all answers with what changes when their files do."""
        found = {}
        try:
            with os.scandir(self.directory) as entries:
                for entry in entries:
                    if entry.name.endswith(".json") and not entry.name.startswith("."):
                        stat = entry.stat()
                        name = entry.name.removesuffix(".json")
                        found[name] = (stat.st_mtime_ns, stat.st_size)
        except FileNotFoundError:
            return {}
        return found

    def state(self) -> int | None:
        """Return a number that stays while nothing is written here, at the cost of one look.

        None while the directory is so young, or its last change so recent, that another change
        might not show in its time.
        """
        try:
            changed_ns = self.directory.stat().st_mtime_ns
        except FileNotFoundError:
            return None
        # The disk's time against the system's, whatever the clock of a client says.
        return changed_ns if abs(time.time_ns() - changed_ns) > SETTLED_NS else None

    def all(self) -> Iterator[tuple[str, CachedAnswer]]:
        """Yield every readable answer with its name, in the order of the names."""
        if not self.directory.is_dir():
            return
        for path in sorted(self.directory.glob("[!.]*.json")):
            answer = _read(path)
            if answer is not None:
                yield path.stem, answer

    def _path(self, name: str) -> Path:
        return self.directory / f"{name}.json"


def exact_name(text: str) -> str:
    """Return a file name for `text` that no other text shares, not even one of other case."""
    return f"{slug(text)}_{hashlib.sha256(text.encode()).hexdigest()[:10]}"


def write_whole(path: Path, text: str) -> None:
    """Write a file that is there as a whole or as it was before, whatever happens meanwhile."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _read(path: Path) -> CachedAnswer | None:
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        if kept["wombat_cache"] != FORMAT:
            return None
        answer = CachedAnswer(
            request=dict(kept["request"]),
            url=str(kept["url"]),
            fetched_utc=str(kept["fetched_utc"]),
            confirmed_utc=str(kept["confirmed_utc"]),
            content=dict(kept["content"]),
        )
        for time in (answer.fetched_utc, answer.confirmed_utc):
            if dt.datetime.fromisoformat(time).tzinfo is None:
                raise ValueError(f"{time} has no offset")  # noqa: TRY301 - one home for bad files
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        log.warning("%s is left aside: %s: %s", path, type(error).__name__, error)
        return None
    return answer
