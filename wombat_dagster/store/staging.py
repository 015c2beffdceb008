"""Raw frames on a slow disk, copied to a fast one a few frames ahead of the work.

A network share answers in its own time, and now and then wrongly. A background thread fetches the
next frames while the current ones are worked on, tries again after a failure, and compares every
copy with what was read. Copies live as long as somebody works on them.
"""

import contextlib
import hashlib
import logging
import os
import platform
import re
import secrets
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType

from wombat_dagster.config import StagingSettings

log = logging.getLogger(__name__)

CHUNK_BYTES = 2**20
FIRST_PAUSE_S = 0.5  # before a second try; doubled for every further one
ABANDONED_S = 3600.0  # a directory untouched for so long, where processes cannot be asked for
_OURS = re.compile(r"^wombat-(?P<host>.+)-(?P<process>\d+)-[0-9a-f]{8}$")


class StagingFailed(OSError):
    """A frame could not be copied, after all retries."""


class _ScratchUnusable(Exception):
    """The fast disk refuses to be written to: no fault of the frame."""


class Staging:
    """Copies of `paths`, made in their order; a context manager.

    Each of them is to be taken once, roughly in that order. Where the fast disk is full or cannot
    be written the frames are read where they lie.
    """

    def __init__(self, paths: Sequence[Path], directory: Path, *, ahead: int, retries: int) -> None:
        self._directory = directory
        self._retries = retries
        self._copies: dict[Path, Future[Path]] = {path: Future() for path in paths}
        self._order = list(self._copies)
        self._free = threading.Semaphore(ahead)
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._copy_all, name="wombat-staging", daemon=True)
        self._own = directory / f"wombat-{_host()}-{os.getpid()}-{secrets.token_hex(4)}"

    def __enter__(self) -> "Staging":
        remove_leftovers(self._directory)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closing.set()
        self._free.release()
        self._thread.join()
        for copy in self._copies.values():
            copy.cancel()  # whoever still waits for one is told
        shutil.rmtree(self._own, ignore_errors=True)

    @contextlib.contextmanager
    def take(self, path: Path) -> Iterator[Path]:
        """Give the copy of `path`, or `path` itself when it was not asked for at the beginning.

        The copy is gone afterwards. Raises `StagingFailed`.
        """
        copy = self._copies.get(path)
        if copy is None:
            yield path
            return
        try:
            yield copy.result()
        finally:
            if not copy.cancelled() and copy.exception() is None and copy.result() != path:
                copy.result().unlink(missing_ok=True)
            self._free.release()

    def _copy_all(self) -> None:
        is_usable = True
        for number, path in enumerate(self._order):
            self._free.acquire()
            if self._closing.is_set():
                return
            result = self._copies[path]
            if not is_usable:
                result.set_result(path)
                continue
            try:
                result.set_result(self._copied(path, self._own / f"{number}-{path.name}"))
            except StagingFailed as failure:
                result.set_exception(failure)
            except _ScratchUnusable as trouble:
                log.warning("frames are not staged: %s", trouble)
                is_usable = False
                result.set_result(path)
            except Exception as error:  # noqa: BLE001 - whoever waits for the copy must hear of it
                result.set_exception(error)

    def _copied(self, path: Path, copy: Path) -> Path:
        pause_s, words = FIRST_PAUSE_S, ""
        for attempt in range(self._retries + 1):
            try:
                _copy_checked(path, copy)
            except OSError as error:
                words = str(error.strerror or error)
                log.debug("%s: try %d: %s", path, attempt + 1, words)
            else:
                return copy
            if attempt < self._retries and self._closing.wait(pause_s):
                break
            pause_s *= 2
        raise StagingFailed(f"cannot be copied from its disk, {attempt + 1} tries: {words}")


def _copy_checked(source: Path, copy: Path) -> None:
    """Copy a file and read the copy again; OSError when the source fails or they differ."""
    with source.open("rb") as reading:
        try:
            copy.parent.mkdir(parents=True, exist_ok=True)
            writing = copy.open("wb")
        except OSError as error:
            raise _ScratchUnusable(f"{copy.parent}: {error.strerror}") from error
        read = hashlib.sha256()
        with writing:
            while chunk := reading.read(CHUNK_BYTES):
                read.update(chunk)
                try:
                    writing.write(chunk)
                except OSError as error:
                    raise _ScratchUnusable(f"{copy.parent}: {error.strerror}") from error
    with copy.open("rb") as again:
        written = hashlib.file_digest(again, "sha256")
    if written.digest() != read.digest():
        raise OSError(f"the copy has other bytes ({written.hexdigest()[:8]}) than were read")


def staged(
    paths: Sequence[Path], settings: StagingSettings, directory: Path | None
) -> contextlib.AbstractContextManager[Staging]:
    """Return the staging of `paths`: in `directory`, or nowhere when there is none."""
    if directory is None:
        return contextlib.nullcontext(Staging((), Path(), ahead=1, retries=0))
    return Staging(paths, directory, ahead=settings.ahead, retries=settings.retries)


def remove_leftovers(directory: Path) -> None:
    """Remove the copies of runs that were killed."""
    for old in directory.glob("wombat-*"):
        found = _OURS.match(old.name)
        if found is None or not old.is_dir():
            continue
        is_here = found["host"] == _host() and os.name != "nt"  # Windows kills whom it asks
        if not (_is_alive(int(found["process"])) if is_here else _is_touched(old)):
            shutil.rmtree(old, ignore_errors=True)


def _is_touched(directory: Path) -> bool:
    try:
        return time.time() - directory.stat().st_mtime < ABANDONED_S
    except OSError:
        return True


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _host() -> str:
    return re.sub(r"[^A-Za-z0-9.]", "_", platform.node()) or "here"
