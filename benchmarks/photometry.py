"""Time to measure the stars of a frame, beside photutils and stellarphot.

    python benchmarks/photometry.py                                 60 stars, 1,000 and 10,000
    python benchmarks/photometry.py --stellarphot /tmp/venv/bin/python

A calibrated 2048x2048 float32 frame, radii 8/15/30. `photutils` is its idiom for a sum and a sky:
a 2 sigma clipped annulus mean (ApertureStats) and the exact sum. It gives two numbers a star, ours
all of AstroImageJ's columns. stellarphot, which fits a FWHM too, runs in the interpreter named; a
peer that cannot be imported is left out. Machines are noisy: compare only figures of one run.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np

SIDE_PX = 2048
SKY_ADU, SKY_RMS_ADU, SIGMA_PX = 300.0, 12.0, 2.0
RADII_PX = (8.0, 15.0, 30.0)
GAIN_E_ADU, READ_NOISE_E = 1.5, 8.0
BARS = {"ms": 12.0, "photutils": 1 / 3, "stellarphot": 60.0, "ten thousand s": 1.0}


def paint(n_stars: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return a frame, its mask, and its stars' places."""
    rng = np.random.default_rng(n_stars)
    image = rng.normal(SKY_ADU, SKY_RMS_ADU, (SIDE_PX, SIDE_PX))
    x, y = rng.uniform(45.0, SIDE_PX - 45.0, (2, n_stars))
    steps = np.arange(-10, 11)
    for a, b, light in zip(x, y, 10 ** rng.uniform(3.5, 5.5, n_stars), strict=True):
        column, row = round(a), round(b)
        u, v = (column + steps - a) / SIGMA_PX, (row + steps - b) / SIGMA_PX
        star = np.exp(-0.5 * (u**2 + v[:, None] ** 2)) / (2 * np.pi * SIGMA_PX**2)
        image[row - 10 : row + 11, column - 10 : column + 11] += light * star
    mask = np.zeros(image.shape, np.uint8)
    mask[tuple(rng.integers(0, SIDE_PX, (2, 400)))] = 1
    return image.astype(np.float32), mask, x, y


def taken_ms(work: Callable[[], object], repeats: int) -> list[float]:
    """Return the times of a warm `work`."""
    work()
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        work()
        times.append(1e3 * (time.perf_counter() - begin))
    return times


def line(name: str, n_stars: int, times: list[float], *remarks: str) -> None:
    best, median = min(times), statistics.median(times)
    print(
        f"{n_stars:6d} {name:>24} {best:9.2f} {median:9.2f} {1e3 * best / n_stars:9.1f}",
        *remarks,
        flush=True,
    )


