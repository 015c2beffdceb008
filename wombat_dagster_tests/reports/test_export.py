"""Light curves for other programs are read back by astropy, pandas' kind of reader, and by eye."""

import csv
import dataclasses
import io
import os
import re
import subprocess
import sys

import numpy as np
import pytest
from astropy import units as u
from astropy.table import QTable, Table

from wombat_dagster import domain
from wombat_dagster.reports import export
from wombat_dagster.science.noise import relative_extra
from wombat_dagster.science.photometry import relative_fluxes
from wombat_dagster_tests.curves import curve, magnitudes, part, photometry
from wombat_dagster_tests.series import series_table

SOFTWARE = "wombat 9.9"


def two_nights():
    limits = np.arange(20) == 3
    mag = np.where(np.arange(20) == 5, np.nan, 12.0)
    rejected = tuple("cloud, moon" if i == 7 else "" for i in range(20))
    colour = domain.Transformation(
        coefficient_name="Tv_bv", coefficient=-0.06, coefficient_error=0.01, colour_index="B-V",
        target_colour=0.35, target_colour_error=0.1, source="wombat.toml",
    )  # fmt: skip
    return curve(
        part(0, mag=mag, t1_upper_limit=limits, proposed_rejected=rejected),
        part(1, "B", transformed=True, transformation=colour, held_reason="T2 off", camera=None),
    )


@pytest.fixture
def table():
    return export.curve_table(two_nights(), software=SOFTWARE)


def ecsv(table):
    """Return the table as ECSV gives it back; astropy reads empty text as masked."""
    got = QTable.read(export.to_ecsv(table), format="ascii.ecsv")
    for name in got.colnames:
        if got[name].dtype.kind == "U" and hasattr(got[name], "filled"):
            got[name] = got[name].filled("")
    return got


def votable(table):
    return Table.read(io.BytesIO(export.to_votable(table)), format="votable")


def test_ecsv_reads_back_with_units_descriptions_and_every_value(table):
    got = ecsv(table)
    assert got.colnames == table.colnames
    for name in table.colnames:
        assert got[name].info.unit == table[name].info.unit, name
        assert got[name].info.description == table[name].info.description
        if got[name].dtype.kind == "f":
            assert np.array_equal(np.asarray(got[name]), np.asarray(table[name]), equal_nan=True)
        else:
            assert list(got[name]) == list(table[name]), name
    assert got["mag"].unit == u.mag
    assert got["bjd_tdb"].unit == u.d
    assert got["fainter_than"].sum() == 1


def test_the_metadata_say_who_and_how(table):
    meta = ecsv(table).meta
    assert (meta["software"], meta["star"], meta["vsx_oid"]) == (SOFTWARE, "TX Eri", "11111")
    assert meta["charts"] == ["X41294TE"]
    first, second = meta["nights"]
    assert first["comps"] == ["000-AAA-001", "000-AAA-002"]
    assert (first["trans"], first["transformation"]) == ("NO", "no colour term")
    assert second["trans"] == "YES"
    assert second["transformation"] == "Tv_bv -0.0600 ± 0.0100, B-V 0.350 ± 0.100 (wombat.toml)"
    assert second["held"] == "T2 off"
    assert "held" not in first


def test_votable_reads_back_with_units_and_metadata(table):
    from astropy.io.votable import parse

    got = votable(table)
    assert got.colnames == table.colnames
    assert got["mag"].unit == u.mag
    assert got["hjd_utc"].unit == u.d
    assert got["zp_err"].description == table["zp_err"].info.description
    assert np.asarray(got["bjd_tdb"]) == pytest.approx(table["bjd_tdb"].value, abs=0)
    assert list(got["proposed_rejected"]) == list(table["proposed_rejected"])
    infos = {
        i.name: i.value for i in parse(io.BytesIO(export.to_votable(table))).resources[0].infos
    }
    assert infos["software"] == SOFTWARE
    assert "Tv_bv" in infos["nights"]


def test_csv_has_names_on_top_and_nothing_for_not_known():
    got = list(csv.DictReader(io.StringIO(export.to_csv(two_nights()), newline="")))
    assert len(got) == 40
    unmeasured, limit, rejected = got[5], got[3], got[7]
    assert unmeasured["mag"] == ""
    assert limit["fainter_than"] == "1"
    assert rejected["proposed_rejected"] == "cloud, moon"
    assert float(got[0]["hjd_utc"]) == 2460963.55
    assert {row["held"] for row in got[20:]} == {"1"}
    assert "nan" not in export.to_csv(two_nights()).lower()


