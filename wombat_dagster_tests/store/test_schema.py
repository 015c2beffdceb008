"""The tables as the owner named them, and how a database grows older safely."""

import sqlite3
import threading
from contextlib import closing

import pytest

from wombat_dagster.store import schema

OWNERS_COLUMNS = {
    "target": {"date", "target", "filter", "proc_bias", "proc_flat", "proc", "apphot", "submitted"},
    "cal": {"date", "type", "filter", "count"},
    "WCS": {"date", "target", "filter", "file", "attempts"},
}


def columns(path, table):
    with closing(sqlite3.connect(path)) as connection:
        return {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}


@pytest.mark.parametrize("table", OWNERS_COLUMNS)
def test_the_owner_s_tables_have_the_owner_s_columns(tmp_path, table):
    schema.migrate(tmp_path / "a.db")
    assert OWNERS_COLUMNS[table] <= columns(tmp_path / "a.db", table)


def test_a_new_database_needs_no_backup(tmp_path):
    assert schema.migrate(tmp_path / "below" / "a.db") is None
    assert schema.migrate(tmp_path / "below" / "a.db") is None
    assert [p.name for p in (tmp_path / "below").glob("*.backup")] == []


def older(path):
    """Make a database of the first release, with a row in it."""
    with closing(schema.connect(path)) as connection:
        connection.execute(
            "CREATE TABLE _sqlite_migrations"
            " (id INTEGER PRIMARY KEY, migration_set TEXT, name TEXT, applied_at TEXT)"
        )
        connection.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at)"
            " VALUES ('wombatpipeline', 'm001_first_tables', '2026-11-21')"
        )
        for statement in schema._TABLES.split(";\n"):
            if statement.strip():
                connection.execute(statement)
        connection.execute(
            "INSERT INTO target (date, target, filter, night, key, submitted)"
            " VALUES ('2025-10-14', 'X', 'V', '20251014', '20251014__X__V', 'approved')"
        )
        connection.execute(
            "INSERT INTO master VALUES"
            " ('20251014/mbias.fits', '2025-10-14', 'bias', NULL, NULL, 'abc', 5, 0, 1, '{}', '')"
        )


def test_an_older_database_is_backed_up_and_keeps_everything(tmp_path):
    path = tmp_path / "a.db"
    older(path)
    backup = schema.migrate(path)
    assert backup is not None
    for database in (path, backup):
        with closing(sqlite3.connect(database)) as connection:
            assert connection.execute("SELECT submitted FROM target").fetchall() == [("approved",)]
    assert "content_hash" in columns(path, "our_master")
    assert "lights" in columns(path, "target")
    assert columns(backup, "our_master") == set()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT * FROM our_master").fetchall() == [("abc",)]


def test_several_processes_may_open_a_new_database_at_once(tmp_path):
    errors = []

    def migrate():
        try:
            schema.migrate(tmp_path / "a.db")
        except sqlite3.Error as error:
            errors.append(error)

    threads = [threading.Thread(target=migrate) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert OWNERS_COLUMNS["cal"] <= columns(tmp_path / "a.db", "cal")


def test_a_calibration_is_one_row_though_its_filter_is_null(tmp_path):
    """In SQLite a NULL never equals a NULL: a plain UNIQUE would let two rows in."""
    schema.migrate(tmp_path / "a.db")
    with closing(schema.connect(tmp_path / "a.db")) as connection:
        insert = "INSERT INTO cal (date, type, filter, count, night) VALUES (?, ?, ?, 5, '1')"
        connection.execute(insert, ("2025-10-14", "bias", None))
        connection.execute(insert, ("2025-10-14", "flat", "V"))
        for unit in (("2025-10-14", "bias", None), ("2025-10-14", "flat", "V")):
            with pytest.raises(sqlite3.IntegrityError):
                connection.execute(insert, unit)
        with pytest.raises(sqlite3.IntegrityError):
            connection.execute(insert, ("2025-10-14", "lunch", None))


def test_a_person_may_read_while_the_pipeline_writes(tmp_path):
    schema.migrate(tmp_path / "a.db")
    with (
        closing(schema.connect(tmp_path / "a.db")) as writer,
        closing(sqlite3.connect(tmp_path / "a.db", timeout=0.0)) as reader,
    ):
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("INSERT INTO our_master VALUES ('abc')")
        assert reader.execute("SELECT count(*) FROM our_master").fetchone() == (0,)
        writer.execute("COMMIT")
        assert reader.execute("SELECT count(*) FROM our_master").fetchone() == (1,)
