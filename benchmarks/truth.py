"""Prove the magnitudes on simulated nights whose truth is known: bias, errors, robustness.

    python benchmarks/truth.py --nights 100            fields, catalogue errors, T1 of 10th to 15th
    python benchmarks/truth.py --nights 20 --part c    magnitude; a broken run goes on where it was
    python benchmarks/truth.py --again                 only the magnitudes, from tables kept
    python benchmarks/truth.py --part e --nights 10    standard fields
    python benchmarks/truth.py --part f --nights 6     a comp 0.05 mag off

Every night is another field with another draw of catalogue errors, taken in B and V, with
scintillation, clouds, drift and seeing that wanders, and reduced by the pipeline's own stages in
process (no Dagster) with the coefficients stored in ``wombat.toml``. Figures, each with its bar:

    a  scatter of bright stars over the CCD equation, which is written here once more from the truth
    b  mean departure of known stars from 10th to 15th magnitude
    c  (T1 - truth - the night's offset) / random error
    d  the night's offset / zp_err, and the mean of the offsets
    e  colour terms from nights on standard fields
    f  a comp whose catalogue magnitude is wrong is named, and T1 moves little

Nights lie in ``--folder``: figures as CSV, and of each its measurement tables without its frames.
"""

import argparse
import csv
import datetime as dt
import hashlib
import json
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import wombat_dagster
from wombat_dagster import config
from wombat_dagster.domain import (
    BandMagnitude,
    Coefficient,
    FrameKind,
    FrameSolution,
    Observation,
    PhotometryTable,
    Reduction,
    ServiceUnavailable,
    Shortfall,
    StandardMagnitudes,
)
from wombat_dagster.observatory import Observatory
from wombat_dagster.products import PRODUCTS, read_product
from wombat_dagster.simulate.aavso import StandInAavso
from wombat_dagster.simulate.camera import core_sigma_px, make_detector
from wombat_dagster.simulate.night import (
    Conditions,
    FrameTruth,
    NightTruth,
    expected_electrons,
    read_truth,
    scintillation,
    simulate_night,
)
from wombat_dagster.simulate.sky import (
    UNQUOTED_ERROR_MAG,
    Field,
    LightCurve,
    Shape,
    Telescope,
    random_field,
    write_star_table_csv,
)
from wombat_dagster.simulate.world import SITE, write_aavso_answers
from wombat_dagster.stages import (
    bad_pixels,
    choice,
    masters,
    photometry,
    reduction,
    sequence,
    solving,
    standard,
)
from wombat_dagster.store.frames import write_bytes_atomic

NIGHT = dt.date(2025, 10, 15)
FILTERS = ("B", "V")
N_LIGHTS = 25
CADENCE_S = 126.0
EXPOSURE_V_S = {10: 8.0, 11: 20.0, 12: 40.0, 13: 60.0, 14: 60.0, 15: 60.0}
SKY = Conditions(scintillation=True)
DIGITISATION_ADU2 = 0.083521  # DOMAIN section 4
BRIGHT_MAG = 12.6
MAD_TO_SIGMA = 1.4826
N_COMPS_OF_F = 22  # some 10 of them serve
NAMED_SHARE = 0.95  # of the wrong comps, at least: chance hides some

TOML = """
[site]
latitude_deg = {site.latitude_deg}
longitude_deg = {site.longitude_deg}
elevation_m = {site.elevation_m}
[[instrument]]
filters = {{ B = "B", V = "V" }}
aperture_m = {telescope.aperture_m}
read_noise_e = {telescope.read_noise_e}
transform = {{ Tb_bv = {telescope.tb_bv}, Tv_bv = {telescope.tv_bv} }}
transform_error = {{ Tb_bv = 0.0, Tv_bv = 0.0 }}
[astap]
program = "/nowhere/astap_cli"
[solve]
star_table = "stars.csv"
[aavso]
vsx_urls = ["{vsx}"]
vsp_urls = ["{vsp}"]
min_interval_s = 0
retries = 0
"""


