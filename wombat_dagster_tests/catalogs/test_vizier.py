"""Catalogue stars in place of a chart: what is asked, which stars are fit, how VizieR can fail."""

import datetime as dt
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from hypothesis import given
from hypothesis import strategies as st

from wombat_dagster.catalogs.base import Pace
from wombat_dagster.catalogs.breaker import away
from wombat_dagster.catalogs.clock import Clock
from wombat_dagster.catalogs.vizier import (
    BIN_MAG,
    CATALOGUES,
    FROM_PAN_STARRS,
    FROM_SLOAN,
    N_PER_BIN,
    Vizier,
    _as_rows,
    star_id,
)
from wombat_dagster.config import AavsoSettings
from wombat_dagster.domain import BandMagnitude, VspUnavailable
from wombat_dagster.simulate.aavso import StandInAavso, sexagesimal

GOLDEN = Path(__file__).parents[1] / "golden" / "aavso"
XZ_CYG = json.loads((GOLDEN / "vsp_chart_XZ_Cyg_X37313LN.json").read_text())
RA, DEC = 293.12213, 56.38819
BOTH = pytest.mark.parametrize("catalogue", ["apass", "refcat2"])
AUID = re.compile(r"\d{3}-\w{3}-\d{3}")


class Sky:
    """A stand-in, and clients of it that wait for nothing and share a cache directory."""

    def __init__(self, server, cache):
        self.server, self.cache = server, cache
        self.now = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)

    def vizier(self, catalogue="apass", **settings):
        settings = {"timeout_s": 5, "min_interval_s": 0, **settings}
        return Vizier(
            AavsoSettings(vizier_url=self.server.vizier_url, **settings),
            self.cache,
            catalogue,
            clock=Clock(monotonic_s=lambda: 0.0, sleep=lambda _: None, now_utc=lambda: self.now),
            pace=Pace(),
        )

    def chart(self, catalogue="apass", fov=60.0, maglimit=16.5):
        return self.vizier(catalogue).chart(RA, DEC, fov, maglimit)

    @property
    def asked(self):
        return self.server.requests["vizier"]


@pytest.fixture
def sky(tmp_path):
    with StandInAavso(comps=XZ_CYG["photometry"]) as server:
        yield Sky(server, tmp_path)


@pytest.fixture(scope="module")
def real():
    """Return rows of real answers, as astropy wrote them."""

    def rows(catalogue):
        name = {"apass": "II_336_apass9", "refcat2": "refcat2"}[catalogue]
        table = Table.read(GOLDEN / f"vizier_{name}_sample.ecsv")
        return _as_rows(table, CATALOGUES[catalogue].columns)

    return rows


# ------------------------------------------------------------------------------------ what is asked


@BOTH
def test_stars_come_by_real_http_and_agree_with_the_chart_within_their_errors(sky, catalogue):
    """The stand-in goes from the chart's B, V, Rc, Ic to its catalogues by other relations.

    Those of Jester et al. (2005), by which it makes APASS's r' and i', have a scatter of 0.03 mag.
    """
    chart = sky.chart(catalogue)
    title = {"apass": "APASS DR9", "refcat2": "ATLAS-REFCAT2"}[catalogue]
    assert (chart.chart_id, chart.source) == (title, f"{title} (VizieR)")
    assert len(chart.chart_id) <= 20  # of an AAVSO report
    assert "in place of VSP's" in chart.notes[0]
    truth = {(entry["ra"], entry["dec"]): entry for entry in XZ_CYG["photometry"]}
    assert len(chart.stars) >= 4
    for star in chart.stars:
        place = sexagesimal(star.ra_deg / 15.0, 2), sexagesimal(star.dec_deg, 1)
        known = {band["band"]: band["mag"] for band in truth[place]["bands"]}
        assert {"B", "V", "Rc", "Ic"} <= star.bands.keys()
        for band in ("B", "V", "Rc", "Ic"):
            value = star.bands[band]
            scatter = 0.03 if catalogue == "apass" and band in ("Rc", "Ic") else 0.0
            limit = 2.0 * np.hypot(value.error_mag, scatter)
            assert value.mag == pytest.approx(known[band], abs=limit), (place, band)
            assert value.error_mag > 0
        assert not AUID.fullmatch(star.auid)
        assert len(star.auid) <= 20


