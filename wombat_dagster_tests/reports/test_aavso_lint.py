"""Every rule of the report's lint: a file that breaks it, its near miss that does not, real files.

Rules: DOMAIN section 3, which quotes the AAVSO's page "AAVSO Extended File Format" 1.2.
"""

import os
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from wombat_dagster.reports.aavso import COLUMNS, FIELDS
from wombat_dagster.reports.aavso_lint import RULES, Evidence, lint

NOW_JD = 2461100.0
REFERENCE = (
    Path(os.environ.get("WOMBAT_REFERENCE_DATA", "/nowhere/data")).parent / "reference/aavso"
)
HEADER = "#TYPE=Extended\n#OBSCODE=TST01\n#SOFTWARE=wombat 1.0\n#DELIM=,\n#DATE=JD\n#OBSTYPE=CCD\n"
GOOD = dict(
    zip(
        COLUMNS,
        (
            *("SS Cyg", "2461097.243356", "11.135", "0.002", "V", "NO", "STD", "ENSEMBLE", "na"),
            *("000-BCP-220", "12.503", "1.0630", "na", "X16382L"),
            "na|VMAGINS=-8.953|CMAGINS=-9.486|CREFMAG=10.602|KMAGINS=-7.585|KREFMAG=12.500",
        ),
        strict=True,
    )
)  # fmt: skip
OTHER = {"STARID": "SS Aur", "MTYPE": "DIF", "CNAME": "na", "KNAME": "na", "TRANS": "YES"}
SINGLE = {"CNAME": "000-BBP-713", "CMAG": "-9.486", "KMAG": "-7.585"}


def row(delimiter=",", **changes):
    return delimiter.join({**GOOD, **changes}[column] for column in COLUMNS) + "\n"


def one(**changes):
    return HEADER + row(**changes)


def header(old, new):
    assert old in HEADER
    return HEADER.replace(old, new) + row()


def keys(text):
    return {"NOTES": text}


def told(**known):
    """A good file, and what is known about it."""
    return one(), Evidence(**known)


NEXT = {"DATE": "2461097.244907"}
STAR, BAND = ("SS Cyg", "V")
SUM = "na|VMAGINS={}|CMAGINS=-9.486|CREFMAG=10.602"

