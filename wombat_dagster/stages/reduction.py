"""Takes an observation from raw frames to calibrated ones: files in, files out.

Every frame is read once for what the whole night must know first (limits, gain) and for its stars,
and once more to be calibrated and kept; without ``keep_reduced`` the second reading is left to
whoever measures. How a frame is calibrated is in `calibrator`, the formulas in `science`.
"""

import contextlib
import logging
import math
from collections.abc import Container, Iterator, Sequence
from functools import partial
from itertools import pairwise
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wombat_dagster.domain import (
    CalibrationChoice,
    DetectorFacts,
    NoCalibration,
    NoFrames,
    Observation,
    RawFrame,
    ReducedFrame,
    Reduction,
    Sourced,
)
from wombat_dagster.observatory import Observatory
from wombat_dagster.science import detector, quality
from wombat_dagster.stages.calibrator import (
    Calibrator,
    Look,
    known_look,
    look_at,
    look_path,
    looks_directory,
    why_not_cleaned,
)
from wombat_dagster.stages.choice import choose_calibration, left_out_lights, usable_lights
from wombat_dagster.stages.masters import NOISE_NEGLECTED
from wombat_dagster.stages.pixels import in_order, staging_of
from wombat_dagster.store.arrays import KeptArrays, content_key
from wombat_dagster.store.disks import is_no_room
from wombat_dagster.store.frames import UnreadableFrame
from wombat_dagster.store.layout import frame_labels
from wombat_dagster.store.raw_frames import SECTIONS_CONFIGURED
from wombat_dagster.store.staging import StagingFailed

log = logging.getLogger(__name__)

UNCALIBRATED = "nothing to calibrate with"
MAX_NAMED = 20  # frames in one note
SKY_RULES = "1"  # goes up when the noise of the same sky would come out otherwise
SKY_GAIN_STEP = 0.15  # of the gain, which the sky tells to a tenth or so

LeftOut = list[tuple[str, str]]


def reduce_observation(
    observatory: Observatory, observation: Observation, choice: CalibrationChoice
) -> Reduction:
    """Calibrate every usable light frame of an observation and write it beside its fellows.

    Raises
    ------
    NoFrames, NoTime
        No frame can be used.
    NoCalibration
        A master's file is not what its night's run recorded.
    """
    lights = usable_lights(observatory, observation)
    left_out = left_out_lights(observatory, observation)
    group = lights[0].group
    assert group is not None
    calibrator = _calibrator(observatory, observation, choice)
    choice = calibrator.choice
    instrument = observatory.settings.for_camera(group.camera)
    facts_of = partial(
        detector.detector_facts,
        configured_gain_e_adu=instrument.gain_e_adu,
        configured_read_noise_e=instrument.read_noise_e,
        configured_saturation_adu=instrument.saturation_adu,
        configured_linearity_adu=instrument.linearity_adu,
        flats_gain=_gain_of_flats(choice),
        bias_read_noise_adu=choice.bias.read_noise_adu if choice.bias else None,
    )
    wants_gain = facts_of(lights, []).gain_e_adu is None
    sky = _SkyNoise(observatory, observation, calibrator) if wants_gain else None
    wanted = sky.wanted(lights) if sky is not None else set()
    looks = _first_looks(observatory, observation, calibrator, lights, left_out, pixels=wanted)
    readable, extremes, n_stars = [], [], []
    for frame, seen, counts in looks:
        readable.append(frame)
        extremes.append(seen.extremes)
        n_stars.append(len(seen.stars))
        if sky is not None:
            sky.add(frame, counts)
    if not readable:
        raise NoFrames(f"0 of {len(lights)} frames could be read: {left_out[-1][1]}")
    facts = facts_of(readable, extremes, sky_gain=sky.gain() if sky is not None else None)
    reduced = _reduced(observatory, observation, calibrator, readable, facts, left_out)
    if not reduced:
        raise NoFrames(f"0 of {len(lights)} frames could be read again: {left_out[-1][1]}")
    _remove_strangers(observatory, observation, choice, readable, reduced)
    not_cleaned = why_not_cleaned(facts) if observatory.settings.calibration.cosmic_rays else None
    return Reduction(
        frames=tuple(reduced),
        group=group,
        detector=facts,
        choice=choice,
        left_out=tuple(left_out),
        notes=(
            *((UNCALIBRATED,) if _is_uncalibrated(choice) else ()),
            *([not_cleaned] if not_cleaned else []),
            *_clouded(readable, n_stars),
            *_warnings(readable),
        ),
    )


def _is_uncalibrated(choice: CalibrationChoice) -> bool:
    return not (choice.bias or choice.dark or choice.flat or choice.already_done)


