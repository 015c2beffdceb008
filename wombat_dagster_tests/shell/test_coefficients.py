"""Transformation coefficients on the road: fitted to a field, pooled, imported, put to use."""

import datetime as dt
from dataclasses import replace

import numpy as np
import pytest
from astropy.time import Time
from click.testing import CliRunner

from wombat_dagster.commands.transform import transform
from wombat_dagster.domain import Coefficient, FrameGroup
from wombat_dagster.simulate.night import altitudes_deg, young_airmass
from wombat_dagster.simulate.sky import sexagesimal
from wombat_dagster.stages.coefficients import coefficients_of
from wombat_dagster.stages.siblings import COEFFICIENTS, stale_inputs
from wombat_dagster.store.coefficients import (
    forget_coefficients,
    record_coefficients,
    stored_coefficients,
)
from wombat_dagster_tests.conftest import SITE
from wombat_dagster_tests.curves import light, observation

NIGHT = dt.date(2025, 10, 14)
B, V = "20251014__SV_Wom__B", "20251014__SV_Wom__V"
CAMERA = "Wombat Optics QHW-8300"
INI = """\
[Setup]
description= TG, Time created (UT) = 2025_09_01_00:00:00
[Coefficients]
Tb_bv= 0.1
Tv_bv= -0.05
[Error]
Tb_bv= 0.01
"""


def fit(name, value, *, date=NIGHT, error=0.01, field="M67", camera=CAMERA):
    return Coefficient(
        name=name, value=value, error=error, date=date, camera=camera, source=f"fit {field}"
    )


def invoke(place, *arguments):
    with place.in_force():
        return CliRunner().invoke(transform, [str(a) for a in arguments], catch_exceptions=False)


# --------------------------------------------------------------------------------- which ones hold


def test_the_configuration_wins_name_by_name(place):
    place.configure(
        tail="[[instrument]]\ntransform = { Tv_bv = -0.01 }\ntransform_error = { Tv_bv = 0.002 }"
    )
    record_coefficients(place.observatory.status, [fit("Tv_bv", -0.06), fit("Tb_bv", 0.09)])
    found = coefficients_of(place.observatory, CAMERA, NIGHT)
    assert found.values == {"Tv_bv": -0.01, "Tb_bv": 0.09}
    assert found.errors == {"Tv_bv": 0.002, "Tb_bv": 0.01}
    assert found.source == "configuration (Tv_bv); fit M67 2025-10-14 (Tb_bv)"


def test_the_nights_of_an_epoch_are_pooled_and_those_of_another_are_not(place):
    place.configure(tail="[[instrument]]\nepochs = [2025-10-10]")
    nights = [
        fit("Tv_bv", -0.06, date=dt.date(2025, 10, 11)),
        fit("Tv_bv", -0.08, date=dt.date(2026, 1, 1), field="M11"),
        fit("Tv_bv", -0.50, date=dt.date(2025, 10, 9)),
    ]
    record_coefficients(place.observatory.status, nights)
    later = coefficients_of(place.observatory, CAMERA, NIGHT)
    assert later.values == pytest.approx({"Tv_bv": -0.07})
    assert later.source == "fits of 2 nights (Tv_bv)"
    earlier = coefficients_of(place.observatory, CAMERA, dt.date(2020, 1, 1))
    assert earlier.values == {"Tv_bv": -0.50}
    assert later.version != earlier.version


def test_another_camera_s_fits_do_not_count(place):
    record_coefficients(place.observatory.status, [fit("Tv_bv", -0.06, camera="Another")])
    found = coefficients_of(place.observatory, CAMERA, NIGHT)
    assert (found.values, found.source, found.version) == ({}, "none", "")


def test_a_file_serves_where_nothing_was_fitted(place, tmp_path):
    file = tmp_path / "tg.ini"
    file.write_text(INI, encoding="utf-8")
    record_coefficients(place.observatory.status, [fit("Tv_bv", -0.06)])
    result = invoke(place, "--import", file, "--camera", "qhw")
    assert result.exit_code == 0, result.output
    assert "no error in the file: Tv_bv" in result.output
    found = coefficients_of(place.observatory, CAMERA, NIGHT)
    assert found.values == {"Tv_bv": -0.06, "Tb_bv": 0.1}
    assert found.source == "tg.ini 2025-09-01 (Tb_bv); fit M67 2025-10-14 (Tv_bv)"
    assert coefficients_of(place.observatory, "Another", NIGHT).values == {}


def test_an_odd_value_in_a_file_is_said(place, tmp_path):
    file = tmp_path / "tg.ini"
    file.write_text(INI.replace("Tb_bv= 0.1", "Tb_bv= 1.1"), encoding="utf-8")
    result = invoke(place, "--import", file)
    assert result.exit_code == 0, result.output
    assert "Tb_bv = +1.1000 is odd" in result.output


