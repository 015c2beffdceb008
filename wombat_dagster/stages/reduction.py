"""Takes an observation from raw frames to calibrated ones: files in, files out.

The formulas are `science.calibration`'s.
"""

import datetime as dt
import logging
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from wombat_dagster.domain import (
    NOCAL,
    CalibrationChoice,
    DetectorFacts,
    FrameKind,
    Master,
    NoCalibration,
    NoFrames,
    NoTime,
    Observation,
    RawFrame,
    ReducedFrame,
    Reduction,
    Sourced,
)
from wombat_dagster.observatory import Observatory
from wombat_dagster.science import calibration as science
from wombat_dagster.stages.masters import NOISE_NEGLECTED
from wombat_dagster.store.frames import (
    UnreadableFrame,
    array_hash,
    card_text,
    read_image,
    read_master,
    without_wcs,
    write_reduced,
)
from wombat_dagster.store.layout import frame_labels, night_directories, sort_flats
from wombat_dagster.store.status import words_without_usable

log = logging.getLogger(__name__)

MAX_NOT_NUMBERS = 0.1  # part of the pixels of a usable frame

UNCALIBRATED = "nothing to calibrate with"


def organise_night(observatory: Observatory, date: dt.date) -> tuple[RawFrame, ...]:
    """Sort the night's flats by filter, look again, and return the night's frames.

    Raises
    ------
    NoFrames
        Nothing that counts lies there: an empty night, or one without lights.
    """
    observatory.scan([date])
    mode = observatory.settings.calibration.organise_flats
    frames = observatory.status.night_frames(date)
    moved = 0
    for night in night_directories(observatory.layout.data):
        if night.date == date:
            done = sort_flats(night.path, frames, mode=mode)
            moved += len(done.moved)
            for words in done.warnings:
                log.warning("%s: %s", night.name, words)
    if moved:
        log.info("%s: %d flats sorted by filter", date, moved)
        observatory.scan([date])
        frames = observatory.status.night_frames(date)
    if not frames:
        raise NoFrames(f"{date}: no frames, or no lights among them: the night is ignored")
    return tuple(frames)


