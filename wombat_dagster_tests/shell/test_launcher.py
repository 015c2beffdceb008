"""The daemon's runs in warm processes: real ones, that are used again, killed and interrupted."""

import os
import signal
import time
from pathlib import Path

import pytest
from dagster import DagsterRunStatus
from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster._core.launcher.base import LaunchRunContext

from wombat_dagster import config, launcher, orphans, runs
from wombat_dagster.definitions import defs
from wombat_dagster.partitions import NIGHTS

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals are POSIX's")
NIGHT = "20251014"
PATIENCE_S = 120.0
HANGS = """
import sys
if "wombat_dagster.launcher" in " ".join(sys.orig_argv):
    import time
    from wombat_dagster.assets import conclude as module
    real = module.conclude

    def conclude(context, observatory, make, describe):
        def hang():
            open({flag!r}, "w").close()
            time.sleep(600)
        return real(context, observatory, hang, describe)

    module.conclude = conclude
"""


@pytest.fixture
def instance(place, monkeypatch):
    """The Dagster instance of a place with one night."""
    place.take(f"{NIGHT}/**/*.fit")
    monkeypatch.setenv(config.CONFIG_ENV, str(place.root / config.CONFIG_NAME))
    monkeypatch.setenv("DAGSTER_HOME", "")
    with runs.home(place.root) as instance:
        instance.add_dynamic_partitions(NIGHTS.name, [NIGHT])
        try:
            yield instance
        finally:
            processes = [hand.process for hand in instance.run_launcher._hands]
            instance.run_launcher.dispose()
            for process in processes:
                process.wait(PATIENCE_S)


@pytest.fixture
def hanging(place, monkeypatch):
    """Make the processes that are started hang in their first stage; a file says that they do."""
    site, flag = place.root / "site", place.root / "hangs"
    site.mkdir(parents=True)
    (site / "sitecustomize.py").write_text(HANGS.format(flag=str(flag)))
    monkeypatch.setenv("PYTHONPATH", str(site))
    return flag


def launch(instance):
    """Ask for the night's masters as a sensor does; return the run's id."""
    repository = ReconstructableRepository.for_module("wombat_dagster.definitions", "defs")
    run = instance.create_run_for_job(
        defs.resolve_job_def("night_job"),
        tags={"dagster/partition": NIGHT},
        job_code_origin=repository.get_reconstructable_job("night_job").get_python_origin(),
        status=DagsterRunStatus.STARTING,
    )
    instance.run_launcher.launch_run(LaunchRunContext(dagster_run=run, workspace=None))
    return run.run_id


def wait(instance, run_id):
    until_s = time.monotonic() + PATIENCE_S
    while not (run := instance.get_run_by_id(run_id)).is_finished:
        assert time.monotonic() < until_s, [e.message for e in instance.all_logs(run_id)]
        time.sleep(0.1)
    return run


def wait_until(condition):
    until_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until_s
        time.sleep(0.05)


def messages(instance, run_id):
    return " | ".join(entry.message for entry in instance.all_logs(run_id))


def worker_of(run):
    return run.tags[orphans.WORKER_TAG]


@pytest.mark.slow
def test_one_process_does_one_run_after_the_other_and_leaves_when_it_has_nothing_to_do(instance):
    first = wait(instance, launch(instance))
    assert first.status is DagsterRunStatus.SUCCESS, messages(instance, first.run_id)
    (hand,) = instance.run_launcher._hands
    wait_until(lambda: hand.run_id is None)
    second = wait(instance, launch(instance))
    assert second.status is DagsterRunStatus.SUCCESS
    assert worker_of(first) == worker_of(second) == hand.name
    assert orphans.find_orphans(instance, Path(os.environ["DAGSTER_HOME"])) == []
    assert "DEBUG" not in hand.log_file.read_text()  # not every event on the terminal as well
    wait_until(lambda: hand.run_id is None)
    instance.run_launcher._hear(hand, {"leaving": True})
    assert hand.process.wait(PATIENCE_S) == 0
    assert instance.run_launcher._hands == []


@pytest.mark.slow
def test_a_killed_process_costs_its_run_which_says_so(instance, hanging):
    run_id = launch(instance)
    (hand,) = instance.run_launcher._hands
    wait_until(hanging.exists)
    hand.process.kill()
    run = wait(instance, run_id)
    assert run.status is DagsterRunStatus.FAILURE
    assert "its process ended: killed by SIGKILL" in messages(instance, run_id)
    assert instance.run_launcher._hands == []


@pytest.mark.slow
def test_a_run_that_is_canceled_ends_soon_and_its_process_with_it(instance, hanging):
    run_id = launch(instance)
    (hand,) = instance.run_launcher._hands
    wait_until(hanging.exists)
    assert instance.run_launcher.terminate(run_id)
    assert wait(instance, run_id).status is DagsterRunStatus.CANCELED
    hand.process.wait(PATIENCE_S)
    assert not orphans.lives(hand.name)
    assert not instance.run_launcher.terminate(run_id)


@pytest.mark.slow
def test_what_does_not_end_when_asked_is_killed(instance, hanging, monkeypatch):
    monkeypatch.setattr(launcher, "CANCEL_PATIENCE_S", 0.5)
    run_id = launch(instance)
    (hand,) = instance.run_launcher._hands
    wait_until(hanging.exists)
    hand.process.send_signal(signal.SIGSTOP)  # it hears of nothing
    assert instance.run_launcher.terminate(run_id)
    assert wait(instance, run_id).status is DagsterRunStatus.CANCELED
    assert not orphans.lives(hand.name)


def test_a_run_whose_process_is_gone_can_be_canceled(instance):
    run = instance.create_run_for_job(
        defs.resolve_job_def("night_job"),
        tags={"dagster/partition": NIGHT, orphans.WORKER_TAG: "1:never"},
        status=DagsterRunStatus.STARTED,
    )
    assert instance.run_launcher.terminate(run.run_id)
    assert instance.get_run_by_id(run.run_id).status is DagsterRunStatus.CANCELED
