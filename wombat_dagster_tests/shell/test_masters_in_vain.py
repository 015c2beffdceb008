"""Masters that cannot be made are not tried again and again: the same frames give the same."""

import datetime as dt

import pytest

from wombat_dagster.domain import FrameKind
from wombat_dagster.stages.due import due_nights
from wombat_dagster.stages.inputs import nights_on_disk

FIRST_NIGHT, SECOND_NIGHT = dt.date(2025, 10, 14), dt.date(2025, 10, 15)


def asked_again(place):
    """Return which nights are due, after they were run; (key, why)."""
    with place.in_force() as observatory:
        due = due_nights(observatory, on_disk=nights_on_disk(observatory), by_hand=True)
    return [(one.key, one.words) for one in due]


@pytest.fixture
def saturated(place, edit):
    """Return a place whose second night has flats that no master can be made of."""
    place.take("20251014/Bias/*", "20251014/Light/*/*V.fit", "20251015/Light/*/*V.fit")
    for flat in sorted(place.sky.data.glob("20251015/Flat/**/*V.fit")):
        edit(
            flat,
            place.data / "20251015" / "Flat" / flat.name,
            pixels=lambda p: 65535 - p % 7,
        )
    return place


def test_saturated_flats_are_tried_once_for_every_bias_and_no_more(saturated):
    for night in (FIRST_NIGHT, SECOND_NIGHT):
        assert saturated.run_night(night) == {}
    assert saturated.observatory.status.masters(FrameKind.FLAT) == []
    assert asked_again(saturated) == []


def test_flats_that_waited_for_a_bias_are_combined_when_it_comes(place):
    place.take("20251014/Light/*/*V.fit", "20251015/Flat/*V.fit", "20251015/Light/*/*V.fit")
    for night in (FIRST_NIGHT, SECOND_NIGHT):
        assert place.run_night(night) == {}
    assert asked_again(place) == []
    place.take("20251014/Bias/*")
    assert place.run_night(FIRST_NIGHT) == {}
    assert [key for key, _ in asked_again(place)] == ["20251015"]
    assert place.run_night(SECOND_NIGHT) == {}
    assert asked_again(place) == [("20251014", "map of bad pixels: other masters")]
    assert place.run_night(FIRST_NIGHT) == {}
    assert asked_again(place) == []
