"""Hot pixels that only add a steady current: what they add is measured and taken off.

A pixel that stands out by the same counts in every frame has nothing wrong with its response: less
those counts it is as good as any, and in the core of an undersampled star far better than what
its neighbours let expect there. Which pixels stand out is `science.bad_pixels`; what is mended
instead, because it is dead or unsteady, `science.photometry`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wombat_dagster.domain import BoolArray, Detections, FloatArray, MaskBit
from wombat_dagster.science.bad_pixels import BadPixel

CURABLE = BadPixel.HOT | BadPixel.LIGHT  # and nothing else is wrong with it
MIN_SAMPLES = 5
CLEAR_FWHM = 3.0  # a star nearer than this hides what a pixel adds
REACH_PX = 2  # the surroundings are 5 x 5 pixels
MIN_GOOD_AROUND = 8
MIN_CHANGE_SIGMA = 3.0
MAX_DEPARTURE = 4.0  # times the sky's noise: a pixel that switches between levels is not steady


@dataclass(frozen=True, slots=True, kw_only=True)
class HotPixels:
    """Pixels (x, y) and what each adds per second at `jd` and more per day; arrays of shape (n,).

    The change is that of the camera's warmth over the night.
    """

    x: NDArray[np.intp]
    y: NDArray[np.intp]
    jd: float
    rate_adu_s: FloatArray
    change_adu_s_d: FloatArray

    def __len__(self) -> int:
        return len(self.x)

    def excess_adu(self, jd: float, exposure_s: float) -> FloatArray:
        """Return what each pixel adds to an exposure; negative where a dark took too much."""
        return (self.rate_adu_s + self.change_adu_s_d * (jd - self.jd)) * exposure_s


def hot_in_apertures(
    bits: NDArray[np.uint8], x_px: FloatArray, y_px: FloatArray, reach_px: float
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return (x, y) of the curable hot pixels that come near any of the places on any frame.

    Parameters
    ----------
    bits
        The map of `BadPixel` bits, ``[y, x]``.
    x_px, y_px
        Places of stars, any shape; those off the frame or NaN have no pixels.
    reach_px
        Half the side of the square about a place.
    """
    curable = (bits != 0) & ((bits & ~np.uint8(CURABLE)) == 0)
    height, width = bits.shape
    sums = np.zeros((height + 1, width + 1), np.int64)
    sums[1:, 1:] = curable.cumsum(axis=0).cumsum(axis=1)
    x, y = np.ravel(x_px), np.ravel(y_px)
    on = np.isfinite(x) & np.isfinite(y)
    x, y = x[on], y[on]
    left, right = _between(x - reach_px, width), _between(x + reach_px + 1, width)
    low, high = _between(y - reach_px, height), _between(y + reach_px + 1, height)
    number = sums[high, right] - sums[low, right] - sums[high, left] + sums[low, left]
    touched = np.zeros_like(curable)
    for index in np.flatnonzero(number):
        touched[low[index] : high[index], left[index] : right[index]] = True
    rows, columns = np.nonzero(touched & curable)
    return columns, rows


def _between(values: FloatArray, top: int) -> NDArray[np.intp]:
    return np.clip(np.floor(values), 0, top).astype(np.intp)


