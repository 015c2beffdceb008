"""``wombat up``: real servers, and that nothing is left of them."""

import os
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from wombat_dagster import config, orphans, processes
from wombat_dagster.cli import main

pytestmark = pytest.mark.skipif(os.name != "posix", reason="sessions and signals are POSIX's")
PATIENCE_S = 90.0


def free_port():
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return trial.getsockname()[1]


def sessions():
    """Return the session of every living process, zombies excepted, by process id."""
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,sess=,stat="], capture_output=True, text=True, check=True
    )
    rows = (line.split() for line in listed.stdout.splitlines())
    return {int(pid): int(session) for pid, session, state in rows if not state.startswith("Z")}


def children_of(pid):
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True
    )
    rows = (map(int, line.split()) for line in listed.stdout.splitlines())
    return {child for child, parent in rows if parent == pid}


def wait_for_line(process, words):
    said = ""
    until_s = time.monotonic() + PATIENCE_S
    while words not in said:
        assert time.monotonic() < until_s, said
        if select.select([process.stdout], [], [], 1.0)[0]:
            piece = os.read(process.stdout.fileno(), 4096).decode()
            assert piece, f"ended after saying: {said}"
            said += piece
    return said


@pytest.fixture
def started(place):
    """A running ``wombat up`` and its ports, Dagster's and the review page's."""
    place.take("20251014/Light/*/*V.fit")
    port, page_port = free_port(), free_port()
    place.configure(review=f"port = {page_port}")
    environment = {k: v for k, v in os.environ.items() if k not in ("DAGSTER_HOME", "COLUMNS")}
    environment[config.CONFIG_ENV] = str(place.root / "wombat.toml")
    command = [sys.executable, "-m", "wombat_dagster.cli", "up", "--port", str(port)]
    process = subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/"
    )
    try:
        yield process, port, page_port
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate()


@pytest.mark.slow
def test_a_signal_takes_the_whole_tree_down(started, place):
    process, port, page_port = started
    assert f"http://127.0.0.1:{port}" in wait_for_line(process, "wombat is up")
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/server_info") as answer:
        assert answer.status == 200
    record = orphans.last_up(place.root)
    assert record.lives
    assert record.pid == str(process.pid)
    servers = {int(name.partition(":")[0]) for name in record.servers}
    assert len(servers) == 3
    page = urllib.request.Request(f"http://127.0.0.1:{page_port}/")
    with urllib.request.urlopen(page) as answer:
        assert b"wombat" in answer.read()
    assert servers < children_of(process.pid)  # and the watcher
    with pytest.raises(processes.NotRunning, match=f"already since .*127.0.0.1:{port}"):
        processes.up(place.root, host="127.0.0.1", port=free_port(), review_port=1, on_ready=print)
    # The web server answers when its code server is there: more than the two leaders live.
    assert sum(session in servers for session in sessions().values()) > len(servers)

    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=PATIENCE_S)

    assert process.returncode == 0, said
    assert b"Stopped." in said
    assert not servers & set(sessions().values())
    assert orphans.last_up(place.root) is None
    assert not processes.is_taken("127.0.0.1", port)
    assert not processes.is_taken("127.0.0.1", page_port)


@pytest.mark.slow
def test_when_the_daemon_dies_the_web_server_is_stopped_and_it_is_said(started):
    process, port, _page_port = started
    wait_for_line(process, "wombat is up")
    servers = children_of(process.pid)
    listed = subprocess.run(
        ["ps", "-A", "-o", "pid=,args="], capture_output=True, text=True, check=True
    )
    by_pid = dict(line.split(maxsplit=1) for line in listed.stdout.splitlines())
    daemon = next(pid for pid in servers if "dagster._daemon" in by_pid[str(pid)])

    os.kill(daemon, signal.SIGKILL)
    said, _ = process.communicate(timeout=PATIENCE_S)

    assert process.returncode == 1
    assert b"daemon ended by itself (exit code -9)" in said
    assert b"Traceback" not in said
    assert not servers & set(sessions().values())
    assert not processes.is_taken("127.0.0.1", port)


def test_the_others_go_on_when_the_review_page_ended_and_it_is_said_once(tmp_path, caplog):
    (tmp_path / processes.STATE).mkdir()
    words = ["sh", "-c", "echo trouble; exit 3"]
    server = processes._start("review", words, tmp_path, dict(os.environ))
    server.process.wait()
    servers = [server]
    processes._check_alive(servers)
    processes._check_alive(servers)
    assert servers == []
    (record,) = caplog.records
    assert "review ended by itself (exit code 3)" in record.getMessage()
    assert "trouble" in record.getMessage()


@pytest.mark.parametrize("number", processes.STOP_SIGNALS)
def test_a_signal_is_noted_and_obeyed_later(number):
    before = signal.getsignal(number)
    with processes._noting_signals() as asked:
        assert not asked.to_stop
        os.kill(os.getpid(), number)
        assert asked.to_stop
    assert signal.getsignal(number) is before


