"""Charts as VSP gives them, and what the charts on disk may stand for."""

import datetime as dt
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wombat_dagster.catalogs.base import BadAnswer, BadRequest, Pace
from wombat_dagster.catalogs.cache import AnswerCache
from wombat_dagster.catalogs.clock import Clock
from wombat_dagster.catalogs.vsp import (
    FOV_LADDER_ARCMIN,
    Vsp,
    chart_fov_arcmin,
    chart_request,
    chart_version,
    covers,
    read_chart,
    sexagesimal,
    stars_hash,
)
from wombat_dagster.config import AavsoSettings
from wombat_dagster.domain import VspUnavailable
from wombat_dagster.simulate import aavso
from wombat_dagster.simulate.aavso import StandInAavso

GOLDEN = Path(__file__).parents[1] / "golden" / "aavso"
XZ_CYG = json.loads((GOLDEN / "vsp_chart_XZ_Cyg_X37313LN.json").read_text())
M42 = json.loads((GOLDEN / "vsp_chart_M42_X42585ESI_trimmed.json").read_text())
RA, DEC = 293.12213, 56.38819


class Sky:
    """A stand-in, and clients of it that wait for nothing and share a cache directory."""

    def __init__(self, server, cache):
        self.server, self.cache = server, cache
        self.now = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)

    def vsp(self, **settings):
        settings = {"timeout_s": 5, "min_interval_s": 0, **settings}
        clock = Clock(monotonic_s=lambda: 0.0, sleep=lambda _: None, now_utc=lambda: self.now)
        return Vsp(
            AavsoSettings(vsp_urls=[self.server.vsp_url], **settings),
            self.cache,
            clock=clock,
            pace=Pace(),
        )

    def chart(self, fov=60.0, maglimit=16.5, ra=RA, dec=DEC):
        return self.vsp().chart(ra, dec, fov, maglimit)

    def later(self, days):
        self.now += dt.timedelta(days=days)

    @property
    def asked(self):
        return self.server.requests["vsp"]


@pytest.fixture
def sky(tmp_path):
    with StandInAavso(comps=XZ_CYG["photometry"]) as server:
        yield Sky(server, tmp_path)


def test_real_stars_of_xz_cyg_are_read():
    """Positions by hand from 19:31:18.38 +56:13:11.5."""
    chart_id, stars = read_chart(XZ_CYG)
    assert (chart_id, len(stars)) == ("X37313LN", 6)
    star = stars[0]
    assert (star.auid, star.label, star.comment) == ("000-BCG-990", "82", "")
    assert star.ra_deg == pytest.approx(292.8265833, abs=1e-7)
    assert star.dec_deg == pytest.approx(56.2198611, abs=1e-7)
    assert set(star.bands) == {"V", "B", "Rc", "Ic", "J", "H", "K"}
    assert (star.bands["V"].mag, star.bands["V"].error_mag) == (8.204, 0.016)
    assert star.colour("B", "V") == pytest.approx(0.540)
    assert stars[1].colour("B", "Rc") is None  # this one has no Rc


def test_comments_are_kept_and_null_is_none_of_them():
    stars = read_chart(M42)[1]
    assert [s.comment for s in stars] == ["Suspected variable NSV 2386. Acceptable to use.", ""]
    assert stars[0].dec_deg == pytest.approx(-(5 + 22 / 60 + 31.2 / 3600))


def test_an_error_of_null_or_zero_is_not_known():
    bands = [
        {"band": "V", "mag": 10.0, "error": None},
        {"band": "B", "mag": 10.5, "error": 0},
        {"band": "Rc", "mag": None, "error": 0.1},
    ]
    star = read_chart({**M42, "photometry": [{**M42["photometry"][0], "bands": bands}]})[1][0]
    assert {band: value.error_mag for band, value in star.bands.items()} == {"V": None, "B": None}


def test_a_star_that_cannot_be_read_is_left_out_and_the_others_stay(caplog):
    broken = [
        {**XZ_CYG["photometry"][0], "ra": "noon"},
        {**XZ_CYG["photometry"][1], "auid": None},
        {"label": "99"},
        "118",
    ]
    stars = read_chart({**XZ_CYG, "photometry": [*broken, *XZ_CYG["photometry"][2:]]})[1]
    assert len(stars) == 4
    assert caplog.text.count("a star is left out") == 4


def test_an_answer_without_photometry_is_no_chart():
    for content in ({"chartid": "X1"}, {"chartid": "X1", "photometry": None}, {"photometry": []}):
        with pytest.raises(BadAnswer):
            read_chart(content)


