"""AstroImageJ's measurement table: the order of its columns, its conventions, and real tables.

golden/aij_columns_T1_T2_C3_C4.txt was written from the column rules of DOMAIN section 4 (which
reproduce three real tables of 316, 158 and 251 columns), copied 2026-11-21. The real tables state
no licence, so they are read where they lie: beside WOMBAT_REFERENCE_DATA.
"""

import os
from pathlib import Path

import numpy as np
import pytest

from wombat_dagster import domain
from wombat_dagster.reports import aij
from wombat_dagster.science import photometry

GOLDEN = Path(__file__).parent.parent / "golden" / "aij_columns_T1_T2_C3_C4.txt"
DATA = os.environ.get("WOMBAT_REFERENCE_DATA")
needs_reference = pytest.mark.skipif(
    DATA is None, reason="WOMBAT_REFERENCE_DATA is not set: no real AstroImageJ tables"
)


def real_table(name):
    return (Path(DATA).parent / "reference" / "aij" / name).read_text(encoding="utf-8")


def aperture_star(role, mag=None):
    return domain.ApertureStar(
        role=role, name=role, auid=None, ra_deg=1.0, dec_deg=2.0,
        catalogue_mag=mag, catalogue_error_mag=None if mag is None else 0.03,
    )  # fmt: skip


def table(roles=("T1", "T2", "C3", "C4"), *, n_frames=3, **changes):
    """A night in which every measured number differs from every other."""
    stars = tuple(aperture_star(role, None if role == "T1" else 11.5) for role in roles)
    shape = (n_frames, len(roles))
    numbers = np.arange(1.0, 1.0 + n_frames * len(roles)).reshape(shape)
    names = [name for name in domain.StarMeasurements.__slots__ if name != "flags"]
    columns = {name: numbers + 100.0 * k + 1 / 3 for k, name in enumerate(names)}
    columns |= changes.pop("columns", {})
    measured = domain.StarMeasurements(**{"flags": np.zeros(shape, np.int64)} | columns)
    jd = 2458107.565432 + 0.001 * np.arange(n_frames)
    values = {
        "target": "HAT-P-32", "filter": "V", "band": "V", "comp_band": "V", "band_confirmed": True,
        "chart_id": "X1", "labels": tuple(f"f{i}.fits" for i in range(n_frames)),
        "raw_hashes": tuple("ab" * n_frames), "exposure_s": np.full(n_frames, 60.0),
        "variable": domain.Variable(name="HAT-P-32", ra_deg=31.0427, dec_deg=46.6879),
        "times": domain.FrameTimes(
            jd_start_utc=jd - 30 / 86400, jd_utc=jd, hjd_utc=jd + 0.003, bjd_tdb=jd + 0.004,
            altitude_deg=np.full(n_frames, 60.0), airmass=np.full(n_frames, 1.15),
        ),
        "ccd_temperature_c": np.full(n_frames, np.nan), "frame_fwhm_px": np.full(n_frames, 3.25),
        "stars": stars, "measured": measured, "frame_height_px": 500,
        "aperture": domain.Aperture(radius_px=5.5, sky_inner_px=11.0, sky_outer_px=22.0),
        "gain_e_adu": None, "read_noise_e": None, "saturation_adu": 55000.0,
        "linearity_adu": 30000.0, "ledger": (),
        "relative": photometry.relative_fluxes(measured, stars),
    }  # fmt: skip
    return domain.PhotometryTable(**values | changes)


def header(text):
    return text.split("\n", 1)[0].split("\t")


def test_columns_are_astroimagejs_in_order():
    assert header(aij.format_table(table())) == GOLDEN.read_text(encoding="utf-8").split()


