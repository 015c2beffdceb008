"""Standard magnitudes: the worked example, laws, and nights of known truth."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wombat_dagster import domain
from wombat_dagster.science import quality, standard

GOLDEN = Path(__file__).parents[1] / "golden" / "stdmag_example.json"
SIX_DECIMALS = 5.1e-7
FOUR_DECIMALS = 5.1e-5

Flag = domain.Flag
NO_COLOUR = domain.Transformation()


# ------------------------------------------------------------------------- the worked example


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


def ensemble_mask(example):
    return np.array([comp["auid"] != example["check"] for comp in example["comps"]])


def test_example_single_comp(example):
    want = example["results"]["single_untransformed"]
    comp = example["comps"][position(example, want["comp"])]
    target = example["target"]
    magnitude = standard.single_comp_magnitude(target["v"], comp["v"], comp["V"])
    error = standard.transformed_error(
        target["sv"],
        comp["sv"],
        coefficient=0.0,
        coefficient_error=0.0,
        colour_difference=0.0,
        colour_error=0.0,
    )
    assert magnitude == pytest.approx(want["V"], abs=SIX_DECIMALS)
    assert error == pytest.approx(want["merr"], abs=SIX_DECIMALS)
    assert np.hypot(error, comp["eV"]) == pytest.approx(want["merr_with_cat"], abs=SIX_DECIMALS)


def test_example_ensemble_zero_point(example, comps):
    want = example["results"]["ensemble_zp"]
    kept = ensemble_mask(example)
    zero = standard.ensemble_zero_point(
        comps["v"][kept], comps["sv"][kept], comps["V"][kept], comps["eV"][kept]
    )
    target = example["target"]
    got = {
        "zp_mean": zero.mean,
        "zp_median": zero.median,
        "zp_weighted": zero.weighted,
        "zp_std": zero.sd,
        "zp_sem": zero.sem,
        "zp_weighted_err": zero.weighted_error,
        "V_target_mean": target["v"] + zero.mean,
        "V_target_weighted": target["v"] + zero.weighted,
        "merr_mean": np.hypot(target["sv"], zero.sem),
        "V_check": comps["v"][~kept][0] + zero.mean,
    }
    assert got == pytest.approx({key: want[key] for key in got}, abs=SIX_DECIMALS)


def test_example_aij_magnitude(example, comps):
    kept = ensemble_mask(example)
    target, want = example["target"], example["results"]["aij_style"]
    flux = 10 ** (-0.4 * comps["v"][kept])
    star = 10 ** (-0.4 * target["v"])
    relative = np.log(10) / 2.5
    got = standard.aij_magnitude(
        star, star * target["sv"] * relative, flux, flux * comps["sv"][kept] * relative,
        comps["V"][kept],
    )  # fmt: skip
    assert got == pytest.approx((want["AMag"], want["AMag_Err"]), abs=SIX_DECIMALS)


def each_two_filter_case(example):
    cases = example["results"]["two_filter_each_comp"]
    return [(case, example["comps"][position(example, case["comp"])]) for case in cases]


def test_example_two_filters_iterated_with_each_comp(example):
    star, t = example["target"], example["coefficients"]
    for want, comp in each_two_filter_case(example):
        got = standard.two_filter_magnitudes(
            (star["b"], star["v"]), (comp["b"], comp["v"]), (comp["B"], comp["V"]),
            blue_coefficient=t["Tb_bv"], red_coefficient=t["Tv_bv"], tolerance_mag=1e-10,
        )  # fmt: skip
        assert got.rounds == want["iterations"]
        assert (got.blue, got.red, got.colour_difference) == pytest.approx(
            (want["B"], want["V"], want["delta_BV"]), abs=SIX_DECIMALS
        )
        errors = standard.two_filter_errors(
            (star["sb"], star["sv"]), (comp["sb"], comp["sv"]),
            blue_coefficient=standard.Coefficient(value=t["Tb_bv"], error=t["rTb_bv"]),
            red_coefficient=standard.Coefficient(value=t["Tv_bv"], error=t["rTv_bv"]),
            colour_difference=got.colour_difference,
        )  # fmt: skip
        assert errors == pytest.approx((want["B_err"], want["V_err"]), abs=SIX_DECIMALS)


def test_example_two_filters_in_closed_form_and_in_the_guide_s(example):
    star, t = example["target"], example["coefficients"]
    for want, comp in each_two_filter_case(example):
        got = standard.two_filter_closed_form(
            (star["b"], star["v"]), (comp["b"], comp["v"]), (comp["B"], comp["V"]),
            blue_coefficient=t["Tb_bv"], red_coefficient=t["Tv_bv"],
        )  # fmt: skip
        assert (got.blue, got.red) == pytest.approx((want["B"], want["V"]), abs=SIX_DECIMALS)
        guide = standard.guide_form_magnitude(
            star["v"], comp["v"], comp["V"],
            coefficient=t["Tv_bv"], colour_coefficient=t["Tbv"],
            instrumental_colour_difference=(star["b"] - star["v"]) - (comp["b"] - comp["v"]),
        )  # fmt: skip
        assert guide == pytest.approx(want["V_ccdguide_form"], abs=SIX_DECIMALS)


def two_filter_ensemble(example, star):
    kept = ensemble_mask(example)
    t = example["coefficients"]
    return [
        standard.two_filter_closed_form(
            (star["b"], star["v"]), (comp["b"], comp["v"]), (comp["B"], comp["V"]),
            blue_coefficient=t["Tb_bv"], red_coefficient=t["Tv_bv"],
        )
        for comp, keep in zip(example["comps"], kept, strict=True)
        if keep
    ]  # fmt: skip


def test_example_two_filters_with_an_ensemble(example):
    want = example["results"]["two_filter_ensemble"]
    each = two_filter_ensemble(example, example["target"])
    red = np.array([one.red for one in each])
    assert red.mean() == pytest.approx(want["V_mean"], abs=SIX_DECIMALS)
    assert red.std(ddof=1) / np.sqrt(5) == pytest.approx(want["V_sem"], abs=SIX_DECIMALS)
    assert np.mean([one.blue for one in each]) == pytest.approx(want["B_mean"], abs=SIX_DECIMALS)


def test_example_two_filters_bring_the_check_star_home(example):
    check = example["comps"][position(example, example["check"])]
    each = two_filter_ensemble(example, check)
    want = example["results"]["two_filter_check"]
    assert np.mean([one.red for one in each]) == pytest.approx(want["V"], abs=SIX_DECIMALS)


def test_example_one_filter_with_a_catalogue_colour(example):
    want = example["results"]["one_filter_catalogue_colour"]
    comp = example["comps"][position(example, "000-BMS-017")]
    target, t = example["target"], example["coefficients"]
    difference = want["assumed_BV"] - (comp["B"] - comp["V"])
    magnitude = standard.one_filter_magnitude(
        target["v"], comp["v"], comp["V"], coefficient=t["Tv_bv"], colour_difference=difference
    )
    error = standard.transformed_error(
        target["sv"], comp["sv"],
        coefficient=t["Tv_bv"], coefficient_error=t["rTv_bv"],
        colour_difference=difference, colour_error=want["err_BV"],
    )  # fmt: skip
    assert (magnitude, error) == pytest.approx((want["V"], want["V_err"]), abs=SIX_DECIMALS)


def test_example_colour_regression_with_all_six(example, comps):
    want = example["results"]["regression_clean"]
    fit = standard.fit_colour_term(
        comps["V"] - comps["v"], np.hypot(comps["sv"], comps["eV"]), comps["B"] - comps["V"]
    )
    got = {
        "mean_BV": fit.mean_colour,
        "zp": fit.zero_point,
        "T": fit.coefficient,
        "zp_err": fit.zero_point_error,
        "T_err": fit.coefficient_error,
        "rms": fit.rms,
        "V_target": fit.magnitude(example["target"]["v"], 0.35),
    }
    assert got == pytest.approx(want, abs=SIX_DECIMALS)


def test_example_colour_regression_without_the_check_star(example, comps):
    want = example["results"]["regression_clean_without_check"]
    kept = ensemble_mask(example)
    fit = standard.fit_colour_term(
        (comps["V"] - comps["v"])[kept],
        np.hypot(comps["sv"], comps["eV"])[kept],
        (comps["B"] - comps["V"])[kept],
    )
    got = (fit.zero_point, fit.coefficient, fit.magnitude(example["target"]["v"], 0.35))
    assert got == pytest.approx((want["zp"], want["T"], want["V_target"]), abs=SIX_DECIMALS)


def test_example_a_spoiled_comp_is_weighted_down_and_dropped(example, comps):
    want = example["results"]["regression_outlier"]
    zero_points = comps["V"] - comps["v"]
    zero_points[position(example, want["spoiled"])] += want["spoiled_by"]
    arguments = (zero_points, np.hypot(comps["sv"], comps["eV"]), comps["B"] - comps["V"])
    plain = standard.fit_colour_term(*arguments)
    huber = standard.fit_colour_term_huber(*arguments)
    refit = standard.fit_colour_term_clipped(*arguments)
    for fit, key in ((plain, "plain"), (huber, "huber"), (refit, "clipped_refit")):
        assert (fit.zero_point, fit.coefficient) == pytest.approx(
            (want[key]["zp"], want[key]["T"]), abs=SIX_DECIMALS
        )
    assert huber.weights == pytest.approx(want["huber"]["weights"], abs=FOUR_DECIMALS)
    assert sum(refit.weights) == want["clipped_refit"]["n"]
    assert refit.magnitude(example["target"]["v"], 0.35) == pytest.approx(
        want["clipped_refit"]["V_target"], abs=SIX_DECIMALS
    )


def test_example_extinction(example):
    want = example["results"]["extinction"]
    x_star, x_comp = want["X_var"], want["X_comp"]
    first = standard.first_order_extinction(want["k1_V"], x_star, x_comp)
    assert first == pytest.approx(want["first_order_correction"], abs=SIX_DECIMALS)
    second = standard.second_order_extinction(want["k2_B"], 0.35, x_star, 0.206, x_comp)
    assert second == pytest.approx(want["second_order_B"], abs=SIX_DECIMALS)
    assert not standard.extinction_matters(x_star, x_comp)


def test_a_free_colour_term_needs_five_comps_over_four_tenths():
    assert standard.may_free_colour_term(np.array([0.2, 0.3, 0.4, 0.5, 0.6]))
    assert not standard.may_free_colour_term(np.array([0.2, 0.3, 0.4, 0.6]))
    assert not standard.may_free_colour_term(np.array([0.2, 0.3, 0.4, 0.5, 0.55]))


# ------------------------------------------------------------------------ tables made by hand


def star(role, mag=None, error=0.02, colour=None):
    return domain.ApertureStar(
        role=role,
        name=role,
        auid=f"000-{role}",
        ra_deg=10.0,
        dec_deg=20.0,
        catalogue_mag=mag,
        catalogue_error_mag=error,
        colour=colour,
    )


def table(stars, source_adu, error_adu, *, exposure_s=None, altitude_deg=60.0, **changes):
    """A night of `source_adu`, shape (n_frames, n_stars), gain 2 unless `changes` say so."""
    source = np.asarray(source_adu, dtype=float)
    n_frames = len(source)
    error = np.broadcast_to(np.asarray(error_adu, dtype=float), source.shape)
    quiet = {name: np.ones(source.shape) for name in domain.StarMeasurements.__slots__}
    measured = domain.StarMeasurements(
        **quiet
        | {
            "source_sky_adu": source,
            "source_error_adu": error,
            "snr": source / np.where(error > 0, error, np.nan),
            "flags": np.zeros(source.shape, dtype=np.int64),
        }
    )
    jd = 2460963.5 + np.arange(n_frames) / 1000
    times = domain.FrameTimes(
        jd_start_utc=jd,
        jd_utc=jd,
        hjd_utc=jd,
        bjd_tdb=jd,
        altitude_deg=np.full(n_frames, altitude_deg),
        airmass=np.full(n_frames, 1.2),
    )
    fields = {
        "target": "TX Eri",
        "filter": "V",
        "band": "V",
        "comp_band": "V",
        "band_confirmed": True,
        "chart_id": "X12345ABC",
        "variable": domain.Variable(name="TX Eri", ra_deg=10.0, dec_deg=20.0),
        "labels": tuple(f"frame{i}.fits" for i in range(n_frames)),
        "raw_hashes": tuple(f"hash{i}" for i in range(n_frames)),
        "times": times,
        "exposure_s": np.full(n_frames, 30.0) if exposure_s is None else exposure_s,
        "ccd_temperature_c": np.full(n_frames, -20.0),
        "frame_fwhm_px": np.full(n_frames, 3.0),
        "stars": tuple(stars),
        "measured": measured,
        "aperture": domain.Aperture(radius_px=5.0, sky_inner_px=10.0, sky_outer_px=20.0),
        "frame_height_px": 1024,
        "gain_e_adu": 2.0,
        "read_noise_e": 8.0,
        "saturation_adu": 60000.0,
        "linearity_adu": 30000.0,
        "ledger": (),
    }
    return domain.PhotometryTable(**fields | changes)


def with_flag(night, frame, index, flag):
    flags = night.measured.flags.copy()
    flags[frame, index] |= flag
    measured = dataclasses.replace(night.measured, flags=flags)
    return dataclasses.replace(night, measured=measured)


def with_source(night, source):
    measured = dataclasses.replace(night.measured, source_sky_adu=source)
    return dataclasses.replace(night, measured=measured)


STARS = (
    star("T1"),
    star("T2", 12.0),
    star("C3", 11.0, 0.01, 0.4),
    star("C4", 11.5, 0.02, 0.6),
    star("C5", 12.3, 0.03, 1.1),
)
ZERO_POINT = 21.0


def noisy_night(n_frames=60, seed=1, stars=STARS, **changes):
    """A night with drifting transparency, 5 mmag noise, comps off their catalogue magnitudes."""
    rng = np.random.default_rng(seed)
    truth = np.array([11.2] + [s.catalogue_mag for s in stars[1:]])
    truth = truth + np.where([s.role.startswith("C") for s in stars], rng.normal(0, 0.02), 0)
    dim = 0.3 * np.sin(np.linspace(0, 3, n_frames))[:, None]
    flux = 30.0 * 10 ** (-0.4 * (truth + dim - ZERO_POINT))
    error = np.full(flux.shape, 0.005) * flux / 1.0857
    return table(stars, flux + rng.normal(size=flux.shape) * error, error, **changes)


def standardised(night, transformation=NO_COLOUR, **options):
    return standard.standardise(night, transformation=transformation, **options)


# ------------------------------------------------------------------------------ one night, by hand


def test_plain_mean_of_the_comps_by_hand():
    """C3 gives 21.02, C4 20.98: mean 21.00; T1 of 100 counts/s is -5.0, hence 16.0."""
    stars = (star("T1"), star("C2", 11.0, 0.03), star("C3", 12.0, 0.04))
    flux = 10.0 * np.array([[100.0, 10 ** (0.4 * 10.02), 10 ** (0.4 * 8.98)]])
    night = table(stars, flux, flux / 100, exposure_s=np.array([10.0]))
    got = standardised(night)
    assert got.t1_instrumental_mag == pytest.approx([-5.0])
    assert got.zero_point_mag == pytest.approx([21.0])
    assert got.t1_mag == pytest.approx([16.0])
    sigma = 2.5 / np.log(10) / 100
    # two comps: formal, sqrt(2 σ²)/2, in quadrature with T1's own σ
    assert got.zero_point_random_mag == pytest.approx([sigma / np.sqrt(2)])
    assert got.t1_random_mag == pytest.approx([sigma * np.sqrt(1.5)])
    # χ²_red = (0.02/0.03)² + (0.02/0.04)² < 1: the quoted errors hold
    assert got.zp_err_mag == pytest.approx(0.05 / 2)
    assert got.ensemble_reference_mag == pytest.approx(11.5)
    assert (got.method, got.transformed, got.comp_names) == (
        "ensemble",
        False,
        ("000-C2", "000-C3"),
    )
    assert "nocheck" in got.notes


def test_comps_that_disagree_enlarge_the_level_error():
    """Night means ±0.1 about their own, e = 0.02 each: χ²_red = 50, 0.02/√2 times √50 = 0.1."""
    assert standard.level_error(np.array([0.1, -0.1]), np.array([0.02, 0.02])) == pytest.approx(0.1)
    assert standard.level_error(np.array([0.01, -0.01]), np.array([0.02, 0.02])) == pytest.approx(
        0.02 / np.sqrt(2)
    )
    assert standard.level_error(np.array([0.0]), np.array([0.03])) == pytest.approx(0.03)


def test_random_error_of_three_comps_is_their_scatter_about_their_night_means():
    """Worked by hand: two frames; the comps' deviations are ±(0.01, 0, -0.01).

    sd over comps 0.01, enlarged by sqrt(2/1) because the means come from these two frames.
    """
    deviation = np.array([0.01, 0.0, -0.01])
    zero_points = np.array([21.0, 21.3, 20.7]) + np.array([deviation, -deviation])
    zero = standard.night_zero_point(zero_points, np.full((2, 3), 0.005))
    assert zero.zero_point_mag == pytest.approx([21.0, 21.0])
    assert zero.residual_mag == pytest.approx([0.0, 0.3, -0.3])
    assert zero.deviation_mag == pytest.approx(np.array([deviation, -deviation]))
    assert zero.random_mag == pytest.approx([0.01 * np.sqrt(2 / 3)] * 2)


def test_three_comps_that_agree_by_luck_have_the_formal_error():
    """The second frame's comps lie just where their night means are."""
    lone = np.array([0.04, 0.0, -0.04])
    zero_points = 21.0 + np.array([lone, 0 * lone, -lone])
    zero = standard.night_zero_point(zero_points, np.full((3, 3), 0.006))
    assert zero.random_mag[1] == pytest.approx(0.006 / np.sqrt(3))
    assert zero.random_mag[0] == pytest.approx(0.04 * np.sqrt(1.5) / np.sqrt(3))


