"""The picture and the tables of a night on a standard field."""

import csv
import datetime as dt
import io

import numpy as np
import pytest

from wombat_dagster.domain import Coefficient
from wombat_dagster.reports.coefficients import (
    FitPanel,
    StarLine,
    coefficients_csv,
    coefficients_png,
    stars_csv,
)


def panel(name="Tv_bv", n=12, **changes):
    colour = np.linspace(0.1, 1.3, n)
    used = np.arange(n) != 3
    values = {
        "coefficient": Coefficient(
            name=name,
            value=-0.06,
            error=0.004,
            n_stars=n - 1,
            r_squared=0.9,
            date=dt.date(2025, 10, 14),
            source="fit M67",
        ),
        "ordinate_words": "V - v",
        "colour_words": "B - V",
        "names": tuple(f"S$\\alpha^{i}$\n" for i in range(n)),
        "colour": colour,
        "ordinate": 20.0 - 0.06 * colour + np.where(used, 0.0, 0.1),
        "error_mag": np.full(n, 0.01),
        "used": used,
        "slope": -0.06,
        "intercept": 20.0,
        "scatter_mag": 0.0,
    }
    return FitPanel(**values | changes)


def pixels(png):
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


@pytest.mark.parametrize(("n", "shape"), [(1, (390, 460)), (3, (390, 1380)), (4, (720, 1380))])
def test_the_picture_grows_with_the_coefficients(n, shape):
    assert pixels(coefficients_png("M67", [panel()] * n)).shape[:2] == shape


def test_a_star_off_the_line_is_marked_in_another_colour():
    red = np.array([0xB3, 0x31, 0x2C])
    clean = panel(used=np.ones(12, dtype=bool))
    assert (np.abs(pixels(coefficients_png("M67", [panel()])) - red).sum(axis=2) < 10).any()
    assert not (np.abs(pixels(coefficients_png("M67", [clean])) - red).sum(axis=2) < 10).any()


def test_the_same_fits_make_the_same_bytes_and_names_are_no_formulas():
    title = "$M_{67$ 2025"
    assert coefficients_png(title, [panel()]) == coefficients_png(title, [panel()])


def test_an_error_that_is_not_known_is_left_empty():
    unknown = Coefficient(name="Tbv", value=1.2, error=None, n_stars=9)
    rows = list(csv.DictReader(io.StringIO(coefficients_csv([panel(coefficient=unknown)]))))
    assert (rows[0]["coefficient"], rows[0]["value"], rows[0]["error"]) == ("Tbv", "1.20000", "")
    assert rows[0]["stars_measured"] == "12"


def test_the_ledger_says_of_every_star_what_became_of_it():
    star = StarLine(
        name='A "b", c',
        ra_deg=10.0,
        dec_deg=-0.5,
        v_mag=12.5,
        bands=("B", "V"),
        mags=(np.nan, -7.25),
        errors_mag=(np.nan, 0.002),
        words=("saturated on 5 of 5 frames", "5 of 5 frames"),
        left_out=("Tv_vi",),
    )
    (row,) = csv.DictReader(io.StringIO(stars_csv([star])))
    assert row["star"] == 'A "b", c'
    assert (row["b_mag"], row["b_words"]) == ("", "saturated on 5 of 5 frames")
    assert (row["v_mag"], row["v_words"]) == ("-7.2500", "5 of 5 frames")
    assert row["off_the_line_of"] == "Tv_vi"
