"""Files for the AAVSO on the disk: names that are taken once, and content that is there at once.

A file begins as an empty one, by which its name is taken, and a hidden one beside it that holds all
of it. `publish` makes one of the two. What a killed program left is found by `unfinished`.
"""

import os
import re
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path

from wombat_dagster.store.disks import disk_full, is_no_room
from wombat_dagster.store.frames import write_bytes_atomic

_HIDDEN = re.compile(r"\.(?P<name>[A-Za-z0-9][A-Za-z0-9._+-]*)\.[0-9a-f]{8}\.part")


def free_path(candidates: Iterable[Path], *, is_known: Callable[[str], bool]) -> Path:
    """Return the first of `candidates` that is not there and by name not `is_known`."""
    return next(one for one in candidates if not one.exists() and not is_known(one.name))


def reserve(candidates: Iterable[Path], *, is_known: Callable[[str], bool]) -> Path:
    """Do as `free_path`, and take the name: an empty file that nobody else can make."""
    for path in candidates:
        if is_known(path.name):
            continue
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb"):
                return path
        except FileExistsError:
            continue
    raise AssertionError("candidates have no end")


def write_hidden(path: Path, text: str) -> Path:
    """Write what will be `path` beside it, on the disk before it returns. Raises `DiskFull`."""
    hidden = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with hidden.open("xb") as handle:
            handle.write(text.encode("ascii"))
            handle.flush()
            os.fsync(handle.fileno())
    except OSError as error:
        abandon(path, hidden)
        if is_no_room(error):
            raise disk_full(path) from None
        raise
    return hidden


def publish(hidden: Path, path: Path, text: str) -> None:
    """Put the hidden file, which holds `text`, in the place of the empty one."""
    try:
        hidden.replace(path)
    except FileNotFoundError:  # swept up by another program, on a disk without locks
        write_bytes_atomic(path, text.encode("ascii"))


def abandon(path: Path, hidden: Path) -> None:
    """Delete both, the visible one only where it is empty."""
    hidden.unlink(missing_ok=True)
    if path.exists() and path.stat().st_size == 0:
        path.unlink()


def unfinished(directory: Path) -> list[tuple[Path, Path]]:
    """Return hidden files with what they were to become, by name."""
    found = [(_HIDDEN.fullmatch(path.name), path) for path in sorted(directory.glob(".*.part"))]
    return [(path, path.with_name(name["name"])) for name, path in found if name is not None]


def empty_ones(directory: Path) -> list[Path]:
    """Return the files by which a name was taken and nothing more, by name."""
    return [path for path in sorted(directory.glob("*.txt")) if path.stat().st_size == 0]
