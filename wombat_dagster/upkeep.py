"""What ``wombat doctor`` says of wombat at work: database, Dagster, clock, and what lies about.

Every look is alone: one that fails says so in a line of its own. Nothing is changed, except that a
database in use may be locked for a moment, to see whether that can be done.
"""

import contextlib
import datetime as dt
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from wombat_dagster import config, orphans
from wombat_dagster.domain import Apphot, RawFrame
from wombat_dagster.findings import Finding, good, looks, missing, warn

if TYPE_CHECKING:
    from dagster import DagsterInstance, RunRecord

LOCK_TIMEOUT_S = 2.0
MAX_BACKUPS = 5
RECENT = dt.timedelta(days=7)
MAX_SILENCE_S = 300.0  # of a sensor under wombat up; ten of its own intervals when that is longer
MAX_NAMED = 3
MAX_DIRECTORIES = 20_000
LARGE_STATE_BYTES = 5e9
MAX_FAILED = 200  # failed runs that are looked at
FUTURE_S = 300.0  # clocks of two machines differ by so much before it is worth a word
RUNNING = "wombat up"
INTERRUPTED = "interrupted"  # so begin also the words of workers for it
ENDED_BY_SIGNAL = {"DagsterExecutionInterruptedError", "KeyboardInterrupt"}


def examine(settings: config.Settings, frames: Sequence[RawFrame]) -> Iterator[Finding]:
    """Yield what is found; `frames` are the newest night's."""
    base = settings.base
    yield from looks(
        ("data", lambda: data_directory(settings.path(settings.data))),
        ("clock", lambda: clock(frames, dt.datetime.now(dt.UTC))),
        ("database", lambda: database(settings.path(settings.database))),
        ("observations", lambda: observations(settings)),
        (RUNNING, lambda: dagster(base, retired=retired(settings))),
        ("temporary", lambda: temporary(settings)),
    )


# -------------------------------------------------------------------------------------- the data


def data_directory(data: Path) -> Iterator[Finding]:
    """Say whether the data can be written and read to the last directory."""
    if not data.is_dir():
        return
    if not os.access(data, os.W_OK):
        yield warn(
            "data",
            f"{data} cannot be written: masters cannot be put into the nights, flats stay unsorted",
            "give this user the right to write there, or mount it writable",
        )
    closed = closed_directories(data)
    if closed:
        names = ", ".join(str(path) for path in closed[:MAX_NAMED])
        more = f" and {len(closed) - MAX_NAMED} more" if len(closed) > MAX_NAMED else ""
        yield warn(
            "data",
            f"no permission to look into {names}{more}: taken for empty",
            "give this user the right to read them",
        )


def closed_directories(data: Path) -> list[Path]:
    """Return the directories below `data` that cannot be listed for lack of permission."""
    closed: list[Path] = []

    def note(error: OSError) -> None:
        if isinstance(error, PermissionError) and error.filename is not None:
            closed.append(Path(os.fsdecode(error.filename)))

    for number, _ in enumerate(os.walk(data, onerror=note)):
        if number > MAX_DIRECTORIES:
            break
    return sorted(closed)


def clock(frames: Sequence[RawFrame], now: dt.datetime) -> Iterator[Finding]:
    """Compare this machine's clock with the times of the newest night's frames and files."""
    starts = []
    for frame in frames:
        with contextlib.suppress(ValueError):
            start = dt.datetime.fromisoformat(frame.start_utc or "")
            starts.append(start if start.tzinfo else start.replace(tzinfo=dt.UTC))
    says = f"this machine says {now:%Y-%m-%d %H:%M} UTC"
    limit = now + dt.timedelta(seconds=FUTURE_S)
    if starts and max(starts) > limit:
        yield warn(
            "clock",
            f"{says}, the newest frame was begun at {max(starts):%Y-%m-%d %H:%M} UTC by its header",
            "one of the two clocks is wrong: this machine's, or the camera computer's"
            " (local time in DATE-OBS?)",
        )
    late = [frame for frame in frames if frame.mtime_ns / 1e9 > limit.timestamp()]
    if late:
        yield warn(
            "clock",
            f"{says}, {len(late)} files of the newest night are from the future, {late[0].path}"
            " for one",
            "set the clock of this machine, or of the one that wrote them",
        )
    if not late and not (starts and max(starts) > limit):
        yield good("clock", says)


