"""Frames graded against their night: each fault named with numbers, good frames left in peace."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wombat_dagster.domain import Detections, FaultKind, Grade
from wombat_dagster.science.triage import (
    FrameLook,
    best_frame,
    followed,
    found_again,
    grade_frames,
    relative_zero_points,
    summary,
    without_extinction,
)

SIZE = {"width_px": 1000, "height_px": 800}


def night(n=20, seed=1):
    """A decent night: everything wanders by some per cent."""
    rng = np.random.default_rng(seed)
    return [
        FrameLook(
            raw=f"20251014/Light/SV/f{i:03d}.fit",
            start_utc=f"2025-10-15T01:{i:02d}:00.000000",
            exposure_s=50.0,
            n_stars=int(80 + rng.normal(0, 3)),
            fwhm_px=3.0 + rng.normal(0, 0.1),
            axis_ratio=0.92 + rng.normal(0, 0.01),
            sky_adu=400.0 + rng.normal(0, 5),
            sky_rms_adu=20.0 + rng.normal(0, 0.3),
            zero_point_mag=rng.normal(0, 0.01),
            n_matched=70,
            offset_x_px=0.5 * i + rng.normal(0, 0.3),
            offset_y_px=rng.normal(0, 0.3),
            altitude_deg=50.0,
            airmass=1.3,
            solved=True,
        )
        for i in range(n)
    ]


def graded(looks, **options):
    return grade_frames(looks, **SIZE, **options)[0]


def with_changes(changes, n=20):
    looks = night(n)
    for index, change in changes.items():
        looks[index] = replace(looks[index], **change)
    return looks


def test_a_decent_night_has_only_good_frames():
    grades, usual, notes = grade_frames(night(), **SIZE)
    assert {one.grade for one in grades} == {Grade.GOOD}
    assert notes == ()
    assert usual["fwhm_px"] == pytest.approx(3.0, abs=0.1)


@pytest.mark.parametrize(
    ("change", "kind", "grade", "words"),
    [
        ({"zero_point_mag": -1.4}, FaultKind.CLOUD, Grade.BAD, "zero point 1.4 mag below"),
        ({"zero_point_mag": -0.6}, FaultKind.CLOUD, Grade.POOR, "zero point 0.6 mag below"),
        ({"n_stars": 12}, FaultKind.STARS, Grade.BAD, "few stars: 12 of usually 8"),
        ({"n_stars": 30}, FaultKind.STARS, Grade.POOR, "few stars: 30 of usually 8"),
        ({"fwhm_px": 4.8}, FaultKind.FOCUS, Grade.POOR, "FWHM 4.8 px of usually 3.0"),
        ({"fwhm_px": 7.5}, FaultKind.FOCUS, Grade.BAD, "FWHM 7.5 px of usually 3.0"),
        ({"fwhm_px": 1.3}, FaultKind.STARS, Grade.POOR, "narrow stars: FWHM 1.3 px"),
        ({"axis_ratio": 0.7}, FaultKind.TRAIL, Grade.POOR, "axis ratio 0.70 of usually 0.92"),
        ({"axis_ratio": 0.3}, FaultKind.TRAIL, Grade.BAD, "axis ratio 0.30"),
        (
            {"sky_adu": 4000.0, "sky_rms_adu": 64.0},
            FaultKind.SKY,
            Grade.BAD,
            "bright sky: 4000 ADU of usually 40",
        ),
        ({"sky_rms_adu": 40.0}, FaultKind.SKY, Grade.POOR, "noisy background"),
        ({"offset_x_px": 90.0}, FaultKind.JUMP, Grade.POOR, "tracking jump: points 8"),
        ({"offset_x_px": 700.0}, FaultKind.JUMP, Grade.BAD, "less than half of the night's field"),
        (
            {"solved": False, "unsolved_words": "no_match 9 stars"},
            FaultKind.UNSOLVED,
            Grade.POOR,
            "not solved: no_match 9 stars",
        ),
        ({"altitude_deg": 11.0}, FaultKind.LOW, Grade.POOR, "altitude 11 deg"),
        ({"left_out": "256x256, not 1024x1024"}, FaultKind.LEFT_OUT, Grade.BAD, "256x256"),
    ],
)
def test_one_spoiled_frame_is_named_with_its_numbers_and_the_others_are_not(
    change, kind, grade, words
):
    grades = graded(with_changes({7: change}))
    assert grades[7].grade is grade
    assert [fault.kind for fault in grades[7].faults] == [kind]
    assert words in grades[7].words
    assert [one.raw for one in grades if one.grade is not Grade.GOOD] == [grades[7].raw]


def test_few_stars_are_named_for_what_made_them_few():
    few = {"n_stars": 10}
    causes = {
        1: few | {"zero_point_mag": -2.0},
        3: few | {"fwhm_px": 6.5},
        5: few | {"sky_adu": 9000.0, "sky_rms_adu": 90.0, "zero_point_mag": None, "n_matched": 0},
        7: few | {"zero_point_mag": None, "n_matched": 0},
    }
    grades = graded(with_changes(causes))
    kinds = {
        i: next(fault.kind for fault in grades[i].faults if "few stars" in fault.words)
        for i in causes
    }
    assert kinds == {
        1: FaultKind.CLOUD, 3: FaultKind.FOCUS, 5: FaultKind.SKY, 7: FaultKind.CLOUD,
    }  # fmt: skip


def test_a_trail_is_not_out_of_focus_as_well():
    grades = graded(with_changes({7: {"axis_ratio": 0.3, "fwhm_px": 4.9}}))
    assert [fault.kind for fault in grades[7].faults] == [FaultKind.TRAIL]


def test_a_sky_near_saturation_is_bad_whatever_the_night_does():
    """An absolute limit, as the detector sets it: here every frame is so, also of a short night."""
    for n in (3, 20):
        looks = [replace(look, sky_adu=40_000.0) for look in night(n)]
        grades = graded(looks, saturation_adu=60_000.0)
        assert {one.grade for one in grades} == {Grade.BAD}
        assert "67 % of saturation" in grades[0].words


def test_half_a_clouded_night_does_not_pass_for_a_usual_one():
    clouds = {i: {"zero_point_mag": -1.5, "n_stars": 15} for i in range(11)}
    grades = graded(with_changes(clouds))
    assert [one.grade for one in grades] == [Grade.BAD] * 11 + [Grade.GOOD] * 9


def test_a_move_that_stays_is_a_note_and_no_fault():
    looks = night()
    moved = [
        replace(look, offset_x_px=look.offset_x_px + (150.0 if i >= 9 else 0.0))
        for i, look in enumerate(looks)
    ]
    grades, _, notes = grade_frames(moved, **SIZE)
    assert {one.grade for one in grades} == {Grade.GOOD}
    assert any("px before f009.fit" in words for words in notes)


def test_a_frame_on_the_way_to_elsewhere_did_not_jump():
    """Two moves in a row in one direction: the frame between them is off both its neighbours."""
    looks = [
        replace(look, offset_x_px=look.offset_x_px + 100.0 * ((i >= 9) + (i >= 10)))
        for i, look in enumerate(night())
    ]
    assert {one.grade for one in graded(looks)} == {Grade.GOOD}


def test_dithering_is_no_jump():
    rng = np.random.default_rng(5)
    looks = [
        replace(look, offset_x_px=float(x), offset_y_px=float(y))
        for look, (x, y) in zip(night(), rng.uniform(-20, 20, (20, 2)), strict=True)
    ]
    assert {one.grade for one in graded(looks)} == {Grade.GOOD}


def test_frames_of_other_exposures_are_judged_among_themselves():
    looks = [
        replace(look, exposure_s=5.0, n_stars=20, sky_adu=40.0, sky_rms_adu=8.0) if i % 2 else look
        for i, look in enumerate(night(20))
    ]
    assert {one.grade for one in graded(looks)} == {Grade.GOOD}


def test_a_short_night_is_judged_modestly():
    looks = with_changes({1: {"fwhm_px": 4.8}, 2: {"n_stars": 5, "zero_point_mag": -2.0}}, n=4)
    grades, _, notes = grade_frames(looks, **SIZE)
    assert [one.grade for one in grades] == [Grade.GOOD, Grade.GOOD, Grade.POOR, Grade.GOOD]
    assert any("4 frames: too few" in words for words in notes)


def test_extinction_is_no_cloud():
    """0.25 mag per airmass from airmass 1.1 to 3: half a magnitude that every clear night has."""
    airmass = np.linspace(1.1, 3.0, 20)
    looks = [
        replace(look, airmass=float(x), zero_point_mag=look.zero_point_mag - 0.25 * float(x))
        for look, x in zip(night(), airmass, strict=True)
    ]
    assert {one.grade for one in graded(looks)} == {Grade.GOOD}
    _, slope = without_extinction(np.array([one.zero_point_mag for one in looks]), airmass)
    assert slope == pytest.approx(0.25, abs=0.02)


def test_a_cloud_that_grows_as_the_star_rises_is_not_taken_for_extinction():
    airmass = np.linspace(3.0, 1.1, 20)
    zero_point = -0.3 * np.arange(20) / 10
    corrected, slope = without_extinction(zero_point, airmass)
    assert slope == 0.0
    np.testing.assert_array_equal(corrected, zero_point)


@given(factor=st.floats(0.01, 100.0), shift=st.floats(-5.0, 5.0))
def test_grades_do_not_change_when_all_counts_scale(factor, shift):
    """Another gain, another zero point: the night is the same night."""
    changes = {
        2: {"zero_point_mag": -1.6}, 5: {"fwhm_px": 6.5}, 7: {"axis_ratio": 0.4},
        9: {"sky_adu": 3000.0, "sky_rms_adu": 55.0}, 11: {"offset_y_px": -80.0}, 12: {"n_stars": 9},
    }  # fmt: skip
    looks = with_changes(changes)
    scaled = [
        replace(
            look,
            sky_adu=look.sky_adu * factor,
            sky_rms_adu=look.sky_rms_adu * factor,
            zero_point_mag=look.zero_point_mag + shift,
        )
        for look in looks
    ]
    before = graded(looks, saturation_adu=60_000.0)
    after = graded(scaled, saturation_adu=60_000.0 * factor)
    assert [one.grade for one in before] == [one.grade for one in after]
    assert [[f.kind for f in one.faults] for one in before] == [
        [f.kind for f in one.faults] for one in after
    ]
    assert best_frame(before) == best_frame(after)


def test_the_best_frame_has_most_of_everything():
    best = {
        "n_stars": 95, "fwhm_px": 2.5, "axis_ratio": 0.97, "sky_rms_adu": 17.0,
        "zero_point_mag": 0.05,
    }  # fmt: skip
    grades = graded(with_changes({13: best}))
    assert best_frame(grades) == grades[13].raw
    # ... unless something is wrong with it
    grades = graded(with_changes({13: best | {"offset_x_px": 95.0}}))
    assert best_frame(grades) not in (None, grades[13].raw)
    # ... and never one that was left out
    grades = graded(with_changes({13: {"left_out": "same pixels as another"}}))
    assert grades[13].score is None


def test_nothing_at_all_is_graded_without_a_word():
    assert grade_frames([], **SIZE) == ((), {}, ())
    only = [FrameLook(raw="a", start_utc=None, exposure_s=None, left_out="not a FITS file")]
    (one,), _, _ = grade_frames(only, **SIZE)
    assert (one.grade, one.used) == (Grade.BAD, False)
    assert best_frame([one]) is None


# ------------------------------------------------------------------------ stars from frame to frame


def detections(x, y, flux, fwhm=3.0):
    order = np.argsort(-np.asarray(flux))
    n = len(order)
    return Detections(
        x_px=np.asarray(x, float)[order],
        y_px=np.asarray(y, float)[order],
        flux_adu=np.asarray(flux, float)[order],
        peak_adu=np.asarray(flux, float)[order] / 10,
        fwhm_px=np.full(n, fwhm),
        axis_ratio=np.full(n, 0.9),
        snr=np.full(n, 50.0),
        sky_adu=100.0,
        sky_rms_adu=10.0,
    )


@pytest.fixture
def field():
    rng = np.random.default_rng(3)
    n = 60
    return rng.uniform(20, 980, n), rng.uniform(20, 780, n), 10 ** rng.uniform(3, 5, n)


def test_zero_points_follow_clouds_although_the_faint_stars_vanish(field):
    x, y, flux = field
    rng = np.random.default_rng(4)
    truth = np.array([0.0, -0.1, -1.2, -2.5, 0.0, -0.4])
    reference = followed(detections(x, y, flux), 60.0)
    rows = []
    for dim in truth:
        seen = flux * 10 ** (0.4 * dim) * rng.normal(1, 0.02, len(flux))
        kept = seen > 900
        frame = followed(detections(x[kept], y[kept], seen[kept]), 60.0)
        rows.append(
            found_again(frame, frame.x_px, frame.y_px, reference, radius_px=4.0, expected=False)
        )
    assert all(row is not None for row in rows)
    found = relative_zero_points(np.array(rows))
    np.testing.assert_allclose(found - found.max(), truth, atol=0.05)


def test_a_variable_among_the_stars_does_not_make_a_cloud(field):
    _, _, flux = field
    magnitude = np.tile(-2.5 * np.log10(flux), (8, 1))
    magnitude[:, 0] += np.linspace(0, 2, 8)
    np.testing.assert_allclose(relative_zero_points(magnitude), 0.0, atol=1e-9)


def test_longer_exposures_are_not_clearer_skies(field):
    x, y, flux = field
    short, long = followed(detections(x, y, flux), 10.0), followed(detections(x, y, 6 * flux), 60.0)
    np.testing.assert_allclose(short.magnitude, long.magnitude)


def test_other_stars_at_chance_places_are_not_the_night_s(field):
    """A wrong match lays stars of all magnitudes on one another: their dimming scatters."""
    x, y, flux = field
    rng = np.random.default_rng(8)
    mixed = followed(detections(x, y, rng.permutation(flux)), 60.0)
    reference = followed(detections(x, y, flux), 60.0)
    match = {"radius_px": 4.0, "expected": False}
    assert found_again(mixed, mixed.x_px, mixed.y_px, reference, **match) is None
    assert found_again(mixed, mixed.x_px + 300, mixed.y_px, reference, **match) is None


def test_three_stars_where_they_are_expected_will_do_and_two_will_not(field):
    x, y, flux = field
    reference = followed(detections(x, y, flux), 60.0)
    for n, is_found in ((3, True), (2, False)):
        few = followed(detections(x[:n], y[:n], flux[:n] / 10), 60.0)
        found = found_again(few, few.x_px, few.y_px, reference, radius_px=4.0, expected=True)
        assert (found is not None) is is_found
    assert (
        found_again(
            followed(detections(x[:3], y[:3], flux[:3]), 60.0), x[:3], y[:3], reference,
            radius_px=4.0, expected=False,
        )
        is None
    )  # fmt: skip


def test_a_frame_without_stars_has_no_width():
    assert summary(detections([], [], [])) == (0, None, None)
