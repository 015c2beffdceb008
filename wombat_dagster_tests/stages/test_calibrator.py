"""Zero levels: pedestals of programs, frames that come calibrated, masters that know little."""

import datetime as dt
import os
from dataclasses import fields
from types import SimpleNamespace

import numpy as np
import pytest
from astropy.io import fits

from wombat_dagster.domain import (
    CalibrationChoice,
    DetectorFacts,
    FrameGroup,
    FrameKind,
    MaskBit,
    Master,
    RawFrame,
    Sourced,
)
from wombat_dagster.science.detector import central_half, raw_extremes
from wombat_dagster.stages.calibrator import Calibrator, RawPixels, offset_adu
from wombat_dagster.store.frames import (
    UnreadableFrame,
    array_hash,
    carried_cards,
    read_reduced,
)

GROUP = FrameGroup(width_px=4, height_px=3, binning="1x1", camera=None, readout=None)
FACTS = DetectorFacts(
    gain_e_adu=None,
    read_noise_e=None,
    saturation_adu=Sourced(value=60000.0, source="header"),
    linearity_adu=Sourced(value=50000.0, source="header"),
)


def light(**known):
    empty = dict.fromkeys(f.name for f in fields(RawFrame) if f.name not in ("warnings", "reason"))
    frame = empty | {
        "path": "20251014/Light/T/a.fits", "kind": FrameKind.LIGHT, "group": GROUP,
        "exposure_s": 60.0, "start_utc": "2025-10-14T22:00:00", "pixel_hash": "ab12",
    }  # fmt: skip
    return RawFrame(**(frame | known))


def looked_at(path):
    status = path.stat()
    return {"size_bytes": status.st_size, "mtime_ns": status.st_mtime_ns}


def counts(value, **more):
    return RawPixels(counts=np.full((3, 4), value, np.uint16), less_overscan=None, cards=(), **more)


def written(calibrator, frame, of_raw=()):
    return fits.Header.fromstring("".join(calibrator.cards(frame, of_raw, FACTS, None)))


@pytest.fixture
def made(tmp_path):
    """Write a master of given pixels, and an observatory that finds it."""

    def master(kind, pixels, **known):
        image = np.broadcast_to(np.asarray(pixels, np.float32), (3, 4)).copy()
        path = tmp_path / f"{kind}{len(list(tmp_path.iterdir()))}.fits"
        fits.PrimaryHDU(image).writeto(path)
        about = {
            "date": dt.date(2025, 10, 14), "filter": None, "group": GROUP, "path": path.name,
            "content_hash": array_hash(image), "n_used": 5, "n_refused": 0,
        }  # fmt: skip
        return Master(kind=kind, **(about | known))

    return master


@pytest.fixture
def calibrated(tmp_path):
    """Return image and mask of a light of uniform counts."""
    observatory = SimpleNamespace(
        layout=SimpleNamespace(raw_path=lambda name: tmp_path / name),
        settings=SimpleNamespace(calibration=SimpleNamespace(cosmic_rays=False)),
    )

    def run(value, frame, **masters):
        chosen = {"bias": None, "dark": None, "flat": None, "reasons": ()} | masters
        one = Calibrator(observatory, CalibrationChoice(**chosen))
        image, mask, _ = one.finished(frame, counts(value), FACTS)
        return image, mask, one

    return run


@pytest.mark.parametrize(
    ("of_frame", "of_bias", "expected"),
    [
        (None, 0.0, 0.0),
        (-100.0, 0.0, -100.0),  # 100 were added to the frame: they are taken off
        (-100.0, -100.0, 0.0),
        (None, -100.0, 100.0),
        (-100.0, None, 0.0),  # a person's master that does not say
    ],
)
def test_frames_of_another_pedestal_come_to_the_zero_of_the_bias(
    made, calibrated, of_frame, of_bias, expected
):
    bias = made(FrameKind.BIAS, 300.0, pedestal_adu=of_bias)
    image, _, one = calibrated(1000, light(pedestal_adu=of_frame), bias=bias)
    assert (image == 700.0 + expected).all()
    cards = written(one, light(pedestal_adu=of_frame))
    assert cards.get("PEDADDED", 0.0) == expected


