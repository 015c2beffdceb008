"""Stars on a frame: where they are, how bright, how wide. No catalogue, no aperture photometry.

sep finds the objects and sums apertures. The sky and the centroids are ours: sep's take as long as
all the rest, and sep keeps the interpreter's lock, so that frames in two threads wait for it.
"""

import threading
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from wombat_dagster.domain import BoolArray, Detections, FloatArray

MIN_SIDE_PX = 8
# The sky: every fifth row of a box says enough of it (to 0.02 of the noise, 0.014 from all rows),
# and an odd step takes both rows of a colour mosaic alike.
SKY_BOX_PX = 64
SKY_ROW_STEP = 5
SKY_CLIP_SIGMA = 3.0
SKY_CLIPS = 3
MIN_GOOD_OF_BOX = 0.5
MAX_SKEW_SIGMAS = 0.3  # mean less median of a box, above which the mode's formula fails
HALF_GAUSSIAN_MEAN = 0.5 / np.sqrt(np.pi / 2.0)  # of -min(z, 0), z normal with sigma 1

MIN_AREA_PX = 5
# Half of sep's levels take half of the time; with this contrast (its own is 0.005) they part as
# many pairs.
DEBLEND_LEVELS = 16
DEBLEND_CONTRAST = 0.004
# sep's pixel buffer for a crowded frame: its allocation alone takes as long as everything else.
CROWDED_PIXEL_STACK = 3_000_000

# How far a star's own light is taken to reach: isophotal sigmas, but at most typical FWHMs, and
# half of the way to a brighter star, whose light would otherwise be counted for the fainter one's.
REACH_SIGMAS = 6.0
REACH_RANGE_PX = (4.0, 60.0)
REACH_TYPICAL_FWHM = 2.5
REACH_TO_BRIGHTER = 0.5
MIN_RADIUS_PX = 2.0
FEW_OBJECTS = 200  # say how wide the frame's typical one is
SUBPIXELS = 5  # of a pixel's side, on an aperture's edge
HALF_FLUX_STEPS = 4
WINDOW_SIGMAS = 3.0  # from its middle to the edge of the centroid's window
MIN_WINDOW_SIGMA_PX = 0.5
CENTROID_STEPS = 8
CENTROID_TOLERANCE_PX = 1e-3
GROUP_PIXELS = 100_000  # measured at a time: they stay in the cache, however large the stars
MAX_SHIFT_SIGMAS = 0.5  # of the windowed centroid from the isophotal one, or 1 px
MAX_SHIFT_PX = 1.0

# A star is never narrower than the seeing. What is narrower by this factor than the frame's
# typical star, or stands on its pixel alone, is a hot pixel, a cosmic ray or a cluster of hot ones.
MIN_FWHM_OF_TYPICAL = 0.6
MIN_NEIGHBOUR_OF_PEAK = 0.12
MIN_AXIS_RATIO = 0.1  # a trail is at most so thin; below are bad columns and satellites
# A star cut by a bad column or two is one; what surrounds a masked core is the rest of a hot
# cluster, and so is what lies beside masked pixels and is narrow.
MAX_MASKED_OF_CORE = 0.5
MIN_CORE_RADIUS_PX = 1.5
MIN_FWHM_BESIDE_MASKED = 0.75

# Variance in px² that a unit square adds to a profile, by which a radius summed over whole pixels
# is too wide: 1/12 along each axis.
PIXEL_VARIANCE_PX2 = 1.0 / 12.0
FWHM_OF_SIGMA = 2.0 * np.sqrt(2.0 * np.log(2.0))

# Apple's matmul reports divisions by zero that are none.
quiet_matmul = np.errstate(divide="ignore", over="ignore", invalid="ignore")
_sep_settings = threading.Lock()  # sep's buffer size belongs to the process


