"""Lines of the AAVSO's Extended File Format: by hand, by law, and read back as written."""

import dataclasses
import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wombat_dagster import domain
from wombat_dagster.domain import Flag, ReportLine
from wombat_dagster.reports import aavso
from wombat_dagster.reports.aavso import (
    ReportHeader,
    airmass_text,
    error_text,
    format_report,
    group_numbers,
    note_values,
    note_words,
    noted,
    observation_lines,
    parse_report,
    plain,
    star_id_of,
)
from wombat_dagster.reports.aavso_lint import lint
from wombat_dagster_tests.magnitude_tables import (
    STARS,
    noisy_night,
    standardised,
    star,
    table,
    through_the_air,
    with_flag,
)

NOW_JD = 2461100.0
HEADER = ReportHeader(obscode="TST01", software="wombat 9.9")
COLOUR = domain.Transformation(
    coefficient_name="Tv_bv", coefficient=-0.06, coefficient_error=0.01, colour_index="B-V",
    target_colour=0.35, target_colour_error=0.02, source="configuration (Tv_bv, Tb_bv)",
)  # fmt: skip


def lines_of(night, magnitudes=None, *, rejected=(), **more):
    magnitudes = magnitudes or standardised(night)
    out = np.isin(np.arange(len(night.labels)), list(rejected))
    made = observation_lines(magnitudes, night, rejected=out, **{"star_id": "TX Eri"} | more)
    return {i: line for i, line in made}  # noqa: C416  # a dict says what a pair is


def values(line):
    return {key: float(value) for key, value in note_values(line.notes).items()}


def found_in(lines, header=HEADER):
    return lint(format_report(header, list(lines)), now_jd=NOW_JD)


# ---------------------------------------------------------------------------------- by hand


def two_comps():
    """T1 of 100 counts/s is -5.0; C3 gives 21.02, C4 20.98: zero point 21.00, T1 16.000."""
    stars = (star("T1"), star("C2", 11.0, 0.03), star("C3", 12.0, 0.04))
    flux = 10.0 * np.array([[100.0, 10 ** (0.4 * 10.02), 10 ** (0.4 * 8.98)]])
    return table(stars, flux, flux / 100, exposure_s=np.array([10.0]))


def test_an_ensemble_s_line_by_hand():
    """MERR sqrt(1.5) * 1.0857/100 = 0.0133, up; ZPERR 0.05/2; CMAGINS = 11.5 - 21.0 = -9.5."""
    assert lines_of(two_comps())[0] == ReportLine(
        star_id="TX Eri",
        date="2460963.500000",
        magnitude="16.000",
        error="0.014",
        band="V",
        transformed="NO",
        magnitude_type="STD",
        comp_name="ENSEMBLE",
        comp_mag="na",
        check_name="na",
        check_mag="na",
        airmass="1.2000",
        group="na",
        chart="X12345ABC",
        notes="na|VMAGINS=-5.000|CMAGINS=-9.500|CREFMAG=11.500|ZPERR=0.025",
    )


def test_one_comp_is_named_with_its_own_instrumental_magnitude():
    """C3 alone: CMAG is -2.5 log10 of its counts per second, KMAG that of T2."""
    night = noisy_night(n_frames=5, stars=STARS[:3])
    counts = night.measured.source_sky_adu / night.exposure_s[:, None]
    for i, line in lines_of(night).items():
        assert (line.comp_name, line.check_name) == ("000-C3", "000-T2")
        assert float(line.comp_mag) == pytest.approx(-2.5 * np.log10(counts[i, 2]), abs=5.1e-4)
        assert float(line.check_mag) == pytest.approx(-2.5 * np.log10(counts[i, 1]), abs=5.1e-4)
        assert values(line)["CMAGINS"] == float(line.comp_mag)


def test_with_an_ensemble_the_check_star_s_magnitude_is_standardised():
    night = noisy_night(n_frames=5)
    got = standardised(night)
    for i, line in lines_of(night, got).items():
        assert (line.check_name, line.check_mag) == ("000-T2", f"{got.t2_mag[i]:.3f}")
        assert values(line)["KMAGINS"] == pytest.approx(got.t2_instrumental_mag[i], abs=5.1e-4)
        assert values(line)["KREFMAG"] == 12.0


