"""The dialects of raw FITS headers: what a frame says of itself, in one language.

Pure functions on an astropy header. Capture programs disagree on names, units and quoting, so each
fact has an ordered list of cards, and the first one that holds a usable value counts. A card that
cannot be parsed never raises: an unquoted string is read as it stands, anything else is *not known*
(None). What is stated is returned as stated: the sign of a longitude and the truth of a position
are judged elsewhere.

Sources: SPEC sections 3 and 5, DOMAIN section 5, FITS standard 4.0 (DATE-OBS, TIMESYS), the SBIG
and MaxIm DL keyword lists, and the real frames that ``WOMBAT_REFERENCE_DATA`` names.
"""

import copy
import datetime as dt
import math
import re
import warnings

from astropy.io import fits
from astropy.io.fits.verify import VerifyError

from wombat_dagster.domain import FrameKind, Site, Sourced

KIND_CARDS = ("IMAGETYP", "FRAMETYP", "IMGTYPE", "OBSTYPE", "FRAME")
KIND_WORDS = (  # in this order: "DARKFLAT" is a dark, "TWILIGHT FLAT" is no light
    ("dark", FrameKind.DARK),
    ("flat", FrameKind.FLAT),
    ("bias", FrameKind.BIAS),
    ("zero", FrameKind.BIAS),
    ("light", FrameKind.LIGHT),
    ("object", FrameKind.LIGHT),
    ("science", FrameKind.LIGHT),
    ("expose", FrameKind.LIGHT),
)
SBIG_PICTURE_TYPES = {  # PICTTYPE; 0 is "unknown"
    1: FrameKind.LIGHT,
    2: FrameKind.BIAS,
    3: FrameKind.DARK,
    4: FrameKind.FLAT,
}
EXPOSURE_CARDS = ("EXPTIME", "EXPOSURE", "EXP_TIME", "XPOSURE")
UTC_STAMP_CARDS = ("UT-OBS", "DATE-UTC", "UTC-OBS", "UTSTART")  # a whole UTC date and time
STAMP_CARDS = ("DATE-OBS", "DATE-BEG")
TIME_OF_DAY_CARDS = ("TIME-OBS", "UT-OBS", "UTC-OBS", "UT", "UTC", "UTSTART", "TIME-BEG")
DATE_CARDS = ("DATE-OBS", "DATE_OBS", "UTDATE", "DATE-BEG")
JD_CARDS = ("JD-OBS", "JD")
MJD_CARDS = ("MJD-OBS", "MJD")  # last: MicroObservatory's has three decimals, 86 s
UTC_SCALES = ("UTC", "UT", "UT1", "GMT", "Z")
OTHER_SCALES = ("TAI", "TT", "TDB")
EARLIEST_YEAR = 1980  # before CCDs; an unset clock says 1970 or 0001
CCD_TEMPERATURE_CARDS = ("CCD-TEMP", "CCDTEMP", "CCD_TEMP", "DET-TEMP", "DETTEMP", "CAMTEMP")
KELVIN_FROM = 150.0  # no camera is that warm in Celsius
SET_TEMPERATURE_CARDS = ("SET-TEMP", "SETTEMP")
SUBFRAME_CARDS = ("XORGSUBF", "YORGSUBF")  # where a sub-frame begins on the chip, from 0
OVERSCAN_CARD = "BIASSEC"
TRIM_CARD = "TRIMSEC"
MIN_KEPT_FRACTION = 0.25  # of the pixels; a TRIMSEC that keeps less is some other window
READOUT_CARDS = ("READOUTM", "READMODE", "GAINMODE", "GAIN", "OFFSET", "BLKLEVEL", "ISO")
OFFSET_CARDS = ("OFFSET", "BLKLEVEL", "BLACKLVL")  # next to these GAIN is a camera setting
GAIN_CARD_RANGE = (0.05, 20.0)  # e-/ADU; outside, GAIN is a setting too (SPEC section 5)
READ_NOISE_CARDS = ("RDNOISE", "READNOIS", "READNOISE", "RON", "ENOISE")
SATURATION_CARDS = ("SATURATE", "DATAMAX")
SCALE_CARDS = ("SCALE", "PIXSCALE", "SECPIX", "SECPIX1", "IM_SCALE")
SCALE_RANGE = (0.01, 1000.0)  # arcsec/px; outside, the card means something else
ARCSEC_PER_UM_PER_MM = 206.265
LATITUDE_CARDS = ("SITELAT", "LAT-OBS", "OBSLAT", "OBS-LAT", "LATITUDE", "OBSGEO-B")
LONGITUDE_CARDS = (
    "SITELONG",
    "SITELON",
    "LONG-OBS",
    "OBSLONG",
    "OBSLON",
    "OBS-LONG",
    "LONGITUD",
    "LONGITUDE",
    "OBSGEO-L",
)
ELEVATION_CARDS = (
    "SITEELEV",
    "SITEALT",
    "ALT-OBS",
    "OBSELEV",
    "OBSALT",
    "OBS-ELEV",
    "ELEVATIO",
    "OBSGEO-H",
)
ELEVATION_RANGE_M = (-500.0, 9000.0)

