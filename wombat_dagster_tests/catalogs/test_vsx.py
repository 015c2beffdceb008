"""Names, positions and magnitudes as VSX gives them; outage, unknown and ambiguous kept apart."""

import datetime as dt
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wombat_dagster.catalogs.base import Pace
from wombat_dagster.catalogs.clock import Clock
from wombat_dagster.catalogs.vsx import (
    Vsx,
    first_number,
    known_variables,
    magnitude,
    name_variants,
    read_list,
    read_object,
    the_star_asked_for,
)
from wombat_dagster.config import AavsoSettings, TargetSettings
from wombat_dagster.domain import AmbiguousVariable, UnknownVariable, VsxUnavailable
from wombat_dagster.simulate.aavso import StandInAavso

GOLDEN = Path(__file__).parents[1] / "golden" / "aavso"


def golden(name):
    return json.loads((GOLDEN / name).read_text(encoding="utf-8"))


PHI_PER = golden("vsx_object_phi_per.json")["VSXObject"]
COM = {star["Name"]: star for star in read_list(golden("vsx_list_com_edgecases.json"))}
M42 = read_list(golden("vsx_list_m42_trimmed.json"))
R_CAR = {"Name": "R Car", "RA2000": "143.06083", "Declination2000": "-62.78889", "OID": "5754"}
SMALL_R_CAR = {"Name": "r Car", "RA2000": "158.89708", "Declination2000": "-57.55764"}


class Sky:
    """A stand-in, and clients of it that wait for nothing and share a cache directory."""

    def __init__(self, server, cache):
        self.server, self.cache = server, cache
        self.now = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)

    def vsx(self):
        settings = AavsoSettings(vsx_urls=[self.server.vsx_url], timeout_s=5, min_interval_s=0)
        clock = Clock(monotonic_s=lambda: 0.0, sleep=lambda _: None, now_utc=lambda: self.now)
        return Vsx(settings, self.cache, clock=clock, pace=Pace())

    def later(self, days):
        self.now += dt.timedelta(days=days)


@pytest.fixture
def sky(tmp_path):
    with StandInAavso([PHI_PER, *COM.values(), *M42, R_CAR]) as server:
        yield Sky(server, tmp_path)


def test_a_known_name_brings_everything_vsx_knows(sky):
    star = sky.vsx().variable("phi Per")
    assert (star.name, star.auid, star.oid) == ("phi Per", "000-BBD-264", "26210")
    assert (star.ra_deg, star.dec_deg) == (25.91517, 50.68872)
    assert (star.pm_ra_mas_yr, star.pm_dec_mas_yr) == (24.59, -14.01)
    assert (star.variability_type, star.period_d, star.epoch_hjd) == ("GCAS", 19.5, None)
    assert (star.mag_bright, star.mag_faint, star.mag_bright_band) == (3.96, 4.11, "V")
    assert (star.match, star.source, star.notes) == ("name", "VSX", ())


@pytest.mark.parametrize(
    ("folder", "spellings"),
    [
        ("phi Per", ("phi Per",)),
        ("TX_Eri", ("TX_Eri", "TX Eri")),
        ("V730_Ori", ("V730_Ori", "V730 Ori", "V0730 Ori")),
        ("V0730 Ori", ("V0730 Ori", "V730 Ori")),
        ("V1405 Ori", ("V1405 Ori",)),
        ("G5903.00430", ("G5903.00430", "GSC 05903-00430")),
        ("GSC_5903-430", ("GSC_5903-430", "GSC 5903-430", "GSC 05903-00430")),
        (" SS  Cyg ", ("SS  Cyg", "SS Cyg")),
    ],
)
def test_spellings_of_a_folder_name_the_name_itself_first(folder, spellings):
    assert name_variants(folder) == spellings


