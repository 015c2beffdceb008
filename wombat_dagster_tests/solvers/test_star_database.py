"""ASTAP's tiles decoded from bytes set by hand, the tiling, and CSV tables."""

import os
from pathlib import Path

import numpy as np
import pytest

from wombat_dagster.simulate.astap_database import write_astap_database, write_wide_database
from wombat_dagster.solvers import star_database
from wombat_dagster.solvers.star_database import (
    TILINGS,
    database_set,
    decode_tile,
    examine_set,
    read_star_database,
    read_star_table_csv,
    set_for_field,
)

HEADER = b"by hand".ljust(109) + bytes([5])


def mark(dec_high, mag):
    return bytes([255, 255, 255, dec_high + 128, round(10 * mag) + 16])


def star(ra_units, dec_low):
    return ra_units.to_bytes(3, "little") + dec_low.to_bytes(2, "little")


def tile(*stars):
    """Return a tile of (RA, Dec, mag) by the layout's own words."""
    content = HEADER
    for ra_deg, dec_deg, mag in stars:
        dec_units = round(dec_deg / 90 * (2**23 - 1))
        content += mark(dec_units >> 16, mag)
        content += star(round(ra_deg / 360 * (2**24 - 1)), dec_units & 0xFFFF)
    return content


def test_a_tile_by_hand():
    """Dec units 64 << 16 + 5 and -1 << 16 + 65535 = -1; RA half and quarter of 2**24 - 1."""
    content = HEADER + mark(64, 9.3) + star(8388607, 5) + star(4194304, 6) + mark(-1, -1.0)
    content += star(0, 65535)
    ra, dec, mag = decode_tile(content)
    np.testing.assert_allclose(ra, [180.0, 90.0, 0.0], atol=3e-5)
    units = np.array([64 * 65536 + 5, 64 * 65536 + 6, -1])
    np.testing.assert_allclose(dec, units * 90.0 / 8388607)
    np.testing.assert_allclose(mag, [9.3, 9.3, -1.0])


def test_an_empty_tile_has_no_stars_and_a_broken_one_says_why():
    assert len(decode_tile(HEADER)[0]) == 0
    with pytest.raises(ValueError, match="at least 110"):
        decode_tile(b"short")
    with pytest.raises(ValueError, match="records of 11 bytes"):
        decode_tile(b"x" * 109 + bytes([11]))


@pytest.mark.parametrize(("suffix", "n_tiles"), [("290", 290), ("1476", 1476)])
def test_the_whole_sky_is_all_tiles_once(suffix, n_tiles):
    tiles = list(TILINGS[suffix].tiles(10.0, 20.0, 180.0))
    assert len(tiles) == len(set(tiles)) == n_tiles
    assert len(TILINGS[suffix].edges_deg) == len(TILINGS[suffix].cells) + 1
    assert np.all(np.diff(TILINGS[suffix].edges_deg) > 0)


def test_tiles_across_right_ascension_zero_and_at_the_pole():
    """The equator's northern ring of .1476 is the 19th, 69 cells; the last one is the 36th."""
    assert sorted(TILINGS["1476"].tiles(0.5, 2.0, 1.0)) == ["1901", "1969"]
    assert list(TILINGS["1476"].tiles(77.0, 89.5, 1.0)) == ["3601"]


def test_stars_of_a_circle_come_brightest_first(tmp_path):
    """HAT-P-32's place: Dec 46.77 is ring 19 + 9, RA 31.3 cell 4 of its 43 (8.37 degrees each)."""
    (tmp_path / "h18_0101.1476").write_bytes(HEADER)
    stars = [(31.5, 46.5, 12.0), (31.0, 46.9, 9.5), (31.2, 46.8, 15.0), (33.0, 46.8, 7.0)]
    (tmp_path / "h18_2804.1476").write_bytes(tile(*stars))
    circle = {"ra_deg": 31.3, "dec_deg": 46.77, "radius_deg": 1.0}
    table = read_star_database(tmp_path, **circle)
    np.testing.assert_allclose(table.mag, [9.5, 12.0, 15.0])
    np.testing.assert_allclose(table.ra_deg, [31.0, 31.5, 31.2], atol=2e-5)
    np.testing.assert_allclose(table.dec_deg, [46.9, 46.5, 46.8], atol=1e-5)
    assert table.name == "ASTAP h18.1476"
    assert len(read_star_database(tmp_path, **circle, max_mag=12.5)) == 2
    assert len(read_star_database(tmp_path, ra_deg=200.0, dec_deg=0.0, radius_deg=1.0)) == 0


def test_a_folder_without_database_is_not_empty_sky(tmp_path):
    assert database_set(tmp_path) is None
    with pytest.raises(FileNotFoundError, match="no ASTAP star database"):
        read_star_database(tmp_path, ra_deg=0.0, dec_deg=0.0, radius_deg=1.0)


@pytest.fixture(scope="module", name="whole_sky")
def _whole_sky(tmp_path_factory):
    """30 000 stars all over the sky in sets of all three kinds."""
    rng = np.random.default_rng(5)
    ra, dec = rng.uniform(0, 360, 30_000), np.degrees(np.arcsin(rng.uniform(-1, 1, 30_000)))
    mag = np.sort(12.0 + np.log10(rng.uniform(1e-4, 1, 30_000)) / 0.5)
    folder = tmp_path_factory.mktemp("sky")
    everywhere = (0.0, 0.0, 180.0)
    write_astap_database(folder / "1476", ra, dec, mag, field=everywhere)
    write_astap_database(folder / "290", ra, dec, mag, field=everywhere, tiles="290")
    write_wide_database(folder / "w08", ra, dec, mag, max_mag=99.0)
    return folder, ra, dec, mag


