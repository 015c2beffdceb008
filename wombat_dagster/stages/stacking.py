"""From the frames of a unit to the pixels of its master, and what they tell on the way.

Which frames belong together, what is subtracted and where the result lies is decided in `masters`.
Frames go in as raw counts plus PEDESTAL, or as raw counts less their overscan, trimmed.
"""

import datetime as dt
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wombat_dagster.config import CalibrationSettings
from wombat_dagster.domain import FrameGroup, FrameKind, Master, NoCalibration, RawFrame
from wombat_dagster.observatory import Observatory
from wombat_dagster.science import detector, flats, overscan
from wombat_dagster.science.combining import combine
from wombat_dagster.science.detector import Measured
from wombat_dagster.store.frames import UnreadableFrame, read_master
from wombat_dagster.store.stacks import FrameStack

log = logging.getLogger(__name__)

SUBTRACTED_BEFORE = "CALSTAT"  # in place of a bias's hash: the capture program has subtracted it
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Offset:
    """What is subtracted from the frames of a unit before they are combined.

    `level` is subtracted as it is: a bias, or for flats a dark of their own exposure that holds it.
    `dark` is without bias and is scaled to each frame's exposure.
    """

    level: Master | None = None
    dark: Master | None = None
    is_done: bool = False  # the capture program has subtracted the bias

    @property
    def masters(self) -> tuple[Master, ...]:
        """The masters that are subtracted."""
        return tuple(master for master in (self.level, self.dark) if master is not None)

    @property
    def bias_hash(self) -> str | None:
        """Hash of what took the bias out of the frames; None when it is still in them."""
        if self.level is not None:
            return self.level.content_hash
        return SUBTRACTED_BEFORE if self.is_done else None

    @property
    def frame_noise_adu(self) -> float | None:
        """Noise of one frame without light: read noise, or that of a frame of the bias+dark."""
        if self.level is None:
            return None
        if self.level.kind is FrameKind.DARK and self.level.noise is not None:
            return self.level.noise / detector.noise_of_median(1.0, self.level.n_used)
        return self.level.read_noise_adu


class PreparedFrames:
    """The frames of a unit as they go into its master, in the order of `frames`.

    See `overscan.prepare`. Where no count changes they stay in their own type.

    Raises
    ------
    ValueError
        Overscan or trim is not in the images.
    """

    def __init__(self, stack: FrameStack, frames: Sequence[RawFrame]) -> None:
        self._stack = stack
        first = frames[0]  # of the same sections as the others: `_alike`
        self._overscan, self._trim = first.overscan, first.trim
        whole = (slice(0, stack.shape[0]), slice(0, stack.shape[1]))
        self._window = overscan.window_of(first.trim, stack.shape) if first.trim else whole
        self._pedestals_adu = [0.0 if f.pedestal_adu is None else f.pedestal_adu for f in frames]
        self.pedestal_adu = float(np.median(self._pedestals_adu))
        self._levels: list[Image] | None = None
        if first.overscan is not None:
            self.pedestal_adu = 0.0
            self._levels = [
                overscan.overscan_levels(stack.frame(i), first.overscan) for i in range(len(stack))
            ]
        self._is_raw = self._levels is None and not any(self._pedestals_adu)

    def __len__(self) -> int:
        return len(self._stack)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns that are kept."""
        rows, columns = self._window
        return rows.stop - rows.start, columns.stop - columns.start

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type that holds the values of every frame."""
        return self._stack.dtype if self._is_raw else np.dtype(np.float64)

    def frame(self, index: int) -> tuple[Image, Image]:
        """Return one frame, trimmed: as the camera wrote it, and as it is combined."""
        counts = self._stack.frame(index)
        prepared = overscan.prepare(
            counts,
            overscan=self._overscan,
            trim=self._trim,
            pedestal_adu=self._pedestals_adu[index],
        )
        return counts[self._window], prepared

    def raw_tiles(self, index: int) -> Image:
        """Return the `detector.tiles` of one frame as the camera wrote it."""
        return self._tiles(index, self._read_raw, self._stack.dtype)

    def tiles(self, index: int) -> Image:
        """Return the `detector.tiles` of one frame as it is combined."""
        return self._tiles(index, self.read, self.dtype)

    def _tiles(
        self,
        index: int,
        read: Callable[[slice, Sequence[int], Image], None],
        dtype: np.dtype[Any],
    ) -> Image:
        found = []
        for rows in detector.tile_rows(self.shape[0]):
            strip = np.empty((1, rows.stop - rows.start, self.shape[1]), dtype)
            read(rows, [index], strip)
            found.append(detector.tiles_of_strip(strip[0]))
        return np.concatenate(found)

    def read(self, rows: slice, keep: Sequence[int], out: Image) -> None:
        """Put `rows` of the frames `keep` into `out`, shape (len(keep), rows, nx)."""
        if self._is_raw:
            self._read_raw(rows, keep, out)
            return
        counts = np.empty(out.shape, self._stack.dtype)
        self._read_raw(rows, keep, counts)
        all_rows, columns = self._window
        for index, raw, prepared in zip(keep, counts, out, strict=True):
            if self._levels is None:
                np.add(raw, self._pedestals_adu[index], out=prepared)
            elif self._levels[index].shape[1] == 1:
                there = slice(all_rows.start + rows.start, all_rows.start + rows.stop)
                np.subtract(raw, self._levels[index][there], out=prepared)
            else:
                np.subtract(raw, self._levels[index][:, columns], out=prepared)

    def _read_raw(self, rows: slice, keep: Sequence[int], out: Image) -> None:
        all_rows, columns = self._window
        there = slice(all_rows.start + rows.start, all_rows.start + rows.stop)
        if out.shape[-1] == self._stack.shape[1]:
            self._stack.read(there, keep, out)
            return
        whole = np.empty((*out.shape[:2], self._stack.shape[1]), self._stack.dtype)
        self._stack.read(there, keep, whole)
        out[:] = whole[:, :, columns]


