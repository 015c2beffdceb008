"""Runs the asset graph without the UI: the same jobs, the same events, the same partitions.

A command plans (`plan`, `from_stage`, `with_word`) and executes (`execute`). What is due
`stages.due` says; here it is done until nothing is due any more, everything at most once for the
same reason. Who does the work is a `Crew`: this process (`Alone`), or several (`workers.Workers`).
"""

import contextlib
import datetime as dt
import logging
import os
import signal
import socket
import sqlite3
import tempfile
import threading
import uuid
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Protocol

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter
from dagster._core.instance.ref import InstanceRef
from dagster._core.storage.tags import PARTITION_NAME_TAG

from wombat_dagster import config, orphans
from wombat_dagster.domain import Apphot, Observation, Shortfall
from wombat_dagster.observatory import Observatory, open_observatory
from wombat_dagster.partitions import NIGHTS, OBSERVATIONS, date_of_night
from wombat_dagster.products import PRODUCTS
from wombat_dagster.stages.choice import choose_calibration
from wombat_dagster.stages.due import due_nights, due_observations, parked
from wombat_dagster.stages.inputs import nights_on_disk
from wombat_dagster.stages.work import (
    MAGNITUDES_JOB,
    MAX_TAG,
    NIGHT_JOB,
    OBSERVATION_JOB,
    STARS_JOB,
    WHY_TAG,
    Due,
)
from wombat_dagster.store import schema
from wombat_dagster.store.frames import write_bytes_atomic
from wombat_dagster.store.locks import held
from wombat_dagster.store.stage_runs import StageRun, StageRuns
from wombat_dagster.store.status import TargetRow
from wombat_dagster.terminal import is_called
from wombat_dagster.warm_storage import with_warm_storage

log = logging.getLogger(__name__)

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
NO_CAPTURE = {
    "module": "dagster._core.storage.noop_compute_log_manager",
    "class": "NoOpComputeLogManager",
}
DAGSTER_YAML = "dagster.yaml"
BY_HAND = "asked for by a person"
MAX_RETRIES_TAG = "dagster/max_retries"
MAX_TIMES = 5  # one job of one partition in one command, whatever new reasons there are
AT_WORK = [DagsterRunStatus.STARTING, DagsterRunStatus.STARTED, DagsterRunStatus.CANCELING]
WAITING = [DagsterRunStatus.QUEUED, DagsterRunStatus.NOT_STARTED]
SERVICES = (Apphot.VSXDOWN, Apphot.NOVSP)
"""Words of who waits for a service."""


# ----------------------------------------------------------------------------------- what to do


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One run: `job` for the partition `key`, of the job's assets only `assets` unless empty.

    `why` reaches people. `once` is another text when there is another reason.
    """

    job: str
    key: str
    why: str
    once: str
    assets: tuple[str, ...] = ()

    @classmethod
    def of(cls, due: Due) -> "Task":
        """Return the task that does what is due."""
        return cls(job=due.job, key=due.key, why=due.reason, once=due.signature)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What a command may touch: nights from `first` to `last`, one target; None: all."""

    first: dt.date | None = None
    last: dt.date | None = None
    target: str | None = None

    def has_night(self, date: dt.date) -> bool:
        """Tell whether a night is within."""
        return (self.first is None or self.first <= date) and (
            self.last is None or date <= self.last
        )

    def has(self, one: Observation) -> bool:
        """Tell whether an observation is within."""
        wanted = self.target is None or is_called(one, self.target)
        return wanted and self.has_night(one.date)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a command would do, in order: night keys, then rows of observations.

    `tasks` says by key what is to be done and why; whatever has none there is made whole, asked for
    by a person. With a `scope` everything follows that becomes due in it; without one only the
    magnitudes of the observations' sibling filters.
    """

    nights: tuple[str, ...]
    observations: tuple[TargetRow, ...]
    tasks: Mapping[str, Task] = field(default_factory=dict)
    scope: Scope | None = None
    parked: Mapping[Apphot, str] = field(default_factory=dict)
    """Who waits on for a service that is away, in words."""

    def task(self, key: str) -> Task:
        """Return what is to be done for a key of the plan."""
        whole = OBSERVATION_JOB if "__" in key else NIGHT_JOB
        return self.tasks.get(key) or Task(job=whole, key=key, why=BY_HAND, once=BY_HAND)


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How one partition ended. `error` is set only when wombat itself failed.

    The traceback is in the Dagster UI, under `run_id`. `only_magnitudes`: of an observation that
    was measured before, the magnitudes alone were made anew. `may_be_tried`: another try, now, may
    end better. `left`: why it was not begun, which is nobody's fault.
    """

    key: str
    error: str | None
    run_id: str
    only_magnitudes: bool = False
    may_be_tried: bool = True
    left: str | None = None


