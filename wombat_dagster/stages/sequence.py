"""Finds the variable and the chart stars that may serve, for the extent of the frames."""

import logging
from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np

from wombat_dagster import config
from wombat_dagster.catalogs.base import BadAnswer, BadRequest
from wombat_dagster.catalogs.cache import AnswerCache
from wombat_dagster.catalogs.vsp import (
    FOV_LADDER_ARCMIN,
    chart_request,
    chart_version,
    read_chart,
)
from wombat_dagster.domain import (
    Aperture,
    ChartRequest,
    CompCandidates,
    CompSequence,
    FrameSolution,
    KnownVariable,
    NoComps,
    Observation,
    ReducedFrame,
    Reduction,
    Variable,
    VspUnavailable,
    VsxUnavailable,
    WcsSolution,
)
from wombat_dagster.observatory import Observatory
from wombat_dagster.science.apertures import choose_aperture
from wombat_dagster.science.astrometry import (
    chart_radius_arcmin,
    position_at_epoch,
    separation_deg,
)
from wombat_dagster.science.sequence import (
    PersonsChoices,
    UnknownFilter,
    band_of,
    measured_magnitude,
    select_candidates,
)
from wombat_dagster.stages.pixels import CalibratedFrames
from wombat_dagster.store.comp_choices import Choice, CompChoices

log = logging.getLogger(__name__)

Solved = list[tuple[ReducedFrame, FrameSolution, WcsSolution]]

JD_OF_ORDINAL_0 = 1721424.5
SAME_CENTRE_DEG = 0.002  # charts are centred on the variable, to 0.001 degrees


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

    With VSP away and ``[comps] fallback`` allowed they are stars of a catalogue: `chart_source` and
    the notes say so. Whether a field has no comparison stars only VSP can say.

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
    request = chart_request(
        variable.ra_deg, variable.dec_deg, 2 * radius_arcmin, settings.aavso.maglimit
    )
    chart, vsp_away = _chart(observatory, request)
    overrides = settings.for_camera(group.camera).filters
    _, comp_band, _ = band_of(observation.filter, overrides)
    place = position_at_epoch(variable, _jd(observation))
    measured_mag = None
    if variable.mag_bright is None:
        frame, wcs = _typical(solved)
        measured_mag = measured_magnitude(
            CalibratedFrames(observatory, observation, reduction).stars(frame),
            wcs,
            place,
            chart.stars,
            comp_band,
            fwhm_px=detected_fwhm_px(solved),
        )
    other_bands = _other_bands(observatory, observation, group.camera)
    known, known_note = _known_variables(observatory, variable, radius_arcmin / 60.0)
    annulus_px = aperture_of(settings.photometry, detected_fwhm_px(solved)).sky_outer_px
    try:
        candidates = select_candidates(
            chart,
            variable,
            [(frame.label, wcs) for frame, _, wcs in solved],
            group.width_px,
            group.height_px,
            header_filter=observation.filter,
            overrides=overrides,
            margin_px=annulus_px + settings.comps.edge_margin_px,
            window=settings.comps.window,
            window_mag=settings.comps.window_mag,
            choices=persons_choices(observatory, observation.target),
            known_variables=known,
            target_place=place,
            target_colour=target.colour.get("B-V"),
            measured_mag=measured_mag,
            other_bands=other_bands,
        )
    except NoComps as nothing:
        if vsp_away is None:
            raise
        raise VspUnavailable("; ".join([*chart.notes, str(vsp_away), str(nothing)])) from nothing
    band_notes = [chart.band_notes.get(band) for band in (comp_band, *other_bands)]
    notes = [
        *chart.notes,
        *dict.fromkeys(note for note in band_notes if note),
        *known_note,
        *candidates.notes,
    ]
    if 2 * radius_arcmin > FOV_LADDER_ARCMIN[-1]:
        notes.append(f"frames wider than the chart: comps from its {FOV_LADDER_ARCMIN[-1]:.0f}'")
    return replace(
        candidates,
        notes=tuple(notes),
        chart_request=request,
        chart_version=chart_version(chart, request),
    )


def _chart(
    observatory: Observatory, request: ChartRequest
) -> tuple[CompSequence, VspUnavailable | None]:
    """Return VSP's chart, or with VSP away what stands in for it, if that is wanted, and why.

    The chart's notes are for good; that VSP is asked again later is not.
    """
    asked = request.ra_deg, request.dec_deg, request.fov_arcmin, request.maglimit
    try:
        return observatory.vsp.chart(*asked), None
    except VspUnavailable as away:
        settings = observatory.settings
        if settings.comps.fallback == "off":
            raise
        from wombat_dagster.catalogs.vizier import Vizier

        vizier = Vizier(settings.aavso, observatory.layout.cache, settings.comps.fallback)
        try:
            chart = vizier.chart(*asked)
        except VspUnavailable as also:
            raise VspUnavailable(f"{away}; {also}") from also
        log.warning("VSP is away, %s serves: %s", chart.source, away)
        return replace(chart, notes=(*chart.notes, observatory.vsp.note_of_outage())), away


