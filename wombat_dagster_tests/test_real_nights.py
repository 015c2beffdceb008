"""The road on real frames, made with other people's telescopes; skipped where there are none."""

import os
import shutil
import sqlite3
import tarfile
from collections import Counter
from contextlib import closing, contextmanager
from pathlib import Path

import numpy as np
import pytest

from wombat_dagster import runs
from wombat_dagster.observatory import open_observatory
from wombat_dagster.products import read_product
from wombat_dagster.simulate.aavso import StandInAavso
from wombat_dagster_tests.transit import transit_flux

REFERENCE = Path(os.environ.get("WOMBAT_REFERENCE_DATA", "/nonexistent"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not REFERENCE.is_dir(), reason="WOMBAT_REFERENCE_DATA does not name the real frames"
    ),
]
HAT_P_32 = "20171219__HAT-P-32__Clear"
SECOND_D = 1 / 86400
NOWHERE = "http://127.0.0.1:9"  # the discard port: nothing answers


@contextmanager
def observatory_of(root, night, *, vsx_url, vsp_url, more=""):
    """Give an observatory over a copy of a real night, run through."""
    shutil.copytree(REFERENCE / night, root / "data", ignore=shutil.ignore_patterns("aavso"))
    for path in root.rglob("*"):
        path.chmod(path.stat().st_mode | 0o200)
    # Half a minute a frame that nobody can solve; it has tests of its own.
    without_solve_field = '[solve]\nsolve_field = "not wanted here"'
    (root / "wombat.toml").write_text(
        f"{more}\n{without_solve_field}\n"
        f'[aavso]\nvsx_urls = ["{vsx_url}"]\nvsp_urls = ["{vsp_url}"]\n'
        "retries = 0\nmin_interval_s = 0\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WOMBAT_CONFIG", str(root / "wombat.toml"))
        patch.setenv("DAGSTER_HOME", "")
        observatory = open_observatory()
        with runs.home(root) as instance:
            plan = runs.plan(observatory)
            runs.register(instance, observatory)
            done = runs.execute(instance, plan)
        assert [d.error for d in done if d.error] == []
        yield observatory


def query(observatory, sql):
    with closing(sqlite3.connect(observatory.status.path)) as connection:
        return connection.execute(sql).fetchall()


@pytest.fixture(scope="module")
def transit_night(tmp_path_factory):
    if shutil.which("astap_cli") is None:
        pytest.skip("ASTAP (astap_cli) is not installed")
    root = tmp_path_factory.mktemp("microobservatory")
    with tarfile.open(REFERENCE / "astap" / "astap-hatp32-field.tar.xz") as archive:
        archive.extractall(root / "stars", filter="data")
    (first_tile,) = root.glob("stars/**/*_0101.1476")
    with StandInAavso.from_directory(REFERENCE / "microobservatory" / "aavso") as services:
        database = f'[astap]\ndatabase = "{first_tile.parent}"'
        urls = {"vsx_url": services.vsx_url, "vsp_url": services.vsp_url}
        with observatory_of(root, "microobservatory", **urls, more=database) as observatory:
            yield observatory


@pytest.mark.needs_astap
def test_the_transit_night_waits_for_validation_with_at_least_140_of_142_solved(transit_night):
    row = transit_night.status.target_row(HAT_P_32)
    assert (row.proc_bias, row.proc_flat, row.apphot) == ("nocal", "nocal", "validate")
    rows = query(transit_night, "SELECT status, reason FROM WCS")
    unsolved = [reason for status, reason in rows if status not in ("solved", "propagated")]
    assert len(rows) == 142
    assert len(unsolved) <= 2
    assert all(unsolved)  # each with its reason


@pytest.mark.needs_astap
def test_the_first_frames_times_are_those_of_an_independent_reduction(transit_night):
    """Figures: data/README.md of the reference, from a reduction of these frames with SEP."""
    times = read_product(transit_night, "photometry_table", HAT_P_32).times
    assert times.jd_utc[0] == pytest.approx(2458107.565432, abs=0.1 * SECOND_D)
    assert times.hjd_utc[0] == pytest.approx(2458107.569029, abs=0.1 * SECOND_D)
    assert times.bjd_tdb[0] == pytest.approx(2458107.569858, abs=0.1 * SECOND_D)


