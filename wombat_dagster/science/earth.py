"""The Earth's orientation, out of the table that comes with astropy, read in milliseconds.

Astropy parses all fifty years of ``finals2000A.all`` with its general reader, half a second in
every process that asks for one altitude. The columns are fixed: they are cut out of the bytes.
"""

from functools import cache

import astropy.units as u
import numpy as np
from astropy.utils import iers
from numpy.typing import NDArray

from wombat_dagster.domain import FloatArray


@cache
def earth_orientation() -> iers.IERS:
    """Return the bundled table of UT1-UTC, polar motion and celestial pole offsets.

    Bulletin B's values where there are any, else bulletin A's and its predictions, as
    `astropy.utils.iers.IERS_A` chooses. Columns: the file's ``ReadMe.finals2000A``.
    """
    content = np.fromfile(iers.IERS_A_FILE, np.uint8)
    width = int(np.argmax(content == ord("\n"))) + 1
    lines = content[: len(content) // width * width].reshape(-1, width)

    def column(first: int, last: int) -> FloatArray:
        return _numbers(lines[:, first - 1 : last])

    ut1_b, x_b, y_b, dx_b, dy_b = (
        column(*where) for where in ((155, 165), (135, 144), (145, 154), (166, 175), (176, 185))
    )
    has_pole, has_offset = ~np.isnan(x_b + y_b), ~np.isnan(dx_b + dy_b)
    found = {
        "MJD": column(8, 15) * u.d,
        "UT1_UTC": np.where(np.isnan(ut1_b), column(59, 68), ut1_b) * u.s,
        "PM_x": np.where(has_pole, x_b, column(19, 27)) * u.arcsec,
        "PM_y": np.where(has_pole, y_b, column(38, 46)) * u.arcsec,
        "dX_2000A": np.where(has_offset, dx_b, column(98, 106)) * u.marcsec,
        "dY_2000A": np.where(has_offset, dy_b, column(117, 125)) * u.marcsec,
    }
    known = ~np.isnan(found["UT1_UTC"].value + found["PM_x"].value)  # the last have a date only
    return iers.IERS({name: values[known] for name, values in found.items()})


def _numbers(text: NDArray[np.uint8]) -> FloatArray:
    """Return the numbers of a fixed-width column, shape (lines, characters); NaN where blank.

    A whole number over a power of ten is the float next to the decimal fraction: exact.
    """
    digits = text - np.uint8(ord("0"))  # wraps: everything that is no digit is above 9
    is_digit = digits <= 9
    whole = np.zeros(len(text), np.int64)
    n_decimals = np.zeros(len(text), np.int64)
    after_point = np.zeros(len(text), bool)
    for character, digit, counts in zip(text.T, digits.T, is_digit.T, strict=True):
        whole = np.where(counts, 10 * whole + digit, whole)
        n_decimals += counts & after_point
        after_point |= character == ord(".")
    sign = np.where((text == ord("-")).any(axis=1), -1.0, 1.0)
    numbers = sign * whole / 10.0**n_decimals
    return np.where(is_digit.any(axis=1), numbers, np.nan)
