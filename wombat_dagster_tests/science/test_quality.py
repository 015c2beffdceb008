"""Robust scatter and the points that a person should look at."""

import types

import numpy as np
import pytest

from wombat_dagster import domain
from wombat_dagster.science import quality

Flag = domain.Flag


def night(n_frames=4, *, flags=None, source=None, altitude_deg=None):
    """As much of a photometry table as the proposals read: T1 alone."""
    columns = {
        "flags": np.zeros((n_frames, 1), dtype=np.int64) if flags is None else flags,
        "source_sky_adu": np.ones((n_frames, 1)) if source is None else source,
    }
    altitude = np.full(n_frames, 60.0) if altitude_deg is None else altitude_deg
    return types.SimpleNamespace(
        labels=tuple(str(i) for i in range(n_frames)),
        star_index=lambda role: 0 if role == "T1" else None,
        measured=types.SimpleNamespace(**columns),
        times=types.SimpleNamespace(altitude_deg=altitude),
    )


@pytest.mark.parametrize("n", [2, 3, 5, 8, 20, 200])
def test_scatter_of_gaussian_values_is_unbiased(n):
    """Mean over 4000 draws; the MAD of n values scatters by less than 0.9/sqrt(n)."""
    rng = np.random.default_rng(n)
    values = [quality.scatter(rng.normal(12.0, 0.02, n)) for _ in range(4000)]
    assert np.mean(values) == pytest.approx(0.02, rel=0.05)


def test_scatter_ignores_one_wild_value_and_missing_ones():
    values = np.random.default_rng(0).normal(0, 1, 101)
    clean = quality.scatter(values)
    values[3] = 1000.0
    assert quality.scatter(np.append(values, np.nan)) == pytest.approx(clean, rel=0.1)


@pytest.mark.parametrize("values", [[], [1.0], [np.nan, np.nan, 3.0]])
def test_one_value_has_no_scatter(values):
    assert quality.scatter(np.array(values)) is None


@pytest.mark.parametrize(
    ("flag", "word"),
    [
        (Flag.SATURATED, "saturated"),
        (Flag.NEAR_EDGE, "edge"),
        (Flag.BAD_PIXEL, "masked"),
        (Flag.UNMEASURED, "unmeasured"),
        (Flag.NON_LINEAR, ""),
        (Flag.OFF_CENTRE, ""),
        (Flag.LOW_SNR, ""),
    ],
)
def test_each_flag_of_the_variable_has_its_word(flag, word):
    flags = np.array([[0], [flag]])
    got = quality.propose_rejections(night(2, flags=flags), np.full(2, 21.0))
    assert got == ("", word)


def test_a_low_star_is_proposed():
    altitude = np.array([60.0, 15.0, 14.9, np.nan])
    got = quality.propose_rejections(night(altitude_deg=altitude), np.full(4, 21.0))
    assert got == ("", "", "altitude", "")


def test_more_than_a_magnitude_of_cloud_is_proposed():
    zero_point = np.append(np.full(30, 21.0), [20.1, 19.9, np.nan])
    got = quality.propose_rejections(night(33), zero_point)
    assert got[-3:] == ("", "cloud", "nozeropoint")
    assert set(got[:30]) == {""}


def test_one_frame_with_a_wrong_exposure_time_does_not_cloud_the_night():
    zero_point = np.append(np.full(40, 21.0), 25.0)
    assert set(quality.propose_rejections(night(41), zero_point)) == {""}


def constant_stars(n_frames=30, exposure_s=60.0):
    """Counts of a bright and a faint star under a clear sky, shape (n_frames, 2)."""
    noise = np.random.default_rng(1).normal(0, 0.01, (n_frames, 2))
    return exposure_s * np.array([1000.0, 20.0]) * (1 + noise), np.full(n_frames, exposure_s)


def test_frames_behind_a_magnitude_of_cloud_are_known_before_any_zero_point():
    """1.1 mag is 0.363 of the light, 0.9 mag 0.437; a frame without any light is clouded too."""
    source, exposure_s = constant_stars()
    source[3:12] *= 0.363
    source[20] *= 0.437
    source[25] = -5.0
    got = np.flatnonzero(quality.clouded_frames(source, exposure_s))
    assert list(got) == [*range(3, 12), 25]


