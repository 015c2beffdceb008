"""What `wombat backfill` costs beside the work itself: per observation, with many and with few.

    python benchmarks/backfill.py                    1,000 observations of 3 frames of 320x256
    python benchmarks/backfill.py --observations 100
    python benchmarks/backfill.py --night 100        one observation of 100 frames of 2048x2048
    python benchmarks/backfill.py --run --observations 50      the same work by `wombat run`
    python benchmarks/backfill.py --daemon --observations 50   the same work by `wombat up`

The observations are many targets in some nights, all of the same three simulated frames, so that
every stage runs to the light curve. Inside the workers the time in the stages' own functions (what
`conclude` calls: reading frames, solving, measuring, drawing) is added up by `sitecustomize`; what
is left of the workers' time from the first task to the last is orchestration: Dagster, its event
log, our status database, products written and read, tasks handed out. Observation by observation
the waiting for another worker's lock counts, too. Of `wombat up` it is the processor time of all
its processes, from the start, that counts, and the time until the last observation is done.
"""

import argparse
import contextlib
import datetime as dt
import json
import os
import shutil
import socket
import sqlite3
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

SITE = Site(latitude_deg=41.31, longitude_deg=-72.92, elevation_m=50.0)
DATE = dt.date(2025, 10, 15)
A_NIGHT = 100  # targets
TOML = """
[site]
latitude_deg = 41.31
longitude_deg = -72.92
elevation_m = 50.0
[astap]
program = "/nowhere/astap_cli"
[solve]
star_table = "stars.csv"
solve_field = "/nowhere/solve-field"
[aavso]
vsx_urls = ["{vsx}"]
vsp_urls = ["{vsp}"]
min_interval_s = 0
[sensors]
interval_s = 5
quiet_s = 5.0
[[target]]
directory = {targets}
vsx = "SV Wom"
"""
TIMED = """
import atexit, json, os, sys, time
words = " ".join(sys.orig_argv)
asked = os.environ.get("WOMBAT_TIMED")
if asked == "all" or "wombat_dagster.workers" in words or "wombat_dagster.launcher" in words:
    from wombat_dagster.assets import conclude as module
    real, sums = module.conclude, {"stages": {}, "tasks": [], "cpu": 0.0}

    def conclude(context, observatory, make, describe):
        def timed():
            begin, cpu = time.perf_counter(), time.process_time()
            try:
                return make()
            finally:
                name = context.asset_key.to_user_string()
                took = time.perf_counter() - begin
                if "__" in context.partition_key:
                    sums["cpu"] += time.process_time() - cpu
                sums["stages"][name] = sums["stages"].get(name, 0.0) + took
                if "__" in context.partition_key:
                    sums["observing"] = sums.get("observing", 0.0) + took
        return real(context, observatory, timed, describe)

    module.conclude = conclude
    from wombat_dagster import runs
    do = runs.execute_task

    def execute_task(instance, task, *args, **kwargs):
        begin, cpu, ours = time.perf_counter(), time.process_time(), sums["cpu"]
        done = do(instance, task, *args, **kwargs)
        if "__" in task.key:
            used = time.process_time() - cpu
            sums["tasks"].append([begin, time.perf_counter(), used, used - sums["cpu"] + ours])
        return done

    runs.execute_task = execute_task
    path = os.path.join(os.environ["WOMBAT_TIMES"], f"{os.getpid()}.json")
    atexit.register(lambda: open(path, "w").write(json.dumps(sums)))
"""