@pytest.mark.parametrize(
    "roles", [("T1", "C2"), ("T1", "T2", "C3"), ("T1", "T2", "C3", "C4", "C5", "C6")]
)
def test_any_number_of_stars_follows_the_same_rule(roles):
    names = header(aij.format_table(table(roles)))
    assert len(set(names)) == len(names) == 19 + 3 * len(roles) + 2 + 22 * len(roles)
    assert names[-2] == f"N_Src_Pixels_{roles[-1]}"
    assert names[names.index("Source-Sky_T1") + 1] == "N_Src_Pixels_T1"
    assert names[names.index(f"Source-Sky_{roles[1]}") + 1] == f"Source_Error_{roles[1]}"


def test_a_single_aperture_has_no_suffix():
    names = header(aij.format_table(table(("T1",))))
    assert names[-3:] == ["Y-Width", "Angle", "Roundness"]
    assert not [name for name in names if name.startswith("rel_flux")]


def test_radii_that_follow_the_seeing_come_with_their_factor_and_the_nights():
    """DOMAIN section 4: Source_Radius, FWHM_Mult, Source_Rad(base), Sky_Rad(min), Sky_Rad(max)."""
    fixed = header(aij.format_table(table()))
    radii = np.array([[5.0, 10.0, 20.0], [6.0, 12.0, 24.0], [5.5, 11.0, 22.0]])
    text = aij.format_table(table(radii_px=radii, frame_fwhm_px=np.array([2.5, 3.0, 2.75])))
    place = fixed.index("Source_Radius") + 1
    wanted = [*fixed[:place], "FWHM_Mult", "Source_Rad(base)", *fixed[place:]]
    assert header(text) == wanted
    read = aij.read_table(text)
    assert read["Source_Radius"].tolist() == [5.0, 6.0, 5.5]
    assert read["FWHM_Mult"].tolist() == [2.0, 2.0, 2.0]
    assert read["Source_Rad(base)"].tolist() == [5.5, 5.5, 5.5]
    assert read["Sky_Rad(min)"].tolist() == [10.0, 12.0, 11.0]
    assert read["Sky_Rad(max)"].tolist() == [20.0, 24.0, 22.0]


def test_pixel_conventions():
    """0-based (9.25, 19.5) on 500 rows: FITS 10.25, 20.5; IJ 9.75 and 500 + 0.5 - 20.5 = 480."""
    place = {"x_px": np.array([[9.25, 1.0]]), "y_px": np.array([[19.5, 1.0]])}
    got = aij.read_table(aij.format_table(table(("T1", "C2"), n_frames=1, columns=place)))
    assert got["X(FITS)_T1"][0] == 10.25
    assert got["Y(FITS)_T1"][0] == 20.5
    assert got["X(IJ)_T1"][0] == 9.75
    assert got["Y(IJ)_T1"][0] == 480.0


def test_every_number_survives_writing_and_reading():
    night = table()
    got = aij.read_table(aij.format_table(night))
    m = night.measured
    for name, values in {
        "Source-Sky": m.source_sky_adu, "Source_Error": m.source_error_adu, "Source_SNR": m.snr,
        "Peak": m.peak_adu, "Mean": m.mean_adu, "Sky/Pixel": m.sky_adu_px, "FWHM": m.fwhm_px,
        "N_Src_Pixels": m.n_source_px, "N_Sky_Pixels": m.n_sky_px, "Width": m.width_px,
        "X-Width": m.x_width_px, "Y-Width": m.y_width_px, "Angle": m.angle_deg,
        "Roundness": m.roundness, "DEC": m.dec_deg, "RA": m.ra_deg / 15,
        "rel_flux": night.relative.rel_flux, "rel_flux_err": night.relative.rel_flux_err,
        "rel_flux_SNR": night.relative.rel_flux_snr,
        "Source_AMag": night.relative.source_amag,
    }.items():  # fmt: skip
        for index, star in enumerate(night.stars):
            assert got[f"{name}_{star.role}"].to_numpy() == pytest.approx(values[:, index], rel=0)
    assert got["JD_UTC"].tolist() == night.times.jd_utc.tolist()
    assert got["JD_SOBS"].tolist() == night.times.jd_start_utc.tolist()
    assert got["HJD_UTC"].tolist() == night.times.hjd_utc.tolist()
    assert got["BJD_TDB"].tolist() == night.times.bjd_tdb.tolist()
    assert got["tot_C_cnts"].tolist() == night.relative.tot_c_adu.tolist()
    assert got["slice"].tolist() == [1, 2, 3]
    assert got["Label"].tolist() == list(night.labels)
    assert got["FILTER"].tolist() == ["V"] * 3
    assert got["RAOBJ2K"].tolist() == [31.0427 / 15] * 3
    assert got["FWHM_Mean"].tolist() == [3.25] * 3
    assert got["CCD-TEMP"].isna().all()
    assert got["Source_AMag_C3"].tolist() == [11.5] * 3
    assert got["Source_AMag_T2"].tolist() != [11.5] * 3


