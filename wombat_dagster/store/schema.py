"""The tables of ``wombatpipeline`` and their migrations.

The owner's tables `target`, `cal` and `WCS` keep their names and columns; what is added later is a
new migration at the end of this file, never an edit of an old one. Dates are ISO texts. NULL and 0
both mean "not done yet".
"""

import datetime as dt
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from sqlite_utils import Database
from sqlite_utils.migrations import Migrations

from wombat_dagster.store.disks import database_full

BUSY_TIMEOUT_S = 60.0
WAL_RETRY_S = 0.02

migrations = Migrations("wombatpipeline")

_TABLES = """
CREATE TABLE target (
    id INTEGER PRIMARY KEY,
    date TEXT NOT NULL,
    target TEXT NOT NULL,
    filter TEXT NOT NULL,
    proc_bias TEXT,
    proc_flat TEXT,
    proc_dark TEXT,
    proc TEXT,
    apphot TEXT,
    submitted TEXT,
    reason TEXT,
    night TEXT NOT NULL,
    key TEXT NOT NULL UNIQUE,
    n_frames INTEGER NOT NULL DEFAULT 0,
    n_quarantined INTEGER NOT NULL DEFAULT 0,
    updated_utc TEXT,
    UNIQUE (date, target, filter)
);
CREATE TABLE cal (
    id INTEGER PRIMARY KEY,
    date TEXT NOT NULL,
    type TEXT NOT NULL CHECK (type IN ('bias', 'flat', 'dark')),
    filter TEXT,
    count INTEGER NOT NULL,
    night TEXT NOT NULL
);
CREATE UNIQUE INDEX cal_once ON cal (date, type, ifnull(filter, ''));
CREATE TABLE cal_group (
    id INTEGER PRIMARY KEY,
    date TEXT NOT NULL,
    type TEXT NOT NULL,
    filter TEXT,
    exposure_s REAL,
    width_px INTEGER NOT NULL,
    height_px INTEGER NOT NULL,
    binning TEXT NOT NULL,
    camera TEXT,
    readout TEXT,
    count INTEGER NOT NULL
);
CREATE TABLE frame (
    path TEXT PRIMARY KEY,
    date TEXT NOT NULL,
    night TEXT NOT NULL,
    kind TEXT NOT NULL,
    target TEXT,
    filter TEXT,
    exposure_s REAL,
    start_utc TEXT,
    width_px INTEGER,
    height_px INTEGER,
    binning TEXT,
    camera TEXT,
    readout TEXT,
    ccd_temperature_c REAL,
    reason TEXT,
    warnings TEXT,
    record TEXT NOT NULL
);
CREATE INDEX frame_of ON frame (date, kind, target, filter);
CREATE TABLE master (
    path TEXT PRIMARY KEY,
    date TEXT NOT NULL,
    type TEXT NOT NULL,
    filter TEXT,
    exposure_s REAL,
    content_hash TEXT NOT NULL,
    n_used INTEGER NOT NULL,
    n_refused INTEGER NOT NULL,
    made_by_us INTEGER NOT NULL,
    record TEXT NOT NULL,
    updated_utc TEXT NOT NULL
);
CREATE TABLE WCS (
    id INTEGER PRIMARY KEY,
    date TEXT NOT NULL,
    target TEXT NOT NULL,
    filter TEXT NOT NULL,
    file TEXT NOT NULL,
    status TEXT NOT NULL,
    solver TEXT, solver_version TEXT, "database" TEXT, command TEXT, exit_code INTEGER,
    reason TEXT, message TEXT, attempts TEXT,
    fov_tried REAL, fov_used REAL, ra_hint REAL, dec_hint REAL,
    ra_center REAL, dec_center REAL, scale_x REAL, scale_y REAL, scale_header REAL,
    rotation REAL, parity INTEGER,
    crpix1 REAL, crpix2 REAL, crval1 REAL, crval2 REAL,
    cd1_1 REAL, cd1_2 REAL, cd2_1 REAL, cd2_2 REAL, sip_order INTEGER,
    n_stars INTEGER, n_quads INTEGER, n_matched INTEGER, n_expected INTEGER,
    rms_arcsec REAL, rms_px REAL, hfd_median REAL, hfd_source TEXT,
    target_x REAL, target_y REAL, reference_file TEXT, seconds REAL, solved_at TEXT,
    UNIQUE (date, target, filter, file)
);
CREATE TABLE product (
    key TEXT NOT NULL,
    asset TEXT NOT NULL,
    path TEXT NOT NULL,
    content_hash TEXT NOT NULL,
    version TEXT NOT NULL,
    inputs TEXT,
    made_utc TEXT NOT NULL,
    PRIMARY KEY (key, asset)
);
"""


@migrations()
def m001_first_tables(db: Database) -> None:
    """Make the tables of the first release."""
    for statement in _TABLES.split(";\n"):
        if statement.strip():
            db.conn.execute(statement)