SAMPLES = {
    # rule: (text or (text, evidence) that fails, the line it is in, one that passes)
    "text": (HEADER.encode("utf-16").decode("latin-1"), 1, one()),
    "byte-order-mark": ("\ufeff" + one(), 1, one()),
    "ascii": (one(NOTES="seeing 4″"), 7, one(NOTES="seeing 4''")),
    "control-character": (
        one(NOTES="a\x07b"), 7, HEADER.replace("#DELIM=,", "#DELIM=tab") + row("\t"),
    ),
    "line-end": (
        HEADER.replace("\n", "\r") + row().replace("\n", "\r"), 1, one().replace("\n", "\r\n"),
    ),
    "blank-line": (HEADER + "\n" + row(), 7, HEADER + "#\n" + row()),
    "file-extension": (told(file_name="night.dat"), None, told(file_name="NIGHT.TXT")),
    "header-missing": (header("#OBSTYPE=CCD\n", ""), None, header("#OBSTYPE", "#obstype")),
    "header-first": (
        header("#OBSTYPE=CCD\n", "") + "#OBSTYPE=CCD\n", 7, header("#TYPE", "#a comment\n#TYPE"),
    ),
    "header-order": (
        header("#DELIM=,\n#DATE=JD\n", "#DATE=JD\n#DELIM=,\n"), 4, one() + "#OBSCODE=ABC\n",
    ),
    "header-repeated": (one() + "#DELIM=;\n", 8, one() + "#DATE=HJD\n#OBSCODE=ABC\n"),
    "header-spelling": (header("#DATE=JD", "# DATE = JD"), 5, header("#DATE=JD", "#Date=jd")),
    "type": (header("Extended", "Visual"), 1, header("Extended", "EXTENDED,,,,")),
    "obscode": (header("TST01", "T. Tester"), 2, header("TST01", "hsr")),
    "software": (header("wombat 1.0", "w" * 256), 3, header("wombat 1.0", "w" * 255)),
    "delim": (header("#DELIM=,", "#DELIM=#"), 4, header("#DELIM=,", "#DELIM=comma")),
    "date-kind": (header("=JD", "=MJD"), 5, header("=JD", "=hjd")),
    "obstype": (header("=CCD", "=CMOS"), 6, header("=CCD", "=dslr")),
    "no-data": (HEADER, None, one()),
    "columns": (HEADER + row().replace(",X16382L", ""), 7, one(CHART="260301")),
    "delimiter-in-field": (one(NOTES="clouds, gusts"), 7, one(NOTES="clouds; gusts")),
    "empty-field": (one(NOTES=""), 7, one(NOTES="na")),
    "not-finite": (one(AMASS="NaN"), 7, one(STARID="Nan Cyg")),
    "star-missing": (one(STARID="na"), 7, one(STARID="000-BCP-221")),
    "star-length": (one(STARID="S" * 31), 7, one(STARID="S" * 30)),
    "star-character": (one(STARID="SS\tCyg"), 7, one(STARID="SS  Cyg")),
    "date-mismatch": (
        one(DATE="12/31/2007 12:59"), 7,
        header("=JD", "=EXCEL").replace(GOOD["DATE"], "1/31/2007 9:59"),
    ),
    "date-number": (one(DATE="2461097,2".replace(",", "_")), 7, one(DATE="2461097.")),
    "date-length": (one(DATE="2461097.243356001"), 7, one(DATE="2461097.24335601")),
    "date-decimals": (one(DATE="2461097.24"), 7, one(DATE="2461097.243")),
    "date-range": (one(DATE="61096.743356"), 7, one(DATE="2415020.5")),
    "date-future": (
        one(DATE="2461100.001"), 7, header("=JD", "=HJD").replace(GOOD["DATE"], "2461100.005"),
    ),
    "hjd-as-jd": (
        HEADER + "#NAME,HJD,MAG\n" + row(), 7,
        HEADER.replace("=JD", "=HJD") + "#NAME,HJD,MAG\n" + row(),
    ),
    "mag-number": (one(MAG="na"), 7, one(MAG="<11.1", MERR="na")),
    "mag-point": (one(MAG="11", NOTES="na"), 7, one(MAG="11.0", NOTES="na")),
    "mag-range": (one(MAG="-8.953"), 7, one(MAG="-8.953", MTYPE="DIF", **SINGLE)),
    "mag-length": (one(MAG="11.135000"), 7, one(MAG="<11.1350", MERR="na")),
    "error-number": (one(MERR="-0.01"), 7, one(MERR="NA")),
    "error-zero": (one(MERR="0.000"), 7, one(MERR="0.001")),
    "error-large": (one(MERR="1.001"), 7, one(MERR="1.000")),
    "error-of-limit": (one(MAG="<11.1"), 7, one(MAG="<11.1", MERR="na")),
    "error-length": (one(MERR="0.00200"), 7, one(MERR="0.0020")),
    "filter": (one(FILT="Rc"), 7, one(FILT="sthbw")),
    "filter-case": (one(FILT="r"), 7, one(FILT="sr")),
    "trans": (one(TRANS="Y"), 7, one(TRANS="no")),
    "trans-how": (one(TRANS="YES"), 7, one(TRANS="YES", **keys("na|Tv_bv=-0.06|Tv_bvErr=0.01"))),
    "mtype": (one(MTYPE="INS"), 7, one(MTYPE="std")),
    "mtype-old": (one(MTYPE="ABS"), 7, one()),
    "dif-without-comp": (one(MTYPE="DIF", CNAME="na"), 7, one(MTYPE="DIF", **SINGLE)),
    "comp-name-length": (
        one(**SINGLE | {"CNAME": "C" * 21}), 7, one(**SINGLE | {"CNAME": "C" * 20}),
    ),
    "comp-mag-length": (
        one(**SINGLE | {"CMAG": "-9.486000"}), 7, one(**SINGLE | {"CMAG": "-9.48600"}),
    ),
    "check-name-length": (one(KNAME="K" * 21), 7, one(KNAME="K" * 20)),
    "check-mag-length": (one(KMAG="12.503000"), 7, one(KMAG="12.50300")),
    "comp-mag-number": (one(**SINGLE | {"CMAG": "bright"}), 7, one(**SINGLE)),
    "check-mag-number": (one(KMAG="12.5 mag"), 7, one(KNAME="na", KMAG="na")),
    "ensemble-comp-mag": (one(CMAG="-9.486"), 7, one(CNAME="ensemble")),
    "comp-without-mag": (one(**SINGLE | {"CMAG": "na"}), 7, one(**SINGLE)),
    "comp-mag-without-name": (one(CNAME="na", CMAG="-9.486"), 7, one(CNAME="na")),
    "comp-mag-of-catalogue": (one(**SINGLE | {"CMAG": "10.602"}), 7, one(**SINGLE)),
    "check-without-mag": (one(KMAG="na"), 7, one(KNAME="na", KMAG="na")),
    "check-mag-without-name": (one(KNAME="na"), 7, one(KNAME="83_1")),
    "check-is-comp": (
        one(**SINGLE | {"KNAME": "000-bbp-713"}), 7, one(**SINGLE | {"CNAME": "na", "KNAME": "na"}),
    ),
    "check-is-star": (one(KNAME="ss cyg"), 7, one(KNAME="SS Cyg 2")),
    "ensemble-check-mag": (
        one(KMAG="-7.585"), 7, one(KMAG="7.335", NOTES=GOOD["NOTES"].replace("12.500", "10.335")),
    ),
    "airmass-number": (one(AMASS="low"), 7, one(AMASS="na")),
    "airmass-range": (one(AMASS="-1"), 7, one(AMASS="0.9997")),
    "airmass-length": (one(AMASS="1.063000"), 7, one(AMASS="1.06300")),
    "group": (one(GROUP="123456"), 7, one(GROUP="12345")),
    "group-repeats-filter": (
        one(GROUP="1") + row(GROUP="1", **NEXT), 8,
        one(GROUP="1") + row(GROUP="1", FILT="B", **NEXT),
    ),
    "chart-length": (one(CHART="X" * 21), 7, one(CHART="APASS DR9")),
    "chart-missing": (one(CHART="na"), 7, one(CHART="na", CNAME="na")),
    "notes-length": (one(NOTES="x" * 4001), 7, one(NOTES="x" * 4000)),
    "notes-number": (
        one(**keys("na|VMAGINS=-8,953".replace(",", ";"))), 7,
        one(**keys("na|VMAGINS=na|COMMENT=clear")),
    ),
    "ensemble-untransformable": (
        one(**keys("na|VMAGINS=-8.953|CREFMAG=10.602")), 7,
        one(**keys("DELIM=~VMAGINS=-8.953~CMAGINS=-9.486~CREFMAG=10.602")),
    ),
    "ensemble-sum": (one(**keys(SUM.format("-8.950"))), 7, one(**keys(SUM.format("-8.951")))),
    "duplicate": (one() + row(DATE="2461097.24335600"), 8, one() + row(**NEXT) + row(FILT="B")),
    "duplicate-spelling": (
        one() + row(STARID="SS  CYG", DATE="2461097.24335600"), 8,
        one() + row(STARID="SS  CYG", **NEXT),
    ),
    "unconfirmed-filter": (
        told(unconfirmed_filters={(STAR, BAND): "header says R"}), 7,
        told(unconfirmed_filters={(STAR, "B"): "header says b"}),
    ),
    "unconfirmed-star": (
        told(unconfirmed_stars={STAR: "3 arcsec from T1"}), 7,
        told(unconfirmed_stars={"ss Cyg": "3 arcsec from T1"}),
    ),
    "held-night": (
        told(held_nights={(STAR, BAND): "T2 0.21 mag off"}), 7,
        told(held_nights={(STAR, "B"): "T2 0.21 mag off"}),
    ),
    "catalogue-chart": (
        told(catalogue_charts={(STAR, BAND): "comps from APASS DR9"}), 7,
        told(catalogue_charts={("SS Aur", BAND): "comps from APASS DR9"}),
    ),
}  # fmt: skip


