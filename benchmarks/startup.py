"""What starting costs: the command, the definitions, the first times and airmasses of a process.

    python benchmarks/startup.py

Whole processes, alternating, best of several; the first run of all, which compiles, is printed as
well.
"""

import os
import subprocess
import sys
import tempfile
import time

RUNS = 5
TIMES = """
import time
import numpy as np
import astropy.coordinates, astropy.time, astropy.units
from wombat_dagster.domain import Site
from wombat_dagster.science.timing import frame_times
starts = [f"2025-10-15T{20 + i // 60:02d}:{i % 60:02d}:00.000000" for i in range(100)]
site = Site(latitude_deg=41.0, longitude_deg=-72.0, elevation_m=10.0)
begin = time.perf_counter()
frame_times(starts, np.full(100, 60.0), ra_deg=30.0, dec_deg=40.0, site=site)
print(time.perf_counter() - begin)
"""
COMMANDS = {
    "python -c pass": ["-c", "pass"],
    "wombat --help": ["-m", "wombat_dagster.cli", "--help"],
    "import dagster": ["-c", "import dagster"],
    "import wombat_dagster.definitions": ["-c", "import wombat_dagster.definitions"],
}


def run(arguments: list[str], compiled: str) -> str:
    environment = dict(os.environ, PYTHONPYCACHEPREFIX=compiled)
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, *arguments]
    return subprocess.run(command, check=True, env=environment, stdout=-1, text=True).stdout


def timed(arguments: list[str], compiled: str) -> float:
    begin = time.perf_counter()
    run(arguments, compiled)
    return time.perf_counter() - begin


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="wombat-bench-") as compiled:
        measure(compiled)


def measure(compiled: str) -> None:
    rounds = [
        {name: timed(command, compiled) for name, command in COMMANDS.items()} for _ in range(RUNS)
    ]
    print(f"{'':40} {'first s':>8} {'best s':>8}")
    for name in COMMANDS:
        print(f"{name:40} {rounds[0][name]:8.3f} {min(r[name] for r in rounds):8.3f}")
    cold = [float(run(["-c", TIMES], compiled)) for _ in range(RUNS)]
    print(f"{'times of 100 frames, beyond imports':40} {cold[0]:8.3f} {min(cold):8.3f}")


if __name__ == "__main__":
    main()
