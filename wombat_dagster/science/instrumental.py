"""Instrumental magnitudes: from counts to -2.5 log10(counts/s), their errors, and their limit."""

from typing import Final

import numpy as np

from wombat_dagster.domain import FloatArray

MAG_PER_RELATIVE_ERROR: Final = 2.5 / np.log(10)
LIMIT_SNR: Final = 3.0


def instrumental_magnitude(source_sky_adu: FloatArray, exposure_s: FloatArray) -> FloatArray:
    """Return -2.5 log10(source / exposure), any shape; NaN where the source is not positive."""
    positive = np.where(source_sky_adu > 0, source_sky_adu, np.nan)
    return -2.5 * np.log10(positive / exposure_s)


def instrumental_error(source_sky_adu: FloatArray, source_error_adu: FloatArray) -> FloatArray:
    """Return the 1-sigma error in magnitudes, to first order; NaN where the source is <= 0."""
    positive = np.where(source_sky_adu > 0, source_sky_adu, np.nan)
    return MAG_PER_RELATIVE_ERROR * source_error_adu / positive


def limiting_source(
    source_sky_adu: FloatArray,
    source_error_adu: FloatArray,
    *,
    gain_e_adu: float = 1.0,
    snr: float = LIMIT_SNR,
) -> FloatArray:
    """Return the counts that would have had `snr` in the same aperture, any shape.

    The measured variance less the star's own photons is that of the place; a star of F counts there
    has F / sqrt(F/g + variance) = snr.
    """
    place = np.clip(source_error_adu**2 - np.maximum(source_sky_adu, 0) / gain_e_adu, 0, None)
    per_photon = snr**2 / gain_e_adu
    return (per_photon + np.sqrt(per_photon**2 + 4 * snr**2 * place)) / 2
