"""A service known to be away is left alone, tried now and then by one process, and believed."""

import datetime as dt
import json
import os
import subprocess
import sys
import threading
from email.utils import format_datetime
from pathlib import Path

import pytest

from wombat_dagster.catalogs import breaker
from wombat_dagster.catalogs.base import Pace, retry_after_s
from wombat_dagster.catalogs.breaker import Breaker, KnownAway, away
from wombat_dagster.catalogs.clock import Clock
from wombat_dagster.catalogs.vsp import Vsp
from wombat_dagster.catalogs.vsx import Vsx
from wombat_dagster.config import AavsoSettings
from wombat_dagster.domain import VspUnavailable, VsxUnavailable
from wombat_dagster.simulate.aavso import StandInAavso

GOLDEN = Path(__file__).parents[1] / "golden" / "aavso"
XZ_CYG = json.loads((GOLDEN / "vsp_chart_XZ_Cyg_X37313LN.json").read_text())
RA, DEC = 293.12213, 56.38819
START = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
FAILURES = ["500", "403", "429", "html", "empty-body", "cut", "refused"]


class Sky:
    """A stand-in, and clients of it: each `vsp()` stands for a process with a memory of its own."""

    def __init__(self, server, cache):
        self.server, self.cache = server, cache
        self.now = START

    @property
    def clock(self):
        return Clock(monotonic_s=lambda: 0.0, sleep=lambda _: None, now_utc=lambda: self.now)

    def settings(self, **settings):
        return AavsoSettings(
            vsp_urls=[self.server.vsp_url],
            vsx_urls=[self.server.vsx_url],
            **{"timeout_s": 5, "min_interval_s": 0, "probe_s": 300, **settings},
        )

    def vsp(self, **settings):
        return Vsp(self.settings(**settings), self.cache, clock=self.clock, pace=Pace())

    def vsx(self, **settings):
        return Vsx(self.settings(**settings), self.cache, clock=self.clock, pace=Pace())

    def chart(self, fov=60.0):
        return self.vsp().chart(RA, DEC, fov, 16.5)

    def fails(self):
        """Ask in vain; return the words."""
        with pytest.raises(VspUnavailable) as ending:
            self.chart()
        return str(ending.value)

    def later(self, seconds):
        self.now += dt.timedelta(seconds=seconds)

    @property
    def asked(self):
        return self.server.requests["vsp"]

    @property
    def away(self):
        return away(self.cache, "VSP")

    @property
    def file(self):
        return self.cache / "away_vsp.json"


@pytest.fixture
def sky(tmp_path):
    with StandInAavso(comps=XZ_CYG["photometry"]) as server:
        yield Sky(server, tmp_path)


@pytest.mark.parametrize("failure", FAILURES)
def test_a_service_that_failed_with_all_retries_is_not_asked_by_anybody(sky, failure):
    sky.server.fail("vsp", failure)
    first = sky.fails()
    assert sky.asked == 4  # three retries
    sky.later(299)
    for _ in range(3):
        words = sky.fails()
    assert sky.asked == 4
    said = first.partition("after ")[2]
    assert said in words  # what it answered last
    assert "away since 2026-11-21T00:00:00+00:00" in words
    assert "asked again at 2026-11-21T00:05:00+00:00" in words


def test_another_process_knows_of_the_outage(sky):
    sky.server.fail("vsp", "500")
    sky.fails()
    code = (
        "import sys; from pathlib import Path; from wombat_dagster.catalogs.breaker import away;"
        "known = away(Path(sys.argv[1]), 'vsp'); print(known.sentence())"
    )
    told = subprocess.run(
        [sys.executable, "-c", code, str(sky.cache)], check=True, capture_output=True, text=True
    )
    assert told.stdout.strip() == sky.away.sentence()
    assert "4 tries: 127.0.0.1: HTTP 500" in told.stdout


def test_one_try_goes_through_when_it_is_due_and_the_wait_doubles_up_to_an_hour(sky):
    sky.server.fail("vsp", "500")
    sky.fails()
    asked = 4
    for wait_s in (300, 600, 1200, 2400, 3600, 3600):
        sky.later(wait_s - 1)
        sky.fails()
        assert sky.asked == asked, wait_s
        sky.later(1)
        sky.fails()
        asked += 1  # no retries
        assert sky.asked == asked, wait_s
    assert sky.away.n_failures == 7
    assert sky.away.since_utc == "2026-11-21T00:00:00+00:00"


