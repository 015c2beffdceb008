"""Zero points from many stars: by hand, laws, stars that wobble, comps that are wrong."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wombat_dagster.science.ensemble import (
    NightZeroPoint,
    night_zero_point,
    restlessness,
    robust_level,
    steadiness,
)

# ------------------------------------------------------------------------------- frame to frame


def test_random_error_of_three_comps_is_their_scatter_about_their_night_means():
    """Worked by hand: two frames; the comps' deviations are ±(0.01, 0, -0.01).

    sd over comps 0.01, enlarged by sqrt(2/1) because the means come from these two frames.
    """
    deviation = np.array([0.01, 0.0, -0.01])
    zero_points = np.array([21.0, 21.3, 20.7]) + np.array([deviation, -deviation])
    zero = night_zero_point(zero_points, np.full((2, 3), 0.005))
    assert zero.zero_point_mag == pytest.approx([21.0, 21.0])
    assert zero.residual_mag == pytest.approx([0.0, 0.3, -0.3])
    assert zero.deviation_mag == pytest.approx(np.array([deviation, -deviation]))
    assert zero.random_mag == pytest.approx([0.01 * np.sqrt(2 / 3)] * 2)


def test_three_comps_that_agree_by_luck_have_the_formal_error():
    """The second frame's comps lie just where their night means are."""
    lone = np.array([0.04, 0.0, -0.04])
    zero_points = 21.0 + np.array([lone, 0 * lone, -lone])
    zero = night_zero_point(zero_points, np.full((3, 3), 0.006))
    assert zero.random_mag[1] == pytest.approx(0.006 / np.sqrt(3))
    assert zero.random_mag[0] == pytest.approx(0.04 * np.sqrt(1.5) / np.sqrt(3))


@pytest.mark.parametrize("factor", [0.2, 1.0, 30.0])
def test_formal_errors_that_lack_a_factor_get_it_from_the_comps(factor):
    rng = np.random.default_rng(2)
    zero_points = 21.0 + rng.normal(0, 0.01, (400, 3))
    zero = night_zero_point(zero_points, np.full((400, 3), 0.01 * factor), errors_known=False)
    # half of the frames lie at the median of a two-degree scatter, sqrt(ln 2) σ
    assert zero.random_mag.min() == pytest.approx(0.01 / np.sqrt(3) * np.sqrt(np.log(2)), rel=0.15)
    assert np.median(zero.random_mag) == pytest.approx(zero.random_mag.min(), rel=0.02)


def test_a_single_frame_has_formal_zero_point_errors():
    zero = night_zero_point(np.array([[21.0, 21.3, 20.7]]), np.full((1, 3), 0.03))
    assert zero.random_mag == pytest.approx([np.sqrt(3) * 0.03 / 3])


def test_two_comps_have_formal_zero_point_errors():
    """Two comps' scatter is no estimate: sqrt(0.03² + 0.04²)/2, whatever they do."""
    zero_points = 21.0 + np.array([[0.1, -0.1], [-0.1, 0.1], [0.0, 0.0]])
    zero = night_zero_point(zero_points, np.tile([0.03, 0.04], (3, 1)))
    assert zero.random_mag == pytest.approx([0.025] * 3)


def test_two_sets_of_comps_that_never_share_a_frame_keep_their_catalogue_levels():
    zero_points = np.array([[21.1, np.nan], [21.1, np.nan], [np.nan, 20.9]])
    zero = night_zero_point(zero_points, np.full((3, 2), 0.01))
    assert zero.zero_point_mag == pytest.approx([21.1, 21.1, 20.9])
    assert zero.residual_mag == pytest.approx([0, 0], abs=1e-12)


def test_a_frame_weighs_its_stars_by_hand():
    """Weights 3 and 1, 0.04 mag apart on one frame only: three quarters of the way, 0.03."""
    zero_points = np.array([[21.0, 20.0], [21.04, 20.0], [21.0, 20.0], [21.0, 20.0]])
    errors = np.tile([0.01, 0.01 * np.sqrt(3)], (4, 1))
    zero = night_zero_point(zero_points, errors, weight=np.array([1.5, 0.5]))
    assert np.diff(zero.zero_point_mag) == pytest.approx([0.03, -0.03, 0.0])
    assert zero.residual_mag.sum() == pytest.approx(0)
    # sqrt(Σ w² σ²)/Σw = 1/sqrt(1/σ1² + 1/σ2²)
    assert zero.random_mag == pytest.approx([0.01 * np.sqrt(0.75)] * 4)


