"""The check star: what holds a night back, and what T2 tells the nights after."""

import dataclasses
import datetime as dt

import numpy as np
import pytest

from wombat_dagster import domain
from wombat_dagster.science.check_star import agreeing, check_night
from wombat_dagster_tests.magnitude_tables import (
    STARS,
    ZERO_POINT,
    noisy_night,
    standardised,
    star,
    table,
    with_flag,
    with_source,
)

Flag = domain.Flag


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


def test_a_median_deviation_that_is_large_by_luck_holds_nothing():
    """Five honest magnitudes of a simulated T2: sd 1.8 errors, 1.4826 MAD 2.8 of them."""
    flux = 30.0 * 10 ** (-0.4 * (np.array([11.2, 12.0, 11.0, 11.5, 12.3]) - ZERO_POINT))
    source = np.tile(flux, (5, 1))
    source[:, 1] *= 10 ** (-0.4 * np.array([-0.0016, -0.0021, 0.0087, -0.0110, 0.0052]))
    got = standardised(table(STARS, source, 0.0038 * flux))
    assert got.check_scatter_mag > 2 * np.median(got.t2_random_mag)
    assert got.held_reason is None


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


def test_without_a_gain_the_comps_tell_that_the_check_star_varies():
    """T2 varies by 0.2 mag: it is held, and T1 of SNR 100 is no upper limit for it."""
    night = noisy_night(n_frames=60, gain_e_adu=None)
    source = night.measured.source_sky_adu.copy()
    source[:, 1] *= 10 ** (-0.4 * 0.2 * np.sin(np.linspace(0, 12, 60)))
    source[:, 0] *= 0.05
    error = night.measured.source_error_adu.copy()
    error[:, 0] = source[:, 0] / 100
    measured = dataclasses.replace(night.measured, source_sky_adu=source, source_error_adu=error)
    got = standardised(dataclasses.replace(night, measured=measured))
    assert "check star 000-T2 scatters by 0.1" in got.held_reason
    assert not got.t1_upper_limit.any()
    assert np.median(got.t1_random_mag) == pytest.approx(0.0108, rel=0.2)


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


# -------------------------------------------------------------------------- nights before this one


def night_before(day, magnitude, name="000-T2", error=0.01):
    return domain.CheckNight(
        key=f"202510{day:02d}__TX_Eri__CV", date=dt.date(2025, 10, day), star="oid:1", band="CV",
        camera="QSI", check_name=name, magnitude_mag=magnitude, error_mag=error,
        catalogue_mag=12.0, catalogue_error_mag=0.02, zp_err_mag=0.01, scatter_mag=0.005,
        n_frames=40, held=False,
    )  # fmt: skip


def after(nights, offset, band="CV"):
    """A night whose T2 is `offset` from its catalogue's 12.0, after nights of such magnitudes."""
    stars = (STARS[0], star("T2", 12.0, 0.02), *STARS[2:])
    night = noisy_night(n_frames=40, band=band)
    source = night.measured.source_sky_adu.copy()
    now = np.median(standardised(night).t2_mag)
    source[:, 1] *= 10 ** (-0.4 * (12.0 + offset - now))
    earlier = [night_before(day + 1, mag) for day, mag in enumerate(nights)]
    return standardised(
        dataclasses.replace(with_source(night, source), stars=stars), earlier=earlier
    )


@pytest.mark.parametrize("band", ["CV", "CR", "TG", "TB", "TR"])
def test_earlier_nights_replace_a_catalogue_that_lacks_the_band(band):
    """T2 is 0.30 mag off in CV, night after night: a night at 0.30 passes, one at 0.10 does not."""
    before = [12.29, 12.31, 12.30]
    assert after(before, 0.3, band).held_reason is None
    reason = after(before, 0.1, band).held_reason
    assert "-0.200 mag from the mean of its 3 earlier nights, 12.300 (median of 40" in reason


def test_nights_beyond_belief_make_no_right_one_however_many():
    """0.8 mag off night after night: the wrong star, or the wrong band."""
    wrong = [night_before(day, 12.8) for day in (1, 2, 3, 4)]
    right = [night_before(day, 12.4) for day in (5, 6, 7)]
    assert agreeing(wrong) == []
    assert agreeing([*wrong, *right]) == right


def test_two_earlier_nights_are_not_enough():
    assert after([12.3, 12.3], 0.1).held_reason is None
    assert "at most 0.500 wanted" in after([12.3, 12.3], 0.6).held_reason


def test_nights_that_differ_among_themselves_hold_less():
    """Sd 0.2 of 3: 0.115, three times that is 0.35."""
    assert after([12.1, 12.3, 12.5], 0.1).held_reason is None


def test_in_standard_bands_the_catalogue_decides():
    before = [12.3, 12.3, 12.3, 12.3]
    assert after(before, 0.0, "V").held_reason is None
    assert "from its catalogue magnitude 12.000" in after(before, 0.3, "V").held_reason


def test_nights_of_another_check_star_say_nothing():
    stars = (STARS[0], star("T2", 12.0, 0.02), *STARS[2:])
    night = dataclasses.replace(noisy_night(n_frames=40, band="CV"), stars=stars)
    others = [night_before(day, 13.0, name="000-T9") for day in (1, 2, 3, 4)]
    assert standardised(night, earlier=others).held_reason is None


def test_what_a_night_adds_to_the_control_chart():
    got = standardised(noisy_night(n_frames=40, camera="QSI"))
    added = check_night(got, key="20251015__TX_Eri__V", date=dt.date(2025, 10, 15), star="oid:1")
    assert added.magnitude_mag == pytest.approx(np.median(got.t2_mag))
    assert added.magnitude_mag - added.catalogue_mag == pytest.approx(got.check_offset_mag)
    of_median = np.median(got.t2_random_mag) / np.sqrt(40)
    assert added.error_mag == pytest.approx(np.hypot(of_median, got.zp_err_mag))
    assert (added.camera, added.check_name, added.n_frames, added.held) == (
        "QSI", "000-T2", 40, False,
    )  # fmt: skip


def test_a_night_without_a_check_star_adds_nothing():
    got = standardised(with_flag(noisy_night(n_frames=4), slice(None), 1, Flag.UNMEASURED))
    assert check_night(got, key="k", date=dt.date(2025, 10, 15), star="oid:1") is None
