"""Stars on a frame: where they are, how bright, how wide. No catalogue, no aperture photometry."""

import numpy as np
from numpy.typing import NDArray

from wombat_dagster.domain import BoolArray, Detections, FloatArray

BACKGROUND_BOX_PX = 64
MIN_AREA_PX = 5
MIN_SIDE_PX = 8
# sep's pixel buffer and deblending contrast: its defaults, a buffer for a crowded frame (whose
# allocation alone takes as long as everything else), and that without deblending.
EXTRACT_ATTEMPTS = ((300_000, 0.005), (3_000_000, 0.005), (3_000_000, 1.0))

# How far a star's own light is taken to reach: isophotal sigmas, but at most typical FWHMs, and
# half of the way to a brighter star, whose light would otherwise be counted for the fainter one's.
REACH_SIGMAS = 6.0
REACH_RANGE_PX = (4.0, 60.0)
REACH_TYPICAL_FWHM = 2.5
REACH_TO_BRIGHTER = 0.5
MIN_RADIUS_PX = 2.0
MAX_SHIFT_SIGMAS = 0.5  # of the windowed centroid from the isophotal one, or 1 px
MAX_SHIFT_PX = 1.0

# A star is never narrower than the seeing. What is narrower by this factor than the frame's
# typical star, or stands on its pixel alone, is a hot pixel, a cosmic ray or a cluster of hot ones.
MIN_FWHM_OF_TYPICAL = 0.6
MIN_NEIGHBOUR_OF_PEAK = 0.12
MIN_AXIS_RATIO = 0.1  # a trail is at most so thin; below are bad columns and satellites

# Variance in px² that a unit square adds to a profile, by which a radius summed over whole pixels
# is too wide: 1/12 along each axis.
PIXEL_VARIANCE_PX2 = 1.0 / 12.0
FWHM_OF_SIGMA = 2.0 * np.sqrt(2.0 * np.log(2.0))


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
    if min(pixels.shape) < MIN_SIDE_PX or bad.all():
        return _no_stars(pixels, bad)
    import sep

    background = sep.Background(pixels, mask=bad, bw=BACKGROUND_BOX_PX, bh=BACKGROUND_BOX_PX)
    sky_rms_adu = float(background.globalrms)
    if not sky_rms_adu > 0:
        return _no_stars(pixels, bad)
    background.subfrom(pixels)
    found = _extract(pixels, bad, threshold_adu=threshold_sigma * sky_rms_adu)
    if found is not None:
        found = found[np.isfinite(found["x"] + found["y"])]
        # here already, lest a frame full of hot pixels makes them its typical star
        found = found[_neighbour_of_peak(pixels, found["x"], found["y"]) > MIN_NEIGHBOUR_OF_PEAK]
    if found is None or len(found) == 0:
        return _no_stars(pixels, bad, background.globalback, sky_rms_adu)
    stars = _measure(pixels, bad, found, float(background.globalback), sky_rms_adu)
    saturated = np.zeros(len(stars), bool)
    if saturation_adu is not None:
        saturated = stars.peak_adu + background.globalback >= saturation_adu
    real = _is_star(pixels.shape, stars, saturated)
    order = np.flatnonzero(real)[np.argsort(-stars.flux_adu[real], kind="stable")]
    return _chosen(stars, order[:max_stars])


def _clean(image: NDArray, mask: BoolArray | None) -> tuple[NDArray[np.float32], BoolArray]:
    """Return native float32 pixels (a copy, zero where bad) and where they are bad."""
    pixels = np.array(image, dtype=np.float32, order="C", ndmin=2)
    bad = ~np.isfinite(pixels)
    if mask is not None:
        bad |= mask
    pixels[bad] = 0.0
    return pixels, bad