def test_saturated_is_the_highest_count_of_a_saturated_aperture():
    flags = np.zeros((3, 3), np.int64)
    flags[0, 1:] = domain.Flag.SATURATED | domain.Flag.NON_LINEAR
    flags[1, 2] = domain.Flag.NON_LINEAR
    flags[2, 1] = domain.Flag.SATURATED
    peak = np.array([[70_000.0, 56_000.0, 61_000.5], [1.0, 2.0, 3.0], [5.0, np.nan, 7.0]])
    night = table(("T1", "T2", "C3"), columns={"flags": flags, "peak_adu": peak})
    got = aij.read_table(aij.format_table(night))
    assert got["Saturated"].tolist() == [61_000.5, 0.0, night.saturation_adu]


def test_missing_values_are_nan_and_text_stays_in_its_cell():
    source = np.array([[np.nan, 2.0]])
    night = table(
        ("T1", "C2"), n_frames=1, columns={"source_sky_adu": source}, labels=('a\tb "c".fits',)
    )
    text = aij.format_table(night)
    lines = text.splitlines()
    assert len(lines[1].split("\t")) == len(lines[0].split("\t"))
    assert lines[1].startswith("a b 'c'.fits\t1\t")
    got = aij.read_table(text)
    assert np.isnan(got["Source-Sky_T1"][0])
    assert np.isnan(got["rel_flux_T1"][0])


def test_whole_numbers_have_no_point():
    row = aij.format_table(table(n_frames=1)).splitlines()[1].split("\t")
    assert row[1:3] == ["1", "0"]


def test_a_table_without_relative_fluxes_is_not_written():
    with pytest.raises(ValueError, match="relative fluxes"):
        aij.format_table(table(relative=None))


# ----------------------------------------------------------------------------------- reading


def test_reads_every_dialect():
    """LF and CRLF, tab and comma, metadata lines, and the blank-named column of row numbers."""
    plain = "Label\tJD_UTC\tAIRMASS\tSource-Sky_T1\nx.fit\t2450000.5\t1.5\t7\ny.fit\t0\t-1\tNaN\n"
    numbered = " \tLabel\tJD_UTC\tAIRMASS\tSource-Sky_T1\n1\tx.fit\t2450000.5\t1.5\t7\n"
    numbered += "2\ty.fit\t0.000000\t0\tNaN\n"
    for text in (
        plain,
        plain.replace("\n", "\r\n"),
        numbered.replace("\n", "\r\n"),
        plain.replace("\t", ","),
        "# AIJ_VERSION 5.5\n# AIJ_x 1\n" + numbered,
    ):
        got = aij.read_table(text)
        assert got.columns.tolist() == ["Label", "JD_UTC", "AIRMASS", "Source-Sky_T1"]
        assert got["Label"].tolist() == ["x.fit", "y.fit"]
        assert got["JD_UTC"][0] == 2450000.5
        assert got.loc[1, ["JD_UTC", "AIRMASS", "Source-Sky_T1"]].isna().all()


