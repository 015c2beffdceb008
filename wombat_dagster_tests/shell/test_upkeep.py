import contextlib
import datetime as dt
import os
import sqlite3
import subprocess
import sys
import time
import types
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.scheduler.instigation import InstigatorStatus, TickData, TickStatus
from dagster._utils.error import SerializableErrorInfo
from sqlite_utils import Database

from wombat_dagster import orphans, runs, upkeep
from wombat_dagster.definitions import defs
from wombat_dagster.findings import Verdict, looks
from wombat_dagster.store import schema

NOW = dt.datetime(2025, 10, 15, 22, 0, tzinfo=dt.UTC)


def words_of(findings):
    return [(one.verdict.value, one.words) for one in findings]


@pytest.fixture
def database(tmp_path):
    file = tmp_path / "wombat pipeline#1.db"
    schema.migrate(file)
    return file


def test_a_look_that_fails_is_said_and_hides_no_other():
    def broken():
        raise RuntimeError("the disk is on fire\nTraceback")

    found = list(looks(("disk", broken), ("site", list)))
    assert words_of(found) == [("WARN", "cannot be looked at: the disk is on fire")]


# ------------------------------------------------------------------------------------ the database


def test_a_whole_database_is_told_with_its_version(database):
    (found,) = upkeep.database(database)
    newest = schema.migrations.pending(Database(memory=True))[-1].name
    assert found.verdict is Verdict.OK
    assert found.words.endswith(f"whole, version {newest[:4]}")


def test_a_damaged_database_is_fatal_and_the_backup_to_restore_is_named(database):
    backup = database.with_name(f"{database.name}.20251015T200000Z.backup")
    backup.write_bytes(b"x")
    content = bytearray(database.read_bytes())
    content[4096:12288] = b"\xff" * 8192
    database.write_bytes(content)
    found = next(upkeep.database(database))
    assert (found.verdict, found.is_fatal) == (Verdict.MISSING, True)
    database.write_bytes(b"no database at all, but long enough to be looked at" * 100)
    found = next(upkeep.database(database))
    assert "not a database" in found.words
    assert backup.name in found.remedy


def test_a_database_that_another_program_holds_is_told(database, monkeypatch):
    monkeypatch.setattr(upkeep, "LOCK_TIMEOUT_S", 0.1)
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        whole, held = upkeep.database(database)
    assert whole.verdict is Verdict.OK
    assert "database is locked" in held.words


def test_a_database_of_a_newer_wombat_is_told(database):
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.execute(
            "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES (?, ?, ?)",
            (schema.migrations.name, "m999_of_tomorrow", "2030-01-01"),
        )
        connection.commit()
    (found,) = upkeep.database(database)
    assert found.verdict is Verdict.WARN
    assert "m999_of_tomorrow" in found.words


def test_backups_that_pile_up_are_counted_with_their_size(database):
    for day in range(1, upkeep.MAX_BACKUPS + 2):
        backup = database.with_name(f"{database.name}.202510{day:02}T200000Z.backup")
        backup.write_bytes(bytes(1_000_000))
    _, piled = upkeep.database(database)
    assert piled.verdict is Verdict.WARN
    assert piled.words == f"{upkeep.MAX_BACKUPS + 1} backups of before upgrades, 6 MB"


def test_no_database_yet_is_no_fault(tmp_path):
    (found,) = upkeep.database(tmp_path / "wombatpipeline.db")
    assert found.verdict is Verdict.OK


# ------------------------------------------------------------------------------- clock, directories


def newest_frames(place):
    place.take("20251014/Light/*/*V.fit")
    place.observatory.scan()
    return place.observatory.status.night_frames(dt.date(2025, 10, 14))


def test_a_clock_behind_the_newest_frame_and_files_from_the_future_are_told(place):
    frames = newest_frames(place)
    now = dt.datetime.now(dt.UTC)
    assert [one.verdict for one in upkeep.clock(frames, now)] == [Verdict.OK]
    behind = dt.datetime(2025, 10, 14, 0, 0, tzinfo=dt.UTC)
    header, files = upkeep.clock(frames, behind)
    assert "the newest frame was begun at 2025-10-1" in header.words
    assert f"{len(frames)} files" in files.words


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="everything is open to root")
def test_directories_closed_to_us_are_named(tmp_path):
    closed = tmp_path / "20251015" / "Light"
    closed.mkdir(parents=True)
    closed.chmod(0)
    try:
        (found,) = upkeep.data_directory(tmp_path)
        assert str(closed) in found.words
        assert "taken for empty" in found.words
    finally:
        closed.chmod(0o700)


# ----------------------------------------------------------------------------------------- Dagster


@dg.asset
def stars():
    """Fail as a stage does."""
    raise ValueError("no stars\nin this field")


