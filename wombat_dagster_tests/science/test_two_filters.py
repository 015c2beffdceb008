"""Nights through two filters: colours by hand, nights of known truth."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wombat_dagster import domain
from wombat_dagster.science import standard
from wombat_dagster.science.instrumental import MAG_PER_RELATIVE_ERROR
from wombat_dagster.science.two_filters import (
    MAX_GAP_D,
    FilterPair,
    MagnitudeCurve,
    NamedCoefficient,
    choose_pairs,
    colour_curve,
)

JD = 2460963.5
EXPOSURE_S = 30.0
NO_COLOUR = domain.Transformation()

COEFFICIENTS = {
    "Tb_bv": 0.09,
    "Tv_bv": -0.06,
    "Tv_vr": -0.11,
    "Tr_vr": -0.05,
    "Tv_vi": -0.07,
    "Tr_vi": -0.04,
    "Ti_vi": 0.03,
}
ERRORS = {"Tb_bv": 0.006, "Tv_bv": 0.005}


# -------------------------------------------------------------------------------- choosing a pair


@pytest.mark.parametrize(
    ("band", "others", "names"),
    [
        ("B", "V", ["Tb_bv Tb_bv Tv_bv"]),
        ("V", "B", ["Tv_bv Tb_bv Tv_bv"]),
        ("V", "R", ["Tv_vr Tv_vr Tr_vr"]),
        ("V", "I", ["Tv_vi Tv_vi Ti_vi"]),
        ("V", "BRI", ["Tv_bv Tb_bv Tv_bv", "Tv_vi Tv_vi Ti_vi", "Tv_vr Tv_vr Tr_vr"]),
        ("R", "V", ["Tr_vr Tv_vr Tr_vr"]),
        ("R", "VI", ["Tr_vi Tv_vi Ti_vi", "Tr_vr Tv_vr Tr_vr"]),
        ("I", "V", ["Ti_vi Tv_vi Ti_vi"]),
        ("I", "BR", []),
        ("B", "R", []),
        ("B", "", []),
        ("CV", "BV", []),
        ("TG", "BV", []),
        ("SG", "BV", []),
    ],
)
def test_the_pairs_that_transform_a_band_the_preferred_first(band, others, names):
    pairs = choose_pairs(band, list(others), COEFFICIENTS, {})
    assert [f"{p.own.name} {p.of_blue.name} {p.of_red.name}" for p in pairs] == names


@pytest.mark.parametrize("missing", ["Tb_bv", "Tv_bv"])
def test_both_coefficients_of_a_pair_are_needed(missing):
    stored = {name: value for name, value in COEFFICIENTS.items() if name != missing}
    assert choose_pairs("V", ["B"], stored, {}) == ()


def test_a_coefficient_of_the_other_kind_is_not_used():
    """Tbv = 1.1 entered as Tb_bv would multiply the colour by -6."""
    assert choose_pairs("V", ["B"], {"Tb_bv": 1.1, "Tv_bv": -0.06}, {}) == ()


@given(
    own=st.sampled_from(["b", "v", "r"]),
    values=st.tuples(*[st.floats(-0.15, 0.15)] * 3),
    difference=st.floats(-1.5, 1.5),
)
def test_errors_of_the_coefficients_follow_from_the_formula(own, values, difference):
    """By central differences of X = x + T_x Δ'/(1 - Ty + Tz), errors 1, 2, 3 thousandths."""

    def pair_of(tb, tv, tr):
        each = {
            one: NamedCoefficient(name=f"T{one}", value=value, error=error)
            for one, value, error in zip("bvr", (tb, tv, tr), (0.001, 0.002, 0.003), strict=True)
        }
        return FilterPair(blue="B", red="V", own=each[own], of_blue=each["b"], of_red=each["v"])

    pair = pair_of(*values)
    instrumental = difference * pair.divisor
    step, variance = 1e-5, 0.0
    for which, error in enumerate((0.001, 0.002, 0.003)):
        up, down = list(values), list(values)
        up[which] += step
        down[which] -= step
        slope = (pair_of(*up).slope - pair_of(*down).slope) / (2 * step)
        variance += (slope * instrumental * error) ** 2
    assert pair.magnitude_error(difference) == pytest.approx(np.sqrt(variance), rel=1e-4, abs=1e-9)