# --------------------------------------------------------------------------------- invented nights


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is varied from night to night; all of it follows from the seed."""

    seed: int
    mag: int  # V of T1 at its brightest
    telescope: Telescope
    field: Field


def plan_of(seed: int, n_comps: int = 15) -> Plan:
    """Return the night of `seed`: every sixth has T1 of the same magnitude, every second varies."""
    mag = 10 + seed % 6
    telescope = Telescope(width_px=448, height_px=448, detector_seed=20251014 + seed)
    rng = np.random.default_rng([seed, 77])
    varies = seed // 6 % 2 == 1
    curve = LightCurve(
        shape=Shape.SINE if varies else Shape.CONSTANT,
        period_d=0.19,
        mag_bright=float(mag),
        amplitude_mag=0.35 if varies else 0.0,
        colours={"B": float(rng.uniform(0.15, 1.2)), "Rc": -0.3, "Ic": -0.6},
    )
    field = random_field(
        seed,
        telescope=telescope,
        ra_deg=float(rng.uniform(320.0, 350.0)),
        dec_deg=float(rng.uniform(25.0, 50.0)),
        n_stars=200,
        n_comps=n_comps,
        light_curve=curve,
    )
    return Plan(seed=seed, mag=mag, telescope=telescope, field=field)


def make_world(root: Path, plan: Plan, *, field: Field | None = None) -> None:
    """Write the night of `plan` and all that its reduction needs under `root`."""
    exposure_s = EXPOSURE_V_S[plan.mag]
    simulate_night(
        root,
        field=plan.field,
        telescope=plan.telescope,
        date=NIGHT,
        site=SITE,
        seed=plan.seed,
        filters=FILTERS,
        n_lights=N_LIGHTS,
        n_bias=7,
        n_flats=7,
        exposure_s={"B": 2 * exposure_s, "V": exposure_s},
        cadence_s=CADENCE_S,
        conditions=SKY,
    )
    write_star_table_csv(plan.field, root / "stars.csv")
    write_aavso_answers(field or plan.field, root / "aavso")


# ------------------------------------------------------------------------------ the pipeline's road


@dataclass(frozen=True, slots=True, kw_only=True)
class Reduced:
    """How far one filter of a night came; `ending` in words where it has no magnitudes."""

    observation: Observation
    table: PhotometryTable | None
    magnitudes: StandardMagnitudes | None
    ending: str = ""


def keep(observatory: Observatory, asset: str, key: str, value: Any) -> None:
    """Write a product and its row, as the pipeline's I/O manager does."""
    product = PRODUCTS[asset]
    data = product.encode(value)
    path = product.path(observatory.layout, key)
    write_bytes_atomic(path, data)
    digest = hashlib.sha256(data).hexdigest()
    observatory.status.record_product(
        key,
        asset,
        path=observatory.layout.relative_to_products(path),
        content_hash=digest,
        version=digest[:16],
        inputs=product.inputs(observatory, key, value),
        status={},
    )


def solve(
    observatory: Observatory, observation: Observation
) -> tuple[Reduction, tuple[FrameSolution, ...]]:
    """Take one observation from raw frames to plate solutions."""
    chosen = choice.choose_calibration(observatory, observation)
    reduced = reduction.reduce_observation(observatory, observation, chosen)
    keep(observatory, "reduced_frames", observation.key, reduced)
    solved = solving.solve_observation(observatory, observation, reduced)
    keep(observatory, "wcs_solutions", observation.key, solved)
    return reduced, solved


def measure(observatory: Observatory, observation: Observation) -> None:
    """Take one observation from raw frames to its measurement table, product by product."""
    key = observation.key
    reduced, solved = solve(observatory, observation)
    variable = sequence.find_variable(observatory, observation)
    comps = sequence.choose_comps(observatory, observation, reduced, solved, variable)
    keep(observatory, "comp_list", key, comps)
    table = photometry.measure_observation(observatory, observation, reduced, solved, comps)
    keep(observatory, "photometry_table", key, table)


def standardise(observatory: Observatory, observation: Observation, ending: str) -> Reduced:
    """Return the magnitudes of one observation from its measurement table, if it has one."""
    key = observation.key
    if ending:
        return Reduced(observation=observation, table=None, magnitudes=None, ending=ending)
    table = read_product(observatory, "photometry_table", key)
    reduced = read_product(observatory, "reduced_frames", key)
    try:
        found = standard.standard_magnitudes_of(observatory, observation, reduced, table)
    except Shortfall as shortfall:
        words = f"{type(shortfall).__name__}: {shortfall}"
        return Reduced(observation=observation, table=table, magnitudes=None, ending=words)
    return Reduced(observation=observation, table=table, magnitudes=found)


def open_night(root: Path) -> Observatory:
    """Return the observatory under `root` with the night scanned and its masters made."""
    observatory = Observatory(config.load(root / "wombat.toml"))
    observatory.scan()
    for kind in (FrameKind.BIAS, FrameKind.FLAT):
        masters.make_masters(observatory, NIGHT, kind)
    bad_pixels.make_bad_pixel_maps(observatory, NIGHT)
    return observatory


def run_road(root: Path, telescope: Telescope) -> list[Reduced]:
    """Reduce the night under `root`: measurements of every filter first, then magnitudes."""
    with StandInAavso.from_directory(root / "aavso") as services:
        text = TOML.format(
            site=SITE, telescope=telescope, vsx=services.vsx_url, vsp=services.vsp_url
        )
        (root / "wombat.toml").write_text(text)
        observatory = open_night(root)
        endings = {}
        for row in observatory.status.targets():
            try:
                measure(observatory, row.observation)
            except (Shortfall, ServiceUnavailable) as ending:
                endings[row.observation.key] = f"{type(ending).__name__}: {ending}"
    (root / "endings.json").write_text(json.dumps(endings))
    return standardise_kept(root)


def standardise_kept(root: Path) -> list[Reduced]:
    """Return the magnitudes of a night from the measurement tables that lie under `root`."""
    observatory = Observatory(config.load(root / "wombat.toml"))
    endings = json.loads((root / "endings.json").read_text())
    return [
        standardise(observatory, row.observation, endings.get(row.observation.key, ""))
        for row in observatory.status.targets()
    ]


# ------------------------------------------------------------------------------------------ figures


