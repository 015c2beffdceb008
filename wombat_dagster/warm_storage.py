"""Dagster's SQLite storage with its connections kept open.

Dagster makes an engine and a connection for every event, and closing the last connection of a
database moves its whole write-ahead log: half of what a run costs beside its work, and six sevenths
of what it costs to ask for one. The files are Dagster's own, written by its own code, and may be
used by other programs meanwhile; of the power failing in the middle the last events may be lost,
never the database (SQLite, "PRAGMA synchronous": NORMAL with WAL).
"""

import contextlib
import os
import secrets
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dagster import EventLogEntry
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._core.storage.runs import SqliteRunStorage
from dagster._core.storage.sqlite_storage import DagsterSqliteStorage
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.pool import QueuePool

BUSY_S = 60.0  # another process may hold a database for so long
KEPT_RUNS = 2  # whose own databases stay open
INDEX = "index"


def with_warm_storage(reference: InstanceRef) -> InstanceRef:
    """Return `reference` with this storage, if it is to use Dagster's SQLite storage.

    As a ``dagster.yaml`` of an earlier wombat says.
    """
    data = reference.storage_data
    if data is None or data.class_name != DagsterSqliteStorage.__name__:
        return reference
    ours = data._replace(module_name=__name__, class_name=WarmSqliteStorage.__name__)
    return reference._replace(storage_data=ours)


def _warm_engine(url: str) -> Engine:
    engine = create_engine(
        url, poolclass=QueuePool, pool_size=1, max_overflow=8, connect_args={"timeout": BUSY_S}
    )

    @event.listens_for(engine, "connect")
    def _on_connect(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA synchronous = NORMAL")

    return engine


def _create(file: Path, content: bytes) -> bool:
    """Make a file, whole at once; False when another process was first, or that cannot be done."""
    draft = file.with_name(f"{file.name}.{secrets.token_hex(4)}.new")
    try:
        draft.write_bytes(content)
        os.link(draft, file)
    except OSError:
        return False
    finally:
        draft.unlink(missing_ok=True)
    return True


class WarmSqliteStorage(DagsterSqliteStorage):
    """Dagster's storage, of runs and events with open connections."""

    def __init__(self, base_dir: str, inst_data: Any = None) -> None:
        super().__init__(base_dir, inst_data=inst_data)
        self._run_storage = _WarmRuns.from_local(str(Path(base_dir) / "history"))
        self._event_log_storage = _WarmEvents(str(Path(base_dir) / "history" / "runs"))

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> "WarmSqliteStorage":
        """Return the storage that the configuration describes."""
        return cls.from_local(inst_data=inst_data, **config_value)

    def dispose(self) -> None:
        """Close what is open."""
        self._run_storage.dispose()
        self._event_log_storage.dispose()
        super().dispose()


class _WarmRuns(SqliteRunStorage):
    _engine: Engine | None = None
    _opening = threading.Lock()

    @contextlib.contextmanager
    def connect(self) -> Iterator[Connection]:
        with self._opening:
            if self._engine is None:
                self._engine = _warm_engine(self._conn_string)
            engine = self._engine
        with engine.begin() as connection:
            yield connection

    def dispose(self) -> None:
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None


class _WarmEvents(SqliteEventLogStorage):
    def __init__(self, base_dir: str, inst_data: Any = None) -> None:
        self._engines: dict[str, Engine] = {}
        self._template: bytes | None = None
        self._tables: set[str] = set()
        self._opening = threading.Lock()
        super().__init__(base_dir, inst_data)

    @contextlib.contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        with self._opening:
            if shard not in self._engines:
                self._open(shard)
            engine = self._engines[shard]
        with self._db_lock, engine.begin() as connection:
            yield connection

    def store_event(self, event: EventLogEntry) -> None:
        super().store_event(event)
        # Wakes who watches the run's file (the UI): what is written goes to the log beside it.
        with contextlib.suppress(OSError):
            os.utime(self.path_for_shard(event.run_id))

    def _open(self, shard: str) -> None:
        """Open the database of a run, made as Dagster makes it, or as a copy of one made so."""
        file = Path(self.path_for_shard(shard))
        is_new = shard != INDEX and not file.exists()
        if is_new and self._template is not None and _create(file, self._template):
            self._initialized_dbs.add(shard)
        else:
            with super()._connect(shard):
                pass
            if is_new:  # nothing but its tables is in it, and it is closed
                self._template = file.read_bytes()
        runs = [name for name in self._engines if name != INDEX]
        for old in runs[: max(0, len(runs) + 1 - KEPT_RUNS)]:
            self._engines.pop(old).dispose()
        self._engines[shard] = _warm_engine(self.conn_string_for_shard(shard))

    def has_table(self, table_name: str) -> bool:
        """Tell whether the index has a table; they come, and stay."""
        if table_name in self._tables or super().has_table(table_name):
            self._tables.add(table_name)
            return True
        return False

    def delete_events(self, run_id: str) -> None:
        with self._opening:
            if (engine := self._engines.pop(run_id, None)) is not None:
                engine.dispose()
        super().delete_events(run_id)

    def dispose(self) -> None:
        with self._opening:
            while self._engines:
                self._engines.popitem()[1].dispose()
        super().dispose()
