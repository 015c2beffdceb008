"""What the person decided: the tables `decision` and `approved_point`, and `target.submitted`.

Decisions are added, never changed; undoing one marks it. `target.submitted` follows from those that
hold, so that it can be written anew when a row of `target` was deleted and comes back. A word that
a person writes into `target.submitted` by hand stands until the next decision that is about it:
approving, rejecting, exporting, submitting, and the undoing of one of these.
"""

import contextlib
import datetime as dt
import json
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from wombat_dagster.domain import Decision, DecisionKind, Submitted
from wombat_dagster.store import schema

WOMBAT: Final = "wombat"
"""Who recalls: nobody decided it."""

_WORD_OF: Final[Mapping[DecisionKind, Submitted | None]] = {
    DecisionKind.APPROVE: Submitted.APPROVED,
    DecisionKind.REJECT: Submitted.REJECTED,
    DecisionKind.EXPORT: Submitted.EXPORTED,
    DecisionKind.SUBMIT: Submitted.SUBMITTED,
    DecisionKind.RECALL: None,
}
"""What `target.submitted` says after a decision; of the others it is not the business."""
_STAYS: Final = {Submitted.EXPORTED, Submitted.SUBMITTED}
"""What an approval leaves so: it renews the approved magnitudes of what was reported."""
MADE_AGAIN: Final = "made again"
"""How `target.changed_since` begins when magnitudes were made again after a decision."""
_ON_POINTS: Final = {DecisionKind.REJECT_POINTS: True, DecisionKind.RESTORE_POINTS: False}
_NOT_UNDONE: Final[Mapping[DecisionKind, str]] = {
    DecisionKind.EXPORT: (
        "its lines were written into {why}: if they are not to reach the AAVSO, or were deleted"
        " there, withdraw them first"
    ),
    DecisionKind.SUBMIT: (
        "its lines were submitted: if they were deleted at the AAVSO, or never uploaded, withdraw"
        " them first"
    ),
    DecisionKind.RECALL: (
        "wombat took the approval back because the magnitudes changed: look, and approve or reject"
        " it anew"
    ),
}
_CLEARS_CHANGED: Final = {DecisionKind.APPROVE, DecisionKind.REJECT}
_DID: Final[Mapping[DecisionKind, str]] = {
    DecisionKind.APPROVE: "approved it",
    DecisionKind.REJECT: "rejected it",
    DecisionKind.REJECT_POINTS: "rejected points of it",
    DecisionKind.RESTORE_POINTS: "restored points of it",
    DecisionKind.CONFIRM_STAR: "confirmed its star",
    DecisionKind.EXPORT: "wrote it into a report",
    DecisionKind.SUBMIT: "marked it as submitted",
    DecisionKind.RECALL: "took the approval back",
}


class Overtaken(Exception):
    """Somebody decided since; the message says who, what and when. Nothing was written."""


