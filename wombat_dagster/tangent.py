"""The gnomonic (TAN) projection between sky and pixels: science and solvers both stand on it.

Written out because a night asks for it by the thousand and an astropy WCS object per frame costs
more than the arithmetic.
"""

import numpy as np

from wombat_dagster.domain import FloatArray, WcsSolution


def project(
    ra_deg: FloatArray, dec_deg: FloatArray, *, ra0_deg: float, dec0_deg: float
) -> tuple[FloatArray, FloatArray]:
    """Return standard coordinates xi, eta in degrees; NaN for stars 90 degrees away and more.

    Calabretta & Greisen (2002), A&A 395, 1077, section 5.1.3.
    """
    d_ra, dec, dec0 = np.radians(ra_deg - ra0_deg), np.radians(dec_deg), np.radians(dec0_deg)
    cosine = np.sin(dec) * np.sin(dec0) + np.cos(dec) * np.cos(dec0) * np.cos(d_ra)
    in_front = np.where(cosine > 0, cosine, np.nan)
    xi = np.cos(dec) * np.sin(d_ra) / in_front
    eta = (np.sin(dec) * np.cos(dec0) - np.cos(dec) * np.sin(dec0) * np.cos(d_ra)) / in_front
    return np.degrees(xi), np.degrees(eta)


def deproject(
    xi_deg: FloatArray, eta_deg: FloatArray, *, ra0_deg: float, dec0_deg: float
) -> tuple[FloatArray, FloatArray]:
    """Return RA (0..360) and Dec in degrees of standard coordinates: the inverse of `project`."""
    xi, eta, dec0 = np.radians(xi_deg), np.radians(eta_deg), np.radians(dec0_deg)
    across = np.cos(dec0) - eta * np.sin(dec0)
    ra = ra0_deg + np.degrees(np.arctan2(xi, across))
    dec = np.arctan2(np.sin(dec0) + eta * np.cos(dec0), np.hypot(xi, across))
    return np.mod(ra, 360.0), np.degrees(dec)


def sky_to_pixel(
    solution: WcsSolution, ra_deg: FloatArray, dec_deg: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return 0-based pixels of sky positions (ICRS degrees)."""
    xi, eta = project(ra_deg, dec_deg, ra0_deg=solution.ra_deg, dec0_deg=solution.dec_deg)
    d = solution.determinant
    x = (solution.cd22 * xi - solution.cd12 * eta) / d
    y = (solution.cd11 * eta - solution.cd21 * xi) / d
    return x + solution.crpix_x - 1.0, y + solution.crpix_y - 1.0  # FITS counts from 1


def pixel_to_sky(
    solution: WcsSolution, x_px: FloatArray, y_px: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return ICRS degrees of 0-based pixels."""
    u, v = x_px + 1.0 - solution.crpix_x, y_px + 1.0 - solution.crpix_y
    return deproject(
        solution.cd11 * u + solution.cd12 * v,
        solution.cd21 * u + solution.cd22 * v,
        ra0_deg=solution.ra_deg,
        dec0_deg=solution.dec_deg,
    )
