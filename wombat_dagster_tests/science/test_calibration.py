import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wombat_dagster.domain import MaskBit
from wombat_dagster.science import calibration as cal


def calibrate(raw, *, less_overscan=None, **by):
    """Return image and mask, whole; the bands must say the same."""
    image, mask = cal.calibrate(raw, cal.Calibration(**by), less_overscan=less_overscan)
    filled = np.full(raw.shape, 255, np.uint8)
    bands = cal.calibrated_bands(raw, cal.Calibration(**by), filled, less_overscan=less_overscan)
    np.testing.assert_array_equal(np.concatenate([rows.copy() for rows in bands]), image)
    np.testing.assert_array_equal(filled, mask)
    return image, mask


def test_the_frame_is_raw_minus_bias_minus_dark_over_flat():
    """(5000 - 1000 - 2 * 30) / 0.985 = 4000, by hand."""
    image, mask = calibrate(
        np.full((2, 2), 5000, np.uint16),
        bias=np.full((2, 2), 1000, np.float32),
        dark_per_s=np.full((2, 2), 2, np.float32),
        exposure_s=30.0,
        flat=np.full((2, 2), 0.985, np.float32),
        saturation_adu=60000,
        linearity_adu=40000,
    )
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, 4000, rtol=1e-6)
    assert not mask.any()


def plainly(raw, *, bias, dark_per_s, exposure_s, flat):
    """The formula in whole arrays of float32."""
    return (raw.astype(np.float32) - bias - dark_per_s * np.float32(exposure_s)) / flat


@settings(max_examples=25, deadline=None)
@given(
    ny=st.integers(1, 150),
    dtype=st.sampled_from(["u1", "u2", "i2", "i4", "f4", "f8"]),
    seed=st.integers(0, 2**32 - 1),
)
def test_bands_of_rows_change_no_bit(ny, dtype, seed):
    rng = np.random.default_rng(seed)
    raw = rng.integers(0, 120, (ny, 7)).astype(dtype)
    masters = {
        "bias": rng.normal(30, 3, raw.shape).astype(np.float32),
        "dark_per_s": rng.normal(0.1, 0.01, raw.shape).astype(np.float32),
        "flat": rng.normal(1, 0.1, raw.shape).astype(np.float32),
        "exposure_s": 12.5,
    }
    image, mask = calibrate(raw, **masters, saturation_adu=110.0, linearity_adu=90.5)
    np.testing.assert_array_equal(image, plainly(raw, **masters))
    expected = (raw > 90.5) * MaskBit.NON_LINEAR + (raw >= 110.0) * MaskBit.SATURATED
    np.testing.assert_array_equal(mask, expected)


def test_limits_are_applied_to_raw_counts_not_to_flattened_ones():
    raw = np.array([[40000, 50000, 61000, 100]], np.uint16)
    _, mask = calibrate(
        raw,
        bias=np.full((1, 4), 20000, np.float32),
        flat=np.full((1, 4), 0.5, np.float32),
        unusable=np.array([[0, 0, 0, MaskBit.BAD]], np.uint8),
        saturation_adu=60000,
        linearity_adu=45000,
    )
    assert mask.tolist() == [
        [0, MaskBit.NON_LINEAR, MaskBit.SATURATED | MaskBit.NON_LINEAR, MaskBit.BAD]
    ]


@pytest.mark.parametrize("limit_adu", [70000.0, 65535.5, 1e9])
def test_a_limit_beyond_the_counts_that_there_can_be_marks_nothing(limit_adu):
    raw = np.array([[0, 65535]], np.uint16)
    _, mask = calibrate(raw, saturation_adu=limit_adu, linearity_adu=limit_adu)
    assert not mask.any()


def test_a_limit_holds_in_a_row_that_is_partly_no_number():
    raw = np.array([[np.nan, 7.0, 30.0], [1.0, 2.0, 3.0]], np.float32)
    _, mask = calibrate(raw, linearity_adu=20.0, saturation_adu=30.0)
    bright = MaskBit.NON_LINEAR | MaskBit.SATURATED
    assert mask.tolist() == [[MaskBit.BAD, 0, bright], [0, 0, 0]]


def test_limits_hold_before_the_overscan_is_subtracted():
    raw = np.array([[50000, 50001]], np.uint16)
    image, mask = calibrate(
        raw, less_overscan=raw - 1000.0, saturation_adu=60000, linearity_adu=50000
    )
    assert image.tolist() == [[49000.0, 49001.0]]
    assert mask.tolist() == [[0, MaskBit.NON_LINEAR]]


def test_what_is_no_number_is_marked_and_zero():
    raw = np.array([[np.nan, np.inf, 3e38 * 10, 7.0, 5.0]])
    bias = np.array([[0, 0, 0, np.nan, 1]], np.float32)
    image, mask = calibrate(raw, bias=bias)
    assert image.tolist() == [[0, 0, 0, 0, 4]]
    assert mask.tolist() == [[MaskBit.BAD] * 4 + [0]]


def test_another_pedestal_is_added_before_the_flat_divides():
    """(600 - 100 - 300) / 2 = 100, by hand."""
    image, _ = calibrate(
        np.full((1, 1), 600, np.uint16),
        offset_adu=-100.0,
        bias=np.full((1, 1), 300, np.float32),
        flat=np.full((1, 1), 2, np.float32),
    )
    assert image.item() == 100.0