@pytest.mark.parametrize("factor", [0.2, 1.0, 30.0])
def test_formal_errors_that_lack_a_factor_get_it_from_the_comps(factor):
    rng = np.random.default_rng(2)
    zero_points = 21.0 + rng.normal(0, 0.01, (400, 3))
    zero = standard.night_zero_point(
        zero_points, np.full((400, 3), 0.01 * factor), errors_known=False
    )
    # half of the frames lie at the median of a two-degree scatter, sqrt(ln 2) σ
    assert zero.random_mag.min() == pytest.approx(0.01 / np.sqrt(3) * np.sqrt(np.log(2)), rel=0.15)
    assert np.median(zero.random_mag) == pytest.approx(zero.random_mag.min(), rel=0.02)


def test_a_single_frame_has_formal_zero_point_errors():
    zero = standard.night_zero_point(np.array([[21.0, 21.3, 20.7]]), np.full((1, 3), 0.03))
    assert zero.random_mag == pytest.approx([np.sqrt(3) * 0.03 / 3])


def test_two_comps_have_formal_zero_point_errors():
    """Two comps' scatter is no estimate: sqrt(0.03² + 0.04²)/2, whatever they do."""
    zero_points = 21.0 + np.array([[0.1, -0.1], [-0.1, 0.1], [0.0, 0.0]])
    zero = standard.night_zero_point(zero_points, np.tile([0.03, 0.04], (3, 1)))
    assert zero.random_mag == pytest.approx([0.025] * 3)


