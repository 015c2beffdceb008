"""Makes the master frames of a night: which frames, which are refused, where the result lies.

The pixels are combined in `science.calibration`; here files meet formulas. An existing master that
a person made is used and never overwritten; one of ours is made again only when its inputs change.
"""

import datetime as dt
import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from wombat_dagster.domain import FrameGroup, FrameKind, Master, NoCalibration, RawFrame, Sourced
from wombat_dagster.observatory import Observatory
from wombat_dagster.science import calibration, detector, flats, matching
from wombat_dagster.store import headers
from wombat_dagster.store.frames import (
    UnreadableFrame,
    array_hash,
    card_text,
    provenance_hash,
    read_header,
    read_master,
    write_master,
)
from wombat_dagster.store.layout import FoundMaster, find_masters, night_directories
from wombat_dagster.store.stacks import FrameStack

log = logging.getLogger(__name__)

INPUTS_CARD = "WOMBINP"
SCRATCH = ".scratch"  # below the products: hidden, and a disk
NOISE_NEGLECTED = "gain measured without the read noise, which is not known"
MAX_REFUSALS_IN_WORDS = 3

Image = NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """The frames of one master: a night's frames of one kind, group, filter and exposure."""

    kind: FrameKind
    date: dt.date
    group: FrameGroup
    filter: str | None
    exposure_s: float | None
    frames: tuple[RawFrame, ...]

    @property
    def words(self) -> str:
        """Words for a reason: ``flats in V on 2025-10-15 (1024x1024 1x1)``."""
        plural = {"bias": "biases", "flat": "flats", "dark": "darks"}[self.kind.value]
        bits = [plural]
        if self.kind is FrameKind.DARK:
            bits.append(f"of {self.exposure_s:g} s")
        if self.filter is not None:
            bits.append(f"in {self.filter}")
        return f"{' '.join(bits)} on {self.date} ({self.group.shape_words})"


def units_of(frames: Iterable[RawFrame]) -> list[Unit]:
    """Return the masters that the usable calibration frames of one kind can make."""
    found: dict[tuple[Any, ...], list[RawFrame]] = defaultdict(list)
    for frame in frames:
        if frame.reason is None and frame.group is not None:
            exposure = frame.exposure_s if frame.kind is FrameKind.DARK else None
            filter = frame.filter if frame.kind is FrameKind.FLAT else None
            found[frame.kind, frame.date, frame.group, filter, exposure].append(frame)
    return [
        Unit(kind=kind, date=date, group=group, filter=filter, exposure_s=exposure, frames=tuple(f))
        for (kind, date, group, filter, exposure), f in found.items()
    ]


def make_masters(observatory: Observatory, date: dt.date, kind: FrameKind) -> tuple[Master, ...]:
    """Make, or find, every master of one kind of a night.

    Raises
    ------
    NoCalibration
        There is not one; the message says why for each that was tried.
    """
    frames = observatory.status.night_frames(date, kind)
    theirs = _personal_masters(observatory, date, kind)
    made, shortfalls = list(theirs), []
    units = units_of(frames)
    for unit in units:
        if any(_serves(master, unit) for master in theirs):
            continue
        try:
            made.append(_make_master(observatory, unit))
        except NoCalibration as shortfall:
            shortfalls.append(str(shortfall))
    observatory.status.forget_masters(date, kind, keep=[master.path for master in made])
    observatory.status.record_masters(made)
    if not made:
        nothing = f"no usable {kind.value} frames on {date}"
        raise NoCalibration("; ".join(shortfalls) or nothing)
    for words in shortfalls:
        log.warning("%s", words)
    return tuple(made)


def _serves(master: Master, unit: Unit) -> bool:
    return (
        master.group.shape_words == unit.group.shape_words
        and master.filter == unit.filter
        and (unit.exposure_s is None or master.exposure_s == unit.exposure_s)
    )


def _personal_masters(observatory: Observatory, date: dt.date, kind: FrameKind) -> list[Master]:
    """Return the masters in the night's directories that wombat did not make."""
    found = []
    for night in night_directories(observatory.layout.data):
        if night.date != date:
            continue
        for file in find_masters(night.path):
            if file.kind is not kind:
                continue
            if file.our_hash is not None and observatory.status.is_our_master(file.our_hash):
                continue
            try:
                found.append(_as_master(observatory, file, date))
            except (UnreadableFrame, OSError) as error:
                log.warning("%s cannot be used as a master: %s", file.path, error)
    return found


