"""Commands over many nights: workers that die, hang or are interrupted, and what is left after."""

import contextlib
import dataclasses
import datetime as dt
import os
import signal
import subprocess
import sys
import time
from functools import partial

import dagster as dg
import pytest
from click.testing import CliRunner
from dagster import AssetKey, DagsterInstance, DagsterRunStatus
from dagster._core.instance.ref import InstanceRef

from wombat_dagster import config, orphans, progress, runs
from wombat_dagster.catalogs.breaker import Breaker, away
from wombat_dagster.cli import main
from wombat_dagster.domain import Apphot
from wombat_dagster.store.stage_runs import FAILED, StageRuns
from wombat_dagster.workers import Workers

NIGHT = dt.date(2025, 10, 14)
KEYS = tuple(f"20251014__SV_Wom__{band}" for band in "BV")
HANGS = """
import os, sys, time
if "wombat_dagster.workers" in " ".join(sys.orig_argv):
    from wombat_dagster.assets import conclude as module
    real, flag = module.conclude, os.environ["TEST_FLAG"]

    def conclude(context, observatory, make, describe):
        def hindered():
            if context.asset_key.to_user_string() == "reduced_frames" and os.path.exists(flag):
                %s
            return make()
        return real(context, observatory, hindered, describe)

    module.conclude = conclude
"""


@pytest.fixture
def night(place, monkeypatch):
    """A night of one target in two filters, and its place as the command would find it."""
    place.take("20251014/**/*.fit")
    monkeypatch.setenv(config.CONFIG_ENV, str(place.root / config.CONFIG_NAME))
    monkeypatch.setenv("DAGSTER_HOME", "")
    monkeypatch.setenv("COLUMNS", "160")
    return place


@pytest.fixture
def hinder(place, monkeypatch):
    """Return what makes workers do something else in place of reducing, while a flag is there."""
    site, flag = place.root / "site", place.root / "flag"
    site.mkdir(parents=True)
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.setenv("TEST_FLAG", str(flag))

    def hinder(deed):
        (site / "sitecustomize.py").write_text(HANGS % deed)
        flag.touch()
        return flag

    return hinder


def wombat(*arguments):
    return CliRunner().invoke(main, [*map(str, arguments)])


def wait_for(file):
    deadline = time.monotonic() + 300
    while not file.exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def words(place):
    return {row.observation.key: row.apphot for row in place.rows}


def test_a_backfill_by_two_workers_ends_as_a_run_and_a_second_one_does_nothing(night):
    ended = wombat("backfill", "--workers", 2)
    assert ended.exit_code == 0, ended.output
    assert words(night) == dict.fromkeys(KEYS, Apphot.VALIDATE)
    assert "2 of 2 observations waiting for validation" in ended.stdout
    for command in ("backfill", "run"):
        again = wombat(command)
        assert (again.exit_code, again.stdout) == (0, "Nothing to do.\n")
    assert night.leftovers() == []
    # From a stage on: what was solved stays, what is after is made again.
    before = {key: StageRuns(night.observatory.status.path).latest(key)[key] for key in KEYS}
    ended = wombat("backfill", "--stage", "measuring", "--workers", 1)
    assert ended.exit_code == 0, ended.output
    for key in KEYS:
        after = StageRuns(night.observatory.status.path).latest(key)[key]
        remade = {asset for asset in after if after[asset].number != before[key][asset].number}
        assert remade == {
            "photometry_table", "standard_magnitudes", "light_curve", "diagnostics",
        } | (remade & {"frame_triage"})  # fmt: skip


def test_a_worker_that_is_killed_costs_its_task_which_is_tried_once_more(night, hinder):
    flag = hinder("os.remove(flag); os.kill(os.getpid(), 9)")
    ended = wombat("backfill", "--workers", 2)
    assert ended.exit_code == 0, ended.output
    assert not flag.exists()
    assert words(night) == dict.fromkeys(KEYS, Apphot.VALIDATE)
    with runs.home(night.root) as instance:
        failed = [run for run in instance.get_runs() if run.status is DagsterRunStatus.FAILURE]
        assert len(failed) == 1
        messages = [entry.message for entry in instance.all_logs(failed[0].run_id)]
    assert any("killed by SIGKILL" in message for message in messages)


def test_what_takes_too_long_is_ended_and_named(night, hinder):
    """The limit is set to nothing when the first observation is known to hang."""
    assert night.run_night(NIGHT) == {}
    flag = hinder("open(flag + '.reached', 'w'); time.sleep(600)")

    def lower(_key, asset):
        if asset == "reduced_frames":
            wait_for(flag.with_name("flag.reached"))
            workers.time_limit_s = 0.5

    with night.in_force(), runs.home(night.root) as instance:
        workers = Workers(instance, night.root, n=1, time_limit_s=600.0, on_step=lower)
        (row,) = [row for row in night.rows if row.observation.key == KEYS[0]]
        with workers:
            planned = runs.Plan(nights=(), observations=(row,))
            (done,) = runs.execute(instance, planned, crew=workers)
        words = "not done within 0.5 s ([runs] time_limit_s)"
        assert (done.key, done.error) == (KEYS[0], words)
        assert instance.get_run_by_id(done.run_id).status is DagsterRunStatus.FAILURE
        assert any(words in entry.message for entry in instance.all_logs(done.run_id))
    stage = _stages(night, KEYS[0])["reduced_frames"]
    assert (stage.ending, stage.reason) == (FAILED, words)