def test_one_comp_is_single():
    night = noisy_night(stars=STARS[:3])
    got = standardised(night)
    assert got.method == "single"
    assert got.zp_err_mag == pytest.approx(0.01)  # C3's catalogue error
    assert np.all(got.n_comps == 1)


def test_no_comp_is_no_standard():
    with pytest.raises(domain.NoStandard, match="no comp of 0"):
        standardised(table(STARS[:2], [[1e4, 1e4]], 100.0))
    nameless = (*STARS[:2], star("C3"))
    with pytest.raises(domain.NoStandard, match="no comp of 1 has a catalogue magnitude in V"):
        standardised(table(nameless, [[1e4, 1e4, 1e4]], 100.0))


def test_comps_saturated_on_every_frame_are_no_standard():
    night = with_flag(noisy_night(stars=STARS[:3]), slice(None), 2, Flag.SATURATED)
    with pytest.raises(domain.NoStandard, match="none of 1 comps was measured unsaturated"):
        standardised(night)


def test_a_variable_that_was_never_measured_is_no_standard():
    night = with_flag(noisy_night(n_frames=4), slice(None), 0, Flag.UNMEASURED)
    with pytest.raises(domain.NoStandard, match="on none of 4 frames"):
        standardised(night)


# --------------------------------------------------------------------------------------- laws