def test_a_file_imported_again_replaces_itself(place, tmp_path):
    file = tmp_path / "tg.ini"
    file.write_text(INI, encoding="utf-8")
    invoke(place, "--import", file)
    file.write_text(INI.replace("Tb_bv= 0.1\n", ""), encoding="utf-8")
    invoke(place, "20251001", "--import", file)
    (one,) = stored_coefficients(place.observatory.status)
    assert (one.name, one.date, one.camera) == ("Tv_bv", dt.date(2025, 10, 1), None)


def test_a_fit_that_holds_the_air_is_not_used_where_second_order_extinction_is_known(place):
    """Tb_bv of before: k2 would count twice. Tv_bv and Tb_ub have no k2 to add."""
    status = place.observatory.status
    before = [fit("Tb_bv", 0.13), fit("Tv_bv", -0.06), fit("Tb_ub", 0.02)]
    record_coefficients(status, before)
    place.configure(tail="[[instrument]]\nextinction_colour = { B = -0.03 }")
    found = coefficients_of(place.observatory, CAMERA, NIGHT)
    assert found.values == {"Tv_bv": -0.06, "Tb_ub": 0.02}
    words = "not used: Tb_bv of fit M67 2025-10-14: it holds the airmass of its field"
    assert words in found.source
    assert words in " ".join(invoke(place, "--list").output.split())
    record_coefficients(status, [replace(before[0], value=0.09, outside_atmosphere=True)])
    again = coefficients_of(place.observatory, CAMERA, NIGHT)
    assert again.values == {"Tb_bv": 0.09, "Tv_bv": -0.06, "Tb_ub": 0.02}
    assert "not used" not in again.source
    place.configure()
    assert "Tb_bv" not in coefficients_of(place.observatory, CAMERA, NIGHT).values


def test_a_coefficient_of_the_configuration_is_taken_as_it_is_said(place):
    record_coefficients(place.observatory.status, [fit("Tb_bv", 0.13)])
    place.configure(
        tail="[[instrument]]\nextinction_colour = { B = -0.03 }\ntransform = { Tb_bv = 0.09 }"
    )
    found = coefficients_of(place.observatory, CAMERA, NIGHT)
    assert (found.values, found.source) == ({"Tb_bv": 0.09}, "configuration (Tb_bv)")


def lights(place, *cameras):
    """Record a light frame of each camera, each of an observation of its own."""
    units = [observation(night) for night in range(len(cameras))]
    frames = [
        replace(
            light(unit),
            group=FrameGroup(width_px=9, height_px=9, binning="1x1", camera=camera, readout=None),
        )
        for unit, camera in zip(units, cameras, strict=True)
    ]
    place.observatory.status.record_scan(frames, {unit.date for unit in units})


def test_a_file_without_a_camera_is_refused_where_there_are_several(place, tmp_path):
    lights(place, "QHY 600 M", "QHY 268")
    file = tmp_path / "tg.ini"
    file.write_text(INI, encoding="utf-8")
    for asked in ((), ("--camera", "qhy")):
        refused = invoke(place, "--import", file, *asked)
        assert refused.exit_code == 2
        assert "2 are meant: QHY 268, QHY 600 M; --camera says it" in refused.output
    assert invoke(place, "--import", file, "--camera", "600").exit_code == 0
    assert {one.camera for one in stored_coefficients(place.observatory.status)} == {"QHY 600 M"}
    assert coefficients_of(place.observatory, "qhy 600 m", NIGHT).values != {}
    assert coefficients_of(place.observatory, "QHY 268", NIGHT).values == {}


def test_a_file_is_of_the_one_camera_that_is_known(place, tmp_path):
    lights(place, "QHY 268")
    file = tmp_path / "tg.ini"
    file.write_text(INI, encoding="utf-8")
    assert "They hold for QHY 268," in invoke(place, "--import", file).output
    assert coefficients_of(place.observatory, "QHY 600 M", NIGHT).values == {}
    assert invoke(place, "--forget", "tg.ini", "--camera", "268").exit_code == 0
    assert stored_coefficients(place.observatory.status) == []


def test_a_file_from_before_a_second_camera_serves_neither_and_says_so(place, tmp_path):
    file = tmp_path / "tg.ini"
    file.write_text(INI, encoding="utf-8")
    assert invoke(place, "--import", file).exit_code == 0
    assert coefficients_of(place.observatory, "QHY 268", NIGHT).values != {}
    lights(place, "QHY 600 M", "QHY 268")
    found = coefficients_of(place.observatory, "QHY 268", NIGHT)
    assert found.values == {}
    assert "may be of QHY 268 or QHY 600 M, import it again with --camera" in found.source
    assert invoke(place, "--import", file, "--camera", "268").exit_code == 0
    assert {one.camera for one in stored_coefficients(place.observatory.status)} == {"QHY 268"}