def test_a_frame_without_the_check_star_names_none():
    night = noisy_night(n_frames=6)
    got = standardised(night)
    got.t2_mag[2] = got.t2_instrumental_mag[2] = np.nan
    lines = lines_of(night, got)
    assert (lines[2].check_name, lines[2].check_mag) == ("na", "na")
    assert "KMAGINS" not in values(lines[2])
    assert lines[1].check_name == "000-T2"


def test_one_comp_with_field_stars_is_an_ensemble():
    night = noisy_night(n_frames=5, stars=STARS[:3])
    got = dataclasses.replace(standardised(night), n_field_stars=40)
    line = lines_of(night, got)[0]
    assert (line.comp_name, line.comp_mag) == ("ENSEMBLE", "na")
    assert "zero point steadied by 40 field stars" in line.notes


# --------------------------------------------------------------------------------- what is told


def test_an_upper_limit_has_no_error_and_no_instrumental_magnitude():
    night = noisy_night(n_frames=5)
    got = standardised(night)
    got.t1_upper_limit[1] = True
    line = lines_of(night, got)[1]
    assert (line.magnitude, line.error) == (f"<{got.t1_mag[1]:.3f}", "na")
    assert "VMAGINS" not in values(line)
    assert found_in([line]) == ()


def test_transformed_points_say_yes_and_how():
    night = noisy_night(n_frames=5)
    line = lines_of(night, standardised(night, COLOUR))[0]
    assert line.transformed == "YES"
    assert "transformed with Tv_bv and B-V 0.350 (configuration (Tv_bv; Tb_bv))" in line.notes
    assert line.notes.endswith("|Tv_bv=-0.0600|Tv_bvErr=0.0100")


def test_two_filters_say_which():
    blue, red = through_the_air("B"), through_the_air("V")
    pair = {"Tb_bv": 0.09, "Tv_bv": -0.06}
    got = standardised(red, siblings=[blue], coefficients=pair, coefficient_errors={})
    line = lines_of(red, got)[0]
    assert (got.method, line.transformed) == ("two-filter", "YES")
    assert "Tv_bv=-0.0600" in line.notes
    assert "Tv_bvErr" not in line.notes
    assert "two filters: Tb_bv; Tv_bv" in line.notes


def test_a_coefficient_that_was_not_used_is_not_told():
    """Comps without a colour: nothing is transformed, whatever is stored."""
    bare = tuple(dataclasses.replace(one, colour=None) for one in STARS)
    night = noisy_night(n_frames=5, stars=bare)
    line = lines_of(night, standardised(night, COLOUR))[0]
    assert line.transformed == "NO"
    assert "Tv_bv" not in line.notes


def test_a_fit_to_the_night_s_comps_is_no_transformation():
    night = noisy_night(n_frames=5)
    got = dataclasses.replace(
        standardised(night, COLOUR),
        transformed=False,
        method="colour-fit",
        transformation=dataclasses.replace(COLOUR, source="fit to 5 comps of the night"),
    )
    line = lines_of(night, got)[0]
    assert line.transformed == "NO"
    assert "colour term in MAG is no transformation: fit to 5 comps of the night" in line.notes
    assert found_in([line]) == ()  # no wrong sum either


def test_what_calibration_lacks_and_what_the_person_says_is_in_the_notes():
    night = noisy_night(n_frames=5, notes=("not calibrated for: bias, flat", "something long"))
    line = lines_of(night, notes='"thin" clouds, seeing 4″ | moon=80%')[0]
    assert line.notes.startswith("'thin' clouds; seeing 4'' / moon:80%; no bias; no flat|VMA")