@migrations()
def m002_our_masters(db: Database) -> None:
    """Remember the masters that wombat made, also when their rows or frames are gone."""
    db.conn.execute("CREATE TABLE our_master (content_hash TEXT PRIMARY KEY)")
    db.conn.execute(
        "INSERT OR IGNORE INTO our_master SELECT content_hash FROM master WHERE made_by_us"
    )


@migrations()
def m003_what_was_looked_at(db: Database) -> None:
    """Remember which light frames `apphot` is about, and which scan saw a night last."""
    db.conn.execute("ALTER TABLE target ADD COLUMN lights TEXT")
    db.conn.execute("CREATE TABLE scan (date TEXT PRIMARY KEY, serial INTEGER NOT NULL)")


@migrations()
def m004_detectors(db: Database) -> None:
    """Keep what every night says of the detector, and its maps of bad pixels."""
    db.conn.execute(
        "CREATE TABLE detector (date TEXT NOT NULL, quantity TEXT NOT NULL, camera TEXT,"
        " readout TEXT, width_px INTEGER NOT NULL, height_px INTEGER NOT NULL,"
        " binning TEXT NOT NULL, value REAL NOT NULL, error REAL NOT NULL,"
        " n_frames INTEGER NOT NULL, ccd_temperature_c REAL, step TEXT, record TEXT NOT NULL)"
    )
    db.conn.execute("CREATE INDEX detector_of ON detector (date, quantity)")
    db.conn.execute(
        "CREATE TABLE bad_pixels (path TEXT PRIMARY KEY, date TEXT NOT NULL,"
        " content_hash TEXT NOT NULL, n_bad INTEGER NOT NULL, record TEXT NOT NULL)"
    )
    # Frames are looked at anew: overscan, trim and what is calibrated already were not read before.
    db.conn.execute("UPDATE frame SET record = json_set(record, '$.mtime_ns', 0)")


@migrations()
def m005_over_the_nights(db: Database) -> None:
    """Keep what check stars say, fitted coefficients, and which comps a person pinned or banned."""
    db.conn.execute(
        "CREATE TABLE check_night (key TEXT PRIMARY KEY, date TEXT NOT NULL, star TEXT NOT NULL,"
        " band TEXT NOT NULL, camera TEXT, check_name TEXT NOT NULL, magnitude_mag REAL NOT NULL,"
        " error_mag REAL NOT NULL, held INTEGER NOT NULL, record TEXT NOT NULL)"
    )
    db.conn.execute("CREATE INDEX check_night_of ON check_night (star, band, date)")
    db.conn.execute(
        "CREATE TABLE coefficient (name TEXT NOT NULL, camera TEXT NOT NULL DEFAULT '',"
        " date TEXT NOT NULL DEFAULT '', source TEXT NOT NULL, value REAL NOT NULL, error REAL,"
        " record TEXT NOT NULL, updated_utc TEXT NOT NULL,"
        " PRIMARY KEY (name, camera, date, source))"
    )
    db.conn.execute(
        "CREATE TABLE comp_choice (target TEXT NOT NULL, auid TEXT NOT NULL,"
        " choice TEXT NOT NULL CHECK (choice IN ('pin', 'ban', 'check')), chosen_utc TEXT NOT NULL,"
        " PRIMARY KEY (target, auid))"
    )


@migrations()
def m006_what_was_begun(db: Database) -> None:
    """Keep every begin and end of a stage with its inputs, and what re-made magnitudes changed."""
    db.conn.execute(
        "CREATE TABLE stage_run (id INTEGER PRIMARY KEY, key TEXT NOT NULL, asset TEXT NOT NULL,"
        " run_id TEXT NOT NULL, why TEXT, begun_utc TEXT NOT NULL, ended_utc TEXT, ending TEXT,"
        " reason TEXT, inputs TEXT NOT NULL, software TEXT)"
    )
    db.conn.execute("CREATE INDEX stage_run_of ON stage_run (key, asset, id)")
    db.conn.execute(
        "CREATE TABLE remade (id INTEGER PRIMARY KEY, key TEXT NOT NULL, made_utc TEXT NOT NULL,"
        " why TEXT, what TEXT, n_frames INTEGER NOT NULL, t1_median_change_mag REAL,"
        " t1_largest_change_mag REAL, zp_err_before_mag REAL, zp_err_after_mag REAL)"
    )
    db.conn.execute("CREATE INDEX remade_of ON remade (key, id)")
    db.conn.execute("ALTER TABLE target ADD COLUMN changed_since TEXT")
    db.conn.execute("ALTER TABLE target ADD COLUMN retired_utc TEXT")
    # What was finished before this table existed is not begun again for that alone.
    db.conn.execute(
        "INSERT INTO stage_run (key, asset, run_id, begun_utc, ended_utc, ending, inputs)"
        " SELECT key, asset, '', made_utc, made_utc, 'made', ifnull(inputs, '{}') FROM product"
        " ORDER BY made_utc"
    )


