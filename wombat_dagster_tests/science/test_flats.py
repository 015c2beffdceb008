import numpy as np
import pytest

from wombat_dagster.domain import Sourced
from wombat_dagster.science import detector as cal
from wombat_dagster.science import flats


def test_a_master_flat_has_median_one_in_its_central_half_and_masks_dark_corners():
    flat = np.full((40, 40), 20000.0)
    flat[:2, :2] = 100.0
    flat[20, 20] = 24000.0
    normalised, unusable = flats.normalised_master_flat(flat)
    assert np.median(normalised[10:30, 10:30]) == 1.0
    assert normalised[20, 20] == np.float32(1.2)
    assert unusable.sum() == 4
    assert normalised[0, 0] == 1.0  # never divided by


def extremes(maximum, n, level=200.0):
    return cal.RawExtremes(maximum_adu=maximum, n_at_maximum=n, level_adu=level)


def refusal(level, saturation, *, maximum=65000.0):
    return flats.flat_refusal(
        extremes(maximum, 1, level), bias_level_adu=1000, saturation=saturation,
        min_fraction=0.05, max_fraction=0.95,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("level", "words"),
    [(30000.0, None), (64000.0, "64000 ADU, below"), (1100.0, "1100 ADU, at least")],
)
def test_flats_too_bright_or_too_dark_are_refused_with_their_level(level, words):
    found = refusal(level, Sourced(value=60000.0, source="header"))
    assert (found is None) if words is None else (words in found)


def test_a_flat_of_a_12_bit_camera_is_not_too_dark_for_a_range_nobody_stated():
    unknown = cal.saturation_of([], configured_adu=None, header_adu=None)
    assert unknown.value == cal.DEFAULT_SATURATION_ADU
    assert refusal(2048.0, unknown, maximum=3000.0) is None
    assert "1000 ADU, at least" in refusal(1000.0, unknown)  # no light


def test_a_flat_at_the_stop_of_its_camera_is_too_bright():
    """One alone by its own counts, the others by where they pile up."""
    unknown = cal.saturation_of([], configured_adu=None, header_adu=None)
    assert "highest count" in refusal(4095.0, unknown, maximum=4095.0)
    piled = cal.saturation_of(
        [extremes(4095.0, 9, 2000.0)] * 4, configured_adu=None, header_adu=None
    )
    assert piled.source == "pile-up at 4095.0 ADU"
    assert "below" in refusal(4000.0, piled, maximum=4095.0)
    assert refusal(2000.0, piled, maximum=4095.0) is None
