"""What killed writers left behind, told from what is a person's.

Wombat writes to hidden files of names of its own and renames them (`store.frames`, the memory of
VSX and VSP, `stages.pixels`). Only such names, older than any writer takes, are touched; nothing
below the data directory but beside the masters that wombat puts into its nights.
"""

import contextlib
import logging
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from wombat_dagster.observatory import Observatory

log = logging.getLogger(__name__)

MIN_AGE_S = 3600.0
WRITTEN = re.compile(r"\.(?P<name>.{1,100})\.[0-9a-f]{8}\.tmp")  # store.frames.replacing
FOR_A_SOLVER = re.compile(r"\.[0-9a-f]{8}\.tmp\.fits")  # stages.pixels
ANSWER = re.compile(r"\.[A-Za-z0-9_]{8}\.part")  # catalogs.cache: tempfile.mkstemp's names
OUR_MASTER = re.compile(r"m(bias|dark|flat)[^/]*\.fits|bad_pixels[^/]*\.fits")
FOLDER = re.compile(r"wombat_(astap|solve_field|rehearsal|inject)_[A-Za-z0-9_]{8}")
STACK = re.compile(r"wombat-[A-Za-z0-9_]{8}")  # store.stacks, below products


@dataclass(frozen=True, slots=True, kw_only=True)
class Litter:
    """A file or folder that nobody will finish."""

    path: Path
    size_bytes: int
    age_s: float


def find_litter(observatory: Observatory) -> list[Litter]:
    """Return what killed writers left, older than `MIN_AGE_S`, by path."""
    now_s = time.time()
    found = []
    for path in sorted(_suspects(observatory)):
        try:
            status = path.lstat()
            age_s = now_s - status.st_mtime
            size = sum(f.lstat().st_size for f in path.rglob("*")) if path.is_dir() else 0
        except OSError:
            continue  # gone in this moment, or not ours to see
        if age_s > MIN_AGE_S:
            found.append(Litter(path=path, size_bytes=size or status.st_size, age_s=age_s))
    return found


def clean_litter(observatory: Observatory) -> int:
    """Delete what `find_litter` finds; return how many files and folders that were."""
    n_deleted = 0
    for litter in find_litter(observatory):
        try:
            if litter.path.is_dir() and not litter.path.is_symlink():
                shutil.rmtree(litter.path)
            else:
                litter.path.unlink()
        except OSError as error:
            log.debug("%s stays: %s", litter.path, error)
        else:
            n_deleted += 1
    if n_deleted:
        log.info("%d half-written files of interrupted runs deleted", n_deleted)
    return n_deleted


def _suspects(observatory: Observatory) -> Iterator[Path]:
    """Yield what has the name of one of our temporary files, in our places."""
    layout, settings = observatory.layout, observatory.settings
    for directory, folders, files in os.walk(settings.path(settings.products)):
        for name in files:
            if WRITTEN.fullmatch(name) or FOR_A_SOLVER.fullmatch(name):
                yield Path(directory, name)
        yield from (Path(directory, name) for name in folders if STACK.fullmatch(name))
    for directory, _, files in os.walk(layout.cache):
        yield from (Path(directory, name) for name in files if ANSWER.fullmatch(name))
    for night in _nights(observatory):
        for path in night.glob(".*.tmp"):
            written = WRITTEN.fullmatch(path.name)
            if written is not None and OUR_MASTER.fullmatch(written["name"]):
                yield path
    for path in Path(tempfile.gettempdir()).glob("wombat_*"):
        if FOLDER.fullmatch(path.name) and _is_our_own(path):
            yield path


def _nights(observatory: Observatory) -> list[Path]:
    from wombat_dagster.store.layout import night_directories

    with contextlib.suppress(OSError):
        return [night.path for night in night_directories(observatory.layout.data)]
    return []


def _is_our_own(path: Path) -> bool:
    """Return whether this user made a folder in the temporary directory of all."""
    if not hasattr(os, "getuid"):
        return True
    with contextlib.suppress(OSError):
        return path.lstat().st_uid == os.getuid() and not path.is_symlink()
    return False