def started(night, *arguments):
    command = [sys.executable, "-m", "wombat_dagster.cli", *arguments]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=night.root,
        # These tests may run in the background of a shell, where Ctrl-C is ignored.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip


def test_ctrl_c_ends_a_backfill_soon_and_the_same_command_goes_on(night, hinder):
    flag = hinder("open(flag + '.reached', 'w'); time.sleep(600)")
    process = started(night, "backfill", "--workers", "2")
    wait_for(flag.with_name("flag.reached"))
    begin = time.monotonic()
    process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "The same command goes on with what is left." in output
    assert time.monotonic() - begin < 60  # seconds, on a machine with nothing else to do
    with runs.home(night.root) as instance:
        assert all(run.is_finished for run in instance.get_runs())
    assert night.leftovers() == []
    flag.unlink()
    ended = wombat("backfill", "--workers", 1)
    assert ended.exit_code == 0, ended.output
    assert words(night) == dict.fromkeys(KEYS, Apphot.VALIDATE)


def test_a_dry_backfill_says_why_and_writes_nothing(night):
    before = sorted(night.root.rglob("*"))
    ended = wombat("backfill", "--dry-run", "--nights", "..20251020")
    assert ended.exit_code == 0, ended.output
    assert "new: never begun" in ended.stdout
    assert "Dry run: 1 night, 2 observations; nothing was written." in ended.stdout
    assert sorted(night.root.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--nights", "20251016..20251014"], "comes before"),
        (["--nights", "tonight"], "is no night"),
        (["--stage", "mesuring"], "is no stage: raw_frames"),
        (["--nights", "20240101"], "no such night"),
        (["--target", "TX Eri"], "there: SV Wom"),
    ],
)
def test_what_cannot_be_meant_is_refused(night, arguments, said):
    ended = wombat("backfill", "--dry-run", *arguments)
    assert ended.exit_code == 2
    assert said in ended.output


def test_masters_that_were_made_are_not_made_again(night):
    """Neither by what is left of the observations, nor by late frames of one filter."""
    assert night.run() == {}
    numbers = {k: o.number for k, o in _stages(night, "20251014").items()}
    night.take("20251015/Light/*/*V.fit")
    with night.in_force() as observatory:
        assert runs.plan(observatory).nights == ("20251015",)
    assert night.run() == {}
    assert {k: o.number for k, o in _stages(night, "20251014").items()} == numbers


def _stages(place, key):
    return StageRuns(place.observatory.status.path).latest(key)[key]


def test_what_a_person_decided_on_is_named_and_left(night):
    assert night.run() == {}
    database = night.observatory.status
    with database._writing() as connection:
        connection.execute("UPDATE target SET submitted = 'approved' WHERE key = ?", (KEYS[0],))
    for light in sorted((night.data / "20251014").glob("Light/*/*.fit"))[-2:]:
        light.unlink()  # one of each filter, or two of one
    with night.in_force() as observatory:
        planned = [row.observation.key for row in runs.plan(observatory).observations]
    changed = {row.observation.key for row in night.rows if row.changed_since}
    assert KEYS[0] not in planned
    assert changed <= {KEYS[0]}
    assert changed | set(planned)
    with database._writing() as connection:
        connection.execute("UPDATE target SET changed_since = 'a word' WHERE key = ?", (KEYS[0],))
    for words in (("run", "20251014"), ("backfill", "--stage", "standard_magnitudes")):
        dry = wombat(*words, "--dry-run").stdout
        assert "approved: made again because you ask" in " ".join(dry.split())
        assert "left as they were" not in dry
    assert "left as they were" in wombat("run", "--dry-run").stdout
    again = wombat("run", "20251014", "SV Wom")
    assert "1 of 2 observations waiting for validation" in again.output
    assert "made again though decided: 1 approved" in again.output


def test_a_row_deleted_after_the_plan_costs_its_own_run_alone(night):
    with night.in_force() as observatory:
        observatory.scan()
        planned = runs.plan(observatory)
        with observatory.status._writing() as connection:
            connection.execute("DELETE FROM target WHERE key = ?", (KEYS[0],))
        planned = dataclasses.replace(planned, nights=(), scope=None)
        with runs.home(night.root) as instance:
            done = {one.key: one for one in runs.execute(instance, planned)}
            (run,) = instance.get_runs(dg.RunsFilter(tags={"dagster/partition": KEYS[1]}))
    assert set(done) == set(KEYS)
    assert done[KEYS[0]].error
    assert done[KEYS[1]].error is None
    assert run.tags["dagster/max_retries"] == "0"


