"""Frames that are not what a pipeline expects: each goes on, or is left out, with the reason."""

import datetime as dt

import numpy as np
import pytest
from astropy.io import fits

from wombat_dagster.domain import NoCalibration, NoFrames
from wombat_dagster.products import PRODUCTS
from wombat_dagster.stages.choice import choose_calibration, left_out_lights, usable_lights
from wombat_dagster.stages.reduction import reduce_observation
from wombat_dagster.store.frames import write_master

NIGHT = dt.date(2025, 10, 14)


def prepare(place, edit, *, lights, calibrations=True, **changes):
    """Put the V lights of the night, each changed by `changes`, beside the calibrations."""
    if calibrations:
        place.take("20251014/Bias/*", "20251014/Flat/*V.fit")
    for source in place.sky.lights_v[:lights]:
        edit(source, place.data / source.relative_to(place.sky.data), **changes)
    assert place.run_night(NIGHT) == {}
    return place.row("SV Wom").observation


def chosen(place, observation):
    with place.in_force() as observatory:
        return choose_calibration(observatory, observation)


def reduced_and_raw(place, observation, choice):
    """Return the first reduced frame, where it is good, and its raw counts there."""
    with place.in_force() as observatory:
        frame = reduce_observation(observatory, observation, choice).frames[0]
    with fits.open(place.root / "products" / frame.path) as hdus:
        image, good = hdus[0].data, hdus["MASK"].data == 0
    return image[good], fits.getdata(place.data / frame.raw).astype(np.float32)[good], good


# ------------------------------------------------------------------------------ already calibrated


def test_a_bias_is_not_subtracted_twice_and_the_flat_still_divides(place, edit):
    observation = prepare(place, edit, lights=2, cards={"CALSTAT": "B"})
    choice = chosen(place, observation)
    assert (choice.bias, choice.already_done, choice.missing) == (None, ("bias",), ())
    assert choice.reasons[0] == (
        "no bias wanted: already bias-subtracted (CALSTAT 'B')"
    )  # fmt: skip
    assert choice.flat is not None
    image, raw, good = reduced_and_raw(place, observation, choice)
    flat = fits.getdata(place.data / choice.flat.path)[good]
    np.testing.assert_allclose(image, raw / flat, rtol=1e-4)
    words = PRODUCTS["calibration_choice"].status(place.observatory, observation.key, choice)
    assert (words["proc_bias"], words["proc_flat"]) == ("nocal", "2025-10-14")


@pytest.mark.parametrize("cards", [{"CALSTAT": "BDF"}, {"CALSTAT": "DF"}])
def test_frames_calibrated_altogether_are_left_as_they_are(place, edit, cards):
    observation = prepare(place, edit, lights=2, cards=cards)
    choice = chosen(place, observation)
    assert (choice.bias, choice.dark, choice.flat) == (None, None, None)
    assert (choice.already_done, choice.missing) == (("bias", "dark", "flat"), ())
    image, raw, _ = reduced_and_raw(place, observation, choice)
    np.testing.assert_allclose(image, raw, rtol=1e-6)


def test_nothing_is_subtracted_after_a_flat(place, edit):
    observation = prepare(place, edit, lights=2, cards={"CALSTAT": "F"})
    choice = chosen(place, observation)
    assert (choice.bias, choice.flat, choice.missing) == (None, None, ("bias",))
    assert choice.reasons[0] == "no bias: already flat-fielded (CALSTAT 'F'), too late for it"


def test_calibration_that_was_done_elsewhere_satisfies_whoever_requires_it(place, edit):
    place.configure(calibration="require_calibration = true")
    observation = prepare(place, edit, lights=2, calibrations=False, cards={"CALSTAT": "B"})
    with pytest.raises(NoCalibration, match=r"^require_calibration: no master flat in V"):
        chosen(place, observation)
    place.take("20251014/Bias/*", "20251014/Flat/*V.fit")
    assert place.run_night(NIGHT) == {}
    assert chosen(place, observation).flat is not None


def test_the_lights_calibrated_in_another_way_are_left_out_with_the_reason(place, edit):
    place.take("20251014/Bias/*")
    first, *others = place.sky.lights_v
    edit(first, place.data / first.relative_to(place.sky.data), cards={"CALSTAT": "BD"})
    for source in others:
        place.take(source.relative_to(place.sky.data).as_posix())
    assert place.run_night(NIGHT) == {}
    observation = place.row("SV Wom").observation
    assert chosen(place, observation).already_done == ()
    assert left_out_lights(place.observatory, observation) == [
        (
            first.relative_to(place.sky.data).as_posix(),
            "calibrated for bias, dark, observation is raw",
        )
    ]


