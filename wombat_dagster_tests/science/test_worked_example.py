"""The worked example of DOMAIN section 6 (six comps of XZ Cyg), through the pipeline's own road.

Every number wanted was computed independently of wombat; see the origin in the file.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from wombat_dagster import domain
from wombat_dagster.science.colour_terms import (
    fit_colour_term,
    fit_colour_term_clipped,
    fit_colour_term_huber,
)
from wombat_dagster.science.extinction import MIN_AIRMASS_DIFFERENCE, first_order_extinction
from wombat_dagster.science.photometry import relative_fluxes
from wombat_dagster_tests.magnitude_tables import NO_COLOUR, standardised, star, table

GOLDEN = Path(__file__).parents[1] / "golden" / "stdmag_example.json"
SIX_DECIMALS = 5.1e-7
FIVE_DECIMALS = 5.1e-6
FOUR_DECIMALS = 5.1e-5
EXPOSURE_S = 30.0
RELATIVE = np.log(10) / 2.5  # relative error per magnitude


@pytest.fixture(scope="module")
def example():
    return json.loads(GOLDEN.read_text())


@pytest.fixture(scope="module")
def comps(example):
    """The six comps as arrays."""
    keys = ("V", "eV", "B", "eB", "v", "b", "sv", "sb")
    return {key: np.array([comp[key] for comp in example["comps"]]) for key in keys}


def position(example, auid):
    return [comp["auid"] for comp in example["comps"]].index(auid)


def not_check(example):
    return np.array([comp["auid"] != example["check"] for comp in example["comps"]])


def one_frame(example, band="V", *, only=None):
    """One frame of T1, the check star as T2, and the five comps, or the one called `only`."""
    low, check = band.lower(), example["check"]
    chosen = [comp for comp in example["comps"] if only is None or comp["auid"] in (check, only)]
    chosen.sort(key=lambda comp: comp["auid"] != check)
    stars = [star("T1")]
    for place, comp in enumerate(chosen):
        role = "T2" if place == 0 else f"C{place + 2}"
        colour = comp["B"] - comp["V"]
        stars.append(
            domain.ApertureStar(
                role=role, name=comp["auid"], auid=comp["auid"], ra_deg=10.0, dec_deg=20.0,
                catalogue_mag=comp[band], catalogue_error_mag=comp[f"e{band}"], colour=colour,
            )
        )  # fmt: skip
    both = [example["target"], *chosen]
    source = EXPOSURE_S * 10 ** (-0.4 * np.array([[one[low] for one in both]]))
    error = source * np.array([[one[f"s{low}"] for one in both]]) * RELATIVE
    return table(stars, source, error, band=band, comp_band=band, filter=f"Bessell {band}")


def coefficients(example):
    stored = example["coefficients"]
    return {
        "coefficients": {name: stored[name] for name in ("Tb_bv", "Tv_bv")},
        "coefficient_errors": {name: stored[f"r{name}"] for name in ("Tb_bv", "Tv_bv")},
    }


def supplied(example, colour, colour_error, **changes):
    stored = example["coefficients"]
    known = {
        "coefficient_name": "Tv_bv",
        "coefficient": stored["Tv_bv"],
        "coefficient_error": stored["rTv_bv"],
        "colour_index": "B-V",
        "target_colour": colour,
        "target_colour_error": colour_error,
    }
    return domain.Transformation(**known | changes)


def test_single_comp(example):
    want = example["results"]["single_untransformed"]
    got = standardised(one_frame(example, only=want["comp"]))
    assert got.method == "single"
    assert got.t1_mag == pytest.approx([want["V"]], abs=SIX_DECIMALS)
    assert got.t1_random_mag == pytest.approx([want["merr"]], abs=SIX_DECIMALS)
    total = standardised(one_frame(example, only=want["comp"]), merr="total").t1_merr_mag
    assert total == pytest.approx([want["merr_with_cat"]], abs=SIX_DECIMALS)


def test_ensemble(example):
    """Comps in their places: the robust level is the plain mean."""
    want = example["results"]["ensemble_zp"]
    got = standardised(one_frame(example))
    assert got.zero_point_mag == pytest.approx([want["zp_mean"]], abs=SIX_DECIMALS)
    assert got.t1_mag == pytest.approx([want["V_target_mean"]], abs=SIX_DECIMALS)
    assert got.t2_mag == pytest.approx([want["V_check"]], abs=SIX_DECIMALS)
    assert got.check_offset_mag == pytest.approx(want["check_minus_cat"], abs=SIX_DECIMALS)
    each = [-(one.residual_mag - got.zero_point_mag[0]) for one in got.comp_residuals]
    assert each == pytest.approx(want["zp_each"], abs=SIX_DECIMALS)
    assert {one.weight for one in got.comp_residuals} == {1.0}


def test_aij_magnitude(example):
    night, want = one_frame(example), example["results"]["aij_style"]
    got = relative_fluxes(night.measured, night.stars)
    assert got.source_amag[0, 0] == pytest.approx(want["AMag"], abs=SIX_DECIMALS)
    assert got.source_amag_err[0, 0] == pytest.approx(want["AMag_Err"], abs=SIX_DECIMALS)


@pytest.mark.parametrize("number", range(5))
def test_two_filters_with_each_comp(example, number):
    """Iterated there, in closed form here; and the guide's form."""
    want = example["results"]["two_filter_each_comp"][number]
    own, other = (one_frame(example, band, only=want["comp"]) for band in "VB")
    kept = coefficients(example)
    red = standardised(own, siblings=[other], **kept)
    blue = standardised(other, siblings=[own], **kept)
    assert red.t1_mag == pytest.approx([want["V"]], abs=SIX_DECIMALS)
    assert red.t1_mag == pytest.approx([want["V_ccdguide_form"]], abs=SIX_DECIMALS)
    assert blue.t1_mag == pytest.approx([want["B"]], abs=SIX_DECIMALS)
    assert (red.method, red.transformed) == ("two-filter", True)


