"""Where the stars of a frame are: two kinds of centroid about predicted places."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wombat_dagster.domain import BoolArray, FloatArray
from wombat_dagster.science.cutouts import (
    FWHM_PER_SIGMA,
    Annulus,
    Cutouts,
    clipped_sky,
    cut_out,
    medians,
    pixel_overlap,
    whole,
)
from wombat_dagster.science.mending import mended_by_gaussian

Centroid = Literal["windowed", "howell", "off"]

RADIUS_FWHM = 1.7  # aperture radius over FWHM, where the FWHM is not given
MAX_PASSES = 30
STOP_PX = 1e-4
ROUGH_SKY_EVERY = 5  # annulus pixel, for the windowed centroid
GRAVITY_SKY_STOP_ADU = 0.1  # as AstroImageJ's centroid has it


def centroids(
    image: FloatArray,
    bits: NDArray[np.uint8],
    x: FloatArray,
    y: FloatArray,
    annulus: Annulus,
    *,
    kind: Centroid,
    radius_px: float,
    fwhm_px: float | None,
    limit_px: float,
    margin_px: float,
) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Return (x, y, found) of stars on the frame, all (n,).

    The prediction stays where no centroid lies within `limit_px` of it, or none as far as
    `margin_px` from the frame's edge, and where none is wanted: then it counts as found.
    """
    if kind == "off" or limit_px <= 0:
        return x, y, np.ones(x.shape, bool)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if kind == "howell":
            shift_x, shift_y = _to_gravity(image, bits, x, y, annulus, radius_px, limit_px)
        else:
            width_px = fwhm_px or radius_px / RADIUS_FWHM
            shift_x, shift_y = _to_window(image, bits, x, y, annulus, width_px, limit_px)
        new_x, new_y = x + shift_x, y + shift_y
        found = np.hypot(shift_x, shift_y) <= limit_px
        found &= whole(new_x, new_y, image.shape, margin_px)
    return np.where(found, new_x, x), np.where(found, new_y, y), found


def _to_window(
    image: FloatArray,
    bits: NDArray[np.uint8],
    x: FloatArray,
    y: FloatArray,
    annulus: Annulus,
    fwhm_px: float,
    limit_px: float,
) -> tuple[FloatArray, FloatArray]:
    """Return the way from each prediction to the centroid under a Gaussian window; NaN if lost.

    The window moves along (as SExtractor's XWIN_IMAGE): a neighbour in the aperture pulls less than
    it pulls a plain centre of gravity.
    """
    sky_adu = medians(annulus.values(image, bits, x, y, every=ROUGH_SKY_EVERY))
    sigma = fwhm_px / FWHM_PER_SIGMA
    cut = cut_out(image, bits, x, y, limit_px + 3.0 * sigma)
    counts = _counts(cut, sky_adu, 3.0 * sigma)
    shift_x, shift_y = np.zeros(x.size), np.zeros(x.size)
    dx, dy, moving = cut.dx, cut.dy, np.arange(x.size)
    for _ in range(MAX_PASSES):
        u, v = dx - shift_x[moving, None], dy - shift_y[moving, None]
        window_x, window_y = np.exp(-0.5 * (u / sigma) ** 2), np.exp(-0.5 * (v / sigma) ** 2)
        in_x = np.matmul(window_y[:, None, :], counts)[:, 0, :] * window_x
        in_y = np.matmul(counts, window_x[:, :, None])[:, :, 0] * window_y
        total = in_x.sum(axis=1)
        total = np.where(total > 0, total, np.nan)
        # twice: under a window as wide as the star the centroid covers half of the way
        step_x, step_y = 2 * (in_x * u).sum(axis=1) / total, 2 * (in_y * v).sum(axis=1) / total
        going = _step(shift_x, shift_y, moving, step_x, step_y, limit_px)
        if not going.any():
            break
        counts, dx, dy, moving = counts[going], dx[going], dy[going], moving[going]
    return shift_x, shift_y


def _to_gravity(
    image: FloatArray,
    bits: NDArray[np.uint8],
    x: FloatArray,
    y: FloatArray,
    annulus: Annulus,
    radius_px: float,
    limit_px: float,
) -> tuple[FloatArray, FloatArray]:
    """Return the way from each prediction to the centre of gravity; NaN if lost.

    Howell (2006), Handbook of CCD Astronomy, section 5.1: the marginal sums above the background,
    those below it not counted, each times its place. The sums run over the aperture, which moves
    along; the background is the annulus's, clipped until it moves by less than 0.1 ADU.
    """
    sky_adu, _ = clipped_sky(annulus.values(image, bits, x, y), stop_adu=GRAVITY_SKY_STOP_ADU)
    cut = cut_out(image, bits, x, y, 2.0 * limit_px + radius_px)
    counts = _counts(cut, sky_adu, radius_px)
    shift_x, shift_y = np.zeros(x.size), np.zeros(x.size)
    dx, dy, moving = cut.dx, cut.dy, np.arange(x.size)
    for _ in range(MAX_PASSES):
        u, v = dx - shift_x[moving, None], dy - shift_y[moving, None]
        light = counts * pixel_overlap(u, v, radius_px)
        in_x, in_y = np.maximum(light.sum(axis=1), 0.0), np.maximum(light.sum(axis=2), 0.0)
        step_x = (in_x * u).sum(axis=1) / in_x.sum(axis=1)
        step_y = (in_y * v).sum(axis=1) / in_y.sum(axis=1)
        going = _step(shift_x, shift_y, moving, step_x, step_y, limit_px)
        if not going.any():
            break
        counts, dx, dy, moving = counts[going], dx[going], dy[going], moving[going]
    return shift_x, shift_y


def _counts(cut: Cutouts, sky_adu: FloatArray, radius_px: float) -> FloatArray:
    """Return the counts above the sky, 0 in bad pixels outside the stars' cores."""
    excess = np.where(cut.bad, 0.0, cut.values - sky_adu[:, None, None])
    return mended_by_gaussian(cut, excess, radius_px)


def _step(
    shift_x: FloatArray,
    shift_y: FloatArray,
    moving: NDArray[np.intp],
    step_x: FloatArray,
    step_y: FloatArray,
    limit_px: float,
) -> BoolArray:
    """Move the stars `moving` in place and return which of them have to go on.

    One that runs away is given up: NaN stays NaN.
    """
    shift_x[moving] += step_x
    shift_y[moving] += step_y
    lost = np.hypot(shift_x[moving], shift_y[moving]) > 2.0 * limit_px
    shift_x[moving[lost]], shift_y[moving[lost]] = np.nan, np.nan
    return ~lost & (np.hypot(step_x, step_y) > STOP_PX)
