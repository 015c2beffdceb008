"""A simulated night with every fault put into its pixels, judged with and without solutions."""

import datetime as dt
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from wombat_dagster import jobs
from wombat_dagster.domain import FaultKind, FrameKind, Grade, NoCalibration, Shortfall
from wombat_dagster.observatory import open_observatory
from wombat_dagster.products import PRODUCTS
from wombat_dagster.simulate.night import simulate_night
from wombat_dagster.simulate.world import SITE
from wombat_dagster.stages import choice, masters, reduction, solving, triage
from wombat_dagster.store.frames import write_bytes_atomic
from wombat_dagster_tests.conftest import write_edited

REFERENCE = Path(os.environ.get("WOMBAT_REFERENCE_DATA", "/nonexistent"))
DATE = dt.date(2025, 10, 14)
KEY = "20251014__SV_Wom__V"
N_LIGHTS = 12
CLOUD, THICK, DEFOCUS, TRAIL, JUMP, TWILIGHT, FLIP = 2, 3, 5, 6, 8, 10, 11
RNG = np.random.default_rng(11)


def sky_of(pixels):
    level = float(np.median(pixels))
    return level, 1.4826 * float(np.median(np.abs(pixels - level)))


def dimmed(pixels, part):
    """The stars through a cloud that lets `part` of their light pass; the sky stays as it was."""
    level, noise = sky_of(pixels)
    lost = RNG.normal(0.0, noise * np.sqrt(1 - part**2), pixels.shape)
    return level + part * (pixels - level) + lost


def blurred(pixels):
    smooth = gaussian_filter(pixels.astype(float), 3.0)
    return smooth + RNG.normal(0.0, sky_of(pixels)[1], pixels.shape)


def trailed(pixels):
    moved = [np.roll(pixels.astype(float), step, axis=1) for step in range(14)]
    return np.mean(moved, axis=0) + RNG.normal(0.0, sky_of(pixels)[1], pixels.shape)


def bright(pixels):
    return pixels + RNG.normal(12_000.0, 10 * sky_of(pixels)[1], pixels.shape)


SPOILS = {
    CLOUD: lambda p: dimmed(p, 0.2),
    THICK: lambda p: dimmed(p, 0.0),
    DEFOCUS: blurred,
    TRAIL: trailed,
    JUMP: lambda p: np.roll(p, 45, axis=1),
    TWILIGHT: bright,
    FLIP: lambda p: p[::-1, ::-1],
}


def as_counts(change):
    return lambda pixels: np.clip(change(pixels.astype(float)), 0, 65535)


def reduced(observatory):
    """Masters and reduced frames of the night's observation, without Dagster."""
    observatory.scan()
    observation = observatory.status.target_row(KEY).observation
    for kind in (FrameKind.BIAS, FrameKind.FLAT):
        masters.make_masters(observatory, observation.date, kind)
    chosen = choice.choose_calibration(observatory, observation)
    return observation, reduction.reduce_observation(observatory, observation, chosen)


def keep(observatory, asset, value):
    product = PRODUCTS[asset]
    write_bytes_atomic(product.path(observatory.layout, KEY), product.encode(value))


@pytest.fixture(scope="module")
def spoiled(sky, tmp_path_factory):
    """Reports on the spoiled night, before and after its plate solutions."""
    root = tmp_path_factory.mktemp("spoiled")
    simulate_night(
        root, date=DATE, seed=5, filters=("V",), n_lights=N_LIGHTS, n_bias=3, n_flats=3,
        exposure_s=60.0, cadence_s=150.0, field=sky.field, telescope=sky.telescope, site=SITE,
    )  # fmt: skip
    lights = sorted((root / "data").glob("20251014/Light/*/*.fit"))
    assert len(lights) == N_LIGHTS
    for index, spoil in SPOILS.items():
        good = lights[index].with_suffix(".good")
        lights[index].rename(good)
        write_edited(good, lights[index], pixels=as_counts(spoil))
        good.unlink()
    (root / "data/20251014/Light/SV Wom/cut.fit").write_bytes(lights[0].read_bytes()[:9000])
    (root / "wombat.toml").write_text(
        f"[site]\nlatitude_deg = {SITE.latitude_deg}\nlongitude_deg = {SITE.longitude_deg}\n"
        f'[astap]\nprogram = "/nowhere"\n[solve]\nstar_table = "{sky.star_table}"\n'
        'solve_field = "/nowhere"\n[aavso]\nvsx_urls = ["http://127.0.0.1:9"]\nretries = 0\n'
    )
    observatory = open_observatory(root / "wombat.toml")
    observation, done = reduced(observatory)
    unsolved = triage.make_triage(observatory, observation, done)
    solutions = solving.solve_observation(observatory, observation, done)
    keep(observatory, "wcs_solutions", solutions)
    solved = triage.make_triage(observatory, observation, done)
    return {"unsolved": unsolved, "solved": solved, "place": (observatory, observation, done)}


