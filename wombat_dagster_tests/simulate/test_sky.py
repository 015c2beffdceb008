"""The invented sky: its photometric conventions, its catalogues' formats and errors."""

import dataclasses
import json
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wombat_dagster.simulate.sky import (
    BANDS,
    LightCurve,
    Shape,
    Star,
    Telescope,
    electrons_per_second,
    frame_wcs,
    random_field,
    sexagesimal,
    star_table,
    vsp_chart,
    vsx_object,
    write_star_table_csv,
)

SCOPE = Telescope()
# Keys of VSX's real answer for phi Per and of VSP's for XZ Cyg (2026), see DOMAIN sections 1 and 2.
VSX_KEYS = {
    *("Name", "AUID", "RA2000", "Declination2000", "ProperMotionRA", "ProperMotionDec"),
    *("VariabilityType", "Period", "Epoch", "MaxMag", "MinMag", "SpectralType"),
    *("Category", "OID", "Constellation"),
}
VSP_KEYS = [
    *("chartid", "image_uri", "star", "fov", "maglimit", "title", "comment", "resolution"),
    *("dss", "special", "photometry", "auid", "ra", "dec"),
]


@pytest.fixture(scope="module")
def field():
    return random_field(7, telescope=SCOPE)


def star_mags(v_mag, b_v):
    return {"B": np.array(v_mag + b_v), "V": np.array(v_mag)}


def test_electrons_follow_the_stated_colour_term_and_extinction():
    """V 12.0, B-V 0.8 at X 1.5, by hand: 12 + 0.06*0.8 + 0.21*1.5 - 21.5 = -9.137."""
    rate = electrons_per_second(SCOPE.passband("V"), star_mags(12.0, 0.8), 1.5)
    assert rate == pytest.approx(10**3.6548)
    rate = electrons_per_second(SCOPE.passband("B"), star_mags(12.0, 0.8), 1.5)
    assert rate == pytest.approx(10 ** (0.4 * (21.2 - 12.8 + 0.09 * 0.8 - 0.35 * 1.5)))


def test_the_aavso_coefficient_is_the_slope_of_standard_less_instrumental_against_colour():
    b_v = np.linspace(0.2, 1.4, 9)
    for filter, coefficient in (("B", SCOPE.tb_bv), ("V", SCOPE.tv_bv)):
        mags = star_mags(12.0, b_v)
        mags["V"] = np.full(9, 12.0)
        instrumental = -2.5 * np.log10(electrons_per_second(SCOPE.passband(filter), mags, 1.2))
        slope = np.polyfit(b_v, mags[filter] - instrumental, 1)[0]
        assert slope == pytest.approx(coefficient)
    assert SCOPE.transform_coefficients == {
        "Tb_bv": 0.09,
        "Tv_bv": -0.06,
        "Tr_vi": -0.04,
        "Ti_vi": 0.03,
    }


def test_an_unknown_filter_is_named_together_with_the_known_ones():
    with pytest.raises(KeyError, match="no filter 'H', the telescope has B, V, Rc, Ic"):
        SCOPE.passband("H")


@pytest.mark.parametrize(
    ("rotation_deg", "mirrored", "north", "east"),
    [
        (0.0, False, (0, 1), (-1, 0)),
        (0.0, True, (0, 1), (1, 0)),
        (90.0, False, (1, 0), (0, 1)),  # +y points east
        (180.0, False, (0, -1), (1, 0)),
    ],
)
def test_north_and_east_lie_where_the_rotation_puts_them(rotation_deg, mirrored, north, east):
    scope = Telescope(rotation_deg=rotation_deg, mirrored=mirrored, scale_arcsec_px=2.0)
    wcs = frame_wcs(scope, ra_deg=10.0, dec_deg=0.0)
    centre = np.array(wcs.all_world2pix(10.0, 0.0, 0))
    assert centre == pytest.approx([(768 - 1) / 2, (512 - 1) / 2])
    step = 20.0 / 3600  # ten pixels
    assert np.array(wcs.all_world2pix(10.0, step, 0)) - centre == pytest.approx(
        10 * np.array(north), abs=1e-4
    )
    assert np.array(wcs.all_world2pix(10.0 + step, 0.0, 0)) - centre == pytest.approx(
        10 * np.array(east), abs=1e-4
    )


@given(
    shape=st.sampled_from(list(Shape)),
    hjd=st.floats(2450000, 2470000),
    cycles=st.integers(-50, 50),
    band=st.sampled_from(BANDS),
)
def test_a_light_curve_repeats_and_stays_in_its_range(shape, hjd, cycles, band):
    curve = LightCurve(shape=shape)
    mag = curve.mag(np.array([hjd, hjd + cycles * curve.period_d]), band)
    # A Julian date holds 40 us; the steepest rise is 20 mag per day.
    assert mag[0] == pytest.approx(mag[1], abs=1e-6)
    bright = curve.mag_at_maximum(band)
    assert bright - 1e-9 <= mag[0] <= bright + 1.25 * curve.amplitude_mag + 1e-9


