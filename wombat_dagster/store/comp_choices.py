"""Which comparison stars a person pinned, banned or made the check star, by target.

Kept in the table `comp_choice` of ``wombatpipeline``, which `status.StatusDatabase` makes. What
``wombat.toml`` says beside it is not here: whoever chooses comps puts the two together.
"""

import contextlib
import datetime as dt
import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path

from wombat_dagster.store import schema


class Choice(StrEnum):
    """What a person decided on a chart star."""

    PIN = "pin"
    BAN = "ban"
    CHECK = "check"


class CompChoices:
    """The person's choices in the database file at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def of(self, names: Collection[str]) -> dict[str, Choice]:
        """Return the choices by AUID of a target that goes by `names`, whatever their case.

        Where two of its names disagree on a star, and on which star is the check, the newest holds.
        """
        with contextlib.closing(schema.connect(self.path)) as connection:
            return _choices(connection, names)

    def change(
        self, names: Sequence[str], *, choose: Mapping[str, Choice], clear: Collection[str] = ()
    ) -> int:
        """Choose stars by AUID, forget the choices of others; return how many nights are due again.

        A star has one choice, a target one check star: the new replaces the old. Observations of
        the target that were measured, and on which no person has decided, are no longer finished:
        what they came to is not about these stars. The first of `names` is what is written down.
        """
        with self._writing() as connection:
            before = _choices(connection, names)
            gone = {*clear, *choose}
            if Choice.CHECK in choose.values():
                gone |= {auid for auid, choice in before.items() if choice is Choice.CHECK}
            wanted = {a: c for a, c in before.items() if a not in gone} | dict(choose)
            if wanted == before:
                return 0
            where = _where(names)
            connection.execute(f"DELETE FROM comp_choice WHERE {where}", [*names])
            now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
            connection.executemany(
                "INSERT INTO comp_choice (target, auid, choice, chosen_utc) VALUES (?, ?, ?, ?)",
                [(names[0], auid, choice.value, now) for auid, choice in wanted.items()],
            )
            # Without the signature of its frames a word is not taken for the end (`runs.plan`).
            due = connection.execute(
                f"UPDATE target SET lights = NULL WHERE {where} AND apphot IS NOT NULL"
                " AND ifnull(submitted, 0) IN (0, '0', '')",
                [*names],
            )
            return due.rowcount

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with (
            contextlib.closing(schema.connect(self.path)) as connection,
            schema.transaction(connection, self.path),
        ):
            yield connection


def _where(names: Collection[str]) -> str:
    return f"target COLLATE NOCASE IN ({', '.join('?' * len(names))})"


def _choices(connection: sqlite3.Connection, names: Collection[str]) -> dict[str, Choice]:
    rows = connection.execute(
        f"SELECT auid, choice FROM comp_choice WHERE {_where(names)} ORDER BY chosen_utc, rowid",
        [*names],
    )
    chosen: dict[str, Choice] = {}
    for row in rows:
        choice = Choice(row["choice"])
        if choice is Choice.CHECK:  # there is one at a time
            chosen = {auid: c for auid, c in chosen.items() if c is not Choice.CHECK}
        chosen[row["auid"]] = choice
    return chosen
