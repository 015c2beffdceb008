"""The review page's server: who comes in, what is answered, and what no request can do."""

import contextlib
import json
import os
import random
import re
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
import uvicorn

from wombat_dagster.review import server as review_server
from wombat_dagster.review.address import is_loopback, page_address
from wombat_dagster.review.server import make_app
from wombat_dagster.store.decisions import Decisions
from wombat_dagster_tests import review_nights as nights
from wombat_dagster_tests.approved_nights import an_observatory

WRITE = {"X-Wombat": "review"}
TOKEN = "a-token-of-the-test"
PORT = 3001  # names the cookie; where the test listens is the system's choice


@contextlib.contextmanager
def serving(observatory, *, token=None):
    """Serve the page with a real server, and yield a client that asks as the page does."""
    app = make_app(lambda: observatory, token=token, port=PORT)
    config = uvicorn.Config(app, port=0, log_level="critical", lifespan="off", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, headers=WRITE) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture
def observatory(tmp_path):
    return an_observatory(tmp_path)


@pytest.fixture
def page(observatory):
    with serving(observatory) as client:
        yield client


@pytest.fixture
def key(observatory):
    return nights.waiting(observatory)


def shown(page, key):
    answer = page.get(f"/api/observation/{key}")
    assert answer.status_code == 200, answer.text
    return answer.json()


def decide(page, seen_state, kind, *, hashes=(), why=None, **changes):
    asked = {
        "key": seen_state["key"], "kind": kind, "raw_hashes": list(hashes), "why": why,
        "seen": seen_state["seen"], "version": seen_state["version"],
    }  # fmt: skip
    return write(page, asked | changes)


def write(page, asked):
    """Send a decision; half characters go as JSON can say them."""
    return page.post(
        "/api/decide", content=json.dumps(asked), headers={"Content-Type": "application/json"}
    )


# ----------------------------------------------------------------------------------- the page


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("/", "text/html"),
        ("/static/review.css", "text/css"),
        ("/static/review.js", "text/javascript"),
        ("/static/curve.js", "text/javascript"),
        ("/static/plotly.min.js", "text/javascript"),
        ("/static/icon.svg", "image/svg+xml"),
    ],
)
def test_the_page_and_its_files_are_served_and_asked_for_once(page, address, kind):
    answer = page.get(address)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith(kind)
    assert answer.headers["content-encoding"] == "gzip"
    again = page.get(address, headers={"If-None-Match": answer.headers["etag"]})
    assert again.status_code == 304


def test_all_that_the_page_loads_is_served_by_us(page):
    wanted = re.findall(r'(?:src|href)="([^"#]+)"', page.get("/").text)
    scripts = [path for path in review_server.STATIC.iterdir() if path.suffix == ".js"]
    for script in scripts:
        wanted += re.findall(r'from "([^"]+)"', script.read_text())
    assert len(wanted) > 6
    for address in wanted:
        assert address.startswith("/static/"), address
        assert page.get(address).status_code == 200, address


def test_no_script_of_ours_makes_html_of_data():
    """Names come from headers: they are put in as text, by the only ways that cannot be HTML."""
    for script in review_server.STATIC.glob("*.js"):
        words = script.read_text()
        for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert way not in words, f"{script.name}: {way}"


def test_every_answer_forbids_scripts_of_others_and_the_keeping_of_data(page, key):
    for address in ("/", "/api/list", f"/api/observation/{key}", "/nothing", "/api/observation/x"):
        answer = page.get(address)
        policy = answer.headers["content-security-policy"]
        assert "script-src 'self';" in policy
        assert "unsafe-eval" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert page.get("/api/list").headers["cache-control"] == "no-store"


def test_a_name_that_looks_like_html_is_just_a_name(page, observatory):
    table = nights.a_night(target=nights.ODD_NAME)
    key = nights.waiting(observatory, table)
    (listed,) = page.get("/api/list").json()["observations"]
    assert listed["target"] == nights.ODD_NAME
    assert shown(page, key)["star"]["name"] == nights.ODD_NAME
    assert "alert(1)" not in page.get("/").text


