"""The table read in milliseconds is the one astropy reads in half a second."""

import numpy as np
import pytest
from astropy.utils import iers

from wombat_dagster.science.earth import _numbers, earth_orientation


@pytest.fixture(scope="module")
def astropys():
    return iers.IERS_A.read()


@pytest.mark.parametrize("column", ["MJD", "UT1_UTC", "PM_x", "PM_y", "dX_2000A", "dY_2000A"])
def test_every_number_is_astropys_to_the_last_bit(astropys, column):
    ours = earth_orientation()[column]
    np.testing.assert_array_equal(ours.value, astropys[column].to_value(ours.unit))


def test_a_column_of_text_becomes_numbers_and_blanks_are_not_known():
    lines = [b" -0.1234567", b"     12.5  ", b"           ", b" 0.0000030 ", b"     7     "]
    text = np.array([list(line) for line in lines], np.uint8)
    np.testing.assert_array_equal(_numbers(text), [-0.1234567, 12.5, np.nan, 0.000003, 7.0])