def _as_master(observatory: Observatory, file: FoundMaster, date: dt.date) -> Master:
    """Return the observer's master. Raises `UnreadableFrame` when it cannot serve as one."""
    if file.group is None or file.reason is not None:
        raise UnreadableFrame(file.reason or "no image")
    if file.kind is FrameKind.DARK and not file.exposure_s:
        raise UnreadableFrame("a dark without an exposure time")
    image, _, header = read_master(file.path)
    n_stated = headers.number(header, "NCOMBINE")
    notes = ["supplied by the observer"]
    if n_stated is None:
        notes.append("NCOMBINE not stated: counted as one frame")
    return Master(
        kind=file.kind,
        date=date,
        filter=file.filter,
        group=replace(file.group, readout=None),  # its header need not be a raw frame's
        path=observatory.layout.relative_to_data(file.path),
        content_hash=array_hash(image),
        n_used=int(n_stated or 1),
        n_refused=0,
        exposure_s=file.exposure_s,
        made_by_us=False,
        notes=tuple(notes),
    )


def _make_master(observatory: Observatory, unit: Unit) -> Master:
    settings = observatory.settings.calibration
    calibration.refuse_too_few(len(unit.frames), settings.min_frames, unit.words)
    offset = _offset_master(observatory, unit)
    path = _free_path(observatory, unit)
    relative = observatory.layout.relative_to_data(path)
    known = {master.path: master for master in observatory.status.masters(unit.kind)}
    if relative in known and _inputs_card(path) == _inputs_hash(observatory, unit, offset):
        return known[relative]
    paths = [observatory.layout.data / frame.path for frame in unit.frames]
    with FrameStack(paths, observatory.layout.products / SCRATCH) as stack:
        refusals = [f"{Path(unit.frames[i].path).name}: {w}" for i, w in stack.unreadable.items()]
        left = tuple(f for i, f in enumerate(unit.frames) if i not in stack.unreadable)
        unit = replace(unit, frames=left)
        calibration.refuse_too_few(len(left), settings.min_frames, _words_without(unit, refusals))
        inputs = _inputs_hash(observatory, unit, offset)
        combined = _Combined(stack, unit, offset, observatory, refusals)
        header = _provenance(unit, offset, combined, inputs)
        # Before the file: a crash between the two must not make ours look like the observer's.
        observatory.status.remember_our_master(array_hash(combined.image.astype(np.float32)))
        content_hash = write_master(path, combined.image, header, combined.mask)
    return Master(
        kind=unit.kind,
        date=unit.date,
        filter=unit.filter,
        group=unit.group,
        path=relative,
        content_hash=content_hash,
        n_used=combined.n_used,
        n_refused=len(combined.refusals),
        exposure_s=unit.exposure_s,
        ccd_temperature_c=_temperature_c(unit),
        read_noise_adu=combined.read_noise_adu,
        gain_e_adu=combined.gain_e_adu,
        rejected_fraction=combined.rejected_fraction,
        bias_hash=offset.content_hash if offset else None,
        notes=(*combined.refusals, *combined.notes),
    )


def _words_without(unit: Unit, refusals: Sequence[str]) -> str:
    left_out = "; ".join(refusals[:MAX_REFUSALS_IN_WORDS])
    return f"{unit.words}, left out {left_out}" if refusals else unit.words


def _free_path(observatory: Observatory, unit: Unit) -> Path:
    """Return where the master of `unit` goes: never over a file that wombat did not make.

    Raises
    ------
    NoCalibration
        Every name it could have is taken by the observer's own files.
    """
    is_main_group = unit.group.shape_words == _main_shape(observatory, unit.date)
    taken = []
    for plain_name in (True, False) if is_main_group else (False,):
        path = observatory.layout.master_path(
            min(frame.night_directory for frame in unit.frames),
            unit.kind,
            filter=unit.filter,
            exposure_s=unit.exposure_s,
            group=unit.group,
            is_main_group=plain_name,
            filters_of_night=_filters(observatory, unit.date),
        )
        if not path.exists() or _is_ours(observatory, path):
            return path
        taken.append(path.name)
    raise NoCalibration(f"{unit.words}: the observer's {' and '.join(taken)} stay as they are")


def _is_ours(observatory: Observatory, path: Path) -> bool:
    try:
        content_hash = provenance_hash(path)
    except UnreadableFrame:
        return False
    return content_hash is not None and observatory.status.is_our_master(content_hash)


def _main_shape(observatory: Observatory, date: dt.date) -> str | None:
    """Return the shape of most lights of a night (of most frames, when it has no lights)."""
    for kind in (FrameKind.LIGHT, None):
        shapes = Counter(
            frame.group.shape_words
            for frame in observatory.status.night_frames(date, kind)
            if frame.group is not None and frame.reason is None
        )
        if shapes:
            return min(shapes, key=lambda shape: (-shapes[shape], shape))
    return None


