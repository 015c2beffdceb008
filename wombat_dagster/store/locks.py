"""Locks between processes: a file that one of them holds at a time. They end with the process."""

import contextlib
import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

log = logging.getLogger(__name__)

POLL_S = 0.05
SAID_AFTER_S = 10.0


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the lock `path`, waiting for whoever holds it; the empty file stays behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as handle:
        begun_s, is_said = time.monotonic(), False
        while not _taken(handle):
            time.sleep(POLL_S)
            if not is_said and time.monotonic() - begun_s > SAID_AFTER_S:
                log.warning("%s: another run is at work there; waiting for it", path.parent)
                is_said = True
        try:
            yield
        finally:
            _left(handle)


def is_held(path: Path) -> bool:
    """Tell whether somebody holds the lock `path`."""
    if not path.exists():
        return False
    with path.open("ab") as handle:
        if not _taken(handle):
            return True
        _left(handle)
    return False


if sys.platform != "win32":
    import fcntl

    def _taken(handle: IO[bytes]) -> bool:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError:  # a network disk without locks: better none than no work at all
            return True
        return True

    def _left(handle: IO[bytes]) -> None:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_UN)

else:
    import msvcrt

    def _taken(handle: IO[bytes]) -> bool:
        handle.seek(0)
        try:
            msvcrt.locking(handle.fileno(), msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

    def _left(handle: IO[bytes]) -> None:
        handle.seek(0)
        with contextlib.suppress(OSError):
            msvcrt.locking(handle.fileno(), msvcrt.LK_UNLCK, 1)
