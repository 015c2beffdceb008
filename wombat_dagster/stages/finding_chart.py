"""Draws the finding chart of a measured observation on its typical frame."""

from collections.abc import Mapping, Sequence

import numpy as np

from wombat_dagster.domain import (
    Aperture,
    CompCandidates,
    CompStar,
    FloatArray,
    FrameSolution,
    LedgerEntry,
    Observation,
    PhotometryTable,
    Reduction,
    Unused,
    WcsSolution,
    not_of_the_aavso,
)
from wombat_dagster.observatory import Observatory
from wombat_dagster.reports.finding_chart import Mark, MarkKind, finding_chart_png
from wombat_dagster.science.astrometry import project
from wombat_dagster.stages.photometry import typical_frame
from wombat_dagster.stages.pixels import CalibratedFrames
from wombat_dagster.stages.sequence import charts_on_disk, solved_frames

WORDS = {Unused.OFF_IMAGE: "leaves the frame"}  # it may stand well inside this one


def finding_chart(
    observatory: Observatory,
    observation: Observation,
    reduction: Reduction,
    solutions: Sequence[FrameSolution],
    table: PhotometryTable,
    candidates: CompCandidates,
) -> bytes:
    """Return the finding chart as PNG: the frame nearest the night's median FWHM, all stars marked.

    Raises
    ------
    NoCalibration, UnreadableFrame, OSError
        As `CalibratedFrames.read`.
    """
    index = typical_frame(table.frame_fwhm_px)
    label = table.labels[index]
    frame, solution = next(
        (frame, wcs)
        for frame, _, wcs in solved_frames(reduction, solutions)
        if frame.label == label
    )
    image, _ = CalibratedFrames(observatory, observation, reduction).read(frame)
    stars = chart_stars(observatory, candidates)
    unplaced = sum(e.role is None and e.auid not in stars for e in table.ledger)
    notes = [label, f"chart {table.chart_id}"]
    if unplaced:
        notes.append(f"{unplaced} of its stars no longer on disk")
    if candidates.known_variables is None:
        notes.append("VSX's variables not known")
    return finding_chart_png(
        np.asarray(image, dtype=float),
        marks_on(index, solution, table, candidates, stars),
        solution=solution,
        aperture=_aperture(table, index),
        title=f"{table.variable.name}  {observation.filter}  {observation.date}",
        note="; ".join(notes),
        alarm=not_of_the_aavso(candidates.chart_source) or "",
    )


def _aperture(table: PhotometryTable, index: int) -> Aperture:
    if table.radii_px is None:
        return table.aperture
    radius_px, sky_inner_px, sky_outer_px = map(float, table.radii_px[index])
    return Aperture(radius_px=radius_px, sky_inner_px=sky_inner_px, sky_outer_px=sky_outer_px)


def chart_stars(observatory: Observatory, candidates: CompCandidates) -> dict[str, CompStar]:
    """Return the stars of the chart that was chosen from by AUID, as kept on disk; no network.

    Those that may serve are always there; of the others none when the chart's file is gone.
    """
    versions = [
        chart
        for chart in charts_on_disk(
            observatory,
            chart_ids={candidates.chart_id},
            place=(candidates.variable.ra_deg, candidates.variable.dec_deg),
        )
        if chart.chart_id == candidates.chart_id
    ]
    versions.sort(key=lambda chart: chart.fetched_utc == candidates.chart_fetched_utc)
    stars = (*(versions[-1].stars if versions else ()), *candidates.ranked)
    return {star.auid: star for star in stars}


def marks_on(
    index: int,
    solution: WcsSolution,
    table: PhotometryTable,
    candidates: CompCandidates,
    stars: Mapping[str, CompStar],
) -> list[Mark]:
    """Return the marks of the table's frame `index`: what is measured, what is not used, variables.

    `stars` are those of the chart by AUID.
    """
    return [
        *_measured(table, index, solution, stars),
        *_unused(table.ledger, solution, stars),
        *_variables(candidates, solution),
    ]


def _measured(
    table: PhotometryTable, index: int, solution: WcsSolution, chart: Mapping[str, CompStar]
) -> list[Mark]:
    """Return T1, T2, C3… where they were measured, or where the solution puts them."""
    x_px, y_px = table.measured.x_px[index], table.measured.y_px[index]
    x_wcs, y_wcs = project(
        solution, [s.ra_deg for s in table.stars], [s.dec_deg for s in table.stars]
    )
    marks = []
    for i, star in enumerate(table.stars):
        kind = MarkKind.CHECK if star.role == "T2" else MarkKind.COMP
        kind = MarkKind.TARGET if star.role == "T1" else kind
        has_place = np.isfinite(x_px[i]) and np.isfinite(y_px[i])
        listed = chart.get(star.auid) if star.auid and i else None
        marks.append(
            Mark(
                kind=kind,
                x_px=float(x_px[i] if has_place else x_wcs[i]),
                y_px=float(y_px[i] if has_place else y_wcs[i]),
                words=f"{star.role} {listed.label if listed else star.name}",
            )
        )
    return marks


def _unused(
    ledger: Sequence[LedgerEntry], solution: WcsSolution, chart: Mapping[str, CompStar]
) -> list[Mark]:
    entries = [
        (entry.reason, chart[entry.auid])
        for entry in ledger
        if entry.reason is not None and entry.reason is not Unused.IS_TARGET and entry.auid in chart
    ]
    places = _places(solution, [star for _, star in entries])
    return [
        Mark(
            kind=MarkKind.REJECTED,
            x_px=float(x),
            y_px=float(y),
            words=WORDS.get(reason, str(reason).replace("_", " ")),
        )
        for (reason, _), x, y in zip(entries, *places, strict=True)
        if np.isfinite(x)
    ]


def _variables(candidates: CompCandidates, solution: WcsSolution) -> list[Mark]:
    known = candidates.known_variables or ()
    x_px, y_px = project(solution, [v.ra_deg for v in known], [v.dec_deg for v in known])
    return [
        Mark(kind=MarkKind.VARIABLE, x_px=float(x), y_px=float(y), words=star.name)
        for star, x, y in zip(known, x_px, y_px, strict=True)
        if np.isfinite(x)
    ]


def _places(solution: WcsSolution, stars: Sequence[CompStar]) -> tuple[FloatArray, FloatArray]:
    return project(solution, [s.ra_deg for s in stars], [s.dec_deg for s in stars])
