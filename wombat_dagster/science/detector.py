"""What pixels say of the detector: read noise, gain, dark current, saturation, with their errors.

Arrays in, values out. Counts are ADU unless a name says otherwise.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from wombat_dagster.domain import (
    DetectorFacts,
    DetectorMeasurement,
    DetectorQuantity,
    RawFrame,
    Sourced,
)
from wombat_dagster.science.combining import MAD_TO_SIGMA

PILE_UP_PIXELS = 5  # the night's maximum occurs so often...
PILE_UP_FRAMES = 3  # ...in so many frames: the counts pile up at a stop
DEFAULT = "default"
DEFAULT_SATURATION_ADU = 55000.0  # AstroImageJ's defaults, used when nothing else is known
DEFAULT_LINEARITY_ADU = 30000.0

TILES = 8  # across and down the central half of a frame...
TILE_PX = (16, 32)  # ...each so many pixels wide and high
BLOCKS = 16  # across and down a frame, whose medians are its shape
BLOCK_SAMPLE = 32  # at most so many pixels across a block are looked at
MEDIAN_OF_MEAN = 1.2533  # noise of a median against that of a mean
GLOW_SIGMA = 10.0
MIN_GLOW = 0.2  # of the dark level itself
OUTLYING = 4.0  # tiles further off than so many sigma hold a star, a trail or a defect
CLIP_SIGMA = 4.0
CLIPPED_VARIANCE = 0.99893  # of a normal distribution within 4 sigma: 1 - 8 phi(4) / (2 Phi(4) - 1)
MIDDLE_HALF = (0.25, 0.75)

STEP_NIGHTS = 10
STEP_SIGMA = 5.0
MIN_STEP = 0.05
SAME_TEMPERATURE_C = 1.0

SKY_TILES = 4  # across and down a frame...
SKY_TILE_PX = 160  # ...of at most so many pixels: enough for the noise
MIN_SKY_TILE_PX = 32
MIN_SKY_BLOCKS = 12
FAINT_PART = 0.35
MIN_SKY_PAIRS = 20
SKY_PARTS = 10
MAX_SKY_DISAGREEMENT = 0.25

Image = NDArray[Any]


def central_half(image: Image) -> Image:
    """Return a view of the middle half of `image` (the last two axes) along each axis."""
    ny, nx = image.shape[-2:]
    return image[..., ny // 4 : ny - ny // 4, nx // 4 : nx - nx // 4]


def central_median(image: Image) -> float:
    """Return the median of the central half: the level a flat is normalised by.

    What is no number does not count; NaN when nothing is one.
    """
    middle = central_half(image)
    level = float(np.median(middle))
    if np.isfinite(level):
        return level
    known = middle[np.isfinite(middle)]
    return float(np.median(known)) if known.size else np.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A quantity of the detector with its 1-sigma error, and the number of frames behind it."""

    value: float
    error: float
    n_frames: int


def tile_rows(height_px: int) -> list[slice]:
    """Return the strips of rows in the central half of a frame that its `tiles` lie in."""
    first, last = height_px // 4, height_px - height_px // 4
    return [slice(first + start, first + start + n) for start, n in _spread(last - first)]


def tiles_of_strip(strip: Image) -> Image:
    """Return the squares in one strip of `tile_rows`, shape (n_tiles, n_px), float64."""
    width_px = strip.shape[1]
    first, last = width_px // 4, width_px - width_px // 4
    columns = [(first + start, first + start + n) for start, n in _spread(last - first)]
    return np.array([strip[:, a:b].ravel() for a, b in columns], dtype=np.float64)


def tiles(image: Image) -> Image:
    """Return squares out of the central half of `image`, shape (n_tiles, n_px), float64.

    At most 8 x 8 of 32 x 32 pixels, evenly spread: enough for some parts in a thousand, and what
    spoils one of them does not spoil the others.
    """
    return np.concatenate([tiles_of_strip(image[rows]) for rows in tile_rows(image.shape[0])])


