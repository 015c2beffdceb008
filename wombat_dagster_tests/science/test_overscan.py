"""Overscan and trim, against ccdproc and by hand."""

import ccdproc
import numpy as np
import pytest
from astropy.nddata import CCDData
from hypothesis import given
from hypothesis import strategies as st

from wombat_dagster.science.overscan import overscan_levels, prepare, window_of

SIDE, BELOW = "[1:8,1:40]", "[1:60,33:40]"


@pytest.fixture
def raw():
    """60x40 counts whose level differs from row to row and from column to column."""
    rng = np.random.default_rng(4)
    level = 1000 + np.arange(40)[:, None] + 2 * np.arange(60)[None, :]
    return (level + rng.integers(0, 9, (40, 60))).astype(np.uint16)


@pytest.mark.parametrize(("overscan", "trim"), [(SIDE, "[9:60,1:40]"), (BELOW, "[1:60,1:32]")])
def test_overscan_and_trim_are_those_of_ccdproc(raw, overscan, trim):
    ccd = CCDData(raw.astype(float), unit="adu")
    truth = ccdproc.trim_image(
        ccdproc.subtract_overscan(ccd, fits_section=overscan, overscan_axis=None, median=True),
        fits_section=trim,
    )
    found = prepare(raw, overscan=overscan, trim=trim)
    assert found.dtype == np.float64
    assert np.array_equal(found, truth.data)


def test_a_cosmic_ray_in_the_overscan_changes_nothing(raw):
    """One of nine values of a row's level is high: at most the next one becomes the median."""
    hit = raw.copy()
    hit[20, 3] = 60000
    clean, spoiled = (prepare(frame, overscan=SIDE, trim=None) for frame in (raw, hit))
    assert np.abs((spoiled - clean)[20, 8:]).max() <= 4


def test_rows_that_the_strip_does_not_reach_get_the_median_level(raw):
    levels = overscan_levels(raw, "[1:8,1:30]")
    assert levels.shape == (40, 1)
    assert (levels[30:] == np.median(levels[:30])).all()
    assert np.array_equal(levels[:30], np.median(raw[:30, :8], axis=1)[:, None])


def test_a_pedestal_is_added_and_goes_with_the_overscan(raw):
    """PEDESTAL is to be added: -100 where a program has added 100, on the overscan as well."""
    assert np.array_equal(prepare(raw, overscan=None, trim=None, pedestal_adu=-100.0), raw - 100.0)
    assert np.array_equal(
        prepare(raw + np.uint16(100), overscan=SIDE, trim=None, pedestal_adu=-100.0),
        prepare(raw, overscan=SIDE, trim=None),
    )
    assert prepare(raw, overscan=None, trim="[2:3,5:9]").base is raw  # no count changes: a view


@given(
    x=st.tuples(st.integers(1, 60), st.integers(1, 60)).map(sorted),
    y=st.tuples(st.integers(1, 40), st.integers(1, 40)).map(sorted),
)
def test_a_section_counts_from_1_and_has_both_its_ends(x, y):
    rows, columns = window_of(f"[{x[0]}:{x[1]},{y[0]}:{y[1]}]", (40, 60))
    assert (rows.stop - rows.start, columns.stop - columns.start) == (
        y[1] - y[0] + 1, x[1] - x[0] + 1,
    )  # fmt: skip
    assert (rows.start, columns.start) == (y[0] - 1, x[0] - 1)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ("[1:61,1:40]", "does not lie in an image of 60x40"),
        ("[8:1,1:40]", "does not lie in"),
        ("[0:8,1:40]", "does not lie in"),
        ("1:8,1:40", "is no section like"),
    ],
)
def test_a_section_that_is_not_in_the_image_is_refused_with_both(section, words):
    with pytest.raises(ValueError, match=words):
        window_of(section, (40, 60))
