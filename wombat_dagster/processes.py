"""``wombat up``: Dagster's web server and daemon and the review page, started and stopped as one.

Each runs in a session of its own, so that its code servers and runs can be ended with it: a plain
``dagster dev &`` ignores SIGTERM and leaves them behind. A small watcher ends them when ``wombat
up`` itself is killed. What they say goes to log files in ``.dagster_state``. While it runs
``wombat up`` looks after its Dagster: runs whose process is gone are reported as failed, old
records and logs are deleted (`retention`), and so is what killed writers left (`litter`).
"""

import contextlib
import http.client
import logging
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import IO, TYPE_CHECKING

from wombat_dagster import config, orphans, retention
from wombat_dagster.orphans import RECORD, STATE, UpRecord
from wombat_dagster.review.address import TOKEN_ENV, is_loopback, page_address, reachable
from wombat_dagster.store.frames import write_bytes_atomic

if TYPE_CHECKING:
    from dagster import DagsterInstance

log = logging.getLogger(__name__)

LOCK = "up.lock"
REVIEW = "review"
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 15.0  # Dagster's servers wait up to 10 s for each other
POLL_S = 0.3
ORPHANS_EVERY_S = 20.0
TIDY_EVERY_S = 24 * 3600.0
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
WATCHER = """\
groups=
while read -r word group; do
  case $word in watch) groups="$groups $group";; done) exit 0;; esac
done
for group in $groups; do kill -TERM "-$group" 2>/dev/null; done
left=$1
while [ "$left" -gt 0 ]; do
  sleep 1
  living=
  for group in $groups; do kill -0 "-$group" 2>/dev/null && living=1; done
  [ "$living" ] || exit 0
  left=$((left - 1))
done
for group in $groups; do kill -KILL "-$group" 2>/dev/null; done
"""
"""Reads what to watch from ``wombat up``; when that is gone without a word it ends the groups."""


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
    is_needed: bool = True  # False: the others go on without it

    def last_words(self) -> str:
        """Return the end of its log."""
        lines = self.log_file.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(lines[-TAIL_LINES:])


def up(
    base: Path,
    *,
    host: str,
    port: int,
    review_port: int,
    on_ready: Callable[[str, str | None], None],
) -> None:
    """Run web server, daemon and review page on `base` until a signal asks to stop.

    Then none is left. `on_ready` gets the addresses of Dagster and of the review page once the web
    server answers; None: that page's port is taken, and the others go on without it.

    Raises
    ------
    NotRunning
        Another ``wombat up`` runs in `base`, the port is taken, the web server does not answer, or
        it or the daemon ended by itself; the others are stopped.
    """
    state = base / STATE
    try:
        state.mkdir(exist_ok=True)
    except OSError as error:
        raise NotRunning(f"{state} cannot be made: {error.strerror}") from error
    with _alone(base), _noting_signals() as asked:
        end_leftovers(base)
        if is_taken(host, port):
            raise NotRunning(f"port {port} on {host} is in use by another program: try --port")
        environment = _environment(base)
        workspace = state / "workspace.yaml"
        write_bytes_atomic(workspace, WORKSPACE.encode())
        wanted = commands(workspace, host=host, port=port)
        page = None
        if not is_taken(host, review_port):
            token = None if is_loopback(host) else secrets.token_urlsafe(24)
            page = page_address(host, review_port, token)
            environment |= {} if token is None else {TOKEN_ENV: token}
            wanted[REVIEW] = _review_command(host, review_port)
        with _keeper(base) as keeper:
            address = f"http://{reachable(host)}:{port}"
            servers: list[Server] = []
            watcher = _start_watcher()
            try:
                for name, command in wanted.items():
                    servers.append(_start(name, command, base, environment))
                    _tell(watcher, f"watch {servers[-1].process.pid}")
                    _record(base, servers, address)
                _wait_until_answering(reachable(host), port, servers, asked)
                if not asked.to_stop:
                    on_ready(address, page)
                while not asked.to_stop:
                    _check_alive(servers)
                    keeper.look(servers, asked)
                    time.sleep(POLL_S)
            finally:
                stop(servers)
                _tell(watcher, "done")
                _end_watcher(watcher)
                (state / RECORD).unlink(missing_ok=True)
            keeper.after_stop()


