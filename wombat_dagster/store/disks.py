"""What is said of a disk that has no room left: the same words whatever was being written."""

import errno
import shutil
import sqlite3
from pathlib import Path

NO_ROOM = {errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)}  # Windows knows no quota
NO_ROOM_WORDS = "Not enough space on disk"  # astropy's, without a number
PRIMARY_CODE = 0xFF  # of SQLite's extended error codes
LEAST_ROOM_BYTES = 2**20  # with less SQLite's shared memory and journal soon have none


class DiskFull(OSError):
    """There is no room to write a file; the words say on which disk, and how much is free there.

    Never a fault of the frame that was being worked on.
    """


def is_no_room(error: BaseException) -> bool:
    """Tell whether an error says that a disk, or a quota, is used up; astropy loses its number."""
    cause: BaseException | None = error
    while isinstance(cause, OSError):
        if cause.errno in NO_ROOM or NO_ROOM_WORDS in str(cause):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def disk_full(path: Path) -> DiskFull:
    """Return the error that says that there is no room for `path`.

    To be raised ``from None``: whoever shows a first cause is to show these words.
    """
    there = next(place for place in path.absolute().parents if place.exists())
    disk = shutil.disk_usage(there)
    free = f"{disk.free / 1e6:.1f} MB free of {disk.total / 1e6:.0f} MB"
    words = f"No space left on the disk of {there} for {path.name}: {free}"
    return DiskFull(errno.ENOSPC, words)


def database_full(error: BaseException, database: Path) -> DiskFull | None:
    """Return what a database's error says when it is that its disk has no room, else None.

    SQLite has a word for it, but where its shared memory or journal cannot grow, and a file cannot
    be made, it only speaks of an I/O error or of a file that cannot be opened.
    """
    if not isinstance(error, sqlite3.Error):
        return None
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_OK) & PRIMARY_CODE
    if code == sqlite3.SQLITE_FULL:
        return disk_full(database)
    if code not in {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN}:
        return None
    there = next(place for place in database.absolute().parents if place.exists())
    is_full = shutil.disk_usage(there).free < LEAST_ROOM_BYTES
    return disk_full(database) if is_full else None
