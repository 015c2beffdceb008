"""Master frames: wombat beside siril and ccdproc, each a whole process, in turn, in one run.

    python benchmarks/masters.py                       20 and 50 biases, 10 flats: some minutes
    python benchmarks/masters.py --only flats --only large
    python benchmarks/masters.py --size 512 --large-size 1024 --rounds 2

The biases are combined from plain FITS files into a master on the disk. The flats are subtracted
and scaled on the way; ccdproc gets them as float64 frames that are scaled already. "inside" is the
work alone, without starting Python; "cpu" is the time of both cores, which other programs on the
machine disturb less. Ratios are wombat's time over the peer's: below 1 is faster.
Machines are noisy: compare only figures of one run.
"""

import argparse
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

OURS = """
import sys, time
from pathlib import Path
import numpy as np
from astropy.io import fits
from wombat_dagster.science.combining import combine
from wombat_dagster.store.frames import write_master
from wombat_dagster.store.stacks import FrameStack

begin = time.perf_counter()
folder, out = Path(sys.argv[1]), Path(sys.argv[2])
with FrameStack(sorted(folder.glob("frame_*.fit")), folder / "scratch") as frames:
    master, n_rejected = combine(frames{arguments})
write_master(out, master, fits.Header(), None)
print(time.perf_counter() - begin)
"""
BIASES = OURS.format(arguments=", dtype=np.float32")
FLATS = OURS.format(arguments=", prepare=lambda rows, raw: (raw - np.float64(300.0)) / levels")
FLATS = FLATS.replace(
    "begin =", "levels = 1000.0 * np.arange(10, 10 + int(sys.argv[3]))[:, None, None]\nbegin ="
)
CCDPROC = """
import sys, time, warnings
from pathlib import Path
import ccdproc
import numpy as np
from astropy.io import fits
from astropy.stats import mad_std

warnings.simplefilter("ignore")
begin = time.perf_counter()
files = [str(path) for path in sorted(Path(sys.argv[1]).glob("frame_*.fit"))]
master = ccdproc.combine(
    files, method="median", unit="adu", sigma_clip=True, sigma_clip_low_thresh=5,
    sigma_clip_high_thresh=5, sigma_clip_func=np.ma.median, sigma_clip_dev_func=mad_std,
)
fits.PrimaryHDU(master.data.astype(np.float32)).writeto(sys.argv[2], overwrite=True)
print(time.perf_counter() - begin)
"""
SIRIL = """requires 1.0.0
setext fit
stack frame_ rej {rejection} 5 5 -nonorm -out=siril_{rejection}
"""
PARTS = ("biases", "flats", "large")


@dataclass(frozen=True)
class Run:
    seconds: float
    cpu_s: float
    mib: float
    inside_s: float | None


