"""``wombat explain``: from a magnitude to raw pixels, and what it says of what is not there."""

import dataclasses
import datetime as dt
import json
from contextlib import contextmanager

import numpy as np
import pytest
from astropy.io import fits
from click.testing import CliRunner

from wombat_dagster import config, progress
from wombat_dagster.cli import main
from wombat_dagster.domain import Apphot
from wombat_dagster.runs import Done
from wombat_dagster.stages.lineage import masters_now
from wombat_dagster.store.frames import array_hash, card_text, pixel_hash, read_master
from wombat_dagster.store.provenance import Ingredient, ingredients

SV_WOM = "20251014__SV_Wom__V"
NIGHT = dt.date(2025, 10, 14)


@pytest.fixture(scope="module")
def measured(open_place, tmp_path_factory):
    """A place with one observation measured, calibrated by a bias and a flat of its night."""
    with open_place(tmp_path_factory.mktemp("explained") / "obs") as place:
        place.take("20251014/Bias/*", "20251014/Flat/*V.fit", "20251014/Light/SV Wom/*V.fit")
        assert place.run() == {}
        assert place.row("SV Wom").apphot == Apphot.VALIDATE
        yield place


@pytest.fixture
def explain(measured, monkeypatch):
    """Return what the command prints about the place, as text or as objects."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*words, as_json=False, exit_code=0):
        for name in (config.CONFIG_ENV, "DAGSTER_HOME"):
            monkeypatch.setenv(name, "")
            monkeypatch.delenv(name)
        file = str(measured.root / "wombat.toml")
        tail = ["--json"] if as_json else []
        ended = CliRunner().invoke(main, ["--config", file, "explain", *words, *tail])
        assert ended.exit_code == exit_code, ended.output
        return json.loads(ended.stdout) if as_json else ended.output

    return run


@contextmanager
def aside(path):
    """Take a file away for a while, and give what was in it."""
    content = path.read_bytes()
    path.unlink()
    try:
        yield content
    finally:
        path.unlink(missing_ok=True)
        path.write_bytes(content)


def below(section, name):
    """Return the section of that name directly below another."""
    (found,) = [one for one in section["sections"] if one["name"] == name]
    return found


def all_faults(section):
    return [*section["faults"], *(f for one in section["sections"] for f in all_faults(one))]


def test_a_magnitude_is_led_back_to_the_pixels_of_every_raw_frame(explain, measured):
    """Every hash is computed here from the files themselves."""
    found = explain(SV_WOM, "--frame", "2", as_json=True)
    assert all_faults(found) == []
    magnitudes = measured.product("standard_magnitudes", SV_WOM)
    told = below(found, "magnitude")["facts"]
    assert told["t1_mag"] == magnitudes.t1_mag[1]
    assert told["t1_random_mag"] == magnitudes.t1_random_mag[1]
    assert told["zp_err_mag"] == magnitudes.zp_err_mag
    (raw,) = below(found, "raw_frame")["facts"]["frames"]
    light = sorted((measured.data / "20251014/Light/SV Wom").glob("*V.fit"))[1]
    assert raw["path"] == light.relative_to(measured.data).as_posix()
    assert raw["pixel_hash"] == raw["pixel_hash_used"] == pixel_hash(light)
    bias, flat = below(found, "bias"), below(found, "flat")
    for master in (bias, flat):
        path = measured.data / master["facts"]["path"]
        assert master["facts"]["content_hash"] == array_hash(read_master(path)[0])
    assert below(flat, "bias")["facts"]["content_hash"] == bias["facts"]["content_hash"]
    of_disk = {
        path.relative_to(measured.data).as_posix(): pixel_hash(path)
        for path in (measured.data / "20251014/Bias").iterdir()
    }
    assert {one["path"]: one["pixel_hash"] for one in bias["facts"]["inputs"]} == of_disk
    assert len(flat["facts"]["inputs"]) == 4


def test_few_raw_frames_are_all_named_and_no_input_stands_there_twice(explain, measured):
    text = explain(SV_WOM)
    lights = sorted((measured.data / "20251014/Light/SV Wom").glob("*V.fit"))
    assert all(f"{light.name} pixels SHA-256" in text for light in lights)
    assert "the first and the last" not in text
    biases = sorted((measured.data / "20251014/Bias").iterdir())
    assert [text.count(f"input {path.relative_to(measured.data)}") for path in biases] == [1] * 5
    assert "Master bias 20251014/mbias.fits: as above" in text


def test_which_masters_are_others_by_now_is_said_by_night(measured):
    """A row that was made with the flat of another night, and without a bias."""
    row = measured.row("SV Wom")
    assert masters_now(measured.observatory, row) == []
    before = dataclasses.replace(row, proc_bias="nocal", proc_flat="2025-10-12")
    assert masters_now(measured.observatory, before) == [
        "bias nocal → 2025-10-14", "flat 2025-10-12 → 2025-10-14"
    ]  # fmt: skip


def test_what_the_audit_has_against_times_and_site_is_said_at_the_top_and_after_a_run(
    explain, measured, capsys
):
    assert below(explain(SV_WOM, as_json=True), "time_and_site")["facts"]["findings"] == []
    path = measured.observatory.layout.observation_dir(SV_WOM) / "triage.json"
    with aside(path) as content:
        triage = json.loads(content)
        words = "the Sun stands at up to +30 deg"
        triage["findings"] = [{"severity": "warning", "about": "sun", "words": words}]
        path.write_text(json.dumps(triage))
        text = explain(SV_WOM)
        done = Done(key=SV_WOM, error=None, run_id="")
        progress._print_endings(measured.observatory, [done])
    assert f"Time and site: {SV_WOM}: {words}" in capsys.readouterr().out
    assert "Time and site: in doubt" in text
    assert text.index(f"warning: {words}") < text.index("Magnitude of T1")


def test_comps_come_with_their_catalogue_magnitudes_and_the_chart_they_are_from(explain, measured):
    made_by = below(explain(SV_WOM, as_json=True), "made_by")
    table = measured.product("photometry_table", SV_WOM)
    catalogue = {star.auid: star.catalogue_mag for star in table.stars if star.role[0] == "C"}
    comps = below(made_by, "comparison_stars")["facts"]["comps"]
    assert {one["name"]: one["catalogue_mag"] for one in comps} == catalogue
    assert below(made_by, "chart")["facts"]["chart_id"] == table.chart_id
    assert below(made_by, "chart")["facts"]["sha256_now"]


def test_verifying_finds_the_one_raw_bias_whose_pixels_changed(explain, measured):
    assert all_faults(explain(SV_WOM, "--verify", as_json=True)) == []
    bias = sorted((measured.data / "20251014/Bias").iterdir())[2]
    with aside(bias):
        with fits.open(measured.sky.data / bias.relative_to(measured.data)) as hdus:
            header, data = hdus[0].header, hdus[0].data
        data[3, 4] += 1
        fits.PrimaryHDU(np.asarray(data, dtype=np.uint16), header).writeto(bias)
        faults = all_faults(explain(SV_WOM, "--verify", as_json=True))
    assert faults
    assert all(bias.name in words and "recorded" in words for words in faults)


def test_what_is_gone_or_damaged_is_said_and_the_rest_is_told(explain, measured):
    products = measured.observatory.layout.observation_dir(SV_WOM)
    csv, solutions = products / "magnitudes.csv", products / "solutions.json"
    bias = measured.data / "20251014/mbias.fits"
    light = next((measured.data / "20251014/Light/SV Wom").glob("*V.fit"))
    with aside(csv), aside(solutions), aside(bias), aside(light):
        solutions.write_text("{")
        found = explain(SV_WOM, as_json=True)
        assert "behind the !" in explain(SV_WOM)
    faults = "\n".join(all_faults(found))
    assert "magnitudes.csv is gone" in faults
    assert "solutions.json is damaged" in faults
    assert "mbias.fits: cannot be read: No such file or directory" in faults
    assert f"{light.name} is gone from the data" in faults
    assert below(found, "measurement")["facts"]["radius_px"] > 0


def test_half_of_any_product_is_said_to_be_damaged(explain, measured):
    products = measured.observatory.layout.observation_dir(SV_WOM)
    names = ("reduction.json", "solutions.json", "variable.json", "comps.json", "photometry.npz",
             "magnitudes.csv")  # fmt: skip
    for path in (products / name for name in names):
        with aside(path) as content:
            path.write_bytes(content[: len(content) // 2])
            faults = all_faults(explain(SV_WOM, as_json=True))
        assert any(f"{path.name} is damaged" in words for words in faults), path.name


def test_a_product_that_somebody_edited_is_said_to_be_another(explain, measured):
    csv = measured.observatory.layout.observation_dir(SV_WOM) / "magnitudes.csv"
    with aside(csv) as content:
        csv.write_bytes(content.replace(b"# merr: ", b"# merr:  "))
        faults = all_faults(explain(SV_WOM, as_json=True))
    assert len(faults) == 1
    assert "magnitudes.csv is not what was written" in faults[0]


def test_a_master_made_again_since_is_not_taken_for_the_one_that_was_used(explain, measured):
    bias = measured.data / "20251014/mbias.fits"
    with aside(bias) as content:
        bias.write_bytes(content)
        with fits.open(bias, mode="update") as hdus:
            hdus[0].header["WOMBHASH"] = "ab" * 32
        faults = all_faults(explain(SV_WOM, as_json=True))
    assert faults
    assert all("mbias.fits was made again since" in words for words in faults)


def test_what_ended_an_observation_is_said_with_what_helps(explain, measured):
    """What an earlier run measured is not passed off as the last one's."""
    light = measured.data / "20251014/Light/SV Wom"
    row = measured.row("SV Wom")
    for path in (measured.root / "cache").rglob("*.json"):
        path.unlink()
    measured.aavso.fail("vsp", "500")
    try:
        assert measured.run(night=NIGHT, nights=False) == {}
        text = explain(SV_WOM)
        found = explain(SV_WOM, as_json=True)
    finally:
        measured.aavso.fail("vsp", "none")
        for path in (measured.root / "cache").glob("away_*.json"):
            path.unlink()
        assert measured.run(night=NIGHT, nights=False) == {}
    assert light.is_dir()
    assert measured.row("SV Wom").apphot == row.apphot
    status = below(found, "status")
    assert (status["facts"]["word"], status["facts"]["ended_at"]) == ("novsp", "comp_list")
    assert "wombat retry --reason novsp" in text
    stale = [words for words in all_faults(found) if "of an earlier run" in words]
    assert {words.split()[0] for words in stale} == {
        "comps.json", "photometry.npz", "magnitudes.csv"
    }  # fmt: skip