# ------------------------------------------------------------------------------------ the database


def database(file: Path) -> Iterator[Finding]:
    """Judge wombat's own database: whole, of this version, not held by another program."""
    if not file.exists():
        yield good("database", f"no {file} yet: the first run makes it")
        return
    try:
        yield from _inside(file)
    except sqlite3.DatabaseError as error:  # no database, damaged, or not to be opened
        backups = _backups(file)
        yield missing(
            "database",
            f"{file}: {error}",
            f"restore the newest backup, {backups[-1].name}"
            if backups
            else "move it away: wombat"
            " run begins a new one, and a person's decisions are lost with it",
            is_fatal=True,
        )
        return
    yield from _locked(file)
    backups = _backups(file)
    if backups:
        size = sum(backup.stat().st_size for backup in backups)
        words = f"{len(backups)} backups of before upgrades, {size / 1e6:.0f} MB"
        if len(backups) > MAX_BACKUPS:
            yield warn("database", words, f"the older ones of {file.name}.*.backup may be deleted")
        else:
            yield good("database", words)


def _inside(file: Path) -> Iterator[Finding]:
    uri = f"file:{quote(str(file))}?mode=ro"
    with contextlib.closing(sqlite3.connect(uri, uri=True, timeout=LOCK_TIMEOUT_S)) as connection:
        said = [row[0] for row in connection.execute("PRAGMA quick_check(3)")]
        if said != ["ok"]:
            yield missing(
                "database",
                f"{file} is damaged: {'; '.join(said)}",
                "end wombat, copy the file away, and restore a backup (or sqlite3's .recover)",
                is_fatal=True,
            )
            return
        done = _migrations_done(connection)
        rows = connection.execute("SELECT count(*) FROM target").fetchone()[0] if done else 0
    known, pending = _migrations_known(done)
    words = f"{file.name}: {rows} observations, {file.stat().st_size / 1e6:.1f} MB, whole"
    newer = [name for name in done if name not in known]
    if newer:
        yield warn(
            "database",
            f"{words}, but made by a newer wombat ({newer[-1]} is not known here)",
            "upgrade wombat again, or restore the backup of before",
        )
    elif pending:
        yield good("database", f"{words}; {len(pending)} changes to come with the next start")
    else:
        yield good("database", f"{words}, version {done[-1].partition('_')[0]}")


def _migrations_done(connection: sqlite3.Connection) -> list[str]:
    with contextlib.suppress(sqlite3.OperationalError):  # no such table: an empty file
        query = "SELECT name FROM _sqlite_migrations WHERE migration_set = ? ORDER BY name"
        from wombat_dagster.store.schema import migrations

        return [row[0] for row in connection.execute(query, (migrations.name,))]
    return []


