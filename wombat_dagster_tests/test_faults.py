"""Faults of the machine below the stages: full disks, programs that misbehave, people at the data.

What a whole run makes of them is in ``shell/test_faults_*.py``; ``drills/`` does it with real
kills, real disks and real processes.
"""

import contextlib
import errno
import sqlite3
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from wombat_dagster.solvers import astap as astap_module
from wombat_dagster.solvers import programs
from wombat_dagster.solvers.astap import Astap
from wombat_dagster.store import disks, frames, schema
from wombat_dagster.store.disks import DiskFull
from wombat_dagster.store.status import StatusDatabase

FULL = Path("/dev/full")  # a disk without room, by the kernel itself
needs_full = pytest.mark.skipif(not FULL.exists(), reason="no /dev/full on this system")
posix = pytest.mark.skipif(sys.platform == "win32", reason="the fakes are POSIX scripts")


@pytest.fixture
def no_room(monkeypatch):
    """Return the function after which temporary files of some names are written to a full disk."""
    opened = Path.open

    def for_names(words):
        def to_full(self, *args, **kwargs):
            is_meant = self.suffix == ".tmp" and words in self.name
            return opened(FULL if is_meant else self, *args, **kwargs)

        monkeypatch.setattr(Path, "open", to_full)

    return for_names


# ---------------------------------------------------------------------------------------- full disk

IMAGE = np.arange(64 * 96, dtype=np.float32).reshape(64, 96)
MASK = np.zeros(IMAGE.shape, np.uint8)


def write_product(path):
    frames.write_bytes_atomic(path, b"content " * 4000)


def write_master(path):
    frames.write_master(path, IMAGE, fits.Header(), MASK)


def write_reduced(path):
    frames.write_reduced(path, IMAGE, MASK, fits.Header())


def write_solution(path):
    frames.replace_wcs(path, {"CRVAL1": 12.0})


@needs_full
@pytest.mark.parametrize("write", [write_product, write_master, write_reduced])
def test_a_full_disk_is_named_with_its_room_and_nothing_is_left(tmp_path, no_room, write):
    no_room("frame.fits")
    with pytest.raises(DiskFull) as caught:
        write(tmp_path / "new" / "frame.fits")
    total = f"of {disks.shutil.disk_usage(tmp_path).total / 1e6:.0f} MB"
    assert caught.value.errno == errno.ENOSPC
    assert f"No space left on the disk of {tmp_path / 'new'} for frame.fits: " in str(caught.value)
    assert str(caught.value).endswith(total)
    assert caught.value.__cause__ is None  # a table of failures shows the first cause
    assert list((tmp_path / "new").iterdir()) == []


