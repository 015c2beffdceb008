"""How long things are remembered: Dagster's records of runs, and logs.

A run is forgotten when it is old, a newer one of the same job and partition has replaced it, and
nothing that the UI shows of its partition rests on it: not the newest materialisation, observation,
plan or check of any asset. Whether an observation is done stands in wombat's own database anyway.
Ticks of sensors go by ``retention`` in dagster.yaml.
"""

import contextlib
import datetime as dt
import logging
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dagster import DagsterInstance, RunRecord

log = logging.getLogger(__name__)

MAX_LOG_BYTES = 10_000_000
OLD_LOGS = 3  # daemon.log.1, the newest of them, to daemon.log.3
MAX_RUNS_A_DAY = 2000
PAGE = 500
DAY_S = 86_400.0


# ------------------------------------------------------------------------------------------- runs


def prune(instance: "DagsterInstance", *, keep_days: float) -> Iterator[str]:
    """Delete what is to be forgotten, run by run, and yield the id of each deleted one.

    At most `MAX_RUNS_A_DAY`. Between two of them the caller may do something else, or stop.
    """
    from dagster._core.storage.event_log import SqliteEventLogStorage

    storage = instance.event_log_storage
    for run_id in forgettable(instance, keep_days=keep_days)[:MAX_RUNS_A_DAY]:
        instance.delete_run(run_id)
        if isinstance(storage, SqliteEventLogStorage):  # one file a run, which Dagster leaves
            for ending in ("", "-wal", "-shm"):
                Path(storage.path_for_shard(run_id) + ending).unlink(missing_ok=True)
        with contextlib.suppress(NotImplementedError):
            instance.compute_log_manager.delete_logs(prefix=[run_id])
        yield run_id


def forgettable(instance: "DagsterInstance", *, keep_days: float) -> list[str]:
    """Return the ids of the runs that are to be forgotten, the oldest first."""
    before = dt.datetime.now(dt.UTC) - dt.timedelta(days=keep_days)
    newest: set[tuple[str, str | None]] = set()
    old = []
    for record in _records(instance):
        run = record.dagster_run
        unit = (run.job_name, run.tags.get("dagster/partition"))
        if unit in newest and run.is_finished and record.create_timestamp < before:
            old.append(record)
        newest.add(unit)
    if not old:
        return []
    needed = _shown_in_ui(instance) | _of_unfinished_backfills(instance, old)
    return [r.dagster_run.run_id for r in reversed(old) if r.dagster_run.run_id not in needed]


def _records(instance: "DagsterInstance") -> "Iterator[RunRecord]":
    """Yield the records of all runs, the newest first."""
    cursor = None
    while page := instance.get_run_records(limit=PAGE, cursor=cursor):
        yield from page
        cursor = page[-1].dagster_run.run_id


def _shown_in_ui(instance: "DagsterInstance") -> set[str]:
    """Return the runs whose events say what the UI shows of some asset's partition."""
    from dagster import DagsterEventType
    from dagster._core.storage.event_log.schema import (
        AssetCheckExecutionsTable,
        SqlEventLogStorageTable,
    )
    from dagster._core.storage.event_log.sql_event_log import SqlEventLogStorage
    from sqlalchemy import func, select

    storage = instance.event_log_storage
    assert isinstance(storage, SqlEventLogStorage)
    events, checks = SqlEventLogStorageTable.c, AssetCheckExecutionsTable.c
    kinds = [
        DagsterEventType.ASSET_MATERIALIZATION.value,
        DagsterEventType.ASSET_OBSERVATION.value,
        DagsterEventType.ASSET_MATERIALIZATION_PLANNED.value,
    ]
    newest_events = (
        select(func.max(events.id))
        .where(events.dagster_event_type.in_(kinds), events.asset_key.is_not(None))
        .group_by(events.asset_key, events.partition, events.dagster_event_type)
    )
    newest_checks = select(func.max(checks.id)).group_by(
        checks.asset_key, checks.check_name, checks.partition
    )
    with storage.index_connection() as connection:
        rows = [
            *connection.execute(select(events.run_id).where(events.id.in_(newest_events))),
            *connection.execute(select(checks.run_id).where(checks.id.in_(newest_checks))),
        ]
    return {row[0] for row in rows}


def _of_unfinished_backfills(instance: "DagsterInstance", records: "list[RunRecord]") -> set[str]:
    """Return the runs that a backfill still counts."""
    from dagster._core.execution.backfill import BULK_ACTION_TERMINAL_STATUSES

    of_backfill = {
        record.dagster_run.run_id: record.dagster_run.tags["dagster/backfill"]
        for record in records
        if "dagster/backfill" in record.dagster_run.tags
    }
    unfinished = set()
    for backfill_id in set(of_backfill.values()):
        backfill = instance.get_backfill(backfill_id)
        if backfill is not None and backfill.status not in BULK_ACTION_TERMINAL_STATUSES:
            unfinished.add(backfill_id)
    return {run_id for run_id, backfill_id in of_backfill.items() if backfill_id in unfinished}


# ------------------------------------------------------------------------------------------- logs


def rotate_log(file: Path) -> None:
    """Make ``daemon.log`` of the last time ``daemon.log.1``, that one ``.2`` and so on."""
    if not file.exists() or not file.stat().st_size:
        return
    _make_room(file)
    file.replace(_numbered(file, 1))


def cut_log(file: Path) -> None:
    """Begin a log anew that grew too large, while a program appends to it; the old becomes ``.1``.

    A line that is written in the moment between copying and cutting is lost.
    """
    if not file.exists() or file.stat().st_size <= MAX_LOG_BYTES:
        return
    _make_room(file)
    shutil.copyfile(file, _numbered(file, 1))
    os.truncate(file, 0)


def _make_room(file: Path) -> None:
    for number in range(OLD_LOGS, 1, -1):
        with contextlib.suppress(FileNotFoundError):
            _numbered(file, number - 1).replace(_numbered(file, number))


def _numbered(file: Path, number: int) -> Path:
    return file.with_name(f"{file.name}.{number}")


def delete_old_logs(state: Path, *, keep_days: float) -> int:
    """Delete rotated logs, and what runs printed, older than `keep_days`; return how many.

    What runs printed lies in ``logs/<run id>/``: Dagster's own record of the run stays.
    """
    before_s = time.time() - keep_days * DAY_S
    n_deleted = 0
    for file in state.glob("*.log.[0-9]"):
        if file.stat().st_mtime < before_s:
            file.unlink(missing_ok=True)
            n_deleted += 1
    for directory in (state / "logs").glob("*"):
        if directory.is_dir() and directory.stat().st_mtime < before_s:
            shutil.rmtree(directory, ignore_errors=True)
            n_deleted += 1
    return n_deleted
