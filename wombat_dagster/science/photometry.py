"""Aperture photometry of one frame as AstroImageJ does it, and what follows from it at once.

`measure_stars` takes pixels and predicted places and returns what is measured of every star;
`relative_fluxes` and `instrumental_mag` are arithmetic on that. Standard magnitudes, and errors
that need more than one frame, stay out (`science.standard`). Every definition is DOMAIN section 4,
checked on real AstroImageJ tables; nothing here was copied from it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wombat_dagster import domain
from wombat_dagster.domain import BoolArray, Flag, FloatArray, MaskBit
from wombat_dagster.science import astrometry

MASK_UNUSABLE = MaskBit.BAD | MaskBit.EDGE

SKY_CLIP_SIGMA = 2.0
SKY_STOP_ADU = 1e-4  # 0.1 would shift the mean by up to 1.2 ADU
SKY_MAX_PASSES = 100
DIGITISATION_VARIANCE = 0.083521  # 0.289 squared: the variance of rounding to whole ADU
MAX_MASKED_FRACTION = 0.10  # of the aperture's area
MIN_PEAK_OVERLAP = 0.01
LOW_SNR = 3.0
FWHM_PER_SIGMA = 2.0 * math.sqrt(2.0 * math.log(2.0))
RADIUS_FWHM = 1.7  # aperture radius over FWHM, where the FWHM is not given
CENTRE_MAX_PASSES = 30
CENTRE_STOP_PX = 1e-4
ROUGH_SKY_EVERY = 5  # annulus pixel, for the centroid
# Of the peak: pixels above it show the FWHM. The first that leaves MIN_PROFILE_PX and a profile
# that falls; the core of a trailed star may be flat.
PROFILE_FLOORS = (0.25, 0.15, 0.1, 0.05)
MIN_PROFILE_PX = 4
# A bad pixel of a star's core is mended by the Gaussian through the good ones.
CORE_FLOOR = 0.1  # of the brightest good pixel: fainter ones are wings, or noise
CORE_MAX_OF_PEAK = 3.0  # of the brightest good pixel: more is no interpolation
CORE_MIN_PX = 8  # six numbers are fitted
MAG_PER_RELATIVE_ERROR = 2.5 / math.log(10.0)

# ------------------------------------------------------------------------- building blocks


def circle_overlap(x_edges_px: FloatArray, y_edges_px: FloatArray, radius_px: float) -> FloatArray:
    """Return the exact area of every pixel inside a circle about the origin.

    Parameters
    ----------
    x_edges_px, y_edges_px
        Pixel edges relative to the circle's centre, shapes (n, k + 1) and (n, m + 1), ascending.

    Returns
    -------
    FloatArray
        Areas of shape (n, m, k), between 0 and 1 for unit pixels.

    Notes
    -----
    The area of the circle in the rectangle between the axes and a corner (x, y) in the first
    quadrant is xy where the corner is inside, else a·y + P(x) − P(a) with a = √(r² − y²) and P the
    integral of √(r² − u²). Odd in both coordinates, so four corners give a pixel. The roots and
    arc sines depend on one coordinate each, which makes this cheap.
    """
    x = np.abs(x_edges_px)[:, None, :]
    y = np.abs(y_edges_px)[:, :, None]
    arc_x = np.sqrt(np.clip(radius_px**2 - y**2, 0.0, None))
    outside = arc_x * np.minimum(y, radius_px) - _segment(arc_x, radius_px)
    outside = outside + _segment(np.minimum(x, radius_px), radius_px)
    corner = np.where(x**2 + y**2 <= radius_px**2, x * y, outside)
    corner *= np.sign(x_edges_px)[:, None, :] * np.sign(y_edges_px)[:, :, None]
    return np.clip(np.diff(np.diff(corner, axis=1), axis=2), 0.0, None)


def _segment(u: FloatArray, radius: float) -> FloatArray:
    """Return the integral of sqrt(radius² - u²) from 0 to `u`, 0 <= u <= radius."""
    height = np.sqrt(np.clip(radius**2 - u**2, 0.0, None))
    return 0.5 * (u * height + radius**2 * np.arcsin(u / radius))


def clipped_sky(values_adu: FloatArray) -> tuple[float, int]:
    """Return (mean in ADU per pixel, pixels kept) of the sky pixels `values_adu`, shape (n,).

    Pixels beyond 2 population sigmas of the mean are rejected; every pass tests *all* pixels again,
    so a pixel may come back. It ends when the mean moves by less than 1e-4 ADU, or after 100
    passes. NaN and 0 without pixels.

    Notes
    -----
    Sorted once, the kept pixels are a slice, and its mean and sigma come from running sums: a pass
    costs two bisections.
    """
    if values_adu.size == 0:
        return math.nan, 0
    ordered = np.sort(values_adu).astype(float)
    zero = float(ordered[ordered.size // 2])  # keeps the running sums of squares precise
    ordered -= zero
    sums = np.concatenate(([0.0], np.cumsum(ordered)))
    squares = np.concatenate(([0.0], np.cumsum(ordered**2)))
    first, last = 0, ordered.size
    mean = math.inf
    for _ in range(SKY_MAX_PASSES):
        n = last - first
        previous, mean = mean, float(sums[last] - sums[first]) / n
        if abs(mean - previous) < SKY_STOP_ADU:
            break
        variance = float(squares[last] - squares[first]) / n - mean**2
        reach = SKY_CLIP_SIGMA * math.sqrt(max(variance, 0.0))
        new_first = int(ordered.searchsorted(mean - reach, side="left"))
        new_last = int(ordered.searchsorted(mean + reach, side="right"))
        if new_first == new_last:  # sigma 0 and a mean off by rounding
            break
        first, last = new_first, new_last
    return zero + mean, last - first


def source_error(
    source_sky_adu: ArrayLike,
    sky_adu_px: ArrayLike,
    *,
    n_source_px: ArrayLike,
    n_sky_px: ArrayLike,
    gain_e_adu: float | None,
    read_noise_e: float | None,
    dark_e_px: float = 0.0,
) -> FloatArray:
    """Return AstroImageJ's 1-sigma error of an aperture sum less sky, in ADU.

    An unknown gain counts as 1 e-/ADU and an unknown read noise as 0, which are AstroImageJ's
    defaults: the error is then a form, not a measurement, and the caller says so. Negative signals
    count as 0. `dark_e_px` is the dark signal of the whole exposure.

    Notes
    -----
    √(S·g + n(1 + n/n_b)(b·g + D + RN² + 0.083521·g²)) / g (DOMAIN section 4): Merline & Howell
    (1995), Exp. Astron. 6, 163, with the digitisation term.
    """
    gain = 1.0 if gain_e_adu is None else gain_e_adu
    read_noise = 0.0 if read_noise_e is None else read_noise_e
    source, sky_px = np.asarray(source_sky_adu, float), np.asarray(sky_adu_px, float)
    n, n_sky = np.asarray(n_source_px, float), np.asarray(n_sky_px, float)
    with np.errstate(divide="ignore", invalid="ignore"):
        per_px = (
            np.clip(sky_px, 0.0, None) * gain
            + dark_e_px
            + read_noise**2
            + DIGITISATION_VARIANCE * gain**2
        )
        variance_e = np.clip(source, 0.0, None) * gain + n * (1.0 + n / n_sky) * per_px
    return np.sqrt(variance_e) / gain


# --------------------------------------------------------------------------- one frame


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cutouts:
    """Square cut-outs of n stars, all (n, k, k); `dx`, `dy`, (n, k), from the star's place."""

    values: FloatArray
    bits: NDArray[np.uint8]
    bad: BoolArray  # masked, at the edge, or not a number
    dx: FloatArray
    dy: FloatArray


