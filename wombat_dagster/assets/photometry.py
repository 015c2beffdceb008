"""Assets from the variable's name to a light curve that waits for validation."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import dagster as dg
import numpy as np

from wombat_dagster.assets.conclude import Event, conclude
from wombat_dagster.assets.pictures import picture
from wombat_dagster.checks import check_specs
from wombat_dagster.domain import (
    CompCandidates,
    CompResidual,
    FloatArray,
    FrameSolution,
    LedgerEntry,
    PhotometryTable,
    Reduction,
    StandardMagnitudes,
    Variable,
)
from wombat_dagster.partitions import OBSERVATIONS
from wombat_dagster.resources import ObservatoryResource
from wombat_dagster.review.address import page_address
from wombat_dagster.stages.work import WHY_TAG

PHOTOMETRY = "photometry"
SOLUTIONS = dg.AssetIn(dagster_type=dg.PythonObjectDagsterType(tuple))
"""Dagster cannot read ``tuple[FrameSolution, ...]`` off the annotation."""


def _ledger(entries: tuple[LedgerEntry, ...]) -> dg.TableMetadataValue | str:
    if not entries:
        return "empty"
    return dg.MetadataValue.table(
        [
            dg.TableRecord(
                {
                    "auid": entry.auid,
                    "label": entry.label,
                    "used_as": entry.role or "",
                    "not_used": str(entry.reason or ""),
                    "detail": entry.detail,
                }
            )
            for entry in entries
        ]
    )


@dg.asset(
    partitions_def=OBSERVATIONS,
    group_name=PHOTOMETRY,
    op_tags={"dagster/priority": "2"},  # before frame_triage, which uses it
    deps=["wcs_solutions"],
    output_required=False,
    check_specs=check_specs("variable"),
)
def variable(
    context: dg.AssetExecutionContext, observatory: ObservatoryResource
) -> Iterator[Event]:
    """The variable star, from VSX or the configuration."""
    from wombat_dagster.stages.sequence import find_variable

    def describe(star: Variable) -> dict[str, Any]:
        return {
            "name": star.name,
            "type": star.variability_type or "not known",
            "range": f"{star.mag_bright} to {star.mag_faint}",
            "match": f"{star.match} ({star.source})",
        }

    opened = observatory.open()
    observation = opened.status.target_row(context.partition_key).observation
    yield from conclude(context, opened, lambda: find_variable(opened, observation), describe)


@dg.asset(
    partitions_def=OBSERVATIONS,
    group_name=PHOTOMETRY,
    ins={"wcs_solutions": SOLUTIONS},
    output_required=False,
    check_specs=check_specs("comp_list"),
)
def comp_list(
    context: dg.AssetExecutionContext,
    observatory: ObservatoryResource,
    reduced_frames: Reduction,
    wcs_solutions: tuple[FrameSolution, ...],
    variable: Variable,
) -> Iterator[Event]:
    """The chart stars that may serve as T2, C3…, and why the others may not."""
    from wombat_dagster.stages.sequence import choose_comps

    def describe(comps: CompCandidates) -> dict[str, Any]:
        return {
            "candidates": len(comps.ranked),
            "chart": f"{comps.chart_id} ({comps.chart_source}, {comps.chart_fetched_utc})",
            "chart_version": comps.chart_version or "not recorded",
            "band": f"{comps.band} (comps in {comps.comp_band})",
            "not_used": _ledger(comps.ledger),
            "known_variables": "not known"
            if comps.known_variables is None
            else len(comps.known_variables),
            "notes": dg.MetadataValue.json(list(comps.notes)),
        }

    opened = observatory.open()
    observation = opened.status.target_row(context.partition_key).observation
    yield from conclude(
        context,
        opened,
        lambda: choose_comps(opened, observation, reduced_frames, wcs_solutions, variable),
        describe,
    )


@dg.asset(
    partitions_def=OBSERVATIONS,
    group_name=PHOTOMETRY,
    ins={"wcs_solutions": SOLUTIONS},
    output_required=False,
    check_specs=check_specs("photometry_table"),
)
def photometry_table(
    context: dg.AssetExecutionContext,
    observatory: ObservatoryResource,
    reduced_frames: Reduction,
    wcs_solutions: tuple[FrameSolution, ...],
    comp_list: CompCandidates,
) -> Iterator[Event]:
    """Measurements of T1, T2, C3… on every frame; also as AstroImageJ's table."""
    from wombat_dagster.stages.photometry import measure_observation

    opened = observatory.open()
    observation = opened.status.target_row(context.partition_key).observation

    def describe(table: PhotometryTable) -> dict[str, Any]:
        aperture = table.aperture
        return {
            "frames": len(table.labels),
            "comps_used": len(table.ensemble),
            "fwhm_px": round(float(np.median(table.frame_fwhm_px)), 2),
            "radii_px": f"{aperture.radius_px:.2f} {aperture.sky_inner_px:.2f}"
            f" {aperture.sky_outer_px:.2f}",
            "table": dg.MetadataValue.path(str(opened.layout.phot_table_path(observation))),
            "stars": _ledger(table.ledger),
            "field_stars": 0 if table.field is None else len(table.field.ra_deg),
            "notes": dg.MetadataValue.json(list(table.notes)),
        }

    yield from conclude(
        context,
        opened,
        lambda: measure_observation(opened, observation, reduced_frames, wcs_solutions, comp_list),
        describe,
    )