def detect_stars(
    image: NDArray,
    mask: BoolArray | None = None,
    *,
    threshold_sigma: float = 5.0,
    max_stars: int | None = None,
    saturation_adu: float | None = None,
) -> Detections:
    """Return the stars of `image`, brightest first; none is an answer, not an error.

    Parameters
    ----------
    image
        Counts in ADU, shape (ny, nx), any number type and byte order; NaN counts as masked.
    mask
        True where a pixel must not be used, shape of `image`.
    threshold_sigma
        A star needs so many times the sky's rms in the smoothed image.
    max_stars
        Keep the brightest so many.
    saturation_adu
        Level, sky included, from which a star is saturated. Saturated stars are reported (their
        place helps the plate solver; their width is too large) but do not say how wide the
        frame's typical star is.

    Returns
    -------
    Detections
        `fwhm_px` is twice the half-flux radius less the pixels' own size: for a Gaussian the FWHM
        as the pixels sample it. `snr` counts the sky's noise and the star's own as if 1 e-/ADU.
    """
    pixels, bad = _clean(image, mask)
    if min(pixels.shape) < MIN_SIDE_PX or (bad is not None and bad.all()):
        return _no_stars(pixels)
    level_adu, rms_adu = _sky(pixels)
    sky_adu, sky_rms_adu = float(np.median(level_adu)), float(np.median(rms_adu))
    if not sky_rms_adu > 0:
        return _no_stars(pixels)
    _subtract(pixels, level_adu)
    if bad is not None:
        pixels[bad] = 0.0
    found = _extract(pixels, bad, threshold_adu=threshold_sigma * sky_rms_adu)
    if found is not None:
        found = found[np.isfinite(found["x"] + found["y"] + found["a"] + found["b"])]
        # here already, lest a frame full of hot pixels makes them its typical star
        found = found[_neighbour_of_peak(pixels, found["x"], found["y"]) > MIN_NEIGHBOUR_OF_PEAK]
    if found is None or len(found) == 0:
        return _none(sky_adu, sky_rms_adu)
    stars = _measure(pixels, bad, found, sky_adu, sky_rms_adu)
    saturated = np.zeros(len(stars), bool)
    if saturation_adu is not None:
        saturated = stars.peak_adu + sky_adu >= saturation_adu
    real = _is_star(pixels.shape, bad, stars, saturated)
    order = np.flatnonzero(real)[np.argsort(-stars.flux_adu[real], kind="stable")]
    return _chosen(stars, order[:max_stars])


def _clean(image: NDArray, mask: BoolArray | None) -> tuple[NDArray[np.float32], BoolArray | None]:
    """Return native float32 pixels (a copy, NaN where bad) and where they are bad, if anywhere."""
    pixels = np.array(image, dtype=np.float32, order="C", ndmin=2)
    bad = np.isfinite(pixels)
    np.logical_not(bad, out=bad)
    if mask is not None:
        bad |= mask
    if not bad.any():
        return pixels, None
    pixels[bad] = np.nan
    return pixels, bad


def _no_stars(pixels: NDArray[np.float32]) -> Detections:
    """Return no stars over the sky of a frame too small, too bad or too even to have a mesh."""
    good = pixels[np.isfinite(pixels)]
    return _none(*((float(np.median(good)), float(np.std(good))) if good.size else (np.nan,) * 2))


def _none(sky_adu: float, sky_rms_adu: float) -> Detections:
    none = np.zeros(0)
    return Detections(
        x_px=none,
        y_px=none,
        flux_adu=none,
        peak_adu=none,
        fwhm_px=none,
        axis_ratio=none,
        snr=none,
        sky_adu=sky_adu,
        sky_rms_adu=sky_rms_adu,
    )


# ----------------------------------------------------------------------------------- sky


