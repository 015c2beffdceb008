"""What the sensors have in common: what is at work, and how runs are asked for."""

import time
from collections.abc import Iterable, Sequence
from itertools import islice

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter
from dagster._core.storage.tags import PARTITION_NAME_TAG

from wombat_dagster.observatory import Observatory
from wombat_dagster.stages.work import MAX_TAG, WHY_TAG, Due

MAX_REQUESTS_PER_TICK = 20  # a third of a second each on a busy machine: a tick stays below ten
MAX_WAITING = 50  # runs that are not over: what waits longer may be out of date when it begins
MAX_RUNTIME_TAG = "dagster/max_runtime"
MAX_RETRIES_TAG = "dagster/max_retries"
SIGNATURE_TAG = "wombat/signature"
MANY = 20  # runs for one reason
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


class Asked:
    """What was asked for before, by what Dagster knows of it.

    A run that was killed before its first stage has written nothing down: without this it would be
    taken for done by its run key, and never be asked for again.
    """

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        self._known: dict[str, Sequence[dg.RunRecord]] = {}

    def runs(self, one: Due) -> Sequence[dg.RunRecord]:
        """Return the runs that were asked for, for the same reason, the newest first."""
        text = signature_of(one)
        if text not in self._known:
            tags = {PARTITION_NAME_TAG: one.key, SIGNATURE_TAG: text}
            self._known[text] = self._instance.get_run_records(RunsFilter(tags=tags), limit=MANY)
        return self._known[text]

    def may_ask(self, one: Due) -> bool:
        """Tell whether to ask now: not while it is at work, nor soon after it was in vain."""
        from wombat_dagster.stages.due import wait_s

        before = self.runs(one)
        if not before:
            return True
        if before[0].dagster_run.status in UNFINISHED:
            return False
        age_s = time.time() - before[0].update_timestamp.timestamp()
        return not 0 <= age_s < wait_s(len(before))


def signature_of(one: Due) -> str:
    """Return a text that is new when there is a new reason to ask."""
    return f"{one.key}:{one.job}:{one.signature}"


def requests(
    due: Iterable[Due], observatory: Observatory, asked: Asked, *, n_busy: int
) -> Sequence[dg.RunRequest]:
    """Return the runs to ask for in one tick. `run_key` keeps Dagster from asking twice."""
    n_free = max(0, min(MAX_REQUESTS_PER_TICK, MAX_WAITING - n_busy))
    limit_s = observatory.settings.runs.time_limit_s
    return [
        dg.RunRequest(
            job_name=one.job,
            partition_key=one.key,
            run_key=f"{signature_of(one)}:{len(asked.runs(one))}",
            tags={
                WHY_TAG: one.reason[:MAX_TAG],
                SIGNATURE_TAG: signature_of(one),
                MAX_RUNTIME_TAG: f"{limit_s:.0f}",
                MAX_RETRIES_TAG: "0",  # what broke is due again: the sensor asks
            },
        )
        for one in islice((one for one in due if asked.may_ask(one)), n_free)
    ]