# What other programs write when they have calibrated a frame: IRAF's ccdred, and ccdproc's short
# names of its functions.
STEP_CARDS = {
    "B": ("ZEROCOR", "BIASCOR", "SUBBIAS"),
    "D": ("DARKCOR", "SUBDARK"),
    "F": ("FLATCOR",),
}
CALSTAT_CODE = re.compile(r"[BDFIMST]+")  # letters of a CALSTAT; a word like RAW has others
_STEP_WORDS = {
    "B": re.compile(r"\b(?:master[-_ ]?)?(?:bias(?:es)?|zero[- ](?:level|frames?))\b", re.I),
    "D": re.compile(r"\b(?:master[-_ ]?)?darks?\b", re.I),
    "F": re.compile(r"\b(?:master[-_ ]?)?flats?(?:[- ]?field(?:s|ed|ing)?)?\b", re.I),
}
_APPLIED = re.compile(
    r"\b(?:subtract|correct|remov|appli|apply|divi|calibrat|flat[- ]?field(?:ed|ing|\s*\())", re.I
)
_NEGATED = re.compile(
    r"\b(?:no(?!\.)|not|none|without|never|off|false|skip\w*|omit\w*|disabled|perform)\b", re.I
)

CardValue = str | bool | int | float

# ----------------------------------------------------------------------------------------- cards


def card_value(header: fits.Header, keyword: str) -> CardValue | None:
    """Return the value of one card; None when it is missing, blank or beyond repair.

    A string without quotes (``FILTER = Clear / …``), which astropy calls unparsable, is read up to
    the slash. `header` stays as it is.
    """
    try:
        value = header.get(keyword)
    except VerifyError:
        value = _repaired(header, keyword)
    except (ValueError, KeyError):
        return None
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, bool | int | float) else None


def _repaired(header: fits.Header, keyword: str) -> str | None:
    """Return the text of an unparsable card, read from a copy of it."""
    card = copy.copy(header.cards[keyword])
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            card.verify("silentfix")
        value = card.value
    except (VerifyError, ValueError):
        return None
    return value.strip("' ") if isinstance(value, str) else None


def text(header: fits.Header, *keywords: str) -> str | None:
    """Return the first of `keywords` that holds something, as stripped text."""
    for keyword in keywords:
        value = card_value(header, keyword)
        if value is not None:
            return str(value).strip()
    return None


def number(header: fits.Header, *keywords: str) -> float | None:
    """Return the first of `keywords` that holds a finite number, quoted or not."""
    for keyword in keywords:
        value = as_number(card_value(header, keyword))
        if value is not None:
            return value
    return None


def as_number(value: CardValue | None) -> float | None:
    """Return a card's value as a finite number, or None when it is none."""
    if value is None or isinstance(value, bool):
        return None
    try:
        result = float(value)
    except ValueError:
        return None
    return result if math.isfinite(result) else None


_SEXAGESIMAL = re.compile(
    r"""^\s*(?P<front>[NSEW])?\s*(?P<sign>[+-])?\s*
        (?P<whole>\d{1,3})(?:\s*[:hd°*]\s*|\s+)
        (?P<minutes>\d{1,2}(?:\.\d*)?)
        (?:(?:\s*[:m'′]\s*|\s+)(?P<seconds>\d{1,2}(?:\.\d*)?))?
        \s*(?:[ms'"′″]|'')?\s*(?P<back>[NSEW])?\s*$""",
    re.VERBOSE | re.IGNORECASE,
)
_HEMISPHERE = re.compile(r"^\s*(?P<front>[NSEW])?\s*(?P<number>[^NSEW]+?)\s*(?P<back>[NSEW])?\s*$")


