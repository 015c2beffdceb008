"""What the AAVSO gives back, read: delimited or JSON, laid out as described, none seen live."""

import json

import pytest

from wombat_dagster.reports.aavso_download import UnreadableDownload, band_code, parse_download

HEADINGS = (
    "JD,Magnitude,Uncertainty,HQuncertainty,Band,Observer Code,Comment Code(s),Comp Star 1,"
    "Comp Star 2,Charts,Comments,Transfomed,Airmass,Validation Flag,Cmag,Kmag,HJD,Star Name,"
    "Observer Affiliation,Measurement Method,Grouping Method,ADS Reference,Digitizer,Credit"
)
"""As the AAVSO spells them ("Transfomed"), by descriptions; not checked against a live download."""
ROW = (
    "2460963.60030,{mag},0.006,,V,XYZ,,ENSEMBLE,,X1,{comments},0,1.2,Z,,11.9,,TX ERI,AAVSO,STD,,,,"
)


def delimited(*rows):
    return "\n".join((HEADINGS, *rows)) + "\n"


def test_a_delimited_download_is_read_by_its_headings():
    (line,) = parse_download(delimited(ROW.format(mag="11.189", comments="na|VMAGINS=-9.8"))).lines
    assert (line.star, line.auid, line.observer, line.band) == ("TX ERI", None, "XYZ", "V")
    assert (line.jd, line.magnitude, line.error_mag) == ("2460963.60030", "11.189", 0.006)
    assert not line.is_fainter_than
    assert line.number == 2
    assert line.resolution_mag == pytest.approx(0.0005)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace(",", "\t"),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\ufeff" + text,
        lambda text: "\n\n" + text,
        lambda text: text.replace("JD,", "#JD,", 1),
        lambda text: text.replace("Observer Code", "obscode").replace("Star Name", "STAR_NAME"),
        lambda text: text.replace("Magnitude", '"Magnitude"'),
    ],
)
def test_spellings_of_the_same_file_are_the_same(change):
    text = delimited(ROW.format(mag="11.189", comments=""), ROW.format(mag="<12.1", comments=""))
    found = parse_download(change(text))
    assert [(one.star, one.magnitude, one.is_fainter_than) for one in found.lines] == [
        ("TX ERI", "11.189", False),
        ("TX ERI", "12.1", True),
    ]
    assert found.left_out == ()


@pytest.mark.parametrize("comments", ["clouds, wind, dew", '"clouds, wind"', 'a 5" refractor', '"'])
def test_commas_and_quotation_marks_in_comments_move_no_column(comments):
    rows = [ROW.format(mag="11.1", comments=comments), ROW.format(mag="11.2", comments="")]
    found = parse_download(delimited(*rows))
    assert [(one.star, one.magnitude) for one in found.lines] == [
        ("TX ERI", "11.1"),
        ("TX ERI", "11.2"),
    ]


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("2460963.6,11.1", "2 fields, 24 headings"),
        (ROW.format(mag="bright", comments=""), "magnitude 'bright' is no number"),
        (ROW.format(mag="nan", comments=""), "magnitude 'nan' is no number"),
        (ROW.format(mag="11.1", comments="").replace("2460963.60030", "yesterday"), "jd"),
        (ROW.format(mag="11.1", comments="").replace("TX ERI", ""), "no star"),
        (ROW.format(mag="11.1", comments="").replace("XYZ", " "), "no observer"),
    ],
)
def test_a_line_that_says_nothing_is_left_out_with_its_number_and_why(row, words):
    found = parse_download(delimited(ROW.format(mag="11.1", comments=""), row))
    assert len(found.lines) == 1
    (told,) = found.left_out
    assert told.startswith("line 3: ")
    assert words in told


RECORD = {
    "name": "TX Eri", "auid": "000-BBB-001", "obscode": "XYZ", "jd_dbl": 2460963.6003001,
    "magnitude": "<12.1", "uncertainty": None, "band": "V", "obstype": "CCD", "fainterthan": True,
}  # fmt: skip


@pytest.mark.parametrize(
    "shape",
    [
        lambda records: {"count": 2, "next": None, "results": records},
        lambda records: [{"results": records[:1]}, {"results": records[1:]}],
        lambda records: records,
    ],
)
def test_the_json_of_one_page_of_several_and_of_none_is_read(shape):
    records = [RECORD, RECORD | {"magnitude": 11.189, "fainterthan": False, "uncertainty": 0.01}]
    first, second = parse_download(json.dumps(shape(records))).lines
    assert (first.star, first.auid, first.observer) == ("TX Eri", "000-BBB-001", "XYZ")
    assert (first.jd, first.magnitude, first.is_fainter_than) == ("2460963.6003001", "12.1", True)
    assert first.error_mag is None
    assert (second.magnitude, second.is_fainter_than, second.error_mag) == ("11.189", False, 0.01)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "empty"),
        (" \n\n", "empty"),
        ("#TYPE=Extended\n#OBSCODE=XYZ\n", "a report to the AAVSO"),
        ("<!DOCTYPE html><html></html>", "a web page"),
        ("a,b,c\n1,2,3\n", "no column for jd, magnitude, band, observer, star name"),
        ('{"detail": "Not found."}', 'no .*list "results"|without a list "results"'),
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ('[{"results": []}, 5]', "not every page"),
    ],
)
def test_what_is_no_download_is_refused_in_words(text, words):
    with pytest.raises(UnreadableDownload, match=words):
        parse_download(text)


def test_json_that_holds_other_things_leaves_them_out():
    found = parse_download(json.dumps({"results": [5, {"name": {"a": 1}}, RECORD]}))
    assert len(found.lines) == 1
    assert [words.partition(":")[0] for words in found.left_out] == ["line 1", "line 2"]


@pytest.mark.parametrize(
    ("told", "code"),
    [
        ("V", "V"), ("Johnson V", "V"), ("Cousins R", "R"), ("Sloan r", "SR"), ("tg", "TG"),
        ("Tri-color Green", "TG"), ("Vis.", "Vis."), ("r", None), ("Quux", None),
    ],
)  # fmt: skip
def test_bands_in_plain_words_are_the_aavso_s_codes(told, code):
    assert band_code(told) == code