def grades_of(report):
    """Grades of the frames that were reduced, in time order."""
    return [one for one in report.triage.grades if one.used]


def kinds(one):
    return {fault.kind for fault in one.faults}


@pytest.mark.parametrize("which", ["unsolved", "solved"])
def test_every_spoiled_frame_is_flagged_for_its_fault_and_the_others_are_good(spoiled, which):
    grades = grades_of(spoiled[which])
    assert len(grades) == N_LIGHTS
    wanted = {
        CLOUD: FaultKind.CLOUD, THICK: FaultKind.CLOUD, DEFOCUS: FaultKind.FOCUS,
        TRAIL: FaultKind.TRAIL, JUMP: FaultKind.JUMP, TWILIGHT: FaultKind.SKY,
    }  # fmt: skip
    for index, kind in wanted.items():
        assert kind in kinds(grades[index]), (index, grades[index])
    for index, one in enumerate(grades):
        if index not in wanted:
            assert not kinds(one) - {FaultKind.UNSOLVED}, (index, one)


@pytest.mark.parametrize("which", ["unsolved", "solved"])
def test_the_cloud_s_depth_is_measured_without_comps(spoiled, which):
    """A fifth of the light passes: 1.75 mag, beside the night's own tenth or so."""
    assert grades_of(spoiled[which])[CLOUD].dimming_mag == pytest.approx(1.75, abs=0.2)


def test_a_field_that_stands_on_its_head_is_followed_without_solution(spoiled):
    one = grades_of(spoiled["unsolved"])[FLIP]
    assert one.grade is Grade.GOOD
    assert one.n_matched > 15
    assert one.dimming_mag < 0.2


def test_an_unsolved_frame_among_solved_ones_is_poor_for_that(spoiled):
    grades = grades_of(spoiled["solved"])
    assert FaultKind.UNSOLVED in kinds(grades[THICK])
    assert "no frame has a plate solution" in spoiled["unsolved"].triage.notes
    assert all(FaultKind.UNSOLVED not in kinds(one) for one in grades_of(spoiled["unsolved"]))


def test_a_frame_that_was_left_out_is_bad_for_the_reason_it_was(spoiled):
    (cut,) = (one for one in spoiled["solved"].triage.grades if not one.used)
    assert cut.raw.endswith("cut.fit")
    assert (cut.grade, kinds(cut)) == (Grade.BAD, {FaultKind.LEFT_OUT})
    assert "truncated" in cut.words
    assert "its filter is not known" in cut.words
    assert cut.score is None


def test_the_best_frame_is_a_good_one(spoiled):
    found = spoiled["solved"].triage
    best = next(one for one in found.grades if one.raw == found.best_frame)
    assert best.grade is Grade.GOOD


def test_no_raw_or_reduced_frame_is_removed(spoiled):
    observatory, observation, done = spoiled["place"]
    assert all(observatory.layout.product_file(f.path).exists() for f in done.frames)
    assert len(observatory.status.light_frames(observation)) == N_LIGHTS


def test_a_night_without_mistakes_in_time_and_site_has_no_warning(spoiled):
    assert spoiled["solved"].triage.doubts is None


def test_half_a_spoiled_night_is_said(spoiled):
    words = spoiled["solved"].triage.unfit_words
    assert "of 12 frames bad" in words
    assert "cloud 2" in words


def test_thumbnails_are_of_few_frames_with_the_faulty_among_them():
    faulty = [i % 50 == 0 for i in range(1000)]
    chosen = triage._chosen(faulty, 300)
    assert len(chosen) == 300
    assert chosen == sorted(set(chosen))
    assert set(range(0, 1000, 50)) <= set(chosen)
    assert triage._chosen([False] * 10, 300) == list(range(10))
    assert len(triage._chosen([True] * 1000, 300)) == 300


def test_the_page_needs_nothing_else(spoiled):
    page = spoiled["solved"].files[triage.HTML].decode()
    assert "http" not in page
    assert page.count("data:image/jpeg;base64,") == N_LIGHTS
    assert len(spoiled["solved"].files[triage.OVERVIEW]) < 200_000


