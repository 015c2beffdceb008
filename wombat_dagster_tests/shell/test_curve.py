"""`wombat curve`: what it prints, which files it writes, and what it refuses in words."""

import csv
import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from astropy.table import QTable, Table
from click.testing import CliRunner

from wombat_dagster import config
from wombat_dagster.commands.curve import curve
from wombat_dagster.observatory import open_observatory
from wombat_dagster_tests.curves import (
    HOST,
    TX_ERI,
    hours,
    magnitudes,
    observation,
    photometry,
    reduction,
    store,
)


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A root with three nights of TX Eri, one of them not standardised."""
    (tmp_path / "data").mkdir()
    (tmp_path / "wombat.toml").write_text('[observer]\ncode = "ABC"\n')
    monkeypatch.setenv(config.CONFIG_ENV, str(tmp_path / "wombat.toml"))
    monkeypatch.setenv("COLUMNS", "110")
    observatory = open_observatory()
    for night, band in ((0, "V"), (0, "B"), (1, "V")):
        standard = magnitudes(hours(night), 12.0 + night / 10, band=band)
        if night:
            rejected = ("cloud", *[""] * 19)
            standard = dataclasses.replace(standard, proposed_rejected=rejected)
        store(observatory, observation(night, band), variable=TX_ERI, standard_magnitudes=standard)
    store(observatory, observation(2), apphot="novsp", reason="VSP is away", variable=TX_ERI)
    return tmp_path


def store_transit(night=0, *, star=HOST, target="WASP-135b", **changes):
    table = photometry(night=night, star=star, **changes)
    standard = magnitudes(hours(night, 12), 11.0, labels=table.labels, raw_hashes=table.raw_hashes)
    return store(
        open_observatory(), observation(night, target=target), variable=star,
        standard_magnitudes=standard, photometry_table=table, reduced_frames=reduction(),
    )  # fmt: skip


def wombat_curve(*arguments):
    return CliRunner().invoke(curve, list(map(str, arguments)))


def refused(*arguments):
    """Return the one line that the command ends with."""
    ended = wombat_curve(*arguments)
    assert ended.exit_code == 2, ended.output
    last = ended.output.splitlines()[-1]
    assert last.startswith("Error: ")
    return last


def rows_of(path):
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def files(root):
    place = root / "products" / "curves"
    return sorted(path.name for path in place.iterdir()) if place.exists() else []


def test_importing_the_command_loads_nothing_heavy():
    code = (
        "import sys\nfrom wombat_dagster.commands import curve\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"dagster", "astropy", "numpy", "pydantic", "rich", "sqlite3", "matplotlib", "pandas"}
    assert not set(done.stdout.split()) & heavy


def test_a_star_is_shown_night_by_night_and_written_as_picture_and_table(root):
    ended = wombat_curve("tx eri")
    assert ended.exit_code == 0, ended.output
    assert "TX Eri (OID 11111, EW, P = 0.25 d)" in ended.output
    lines = ended.output.splitlines()
    (second,) = [line for line in lines if line.startswith(" 2025-10-15")]
    assert second.split()[:7] == ["2025-10-15", "V", "20,", "1", "rej.", "12.100", "0.011"]
    assert "+0.021" in second
    assert "20251016__TX_Eri__V: novsp – VSP is away" in ended.output
    assert files(root) == ["TX_Eri.csv", "TX_Eri.png"]
    assert str(root / "products" / "curves" / "TX_Eri.png") in ended.output.replace("\n", "")
    assert (root / "products/curves/TX_Eri.png").read_bytes().startswith(b"\x89PNG")


def test_the_table_leaves_out_what_is_proposed_to_be_rejected_unless_asked(root):
    said = wombat_curve("TX Eri").output
    assert "Left out of the table: 1 point (--include-rejected" in said
    table = root / "products" / "curves" / "TX_Eri.csv"
    assert len(rows_of(table)) == 59
    wombat_curve("TX Eri", "--include-rejected")
    assert len(rows_of(table)) == 60


def test_a_part_of_the_curve_has_files_of_its_own(root):
    assert wombat_curve("TX Eri", "--filter", "V", "--from", "20251014", "--to", "2025-10-14",
                        "--phase").exit_code == 0  # fmt: skip
    name = "TX_Eri_V_20251014-20251014_phase"
    assert files(root) == [f"{name}.csv", f"{name}.png"]
    rows = rows_of(root / "products" / "curves" / f"{name}.csv")
    assert {row["band"] for row in rows} == {"V"}
    phase = np.array([float(row["phase"]) for row in rows])
    hjd = np.array([float(row["hjd_utc"]) for row in rows])
    assert phase == pytest.approx(((hjd - 2460900.125) / 0.25) % 1, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("a.csv", "ascii.csv"), ("b.ecsv", "ascii.ecsv"), ("c.VOT", "votable"), ("d.xml", "votable")],
)
def test_the_ending_of_out_chooses_the_format(root, tmp_path, name, kind):
    path = tmp_path / "deep" / name
    assert wombat_curve("11111", "--out", path).exit_code == 0
    got = (QTable if kind == "ascii.ecsv" else Table).read(path, format=kind)
    assert len(got) == 59
    assert files(root) == []


def test_out_may_be_a_directory(root, tmp_path):
    (tmp_path / "there").mkdir()
    assert wombat_curve("TX Eri", "--out", tmp_path / "there").exit_code == 0
    assert wombat_curve("TX Eri", "--out", tmp_path / "new", "--format", "ecsv").exit_code == 0
    assert (tmp_path / "there" / "TX_Eri.png").exists()
    assert (tmp_path / "new" / "TX_Eri.ecsv").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["SS Cyg"], "no observation of 'SS Cyg'; there are: TX Eri"),
        (["TX Eri", "--filter", "R"], "no observation of TX Eri in 'R'; there are: B, V"),
        (["TX Eri", "--from", "soon"], '"soon" is no night'),
        (["TX Eri", "--from", "20251016", "--to", "20251014"], "is after the last"),
        (["TX Eri", "--from", "2026-01-01"], "was not observed then: its 3 nights"),
        (["TX Eri", "--out", "x.pdf"], "x.pdf ends in none of .png"),
        (["TX Eri", "--out", "x.csv", "--format", "png"], "asked for is png"),
        (["TX Eri", "--from", "20251016"], "no magnitudes of TX Eri yet"),
        (["TX Eri", "--format", "exoplanet"], "the type of TX Eri is EW, EP (planet) wanted"),
        (["400,0"], "no place on the sky"),
    ],
)
def test_what_cannot_be_shown_is_refused_in_words(root, arguments, words):
    assert words in refused(*arguments)
    assert files(root) == []


def test_before_the_first_run_nothing_is_known_and_nothing_is_made(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "wombat.toml").write_text("")
    monkeypatch.setenv(config.CONFIG_ENV, str(tmp_path / "wombat.toml"))
    assert "nothing is known yet" in refused("TX Eri")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "wombat.toml"]


def test_a_place_that_cannot_be_written_is_refused(root, tmp_path):
    (tmp_path / "file").write_text("")
    assert "cannot be written" in refused("TX Eri", "--out", tmp_path / "file" / "x.csv")


def test_an_unknown_period_is_refused(root):
    star = dataclasses.replace(HOST, period_d=None)
    store_transit(3, star=star)
    assert "the period of WASP-135 is not known" in refused("WASP-135", "--phase")


# ------------------------------------------------------------------------------------- transits


def test_a_file_for_transit_fitting_is_written_per_observation(root):
    store_transit(3)
    store_transit(4)
    assert wombat_curve("WASP-135", "--format", "transit").exit_code == 0
    assert files(root) == [
        "20251017__WASP-135b__V_transit.dat",
        "20251018__WASP-135b__V_transit.dat",
    ]
    text = (root / "products" / "curves" / files(root)[0]).read_text()
    assert "rel_flux_T1" in text
    got = np.genfromtxt(text.splitlines(), dtype=None, encoding="utf-8")
    assert len(got) == 12
    assert {row[3] for row in got} == {"QHY_600"}


def test_without_the_measurement_table_the_flux_is_made_of_magnitudes(root):
    key = store_transit(3)
    (root / "products" / "20251017" / "WASP-135b" / "V" / "photometry.npz").write_bytes(b"broken")
    ended = wombat_curve("WASP-135", "--format", "transit")
    assert ended.exit_code == 0, ended.output
    text = (root / "products" / "curves" / f"{key}_transit.dat").read_text()
    assert "standard magnitudes of T1" in text
    assert "the measurement table is damaged" in refused("WASP-135", "--format", "exoplanet")


def test_the_exoplanet_report_takes_its_facts_from_the_products(root):
    key = store_transit(3)
    assert wombat_curve("WASP-135", "--format", "exoplanet").exit_code == 0
    text = (root / "products" / "curves" / f"{key}_exoplanet.txt").read_text()
    for line in ("#OBSCODE=ABC", "#EXOPLANET_NAME=WASP-135b", "#BINNING=2x2", "#EXPOSURE_TIME=60",
                 "#FILTER=V", "#STAR_NAME=WASP-135", "#RESULTS=na"):  # fmt: skip
        assert f"{line}\n" in text


def test_scintillation_is_in_the_errors_of_the_report(root):
    """0.35 m, sea level, 60 s, airmass 1.1: 0.0012 of each star alone, as much as the photons."""
    errors = []
    for night, aperture_m in ((3, None), (4, 0.35)):
        key = store_transit(night, telescope_aperture_m=aperture_m, site_elevation_m=0.0)
        assert wombat_curve("WASP-135", "--format", "exoplanet").exit_code == 0
        text = (root / "products" / "curves" / f"{key}_exoplanet.txt").read_text()
        rows = [line.split(",") for line in text.splitlines() if not line.startswith("#")]
        errors.append(float(rows[0][2]))
    assert np.sqrt(errors[1] ** 2 - errors[0] ** 2) > 0.001


def test_what_the_report_must_say_and_nobody_knows_is_refused_in_one_go(root):
    store_transit(3, target="WASP-135", band_confirmed=False)
    (root / "wombat.toml").write_text("")
    said = refused("WASP-135", "--format", "exoplanet")
    for words in ("no observer code", "--planet says it", "filter V was taken for V"):
        assert words in said


def test_the_planet_may_be_named(root):
    key = store_transit(3, target="WASP-135")
    assert wombat_curve(
        "WASP-135", "--format", "exoplanet", "--planet", "WASP-135 b"
    ).exit_code == 0  # fmt: skip
    text = (root / "products" / "curves" / f"{key}_exoplanet.txt").read_text()
    assert "#EXOPLANET_NAME=WASP-135 b\n" in text


def test_one_night_that_cannot_be_reported_does_not_stop_the_others(root):
    store_transit(3)
    store_transit(4, exposure_s=np.full(12, 900.0))
    ended = wombat_curve("WASP-135", "--format", "exoplanet")
    assert ended.exit_code == 0
    assert "not written: " in ended.output
    assert "exposures 900 to 900 s" in ended.output
    assert files(root) == ["20251017__WASP-135b__V_exoplanet.txt"]


# -------------------------------------------------------------------------------- the whole road


def test_two_simulated_nights_are_one_curve(place):
    """Raw frames to curve: every frame's magnitude as its night's product has it."""
    place.take("20251014/Bias/*", "20251014/Flat/*V.fit", "20251014/Light/SV Wom/*V.fit")
    place.take("20251015/Flat/*V.fit", "20251015/Light/SV Wom/*V.fit")
    assert place.run() == {}
    with place.in_force():
        ended = wombat_curve("sv_wom", "--include-rejected")
        assert ended.exit_code == 0, ended.output
        assert wombat_curve("SV Wom", "--format", "transit").exit_code == 0
    made = place.root / "products" / "curves"
    rows = rows_of(made / "SV_Wom.csv")
    keys = ["20251014__SV_Wom__V", "20251015__SV_Wom__V"]
    expected = [place.product("standard_magnitudes", key) for key in keys]
    assert [float(row["mag"]) for row in rows] == [m for night in expected for m in night.t1_mag]
    assert [row["label"] for row in rows] == [label for night in expected for label in night.labels]
    fitted = (made / f"{keys[0]}_transit.dat").read_text().splitlines()
    assert len([line for line in fitted if not line.startswith("#")]) >= 2
