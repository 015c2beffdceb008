"""What a star's error is made of: photons, sky, read-out, dark, rounding, flat, scintillation.

`photometry.source_error` holds the first five, as AstroImageJ does. The two it does not know, the
twinkling of the air and the noise of the master flat, are the same part of every star's light and
stand here: `relative_extra` for those who add up errors, `noise_budget` with all parts apart.

What stays out: the noise of master bias and dark, and of a sky that is not flat. The master flat's
noise is taken as new on every frame, which it is where the stars wander by their own width; on a
telescope that is guided to the pixel it is a constant offset instead, and the true scatter smaller.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from wombat_dagster import domain
from wombat_dagster.domain import FloatArray
from wombat_dagster.science.cutouts import FWHM_PER_SIGMA
from wombat_dagster.science.photometry import DIGITISATION_VARIANCE

MEDIAN_C_Y: Final = 1.5  # m^(2/3) s^(1/2); the sites' medians are 1.30 to 1.67
TURBULENCE_SCALE_HEIGHT_M: Final = 8000.0
LOWEST_AIRMASS: Final = 0.99  # an airmass of -1 says that the star is below the horizon


def scintillation(
    airmass: ArrayLike,
    exposure_s: ArrayLike,
    *,
    telescope_aperture_m: float,
    site_elevation_m: float,
    c_y: float = MEDIAN_C_Y,
) -> FloatArray:
    """Return the relative 1-sigma scintillation of a star's flux, shaped as `airmass`.

    0 where the airmass or the exposure is not known.

    Notes
    -----
    Osborn, Föhring, Dhillon & Wilson (2015), MNRAS 452, 1707, equation 7:
    σ² = 10e-6 C_Y² D^(-4/3) t^(-1) (sec z)³ exp(-2 h/H), which is Young's law with the factor C_Y
    that measured turbulence profiles ask for (1: Young's own). For exposures long against the time
    the wind takes to cross the aperture; of two stars minutes of arc apart it is independent.
    """
    sec_z, seconds = np.asarray(airmass, dtype=float), np.asarray(exposure_s, dtype=float)
    known = (sec_z > LOWEST_AIRMASS) & np.isfinite(sec_z) & (seconds > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        variance = (
            10e-6
            * c_y**2
            * telescope_aperture_m ** (-4 / 3)
            / seconds
            * sec_z**3
            * np.exp(-2 * site_elevation_m / TURBULENCE_SCALE_HEIGHT_M)
        )
    return np.sqrt(np.where(known, variance, 0.0))


def effective_px(fwhm_px: ArrayLike, radius_px: ArrayLike) -> FloatArray:
    """Return over how many equal pixels a star's light in its aperture is spread, at least 1.

    (Σs)²/Σs² of the light s per pixel: independent relative errors of the pixels, σ each, become
    σ/√n of the star.

    Notes
    -----
    Of a Gaussian of width s in a circle of radius r: Σs ∝ 1 - e, Σs² ∝ (1 - e²)/(4πs²) with
    e = exp(-r²/2s²), so n = 4πs² (1 - e)/(1 + e) = 4πs² tanh(r²/4s²): πr² for a small aperture,
    2.27 FWHM² for a large one. A Moffat profile of the same FWHM has more (β 2.5: 1.9 times), its
    flat noise is up to 1.4 times smaller than this.
    """
    sigma = np.asarray(fwhm_px, dtype=float) / FWHM_PER_SIGMA
    radius = np.asarray(radius_px, dtype=float)
    return np.maximum(4 * np.pi * sigma**2 * np.tanh(radius**2 / (4 * sigma**2)), 1.0)


def relative_extra(table: domain.PhotometryTable) -> FloatArray:
    """Return what every star's error holds beyond `source_error_adu`, shape (n_frames,).

    Relative to the star's flux, 1 sigma: scintillation and the master flat's noise in quadrature.
    A part whose input is not known is 0, and named by `unknown_parts`. The flat's noise is that of
    a star's own light: of the sky below it is left out, being the part flat_noise·√(sky electrons
    per pixel) of the sky's photon noise.
    """
    return np.hypot(_scintillation(table), _flat(table))


def unknown_parts(table: domain.PhotometryTable) -> tuple[str, ...]:
    """Return in words what the errors of a table leave out, or count wrongly, and why."""
    words = []
    if table.gain_e_adu is None:
        words.append("gain not known: the photon, sky, read and dark noise cannot be had")
    if not table.pedestal_removed:
        words.append("bias not subtracted: the sky's photon noise counts it as light")
    inputs = {
        "read noise": (table.read_noise_e,),
        "dark current": (table.dark_e_px,),
        "noise of the master flat": (table.flat_noise,),
        "scintillation (telescope's aperture, site's elevation)": (
            table.telescope_aperture_m,
            table.site_elevation_m,
        ),
    }
    missing = [name for name, values in inputs.items() if any(value is None for value in values)]
    if missing:
        words.append(f"not known and left out: {', '.join(missing)}")
    return tuple(words)


def _scintillation(table: domain.PhotometryTable) -> FloatArray:
    if table.telescope_aperture_m is None or table.site_elevation_m is None:
        return np.zeros(len(table.labels))
    return scintillation(
        table.times.airmass,
        table.exposure_s,
        telescope_aperture_m=table.telescope_aperture_m,
        site_elevation_m=table.site_elevation_m,
    )


def _flat(table: domain.PhotometryTable) -> FloatArray:
    if table.flat_noise is None:
        return np.zeros(len(table.labels))
    n_px = effective_px(table.frame_fwhm_px, _radii_px(table))
    return table.flat_noise / np.sqrt(np.where(np.isfinite(n_px), n_px, np.inf))


def _radii_px(table: domain.PhotometryTable) -> FloatArray:
    """Return the aperture's radius on every frame, shape (n_frames,)."""
    if table.radii_px is not None:
        return table.radii_px[:, 0]
    return np.full(len(table.labels), table.aperture.radius_px)


