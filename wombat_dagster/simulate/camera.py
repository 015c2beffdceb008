"""The camera of the simulation: what a sky of known electrons becomes on the chip.

In this order, as in a real CCD: the light of stars and sky times the response of optics and pixels,
plus dark current, becomes Poisson electrons; cosmic rays add theirs; read noise, gain, bias and the
converter's stop make whole counts of it.

Stars are two concentric round Gaussians (`Telescope.halo_fraction`), integrated over each pixel
exactly by the error function, so that the sum over pixels is the star's flux however coarse the
sampling. Patterns that belong to the chip are drawn from `Telescope.detector_seed`, the same in
every frame; everything else from the frame's own generator.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wombat_dagster.domain import FloatArray
from wombat_dagster.simulate.sky import Passband, Telescope

STAMP_SIGMA = 5.5  # half a stamp, of the wider Gaussian: 1e-7 of its light falls outside
DUST_RADII_PX = (6.0, 22.0)
DUST_DEPTH = (0.02, 0.07)
HOT_E_S = (2.0, 60.0)  # dark current of hot pixels
DEAD_RESPONSE = 0.05
COSMIC_RAY_E = (800.0, 20000.0)  # per track
COSMIC_RAY_LENGTH_PX = 6
TRAIL_STEP_SIGMA = 0.5  # a trail is so many stars in a row: no ripple is left

_erf = np.frompyfunc(math.erf, 1, 1)  # numpy has none, and scipy is not asked for here


@dataclass(frozen=True, slots=True, kw_only=True)
class Detector:
    """The chip of a telescope; maps have the frame's shape ``[y, x]``.

    `response` maps a filter's name to the share of light that each pixel registers, about 1 in the
    middle.
    """

    telescope: Telescope
    bias_adu: FloatArray
    dark_e_s: FloatArray
    response: dict[str, FloatArray]
    hot: NDArray[np.bool_]
    dead: NDArray[np.bool_]


def make_detector(telescope: Telescope, filters: Sequence[str]) -> Detector:
    """Return the chip of `telescope` with its response through `filters`."""
    shape = (telescope.height_px, telescope.width_px)
    rng = np.random.default_rng([telescope.detector_seed, 1])
    columns = rng.normal(0.0, telescope.bias_column_adu, telescope.width_px)
    rows = 4.0 * np.exp(-np.arange(telescope.height_px) / 30.0)  # the amplifier settling
    bias = telescope.bias_adu + columns[None, :] + rows[:, None]
    hot = rng.random(shape) < telescope.hot_fraction
    dark = np.full(shape, telescope.dark_e_s)
    dark[hot] = _log_uniform(rng, HOT_E_S, int(hot.sum()))
    dead = (rng.random(shape) < telescope.dead_fraction) & ~hot
    pixels = 1.0 + rng.normal(0.0, telescope.pixel_response_rms, shape)
    pixels[dead] = DEAD_RESPONSE
    return Detector(
        telescope=telescope,
        bias_adu=bias.astype(np.float32),
        dark_e_s=dark.astype(np.float32),
        response={
            name: (pixels * _illumination(telescope, telescope.passband(name))).astype(np.float32)
            for name in filters
        },
        hot=hot,
        dead=dead,
    )


def _log_uniform(rng: np.random.Generator, between: tuple[float, float], n: int) -> FloatArray:
    low, high = between
    return low * (high / low) ** rng.uniform(0.0, 1.0, n)


def _illumination(telescope: Telescope, passband: Passband) -> FloatArray:
    """Return vignetting and dust shadows of one filter, shape ``[y, x]``."""
    # The filter's own seed, spelled by its name, leaves the others alone when one is added.
    rng = np.random.default_rng([telescope.detector_seed, 2, *passband.filter.encode()])
    y, x = np.mgrid[: telescope.height_px, : telescope.width_px].astype(np.float64)
    size = np.array([telescope.width_px, telescope.height_px])
    axis = (size - 1) / 2 + rng.uniform(-0.03, 0.03, 2) * size
    corner = float(np.hypot(*size)) / 2
    light = 1.0 - telescope.vignetting * ((x - axis[0]) ** 2 + (y - axis[1]) ** 2) / corner**2
    for _ in range(passband.dust):
        at = rng.uniform(0.05, 0.95, 2) * size
        radius = rng.uniform(*DUST_RADII_PX)
        depth = rng.uniform(*DUST_DEPTH)
        distance = np.hypot(x - at[0], y - at[1]) / radius
        # An unfocused speck's shadow is a ring: the telescope's own pupil with its obstruction.
        light *= 1.0 - depth / (
            (1.0 + distance**12) * (1.0 + (0.4 / np.maximum(distance, 0.05)) ** 8)
        )
    return light


# ------------------------------------------------------------------------------------------- light


def core_sigma_px(telescope: Telescope, fwhm_px: float) -> float:
    """Return the narrower Gaussian's sigma for which the whole profile has `fwhm_px`."""
    share, ratio = telescope.halo_fraction, telescope.halo_ratio
    radius = np.linspace(0.5, 3.0, 25001)  # in core sigmas
    profile = (1 - share) * np.exp(-(radius**2) / 2) + share / ratio**2 * np.exp(
        -((radius / ratio) ** 2) / 2
    )
    half = ((1 - share) + share / ratio**2) / 2
    half_width = float(np.interp(-half, -profile, radius))
    return fwhm_px / (2 * half_width)