def test_astroquery_asks_for_our_columns_without_a_limit_of_rows(sky):
    sky.chart(fov=22.0)
    (_, asked), *more = sky.server.queries
    assert not more
    assert asked["-source"] == "II/336/apass9"
    assert asked["-out.max"] == "unlimited"
    assert set(asked["-out"].split(",")) == set(CATALOGUES["apass"].columns)
    assert asked["Vmag"] == "<16.5"
    assert (asked["-c"], asked["-c.rm"]) == ("293.12200000+56.38800000", "15.0")


def test_a_field_wider_than_a_degree_asks_for_a_degree(sky):
    sky.chart(fov=180.0)
    assert sky.server.queries[0][1]["-c.rm"] == "30.0"


def test_more_stars_come_than_vizier_gives_unasked(tmp_path):
    """Of 200 stars, 12 stay of each half magnitude: the ones nearest to the centre."""
    rng = np.random.default_rng(5)
    comps = []
    for number in range(200):
        ra_deg, dec_deg = RA + rng.uniform(-0.4, 0.4), DEC + rng.uniform(-0.2, 0.2)
        mags = {"V": 12.0 + 3.0 * number / 200, "B": 12.6 + 3.0 * number / 200}
        comps.append(
            {
                "auid": f"000-{number:03d}",
                "ra": sexagesimal(ra_deg / 15.0, 2),
                "dec": sexagesimal(dec_deg, 1),
                "bands": [{"band": b, "mag": round(m, 3), "error": 0.02} for b, m in mags.items()],
            }
        )
    with StandInAavso(comps=comps) as server:
        chart = Sky(server, tmp_path).chart()
    counts = {}
    for star in chart.stars:
        key = int(star.bands["V"].mag // BIN_MAG)
        counts[key] = counts.get(key, 0) + 1
    assert counts == dict.fromkeys(range(24, 30), N_PER_BIN)
    far = max(np.hypot((s.ra_deg - RA) * 0.5535, s.dec_deg - DEC) for s in chart.stars)
    assert far < 0.25  # of 0.30


def test_what_came_is_kept_for_good_and_serves_smaller_fields(sky):
    first = sky.chart(fov=60.0)
    sky.now += dt.timedelta(days=4000)
    sky.server.fail("vizier", "500")
    assert sky.chart(fov=60.0) == first
    assert sky.chart(fov=20.0) == first
    assert sky.asked == 1
    with pytest.raises(VspUnavailable):
        sky.chart("refcat2")  # another catalogue


def test_a_field_without_stars_is_an_answer_that_is_not_kept(sky):
    sky.server.fail("vizier", "valid-empty")
    assert sky.chart().stars == ()
    sky.server.fail("vizier", "none")
    assert len(sky.chart().stars) >= 4


def test_astroquery_writes_nothing_at_home(sky, tmp_path, monkeypatch):
    home = tmp_path / "home"
    home.mkdir()
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "USERPROFILE"):
        monkeypatch.setenv(name, str(home))
    sky.chart()
    assert [path for path, _, files in os.walk(home) if files] == []


@pytest.mark.parametrize("proxy", ["http_proxy", "ALL_PROXY"])
def test_a_proxy_of_the_environment_is_not_asked_for_this_machine(sky, monkeypatch, proxy):
    monkeypatch.setenv(proxy, "http://127.0.0.1:9")
    assert len(sky.chart().stars) >= 4


# ----------------------------------------------------------------------------------------- outages


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        ("500", "HTTP 500"),
        ("403", "HTTP 403"),
        ("429", "HTTP 429"),
        ("html", "not a whole VOTable"),
        ("empty-body", "not a whole VOTable"),
        ("cut", "not a whole VOTable"),
        ("refused", "Connection"),
        ("database", "VizieR says: The database is not currently reachable"),
    ],
)
def test_an_outage_is_retried_then_known_and_never_an_empty_field(sky, failure, words):
    sky.server.fail("vizier", failure)
    with pytest.raises(VspUnavailable, match=rf"VizieR away at 2026-11-21T.*: {words}"):
        sky.chart()
    assert sky.asked == 4
    with pytest.raises(VspUnavailable, match=rf"VizieR is away since 2026-11-21T.*{words}"):
        sky.chart("refcat2")
    assert sky.asked == 4
    assert away(sky.cache, "VSP") is None  # another service
    sky.server.fail("vizier", "none")
    assert sky.vizier().probe()
    assert len(sky.chart().stars) >= 4


