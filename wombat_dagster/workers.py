"""Warm worker processes: each loads everything once and carries out one run after the other.

The parent hands out tasks, one line of JSON each, and hears of every stage and every end the same
way. What a worker prints goes to its log. A worker that dies or takes too long costs its own task
alone; when the parent is gone the workers end.
"""

import contextlib
import faulthandler
import json
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any, Self

from wombat_dagster import orphans
from wombat_dagster.runs import Done, Task, execute_task, home, warm_up

log = logging.getLogger(__name__)

MAX_BY_DEFAULT = 4
POLL_S = 0.5
GRACE_S = 3.0  # from the wish to stop until a worker is killed
LEAVE_S = 5.0  # that an idle worker may take to end by itself
MAX_WORDS = 300  # of a log, in the words for a worker's death


def default_number() -> int:
    """Return how many workers this machine is good for: one a core, at most four."""
    return max(1, min(os.cpu_count() or 1, MAX_BY_DEFAULT))


class NoWorkers(Exception):
    """A worker ended before it could begin anything; the message says what it said."""


@dataclass(slots=True)
class _Hand:
    """One worker process, and what it does."""

    process: subprocess.Popen[str]
    log_file: Path
    is_ready: bool = False
    task: Task | None = None
    run_id: str = ""
    since_s: float = 0.0  # monotonic; of its task, or of its being ready if that was later


