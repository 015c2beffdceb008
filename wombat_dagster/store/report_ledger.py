"""The ledger of reported lines: the table `report_line`, so that nothing is reported twice.

A line is known again by its observation, band and the pixels of its raw frame, whatever the star is
called by then (a frame has a line for every variable in its field); else by observer, star, band
and time: the Julian date to 6 decimals, to 5 where one of the two is from no frame of ours (AAVSO's
own download). The newest line of an identity is what the AAVSO has, or will have.
"""

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal

from wombat_dagster.domain import DecisionKind, ReportLine, Submitted
from wombat_dagster.store import schema
from wombat_dagster.store.decisions import (
    Overtaken,
    add_decision,
    fold,
    mark_undone,
    points_decided,
    utc_now,
)

Origin = Literal["wombat", "aavso"]
JD_DECIMALS: Final = 5
EXACT_DECIMALS: Final = 6
REACH_D: Final = 0.001  # beyond the times that are asked for, in days
FINEST_D: Final = 5e-6  # half of what a time to `JD_DECIMALS` may be off
COARSEST_D: Final = 1e-4  # fewer decimals may be a number that lost its zeros
NOT_KNOWN: Final[Mapping[str, str]] = MappingProxyType({})
_Name = tuple[str | int, ...]
_NO_CONTENT: Final = {"group"}  # a sibling filter that comes later gives it a number
_MAY_BE_REPORTED: Final = (Submitted.APPROVED, Submitted.EXPORTED, Submitted.SUBMITTED)