def _no_stars(
    pixels: NDArray,
    bad: BoolArray,
    sky_adu: float | None = None,
    sky_rms_adu: float | None = None,
) -> Detections:
    good = pixels[~bad]
    none = np.zeros(0)
    if sky_adu is None:
        sky_adu = float(np.median(good)) if good.size else np.nan
    if sky_rms_adu is None:
        sky_rms_adu = float(np.std(good)) if good.size else np.nan
    return Detections(
        x_px=none,
        y_px=none,
        flux_adu=none,
        peak_adu=none,
        fwhm_px=none,
        axis_ratio=none,
        snr=none,
        sky_adu=float(sky_adu),
        sky_rms_adu=float(sky_rms_adu),
    )


def _extract(
    pixels: NDArray[np.float32], bad: BoolArray, *, threshold_adu: float
) -> NDArray | None:
    """Return sep's objects; with less deblending, then None, when the frame overflows sep."""
    import sep

    for pixel_stack, deblend_contrast in EXTRACT_ATTEMPTS:
        sep.set_extract_pixstack(pixel_stack)
        try:
            return sep.extract(
                pixels,
                threshold_adu,
                mask=bad,
                minarea=MIN_AREA_PX,
                deblend_cont=deblend_contrast,
            )
        except Exception as overflow:  # sep raises bare Exception for its limits
            if "internal pixel buffer" not in str(overflow) and "deblend" not in str(overflow):
                raise
    return None


def _measure(
    pixels: NDArray[np.float32],
    bad: BoolArray,
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
    half_flux_px = _half_flux_radius(pixels, bad, x, y, reach_px)
    widest_px = max(REACH_TYPICAL_FWHM * 2.0 * float(np.median(half_flux_px)), REACH_RANGE_PX[0])
    wide = reach_px > widest_px
    reach_px[wide] = widest_px
    half_flux_px[wide] = _half_flux_radius(pixels, bad, x[wide], y[wide], reach_px[wide])
    window_sigma = np.maximum(2.0 * half_flux_px / FWHM_OF_SIGMA, 0.5)
    x_win, y_win, _ = sep.winpos(pixels, x, y, window_sigma, mask=bad)
    moved = np.hypot(x_win - x, y_win - y)
    near = moved < np.maximum(MAX_SHIFT_PX, MAX_SHIFT_SIGMAS * found["a"])  # False for NaN
    x, y = np.where(near, x_win, x), np.where(near, y_win, y)
    radius_px = np.minimum(np.maximum(2.5 * half_flux_px, MIN_RADIUS_PX), lonely_px)
    flux, _, _ = sep.sum_circle(pixels, x, y, radius_px, mask=bad, subpix=5)
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
    pixels: NDArray[np.float32], bad: BoolArray, x: FloatArray, y: FloatArray, reach_px: FloatArray
) -> FloatArray:
    import sep

    radius_px, _ = sep.flux_radius(pixels, x, y, reach_px, 0.5, normflux=None, mask=bad, subpix=5)
    return radius_px


def _to_brighter(x: FloatArray, y: FloatArray, flux: FloatArray, within_px: float) -> FloatArray:
    """Return each object's distance to the nearest brighter one, infinity beyond `within_px`."""
    from scipy.spatial import KDTree

    pairs = KDTree(np.stack([x, y], axis=1)).query_pairs(within_px, output_type="ndarray")
    first, second = pairs.T
    distance_px = np.hypot(x[first] - x[second], y[first] - y[second])
    nearest_px = np.full(len(x), np.inf)
    np.minimum.at(nearest_px, np.where(flux[first] < flux[second], first, second), distance_px)
    return nearest_px


def _is_star(shape: tuple[int, ...], stars: Detections, saturated: BoolArray) -> BoolArray:
    """Tell stars from spikes and lumps.

    A star is as wide as the frame's typical one, and no part of a brighter one: further than a
    typical FWHM from it.
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
    x, y, flux = stars.x_px[wide], stars.y_px[wide], stars.flux_adu[wide]
    real = np.zeros(len(stars), bool)
    real[wide[_to_brighter(x, y, flux, typical_px) == np.inf]] = True
    return real


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