def photutils_idiom(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> Callable[[], object]:
    from astropy.stats import SigmaClip
    from photutils.aperture import (
        ApertureStats,
        CircularAnnulus,
        CircularAperture,
        aperture_photometry,
    )

    places = np.transpose([x, y])

    def work() -> object:
        circle = CircularAperture(places, r=RADII_PX[0])
        ring = CircularAnnulus(places, r_in=RADII_PX[1], r_out=RADII_PX[2])
        sky = ApertureStats(image, ring, sigma_clip=SigmaClip(sigma=2.0, maxiters=None)).mean
        return aperture_photometry(image, circle)["aperture_sum"] - sky * circle.area

    return work


def stellarphot_ms(npz: Path, repeats: int) -> list[float]:
    """Time stellarphot on a saved frame: runs in the peer's own interpreter."""
    import astropy.units as u
    from astropy.nddata import CCDData
    from astropy.table import Table
    from stellarphot import SourceListData
    from stellarphot.photometry.photometry import single_image_photometry
    from stellarphot.settings import models

    saved = np.load(npz)
    image, x, y = saved["image"], saved["x"], saved["y"]
    stars = Table({
        "star_id": np.arange(x.size),
        "ra": np.linspace(10.0, 11.0, x.size) * u.deg,
        "dec": np.zeros(x.size) * u.deg,
        "xcenter": x * u.pixel,
        "ycenter": y * u.pixel,
    })  # fmt: skip
    listing = npz.with_suffix(".ecsv")
    SourceListData(input_data=stars, colname_map=None).write(listing, overwrite=True)
    settings = models.PhotometrySettings(
        camera=models.Camera(
            data_unit=u.adu,
            gain=GAIN_E_ADU * u.electron / u.adu,
            name="camera",
            read_noise=READ_NOISE_E * u.electron,
            dark_current=0.0 * u.electron / u.second,
            pixel_scale=1 * u.arcsec / u.pixel,
            max_data_value=1e6 * u.adu,
        ),
        observatory=models.Observatory(
            name="site", latitude=0 * u.deg, longitude=0 * u.deg, elevation=0 * u.m
        ),
        photometry_apertures=models.PhotometryApertures(
            radius=RADII_PX[0],
            gap=RADII_PX[1] - RADII_PX[0],
            annulus_width=RADII_PX[2] - RADII_PX[1],
            fwhm_estimate=2.3548 * SIGMA_PX,
        ),
        source_location_settings=models.SourceLocationSettings(
            source_list_file=str(listing), shift_tolerance=6, use_coordinates="pixel"
        ),
        photometry_optional_settings=models.PhotometryOptionalSettings(
            reject_too_close=False, reject_background_outliers=True, fwhm_method="fit"
        ),
        passband_map=models.PassbandMap(name="map", your_filter_names_to_aavso={"V": "V"}),
        logging_settings=models.LoggingSettings(console_log=False),
    )
    frame = CCDData(image, unit="adu")
    frame.header.update({"DATE-OBS": "2026-01-01T00:00:00", "FILTER": "V", "EXPOSURE": 30.0})

    def work() -> None:
        measured, _ = single_image_photometry(frame, settings)
        if measured is None or len(measured) != x.size:
            sys.exit("stellarphot did not measure all stars")

    return taken_ms(work, repeats)


def ask_stellarphot(python: str, image: np.ndarray, x: np.ndarray, y: np.ndarray) -> list[float]:
    """Return the times in another interpreter; none when stellarphot is not there."""
    with tempfile.TemporaryDirectory(prefix="wombat-bench-") as folder:
        npz = Path(folder) / "frame.npz"
        np.savez(npz, image=image, x=x, y=y)
        done = subprocess.run(
            [python, __file__, "--peer", str(npz)],
            capture_output=True,
            text=True,
            check=False,
            cwd=folder,
        )
    if done.returncode:
        print(f"{'stellarphot':>31} left out: {(done.stderr.strip() or '?').splitlines()[-1]}")
        return []
    return [float(ms) for ms in done.stdout.split("times:")[-1].split()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=25)
    parser.add_argument("--stars", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--stellarphot", default=sys.executable, help="interpreter that has it")
    parser.add_argument("--peer", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.peer:
        print("times:", *stellarphot_ms(options.peer, 3))
        return
    from wombat_dagster.domain import Aperture
    from wombat_dagster.science.photometry import measure_stars, sum_stars

    known = {
        "gain_e_adu": GAIN_E_ADU,
        "read_noise_e": READ_NOISE_E,
        "recentre_limit_px": 2.3548 * SIGMA_PX,
        "fwhm_px": 2.3548 * SIGMA_PX,
    }
    aperture = Aperture(radius_px=RADII_PX[0], sky_inner_px=RADII_PX[1], sky_outer_px=RADII_PX[2])
    print(f"{'stars':>6} {'':>24} {'best ms':>9} {'median':>9} {'us/star':>9}")

    image, mask, x, y = paint(60)
    ours = taken_ms(
        lambda: measure_stars(image, mask, x, y, aperture=aperture, **known), options.repeats
    )
    line("wombat, all columns", 60, ours, f"bar <= {BARS['ms']:.0f} ms")
    try:
        idiom = photutils_idiom(image, x, y)
    except ImportError:
        print(f"{'photutils':>31} left out: not installed")
    else:
        theirs = taken_ms(idiom, options.repeats)
        ratio = min(ours) / min(theirs)
        line(
            "photutils, sum and sky",
            60,
            theirs,
            f"ratio {ratio:.2f}, bar <= {BARS['photutils']:.2f}",
        )
    theirs = ask_stellarphot(options.stellarphot, image, x, y)
    if theirs:
        ratio = min(theirs) / min(ours)
        line("stellarphot, FWHM fitted", 60, theirs, f"{ratio:.0f} times ours, bar >= 60")

    per_star = {}
    for n_stars in options.stars:
        image, mask, x, y = paint(n_stars)

        def work(image=image, mask=mask, x=x, y=y) -> object:
            return measure_stars(image, mask, x, y, aperture=aperture, **known)

        times = taken_ms(work, max(3, options.repeats // 5))
        per_star[n_stars] = min(times) / n_stars
        line("wombat, all columns", n_stars, times)
    most, least = max(per_star), min(per_star)
    print(
        f"{'':>31} cost per star {per_star[most] / per_star[least]:.2f} of that of {least};"
        f" {per_star[most] * most / 1e3:.2f} s, bar <= 1 s for 10,000"
    )

    image, mask, x, y = paint(200)
    radii = np.linspace(4.0, 12.0, 12)
    sums = taken_ms(
        lambda: sum_stars(
            image, mask, x, y, radii_px=radii, sky_inner_px=RADII_PX[1], sky_outer_px=RADII_PX[2],
            **known,
        ),
        options.repeats,
    )  # fmt: skip
    line("wombat, 12 radii", 200, sums)


if __name__ == "__main__":
    main()
