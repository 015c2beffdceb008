"""Several programs at one database: a lock held for 20 s, two runs at once, four, a person editing.

    python drills/together.py                  about 3 minutes on two cores
    python drills/together.py --only lock

Small simulated nights, real processes. Whatever happens in between, all end well, and products,
tables and words equal those of a run that was alone.
"""

import argparse
import contextlib
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import small_night as sn

HELD_S = 20.0
PARTS = ("lock", "reader", "twice", "four", "editor")
N_NIGHTS = 4


@contextlib.contextmanager
def another_program(work: Callable[[], None]) -> Iterator[int]:
    """Do `work` in a process of its own; it is killed at the end if it still lives."""
    process = os.fork()
    if not process:
        try:
            work()
        finally:
            os._exit(0)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)


def when_there(path: Path) -> None:
    """Wait until a file is there."""
    while not path.exists():
        time.sleep(0.01)


def hold(database: Path, how: str, for_s: float, told: Path) -> None:
    """Hold a transaction open on the database, with `told` there while it is held."""
    with contextlib.closing(sqlite3.connect(database, timeout=60.0)) as connection:
        connection.isolation_level = None
        connection.execute(how)
        connection.execute("SELECT count(*) FROM target").fetchone()
        told.touch()
        time.sleep(for_s)
        connection.execute("ROLLBACK")
        told.unlink()


def ended_well(place: sn.Place, child: sn.Child, wanted: dict[str, str]) -> list[str]:
    faults = [f"a run ended {child.exit_code}: {child.words[-1500:]}"] if child.exit_code else []
    if faults:
        return faults  # what is not there cannot be compared
    faults += sn.faults_of(place)
    different = sn.differences(wanted, sn.fingerprint(place))
    return faults + [f"other than alone: {name}" for name in different]


def lock(place: sn.Place, wanted: dict[str, str]) -> list[str]:
    """Hold the only write lock in the middle of a run, and once from before it begins."""
    faults, told = [], place.scratch / "held"
    for how in ("BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"):
        begun_s = time.monotonic()
        child = sn.begin(place)
        when_there(place.database)
        marks = place.products.rglob
        while child.poll() is None and not any(marks("frames.json")):
            time.sleep(0.01)
        with another_program(lambda how=how: hold(place.database, how, HELD_S, told)):
            when_there(told)
            held_s = time.monotonic()
            child.wait()
        waited_s, all_s = time.monotonic() - held_s, time.monotonic() - begun_s
        print(f"{how} held for {HELD_S:g} s: the run ended {waited_s:.1f} s after it was taken")
        print(f"   exit {child.exit_code}, {all_s:.1f} s in all")
        if waited_s < HELD_S:
            faults.append(f"{how}: the run did not have to wait; the drill is no drill")
        faults += ended_well(place, child, wanted)
        shutil.rmtree(place.products)
        with contextlib.closing(sqlite3.connect(place.database)) as connection:
            connection.execute("UPDATE target SET proc = NULL, apphot = NULL")
            connection.commit()
    return faults


def reader(place: sn.Place, wanted: dict[str, str]) -> list[str]:
    """Hold a read transaction open from the beginning of a run to its end."""
    told = place.scratch / "held"
    assert sn.run(place, "status").exit_code == 0  # makes the database
    with another_program(lambda: hold(place.database, "BEGIN", 600.0, told)):
        when_there(told)
        child = sn.run(place)
        wal = place.database.with_name(f"{place.database.name}-wal").stat().st_size
        print(f"a reader all the time: exit {child.exit_code}, WAL {wal / 1e3:.0f} kB at the end")
    return ended_well(place, child, wanted)


def twice(place: sn.Place, wanted: dict[str, str]) -> list[str]:
    """Run everything in two processes at once, and once more at the end."""
    children = [sn.begin(place), sn.begin(place)]
    codes = [child.wait() for child in children]
    print(f"two runs of the same observations at once: exit {codes}")
    faults = ended_well(place, children[0], wanted)
    faults += [f"exit {codes[1]}"] if codes[1] else []
    again = sn.run(place)
    return faults + [f"once more: {w}" for w in ended_well(place, again, wanted)]


