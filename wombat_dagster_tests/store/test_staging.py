"""Frames fetched from a slow disk: the right bytes, a few at a time, and nothing left behind."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from wombat_dagster.store import staging
from wombat_dagster.store.staging import Staging, StagingFailed


@pytest.fixture
def scratch(tmp_path):
    return tmp_path / "fast"


@pytest.fixture
def frames(tmp_path):
    """Ten files on the slow disk."""
    slow = tmp_path / "slow"
    slow.mkdir()
    paths = [slow / f"{i}.fits" for i in range(10)]
    for i, path in enumerate(paths):
        path.write_bytes(bytes([i]) * (3 * 2**20 + i))  # several chunks
    return paths


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(staging, "FIRST_PAUSE_S", 0.001)


def copies_in(scratch):
    return [path for path in scratch.rglob("*") if path.is_file()]


def test_every_frame_is_worked_on_as_a_copy_that_is_gone_afterwards(frames, scratch):
    with Staging(frames, scratch, ahead=3, retries=0) as stage:
        for path in frames:
            with stage.take(path) as copy:
                assert scratch in copy.parents
                assert copy.read_bytes() == path.read_bytes()
            assert not copy.exists()
    assert list(scratch.iterdir()) == []


def test_no_more_frames_are_ahead_than_asked_for(frames, scratch):
    with Staging(frames, scratch, ahead=3, retries=0) as stage, stage.take(frames[0]):
        deadline = time.monotonic() + 5
        while len(copies_in(scratch)) < 3 and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(0.05)
        assert len(copies_in(scratch)) == 3


def test_a_share_that_fails_now_and_then_is_asked_again(frames, scratch, monkeypatch, impatient):
    real, tries = staging._copy_checked, []

    def flaky(source, copy):
        tries.append(source)
        if tries.count(source) < 3:
            raise OSError(5, "Input/output error")
        real(source, copy)

    monkeypatch.setattr(staging, "_copy_checked", flaky)
    with (
        Staging(frames[:2], scratch, ahead=1, retries=2) as stage,
        stage.take(frames[0]) as copy,
    ):
        assert copy.read_bytes() == frames[0].read_bytes()


def test_a_frame_that_cannot_be_had_has_words_and_the_others_go_on(frames, scratch, impatient):
    frames[1].unlink()
    with Staging(frames[:3], scratch, ahead=1, retries=2) as stage:
        with stage.take(frames[0]):
            pass
        with (
            pytest.raises(StagingFailed, match="3 tries: No such file"),
            stage.take(frames[1]),
        ):
            pass
        with stage.take(frames[2]) as copy:
            assert copy.read_bytes() == frames[2].read_bytes()


def test_a_copy_with_other_bytes_is_not_handed_out(frames, scratch, monkeypatch, impatient):
    """The fast disk gives back something else than was written."""
    real = staging.hashlib.file_digest

    def other_bytes(handle, name):
        with Path(handle.name).open("r+b") as again:
            again.seek(100)
            again.write(b"damage")
        return real(handle, name)

    monkeypatch.setattr(staging.hashlib, "file_digest", other_bytes)
    with (
        Staging(frames[:1], scratch, ahead=1, retries=1) as stage,
        pytest.raises(StagingFailed, match="2 tries: the copy has other bytes"),
        stage.take(frames[0]),
    ):
        pass


def test_where_the_fast_disk_cannot_be_written_frames_are_read_in_their_place(frames, tmp_path):
    taken = tmp_path / "fast"
    taken.write_text("a file, not a directory")
    with Staging(frames[:3], taken, ahead=1, retries=0) as stage:
        for path in frames[:3]:
            with stage.take(path) as source:
                assert source == path
    assert frames[0].exists()


def test_a_path_that_was_not_announced_is_read_in_its_place(frames, scratch):
    with (
        Staging(frames[:1], scratch, ahead=1, retries=0) as stage,
        stage.take(frames[5]) as source,
    ):
        assert source == frames[5]
    assert frames[5].exists()


def test_work_that_breaks_off_leaves_nothing_behind(frames, scratch):
    with (
        pytest.raises(RuntimeError, match="enough"),
        Staging(frames, scratch, ahead=4, retries=0) as stage,
        stage.take(frames[0]),
    ):
        raise RuntimeError("enough")
    assert list(scratch.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows cannot be asked who is alive")
def test_what_a_killed_run_left_is_removed_and_a_running_one_is_not_disturbed(frames, scratch):
    done = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    killed = scratch / f"wombat-{staging._host()}-{int(done.stdout)}-0123abcd"
    alive = scratch / f"wombat-{staging._host()}-{os.getppid()}-0123abcd"
    elsewhere = scratch / "wombat-another.host-1-0123abcd"
    not_ours = scratch / "wombat-notes"
    for directory in (killed, alive, elsewhere, not_ours):
        directory.mkdir(parents=True)
        (directory / "0-a.fits").write_bytes(b"x")
    with Staging(frames[:1], scratch, ahead=1, retries=0):
        pass
    assert sorted(scratch.iterdir()) == sorted([alive, elsewhere, not_ours])
    hour_ago = time.time() - staging.ABANDONED_S - 1
    os.utime(elsewhere, (hour_ago, hour_ago))
    staging.remove_leftovers(scratch)
    assert not elsewhere.exists()
