"""What careless disks, headers and interruptions do to a run, and what they must not do."""

import os

import pytest

from wombat_dagster.stages import due, masters

LIGHTS = "20251014/Light/SV Wom"


@pytest.fixture
def no_masters(monkeypatch):
    """A disk that refuses the masters."""

    def refuse(*_arguments, **_options):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(masters, "write_master", refuse)


def test_where_masters_could_not_be_made_nothing_is_measured_without_them(place, no_masters):
    place.take("20251014/*/*.fit", f"{LIGHTS}/*V.fit")
    place.configure()
    errors = place.run()
    assert "Read-only" in errors["20251014"]
    assert errors["20251014__SV_Wom__V"].startswith("not begun: waits for the masters of 20251014")
    assert place.row("SV Wom").apphot is None


def test_masters_made_late_reopen_the_observations_in_the_same_run(place):
    place.take(f"{LIGHTS}/*V.fit")
    place.configure()
    place.run()
    assert place.row("SV Wom").proc_bias == "nocal"
    place.take("20251014/Bias/*.fit", "20251014/Flat/*.fit")
    assert place.run() == {}
    assert place.row("SV Wom").proc_bias == "2025-10-14"


def test_magnitudes_left_without_their_sibling_are_mended_by_the_next_run(place, monkeypatch):
    place.take("20251014/*/*.fit", f"{LIGHTS}/*.fit")
    place.configure(
        tail="[[instrument]]\nfilters = { B = 'B', V = 'V' }\n"
        "transform = { Tb_bv = 0.09, Tv_bv = -0.06 }\n"
    )
    with monkeypatch.context() as interrupted:
        interrupted.setattr(due, "stale_inputs", lambda _observatory: {})
        place.run()
    first = "20251014__SV_Wom__B"
    assert place.product("standard_magnitudes", first).sibling_versions.keys() == {"coefficients"}
    assert place.run() == {}
    assert place.product("standard_magnitudes", first).sibling_versions != {}


@pytest.mark.parametrize(
    ("cards", "words"),
    [
        ({"DATE-OBS": "0001-01-01T00:00:00+02:00"}, "notime"),
        ({"DATE-OBS": "9999-12-31T24:59:59+99:99"}, "notime"),
        ({"EXPTIME": 1e300}, "exposure time is 1e+300 s"),
    ],
)
def test_an_absurd_header_costs_its_frame_only(place, edit, cards, words):
    place.take("20251014/*/*.fit", f"{LIGHTS}/*V.fit")
    spoilt = place.data / LIGHTS / "zz_V.fit"
    edit(place.sky.lights_v[0], spoilt, cards=cards, pixels=lambda image: image[::-1])
    place.configure()
    assert place.run() == {}
    assert (place.row("SV Wom").n_frames, place.row("SV Wom").n_quarantined) == (4, 1)
    reasons = [f.reason for f in place.observatory.status.known_frames().values() if f.reason]
    assert [words in reason for reason in reasons] == [True]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
def test_a_fifo_does_not_stop_the_scan(place):
    place.take("20251014/*/*.fit", f"{LIGHTS}/*V.fit")
    os.mkfifo(place.data / LIGHTS / "x_V.fits")
    place.configure()
    place.observatory.scan()
    (reason,) = [f.reason for f in place.observatory.status.known_frames().values() if f.reason]
    assert reason == "not a regular file"
