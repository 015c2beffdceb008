"""Runs whose process is gone, and how a process is known again.

A run that was killed, or that a power cut ended, stays "started" in Dagster for ever: it holds one
of the few places for runs and keeps its backfill waiting. Here such runs are found and reported as
failed. A process id alone does not tell: ids are used again, so a process is named by its id and
when it began.
"""

import datetime as dt
import json
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dagster import DagsterInstance, DagsterRun, RunRecord

log = logging.getLogger(__name__)

RUN_TAG = "wombat/pid"
"""On runs inside a ``wombat`` command: `this_process` of it."""

WORKER_TAG = "wombat/worker"
"""On runs that the daemon gave to a warm process (`launcher`): `named` of that."""

STATE = ".dagster_state"
RECORD = "up.json"
PS_TIMEOUT_S = 10.0
MAX_TO_BEGIN = dt.timedelta(minutes=1)  # of a run inside a command
BEGIN_TOLERANCE_S = 60.0  # the clock may have been set since


# ------------------------------------------------------------------------------------ processes


def this_process() -> str:
    """Return a text that names this process as no other process is named, ``<pid>:<begin>``."""
    began = _began(os.getpid())
    assert began is not None, "this process lives"
    return f"{os.getpid()}:{began}"


def named(pid: int) -> str | None:
    """Return the text that names a living process; None when there is none."""
    began = _began(pid)
    return None if began is None else f"{pid}:{began}"


def lives(text: str) -> bool:
    """Return whether the process that `this_process` named lives on this machine.

    False for what is no such text.
    """
    pid, _, began = text.partition(":")
    return pid.isdecimal() and bool(began) and _began(int(pid)) == began


def _began(pid: int) -> str | None:
    """Return when a living process began, as the system says it; None when there is none."""
    if sys.platform == "linux":
        return _began_linux(pid)
    if sys.platform == "win32":
        return _began_windows(pid)
    return _began_elsewhere(pid)


def _began_linux(pid: int) -> str | None:
    """Return clock ticks since the boot, and which boot. A zombie is dead: proc(5), field 3."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()  # the name before it may hold blanks and brackets
    return None if fields[0] in "ZX" else f"{fields[19]}@{boot[:8]}"


def _began_elsewhere(pid: int) -> str | None:
    """Return the date and time that ps tells (macOS, BSD), to the second."""
    answer = subprocess.run(
        ["ps", "-o", "stat=,lstart=", "-p", str(pid)],
        capture_output=True,
        text=True,
        check=False,
        timeout=PS_TIMEOUT_S,
        env={**os.environ, "LC_ALL": "C", "TZ": "UTC"},
    )
    state, _, began = answer.stdout.strip().partition(" ")
    return None if not state or state.startswith("Z") else "_".join(began.split())


def _began_windows(pid: int) -> str | None:
    """Return the time of creation in units of 100 ns since 1601 (GetProcessTimes)."""
    if sys.platform != "win32":
        return None
    import ctypes
    from ctypes import wintypes

    kernel = ctypes.windll.kernel32
    query_limited_information, still_active = 0x1000, 259
    handle = kernel.OpenProcess(query_limited_information, False, pid)
    if not handle:
        return None
    try:
        code = wintypes.DWORD()
        kernel.GetExitCodeProcess(handle, ctypes.byref(code))
        times = [wintypes.FILETIME() for _ in range(4)]
        if code.value != still_active or not kernel.GetProcessTimes(
            handle, *(ctypes.byref(time) for time in times)
        ):
            return None
        return str((times[0].dwHighDateTime << 32) + times[0].dwLowDateTime)
    finally:
        kernel.CloseHandle(handle)


# ------------------------------------------------------------------------------ who runs wombat up


@dataclass(frozen=True, slots=True, kw_only=True)
class UpRecord:
    """What ``wombat up`` wrote down of itself: `process` and `servers` as `this_process` says."""

    process: str
    servers: tuple[str, ...]
    since_utc: str
    address: str

    @property
    def lives(self) -> bool:
        """True while this ``wombat up`` runs."""
        return lives(self.process)

    @property
    def pid(self) -> str:
        """Its process id."""
        return self.process.partition(":")[0]

    def content(self) -> bytes:
        """Return it as the file's content."""
        return json.dumps(
            {
                "process": self.process,
                "servers": self.servers,
                "since_utc": self.since_utc,
                "address": self.address,
            }
        ).encode()


