"""ASTAP's tiles decoded from bytes set by hand, the tiling, and CSV tables."""

import os
from pathlib import Path

import numpy as np
import pytest

from wombat_dagster.solvers.star_database import (
    TILINGS,
    database_set,
    decode_tile,
    read_star_database,
    read_star_table_csv,
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