def test_a_vizier_that_hangs_is_given_up(sky):
    sky.server.fail("vizier", "hang")
    with pytest.raises(VspUnavailable, match="ReadTimeout"):
        sky.vizier(timeout_s=0.2, retries=0).chart(RA, DEC, 60.0, 16.5)


def test_an_answer_that_trickles_in_is_cut_at_the_time_out(sky):
    """requests' own limit is on each read; here the clock jumps while the body is read."""
    ticks = iter(range(0, 10_000, 100))
    vizier = sky.vizier(timeout_s=30, retries=0, patience_s=1e6)
    vizier._clock = Clock(monotonic_s=lambda: float(next(ticks)), now_utc=lambda: sky.now)
    with pytest.raises(VspUnavailable, match="time-out in the middle"):
        vizier.chart(RA, DEC, 60.0, 16.5)


# ------------------------------------------------------------------------------------- fit stars


def test_real_stars_of_apass_are_chosen_by_their_flags(real):
    """By hand from the recorded rows: V 11.404 is fit; 15.012 has e_V 0.28, 17.024 two nights."""
    stars = {star.label: star for star in CATALOGUES["apass"].stars(real("apass"))}
    star = stars["114"]
    assert star.auid == "APASS_0902587+494424"  # 135.744601 +49.740189
    assert star.bands["V"] == BandMagnitude(mag=11.404, error_mag=0.022)
    assert star.bands["SR"] == BandMagnitude(mag=11.255, error_mag=0.027)
    assert "SG" not in star.bands  # e_g' is 0.113
    assert "Rc" not in star.bands  # needs g' - r'
    mags = [star.bands["V"].mag for star in stars.values()]
    assert 15.012 not in mags
    assert 17.024 not in mags
    assert 16.698 not in mags  # flagged: seen once, its error is 0


def test_a_band_whose_error_is_zero_is_not_known(real):
    (row,) = [row for row in real("apass") if row["Vmag"] == 16.419]
    assert row["e_Bmag"] == 0.0
    (star,) = CATALOGUES["apass"].stars([row])
    assert "B" not in star.bands


def test_real_stars_of_refcat2_are_neither_variable_nor_doubled_nor_blended(real):
    """``dupvar`` 5 is a variable duplicate; ``rp1`` 1.8" is a blend; both are in the sample."""
    rows = real("refcat2")
    fit = {star.auid for star in CATALOGUES["refcat2"].stars(rows)}
    assert fit
    for row in rows:
        name = star_id("REFC2", row["RA_ICRS"], row["DE_ICRS"])
        assert name not in fit or (row["dupvar"] in (0, 2) and row["rp1"] >= 10)
    assert {5} <= {row["dupvar"] for row in rows}


@pytest.mark.parametrize(
    "change",
    [
        {"dupvar": 1}, {"dupvar": 4}, {"dupvar": None}, {"e_pmRA": None}, {"rp1": 3.0},
        {"rmag": None}, {"e_gmag": 0.2}, {"gmag": 18.0}, {"gmag": 5.0, "rmag": 4.8, "imag": 4.7},
    ],
)  # fmt: skip
def test_an_unfit_star_of_refcat2_is_left_out(change):
    row = {"RA_ICRS": 10.0, "DE_ICRS": -5.0, "e_pmRA": 0.1, "dupvar": 2, "rp1": 99.9}
    row |= {"gmag": 14.5, "rmag": 14.0, "imag": 13.8}
    row |= {"e_gmag": 0.01, "e_rmag": 0.01, "e_imag": 0.01}
    stars = CATALOGUES["refcat2"].stars
    assert len(stars([row])) == 1
    assert stars([row | change]) == []


@pytest.mark.parametrize(
    "change", [{"nobs": 2}, {"u_e_Vmag": 1}, {"e_Vmag": 0.15}, {"Vmag": 9.5}, {"Vmag": None}]
)
def test_an_unfit_star_of_apass_is_left_out(real, change):
    (row,) = [row for row in real("apass") if row["Vmag"] == 11.404]
    stars = CATALOGUES["apass"].stars
    assert len(stars([row])) == 1
    assert stars([row | change]) == []


