"""A disk that runs full during ``wombat run``, at one place after the other. Needs root: tmpfs.

    sudo python drills/disk_full.py            about 8 minutes on two cores

A small simulated night is run on disks (tmpfs) with less and less room: everything on one disk,
then only the products, only the database, only /tmp. Every run must end by itself, say what is
full, and leave nothing half-written; after room is made the next run must complete and equal a run
that was not disturbed.
"""

import argparse
import contextlib
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import small_night as sn

DISK_MB = 96
BALLAST = "ballast"
SAYS_FULL = re.compile(r"no space left|disk is full", re.IGNORECASE)
ROOMS_KB = {
    "everything": (0, 100, 300, 600, 900, 1300, 1700, 2100, 2600, 3200, 4000, 5000, 6500, 8000),
    "products": (0, 50, 200, 500, 900, 1400, 1900, 2500, 3200, 4000),
    "database": (0, 20, 60, 110, 170, 230, 300, 400),
    "tmp": (0, 50, 200),
}


@contextlib.contextmanager
def small_disk(path: Path) -> Iterator[None]:
    """Mount a disk of `DISK_MB` at `path`."""
    path.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", str(path)]
    subprocess.run(mount, check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def leave(path: Path, room_kb: int) -> None:
    """Fill the disk at `path` but for so much."""
    free = os.statvfs(path)
    n_bytes = free.f_bavail * free.f_frsize - room_kb * 1024
    if n_bytes > 0:
        with (path / BALLAST).open("wb") as handle:
            os.posix_fallocate(handle.fileno(), 0, n_bytes)


def said(words: str) -> str:
    """Return the line that says that a disk is full; nothing when none does."""
    lines = [line.strip() for line in words.splitlines() if SAYS_FULL.search(line)]
    return lines[-1] if lines else ""


def mount_of(place: Path, what: str) -> Path:
    """Return where the small disk goes, so that it holds `what`."""
    places = {"everything": place, "products": place / "products", "database": place / "db"}
    return places.get(what, place / "tmp")


def is_readable(place: sn.Place) -> bool:
    """Tell whether a person can look into the database; SQLite wants some room for readers too."""
    try:
        with contextlib.closing(sqlite3.connect(place.database)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master").fetchall()
    except sqlite3.OperationalError:
        return False
    return True


def drill(
    root: Path, sky: sn.Sky, services: sn.Services, wanted: dict[str, str], what: str, room_kb: int
) -> list[str]:
    """Run with so much room, then with enough of it; return what was not as it should be."""
    database = "db/wombatpipeline.db" if what == "database" else "wombatpipeline.db"
    place, disk = sn.prepare(root, sky, services, database=database), mount_of(root, what)
    leave(disk, room_kb)
    raw = sn.raw_hashes(place)
    first = sn.run(place)
    readable = is_readable(place)
    (disk / BALLAST).unlink(missing_ok=True)
    faults = [f"when it was full: {words}" for words in sn.faults_of(place)]
    is_traceback = first.exit_code == sn.UNCAUGHT
    ended = (
        f"exit {first.exit_code}{', by an exception that nobody caught' if is_traceback else ''}"
    )
    print(f"{what}, {room_kb} kB free: {ended}; {said(first.words)[:300] or '(no word of it)'}")
    if not readable:
        print("   the database could not be read while the disk was full")
    if first.exit_code not in (0, 1, 2, sn.UNCAUGHT):
        faults.append(f"the run ended {first.exit_code}")
    if first.exit_code == 0 and (different := sn.differences(wanted, sn.fingerprint(place))):
        faults.append(f"green, but other than undisturbed: {different}")
    if first.exit_code != 0 and not said(first.words):
        faults.append("nothing says that a disk is full")
    if is_traceback:
        faults.append("an exception that nobody caught")
    if first.exit_code == 0:
        print("   there was room enough" if what != "tmp" else "   nobody minded")
    again = sn.run(place)
    if again.exit_code != 0:
        faults.append(f"with room again: exit {again.exit_code}: {again.words[-400:]}")
        return faults
    faults += [f"with room again: {words}" for words in sn.faults_of(place)]
    faults += [f"with room again: {name}" for name in sn.differences(wanted, sn.fingerprint(place))]
    if sn.raw_hashes(place) != raw:
        faults.append("raw files are not what they were")
    return faults


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=list(ROOMS_KB), help="what lies on the small disk")
    parser.add_argument("--room", type=int, nargs="*", help="kB that are free")
    parser.add_argument("--root", type=Path, help="where to work")
    options = parser.parse_args()
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        sys.exit("mounting a small disk needs root (Linux)")
    root = Path(tempfile.mkdtemp(prefix="wombat-full-", dir=options.root))
    sky = sn.simulate(root / "sky")
    sn.warm()
    n_faults = 0
    with sn.serving(sky) as services:
        quiet = sn.prepare(root / "undisturbed", sky, services)
        assert sn.run(quiet).exit_code == 0
        wanted = sn.fingerprint(quiet)
        for what, rooms_kb in ROOMS_KB.items():
            for room_kb in options.room or rooms_kb:
                if options.only not in (None, what):
                    continue
                place = root / "place"
                with small_disk(mount_of(place, what)):
                    faults = drill(place, sky, services, wanted, what, room_kb)
                for words in faults:
                    print(f"   FAULT {words}")
                n_faults += len(faults)
                shutil.rmtree(place, ignore_errors=True)
                place.with_suffix(".log").unlink(missing_ok=True)
    print(f"{n_faults} faults")
    shutil.rmtree(root)
    sys.exit(1 if n_faults else 0)


if __name__ == "__main__":
    main()
