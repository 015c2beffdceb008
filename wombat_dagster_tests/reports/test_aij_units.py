"""AstroImageJ's measurement table comes back with units; the real ones lie beside the data."""

import os
from pathlib import Path

import numpy as np
import pytest
from astropy import units as u

from wombat_dagster.reports import aij
from wombat_dagster_tests.curves import photometry

DATA = os.environ.get("WOMBAT_REFERENCE_DATA")
needs_reference = pytest.mark.skipif(
    DATA is None, reason="WOMBAT_REFERENCE_DATA is not set: no real AstroImageJ tables"
)
UNITS = {
    "JD_UTC": u.d, "BJD_TDB": u.d, "ALT_OBJ": u.deg, "EXPTIME": u.s, "CCD-TEMP": u.deg_C,
    "RAOBJ2K": u.hourangle, "DECOBJ2K": u.deg, "FWHM_Mean": u.pix, "Sky_Rad(min)": u.pix,
    "tot_C_cnts": u.adu, "X(FITS)_T1": u.pix, "RA_C3": u.hourangle, "DEC_C3": u.deg,
    "Source-Sky_T1": u.adu, "Source_AMag_T2": u.mag, "Sky/Pixel_C4": u.adu / u.pix,
    "Angle_T2": u.deg, "FWHM_C4": u.pix, "rel_flux_T1": None, "AIRMASS": None, "Label": None,
    "Source_SNR_C3": None, "FILTER": None, "slice": None,
}  # fmt: skip


def test_our_own_table_comes_back_with_units_and_values():
    night = photometry()
    got = aij.as_qtable(aij.format_table(night))
    assert {name: got[name].info.unit for name in UNITS} == UNITS
    source = night.measured.source_sky_adu
    assert got["Source-Sky_C3"].to_value(u.adu) == pytest.approx(source[:, 2], abs=0)
    assert got["RA_T1"].to_value(u.deg) == pytest.approx(night.measured.ra_deg[:, 0])
    assert tuple(got["Label"]) == night.labels


def test_every_column_has_a_unit_or_is_known_to_have_none():
    plain = {"Label", "slice", "FILTER", "AIRMASS"}
    starts = ("rel_flux", "Source_SNR", "Roundness")
    got = aij.as_qtable(aij.format_table(photometry()))
    without = {name for name in got.colnames if got[name].info.unit is None}
    assert {name for name in without if not name.startswith(starts)} == plain


def test_a_table_read_already_is_taken_too():
    text = aij.format_table(photometry())
    assert aij.as_qtable(aij.read_table(text)).colnames == aij.as_qtable(text).colnames


def test_what_is_no_table_is_refused():
    with pytest.raises(ValueError, match="not an AstroImageJ measurement table"):
        aij.as_qtable("a\tb\n1\t2\n")


@needs_reference
@pytest.mark.parametrize(
    ("name", "n_rows", "suffix"),
    [("aij_lhs352_Measurements.tbl", None, ""), ("aij_wasp135b_first20rows.xls", 20, "_T1")],
)
def test_real_tables_come_back_with_units(name, n_rows, suffix):
    text = (Path(DATA).parent / "reference" / "aij" / name).read_text(encoding="utf-8")
    got = aij.as_qtable(text)
    assert n_rows in (None, len(got))
    assert got[f"Source-Sky{suffix}"].unit == u.adu
    assert got[f"RA{suffix}"].unit == u.hourangle
    # N_Src_Pixels is pi r^2 of the radius (DOMAIN section 4); Mean is Source-Sky over it
    mean = got[f"Source-Sky{suffix}"] / got[f"N_Src_Pixels{suffix}"]
    assert mean.to(u.adu / u.pix).value == pytest.approx(got[f"Mean{suffix}"].value, rel=1e-5)
    radius = got["Source_Radius"].to_value(u.pix)
    assert got[f"N_Src_Pixels{suffix}"].value == pytest.approx(np.pi * radius**2, rel=1e-6)