def four(place: sn.Place, wanted: dict[str, str]) -> list[str]:
    """Run four nights in four processes at once; three of them borrow the first one's bias."""
    nights = sorted(path.name for path in place.data.iterdir() if path.name.isdigit())
    children = [sn.begin(place, "run", night) for night in nights]
    codes = [child.wait() for child in children]
    print(f"four runs of a night each at once: exit {codes}")
    faults = [f"exit {code}" for code in codes if code] + sn.faults_of(place)
    last = sn.run(place)  # masters that came too late for somebody else's night
    return faults + ended_well(place, last, wanted)


def edit(database: Path, asked: Path) -> None:
    """Do what a person in sqlite3 or Datasette may do, as fast as anybody can."""
    statements = (
        "UPDATE target SET submitted = 'approved' WHERE filter = 'V'",
        "UPDATE target SET apphot = NULL WHERE filter = 'B'",
        "UPDATE target SET apphot = 0 WHERE filter = 'B'",
        "UPDATE target SET reason = 'I do not believe it' WHERE filter = 'B'",
        "UPDATE target SET proc_bias = 'nonsense', proc_flat = 0 WHERE filter = 'B'",
        "DELETE FROM target WHERE filter = 'B'",
    )
    with contextlib.closing(sqlite3.connect(database, timeout=60.0)) as connection:
        while not asked.exists():
            for statement in statements:
                with contextlib.suppress(sqlite3.OperationalError):  # before the tables are made
                    connection.execute(statement)
                    connection.commit()
                time.sleep(0.15)


def editor(place: sn.Place, wanted: dict[str, str]) -> list[str]:
    """Edit rows, and delete one, all the time while it runs; then leave the next run alone."""
    enough = place.scratch / "enough"
    with another_program(lambda: edit(place.database, enough)):
        child = sn.run(place)
        enough.touch()
        time.sleep(1.0)
    print(f"a person editing all the time: exit {child.exit_code}; {sn.words_of(place)}")
    faults = sn.faults_of(place)
    if "Traceback (most" in child.words:
        faults.append(f"a traceback on the terminal: {child.words[-1500:]}")
    again = sn.run(place)
    words = sn.words_of(place)
    print(f"   the next run: exit {again.exit_code}; {words}")
    if again.exit_code:
        faults.append(f"the next run ended {again.exit_code}: {again.words[-1500:]}")
    if [row[3] for row in words if row[0].endswith("__V")] != ["approved"]:
        faults.append("the person's decision on V is gone")
    # V was approved, so it stays as it was made: maybe while there was no B to share comps with.
    ours = {name: one for name, one in sn.fingerprint(place).items() if not _is_of_v(name)}
    alone = {name: one for name, one in wanted.items() if not _is_of_v(name)}
    different = [name for name in sn.differences(alone, ours) if name != "table target"]
    return faults + [f"other than alone: {name}" for name in different]


def _is_of_v(name: str) -> bool:
    return "__V " in name or "/V/" in name


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=PARTS, nargs="*", default=PARTS)
    parser.add_argument("--root", type=Path, help="where to work")
    options = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="wombat-together-", dir=options.root))
    skies = {1: sn.simulate(root / "sky"), N_NIGHTS: sn.simulate(root / "nights", nights=N_NIGHTS)}
    sn.warm()
    n_faults, wanted = 0, {}
    for part in options.only:
        sky = skies[N_NIGHTS if part == "four" else 1]
        with sn.serving(sky) as services:
            if sky.root not in wanted:
                alone = sn.prepare(root / f"alone-{part}", sky, services)
                first = sn.run(alone)
                assert first.exit_code == 0, first.words
                wanted[sky.root] = sn.fingerprint(alone)
            place = sn.prepare(root / part, sky, services)
            faults = globals()[part](place, wanted[sky.root])
        for words in faults:
            print(f"   FAULT {words}")
        n_faults += len(faults)
    print(f"{n_faults} faults{f'; everything is kept in {root}' if n_faults else ''}")
    if not n_faults:
        shutil.rmtree(root)
    sys.exit(1 if n_faults else 0)


if __name__ == "__main__":
    main()
