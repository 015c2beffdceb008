"""Lines through standard stars, coefficients by TG's names, and what nights add up to."""

import datetime as dt

import numpy as np
import pytest

from wombat_dagster.domain import Coefficient, Transformation
from wombat_dagster.science.transform import (
    StandardStars,
    _York,
    coefficient_names,
    drift,
    fit_coefficient,
    fit_coefficients,
    fit_line,
    night_means,
    pool,
)
from wombat_dagster_tests.magnitude_tables import AIR_TERMS, K2_B, standardised, through_the_air

TRUE = {"B": 0.09, "V": -0.06, "R": -0.04, "I": 0.03}  # Tb_bv, Tv_bv, Tr_vi, Ti_vi
NIGHT = dt.date(2025, 10, 14)

# ------------------------------------------------------------------------------ a straight line


def test_pearson_s_data_with_york_s_weights():
    """York (1966), Can. J. Phys. 44, 1079; York et al. (2004), Am. J. Phys. 72, 367, table II:

    a = 5.47991022, b = -0.48053341, standard errors 0.294971 and 0.057985.
    """
    x = np.array([0.0, 0.9, 1.8, 2.6, 3.3, 4.4, 5.2, 6.1, 6.5, 7.4])
    y = np.array([5.9, 5.4, 4.4, 4.6, 3.5, 3.7, 2.8, 2.8, 2.4, 1.5])
    x_weight = np.array([1000.0, 1000, 500, 800, 200, 80, 60, 20, 1.8, 1.0])
    y_weight = np.array([1.0, 1.8, 4, 8, 20, 20, 70, 70, 100, 500])
    points = _York(x, y, 1 / x_weight, 1 / y_weight, np.zeros(10))
    slope, ones = -0.5, np.ones(10)
    for _ in range(50):
        slope = points.slope(slope, ones)
    slope_error, intercept, intercept_error = points.rest_of(slope, ones)
    assert slope == pytest.approx(-0.48053341, abs=1e-8)
    assert intercept == pytest.approx(5.47991022, abs=1e-7)
    assert slope_error == pytest.approx(0.057985, abs=1e-6)
    assert intercept_error == pytest.approx(0.294971, abs=1e-6)


def test_errors_in_the_colour_do_not_flatten_the_slope():
    """Least squares would give 1 / (1 + 0.1² / 0.29²) = 0.89 of it."""
    rng = np.random.default_rng(3)
    slopes = []
    for _ in range(40):
        true = rng.uniform(0, 1, 60)
        x = true + rng.normal(0, 0.1, 60)
        y = 0.5 * true + rng.normal(0, 0.01, 60)
        line = fit_line(x, y, np.full(60, 0.01), np.full(60, 1e-4), np.zeros(60))
        slopes.append(line.slope)
    assert np.mean(slopes) == pytest.approx(0.5, abs=3 * np.std(slopes) / np.sqrt(40))
    assert np.std(slopes) / np.sqrt(40) < 0.01


def test_a_wild_star_is_left_out_and_changes_nothing():
    x = np.linspace(0, 1, 20)
    y = 20.0 - 0.06 * x + np.random.default_rng(1).normal(0, 0.005, 20)
    errors = (np.zeros(20), np.full(20, 0.005**2), np.zeros(20))
    clean = fit_line(x, y, *errors)
    spoiled = y.copy()
    spoiled[19] += 0.3
    line = fit_line(x, spoiled, *errors)
    assert np.flatnonzero(~line.used).tolist() == [19]
    without = fit_line(x[:19], y[:19], *(one[:19] for one in errors))
    assert line.slope == pytest.approx(without.slope, abs=1e-6)
    assert line.residual[19] == pytest.approx(0.3, abs=0.02)
    assert abs(line.slope - clean.slope) < line.slope_error


def test_scatter_beyond_the_errors_widens_them_and_the_brightest_do_not_decide_alone():
    """Flat fields: 0.02 mag on every star; two bright ones quote 0.0005."""
    rng = np.random.default_rng(8)
    pulls = []
    for _ in range(100):
        x = rng.uniform(0, 1.2, 40)
        formal = np.where(np.arange(40) < 2, 0.0005, 0.01)
        y = 0.1 * x + rng.normal(0, np.hypot(formal, 0.02))
        line = fit_line(x, y, np.zeros(40), formal**2, np.zeros(40))
        pulls.append((line.slope - 0.1) / line.slope_error)
    assert line.scatter == pytest.approx(0.02, abs=0.008)
    assert 0.85 < np.std(pulls) < 1.15


# ---------------------------------------------------------------------------- the coefficients


