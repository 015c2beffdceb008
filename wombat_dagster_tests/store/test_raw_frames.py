"""What one raw file says of itself: sections, temperatures, what was done to it before."""

import datetime as dt

import numpy as np
import pytest
from astropy.io import fits

from wombat_dagster.domain import FrameKind
from wombat_dagster.store import raw_frames

DATE = dt.date(2025, 10, 15)
WIDTH, HEIGHT = 60, 40


def put(path, *, history=(), **cards):
    header = fits.Header({"DATE-OBS": "2025-10-15T22:00:00", "EXPTIME": 60.0, "FILTER": "V"})
    header.update({key.replace("_", "-"): value for key, value in cards.items()})
    for line in history:
        header["HISTORY"] = line
    fits.PrimaryHDU(np.zeros((HEIGHT, WIDTH), np.uint16), header).writeto(path)
    return path


def read(path, *, kind=FrameKind.LIGHT, sections=(None, None), **more):
    return raw_frames.read_raw_frame(
        path, data_root=path.parent, night_directory="20251015", date=DATE, kind=kind,
        sections_of_camera=lambda _camera: sections, **more,
    )  # fmt: skip


# ----------------------------------------------------------------------------- overscan and trim


def test_a_frame_s_group_has_the_shape_that_is_left_after_trimming(tmp_path):
    path = put(tmp_path / "a.fits", BIASSEC="[51:60,1:40]", TRIMSEC="[1:50, 2:39]")
    frame = read(path)
    assert (frame.overscan, frame.trim) == ("[51:60,1:40]", "[1:50,2:39]")
    assert (frame.group.width_px, frame.group.height_px) == (50, 38)
    assert frame.warnings == ()


@pytest.mark.parametrize(
    "nonsense",
    [
        "[0:0,0:0]", "[1:1,1:1]", "[1:70,1:40]", "[50:1,1:40]", "[1:60,1:40]", "[1:8,1:8]",
        "50:60,1:40", "", "N/A", "[1:50]", "[*,1:40]",
    ],
)  # fmt: skip
def test_sections_that_cannot_be_meant_are_not_known(tmp_path, nonsense):
    """Outside, backwards, a point, everything, next to nothing, or no section at all."""
    frame = read(put(tmp_path / "a.fits", TRIMSEC=nonsense, BIASSEC="[1:60,1:40]"))
    assert (frame.overscan, frame.trim) == (None, None)
    assert (frame.group.width_px, frame.group.height_px) == (WIDTH, HEIGHT)


def test_an_overscan_inside_the_image_that_is_kept_has_seen_light(tmp_path):
    frame = read(put(tmp_path / "a.fits", BIASSEC="[45:60,1:40]", TRIMSEC="[1:50,1:40]"))
    assert (frame.overscan, frame.trim) == (None, "[1:50,1:40]")
    assert frame.warnings == (
        "overscan [45:60,1:40] overlaps with the image kept, [1:50,1:40]: ignored",
    )


def test_configured_sections_come_before_the_header_s(tmp_path):
    path = put(tmp_path / "a.fits", BIASSEC="[51:60,1:40]", TRIMSEC="[1:50,1:40]")
    frame = read(path, sections=("[53:60,1:40]", "[1:48,1:40]"))
    assert (frame.overscan, frame.trim) == ("[53:60,1:40]", "[1:48,1:40]")
    assert frame.group.width_px == 48
    assert frame.warnings == (
        "from the configuration: overscan [53:60,1:40], trim [1:48,1:40]",
    )  # fmt: skip
    only_trim = read(path, sections=(None, "[1:48,1:40]"))
    assert (only_trim.overscan, only_trim.trim) == ("[51:60,1:40]", "[1:48,1:40]")


def test_the_whole_image_configured_as_trim_overrules_the_header(tmp_path):
    frame = read(put(tmp_path / "a.fits", TRIMSEC="[1:50,1:40]"), sections=(None, "[1:60,1:40]"))
    assert (frame.trim, frame.group.width_px) == (None, WIDTH)


