"""``kill -9`` of ``wombat run`` at random moments, over and over, in a small simulated night.

    python drills/kill.py --kills 200      about 25 minutes on two cores

Moments are drawn evenly over the time that an undisturbed run takes; half of the kills hit the
whole process group. After each the disk is looked through: every file whole or absent, no row
without its product, databases whole. Every `--complete` kills the run is left to end, and pixels,
table values and status words must equal those of a run that nobody disturbed. Runs are forked
from a warm process: fresh interpreters would be hit in their imports, where nothing is at stake.
"""

import argparse
import contextlib
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import small_night as sn

DEEPEST = ("nothing", "masters", "reduced", "solved", "measured", "magnitudes", "validate")


def killed(place: sn.Place, after_s: float, *, is_group: bool) -> sn.Child:
    """Run in `place` for `after_s` seconds; the child may have ended before."""
    child = sn.begin(place)
    until_s = time.monotonic() + after_s
    while child.poll() is None and time.monotonic() < until_s:
        time.sleep(0.002)
    if child.poll() is None:
        (os.killpg if is_group else os.kill)(child.process, signal.SIGKILL)
        child.wait()
    return child


def reached(place: sn.Place) -> str:
    """Return how far the files say that a place has come."""
    marks = {
        "masters": place.data.rglob("mflat*.fits"),
        "reduced": place.products.rglob("reduction.json"),
        "solved": place.products.rglob("solutions.json"),
        "measured": place.products.rglob("photometry.npz"),
        "magnitudes": place.products.rglob("magnitudes.csv"),
        "validate": place.products.rglob("diagnostics.json"),
    }
    there = [name for name, found in marks.items() if next(iter(found), None) is not None]
    return max(["nothing", *there], key=DEEPEST.index)


def never_ended(place: sn.Place) -> int:
    """Return how many runs Dagster still takes for running."""
    n = 0
    for path in (place.root / ".dagster_state").rglob("runs.db"):
        with contextlib.closing(sqlite3.connect(path)) as connection:
            query = "SELECT count(*) FROM runs WHERE status IN ('STARTED', 'STARTING')"
            n += connection.execute(query).fetchone()[0]
    return n


class Tally:
    """What the drill has seen so far."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.at: Counter[str] = Counter()
        self.n_kills = self.n_ended_before = self.n_completed = self.n_ahead = 0
        self.litter: Counter[str] = Counter()
        self.litter_after: Counter[str] = Counter()
        self.n_never_ended = 0

    def fault(self, words: str) -> None:
        self.faults.append(words)
        print(f"  FAULT {words}")


def kind_of_litter(path: Path) -> str:
    """Return what a temporary file is of, without the letters drawn at random."""
    if path.name.startswith("wombat_"):
        return path.name.rpartition("_")[0]
    return path.name.lstrip(".").partition(".")[0] if path.suffix == ".tmp" else path.name


def look(place: sn.Place, tally: Tally, ahead_before: set[str]) -> set[str]:
    """Look a place through after a kill; return the products that are ahead of their rows."""
    for words in sn.faults_of(place):
        tally.fault(f"kill {tally.n_kills}: {words}")
    ahead = sn.ahead_of_rows(place)
    if len(ahead - ahead_before) > 1:
        tally.fault(f"kill {tally.n_kills}: several products ahead of their rows: {ahead}")
    tally.n_ahead += len(ahead - ahead_before)
    return ahead


def complete(place: sn.Place, wanted: dict[str, str], tally: Tally) -> None:
    """Let the run in a disturbed place end; compare."""
    tally.litter.update(kind_of_litter(path) for path in sn.litter_of(place))
    child = sn.run(place)
    tally.n_completed += 1
    if child.exit_code != 0:
        tally.fault(f"after kill {tally.n_kills}: the re-run ended {child.exit_code}")
        print(child.words[-3000:])
        return
    for words in (*sn.faults_of(place), *sn.differences(wanted, sn.fingerprint(place))):
        tally.fault(f"after kill {tally.n_kills}, re-run: {words}")
    for words in sn.ahead_of_rows(place):
        tally.fault(f"after kill {tally.n_kills}, re-run: {words} is not what its row says")
    tally.litter_after.update(kind_of_litter(path) for path in sn.litter_of(place))
    tally.n_never_ended += never_ended(place)


def drill(root: Path, services: sn.Services, sky: sn.Sky, options: argparse.Namespace) -> Tally:
    draw = random.Random(options.seed)
    quiet = sn.prepare(root / "undisturbed", sky, services)
    begun_s = time.monotonic()
    first = sn.run(quiet)
    run_s = time.monotonic() - begun_s
    assert first.exit_code == 0, first.words
    wanted, raw = sn.fingerprint(quiet), sn.raw_hashes(quiet)
    print(f"undisturbed run: {run_s:.1f} s, {len(wanted)} things to compare")
    tally = Tally()
    place, ahead = None, set[str]()
    n_here = n_round = n_faults = 0
    while tally.n_kills < options.kills:
        if place is None:
            n_round += 1
            place, ahead, n_here = sn.prepare(root / f"{n_round}", sky, services), set(), 0
            n_faults = len(tally.faults)
        child = killed(place, draw.uniform(0.0, run_s), is_group=draw.random() < 0.5)
        tally.n_kills += 1
        n_here += 1
        if child.exit_code != -signal.SIGKILL:
            tally.n_ended_before += 1
            if child.exit_code != 0:
                tally.fault(f"kill {tally.n_kills}: the run ended {child.exit_code} by itself")
                print(child.words[-3000:])
        tally.at[reached(place)] += 1
        ahead = look(place, tally, ahead)
        is_last = tally.n_kills == options.kills
        if n_here >= options.complete or child.exit_code == 0 or is_last:
            complete(place, wanted, tally)
            if sn.raw_hashes(place) != raw:
                tally.fault(f"after kill {tally.n_kills}: raw files are not what they were")
            print(f"{tally.n_kills} kills, {tally.n_completed} completed", flush=True)
            if len(tally.faults) == n_faults:
                shutil.rmtree(place.root)
            place = None
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--complete", type=int, default=4, help="kills before a run may end")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--root", type=Path, help="where to work; kept when there were faults")
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="wombat-kill-", dir=options.root))
    begun_s = time.monotonic()
    sky = sn.simulate(root / "sky")
    sn.warm()
    with sn.serving(sky) as services:
        tally = drill(root, services, sky, options)
    print(
        f"{tally.n_kills} kills ({tally.n_ended_before} came after the run's own end);"
        f" furthest product at the kill: "
        + ", ".join(f"{name} {tally.at[name]}" for name in DEEPEST if tally.at[name])
    )
    print(
        f"{tally.n_completed} re-runs to the end; products ahead of their rows {tally.n_ahead};"
        f" runs that Dagster takes for running {tally.n_never_ended}"
    )
    for words, litter in (("before", tally.litter), ("after", tally.litter_after)):
        kinds = ", ".join(f"{name} {n}" for name, n in litter.most_common())
        print(f"temporary files {words} the re-runs: {litter.total()} ({kinds or 'none'})")
    print(f"{len(tally.faults)} faults; {time.monotonic() - begun_s:.0f} s")
    if tally.faults:
        print(f"everything is kept in {root}")
        sys.exit(1)
    shutil.rmtree(root)


if __name__ == "__main__":
    main()