def add_stars(
    image: FloatArray,
    x: FloatArray,
    y: FloatArray,
    flux: FloatArray,
    *,
    telescope: Telescope,
    fwhm_px: float,
    trail_px: tuple[float, float] = (0.0, 0.0),
) -> None:
    """Add stars of `flux` at (`x`, `y`), shape (n,), to `image` in place.

    Stars off the frame are skipped, stars over its edge are cut. With `trail_px` they are drawn
    out evenly by that much, about their places.
    """
    sigma = core_sigma_px(telescope, fwhm_px)
    n_steps = math.ceil(math.hypot(*trail_px) / (TRAIL_STEP_SIGMA * sigma)) or 1
    for share in (np.arange(n_steps) + 0.5) / n_steps - 0.5:
        at_x, at_y = x + share * trail_px[0], y + share * trail_px[1]
        _add_round_stars(image, at_x, at_y, flux / n_steps, telescope=telescope, sigma=sigma)


def _add_round_stars(
    image: FloatArray,
    x: FloatArray,
    y: FloatArray,
    flux: FloatArray,
    *,
    telescope: Telescope,
    sigma: float,
) -> None:
    height, width = image.shape
    half = math.ceil(STAMP_SIGMA * sigma * telescope.halo_ratio)
    seen = (x > -half) & (x < width - 1 + half) & (y > -half) & (y < height - 1 + half)
    x, y, flux = x[seen], y[seen], flux[seen]
    left, bottom = np.rint(x).astype(int) - half, np.rint(y).astype(int) - half
    components = (
        (1 - telescope.halo_fraction, sigma),
        (telescope.halo_fraction, sigma * telescope.halo_ratio),
    )
    stamps = np.zeros((len(x), 2 * half + 1, 2 * half + 1), dtype=np.float32)
    for share, width_px in components:
        along_x = _pixel_shares(x - left, 2 * half + 1, width_px)
        along_y = _pixel_shares(y - bottom, 2 * half + 1, width_px) * (share * flux)[:, None]
        stamps += along_y[:, :, None] * along_x[:, None, :]
    for stamp, x_0, y_0 in zip(stamps, left.tolist(), bottom.tolist(), strict=True):
        x_from, y_from = max(x_0, 0), max(y_0, 0)
        x_to, y_to = min(x_0 + 2 * half + 1, width), min(y_0 + 2 * half + 1, height)
        if x_from < x_to and y_from < y_to:
            image[y_from:y_to, x_from:x_to] += stamp[
                y_from - y_0 : y_to - y_0, x_from - x_0 : x_to - x_0
            ]


