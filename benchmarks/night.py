"""Time per frame and peak memory of a night through `wombat run`, beside `cp` of the same bytes.

    make bench                     100 and 25 frames of 2048x2048, about 30 comparison stars
    python benchmarks/night.py --frames 40 10 --size 1024

Machines are noisy: compare only figures of one run. Memory must not grow with the frames.
"""

import argparse
import datetime as dt
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from wombat_dagster.domain import Site
from wombat_dagster.simulate.aavso import StandInAavso
from wombat_dagster.simulate.night import simulate_night
from wombat_dagster.simulate.sky import Telescope, random_field, write_star_table_csv
from wombat_dagster.simulate.world import write_aavso_answers
from wombat_dagster.store.tables import photometry_from_bytes

SITE = Site(latitude_deg=41.31, longitude_deg=-72.92, elevation_m=50.0)
TOML = """
[site]
latitude_deg = 41.31
longitude_deg = -72.92
[solve]
star_table = "stars.csv"
mode = "{mode}"
[aavso]
vsx_urls = ["{vsx}"]
vsp_urls = ["{vsp}"]
min_interval_s = 0
"""


def simulate(root: Path, n_frames: int, size_px: int) -> None:
    telescope = Telescope(width_px=size_px, height_px=size_px)
    field = random_field(7, telescope=telescope, n_stars=1500, n_comps=40)
    simulate_night(
        root,
        field=field,
        telescope=telescope,
        date=dt.date(2025, 10, 15),
        site=SITE,
        seed=7,
        filters=("V",),
        n_lights=n_frames,
        n_bias=5,
        n_flats=5,
        exposure_s=30.0,
        cadence_s=60.0,
    )
    write_star_table_csv(field, root / "stars.csv")
    write_aavso_answers(field, root / "aavso")


def timed(command: list[str]) -> tuple[float, float]:
    """Run a command; return its seconds and its peak memory in MiB."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"failed: {' '.join(command)}")
    unit = 1024.0 if sys.platform != "darwin" else 1024.0**2
    return time.perf_counter() - begin, usage.ru_maxrss / unit


def run_night(root: Path, mode: str) -> tuple[float, float, int]:
    for made in ("products", "cache"):
        shutil.rmtree(root / made, ignore_errors=True)
    for old in [*root.glob("wombatpipeline.db*"), *root.glob("data/*/m*.fits")]:
        old.unlink()
    with StandInAavso.from_directory(root / "aavso") as services:
        text = TOML.format(mode=mode, vsx=services.vsx_url, vsp=services.vsp_url)
        (root / "wombat.toml").write_text(text)
        seconds, mib = timed(
            [
                sys.executable,
                "-m",
                "wombat_dagster.cli",
                "--config",
                str(root / "wombat.toml"),
                "run",
            ]
        )
    tables = list(root.glob("products/*/*/*/photometry.npz"))
    if len(tables) != 1:
        sys.exit("the night did not reach its measurement table")
    return seconds, mib, len(photometry_from_bytes(tables[0].read_bytes()).stars)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, nargs="+", default=[25, 100])
    parser.add_argument("--size", type=int, default=2048)
    options = parser.parse_args()
    print(f"{'frames':>7} {'stars':>6} {'solve':>12} {'s/frame':>8} {'cp':>7} {'peak MiB':>9}")
    for n_frames in options.frames:
        with tempfile.TemporaryDirectory(prefix="wombat-bench-") as folder:
            root = Path(folder)
            simulate(root, n_frames, options.size)
            copied, _ = timed(["cp", "-r", str(root / "data"), str(root / "copied")])
            for mode in ("auto", "every-frame"):
                seconds, mib, n_stars = run_night(root, mode)
                print(
                    f"{n_frames:7d} {n_stars:6d} {mode:>12} {seconds / n_frames:8.3f}"
                    f" {copied / n_frames:7.4f} {mib:9.0f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
