import datetime as dt
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wombat_dagster.domain import BadPixelMap, CalibrationChoice, FrameGroup, FrameKind, Master
from wombat_dagster.science import matching as cal

GROUP = FrameGroup(width_px=64, height_px=48, binning="1x1", camera="CAM", readout=None)


def master(date, **changes):
    values = {
        "kind": FrameKind.BIAS, "filter": None, "group": GROUP, "path": f"{date}/mbias.fits",
        "content_hash": date, "n_used": 5, "n_refused": 0,
    }  # fmt: skip
    return Master(date=dt.date.fromisoformat(date), **(values | changes))


def closest(masters, **wanted):
    match = cal.match_master(masters, cal.Wanted(**wanted))
    return match.master, match.words


def test_the_nearest_master_may_lie_in_the_future():
    found, words = closest(
        [master("2025-10-10"), master("2025-10-16")],
        kind=FrameKind.BIAS, date=dt.date(2025, 10, 15), group=GROUP,
    )  # fmt: skip
    assert found.date == dt.date(2025, 10, 16)
    assert words == "bias: 2025-10-16, 1 day away"


def test_of_two_equally_near_masters_the_earlier_is_taken():
    found, _ = closest(
        [master("2025-10-16"), master("2025-10-14")],
        kind=FrameKind.BIAS, date=dt.date(2025, 10, 15), group=GROUP,
    )  # fmt: skip
    assert found.date == dt.date(2025, 10, 14)