def test_a_spelling_that_vsx_knows_is_marked_as_variant(sky):
    star = sky.vsx().variable("V730_Ori")
    assert (star.name, star.match) == ("V0730 Ori", "variant")
    assert [q["ident"] for _, q in sky.server.queries] == ["V730_Ori", "V730 Ori", "V0730 Ori"]


def test_an_unknown_name_lists_what_was_tried(sky):
    with pytest.raises(UnknownVariable, match=r"'V9999_Ori', 'V9999 Ori'"):
        sky.vsx().variable("V9999_Ori")
    assert list(sky.cache.rglob("*.json")) == []  # tomorrow it may be known


@pytest.mark.parametrize(
    ("name", "bright", "faint", "bands"),
    [
        ("Y Com", 13.4, 14.39, ("B", "B")),
        ("Z Com", 13.14, 14.29, ("V", "V")),  # <13.14, >14.29
        ("ASAS J130830+1828.1", 12.382, 12.542, ("V", "V")),  # (0.160)
        ("LINEAR 8078628", 15.51, None, ("CV", None)),  # ?
        ("CSS_J130149.6+181629", 16.773, 17.623, ("CV", "TESS")),  # 0.85 in TESS
        ("CSS_J130246.9+182141", 18.399, None, ("CV", None)),  # no MinMag
    ],
)
def test_magnitude_ranges_of_real_entries(sky, name, bright, faint, bands):
    """Amplitudes added by hand."""
    star = sky.vsx().variable(name)
    assert star.mag_bright == bright
    assert star.mag_faint == pytest.approx(faint) if faint else star.mag_faint is None
    assert (star.mag_bright_band, star.mag_faint_band) == bands


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("8.794 V", (8.794, "V", False)),
        ("12.5: V", (12.5, "V", False)),
        ("12.5:V", (12.5, "V", False)),
        (">14.3", (14.3, None, False)),
        ("< 13 B", (13.0, "B", False)),
        ("-1.46 V", (-1.46, "V", False)),
        ("(0.85) TESS", (0.85, "TESS", True)),
        ("(0.2:) B", (0.2, "B", True)),
        ("(0.2): B", (0.2, "B", True)),
        ("14", (14.0, None, False)),
        ("?", (None, None, False)),
        ("", (None, None, False)),
        (None, (None, None, False)),
    ],
)
def test_the_magnitude_grammar(text, read):
    assert magnitude(text) == read


@given(
    value=st.decimals(-2, 25, places=3, allow_nan=False),
    limit=st.sampled_from(["", "<", ">"]),
    unsure=st.sampled_from(["", ":"]),
    band=st.sampled_from(["V", "CV", "g", "Hp", "TESS", "Rc"]),
)
def test_every_magnitude_of_the_grammar_is_read_back(value, limit, unsure, band):
    assert magnitude(f"{limit}{value}{unsure} {band}") == (float(value), band, False)


def test_uncertain_periods_are_numbers():
    assert [first_number(t) for t in ("95:", ">300", "(0.5)", "0.5466892", "", None)] == [
        95.0,
        300.0,
        0.5,
        0.5466892,
        None,
        None,
    ]


def test_large_and_small_r_car_are_told_apart_by_their_case():
    assert the_star_asked_for("r Car", [R_CAR, SMALL_R_CAR]) is SMALL_R_CAR
    assert the_star_asked_for("R Car", [R_CAR, SMALL_R_CAR]) is R_CAR
    with pytest.raises(AmbiguousVariable, match=r"2 stars.*R Car \(OID 5754\), r Car"):
        the_star_asked_for("R CAR", [R_CAR, SMALL_R_CAR])


def test_large_r_car_is_not_taken_for_small_r_car(sky):
    assert sky.vsx().variable("R Car").name == "R Car"
    with pytest.raises(AmbiguousVariable, match="'r Car' was asked for and VSX answered 'R Car'"):
        sky.vsx().variable("r Car")
    sky.server.add([SMALL_R_CAR])
    assert sky.vsx().variable("r Car").name == "r Car"


