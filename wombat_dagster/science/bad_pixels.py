"""Which pixels of a detector are bad: hot, dead or noisy, by calibrations and by the lights.

Everything is told from the excess of a pixel over its surroundings, so that neither bias level nor
sky, vignetting or dust enter. Arrays are ``[y, x]``, counts ADU; how frames are read is decided
elsewhere. Cosmic rays, which hit another pixel every time, are `science.cosmic_rays`.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wombat_dagster.domain import BoolArray, Detections, FloatArray

Image = NDArray[Any]


class BadPixel:
    """Bits of a map of bad pixels; 0 is a good pixel."""

    HOT = 1  # by darks or the level of biases
    RESPONSE = 2  # dead or of an odd response, by flats, or darker than the sky in every light
    NOISY = 4  # scatters from bias to bias
    LIGHT = 8  # found in the lights


MAX_BAD_FRACTION = 0.02  # more than this is no defect of single pixels: something else is wrong

HALF_BOX_PX = 3  # the surroundings are 7 x 7 pixels: a bad column is in the minority
SKY_REACH_PX = 8  # beyond a star: there the light under a peak is taken from
HALO_PX = SKY_REACH_PX + HALF_BOX_PX  # rows that a band needs on both sides

# A pixel is hot when it makes a spike of 10 sigma in the lights: more than all the noise that the
# sky has in an aperture of 50 pixels, 7 sigma. A lesser one does less harm than a pixel of a star's
# core that has to be mended.
SPIKE_SIGMAS = 10.0
# Of the master dark itself, beyond doubt; see `hot_in_dark`.
DARK_SIGMAS = 7.0  # 5 would take a pixel of good noise in every few million
BIAS_LEVEL_SIGMAS = 10.0  # of the read noise: structure below is what a bias is subtracted for
FLICKER_SIGMAS = 5.0
MIN_FLICKERING_BIASES = 5

# A flat divides out what a pixel responds too little. Beyond this it no longer holds: the pixel is
# half covered, leaks charge or has another colour than its neighbours.
ODD_RESPONSE = 0.20
RESPONSE_SIGMAS = 10.0

MIN_LIGHTS = 3
MIN_POINTINGS = 3
POINTING_SIGMAS = 10.0  # of a star that tells pointings apart: noise lies elsewhere every time
MIN_STARS_OF_POINTING = 8
MAX_STARS_OF_POINTING = 100
MAX_CHANCE_COVER = 0.25  # of the frame, by circles about the stars of another one
MAX_SHARE_IN_PLACE = 0.5  # of the stars, where the sky has moved
MIN_SHIFT_PX = 10.0  # a bright star's disk, spikes and bleeding included, leaves its pixels...
MIN_SHIFT_FWHM = 4.0  # ...also where it is wide
MAX_EXPECTED_BY_CHANCE = 1.0  # pixels of the frame, with stars in every pointing

# `detection.MIN_FWHM_OF_TYPICAL`: a star may be so much narrower than the typical one.
NARROWEST_OF_TYPICAL = 0.6
SHARPER_BY = 0.5  # what is beside a hot pixel has at most so much of the light it had by a star
WIDTH_WITHOUT_STARS_PX = 1.5  # the FWHM taken where no light shows a star
MAX_BESIDE = 0.3  # of the pixel's light: however wide the stars, it stands out
MAX_RUN_PX = 3  # of hot pixels side by side
SHARP_SIGMAS = 3.0
FWHM_PER_SIGMA = 2.0 * math.sqrt(2.0 * math.log(2.0))
SIGMA_OF_MEDIAN = math.sqrt(math.pi / 2)  # times sigma/sqrt(n)
CLIP_SIGMAS = 4.0

BLOCK_PX = 2**16  # worked on at once: seven times this stays in the processor's cache
# Comparators that bring the median of seven to the middle (Paeth 1990, Graphics Gems, p. 171).
MEDIAN_OF_7 = (
    (0, 5), (0, 3), (1, 6), (2, 4), (0, 1), (3, 5), (2, 6), (2, 3), (3, 6), (4, 5), (1, 4), (1, 3),
    (3, 4),
)  # fmt: skip


# -------------------------------------------------------------------------- a pixel among others


def excess(image: Image) -> FloatArray:
    """Return how far every pixel lies above the median of its surroundings, float32.

    The median of 7 columns' medians of 7 rows: a cluster of 3 x 3, and a line 3 wide, are in the
    minority. Near the edges the frame is mirrored. A value that is no number has none (NaN), and
    does not count for its neighbours.
    """
    pixels = image.astype(np.float32)  # a copy, which becomes the answer
    padded = np.pad(pixels, HALF_BOX_PX, mode="reflect")
    ny, nx = pixels.shape
    step = max(BLOCK_PX // nx, 1)
    for start in range(0, ny, step):
        stop = min(start + step, ny)
        block = padded[start : stop + 2 * HALF_BOX_PX]
        across = _median_of_7([block[:, i : i + nx] for i in range(7)])
        pixels[start:stop] -= _median_of_7([across[i : i + stop - start] for i in range(7)])
    return pixels


def _median_of_7(values: Sequence[Image]) -> Image:
    values = [value.copy() for value in values]
    spare = np.empty_like(values[0])
    for low, high in MEDIAN_OF_7:
        np.fmin(values[low], values[high], out=spare)  # the number, where the other is none
        np.fmax(values[low], values[high], out=values[high])
        values[low], spare = spare, values[low]
    return values[3]


def noise_of(above: Image) -> float:
    """Return the sigma of the excesses `above`, stars and bad pixels left out.

    The standard deviation within 4 x 1.4826 MAD: a MAD alone of whole counts moves in steps.
    """
    known = above[np.isfinite(above)]
    if known.size == 0:
        return math.nan
    spread = 1.4826 * float(np.median(np.abs(known)))
    core = known[np.abs(known) <= CLIP_SIGMAS * spread] if spread > 0 else known
    return float(np.std(core.astype(np.float64)))


# ----------------------------------------------------------------------------------- calibrations


def hot_in_dark(
    dark: Image,
    *,
    exposure_s: float,
    light_exposure_s: float | None,
    light_noise_adu: float | None,
) -> BoolArray:
    """Return which pixels of a master dark are hot enough to matter in the lights.

    Parameters
    ----------
    dark
        With or without the bias, which is the same for a pixel and its neighbours.
    light_exposure_s, light_noise_adu
        The longest exposure of the lights and the noise of a pixel of their sky; None where there
        are none: then an excess of 7 sigma of the dark's own noise counts.

    Notes
    -----
    Excess × light exposure / dark exposure > 10 sigma of the light, and excess > 7 sigma of the
    master dark. A subtracted dark takes such a spike away but not its photon noise, nor what it
    has more or less at another temperature. Darks much shorter than the lights show only the worst.
    """
    above = excess(dark)
    noise_adu = noise_of(above)
    hot: BoolArray = above > DARK_SIGMAS * noise_adu
    if light_exposure_s is not None and light_noise_adu is not None and exposure_s > 0:
        hot &= above * (light_exposure_s / exposure_s) > SPIKE_SIGMAS * light_noise_adu
    return hot


def odd_in_flat(flat: Image, unusable: BoolArray | None) -> BoolArray:
    """Return which pixels respond unlike their neighbours: by 20 % and 10 sigma, or not at all.

    `unusable` is where the flat must not be divided by. A dark corner is no defect of pixels: only
    what stands alone among good ones counts.
    """
    response = flat.astype(np.float32)
    if unusable is not None:
        response[unusable] = 0.0
    above = excess(response)
    around = response - above
    with np.errstate(divide="ignore", invalid="ignore"):
        deviation = np.where(around > ODD_RESPONSE, above / around, 0.0)
    limit = max(ODD_RESPONSE, RESPONSE_SIGMAS * noise_of(deviation))
    return np.asarray(np.abs(deviation) > limit)


def odd_in_bias(bias: Image, *, read_noise_adu: float) -> BoolArray:
    """Return which pixels of a master bias lie 10 read noises off their surroundings."""
    return np.asarray(np.abs(excess(bias)) > BIAS_LEVEL_SIGMAS * read_noise_adu)


def read_noise_of(first: Image, second: Image) -> float:
    """Return the read noise of a pixel in ADU, from two biases."""
    difference = first.astype(np.float64) - second
    return noise_of(difference - np.median(difference)) / math.sqrt(2.0)


def flickering(biases: Image, *, read_noise_adu: float) -> BoolArray:
    """Return which pixels jump: by 5 read noises from their median in at least two biases.

    `biases` has shape (n, rows, nx). In two, for a cosmic ray hits a pixel once.
    """
    ordered = np.sort(biases, axis=0).astype(np.float32)
    middle = len(ordered) // 2
    median = ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2
    outer = np.stack(
        [median - ordered[0], median - ordered[1], ordered[-1] - median, ordered[-2] - median]
    )
    return np.asarray(np.sort(outer, axis=0)[-2] > FLICKER_SIGMAS * read_noise_adu)


# ----------------------------------------------------------------------------------------- lights


@dataclass(frozen=True, slots=True, kw_only=True)
class Outliers:
    """Pixels that stand out by 10 sigma in every light; all but `n_out` of shape (rows, nx)."""

    high: BoolArray
    low: BoolArray
    sharp: BoolArray  # of the high ones: sharper than any star
    n_out: NDArray[np.int64]  # shape (n,): how many stand out in each light

    @classmethod
    def joined(cls, bands: Sequence["Outliers"]) -> "Outliers":
        """Return the whole frame's of those of its bands, top to bottom as they lie."""
        return cls(
            high=np.concatenate([band.high for band in bands]),
            low=np.concatenate([band.low for band in bands]),
            sharp=np.concatenate([band.sharp for band in bands]),
            n_out=np.sum([band.n_out for band in bands], axis=0),
        )


