"""Master frames, calibrated frames, and what the pixels say of the detector.

Arrays in, values out: which files are combined is decided elsewhere. Counts are ADU unless a name
says otherwise.
"""

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from wombat_dagster.domain import (
    DetectorFacts,
    FrameGroup,
    FrameKind,
    MaskBit,
    Master,
    NoCalibration,
    RawFrame,
    Sourced,
)

MAD_TO_SIGMA = 1.482602218505602  # 1/Phi^-1(3/4): what astropy.stats.mad_std uses
FLAT_FLOOR = 0.05  # a normalised flat below this is masked, never divided by

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


# ---------------------------------------------------------------------------------------- masters


def clipped_median(stack: Image, *, clip_sigma: float = 5.0) -> tuple[Image, int]:
    """Return the median of a stack of frames, outliers left out, and how many pixels were left out.

    One pass: values further than `clip_sigma` x 1.4826 MAD from the median are rejected, and the
    median of the rest is taken. That works from three frames on, where a clip by the standard
    deviation rejects nothing below eight.

    Parameters
    ----------
    stack
        Shape (n, ny, nx), any real type.

    Returns
    -------
    NDArray
        float64, shape (ny, nx).
    int
        Number of rejected values.

    Notes
    -----
    The same numbers as ``ccdproc.combine(method="median", sigma_clip=True,
    sigma_clip_low_thresh=5, sigma_clip_high_thresh=5, sigma_clip_func=np.ma.median,
    sigma_clip_dev_func=astropy.stats.mad_std)``.
    """
    values = np.sort(stack.astype(np.float64), axis=0)
    middle = _median_of_sorted(values)
    deviation = np.abs(values - middle)
    limit = clip_sigma * (MAD_TO_SIGMA * np.median(deviation, axis=0))
    spoiled = np.maximum(deviation[0], deviation[-1]) > limit  # sorted: the extremes are outermost
    if not spoiled.any():
        return middle, 0
    few = values[:, spoiled]
    kept = np.where(deviation[:, spoiled] <= limit[spoiled], few, np.nan)
    middle[spoiled] = np.nanmedian(kept, axis=0)
    return middle, int(np.isnan(kept).sum())


