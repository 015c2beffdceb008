import ccdproc
import numpy as np
import pytest
from astropy.nddata import CCDData
from astropy.stats import mad_std
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from wombat_dagster.domain import MaskBit
from wombat_dagster.science import calibration as cal


def ccdproc_combine(stack):
    """What SPEC section 4 names as the truth."""
    frames = [CCDData(frame.astype(float), unit="adu") for frame in stack]
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


@pytest.mark.parametrize("n", [3, 4, 5, 10])
def test_a_master_equals_ccdproc_to_the_bit(n):
    rng = np.random.default_rng(n)
    stack = rng.poisson(1000, (n, 40, 50)).astype(np.uint16)
    hit = rng.random(stack.shape) < 0.02
    stack[hit] += rng.integers(50, 30000, hit.sum()).astype(np.uint16)
    combined, rejected = cal.clipped_median(stack)
    np.testing.assert_array_equal(combined, ccdproc_combine(stack))
    assert rejected > 0


def test_a_cosmic_ray_in_one_of_three_biases_does_not_reach_the_master():
    stack = np.full((3, 4, 4), 100.0)
    stack[:, 1, 1] = [99.0, 101.0, 60000.0]
    combined, rejected = cal.clipped_median(stack)
    assert combined[1, 1] == 100.0
    assert rejected == 1


@settings(max_examples=30, deadline=None)
@given(arrays(np.uint16, st.tuples(st.integers(3, 7), st.just(3), st.just(4))), st.randoms())
def test_the_order_of_the_frames_changes_nothing(stack, random):
    shuffled = list(stack)
    random.shuffle(shuffled)
    np.testing.assert_array_equal(
        cal.clipped_median(stack)[0], cal.clipped_median(np.array(shuffled))[0]
    )


def test_the_frame_is_raw_minus_bias_minus_dark_over_flat():
    """(5000 - 1000 - 2 * 30) / 0.985 = 4000, by hand."""
    image, mask = cal.calibrate(
        np.full((2, 2), 5000, np.uint16),
        bias=np.full((2, 2), 1000, np.float32),
        dark_per_s=np.full((2, 2), 2, np.float32),
        exposure_s=30.0,
        flat=np.full((2, 2), 0.985, np.float32),
        flat_unusable=None,
        saturation_adu=60000,
        linearity_adu=40000,
    )
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, 4000, rtol=1e-6)
    assert not mask.any()


def test_limits_are_applied_to_raw_counts_not_to_flattened_ones():
    raw = np.array([[40000, 50000, 61000, 100]], np.uint16)
    _, mask = cal.calibrate(
        raw,
        bias=np.full((1, 4), 20000, np.float32),
        dark_per_s=None,
        exposure_s=1,
        flat=np.full((1, 4), 0.5, np.float32),
        flat_unusable=np.array([[False, False, False, True]]),
        saturation_adu=60000,
        linearity_adu=45000,
    )
    assert mask.tolist() == [
        [0, MaskBit.NON_LINEAR, MaskBit.SATURATED | MaskBit.NON_LINEAR, MaskBit.BAD]
    ]
