"""Fields of 0.5 to 30 degrees anywhere on the sky, under headers that are wrong in usual ways.

A made-up sky, evenly strewn, behind real database files; frames by the simulator's camera, the
truth by astropy's WCS. The thirty fields of ``benchmarks/fields.py`` in small.
"""

import shutil
from dataclasses import dataclass, replace

import numpy as np
import pytest
from astropy.io import fits

from wombat_dagster.domain import SolveStatus, StarTable, WcsSolution
from wombat_dagster.science.detection import detect_stars
from wombat_dagster.simulate.astap_database import write_astap_database, write_wide_database
from wombat_dagster.simulate.camera import add_stars
from wombat_dagster.simulate.sky import Telescope
from wombat_dagster.solvers.astap import find_astap
from wombat_dagster.solvers.base import SolveRequest
from wombat_dagster.solvers.catalogue import CatalogueSolver
from wombat_dagster.solvers.ladder import solve_frame
from wombat_dagster.solvers.star_database import StarDatabase

WIDTH_PX, HEIGHT_PX = 1000, 760
WHOLE_SKY_STARS = 60_000  # 1.5 per square degree
NEAR_STARS_PER_DEG2 = 400.0
NARROW_BELOW_DEG = 5.0
MOST_DRAWN = 250


@dataclass(frozen=True)
class Field:
    """Where a frame points, how it lies, and how far its header is off."""

    height_deg: float
    ra_deg: float
    dec_deg: float
    turn_deg: float
    mirrored: bool = False
    north_deg: float = 0.0  # of the header's error
    scale_factor: float | None = 1.0  # None: no scale in the header
    in_hours: bool = False

    @property
    def truth(self):
        angle = np.radians(self.turn_deg)
        scale = np.degrees(2 * np.tan(np.radians(self.height_deg / 2))) / HEIGHT_PX
        across = scale if self.mirrored else -scale
        return WcsSolution(
            ra_deg=self.ra_deg,
            dec_deg=self.dec_deg,
            crpix_x=(WIDTH_PX + 1) / 2,
            crpix_y=(HEIGHT_PX + 1) / 2,
            cd11=across * np.cos(angle),
            cd12=-scale * np.sin(angle),
            cd21=across * np.sin(angle),
            cd22=scale * np.cos(angle),
        )


RIGHT = Field(0.7, 10.7, 41.3, 33.0)
FIELDS = {
    "half a degree off": Field(0.5, 10.7, 41.3, -75.0, north_deg=0.5),
    "mirrored, RA in hours": Field(0.7, 266.4, -29.0, 140.0, mirrored=True, in_hours=True),
    "scale 15 % too large": Field(1.5, 359.95, -60.0, 10.0, scale_factor=1.15),
    "scale 15 % too small": Field(2.5, 83.8, -5.4, 200.0, mirrored=True, scale_factor=0.85),
    "no scale": Field(8.0, 0.02, 5.0, 77.0, mirrored=True, scale_factor=None),
    "the pole on it": Field(15.0, 200.0, 88.7, -160.0, north_deg=-4.0),
    "RA 0 on it": Field(22.0, 0.5, -33.0, 120.0, scale_factor=1.15),
    "30 degrees": Field(30.0, 120.0, -80.0, 290.0, mirrored=True, north_deg=4.0),
}


def stars_of(field, seed=11):
    """Return the made-up sky; around a narrow field a dense one."""
    rng = np.random.default_rng(seed)
    if field.height_deg > NARROW_BELOW_DEG:
        z = rng.uniform(-1, 1, WHOLE_SKY_STARS)
        ra, dec = rng.uniform(0, 360, WHOLE_SKY_STARS), np.degrees(np.arcsin(z))
    else:
        reach_deg = 2.5 * field.height_deg + 1.5
        n_stars = int(NEAR_STARS_PER_DEG2 * (2 * reach_deg) ** 2)
        dec = field.dec_deg + rng.uniform(-reach_deg, reach_deg, n_stars)
        east_deg = rng.uniform(-reach_deg, reach_deg, n_stars)
        ra = np.mod(field.ra_deg + east_deg / np.cos(np.radians(dec)), 360)
    mag = 9.0 + np.log10(rng.uniform(1e-4, 1.0, len(ra))) / 0.5
    return StarTable(ra_deg=ra, dec_deg=dec, mag=mag, name="made up")


def frame_of(field, stars):
    """Return the pixels: stars with a colour of their own, a tenth of them false, noise."""
    rng = np.random.default_rng(12)
    wcs = field.truth.to_wcs()
    plane = wcs.wcs_world2pix(stars.ra_deg, stars.dec_deg, 0)
    behind = np.cos(np.radians(stars.dec_deg - field.dec_deg)) < 0  # astropy mirrors these in
    x, y = (np.where(behind, np.nan, axis) for axis in plane)
    ra_there, _ = wcs.wcs_pix2world(x, y, 0)
    with np.errstate(invalid="ignore"):
        inside = (x > 0) & (y > 0) & (x < WIDTH_PX) & (y < HEIGHT_PX)
        inside &= np.abs((ra_there - stars.ra_deg + 180) % 360 - 180) < 1
    row = np.flatnonzero(inside)
    row = row[np.argsort(stars.mag[row])][:MOST_DRAWN]
    n_false = len(row) // 10
    mag = stars.mag[row] + rng.normal(0, 0.2, len(row))
    mag = np.r_[mag, rng.uniform(mag.min(), mag.max(), n_false)]
    x = np.r_[x[row], rng.uniform(0, WIDTH_PX, n_false)]
    y = np.r_[y[row], rng.uniform(0, HEIGHT_PX, n_false)]
    pixels = rng.normal(400.0, 6.0, (HEIGHT_PX, WIDTH_PX))
    flux = 1500.0 * 10 ** (0.4 * (mag.max() - mag))
    scope = Telescope(width_px=WIDTH_PX, height_px=HEIGHT_PX)
    add_stars(pixels, x, y, flux, telescope=scope, fwhm_px=3.0)
    return np.clip(pixels, 0, 65535).astype(np.uint16)