# ----------------------------------------------------------------------------------------- choice


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
        return science.closest_master(
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


# -------------------------------------------------------------------------------------- reduction


class _Masters:
    """The pixels of the chosen masters, read once.

    Raises
    ------
    NoCalibration
        A file is no longer what was chosen.
    """

    def __init__(self, observatory: Observatory, choice: CalibrationChoice) -> None:
        self.bias: NDArray[np.float32] | None = None
        if choice.bias is not None:
            self.bias, _ = _pixels(observatory, choice.bias)
        self.dark_per_s: NDArray[np.float32] | None = None
        if choice.dark is not None:
            dark, _ = _pixels(observatory, choice.dark)
            if choice.bias is None:
                self.bias = dark  # bias+dark of the lights' own exposure
            else:
                assert choice.dark.exposure_s
                self.dark_per_s = dark / np.float32(choice.dark.exposure_s)
        self.flat: NDArray[np.float32] | None = None
        self.flat_unusable: NDArray[np.bool_] | None = None
        if choice.flat is not None:
            flat, mask = _pixels(observatory, choice.flat)
            if not choice.flat.made_by_us:  # may have any level, and dark corners
                flat, unusable = science.normalised_master_flat(flat)
                if mask is not None:
                    unusable = unusable | (mask > 0)
                mask = unusable.astype(np.uint8)
            self.flat_unusable = ~(flat > 0) if mask is None else mask.astype(bool)
            self.flat = np.where(self.flat_unusable, np.float32(1.0), flat)


def _pixels(
    observatory: Observatory, master: Master
) -> tuple[NDArray[np.float32], NDArray[np.uint8] | None]:
    try:
        image, mask, _ = read_master(observatory.layout.raw_path(master.path))
    except (UnreadableFrame, OSError) as error:
        raise NoCalibration(f"{master.path}, chosen as master {master.kind}: {error}") from error
    if array_hash(image) != master.content_hash:
        raise NoCalibration(
            f"{master.path} is not the master {master.kind} that was chosen:"
            f" it was changed since the night {master.date} was run"
        )
    return image, mask


def _masters_chosen(
    observatory: Observatory, observation: Observation, choice: CalibrationChoice
) -> tuple[CalibrationChoice, _Masters]:
    """Return the masters, and the choice they are: a new one when they were made again since."""
    try:
        return choice, _Masters(observatory, choice)
    except NoCalibration as change:
        log.warning("%s: %s; masters are chosen again", observation.key, change)
    choice = choose_calibration(observatory, observation)
    return choice, _Masters(observatory, choice)


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
    left_out = [
        (frame.path, frame.reason)
        for frame in observatory.status.light_frames(observation)
        if frame.reason is not None
    ]
    group = lights[0].group
    assert group is not None
    choice, masters = _masters_chosen(observatory, observation, choice)
    readable, extremes, sky_noise = [], [], []
    previous: NDArray[Any] | None = None
    for frame in lights:
        try:
            raw, _ = read_image(observatory.layout.raw_path(frame.path))
        except (UnreadableFrame, OSError) as error:
            left_out.append((frame.path, str(error)))
            continue
        not_numbers = 1.0 - float(np.mean(np.isfinite(raw)))
        if not_numbers > MAX_NOT_NUMBERS:
            left_out.append((frame.path, f"{100 * not_numbers:.0f} % of the pixels are no numbers"))
            continue
        readable.append(frame)
        extremes.append(science.raw_extremes(raw))
        if previous is not None:
            sky_noise.append(science.sky_noise(previous, raw))
        previous = raw
    if not readable:
        raise NoFrames(f"0 of {len(lights)} frames could be read: {left_out[-1][1]}")
    instrument = observatory.settings.for_camera(group.camera)
    facts = science.detector_facts(
        readable,
        extremes,
        configured_gain_e_adu=instrument.gain_e_adu,
        configured_read_noise_e=instrument.read_noise_e,
        configured_saturation_adu=instrument.saturation_adu,
        configured_linearity_adu=instrument.linearity_adu,
        flats_gain=_gain_of_flats(choice),
        sky_gain=science.gain_of_sky(sky_noise),
        bias_read_noise_adu=choice.bias.read_noise_adu if choice.bias else None,
    )
    labels = frame_labels(frame.path for frame in readable)
    reduced = []
    for frame in readable:
        reduced.append(
            _reduce(observatory, observation, frame, labels[frame.path], masters, choice, facts)
        )
        log.debug("%s reduced", frame.path)
    _remove_strangers(observatory, observation, reduced)
    return Reduction(
        frames=tuple(reduced),
        group=group,
        detector=facts,
        choice=choice,
        left_out=tuple(left_out),
        notes=(
            *(() if choice.bias or choice.dark or choice.flat else (UNCALIBRATED,)),
            *dict.fromkeys(words for frame in readable for words in frame.warnings),
        ),
    )


def _gain_of_flats(choice: CalibrationChoice) -> Sourced | None:
    if choice.flat is None or choice.flat.gain_e_adu is None:
        return None
    neglected = NOISE_NEGLECTED in choice.flat.notes
    source = "flat pairs, read noise neglected" if neglected else "flat and bias pairs"
    return Sourced(value=choice.flat.gain_e_adu, source=source)


def _reduce(
    observatory: Observatory,
    observation: Observation,
    frame: RawFrame,
    label: str,
    masters: _Masters,
    choice: CalibrationChoice,
    facts: DetectorFacts,
) -> ReducedFrame:
    assert frame.exposure_s is not None
    assert frame.start_utc is not None
    raw, header = read_image(observatory.layout.raw_path(frame.path))
    image, mask = science.calibrate(
        raw,
        bias=masters.bias,
        dark_per_s=masters.dark_per_s,
        exposure_s=frame.exposure_s,
        flat=masters.flat,
        flat_unusable=masters.flat_unusable,
        saturation_adu=facts.saturation_adu.value,
        linearity_adu=facts.linearity_adu.value,
    )
    path = observatory.layout.reduced_path(observation, label)
    cards = _cards(without_wcs(header), frame, choice, facts)
    write_reduced(path, image, mask, cards)
    return ReducedFrame(
        raw=frame.path,
        path=observatory.layout.relative_to_products(path),
        label=path.name,
        raw_hash=frame.pixel_hash or "",
        exposure_s=frame.exposure_s,
        start_utc=frame.start_utc,
        ccd_temperature_c=frame.ccd_temperature_c,
        airmass_header=frame.airmass_header,
        site_hint=frame.site_hint,
    )


def _cards(
    header: fits.Header, frame: RawFrame, choice: CalibrationChoice, facts: DetectorFacts
) -> fits.Header:
    """Return the raw frame's cards with those that say how it was reduced."""
    assert frame.start_utc is not None
    start = dt.datetime.fromisoformat(frame.start_utc)
    middle = start + dt.timedelta(seconds=(frame.exposure_s or 0.0) / 2)
    header["BUNIT"] = "adu"
    header["RAWFILE"] = card_text(frame.path)
    header["RAWHASH"] = (frame.pixel_hash, "SHA-256 of the raw pixels")
    header["DATE-BEG"] = (frame.start_utc, "start of exposure, UTC")
    header["DATE-AVG"] = (middle.isoformat(timespec="milliseconds"), "mid-exposure, UTC")
    for name, master in (("BIAS", choice.bias), ("DARK", choice.dark), ("FLAT", choice.flat)):
        header[f"{name}FILE"] = card_text(master.path) if master else NOCAL
        if master:
            header[f"{name}HASH"] = master.content_hash
    for name, fact in (
        ("GAIN", facts.gain_e_adu),
        ("RDN", facts.read_noise_e),
        ("SAT", facts.saturation_adu),
        ("LIN", facts.linearity_adu),
    ):
        if fact is not None:
            unit = {"GAIN": "e-/adu", "RDN": "e-"}.get(name, "raw adu")
            header[f"{name}USED"] = (fact.value, unit)
            header[f"{name}SRC"] = fact.source
    return header


def _remove_strangers(
    observatory: Observatory, observation: Observation, reduced: list[ReducedFrame]
) -> None:
    """Remove reduced frames of raw frames that no longer count."""
    ours = {observatory.layout.product_file(frame.path) for frame in reduced}
    directory = observatory.layout.observation_dir(observation) / "reduced"
    for path in directory.glob("*.fits"):
        if path not in ours:
            path.unlink(missing_ok=True)
