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

log = logging.getLogger(__name__)


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
        stdout.seek(0)
        output = stdout.read().decode("utf-8", "replace")
    return ProgramRun(exit_code, output, time.perf_counter() - begun)


def _kill_group(process: subprocess.Popen) -> None:
    """Kill what is left of a process and of the group it leads."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if sys.platform == "win32":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()
