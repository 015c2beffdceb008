"""The sensor that waits for AAVSO services that are away, and releases what waits for them.

It asks in a thread of its own: a service that hangs must not hold up the daemon. What a thread
found out, the next tick sees.
"""

import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass

import dagster as dg
from dagster import AssetKey
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster._core.definitions.assets.graph.asset_graph_subset import AssetGraphSubset
from dagster._core.definitions.events import AssetKeyPartitionKey
from dagster._core.execution.backfill import BulkActionStatus

from wombat_dagster.domain import Apphot
from wombat_dagster.jobs import OBSERVATION_ASSETS
from wombat_dagster.observatory import Observatory
from wombat_dagster.resources import ObservatoryResource
from wombat_dagster.sensors import interval_s
from wombat_dagster.sensors.asking import busy_keys
from wombat_dagster.stages.work import WHY_TAG

RELEASE_TAG = "wombat/release"
"""Tag of the backfills that release parked observations: the service they waited for."""
SERVICES = {Apphot.VSXDOWN: "VSX", Apphot.NOVSP: "VSP"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """What waited for a service that is back: by observation, the assets from where it ended."""

    service: str
    assets: dict[str, tuple[str, ...]]


class Inquiries:
    """Questions asked of services in threads, one at a time of each name."""

    def __init__(self) -> None:
        self._threads: dict[str, threading.Thread] = {}

    def begin(self, name: str, ask: Callable[[], object]) -> None:
        """Ask, unless the same question is being asked."""
        before = self._threads.get(name)
        if before is not None and before.is_alive():
            return
        self._threads[name] = threading.Thread(target=ask, name=name, daemon=True)
        self._threads[name].start()

    def wait(self) -> None:
        """Wait for every answer."""
        for thread in self._threads.values():
            thread.join()


INQUIRIES = Inquiries()


def look(observatory: Observatory, *, busy: Collection[str] = ()) -> list[Release]:
    """Ask services that are away for a sign of life when it is time; return what is released."""
    from wombat_dagster.stages.due import parked, parked_stages
    from wombat_dagster.stages.events import is_look_due
    from wombat_dagster.stages.events import look as look_for_events

    released = []
    for word, name in SERVICES.items():
        service = observatory.vsx if word is Apphot.VSXDOWN else observatory.vsp
        if service.away() is not None:
            if service.probe_due():
                INQUIRIES.begin(name, service.probe)
            continue
        waiting = [one for one in parked(observatory, word, patiently=True) if one.key not in busy]
        if waiting:
            stages = parked_stages(observatory, [one.key for one in waiting])
            # From the stage on that could not have what it asked for.
            assets = {
                key: OBSERVATION_ASSETS[OBSERVATION_ASSETS.index(first) :]
                for key, first in stages.items()
            }
            released.append(Release(service=name, assets=assets))
    if observatory.vsp.away() is None:
        INQUIRIES.begin("charts", lambda: _refresh_charts(observatory))
    if is_look_due(observatory):
        INQUIRIES.begin("events", lambda: look_for_events(observatory))
    return released


def _refresh_charts(observatory: Observatory) -> None:
    """Ask for the oldest chart in use again, when it is too old."""
    from wombat_dagster.domain import VspUnavailable
    from wombat_dagster.stages.due import charts_in_use

    try:
        observatory.vsp.refresh_oldest(charts_in_use(observatory))
    except VspUnavailable:
        return  # remembered by the client


@dg.sensor(
    asset_selection=[AssetKey(name) for name in OBSERVATION_ASSETS],
    minimum_interval_seconds=interval_s(),
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def recovery_sensor(
    context: dg.SensorEvaluationContext, observatory: ObservatoryResource
) -> dg.SensorResult:
    """When VSX or VSP is back, exactly what was parked for it runs again, as one backfill."""
    at_work = context.instance.get_backfills(status=BulkActionStatus.REQUESTED)
    if any(RELEASE_TAG in backfill.tags for backfill in at_work):
        return dg.SensorResult(run_requests=[])
    released = look(observatory.open(), busy=busy_keys(context.instance))
    assert context.repository_def is not None
    graph = context.repository_def.asset_graph
    return dg.SensorResult(run_requests=[backfill_request(one, graph) for one in released])


def backfill_request(released: Release, asset_graph: AssetGraph) -> dg.RunRequest:
    """Return the request for one backfill of exactly these partitions.

    Dagster's constructor for it is private (1.13): this is the one place that uses it.
    """
    partitions = {
        AssetKeyPartitionKey(AssetKey(asset), key)
        for key, assets in released.assets.items()
        for asset in assets
    }
    return dg.RunRequest.for_asset_graph_subset(
        AssetGraphSubset.from_asset_partition_set(partitions, asset_graph),
        tags={RELEASE_TAG: released.service, WHY_TAG: f"{released.service} is back"},
    )