def _sky(pixels: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the sky's level and noise in boxes that tile the frame, shape (n_y, n_x) each.

    Notes
    -----
    SExtractor's way (Bertin & Arnouts 1996, A&AS 117, 393, section 3): counts clipped about their
    median, mode = 2.5 median - 1.5 mean where stars do not skew them too much, and a median of
    3 x 3 boxes over the mesh.
    """
    n_y, n_x = (max(1, side_px // SKY_BOX_PX) for side_px in pixels.shape)
    box_y, box_x = pixels.shape[0] // n_y, pixels.shape[1] // n_x
    boxes = pixels[: n_y * box_y, : n_x * box_x].reshape(n_y, box_y, n_x, box_x)
    counts = boxes[:, ::SKY_ROW_STEP].swapaxes(1, 2).reshape(n_y * n_x, -1)
    mode_adu, sigma_adu, n_good = _clipped_mode(counts)
    level_adu = mode_adu.reshape(n_y, n_x).astype(np.float32)
    rms_adu = sigma_adu.reshape(n_y, n_x).astype(np.float32)
    usable = n_good >= max(1.0, min(MIN_GOOD_OF_BOX * counts.shape[1], n_good.max()))
    usable = usable.reshape(n_y, n_x)
    good = np.argwhere(usable)
    for box in np.argwhere(~usable) if good.size else ():
        nearest = tuple(good[np.argmin(np.sum((good - box) ** 2, axis=1))])
        level_adu[tuple(box)], rms_adu[tuple(box)] = level_adu[nearest], rms_adu[nearest]
    return _median_3x3(level_adu), _median_3x3(rms_adu)


def _clipped_mode(
    counts_adu: NDArray[np.float32],
) -> tuple[FloatArray, FloatArray, NDArray[np.intp]]:
    """Return the clipped mode and standard deviation of each row's numbers, and how many it has."""
    n_rows, n_counts = counts_adu.shape
    row = np.arange(n_rows)
    counts_adu.sort(axis=1)  # NaN last
    n_good = np.count_nonzero(counts_adu == counts_adu, axis=1)  # NaN equals nothing
    last = np.maximum(n_good - 1, 0)
    counts_adu[n_good == 0] = 0.0
    centre = counts_adu[row, last // 2, None]
    off = counts_adu - centre
    squares = off * off
    # from the side where no stars are
    sigma = -np.fmin(off, 0.0).sum(axis=1) / (HALF_GAUSSIAN_MEAN * (last + 1))
    next_higher = off[row, np.minimum(np.count_nonzero(off <= 0.0, axis=1), last)]
    middle = mean = np.zeros_like(sigma)
    for _ in range(SKY_CLIPS):
        # not between two neighbours of the digitisation, however even the sky
        reach = np.maximum(SKY_CLIP_SIGMA * sigma, 1.5 * next_higher)
        # in single precision, or every comparison would convert all counts
        low = (middle - reach).astype(np.float32)[:, None]
        high = (middle + reach).astype(np.float32)[:, None]
        first, end = np.count_nonzero(off < low, axis=1), np.count_nonzero(off <= high, axis=1)
        end = np.maximum(np.minimum(end, n_counts - 1), first + 1)  # all but the highest
        quarter = (end - first) // 4
        middle = _row_means(off, first + quarter, end - quarter)
        mean = _row_means(off, first, end)
        sigma = np.sqrt(np.maximum(_row_means(squares, first, end) - mean**2, 0.0))
    skewed = np.abs(mean - middle) >= MAX_SKEW_SIGMAS * sigma
    mode = np.where(skewed, middle, 2.5 * middle - 1.5 * mean)
    return centre[:, 0] + mode, sigma, n_good


def _row_means(
    numbers: NDArray[np.float32], first: NDArray[np.intp], end: NDArray[np.intp]
) -> FloatArray:
    """Return the mean of ``[first:end]`` of each row; no `end` may be the row's own."""
    ranges = np.stack([first, end], axis=1) + np.arange(0, numbers.size, numbers.shape[1])[:, None]
    return np.add.reduceat(numbers.ravel(), ranges.ravel())[::2] / (end - first)


def _median_3x3(mesh: NDArray[np.float32]) -> NDArray[np.float32]:
    # odd about the edge: a slope goes on there
    padded = np.pad(mesh, 1, mode="reflect", reflect_type="odd")
    around = np.lib.stride_tricks.sliding_window_view(padded, (3, 3))
    return np.median(around, axis=(2, 3))


@quiet_matmul
def _subtract(pixels: NDArray[np.float32], level_adu: NDArray[np.float32]) -> None:
    """Subtract from `pixels` the sky between the middles of its boxes, linear, and beyond them."""
    left, right, share = _between(pixels.shape[1], level_adu.shape[1])
    rows = level_adu[:, left] + share * (level_adu[:, right] - level_adu[:, left])
    above, below, share = _between(pixels.shape[0], level_adu.shape[0])
    weights = np.stack([1.0 - share, share], axis=1)
    bands = np.flatnonzero(np.diff(above, prepend=-1, append=-1))
    for top, end in pairwise(bands):
        pixels[top:end] -= weights[top:end] @ rows[[above[top], below[top]]]


def _between(
    n_px: int, n_boxes: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Return for every pixel the two boxes it lies between and how far it is towards the second."""
    box_px = n_px // n_boxes
    at = (np.arange(n_px) + 0.5) / box_px - 0.5
    first = np.clip(at.astype(int), 0, max(n_boxes - 2, 0))
    return first, np.minimum(first + 1, n_boxes - 1), (at - first).astype(np.float32)


# -------------------------------------------------------------------------------- objects


def _extract(
    pixels: NDArray[np.float32], bad: BoolArray | None, *, threshold_adu: float
) -> NDArray | None:
    """Return sep's objects; with less deblending, then None, when the frame overflows sep."""
    import sep

    def objects(contrast: float) -> NDArray | None:
        try:
            return sep.extract(
                pixels,
                threshold_adu,
                mask=bad,
                minarea=MIN_AREA_PX,
                deblend_nthresh=DEBLEND_LEVELS,
                deblend_cont=contrast,
            )
        except Exception as overflow:  # sep raises bare Exception for its limits
            if "internal pixel buffer" not in str(overflow) and "deblend" not in str(overflow):
                raise
        return None

    found = objects(DEBLEND_CONTRAST)
    if found is not None:
        return found
    with _sep_settings:
        usual = sep.get_extract_pixstack()
        sep.set_extract_pixstack(max(usual, CROWDED_PIXEL_STACK))
        try:
            found = objects(DEBLEND_CONTRAST)
            return objects(1.0) if found is None else found
        finally:
            sep.set_extract_pixstack(usual)


def _measure(
    pixels: NDArray[np.float32],
    bad: BoolArray | None,
    found: NDArray,
    sky_adu: float,
    sky_rms_adu: float,
) -> Detections:
    """Measure centroid, flux and half-flux radius of every object, in sep's order."""
    import sep

    x, y = found["x"], found["y"]
    reach_px = np.clip(REACH_SIGMAS * found["a"], *REACH_RANGE_PX)
    search_px = float(np.median(reach_px)) / REACH_TO_BRIGHTER
    lonely_px = REACH_TO_BRIGHTER * _to_brighter(x, y, found["flux"], search_px)
    lonely_px = np.maximum(lonely_px, MIN_RADIUS_PX)
    reach_px = np.minimum(reach_px, lonely_px)
    guess_px = 0.5 * FWHM_OF_SIGMA * np.sqrt(found["a"] * found["b"])
    few = slice(None, None, max(1, len(x) // FEW_OBJECTS))
    typical_px = 2.0 * float(
        np.median(_half_flux_radius(pixels, bad, x[few], y[few], reach_px[few], guess_px[few]))
    )
    reach_px = np.minimum(reach_px, max(REACH_TYPICAL_FWHM * typical_px, REACH_RANGE_PX[0]))
    half_flux_px = _half_flux_radius(pixels, bad, x, y, reach_px, guess_px)
    window_sigma_px = np.maximum(2.0 * half_flux_px / FWHM_OF_SIGMA, MIN_WINDOW_SIGMA_PX)
    x_win, y_win = _windowed_centroids(pixels, x, y, window_sigma_px)
    moved = np.hypot(x_win - x, y_win - y)
    near = moved < np.maximum(MAX_SHIFT_PX, MAX_SHIFT_SIGMAS * found["a"])  # False for NaN
    x, y = np.where(near, x_win, x), np.where(near, y_win, y)
    radius_px = np.minimum(np.maximum(2.5 * half_flux_px, MIN_RADIUS_PX), lonely_px)
    flux, _, _ = sep.sum_circle(pixels, x, y, radius_px, mask=bad, subpix=SUBPIXELS)
    variance = np.pi * radius_px**2 * sky_rms_adu**2 + np.maximum(flux, 0.0)
    fwhm_of_square = 4.0 * half_flux_px**2
    return Detections(
        x_px=x,
        y_px=y,
        flux_adu=flux,
        peak_adu=found["peak"].astype(float),
        fwhm_px=np.sqrt(np.maximum(fwhm_of_square - FWHM_OF_SIGMA**2 * PIXEL_VARIANCE_PX2, 0.0)),
        axis_ratio=found["b"] / found["a"],
        snr=flux / np.sqrt(variance),
        sky_adu=sky_adu,
        sky_rms_adu=sky_rms_adu,
    )


def _half_flux_radius(
    pixels: NDArray[np.float32],
    bad: BoolArray | None,
    x: FloatArray,
    y: FloatArray,
    reach_px: FloatArray,
    guess_px: FloatArray,
) -> FloatArray:
    """Return the radius with half the flux within `reach_px`.

    Every step goes to where a Gaussian with the share of flux found so far has half of it: the
    first is the last for a Gaussian, three are enough for a Moffat profile or a trail. It stays
    where it is when there is no light to share.
    """
    import sep

    total, _, _ = sep.sum_circle(pixels, x, y, reach_px, mask=bad, subpix=SUBPIXELS)
    radius_px = np.minimum(guess_px, reach_px)
    for _ in range(HALF_FLUX_STEPS):
        within, _, _ = sep.sum_circle(pixels, x, y, radius_px, mask=bad, subpix=SUBPIXELS)
        known = (total > 0) & np.isfinite(within)
        share = np.divide(within, total, out=np.full_like(total, 0.5), where=known).clip(0.1, 0.9)
        radius_px = np.minimum(radius_px * np.sqrt(np.log(2.0) / -np.log1p(-share)), reach_px)
    return radius_px


@quiet_matmul
def _windowed_centroids(
    pixels: NDArray[np.float32], x: FloatArray, y: FloatArray, sigma_px: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return centroids weighted by a round Gaussian that moves along; NaN where light is negative.

    Notes
    -----
    SExtractor's XWIN, YWIN: each step goes twice as far as the weighted mean, which a Gaussian
    star in a window of its own width reaches in one.
    """
    x, y = x.copy(), y.copy()
    for group, stamps, column, row in _stamps(pixels, x, y, WINDOW_SIGMAS * sigma_px):
        per_variance = 0.5 / sigma_px[group, None] ** 2
        for _ in range(CENTROID_STEPS):
            dx, dy = column - x[group, None], row - y[group, None]
            weight_x, weight_y = np.exp(-per_variance * dx**2), np.exp(-per_variance * dy**2)
            along_x = np.stack([weight_x, weight_x * dx], axis=2).astype(np.float32)
            along_y = np.stack([weight_y, weight_y * dy], axis=1).astype(np.float32)
            moments = along_y @ (stamps @ along_x)  # [[flux, flux dx], [flux dy, flux dx dy]]
            light = np.where(moments[:, 0, 0] > 0, moments[:, 0, 0], np.nan)
            step_x, step_y = 2.0 * moments[:, 0, 1] / light, 2.0 * moments[:, 1, 0] / light
            x[group] += step_x
            y[group] += step_y
            if not np.any(np.hypot(step_x, step_y) > CENTROID_TOLERANCE_PX):
                break
    return x, y


def _stamps(
    image: NDArray, x: FloatArray, y: FloatArray, reach_px: FloatArray
) -> Iterator[tuple[NDArray[np.intp], NDArray, NDArray[np.intp], NDArray[np.intp]]]:
    """Yield stars of like size with their squares of `image`, as far as the frame goes.

    A group is its stars' indices (n,), the squares (n, k, k), and the columns and the rows that
    these cover, (n, k) each.
    """
    largest_half = (min(image.shape) - 1) // 2
    half_px = np.minimum(np.ceil(reach_px).astype(int), largest_half)
    order = np.argsort(-half_px, kind="stable")
    while order.size:
        side = 2 * half_px[order[0]] + 1
        group, order = np.split(order, [max(1, GROUP_PIXELS // side**2)])
        squares = np.lib.stride_tricks.sliding_window_view(image, (side, side))
        left = np.clip(np.rint(x[group]).astype(int) - side // 2, 0, squares.shape[1] - 1)
        top = np.clip(np.rint(y[group]).astype(int) - side // 2, 0, squares.shape[0] - 1)
        offsets = np.arange(side)
        yield group, squares[top, left], left[:, None] + offsets, top[:, None] + offsets


def _to_brighter(x: FloatArray, y: FloatArray, flux: FloatArray, within_px: float) -> FloatArray:
    """Return each object's distance to the nearest brighter one, infinity beyond `within_px`."""
    order = np.argsort(y, kind="stable")
    x, y, flux = x[order], y[order], flux[order]
    nearest_px = np.full(len(x), np.inf)
    for step in range(1, len(x)):  # ends where the strips of `within_px` have no more objects
        first = np.flatnonzero(y[step:] - y[:-step] < within_px)
        if first.size == 0:
            break
        second = first + step
        distance_px = np.hypot(x[first] - x[second], y[first] - y[second])
        distance_px[distance_px > within_px] = np.inf
        for fainter, brighter in ((first, second), (second, first)):
            limit_px = np.where(flux[fainter] < flux[brighter], distance_px, np.inf)
            nearest_px[fainter] = np.minimum(nearest_px[fainter], limit_px)
    unsorted_px = np.empty_like(nearest_px)
    unsorted_px[order] = nearest_px
    return unsorted_px


def _is_star(
    shape: tuple[int, ...], bad: BoolArray | None, stars: Detections, saturated: BoolArray
) -> BoolArray:
    """Tell stars from spikes and lumps.

    A star is as wide as the frame's typical one, not the surroundings of something masked, and no
    part of a brighter one: further than a typical FWHM from it.
    """
    ny, nx = shape
    plausible = (
        (stars.flux_adu > 0)
        & (stars.axis_ratio > MIN_AXIS_RATIO)
        & np.isfinite(stars.x_px + stars.y_px + stars.fwhm_px)
        & (stars.x_px > -0.5)
        & (stars.x_px < nx - 0.5)
        & (stars.y_px > -0.5)
        & (stars.y_px < ny - 0.5)
    )
    typical = plausible & ~saturated
    if not typical.any():
        return plausible
    typical_px = float(np.median(stars.fwhm_px[typical]))
    wide = np.flatnonzero(plausible & (stars.fwhm_px >= MIN_FWHM_OF_TYPICAL * typical_px))
    if bad is not None:
        core_px = max(0.5 * typical_px, MIN_CORE_RADIUS_PX)
        masked = _masked_share(bad, stars.x_px[wide], stars.y_px[wide], core_px)
        least_px = np.where(masked > 0, MIN_FWHM_BESIDE_MASKED * typical_px, 0.0)
        wide = wide[(masked <= MAX_MASKED_OF_CORE) & (stars.fwhm_px[wide] >= least_px)]
    x, y, flux = stars.x_px[wide], stars.y_px[wide], stars.flux_adu[wide]
    real = np.zeros(len(stars), bool)
    real[wide[_to_brighter(x, y, flux, typical_px) == np.inf]] = True
    return real


def _masked_share(bad: BoolArray, x: FloatArray, y: FloatArray, radius_px: float) -> FloatArray:
    """Return the share of pixels that are bad, of those with their middles in a circle."""
    share = np.zeros(len(x))
    for group, stamps, column, row in _stamps(bad, x, y, np.full(len(x), radius_px)):
        off_x, off_y = column - x[group, None], row - y[group, None]
        inside = off_x[:, None, :] ** 2 + off_y[:, :, None] ** 2 <= radius_px**2
        n_inside = np.count_nonzero(inside, axis=(1, 2))
        share[group] = np.count_nonzero(inside & stamps, axis=(1, 2)) / np.maximum(n_inside, 1)
    return share


def _neighbour_of_peak(
    pixels: NDArray[np.float32], x_px: FloatArray, y_px: FloatArray
) -> FloatArray:
    """Return the mean of the two brighter side neighbours of each object's peak over the peak.

    About 0.3 for a Gaussian of FWHM 1.5 px, the noise only for a single hot pixel.
    """
    ny, nx = pixels.shape
    offsets = np.arange(-1, 2)
    x = np.clip(np.rint(x_px).astype(int), 2, nx - 3)
    y = np.clip(np.rint(y_px).astype(int), 2, ny - 3)
    block = pixels[
        y[:, None, None] + offsets[None, :, None], x[:, None, None] + offsets[None, None, :]
    ].reshape(len(x), 9)
    highest = np.argmax(block, axis=1)
    y_peak, x_peak = y + highest // 3 - 1, x + highest % 3 - 1
    peak = pixels[y_peak, x_peak]
    sides = np.sort(
        np.stack(
            [
                pixels[y_peak + 1, x_peak],
                pixels[y_peak - 1, x_peak],
                pixels[y_peak, x_peak + 1],
                pixels[y_peak, x_peak - 1],
            ]
        ),
        axis=0,
    )
    return np.where(peak > 0, sides[2:].mean(axis=0) / np.where(peak > 0, peak, 1.0), 0.0)


def _chosen(stars: Detections, order: NDArray[np.intp]) -> Detections:
    return Detections(
        x_px=stars.x_px[order],
        y_px=stars.y_px[order],
        flux_adu=stars.flux_adu[order],
        peak_adu=stars.peak_adu[order],
        fwhm_px=stars.fwhm_px[order],
        axis_ratio=stars.axis_ratio[order],
        snr=stars.snr[order],
        sky_adu=stars.sky_adu,
        sky_rms_adu=stars.sky_rms_adu,
    )