def linted(sample, now_jd=NOW_JD):
    text, evidence = sample if isinstance(sample, tuple) else (sample, None)
    return lint(text, now_jd=now_jd, evidence=evidence)


def names(findings):
    return {found.rule for found in findings}


def test_every_rule_has_a_failing_and_a_passing_sample():
    assert SAMPLES.keys() == RULES.keys()


@pytest.mark.parametrize("rule", SAMPLES)
def test_what_breaks_the_rule_is_found_in_its_line(rule):
    failing, line_number, _ = SAMPLES[rule]
    found = [one for one in linted(failing) if one.rule == rule]
    assert [one.line_number for one in found] == [line_number]
    assert found[0].is_error == RULES[rule].is_error
    assert found[0].words


@pytest.mark.parametrize("rule", SAMPLES)
def test_what_just_keeps_the_rule_passes_without_an_error(rule):
    passing = linted(SAMPLES[rule][2])
    assert rule not in names(passing)
    assert not [found for found in passing if found.is_error]


@pytest.mark.parametrize("rule", SAMPLES)
def test_no_other_rule_hides_behind_this_one(rule):
    """What breaks a rule breaks one other at most: the samples are about one thing."""
    assert len(names(linted(SAMPLES[rule][0])) - {rule}) <= 1


def test_a_good_file_is_clean():
    assert linted(one()) == ()


