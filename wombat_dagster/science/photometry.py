"""Aperture photometry of one frame as AstroImageJ does it, and what follows from it at once.

`measure_stars` takes pixels and predicted places and returns what is measured of every star,
`sum_stars` the light alone, in several apertures; `relative_fluxes` and `instrumental_mag` are
arithmetic on that. Standard magnitudes, and errors that need more than one frame, stay out
(`science.standard`). Every definition is DOMAIN section 4, checked on real AstroImageJ tables;
nothing here was copied from it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wombat_dagster import domain
from wombat_dagster.domain import BoolArray, Flag, FloatArray, MaskBit
from wombat_dagster.science import astrometry
from wombat_dagster.science.centroids import Centroid, centroids
from wombat_dagster.science.cutouts import (
    FWHM_PER_SIGMA,
    Annulus,
    Cutouts,
    blocks,
    clipped_sky,
    cut_out,
    mask_bits,
    pixel_overlap,
    whole,
)
from wombat_dagster.science.mending import StarShape, fit_shape, mended

DIGITISATION_VARIANCE = 0.083521  # 0.289 squared: the variance of rounding to whole ADU
MAX_MASKED_FRACTION = 0.10  # of the aperture's area
MIN_PEAK_OVERLAP = 0.01
LOW_SNR = 3.0
# Of the peak: pixels above it show the FWHM. The first that leaves MIN_PROFILE_PX and a profile
# that falls; the core of a trailed star may be flat.
PROFILE_FLOORS = (0.25, 0.15, 0.1, 0.05)
MIN_PROFILE_PX = 4
MAX_FWHM_RADII = 4.0  # of the aperture: a profile flatter than that is no star's
MEND_SIGMAS = 1.0  # of its error: a star with more light in bad pixels is mended with more care
# Stars whose shape mends the cores of others.
SHAPE_MIN_STARS = 3
SHAPE_MAX_STARS = 12
SHAPE_MIN_SNR = 20.0
MAG_PER_RELATIVE_ERROR = 2.5 / math.log(10.0)

_Measured = tuple[dict[str, FloatArray], NDArray[np.int64]]  # columns by name, flags

# ----------------------------------------------------------------------------------- errors


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
    centroid: Centroid = "windowed",
) -> domain.StarMeasurements:
    """Return the measurements of the stars at the predicted places of one frame.

    Parameters
    ----------
    image
        Reduced frame in ADU, ``[y, x]``.
    mask
        `MaskBit`s per pixel, shape of `image`; booleans mean bad. Bad, edge and NaN pixels do
        not count: in the annulus they are ignored, in the aperture they are mended
        (`science.mending`), flag the star `BAD_PIXEL`, and make it NaN and `UNMEASURED` beyond
        10 % of the area; `n_bad_px` counts those by more than 1 % inside. In the annulus saturated
        and non-linear pixels are ignored too; in the aperture they flag the star.
    x_px, y_px
        Predicted places, shape (n,), 0-based.
    recentre_limit_px
        A centroid further from the prediction than this, or none, leaves the aperture at the
        prediction and flags `OFF_CENTRE`. 0 measures at the prediction.
    solution
        Gives `ra_deg`, `dec_deg` of the places measured; NaN without.
    fwhm_px
        Width of the centroid's Gaussian window; radius / 1.7 when not given.
    centroid
        ``windowed``: under a Gaussian window of the star's width; ``howell``: the plain centre of
        gravity of the aperture; ``off``: the prediction.

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
    core is flat (ln I against r², weights I²; Guo 2011, IEEE Signal Process. Mag. 28, 134); NaN
    where that is wider than twice the aperture, which then says nothing of a star.
    """
    frame = _Frame(
        image=image,
        bits=mask_bits(mask, image.shape),
        annulus=Annulus(inner_px=aperture.sky_inner_px, outer_px=aperture.sky_outer_px),
        gain_e_adu=gain_e_adu,
        read_noise_e=read_noise_e,
        dark_e_px=dark_e_px,
    )
    placed = _place(
        frame,
        np.array(x_px, dtype=float),
        np.array(y_px, dtype=float),
        kind=centroid,
        radius_px=aperture.radius_px,
        smallest_px=aperture.radius_px,
        fwhm_px=fwhm_px,
        limit_px=recentre_limit_px,
    )

    def measure(x: FloatArray, y: FloatArray, shape: StarShape | None) -> _Measured:
        return _measure_block(frame, x, y, shape, radius_px=aperture.radius_px)

    names = [name for name in domain.StarMeasurements.__slots__ if name != "flags"]
    columns, flags = _in_blocks(
        frame, placed, measure, dict.fromkeys(names, ()), aperture.radius_px
    )
    ra_deg, dec_deg = columns["ra_deg"], columns["dec_deg"]
    if solution is not None:
        ra_deg, dec_deg = astrometry.sky(solution, placed.x, placed.y)
    columns |= {"x_px": placed.x, "y_px": placed.y, "ra_deg": ra_deg, "dec_deg": dec_deg}
    return domain.StarMeasurements(**columns, flags=flags)


@dataclass(frozen=True, slots=True, kw_only=True)
class StarSums:
    """Light of n_stars in n_radii apertures about the same places of one frame.

    Places, sky and the number of sky pixels have shape (n_stars,), the rest (n_stars, n_radii).
    """

    x_px: FloatArray
    y_px: FloatArray
    sky_adu_px: FloatArray
    n_sky_px: FloatArray
    source_sky_adu: FloatArray
    source_error_adu: FloatArray
    snr: FloatArray
    flags: NDArray[np.int64]


def sum_stars(
    image: FloatArray,
    mask: NDArray[np.integer] | BoolArray | None,
    x_px: ArrayLike,
    y_px: ArrayLike,
    *,
    radii_px: FloatArray,
    sky_inner_px: float,
    sky_outer_px: float,
    gain_e_adu: float | None,
    read_noise_e: float | None,
    recentre_limit_px: float,
    dark_e_px: float = 0.0,
    fwhm_px: float | None = None,
    centroid: Centroid = "windowed",
) -> StarSums:
    """Return the light of the stars in several apertures each, without their shapes.

    What `measure_stars` gives for one of the radii, and the same arguments: one centroid and one
    sky serve all radii. The centroid belongs to the median radius (its window, where `fwhm_px` is
    not given), and bad pixels are mended for the largest radius. A star whose smallest aperture
    leaves the frame has no sky.
    """
    radii = np.asarray(radii_px, dtype=float)
    frame = _Frame(
        image=image,
        bits=mask_bits(mask, image.shape),
        annulus=Annulus(inner_px=sky_inner_px, outer_px=sky_outer_px),
        gain_e_adu=gain_e_adu,
        read_noise_e=read_noise_e,
        dark_e_px=dark_e_px,
    )
    placed = _place(
        frame,
        np.array(x_px, dtype=float),
        np.array(y_px, dtype=float),
        kind=centroid,
        radius_px=float(np.median(radii)),
        smallest_px=float(radii.min()),
        fwhm_px=fwhm_px,
        limit_px=recentre_limit_px,
    )

    def measure(x: FloatArray, y: FloatArray, shape: StarShape | None) -> _Measured:
        return _sum_block(frame, x, y, shape, radii_px=radii)

    each: tuple[int, ...] = radii.shape
    columns, flags = _in_blocks(
        frame,
        placed,
        measure,
        {
            "sky_adu_px": (),
            "n_sky_px": (),
            "source_sky_adu": each,
            "source_error_adu": each,
            "snr": each,
        },
        float(radii.max()),
    )
    return StarSums(x_px=placed.x, y_px=placed.y, flags=flags, **columns)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frame:
    """A frame, and what the light of its stars is measured with."""

    image: FloatArray
    bits: NDArray[np.uint8]
    annulus: Annulus
    gain_e_adu: float | None
    read_noise_e: float | None
    dark_e_px: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Placed:
    """Where the apertures of all stars go; `on_frame`: the stars whose smallest one fits."""

    x: FloatArray
    y: FloatArray
    flags: NDArray[np.int64]
    on_frame: NDArray[np.intp]


def _place(
    frame: _Frame,
    x: FloatArray,
    y: FloatArray,
    *,
    kind: Centroid,
    radius_px: float,
    smallest_px: float,
    fwhm_px: float | None,
    limit_px: float,
) -> _Placed:
    """Return the centroids of the stars on the frame and the predictions of the others."""
    flags = np.zeros(x.shape, dtype=np.int64)
    flags[~whole(x, y, frame.image.shape, frame.annulus.outer_px)] |= Flag.NEAR_EDGE
    on_frame = np.flatnonzero(whole(x, y, frame.image.shape, smallest_px))
    for block in blocks(on_frame.size):
        stars = on_frame[block]
        x[stars], y[stars], found = centroids(
            frame.image,
            frame.bits,
            x[stars],
            y[stars],
            frame.annulus,
            kind=kind,
            radius_px=radius_px,
            fwhm_px=fwhm_px,
            limit_px=limit_px,
            margin_px=smallest_px,
        )
        flags[stars[~found]] |= Flag.OFF_CENTRE
    return _Placed(x=x, y=y, flags=flags, on_frame=on_frame)


def _in_blocks(
    frame: _Frame,
    placed: _Placed,
    measure: Callable[[FloatArray, FloatArray, StarShape | None], _Measured],
    shapes: Mapping[str, tuple[int, ...]],
    radius_px: float,
) -> tuple[dict[str, FloatArray], NDArray[np.int64]]:
    """Return the columns, each star's part of the shape given by name, and the flags.

    A star with more light in bad pixels than its error is measured twice: when the others are
    known, the shape they have mends it.
    """
    n_stars = placed.x.size
    columns = {name: np.full((n_stars, *shape), np.nan) for name, shape in shapes.items()}
    each = columns["source_sky_adu"].shape
    columns["mended_adu"] = np.full(each, np.nan)
    flags = np.full(each, Flag.UNMEASURED, dtype=np.int64)

    def fill(wanted: NDArray[np.intp], shape: StarShape | None) -> None:
        for block in blocks(wanted.size):
            stars = wanted[block]
            measured, flags[stars] = measure(placed.x[stars], placed.y[stars], shape)
            for name, values in measured.items():
                columns[name][stars] = values

    fill(placed.on_frame, None)
    at_stake = np.abs(columns["mended_adu"]) > MEND_SIGMAS * columns["source_error_adu"]
    mend = np.flatnonzero(at_stake.any(axis=tuple(range(1, at_stake.ndim))))
    if mend.size:
        shape = _shape_of_frame(frame, placed, columns, flags, radius_px)
        if shape is not None:
            fill(mend, shape)
    del columns["mended_adu"]
    return columns, (flags.T | placed.flags).T


def _shape_of_frame(
    frame: _Frame,
    placed: _Placed,
    columns: Mapping[str, FloatArray],
    flags: NDArray[np.int64],
    radius_px: float,
) -> StarShape | None:
    """Return the shape of the brightest stars without a flag; None where there are too few."""
    n_stars = placed.x.size
    clean = ~_any_flag(flags, ~0) & (placed.flags == 0)
    clean &= (columns["snr"].reshape(n_stars, -1) > SHAPE_MIN_SNR).all(axis=1)
    stars = np.flatnonzero(clean)
    light = columns["source_sky_adu"].reshape(n_stars, -1)[stars].max(axis=1)
    stars = stars[np.argsort(-light)][:SHAPE_MAX_STARS]
    if stars.size < SHAPE_MIN_STARS:
        return None
    cut = cut_out(frame.image, frame.bits, placed.x[stars], placed.y[stars], radius_px)
    return fit_shape(cut, columns["sky_adu_px"][stars], radius_px)


def _any_flag(flags: NDArray[np.int64], wanted: int) -> BoolArray:
    """Return the stars, (n,), with one of the flags in one of the apertures."""
    return np.asarray(((flags & wanted) != 0).any(axis=tuple(range(1, flags.ndim))))


@dataclass(frozen=True, slots=True, kw_only=True)
class _ApertureLight:
    """What n stars show in apertures of one radius; `weights`, `touched` of shape (n, k, k)."""

    weights: FloatArray
    touched: BoolArray
    n_bad: FloatArray
    mended_adu: FloatArray  # the light that bad pixels got
    source_sky_adu: FloatArray
    source_error_adu: FloatArray
    snr: FloatArray
    flags: NDArray[np.int64]


def _sky_and_counts(
    frame: _Frame, x: FloatArray, y: FloatArray, shape: StarShape | None, radius_px: float
) -> tuple[FloatArray, FloatArray, Cutouts]:
    """Return (sky in ADU per pixel, pixels kept, mended cut-outs)."""
    sky_adu, n_sky = clipped_sky(frame.annulus.values(frame.image, frame.bits, x, y))
    cut = cut_out(frame.image, frame.bits, x, y, radius_px)
    return sky_adu, n_sky.astype(float), mended(cut, sky_adu, radius_px, shape)


def _aperture_light(
    frame: _Frame, cut: Cutouts, sky_adu: FloatArray, n_sky: FloatArray, radius_px: float
) -> _ApertureLight:
    """Return the light in one circle each; NaN and UNMEASURED where too much of it is masked."""
    area = math.pi * radius_px**2
    weights = pixel_overlap(cut.dx, cut.dy, radius_px)
    touched = weights > MIN_PEAK_OVERLAP
    flags = _pixel_flags(cut, touched)
    n_bad, mended_adu = np.zeros(len(weights)), np.zeros(len(weights))
    unmeasured = n_sky == 0
    if cut.bad.any():
        n_bad += np.count_nonzero(touched & cut.bad, axis=(1, 2))
        flags[n_bad > 0] |= Flag.BAD_PIXEL
        in_bad = weights * cut.bad
        unmeasured |= in_bad.sum(axis=(1, 2)) / area > MAX_MASKED_FRACTION
        mended_adu = (in_bad * (cut.values - sky_adu[:, None, None])).sum(axis=(1, 2))
    flags[unmeasured] |= Flag.UNMEASURED
    source = (weights * cut.values).sum(axis=(1, 2)) - area * sky_adu
    error = source_error(
        source,
        sky_adu,
        n_source_px=area,
        n_sky_px=n_sky,
        gain_e_adu=frame.gain_e_adu,
        read_noise_e=frame.read_noise_e,
        dark_e_px=frame.dark_e_px,
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        snr = source / error
    flags[snr < LOW_SNR] |= Flag.LOW_SNR
    return _ApertureLight(
        weights=weights,
        touched=touched,
        n_bad=n_bad,
        mended_adu=mended_adu,
        source_sky_adu=np.where(unmeasured, np.nan, source),
        source_error_adu=np.where(unmeasured, np.nan, error),
        snr=np.where(unmeasured, np.nan, snr),
        flags=flags,
    )


def _sum_block(
    frame: _Frame,
    x: FloatArray,
    y: FloatArray,
    shape: StarShape | None,
    *,
    radii_px: FloatArray,
) -> _Measured:
    """Return the columns and flags of `StarSums`; UNMEASURED where an aperture leaves the frame."""
    sky_adu, n_sky, cut = _sky_and_counts(frame, x, y, shape, float(radii_px.max()))
    names = ("source_sky_adu", "source_error_adu", "snr", "mended_adu")
    columns = {name: np.full((x.size, radii_px.size), np.nan) for name in names}
    flags = np.full((x.size, radii_px.size), Flag.UNMEASURED, dtype=np.int64)
    for index, radius in enumerate(radii_px):
        light = _aperture_light(frame, cut.within(radius), sky_adu, n_sky, radius)
        fits = whole(x, y, frame.image.shape, radius)
        flags[fits, index] = light.flags[fits]
        for name, column in columns.items():
            column[fits, index] = getattr(light, name)[fits]
    return columns | {"sky_adu_px": sky_adu, "n_sky_px": n_sky}, flags


def _measure_block(
    frame: _Frame, x: FloatArray, y: FloatArray, shape: StarShape | None, *, radius_px: float
) -> _Measured:
    """Return the columns and flags of `StarMeasurements` of stars whose apertures fit the frame."""
    sky_adu, n_sky, cut = _sky_and_counts(frame, x, y, shape, radius_px)
    light = _aperture_light(frame, cut, sky_adu, n_sky, radius_px)
    good = light.touched & ~cut.bad
    excess = cut.values - sky_adu[:, None, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        moments = _moments(cut, light.weights * excess)
        fwhm = _profile_fwhm(cut, excess, good)
        fwhm = np.where(fwhm <= MAX_FWHM_RADII * radius_px, fwhm, np.nan)
    n_source = np.full(x.size, math.pi * radius_px**2)
    columns = {
        "source_sky_adu": light.source_sky_adu,
        "n_source_px": n_source,
        "source_error_adu": light.source_error_adu,
        "mended_adu": light.mended_adu,
        "snr": light.snr,
        "peak_adu": _highest(cut.values, good),
        "mean_adu": light.source_sky_adu / n_source,
        "sky_adu_px": sky_adu,
        "n_sky_px": n_sky,
        "fwhm_px": fwhm,
        **moments,
    }
    unmeasured = (light.flags & Flag.UNMEASURED) != 0
    columns = {name: np.where(unmeasured, np.nan, v) for name, v in columns.items()}
    return columns | {"n_bad_px": light.n_bad}, light.flags


def _highest(values: FloatArray, allowed: BoolArray) -> FloatArray:
    """Return the highest allowed value of each cut-out, NaN where none is."""
    highest = np.where(allowed, values, -np.inf).max(axis=(1, 2))
    return np.where(np.isfinite(highest), highest, np.nan)


def _pixel_flags(cut: Cutouts, touched: BoolArray) -> NDArray[np.int64]:
    """Return SATURATED and NON_LINEAR of the mask's pixels in the apertures."""
    flags = np.zeros(len(touched), dtype=np.int64)
    marked = np.flatnonzero(cut.bits.any(axis=(1, 2)))
    seen = np.bitwise_or.reduce(np.where(touched[marked], cut.bits[marked], 0), axis=(1, 2))
    flags[marked[(seen & MaskBit.SATURATED) != 0]] |= Flag.SATURATED
    flags[marked[(seen & MaskBit.NON_LINEAR) != 0]] |= Flag.NON_LINEAR
    return flags