def ccd_errors_mag(
    plan: Plan, frame: FrameTruth, table: PhotometryTable, places: Sequence[tuple[float, float]]
) -> np.ndarray:
    """Return the 1-sigma errors of the table's stars on one frame by the CCD equation, from truth.

    Photons of star and sky, dark current, read noise, digitisation, the annulus's error and
    scintillation; nothing of it measured. The flat's own noise is left out.
    """
    telescope, aperture = plan.telescope, table.aperture
    passband = telescope.passband(frame.filter)
    light_e = expected_electrons(
        plan.field,
        passband,
        frame.t1_mags,
        airmass=frame.airmass,
        clouds_mag=frame.clouds_mag,
        exposure_s=frame.exposure_s,
    )
    by_auid = {s.auid: light_e[i] for i, s in enumerate(plan.field.stars) if s.auid is not None}
    star_e = np.array([by_auid[s.auid or plan.field.variable.auid] for s in table.stars])
    response = make_detector(telescope, [frame.filter]).response[frame.filter]
    local = np.array([response[round(y), round(x)] for x, y in places])
    sigma = core_sigma_px(telescope, frame.fwhm_px)
    radius = aperture.radius_px
    inside = 1 - sum(
        share * np.exp(-((radius / width) ** 2) / 2)
        for share, width in (
            (1 - telescope.halo_fraction, sigma),
            (telescope.halo_fraction, sigma * telescope.halo_ratio),
        )
    )
    star_e = star_e * local * inside
    n_px = np.pi * radius**2
    n_sky_px = np.pi * (aperture.sky_outer_px**2 - aperture.sky_inner_px**2)
    per_px = (
        frame.sky_e_px * local
        + telescope.dark_e_s * frame.exposure_s
        + telescope.read_noise_e**2
        + DIGITISATION_ADU2 * telescope.gain_e_adu**2
    )
    twinkling = scintillation(telescope, frame.airmass, frame.exposure_s, SITE.elevation_m)
    variance = star_e + n_px * (1 + n_px / n_sky_px) * per_px + (twinkling * star_e) ** 2
    return 1.0857 * np.sqrt(variance) / star_e


def true_mags(plan: Plan, auid: str | None, band: str, frame: FrameTruth) -> tuple[float, float]:
    """Return a star's magnitude and its B-V in one frame."""
    if auid in (None, plan.field.variable.auid):
        return frame.t1_mags[band], frame.t1_mags["B"] - frame.t1_mags["V"]
    star = next(s for s in plan.field.comps if s.auid == auid)
    return star.mags[band], star.mags["B"] - star.mags["V"]


def figures_of(
    plan: Plan, truth: NightTruth, reduced: Reduced
) -> tuple[dict[str, Any], list[dict[str, Any]], list[dict[str, Any]]]:
    """Return the row of one filter's night, those of its stars, those of its points."""
    filter = reduced.observation.filter
    night = {"seed": plan.seed, "filter": filter, "mag": plan.mag, "ending": reduced.ending}
    table, found = reduced.table, reduced.magnitudes
    if table is None or found is None:
        return night, [], []
    by_time = {round(f.jd_utc, 6): f for f in truth.of_filter(filter)}
    frames = [by_time[round(jd, 6)] for jd in found.jd_utc]
    names = [s.auid or plan.field.variable.auid or "" for s in table.stars]
    names[0] = plan.field.variable.auid or ""
    ccd = np.array(
        [ccd_errors_mag(plan, f, table, [f.stars_xy[name] for name in names]) for f in frames]
    )
    true_mag = np.array([f.t1_mags[found.band] for f in frames])
    departure = found.t1_mag - true_mag
    good = np.isfinite(departure) & ~found.t1_upper_limit
    used = [i for i, name in enumerate(names) if name in found.comp_names]
    zero_plain = np.sqrt((ccd[:, used] ** 2).sum(axis=1)) / len(used)
    zero_best = 1 / np.sqrt((1 / ccd[:, used] ** 2).sum(axis=1))
    slope = -plan.telescope.passband(filter).colour_coefficient
    colours = np.array([[true_mags(plan, n, "V", f)[1] for n in names] for f in frames])
    mags = np.array([[true_mags(plan, n, found.band, f)[0] for n in names] for f in frames])
    with np.errstate(invalid="ignore", divide="ignore"):
        instrumental = -2.5 * np.log10(table.measured.source_sky_adu / table.exposure_s[:, None])
    # The level is the true one of the comps used: what is left is what the measuring adds.
    alone = instrumental - (mags - slope * colours)
    zero_now = np.nanmean(alone[:, used], axis=1, keepdims=True)
    measured_bias = np.nanmean(alone - zero_now, axis=0)
    untransformed = found.t1_instrumental_mag + found.zero_point_mag
    untransformed = untransformed - (mags[:, 0] - slope * colours[:, 0])
    night |= {
        "method": found.method,
        "transformed": found.transformed,
        "n_frames": int(good.sum()),
        "n_comps": len(found.comp_names),
        "offset_mag": float(np.nanmean(departure[good])),
        "zp_err_mag": found.zp_err_mag,
        "random_mag": float(np.nanmedian(found.t1_random_mag)),
        "check_offset_mag": found.check_offset_mag,
        "held": found.held_reason or "",
        "notes": " | ".join(found.notes),
    }
    points = [
        {
            "seed": plan.seed,
            "filter": filter,
            "mag": plan.mag,
            "truth_mag": true_mag[i],
            "departure_mag": departure[i],
            "untransformed_mag": untransformed[i],
            "random_mag": found.t1_random_mag[i],
            "zero_random_mag": found.zero_point_random_mag[i],
            "ccd_mag": ccd[i, 0],
            "ccd_zero_plain_mag": zero_plain[i],
            "ccd_zero_best_mag": zero_best[i],
            "formal_mag": 1.0857
            * table.measured.source_error_adu[i, 0]
            / table.measured.source_sky_adu[i, 0],
            "rejected": found.proposed_rejected[i],
        }
        for i in np.flatnonzero(good)
    ]
    residuals = {one.name: one for one in found.comp_residuals}
    stars = [
        {
            "seed": plan.seed,
            "filter": filter,
            "role": star.role,
            "name": names[i],
            "kinds": " ".join(plan.field.kinds.get(names[i], ())),
            "truth_mag": float(np.mean(mags[:, i])),
            "colour": float(np.mean(colours[:, i])),
            "bias_mag": float(measured_bias[i]),
            "bias_error_mag": float(np.sqrt(np.mean(ccd[:, i] ** 2) / len(frames))),
            "scatter_mag": robust_sd((alone - zero_now)[:, i]),
            "ccd_mag": float(np.sqrt(np.mean(ccd[:, i] ** 2))),
            "formal_mag": float(
                np.nanmedian(
                    1.0857
                    * table.measured.source_error_adu[:, i]
                    / table.measured.source_sky_adu[:, i]
                )
            ),
            "catalogue_departure_mag": (star.catalogue_mag or np.nan) - float(np.mean(mags[:, i])),
            "catalogue_error_mag": star.catalogue_error_mag,
            "residual_mag": residuals[names[i]].residual_mag if names[i] in residuals else None,
            "weight": residuals[names[i]].weight if names[i] in residuals else None,
            "suspect": residuals[names[i]].suspect if names[i] in residuals else None,
        }
        for i, star in enumerate(table.stars)
    ]
    return night, stars, points


