"""What is kept of the detector every night, from the records of its masters: no pixels."""

import datetime as dt
import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest

from wombat_dagster.config import Settings
from wombat_dagster.domain import (
    DetectorQuantity,
    FrameGroup,
    FrameKind,
    Master,
    NoCalibration,
)
from wombat_dagster.observatory import Observatory
from wombat_dagster.stages.detector import dark_current_e_s, measure_detector
from wombat_dagster.stages.masters import NOISE_NEGLECTED

GROUP = FrameGroup(width_px=320, height_px=256, binning="1x1", camera="Cam", readout="GAIN=1")
FIRST = dt.date(2025, 10, 1)
READ_NOISE, GAIN, DARK = DetectorQuantity


@pytest.fixture
def observatory(tmp_path):
    return Observatory(Settings(base=tmp_path))


def master(kind, *, day=0, name="", **measured):
    date = FIRST + dt.timedelta(days=day)
    fields = {
        "kind": kind, "date": date, "filter": None, "group": GROUP, "n_used": 5, "n_refused": 0,
        "path": f"{date:%Y%m%d}/m{kind}{name}.fits", "content_hash": f"{date}{kind}{name}",
        "ccd_temperature_c": -20.0,
    }  # fmt: skip
    return Master(**fields | measured)


def night_of(day, *, gain=1.30, **dark):
    return [
        master(FrameKind.BIAS, day=day, read_noise_adu=6.2, read_noise_error_adu=0.02),
        master(FrameKind.FLAT, day=day, name="V", gain_e_adu=gain, gain_error_e_adu=0.01),
        master(FrameKind.FLAT, day=day, name="B", gain_e_adu=gain, gain_error_e_adu=0.01),
        master(
            FrameKind.DARK, day=day, name="60", exposure_s=60.0,
            dark_current_adu_s=0.1, dark_current_error_adu_s=0.004, **dark,
        ),
    ]  # fmt: skip


def measure(observatory, *nights):
    """Return what the last of `nights` tells after all the others were measured, in order."""
    found = ()
    for masters in nights:
        observatory.status.record_masters(masters)
        found = measure_detector(observatory, masters[0].date)
    return {m.quantity: m for m in found}


def test_a_night_keeps_what_its_masters_say_of_the_detector(observatory):
    found = measure(observatory, night_of(0))
    assert {q: m.value for q, m in found.items()} == {
        READ_NOISE: 6.2, GAIN: pytest.approx(1.30), DARK: 0.1,
    }  # fmt: skip
    assert (found[GAIN].error, found[GAIN].n_frames) == (pytest.approx(0.01 / 2**0.5), 10)
    assert {m.group for m in found.values()} == {GROUP}
    assert {m.ccd_temperature_c for m in found.values()} == {-20.0}
    assert {m.step for m in found.values()} == {None}
    assert tuple(observatory.status.detector_measurements()) == tuple(found.values())
    assert dark_current_e_s(found[DARK], found.values()) == pytest.approx(0.13)
    assert dark_current_e_s(found[GAIN], found.values()) is None


def test_anyone_can_read_the_table(observatory):
    measure(observatory, night_of(0))
    with closing(sqlite3.connect(observatory.status.path)) as connection:
        rows = connection.execute(
            "SELECT date, quantity, camera, value, error, step FROM detector ORDER BY rowid"
        ).fetchall()
    assert rows[0] == ("2025-10-01", "read_noise_adu", "Cam", 6.2, 0.02, None)
    assert len(rows) == 3


def test_a_night_measured_again_replaces_itself(observatory):
    for gain in (1.30, 1.32):
        measure(observatory, night_of(0, gain=gain))
    kept = observatory.status.detector_measurements()
    assert [m.value for m in kept if m.quantity is GAIN] == [pytest.approx(1.32)]


def test_a_step_is_kept_with_its_words(observatory):
    found = measure(observatory, *(night_of(day) for day in range(3)), night_of(3, gain=1.45))
    assert found[GAIN].step.startswith("gain 1.45 e-/ADU, 1.3 on the 3 nights before (+11.5%")
    assert found[READ_NOISE].step is None
    kept = observatory.status.detector_measurements()
    assert [m.date.day for m in kept if m.step] == [4]


def test_the_longest_dark_counts_and_only_without_its_bias(observatory):
    masters = night_of(0)
    long = replace(masters[-1], path="long", exposure_s=300.0, dark_current_adu_s=0.11)
    biased = replace(
        masters[-1], path="biased", exposure_s=600.0, dark_current_adu_s=None,
        dark_current_error_adu_s=None,
    )  # fmt: skip
    assert measure(observatory, [*masters, long, biased])[DARK].value == 0.11


def test_a_gain_without_the_read_noise_is_not_kept(observatory):
    bias, flat, *_ = night_of(0)
    found = measure(observatory, [bias, replace(flat, notes=(NOISE_NEGLECTED,))])
    assert set(found) == {READ_NOISE}


def test_a_night_without_masters_of_ours_tells_nothing_and_forgets_what_it_told(observatory):
    measure(observatory, night_of(0))
    theirs = [replace(m, made_by_us=False) for m in night_of(0)]
    observatory.status.record_masters(theirs)
    with pytest.raises(NoCalibration, match="nothing is known of the detector on 2025-10-01"):
        measure_detector(observatory, FIRST)
    assert observatory.status.detector_measurements() == []