def test_what_waits_for_a_night_at_work_elsewhere_is_no_failure(night, capsys):
    """The masters of the night are being made by somebody else."""
    with night.in_force() as observatory:
        observatory.scan()
        stages = StageRuns(observatory.status.path)
        stages.begin("20251014", "raw_frames", inputs={}, run_id="another", why="new")
    planned = runs.Plan(nights=(), observations=(), scope=runs.Scope())
    with night.in_force() as observatory, runs.home(night.root) as instance:
        done = runs.execute(instance, planned, busy={"20251014"})
        assert [(one.key, one.error) for one in done] == [(key, None) for key in KEYS]
        assert all("20251014" in one.left for one in done)
        progress._print_endings(observatory, done)
        said = capsys.readouterr().out
        assert f"At work elsewhere: {KEYS[0]} waits for the masters of 20251014" in said
        assert "2 wait for a night at work elsewhere" in said
        assert "failed" not in said
        abandoned = runs.execute(instance, planned)
    assert all(one.error is None and not one.left for one in abandoned)  # made now


def test_vizier_is_asked_too_while_it_stands_in_for_vsp(place):
    place.forget_services()
    aavso = f'vizier_url = "{place.aavso.vizier_url}"'
    place.configure(aavso=aavso, comps='fallback = "apass"')
    place.aavso.fail("vsp", "500")
    try:
        observatory = place.observatory
        for name in ("VSP", "VizieR"):
            Breaker(name, observatory.layout.cache, observatory.settings.aavso).failed("HTTP 500")
        runs.ask_services(observatory)
        assert away(observatory.layout.cache, "VSP") is not None
        assert away(observatory.layout.cache, "VizieR") is None
    finally:
        place.aavso.fail("vsp", "none")


def test_a_run_begins_by_deleting_what_killed_writers_left_and_ends_by_forgetting(
    night, monkeypatch
):
    monkeypatch.setattr("tempfile.tempdir", str(night.root))
    left = night.root / "products" / "20251014" / ".frame.fits.0123abcd.tmp"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half a")
    os.utime(left, (1e9, 1e9))
    asked = []
    monkeypatch.setattr(
        "wombat_dagster.retention.prune",
        lambda _instance, *, keep_days: iter(asked.append(keep_days) or range(1000)),
    )
    planned = runs.Plan(nights=("20251014",), observations=())
    with night.in_force() as observatory:
        observatory.scan()
        assert progress.carry_out(observatory, planned) == 0
    assert not left.exists()
    assert asked == [night.observatory.settings.runs.keep_days]


def test_a_signal_that_dagster_swallows_is_noticed():
    """The handler in place does nothing with it, as Dagster's does between two steps."""
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        with runs._noticing_interrupts() as interrupted:
            assert not interrupted()
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.05)
        assert interrupted()
        with runs._noticing_interrupts() as interrupted:
            pass
        assert not interrupted()
    finally:
        signal.signal(signal.SIGINT, before)


def test_what_is_written_through_open_connections_is_dagster_s_own(night):
    """An instance without ours reads every event; a new Dagster that no longer fits fails here."""
    with night.in_force() as observatory, runs.home(night.root) as instance:
        assert type(instance.event_log_storage).__name__ == "_WarmEvents"
        observatory.scan()
        done = [
            runs.execute(instance, runs.Plan(nights=("20251014",), observations=()))[0]
            for _ in range(3)
        ]
        written = [[entry.message for entry in instance.all_logs(one.run_id)] for one in done]
    state = night.root / orphans.STATE
    dagster_s = night.root / "dagster's"
    dagster_s.mkdir()
    (dagster_s / "dagster.yaml").write_text(f"storage: {{sqlite: {{base_dir: '{state}'}}}}\n")
    reference = InstanceRef.from_dir(str(dagster_s))
    with contextlib.chdir(night.root), DagsterInstance.from_ref(reference) as plain:
        assert type(plain.event_log_storage).__name__ == "SqliteEventLogStorage"
        read = [[entry.message for entry in plain.all_logs(one.run_id)] for one in done]
        assert plain.get_materialized_partitions(AssetKey("master_bias")) == {"20251014"}
        assert len(plain.get_runs()) == 3
    assert read == written
    assert min(map(len, read)) > 20


def test_words_of_a_worker_that_cannot_begin(night, hinder, monkeypatch):
    (night.root / "site" / "sitecustomize.py").write_text("import os; os._exit(3)")
    with runs.home(night.root) as instance:
        workers = Workers(instance, night.root, n=1, time_limit_s=10.0)
        task = runs.Task(job="night_job", key="20251014", why="", once="")
        with workers, pytest.raises(Exception, match="before its first task, exit code 3"):
            workers.work([task], lambda *_: None)
