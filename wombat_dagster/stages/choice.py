"""Chooses what an observation is calibrated with."""

import numpy as np

from wombat_dagster.domain import (
    CalibrationChoice,
    FrameKind,
    Master,
    NoCalibration,
    NoFrames,
    NoTime,
    Observation,
    RawFrame,
)
from wombat_dagster.observatory import Observatory
from wombat_dagster.science import matching
from wombat_dagster.store.status import words_without_usable


def usable_lights(observatory: Observatory, observation: Observation) -> list[RawFrame]:
    """Return the usable light frames of an observation, in time order.

    Raises
    ------
    NoTime
        There are frames, but not one says when it was taken.
    NoFrames
        None can be used; the message says why.
    """
    frames = observatory.status.light_frames(observation)
    usable = [frame for frame in frames if frame.reason is None]
    if usable:
        return usable
    words = words_without_usable(frames)
    if frames and all((frame.reason or "").startswith("notime") for frame in frames):
        raise NoTime(words)
    raise NoFrames(words)


def choose_calibration(observatory: Observatory, observation: Observation) -> CalibrationChoice:
    """Return the closest matching masters of an observation."""
    settings = observatory.settings.calibration
    lights = usable_lights(observatory, observation)
    group = lights[0].group
    assert group is not None
    temperatures = [f.ccd_temperature_c for f in lights if f.ccd_temperature_c is not None]
    temperature = float(np.median(temperatures)) if temperatures else None
    masters = observatory.status.masters()

    def closest(
        kind: FrameKind, *, filter: str | None = None, exposure_s: float | None = None
    ) -> tuple[Master | None, str]:
        return matching.closest_master(
            [m for m in masters if kind is not FrameKind.DARK or _fits_alone(m, exposure_s)],
            kind=kind,
            date=observation.date,
            group=group,
            filter=filter,
            exposure_s=exposure_s,
            exposure_tolerance=settings.dark_exposure_tolerance,
            max_age_days=settings.max_age_days,
            ccd_temperature_c=temperature,
            max_temperature_difference_c=settings.max_temperature_difference_c,
        )

    bias, why_bias = closest(FrameKind.BIAS)
    exposures = {frame.exposure_s for frame in lights}
    if bias is not None:
        dark, why_dark = closest(FrameKind.DARK)
    elif len(exposures) == 1:
        dark, why_dark = closest(FrameKind.DARK, exposure_s=exposures.pop())
    else:
        dark, why_dark = None, f"no dark without a bias: {len(exposures)} different exposures"
    flat, why_flat = closest(FrameKind.FLAT, filter=observation.filter)
    choice = CalibrationChoice(
        bias=bias, dark=dark, flat=flat, reasons=(why_bias, why_dark, why_flat)
    )
    if settings.require_calibration and choice.missing:
        why = {"bias": why_bias, "flat": why_flat}
        raise NoCalibration(
            f"require_calibration: {'; '.join(why[name] for name in choice.missing)}"
        )
    return choice


def _fits_alone(master: Master, exposure_s: float | None) -> bool:
    """Tell whether a dark serves: scaled to any exposure, or as bias+dark of this exposure.

    A dark of the observer's own is taken to hold the bias: it does not say otherwise.
    """
    is_scalable = master.bias_hash is not None and bool(master.exposure_s)
    return is_scalable if exposure_s is None else not is_scalable
