"""The whole road on two simulated nights, from raw frames to light curves, against the truth.

The Dagster instance is a real one in the root directory, as ``wombat run`` uses it; the second
night has no biases of its own; ASTAP is not there, so the embedded solver does it.
"""

import json
import shutil
import sqlite3
import warnings
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS, FITSFixedWarning

from wombat_dagster import runs
from wombat_dagster.domain import Apphot, Proc
from wombat_dagster.reports.aij import read_table
from wombat_dagster.simulate.astap_database import write_astap_database

GOLDEN_COLUMNS = Path(__file__).parent / "golden" / "aij_columns_T1_T2_C3_C4.txt"
SECOND_NIGHT = "2025-10-15"
KEYS = ("20251014__SV_Wom__B", "20251014__SV_Wom__V", "20251015__SV_Wom__V")
TENTH_OF_A_SECOND_D = 0.1 / 86400


def truth_of(place, key):
    row = place.observatory.status.target_row(key)
    return place.sky.truths[row.observation.date].of_filter(row.observation.filter)


@pytest.fixture(scope="module")
def walked(open_place, tmp_path_factory):
    with (
        open_place(tmp_path_factory.mktemp("with a space") / "obs") as place,
        pytest.MonkeyPatch.context() as patch,
    ):
        place.take("2025*/*/*.fit", "2025*/Light/SV Wom/*")
        night = [f.t1_mags for truth in place.sky.truths.values() for f in truth.frames]
        colour = float(np.mean([mags["B"] - mags["V"] for mags in night]))
        coefficients = place.sky.telescope.transform_coefficients
        place.configure(
            tail=f"""
[[instrument]]
filters = {{ B = "B", V = "V" }}
transform = {{ Tb_bv = {coefficients["Tb_bv"]:.3f}, Tv_bv = {coefficients["Tv_bv"]:.3f} }}
[[target]]
directory = ["SV Wom"]
colour = {{ "B-V" = {colour:.3f} }}
"""
        )
        patch.setenv("DAGSTER_HOME", "")  # restored afterwards, whatever `home` makes of it
        place.raw_before = place.raw_multiset()
        with place.in_force(), runs.home(place.root) as instance:
            place.instance = instance
            place.failures = place.run()
            yield place


def test_everything_is_green_and_waits_for_the_person(walked):
    assert walked.failures == {}
    assert [row.observation.key for row in walked.rows] == list(KEYS)
    for row in walked.rows:
        assert (row.proc, row.apphot, row.submitted) == (Proc.SOLVED, Apphot.VALIDATE, None)


def test_no_raw_pixel_is_lost_or_changed(walked):
    assert walked.raw_multiset() == walked.raw_before


def test_the_night_without_biases_uses_the_other_night_s(walked):
    rows = {row.observation.key: row for row in walked.rows}
    assert rows[KEYS[2]].proc_bias == "2025-10-14"
    assert rows[KEYS[2]].proc_flat == SECOND_NIGHT
    assert rows[KEYS[0]].proc_flat == "2025-10-14"
    with closing(sqlite3.connect(walked.root / "wombatpipeline.db")) as database:
        cal = database.execute(
            "SELECT date, type, filter, count FROM cal ORDER BY date, type, filter"
        ).fetchall()
    assert cal == [
        ("2025-10-14", "bias", None, 5),
        ("2025-10-14", "flat", "B", 4),
        ("2025-10-14", "flat", "V", 4),
        (SECOND_NIGHT, "flat", "V", 4),
    ]