def test_something_else_is_refused():
    for text in ("", "a\tb\n1\t2\n", "# AIJ_x 1\n"):
        with pytest.raises(ValueError, match="not an AstroImageJ"):
            aij.read_table(text)


@needs_reference
def test_a_real_single_aperture_table_is_read_and_its_errors_re_derived():
    """g = 1, RN = 0: Source_Error, SNR, Mean, the pixel conventions and N_Src_Pixels as printed."""
    got = aij.read_table(real_table("aij_lhs352_Measurements.tbl"))
    error = photometry.source_error(
        got["Source-Sky"], got["Sky/Pixel"], n_source_px=got["N_Src_Pixels"],
        n_sky_px=got["N_Sky_Pixels"], gain_e_adu=None, read_noise_e=None,
    )  # fmt: skip
    assert error == pytest.approx(got["Source_Error"].to_numpy(), rel=1e-11)
    snr = got["Source-Sky"].to_numpy() / error
    assert snr == pytest.approx(got["Source_SNR"].to_numpy(), rel=1e-11)
    for derived, printed in (
        (got["Source-Sky"] / got["N_Src_Pixels"], "Mean"),
        (np.pi * got["Source_Radius"] ** 2, "N_Src_Pixels"),
        (got["X(IJ)"] + 0.5, "X(FITS)"),
    ):
        assert derived.to_numpy() == pytest.approx(got[printed].to_numpy(), rel=1e-13)
    height = got["Y(FITS)"] + got["Y(IJ)"] - 0.5
    assert height.tolist() == pytest.approx(np.rint(height).tolist(), abs=1e-9)
    assert got["BJD_TDB"].isna().all()  # printed as 0


@needs_reference
def test_relative_fluxes_of_a_real_table_to_the_printed_digit():
    got = aij.read_table(real_table("aij_wasp135b_first20rows.xls"))
    assert len(got) == 20
    roles = [name.removeprefix("rel_flux_SNR_") for name in got if name.startswith("rel_flux_SNR_")]
    assert roles == ["T1", *(f"C{i}" for i in range(2, 15))]
    source = got[[f"Source-Sky_{role}" for role in roles]].to_numpy()
    error = got[[f"Source_Error_{role}" for role in roles]].to_numpy()
    columns = dict.fromkeys(domain.StarMeasurements.__slots__, np.zeros(source.shape))
    measured = domain.StarMeasurements(
        **columns | {"source_sky_adu": source, "source_error_adu": error}
    )
    relative = photometry.relative_fluxes(measured, [aperture_star(role) for role in roles])
    digit = 1.01e-6  # printed with 6 decimals
    for name, values in (
        ("rel_flux", relative.rel_flux),
        ("rel_flux_err", relative.rel_flux_err),
        ("rel_flux_SNR", relative.rel_flux_snr),
    ):
        printed = got[[f"{name}_{role}" for role in roles]].to_numpy()
        assert np.abs(values - printed).max() < digit
    assert np.abs(relative.tot_c_adu - got["tot_C_cnts"]).max() < 14 * digit
    assert np.abs(relative.tot_c_err_adu - got["tot_C_err"]).max() < digit


@needs_reference
def test_roundness_of_a_real_table_follows_from_its_widths_and_angle():
    """Roundness = 1 − ((m_xx − m_yy)² + 4 m_xy²)/(m_xx + m_yy)², m_xy from the angle."""
    got = aij.read_table(real_table("aij_lhs352_Measurements.tbl"))
    m_xx, m_yy = got["X-Width"] ** 2, got["Y-Width"] ** 2
    two_m_xy = np.tan(2 * np.radians(got["Angle"])) * (m_xx - m_yy)
    roundness = 1 - ((m_xx - m_yy) ** 2 + two_m_xy**2) / (m_xx + m_yy) ** 2
    assert roundness.to_numpy() == pytest.approx(got["Roundness"].to_numpy(), rel=1e-9)