def test_comps_of_a_catalogue_are_the_chart():
    night = noisy_night(n_frames=5, comp_source="APASS DR9 (VizieR)")
    line = lines_of(night)[0]
    assert line.chart == "APASS DR9"
    assert "comps from APASS DR9 (VizieR); not of an AAVSO sequence" in line.notes
    assert lines_of(noisy_night(n_frames=5, comp_source="VSP"))[0].chart == "X12345ABC"


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("APASS J060112.34-151223.4", "APASS J060112-151223"),
        ("APASS DR9 J060112.34-151223.4", "APASS DR9 J0601-1512"),
        ("REFCAT2_0601123+151234", "REFCAT2_060112+1512"),
        ("APASS_0601123-151234", "APASS_0601123-151234"),
        ("a comp of nobody's catalogue", "a comp of nobody's c"),
    ],
)
def test_the_name_of_a_place_is_not_cut_inside_its_coordinates(name, written):
    got = dataclasses.replace(
        standardised(two_comps()), comp_names=(name,), comp_source="APASS DR9 (VizieR)"
    )
    line = lines_of(two_comps(), got)[0]
    assert line.comp_name == written
    assert found_in([line]) == ()


def test_a_point_that_the_person_kept_says_why_it_was_doubted():
    night = with_flag(noisy_night(n_frames=5), 1, 0, Flag.BLENDED)
    got = dataclasses.replace(
        standardised(night), proposed_rejected=("", "", "", "saturated,edge", "")
    )
    lines = lines_of(night, got)
    assert lines[3].notes.startswith("kept by the observer although: saturated;edge|")
    assert lines[1].notes.startswith("another star in the aperture|")
    assert lines[0].notes.startswith("na|")


def test_rejected_points_and_those_without_a_magnitude_are_not_there():
    night = noisy_night(n_frames=6)
    got = standardised(night)
    got.t1_mag[4] = np.nan
    assert list(lines_of(night, got, rejected=[0, 2])) == [1, 3, 5]


def test_a_table_of_other_frames_is_refused():
    night = noisy_night(n_frames=5)
    with pytest.raises(ValueError, match="5 magnitudes are not of the 6 frames"):
        lines_of(noisy_night(n_frames=6), standardised(night))


def test_the_groups_go_to_their_frames():
    night = noisy_night(n_frames=3)
    assert [one.group for one in lines_of(night, groups=("7", "na", "8")).values()] == [
        "7", "na", "8",
    ]  # fmt: skip


@given(st.integers(0, 10_000), st.integers(2, 12), st.booleans(), st.integers(2, 5))
def test_whatever_the_night_its_lines_are_clean_and_add_up(seed, n_frames, coloured, n_stars):
    """MAG = VMAGINS - CMAGINS + CREFMAG within four roundings; no finding, no warning."""
    night = noisy_night(n_frames=n_frames, seed=seed, stars=STARS[: n_stars + 1])
    lines = lines_of(night, standardised(night, COLOUR if coloured else domain.Transformation()))
    assert len(lines) == n_frames
    assert found_in(lines.values()) == ()
    for line in lines.values():
        known = values(line)
        total = known["VMAGINS"] - known["CMAGINS"] + known["CREFMAG"]
        assert (abs(float(line.magnitude) - total) <= 0.002 + 1e-9) or line.transformed == "YES"


# -------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("error_mag", "text"),
    [(0.0, "0.001"), (1e-9, "0.001"), (0.001, "0.001"), (0.0101, "0.011"), (0.29, "0.290")],
)
def test_errors_are_rounded_up_and_never_nothing(error_mag, text):
    assert error_text(error_mag) == text


@given(st.floats(1e-6, 50.0))
def test_no_error_is_made_smaller_by_writing_it(error_mag):
    assert 0 <= float(error_text(error_mag)) - error_mag + 1e-8 <= 0.0011
    assert len(error_text(error_mag)) <= 6


@pytest.mark.parametrize(
    ("airmass", "text"),
    [(1.0, "1.0000"), (0.995, "1.0000"), (38.123456, "38.1235"), (-1.0, "na"), (math.nan, "na")],
)
def test_airmasses_are_at_least_1_and_not_written_below_the_horizon(airmass, text):
    assert airmass_text(airmass) == text


# ---------------------------------------------------------------------------------------- words


