"""Runs of the UI and of the sensors in warm processes; Dagster's own launcher begins one for each.

Loading everything takes longer than most runs do. The daemon keeps a few processes that have
loaded it and gives them one run after the other; idle ones leave. Everything about a run is told by
Dagster's own events, so that the UI shows what it always does; only what a step prints is not
captured, it goes to ``.dagster_state/runs-<number>.log``.
"""

import contextlib
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

from dagster import BetaWarning, DagsterInstance, DagsterRunStatus
from dagster._config.config_schema import UserConfigSchema
from dagster._core.events import EngineEventData
from dagster._core.execution import context_creation_job
from dagster._core.launcher.base import LaunchRunContext, RunLauncher
from dagster._serdes import ConfigurableClass
from dagster._serdes.config_class import ConfigurableClassData

from wombat_dagster import orphans, workers

log = logging.getLogger(__name__)

IDLE_S = 120.0  # after which a process leaves
MAX_RUNS = 100  # of one process: libraries may lose memory
CANCEL_PATIENCE_S = 20.0  # for a run that is to end; then its process is killed


@dataclass(slots=True)
class _Hand:
    """One process, its name (`orphans.named`), and the run it is at."""

    process: subprocess.Popen[str]
    name: str
    log_file: Path
    run_id: str | None = None


class WarmRunLauncher(RunLauncher, ConfigurableClass):
    """Gives runs to warm processes of this machine; ``run_launcher`` of ``dagster.yaml``."""

    def __init__(self, inst_data: ConfigurableClassData | None = None) -> None:
        self._inst_data = inst_data
        self._hands: list[_Hand] = []
        self._lock = threading.Lock()
        super().__init__()  # type: ignore[no-untyped-call]  # Dagster's has no annotations

    @property
    def inst_data(self) -> ConfigurableClassData | None:
        """What ``dagster.yaml`` says."""
        return self._inst_data

    @classmethod
    def config_type(cls) -> UserConfigSchema:
        """Return that nothing can be configured."""
        return {}

    @classmethod
    def from_config_value(
        cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]
    ) -> Self:
        """Return the launcher that ``dagster.yaml`` asks for."""
        return cls(inst_data=inst_data, **config_value)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Give a run to an idle process, or to a new one."""
        run_id = context.dagster_run.run_id
        with self._lock:
            idle = [h for h in self._hands if h.run_id is None and h.process.poll() is None]
            hand = idle[0] if idle else self._hire()
            hand.run_id = run_id
        self._instance.add_run_tags(run_id, {orphans.WORKER_TAG: hand.name})
        assert hand.process.stdin is not None
        with contextlib.suppress(OSError):  # it died: `_listen` hears of it
            hand.process.stdin.write(f"{json.dumps({'run_id': run_id})}\n")
            hand.process.stdin.flush()

    def terminate(self, run_id: str) -> bool:
        """Interrupt a run, whichever process gave it away; False when it is over already."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        self._instance.report_run_canceling(run)
        name = run.tags.get(orphans.WORKER_TAG)
        if name is None or not orphans.lives(name):
            self._instance.report_run_canceled(run)
            return True
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(name.partition(":")[0]), signal.SIGTERM)
        threading.Thread(target=_insist, args=(name,), daemon=True).start()
        return True

    def dispose(self) -> None:
        """Send everybody home; who is at work is interrupted (`workers.Orders`)."""
        with self._lock:
            for hand in self._hands:
                assert hand.process.stdin is not None
                with contextlib.suppress(OSError):
                    hand.process.stdin.close()
            self._hands.clear()

    def _hire(self) -> _Hand:
        base = Path(os.environ["DAGSTER_HOME"])  # `wombat up` sets it
        state = base / orphans.STATE
        state.mkdir(parents=True, exist_ok=True)
        taken = {hand.log_file for hand in self._hands}
        number = next(i for i in range(1, len(taken) + 2) if _log_file(state, i) not in taken)
        log_file = _log_file(state, number)
        # Of this process's session: whoever ends that ends the run as well.
        process = workers.start_worker(__name__, base, log_file, new_session=False)
        hand = _Hand(process, orphans.named(process.pid) or f"{process.pid}:", log_file)
        assert process.stdout is not None
        threading.Thread(target=self._listen, args=(hand, process.stdout), daemon=True).start()
        self._hands.append(hand)
        return hand

    def _listen(self, hand: _Hand, stream: IO[str]) -> None:
        with contextlib.suppress(ValueError, OSError):  # closed, or cut in the middle of a line
            for line in stream:
                self._hear(hand, json.loads(line))
        with self._lock:
            with contextlib.suppress(ValueError):
                self._hands.remove(hand)
            run_id, hand.run_id = hand.run_id, None
        code = hand.process.wait()
        workers.close(hand.process)
        if run_id is not None:
            words = f"{workers.how_it_ended(code)}{workers.last_words(hand.log_file)}"
            self._bury(run_id, f"its process ended: {words}")

    def _hear(self, hand: _Hand, message: dict[str, Any]) -> None:
        with self._lock:
            if "over" in message:
                hand.run_id = None
            elif "leaving" in message and hand.run_id is None:
                self._hands.remove(hand)
                assert hand.process.stdin is not None
                hand.process.stdin.close()

    def _bury(self, run_id: str, words: str) -> None:
        """Report a run whose process is gone, if that could not do so itself."""
        if not self.has_instance:
            return
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return
        if run.status is DagsterRunStatus.CANCELING:
            self._instance.report_run_canceled(run, words)
        else:
            self._instance.report_run_failed(run, words)


