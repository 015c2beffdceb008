"""Every trap of times and places found in made-up headers, and silence where all is well.

The sky of each case is astropy's, asked here from the true place; the audit must find out what was
done to the header.
"""

import datetime as dt
from dataclasses import fields

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import AltAz, EarthLocation, HADec, SkyCoord
from astropy.time import Time

from wombat_dagster.domain import (
    FrameKind,
    HeaderClaims,
    RawFrame,
    Severity,
    Site,
    TimeClaim,
)
from wombat_dagster.science.audit import Target, audit
from wombat_dagster.science.timing import bundled_earth_tables

MASSACHUSETTS = Site(latitude_deg=42.61, longitude_deg=-71.485)
TARGET = Target(ra_deg=63.05, dec_deg=22.88, source="test")
FIRST = dt.datetime(2018, 10, 13, 2, 3, 0)  # noqa: DTZ001 - UTC, as in RawFrame.start_utc
NIGHT = dt.date(2018, 10, 12)
EXPOSURE_S, CADENCE_S = 120.0, 180.0


def raw_frame(index, start, **changes):
    empty = {field.name: None for field in fields(RawFrame)}
    return RawFrame(
        **empty
        | {
            "path": f"20181012/Light/X/x-{index:04d}.fit",
            "night_directory": "20181012",
            "date": NIGHT,
            "kind": FrameKind.LIGHT,
            "start_utc": start.isoformat(timespec="microseconds"),
            "exposure_s": EXPOSURE_S,
            "size_bytes": 1,
            "mtime_ns": 1_700_000_000_000_000_000,
            "warnings": (),
        }
        | changes
    )


def night(n=12, *, shift_h=0.0, first=FIRST, **changes):
    """Frames whose DATE-OBS is `shift_h` ahead of the truth."""
    starts = [first + dt.timedelta(seconds=CADENCE_S * i) for i in range(n)]
    return [
        raw_frame(i + 1, start + dt.timedelta(hours=shift_h), **changes)
        for i, start in enumerate(starts)
    ]


