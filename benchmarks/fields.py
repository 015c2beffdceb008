"""Thirty simulated frames, 0.5 to 30 degrees high: what solves each, how long it takes, how well.

    python benchmarks/fields.py /path/to/a/whole-sky/ASTAP/database      [--only 0 7] [--no-astap]

Stars are the database's own (of Tycho-2, say); below one degree, where Tycho-2 is too thin, made-up
ones. Frames are turned by any angle, every second one is mirrored, and the header is wrong in one
of the ways that headers are. Solved by the embedded solver alone, and by ASTAP alone with sets
that are written for it, of 1476 tiles, or of 290 and w08 above 5 degrees. The error is that of the
worst corner against the true WCS.
"""

import argparse
import shutil
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from astropy.io import fits

from wombat_dagster.domain import FrameSolution, StarTable, WcsSolution
from wombat_dagster.science.detection import detect_stars
from wombat_dagster.simulate.astap_database import write_astap_database, write_wide_database
from wombat_dagster.simulate.camera import add_stars
from wombat_dagster.simulate.sky import Telescope
from wombat_dagster.solvers.astap import find_astap
from wombat_dagster.solvers.base import SolveRequest
from wombat_dagster.solvers.catalogue import CatalogueSolver
from wombat_dagster.solvers.ladder import solve_frame
from wombat_dagster.solvers.star_database import StarDatabase
from wombat_dagster.tangent import pixel_to_sky, sky_to_pixel

WIDTH_PX, HEIGHT_PX = 1400, 1000
HEIGHTS_DEG = (
    *(0.5, 0.5, 0.55, 0.6, 0.65, 0.7, 0.8, 0.9, 1.0, 1.1, 1.3, 1.5, 1.8, 2.0, 2.5),
    *(3.0, 3.5, 4.0, 5.0, 6.0, 7.0, 8.0, 9.5, 11.0, 13.0, 16.0, 19.0, 22.0, 26.0, 30.0),
)
PLACES_DEG = (
    *((0.02, 5.0), (83.8, -5.4), (200.0, 88.7), (266.4, -29.0), (31.3, 46.8), (359.9, -60.0)),
    *((150.0, 2.0), (120.0, -89.2), (299.0, 35.0), (186.0, 12.0), (16.5, -33.0)),
)
HEADERS = (
    *("right", "half a degree off", "scale 15 % wrong", "no scale", "RA in hours"),
    *("a frame off", "scale 15 % wrong, half a degree off"),
)
THIN_BELOW_DEG = 1.0
MADE_UP_PER_DEG2 = 900.0
DRAWN_STARS = 700
EXTRA_STARS = 60  # too faint for the catalogue
FWHM_PX = 3.2
SKY_ADU, SKY_RMS_ADU, FAINTEST_FLUX_ADU = 500.0, 8.0, 900.0
TELESCOPE = Telescope(width_px=WIDTH_PX, height_px=HEIGHT_PX)


@dataclass(frozen=True)
class Field:
    """One frame to be: where it points, how it lies, and what its header says of that."""

    number: int
    truth: WcsSolution
    header: str

    @property
    def height_deg(self) -> float:
        return self.truth.scale_arcsec_px * HEIGHT_PX / 3600.0

    @property
    def radius_deg(self) -> float:
        """Half the diagonal, on the sky."""
        half_px = 0.5 * np.hypot(WIDTH_PX, HEIGHT_PX)
        return float(np.degrees(np.arctan(half_px * np.radians(self.truth.scale_arcsec_px / 3600))))