def _warnings(frames: Sequence[RawFrame]) -> list[str]:
    """Return what the frames' headers are to be doubted for, each once."""
    words = dict.fromkeys(words for frame in frames for words in frame.warnings)
    return [one for one in words if not one.startswith(SECTIONS_CONFIGURED)]


def _clouded(frames: Sequence[RawFrame], n_stars: Sequence[int]) -> list[str]:
    """Return words that name the frames with few stars."""
    exposure_s = np.array([frame.exposure_s for frame in frames], float)
    found = quality.clouded(np.array(n_stars), exposure_s)
    if not found:
        return []
    named = [
        f"{PurePosixPath(frames[i].path).name} ({n_stars[i]} of usually {usual})"
        for i, usual in found.items()
    ]
    more = f" and {len(named) - MAX_NAMED} more" if len(named) > MAX_NAMED else ""
    return [f"few stars, clouds or bad focus: {', '.join(named[:MAX_NAMED])}{more}"]


def _calibrator(
    observatory: Observatory, observation: Observation, choice: CalibrationChoice
) -> Calibrator:
    """Return what calibrates, with masters chosen anew when they were made again since."""
    try:
        return Calibrator(observatory, choice)
    except NoCalibration as change:
        log.warning("%s: %s; masters are chosen again", observation.key, change)
    return Calibrator(observatory, choose_calibration(observatory, observation))


def _gain_of_flats(choice: CalibrationChoice) -> Sourced | None:
    if choice.flat is None or choice.flat.gain_e_adu is None:
        return None
    neglected = NOISE_NEGLECTED in choice.flat.notes
    source = "flat pairs, read noise neglected" if neglected else "flat and bias pairs"
    return Sourced(value=choice.flat.gain_e_adu, source=source)


def _first_looks(
    observatory: Observatory,
    observation: Observation,
    calibrator: Calibrator,
    lights: Sequence[RawFrame],
    left_out: LeftOut,
    *,
    pixels: Container[str],
) -> Iterator[tuple[RawFrame, Look, NDArray[Any] | None]]:
    """Yield every frame that can be read, in time order, with what is seen at first look.

    The counts themselves come along for the paths in `pixels`; another frame that was looked at
    before is not read. What cannot be read goes to `left_out`.
    """
    layout = observatory.layout
    looks = {f.path: look_path(observatory, observation, calibrator.choice, f) for f in lights}
    to_read = [
        layout.raw_path(f.path) for f in lights if f.path in pixels or not looks[f.path].exists()
    ]

    staged = set(to_read)  # every one of them must be taken
    with staging_of(observatory, to_read) as staging:

        def look(frame: RawFrame) -> tuple[Look, NDArray[Any] | None] | str:
            path = layout.raw_path(frame.path)
            known = None if path in staged else known_look(looks[frame.path])
            if known is not None:
                return known, None
            try:
                with staging.take(path) as source:
                    raw = calibrator.read(frame, source)
                    seen = look_at(calibrator, frame, raw, looks[frame.path])
            except UnreadableFrame as error:
                return error.reason
            except OSError as error:
                if is_no_room(error):  # for what is kept of the look: the frame is none the worse
                    raise
                return str(error)
            return seen, raw.counts if frame.path in pixels else None

        for frame, seen in zip(lights, in_order(look, lights), strict=True):
            if isinstance(seen, str):
                left_out.append((frame.path, seen))
            else:
                log.debug("%s looked at", frame.path)
                yield frame, *seen


