"""Pictures of a measured night: where its stars are, how steady they were, what T2 says of it."""

from collections.abc import Sequence

from wombat_dagster.domain import (
    CompCandidates,
    FrameSolution,
    Observation,
    PhotometryTable,
    Reduction,
    StandardMagnitudes,
)
from wombat_dagster.observatory import Observatory
from wombat_dagster.reports.control_chart import control_chart_png
from wombat_dagster.reports.precision import rms_plot_png, series_plot_png
from wombat_dagster.science.precision import measure_precision
from wombat_dagster.stages.finding_chart import finding_chart

FINDING_CHART = "finding_chart"
PRECISION = "precision"
SERIES = "series"
CONTROL_CHART = "control_chart"


def draw_diagnostics(
    observatory: Observatory,
    observation: Observation,
    reduction: Reduction,
    solutions: Sequence[FrameSolution],
    candidates: CompCandidates,
    table: PhotometryTable,
    magnitudes: StandardMagnitudes,
) -> dict[str, bytes]:
    """Return the night's pictures as PNGs by name; no control chart where no T2 was measured."""
    pictures = {
        FINDING_CHART: finding_chart(
            observatory, observation, reduction, solutions, table, candidates
        ),
        PRECISION: rms_plot_png(measure_precision(table)),
        SERIES: series_plot_png(table),
    }
    nights = observatory.status.check_nights(
        table.variable.identity, magnitudes.band, magnitudes.camera
    )
    if nights:
        camera = f", {magnitudes.camera}" if magnitudes.camera else ""
        title = f"Check stars of {table.variable.name} in {magnitudes.band}{camera}"
        pictures[CONTROL_CHART] = control_chart_png(nights, title=title)
    return pictures
