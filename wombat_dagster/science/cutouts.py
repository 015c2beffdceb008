"""The pixels about the stars of a frame: cut-outs, exact circles, annuli and their sky.

Everything here takes many stars at once and reads the frame in blocks, never pixel by pixel. What
the pixels mean is left to `science.centroids`, `science.mending` and `science.photometry`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from wombat_dagster.domain import BoolArray, FloatArray, MaskBit
from wombat_dagster.science import astrometry

MASK_UNUSABLE = MaskBit.BAD | MaskBit.EDGE
FWHM_PER_SIGMA = 2.0 * math.sqrt(2.0 * math.log(2.0))
STARS_PER_BLOCK = 256  # fewer cost calls, more cost memory

SKY_CLIP_SIGMA = 2.0
SKY_STOP_ADU = 1e-4  # 0.1 would shift the mean by up to 1.2 ADU
SKY_MAX_PASSES = 100


def blocks(n_stars: int) -> Iterator[slice]:
    """Return the slices in which to take many stars, so that memory does not grow with them."""
    return (slice(i, i + STARS_PER_BLOCK) for i in range(0, n_stars, STARS_PER_BLOCK))


# -------------------------------------------------------------------------------- cut-outs


@dataclass(frozen=True, slots=True, kw_only=True)
class Cutouts:
    """Square cut-outs of n stars, all (n, k, k); `dx`, `dy`, (n, k), from the star's place."""

    values: FloatArray
    bits: NDArray[np.uint8]
    bad: BoolArray  # masked, at the edge, or not a number
    dx: FloatArray
    dy: FloatArray

    def within(self, radius_px: float) -> "Cutouts":
        """Return the same cut-outs, no wider than a circle of `radius_px` needs."""
        trim = self.values.shape[1] // 2 - _half(radius_px)
        if trim <= 0:
            return self
        inner = slice(trim, -trim)
        return Cutouts(
            values=self.values[:, inner, inner],
            bits=self.bits[:, inner, inner],
            bad=self.bad[:, inner, inner],
            dx=self.dx[:, inner],
            dy=self.dy[:, inner],
        )


def mask_bits(
    mask: NDArray[np.integer] | NDArray[np.bool_] | None, shape: tuple[int, ...]
) -> NDArray[np.uint8]:
    """Return the mask as `MaskBit`s, of a frame of `shape`."""
    if mask is None:
        return np.broadcast_to(np.uint8(0), shape)
    return mask.astype(np.uint8, copy=False)


def whole(x: FloatArray, y: FloatArray, shape: tuple[int, ...], radius_px: float) -> BoolArray:
    """Return where a circle lies wholly on the frame."""
    return astrometry.inside_frame(x, y, shape[1], shape[0], margin_px=radius_px)


def cut_out(
    image: FloatArray,
    bits: NDArray[np.uint8],
    x: FloatArray,
    y: FloatArray,
    radius_px: float,
) -> Cutouts:
    """Return cut-outs of the stars at (x, y) that hold circles of `radius_px` and a pixel more."""
    half = _half(radius_px)
    columns, rows, off = _places(image.shape, x, y, half)
    values = _read(image, x, y, half).astype(float)
    cut_bits = _read(bits, x, y, half)
    bad = off | ((cut_bits & MASK_UNUSABLE) != 0) | ~np.isfinite(values)
    return Cutouts(
        values=values, bits=cut_bits, bad=bad, dx=columns - x[:, None], dy=rows - y[:, None]
    )


def _half(radius_px: float) -> int:
    return math.ceil(radius_px) + 1


def _places(
    shape: tuple[int, ...], x: FloatArray, y: FloatArray, half: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], BoolArray]:
    """Return columns and rows, (n, k), of cut-outs of 2 half + 1 pixels, and what is off (n, k, k).

    Pixels off the frame repeat its edge, so that the cut-outs can be read; they must be ignored.
    """
    steps = np.arange(-half, half + 1)
    columns = np.rint(x).astype(np.intp)[:, None] + steps
    rows = np.rint(y).astype(np.intp)[:, None] + steps
    off_x = (columns < 0) | (columns >= shape[1])
    off_y = (rows < 0) | (rows >= shape[0])
    return columns, rows, off_y[:, :, None] | off_x[:, None, :]


