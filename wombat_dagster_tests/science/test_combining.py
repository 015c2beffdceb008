import itertools
import warnings

import ccdproc
import numpy as np
import pytest
from astropy.nddata import CCDData
from astropy.stats import mad_std
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wombat_dagster.science import combining
from wombat_dagster.science.combining import combine

NY, NX = 31, 47


class Held:
    """A stack in memory that is read as the frames on a disk are."""

    def __init__(self, stack):
        self.stack = stack
        self.shape = stack.shape[1:]
        self.dtype = stack.dtype
        self.n_bytes_at_once = 0

    def __len__(self):
        return len(self.stack)

    def read(self, rows, keep, out):
        self.n_bytes_at_once = max(self.n_bytes_at_once, out.nbytes)
        out[:] = self.stack[list(keep), rows]


def clipped_median(stack, **options):
    return combine(Held(stack), **options)


def ccdproc_combine(stack):
    """What SPEC section 4 names as the truth."""
    frames = [CCDData(frame.astype(float), unit="adu") for frame in stack]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(
            ccdproc.combine(
                frames,
                method="median",
                sigma_clip=True,
                sigma_clip_low_thresh=5,
                sigma_clip_high_thresh=5,
                sigma_clip_func=np.ma.median,
                sigma_clip_dev_func=mad_std,
            )
        )


def clipped_by_hand(values, clip_sigma=5.0):
    """The rule of SPEC section 4 for the values of one pixel, with nothing but sorting."""
    left = sorted(float(v) for v in values if np.isfinite(v))
    if not left:
        return np.nan, 0
    median = middle_of(left)
    limit = 1.482602218505602 * middle_of(sorted(abs(v - median) for v in left)) * clip_sigma
    kept = [v for v in left if median - limit <= v <= median + limit]
    return middle_of(kept or left), len(left) - len(kept)


def middle_of(ordered):
    n = len(ordered)
    return ordered[n // 2] if n % 2 else (ordered[n // 2 - 1] + ordered[n // 2]) / 2


def noise(n, rng):
    return rng.poisson(1000, (n, NY, NX)).astype(np.uint16)


def ties(n, rng):
    return rng.integers(0, 3, (n, NY, NX)).astype(np.uint16)


def constant(n, rng):
    stack = np.full((n, NY, NX), 700, np.uint16)
    stack[rng.random(stack.shape) < 0.1] += 1
    return stack


def cosmic_rays(n, rng):
    stack = noise(n, rng)
    hit = rng.random(stack.shape) < 0.05
    stack[hit] = rng.integers(0, 65536, hit.sum())
    return stack


def saturated(n, rng):
    bright = rng.normal(65400, 300, (n, NY, NX))
    return bright.clip(0, 65535).astype(np.uint16)


def both_ends(n, rng):
    """Only zeros and the highest counts: nothing in the unsigned arithmetic may wrap round."""
    return rng.choice(np.array([0, 1, 65534, 65535], np.uint16), (n, NY, NX))


@pytest.mark.parametrize("sky", [noise, ties, constant, cosmic_rays, saturated, both_ends])
@pytest.mark.parametrize("n", [*range(3, 13), 17, 20, 32, 33, 60])
def test_a_master_equals_ccdproc_to_the_bit(sky, n):
    stack = sky(n, np.random.default_rng(n))
    np.testing.assert_array_equal(combine(Held(stack))[0], ccdproc_combine(stack))


@pytest.mark.parametrize("n", [3, 4, 5, 8, 11, 20])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.uint32, np.float32, np.float64])
def test_frames_of_every_type_equal_ccdproc_to_the_bit(dtype, n):
    rng = np.random.default_rng(n)
    stack = rng.normal(100, 10, (n, NY, NX))
    stack[rng.random(stack.shape) < 0.05] = 2
    stack = stack.astype(dtype)
    np.testing.assert_array_equal(combine(Held(stack))[0], ccdproc_combine(stack))


@pytest.mark.parametrize("n", [3, 4, 10])
def test_scaled_flats_equal_ccdproc_on_frames_scaled_before(n):
    """Its own scale= acts after the clip, so the truth is given scaled frames (PERFORMANCE)."""
    rng = np.random.default_rng(n)
    levels = rng.uniform(10000, 40000, n)[:, None, None]
    stack = rng.poisson(np.broadcast_to(levels, (n, NY, NX))).astype(np.uint16)
    stack[rng.random(stack.shape) < 0.02] = 65535
    bias = rng.normal(300, 5, (NY, NX))
    combined, _ = combine(Held(stack), prepare=lambda rows, raw: (raw - bias[rows]) / levels)
    np.testing.assert_array_equal(combined, ccdproc_combine((stack - bias) / levels))