def test_the_pedestal_of_a_calibrated_frame_is_taken_off_before_the_flat(made, calibrated):
    """(1100 - 100) / 2, by hand: MaxIm DL keeps sums positive with 100 counts."""
    image, _, _ = calibrated(
        1100,
        light(pedestal_adu=-100.0, calibration_status="BD"),
        flat=made(FrameKind.FLAT, 2.0),
        already_done=("bias", "dark"),
    )
    assert (image == 500.0).all()


def test_without_a_bias_or_with_an_overscan_there_is_no_other_zero(made):
    nothing = CalibrationChoice(bias=None, dark=None, flat=None, reasons=())
    assert offset_adu(light(pedestal_adu=-100.0), nothing) == 0.0
    bias = CalibrationChoice(
        bias=made(FrameKind.BIAS, 0.0, pedestal_adu=0.0), dark=None, flat=None, reasons=()
    )
    assert offset_adu(light(pedestal_adu=-100.0, overscan="[1:2,1:3]"), bias) == 0.0


def test_steps_that_are_done_are_not_done_again(made, calibrated):
    image, _, _ = calibrated(
        1000,
        light(),
        bias=made(FrameKind.BIAS, 300.0),
        dark=made(FrameKind.DARK, 60.0, exposure_s=60.0),
        flat=made(FrameKind.FLAT, 0.5),
        already_done=("bias", "dark", "flat"),
    )
    assert (image == 1000.0).all()


def test_a_dark_is_scaled_behind_a_bias_and_is_one_itself_without(made, calibrated):
    """1000 - 300 - 30 * 60/30 = 640 and 1000 - 30 = 970, by hand."""
    dark = made(FrameKind.DARK, 30.0, exposure_s=30.0, noise=2.0)
    image, _, one = calibrated(1000, light(), bias=made(FrameKind.BIAS, 300.0), dark=dark)
    assert (image == 640.0).all()
    assert written(one, light())["DARKNOIS"] == 4.0
    image, _, one = calibrated(1000, light(), dark=dark)
    assert (image == 970.0).all()
    assert written(one, light())["DARKNOIS"] == 2.0


def test_a_dark_behind_a_bias_that_the_capture_program_took_off_is_scaled(made, calibrated):
    dark = made(FrameKind.DARK, 30.0, exposure_s=30.0)
    image, _, _ = calibrated(1000, light(), dark=dark, already_done=("bias",))
    assert (image == 940.0).all()


def test_where_a_master_knows_nothing_the_frame_has_an_edge(made, calibrated):
    bias = np.full((3, 4), 300.0)
    bias[:, 0] = np.nan
    image, mask, _ = calibrated(1000, light(), bias=made(FrameKind.BIAS, bias))
    assert (mask[:, 0] == MaskBit.BAD | MaskBit.EDGE).all()
    assert not mask[:, 1:].any()
    assert (image[:, 0] == 0).all()


def test_overscan_and_trim_are_the_frame_s_own(tmp_path):
    """Columns 1 and 2 are overscan at 200; 1000 - 200 = 800 is left of columns 3 to 6."""
    raw = np.full((3, 6), 1000, np.uint16)
    raw[:, :2] = 200
    path = tmp_path / "a.fits"
    fits.PrimaryHDU(raw).writeto(path)
    nothing = CalibrationChoice(bias=None, dark=None, flat=None, reasons=())
    frame = light(overscan="[1:2,1:3]", trim="[3:6,1:3]", **looked_at(path))
    layout = SimpleNamespace(raw_path=lambda _: path)
    one = Calibrator(SimpleNamespace(layout=layout), nothing)
    image, mask = one.calibrate(frame, one.read(frame, path), FACTS)
    assert image.shape == (3, 4)
    assert (image == 800.0).all()
    assert not mask.any()


