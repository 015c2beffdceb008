"""Runs the asset graph without the UI: the same jobs, the same events, the same partitions."""

import contextlib
import datetime as dt
import logging
import os
import sqlite3
import tempfile
import uuid
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import dagster as dg
from dagster._core.instance.ref import InstanceRef

from wombat_dagster import config
from wombat_dagster.domain import Observation, Shortfall
from wombat_dagster.observatory import Observatory, open_observatory
from wombat_dagster.partitions import NIGHTS, OBSERVATIONS, date_of_night
from wombat_dagster.products import read_product
from wombat_dagster.stages.choice import choose_calibration
from wombat_dagster.stages.siblings import stale_magnitudes
from wombat_dagster.store import schema
from wombat_dagster.store.frames import write_bytes_atomic
from wombat_dagster.store.status import TargetRow
from wombat_dagster.store.tables import UnreadableProduct

log = logging.getLogger(__name__)

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
FINISHED = {"validate", "held"}

NO_CAPTURE = {
    "module": "dagster._core.storage.noop_compute_log_manager",
    "class": "NoOpComputeLogManager",
}
DAGSTER_YAML = "dagster.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run would do, in order: night keys, then rows of observations."""

    nights: tuple[str, ...]
    observations: tuple[TargetRow, ...]
    is_whole: bool = False  # everything that is not finished, of all nights


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How one partition ended. `error` is set only when wombat itself failed.

    The traceback is in the Dagster UI, under `run_id`. `only_magnitudes`: of an observation that
    was measured before, the magnitudes alone were made anew.
    """

    key: str
    error: str | None
    run_id: str
    only_magnitudes: bool = False


@contextlib.contextmanager
def home(base: Path) -> Iterator[dg.DagsterInstance]:
    """Work in `base`, the directory of ``wombat.toml``, and give its Dagster instance.

    ``dagster.yaml`` there names places relative to it; one is made when there is none. What steps
    write to the terminal is not captured: it would cost four processes a run, which a Ctrl-C hits.
    """
    prepare_home(base)
    with contextlib.chdir(base):
        reference = InstanceRef.from_dir(str(base), overrides={"compute_logs": NO_CAPTURE})
        with dg.DagsterInstance.from_ref(reference) as instance:
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


def plan(
    observatory: Observatory, *, night: dt.date | None = None, target: str | None = None
) -> Plan:
    """Look at the data directory and return what is to be done.

    Without `night` everything that is not finished; with it everything of that night (and target),
    finished or not.
    """
    observatory.scan()
    rows = [
        row
        for row in observatory.status.targets()
        if (night is None or row.observation.date == night)
        and (target is None or row.observation.target.casefold() == target.casefold())
    ]
    if night is None:
        rows = _unfinished(observatory, rows)
    nights = [
        key
        for key in observatory.status.night_keys()
        if night is None or key == night.strftime("%Y%m%d")
    ]
    return Plan(nights=tuple(nights), observations=tuple(rows), is_whole=night is None)


def _unfinished(observatory: Observatory, rows: Sequence[TargetRow]) -> list[TargetRow]:
    """Return the rows without an end, or whose end is not about the frames and masters of today.

    New masters do not reopen what a person has submitted; new light frames do.
    """
    lights = observatory.status.light_signatures()
    begun_with = observatory.status.product_inputs_of("calibration_choice")
    masters = observatory.masters_signature()

    def is_finished(row: TargetRow) -> bool:
        key = row.observation.key
        if row.apphot not in FINISHED or row.lights != lights.get(key):
            return False
        if row.submitted is not None or begun_with.get(key, {}).get("masters") == masters:
            return True
        return _has_closest_masters(observatory, row.observation)

    return [row for row in rows if not is_finished(row)]


def _has_closest_masters(observatory: Observatory, observation: Observation) -> bool:
    """Tell whether the masters of an observation would be chosen again."""
    try:
        used = read_product(observatory, "calibration_choice", observation.key)
        closest = choose_calibration(observatory, observation)
    except (FileNotFoundError, UnreadableProduct, Shortfall):
        return False
    return bool(used.version == closest.version)


def with_word(observatory: Observatory, word: str) -> Plan:
    """Return the plan that runs exactly the observations whose `proc` or `apphot` is `word`."""
    rows = [row for row in observatory.status.targets() if word in (row.proc, row.apphot)]
    return Plan(nights=(), observations=tuple(rows))


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


def register(instance: dg.DagsterInstance, observatory: Observatory) -> None:
    """Make every night and observation known a partition."""
    for definition, keys in (
        (NIGHTS, observatory.status.night_keys()),
        (OBSERVATIONS, [row.observation.key for row in observatory.status.targets()]),
    ):
        assert definition.name is not None
        new = set(keys) - set(instance.get_dynamic_partitions(definition.name))
        if new:
            instance.add_dynamic_partitions(definition.name, sorted(new))


def execute(
    instance: dg.DagsterInstance,
    planned: Plan,
    *,
    on_step: Callable[[str, str], None] = lambda _key, _asset: None,
    on_done: Callable[[Done], None] = lambda _done: None,
) -> list[Done]:
    """Run a plan in this process, all nights before the first observation.

    `on_step` hears the partition key and the asset whenever one begins, `on_done` how each ended.
    An interrupt (Ctrl-C) ends the partition at work, recorded as failed in Dagster, and is raised.
    """
    results: list[Done] = []

    def run(job_name: str, keys: Sequence[str]) -> None:
        for key in keys:
            results.append(_execute_one(instance, job_name, key, on_step))
            on_done(results[-1])

    run("night_job", planned.nights)
    # Whoever borrows a bias may have come before the night that lends it.
    again = [
        _execute_one(instance, "night_job", key, on_step) for key in _borrowing_nights(planned)
    ]
    results.extend(done for done in again if done.error)
    failed = {done.key for done in results if done.error}
    for row in _with_reopened(planned):
        key = row.observation.key
        if failed and _waits_for(failed, row.observation):
            words = f"not begun: the masters of {', '.join(sorted(failed))} failed"
            results.append(Done(key=key, error=words, run_id=""))
            on_done(results[-1])
        else:
            run("observation_job", [key])
    # Two filters tell a colour: whoever was measured first gets its magnitudes again.
    measured = {done.key for done in results}
    for key in _with_newer_siblings(planned):
        done = _execute_one(instance, "magnitudes_job", key, on_step)
        if done.error or key not in measured:
            results.append(replace(done, only_magnitudes=True))
    return results


def _borrowing_nights(planned: Plan) -> list[str]:
    """Return the nights that need masters of another one, which may have been made after them."""
    from wombat_dagster.stages.bad_pixels import borrows_newer_masters

    if len(planned.nights) < 2:
        return []
    observatory = open_observatory()
    without_bias = set(observatory.status.nights_without_own_bias())
    return [
        key
        for key in planned.nights
        if key in without_bias or borrows_newer_masters(observatory, date_of_night(key))
    ]


def _with_reopened(planned: Plan) -> list[TargetRow]:
    """Return the planned observations, and those that the masters made just now reopen."""
    if not planned.is_whole:
        return list(planned.observations)
    observatory = open_observatory()
    known = {row.observation.key for row in planned.observations}
    rows = [row for row in observatory.status.targets() if row.observation.key not in known]
    return [*planned.observations, *_unfinished(observatory, rows)]


def _waits_for(failed_nights: Collection[str], observation: Observation) -> bool:
    """Tell whether masters that could not be made may be the ones an observation wants.

    Measured without them it would look as if none had been taken.
    """
    if f"{observation.date:%Y%m%d}" in failed_nights:
        return True
    try:
        return bool(choose_calibration(open_observatory(), observation).missing)
    except Shortfall:
        return False


def _with_newer_siblings(planned: Plan) -> list[str]:
    units = {(row.observation.date, row.observation.target) for row in planned.observations}
    stale = stale_magnitudes(open_observatory())
    return [one.key for one in stale if planned.is_whole or (one.date, one.target) in units]


def _execute_one(
    instance: dg.DagsterInstance, job_name: str, key: str, on_step: Callable[[str, str], None]
) -> Done:
    from wombat_dagster.definitions import defs

    run_id = str(uuid.uuid4())
    instance.add_event_listener(run_id, _step_listener(key, on_step))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)  # DataVersion on Output
        result = defs.resolve_job_def(job_name).execute_in_process(
            partition_key=key,
            instance=instance,
            run_config=QUIET,
            raise_on_error=False,
            run_id=run_id,
        )
    if _was_interrupted(result):
        raise KeyboardInterrupt
    error = None if result.success else _failure(result)
    if error:
        log.error("%s %s: %s", job_name, key, error)
    return Done(key=key, error=error, run_id=run_id)


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
