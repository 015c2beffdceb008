"""Simulated nights of five fields against their truth: the stated errors are the real ones."""

import datetime as dt

import numpy as np
import pytest

from wombat_dagster import runs
from wombat_dagster.observatory import open_observatory
from wombat_dagster.products import read_product
from wombat_dagster.simulate.aavso import StandInAavso
from wombat_dagster.simulate.night import Conditions, simulate_night
from wombat_dagster.simulate.sky import Telescope, random_field, write_star_table_csv
from wombat_dagster.simulate.world import SITE, write_aavso_answers

pytestmark = pytest.mark.slow
SEEDS = (11, 12, 13, 14, 15)
NIGHT = dt.date(2025, 10, 15)
TOML = """
[site]
latitude_deg = {site.latitude_deg}
longitude_deg = {site.longitude_deg}
elevation_m = {site.elevation_m}
[[instrument]]
aperture_m = {telescope.aperture_m}
filters = {{ B = "B", V = "V" }}
transform = {{ Tb_bv = {telescope.tb_bv}, Tv_bv = {telescope.tv_bv} }}
[astap]
program = "/nowhere/astap_cli"
[solve]
star_table = "stars.csv"
[aavso]
vsx_urls = ["{services.vsx_url}"]
vsp_urls = ["{services.vsp_url}"]
min_interval_s = 0
"""


def measured_night(root, seed):
    """Return what B and V of one simulated night came to, run through the road, and the truth."""
    telescope = Telescope(width_px=512, height_px=384)
    field = random_field(seed, telescope=telescope, n_stars=250, n_comps=16)
    truth = simulate_night(
        root, field=field, telescope=telescope, date=NIGHT, site=SITE, seed=seed,
        filters=("B", "V"), n_lights=12, n_bias=5, n_flats=5, exposure_s={"B": 120.0, "V": 60.0},
        cadence_s=300.0, conditions=Conditions(scintillation=True),
    )  # fmt: skip
    write_star_table_csv(field, root / "stars.csv")
    write_aavso_answers(field, root / "aavso")
    with (
        StandInAavso.from_directory(root / "aavso") as services,
        pytest.MonkeyPatch.context() as patch,
    ):
        (root / "wombat.toml").write_text(
            TOML.format(site=SITE, telescope=telescope, services=services)
        )
        patch.setenv("WOMBAT_CONFIG", str(root / "wombat.toml"))
        patch.setenv("DAGSTER_HOME", "")
        observatory = open_observatory()
        with runs.home(root) as instance:
            plan = runs.plan(observatory)
            runs.register(instance, observatory)
            assert [d.error for d in runs.execute(instance, plan) if d.error] == []
    nights = []
    for row in observatory.status.targets():
        assert row.apphot == "validate", f"seed {seed}: {row.apphot}, {row.reason}"
        night = read_product(observatory, "standard_magnitudes", row.observation.key)
        by_time = {round(f.jd_utc, 6): f for f in truth.of_filter(row.observation.filter)}
        true_mag = np.array([by_time[round(jd, 6)].t1_mags[night.band] for jd in night.jd_utc])
        table = read_product(observatory, "photometry_table", row.observation.key)
        colour_term = telescope.passband(row.observation.filter).colour_coefficient
        nights.append((night, true_mag, departures(table, truth, colour_term)))
    return nights


def departures(table, truth, colour_term):
    """Return (true magnitudes, departures) of the comps over the night, both of shape (n_comps,).

    From the magnitudes that the telescope's colour term makes of the true ones; the level is the
    comps' own mean. Nothing of the catalogue is in it. Comps that a neighbour was given are out.
    """
    comps = [i for i in table.ensemble if truth.comps[table.stars[i].auid]["kinds"] != ["crowded"]]
    true = [truth.comps[table.stars[i].auid]["true"] for i in comps]
    mags = np.array([one[table.band] for one in true])
    colours = np.array([one["B"] - one["V"] for one in true])
    source = table.measured.source_sky_adu[:, comps] / table.exposure_s[:, None]
    alone = -2.5 * np.log10(source) - (mags + colour_term * colours)
    return mags, np.nanmean(alone - np.nanmean(alone, axis=1, keepdims=True), axis=0)


@pytest.fixture(scope="module")
def nights(tmp_path_factory):
    return [
        night
        for seed in SEEDS
        for night in measured_night(tmp_path_factory.mktemp(f"seed{seed}"), seed)
    ]


def test_the_bias_of_every_night_is_within_three_zero_point_errors(nights):
    assert len(nights) == 2 * len(SEEDS)
    pulls = [np.nanmean(night.t1_mag - true) / night.zp_err_mag for night, true, _ in nights]
    assert np.abs(pulls).max() < 3
    assert np.sqrt(np.mean(np.square(pulls))) < 1.8  # 10 pulls in 5 fields, 99.9 %


def test_the_scatter_about_the_truth_is_the_random_error(nights):
    """120 points: the sd of pulls is known to 7 %; three times that either way."""
    pulls = []
    for night, true, _ in nights:
        departure = night.t1_mag - true
        freed = np.sqrt(len(true) / (len(true) - 1))  # one mean taken out per night
        pulls.extend(freed * (departure - departure.mean()) / night.t1_random_mag)
    assert len(pulls) == 120
    assert 0.79 < np.std(pulls) < 1.21


def test_two_filters_transformed_every_night(nights):
    assert {night.method for night, _, _ in nights} == {"two-filter"}
    assert all(night.transformed for night, _, _ in nights)


def test_known_stars_are_measured_alike_from_bright_to_faint(nights):
    """Over ten nights of a filter, 3 mmag: scintillation and photons leave 0.3 of the mean."""
    mags = np.concatenate([mags for _, _, (mags, _) in nights])
    departure = np.concatenate([departure for _, _, (_, departure) in nights])
    for bright, faint in ((11.0, 12.5), (12.5, 14.0), (14.0, 15.5)):
        inside = (mags >= bright) & (mags < faint)
        assert inside.sum() > 5
        assert abs(np.mean(departure[inside])) < 0.003