@pytest.mark.parametrize("kind", ["1476", "290", "w08"])
@pytest.mark.parametrize(("ra_deg", "dec_deg"), [(0.1, 2.0), (77.0, 88.0), (200.0, -70.0)])
def test_a_wide_circle_holds_the_same_stars_whatever_the_set(whole_sky, kind, ra_deg, dec_deg):
    """By spherical trigonometry on the stars themselves."""
    folder, ra, dec, mag = whole_sky
    d_ra = np.radians(ra - ra_deg)
    cosine = np.sin(np.radians(dec)) * np.sin(np.radians(dec_deg)) + np.cos(
        np.radians(dec)
    ) * np.cos(np.radians(dec_deg)) * np.cos(d_ra)
    inside = np.degrees(np.arccos(cosine)) <= 40.0
    circle = {"ra_deg": ra_deg, "dec_deg": dec_deg, "radius_deg": 40.0}
    table = read_star_database(folder / kind, **circle)
    assert len(table) == pytest.approx(inside.sum(), abs=2)  # rounding on the rim
    np.testing.assert_allclose(table.mag[:50], mag[inside][:50], atol=0.0501)
    few = read_star_database(folder / kind, **circle, max_stars=300)
    np.testing.assert_array_equal(few.mag, table.mag[:300])
    np.testing.assert_array_equal(few.ra_deg, table.ra_deg[:300])


def test_the_brightest_are_had_without_reading_the_whole_set(whole_sky, monkeypatch):
    folder, *_ = whole_sky
    read = []

    def decode(content):
        read.append(len(content) - 110)
        return decode_tile(content)

    monkeypatch.setattr(star_database, "decode_tile", decode)
    circle = {"ra_deg": 10.0, "dec_deg": 0.0, "radius_deg": 40.0}
    read_star_database(folder / "290", **circle)
    whole = sum(read)
    read.clear()
    read_star_database(folder / "290", **circle, max_stars=100)
    assert sum(read) < 0.25 * whole


def test_a_small_circle_in_a_large_tile_is_read_to_its_faintest_star(whole_sky):
    folder, *_ = whole_sky
    circle = {"ra_deg": 10.0, "dec_deg": 0.0, "radius_deg": 2.0}
    table = read_star_database(folder / "290", **circle)
    assert 5 < len(table) < 60
    assert len(read_star_database(folder / "290", **circle, max_stars=1000)) == len(table)


@pytest.mark.parametrize(
    ("fov_deg", "name"), [(1.0, "h18"), (6.0, "h18"), (6.1, "g18"), (20.0, "g18"), (20.1, "w08")]
)
def test_the_set_for_a_field_is_that_of_its_width(whole_sky, tmp_path, fov_deg, name):
    """PLATE_SOLVING section 1: w08 above 20 degrees, .290 above 6."""
    folder, *_ = whole_sky
    for kind in ("1476", "290", "w08"):
        for path in (folder / kind).glob("*_0101.*"):
            (tmp_path / path.name).write_bytes(path.read_bytes())
    assert set_for_field(tmp_path, fov_deg) == name
    assert set_for_field(folder / "1476", fov_deg) == "h18"
    assert set_for_field(tmp_path / "nowhere", fov_deg) is None


def test_w08_serves_circles_beyond_20_degrees_beside_a_deep_set(whole_sky, tmp_path):
    folder, *_ = whole_sky
    for kind in ("1476", "w08"):
        for path in (folder / kind).iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    circle = {"ra_deg": 10.0, "dec_deg": 0.0, "max_stars": 100}
    assert read_star_database(tmp_path, **circle, radius_deg=40.0).name == "ASTAP w08"
    assert read_star_database(tmp_path, **circle, radius_deg=10.0).name == "ASTAP h18.1476"


def test_what_is_in_a_folder_is_told(whole_sky, tmp_path):
    folder, *_ = whole_sky
    whole = examine_set(folder / "1476")
    assert (whole.name, whole.n_tiles, whole.is_whole_sky, whole.problem) == (
        "h18", 1476, True, "",
    )  # fmt: skip
    assert examine_set(folder / "w08").words == f"w08 in {folder / 'w08'}"
    (tmp_path / "w08_0101.001").write_bytes(bytes(4))
    assert "no stars in it" in examine_set(tmp_path).problem
    assert "no such folder" in examine_set(tmp_path / "nowhere").problem


@pytest.mark.parametrize("column", ["mag", "VT", "Vmag"])
def test_a_csv_table_whatever_its_magnitude_is_called(tmp_path, column):
    path = tmp_path / "stars.csv"
    path.write_text(
        f"# Tycho-2\nra_deg,dec_deg,{column}\n10.5,-3.25,9.1\n,1,2\n370.0,5.0,x\n11,4,8\n"
    )
    table = read_star_table_csv(path)
    np.testing.assert_allclose(table.ra_deg, [10.5, 11.0])
    np.testing.assert_allclose(table.dec_deg, [-3.25, 4.0])
    np.testing.assert_allclose(table.mag, [9.1, 8.0])


def test_a_csv_without_positions_is_refused(tmp_path):
    path = tmp_path / "stars.csv"
    path.write_text("name,mag\nx,1\n")
    with pytest.raises(ValueError, match="wanted ra_deg, dec_deg, mag"):
        read_star_table_csv(path)


@pytest.mark.skipif(
    "WOMBAT_REFERENCE_DATA" not in os.environ, reason="WOMBAT_REFERENCE_DATA is not set"
)
def test_the_reference_table_is_read():
    path = Path(os.environ["WOMBAT_REFERENCE_DATA"]) / "catalogs" / "tycho2_hatp32.csv"
    table = read_star_table_csv(path)
    assert len(table) == 295
    assert table.mag.min() == pytest.approx(6.608)