def test_the_words_hold_what_is_wrong():
    (found,) = [f for f in linted(one(FILT="Rc")) if f.rule == "filter"]
    assert found.words == 'FILT "Rc" is no code of the AAVSO\'s'


def test_a_long_text_is_shown_by_its_beginning():
    (found,) = linted(one(STARID="S" * 5000))
    assert len(found.words) < 120


def test_what_the_wrong_number_of_fields_hides_is_not_guessed():
    assert names(linted(HEADER + "SS Cyg,2461097.2,11\n")) == {"columns"}


def test_without_a_delimiter_no_line_is_judged_by_its_fields():
    assert names(linted(header("#DELIM=,\n", ""))) == {"header-missing"}


def test_a_date_further_down_holds_from_there():
    """The page: OBSCODE and DATE may be said again; all that follows adheres to them."""
    text = one() + "#DATE=EXCEL\n" + row(DATE="1/31/2007 9:59:59 p.m") + row(DATE="2461097.5")
    assert [(f.rule, f.line_number) for f in linted(text)] == [("date-mismatch", 10)]


def test_two_observers_may_see_a_star_at_the_same_time():
    assert linted(one() + "#OBSCODE=ABC\n" + row()) == ()


def test_an_excel_date_in_the_future_is_found():
    """1 March 2026, 12:00 is JD 2461101.0."""
    text = header("=JD", "=EXCEL").replace(GOOD["DATE"], "3/1/2026 12:00")
    assert names(linted(text)) == {"date-future"}
    assert linted(text, now_jd=2461101.0) == ()
    assert names(linted(text, now_jd=2461100.9999)) == {"date-future"}


def test_a_limit_is_not_asked_for_its_instrumental_magnitude():
    assert linted(one(MAG="<11.135", MERR="na", **keys("na|CMAGINS=-9.486|CREFMAG=10.602"))) == ()


def test_a_colour_term_without_a_transformation_is_no_wrong_sum():
    text = one(**keys(SUM.format("-8.900") + "|Tv_bv=-0.0600"))
    assert linted(text) == ()


def test_stars_without_names_are_not_one_star():
    assert names(linted(one(STARID="na", KNAME="na", KMAG="na"))) == {"star-missing"}
    nameless = linted(one(CNAME="na", KNAME="na", KMAG="na"))
    assert not {"check-is-comp", "check-is-star"} & names(nameless)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("r", 'FILT "r" is read as R; if it is Sloan r (SR) it wants that code'),
        ("tg", 'FILT "tg" is read as TG'),
    ],
)
def test_small_letters_are_told_what_they_are_taken_for(code, words):
    assert [found.words for found in linted(one(FILT=code))] == [words]


def test_a_tab_in_a_star_s_name_is_told_by_its_code():
    (found,) = linted(one(STARID="SS\tCyg"))
    assert found.words == "STARID holds 0x09 (0x09 is a tab): a blank wanted"


def series(n, **changes):
    """A file of n lines a minute apart; the data begin in line 7."""
    return HEADER + "".join(row(DATE=f"{2461000 + i / 1440:.5f}", **changes) for i in range(n))


def test_more_warnings_of_a_rule_than_anybody_reads_are_told_once_with_their_number():
    assert [one.line_number for one in linted(series(20, MERR="1.5"))] == [*range(7, 27)]
    (found,) = linted(series(21, MERR="1.5"))
    assert (found.rule, found.line_number) == ("error-large", 7)
    assert found.words.endswith(" of MAG 11.135 (and so 20 more lines, the last is 27)")


def test_every_error_is_told_however_many():
    """What is not to be reported is found by its lines."""
    assert [one.line_number for one in linted(series(30, MERR="0"))] == [*range(7, 37)]


def test_many_warnings_of_one_rule_hide_no_other():
    found = linted(series(30, MERR="1.5") + row(DATE="2461099.5", MTYPE="ABS"))
    assert [(one.rule, one.line_number) for one in found] == [
        ("error-large", 7), ("date-decimals", 37), ("mtype-old", 37),
    ]  # fmt: skip


def of_one_line():
    """The rules whose failing sample is the good header and one line of data."""
    texts = {rule: failing for rule, (failing, _, _) in SAMPLES.items() if isinstance(failing, str)}
    return [
        rule
        for rule, text in texts.items()
        if text.startswith(HEADER) and text.endswith("\n") and text.count("\n") == 7
    ]


