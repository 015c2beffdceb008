"""Time to find and measure the stars of a frame, beside the whole run of source-extractor.

    python benchmarks/detection.py                    2048x2048, 500 and 3000 stars
    python benchmarks/detection.py --stars 1000 --size 4096 --repeats 3

Both get the same file by turns; ours reads it inside a warm process. Machines are noisy: compare
only figures of one run. `found` are stars with a peak above 10 sigma of the sky that have a
detection of their own, `spurious` detections without a star.
"""

import argparse
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from astropy.io import fits
from scipy.spatial import KDTree
from scipy.special import erf

from wombat_dagster.science.detection import detect_stars

SKY_ADU, SKY_RMS_ADU = 1000.0, 12.0
FWHM_PX = 3.5
STOP_ADU = 60_000.0
FAINTEST_SIGMAS, DEX_OF_PEAKS = 5.0, 0.45  # peaks: about 0.39 dex more stars per magnitude
BRIGHT_SIGMAS = 10.0
NEAR_PX = 2.0
PARAMETERS = "X_IMAGE\nY_IMAGE\nFLUX_ISO\nFWHM_IMAGE\n"


def paint(n_stars: int, side_px: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a frame, and its stars' places (n, 2) and peaks in sigmas of the sky."""
    rng = np.random.default_rng(n_stars)
    image = rng.normal(SKY_ADU, SKY_RMS_ADU, (side_px, side_px))
    places = rng.uniform(15.0, side_px - 15.0, (n_stars, 2))
    peaks = FAINTEST_SIGMAS * 10 ** rng.exponential(DEX_OF_PEAKS, n_stars)
    sigma = FWHM_PX / 2.3548
    reach = int(6 * sigma) + 1

    def share(pixels: np.ndarray, centre: float) -> np.ndarray:
        edges = (np.append(pixels, pixels[-1] + 1) - 0.5 - centre) / sigma / 2**0.5
        return 0.5 * np.diff(erf(edges))

    for (x, y), peak in zip(places, peaks, strict=True):
        rows = np.arange(max(0, int(y) - reach), min(side_px, int(y) + reach + 1))
        columns = np.arange(max(0, int(x) - reach), min(side_px, int(x) + reach + 1))
        flux = peak * SKY_RMS_ADU * 2 * np.pi * sigma**2
        light = flux * np.outer(share(rows, y), share(columns, x))
        image[np.ix_(rows, columns)] += light + rng.normal(size=light.shape) * np.sqrt(light)
    return np.minimum(image, STOP_ADU).astype(np.float32), places, peaks


def score(found: np.ndarray, places: np.ndarray, peaks: np.ndarray) -> str:
    """Return how many bright stars have their own detection, and how many detections no star."""
    distance, star = KDTree(places).query(found)
    own = np.zeros(len(places), bool)
    own[star[distance < NEAR_PX]] = True
    bright = peaks > BRIGHT_SIGMAS
    return f"{own[bright].sum():5d}/{bright.sum():<5d} {np.sum(distance > FWHM_PX):8d}"


def seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def in_two_threads(work: Callable[[], object]) -> None:
    other = threading.Thread(target=work)
    other.start()
    work()
    other.join()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stars", type=int, nargs="+", default=[500, 3000])
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    extractor = next(filter(None, map(shutil.which, ("source-extractor", "sex"))), None)
    print(f"{'stars':>6} {'':>18} {'best ms':>8} {'median':>8} {'found':>11} {'spurious':>8}")
    for n_stars in options.stars:
        with tempfile.TemporaryDirectory(prefix="wombat-bench-") as folder:
            frame, catalogue = Path(folder) / "frame.fits", Path(folder) / "found.cat"
            image, places, peaks = paint(n_stars, options.size)
            fits.writeto(frame, image)
            (Path(folder) / "wanted.param").write_text(PARAMETERS)
            command = [
                str(extractor), "frame.fits", "-PARAMETERS_NAME", "wanted.param",
                "-CATALOG_NAME", catalogue.name, "-DETECT_THRESH", "5", "-FILTER", "N",
                "-VERBOSE_TYPE", "QUIET",
            ]  # fmt: skip

            def wombat(path: Path = frame) -> object:
                return detect_stars(fits.getdata(path))

            def peer(command: list[str] = command, folder: str = folder) -> object:
                return subprocess.run(command, cwd=folder, check=True, capture_output=True)

            stars = detect_stars(fits.getdata(frame))
            works = {"wombat": wombat}
            scores = {"wombat": score(np.stack([stars.x_px, stars.y_px], 1), places, peaks)}
            if extractor is not None:
                peer()
                works["source-extractor"] = peer
                places_fits = np.loadtxt(catalogue, usecols=(0, 1), ndmin=2)
                scores["source-extractor"] = score(places_fits - 1.0, places, peaks)
            times: dict[str, list[float]] = {name: [] for name in works}
            for _ in range(options.repeats):
                for name, work in works.items():
                    times[name].append(1e3 * seconds(work))
            for name, taken in times.items():
                print(
                    f"{n_stars:6d} {name:>18} {min(taken):8.1f} {statistics.median(taken):8.1f}"
                    f" {scores[name]}"
                )
            if extractor is None:
                print(f"{n_stars:6d} {'source-extractor':>18} not installed")
            else:
                best, middle = (
                    f(times["wombat"]) / f(times["source-extractor"])
                    for f in (min, statistics.median)
                )
                print(f"{n_stars:6d} {'ratio (goal <= 1)':>18} {best:8.2f} {middle:8.2f}")
            alone = min(seconds(lambda w=wombat: (w(), w())) for _ in range(options.repeats))
            both = min(seconds(lambda w=wombat: in_two_threads(w)) for _ in range(options.repeats))
            print(f"{n_stars:6d} two frames in two threads: {alone / both:.2f} times as fast")


if __name__ == "__main__":
    main()