@pytest.mark.parametrize(
    ("shape", "at_epoch"), [(Shape.RR_LYRAE, 12.0), (Shape.SINE, 12.0), (Shape.ECLIPSE, 12.9)]
)
def test_the_epoch_is_maximum_light_or_mid_eclipse(shape, at_epoch):
    curve = LightCurve(shape=shape)
    assert curve.mag(np.array(curve.epoch_hjd), "V") == pytest.approx(at_epoch, abs=1e-6)


def test_a_field_follows_from_its_seed(field):
    assert random_field(7, telescope=SCOPE) == field
    other = random_field(8, telescope=SCOPE)
    assert other.comps[0].ra_deg != field.comps[0].ra_deg
    assert not {c.auid for c in other.comps} & {c.auid for c in field.comps}


def test_comps_lie_on_the_frame_but_for_those_meant_to_be_off(field):
    wcs = frame_wcs(SCOPE, ra_deg=field.ra_deg, dec_deg=field.dec_deg)
    for comp in field.comps:
        x, y = wcs.all_world2pix(comp.ra_deg, comp.dec_deg, 0)
        inside = 80 < x < 768 - 80 and 50 < y < 512 - 50
        assert inside == ("off_image" not in field.kinds.get(comp.auid, ()))


def test_only_the_crowded_comp_has_a_neighbour(field):
    wcs = frame_wcs(SCOPE, ra_deg=field.ra_deg, dec_deg=field.dec_deg)
    others = np.array([(s.ra_deg, s.dec_deg) for s in field.others])
    x, y = wcs.all_world2pix(*others.T, 0)
    crowded = set()
    for star in (field.variable, *field.comps):
        x_0, y_0 = wcs.all_world2pix(star.ra_deg, star.dec_deg, 0)
        if np.hypot(x - x_0, y - y_0).min() < 3.9 * SCOPE.fwhm_px:
            crowded.add(star.auid)
    assert crowded == {auid for auid, kinds in field.kinds.items() if "crowded" in kinds}
    assert len(crowded) == 1


def test_catalogue_errors_are_drawn_from_the_quoted_ones():
    """Pulls of some 1700 magnitudes: mean 0 to 1/sqrt(1700) * 4, rms 1 to 4 / sqrt(3400)."""
    pulls = [
        (known.mag - comp.mags[band]) / (known.error_mag or 0.05)
        for seed in range(25)
        for comp in random_field(seed, telescope=SCOPE, n_stars=10).comps
        for band, known in comp.catalogue.items()
    ]
    assert len(pulls) > 1600
    assert abs(np.mean(pulls)) < 0.1
    assert np.std(pulls) == pytest.approx(1.0, abs=0.07)


def test_the_number_of_field_stars_is_that_asked_for():
    """Poisson: 450 +- 21, of which the circles around comps take a few percent."""
    field = random_field(3, telescope=SCOPE, n_stars=450)
    wcs = frame_wcs(SCOPE, ra_deg=field.ra_deg, dec_deg=field.dec_deg)
    x, y = wcs.all_world2pix(*np.array([(s.ra_deg, s.dec_deg) for s in field.others]).T, 0)
    inside = (x > -0.5) & (x < 767.5) & (y > -0.5) & (y < 511.5)
    assert 370 < inside.sum() < 510


def test_too_few_comps_are_refused():
    with pytest.raises(ValueError, match="5 comps wanted"):
        random_field(1, telescope=SCOPE, n_comps=5)


def test_proper_motion_moves_the_star_in_true_arcseconds(field):
    """100 mas/yr in both axes over 25 years: 2.5 arcsec each, RA stretched by cos(dec)."""
    moving = dataclasses.replace(field.variable, pm_ra_mas_yr=100.0, pm_dec_mas_yr=-100.0)
    ra, dec = dataclasses.replace(field, variable=moving).positions(2025.0)
    along_ra = (ra[0] - moving.ra_deg) * np.cos(np.radians(moving.dec_deg)) * 3600
    assert along_ra == pytest.approx(2.5, abs=1e-6)
    assert (dec[0] - moving.dec_deg) * 3600 == pytest.approx(-2.5, abs=1e-6)
    assert ra[1] == pytest.approx(field.comps[0].ra_deg)


