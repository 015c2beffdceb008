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
from wombat_dagster.domain import BadPsf, Flag, MaskBit
from wombat_dagster.observatory import Observatory, open_observatory
from wombat_dagster.products import read_product
from wombat_dagster.science.detection import detect_stars
from wombat_dagster.science.profile import fit_frame_profile
from wombat_dagster.simulate.aavso import StandInAavso
from wombat_dagster.stages.photometry import measure_observation
from wombat_dagster.stages.standard import standard_magnitudes_of
from wombat_dagster.store.frames import read_image
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


PREDICTED_MID_BJD_TDB = 2458107.71091  # +- 0.0002, from an independent ephemeris


def model(times, *, late_d=0.0):
    """The fixed transit: the star's parameters from an independent reduction of these frames."""
    return transit_flux(
        times.bjd_tdb,
        mid_bjd_tdb=PREDICTED_MID_BJD_TDB + late_d,
        period_d=2.150008,
        radius_ratio=0.1575,
        axis_ratio=6.05,
        inclination_deg=88.9,
        limb_darkening=(0.35, 0.28),
    )


def lines(times):
    """What is free beside the transit: a straight line in time and airmass."""
    since_d = times.bjd_tdb - times.bjd_tdb.mean()
    return np.column_stack([np.ones_like(since_d), since_d, times.airmass - times.airmass.mean()])


def scatter_ppt(flux, times):
    """Residual of all frames against the fixed transit, after the line."""
    assert np.isfinite(flux).all()
    assert flux.size == 142
    ratio, terms = flux / model(times), lines(times)
    return 1000 * np.std(ratio / (terms @ np.linalg.lstsq(terms, ratio, rcond=None)[0]) - 1)


def mid_transit(flux, times):
    """(late_d, its error) of the transit fitted with its depth and the line free."""
    flux = flux / np.median(flux)

    def misfit(late_d):
        terms = np.column_stack([lines(times), model(times, late_d=late_d) - 1])
        return float(np.sum((flux - terms @ np.linalg.lstsq(terms, flux, rcond=None)[0]) ** 2))

    tried_d = np.linspace(-0.005, 0.006, 12)
    misfits = np.array([misfit(late_d) for late_d in tried_d])
    near = slice(max(misfits.argmin() - 2, 0), misfits.argmin() + 3)
    bend, slope, _ = np.polyfit(tried_d[near], misfits[near], 2)
    variance = misfits.min() / (flux.size - 5)
    return -slope / (2 * bend), np.sqrt(variance / bend)


def measured_again(observatory, *, aperture, ensemble):
    """Table and magnitudes of the finished night with other settings."""
    settings = observatory.settings
    other = Observatory(
        settings.model_copy(
            update={
                "photometry": settings.photometry.model_copy(update={"aperture": aperture}),
                "magnitudes": settings.magnitudes.model_copy(update={"ensemble": ensemble}),
            }
        )
    )
    observation = other.status.target_row(HAT_P_32).observation
    reduction, solutions, comps = (
        read_product(other, name, HAT_P_32)
        for name in ("reduced_frames", "wcs_solutions", "comp_list")
    )
    table = measure_observation(other, observation, reduction, solutions, comps)
    return table, standard_magnitudes_of(other, observation, reduction, table)


@pytest.mark.needs_astap
def test_the_transit_is_there_with_no_more_than_5_6_ppt_of_scatter(transit_night):
    """By the FWHM, 1.7 of them; EXOTIC's published reduction of these frames has 5.4 ppt."""
    table = read_product(transit_night, "photometry_table", HAT_P_32)
    assert scatter_ppt(table.relative.rel_flux[:, 0], table.times) <= 5.6


@pytest.mark.needs_astap
@pytest.mark.parametrize(("ensemble", "bar_ppt"), [("chart", 5.6), ("field", 5.0)])
def test_the_transit_with_the_radius_where_the_comps_are_steadiest(
    transit_night, ensemble, bar_ppt
):
    """An expert's reduction, everything chosen by hand: 4.5 ppt, r = 4 px, 42 comps."""
    table, magnitudes = measured_again(transit_night, aperture="scan", ensemble=ensemble)
    assert 3.0 <= table.aperture.radius_px <= 5.0
    assert table.scan.n_frames == 142
    assert magnitudes.ensemble == ensemble
    flux = 10 ** (-0.4 * (magnitudes.t1_mag - np.median(magnitudes.t1_mag)))
    assert scatter_ppt(flux, table.times) <= bar_ppt
    assert scatter_ppt(table.relative.rel_flux[:, 0], table.times) <= 5.6
    late_d, error_d = mid_transit(flux, table.times)
    assert error_d < 0.0012
    assert abs(late_d) <= 3 * np.hypot(error_d, 0.0002)


@pytest.mark.needs_astap
def test_hot_pixels_of_the_transit_are_cured_not_mended(transit_night):
    """Eight frames have one in T1's aperture, 20 to 75 ADU in all frames: steady, not broken.

    Which of them are cured depends on the tenth of the frames that is sampled: half at least.
    """
    table = read_product(transit_night, "photometry_table", HAT_P_32)
    assert any("hot pixels near the stars serve" in words for words in table.notes)
    assert np.count_nonzero(table.measured.flags[:, 0] & Flag.BAD_PIXEL) <= 4


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


HOT_CLUSTERS = ((375.0, 898.0), (978.0, 153.0))  # saturated, in every light of that camera


@pytest.mark.parametrize("with_map", [False, True])
def test_the_hot_clusters_of_bsu_are_never_psf_or_field_stars(with_map):
    """Peaks of 47,000 to 50,000 ADU that stand still; the map of bad pixels would mask them."""
    paths = sorted((REFERENCE / "bsu" / "20221029" / "Light").glob("*/V/*.fz"))
    assert paths
    for path in paths:
        image = read_image(path)[0].astype(np.float32)
        for x, y in HOT_CLUSTERS:
            here = image[int(y) - 3 : int(y) + 4, int(x) - 3 : int(x) + 4]
            assert here.max() > 40_000, path.name
        mask = np.zeros(image.shape, np.uint8)
        if with_map:
            for x, y in HOT_CLUSTERS:
                mask[int(y) - 2 : int(y) + 4, int(x) - 2 : int(x) + 4] = MaskBit.BAD
        stars = detect_stars(image, mask != 0)
        assert len(stars) > 10, path.name
        for x, y in HOT_CLUSTERS:
            assert np.hypot(stars.x_px - x, stars.y_px - y).min() > 8.0, path.name
        try:
            profile = fit_frame_profile(
                image, mask, stars, gain_e_adu=None, linearity_adu=60_000.0, peak_max_adu=60_000.0
            )
        except BadPsf:
            continue
        for star in profile.stars:
            for x, y in HOT_CLUSTERS:
                assert np.hypot(star.x_px - x, star.y_px - y) > 8.0, path.name