def sexagesimal(words: str) -> float | None:
    """Return ``+71 29 06``, ``-00:30:00``, ``02h05m15s`` or ``71 29 06 W`` as one number.

    The sign counts for the whole value, not for its first part: -116 20 is -(116 + 20/60). South
    and west are negative. None when it is not of that form, or minutes or seconds exceed 60.
    """
    found = _SEXAGESIMAL.match(words)
    if found is None:
        return None
    minutes = float(found["minutes"])
    seconds = float(found["seconds"] or 0.0)
    if minutes > 60.0 or seconds > 60.0:
        return None
    size = float(found["whole"]) + minutes / 60.0 + seconds / 3600.0
    negative = (found["sign"] == "-") != _is_south_or_west(found)
    return -size if negative else size


def _is_south_or_west(found: re.Match[str]) -> bool:
    letter = (found["front"] or found["back"] or "").upper()
    return letter in {"S", "W"}


_DEGREES = re.compile(r"(?<=[\d.])\s*(?:d|deg|degs|degrees?|°)\s*$", re.IGNORECASE)


def _angle(value: CardValue | None) -> float | None:
    """Return a number or a sexagesimal string as a number, with an optional N, S, E or W."""
    plain = as_number(value)
    if plain is not None or not isinstance(value, str):
        return plain
    parts = sexagesimal(value)
    if parts is not None:
        return parts
    value = _DEGREES.sub("", value)
    found = _HEMISPHERE.match(value.upper())
    size = as_number(found["number"]) if found else None
    if found is None or size is None:
        return None
    return -size if _is_south_or_west(found) else size


# ------------------------------------------------------------------------- what kind of frame it is


def kind(header: fits.Header) -> FrameKind | None:
    """Return what the header says the frame is; None when it does not say (ask the directory)."""
    for keyword in KIND_CARDS:
        words = (text(header, keyword) or "").casefold()
        for word, frame_kind in KIND_WORDS:
            if word in words:
                return frame_kind
    picture_type = number(header, "PICTTYPE")
    return SBIG_PICTURE_TYPES.get(int(picture_type)) if picture_type is not None else None


def combined_words(header: fits.Header) -> str | None:
    """Return why the frame is no raw one but a stack or a master, or None when it is raw."""
    image_type = text(header, "IMAGETYP") or ""
    if "master" in image_type.casefold():
        return f"IMAGETYP {image_type!r}"
    for keyword in ("NCOMBINE", "SNAPSHOT", "STACKCNT"):
        count = number(header, keyword)
        if count is not None and count > 1:
            return f"{keyword} {count:g}"
    return None


def filter_name(header: fits.Header) -> str | None:
    """Return FILTER, stripped; None when it is missing or blank, which never means clear."""
    return text(header, "FILTER")


def camera(header: fits.Header) -> str | None:
    """Return the camera's name."""
    return text(header, "INSTRUME", "CAMERA", "DETECTOR")


def binning(header: fits.Header) -> str:
    """Return the binning as ``2x2``; a header that does not speak of it is taken for unbinned."""
    across = number(header, "XBINNING", "CCDXBIN", "XBIN", "BINX")
    down = number(header, "YBINNING", "CCDYBIN", "YBIN", "BINY")
    if across is None:
        words = re.findall(r"\d+", text(header, "BINNING", "CCDSUM") or "")
        across = float(words[0]) if words else None
        down = float(words[1]) if len(words) > 1 else None
    if across is None or across < 1:
        return "1x1"
    return f"{across:.0f}x{down if down is not None and down >= 1 else across:.0f}"


def readout(header: fits.Header) -> str | None:
    """Return gain setting and readout mode as the header words them: ``GAIN=100 OFFSET=50``.

    EGAIN stands in where there is no GAIN: with many programs it is the only sign of the setting.
    """
    words = [
        f"{keyword}={_compact(value)}"
        for keyword in READOUT_CARDS
        if (value := card_value(header, keyword)) is not None
    ]
    egain = number(header, "EGAIN")
    if egain is not None and card_value(header, "GAIN") is None:
        words.append(f"EGAIN={egain:.3g}")
    return " ".join(words) or None


