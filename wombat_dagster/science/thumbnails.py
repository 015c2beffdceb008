"""A frame shrunk to a thumbnail, and stretched so that a night's frames can be compared by eye."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wombat_dagster.domain import FloatArray

ORDER = 4  # of the surface through the night's sky
BLACK_SIGMA = -2.0  # of the thumbnail's usual noise about the frame's own sky
SOFT_SIGMA = 4.0  # where the stretch turns from linear to logarithmic
WHITE_SIGMA = 120.0
SKY_STEP = 0.10  # of full white, per doubling of the usual sky: twilight shows


def block_means(image: NDArray, longer_px: int) -> FloatArray:
    """Return `image`, shape (ny, nx), in means of square blocks, at most `longer_px` long.

    Rows first, which the processor adds in one go: four million pixels take 3 ms. What is left over
    at the upper and right edge is dropped; NaN in a block leaves it NaN.
    """
    block = max(1, -(-max(image.shape) // longer_px))
    down, across = (min(block, n) for n in image.shape)  # of a strip, all of it
    height, width = image.shape[0] // down, image.shape[1] // across
    cut = image[: height * down, : width * across]
    rows = np.add.reduce(cut.reshape(height, down, width * across), axis=1)
    sums = rows.reshape(height, width, across).sum(axis=-1, dtype=float)
    return np.asarray(sums / (down * across))


def shape_of_sky(night: Sequence[FloatArray]) -> FloatArray:
    """Return the smooth shape that the sky has on a night's thumbnails, 1 in the median.

    Vignetting without a flat, the Moon's gradient: a surface of fourth order through the median of
    the frames. Stars do not matter: pixels more than 3 sigma off are left out once.
    """
    levels = [float(np.nanmedian(blocks)) for blocks in night]
    usable = [blocks / level for blocks, level in zip(night, levels, strict=True) if level > 0]
    if not usable:
        return np.ones(night[0].shape)
    middle = np.nanmedian(np.stack(usable), axis=0)
    y, x = np.indices(middle.shape)
    x, y = (
        2.0 * place / max(n - 1, 1) - 1.0 for place, n in zip((x, y), middle.T.shape, strict=True)
    )
    powers = [(p, q) for p in range(ORDER + 1) for q in range(ORDER + 1 - p)]
    terms = np.stack([(x**p * y**q).ravel() for p, q in powers], axis=1)
    values, kept = middle.ravel(), np.isfinite(middle.ravel())
    surface = np.ones(values.shape)
    for _ in range(2):
        if kept.sum() < 4 * len(powers):
            break
        surface = terms @ np.linalg.lstsq(terms[kept], values[kept], rcond=None)[0]
        off = np.abs(values - surface)
        kept &= off < 3.0 * 1.4826 * np.nanmedian(off[kept])
    return surface.reshape(middle.shape)


def levelled(blocks: FloatArray, shape: FloatArray) -> FloatArray:
    """Return a thumbnail less the night's shape of the sky at the frame's own level."""
    level = float(np.nanmedian(blocks)) if np.isfinite(blocks).any() else 0.0
    return np.asarray(blocks - (level * (shape - 1.0) if level > 0 else 0.0))


def noise_of(blocks: FloatArray) -> float:
    """Return the robust noise of a thumbnail: half the distance of its 16th and 84th percentiles.

    Gradients and nebulae count: the stretch is to be no steeper than what the frame shows.
    """
    low, high = np.nanpercentile(blocks, (15.87, 84.13))
    return float(high - low) / 2.0


def stretched(
    blocks: FloatArray, *, noise_adu: float, sky_of_usual: float | None = None
) -> NDArray[np.uint8]:
    """Return a thumbnail as greys 0…255, the same stretch for all frames of a night.

    `noise_adu` is the night's usual `noise_of`; a frame's own sky is dark grey, lighter by
    `SKY_STEP` for every doubling of the usual sky (`sky_of_usual`: the frame's over the usual).
    North is nowhere in particular: rows come as FITS has them, from the bottom.
    """
    level = float(np.nanmedian(blocks)) if np.isfinite(blocks).any() else 0.0
    sigma = noise_adu if noise_adu > 0 else 1.0
    deviation = np.nan_to_num((blocks - level) / sigma - BLACK_SIGMA, nan=0.0)
    white = np.arcsinh((WHITE_SIGMA - BLACK_SIGMA) / SOFT_SIGMA)
    grey = np.arcsinh(np.maximum(deviation, 0.0) / SOFT_SIGMA) / white
    if sky_of_usual is not None and sky_of_usual > 0:
        grey = grey + SKY_STEP * float(np.clip(np.log2(sky_of_usual), 0.0, 5.0))
    return np.asarray(255.0 * np.clip(grey, 0.0, 1.0)).astype(np.uint8)[::-1]


def stamp(image: NDArray, x_px: float, y_px: float, half_px: int) -> FloatArray | None:
    """Return the square of `half_px` around a place, in ADU; None where it leaves the frame."""
    if not (np.isfinite(x_px) and np.isfinite(y_px)):
        return None
    x, y = round(x_px), round(y_px)
    height, width = image.shape
    if min(x, y, width - 1 - x, height - 1 - y) < half_px:
        return None
    cut = image[y - half_px : y + half_px + 1, x - half_px : x + half_px + 1]
    return np.array(cut, dtype=np.float32)


def star_greys(cut: FloatArray) -> NDArray[np.uint8]:
    """Return a star as greys from its sky to its peak: its shape shows, its brightness does not."""
    low, high = np.nanpercentile(cut, (20.0, 99.7))
    grey = np.nan_to_num((cut - low) / max(float(high - low), 1e-9), nan=0.0)
    return np.asarray(255.0 * np.sqrt(np.clip(grey, 0.0, 1.0))).astype(np.uint8)[::-1]