def plan(
    observatory: Observatory, *, night: dt.date | None = None, target: str | None = None
) -> Plan:
    """Look at the data directory and return what is to be done.

    Without `night` everything that is due; with it everything of that night (and target), due or
    not.
    """
    if night is None:
        return plan_due(observatory, Scope())
    observatory.scan()
    scope = Scope(first=night, last=night, target=target)
    nights = [key for key in observatory.status.night_keys() if date_of_night(key) == night]
    return Plan(nights=tuple(nights), observations=tuple(_rows(observatory, scope)))


def plan_due(observatory: Observatory, scope: Scope, *, busy: Collection[str] = ()) -> Plan:
    """Look at the data directory and return what is due within `scope`.

    `busy` are partitions that somebody else works on. Who waits for a service belongs to it, as
    long as the service is not known to be away (`ask_services`).
    """
    observatory.scan()
    nights = _due_nights(observatory, scope, busy)
    found = _due_observations(observatory, scope, busy)
    tasks = {task.key: task for task in (*nights, *found.tasks)}
    return Plan(
        nights=tuple(task.key for task in nights),
        observations=tuple(r for r in _rows(observatory, scope) if r.observation.key in tasks),
        tasks=tasks,
        scope=scope,
        parked=found.parked,
    )


def from_stage(observatory: Observatory, scope: Scope, stage: str) -> Plan:
    """Return the plan that makes everything within `scope` again from one stage on.

    Observations that ended before that stage are not in it. After a stage of the nights, whatever
    the new masters make due follows.
    """
    from wombat_dagster.jobs import NIGHT_ASSETS, OBSERVATION_ASSETS

    observatory.scan()
    latest = StageRuns(observatory.status.path).latest()
    of_nights = stage in NIGHT_ASSETS
    chain = NIGHT_ASSETS if of_nights else OBSERVATION_ASSETS
    assets = chain[chain.index(stage) :]
    job = NIGHT_JOB if of_nights else OBSERVATION_JOB

    def task(key: str) -> Task:
        return Task(
            job=job, key=key, why=f"{BY_HAND}: from {stage} on", once=BY_HAND, assets=assets
        )

    if of_nights:
        nights = [
            key for key in observatory.status.night_keys() if scope.has_night(date_of_night(key))
        ]
        return Plan(
            nights=tuple(nights),
            observations=(),
            tasks={key: task(key) for key in nights},
            scope=scope,
        )
    rows = [
        row
        for row in _rows(observatory, scope)
        if _reached(latest.get(row.observation.key, {}), OBSERVATION_ASSETS) >= chain.index(stage)
        and _are_there(observatory, row.observation.key, chain[: chain.index(stage)])
    ]
    return Plan(
        nights=(),
        observations=tuple(rows),
        tasks={row.observation.key: task(row.observation.key) for row in rows},
    )