def chart_version_now(observatory: Observatory, request: ChartRequest) -> str | None:
    """Return the version of VSP's newest chart on disk for a request; None when there is none.

    Another one than `CompCandidates.chart_version` tells that the stars an observation was made
    with are other ones now. Cheap enough for thousands of observations; nobody is asked.
    """
    return observatory.vsp.version_now(request)


def _known_variables(
    observatory: Observatory, variable: Variable, radius_deg: float
) -> tuple[tuple[KnownVariable, ...] | None, list[str]]:
    """Return the variables of the field by VSX; None, and a note on it, when it cannot be asked.

    The chart's own comments still serve then: the observation is not parked for this.
    """
    try:
        return observatory.vsx.variables_around(variable.ra_deg, variable.dec_deg, radius_deg), []
    except (VsxUnavailable, BadRequest) as away:
        log.warning("the variables of the field are not known: %s", away)
        is_away = isinstance(away, VsxUnavailable)
        words = observatory.vsx.note_of_outage() if is_away else str(away)
        return None, [f"comps not compared with VSX's variables: {words}"]


def persons_choices(observatory: Observatory, target: str) -> PersonsChoices:
    """Return the comps a person chose for a target: in wombat.toml, else with ``wombat comps``.

    On a star, or a check star, of which wombat.toml speaks, it is wombat.toml that counts; its
    `comps` speak of all stars.
    """
    settings = observatory.settings.for_target(target) or config.TargetSettings(directory=[])
    chosen = CompChoices(observatory.status.path).of(names_of(observatory, target))
    spoken_of = {settings.check, *settings.comps, *settings.ban}
    free = {auid: choice for auid, choice in chosen.items() if auid not in spoken_of}
    checks = [auid for auid, choice in free.items() if choice is Choice.CHECK]
    return PersonsChoices(
        check=settings.check or next(iter(checks), None),
        pins=tuple(
            auid for auid, choice in free.items() if choice is Choice.PIN and not settings.comps
        ),
        comps=tuple(settings.comps),
        ban=(*settings.ban, *(auid for auid, choice in free.items() if choice is Choice.BAN)),
    )


def names_of(observatory: Observatory, target: str) -> list[str]:
    """Return the directories of a target, `target` first: ``[[target]]`` may give it several."""
    settings = observatory.settings.for_target(target)
    others = settings.directory if settings else []
    return [target, *(name for name in others if name.casefold() != target.casefold())]


def charts_on_disk(
    observatory: Observatory,
    *,
    chart_ids: Collection[str] = (),
    place: tuple[float, float] | None = None,
) -> list[CompSequence]:
    """Return the charts kept on disk of these ids, or about `place` (degrees), the newest last.

    Those of a catalogue, which all have its name for an id, are about `place` where it is given.
    Nobody is asked.
    """
    from wombat_dagster.catalogs.vizier import charts_kept

    charts = [
        chart
        for chart in charts_kept(observatory.layout.cache, chart_ids)
        if place is None or separation_deg(chart.ra_deg, chart.dec_deg, *place) <= SAME_CENTRE_DEG
    ]
    for _, kept in AnswerCache(observatory.layout.cache / "vsp").all():
        try:
            chart_id, stars = read_chart(kept.content)
            centre = float(kept.request["ra_deg"]), float(kept.request["dec_deg"])
        except (BadAnswer, KeyError, TypeError, ValueError):
            continue
        about = (
            place is not None
            and separation_deg(*centre, *place) <= SAME_CENTRE_DEG
            and "special" not in kept.request  # a chart of standard stars
        )
        if chart_id in chart_ids or about:
            chart = CompSequence(
                chart_id=chart_id,
                ra_deg=centre[0],
                dec_deg=centre[1],
                fov_arcmin=kept.request["fov_arcmin"],
                maglimit=kept.request["maglimit"],
                stars=stars,
                fetched_utc=kept.fetched_utc,
            )
            charts.append(chart)
    return sorted(charts, key=lambda chart: chart.fetched_utc)


def detected_fwhm_px(solved: Solved) -> float:
    """Return the median FWHM of the detections over the frames that have one, NaN when none has."""
    widths_px = np.array([s.fwhm_median_px or np.nan for _, s, _ in solved])
    widths_px = widths_px[np.isfinite(widths_px)]
    return float(np.median(widths_px)) if widths_px.size else np.nan


def _typical(solved: Solved) -> tuple[ReducedFrame, WcsSolution]:
    """Return the frame nearest the median FWHM of the detections, with its solution."""
    median_px = detected_fwhm_px(solved)
    frame, _, wcs = min(solved, key=lambda s: abs((s[1].fwhm_median_px or np.inf) - median_px))
    return frame, wcs


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
        is_other = other.target == observation.target and other.filter != observation.filter
        if is_other and row.retired_utc is None:
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