def _pixel_shares(centre: FloatArray, n_px: int, sigma: float) -> FloatArray:
    """Return the share of Gaussians at `centre` (n,) in each of `n_px` pixels, shape (n, n_px)."""
    edges = (np.arange(n_px + 1) - 0.5)[None, :] - centre[:, None]
    scaled = edges / (math.sqrt(2) * sigma)
    below = 0.5 * (1.0 + np.asarray(_erf(scaled), dtype=np.float64))
    return np.diff(below, axis=1).astype(np.float32)


def add_cosmic_rays(image: FloatArray, rng: np.random.Generator, expected: float) -> int:
    """Add Poisson-many tracks to `image` (electrons) in place; return the number of pixels hit."""
    height, width = image.shape
    hit = set()
    for _ in range(rng.poisson(expected)):
        x_0, y_0 = rng.uniform(0, width), rng.uniform(0, height)
        angle = rng.uniform(0, 2 * np.pi)
        length = int(rng.integers(1, COSMIC_RAY_LENGTH_PX + 1))
        electrons = float(_log_uniform(rng, COSMIC_RAY_E, 1)[0]) / length
        for step in range(length):
            x, y = int(x_0 + step * np.cos(angle)), int(y_0 + step * np.sin(angle))
            if 0 <= x < width and 0 <= y < height:
                image[y, x] += electrons
                hit.add((x, y))
    return len(hit)


# ------------------------------------------------------------------------------------------ counts


def read_out(
    detector: Detector, rng: np.random.Generator, electrons: FloatArray | None
) -> NDArray[np.uint16]:
    """Return the counts of a frame that holds `electrons` (whole numbers); None: a bias."""
    telescope = detector.telescope
    counts = rng.standard_normal(detector.bias_adu.shape, dtype=np.float32)
    counts *= telescope.read_noise_e / telescope.gain_e_adu
    counts += detector.bias_adu
    if electrons is not None:
        counts += electrons / np.float32(telescope.gain_e_adu)
    np.rint(counts, out=counts)
    np.clip(counts, 0, telescope.stop_adu, out=counts)
    return counts.astype(np.uint16)


def with_overscan(
    counts: NDArray[np.uint16], detector: Detector, rng: np.random.Generator, n_px: int
) -> NDArray[np.uint16]:
    """Return `counts` with `n_px` columns that saw no light to the right of it.

    They hold the level under each row, read noise and nothing else.
    """
    telescope = detector.telescope
    height = counts.shape[0]
    level = detector.bias_adu.mean(axis=1, keepdims=True)
    strip = level + rng.standard_normal((height, n_px)) * (
        telescope.read_noise_e / telescope.gain_e_adu
    )
    limited = np.clip(np.rint(strip), 0, telescope.stop_adu).astype(np.uint16)
    return np.hstack([counts, limited])


def expose(
    detector: Detector,
    rng: np.random.Generator,
    light_e: FloatArray | float,
    *,
    filter: str | None,
    exposure_s: float,
    cosmic_rays: float = 0.0,
) -> tuple[NDArray[np.uint16], int]:
    """Return the raw frame of `light_e` (expected electrons per pixel) and its cosmic-ray pixels.

    `filter` None: the shutter stays closed, only dark current gathers. `cosmic_rays` is the
    expected number of tracks.
    """
    expected = detector.dark_e_s * np.float32(exposure_s)
    if filter is not None:
        expected = expected + light_e * detector.response[filter]
    electrons = rng.poisson(expected).astype(np.float32)
    n_hit = add_cosmic_rays(electrons, rng, cosmic_rays)
    return read_out(detector, rng, electrons), n_hit
