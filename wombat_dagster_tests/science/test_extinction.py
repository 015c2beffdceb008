"""Extinction within a frame: by the airmass of each star, and by its colour (DOMAIN 6g)."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.time import Time

from wombat_dagster import domain
from wombat_dagster.science.extinction import (
    Extinction,
    second_order_extinction,
    star_airmass,
)
from wombat_dagster.science.timing import (
    airmass,
    apparent_altitude_deg,
    earth_location,
    true_altitude_deg,
)
from wombat_dagster_tests.magnitude_tables import (
    AIR_FIELD,
    AIR_TERMS,
    K2_B,
    ZERO_POINT,
    standardised,
    star,
    table,
    through_the_air,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "stdmag_example.json"

# ------------------------------------------------------------------------------------ first order

SITE = domain.Site(latitude_deg=40.515, longitude_deg=-75.785)


def sinking_night(width_deg, k1=0.25):
    """T1 between two comps `width_deg` apart in height, sinking; noise-free, dimmed by k1 X."""
    jd = 2460963.5 + 0.05 + np.linspace(0, 0.12, 30)
    names = ("T1", "T2", "C3", "C4", "C5")
    mags = np.array([11.2, 12.0, 11.0, 11.5, 12.3])
    east = np.array([0.0, 0.2, 0.5, 0.45, 0.4]) * width_deg
    ra = 300.0 + east
    stars = tuple(
        dataclasses.replace(one, ra_deg=float(place))
        for one, place in zip(
            (star(n, None if n == "T1" else float(m)) for n, m in zip(names, mags, strict=True)),
            ra, strict=True,
        )
    )  # fmt: skip
    heights = star_airmass(ra, np.full(5, 20.0), jd, SITE)
    assert heights.max() > 1.8
    flux = 30.0 * 10 ** (-0.4 * (mags + k1 * heights - ZERO_POINT))
    night = table(stars, flux, flux / 300)
    return dataclasses.replace(night, times=dataclasses.replace(night.times, jd_utc=jd))


def test_extinction_across_a_wide_field_is_taken_out():
    night = sinking_night(3.0)
    sky = Extinction(mag_per_airmass={"V": 0.25}, site=SITE)
    corrected, left = standardised(night, extinction=sky), standardised(night)
    assert corrected.t1_mag == pytest.approx([11.2] * 30, abs=1e-9)
    assert corrected.t2_mag == pytest.approx([12.0] * 30, abs=1e-9)
    assert np.ptp(left.t1_mag) > 0.01
    assert "extinction within the frame corrected by 0.25 mag per airmass" in corrected.notes
    other = Extinction(mag_per_airmass={"B": 0.25}, site=SITE)
    np.testing.assert_array_equal(standardised(night, extinction=other).t1_mag, left.t1_mag)


def test_a_narrow_field_has_no_extinction_of_its_own():
    night = sinking_night(0.1)
    got = standardised(night, extinction=Extinction(mag_per_airmass={"V": 0.25}, site=SITE))
    np.testing.assert_array_equal(got.t1_mag, standardised(night).t1_mag)
    assert got.notes == ()


@pytest.mark.parametrize("hours", [0.0, 2.5, 4.5])
def test_airmass_differences_are_those_of_astropy(hours):
    """2 deg apart in each coordinate; astropy with precession, nutation and aberration."""
    jd = np.array([2460963.5 + hours / 24])
    ra, dec = np.array([300.0, 302.0]), np.array([20.0, 22.0])
    got = np.diff(star_airmass(ra, dec, jd, SITE)[0])[0]
    time, place = Time(jd, format="jd", scale="utc"), earth_location(SITE)
    want = [
        airmass(apparent_altitude_deg(true_altitude_deg(time, SkyCoord(a, d, unit="deg"), place)))
        for a, d in zip(ra, dec, strict=True)
    ]
    assert got == pytest.approx(float(want[1][0] - want[0][0]), rel=0.05, abs=0.001)


# ----------------------------------------------------------------------------------- second order


def supplied(band="B", coefficient=AIR_TERMS["B"]):
    return domain.Transformation(
        coefficient_name=f"T{band.lower()}_bv", coefficient=coefficient, coefficient_error=0.005,
        colour_index="B-V", target_colour=0.1, target_colour_error=0.02, source="test",
    )  # fmt: skip


def test_second_order_of_the_worked_example():
    """B of the variable, B-V 0.35, against 000-BMS-017, B-V 0.206, at their airmasses."""
    example = json.loads(GOLDEN.read_text())
    want = example["results"]["extinction"]
    comp = next(one for one in example["comps"] if one["auid"] == "000-BMS-017")
    colour, of_comp = example["truth"]["BV"], comp["B"] - comp["V"]
    difference = np.array(colour * want["X_var"] - of_comp * want["X_comp"])
    got = second_order_extinction(want["k2_B"], difference)
    assert got == pytest.approx(want["second_order_B"], abs=5.1e-7)


def test_a_blue_star_stays_where_it_is_while_the_night_sinks():
    night = through_the_air("B")
    got = standardised(night, supplied(), extinction_colour={"B": K2_B})
    assert got.t1_mag == pytest.approx([11.1] * 12, abs=1e-9)
    assert got.t2_mag == pytest.approx([13.2] * 12, abs=1e-9)
    assert [one.residual_mag for one in got.comp_residuals] == pytest.approx([0] * 5, abs=1e-9)
    left = standardised(night, supplied())
    # by hand: the comps' mean B-V is 0.78, without steadier ones among them
    assert np.ptp(left.t1_mag) == pytest.approx(0.03 * (0.78 - 0.1) * 1.1, rel=0.25)
    assert (
        "second-order extinction in B: +0.0330 to +0.0660 mag per magnitude of B-V, for airmass "
        "1.10 to 2.20"
    ) in got.notes


def test_at_one_airmass_what_the_colour_makes_remains():
    """By hand: -k2 X Δ(B-V) = 0.03 · 1.1 · (0.1 - 0.78), on one frame, where comps count alike."""
    night = through_the_air("B", k2=0.0, n_frames=1, error_mag=0.004)
    got, without = (
        standardised(night, supplied(), extinction_colour=k2) for k2 in ({"B": K2_B}, {})
    )
    assert got.t1_mag - without.t1_mag == pytest.approx([-0.02244], abs=1e-6)


def test_a_star_of_the_comps_mean_colour_gets_nothing():
    night = through_the_air("B", k2=0.0, n_frames=1, error_mag=0.004)
    same = dataclasses.replace(supplied(), target_colour=0.78)
    got = standardised(night, same, extinction_colour={"B": K2_B})
    assert got.t1_mag == pytest.approx(standardised(night, same).t1_mag, abs=1e-6)


def test_without_a_colour_term_there_is_no_second_order():
    night = through_the_air("B")
    got = standardised(night, extinction_colour={"B": K2_B})
    np.testing.assert_array_equal(got.t1_mag, standardised(night).t1_mag)
    assert not any("second-order" in note for note in got.notes)


def test_another_band_s_coefficient_is_not_used():
    night = through_the_air("V")
    transformation = supplied("V", AIR_TERMS["V"])
    got = standardised(night, transformation, extinction_colour={"B": K2_B})
    np.testing.assert_array_equal(got.t1_mag, standardised(night, transformation).t1_mag)


@pytest.mark.parametrize(("own", "other"), ["BV", "VB"])
def test_the_colour_of_two_filters_is_that_outside_the_atmosphere(own, other):
    kept = {"coefficients": {"Tb_bv": AIR_TERMS["B"], "Tv_bv": AIR_TERMS["V"]}}
    siblings = [through_the_air(other)]
    got = standardised(
        through_the_air(own), siblings=siblings, extinction_colour={"B": K2_B}, **kept
    )
    assert got.method == "two-filter"
    assert got.t1_mag == pytest.approx([AIR_FIELD["T1"]["BV".index(own)]] * 12, abs=1e-9)
    assert got.t2_mag == pytest.approx([AIR_FIELD["T2"]["BV".index(own)]] * 12, abs=1e-9)
    assert got.transformation.target_colour == pytest.approx(0.1, abs=1e-9)
    left = standardised(through_the_air(own), siblings=siblings, **kept)
    assert np.ptp(left.t1_mag) > 0.001


def test_a_coefficient_fitted_to_the_night_is_that_outside_the_atmosphere():
    asked = dataclasses.replace(supplied(), coefficient=None, coefficient_error=None)
    got = standardised(through_the_air("B"), asked, colour_fit=True, extinction_colour={"B": K2_B})
    assert got.method == "colour-fit"
    assert got.transformation.coefficient == pytest.approx(AIR_TERMS["B"], abs=1e-9)
    assert got.t1_mag == pytest.approx([11.1] * 12, abs=1e-9)