@settings(deadline=None)  # a busy machine is no failure
@given(
    seed=st.integers(0, 10**6),
    missing=st.floats(0.0, 0.6),
    n_stars=st.integers(2, 8),
)
def test_stars_that_come_and_go_make_no_step(seed, missing, n_stars):
    """Whatever the weights, whoever is missing: noise-free zero points are found exactly."""
    rng = np.random.default_rng(seed)
    truth, own = rng.normal(21.0, 0.3, 30), rng.normal(0, 0.2, n_stars)
    zero_points = truth[:, None] + own
    lost = rng.random(zero_points.shape) < missing
    lost[:, 0] = False  # one star holds the night together
    zero_points[lost] = np.nan
    weight = rng.uniform(0.01, 4.0, n_stars)
    zero = night_zero_point(zero_points, np.full(zero_points.shape, 0.01), weight=weight)
    departure = zero.zero_point_mag - truth
    assert departure == pytest.approx(departure[0], abs=1e-8)


def noisy_zero_points(sigma_mag, n_frames=400, seed=5):
    rng = np.random.default_rng(seed)
    sigma = np.asarray(sigma_mag)
    return 21.0 + rng.normal(size=(n_frames, len(sigma))) * sigma


def test_a_faint_comp_does_not_spoil_a_bright_one_s_precision():
    """3 mmag and 30 mmag: 3 mmag, not the plain mean's 15."""
    zero_points = noisy_zero_points([0.003, 0.03])
    steady = steadiness(zero_points, np.tile([0.003, 0.03], (400, 1)))
    assert steady.weight[0] / steady.weight[1] == pytest.approx(100, rel=0.3)
    zero = night_zero_point(zero_points, steady.error_mag, weight=steady.weight)
    assert zero.zero_point_mag.std() == pytest.approx(0.003, rel=0.15)
    assert night_zero_point(zero_points, steady.error_mag).zero_point_mag.std() > 0.013


def test_a_comp_that_scatters_more_than_it_should_counts_for_less():
    """Formal errors 3 mmag all; the last scatters by 30."""
    zero_points = noisy_zero_points([0.003, 0.003, 0.003, 0.03])
    steady = steadiness(zero_points, np.full((400, 4), 0.003))
    assert steady.weight[3] / steady.weight[0] == pytest.approx(0.01, rel=0.35)
    assert steady.weight[:3] == pytest.approx(steady.weight[0], rel=1e-6)
    assert np.median(steady.error_mag[:, 3]) == pytest.approx(0.03, rel=0.15)


def test_comps_that_are_as_steady_as_they_should_be_keep_their_formal_weights():
    zero_points = noisy_zero_points([0.003, 0.005, 0.01], n_frames=60)
    steady = steadiness(zero_points, np.tile([0.003, 0.005, 0.01], (60, 1)))
    assert steady.weight / steady.weight[0] == pytest.approx([1, 9 / 25, 9 / 100])


def test_errors_without_a_scale_get_it_and_keep_their_ratios():
    zero_points = noisy_zero_points([0.003, 0.005, 0.01])
    steady = steadiness(zero_points, np.tile([0.03, 0.05, 0.1], (400, 1)), errors_known=False)
    assert steady.error_mag[0] == pytest.approx([0.003, 0.005, 0.01], rel=0.15)


@pytest.mark.parametrize("n_comps", [2, 3, 8])
def test_the_error_of_a_zero_point_is_what_it_scatters_by(n_comps):
    """Robust sd of 60 nights of 50 frames in units of the stated error."""
    sigma = np.linspace(0.004, 0.02, n_comps)
    pulls = []
    for seed in range(60):
        zero_points = noisy_zero_points(sigma, n_frames=50, seed=seed)
        steady = steadiness(zero_points, np.tile(sigma, (50, 1)))
        zero = night_zero_point(zero_points, steady.error_mag, weight=steady.weight)
        departure = (zero.zero_point_mag - zero.zero_point_mag.mean()) * np.sqrt(50 / 49)
        pulls.append(departure / zero.random_mag)
    width = 1.4826 * np.median(np.abs(np.concatenate(pulls)))
    assert width == pytest.approx(1.0, abs=0.06)