def _environment(base: Path) -> dict[str, str]:
    environment = {**os.environ, "DAGSTER_HOME": str(base), "PYTHONUNBUFFERED": "1"}
    environment.setdefault(config.CONFIG_ENV, str(base / config.CONFIG_NAME))
    if not Path(environment[config.CONFIG_ENV]).exists():
        del environment[config.CONFIG_ENV]  # defaults hold; a name that is set must exist
    return environment


def commands(workspace: Path, *, host: str, port: int) -> dict[str, list[str]]:
    """Return the command lines, by name."""
    web = ["-m", "dagster_webserver", "--host", host, "--port", str(port)]
    daemon = ["-m", "dagster._daemon", "run"]
    return {
        name: [sys.executable, *words, "--workspace", str(workspace)]
        for name, words in (("webserver", web), ("daemon", daemon))
    }


def _review_command(host: str, port: int) -> list[str]:
    words = ["-m", "wombat_dagster.cli", "review", "--no-open", "--host", host, "--port", str(port)]
    return [sys.executable, *words]


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


# ------------------------------------------------------------------------- only one in a directory


@contextlib.contextmanager
def _alone(base: Path) -> Iterator[None]:
    """Be the only ``wombat up`` in `base`, or raise `NotRunning` with who is it.

    The system forgets the lock with its process. Where files cannot be locked (Windows, some
    network disks) the record of who runs decides.
    """
    other = orphans.last_up(base)
    try:
        handle = (base / STATE / LOCK).open("ab")
    except OSError as error:
        raise NotRunning(f"{base / STATE} cannot be written: {error.strerror}") from error
    with handle:
        is_ours = _lock(handle)
        if is_ours is False or (is_ours is None and other is not None and other.lives):
            who = (
                f" since {other.since_utc}, {other.address} (process {other.pid})" if other else ""
            )
            raise NotRunning(f"wombat up runs in {base} already{who}: end that one first")
        yield


def _lock(handle: IO[bytes]) -> bool | None:
    """Lock a file for this process; False when another has it, None when that cannot be done."""
    try:
        import fcntl
    except ImportError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def _record(base: Path, servers: Sequence[Server], address: str) -> None:
    """Write down who we are and whom we started, for `end_leftovers` and for the doctor."""
    names = [orphans.named(server.process.pid) for server in servers]
    record = UpRecord(
        process=orphans.this_process(),
        servers=tuple(name for name in names if name is not None),
        since_utc=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        address=address,
    )
    write_bytes_atomic(base / STATE / RECORD, record.content())


def end_leftovers(base: Path) -> int:
    """End what is left of a ``wombat up`` that was killed; return how many processes that were.

    To be called by whoever is alone. A group is ours when its leader is the very process that was
    written down, or, that one gone, when Dagster is at work in it.
    """
    record = orphans.last_up(base)
    if record is None or os.name != "posix":
        return 0
    members = _group_members()
    n_ended = 0
    for server in record.servers:
        group = int(server.partition(":")[0])
        words = members.get(group, {})
        is_ours = orphans.lives(server) or (
            group not in words and any("dagster" in word for word in words.values())
        )
        if words and is_ours:
            n_ended += len(words)
            _end_group(group)
    if n_ended:
        log.warning(
            "%d processes of the wombat up of %s, which was killed, were still there: ended",
            n_ended,
            record.since_utc,
        )
    return n_ended


def _group_members() -> dict[int, dict[int, str]]:
    """Return the command line of every living process, by group and process id."""
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,pgid=,stat=,args="],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    groups: dict[int, dict[int, str]] = {}
    for line in listed.stdout.splitlines():
        pid, group, state, *words = line.split(maxsplit=3)
        if not state.startswith("Z"):
            groups.setdefault(int(group), {})[int(pid)] = words[0] if words else ""
    return groups


def _end_group(group: int) -> None:
    """End a group of processes that are not our children: asked first, then killed."""
    for number, patience_s in ((signal.SIGTERM, STOP_TIMEOUT_S), (signal.SIGKILL, 2.0)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, number)
        until_s = time.monotonic() + patience_s
        while time.monotonic() < until_s:
            if not _group_members().get(group):
                return
            time.sleep(0.2)