# --------------------------------------------------------------------------------- what is decided


def test_an_observation_is_approved_once(page, observatory, key):
    state = shown(page, key)
    answer = decide(page, state, "approve")
    assert answer.status_code == 200
    assert answer.json()["submitted"] == "approved"
    assert observatory.status.target_row(key).submitted == "approved"
    again = decide(page, answer.json(), "approve")
    assert again.status_code == 422
    assert "approved already" in again.json()["error"]


def test_points_are_rejected_restored_and_the_last_word_undone(page, key):
    state = shown(page, key)
    two = state["points"]["raw_hash"][3:5]
    rejected = decide(page, state, "reject-points", hashes=two).json()
    assert rejected["points"]["state"][2:6] == ["good", "rejected", "rejected", "good"]
    restored = decide(page, rejected, "restore-points", hashes=two[:1]).json()
    assert restored["points"]["state"][3:5] == ["good", "rejected"]
    undone = decide(page, restored, "undo").json()
    assert undone["points"]["state"][3:5] == ["rejected", "rejected"]
    assert [one["undone"] is None for one in undone["history"]] == [True, False]


def test_rejecting_wants_a_reason_and_keeps_it(page, observatory, key):
    state = shown(page, key)
    refused = decide(page, state, "reject", why="  ")
    assert refused.status_code == 422
    assert observatory.status.target_row(key).submitted is None
    answer = decide(page, state, "reject", why="clouds").json()
    assert answer["submitted"] == "usrrej"
    assert answer["history"][-1]["why"] == "clouds"


def test_whoever_comes_second_is_told_what_the_first_decided(page, observatory, key):
    state = shown(page, key)
    decide(page, state, "reject", why="clouds")
    late = decide(page, state, "approve")
    assert late.status_code == 409
    assert "rejected it" in late.json()["error"]
    assert late.json()["observation"]["history"][-1]["why"] == "clouds"
    assert observatory.status.target_row(key).submitted == "usrrej"


def test_nobody_approves_magnitudes_that_were_made_again_after_they_were_shown(
    page, observatory, key
):
    state = shown(page, key)
    nights.write_products(
        observatory,
        key,
        standard_magnitudes=nights.standardised(nights.a_night(amplitude_mag=0.6)),
    )
    late = decide(page, state, "approve")
    assert late.status_code == 409
    assert "made again" in late.json()["error"]
    assert late.json()["observation"]["version"] != state["version"]
    assert decide(page, shown(page, key), "approve").status_code == 200


def test_of_many_that_decide_at_once_one_is_heard(page, observatory, key):
    state = shown(page, key)
    hashes = state["points"]["raw_hash"]

    def reject_one(i):
        return decide(page, state, "reject-points", hashes=[hashes[i]]).status_code

    with ThreadPoolExecutor(8) as pool:
        answers = sorted(pool.map(reject_one, range(8)))
    assert answers == [200, *[409] * 7]
    assert len(Decisions(observatory.status.path).history(key)) == 1


def test_what_is_approved_is_written_into_a_report_once(page, observatory, key):
    decide(page, shown(page, key), "approve")
    written = page.post("/api/report", json={"keys": [key]}).json()
    assert [one["refused"] for one in written["observations"]] == [[]]
    (file,) = written["files"]
    assert file["n_lines"] == 20
    text = page.get(f"/api/reports/{file['file']}")
    assert text.headers["content-disposition"] == "attachment"
    assert text.text.splitlines()[0] == "#TYPE=Extended"
    again = page.post("/api/report", json={"keys": [key], "amendments": True}).json()
    assert again["files"] == []
    assert again["observations"][0]["n_same"] == 20
    assert page.get("/api/list").json()["counts"]["exported"] == 1
    done = page.post("/api/submitted", json={"file": file["file"]}).json()
    assert done == {"n_lines": 20}
    assert observatory.status.target_row(key).submitted == "submitted"


# ------------------------------------------------------------------------------- who may come in