def with_word(observatory: Observatory, word: str) -> Plan:
    """Return the plan that runs exactly the observations whose `proc` or `apphot` is `word`.

    What was reduced and solved stays where they came further than that. Of a service's word those
    that were measured by another catalogue meanwhile belong to it.
    """
    from wombat_dagster.jobs import OBSERVATION_ASSETS

    if word in SERVICES:
        keys = {one.key for one in parked(observatory, Apphot(word))}
        rows = [row for row in observatory.status.targets() if row.observation.key in keys]
    else:
        rows = [
            row
            for row in observatory.status.targets()
            if word in (row.proc, row.apphot) and row.retired_utc is None
        ]
    latest = StageRuns(observatory.status.path).latest()
    solved = OBSERVATION_ASSETS.index("variable")
    tasks = {}
    for row in rows:
        key = row.observation.key
        came_far = _reached(latest.get(key, {}), OBSERVATION_ASSETS) >= solved
        job = STARS_JOB if came_far and _is_solved(observatory, key) else OBSERVATION_JOB
        tasks[key] = Task(job=job, key=key, why=f"{BY_HAND}: {word}", once=BY_HAND)
    return Plan(nights=(), observations=tuple(rows), tasks=tasks)


def _reached(stages: Mapping[str, StageRun], chain: Sequence[str]) -> int:
    """Return the place in `chain` of the stage that was begun last, -1 when none was."""
    begun = {asset: one.number for asset, one in stages.items() if asset in chain}
    return chain.index(max(begun, key=begun.__getitem__)) if begun else -1


def _is_solved(observatory: Observatory, key: str) -> bool:
    return _are_there(observatory, key, ("calibration_choice", "reduced_frames", "wcs_solutions"))


def _are_there(observatory: Observatory, key: str, assets: Sequence[str]) -> bool:
    return all(PRODUCTS[asset].path(observatory.layout, key).exists() for asset in assets)


def _rows(observatory: Observatory, scope: Scope) -> list[TargetRow]:
    return [
        row
        for row in observatory.status.targets()
        if scope.has(row.observation) and row.retired_utc is None
    ]


# ---------------------------------------------------------------------------------- what is due