def standard_stars(rng, n=25, *, catalogue_error=(0.005, 0.03), noise=1.0, colours=(-0.1, 1.5)):
    """Invent stars, what a catalogue says of them with errors drawn, and what is measured."""
    b_v = rng.uniform(*colours, n)
    v = rng.uniform(9, 14, n)
    mags = {"B": v + b_v, "V": v, "R": v - 0.02 - 0.565 * b_v, "I": v - 0.05 - 1.1 * b_v}
    colour = {"B": b_v, "V": b_v, "R": mags["V"] - mags["I"], "I": mags["V"] - mags["I"]}
    error = {band: noise * 0.002 * 10 ** (0.2 * (mag - 9)) + 1e-9 for band, mag in mags.items()}
    quoted = {band: rng.uniform(*catalogue_error, n) for band in mags}
    return StandardStars(
        names=tuple(f"S{number}" for number in range(n)),
        instrumental_mag={
            band: mags[band] - TRUE[band] * colour[band] - 21 + noise * rng.normal(0, error[band])
            for band in mags
        },
        instrumental_error_mag=error,
        catalogue_mag={band: mags[band] + rng.normal(0, quoted[band]) for band in mags},
        catalogue_error_mag=quoted,
    )


def exact(**changes):
    return standard_stars(
        np.random.default_rng(2), catalogue_error=(0.0, 0.0), noise=0.0, **changes
    )


def test_without_noise_every_coefficient_is_what_was_put_in():
    """Tbv = 1 / (1 - Tb_bv + Tv_bv), DOMAIN section 6c; R and I go by V-I alone."""
    fits, refusals = fit_coefficients(exact())
    values = {fit.name: fit.value for fit in fits}
    assert values["Tb_bv"] == pytest.approx(0.09, abs=1e-6)
    assert values["Tv_bv"] == pytest.approx(-0.06, abs=1e-6)
    assert values["Tr_vi"] == pytest.approx(-0.04, abs=1e-6)
    assert values["Ti_vi"] == pytest.approx(0.03, abs=1e-6)
    assert values["Tbv"] == pytest.approx(1 / (1 - 0.09 - 0.06), abs=1e-5)
    assert refusals == {}


def test_pulls_of_the_slopes_are_one():
    """Measurement and catalogue errors drawn for 120 lists of 25 stars, three coefficients."""
    pulls = []
    for seed in range(120):
        stars = standard_stars(np.random.default_rng([seed, 4]))
        for name, true in (("Tv_bv", -0.06), ("Tr_vi", -0.04), ("Tbv", 1 / 0.85)):
            fit = fit_coefficient(stars, name)
            pulls.append((fit.value - true) / fit.error)
    assert 0.85 < np.std(pulls) < 1.15
    assert abs(np.mean(pulls)) < 0.25  # the three share stars: about 120 independent ones, 0.09


def test_the_catalogue_s_error_of_v_in_both_axes_does_not_tilt_the_line():
    """An error of V alone moves stars along slope -1 in V - v against B - V."""
    slopes = []
    for seed in range(60):
        stars = standard_stars(np.random.default_rng([seed, 9]), 40, colours=(0.4, 0.9))
        wide = np.full(40, 0.05)
        noise = np.random.default_rng([seed, 10]).normal(0, 0.05, 40)
        stars.catalogue_mag["V"][:] = stars.catalogue_mag["V"] + noise
        stars.catalogue_error_mag["V"][:] = np.hypot(stars.catalogue_error_mag["V"], wide)
        slopes.append(fit_coefficient(stars, "Tv_bv").value)
    error = np.std(slopes) / np.sqrt(60)
    assert np.mean(slopes) == pytest.approx(-0.06, abs=3 * error)
    assert error < 0.02  # least squares: -0.06 - 0.94 * 0.05² / 0.15² = -0.16


def test_the_error_of_a_star_across_the_line():
    """V - v - T (B - V): V counts 1 + T times, B T times. T = -0.06, by hand 0.030017."""
    stars = exact()
    for errors, band, error in (
        (stars.instrumental_error_mag, "V", 0.01),
        (stars.catalogue_error_mag, "V", 0.03),
        (stars.catalogue_error_mag, "B", 0.04),
    ):
        errors[band][:] = error
    assert fit_coefficient(stars, "Tv_bv").error_mag == pytest.approx(0.030017, abs=1e-6)


@pytest.mark.parametrize(
    ("stars", "words"),
    [
        (exact(n=4), "4 stars with B-V, at least 5 wanted"),
        (exact(colours=(0.5, 0.7)), "a range of 0.4 mag wanted"),
    ],
)
def test_too_few_stars_or_too_like_ones_are_refused_in_words(stars, words):
    assert words in fit_coefficient(stars, "Tv_bv")