def always_out(
    lights: Image, *, noise_adu: Sequence[float], rows: slice, neighbour_limits: Sequence[float]
) -> Outliers:
    """Return what stands out in every light, for `rows` of a band of shape (n, ny, nx).

    Parameters
    ----------
    noise_adu
        Of a pixel of each light's sky, shape (n,).
    rows
        The rows wanted; the band holds `HALO_PX` more on both sides unless the frame ends there.
    neighbour_limits
        From `neighbour_limits`.
    """
    lights = lights.astype(np.float32, copy=False)
    above = np.stack([excess(light) for light in lights])
    limits = SPIKE_SIGMAS * np.asarray(noise_adu, np.float32)[:, None, None]
    higher, lower = above > limits, above < -limits
    high: BoolArray = np.asarray(higher.all(axis=0))
    low: BoolArray = np.asarray(lower.all(axis=0))
    sharp = np.zeros_like(high)
    doubt_adu = (
        SHARP_SIGMAS * SIGMA_OF_MEDIAN * float(np.median(noise_adu)) / math.sqrt(len(lights))
    )
    planes: tuple[NDArray[Any], ...] = (lights, lights - above, high, sharp)
    for light, around, is_high, is_sharp in (planes, [p.swapaxes(-1, -2) for p in planes]):
        for n_px, limit in enumerate(neighbour_limits, start=1):
            y, x = _sharp_runs(light, around, is_high, n_px=n_px, limit=limit, doubt_adu=doubt_adu)
            for step in range(n_px):
                is_sharp[y, x + step] = True
    out = (higher | lower)[:, rows]
    return Outliers(
        high=high[rows], low=low[rows], sharp=sharp[rows], n_out=np.count_nonzero(out, axis=(1, 2))
    )


