"""Bad input of every kind, all in one data directory: each has its own end, and nobody else's.

One run of everything, then one question per kind of bad input. What the services do wrong is in the
second half: there one observation is run again and again.
"""

import dataclasses
import datetime as dt
import json
import re

import dagster as dg
import numpy as np
import pytest

from wombat_dagster.domain import Apphot, Proc
from wombat_dagster.simulate.night import altitudes_deg
from wombat_dagster.simulate.sky import vsx_object
from wombat_dagster.simulate.world import SITE

NIGHT = "20251014"
EMPTY, NO_LIGHT, TWO_BIASES = "20251020", "20251017", "20251018"
OBSERVATION_ASSETS = (
    "calibration_choice", "reduced_frames", "wcs_solutions", "variable", "comp_list",
    "photometry_table", "standard_magnitudes", "light_curve", "diagnostics",
)  # fmt: skip
ODD_NAMES = (
    "  two  spaces ", "Żółw ★", "it's \"SV\" Wom", "a..b", "<b>bold</b>".replace("/", "|"),
    "a|b;DROP TABLE target;--", "-rf", "CON", "SV_Wom",
)  # fmt: skip


def lowest_moment(field):
    """Return the time, within a day of the night, at which the field stands lowest."""
    start = dt.datetime(2025, 10, 14, 12, tzinfo=dt.UTC)
    jd = 2460963.0 + np.arange(0, 1, 1 / 48)  # 2025-10-14 12:00 UTC is JD 2460963.0
    altitude = altitudes_deg(jd, SITE, field.ra_deg, field.dec_deg)
    assert altitude.min() < -5
    return start + dt.timedelta(hours=0.5 * int(np.argmin(altitude)))


