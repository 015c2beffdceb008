"""The star profile of a frame.

`fit_frame_profile` judges one frame; which frames are tried, and in what order, is the caller's.
All numbers are DOMAIN section 7. The FWHM here is that of the fitted Moffat; AstroImageJ's
radial-profile FWHM goes into the measurement table only (`science.photometry`).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wombat_dagster import domain
from wombat_dagster.domain import BoolArray, FloatArray
from wombat_dagster.science.cutouts import FWHM_PER_SIGMA, MASK_UNUSABLE

MAX_STARS = 10
MAX_CANDIDATES = 30  # tried until MAX_STARS pass
STAMP_FWHM = 6.0
ISOLATION_FWHM = 4.0
NEIGHBOUR_FLUX = 0.05  # of the star's: a fainter neighbour does not matter
SHARP_FWHM = 0.6  # of the frame's median: narrower things are hot pixels or cosmic rays
CORE_FWHM = 1.0  # radius within which the residuals are judged
LOW_STOP = 0.9  # a stop below psf_peak_max / 0.9 changes the range of peaks
LOW_STOP_RANGE = (0.15, 0.8)
BETA_RANGE = (2.0, 6.0)
MAX_REDUCED_CHI2 = 3.0
MAX_RMS = 0.05  # of the amplitude
FWHM_RANGE_PX = (0.8, 15.0)
MIN_AXIS_RATIO = 0.5
ELONGATED = 0.7
MAX_OFF_CENTRE_PX = 1.0
FALLBACK_SNR = 50.0
MIN_STAMP_HALF_PX = 4
MAX_STAMP_HALF_PX = 45  # 6 FWHM of the widest star that passes


@dataclass(frozen=True, slots=True, kw_only=True)
class StarProfile:
    """One star's fit. `failure` says what is wrong with it, None when it is good."""

    x_px: float
    y_px: float
    amplitude_adu: float
    fwhm_px: float  # geometric mean of the Moffat's two
    axis_ratio: float
    beta: float
    gaussian_fwhm_px: float
    reduced_chi2: float
    relative_rms: float  # of the core's residuals, over the amplitude
    failure: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameProfile:
    """Medians over a frame's good stars, and the stars."""

    fwhm_px: float
    axis_ratio: float
    beta: float
    gaussian_fwhm_px: float
    n_stars: int
    n_tried: int
    elongated: bool
    stars: tuple[StarProfile, ...]
    notes: tuple[str, ...] = ()


def peak_range(
    peak_min_adu: float, peak_max_adu: float, stop_adu: float | None
) -> tuple[float, float]:
    """Return the range of peaks above the sky for profile stars.

    A camera whose counts stop low cannot reach the configured range: it gets 0.15 to 0.8 of its
    stop.
    """
    if stop_adu is not None and LOW_STOP * stop_adu < peak_max_adu:
        low, high = LOW_STOP_RANGE
        return low * stop_adu, high * stop_adu
    return peak_min_adu, peak_max_adu


