"""Measures an observation: frames, times and chart stars in, a measurement table out."""

import logging
from collections.abc import Sequence

import numpy as np

from wombat_dagster.config import PhotometrySettings
from wombat_dagster.domain import (
    BadPsf,
    CompCandidates,
    DetectorFacts,
    FloatArray,
    FrameSolution,
    FrameTimes,
    NoFrames,
    Observation,
    PhotometryTable,
    ReducedFrame,
    Reduction,
    Site,
    StarMeasurements,
    Variable,
)
from wombat_dagster.observatory import Observatory
from wombat_dagster.science.astrometry import position_at_epoch, project
from wombat_dagster.science.photometry import measure_stars, relative_fluxes
from wombat_dagster.science.profile import FrameProfile, fit_frame_profile
from wombat_dagster.science.sequence import assign_roles, crowded
from wombat_dagster.science.site import choose_site
from wombat_dagster.science.timing import frame_times
from wombat_dagster.stages.pixels import CalibratedFrames
from wombat_dagster.stages.sequence import Solved, aperture_of, solved_frames
from wombat_dagster.stages.standard import transformation_of
from wombat_dagster.store.frames import read_master

log = logging.getLogger(__name__)

COLOUR_BANDS = {"B-V": ("B", "V"), "V-I": ("V", "Ic")}


def measure_observation(
    observatory: Observatory,
    observation: Observation,
    reduction: Reduction,
    solutions: Sequence[FrameSolution],
    candidates: CompCandidates,
) -> PhotometryTable:
    """Measure T1, T2, C3… on every solved frame.

    Raises
    ------
    NoSite, BadSite, NoTime
        The times and airmasses cannot be had, or cannot be right.
    BadPsf
        No frame has a star to take the aperture from.
    NoComps
        Not one candidate survives saturation, crowding and noise.
    """
    dropped = set(candidates.dropped_frames)
    solved = [s for s in solved_frames(reduction, solutions) if s[0].label not in dropped]
    if not solved:
        raise NoFrames("no solved frame shows the variable")
    settings, facts = observatory.settings, reduction.detector
    frames = [frame for frame, _, _ in solved]
    site = _site(observatory, frames, candidates.variable)
    exposure_s = np.array([frame.exposure_s for frame in frames])
    times = _times(frames, exposure_s, candidates.variable, site)
    pixels = CalibratedFrames(observatory, observation, reduction)
    profile, reference = night_profile(pixels, solved, facts, settings.photometry)
    fwhm_px = _frame_fwhm(solved, profile, reference)
    median_fwhm_px = float(np.median(fwhm_px))
    typical = typical_frame(fwhm_px)
    aperture = aperture_of(settings.photometry, median_fwhm_px)
    place = position_at_epoch(candidates.variable, float(np.median(times.jd_utc)))
    ra_deg = np.array([place[0], *(star.ra_deg for star in candidates.ranked)])
    dec_deg = np.array([place[1], *(star.dec_deg for star in candidates.ranked)])
    gain = facts.gain_e_adu.value if facts.gain_e_adu else None
    dark_e_s_px = _dark_e_s_px(observatory, reduction, gain)
    limit_px = settings.photometry.recentre_limit_px
    series, places, crowding = [], {}, None
    for index, ((frame, record, wcs), (image, mask)) in enumerate(
        zip(solved, pixels.stream(frames), strict=True)
    ):
        x_px, y_px = project(wcs, ra_deg, dec_deg)
        places[record.file] = (float(x_px[0]), float(y_px[0]))
        series.append(
            measure_stars(
                image,
                mask,
                x_px,
                y_px,
                aperture=aperture,
                gain_e_adu=gain,
                read_noise_e=facts.read_noise_e.value if facts.read_noise_e else None,
                recentre_limit_px=limit_px if limit_px is not None else float(fwhm_px[index]),
                dark_e_px=dark_e_s_px * frame.exposure_s,
                solution=wcs,
                fwhm_px=float(fwhm_px[index]),
            )
        )
        if index == typical:
            crowding = crowded(
                x_px[1:],
                y_px[1:],
                series[-1].source_sky_adu[1:],
                pixels.stars(frame),
                radius_px=aperture.radius_px,
                fwhm_px=median_fwhm_px,
            )
    observatory.status.record_target_places(observation, places)
    measured = StarMeasurements.stack(series)
    transformation = transformation_of(observatory, observation, reduction, candidates.band)
    stars, indices, ledger = assign_roles(
        candidates,
        measured,
        crowding=crowding,
        colour_index=COLOUR_BANDS.get(transformation.colour_index or ""),
        target_colour=transformation.target_colour,
    )
    kept = measured.stars(indices)
    log.info("%s: %d frames, %d stars", observation.key, len(frames), len(stars))
    return PhotometryTable(
        target=observation.target,
        filter=observation.filter,
        band=candidates.band,
        comp_band=candidates.comp_band,
        band_confirmed=candidates.band_confirmed,
        chart_id=candidates.chart_id,
        variable=candidates.variable,
        labels=tuple(frame.label for frame in frames),
        raw_hashes=tuple(frame.raw_hash for frame in frames),
        times=times,
        exposure_s=exposure_s,
        ccd_temperature_c=np.array(
            [np.nan if f.ccd_temperature_c is None else f.ccd_temperature_c for f in frames]
        ),
        frame_fwhm_px=fwhm_px,
        stars=tuple(stars),
        measured=kept,
        aperture=aperture,
        frame_height_px=reduction.group.height_px,
        gain_e_adu=gain,
        read_noise_e=facts.read_noise_e.value if facts.read_noise_e else None,
        saturation_adu=facts.saturation_adu.value,
        linearity_adu=facts.linearity_adu.value,
        ledger=ledger,
        relative=relative_fluxes(kept, stars),
        pedestal_removed="bias" not in reduction.choice.missing,
        notes=(
            *_missing_calibration(reduction),
            *candidates.variable.notes,
            *candidates.notes,
            *profile.notes,
        ),
    )


