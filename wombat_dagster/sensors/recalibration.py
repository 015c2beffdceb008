"""The sensor that asks again for what better masters, charts, choices or settings concern."""

from collections.abc import Callable

import dagster as dg

from wombat_dagster.jobs import JOBS
from wombat_dagster.observatory import Observatory
from wombat_dagster.resources import ObservatoryResource
from wombat_dagster.sensors import interval_s
from wombat_dagster.sensors.asking import Asked, busy_keys, requests
from wombat_dagster.stages.work import NEW_ON_DISK, Due


def look(
    observatory: Observatory, *, busy: set[str], may_ask: Callable[[Due], bool] = lambda _: True
) -> list[Due]:
    """Return exactly what is to be made again, nights before observations.

    What a person has decided on is not made again: what changed since is written down. While any
    night's masters are at work nothing is asked for: the next ones may be closer still.
    """
    from wombat_dagster.stages.due import due_nights, due_observations
    from wombat_dagster.stages.inputs import nights_on_disk

    if any("__" not in key for key in busy):
        return []
    due = due_nights(observatory, on_disk=nights_on_disk(observatory), busy=busy)
    nights = [one for one in due if one.why not in NEW_ON_DISK and may_ask(one)]
    if nights:
        return nights
    outlook = due_observations(observatory, busy=busy)
    observatory.status.record_changed_since(outlook.changed_since)
    return [one for one in outlook.due if one.why not in NEW_ON_DISK]


@dg.sensor(
    jobs=list(JOBS),
    minimum_interval_seconds=interval_s(),
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def recalibration_sensor(
    context: dg.SensorEvaluationContext, observatory: ObservatoryResource
) -> dg.SensorResult:
    """Better masters, another filter's colour, a revised chart, your choices: made again."""
    opened = observatory.open()
    busy = busy_keys(context.instance)
    asked = Asked(context.instance)
    due = look(opened, busy=busy, may_ask=asked.may_ask)
    return dg.SensorResult(run_requests=requests(due, opened, asked, n_busy=len(busy)))