def fill(place, edit, hard_link):
    """Lay out the night of bad inputs."""
    sky = place.sky
    lights = place.data / NIGHT / "Light"
    place.take("20251014/Bias/*", "20251014/Flat/*V.fit", "20251014/Light/SV Wom/*V.fit")
    frames = sky.lights_v

    # Within a good observation: files that are none, and a frame of another shape.
    whole = frames[0].read_bytes()
    good = lights / "SV Wom"
    (good / "cut.fit").write_bytes(whole[: len(whole) // 2])
    (good / "empty.fit").write_bytes(b"")
    (good / "text.fits").write_text("the dome was closed, see the log\n")
    edit(frames[0], good / "small.fit", pixels=lambda image: image[:128, :160])

    edits = {
        "No Filter": {"remove": ("FILTER",)},
        "No Date": {"remove": ("DATE-OBS",)},
        "No Exposure": {"remove": ("EXPTIME", "EXPOSURE")},
    }
    for target, changes in edits.items():
        for number, frame in enumerate(frames[:2]):
            edit(frame, lights / target / f"{number}.fit", **changes)
    for number, frame in enumerate(frames[:2]):
        moment = lowest_moment(sky.field) + dt.timedelta(minutes=number)
        edit(
            frame,
            lights / "Below Horizon" / f"{number}.fit",
            cards={"DATE-OBS": moment.strftime("%Y-%m-%dT%H:%M:%S")},
        )
        rng = np.random.default_rng(number)
        edit(
            frame,
            lights / "Starless" / f"{number}.fit",
            pixels=lambda image, rng=rng: rng.normal(1100, 8, image.shape),
        )
    for frame in frames[:3]:
        hard_link(frame, lights / "Partly" / frame.name)
    hard_link(lights / "Starless" / "0.fit", lights / "Partly" / "starless.fit")
    for target in ("Nobody Wom", "Off Wom", "Twice Wom", "One Comp", "Two Comps", *ODD_NAMES):
        for frame in frames[:2]:
            hard_link(frame, lights / target / frame.name)

    (place.data / EMPTY).mkdir()
    (place.data / "20251021" / "Light" / "SV Wom").mkdir(parents=True)  # directories, no file
    for name in ("Bias", "Flat"):
        for frame in sorted((sky.data / NIGHT / name).glob("*")):
            if name == "Bias" or frame.stem.endswith("V"):
                hard_link(frame, place.data / NO_LIGHT / name / frame.name)
    for frame in sorted((sky.data / NIGHT / "Bias").glob("*"))[:2]:
        hard_link(frame, place.data / TWO_BIASES / "Bias" / frame.name)
    for frame in frames[:2]:
        hard_link(frame, place.data / TWO_BIASES / "Light" / "SV Wom" / frame.name)

    known = vsx_object(sky.field)["VSXObject"]
    off = known | {"Name": "Off Wom", "Declination2000": f"{sky.field.dec_deg + 0.2:.5f}"}
    twice = [known | {"Name": "TWICE Wom", "OID": oid} for oid in ("1", "2")]
    place.aavso.add([off, *twice])
    alias = {"SV Wom": (*ODD_NAMES, "Below Horizon", "Partly")}
    comps = {"One Comp": sky.good_comps[:1], "Two Comps": sky.good_comps[:2]}
    tail = [
        f"[[target]]\ndirectory = {json.dumps(list(names), ensure_ascii=False)}\n"
        f"vsx = {json.dumps(name)}"
        for name, names in alias.items()
    ] + [
        f'[[target]]\ndirectory = ["{name}"]\nvsx = "SV Wom"\ncomps = {json.dumps(auids)}'
        for name, auids in comps.items()
    ]
    place.configure(tail="\n".join(tail))


@pytest.fixture(scope="module")
def bad_night(open_place, edit, hard_link, tmp_path_factory):
    with open_place(tmp_path_factory.mktemp("bad") / "obs") as place:
        fill(place, edit, hard_link)
        place.raw_before = place.raw_files()
        place.failures = place.run()
        yield place


def test_no_bad_input_makes_a_run_red(bad_night):
    assert bad_night.failures == {}
    assert all(run.status.value == "SUCCESS" for run in bad_night.instance.get_runs())


def test_raw_files_are_as_they_were(bad_night):
    assert bad_night.raw_files() == bad_night.raw_before


def test_the_good_observation_of_a_bad_night_waits_for_the_person(bad_night):
    row = bad_night.row("SV Wom")
    assert (row.proc, row.apphot, row.reason) == (Proc.SOLVED, Apphot.VALIDATE, None)
    assert (row.proc_bias, row.proc_flat) == ("2025-10-14", "2025-10-14")
    assert row.n_frames == 4
    assert row.n_quarantined == 1


def test_every_unusable_file_is_named_with_its_reason(bad_night):
    frames = bad_night.observatory.status.night_frames(dt.date(2025, 10, 14))
    reasons = {frame.path.rsplit("/", 1)[1]: frame.reason for frame in frames if frame.reason}
    size = (bad_night.sky.lights_v[0].stat().st_size // 2) - 2880
    assert re.fullmatch(r"truncated: \d+ of 163840 bytes of data", reasons["cut.fit"])
    assert int(reasons["cut.fit"].split()[1]) <= size
    assert reasons["empty.fit"] == "empty file (0 bytes)"
    assert reasons["text.fits"].startswith("not a FITS file: it begins with b'the dome was")
    assert reasons["small.fit"] == "160x128 1x1, observation is 320x256 1x1"


ENDINGS = {  # proc, apphot, words of the reason
    "No Date": (None, Apphot.NOTIME, r"0 of 2 frames usable: notime: .*DATE-OBS"),
    "No Exposure": (Proc.NOFRAMES, None, r"0 of 2 frames usable: no exposure time in header"),
    "Below Horizon": (Proc.SOLVED, Apphot.BADSITE, r"stands at -\d+\.\d deg .* 0 wanted"),
    "Starless": (Proc.NOWCS, Apphot.NOWCS, r"0 of 2 frames solved \(no_stars 2\)"),
    "Nobody Wom": (Proc.SOLVED, Apphot.NOVSX, r"Nobody Wom"),
    "Twice Wom": (Proc.SOLVED, Apphot.AMBIGUOUS, r"2 stars called 'Twice Wom', one wanted"),
    "Off Wom": (Proc.SOLVED, Apphot.OFFIMAGE, r"\d"),
}
MADE = {  # the last asset with a product
    "No Date": 0, "No Exposure": 0, "Below Horizon": 5, "Starless": 2, "Nobody Wom": 3,
    "Twice Wom": 3, "Off Wom": 4,
}  # fmt: skip


@pytest.mark.parametrize("target", ENDINGS)
def test_each_bad_input_ends_in_its_word_with_the_reason(bad_night, target):
    proc, apphot, words = ENDINGS[target]
    row = bad_night.row(target)
    assert (row.proc, row.apphot) == (proc, apphot)
    assert re.search(words, row.reason), row.reason
    assert row.submitted is None


@pytest.mark.parametrize("target", ENDINGS)
def test_nothing_is_materialized_beyond_the_stage_that_ended(bad_night, target):
    key = bad_night.row(target).observation.key
    made = [asset for asset in OBSERVATION_ASSETS if key in bad_night.materialized(asset)]
    assert made == list(OBSERVATION_ASSETS[: MADE[target]])


def test_dagster_shows_the_reason_as_a_warning(bad_night):
    """Green, with an observation and a failed check on the asset that ended."""
    row = bad_night.row("Nobody Wom")
    key = row.observation.key
    runs_of_key = bad_night.instance.get_runs(
        dg.RunsFilter(tags={"dagster/partition": key}, job_name="observation_job")
    )
    logs = bad_night.instance.all_logs(runs_of_key[-1].run_id)
    checks = [
        entry.dagster_event.asset_check_evaluation_data
        for entry in logs
        if entry.dagster_event and entry.dagster_event.event_type_value == "ASSET_CHECK_EVALUATION"
    ]
    failed = [check for check in checks if not check.passed]
    assert {check.asset_key.to_user_string() for check in failed} == {"variable"}
    for check in failed:
        assert check.severity == dg.AssetCheckSeverity.WARN
        assert check.description == row.reason
        assert check.partition == key  # so that the next observation's does not hide it


def test_frames_that_cannot_be_solved_are_left_out_and_listed(bad_night):
    """`partial` goes on with the others."""
    row = bad_night.row("Partly")
    assert (row.proc, row.apphot) == (Proc.PARTIAL, Apphot.VALIDATE)
    assert row.reason == "1 of 4 frames not solved"
    solutions = bad_night.product("wcs_solutions", row.observation.key)
    unsolved = [s for s in solutions if s.solution is None]
    assert [(s.file.rsplit("/", 1)[1], s.reason) for s in unsolved] == [
        ("starless.fit", "no_stars")
    ]
    magnitudes = bad_night.product("standard_magnitudes", row.observation.key)
    assert len(magnitudes.t1_mag) == 3


def test_frames_without_filter_are_a_row_of_their_own_and_never_taken_for_clear(bad_night):
    row = bad_night.row("No Filter", filter="unknown")
    assert (row.proc, row.apphot, row.n_frames, row.n_quarantined) == (Proc.NOFRAMES, None, 0, 2)
    assert "no FILTER in header" in row.reason
    assert [r for r in bad_night.rows if r.observation.target == "No Filter"] == [row]


def test_files_that_cannot_be_read_are_not_said_to_lack_a_filter(bad_night):
    row = bad_night.row("SV Wom", filter="unknown")
    assert (row.proc, row.n_frames, row.n_quarantined) == (Proc.NOFRAMES, 0, 3)
    assert re.search(r"0 of 3 frames usable: .*truncated", row.reason), row.reason
    assert "no filter" not in row.reason


def test_one_comparison_star_is_the_comp_and_nobody_checks(bad_night):
    row = bad_night.row("One Comp")
    assert row.apphot == Apphot.VALIDATE
    table = bad_night.product("photometry_table", row.observation.key)
    magnitudes = bad_night.product("standard_magnitudes", row.observation.key)
    assert [star.role for star in table.stars] == ["T1", "C2"]
    assert magnitudes.check_name is None
    assert magnitudes.method == "single"
    assert (magnitudes.t1_random_mag > 0).all()
    assert magnitudes.zp_err_mag > 0


def test_two_comparison_stars_are_check_and_comp(bad_night):
    row = bad_night.row("Two Comps")
    assert row.apphot in {Apphot.VALIDATE, Apphot.HELD}
    table = bad_night.product("photometry_table", row.observation.key)
    magnitudes = bad_night.product("standard_magnitudes", row.observation.key)
    assert [star.role for star in table.stars] == ["T1", "T2", "C3"]
    assert magnitudes.check_name == table.stars[1].auid
    assert magnitudes.method == "single"


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_target_may_be_called_anything(bad_night, name):
    row = bad_night.row(name)
    assert row.apphot == Apphot.VALIDATE, row.reason
    assert re.fullmatch(r"20251014__[A-Za-z0-9.+_-]+__V", row.observation.key)
    directory = bad_night.observatory.layout.observation_dir(row.observation)
    assert directory.resolve().is_relative_to((bad_night.root / "products").resolve())
    assert (directory / "light_curve.png").exists()
    assert not any(part.startswith(".") for part in directory.parts[-3:-1])


def test_two_names_of_one_spelling_have_two_keys(bad_night):
    keys = {bad_night.row(name).observation.key.casefold() for name in ("SV Wom", "SV_Wom")}
    assert len(keys) == 2


def test_nights_without_light_have_neither_rows_nor_products(bad_night):
    assert {row.night for row in bad_night.rows} == {NIGHT, TWO_BIASES}
    assert set(bad_night.observatory.status.night_keys()) == {NIGHT, TWO_BIASES}
    assert not (bad_night.data / NO_LIGHT / "mbias.fits").exists()


def test_a_night_with_two_biases_takes_the_closest_master_that_counts(bad_night):
    """20251017 is closer than 20251014 but has no lights: the owner ignores it."""
    row = bad_night.row("SV Wom", date=dt.date(2025, 10, 18))
    assert (row.proc_bias, row.proc_flat) == ("2025-10-14", "2025-10-14")
    assert row.apphot == Apphot.VALIDATE
    assert not (bad_night.data / TWO_BIASES / "mbias.fits").exists()
    assert TWO_BIASES not in bad_night.materialized("master_bias")


def test_no_temporary_file_is_left(bad_night):
    assert bad_night.leftovers() == []


def test_running_everything_again_changes_no_word(bad_night):
    """Idempotence: the same words, products and master files."""

    def state():
        rows = [dataclasses.replace(row, updated_utc=None) for row in bad_night.rows]
        masters = {p.name: p.stat().st_mtime_ns for p in bad_night.data.rglob("m*.fits")}
        return rows, masters

    before = state()
    bad_night.observatory.scan()
    assert state() == before
    assert bad_night.run() == {}
    assert state() == before
    assert bad_night.raw_files() == bad_night.raw_before


# --------------------------------------------------------------------------- what the services do

SV_WOM = "20251014__SV_Wom__V"
OUTAGES = ("500", "403", "html", "empty-body", "cut", "refused")


@pytest.mark.parametrize("failure", OUTAGES)
def test_a_vsp_that_fails_in_any_way_parks_the_observation(services, failure, ending):
    services.aavso.fail("vsp", failure)
    row = ending(services)
    assert (row.proc, row.apphot) == (Proc.SOLVED, Apphot.NOVSP)
    assert re.search(r"VSP away at .* after \d tr(y|ies): 127\.0\.0\.1: \S", row.reason), row.reason


def test_a_vsp_that_never_answers_parks_the_observation(services, ending):
    ending(services)  # VSX's answer is remembered, so only VSP can be late
    for path in (services.root / "cache" / "vsp").glob("*.json"):
        path.unlink()
    services.configure(timeout_s=0.5)
    services.aavso.fail("vsp", "hang")
    row = ending(services)
    services.configure()
    assert row.apphot == Apphot.NOVSP
    assert "Timeout" in row.reason


def test_a_chart_without_stars_is_no_outage(services, ending):
    services.aavso.fail("vsp", "valid-empty")
    row = ending(services)
    assert row.apphot == Apphot.NOCOMPS
    assert re.search(r"\b0 stars\b|\bno stars\b|empty", row.reason), row.reason


def test_a_vsx_that_is_away_parks_the_observation(services, ending):
    services.aavso.fail("vsx", "500")
    row = ending(services)
    assert (row.proc, row.apphot) == (Proc.SOLVED, Apphot.VSXDOWN)
    assert "VSX away" in row.reason


def test_outage_empty_answer_and_unknown_name_are_three_words(services, ending):
    words = []
    for service, failure in (
        ("vsp", "500"), ("vsp", "valid-empty"), ("vsx", "500"), ("vsx", "valid-empty"),
    ):  # fmt: skip
        services.forget_services()
        services.aavso.fail(service, failure)
        words.append(ending(services).apphot)
        services.aavso.fail(service, "none")
    assert words == ["novsp", "nocomps", "vsxdown", "novsx"]


def test_a_chart_on_disk_serves_while_vsp_is_away(services, ending):
    assert ending(services).apphot == Apphot.VALIDATE
    services.aavso.fail("vsp", "500")
    services.aavso.fail("vsx", "500")
    assert ending(services).apphot == Apphot.VALIDATE


def test_without_a_site_nothing_is_invented(services, ending):
    services.configure(site=False)
    row = ending(services)
    services.configure()
    assert row.apphot == Apphot.NOSITE
    assert row.reason == "no [site] in wombat.toml and none in the headers"


def test_without_a_star_in_the_peak_range_the_brightest_gives_the_profile(services, ending):
    """DOMAIN section 7: no star in range, the brightest below linearity serves, and it is said."""
    services.configure(photometry="psf_peak_min_adu = 29999\npsf_peak_max_adu = 30000")
    row = ending(services)
    services.configure()
    assert row.apphot == Apphot.VALIDATE
    table = services.product("photometry_table", SV_WOM)
    assert any("no star with a peak of 29999 to 30000 ADU" in note for note in table.notes)


def test_without_any_star_below_linearity_there_is_no_profile(services, ending):
    services.configure(
        tail="[[instrument]]\nlinearity_adu = 1.0\n",
        photometry="psf_peak_min_adu = 29999\npsf_peak_max_adu = 30000",
    )
    row = ending(services)
    services.configure()
    assert row.apphot == Apphot.BADPSF
    assert re.search(
        r"none of 4 frames .* 0 of \d+ stars have a peak of 29999 to 30000", row.reason
    )
