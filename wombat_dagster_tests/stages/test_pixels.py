"""The stages get the same pixels, whether frames are kept, lost, damaged or never written."""

import random
import threading
import time

import numpy as np
import pytest
from astropy.io import fits

from wombat_dagster.domain import FrameKind
from wombat_dagster.stages import calibrator, choice, masters, pixels, reduction
from wombat_dagster.stages.pixels import CalibratedFrames, in_order
from wombat_dagster.store.frames import read_reduced

KEY = "20251014__SV_Wom__V"
NOT_KEPT = "keep_reduced = false"


@pytest.fixture
def reduce(place):
    """Take the first night's V frames and reduce them, without Dagster."""
    place.take("20251014/*/*.fit", "20251014/Light/SV Wom/*V.fit")

    def run(calibration="", **tables):
        place.configure(calibration=calibration, **tables)
        observatory = place.observatory
        observatory.scan()
        observation = observatory.status.target_row(KEY).observation
        for kind in (FrameKind.BIAS, FrameKind.FLAT):
            masters.make_masters(observatory, observation.date, kind)
        chosen = choice.choose_calibration(observatory, observation)
        done = reduction.reduce_observation(observatory, observation, chosen)
        return done, CalibratedFrames(observatory, observation, done)

    return run


def files_below(place, name):
    return sorted(place.root.glob(f"products/20251014/SV_Wom/V/{name}"))


def as_bytes(images):
    return [(image.tobytes(), mask.tobytes()) for image, mask in images]


def test_frames_that_are_not_kept_give_the_same_night_to_the_byte(place):
    """The two roads of `keep_reduced`: tables, solutions and magnitudes."""
    products = ("photometry.npz", "magnitudes.csv", "*_phot.tbl", "comps.json")
    place.take("20251014/*/*.fit", "20251014/Light/SV Wom/*V.fit")
    made = []
    for calibration in ("keep_reduced = true", NOT_KEPT):
        place.configure(calibration=calibration)
        night = None if not made else place.row("SV Wom").observation.date
        assert place.run(night=night) == {}
        assert place.row("SV Wom").apphot == "validate"
        made.append([files_below(place, name)[0].read_bytes() for name in products])
        solutions = place.product("wcs_solutions", KEY)
        made[-1].append([s.solution for s in solutions])
        kept = [frame.path for frame in place.product("reduced_frames", KEY).frames]
        assert all(kept) if calibration != NOT_KEPT else not any(kept)
        for path in files_below(place, "solutions.json"):
            path.unlink()  # or the first run's solutions would serve again
    assert made[0] == made[1]
    assert files_below(place, "reduced") == []
    assert place.leftovers() == []


def test_unkept_frames_have_the_pixels_of_kept_ones(reduce):
    kept, frames = reduce()
    there = as_bytes(frames.stream(kept.frames))
    assert as_bytes(frames.read(frame) for frame in kept.frames) == there
    unkept, frames = reduce(NOT_KEPT)
    assert [frame.path for frame in unkept.frames] == [None] * 4
    assert as_bytes(frames.read(frame) for frame in reversed(unkept.frames)) == there[::-1]
    assert as_bytes(frames.stream(unkept.frames)) == there


def test_a_program_gets_a_file_of_an_unkept_frame_for_the_time_being(reduce):
    reduced, frames = reduce(NOT_KEPT)
    frame = reduced.frames[0]
    with frames.file(frame) as path:
        image, _, header = read_reduced(path)
        np.testing.assert_array_equal(image, frames.read(frame)[0])
        assert header["RAWFILE"] == frame.raw
    assert not path.exists()