def _compact(value: CardValue) -> str:
    plain = as_number(value)
    return str(value) if plain is None else f"{plain:g}"


def bayer_pattern(header: fits.Header) -> str | None:
    """Return the colour matrix of a one-shot-colour frame, ``RGGB``; None for a mono frame."""
    pattern = text(header, "BAYERPAT", "BAYRPAT", "COLORTYP")
    return None if pattern is None or pattern.casefold() in {"none", "mono", "0"} else pattern


def calibration_status(header: fits.Header) -> str | None:
    """Return what a program has already done to the frame: letters of ``BDF``, or None.

    B a bias subtracted, D a dark, F a flat divided by. From CALSTAT, the cards of IRAF and ccdproc,
    and HISTORY (``Bias Subtracted``, ``Flat Field Applied``).
    """
    done = {letter for letters, _ in _calibrations(header) for letter in letters}
    return "".join(letter for letter in STEP_CARDS if letter in done) or None


def calibration_source(header: fits.Header) -> str | None:
    """Return the cards that `calibration_status` is from, in words: ``CALSTAT 'BD'``."""
    return ", ".join(words for _, words in _calibrations(header)) or None


def strange_calstat(header: fits.Header) -> str | None:
    """Return a CALSTAT that says neither what was done nor that nothing was."""
    stated = text(header, "CALSTAT")
    if stated is None or _letters_of_calstat(stated) or _NEGATED.search(stated):
        return None
    return None if stated.casefold() in {"raw", "uncalibrated", "0", "f"} else stated


def calibration_words(letters: str) -> str:
    """Return ``bias-subtracted, flat-fielded`` for ``BF``."""
    return ", ".join(words for letter, words in _DONE_WORDS.items() if letter in letters)


_DONE_WORDS = {"B": "bias-subtracted", "D": "dark-subtracted", "F": "flat-fielded"}


def _calibrations(header: fits.Header) -> list[tuple[str, str]]:
    """Return the letters that each source speaks of, and the source."""
    found = []
    stated = text(header, "CALSTAT")
    if stated is not None and (letters := _letters_of_calstat(stated)):
        found.append((letters, f"CALSTAT {stated!r}"))
    for letter, keywords in STEP_CARDS.items():
        found += [(letter, keyword) for keyword in keywords if _says_done(header, keyword)]
    for line in _history(header):
        if letters := _letters_of_history(line):
            found.append((letters, f"HISTORY {line[:60]!r}"))
    return found


def _letters_of_calstat(words: str) -> str:
    """Return the letters of B, D, F in ``BDF``, ``B,D`` or ``Bias Dark``; none for ``Raw``."""
    parts = re.findall("[A-Za-z]+", words)
    if parts and all(CALSTAT_CODE.fullmatch(part.upper()) for part in parts):
        return "".join(letter for letter in STEP_CARDS if letter in words.upper())
    if _NEGATED.search(words):
        return ""
    return "".join(letter for letter, step in _STEP_WORDS.items() if step.search(words))


def _says_done(header: fits.Header, keyword: str) -> bool:
    value = card_value(header, keyword)
    if isinstance(value, str):
        return _NEGATED.search(value) is None
    return bool(value)


def _letters_of_history(line: str) -> str:
    if not _APPLIED.search(line) or _NEGATED.search(line):
        return ""
    return "".join(letter for letter, step in _STEP_WORDS.items() if step.search(line))


def _history(header: fits.Header) -> list[str]:
    """Return the HISTORY cards that are text."""
    if "HISTORY" not in header:
        return []
    try:
        return [str(line).strip() for line in header["HISTORY"]]
    except (VerifyError, ValueError, KeyError):
        return []


# -------------------------------------------------------------------------------- parts of the chip


def section(words: str | None, *, width_px: int, height_px: int) -> str | None:
    """Return a FITS section ``[x1:x2,y1:y2]`` that lies in the image, without blanks; else None.

    Counted from 1, both ends included. Sections narrower than two pixels, backwards or outside the
    image are what programs write that know of none: not known.
    """
    bounds = section_bounds(words)
    if bounds is None:
        return None
    x1, x2, y1, y2 = bounds
    lies_inside = 1 <= x1 < x2 <= width_px and 1 <= y1 < y2 <= height_px
    return f"[{x1}:{x2},{y1}:{y2}]" if lies_inside else None