def test_written_in_single_precision_a_master_is_the_rounded_one():
    stack = noise(6, np.random.default_rng(1))
    single, _ = combine(Held(stack), dtype=np.float32)
    assert single.dtype == np.float32
    np.testing.assert_array_equal(single, combine(Held(stack))[0].astype(np.float32))


PIXELS = arrays(
    st.sampled_from([np.uint8, np.uint16, np.int16, np.float32, np.float64]),
    st.tuples(st.integers(1, 9), st.just(2), st.just(3)),
    elements=st.integers(0, 100),
)


@settings(max_examples=150, deadline=None)
@given(PIXELS, st.sampled_from([0.5, 3.0, 5.0]))
def test_every_pixel_follows_the_rule_and_the_rejected_are_counted(stack, clip_sigma):
    combined, n_rejected = clipped_median(stack, clip_sigma=clip_sigma)
    by_hand = [clipped_by_hand(values, clip_sigma) for values in stack.reshape(len(stack), -1).T]
    np.testing.assert_array_equal(combined.ravel(), [median for median, _ in by_hand])
    assert n_rejected == sum(n for _, n in by_hand)


@settings(max_examples=50, deadline=None)
@given(PIXELS, st.randoms())
def test_the_order_of_the_frames_changes_nothing(stack, random):
    shuffled = list(stack)
    random.shuffle(shuffled)
    np.testing.assert_array_equal(clipped_median(np.array(shuffled))[0], clipped_median(stack)[0])


@settings(max_examples=50, deadline=None)
@given(PIXELS)
def test_a_brighter_pedestal_raises_the_master_by_as_much(stack):
    counts = stack.astype(np.uint16)
    np.testing.assert_array_equal(
        clipped_median(counts + np.uint16(1000))[0], clipped_median(counts)[0] + 1000
    )


@pytest.mark.parametrize("n", range(1, 10))
def test_the_network_sorts(n):
    """Sorting all zeros and ones, a network sorts everything (Knuth 5.3.4, theorem Z)."""
    every = np.array(list(itertools.product([0, 1], repeat=n)), np.uint8).T
    rows = list(every.copy())
    combining._sort(rows, sum(combining._comparators(n), ()), np.empty_like(rows[0]))
    np.testing.assert_array_equal(rows, np.sort(every, axis=0))


@pytest.mark.parametrize("n", [20, 50, 61])
def test_a_long_network_sorts_too(n):
    stack = np.random.default_rng(n).permuted(np.tile(np.arange(n), (500, 1)), axis=1).T
    rows = list(stack.copy())
    combining._sort(rows, sum(combining._comparators(n), ()), np.empty_like(rows[0]))
    np.testing.assert_array_equal(rows, np.sort(stack, axis=0))


