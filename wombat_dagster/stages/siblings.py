"""Observations of one target in one night through several filters: together they tell a colour."""

from wombat_dagster.domain import Observation
from wombat_dagster.observatory import Observatory


def sibling_versions(observatory: Observatory, observation: Observation) -> dict[str, str]:
    """Return the versions of the measured sibling filters' tables, by their keys."""
    status = observatory.status
    versions = {
        sibling.key: status.product_version(sibling.key, "photometry_table")
        for sibling in status.siblings(observation)
    }
    return {key: version for key, version in versions.items() if version is not None}


def has_newer_siblings(observatory: Observatory, observation: Observation) -> bool:
    """Tell whether magnitudes that exist would come out otherwise with the siblings there are."""
    used = observatory.status.product_inputs(observation.key, "standard_magnitudes")
    lights = observatory.status.light_frames(observation)
    group = next((frame.group for frame in lights if frame.group is not None), None)
    if used is None or group is None:
        return False
    if not observatory.settings.for_camera(group.camera).transform:
        return False
    return used != sibling_versions(observatory, observation)