def fit_frame_profile(
    image: FloatArray,
    mask: NDArray[np.integer] | BoolArray | None,
    detections: domain.Detections,
    *,
    gain_e_adu: float | None,
    linearity_adu: float,
    peak_min_adu: float = 5000.0,
    peak_max_adu: float = 30000.0,
    stop_adu: float | None = None,
) -> FrameProfile:
    """Return the profile of a frame's isolated stars in the range of peaks.

    Parameters
    ----------
    image, mask
        Reduced frame, ``[y, x]``, and the reduction's bits (as `measure_stars` takes them); a star
        with any bit in its core is not used.
    detections
        The frame's stars. Their `sky_rms_adu` is the noise of the sky, to which the star's own
        comes with `gain_e_adu` (1 when not known).
    linearity_adu
        With no star in range the brightest one below this and with SNR above 50 serves, said so.
    stop_adu
        Where the raw counts pile up, when they do.

    Raises
    ------
    BadPsf
        No candidate, or none whose fit is good; the message has the numbers.
    """
    bits = np.zeros(image.shape, np.uint8) if mask is None else mask.astype(np.uint8, copy=False)
    low, high = peak_range(peak_min_adu, peak_max_adu, stop_adu)
    in_range = (detections.peak_adu >= low) & (detections.peak_adu <= high)
    candidates = _usable(detections, bits, in_range, at_most=MAX_CANDIDATES)
    notes: tuple[str, ...] = ()
    if candidates.size == 0:
        below = detections.peak_adu + detections.sky_adu < linearity_adu
        candidates = _usable(detections, bits, below & (detections.snr > FALLBACK_SNR), at_most=1)
        if candidates.size == 0:
            raise domain.BadPsf(
                f"{np.count_nonzero(in_range)} of {len(detections)} stars have a peak of "
                f"{low:.0f} to {high:.0f} ADU, none of them isolated and clean, and no such star "
                f"below {linearity_adu:.0f} ADU has an SNR above {FALLBACK_SNR:.0f}"
            )
        notes = (
            f"no star with a peak of {low:.0f} to {high:.0f} ADU: the brightest below linearity, "
            f"{detections.peak_adu[candidates[0]]:.0f} ADU, gives the profile",
        )
    half = _stamp_half(detections, candidates)
    fits: list[StarProfile] = []
    for index in candidates:
        fits.append(_fit_star(image, bits, detections, int(index), half, gain_e_adu or 1.0))
        if sum(fit.failure is None for fit in fits) == MAX_STARS:
            break
    return _summary(fits, notes)


def _summary(fits: list[StarProfile], notes: tuple[str, ...]) -> FrameProfile:
    good = [fit for fit in fits if fit.failure is None]
    if not good:
        words = "; ".join(fit.failure for fit in fits[:5] if fit.failure)
        raise domain.BadPsf(f"none of {len(fits)} star profiles is good: {words}")
    axis_ratio = float(np.median([fit.axis_ratio for fit in good]))
    if axis_ratio < ELONGATED:
        notes = (*notes, f"stars elongated: axis ratio {axis_ratio:.2f}")
    return FrameProfile(
        fwhm_px=float(np.median([fit.fwhm_px for fit in good])),
        axis_ratio=axis_ratio,
        beta=float(np.median([fit.beta for fit in good])),
        gaussian_fwhm_px=float(np.median([fit.gaussian_fwhm_px for fit in good])),
        n_stars=len(good),
        n_tried=len(fits),
        elongated=axis_ratio < ELONGATED,
        stars=tuple(good),
        notes=notes,
    )


# --------------------------------------------------------------------------- candidates


def _usable(
    detections: domain.Detections, bits: NDArray[np.uint8], wanted: BoolArray, *, at_most: int
) -> NDArray[np.intp]:
    """Return the brightest of the stars `wanted` that are isolated, star-like and clean."""
    indices = np.flatnonzero(wanted)
    chosen: list[int] = []
    if indices.size:
        median_fwhm = float(np.nanmedian(detections.fwhm_px))
        for index in indices[np.argsort(-detections.peak_adu[indices], kind="stable")]:
            if _is_clean(detections, bits, int(index), median_fwhm):
                chosen.append(int(index))
            if len(chosen) == at_most:
                break
    return np.array(chosen, dtype=np.intp)


def _is_clean(
    detections: domain.Detections, bits: NDArray[np.uint8], index: int, median_fwhm_px: float
) -> bool:
    """Return whether a star is isolated, not sharper than stars are, and free of masked pixels."""
    x, y, flux = detections.x_px, detections.y_px, detections.flux_adu
    close = np.hypot(x - x[index], y - y[index]) < ISOLATION_FWHM * median_fwhm_px
    neighbours = np.count_nonzero(close & (flux > NEIGHBOUR_FLUX * flux[index])) - 1
    star_like = detections.fwhm_px[index] >= SHARP_FWHM * median_fwhm_px
    masked = _core(bits, x[index], y[index], median_fwhm_px).any()
    return bool(neighbours == 0 and star_like and not masked)