@dg.asset(
    partitions_def=OBSERVATIONS,
    group_name=PHOTOMETRY,
    output_required=False,
    check_specs=check_specs("standard_magnitudes"),
)
def standard_magnitudes(
    context: dg.AssetExecutionContext,
    observatory: ObservatoryResource,
    reduced_frames: Reduction,
    photometry_table: PhotometryTable,
) -> Iterator[Event]:
    """Standard magnitudes of T1 and T2, with the random and the zero-point error apart."""
    from wombat_dagster.stages.events import note_brightness, tell_soon
    from wombat_dagster.stages.remade import magnitudes_before, record_change
    from wombat_dagster.stages.standard import standard_magnitudes_of

    opened = observatory.open()
    observation = opened.status.target_row(context.partition_key).observation
    before = magnitudes_before(opened, observation.key)

    def describe(magnitudes: StandardMagnitudes) -> dict[str, Any]:
        why = context.run.tags.get(WHY_TAG)
        change = record_change(opened, observation.key, before, magnitudes, why=why)
        found = note_brightness(opened, observation, photometry_table.variable, magnitudes)
        return {
            **describe_magnitudes(magnitudes),
            **({"changed": change.words} if change is not None else {}),
            **({"events": "; ".join(found)} if found else {}),
        }

    yield from conclude(
        context,
        opened,
        lambda: standard_magnitudes_of(opened, observation, reduced_frames, photometry_table),
        describe,
    )
    tell_soon(opened)


def describe_magnitudes(magnitudes: StandardMagnitudes) -> dict[str, Any]:
    """Return what Dagster shows of a night; what has no value is left out."""
    from wombat_dagster.reports.export import transformation_words

    facts = {
        "chart": magnitudes.chart_id,
        "comps_from": magnitudes.comp_source or "not recorded",
        "colour_term": transformation_words(magnitudes.transformation),
        "median_mag": _median(magnitudes.t1_mag[~magnitudes.t1_upper_limit]),
        "upper_limits": int(magnitudes.t1_upper_limit.sum()),
        "random_mag": _median(magnitudes.t1_random_mag),
        "zp_err_mag": _rounded(magnitudes.zp_err_mag),
        "t2_offset_mag": _rounded(magnitudes.check_offset_mag),
        "t2_scatter_mag": _rounded(magnitudes.check_scatter_mag),
        "method": magnitudes.method,
        "transformed": magnitudes.transformed,
        "comps": _residuals(magnitudes.comp_residuals) if magnitudes.comp_residuals else None,
        "notes": dg.MetadataValue.json(list(magnitudes.notes)),
    }
    return {k: v for k, v in facts.items() if v is not None}


def _median(values: FloatArray) -> float | None:
    finite = values[np.isfinite(values)]
    return _rounded(np.median(finite)) if len(finite) else None


def _rounded(value: float | np.floating[Any] | None) -> float | None:
    """Round to 0.1 mmag; None for what is no number: the UI's GraphQL refuses NaN."""
    return None if value is None or not np.isfinite(value) else round(float(value), 4)


def _residuals(comps: tuple[CompResidual, ...]) -> dg.TableMetadataValue:
    return dg.MetadataValue.table(
        [
            dg.TableRecord(
                {
                    "comp": comp.name,
                    "residual_mag": _rounded(comp.residual_mag),
                    "catalogue_error_mag": _rounded(comp.catalogue_error_mag),
                    "frames": comp.n_frames,
                }
            )
            for comp in comps
        ]
    )


@dg.asset(
    partitions_def=OBSERVATIONS,
    group_name=PHOTOMETRY,
    output_required=False,
    check_specs=check_specs("light_curve"),
)
def light_curve(
    context: dg.AssetExecutionContext,
    observatory: ObservatoryResource,
    standard_magnitudes: StandardMagnitudes,
) -> Iterator[Event]:
    """The light curve of T1 and T2 for the person who validates it."""
    from wombat_dagster.reports.light_curve import light_curve_png

    opened = observatory.open()
    page = page_address("127.0.0.1", opened.settings.review.port, None)

    def describe(png: bytes) -> dict[str, Any]:
        return {
            "plot": picture(png, "light curve"),
            "decide": dg.MetadataValue.url(f"{page}#{quote(context.partition_key)}"),
        }

    yield from conclude(context, opened, lambda: light_curve_png(standard_magnitudes), describe)


@dg.asset(
    partitions_def=OBSERVATIONS,
    group_name=PHOTOMETRY,
    ins={"wcs_solutions": SOLUTIONS},
    output_required=False,
    check_specs=check_specs("diagnostics"),
)
def diagnostics(
    context: dg.AssetExecutionContext,
    observatory: ObservatoryResource,
    reduced_frames: Reduction,
    wcs_solutions: tuple[FrameSolution, ...],
    comp_list: CompCandidates,
    photometry_table: PhotometryTable,
    standard_magnitudes: StandardMagnitudes,
) -> Iterator[Event]:
    """Pictures to judge a night by: finding chart, precision, series, check stars over nights."""
    from wombat_dagster.stages.diagnostics import draw_diagnostics

    def describe(pictures: dict[str, bytes]) -> dict[str, Any]:
        return {name: picture(png, name.replace("_", " ")) for name, png in pictures.items()}

    opened = observatory.open()
    observation = opened.status.target_row(context.partition_key).observation
    yield from conclude(
        context,
        opened,
        lambda: draw_diagnostics(
            opened,
            observation,
            reduced_frames,
            wcs_solutions,
            comp_list,
            photometry_table,
            standard_magnitudes,
        ),
        describe,
    )
