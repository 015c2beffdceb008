"""A program of the observer's that is given a text: no shell, a time limit, failure in words."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

MAX_WORDS = 300


class HookFailed(Exception):
    """The program did not take it; the message says why."""


def give(command: Sequence[str], text: str, *, folder: Path, timeout_s: float) -> None:
    """Run a program in `folder` with `text` on its standard input; it shall end well in time.

    What it leaves running is ended with it.

    Raises
    ------
    HookFailed
        It cannot be started, ends with another code than 0, or takes too long and is killed.
    """
    # Files, no pipes: the program need not read, and what it starts may not hold an end open.
    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as said:
        given.write(text.encode())
        given.seek(0)
        try:
            process = subprocess.Popen(
                list(command),
                cwd=folder,
                stdin=given,
                stdout=said,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except (OSError, ValueError) as error:  # a ValueError: a NUL in a word
            raise HookFailed(f"{command[0]} cannot be run: {error}") from error
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise HookFailed(f"{command[0]} was killed after {timeout_s:g} s") from None
        finally:
            _end(process)
        if code != 0:
            size = said.seek(0, os.SEEK_END)
            said.seek(max(0, size - 4 * MAX_WORDS))
            lines = said.read().decode("utf-8", "replace").split("\n")
            words = next((line.strip() for line in reversed(lines) if line.strip()), "no word")
            raise HookFailed(f"{command[0]} ended with code {code}: {words[-MAX_WORDS:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill what is left of a process and of the group it leads."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