def test_rows_of_apass_that_stand_together_are_left_out_both(real):
    (row,) = [row for row in real("apass") if row["Vmag"] == 11.404]
    stars = CATALOGUES["apass"].stars
    assert stars([row, row | {"DEJ2000": row["DEJ2000"] + 4 / 3600}]) == []
    assert len(stars([row, row | {"DEJ2000": row["DEJ2000"] + 14 / 3600}])) == 2


# --------------------------------------------------------------------------------- transformations


def bands(**mags):
    return {band: BandMagnitude(mag=mag, error_mag=0.01) for band, mag in mags.items()}


def test_pan_starrs_to_johnson_cousins_by_hand():
    """g 15.0, r 14.5, i 14.3, x = 0.5.

    B = 15 + .212 + .278 + .0085, V = 14.5 + .005 + .231 + .00325,
    Rc = 14.5 - .137 - .054 - .00725, Ic = 14.3 - .366 - .068 - .0045.
    """
    got = {b: p.apply(bands(g=15.0, r=14.5, i=14.3)).mag for b, p in FROM_PAN_STARRS.items()}
    assert got == pytest.approx(
        {"B": 15.4985, "V": 14.7393, "Rc": 14.3018, "Ic": 13.8615}, abs=1e-4
    )


def test_both_published_ways_to_v_agree_within_their_scatter():
    """Tonry et al. (2012) give V - g as well: 0.005 - 0.536 x + 0.011 x², scatter 0.012."""
    for colour in np.linspace(-0.2, 1.2, 15):
        v = FROM_PAN_STARRS["V"].apply(bands(g=15.0 + colour, r=15.0)).mag
        other = 15.0 + colour + 0.005 - 0.536 * colour + 0.011 * colour**2
        assert v == pytest.approx(other, abs=2 * 0.012)


def test_the_scatter_is_in_the_error():
    """B = g + 0.556 (g - r) + …: at x = 0 its error is √((1.556 e)² + (0.556 e)² + 0.032²)."""
    got = FROM_PAN_STARRS["B"].apply(bands(g=15.0, r=15.0))
    assert got.error_mag == pytest.approx(np.sqrt(0.01556**2 + 0.00556**2 + 0.032**2), abs=1e-4)
    got = FROM_SLOAN["Rc"].apply(bands(r=15.0, i=14.8))
    assert got.error_mag == pytest.approx(np.sqrt(0.007064**2 + 0.002936**2 + 0.0072**2), abs=1e-4)


def test_sloan_to_cousins_by_hand():
    """r 14.5, i 14.3: Rc = 14.5 - 0.05872 - 0.1439, Ic = 14.5 - 0.24888 - 0.3820."""
    got = {band: p.apply(bands(r=14.5, i=14.3)).mag for band, p in FROM_SLOAN.items()}
    assert got == pytest.approx({"Rc": 14.2974, "Ic": 13.8691}, abs=1e-4)


def test_a_transformation_without_its_bands_gives_nothing():
    assert FROM_PAN_STARRS["Ic"].apply(bands(g=15.0, r=14.5)) is None


# -------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("ra_deg", "dec_deg", "name"),
    [
        (90.301250, -15.209722, "APASS_0601123-151234"),
        (0.0, 0.0, "APASS_0000000+000000"),
        (359.99999, -0.0003, "APASS_2359599-000001"),
    ],
)
def test_a_star_is_called_by_its_place(ra_deg, dec_deg, name):
    """By hand: 90.30125 deg are 06 01 12.30, 15.209722 deg are 15 12 34.999, and names are cut."""
    assert star_id("APASS", ra_deg, dec_deg) == name


@given(ra_deg=st.floats(0, 360), dec_deg=st.floats(-90, 90))
def test_no_name_is_taken_for_an_auid_and_all_fit_a_report(ra_deg, dec_deg):
    for prefix in ("APASS", "REFC2"):
        name = star_id(prefix, ra_deg, dec_deg)
        assert re.fullmatch(prefix + r"_\d{7}[+-]\d{6}", name)
        assert not AUID.search(name)
