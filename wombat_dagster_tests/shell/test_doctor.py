import datetime as dt
import sys

import numpy as np
import pytest
from click.testing import CliRunner

from wombat_dagster import config, doctor
from wombat_dagster.catalogs.breaker import Breaker
from wombat_dagster.cli import main
from wombat_dagster.domain import FrameKind, Site
from wombat_dagster.findings import Verdict
from wombat_dagster.simulate.aavso import Service
from wombat_dagster.simulate.astap_database import write_astap_database, write_wide_database
from wombat_dagster.solvers.astap import Astap

TODAY = dt.date(2026, 11, 21)
LOWELL = {"latitude_deg": 42.61, "longitude_deg": -71.48, "elevation_m": 107.0}


def with_site(**changes):
    return config.Settings(site=config.SiteSettings(**{**LOWELL, **changes}))


# ------------------------------------------------------------------------------------------- site


def test_a_site_that_the_headers_confirm_is_good():
    found = doctor.site(with_site(), Site(latitude_deg=42.6, longitude_deg=288.5))
    assert found.verdict is Verdict.OK
    assert found.words == "42.610 N, 71.480 W, 107 m"


def test_a_longitude_counted_to_the_west_is_noticed():
    found = doctor.site(
        with_site(longitude_deg=71.48), Site(latitude_deg=42.61, longitude_deg=-71.48)
    )
    assert found.verdict is Verdict.WARN
    assert "west as positive" in found.words


@pytest.mark.parametrize(
    "changes",
    [{"latitude_deg": 0.0, "longitude_deg": 0.0}, {"elevation_m": 7000.0}],
    ids=["null island", "feet"],
)
def test_an_implausible_site_is_doubted(changes):
    assert doctor.site(with_site(**changes), None).verdict is Verdict.WARN


def test_no_site_at_all_is_missing_and_one_in_the_headers_is_a_warning():
    header = Site(latitude_deg=42.6, longitude_deg=-71.5)
    assert doctor.site(config.Settings(), None).verdict is Verdict.MISSING
    assert doctor.site(config.Settings(), header).verdict is Verdict.WARN


# ----------------------------------------------------------------------------------- star database


def astap_of(version, folder):
    return Astap(folder / "astap_cli", folder, version)


def no_records(folder):
    """A tile is a header of 110 bytes, its last the record's size; here no record follows."""
    (folder / "h18_0101.1476").write_bytes(bytes(109) + b"\x05")


def other_records(folder):
    (folder / "d50_0101.1476").write_bytes(bytes(109) + b"\x0b" + bytes(22))


def another_tile_is_short(folder):
    (folder / "h18_0101.1476").write_bytes(bytes(109) + b"\x05" + bytes(10))
    (folder / "h18_0201.1476").write_bytes(bytes(20))


def half_a_set(folder):
    (folder / "h18_0201.1476").write_bytes(bytes(109) + b"\x05" + bytes(10))


def cut_wide_file(folder):
    (folder / "w08_0101.001").write_bytes((1000).to_bytes(4, "little") + bytes(120))


def a_directory_for_a_tile(folder):
    (folder / "h18_0101.1476").write_bytes(bytes(109) + b"\x05" + bytes(10))
    (folder / "h18_0201.1476").mkdir()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda folder: None, "no set of .1476 or .290 tiles there"),
        (no_records, "1 of 1476 tiles, not usable: all of them empty"),
        (other_records, "d50_0101.1476: records of 11 bytes, (5, 6) are known"),
        (another_tile_is_short, "h18_0201.1476: 20 bytes, at least 110 wanted"),
        (half_a_set, "tiles of h18, but no h18_0101, half a set"),
        (cut_wide_file, "124 bytes, 12004 wanted"),
        (a_directory_for_a_tile, "Is a directory"),
    ],
)
def test_an_unusable_database_is_said_with_how_to_get_one(tmp_path, spoil, words):
    spoil(tmp_path)
    found = doctor.star_database(tmp_path, None)
    assert found.verdict is Verdict.MISSING
    assert words in found.words
    assert "hnsky.org" in found.remedy


def test_a_part_of_a_set_is_told(world_database):
    found = doctor.star_database(world_database, astap_of("CLI-2022.11.11", world_database))
    assert found.verdict is Verdict.WARN
    assert "of 1476 tiles: a part of the sky" in found.words


