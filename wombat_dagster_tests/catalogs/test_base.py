"""What counts as an answer, whom a failure is blamed on, and how long we insist."""

import datetime as dt
import itertools
import json
import threading
from pathlib import Path

import httpx
import pytest

from wombat_dagster.catalogs.base import BadAnswer, BadRequest, JsonService, Pace
from wombat_dagster.catalogs.breaker import Breaker
from wombat_dagster.catalogs.clock import Clock
from wombat_dagster.config import AavsoSettings
from wombat_dagster.domain import VspUnavailable

FIRST, SECOND = "https://first.example/chart/", "https://second.example/chart/"
START = dt.datetime(2026, 11, 21, 4, 0, tzinfo=dt.UTC)


_numbers = itertools.count()


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path, monkeypatch):
    """Every service below has a memory of outages of its own, and they lie here."""
    monkeypatch.chdir(tmp_path)


class FakeTime:
    """A clock that only sleeping (and whoever sets `now_s`) moves."""

    def __init__(self):
        self.now_s = 0.0
        self.slept = []

    def sleep(self, seconds):
        self.slept.append(seconds)
        self.now_s += seconds

    def clock(self):
        return Clock(
            monotonic_s=lambda: self.now_s,
            sleep=self.sleep,
            now_utc=lambda: START + dt.timedelta(seconds=self.now_s),
        )


class Hosts:
    """Answers by host name, each a list used up from the front; its last one stays."""

    def __init__(self, **answers):
        self.answers = answers
        self.requests = []

    def __call__(self, request):
        self.requests.append(request)
        answers = self.answers[request.url.host.split(".")[0]]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer() if callable(answer) else answer

    @property
    def asked(self):
        return [request.url.host.split(".")[0] for request in self.requests]


def read_stars(content):
    if "photometry" not in content:
        raise BadAnswer("no photometry")
    return len(content["photometry"])


def service(hosts, fake, *, pace=None, urls=(FIRST, SECOND), **settings):
    settings = AavsoSettings(**settings)
    memory = Path(f"memory {next(_numbers)}")
    return JsonService(
        name="VSP",
        urls=urls,
        unavailable=VspUnavailable,
        settings=settings,
        breaker=Breaker("VSP", memory, settings, fake.clock()),
        clock=fake.clock(),
        pace=pace or Pace(),
        transport=httpx.MockTransport(hosts),
    )


def good():
    return httpx.Response(200, json={"photometry": [1, 2]})


def status(code, **more):
    return lambda: httpx.Response(code, **more)


DOWN = {
    "time-out": httpx.ReadTimeout("too slow"),
    "no connection": httpx.ConnectError("refused"),
    "half a body": httpx.RemoteProtocolError("peer closed"),
    "redirects in a circle": httpx.TooManyRedirects("20"),
    "403": status(403, html="<html>Just a moment...</html>"),
    "408": status(408),
    "429": status(429),
    "500": status(500),
    "503": status(503),
    "HTML": status(200, html="<html>Just a moment...</html>"),
    "no body": status(200, content=b""),
    "cut JSON": status(200, content=b'{"photometry": [{"auid": "000'),
    "bytes": status(200, content=b"\xff\xfe\x00"),
    "no key": status(200, json={"detail": "try later"}),
    "a list": status(200, json=[]),
    "a number": status(200, json=7),
    "null": status(200, json=None),
}


@pytest.mark.parametrize("failure", DOWN.values(), ids=DOWN)
def test_an_outage_of_one_host_is_answered_by_the_next(failure):
    hosts = Hosts(first=[failure], second=[good])
    answer = service(hosts, FakeTime()).get({}, read_stars)
    assert answer.value == 2
    assert answer.url.startswith(SECOND)
    assert hosts.asked == ["first", "second"]


@pytest.mark.parametrize("failure", DOWN.values(), ids=DOWN)
def test_an_outage_everywhere_is_unavailable_after_the_retries(failure):
    hosts = Hosts(first=[failure], second=[failure])
    with pytest.raises(VspUnavailable) as ending:
        service(hosts, FakeTime(), retries=3).get({}, read_stars)
    assert hosts.asked == ["first", "second"] * 4
    message = str(ending.value)
    assert "first.example: " in message
    assert "second.example: " in message
    assert "8 tries" in message
    assert "2026-11-21T04:00:18" in message  # back-off 2 + 4 + 8 s, a pause of 1 s in each round


def test_a_service_that_comes_back_is_believed():
    hosts = Hosts(first=[status(500), good], second=[status(500)])
    assert service(hosts, FakeTime()).get({}, read_stars).value == 2
    assert hosts.asked == ["first", "second", "first"]