@pytest.mark.parametrize("key", KEYS)
def test_the_magnitudes_are_the_true_ones_within_their_errors(walked, key):
    """Pulls as DOMAIN section 6 splits the errors: the night's bias against zp_err alone."""
    magnitudes = walked.product("standard_magnitudes", key)
    truth = truth_of(walked, key)
    band = truth[0].band
    error = magnitudes.t1_mag - np.array([frame.t1_mags[band] for frame in truth])
    bias = np.average(error, weights=magnitudes.t1_random_mag**-2)
    assert abs(bias) < 3 * magnitudes.zp_err_mag
    assert 0 < magnitudes.zp_err_mag < 0.06
    pulls = (error - bias) / magnitudes.t1_random_mag
    assert np.abs(pulls).max() < 3.5
    assert (magnitudes.t1_random_mag > 0).all()
    assert (magnitudes.t1_random_mag < 0.03).all()
    assert magnitudes.check_name is not None


@pytest.mark.parametrize("key", KEYS)
def test_the_times_are_those_of_mid_exposure(walked, key):
    magnitudes = walked.product("standard_magnitudes", key)
    truth = truth_of(walked, key)
    for name in ("jd_utc", "hjd_utc"):
        expected = [getattr(frame, name) for frame in truth]
        assert getattr(magnitudes, name) == pytest.approx(expected, rel=0, abs=TENTH_OF_A_SECOND_D)
    # TDB is 69.18 s ahead of UTC; the star's light needs at most 499 s more or less.
    assert np.abs((magnitudes.bjd_tdb - magnitudes.jd_utc) * 86400 - 69.2).max() < 510


@pytest.mark.parametrize("key", KEYS)
def test_the_table_has_astroimagej_s_columns_in_its_order(walked, key):
    """The golden list is of T1, T2, C3, C4; further comps only add to it."""
    path = walked.observatory.layout.phot_table_path(key)
    assert path.name == f"SV_Wom_{key[:8]}_phot.tbl"
    table = read_table(path.read_text())
    n_stars = sum(name.startswith("Source-Sky_") for name in table.columns)
    assert n_stars > 4
    others = tuple(f"_C{number}" for number in range(5, n_stars + 1))
    columns = [name for name in table.columns if not name.endswith(others)]
    assert columns == GOLDEN_COLUMNS.read_text().split("\n")[: len(columns)]
    assert len(columns) == len(GOLDEN_COLUMNS.read_text().split())
    assert len(table) == len(truth_of(walked, key))


def test_the_stars_are_measured_where_they_are(walked):
    """Pixels of the table count from 0 at the corner in IJ, so x(IJ) is the 0-based x + 0.5."""
    table = read_table(walked.observatory.layout.phot_table_path(KEYS[1]).read_text())
    truth = truth_of(walked, KEYS[1])
    auid = walked.sky.truths[walked.row("SV Wom").observation.date].variable_auid
    x_px, y_px = np.array([frame.stars_xy[auid] for frame in truth]).T
    assert np.abs(table["X(FITS)_T1"] - 1 - x_px).max() < 0.3
    assert np.abs(table["Y(FITS)_T1"] - 1 - y_px).max() < 0.3


@pytest.mark.parametrize("key", KEYS)
def test_there_is_a_light_curve_to_look_at(walked, key):
    png = (walked.observatory.layout.observation_dir(key) / "light_curve.png").read_bytes()
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    assert len(png) > 5000
    assert key in walked.materialized("light_curve")


def test_every_frame_has_a_row_in_wcs_with_its_attempts(walked):
    with closing(sqlite3.connect(walked.root / "wombatpipeline.db")) as database:
        database.row_factory = sqlite3.Row
        rows = database.execute("SELECT * FROM WCS ORDER BY file").fetchall()
    assert len(rows) == sum(len(truth.frames) for truth in walked.sky.truths.values())
    for row in rows:
        attempts = json.loads(row["attempts"])
        assert attempts
        assert all({"rung", "solver", "outcome"} <= set(attempt) for attempt in attempts)
        assert row["status"] in {"solved", "propagated"}
        assert row["scale_x"] == pytest.approx(1.5, rel=0.002)
        assert row["parity"] == -1
        assert row["rms_px"] < 0.5
        assert row["target_x"] is not None