def test_a_label_with_comma_quote_and_hash_survives_in_every_format():
    odd = ('a,"b" #1.fit', "ü\N{TELESCOPE}.fit")
    points = curve(part(n=2, labels=odd))
    table = export.curve_table(points, software=SOFTWARE)
    rows = csv.DictReader(io.StringIO(export.to_csv(points), newline=""))
    assert tuple(row["label"] for row in rows) == odd
    assert tuple(ecsv(table)["label"]) == odd
    assert tuple(votable(table)["label"]) == odd


def test_no_byte_is_written_beyond_a_row_of_a_votable():
    """The C writer of astropy 8.0.2 spoils what lies behind a row of exactly 512 bytes."""
    code = (
        "import numpy as np\n"
        "from astropy.table import QTable\n"
        "from wombat_dagster.reports.export import to_votable\n"
        "for n in range(380, 520):\n"
        "    to_votable(QTable({'label': np.array(['x' * n])}))\n"
    )
    environment = {**os.environ, "PYTHONMALLOC": "debug"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[:500]


def test_a_curve_without_points_is_a_table_without_rows():
    points = two_nights()
    empty = points.where(np.zeros(40, dtype=bool))
    assert len(export.to_csv(empty).splitlines()) == 1
    table = export.curve_table(empty, software=SOFTWARE)
    assert len(ecsv(table)) == len(votable(table)) == 0


def test_the_phase_is_a_column_when_asked_for():
    points = curve(part(n=3))
    phase = np.array([0.1, 0.2, 0.3])
    table = export.curve_table(points, software=SOFTWARE, phase=phase, folded="P = 1 d")
    assert list(ecsv(table)["phase"]) == [0.1, 0.2, 0.3]
    assert ecsv(table).meta["folded"] == "P = 1 d"
    assert export.to_csv(points, phase=phase).splitlines()[1].endswith(",0.1")


# ------------------------------------------------------------------------------------ transit fits


def transit_rows(text):
    titles = next(line[2:].split() for line in text.splitlines() if line.startswith("# BJD_TDB"))
    rows = [line.split() for line in text.splitlines() if not line.startswith("#")]
    return {name: [row[i] for row in rows] for i, name in enumerate(titles)}


def transit(flux, **changes):
    names = {"star": "WASP-135", "observation": "key", "software": SOFTWARE, "instrument": None}
    return export.transit_text(flux, **names | changes)


def test_flux_is_one_in_the_median_and_its_relative_error_is_kept():
    table = photometry()
    got = export.relative_flux(table, extra=0.0)
    assert np.median(got.flux) == pytest.approx(1.0, abs=1e-15)
    relative = table.relative
    assert got.error / got.flux == pytest.approx(
        relative.rel_flux_err[:, 0] / relative.rel_flux[:, 0]
    )
    assert got.bjd_tdb == pytest.approx(table.times.bjd_tdb, abs=0)


def test_scintillation_of_star_and_comps_is_in_the_errors():
    """By hand: comps 120000 and 60000, √(1 + (12² + 6²)/18²) = 1.2472 of 0.003 on top."""
    table = photometry()
    bare, found = (export.relative_flux(table, extra=np.full(12, e)) for e in (0.0, 0.003))
    added = np.sqrt((found.error / found.flux) ** 2 - (bare.error / bare.flux) ** 2)
    assert added == pytest.approx(0.003 * 1.2472, rel=1e-4)


def test_the_errors_of_a_bright_star_are_its_scatter():
    """9th mag, 0.35 m, 30 s: scintillation rules. The table's noise is made apart from ours."""
    table = series_table(200, mags=(9.0, 9.2, 8.8, 9.1, 9.3, 9.0), amplitude_mag=0.0)
    table = dataclasses.replace(table, relative=relative_fluxes(table.measured, table.stars))
    found = export.relative_flux(table, extra=relative_extra(table))
    assert np.std((found.flux - 1) / found.error) == pytest.approx(1.0, rel=0.15)
    assert found.error_words.endswith("read-out, dark, the master flat's noise, scintillation")


def steady(n=200, scatter=0.02, *, roles=("T1", "T2", "C3", "C4"), **changes):
    """Return a table of stars that scatter by `scatter` each, T1 and T2 against two comps."""
    table = photometry(n, depth=0.0, **changes)
    noise = np.random.default_rng(8).normal(0, scatter, (n, 4))
    measured = dataclasses.replace(
        table.measured, source_sky_adu=table.measured.source_sky_adu * (1 + noise)
    )
    stars = [dataclasses.replace(s, role=r) for s, r in zip(table.stars, roles, strict=True)]
    return dataclasses.replace(
        table, measured=measured, stars=tuple(stars), relative=relative_fluxes(measured, stars)
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"gain_e_adu": None}, "gain not known: errors scaled by .*, so that T2's"),
        ({"pedestal_removed": False}, "bias not subtracted: errors scaled by .*, so that T2's"),
        ({"gain_e_adu": None, "roles": ("T1", "C2", "C3", "C4")}, "so that the comparison stars'"),
    ],
)
def test_formal_errors_that_mean_nothing_are_scaled_to_a_steady_star_s_scatter(changes, words):
    found = export.relative_flux(steady(**changes), extra=0.0)
    detrended = found.flux - np.median(found.flux)
    assert np.median(found.error) == pytest.approx(detrended.std(), rel=0.35)
    assert re.search(words, transit(found))