def robust_sd(values: np.ndarray) -> float:
    """Return 1.4826 MAD of what is finite, NaN for fewer than 3."""
    finite = values[np.isfinite(values)]
    if len(finite) < 3:
        return float("nan")
    return MAD_TO_SIGMA * float(np.median(np.abs(finite - np.median(finite))))


# ------------------------------------------------------------------------------------- the campaign

Rows = dict[str, list[dict[str, Any]]]


def code_hash() -> str:
    """Return what tells two versions of the pipeline apart."""
    digest = hashlib.sha256()
    package = Path(wombat_dagster.__file__).parent
    for layer in ("science", "stages", "simulate"):
        for file in sorted((package / layer).glob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:8]


def one_night(folder: Path, seed: int, again: bool) -> Rows:
    """Simulate and reduce the night of `seed`, or only standardise it anew."""
    begin = time.process_time()
    plan = plan_of(seed)
    root = folder / f"night{seed:04d}"
    if again:
        reduced = standardise_kept(root)
    else:
        shutil.rmtree(root, ignore_errors=True)
        make_world(root, plan)
        reduced = run_road(root, plan.telescope)
        remove_frames(root)
    truth = read_truth(next((root / "truth").glob("*.json")))
    rows: Rows = {"nights": [], "stars": [], "points": []}
    spent = time.process_time() - begin
    for one in reduced:
        night, stars, points = figures_of(plan, truth, one)
        night |= {"code": code_hash(), "cpu_s": round(spent, 2)}
        rows["nights"].append(night)
        rows["stars"] += stars
        rows["points"] += points
    return rows


def remove_frames(root: Path) -> None:
    """Remove the pixels of a night; its tables stay."""
    shutil.rmtree(root / "data")
    for frame in (root / "products").rglob("*"):
        if frame.is_file() and frame.suffix not in {".json", ".npz"}:
            frame.unlink()


def tried(work: Callable[..., Rows], folder: Path, seed: int, again: bool) -> Rows | str:
    try:
        return work(folder, seed, again)
    except Exception:  # noqa: BLE001 - one broken night is told and does not end the campaign
        return traceback.format_exc()


COLUMNS = {
    "nights": (
        "seed filter mag ending method transformed n_frames n_comps offset_mag zp_err_mag "
        "random_mag check_offset_mag held notes code cpu_s"
    ),
    "stars": (
        "seed filter role name kinds truth_mag colour bias_mag bias_error_mag scatter_mag ccd_mag "
        "formal_mag catalogue_departure_mag catalogue_error_mag residual_mag weight suspect"
    ),
    "points": (
        "seed filter mag truth_mag departure_mag untransformed_mag random_mag zero_random_mag "
        "ccd_mag ccd_zero_plain_mag ccd_zero_best_mag formal_mag rejected"
    ),
}


def append(folder: Path, rows: Rows) -> None:
    """Add a night's rows; those of `nights` last, because they say that it is done."""
    for name in ("points", "stars", "nights"):
        path = folder / f"{name}.csv"
        is_new = not path.exists()
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS[name].split())
            if is_new:
                writer.writeheader()
            writer.writerows(rows[name])


def read(folder: Path, name: str) -> list[dict[str, str]]:
    path = folder / f"{name}.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def campaign(folder: Path, seeds: Iterable[int], *, again: bool, processes: int) -> None:
    """Run the nights of `seeds` that are not in the CSVs yet."""
    folder.mkdir(parents=True, exist_ok=True)
    if again:
        for name in COLUMNS:
            (folder / f"{name}.csv").unlink(missing_ok=True)
    done = {int(row["seed"]) for row in read(folder, "nights")}
    wanted = [seed for seed in seeds if seed not in done]
    if again:
        wanted = [seed for seed in wanted if (folder / f"night{seed:04d}/endings.json").exists()]
    with ProcessPoolExecutor(processes) as pool:
        work = {pool.submit(tried, one_night, folder, seed, again): seed for seed in wanted}
        for finished in as_completed(work):
            rows = finished.result()
            if isinstance(rows, str):
                print(f"night {work[finished]} failed:\n{rows}", file=sys.stderr)
                continue
            append(folder, rows)
            if not again:
                cpu_s = rows["nights"][0]["cpu_s"]
                print(f"night {work[finished]}: {cpu_s:.1f} s cpu", flush=True)