_SECTION = re.compile(r"\s*\[\s*(\d+)\s*:\s*(\d+)\s*,\s*(\d+)\s*:\s*(\d+)\s*\]\s*")


def section_bounds(words: str | None) -> tuple[int, int, int, int] | None:
    """Return x1, x2, y1, y2 of a FITS section; None when it is not written as one."""
    found = _SECTION.fullmatch(words or "")
    if found is None:
        return None
    x1, x2, y1, y2 = (int(digits) for digits in found.groups())
    return x1, x2, y1, y2


def section_size(words: str) -> tuple[int, int]:
    """Return width and height in pixels of a section that `section` let pass."""
    bounds = section_bounds(words)
    assert bounds is not None
    x1, x2, y1, y2 = bounds
    return x2 - x1 + 1, y2 - y1 + 1


def sections_overlap(one: str, other: str) -> bool:
    """Tell whether two sections that `section` let pass share a pixel."""
    first, second = section_bounds(one), section_bounds(other)
    assert first is not None
    assert second is not None
    return all(first[i] <= second[i + 1] and second[i] <= first[i + 1] for i in (0, 2))


def overscan(header: fits.Header, *, width_px: int, height_px: int) -> str | None:
    """Return BIASSEC, the part of the image that never saw light; None when it cannot be one."""
    words = section(text(header, OVERSCAN_CARD), width_px=width_px, height_px=height_px)
    if words is None:
        return None
    width, height = section_size(words)
    return words if 2 * width * height <= width_px * height_px else None


def trim(header: fits.Header, *, width_px: int, height_px: int) -> str | None:
    """Return TRIMSEC, the part of the image to keep; None for all of it, or next to nothing."""
    words = section(text(header, TRIM_CARD), width_px=width_px, height_px=height_px)
    if words is None:
        return None
    width, height = section_size(words)
    kept = width * height / (width_px * height_px)
    return words if MIN_KEPT_FRACTION <= kept < 1.0 else None


def subframe_origin(header: fits.Header) -> str | None:
    """Return where a sub-frame lies on the chip, ``XORGSUBF=100 YORGSUBF=50``; None at 0, 0.

    Two windows of one shape on different parts of the chip have no master in common.
    """
    origin = [number(header, keyword) or 0.0 for keyword in SUBFRAME_CARDS]
    if not any(origin):
        return None
    return " ".join(f"{k}={v:g}" for k, v in zip(SUBFRAME_CARDS, origin, strict=True))


# ------------------------------------------------------------------------------------------ times


def exposure_s(header: fits.Header) -> float | None:
    """Return the exposure in seconds; None when it is not stated or negative."""
    for keyword in EXPOSURE_CARDS:
        seconds = number(header, keyword)
        if seconds is not None and seconds >= 0.0:
            return seconds
    start_s, end_s = (_second_of_day(header, keyword) for keyword in ("TM-START", "TM-END"))
    if start_s is None or end_s is None:
        return None
    return round((end_s - start_s) % 86400.0, 6)  # an exposure may run over midnight


def _second_of_day(header: fits.Header, keyword: str) -> float | None:
    """Return a time of day, in seconds as a number or as ``hh:mm:ss``."""
    value = card_value(header, keyword)
    seconds = as_number(value)
    if seconds is None and isinstance(value, str):
        hours = sexagesimal(value)
        seconds = None if hours is None else hours * 3600.0
    return seconds if seconds is not None and 0.0 <= seconds <= 86400.0 else None


def start_utc(header: fits.Header) -> str | None:
    """Return the start of the exposure, ISO 8601 on the UTC scale without offset, to the µs.

    ``2017-12-20T01:33:43.317000``; always of the same length, so that the text sorts by time. In
    this order: DATE-OBS with an offset; a whole UTC stamp (UT-OBS); DATE-OBS without an offset,
    on the scale TIMESYS names; date and time in two cards; JD; MJD. A date alone is no time.
    """
    found = _start(header)
    return None if found is None else found[0].isoformat(timespec="microseconds")