@dataclass(frozen=True, slots=True, kw_only=True)
class CombinedUnit:
    """The combined pixels of a unit and what was learnt on the way."""

    image: Image
    n_used: int
    rejected_fraction: float
    refusals: Sequence[str]
    mask: Image | None = None
    noise: float | None = None
    read_noise: Measured | None = None
    gain: Measured | None = None
    dark_current: Measured | None = None
    notes: tuple[str, ...] = ()


def combine_unit(
    observatory: Observatory,
    frames: PreparedFrames,
    unit: Unit,
    offset: Offset,
    refusals: list[str],
) -> CombinedUnit:
    """Return the master of `unit`; `refusals` are those of the frames left out so far.

    Raises
    ------
    NoCalibration
        Too few flats are fit, or the pixels of the offset cannot be had.
    """
    made = _combined(observatory, frames, unit, offset, refusals)
    return replace(  # pixels that are no numbers tell nothing of the detector
        made,
        noise=made.noise if made.noise is not None and np.isfinite(made.noise) else None,
        read_noise=_finite(made.read_noise),
        gain=_finite(made.gain),
        dark_current=_finite(made.dark_current),
    )


def _finite(measured: Measured | None) -> Measured | None:
    is_finite = measured is not None and np.isfinite([measured.value, measured.error]).all()
    return measured if is_finite else None


def _combined(
    observatory: Observatory,
    frames: PreparedFrames,
    unit: Unit,
    offset: Offset,
    refusals: list[str],
) -> CombinedUnit:
    clip_sigma = observatory.settings.calibration.clip_sigma
    if unit.kind is FrameKind.BIAS:
        return _combined_biases(frames, refusals, clip_sigma)
    pixels = _OffsetPixels(observatory, offset, frames.pedestal_adu)
    if unit.kind is FrameKind.DARK:
        return _combined_darks(frames, unit, offset, pixels, refusals, clip_sigma)
    found = _Flats(frames, unit, offset, pixels, refusals, observatory.settings.calibration)
    return found.combined(
        twilights_of(observatory, unit),
        configured_saturation_adu=observatory.settings.for_camera(unit.group.camera).saturation_adu,
    )


def twilights_of(observatory: Observatory, unit: Unit) -> tuple[flats.Twilight | None, ...]:
    """Return for every flat of a unit whether the Sun sank or rose, None where neither is known."""
    site = observatory.settings.site
    return flats.twilights(
        [frame.start_utc for frame in unit.frames],
        [frame.exposure_s or 0.0 for frame in unit.frames],
        configured=site.site() if site is not None else None,
        header_hint=unit.frames[0].site_hint,
    )


