"""The asset that says where every frame points."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from wombat_dagster.assets.conclude import Event, conclude
from wombat_dagster.checks import check_specs
from wombat_dagster.domain import FrameSolution, Reduction
from wombat_dagster.partitions import OBSERVATIONS
from wombat_dagster.resources import ObservatoryResource


@dg.asset(
    op_tags={"dagster/priority": "2"},  # before frame_triage, which uses them
    partitions_def=OBSERVATIONS,
    group_name="astrometry",
    output_required=False,
    check_specs=check_specs("wcs_solutions"),
)
def wcs_solutions(
    context: dg.AssetExecutionContext,
    observatory: ObservatoryResource,
    reduced_frames: Reduction,
) -> Iterator[Event]:
    """Plate solutions of the reduced frames, also in their headers and in the table WCS."""
    from wombat_dagster.stages.solving import solve_observation

    def describe(solutions: tuple[FrameSolution, ...]) -> dict[str, Any]:
        solved = [s for s in solutions if s.solution is not None]
        first = solved[0].solution
        assert first is not None
        widths = sorted(s.fwhm_median_px for s in solved if s.fwhm_median_px is not None)
        unsolved = [f"{s.file}: {s.reason} {s.message}" for s in solutions if s.solution is None]
        return {
            "solved": len(solved),
            "unsolved": dg.MetadataValue.json(unsolved),
            "solvers": ", ".join(sorted({s.solver or "?" for s in solved})),
            "scale_arcsec_px": round(first.scale_arcsec_px, 4),
            "rotation_deg": round(first.rotation_deg, 2),
            "fwhm_px": round(widths[len(widths) // 2], 2) if widths else "not known",
        }

    opened = observatory.open()
    observation = opened.status.target_row(context.partition_key).observation
    yield from conclude(
        context, opened, lambda: solve_observation(opened, observation, reduced_frames), describe
    )
