"""Calibrated frames: pixels in, pixels out.

Master frames, flat fields, the detector's numbers and the choice of masters have modules of their
own. Counts are ADU unless a name says otherwise.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from wombat_dagster.domain import MaskBit, NoCalibration

BAND_ROWS = 128  # calibrated at a time

Image = NDArray[Any]


class Rows(Protocol):
    """An array of shape (ny, nx), or one that reads rows when they are asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the values."""

    def __getitem__(self, rows: slice, /) -> Image:
        """Return some rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What a raw frame is calibrated by; arrays of its shape (ny, nx), None: left out.

    NaN stands where a master knows nothing. `unusable` has the uint8 bits of `MaskBit` of pixels
    that are known to be bad beforehand; `offset_adu` is by how much the frame's zero lies below the
    bias's. Limits are raw counts; without one no pixel is marked for its count.
    """

    bias: Image | None = None
    dark_per_s: Image | None = None
    exposure_s: float = 0.0
    flat: Image | None = None
    unusable: Image | None = None
    offset_adu: float = 0.0
    saturation_adu: float | None = None
    linearity_adu: float | None = None


def calibrate(
    raw: Image, by: Calibration, *, less_overscan: Image | None = None
) -> tuple[Image, Image]:
    """Return the calibrated frame and its mask: (raw + offset - bias - dark·t) / flat.

    Parameters
    ----------
    raw
        Counts as the detector gave them, shape (ny, nx): the limits are applied to these.
    less_overscan
        `raw` less the overscan level, where the detector has one.

    Returns
    -------
    NDArray
        float32, shape of `raw`; 0 where it would not be a number.
    NDArray
        uint8 bits of `MaskBit`.
    """
    image, mask = np.empty(raw.shape, np.float32), np.empty(raw.shape, np.uint8)
    for band in _bands(raw):
        _calibrate_rows(raw, by, less_overscan, band, image[band], mask[band])
    return image, mask


def calibrated_bands(
    raw: Rows, by: Calibration, mask: Image, *, less_overscan: Image | None = None
) -> Iterator[Image]:
    """Yield the rows of the frame that `calibrate` returns, in order, and fill in their `mask`.

    They are overwritten by the next ones, so that all of them stay in the processor's cache.
    `mask`, uint8, has the shape of `raw` and is whole after the last of them.
    """
    image = np.empty((BAND_ROWS, raw.shape[1]), np.float32)
    for band in _bands(raw):
        rows = image[: band.stop - band.start]
        _calibrate_rows(raw, by, less_overscan, band, rows, mask[band])
        yield rows


def _bands(raw: Rows) -> Iterator[slice]:
    n_rows = raw.shape[0]
    for start in range(0, n_rows, BAND_ROWS):
        yield slice(start, min(start + BAND_ROWS, n_rows))


@np.errstate(all="ignore")  # infinities in, no numbers out: marked as such
def _calibrate_rows(
    raw: Rows, by: Calibration, less_overscan: Image | None, band: slice, image: Image, mask: Image
) -> None:
    """Calibrate a band of rows into `image` and `mask`, which have its shape."""
    counts = raw[band]
    np.copyto(image, counts if less_overscan is None else less_overscan[band], casting="same_kind")
    if by.offset_adu:
        image += np.float32(by.offset_adu)
    if by.bias is not None:
        image -= by.bias[band]
    if by.dark_per_s is not None:
        image -= by.dark_per_s[band] * np.float32(by.exposure_s)
    if by.flat is not None:
        image /= by.flat[band]
    mask[:] = 0 if by.unusable is None else by.unusable[band]
    _mark_bright(counts, by, mask)
    real = np.isfinite(image)
    if not real.all():
        mask[~real] |= MaskBit.BAD
        image[~real] = 0.0


def _mark_bright(counts: Image, by: Calibration, mask: Image) -> None:
    """Mark what is beyond the limits; only rows that have such pixels are looked at closely."""
    linearity_adu, saturation_adu = by.linearity_adu, by.saturation_adu
    if counts.dtype.kind in "iu":  # is compared eight times faster with whole numbers
        linearity_adu = None if linearity_adu is None else math.floor(linearity_adu)
        saturation_adu = None if saturation_adu is None else math.ceil(saturation_adu)
    limits_adu = [limit for limit in (linearity_adu, saturation_adu) if limit is not None]
    if not limits_adu:
        return
    bright = ~(counts.max(axis=1) < min(limits_adu))  # also a row with a NaN
    if not bright.any():
        return
    rows, bits = counts[bright], mask[bright]
    if linearity_adu is not None:
        bits |= (rows > linearity_adu).view(np.uint8) * np.uint8(MaskBit.NON_LINEAR)
    if saturation_adu is not None:
        bits |= (rows >= saturation_adu).view(np.uint8) * np.uint8(MaskBit.SATURATED)
    mask[bright] = bits


def refuse_too_few(n: int, minimum: int, words: str) -> None:
    """Raise `NoCalibration` when fewer than `minimum` frames are left; `words` name them."""
    if n < minimum:
        raise NoCalibration(f"{n} {words}, at least {minimum} wanted")