# --------------------------------------------------------------------------- the colour in time


def curve(days, magnitudes, error=0.01):
    days = np.asarray(days, dtype=float)
    errors = np.full(len(days), error)
    return MagnitudeCurve.of(JD + days, np.asarray(magnitudes, dtype=float), errors, days == days)


def colour_at(days, blue, red, own=None):
    return colour_curve(JD + np.asarray(days, dtype=float), blue, red, own=own)


def test_a_colour_is_interpolated_between_the_sibling_s_frames():
    """B 10.4 and 10.8 an interval apart; a quarter on 10.5, less V 10.0, by hand."""
    red = curve([0.01], [10.0], 0.03)
    got = colour_at([0.01], curve([0.0, 0.04], [10.4, 10.8]), red, "red")
    assert got.colour == pytest.approx([0.5])
    assert got.own_weight == pytest.approx([-1.0])
    assert got.other_error == pytest.approx([0.01 * np.hypot(0.75, 0.25)])
    assert got.error == pytest.approx([np.hypot(0.03, 0.01 * np.hypot(0.75, 0.25))])


def test_outside_the_sibling_s_time_the_colour_is_held_and_not_the_magnitude():
    """V fades by 0.1 per 0.01 d, B with it: B-V stays 0.5 when B has stopped."""
    days = np.array([0.0, 0.01, 0.02, 0.03, 0.04])
    red = curve(days, 10 + 10 * days)
    blue = curve(days[1:4], 10.5 + 10 * days[1:4])
    got = colour_at(days, blue, red, "red")
    assert got.colour == pytest.approx([0.5] * 5)
    assert got.own_weight == pytest.approx([0, -1, -1, -1, 0])
    assert got.near.all()
    assert not got.constant


def test_a_single_frame_gives_a_constant_colour():
    days = np.array([0.0, 0.01, 0.02])
    got = colour_at(days, curve([0.005], [10.55]), curve(days, 10 + 10 * days), "red")
    assert got.colour == pytest.approx([0.5] * 3)
    assert got.constant
    assert got.own_weight == pytest.approx([0, 0, 0])
    noise = 0.01 * np.sqrt(1.5)
    held = 0.3 * 10 * 0.005  # B and V change by 10 mag a day, their difference by 0.3 of that
    assert got.other_error == pytest.approx(
        [np.hypot(noise, held)] * 2 + [np.hypot(noise, 3 * held)], rel=1e-4
    )


def test_series_one_after_the_other_are_joined_where_they_meet():
    early, late = np.array([0.0, 0.01]), np.array([0.02, 0.03])
    got = colour_at(late, curve(early, [10.4, 10.5]), curve(late, [10.1, 10.7]), "red")
    assert got.colour == pytest.approx([0.4, 0.4])
    assert got.constant
    # V changes by 60 mag a day, the gap is 0.01 d; the second frame is 0.01 d from where they meet
    assert got.drift_mag == pytest.approx(0.6, rel=1e-4)
    noise = np.hypot(0.01, 0.01)
    assert got.other_error == pytest.approx(
        [np.hypot(noise, 0.6), np.hypot(noise, np.hypot(0.6, 0.1))], rel=1e-4
    )


def test_the_noise_of_a_constant_star_is_no_change_between_two_blocks():
    rng, early, late = np.random.default_rng(3), np.linspace(0, 0.01, 8), np.linspace(0.05, 0.06, 8)
    drifts = [
        colour_at(
            late, curve(early, rng.normal(10, 0.01, 8)), curve(late, rng.normal(10, 0.01, 8))
        ).drift_mag
        for _ in range(100)
    ]
    assert np.mean(np.array(drifts) == 0) > 0.97