# ---------------------------------------------------------------------------- what becomes stale


def made(place, key, asset, version, inputs=None):
    place.observatory.status.record_product(
        key, asset, path="x", content_hash="x", version=version, inputs=inputs or {}, status={}
    )


def stale(place):
    return [observation.key for observation in stale_inputs(place.observatory)]


def test_stored_coefficients_make_magnitudes_stale_until_these_know_them(place):
    place.take("20251014/Light/SV Wom/*")
    place.observatory.scan()
    status = place.observatory.status
    for key in (B, V):
        made(place, key, "photometry_table", "1")
    made(place, V, "standard_magnitudes", "1")
    assert stale(place) == []
    record_coefficients(status, [fit("Tv_bv", -0.06)])
    assert stale(place) == [V]
    (wanted,) = stale_inputs(place.observatory).values()
    version = coefficients_of(place.observatory, CAMERA, NIGHT).version
    assert wanted == {B: "1", COEFFICIENTS: version}
    made(place, V, "standard_magnitudes", "2", inputs=wanted)
    assert stale(place) == []
    record_coefficients(status, [fit("Tv_bv", -0.05)])
    assert stale(place) == [V]
    made(place, V, "standard_magnitudes", "3", *stale_inputs(place.observatory).values())
    record_coefficients(status, [fit("Tv_bv", -0.05, camera="Another", field="M11")])
    assert stale(place) == []


def test_magnitudes_made_with_coefficients_that_are_forgotten_are_stale(place):
    place.take("20251014/Light/SV Wom/*")
    place.observatory.scan()
    record_coefficients(place.observatory.status, [fit("Tv_bv", -0.06)])
    made(place, V, "standard_magnitudes", "1", {})
    (wanted,) = stale_inputs(place.observatory).values()
    made(place, V, "standard_magnitudes", "1", wanted)
    assert stale(place) == []
    assert forget_coefficients(place.observatory.status, "fit M67") == 1
    assert stale_inputs(place.observatory) == {place.row("SV Wom").observation: {}}


# ------------------------------------------------------------------------------ the whole road


def standards_of(field):
    """Return what VSP would say of the field's stars, were they standards: 5 mmag errors."""
    rng = np.random.default_rng(12)
    bright = [star for star in (*field.others, *field.comps) if 10 < star.mags["V"] < 15]
    return [
        {
            "auid": f"999-STD-{number:03d}",
            "ra": sexagesimal(star.ra_deg / 15.0, decimals=2),
            "dec": sexagesimal(star.dec_deg, decimals=1),
            "label": "1",
            "bands": [
                {"band": band, "mag": mag + rng.normal(0, 0.005), "error": 0.005}
                for band, mag in star.mags.items()
            ],
            "comments": "",
        }
        for number, star in enumerate(bright)
    ]


@pytest.fixture(scope="module")
def standard_field(open_place, tmp_path_factory, sky, hard_link):
    """B and V of a directory that VSX does not know, reduced and solved."""
    with open_place(tmp_path_factory.mktemp("transform") / "obs") as place:
        place.take("20251014/Bias/*", "20251014/Flat/*")
        for source in sky.data.glob("20251014/Light/SV Wom/*"):
            hard_link(source, place.data / "20251014" / "Light" / "SA 98" / source.name)
        place.aavso.add(standards=standards_of(sky.field))
        assert place.run() == {}
        yield place


def test_a_field_that_vsx_does_not_know_gives_the_telescope_s_coefficients(standard_field, sky):
    assert standard_field.row("SA 98").apphot == "novsx"
    result = invoke(standard_field, "2025-10-14", "sa 98")
    assert result.exit_code == 0, result.output
    stored = {one.name: one for one in stored_coefficients(standard_field.observatory.status)}
    assert {"Tbv", "Tb_bv", "Tv_bv"} <= set(stored)
    for name in ("Tb_bv", "Tv_bv"):
        one = stored[name]
        assert (one.camera, one.date, one.source) == (CAMERA, NIGHT, "fit SA 98")
        truth = sky.telescope.transform_coefficients[name]
        assert one.value == pytest.approx(truth, abs=4 * one.error)
        assert one.error < 0.03
        assert one.n_stars >= 8
    directory = standard_field.root / "products" / "20251014" / "SA_98"
    names = {path.name for path in directory.glob("transform*")}
    assert names == {"transform.csv", "transform.png", "transform_stars.csv"}
    assert "frames" in (directory / "transform_stars.csv").read_text()
    assert "Tb_bv" in invoke(standard_field, "--list").output