@pytest.mark.parametrize(
    ("text", "ascii_text"),
    [
        ("Müller – Ångström", "Muller - Angstrom"),
        ("α Ori ± 5°", "alpha Ori +/- 5 deg"),
        ("Ω, ς\tand\nß", "Omega, sigma and ss"),
        ("星 ok", "? ok"),
        ("a\x00b\x7f", "a b"),
    ],
)
def test_text_is_spelled_in_ascii(text, ascii_text):
    assert plain(text) == ascii_text


@given(st.text(max_size=60), st.sampled_from(aavso.WRITTEN_DELIMITERS))
def test_words_never_hold_what_would_break_the_line(text, delimiter):
    words = note_words(text, delimiter)
    assert words.isascii()
    assert words == "" or words.isprintable()
    assert not {delimiter, "|", "=", '"'} & set(words)
    assert note_values(words + "|VMAGINS=1.0") == {"VMAGINS": "1.0"}


def test_further_words_come_first():
    line = lines_of(two_comps())[0]
    marked = noted(line, "amended, was 16.012")
    assert marked.notes.startswith("amended; was 16.012|VMAGINS=-5.000|")
    again = noted(dataclasses.replace(line, notes="moon"), "amended", delimiter=";")
    assert again.notes == "amended, moon"


def test_notes_with_another_separator_are_read():
    """The page: another delimiter is announced by DELIM= before it first comes."""
    assert note_values("5 records DELIM=^VMAGINS=-7.2^Tv_bv = 0.01") == {
        "VMAGINS": "-7.2",
        "TV_BV": "0.01",
    }


# ----------------------------------------------------------------------------------------- names


def variable(name, auid=None):
    return domain.Variable(name=name, ra_deg=1.0, dec_deg=2.0, auid=auid)


@pytest.mark.parametrize(
    ("name", "auid", "written"),
    [
        ("TX Eri", "000-BBB-111", "TX Eri"),
        ("Gaia DR3\n123", None, "Gaia DR3 123"),
        ("Gaia DR3 4656274556334337536 A1", "000-BBB-111", "000-BBB-111"),  # 31 characters
        ("A,B", "000-BBB-111", "000-BBB-111"),
        ("#1", "000-BBB-111", "000-BBB-111"),
    ],
)
def test_a_star_goes_by_its_name_or_its_auid(name, auid, written):
    assert star_id_of(variable(name, auid)) == written


def test_a_star_that_cannot_be_named_is_refused():
    with pytest.raises(ValueError, match="no AUID"):
        star_id_of(variable("S" * 31))


# ----------------------------------------------------------------------------------------- GROUP


BANDS = {"b": "B", "v": "V", "r": "R"}
MINUTE = 1 / 1440


def groups_of(sequence, *, start_jd=2460963.5, cadence_d=MINUTE):
    """GROUP of each frame of ``bvrbv…``, in the order of the sequence; a blank is a gap."""
    times = {key: [] for key in sequence if key != " "}
    for i, key in enumerate(sequence):
        if key != " ":
            times[key].append(start_jd + i * cadence_d)
    found = group_numbers({k: np.array(v) for k, v in times.items()}, BANDS)
    left = {key: list(numbers) for key, numbers in found.items()}
    return [left[key].pop(0) for key in sequence if key != " "]


def test_each_cycle_through_the_filters_is_a_group():
    first, second = groups_of("bvrbvr")[::3]
    assert groups_of("bvrbvr") == [first] * 3 + [second] * 3
    assert first != second
    assert first == "1" or int(first) in range(43200, 43203)  # JD .5 is 12 h after it began


def test_one_filter_has_no_groups():
    assert groups_of("vvvv") == ["na"] * 4


def test_a_series_in_each_filter_groups_where_they_meet():
    """Only neighbours are at one time: of b b b v v v the third and the fourth."""
    got = groups_of("bbbvvv")
    assert [one == "na" for one in got] == [True, True, False, False, True, True]
    assert got[2] == got[3]


def test_frames_half_an_hour_apart_are_no_set():
    assert groups_of("b v", cadence_d=16 * MINUTE) == ["na", "na"]
    assert groups_of("b v", cadence_d=14 * MINUTE)[0] != "na"


