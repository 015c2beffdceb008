"""Dagster's databases with open connections: whoever else uses them sees what is written."""

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from dagster import DagsterInstance, DagsterRunStatus
from dagster._core.instance.ref import InstanceRef

from wombat_dagster import runs, warm_storage
from wombat_dagster.definitions import defs
from wombat_dagster.warm_storage import WarmSqliteStorage, with_warm_storage

SQLITE = """\
storage:
  sqlite:
    base_dir: .dagster_state
"""


@pytest.fixture
def instance(tmp_path, monkeypatch):
    monkeypatch.setenv("DAGSTER_HOME", "")
    with runs.home(tmp_path / "a home") as instance:
        yield instance


@pytest.fixture(autouse=True)
def home_directory(tmp_path):
    (tmp_path / "a home").mkdir()


@pytest.fixture
def other(instance, tmp_path):
    """Another program's view of the same databases, by Dagster's own storage."""
    base = tmp_path / "another view"
    base.mkdir()
    state = tmp_path / "a home" / ".dagster_state"
    words = SQLITE.replace(".dagster_state", str(state))
    (base / "dagster.yaml").write_text(f"{words}telemetry:\n  enabled: false\n")
    with DagsterInstance.from_ref(InstanceRef.from_dir(str(base))) as other:
        yield other


def add_run(instance):
    job = defs.resolve_job_def("night_job")
    return instance.create_run_for_job(job, status=DagsterRunStatus.STARTED)


def test_the_storage_is_ours_also_where_an_older_dagster_yaml_asks_for_dagster_s(tmp_path):
    (tmp_path / "dagster.yaml").write_text(SQLITE)
    reference = InstanceRef.from_dir(str(tmp_path))
    assert reference.storage_data.class_name == "DagsterSqliteStorage"
    assert with_warm_storage(reference).storage_data.class_name == WarmSqliteStorage.__name__


def test_the_daemon_and_the_ui_get_it_by_the_dagster_yaml_alone(instance, tmp_path):
    reference = InstanceRef.from_dir(str(tmp_path / "a home"))
    with contextlib.chdir(tmp_path / "a home"), DagsterInstance.from_ref(reference) as theirs:
        assert type(theirs._event_storage).__module__ == warm_storage.__name__
        assert type(theirs._run_storage).__module__ == warm_storage.__name__
        assert theirs.get_run_by_id(add_run(instance).run_id) is not None


def test_who_watches_a_run_hears_of_its_events_at_once(instance, other):
    """The UI's page of a run: SQLite writes to the log beside the file that is watched."""
    run = add_run(instance)
    instance.report_engine_event("first", run)
    heard, came = [], threading.Event()

    def hear(event, _cursor):
        heard.append(event.message)
        if "second" in event.message:
            came.set()

    other.watch_event_logs(run.run_id, None, hear)
    instance.report_engine_event("second", run)
    assert came.wait(20.0), heard
    other.end_watch_event_logs(run.run_id, hear)


def test_many_threads_write_and_read_many_runs_at_once(instance, other):
    """More runs than connections are kept for."""
    made = [add_run(instance) for _ in range(6)]

    def work(number):
        run = made[number % len(made)]
        instance.report_engine_event(f"word {number}", run)
        return len(instance.all_logs(run.run_id))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(work, range(120)))
    for place, run in enumerate(made):
        words = {entry.message for entry in other.all_logs(run.run_id)}
        assert {f"word {n}" for n in range(place, 120, len(made))} <= words


def test_a_run_s_database_that_another_program_has_made_is_not_overwritten(
    instance, other, monkeypatch
):
    """Both look, see none, and make it."""
    add_run(instance)  # from here on new ones are copies
    run_id, create, made = "0" * 32, warm_storage._create, []

    def after_the_other(file, content):
        with other._event_storage.run_connection(run_id):
            made.append(file.stat().st_ino)
        return create(file, content)

    monkeypatch.setattr(warm_storage, "_create", after_the_other)
    with instance._event_storage.run_connection(run_id):
        pass
    file = Path(instance._event_storage.path_for_shard(run_id))
    assert [file.stat().st_ino] == made
    assert list(file.parent.glob("*.new")) == []