def test_a_star_without_a_band_is_not_counted():
    stars = exact()
    stars.catalogue_mag["B"][3] = np.nan
    assert fit_coefficient(stars, "Tv_bv").stars == tuple(n for n in range(25) if n != 3)
    assert fit_coefficient(stars, "Tv_vi").n_stars == 25


def test_a_spoiled_star_is_named_by_its_place():
    stars = standard_stars(np.random.default_rng(6), catalogue_error=(0.003, 0.005))
    stars.instrumental_mag["V"][7] += 0.4
    assert fit_coefficient(stars, "Tv_bv").left_out == (7,)
    assert fit_coefficient(stars, "Tb_bv").left_out == ()


def test_names_are_those_of_domain_section_6():
    assert coefficient_names("BV")[:3] == ("Tbv", "Tb_bv", "Tv_bv")
    wanted = {"Tu_ub", "Tb_bv", "Tv_bv", "Tr_vi", "Ti_vi", "Tv_vi", "Tv_vr", "Tr_vr", "Tvi", "Tvr"}
    assert wanted < set(coefficient_names("UBVRI"))
    assert "Tbv" not in coefficient_names("V")
    assert "Tv_bv" in coefficient_names("V")  # one filter is enough against a catalogue's colour


K2, AIRMASS = -0.03, 1.3


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        ("Tb_bv", 0.09 + 0.03 * 1.3, 0.09),
        ("Tbv", 1 / (1 - 0.15 - 0.03 * 1.3), 1 / (1 - 0.15)),
        ("Tv_bv", -0.06, -0.06),
    ],
)
def test_second_order_extinction_is_taken_out_of_the_slope(name, inside, outside):
    """B = b - k2 X (B - V) + T (B - V): by hand the slope of B - b is T - k2 X, 0.129 for 0.09."""
    colour = np.linspace(0.0, 1.5, 25)
    v_mag, nothing = np.full(25, 12.0), np.full(25, 0.005)
    catalogue = {"B": v_mag + colour, "V": v_mag}
    through_the_air = {
        "B": catalogue["B"] - 0.09 * colour + K2 * AIRMASS * colour,
        "V": v_mag + 0.06 * colour,
    }
    fields = {
        "names": tuple(map(str, range(25))),
        "instrumental_mag": through_the_air,
        "instrumental_error_mag": dict.fromkeys("BV", nothing),
        "catalogue_mag": catalogue,
        "catalogue_error_mag": dict.fromkeys("BV", nothing),
    }
    raw = fit_coefficient(StandardStars(**fields), name)
    found = fit_coefficient(StandardStars(**fields, colour_extinction={"B": K2 * AIRMASS}), name)
    assert (raw.value, found.value) == pytest.approx((inside, outside), abs=1e-6)
    assert (raw.outside_atmosphere, found.outside_atmosphere) == (False, name != "Tv_bv")


def test_a_low_night_has_no_bias_by_a_coefficient_from_a_high_field():
    """The field at airmass 1.3, the night from 1.1 to 2.2; with k2 in both, it counts once."""
    colour = np.linspace(0.0, 1.5, 25)
    catalogue = {"B": 12.0 + colour, "V": np.full(25, 12.0)}
    error = dict.fromkeys("BV", np.full(25, 0.005))
    field = StandardStars(
        names=tuple(map(str, range(25))),
        instrumental_mag={"B": catalogue["B"] - (AIR_TERMS["B"] - K2_B * AIRMASS) * colour},
        instrumental_error_mag=error,
        catalogue_mag=catalogue,
        catalogue_error_mag=error,
        colour_extinction={"B": K2_B * AIRMASS},
    )
    term = Transformation(
        coefficient_name="Tb_bv", coefficient=fit_coefficient(field, "Tb_bv").value,
        coefficient_error=0.005, colour_index="B-V", target_colour=0.1, target_colour_error=0.02,
    )  # fmt: skip
    got = standardised(through_the_air("B"), term, extinction_colour={"B": K2_B})
    assert got.t1_mag == pytest.approx([11.1] * 12, abs=1e-6)


# ----------------------------------------------------------------------- many frames of a field


