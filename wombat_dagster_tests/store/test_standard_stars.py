"""Tables of standard stars that an observer supplies."""

import os
from pathlib import Path

import pytest

from wombat_dagster.store.standard_stars import UnreadableStandards, read_standard_stars

# Two lines of Landolt's table, some columns left out, and an invented star without R and I.
LANDOLT = """\
Name,RA,DEC,V,B-V,U-B,V-R,R-I,V-I,Nobs,e_V,e_B-V,e_U-B,e_V-R
TPhe I,00:30:04.593,-46:28:10.17,14.82,0.764,0.338,0.422,0.395,0.817,25,0.0026,0.0032,0.0072,0.0036
TPhe B,00:30:16.313,-46:27:58.57,12.334,0.405,0.156,0.262,0.271,0.535,29,0.0115,0.0026,0.0039,0.002
X 1,12:00:00.0,-00:00:30.0,10.0,0.5,,,,,1,,,,
"""


def read(tmp_path, text):
    path = tmp_path / "standards.csv"
    path.write_text(text, encoding="utf-8")
    return read_standard_stars(path)


def test_bands_are_made_of_colours(tmp_path):
    """TPhe I by hand: B = 14.82 + 0.764, U = B + 0.338, R = V - 0.422, I = V - 0.817."""
    star = read(tmp_path, LANDOLT)[0]
    mags = {band: one.mag for band, one in star.bands.items()}
    assert mags == pytest.approx({"V": 14.82, "B": 15.584, "U": 15.922, "Rc": 14.398, "Ic": 14.003})
    assert star.bands["B"].error_mag == pytest.approx(0.00412, abs=1e-5)  # hypot(.0026, .0032)
    assert star.ra_deg == pytest.approx(15 * (30 / 60 + 4.593 / 3600))
    assert star.dec_deg == pytest.approx(-(46 + 28 / 60 + 10.17 / 3600))
    assert (star.auid, star.label) == ("TPhe I", "TPhe I")


def test_empty_cells_are_absent_bands_and_the_sign_of_minus_zero_counts(tmp_path):
    star = read(tmp_path, LANDOLT)[2]
    assert set(star.bands) == {"V", "B"}
    assert star.bands["V"].error_mag is None
    assert star.bands["B"].error_mag is None
    assert star.dec_deg == pytest.approx(-30 / 3600)


def test_plain_bands_decimal_degrees_and_any_case_serve(tmp_path):
    (star,) = read(tmp_path, "STAR,ra_deg,dec_deg,b,v,R,e_v\nA,180.5,-1.25,11.0,10.5,10.1,0\n")
    assert (star.ra_deg, star.dec_deg) == (180.5, -1.25)
    assert {band: one.mag for band, one in star.bands.items()} == {"B": 11, "V": 10.5, "Rc": 10.1}
    assert star.bands["V"].error_mag is None  # 0 is not an error


@pytest.mark.parametrize("between", [";", "\t"])
def test_semicolons_and_tabs_serve_as_commas_do(tmp_path, between):
    assert read(tmp_path, LANDOLT.replace(",", between)) == read(tmp_path, LANDOLT)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no stars"),
        ("Name,B,RA\nA,10,0.5\n", "has no columns DEC, V; there are Name, B, RA"),
        (LANDOLT.replace("X 1,", ","), "line 4: no NAME"),
        (LANDOLT.replace("12.334", "nan"), "line 3: v is 'nan', no number"),
        (LANDOLT.replace("0.405", "inf"), "line 3: b-v is 'inf', no number"),
        (LANDOLT.replace("12:00:00.0", "nan"), "line 4: RA is 'nan', not from 0 to 360"),
        (LANDOLT.replace("-46:27", "-96:27"), "line 3: DEC is '-96:27:58.57', not from -90 to 90"),
        (LANDOLT.replace("0.0115", "-0.0115"), "line 3: e_v is -0.0115: an error is not negative"),
        (LANDOLT.replace("TPhe B", "TPhe I"), "line 3: TPhe I stands in line 2 already"),
        (LANDOLT.replace("12.334", "twelve"), "line 3: v is 'twelve', no number"),
        (LANDOLT.replace("12:00:00.0", "12h"), "line 4: RA is '12h', no angle"),
    ],
)
def test_what_cannot_be_read_is_named_with_its_line(tmp_path, text, words):
    with pytest.raises(UnreadableStandards, match=words):
        read(tmp_path, text)


def test_landolt_s_whole_table_is_read_as_it_is():
    root = os.environ.get("WOMBAT_REFERENCE_DATA")
    if not root:
        pytest.skip("WOMBAT_REFERENCE_DATA is not set")
    stars = read_standard_stars(Path(root) / "catalogs" / "landolt_all.csv")
    assert len(stars) == 930
    assert all({"B", "V"} <= set(star.bands) for star in stars)
    assert sum("Ic" in star.bands for star in stars) > 800