@pytest.mark.needs_astap
def test_no_star_that_reaches_the_stop_of_4095_is_in_the_ensemble(transit_night):
    table = read_product(transit_night, "photometry_table", HAT_P_32)
    detector = read_product(transit_night, "reduced_frames", HAT_P_32).detector
    assert detector.stop_adu == 4095
    assert table.saturation_adu < 4095
    assert np.nanmax(table.measured.peak_adu[:, table.ensemble]) < table.saturation_adu
    saturated = [e for e in table.ledger if e.reason == "saturated"]
    assert saturated
    assert not {e.auid for e in saturated} & {star.auid for star in table.stars}


@pytest.mark.needs_astap
def test_the_transit_is_there_with_no_more_than_6_5_ppt_of_scatter(transit_night):
    """Predicted mid-transit and the star's parameters from an independent reduction."""
    table = read_product(transit_night, "photometry_table", HAT_P_32)
    times = table.times
    flux = table.relative.rel_flux[:, 0] / transit_flux(
        times.bjd_tdb,
        mid_bjd_tdb=2458107.71091,
        period_d=2.150008,
        radius_ratio=0.1575,
        axis_ratio=6.05,
        inclination_deg=88.9,
        limb_darkening=(0.35, 0.28),
    )
    assert np.isfinite(flux).all()
    since = times.bjd_tdb - times.bjd_tdb.mean()
    terms = np.column_stack([np.ones_like(since), since, times.airmass - times.airmass.mean()])
    line = terms @ np.linalg.lstsq(terms, flux, rcond=None)[0]
    assert 1000 * np.std(flux / line - 1) <= 6.5


def test_wallace_is_calibrated_and_stops_at_nowcs_with_its_focus_frames_named(tmp_path):
    with observatory_of(tmp_path, "wallace", vsx_url=NOWHERE, vsp_url=NOWHERE) as observatory:
        (row,) = observatory.status.targets()
        assert (row.proc, row.apphot) == ("nowcs", "nowcs")
        assert (row.proc_bias, row.proc_flat, row.proc_dark) == (
            "2018-10-12", "nocal", "2018-10-12",
        )  # fmt: skip
        assert (row.n_frames, row.n_quarantined) == (25, 14)
        reasons = query(observatory, "SELECT path, reason FROM frame WHERE reason IS NOT NULL")
        assert all("@Focus3" in path for path, _ in reasons)
        assert {reason for _, reason in reasons} == {"256x256 1x1, observation is 1024x1024 1x1"}
        notes = read_product(observatory, "reduced_frames", row.observation.key).notes
        (clouds,) = (words for words in notes if words.startswith("few stars"))
        assert all(f"000000{number}.fit" in clouds for number in (36, 37, 38, 39))  # the last four


def test_bsu_is_parked_at_vsxdown_with_its_flats_sorted_and_its_duplicate_named(tmp_path):
    with observatory_of(tmp_path, "bsu", vsx_url=NOWHERE, vsp_url=NOWHERE) as observatory:
        rows = observatory.status.targets()
        assert {row.apphot for row in rows} == {"vsxdown"}
        assert {row.proc_bias for row in rows} == {"nocal"}
        flats = {row.observation.filter: row.proc_flat for row in rows}
        assert flats == {
            "B": "2022-10-29", "V": "2022-10-29", "R": "2022-10-29", "L": "nocal",
        }  # fmt: skip
        counts = Counter(
            path.parent.name for path in (tmp_path / "data").glob("20221029/Flat/*/*.fz")
        )
        assert counts == {"FlatB": 3, "FlatR": 3, "FlatV": 4}
        ((path, reason),) = query(
            observatory, "SELECT path, reason FROM frame WHERE reason IS NOT NULL"
        )
        assert "/V/V/" in path
        assert reason.startswith("same pixels as ")
        reasons = read_product(observatory, "calibration_choice", rows[0].observation.key).reasons
        assert any("exposure 1.5 s" in words for words in reasons)  # darks do not fit the lights
