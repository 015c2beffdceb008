"""Which frame gives the profile, and which one shows the crowding."""

from types import SimpleNamespace

import numpy as np
import pytest

from wombat_dagster import config
from wombat_dagster.domain import BadPsf
from wombat_dagster.stages import photometry


@pytest.fixture
def tried(monkeypatch):
    """What `night_profile` answers, and how many frames it fits."""

    def run(*axis_ratios):
        """None is a frame whose fit fails, below 0.7 the stars are elongated."""
        fitted = []

        def fit(image, mask, detections, **_):
            fitted.append(detections)
            if axis_ratios[image] is None:
                raise BadPsf(f"frame {image}")
            return SimpleNamespace(elongated=axis_ratios[image] < 0.7, frame=image)

        monkeypatch.setattr(photometry, "fit_frame_profile", fit)
        pixels = SimpleNamespace(read=lambda frame: (frame, 0), stars=lambda frame: frame)
        detector = SimpleNamespace(
            gain_e_adu=None, linearity_adu=SimpleNamespace(value=1.0), stop_adu=None
        )
        solved = [(i, None, None) for i in range(len(axis_ratios))]
        settings = config.PhotometrySettings()
        return photometry.night_profile(pixels, solved, detector, settings), len(fitted)

    return run


@pytest.mark.parametrize(
    ("axis_ratios", "chosen", "n_fitted"),
    [
        ((0.9, 0.95), 0, 1),
        ((None, 0.9, 0.9), 1, 2),
        ((0.6, None, 0.8, 0.9), 2, 3),  # the first that is not elongated
        ((None, 0.6, 0.65), 1, 3),  # all are
        ((0.6,) * 10 + (0.9,), 0, 10),  # no more than ten are tried
    ],
)
def test_an_unelongated_frame_is_preferred(tried, axis_ratios, chosen, n_fitted):
    (profile, index), n = tried(*axis_ratios)
    assert (profile.frame, index, n) == (chosen, chosen, n_fitted)


def test_without_a_good_frame_the_first_failure_is_named(tried):
    with pytest.raises(BadPsf, match=r"none of 2 frames .* frame 0"):
        tried(None, None)


def test_crowding_is_judged_on_a_typical_frame():
    """Median of 9, 3, 2, 2.5, 8 is 3: not the trailed first, not the sharpest."""
    assert photometry.typical_frame(np.array([9.0, 3.0, 2.0, 2.5, 8.0])) == 1