def test_a_nearer_master_of_another_binning_loses_and_is_named():
    binned = FrameGroup(width_px=32, height_px=24, binning="2x2", camera="CAM", readout=None)
    found, words = closest(
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
    found, _ = closest(masters, kind=FrameKind.BIAS, date=start + dt.timedelta(own), group=GROUP)
    assert abs((found.date - start).days - own) == min(abs(d - own) for d in days)


def test_a_master_too_warm_or_too_old_is_not_used_when_limits_are_set():
    warm = master("2025-10-15", ccd_temperature_c=-5.0)
    found, words = closest(
        [warm], kind=FrameKind.BIAS, date=dt.date(2025, 10, 15), group=GROUP,
        ccd_temperature_c=-20.0, max_temperature_difference_c=2.0,
    )  # fmt: skip
    assert found is None
    assert "-5.0 C" in words
    found, words = closest(
        [master("2025-01-01")], kind=FrameKind.BIAS, date=dt.date(2025, 10, 15), group=GROUP,
        max_age_days=30,
    )  # fmt: skip
    assert found is None
    assert "287 days away, at most 30" in words


def test_a_dark_of_no_exposure_is_compared_without_dividing_by_it():
    dark = master("2025-10-15", kind=FrameKind.DARK, exposure_s=0.0)
    for wanted_s, fits in ((0.0, True), (2.0, False)):
        found, _ = closest(
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


# -------------------------------------------------------------------------------- the runners-up


NIGHT = dt.date(2025, 10, 15)
BINNED = FrameGroup(width_px=32, height_px=24, binning="2x2", camera="CAM", readout=None)


def match(masters, **wanted):
    wanted = {"kind": FrameKind.BIAS, "date": NIGHT, "group": GROUP} | wanted
    return cal.match_master(masters, cal.Wanted(**wanted))


def lost(matched):
    return [(runner_up.date.isoformat(), runner_up.reason) for runner_up in matched.runners_up]


def dark(date, exposure_s, **changes):
    return master(
        date, kind=FrameKind.DARK, exposure_s=exposure_s, path=f"{date}/mdark{exposure_s:g}.fits",
        **{"bias_hash": "b", **changes},
    )  # fmt: skip


def library(date, **changes):
    values = {"from_library": True, "made_by_us": False, "path": f"/library/mbias{date}.fits"}
    return master(date, **(values | changes))


def test_every_runner_up_is_named_with_the_reason_it_lost_nearest_first():
    found = match(
        [
            master("2025-10-17"),
            master("2025-10-13"),
            master("2025-10-20"),
            master("2025-10-15", group=BINNED),
            master("2025-10-14", group=replace(GROUP, camera="OTHER")),
            master("2025-10-01", group=BINNED),
        ]
    )
    assert found.master.date == dt.date(2025, 10, 13)
    assert lost(found) == [
        ("2025-10-15", "same night, but 32x24 2x2, 64x48 1x1 wanted"),
        ("2025-10-14", "1 night closer, but camera OTHER, CAM wanted"),
        ("2025-10-17", "equally near, but later"),
        ("2025-10-20", "3 days further away"),
    ]
    assert {runner_up.kind for runner_up in found.runners_up} == {FrameKind.BIAS}


def test_two_nights_closer_but_binned_otherwise():
    """The words of the issue that asked for them."""
    found = match([master("2025-10-12"), master("2025-10-14", group=BINNED)])
    assert lost(found) == [("2025-10-14", "2 nights closer, but 32x24 2x2, 64x48 1x1 wanted")]


def test_without_a_match_all_that_there_are_are_runners_up():
    found = match(
        [master(f"2025-09-{day:02d}", group=BINNED) for day in range(1, 29)], max_age_days=3
    )
    assert found.master is None
    assert len(found.runners_up) == cal.MAX_RUNNERS_UP
    assert lost(found)[0] == ("2025-09-28", "17 days away, but 32x24 2x2, 64x48 1x1 wanted")


def test_flats_in_other_filters_are_named_only_when_there_is_none_to_take():
    flats = [master("2025-10-15", kind=FrameKind.FLAT, filter=f, path=f"mflat{f}") for f in "BV"]
    wanted = {"kind": FrameKind.FLAT}
    assert match(flats, filter="V", **wanted).runners_up == ()
    assert lost(match(flats, filter="R", **wanted)) == [
        ("2025-10-15", "same night, but filter B"),
        ("2025-10-15", "same night, but filter V"),
    ]


@pytest.mark.parametrize(
    ("exposures_s", "taken_s"),
    [
        ((30.0, 120.0), 120.0),  # scaled down rather than up
        ((600.0, 120.0), 120.0),
        ((30.0, 45.0), 45.0),
        ((600.0, 61.0), 61.0),
        ((59.0, 600.0), 59.0),  # within the tolerance it is the same exposure
    ],
)
def test_of_darks_of_one_night_the_one_nearest_above_the_exposure_is_scaled(exposures_s, taken_s):
    found = match(
        [dark("2025-10-14", exposure_s) for exposure_s in exposures_s],
        kind=FrameKind.DARK, scaled_to_s=60.0,
    )  # fmt: skip
    assert found.master.exposure_s == taken_s
    (other,) = set(exposures_s) - {taken_s}
    assert lost(found) == [
        ("2025-10-14", f"equally near, but {other:g} s: {taken_s:g} s is better scaled to 60 s")
    ]


def test_a_nearer_night_counts_more_than_a_better_exposure():
    found = match(
        [dark("2025-10-10", 60.0), dark("2025-10-14", 300.0)],
        kind=FrameKind.DARK, scaled_to_s=60.0,
    )  # fmt: skip
    assert found.master.exposure_s == 300.0
    assert found.words == "dark: 2025-10-14, 1 day away; 300 s scaled to 60 s"


def test_a_dark_that_holds_the_bias_is_not_scaled_and_one_without_needs_a_bias():
    """The darks of `bsu`: 1 and 1.5 s, no bias, lights of minutes."""
    raw = [dark("2025-10-15", s, bias_hash=None) for s in (1.0, 1.5)]
    found = match(raw, kind=FrameKind.DARK, exposure_s=180.0)
    assert found.master is None
    assert lost(found) == [
        ("2025-10-15", "same night, but exposure 1.5 s, 180 s wanted"),
        ("2025-10-15", "same night, but exposure 1 s, 180 s wanted"),
    ]
    found = match(raw, kind=FrameKind.DARK, scaled_to_s=180.0)
    assert "it holds the bias and cannot be scaled" in found.words
    found = match([dark("2025-10-15", 180.0)], kind=FrameKind.DARK, exposure_s=180.0)
    assert "bias-subtracted, and there is no bias" in found.words


def test_of_darks_that_hold_the_bias_the_one_of_the_lights_own_exposure_is_taken():
    darks = [dark("2025-10-15", s, bias_hash=None) for s in (58.0, 60.0, 62.0)]
    found = match(darks, kind=FrameKind.DARK, exposure_s=60.0)
    assert found.master.exposure_s == 60.0


# ------------------------------------------------------------------------------------ the library


def test_a_library_master_serves_when_no_night_has_one_whatever_its_age():
    kept = library("2020-01-01")
    found = match([kept, master("2025-10-14", group=BINNED)], max_age_days=10)
    assert found.master is kept
    assert found.words == "bias: 2020-01-01 from the library, valid always"
    found = match([kept, master("2025-10-10")])
    assert found.master.date == dt.date(2025, 10, 10)
    assert lost(found) == [("2020-01-01", "from the library: masters of the nights come first")]


def test_a_forced_library_master_comes_before_the_night_s_own():
    found = match([library("2025-01-01", forced=True), master("2025-10-15")])
    assert found.master.forced
    assert "forced" in found.words
    assert lost(found) == [("2025-10-15", "forced library master preferred")]


@pytest.mark.parametrize(
    ("night", "taken"),
    [
        (dt.date(2025, 1, 31), "old"),  # both ends are included
        (dt.date(2025, 2, 1), "new"),
        (dt.date(2025, 4, 30), "new"),
        (dt.date(2025, 5, 1), "old"),
        (dt.date(2024, 12, 31), None),
    ],
)
def test_of_several_valid_masters_the_one_valid_since_last(night, taken):
    masters = [
        library("2025-01-01", valid_from=dt.date(2025, 1, 1), path="old"),
        library(
            "2025-02-01", valid_from=dt.date(2025, 2, 1), valid_until=dt.date(2025, 4, 30),
            path="new",
        ),
    ]  # fmt: skip
    found = match(masters, date=night)
    assert (found.master and found.master.path) == taken
    if taken is None:
        assert "valid from 2025-01-01" in found.words


def test_of_masters_valid_for_ever_the_nearest():
    found = match([library("2020-01-01"), library("2025-01-01")])
    assert found.master.date == dt.date(2025, 1, 1)


@given(
    days=st.lists(st.integers(-40, 40), min_size=1, max_size=6, unique=True),
    forced=st.lists(st.booleans(), min_size=6, max_size=6),
)
def test_the_order_in_which_masters_are_given_does_not_matter(days, forced):
    start = NIGHT
    masters = [
        library((start + dt.timedelta(d)).isoformat(), forced=f)
        if d % 2
        else master((start + dt.timedelta(d)).isoformat())
        for d, f in zip(days, forced, strict=False)
    ]
    assert match(masters) == match(masters[::-1])


# ---------------------------------------------------------------------------- what is not stated


@pytest.mark.parametrize(
    ("master_camera", "camera", "words"),
    [
        (None, "CAM", "camera CAM taken on trust: the master does not state it"),
        ("CAM", None, "camera CAM taken on trust: the frames do not state it"),
        ("CAM", "CAM", None),
        (None, None, None),
    ],
)
def test_a_camera_that_one_side_does_not_state_matches_and_is_said(master_camera, camera, words):
    found = match(
        [master("2025-10-15", group=replace(GROUP, camera=master_camera))],
        group=replace(GROUP, camera=camera),
    )
    assert found.master is not None
    assert found.words == "bias: 2025-10-15, same night" + (f"; {words}" if words else "")


def test_a_person_s_master_need_not_state_the_readout():
    gain = replace(GROUP, readout="GAIN=100")
    assert "readout GAIN=100 taken on trust" in match([master("2025-10-15")], group=gain).words
    assert "trust" not in match([library("2025-10-15")], group=gain).words
    assert "trust" not in match([master("2025-10-15", made_by_us=False)], group=gain).words


# ------------------------------------------------------------------------------- bad-pixel maps


def bad_pixels(date, group=GROUP):
    return BadPixelMap(
        date=dt.date.fromisoformat(date), group=group, path=f"{date}.fits", content_hash=date,
        n_bad=7, sources=(FrameKind.DARK,),
    )  # fmt: skip


def test_the_map_of_bad_pixels_is_the_closest_of_the_chip_in_any_readout():
    other_mode = replace(GROUP, readout="GAIN=100")
    maps = [
        bad_pixels("2025-10-17", other_mode),
        bad_pixels("2025-10-13", other_mode),
        bad_pixels("2025-10-15", BINNED),
        bad_pixels("2025-10-15", replace(GROUP, camera="OTHER")),
    ]
    found = cal.closest_map(maps, date=NIGHT, group=GROUP)
    assert found.date == dt.date(2025, 10, 13)
    own = bad_pixels("2025-10-15")
    assert cal.closest_map([*maps, own], date=NIGHT, group=GROUP) is own
    assert cal.closest_map(maps[2:], date=NIGHT, group=GROUP) is None