# ------------------------------------------------------------------------------- what it amounts to


def column(rows: Sequence[Mapping[str, str]], name: str) -> np.ndarray:
    return np.array([float(row[name] or "nan") for row in rows])


def verdict(passed: bool) -> str:
    return "ok" if passed else "NOT MET"


def with_error(values: np.ndarray) -> tuple[float, float]:
    """Return the mean and its error."""
    return float(np.mean(values)), float(np.std(values, ddof=1) / np.sqrt(len(values)))


def report_a(folder: Path) -> None:
    points = read(folder, "points")
    """Print a; the colour term makes a stated error larger, by 7 % in V and 10 % in B."""
    print("\na  bright-star scatter over the CCD equation (bar 1.05)")
    for filter in FILTERS:
        for name in ("ccd_zero_plain_mag", "ccd_zero_best_mag"):
            normed = []
            for group in by_night(points, filter):
                if float(group[0]["truth_mag"]) > BRIGHT_MAG or len(group) < 10:
                    continue
                value = column(group, "untransformed_mag")
                expected = np.hypot(column(group, "ccd_mag"), column(group, name))
                freed = np.sqrt(len(value) / (len(value) - 1))
                normed.extend(freed * (value - np.mean(value)) / expected)
            if normed:
                ratio = robust_sd(np.array(normed))
                print(
                    f"   {filter} {name[9:13]} ensemble: robust {ratio:.3f}, rms "
                    f"{np.sqrt(np.mean(np.square(normed))):.3f} over {len(normed)} points  "
                    f"{verdict(ratio <= 1.05)}"
                )
    stated = np.sqrt(
        np.clip(column(points, "random_mag") ** 2 - column(points, "zero_random_mag") ** 2, 0, None)
    )
    ratio = stated / column(points, "ccd_mag")
    for mag in sorted({int(row["mag"]) for row in points}):
        here = np.array([int(row["mag"]) == mag for row in points])
        print(
            f"   T1's stated error, with the colour term's, over the CCD equation, {mag}: "
            f"{np.median(ratio[here]):.3f}"
        )


def report_b(folder: Path) -> None:
    stars = [row for row in read(folder, "stars") if row["role"] != "T1"]
    print("\nb  mean departure of known constant stars (bar 3 mmag from 10 to 15)")
    crowded = [row for row in stars if row["kinds"] == "crowded"]
    stars = [row for row in stars if row["kinds"] != "crowded"]
    for filter in FILTERS:
        mine = [row for row in stars if row["filter"] == filter]
        mags, bias = column(mine, "truth_mag"), 1000 * column(mine, "bias_mag")
        error = 1000 * column(mine, "bias_error_mag")
        for low in range(9, 17):
            here = (mags >= low) & (mags < low + 1) & np.isfinite(bias)
            if here.sum() >= 5:
                weights = 1 / error[here] ** 2
                mean = float(np.average(bias[here], weights=weights))
                of_mean = robust_sd(bias[here]) / np.sqrt(here.sum())
                judged = verdict(abs(mean) < 3) if 10 <= low < 15 else "(beyond the bar's range)"
                print(
                    f"   {filter} {low}-{low + 1}: {mean:+6.2f} +- {of_mean:.2f} mmag, {here.sum()}"
                    f" stars, median {np.median(bias[here]):+.2f}  {judged}"
                )
    if crowded:
        print(
            f"   apart: {len(crowded)} comps with a blended neighbour that was not found out, "
            f"median {1000 * np.median(column(crowded, 'bias_mag')):+.1f} mmag"
        )
    t1 = [row for row in read(folder, "stars") if row["role"] == "T1"]
    for filter in FILTERS:
        for mag in sorted({int(row["mag"]) for row in read(folder, "nights")}):
            seeds = {r["seed"] for r in read(folder, "nights") if int(r["mag"]) == mag}
            mine = [row for row in t1 if row["filter"] == filter and row["seed"] in seeds]
            bias = 1000 * column(mine, "bias_mag")
            if len(bias) >= 3:
                mean, error = with_error(bias)
                print(f"   T1 {filter} {mag}: {mean:+.2f} +- {error:.2f} mmag, {len(bias)} nights")


def by_night(points: Sequence[Mapping[str, str]], filter: str) -> Iterable[list[Mapping[str, str]]]:
    groups: dict[str, list[Mapping[str, str]]] = {}
    for row in points:
        if row["filter"] == filter:
            groups.setdefault(row["seed"], []).append(row)
    return groups.values()


def report_c(folder: Path) -> None:
    points = read(folder, "points")
    print("\nc  (T1 - truth - night's offset) / random (bar 0.85 to 1.15)")
    every: list[float] = []
    for filter in FILTERS:
        mine: dict[int, list[float]] = {}
        for group in by_night(points, filter):
            value, error = column(group, "departure_mag"), column(group, "random_mag")
            freed = np.sqrt(len(value) / max(len(value) - 1, 1))
            level = np.average(value, weights=1 / error**2)
            mine.setdefault(int(group[0]["mag"]), []).extend(freed * (value - level) / error)
        for mag, pulls in sorted(mine.items()):
            print(f"   {filter} T1 of {mag} mag: {robust_sd(np.array(pulls)):.3f} ({len(pulls)})")
            every.extend(pulls)
    if every:
        sd = robust_sd(np.array(every))
        beyond = float(np.mean(np.abs(every) > 3))
        print(
            f"   all: robust sd {sd:.3f}, plain {np.std(every):.3f}, beyond 3 sigma "
            f"{100 * beyond:.2f} % of {len(every)} points of "
            f"{len({row['seed'] for row in points})} nights  {verdict(0.85 <= sd <= 1.15)}"
        )