@pytest.mark.parametrize("host", ["evil.example", "evil.example:3001", "127.0.0.1.evil.example"])
def test_another_name_for_this_machine_is_not_answered(page, key, host):
    """DNS rebinding: a page of evil.example lets that name point to 127.0.0.1."""
    answer = page.get(f"/api/observation/{key}", headers={"Host": host})
    assert answer.status_code == 421
    assert key not in answer.text


@pytest.mark.parametrize("host", ["localhost:3001", "127.0.0.1", "[::1]:3001"])
def test_the_names_of_the_loopback_are(page, host):
    assert page.get("/api/list", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:1"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
    ],
)
def test_a_write_that_another_page_could_send_is_refused(page, observatory, key, headers, status):
    state = shown(page, key)
    asked = {"key": key, "kind": "approve", "raw_hashes": [], "why": None}
    body = json.dumps(asked | {"seen": 0, "version": state["version"]})
    answer = page.post(
        "/api/decide", content=body, headers={"Content-Type": "application/json"} | headers
    )
    assert answer.status_code == status
    assert observatory.status.target_row(key).submitted is None


def test_a_write_without_our_header_is_refused(page, observatory, key):
    state = shown(page, key)
    del page.headers["X-Wombat"]
    assert decide(page, state, "approve").status_code == 403
    assert observatory.status.target_row(key).submitted is None


def test_bound_to_a_network_only_the_token_opens(observatory, key):
    with serving(observatory, token=TOKEN) as page:
        for address in ("/", "/api/list", f"/api/observation/{key}", "/static/review.js"):
            assert page.get(address).status_code == 401
        assert page.get("/?token=wrong").status_code == 401
        assert page.get(f"/api/list?token={TOKEN}").status_code == 401
        assert page.post("/api/decide", json={}).status_code == 401
        opened = page.get(f"/?token={TOKEN}", headers={"Host": "observatory.example:3001"})
        assert opened.status_code == 200
        cookie = opened.headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie
        state = shown(page, key)
        assert decide(page, state, "approve").status_code == 200


def test_a_false_cookie_does_not(observatory):
    with serving(observatory, token=TOKEN) as page:
        for cookie in ("wombat_review_3001=x", "wombat_review_3001=", '"', "a=b; ; =;"):
            assert page.get("/api/list", headers={"Cookie": cookie}).status_code == 401


@pytest.mark.parametrize(
    ("host", "is_here"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("192.168.1.7", False),
        ("::", False),
        ("observatory", False),
    ],
)
def test_only_the_loopback_needs_no_token(host, is_here):
    assert is_loopback(host) is is_here


def test_the_address_that_is_printed_can_be_opened():
    assert page_address("127.0.0.1", 3001, None) == "http://127.0.0.1:3001/"
    assert page_address("0.0.0.0", 3001, "t") == "http://127.0.0.1:3001/?token=t"
    assert page_address("::1", 3001, None) == "http://[::1]:3001/"


# --------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"\xff\xfe", 400),
        (b"[" * 100_000, 400),
        (b"[]", 422),
        (b"null", 422),
        (b'{"key": 1}', 422),
        (b"x" * 1_000_001, 413),
    ],
)
def test_a_body_that_is_not_what_was_asked_is_refused(page, body, status):
    for address in ("/api/decide", "/api/report", "/api/submitted", "/api/seen"):
        answer = page.post(address, content=body, headers={"Content-Type": "application/json"})
        assert answer.status_code == status, address
        assert answer.json()["error"]


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "export"},
        {"kind": None},
        {"raw_hashes": "abc"},
        {"raw_hashes": [1]},
        {"raw_hashes": ["nothing"]},
        {"seen": -1},
        {"seen": 2**70},
        {"seen": True},
        {"seen": "0"},
        {"version": 3},
        {"why": "\ud800"},
        {"why": "x" * 1001},
        {"path": "/etc/passwd"},
    ],
)
def test_wrong_values_are_named_and_nothing_is_written(page, observatory, key, changes):
    state = shown(page, key)
    asked = {"key": key, "kind": "reject-points", "raw_hashes": state["points"]["raw_hash"][:1]}
    asked |= {"why": None, "seen": 0, "version": state["version"]}
    answer = write(page, asked | changes)
    assert answer.status_code == 422
    assert Decisions(observatory.status.path).history(key) == ()