class _SkyNoise:
    """What the sky of every two consecutive frames says of the gain; kept from run to run."""

    def __init__(
        self, observatory: Observatory, observation: Observation, calibrator: Calibrator
    ) -> None:
        self._observatory, self._calibrator = observatory, calibrator
        self._kept = KeptArrays(observatory.layout.observation_dir(observation) / "sky")
        self._noise: list[NDArray[Any]] = []
        self._previous: tuple[RawFrame, NDArray[Any] | None] | None = None

    @staticmethod
    def _key(first: RawFrame, second: RawFrame) -> str:
        pair = [(f.pixel_hash, f.overscan, f.trim) for f in (first, second)]
        return content_key(SKY_RULES, pair)

    def wanted(self, lights: Sequence[RawFrame]) -> set[str]:
        """Return the paths of the frames whose pixels will be asked for."""
        new = [pair for pair in pairwise(lights) if self._kept.get(self._key(*pair)) is None]
        return {frame.path for pair in new for frame in pair}

    def add(self, frame: RawFrame, counts: NDArray[Any] | None) -> None:
        """Take the next frame; `counts` None: they are read if they are wanted after all."""
        before, self._previous = self._previous, (frame, counts)
        if before is None:
            return
        key = self._key(before[0], frame)
        known = self._kept.get(key)
        if known is None:  # also where a frame between the two could not be read
            try:
                first = self._read(before[0]) if before[1] is None else before[1]
                second = self._read(frame) if counts is None else counts
            except (UnreadableFrame, OSError):
                return  # gone since it was looked at; that is said when it is to be calibrated
            known = {"noise": detector.sky_noise(first, second)}
            self._kept.put(key, known)
        self._noise.append(known["noise"])

    def _read(self, frame: RawFrame) -> NDArray[Any]:
        return self._calibrator.read(frame, self._observatory.layout.raw_path(frame.path)).counts

    def gain(self) -> Sourced | None:
        """Return the gain, None where the sky does not tell it.

        In round steps, to about as well as it is known: a frame more mostly leaves it as it is.
        """
        self._kept.remove_others()
        found = detector.gain_of_sky(self._noise)
        if found is None:
            return None
        return Sourced(value=in_round_steps(found.value, SKY_GAIN_STEP), source=found.source)


def in_round_steps(value: float, relative: float) -> float:
    """Return a positive number in the largest step of 1, 2 or 5 that is no more than a part of it.

    34.6 with 0.15 is in steps of 5: 35.
    """
    power = math.floor(math.log10(relative * value))
    multiple = max(m for m in (1, 2, 5) if m * 10.0**power <= relative * value)
    n_steps = round(value / (multiple * 10.0**power))
    return float(f"{n_steps * multiple}e{power}")


def _reduced(
    observatory: Observatory,
    observation: Observation,
    calibrator: Calibrator,
    frames: Sequence[RawFrame],
    facts: DetectorFacts,
    left_out: LeftOut,
) -> list[ReducedFrame]:
    """Return the calibrated frames, written to disk when they are to be kept.

    One that lies there as it would be written is left alone, the plate solution in its header too.
    """
    layout = observatory.layout
    labels = frame_labels(frame.path for frame in frames)
    paths = {f.path: layout.reduced_path(observation, labels[f.path]) for f in frames}
    failures: dict[str, str] = {}
    is_kept = observatory.settings.calibration.keep_reduced
    if is_kept:

        def is_made(frame: RawFrame) -> bool:
            return calibrator.has_made(frame, paths[frame.path], facts)

        to_make = [f for f, made in zip(frames, in_order(is_made, frames), strict=True) if not made]
        with staging_of(observatory, [layout.raw_path(f.path) for f in to_make]) as staging:

            def write(frame: RawFrame) -> str | None:
                try:
                    with staging.take(layout.raw_path(frame.path)) as source:
                        calibrator.reduce(frame, source, paths[frame.path], facts)
                except (UnreadableFrame, StagingFailed) as error:
                    return str(error)
                return None

            for frame, failure in zip(to_make, in_order(write, to_make), strict=True):
                if failure is not None:
                    failures[frame.path] = failure
                log.debug("%s reduced", frame.path)
    left_out.extend(failures.items())
    return [
        _reduced_frame(
            frame,
            label=paths[frame.path].name,
            path=layout.relative_to_products(paths[frame.path]) if is_kept else None,
        )
        for frame in frames
        if frame.path not in failures
    ]


def _reduced_frame(frame: RawFrame, *, label: str, path: str | None) -> ReducedFrame:
    assert frame.exposure_s is not None
    assert frame.start_utc is not None
    return ReducedFrame(
        raw=frame.path,
        path=path,
        label=label,
        raw_hash=frame.pixel_hash or "",
        exposure_s=frame.exposure_s,
        start_utc=frame.start_utc,
        ccd_temperature_c=frame.ccd_temperature_c,
        airmass_header=frame.airmass_header,
        site_hint=frame.site_hint,
    )


def _remove_strangers(
    observatory: Observatory,
    observation: Observation,
    choice: CalibrationChoice,
    readable: Sequence[RawFrame],
    reduced: Sequence[ReducedFrame],
) -> None:
    """Remove what is kept of raw frames that no longer count, or of other masters."""
    layout = observatory.layout
    ours = {layout.product_file(frame.path) for frame in reduced if frame.path is not None}
    ours |= {look_path(observatory, observation, choice, frame) for frame in readable}
    frames = layout.observation_dir(observation) / "reduced"
    looks = looks_directory(observatory, observation)
    for path in (*frames.glob("*.fits"), *looks.glob("*.npz")):
        if path not in ours:
            path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # there are frames in it
        frames.rmdir()