def _read(array: NDArray, x: FloatArray, y: FloatArray, half: int) -> NDArray:
    """Return the (n, k, k) pixels about the places; whole blocks are copied row by row."""
    side = 2 * half + 1
    left, low = np.rint(x).astype(np.intp) - half, np.rint(y).astype(np.intp) - half
    height, width = array.shape
    if height >= side and width >= side:
        inside = (left >= 0) & (low >= 0) & (left <= width - side) & (low <= height - side)
        windows = sliding_window_view(array, (side, side))
        if inside.all():
            return windows[low, left]
    else:
        inside = np.zeros(left.shape, bool)
    read = np.empty((left.size, side, side), array.dtype)
    if inside.any():
        read[inside] = windows[low[inside], left[inside]]
    steps = np.arange(side)
    rows = np.clip(low[~inside, None] + steps, 0, height - 1)
    columns = np.clip(left[~inside, None] + steps, 0, width - 1)
    read[~inside] = array[rows[:, :, None], columns[:, None, :]]
    return read


# --------------------------------------------------------------------------------- circles


def circle_overlap(x_edges_px: FloatArray, y_edges_px: FloatArray, radius_px: float) -> FloatArray:
    """Return the exact area of every pixel inside a circle about the origin.

    Parameters
    ----------
    x_edges_px, y_edges_px
        Pixel edges relative to the circle's centre, shapes (n, k + 1) and (n, m + 1), ascending.

    Returns
    -------
    FloatArray
        Areas of shape (n, m, k), between 0 and 1 for unit pixels.

    Notes
    -----
    The area of the circle in the rectangle between the axes and a corner (x, y) in the first
    quadrant is xy where the corner is inside, else a·y + P(x) − P(a) with a = √(r² − y²) and P the
    integral of √(r² − u²). Odd in both coordinates, so four corners give a pixel. The roots and
    arc sines depend on one coordinate each, which makes this cheap.
    """
    x = np.abs(x_edges_px)[:, None, :]
    y = np.abs(y_edges_px)[:, :, None]
    arc_x = np.sqrt(np.clip(radius_px**2 - y**2, 0.0, None))
    outside = arc_x * np.minimum(y, radius_px) - _segment(arc_x, radius_px)
    outside = outside + _segment(np.minimum(x, radius_px), radius_px)
    corner = np.where(x**2 + y**2 <= radius_px**2, x * y, outside)
    corner *= np.sign(x_edges_px)[:, None, :]
    corner *= np.sign(y_edges_px)[:, :, None]
    return np.maximum(np.diff(np.diff(corner, axis=1), axis=2), 0.0)


def pixel_overlap(dx: FloatArray, dy: FloatArray, radius_px: float) -> FloatArray:
    """Return the exact area, (n, k, k), of a cut-out's pixels inside a circle about the origin.

    `dx`, `dy`, (n, k): the pixels' centres.
    """
    return circle_overlap(_edges(dx), _edges(dy), radius_px)


def _edges(centres: FloatArray) -> FloatArray:
    """Return the k + 1 edges of k unit pixels."""
    return np.concatenate((centres - 0.5, centres[:, -1:] + 0.5), axis=1)


def _segment(u: FloatArray, radius: float) -> FloatArray:
    """Return the integral of sqrt(radius² - u²) from 0 to `u`, 0 <= u <= radius."""
    height = np.sqrt(np.clip(radius**2 - u**2, 0.0, None))
    return 0.5 * (u * height + radius**2 * np.arcsin(u / radius))


# ---------------------------------------------------------------------------- annulus, sky