# ------------------------------------------------------------------------------------- the level


def level_of(values, errors):
    return robust_level(np.asarray(values, dtype=float), np.asarray(errors), np.zeros(len(values)))


def test_comps_that_disagree_enlarge_the_level_error():
    """Night means ±0.1 about their own, e = 0.02 each: χ²_red = 50, 0.02/√2 times √50 = 0.1."""
    assert level_of([0.1, -0.1], [0.02, 0.02]).error_mag == pytest.approx(0.1)
    assert level_of([0.01, -0.01], [0.02, 0.02]).error_mag == pytest.approx(0.02 / np.sqrt(2))
    assert level_of([0.0], [0.03]).error_mag == pytest.approx(0.03)


def test_comps_in_their_places_have_their_plain_mean():
    got = level_of([0.01, -0.02, 0.015, 0.0], [0.02, 0.03, 0.02, 0.01])
    assert got.value_mag == pytest.approx(0.00125)
    assert got.error_mag == pytest.approx(np.sqrt(18e-4) / 4)
    assert list(got.weight) == [1.0] * 4
    assert not got.suspect.any()


def test_leaving_one_out_by_hand():
    """0.03 against the mean of 0 and 0.01: 0.025, error hypot(0.02, 0.02/√2)."""
    got = level_of([0.0, 0.01, 0.03], [0.02, 0.02, 0.02])
    assert got.leave_one_out_mag[2] == pytest.approx(0.025)
    assert got.leave_one_out_sigma[2] == pytest.approx(0.025 / np.hypot(0.02, 0.02 / np.sqrt(2)))


def test_a_grossly_wrong_comp_of_three_is_named_and_does_not_count():
    got = level_of([0.0, 0.005, 0.3], [0.01, 0.02, 0.03])
    assert list(got.suspect) == [False, False, True]
    assert got.value_mag == pytest.approx(0.0025)
    assert got.leave_one_out_mag[2] == pytest.approx(0.2975)


def test_of_two_comps_none_is_named():
    got = level_of([0.0, 0.3], [0.01, 0.01])
    assert not got.suspect.any()
    assert got.value_mag == pytest.approx(0.15)
    assert (got.leave_one_out_sigma > 20).all()


def test_two_wrong_comps_of_seven_are_both_named():
    got = level_of([0, 0.01, -0.01, 0, 0.2, 0.005, -0.15], np.full(7, 0.015))
    assert list(np.flatnonzero(got.suspect)) == [4, 6]


@cache
def drawn_levels(n_comps, wrong_mag=0.05):
    """Return 400 nights' levels, each also with one comp's catalogue wrong besides."""
    rng, levels = np.random.default_rng(8), []
    for _ in range(400):
        errors = rng.uniform(0.01, 0.02, n_comps)
        values = rng.normal(0, errors)
        wrong = values.copy()
        wrong[0] += wrong_mag
        levels.append((level_of(values, errors), level_of(wrong, errors)))
    return levels


def test_comps_that_are_right_are_hardly_ever_named():
    """By chance in 5 % of the nights at most; 400 nights know that to 1.1 %."""
    for n_comps in (3, 8, 14):
        named = [right.suspect.any() for right, _ in drawn_levels(n_comps)]
        assert np.mean(named) < 0.05 + 3 * 0.011


def test_a_comp_wrong_by_five_hundredths_is_named_when_its_catalogue_lets_it():
    """3 errors of a comp of 0.015 and the others' level: named on half of the nights and more.

    A threshold that names a right comp in 5 % of the nights lies at 2.7 sigma; 0.05 mag are 4.4 for
    an error of 0.01 and 2.4 for one of 0.02, and the catalogue's own error comes on top.
    """
    found = [(wrong.suspect[0], wrong.suspect[1:].any()) for _, wrong in drawn_levels(8)]
    own, other = np.mean(found, axis=0)
    assert own > 0.5
    assert other < 0.05
    rng = np.random.default_rng(3)
    sharp = [
        level_of(np.append(0.05, rng.normal(0, 0.01, 7)), np.full(8, 0.01)).suspect[0]
        for _ in range(200)
    ]
    assert np.mean(sharp) > 0.95


