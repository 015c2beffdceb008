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
    Master,
    NoCalibration,
    NoFrames,
    Observation,
    RawFrame,
    ReducedFrame,
    Reduction,
    Sourced,
)
from wombat_dagster.observatory import Observatory
from wombat_dagster.science import calibration, detector, flats
from wombat_dagster.stages.choice import choose_calibration, usable_lights
from wombat_dagster.stages.masters import NOISE_NEGLECTED
from wombat_dagster.stages.pixels import kept_path
from wombat_dagster.store.frames import (
    UnreadableFrame,
    array_hash,
    card_text,
    read_image,
    read_master,
    without_wcs,
    write_reduced,
)
from wombat_dagster.store.layout import frame_labels

log = logging.getLogger(__name__)

MAX_NOT_NUMBERS = 0.1  # part of the pixels of a usable frame

UNCALIBRATED = "nothing to calibrate with"


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
                flat, unusable = flats.normalised_master_flat(flat)
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
        extremes.append(detector.raw_extremes(raw))
        if previous is not None:
            sky_noise.append(detector.sky_noise(previous, raw))
        previous = raw
    if not readable:
        raise NoFrames(f"0 of {len(lights)} frames could be read: {left_out[-1][1]}")
    instrument = observatory.settings.for_camera(group.camera)
    facts = detector.detector_facts(
        readable,
        extremes,
        configured_gain_e_adu=instrument.gain_e_adu,
        configured_read_noise_e=instrument.read_noise_e,
        configured_saturation_adu=instrument.saturation_adu,
        configured_linearity_adu=instrument.linearity_adu,
        flats_gain=_gain_of_flats(choice),
        sky_gain=detector.gain_of_sky(sky_noise),
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
    image, mask = calibration.calibrate(
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
    ours = {kept_path(observatory, frame) for frame in reduced}
    directory = observatory.layout.observation_dir(observation) / "reduced"
    for path in directory.glob("*.fits"):
        if path not in ours:
            path.unlink(missing_ok=True)
