"""What is forgotten, in a real Dagster instance on disk; and logs."""

import os
import time

import dagster as dg
import pytest

from wombat_dagster import retention, runs

QUIET = runs.QUIET
OBSERVATIONS = dg.DynamicPartitionsDefinition(name="observation")
NO_TIME = 1e-9  # days: everything is older
KEYS = ("20251014__TX_Eri__V", "20251015__TX_Eri__V", "20251016__TX_Eri__V")


class Weather:
    """What the asset below is made of: None fails."""

    frames: int | None = 0


@dg.asset(
    partitions_def=OBSERVATIONS, check_specs=[dg.AssetCheckSpec("solved", asset="light_curve")]
)
def light_curve():
    """Yield a product and a check, or fail."""
    if Weather.frames is None:
        raise ValueError("clouds")
    yield dg.MaterializeResult(metadata={"frames": Weather.frames})
    yield dg.AssetCheckResult(check_name="solved", passed=Weather.frames > 1)


def execute(instance, key, frames):
    Weather.frames = frames
    defs = dg.Definitions(assets=[light_curve], jobs=[dg.define_asset_job("observation_job", "*")])
    return (
        defs.resolve_job_def("observation_job")
        .execute_in_process(
            partition_key=key, instance=instance, run_config=QUIET, raise_on_error=False
        )
        .run_id
    )


@pytest.fixture
def instance(tmp_path):
    with runs.home(tmp_path) as opened:
        opened.add_dynamic_partitions("observation", list(KEYS))
        yield opened


def shown(instance):
    """Return what the UI shows of every partition: there or not, newest metadata, check."""
    asset = dg.AssetKey("light_curve")
    there = instance.get_materialized_partitions(asset)
    newest = {}
    for key in sorted(there):
        records = instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key=asset, asset_partitions=[key]), limit=1
        ).records
        newest[key] = records[0].asset_materialization.metadata["frames"].value
    checks = instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(asset, "solved"), limit=100
    )
    return there, newest, {check.partition: check.status for check in reversed(checks)}


def all_runs(instance):
    return {run.run_id for run in instance.get_runs()}


def test_replaced_runs_are_forgotten_and_the_partitions_stay_as_they_are_shown(instance, tmp_path):
    first, second, third = KEYS
    replaced = execute(instance, first, 5)
    other = execute(instance, second, 1)
    good_before_clouds = execute(instance, third, 7)
    execute(instance, first, 9)
    clouds = execute(instance, third, None)
    before = shown(instance)
    assert before[1] == {first: 9, second: 1, third: 7}
    folder = tmp_path / ".dagster_state" / "history" / "runs"
    assert (folder / f"{replaced}.db").exists()

    assert list(retention.prune(instance, keep_days=30.0)) == []
    assert list(retention.prune(instance, keep_days=NO_TIME)) == [replaced]

    assert shown(instance) == before
    assert all_runs(instance) >= {other, good_before_clouds, clouds}
    assert replaced not in all_runs(instance)
    assert not list(folder.glob(f"{replaced}.db*"))
    assert list(retention.prune(instance, keep_days=NO_TIME)) == []


def test_failed_runs_of_before_a_good_one_are_forgotten(instance):
    key = KEYS[0]
    clouds = [execute(instance, key, None) for _ in range(2)]
    execute(instance, key, 3)
    assert list(retention.prune(instance, keep_days=NO_TIME)) == clouds


def test_the_newest_run_of_a_partition_stays_whatever_became_of_it(instance):
    """It failed before it planned anything: no event of an asset protects it."""
    for _ in range(2):
        run = dg.DagsterRun(
            job_name="observation_job",
            status=dg.DagsterRunStatus.FAILURE,
            tags={"dagster/partition": KEYS[0]},
        )
        instance.add_run(run)
    older, newer = reversed([one.run_id for one in instance.get_runs()])
    assert newer == run.run_id
    assert retention.forgettable(instance, keep_days=NO_TIME) == [older]


# ---------------------------------------------------------------------------------------- logs


def test_a_log_is_numbered_at_the_start_and_the_oldest_goes(tmp_path):
    log_file = tmp_path / "daemon.log"
    for start in range(6):
        retention.rotate_log(log_file)
        log_file.write_text(f"start {start}")
    kept = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert kept == {
        "daemon.log": "start 5",
        "daemon.log.1": "start 4",
        "daemon.log.2": "start 3",
        "daemon.log.3": "start 2",
    }


def test_a_log_that_grows_is_begun_anew_under_the_program_that_writes_it(tmp_path, monkeypatch):
    monkeypatch.setattr(retention, "MAX_LOG_BYTES", 100)
    log_file = tmp_path / "daemon.log"
    with log_file.open("ab", buffering=0) as program:
        program.write(b"x" * 100)
        retention.cut_log(log_file)
        assert log_file.stat().st_size == 100
        program.write(b"y")
        retention.cut_log(log_file)
        program.write(b"z")
    assert log_file.read_bytes() == b"z"
    assert (tmp_path / "daemon.log.1").read_bytes() == b"x" * 100 + b"y"


def test_old_logs_are_deleted_and_the_ones_in_use_are_not(tmp_path):
    old_s = time.time() - 10 * retention.DAY_S
    for name in ("daemon.log", "daemon.log.1", "webserver.log.2", "logs/run/x.out", "logs/new/x"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("words")
        os.utime(path, (old_s, old_s))
    os.utime(tmp_path / "logs" / "run", (old_s, old_s))
    assert retention.delete_old_logs(tmp_path, keep_days=30.0) == 0
    assert retention.delete_old_logs(tmp_path, keep_days=5.0) == 3
    left = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file())
    assert left == ["daemon.log", "logs/new/x"]