def test_frames_of_other_zero_points_add_up_also_where_a_star_is_missing():
    rng = np.random.default_rng(5)
    true, zero = rng.uniform(-8, -5, 12), np.array([0.0, 0.7, -0.2, 0.1, 0.4])
    error = np.broadcast_to(rng.uniform(0.002, 0.02, 12), (5, 12))
    mag = true + zero[:, None] + rng.normal(0, error)
    mag[1, 0], mag[0, 5], mag[2, 5] = np.nan, np.nan, np.nan
    mag[3, 8] -= 0.5  # a cosmic ray
    means = night_means(mag, error)
    assert means.n_frames.tolist() == [4, 5, 5, 5, 5, 3, 5, 5, 4, 5, 5, 5]
    offset = np.average(means.mag - true, weights=means.error_mag**-2)
    assert np.abs((means.mag - true - offset) / means.error_mag).max() < 4
    plain = np.nanmean(mag, axis=0) - true
    assert abs(plain[0] - np.median(plain)) > 0.1 > abs(means.mag[0] - true[0] - offset)


def test_means_of_frames_that_scatter_more_than_they_say_have_wider_errors():
    rng = np.random.default_rng(7)
    mag = rng.uniform(-8, -5, 40) + rng.normal(0, 0.03, (8, 40))
    means = night_means(mag, np.full((8, 40), 0.01))
    assert means.scatter == pytest.approx(3.0, rel=0.15)
    assert means.error_mag == pytest.approx(np.full(40, 0.03 / np.sqrt(8)), rel=0.2)


def test_a_star_on_no_frame_has_no_mean():
    mag = np.array([[np.nan, 1.0, 2.0], [np.nan, 1.1, 2.1]])
    means = night_means(mag, np.full((2, 3), 0.01))
    assert np.isnan(means.mag).tolist() == [True, False, False]
    assert means.n_frames.tolist() == [0, 2, 2]


# -------------------------------------------------------------------------------- over the nights


def night(value, error, day=0, field="M67"):
    return Coefficient(
        name="Tv_bv",
        value=value,
        error=error,
        n_stars=20,
        date=NIGHT + dt.timedelta(days=day),
        source=f"fit {field}",
    )


def test_the_pool_is_the_weighted_mean():
    """By hand: weights 1 : 4; the mean's error 1 / sqrt(1/0.02² + 1/0.01²) = 0.0089443."""
    nights = [night(-0.05, 0.02, 0, "M67"), night(-0.06, 0.01, 1, "M11")]
    found = pool(nights)
    assert found.value == pytest.approx(-0.058)
    assert found.error == pytest.approx(0.0089443, abs=1e-7)
    assert (found.n_nights, found.source) == (2, "pooled")
    assert drift(nights) == ()


def test_fields_that_disagree_have_the_error_of_their_scatter():
    """By hand: 0 and 0.1 of equal weight; error of the mean 0.05."""
    nights = [night(0.0, 0.01, 0, "M67"), night(0.1, 0.01, 1, "M11")]
    assert pool(nights).error == pytest.approx(0.05)
    (words,) = drift(nights)
    assert "7.1 sigma" in words


def test_nights_on_one_field_share_the_catalogue_s_errors():
    found = pool([night(-0.06, 0.01, day) for day in range(9)])
    assert found.error == pytest.approx(0.01)


def test_a_field_is_one_however_its_directory_is_spelled():
    spelled = [night(-0.06, 0.01, day, f) for day, f in enumerate(("SA 98", "sa_98", "SA98"))]
    assert pool(spelled).error == pytest.approx(0.01)
    assert pool([*spelled, night(-0.06, 0.01, 9, "SA 104")]).error < 0.008


def test_the_night_that_sticks_out_is_named_and_kept():
    nights = [night(-0.06 + 0.001 * (-1) ** day, 0.004, day) for day in range(6)]
    nights.append(night(-0.03, 0.004, 40))
    (words,) = drift(nights)
    assert words.startswith("Tv_bv of 2025-11-23 is -0.0300±0.0040, ")
    assert pool(nights).value > -0.06


def test_a_change_with_time_is_told():
    drifting = [night(-0.06 + 0.01 * n + 0.001 * (-1) ** n, 0.002, 30 * n) for n in range(6)]
    assert "runs with time: +0.04" in drift(drifting)[-1]
    rng = np.random.default_rng(4)
    steady = [night(-0.06 + rng.normal(0, 0.002), 0.002, 30 * n, f"F{n}") for n in range(8)]
    assert drift(steady) == ()


def test_false_alarms_of_steady_nights_are_rare():
    """3 sigma, 10 fields of their own each; one in 370 per night if the errors were known."""
    rng = np.random.default_rng(14)
    alarms = 0
    for _ in range(60):
        fits = [night(rng.normal(0, 0.01), 0.01, 9 * n, f"F{n}") for n in range(10)]
        alarms += bool(drift(fits))
    assert alarms <= 6


def test_nothing_to_pool_or_two_names_at_once_is_an_error():
    with pytest.raises(ValueError, match="0 fits"):
        pool([])
