"""Events are kept once, told once and seen once."""

import datetime as dt

import pytest

from wombat_dagster.store.events import EventKind, Events, NightRow
from wombat_dagster.store.status import StatusDatabase

NOW = dt.datetime(2025, 10, 20, 21, 0, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)


@pytest.fixture
def events(tmp_path):
    return Events(StatusDatabase(tmp_path / "wombatpipeline.db").path)


def record(events, signature="brighter:k", *, words="it flares", now=NOW, **changes):
    events.record(
        EventKind.BRIGHTER, signature, **{"key": "k", "words": words, "now_utc": now} | changes
    )


def test_found_again_it_gets_the_newer_words_and_is_not_told_again(events):
    record(events)
    (first,) = events.untold(NOW)
    events.mark_told(first.id, NOW)
    record(events, words="it flares more", now=NOW + HOUR)
    (again,) = events.all()
    assert (again.id, again.words, again.made_utc) == (first.id, "it flares more", first.made_utc)
    assert again.told_utc == "2025-10-20T21:00:00+00:00"
    assert not events.untold(NOW - HOUR)


def test_untold_is_what_nobody_knows_of_the_oldest_first(events):
    record(events, "a", now=NOW)
    record(events, "b", now=NOW + HOUR)
    record(events, "c", now=NOW - 2 * HOUR)
    record(events, "d", is_seen=True)
    assert [e.signature for e in events.untold(NOW - HOUR)] == ["a", "b"]
    assert [e.signature for e in events.all()] == ["b", "d", "a", "c"]


def test_seen_counts_once(events):
    record(events, "a")
    record(events, "b")
    numbers = [e.id for e in events.all()]
    assert events.mark_seen(numbers[:1], NOW) == 1
    assert events.mark_seen([*numbers, 999], NOW + HOUR) == 1
    assert {e.seen_utc for e in events.all()} == {
        "2025-10-20T21:00:00+00:00", "2025-10-20T22:00:00+00:00",
    }  # fmt: skip


def test_what_nobody_knows_of_is_withdrawn_without_a_trace_the_rest_says_so(events):
    record(events, "a")
    record(events, "b")
    events.mark_told(next(e.id for e in events.all() if e.signature == "b"), NOW)
    for _ in range(2):  # the second time changes nothing
        events.withdraw(["a", "b", "never there"])
    (left,) = events.all()
    assert left.words == "withdrawn, the magnitudes no longer say so: it flares"
    assert left.is_withdrawn
    record(events, "b", words="it flares after all")
    assert events.all()[0].words == "it flares after all"


def test_only_an_eclipse_is_ever_over(events):
    record(events, "a")
    record(events, "b", at_utc=NOW + HOUR)
    over = {e.signature: e.is_past(NOW + 2 * HOUR) for e in events.all()}
    assert over == {"a": False, "b": True}
    assert not any(e.is_past(NOW) for e in events.all())


def test_a_night_is_remembered_and_replaced(events):
    one = NightRow(
        key="k", version="1", band="V", n_points=3, median_mag=12.0, bright_mag=11.9,
        faint_mag=12.1, error_mag=0.02, is_limit=False,
    )  # fmt: skip
    empty = NightRow(
        key="k", version="2", band="V", n_points=0, median_mag=None, bright_mag=None,
        faint_mag=None, error_mag=None, is_limit=False,
    )  # fmt: skip
    events.remember_nights([one])
    assert events.nights() == {"k": one}
    events.remember_nights([empty])
    assert events.nights() == {"k": empty}
