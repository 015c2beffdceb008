"""What headers claim of time and place; the cards are those of real frames, typed off."""

import datetime as dt

import pytest
from astropy.io import fits

from wombat_dagster.store.header_claims import header_claims

JD_OF_1970 = 2440587.5


def jd(year, *rest):
    moment = dt.datetime(year, *rest, tzinfo=dt.UTC)
    return JD_OF_1970 + moment.timestamp() / 86400


def claims_of(cards):
    claims = header_claims(fits.Header(list(cards.items())), "x.fit")
    return claims, {time.card: time for time in claims.times}


def test_theskyx_writes_local_time_in_american_order():
    claims, times = claims_of(
        {
            "DATE-OBS": "2018-10-13T02:30:53.051",
            "LOCALTIM": "10/12/2018 10:30:53.049 PM DST",
            "LST": "+23 11 21.28",
            "TELEHA": "-05 01 58.25",
            "CENTALT": 25.6935880241738,
            "AIRMASS": 2.3053668981219,
        }
    )
    assert times["LOCALTIM"].moment == "local"
    assert times["LOCALTIM"].jd == pytest.approx(jd(2018, 10, 12, 22, 30, 53), abs=1e-5)
    assert claims.start_card == "DATE-OBS"
    assert claims.sidereal_h == pytest.approx(23 + 11 / 60 + 21.28 / 3600)
    assert claims.hour_angle_h == pytest.approx(-(5 + 1 / 60 + 58.25 / 3600))
    assert (claims.altitude_card, claims.airmass) == ("CENTALT", 2.3053668981219)


def test_microobservatory_writes_its_hour_angle_in_degrees_and_times_with_offsets():
    claims, times = claims_of(
        {
            "DATE-OBS": "2017-12-19T18:33:43.317-0700",
            "DATE-END": "2017-12-19T18:34:45.277-0700",
            "UT-OBS": "2017-12-20T01:33:43.317-0000",
            "MJD-OBS": 58107.065,
            "LST-OBS": "17:04:23",
            "HA": 330.063740,
            "TELALT": 62.592,
        }
    )
    start = jd(2017, 12, 20, 1, 33, 43, 317000)
    assert times["DATE-OBS"].jd == times["UT-OBS"].jd == pytest.approx(start, abs=1e-8)
    assert times["DATE-END"].moment == "end"
    assert times["MJD-OBS"].resolution_s == pytest.approx(86.4)
    assert claims.hour_angle_h == pytest.approx(330.06374 / 15 - 24)


def test_maxim_writes_heliocentric_days_and_the_jd():
    _, times = claims_of(
        {"DATE-OBS": "2022-10-30T01:52:45", "JD": 2459882.5782986111, "JD-HELIO": 2459882.5836152}
    )
    assert times["JD"].moment == "ut"
    assert times["JD-HELIO"].moment == "heliocentric"


def test_a_time_in_two_cards_and_a_broken_one():
    _, times = claims_of({"DATE-OBS": "2022-10-30", "TIME-OBS": "01:52:45", "LOCALTIM": "late"})
    assert times["DATE-OBS and TIME-OBS"].jd == pytest.approx(jd(2022, 10, 30, 1, 52, 45))
    assert set(times) == {"DATE-OBS and TIME-OBS"}


def test_a_local_time_system_is_no_claim_of_ut():
    _, times = claims_of({"DATE-OBS": "2022-10-30T01:52:45", "TIMESYS": "LOCAL", "JD": 2459882.57})
    assert set(times) == {"JD"}


def test_an_empty_header_claims_nothing():
    claims, times = claims_of({})
    assert times == {}
    assert claims.sidereal_h is claims.hour_angle_h is claims.altitude_deg is None
