"""A night that gets another name of the same date, and lights that move within it, are noticed."""

import datetime as dt

from wombat_dagster.stages.due import due_nights
from wombat_dagster.stages.inputs import nights_on_disk

FIRST_NIGHT = dt.date(2025, 10, 14)


def due(place):
    with place.in_force() as observatory:
        return due_nights(observatory, on_disk=nights_on_disk(observatory), by_hand=True)


def test_a_renamed_night_is_looked_at_again_so_that_its_frames_are_found(place):
    place.take("20251014/Bias/*", "20251014/Flat/*V.fit", "20251014/Light/*/*V.fit")
    assert place.run_night(FIRST_NIGHT) == {}
    assert due(place) == []
    (place.data / "20251014").rename(place.data / "2025-10-14")
    assert [one.key for one in due(place)] == ["20251014"]
    assert place.run_night(FIRST_NIGHT) == {}
    assert due(place) == []
    frames = place.observatory.status.night_frames(FIRST_NIGHT)
    assert all((place.data / frame.path).exists() for frame in frames)


def test_observations_are_retired_when_all_lights_of_a_night_are_gone(place):
    place.take("20251014/Bias/*", "20251014/Light/*/*V.fit")
    assert place.run_night(FIRST_NIGHT) == {}
    (place.data / "20251014" / "Light").rename(place.root / "elsewhere")
    assert [one.key for one in due(place)] == ["20251014"]
    assert place.run_night(FIRST_NIGHT) == {}
    assert place.row("SV Wom").retired_utc is not None
    assert due(place) == []


def test_lights_that_move_within_their_night_are_looked_at_again(place):
    place.take("20251014/Bias/*", "20251014/Light/*/*V.fit")
    assert place.run_night(FIRST_NIGHT) == {}
    night = place.data / "20251014"
    (night / "Light").rename(night / "Lights")
    assert [one.key for one in due(place)] == ["20251014"]