class _OffsetPixels:
    """The pixels of an offset, read once.

    `frames_pedestal_adu` stands in for that of a master whose own is not known.
    """

    def __init__(
        self, observatory: Observatory, offset: Offset, frames_pedestal_adu: float
    ) -> None:
        self.level: Image | None = None
        self._dark_per_s: Image | None = None
        if (level := offset.level) is not None:
            pedestal_adu = level.pedestal_adu
            self.level = _pixels(observatory, level)
            self.level = self.level + np.float32(
                frames_pedestal_adu if pedestal_adu is None else pedestal_adu
            )
        if offset.dark is not None:
            assert offset.dark.exposure_s
            dark = _pixels(observatory, offset.dark)
            self._dark_per_s = dark / np.float32(offset.dark.exposure_s)

    def subtracted(self, image: Image, exposure_s: float | None) -> Image:
        """Return a frame without its offset, float32."""
        signal = image.astype(np.float32)
        if self.level is not None:
            signal -= self.level
        if self._dark_per_s is not None:
            signal -= self._dark_per_s * np.float32(exposure_s or 0.0)
        return signal

    def subtracted_band(self, rows: slice, band: Image, exposures_s: Image) -> Image:
        """Return rows of the frames, shape (n, rows, nx), without their offset, float64."""
        signal = band.astype(np.float64)
        if self.level is not None:
            signal -= self.level[rows]
        if self._dark_per_s is not None:
            signal -= self._dark_per_s[rows] * exposures_s[:, None, None]
        return signal


def _pixels(observatory: Observatory, master: Master) -> Image:
    try:
        return read_master(observatory.layout.raw_path(master.path))[0]
    except (UnreadableFrame, OSError) as error:
        raise NoCalibration(f"{master.path}, to be subtracted: {error}") from error


def _combined_biases(
    frames: PreparedFrames, refusals: Sequence[str], clip_sigma: float
) -> CombinedUnit:
    n = len(frames)
    image, n_rejected = combine(frames, clip_sigma=clip_sigma)
    read_noise = detector.read_noise(frames.raw_tiles(i) for i in range(n))
    return CombinedUnit(
        image=image,
        n_used=n,
        rejected_fraction=n_rejected / (n * image.size),
        refusals=refusals,
        noise=detector.noise_of_median(read_noise.value, n) if read_noise else None,
        read_noise=read_noise,
    )


def _combined_darks(
    frames: PreparedFrames,
    unit: Unit,
    offset: Offset,
    pixels: _OffsetPixels,
    refusals: Sequence[str],
    clip_sigma: float,
) -> CombinedUnit:
    n = len(frames)
    image, n_rejected = combine(frames, clip_sigma=clip_sigma)
    if pixels.level is not None:
        image -= pixels.level
    tiles = [frames.tiles(i) for i in range(n)]
    noise = detector.frame_noise(tiles)
    current, notes = None, []
    if offset.bias_hash is not None:
        level = detector.tiles(pixels.level) if pixels.level is not None else 0.0
        current = detector.dark_current((t - level for t in tiles), exposure_s=unit.exposure_s or 0)
        glow_adu = detector.glow_adu(image)
        if glow_adu is not None:
            notes.append(
                f"amplifier glow: up to {glow_adu:.1f} ADU above the level in"
                f" {unit.exposure_s:g} s, which does not scale with the exposure"
            )
    return CombinedUnit(
        image=image,
        n_used=n,
        rejected_fraction=n_rejected / (n * image.size),
        refusals=refusals,
        noise=_with_offset(noise and detector.noise_of_median(noise, n), offset),
        dark_current=current,
        notes=tuple(notes),
    )


def _with_offset(noise: float | None, offset: Offset, level_adu: float = 1.0) -> float | None:
    """Return the noise with that of what was subtracted, in units of `level_adu`."""
    if noise is None or offset.level is None or offset.level.noise is None:
        return noise
    return float(np.hypot(noise, offset.level.noise / level_adu))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Look:
    """What one look at a flat tells: raw counts, and without offset level, shape and tiles."""

    extremes: detector.RawExtremes
    level_adu: float
    shape: flats.Shape
    tiles: Image  # float32: they are kept for all flats


