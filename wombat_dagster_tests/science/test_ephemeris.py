"""Phases and minima: by hand, by DOMAIN's time example, and by laws that hold for every period."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from wombat_dagster.domain import Site
from wombat_dagster.science.ephemeris import (
    MAX_TIMES,
    SCALE_ERROR_D,
    Ephemeris,
    NoPrediction,
    eclipse_hours,
    is_eclipsing,
    is_surely_eclipsing,
    is_transiting,
    observable_minima,
    phase,
    read_ephemeris,
    times_at_phase_0,
)

PENNSYLVANIA = Site(latitude_deg=40.515, longitude_deg=-75.785, elevation_m=100.0)
SS_CYG = {"ra_deg": 325.6785, "dec_deg": 43.5861}


def test_z_com_by_hand():
    """VSX's Z Com: P = 0.5466892 d, E = 2453469.8819 (golden/aavso/vsx_list_com_edgecases.json).

    Cycle 10000 by hand: 2453469.8819 + 5466.892 = 2458936.7739; a quarter later the phase is 0.25.
    Its last digits: half of 1e-4 d, and 10000 times half of 1e-7 d.
    """
    z_com = read_ephemeris("0.5466892", "2453469.8819")
    cycles, hjd = times_at_phase_0(z_com, 2458936.5, 2458937.0)
    assert list(cycles) == [10000]
    assert hjd == pytest.approx([2458936.7739], abs=1e-8)
    assert z_com.error_d(10000) == pytest.approx(5e-5 + 10000 * 5e-8)
    a_quarter_later = 2458936.7739 + 0.5466892 / 4
    assert phase(a_quarter_later, epoch_jd=2453469.8819, period_d=0.5466892) == pytest.approx(0.25)


def test_an_epoch_ahead_counts_backwards():
    """By hand: two periods of 3 d before 2461000.5."""
    cycles, hjd = times_at_phase_0(read_ephemeris("3.0000", "2461000.5"), 2460994.0, 2460995.0)
    assert list(cycles) == [-2]
    assert hjd == pytest.approx([2460994.5])
    assert read_ephemeris("3.0000", "2461000.5").error_d(-2) == pytest.approx(0.05 + 2 * 5e-5)


@pytest.mark.parametrize(
    ("text", "value", "error"),
    [
        ("0.6422550", 0.642255, 5e-8),  # the zero counts
        ("0.642255", 0.642255, 5e-7),
        ("95", 95.0, 0.5),
        ("19.5", 19.5, 0.05),
        (" 2.867 ", 2.867, 5e-4),
        ("1.5e2", 150.0, 5.0),
    ],
)
def test_the_last_written_digit_is_the_error(text, value, error):
    read = read_ephemeris(text, "2453469.8819")
    assert read.period_d == value
    assert read.period_error_d == pytest.approx(error)


@pytest.mark.parametrize(
    ("period", "epoch", "words"),
    [
        (None, "2453469.8", "no period is known"),
        ("0.5", None, "no epoch is known"),
        ("0.5", "  ", "no epoch is known"),
        ("95:", "2453469.8", "95: is marked as uncertain"),
        ("95?", "2453469.8", "uncertain"),
        ("<300", "2453469.8", "<300 is a limit"),
        (">300", "2453469.8", ">300 is a limit"),
        ("(50)", "2453469.8", "a mean cycle"),
        ("0.5*2", "2453469.8", "a multiple"),
        ("12/N", "2453469.8", "a multiple"),
        ("0.5", "2453469.8:", "epoch 2453469.8: is marked"),
        ("0.5", "52746.486", "no full Julian date"),
        ("0", "2453469.8", "no orbit's"),
        ("0.0001", "2453469.8", "at least 0.003 d wanted"),
        ("-3.2", "2453469.8", "is no number"),
        ("nan", "2453469.8", "is no number"),
        ("1e999", "2453469.8", "out of all reason"),
        ("<script>", "2453469.8", "is no number"),
    ],
)
def test_what_cannot_be_counted_on_is_refused_in_words(period, epoch, words):
    with pytest.raises(NoPrediction) as refused:
        read_ephemeris(period, epoch)
    assert words in str(refused.value)


def test_an_old_ephemeris_of_few_digits_foretells_nothing():
    """0.449 d ± 0.0005 d: a quarter is 0.11225 d, reached after (0.11225 - 0.00005) / 0.0005 =
    224.4 cycles, about 100.8 d."""
    rough = read_ephemeris("0.449", "2460000.1000")
    assert len(times_at_phase_0(rough, 2460100.0, 2460100.5)[0]) == 1  # cycle 223
    with pytest.raises(NoPrediction, match=r"after 225 cycles .* off by 0\.113 d, more than a qua"):
        times_at_phase_0(rough, 2460100.8, 2460101.5)


@pytest.mark.parametrize(
    ("kind", "eclipses", "surely"),
    [
        ("EA", True, True), ("EB", True, True), ("EW", True, True), ("E", True, True),
        ("EA/SD", True, True), ("EA+DSCTC", True, True), ("EA|EB", True, True),
        ("EC|ESD", True, True), ("E-DO", True, True), ("EP", True, True), ("ED", True, True),
        ("EW:", True, False), ("EW|RRC", True, False), ("RRC|EW", True, False),
        ("CST|EA", True, False), ("DSCTC+EA:", True, False),
        ("ELL", False, False), ("NR+ELL", False, False), ("RS", False, False),
        ("SRB", False, False), ("", False, False), (None, False, False), ("EXOR", False, False),
        ("SR|M", False, False), ("ROT/E", False, False),
    ],
)  # fmt: skip
def test_vsx_types_with_eclipses(kind, eclipses, surely):
    assert is_eclipsing(kind) is eclipses
    assert is_surely_eclipsing(kind) is surely


def test_a_planet_transits():
    assert is_transiting("EP")
    assert not is_transiting("EA")


def test_the_duration_is_a_part_of_the_period():
    """14 % of 2.5 d, by hand: 8.4 h."""
    assert eclipse_hours(14, 2.5) == pytest.approx(8.4)
    assert eclipse_hours(None, 2.5) is eclipse_hours(0, 2.5) is eclipse_hours(120, 2.5) is None


# ------------------------------------------------------------------------------------------- laws

periods = st.floats(0.003, 1e5)
epochs = st.floats(2_400_000, 2_500_000)


@given(st.floats(2_400_000, 2_500_000), epochs, periods)
def test_a_phase_is_in_0_to_1_and_the_same_a_period_later(jd, epoch_jd, period_d):
    at = phase(jd, epoch_jd=epoch_jd, period_d=period_d)
    assert 0 <= at < 1
    later = phase(jd + period_d, epoch_jd=epoch_jd, period_d=period_d)
    apart = abs(float(later - at))
    assert min(apart, 1 - apart) < 4e-9 / period_d + 1e-9  # JD's own resolution is 5e-10 d


def test_a_hair_before_the_epoch_is_phase_0_not_1():
    assert phase(-1e-18, epoch_jd=0.0, period_d=1.0) == 0.0


def test_an_unknown_time_has_no_phase():
    found = phase(np.array([1.0, np.nan]), epoch_jd=0.0, period_d=3.0)
    assert np.isnan(found).tolist() == [False, True]


@given(epochs, periods, st.floats(2_400_000, 2_500_000), st.floats(0, 100))
def test_every_time_is_in_the_window_at_phase_0_and_none_is_missed(epoch, period_d, first, days):
    exact = Ephemeris(period_d=period_d, period_error_d=0.0, epoch_hjd=epoch, epoch_error_d=0.0)
    assume(days / period_d < MAX_TIMES - 2)
    cycles, hjd = times_at_phase_0(exact, first, first + days)
    assert len(cycles) == len(hjd)
    assert abs(len(hjd) - days / period_d) <= 1 + 1e-6
    tolerance = 2e-9
    assert ((hjd >= first - tolerance) & (hjd <= first + days + tolerance)).all()
    off = phase(hjd, epoch_jd=epoch, period_d=period_d)
    assert (np.minimum(off, 1 - off) * period_d < 2e-9).all()


@settings(max_examples=300)
@given(st.text(max_size=12), st.text(max_size=12))
def test_no_text_breaks_the_reader(period, epoch):
    try:
        read = read_ephemeris(period, epoch)
    except NoPrediction:
        return
    assert all(math.isfinite(v) for v in dataclasses.astuple(read))


@given(st.integers(-(10**7), 10**7))
def test_errors_only_grow_away_from_the_epoch(cycle):
    one = read_ephemeris("0.25", "2460000.1")
    assert one.error_d(cycle) >= one.error_d(0)
    assert one.error_d(cycle) == one.error_d(-cycle)


# -------------------------------------------------------------------------------- as a site sees it


def minima_of(hjd, *, site=PENNSYLVANIA, days=0.02, period="100.0000", star=SS_CYG):
    """Return the minima within `days` of HJD."""
    one = read_ephemeris(period, f"{hjd:.6f}")
    return observable_minima(one, **star, site=site, first_jd=hjd - days, last_jd=hjd + days)


def test_the_light_time_is_taken_out():
    """DOMAIN section 5's SS Cyg: HJD 2460963.561506 is JD 2460963.558515, altitude 86.03 deg."""
    (found,) = minima_of(2460963.561506)
    assert found.jd_utc == pytest.approx(2460963.558515, abs=2.5e-6)  # 0.2 s
    assert found.altitude_deg == pytest.approx(86.03, abs=0.02)
    assert found.cycle == 0
    assert found.error_d == pytest.approx(5e-7 + SCALE_ERROR_D)


