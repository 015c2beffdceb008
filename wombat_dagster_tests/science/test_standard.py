"""Standard magnitudes: by hand, laws, and nights of known truth."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wombat_dagster import domain
from wombat_dagster.science import quality
from wombat_dagster_tests.magnitude_tables import (
    NO_COLOUR,
    STARS,
    ZERO_POINT,
    noisy_night,
    standardised,
    star,
    table,
    with_flag,
    with_source,
)
from wombat_dagster_tests.series import series_table

Flag = domain.Flag


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


def test_without_a_gain_the_errors_come_from_the_stars_scatter():
    formal = noisy_night(n_frames=200, gain_e_adu=None)
    measured = dataclasses.replace(
        formal.measured, source_error_adu=formal.measured.source_error_adu * 10
    )
    got = standardised(dataclasses.replace(formal, measured=measured))
    assert np.median(got.t1_random_mag) == pytest.approx(got.check_scatter_mag, rel=0.02)
    assert any(note.startswith("gain unknown") for note in got.notes)


@pytest.mark.parametrize("mags", [(9.0, 13.0, 14.0, 14.2), (10.0, 12.5, 14.5)], ids=str)
def test_without_a_gain_faint_comps_are_in_the_error_of_a_bright_variable(mags):
    """T1 is quiet, its comps are not: what it scatters by is theirs. 200 frames know it to 5 %.

    Two comps give the factor that the errors lack, with one alone T2 does.
    """
    night = series_table(
        200, mags=mags, amplitude_mag=0, gain_e_adu=None, pedestal_removed=True, flat_noise=None
    )
    got = standardised(night)
    assert np.std(got.t1_mag) / np.median(got.t1_random_mag) == pytest.approx(1, abs=0.2)
    assert got.held_reason is None
    one_comp = "against one comp: whether it varies cannot be told" in "; ".join(got.notes)
    assert one_comp == (len(mags) == 3)


def with_pedestal(night, *, removed):
    """The same counts whose errors took a pedestal for photons: ten times too large."""
    measured = dataclasses.replace(
        night.measured, source_error_adu=night.measured.source_error_adu * 10
    )
    return dataclasses.replace(night, measured=measured, pedestal_removed=removed)


def test_with_a_pedestal_in_the_sky_the_errors_come_from_the_stars_scatter():
    got = standardised(with_pedestal(noisy_night(n_frames=200), removed=False))
    fooled = standardised(with_pedestal(noisy_night(n_frames=200), removed=True))
    assert np.median(got.t1_random_mag) == pytest.approx(got.check_scatter_mag, rel=0.02)
    assert np.median(fooled.t1_random_mag) > 8 * got.check_scatter_mag
    assert np.median(got.zero_point_random_mag) == pytest.approx(0.005 / np.sqrt(3), rel=0.2)
    (note,) = [note for note in got.notes if note.startswith("bias not subtracted")]
    assert "0.10 times the formal ones, from the scatter of comps" in note


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


def test_a_variable_beyond_the_linearity_limit_is_noted():
    night = with_flag(with_flag(noisy_night(n_frames=8), 3, 0, Flag.NON_LINEAR), 4, 0, 4096)
    got = standardised(with_flag(night, 5, 0, Flag.NON_LINEAR))
    assert "T1 is above the linearity limit of 30000 ADU on 2 of 8 frames" in got.notes
    assert set(got.proposed_rejected) == {""}


@pytest.mark.parametrize(("n_comps", "what"), [(4, "left out"), (3, "kept, without 3 others")])
def test_a_comp_that_is_often_blended_is_named_and_left_out_where_others_are_enough(n_comps, what):
    """On 3 of 10 frames, 30 % too bright there; a fifth is allowed."""
    stars = (*STARS, star("C6", 11.7, 0.02))[: 2 + n_comps]
    night = noisy_night(n_frames=10, stars=stars)
    for frame in (1, 5, 8):
        night = with_flag(night, frame, 2, Flag.BLENDED)
    got = standardised(night)
    assert f"comp 000-C3 is blended on 3 of 10 frames: {what}" in got.notes
    assert ("000-C3" in got.comp_names) == (n_comps == 3)
    rarely = standardised(with_flag(noisy_night(n_frames=10, stars=stars), 1, 2, Flag.BLENDED))
    assert "000-C3" in rarely.comp_names


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
    stars = tuple(dataclasses.replace(one, catalogue_error_mag=0.03) for one in COLOURED)
    got = standardised(coloured_night(stars, 0.35), NO_COLOUR)
    assert got.t1_mag[0] == pytest.approx(9.8 + 0.06 * (0.35 - 0.7), abs=1e-9)
    assert not got.transformed


def test_without_a_colour_term_a_red_comp_is_not_called_wrong():
    """A comp 1.5 mag redder sits 0.09 mag off by T = -0.06 alone; were it not red, it is wrong."""
    comps = [star(f"C{i + 3}", 11.0 + 0.2 * i, 0.01, 0.5) for i in range(6)]
    red = star("C9", 12.0, 0.01, 2.0)
    night = coloured_night((star("T1"), star("T2", 12.0, 0.02, 0.5), *comps, red), 0.35)
    assert not any(one.suspect for one in standardised(night).comp_residuals)
    pale = (*night.stars[:-1], dataclasses.replace(red, colour=0.5))
    named = standardised(dataclasses.replace(night, stars=pale)).comp_residuals
    assert [one.name for one in named if one.suspect] == ["000-C9"]


def test_the_error_of_the_colour_is_the_night_s_not_the_frame_s():
    night = coloured_night(COLOURED, 0.35)
    with_term, without = standardised(night, TV_BV), standardised(night, NO_COLOUR)
    np.testing.assert_allclose(with_term.t1_random_mag, without.t1_random_mag)
    level = np.sqrt(0.01**2 + 0.02**2 + 0.03**2) / 3
    want = np.sqrt(level**2 + (0.005 * 0.35) ** 2 + (0.06 * 0.1) ** 2)
    assert with_term.zp_err_mag == pytest.approx(want)


def test_an_unknown_error_of_the_coefficient_is_noted():
    note = "error of Tv_bv not known: left out of the zero-point error"
    night = coloured_night(COLOURED, 0.35)
    assert note in standardised(night, dataclasses.replace(TV_BV, coefficient_error=None)).notes
    assert note not in standardised(night, TV_BV).notes


def test_a_filter_whose_band_is_a_guess_is_not_transformed():
    night = dataclasses.replace(coloured_night(COLOURED, 0.35), band_confirmed=False, filter="G")
    got = standardised(night, TV_BV)
    assert (got.method, got.transformed) == ("ensemble", False)
    assert got.transformation.coefficient is None
    assert "not transformed: filter 'G' taken for V is not confirmed" in "; ".join(got.notes)


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


# ------------------------------------------------------------------- what the night has to say


def test_what_the_table_notes_comes_first_and_once():
    stars = (*STARS[:4], star("C5", 12.3, None))
    words = "comp without catalogue error: 000-C5, 0.05 mag taken"
    got = standardised(noisy_night(stars=stars, notes=("not calibrated for: bias, flat", words)))
    assert got.notes == ("not calibrated for: bias, flat", words)


def test_a_comp_off_its_catalogue_is_named_and_does_not_count():
    """C5 is 0.3 mag fainter than its catalogue says: C3 and C4 alone set the level."""
    stars = (*STARS[:4], star("C5", 12.0, 0.03))
    flux = 30.0 * 10 ** (-0.4 * (np.array([11.2, 12.0, 11.0, 11.5, 12.3]) - ZERO_POINT))
    night = with_flag(table(stars, np.tile(flux, (8, 1)), flux / 300), 3, 4, Flag.SATURATED)
    got = standardised(night)
    assert got.t1_mag == pytest.approx([11.2] * 8)
    assert got.comp_names == ("000-C3", "000-C4", "000-C5")
    assert [one.name for one in got.comp_residuals] == ["000-C3", "000-C4", "000-C5"]
    residuals = [one.residual_mag for one in got.comp_residuals]
    assert residuals == pytest.approx([0, 0, 0.3], abs=1e-9)  # as measured, less catalogue
    assert [one.catalogue_error_mag for one in got.comp_residuals] == [0.01, 0.02, 0.03]
    assert [one.n_frames for one in got.comp_residuals] == [8, 8, 7]
    assert [one.weight for one in got.comp_residuals] == [1, 1, 0]
    assert [one.suspect for one in got.comp_residuals] == [False, False, True]
    assert got.comp_residuals[2].leave_one_out_mag == pytest.approx(0.3)
    (note,) = got.notes
    # its own 0.03, 0.06 of an unknown 0.3 mag of colour; the others hypot(0.012, 0.021)/2
    assert note == (
        "comp 000-C5 is 0.300 mag fainter than its catalogue by the other comps (8.1 sigma): "
        "left out of the level"
    )
    assert got.zp_err_mag == pytest.approx(np.hypot(0.01, 0.02) / 2)


def test_two_comps_that_differ_are_both_named():
    """0.3 mag apart: the mean of both, and an error that says so."""
    stars = (*STARS[:3], star("C4", 11.2, 0.02))
    flux = 30.0 * 10 ** (-0.4 * (np.array([11.2, 12.0, 11.0, 11.5]) - ZERO_POINT))
    got = standardised(table(stars, np.tile(flux, (8, 1)), flux / 300))
    assert got.t1_mag == pytest.approx([11.05] * 8)
    assert got.zp_err_mag == pytest.approx(0.15, rel=0.5)
    assert any("comps 000-C3 and 000-C4 differ by 0.300 mag" in note for note in got.notes)


def test_a_comp_that_varies_is_named_and_hardly_shakes_the_curve():
    """C5 goes up and down by 0.1 mag: its plain third would be 33 mmag of T1."""
    night = noisy_night(n_frames=100)
    source = night.measured.source_sky_adu.copy()
    source[:, 4] *= 10 ** (-0.4 * 0.1 * np.sin(np.linspace(0, 9, 100)))
    got, quiet = standardised(with_source(night, source)), standardised(night)
    moved = got.t1_mag - quiet.t1_mag
    assert moved.std() < 0.002
    assert [one.suspect for one in got.comp_residuals] == [False, False, True]
    assert got.comp_residuals[2].scatter_mag > 0.07
    assert any(note.startswith("comp 000-C5 varies: 0.") for note in got.notes)
    assert not any(one.suspect for one in quiet.comp_residuals)


def eight_comps(seed, wrong_mag):
    """Eight comps off their catalogue by 0.01 mag as quoted, `000-C5` by `wrong_mag` as well."""
    rng = np.random.default_rng(seed)
    true_mag = np.concatenate([[11.2, 12.0], rng.uniform(11.0, 13.0, 8)])
    catalogue_mag = true_mag + rng.normal(0, 0.01, 10)
    catalogue_mag[4] += wrong_mag
    stars = [star("T1"), star("T2", float(catalogue_mag[1]), 0.01)]
    stars += [star(f"C{i + 1}", float(catalogue_mag[i]), 0.01) for i in range(2, 10)]
    flux = np.tile(30.0 * 10 ** (-0.4 * (true_mag - ZERO_POINT)), (20, 1))
    error = 0.005 * flux / 1.0857
    return standardised(table(stars, flux + rng.normal(size=flux.shape) * error, error))


def test_a_comp_wrong_by_five_hundredths_is_named_and_hardly_moves_the_variable():
    """100 nights of 8 comps; a plain mean would move by 0.05/8 = 6 mmag in each of them."""
    named, moved_mag, others = 0, [], 0
    for seed in range(100):
        got, right = eight_comps(seed, 0.05), eight_comps(seed, 0.0)
        suspects = {one.name for one in got.comp_residuals if one.suspect}
        named += "000-C5" in suspects
        others += bool(suspects - {"000-C5"})
        moved_mag.append(abs(np.median(got.t1_mag - right.t1_mag)))
    assert named >= 90
    assert np.sum(np.array(moved_mag) < 0.005) >= 90
    assert others <= 5


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


# -------------------------------------------------------------------------- nights of known truth


SKY_E_PX, READ_NOISE_E, GAIN_E_ADU, N_PX, N_SKY_PX = 50.0, 7.0, 1.6, 60.0, 600.0
TELESCOPE_M, ELEVATION_M = 0.25, 500.0


def simulated_night(seed, *, n_frames=150, n_comps=6, n_field=0, scintillating=True):
    """Photons, read noise, scintillation, extinction, clouds; catalogue errors as quoted.

    T1, T2 and the comps are of 11th to 13.5th magnitude, the field stars of 11th to 15th; the last
    of them varies by 0.2 mag.
    """
    rng = np.random.default_rng(seed)
    mag = np.concatenate([rng.uniform(11.0, 13.5, n_comps + 2), rng.uniform(11, 15, n_field)])
    mags = np.tile(mag, (n_frames, 1))
    swing = 0.2 * np.sin(np.linspace(0, 6, n_frames))
    for varies in [0] + [-1] * bool(n_field):
        mags[:, varies] += swing
    dim = 0.2 * np.linspace(0, 1, n_frames) + rng.uniform(0, 0.1, n_frames)
    sec_z = np.linspace(1.2, 1.9, n_frames)
    expected_e = 60.0 * 10 ** (-0.4 * (mags + dim[:, None] - 20.5))
    # Young (1967) with the factor 1.5 of Osborn et al. (2015), DOMAIN section 4
    twinkle = 0.0031623 * 1.5 * TELESCOPE_M ** (-2 / 3) * sec_z**1.5 / np.sqrt(60.0)
    twinkle *= np.exp(-ELEVATION_M / 8000) * scintillating
    arriving = expected_e * (1 + twinkle[:, None] * rng.normal(size=mags.shape))
    sky_variance = N_PX * (1 + N_PX / N_SKY_PX) * (SKY_E_PX + READ_NOISE_E**2)
    counts = rng.poisson(arriving) + rng.normal(0, np.sqrt(sky_variance), mags.shape)
    counts = counts / GAIN_E_ADU
    error = np.sqrt(np.maximum(counts, 0) * GAIN_E_ADU + sky_variance) / GAIN_E_ADU
    quoted = rng.uniform(0.01, 0.04, n_comps + 1)
    catalogue = mag[1 : n_comps + 2] + rng.normal(0, quoted)
    stars = [star("T1")] + [
        star(f"{'T' if i == 0 else 'C'}{i + 2}", float(catalogue[i]), float(quoted[i]))
        for i in range(n_comps + 1)
    ]
    n, changes = n_comps + 2, {}
    if scintillating:
        changes = {"telescope_aperture_m": TELESCOPE_M, "site_elevation_m": ELEVATION_M}
    if n_field:
        changes["field"] = field_of(counts[:, n:], error[:, n:])
    night = table(
        stars, counts[:, :n], error[:, :n], gain_e_adu=GAIN_E_ADU,
        exposure_s=np.full(n_frames, 60.0), **changes,
    )  # fmt: skip
    times = dataclasses.replace(night.times, airmass=sec_z)
    return dataclasses.replace(night, times=times), mags[:, 0]


def field_of(source_adu, error_adu, **changes):
    n = source_adu.shape[1]
    quiet = {name: np.ones(source_adu.shape) for name in ("sky_adu_px", "n_sky_px")}
    places = {name: np.linspace(10.0, 10.2, n) for name in ("ra_deg", "dec_deg", "x_px", "y_px")}
    values = {
        "source_sky_adu": source_adu,
        "source_error_adu": error_adu,
        "snr": source_adu / error_adu,
        "flags": np.zeros(source_adu.shape, dtype=np.int64),
    }
    return domain.FieldStars(**places | quiet | values | changes)


@pytest.mark.parametrize(
    "how",
    [
        {"n_comps": 2},
        {"n_comps": 3},
        {"n_comps": 8},
        {"n_comps": 8, "scintillating": False},
        {"n_comps": 3, "n_field": 40, "ensemble": "field"},
    ],
    ids=str,
)
def test_pulls_within_a_night_have_unit_width(how):
    """T1 and T2 about the night's mean, `random` as the error: robust width 1.

    25 nights of 100 frames, two stars: known to 1.17/sqrt(5000) = 0.017; three times that.
    """
    how = dict(how)
    options = {"ensemble": how.pop("ensemble", "chart")}
    pulls = []
    for seed in range(25):
        night, truth = simulated_night(seed, n_frames=100, **how)
        got = standardised(night, **options)
        for value, error in (
            (got.t1_mag - truth, got.t1_random_mag),
            (got.t2_mag, got.t2_random_mag),
        ):
            pulls.append((value - value.mean()) * np.sqrt(100 / 99) / error)
    assert quality.scatter(np.concatenate(pulls)) == pytest.approx(1.0, abs=0.05)


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


# ------------------------------------------------------------------------------- the field ensemble


def test_field_stars_carry_the_zero_point_and_the_chart_sets_its_level():
    """One faint comp: its noise leaves the curve, its level stays."""
    night, truth = simulated_night(3, n_comps=1, n_field=40)
    chart, field = standardised(night), standardised(night, ensemble="field")
    assert (chart.ensemble, chart.n_field_stars, chart.method) == ("chart", 0, "single")
    assert (field.ensemble, field.method) == ("field", "ensemble")
    assert 20 < field.n_field_stars <= 40
    assert np.std(field.t1_mag - truth) < 0.8 * np.std(chart.t1_mag - truth)
    assert np.mean(field.t1_mag - chart.t1_mag) == pytest.approx(0, abs=0.003)
    assert field.zp_err_mag == pytest.approx(chart.zp_err_mag)
    assert set(field.n_comps) == {1}
    assert "no field stars measured: the chart's comps carry the zero point" in (
        standardised(noisy_night(), ensemble="field").notes
    )


@settings(deadline=None, max_examples=10)  # a busy machine is no failure
@given(factor=st.floats(0.3, 3))
def test_how_bright_field_stars_are_does_not_touch_the_level(factor):
    night, _ = simulated_night(4, n_frames=20, n_comps=3, n_field=12)
    field = night.field
    brighter = dataclasses.replace(
        field,
        source_sky_adu=field.source_sky_adu * factor,
        source_error_adu=field.source_error_adu * factor,
    )
    before = standardised(night, ensemble="field")
    after = standardised(dataclasses.replace(night, field=brighter), ensemble="field")
    np.testing.assert_allclose(after.t1_mag, before.t1_mag, rtol=0, atol=1e-8)


@pytest.mark.parametrize("who", ["a comp", "all comps", "field stars"])
def test_no_step_when_a_star_of_the_field_ensemble_drops_out(who):
    """Noise-free, half the night without it; without all comps the field stars go on alone."""
    truth = np.array([11.2, 12.0, 11.0, 11.5, 12.3, 12.0, 12.4, 11.1, 13.0])
    flux = np.tile(30.0 * 10 ** (-0.4 * (truth - ZERO_POINT)), (40, 1))
    stars = (*STARS[:4], star("C5", 12.35, 0.03))  # 0.05 mag off
    field = field_of(flux[:, 5:].copy(), flux[:, 5:] / 300)
    night = table(stars, flux[:, :5], flux[:, :5] / 300, field=field)
    whole = standardised(night, ensemble="field")
    late = slice(20, None)
    if who == "field stars":
        flags = field.flags.copy()
        flags[late, :2] |= Flag.SATURATED
        partly = dataclasses.replace(night, field=dataclasses.replace(field, flags=flags))
    else:
        partly = night
        for comp in [4] if who == "a comp" else [2, 3, 4]:
            partly = with_flag(partly, late, comp, Flag.SATURATED)
    got = standardised(partly, ensemble="field")
    assert np.ptp(got.t1_mag) == pytest.approx(0, abs=1e-9)
    np.testing.assert_allclose(got.t1_mag, whole.t1_mag, rtol=0, atol=1e-4)
    assert list(got.n_comps[[0, -1]]) == [3, {"a comp": 2, "all comps": 0}.get(who, 3)]


def test_a_cosmic_ray_in_a_field_star_leaves_its_frame_alone():
    night, _ = simulated_night(6, n_comps=3, n_field=15)
    source = night.field.source_sky_adu.copy()
    source[70, 0] *= 3
    hit = dataclasses.replace(night, field=dataclasses.replace(night.field, source_sky_adu=source))
    before, after = standardised(night, ensemble="field"), standardised(hit, ensemble="field")
    assert after.t1_mag[70] == pytest.approx(before.t1_mag[70], abs=0.002)


def test_the_chart_s_only_comp_stays_when_it_is_far_off_on_every_frame():
    """4 frames, it varies by 0.1 mag against twelve steady field stars."""
    rng, mags = np.random.default_rng(5), np.linspace(10.5, 12.5, 12)
    flux = np.tile(30.0 * 10 ** (-0.4 * (np.array([11.2, 12.0, 11.0]) - ZERO_POINT)), (4, 1))
    flux[:, 2] *= 10 ** (-0.4 * np.array([0.1, -0.1, 0.1, -0.1]))
    of_field = np.tile(30.0 * 10 ** (-0.4 * (mags - ZERO_POINT)), (4, 1))
    of_field *= 1 + 0.002 * rng.normal(size=of_field.shape)
    night = table(STARS[:3], flux, flux * 0.003, field=field_of(of_field, of_field * 0.003))
    got = standardised(night, ensemble="field")
    assert np.median(got.t1_mag) == pytest.approx(11.2, abs=0.02)
    assert got.n_field_stars == 12


def test_few_field_stars_are_said_to_be_few():
    for n, few in ((5, True), (6, False)):
        field = np.tile(30.0 * 10 ** (-0.4 * (np.full(n, 11.0) - ZERO_POINT)), (60, 1))
        night = noisy_night(field=field_of(field, field * 0.005))
        notes = standardised(night, ensemble="field").notes
        assert any(note.startswith(f"only {n} field stars") for note in notes) == few


# ------------------------------------------------------------------- a colour fitted to the night


def test_a_colour_term_of_the_night_s_own_comps_brings_the_variable_home():
    """Seven comps of 0.2 to 1.4 mag in B-V, noise-free, T = -0.06."""
    comps = [star(f"C{i + 3}", 11.0 + 0.2 * i, 0.02, 0.2 * (i + 1)) for i in range(7)]
    stars = (star("T1"), star("T2", 12.0, 0.02, 0.9), *comps)
    asked = dataclasses.replace(TV_BV, coefficient=None, coefficient_error=None)
    night = coloured_night(stars, 0.35)
    got = standardised(night, asked, colour_fit=True)
    assert got.t1_mag == pytest.approx([9.8] * 4, abs=1e-9)
    assert got.check_offset_mag == pytest.approx(0, abs=1e-9)
    assert got.transformation.coefficient == pytest.approx(-0.06)
    assert (got.method, got.transformed) == ("colour-fit", False)
    assert standardised(night, asked).method == "ensemble"
    stored = standardised(night, TV_BV, colour_fit=True)
    assert (stored.method, stored.transformed) == ("ensemble+colour", True)


def test_too_few_comps_hold_no_colour_term():
    asked = dataclasses.replace(TV_BV, coefficient=None, coefficient_error=None)
    got = standardised(coloured_night(COLOURED, 0.35), asked, colour_fit=True)
    assert (got.method, got.transformed) == ("ensemble", False)
    assert "no colour fit: 3 comps over 0.70 mag of B-V, at least 5 over 0.4 wanted" in got.notes
    nothing = standardised(coloured_night(COLOURED, 0.35), colour_fit=True)
    assert "no colour fit: no colour of the variable" in nothing.notes