def test_a_good_answer_ends_the_outage_for_all(sky):
    sky.server.fail("vsp", "500")
    sky.fails()
    sky.server.fail("vsp", "none")
    sky.later(300)
    assert len(sky.chart().stars) == 6
    assert sky.away is None
    assert not list(sky.cache.glob("away_*"))
    sky.server.fail("vsp", "500")
    with pytest.raises(VspUnavailable, match="after 4 tries"):
        sky.chart(fov=120.0)  # a new outage is insisted on anew


def test_a_refused_request_is_an_answer(sky, monkeypatch):
    sky.server.fail("vsp", "500")
    sky.fails()
    sky.server.fail("vsp", "none")
    sky.later(300)
    monkeypatch.setattr("wombat_dagster.simulate.aavso.MAX_FOV_ARCMIN", 30.0)
    with pytest.raises(Exception, match="HTTP 400"):
        sky.chart()
    assert sky.away is None


def test_many_at_once_do_not_rush_a_service_that_comes_up(sky):
    sky.server.fail("vsp", "500")
    sky.fails()
    sky.later(300)
    before, together, endings = sky.asked, threading.Barrier(8), []

    def ask():
        together.wait()
        endings.append(sky.fails())

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sky.asked == before + 1
    assert len(endings) == 8
    assert not list(sky.cache.glob("*.try"))


def test_a_try_in_flight_keeps_others_away_and_one_left_behind_does_not(sky):
    sky.server.fail("vsp", "500")
    sky.fails()
    sky.server.fail("vsp", "none")
    sky.later(300)
    claim = sky.cache / "away_vsp.try"
    claim.touch()
    assert "another run is asking it now" in sky.fails()
    assert sky.asked == 4
    long_ago = claim.stat().st_mtime - 90 - breaker.CLAIM_SPARE_S - 60
    os.utime(claim, (long_ago, long_ago))  # its process was killed
    assert len(sky.chart().stars) == 6
    assert not claim.exists()


def test_retries_end_when_somebody_else_has_given_up(sky):
    """The second process sleeps between its rounds while the first one opens the breaker."""
    sky.server.fail("vsp", "500")
    other = Breaker("VSP", sky.cache, sky.settings(), sky.clock)
    clock = Clock(
        monotonic_s=lambda: 0.0,
        sleep=lambda _: other.failed("4 tries: HTTP 500"),
        now_utc=lambda: sky.now,
    )
    with pytest.raises(VspUnavailable):
        Vsp(sky.settings(), sky.cache, clock=clock, pace=Pace()).chart(RA, DEC, 60.0, 16.5)
    assert sky.asked == 2
    assert sky.away.n_failures == 1


def test_a_service_may_ask_for_more_patience_than_ours(sky):
    sky.server.retry_after = "7200"
    sky.server.fail("vsp", "429")
    sky.fails()
    assert sky.away.next_try_utc == "2026-11-21T02:00:00+00:00"


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("120", 120.0),
        (format_datetime(START + dt.timedelta(seconds=90), usegmt=True), 90.0),
        (format_datetime(START - dt.timedelta(seconds=90), usegmt=True), 0.0),
        ("soon", 0.0),
        ("", 0.0),
    ],
)
def test_retry_after_is_a_number_or_a_date(text, seconds):
    headers = {"retry-after": text} if text else {}
    assert retry_after_s(headers, Clock(now_utc=lambda: START)) == seconds


# --------------------------------------------------------------------------------------- the cache


def test_a_chart_on_disk_makes_an_outage_invisible(sky):
    first = sky.chart()
    sky.server.fail("vsp", "500")
    with pytest.raises(VspUnavailable):
        sky.vsp().chart(RA + 20, DEC, 60.0, 16.5)
    asked = sky.asked
    assert sky.chart() == first
    assert sky.asked == asked


def test_an_expired_chart_serves_a_known_outage_without_a_request(sky):
    first = sky.chart()
    sky.later(40 * 86400)
    sky.server.fail("vsp", "500")
    sky.chart()
    asked = sky.asked
    old = sky.chart()
    assert sky.asked == asked
    assert old.stars == first.stars
    assert "40 days ago" in old.notes[0]
    assert old.notes[1] == "VSP did not answer on 2026-12-31 UTC"  # true for good