BAD_KEYS = (
    "nothing", "..", "..%2f..%2fetc%2fpasswd", "20251015__TX_Eri__V'--", "%00", "%ff",
    "%f0%9f%90%a8", "20251015__TX_Eri__V%2f..", "a" * 4000, "20251015__tx_eri__v",
)  # fmt: skip


@pytest.mark.parametrize("tail", ["", "/earlier", "/chart.png", "/thumbnail/x.jpg"])
def test_an_unknown_observation_is_not_found_whatever_it_is_called(page, key, tail):
    for bad in BAD_KEYS:
        assert page.get(f"/api/observation/{bad}{tail}").status_code == 404, bad


def test_only_files_of_the_page_are_static(page):
    for name in (
        "nothing.js",
        "..%2fserver.py",
        "../server.py",
        "server.py",
        "%2fetc%2fpasswd",
        "",
    ):
        assert page.get(f"/static/{name}").status_code == 404, name


def test_only_reports_of_the_ledger_are_handed_out(page):
    for name in ("x.txt", "..%2f..%2fwombatpipeline.db", "%2fetc%2fpasswd"):
        assert page.get(f"/api/reports/{name}").status_code == 404, name
        assert page.post("/api/submitted", json={"file": name}).status_code == 404, name


def some_value(rng, known, depth=0):
    """Return anything JSON can say, often something that was right elsewhere."""
    choices = [None, True, -1, 0, 3, 2**80, 1.5, "", "x", "\ud83d", "\x00", "../..", "a" * 5000]
    if rng.random() < 0.5:
        return rng.choice(known)
    if depth < 3 and rng.random() < 0.3:
        return [some_value(rng, known, depth + 1) for _ in range(rng.randrange(4))]
    if depth < 3 and rng.random() < 0.2:
        return {str(rng.choice(known)): some_value(rng, known, depth + 1)}
    return rng.choice(choices)


def test_no_request_at_all_breaks_the_server_or_loses_a_decision(page, observatory, key):
    """300 requests made of right and wrong parts; what was decided before is still there."""
    rng = random.Random(6)
    state = shown(page, key)
    other = nights.waiting(observatory, nights.a_night(target="Other"))
    decide(page, shown(page, other), "approve")
    before = Decisions(observatory.status.path).history(other)
    kinds = ["approve", "reject", "reject-points", "restore-points", "confirm-star", "undo"]
    known = [key, *kinds, state["version"], *state["points"]["raw_hash"][:3], 0, 1, "clouds", None]
    fields = ["key", "kind", "raw_hashes", "why", "seen", "version", "keys", "file", "ids", "x"]
    addresses = ["/api/decide", "/api/report", "/api/submitted", "/api/seen", "/api/list", "/"]
    statuses = set()
    for _ in range(300):
        asked = {name: some_value(rng, known) for name in rng.sample(fields, rng.randrange(8))}
        if rng.random() < 0.6:  # nearly right
            asked = {
                "key": key, "kind": rng.choice(kinds), "why": None,
                "raw_hashes": rng.sample(state["points"]["raw_hash"], 2),
                "seen": rng.randrange(4), "version": state["version"],
            } | dict(list(asked.items())[:1])  # fmt: skip
        asked.pop(other, None)
        body = json.dumps(asked).encode()
        if rng.random() < 0.1:
            body = body[: rng.randrange(len(body))] + rng.randbytes(5)
        answer = page.request(
            rng.choice(["POST", "POST", "POST", "GET", "PUT", "DELETE", "OPTIONS"]),
            rng.choice(addresses),
            content=body,
            headers={"Content-Type": "application/json"},
        )
        assert answer.status_code < 500, (asked, answer.text)
        statuses.add(answer.status_code)
    assert {200, 400, 405, 409, 422} <= statuses
    assert Decisions(observatory.status.path).history(other) == before
    assert shown(page, key)["points"]["t1"] == state["points"]["t1"]


