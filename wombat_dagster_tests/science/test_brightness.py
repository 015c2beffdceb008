"""When a night is news: by hand, and by laws."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from wombat_dagster.science.brightness import (
    NightBrightness,
    Range,
    brighter_by_mag,
    catalogue_range,
    fainter_by_mag,
    history_range,
    night_brightness,
)
from wombat_dagster_tests.curves import hours, magnitudes

N = 20


def night(mag=12.0, *, n=N, fit=None, **changes):
    fit = np.ones(n, bool) if fit is None else fit
    return night_brightness(magnitudes(hours(n=n), mag, **changes), fit)


def told(bright_mag, faint_mag=None, *, error_mag=0.02, is_limit=False, n_points=20):
    faint = bright_mag if faint_mag is None else faint_mag
    return NightBrightness(
        n_points=n_points, median_mag=(bright_mag + faint) / 2, bright_mag=bright_mag,
        faint_mag=faint, error_mag=error_mag, is_limit=is_limit,
    )  # fmt: skip


def test_a_night_is_told_by_its_third_extremes():
    """11.1, 11.2, …, 13.0: the third brightest is 11.3, the third faintest 12.8, by hand."""
    found = night(np.linspace(11.1, 13.0, N))
    assert (found.bright_mag, found.faint_mag) == pytest.approx((11.3, 12.8))
    assert found.median_mag == pytest.approx(12.05)
    assert found.error_mag == pytest.approx(np.hypot(0.011, 0.013))


def test_two_frames_out_of_twenty_make_no_news():
    flashes = np.full(N, 12.0)
    flashes[[4, 9]] = 8.0
    assert night(flashes).bright_mag == 12.0
    flashes[13] = 8.0
    assert night(flashes).bright_mag == 8.0


def test_of_two_points_both_must_agree():
    two = night([9.0, 12.0], n=2)
    assert (two.bright_mag, two.faint_mag) == (12.0, 9.0)
    one = night([9.0], n=1)
    assert (one.bright_mag, one.faint_mag) == (9.0, 9.0)


def test_rejected_points_and_limits_do_not_count_beside_detections():
    mag = np.full(N, 12.0)
    mag[:10] = 8.0
    limit = (np.arange(N) >= 5) & (np.arange(N) < 10)
    found = night(mag, fit=np.arange(N) >= 5, t1_upper_limit=limit)
    assert (found.bright_mag, found.n_points, found.is_limit) == (12.0, 10, False)


def test_a_night_of_limits_is_told_by_its_third_deepest():
    found = night(np.linspace(14.1, 16.0, N), t1_upper_limit=np.ones(N, bool))
    assert found.is_limit
    assert (found.bright_mag, found.faint_mag) == pytest.approx((15.8, 15.8))


@pytest.mark.parametrize(
    "changes",
    [{"fit": np.zeros(N, bool)}, {"t1_random_mag": np.full(N, np.nan)},
     {"zp_err_mag": np.nan}],
)  # fmt: skip
def test_a_night_without_a_good_point_tells_nothing(changes):
    assert night(**changes) is None


def test_of_a_held_night_the_check_star_counts_as_an_error():
    """T2 off by 0.3 mag: hypot(0.011, 0.013, 0.3), by hand 0.30048."""
    held = night(held_reason="T2 is off", check_offset_mag=-0.3)
    assert held.error_mag == pytest.approx(0.30048, abs=1e-5)


# ------------------------------------------------------------------------------------ departures

USUAL = Range(bright_mag=12.0, faint_mag=13.0)


@pytest.mark.parametrize(
    ("bright", "news"), [(11.4, 0.6), (11.5, None), (12.5, None), (13.9, None)]
)
def test_brighter_means_by_more_than_what_is_set(bright, news):
    found = brighter_by_mag(told(bright, 13.0), USUAL, 0.5)
    assert found == (None if news is None else pytest.approx(news))


@pytest.mark.parametrize(("faint", "news"), [(13.6, 0.6), (13.4, None), (12.5, None)])
def test_fainter_means_by_more_than_what_is_set(faint, news):
    found = fainter_by_mag(told(12.5, faint), USUAL, 0.5)
    assert found == (None if news is None else pytest.approx(news))


def test_three_sigma_of_both_nights_are_needed_too():
    """0.6 mag: 3 sigma of 0.15 and 0.12 are 0.576 (news), of 0.15 and 0.15 0.636 (none)."""
    for error, is_news in ((0.12, True), (0.15, False)):
        usual = dataclasses.replace(USUAL, bright_error_mag=error)
        found = brighter_by_mag(told(11.4, error_mag=0.15), usual, 0.5)
        assert (found is not None) is is_news


def test_a_star_that_is_not_seen_is_never_brighter():
    assert brighter_by_mag(told(9.0, is_limit=True), USUAL, 0.5) is None
    assert fainter_by_mag(told(14.0, is_limit=True), USUAL, 0.5) == pytest.approx(1.0)


def test_a_history_needs_three_nights_and_reaches_to_its_extremes():
    nights = [told(12.0, 12.4), told(11.8, 12.2, error_mag=0.05), told(12.1, 12.9, error_mag=0.07)]
    assert history_range(nights[:2]) is None
    assert history_range(nights) == Range(
        bright_mag=11.8, faint_mag=12.9, bright_error_mag=0.05, faint_error_mag=0.07
    )


@pytest.mark.parametrize(
    ("band", "of_band", "allowance"),
    [("V", "V", 0.0), ("CV", "V", 0.0), ("TG", "g", 0.0), ("SG", "CV", 0.0), ("V", "B", 0.5),
     ("V", "TESS", 0.5), ("V", None, 0.5), ("B", "B", 0.0), ("I", "V", None), ("R", "p", None),
     ("I", None, None)],
)  # fmt: skip
def test_only_comparable_bands_are_compared(band, of_band, allowance):
    found = catalogue_range(
        band, bright_mag=10.0, bright_band=of_band, faint_mag=None, faint_band=None
    )
    if allowance is None:
        assert found is None
    else:
        assert found == Range(bright_mag=10.0, faint_mag=None, bright_allowance_mag=allowance)


def test_the_allowance_is_added():
    usual = Range(bright_mag=12.0, faint_mag=None, bright_allowance_mag=0.5)
    assert brighter_by_mag(told(11.1), usual, 0.5) is None
    assert brighter_by_mag(told(10.9), usual, 0.5) == pytest.approx(1.1)
    assert fainter_by_mag(told(19.0), usual, 0.5) is None


mags = hnp.arrays(float, st.integers(3, 30), elements=st.floats(5, 20))


@given(mags, st.floats(-3, 3))
def test_a_shifted_night_is_told_shifted(mag, by):
    plain, moved = (night(m, n=len(m)) for m in (mag, mag + by))
    for name in ("bright_mag", "median_mag", "faint_mag"):
        assert getattr(moved, name) == pytest.approx(getattr(plain, name) + by)


@given(st.lists(mags, min_size=3, max_size=6))
def test_no_night_departs_from_a_history_that_holds_it(nights):
    known = [night(mag, n=len(mag)) for mag in nights]
    usual = history_range(known)
    for one in known:
        assert brighter_by_mag(one, usual, 0.01) is None
        assert fainter_by_mag(one, usual, 0.01) is None