class AlreadyReported(Exception):
    """A line is in the ledger already, as new or as amended; nothing was written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewLine:
    """A line that goes into a report now; `amends` is the ledger's number of the one it replaces.

    `jd` is the text of the line's DATE; `content_hash` of `content_hash`, taken before an amendment
    is marked as one in its NOTES. Of AAVSO's download `key` and `raw_hash` are empty.
    """

    observer: str
    star: str
    band: str
    jd: str
    content_hash: str
    line: str
    key: str = ""
    raw_hash: str = ""
    amends: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerLine:
    """A line that was written into `file`; `submitted_utc` None: the person has not said it yet."""

    id: int
    observer: str
    star: str
    band: str
    jd: str
    key: str
    raw_hash: str
    content_hash: str
    line: str
    file: str
    exported_utc: str
    submitted_utc: str | None
    amends: int | None
    origin: Origin


def content_hash(line: ReportLine) -> str:
    """Return a text that is new when what a line says changes, but for its GROUP.

    Of its NOTES the KEY=VALUE count, not the words.
    """
    told = {name: text for name, text in asdict(line).items() if name not in _NO_CONTENT}
    told["notes"] = line.notes.partition("|")[2]
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]


def time_reach_d(jd: str) -> float:
    """Return by how many days a time that another program wrote may be off: its last decimal."""
    unit_d = 10.0 ** -len(jd.partition(".")[2])
    return min(max(unit_d, FINEST_D), COARSEST_D) + 1e-9  # what doubles of 2.5 million days leave


class ReportLedger:
    """The ledger in the database file at `path`, which `status.StatusDatabase` makes."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def lines(
        self, *, observer: str | None = None, key: str | None = None, file: str | None = None
    ) -> tuple[LedgerLine, ...]:
        """Return what the AAVSO has, or will have: the newest line of each identity, oldest first.

        Of one observer, observation or file only; those withdrawn, and those that were amended,
        are not there.
        """
        asked = {"observer COLLATE NOCASE": observer, "key": key, "file": file}
        given = {name: value for name, value in asked.items() if value is not None}
        where = "".join(f" AND {name} = ?" for name in given)
        with self._reading() as connection:
            return _newest(connection, where, [*given.values()])

    def files(self) -> tuple[str, ...]:
        """Return the reports that were not withdrawn, in the order they were written."""
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT file FROM report_line WHERE withdrawn_utc IS NULL AND origin = 'wombat'"
                " GROUP BY file ORDER BY min(id)"
            )
            return tuple(row["file"] for row in rows)

    def all_files(self) -> tuple[str, ...]:
        """Return the names of all files, also of reports that were withdrawn and of downloads."""
        with self._reading() as connection:
            rows = connection.execute("SELECT file FROM report_line GROUP BY file ORDER BY min(id)")
            return tuple(row["file"] for row in rows)

    def keys(self) -> set[str]:
        """Return the observations of which a report has lines that were not withdrawn."""
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT DISTINCT key FROM report_line"
                " WHERE withdrawn_utc IS NULL AND origin = 'wombat'"
            )
            return {row["key"] for row in rows}

    def foreign(self, star: str, band: str, *, between: tuple[float, float]) -> list[LedgerLine]:
        """Return what the AAVSO has of a star from elsewhere, JD(UTC) `between` the two times."""
        where = (
            "AND origin = 'aavso' AND star = ? COLLATE NOCASE AND band = ?"
            " AND CAST(jd AS REAL) BETWEEN ? AND ?"
        )
        with self._reading() as connection:
            return list(_newest(connection, where, [star, band, *between]))

    def known(self, lines: Sequence[NewLine]) -> dict[int, LedgerLine]:
        """Return the ledger's line of each of `lines` that is in it, by its place among them."""
        with self._reading() as connection:
            found = _like(connection, lines)
        return {i: old for i, line in enumerate(lines) if (old := found.of(line)) is not None}

    def record(
        self,
        lines: Sequence[NewLine],
        *,
        file: str,
        who: str,
        versions: Mapping[str, str] = NOT_KNOWN,
    ) -> None:
        """Write `lines` of the report `file`; their observations are `exported` by it.

        All of it or nothing. `versions` are those of their magnitudes, by key. An amendment takes
        back what is said of the observation as changed since it was decided on.

        Raises
        ------
        AlreadyReported
            A line that amends none is there already, or one amends what is not the newest any more.
        Overtaken
            An observation is no longer approved, or a point was rejected, since the lines were
            collected.
        KeyError
            An observation is not known.
        """
        with self._writing() as connection:
            self._refuse(connection, lines)
            _insert(connection, lines, file=file, origin="wombat", submitted_utc=None)
            for key in dict.fromkeys(line.key for line in lines):
                own = [line for line in lines if line.key == key]
                add_decision(
                    connection, key, DecisionKind.EXPORT, who=who, why=file,
                    raw_hashes=[line.raw_hash for line in own], version=versions.get(key),
                )  # fmt: skip
                if any(line.amends is not None for line in own):
                    connection.execute(
                        "UPDATE target SET changed_since = NULL WHERE key = ?", (key,)
                    )

    def _refuse(self, connection: sqlite3.Connection, lines: Sequence[NewLine]) -> None:
        known, there = _like(connection, lines), set[_Name]()
        for line in lines:
            if not line.raw_hash:
                raise ValueError(f"{line.star} {line.jd}: a line of ours is from a frame")
            old = known.of(line)
            if old is not None and old.id != line.amends:
                raise AlreadyReported(
                    f"{line.star} {line.band} at JD {line.jd} is in {old.file} already,"
                    f" written {old.exported_utc[:16]}Z"
                )
            if old is None and line.amends is not None:
                raise AlreadyReported(
                    f"{line.star} {line.band} at JD {line.jd}: line {line.amends}, which it was to"
                    " amend, was withdrawn or amended since"
                )
            names = {name for name in _names(line) if name[0] != "any"}
            if names & there:
                raise AlreadyReported(
                    f"{line.star} {line.band} at JD {line.jd}: twice in the same report"
                )
            there |= names
        for key in dict.fromkeys(line.key for line in lines):
            row = connection.execute("SELECT submitted FROM target WHERE key = ?", (key,))
            found = row.fetchone()
            if found is None:
                raise KeyError(f"no observation {key}")
            if found["submitted"] not in _MAY_BE_REPORTED:
                raise Overtaken(f"{key}: it is not approved any more; look again")
            points = points_decided(connection, key)
            gone = [x for x in lines if x.key == key and points.get(x.raw_hash, False)]
            if gone:
                raise Overtaken(
                    f"{key}: the point at JD {gone[0].jd} was rejected meanwhile; look again"
                )

    def submit(self, *, file: str | None = None, keys: Sequence[str] = (), who: str) -> int:
        """Note that the person uploaded a report, or what `keys` have in reports; return how many.

        An observation is `submitted` when all of its lines are. Lines that were so before do not
        count. Of a file whose lines were withdrawn that is taken back, but for lines that were
        reported anew since.

        Raises
        ------
        KeyError
            The ledger has no line of that file, or of one of the observations, or none that was
            not reported anew.
        Overtaken
            An observation was rejected since its file was withdrawn.
        """
        with self._writing() as connection:
            if file is not None:
                _take_withdrawal_back(connection, file, who=who)
            chosen = _chosen(connection, file=file, keys=keys)
            return _mark_submitted(connection, chosen, who=who)

    def submit_lines(self, ids: Iterable[int], *, who: str) -> int:
        """Note the same of single lines, by their numbers: found in AAVSO's own download."""
        wanted = set(ids)
        with self._writing() as connection:
            where = "AND id IN (SELECT value FROM json_each(?))"
            chosen = _newest(connection, where, [json.dumps(sorted(wanted))])
            return _mark_submitted(connection, chosen, who=who)

    def add_foreign(self, lines: Sequence[NewLine], *, file: str) -> int:
        """Write lines of AAVSO's download that the ledger does not know; return how many were new.

        They were submitted by another program, or before there was a ledger.
        """
        with self._writing() as connection:
            known, there, new = _like(connection, lines), set[_Name](), list[NewLine]()
            for line in lines:
                names = set(_names(line))
                if known.of(line) is None and not names & there:
                    new.append(line)
                    there |= names
            _insert(connection, new, file=file, origin="aavso", submitted_utc=utc_now())
            return len(new)

    def withdraw(self, *, file: str | None = None, keys: Sequence[str] = (), who: str) -> int:
        """Note that lines do not reach the AAVSO, or were deleted there; return how many.

        Their observations are `approved` again where no other report has lines of them, and their
        lines new in the next one. Of `keys` it is the newest lines; `file` may be a download.

        Raises
        ------
        KeyError
            As of `submit`.
        """
        with self._writing() as connection:
            chosen = _chosen(connection, file=file, keys=keys, to_withdraw=True)
            now = utc_now()
            connection.executemany(
                "UPDATE report_line SET withdrawn_utc = ?, withdrawn_by = ? WHERE id = ?",
                [(now, who, one.id) for one in chosen],
            )
            for key in dict.fromkeys(one.key for one in chosen if one.key):
                _take_exports_back(connection, key, who=who)
        return len(chosen)

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(schema.connect(self.path)) as connection:
            yield connection

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """Write in one transaction that no power cut takes back: its file is published next."""
        with self._reading() as connection:
            connection.execute("PRAGMA synchronous = FULL")
            with schema.transaction(connection, self.path):
                yield connection