@settings(deadline=None)  # a busy machine is no failure
@given(factor=st.floats(0.1, 10))
def test_counts_that_scale_shift_the_instrumental_magnitude_only(factor):
    night = noisy_night(n_frames=5)
    measured = dataclasses.replace(
        night.measured,
        source_sky_adu=night.measured.source_sky_adu * factor,
        source_error_adu=night.measured.source_error_adu * factor,
    )
    before, after = standardised(night), standardised(dataclasses.replace(night, measured=measured))
    np.testing.assert_allclose(after.t1_mag, before.t1_mag, rtol=0, atol=1e-9)
    shift = after.t1_instrumental_mag - before.t1_instrumental_mag
    np.testing.assert_allclose(shift, -2.5 * np.log10(factor), rtol=0, atol=1e-9)


@settings(deadline=None)  # a busy machine is no failure
@given(factor=st.floats(0.5, 2))
def test_a_brighter_variable_is_brighter_by_just_that(factor):
    night = noisy_night(n_frames=5)
    source = night.measured.source_sky_adu.copy()
    source[:, 0] *= factor
    shift = standardised(with_source(night, source)).t1_mag - standardised(night).t1_mag
    np.testing.assert_allclose(shift, -2.5 * np.log10(factor), rtol=0, atol=1e-9)


@settings(deadline=None)  # a busy machine is no failure
@given(factor=st.floats(0.01, 100), offset=st.floats(-3, 3))
def test_the_check_star_never_touches_the_variable_s_magnitude(factor, offset):
    night = noisy_night(n_frames=5)
    source = night.measured.source_sky_adu.copy()
    source[:, 1] *= factor
    other = (night.stars[0], star("T2", 12.0 + offset), *night.stars[2:])
    changed = dataclasses.replace(with_source(night, source), stars=other)
    before, after = standardised(night), standardised(changed)
    np.testing.assert_array_equal(after.t1_mag, before.t1_mag)
    np.testing.assert_array_equal(after.zero_point_mag, before.zero_point_mag)
    assert after.zp_err_mag == before.zp_err_mag