def test_lower_case_is_fine_where_it_tells_no_stars_apart(sky):
    assert sky.vsx().variable("gp com").name == "GP Com"


def test_a_name_with_a_line_break_is_one_line():
    star = {"Name": "Gaia DR3\n7384", "RA2000": "1.5", "Declination2000": "-2"}
    with StandInAavso([star]) as server:
        found = read_list(server.vsx_list(1.5, -2.0, 0.001))
    assert the_star_asked_for("Gaia DR3 7384", [*found, R_CAR]) == star


def test_a_position_finds_a_star_of_another_name_within_10_arcseconds(sky):
    target = TargetSettings(directory=["field 7"], ra_deg=25.91517, dec_deg=50.68872 + 9.5 / 3600)
    star = sky.vsx().variable("field 7", target)
    assert (star.name, star.match) == ("phi Per", "position")


def test_a_position_11_arcseconds_off_finds_nothing(sky):
    target = TargetSettings(directory=["x"], ra_deg=25.91517, dec_deg=50.68872 + 11 / 3600)
    with pytest.raises(UnknownVariable, match=r'within 10" of 25\.91517,\+50\.69178'):
        sky.vsx().variable("x", target)


def test_two_stars_at_a_position_are_ambiguous(sky):
    sky.server.add([{**PHI_PER, "Name": "phi Per B", "RA2000": "25.91600", "OID": "1"}])
    target = TargetSettings(directory=["x"], ra_deg=25.91517, dec_deg=50.68872)
    with pytest.raises(AmbiguousVariable, match="2 stars within"):
        sky.vsx().variable("x", target)


def test_a_name_is_not_replaced_by_a_position_when_vsx_is_away(sky):
    sky.server.fail("vsx", "500")
    target = TargetSettings(directory=["x"], ra_deg=25.91517, dec_deg=50.68872)
    with pytest.raises(VsxUnavailable):
        sky.vsx().variable("x", target)


def test_position_and_range_in_the_configuration_need_no_vsx(sky):
    sky.server.fail("vsx", "refused")
    target = TargetSettings(
        directory=["My Star"], ra_deg=10.0, dec_deg=-5.0, mag_range=(13.5, 11.0), period_d=2.5
    )
    star = sky.vsx().variable("My Star", target)
    assert (star.name, star.match, star.source) == ("My Star", "configuration", "wombat.toml")
    assert (star.mag_bright, star.mag_faint, star.period_d) == (11.0, 13.5, 2.5)
    assert sky.server.requests["vsx"] == 0


def test_the_configured_vsx_name_and_range_come_before_the_folder_and_vsx(sky):
    target = TargetSettings(directory=["junk"], vsx="phi Per", mag_range=(3.0, 5.0))
    star = sky.vsx().variable("junk", target)
    assert (star.name, star.match, star.auid) == ("phi Per", "name", "000-BBD-264")
    assert (star.mag_bright, star.mag_faint) == (3.0, 5.0)


def test_a_full_configuration_stands_in_when_vsx_is_away_or_does_not_know(sky):
    here = {"ra_deg": 10.0, "dec_deg": -5.0, "mag_range": (11.0, 12.0)}
    target = TargetSettings(directory=["x"], vsx="Nova 7", **here)
    assert "does not know" in sky.vsx().variable("x", target).notes[0]
    sky.server.fail("vsx", "500")
    star = sky.vsx().variable("x", target)
    assert star.match == "configuration"
    assert "VSX did not answer on 2026-11-21 UTC" in star.notes[0]


@pytest.mark.parametrize("failure", ["500", "403", "429", "html", "empty-body", "cut", "refused"])
def test_an_outage_is_never_an_unknown_name(sky, failure):
    sky.server.fail("vsx", failure)
    with pytest.raises(VsxUnavailable, match=r"VSX away at 2026-11-21T00:00:00.*127\.0\.0\.1: "):
        sky.vsx().variable("phi Per")
    sky.server.fail("vsx", "none")
    sky.later(days=1)
    assert sky.vsx().variable("phi Per").name == "phi Per"