@migrations()
def m007_decisions_and_reports(db: Database) -> None:
    """Keep what a person decides, T1 as it was approved, the lines that were reported, events."""
    # `id` and `undone_id` come from one count, so that the greater of both tells what was last.
    db.conn.execute(
        "CREATE TABLE decision (id INTEGER PRIMARY KEY, key TEXT NOT NULL, kind TEXT NOT NULL,"
        " raw_hashes TEXT NOT NULL DEFAULT '[]', who TEXT NOT NULL, why TEXT,"
        " decided_utc TEXT NOT NULL, version TEXT, undone_id INTEGER, undone_utc TEXT,"
        " undone_by TEXT)"
    )
    db.conn.execute("CREATE INDEX decision_of ON decision (key, id)")
    db.conn.execute(
        "CREATE TABLE approved_point (decision INTEGER NOT NULL, raw_hash TEXT NOT NULL,"
        " t1_mag REAL NOT NULL, PRIMARY KEY (decision, raw_hash)) WITHOUT ROWID"
    )
    db.conn.execute("CREATE INDEX approved_point_of ON approved_point (raw_hash)")
    db.conn.execute(
        "CREATE TABLE report_line (id INTEGER PRIMARY KEY, observer TEXT NOT NULL,"
        " star TEXT NOT NULL, band TEXT NOT NULL, jd TEXT NOT NULL, key TEXT NOT NULL DEFAULT '',"
        " raw_hash TEXT NOT NULL DEFAULT '', content_hash TEXT NOT NULL, line TEXT NOT NULL,"
        " file TEXT NOT NULL, exported_utc TEXT NOT NULL, submitted_utc TEXT,"
        " withdrawn_utc TEXT, withdrawn_by TEXT, amends INTEGER,"
        " origin TEXT NOT NULL CHECK (origin IN ('wombat', 'aavso')))"
    )
    db.conn.execute("CREATE INDEX report_line_of_frame ON report_line (raw_hash, band)")
    db.conn.execute("CREATE INDEX report_line_of ON report_line (key, raw_hash)")
    db.conn.execute("CREATE INDEX report_line_at ON report_line (star COLLATE NOCASE, band, jd)")
    db.conn.execute("CREATE INDEX report_line_amended ON report_line (amends)")
    db.conn.execute("CREATE INDEX report_line_in ON report_line (file)")
    db.conn.execute(
        "CREATE TABLE event (id INTEGER PRIMARY KEY, key TEXT NOT NULL, kind TEXT NOT NULL,"
        " words TEXT NOT NULL, made_utc TEXT NOT NULL, told_utc TEXT, seen_utc TEXT,"
        " signature TEXT NOT NULL UNIQUE)"
    )


@migrations()
def m008_events(db: Database) -> None:
    """Keep when an eclipse is, and how bright each night was, for the history of its star."""
    db.conn.execute("ALTER TABLE event ADD COLUMN at_utc TEXT")
    db.conn.execute(
        "CREATE TABLE t1_night (key TEXT PRIMARY KEY, version TEXT NOT NULL, band TEXT NOT NULL,"
        " n_points INTEGER NOT NULL, median_mag REAL, bright_mag REAL, faint_mag REAL,"
        " error_mag REAL, is_limit INTEGER NOT NULL)"
    )


def connect(path: Path) -> sqlite3.Connection:
    """Return a connection to the database at `path`: WAL, patient, in autocommit mode.

    Raises `DiskFull` where there is no room for what SQLite keeps beside it.
    """
    with _room_for(path):
        connection = sqlite3.connect(path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        connection.row_factory = sqlite3.Row
        _use_wal(connection)
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection


@contextmanager
def transaction(connection: sqlite3.Connection, path: Path) -> Iterator[None]:
    """Do all of it or nothing, at once: ``BEGIN IMMEDIATE``. Raises `DiskFull`."""
    with _room_for(path):
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # a full disk has ended it already
                connection.execute("ROLLBACK")
            raise


@contextmanager
def _room_for(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        full = database_full(error, path)
        if full is None:
            raise
        raise full from None


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch to WAL; when several do so at once SQLite refuses without waiting for its time-out."""
    until_s = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until_s:
                raise
            time.sleep(WAL_RETRY_S)
        else:
            return


def migrate(path: Path) -> Path | None:
    """Bring the database at `path` to this version, making it when absent.

    Returns
    -------
    Path or None
        The backup taken before an existing database was changed; None when nothing was changed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = connect(path)
    try:
        db = Database(connection)
        if not migrations.pending(db):
            return None
        with transaction(connection, path):  # one process at a time; the others find it done
            backup = None
            if migrations.pending(db):
                backup = _backup(path) if migrations.applied(db) else None
                migrations.apply(db)
        return backup
    finally:
        connection.close()


def _backup(path: Path) -> Path:
    """Copy the database, through a connection of its own: the migrating one holds the lock."""
    now = dt.datetime.now(dt.UTC)
    backup = path.with_name(f"{path.name}.{now:%Y%m%dT%H%M%SZ}.backup")
    while backup.exists():  # the clock was set back
        now += dt.timedelta(seconds=1)
        backup = path.with_name(f"{path.name}.{now:%Y%m%dT%H%M%SZ}.backup")
    with closing(connect(path)) as source, closing(sqlite3.connect(backup)) as copy:
        source.backup(copy)
    return backup