@pytest.mark.parametrize(
    ("text", "value"),
    [("-00:00:36.0", -0.01), ("00:00:36.0", 0.01), ("+12:30:00", 12.5), ("-12:30:00.0", -12.5)],
)
def test_the_sign_of_minus_zero_degrees_counts(text, value):
    assert sexagesimal(text) == pytest.approx(value, abs=1e-12)


@given(tenths=st.integers(-90 * 36000, 90 * 36000))
def test_declinations_survive_the_way_through_the_service(tenths):
    dec_deg = tenths / 36000
    assert sexagesimal(aavso.sexagesimal(dec_deg, 1)) == pytest.approx(dec_deg, abs=1e-9)


@given(needed=st.floats(0.1, 180))
def test_the_field_asked_for_is_the_next_step_of_the_ladder(needed):
    fov = chart_fov_arcmin(needed)
    assert fov >= needed
    assert not any(needed <= step < fov for step in FOV_LADDER_ARCMIN)


def test_a_field_wider_than_3_degrees_asks_for_3():
    assert chart_fov_arcmin(250.0) == 180.0


def test_the_request_is_rounded_and_never_by_name(sky):
    sequence = sky.chart(fov=52.3)
    assert sky.server.queries[0][1] == {
        "ra": "293.122",
        "dec": "56.388",
        "fov": "60",
        "maglimit": "16.5",
        "format": "json",
    }
    assert (sequence.fov_arcmin, sequence.maglimit) == (60.0, 16.5)
    assert sequence.fetched_utc == "2026-11-21T00:00:00+00:00"
    assert len(sequence.stars) == 6


def test_one_chart_serves_later_nights_without_network(sky):
    first = sky.chart(fov=90)
    sky.later(days=20)
    sky.server.fail("vsp", "refused")
    assert sky.chart(fov=90) == first
    assert sky.chart(fov=45, maglimit=14.0) == first
    assert sky.chart(fov=60, ra=RA + 0.2) == first  # 6.6' off, 15' to spare
    assert sky.asked == 1


@pytest.mark.parametrize("request_", [{"fov": 100}, {"maglimit": 17.0}, {"ra": RA + 0.6}])
def test_a_chart_does_not_serve_what_it_was_not_asked_for(sky, request_):
    sky.chart(fov=90)
    sky.chart(**{"fov": 90, **request_})
    assert sky.asked == 2


@given(
    asked_fov=st.sampled_from(FOV_LADDER_ARCMIN),
    wanted_fov=st.sampled_from(FOV_LADDER_ARCMIN),
    offset_arcmin=st.floats(0, 120),
)
def test_a_covering_chart_reaches_the_far_edge(asked_fov, wanted_fov, offset_arcmin):
    asked = {"ra_deg": 10.0, "dec_deg": 0.0, "fov_arcmin": asked_fov, "maglimit": 16.5}
    wanted = {**asked, "dec_deg": offset_arcmin / 60, "fov_arcmin": wanted_fov}
    if covers(asked, wanted):
        assert offset_arcmin + wanted_fov / 2 <= asked_fov / 2 + 1e-6


def test_a_chart_of_31_days_is_asked_for_again_and_stays_when_nothing_changed(sky):
    first = sky.chart()
    sky.later(days=31)
    assert sky.chart() == first
    assert sky.asked == 2
    sky.later(days=29)
    assert sky.chart() == first
    assert sky.asked == 2  # confirmed 29 days ago
    assert len(list(sky.cache.rglob("*.json"))) == 1


def test_a_changed_sequence_is_a_new_version_beside_the_old(sky):
    first = sky.chart()
    changed = json.loads(json.dumps(XZ_CYG["photometry"][2]))
    changed["bands"][0]["mag"] = 10.9
    sky.server.add(comps=[changed])
    sky.later(days=10)
    assert sky.chart() == first
    sky.later(days=21)
    second = sky.chart()
    assert stars_hash(second) != stars_hash(first)
    assert second.fetched_utc > first.fetched_utc
    assert len(list(sky.cache.rglob("*.json"))) == 2
    sky.later(days=1)
    assert sky.chart() == second


@pytest.mark.parametrize("failure", ["500", "403", "429", "html", "empty-body", "cut", "refused"])
def test_an_outage_is_novsp_without_a_chart_and_an_old_chart_with_one(sky, failure):
    sky.server.fail("vsp", failure)
    with pytest.raises(VspUnavailable, match=r"VSP away at 2026-11-21T.*127\.0\.0\.1: "):
        sky.chart()
    sky.server.fail("vsp", "none")
    sky.later(days=1)
    first = sky.chart()
    sky.later(days=81)
    sky.server.fail("vsp", failure)
    old = sky.chart()
    assert (old.stars, old.fetched_utc) == (first.stars, first.fetched_utc)
    assert "81 days ago" in old.notes[0]
    assert old.notes[1] == "VSP did not answer on 2027-02-11 UTC"


