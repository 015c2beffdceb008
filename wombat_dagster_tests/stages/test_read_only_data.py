"""Raw data that can only be read, that is closed for a while, or that changes after the scan.

Root may write and list everything: the errors are raised as the system would.
"""

import datetime as dt
import errno
import os
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from wombat_dagster.domain import FrameKind, NoCalibration
from wombat_dagster.stages import masters, reduction
from wombat_dagster.stages.calibrator import Calibrator
from wombat_dagster.stages.choice import choose_calibration
from wombat_dagster.stages.due import due_observations
from wombat_dagster.stages.inputs import nights_on_disk
from wombat_dagster.store import layout
from wombat_dagster.store.frames import read_master

NIGHT = dt.date(2025, 10, 14)
KINDS = (FrameKind.BIAS, FrameKind.FLAT)
PLACE = "products/20251014/masters"


@pytest.fixture
def night(place):
    """The first night's biases, and flats and lights in V, looked at once."""
    place.take("20251014/Bias/*", "20251014/Flat/*V.fit", "20251014/Light/SV Wom/*V.fit")
    place.observatory.scan()
    return place


def make(place, *kinds):
    return [
        one for k in kinds or KINDS for one in masters.make_masters(place.observatory, NIGHT, k)
    ]


@pytest.fixture
def read_only(night, monkeypatch):
    """Return the function after which every file in the data is refused to us with an error."""
    write = masters.write_master

    def refuse(code):
        def write_elsewhere(path, *content):
            if path.is_relative_to(night.data):
                raise OSError(code, os.strerror(code), str(path))
            return write(path, *content)

        monkeypatch.setattr(masters, "write_master", write_elsewhere)
        return night

    return refuse


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_masters_go_to_the_products_where_the_data_cannot_be_written(read_only, caplog, code):
    place = read_only(code)
    raw = place.raw_files()
    made = make(place)
    assert [one.path for one in made] == [f"{PLACE}/mbias.fits", f"{PLACE}/mflatV.fits"]
    words = f"20251014 cannot be written ({os.strerror(code)}): its masters are put into"
    assert [words in text for text in caplog.messages].count(True) == 1
    assert "lies in the products: 20251014 in the data cannot be written" in made[0].notes[-1]
    assert place.raw_files() == raw
    assert not list(place.data.rglob("m*.fits"))
    observatory, one = place.observatory, place.row("SV Wom").observation
    choice = choose_calibration(observatory, one)
    assert [choice.bias.path, choice.flat.path] == [one.path for one in made]
    Calibrator(observatory, choice)  # reads both, by their hashes
    header = fits.getheader(place.root / PLACE / "mflatV.fits")
    assert header["OFFSET1"] == f"{PLACE}/mbias.fits"


def test_masters_in_the_products_stay_while_they_are_the_same(read_only, caplog):
    """Also when the data can be written again: what was calibrated with them names them."""
    place = read_only(errno.EROFS)
    made = make(place)
    files = {p: p.stat().st_mtime_ns for p in (place.root / PLACE).iterdir()}
    caplog.clear()
    assert make(place) == made
    assert {p: p.stat().st_mtime_ns for p in (place.root / PLACE).iterdir()} == files
    assert masters.outdated_masters(place.observatory, NIGHT, tried={}) == []
    assert caplog.messages == []


def test_masters_that_are_made_again_go_into_data_that_can_be_written_by_then(
    read_only, monkeypatch
):
    place = read_only(errno.EROFS)
    make(place, FrameKind.BIAS)
    monkeypatch.undo()
    next(place.data.glob("20251014/Bias/*")).unlink()
    place.observatory.scan()
    (bias,) = make(place, FrameKind.BIAS)
    assert (bias.path, bias.n_used) == ("20251014/mbias.fits", 4)
    assert list((place.root / PLACE).iterdir()) == []
    assert make(place, FrameKind.BIAS) == [bias]


def test_an_outdated_master_stays_in_data_that_cannot_be_written_any_more(night, read_only):
    (old,) = make(night, FrameKind.BIAS)
    before = (night.data / old.path).read_bytes()
    next(night.data.glob("20251014/Bias/*")).unlink()
    night.observatory.scan()
    read_only(errno.EROFS)
    (bias,) = make(night, FrameKind.BIAS)
    assert (bias.path, bias.n_used) == (f"{PLACE}/mbias.fits", 4)
    assert (night.data / old.path).read_bytes() == before
    assert make(night, FrameKind.BIAS) == [bias]


