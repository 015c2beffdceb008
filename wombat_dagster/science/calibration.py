"""Master frames and calibrated frames: pixels in, pixels out.

Which files are combined is decided elsewhere; flat fields, the detector's numbers and the choice of
masters have modules of their own. Counts are ADU unless a name says otherwise.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wombat_dagster.domain import MaskBit, NoCalibration

MAD_TO_SIGMA = 1.482602218505602  # 1/Phi^-1(3/4): what astropy.stats.mad_std uses

Image = NDArray[Any]


def clipped_median(stack: Image, *, clip_sigma: float = 5.0) -> tuple[Image, int]:
    """Return the median of a stack of frames, outliers left out, and how many pixels were left out.

    One pass: values further than `clip_sigma` x 1.4826 MAD from the median are rejected, and the
    median of the rest is taken. That works from three frames on, where a clip by the standard
    deviation rejects nothing below eight.

    Parameters
    ----------
    stack
        Shape (n, ny, nx), any real type.

    Returns
    -------
    NDArray
        float64, shape (ny, nx).
    int
        Number of rejected values.

    Notes
    -----
    The same numbers as ``ccdproc.combine(method="median", sigma_clip=True,
    sigma_clip_low_thresh=5, sigma_clip_high_thresh=5, sigma_clip_func=np.ma.median,
    sigma_clip_dev_func=astropy.stats.mad_std)``.
    """
    values = np.sort(stack.astype(np.float64), axis=0)
    middle = _median_of_sorted(values)
    deviation = np.abs(values - middle)
    limit = clip_sigma * (MAD_TO_SIGMA * np.median(deviation, axis=0))
    spoiled = np.maximum(deviation[0], deviation[-1]) > limit  # sorted: the extremes are outermost
    if not spoiled.any():
        return middle, 0
    few = values[:, spoiled]
    kept = np.where(deviation[:, spoiled] <= limit[spoiled], few, np.nan)
    middle[spoiled] = np.nanmedian(kept, axis=0)
    return middle, int(np.isnan(kept).sum())


def _median_of_sorted(values: Image) -> Image:
    n = len(values)
    if n % 2:
        return values[n // 2].copy()
    return (values[n // 2 - 1] + values[n // 2]) / 2


def calibrate(
    raw: Image,
    *,
    bias: Image | None,
    dark_per_s: Image | None,
    exposure_s: float,
    flat: Image | None,
    flat_unusable: Image | None,
    saturation_adu: float,
    linearity_adu: float,
) -> tuple[Image, Image]:
    """Return the calibrated frame and its mask: (raw - bias - dark·t) / flat.

    What is None is left out. Limits are applied to the raw counts.

    Returns
    -------
    NDArray
        float32, shape of `raw`.
    NDArray
        uint8 bits of `MaskBit`.
    """
    image = raw.astype(np.float32)
    mask = np.where(raw > linearity_adu, np.uint8(MaskBit.NON_LINEAR), np.uint8(0))
    mask[raw >= saturation_adu] |= MaskBit.SATURATED
    if bias is not None:
        image -= bias
    if dark_per_s is not None:
        image -= dark_per_s * np.float32(exposure_s)
    if flat is not None:
        image /= flat
    if flat_unusable is not None:
        mask[flat_unusable] |= MaskBit.BAD
    unreal = ~np.isfinite(image)
    if unreal.any():
        mask[unreal] |= MaskBit.BAD
        image[unreal] = 0.0
    return image, mask


def refuse_too_few(n: int, minimum: int, words: str) -> None:
    """Raise `NoCalibration` when fewer than `minimum` frames are left; `words` name them."""
    if n < minimum:
        raise NoCalibration(f"{n} {words}, at least {minimum} wanted")
