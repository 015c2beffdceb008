"""Observed against expected scatter: on nights whose every noise is known."""

import dataclasses

import numpy as np
import pytest

from wombat_dagster.domain import Flag
from wombat_dagster.science.precision import measure_precision
from wombat_dagster_tests.series import MAGS, series_table

FIELD = tuple(np.linspace(11.0, 14.5, 20))
N = 400  # a robust rms over so many frames is known to 6 %


def spoiled(night, star, change):
    """The same night with the counts of one star multiplied, shape (n_frames,)."""
    measured = night.measured
    source = measured.source_sky_adu.copy()
    source[:, star] *= change
    return dataclasses.replace(night, measured=dataclasses.replace(measured, source_sky_adu=source))


@pytest.fixture(scope="module")
def steady():
    return measure_precision(series_table(N, field_mags=FIELD))


def test_honest_errors_have_a_pull_of_one(steady):
    """34 stars of 6 % each share little but the ensemble."""
    constant = [i for i, role in enumerate(steady.roles) if role != "T1"]
    assert np.median(steady.pull[constant]) == pytest.approx(1.0, abs=0.04)
    assert np.abs(steady.pull[constant] - 1.0).max() < 0.25
    ratio = steady.rms_mag[constant] / steady.expected_mag[constant]
    assert np.median(ratio) == pytest.approx(1.0, abs=0.08)  # the night grows noisier


def test_an_error_that_leaves_out_scintillation_is_seen_on_the_bright_stars():
    """The scatter stays, the expected error of C3 (10.4 mag) loses the larger half of it."""
    seen = measure_precision(
        series_table(N, field_mags=FIELD, telescope_aperture_m=None, flat_noise=None)
    )
    assert seen.pull[seen.star_index("C3")] > 1.4
    assert seen.pull[seen.star_index("C10")] == pytest.approx(1.0, abs=0.2)
    assert "not known and left out: noise of the master flat, scintillation" in seen.unknown[0]


def test_magnitudes_lie_on_the_comps_scale(steady):
    """Truth of every star but T1; the zero point is the comps', and takes up the extinction."""
    assert steady.magnitude_mag[1:] == pytest.approx(np.array(MAGS + FIELD)[1:], abs=0.02)
    assert steady.zero_point_mag is not None


def test_ten_minute_means_of_white_noise_are_steadier_by_the_root_of_their_number(steady):
    assert steady.n_in_bin == 15  # every 40 s
    constant = [i for i, role in enumerate(steady.roles) if role != "T1"]
    assert steady.bin_expected_mag == pytest.approx(steady.rms_mag / np.sqrt(15))
    assert np.median(steady.bin_ratio[constant]) == pytest.approx(1.0, abs=0.15)


def test_red_noise_does_not_average_out():
    """C5 wanders by 5 mmag in an hour: its means scatter more than its rms/√n, others' do not."""
    night = series_table(N, field_mags=FIELD)
    phase = 2 * np.pi * (night.times.jd_utc - night.times.jd_utc[0]) * 24
    seen = measure_precision(spoiled(night, 4, 1 + 0.007 * np.sin(phase)))
    assert seen.bin_ratio[4] > 2.5
    assert np.median(np.delete(seen.bin_ratio[1:], 3)) < 1.3


def test_the_variable_varies_and_is_still_measured(steady):
    """A sine of 0.3 mag amplitude has rms 0.21 and a robust one of 0.31; C5 is as bright."""
    t1, c5 = steady.star_index("T1"), steady.star_index("C5")
    assert steady.rms_mag[t1] > 0.2
    assert steady.successive_rms_mag[t1] < 0.012
    assert steady.expected_mag[t1] == pytest.approx(steady.expected_mag[c5], rel=0.2)


def test_a_variable_makes_no_star_scatter():
    """T1 is no part of what the others are compared with, a variable comp soon is not either."""
    quiet = measure_precision(series_table(N, amplitude_mag=0.0))
    night = series_table(N, amplitude_mag=0.5)
    phase = 2 * np.pi * (night.times.jd_utc - night.times.jd_utc[0]) / 0.05
    for changed in (night, spoiled(night, 2, 10 ** (0.1 * np.sin(phase)))):  # C3 is the brightest
        seen = measure_precision(changed)
        others = [1, *range(3, 10)]
        assert seen.rms_mag[others] == pytest.approx(quiet.rms_mag[others], rel=0.25)
    assert seen.pull[2] > 20