def measure_stars(
    image: FloatArray,
    mask: NDArray[np.integer] | BoolArray | None,
    x_px: ArrayLike,
    y_px: ArrayLike,
    *,
    aperture: domain.Aperture,
    gain_e_adu: float | None,
    read_noise_e: float | None,
    recentre_limit_px: float,
    dark_e_px: float = 0.0,
    solution: domain.WcsSolution | None = None,
    fwhm_px: float | None = None,
) -> domain.StarMeasurements:
    """Return the measurements of the stars at the predicted places of one frame.

    Parameters
    ----------
    image
        Reduced frame in ADU, ``[y, x]``.
    mask
        `MaskBit`s per pixel, shape of `image`; booleans mean bad. Bad, edge and NaN pixels do
        not count: in the annulus they are ignored, in the aperture they take the mean of their good
        neighbours, flag the star `BAD_PIXEL`, and make it NaN and `UNMEASURED` beyond 10 % of the
        area; `n_bad_px` counts those by more than 1 % inside. In the annulus saturated and
        non-linear pixels are ignored too; in the aperture they flag the star.
    x_px, y_px
        Predicted places, shape (n,), 0-based.
    recentre_limit_px
        A centroid further from the prediction than this, or none, leaves the aperture at the
        prediction and flags `OFF_CENTRE`. 0 measures at the prediction.
    solution
        Gives `ra_deg`, `dec_deg` of the places measured; NaN without.
    fwhm_px
        Width of the centroid's Gaussian window; radius / 1.7 when not given.

    Returns
    -------
    StarMeasurements
        Arrays of shape (n,). A star whose aperture leaves the frame is NaN, `NEAR_EDGE` and
        `UNMEASURED`; one whose annulus does is measured and `NEAR_EDGE`.

    Notes
    -----
    Sum, sky, error, SNR, peak and mean: DOMAIN section 4. From the sky-subtracted counts I in the
    aperture, with second moments m about their own centre: X-Width, Y-Width = 2.3548 √m_xx,
    2.3548 √m_yy; Width their mean; Angle = ½ atan2(2 m_xy, m_xx − m_yy) in [0, 360), from +x
    towards +y; Roundness = 1 − ((m_xx − m_yy)² + 4 m_xy²) / (m_xx + m_yy)², 1 when round (this form
    reproduces AstroImageJ's columns on real tables). FWHM is that of the Gaussian which the radial
    profile follows above a quarter of its peak, or less where fewer than four pixels are or the
    core is flat (ln I against r², weights I²; Guo 2011, IEEE Signal Process. Mag. 28, 134).
    """
    x, y = np.array(x_px, dtype=float), np.array(y_px, dtype=float)
    flags = np.zeros(x.shape, dtype=np.int64)
    flags[~_whole(x, y, image.shape, aperture.sky_outer_px)] |= Flag.NEAR_EDGE
    measurable = _whole(x, y, image.shape, aperture.radius_px)
    flags[~measurable] |= Flag.UNMEASURED
    columns = _nan_columns(x.shape)
    where = np.flatnonzero(measurable)
    if where.size:
        bits = _mask_bits(mask, image.shape)
        width = fwhm_px or aperture.radius_px / RADIUS_FWHM
        if recentre_limit_px > 0:
            x[where], y[where], centred = _centroids(
                image, bits, x[where], y[where], aperture, width, recentre_limit_px
            )
            flags[where[~centred]] |= Flag.OFF_CENTRE
        measured, new_flags = _measure_whole(
            image,
            bits,
            x[where],
            y[where],
            aperture=aperture,
            gain_e_adu=gain_e_adu,
            read_noise_e=read_noise_e,
            dark_e_px=dark_e_px,
        )
        for name, values in measured.items():
            columns[name][where] = values
        flags[where] |= new_flags
    ra_deg, dec_deg = columns["x_px"], columns["x_px"]
    if solution is not None:
        ra_deg, dec_deg = astrometry.sky(solution, x, y)
    columns |= {"x_px": x, "y_px": y, "ra_deg": ra_deg, "dec_deg": dec_deg}
    return domain.StarMeasurements(**columns, flags=flags)