def drawn_mag(comps: Sequence[Mapping[str, str]]) -> float:
    """Return the mean of the catalogue errors that a night's comps were given, as they count."""
    return float(
        np.average(column(comps, "catalogue_departure_mag"), weights=column(comps, "weight"))
    )


def report_d(folder: Path) -> None:
    nights = [row for row in read(folder, "nights") if not row["ending"]]
    print("\nd  night's offset / zp_err (bar 0.85 to 1.15), mean offset (bar 3 mmag)")
    every = []
    stars: dict[tuple[str, str], list[Mapping[str, str]]] = {}
    for row in read(folder, "stars"):
        if row["weight"]:
            stars.setdefault((row["seed"], row["filter"]), []).append(row)
    for filter in FILTERS:
        mine = [row for row in nights if row["filter"] == filter]
        if len(mine) < 3:
            continue
        offset, error = column(mine, "offset_mag"), column(mine, "zp_err_mag")
        noise = column(mine, "random_mag") / np.sqrt(column(mine, "n_frames"))
        pulls = offset / error
        every.extend(pulls)
        mean, of_mean = with_error(1000 * offset)
        rms = float(np.sqrt(np.mean(pulls**2)))
        n = len(pulls)
        print(
            f"   {filter}: pull rms {rms:.3f} +- {rms / np.sqrt(2 * n):.3f}, robust "
            f"{robust_sd(pulls):.3f}, mean {np.mean(pulls):+.2f}, with the noise of the mean "
            f"{np.sqrt(np.mean(offset**2 / (error**2 + noise**2))):.3f}, {n} nights, median "
            f"zp_err {1000 * np.median(error):.1f} mmag  {verdict(0.85 <= rms <= 1.15)}"
        )
        print(f"      mean offset {mean:+.2f} +- {of_mean:.2f} mmag  {verdict(abs(mean) < 3)}")
        drawn = np.array([drawn_mag(stars[row["seed"], filter]) for row in mine])
        left, of_left = with_error(1000 * (offset - drawn))
        print(
            f"      without the catalogue errors that were drawn: {left:+.2f} +- {of_left:.2f} "
            f"mmag  {verdict(abs(left) < 3)}"
        )
        for mag in range(10, 16):
            here = np.array([int(row["mag"]) == mag for row in mine])
            if here.sum() >= 3:
                mean, of_mean = with_error(1000 * (offset - drawn)[here])
                print(
                    f"      T1 of {mag}: {mean:+.2f} +- {of_mean:.2f} mmag without them, pull rms "
                    f"with them {np.sqrt(np.mean(pulls[here] ** 2)):.2f} ({here.sum()})"
                )
    if every:
        rms = float(np.sqrt(np.mean(np.square(every))))
        print(f"   both: pull rms {rms:.3f}, {len(every)} nights of a filter")
    methods = {(row["method"], row["transformed"]) for row in nights}
    print(f"   methods: {sorted(methods)}; held: {sum(bool(r['held']) for r in nights)}")
    without = [row for row in read(folder, "nights") if row["ending"]]
    for row in without:
        print(f"   without magnitudes: night {row['seed']} {row['filter']}: {row['ending']}")


# ------------------------------------------------------------------------------------ a wrong comp


def quoted(field: Field, seed: int, error_mag: float) -> Field:
    """Return `field` with a catalogue whose errors are all `error_mag`, and drawn from it."""
    rng = np.random.default_rng([seed, 5])
    comps = tuple(
        replace(
            comp,
            catalogue={
                band: BandMagnitude(
                    mag=round(comp.mags[band] + error_mag * float(rng.standard_normal()), 3),
                    error_mag=error_mag,
                )
                for band in comp.catalogue
            },
        )
        for comp in field.comps
    )
    return replace(field, comps=comps)


def redrawn(field: Field, seed: int, draw: int) -> Field:
    """Return `field` with another draw of its catalogue's errors, each by its own quoted error."""
    rng = np.random.default_rng([seed, 6, draw])
    comps = []
    for comp in field.comps:
        catalogue = {}
        for band, known in comp.catalogue.items():
            sigma = UNQUOTED_ERROR_MAG if known.error_mag is None else known.error_mag
            off = sigma * float(rng.standard_normal())
            catalogue[band] = replace(known, mag=round(comp.mags[band] + off, 3))
        comps.append(replace(comp, catalogue=catalogue))
    return replace(field, comps=tuple(comps))


def redraw_night(folder: Path, seed: int, n_draws: int) -> list[tuple[str, float, float]]:
    """Return (filter, offset, zp_err) of a kept night for `n_draws` draws of catalogue errors."""
    plan, kept, root = plan_of(seed), folder / f"night{seed:04d}", folder / f"redraw{seed:04d}"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(kept, root)
    truth = read_truth(next((root / "truth").glob("*.json")))
    found = []
    for draw in range(n_draws):
        change_tables(root, redrawn(plan.field, seed, draw))
        for one in standardise_kept(root):
            night, _, _ = figures_of(plan, truth, one)
            if not night["ending"]:
                found.append((night["filter"], night["offset_mag"], night["zp_err_mag"]))
    shutil.rmtree(root)
    return found


