"""Colour terms: which coefficient serves one filter, and what a night's own comps can hold."""

import numpy as np
import pytest

from wombat_dagster.science.colour_terms import (
    choose_transformation,
    fit_colour_term_clipped,
    may_free_colour_term,
)


@pytest.mark.parametrize(
    ("band", "name", "index"),
    [("B", "Tb_bv", "B-V"), ("V", "Tv_bv", "B-V"), ("R", "Tr_vi", "V-I"), ("I", "Ti_vi", "V-I")],
)
def test_the_recommended_coefficient_for_one_filter(band, name, index):
    coefficients = {"Tb_bv": 0.045, "Tv_bv": -0.06, "Tr_vi": 0.02, "Ti_vi": 0.03}
    got = choose_transformation(
        band,
        coefficients,
        {name: 0.004},
        {"B-V": 0.35, "V-I": 0.4},
        {"V-I": 0.02},
        source="configuration",
    )
    assert (got.coefficient_name, got.colour_index) == (name, index)
    assert (got.coefficient, got.coefficient_error) == (coefficients[name], 0.004)
    assert got.source == "configuration"
    assert got.target_colour_error == (0.1 if index == "B-V" else 0.02)


@pytest.mark.parametrize(
    ("band", "coefficients", "colours", "why"),
    [
        ("V", {}, {"B-V": 0.3}, "no coefficient Tv_bv"),
        ("V", {"Tv_bv": -0.06}, {"V-I": 0.3}, "no B-V of the variable"),
        ("TG", {"Tv_bv": -0.06}, {"B-V": 0.3}, "no coefficient is defined for TG alone"),
    ],
)
def test_no_colour_term_without_evidence(band, coefficients, colours, why):
    got = choose_transformation(band, coefficients, {}, colours, {}, source="configuration")
    assert got.coefficient is None
    assert why in got.source


@pytest.mark.parametrize(("times", "widest"), [(1, 1.2), (2, 1.45), (3, 1.6)])
def test_comps_that_scatter_about_the_line_enlarge_the_coefficient_s_error(times, widest):
    """8 comps, errors 1, 2 and 3 times the quoted ones; unscaled, the pulls are that wide."""
    rng, pulls = np.random.default_rng(4), []
    colours = np.linspace(0.2, 1.1, 8)
    for _ in range(400):
        zero_points = 21 - 0.06 * colours + rng.normal(0, 0.02 * times, 8)
        fit = fit_colour_term_clipped(zero_points, np.full(8, 0.02), colours)
        pulls.append((fit.coefficient + 0.06) / fit.coefficient_error)
    assert np.sqrt(np.mean(np.square(pulls))) < widest


def test_a_free_colour_term_needs_five_comps_over_four_tenths():
    assert may_free_colour_term(np.array([0.2, 0.3, 0.4, 0.5, 0.6]))
    assert not may_free_colour_term(np.array([0.2, 0.3, 0.4, 0.6]))
    assert not may_free_colour_term(np.array([0.2, 0.3, 0.4, 0.5, 0.55]))