def test_clouds_leave_the_pull_at_one_and_thick_ones_are_out():
    rng = np.random.default_rng(3)
    clouds = np.clip(np.cumsum(rng.normal(0, 0.08, N)), 0, 0.7)
    clouds[100:120] = 2.5
    seen = measure_precision(series_table(N, field_mags=FIELD, clouds_mag=clouds))
    assert (seen.n_frames, seen.n_clouded) == (380, 20)
    assert np.median(seen.pull[1:]) == pytest.approx(1.0, abs=0.05)


def test_frames_low_in_the_sky_are_out():
    night = series_table(50)
    night.times.altitude_deg[:7] = 14.0
    assert measure_precision(night).n_frames == 43


def test_spoilt_frames_of_the_brightest_comp_do_not_reach_the_others():
    """Every fifth frame of C3 is 0.55 mag too faint: too few to show in a robust weight."""
    night = series_table(N)
    change = np.ones(N)
    change[::5] = 0.6
    before, after = (measure_precision(one) for one in (night, spoiled(night, 2, change)))
    assert after.rms_mag[3:] == pytest.approx(before.rms_mag[3:], rel=0.12)


def test_a_comp_is_not_compared_with_itself():
    """Of three equal comps it would be: 2/3 of its noise seen, 4/3 expected."""
    seen = measure_precision(series_table(N, mags=(11.0, 11.0, 11.0, 11.0, 11.0)))
    assert np.mean(seen.pull[2:]) == pytest.approx(1.0, abs=0.1)


def test_saturated_and_unmeasured_points_are_not_judged():
    night = series_table(60)
    night.measured.flags[:20, 3] |= Flag.SATURATED
    night.measured.source_sky_adu[:20, 3] *= 0.5
    night.measured.source_sky_adu[30:35, 4] = np.nan
    seen = measure_precision(night)
    assert list(seen.n_measured[3:6]) == [40, 55, 60]
    assert seen.pull[3:6] == pytest.approx(1.0, abs=0.35)


def test_the_parts_and_the_curves_say_the_same_of_a_star():
    """The curves are of the median frame; a comp has one star fewer to be compared with."""
    seen = measure_precision(series_table(N, amplitude_mag=0.0))
    parts = {name: part[3:] for name, part in seen.parts.items() if name != "ensemble"}
    at = seen.magnitude_mag[3:]
    for name, part in parts.items():
        curve = np.interp(at, seen.curve_mag, np.log(seen.curves[name]))
        assert np.exp(curve) == pytest.approx(part, rel=0.03), name
    total = np.exp(np.interp(at, seen.curve_mag, np.log(seen.curves["total"])))
    assert total == pytest.approx(seen.expected_mag[3:], rel=0.02)
    together = np.sqrt(sum(part[3:] ** 2 for part in seen.parts.values()))
    assert together == pytest.approx(seen.expected_mag[3:], rel=0.02)


def test_without_the_gain_nothing_is_expected():
    seen = measure_precision(series_table(60, gain_e_adu=None))
    assert np.isnan(seen.expected_mag).all()
    assert np.isnan(seen.pull).all()
    assert not seen.parts
    assert not seen.curves
    assert np.isfinite(seen.rms_mag).all()


def test_a_lone_comp_has_nothing_to_be_compared_with():
    seen = measure_precision(series_table(60, mags=(11.0, 11.5, 11.2)))
    assert np.isfinite(seen.rms_mag[:2]).all()
    assert np.isnan(seen.rms_mag[2])
    assert seen.pull[1] == pytest.approx(1.0, abs=0.3)


@pytest.mark.parametrize("n_frames", [1, 2, 4])
def test_a_handful_of_frames_has_no_scatter(n_frames):
    seen = measure_precision(series_table(n_frames))
    assert np.isnan(seen.rms_mag).all()
    assert seen.n_in_bin is None


def test_a_night_without_a_comp_measured_ends_in_nothing_known():
    night = series_table(20)
    night.measured.source_sky_adu[:, 2:] = np.nan
    seen = measure_precision(night)
    assert np.isnan(seen.rms_mag).all()
    assert seen.zero_point_mag is None


def test_a_slow_cadence_allows_no_bins():
    assert measure_precision(series_table(60, cadence_s=500.0)).n_in_bin is None