def start_source(header: fits.Header) -> str | None:
    """Return the card or cards that `start_utc` took the time from."""
    found = _start(header)
    return None if found is None else found[1]


def _start(header: fits.Header) -> tuple[dt.datetime, str] | None:
    """Return the start on the UTC scale as a naive datetime, and its card."""
    for stamp, source in _stamps(header):
        if stamp is not None and stamp.year >= EARLIEST_YEAR:
            return stamp, source
    return None


def _stamps(header: fits.Header) -> list[tuple[dt.datetime | None, str]]:
    """Return every reading of the header's time cards, the most trustworthy first."""
    stamps = []
    for keyword in STAMP_CARDS:
        stamps.append((_parse_stamp(text(header, keyword), needs_offset=True), keyword))
    for keyword in UTC_STAMP_CARDS:
        stamps.append((_parse_stamp(text(header, keyword)), keyword))
    scale = re.split(r"[^A-Z0-9]", (text(header, "TIMESYS") or "UTC").upper())[0]  # "UTC(NTP)"
    for keyword in STAMP_CARDS:
        stamps.append((_to_utc(_parse_stamp(text(header, keyword)), scale), keyword))
    for date_keyword in DATE_CARDS:
        for time_keyword in TIME_OF_DAY_CARDS:
            date, time = text(header, date_keyword), text(header, time_keyword)
            stamp = _parse_stamp(f"{date}T{time}") if date and time else None
            stamps.append((_to_utc(stamp, scale), f"{date_keyword} and {time_keyword}"))
    for keyword in JD_CARDS:
        stamps.append((_from_day_number(number(header, keyword), mjd_zero=2400000.5), keyword))
    for keyword in MJD_CARDS:
        stamps.append((_from_day_number(number(header, keyword), mjd_zero=0.0), keyword))
    return stamps


_STAMP = re.compile(
    r"""^(?:(?P<year>\d{4})[-/](?P<month>\d{1,2})[-/](?P<day>\d{1,2})
          |(?P<old_day>\d{2})/(?P<old_month>\d{2})/(?P<old_year>\d{2}))  # FITS before 1998: 19yy
        [T\s]\s*(?P<hour>\d{1,2}):(?P<minute>\d{2}):(?P<second>\d{2}(?:\.\d*)?)
        \s*(?P<offset>Z|UTC?|[+-]\d{2}:?(?:\d{2})?)?$""",
    re.VERBOSE | re.IGNORECASE,
)


def _parse_stamp(words: str | None, *, needs_offset: bool = False) -> dt.datetime | None:
    """Return a date with a time; with an offset (``-0700``) it is taken to UTC."""
    found = _STAMP.match((words or "").strip())
    if found is None or (needs_offset and found["offset"] is None):
        return None
    year = int(found["year"] or f"19{found['old_year']}")
    try:
        day = dt.datetime(  # noqa: DTZ001 - naive means UTC here, as in RawFrame.start_utc
            year, int(found["month"] or found["old_month"]), int(found["day"] or found["old_day"])
        )
    except ValueError:
        return None
    hour, minute, second = int(found["hour"]), int(found["minute"]), float(found["second"])
    if hour > 24 or minute > 59 or second >= 61.0:  # 60: a leap second
        return None
    try:
        local = day + dt.timedelta(hours=hour, minutes=minute, seconds=second)
        return local - _offset(found["offset"])
    except OverflowError:  # the first or last day of the calendar, taken beyond it by its offset
        return None


def _offset(words: str | None) -> dt.timedelta:
    """Return local time minus UTC."""
    digits = re.sub(r"\D", "", words or "")
    if not digits:
        return dt.timedelta(0)
    size = dt.timedelta(hours=int(digits[:2]), minutes=int(digits[2:] or 0))
    return -size if (words or "").startswith("-") else size


def _to_utc(stamp: dt.datetime | None, scale: str) -> dt.datetime | None:
    """Return `stamp`, read on the time scale that TIMESYS names, on UTC; None for a strange one."""
    if stamp is None or scale in UTC_SCALES:
        return stamp
    if scale not in OTHER_SCALES:  # "LOCAL": not without an offset
        return None
    from astropy.time import Time

    return Time(stamp, scale=scale.lower()).utc.to_datetime()