def test_a_frame_that_was_not_measured_is_explained_too(explain, measured, edit):
    lights = measured.data / "20251014/Light/SV Wom"
    dark = lights / "another V.fit"
    edit(measured.sky.lights_v[0], dark, cards={"IMAGETYP": "Dark Frame"})
    try:
        measured.observatory.scan()
        text = explain(SV_WOM, "--frame", "another")
    finally:
        dark.unlink()
        measured.observatory.scan()
    said = "another V.fit is not measured: header says dark frame, directory says light"
    assert said in " ".join(text.split())


@pytest.mark.parametrize(
    "words",
    [("20251014", "SV Wom", "V"), ("2025-10-14", "sv"), ("20251014__SV_Wom",), ("2025", "wom")],
)
def test_an_observation_may_be_shortened(explain, words):
    assert explain(*words, as_json=True)["facts"]["key"] == SV_WOM


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        (("20251014", "TX Eri"), 'no observation "20251014 TX Eri"'),
        ((SV_WOM, "--frame", "5"), "has no frame"),
        ((SV_WOM, "--frame", "fit"), "may be each of 4 frames"),
        (("a", "b", "c", "d"), "say a key"),
    ],
)
def test_what_is_not_there_is_refused_in_one_line(explain, words, refusal):
    output = explain(*words, exit_code=2)
    assert refusal in output
    assert len(output.splitlines()) == 1


def test_one_of_several_observations_must_be_named(explain, measured):
    measured.take("20251014/Light/SV Wom/*B.fit")
    try:
        measured.observatory.scan()
        output = explain("20251014", "SV Wom", exit_code=2)
    finally:
        for path in (measured.data / "20251014/Light/SV Wom").glob("*B.fit"):
            path.unlink()
    assert "may be each of" in output
    assert SV_WOM in output


@pytest.mark.parametrize("n", range(10))
def test_inputs_are_read_back_from_history_whatever_the_length_of_their_names(n):
    """A card holds 72 characters, and a blank at the end of one is lost."""
    path = f"20251014/Bias/{'x' * n}{'long name ' * 8}ü.fit"
    header = fits.Header()
    for name, digest in ((path, "ab" * 32), ("b.fit", None)):
        header["HISTORY"] = card_text(f"input {name}")
        header["HISTORY"] = f"  pixels sha256 {digest}"
    header["HISTORY"] = "refused c.fit: too dark"
    found = ingredients(fits.Header.fromstring(header.tostring()))
    assert found == [
        Ingredient(path=card_text(path), pixel_hash="ab" * 32),
        Ingredient(path="b.fit", pixel_hash=None),
    ]
