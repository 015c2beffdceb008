"""What a raw header says of its time and place beyond what the pipeline goes by.

Only for the audit: nothing here corrects anything. The one place that knows which cards speak of
it; what they mean against each other is judged in `science.audit`.
"""

import datetime as dt
import re

from astropy.io import fits

from wombat_dagster.domain import HeaderClaims, TimeClaim
from wombat_dagster.store import headers

UT_CARDS = ("DATE-OBS", "DATE-BEG", "DATE-AVG", *headers.UTC_STAMP_CARDS)
UT_DATE_CARDS = ("DATE-OBS", "UTDATE")
UT_TIME_CARDS = ("TIME-OBS", "UT-OBS", "UTC-OBS", "UT", "UTC", "UTSTART")
END_CARDS = ("DATE-END",)
LOCAL_CARDS = ("LOCALTIM", "DATE-LOC", "LOCTIME", "LOCAL-T", "DATELOC", "LT", "LTIME")
JD_CARDS = ("JD", "JD-OBS", "JD_UTC", "JD-UTC")
MJD_CARDS = ("MJD-OBS", "MJD", "MJD-BEG", "MJD-AVG", "MJD-MID")
HELIOCENTRIC_CARDS = ("JD-HELIO", "JD_HELIO", "HJD", "HJD_UTC", "HELJD")
BARYCENTRIC_CARDS = ("BJD", "BJD_TDB", "BJD-TDB")
SIDEREAL_CARDS = ("LST", "LST-OBS", "ST", "SIDTIME", "LST-BEG")
HOUR_ANGLE_CARDS = ("HA", "TELEHA", "OBJCTHA", "HOURANG")
ALTITUDE_CARDS = ("CENTALT", "OBJCTALT", "TELALT", "ALTITUDE", "ALT-TEL", "ALT_OBJ", "EL")
LOCAL_SCALES = ("LOCAL", "LT", "LOCALTIME")

JD_OF_ORDINAL_0 = 1721424.5
SECONDS_PER_DAY = 86400.0
MJD_ZERO = 2400000.5
UNREADABLE_RESOLUTION_S = 0.001

_LOCAL = re.compile(
    r"""^(?:(?P<year>\d{4})[-/](?P<month>\d{1,2})[-/](?P<day>\d{1,2})
          |(?P<us_month>\d{1,2})/(?P<us_day>\d{1,2})/(?P<us_year>\d{4}))  # TheSkyX
        [T\s]\s*(?P<hour>\d{1,2}):(?P<minute>\d{2}):(?P<second>\d{2}(?:\.\d*)?)
        \s*(?P<half>[AP]M)?\b""",
    re.VERBOSE | re.IGNORECASE,
)


def header_claims(header: fits.Header, raw: str) -> HeaderClaims:
    """Return what a header claims of when and where its frame was taken.

    Cards that cannot be read are not there. An hour angle above 24 is in degrees (MicroObservatory
    writes ``330.06`` for 22 h), a sidereal time in text in hours.
    """
    pointing = headers.position_hint_deg(header)
    sidereal_h, sidereal_card = _hours(header, SIDEREAL_CARDS)
    hour_angle_h, hour_angle_card = _hours(header, HOUR_ANGLE_CARDS)
    altitude_deg, altitude_card = _number(header, ALTITUDE_CARDS)
    return HeaderClaims(
        raw=raw,
        start_card=headers.start_source(header),
        times=tuple(_times(header)),
        sidereal_h=sidereal_h,
        sidereal_card=sidereal_card,
        hour_angle_h=None if hour_angle_h is None else (hour_angle_h + 12.0) % 24.0 - 12.0,
        hour_angle_card=hour_angle_card,
        altitude_deg=altitude_deg if altitude_deg is None or -90 <= altitude_deg <= 90 else None,
        altitude_card=altitude_card,
        airmass=headers.airmass(header),
        ra_deg=pointing[0] if pointing else None,
        dec_deg=pointing[1] if pointing else None,
    )