def test_the_doctor_tells_a_killed_wombat_up_its_runs_and_what_failed(tmp_path):
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    with runs.home(tmp_path) as instance:
        job = dg.Definitions(assets=[stars]).resolve_implicit_global_asset_job_def()
        job.execute_in_process(instance=instance, run_config=runs.QUIET, raise_on_error=False)
        lost = dg.DagsterRun(
            job_name="night_job",
            status=dg.DagsterRunStatus.STARTED,
            tags={orphans.RUN_TAG: f"{dead.pid}:1", "dagster/partition": "20251015"},
        )
        instance.add_run(lost)
        for status in (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS):  # mended since
            run = dg.DagsterRun(
                job_name="night_job", status=status, tags={"dagster/partition": "20251014"}
            )
            instance.add_run(run)
    record = orphans.UpRecord(
        process=f"{dead.pid}:1",
        servers=(),
        since_utc="2025-10-15T20:00:00Z",
        address="http://127.0.0.1:3000",
    )
    (tmp_path / orphans.STATE / orphans.RECORD).write_bytes(record.content())
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.db")}
    found = words_of(upkeep.dagster(tmp_path))
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.db")} == before
    warned = " | ".join(words for verdict, words in found if verdict == "WARN")
    assert "the one of 2025-10-15T20:00:00Z was killed" in warned
    assert "1 unfinished runs are worked on by nobody, 20251015 for one" in warned
    assert "1 failed in 7 days, the last __ASSET_JOB: ValueError: no stars" in warned
    assert "in this field" not in warned


@dg.asset
def interrupted_stars():
    """End as a stage does that a Ctrl-C reaches."""
    raise DagsterExecutionInterruptedError


def test_interruptions_and_retired_observations_are_no_failures(tmp_path):
    with runs.home(tmp_path) as instance:
        job = dg.Definitions(assets=[interrupted_stars]).resolve_implicit_global_asset_job_def()
        with contextlib.suppress(DagsterExecutionInterruptedError):
            job.execute_in_process(instance=instance, run_config=runs.QUIET, raise_on_error=False)
        gone = dg.DagsterRun(
            job_name="observation_job",
            status=dg.DagsterRunStatus.FAILURE,
            tags={"dagster/partition": "20251014__SV_Wom__V"},
        )
        instance.add_run(gone)
        assert instance.get_runs_count(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE])) == 2

    def runs_of(retired):
        found = list(upkeep.dagster(tmp_path, retired=retired))
        return next(one for one in found if one.subject == "runs")

    told = runs_of({"20251014__SV_Wom__V"})
    assert told.verdict is Verdict.OK
    assert "0 failed in 7 days (1 interrupted" in told.words
    assert "1 failed in 7 days" in runs_of(()).words


@pytest.mark.parametrize("newest_fails", [True, False])
def test_a_sensor_that_failed_once_and_looked_well_since_is_well(tmp_path, newest_fails):
    with runs.home(tmp_path) as instance:
        sensor = next(iter(defs.sensors))
        origin = f"of {sensor.name}", f"by {sensor.name}"
        for age_s, fails in ((7200, not newest_fails), (60, newest_fails)):
            tick = TickData(
                instigator_origin_id=origin[0],
                instigator_name=sensor.name,
                instigator_type=InstigatorType.SENSOR,
                status=TickStatus.FAILURE if fails else TickStatus.SKIPPED,
                timestamp=time.time() - age_s,
                selector_id=origin[1],
                error=SerializableErrorInfo("the disk is full\n", [], "OSError") if fails else None,
            )
            instance.create_tick(tick)
        ticks = instance.get_ticks(*origin, limit=1)
        assert (ticks[0].status is TickStatus.FAILURE) == newest_fails
        state = types.SimpleNamespace(
            instigator_name=sensor.name, status=InstigatorStatus.RUNNING, instigator_data=None,
            instigator_origin_id=origin[0], selector_id=origin[1],
        )  # fmt: skip
        asked = types.SimpleNamespace(
            all_instigator_state=lambda **_: [state], get_ticks=instance.get_ticks
        )
        (found,) = upkeep._sensors(asked, is_up=False)
    assert (found.verdict is Verdict.WARN) == newest_fails
    assert ("failed: the disk is full" in found.words) == newest_fails


def test_a_dagster_yaml_that_is_not_of_this_version_is_told(tmp_path):
    with runs.home(tmp_path) as instance:
        instance.get_runs_count()
    assert "dagster.yaml" not in [one.subject for one in upkeep.dagster(tmp_path)]
    with (tmp_path / "dagster.yaml").open("a") as file:
        file.write("# mine\n")
    assert "dagster.yaml" in [one.subject for one in upkeep.dagster(tmp_path)]


def test_no_dagster_at_all_is_no_fault_and_none_is_made(tmp_path):
    assert words_of(upkeep.dagster(tmp_path)) == [("OK", "does not run")]
    assert list(tmp_path.iterdir()) == []


# -------------------------------------------------------------------------------------- lying about


def test_half_written_files_are_named(place, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(place.root))
    left = place.root / "products" / "20251014" / ".frame.fits.0123abcd.tmp"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half a")
    old_s = time.time() - 7200
    os.utime(left, (old_s, old_s))
    (found,) = upkeep.temporary(place.observatory.settings)
    assert found.verdict is Verdict.WARN
    assert str(left) in found.words
    assert left.exists()


def test_the_repository_and_the_package_have_the_same_dagster_yaml():
    package = Path(upkeep.__file__).parent / runs.DAGSTER_YAML
    assert package.read_text() == (package.parent.parent / runs.DAGSTER_YAML).read_text()