def test_back_off_doubles_from_two_seconds():
    fake = FakeTime()
    with pytest.raises(VspUnavailable):
        service(Hosts(first=[status(500)], second=[status(500)]), fake, min_interval_s=0).get(
            {}, read_stars
        )
    assert fake.slept == [2.0, 4.0, 8.0]


def test_retry_after_is_respected():
    fake = FakeTime()
    busy = status(429, headers={"Retry-After": "30"})
    hosts = Hosts(first=[busy, good], second=[status(500)])
    service(hosts, fake, min_interval_s=0).get({}, read_stars)
    assert fake.slept == [30.0]


@pytest.mark.parametrize("patience_s", [10.0, 45.0, 90.0])
def test_patience_bounds_tries_and_back_off_together(patience_s):
    """Every try takes its whole time-out of 30 s."""
    fake = FakeTime()

    def slow(request):
        fake.now_s += request.extensions["timeout"]["read"]
        raise httpx.ReadTimeout("nothing came")

    with pytest.raises(VspUnavailable):
        service(slow, fake, patience_s=patience_s, timeout_s=30, retries=9).get({}, read_stars)
    assert fake.now_s <= patience_s
    assert fake.now_s > patience_s - 10


def test_an_answer_that_trickles_in_is_cut_at_the_time_out():
    """httpx's own limit is on each read: one byte every few seconds would never end."""
    fake = FakeTime()

    class Trickle(httpx.SyncByteStream):
        def __iter__(self):
            for _ in range(1000):
                fake.now_s += 10
                yield b" "

    hosts = Hosts(first=[lambda: httpx.Response(200, stream=Trickle())], second=[good])
    assert service(hosts, fake, timeout_s=30).get({}, read_stars).url.startswith(SECOND)
    assert fake.now_s < 45


@pytest.mark.parametrize("code", [400, 401, 405, 422])
def test_another_4xx_is_our_fault_at_once_and_its_body_is_logged(code, caplog):
    hosts = Hosts(first=[status(code, text="fov must be <= 180")], second=[good])
    with pytest.raises(BadRequest, match=rf"HTTP {code}: fov must be <= 180"):
        service(hosts, FakeTime()).get({}, read_stars)
    assert hosts.asked == ["first"]
    assert "fov must be <= 180" in caplog.text


def test_a_host_that_no_longer_has_the_service_is_passed_over():
    assert service(Hosts(first=[status(404)], second=[good]), FakeTime()).get({}, read_stars)
    with pytest.raises(VspUnavailable, match=r"second\.example: HTTP 500"):
        service(Hosts(first=[status(404)], second=[status(500)]), FakeTime()).get({}, read_stars)
    nowhere = Hosts(first=[status(404)], second=[status(410)])
    with pytest.raises(BadRequest, match="none of its addresses"):
        service(nowhere, FakeTime()).get({}, read_stars)
    assert nowhere.asked == ["first", "second"]


def test_requests_are_a_second_apart_within_the_process():
    fake, pace = FakeTime(), Pace()
    for _ in range(3):
        service(lambda _: good(), fake, pace=pace, urls=[FIRST], min_interval_s=1.0).get(
            {}, read_stars
        )
    assert fake.slept == [1.0, 1.0]


def test_one_request_at_a_time_and_queueing_does_not_use_up_patience():
    fake, pace = FakeTime(), Pace()
    hosts = Hosts(first=[status(500)], second=[good])
    waiting = service(hosts, fake, pace=pace, patience_s=5, min_interval_s=0)
    answers = []
    with pace.turn(0.0, fake.clock()):
        queued = threading.Thread(target=lambda: answers.append(waiting.get({}, read_stars)))
        queued.start()
        queued.join(timeout=0.05)
        assert answers == []  # somebody else's turn
        fake.now_s += 1000
    queued.join(timeout=10)
    assert answers[0].value == 2


def test_redirects_are_followed_and_we_say_who_we_are():
    moved = status(301, headers={"Location": SECOND + "?x=1"})
    hosts = Hosts(first=[moved], second=[good])
    answer = service(hosts, FakeTime()).get({"x": "1"}, read_stars)
    assert answer.url == SECOND + "?x=1"
    assert all(r.headers["user-agent"].startswith("wombat-dagster/") for r in hosts.requests)


def test_the_answer_keeps_the_json_as_it_came_and_when():
    fake = FakeTime()
    answer = service(Hosts(first=[good], second=[good]), fake).get({}, read_stars)
    assert json.dumps(answer.content) == '{"photometry": [1, 2]}'
    assert answer.fetched_utc == "2026-11-21T04:00:00+00:00"