@pytest.mark.parametrize("n", [*range(1, 12), 20, 33, 50, 61])
def test_the_first_part_of_the_network_places_the_ranks_that_judge_a_pixel(n):
    stack = np.random.default_rng(n).permuted(np.tile(np.arange(n), (500, 1)), axis=1).T
    rows = list(stack.copy())
    combining._sort(rows, combining._comparators(n)[0], np.empty_like(rows[0]))
    about_quartiles = [r for i in combining._looked_at(n) for r in (n // 2 - 1 - i, n - 1 - i)]
    for rank in (0, (n - 1) // 2, n // 2, n - 1, *about_quartiles):
        np.testing.assert_array_equal(rows[rank], rank)


def suspect_and_clipped(stack, clip_sigma):
    """Return which pixels are looked at exactly, and which have a value to reject."""
    rows = list(np.sort(stack.reshape(len(stack), -1), axis=0))
    scratch = combining._Scratch(rows[0].size, stack.dtype)
    median = np.median(rows, axis=0)
    suspect = combining._may_be_clipped(rows, median, clip_sigma, scratch)
    limit = clip_sigma * combining.MAD_TO_SIGMA * np.median(np.abs(rows - median), axis=0)
    return suspect, (np.abs(rows - median) > limit).any(axis=0)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float64])
@pytest.mark.parametrize("n", [3, 4, 5, 10, 20, 33, 50])
@pytest.mark.parametrize("clip_sigma", [1.0, 3.0, 5.0])
def test_no_pixel_with_a_value_to_reject_is_overlooked_and_few_others_are_looked_at(
    n, dtype, clip_sigma
):
    stack = np.random.default_rng(n).normal(120, 20, (n, 90, 70)).clip(0, 255).astype(dtype)
    suspect, clipped = suspect_and_clipped(stack, clip_sigma)
    assert suspect[clipped].all()
    if n >= 5:  # of fewer the smaller half says little about the MAD
        assert suspect.mean() < clipped.mean() + 0.15


def test_a_cosmic_ray_in_one_of_five_biases_leaves_the_master_within_noise():
    """Read noise 5 ADU: the median of the four others scatters by about 3, so 15 is 5 sigma."""
    stack = np.random.default_rng(3).normal(700, 5, (5, NY, NX)).round().astype(np.uint16)
    clean, _ = combine(Held(stack))
    stack[2, 10:13, 20:23] = 40000
    combined, _ = combine(Held(stack))
    assert np.abs(combined[10:13, 20:23] - 700).max() < 15
    combined[10:13, 20:23] = clean[10:13, 20:23]
    np.testing.assert_array_equal(combined, clean)


def test_a_cosmic_ray_in_one_of_three_biases_does_not_reach_the_master():
    stack = np.full((3, 4, 4), 100.0)
    stack[:, 1, 1] = [99.0, 101.0, 60000.0]
    combined, n_rejected = clipped_median(stack)
    assert combined[1, 1] == 100.0
    assert n_rejected == 1


@pytest.mark.parametrize("missing", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_pixel_without_a_value_in_some_frames_is_the_master_of_the_others(missing, dtype):
    rng = np.random.default_rng(8)
    stack = cosmic_rays(7, rng).astype(dtype)
    holes = rng.random(stack.shape) < 0.2
    holes[:, 5, 6] = True
    stack[holes] = missing
    by_hand = [clipped_by_hand(values) for values in stack.reshape(7, -1).T]
    combined, n_rejected = combine(Held(stack))
    assert np.isnan(combined[5, 6])
    np.testing.assert_array_equal(combined.ravel(), [median for median, _ in by_hand])
    assert n_rejected == sum(n for _, n in by_hand)


def test_only_the_frames_that_are_kept_are_combined():
    stack = noise(6, np.random.default_rng(2))
    expected = clipped_median(stack[[5, 0, 2]])
    combined, n_rejected = combine(Held(stack), keep=[5, 0, 2])
    np.testing.assert_array_equal(combined, expected[0])
    assert n_rejected == expected[1]


def test_the_frames_stay_as_they_are():
    stack = cosmic_rays(5, np.random.default_rng(2)).astype(float)
    stack[0, 0, 0] = np.nan
    before = stack.copy()
    clipped_median(stack)
    np.testing.assert_array_equal(stack, before)


def test_blocks_of_many_shapes_say_the_same(monkeypatch):
    stack = cosmic_rays(5, np.random.default_rng(4))
    expected = clipped_median(stack)
    for row_bytes in (1, 3 * 2 * NX, 10 * 2 * NX):
        monkeypatch.setattr(combining, "ROW_BYTES", row_bytes)
        combined, n_rejected = combine(Held(stack))
        np.testing.assert_array_equal(combined, expected[0])
        assert n_rejected == expected[1]


@pytest.mark.parametrize("n", [3, 300])
def test_what_is_held_at_once_does_not_grow_with_the_frames(n, monkeypatch):
    monkeypatch.setattr(combining, "BLOCK_BYTES", 2**16)
    frames = Held(np.zeros((n, 200, 64), np.uint16))
    combine(frames)
    assert frames.n_bytes_at_once <= 2**16


def test_a_read_that_fails_in_a_thread_is_not_lost():
    class Cut(Held):
        def read(self, rows, keep, out):
            raise OSError("cut")

    with pytest.raises(OSError, match="cut"):
        combine(Cut(np.zeros((3, 4, 4), np.uint16)))


def test_no_frames_are_an_error():
    with pytest.raises(ValueError, match="no frames"):
        combine(Held(np.zeros((3, 4, 4))), keep=[])