@pytest.mark.parametrize("trim", [None, "[2:3,1:3]"])
@pytest.mark.parametrize("size_matters", [True, False])
def test_a_frame_replaced_after_the_scan_is_refused_and_nothing_is_written(
    tmp_path, trim, size_matters
):
    """Whichever way it is read: some rows at a time, or whole."""
    path, reduced = tmp_path / "a.fits", tmp_path / "reduced.fits"
    fits.PrimaryHDU(np.full((3, 4), 1000, np.uint16)).writeto(path)
    frame = light(trim=trim, **looked_at(path))
    layout = SimpleNamespace(raw_path=lambda _: path)
    settings = SimpleNamespace(calibration=SimpleNamespace(cosmic_rays=False))
    nothing = CalibrationChoice(bias=None, dark=None, flat=None, reasons=())
    one = Calibrator(SimpleNamespace(layout=layout, settings=settings), nothing)
    one.reduce(frame, path, reduced, FACTS)
    reduced.unlink()
    shape = (3000, 4) if size_matters else (3, 4)
    fits.PrimaryHDU(np.full(shape, 2000, np.uint16)).writeto(path, overwrite=True)
    later_ns = frame.mtime_ns + 1_500_000_000
    os.utime(path, ns=(later_ns, later_ns))
    what = "size 5760 → 28800 bytes" if size_matters else "written .* UTC → .* UTC"
    words = rf"changed since it was looked at \({what}\); the next look takes the new file"
    with pytest.raises(UnreadableFrame, match=words):
        one.reduce(frame, path, reduced, FACTS)
    with pytest.raises(UnreadableFrame, match=words):
        one.read(frame, path)
    assert list(tmp_path.iterdir()) == [path]


def test_what_the_raw_frame_says_and_no_longer_holds_is_not_written(made, calibrated):
    raw = fits.Header(
        [
            ("OBJECT", "SV Wom"),
            ("PEDESTAL", -100.0),
            ("BIASSEC", "[1:2,1:3]"),
            ("CRVAL1", 31.0),
            ("RAWFILE", "of another program"),
        ]
    )
    frame = light(pedestal_adu=-100.0, trim="[3:6,1:3]")
    _, _, one = calibrated(1000, light(), bias=made(FrameKind.BIAS, 300.0, pedestal_adu=0.0))
    header = written(one, frame, carried_cards(raw))
    assert (header["OBJECT"], header["PEDESTAL"], header["PEDADDED"]) == ("SV Wom", 0.0, -100.0)
    assert header["RAWFILE"] == frame.path
    assert header.count("RAWFILE") == header.count("PEDESTAL") == 1
    assert not {"BIASSEC", "CRVAL1"} & set(header)


@pytest.mark.parametrize("packed", [False, True])
def test_a_frame_reduced_in_rows_is_the_one_reduced_whole_to_the_byte(
    tmp_path, made, calibrated, packed
):
    raw = np.random.default_rng(1).integers(900, 60000, (300, 40)).astype(np.uint16)
    source, rows, whole = (tmp_path / name for name in ("raw.fits", "rows.fits", "whole.fits"))
    header = fits.Header([("OBJECT", "SV Wom"), ("PEDESTAL", 0.0)])
    if packed:
        fits.CompImageHDU(raw, header, compression_type="RICE_1").writeto(source)
    else:
        fits.PrimaryHDU(raw, header).writeto(source)
    _, _, one = calibrated(1000, light())
    one.reduce(light(), source, rows, FACTS)
    one.write(light(), one.read(light(), source), whole, FACTS)
    assert rows.read_bytes() == whole.read_bytes()
    image, mask, _ = read_reduced(rows)
    np.testing.assert_array_equal(image, raw)
    np.testing.assert_array_equal((mask & MaskBit.NON_LINEAR) != 0, raw > 50000)


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "f4"])
@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (5, 7), (40, 50)])
@pytest.mark.parametrize("n_values", [2, 250])
def test_the_level_of_a_frame_is_the_median_of_its_central_half(dtype, shape, n_values):
    """Counted, not sorted; where both middle counts differ, between them."""
    for seed in range(20):
        raw = np.random.default_rng(seed).integers(0, n_values, shape).astype(dtype)
        found = raw_extremes(raw)
        assert found.level_adu == np.median(central_half(raw))
        assert (found.maximum_adu, found.n_at_maximum) == (raw.max(), (raw == raw.max()).sum())
