"""How a plate solver that is a program is run: in a folder, within a time limit, ended cleanly."""

import contextlib
import logging
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

log = logging.getLogger(__name__)

MAX_OUTPUT_BYTES = 2**20  # read of what a program prints: half from the beginning, half of the end


@dataclass(frozen=True, slots=True)
class ProgramRun:
    """How a program ended; `exit_code` None when it had to be killed."""

    exit_code: int | None
    output: str
    seconds: float


def run_program(command: list[str], folder: Path, timeout_s: float) -> ProgramRun:
    """Run a program in `folder` and, when it takes too long, kill it with all its children."""
    begun = time.perf_counter()
    log.debug("%s", shlex.join(command))
    # Into a file: a grandchild that outlives the program would hold a pipe open.
    with (folder / "stdout.txt").open("w+b") as stdout:
        try:
            process = subprocess.Popen(
                command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        except OSError as error:
            return ProgramRun(126, f"{command[0]}: {error}", time.perf_counter() - begun)
        try:
            exit_code: int | None = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            exit_code = None
        finally:
            _kill_group(process)
        output = _beginning_and_end(stdout).decode("utf-8", "replace")
    return ProgramRun(exit_code, output, time.perf_counter() - begun)


def _beginning_and_end(stdout: BinaryIO) -> bytes:
    """Return what was printed, without the middle of a program that never stops talking."""
    size = stdout.seek(0, os.SEEK_END)
    stdout.seek(0)
    if size <= MAX_OUTPUT_BYTES:
        return stdout.read()
    beginning = stdout.read(MAX_OUTPUT_BYTES // 2)
    stdout.seek(size - MAX_OUTPUT_BYTES // 2)
    return beginning + b"\n...\n" + stdout.read(MAX_OUTPUT_BYTES // 2)


def _kill_group(process: subprocess.Popen) -> None:
    """Kill what is left of a process and of the group it leads."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
