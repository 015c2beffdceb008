"""Stars of the field that steady the zero point from frame to frame, besides the chart's.

Which of a frame's detections may serve, how steady stars are against each other, and which of them
stand out as variable. Measuring them is `science.photometry.sum_stars`, the zero point
`science.standard`.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from wombat_dagster import domain
from wombat_dagster.domain import BoolArray, Flag, FloatArray
from wombat_dagster.science import astrometry
from wombat_dagster.science.sequence import crowded

MAX_OF_LINEARITY = 0.9  # of the linearity level, on the typical frame: the seeing gets better
MIN_DETECTION_SNR = 10.0
MIN_SNR = 20.0  # of the median measurement, as of comps
MAX_UNFIT = 0.05  # of the frames: saturated, non-linear or without a value
SPARE = 3  # times the stars wanted are looked at closely

CLIP_SIGMA = 4.0
SIGMA_OF_MEDIAN = 1.4826
FLOOR_MAG = 0.001  # of a star's scatter, lest one star carries all weight
WEIGHT_ROUNDS = 5

MIN_FRAMES_TO_JUDGE = 10
MIN_STARS_TO_JUDGE = 6
OUTLIER_ROUNDS = 5
OUTLIER_SIGMA = 4.0
MIN_LOG_SPREAD = 0.1  # stars of a brightness are never more alike than that
MIN_EXCESS = 1.5  # times the scatter of stars of its brightness
LIKE_STARS = 15  # neighbours in brightness


# ------------------------------------------------------------------------------ which may serve


def select_field_stars(
    detections: domain.Detections,
    solution: domain.WcsSolution,
    solutions: Sequence[domain.WcsSolution],
    *,
    width_px: int,
    height_px: int,
    margin_px: float,
    radius_px: float,
    fwhm_px: float,
    linearity_adu: float,
    avoid_ra_deg: FloatArray,
    avoid_dec_deg: FloatArray,
    max_stars: int,
) -> tuple[FloatArray, FloatArray]:
    """Return (ra_deg, dec_deg) of a typical frame's stars that may serve, brightest first.

    Parameters
    ----------
    detections, solution
        The stars of that frame, and where it points.
    solutions
        Of every frame that is measured: the stars lie on all of them, at least `margin_px` from the
        edges.
    linearity_adu
        Peaks, sky included, stay below nine tenths of it.
    avoid_ra_deg, avoid_dec_deg
        T1, the chart's stars and the known variables: a star with one of those in its aperture, or
        within a FWHM of it, does not serve.
    """
    x, y = detections.x_px, detections.y_px
    fit = (detections.peak_adu + detections.sky_adu < MAX_OF_LINEARITY * linearity_adu) & (
        detections.snr >= MIN_DETECTION_SNR
    )
    avoid_x, avoid_y = astrometry.project(solution, avoid_ra_deg, avoid_dec_deg)
    apart_px = np.hypot(x[:, None] - avoid_x, y[:, None] - avoid_y)
    fit &= ~(apart_px < radius_px + fwhm_px).any(axis=1)  # NaN: behind the sky's edge
    places = np.flatnonzero(fit)
    places = places[np.argsort(-detections.flux_adu[places], kind="stable")]
    ra_deg, dec_deg = astrometry.sky(solution, x[places], y[places])
    inside = np.ones(places.size, bool)
    for frame in solutions:
        where = astrometry.project(frame, ra_deg, dec_deg)
        inside &= astrometry.inside_frame(*where, width_px, height_px, margin_px=margin_px)
    kept = np.flatnonzero(inside)[: SPARE * max_stars]
    words = crowded(
        x[places[kept]],
        y[places[kept]],
        detections.flux_adu[places[kept]],
        detections,
        radius_px=radius_px,
        fwhm_px=fwhm_px,
    )
    alone = [index for index, word in zip(kept, words, strict=True) if word is None][:max_stars]
    return ra_deg[alone], dec_deg[alone]


# ------------------------------------------------------------------------------ how steady


def against_the_others(mag: FloatArray, *, terms: FloatArray | None = None) -> FloatArray:
    """Return each star's magnitude less the zero point of all the others, median 0.

    Parameters
    ----------
    mag
        Instrumental magnitudes, shape (n_frames, n_stars), n_stars >= 2; NaN where there is none.
    terms
        What else may make a star drift (time, airmass), shape (n_frames, n_terms): a straight line
        in them is taken off each star.

    Notes
    -----
    A frame's zero point is the mean over the other stars of magnitude less the star's own median,
    weighted by 1/scatter², the scatter being that of this very difference: five rounds.
    """
    measured = np.isfinite(mag)
    level: FloatArray = mag - column_medians(mag)
    weight: FloatArray = np.ones(mag.shape[1])
    residual: FloatArray = level
    for _ in range(WEIGHT_ROUNDS):
        each = np.where(measured, weight, 0.0)
        light = each * np.where(measured, level, 0.0)
        others = each.sum(axis=1, keepdims=True) - each
        with np.errstate(divide="ignore", invalid="ignore"):
            zero_point = (light.sum(axis=1, keepdims=True) - light) / others
        residual = np.where(others > 0, level - zero_point, np.nan)
        if terms is not None:
            residual = _without_lines(residual, terms)
        offset = column_medians(residual)
        residual, level = residual - offset, level - offset
        weight = 1.0 / (clipped_scatter(residual) ** 2 + FLOOR_MAG**2)
        weight[~np.isfinite(weight)] = 0.0
    return residual


def _without_lines(values: FloatArray, terms: FloatArray) -> FloatArray:
    """Return the columns less their fit by a constant and `terms`, gross outliers left out."""
    design = np.column_stack([np.ones(len(terms)), terms - terms.mean(axis=0)])
    centred = values - column_medians(values)
    reach = CLIP_SIGMA * SIGMA_OF_MEDIAN * column_medians(np.abs(centred))
    with np.errstate(invalid="ignore"):
        fitted = np.where(np.abs(centred) <= reach, centred, 0.0)  # few enough not to matter
    coefficients, *_ = np.linalg.lstsq(design, fitted, rcond=None)
    return values - design @ coefficients


def clipped_scatter(values: FloatArray) -> FloatArray:
    """Return the standard deviation of each column within 4 robust sigmas of its median."""
    centred = values - column_medians(values)
    reach = CLIP_SIGMA * SIGMA_OF_MEDIAN * column_medians(np.abs(centred))
    with np.errstate(invalid="ignore", divide="ignore"):
        used = np.abs(centred) <= reach
        kept = np.where(used, centred, 0.0)
        number = used.sum(axis=0)
        mean = kept.sum(axis=0) / number
        return np.sqrt(np.clip((kept**2).sum(axis=0) / number - mean**2, 0.0, None))


def column_medians(values: FloatArray) -> FloatArray:
    """Return the median of each column without its NaNs; NaN where there is nothing else."""
    ordered = np.sort(values, axis=0)  # NaNs go last
    number = np.isfinite(values).sum(axis=0)
    low, high = np.maximum((number - 1) // 2, 0), np.minimum(number // 2, len(values) - 1)
    columns = np.arange(values.shape[1])
    return np.where(number > 0, (ordered[low, columns] + ordered[high, columns]) / 2, np.nan)


def instrumental(source_sky_adu: FloatArray) -> FloatArray:
    """Return -2.5 log10 of the counts; NaN where they are not positive."""
    return -2.5 * np.log10(np.where(source_sky_adu > 0, source_sky_adu, np.nan))


# ------------------------------------------------------------------------------ which remain


def steady_field_stars(
    source_sky_adu: FloatArray, snr: FloatArray, flags: NDArray[np.int64]
) -> BoolArray:
    """Return which of the stars measured serve, shape (n_stars,).

    Parameters
    ----------
    source_sky_adu, snr, flags
        Shape (n_frames, n_stars).

    Notes
    -----
    Out are stars that are saturated, non-linear or without a value on more than 5 % of the frames,
    of a median SNR below 20, and those that vary: whose scatter against the others exceeds that of
    stars of their brightness by 4 robust sigmas of the logarithms, and by half. Judged on the
    median of each three frames, so that a cosmic ray does not make a variable; again without those
    found, up to five times. Fewer than ten frames or six stars say nothing about variability.
    """
    n_frames = len(flags)
    too_high = (flags & (Flag.SATURATED | Flag.NON_LINEAR)) != 0
    unfit = too_high | ~(source_sky_adu > 0)
    keep: BoolArray = unfit.sum(axis=0) <= MAX_UNFIT * n_frames
    keep &= column_medians(snr) >= MIN_SNR
    if n_frames < MIN_FRAMES_TO_JUDGE:
        return keep
    mag = instrumental(np.where(unfit, np.nan, source_sky_adu))
    for _ in range(OUTLIER_ROUNDS):
        places = np.flatnonzero(keep)
        if places.size < MIN_STARS_TO_JUDGE:
            break
        varies = _varies(mag[:, places])
        if not varies.any():
            break
        keep[places[varies]] = False
    return keep


def _varies(mag: FloatArray) -> BoolArray:
    """Return which stars scatter more than stars of their brightness do."""
    smooth = _median_of_three(against_the_others(mag))
    number = np.isfinite(smooth).sum(axis=0)
    squares = np.where(np.isfinite(smooth), smooth, 0.0) ** 2
    scatter = np.sqrt(squares.sum(axis=0) / np.maximum(number, 1))
    log_scatter = np.log(np.maximum(scatter, 1e-6))
    order = np.argsort(column_medians(mag), kind="stable")
    excess = np.empty(len(order))
    usual = _runningcolumn_medians(log_scatter[order])
    excess[order] = log_scatter[order] - usual
    spread = max(SIGMA_OF_MEDIAN * float(np.median(np.abs(excess))), MIN_LOG_SPREAD)
    return (excess > OUTLIER_SIGMA * spread) & (excess > np.log(MIN_EXCESS))


def _runningcolumn_medians(values: FloatArray) -> FloatArray:
    """Return the median of the `LIKE_STARS` about each place, the nearest so many at the ends."""
    width = min(LIKE_STARS, values.size)
    windows = np.median(np.lib.stride_tricks.sliding_window_view(values, width), axis=1)
    first = np.clip(np.arange(values.size) - width // 2, 0, windows.size - 1)
    return windows[first]


def _median_of_three(values: FloatArray) -> FloatArray:
    """Return the median of each frame and its neighbours in time; NaN with either."""
    return np.median(np.stack([values[:-2], values[1:-1], values[2:]]), axis=0)