def report_redraws(folder: Path, n_draws: int, processes: int) -> None:
    """Print d once more for the kept nights, with `n_draws` other catalogues for each."""
    nights = [row for row in read(folder, "nights") if not row["ending"]]
    seeds = sorted({int(row["seed"]) for row in nights})
    with ProcessPoolExecutor(processes) as workers:
        work = workers.map(redraw_night, [folder] * len(seeds), seeds, [n_draws] * len(seeds))
        found = [one for night in work for one in night]
    print(f"\nd  with {n_draws} other draws of catalogue errors for each of {len(seeds)} nights")
    for filter in FILTERS:
        offset, error = np.array([(o, e) for f, o, e in found if f == filter]).T
        pull = float(np.sqrt(np.mean((offset / error) ** 2)))
        mean, of_mean = with_error(1000 * offset)
        print(
            f"   {filter}: pull rms {pull:.3f} +- {pull / np.sqrt(2 * len(offset)):.3f}, mean "
            f"offset {mean:+.2f} +- {of_mean:.2f} mmag, {len(offset)} draws  "
            f"{verdict(0.85 <= pull <= 1.15 and abs(mean) < 3)}"
        )


def spoiled(field: Field, auid: str, band: str, by_mag: float) -> Field:
    """Return `field` with one catalogue magnitude exactly `by_mag` from the truth."""
    comps = []
    for comp in field.comps:
        if comp.auid == auid:
            known = comp.catalogue[band]
            wrong = replace(known, mag=round(comp.mags[band] + by_mag, 3))
            comps.append(replace(comp, catalogue={**comp.catalogue, band: wrong}))
        else:
            comps.append(comp)
    return replace(field, comps=tuple(comps))


def wrong_comp_night(
    folder: Path, seed: int, error_mag: float, by_mag: float
) -> list[dict[str, Any]]:
    """Reduce a night once per comp with that comp's V wrong, on the same frames; return rows."""
    plan = plan_of(seed, N_COMPS_OF_F)
    root = folder / f"wrong{seed:04d}"
    shutil.rmtree(root, ignore_errors=True)
    right = quoted(plan.field, seed, error_mag)
    make_world(root, plan, field=right)
    reduced = run_road(root, plan.telescope)
    found = next(one for one in reduced if one.observation.filter == "V")
    assert found.magnitudes is not None, found.ending
    rows = []
    for name in found.magnitudes.comp_names:
        true = magnitudes_with(root, spoiled(right, name, "V", 0.0))
        for sign in (1, -1):
            again = magnitudes_with(root, spoiled(right, name, "V", sign * by_mag))
            moved = np.nanmedian(again.t1_mag - true.t1_mag)
            named = [note for note in again.notes if name in note and "comp" in note]
            suspects = [o.name for o in again.comp_residuals if o.suspect]
            rows.append(
                {
                    "seed": seed,
                    "comp": name,
                    "by_mag": sign * by_mag,
                    "moved_mmag": 1000 * float(moved),
                    "named": bool(named) or name in suspects,
                    "others": [s for s in suspects if s != name],
                    "n_comps": len(found.magnitudes.comp_names),
                }
            )
    shutil.rmtree(root)
    return rows


def magnitudes_with(root: Path, field: Field) -> StandardMagnitudes:
    """Return V's magnitudes of the night under `root` with the catalogue of `field`."""
    change_tables(root, field)
    found = next(one for one in standardise_kept(root) if one.observation.filter == "V")
    assert found.magnitudes is not None, found.ending
    return found.magnitudes


def change_tables(root: Path, field: Field) -> None:
    """Give the stars of the measurement tables under `root` the catalogue magnitudes of `field`."""
    observatory = Observatory(config.load(root / "wombat.toml"))
    catalogue = {comp.auid: comp.catalogue for comp in field.comps}
    for row in observatory.status.targets():
        table = read_product(observatory, "photometry_table", row.observation.key)
        stars = tuple(
            star
            if star.role == "T1" or table.comp_band not in catalogue[star.auid]
            else replace(star, catalogue_mag=catalogue[star.auid][table.comp_band].mag)
            for star in table.stars
        )
        keep(observatory, "photometry_table", row.observation.key, replace(table, stars=stars))


def report_f(folder: Path, seeds: Iterable[int], error_mag: float, by_mag: float = 0.05) -> None:
    rows: list[dict[str, Any]] = []
    for seed in seeds:
        rows += wrong_comp_night(folder, seed, error_mag, by_mag)
    moved = np.abs([row["moved_mmag"] for row in rows])
    named = np.array([row["named"] for row in rows])
    others = sum(bool(row["others"]) for row in rows)
    print(
        f"\nf  one comp of {min(r['n_comps'] for r in rows)} to {max(r['n_comps'] for r in rows)} "
        f"wrong by {by_mag:g} mag in V, catalogue errors {error_mag:g}: T1 moves by median "
        f"{np.median(moved):.2f}, 95 % {np.percentile(moved, 95):.2f}, most {moved.max():.2f} mmag "
        f"(bar 5); named in {named.sum()} of {len(rows)} runs, another one suspected in {others}  "
        f"{verdict(named.mean() >= NAMED_SHARE and moved.max() < 5)}"
    )