@needs_full
@pytest.mark.parametrize("write", [write_master, write_reduced, write_solution])
def test_a_full_disk_leaves_the_old_frame_as_it_was(tmp_path, no_room, write):
    path = tmp_path / "frame.fits"
    frames.write_reduced(path, IMAGE + 1, MASK, fits.Header())
    before = path.read_bytes()
    no_room("frame.fits")
    with pytest.raises(DiskFull):
        write(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_disk_without_room_for_a_directory_is_full_too(tmp_path, monkeypatch):
    def refuse(*_args, **_kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(DiskFull, match=f"the disk of {tmp_path} for a.json"):
        frames.write_bytes_atomic(tmp_path / "a" / "b" / "a.json", b"{}")


@needs_full
def test_a_full_disk_is_known_when_astropy_has_lost_its_number(tmp_path):
    """It raises again with the words alone, or with words of its own."""

    class Full(fits.HDUList):
        def writeto(self, fileobj, **more):
            try:
                FULL.write_bytes(b"x")
            except OSError as error:
                raise OSError(str(error))  # noqa: B904 - as astropy does

    with pytest.raises(DiskFull):
        frames.write_fits_atomic(tmp_path / "a.fits", Full())


def test_other_failures_keep_their_own_words(tmp_path):
    (tmp_path / "a").write_text("a file where a directory should be")
    with pytest.raises(FileExistsError):
        frames.write_bytes_atomic(tmp_path / "a" / "b.json", b"{}")


# ----------------------------------------------------------------------------------------- database


def row_of(database, key="20251014__SV_Wom__V"):
    with contextlib.closing(sqlite3.connect(database)) as connection:
        connection.row_factory = sqlite3.Row
        return connection.execute("SELECT * FROM target WHERE key = ?", (key,)).fetchone()


@pytest.fixture
def status(tmp_path):
    """A database with one observation in it."""
    opened = StatusDatabase(tmp_path / "wombatpipeline.db")
    with contextlib.closing(schema.connect(opened.path)) as connection:
        connection.execute(
            "INSERT INTO target (date, target, filter, night, key)"
            " VALUES ('2025-10-14', 'SV Wom', 'V', '20251014', '20251014__SV_Wom__V')"
        )
    return opened


def record(status, words):
    status.record_product(
        "20251014__SV_Wom__V", "reduced_frames", path="a.json", content_hash=words,
        version=words, inputs={}, status={"proc": words},
    )  # fmt: skip


def test_a_database_on_a_full_disk_keeps_what_it_had_and_goes_on_afterwards(status, monkeypatch):
    """SQLite's own refusal, by a limit of pages; the row and its word come together or not."""
    record(status, "before")
    connect = schema.connect

    def without_room(path):
        connection = connect(path)
        (n_pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {n_pages}")
        return connection

    with monkeypatch.context() as patch:
        patch.setattr(schema, "connect", without_room)
        with pytest.raises(DiskFull, match=f"{status.path.parent} for wombatpipeline.db: "):
            record(status, "after" * 20000)
    assert row_of(status.path)["proc"] == "before"
    assert status.product_version("20251014__SV_Wom__V", "reduced_frames") == "before"
    with contextlib.closing(sqlite3.connect(status.path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    record(status, "after")
    assert row_of(status.path)["proc"] == "after"


def test_a_write_waits_for_a_lock_that_another_program_holds(status):
    """Truly held, for as long as it takes to see that the write has not gone through."""
    holder = sqlite3.connect(status.path, isolation_level=None, check_same_thread=False)
    with contextlib.closing(holder):
        holder.execute("BEGIN EXCLUSIVE")
        writer = threading.Thread(target=record, args=(status, "written"))
        writer.start()
        writer.join(0.5)
        assert writer.is_alive()
        assert row_of(status.path)["proc"] is None  # readers need not wait
        holder.execute("ROLLBACK")
        writer.join(10.0)
        assert not writer.is_alive()
    assert row_of(status.path)["proc"] == "written"


def test_the_lock_is_waited_for_longer_than_a_person_leaves_an_editor_open_by_mistake():
    """Issue 5: 20 s."""
    assert schema.BUSY_TIMEOUT_S >= 3 * 20.0


def test_a_person_who_reads_for_hours_stops_nobody(status):
    reader = sqlite3.connect(status.path, isolation_level=None)
    with contextlib.closing(reader):
        reader.execute("BEGIN")
        seen = reader.execute("SELECT proc FROM target").fetchone()
        record(status, "written")
        assert reader.execute("SELECT proc FROM target").fetchone() == seen  # its own moment
    assert row_of(status.path)["proc"] == "written"


# -------------------------------------------------------------------------- ASTAP, the program


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "in" / "frame.fits"
    frames.write_reduced(path, IMAGE, MASK, fits.Header())
    return path


def program(tmp_path, script):
    """Write a shell script and return it as an ASTAP."""
    path = tmp_path / "astap_cli"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return Astap(path, tmp_path, "fake")


@posix
@pytest.mark.parametrize(
    "script",
    ["exit 0", 'rm -f "$2"', "kill -SEGV $$", ': > "$2"', "exec sleep 600"],
    ids=["nothing", "deletes its input", "crashes", "empties its input", "hangs"],
)
def test_an_analysis_that_goes_wrong_is_none_and_the_frame_stays(
    tmp_path, image, monkeypatch, script
):
    monkeypatch.setattr(astap_module, "ANALYSE_TIMEOUT_S", 0.5)
    before, others = image.read_bytes(), children()
    assert program(tmp_path, script).analyse(image, 10.0) is None
    assert image.read_bytes() == before
    assert children() <= others


def children():
    """Return the children of this process, dead ones that nobody waited for included."""
    tasks = Path("/proc/self/task")
    if not tasks.exists():
        pytest.skip("only Linux tells of children without taking them away")
    return {child for path in tasks.glob("*/children") for child in path.read_text().split()}


@posix
def test_a_hanging_program_is_over_in_its_time_and_leaves_no_zombie(tmp_path):
    (tmp_path / "hang").write_text("#!/bin/sh\nsleep 600 & sleep 600\n")
    (tmp_path / "hang").chmod(0o755)
    begun_s, others = time.monotonic(), children()
    run = programs.run_program([str(tmp_path / "hang")], tmp_path, 0.3)
    assert run.exit_code is None
    assert time.monotonic() - begun_s < 5.0
    assert children() <= others


@posix
def test_a_program_that_never_stops_talking_is_not_read_whole(tmp_path):
    (tmp_path / "talk").write_text(
        "#!/bin/sh\necho first; yes 0123456789 | head -c 8000000; echo last\n"
    )
    (tmp_path / "talk").chmod(0o755)
    run = programs.run_program([str(tmp_path / "talk")], tmp_path, 30.0)
    assert run.exit_code == 0
    assert len(run.output) < 1.1 * programs.MAX_OUTPUT_BYTES
    assert run.output.startswith("first\n")
    assert run.output.endswith("last\n")


@posix
def test_no_room_for_astap_s_copy_is_no_fault_of_the_frame(tmp_path, image, monkeypatch):
    """Taken for one, a full /tmp would let another solver answer, or none: nowcs."""

    def refuse(*_args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(astap_module.shutil, "copyfile", refuse)
    with pytest.raises(OSError, match=r"No space left on the disk of .* copy of frame.fits: .* MB"):
        program(tmp_path, "exit 0").analyse(image, 10.0)