# ------------------------------------------------------------------------------ the parts apart


@dataclass(frozen=True, slots=True, kw_only=True)
class NoiseBudget:
    """Relative variances (σ/flux)² by their causes, each of shape (n_frames, n_stars).

    `parts` are those that are known of "photon", "sky", "read", "dark", "rounding" (to whole ADU),
    "flat" and "scintillation"; `unknown` says in words which are not, and why. Those of pixels hold
    the error of the annulus mean. NaN where a star has no positive flux. `total` is their sum; None
    without the gain.
    """

    parts: Mapping[str, FloatArray]
    total: FloatArray | None
    unknown: tuple[str, ...] = ()


def noise_budget(table: domain.PhotometryTable, *, field: bool = False) -> NoiseBudget:
    """Return the parts of the errors of the apertures of `table`, or of its `field` stars.

    Without flat and scintillation the parts are those of `photometry.source_error`, to the digit.

    Raises
    ------
    ValueError
        `field`, and the table has no field stars.
    """
    source, sky_adu, n_px, n_sky = _measured(table, field=field)
    flux = np.where(source > 0, source, np.nan)
    parts = aperture_variances(
        flux,
        sky_adu,
        n_source_px=n_px,
        n_sky_px=n_sky,
        gain_e_adu=table.gain_e_adu,
        read_noise_e=table.read_noise_e,
        dark_e_px=None if table.dark_e_px is None else table.dark_e_px[:, None],
    )
    everywhere = np.where(np.isfinite(flux), 1.0, np.nan)
    if table.flat_noise is not None:
        parts["flat"] = everywhere * _flat(table)[:, None] ** 2
    if table.telescope_aperture_m is not None and table.site_elevation_m is not None:
        parts["scintillation"] = everywhere * _scintillation(table)[:, None] ** 2
    return NoiseBudget(
        parts=parts,
        total=None if table.gain_e_adu is None else np.sum(list(parts.values()), axis=0),
        unknown=unknown_parts(table),
    )


def aperture_variances(
    source_adu: FloatArray,
    sky_adu_px: ArrayLike,
    *,
    n_source_px: ArrayLike,
    n_sky_px: ArrayLike,
    gain_e_adu: float | None,
    read_noise_e: float | None,
    dark_e_px: ArrayLike | None,
) -> dict[str, FloatArray]:
    """Return the relative variances that are known of "photon", "sky", "read", "dark", "rounding".

    Their sum is the square of `photometry.source_error` over the source, the formula is there.
    """
    n, n_sky = np.asarray(n_source_px, dtype=float), np.asarray(n_sky_px, dtype=float)
    with np.errstate(divide="ignore", invalid="ignore"):
        per_px = n * (1 + n / n_sky) / source_adu**2  # what 1 ADU² in each pixel comes to
        parts = {"rounding": per_px * DIGITISATION_VARIANCE}
        if gain_e_adu is None:
            return parts
        sky = np.clip(np.asarray(sky_adu_px, dtype=float), 0.0, None)
        parts = {"photon": 1 / (source_adu * gain_e_adu), "sky": per_px * sky / gain_e_adu, **parts}
        if read_noise_e is not None:
            parts["read"] = per_px * (read_noise_e / gain_e_adu) ** 2
        if dark_e_px is not None:
            parts["dark"] = per_px * np.asarray(dark_e_px, dtype=float) / gain_e_adu**2
    return parts


def _measured(
    table: domain.PhotometryTable, *, field: bool
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return counts, sky per pixel, source and sky pixels, all (n_frames, n_stars)."""
    if not field:
        stars = table.measured
        return stars.source_sky_adu, stars.sky_adu_px, stars.n_source_px, stars.n_sky_px
    if table.field is None:
        raise ValueError("the table has no field stars")
    n_px = np.broadcast_to(np.pi * _radii_px(table)[:, None] ** 2, table.field.n_sky_px.shape)
    return table.field.source_sky_adu, table.field.sky_adu_px, n_px, table.field.n_sky_px
