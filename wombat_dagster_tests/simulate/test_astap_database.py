"""The star database: its bytes by the documented layout, and the real ASTAP reading it."""

import datetime as dt
import shutil
import subprocess

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from wombat_dagster.domain import Site
from wombat_dagster.simulate.astap_database import (
    encode_tile,
    write_astap_database,
    write_wide_database,
)
from wombat_dagster.simulate.night import simulate_night
from wombat_dagster.simulate.sky import Telescope, random_field, star_table


def read_tile(data):
    """Read a tile record by record, as ASTAP does."""
    assert data[109] == 5
    stars, high, tenths = [], None, None
    for at in range(110, len(data), 5):
        record = data[at : at + 5]
        ra = record[0] | record[1] << 8 | record[2] << 16
        if ra == 0xFFFFFF:
            high, tenths = record[3] - 128, record[4] - 16
            continue
        dec = high * 65536 + record[4] * 256 + record[3]
        stars.append((ra * 360 / (2**24 - 1), dec * 90 / (2**23 - 1), tenths / 10))
    return np.array(stars)


def test_stars_come_back_bright_first():
    """To half a unit: 0.04 arcsec in RA, 0.02 in declination, 0.05 mag."""
    rng = np.random.default_rng(1)
    ra, dec = rng.uniform(0, 360, 300), rng.uniform(-90, 90, 300)
    mag = rng.uniform(2, 18, 300)
    data = encode_tile(ra, dec, mag, title="é, a title that is much too long" * 9)
    stars = read_tile(data)
    assert (np.diff(stars[:, 2]) >= 0).all()
    assert len(stars) == 300
    for ra_0, dec_0, mag_0 in zip(ra, dec, mag, strict=True):
        apart = np.abs(stars - [ra_0, dec_0, mag_0])
        assert ((apart <= [1.1e-5, 5.5e-6, 0.0501]).all(axis=1)).sum() == 1


def test_an_empty_tile_is_a_bare_header():
    none = np.array([])
    assert len(encode_tile(none, none, none, title="empty")) == 110


def test_every_tile_of_the_search_circle_exists_and_the_first(tmp_path):
    """Stars on either side of RA 0 land in the ring's first and last cell."""
    ra, dec, mag = np.array([0.2, 359.8, 120.0]), np.array([1.0, 1.0, 1.0]), np.array([9, 10, 11.0])
    n_files = write_astap_database(tmp_path, ra, dec, mag, field=(0.0, 1.0, 2.0))
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(files) == n_files
    assert len(files["h18_0101.1476"]) == 110
    # Ring 19 begins at the equator, going north; it has 69 cells.
    assert len(read_tile(files["h18_1901.1476"])) == 1
    assert len(read_tile(files["h18_1969.1476"])) == 1
    # 10 degrees around (0, 1): cells of 5.2 degrees, so at least two to each side in four rings.
    for ring in (17, 18, 19, 20):
        assert f"h18_{ring}02.1476" in files
    assert sum(len(data) > 110 for data in files.values()) == 2  # the third star is too far


def test_the_set_for_wider_fields_has_290_tiles_of_equal_area(tmp_path):
    """Ring 10 begins at the equator, 32 cells of 11.25 degrees; the cap is one 289th above it."""
    cap_deg = np.degrees(np.arcsin(288 / 289))
    ra = np.array([0.2, 359.8, 100.0, 100.0])
    dec = np.array([1.0, 1.0, cap_deg + 0.01, cap_deg - 0.01])
    everywhere = (0.0, 0.0, 180.0)
    n_files = write_astap_database(
        tmp_path, ra, dec, np.array([9.0, 9, 9, 9]), field=everywhere, tiles="290"
    )
    assert n_files == 290
    filled = {path.name for path in tmp_path.iterdir() if path.stat().st_size > 110}
    assert filled == {"g18_1001.290", "g18_1032.290", "g18_1801.290", "g18_1702.290"}


def test_the_file_for_very_wide_fields_is_one_for_the_whole_sky(tmp_path):
    """Floats of 32 bits: 1e-5 degrees at most."""
    ra, dec, mag = np.array([10.0, 350.0, 20.0]), np.array([-80.0, 5.0, 0.0]), np.array([7, 2.5, 9])
    assert write_wide_database(tmp_path, ra, dec, mag) == 2  # to 8.0
    content = (tmp_path / "w08_0101.001").read_bytes()
    assert int.from_bytes(content[:4], "little") == 2
    stars = np.frombuffer(content, "<f4", offset=4).reshape(2, 3)
    np.testing.assert_allclose(stars[:, 0], [25.0, 70.0])
    np.testing.assert_allclose(np.degrees(stars[:, 1:]), [[350, 5], [10, -80]], atol=2e-5)


@pytest.mark.needs_astap
@pytest.mark.skipif(shutil.which("astap_cli") is None, reason="astap_cli is not on PATH")
@pytest.mark.parametrize(
    ("mirrored", "dec_deg", "scale"), [(False, 38.1, 1.5), (True, 61.0, 2.0), (False, 5.3, 1.3)]
)
def test_the_real_astap_solves_a_simulated_frame(tmp_path, mirrored, dec_deg, scale):
    """To less than a pixel at the centre; 0.3 degrees and more along the longer side."""
    scope = Telescope(
        width_px=900, height_px=640, scale_arcsec_px=scale, mirrored=mirrored, rotation_deg=-17.0
    )
    field = random_field(4, telescope=scope, ra_deg=335.2, dec_deg=dec_deg)
    truth = simulate_night(
        tmp_path,
        field=field,
        telescope=scope,
        date=dt.date(2025, 10, 14),
        site=Site(latitude_deg=41.31, longitude_deg=-72.92),
        seed=1,
        n_lights=1,
        n_bias=0,
        n_flats=0,
    )
    stars = star_table(field)
    write_astap_database(
        tmp_path / "astap",
        stars.ra_deg,
        stars.dec_deg,
        stars.mag,
        field=(field.ra_deg, field.dec_deg, 1.0),
    )
    frame = truth.frames[0]
    done = subprocess.run(
        [
            *("astap_cli", "-f", str(tmp_path / "data" / truth.night / frame.file)),
            *("-o", str(tmp_path / "out"), "-wcs", "-fov", f"{640 * scale / 3600:.4f}"),
            *("-ra", f"{field.ra_deg / 15 + 0.01:.5f}", "-spd", f"{dec_deg + 90 - 0.1:.4f}"),
            *("-r", "5", "-d", str(tmp_path / "astap")),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    ini = (tmp_path / "out.ini").read_text(encoding="latin-1")
    assert "PLTSOLVD=T" in ini, done.stdout[-500:]
    found = dict(line.split("=", 1) for line in ini.splitlines() if "=" in line)
    x, y = WCS(fits.Header(frame.wcs)).all_world2pix(
        float(found["CRVAL1"]), float(found["CRVAL2"]), 0
    )
    assert np.hypot(x - (900 - 1) / 2, y - (640 - 1) / 2) < 1.0
    determinant = float(found["CD1_1"]) * float(found["CD2_2"]) - (
        float(found["CD1_2"]) * float(found["CD2_1"])
    )
    assert (determinant > 0) == mirrored
