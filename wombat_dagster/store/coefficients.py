"""Transformation coefficients in ``wombatpipeline``: one row per name, camera, night and source.

A fit is of one night and one standard field, an imported file of the day from which it holds.
Nothing pooled is stored: what nights add up to is worked out by whoever asks
(`stages.coefficients`), so that it follows the instrument epochs as they are configured.
"""

import datetime as dt
import sqlite3
from collections.abc import Sequence

from wombat_dagster.domain import Coefficient
from wombat_dagster.store.status import StatusDatabase
from wombat_dagster.store.tables import dump_json, load_json


def record_coefficients(status: StatusDatabase, coefficients: Sequence[Coefficient]) -> None:
    """Write coefficients; one of the same name, camera, night and source is replaced."""
    with status._writing() as connection:
        _write(connection, coefficients)


def replace_coefficients(
    status: StatusDatabase,
    coefficients: Sequence[Coefficient],
    *,
    source: str,
    camera: str | None,
    date: dt.date,
) -> None:
    """Write coefficients in place of all that `source` gave of exactly `camera` in a night."""
    with status._writing() as connection:
        _delete(connection, source, camera or "", date)
        _write(connection, coefficients)


def stored_coefficients(status: StatusDatabase) -> list[Coefficient]:
    """Return every coefficient, by camera, name, night and source."""
    with status._reading() as connection:
        rows = connection.execute(
            "SELECT record FROM coefficient ORDER BY camera, name, date, source"
        ).fetchall()
    return [load_json(Coefficient, row["record"]) for row in rows]


def forget_coefficients(
    status: StatusDatabase,
    source: str,
    *,
    camera: str | None = None,
    date: dt.date | None = None,
) -> int:
    """Forget the coefficients of a source (a standard field's fit, a file) and return how many.

    With `camera` or `date` only those; without, of all cameras and nights.
    """
    with status._writing() as connection:
        return _delete(connection, source, camera, date)


def _write(connection: sqlite3.Connection, coefficients: Sequence[Coefficient]) -> None:
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
    connection.executemany(
        "INSERT OR REPLACE INTO coefficient"
        " (name, camera, date, source, value, error, record, updated_utc)"
        " VALUES (?,?,?,?,?,?,?,?)",
        [
            (
                one.name, one.camera or "", one.date.isoformat() if one.date else "",
                one.source, one.value, one.error, dump_json(one), now,
            )
            for one in coefficients
        ],
    )  # fmt: skip


def _delete(
    connection: sqlite3.Connection, source: str, camera: str | None, date: dt.date | None
) -> int:
    cursor = connection.execute(
        "DELETE FROM coefficient WHERE source = ? AND camera = ifnull(?, camera)"
        " AND date = ifnull(?, date)",
        (source, camera, date.isoformat() if date else None),
    )
    return cursor.rowcount