def in_own_process(work: Callable[..., Any], *arguments: object) -> Any:
    """Call a function elsewhere: what this process ever held counts as the peak of its children."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(work, *arguments).result()


def simulate(folder: Path, n_frames: int, size_px: int, *, is_flat: bool) -> None:
    """Write frames of Gaussian noise with cosmic rays and a hot column; flats scaled ones too."""
    from astropy.io import fits

    rng = np.random.default_rng(5)
    noise = rng.normal(0.0, 10.0, (size_px, size_px)).astype(np.float32)
    raw, scaled = folder / "raw", folder / "scaled"
    for directory in (raw, scaled):
        directory.mkdir()
    for k in range(n_frames):
        level = 1000.0 * (10 + k) if is_flat else 700.0
        image = 300.0 + level + np.roll(noise, rng.integers(0, size_px, 2), axis=(0, 1))
        y, x = rng.integers(0, size_px, (2, size_px))
        image[y, x] += rng.uniform(100, 30000, size_px)
        image[:, 7] = 65535
        counts = image.clip(0, 65535).astype(np.uint16)
        fits.PrimaryHDU(counts).writeto(raw / f"frame_{k + 1:05d}.fit")
        if is_flat:
            flat = (counts - np.float64(300.0)) / level
            fits.PrimaryHDU(flat).writeto(scaled / f"frame_{k + 1:05d}.fit")


def same_pixels(first: Path, second: Path) -> bool:
    from astropy.io import fits

    return np.array_equal(fits.getdata(first), fits.getdata(second))


def run(command: list[str], folder: Path) -> Run:
    environment = os.environ | {"PYTHONPYCACHEPREFIX": str(folder / "pyc")}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)  # compiled once, as an installed program is
    begin = time.perf_counter()
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - begin
    process.returncode = status  # it is waited for: Popen shall not look for it
    if status:
        sys.exit(f"failed: {' '.join(command)}\n{said[-2000:]}")
    unit = 1024.0 if sys.platform != "darwin" else 1024.0**2
    is_ours = command[0] == sys.executable
    cpu_s = usage.ru_utime + usage.ru_stime
    return Run(seconds, cpu_s, usage.ru_maxrss / unit, float(said) if is_ours else None)


def siril(raw: Path, rejection: str) -> list[str] | None:
    program = shutil.which("siril-cli")
    if program is None:
        return None
    script = raw.parent / f"siril_{rejection}.ssf"
    script.write_text(SIRIL.format(rejection=rejection))
    return [program, "-d", str(raw), "-s", str(script)]


def ccdproc(frames: Path, out: Path) -> list[str] | None:
    if find_spec("ccdproc") is None:
        return None
    return [sys.executable, "-c", CCDPROC, str(frames), str(out)]


def compare(title: str, commands: dict[str, list[str] | None], folder: Path, rounds: int) -> None:
    print(f"\n{title}")
    runs: dict[str, list[Run]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            if command is not None:
                runs[name].append(run(command, folder))
    columns = ("first s", "second s", "best s", "ratio", "cpu s", "ratio", "inside s", "ratio")
    print(" " * 18 + "".join(f"{column:>9}" for column in columns) + f"{'MiB':>7}")
    ours = best_of(runs["wombat"])
    for name, done in runs.items():
        if not done:
            print(f"{name:18}not installed")
            continue
        figures = [done[0].seconds, done[1].seconds if len(done) > 1 else None]
        for our_best, best in zip(ours, best_of(done), strict=True):
            figures += [best, our_best / best if best and our_best else None]
        cells = "".join(" " * 9 if x is None else f"{x:9.3f}" for x in figures)
        print(f"{name:18}{cells}{max(r.mib for r in done):7.0f}", flush=True)


def best_of(runs: list[Run]) -> tuple[float, float, float | None]:
    inside = [run.inside_s for run in runs if run.inside_s is not None]
    return min(r.seconds for r in runs), min(r.cpu_s for r in runs), min(inside, default=None)


def biases(n_frames: int, size_px: int, rounds: int, *, only_siril_m: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="wombat-bench-") as name:
        folder = Path(name)
        in_own_process(simulate_biases, folder, n_frames, size_px)
        raw, ours, theirs = folder / "raw", folder / "mbias.fits", folder / "ccdproc.fits"
        commands = {
            "wombat": [sys.executable, "-c", BIASES, str(raw), str(ours)],
            "siril rej m 5 5": siril(raw, "m"),
        }
        title = f"master bias, {n_frames} x {size_px}²"
        compare(title, commands, folder, rounds)
        if only_siril_m:
            return
        slow = {
            "wombat": commands["wombat"],
            "siril rej a 5 5": siril(raw, "a"),
            "ccdproc.combine": ccdproc(raw, theirs),
        }
        compare(f"{title}, the slow ones", slow, folder, min(rounds, 2))
        say_whether_equal(ours, theirs)


def simulate_biases(folder: Path, n_frames: int, size_px: int) -> None:
    simulate(folder, n_frames, size_px, is_flat=False)


def simulate_flats(folder: Path, n_frames: int, size_px: int) -> None:
    simulate(folder, n_frames, size_px, is_flat=True)


def flats(n_frames: int, size_px: int, rounds: int) -> None:
    with tempfile.TemporaryDirectory(prefix="wombat-bench-") as name:
        folder = Path(name)
        in_own_process(simulate_flats, folder, n_frames, size_px)
        ours, theirs = folder / "mflat.fits", folder / "ccdproc.fits"
        commands = {
            "wombat": [sys.executable, "-c", FLATS, str(folder / "raw"), str(ours), str(n_frames)],
            "ccdproc.combine": ccdproc(folder / "scaled", theirs),
        }
        compare(f"master flat, {n_frames} x {size_px}², float64", commands, folder, rounds)
        say_whether_equal(ours, theirs)


def say_whether_equal(ours: Path, theirs: Path) -> None:
    if theirs.exists():
        equal = in_own_process(same_pixels, ours, theirs)
        print("pixels equal to ccdproc's, bit for bit" if equal else "PIXELS DIFFER FROM ccdproc's")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=20)
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--flats", type=int, default=10)
    parser.add_argument("--large-frames", type=int, default=50)
    parser.add_argument("--large-size", type=int, default=4096)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=PARTS, action="append", help="may be given twice")
    parser.add_argument("--without-slow", action="store_true", help="siril m alone for biases")
    options = parser.parse_args()
    for part in options.only or PARTS:
        if part == "biases":
            n_frames, only_siril_m = options.frames, options.without_slow
            biases(n_frames, options.size, options.rounds, only_siril_m=only_siril_m)
        elif part == "flats":
            flats(options.flats, options.size, options.rounds)
        else:
            biases(options.large_frames, options.large_size, options.rounds, only_siril_m=True)


if __name__ == "__main__":
    main()