# ------------------------------------------------------------------------------------- colour terms

STANDARD_ERROR_MAG = 0.01
STANDARD_FILTERS = ("B", "V", "Rc", "Ic")
STANDARD_EXPOSURE_S = {"B": 60.0, "V": 30.0, "Rc": 30.0, "Ic": 30.0}
N_STANDARD_LIGHTS = 5


def standard_night(folder: Path, seed: int) -> list[Coefficient]:
    """Return the coefficients that one night on an invented standard field gives."""
    from wombat_dagster.stages.transform import fit_standard_field

    telescope = Telescope(width_px=448, height_px=448, detector_seed=30000000 + seed)
    rng = np.random.default_rng([seed, 78])
    field = random_field(
        5000 + seed,
        telescope=telescope,
        ra_deg=float(rng.uniform(320.0, 350.0)),
        dec_deg=float(rng.uniform(25.0, 50.0)),
        n_stars=150,
        n_comps=30,
        light_curve=LightCurve(shape=Shape.CONSTANT, mag_bright=12.0, amplitude_mag=0.5),
    )
    root = folder / f"standard{seed:04d}"
    shutil.rmtree(root, ignore_errors=True)
    simulate_night(
        root,
        field=field,
        telescope=telescope,
        date=NIGHT,
        site=SITE,
        seed=seed,
        filters=STANDARD_FILTERS,
        n_lights=N_STANDARD_LIGHTS,
        exposure_s=STANDARD_EXPOSURE_S,
        conditions=SKY,
    )
    write_star_table_csv(field, root / "stars.csv")
    nowhere = "http://127.0.0.1:9"
    (root / "wombat.toml").write_text(
        TOML.format(site=SITE, telescope=telescope, vsx=nowhere, vsp=nowhere)
    )
    write_standards(quoted(field, seed, STANDARD_ERROR_MAG), root / "standards.csv")
    observatory = open_night(root)
    for row in observatory.status.targets():
        solve(observatory, row.observation)
    found = fit_standard_field(observatory, NIGHT, field.name, standards=root / "standards.csv")
    shutil.rmtree(root)
    # Every night is of another date and field, as far as the pooling is concerned.
    date = NIGHT + dt.timedelta(days=seed)
    return [replace(one, date=date, source=f"{one.source} {seed}") for one in found.coefficients]


def write_standards(field: Field, path: Path) -> None:
    """Write the comps of `field` as a table of standard stars with V, B, Rc and Ic."""
    lines = ["name,ra_deg,dec_deg,V,e_V,B,e_B,Rc,e_Rc,Ic,e_Ic"]
    for comp in field.comps:
        if {"V", "B", "Rc", "Ic"} <= set(comp.catalogue):
            known = [comp.catalogue[band] for band in ("V", "B", "Rc", "Ic")]
            cells = ",".join(f"{one.mag:.3f},{one.error_mag:.3f}" for one in known)
            lines.append(f"{comp.auid},{comp.ra_deg:.6f},{comp.dec_deg:.6f},{cells}")
    path.write_text("\n".join(lines) + "\n")


def report_e(folder: Path, seeds: Sequence[int], processes: int) -> None:
    from wombat_dagster.science.transform import pool

    with ProcessPoolExecutor(processes) as workers:
        nights = list(workers.map(standard_night, [folder] * len(seeds), seeds))
    true = Telescope().transform_coefficients
    print(f"\ne  injected colour terms from {len(nights)} nights (bar 0.01)")
    for name, value in true.items():
        fits = [one for night in nights for one in night if one.name == name]
        if not fits:
            print(f"   {name}: no night gives it  NOT MET")
            continue
        pooled = pool(fits).coefficient
        off = pooled.value - value
        pulls = np.array([(one.value - value) / (one.error or np.nan) for one in fits])
        error = f"{pooled.error:.4f}" if pooled.error else "not known"
        print(
            f"   {name}: {pooled.value:+.4f} +- {error}, true {value:+.4f}, off {off:+.4f}; "
            f"{len(fits)} nights, pull rms {np.sqrt(np.nanmean(pulls**2)):.2f}, single nights off "
            f"by at most {max(abs(one.value - value) for one in fits):.4f}  "
            f"{verdict(abs(off) < 0.01)}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nights", type=int, default=20)
    parser.add_argument("--first", type=int, default=0, help="seed of the first night")
    parser.add_argument("--part", default="abcd", help="letters of the figures wanted")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "wombat-truth")
    parser.add_argument("--again", action="store_true", help="magnitudes anew from kept tables")
    parser.add_argument(
        "--redraws", type=int, default=0, help="more catalogues for each night of d"
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--catalogue-error", type=float, default=0.01, help="mag, of part f")
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.nights)
    if set(options.part) & set("abcd"):
        campaign(options.folder, seeds, again=options.again, processes=options.processes)
        codes = {row["code"] for row in read(options.folder, "nights")}
        if len(codes) > 1:
            print(f"nights of {len(codes)} versions of the code: {', '.join(sorted(codes))}")
    for letter, report in (("a", report_a), ("b", report_b), ("c", report_c), ("d", report_d)):
        if letter in options.part:
            report(options.folder)
    if options.redraws:
        report_redraws(options.folder, options.redraws, options.processes)
    if "e" in options.part:
        report_e(options.folder, seeds, options.processes)
    if "f" in options.part:
        report_f(options.folder, seeds, options.catalogue_error)


if __name__ == "__main__":
    main()
