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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from wombat_dagster.domain import slug

log = logging.getLogger(__name__)

FORMAT = 1
"""Version of the files; others are skipped."""


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
        self.directory.mkdir(parents=True, exist_ok=True)
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
        path = self._path(name)
        handle, temporary = tempfile.mkstemp(dir=self.directory, prefix=".", suffix=".part")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise

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
