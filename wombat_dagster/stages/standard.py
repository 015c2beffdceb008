"""Turns a measurement table into standard magnitudes, with what the sibling filters tell."""

from collections.abc import Iterable
from dataclasses import replace

from wombat_dagster.domain import (
    Observation,
    PhotometryTable,
    Reduction,
    StandardMagnitudes,
    Transformation,
)
from wombat_dagster.observatory import Observatory
from wombat_dagster.products import read_product
from wombat_dagster.science.standard import choose_transformation, standardise
from wombat_dagster.stages.siblings import sibling_versions
from wombat_dagster.store.tables import UnreadableProduct


def transformation_of(
    observatory: Observatory, observation: Observation, reduction: Reduction, band: str
) -> Transformation:
    instrument = observatory.settings.for_camera(reduction.group.camera)
    target = observatory.settings.for_target(observation.target)
    return choose_transformation(
        band,
        instrument.transform,
        instrument.transform_error,
        target.colour if target else {},
        target.colour_error if target else {},
    )


def standard_magnitudes_of(
    observatory: Observatory,
    observation: Observation,
    reduction: Reduction,
    table: PhotometryTable,
) -> StandardMagnitudes:
    """Return the standard magnitudes of T1 and T2, with the colour of what siblings there are.

    A sibling whose table is gone or damaged is none, and noted. Raises NoStandard.
    """
    instrument = observatory.settings.for_camera(reduction.group.camera)
    versions = sibling_versions(observatory, observation) if instrument.transform else {}
    siblings, lost = _readable(observatory, versions)
    magnitudes = standardise(
        table,
        transformation=transformation_of(observatory, observation, reduction, table.band),
        merr=observatory.settings.magnitudes.merr,
        siblings=list(siblings.values()),
        coefficients=instrument.transform,
        coefficient_errors=instrument.transform_error,
    )
    return replace(
        magnitudes,
        sibling_versions={key: versions[key] for key in siblings},
        notes=(*magnitudes.notes, *lost),
    )


def _readable(
    observatory: Observatory, keys: Iterable[str]
) -> tuple[dict[str, PhotometryTable], list[str]]:
    """Return the tables that can be read, by their keys, and a note for each that cannot."""
    tables, notes = {}, []
    for key in keys:
        try:
            tables[key] = read_product(observatory, "photometry_table", key)
        except FileNotFoundError:
            notes.append(f"no colour from {key}: its measurements are gone")
        except UnreadableProduct:
            notes.append(f"no colour from {key}: its measurements are damaged")
    return tables, notes