class Decisions:
    """The decisions in the database file at `path`, which `status.StatusDatabase` makes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def record(
        self,
        key: str,
        kind: DecisionKind,
        *,
        who: str,
        raw_hashes: Sequence[str] = (),
        why: str | None = None,
        version: str | None = None,
        approved_mag: Mapping[str, float] | None = None,
        seen: int | None = None,
    ) -> Decision:
        """Write a decision on the observation `key`, and what `target.submitted` says by it.

        Parameters
        ----------
        raw_hashes
            The points that it is about; empty: the observation.
        version
            Of the magnitudes it was taken on; of `CONFIRM_STAR` the star (`Variable.identity`).
        approved_mag
            T1 in magnitudes by frame hash, of the points that may be reported by this decision.
        seen
            What `last_id` said when the person looked; None: not checked.

        Raises
        ------
        KeyError
            There is no such observation.
        Overtaken
            Something was decided, or undone, after `seen`.
        """
        with self._writing() as connection:
            refuse_overtaken(connection, key, seen)
            return add_decision(
                connection, key, kind, who=who, raw_hashes=raw_hashes, why=why, version=version,
                approved_mag=approved_mag,
            )  # fmt: skip

    def undo(self, key: str, *, who: str, seen: int | None = None) -> Decision | None:
        """Undo the last decision on `key` that holds, and return it; None: there is none.

        Raises
        ------
        ValueError
            It cannot be taken back by this alone: it was exported, submitted or recalled. The
            message says what to do.
        Overtaken
            As of `record`.
        """
        with self._writing() as connection:
            refuse_overtaken(connection, key, seen)
            held = [one for one in _history(connection, key) if one.undone_utc is None]
            if not held:
                return None
            last = held[-1]
            if last.kind in _NOT_UNDONE:
                raise ValueError(f"{key}: {_NOT_UNDONE[last.kind].format(why=last.why)}")
            mark_undone(connection, [last.id], who=who)
            if last.kind in _WORD_OF:
                fold(connection, key)
            if last.kind in _CLEARS_CHANGED:
                _change_again(connection, key, held[:-1])
            return next(one for one in _history(connection, key) if one.id == last.id)

    def history(self, key: str) -> tuple[Decision, ...]:
        """Return every decision on an observation, undone ones too, oldest first."""
        with self._reading() as connection:
            return _history(connection, key)

    def last_id(self, key: str) -> int:
        """Return the number of the last decision or undoing on `key`; 0: none.

        It is what `seen` is compared with.
        """
        with self._reading() as connection:
            return _last_id(connection, key)

    def last_ids(self) -> dict[str, int]:
        """Return `last_id` of every observation with any, by key."""
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT key, max(max(id, ifnull(undone_id, 0))) AS last FROM decision GROUP BY key"
            )
            return {row["key"]: row["last"] for row in rows}

    def points(self, key: str) -> dict[str, bool]:
        """Return which points the person rejected (True) or restored (False), by frame hash."""
        with self._reading() as connection:
            return points_decided(connection, key)

    def is_confirmed(self, key: str, star: str) -> bool:
        """Tell whether a person said that `star` (`Variable.identity`) is the one meant.

        Said once for a target's name and a star, it holds for that target's observations in every
        filter and night: the same name led to the same star by its position, and to be asked every
        night again teaches to answer without looking. Another star, or another name, asks anew.
        """
        target = _target_slug(key)
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT key FROM decision WHERE kind = ? AND version = ? AND undone_utc IS NULL",
                (DecisionKind.CONFIRM_STAR, star),
            ).fetchall()
        return any(_target_slug(row["key"]) == target for row in rows)

    def approved_mag(self, key: str) -> dict[str, float]:
        """Return T1 in magnitudes, as last approved, by frame hash; empty: never approved here.

        Of the points that were to be reported then, and those restored since. It stays known after
        the approval was recalled, so that the difference can be shown.
        """
        with self._reading() as connection:
            return approved_magnitudes(connection, key)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(schema.connect(self.path)) as connection:
            yield connection

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._reading() as connection, schema.transaction(connection, self.path):
            yield connection


# ------------------------------------------------------------------- inside one transaction


def add_decision(
    connection: sqlite3.Connection,
    key: str,
    kind: DecisionKind,
    *,
    who: str,
    raw_hashes: Sequence[str] = (),
    why: str | None = None,
    version: str | None = None,
    approved_mag: Mapping[str, float] | None = None,
) -> Decision:
    """Write a decision as `Decisions.record` does, inside the caller's transaction."""
    if connection.execute("SELECT 1 FROM target WHERE key = ?", (key,)).fetchone() is None:
        raise KeyError(f"no observation {key}")
    number = _next_id(connection)
    one = Decision(
        id=number,
        key=key,
        kind=kind,
        raw_hashes=tuple(raw_hashes),
        who=who,
        why=why,
        decided_utc=utc_now(),
        version=version,
    )
    connection.execute(
        "INSERT INTO decision (id, key, kind, raw_hashes, who, why, decided_utc, version)"
        " VALUES (?,?,?,?,?,?,?,?)",
        (
            one.id, key, kind.value, json.dumps(one.raw_hashes), who, why, one.decided_utc, version,
        ),
    )  # fmt: skip
    connection.executemany(
        "INSERT INTO approved_point (decision, raw_hash, t1_mag) VALUES (?,?,?)",
        [(number, raw_hash, float(mag)) for raw_hash, mag in (approved_mag or {}).items()],
    )
    if kind in _WORD_OF:
        fold(connection, key)
    if kind in _CLEARS_CHANGED:  # it was about what was decided before
        connection.execute("UPDATE target SET changed_since = NULL WHERE key = ?", (key,))
    return one


def mark_undone(connection: sqlite3.Connection, ids: Collection[int], *, who: str) -> None:
    """Mark decisions as undone by `who`, inside the caller's transaction."""
    number = _next_id(connection)
    connection.executemany(
        "UPDATE decision SET undone_id = ?, undone_utc = ?, undone_by = ?"
        " WHERE id = ? AND undone_utc IS NULL",
        [(number, utc_now(), who, one) for one in ids],
    )


def fold(connection: sqlite3.Connection, key: str) -> Submitted | None:
    """Make `target.submitted` say what the decisions that hold come to, and return it."""
    kinds = [one.kind for one in _history(connection, key) if one.undone_utc is None]
    word: Submitted | None = None
    for kind in kinds:
        if kind in _WORD_OF and not (kind is DecisionKind.APPROVE and word in _STAYS):
            word = _WORD_OF[kind]
    connection.execute(
        "UPDATE target SET submitted = ?, updated_utc = ? WHERE key = ?", (word, utc_now(), key)
    )
    return word


def _change_again(connection: sqlite3.Connection, key: str, held: Sequence[Decision]) -> None:
    """Say again what changed, when what holds of `held` ends with an approval taken back."""
    told = [one for one in held if one.kind in _WORD_OF]
    if told and told[-1].kind is DecisionKind.RECALL:
        words = f"{MADE_AGAIN} {told[-1].why or ''}".strip()
        connection.execute("UPDATE target SET changed_since = ? WHERE key = ?", (words, key))