def _log_file(state: Path, number: int) -> Path:
    return state / f"runs-{number}.log"


def _insist(name: str) -> None:
    """Kill a process that does not end although it was asked to."""
    until_s = time.monotonic() + CANCEL_PATIENCE_S
    while time.monotonic() < until_s:
        if not orphans.lives(name):
            return
        time.sleep(1.0)
    log.warning("a run did not end within %.0f s: killed", CANCEL_PATIENCE_S)
    with contextlib.suppress(ProcessLookupError):
        os.kill(int(name.partition(":")[0]), getattr(signal, "SIGKILL", signal.SIGTERM))


# -------------------------------------------------------------------------- inside a process


def main(base: Path) -> int:
    """Carry out the runs that come on the standard input until it ends."""
    from wombat_dagster.runs import home, warm_up

    answer = workers.begin()
    warnings.simplefilter("ignore", BetaWarning)  # DataVersion on Output
    # Every event on the terminal as well, where nobody is: a tenth of a run's time.
    vars(context_creation_job)["default_system_loggers"] = lambda _instance: []
    orders = workers.Orders(sys.stdin, leads_session=False)
    with home(base) as instance:
        warm_up()
        n_done = 0
        while True:
            try:
                order = orders.next(patience_s=IDLE_S if n_done < MAX_RUNS else 0.1)
            except queue.Empty:
                answer(leaving=True)
                order = orders.next()  # one may be under way
            if order is None:
                return 0
            was_interrupted = _execute(instance, order["run_id"])
            answer(over=order["run_id"])
            if was_interrupted:
                return 0
            n_done += 1


def _execute(instance: DagsterInstance, run_id: str) -> bool:
    """Carry out one run as Dagster's own processes do; return whether it was interrupted."""
    from dagster._core.errors import DagsterExecutionInterruptedError
    from dagster._grpc.impl import core_execute_run
    from dagster._utils.hosted_user_process import recon_job_from_origin
    from dagster._utils.interrupts import capture_interrupts

    run = instance.get_run_by_id(run_id)
    if run is None or run.is_finished or run.job_code_origin is None:
        log.warning("run %s is gone or over before it began", run_id)
        return False
    pid = os.getpid()
    instance.report_engine_event(
        f"Taken by a warm process (pid: {pid}).", run, EngineEventData.in_process(pid)
    )
    try:
        with capture_interrupts():
            job = recon_job_from_origin(run.job_code_origin)
            for _ in core_execute_run(job, run, instance, inject_env_vars=False):
                pass
    except (KeyboardInterrupt, DagsterExecutionInterruptedError):
        return True
    except Exception:  # it is in the run's events: `core_execute_run` sees to that
        log.exception("run %s", run_id)
    after = instance.get_run_by_id(run_id)
    return after is not None and after.status in (
        DagsterRunStatus.CANCELED,
        DagsterRunStatus.CANCELING,
    )


if __name__ == "__main__":
    try:
        sys.exit(main(Path(sys.argv[1])))
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(128 + signal.SIGINT)