def test_an_empty_answer_is_an_unknown_name_and_not_an_outage(sky):
    sky.server.fail("vsx", "valid-empty")
    with pytest.raises(UnknownVariable):
        sky.vsx().variable("phi Per")


def test_a_star_is_asked_for_once_in_30_days(sky):
    first = sky.vsx().variable("V730 Ori")
    asked = sky.server.requests["vsx"]
    sky.later(days=29)
    assert sky.vsx().variable("V730 Ori") == first
    assert sky.server.requests["vsx"] == asked
    sky.later(days=2)
    sky.vsx().variable("V730 Ori")
    assert sky.server.requests["vsx"] > asked


def test_with_vsx_away_an_old_answer_serves_and_says_so(sky):
    fresh = sky.vsx().variable("V730_Ori")
    sky.later(days=400)
    sky.server.fail("vsx", "cut")
    kept = sky.vsx().variable("V730_Ori")
    assert (kept.name, kept.auid, kept.match) == (fresh.name, fresh.auid, "variant")
    assert "2026-11-21T00:00:00+00:00 from the cache" in kept.notes[0]
    assert kept.notes[1] == "VSX did not answer on 2027-12-26 UTC"
    with pytest.raises(VsxUnavailable):
        sky.vsx().variable("phi Per")


def test_the_probe_tells_an_outage_from_an_unknown_star(sky):
    assert sky.vsx().probe()
    sky.server.fail("vsx", "html")
    assert not sky.vsx().probe()


def test_an_object_is_read_alone_in_a_list_or_not_at_all():
    assert read_object({"VSXObject": R_CAR}) == read_object({"VSXObject": [R_CAR]}) == [R_CAR]
    assert read_object({"VSXObject": []}) == read_object({"VSXObject": {}}) == []
    assert len(read_object({"VSXObject": [R_CAR, SMALL_R_CAR]})) == 2


# ------------------------------------------------------------------------ variables of the field

COM_CENTRE = (196.5, 18.3)


def lists_asked(sky):
    return [q for _, q in sky.server.queries if q["view"] == "api.list"]


def test_the_variables_of_a_field_come_with_name_type_and_auid(sky):
    """Of the ten real entries, those within 0.5 deg of the centre, by hand; radius in degrees."""
    found = sky.vsx().variables_around(*COM_CENTRE, 0.45)
    by_name = {star.name: star for star in found}
    assert set(by_name) == {"GP Com", "CSS_J130600.1+180046", "ASASSN-V J130647.48+182752.4"}
    gp_com = by_name["GP Com"]
    assert (gp_com.ra_deg, gp_com.dec_deg) == (196.42667, 18.01772)
    assert (gp_com.auid, gp_com.variability_type) == ("000-BCV-502", "IBWD")
    assert by_name["ASASSN-V J130647.48+182752.4"].auid is None
    (asked,) = lists_asked(sky)
    assert asked == {
        "view": "api.list", "ra": "196.500", "dec": "18.300", "radius": "0.5", "tomag": "17.5",
        "format": "json",
    }  # fmt: skip


def test_suspected_variables_are_told_and_stars_too_faint_for_charts_are_not(sky):
    """CSS_J130246.9+182141 has its maximum at 18.399."""
    found = sky.vsx().variables_around(83.43, -5.37, 0.1)
    assert {s.name: s.variability_type for s in found} == {
        "V0730 Ori": "INS", "NSV 2149": "suspected",
    }  # fmt: skip
    assert sky.vsx().variables_around(195.69565, 18.36147, 0.1) == ()