# ------------------------------------------------------------------------------------- the rest


def test_pictures_are_served_by_the_hash_of_the_frame(page, observatory):
    table = nights.a_night()
    key = nights.waiting(observatory, table)
    nights.write_pictures(observatory, key, table)
    state = shown(page, key)
    assert state["points"]["picture"] == [True] * 19 + [False]
    first, *_, last = table.raw_hashes
    picture = page.get(f"/api/observation/{key}/thumbnail/{first}.jpg")
    assert picture.headers["content-type"] == "image/jpeg"
    assert picture.content.startswith(b"\xff\xd8")
    assert page.get(f"/api/observation/{key}/thumbnail/{last}.jpg").status_code == 404
    chart = page.get(f"/api/observation/{key}/chart.png")
    assert chart.content.startswith(b"\x89PNG")


def test_numbers_that_are_not_known_are_null(page, observatory):
    table = nights.a_night()
    made = nights.standardised(table)
    made.t1_mag[2] = np.nan
    key = nights.waiting(observatory, table, magnitudes=made)
    assert shown(page, key)["points"]["t1"][2] is None


def test_a_database_that_is_away_is_said_to_be(page, observatory, key, monkeypatch):
    import sqlite3

    def locked(*_args):
        error = sqlite3.OperationalError("database is locked")
        error.sqlite_errorname = "SQLITE_BUSY"
        raise error

    monkeypatch.setattr(observatory.status, "targets", locked)
    answer = page.get("/api/list")
    assert answer.status_code == 503
    assert "locked" in answer.json()["error"]


def test_the_page_does_without_dagster():
    """It starts in a second, and lives on its own beside whatever Dagster does."""
    words = (
        "import sys, wombat_dagster.review.server, wombat_dagster.commands.review;"
        " sys.exit('dagster' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", words], check=False).returncode == 0


@pytest.fixture
def command(tmp_path):
    """Return the function that starts ``wombat review`` with options on a free port."""
    (tmp_path / "data").mkdir()
    (tmp_path / "wombat.toml").write_text('[observer]\ncode = "XYZ"\n')
    started = []

    def start(*options):
        with socket.socket() as trial:
            trial.bind(("127.0.0.1", 0))
            port = trial.getsockname()[1]
        words = "from wombat_dagster.commands.review import review; review()"
        process = subprocess.Popen(
            [sys.executable, "-u", "-c", words, "--no-open", "--port", str(port), *options],
            env={**os.environ, "WOMBAT_CONFIG": str(tmp_path / "wombat.toml")},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process, port

    yield start
    for process in started:
        process.terminate()
        process.communicate(timeout=20)


def answer_of(address):
    until_s = time.monotonic() + 30
    while True:
        try:
            return httpx.get(address)
        except httpx.ConnectError:
            assert time.monotonic() < until_s
            time.sleep(0.05)


def test_the_command_prints_where_the_page_is(command):
    process, port = command()
    assert process.stdout.readline().startswith(f"Review: http://127.0.0.1:{port}/ ")
    listed = answer_of(f"http://127.0.0.1:{port}/api/list").json()
    assert listed["observations"] == []
    assert listed["who"] == "XYZ"


def test_the_command_prints_a_token_where_others_can_reach_it(command):
    process, port = command("--host", "0.0.0.0")
    address = process.stdout.readline().split()[1]
    assert re.fullmatch(rf"http://127\.0\.0\.1:{port}/\?token=[\w-]{{32}}", address)
    assert answer_of(f"http://127.0.0.1:{port}/api/list").status_code == 401
    assert answer_of(address).status_code == 200


def test_a_port_that_is_taken_is_said_in_one_line(command):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        process, _ = command("--port", str(port))
        said, _ = process.communicate(timeout=30)
    assert process.returncode == 2
    assert said.startswith(f"Error: port {port} of 127.0.0.1 is taken")