def _spread(length_px: int) -> list[tuple[int, int]]:
    """Return start and length of the tiles along an axis."""
    n_tiles = max(2, min(TILES, length_px // TILE_PX[0]))
    step = length_px // n_tiles
    return [(number * step, min(step, TILE_PX[1])) for number in range(n_tiles)]


def read_noise(biases: Iterable[Image]) -> Measured | None:
    """Return the read noise in ADU from the `tiles` of two biases or more.

    The scatter of the difference of every two consecutive ones, robustly, over sqrt 2 (Howell,
    Handbook of CCD Astronomy, 4.3). The converter's rounding, 1/12 ADU², is in it: it is in every
    frame. Raw counts are wanted: the noise of an overscan would be taken for the pixels'.
    """
    variances, n_frames, previous = [], 0, None
    for bias in biases:
        if previous is not None:
            variances.append(_variance(bias - previous) / 2)
        previous, n_frames = bias, n_frames + 1
    if not variances:
        return None
    mean, error = _over_tiles(np.array(variances))
    if not mean > 0:
        return None
    noise = float(np.sqrt(mean))
    return Measured(value=noise, error=error / (2 * noise), n_frames=n_frames)


@dataclass(frozen=True, slots=True, kw_only=True)
class FlatPairs:
    """What every two consecutive flats tell: the gain, None when they do not, and the noise.

    `noise` is the relative 1-sigma noise of a pixel in one flat of median 1.
    """

    gain_e_adu: Measured | None
    noise: float | None


def flat_pairs(
    flats: Iterable[Image], *, read_noise_adu: float, read_noise_error_adu: float = 0.0
) -> FlatPairs:
    """Return gain and noise from the `tiles` of two flats or more, offset already subtracted.

    `read_noise_adu` is that of one frame, 0 when it is not known.

    Notes
    -----
    Photon transfer (Janesick 2001, Scientific Charge-Coupled Devices, ch. 2): signal over the
    variance it alone brings, with the second flat scaled to the first's level in every tile, so
    that neither another level nor another slope of the sky counts.
    """
    inverse_gains, relative_variances, read_parts, n_frames, previous = [], [], [], 0, None
    for flat in flats:
        level = np.median(flat, axis=1)
        level[~(level > 0)] = np.nan
        if previous is not None:
            before, level_before = previous
            ratio = level_before / level
            variance = _variance(before - flat * ratio[:, None])
            signal, reads = level_before * (1 + ratio), 1 + ratio**2
            inverse_gains.append((variance - read_noise_adu**2 * reads) / signal)
            relative_variances.append(variance / (2 * level_before**2))
            read_parts.append(np.nanmean(reads / signal) if np.isfinite(signal).any() else np.nan)
        previous, n_frames = (flat, level), n_frames + 1
    if not inverse_gains:
        return FlatPairs(gain_e_adu=None, noise=None)
    inverse, error = _over_tiles(np.array(inverse_gains))
    relative, _ = _over_tiles(np.array(relative_variances))
    noise = float(np.sqrt(relative)) if relative > 0 else None
    if not inverse > 0:
        return FlatPairs(gain_e_adu=None, noise=noise)
    read_error = 2 * read_noise_adu * read_noise_error_adu * float(np.nanmean(read_parts))
    gain = Measured(
        value=1 / inverse, error=float(np.hypot(error, read_error)) / inverse**2, n_frames=n_frames
    )
    return FlatPairs(gain_e_adu=gain, noise=noise)


def dark_current(darks: Iterable[Image], *, exposure_s: float) -> Measured | None:
    """Return the dark current in ADU/s per pixel from the `tiles` of darks without their bias.

    That of the middling pixel: the mean of the middle half, in every tile, of the pixels' means
    over the frames. Unlike the median it is not caught on the converter's steps, and hot pixels
    hardly enter. The error holds the scatter between frames, so also what the bias level drifts.
    None without exposure.
    """
    total, levels = None, []
    for dark in darks:
        total = dark if total is None else total + dark
        levels.append(_mean_of_middle(dark))
    if total is None or not exposure_s > 0:
        return None
    of_tiles = _mean_of_middle(total / len(levels))
    mean, error = _over_tiles(of_tiles[None])
    drift = _excess(np.array(levels) - of_tiles) / len(levels)
    error = float(np.sqrt(error**2 + drift))
    return Measured(value=mean / exposure_s, error=error / exposure_s, n_frames=len(levels))


def block_medians(image: Image) -> tuple[Image, float]:
    """Return the medians of 16 x 16 blocks of `image`, shape (16, 16), and the noise of one.

    Pixels are sampled; the noise is from the scatter within the blocks.
    """
    n_y, n_x = (min(BLOCKS, n) for n in image.shape)
    ny, nx = image.shape[0] // n_y, image.shape[1] // n_x
    step_y, step_x = -(-ny // BLOCK_SAMPLE), -(-nx // BLOCK_SAMPLE)
    blocks = image[: n_y * ny, : n_x * nx].reshape(n_y, ny, n_x, nx)[:, ::step_y, :, ::step_x]
    values = blocks.swapaxes(1, 2).reshape(n_y, n_x, -1).astype(np.float64)
    low, medians, high = np.percentile(values, [15.8655, 50.0, 84.1345], axis=-1)
    noise = MEDIAN_OF_MEAN * np.median(high - low) / 2 / np.sqrt(values.shape[-1])
    return medians, float(noise)


def glow_adu(dark: Image) -> float | None:
    """Return by how much the brightest part of a dark exceeds its level, None when it does not.

    Such light is of the amplifier: it does not grow with the exposure as dark current does.
    """
    medians, noise = block_medians(dark)
    level = float(np.median(medians))
    excess = float(np.max(medians)) - level
    is_glow = excess > max(GLOW_SIGMA * noise, MIN_GLOW * abs(level))
    return excess if is_glow else None


def noise_of_median(noise: float, n_frames: int) -> float:
    """Return the noise of a pixel in the median of `n_frames` with `noise` each.

    Notes
    -----
    The variance of a median of n normal values is near pi / 2n only for many; pi / 2(n + 1/2) for
    odd and pi / 2(n + 4/3) for even n are within 1.5 % of the exact ones from 3 on (n = 3: 0.4487,
    4: 0.2982, 5: 0.2868, 6: 0.2147; Kendall & Stuart, Advanced Theory of Statistics 1, 14).
    """
    if n_frames < 3:
        return noise / float(np.sqrt(n_frames))
    return noise * float(np.sqrt(np.pi / 2 / (n_frames + (1 / 2 if n_frames % 2 else 4 / 3))))


def frame_noise(frames: Iterable[Image]) -> float | None:
    """Return the noise of a pixel of one frame in ADU, from the `tiles` of two frames or more."""
    measured = read_noise(frames)
    return None if measured is None else measured.value


def _variance(values: Image) -> Image:
    """Return the variance along the last axis, without what lies beyond 4 sigma of the median."""
    low, centre, high = np.percentile(values, [15.8655, 50.0, 84.1345], axis=-1)
    # Whole-number counts make the MAD a step function: the inner 68.3 % interpolates between steps.
    limit = CLIP_SIGMA * np.maximum((high - low) / 2, 1.0)
    deviation = values - centre[..., None]
    kept = np.abs(deviation) <= limit[..., None]
    n = kept.sum(axis=-1)
    deviation *= kept
    mean = deviation.sum(axis=-1) / n
    squares = np.einsum("...i,...i->...", deviation, deviation)
    return np.asarray((squares - n * mean**2) / (n - 1) / CLIPPED_VARIANCE)


def _mean_of_middle(values: Image) -> Image:
    """Return the mean of the values between the quartiles, along the last axis."""
    n = values.shape[-1]
    low, high = (int(part * n) for part in MIDDLE_HALF)
    middle = np.partition(values, (low, max(low, high - 1)), axis=-1)[..., low : max(high, low + 1)]
    return np.asarray(middle.mean(axis=-1))


def _over_tiles(samples: Image) -> tuple[float, float]:
    """Return the mean of `samples`, shape (n_samples, n_tiles), and its error; NaN of nothing.

    Outlying ones are left out. The error is what the scatter from tile to tile gives, and what the
    samples scatter beyond that.
    """
    known = samples[np.isfinite(samples)]
    if not known.size:
        return np.nan, np.nan
    centre = np.median(known)
    limit = OUTLYING * MAD_TO_SIGMA * np.median(np.abs(known - centre))
    kept = np.where(np.abs(samples - centre) <= limit, samples, np.nan)
    of_tiles = _mean_of_known(kept)
    of_tiles = of_tiles[np.isfinite(of_tiles)]
    variance = np.var(of_tiles, ddof=1) / of_tiles.size if of_tiles.size > 1 else np.nan
    return float(of_tiles.mean()), float(np.sqrt(variance + _excess(kept) / len(samples)))


def _excess(samples: Image) -> float:
    """Return the variance from sample to sample beyond what that of their tiles explains."""
    if len(samples) < 2:
        return 0.0
    counts = np.isfinite(samples).sum(axis=1)
    samples, counts = samples[counts > 1], counts[counts > 1]
    if len(samples) < 2:
        return 0.0
    explained = float(np.mean(np.nanvar(samples, axis=1, ddof=1) / counts))
    found = float(np.var(np.nanmean(samples, axis=1), ddof=1))
    return max(0.0, found - explained)


def _mean_of_known(samples: Image) -> Image:
    """Return the mean over the first axis of what is not NaN; NaN where nothing is known."""
    known = np.isfinite(samples)
    n = known.sum(axis=0)
    return np.where(n > 0, np.where(known, samples, 0.0).sum(axis=0) / np.maximum(n, 1), np.nan)


def step_words(new: DetectorMeasurement, history: Iterable[DetectorMeasurement]) -> str | None:
    """Return how a night's value differs from those of the nights before; None when it does not.

    It is a step when it departs from the median of up to ten nights of the same detector by more
    than five sigma, the errors and the scatter from night to night in quadrature, and by more than
    5 %. Dark currents are compared at the same temperature of the CCD only.
    """
    before = [
        old
        for old in history
        if (old.group, old.quantity) == (new.group, new.quantity)
        and old.date < new.date
        and (new.quantity is not DetectorQuantity.DARK_CURRENT or _is_as_warm(old, new))
    ]
    before = sorted(before, key=lambda old: old.date)[-STEP_NIGHTS:]
    if not before:
        return None
    values = np.array([old.value for old in before])
    usual = float(np.median(values))
    scatter = MAD_TO_SIGMA * float(np.median(np.abs(values - usual)))
    error = float(np.sqrt(np.mean([old.error**2 for old in before]) / len(before)))
    sigma = float(np.sqrt(new.error**2 + error**2 + scatter**2))
    change = new.value - usual
    if not (abs(change) > STEP_SIGMA * sigma and abs(change) > MIN_STEP * abs(usual)):
        return None
    unit = _UNITS[new.quantity]
    nights = "the night before" if len(before) == 1 else f"the {len(before)} nights before"
    relative = f"{change / usual:+.1%}, " if usual else ""
    return (
        f"{new.quantity.name.lower().replace('_', ' ')} {new.value:.4g} {unit},"
        f" {usual:.4g} on {nights} ({relative}{abs(change) / sigma:.0f} sigma)"
    )


_UNITS = {
    DetectorQuantity.READ_NOISE: "ADU",
    DetectorQuantity.GAIN: "e-/ADU",
    DetectorQuantity.DARK_CURRENT: "ADU/s",
}


def _is_as_warm(one: DetectorMeasurement, other: DetectorMeasurement) -> bool:
    if one.ccd_temperature_c is None or other.ccd_temperature_c is None:
        return one.ccd_temperature_c is other.ccd_temperature_c
    return abs(one.ccd_temperature_c - other.ccd_temperature_c) <= SAME_TEMPERATURE_C


def weighted_mean(measured: Sequence[Measured]) -> Measured:
    """Return the mean of measurements of one quantity, weighted by their errors.

    Where they scatter more than their errors say, the error grows by as much (Birge 1932, Phys.
    Rev. 40, 207).
    """
    values, errors = (np.array([getattr(m, name) for m in measured]) for name in ("value", "error"))
    weights = 1 / errors**2
    mean = float(np.sum(weights * values) / weights.sum())
    chi2 = float(np.sum(weights * (values - mean) ** 2)) / max(1, len(values) - 1)
    error = float(np.sqrt(max(1.0, chi2) / weights.sum()))
    return Measured(value=mean, error=error, n_frames=sum(m.n_frames for m in measured))


def sky_noise(first: Image, second: Image) -> Image:
    """Return the noise of the sky in two consecutive frames, from the difference of both.

    What stays in its place (hot pixels, the flat field) drops out of the difference. In every tile
    only the faintest third counts, so that stars, which move a little, hardly enter; slopes drop
    out because neighbours are subtracted.

    Returns
    -------
    NDArray
        A row per tile: mean level in ADU, variance per pixel in ADU² from single pixels, and from
        sums of 4x4 pixels; NaN where too little is left. Where the noise of a pixel is its own
        both are equal; they are not behind an interpolation, or where stars are left.
    """
    noise = [_tile_noise(a, b) for a, b in zip(_tiles(first), _tiles(second), strict=True)]
    return np.array(noise)


def _tiles(image: Image) -> list[Image]:
    step_y, step_x = (n // SKY_TILES for n in image.shape)
    ny, nx = (min(step, SKY_TILE_PX) // 4 * 4 for step in (step_y, step_x))
    corners = [(y * step_y, x * step_x) for y in range(SKY_TILES) for x in range(SKY_TILES)]
    return [image[y : y + ny, x : x + nx].astype(np.float64) for y, x in corners]


def _tile_noise(first: Image, second: Image) -> tuple[float, float, float]:
    if min(first.shape) < MIN_SKY_TILE_PX:
        return np.nan, np.nan, np.nan
    mean = (first + second) / 2
    around = sliding_window_view(mean, (3, 3)).mean(axis=(2, 3))[3:-3, 3:-3]
    brightest = _blocks(around).max(axis=(2, 3))
    faint: Image = np.asarray(brightest <= np.quantile(brightest, FAINT_PART))
    inner = np.s_[4:-4, 4:-4]
    blocks = _blocks((second - first)[inner])
    steps = (blocks[:, 1:] - blocks[:, :-1])[faint[:, 1:] & faint[:, :-1]]
    if len(steps) < MIN_SKY_BLOCKS:
        return np.nan, np.nan, np.nan
    # A step is a difference of differences: four times the variance of a pixel, of 16 in a block.
    return (
        float(_blocks(mean[inner])[faint].mean()),
        _robust_sigma(steps) ** 2 / 4,
        _robust_sigma(steps.sum(axis=(1, 2))) ** 2 / (4 * 16),
    )


def _blocks(image: Image) -> Image:
    """Return `image` in squares of 4x4: shape (ny / 4, nx / 4, 4, 4)."""
    ny, nx = image.shape
    return image.reshape(ny // 4, 4, nx // 4, 4).swapaxes(1, 2)


def gain_of_sky(noise: Sequence[Image]) -> Sourced | None:
    """Return the gain in e-/ADU from the growth of the sky's variance with its level.

    `noise` has what `sky_noise` says of every two consecutive frames of a night. The bias level
    drops out of the slope. None when there are too few frames, when the level hardly changes, or
    when single pixels and sums of them do not agree: a wrong gain is worse than none.

    Notes
    -----
    The mean of both slopes; its error holds their difference and what a jackknife over ten parts
    of the night finds.
    """
    if len(noise) < MIN_SKY_PAIRS:
        return None
    samples = np.array(noise)
    slopes = _variance_slopes(samples)
    slope = slopes.mean()
    parts = np.array_split(np.arange(len(samples)), SKY_PARTS)
    without = [_variance_slopes(np.delete(samples, part, axis=0)).mean() for part in parts]
    error = np.hypot(np.std(without) * np.sqrt(SKY_PARTS - 1), np.ptp(slopes) / 2)
    agree = np.ptp(slopes) <= MAX_SKY_DISAGREEMENT * slope
    if not (agree and error <= MAX_SKY_DISAGREEMENT * slope):  # also when NaN
        return None
    gain = float(1.0 / slope)
    # Plus and minus in ASCII: the words become a FITS card.
    return Sourced(value=gain, source=f"frame differences, {gain:.3g} +- {error * gain**2:.2g}")


def _variance_slopes(samples: Image) -> Image:
    """Return the slopes of both variances against the level, in one fit through all tiles."""
    level, *variances = samples[np.isfinite(samples).all(axis=-1)].T
    if len(level) < MIN_SKY_PAIRS or np.ptp(level) == 0:
        return np.full(2, np.nan)
    return np.array([np.polyfit(level - level.mean(), v, 1)[0] for v in variances])


def _robust_sigma(values: Image) -> float:
    flat = values.ravel()
    centre = np.median(flat)
    # Whole-number counts make the MAD a step function: the inner 68.3 % interpolates between steps.
    low, high = np.percentile(flat, [15.8655, 84.1345])
    quantile = (high - low) / 2
    kept = flat[np.abs(flat - centre) <= 4 * max(quantile, 1.0)]
    return float(np.std(kept))


@dataclass(frozen=True, slots=True, kw_only=True)
class RawExtremes:
    """What one pass over a raw frame tells of the detector's limits."""

    maximum_adu: float
    n_at_maximum: int
    level_adu: float  # median of the central half: the sky of a light


def raw_extremes(raw: Image) -> RawExtremes:
    """Return the highest count of a raw frame, how often it occurs, and the level.

    Pixels that are no numbers have no say in the highest count.
    """
    maximum = raw.max()
    if np.isnan(maximum):
        finite = raw[np.isfinite(raw)]
        maximum = finite.max() if finite.size else maximum
    is_countable = raw.dtype in (np.uint8, np.uint16)
    return RawExtremes(
        maximum_adu=float(maximum),
        n_at_maximum=int(np.count_nonzero(raw == maximum)),
        level_adu=_median_of_counts(central_half(raw)) if is_countable else central_median(raw),
    )


def _median_of_counts(counts: Image) -> float:
    """Return the median of small whole numbers, from how often each occurs: without sorting."""
    values = counts.ravel()
    n_up_to = np.cumsum(np.bincount(values))
    middle = np.array([(values.size - 1) // 2, values.size // 2])
    return float(np.mean(np.searchsorted(n_up_to, middle, side="right")))


def pile_up_stop(extremes: Sequence[RawExtremes]) -> float | None:
    """Return the count at which the night's frames pile up, None when they do not.

    The night's maximum is the stop if it occurs at least 5 times in each of at least 3 frames.
    """
    if not extremes:
        return None
    stop = max((e.maximum_adu for e in extremes if np.isfinite(e.maximum_adu)), default=None)
    piled = [e for e in extremes if e.maximum_adu == stop and e.n_at_maximum >= PILE_UP_PIXELS]
    return stop if len(piled) >= PILE_UP_FRAMES else None


def saturation_of(
    extremes: Sequence[RawExtremes], *, configured_adu: float | None, header_adu: float | None
) -> Sourced:
    """Return the raw count from which pixels are saturated, and how that is known."""
    stop, below_stop_adu = _below_stop(extremes, 0.05)
    saturation = _first_source(
        (configured_adu, "configuration"),
        (header_adu, "header"),
        (below_stop_adu, f"pile-up at {stop} ADU"),
        (DEFAULT_SATURATION_ADU, DEFAULT),
    )
    assert saturation is not None
    return saturation


def _below_stop(
    extremes: Sequence[RawExtremes], fraction: float
) -> tuple[float | None, float | None]:
    """Return the stop, and the count that is `fraction` of the range above the level below it."""
    stop = pile_up_stop(extremes)
    if stop is None:
        return None, None
    level_adu = float(np.nanmedian([e.level_adu for e in extremes]))
    return stop, stop - fraction * (stop - level_adu)


def detector_facts(
    frames: Sequence[RawFrame],
    extremes: Sequence[RawExtremes],
    *,
    configured_gain_e_adu: float | None = None,
    configured_read_noise_e: float | None = None,
    configured_saturation_adu: float | None = None,
    configured_linearity_adu: float | None = None,
    flats_gain: Sourced | None = None,
    sky_gain: Sourced | None = None,
    bias_read_noise_adu: float | None = None,
) -> DetectorFacts:
    """Return gain, read noise and limits of an observation, each with where it comes from.

    The first source that has a value wins: configuration, header, measurement. Gain and read noise
    stay None when none has; saturation and linearity fall back to AstroImageJ's 55000 and 30000.
    """
    first = frames[0]
    gain = (
        _first_source(
            (configured_gain_e_adu, "configuration"),
            (first.gain_header_e_adu, first.gain_header_source or "header"),
        )
        or flats_gain
        or sky_gain
    )
    noise_e = bias_read_noise_adu * gain.value if bias_read_noise_adu and gain else None
    read_noise = _first_source(
        (configured_read_noise_e, "configuration"),
        (first.read_noise_header_e, "header"),
        (noise_e, "bias pair"),
    )
    saturation = saturation_of(
        extremes,
        configured_adu=configured_saturation_adu,
        header_adu=first.saturation_header_adu,
    )
    stop, below_stop_adu = _below_stop(extremes, 0.10)
    linearity = _first_source(
        (configured_linearity_adu, "configuration"),
        (below_stop_adu, f"pile-up at {stop} ADU"),
        (DEFAULT_LINEARITY_ADU, DEFAULT),
    )
    assert linearity is not None
    if linearity.value > saturation.value:
        linearity = Sourced(value=saturation.value, source=f"saturation ({saturation.source})")
    return DetectorFacts(
        gain_e_adu=gain,
        read_noise_e=read_noise,
        saturation_adu=saturation,
        linearity_adu=linearity,
        stop_adu=stop,
    )


def _first_source(*candidates: tuple[float | None, str]) -> Sourced | None:
    for value, source in candidates:
        if value is not None:
            return Sourced(value=value, source=source)
    return None