# -------------------------------------------------------------------- inside one transaction


class _Known:
    """Lines, to be found by what they are."""

    def __init__(self, lines: Iterable[LedgerLine]) -> None:
        self._lines: dict[_Name, LedgerLine] = {}
        self._coarse: list[LedgerLine] = []
        for line in lines:
            for name in _names(line):
                self._lines[name] = line
            if not line.raw_hash and time_reach_d(line.jd) > 1.5 * 10**-JD_DECIMALS:
                self._coarse.append(line)

    def of(self, line: NewLine) -> LedgerLine | None:
        """Return the line of the same frame, else the one of the same star, band and time."""
        found = (self._lines.get(name) for name in _asked(line))
        return next((old for old in found if old is not None), self._near(line))

    def _near(self, line: NewLine) -> LedgerLine | None:
        """Return what another program wrote with fewer decimals, for a line of ours."""
        if not line.raw_hash:
            return None
        at, whose = float(line.jd), _whose(line)
        near = (
            one
            for one in self._coarse
            if _whose(one) == whose and abs(float(one.jd) - at) <= time_reach_d(one.jd)
        )
        return next(near, None)


def _whose(line: LedgerLine | NewLine) -> tuple[str, str, str]:
    return line.observer.casefold(), line.star.casefold(), line.band