def test_second_order_extinction_of_the_field_is_taken_out(standard_field, sky):
    """Once more with k2 = -0.03: Tb_bv moves by k2 X, X of the simulated frames (Young 1994)."""
    status = standard_field.observatory.status
    before = {one.name: one for one in stored_coefficients(status)}
    standard_field.configure(tail="[[instrument]]\nextinction_colour = { B = -0.03 }")
    try:
        result = invoke(standard_field, "20251014", "SA 98")
        assert result.exit_code == 0, result.output
        after = {one.name: one for one in stored_coefficients(status)}
    finally:
        standard_field.configure()
    key = next(k for k in status.light_cameras() if "SA_98" in k and k.endswith("B"))
    frames = standard_field.product("reduced_frames", key).frames
    jd = np.array([Time(f.start_utc).jd + f.exposure_s / 172800 for f in frames])
    field = sky.field.comps[0]
    airmass = young_airmass(altitudes_deg(jd, SITE, field.ra_deg, field.dec_deg)).mean()
    moved = after["Tb_bv"].value - before["Tb_bv"].value
    assert moved == pytest.approx(-0.03 * airmass, rel=0.01)
    assert after["Tv_bv"].value == before["Tv_bv"].value
    assert [after[n].outside_atmosphere for n in ("Tb_bv", "Tbv", "Tv_bv")] == [True, True, False]


def test_a_dry_run_stores_and_writes_nothing(standard_field):
    status = standard_field.observatory.status
    forget_coefficients(status, "fit SA 98")
    for path in (standard_field.root / "products" / "20251014" / "SA_98").glob("transform*"):
        path.unlink()
    result = invoke(standard_field, "20251014", "SA 98", "--dry-run")
    assert "Tv_bv" in result.output
    assert stored_coefficients(status) == []
    assert not list((standard_field.root / "products").rglob("transform*"))


def test_a_table_of_standards_serves_without_vsp(standard_field, sky, tmp_path):
    table = tmp_path / "mine.csv"
    rows = [
        f"N{number},{star.ra_deg},{star.dec_deg},{star.mags['V']},{star.mags['B']},0.003,0.003"
        for number, star in enumerate(sky.field.others)
        if star.mags["V"] < 15
    ]
    table.write_text("\n".join(["Name,ra_deg,dec_deg,V,B,e_V,e_B", *rows]), encoding="utf-8")
    asked = standard_field.aavso.requests["vsp"]
    result = invoke(standard_field, "20251014", "SA 98", "--standards", table, "--dry-run")
    assert result.exit_code == 0, result.output
    assert "of mine.csv on the frames" in result.output
    assert standard_field.aavso.requests["vsp"] == asked
    table.write_text("Name,RA,DEC,V\nA,1:00:00,2:00:00,10\n", encoding="utf-8")
    elsewhere = invoke(standard_field, "20251014", "SA 98", "--standards", table)
    assert elsewhere.exit_code == 2
    assert "not one of the 1 standard stars of mine.csv is on the frames" in elsewhere.output


def test_with_vsp_away_and_no_chart_on_disk_it_says_so(standard_field):
    standard_field.forget_services()
    standard_field.aavso.fail("vsp", "500")
    result = invoke(standard_field, "20251014", "SA 98", "--dry-run")
    standard_field.aavso.fail("vsp", "none")
    assert result.exit_code == 2
    assert "VSP" in result.output
    assert "--standards" in result.output


def test_a_field_without_standards_is_none(standard_field):
    standard_field.forget_services()
    standard_field.aavso.fail("vsp", "valid-empty")
    result = invoke(standard_field, "20251014", "SA 98", "--dry-run")
    standard_field.aavso.fail("vsp", "none")
    standard_field.forget_services()
    assert result.exit_code == 2
    assert "VSP knows no standard stars within" in result.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["20251014", "nowhere"], "no light frames of nowhere in the night 2025-10-14"),
        (["20251014"], "say NIGHT and TARGET"),
        ([], "say NIGHT and TARGET"),
        (["--list", "--dry-run"], "go with NIGHT and TARGET"),
        (["--forget", "fit M1"], 'nothing of source "fit M1" is stored'),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(place, arguments, words):
    result = invoke(place, *arguments)
    assert result.exit_code == 2
    assert words in result.output


def test_frames_that_are_not_solved_yet_are_named(place):
    place.take("20251014/Light/SV Wom/*")
    place.observatory.scan()
    result = invoke(place, "20251014", "SV Wom")
    assert result.exit_code == 2
    assert "V left out: not reduced and solved; wombat run does it" in result.output
