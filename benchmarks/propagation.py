"""The plate solution of a frame out of its neighbour's: milliseconds beyond detection.

    python benchmarks/propagation.py

A frame's stars are matched with those of a solved frame and the solution is fitted to the star
table, by the code that solves a night. Beside it astropy's fit of the same stars, matched already
(without distortion). With a lens that bends, the first frame's solution knows of it or does not.
"""

import statistics
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from astropy.coordinates import SkyCoord
from astropy.wcs.utils import fit_wcs_from_points

from wombat_dagster.domain import Detections, StarTable, WcsSolution
from wombat_dagster.solvers.base import Reference, SolveRequest
from wombat_dagster.solvers.fitting import refine
from wombat_dagster.solvers.ladder import propagate_frame
from wombat_dagster.tangent import pixel_to_sky, sky_to_pixel

SIZE_PX = 2048
SCALE_DEG = 1.2 / 3600
RUNS = 50
LENS_PX = 8.0  # outwards in the corners, as the cube of the distance from the centre
CASES = ((100, "straight"), (500, "straight"), (500, "bent, known"), (500, "bent, unknown"))


def solution(x_shift: float, y_shift: float) -> WcsSolution:
    return WcsSolution(
        ra_deg=65.0, dec_deg=-9.0, crpix_x=SIZE_PX / 2 + x_shift, crpix_y=SIZE_PX / 2 + y_shift,
        cd11=-SCALE_DEG, cd12=0.0, cd21=0.0, cd22=SCALE_DEG,
    )  # fmt: skip


def seen(table: StarTable, pointing: WcsSolution, rng: np.random.Generator) -> Detections:
    x, y = sky_to_pixel(pointing, table.ra_deg, table.dec_deg)
    x, y = (place + rng.normal(0, 0.1, len(place)) for place in (x, y))
    inside = (x > 0) & (x < SIZE_PX) & (y > 0) & (y < SIZE_PX)
    flux = 10 ** (-0.4 * (table.mag[inside] - 20))
    order = np.argsort(-flux)
    same = np.full(len(order), 3.0)
    return Detections(
        x_px=x[inside][order], y_px=y[inside][order], flux_adu=flux[order], peak_adu=flux[order],
        fwhm_px=same, axis_ratio=same / 3, snr=flux[order], sky_adu=100.0, sky_rms_adu=5.0,
    )  # fmt: skip


def bent(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    centre, reach = 0.5 * (SIZE_PX - 1), SIZE_PX / np.sqrt(2)
    u, v = x - centre, y - centre
    more = 1 + LENS_PX / reach * (np.hypot(u, v) / reach) ** 2
    return centre + u * more, centre + v * more


def through_lens(stars: Detections) -> Detections:
    x, y = bent(stars.x_px, stars.y_px)
    return replace(stars, x_px=x, y_px=y)


def milliseconds(work) -> float:
    times = []
    for _ in range(RUNS):
        begin = time.perf_counter()
        work()
        times.append(time.perf_counter() - begin)
    return 1000 * statistics.median(times)


def main() -> None:
    rng = np.random.default_rng(1)
    first, second = solution(0, 0), solution(7.3, -4.1)
    size = {"width_px": SIZE_PX, "height_px": SIZE_PX}
    print(f"{'stars':>6} {'lens':<13} {'ours ms':>8} {'astropy fit alone ms':>21} {'error px':>9}")
    for n_stars, lens in CASES:
        x, y = rng.uniform(-100, SIZE_PX + 100, (2, int(1.2 * n_stars)))
        ra, dec = pixel_to_sky(first, x, y)
        table = StarTable(ra_deg=ra, dec_deg=dec, mag=rng.uniform(9, 15, len(x)), name="made up")
        before, now = seen(table, first, rng), seen(table, second, rng)
        x_true, y_true = sky_to_pixel(second, ra, dec)
        known = first
        if lens != "straight":
            before, now = through_lens(before), through_lens(now)
            x_true, y_true = bent(x_true, y_true)
        if lens == "bent, known":
            fit = refine(first, before, table, **size)
            assert fit is not None
            assert fit.solution.sip is not None
            known = fit.solution
        reference = Reference(solution=known, detections=before, file="before")
        request = SolveRequest(
            file="now", image_path=Path("now"), scale_arcsec_px=3600 * SCALE_DEG, ra_deg=65.0,
            dec_deg=-9.0, detections=now, star_table=table, reference=reference, **size,
        )  # fmt: skip
        found = propagate_frame(request, reference).solution
        assert found is not None
        x_found, y_found = sky_to_pixel(found, ra, dec)
        inside = (np.abs(x_true / SIZE_PX - 0.5) < 0.5) & (np.abs(y_true / SIZE_PX - 0.5) < 0.5)
        error_px = np.max(np.hypot(x_found - x_true, y_found - y_true)[inside])
        places = SkyCoord(*pixel_to_sky(second, now.x_px, now.y_px), unit="deg")
        ours = milliseconds(lambda r=request, f=reference: propagate_frame(r, f))
        theirs = milliseconds(
            lambda d=now, p=places: fit_wcs_from_points((d.x_px, d.y_px), p, proj_point="center")
        )
        print(f"{len(now):6d} {lens:<13} {ours:8.2f} {theirs:21.2f} {error_px:9.3f}")


if __name__ == "__main__":
    main()