def world(root: Path, *, n_observations: int, n_frames: int, size_px: tuple[int, int]) -> None:
    """Write nights of many targets that share their frames."""
    telescope = Telescope(width_px=size_px[0], height_px=size_px[1])
    few = size_px[0] < 1000
    field = random_field(
        7, telescope=telescope, n_stars=40 if few else 1500, n_comps=12 if few else 40
    )
    simulate_night(
        root / "one", field=field, telescope=telescope, date=DATE, site=SITE, seed=7,
        filters=("V",), n_lights=n_frames, n_bias=5, n_flats=5, exposure_s=30.0, cadence_s=60.0,
    )  # fmt: skip
    write_star_table_csv(field, root / "stars.csv")
    write_aavso_answers(field, root / "aavso")
    (night,) = (root / "one" / "data").iterdir()
    (lights,) = (night / "Light").iterdir()
    for number in range(n_observations):
        day = DATE + dt.timedelta(days=number // A_NIGHT)
        here = root / "data" / f"{day:%Y%m%d}"
        if number % A_NIGHT == 0:
            for kind in ("Bias", "Flat"):
                shutil.copytree(night / kind, here / kind, copy_function=os.link)
        shutil.copytree(lights, here / "Light" / f"T{number % A_NIGHT:03d}", copy_function=os.link)


def prepare(root: Path, services: StandInAavso) -> dict[str, str]:
    """Write what is needed beside the frames; return the environment of the command."""
    targets = [f"T{i:03d}" for i in range(A_NIGHT)]
    (root / "wombat.toml").write_text(
        TOML.format(vsx=services.vsx_url, vsp=services.vsp_url, targets=json.dumps(targets))
    )
    for name in ("site", "times"):
        (root / name).mkdir()
    (root / "site" / "sitecustomize.py").write_text(TIMED)
    return dict(
        os.environ,
        PYTHONPATH=f"{root / 'site'}{os.pathsep}{os.environ.get('PYTHONPATH', '')}",
        WOMBAT_TIMES=str(root / "times"),
    )


def wombat(root: Path) -> list[str]:
    return [sys.executable, "-m", "wombat_dagster.cli", "--config", str(root / "wombat.toml")]


def by_daemon(root: Path, services: StandInAavso, n_observations: int) -> None:
    """Let `wombat up` find and do everything; print what that took."""
    environment = prepare(root, services)
    with (root / "stderr").open("w") as errors:
        begin = time.perf_counter()
        up = subprocess.Popen(
            [*wombat(root), "up", "--port", str(free_port())],
            env=environment, stdout=errors, stderr=errors,
        )  # fmt: skip
        try:
            n_done = 0
            while n_done < n_observations:
                time.sleep(2.0)
                if up.poll() is not None:
                    sys.exit((root / "stderr").read_text()[-3000:])
                n_done = count_done(root / "wombatpipeline.db")
            wall = time.perf_counter() - begin
            cpu = sum(cpu_s(pid) for pid in descendants(up.pid))
        finally:
            up.terminate()
            up.wait(60)
    sums = [json.loads(path.read_text()) for path in (root / "times").iterdir()]
    ours = sum(one["cpu"] for one in sums)
    observing = sum(one.get("observing", 0.0) for one in sums)
    n = n_observations
    print(f"{n} observations by wombat up, {len(sums)} processes for runs, {wall:.1f} s:")
    print(f"  wall per observation            {wall / n:8.3f} s")
    print(f"  cpu of all processes            {cpu / n:8.3f} s")
    print(f"  of it in our stages             {ours / n:8.3f} s  (wall {observing / n:.3f} s)")
    print(f"  orchestration, cpu              {(cpu - ours) / n:8.3f} s")
    print(f"  orchestration, on the wall      {(wall - observing / os.cpu_count()) / n:8.3f} s")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def count_done(database: Path) -> int:
    if not database.exists():
        return 0
    with contextlib.closing(sqlite3.connect(database, timeout=60)) as connection:
        words = "SELECT count(*) FROM target WHERE apphot = 'validate'"
        with contextlib.suppress(sqlite3.OperationalError):  # its tables are to come
            return connection.execute(words).fetchone()[0]
    return 0


def descendants(pid: int) -> list[int]:
    threads = Path(f"/proc/{pid}/task").glob("*/children")
    children = " ".join(file.read_text() for file in threads).split()
    return [pid, *(one for child in children for one in descendants(int(child)))]


def cpu_s(pid: int) -> float:
    """Return the processor time of a process and of its children that have ended."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, after_name[11:15])) / os.sysconf("SC_CLK_TCK")


def measure(root: Path, services: StandInAavso, *, workers: int, by_run: bool) -> list[dict]:
    """Run the command in `root`; return the workers' sums, and print the command's summary."""
    environment = prepare(root, services)
    command = wombat(root)
    command += ["run"] if by_run else ["backfill", "--workers", str(workers)]
    if by_run:
        environment["WOMBAT_TIMED"] = "all"
    begin = time.perf_counter()
    with (root / "stderr").open("w") as errors:
        done = subprocess.run(
            command, env=environment, check=False, stdout=subprocess.PIPE, stderr=errors, text=True
        )
    print(f"{' '.join(command[-3:])}: {time.perf_counter() - begin:.1f} s, exit {done.returncode}")
    print("  " + "\n  ".join(done.stdout.strip().splitlines()[-4:]))
    if done.returncode:
        sys.exit((root / "stderr").read_text()[-3000:])
    sums = [json.loads(path.read_text()) for path in (root / "times").iterdir()]
    begin = time.perf_counter()
    again = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    print(f"  once more: {again.stdout.strip()} {time.perf_counter() - begin:.1f} s")
    return [one for one in sums if one["tasks"]]


def report(sums: list[dict], n_frames: int) -> None:
    tasks = [task for one in sums for task in one["tasks"]]
    begin, end = min(t[0] for t in tasks), max(t[1] for t in tasks)
    wall = end - begin
    in_tasks = sum(t[1] - t[0] for t in tasks)
    in_stages = sum(one["observing"] for one in sums)
    cpu = sum(t[2] for t in tasks)
    n = len(tasks)
    print(f"{n} observations of {n_frames} frames, {len(sums)} processes, {wall:.1f} s:")
    print(f"  wall per observation            {wall / n:8.3f} s")
    print(f"  in its process                  {in_tasks / n:8.3f} s   (cpu {cpu / n:.3f} s)")
    print(f"  of it in our stages             {in_stages / n:8.3f} s")
    print(f"  orchestration, one process's    {(in_tasks - in_stages) / n:8.3f} s")
    print(f"  orchestration, on the wall      {(wall - in_stages / len(sums)) / n:8.3f} s")
    print(f"  orchestration, share            {(in_tasks - in_stages) / in_tasks:8.1%}")
    ours = sum(one["cpu"] for one in sums)
    print(f"  orchestration, cpu alone        {(cpu - ours) / n:8.3f} s  {(cpu - ours) / cpu:8.1%}")
    stages: dict[str, float] = {}
    for one in sums:
        for name, seconds in one["stages"].items():
            stages[name] = stages.get(name, 0.0) + seconds
    print("  " + ", ".join(f"{name} {seconds / n:.3f}" for name, seconds in stages.items()))
    thirds = sorted(tasks)
    part = max(1, n // 5)
    first, last = thirds[:part], thirds[-part:]
    for name, those in (("first", first), ("last", last)):
        each, cpu = (sum(t[1] - t[0] for t in those), sum(t[3] for t in those))
        print(
            f"  {name} fifth: {each / len(those):.3f} s each,"
            f" orchestration {cpu / len(those):.3f} s of cpu"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--observations", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--night", type=int, metavar="FRAMES", help="one observation, 2048x2048")
    parser.add_argument("--run", action="store_true", help="by wombat run, in one process")
    parser.add_argument("--daemon", action="store_true", help="by wombat up")
    parser.add_argument("--keep", type=Path, help="work in this directory and leave it")
    options = parser.parse_args()
    n = 1 if options.night else options.observations
    n_frames = options.night or 3
    size_px = (2048, 2048) if options.night else (320, 256)
    with tempfile.TemporaryDirectory(prefix="wombat-bench-") as folder:
        root = options.keep or Path(folder)
        root.mkdir(exist_ok=True)
        world(root, n_observations=n, n_frames=n_frames, size_px=size_px)
        with StandInAavso.from_directory(root / "aavso") as services:
            if options.daemon:
                by_daemon(root, services, n)
                return
            sums = measure(root, services, workers=options.workers, by_run=options.run)
        report(sums, n_frames)


if __name__ == "__main__":
    main()