# ----------------------------------------------------------------------------- starting and ending


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
    retention.rotate_log(log_file)
    with log_file.open("ab") as out:  # to its end, so that it can be cut while the server runs
        process = subprocess.Popen(
            command,
            cwd=base,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Server(name=name, process=process, log_file=log_file, is_needed=name != REVIEW)


def _start_watcher() -> "subprocess.Popen[bytes] | None":
    """Start the watcher in a session of its own; None where there is no shell for it."""
    if os.name != "posix":
        return None
    return subprocess.Popen(
        ["/bin/sh", "-c", WATCHER, "wombat-watcher", f"{STOP_TIMEOUT_S:.0f}"],
        cwd="/",
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _tell(watcher: "subprocess.Popen[bytes] | None", words: str) -> None:
    if watcher is None or watcher.stdin is None:
        return
    with contextlib.suppress(OSError):  # somebody killed it: it is not needed to run
        watcher.stdin.write(f"{words}\n".encode())
        watcher.stdin.flush()


def _end_watcher(watcher: "subprocess.Popen[bytes] | None") -> None:
    if watcher is None or watcher.stdin is None:
        return
    with contextlib.suppress(OSError):
        watcher.stdin.close()
    watcher.wait()


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


def _check_alive(servers: list[Server]) -> None:
    """Raise `NotRunning` when one that is needed has ended; of another it is said once."""
    for server in list(servers):
        if (code := server.process.poll()) is None:
            continue
        if not server.is_needed:
            servers.remove(server)
            log.warning(
                "%s ended by itself (exit code %d), wombat review starts it again; its last words,"
                " from %s:\n%s",
                server.name, code, server.log_file, server.last_words(),
            )  # fmt: skip
        else:
            raise NotRunning(
                f"{server.name} ended by itself (exit code {code}), the other was stopped; its"
                f" last words, from {server.log_file}:\n{server.last_words()}"
            )


def _wait_until_answering(host: str, port: int, servers: list[Server], asked: _Asked) -> None:
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


# --------------------------------------------------------------------- looking after the instance


@contextlib.contextmanager
def _keeper(base: Path) -> Iterator["_Keeper"]:
    """Give who looks after `base`: what was left behind is put in order before anything starts."""
    from wombat_dagster import runs
    from wombat_dagster.observatory import open_observatory

    with runs.home(base) as instance:
        keeper = _Keeper(base, instance, keep_days=open_observatory().settings.runs.keep_days)
        with _troubles("looking for interrupted runs"):
            orphans.settle(instance, base)
        yield keeper


class _Keeper:
    """What ``wombat up`` does beside waiting. Nothing here ends it: troubles are said and pass."""

    def __init__(self, base: Path, instance: "DagsterInstance", *, keep_days: float) -> None:
        self._base = base
        self._instance = instance
        self._keep_days = keep_days
        self._orphans_due_s = time.monotonic() + ORPHANS_EVERY_S
        self._tidy_due_s = time.monotonic()
        self._tidying: Iterator[str] | None = None

    def look(self, servers: Sequence[Server], asked: _Asked) -> None:
        """Do what is due, never for longer than a second or so."""
        for server in servers:
            with _troubles(f"cutting {server.log_file.name}"):
                retention.cut_log(server.log_file)
        if time.monotonic() >= self._orphans_due_s:
            with _troubles("looking for interrupted runs"):
                orphans.settle(self._instance, self._base)
            self._orphans_due_s = time.monotonic() + ORPHANS_EVERY_S
        if self._tidying is None and time.monotonic() >= self._tidy_due_s:
            self._tidying = self._tidy()
            self._tidy_due_s = time.monotonic() + TIDY_EVERY_S
        if self._tidying is not None and not asked.to_stop:
            with _troubles("deleting old records"):
                if next(self._tidying, None) is None:
                    self._tidying = None

    def _tidy(self) -> Iterator[str]:
        """Delete what is old, a little with every step."""
        from wombat_dagster.litter import clean_litter
        from wombat_dagster.observatory import open_observatory

        clean_litter(open_observatory())
        yield "litter"
        retention.delete_old_logs(self._base / STATE, keep_days=self._keep_days)
        yield "logs"
        n_deleted = 0
        for run_id in retention.prune(self._instance, keep_days=self._keep_days):
            n_deleted += 1
            yield run_id
        if n_deleted:
            log.info("%d runs older than %g days deleted", n_deleted, self._keep_days)

    def after_stop(self) -> None:
        """Report the runs that did not come to say that they were ended."""
        with _troubles("looking for interrupted runs"):
            orphans.settle(self._instance, self._base, because="wombat up was ended")


@contextlib.contextmanager
def _troubles(doing: str) -> Iterator[None]:
    """Say what went wrong with housekeeping, and go on: a full disk must not end ``wombat up``."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - Dagster, SQLAlchemy, SQLite, the disk: all pass
        log.warning("%s: %s", doing, str(error).partition("\n")[0])
