"""What magnitudes are made of beside their own table: sibling filters and stored coefficients.

Siblings are observations of one target in one night through several filters, measured with the
same camera (coefficients are a camera's own): together they tell a colour.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from wombat_dagster.domain import Observation
from wombat_dagster.observatory import Observatory

COEFFICIENTS = "coefficients"
"""Beside the keys of siblings in the inputs of magnitudes: the version of what is stored."""


def sibling_versions(observatory: Observatory, observation: Observation) -> dict[str, str]:
    """Return the versions of the sibling filters' tables, by their keys."""
    status = observatory.status
    return _versions(
        observation,
        status.siblings(observation),
        status.product_versions("photometry_table"),
        status.light_cameras(),
    )


def stale_inputs(observatory: Observatory) -> dict[Observation, dict[str, str]]:
    """Return whose magnitudes exist and would come out otherwise by now, decided on or not.

    With the versions that they are to be made of, by name. They would when a sibling filter was
    measured, or measured again, since, and when the stored coefficients of their camera and
    instrument epoch are others. In the order of `StatusDatabase.targets`. Only a camera with
    coefficients makes anything of its siblings.
    """
    from wombat_dagster.stages.coefficients import KnownCoefficients

    status = observatory.status
    used = status.product_inputs_of("standard_magnitudes")
    known = KnownCoefficients(observatory)
    if known.is_empty and not any(COEFFICIENTS in inputs for inputs in used.values()):
        return {}
    rows = status.targets()
    versions, cameras = status.product_versions("photometry_table"), status.light_cameras()
    units = defaultdict(list)
    for row in rows:
        units[row.observation.date, row.observation.target].append(row.observation)
    stale = {}
    for row in rows:
        one = row.observation
        if one.key not in used:
            continue
        coefficients = known.of(cameras[one.key], one.date)
        if not coefficients.values and COEFFICIENTS not in used[one.key]:
            continue
        wanted = {}
        if coefficients.values:
            wanted = _versions(one, units[one.date, one.target], versions, cameras)
        if coefficients.version:
            wanted[COEFFICIENTS] = coefficients.version
        if used[one.key] != wanted:
            stale[one] = wanted
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