def _due_nights(observatory: Observatory, scope: Scope, busy: Collection[str]) -> list[Task]:
    there = {
        key: night
        for key, night in nights_on_disk(observatory).items()
        if scope.has_night(date_of_night(key))
    }
    found = due_nights(observatory, on_disk=there, busy=busy, by_hand=True)
    return [Task.of(due) for due in found]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What is due of the observations, and what is not, in words."""

    tasks: Sequence[Task]
    unbegun: Mapping[str, Task]
    """What waits for masters that could not be made; `why` says for which."""
    parked: Mapping[Apphot, str]


def _due_observations(observatory: Observatory, scope: Scope, busy: Collection[str]) -> _Found:
    """Look what is due; what changed since a person decided is written into the status."""
    outlook = due_observations(observatory, busy=busy, check_for_s=None, by_hand=True)
    observatory.status.record_changed_since(outlook.changed_since)
    within = {
        row.observation.key
        for row in observatory.status.targets()
        if scope.has(row.observation) and row.observation.key not in busy
    }
    tasks = {due.key: Task.of(due) for due in outlook.due if due.key in within}
    unbegun = {
        key: Task(job=OBSERVATION_JOB, key=key, why=words, once=words)
        for key, words in outlook.waiting.items()
        if key in within
    }
    waiting = {}
    for word in SERVICES:
        keys = {one.key for one in parked(observatory, word)} & within - {*tasks, *unbegun}
        if not keys:
            continue
        service = observatory.vsp if word is Apphot.NOVSP else observatory.vsx
        known = service.away()
        if known is not None:
            waiting[word] = f"{len(keys)} {word}: {known.sentence()}"
            continue
        for key in sorted(keys):
            job = STARS_JOB if _is_solved(observatory, key) else OBSERVATION_JOB
            tasks[key] = Task(job=job, key=key, why=f"parked: {word}", once=word)
    return _Found(tasks=list(tasks.values()), unbegun=unbegun, parked=waiting)


def ask_services(observatory: Observatory) -> None:
    """Ask the services that are known to be away whether they are back: a person is waiting."""
    for service in (observatory.vsx, observatory.vsp):
        if service.away() is not None:
            service.probe()
    fallback = observatory.settings.comps.fallback
    if fallback != "off" and observatory.vsp.away() is not None:
        from wombat_dagster.catalogs.vizier import Vizier

        vizier = Vizier(observatory.settings.aavso, observatory.layout.cache, fallback)
        if vizier.away() is not None:
            vizier.probe()


def busy_elsewhere(instance: dg.DagsterInstance, base: Path) -> set[str]:
    """Return the partitions with a run that is not over: of ``wombat up``, of another terminal.

    Runs whose process is gone are reported as failed first. What is queued counts while there is a
    daemon to begin it.
    """
    orphans.settle(instance, base)
    up = orphans.last_up(base)
    statuses = AT_WORK + (WAITING if up is not None and up.lives else [])
    runs = instance.get_runs(RunsFilter(statuses=statuses))
    return {run.tags[PARTITION_NAME_TAG] for run in runs if PARTITION_NAME_TAG in run.tags}


# ------------------------------------------------------------------------------------- the home


@contextlib.contextmanager
def home(base: Path) -> Iterator[dg.DagsterInstance]:
    """Work in `base`, the directory of ``wombat.toml``, and give its Dagster instance.

    ``dagster.yaml`` there names places relative to it; one is made when there is none. What steps
    write to the terminal is not captured: it would cost four processes a run, which a Ctrl-C hits.
    """
    prepare_home(base)
    with contextlib.chdir(base):
        reference = InstanceRef.from_dir(str(base), overrides={"compute_logs": NO_CAPTURE})
        # Two programs that make Dagster's databases at once spoil them for good.
        with held(base / orphans.STATE / ".lock"):
            instance = dg.DagsterInstance.from_ref(with_warm_storage(reference))
            _ = instance.run_storage, instance.event_log_storage, instance.schedule_storage
        with instance:
            yield instance


def prepare_home(base: Path) -> None:
    """Make `base` a Dagster home and point this process, and its children, to it."""
    instance_file = base / DAGSTER_YAML
    if not instance_file.exists():
        template = Path(__file__).parent / DAGSTER_YAML
        write_bytes_atomic(instance_file, template.read_bytes())
    os.environ["DAGSTER_HOME"] = str(base)
    if (base / config.CONFIG_NAME).exists() and config.CONFIG_ENV not in os.environ:
        os.environ[config.CONFIG_ENV] = str(base / config.CONFIG_NAME)


@contextlib.contextmanager
def rehearsal(settings: config.Settings) -> Iterator[Observatory]:
    """Give an observatory whose database is a copy that is thrown away: nothing is recorded."""
    real = settings.path(settings.database)
    with tempfile.TemporaryDirectory(prefix="wombat_rehearsal_") as folder:
        copy = Path(folder) / real.name
        if real.exists():
            with (
                contextlib.closing(schema.connect(real)) as source,
                contextlib.closing(sqlite3.connect(copy)) as target,
            ):
                source.backup(target)
        yield Observatory(settings.model_copy(update={"database": copy}))


def register(
    instance: dg.DagsterInstance, observatory: Observatory, *, planned: Collection[str] = ()
) -> None:
    """Make every night and observation known a partition, and the keys `planned`.

    The row of one of these may be gone by now: then its run fails alone, and says so.
    """
    for definition, known, are_observations in (
        (NIGHTS, observatory.status.night_keys(), False),
        (OBSERVATIONS, [row.observation.key for row in observatory.status.targets()], True),
    ):
        assert definition.name is not None
        keys = {*known, *(key for key in planned if ("__" in key) == are_observations)}
        new = keys - set(instance.get_dynamic_partitions(definition.name))
        if new:
            instance.add_dynamic_partitions(definition.name, sorted(new))


# ------------------------------------------------------------------------------------ the doing


class Crew(Protocol):
    """Who carries out tasks."""

    tries: int
    """How often a task is begun when it fails for our reasons."""

    def work(self, tasks: Sequence[Task], on_done: Callable[[Task, Done], None]) -> None:
        """Carry out `tasks`, begun in their order; `on_done` hears how each ended."""


class Alone:
    """The process itself, one task at a time. An interrupt (Ctrl-C) ends the task at work."""

    tries = 1

    def __init__(
        self,
        instance: dg.DagsterInstance,
        on_step: Callable[[str, str], None] = lambda _key, _asset: None,
    ) -> None:
        self._instance, self._on_step = instance, on_step

    def work(self, tasks: Sequence[Task], on_done: Callable[[Task, Done], None]) -> None:
        """Carry out `tasks` one after the other."""
        for task in tasks:
            on_done(task, execute_task(self._instance, task, self._on_step))


def execute(
    instance: dg.DagsterInstance,
    planned: Plan,
    *,
    crew: Crew | None = None,
    on_step: Callable[[str, str], None] = lambda _key, _asset: None,
    on_done: Callable[[Done], None] = lambda _done: None,
    busy: Collection[str] = (),
) -> list[Done]:
    """Carry out a plan and what follows of it, all nights before the first observation.

    `on_step` hears the partition key and the asset whenever one begins in this process, `on_done`
    how each ended. An interrupt (Ctrl-C) ends the partitions at work, recorded as failed in
    Dagster, and is raised.
    """
    if planned.scope is None and planned.observations:
        ask_services(open_observatory())
    command = _Command(instance, crew or Alone(instance, on_step), on_done, busy)
    command.carry_out(planned)
    return list(command.done.values())


class _Command:
    """One command at work: what was begun, how it ended, what is to follow."""

    def __init__(
        self,
        instance: dg.DagsterInstance,
        crew: Crew,
        on_done: Callable[[Done], None],
        busy: Collection[str],
    ) -> None:
        self.done: dict[str, Done] = {}
        self._instance, self._crew, self._on_done, self._busy = instance, crew, on_done, busy
        self._begun: set[tuple[str, str, str]] = set()
        self._times: Counter[tuple[str, str]] = Counter()
        self._failed: dict[str, Task] = {}
        self._answers: dict[str, bool] = {}

    def carry_out(self, planned: Plan) -> None:
        for n_try in range(self._crew.tries):
            if n_try == 0:
                self._asked_for(planned)
            else:
                again = {k: t for k, t in self._failed.items() if self._is_worth_a_try(k)}
                if not again:
                    return
                self._failed = {k: t for k, t in self._failed.items() if k not in again}
                self._nights([t for t in again.values() if t.job == NIGHT_JOB], is_again=True)
                self._observations([t for t in again.values() if t.job != NIGHT_JOB], is_again=True)
            if planned.scope is not None:
                self._whatever_is_due(planned.scope)
            else:
                self._magnitudes_of_siblings(planned)

    def _is_worth_a_try(self, key: str) -> bool:
        return self.done[key].may_be_tried

    def _asked_for(self, planned: Plan) -> None:
        self._nights([planned.task(key) for key in planned.nights])
        if planned.scope is not None and planned.nights:
            return  # what is due of the observations is another thing by now
        if planned.scope is None:
            self._borrowing_nights(planned.nights)
        self._observations([planned.task(row.observation.key) for row in planned.observations])

    def _borrowing_nights(self, keys: Collection[str]) -> None:
        """Make nights again that borrow from one that was made after them."""
        while len(keys) > 1:
            tasks = _due_nights(open_observatory(), Scope(), self._busy)
            if not self._nights([task for task in tasks if task.key in keys]):
                return

    def _whatever_is_due(self, scope: Scope) -> None:
        while True:
            while self._nights(_due_nights(open_observatory(), scope, self._busy)):
                pass
            found = _due_observations(open_observatory(), scope, self._busy)
            for task in self._new(list(found.unbegun.values())):
                self._ended(task, self._not_begun(task))
            if not self._observations(found.tasks):
                return

    def _not_begun(self, task: Task) -> Done:
        """Return how it ended for what waits for masters: of a night at work it is no failure."""
        nights = [key for key in self._busy if "__" not in key]
        if any(night in task.why for night in nights):
            return Done(key=task.key, error=None, run_id="", left=task.why)
        return Done(key=task.key, error=f"not begun: {task.why}", run_id="")

    def _magnitudes_of_siblings(self, planned: Plan) -> None:
        """Two filters tell a colour: whoever was measured first gets its magnitudes again."""
        units = {(row.observation.date, row.observation.target) for row in planned.observations}
        while units:
            observatory = open_observatory()
            tasks = _due_observations(observatory, Scope(), self._busy).tasks
            rows = {row.observation.key: row.observation for row in observatory.status.targets()}
            wanted = [
                task
                for task in tasks
                if task.job == MAGNITUDES_JOB
                and (rows[task.key].date, rows[task.key].target) in units
            ]
            if not self._observations(wanted):
                return

    def _nights(self, tasks: Sequence[Task], *, is_again: bool = False) -> bool:
        return self._work(self._new(tasks, is_again=is_again))

    def _observations(self, tasks: Sequence[Task], *, is_again: bool = False) -> bool:
        """Carry out what need not wait for masters that failed; tell whether there was any."""
        failed = sorted(key for key, task in self._failed.items() if task.job == NIGHT_JOB)
        ready = []
        for task in self._new(tasks, is_again=is_again):
            if failed and task.job == OBSERVATION_JOB and _waits_for(failed, task.key):
                words = f"not begun: the masters of {', '.join(failed)} failed"
                self._ended(task, Done(key=task.key, error=words, run_id=""))
            elif self._is_answered(task):
                ready.append(task)
        return self._work(ready)

    def _is_answered(self, task: Task) -> bool:
        """Tell whether the service that a task waits for is back; asked once in a command."""
        word = task.once
        if word in SERVICES and word not in self._answers:
            observatory = open_observatory()
            service = observatory.vsp if word == Apphot.NOVSP else observatory.vsx
            self._answers[word] = service.probe()
        return self._answers.get(word, True)

    def _new(self, tasks: Sequence[Task], *, is_again: bool = False) -> list[Task]:
        """Return what was not begun for the same reason, and did not fail, in this command."""
        found = []
        for task in tasks:
            reason = (task.key, task.job, task.once)
            if task.key in self._failed or (reason in self._begun and not is_again):
                continue
            if self._times[task.key, task.job] >= MAX_TIMES:
                log.warning("%s %s is left: %s once more", task.job, task.key, task.why)
                continue
            self._begun.add(reason)
            self._times[task.key, task.job] += 1
            found.append(task)
        return found

    def _work(self, tasks: Sequence[Task]) -> bool:
        if tasks:
            keys = [task.key for task in tasks]
            register(self._instance, open_observatory(), planned=keys)
            self._crew.work(tasks, self._ended)
        return bool(tasks)

    def _ended(self, task: Task, done: Done) -> None:
        if done.error:
            self._failed[task.key] = task
        known = self.done.get(task.key)
        if task.job == MAGNITUDES_JOB:
            done = replace(done, only_magnitudes=known is None or known.only_magnitudes)
        if task.job == NIGHT_JOB and known is not None and not done.error and not known.error:
            return  # once more, for what it borrows
        is_first = known is None or bool(known.error)
        self.done[task.key] = done
        if is_first or done.error:
            self._on_done(done)


def _waits_for(failed_nights: Collection[str], key: str) -> bool:
    """Tell whether masters that could not be made may be the ones an observation wants.

    Measured without them it would look as if none had been taken.
    """
    if key.partition("__")[0] in failed_nights:
        return True
    observatory = open_observatory()
    try:
        observation = observatory.status.target_row(key).observation
        return bool(choose_calibration(observatory, observation).missing)
    except Shortfall:
        return False


# ------------------------------------------------------------------------------------- one task


@cache
def _job(name: str) -> dg.JobDefinition:
    from wombat_dagster.definitions import defs

    return defs.resolve_job_def(name)


def warm_up() -> None:
    """Load what every run needs, so that the first one is as quick as the others."""
    for name in (NIGHT_JOB, OBSERVATION_JOB, STARS_JOB, MAGNITUDES_JOB):
        _job(name)


def execute_task(
    instance: dg.DagsterInstance,
    task: Task,
    on_step: Callable[[str, str], None],
    *,
    run_id: str | None = None,
) -> Done:
    """Carry out one task in this process; raises KeyboardInterrupt when it was interrupted."""
    run_id = run_id or str(uuid.uuid4())
    instance.add_event_listener(run_id, _step_listener(task.key, on_step))
    with warnings.catch_warnings(), _noticing_interrupts() as was_interrupted:
        warnings.simplefilter("ignore", dg.BetaWarning)  # DataVersion on Output
        result = _job(task.job).execute_in_process(
            partition_key=task.key,
            instance=instance,
            run_config=QUIET,
            raise_on_error=False,
            run_id=run_id,
            tags={
                WHY_TAG: task.why[:MAX_TAG],
                orphans.RUN_TAG: _this_process(),
                MAX_RETRIES_TAG: "0",  # a daemon would begin it again: the command itself does
            },
            asset_selection=[dg.AssetKey(asset) for asset in task.assets] or None,
        )
    if was_interrupted() or _was_interrupted(result):
        raise KeyboardInterrupt
    error = None if result.success else _failure(result)
    if error:
        log.error("%s %s: %s", task.job, task.key, error)
    return Done(key=task.key, error=error, run_id=run_id)


@cache
def _this_process() -> str:
    return orphans.this_process()


@contextlib.contextmanager
def _noticing_interrupts() -> Iterator[Callable[[], bool]]:
    """Give what tells whether SIGINT or SIGTERM came meanwhile, whoever handled it.

    Dagster puts handlers of its own in place and forgets what reached one of them between two steps
    (`dagster._utils.interrupts.capture_interrupts`): Python's wake-up socket hears every signal.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    heard = bytearray()
    before = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)

    def interrupted() -> bool:
        return bool({signal.SIGINT, signal.SIGTERM} & set(heard))

    try:
        yield interrupted
    finally:
        signal.set_wakeup_fd(before)
        with contextlib.suppress(BlockingIOError):
            heard.extend(ours.recv(4096))
        ours.close()
        theirs.close()


def _step_listener(
    key: str, on_step: Callable[[str, str], None]
) -> Callable[[dg.EventLogEntry], None]:
    def listen(entry: dg.EventLogEntry) -> None:
        event = entry.dagster_event
        if event is not None and event.is_step_start and event.step_key:
            on_step(key, event.step_key)

    return listen


def _was_interrupted(result: dg.ExecuteInProcessResult) -> bool:
    failures: Sequence[dg.DagsterEvent] = result.filter_events(lambda event: event.is_step_failure)
    errors = [event.step_failure_data.error for event in failures]
    return any(e is not None and e.cls_name == "DagsterExecutionInterruptedError" for e in errors)


def _failure(result: dg.ExecuteInProcessResult) -> str:
    failures: Sequence[dg.DagsterEvent] = result.filter_events(lambda event: event.is_step_failure)
    causes = []
    for event in failures:
        error = event.step_failure_data.error
        while error is not None and error.cause is not None:
            error = error.cause
        causes.append(f"{event.step_key}: {error.message.strip() if error else 'failed'}")
    return "; ".join(causes) or "failed; see the run in the UI"