def test_two_nights_that_share_a_julian_date_share_no_group():
    """Australia: a night ends after JD has changed, the next begins before it does again."""
    one = groups_of("bvbvbv", start_jd=2460963.9, cadence_d=0.02)
    other = groups_of("bvbvbv", start_jd=2460964.7, cadence_d=0.02)
    assert not set(one) & set(other)


@given(st.text("bvr ", min_size=1, max_size=40), st.floats(2450000.0, 2461000.0))
def test_no_group_has_a_filter_twice_and_all_are_integers_of_five_digits(sequence, start_jd):
    numbers = groups_of(sequence, start_jd=start_jd)
    frames = [key for key in sequence if key != " "]
    pairs = [(key, number) for key, number in zip(frames, numbers, strict=True) if number != "na"]
    assert len(set(pairs)) == len(pairs)
    assert all(1 <= int(number) <= 86400 for _, number in pairs)
    assert all(numbers.count(number) > 1 for _, number in pairs)


# --------------------------------------------------------------------------- written, read back


def test_a_file_by_hand():
    line = lines_of(two_comps())[0]
    text = format_report(dataclasses.replace(HEADER, comments=("by hand – DATE=HJD",)), [line])
    assert text.split("\n") == [
        "#TYPE=Extended",
        "#OBSCODE=TST01",
        "#SOFTWARE=wombat 9.9",
        "#DELIM=,",
        "#DATE=JD",
        "#OBSTYPE=CCD",
        "# by hand - DATE:HJD",
        "#NAME,DATE,MAG,MERR,FILT,TRANS,MTYPE,CNAME,CMAG,KNAME,KMAG,AMASS,GROUP,CHART,NOTES",
        "TX Eri,2460963.500000,16.000,0.014,V,NO,STD,ENSEMBLE,na,na,na,1.2000,na,X12345ABC,"
        "na|VMAGINS=-5.000|CMAGINS=-9.500|CREFMAG=11.500|ZPERR=0.025",
        "",
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"notes": "a, b"}, "holds the delimiter"),
        ({"notes": ""}, "printable ASCII"),
        ({"chart": "X\n1"}, "printable ASCII"),
        ({"check_name": "α"}, "printable ASCII"),
        ({"group": " 1"}, "printable ASCII"),
        ({"star_id": "#1"}, "a comment"),
    ],
)
def test_what_would_break_the_file_is_not_written(changes, words):
    line = dataclasses.replace(lines_of(two_comps())[0], **changes)
    with pytest.raises(ValueError, match=words):
        format_report(HEADER, [line])


@pytest.mark.parametrize(
    "changes", [{"delimiter": "|"}, {"obscode": ""}, {"software": "wombat\n#DATE=HJD"}]
)
def test_a_header_that_would_break_the_file_is_not_written(changes):
    with pytest.raises(ValueError, match="wanted"):
        format_report(dataclasses.replace(HEADER, **changes), [])


def test_other_programs_ways_of_writing_are_read():
    text = (
        "\ufeff#type=extended,,,,\r\n#Obscode=HSR\r\n#SOFTWARE=X 1; 2\r\n#DELIM=TAB\r\n"
        "#date=hjd\r\n# weather=good\r\n#OBSTYPE=CCD\r\n\r\n"
        + "\t".join(["SS Cyg "] + ["na"] * 13 + ["a,b"])
        + "\r\n#OBSCODE=ABC\r\nshort\tline"
    )
    got = parse_report(text)
    assert got.has_byte_order_mark
    assert {one.name: one.value for one in got.parameters[:-1]} == {
        "TYPE": "extended",
        "OBSCODE": "HSR",
        "SOFTWARE": "X 1; 2",
        "DELIM": "TAB",
        "DATE": "hjd",
        "OBSTYPE": "CCD",
    }
    assert got.comments == ((6, "# weather=good"),)
    assert got.blank_lines == (8,)
    first, second = got.rows
    assert (first.line_number, first.obscode, first.date_kind) == (9, "HSR", "HJD")
    assert first.line is not None
    assert (first.line.star_id, first.line.notes) == ("SS Cyg", "a,b")
    assert (second.line_number, second.obscode, second.line) == (11, "ABC", None)


