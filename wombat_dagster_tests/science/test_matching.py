import datetime as dt

from hypothesis import given
from hypothesis import strategies as st

from wombat_dagster.domain import CalibrationChoice, FrameGroup, FrameKind, Master
from wombat_dagster.science import matching as cal

GROUP = FrameGroup(width_px=64, height_px=48, binning="1x1", camera="CAM", readout=None)


def master(date, **changes):
    values = {
        "kind": FrameKind.BIAS, "filter": None, "group": GROUP, "path": f"{date}/mbias.fits",
        "content_hash": date, "n_used": 5, "n_refused": 0,
    }  # fmt: skip
    return Master(date=dt.date.fromisoformat(date), **(values | changes))


def test_the_nearest_master_may_lie_in_the_future():
    found, words = cal.closest_master(
        [master("2025-10-10"), master("2025-10-16")],
        kind=FrameKind.BIAS, date=dt.date(2025, 10, 15), group=GROUP,
    )  # fmt: skip
    assert found.date == dt.date(2025, 10, 16)
    assert "1 days away" in words


def test_of_two_equally_near_masters_the_earlier_is_taken():
    found, _ = cal.closest_master(
        [master("2025-10-16"), master("2025-10-14")],
        kind=FrameKind.BIAS, date=dt.date(2025, 10, 15), group=GROUP,
    )  # fmt: skip
    assert found.date == dt.date(2025, 10, 14)


def test_a_nearer_master_of_another_binning_loses_and_is_named():
    binned = FrameGroup(width_px=32, height_px=24, binning="2x2", camera="CAM", readout=None)
    found, words = cal.closest_master(
        [master("2025-10-15", group=binned)],
        kind=FrameKind.BIAS, date=dt.date(2025, 10, 15), group=GROUP,
    )  # fmt: skip
    assert found is None
    assert "32x24 2x2" in words


@given(
    days=st.lists(st.integers(-400, 400), min_size=1, max_size=8, unique=True),
    own=st.integers(-400, 400),
)
def test_no_other_night_is_nearer(days, own):
    start = dt.date(2025, 6, 1)
    masters = [master((start + dt.timedelta(d)).isoformat()) for d in days]
    found, _ = cal.closest_master(
        masters, kind=FrameKind.BIAS, date=start + dt.timedelta(own), group=GROUP
    )
    assert abs((found.date - start).days - own) == min(abs(d - own) for d in days)


def test_a_master_too_warm_or_too_old_is_not_used_when_limits_are_set():
    warm = master("2025-10-15", ccd_temperature_c=-5.0)
    found, words = cal.closest_master(
        [warm], kind=FrameKind.BIAS, date=dt.date(2025, 10, 15), group=GROUP,
        ccd_temperature_c=-20.0, max_temperature_difference_c=2.0,
    )  # fmt: skip
    assert found is None
    assert "-5.0 C" in words
    found, words = cal.closest_master(
        [master("2025-01-01")], kind=FrameKind.BIAS, date=dt.date(2025, 10, 15), group=GROUP,
        max_age_days=30,
    )  # fmt: skip
    assert found is None
    assert "287 days away, at most 30" in words


def test_a_dark_of_no_exposure_is_compared_without_dividing_by_it():
    dark = master("2025-10-15", kind=FrameKind.DARK, exposure_s=0.0)
    for wanted_s, fits in ((0.0, True), (2.0, False)):
        found, _ = cal.closest_master(
            [dark], kind=FrameKind.DARK, date=dt.date(2025, 10, 15), group=GROUP,
            exposure_s=wanted_s,
        )  # fmt: skip
        assert (found is not None) is fits


def test_a_bias_and_dark_in_one_is_not_a_missing_bias():
    dark, flat = master("2025-10-15", kind=FrameKind.DARK), master("2025-10-15")
    for bias_dark, missing in ((dark, ()), (None, ("bias",))):
        choice = CalibrationChoice(bias=None, dark=bias_dark, flat=flat, reasons=())
        assert choice.missing == missing
    assert CalibrationChoice(bias=flat, dark=None, flat=None, reasons=()).missing == ("flat",)