def _names(line: LedgerLine | NewLine) -> list[_Name]:
    """Return by what a line can be found."""
    at, cell = float(line.jd), round(float(line.jd) * 10**JD_DECIMALS)
    whose = _whose(line)
    if not line.raw_hash:
        return [("foreign", *whose, cell), ("any", *whose, cell)]
    return [
        ("frame", line.raw_hash, line.band, line.key),
        ("same time", *whose, f"{at:.{EXACT_DECIMALS}f}"),
        ("any", *whose, cell),
    ]


def _asked(line: NewLine) -> list[_Name]:
    """Return by what a line is looked for, the best first.

    A frame that was saved again has other pixels and the same time, to the digit; frames of less
    than a second each have not. What another program rounded or cut may lie one step beside.
    """
    *own, (_, *place) = _names(line)
    *whose, cell = place
    kind = "foreign" if line.raw_hash else "any"
    beside = [(kind, *whose, int(cell) + step) for step in (0, -1, 1)]
    return [*(own if line.raw_hash else []), *beside]


_COLUMNS: Final = (
    "id, observer, star, band, jd, key, raw_hash, content_hash, line, file, exported_utc,"
    " submitted_utc, amends, origin"
)
_NEWEST: Final = f"""
WITH RECURSIVE amended (id) AS (
    SELECT amends FROM report_line WHERE amends IS NOT NULL AND withdrawn_utc IS NULL
    UNION
    SELECT amends FROM report_line JOIN amended USING (id) WHERE amends IS NOT NULL
)
SELECT {_COLUMNS}
FROM report_line WHERE withdrawn_utc IS NULL AND id NOT IN (SELECT id FROM amended)
"""


def _newest(
    connection: sqlite3.Connection, where: str = "", values: Sequence[Any] = ()
) -> tuple[LedgerLine, ...]:
    rows = connection.execute(f"{_NEWEST} {where} ORDER BY id", values)
    return tuple(LedgerLine(**dict(row)) for row in rows)


def _like(connection: sqlite3.Connection, lines: Sequence[NewLine]) -> _Known:
    """Return the newest lines among which those of `lines` would be."""
    hashes = sorted({line.raw_hash for line in lines if line.raw_hash})
    stars = sorted({line.star for line in lines})
    times = [float(line.jd) for line in lines] or [0.0]
    where = (
        "AND (raw_hash IN (SELECT value FROM json_each(?))"
        " OR star COLLATE NOCASE IN (SELECT value FROM json_each(?))"
        " AND CAST(jd AS REAL) BETWEEN ? AND ?)"
    )
    reach = [min(times) - REACH_D, max(times) + REACH_D]
    return _Known(_newest(connection, where, [json.dumps(hashes), json.dumps(stars), *reach]))


def _of_file(
    connection: sqlite3.Connection, file: str, *, is_withdrawn: bool
) -> tuple[LedgerLine, ...]:
    """Return the lines of a file, those that were amended since among them."""
    which = "NOT NULL" if is_withdrawn else "NULL"
    rows = connection.execute(
        f"SELECT {_COLUMNS} FROM report_line WHERE file = ? AND withdrawn_utc IS {which}"
        " ORDER BY id",
        (file,),
    )
    return tuple(LedgerLine(**dict(row)) for row in rows)


def _chosen(
    connection: sqlite3.Connection,
    *,
    file: str | None,
    keys: Sequence[str],
    to_withdraw: bool = False,
) -> list[LedgerLine]:
    chosen: dict[int, LedgerLine] = {}
    if file is not None:
        found = [
            one
            for one in _of_file(connection, file, is_withdrawn=False)
            if to_withdraw or one.origin == "wombat"
        ]
        if not found:
            raise KeyError(_not_there(connection, file))
        chosen |= {one.id: one for one in found}
    for key in keys:
        newest = _newest(connection, "AND key = ? AND origin = 'wombat'", [key])
        if not newest:
            raise KeyError(f"nothing of {key} was reported")
        chosen |= {one.id: one for one in newest}
    return list(chosen.values())


def _not_there(connection: sqlite3.Connection, file: str) -> str:
    withdrawn = _of_file(connection, file, is_withdrawn=True)
    if not withdrawn:
        return f"no report {file} in the ledger"
    known = _like(connection, [_as_new(one) for one in withdrawn])
    newer = sorted({old.file for one in withdrawn if (old := known.of(_as_new(one))) is not None})
    since = f"; its lines were reported anew in {', '.join(newer)}" if newer else ""
    return f"every line of {file} was withdrawn{since}"


