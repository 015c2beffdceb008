"""Calibrating one 2048x2048 frame, beside astropy merely reading it and writing the same bytes.

    python benchmarks/reduction.py
    python benchmarks/reduction.py --size 1024 --rounds 10

wombat reads the raw frame, subtracts the bias, divides by the flat, marks pixels, and writes
float32 image and mask with checksums and all cards; astropy reads the raw frame with `getdata` and
writes an image and a mask of the same sizes with the same header. In turn, warm, in one process;
packed raw frames on lines of their own. "cpu" is the processor's time, which other programs on
the machine disturb less. Ratios are wombat's time over astropy's: below 1 is faster.
"""

import argparse
import gzip
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from astropy.io import fits

from wombat_dagster.science.calibration import Calibration, calibrated_bands
from wombat_dagster.store.frames import (
    carried_header,
    opened_image,
    read_reduced,
    replace_wcs,
    without_wcs,
    write_reduced_bands,
)


def raw_frames(folder: Path, size_px: int) -> dict[str, Path]:
    rng = np.random.default_rng(1)
    counts = rng.poisson(1500, (size_px, size_px)).astype(np.uint16)
    counts[:: size_px // 20, :: size_px // 20] = 60000
    header = fits.Header([(f"CARD{i}", float(i), "a card like any other") for i in range(40)])
    plain, packed, zipped = (folder / f"raw.fits{end}" for end in ("", ".fz", ".gz"))
    fits.PrimaryHDU(counts, header).writeto(plain)
    compressed = fits.CompImageHDU(counts, header, compression_type="RICE_1")
    fits.HDUList([fits.PrimaryHDU(), compressed]).writeto(packed)
    zipped.write_bytes(gzip.compress(plain.read_bytes(), 6))
    return {"plain": plain, ".fz": packed, ".gz": zipped}


def in_turn(rounds: int, *works: Callable[[], None]) -> list[tuple[float, float]]:
    """Return the best wall and the median processor time in ms of each work, taken in turn."""
    wall, cpu = [[] for _ in works], [[] for _ in works]
    for _ in range(rounds + 1):
        for number, work in enumerate(works):
            begin, cpu_begin = time.perf_counter(), time.process_time()
            work()
            wall[number].append(1e3 * (time.perf_counter() - begin))
            cpu[number].append(1e3 * (time.process_time() - cpu_begin))
    return [(min(w[1:]), float(np.median(c[1:]))) for w, c in zip(wall, cpu, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args()
    shape = (options.size, options.size)
    rng = np.random.default_rng(2)
    masters = Calibration(
        bias=rng.normal(1000, 5, shape).astype(np.float32),
        flat=rng.normal(1, 0.02, shape).astype(np.float32),
        unusable=(rng.random(shape) < 1e-4).astype(np.uint8),
        saturation_adu=55000.0,
        linearity_adu=30000.0,
    )
    folder = Path(tempfile.mkdtemp(prefix="wombat-bench-"))
    try:
        print(f"{'raw':>6} {'wombat ms':>10} {'cpu':>6} {'astropy ms':>11} {'cpu':>6} {'ratio':>6}")
        for name, raw in raw_frames(folder, options.size).items():
            ours, theirs = folder / "ours.fits", folder / "theirs.fits"

            def reduce(raw: Path = raw, ours: Path = ours) -> None:
                ours.unlink(missing_ok=True)  # or some disks wait for what is replaced
                mask = np.empty(shape, np.uint8)
                with opened_image(raw) as (counts, cards):
                    bands = calibrated_bands(counts, masters, mask)
                    write_reduced_bands(ours, bands, mask, without_wcs(cards))

            reduce()
            written, mask, _ = read_reduced(ours)
            written = written.astype(">f4")  # or astropy would swap every byte twice
            cards = carried_header(fits.getheader(raw, ext=1 if name == ".fz" else 0))

            def copy(
                raw: Path = raw, theirs: Path = theirs, image=written, mask=mask, cards=cards
            ) -> None:
                fits.getdata(raw)
                hdus = [fits.PrimaryHDU(image, cards), fits.ImageHDU(mask, name="MASK")]
                fits.HDUList(hdus).writeto(theirs, overwrite=True)

            (wall, cpu), (peer_wall, peer_cpu) = in_turn(options.rounds, reduce, copy)
            print(
                f"{name:>6} {wall:10.1f} {cpu:6.1f} {peer_wall:11.1f} {peer_cpu:6.1f}"
                f" {wall / peer_wall:6.2f} (cpu {cpu / peer_cpu:.2f})"
            )
        steps = {
            "read reduced": lambda: read_reduced(ours),
            "write solution": lambda: replace_wcs(ours, {"CRVAL1": 10.0}),
        }
        for name, (wall, cpu) in zip(steps, in_turn(options.rounds, *steps.values()), strict=True):
            print(f"{name}: {wall:.1f} ms, cpu {cpu:.1f}")
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
