"""Every begin and end of a stage: what it began with, and how it ended. The table `stage_run`.

Rows are only added and ended, so that they tell an observation's history. A row without an end is
of a stage at work, or of one that was killed.
"""

import contextlib
import datetime as dt
import json
import sqlite3
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from wombat_dagster.store import schema
from wombat_dagster.store.software import software_at_work

MADE = "made"
FAILED = "failed"
"""Ending of a stage that raised: a fault of ours, or of the machine's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageRun:
    """One stage of one partition, once.

    `ending` is `MADE`, `FAILED`, the name of a `Shortfall` or of a `ServiceUnavailable`, or None.
    `inputs` are signatures by name: of light frames, masters, settings.
    """

    number: int
    key: str
    asset: str
    run_id: str
    why: str | None
    begun_utc: str
    ended_utc: str | None
    ending: str | None
    reason: str | None
    inputs: Mapping[str, str]
    software: Mapping[str, str] | None  # versions by name; None: older than this was kept

    @property
    def is_broken(self) -> bool:
        """True when it was killed (or is still at work) or raised."""
        return self.ending in (None, FAILED)

    @property
    def is_shortfall(self) -> bool:
        """True when it ended without a product for a reason in the sky, the data or a service."""
        return self.ending not in (None, FAILED, MADE)


class StageRuns:
    """The table `stage_run` of the database at `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextlib.contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(schema.connect(self._path)) as connection:
            yield connection

    def begin(
        self, key: str, asset: str, *, inputs: Mapping[str, str], run_id: str, why: str | None
    ) -> int:
        """Note that a stage begins, and with what; return the number to end it by."""
        with self._connected() as connection:
            cursor = connection.execute(
                "INSERT INTO stage_run (key, asset, run_id, why, begun_utc, inputs, software)"
                " VALUES (?,?,?,?,?,?,?)",
                (
                    key, asset, run_id, why, _now(), json.dumps(dict(inputs)),
                    json.dumps(software_at_work()),
                ),
            )  # fmt: skip
            assert cursor.lastrowid is not None
            return cursor.lastrowid

    def end(
        self, number: int, ending: str, reason: str | None = None, *, inputs: Mapping[str, str]
    ) -> None:
        """Note how a stage ended; `inputs` are those that it began with, and what it found."""
        with self._connected() as connection:
            connection.execute(
                "UPDATE stage_run SET ended_utc = ?, ending = ?, reason = ?, inputs = ?"
                " WHERE id = ?",
                (_now(), ending, reason, json.dumps(dict(inputs)), number),
            )

    def confirm(self, confirmed: Mapping[int, Mapping[str, str]]) -> None:
        """Write other inputs to rows, by number: what changed makes no difference to them."""
        with self._connected() as connection, schema.transaction(connection, self._path):
            connection.executemany(
                "UPDATE stage_run SET inputs = ? WHERE id = ?",
                [(json.dumps(dict(inputs)), number) for number, inputs in confirmed.items()],
            )

    def latest(self, key: str | None = None) -> dict[str, dict[str, StageRun]]:
        """Return the last row of every stage, by partition key and asset (only of `key`)."""
        of_key, values = ("WHERE key = ? ", [key]) if key is not None else ("", [])
        with self._connected() as connection:
            rows = connection.execute(
                f"SELECT * FROM stage_run WHERE id IN (SELECT max(id) FROM stage_run {of_key}"
                "GROUP BY key, asset) ORDER BY id",
                values,
            ).fetchall()
        found: dict[str, dict[str, StageRun]] = defaultdict(dict)
        for row in rows:
            found[row["key"]][row["asset"]] = _stage_run(row)
        return dict(found)

    def history(self, key: str) -> list[StageRun]:
        """Return every row of a partition, oldest first."""
        with self._connected() as connection:
            rows = connection.execute("SELECT * FROM stage_run WHERE key = ? ORDER BY id", (key,))
            return [_stage_run(row) for row in rows]

    def n_in_a_row(self, endings: Collection[str | None]) -> dict[tuple[str, str], int]:
        """Return how often in a row, up to now, stages ended so; by key and asset, if ever.

        None among `endings` are those without an end. Tries with other inputs than the last one's
        do not count.
        """
        with self._connected() as connection:
            rows = connection.execute(
                "SELECT key, asset, ending, inputs FROM stage_run AS one WHERE (key, asset) IN"
                " (SELECT key, asset FROM stage_run WHERE id IN (SELECT max(id) FROM stage_run"
                f" GROUP BY key, asset) AND ifnull(ending, '') IN ({', '.join('?' * len(endings))})"
                ") ORDER BY id DESC",
                [ending or "" for ending in endings],
            ).fetchall()
        counts: dict[tuple[str, str], int] = defaultdict(int)
        inputs: dict[tuple[str, str], str] = {}
        over = set()
        for row in rows:
            unit = (row["key"], row["asset"])
            is_like = row["ending"] in endings and inputs.setdefault(unit, row["inputs"])
            if unit in over or is_like != row["inputs"]:
                over.add(unit)
            else:
                counts[unit] += 1
        return dict(counts)


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


def _stage_run(row: sqlite3.Row) -> StageRun:
    return StageRun(
        number=row["id"],
        key=row["key"],
        asset=row["asset"],
        run_id=row["run_id"],
        why=row["why"],
        begun_utc=row["begun_utc"],
        ended_utc=row["ended_utc"],
        ending=row["ending"],
        reason=row["reason"],
        inputs=json.loads(row["inputs"]),
        software=json.loads(row["software"]) if row["software"] else None,
    )
