"""Time per frame and peak memory of a night, beside `cp` of the same bytes.

    make bench                     100 and 25 frames of 2048x2048, about 30 comparison stars
    python benchmarks/night.py --frames 40 10 --size 1024

"stages" is from the scan and the masters to plate solutions without Dagster, frames kept or not;
the other lines are `wombat run` to magnitudes. "cpu" is the processors' time, which other programs
on the machine disturb less. Machines are noisy: compare only figures of one run. Memory must not
grow with the frames.
"""

import argparse
import datetime as dt
import multiprocessing
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


STAGES = """
import sys
from pathlib import Path
from wombat_dagster.domain import FrameKind
from wombat_dagster.observatory import open_observatory
from wombat_dagster.stages import choice, masters, reduction, solving

observatory = open_observatory(Path(sys.argv[1]))
observatory.scan()
observation = observatory.status.targets()[0].observation
for kind in (FrameKind.BIAS, FrameKind.FLAT):
    masters.make_masters(observatory, observation.date, kind)
chosen = choice.choose_calibration(observatory, observation)
reduced = reduction.reduce_observation(observatory, observation, chosen)
solved = solving.solve_observation(observatory, observation, reduced)
assert all(one.solution for one in solved)
"""


def timed(command: list[str]) -> tuple[float, float, float]:
    """Run a command; return its seconds, the processors' seconds and its peak memory in MiB."""
    begin = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        sys.exit(f"failed: {' '.join(command)}")
    unit = 1024.0 if sys.platform != "darwin" else 1024.0**2
    seconds = time.perf_counter() - begin
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / unit


def start_anew(root: Path) -> None:
    for made in ("products", "cache"):
        shutil.rmtree(root / made, ignore_errors=True)
    for old in [*root.glob("wombatpipeline.db*"), *root.glob("data/*/m*.fits")]:
        old.unlink()


def run_stages(root: Path, *, keep: bool) -> tuple[float, float, float]:
    """Go from raw frames to plate solutions without Dagster, nor any AAVSO service."""
    start_anew(root)
    text = TOML.format(mode="auto", vsx="http://127.0.0.1:9", vsp="http://127.0.0.1:9")
    (root / "wombat.toml").write_text(
        f"{text}\n[calibration]\nkeep_reduced = {str(keep).lower()}\n"
    )
    return timed([sys.executable, "-c", STAGES, str(root / "wombat.toml")])


def run_night(root: Path, mode: str) -> tuple[float, float, float, int]:
    start_anew(root)
    with StandInAavso.from_directory(root / "aavso") as services:
        text = TOML.format(mode=mode, vsx=services.vsx_url, vsp=services.vsp_url)
        (root / "wombat.toml").write_text(text)
        figures = timed(
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
    return *figures, len(photometry_from_bytes(tables[0].read_bytes()).stars)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, nargs="+", default=[25, 100])
    parser.add_argument("--size", type=int, default=2048)
    options = parser.parse_args()
    print(f"{'frames':>7} {'':>20} {'s/frame':>8} {'cpu':>7} {'peak MiB':>9} {'stars':>6}")

    def show(n_frames: int, name: str, figures: tuple[float, float, float], stars="") -> None:
        seconds, cpu, mib = figures
        print(
            f"{n_frames:7d} {name:>20} {seconds / n_frames:8.3f} {cpu / n_frames:7.3f}"
            f" {mib:9.0f} {stars:>6}",
            flush=True,
        )

    for n_frames in options.frames:
        with tempfile.TemporaryDirectory(prefix="wombat-bench-") as folder:
            root = Path(folder)
            # A process of its own: children inherit the highest memory of whoever starts them.
            work = multiprocessing.get_context("spawn").Process(
                target=simulate, args=(root, n_frames, options.size)
            )
            work.start()
            work.join()
            copy = ["cp", "-r", str(root / "data"), str(root / "copied")]
            show(n_frames, "cp", timed(copy))
            shutil.rmtree(root / "copied")
            show(n_frames, "stages, kept", run_stages(root, keep=True))
            show(n_frames, "stages, not kept", run_stages(root, keep=False))
            for mode in ("auto", "every-frame"):
                *figures, n_stars = run_night(root, mode)
                show(n_frames, mode, tuple(figures), n_stars)


if __name__ == "__main__":
    main()