def test_neither_a_short_exposure_nor_a_missing_star_is_a_cloud():
    source, exposure_s = constant_stars()
    source[5], exposure_s[5] = source[5] / 6, 10.0
    source[9, 0] = np.nan
    assert not quality.clouded_frames(source, exposure_s).any()


@pytest.mark.parametrize("n_frames", [1, 4, 5])
def test_few_frames_tell_no_cloud(n_frames):
    source, exposure_s = constant_stars(n_frames)
    source[0] *= 0.1
    assert quality.clouded_frames(source, exposure_s)[0] == (n_frames >= 5)
    assert not quality.clouded_frames(np.full_like(source, np.nan), exposure_s).any()
    assert not quality.clouded_frames(source[:, :0], exposure_s).any()


def test_reasons_are_joined():
    flags = np.array([[Flag.SATURATED | Flag.NEAR_EDGE]])
    got = quality.propose_rejections(
        night(1, flags=flags, altitude_deg=np.array([5.0])), np.array([21.0])
    )
    assert got == ("saturated,edge,altitude",)


def test_a_night_without_any_zero_point_does_not_fall_over():
    got = quality.propose_rejections(night(2), np.full(2, np.nan))
    assert got == ("nozeropoint", "nozeropoint")


def comp_deviations(n_frames=60, seed=4, error_mag=0.006):
    """Three comps about their own levels, their mean taken out, and their formal errors."""
    drawn = np.random.default_rng(seed).normal(0, error_mag, (n_frames, 3))
    return drawn - drawn.mean(axis=1, keepdims=True), np.full((n_frames, 3), error_mag)


def proposed(deviation_mag, error_mag):
    n_frames = len(deviation_mag)
    words = quality.propose_rejections(
        night(n_frames),
        np.full(n_frames, 21.0),
        comp_deviation_mag=deviation_mag,
        comp_error_mag=error_mag,
    )
    assert set(words) <= {"", "comps"}
    return [frame for frame, word in enumerate(words) if word]


def test_a_frame_whose_comps_disagree_is_proposed():
    deviation, error = comp_deviations()
    deviation[7] = [-0.022, 0.050, -0.029]  # a frame of HAT-P-32
    assert proposed(deviation, error) == [7]
    assert proposed(deviation, error * 30) == [7]  # errors of the wrong size do not matter


def test_one_comp_far_off_among_many_is_enough():
    rng = np.random.default_rng(5)
    deviation = rng.normal(0, 0.006, (60, 20))
    deviation[7, 3] = 0.05
    assert np.std(deviation[7]) < 5 * np.median(np.std(deviation, axis=1))
    assert proposed(deviation, np.full((60, 20), 0.006)) == [7]


def test_short_exposures_disagree_by_no_more_than_their_errors():
    deviation, error = comp_deviations()
    deviation[::5] *= 20
    error[::5] *= 20
    assert proposed(deviation, error) == []
    assert proposed(deviation, np.full_like(error, 0.006))


def test_ordinary_nights_propose_nothing():
    """50 nights of 60 frames and of 4."""
    for n_frames in (4, 60):
        for seed in range(50):
            assert proposed(*comp_deviations(n_frames, seed)) == []


def test_a_comp_that_happens_to_be_quiet_for_half_of_a_short_night_accuses_no_frame():
    """The scatter of 12 values is not known well: 5 of it may be 2 sigma of the formal errors."""
    rng = np.random.default_rng(3)
    nights = rng.normal(0, 0.004, (300, 12, 7))
    error = np.full((12, 7), 0.004)
    frames = [proposed(one - one.mean(axis=1, keepdims=True), error) for one in nights]
    assert sum(map(len, frames)) <= 1


def test_comps_that_come_and_go_are_judged_where_they_are():
    deviation, error = comp_deviations()
    deviation[:20, 1] = np.nan
    deviation[40:, :] = np.nan
    deviation[30] = [-0.03, 0.08, -0.05]
    assert proposed(deviation, error) == [30]


def test_frames_with_half_of_the_usual_stars_are_clouded_each_exposure_for_itself():
    n_stars = np.array([100, 98, 20, 103, 97, 101, 30, 31, 29, 30, 32, 4])
    exposure_s = np.array([60.0] * 6 + [5.0] * 6)
    assert quality.clouded(n_stars, exposure_s) == {2: 100, 11: 30}
    assert quality.clouded(n_stars[:4], exposure_s[:4]) == {}  # too few to know what is usual
    assert quality.clouded(n_stars // 20, exposure_s) == {}  # nor do five stars
