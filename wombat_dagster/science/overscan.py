"""Overscan and trim: raw counts as they go into a master or a calibrated frame.

Sections are those of FITS headers, ``[x1:x2,y1:y2]``, both ends included, counted from 1. Which
section a frame has is decided elsewhere (header or configuration).
"""

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

Image = NDArray[Any]
Window = tuple[slice, slice]
"""Rows and columns, as numpy counts them."""

_SECTION = re.compile(r"^\s*\[\s*(\d+)\s*:\s*(\d+)\s*,\s*(\d+)\s*:\s*(\d+)\s*\]\s*$")


def window_of(section: str, shape: tuple[int, ...]) -> Window:
    """Return the rows and columns of a FITS section in an image of `shape` (ny, nx).

    Raises
    ------
    ValueError
        It is no section, runs backwards, or does not lie in the image.
    """
    ny, nx = shape
    found = _SECTION.match(section)
    if found is None:
        raise ValueError(f"{section!r} is no section like [1:{nx},1:{ny}]")
    x_1, x_2, y_1, y_2 = (int(number) for number in found.groups())
    if not (1 <= x_1 <= x_2 <= nx and 1 <= y_1 <= y_2 <= ny):
        raise ValueError(f"section {section} does not lie in an image of {nx}x{ny}")
    return slice(y_1 - 1, y_2), slice(x_1 - 1, x_2)


def overscan_levels(raw: Image, overscan: str) -> Image:
    """Return the electronic level under each row, or each column, of `raw`.

    The median across the strip: shape (ny, 1) for a strip at the side, (1, nx) for one above or
    below. Lines that the strip does not reach get the median of all others.

    Raises
    ------
    ValueError
        The section is not in the image.

    Notes
    -----
    As ``ccdproc.subtract_overscan(median=True)``, which leaves out nothing and smooths nothing.
    """
    rows, columns = window_of(overscan, raw.shape)
    strip = raw[rows, columns]
    across = 0 if strip.shape[1] > strip.shape[0] else 1
    measured = np.median(strip, axis=across)
    levels = np.full(raw.shape[1 - across], np.median(measured))
    levels[columns if across == 0 else rows] = measured
    return np.expand_dims(levels, across)


def prepare(
    raw: Image, *, overscan: str | None, trim: str | None, pedestal_adu: float | None = None
) -> Image:
    """Return raw counts less the overscan's level and trimmed; without overscan raw + PEDESTAL.

    A pedestal that a program has added lies on the overscan too, so it goes with that.

    Returns
    -------
    NDArray
        float64; a view of `raw` in its own type where no count changes.

    Raises
    ------
    ValueError
        A section is not in the image.
    """
    rows, columns = (slice(None), slice(None)) if trim is None else window_of(trim, raw.shape)
    kept = raw[rows, columns]
    if overscan is not None:
        levels = overscan_levels(raw, overscan)
        return np.asarray(kept - (levels[rows] if levels.shape[1] == 1 else levels[:, columns]))
    return kept.astype(np.float64) + pedestal_adu if pedestal_adu else kept