def test_a_comp_wrong_by_five_hundredths_moves_the_level_little():
    """Plain means would move by 6.3 mmag (8 comps) and 3.6 (14)."""
    of_eight, of_fourteen = (
        [abs(wrong.value_mag - right.value_mag) for right, wrong in drawn_levels(n)]
        for n in (8, 14)
    )
    assert np.median(of_eight) < 0.004
    assert np.mean(np.array(of_eight) < 0.005) > 0.65
    assert np.mean(np.array(of_fourteen) < 0.005) > 0.98
    gross = [abs(w.value_mag - r.value_mag) for r, w in drawn_levels(8, wrong_mag=0.2)]
    assert np.quantile(gross, 0.9) < 0.005  # out, and its own draw with it


@pytest.mark.parametrize("n_comps", [3, 8])
def test_the_level_s_error_is_what_levels_scatter_by(n_comps):
    """Where comps disagree by chance the error is enlarged: some 10 % wide, as DOMAIN has it."""
    pulls = [right.value_mag / right.error_mag for right, _ in drawn_levels(n_comps)]
    assert 0.85 < np.sqrt(np.mean(np.square(pulls))) < 1.1


@pytest.mark.parametrize(("n_comps", "widest"), [(4, 1.75), (6, 1.5), (8, 1.5), (12, 1.4)])
def test_catalogue_errors_half_of_what_they_are_enlarge_the_level_s_error(n_comps, widest):
    """Comps scatter by 0.04, errors say 0.02; by the χ² of those not named: 1.7 to 1.9."""
    rng, pulls = np.random.default_rng(1), []
    for _ in range(600):
        level = level_of(rng.normal(0, 0.04, n_comps), np.full(n_comps, 0.02))
        pulls.append(level.value_mag / level.error_mag)
    assert np.sqrt(np.mean(np.square(pulls))) < widest


def test_several_suspects_say_that_the_errors_are_wrong():
    """Two of seven, 0.2 and 0.15 off: √(Σ(r/e)²/6) of all; one says nothing of the rest."""
    few, errors = np.array([0, 0.01, -0.01, 0, 0.2, 0.005, 0.0]), np.full(7, 0.015)
    many = np.append(few[:-1], -0.15)
    assert level_of(few, errors).error_mag == pytest.approx(0.015 / np.sqrt(6))
    got = level_of(many, errors)
    excess = np.sqrt(np.sum((many - got.value_mag) ** 2) / 6) / 0.015
    assert got.error_mag == pytest.approx(0.015 / np.sqrt(5) * excess)


# ----------------------------------------------------------------------------------- restlessness


def restless(zero_points, errors):
    steady = steadiness(zero_points, errors)
    zero = night_zero_point(zero_points, steady.error_mag, weight=steady.weight)
    assert isinstance(zero, NightZeroPoint)
    return restlessness(zero, errors)


def test_a_comp_that_varies_in_the_night_is_found():
    """0.05 mag up and down over the night; the others at their 5 mmag."""
    zero_points = noisy_zero_points([0.005] * 4, n_frames=80)
    zero_points[:, 2] += 0.05 * np.sin(np.linspace(0, 6, 80))
    got = restless(zero_points, np.full((80, 4), 0.005))
    assert list(got.restless) == [False, False, True, False]
    assert got.scatter_mag[2] == pytest.approx(0.05 * 1.4826 * np.sin(np.pi / 4), rel=0.25)
    assert got.scatter_mag[0] == pytest.approx(0.005 * np.sqrt(1.5), rel=0.3)


def test_where_all_scatter_nobody_is_restless():
    """Errors are three times too small for everybody: the errors are wrong, not a comp."""
    got = restless(noisy_zero_points([0.02] * 5), np.full((400, 5), 0.005))
    assert not got.restless.any()


def test_of_two_comps_that_drift_apart_none_is_restless():
    zero_points = noisy_zero_points([0.005] * 2)
    zero_points[:, 1] += np.linspace(0, 0.2, 400)
    assert not restless(zero_points, np.full((400, 2), 0.005)).restless.any()