def test_a_set_for_wide_fields_alone_is_told(tmp_path):
    write_wide_database(tmp_path, np.array([10.0]), np.array([5.0]), np.array([3.0]))
    found = doctor.star_database(tmp_path, None)
    assert found.verdict is Verdict.WARN
    assert "more than 20 degrees" in found.words


def test_a_set_that_an_old_astap_does_not_know_is_told(world_database, tmp_path):
    """PLATE_SOLVING §1: the version of 2022 knows h18 and h17, that of 2026 d50 as well."""
    for tile in world_database.glob("h18_*"):
        (tmp_path / tile.name.replace("h18", "d50")).write_bytes(tile.read_bytes())
    old = doctor.star_database(tmp_path, astap_of("CLI-2022.11.11", tmp_path))
    assert "does not know d50" in old.words
    new = doctor.star_database(tmp_path, astap_of("CLI-2026.07.16", tmp_path))
    assert "does not know" not in new.words


@pytest.fixture(scope="session")
def world_database(all_stars, sky, tmp_path_factory):
    folder = tmp_path_factory.mktemp("astap")
    write_astap_database(
        folder,
        all_stars.ra_deg,
        all_stars.dec_deg,
        all_stars.mag,
        field=(sky.field.ra_deg, sky.field.dec_deg, 1.0),
    )
    return folder


@pytest.mark.parametrize("folder", [None, "nowhere"])
def test_no_database_is_missing_with_how_to_get_one(tmp_path, folder):
    found = doctor.star_database(tmp_path / folder if folder else None, None)
    assert found.verdict is Verdict.MISSING
    assert "hnsky.org" in found.remedy


def test_an_astap_that_is_not_where_it_was_said_to_be_is_missing():
    settings = config.Settings(astap=config.AstapSettings(program="/nowhere/astap_cli"))
    found = {one.subject: one for one in doctor.plate_solver(settings)}
    assert found["ASTAP"].verdict is Verdict.MISSING
    assert "/nowhere/astap_cli" in found["ASTAP"].words


def program_in(folder):
    """Return a solve-field that tells a version, in a prefix of its own."""
    program = folder / "bin" / "solve-field"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\necho 0.93\n")
    program.chmod(0o755)
    return program


@pytest.mark.skipif(sys.platform == "win32", reason="the fake is a POSIX script")
def test_a_solve_field_without_index_files_is_told_with_how_to_get_them(tmp_path):
    program = program_in(tmp_path)
    found = doctor.solve_field(str(program))
    assert found.verdict is Verdict.WARN
    assert "index files" in found.remedy
    (tmp_path / "etc").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "index-4110.fits").touch()
    (tmp_path / "etc" / "astrometry.cfg").write_text(f"add_path {tmp_path / 'data'}\nautoindex\n")
    assert doctor.solve_field(str(program)).verdict is Verdict.OK


