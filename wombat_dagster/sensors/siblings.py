"""The sensor that asks for magnitudes again when another filter or new coefficients are there."""

import json
from collections import defaultdict
from itertools import islice

import dagster as dg

from wombat_dagster.jobs import magnitudes_job
from wombat_dagster.observatory import Observatory
from wombat_dagster.resources import ObservatoryResource
from wombat_dagster.sensors import interval_s
from wombat_dagster.stages.siblings import COEFFICIENTS, stale_inputs

MAX_REQUESTS_PER_TICK = 25


@dg.sensor(
    job=magnitudes_job,
    minimum_interval_seconds=interval_s(),
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def sibling_sensor(
    context: dg.SensorEvaluationContext, observatory: ObservatoryResource
) -> dg.SensorResult:
    """Two filters tell a colour: whoever was measured first gets its magnitudes again.

    The cursor holds what was asked for and is not done yet, by key: a run that failed is not asked
    for again, and keeps nobody else from being asked for.
    """
    stale = _stale_versions(observatory.open())
    kept = json.loads(context.cursor) if context.cursor else {}
    asked = {key: text for key, text in kept.items() if key in stale}
    new = dict(
        islice((pair for pair in stale.items() if asked.get(pair[0]) != pair[1]),
               MAX_REQUESTS_PER_TICK)
    )  # fmt: skip
    return dg.SensorResult(
        run_requests=[
            dg.RunRequest(partition_key=key, run_key=f"{key}:{text}") for key, text in new.items()
        ],
        cursor=json.dumps(asked | new),
    )


def _stale_versions(observatory: Observatory) -> dict[str, str]:
    """Return the observations with stale magnitudes: by key, the tables of their target's night.

    The coefficients belong to it: without them their second change would look like the first.
    """
    stale = stale_inputs(observatory)
    if not stale:
        return {}
    units: dict[tuple[object, str], list[str]] = defaultdict(list)
    versions = observatory.status.product_versions("photometry_table")
    for row in observatory.status.targets():
        one = row.observation
        if one.key in versions:
            units[one.date, one.target].append(f"{one.key}={versions[one.key]}")
    return {
        one.key: ";".join([*units[one.date, one.target], wanted.get(COEFFICIENTS, "")])
        for one, wanted in stale.items()
    }