def _moments(cut: Cutouts, light: FloatArray) -> dict[str, FloatArray]:
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


def _profile_fwhm(cut: Cutouts, excess: FloatArray, allowed: BoolArray) -> FloatArray:
    """Return the FWHM of the Gaussian through the radial profile; NaN where it does not fall."""
    peak = _highest(excess, allowed)
    square = cut.dy[:, :, None] ** 2 + cut.dx[:, None, :] ** 2
    fwhm = np.full(len(excess), np.nan)
    unsure = np.flatnonzero(peak > 0)
    for floor in PROFILE_FLOORS:
        height = excess[unsure] / peak[unsure, None, None]
        core = allowed[unsure] & (height > floor)
        weight = np.where(core, height, 0.0) ** 2
        log_height = np.log(height, out=np.zeros_like(height), where=core)
        arm, total = square[unsure], weight.sum(axis=(1, 2))
        arm -= ((weight * arm).sum(axis=(1, 2)) / total)[:, None, None]
        log_height -= ((weight * log_height).sum(axis=(1, 2)) / total)[:, None, None]
        weight *= arm
        slope = (weight * log_height).sum(axis=(1, 2)) / (weight * arm).sum(axis=(1, 2))
        falls = (core.sum(axis=(1, 2)) >= MIN_PROFILE_PX) & (slope < 0)
        fwhm[unsure[falls]] = FWHM_PER_SIGMA * np.sqrt(-0.5 / slope[falls])
        unsure = unsure[~falls]
        if not unsure.size:
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