class Workers:
    """A crew of `n` processes (`runs.Crew`); each task may take `time_limit_s`.

    Processes are started when there is work. To be used as a context manager.
    """

    tries = 2

    def __init__(
        self,
        instance: Any,
        base: Path,
        *,
        n: int,
        time_limit_s: float,
        on_step: Callable[[str, str], None] = lambda _key, _asset: None,
    ) -> None:
        self._instance, self._base, self._n = instance, base, n
        self.time_limit_s, self._on_step = time_limit_s, on_step
        self._hands: list[_Hand] = []
        self._heard: queue.Queue[tuple[_Hand, dict[str, Any] | None]] = queue.Queue()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop()

    def work(self, tasks: Sequence[Task], on_done: Callable[[Task, Done], None]) -> None:
        """Carry out `tasks`; the next one goes to whoever is free."""
        ahead = deque(tasks)
        while ahead or any(hand.task for hand in self._hands):
            self._hand_out(ahead)
            try:
                hand, message = self._heard.get(timeout=POLL_S)
            except queue.Empty:
                pass
            else:
                self._hear(hand, message, on_done)
            self._end_what_takes_too_long(on_done)

    # ------------------------------------------------------------------------------- the work

    def _hand_out(self, ahead: deque[Task]) -> None:
        while ahead:
            free = next((hand for hand in self._hands if hand.task is None), None)
            if free is None and len(self._hands) < self._n:
                free = self._hire()
            if free is None:
                return
            free.task, free.run_id = ahead.popleft(), str(uuid.uuid4())
            free.since_s = time.monotonic()
            line = json.dumps({"run_id": free.run_id, "task": asdict(free.task)})
            with contextlib.suppress(OSError):  # it died: its end is heard of
                assert free.process.stdin is not None
                free.process.stdin.write(f"{line}\n")
                free.process.stdin.flush()

    def _hear(
        self, hand: _Hand, message: dict[str, Any] | None, on_done: Callable[[Task, Done], None]
    ) -> None:
        if hand not in self._hands:
            return  # its last words, after it was given up
        if message is None:
            self._bury(hand, on_done)
        elif "ready" in message:
            hand.is_ready, hand.since_s = True, time.monotonic()
        elif "step" in message:
            self._on_step(*message["step"])
        else:
            task, hand.task = hand.task, None
            assert task is not None
            on_done(task, Done(**message["done"]))

    def _bury(self, hand: _Hand, on_done: Callable[[Task, Done], None]) -> None:
        """Take note of a worker that ended by itself; its task is the price."""
        code = hand.process.wait()
        self._hands.remove(hand)
        close(hand.process)
        words = f"{how_it_ended(code)}{last_words(hand.log_file)}"
        if not hand.is_ready:
            raise NoWorkers(f"a worker ended before its first task, {words}")
        if hand.task is not None:
            self._give_up(hand, f"its process ended: {words}", on_done)

    def _end_what_takes_too_long(self, on_done: Callable[[Task, Done], None]) -> None:
        for hand in list(self._hands):
            took_s = time.monotonic() - hand.since_s
            if hand.task is None or not hand.is_ready or took_s <= self.time_limit_s:
                continue
            self._hands.remove(hand)
            _kill(hand.process)
            words = f"not done within {self.time_limit_s:g} s ([runs] time_limit_s)"
            self._end_stage(hand.task.key, hand.run_id, words)
            self._give_up(hand, words, on_done, may_be_tried=False)

    def _give_up(
        self,
        hand: _Hand,
        words: str,
        on_done: Callable[[Task, Done], None],
        *,
        may_be_tried: bool = True,
    ) -> None:
        assert hand.task is not None
        close(hand.process)
        self._report(hand.run_id, words)
        done = Done(key=hand.task.key, error=words, run_id=hand.run_id, may_be_tried=may_be_tried)
        on_done(hand.task, done)

    def _report(self, run_id: str, words: str) -> None:
        """Report a run as failed in Dagster, if it had begun there and is not over."""
        run = self._instance.get_run_by_id(run_id)
        if run is not None and not run.is_finished:
            self._instance.report_run_failed(run, words)

    def _end_stage(self, key: str, run_id: str, words: str) -> None:
        """Write the end of a stage that its worker cannot write any more."""
        from wombat_dagster.observatory import open_observatory
        from wombat_dagster.store.stage_runs import FAILED, StageRuns

        rows = StageRuns(open_observatory().status.path)
        for one in rows.history(key):
            if one.run_id == run_id and one.ending is None:
                rows.end(one.number, FAILED, words, inputs=one.inputs)

    # -------------------------------------------------------------------------------- the staff

    def _hire(self) -> _Hand:
        logs = self._base / orphans.STATE
        logs.mkdir(parents=True, exist_ok=True)
        taken = {hand.log_file for hand in self._hands}
        log_file = next(
            file for i in range(1, self._n + 1) if (file := logs / f"worker-{i}.log") not in taken
        )
        # A Ctrl-C in the terminal is the parent's business, and a killed worker's plate solver goes
        # with it.
        process = start_worker("wombat_dagster.workers", self._base, log_file, new_session=True)
        hand = _Hand(process, log_file)
        assert process.stdout is not None
        threading.Thread(target=self._listen, args=(hand, process.stdout), daemon=True).start()
        self._hands.append(hand)
        return hand

    def _listen(self, hand: _Hand, stream: IO[str]) -> None:
        with contextlib.suppress(ValueError, OSError):  # closed, or cut in the middle of a line
            for line in stream:
                self._heard.put((hand, json.loads(line)))
        self._heard.put((hand, None))

    def _stop(self) -> None:
        """Send everybody home; who is at work is interrupted, and killed if that does not help."""
        at_work = [hand for hand in self._hands if hand.task is not None]
        for hand in self._hands:
            if hand.task is not None:
                hand.process.terminate()
            elif hand.process.stdin is not None:
                with contextlib.suppress(OSError):
                    hand.process.stdin.close()
        until_s = time.monotonic() + (GRACE_S if at_work else LEAVE_S)
        for hand in self._hands:
            try:
                hand.process.wait(max(0.0, until_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                log.debug("%s had to be killed", hand.log_file.stem)
            _kill(hand.process)  # and what it may have left at work
            close(hand.process)
        self._hands.clear()
        for hand in at_work:
            self._report(hand.run_id, "interrupted; the same command goes on with it")


def start_worker(
    module: str, base: Path, log_file: Path, *, new_session: bool
) -> subprocess.Popen[str]:
    """Start `module` as a worker on `base`, with pipes for orders and answers."""
    with log_file.open("wb") as errors:
        return subprocess.Popen(
            [sys.executable, "-m", module, str(base)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            encoding="utf-8",
            start_new_session=new_session,
        )


def _kill(process: subprocess.Popen[str]) -> None:
    """Kill a worker and whatever it has started."""
    if sys.platform == "win32":
        process.kill()
    else:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def close(process: subprocess.Popen[str]) -> None:
    """Close the pipes to a worker."""
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


def how_it_ended(code: int) -> str:
    """Return an exit code in words."""
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"killed by {name}" + (" (out of memory?)" if name == "SIGKILL" else "")


def last_words(log_file: Path) -> str:
    """Return the end of a worker's log, to be appended; empty when there is none."""
    with contextlib.suppress(OSError):
        text = log_file.read_text(encoding="utf-8", errors="replace").strip()
        if text:
            return f"; {log_file}: …{text[-MAX_WORDS:]}"
    return ""


# -------------------------------------------------------------------------- inside a worker


class Orders:
    """Tasks as they come. When the parent is gone, so is the worker: soon, or at once when idle.

    One that leads a session takes everything in it along.
    """

    def __init__(self, stream: IO[str], *, leads_session: bool) -> None:
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._leads_session = leads_session
        self.is_at_work = False
        threading.Thread(target=self._read, args=(stream,), daemon=True).start()

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            self._lines.put(line)
        self._lines.put(None)
        if self.is_at_work:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(GRACE_S)
            if sys.platform == "win32" or not self._leads_session:
                os._exit(1)
            os.killpg(os.getpgrp(), signal.SIGKILL)

    def next(self, *, patience_s: float | None = None) -> dict[str, Any] | None:
        """Return the next order; None: there are no more. Raises `queue.Empty`."""
        self.is_at_work = False
        line = self._lines.get(timeout=patience_s)
        self.is_at_work = line is not None
        return None if line is None else json.loads(line)


def begin() -> Callable[..., None]:
    """Prepare this process for work; return what sends the parent a message, by its parts."""
    faulthandler.enable()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    for name in ("dagster", "alembic", "httpx", "matplotlib"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Whatever prints must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)

    def answer(**message: Any) -> None:
        answers.write(f"{json.dumps(message)}\n")

    return answer


def main(base: Path) -> int:
    """Carry out what comes on the standard input until it ends."""
    answer = begin()
    orders = Orders(sys.stdin, leads_session=True)
    with home(base) as instance:
        warm_up()
        answer(ready=True)
        while (order := orders.next()) is not None:
            task = Task(**{**order["task"], "assets": tuple(order["task"]["assets"])})
            done = execute_task(
                instance,
                task,
                lambda key, asset: answer(step=[key, asset]),
                run_id=order["run_id"],
            )
            answer(done=asdict(done))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(Path(sys.argv[1])))
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(128 + signal.SIGINT)
