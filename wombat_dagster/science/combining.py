"""The clipped median of a stack of frames: the pixels of every master frame.

Sorting the frames pixel by pixel is nearly all the work. A comparator network sorts whole rows
of pixels at once, by minimum and maximum, in a block that stays in the processor's cache and in
the type the camera wrote; numpy does that at the speed of memory, in two threads. Everything that
follows (median, MAD, limits) is read off the sorted values exactly, in float64, and only pixels
with something to reject are looked at one by one.

Which frames are combined, and what is done to them before, is decided elsewhere.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

Image = NDArray[Any]
Prepare = Callable[[slice, Image], Image]
"""Takes rows and the raw (n, rows, nx) values, returns what is combined; runs in two threads."""

Comparators = tuple[tuple[int, int], ...]

MAD_TO_SIGMA = 1.482602218505602  # 1/Phi^-1(3/4): what astropy.stats.mad_std uses
THREADS = 2
ROW_BYTES = 2**18  # of one frame in a block: less, and two threads wait for the interpreter...
BLOCK_BYTES = 2**24  # ...but never more of all frames: bounds the memory of a long stack
LOOKED_AT = 4  # of the numbers that the MAD is the largest of, to see which pixels may be clipped
ROUNDING_MARGIN = 1 - 1e-6  # of single precision: too many are looked at exactly, never too few
SORTED_AS_STORED = (np.dtype(np.uint8), np.dtype(np.uint16))  # others are sorted in float64


class Frames(Protocol):
    """Frames of one shape that two threads can read at the same time, some rows at once."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of every frame."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type that holds the values of every frame."""

    def __len__(self) -> int: ...

    def read(self, rows: slice, keep: Sequence[int], out: Image) -> None:
        """Put `rows` of the frames `keep` into `out`, shape (len(keep), rows, nx)."""


def combine(
    frames: Frames,
    *,
    clip_sigma: float = 5.0,
    keep: Sequence[int] | None = None,
    prepare: Prepare | None = None,
    dtype: DTypeLike = np.float64,
) -> tuple[Image, int]:
    """Return the median of frames, outliers left out, and how many values were left out.

    One pass: values further than `clip_sigma` x 1.4826 MAD from the median are rejected, and the
    median of the rest is taken. That works from three frames on, where a clip by the standard
    deviation rejects nothing below eight. Where more than half of the values are equal the MAD is
    0, and every other value is rejected. Where a clip below 0.67 leaves nothing, the median stands.

    What is not finite is missing: the pixel is combined from the other frames as if there were no
    more, and is NaN where no frame has a value. Frames are read a few rows at a time: memory does
    not grow with their number.

    Parameters
    ----------
    keep
        Indices of the frames to combine; all when None.
    prepare
        What is done to the raw values first (a flat's bias subtracted, its level divided out). The
        array that it returns is sorted in place. Called in two threads at once.
    dtype
        Of the result. float32 spares half the memory of a large master, and is what it is
        written as; the median itself is of float64.

    Returns
    -------
    NDArray
        Shape of the frames.
    int
        Number of rejected values; missing ones are not counted.

    Raises
    ------
    ValueError
        No frames.

    Notes
    -----
    The same numbers, to the bit, as ``ccdproc.combine(method="median", sigma_clip=True,
    sigma_clip_low_thresh=5, sigma_clip_high_thresh=5, sigma_clip_func=np.ma.median,
    sigma_clip_dev_func=astropy.stats.mad_std)`` wherever every frame has a value. Where one is
    missing ccdproc's median is NaN and rejects nothing.
    """
    chosen = list(range(len(frames)) if keep is None else keep)
    if not chosen:
        raise ValueError("no frames to combine")
    ny, nx = frames.shape
    as_stored = prepare is None and frames.dtype in SORTED_AS_STORED
    n_rows = _rows_of_block(len(chosen), nx, frames.dtype.itemsize if as_stored else 8)
    combined = np.empty((ny, nx), dtype)
    blocks = iter([slice(y, min(y + n_rows, ny)) for y in range(0, ny, n_rows)])

    def work(blocks: Iterator[slice]) -> int:
        buffer = np.empty((len(chosen), n_rows, nx), frames.dtype)
        scratch = _Scratch(n_rows * nx, frames.dtype if as_stored else np.dtype(np.float64))
        n_rejected = 0
        for rows in blocks:  # a list's iterator: each thread takes the next that is left
            raw = buffer[:, : rows.stop - rows.start]
            frames.read(rows, chosen, raw)
            values = _sortable(raw if prepare is None else prepare(rows, raw))
            median, n = _clipped_median_of_block(_flat(values), clip_sigma, scratch)
            combined[rows] = median.reshape(-1, nx)
            n_rejected += n
        return n_rejected

    with ThreadPoolExecutor(THREADS) as threads:
        return combined, sum(threads.map(work, [blocks] * THREADS))


def _rows_of_block(n_frames: int, nx: int, item_bytes: int) -> int:
    row_bytes = nx * item_bytes
    return max(1, min(ROW_BYTES // row_bytes, BLOCK_BYTES // (n_frames * row_bytes)))


def _sortable(values: Image) -> Image:
    return values if values.dtype in SORTED_AS_STORED else values.astype(np.float64, copy=False)


def _flat(values: Image) -> list[Image]:
    return [frame.reshape(-1) for frame in values]


# -------------------------------------------------------------------------------------- one block


class _Scratch:
    """Arrays of one thread for one block after another: memory fresh each time costs page faults.

    `values` are of the type that is sorted, all others of what is reckoned from it.
    """

    def __init__(self, n_px: int, sorted_as: np.dtype[Any]) -> None:
        ratio_type = np.result_type(sorted_as, np.float32)  # exact for counts of 16 bits
        self.spare, self.below, self.above, self.mad = np.empty((4, n_px), sorted_as)
        self.enough, self.term = np.empty((2, n_px), ratio_type)
        self.suspect = np.empty(n_px, bool)
        self.median = np.empty(n_px)

    def cut(self, n_px: int) -> "_Scratch":
        """Return the same memory for a block of fewer pixels."""
        if n_px == len(self.median):
            return self
        part = copy(self)
        for name, array in vars(self).items():
            setattr(part, name, array[:n_px])
        return part


def _clipped_median_of_block(
    rows: list[Image], clip_sigma: float, scratch: _Scratch
) -> tuple[Image, int]:
    """Return median and number of rejected values; the rows, one per frame, are overwritten.

    The median is in the memory of `scratch`.
    """
    scratch = scratch.cut(len(rows[0]))
    some_missing = rows[0].dtype.kind == "f" and _missing_to_infinity(rows)
    needed, rest = _comparators(len(rows))
    _sort(rows, needed, scratch.spare)
    with np.errstate(over="ignore", invalid="ignore"):
        n = len(rows)
        median = _middle(rows[(n - 1) // 2], rows[n // 2], out=scratch.median)
        suspect = _may_be_clipped(rows, median, clip_sigma, scratch)
        if some_missing:
            suspect |= np.isinf(rows[-1])
        where = np.flatnonzero(suspect)
        if not where.size:
            return median, 0
        looked_at = [row.take(where) for row in rows]
        _sort(looked_at, rest, np.empty_like(looked_at[0]))
        values = np.array(looked_at)
        if some_missing:
            centre, mad = _median_and_mad_of_present(values)
        else:
            centre = median[where]
            mad = _mad_of_sorted(values, centre)
        limit = clip_sigma * (mad * MAD_TO_SIGMA)
        low, high = centre - limit, centre + limit  # as astropy rounds it, so that ties fall alike
        clipped = (values[0] < low) | (values[-1] > high)
        if some_missing:
            clipped[:] = True
        where, values = where[clipped], values[:, clipped]
        n_low = (values < low[clipped]).sum(axis=0)
        is_high = values > high[clipped]  # what is missing, at infinity, is above as well
        n_left = n - n_low - is_high.sum(axis=0)
        median[where] = _median_of_ranks(values, first=n_low, count=n_left)
        median[where[np.isnan(centre[clipped])]] = np.nan  # no frame has a value
        return median, int(n_low.sum() + (is_high & (values < np.inf)).sum())


def _sort(rows: list[Image], comparators: Comparators, spare: Image) -> None:
    """Put the pixels of two rows after another in order, in place; `spare` holds one row."""
    for i, j in comparators:
        low, high = rows[i], rows[j]
        np.minimum(low, high, out=spare)
        np.maximum(low, high, out=high)
        rows[i], spare = spare, low


@lru_cache
def _comparators(n: int) -> tuple[Comparators, Comparators]:
    """Return the network that sorts n values: which two to put in order, one after another.

    After the first part the ranks that all pixels are judged by are in their places; the second
    part, after it, sorts the others as well.
    """
    network = _merge_exchange(n)
    wanted = {0, n - 1, (n - 1) // 2, n // 2}
    wanted |= {rank for i in _looked_at(n) for rank in (n // 2 - 1 - i, n - 1 - i)}
    needed, rest = [], []
    for pair in reversed(network):
        if wanted.isdisjoint(pair):  # and nothing that follows depends on it
            rest.append(pair)
        else:
            needed.append(pair)
            wanted.update(pair)
    return tuple(reversed(needed)), tuple(reversed(rest))


def _merge_exchange(n: int) -> Comparators:
    """Return Batcher's merge exchange: Knuth, The Art of Computer Programming 3, 5.2.2 M."""
    found: list[tuple[int, int]] = []
    top = 1 << max(0, (n - 1).bit_length() - 1)
    p = top
    while p:
        q, r, d = top, 0, p
        while True:
            found += [(i, i + d) for i in range(n - d) if i & p == r]
            if q == p:
                break
            d, q, r = q - p, q // 2, p
        p //= 2
    return tuple(found)


def _middle(low: Image, high: Image, out: Image) -> Image:
    if low is high:
        out[:] = low
        return out
    np.add(low, high, out=out, dtype=np.float64)
    out /= 2
    return out


def _may_be_clipped(
    rows: Sequence[Image], median: Image, clip_sigma: float, scratch: _Scratch
) -> NDArray[np.bool_]:
    """Return where sorted values may have one to reject: everywhere that there is, hardly more.

    Any of the smaller numbers that `_mad_of_sorted` looks at is a lower limit of the MAD. The ones
    about the quartiles are near it, and what is within the clip by them is so by the MAD.
    """
    n, h = len(rows), len(rows) // 2
    suspect, enough = scratch.suspect, scratch.enough
    least_ratio = clip_sigma * MAD_TO_SIGMA * ROUNDING_MARGIN
    if least_ratio < 1 or n < 3:
        suspect.fill(least_ratio < 1)
        return suspect
    low, high = _middle_two(rows, median)
    below, above, mad = scratch.below, scratch.above, scratch.mad
    mad.fill(0)
    for i in _looked_at(n):
        np.subtract(low, rows[h - 1 - i], out=below)
        np.subtract(rows[n - 1 - i], high, out=above)
        np.minimum(below, above, out=below)
        np.maximum(mad, below, out=mad)
    np.multiply(mad, least_ratio, out=enough)
    if low is not high:  # the median is half a gap further from either side than the middle two
        np.subtract(high, low, out=below)
        np.multiply(below, (least_ratio - 1) / 2, out=scratch.term)
        np.add(enough, scratch.term, out=enough)
    np.subtract(low, rows[0], out=below)
    np.subtract(rows[-1], high, out=above)
    np.maximum(below, above, out=above)
    return np.greater(above, enough, out=suspect)


def _looked_at(n: int) -> range:
    h = n // 2
    first = max(0, (h - LOOKED_AT) // 2)
    return range(first, min(h, first + LOOKED_AT))


def _middle_two(values: Sequence[Image] | Image, median: Image) -> tuple[Image, Image]:
    """Return what deviations of sorted values are taken from, below the median and above it.

    Counts stay in their unsigned type, where the distance from the nearer of the two middle values
    is exact: the deviation is half the gap between the two more. Others have the median itself.
    """
    n = len(values)
    if values[0].dtype.kind != "u":
        return median, median
    low, high = values[(n - 1) // 2], values[n // 2]
    return low, low if n % 2 else high


def _mad_of_sorted(values: Image, median: Image) -> Image:
    """Return the median absolute deviation of sorted values, shape (n, n_px).

    The deviations below the median and those above it are sorted already, outwards. Of two sorted
    lists L and U with h values each, the smallest h of all are min(L[i], U[h-1-i]) for i < h,
    the others max(L[i], U[h-1-i]): the two middle ones are the largest of the former and the
    smallest of the latter. An odd number of values has the median itself as one more, 0, and the
    largest of the former is in the middle.
    """
    n, h = len(values), len(values) // 2
    low, high = _middle_two(values, median)
    below, above = low - values[:h][::-1], values[n - h :][::-1] - high
    rank_low = np.minimum(below, above).max(axis=0, initial=0).astype(np.float64, copy=False)
    if n % 2:
        return rank_low
    mad = (rank_low + np.maximum(below, above).min(axis=0)) / 2
    return mad if low is high else mad + (high - low) / 2


def _median_of_ranks(values: Image, *, first: NDArray[Any], count: NDArray[Any]) -> Image:
    """Return the median of `count` sorted values from rank `first` on, each column its own."""
    low, high = (
        np.take_along_axis(values, (first + rank)[None], axis=0)[0]
        for rank in ((count - 1) // 2, count // 2)
    )
    return np.add(low, high, dtype=np.float64) / 2


# ---------------------------------------------------------------------------------- missing values


def _missing_to_infinity(rows: Sequence[Image]) -> bool:
    """Put +inf, which sorts last, wherever there is no number; return whether there was any."""
    some = False
    for row in rows:
        present = np.isfinite(row)
        if not present.all():
            row[~present] = np.inf
            some = True
    return some


def _median_and_mad_of_present(values: Image) -> tuple[Image, Image]:
    """Return median and MAD of the finite ones of sorted values, shape (n, n_px); NaN of none."""
    count = np.isfinite(values).sum(axis=0)
    first = np.zeros_like(count)
    median = _median_of_ranks(values, first=first, count=count)
    median[count == 0] = np.nan
    deviation = np.sort(np.abs(values - median), axis=0)
    return median, _median_of_ranks(deviation, first=first, count=count)