def test_a_night_that_the_capture_program_bias_subtracted_goes_through_without_a_bias(place, edit):
    for source in sorted(place.sky.data.glob("20251014/Flat/*V.fit")):
        edit(
            source, place.data / source.relative_to(place.sky.data),
            cards={"CALSTAT": "B", "PEDESTAL": 0},
        )  # fmt: skip
    observation = prepare(place, edit, lights=2, calibrations=False, cards={"CALSTAT": "B"})
    choice = chosen(place, observation)
    assert (choice.bias, choice.missing) == (None, ())
    assert choice.flat is not None


# ------------------------------------------------------------------------------- the first frames


def test_the_first_frames_of_an_observation_are_discarded_on_wish(place):
    place.take("20251014/Bias/*", "20251014/Light/SV Wom/*V.fit")
    place.configure(calibration="discard_first_n = 2")
    assert place.run_night(NIGHT) == {}
    observation = place.row("SV Wom").observation
    times = [frame.start_utc for frame in place.observatory.status.light_frames(observation)]
    kept = usable_lights(place.observatory, observation)
    assert [frame.start_utc for frame in kept] == sorted(times)[2:]
    left_out = left_out_lights(place.observatory, observation)
    assert [reason for _, reason in left_out] == ["discarded: first 2 of the observation"] * 2
    with place.in_force() as observatory:
        choice = choose_calibration(observatory, observation)
        reduction = reduce_observation(observatory, observation, choice)
    assert len(reduction.frames) == 2


@pytest.mark.parametrize("n", [4, 9])
def test_when_all_are_discarded_that_is_said(place, n):
    place.take("20251014/Light/SV Wom/*V.fit")
    place.configure(calibration=f"discard_first_n = {n}")
    with place.in_force() as observatory:
        observatory.scan()
    observation = place.row("SV Wom").observation
    words = rf"0 of 4 frames usable: the first {n} are discarded \(discard_first_n\), 4 could be"
    with pytest.raises(NoFrames, match=words):
        usable_lights(place.observatory, observation)


# ------------------------------------------------------------------------------------ warm chips


def test_a_warm_night_ends_with_both_temperatures_and_a_new_limit_opens_it_again(place, edit):
    place.configure(tail="[[instrument]]\nmax_ccd_temperature_c = -5.0\n")
    observation = prepare(
        place, edit, lights=2, calibrations=False, cards={"CCD-TEMP": 3.2, "SET-TEMP": -20.0}
    )
    words = r"0 of 2 frames usable: CCD at \+3\.2 C, at most -5 wanted"
    with pytest.raises(NoFrames, match=words):
        usable_lights(place.observatory, observation)
    place.configure(tail="[[instrument]]\nmax_ccd_temperature_c = 5.0\n")
    with place.in_force() as observatory:
        observatory.scan()
    frames = usable_lights(place.observatory, observation)
    assert len(frames) == 2
    assert "CCD at +3.2 C, 23.2 above its set point of -20.0 C" in frames[0].warnings


# ------------------------------------------------------------------------------ overscan and trim


def test_sections_configured_later_make_the_frames_smaller(place):
    place.take("20251014/Light/SV Wom/*V.fit")
    with place.in_force() as observatory:
        observatory.scan()
    observation = place.row("SV Wom").observation
    (before,) = {f.group.shape_words for f in usable_lights(place.observatory, observation)}
    place.configure(tail='[[instrument]]\noverscan = "[301:320,1:256]"\ntrim = "[1:300,1:256]"\n')
    with place.in_force() as observatory:
        observatory.scan()
    lights = usable_lights(place.observatory, observation)
    assert (before, {f.group.shape_words for f in lights}) == ("320x256 1x1", {"300x256 1x1"})
    assert {(f.overscan, f.trim) for f in lights} == {("[301:320,1:256]", "[1:300,1:256]")}


def test_a_dark_is_scaled_for_frames_whose_bias_is_gone_already(place, edit):
    """12 ADU in 120 s are 6 in 60 s, by hand."""
    place.configure(calibration='library = "library"')
    dark = fits.Header(
        {"EXPTIME": 120.0, "INSTRUME": place.sky.telescope.camera, "OFFHASH1": "a bias"}
    )
    path = place.root / "library" / "mdark120.fits"
    write_master(path, np.full((256, 320), 12.0, np.float32), dark, None)
    observation = prepare(place, edit, lights=2, calibrations=False, cards={"CALSTAT": "B"})
    choice = chosen(place, observation)
    assert choice.reasons[1].endswith("valid always; 120 s scaled to 60 s")
    image, raw, _ = reduced_and_raw(place, observation, choice)
    np.testing.assert_allclose(image, raw - 6.0, atol=1e-2)
