"""The radii that stars are measured with: from the FWHM, for the best signal, or by a scan.

All stars of a frame have the same radii, in tenths of a pixel, as AstroImageJ's users set them: a
night to which a frame is added mostly keeps its radii, and the frames measured before need not be
measured again. What the variable does has no say in any of them; of T1
only its brightness counts, by which stars like it are told. Numbers are DOMAIN section 7.
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from wombat_dagster import domain
from wombat_dagster.domain import BoolArray, FloatArray
from wombat_dagster.science.field_stars import against_the_others, clipped_scatter, instrumental
from wombat_dagster.science.sequence import CROWDING_FWHM, CROWDING_MAG

DECIMALS_PX = 1  # of widths and radii that stars are measured with
MIN_RADIUS_GAP_PX = 5.0
SKY_PER_SOURCE_AREA = 4.0
N_RADII = 16  # of a scan: 0.8 to 2.5 FWHM in steps of a ninth
LIKE_T1_MAG = (0.5, 1.0, 2.0, 4.0)  # sigma of the weight by brightness: the first that leaves
MIN_LIKE_T1 = 5.0  # so many stars' weight
MIN_SCAN_STARS = 3
MIN_SCAN_FRAMES = 8
MAX_WITHOUT_VALUE = 0.05  # of the frames
MAG_PER_RELATIVE_ERROR = 2.5 / math.log(10.0)


def choose_aperture(
    fwhm_px: float,
    *,
    radius_fwhm: float = 1.7,
    sky_inner_fwhm: float = 3.4,
    sky_outer_fwhm: float = 6.8,
    min_radius_px: float = 2.5,
    radius_px: float | None = None,
    sky_inner_px: float | None = None,
    sky_outer_px: float | None = None,
) -> domain.Aperture:
    """Return the radii for a night whose median FWHM is `fwhm_px`, or the fixed ones.

    The annulus begins at least 5 px beyond the aperture and covers at least four times its area.

    Raises
    ------
    BadPsf
        The FWHM is not a positive number, and the radii are not fixed.
    """
    if radius_px is not None and sky_inner_px is not None and sky_outer_px is not None:
        return domain.Aperture(
            radius_px=radius_px, sky_inner_px=sky_inner_px, sky_outer_px=sky_outer_px
        )
    if not (math.isfinite(fwhm_px) and fwhm_px > 0):
        raise domain.BadPsf(
            f"no aperture from a FWHM of {fwhm_px:.2f} px: no frame has a usable one"
        )
    radius = max(in_tenths(radius_fwhm * fwhm_px), min_radius_px)
    inner = in_tenths(max(sky_inner_fwhm * fwhm_px, radius + MIN_RADIUS_GAP_PX))
    enough = math.sqrt(inner**2 + SKY_PER_SOURCE_AREA * radius**2)
    outer = max(in_tenths(sky_outer_fwhm * fwhm_px), math.ceil(10.0 * enough) / 10.0)
    return domain.Aperture(radius_px=radius, sky_inner_px=inner, sky_outer_px=outer)


def scaled_aperture(
    aperture: domain.Aperture, factor: float, *, min_radius_px: float = 2.5
) -> domain.Aperture:
    """Return the radii of a frame whose stars are so much wider than the night's.

    Not in tenths: what follows the seeing must follow it without steps. The annulus keeps its
    distance from the aperture and its area.
    """
    radius = max(aperture.radius_px * factor, min_radius_px)
    inner = max(aperture.sky_inner_px * factor, radius + MIN_RADIUS_GAP_PX)
    enough = math.sqrt(inner**2 + SKY_PER_SOURCE_AREA * radius**2)
    outer = max(aperture.sky_outer_px * factor, enough)
    return domain.Aperture(radius_px=radius, sky_inner_px=inner, sky_outer_px=outer)


def in_tenths(px: float) -> float:
    """Return a width or a radius as it is measured with."""
    return round(float(px), DECIMALS_PX)


# ------------------------------------------------------------------------------- neighbours


def neighbour_px(
    x_px: FloatArray,
    y_px: FloatArray,
    flux_adu: FloatArray,
    neighbours: domain.Detections,
    *,
    fwhm_px: float,
) -> FloatArray:
    """Return how far from each star of a frame the nearest is that is less than 3 mag fainter.

    Infinity where there is none. The detection within one FWHM of a place is the star itself; one
    that was not detected is judged by its measured `flux_adu`, shape (n_stars,).
    """
    nearest = np.full(len(x_px), np.inf)
    for index, (x, y, own) in enumerate(zip(x_px, y_px, flux_adu, strict=True)):
        distance = np.hypot(neighbours.x_px - x, neighbours.y_px - y)
        other = np.ones(distance.size, bool)
        light = float(own) if own > 0 else 0.0
        if distance.size and distance.min() <= fwhm_px:
            itself = int(np.argmin(distance))
            other[itself], light = False, float(neighbours.flux_adu[itself])
        other &= neighbours.flux_adu > light * 10 ** (-0.4 * CROWDING_MAG)
        nearest[index] = distance[other].min(initial=np.inf)
    return nearest


def is_blended(distance_px: ArrayLike, *, radius_px: ArrayLike, fwhm_px: ArrayLike) -> BoolArray:
    """Return where a neighbour at `distance_px` shines into the aperture: within 2 FWHM of it."""
    blended: BoolArray = np.asarray(distance_px) < CROWDING_FWHM * np.asarray(fwhm_px) + np.asarray(
        radius_px
    )
    return blended


# ------------------------------------------------------------------------------- choosing


def scanned_radii(
    fwhm_px: float,
    scan_fwhm: tuple[float, float],
    *,
    min_radius_px: float,
    usual_px: float,
    neighbour_px: float = math.inf,
) -> FloatArray:
    """Return the radii to try, ascending: up to 16 that are not the same in tenths.

    T1's nearest neighbour at `neighbour_px` keeps them 2 FWHM away from it, but never below the
    `usual_px` that go without a scan.
    """
    low, high = max(scan_fwhm[0] * fwhm_px, min_radius_px), scan_fwhm[1] * fwhm_px
    high = min(high, max(neighbour_px - CROWDING_FWHM * fwhm_px, usual_px))
    if high <= low:
        return np.array([low])
    return np.unique(np.round(np.linspace(low, high, N_RADII), DECIMALS_PX))


def steadiest(
    radii_px: FloatArray,
    source_sky_adu: FloatArray,
    *,
    like_adu: float,
    terms: FloatArray,
) -> domain.ApertureScan | None:
    """Return the radius at which the stars are steadiest against each other, None if too few are.

    Parameters
    ----------
    source_sky_adu
        Light of the comps, the check star and field stars, never of the variable, shape (n_frames,
        n_stars, n_radii); NaN where there is no value or it is not to be used.
    like_adu
        T1's median light: what matters is how steady stars of its brightness are. NaN: not known,
        then all stars count alike.
    terms
        Time and airmass of the frames, shape (n_frames, 2): straight lines in them are no scatter.

    Notes
    -----
    Per radius and star the standard deviation (within 4 robust sigmas) of the magnitude against the
    weighted zero point of all the others; over the stars the geometric mean, so that each says at
    which radius *it* is steadiest, weighted by a Gaussian in brightness about T1: of 0.5 mag, or
    wider where that leaves less than five stars' weight.
    """
    n_frames = len(source_sky_adu)
    missing = (~(source_sky_adu > 0)).sum(axis=0).max(axis=-1)
    source = source_sky_adu[:, missing <= MAX_WITHOUT_VALUE * n_frames]
    n_stars = source.shape[1]
    if n_stars < MIN_SCAN_STARS or n_frames < MIN_SCAN_FRAMES:
        return None
    scatter = np.stack(
        [
            clipped_scatter(against_the_others(instrumental(source[:, :, index]), terms=terms))
            for index in range(radii_px.size)
        ],
        axis=-1,
    )
    middle = source[:, :, radii_px.size // 2]
    combined = _over_stars(scatter, np.nanmedian(middle, axis=0), like_adu)
    return domain.ApertureScan(
        radii_px=radii_px,
        scatter_mag=combined,
        chosen=int(np.argmin(combined)),
        criterion="frame-to-frame scatter of comps, check and field stars against each other, "
        "weighted to the variable's brightness",
        n_stars=n_stars,
        n_frames=n_frames,
    )


def best_signal(
    radii_px: FloatArray,
    source_sky_adu: FloatArray,
    n_sky_px: FloatArray,
    *,
    sky_rms_adu: FloatArray,
    gain_e_adu: float | None,
    like_adu: float,
) -> domain.ApertureScan | None:
    """Return the radius of the best signal-to-noise of stars like T1, None if too few are measured.

    Parameters
    ----------
    source_sky_adu, n_sky_px
        Growth curves of the comps, the check star and field stars, never of the variable, shape
        (n_frames, n_stars, n_radii), and the pixels of their skies, shape (n_frames, n_stars); NaN
        where there is no value or it is not to be used.
    sky_rms_adu
        Noise of a pixel of each frame's sky, as it is found there, shape (n_frames,).
    gain_e_adu
        1 when not known.
    like_adu
        As for `steadiest`.

    Notes
    -----
    1.0857/SNR with the noise √(S/g + n(1 + n/n_b)σ²): per star and radius the median over the
    frames, over the stars the geometric mean with the weights of `steadiest`.
    """
    area = np.pi * radii_px**2
    sky = sky_rms_adu[:, None, None] ** 2 * area * (1.0 + area / n_sky_px[:, :, None])
    source = np.where(source_sky_adu > 0, source_sky_adu, np.nan)
    error_mag = MAG_PER_RELATIVE_ERROR * np.sqrt(source / (gain_e_adu or 1.0) + sky) / source
    usable = np.isfinite(error_mag).all(axis=(0, 2))
    if usable.sum() < MIN_SCAN_STARS:
        return None
    middle = source[:, usable, radii_px.size // 2]
    scatter = np.median(error_mag[:, usable], axis=0)
    combined = _over_stars(scatter, np.median(middle, axis=0), like_adu)
    return domain.ApertureScan(
        radii_px=radii_px,
        scatter_mag=combined,
        chosen=int(np.argmin(combined)),
        criterion="1.0857/SNR of comps, check and field stars by their growth curves, "
        "weighted to the variable's brightness",
        n_stars=int(usable.sum()),
        n_frames=len(source),
    )


def _over_stars(scatter: FloatArray, light_adu: FloatArray, like_adu: float) -> FloatArray:
    """Return the weighted geometric mean over stars of `scatter`, shape (n_stars, n_radii)."""
    weight = np.ones(len(light_adu))
    if like_adu > 0:
        away_mag = 2.5 * np.log10(light_adu / like_adu)
        for sigma_mag in LIKE_T1_MAG:
            weight = np.exp(-0.5 * (away_mag / sigma_mag) ** 2)
            if weight.sum() >= MIN_LIKE_T1:
                break
        weight = np.maximum(weight, 1e-12)  # all may be far from T1
    logs = np.log(np.maximum(scatter, 1e-6))
    return np.exp((weight[:, None] * logs).sum(axis=0) / weight.sum())
