"""Which observations are of a star, and what becomes of its magnitudes over nights."""

import dataclasses
import datetime as dt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wombat_dagster import config
from wombat_dagster.observatory import Observatory
from wombat_dagster.stages import curve as stage
from wombat_dagster.stages.curve import NoCurve, curve_of, find_star, known_observations
from wombat_dagster_tests.curves import (
    FIRST,
    HOST,
    TX_ERI,
    hours,
    magnitudes,
    observation,
    part,
    store,
)

R_CAR = dataclasses.replace(TX_ERI, name="R Car", oid="5001", ra_deg=143.0, dec_deg=-62.0)
SMALL_R_CAR = dataclasses.replace(TX_ERI, name="r Car", oid="5002", ra_deg=158.0, dec_deg=-57.0)


@pytest.fixture
def observatory(tmp_path):
    return Observatory(config.Settings(base=tmp_path))


def observed(observatory, night=0, band="V", *, star=TX_ERI, target=None, **how):
    """Store a measured observation of `star`."""
    one = observation(night, band, target or star.name)
    standard = how.pop("standard", None) or magnitudes(hours(night), 12.0 + night / 10, band=band)
    products = {"variable": star, "standard_magnitudes": standard}
    return store(observatory, one, **products | how)


def whole_curve(observatory, asked="TX Eri", **selection):
    known = known_observations(observatory)
    return curve_of(observatory, known, find_star(known, asked), **selection)


# ----------------------------------------------------------------------------- which star is meant


@pytest.mark.parametrize(
    "asked",
    ["TX Eri", "tx eri", "TX_Eri", " TX  Eri ", "11111", "000-BBB-111", "000-bbb-111",
     "64.5,-10.25", "64.5, -10.252", "04:18:00.0,-10:15:00", "04 18 00, -10 15 00",
     "4h18m0s,-10d15m0s"],
)  # fmt: skip
def test_a_star_is_found_by_name_number_auid_and_position(observatory, asked):
    observed(observatory)
    observed(observatory, star=HOST)
    assert find_star(known_observations(observatory), asked) == TX_ERI


def test_the_directory_s_name_finds_the_star_that_vsx_calls_otherwise(observatory):
    observed(observatory, target="GSC 5903.00430")
    assert find_star(known_observations(observatory), "gsc 5903.00430") == TX_ERI


def test_a_history_goes_by_the_star_not_by_the_directory(observatory):
    observed(observatory, 0, target="TX Eri")
    observed(observatory, 1, target="my favourite")
    observed(observatory, 2, target="TX Eri", star=HOST)  # a directory named by mistake
    assert [night.target for night in whole_curve(observatory).nights] == ["TX Eri", "my favourite"]


def test_a_star_from_the_configuration_and_from_vsx_is_one_by_position(observatory):
    bare = dataclasses.replace(TX_ERI, oid=None, auid=None, ra_deg=TX_ERI.ra_deg + 5 / 3600)
    observed(observatory, 0, star=bare)
    observed(observatory, 1)
    assert len(whole_curve(observatory).nights) == 2


def test_two_numbers_within_10_arcsec_are_two_stars(observatory):
    near = dataclasses.replace(TX_ERI, name="TX Eri B", oid="99", dec_deg=TX_ERI.dec_deg + 4 / 3600)
    observed(observatory)
    observed(observatory, star=near)
    assert len(whole_curve(observatory).nights) == 1
    with pytest.raises(NoCurve, match=r"may be 2 stars: TX Eri \(OID 11111\), TX Eri B \(OID 99\)"):
        find_star(known_observations(observatory), "64.5,-10.25")


def test_r_car_and_r_car_are_told_apart_by_the_letter(observatory):
    observed(observatory, star=R_CAR)
    with pytest.raises(NoCurve, match="'R Car' is there, which may be another star"):
        find_star(known_observations(observatory), "r Car")
    observed(observatory, star=SMALL_R_CAR, target="the small one")
    known = known_observations(observatory)
    assert find_star(known, "r Car") == SMALL_R_CAR
    assert find_star(known, "R_Car") == R_CAR
    assert stage.file_stem(known, R_CAR) == "R_Car-5001"
    assert stage.file_stem(known, SMALL_R_CAR) == "r_Car-5002"


def test_an_unknown_star_is_said_with_what_is_there(observatory):
    observed(observatory)
    observed(observatory, star=HOST)
    known = known_observations(observatory)
    with pytest.raises(NoCurve, match="'SS Cyg'; there are: TX Eri, WASP-135"):
        find_star(known, "SS Cyg")
    with pytest.raises(NoCurve, match=r'no observed star within 10" of 64\.50000,-11'):
        find_star(known, "64.5,-11")


@pytest.mark.parametrize("asked", ["400,0", "10,-95", "25:00:00,0:00:00", "1:60:00,0:00:00"])
def test_what_is_no_place_on_the_sky_is_refused(observatory, asked):
    with pytest.raises(NoCurve, match="no place on the sky"):
        find_star(known_observations(observatory), asked)


def test_minus_zero_degrees_are_south():
    """-00:30:00 by hand: half a degree south."""
    assert stage.parse_position("12:00:00,-00:30:00") == (180.0, -0.5)


@settings(deadline=None)
@given(st.floats(0, 359.99), st.floats(-89, 89))
def test_a_position_finds_a_star_within_10_arcsec_and_none_beyond(ra_deg, dec_deg):
    row = None
    star = dataclasses.replace(TX_ERI, ra_deg=ra_deg, dec_deg=dec_deg)
    known = [stage.Known(row=row, variable=star)]
    assert find_star(known, f"{ra_deg:.8f},{dec_deg + 9.9 / 3600:.8f}") == star
    with pytest.raises(NoCurve):
        find_star(known, f"{ra_deg:.8f},{dec_deg + 10.2 / 3600:.8f}")


