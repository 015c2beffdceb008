"""``wombat up``: Dagster's web server and daemon as one thing that starts and stops together.

Each runs in a session of its own, so that its code servers and runs can be ended with it: a plain
``dagster dev &`` ignores SIGTERM and leaves them behind. What they say goes to log files in
``.dagster_state``.
"""

import contextlib
import http.client
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from wombat_dagster import config
from wombat_dagster.store.frames import write_bytes_atomic

log = logging.getLogger(__name__)

STATE = ".dagster_state"
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 15.0  # Dagster's servers wait up to 10 s for each other
POLL_S = 0.3
TAIL_LINES = 15
WORKSPACE = """\
load_from:
  - python_module:
      module_name: wombat_dagster.definitions
      location_name: wombat
"""
"""As workspace.yaml in the repository: a location of another name is other sensors to Dagster."""
STOP_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


class NotRunning(Exception):
    """The servers could not be started, or one of them ended by itself."""


class _Asked:
    """Whether a signal asked us to stop.

    Only noted, never raised: an exception between starting a server and knowing it would leave the
    server behind.
    """

    def __init__(self) -> None:
        self.to_stop = False

    def note(self, _number: int, _frame: FrameType | None) -> None:
        """Take a signal."""
        self.to_stop = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One running program, the leader of its own session, and its log."""

    name: str
    process: subprocess.Popen[bytes]
    log_file: Path

    def last_words(self) -> str:
        """Return the end of its log."""
        lines = self.log_file.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-TAIL_LINES:])


def up(base: Path, *, host: str, port: int, on_ready: Callable[[str], None]) -> None:
    """Run web server and daemon on `base` until a signal asks to stop; then none is left.

    `on_ready` gets the address once the web server answers.

    Raises
    ------
    NotRunning
        The port is taken, the web server does not answer, or one of the two ended by itself; the
        other is stopped.
    """
    if is_taken(host, port):
        raise NotRunning(f"port {port} on {host} is in use: another wombat up? try --port")
    state = base / STATE
    state.mkdir(exist_ok=True)
    workspace = state / "workspace.yaml"
    write_bytes_atomic(workspace, WORKSPACE.encode())
    environment = {**os.environ, "DAGSTER_HOME": str(base), "PYTHONUNBUFFERED": "1"}
    environment.setdefault(config.CONFIG_ENV, str(base / config.CONFIG_NAME))
    if not Path(environment[config.CONFIG_ENV]).exists():
        del environment[config.CONFIG_ENV]  # defaults hold; a name that is set must exist
    servers: list[Server] = []
    with _noting_signals() as asked:
        try:
            for name, command in commands(workspace, host=host, port=port).items():
                servers.append(_start(name, command, base, environment))
            _wait_until_answering(_reachable(host), port, servers, asked)
            if not asked.to_stop:
                on_ready(f"http://{_reachable(host)}:{port}")
            while not asked.to_stop:
                _check_alive(servers)
                time.sleep(POLL_S)
        finally:
            stop(servers)


def commands(workspace: Path, *, host: str, port: int) -> dict[str, list[str]]:
    """Return the command lines, by name."""
    web = ["-m", "dagster_webserver", "--host", host, "--port", str(port)]
    daemon = ["-m", "dagster._daemon", "run"]
    return {
        name: [sys.executable, *words, "--workspace", str(workspace)]
        for name, words in (("webserver", web), ("daemon", daemon))
    }


def is_taken(host: str, port: int) -> bool:
    """Return whether nothing more can listen on the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        if os.name == "posix":  # as servers do: a port that was just left counts as free
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
        except OSError:
            return True
    return False


def stop(servers: Sequence[Server]) -> None:
    """End the servers and everything they started: asked first, then killed."""
    for server in servers:
        _signal(server, signal.SIGTERM)
    deadline_s = time.monotonic() + STOP_TIMEOUT_S
    while any(_lives(server) for server in servers) and time.monotonic() < deadline_s:
        time.sleep(0.1)
    for server in servers:
        if _lives(server):
            log.warning("%s did not end within %.0f s: killed", server.name, STOP_TIMEOUT_S)
            _signal(server, getattr(signal, "SIGKILL", signal.SIGTERM))
        server.process.wait()


def _start(name: str, command: Sequence[str], base: Path, environment: Mapping[str, str]) -> Server:
    log_file = base / STATE / f"{name}.log"
    with log_file.open("wb") as out:
        process = subprocess.Popen(
            command,
            cwd=base,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Server(name=name, process=process, log_file=log_file)


def _signal(server: Server, number: int) -> None:
    """Send a signal to the whole session of a server, whether its leader lives or not."""
    if os.name != "posix":  # Windows knows no process groups to signal
        subprocess.run(
            ["taskkill", "/T", "/F", "/PID", str(server.process.pid)],
            check=False,
            capture_output=True,
        )
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.process.pid, number)


def _lives(server: Server) -> bool:
    """Return whether anything of a server's session is left; its leader is reaped on the way."""
    ended = server.process.poll() is not None
    if os.name != "posix":
        return not ended
    try:
        os.killpg(server.process.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # macOS: only what nobody has reaped yet is left
        return not ended
    return True


def _check_alive(servers: Sequence[Server]) -> None:
    for server in servers:
        if (code := server.process.poll()) is not None:
            raise NotRunning(
                f"{server.name} ended by itself (exit code {code}), the other was stopped; its"
                f" last words, from {server.log_file}:\n{server.last_words()}"
            )


def _wait_until_answering(host: str, port: int, servers: Sequence[Server], asked: _Asked) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while not asked.to_stop and not _answers(host, port):
        _check_alive(servers)
        if time.monotonic() > deadline_s:
            raise NotRunning(f"no answer from {host}:{port} within {START_TIMEOUT_S:.0f} s")
        time.sleep(POLL_S)


def _answers(host: str, port: int) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=5.0)
    try:
        connection.request("GET", "/server_info")
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _reachable(host: str) -> str:
    """Return the address under which this machine reaches a server that listens on `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


@contextlib.contextmanager
def _noting_signals() -> Iterator[_Asked]:
    """Note the signals to stop instead of obeying them at once."""
    asked = _Asked()
    before = {number: signal.signal(number, asked.note) for number in STOP_SIGNALS}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