@settings(deadline=None)  # a busy machine is no failure
@given(order=st.permutations([2, 3, 4]))
def test_the_order_of_the_comps_does_not_matter(order):
    night = with_flag(noisy_night(n_frames=20), 7, 3, Flag.SATURATED)
    order = [0, 1, *order]
    shuffled = dataclasses.replace(
        night,
        stars=tuple(
            dataclasses.replace(night.stars[i], role=night.stars[place].role)
            for place, i in enumerate(order)
        ),
        measured=night.measured.stars(order),
    )
    before, after = standardised(night), standardised(shuffled)
    for name in ("t1_mag", "t1_random_mag", "t1_merr_mag", "t2_mag", "zero_point_mag"):
        np.testing.assert_allclose(getattr(after, name), getattr(before, name), atol=1e-10)
    assert after.zp_err_mag == pytest.approx(before.zp_err_mag, abs=1e-12)


@pytest.mark.parametrize("how", ["nan", "saturated", "masked"])
def test_a_comp_that_drops_out_of_half_the_frames_makes_no_step(how):
    """The catalogue magnitude of C5 is 0.3 mag wrong; noise-free, so that any step shows."""
    stars = (*STARS[:4], star("C5", 12.6))
    truth = np.array([11.2, 12.0, 11.0, 11.5, 12.3])
    flux = np.tile(30.0 * 10 ** (-0.4 * (truth - ZERO_POINT)), (40, 1))
    night = table(stars, flux, flux / 300)
    whole = standardised(night)
    missing = slice(20, None)
    if how == "nan":
        flux = flux.copy()
        flux[missing, 4] = np.nan
        partly = with_source(night, flux)
    else:
        flag = Flag.SATURATED if how == "saturated" else Flag.BAD_PIXEL
        partly = with_flag(night, missing, 4, flag)
    got = standardised(partly)
    np.testing.assert_allclose(got.t1_mag, whole.t1_mag, rtol=0, atol=1e-9)
    assert list(got.n_comps) == [3] * 20 + [2] * 20
    assert got.zp_err_mag == pytest.approx(whole.zp_err_mag)


def test_two_sets_of_comps_that_never_share_a_frame_keep_their_catalogue_levels():
    zero_points = np.array([[21.1, np.nan], [21.1, np.nan], [np.nan, 20.9]])
    zero = standard.night_zero_point(zero_points, np.full((3, 2), 0.01))
    assert zero.zero_point_mag == pytest.approx([21.1, 21.1, 20.9])
    assert zero.residual_mag == pytest.approx([0, 0], abs=1e-12)


def test_a_frame_without_any_comp_has_no_magnitude_and_says_so():
    night = noisy_night(n_frames=6)
    for comp in (2, 3, 4):
        night = with_flag(night, 3, comp, Flag.SATURATED)
    got = standardised(night)
    assert np.isnan(got.t1_mag[3])
    assert np.isnan(got.t1_merr_mag[3])
    assert np.isnan(got.t2_mag[3])
    assert np.isfinite(np.delete(got.t1_mag, 3)).all()
    assert got.proposed_rejected[3] == quality.NO_ZERO_POINT
    assert got.n_comps[3] == 0


@pytest.mark.parametrize("error_adu", [0.0, 1e-6, 50.0])
@pytest.mark.parametrize("n_frames", [1, 2, 30])
@pytest.mark.parametrize("merr", ["random", "total"])
def test_no_error_is_ever_zero(error_adu, n_frames, merr):
    flux = 30.0 * 10 ** (-0.4 * (np.array([11.2, 12.0, 11.0, 11.5, 12.3]) - ZERO_POINT))
    night = table(STARS, np.tile(flux, (n_frames, 1)), error_adu)
    got = standardised(night, merr=merr)
    errors = (got.t1_random_mag, got.t1_merr_mag, got.t2_random_mag, got.zero_point_random_mag)
    for error in (*errors, np.array([got.zp_err_mag])):
        assert np.all(error >= 0.001)


def test_total_adds_the_level_error_in_quadrature():
    night = noisy_night()
    random, total = standardised(night), standardised(night, merr="total")
    np.testing.assert_allclose(
        total.t1_merr_mag, np.hypot(random.t1_merr_mag, random.zp_err_mag), rtol=1e-12
    )
    np.testing.assert_array_equal(total.t1_random_mag, random.t1_random_mag)


def test_the_check_star_s_scatter_scaled_to_the_variable_is_a_floor():
    """Formal errors half of what they should be: MERR follows the scatter of T2, `random` not."""
    night = noisy_night(n_frames=200)
    source_error = night.measured.source_error_adu.copy()
    source_error /= 2
    source_error[:, 0] *= 3  # T1's formal error is three times T2's
    measured = dataclasses.replace(night.measured, source_error_adu=source_error)
    got = standardised(dataclasses.replace(night, measured=measured))
    assert np.median(got.t1_merr_mag) == pytest.approx(3 * got.check_scatter_mag, rel=0.02)
    assert np.median(got.t1_random_mag) < np.median(got.t1_merr_mag)


def test_the_scatter_of_a_few_frames_is_no_evidence():
    """Four frames, T2 all over the place: neither held nor quoted, five frames are both."""
    flux = 30.0 * 10 ** (-0.4 * (np.array([11.2, 12.0, 11.0, 11.5, 12.3]) - ZERO_POINT))
    source = np.tile(flux, (5, 1))
    source[:, 1] *= [1.0, 1.04, 0.96, 1.03, 0.97]
    few = standardised(table(STARS, source[:4], flux / 300))
    assert few.held_reason is None
    np.testing.assert_array_equal(few.t1_merr_mag, few.t1_random_mag)
    enough = standardised(table(STARS, source, flux / 300))
    assert "scatters by" in enough.held_reason
    assert np.all(enough.t1_merr_mag > 3 * enough.t1_random_mag)


