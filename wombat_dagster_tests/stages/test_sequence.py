"""The width that the margin at the edges follows from."""

from types import SimpleNamespace

import numpy as np
import pytest

from wombat_dagster.stages.sequence import detected_fwhm_px


def solved(*widths_px):
    return [(None, SimpleNamespace(fwhm_median_px=width), None) for width in widths_px]


def test_frames_without_a_width_do_not_take_it_from_the_others():
    assert detected_fwhm_px(solved(3.0, None, 5.0, np.nan, 4.0)) == pytest.approx(4.0)


def test_no_frame_with_a_width_is_no_width():
    assert np.isnan(detected_fwhm_px(solved(None, np.nan)))
    assert np.isnan(detected_fwhm_px([]))