def _times(header: fits.Header) -> list[TimeClaim]:
    found: list[TimeClaim] = []
    # TIMESYS = 'LOCAL' speaks of DATE-OBS: that is then no claim of UT
    scale = (headers.text(header, "TIMESYS") or "UTC").upper().split("(")[0].strip()
    if scale not in LOCAL_SCALES:
        for moment, stamps in (("ut", UT_CARDS), ("end", END_CARDS)):
            for keyword in stamps:
                stamp = _utc_stamp(headers.text(header, keyword), scale)
                if stamp is not None:
                    found.append(_claim(keyword, stamp, moment))
        found += _split_times(header, scale)
    for keyword in LOCAL_CARDS:
        stamp = _local_stamp(headers.text(header, keyword))
        if stamp is not None:
            found.append(_claim(keyword, stamp, "local"))
    for moment, numbers in (
        ("ut", (*JD_CARDS, *MJD_CARDS)),
        ("heliocentric", HELIOCENTRIC_CARDS),
        ("barycentric", BARYCENTRIC_CARDS),
    ):
        for keyword in numbers:
            days = headers.number(header, keyword)
            if days is None:
                continue
            jd = days + MJD_ZERO if days < MJD_ZERO / 2 else days
            if 2440000.0 < jd < 2500000.0:
                resolution_s = _resolution_s(headers.text(header, keyword) or "")
                found.append(
                    TimeClaim(card=keyword, jd=jd, moment=moment, resolution_s=resolution_s)
                )
    return found


def _split_times(header: fits.Header, scale: str) -> list[TimeClaim]:
    """Return the claims of a date in one card and a time of day in another."""
    found: list[TimeClaim] = []
    for date_card in UT_DATE_CARDS:
        date = headers.text(header, date_card) or ""
        day = date.split("T")[0].strip()
        for time_card in UT_TIME_CARDS:
            time = headers.text(header, time_card)
            if not day or time is None or "T" in time:
                continue
            stamp = _utc_stamp(f"{day}T{time}", scale)
            if stamp is not None:
                found.append(_claim(f"{date_card} and {time_card}", stamp, "ut"))
        if found:
            break
    return found


def _utc_stamp(words: str | None, scale: str) -> dt.datetime | None:
    """Return a date with a time as `headers` reads one, on UTC; None for anything else."""
    alone = fits.Header([("DATE-OBS", words), ("TIMESYS", scale)]) if words else fits.Header()
    start = headers.start_utc(alone)
    return None if start is None else dt.datetime.fromisoformat(start)


def _claim(card: str, stamp: dt.datetime, moment: str) -> TimeClaim:
    return TimeClaim(card=card, jd=_jd(stamp), moment=moment)


def _jd(stamp: dt.datetime) -> float:
    midnight = stamp.replace(hour=0, minute=0, second=0, microsecond=0)
    return (
        JD_OF_ORDINAL_0 + stamp.toordinal() + (stamp - midnight).total_seconds() / SECONDS_PER_DAY
    )


def _local_stamp(words: str | None) -> dt.datetime | None:
    """Return local time as written: ``10/12/2018 10:30:53.049 PM DST`` or ISO 8601."""
    found = _LOCAL.match((words or "").strip())
    if found is None:
        return None
    hour = int(found["hour"])
    if found["half"]:
        hour = hour % 12 + (12 if found["half"].upper() == "PM" else 0)
    try:
        day = dt.datetime(  # noqa: DTZ001 - a wall clock's
            int(found["year"] or found["us_year"]),
            int(found["month"] or found["us_month"]),
            int(found["day"] or found["us_day"]),
        )
    except ValueError:
        return None
    return day + dt.timedelta(
        hours=hour, minutes=int(found["minute"]), seconds=float(found["second"])
    )


def _resolution_s(words: str) -> float:
    """Return the length of the last decimal's unit of a number of days, in seconds."""
    _, _, decimals = words.partition(".")
    n_decimals = len(re.match(r"\d*", decimals)[0])  # type: ignore[index]  # always matches
    return max(SECONDS_PER_DAY / 10**n_decimals, UNREADABLE_RESOLUTION_S)


def _hours(header: fits.Header, keywords: tuple[str, ...]) -> tuple[float | None, str]:
    for keyword in keywords:
        value = headers.card_value(header, keyword)
        size = headers.as_number(value)
        if size is None and isinstance(value, str):
            size = headers.sexagesimal(value)
        elif size is not None and abs(size) > 24.0:
            size /= 15.0
        if size is not None and abs(size) <= 24.0:
            return size, keyword
    return None, ""


def _number(header: fits.Header, keywords: tuple[str, ...]) -> tuple[float | None, str]:
    for keyword in keywords:
        value = headers.card_value(header, keyword)
        size = headers.as_number(value)
        if size is None and isinstance(value, str):
            size = headers.sexagesimal(value)
        if size is not None:
            return size, keyword
    return None, ""