def _median_of_sorted(values: Image) -> Image:
    n = len(values)
    if n % 2:
        return values[n // 2].copy()
    return (values[n // 2 - 1] + values[n // 2]) / 2


def central_half(image: Image) -> Image:
    """Return a view of the middle half of `image` (the last two axes) along each axis."""
    ny, nx = image.shape[-2:]
    return image[..., ny // 4 : ny - ny // 4, nx // 4 : nx - nx // 4]


def central_median(image: Image) -> float:
    """Return the median of the central half: the level a flat is normalised by."""
    return float(np.median(central_half(image)))


def flat_refusal(
    flat: "RawExtremes", *, bias_level_adu: float, saturation: Sourced,
    min_fraction: float, max_fraction: float,
) -> str | None:  # fmt: skip
    """Return why a flat of this raw central level is refused, None when it is fit.

    The fractions are of the range from the bias level to saturation. Where saturation is only a
    default, a flat is not too dark as long as there is light in it: the range is not known.
    """
    level_adu, saturation_adu = flat.level_adu, saturation.value
    reach = saturation_adu - bias_level_adu
    low = bias_level_adu + (0.0 if saturation.source == DEFAULT else min_fraction) * reach
    high = bias_level_adu + max_fraction * reach
    if level_adu >= flat.maximum_adu:
        return f"level {level_adu:.0f} ADU is its highest count: nothing but a stop"
    if level_adu >= high:
        return (
            f"level {level_adu:.0f} ADU, below {high:.0f} wanted ({saturation_adu:.0f} saturates)"
        )
    if level_adu <= low:
        return f"level {level_adu:.0f} ADU, at least {low:.0f} wanted"
    return None


def normalised_master_flat(combined: Image) -> tuple[Image, Image]:
    """Return the flat with median 1 in its central half, and where it must not be divided by.

    Returns
    -------
    NDArray
        float32, shape (ny, nx); 1 where masked.
    NDArray of bool
        True where the flat is below 5 % or not a number.
    """
    flat = combined / np.nanmedian(central_half(combined))
    unusable = ~(flat > FLAT_FLOOR)
    return np.where(unusable, 1.0, flat).astype(np.float32), unusable


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


# ----------------------------------------------------------------------- gain, saturation, noise


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


# -------------------------------------------------------------------------------- choice, reduction


def closest_master(
    masters: Iterable[Master],
    *,
    kind: FrameKind,
    date: dt.date,
    group: FrameGroup,
    filter: str | None = None,
    exposure_s: float | None = None,
    exposure_tolerance: float = 0.05,
    max_age_days: int | None = None,
    ccd_temperature_c: float | None = None,
    max_temperature_difference_c: float | None = None,
) -> tuple[Master | None, str]:
    """Return the matching master nearest in whole days, and why (or why none).

    Forwards or backwards in time; of two equally near the earlier. It matches when shape, binning,
    camera and readout are the same, for flats also the filter, and with `exposure_s` also the
    exposure within `exposure_tolerance`. The limits on age and temperature hold when given; a
    temperature that is not known passes.
    """
    of_kind = [m for m in masters if m.kind is kind]
    fits, misfits = [], []
    for master in of_kind:
        reason = _mismatch(master, group, filter, exposure_s, exposure_tolerance)
        age_days = abs((master.date - date).days)
        if reason is None and max_age_days is not None and age_days > max_age_days:
            reason = f"{age_days} days away, at most {max_age_days} allowed"
        if (
            reason is None
            and max_temperature_difference_c is not None
            and ccd_temperature_c is not None
            and master.ccd_temperature_c is not None
            and abs(master.ccd_temperature_c - ccd_temperature_c) > max_temperature_difference_c
        ):
            reason = f"at {master.ccd_temperature_c:.1f} C, {ccd_temperature_c:.1f} C wanted"
        if reason is None:
            fits.append(master)
        else:
            misfits.append((age_days, master, reason))
    words = f"{kind.value}{f' in {filter}' if filter is not None else ''}"
    if fits:
        best = min(fits, key=lambda m: (abs((m.date - date).days), m.date, m.path))
        return best, f"{words}: {best.date}, {abs((best.date - date).days)} days away"
    if misfits:
        _, master, reason = min(misfits, key=lambda m: (m[0], m[1].date, m[1].path))
        return None, f"no master {words}: nearest of {len(misfits)} is {master.date}, {reason}"
    return None, f"no master {words} on any night"


def _mismatch(
    master: Master,
    group: FrameGroup,
    filter: str | None,
    exposure_s: float | None,
    tolerance: float,
) -> str | None:
    theirs = master.group
    if theirs.shape_words != group.shape_words:
        return f"{theirs.shape_words}, {group.shape_words} wanted"
    if theirs.camera and group.camera and theirs.camera != group.camera:
        return f"camera {theirs.camera}, {group.camera} wanted"
    if theirs.readout and group.readout and theirs.readout != group.readout:
        return f"readout {theirs.readout}, {group.readout} wanted"
    if filter is not None and master.filter != filter:
        return f"filter {master.filter}"
    if exposure_s is not None and (
        master.exposure_s is None or abs(master.exposure_s - exposure_s) > tolerance * exposure_s
    ):
        return f"exposure {master.exposure_s} s, {exposure_s} s wanted"
    return None


def calibrate(
    raw: Image,
    *,
    bias: Image | None,
    dark_per_s: Image | None,
    exposure_s: float,
    flat: Image | None,
    flat_unusable: Image | None,
    saturation_adu: float,
    linearity_adu: float,
) -> tuple[Image, Image]:
    """Return the calibrated frame and its mask: (raw - bias - dark·t) / flat.

    What is None is left out. Limits are applied to the raw counts.

    Returns
    -------
    NDArray
        float32, shape of `raw`.
    NDArray
        uint8 bits of `MaskBit`.
    """
    image = raw.astype(np.float32)
    mask = np.where(raw > linearity_adu, np.uint8(MaskBit.NON_LINEAR), np.uint8(0))
    mask[raw >= saturation_adu] |= MaskBit.SATURATED
    if bias is not None:
        image -= bias
    if dark_per_s is not None:
        image -= dark_per_s * np.float32(exposure_s)
    if flat is not None:
        image /= flat
    if flat_unusable is not None:
        mask[flat_unusable] |= MaskBit.BAD
    unreal = ~np.isfinite(image)
    if unreal.any():
        mask[unreal] |= MaskBit.BAD
        image[unreal] = 0.0
    return image, mask


def refuse_too_few(n: int, minimum: int, words: str) -> None:
    """Raise `NoCalibration` when fewer than `minimum` frames are left; `words` name them."""
    if n < minimum:
        raise NoCalibration(f"{n} {words}, at least {minimum} wanted")
