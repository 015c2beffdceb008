"""Circles, annuli and their sky. Outside truth: photutils, the definitions word by word."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wombat_dagster.science import cutouts


@settings(deadline=None)
@given(st.floats(-0.5, 0.5), st.floats(-0.5, 0.5), st.floats(0.3, 12.0))
def test_circle_overlap_equals_photutils_exact(x, y, radius):
    from photutils.geometry import circular_overlap_grid

    edges = np.arange(-14, 15) - 0.5
    ours = cutouts.circle_overlap((edges - x)[None], (edges - y)[None], radius)[0]
    theirs = circular_overlap_grid(-14.5 - x, 13.5 - x, -14.5 - y, 13.5 - y, 28, 28, radius, 1, 1)
    # photutils loses digits where a circle all but touches a pixel's corner
    assert np.abs(ours - theirs).max() < 1e-6
    assert np.median(np.abs(ours - theirs)) < 1e-14
    assert ours.sum() == pytest.approx(math.pi * radius**2, rel=1e-11)


def clipped_slowly(values):
    """The definition, word by word: all pixels tested again in every pass."""
    mean, sigma, kept = values.mean(), values.std(), values
    for _ in range(100):
        kept = values[np.abs(values - mean) <= 2 * sigma]
        moved = abs(kept.mean() - mean)
        mean, sigma = kept.mean(), kept.std()
        if moved < 1e-4:
            break
    return mean, kept.size


def test_sky_rejection_by_hand():
    """Nine of 10 and one of 110: mean 20, sigma 30; 110 is 3 sigma off; then nothing scatters."""
    mean, n = cutouts.clipped_sky(np.array([[10.0] * 9 + [110.0]]))
    assert (mean.tolist(), n.tolist()) == ([10.0], [9])


def test_a_pixel_may_come_back_into_the_sky():
    """The re-test of all pixels matters: a cumulative clip would keep fewer."""
    values = np.random.default_rng(4).gamma(2.0, 20.0, 400)
    mean, n = cutouts.clipped_sky(values[None])
    slow_mean, slow_n = clipped_slowly(values)
    assert (mean[0], n[0]) == (pytest.approx(slow_mean, abs=1e-9), slow_n)


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 300))
def test_sky_equals_its_definition(seed, n):
    rng = np.random.default_rng(seed)
    values = rng.normal(1000.0, 10.0, n) + rng.choice([0.0, 0.0, 0.0, 300.0], n)
    mean, kept = cutouts.clipped_sky(values[None])
    slow_mean, slow_kept = clipped_slowly(values)
    assert mean[0] == pytest.approx(slow_mean, abs=1e-7)
    assert kept[0] == slow_kept


@pytest.mark.parametrize("wild", [-1e12, 1e12])
def test_a_wild_pixel_takes_no_digits_from_the_sky_of_the_others(wild):
    """Flat-fielding may leave such a pixel; its square alone is 10^18 times that of the others."""
    values = np.random.default_rng(6).normal(300.0, 12.0, 900)
    values[17] = wild
    mean, n = cutouts.clipped_sky(values[None])
    slow_mean, slow_n = clipped_slowly(values)
    assert (mean[0], n[0]) == (pytest.approx(slow_mean, abs=1e-9), slow_n)


def test_no_sky_pixels_is_no_sky():
    mean, n = cutouts.clipped_sky(np.array([[], []]))
    assert np.isnan(mean).all()
    assert n.tolist() == [0, 0]
    mean, n = cutouts.clipped_sky(np.full((1, 5), np.nan))
    assert np.isnan(mean[0])
    assert n[0] == 0


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.booleans())
def test_the_sky_of_a_star_does_not_depend_on_the_stars_beside_it(seed, single):
    """Rows of different length, whole numbers with many equal ones, in either precision."""
    rng = np.random.default_rng(seed)
    values = np.rint(rng.gamma(2.0, 20.0, (6, 120))).astype(np.float32 if single else float)
    values[rng.random(values.shape) < rng.uniform(0, 1, (6, 1))] = np.nan
    mean, kept = cutouts.clipped_sky(values)
    for row, one_mean, one_kept in zip(values, mean, kept, strict=True):
        used = row[~np.isnan(row)].astype(float)
        if not used.size:
            assert (math.isnan(one_mean), one_kept) == (True, 0)
            continue
        slow_mean, slow_kept = clipped_slowly(used)
        assert (one_mean, one_kept) == (pytest.approx(slow_mean, abs=1e-7), slow_kept)


@pytest.mark.parametrize("n", [1, 2, 7, 8])
def test_medians_leave_out_what_is_missing(n):
    values = np.random.default_rng(n).normal(size=(3, 11)).astype(np.float32)
    values[:, n:] = np.nan
    expected = np.median(values[:, :n].astype(float), axis=1)
    assert cutouts.medians(values) == pytest.approx(expected, rel=1e-7)


def test_the_median_of_nothing_is_nothing():
    assert np.isnan(cutouts.medians(np.full((2, 4), np.nan))).all()