def _filters(observatory: Observatory, date: dt.date) -> set[str]:
    flats = observatory.status.night_frames(date, FrameKind.FLAT)
    return {flat.filter for flat in flats if flat.filter is not None}


def _offset_master(observatory: Observatory, unit: Unit) -> Master | None:
    """Return what is subtracted from the frames of `unit`: a bias, or for flats a matching dark.

    A dark without any bias stays bias+dark. A flat with neither is refused.
    """
    if unit.kind is FrameKind.BIAS:
        return None
    settings = observatory.settings.calibration
    temperature_c = _temperature_c(unit)
    bias, why = matching.closest_master(
        observatory.status.masters(FrameKind.BIAS),
        kind=FrameKind.BIAS,
        date=unit.date,
        group=unit.group,
        max_age_days=settings.max_age_days,
        ccd_temperature_c=temperature_c,
        max_temperature_difference_c=settings.max_temperature_difference_c,
    )
    if bias is not None or unit.kind is FrameKind.DARK:
        return bias
    exposures = {frame.exposure_s for frame in unit.frames}
    exposure_s = exposures.pop() if len(exposures) == 1 else None
    if exposure_s is None:
        raise NoCalibration(f"{unit.words}: {why}, and their exposures differ")
    dark, why_dark = matching.closest_master(
        [m for m in observatory.status.masters(FrameKind.DARK) if m.bias_hash is None],
        kind=FrameKind.DARK,
        date=unit.date,
        group=unit.group,
        exposure_s=exposure_s,
        exposure_tolerance=settings.dark_exposure_tolerance,
        max_age_days=settings.max_age_days,
        ccd_temperature_c=temperature_c,
        max_temperature_difference_c=settings.max_temperature_difference_c,
    )
    if dark is None:
        raise NoCalibration(f"{unit.words} refused: {why}; {why_dark}")
    return dark


def _temperature_c(unit: Unit) -> float | None:
    known = [f.ccd_temperature_c for f in unit.frames if f.ccd_temperature_c is not None]
    return float(np.median(known)) if known else None


def _inputs_hash(observatory: Observatory, unit: Unit, offset: Master | None) -> str:
    """Return the hash of all that the master depends on: frames, offset and settings."""
    settings = observatory.settings.calibration
    inputs = sorted(frame.pixel_hash or frame.path for frame in unit.frames)
    words = [*inputs, offset.content_hash if offset else "none"]
    words += [repr(settings.clip_sigma), repr(settings.min_frames)]
    if unit.kind is FrameKind.FLAT:
        saturation_adu = observatory.settings.for_camera(unit.group.camera).saturation_adu
        words += [repr(settings.flat_min_fraction), repr(settings.flat_max_fraction)]
        words.append(repr(saturation_adu))
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


def _inputs_card(path: Path) -> str | None:
    if not path.exists():
        return None
    card: str | None = read_header(path).get(INPUTS_CARD)
    return card