class _Flats:
    """The flats of a unit on their way to a master."""

    def __init__(
        self,
        frames: PreparedFrames,
        unit: Unit,
        offset: Offset,
        pixels: _OffsetPixels,
        refusals: Sequence[str],
        limits: CalibrationSettings,
    ) -> None:
        self._frames, self._unit, self._offset, self._pixels = frames, unit, offset, pixels
        self._refusals, self._limits = list(refusals), limits

    def combined(
        self,
        twilight: Sequence[flats.Twilight | None],
        *,
        configured_saturation_adu: float | None,
    ) -> CombinedUnit:
        """Return the master; `twilight` says of every flat when it was taken."""
        looks = [self._look(i) for i in range(len(self._frames))]
        keep = self._well_exposed(looks, configured_saturation_adu)
        minimum = self._limits.min_frames
        if len(keep) >= minimum:
            for together in flats.sets_of(keep, twilight, min_frames=minimum)[0]:
                keep = self._without(keep, flats.odd_shapes({i: looks[i].shape for i in together}))
        if len(keep) < minimum:
            refused = "; ".join(self._refusals[:MAX_REFUSALS_IN_WORDS])
            raise NoCalibration(
                f"{len(keep)} usable {self._unit.words}, at least {minimum} wanted"
                f" ({len(self._refusals)} refused: {refused})"
            )
        sets, words = flats.sets_of(keep, twilight, min_frames=minimum)
        levels_adu = np.array([look.level_adu for look in looks])
        medians = [self._set_median(one, levels_adu) for one in sets]
        light = np.array([levels_adu[list(one)].sum() for one in sets])
        combined = flats.together([image for image, _ in medians], light)
        notes = [words]
        if len(medians) == 2 and (departure := flats.halves_difference(*[m for m, _ in medians])):
            log.warning("%s: %s", self._unit.words, departure)
            notes.append(departure)
        pairs = self._pairs([looks[i].tiles for i in keep])
        flat, unusable = flats.normalised_master_flat(combined)
        return CombinedUnit(
            image=flat,
            mask=unusable.astype(np.uint8),
            n_used=len(keep),
            rejected_fraction=sum(n for _, n in medians) / (len(keep) * flat.size),
            refusals=self._refusals,
            noise=self._noise(pairs.noise, sets, light),
            gain=pairs.gain_e_adu,
            notes=tuple(notes),
        )

    def _look(self, index: int) -> _Look:
        exposure_s = self._unit.frames[index].exposure_s
        raw, prepared = self._frames.frame(index)
        signal = self._pixels.subtracted(prepared, exposure_s)
        return _Look(
            extremes=detector.raw_extremes(raw),
            level_adu=detector.central_median(signal),
            shape=flats.shape_of(signal),
            tiles=detector.tiles(signal).astype(np.float32),
        )

    def _well_exposed(
        self, looks: Sequence[_Look], configured_saturation_adu: float | None
    ) -> list[int]:
        saturation = detector.saturation_of(
            [look.extremes for look in looks],
            configured_adu=configured_saturation_adu,
            header_adu=self._unit.frames[0].saturation_header_adu,
        )
        reasons = {
            i: flats.flat_refusal(
                look.extremes,
                bias_level_adu=look.extremes.level_adu - look.level_adu,
                saturation=saturation,
                min_fraction=self._limits.flat_min_fraction,
                max_fraction=self._limits.flat_max_fraction,
            )
            for i, look in enumerate(looks)
        }
        refused = {i: reason for i, reason in reasons.items() if reason is not None}
        return self._without(range(len(looks)), refused)

    def _without(self, keep: Iterable[int], refused: dict[int, str]) -> list[int]:
        self._refusals += [
            f"{Path(self._unit.frames[i].path).name}: {reason}" for i, reason in refused.items()
        ]
        return [i for i in keep if i not in refused]

    def _set_median(self, keep: Sequence[int], levels_adu: Image) -> tuple[Image, int]:
        divisors = levels_adu[list(keep)][:, None, None]
        exposures_s = np.array([self._unit.frames[i].exposure_s or 0.0 for i in keep])

        def normalised(rows: slice, band: Image) -> Image:
            signal = self._pixels.subtracted_band(rows, band, exposures_s)
            signal /= divisors
            return signal

        return combine(
            self._frames, clip_sigma=self._limits.clip_sigma, keep=keep, prepare=normalised
        )

    def _pairs(self, tiles: Sequence[Image]) -> detector.FlatPairs:
        level = self._offset.level
        return detector.flat_pairs(
            tiles,
            read_noise_adu=self._offset.frame_noise_adu or 0.0,
            read_noise_error_adu=(level.read_noise_error_adu if level else None) or 0.0,
        )

    def _noise(
        self, noise: float | None, sets: Sequence[Sequence[int]], light: Image
    ) -> float | None:
        """Return the relative noise of the master from that of one flat."""
        if noise is None:
            return None
        shares = light / light.sum()
        parts = [
            share * detector.noise_of_median(noise, len(one))
            for share, one in zip(shares, sets, strict=True)
        ]
        level_adu = float(light.sum()) / sum(len(one) for one in sets)
        return _with_offset(float(np.sqrt(np.sum(np.square(parts)))), self._offset, level_adu)