def test_without_a_gain_the_errors_come_from_the_check_star():
    formal = noisy_night(n_frames=200, gain_e_adu=None)
    measured = dataclasses.replace(
        formal.measured, source_error_adu=formal.measured.source_error_adu * 10
    )
    got = standardised(dataclasses.replace(formal, measured=measured))
    assert np.median(got.t1_random_mag) == pytest.approx(got.check_scatter_mag, rel=0.02)
    assert any(note.startswith("gain unknown") for note in got.notes)


def with_pedestal(night, *, removed):
    """The same counts whose errors took a pedestal for photons: ten times too large."""
    measured = dataclasses.replace(
        night.measured, source_error_adu=night.measured.source_error_adu * 10
    )
    return dataclasses.replace(night, measured=measured, pedestal_removed=removed)


def test_with_a_pedestal_in_the_sky_the_errors_come_from_the_check_star():
    got = standardised(with_pedestal(noisy_night(n_frames=200), removed=False))
    fooled = standardised(with_pedestal(noisy_night(n_frames=200), removed=True))
    assert np.median(got.t1_random_mag) == pytest.approx(got.check_scatter_mag, rel=0.02)
    assert np.median(fooled.t1_random_mag) > 8 * got.check_scatter_mag
    assert np.median(got.zero_point_random_mag) == pytest.approx(0.005 / np.sqrt(3), rel=0.2)
    (note,) = [note for note in got.notes if note.startswith("bias not subtracted")]
    assert note.endswith(f"check star's scatter, {got.check_scatter_mag:.4f} mag")


def test_a_pedestal_makes_no_upper_limit_of_a_star_at_snr_10():
    """Formal SNR 1, ten times too small; T2 tells by how much."""
    stars = (*STARS[:4], star("C5", 22.0))
    night = noisy_night(n_frames=200, stars=stars)
    source, error = night.measured.source_sky_adu.copy(), night.measured.source_error_adu.copy()
    source[:, 0], error[:, 0] = 100.0, 10.0
    measured = dataclasses.replace(night.measured, source_sky_adu=source, source_error_adu=error)
    night = dataclasses.replace(night, measured=measured)
    assert standardised(with_pedestal(night, removed=True)).t1_upper_limit.all()
    assert not standardised(with_pedestal(night, removed=False)).t1_upper_limit.any()
    source[:, 0] = 20.0  # SNR 2
    assert standardised(with_pedestal(night, removed=False)).t1_upper_limit.all()


# ------------------------------------------------------------------------------- missing values


@pytest.mark.parametrize("unknown", [None, 0.0, float("nan")])
def test_a_catalogue_error_that_is_not_given_counts_as_five_hundredths(unknown):
    stars = (*STARS[:2], star("C3", 11.0, unknown))
    got = standardised(noisy_night(stars=stars))
    assert got.zp_err_mag == pytest.approx(0.05)
    assert "comp without catalogue error: 000-C3, 0.05 mag taken" in got.notes


def test_a_star_below_snr_3_is_an_upper_limit():
    """Gain 2, error 10 ADU without a star: F/√(F/2 + 100) = 3 where F = 32.33, by hand."""
    night = noisy_night(n_frames=3, stars=(*STARS[:4], star("C5", 22.0)))
    source, error = (
        night.measured.source_sky_adu.copy(),
        night.measured.source_error_adu.copy(),
    )
    source[:, 0] = [-4.0, 20.0, 40.0]
    error[:, 0] = [10.0, np.sqrt(100 + 20 / 2), np.sqrt(100 + 40 / 2)]
    measured = dataclasses.replace(night.measured, source_sky_adu=source, source_error_adu=error)
    got = standardised(dataclasses.replace(night, measured=measured))
    assert list(got.t1_upper_limit) == [True, True, False]
    three_sigma = (4.5 + np.sqrt(4.5**2 + 3600)) / 2
    want = got.zero_point_mag[:2] - 2.5 * np.log10(three_sigma / 30.0)
    np.testing.assert_allclose(got.t1_mag[:2], want, rtol=0, atol=1e-9)
    assert np.isnan(got.t1_merr_mag[:2]).all()
    assert np.isfinite(got.t1_merr_mag[2])


def test_an_upper_limit_is_not_fainter_than_the_faintest_comp():
    night = noisy_night(n_frames=3)
    source = night.measured.source_sky_adu.copy()
    source[:, 0] = 0.0
    got = standardised(with_source(night, source))
    assert list(got.t1_mag) == [12.3] * 3


def test_a_masked_comp_counts_where_no_other_is_clean():
    night = noisy_night(n_frames=10)
    for comp in (2, 3, 4):
        night = with_flag(night, slice(None), comp, Flag.BAD_PIXEL)
    assert np.all(standardised(night).n_comps == 3)


# ---------------------------------------------------------------------------------- colour terms

TV_BV = domain.Transformation(
    coefficient_name="Tv_bv",
    coefficient=-0.06,
    coefficient_error=0.005,
    colour_index="B-V",
    target_colour=0.35,
    target_colour_error=0.1,
    source="configuration",
)


def coloured_night(stars, target_colour, coefficient=-0.06, n_frames=4):
    """Noise-free: V - v = 21 + T (B-V) exactly."""
    mags = np.array([9.8] + [s.catalogue_mag for s in stars[1:]])
    colours = np.array(
        [target_colour] + [s.colour if s.colour is not None else 0.5 for s in stars[1:]]
    )
    flux = 30.0 * 10 ** (-0.4 * (mags - ZERO_POINT - coefficient * colours))
    return table(stars, np.tile(flux, (n_frames, 1)), flux / 300)


COLOURED = (star("T1"), star("T2", 12.0, 0.02, 0.9), *STARS[2:])


def test_a_colour_term_brings_variable_and_check_star_home():
    got = standardised(coloured_night(COLOURED, 0.35), TV_BV)
    assert got.t1_mag == pytest.approx([9.8] * 4, abs=1e-9)
    assert got.check_offset_mag == pytest.approx(0, abs=1e-9)
    assert (got.transformed, got.method) == (True, "ensemble+colour")