class _Combined:
    """The combined pixels of a unit and what was learnt on the way."""

    def __init__(
        self,
        stack: FrameStack,
        unit: Unit,
        offset: Master | None,
        observatory: Observatory,
        unreadable: Sequence[str],
    ) -> None:
        self._stack, self._unit = stack, unit
        self._subtract = read_master(observatory.layout.data / offset.path)[0] if offset else None
        self._offset_read_noise_adu = offset.read_noise_adu if offset else None
        self._settings = observatory.settings
        self.refusals = list(unreadable)
        self.notes: list[str] = []
        self.read_noise_adu: float | None = None
        self.gain_e_adu: float | None = None
        self.mask: Image | None = None
        combine = {
            FrameKind.BIAS: self._combine_biases,
            FrameKind.DARK: self._combine_darks,
            FrameKind.FLAT: self._combine_flats,
        }[unit.kind]
        self.n_used, n_rejected, self.image = combine()
        self.rejected_fraction = n_rejected / (self.n_used * self.image.size)

    def _median(
        self, keep: Sequence[int], prepare: Callable[[slice, Image], Image]
    ) -> tuple[int, Image]:
        combined = np.empty(self._stack.shape)
        n_rejected = 0
        for rows, band in self._stack.bands(keep=keep):
            combined[rows], n = calibration.clipped_median(
                prepare(rows, band), clip_sigma=self._settings.calibration.clip_sigma
            )
            n_rejected += n
        return n_rejected, combined

    def _combine_biases(self) -> tuple[int, int, Image]:
        n_rejected, combined = self._median(range(len(self._stack)), lambda _rows, band: band)
        self.read_noise_adu = detector.read_noise_of_biases(
            self._stack.frame(0), self._stack.frame(1)
        )
        return len(self._stack), n_rejected, combined

    def _combine_darks(self) -> tuple[int, int, Image]:
        n_rejected, combined = self._median(range(len(self._stack)), lambda _rows, band: band)
        if self._subtract is not None:
            combined -= self._subtract
        return len(self._stack), n_rejected, combined

    def _combine_flats(self) -> tuple[int, int, Image]:
        subtract = self._subtract
        assert subtract is not None
        limits = self._settings.calibration
        bias_level = detector.central_median(subtract)
        extremes = [detector.raw_extremes(self._stack.frame(i)) for i in range(len(self._stack))]
        saturation = self._saturation(extremes)
        keep = []
        for index, flat_extremes in enumerate(extremes):
            refusal = flats.flat_refusal(
                flat_extremes,
                bias_level_adu=bias_level,
                saturation=saturation,
                min_fraction=limits.flat_min_fraction,
                max_fraction=limits.flat_max_fraction,
            )
            if refusal is None:
                keep.append(index)
            else:
                self.refusals.append(f"{Path(self._unit.frames[index].path).name}: {refusal}")
        if len(keep) < limits.min_frames:
            refused = "; ".join(self.refusals[:MAX_REFUSALS_IN_WORDS])
            raise NoCalibration(
                f"{len(keep)} usable {self._unit.words}, at least {limits.min_frames} wanted"
                f" ({len(self.refusals)} refused: {refused})"
            )
        offset_free = {
            i: detector.central_median(self._stack.frame(i).astype(np.float64) - subtract)
            for i in keep
        }
        divisors = np.array([offset_free[i] for i in keep])[:, None, None]
        n_rejected, combined = self._median(
            keep, lambda rows, band: (band.astype(np.float64) - subtract[rows]) / divisors
        )
        self.gain_e_adu = detector.gain_of_flats(
            self._stack.frame(keep[0]),
            self._stack.frame(keep[1]),
            offset=subtract,
            read_noise_adu=self._offset_read_noise_adu or 0.0,
        )
        if self._offset_read_noise_adu is None and self.gain_e_adu is not None:
            self.notes.append(NOISE_NEGLECTED)
        flat, unusable = flats.normalised_master_flat(combined)
        self.mask = unusable.astype(np.uint8)
        return len(keep), n_rejected, flat

    def _saturation(self, extremes: Sequence[detector.RawExtremes]) -> Sourced:
        camera = self._unit.group.camera
        return detector.saturation_of(
            extremes,
            configured_adu=self._settings.for_camera(camera).saturation_adu,
            header_adu=self._unit.frames[0].saturation_header_adu,
        )


def _provenance(unit: Unit, offset: Master | None, combined: _Combined, inputs: str) -> fits.Header:
    header = fits.Header()
    header["IMAGETYP"] = f"Master {unit.kind.value.title()}"
    header["DATE-OBS"] = (unit.frames[0].start_utc or unit.date.isoformat(), "first frame, UTC")
    header["NIGHT"] = unit.date.isoformat()
    header["NCOMBINE"] = (combined.n_used, "frames combined")
    header["NREFUSED"] = (len(combined.refusals), "frames refused")
    header["REJFRAC"] = (combined.rejected_fraction, "part of the pixel values rejected")
    header["BUNIT"] = "adu" if unit.kind is not FrameKind.FLAT else ""
    header["XBINNING"], header["YBINNING"] = (int(n) for n in unit.group.binning.split("x"))
    if unit.group.camera:
        header["INSTRUME"] = card_text(unit.group.camera)
    if unit.filter is not None:
        header["FILTER"] = card_text(unit.filter)
    if unit.exposure_s is not None:
        header["EXPTIME"] = unit.exposure_s
    if combined.read_noise_adu is not None:
        header["RDNMEAS"] = (combined.read_noise_adu, "adu, from the first two frames")
    if combined.gain_e_adu is not None:
        header["GAINMEAS"] = (combined.gain_e_adu, "e-/adu, from the first two flats")
    if offset is not None:
        header["OFFSET1"] = (card_text(offset.path), "subtracted from every frame")
        header["OFFHASH1"] = offset.content_hash[:32]
    header[INPUTS_CARD] = (inputs, "inputs and settings")
    for frame in unit.frames:
        header["HISTORY"] = card_text(f"input {frame.path}")
        header["HISTORY"] = f"  pixels sha256 {frame.pixel_hash}"
    for words in combined.refusals:
        header["HISTORY"] = card_text(f"refused {words}")
    return header
