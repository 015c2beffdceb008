"""A program of the observer's: what it is given, and every way it can fail."""

import os
import sys
import time

import pytest

from wombat_dagster.store.hook import HookFailed, give

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the programs are shell scripts")


def script(folder, text):
    file = folder / "hook"
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return [str(file)]


def test_a_program_gets_the_text_and_its_own_words(tmp_path):
    command = [*script(tmp_path, 'cat > got; echo "$1" > words'), "a b; $(touch owned)"]
    give(command, "ß ★", folder=tmp_path, timeout_s=10)
    assert (tmp_path / "got").read_text() == "ß ★"
    assert (tmp_path / "words").read_text() == "a b; $(touch owned)\n"
    assert not (tmp_path / "owned").exists()


def test_a_program_need_not_read(tmp_path):
    give(script(tmp_path, "exit 0"), "x" * 1_000_000, folder=tmp_path, timeout_s=10)


def test_a_program_that_fails_is_quoted(tmp_path):
    command = script(tmp_path, "echo before; echo no route to host >&2; echo; exit 3")
    with pytest.raises(HookFailed, match="hook ended with code 3: no route to host"):
        give(command, "", folder=tmp_path, timeout_s=10)


@pytest.mark.parametrize("command", [["/no/such/program"], ["a\0b"], ["."]])
def test_what_is_no_program_is_said(tmp_path, command):
    with pytest.raises(HookFailed, match="cannot be run"):
        give(command, "", folder=tmp_path, timeout_s=10)


def test_a_program_that_hangs_is_killed_with_its_children(tmp_path):
    command = script(tmp_path, "sleep 60 & echo $! > child; wait")
    begun = time.monotonic()
    with pytest.raises(HookFailed, match=r"hook was killed after 0\.5 s"):
        give(command, "", folder=tmp_path, timeout_s=0.5)
    assert time.monotonic() - begun < 10
    child = int((tmp_path / "child").read_text())
    for _ in range(100):
        if not _lives(child):
            return
        time.sleep(0.05)
    pytest.fail("the child lives on")


def _lives(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123 - what init has not reaped is dead too
        return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