def test_a_service_that_hangs_is_given_up(sky):
    sky.server.fail("vsp", "hang")
    with pytest.raises(VspUnavailable, match="ReadTimeout"):
        sky.vsp(timeout_s=0.2, retries=0).chart(RA, DEC, 60.0, 16.5)


def test_an_empty_field_is_an_answer_and_not_an_outage(sky):
    sky.server.fail("vsp", "valid-empty")
    assert sky.chart().stars == ()


def test_an_empty_field_is_asked_for_again_after_a_day(sky):
    sky.server.fail("vsp", "valid-empty")
    sky.chart()
    sky.later(days=0.9)
    assert sky.chart().stars == ()
    assert sky.asked == 1
    sky.later(days=0.2)
    sky.server.fail("vsp", "none")
    assert len(sky.chart().stars) == 6
    assert sky.asked == 2


def test_an_old_empty_field_does_not_turn_an_outage_into_nocomps(sky):
    sky.server.fail("vsp", "valid-empty")
    sky.chart()
    sky.later(days=2)
    sky.server.fail("vsp", "500")
    with pytest.raises(VspUnavailable):
        sky.chart()


def test_a_refused_request_is_our_fault(sky, monkeypatch):
    monkeypatch.setattr(aavso, "MAX_FOV_ARCMIN", 30.0)
    with pytest.raises(BadRequest, match="HTTP 400"):
        sky.chart(fov=60.0)