def is_decided(connection: sqlite3.Connection, key: str) -> bool:
    """Tell whether a decision about `target.submitted` was ever taken on `key`."""
    kinds = {one.kind for one in _history(connection, key)}
    return bool(kinds & _WORD_OF.keys())


def move_decisions(connection: sqlite3.Connection, old: str, new: str) -> None:
    """Give the decisions on `old`, and its reported lines, to `new`: it was renamed."""
    connection.execute("UPDATE decision SET key = ? WHERE key = ?", (new, old))
    connection.execute("UPDATE report_line SET key = ? WHERE key = ?", (new, old))


def approved_frames(
    connection: sqlite3.Connection, keys: Collection[str]
) -> dict[str, frozenset[str]]:
    """Return the hashes of the frames that were ever approved or reported, by key, of `keys`."""
    found: dict[str, set[str]] = {}
    rows = connection.execute(
        "SELECT key, raw_hash FROM decision JOIN approved_point ON decision = decision.id"
        " UNION SELECT key, raw_hash FROM report_line WHERE raw_hash <> ''"
    )
    for row in rows:
        if row["key"] in keys:
            found.setdefault(row["key"], set()).add(row["raw_hash"])
    return {key: frozenset(hashes) for key, hashes in found.items()}


def points_decided(connection: sqlite3.Connection, key: str) -> dict[str, bool]:
    """Return `Decisions.points`, inside the caller's transaction."""
    found: dict[str, bool] = {}
    for one in _history(connection, key):
        if one.undone_utc is None and one.kind in _ON_POINTS:
            found |= dict.fromkeys(one.raw_hashes, _ON_POINTS[one.kind])
    return found


def approved_magnitudes(connection: sqlite3.Connection, key: str) -> dict[str, float]:
    """Return `Decisions.approved_mag`, inside the caller's transaction."""
    held = [one for one in _history(connection, key) if one.undone_utc is None]
    places = [i for i, one in enumerate(held) if one.kind is DecisionKind.APPROVE]
    if not places:
        return {}
    found: dict[str, float] = {}
    for one in held[places[-1] :]:
        rows = connection.execute(
            "SELECT raw_hash, t1_mag FROM approved_point WHERE decision = ?", (one.id,)
        )
        found |= {row["raw_hash"]: row["t1_mag"] for row in rows}
    return found


def refuse_overtaken(connection: sqlite3.Connection, key: str, seen: int | None) -> None:
    """Raise `Overtaken` when something was decided on `key`, or undone, after `seen`."""
    if seen is None or _last_id(connection, key) <= seen:
        return
    row = connection.execute(
        "SELECT * FROM decision WHERE key = ? ORDER BY max(id, ifnull(undone_id, 0)) DESC, id DESC",
        (key,),
    ).fetchone()
    did = _DID[DecisionKind(row["kind"])]
    if row["undone_id"] is not None:
        raise Overtaken(
            f"{key}: {row['undone_by']} undid at {_minute(row['undone_utc'])} that {row['who']}"
            f" {did}; look again"
        )
    raise Overtaken(f"{key}: {row['who']} {did} at {_minute(row['decided_utc'])}; look again")


def decision_words(one: Decision) -> str:
    """Return ``2026-11-22T00:10Z XYZ rejected points of it: 3 (satellite); undone …Z``."""
    points = f": {len(one.raw_hashes)}" if one.kind in _ON_POINTS else ""
    why = f" ({one.why})" if one.why else ""
    undone = "" if one.undone_utc is None else f"; undone {_minute(one.undone_utc)}"
    return f"{_minute(one.decided_utc)} {one.who} {_DID[one.kind]}{points}{why}{undone}"


def utc_now() -> str:
    """Return the time for `Decision.decided_utc`."""
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


def _minute(utc: str) -> str:
    return f"{utc[:16]}Z"


def _target_slug(key: str) -> str:
    parts = key.split("__")
    return parts[1].casefold() if len(parts) > 1 else ""


def _next_id(connection: sqlite3.Connection) -> int:
    (last,) = connection.execute(
        "SELECT ifnull(max(max(id, ifnull(undone_id, 0))), 0) FROM decision"
    ).fetchone()
    return int(last) + 1


def _last_id(connection: sqlite3.Connection, key: str) -> int:
    (last,) = connection.execute(
        "SELECT ifnull(max(max(id, ifnull(undone_id, 0))), 0) FROM decision WHERE key = ?", (key,)
    ).fetchone()
    return int(last)


def _history(connection: sqlite3.Connection, key: str) -> tuple[Decision, ...]:
    rows = connection.execute("SELECT * FROM decision WHERE key = ? ORDER BY id", (key,))
    return tuple(
        Decision(
            id=row["id"],
            key=row["key"],
            kind=DecisionKind(row["kind"]),
            raw_hashes=tuple(json.loads(row["raw_hashes"])),
            who=row["who"],
            why=row["why"],
            decided_utc=row["decided_utc"],
            version=row["version"],
            undone_utc=row["undone_utc"],
        )
        for row in rows
    )