def test_a_configured_section_that_is_outside_gives_way_to_the_header_s_and_is_said(tmp_path):
    path = put(tmp_path / "a.fits", TRIMSEC="[1:50,1:40]")
    frame = read(path, sections=(None, "[1:2048,1:2048]"))
    assert frame.trim == "[1:50,1:40]"
    assert frame.warnings[-1] == (
        "configured trim [1:2048,1:2048] is no part of the image of 60x40: ignored"
    )


def test_windows_of_one_shape_on_two_parts_of_the_chip_are_two_groups(tmp_path):
    one = read(put(tmp_path / "a.fits", XORGSUBF=100, YORGSUBF=50)).group
    other = read(put(tmp_path / "b.fits", XORGSUBF=300, YORGSUBF=50)).group
    whole = read(put(tmp_path / "c.fits", XORGSUBF=0, YORGSUBF=0)).group
    assert one.shape_words == other.shape_words
    assert one != other
    assert (one.readout, whole.readout) == ("XORGSUBF=100 YORGSUBF=50", None)


# ------------------------------------------------------------------------------------ temperature


@pytest.mark.parametrize(
    ("cards", "words"),
    [
        ({"CCD_TEMP": -14.8, "SET_TEMP": -20.0}, "CCD at -14.8 C, 5.2 above its set point of"),
        ({"CCD_TEMP": -17.5, "SET_TEMP": -20.0}, None),
        ({"CCD_TEMP": -25.0, "SET_TEMP": -20.0}, None),
        ({"CCD_TEMP": -14.8}, None),
        ({"SET_TEMP": -20.0}, None),
    ],
)
def test_a_chip_that_has_not_reached_its_set_point_is_said(tmp_path, cards, words):
    frame = read(put(tmp_path / "a.fits", **cards))
    assert frame.reason is None
    found = [w for w in frame.warnings if w.startswith("CCD at")]
    assert len(found) == (words is not None)
    assert all(w.startswith(words) for w in found)


# ------------------------------------------------------------------------ calibrated before, or not


@pytest.mark.parametrize(
    ("cards", "status", "words"),
    [
        ({"CALSTAT": "BD"}, "BD", "bias-subtracted, dark-subtracted (CALSTAT 'BD')"),
        ({"CALSTAT": "FDB"}, "BDF", "flat-fielded (CALSTAT 'FDB')"),
        ({"history": ["Bias Subtracted"]}, "B", "bias-subtracted (HISTORY 'Bias Subtracted')"),
        (
            {"CALSTAT": "B", "history": ["Flat Field Applied"]},
            "BF",
            "bias-subtracted, flat-fielded (CALSTAT 'B', HISTORY 'Flat Field Applied')",
        ),
        ({"ZEROCOR": "Oct 15 22:10 Zero level correction image is Zero"}, "B", "(ZEROCOR)"),
    ],
)
def test_a_light_that_was_calibrated_before_says_what_was_done(tmp_path, cards, status, words):
    frame = read(put(tmp_path / "a.fits", **cards))
    assert (frame.reason, frame.calibration_status) == (None, status)
    (warning,) = frame.warnings
    assert warning.startswith("already calibrated by another program: ")
    assert warning.endswith(words)


def test_whether_a_calibrated_flat_still_makes_a_master_is_not_for_the_scan_to_say(tmp_path):
    frame = read(put(tmp_path / "a.fits", CALSTAT="BD"), kind=FrameKind.FLAT)
    assert (frame.reason, frame.steps_done) == (None, {"bias", "dark"})
    assert len(frame.warnings) == 1


def test_a_calstat_that_nobody_understands_is_said(tmp_path):
    frame = read(put(tmp_path / "a.fits", CALSTAT="Calibrated"))
    assert frame.calibration_status is None
    assert frame.warnings == ("CALSTAT 'Calibrated' is not understood: taken for a raw frame",)
    assert read(put(tmp_path / "b.fits", CALSTAT="RAW")).warnings == ()


def test_a_pedestal_is_kept(tmp_path):
    """PEDESTAL -100 of TheSkyX: to be added to each pixel."""
    assert read(put(tmp_path / "a.fits", PEDESTAL=-100)).pedestal_adu == -100.0