def test_a_triage_that_cannot_be_made_says_why_and_stops_nothing(spoiled, monkeypatch):
    observatory, observation, done = spoiled["place"]

    def broken(*_arguments, **_options):
        raise RuntimeError("the sky fell")

    monkeypatch.setattr(triage, "audit", broken)
    report = triage.triage_observation(observatory, observation, done)
    assert report.triage.grades == ()
    assert report.triage.unfit_words == "frames not judged: RuntimeError: the sky fell"
    assert set(report.files) == {triage.HTML, triage.CSV, triage.OVERVIEW}


def test_a_frame_that_vanished_is_bad_and_the_others_are_judged(spoiled, monkeypatch):
    observatory, observation, done = spoiled["place"]
    pixels = triage.CalibratedFrames
    gone = done.frames[0].raw

    class Damaged(pixels):
        def stars(self, frame):
            if frame.raw == gone:
                raise NoCalibration("bias.fits is not the master that was chosen")
            return super().stars(frame)

    monkeypatch.setattr(triage, "CalibratedFrames", Damaged)
    report = triage.make_triage(observatory, observation, done)
    first = next(one for one in report.triage.grades if one.raw == gone)
    assert (first.grade, first.used) == (Grade.BAD, False)
    assert "cannot be read again: bias.fits" in first.words
    assert report.triage.best_frame not in (None, gone)


def test_warnings_reach_whoever_judges_the_magnitudes_and_their_absence_is_none(spoiled):
    observatory, _, _ = spoiled["place"]
    assert triage.audit_words(observatory, KEY) == ()


@pytest.mark.skipif(
    "frame_triage" not in jobs.OBSERVATION_ASSETS, reason="frame_triage is not wired yet"
)
def test_the_triage_runs_after_solutions_and_variable_and_before_the_photometry(place):
    place.take("20251014/*/*.fit", "20251014/Light/SV Wom/*V.fit")
    assert place.run() == {}
    report = place.product("frame_triage", KEY)
    assert all(one.solved for one in report.grades)
    assert KEY in place.materialized("frame_triage")
    steps = [
        record.event_log_entry.dagster_event.step_key
        for record in place.instance.get_records_for_run(
            place.instance.get_runs(limit=1)[0].run_id, limit=5000
        ).records
        if record.event_log_entry.dagster_event
        and record.event_log_entry.dagster_event.event_type_value == "STEP_START"
    ]
    assert steps.index("variable") < steps.index("frame_triage") < steps.index("photometry_table")


# ----------------------------------------------------------------------------------- a real night


@pytest.fixture(scope="module")
def wallace(tmp_path_factory):
    if not REFERENCE.is_dir():
        pytest.skip("WOMBAT_REFERENCE_DATA does not name the real frames")
    root = tmp_path_factory.mktemp("wallace")
    shutil.copytree(REFERENCE / "wallace", root / "data")
    for path in root.rglob("*"):
        path.chmod(path.stat().st_mode | 0o200)
    (root / "wombat.toml").write_text("")
    observatory = open_observatory(root / "wombat.toml")
    observatory.scan()
    (row,) = observatory.status.targets()
    for kind in (FrameKind.BIAS, FrameKind.DARK):
        masters.make_masters(observatory, row.observation.date, kind)
    with pytest.raises(Shortfall):
        masters.make_masters(observatory, row.observation.date, FrameKind.FLAT)
    chosen = choice.choose_calibration(observatory, row.observation)
    done = reduction.reduce_observation(observatory, row.observation, chosen)
    return triage.make_triage(observatory, row.observation, done).triage


@pytest.mark.slow
def test_wallace_s_clouded_frames_are_flagged_with_the_reason(wallace):
    """The reference's README: clouds in the last four lights. No solution, no VSX, no comps."""
    used = [one for one in wallace.grades if one.used]
    assert len(used) == 25
    for one in used[-4:]:
        assert one.grade is Grade.BAD
        assert FaultKind.CLOUD in kinds(one)
    for one in used[-4:-1]:
        assert "mag below the night's best" in one.words
    assert {one.grade for one in used[:7]} == {Grade.GOOD}
    assert wallace.best_frame in [one.raw for one in used[:7]]


@pytest.mark.slow
def test_wallace_s_longitude_is_found_to_count_to_the_west(wallace):
    (longitude,) = (one for one in wallace.findings if one.severity == "warning")
    assert longitude.about == "longitude"
    assert "+71.4850 counts to the west" in longitude.words
    assert "LST" in longitude.words
    assert "write [site] longitude_deg = -71.4850" in longitude.words