def test_solve_field_is_not_needed_but_must_be_where_it_was_said_to_be(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("WOMBAT_SOLVE_FIELD", raising=False)
    monkeypatch.setattr("wombat_dagster.solvers.solve_field.USUAL_PROGRAMS", {})
    assert doctor.solve_field(None).verdict is Verdict.OK
    found = doctor.solve_field(str(tmp_path / "nowhere"))
    assert (found.verdict is Verdict.MISSING) or sys.platform == "win32"
    monkeypatch.setattr(sys, "platform", "win32")
    assert "Windows" in doctor.solve_field(None).words


def test_a_star_table_without_its_columns_is_missing(tmp_path):
    (tmp_path / "stars.csv").write_text("ra,dec\n1,2\n")
    assert doctor.star_table(tmp_path / "stars.csv").verdict is Verdict.MISSING


# ------------------------------------------------------------------------------ machine, observer


def test_the_age_of_the_earth_rotation_table_is_read_from_its_version():
    assert doctor.earth_rotation("0.2026.11.2.0.56.22", TODAY).verdict is Verdict.OK
    old = doctor.earth_rotation("0.2025.9.1.0.41.32", TODAY)
    assert old.verdict is Verdict.WARN
    assert "446 days" in old.words  # 1 September 2025 to 21 November 2026, by calendar


@pytest.mark.parametrize(
    ("code", "verdict"), [(None, "WARN"), ("HBRA", "OK"), ("hbra", "OK"), ("my name", "WARN")]
)
def test_the_observer_code(code, verdict):
    settings = config.Settings(observer=config.ObserverSettings(code=code))
    assert doctor.observer(settings).verdict == verdict


# ---------------------------------------------------------------------------------------- the data


def lights_of(place):
    frames, looked = doctor.newest_night(place.observatory.settings)
    return [f for f in frames if f.kind is FrameKind.LIGHT], looked


def test_the_newest_night_with_lights_is_looked_at(place):
    place.take("20251014/Light/*/*V.fit", "20251015/Flat/**/*.fit")
    frames, looked = lights_of(place)
    assert {frame.date.isoformat() for frame in frames} == {"2025-10-14"}
    assert [one.verdict for one in looked] == [Verdict.OK]


def test_header_cards_that_are_missing_are_counted(place, edit):
    place.take("20251014/Light/*/*V.fit")
    source = place.sky.lights_v[0]
    edit(
        source,
        place.data / "20251014/Light/SV Wom/bare.fit",
        remove=("OBJCTRA", "OBJCTDEC", "RA", "DEC"),
        pixels=lambda data: data + 1,
    )
    lights, _ = lights_of(place)
    found = list(doctor.headers(place.observatory.settings, lights))
    assert [one.words for one in found if one.subject == "headers"] == [
        "no position in 1 of 5 lights"
    ]


def test_a_filter_that_means_several_things_is_to_be_confirmed(place, edit):
    for index, source in enumerate(place.sky.lights_v):
        edit(source, place.data / f"20251014/Light/SV Wom/{index}.fit", cards={"FILTER": "R"})
    lights, _ = lights_of(place)
    place.configure()
    found = [
        o for o in doctor.headers(place.observatory.settings, lights) if o.subject == "filters"
    ]
    assert [one.verdict for one in found] == [Verdict.WARN]
    place.configure(tail='[[instrument]]\nfilters = { R = "R" }')
    found = [
        o for o in doctor.headers(place.observatory.settings, lights) if o.subject == "filters"
    ]
    assert [one.verdict for one in found] == [Verdict.OK]


def test_a_night_without_lights_and_a_directory_without_nights_are_told(place):
    assert lights_of(place)[1][0].words.endswith("no nights in it")
    place.take("20251015/Flat/**/*.fit")
    assert "no night has lights" in lights_of(place)[1][1].words


# --------------------------------------------------------------------------------------- the AAVSO


def test_an_outage_is_a_warning_and_no_error(place):
    place.aavso.fail(Service.VSP, "500")
    vsx, vsp = doctor.aavso(place.observatory.settings)
    assert vsx.verdict is Verdict.OK
    assert vsp.verdict is Verdict.WARN
    assert "no error" in vsp.remedy


def test_a_known_outage_of_the_catalogue_that_stands_in_is_told(place):
    place.configure(comps='fallback = "apass"')
    settings = place.observatory.settings
    assert len(list(doctor.aavso(settings))) == 2
    Breaker("VizieR", settings.path(settings.cache), settings.aavso).failed("HTTP 503 of VizieR")
    *_, found = doctor.aavso(settings)
    assert (found.subject, found.verdict) == ("VizieR", Verdict.WARN)
    assert "HTTP 503 of VizieR" in found.words


# -------------------------------------------------------------------------------------- as a whole


def run_doctor(place, monkeypatch):
    monkeypatch.setenv(config.CONFIG_ENV, "")  # set by the command, ends with the test
    monkeypatch.delenv(config.CONFIG_ENV)
    monkeypatch.setenv("COLUMNS", "200")
    return CliRunner().invoke(main, ["--config", str(place.root / "wombat.toml"), "doctor"])


def test_the_doctor_changes_nothing_and_is_content_with_warnings(place, monkeypatch):
    place.take("20251014/Light/*/*V.fit")
    place.observatory.settings.path("cache").mkdir()
    before = {p: p.stat().st_mtime_ns for p in place.root.rglob("*") if p.is_file()}
    ended = run_doctor(place, monkeypatch)
    assert ended.exit_code == 0, ended.output
    assert {p: p.stat().st_mtime_ns for p in place.root.rglob("*") if p.is_file()} == before
    verdicts = {line[:8].strip() for line in ended.stdout.splitlines() if line[:8].strip()}
    assert verdicts <= {"OK", "WARN", "MISSING"}


def test_a_broken_configuration_or_no_data_is_fatal(place, monkeypatch):
    place.data.rmdir()
    ended = run_doctor(place, monkeypatch)
    assert ended.exit_code == 2
    assert "no such directory" in ended.stdout
    (place.root / "wombat.toml").write_text("dta = 1\n")
    ended = run_doctor(place, monkeypatch)
    assert ended.exit_code == 2
    assert "dta: no such key" in ended.stdout
