"""The sensor that watches the data directory. It only finds out what is new."""

import json
import logging
import time
from collections.abc import Collection
from dataclasses import dataclass
from itertools import islice

import dagster as dg
from dagster import DagsterRunStatus, RunsFilter
from dagster._core.storage.tags import PARTITION_NAME_TAG

from wombat_dagster.jobs import night_job, observation_job
from wombat_dagster.observatory import Observatory
from wombat_dagster.partitions import NIGHTS, OBSERVATIONS
from wombat_dagster.resources import ObservatoryResource
from wombat_dagster.sensors import interval_s

log = logging.getLogger(__name__)

MAX_REQUESTS_PER_TICK = 25
MAX_NEW_KEYS_PER_TICK = 2000
LATEST_RUNS = 500  # of masters, among which failed ones are looked for
UNFINISHED = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One run to ask for. `run_key` keeps Dagster from doing the same work twice."""

    job: str
    key: str
    run_key: str


class Memory:
    """What the sensor knows from earlier ticks; kept as the cursor, so it survives restarts.

    A unit is a night's calibrations (``20251015``) or a target in it (``20251015/TX Eri``). `seen`
    holds each unit's signature and since when it has had it, `scanned` and `requested` the
    signature that was recorded, or asked a run for (by partition key; an observation's is that of
    its own frames, so that late frames of one filter concern no other).
    """

    def __init__(self, cursor: str | None) -> None:
        kept = json.loads(cursor) if cursor else {}
        self.seen: dict[str, tuple[str, float]] = {
            u: (s, t) for u, (s, t) in kept.get("seen", {}).items()
        }
        self.scanned: dict[str, str] = kept.get("scanned", {})
        self.requested: dict[str, str] = kept.get("requested", {})

    def cursor(self) -> str:
        """Return the text that Dagster keeps until the next tick."""
        return json.dumps({"seen": self.seen, "scanned": self.scanned, "requested": self.requested})

    def settled(self, units: dict[str, str], now_s: float, quiet_s: float) -> dict[str, str]:
        """Return the units whose signature has been the same for `quiet_s`, across ticks."""
        self.seen = {
            unit: known
            if (known := self.seen.get(unit)) is not None and known[0] == signature
            else (signature, now_s)
            for unit, signature in units.items()
        }
        return {u: s for u, (s, since_s) in self.seen.items() if now_s - since_s >= quiet_s}


def units_on_disk(observatory: Observatory) -> dict[str, str]:
    """Return the signature of every unit; directories of one date are one night."""
    from wombat_dagster.store.layout import night_directories, night_signatures

    units: dict[str, str] = {}
    for night in night_directories(observatory.layout.data):
        key = night.date.strftime("%Y%m%d")
        try:
            found = night_signatures(night)
        except OSError as error:  # a disk that fails for a moment: the next tick sees
            log.warning("%s cannot be read: %s", night.name, error)
            continue
        parts = {key: found.calibration or "none"}
        parts |= {f"{key}/{target}": text for target, text in found.targets.items()}
        for unit, text in parts.items():
            units[unit] = f"{units[unit]}+{text}" if unit in units else text
    return units


def look(
    observatory: Observatory,
    memory: Memory,
    *,
    now_s: float,
    masters_running: bool,
    failed_nights: Collection[str] = (),
) -> list[Request]:
    """Record what is new and settled in the data directory and return the runs it calls for.

    A night's masters come first: observations are requested only when no settled night has its
    masters still to make, and not where making them failed. Nothing is written to the data
    directory.
    """
    from wombat_dagster.store.layout import night_directories

    settled = memory.settled(
        units_on_disk(observatory), now_s, observatory.settings.sensors.quiet_s
    )
    unscanned = {unit for unit, text in settled.items() if memory.scanned.get(unit) != text}
    if unscanned:
        touched = {unit.split("/")[0] for unit in unscanned}
        nights = night_directories(observatory.layout.data)
        observatory.scan({n.date for n in nights if n.date.strftime("%Y%m%d") in touched})
        memory.scanned |= {unit: settled[unit] for unit in unscanned}
    nights_with_frames = set(observatory.status.night_keys())
    masters = {u: s for u, s in settled.items() if u in nights_with_frames}
    wanted = _changed("night_job", masters, memory)
    if not wanted and not masters_running:
        frames = observatory.status.light_signatures()
        observations = {
            row.observation.key: frames[row.observation.key]
            for row in observatory.status.targets()
            if row.observation.key in frames
            and (night := f"{row.observation.date:%Y%m%d}") in settled
            and night not in failed_nights
            and f"{night}/{row.observation.target}" in settled
        }
        wanted = _changed("observation_job", observations, memory)
    capped = wanted[:MAX_REQUESTS_PER_TICK]
    memory.requested |= {r.key: r.run_key.partition(":")[2] for r in capped}
    return capped


def _changed(job: str, signatures: dict[str, str], memory: Memory) -> list[Request]:
    return [
        Request(job=job, key=key, run_key=f"{key}:{signature}")
        for key, signature in sorted(signatures.items())
        if memory.requested.get(key) != signature
    ]


@dg.sensor(
    jobs=[night_job, observation_job],
    minimum_interval_seconds=interval_s(),
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def data_sensor(
    context: dg.SensorEvaluationContext, observatory: ObservatoryResource
) -> dg.SensorResult:
    """New nights and observations in the data directory become partitions and runs."""
    opened = observatory.open()
    memory = Memory(context.cursor)
    running = context.instance.get_runs_count(
        RunsFilter(job_name=night_job.name, statuses=UNFINISHED)
    )
    requests = look(
        opened,
        memory,
        now_s=time.time(),
        masters_running=running > 0,
        failed_nights=_failed_nights(context.instance),
    )
    return dg.SensorResult(
        run_requests=[
            dg.RunRequest(job_name=r.job, partition_key=r.key, run_key=r.run_key) for r in requests
        ],
        cursor=memory.cursor(),
        dynamic_partitions_requests=_new_partitions(context.instance, opened),
    )


def _failed_nights(instance: dg.DagsterInstance) -> set[str]:
    """Return the nights whose latest run of masters failed."""
    latest: dict[str, DagsterRunStatus] = {}
    for run in instance.get_runs(RunsFilter(job_name=night_job.name), limit=LATEST_RUNS):
        latest.setdefault(run.tags.get(PARTITION_NAME_TAG, ""), run.status)  # newest first
    return {key for key, status in latest.items() if status is DagsterRunStatus.FAILURE}


def _new_partitions(
    instance: dg.DagsterInstance, observatory: Observatory
) -> list[dg.AddDynamicPartitionsRequest]:
    known = {
        NIGHTS: observatory.status.night_keys(),
        OBSERVATIONS: [row.observation.key for row in observatory.status.targets()],
    }
    requests = []
    for definition, keys in known.items():
        assert definition.name is not None
        there = set(instance.get_dynamic_partitions(definition.name))
        new = list(islice((key for key in keys if key not in there), MAX_NEW_KEYS_PER_TICK))
        if new:
            requests.append(definition.build_add_request(new))
    return requests