def _core(bits: NDArray[np.uint8], x: float, y: float, radius_px: float) -> NDArray[np.uint8]:
    """Return the mask's bits in the square about a star."""
    reach = math.ceil(radius_px)
    row, column = round(float(y)), round(float(x))
    return bits[
        max(row - reach, 0) : row + reach + 1,
        max(column - reach, 0) : column + reach + 1,
    ]


def _stamp_half(detections: domain.Detections, candidates: NDArray[np.intp]) -> int:
    fwhm = float(np.median(detections.fwhm_px[candidates]))
    half = math.ceil(STAMP_FWHM * fwhm / 2)
    return min(max(half, MIN_STAMP_HALF_PX), MAX_STAMP_HALF_PX)


# --------------------------------------------------------------------------------- fits


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stamp:
    """The usable pixels about a star, flat; `u`, `v` from its detected place."""

    u: FloatArray
    v: FloatArray
    counts: FloatArray  # above the frame's sky
    sigma: FloatArray


def _fit_star(
    image: FloatArray,
    bits: NDArray[np.uint8],
    detections: domain.Detections,
    index: int,
    half: int,
    gain_e_adu: float,
) -> StarProfile:
    x, y = float(detections.x_px[index]), float(detections.y_px[index])
    stamp = _stamp(image, bits, x, y, half, detections, gain_e_adu)
    guess_fwhm = float(np.clip(detections.fwhm_px[index], 1.0, 2.0 * half / 3.0))
    amplitude = float(detections.peak_adu[index])
    moffat = _fitted(_moffat, stamp, _moffat_start(amplitude, guess_fwhm, half))
    gaussian = _fitted(_gaussian, stamp, _gaussian_start(amplitude, guess_fwhm, half))
    height, u0, v0, width_1, width_2, _, beta, _ = moffat
    per_width = 2.0 * math.sqrt(2.0 ** (1.0 / beta) - 1.0)
    fwhm = per_width * math.sqrt(width_1 * width_2)
    residual = stamp.counts - _moffat(moffat, stamp.u, stamp.v)
    core = np.hypot(stamp.u - u0, stamp.v - v0) <= max(CORE_FWHM * fwhm, 1.5)
    freedom = max(stamp.counts.size - moffat.size, 1)
    profile = {
        "x_px": x + u0,
        "y_px": y + v0,
        "amplitude_adu": height,
        "fwhm_px": fwhm,
        "axis_ratio": min(width_1, width_2) / max(width_1, width_2),
        "beta": beta,
        "gaussian_fwhm_px": FWHM_PER_SIGMA * gaussian[3],
        "reduced_chi2": float(np.sum((residual / stamp.sigma) ** 2)) / freedom,
        "relative_rms": float(np.sqrt(np.mean(residual[core] ** 2))) / height,
    }
    return StarProfile(**profile, failure=_failure(profile, off_px=math.hypot(u0, v0)))


def _failure(profile: dict[str, float], *, off_px: float) -> str | None:
    """Return what is wrong with a fit, with the numbers, or None."""
    chi2, rms = profile["reduced_chi2"], profile["relative_rms"]
    fwhm, ratio = profile["fwhm_px"], profile["axis_ratio"]
    if not FWHM_RANGE_PX[0] < fwhm < FWHM_RANGE_PX[1]:
        return f"FWHM {fwhm:.2f} px, {FWHM_RANGE_PX[0]} to {FWHM_RANGE_PX[1]:.0f} wanted"
    if not ratio > MIN_AXIS_RATIO:
        return f"axis ratio {ratio:.2f}, above {MIN_AXIS_RATIO} wanted"
    if not off_px <= MAX_OFF_CENTRE_PX:
        return f"centre off by {off_px:.2f} px, at most {MAX_OFF_CENTRE_PX:.0f} wanted"
    if not (chi2 < MAX_REDUCED_CHI2 or rms < MAX_RMS):
        return (
            f"reduced chi² {chi2:.1f} and residuals {100 * rms:.0f} % of the amplitude, "
            f"{MAX_REDUCED_CHI2:.0f} or {100 * MAX_RMS:.0f} % wanted"
        )
    return None