def test_a_person_s_master_in_the_products_is_used_and_never_touched(read_only):
    place = read_only(errno.EROFS)
    (ours,) = make(place, FrameKind.BIAS)
    path = place.root / PLACE / "mbias.fits"
    image, _, header = read_master(path)
    del header["WOMBHASH"]
    fits.PrimaryHDU(image + np.float32(1.0), header).writeto(path, overwrite=True)
    before = path.read_bytes()
    (theirs,) = make(place, FrameKind.BIAS)
    assert (theirs.path, theirs.made_by_us) == (ours.path, False)
    assert path.read_bytes() == before


def test_another_fault_of_the_disk_is_not_taken_for_a_lock(read_only):
    place = read_only(errno.EIO)
    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        make(place, FrameKind.BIAS)
    assert not (place.root / PLACE).exists()


# ------------------------------------------------------------------------------------------ closed


@pytest.mark.parametrize("name", ["20251014", "Bias", "SV Wom"])
def test_a_night_with_a_closed_directory_stays_as_it_was(night, monkeypatch, caplog, name):
    make(night)
    status, real = night.observatory.status, os.scandir
    before = status.known_frames(), status.targets(), status.masters()

    def closed(path):
        if Path(path).name == name:
            raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return real(path)

    monkeypatch.setattr(layout.os, "scandir", closed)
    night.observatory.scan()
    assert (status.known_frames(), status.targets(), status.masters()) == before
    assert "20251014 cannot be read and stays as it was: [Errno 13] Permission" in caplog.text
    assert nights_on_disk(night.observatory) == {}  # nothing is due


# --------------------------------------------------------------------------- changed after the scan


def grown(path):
    """Put a frame of other pixels and another size in the place of a file."""
    image, header = fits.getdata(path, header=True)
    header["MORE"] = 1
    for i in range(40):
        header[f"CARD{i}"] = i
    fits.PrimaryHDU(image, header).writeto(path, overwrite=True)


def test_a_bias_replaced_after_the_scan_is_left_out_until_the_next(night):
    path = sorted(night.data.glob("20251014/Bias/*"))[1]
    grown(path)
    (bias,) = make(night, FrameKind.BIAS)
    assert (bias.n_used, bias.n_refused) == (4, 1)
    assert f"{path.name}: changed since it was looked at (size " in bias.notes[0]
    history = str(fits.getheader(night.data / bias.path)["HISTORY"])
    assert f"input {path.relative_to(night.data).as_posix()}" not in history
    night.observatory.scan()
    (bias,) = make(night, FrameKind.BIAS)
    assert (bias.n_used, bias.n_refused) == (5, 0)


def test_a_bias_replaced_while_it_is_combined_makes_no_master(night, monkeypatch):
    combine, path = masters.combine_unit, next(night.data.glob("20251014/Bias/*"))

    def slowly(*arguments):
        grown(path)
        return combine(*arguments)

    monkeypatch.setattr(masters, "combine_unit", slowly)
    with pytest.raises(NoCalibration, match=f"{path.name}: changed since it was looked at"):
        make(night, FrameKind.BIAS)
    assert not list(night.data.rglob("m*.fits"))


def test_a_light_replaced_after_the_scan_is_left_out_and_comes_back_by_itself(place, monkeypatch):
    """The same run asks what is due when it is done, and takes the new file."""
    place.take("20251014/Light/SV Wom/*V.fit")
    changed = sorted(place.data.glob("20251014/Light/SV Wom/*"))[0]
    reduce, begin, left_out = reduction.reduce_observation, reduction._calibrator, []

    def after_a_change(*arguments):
        if not left_out:
            grown(changed)
        return begin(*arguments)

    def reduced(*arguments):
        made = reduce(*arguments)
        left_out.append(made.left_out)
        return made

    monkeypatch.setattr(reduction, "_calibrator", after_a_change)
    monkeypatch.setattr(reduction, "reduce_observation", reduced)
    assert place.run() == {}
    ((path, reason),) = left_out[0]
    assert path == changed.relative_to(place.data).as_posix()
    assert reason.startswith("changed since it was looked at (")
    assert left_out[1:] == [()]
    assert len(place.product("reduced_frames", place.row("SV Wom").observation.key).frames) == 4
    assert due_observations(place.observatory).due == ()