def test_vsx_answers_in_strings(field):
    answer = json.loads(json.dumps(vsx_object(field)))["VSXObject"]
    assert set(answer) <= VSX_KEYS
    assert all(isinstance(value, str) for value in answer.values())
    assert answer["Name"] == "SV Wom"
    assert re.fullmatch(r"\d{1,3}\.\d{5}", answer["RA2000"])
    assert float(answer["RA2000"]) == field.variable.ra_deg
    assert (answer["MaxMag"], answer["MinMag"]) == ("12.00 V", "12.90 V")
    late = dataclasses.replace(field, light_curve=LightCurve(epoch_hjd=2454420.44719))
    assert vsx_object(late)["VSXObject"]["Epoch"] == "2454420.44719"
    constant = dataclasses.replace(field, light_curve=LightCurve(shape=Shape.CONSTANT))
    assert "Period" not in vsx_object(constant)["VSXObject"]


def test_a_chart_has_the_services_form(field):
    chart = json.loads(json.dumps(vsp_chart(field)))
    assert list(chart) == VSP_KEYS
    assert re.fullmatch(r"X\d{5}[A-Z]{3}", chart["chartid"])
    assert len(chart["photometry"]) == len(field.comps)
    for star in chart["photometry"]:
        assert list(star) == ["auid", "ra", "dec", "label", "bands", "comments"]
        assert re.fullmatch(r"\d{3}-[A-Z]{3}-\d{3}", star["auid"])
        assert re.fullmatch(r"\d\d:\d\d:\d\d\.\d\d", star["ra"])
        assert re.fullmatch(r"-?\d\d:\d\d:\d\d\.\d", star["dec"])
        for band in star["bands"]:
            assert isinstance(band["mag"], float)
            assert band["error"] is None or 0.01 <= band["error"] <= 0.05


def test_a_chart_holds_what_was_arranged(field):
    chart = {star["auid"]: star for star in vsp_chart(field)["photometry"]}
    bands = {auid: {b["band"] for b in star["bands"]} for auid, star in chart.items()}
    for auid, kinds in field.kinds.items():
        for band in ("B", "V"):
            assert (band in bands[auid]) == (f"no_{band}" not in kinds)
        assert ("comment" in kinds) == bool(chart[auid]["comments"])
        assert ("no_error" in kinds) == any(b["error"] is None for b in chart[auid]["bands"])


def test_a_chart_ends_at_its_limits(field):
    assert len(vsp_chart(field, fov_arcmin=8.0)["photometry"]) < len(field.comps)
    bright = vsp_chart(field, maglimit=12.5)["photometry"]
    true = {comp.auid: comp.mags["V"] for comp in field.comps}
    assert {s["auid"] for s in bright} == {auid for auid, mag in true.items() if mag <= 12.5}


@pytest.mark.parametrize(("v_mag", "label"), [(8.204, "82"), (10.935, "109"), (8.998, "90")])
def test_labels_are_magnitudes_without_the_point(field, v_mag, label):
    """V and label of three stars of real charts: XZ Cyg (X37313LN) and M42 (X42585ESI)."""
    first: Star = field.comps[0]
    known = dict(first.catalogue)
    known["V"] = dataclasses.replace(known["V"], mag=v_mag)
    comp = dataclasses.replace(first, catalogue=known)
    chart = vsp_chart(dataclasses.replace(field, comps=(comp,)))
    assert chart["photometry"][0]["label"] == label


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [
        (293.122125 / 15, 2, "19:32:29.31"),  # XZ Cyg, as VSP writes it
        (56.388194, 1, "56:23:17.5"),
        (-320.1 / 3600, 1, "-00:05:20.1"),
        (0.999999999, 1, "01:00:00.0"),
        (-1e-9, 1, "00:00:00.0"),
    ],
)
def test_sexagesimal_numbers(value, decimals, text):
    assert sexagesimal(value, decimals=decimals) == text


@given(st.floats(-90, 90))
def test_sexagesimal_comes_back_to_half_its_last_digit(value):
    text = sexagesimal(value, decimals=1)
    degrees, minutes, seconds = (float(part) for part in text.lstrip("-").split(":"))
    back = (degrees + minutes / 60 + seconds / 3600) * (-1 if text.startswith("-") else 1)
    assert abs(back - value) <= 0.0500001 / 3600


def test_the_star_table_is_the_field_brightest_first(field, tmp_path):
    table = star_table(field)
    assert len(table) == len(field.stars)
    assert (np.diff(table.mag) >= 0).all()
    path = tmp_path / "catalogs" / "stars.csv"
    write_star_table_csv(field, path)
    read = np.genfromtxt(path, delimiter=",", names=True)
    assert read.dtype.names == ("ra_deg", "dec_deg", "mag")
    # Seven decimals of a degree are a third of a milliarcsecond.
    assert read["ra_deg"] == pytest.approx(table.ra_deg, abs=1e-7)
    assert read["dec_deg"] == pytest.approx(table.dec_deg, abs=1e-7)