def test_without_the_colour_term_the_variable_is_off_by_its_colour():
    got = standardised(coloured_night(COLOURED, 0.35), NO_COLOUR)
    assert got.t1_mag[0] == pytest.approx(9.8 + 0.06 * (0.35 - 0.7), abs=1e-9)
    assert not got.transformed


def test_the_error_of_the_colour_is_the_night_s_not_the_frame_s():
    night = coloured_night(COLOURED, 0.35)
    with_term, without = standardised(night, TV_BV), standardised(night, NO_COLOUR)
    np.testing.assert_allclose(with_term.t1_random_mag, without.t1_random_mag)
    level = np.sqrt(0.01**2 + 0.02**2 + 0.03**2) / 3
    want = np.sqrt(level**2 + (0.005 * 0.35) ** 2 + (0.06 * 0.1) ** 2)
    assert with_term.zp_err_mag == pytest.approx(want)


def test_comps_without_a_colour_are_left_out_of_a_transformed_ensemble():
    stars = (*COLOURED[:4], star("C5", 12.3, 0.03, None))
    got = standardised(coloured_night(stars, 0.35), TV_BV)
    assert got.comp_names == ("000-C3", "000-C4")
    assert got.t1_mag == pytest.approx([9.8] * 4, abs=1e-9)
    assert "comp without B-V left out: 000-C5" in got.notes


def test_too_few_colours_transform_nothing():
    stars = (*COLOURED[:3], star("C4", 11.5), star("C5", 12.3))
    got = standardised(coloured_night(stars, 0.35), TV_BV)
    assert (got.transformed, got.method, len(got.comp_names)) == (False, "ensemble", 3)
    assert "not transformed: 1 of 3 comps have B-V, at least half wanted" in got.notes


def test_a_check_star_without_colour_is_said_to_be():
    stars = (COLOURED[0], star("T2", 12.0), *COLOURED[2:])
    got = standardised(coloured_night(stars, 0.35), TV_BV)
    assert "check star without B-V: no colour term for it" in got.notes


@pytest.mark.parametrize(
    ("band", "name", "index"),
    [("B", "Tb_bv", "B-V"), ("V", "Tv_bv", "B-V"), ("R", "Tr_vi", "V-I"), ("I", "Ti_vi", "V-I")],
)
def test_the_recommended_coefficient_for_one_filter(band, name, index):
    coefficients = {"Tb_bv": 0.045, "Tv_bv": -0.06, "Tr_vi": 0.02, "Ti_vi": 0.03}
    got = standard.choose_transformation(
        band, coefficients, {name: 0.004}, {"B-V": 0.35, "V-I": 0.4}, {"V-I": 0.02}
    )
    assert (got.coefficient_name, got.colour_index) == (name, index)
    assert (got.coefficient, got.coefficient_error) == (coefficients[name], 0.004)
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
    got = standard.choose_transformation(band, coefficients, {}, colours, {})
    assert got.coefficient is None
    assert why in got.source


# ------------------------------------------------------------------- what the night has to say


def test_what_the_table_notes_comes_first_and_once():
    stars = (*STARS[:4], star("C5", 12.3, None))
    words = "comp without catalogue error: 000-C5, 0.05 mag taken"
    got = standardised(noisy_night(stars=stars, notes=("not calibrated for: bias, flat", words)))
    assert got.notes == ("not calibrated for: bias, flat", words)


def test_a_comp_off_its_catalogue_is_named_and_stays():
    """C5 is 0.3 mag fainter than its catalogue says: the mean of 3 takes 0.1 of it."""
    stars = (*STARS[:4], star("C5", 12.0, 0.03))
    flux = 30.0 * 10 ** (-0.4 * (np.array([11.2, 12.0, 11.0, 11.5, 12.3]) - ZERO_POINT))
    night = with_flag(table(stars, np.tile(flux, (8, 1)), flux / 300), 3, 4, Flag.SATURATED)
    got = standardised(night)
    assert got.comp_names == ("000-C3", "000-C4", "000-C5")
    assert [one.name for one in got.comp_residuals] == ["000-C3", "000-C4", "000-C5"]
    residuals = [one.residual_mag for one in got.comp_residuals]
    assert residuals == pytest.approx([-0.1, -0.1, 0.2])  # as measured, less catalogue
    assert [one.catalogue_error_mag for one in got.comp_residuals] == [0.01, 0.02, 0.03]
    assert [one.n_frames for one in got.comp_residuals] == [8, 8, 7]
    assert "comp 000-C5 is 0.20 mag off its catalogue" in got.notes
    # χ²_red = (0.1²/0.01² + 0.1²/0.02² + 0.2²/0.03²)/2
    assert any("reduced chi-square 84.7" in note for note in got.notes)


def test_comps_in_their_places_are_not_noted():
    got = standardised(noisy_night())
    assert got.notes == ()
    assert len(got.comp_residuals) == 3


def test_a_comp_of_an_uncertain_catalogue_may_be_off():
    stars = (*STARS[:4], star("C5", 12.0, 0.2))
    flux = 30.0 * 10 ** (-0.4 * (np.array([11.2, 12.0, 11.0, 11.5, 12.3]) - ZERO_POINT))
    got = standardised(table(stars, np.tile(flux, (8, 1)), flux / 300))
    assert not any("000-C5" in note for note in got.notes)


def test_residuals_are_what_the_colour_term_leaves():
    """Comps on the line V - v = 21 - 0.06 (B-V) are all in their places."""
    got = standardised(coloured_night(COLOURED, 0.35), TV_BV)
    assert [one.residual_mag for one in got.comp_residuals] == pytest.approx([0] * 3, abs=1e-9)