def _nan_columns(shape: tuple[int, ...]) -> dict[str, FloatArray]:
    names = (name for name in domain.StarMeasurements.__slots__ if name != "flags")
    return {name: np.full(shape, np.nan) for name in names}


def _mask_bits(
    mask: NDArray[np.integer] | BoolArray | None, shape: tuple[int, ...]
) -> NDArray[np.uint8]:
    if mask is None:
        return np.broadcast_to(np.uint8(0), shape)
    return mask.astype(np.uint8, copy=False)


def _whole(x: FloatArray, y: FloatArray, shape: tuple[int, ...], radius_px: float) -> BoolArray:
    """Return where a circle lies wholly on the frame."""
    return astrometry.inside_frame(x, y, shape[1], shape[0], margin_px=radius_px)


def _pixels(
    shape: tuple[int, ...], x: FloatArray, y: FloatArray, half: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], BoolArray]:
    """Return columns and rows, (n, k), of cut-outs of 2 half + 1 pixels, and what is off (n, k, k).

    Pixels off the frame repeat its edge, so that the cut-outs can be read; they must be ignored.
    """
    steps = np.arange(-half, half + 1)
    columns = np.rint(x).astype(np.intp)[:, None] + steps
    rows = np.rint(y).astype(np.intp)[:, None] + steps
    off_x = (columns < 0) | (columns >= shape[1])
    off_y = (rows < 0) | (rows >= shape[0])
    off = off_y[:, :, None] | off_x[:, None, :]
    return columns, rows, off