def test_two_filters_with_an_ensemble_and_the_check_star(example):
    own, other = one_frame(example, "V"), one_frame(example, "B")
    kept = coefficients(example)
    red = standardised(own, siblings=[other], **kept)
    blue = standardised(other, siblings=[own], **kept)
    want, check = (example["results"][key] for key in ("two_filter_ensemble", "two_filter_check"))
    assert red.t1_mag == pytest.approx([want["V_mean"]], abs=SIX_DECIMALS)
    assert blue.t1_mag == pytest.approx([want["B_mean"]], abs=FIVE_DECIMALS)  # printed with five
    assert red.t2_mag == pytest.approx([check["V"]], abs=SIX_DECIMALS)
    assert red.check_offset_mag == pytest.approx(check["minus_cat"], abs=SIX_DECIMALS)


def test_one_filter_with_a_catalogue_colour(example):
    want = example["results"]["one_filter_catalogue_colour"]
    comp = example["comps"][position(example, "000-BMS-017")]
    got = standardised(
        one_frame(example, only="000-BMS-017"),
        supplied(example, want["assumed_BV"], want["err_BV"]),
        merr="total",
    )
    assert got.t1_mag == pytest.approx([want["V"]], abs=SIX_DECIMALS)
    without_catalogue = np.sqrt(got.t1_merr_mag**2 - comp["eV"] ** 2)  # TA leaves it out
    assert without_catalogue == pytest.approx([want["V_err"]], abs=5 * SIX_DECIMALS)


# ----------------------------------------------------------------------------- colour regression


def regression(example, comps, kept=slice(None)):
    return fit_colour_term(
        (comps["V"] - comps["v"])[kept],
        np.hypot(comps["sv"], comps["eV"])[kept],
        (comps["B"] - comps["V"])[kept],
    )


def of_target(example, fit):
    return example["target"]["v"] + fit.zero_point + fit.coefficient * (0.35 - fit.mean_colour)


def test_colour_regression_with_all_six(example, comps):
    fit = regression(example, comps)
    got = {
        "mean_BV": fit.mean_colour,
        "zp": fit.zero_point,
        "T": fit.coefficient,
        "zp_err": fit.zero_point_error,
        "T_err": fit.coefficient_error,
        "rms": fit.rms,
        "V_target": of_target(example, fit),
    }
    assert got == pytest.approx(example["results"]["regression_clean"], abs=SIX_DECIMALS)


def test_colour_regression_without_the_check_star(example, comps):
    want = example["results"]["regression_clean_without_check"]
    fit = regression(example, comps, not_check(example))
    got = (fit.zero_point, fit.coefficient, of_target(example, fit))
    assert got == pytest.approx((want["zp"], want["T"], want["V_target"]), abs=SIX_DECIMALS)


def test_the_same_regression_on_the_night_s_own_comps(example):
    """No coefficient stored, colour_fit asked for: zp, T and V, and TRANS=NO."""
    want = example["results"]["regression_clean_without_check"]
    transformation = supplied(example, 0.35, 0.1, coefficient=None, coefficient_error=None)
    got = standardised(one_frame(example), transformation, colour_fit=True)
    assert got.t1_mag == pytest.approx([want["V_target"]], abs=SIX_DECIMALS)
    assert got.zero_point_mag == pytest.approx([want["zp"]], abs=SIX_DECIMALS)
    assert got.transformation.coefficient == pytest.approx(want["T"], abs=SIX_DECIMALS)
    assert (got.method, got.transformed) == ("colour-fit", False)
    assert got.transformation.source == "fit to 5 comps of the night, not to standards"
    assert standardised(one_frame(example), NO_COLOUR).method == "ensemble"


def test_a_spoiled_comp_is_weighted_down_and_dropped(example, comps):
    want = example["results"]["regression_outlier"]
    zero_points = comps["V"] - comps["v"]
    zero_points[position(example, want["spoiled"])] += want["spoiled_by"]
    arguments = (zero_points, np.hypot(comps["sv"], comps["eV"]), comps["B"] - comps["V"])
    plain = fit_colour_term(*arguments)
    huber = fit_colour_term_huber(*arguments)
    refit = fit_colour_term_clipped(*arguments)
    for fit, key in ((plain, "plain"), (huber, "huber"), (refit, "clipped_refit")):
        assert (fit.zero_point, fit.coefficient) == pytest.approx(
            (want[key]["zp"], want[key]["T"]), abs=SIX_DECIMALS
        )
    assert huber.weights == pytest.approx(want["huber"]["weights"], abs=FOUR_DECIMALS)
    assert sum(refit.weights) == want["clipped_refit"]["n"]
    assert of_target(example, refit) == pytest.approx(
        want["clipped_refit"]["V_target"], abs=SIX_DECIMALS
    )


def test_extinction(example):
    want = example["results"]["extinction"]
    x_star, x_comp = np.array(want["X_var"]), np.array(want["X_comp"])
    first = first_order_extinction(want["k1_V"], x_star, x_comp)
    assert first == pytest.approx(want["first_order_correction"], abs=SIX_DECIMALS)
    assert abs(x_star - x_comp) < MIN_AIRMASS_DIFFERENCE
