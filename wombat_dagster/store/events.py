"""What the observer is told of at once, and how bright each night was: `event` and `t1_night`.

An event is kept for good under its signature: found again it gets the newer words and is not told a
second time. The nights are a memory of what magnitudes.csv files say, each good for one version of
its file.
"""

import contextlib
import datetime as dt
import sqlite3
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from wombat_dagster.store import schema

WITHDRAWN = "withdrawn, the magnitudes no longer say so: "
"""What the words of an event begin with that was told or seen and is found no more."""


class EventKind(StrEnum):
    """What happened, or is going to."""

    BRIGHTER = "brighter"
    FAINTER = "fainter"
    ECLIPSE = "eclipse"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One row of the table `event`; times are ISO 8601 in UTC.

    `key` is the observation it was found in, of an eclipse the star's newest. `at_utc` is when an
    eclipse is. `told_utc`: when the observer's command took it; `seen_utc`: when a person did.
    """

    id: int
    key: str
    kind: EventKind
    words: str
    signature: str
    made_utc: str
    at_utc: str | None = None
    told_utc: str | None = None
    seen_utc: str | None = None

    @property
    def is_withdrawn(self) -> bool:
        """Whether it turned out to be none."""
        return self.words.startswith(WITHDRAWN)

    def is_past(self, now_utc: dt.datetime) -> bool:
        """Return whether it is an eclipse whose time is over."""
        return self.at_utc is not None and self.at_utc < _iso(now_utc)


@dataclass(frozen=True, slots=True, kw_only=True)
class NightRow:
    """One row of the table `t1_night`: a night's brightness, all None when no point is good.

    `version` is that of the standard magnitudes; the fields are `brightness.NightBrightness`'s.
    """

    key: str
    version: str
    band: str
    n_points: int
    median_mag: float | None
    bright_mag: float | None
    faint_mag: float | None
    error_mag: float | None
    is_limit: bool


class Events:
    """The two tables in the database at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(schema.connect(self.path)) as connection:
            yield connection

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._reading() as connection, schema.transaction(connection, self.path):
            yield connection

    def record(
        self,
        kind: EventKind,
        signature: str,
        *,
        key: str,
        words: str,
        now_utc: dt.datetime,
        at_utc: dt.datetime | None = None,
        is_seen: bool = False,
    ) -> None:
        """Keep an event; one of the same signature gets these words, and stays told and seen.

        `is_seen`: a new one is no news, the person has decided on its observation already.
        """
        now = _iso(now_utc)
        with self._writing() as connection:
            connection.execute(
                "INSERT INTO event (key, kind, words, made_utc, at_utc, seen_utc, signature)"
                " VALUES (?,?,?,?,?,?,?) ON CONFLICT (signature) DO UPDATE"
                " SET key = excluded.key, words = excluded.words, at_utc = excluded.at_utc",
                (
                    key, kind.value, words, now, None if at_utc is None else _iso(at_utc),
                    now if is_seen else None, signature,
                ),
            )  # fmt: skip

    def withdraw(self, signatures: Collection[str]) -> None:
        """Take events back: those that nobody knows of are gone, the others say that they are."""
        with self._writing() as connection:
            for signature in signatures:
                connection.execute(
                    "DELETE FROM event"
                    " WHERE signature = ? AND told_utc IS NULL AND seen_utc IS NULL",
                    (signature,),
                )
                connection.execute(
                    "UPDATE event SET words = ? || words"
                    " WHERE signature = ? AND substr(words, 1, ?) <> ?",
                    (WITHDRAWN, signature, len(WITHDRAWN), WITHDRAWN),
                )

    def all(self) -> list[Event]:
        """Return every event, the newest first."""
        return self._events("1")

    def of(self, key: str) -> list[Event]:
        """Return what was found in one observation."""
        return self._events("key = ?", key)

    def untold(self, since_utc: dt.datetime) -> list[Event]:
        """Return what was found since then and is neither told nor seen, the oldest first."""
        where = "told_utc IS NULL AND seen_utc IS NULL AND made_utc >= ?"
        return self._events(where, _iso(since_utc))[::-1]

    def _events(self, where: str, *values: str) -> list[Event]:
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT id, key, kind, words, signature, made_utc, at_utc, told_utc, seen_utc"
                f" FROM event WHERE {where} ORDER BY made_utc DESC, id DESC",
                values,
            ).fetchall()
        return [Event(**{**dict(row), "kind": EventKind(row["kind"])}) for row in rows]

    def mark_told(self, number: int, now_utc: dt.datetime) -> None:
        """Write down that the observer's command took an event."""
        with self._writing() as connection:
            connection.execute(
                "UPDATE event SET told_utc = ? WHERE id = ?", (_iso(now_utc), number)
            )

    def mark_seen(self, numbers: Collection[int], now_utc: dt.datetime) -> int:
        """Write down that a person has seen events; return of how many that is new."""
        with self._writing() as connection:
            return sum(
                connection.execute(
                    "UPDATE event SET seen_utc = ? WHERE id = ? AND seen_utc IS NULL",
                    (_iso(now_utc), number),
                ).rowcount
                for number in numbers
            )

    # --------------------------------------------------------------------------------- nights

    def nights(self) -> Mapping[str, NightRow]:
        """Return what is remembered of the nights, by the observations' keys."""
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT key, version, band, n_points, median_mag, bright_mag, faint_mag, error_mag,"
                " is_limit FROM t1_night"
            ).fetchall()
        nights = [NightRow(**{**dict(row), "is_limit": row["is_limit"] == 1}) for row in rows]
        return {night.key: night for night in nights}

    def remember_nights(self, nights: Collection[NightRow]) -> None:
        """Keep nights, each in place of what was remembered of its observation."""
        if not nights:
            return
        with self._writing() as connection:
            connection.executemany(
                "INSERT OR REPLACE INTO t1_night (key, version, band, n_points, median_mag,"
                " bright_mag, faint_mag, error_mag, is_limit) VALUES (?,?,?,?,?,?,?,?,?)",
                [
                    (
                        one.key, one.version, one.band, one.n_points, one.median_mag,
                        one.bright_mag, one.faint_mag, one.error_mag, int(one.is_limit),
                    )
                    for one in nights
                ],
            )  # fmt: skip


def _iso(moment: dt.datetime) -> str:
    return moment.astimezone(dt.UTC).isoformat(timespec="seconds")