def test_damaged_files_in_the_cache_are_left_aside(sky, caplog):
    first = sky.chart()
    (kept,) = sky.cache.rglob("*.json")
    text = kept.read_text()
    (kept.parent / "a.json").write_text(text[: len(text) // 2])
    (kept.parent / "b.json").write_text("")
    (kept.parent / "c.json").write_text("[]")
    (kept.parent / "d.json").write_text(text.replace('"fov_arcmin"', '"fov"'))
    (kept.parent / "e.json").write_text(text.replace("+00:00", ""))
    assert sky.chart() == first
    assert caplog.text.count("left aside") == 4
    kept.unlink()
    assert sky.chart() == first
    assert sky.asked == 2


def test_the_probe_tells_whether_vsp_is_back(sky):
    sky.server.fail("vsp", "500")
    assert not sky.vsp().probe()
    assert sky.asked == 1  # a probe does not insist
    sky.server.fail("vsp", "none")
    assert sky.vsp().probe()
    assert list(sky.cache.rglob("*.json")) == []


@pytest.mark.parametrize("proxy", ["http_proxy", "ALL_PROXY"])
def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(sky, monkeypatch, proxy):
    monkeypatch.setenv(proxy, "http://127.0.0.1:9")
    assert len(sky.chart().stars) == 6


def test_a_standard_field_has_a_chart_of_its_own(tmp_path):
    """Comparison stars never stand for standards, though the chart covers the place."""
    standard = {**XZ_CYG["photometry"][0], "auid": "000-STD-001"}
    with StandInAavso(comps=XZ_CYG["photometry"], standards=[standard]) as server:
        sky = Sky(server, tmp_path)
        comps = sky.chart()
        for _ in range(2):  # the second time from the cache
            standards = sky.vsp().chart(RA, DEC, 60.0, 16.5, standard_field=True)
        assert [star.auid for star in standards.stars] == ["000-STD-001"]
        assert len(comps.stars) == 6
        assert sky.asked == 2
        assert sky.chart() == comps
    with pytest.raises(VspUnavailable):
        sky.vsp(timeout_s=0.2, retries=0).chart(RA + 20, DEC, 60.0, 16.5, standard_field=True)


# ----------------------------------------------------------------------------------- chart versions

HERE = chart_request(RA, DEC, 60.0, 16.5)
FAR_STAR = XZ_CYG["photometry"][1]  # 38' off: in the corner of a square of 60', not in its circle
ELSEWHERE = {"ra": 293.948, "dec": 55.959, "fov": 30.0}  # about that star


def with_mag(entry, mag):
    changed = json.loads(json.dumps(entry))
    changed["bands"][0]["mag"] = mag
    return changed


def test_a_wider_chart_of_the_same_stars_is_no_new_version(sky):
    """The wider chart is newer and holds them all."""
    narrow = chart_request(RA, DEC, 45.0, 16.5)
    first = sky.chart(fov=45)
    made_with = chart_version(first, narrow)
    vsp = sky.vsp()
    assert vsp.version_now(narrow) == made_with
    sky.later(days=1)
    wide = sky.chart(fov=90)
    assert len(wide.stars) > len(first.stars) > 0
    assert stars_hash(wide) != stars_hash(first)
    assert vsp.version_now(narrow) == made_with
    all_of_it = chart_request(RA, DEC, 90.0, 16.5)
    assert vsp.version_now(all_of_it) == chart_version(wide, all_of_it) != made_with


def test_a_deeper_chart_of_the_same_stars_is_no_new_version(sky):
    bright = chart_request(RA, DEC, 60.0, 11.5)
    made_with = chart_version(sky.chart(maglimit=11.5), bright)
    sky.later(days=1)
    assert len(sky.chart(maglimit=16.5).stars) == 6
    assert sky.vsp().version_now(bright) == made_with


def test_no_chart_has_no_version_and_nobody_is_asked(sky):
    assert sky.vsp().version_now(HERE) is None
    assert sky.asked == 0


def test_a_revised_chart_is_a_new_version_where_its_star_is_seen_alone(sky):
    vsp = sky.vsp()
    sky.chart(fov=90)
    wide = chart_request(RA, DEC, 90.0, 16.5)
    before = vsp.version_now(wide), vsp.version_now(HERE)
    sky.server.add(comps=[with_mag(FAR_STAR, 8.7)])
    sky.later(days=31)
    sky.chart(fov=90)
    assert vsp.version_now(wide) != before[0]
    assert vsp.version_now(HERE) == before[1]


def test_versions_are_cheap_when_nothing_was_written(sky, monkeypatch):
    sky.chart()
    (directory,) = sky.cache.glob("vsp")
    os.utime(directory, (1_700_000_000, 1_700_000_000))  # written long ago
    vsp = sky.vsp()
    known = vsp.version_now(HERE)
    monkeypatch.setattr(AnswerCache, "read", None)
    monkeypatch.setattr(AnswerCache, "signatures", None)
    assert [vsp.version_now(HERE) for _ in range(3)] == [known] * 3


def test_the_oldest_chart_in_use_is_asked_for_again(sky):
    elsewhere = chart_request(293.948, 55.959, 30.0, 16.5)
    sky.chart()
    sky.later(days=5)
    sky.chart(**ELSEWHERE)
    sky.later(days=28)
    assert sky.vsp().refresh_oldest([elsewhere]) is None  # 28 days old
    assert sky.vsp().refresh_oldest([]) is None
    assert sky.asked == 2
    same = sky.vsp().refresh_oldest([elsewhere, HERE])
    assert (same.chart_id, same.changed) == (sky.chart().chart_id, False)
    assert sky.asked == 3
    assert sky.vsp().refresh_oldest([elsewhere, HERE]) is None
    sky.server.add(comps=[with_mag(XZ_CYG["photometry"][2], 10.9)])
    sky.later(days=31)
    before = sky.vsp().version_now(HERE)
    refreshed = {}
    while (one := sky.vsp().refresh_oldest([elsewhere, HERE])) is not None:
        refreshed[one.chart_id] = one.changed
    assert sorted(refreshed.values()) == [False, True]
    assert sky.vsp().version_now(HERE) != before
    assert sky.asked == 5


def test_a_refresh_of_a_vsp_that_is_away_says_so_and_changes_nothing(sky):
    first = sky.chart()
    sky.later(days=31)
    sky.server.fail("vsp", "500")
    with pytest.raises(VspUnavailable):
        sky.vsp().refresh_oldest([HERE])
    assert sky.asked == 2  # no retries: there is time
    sky.server.fail("vsp", "none")
    sky.later(days=1)
    assert sky.chart() == first


def test_a_chart_that_vsp_refuses_does_not_hold_up_the_others(sky, monkeypatch):
    sky.chart()
    sky.later(days=1)
    sky.chart(**ELSEWHERE)
    sky.later(days=32)
    monkeypatch.setattr(aavso, "MAX_FOV_ARCMIN", 45.0)
    vsp, in_use = sky.vsp(), [HERE, chart_request(293.948, 55.959, 30.0, 16.5)]
    assert vsp.refresh_oldest(in_use).changed is False
    asked = sky.asked
    assert vsp.refresh_oldest(in_use) is None
    assert sky.asked == asked
