"""What a frame says of itself, in the dialects that capture programs write."""

import io

import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from wombat_dagster.domain import FrameKind
from wombat_dagster.store import headers


def header_of(*lines):
    """Return a header from raw card texts, as a file would hold them, faults included."""
    cards = ["SIMPLE  =                    T", "BITPIX  =                   16", *lines, "END"]
    block = "".join(line.ljust(80) for line in cards)
    return fits.Header.fromfile(io.BytesIO(block.encode().ljust(-(-len(block) // 2880) * 2880)))


MICROOBSERVATORY = header_of(
    "DATE-OBS= '2017-12-19T18:33:43.317-0700' / Start date & time of observation, LT",
    "UT-OBS  = '2017-12-20T01:33:43.317-0000' / Universal Time at start of obs.",
    "MJD-OBS = 58107.065 / Modified Julian Date (MJD) at start of observation",
    "EXPTIME = 060.00 / Exposure time in Seconds",
    "RA      =  31.312099 / 02:05.25 Right Ascension",
    "DEC     =  46.769087 / +46:46.15 Declination",
    "FILTER  = 'Clear   ' / Filter chosen",
    "IM_SCALE= 5.210 / Image scale in arc-secs/pixel",
    "CAMTEMP = 271.0 / CCD Camera Temperature in Kelvin, =-1 if no data",
    "LATITUDE= 31.68 / Local latitude",
    "LONGITUD= 110.88 / Local longitude",
)
THESKYX = header_of(
    "PICTTYPE=                    2 / Image type as index",
    "IMAGETYP= 'Bias Frame'         / SBIGFITSEXT Light, Dark, Bias or Flat",
    "SITELAT = '+42 36 36.00'       / SBIGFITSEXT Latitude",
    "SITELONG= '+71 29 06.00'       / SBIGFITSEXT Longitude",
    "OBJCTRA = '04 12 12.445'       /",
    "OBJCTDEC= '-00 53 01.56'       /",
    "FOCALLEN=                3910. /",
    "XPIXSZ  =                  24. /",
    "XBINNING=                    2 /",
    "YBINNING=                    2 /",
    "EGAIN   =                 2.07 /",
    "PEDESTAL=                 -100 /",
)


def test_microobservatory_local_time_with_offset_becomes_utc():
    """Known first mid-exposure JD_UTC 2458107.565432 (data/README.md), 60 s exposure."""
    start = headers.start_utc(MICROOBSERVATORY)
    assert start == "2017-12-20T01:33:43.317000"
    seconds_after_noon = (13 * 3600) + 33 * 60 + 43.317 + headers.exposure_s(MICROOBSERVATORY) / 2
    assert 2458107 + seconds_after_noon / 86400 == pytest.approx(2458107.565432, abs=5e-7)


def test_microobservatory_facts():
    assert headers.exposure_s(MICROOBSERVATORY) == 60.0
    assert headers.ccd_temperature_c(MICROOBSERVATORY) == pytest.approx(-2.15)
    assert headers.position_hint_deg(MICROOBSERVATORY) == (31.312099, 46.769087)
    assert headers.scale_hint_arcsec_px(MICROOBSERVATORY) == 5.21
    assert headers.filter_name(MICROOBSERVATORY) == "Clear"
    site = headers.site_hint(MICROOBSERVATORY)
    assert (site.latitude_deg, site.longitude_deg) == (31.68, 110.88)  # as stated, west-positive


def test_theskyx_facts():
    assert headers.kind(THESKYX) is FrameKind.BIAS
    site = headers.site_hint(THESKYX)
    assert site.latitude_deg == pytest.approx(42.61)
    assert site.longitude_deg == pytest.approx(71.485)
    ra_deg, dec_deg = headers.position_hint_deg(THESKYX)
    assert ra_deg == pytest.approx(15 * (4 + 12 / 60 + 12.445 / 3600))
    assert dec_deg == pytest.approx(-(53 / 60 + 1.56 / 3600))  # the sign of -00 is kept
    # 24 um is after binning: 206.265 * 24 / 3910, not twice that.
    assert headers.scale_hint_arcsec_px(THESKYX) == pytest.approx(1.26608, abs=1e-5)
    assert headers.binning(THESKYX) == "2x2"
    assert headers.gain_e_adu(THESKYX).value == 2.07
    assert headers.pedestal_adu(THESKYX) == -100.0


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (["DATE-OBS= '2025-10-15T23:59:30'"], "2025-10-15T23:59:30.000000"),
        (["DATE-OBS= '2025-10-15T23:59:30.5Z'"], "2025-10-15T23:59:30.500000"),
        (["DATE-OBS= '2025-10-15T23:30:00+05:30'"], "2025-10-15T18:00:00.000000"),
        (["DATE-OBS= 2025-10-15T01:02:03 / not quoted"], "2025-10-15T01:02:03.000000"),
        (["DATE-OBS= '2025-10-15'", "TIME-OBS= '01:02:03.25'"], "2025-10-15T01:02:03.250000"),
        (["DATE-OBS= '2025-10-15'", "UT      = '01:02:03'"], "2025-10-15T01:02:03.000000"),
        (["DATE-OBS= '15/10/97'", "TIME-OBS= '01:02:03'"], "1997-10-15T01:02:03.000000"),
        # An offset says most; then comes what is called universal time.
        (
            ["DATE-OBS= '2025-10-15T01:00:00-0700'", "UT-OBS  = '2025-10-15T01:00:00'"],
            "2025-10-15T08:00:00.000000",
        ),
        # Universal time said outright beats a stamp that does not say which time it is.
        (
            ["DATE-OBS= '2025-10-14T18:00:00'", "UT-OBS  = '2025-10-15T01:00:00'"],
            "2025-10-15T01:00:00.000000",
        ),
        # TT is ahead of UTC by 69.184 s since 2017.
        (["DATE-OBS= '2025-10-15T00:01:09.184'", "TIMESYS = 'TT'"], "2025-10-15T00:00:00.000000"),
        (["DATE-OBS= '2025-10-15T00:00:00'", "TIMESYS = 'UTC(NTP)'"], "2025-10-15T00:00:00.000000"),
        # JD 2451545.0 is 2000-01-01 12:00; MJD 51544.5 the same.
        (["JD      = 2451545.25"], "2000-01-01T18:00:00.000000"),
        (["MJD-OBS = 51544.5"], "2000-01-01T12:00:00.000000"),
        (["DATE-OBS= '2025-10-15'", "JD      = 2451545.25"], "2000-01-01T18:00:00.000000"),
        # A leap second runs into the next day, as JD's days of 86400 s have it.
        (["DATE-OBS= '2016-12-31T23:59:60.5'"], "2017-01-01T00:00:00.500000"),
    ],
)
def test_start_of_exposure(lines, expected):
    assert headers.start_utc(header_of(*lines)) == expected


@pytest.mark.parametrize(
    "lines",
    [
        [],
        ["DATE-OBS= '2025-10-15'"],
        ["DATE-OBS= '        '"],
        ["DATE-OBS= '2025-13-45T01:02:03'"],
        ["DATE-OBS= '1970-01-01T00:00:00'"],
        ["DATE-OBS= 'yesterday'"],
        ["DATE-OBS= '2025-10-15T01:02:03'", "TIMESYS = 'LOCAL'"],
        ["TIME-OBS= '01:02:03'"],
        ["JD      = 0.0"],
        ["JD      = 60000.5"],
    ],
)
def test_no_usable_time(lines):
    assert headers.start_utc(header_of(*lines)) is None


def test_a_rounded_mjd_is_the_last_resort():
    both = header_of("MJD-OBS = 58107.065", "JD      = 2458107.5650847")
    assert headers.start_source(both) == "JD"
    assert headers.start_source(header_of("MJD-OBS = 58107.065")) == "MJD-OBS"


@pytest.mark.parametrize(
    ("lines", "seconds"),
    [
        (["EXPTIME = 60.0"], 60.0),
        (["EXPTIME = '120     '"], 120.0),
        (["EXPOSURE= 3"], 3.0),
        (["EXP_TIME= 1.5"], 1.5),
        (["TM-START= 86390", "TM-END  = 20"], 30.0),
        (["TM-START= '01:00:00'", "TM-END  = '01:02:00'"], 120.0),
        (["EXPTIME = -1", "EXPOSURE= 10"], 10.0),
        (["EXPTIME = 'long'"], None),
        (["EXPTIME = NaN / no number"], None),
        ([], None),
    ],
)
def test_exposure(lines, seconds):
    assert headers.exposure_s(header_of(*lines)) == seconds


@pytest.mark.parametrize(
    ("card", "kind"),
    [
        ("IMAGETYP= 'Light Frame'", FrameKind.LIGHT),
        ("IMAGETYP= 'LIGHT   '", FrameKind.LIGHT),
        ("IMAGETYP= 'object  '", FrameKind.LIGHT),
        ("IMAGETYP= 'Twilight Flat'", FrameKind.FLAT),
        ("IMAGETYP= 'DARKFLAT'", FrameKind.DARK),
        ("IMAGETYP= 'zero    '", FrameKind.BIAS),
        ("PICTTYPE= 3", FrameKind.DARK),
        ("PICTTYPE= 0", None),
        ("IMAGETYP= '        '", None),
    ],
)
def test_kind(card, kind):
    assert headers.kind(header_of(card)) is kind


@pytest.mark.parametrize(
    ("words", "degrees"),
    [
        ("+42 36 36.00", 42.61),
        ("-116 20 00", -116.33333333333333),  # not -116 + 20', DOMAIN section 5
        ("-00:30:00", -0.5),
        ("02h30m00s", 2.5),
        ("71 29 06 W", -71.485),
        ("W71:29:06", -71.485),
        ("47°30'00\" N", 47.5),
        ("12 30", 12.5),
        ("12:75:00", None),
        ("north", None),
        ("", None),
    ],
)
def test_sexagesimal(words, degrees):
    value = headers.sexagesimal(words)
    assert value == (None if degrees is None else pytest.approx(degrees))


@given(st.integers(0, 179), st.integers(0, 59), st.integers(0, 59), st.sampled_from("+-"))
def test_a_sexagesimal_sign_counts_for_the_whole_value(whole, minutes, seconds, sign):
    size = headers.sexagesimal(f"{whole:02d}:{minutes:02d}:{seconds:02d}")
    signed = headers.sexagesimal(f"{sign}{whole:02d} {minutes:02d} {seconds:02d}")
    assert signed == (size if sign == "+" else -size)
    assert size == pytest.approx(whole + minutes / 60 + seconds / 3600)


@pytest.mark.parametrize(
    ("lines", "position"),
    [
        (["RA      = '02 30 36.1'", "DEC     = '+42 15 12'"], (37.650417, 42.253333)),
        (["RA      = 37.65", "DEC     = 42.25"], (37.65, 42.25)),
        (["RA      = 2.51 / [hours]", "DEC     = 42.25"], (37.65, 42.25)),
        (["RA      = '37.65'", "DEC     = '42.25'"], (37.65, 42.25)),
        (["RA      = 2.51 / RA in hours", "DEC     = 42.25"], (37.65, 42.25)),
        (["RA      = 2.51 / right ascension (h)", "DEC     = 42.25"], (37.65, 42.25)),
        (["RA      = '2.51' / [hours]", "DEC     = '42.25'"], (37.65, 42.25)),
        (["RA      = '2.51h'", "DEC     = '42.25d'"], (37.65, 42.25)),
        (["RA      = '2.51 hours'", "DEC     = 42.25"], (37.65, 42.25)),
        (["RA      = '37.65 deg'", "DEC     = '+42.25 deg'"], (37.65, 42.25)),
        (["RA      = '37d39m00s'", "DEC     = '42d15m00s'"], (37.65, 42.25)),
        (["RA      = '02:30:36.1'", "DEC     = '+42:15:12'"], (37.650417, 42.253333)),
        (["RA      = '2:30:36.1'", "DEC     = '-0:15:12'"], (37.650417, -0.253333)),
        (["RA      = '02h30m36.1s'", "DEC     = '+42d15m12s'"], (37.650417, 42.253333)),
        (["RA      = '02h 30m 36.1s'", "DEC     = '+42d 15m 12s'"], (37.650417, 42.253333)),
        (["RA      = '02 30.6'", "DEC     = '+42 15.2'"], (37.65, 42.253333)),
        # A comment on an hour angle says nothing of this card's unit.
        (["RA      = 37.65 / not an hour angle", "DEC     = 42.25"], (37.65, 42.25)),
        (["OBJCTRA = '02 30 36.1'", "OBJCTDEC= '+42 15 12'", "RA = 1", "DEC = 1"], (37.65, 42.25)),
        (["CTYPE1  = 'RA---TAN'", "CRVAL1  = 37.65", "CRVAL2  = 42.25"], (37.65, 42.25)),
        (["RA      = 0.0", "DEC     = 0.0"], None),
        (["RA      = 37.65"], None),
        (["RA      = 37.65", "DEC     = 142.25"], None),
    ],
)
def test_position_hint(lines, position):
    found = headers.position_hint_deg(header_of(*lines))
    assert found == (None if position is None else pytest.approx(position, abs=0.004))


def test_gain_is_never_a_cmos_setting():
    assert headers.gain_e_adu(header_of("EGAIN   = 1.3", "GAIN    = 100")).source == "EGAIN"
    assert headers.gain_e_adu(header_of("GAIN    = 1.3")).value == 1.3
    assert headers.gain_e_adu(header_of("GAIN    = 1.3", "OFFSET  = 10")) is None
    assert headers.gain_e_adu(header_of("GAIN    = 100")) is None
    assert headers.gain_e_adu(header_of("EGAIN   = 0")) is None


def test_readout_words_tell_two_gain_settings_apart():
    low = headers.readout(header_of("READOUTM= 'Normal'", "GAIN    = 0", "OFFSET  = 50"))
    high = headers.readout(header_of("READOUTM= 'Normal'", "GAIN    = 100.0", "OFFSET  = 50"))
    assert low == "READOUTM=Normal GAIN=0 OFFSET=50"
    assert high == "READOUTM=Normal GAIN=100 OFFSET=50"


@pytest.mark.parametrize(
    ("lines", "scale"),
    [
        (["CTYPE1  = 'RA---TAN'", "CD1_1 = -0.0005", "CD2_2 = 0.0005"], 1.8),
        (["CTYPE1  = 'RA---TAN'", "CDELT1 = -0.0005", "CDELT2 = 0.0005"], 1.8),
        (["CDELT1  = 1.0", "CDELT2  = 1.0"], None),  # no sky coordinates
        (["SCALE   = 0.0", "PIXSCALE= 0.7"], 0.7),
        (["XPIXSZ  = 18.0", "FOCALLEN= 0.0"], None),
    ],
)
def test_scale_hint(lines, scale):
    found = headers.scale_hint_arcsec_px(header_of(*lines))
    assert found == (None if scale is None else pytest.approx(scale))


def test_site_in_numbers_with_letters_and_elevation():
    site = headers.site_hint(
        header_of("LAT-OBS = '33.5 S'", "LONG-OBS= '70.8 W'", "ALT-OBS = '2200 m'")
    )
    assert (site.latitude_deg, site.longitude_deg, site.elevation_m) == (-33.5, -70.8, 2200.0)
    assert site.source == "header LAT-OBS, LONG-OBS"
    assert headers.site_hint(header_of("SITELAT = 0.0", "SITELONG= 0.0")) is None
    assert headers.site_hint(header_of("SITELAT = 91.0", "SITELONG= 10.0")) is None


def test_no_data_in_kelvin_is_no_temperature_but_minus_one_celsius_is_one():
    assert headers.ccd_temperature_c(header_of("CAMTEMP = -1")) is None
    assert headers.ccd_temperature_c(header_of("CCD-TEMP= -1.0")) == -1.0


def test_blank_filter_is_not_known():
    assert headers.filter_name(header_of("FILTER  = '        '")) is None
    assert headers.filter_name(header_of("FILTER  = 'V       '")) == "V"
    assert headers.filter_name(header_of("FILTER  = Clear / not quoted")) == "Clear"
    assert headers.filter_name(header_of()) is None


@pytest.mark.parametrize(
    ("lines", "status"),
    [
        (["CALSTAT = 'BDF     '"], "BDF"),
        (["CALSTAT = 'D'"], "D"),
        (["CALSTAT = 'B,D'"], "BD"),
        (["CALSTAT = 'BDFM'"], "BDF"),
        (["CALSTAT = BD / not quoted"], "BD"),
        (["CALSTAT = 'Bias, Dark'"], "BD"),
        (["CALSTAT = 'RAW'"], None),
        (["CALSTAT = 'NONE'"], None),
        (["CALSTAT = 'No bias or dark'"], None),
        (["CALSTAT = '        '"], None),
        # IRAF's ccdred, and ccdproc 2.5, which calls a division by a flat as IRAF does.
        (["ZEROCOR = 'Jul  2 12:00 Zero level correction image is Zero.fits'"], "B"),
        (["DARKCOR = 'Jul  2 12:00 Dark count correction image is Dark'"], "D"),
        (["FLATCOR = 'ccd=<CCDData>, flat=<CCDData>'"], "F"),
        (["SUBBIAS = 'ccd=<CCDData>, master=<CCDData>'"], "B"),
        (["CCDPROC = 'Jul  2 12:00 CCD processing done'"], None),
        (["FLATCOR = F"], None),
        (["FLATCOR = T"], "F"),
        (["ZEROCOR = 'omitted'"], None),
        (["HISTORY Bias Subtracted"], "B"),
        (["HISTORY Dark Subtracted"], "D"),
        (["HISTORY Flat Field Applied"], "F"),
        (["HISTORY Dark Subtraction(Dark 5, 1536 x 1024, Bin1 x 1, Temp -20C,"], "D"),
        (["HISTORY Flat Field(Flat V 1, 1536 x 1024, Bin1 x 1, Temp -20C,"], "F"),
        (["HISTORY Bias corrected with masterbias.fits", "HISTORY Flat corrected with x"], "BF"),
        (["HISTORY calibrated with master bias, master dark and flat"], "BDF"),
        (["HISTORY divided by flat field mflatV.fits"], "F"),
        (["HISTORY non-linearity corrected, bias subtracted"], "B"),
        (["HISTORY no dark subtraction"], None),
        (["HISTORY Dark subtraction: off"], None),
        (["HISTORY Flat field not applied"], None),
        (["HISTORY pointing corrected in the dark of the Moon"], "D"),  # errs to the safe side
        (["HISTORY taken with a dark slide and a flat mirror"], None),
        (["HISTORY WCS offset corrected"], None),
        (["HISTORY zero point corrected"], None),
        ([], None),
    ],
)
def test_what_was_done_to_a_frame_before(lines, status):
    assert headers.calibration_status(header_of(*lines)) == status


def test_the_cards_that_say_so_are_named():
    header = header_of("CALSTAT = 'B'", "DARKCOR = T", "HISTORY Flat Field Applied")
    assert headers.calibration_source(header) == (
        "CALSTAT 'B', DARKCOR, HISTORY 'Flat Field Applied'"
    )
    assert headers.calibration_source(header_of()) is None


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 40), st.integers(1, 40))
def test_a_section_that_passes_lies_in_the_image(x1, x2, y1, y2):
    words = headers.section(f"[{x1}:{x2}, {y1}:{y2}]", width_px=50, height_px=30)
    if words is None:
        assert not (x1 < x2 <= 50 and y1 < y2 <= 30)
    else:
        assert headers.section_bounds(words) == (x1, x2, y1, y2)
        assert headers.section_size(words) == (len(range(x1, x2 + 1)), len(range(y1, y2 + 1)))
        assert headers.sections_overlap(words, words)
        assert headers.section(words, width_px=50, height_px=30) == words


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ("[1:50,1:40]", "[51:60,1:40]", False),
        ("[1:50,1:40]", "[50:60,1:40]", True),
        ("[1:50,1:40]", "[1:50,41:44]", False),
        ("[1:50,1:40]", "[10:20,10:20]", True),
    ],
)
def test_sections_that_share_a_pixel(one, other, overlap):
    assert headers.sections_overlap(one, other) is overlap
    assert headers.sections_overlap(other, one) is overlap