def _migrations_known(done: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the names of this version's migrations, and of those that are not in `done`."""
    from sqlite_utils import Database

    from wombat_dagster.store.schema import migrations

    known = [one.name for one in migrations.pending(Database(memory=True))]
    return known, [name for name in known if name not in done]


def _locked(file: Path) -> Iterator[Finding]:
    """Say when another program holds the database so that nothing can be written."""
    uri = f"file:{quote(str(file))}?mode=rw"
    try:
        with contextlib.closing(
            sqlite3.connect(uri, uri=True, timeout=LOCK_TIMEOUT_S, isolation_level=None)
        ) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
    except sqlite3.OperationalError as error:
        yield warn(
            "database",
            f"{file.name} cannot be written now: {error}",
            "another program holds it: unsaved changes in a database browser? Or no right to write"
            " the file and its directory",
        )


def _backups(file: Path) -> list[Path]:
    return sorted(file.parent.glob(f"{file.name}.*.backup"))


def observations(settings: config.Settings) -> Iterator[Finding]:
    """Count the observations that wait for a service, for the person, or for something else."""
    from wombat_dagster import runs

    if not settings.path(settings.database).exists():
        return
    with runs.rehearsal(settings) as observatory:
        rows = [row for row in observatory.status.targets() if row.retired_utc is None]
    if not rows:
        return
    counts = Counter(str(row.apphot or row.proc or "not begun") for row in rows)
    words = ", ".join(f"{n} {word}" for word, n in counts.most_common())
    parked = {w: counts[w] for w in (Apphot.NOVSP, Apphot.VSXDOWN) if counts[w]}
    if parked:
        waiting = ", ".join(f"{n} {word}" for word, n in parked.items())
        yield warn(
            "observations",
            f"{words}; parked: {waiting}",
            "go on by themselves under wombat up when the service is back; by hand: wombat retry"
            f" --reason {next(iter(parked))}",
        )
    else:
        yield good("observations", words)


def retired(settings: config.Settings) -> set[str]:
    """Return the keys of observations whose frames are gone from the data."""
    from wombat_dagster import runs

    if not settings.path(settings.database).exists():
        return set()
    with runs.rehearsal(settings) as observatory:
        rows = observatory.status.targets()
    return {row.observation.key for row in rows if row.retired_utc is not None}


# ------------------------------------------------------------------------------------ Dagster


def dagster(base: Path, *, retired: Collection[str] = ()) -> Iterator[Finding]:
    """Say whether ``wombat up`` runs, whether its sensors tick, and what failed lately.

    `retired`: keys of observations that are not made again, whatever became of their last run.
    """
    from wombat_dagster.runs import DAGSTER_YAML

    up = orphans.last_up(base)
    if up is None:
        yield good(RUNNING, "does not run")
    elif up.lives:
        yield good(RUNNING, f"runs since {up.since_utc}: {up.address} (process {up.pid})")
    else:
        yield warn(
            RUNNING,
            f"the one of {up.since_utc} was killed (process {up.pid})",
            "start it again: it ends what is left and begins interrupted runs again",
        )
    state = base / orphans.STATE
    if not (state / "history" / "runs.db").exists() or not (base / DAGSTER_YAML).exists():
        return
    template = Path(__file__).parent / DAGSTER_YAML
    if (base / DAGSTER_YAML).read_bytes() != template.read_bytes():
        yield warn(
            "dagster.yaml",
            "not that of this version: of an older wombat, or changed by hand",
            f"if not by hand: delete it, the next start writes it anew (compare with {template})",
        )
    yield _size(state)
    from dagster import DagsterInstance
    from dagster._core.instance.ref import InstanceRef

    from wombat_dagster.runs import NO_CAPTURE

    with contextlib.chdir(base):
        reference = InstanceRef.from_dir(str(base), overrides={"compute_logs": NO_CAPTURE})
        with DagsterInstance.from_ref(reference) as instance:
            yield from _runs(instance, base, retired)
            yield from _sensors(instance, is_up=up is not None and up.lives)


def _size(state: Path) -> Finding:
    n_files, size = 0, 0
    for directory, _, names in os.walk(state):
        for name in names:
            with contextlib.suppress(OSError):
                size += (Path(directory) / name).lstat().st_size
                n_files += 1
    words = f"{state}: {n_files} files, {size / 1e6:.0f} MB"
    if size > LARGE_STATE_BYTES:
        return warn("Dagster", words, "[runs] keep_days in wombat.toml: less is kept")
    return good("Dagster", words)


def _runs(instance: "DagsterInstance", base: Path, retired: Collection[str]) -> Iterator[Finding]:
    from dagster import DagsterRunStatus, RunsFilter

    lost = orphans.find_orphans(instance, base)
    if lost:
        yield warn(
            "runs",
            f"{len(lost)} unfinished runs are worked on by nobody,"
            f" {lost[0].partition or lost[0].job} for one: {lost[0].words}",
            "the next wombat up or wombat run reports them as failed and their work is done again",
        )
    since = dt.datetime.now(dt.UTC) - RECENT
    records = instance.get_run_records(
        RunsFilter(statuses=[DagsterRunStatus.FAILURE], created_after=since), limit=MAX_FAILED
    )
    left = [
        record.dagster_run
        for record in records
        if record.dagster_run.tags.get("dagster/partition") not in retired
        and not _is_mended(instance, record)
    ]
    errors = {run.run_id: _error_of(instance, run.run_id) for run in left}
    failed = [run for run in left if not errors[run.run_id].startswith(INTERRUPTED)]
    working = instance.get_runs_count(
        RunsFilter(statuses=[DagsterRunStatus.STARTED, DagsterRunStatus.STARTING])
    )
    waiting = instance.get_runs_count(RunsFilter(statuses=[DagsterRunStatus.QUEUED]))
    words = f"{working} at work, {waiting} waiting, {len(failed)} failed in {RECENT.days} days"
    if len(left) > len(failed):
        words += f" ({len(left) - len(failed)} interrupted: the next run goes on with them)"
    if not failed:
        yield good("runs", words)
        return
    run = failed[0]
    yield warn(
        "runs",
        f"{words}, the last {run.tags.get('dagster/partition', run.job_name)}:"
        f" {errors[run.run_id]}",
        f"in the UI under Runs, {run.run_id[:8]}, or wombat run, which tries them again",
    )


def _is_mended(instance: "DagsterInstance", record: "RunRecord") -> bool:
    """Return whether a later run of the same partition went well."""
    from dagster import DagsterRunStatus, RunsFilter

    partition = record.dagster_run.tags.get("dagster/partition")
    if partition is None:
        return False
    later = RunsFilter(
        tags={"dagster/partition": partition},
        statuses=[DagsterRunStatus.SUCCESS],
        created_after=record.create_timestamp,
    )
    return instance.get_runs_count(later) > 0


def _error_of(instance: "DagsterInstance", run_id: str) -> str:
    """Return the first line of what a failed run died of; `INTERRUPTED` of a Ctrl-C."""
    from dagster import DagsterEventType

    words = "no reason recorded"
    failures = {DagsterEventType.STEP_FAILURE, DagsterEventType.RUN_FAILURE}
    for entry in instance.all_logs(run_id, of_type=failures):
        event = entry.dagster_event
        if event is None:
            continue
        words = event.message or words
        if event.is_step_failure:
            error = event.step_failure_data.error
            if error is not None and error.cls_name in ENDED_BY_SIGNAL:
                return INTERRUPTED
            while error is not None and error.cause is not None:
                error = error.cause
            return _first_line(error.message) if error is not None else _first_line(words)
    return _first_line(words)


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]