def test_what_is_over_by_the_light_time_is_not_ahead():
    """The minimum is at JD .558515, 4.3 min before its HJD: a minute after it, it is over."""
    one = read_ephemeris("100.0000", "2460963.561506")
    where = {**SS_CYG, "site": PENNSYLVANIA, "last_jd": 2460964.0}
    assert observable_minima(one, **where, first_jd=2460963.558515 - 0.0007)
    assert not observable_minima(one, **where, first_jd=2460963.558515 + 0.0007)


def test_by_day_and_below_15_degrees_nothing_is_seen():
    """15 October 2025 at 75.8 W: 01:24 UT is night, 17:24 UT is noon; the south is below."""
    assert minima_of(2460963.561506)
    assert not minima_of(2460963.561506 + 16 / 24)
    assert not minima_of(2460963.561506, star={"ra_deg": 325.7, "dec_deg": -40.0})


def test_twilight_begins_at_12_degrees():
    """Sunset to the end of nautical twilight at 40.5 N in mid-October takes about an hour.

    Every minimum of a short period that is found stands in darkness and high enough.
    """
    one = read_ephemeris("0.0100000", "2460963.5000")
    found = observable_minima(
        one, **SS_CYG, site=PENNSYLVANIA, first_jd=2460963.0, last_jd=2460964.0
    )
    assert all(m.sun_altitude_deg <= -12 and m.altitude_deg >= 15 for m in found)
    # Nautical dusk in eastern Pennsylvania on 14 October is about 23:25 UT (sunset 22:24 UT).
    assert found[0].jd_utc == pytest.approx(2460963.476, abs=0.012)