def fields() -> list[Field]:
    rng = np.random.default_rng(30)
    made = []
    for number, height_deg in enumerate(HEIGHTS_DEG):
        ra_deg, dec_deg = PLACES_DEG[number % len(PLACES_DEG)]
        header = HEADERS[number % len(HEADERS)]
        if header == "RA in hours" and ra_deg > 359.0:
            header = "right"  # an RA of 24 hours and more betrays itself
        angle = rng.uniform(0.0, 2.0 * np.pi)
        # The plane's scale at the centre, so that the height is `height_deg` on the sky.
        scale = np.degrees(2.0 * np.tan(np.radians(height_deg / 2.0))) / HEIGHT_PX
        sign = 1.0 if number % 2 else -1.0
        truth = WcsSolution(
            ra_deg=ra_deg,
            dec_deg=dec_deg,
            crpix_x=(WIDTH_PX + 1) / 2,
            crpix_y=(HEIGHT_PX + 1) / 2,
            cd11=float(sign * scale * np.cos(angle)),
            cd12=float(-scale * np.sin(angle)),
            cd21=float(sign * scale * np.sin(angle)),
            cd22=float(scale * np.cos(angle)),
        )
        made.append(Field(number, truth, header))
    return made


def made_up_stars(field: Field) -> StarTable:
    """Return stars for a few degrees around a field for which the catalogue is too thin."""
    rng = np.random.default_rng(1000 + field.number)
    reach_deg = field.radius_deg + 1.5
    n_stars = int(MADE_UP_PER_DEG2 * (2 * reach_deg) ** 2)
    x, y = np.degrees(np.tan(np.radians(rng.uniform(-reach_deg, reach_deg, (2, n_stars)))))
    plane = replace(field.truth, cd11=-1, cd12=0, cd21=0, cd22=1, crpix_x=1, crpix_y=1)
    ra_deg, dec_deg = pixel_to_sky(plane, x, y)
    mag = 15.5 + np.log10(rng.uniform(1e-4, 1.0, n_stars)) / 0.5
    return StarTable(ra_deg=ra_deg, dec_deg=dec_deg, mag=mag, name="made up")


def render(field: Field, stars: StarTable) -> np.ndarray:
    """Return a frame: the brightest stars, some that no catalogue has, and noise."""
    rng = np.random.default_rng(2000 + field.number)
    x, y = sky_to_pixel(field.truth, stars.ra_deg, stars.dec_deg)
    with np.errstate(invalid="ignore"):
        inside = (x > -5) & (y > -5) & (x < WIDTH_PX + 4) & (y < HEIGHT_PX + 4)
    rows = np.flatnonzero(inside)
    rows = rows[np.argsort(stars.mag[rows])][:DRAWN_STARS]
    mag = stars.mag[rows] + rng.normal(0.0, 0.2, len(rows))  # colour: the camera sees another band
    x = np.r_[x[rows], rng.uniform(0, WIDTH_PX, EXTRA_STARS)]
    y = np.r_[y[rows], rng.uniform(0, HEIGHT_PX, EXTRA_STARS)]
    mag = np.r_[mag, mag.max() + rng.uniform(-0.5, 0.5, EXTRA_STARS)]
    flux = FAINTEST_FLUX_ADU * 10 ** (0.4 * (mag.max() - mag))
    image = rng.normal(SKY_ADU, SKY_RMS_ADU, (HEIGHT_PX, WIDTH_PX))
    add_stars(image, x, y, flux, telescope=TELESCOPE, fwhm_px=FWHM_PX)
    return np.clip(image, 0, 65535).astype(np.uint16)


def request_for(field: Field, image: np.ndarray, path: Path) -> SolveRequest:
    fits.writeto(path, image, overwrite=True)
    truth = field.truth
    scale: float | None = truth.scale_arcsec_px
    ra_deg, dec_deg = truth.ra_deg, truth.dec_deg
    if "15 %" in field.header:
        scale *= 1.15 if field.number % 2 else 0.85
    if field.header == "no scale":
        scale = None
    if "off" in field.header:
        off_deg = 0.5 if "half" in field.header else field.height_deg
        dec_deg += off_deg if dec_deg < 0 else -off_deg
    if field.header == "RA in hours":
        ra_deg /= 15.0
    return SolveRequest(
        file=path.name,
        image_path=path,
        width_px=WIDTH_PX,
        height_px=HEIGHT_PX,
        scale_arcsec_px=scale,
        ra_deg=ra_deg,
        dec_deg=dec_deg,
        radius_deg=max(5.0, 1.2 * field.height_deg),
        detections=detect_stars(image),
    )