def test_a_frame_farther_than_a_tenth_of_a_day_from_a_filter_is_not_near():
    days = np.array([0.0, 0.09, 0.11, 0.2, 0.29, 0.31])
    got = colour_at(days, curve([0.0, 0.2], [10.5, 10.9]), curve(days, [10.0] * 6), "red")
    assert MAX_GAP_D == 0.1
    assert list(got.near) == [True, True, True, True, True, False]
    assert colour_at([0.15], curve([0.0, 0.4], [10, 11]), curve([0.15], [9]), "red").near == [False]
    assert colour_at([0.15], curve([0.15], [9]), curve([0.0, 0.4], [10, 11]), "blue").near == [
        False
    ]


# ---------------------------------------------------------------------------------- made tables


def star(role, name, mag, error=0.02):
    return domain.ApertureStar(
        role=role,
        name=name,
        auid=name,
        ra_deg=10.0,
        dec_deg=20.0,
        catalogue_mag=mag,
        catalogue_error_mag=error,
    )


def table(band, stars, instrumental, error_mag, days, **changes):
    """A night of instrumental magnitudes, shape (n_frames, n_stars), at JD + `days`."""
    magnitudes = np.atleast_2d(np.asarray(instrumental, dtype=float))
    source = EXPOSURE_S * 10 ** (-0.4 * magnitudes)
    error = source * np.broadcast_to(error_mag, source.shape) / MAG_PER_RELATIVE_ERROR
    quiet = {name: np.ones(source.shape) for name in domain.StarMeasurements.__slots__}
    measured = domain.StarMeasurements(
        **quiet
        | {
            "source_sky_adu": source,
            "source_error_adu": error,
            "flags": np.zeros(source.shape, dtype=np.int64),
        }
    )
    n_frames, jd = len(source), JD + np.asarray(days, dtype=float)
    fields = {
        "target": "XZ Cyg",
        "filter": f"Bessell {band}",
        "band": band,
        "comp_band": {"R": "Rc", "I": "Ic"}.get(band, band),
        "band_confirmed": True,
        "chart_id": "X12345ABC",
        "variable": domain.Variable(name="XZ Cyg", ra_deg=10.0, dec_deg=20.0),
        "labels": tuple(f"{band}{i}.fits" for i in range(n_frames)),
        "raw_hashes": tuple(f"{band}{i}" for i in range(n_frames)),
        "times": domain.FrameTimes(
            jd_start_utc=jd,
            jd_utc=jd,
            hjd_utc=jd,
            bjd_tdb=jd,
            altitude_deg=np.full(n_frames, 60.0),
            airmass=np.full(n_frames, 1.2),
        ),
        "exposure_s": np.full(n_frames, EXPOSURE_S),
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


def flagged(night, frames, index, flag):
    flags = night.measured.flags.copy()
    flags[frames, index] |= flag
    return dataclasses.replace(night, measured=dataclasses.replace(night.measured, flags=flags))


# ------------------------------------------------------------------------ nights without noise

TRUTH = {  # T2 and the comps: B, V, Rc, Ic
    "T2": (12.9, 12.0, 11.5, 11.0),
    "c1": (11.4, 11.0, 10.8, 10.6),
    "c2": (12.1, 11.5, 11.1, 10.8),
    "c3": (13.4, 12.3, 11.7, 11.1),
}
ROLES = {"T2": "T2", "c1": "C3", "c2": "C4", "c3": "C5"}
BANDS = "BVRI"
SLOPES = {  # the invented telescope: term of X - x in which colour
    "B": (0.09, "B", "V"),
    "V": (-0.06, "B", "V"),
    "R": (-0.04, "V", "I"),
    "I": (0.03, "V", "I"),
}
LONG = np.linspace(0.0, 0.08, 17)


def pulsating(days):
    """T1 in B, V, Rc, Ic, bluer when bright; linear in time, so that interpolation is exact."""
    phase = np.asarray(days, dtype=float) / 0.08
    return np.stack(
        [11.0 + 1.2 * phase, 10.8 + 0.9 * phase, 10.7 + 0.7 * phase, 10.6 + 0.5 * phase]
    )


def true_table(
    band, days=LONG, *, slopes=SLOPES, names=("T2", "c1", "c2", "c3"), error_mag=0.004, **changes
):
    """A noise-free night: instrumental = standard - 21 - T colour."""
    t1 = pulsating(days)
    mags = np.stack([t1] + [np.tile(TRUTH[n], (len(days), 1)).T for n in names], axis=-1)
    slope, blue, red = slopes[band]
    colour = mags[BANDS.index(blue)] - mags[BANDS.index(red)]
    instrumental = mags[BANDS.index(band)] - 21.0 - slope * colour
    stars = [star("T1", "T1", None)]
    stars += [star(ROLES[n], n, TRUTH[n][BANDS.index(band)]) for n in names]
    return table(band, stars, instrumental, error_mag, days, **changes)


def two_filters(own, *siblings, coefficients=COEFFICIENTS, errors=ERRORS, **options):
    return standard.standardise(
        own,
        **{"transformation": NO_COLOUR} | options,
        siblings=siblings,
        coefficients=coefficients,
        coefficient_errors=errors,
    )


@pytest.mark.parametrize(
    ("own", "sibling", "slopes"),
    [
        ("B", "V", SLOPES),
        ("V", "B", SLOPES),
        ("I", "V", SLOPES | {"V": (-0.07, "V", "I")}),
        ("V", "I", SLOPES | {"V": (-0.07, "V", "I")}),
        ("V", "R", {"V": (-0.11, "V", "R"), "R": (-0.05, "V", "R")}),
        ("R", "V", {"V": (-0.11, "V", "R"), "R": (-0.05, "V", "R")}),
    ],
)
def test_a_star_that_changes_colour_comes_home_on_every_frame(own, sibling, slopes):
    days = LONG[1:-1] + 0.0013
    got = two_filters(true_table(own, days, slopes=slopes), true_table(sibling, slopes=slopes))
    np.testing.assert_allclose(got.t1_mag, pulsating(days)[BANDS.index(own)], atol=1e-9)
    assert got.check_offset_mag == pytest.approx(0, abs=1e-9)
    assert set(got.proposed_rejected) == {""}


def test_a_third_filter_is_transformed_by_the_colour_of_the_two_others():
    slopes = SLOPES | {"V": (-0.07, "V", "I")}
    days = LONG[2:-2] + 0.001
    siblings = [true_table("V", slopes=slopes), true_table("I", slopes=slopes)]
    got = two_filters(true_table("R", days, slopes=slopes), *siblings)
    np.testing.assert_allclose(got.t1_mag, pulsating(days)[BANDS.index("R")], atol=1e-9)
    assert "'Bessell V' and 'Bessell I'" in got.transformation.source


def test_what_was_done_is_said():
    got = two_filters(true_table("V"), true_table("B"))
    assert got.transformation.coefficient_name == "Tv_bv"
    assert got.transformation.colour_index == "B-V"
    assert got.transformation.source == (
        "two filters: Tb_bv, Tv_bv; B-V with filter 'Bessell B' of the same night"
    )
    assert got.transformation.target_colour == pytest.approx(0.35, abs=1e-6)
    assert "B-V of T1 measured, 0.200 to 0.500, against 3 comps of mean 0.700" in got.notes


def test_the_order_of_the_siblings_does_not_matter_nor_the_table_itself():
    own, blue, other = true_table("V"), true_table("B"), true_table("I")
    want = two_filters(own, blue)
    for siblings in ([other, own, blue], [blue, other]):
        np.testing.assert_array_equal(two_filters(own, *siblings).t1_mag, want.t1_mag)


def test_a_sibling_of_another_target_is_refused():
    with pytest.raises(ValueError, match="TX Eri"):
        two_filters(true_table("V"), true_table("B", target="TX Eri"))


def test_dim_sky_in_one_filter_does_not_matter():
    """0.4 mag of haze over one B frame is in its zero point."""
    blue = true_table("B")
    dimmed = blue.measured.source_sky_adu.copy()
    dimmed[7] *= 10 ** (-0.4 * 0.4)
    hazy = dataclasses.replace(
        blue, measured=dataclasses.replace(blue.measured, source_sky_adu=dimmed)
    )
    got = two_filters(true_table("V"), hazy)
    np.testing.assert_allclose(got.t1_mag, pulsating(LONG)[1], atol=1e-9)


# --------------------------------------------------------------------- frames without a colour


def test_a_sibling_s_frame_that_would_be_rejected_gives_no_colour():
    """T1 saturated and 1 mag off in one B frame: its neighbours are interpolated."""
    blue = true_table("B")
    wrong = blue.measured.source_sky_adu.copy()
    wrong[5, 0] *= 2.5
    wrong = dataclasses.replace(blue.measured, source_sky_adu=wrong)
    spoilt = flagged(dataclasses.replace(blue, measured=wrong), 5, 0, domain.Flag.SATURATED)
    got = two_filters(true_table("V"), spoilt)
    np.testing.assert_allclose(got.t1_mag, pulsating(LONG)[1], atol=1e-9)
    assert got.proposed_rejected[5] == ""


def test_a_star_lost_in_the_noise_of_the_sibling_gives_no_colour():
    blue = true_table("B")
    source, error = blue.measured.source_sky_adu.copy(), blue.measured.source_error_adu.copy()
    source[5, 0] *= 0.5
    error[5, 0] = source[5, 0] / 2
    measured = dataclasses.replace(blue.measured, source_sky_adu=source, source_error_adu=error)
    got = two_filters(true_table("V"), dataclasses.replace(blue, measured=measured))
    np.testing.assert_allclose(got.t1_mag, pulsating(LONG)[1], atol=1e-9)


def test_frames_far_from_the_sibling_are_proposed_to_be_rejected_without_a_step():
    days = np.linspace(0, 0.3, 31) - 1e-6 * np.arange(31)  # no gap of 0.1 d sharp
    got = two_filters(true_table("V", days), true_table("B", days[:11]))
    rejected = np.array([words == "nocolour" for words in got.proposed_rejected])
    np.testing.assert_array_equal(rejected, days > 0.2)
    assert np.isfinite(got.t1_mag).all()
    steps = np.diff(got.t1_mag)[10:]
    np.testing.assert_allclose(steps, steps[0], atol=1e-9)
    assert "10 of 31 frames without B-V within 0.1 d: nearest one taken" in "; ".join(got.notes)
    # 0.06 times 0.1 mag of unknown colour
    added = np.sqrt(got.t1_random_mag[-1] ** 2 - got.t1_random_mag[15] ** 2)
    assert added == pytest.approx(0.006, abs=1e-4)


SUPPLIED = domain.Transformation(
    coefficient_name="Tv_bv",
    coefficient=-0.06,
    colour_index="B-V",
    target_colour=0.3,
    source="configuration",
)


def with_catalogue_colours(night):
    colours = {name: mags[0] - mags[1] for name, mags in TRUTH.items()}
    stars = tuple(dataclasses.replace(s, colour=colours.get(s.name)) for s in night.stars)
    return dataclasses.replace(night, stars=stars)


def test_a_colour_for_less_than_half_the_night_is_no_colour():
    days = np.linspace(0, 0.4, 41) - 1e-6 * np.arange(41)  # no gap of 0.1 d sharp
    night = with_catalogue_colours(true_table("V", days))
    for transformation, method in ((SUPPLIED, "ensemble+colour"), (NO_COLOUR, "ensemble")):
        got = two_filters(night, true_table("B", days[:3]), transformation=transformation)
        assert got.method == method
        assert set(got.proposed_rejected) == {""}
        assert "no B-V from two filters: 13 of 41 frames have both filters within 0.1 d" in (
            "; ".join(got.notes)
        )


def test_a_star_that_changes_between_two_blocks_has_no_colour():
    """B, an hour's gap of 0.04 d, then V: T1 fades by 14.7 mag a day in b, 11.5 in v."""
    early, late = np.linspace(0, 0.01, 6), np.linspace(0.05, 0.06, 6)
    got = two_filters(true_table("V", late), true_table("B", early))
    assert (got.method, got.transformed) == ("ensemble", False)
    (note,) = [one for one in got.notes if one.startswith("no B-V from two filters")]
    assert "T1 changes by 0.59 mag" in note
    assert "between the frames of B and those of V, at most 0.1 wanted" in note
    at_once = np.linspace(0.011, 0.02, 6)
    near = two_filters(true_table("V", at_once), true_table("B", early))
    assert near.method == "two-filter"
    meanwhile = 0.06 / 0.85 * 0.015  # 0.001 d, 15 mag a day
    assert near.zp_err_mag > np.hypot(0.02 / np.sqrt(3), 0.9 * meanwhile)


def test_a_sibling_whose_band_is_a_guess_gives_no_colour():
    blue = dataclasses.replace(true_table("B"), filter="b", band_confirmed=False)
    got = two_filters(true_table("V"), blue)
    assert (got.method, got.transformed) == ("ensemble", False)
    assert (
        "no B-V from two filters: filter 'b' taken for B is not confirmed: say it in "
        "[instrument.filters]"
    ) in got.notes
    slopes = SLOPES | {"V": (-0.07, "V", "I")}
    own, *others = (true_table(band, slopes=slopes) for band in "RVI")
    assert two_filters(own, *others).transformed
    guessed = two_filters(dataclasses.replace(own, band_confirmed=False), *others)
    assert not guessed.transformed
    assert "not transformed: filter 'Bessell R' taken for R is not confirmed" in (
        "; ".join(guessed.notes)
    )


def test_a_sibling_without_a_gain_has_the_errors_that_its_comps_show():
    """Formal SNR 2, the comps scatter by 0.01 mag: T1 is well seen."""
    blue = true_table("B", error_mag=0.5, gain_e_adu=None)
    noise = 1 + 0.01 * np.random.default_rng(2).normal(size=blue.measured.flags.shape)
    measured = dataclasses.replace(
        blue.measured, source_sky_adu=blue.measured.source_sky_adu * noise
    )
    got = two_filters(true_table("V"), dataclasses.replace(blue, measured=measured))
    assert got.method == "two-filter"
    known = two_filters(true_table("V"), dataclasses.replace(blue, measured=measured, gain_e_adu=2))
    assert known.method == "ensemble"


def test_a_measured_colour_goes_before_a_supplied_one():
    night = with_catalogue_colours(true_table("V"))
    assert two_filters(night, transformation=SUPPLIED).method == "ensemble+colour"
    assert two_filters(night, true_table("B"), transformation=SUPPLIED).method == "two-filter"


@pytest.mark.parametrize("band", ["TG", "CV"])
def test_bands_that_are_not_standard_are_left_alone(band):
    night = dataclasses.replace(true_table("V"), band=band)
    got = two_filters(night, true_table("B"))
    assert (got.method, got.transformed) == ("ensemble", False)


def test_where_the_first_pair_fails_the_next_serves():
    slopes = SLOPES | {"V": (-0.07, "V", "I")}
    blue = flagged(true_table("B"), slice(None), 0, domain.Flag.SATURATED)
    own = true_table("V", slopes=slopes)
    got = two_filters(own, blue, true_table("I", slopes=slopes))
    assert got.transformation.coefficient_name == "Tv_vi"
    assert "no B-V from two filters: T1 is good on none of 17 Bessell B frames" in got.notes
    np.testing.assert_allclose(got.t1_mag, pulsating(LONG)[1], atol=1e-9)


# ------------------------------------------------------------------------------ comps and check


def test_only_comps_of_both_filters_count():
    got = two_filters(true_table("V"), true_table("B", names=("T2", "c1", "c3")))
    assert got.comp_names == ("c1", "c3")
    assert "comp not used in B and V left out: c2" in got.notes
    np.testing.assert_allclose(got.t1_mag, pulsating(LONG)[1], atol=1e-9)


def test_too_few_comps_in_both_filters_transform_nothing():
    got = two_filters(true_table("V"), true_table("B", names=("T2", "c1")))
    assert (got.method, len(got.comp_names)) == ("ensemble", 3)
    assert "1 of 3 comps were used in B and V, at least half wanted" in "; ".join(got.notes)


def test_comps_of_another_source_in_the_other_filter_are_said_to_be():
    def source(table, name):
        return dataclasses.replace(table, comp_source=name)

    blue = true_table("B", names=("T2", "c1"))
    got = two_filters(source(true_table("V"), "VSP"), source(blue, "APASS DR9 (VizieR)"))
    assert got.method == "ensemble"
    assert (
        "no B-V from two filters: comps are from APASS DR9 (VizieR) in B, from VSP in V"
        in got.notes
    )


def test_a_check_star_saturated_in_the_sibling_gets_its_catalogue_colour():
    blue = flagged(true_table("B"), slice(None), 1, domain.Flag.SATURATED)
    got = two_filters(true_table("V"), blue)
    assert got.check_offset_mag == pytest.approx(0, abs=1e-9)
    assert "check star not measured in B and V: catalogue B-V taken for it" in got.notes


def test_a_check_star_unknown_to_the_sibling_gets_no_colour_term():
    got = two_filters(true_table("V"), true_table("B", names=("c1", "c2", "c3")))
    # -T (0.9 - 0.7), by hand
    assert got.check_offset_mag == pytest.approx(0.012, abs=1e-9)
    assert "check star not measured in B and V: no colour term for it" in got.notes


# --------------------------------------------------------------------------------------- errors


def test_errors_of_the_coefficients_are_the_night_s():
    own, blue = true_table("V"), true_table("B")
    with_errors, without = two_filters(own, blue), two_filters(own, blue, errors={})
    np.testing.assert_array_equal(with_errors.t1_random_mag, without.t1_random_mag)
    # Δ runs from -0.5 to -0.2; ∂V/∂Tv = Δ (1 - Tb)/D, ∂V/∂Tb = Tv Δ/D, D = 0.85
    rms = np.sqrt(np.mean((pulsating(LONG)[0] - pulsating(LONG)[1] - 0.7) ** 2))
    part = rms * np.hypot(0.005 * 0.91, 0.006 * 0.06) / 0.85
    assert with_errors.zp_err_mag == pytest.approx(np.hypot(without.zp_err_mag, part))
    assert "error of Tb_bv, Tv_bv not known: left out of the zero-point error" in without.notes


def test_a_colour_from_one_frame_has_its_noise_in_the_zero_point_error():
    """The same on all V frames: 0.06/0.85 of B's σ and V's at one moment, not frame to frame.

    T1 changes by 11.5 mag a day in v, its colour by 0.3 of that, over 0.02 d on the median frame.
    """
    own, blue = true_table("V"), true_table("B", LONG[8:9], error_mag=0.1)
    got, quiet = two_filters(own, blue, errors={}), two_filters(own, true_table("B"), errors={})
    sigma = np.hypot(0.1 * np.sqrt(1 + 1 / 3), 0.004)
    sigma = np.hypot(sigma, 0.3 * (0.9 + 0.06 * 0.3) / 0.08 * 0.02)
    added = np.sqrt(got.zp_err_mag**2 - quiet.zp_err_mag**2)
    assert added == pytest.approx(0.06 / 0.85 * sigma, rel=0.01)
    # T1's own and the three comps' formal one: without noise they agree better than they can
    assert got.t1_random_mag[0] == pytest.approx(0.004 * np.sqrt(4 / 3), rel=0.01)


def test_what_merr_holds_is_recorded():
    own, blue = true_table("V"), true_table("B")
    total = two_filters(own, blue, merr="total")
    assert (two_filters(own, blue).merr, total.merr) == ("random", "total")
    np.testing.assert_allclose(
        total.t1_merr_mag, np.hypot(two_filters(own, blue).t1_merr_mag, total.zp_err_mag)
    )


def noisy_table(band, days, rng, catalogue, error_mag=0.01, **slopes):
    """`true_table` with noise on every star and a catalogue that is wrong by its own errors."""
    night = true_table(band, days, **slopes)
    relative = error_mag / MAG_PER_RELATIVE_ERROR
    source = night.measured.source_sky_adu
    haze = 10 ** (-0.4 * rng.uniform(0, 0.2, (len(days), 1)))
    source = source * haze * (1 + relative * rng.normal(size=source.shape))
    error = source * relative
    measured = dataclasses.replace(night.measured, source_sky_adu=source, source_error_adu=error)
    stars = tuple(
        s
        if s.catalogue_mag is None
        else dataclasses.replace(s, catalogue_mag=s.catalogue_mag + catalogue[i])
        for i, s in enumerate(night.stars)
    )
    return dataclasses.replace(night, measured=measured, stars=stars)


STRONG = {"B": (0.25, "B", "V"), "V": (-0.2, "B", "V")}
STRONG_COEFFICIENTS = {"Tb_bv": 0.25, "Tv_bv": -0.2}


def two_filter_nights(band, sibling, n_nights, n_frames, seed):
    """Yield T1 less truth, and the result, of nights with strong colour terms."""
    rng = np.random.default_rng(seed)
    days = np.linspace(0.001, 0.079, n_frames)
    for _ in range(n_nights):
        wrong = {one: rng.normal(0, 0.02, 5) for one in (band, sibling)}
        own = noisy_table(band, days, rng, wrong[band], slopes=STRONG)
        other = noisy_table(sibling, days + 0.0007, rng, wrong[sibling], slopes=STRONG)
        got = two_filters(own, other, coefficients=STRONG_COEFFICIENTS, errors={})
        yield got.t1_mag - pulsating(days)[BANDS.index(band)], got


@pytest.mark.parametrize(("band", "sibling"), [("B", "V"), ("V", "B")])
def test_pulls_within_a_two_filter_night_have_unit_width(band, sibling):
    """Slope T/(1 - Tb + Tv) of 0.45 and 0.36: without what V and its colour share, V's error would
    be off by a third.

    30 nights of 40 frames, 1/sqrt(2400) = 0.02; σ_zp of 3 comps from 2 degrees of freedom makes the
    tails wide: median of the nights' widths, 6 % allowed.
    """
    widths = []
    for left, got in two_filter_nights(band, sibling, 30, 40, 5):
        error = np.sqrt(np.mean(got.t1_random_mag**2))
        widths.append(left.std(ddof=1) / error)
    assert np.median(widths) == pytest.approx(1.0, abs=0.06)


def test_the_level_of_two_filter_nights_is_as_good_as_it_says():
    """Catalogue errors of both filters, and only the own filter's in `zp_err`: Δ is instrumental.

    300 nights, 4/sqrt(600) = 0.16; χ² only ever enlarges the error, with 3 comps by some 15 %.
    """
    pulls = [left.mean() / got.zp_err_mag for left, got in two_filter_nights("V", "B", 300, 4, 7)]
    assert 1 - 0.16 - 0.15 < np.sqrt(np.mean(np.square(pulls))) < 1 + 0.16