@pytest.mark.parametrize(
    ("said", "delimiter"),
    [(",", ","), ("comma", ","), ("Tab", "\t"), (";", ";"), ("!", "!"), ("|", "|"), ("44", ","),
     ("#", None), ("", None), (" ", None), ("semi", None), ("31", None), ("127", None)],
)  # fmt: skip
def test_the_delimiters_of_the_page_are_known(said, delimiter):
    """Page, 1.2: any ASCII character 32 to 126, or its number; older: not # and blank, words."""
    assert aavso.delimiter_of(said) == delimiter


@given(st.text(max_size=300))
@example("#DELIM=\t\n1\t2")
def test_nothing_makes_the_parser_fail(text):
    got = parse_report(text)
    numbers = [*got.blank_lines, *(n for n, _ in got.comments)]
    numbers += [one.line_number for one in (*got.parameters, *got.rows)]
    assert sorted(numbers) == list(range(1, len(got.lines) + 1))


# --------------------------------------------------------------------------------- the round trip

PRINTABLE = st.characters(min_codepoint=32, max_codepoint=126, exclude_characters="|=#")


@st.composite
def reports(draw):
    """A header and lines of which the format knows nothing bad, from any corner of it."""
    delimiter = draw(st.sampled_from(aavso.WRITTEN_DELIMITERS))

    def words(max_size):
        text = draw(st.text(PRINTABLE, max_size=max_size)).replace(delimiter, "x").strip()
        return text if text.casefold() not in ("", "na") else "x"

    def mag(low, high):
        return f"{draw(st.integers(low, high)) / 1000:.3f}"

    lines = []
    for seconds in draw(st.lists(st.integers(0, 10**9), unique=True, max_size=5)):
        instrumental, comp, reference = (
            draw(st.integers(*ends)) for ends in ((-15000, 0), (-15000, 0), (8000, 15000))
        )
        single, transformed = draw(st.booleans()), draw(st.booleans())
        limit, checked = draw(st.booleans()), draw(st.booleans())
        own = instrumental - comp + reference
        if not -5000 <= own <= 30000:
            continue
        check = draw(st.integers(reference - 3000, reference + 3000)) / 1000
        notes = (
            f"{words(40)}|VMAGINS={instrumental / 1000:.3f}|CMAGINS={comp / 1000:.3f}"
            f"|CREFMAG={reference / 1000:.3f}|KREFMAG={reference / 1000:.3f}"
        )
        lines.append(
            ReportLine(
                star_id="S" + words(29),
                date=f"{2415021 + seconds / 86400:.6f}",
                magnitude=("<" if limit else "") + f"{own / 1000:.3f}",
                error="na" if limit else mag(1, 1000),
                band=draw(st.sampled_from(["B", "V", "R", "I", "TG", "CV", "SR", "O"])),
                transformed="YES" if transformed else "NO",
                magnitude_type="STD",
                comp_name="C" + words(19) if single else "ENSEMBLE",
                comp_mag=f"{comp / 1000:.3f}" if single else "na",
                check_name="K" + words(19) if checked else "na",
                check_mag=f"{check:.3f}" if checked else "na",
                airmass=draw(st.sampled_from(["na", "1.0000", "38.1235"])),
                group="na",
                chart=words(20),
                notes=notes + ("|Tv_bv=-0.0600" if transformed else ""),
            )
        )
    header = ReportHeader(
        obscode=draw(st.from_regex(r"[A-Z]{2,4}[0-9]?", fullmatch=True)),
        software="wombat " + words(20),
        delimiter=delimiter,
        obstype=draw(st.sampled_from(["CCD", "DSLR", "PEP", "VISDIG"])),
        comments=tuple(draw(st.lists(st.text(max_size=30), max_size=2))),
    )
    return header, lines


@given(reports())
def test_what_is_written_reads_back_as_it_was_and_is_clean(report):
    header, lines = report
    text = format_report(header, lines)
    got = parse_report(text)
    assert [row.line for row in got.rows] == lines
    assert got.delimiter == header.delimiter
    assert {row.obscode for row in got.rows} <= {header.obscode}
    findings = [one for one in lint(text, now_jd=NOW_JD) if one.rule != "no-data" or lines]
    assert findings == []