def test_a_vsx_that_hangs_costs_its_time_out_once(sky):
    sky.server.fail("vsx", "hang")
    for _ in range(5):
        with pytest.raises(VsxUnavailable):
            sky.vsx(timeout_s=0.2).variables_around(RA, DEC, 0.5)
    with pytest.raises(VsxUnavailable, match="ReadTimeout"):
        sky.vsx(timeout_s=0.2).variable("XZ Cyg")
    assert sky.server.requests["vsx"] == 1
    sky.chart()  # VSP is another service


# ------------------------------------------------------------------------------------------ probes


def test_a_probe_asks_whatever_is_known_and_an_answer_ends_the_outage(sky):
    sky.server.fail("vsp", "500")
    sky.fails()
    assert not sky.vsp().probe_due()
    assert not sky.vsp().probe()
    assert sky.asked == 5
    assert (
        sky.away.next_try_utc == "2026-11-21T00:05:00+00:00"
    )  # a person's try does not put it off
    sky.later(300)
    assert sky.vsp().probe_due()
    assert not sky.vsp().probe()
    assert not sky.vsp().probe_due()
    assert sky.away.next_try_utc == "2026-11-21T00:15:00+00:00"
    sky.server.fail("vsp", "none")
    assert sky.vsp().probe()
    assert sky.vsp().away() is None
    assert not sky.vsp().probe_due()


def test_a_probe_begins_no_outage(sky):
    """`wombat doctor` probes in a hurry: that must not park anybody's observations."""
    for service, client in (("vsp", sky.vsp), ("vsx", sky.vsx)):
        sky.server.fail(service, "500")
        assert not client().probe()
        assert client().away() is None


# ---------------------------------------------------------------------------------- bad conditions


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[: len(text) // 2],
        lambda _: "",
        lambda _: "[]",
        lambda _: "\x00\xff",
        lambda text: text.replace("+00:00", ""),
        lambda text: text.replace('"n_failures": 1', '"n_failures": "many"'),
        lambda text: text.replace('"wombat_away": 1', '"wombat_away": 2'),
    ],
)
def test_a_damaged_memory_counts_as_none(sky, spoil):
    sky.server.fail("vsp", "500")
    sky.fails()
    sky.file.write_text(spoil(sky.file.read_text()), encoding="latin-1")
    assert sky.away is None
    sky.server.fail("vsp", "none")
    assert len(sky.chart().stars) == 6


@pytest.mark.parametrize("back_s", [30, 86400, 400 * 86400])
def test_a_clock_set_back_does_not_keep_a_service_shut(sky, back_s):
    sky.later(1000)
    sky.server.fail("vsp", "500")
    sky.fails()
    sky.later(-back_s)
    sky.fails()  # tried, in vain: from here the clock that was set back counts
    assert sky.asked == 5
    assert dt.datetime.fromisoformat(sky.away.since_utc) <= sky.now
    sky.server.fail("vsp", "none")
    sky.later(600)
    assert len(sky.chart().stars) == 6


def test_a_next_try_in_a_far_future_is_not_waited_for(sky):
    sky.server.fail("vsp", "500")
    sky.fails()
    kept = json.loads(sky.file.read_text())
    sky.file.write_text(json.dumps(kept | {"next_try_utc": "9999-01-01T00:00:00+00:00"}))
    sky.server.fail("vsp", "none")
    assert len(sky.chart().stars) == 6


def test_a_disk_that_takes_nothing_does_not_hide_the_outage(tmp_path, caplog):
    (tmp_path / "cache").write_text("a file where the directory should be")
    full = Breaker("VSP", tmp_path / "cache", AavsoSettings())
    full.failed("HTTP 500")
    full.answered()
    assert full.away() is None
    assert "away_vsp.json" in caplog.text
    with full.turn():
        pass


def test_the_turn_of_another_is_said_in_words(tmp_path):
    fresh = Breaker("VizieR", tmp_path, AavsoSettings())
    fresh.failed("HTTP 503")
    with (
        pytest.raises(KnownAway, match=r"VizieR is away since .* failed at .*: HTTP 503"),
        fresh.turn(),
    ):
        pass