@dataclass(frozen=True, slots=True, kw_only=True)
class Annulus:
    """Whole pixels whose centres lie between two radii."""

    inner_px: float
    outer_px: float

    def values(
        self,
        image: FloatArray,
        bits: NDArray[np.uint8],
        x: FloatArray,
        y: FloatArray,
        *,
        every: int = 1,
    ) -> FloatArray:
        """Return the pixels about n stars, (n, m), in the frame's type; NaN where not to be used.

        `every` takes only each so many-th of them, where a rough sky will do.
        """
        half = _half(self.outer_px)
        steps = np.arange(-half, half + 1)
        distance = np.hypot(steps[:, None], steps)
        # a star lies within 0.71 px of its cut-out's middle: only a rim has to be looked at
        near = (distance >= self.inner_px - 1) & (distance <= self.outer_px + 1)
        chosen = np.flatnonzero(near)[::every]
        sure = (distance >= self.inner_px + 1) & (distance <= self.outer_px - 1)
        sure_chosen = sure.ravel()[chosen]
        rim, chosen = (
            chosen[~sure_chosen],
            np.concatenate((chosen[~sure_chosen], chosen[sure_chosen])),
        )
        # take, not an index: its answer lies in memory star by star
        values = np.take(_read(image, x, y, half).reshape(x.size, -1), chosen, axis=1)
        if not np.issubdtype(values.dtype, np.floating) or not values.dtype.isnative:
            values = values.astype(float)
        columns = np.rint(x)[:, None] + steps[rim % steps.size]
        rows = np.rint(y)[:, None] + steps[rim // steps.size]
        square = (columns - x[:, None]) ** 2 + (rows - y[:, None]) ** 2
        outside = (square < self.inner_px**2) | (square > self.outer_px**2)
        values[:, : rim.size][outside] = np.nan
        cut_bits = _read(bits, x, y, half).reshape(x.size, -1)
        masked = np.flatnonzero(cut_bits.any(axis=1))
        if masked.size:
            values[masked] = np.where(cut_bits[masked][:, chosen] == 0, values[masked], np.nan)
        off_frame = np.flatnonzero(~whole(x, y, image.shape, half + 0.5))
        if off_frame.size:
            _, _, off = _places(image.shape, x[off_frame], y[off_frame], half)
            off = off.reshape(off_frame.size, -1)[:, chosen]
            values[off_frame] = np.where(off, np.nan, values[off_frame])
        values[np.isinf(values)] = np.nan
        return values


def medians(values: FloatArray) -> FloatArray:
    """Return the median of every row, (n,), without the NaN; NaN where there is nothing else."""
    ordered = np.sort(values, axis=1)
    n = np.count_nonzero(~np.isnan(ordered), axis=1)
    row = np.arange(n.size)
    low = ordered[row, np.maximum(n - 1, 0) // 2].astype(float)
    return (low + ordered[row, np.minimum(n // 2, max(values.shape[1] - 1, 0))]) / 2


def clipped_sky(
    values_adu: FloatArray, *, stop_adu: float = SKY_STOP_ADU
) -> tuple[FloatArray, NDArray[np.intp]]:
    """Return (mean in ADU per pixel, pixels kept), both (n,), of the sky pixels of n stars, (n, m).

    NaN is no pixel. Pixels beyond 2 population sigmas of the mean are rejected; every pass tests
    *all* pixels again, so a pixel may come back. It ends when the mean moves by less than 1e-4 ADU,
    or after 100 passes. NaN and 0 without pixels.

    Notes
    -----
    Sorted once, the kept pixels are a slice of what lies in memory: a pass costs two bisections and
    two sums.
    """
    ordered = np.sort(values_adu, axis=1)  # NaN last
    n_stars, width = ordered.shape
    number = np.count_nonzero(~np.isnan(ordered), axis=1).astype(np.intp)
    means = np.full(n_stars, np.nan)
    if width == 0:
        return means, number
    # about the median, which keeps the sums of squares precise; one more for the end of the last
    zero = ordered[np.arange(n_stars), np.minimum(number // 2, width - 1)].astype(float)
    flat = np.empty(ordered.size + 1)
    flat[-1] = 0.0
    centred = flat[:-1].reshape(ordered.shape)
    np.subtract(ordered, zero[:, None], out=centred)
    squares = np.square(flat)
    first = width * np.arange(n_stars)
    last = first + number
    busy = np.flatnonzero(number)
    means[busy] = np.inf
    for _ in range(SKY_MAX_PASSES):
        slices = np.stack((first[busy], last[busy]), axis=1).ravel()
        n = last[busy] - first[busy]
        mean = np.add.reduceat(flat, slices)[::2] / n
        going = ~(np.abs(mean - means[busy]) < stop_adu)
        means[busy] = mean
        if not going.any():
            break
        variance = np.add.reduceat(squares, slices)[::2][going] / n[going] - mean[going] ** 2
        mean, busy = mean[going], busy[going]
        reach = SKY_CLIP_SIGMA * np.sqrt(np.maximum(variance, 0.0))
        limits = np.concatenate((mean - reach, np.nextafter(mean + reach, np.inf)))
        start = np.tile(width * busy, 2)
        new_first, new_last = (start + _counts_below(flat, start, width, limits)).reshape(2, -1)
        kept = new_first < new_last  # not so: sigma 0 and a mean off by rounding
        busy = busy[kept]
        first[busy], last[busy] = new_first[kept], new_last[kept]
        if not busy.size:
            break
    return zero + means, last - first


def _counts_below(
    flat: FloatArray, start: NDArray[np.intp], width: int, limit: FloatArray
) -> NDArray[np.intp]:
    """Return how many of the `width` sorted numbers from each `start` on are below the limits."""
    count = np.zeros(start.size, np.intp)
    before = start - 1
    step = 1 << (width.bit_length() - 1)
    while step:
        below = flat[before + np.minimum(count + step, width)] < limit
        count += step * below
        step >>= 1
    return np.minimum(count, width)