def test_where_nothing_steady_scatters_the_size_of_the_errors_is_not_known():
    found = export.relative_flux(steady(4, gain_e_adu=None), extra=0.0)
    assert not found.errors_known
    assert "how great the errors are is not known" in transit(found)


def test_a_dip_of_two_percent_is_one_of_two_percent_in_the_file():
    """T1 loses 2 % on a third of the frames, the comps nothing."""
    columns = transit_rows(transit(export.relative_flux(photometry(30, depth=0.02), extra=0.0)))
    flux = np.array(columns["FLUX"], dtype=float)
    assert flux.min() / flux.max() == pytest.approx(0.98, abs=1e-7)


def test_detrend_columns_go_from_minus_one_to_one_and_constant_ones_are_said():
    text = transit(export.relative_flux(photometry(), extra=0.0), instrument="QHY 600 M")
    columns = transit_rows(text)
    assert list(columns)[:4] == ["BJD_TDB", "FLUX", "ERROR", "INSTRUMENT"]
    assert list(columns)[4:] == ["AIRMASS", "SKY", "X", "X_WIDTH", "Y_WIDTH", "FWHM"]
    for name in list(columns)[4:]:
        values = np.array(columns[name], dtype=float)
        assert (values.min(), values.max()) == (-1.0, 1.0), name
    assert set(columns["INSTRUMENT"]) == {"QHY_600_M"}
    assert "constant or not known on every frame: Y\n" in text
    assert "rel_flux_T1" in text
    assert "INSTRUMENT" not in transit(export.relative_flux(photometry(), extra=0.0))


def test_airmass_is_scaled_by_hand():
    """1.0, 1.5, 3.0 are -1, -0.5, 1."""
    assert export.scaled(np.array([1.0, 1.5, 3.0])).tolist() == [-1.0, -0.5, 1.0]
    assert export.scaled(np.array([2.0, 2.0])) is None
    assert export.scaled(np.array([2.0, np.nan])) is None


def test_frames_without_a_value_or_proposed_to_be_rejected_are_left_out_and_counted():
    table = photometry(12)
    relative = table.relative
    relative.rel_flux[4, 0] = np.nan
    rejected = ["cloud" if i == 2 else "" for i in range(12)]
    got = export.relative_flux(table, extra=0.0, rejected=rejected)
    assert len(got.flux) == 10
    assert got.left_out == {"not measured": 1, "proposed rejected": 1}
    assert "frames left out: 1 not measured, 1 proposed rejected" in transit(got)
    with pytest.raises(ValueError, match="0 of 12 frames usable, at least 2 wanted"):
        export.relative_flux(table, extra=0.0, rejected=["bad"] * 12)


def test_magnitudes_stand_in_for_a_table_that_is_gone():
    """0.75 mag fainter is 10^-0.3 = 0.501187 of the flux."""
    standard = magnitudes(2460963.5 + np.arange(3) / 100, np.array([12.0, 12.0, 12.75]))
    got = export.magnitude_flux(standard)
    assert got.flux == pytest.approx([1.0, 1.0, 0.501187], abs=1e-6)
    assert got.error[0] == pytest.approx(0.011 / 1.0857362, rel=1e-6)
    assert got.source == "standard magnitudes of T1"
    assert list(got.detrend) == ["AIRMASS"]


@pytest.mark.parametrize(
    ("camera", "word"),
    [("QHY 600 M", "QHY_600_M"), ("  ", "instrument"), ("a\tb\nc#", "a_b_c"), ("ü", "instrument")],
)
def test_an_instrument_is_one_word(camera, word):
    assert export.one_word(camera) == word


def test_every_point_says_where_its_comps_are_from():
    nights = part(0, comp_source="VSP"), part(1, comp_source="ATLAS-REFCAT2 (VizieR)"), part(2)
    columns = export.curve_table(curve(*nights), software="x")["comp_source"]
    assert list(dict.fromkeys(columns)) == ["VSP", "ATLAS-REFCAT2 (VizieR)", ""]