def test_a_port_in_use_is_refused_before_anything_starts(tmp_path):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        with pytest.raises(processes.NotRunning, match=f"port {port}"):
            processes.up(
                tmp_path, host="127.0.0.1", port=port, review_port=free_port(), on_ready=print
            )
    assert [path.name for path in (tmp_path / processes.STATE).iterdir()] == [processes.LOCK]


def test_the_lock_of_a_killed_one_is_taken_over(tmp_path):
    state = tmp_path / processes.STATE
    state.mkdir()
    dead = subprocess.Popen(["true"])
    dead.wait()
    record = orphans.UpRecord(
        process=f"{dead.pid}:0", servers=(), since_utc="2025-10-15T20:00:00Z", address="http://x"
    )
    (state / orphans.RECORD).write_bytes(record.content())
    (state / processes.LOCK).touch()
    with (
        processes._alone(tmp_path),
        pytest.raises(processes.NotRunning, match="already"),
        processes._alone(tmp_path),
    ):
        pass


def test_killed_itself_it_takes_its_servers_with_it(tmp_path):
    """``kill -9`` leaves no time to end anything: the watcher does, children included."""
    (tmp_path / processes.STATE).mkdir()
    script = f"""
import os, pathlib, time
from wombat_dagster import processes
watcher = processes._start_watcher()
command = ["sh", "-c", "sleep 600 & wait"]
server = processes._start("daemon", command, pathlib.Path({str(tmp_path)!r}), dict(os.environ))
processes._tell(watcher, f"watch {{server.process.pid}}")
print(server.process.pid, watcher.pid, flush=True)
time.sleep(600)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    server, watcher = map(int, process.stdout.readline().split())
    until_s = time.monotonic() + PATIENCE_S
    while list(sessions().values()).count(server) < 2:  # the shell and its child
        assert time.monotonic() < until_s
        time.sleep(0.05)
    process.kill()
    process.communicate()
    while {server, watcher} & set(sessions().values()):
        assert time.monotonic() < until_s
        time.sleep(0.05)


@pytest.mark.parametrize("is_ours", [True, False], ids=["ours", "another with its number"])
def test_what_a_killed_one_left_is_ended_and_nothing_else(tmp_path, is_ours):
    (tmp_path / processes.STATE).mkdir()
    server = processes._start("daemon", ["sleep", "600"], tmp_path, dict(os.environ))
    name = orphans.named(server.process.pid)
    record = orphans.UpRecord(
        process="1:0",
        servers=(name if is_ours else f"{server.process.pid}:0",),
        since_utc="2025-10-15T20:00:00Z",
        address="http://127.0.0.1:3000",
    )
    (tmp_path / processes.STATE / orphans.RECORD).write_bytes(record.content())
    assert processes.end_leftovers(tmp_path) == (1 if is_ours else 0)
    assert orphans.lives(name) is not is_ours
    processes.stop([server])


def test_what_does_not_obey_is_killed_with_its_children(tmp_path, monkeypatch):
    """A leader and its child that both ignore SIGTERM."""
    monkeypatch.setattr(processes, "STOP_TIMEOUT_S", 0.5)
    (tmp_path / processes.STATE).mkdir()
    script = "trap '' TERM; (trap '' TERM; while :; do sleep 1; done) & echo ready; wait; sleep 60"
    server = processes._start("stubborn", ["sh", "-c", script], tmp_path, dict(os.environ))
    until_s = time.monotonic() + PATIENCE_S
    while "ready" not in server.last_words():
        assert time.monotonic() < until_s
        time.sleep(0.05)
    assert list(sessions().values()).count(server.process.pid) >= 2
    processes.stop([server])
    assert server.process.pid not in sessions().values()


def test_a_server_that_ended_is_told_with_its_last_words(tmp_path):
    (tmp_path / processes.STATE).mkdir()
    command = ["sh", "-c", "seq 100; echo no such module >&2; exit 3"]
    server = processes._start("daemon", command, tmp_path, dict(os.environ))
    server.process.wait()
    with pytest.raises(processes.NotRunning, match="exit code 3") as caught:
        processes._check_alive([server])
    assert str(caught.value).endswith("no such module")
    processes.stop([server])


def test_the_servers_listen_where_they_are_told():
    commands = processes.commands(Path("w.yaml"), host="::1", port=3)
    assert commands["webserver"][3:7] == ["--host", "::1", "--port", "3"]
    assert set(commands) == {"webserver", "daemon"}


def test_nobody_else_reaches_the_web_server_unless_it_is_said():
    hosts = [option.default for option in main.commands["up"].params if option.name == "host"]
    assert hosts == ["127.0.0.1"]
