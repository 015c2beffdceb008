"""Runs the asset graph without the UI: the same jobs, the same events, the same partitions."""

import contextlib
import datetime as dt
import logging
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from wombat_dagster import config
from wombat_dagster.partitions import NIGHTS, OBSERVATIONS
from wombat_dagster.resources import Observatory
from wombat_dagster.store.frames import write_bytes_atomic
from wombat_dagster.store.status import TargetRow

log = logging.getLogger(__name__)

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
FINISHED = {"validate", "held"}

DAGSTER_YAML = "dagster.yaml"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a run would do, in order: night keys, then rows of observations."""

    nights: tuple[str, ...]
    observations: tuple[TargetRow, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """How one partition ended. `error` is set only when wombat itself failed."""

    key: str
    error: str | None


@contextlib.contextmanager
def home(base: Path) -> Iterator[dg.DagsterInstance]:
    """Work in `base`, the directory of ``wombat.toml``, and give its Dagster instance.

    ``dagster.yaml`` there names places relative to it; one is made when there is none.
    """
    prepare_home(base)
    with contextlib.chdir(base), dg.DagsterInstance.get() as instance:
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
        and (night is not None or row.apphot not in FINISHED)
    ]
    nights = [
        key
        for key in observatory.status.night_keys()
        if night is None or key == night.strftime("%Y%m%d")
    ]
    return Plan(nights=tuple(nights), observations=tuple(rows))


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
    on_done: Callable[[Done], None] = lambda _done: None,
) -> list[Done]:
    """Run a plan in this process, all nights before the first observation."""
    from wombat_dagster.definitions import defs

    results = []
    units = [("night_job", key) for key in planned.nights]
    units += [("observation_job", row.observation.key) for row in planned.observations]
    for job_name, key in units:
        job = defs.resolve_job_def(job_name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", dg.BetaWarning)  # DataVersion on Output
            result = job.execute_in_process(
                partition_key=key, instance=instance, run_config=QUIET, raise_on_error=False
            )
        error = None if result.success else _failure(result)
        if error:
            log.error("%s %s: %s", job_name, key, error)
        results.append(Done(key=key, error=error))
        on_done(results[-1])
    return results


def _failure(result: dg.ExecuteInProcessResult) -> str:
    failures: Sequence[dg.DagsterEvent] = result.filter_events(lambda event: event.is_step_failure)
    causes = []
    for event in failures:
        error = event.step_failure_data.error
        while error is not None and error.cause is not None:
            error = error.cause
        causes.append(f"{event.step_key}: {error.message.strip() if error else 'failed'}")
    return "; ".join(causes) or "failed; see the run in the UI"