def _sensors(instance: "DagsterInstance", *, is_up: bool) -> Iterator[Finding]:
    """Say when each sensor last looked, and what its looks failed of."""
    from dagster._core.definitions.run_request import InstigatorType
    from dagster._core.scheduler.instigation import InstigatorStatus, TickStatus

    from wombat_dagster.definitions import defs

    now_s = time.time()
    present = {sensor.name for sensor in defs.sensors or ()}
    for state in instance.all_instigator_state(instigator_type=InstigatorType.SENSOR):
        if state.instigator_name not in present:
            continue  # of an older wombat
        subject, name = "sensor", state.instigator_name.removesuffix("_sensor")
        if state.status is InstigatorStatus.STOPPED:
            yield warn(subject, f"{name}: stopped by hand", "start it in the UI, under Automation")
            continue
        ticks = instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=1)
        if not ticks:
            yield good(subject, f"{name}: has not looked yet")
            continue
        age_s = now_s - ticks[0].timestamp
        data = state.instigator_data
        interval_s = float(getattr(data, "min_interval", None) or 0.0)
        words = f"{name}: looked {_ago(age_s)} ago"
        if ticks[0].status is TickStatus.FAILURE:
            error = ticks[0].error
            while error is not None and error.cause is not None:
                error = error.cause
            said = _first_line(error.message) if error is not None else "no reason recorded"
            yield warn(subject, f"{words} and failed: {said}", "in the UI under Automation")
        elif is_up and age_s > max(MAX_SILENCE_S, 10 * interval_s):
            yield warn(
                subject, f"{words} although wombat up runs", "end wombat up and start it again"
            )
        else:
            yield good(subject, words)


def _ago(age_s: float) -> str:
    for unit, length_s in (("days", 86_400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if age_s >= 2 * length_s:
            return f"{age_s / length_s:.0f} {unit}"
    return f"{age_s:.0f} s"


# ---------------------------------------------------------------------------------- what lies about


def temporary(settings: config.Settings) -> Iterator[Finding]:
    """Name what killed writers left."""
    from wombat_dagster.litter import find_litter
    from wombat_dagster.observatory import Observatory

    found = find_litter(Observatory(settings))
    if not found:
        yield good("temporary", "no half-written files")
        return
    names = ", ".join(str(one.path) for one in found[:MAX_NAMED])
    more = f" and {len(found) - MAX_NAMED} more" if len(found) > MAX_NAMED else ""
    size = sum(one.size_bytes for one in found)
    yield warn(
        "temporary",
        f"{len(found)} half-written files of killed runs, {size / 1e6:.0f} MB: {names}{more}",
        "the next wombat run, or wombat up, deletes them",
    )
