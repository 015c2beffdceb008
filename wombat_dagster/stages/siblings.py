"""Observations of one target in one night through several filters: together they tell a colour."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from wombat_dagster.domain import Observation
from wombat_dagster.observatory import Observatory


def sibling_versions(observatory: Observatory, observation: Observation) -> dict[str, str]:
    """Return the versions of the sibling filters' tables, by their keys.

    Siblings are those measured with the same camera: coefficients are a camera's own.
    """
    status = observatory.status
    return _versions(
        observation,
        status.siblings(observation),
        status.product_versions("photometry_table"),
        status.light_cameras(),
    )


def stale_magnitudes(observatory: Observatory) -> list[Observation]:
    """Return whose magnitudes exist, are not submitted and would come out otherwise by now.

    They do when a sibling filter was measured, or measured again, since. In the order of
    `StatusDatabase.targets`. Only a camera with coefficients makes anything of its siblings.
    """
    if not any(instrument.transform for instrument in observatory.settings.instrument):
        return []
    status = observatory.status
    rows = status.targets()
    used = status.product_inputs_of("standard_magnitudes")
    versions, cameras = status.product_versions("photometry_table"), status.light_cameras()
    units = defaultdict(list)
    for row in rows:
        units[row.observation.date, row.observation.target].append(row.observation)
    stale = []
    for row in rows:
        one = row.observation
        if row.submitted is not None or one.key not in used:
            continue
        if not observatory.settings.for_camera(cameras[one.key]).transform:
            continue
        if used[one.key] != _versions(one, units[one.date, one.target], versions, cameras):
            stale.append(one)
    return stale


def _versions(
    observation: Observation,
    unit: Iterable[Observation],
    versions: Mapping[str, str],
    cameras: Mapping[str, str | None],
) -> dict[str, str]:
    """Return the versions of the tables that `observation` shares night, target and camera with."""
    return {
        one.key: versions[one.key]
        for one in unit
        if one.key != observation.key
        and one.key in versions
        and cameras[one.key] == cameras[observation.key]
    }