def _as_new(line: LedgerLine) -> NewLine:
    """Return what a line is looked for by."""
    return NewLine(
        observer=line.observer, star=line.star, band=line.band, jd=line.jd, key=line.key,
        raw_hash=line.raw_hash, content_hash=line.content_hash, line=line.line,
    )  # fmt: skip


def _take_withdrawal_back(connection: sqlite3.Connection, file: str, *, who: str) -> None:
    """Let the withdrawn lines of a report of ours count again, where no other line does instead.

    They reached the AAVSO after all: their observations are `exported` by them again.
    """
    withdrawn = [
        one for one in _of_file(connection, file, is_withdrawn=True) if one.origin == "wombat"
    ]
    known = _like(connection, [_as_new(one) for one in withdrawn])
    back = [one for one in withdrawn if known.of(_as_new(one)) is None]
    for key in dict.fromkeys(one.key for one in back):
        if _submitted_of(connection, key) == Submitted.REJECTED:
            raise Overtaken(f"{key} was rejected since {file} was withdrawn: undo that first")
    connection.executemany(
        "UPDATE report_line SET withdrawn_utc = NULL, withdrawn_by = NULL, submitted_utc = NULL"
        " WHERE id = ?",
        [(one.id,) for one in back],
    )
    for key in dict.fromkeys(one.key for one in back):
        if _submitted_of(connection, key) in _MAY_BE_REPORTED:  # else it is looked at anew
            add_decision(
                connection, key, DecisionKind.EXPORT, who=who, why=file,
                raw_hashes=[one.raw_hash for one in back if one.key == key],
            )  # fmt: skip


def _insert(
    connection: sqlite3.Connection,
    lines: Sequence[NewLine],
    *,
    file: str,
    origin: Origin,
    submitted_utc: str | None,
) -> None:
    now = utc_now()
    connection.executemany(
        "INSERT INTO report_line (observer, star, band, jd, key, raw_hash, content_hash, line,"
        " file, exported_utc, submitted_utc, amends, origin) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)",
        [
            (
                x.observer, x.star, x.band, x.jd, x.key, x.raw_hash, x.content_hash, x.line,
                file, now, submitted_utc, x.amends, origin,
            )
            for x in lines
        ],
    )  # fmt: skip


def _mark_submitted(
    connection: sqlite3.Connection, chosen: Sequence[LedgerLine], *, who: str
) -> int:
    new = [one for one in chosen if one.submitted_utc is None]
    now = utc_now()
    connection.executemany(
        "UPDATE report_line SET submitted_utc = ? WHERE id = ?", [(now, one.id) for one in new]
    )
    for key in dict.fromkeys(one.key for one in chosen if one.key):
        is_exported = _submitted_of(connection, key) == Submitted.EXPORTED
        left = [x for x in _newest(connection, "AND key = ?", [key]) if x.submitted_utc is None]
        if is_exported and not left:
            files = ", ".join(sorted({one.file for one in chosen if one.key == key}))
            add_decision(connection, key, DecisionKind.SUBMIT, who=who, why=files)
    return len(new)


def _take_exports_back(connection: sqlite3.Connection, key: str, *, who: str) -> None:
    """Undo the exports and submissions of an observation of which no report has lines any more."""
    left = {one.file for one in _newest(connection, "AND key = ?", [key])}
    held = connection.execute(
        "SELECT id, kind, why FROM decision WHERE key = ? AND undone_utc IS NULL", (key,)
    ).fetchall()
    gone = [x["id"] for x in held if x["kind"] == DecisionKind.EXPORT and x["why"] not in left]
    if not left:
        gone += [x["id"] for x in held if x["kind"] == DecisionKind.SUBMIT]
    mark_undone(connection, gone, who=who)
    if _submitted_of(connection, key) in (Submitted.EXPORTED, Submitted.SUBMITTED):
        fold(connection, key)


def _submitted_of(connection: sqlite3.Connection, key: str) -> str | None:
    row = connection.execute("SELECT submitted FROM target WHERE key = ?", (key,)).fetchone()
    return None if row is None else row["submitted"]
