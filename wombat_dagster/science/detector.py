"""What pixels say of the detector: read noise, gain, saturation, each with where it comes from.

Arrays in, values out. Counts are ADU unless a name says otherwise.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from wombat_dagster.domain import DetectorFacts, RawFrame, Sourced

PILE_UP_PIXELS = 5  # the night's maximum occurs so often...
PILE_UP_FRAMES = 3  # ...in so many frames: the counts pile up at a stop
DEFAULT = "default"
DEFAULT_SATURATION_ADU = 55000.0  # AstroImageJ's defaults, used when nothing else is known
DEFAULT_LINEARITY_ADU = 30000.0

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
    """Return the median of the central half: the level a flat is normalised by."""
    return float(np.median(central_half(image)))


def read_noise_of_biases(first: Image, second: Image) -> float:
    """Return the read noise in ADU from two bias frames.

    The scatter of their difference, robustly, over sqrt 2 (Howell, Handbook of CCD Astronomy, 4.3).
    """
    difference = central_half(first).astype(np.float64) - central_half(second)
    return _robust_sigma(difference) / np.sqrt(2.0)


def gain_of_flats(
    first: Image, second: Image, *, offset: Image, read_noise_adu: float
) -> float | None:
    """Return the gain in e-/ADU from two flats, None when they do not tell.

    `offset` is the master bias (or bias+dark) of their shape, `read_noise_adu` that of one frame.

    Notes
    -----
    Photon transfer (Janesick 2001, Scientific Charge-Coupled Devices, ch. 2): signal over the
    variance it alone brings, in the central half, with the second flat scaled to the first's level.
    """
    signal_1, signal_2 = (
        central_half(f).astype(np.float64) - central_half(offset) for f in (first, second)
    )
    level_1, level_2 = np.median(signal_1), np.median(signal_2)
    if level_1 <= 0 or level_2 <= 0:
        return None
    ratio = level_1 / level_2
    read_variance = read_noise_adu**2 * (1 + ratio**2)
    photon_variance = _robust_sigma(signal_1 - signal_2 * ratio) ** 2 - read_variance
    if photon_variance <= 0:
        return None
    return float(level_1 * (1 + ratio) / photon_variance)


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
    """Return the highest count of a raw frame, how often it occurs, and the level."""
    maximum = raw.max()
    return RawExtremes(
        maximum_adu=float(maximum),
        n_at_maximum=int(np.count_nonzero(raw == maximum)),
        level_adu=central_median(raw),
    )


def pile_up_stop(extremes: Sequence[RawExtremes]) -> float | None:
    """Return the count at which the night's frames pile up, None when they do not.

    The night's maximum is the stop if it occurs at least 5 times in each of at least 3 frames.
    """
    if not extremes:
        return None
    stop = max(e.maximum_adu for e in extremes)
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
    level_adu = float(np.median([e.level_adu for e in extremes]))
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
