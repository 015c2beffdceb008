"""Finds the variable and the chart stars that may serve, for the extent of the frames."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from wombat_dagster import config
from wombat_dagster.catalogs.vsp import FOV_LADDER_ARCMIN
from wombat_dagster.domain import (
    Aperture,
    CompCandidates,
    FrameSolution,
    Observation,
    ReducedFrame,
    Reduction,
    Variable,
    WcsSolution,
)
from wombat_dagster.observatory import Observatory
from wombat_dagster.science.astrometry import chart_radius_arcmin, position_at_epoch
from wombat_dagster.science.profile import choose_aperture
from wombat_dagster.science.sequence import (
    UnknownFilter,
    band_of,
    select_candidates,
)

Solved = list[tuple[ReducedFrame, FrameSolution, WcsSolution]]

JD_OF_ORDINAL_0 = 1721424.5


def solved_frames(reduction: Reduction, solutions: Sequence[FrameSolution]) -> Solved:
    """Return the frames that are solved, in time order, with their solutions."""
    by_file = {s.file: s for s in solutions}
    return [
        (frame, by_file[frame.raw], solution)
        for frame in reduction.frames
        if frame.raw in by_file and (solution := by_file[frame.raw].solution) is not None
    ]


def find_variable(observatory: Observatory, observation: Observation) -> Variable:
    """Return the variable that the target directory means. Raises what `Vsx.variable` does."""
    target = observatory.settings.for_target(observation.target)
    return observatory.vsx.variable(observation.target, target)


def choose_comps(
    observatory: Observatory,
    observation: Observation,
    reduction: Reduction,
    solutions: Sequence[FrameSolution],
    variable: Variable,
) -> CompCandidates:
    """Return the chart stars that may serve, for the extent of the frames around the variable.

    The margin at the edges is an estimate, from the detections' FWHM: the fitted one, of which the
    aperture is made, is known only when the stars are measured.

    Raises
    ------
    BadPsf
        No frame has a FWHM. Otherwise what `select_candidates` and the chart's source raise.
    """
    solved = solved_frames(reduction, solutions)
    group, settings = reduction.group, observatory.settings
    target = settings.for_target(observation.target) or config.TargetSettings(directory=[])
    radius_arcmin = chart_radius_arcmin(
        [wcs for _, _, wcs in solved],
        group.width_px,
        group.height_px,
        variable.ra_deg,
        variable.dec_deg,
    )
    chart = observatory.vsp.chart(
        variable.ra_deg, variable.dec_deg, 2 * radius_arcmin, settings.aavso.maglimit
    )
    annulus_px = aperture_of(settings.photometry, detected_fwhm_px(solved)).sky_outer_px
    candidates = select_candidates(
        chart,
        variable,
        [(frame.label, wcs) for frame, _, wcs in solved],
        group.width_px,
        group.height_px,
        header_filter=observation.filter,
        overrides=settings.for_camera(group.camera).filters,
        margin_px=annulus_px + settings.comps.edge_margin_px,
        window=settings.comps.window,
        window_mag=settings.comps.window_mag,
        check=target.check,
        comps=target.comps,
        ban=target.ban,
        target_place=position_at_epoch(variable, _jd(observation)),
        target_colour=target.colour.get("B-V"),
        other_bands=_other_bands(observatory, observation, group.camera),
    )
    notes = [*chart.notes, *candidates.notes]
    if 2 * radius_arcmin > FOV_LADDER_ARCMIN[-1]:
        notes.append(f"frames wider than the chart: comps from its {FOV_LADDER_ARCMIN[-1]:.0f}'")
    return replace(candidates, notes=tuple(notes))


def detected_fwhm_px(solved: Solved) -> float:
    """Return the median FWHM of the detections over the frames that have one, NaN when none has."""
    widths_px = np.array([s.fwhm_median_px or np.nan for _, s, _ in solved])
    widths_px = widths_px[np.isfinite(widths_px)]
    return float(np.median(widths_px)) if widths_px.size else np.nan


def _jd(observation: Observation) -> float:
    """Return the JD of the night's midnight: near enough for a proper motion."""
    return observation.date.toordinal() + JD_OF_ORDINAL_0


def _other_bands(
    observatory: Observatory, observation: Observation, camera: str | None
) -> list[str]:
    """Return the comparison bands of the target's other filters, of any night."""
    overrides = observatory.settings.for_camera(camera).filters
    bands = set()
    for row in observatory.status.targets():
        other = row.observation
        if other.target == observation.target and other.filter != observation.filter:
            try:
                bands.add(band_of(other.filter, overrides)[1])
            except UnknownFilter:
                continue
    return sorted(bands)


def aperture_of(settings: config.PhotometrySettings, fwhm_px: float) -> Aperture:
    return choose_aperture(
        fwhm_px,
        radius_fwhm=settings.radius_fwhm,
        sky_inner_fwhm=settings.sky_inner_fwhm,
        sky_outer_fwhm=settings.sky_outer_fwhm,
        min_radius_px=settings.min_radius_px,
        radius_px=settings.radius_px,
        sky_inner_px=settings.sky_inner_px,
        sky_outer_px=settings.sky_outer_px,
    )
