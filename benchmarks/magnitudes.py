"""Time of standard magnitudes and of the plots of a long night, warm, part by part.

    python benchmarks/magnitudes.py                   1000 frames x 30 stars
    python benchmarks/magnitudes.py --frames 200 --stars 10 --field 100 --repeats 3

A table made from numbers: T1, T2 and comps, with `--field` also field stars. Machines are noisy:
compare only figures of one run.
"""

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from wombat_dagster.domain import Transformation
from wombat_dagster.reports.light_curve import light_curve_png
from wombat_dagster.reports.precision import rms_plot_png, series_plot_png
from wombat_dagster.science.precision import measure_precision
from wombat_dagster.science.standard import standardise

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from wombat_dagster_tests.series import series_table  # not installed

GOAL_S = 3.0
MAX_BYTES = 200_000


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--stars", type=int, default=30)
    parser.add_argument("--field", type=int, default=0)
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    mags = (11.3, 11.9, *np.linspace(10.0, 14.0, options.stars - 2))
    table = series_table(
        options.frames, mags=mags, field_mags=np.linspace(11.0, 15.0, options.field)
    )
    colour = Transformation(
        coefficient_name="Tv_bv",
        coefficient=-0.06,
        coefficient_error=0.005,
        colour_index="B-V",
        target_colour=0.5,
        target_colour_error=0.05,
    )
    standard = standardise(table, transformation=colour)
    report = measure_precision(table)
    works: dict[str, Callable[[], object]] = {
        "standard magnitudes": lambda: standardise(table, transformation=colour),
        "light curve": lambda: light_curve_png(standard),
        "precision": lambda: measure_precision(table),
        "rms plot": lambda: rms_plot_png(report),
        "series plot": lambda: series_plot_png(table),
    }
    taken: dict[str, list[float]] = {name: [] for name in works}
    size = {}
    for name, work in works.items():
        made = work()
        size[name] = f"{len(made) / 1000:.0f} kB" if isinstance(made, bytes) else ""
        assert not isinstance(made, bytes) or len(made) < MAX_BYTES, f"{name}: {size[name]}"
    for _ in range(options.repeats):
        for name, work in works.items():
            taken[name].append(seconds(work))
    print(f"{options.frames} frames x {options.stars} stars, {options.field} field stars")
    print(f"{'':>22} {'best s':>8} {'median':>8}")
    for name, times in taken.items():
        print(f"{name:>22} {min(times):8.3f} {np.median(times):8.3f}  {size[name]}")
    whole = np.sum([taken[name] for name in works], axis=0)
    print(f"{'in all (goal <= 3)':>22} {whole.min():8.3f} {np.median(whole):8.3f}")
    if whole.min() > GOAL_S:
        sys.exit(f"{whole.min():.2f} s, at most {GOAL_S:g} wanted")


if __name__ == "__main__":
    main()