def excess_adu(
    image: FloatArray,
    mask: NDArray[np.uint8],
    x: NDArray[np.intp],
    y: NDArray[np.intp],
    stars: Detections,
    *,
    places_px: tuple[FloatArray, FloatArray],
    fwhm_px: float,
) -> FloatArray:
    """Return what each pixel has above the median of the good ones about it, shape (n,).

    NaN where a star is within 3 FWHM (a detection at the pixel itself, which the hot pixel may be,
    included), where fewer than eight neighbours are good, and where the count is not linear.
    `places_px` is where the stars to be measured stand on this frame, found or not: the core of
    a faint one may be hidden by the bad pixel itself, and on a night that is guided to the pixel
    its light would be as steady as a current.
    """
    from scipy.spatial import KDTree

    height, width = image.shape
    steps = [
        (i, j)
        for i in range(-REACH_PX, REACH_PX + 1)
        for j in range(-REACH_PX, REACH_PX + 1)
        if (i, j) != (0, 0)
    ]
    around = np.full((len(steps), x.size), np.nan)
    for index, (i, j) in enumerate(steps):
        row, column = np.clip(y + i, 0, height - 1), np.clip(x + j, 0, width - 1)
        good = (mask[row, column] == 0) & (row == y + i) & (column == x + j)
        around[index] = np.where(good, image[row, column], np.nan)
    n_good = np.isfinite(around).sum(axis=0)
    ordered = np.sort(around, axis=0)
    columns = np.arange(x.size)
    level = ordered[np.maximum(n_good - 1, 0) // 2, columns]
    usable = n_good >= MIN_GOOD_AROUND
    usable &= (mask[y, x] & ~np.uint8(MaskBit.BAD)) == 0
    star_x = np.concatenate([stars.x_px, np.ravel(places_px[0])])
    star_y = np.concatenate([stars.y_px, np.ravel(places_px[1])])
    placed = np.isfinite(star_x) & np.isfinite(star_y)
    if placed.any():
        tree = KDTree(np.column_stack([star_x[placed], star_y[placed]]))
        apart_px, _ = tree.query(np.column_stack([x, y]))
        usable &= apart_px > CLEAR_FWHM * fwhm_px
    return np.where(usable, image[y, x] - level, np.nan)


def steady(
    x: NDArray[np.intp],
    y: NDArray[np.intp],
    samples_adu: FloatArray,
    *,
    jd: FloatArray,
    exposure_s: FloatArray,
    sky_rms_adu: float,
) -> HotPixels:
    """Return the pixels that add the same in every frame, or steadily more or less.

    Parameters
    ----------
    samples_adu
        From `excess_adu`, shape (n_frames, n); NaN where a frame says nothing.
    jd, exposure_s
        Of the frames, shape (n_frames,): the excess is taken to grow with the exposure, by a rate
        that changes linearly over the night.

    Notes
    -----
    Steady is what is known from five frames or more, and departs from its line by no more than 4
    times the sky's noise on any of them. Dark pixels have been sorted out by their bit before: what
    is below its surroundings here, a dark frame took off too much.
    """
    middle = float(np.mean(jd))
    since_d = np.where(np.isfinite(samples_adu), (jd - middle)[:, None], np.nan)
    rate = samples_adu / exposure_s[:, None]
    number = np.isfinite(rate).sum(axis=0)
    known = number >= MIN_SAMPLES
    with np.errstate(invalid="ignore", divide="ignore"):
        mean_d = np.nansum(since_d, axis=0) / number
        mean_rate = np.nansum(rate, axis=0) / number
        arm_d = since_d - mean_d
        arms = np.nansum(arm_d**2, axis=0)
        change = np.nansum(arm_d * (rate - mean_rate), axis=0) / arms
        # a slope that is not there is not carried on to frames without a sample
        slope_error = sky_rms_adu / float(np.median(exposure_s)) / np.sqrt(arms)
        change = np.where(np.abs(change) > MIN_CHANGE_SIGMA * slope_error, change, 0.0)
        level = mean_rate - change * mean_d
        away_adu = np.abs(samples_adu - (mean_rate + change * arm_d) * exposure_s[:, None])
        good: BoolArray = known & (
            np.where(np.isfinite(away_adu), away_adu, 0.0).max(axis=0) < MAX_DEPARTURE * sky_rms_adu
        )
    return HotPixels(
        x=x[good], y=y[good], jd=middle, rate_adu_s=level[good], change_adu_s_d=change[good]
    )


def cure(
    image: FloatArray, mask: NDArray[np.uint8], hot: HotPixels, *, jd: float, exposure_s: float
) -> None:
    """Take off what the pixels add, and no longer call them bad: changes `image` and `mask`."""
    image[hot.y, hot.x] -= hot.excess_adu(jd, exposure_s).astype(image.dtype)
    mask[hot.y, hot.x] &= np.uint8(0xFF ^ MaskBit.BAD)