def _from_day_number(days: float | None, *, mjd_zero: float) -> dt.datetime | None:
    """Return a JD (`mjd_zero` 2400000.5) or an MJD (0) as a date; plain days of 86400 s."""
    if days is None:
        return None
    mjd = days - mjd_zero
    if not 0.0 < mjd < 200000.0:  # to the year 2406; a JD in an MJD card is neither
        return None
    return dt.datetime(1858, 11, 17) + dt.timedelta(days=mjd)  # noqa: DTZ001 - as above


# -------------------------------------------------------------------------------- detector and sky


def ccd_temperature_c(header: fits.Header) -> float | None:
    """Return the chip's temperature in Celsius. CAMTEMP is in Kelvin, -1 there means no data."""
    for keyword in CCD_TEMPERATURE_CARDS:
        value = number(header, keyword)
        if value is None or (keyword == "CAMTEMP" and value == -1.0):
            continue
        celsius = value - 273.15 if value > KELVIN_FROM else value
        if -150.0 < celsius < 80.0:
            return round(celsius, 4)
    return None


def set_temperature_c(header: fits.Header) -> float | None:
    """Return the temperature that the cooler was set to, in Celsius."""
    return number(header, *SET_TEMPERATURE_CARDS)


def gain_e_adu(header: fits.Header) -> Sourced | None:
    """Return the gain in e-/ADU and its card.

    EGAIN, else GAIN where it can be one: 0.05 to 20 and no OFFSET card, since CMOS programs write
    the camera's setting there.
    """
    egain = number(header, "EGAIN")
    if egain is not None and egain > 0.0:
        return Sourced(value=egain, source="EGAIN")
    gain = number(header, "GAIN")
    low, high = GAIN_CARD_RANGE
    is_setting = any(card_value(header, keyword) is not None for keyword in OFFSET_CARDS)
    if gain is None or is_setting or not low <= gain <= high:
        return None
    return Sourced(value=gain, source="GAIN")


def read_noise_e(header: fits.Header) -> float | None:
    """Return the read noise in electrons."""
    return _first_positive(header, READ_NOISE_CARDS)


def saturation_adu(header: fits.Header) -> float | None:
    """Return the count at which the header says the detector saturates."""
    return _first_positive(header, SATURATION_CARDS)


def _first_positive(header: fits.Header, keywords: tuple[str, ...]) -> float | None:
    numbers = (number(header, keyword) for keyword in keywords)
    return next((n for n in numbers if n is not None and n > 0.0), None)


def pedestal_adu(header: fits.Header) -> float | None:
    """Return PEDESTAL: what is to be *added* to each pixel (-100: the camera added 100)."""
    return number(header, "PEDESTAL")


def airmass(header: fits.Header) -> float | None:
    """Return the header's airmass; None below 1 or above 40, where it is a stand-in."""
    value = number(header, "AIRMASS", "SECZ")
    return value if value is not None and 1.0 <= value < 40.0 else None


def position_hint_deg(header: fits.Header) -> tuple[float, float] | None:
    """Return where the telescope pointed, (RA, Dec) in degrees: a hint, never the target.

    OBJCTRA and OBJCTDEC first, whose units are agreed upon (hours, degrees), then RA and DEC,
    TELRA and TELDEC, and CRVAL of an old solution. A right ascension with colons, blanks or an h
    is in hours, one with a d or ° and a plain number in degrees unless its comment speaks of hours.
    0, 0 means no data.
    """
    for ra_card, dec_card in (("OBJCTRA", "OBJCTDEC"), ("RA", "DEC"), ("TELRA", "TELDEC")):
        position = _checked_position(_ra_deg(header, ra_card), _angle(card_value(header, dec_card)))
        if position is not None:
            return position
    if "RA" in (text(header, "CTYPE1") or "").upper():
        return _checked_position(number(header, "CRVAL1"), number(header, "CRVAL2"))
    return None


def _ra_deg(header: fits.Header, keyword: str) -> float | None:
    value = card_value(header, keyword)
    degrees = as_number(value)
    if degrees is not None:
        comment = str(header.comments[keyword]).casefold()
        in_hours = re.search(r"\bhours?\b|\bhrs?\b|[\[(]h[\])]", comment) and "angle" not in comment
        return 15.0 * degrees if in_hours else degrees
    if not isinstance(value, str):
        return None
    in_one_number = _NUMBER_WITH_UNIT.fullmatch(value)
    size = as_number(in_one_number["number"]) if in_one_number else sexagesimal(value)
    if size is None:
        return None
    return size if _IN_DEGREES.search(value) else 15.0 * size