def request_of(field, pixels, path):
    fits.writeto(path, pixels)
    scale = field.truth.scale_arcsec_px
    return SolveRequest(
        file=path.name,
        image_path=path,
        width_px=WIDTH_PX,
        height_px=HEIGHT_PX,
        scale_arcsec_px=None if field.scale_factor is None else scale * field.scale_factor,
        ra_deg=field.ra_deg / 15 if field.in_hours else field.ra_deg,
        dec_deg=field.dec_deg + field.north_deg,
        detections=detect_stars(pixels),
    )


def worst_error_px(solution, field):
    """Return the error of the worst corner, by astropy's projection both ways."""
    x = np.array([0, WIDTH_PX - 1, 0, WIDTH_PX - 1])
    y = np.array([0, 0, HEIGHT_PX - 1, HEIGHT_PX - 1])
    ra, dec = field.truth.to_wcs().all_pix2world(x, y, 0)
    x_found, y_found = solution.to_wcs().all_world2pix(ra, dec, 0)
    return float(np.hypot(x_found - x, y_found - y).max())


@pytest.fixture(name="write_stars")
def _write_stars(tmp_path):
    def write(field, stars):
        folder = tmp_path / "stars"
        written = (stars.ra_deg, stars.dec_deg, stars.mag)
        if field.height_deg > NARROW_BELOW_DEG:
            write_astap_database(folder, *written, field=(0.0, 0.0, 180.0), tiles="290")
            write_wide_database(folder, *written)
        else:
            centre = (field.ra_deg, field.dec_deg, 180.0)
            write_astap_database(folder, *written, field=centre)
        return folder

    return write


@pytest.mark.parametrize("name", FIELDS)
def test_the_embedded_solver_finds_every_field(name, tmp_path, write_stars):
    field = FIELDS[name]
    stars = stars_of(field)
    source = StarDatabase(write_stars(field, stars)).around
    request = request_of(field, frame_of(field, stars), tmp_path / "frame.fits")
    frame = solve_frame(request, astap=None, embedded=CatalogueSolver(source), stars=source)
    assert frame.status is SolveStatus.SOLVED, frame.message
    assert worst_error_px(frame.solution, field) < 0.5
    assert frame.solution.parity == (1 if field.mirrored else -1)


@pytest.mark.needs_astap
@pytest.mark.skipif(shutil.which("astap_cli") is None, reason="astap_cli is not on PATH")
@pytest.mark.parametrize("name", FIELDS)
def test_astap_finds_every_field(name, tmp_path, write_stars):
    field = FIELDS[name]
    stars = stars_of(field)
    folder = write_stars(field, stars)
    astap = find_astap("astap_cli", database=str(folder))
    request = request_of(field, frame_of(field, stars), tmp_path / "frame.fits")
    source = StarDatabase(folder).around
    frame = solve_frame(request, astap=astap, embedded=None, stars=source)
    assert frame.status is SolveStatus.SOLVED, frame.message
    assert worst_error_px(frame.solution, field) < 0.5  # fitted to the stars, whatever ASTAP's was


def test_right_ascension_in_hours_is_noticed_and_said(tmp_path, write_stars):
    field = replace(RIGHT, in_hours=True)
    stars = stars_of(field)
    source = StarDatabase(write_stars(field, stars)).around
    request = request_of(field, frame_of(field, stars), tmp_path / "frame.fits")
    frame = solve_frame(request, astap=None, embedded=CatalogueSolver(source), stars=source)
    assert [one.rung for one in frame.attempts] == ["7 embedded", "7 RA in hours"]
    assert "RA 0.713333 is hours, not degrees" in frame.message


def test_without_any_position_a_wide_field_is_found_on_the_whole_sky(tmp_path, write_stars):
    field = FIELDS["the pole on it"]
    stars = stars_of(field)
    source = StarDatabase(write_stars(field, stars)).around
    request = request_of(field, frame_of(field, stars), tmp_path / "frame.fits")
    lost = replace(request, ra_deg=None, dec_deg=None)
    frame = solve_frame(lost, astap=None, embedded=CatalogueSolver(source), stars=source)
    assert frame.status is SolveStatus.SOLVED, frame.message
    assert worst_error_px(frame.solution, field) < 0.5


@pytest.mark.slow
def test_a_field_that_is_not_there_is_not_found(tmp_path, write_stars):
    """A frame of another sky: not one of the thousands of candidates is believed."""
    source = StarDatabase(write_stars(RIGHT, stars_of(RIGHT))).around
    request = request_of(RIGHT, frame_of(RIGHT, stars_of(RIGHT, 13)), tmp_path / "frame.fits")
    frame = solve_frame(request, astap=None, embedded=CatalogueSolver(source), stars=source)
    assert (frame.status, frame.reason) == (SolveStatus.FAILED, "no_match")