def last_up(base: Path) -> UpRecord | None:
    """Return what the last ``wombat up`` in `base` wrote, running or killed; None when ended."""
    try:
        kept = json.loads((base / STATE / RECORD).read_text(encoding="utf-8"))
        return UpRecord(
            process=str(kept["process"]),
            servers=tuple(map(str, kept["servers"])),
            since_utc=str(kept["since_utc"]),
            address=str(kept["address"]),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:  # cut by a power failure
        log.debug("%s: %s", RECORD, error)
        return None


# ------------------------------------------------------------------------------------ their runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphan:
    """A run that Dagster holds for unfinished although nothing works on it any more."""

    run_id: str
    job: str
    partition: str | None
    since_utc: dt.datetime
    words: str


def find_orphans(instance: "DagsterInstance", base: Path) -> list[Orphan]:
    """Return the unfinished runs whose process is gone; queued runs wait, and are none.

    A run inside a ``wombat`` command is known by its `RUN_TAG`, one that the daemon gave away by
    its `WORKER_TAG` or, with Dagster's own launcher, by the process that it named in its first
    event. One that has not come that far belongs to the daemon, whose business it is as long as
    ``wombat up`` lives.
    """
    from dagster import DagsterRunStatus, RunsFilter

    unfinished = [
        DagsterRunStatus.NOT_STARTED,
        DagsterRunStatus.STARTING,
        DagsterRunStatus.STARTED,
        DagsterRunStatus.CANCELING,
    ]
    records = instance.get_run_records(RunsFilter(statuses=unfinished))
    if not records:
        return []
    up = last_up(base)
    found = []
    for record in records:
        words = _why_orphaned(instance, record, up)
        if words is not None:
            run = record.dagster_run
            found.append(
                Orphan(
                    run_id=run.run_id,
                    job=run.job_name,
                    partition=run.tags.get("dagster/partition"),
                    since_utc=record.create_timestamp,
                    words=words,
                )
            )
    return found


def settle(instance: "DagsterInstance", base: Path, *, because: str | None = None) -> list[Orphan]:
    """Report the runs of `find_orphans` as failed, in words, and return them.

    To be called by ``wombat up`` at its start, now and then, and at its end, and by ``wombat run``.
    `because` is said instead of what can be seen from outside, by who knows better.
    """
    found = find_orphans(instance, base)
    for orphan in found:
        run = instance.get_run_by_id(orphan.run_id)
        if run is None or run.is_finished:
            continue  # it was only slow to say so
        words = because or orphan.words
        instance.report_run_failed(run, f"{words}; its work is done again where it is due")
        log.warning("%s %s: %s", orphan.job, orphan.partition or "", words)
    return found


def _why_orphaned(
    instance: "DagsterInstance", record: "RunRecord", up: UpRecord | None
) -> str | None:
    """Return what became of a run's process, or None when it may still be at work."""
    from dagster._core.storage.tags import GRPC_INFO_TAG

    run = record.dagster_run
    tag = run.tags.get(RUN_TAG)
    if tag is not None:
        if lives(tag):
            return None
        return f"ended with the wombat command that ran it (process {tag.partition(':')[0]})"
    up_lives = up is not None and up.lives
    worker_tag = run.tags.get(WORKER_TAG)
    if worker_tag is not None:
        if lives(worker_tag):
            return None
        return _words_of_worker(worker_tag.partition(":")[0], up, up_lives=up_lives)
    worker = _worker_of(instance, run)
    if worker is None:
        is_the_daemons = GRPC_INFO_TAG in run.tags
        if up_lives or not (is_the_daemons or _is_old(record)):
            return None
        return f"ended with {_up_words(up)} before it began"
    pid, said_s = worker
    if _is_at_work(pid, said_s):
        return None
    return _words_of_worker(str(pid), up, up_lives=up_lives)


def _words_of_worker(pid: str, up: UpRecord | None, *, up_lives: bool) -> str:
    if up_lives:
        return f"its process ({pid}) ended without a word: killed, perhaps for lack of memory"
    return f"its process ({pid}) ended with {_up_words(up)}"


def _up_words(up: UpRecord | None) -> str:
    if up is None:
        return "the wombat that ran it, or with the machine"
    return f"the wombat up of {up.since_utc}"


def _is_old(record: "RunRecord") -> bool:
    """Return whether a run was made so long ago that its command would have begun it."""
    return dt.datetime.now(dt.UTC) - record.create_timestamp > MAX_TO_BEGIN


def _worker_of(instance: "DagsterInstance", run: "DagsterRun") -> tuple[int, float] | None:
    """Return the process that works on a run and when it said so (s, Unix); None before that.

    Dagster's run workers write their id into an engine event (`EngineEventData.in_process`).
    """
    from dagster import DagsterEventType

    entries: Sequence = instance.all_logs(run.run_id, of_type=DagsterEventType.ENGINE_EVENT)
    for entry in reversed(entries):
        event = entry.dagster_event
        data = event.engine_event_data.metadata if event is not None else {}
        value = data.get("pid")
        if value is not None and str(value.value).isdecimal():
            return int(str(value.value)), entry.timestamp
    return None


def _is_at_work(pid: int, said_s: float) -> bool:
    """Return whether the process that spoke at `said_s` (s, Unix) lives.

    An id that another process got since is told by when that one began, where /proc tells it.
    """
    began = _began(pid)
    if began is None:
        return False
    if sys.platform != "linux":
        return True
    ticks = int(began.partition("@")[0])
    began_s = _boot_s() + ticks / os.sysconf("SC_CLK_TCK")
    return began_s <= said_s + BEGIN_TOLERANCE_S


def _boot_s() -> float:
    """Return when Linux began (s, Unix): proc_stat(5), btime."""
    for line in Path("/proc/stat").read_text(encoding="ascii").splitlines():
        if line.startswith("btime "):
            return float(line.split()[1])
    return 0.0