@pytest.mark.parametrize("rule", of_one_line())
def test_a_line_among_others_is_judged_as_if_it_stood_alone(rule):
    data = SAMPLES[rule][0].removeprefix(HEADER)
    later = data.replace("2461097.", "2461096.")
    text = HEADER + row(DATE="2461090.500") + data + row(DATE="2461091.500") + later
    assert [one.line_number for one in linted(text) if one.rule == rule] == [8, 10]


@pytest.mark.parametrize("rule", of_one_line())
def test_a_rule_looks_at_the_columns_that_it_names(rule):
    """Two lines alike in all columns but one are judged as each is alone.

    A rule that looked at a column it does not name would judge one by the other.
    """
    bad = SAMPLES[rule][0].removeprefix(HEADER)
    fields = bad.rstrip("\n").split(",")
    if len(fields) != len(COLUMNS):
        return
    for column, value in [*GOOD.items(), *OTHER.items()]:
        i = COLUMNS.index(column)
        other = ",".join([*fields[:i], value, *fields[i + 1 :]]) + "\n"
        found = [one for one in linted(HEADER + other + bad) if one.rule == rule]
        for number, line in ((7, other), (8, bad)):
            alone = [one.words for one in linted(HEADER + line) if one.rule == rule]
            assert [one.words for one in found if one.line_number == number] == alone


def test_one_observation_tells_its_evidence_once_with_the_number_of_its_lines():
    text = one() + row(**NEXT)
    evidence = Evidence(unconfirmed_filters={(STAR, BAND): "header says R"})
    (found,) = lint(text, now_jd=NOW_JD, evidence=evidence)
    assert found.words == "FILT V of SS Cyg is a guess (2 lines): header says R"


# ------------------------------------------------------------------------------------- real files


def real(name):
    file = REFERENCE / name
    if not file.exists():
        pytest.skip("WOMBAT_REFERENCE_DATA is not set, or has no ../reference/aavso with reports")
    return file.read_text()


REAL = ("aavso_ext_vphot_rv_cen.txt", "aavso_ext_phoranso_tt_cnc.txt")


@pytest.mark.parametrize("name", REAL)
def test_real_files_are_clean(name):
    """VPhot: an ensemble, GROUP 0. Phoranso: one comp, HJD, a heading of its own."""
    assert linted(real(name)) == ()


@pytest.mark.parametrize(
    ("name", "old", "new", "rule", "line_number"),
    [
        (REAL[0], "TEST Only|", "TEST, Only|", "delimiter-in-field", 8),
        (REAL[0], ",10.537,", ",10.547,", "ensemble-sum", 8),
        (REAL[0], "8.712,1.0630", "-10.778,1.0630", "ensemble-check-mag", 8),
        (REAL[0], ",0,260301,", ",0,,", "empty-field", 8),
        (REAL[1], "#DATE=HJD", "#DATE=EXCEL", "date-mismatch", 11),
        (REAL[1], "Dieter Husar", "Dieter Hüsar", "ascii", 7),
        (REAL[1], "19.277,5170047438", "12.654,5170047438", "comp-mag-of-catalogue", 11),
        (REAL[1], ",11.013,", ",11,", "mag-point", 11),
    ],
)
def test_real_files_fail_for_the_one_thing_that_is_changed(name, old, new, rule, line_number):
    text = real(name)
    assert old in text
    found = linted(text.replace(old, new, 1))
    assert (rule, line_number) in [(one.rule, one.line_number) for one in found]
    assert names(found) == {rule}


def test_real_files_are_of_the_past_by_the_day():
    """The first VPhot line is of JD 2461097.243356: on the day before, the file was of tomorrow."""
    found = linted(real(REAL[0]), now_jd=2461096.5)
    assert [(one.rule, one.line_number) for one in found] == [
        ("date-future", 8),
        ("date-future", 9),
    ]


# ------------------------------------------------------------------------------------------- laws


@given(st.text(max_size=400))
@example(HEADER + "a,sNaN," + "," * 12)
@example(one(DATE="1e999999", MAG="1e400.", MERR="1_0"))
@example(header("=JD", "=EXCEL").replace(GOOD["DATE"], "13/32/0000 25:61"))
def test_no_text_makes_the_lint_fail(text):
    for found in linted(text):
        assert found.rule in RULES
        assert found.line_number is None or found.line_number >= 1
    linted(HEADER + text)


@given(
    st.sampled_from(FIELDS[1:]),
    st.text(st.characters(exclude_characters=",\r\n#", max_codepoint=0x2FFF), max_size=40),
)
def test_no_field_makes_the_lint_fail(field, value):
    column = COLUMNS[FIELDS.index(field)]
    linted(one(**{column: value}))