_NUMBER_WITH_UNIT = re.compile(
    r"\s*(?P<number>\d+(?:\.\d*)?)\s*(?:h|hrs?|hours?|d|deg|degs|degrees?|°)\s*", re.IGNORECASE
)
_IN_DEGREES = re.compile(r"[d°]", re.IGNORECASE)


def _checked_position(ra_deg: float | None, dec_deg: float | None) -> tuple[float, float] | None:
    if ra_deg is None or dec_deg is None or (ra_deg == 0.0 and dec_deg == 0.0):
        return None
    if not (0.0 <= ra_deg <= 360.0 and -90.0 <= dec_deg <= 90.0):
        return None
    return ra_deg % 360.0, dec_deg


def scale_hint_arcsec_px(header: fits.Header) -> float | None:
    """Return the stated image scale in arcsec per (binned) pixel: a hint, good to some per cent.

    From a WCS, a scale card, or pixel size and focal length. XPIXSZ is the size *after* binning,
    as MaxIm DL, TheSkyX and N.I.N.A. write it, so binning is not applied again.
    """
    candidates = [_wcs_scale_arcsec_px(header)]
    candidates += [number(header, keyword) for keyword in SCALE_CARDS]
    pixel_um, focal_mm = number(header, "XPIXSZ"), number(header, "FOCALLEN")
    if pixel_um is not None and focal_mm is not None and focal_mm > 0.0:
        candidates.append(ARCSEC_PER_UM_PER_MM * pixel_um / focal_mm)
    low, high = SCALE_RANGE
    return next((s for s in candidates if s is not None and low <= s <= high), None)


def _wcs_scale_arcsec_px(header: fits.Header) -> float | None:
    """Return the scale of a celestial WCS from its CD matrix, else from CDELT."""
    if "RA" not in (text(header, "CTYPE1") or "").upper():
        return None
    cd11, cd12, cd21, cd22 = (
        number(header, f"CD{row}_{column}") for row in (1, 2) for column in (1, 2)
    )
    if cd11 is not None and cd22 is not None:
        return 3600.0 * math.sqrt(abs(cd11 * cd22 - (cd12 or 0.0) * (cd21 or 0.0)))
    step_x_deg, step_y_deg = number(header, "CDELT1"), number(header, "CDELT2")
    if step_x_deg is None or step_y_deg is None:
        return None
    return 3600.0 * math.sqrt(abs(step_x_deg * step_y_deg))


def site_hint(header: fits.Header) -> Site | None:
    """Return the site as the header states it; the longitude's sign is not settled here.

    Many programs count longitudes positive to the west (TheSkyX ``+71 29 06``, MicroObservatory
    110.88): both signs have to be tried. 0, 0 means no data.
    """
    latitude, latitude_card = _first_angle(header, LATITUDE_CARDS, limit_deg=90.0)
    longitude, longitude_card = _first_angle(header, LONGITUDE_CARDS, limit_deg=360.0)
    if latitude is None or longitude is None or (latitude == 0.0 and longitude == 0.0):
        return None
    return Site(
        latitude_deg=latitude,
        longitude_deg=longitude,
        elevation_m=_elevation_m(header),
        source=f"header {latitude_card}, {longitude_card}",
    )


def _first_angle(
    header: fits.Header, keywords: tuple[str, ...], *, limit_deg: float
) -> tuple[float | None, str]:
    for keyword in keywords:
        angle = _angle(card_value(header, keyword))
        if angle is not None and abs(angle) <= limit_deg:
            return angle, keyword
    return None, ""


def _elevation_m(header: fits.Header) -> float:
    """Return the elevation; 0 when it is not stated, which costs microseconds in the times."""
    low, high = ELEVATION_RANGE_M
    for keyword in ELEVATION_CARDS:
        words = re.match(r"[+-]?\d+(\.\d*)?", text(header, keyword) or "")
        if words is not None and low <= float(words[0]) <= high:
            return float(words[0])
    return 0.0
