"""What the sensors have in common: what is at work, and how runs are asked for."""

from collections.abc import Iterable, Sequence
from itertools import islice

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter
from dagster._core.storage.tags import PARTITION_NAME_TAG

from wombat_dagster.observatory import Observatory
from wombat_dagster.stages.work import WHY_TAG, Due

MAX_REQUESTS_PER_TICK = 12  # Dagster needs half a second for each
MAX_WAITING = 50  # runs that are not over: what waits longer may be out of date when it begins
MAX_RUNTIME_TAG = "dagster/max_runtime"
MAX_RETRIES_TAG = "dagster/max_retries"
UNFINISHED = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]


def busy_keys(instance: dg.DagsterInstance) -> set[str]:
    """Return the partitions with a run that is not over."""
    runs = instance.get_runs(RunsFilter(statuses=UNFINISHED))
    return {run.tags.get(PARTITION_NAME_TAG, "") for run in runs}


def requests(
    due: Iterable[Due], observatory: Observatory, *, n_busy: int
) -> Sequence[dg.RunRequest]:
    """Return the runs to ask for in one tick. `run_key` keeps Dagster from asking twice."""
    n_free = max(0, min(MAX_REQUESTS_PER_TICK, MAX_WAITING - n_busy))
    limit_s = observatory.settings.runs.time_limit_s
    return [
        dg.RunRequest(
            job_name=one.job,
            partition_key=one.key,
            run_key=f"{one.key}:{one.job}:{one.signature}",
            tags={
                WHY_TAG: f"{one.why}: {one.words}"[:MAX_TAG],
                MAX_RUNTIME_TAG: f"{limit_s:.0f}",
                MAX_RETRIES_TAG: "0",  # what broke is due again: the sensor asks
            },
        )
        for one in islice(due, n_free)
    ]


MAX_TAG = 200  # characters of a reason: tags are shown in lists