@pytest.mark.parametrize("damage", ["gone", "cut", "zeros"])
def test_a_kept_frame_that_is_lost_or_damaged_is_reduced_again(reduce, place, damage, caplog):
    reduced, frames = reduce()
    frame = reduced.frames[1]
    path = place.root / "products" / frame.path
    before, pixels_before = path.read_bytes(), frames.read(frame)
    if damage == "gone":
        path.unlink()
    else:
        cut = before[: len(before) // 2]
        path.write_bytes(cut if damage == "cut" else cut + bytes(len(before) - len(cut)))
    _, fresh = reduced, CalibratedFrames(place.observatory, frames._observation, reduced)
    assert as_bytes([fresh.read(frame)]) == as_bytes([pixels_before])
    assert path.read_bytes() == before
    assert "reduced again" in caplog.text


def test_a_frame_is_looked_at_once_however_often_it_is_reduced(reduce, monkeypatch):
    reduce(NOT_KEPT)
    looked = []
    monkeypatch.setattr(reduction, "look_at", lambda *_: looked.append(1))
    _, frames = reduce(NOT_KEPT)
    assert looked == []
    monkeypatch.setattr(pixels, "look_at", lambda *_: looked.append(1))
    assert all(len(frames.stars(frame)) > 20 for frame in frames._reduction.frames)
    assert looked == []


def test_other_masters_mean_another_look(reduce, place, monkeypatch):
    reduce()
    first = {path.name for path in files_below(place, "looks/*.npz")}
    for path in place.data.glob("20251014/Flat/*"):
        path.unlink()
    (place.data / "20251014" / "mflatV.fits").unlink()
    place.observatory.scan()
    with pytest.raises(masters.NoCalibration):
        reduce()
    observatory = place.observatory
    observation = observatory.status.target_row(KEY).observation
    chosen = choice.choose_calibration(observatory, observation)
    assert chosen.flat is None
    reduction.reduce_observation(observatory, observation, chosen)
    second = {path.name for path in files_below(place, "looks/*.npz")}
    assert len(first) == len(second) == 4
    assert not first & second


def test_a_damaged_look_is_no_look(reduce, place):
    reduced, frames = reduce(NOT_KEPT)
    stars = frames.stars(reduced.frames[0])
    for path in files_below(place, "looks/*.npz"):
        path.write_bytes(path.read_bytes()[:-300])
    again = frames.stars(reduced.frames[0])
    np.testing.assert_array_equal(again.x_px, stars.x_px)
    assert again.sky_adu == stars.sky_adu


def test_a_raw_frame_that_vanishes_is_left_out_with_words(reduce, place, monkeypatch):
    real = calibrator.Calibrator.reduce
    last = sorted(place.data.glob("20251014/Light/*/*"))[-1]

    def write(self, *arguments):
        last.unlink(missing_ok=True)  # while the first is written
        real(self, *arguments)

    monkeypatch.setattr(calibrator.Calibrator, "reduce", write)
    reduced, _ = reduce()
    assert len(reduced.frames) == 3
    ((path, reason),) = reduced.left_out
    assert path.endswith(last.name)
    assert "No such file" in reason


def test_staged_frames_give_the_same_pixels_and_leave_nothing(reduce, place, tmp_path):
    reduced, frames = reduce(NOT_KEPT)
    there = as_bytes(frames.stream(reduced.frames))
    for path in files_below(place, "looks/*.npz"):
        path.unlink()
    scratch = tmp_path / "fast"
    reduced, frames = reduce(NOT_KEPT, staging=f'directory = "{scratch.as_posix()}"')
    assert as_bytes(frames.stream(reduced.frames)) == there
    assert list(scratch.iterdir()) == []


def test_a_reduced_frame_says_what_it_was_made_with(reduce, place):
    reduced, _ = reduce()
    header = fits.getheader(place.root / "products" / reduced.frames[0].path)
    facts = reduced.detector
    assert header["BIASNOIS"] == pytest.approx(reduced.choice.bias.noise)
    assert header["FLATNOIS"] == pytest.approx(reduced.choice.flat.noise)
    assert (header["GAINUSED"], header["GAINSRC"]) == (
        facts.gain_e_adu.value,
        facts.gain_e_adu.source,
    )
    assert header["DARKFILE"] == "nocal"


# -------------------------------------------------------------------------------- two threads


def test_results_come_in_the_order_of_the_items():
    def slowly(number):
        time.sleep(random.random() / 200)
        return -number

    assert list(in_order(slowly, range(50))) == [-n for n in range(50)]


def test_only_a_few_results_are_made_ahead():
    begun, lock = [], threading.Lock()

    def noted(number):
        with lock:
            begun.append(number)

    results = in_order(noted, range(1000))
    for _ in range(5):
        next(results)
    time.sleep(0.05)
    assert len(begun) <= 5 + pixels.N_THREADS
    results.close()
    assert len(begun) <= 5 + pixels.N_THREADS


def test_a_failure_comes_through_and_ends_the_work():
    def failing(number):
        if number == 3:
            raise ValueError("frame 3")
        return number

    results = in_order(failing, range(10))
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="frame 3"):
        next(results)


@pytest.mark.parametrize("stage", ["solving", "photometry"])
def test_a_raw_frame_that_vanishes_after_a_reduction_that_keeps_nothing_is_left_out(
    place, monkeypatch, stage
):
    """The first frame is the one that is solved in full, and gives the profile."""
    from wombat_dagster.stages import photometry, solving

    place.take("20251014/*/*.fit", "20251014/Light/SV Wom/*V.fit")
    place.configure(calibration=NOT_KEPT)
    lights = sorted(place.data.glob("20251014/Light/SV Wom/*V.fit"))
    module, name = {
        "solving": (solving, "solve_observation"),
        "photometry": (photometry, "measure_observation"),
    }[stage]
    work, seen = getattr(module, name), []

    def after_a_loss(*arguments):
        if not seen:
            lights[0].unlink()
            lights[1].unlink()
        seen.append(work(*arguments))
        return seen[-1]

    monkeypatch.setattr(module, name, after_a_loss)
    assert place.run() == {}
    if stage == "solving":
        assert [one.solution is not None for one in seen[0]].count(True) >= 2
    else:
        assert len(seen[0].labels) == 2
        assert "left out: gone from the data since it was reduced" in seen[0].notes[0]
    assert len(place.product("photometry_table", KEY).labels) == 2
