"""The sensor that watches the data directory. It only finds out what is new."""

import json
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING

import dagster as dg

from wombat_dagster.jobs import JOBS
from wombat_dagster.observatory import Observatory
from wombat_dagster.partitions import NIGHTS, OBSERVATIONS, date_of_night
from wombat_dagster.resources import ObservatoryResource
from wombat_dagster.sensors import interval_s
from wombat_dagster.sensors.asking import Asked, busy_keys, requests
from wombat_dagster.stages.work import NEW_ON_DISK, Due

if TYPE_CHECKING:
    from wombat_dagster.stages.inputs import NightOnDisk

MAX_NEW_KEYS_PER_TICK = 2000


class Memory:
    """Since when each unit has been as it is; kept as the cursor, so it survives restarts.

    A unit is a night's calibrations (``20251015/``) or a target in it (``20251015/TX Eri``). What
    was asked for is not remembered: it shows in what the runs wrote down.
    """

    def __init__(self, cursor: str | None) -> None:
        kept = json.loads(cursor) if cursor else {}
        self.seen: dict[str, tuple[str, float]] = {
            unit: (signature, since_s)
            for unit, (signature, since_s) in kept.get("seen", {}).items()
        }

    def cursor(self) -> str:
        """Return the text that Dagster keeps until the next tick."""
        return json.dumps({"seen": self.seen})

    def settled(self, units: Mapping[str, str], now_s: float, quiet_s: float) -> set[str]:
        """Return the units whose signature has been the same for `quiet_s`, across ticks.

        After the clock was set back the quiet time begins again.
        """
        before = self.seen
        self.seen = {
            unit: known
            if (known := before.get(unit)) and known[0] == signature and known[1] <= now_s
            else (signature, now_s)
            for unit, signature in units.items()
        }
        return {unit for unit, (_, since_s) in self.seen.items() if now_s - since_s >= quiet_s}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight:
    """What lies in the data directory: the nights by key, with what is not settled yet."""

    nights: Mapping[str, "NightOnDisk"]

    def has_settled(self, key: str, target: str) -> bool:
        """Tell whether nothing of a target, and of its night's calibrations, is being copied."""
        night = self.nights.get(key)
        return night is not None and not {"", target} & night.unsettled and target in night.units


def sight(observatory: Observatory, memory: Memory, *, now_s: float) -> Sight:
    """Look at the data directory; nights that are gone are forgotten at once. No file is opened."""
    from wombat_dagster.stages.inputs import NightOnDisk, nights_on_disk
    from wombat_dagster.store.layout import night_directories

    found = nights_on_disk(observatory)
    units = {f"{key}/{unit}": s for key, night in found.items() for unit, s in night.units.items()}
    settled = memory.settled(units, now_s, observatory.settings.sensors.quiet_s)
    there = {night.date for night in night_directories(observatory.layout.data)}
    gone = {date_of_night(key) for key in observatory.status.night_keys()} - there
    if gone:
        observatory.scan(gone)
    return Sight(
        nights={
            key: NightOnDisk(
                units={u: s for u, s in night.units.items() if f"{key}/{u}" in settled},
                unsettled=frozenset(u for u in night.units if f"{key}/{u}" not in settled),
            )
            for key, night in found.items()
        }
    )


def look(
    observatory: Observatory,
    seen: Sight,
    *,
    busy: Collection[str] = (),
    may_ask: Callable[[Due], bool] = lambda _: True,
) -> list[Due]:
    """Return what the frames in the data directory call for, in the order of the work.

    A night's masters come first: observations are asked for only when no settled night has its
    masters still to make. What `may_ask` says no to holds up nobody. Nothing is written to the
    data directory.
    """
    from wombat_dagster.stages.due import due_nights, due_observations

    nights = [n for n in due_nights(observatory, on_disk=seen.nights, busy=busy) if may_ask(n)]
    if nights or any("__" not in key for key in busy):
        return [one for one in nights if one.why in NEW_ON_DISK]
    rows = {row.observation.key: row.observation for row in observatory.status.targets()}
    return [
        one
        for one in due_observations(observatory, busy=busy).due
        if one.why in NEW_ON_DISK
        and seen.has_settled(f"{rows[one.key].date:%Y%m%d}", rows[one.key].target)
    ]


@dg.sensor(
    jobs=list(JOBS),
    minimum_interval_seconds=interval_s(),
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def data_sensor(
    context: dg.SensorEvaluationContext, observatory: ObservatoryResource
) -> dg.SensorResult:
    """New nights and observations in the data directory become partitions and runs."""
    opened = observatory.open()
    memory = Memory(context.cursor)
    busy = busy_keys(context.instance)
    seen = sight(opened, memory, now_s=time.time())
    asked = Asked(context.instance)
    due = look(opened, seen, busy=busy, may_ask=asked.may_ask)
    return dg.SensorResult(
        run_requests=requests(due, opened, asked, n_busy=len(busy)),
        cursor=memory.cursor(),
        dynamic_partitions_requests=_partitions(context.instance, opened, seen, busy),
    )


def _partitions(
    instance: dg.DagsterInstance, observatory: Observatory, seen: Sight, busy: Collection[str]
) -> list[dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest]:
    """Return the partitions to add, and those of retired observations, which are taken away.

    Not while a run of theirs is not over: without its partition it would fail.
    """
    rows = observatory.status.targets()
    known = {
        NIGHTS: [*observatory.status.night_keys(), *seen.nights],
        OBSERVATIONS: [row.observation.key for row in rows if row.retired_utc is None],
    }
    asked: list[dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest] = []
    for definition, keys in known.items():
        assert definition.name is not None
        there = set(instance.get_dynamic_partitions(definition.name))
        missing = (key for key in dict.fromkeys(keys) if key not in there)
        if new := list(islice(missing, MAX_NEW_KEYS_PER_TICK)):
            asked.append(definition.build_add_request(new))
        if retired := sorted(there - set(keys) - set(busy)):
            asked.append(definition.build_delete_request(retired))
    return asked
