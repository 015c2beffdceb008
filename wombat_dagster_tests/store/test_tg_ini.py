"""Files of AAVSO's TransformGenerator."""

import datetime as dt

import pytest

from wombat_dagster.store.tg_ini import UnreadableIni, read_tg_ini

# Laid out as the files that TransformGenerator 5.10 writes; the numbers are invented.
FILE = """\
[Setup]
description= TG - Version 5.10, Telescope= Schmidt 10", Time created (UT) = 2016_07_25_00:09:44
[Coefficients]
Tbv= 1.2034
Tb_bv= 0.1081
Tv_bv= -0.0467
Tvi= 1.012
Tr_vi= 0.000
[Error]
Tbv= 0.027
Tb_bv= 0.015
Tv_bv= 0.007
[R Squared Values]
Tbv= 0.983
Tb_bv= 0.271
[Extinction]
k_b= 0.35
"""


def read(text, **given):
    return read_tg_ini(
        text.encode(), source="tg.ini", **{"camera": "QHY", "date": dt.date(2016, 8, 1), **given}
    )


def test_values_errors_and_r_squared_go_by_name():
    found = read(FILE)
    by_name = {one.name: one for one in found.coefficients}
    assert set(by_name) == {"Tbv", "Tb_bv", "Tv_bv", "Tvi"}
    one = by_name["Tb_bv"]
    assert (one.value, one.error, one.r_squared) == (0.1081, 0.015, 0.271)
    assert (one.camera, one.date, one.source) == ("QHY", dt.date(2016, 8, 1), "tg.ini")
    assert by_name["Tv_bv"].r_squared is None
    assert found.created == dt.date(2016, 7, 25)
    assert found.extinction == {"k_b": "0.35"}
    assert found.description.endswith("00:09:44")


def test_a_missing_error_is_not_known_and_said():
    found = read(FILE)
    assert {one.name for one in found.coefficients if one.error is None} == {"Tvi"}
    assert found.notes == ("no error in the file: Tvi",)


def test_zero_without_an_error_was_not_determined():
    assert "Tr_vi" not in {one.name for one in read(FILE).coefficients}
    with_error = FILE.replace("[R Sq", "Tr_vi= 0.004\n[R Sq")
    assert "Tr_vi" in {one.name for one in read(with_error).coefficients}


@pytest.mark.parametrize(
    "change",
    [str.upper, str.lower, lambda text: text.replace("\n", "\r\n"), lambda text: "\ufeff" + text],
)
def test_case_line_ends_and_byte_order_mark_do_not_matter(change):
    names = {one.name: one.error for one in read(change(FILE)).coefficients}
    assert names["Tb_bv"] == 0.015
    assert names["Tbv"] == 0.027


def test_a_decimal_comma_is_a_point_and_what_is_no_number_is_named():
    found = read(FILE.replace("1.2034", "1,2034").replace("0.1081", "n/a"))
    assert found.coefficients[0].value == 1.2034
    assert found.notes[0] == "not taken: Tb_bv = n/a"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("Tv_bv= -0.0467", "Tv_bv= -0.6", "Tv_bv = -0.6000 is odd: from -0.5 to 0.5 is usual"),
        ("Tbv= 1.2034", "Tbv= 0.12034", "Tbv = +0.1203 is odd: from 0.5 to 2.0 is usual"),
        ("Tvi= 1.012", "Tvi= -1.012", "Tvi = -1.0120 is odd: from 0.5 to 2.0 is usual"),
        ("Tv_bv= 0.007", "Tv_bv= -0.007", "Tv_bv: its error is negative in the file, -0.007"),
    ],
)
def test_what_no_filter_set_should_have_is_warned_of(old, new, words):
    assert read(FILE).warnings == ()
    assert read(FILE.replace(old, new, 1)).warnings == (words,)


def test_sloan_coefficients_are_not_taken_for_johnson_s():
    assert "Tg_gr = 0.1" in read(FILE.replace("Tbv= 1.2034", "Tg_gr= 0.1")).notes[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[Setup]\nx=1\n", r"no section \[Coefficients\] but \[Setup\]"),
        ("Tv_bv = 1\n", "is no .ini file"),
        ("[Coefficients]\nTv_bv= 0\n", "not one coefficient"),
        ("", "no section at all"),
        ("\x00\x01", "is no .ini file"),
    ],
)
def test_what_is_no_such_file_is_refused_in_words(text, words):
    with pytest.raises(UnreadableIni, match=words):
        read(text)