EVERY_FUNCTION = [
    headers.kind, headers.combined_words, headers.filter_name, headers.camera, headers.binning,
    headers.readout, headers.bayer_pattern, headers.calibration_status, headers.exposure_s,
    headers.start_utc, headers.start_source, headers.ccd_temperature_c, headers.gain_e_adu,
    headers.read_noise_e, headers.saturation_adu, headers.pedestal_adu, headers.airmass,
    headers.position_hint_deg, headers.scale_hint_arcsec_px, headers.site_hint,
    headers.calibration_source, headers.strange_calstat, headers.set_temperature_c,
    headers.subframe_origin,
    lambda header: headers.overscan(header, width_px=60, height_px=40),
    lambda header: headers.trim(header, width_px=60, height_px=40),
]  # fmt: skip
EVERY_CARD = [
    "IMAGETYP", "PICTTYPE", "NCOMBINE", "FILTER", "INSTRUME", "XBINNING", "YBINNING", "BINNING",
    "READOUTM", "GAIN", "OFFSET", "EGAIN", "BAYERPAT", "CALSTAT", "EXPTIME", "EXPOSURE",
    "TM-START", "TM-END", "DATE-OBS", "TIME-OBS", "UT-OBS", "TIMESYS", "JD", "MJD-OBS",
    "CCD-TEMP", "CAMTEMP", "RDNOISE", "SATURATE", "PEDESTAL", "AIRMASS", "OBJCTRA", "OBJCTDEC",
    "RA", "DEC", "CTYPE1", "CRVAL1", "CRVAL2", "CD1_1", "CD2_2", "CDELT1", "SCALE", "XPIXSZ",
    "FOCALLEN", "SITELAT", "SITELONG", "SITEELEV", "HISTORY", "ZEROCOR", "FLATCOR", "SET-TEMP",
    "BIASSEC", "TRIMSEC", "XORGSUBF",
]  # fmt: skip


@given(
    st.dictionaries(
        st.sampled_from(EVERY_CARD),
        st.one_of(
            st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60),
            st.integers().map(str),
            st.floats().map(str),
            st.sampled_from(
                ["'unterminated", "1.2.3", "T", "(1.0, 2.0)", "'' / x", "= 3", "1E999"]
            ),
        ),
    )
)
def test_no_card_however_bad_raises(cards):
    header = header_of(*(f"{keyword:8}= {value}"[:80] for keyword, value in cards.items()))
    before = [str(card.keyword) for card in header.cards]
    for function in EVERY_FUNCTION:
        function(header)
    assert [str(card.keyword) for card in header.cards] == before