def test_without_astap_the_embedded_solver_does_it_and_says_so(walked):
    assert walked.observatory.astap is None
    with closing(sqlite3.connect(walked.root / "wombatpipeline.db")) as database:
        solved = database.execute(
            "SELECT DISTINCT solver, message FROM WCS WHERE status = 'solved'"
        ).fetchall()
    assert solved == [("catalogue", "ASTAP not found: solved by the embedded catalogue solver")]


@pytest.mark.parametrize("key", KEYS)
def test_reduced_frames_say_where_they_point_and_what_was_done(walked, key):
    reduction = walked.product("reduced_frames", key)
    masters = {m.path: m for m in walked.observatory.status.masters()}
    for frame, truth in zip(reduction.frames, truth_of(walked, key), strict=True):
        path = walked.observatory.layout.product_file(frame.path)
        with fits.open(path) as hdus:
            header, image = hdus[0].header, hdus[0].data
            assert image.dtype == np.dtype(">f4")
            assert hdus["MASK"].data.shape == image.shape
        for kind in ("BIAS", "FLAT"):
            assert header[f"{kind}HASH"] == masters[header[f"{kind}FILE"]].content_hash
        assert header["RAWHASH"] == frame.raw_hash
        assert header["GAINUSED"] == pytest.approx(walked.sky.telescope.gain_e_adu)
        assert header["GAINSRC"] == "EGAIN"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FITSFixedWarning)  # that it knows MJD from DATE-OBS
            ra, dec = WCS(header).all_pix2world(160, 128, 0)
        x, y = WCS(fits.Header(truth.wcs)).all_world2pix(ra, dec, 0)
        assert np.hypot(x - 160, y - 128) < 0.3


def test_a_second_run_finds_nothing_to_do(walked):
    with walked.in_force() as observatory:
        assert runs.plan(observatory).observations == ()
    files = {
        path: path.stat().st_mtime_ns for path in (walked.root / "products").rglob("reduced/*.fits")
    }
    assert walked.run() == {}
    assert {path: path.stat().st_mtime_ns for path in files} == files


def test_a_run_by_hand_makes_the_same_magnitudes_again(walked):
    before = walked.product("standard_magnitudes", KEYS[2])
    row = walked.observatory.status.target_row(KEYS[2])
    assert walked.run(night=row.observation.date, target="sv wom") == {}
    after = walked.product("standard_magnitudes", KEYS[2])
    assert after.t1_mag == pytest.approx(before.t1_mag, abs=1e-9)
    assert walked.observatory.status.target_row(KEYS[2]).apphot == Apphot.VALIDATE
    assert walked.leftovers() == []


def test_dagster_keeps_its_memory_beside_the_configuration(walked):
    assert (walked.root / "dagster.yaml").exists()
    assert (walked.root / ".dagster_state").is_dir()


@pytest.mark.needs_astap
@pytest.mark.skipif(shutil.which("astap_cli") is None, reason="astap_cli is not on PATH")
def test_with_astap_there_it_is_asked_first_and_analyses(place, sky, all_stars):
    database = place.root / "catalogs" / "astap"
    write_astap_database(
        database,
        all_stars.ra_deg,
        all_stars.dec_deg,
        all_stars.mag,
        field=(sky.field.ra_deg, sky.field.dec_deg, 1.0),
    )
    place.take("20251014/Bias/*", "20251014/Flat/*V.fit", "20251014/Light/SV Wom/*V.fit")
    place.configure(astap=f"database = {json.dumps(str(database))}")
    assert place.run() == {}
    assert place.row("SV Wom").apphot == Apphot.VALIDATE
    solutions = place.product("wcs_solutions", KEYS[1])
    in_full = [s for s in solutions if s.attempts[0].solver != "propagate"]
    assert in_full
    for solution in in_full:
        assert solution.attempts[0].solver == "astap"
        assert solution.hfd_source == "astap -analyse 10"