def _sharp_runs(
    lights: FloatArray,
    around: FloatArray,
    high: BoolArray,
    *,
    n_px: int,
    limit: float,
    doubt_adu: float,
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return (y, x) where runs of `n_px` high pixels along x begin that no star can make.

    Notes
    -----
    A star's image is nowhere narrower than the profile. Centred on the run it gives the pixels
    beyond both ends a fixed share of the light of the pixel at that end, and off centre one of them
    has more: in every frame, however long it is exposed and through which filter. So the larger of
    both, less `limit` times the end's light, is positive for a star, and so is its median over the
    frames. On the rim of the frame a neighbour is missing: nothing is said of those pixels.
    """
    run = high[:, 1 : high.shape[1] - n_px].copy()
    for step in range(1, n_px):
        run &= high[:, 1 + step : high.shape[1] - n_px + step]
    y, x = np.nonzero(run)
    x += 1
    sky = _lowest_around(around, y, x)
    last = x + n_px - 1
    left = (lights[:, y, x - 1] - sky) - limit * (lights[:, y, x] - sky)
    right = (lights[:, y, last + 1] - sky) - limit * (lights[:, y, last] - sky)
    sharp = np.median(np.maximum(left, right), axis=0) + doubt_adu < 0
    return y[sharp], x[sharp]


def _lowest_around(around: Image, y: NDArray[np.intp], x: NDArray[np.intp]) -> FloatArray:
    """Return the lowest of the surroundings' level at a place and a star's reach from it.

    `around` has shape (n, rows, nx), the answer (n, n_places). Next to a bright star the
    surroundings are its light: a faint one there would seem to stand out alone.
    """
    _, ny, nx = around.shape
    steps = (-SKY_REACH_PX, 0, SKY_REACH_PX)
    rows = [np.clip(y + step, 0, ny - 1) for step in steps]
    columns = [np.clip(x + step, 0, nx - 1) for step in steps]
    return np.min([around[:, row, column] for row in rows for column in columns], axis=0)


def neighbour_limits(stars: Iterable[Detections]) -> tuple[float, ...]:
    """Return how much light of the end of a run of 1, 2, 3 pixels is beyond it, if it is no star.

    Half of what the narrowest star of the sharpest light has there, centred on the run of n pixels:
    with s = sigma·√2 (erf((n/2 + 1)/s) − erf(n/2s)) / (erf(n/2s) − erf((n/2 − 1)/s)).
    """
    widths_px = [float(np.median(one.fwhm_px)) for one in stars if len(one)]
    narrowest_px = NARROWEST_OF_TYPICAL * min(widths_px, default=WIDTH_WITHOUT_STARS_PX)
    s = max(narrowest_px, NARROWEST_OF_TYPICAL) / FWHM_PER_SIGMA * math.sqrt(2.0)
    limits = []
    for half in np.arange(1, MAX_RUN_PX + 1) / 2.0:
        end = math.erf(half / s) - math.erf((half - 1.0) / s)
        beyond = math.erf((half + 1.0) / s) - math.erf(half / s)
        limits.append(min(SHARPER_BY * beyond / end, MAX_BESIDE))
    return tuple(limits)


def pointings(stars: Sequence[Detections], shape: tuple[int, int], sharp: BoolArray) -> list[int]:
    """Return the lights that show the sky in as many places: no two of them the stars in place.

    Detections on a `sharp` pixel are none of the sky. Lights with few stars do not count: whether
    the sky has moved is not known. In doubt it has not.
    """
    real = [_off(one, sharp) for one in stars]
    widths = [float(np.median(one.fwhm_px)) for one in stars if len(one)]
    shift_px = max([MIN_SHIFT_PX, *(MIN_SHIFT_FWHM * width for width in widths)])
    most = int(MAX_CHANCE_COVER * shape[0] * shape[1] / (math.pi * shift_px**2))
    chosen: list[int] = []
    for index, places in enumerate(real):
        if len(places) >= MIN_STARS_OF_POINTING and all(
            _share_in_place(places, real[other], shift_px, most) < MAX_SHARE_IN_PLACE
            for other in chosen
        ):
            chosen.append(index)
    return chosen


def _off(stars: Detections, sharp: BoolArray) -> FloatArray:
    """Return the places (x, y), brightest first, without the stars that are made of sharp pixels.

    Shape (n, 2).
    """
    places = np.stack([stars.x_px, stars.y_px], axis=1)
    ny, nx = sharp.shape
    steps = np.arange(-1, 2)
    columns = np.clip(np.rint(places[:, 0]).astype(int)[:, None] + steps, 0, nx - 1)
    rows = np.clip(np.rint(places[:, 1]).astype(int)[:, None] + steps, 0, ny - 1)
    off: BoolArray = ~sharp[rows[:, :, None], columns[:, None, :]].any(axis=(1, 2))
    return places[off][:MAX_STARS_OF_POINTING]


def _share_in_place(first: FloatArray, second: FloatArray, shift_px: float, most: int) -> float:
    """Return the share of the shorter list's bright stars that the longer one has in their place.

    The longer list is cut to `most`, so that few would be there by chance; the shorter one to half
    of that, lest the bright stars of one filter are the faint ones of another.
    """
    few, many = sorted((first, second), key=len)
    many = many[: max(most, MIN_STARS_OF_POINTING)]
    few = few[: max(len(many) // 2, MIN_STARS_OF_POINTING)]
    apart = np.hypot(*(few[:, None, :] - many[None, :, :]).transpose(2, 0, 1))
    return float(np.mean(apart.min(axis=1) < shift_px))


def bad_in_lights(out: Outliers, moved: Sequence[int]) -> NDArray[np.uint8]:
    """Return the `BadPixel` bits that the lights give; `moved` are the lights of `pointings`.

    Sharp pixels are bad whatever the sky does. The others only where the sky has moved so often
    that stars would hardly come to lie on one and the same pixel every time: with a share f of the
    frame that stands out in each pointing, N·f₁·f₂… ≤ 1 pixel.
    """
    bits = np.zeros(out.high.shape, np.uint8)
    bits[out.sharp] = BadPixel.LIGHT
    if expected_by_chance(out, moved) <= MAX_EXPECTED_BY_CHANCE:
        bits[out.high] = BadPixel.LIGHT
        bits[out.low] = BadPixel.LIGHT | BadPixel.RESPONSE
    return bits


def expected_by_chance(out: Outliers, moved: Sequence[int]) -> float:
    """Return how many pixels would stand out in all of `moved` by their stars alone."""
    if len(moved) < MIN_POINTINGS:
        return math.inf
    n_always = np.count_nonzero(out.high | out.low)
    shares = np.maximum(out.n_out[list(moved)] - n_always, 1) / out.high.size
    return float(out.high.size * np.prod(shares))