@pytest.mark.parametrize(
    ("entry", "constant"),
    [
        ({"VariabilityType": "CST", "Category": "Variable"}, True),
        ({"VariabilityType": "CST:", "Category": "Suspected"}, True),
        ({"VariabilityType": "CST|EA", "Category": "Variable"}, False),
        ({"VariabilityType": "EA", "Category": "Non-variable"}, True),
        ({"VariabilityType": "EA", "Category": "Variable"}, False),
        ({"Category": "Suspected"}, False),
        ({}, False),
    ],
)
def test_a_star_that_vsx_found_constant_is_no_variable(entry, constant):
    star = {"Name": "NSV 1", "RA2000": "1.0", "Declination2000": "2.0", **entry}
    assert (known_variables({"VSXObjects": {"VSXObject": [star]}}) == ()) is constant


def test_a_field_of_one_star_may_come_as_an_object_and_an_empty_one_as_a_list():
    assert [s.name for s in known_variables({"VSXObjects": {"VSXObject": R_CAR}})] == ["R Car"]
    assert known_variables(golden("vsx_list_empty.json")) == ()


def test_one_star_of_a_field_that_cannot_be_read_does_not_cost_the_others(caplog):
    broken = {**R_CAR, "RA2000": "?"}
    found = known_variables({"VSXObjects": {"VSXObject": [broken, {"Name": "x"}, SMALL_R_CAR]}})
    assert [s.name for s in found] == ["r Car"]
    assert len(caplog.records) == 2


def test_a_field_is_asked_for_once_in_30_days_and_serves_smaller_ones(sky):
    first = sky.vsx().variables_around(*COM_CENTRE, 0.45)
    sky.later(days=29)
    assert sky.vsx().variables_around(196.5003, 18.2998, 0.31) == first  # pointed a little off
    assert len(lists_asked(sky)) == 1
    sky.later(days=2)
    sky.vsx().variables_around(*COM_CENTRE, 0.45)
    assert len(lists_asked(sky)) == 2
    sky.vsx().variables_around(*COM_CENTRE, 0.6)
    assert [q["radius"] for q in lists_asked(sky)] == ["0.5", "0.5", "0.75"]


def test_a_field_without_variables_is_asked_for_again_the_next_day(sky):
    for days in (0, 0.9, 0.2):
        sky.later(days=days)
        assert sky.vsx().variables_around(10.0, 10.0, 0.1) == ()
    assert len(lists_asked(sky)) == 2


@pytest.mark.parametrize("failure", ["500", "html", "cut", "refused"])
def test_an_outage_is_never_a_field_without_variables(sky, failure):
    sky.server.fail("vsx", failure)
    with pytest.raises(VsxUnavailable):
        sky.vsx().variables_around(*COM_CENTRE, 0.45)
    assert len(lists_asked(sky)) == 1  # tried once: the night can do without
    sky.server.fail("vsx", "none")
    sky.later(days=1)
    found = sky.vsx().variables_around(*COM_CENTRE, 0.45)
    sky.later(days=400)
    sky.server.fail("vsx", failure)
    assert found == sky.vsx().variables_around(*COM_CENTRE, 0.45) != ()


def test_no_field_is_wider_than_five_degrees(sky):
    sky.vsx().variables_around(*COM_CENTRE, 12.0)
    assert lists_asked(sky)[0]["radius"] == "5"


def test_digits_marks_and_limits_are_kept_as_vsx_writes_them():
    """Z Com and Y Com of golden/aavso/vsx_list_com_edgecases.json, and a duration of 14 %."""
    from wombat_dagster.catalogs.vsx import _as_variable

    z_com = _as_variable(COM["Z Com"] | {"EclipseDuration": "14"}, match="name")
    assert (z_com.period_text, z_com.epoch_text) == ("0.5466892", "2453469.8819")
    assert (z_com.mag_bright_is_limit, z_com.mag_faint_is_limit) == (True, True)
    assert z_com.eclipse_duration_percent == 14.0
    y_com = _as_variable(COM["Y Com"], match="name")
    assert (y_com.period_d, y_com.period_text) == (95.0, "95:")
    assert (y_com.mag_bright_is_limit, y_com.eclipse_duration_percent) == (False, None)