def worst_error_px(found: WcsSolution, truth: WcsSolution) -> float:
    x = np.array([0.0, WIDTH_PX - 1, 0.0, WIDTH_PX - 1, WIDTH_PX / 2])
    y = np.array([0.0, 0.0, HEIGHT_PX - 1, HEIGHT_PX - 1, HEIGHT_PX / 2])
    there = sky_to_pixel(found, *pixel_to_sky(truth, x, y))
    return float(np.hypot(there[0] - x, there[1] - y).max())


def verdict(solved: FrameSolution, field: Field, seconds: float) -> tuple[bool, str]:
    if solved.solution is None:
        return False, f"-- {solved.reason} {seconds:.1f} s"
    error_px = worst_error_px(solved.solution, field.truth)
    rung = solved.attempts[-1].rung
    return error_px < 3.0, f"{rung:16s} {seconds:6.2f} s {error_px:7.2f} px"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("database", type=Path)
    parser.add_argument("--only", type=int, nargs="*")
    parser.add_argument("--no-astap", action="store_true")
    chosen = parser.parse_args()
    astap = None if chosen.no_astap else find_astap()
    with tempfile.TemporaryDirectory(prefix="wombat_fields_") as folder:
        run(chosen, astap, Path(folder))


def run(chosen: argparse.Namespace, astap, folder: Path) -> None:
    database = StarDatabase(chosen.database)
    totals: dict[str, list[tuple[bool, float]]] = {"embedded": [], "ASTAP": []}
    for field in fields():
        if chosen.only and field.number not in chosen.only:
            continue
        truth = field.truth
        if field.height_deg < THIN_BELOW_DEG:
            stars = made_up_stars(field)
        else:
            margin_deg = min(field.radius_deg + 15.0, 90.0)
            stars = database.around(truth.ra_deg, truth.dec_deg, margin_deg)
        known = folder / f"stars{field.number}"
        written = (stars.ra_deg, stars.dec_deg, stars.mag)
        centre = (truth.ra_deg, truth.dec_deg, 90.0)
        wide = field.height_deg > 5.0
        write_astap_database(known, *written, field=centre, tiles="290" if wide else "1476")
        if wide:
            write_wide_database(known, *written)
        source = StarDatabase(known) if field.height_deg < THIN_BELOW_DEG else database
        request = request_for(field, render(field, stars), folder / f"frame{field.number}.fits")
        cells = []
        for name in totals:
            solver = replace(astap, database=known) if astap else None
            if name == "ASTAP" and solver is None:
                continue
            begun = time.perf_counter()
            solved = solve_frame(
                request,
                astap=solver if name == "ASTAP" else None,
                embedded=CatalogueSolver(source.around) if name == "embedded" else None,
                stars=source.around,
            )
            seconds = time.perf_counter() - begun
            good, words = verdict(solved, field, seconds)
            totals[name].append((good, seconds))
            cells.append(f"{name} {words}")
        side = "mirrored" if truth.parity > 0 else ""
        place = f"{truth.ra_deg:6.1f} {truth.dec_deg:+5.1f}"
        print(
            f"{field.number:2d} {field.height_deg:5.2f} deg at {place} {side:8s}"
            f" {field.header:36s} {len(request.detections):4d} stars | {' | '.join(cells)}",
            flush=True,
        )
        shutil.rmtree(known)
    for name, done in totals.items():
        if done:
            seconds = [one[1] for one in done]
            print(
                f"{name}: {sum(good for good, _ in done)} of {len(done)} right,"
                f" median {np.median(seconds):.2f} s, all {sum(seconds):.0f} s"
            )


if __name__ == "__main__":
    main()