def _missing_calibration(reduction: Reduction) -> list[str]:
    missing = reduction.choice.missing
    return [f"not calibrated for: {', '.join(missing)}"] if missing else []


def _site(observatory: Observatory, frames: Sequence[ReducedFrame], variable: Variable) -> Site:
    configured = observatory.settings.site
    return choose_site(
        configured.site() if configured else None,
        next((frame.site_hint for frame in frames if frame.site_hint), None),
        [frame.start_utc for frame in frames],
        [frame.exposure_s for frame in frames],
        ra_deg=variable.ra_deg,
        dec_deg=variable.dec_deg,
        airmass_header=[frame.airmass_header for frame in frames],
    )


def _times(
    frames: Sequence[ReducedFrame], exposure_s: FloatArray, variable: Variable, site: Site
) -> FrameTimes:
    return frame_times(
        [frame.start_utc for frame in frames],
        exposure_s,
        ra_deg=variable.ra_deg,
        dec_deg=variable.dec_deg,
        pm_ra_mas_yr=variable.pm_ra_mas_yr,
        pm_dec_mas_yr=variable.pm_dec_mas_yr,
        site=site,
    )


def night_profile(
    pixels: CalibratedFrames,
    solved: Solved,
    facts: DetectorFacts,
    settings: PhotometrySettings,
) -> tuple[FrameProfile, int]:
    """Return the profile of the first frame that allows a fit, and which one that is.

    A frame with elongated stars serves only where all the others tried are no better.
    """
    elongated, failures = None, []
    for index, (frame, _, _) in enumerate(solved[: settings.psf_frames_tried]):
        image, mask = pixels.read(frame)
        try:
            profile = fit_frame_profile(
                image,
                mask,
                pixels.stars(frame),
                gain_e_adu=facts.gain_e_adu.value if facts.gain_e_adu else None,
                linearity_adu=facts.linearity_adu.value,
                peak_min_adu=settings.psf_peak_min_adu,
                peak_max_adu=settings.psf_peak_max_adu,
                stop_adu=facts.stop_adu,
            )
        except BadPsf as failure:
            failures.append(str(failure))
            continue
        if not profile.elongated:
            return profile, index
        elongated = elongated or (profile, index)
    if elongated is not None:
        return elongated
    raise BadPsf(f"none of {len(failures)} frames has a good star profile; first: {failures[0]}")


def _frame_fwhm(solved: Solved, profile: FrameProfile, reference: int) -> FloatArray:
    """Return every frame's FWHM: the fitted one, carried by the detections' from frame to frame."""
    detected = np.array([s.fwhm_median_px or np.nan for _, s, _ in solved])
    fwhm_px = profile.fwhm_px * detected / detected[reference]
    return np.where(np.isfinite(fwhm_px), fwhm_px, profile.fwhm_px)


def typical_frame(fwhm_px: FloatArray) -> int:
    """Return the frame nearest the night's median FWHM: the one to judge crowding on."""
    return int(np.argmin(np.abs(fwhm_px - np.median(fwhm_px))))


def _dark_e_s_px(observatory: Observatory, reduction: Reduction, gain: float | None) -> float:
    """Return the dark current that was subtracted, 0 when none was."""
    dark = reduction.choice.dark
    if dark is None or reduction.choice.bias is None or gain is None or not dark.exposure_s:
        return 0.0
    image, _, _ = read_master(observatory.layout.raw_path(dark.path))
    return max(0.0, float(np.median(image))) * gain / dark.exposure_s
