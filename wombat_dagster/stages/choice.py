"""Chooses what an observation is calibrated with."""

from collections.abc import Sequence
from dataclasses import replace

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
from wombat_dagster.science.matching import Match, Wanted
from wombat_dagster.stages.library import available_masters
from wombat_dagster.store.raw_frames import ALREADY_CALIBRATED
from wombat_dagster.store.status import words_without_usable


def usable_lights(observatory: Observatory, observation: Observation) -> list[RawFrame]:
    """Return the usable light frames of an observation, in time order.

    The first ones are left out when the configuration says so (`discard_first_n`).

    Raises
    ------
    NoTime
        There are frames, but not one says when it was taken.
    NoFrames
        None can be used; the message says why.
    """
    frames = observatory.status.light_frames(observation)
    usable = [frame for frame in frames if frame.reason is None]
    n_discarded = observatory.settings.calibration.discard_first_n
    if usable[n_discarded:]:
        return usable[n_discarded:]
    if usable:
        raise NoFrames(
            f"0 of {len(frames)} frames usable: the first {n_discarded} are discarded"
            f" (discard_first_n), {len(usable)} could be used"
        )
    words = words_without_usable(frames)
    if frames and all((frame.reason or "").startswith("notime") for frame in frames):
        raise NoTime(words)
    raise NoFrames(words)


def left_out_lights(observatory: Observatory, observation: Observation) -> list[tuple[str, str]]:
    """Return path and reason of the light frames that `usable_lights` leaves out, in time order."""
    frames = observatory.status.light_frames(observation)
    n_discarded = observatory.settings.calibration.discard_first_n
    usable = [frame.path for frame in frames if frame.reason is None]
    discarded = dict.fromkeys(
        usable[:n_discarded], f"discarded: first {n_discarded} of the observation"
    )
    reasons = {frame.path: frame.reason or discarded.get(frame.path) for frame in frames}
    return [(path, reason) for path, reason in reasons.items() if reason is not None]


def choose_calibration(
    observatory: Observatory,
    observation: Observation,
    *,
    available: Sequence[Master] | None = None,
) -> CalibrationChoice:
    """Return the closest matching masters of an observation, and why not the others.

    What a capture program has done to the frames is not done again. `available`: the masters of
    `library.available_masters`, for who asks about many observations.
    """
    settings = observatory.settings.calibration
    lights = usable_lights(observatory, observation)
    done = lights[0].steps_done  # the lights of an observation are alike
    masters = available_masters(observatory) if available is None else available
    wanted = _wanted(observatory, observation, lights)

    def closest(
        kind: FrameKind,
        *,
        filter: str | None = None,
        exposure_s: float | None = None,
        scaled_to_s: float | None = None,
    ) -> Match:
        if (words := _not_again(kind, lights[0])) is not None:
            return Match(master=None, words=words)
        return matching.match_master(
            masters,
            replace(
                wanted, kind=kind, filter=filter, exposure_s=exposure_s, scaled_to_s=scaled_to_s
            ),
        )

    bias = closest(FrameKind.BIAS)
    exposures_s = {frame.exposure_s for frame in lights if frame.exposure_s is not None}
    if bias.master is not None or "bias" in done:
        dark = closest(FrameKind.DARK, scaled_to_s=max(exposures_s))
    elif len(exposures_s) == 1:
        dark = closest(FrameKind.DARK, exposure_s=exposures_s.pop())
        if dark.master is None and dark.runners_up:
            dark = replace(dark, words=f"{dark.words}; without a bias it cannot be scaled")
    else:
        dark = closest(FrameKind.DARK, scaled_to_s=max(exposures_s))
        words = f"no dark without a bias: {len(exposures_s)} different exposures"
        dark = replace(dark, master=None, words=_not_again(FrameKind.DARK, lights[0]) or words)
    flat = closest(FrameKind.FLAT, filter=observation.filter)
    choice = CalibrationChoice(
        bias=bias.master,
        dark=dark.master,
        flat=flat.master,
        reasons=(bias.words, dark.words, flat.words),
        bad_pixels=matching.closest_map(
            observatory.status.bad_pixel_maps(), date=observation.date, group=wanted.group
        ),
        runners_up=(*bias.runners_up, *dark.runners_up, *flat.runners_up),
        already_done=tuple(sorted(done)),
    )
    if settings.require_calibration and choice.missing:
        why = {"bias": bias.words, "flat": flat.words}
        raise NoCalibration(
            f"require_calibration: {'; '.join(why[name] for name in choice.missing)}"
        )
    return choice


def _wanted(observatory: Observatory, observation: Observation, lights: list[RawFrame]) -> Wanted:
    """Return what all masters of an observation have to match; the kind is put in later."""
    settings = observatory.settings.calibration
    group = lights[0].group
    assert group is not None
    temperatures_c = [f.ccd_temperature_c for f in lights if f.ccd_temperature_c is not None]
    return Wanted(
        kind=FrameKind.BIAS,
        date=observation.date,
        group=group,
        exposure_tolerance=settings.dark_exposure_tolerance,
        max_age_days=settings.max_age_days,
        ccd_temperature_c=float(np.median(temperatures_c)) if temperatures_c else None,
        max_temperature_difference_c=settings.max_temperature_difference_c,
    )


def _not_again(kind: FrameKind, light: RawFrame) -> str | None:
    """Return why a step is not wanted for frames that come calibrated, None when it is.

    After the division by a flat nothing can be subtracted any more.
    """
    done = light.steps_done
    words = next((w for w in light.warnings if w.startswith(ALREADY_CALIBRATED)), "")
    source = words[len(ALREADY_CALIBRATED) :] or f"calibration status {light.calibration_status}"
    if kind in done:
        return f"no {kind} wanted: already {source}"
    if "flat" in done:
        return f"no {kind}: already {source}, too late for it"
    return None