def test_a_frame_whose_comps_disagree_is_proposed():
    night = noisy_night()
    source = night.measured.source_sky_adu.copy()
    source[17, 3] *= 10 ** (-0.4 * 0.09)
    got = standardised(with_source(night, source))
    assert got.proposed_rejected[17] == quality.COMPS
    assert set(np.delete(np.array(got.proposed_rejected), 17)) == {""}


# ------------------------------------------------------------------------------- the check star


def check_off_by(offset, band="V", error=0.02):
    stars = (STARS[0], star("T2", 12.0 - offset, error), *STARS[2:])
    night = noisy_night(n_frames=40, band=band)
    return standardised(dataclasses.replace(night, stars=stars))


def test_a_check_star_in_its_place_lets_the_night_through():
    got = check_off_by(0.0)
    assert got.held_reason is None
    assert abs(got.check_offset_mag) < 0.05


def test_a_check_star_out_of_its_place_holds_the_night():
    got = check_off_by(0.3)
    assert "mag from its catalogue magnitude 11.700 (median of 40 frames; at most 0." in (
        got.held_reason
    )
    assert got.check_offset_mag == pytest.approx(0.3, abs=0.05)


def test_an_uncertain_catalogue_holds_less():
    assert check_off_by(0.3, error=0.2).held_reason is None


@pytest.mark.parametrize("band", ["CV", "CR", "TG", "TB", "TR"])
def test_outside_the_catalogue_s_bands_only_half_a_magnitude_holds(band):
    assert check_off_by(0.3, band).held_reason is None
    assert "at most 0.500" in check_off_by(0.7, band).held_reason


def test_a_restless_check_star_holds_the_night():
    night = noisy_night(n_frames=40)
    source = night.measured.source_sky_adu.copy()
    source[:, 1] *= 1 + 0.04 * np.random.default_rng(3).normal(size=40)
    got = standardised(with_source(night, source))
    assert "scatters by 0.0" in got.held_reason
    assert "more than 2 times its median error" in got.held_reason


def test_clouded_frames_do_not_judge_the_check_star():
    night = noisy_night(n_frames=40)
    source = night.measured.source_sky_adu.copy()
    source[:15] *= 0.2
    source[:15, 1] *= 0.5
    got = standardised(with_source(night, source))
    assert got.held_reason is None
    assert got.proposed_rejected[:15] == ("cloud",) * 15
    assert set(got.proposed_rejected[15:]) == {""}


def test_a_check_star_that_was_never_measured_is_no_check():
    night = with_flag(noisy_night(n_frames=4), slice(None), 1, Flag.UNMEASURED)
    got = standardised(night)
    assert got.check_offset_mag is None
    assert any(note.startswith("nocheck") for note in got.notes)


# -------------------------------------------------------------------------- nights of known truth


def simulated_night(seed, *, n_frames=150, n_comps=6):
    """Poisson and read noise, extinction and clouds, catalogue errors drawn from what is quoted."""
    rng = np.random.default_rng(seed)
    gain, read_noise_e, n_px, n_sky = 1.6, 7.0, 60.0, 600.0
    truth = np.concatenate([[12.0, 12.2], rng.uniform(11.0, 12.8, n_comps)])
    t1 = truth[0] + 0.2 * np.sin(np.linspace(0, 6, n_frames))
    mags = np.tile(truth, (n_frames, 1))
    mags[:, 0] = t1
    dim = 0.2 * np.linspace(0, 1, n_frames) + rng.uniform(0, 0.1, n_frames)
    expected_e = 60.0 * 10 ** (-0.4 * (mags + dim[:, None] - 20.5))
    sky_variance = n_px * (1 + n_px / n_sky) * (50.0 + read_noise_e**2)
    counts = (rng.poisson(expected_e) + rng.normal(0, np.sqrt(sky_variance), mags.shape)) / gain
    error = np.sqrt(counts * gain + sky_variance) / gain
    quoted = rng.uniform(0.01, 0.04, n_comps + 1)
    catalogue = truth[1:] + rng.normal(0, quoted)
    stars = [star("T1")] + [
        star(f"{'T' if i == 0 else 'C'}{i + 2}", float(catalogue[i]), float(quoted[i]))
        for i in range(n_comps + 1)
    ]
    night = table(stars, counts, error, gain_e_adu=gain, exposure_s=np.full(n_frames, 60.0))
    return night, t1


def test_pulls_within_a_night_have_unit_width():
    """Pulls about the night's mean, `random` as the error: sd 1 within its sampling error.

    5 nights of 150 frames: 1/sqrt(2*750) = 0.026; σ_zp from 6 comps is itself uncertain by a third
    and a small part of the error: 5 standard errors are allowed.
    """
    pulls = []
    for seed in range(5):
        night, truth = simulated_night(seed)
        got = standardised(night)
        left = got.t1_mag - truth
        pulls.append((left - left.mean()) / got.t1_random_mag)
    assert np.std(np.concatenate(pulls)) == pytest.approx(1.0, abs=0.13)


def test_pulls_of_the_night_s_level_have_unit_width():
    """Night bias over `zp_err`: rms 1 over 300 nights within 4/sqrt(600) = 0.16.

    Where the comps disagree by chance χ² only ever enlarges the error, by some 10 % on average:
    the rms may be that much smaller.
    """
    pulls = []
    for seed in range(300):
        night, truth = simulated_night(seed, n_frames=8)
        got = standardised(night)
        pulls.append(np.mean(got.t1_mag - truth) / got.zp_err_mag)
    assert 1 - 0.16 - 0.12 < np.sqrt(np.mean(np.square(pulls))) < 1 + 0.16
    assert np.mean(np.abs(pulls) < 3) > 0.98


def test_a_good_night_is_hardly_ever_held():
    held = [standardised(simulated_night(seed, n_frames=20)[0]).held_reason for seed in range(60)]
    assert sum(reason is not None for reason in held) <= 3