def _stamp(
    image: FloatArray,
    bits: NDArray[np.uint8],
    x: float,
    y: float,
    half: int,
    detections: domain.Detections,
    gain_e_adu: float,
) -> _Stamp:
    row, column = round(y), round(x)
    rows = slice(max(row - half, 0), row + half + 1)
    columns = slice(max(column - half, 0), column + half + 1)
    counts = image[rows, columns].astype(float) - detections.sky_adu
    v, u = np.indices(counts.shape) + np.array([rows.start, columns.start])[:, None, None]
    good = np.isfinite(counts) & ((bits[rows, columns] & MASK_UNUSABLE) == 0)
    counts = counts[good]
    variance = detections.sky_rms_adu**2 + np.clip(counts, 0.0, None) / gain_e_adu
    # a noiseless sky would weigh without end
    sigma = np.sqrt(np.maximum(variance, 1e-6 * max(float(counts.max(initial=1.0)), 1.0)))
    return _Stamp(u=u[good] - x, v=v[good] - y, counts=counts, sigma=sigma)


_Start = tuple[list[float], list[float], list[float]]


def _moffat_start(amplitude: float, fwhm: float, half: int) -> _Start:
    """Return (guess, lower, upper) of amplitude, u0, v0, both widths, angle, beta, sky."""
    width, sky = fwhm / (2.0 * math.sqrt(2.0 ** (1.0 / 3.0) - 1.0)), 0.5 * amplitude
    # a start that is not round gives the angle a slope to follow
    return (
        [amplitude, 0.0, 0.0, 1.05 * width, 0.95 * width, 0.0, 3.0, 0.0],
        [0.0, -half, -half, 0.05, 0.05, -math.inf, BETA_RANGE[0], -sky],
        [20.0 * amplitude, half, half, 4.0 * half, 4.0 * half, math.inf, BETA_RANGE[1], sky],
    )


def _gaussian_start(amplitude: float, fwhm: float, half: int) -> _Start:
    """Return (guess, lower, upper) of amplitude, u0, v0, sigma, sky."""
    sky = 0.5 * amplitude
    return (
        [amplitude, 0.0, 0.0, fwhm / FWHM_PER_SIGMA, 0.0],
        [0.0, -half, -half, 0.05, -sky],
        [20.0 * amplitude, half, half, 4.0 * half, sky],
    )


def _moffat(parameters: FloatArray, u: FloatArray, v: FloatArray) -> FloatArray:
    height, u0, v0, width_1, width_2, angle, beta, sky = parameters
    along = (u - u0) * math.cos(angle) + (v - v0) * math.sin(angle)
    across = (v - v0) * math.cos(angle) - (u - u0) * math.sin(angle)
    return sky + height * (1.0 + (along / width_1) ** 2 + (across / width_2) ** 2) ** -beta


def _gaussian(parameters: FloatArray, u: FloatArray, v: FloatArray) -> FloatArray:
    height, u0, v0, sigma, sky = parameters
    return sky + height * np.exp(-((u - u0) ** 2 + (v - v0) ** 2) / (2.0 * sigma**2))


def _fitted(
    model: Callable[[FloatArray, FloatArray, FloatArray], FloatArray], stamp: _Stamp, start: _Start
) -> FloatArray:
    """Return the parameters of `model` that fit the stamp best, every pixel counting alike.

    Weights by the noise would let the faint wings decide: where the model's wings are wrong (a
    purely Gaussian star under a Moffat of beta 6) the FWHM comes out 11 % small, so 5 %.
    """
    from scipy.optimize import least_squares

    guess, lower, upper = start
    scale = np.maximum(np.abs(guess), 0.5)
    scale[-1] = max(guess[0], 0.5)  # the sky is of the order of the amplitude, not of its guess
    return least_squares(
        lambda parameters: (model(parameters, stamp.u, stamp.v) - stamp.counts) / guess[0],
        np.clip(guess, lower, upper),
        bounds=(lower, upper),
        x_scale=scale,
        ftol=1e-6,
        xtol=1e-6,
        max_nfev=200,
    ).x
