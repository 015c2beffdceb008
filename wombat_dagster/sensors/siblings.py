"""The sensor that asks for magnitudes again when another filter of the same night is there."""

from collections.abc import Iterator

import dagster as dg

from wombat_dagster import config
from wombat_dagster.jobs import magnitudes_job
from wombat_dagster.resources import ObservatoryResource
from wombat_dagster.stages.siblings import has_newer_siblings, sibling_versions

MAX_REQUESTS_PER_TICK = 25


@dg.sensor(
    job=magnitudes_job,
    minimum_interval_seconds=config.load().sensors.interval_s,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def sibling_sensor(observatory: ObservatoryResource) -> Iterator[dg.RunRequest]:
    """Two filters tell a colour: whoever was measured first gets its magnitudes again."""
    opened = observatory.open()
    stale = [
        row.observation
        for row in opened.status.targets()
        if row.submitted is None and has_newer_siblings(opened, row.observation)
    ]
    for observation in stale[:MAX_REQUESTS_PER_TICK]:
        versions = sorted(sibling_versions(opened, observation).items())
        yield dg.RunRequest(
            partition_key=observation.key,
            run_key=f"{observation.key}:{';'.join(f'{k}={v}' for k, v in versions)}",
        )