def witnesses(frames, site, *, shift_h=0.0, cards=("sidereal", "hour", "altitude", "airmass")):
    """What a capture program at `site` writes that knows the true time."""
    found = []
    with bundled_earth_tables():
        place = EarthLocation.from_geodetic(site.longitude_deg * u.deg, site.latitude_deg * u.deg)
        star = SkyCoord(TARGET.ra_deg, TARGET.dec_deg, unit="deg")
        for frame in (frames[0], frames[len(frames) // 2], frames[-1]):
            moment = Time(frame.start_utc, scale="utc") - shift_h * u.hour
            altaz = star.transform_to(AltAz(obstime=moment, location=place))
            angle = star.transform_to(HADec(obstime=moment, location=place)).ha.hour
            values = {
                "sidereal": {
                    "sidereal_h": moment.sidereal_time("mean", place.lon).hour,
                    "sidereal_card": "LST",
                },
                "hour": {"hour_angle_h": float(angle), "hour_angle_card": "HA"},
                "altitude": {
                    "altitude_deg": float(altaz.alt.deg) + 0.02,
                    "altitude_card": "CENTALT",
                },
                "airmass": {"airmass": float(altaz.secz)},
            }
            chosen = {name: v for card in cards for name, v in values[card].items()}
            found.append(
                HeaderClaims(
                    raw=frame.path,
                    start_card="DATE-OBS",
                    ra_deg=TARGET.ra_deg,
                    dec_deg=TARGET.dec_deg,
                    **chosen,
                )
            )
    return found


def header(latitude_deg, longitude_deg):
    return Site(latitude_deg=latitude_deg, longitude_deg=longitude_deg, source="SITELAT, SITELONG")


def warnings_of(findings):
    return [(one.about, one.words) for one in findings if one.severity is Severity.WARNING]


def test_a_night_where_all_is_right_is_silent():
    frames = night(site_hint=header(42.61, -71.485))
    for configured in (MASSACHUSETTS, None):
        claims = witnesses(frames, MASSACHUSETTS)
        assert audit(frames, claims, configured=configured, target=TARGET) == ()


@pytest.mark.parametrize("cards", [("sidereal",), ("hour",), ("altitude", "airmass")])
def test_a_longitude_counted_to_the_west_is_found_by_any_witness(cards):
    frames = night(site_hint=header(42.61, 71.485))
    claims = witnesses(frames, MASSACHUSETTS, cards=cards)
    ((about, words),) = warnings_of(audit(frames, claims, configured=None, target=TARGET))
    assert about == "longitude"
    assert "the header's longitude +71.4850 counts to the west" in words
    assert "write [site] longitude_deg = -71.4850" in words


def test_a_configured_longitude_of_the_wrong_sign_is_found():
    frames = night()
    wrong = Site(latitude_deg=42.61, longitude_deg=71.485)
    claims = witnesses(frames, MASSACHUSETTS)
    found = warnings_of(audit(frames, claims, configured=wrong, target=TARGET))
    assert any("[site] longitude_deg +71.4850 counts to the west" in words for _, words in found)


def test_a_header_that_counts_to_the_west_beside_a_right_configuration_is_a_note():
    frames = night(site_hint=header(42.61, 71.485))
    claims = witnesses(frames, MASSACHUSETTS)
    (one,) = audit(frames, claims, configured=MASSACHUSETTS, target=TARGET)
    assert (one.severity, one.about) == (Severity.NOTE, "longitude")


@pytest.mark.parametrize("is_configured", [True, False])
def test_a_sign_applied_to_the_degrees_only_is_found(is_configured):
    """-71:29:06 read as -71 + 0.485: what a careless parser makes of it."""
    careless = Site(latitude_deg=42.61, longitude_deg=-71 + 0.485, source="test")
    frames = night(site_hint=None if is_configured else careless)
    claims = witnesses(frames, MASSACHUSETTS)
    found = audit(frames, claims, configured=careless if is_configured else None, target=TARGET)
    ((about, words),) = warnings_of(found)
    assert about == "sign"
    assert "sign on the degrees only (it fits as -71.4850" in words


def test_a_latitude_with_its_sign_on_the_degrees_only_is_found():
    """-7:30 read as -6.5 moves the horizon by a degree: altitude and airmass tell."""
    lima = Site(latitude_deg=-7.5, longitude_deg=-71.485)
    careless = Site(latitude_deg=-6.5, longitude_deg=-71.485)
    frames = night(first=FIRST + dt.timedelta(hours=4))
    claims = witnesses(frames, lima, cards=("altitude",))
    ((about, words),) = warnings_of(audit(frames, claims, configured=careless, target=TARGET))
    assert about == "sign"
    assert "it fits as -7.5000" in words


@pytest.mark.parametrize("zone_h", [-4.0, -5.0])
def test_local_time_in_a_ut_field_puts_the_sun_up_and_the_zone_is_named(zone_h):
    """Two UT is ten in the evening of summer time; read as UT it is still day in Massachusetts."""
    frames = night(shift_h=zone_h, first=FIRST - dt.timedelta(hours=1.2))
    ((about, words),) = warnings_of(audit(frames, [], configured=MASSACHUSETTS, target=None))
    assert about == "sun"
    assert "taken as local time" in words
    assert f"UT{zone_h:+g}" in words


def test_local_time_is_told_by_the_header_s_own_sky_too():
    frames = night(shift_h=-4.0)
    claims = witnesses(frames, MASSACHUSETTS, shift_h=-4.0)
    found = warnings_of(audit(frames, claims, configured=MASSACHUSETTS, target=TARGET))
    zone = [words for about, words in found if about == "zone"]
    assert len(zone) == 1
    assert "all fit as UT-4" in zone[0]


def test_a_target_below_the_horizon_is_found_and_what_would_lift_it():
    """HAT-P-32 from Arizona, with the longitude's sign wrong: -10.8 deg (see test_site)."""
    wrong = Site(latitude_deg=31.68, longitude_deg=110.88)
    frames = night(first=dt.datetime(2017, 12, 20, 1, 33, 43), date=dt.date(2017, 12, 19))  # noqa: DTZ001
    target = Target(ra_deg=31.04, dec_deg=46.69, source="test")
    found = warnings_of(audit(frames, [], configured=wrong, target=target))
    ((about, words),) = found
    assert about in {"sun", "horizon"}
    assert "the target down to -11 deg" in words
    assert "with the longitude's sign changed (-110.8800) it fits" in words


@pytest.mark.parametrize("cards", [("sidereal",), ("hour",), ("sidereal", "hour")])
def test_no_time_zone_is_offered_that_the_sidereal_cards_exclude(cards):
    """With the wrong sign of the longitude 5 h would lift the target, too."""
    there = Site(latitude_deg=31.68, longitude_deg=-110.88)
    wrong = Site(latitude_deg=31.68, longitude_deg=110.88)
    first = dt.datetime(2018, 10, 13, 6, 0)  # noqa: DTZ001
    frames = night(first=first)

    def said(claims):
        found = warnings_of(audit(frames, claims, configured=wrong, target=TARGET))
        return next(words for about, words in found if about in {"sun", "horizon"})

    assert "taken as local time" in said([])
    words = said(witnesses(frames, there, cards=cards))
    assert "with the longitude's sign changed (-110.8800) it fits" in words
    assert "local time" not in words


def test_where_the_sidereal_cards_exclude_everything_no_remedy_is_made_up():
    elsewhere = Site(latitude_deg=42.61, longitude_deg=-20.0)
    frames = night(shift_h=-4.0, first=FIRST - dt.timedelta(hours=1.2))
    claims = witnesses(frames, elsewhere, cards=("sidereal", "hour"))
    found = warnings_of(audit(frames, claims, configured=MASSACHUSETTS, target=TARGET))
    (words,) = [words for about, words in found if about in {"sun", "horizon"}]
    assert "nothing that hour angle (HA) and sidereal time (LST) would allow" in words


def test_one_card_against_all_others_is_the_card_s_fault():
    """MicroObservatory's LST-OBS is of its local time, 7 h off; altitude and hour angle are not."""
    frames = night()
    claims = [
        HeaderClaims(
            **{f.name: getattr(one, f.name) for f in fields(HeaderClaims)}
            | {"sidereal_h": (one.sidereal_h - 7.0) % 24}
        )
        for one in witnesses(frames, MASSACHUSETTS)
    ]
    (one,) = audit(frames, claims, configured=MASSACHUSETTS, target=TARGET)
    assert (one.severity, one.about) == (Severity.NOTE, "cards")
    assert "sidereal time (LST) off by -7.00 h" in one.words


def test_of_places_that_fit_alike_the_one_gone_by_is_kept():
    """Near Greenwich the sign hardly matters, and a broken clock decides nothing."""
    here, there = (Site(latitude_deg=51.5, longitude_deg=sign * 0.25) for sign in (1, -1))
    frames = night()
    claims = [
        HeaderClaims(
            **{f.name: getattr(one, f.name) for f in fields(HeaderClaims)}
            | {"sidereal_h": (one.sidereal_h + 5.3) % 24, "sidereal_card": "LST"}
        )
        for one in witnesses(frames, there, cards=("sidereal", "hour"))
    ]
    assert warnings_of(audit(frames, claims, configured=here, target=TARGET)) == []


def test_witnesses_that_no_usual_mistake_explains_are_loud():
    frames = night()
    elsewhere = Site(latitude_deg=20.0, longitude_deg=-101.3)
    claims = witnesses(frames, elsewhere)
    ((about, words),) = warnings_of(audit(frames, claims, configured=MASSACHUSETTS, target=TARGET))
    assert about == "site"
    assert "site or time wrong" in words


def test_a_configured_site_far_from_the_header_s_is_said():
    frames = night(site_hint=header(52.0, 5.0))
    ((about, words),) = warnings_of(audit(frames, [], configured=MASSACHUSETTS, target=TARGET))
    assert about == "site"
    assert "not the same place" in words


def test_no_site_and_no_position_are_said_once_each():
    (one,) = audit(night(), [], configured=None, target=None)
    assert "no site" in one.words
    frames = night(site_hint=header(42.61, -71.485))
    found = audit(frames, [], configured=None, target=TARGET, no_site="fits with either sign")
    assert any("fits with either sign" in words for _, words in warnings_of(found))


# -------------------------------------------------------------------------------------- time cards


def with_card(frames, card, seconds, moment="ut", resolution_s=1.0):
    """Give the claims of the first frame with one more card, `seconds` after its start."""
    start = Time(frames[0].start_utc, scale="utc").jd
    claim = TimeClaim(
        card=card, jd=start + seconds / 86400, moment=moment, resolution_s=resolution_s
    )
    return [HeaderClaims(raw=frames[0].path, start_card="DATE-OBS", times=(claim,))]


@pytest.mark.parametrize(
    ("card", "seconds", "moment", "severity", "about", "words"),
    [
        ("UT-OBS", 4 * 3600.0, "ut", Severity.WARNING, "zone", "UT-OBS is 4.00 h after"),
        ("JD", -86400.0, "ut", Severity.WARNING, "zone", "24.00 h before"),
        ("JD", 300.0, "ut", Severity.WARNING, "cards", "JD is 3.0 min after"),
        ("UT", 125.0, "ut", Severity.NOTE, "cards", "UT is 5 s after"),
        ("DATE-END", 500.0, "end", Severity.WARNING, "cards", "DATE-END is 6.3 min after"),
        ("LOCALTIM", 0.0, "local", Severity.WARNING, "zone", "LOCALTIM is UT+0"),
        ("LOCALTIM", -4 * 3600.0 + 37, "local", Severity.NOTE, "cards", "UT-4 of DATE-OBS but"),
    ],
)  # fmt: skip
def test_a_time_card_that_contradicts_is_named_with_the_difference(
    card, seconds, moment, severity, about, words
):
    frames = night()
    claims = with_card(frames, card, seconds, moment)
    (one,) = audit(frames, claims, configured=MASSACHUSETTS, target=TARGET)
    assert (one.severity, one.about) == (severity, about)
    assert words in one.words


@pytest.mark.parametrize(
    ("card", "seconds", "moment", "resolution_s"),
    [
        ("JD", 0.0, "ut", 0.001),
        ("JD", EXPOSURE_S / 2, "ut", 0.001),  # the middle is meant
        ("MJD-OBS", -80.0, "ut", 86.4),  # three decimals
        ("DATE-END", EXPOSURE_S + 3, "end", 1.0),  # with the readout
        ("LOCALTIM", -4 * 3600.0, "local", 1.0),
        ("LOCALTIM", -5 * 3600.0, "local", 1.0),
    ],
)
def test_a_time_card_that_fits_is_passed_over(card, seconds, moment, resolution_s):
    frames = night()
    claims = with_card(frames, card, seconds, moment, resolution_s)
    assert audit(frames, claims, configured=MASSACHUSETTS, target=TARGET) == ()


# -------------------------------------------------------------- order, files, the night's directory


def configured(frames):
    return audit(frames, [], configured=MASSACHUSETTS, target=TARGET)


def test_a_date_that_does_not_change_at_midnight_is_found_by_the_files_numbers():
    frames = night(first=dt.datetime(2018, 10, 12, 23, 45))  # noqa: DTZ001
    day = dt.timedelta(days=1)
    stuck = [
        raw_frame(i + 1, start - day if start.day == 13 else start)
        for i, start in enumerate(dt.datetime.fromisoformat(f.start_utc) for f in frames)
    ]
    words = [words for about, words in warnings_of(configured(stuck)) if about == "order"]
    assert len(words) == 1
    assert "x-0006.fit says it began 23.95 h before x-0005.fit" in words[0]
    assert "the date did not change at midnight?" in words[0]


def test_a_clock_set_back_by_an_hour_is_found_by_the_files_numbers():
    frames = night()
    set_back = [
        raw_frame(i + 1, dt.datetime.fromisoformat(f.start_utc) - dt.timedelta(hours=int(i >= 6)))
        for i, f in enumerate(frames)
    ]
    set_back.sort(key=lambda frame: frame.start_utc)  # as the pipeline has them
    words = [words for about, words in warnings_of(configured(set_back)) if about == "order"]
    assert "the clock was set back?" in words[0]


def test_frames_that_share_their_start_are_named():
    frames = night()
    twice = [*frames, raw_frame(99, dt.datetime.fromisoformat(frames[0].start_utc))]
    found = [words for about, words in warnings_of(configured(twice)) if about == "order"]
    assert any("x-0001.fit and x-0099.fit" in words for words in found)


def test_exposures_longer_than_the_cadence_are_said():
    found = warnings_of(configured(night(exposure_s=260.0)))
    assert [about for about, _ in found] == ["order"]
    assert "11 of 11 frames begin before the one before has ended, by up to 80 s" in found[0][1]


def mtimes(frames, late_s):
    """The frames with files written `late_s` (one or each) after the end of their exposures."""
    late = np.broadcast_to(late_s, len(frames))
    out = []
    for i, (frame, seconds) in enumerate(zip(frames, late, strict=True)):
        start = dt.datetime.fromisoformat(frame.start_utc)
        written = start.replace(tzinfo=dt.UTC).timestamp() + EXPOSURE_S + float(seconds)
        out.append(raw_frame(i + 1, start, mtime_ns=int(written * 1e9)))
    return out


def test_files_written_whole_hours_after_their_exposures_betray_local_time():
    ((about, words),) = warnings_of(configured(mtimes(night(), 4 * 3600.0 + 5.0)))
    assert about == "files"
    assert "4.00 h after" in words
    assert "UT-4" in words


def test_files_written_at_once_and_copies_say_nothing():
    assert configured(mtimes(night(), 4.0)) == ()
    frames = night()
    copied = [
        raw_frame(i + 1, dt.datetime.fromisoformat(f.start_utc), mtime_ns=10**18 + i * 10**9)
        for i, f in enumerate(frames)
    ]
    assert configured(copied) == ()
    assert configured(mtimes(night(), np.random.default_rng(1).uniform(0, 9e4, 12))) == ()


def test_copies_of_a_short_series_say_nothing_either():
    """Three frames within two minutes, copied at once years later: steady, but not by capture."""
    starts = [FIRST + dt.timedelta(seconds=50 * i) for i in range(3)]
    frames = [raw_frame(i, start, exposure_s=40.0) for i, start in enumerate(starts)]
    assert configured(frames) == ()


def test_south_of_the_equator_a_night_may_be_called_by_its_morning():
    sydney = Site(latitude_deg=-33.9, longitude_deg=151.2)
    first = dt.datetime(2018, 10, 13, 16, 0)  # noqa: DTZ001
    for day, n_warnings in ((13, 0), (14, 0), (16, 1)):
        frames = night(first=first, date=dt.date(2018, 10, day))
        found = audit(frames, [], configured=sydney, target=None)
        assert len(found) == n_warnings, (day, found)


def test_a_directory_called_by_another_night_is_said():
    ((about, words),) = warnings_of(configured(night(date=dt.date(2018, 10, 10))))
    assert about == "date"
    assert "2 days off" in words
    for date in (NIGHT, dt.date(2018, 10, 13)):  # the evening's date and the UT date
        assert configured(night(date=date)) == ()
