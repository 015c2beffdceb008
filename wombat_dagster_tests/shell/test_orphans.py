"""Runs whose process is gone, in a real Dagster instance."""

import os
import subprocess
import sys
import uuid

import dagster as dg
import pytest
from dagster import DagsterEvent, DagsterRun, DagsterRunStatus
from dagster._core.events import EngineEventData
from dagster._core.storage.tags import GRPC_INFO_TAG

from wombat_dagster import orphans

posix = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")


@pytest.fixture
def dead_pid():
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


@pytest.fixture
def instance():
    with dg.DagsterInstance.ephemeral() as opened:
        yield opened


def add_run(instance, status, *, tags=None, worker=None):
    """Record a run of the daemon's in a status, and the process that works on it."""
    run = DagsterRun(
        job_name="observation_job",
        run_id=str(uuid.uuid4()),
        status=status,
        tags={"dagster/partition": "20251015__TX_Eri__V", **(tags or {})},
    )
    instance.add_run(run)
    if worker is not None:
        instance.report_engine_event("Started process", run, EngineEventData.in_process(worker))
    return run.run_id


def write_up(base, process):
    (base / orphans.STATE).mkdir()
    record = orphans.UpRecord(
        process=process,
        servers=(),
        since_utc="2025-10-15T20:00:00Z",
        address="http://127.0.0.1:3000",
    )
    (base / orphans.STATE / orphans.RECORD).write_bytes(record.content())


def status_of(instance, run_id):
    return instance.get_run_by_id(run_id).status


# ------------------------------------------------------------------------------------ processes


def test_this_process_lives_and_one_that_had_its_number_before_does_not():
    assert orphans.lives(orphans.this_process())
    assert not orphans.lives(f"{os.getpid()}:12345")


@posix
def test_a_killed_process_does_not_live_even_before_anybody_looked_for_it():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    name = orphans.named(child.pid)
    assert orphans.lives(name)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # a zombie from here on
    assert not orphans.lives(name)
    child.communicate()
    assert not orphans.lives(name)


@posix
def test_ps_tells_a_process_where_there_is_no_proc(dead_pid):
    began = orphans._began_elsewhere(os.getpid())
    assert began == orphans._began_elsewhere(os.getpid())
    assert began
    assert orphans._began_elsewhere(dead_pid) is None


@pytest.mark.parametrize("text", ["", "12", ":", "twelve:1", "-1:5"])
def test_what_names_no_process_does_not_live(text):
    assert not orphans.lives(text)


def test_a_record_that_a_power_cut_left_is_none(tmp_path):
    (tmp_path / orphans.STATE).mkdir()
    for content in (b"", b"\0\0\0", b'{"process": "1:2"', b"[]", b'{"process": "1:2"}'):
        (tmp_path / orphans.STATE / orphans.RECORD).write_bytes(content)
        assert orphans.last_up(tmp_path) is None


# ---------------------------------------------------------------------------------------- runs


def test_a_run_of_a_killed_command_fails_in_words_and_one_of_a_living_goes_on(
    instance, tmp_path, dead_pid
):
    living = add_run(
        instance, DagsterRunStatus.STARTED, tags={orphans.RUN_TAG: orphans.this_process()}
    )
    dead = add_run(instance, DagsterRunStatus.STARTED, tags={orphans.RUN_TAG: f"{dead_pid}:1"})
    assert [one.run_id for one in orphans.settle(instance, tmp_path)] == [dead]
    assert status_of(instance, living) is DagsterRunStatus.STARTED
    assert status_of(instance, dead) is DagsterRunStatus.FAILURE
    said = [e.message for e in instance.all_logs(dead, of_type=dg.DagsterEventType.RUN_FAILURE)]
    assert f"process {dead_pid}" in said[0]
    assert orphans.settle(instance, tmp_path) == []


def test_a_run_of_the_daemon_is_known_by_the_process_that_began_it(instance, tmp_path, dead_pid):
    at_work = add_run(instance, DagsterRunStatus.STARTED, worker=os.getpid())
    dead = add_run(instance, DagsterRunStatus.STARTED, worker=dead_pid)
    canceling = add_run(instance, DagsterRunStatus.CANCELING, worker=dead_pid)
    write_up(tmp_path, f"{dead_pid}:1")
    found = orphans.settle(instance, tmp_path)
    assert {one.run_id for one in found} == {dead, canceling}
    assert "wombat up of 2025-10-15T20:00:00Z" in found[0].words
    assert status_of(instance, at_work) is DagsterRunStatus.STARTED


@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells when a process began")
def test_a_process_that_began_after_the_run_did_not_begin_it(instance, tmp_path):
    run_id = add_run(instance, DagsterRunStatus.STARTED)
    run = instance.get_run_by_id(run_id)
    entry = dg.EventLogEntry(
        error_info=None,
        level=20,
        user_message="Started process",
        run_id=run_id,
        timestamp=1_000_000.0,  # 1970
        job_name=run.job_name,
        dagster_event=DagsterEvent(
            event_type_value=dg.DagsterEventType.ENGINE_EVENT.value,
            job_name=run.job_name,
            event_specific_data=EngineEventData.in_process(os.getpid()),
        ),
    )
    instance.handle_new_event(entry)
    assert [one.run_id for one in orphans.find_orphans(instance, tmp_path)] == [run_id]


def test_a_run_that_nobody_began_is_left_to_a_daemon_that_lives(instance, tmp_path, dead_pid):
    run_id = add_run(instance, DagsterRunStatus.STARTING, tags={GRPC_INFO_TAG: "{}"})
    write_up(tmp_path, orphans.this_process())
    assert orphans.find_orphans(instance, tmp_path) == []
    (tmp_path / orphans.STATE / orphans.RECORD).unlink()
    assert [one.run_id for one in orphans.find_orphans(instance, tmp_path)] == [run_id]


def test_who_ends_a_run_says_so(instance, tmp_path, dead_pid):
    run_id = add_run(instance, DagsterRunStatus.STARTED, worker=dead_pid)
    orphans.settle(instance, tmp_path, because="wombat up was ended")
    said = [e.message for e in instance.all_logs(run_id, of_type=dg.DagsterEventType.RUN_FAILURE)]
    assert said[0].startswith("wombat up was ended; ")


def test_a_run_that_a_command_makes_just_now_is_no_orphan(instance, tmp_path):
    add_run(instance, DagsterRunStatus.NOT_STARTED)
    assert orphans.find_orphans(instance, tmp_path) == []