# -------------------------------------------------------------------------------------- the curve


def test_points_of_all_nights_stand_in_time_order_with_their_night(observatory):
    observed(observatory, 3)
    observed(observatory, 0)
    observed(observatory, 0, "B")
    curve = whole_curve(observatory)
    assert len(curve) == 60
    assert (np.diff(curve.jd_utc) >= 0).all()
    last = curve.night_index == [n.key for n in curve.nights].index("20251017__TX_Eri__V")
    assert curve.mag[last] == pytest.approx(12.3)
    assert curve.bands == ("B", "V")
    assert curve.labels[:2] == ("B0.fit", "V0.fit")  # at the same time
    assert [label[0] for label in curve.labels] == list(curve.point_bands)


def test_filters_bands_and_nights_are_selected(observatory):
    observed(observatory, 0, standard=magnitudes(hours(), 12.0, band="SR"), band="r'")
    observed(observatory, 1)
    observed(observatory, 2)
    keys = lambda **how: [n.date.day for n in whole_curve(observatory, **how).nights]  # noqa: E731
    assert keys(filters=["r'"]) == keys(filters=["SR"]) == keys(filters=["sr"]) == [14]
    assert keys(filters=["V"], first=dt.date(2025, 10, 16)) == [16]
    assert keys(last=dt.date(2025, 10, 15)) == [14, 15]
    with pytest.raises(NoCurve, match=r"in 'B'; there are: r' \(SR\), V"):
        keys(filters=["B"])
    with pytest.raises(NoCurve, match="its 3 nights are 2025-10-14 to 2025-10-16"):
        keys(first=dt.date(2026, 1, 1))


def test_small_r_and_capital_r_are_two_filters(observatory):
    observed(observatory, 0, "R")
    observed(observatory, 1, standard=magnitudes(hours(1), 12.0, band="SR"), band="r")
    (night,) = whole_curve(observatory, filters=["r"]).nights
    assert night.band == "SR"


def test_what_is_not_measured_is_left_out_with_its_words(observatory):
    observed(observatory, 0)
    observed(observatory, 1, apphot="nocomps", reason="0 of 12 stars usable")  # older magnitudes
    gone = observed(observatory, 2)
    bad = observed(observatory, 3)
    store(observatory, observation(4), apphot="novsp", reason="VSP is away")
    layout = observatory.layout
    (layout.observation_dir(gone) / "magnitudes.csv").unlink()
    (layout.observation_dir(bad) / "magnitudes.csv").write_bytes(b"# wombat \xff\x00")
    curve = whole_curve(observatory)
    assert [night.date for night in curve.nights] == [FIRST]
    assert [(one.date.day, one.words, one.reason) for one in curve.left_out[:2]] == [
        (15, "nocomps", "0 of 12 stars usable"),
        (16, "validate", "magnitudes.csv is gone"),
    ]
    assert "magnitudes.csv is damaged" in curve.left_out[2].reason
    assert (curve.left_out[3].words, curve.left_out[3].reason) == ("novsp", "VSP is away")


def test_a_damaged_record_of_the_star_costs_its_own_night_only(observatory):
    observed(observatory, 0)
    bad = observed(observatory, 1)
    (observatory.layout.observation_dir(bad) / "variable.json").write_text("{")
    curve = whole_curve(observatory)
    assert len(curve.nights) == 1
    assert "variable.json is damaged" in curve.left_out[0].reason


def test_no_magnitudes_yet_is_said_with_every_ending(observatory):
    store(observatory, observation(), apphot="novsx", reason="VSX knows none of 'TX Eri'")
    known = known_observations(observatory)
    with pytest.raises(NoCurve, match=r"no magnitudes.*: novsx \(VSX knows none"):
        find_star(known, "TX Eri")
    observed(observatory, 1, apphot="nocomps", reason="empty chart")
    with pytest.raises(NoCurve, match=r"20251015__TX_Eri__V: nocomps \(empty chart\)"):
        whole_curve(observatory)


def test_a_held_night_is_in_the_curve_and_marked(observatory):
    held = magnitudes(hours(), 12.0, held_reason="T2 off by 0.3 mag")
    observed(observatory, 0, standard=held, apphot="held")
    observed(observatory, 1)
    curve = whole_curve(observatory)
    assert curve.doubtful.sum() == 20
    assert len(curve.where(~curve.doubtful)) == 20


# ------------------------------------------------------------------------------------------ period


def test_the_period_of_the_configuration_goes_before_vsx_s(tmp_path):
    target = config.TargetSettings(directory=["tx eri"], period_d=0.5)
    observatory = Observatory(config.Settings(base=tmp_path, target=[target]))
    observed(observatory)
    fold = stage.fold_of(observatory, whole_curve(observatory))
    assert fold.period_d == 0.5
    assert "wombat.toml" in fold.words


def test_an_unknown_period_is_refused_and_an_unknown_epoch_is_said(observatory):
    unknown = dataclasses.replace(TX_ERI, period_d=None)
    with pytest.raises(NoCurve, match="the period of TX Eri is not known"):
        stage.fold_of(observatory, stage.concatenate(unknown, [part()]))
    without_epoch = dataclasses.replace(TX_ERI, epoch_hjd=None)
    fold = stage.fold_of(observatory, stage.concatenate(without_epoch, [part()]))
    assert fold.epoch_hjd == pytest.approx(2460963.55)
    assert "no epoch known" in fold.words