def _cut(
    image: FloatArray, bits: NDArray[np.uint8], x: FloatArray, y: FloatArray, half: int
) -> _Cutouts:
    columns, rows, off = _pixels(image.shape, x, y, half)
    values = _read(image, columns, rows).astype(float)
    cut_bits = _read(bits, columns, rows)
    bad = off | ((cut_bits & MASK_UNUSABLE) != 0) | ~np.isfinite(values)
    return _Cutouts(
        values=values, bits=cut_bits, bad=bad, dx=columns - x[:, None], dy=rows - y[:, None]
    )


def _read(array: NDArray, columns: NDArray[np.intp], rows: NDArray[np.intp]) -> NDArray:
    columns = np.clip(columns, 0, array.shape[1] - 1)
    rows = np.clip(rows, 0, array.shape[0] - 1)
    return array[rows[:, :, None], columns[:, None, :]]


def _annulus(
    image: FloatArray,
    bits: NDArray[np.uint8],
    x: FloatArray,
    y: FloatArray,
    aperture: domain.Aperture,
    *,
    every: int = 1,
) -> tuple[FloatArray, BoolArray]:
    """Return (values, used), both (n, m): the whole pixels whose centres lie in the annulus.

    `every` takes only each so many-th of them, where a rough sky will do.
    """
    half = math.ceil(aperture.sky_outer_px) + 1
    steps = np.arange(-half, half + 1)
    distance = np.hypot(steps[:, None], steps)
    near = (distance >= aperture.sky_inner_px - 1) & (distance <= aperture.sky_outer_px + 1)
    step_y, step_x = (steps[index[::every]] for index in np.nonzero(near))
    columns = np.rint(x).astype(np.intp)[:, None] + step_x
    rows = np.rint(y).astype(np.intp)[:, None] + step_y
    height, width = image.shape
    on_frame = (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    square = (columns - x[:, None]) ** 2 + (rows - y[:, None]) ** 2
    columns, rows = np.clip(columns, 0, width - 1), np.clip(rows, 0, height - 1)
    values = image[rows, columns].astype(float)
    used = (
        on_frame
        & (square >= aperture.sky_inner_px**2)
        & (square <= aperture.sky_outer_px**2)
        & (bits[rows, columns] == 0)
        & np.isfinite(values)
    )
    return values, used


def _centroids(
    image: FloatArray,
    bits: NDArray[np.uint8],
    x: FloatArray,
    y: FloatArray,
    aperture: domain.Aperture,
    fwhm_px: float,
    limit_px: float,
) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Return (x, y, found): centroids under a Gaussian window, predictions where none is near.

    The window follows the star until it rests (Bertin's XWIN_IMAGE): a neighbour in the aperture
    pulls less than it pulls a plain centre of gravity.
    """
    values, used = _annulus(image, bits, x, y, aperture, every=ROUGH_SKY_EVERY)
    sky_adu = [np.median(v[u]) if u.any() else math.nan for v, u in zip(values, used, strict=True)]
    sigma = fwhm_px / FWHM_PER_SIGMA
    cut = _cut(image, bits, x, y, math.ceil(limit_px + 3.0 * sigma) + 1)
    counts = np.where(cut.bad, 0.0, cut.values - np.asarray(sky_adu)[:, None, None])
    shift_x, shift_y = np.zeros(x.size), np.zeros(x.size)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        for _ in range(CENTRE_MAX_PASSES):
            u, v = cut.dx - shift_x[:, None], cut.dy - shift_y[:, None]
            window_x, window_y = np.exp(-0.5 * (u / sigma) ** 2), np.exp(-0.5 * (v / sigma) ** 2)
            in_x = np.matmul(window_y[:, None, :], counts)[:, 0, :] * window_x
            in_y = np.matmul(counts, window_x[:, :, None])[:, :, 0] * window_y
            total = in_x.sum(axis=1)
            total = np.where(total > 0, total, np.nan)
            # twice: under a window as wide as the star the centroid covers half of the way
            step_x, step_y = 2 * (in_x * u).sum(axis=1), 2 * (in_y * v).sum(axis=1)
            step_x, step_y = step_x / total, step_y / total
            shift_x, shift_y = shift_x + step_x, shift_y + step_y
            # one that runs away is given up: NaN stays NaN
            lost = np.hypot(shift_x, shift_y) > 2.0 * limit_px
            shift_x[lost], shift_y[lost] = np.nan, np.nan
            if not np.any(np.hypot(step_x, step_y) > CENTRE_STOP_PX):
                break
        new_x, new_y = x + shift_x, y + shift_y
        found = (np.hypot(shift_x, shift_y) <= limit_px) & _whole(
            new_x, new_y, image.shape, aperture.radius_px
        )
    return np.where(found, new_x, x), np.where(found, new_y, y), found


def _measure_whole(
    image: FloatArray,
    bits: NDArray[np.uint8],
    x: FloatArray,
    y: FloatArray,
    *,
    aperture: domain.Aperture,
    gain_e_adu: float | None,
    read_noise_e: float | None,
    dark_e_px: float,
) -> tuple[dict[str, FloatArray], NDArray[np.int64]]:
    """Return the columns and flags of stars whose apertures lie wholly on the frame."""
    radius = aperture.radius_px
    cut = _cut(image, bits, x, y, math.ceil(radius) + 1)
    weights = circle_overlap(_edges(cut.dx), _edges(cut.dy), radius)
    touched = weights > MIN_PEAK_OVERLAP
    masked_fraction = (weights * cut.bad).sum(axis=(1, 2)) / (math.pi * radius**2)
    flags = _pixel_flags(cut, touched)
    n_bad = np.count_nonzero(touched & cut.bad, axis=(1, 2)).astype(float)
    flags[n_bad > 0] |= Flag.BAD_PIXEL

    values, used = _annulus(image, bits, x, y, aperture)
    sky_and_number = [clipped_sky(v[u]) for v, u in zip(values, used, strict=True)]
    sky_adu = np.array([mean for mean, _ in sky_and_number])
    n_sky = np.array([number for _, number in sky_and_number], dtype=float)
    unmeasured = (masked_fraction > MAX_MASKED_FRACTION) | (n_sky == 0)
    flags[unmeasured] |= Flag.UNMEASURED

    n_source = np.full(x.size, math.pi * radius**2)
    counts = _repaired(cut, sky_adu, radius)
    source = (weights * counts).sum(axis=(1, 2)) - n_source * sky_adu
    error = source_error(
        source,
        sky_adu,
        n_source_px=n_source,
        n_sky_px=n_sky,
        gain_e_adu=gain_e_adu,
        read_noise_e=read_noise_e,
        dark_e_px=dark_e_px,
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        snr = source / error
        flags[snr < LOW_SNR] |= Flag.LOW_SNR
        peak = _highest(counts, touched & ~cut.bad)
        excess = counts - sky_adu[:, None, None]
        shape = _moments(cut, weights * excess)
        fwhm = _profile_fwhm(cut, excess, touched & ~cut.bad)
    columns = {
        "source_sky_adu": source,
        "n_source_px": n_source,
        "source_error_adu": error,
        "snr": snr,
        "peak_adu": peak,
        "mean_adu": source / n_source,
        "sky_adu_px": sky_adu,
        "n_sky_px": n_sky,
        "fwhm_px": fwhm,
        **shape,
    }
    columns = {name: np.where(unmeasured, np.nan, v) for name, v in columns.items()}
    return columns | {"n_bad_px": n_bad}, flags


def _edges(centres: FloatArray) -> FloatArray:
    """Return the k + 1 edges of k unit pixels."""
    return np.concatenate((centres - 0.5, centres[:, -1:] + 0.5), axis=1)


def _highest(values: FloatArray, allowed: BoolArray) -> FloatArray:
    """Return the highest allowed value of each cut-out, NaN where none is."""
    highest = np.where(allowed, values, -np.inf).max(axis=(1, 2))
    return np.where(np.isfinite(highest), highest, np.nan)


def _pixel_flags(cut: _Cutouts, touched: BoolArray) -> NDArray[np.int64]:
    """Return SATURATED and NON_LINEAR of the mask's pixels in the apertures."""
    seen = np.bitwise_or.reduce(np.where(touched, cut.bits, 0), axis=(1, 2))
    flags = np.zeros(len(seen), dtype=np.int64)
    flags[(seen & MaskBit.SATURATED) != 0] |= Flag.SATURATED
    flags[(seen & MaskBit.NON_LINEAR) != 0] |= Flag.NON_LINEAR
    return flags


def _repaired(cut: _Cutouts, sky_adu: FloatArray, radius_px: float) -> FloatArray:
    """Return the counts with every bad pixel replaced by what its star lets expect there.

    In a star's core that is the Gaussian through its good pixels, elsewhere the mean of the good
    neighbours, or the sky where there is none. (Left alone a hot pixel would stay in the sum, left
    out the star would lose light, and the neighbours of a core are far fainter than it.)
    """
    if not cut.bad.any():
        return cut.values
    good = np.pad((~cut.bad).astype(float), ((0, 0), (1, 1), (1, 1)))
    light = np.pad(np.where(cut.bad, 0.0, cut.values), ((0, 0), (1, 1), (1, 1)))
    k = cut.values.shape[1]
    around = [(i, j) for i in range(3) for j in range(3) if (i, j) != (1, 1)]
    number = sum(good[:, i : i + k, j : j + k] for i, j in around)
    total = sum(light[:, i : i + k, j : j + k] for i, j in around)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = np.where(number > 0, total / number, sky_adu[:, None, None])
    counts = np.where(cut.bad, mean, cut.values)
    for star in np.flatnonzero(cut.bad.any(axis=(1, 2))):
        expected = _core_gaussian(
            cut.values[star] - sky_adu[star],
            cut.bad[star],
            cut.dx[star],
            cut.dy[star],
            radius_px=radius_px,
        )
        if expected is not None:
            mended = cut.bad[star] & np.isfinite(expected)
            counts[star][mended] = sky_adu[star] + expected[mended]
    return counts


def _core_gaussian(
    excess: FloatArray, bad: BoolArray, dx: FloatArray, dy: FloatArray, *, radius_px: float
) -> FloatArray | None:
    """Return the elliptical Gaussian through a star's bright good pixels; NaN outside the core.

    A parabola through the logarithms, each weighted by its counts: what a Gaussian's logarithm is,
    and the weight that equal noise in counts has there. None when the pixels show no star.
    """
    x, y = np.broadcast_to(dx, excess.shape), np.broadcast_to(dy[:, None], excess.shape)
    near = (x**2 + y**2 <= radius_px**2) & ~bad
    if not near.any():
        return None
    peak = float(excess[near].max())
    used = near & (excess > CORE_FLOOR * peak)
    if peak <= 0 or used.sum() < CORE_MIN_PX:
        return None
    terms = np.stack([np.ones_like(x), x, y, x**2, x * y, y**2], axis=-1)
    weight = excess[used]
    fit, _, rank, _ = np.linalg.lstsq(
        terms[used] * weight[:, None], np.log(excess[used]) * weight, rcond=None
    )
    if rank < terms.shape[-1] or not (
        fit[3] < 0 and fit[5] < 0 and 4 * fit[3] * fit[5] > fit[4] ** 2
    ):
        return None
    with np.errstate(over="ignore"):
        expected = np.exp(terms @ fit)
    believable = (expected > CORE_FLOOR * peak) & (expected < CORE_MAX_OF_PEAK * peak)
    return np.where(believable, expected, np.nan)


def _moments(cut: _Cutouts, light: FloatArray) -> dict[str, FloatArray]:
    """Return AstroImageJ's widths, angle and roundness; NaN where the moments are not positive."""
    total = light.sum(axis=(1, 2))
    total = np.where(total > 0, total, np.nan)
    in_x, in_y = light.sum(axis=1) / total[:, None], light.sum(axis=2) / total[:, None]
    u = cut.dx - (in_x * cut.dx).sum(axis=1, keepdims=True)
    v = cut.dy - (in_y * cut.dy).sum(axis=1, keepdims=True)
    m_xx, m_yy = (in_x * u**2).sum(axis=1), (in_y * v**2).sum(axis=1)
    m_xy = np.einsum("njk,nj,nk->n", light, v, u) / total
    bad = ~((m_xx > 0) & (m_yy > 0))
    m_xx, m_yy = np.where(bad, np.nan, m_xx), np.where(bad, np.nan, m_yy)
    x_width, y_width = FWHM_PER_SIGMA * np.sqrt(m_xx), FWHM_PER_SIGMA * np.sqrt(m_yy)
    return {
        "x_width_px": x_width,
        "y_width_px": y_width,
        "width_px": (x_width + y_width) / 2,
        "angle_deg": np.degrees(0.5 * np.arctan2(2 * m_xy, m_xx - m_yy)) % 360.0,
        "roundness": 1.0 - ((m_xx - m_yy) ** 2 + 4 * m_xy**2) / (m_xx + m_yy) ** 2,
    }


def _profile_fwhm(cut: _Cutouts, excess: FloatArray, allowed: BoolArray) -> FloatArray:
    """Return the FWHM of the Gaussian through the radial profile; NaN where it does not fall."""
    peak = _highest(excess, allowed)[:, None, None]
    square = cut.dy[:, :, None] ** 2 + cut.dx[:, None, :] ** 2
    fwhm = np.full(len(excess), np.nan)
    for floor in PROFILE_FLOORS:
        core = allowed & (excess > floor * peak) & (peak > 0)
        weight = np.where(core, excess / peak, 0.0) ** 2
        height = np.log(np.where(core, excess / peak, 1.0))
        total = weight.sum(axis=(1, 2))
        mean_square = (weight * square).sum(axis=(1, 2)) / total
        mean_height = (weight * height).sum(axis=(1, 2)) / total
        arm = square - mean_square[:, None, None]
        slope = (weight * arm * (height - mean_height[:, None, None])).sum(axis=(1, 2))
        slope /= (weight * arm**2).sum(axis=(1, 2))
        usable = np.isnan(fwhm) & (core.sum(axis=(1, 2)) >= MIN_PROFILE_PX) & (slope < 0)
        fwhm[usable] = FWHM_PER_SIGMA * np.sqrt(-0.5 / slope[usable])
        if np.isfinite(fwhm).all():
            break
    return fwhm


# ------------------------------------------------------------------- what follows at once


def instrumental_mag(source_sky_adu: ArrayLike, exposure_s: ArrayLike) -> FloatArray:
    """Return -2.5 log10(counts per second); NaN where the counts are not positive.

    `exposure_s` must broadcast against the counts: ``exposure_s[:, None]`` for a night.
    """
    source = np.asarray(source_sky_adu, dtype=float)
    return -2.5 * np.log10(np.where(source > 0, source, np.nan) / np.asarray(exposure_s, float))


def instrumental_mag_error(source_sky_adu: ArrayLike, source_error_adu: ArrayLike) -> FloatArray:
    """Return 1.0857 error/counts in magnitudes; NaN where the counts are not positive."""
    source = np.asarray(source_sky_adu, dtype=float)
    error = np.asarray(source_error_adu, float)
    return MAG_PER_RELATIVE_ERROR * error / np.where(source > 0, source, np.nan)


def relative_fluxes(
    measured: domain.StarMeasurements, stars: Sequence[domain.ApertureStar]
) -> domain.RelativeFluxes:
    """Return AstroImageJ's relative fluxes and magnitudes of a night, all stars.

    Parameters
    ----------
    measured
        Arrays of shape (n_frames, n_stars), or (n_stars,) for one frame.
    stars
        The n_stars apertures in the same order; those whose role begins with C are the ensemble.

    Notes
    -----
    DOMAIN section 4. A comp is left out of the sum it is compared with. Where a comp has no value
    the frame has none either: a sum over fewer comps would be a step in the curve.
    Source_AMag of T stars is M − 2.5 log10(S_T/ΣS_C), M the magnitude of all comps' light together,
    over the comps with a catalogue magnitude and without catalogue errors; a comp's own is its
    catalogue value.
    """
    source, error = measured.source_sky_adu, measured.source_error_adu
    in_ensemble = np.array([star.role.startswith("C") for star in stars])
    total, total_error = _sums(source, error, in_ensemble)
    others, others_error = _sums_without(source, error, in_ensemble)
    with np.errstate(divide="ignore", invalid="ignore"):
        rel = source / others
        relative_error = np.sqrt((error / source) ** 2 + (others_error / others) ** 2)
        rel_error = np.abs(rel) * relative_error
        rel_snr = rel / rel_error
    amag, amag_error = source_magnitudes(measured, stars)
    return domain.RelativeFluxes(
        rel_flux=rel,
        rel_flux_err=rel_error,
        rel_flux_snr=rel_snr,
        tot_c_adu=total,
        tot_c_err_adu=total_error,
        source_amag=amag,
        source_amag_err=amag_error,
    )


def source_magnitudes(
    measured: domain.StarMeasurements, stars: Sequence[domain.ApertureStar]
) -> tuple[FloatArray, FloatArray]:
    """Return AstroImageJ's (Source_AMag, Source_AMag_Err), shaped as `measured`; NaN if unknown."""
    source, error = measured.source_sky_adu, measured.source_error_adu
    catalogue = np.array([_number(star.catalogue_mag) for star in stars])
    catalogue_error = np.array([_number(star.catalogue_error_mag) for star in stars])
    is_comp = np.array([star.role.startswith("C") for star in stars])
    used = is_comp & np.isfinite(catalogue)
    together = np.sum(10.0 ** (-0.4 * catalogue[used]))
    total, total_error = _sums(source, error, used)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = source / total[..., None]
        ratio = np.where(ratio > 0, ratio, np.nan)
        mag = -2.5 * np.log10(together) - 2.5 * np.log10(ratio)
        relative_error = np.hypot(error / source, (total_error / total)[..., None])
        mag_error = 2.5 * np.log10(1.0 + relative_error)
    mag_error = np.where(np.isfinite(mag), mag_error, np.nan)
    return np.where(is_comp, catalogue, mag), np.where(is_comp, catalogue_error, mag_error)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _sums(source: FloatArray, error: FloatArray, used: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Return the light of the stars used and its error, without the last axis; NaN without any."""
    if not used.any():
        nothing = np.full(source.shape[:-1], np.nan)
        return nothing, nothing
    return source[..., used].sum(axis=-1), np.sqrt((error[..., used] ** 2).sum(axis=-1))


def _sums_without(
    source: FloatArray, error: FloatArray, used: BoolArray
) -> tuple[FloatArray, FloatArray]:
    """Return, for every star, the light of the *other* stars used and its error."""
    sums = []
    for star in range(source.shape[-1]):
        others = used.copy()
        others[star] = False
        sums.append(_sums(source, error, others))
    return np.stack([s for s, _ in sums], axis=-1), np.stack([e for _, e in sums], axis=-1)
