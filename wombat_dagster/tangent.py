"""The gnomonic (TAN) projection between sky and pixels: science and solvers both stand on it.

Written out because a night asks for it by the thousand and an astropy WCS object per frame costs
more than the arithmetic. A lens's distortion (SIP) is honoured where a solution has one.
"""

import numpy as np

from wombat_dagster.domain import FloatArray, Sip, WcsSolution, sip_powers

# A step of the inverse leaves of the error what the distortion changes over a pixel, 0.01 to 0.1.
INVERSE_STEPS = 20
INVERSE_TOLERANCE_PX = 1e-6


def project(
    ra_deg: FloatArray, dec_deg: FloatArray, *, ra0_deg: float, dec0_deg: float
) -> tuple[FloatArray, FloatArray]:
    """Return standard coordinates xi, eta in degrees; NaN for stars 90 degrees away and more.

    Calabretta & Greisen (2002), A&A 395, 1077, section 5.1.3.
    """
    d_ra, dec, dec0 = np.radians(ra_deg - ra0_deg), np.radians(dec_deg), np.radians(dec0_deg)
    sin_dec, cos_dec, sin_dec0, cos_dec0 = np.sin(dec), np.cos(dec), np.sin(dec0), np.cos(dec0)
    towards = cos_dec * np.cos(d_ra)
    cosine = sin_dec * sin_dec0 + towards * cos_dec0
    in_front = np.where(cosine > 0, cosine, np.nan)
    xi = cos_dec * np.sin(d_ra) / in_front
    eta = (sin_dec * cos_dec0 - towards * sin_dec0) / in_front
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
    u: FloatArray = (solution.cd22 * xi - solution.cd12 * eta) / d
    v: FloatArray = (solution.cd11 * eta - solution.cd21 * xi) / d
    if solution.sip is not None:
        u, v = distorted(solution.sip, u, v)
    return u + solution.crpix_x - 1.0, v + solution.crpix_y - 1.0  # FITS counts from 1


def pixel_to_sky(
    solution: WcsSolution, x_px: FloatArray, y_px: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return ICRS degrees of 0-based pixels."""
    u, v = x_px + 1.0 - solution.crpix_x, y_px + 1.0 - solution.crpix_y
    if solution.sip is not None:
        u, v = straightened(solution.sip, u, v)
    return deproject(
        solution.cd11 * u + solution.cd12 * v,
        solution.cd21 * u + solution.cd22 * v,
        ra0_deg=solution.ra_deg,
        dec0_deg=solution.dec_deg,
    )


def straightened(sip: Sip, u_px: FloatArray, v_px: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return pixels from the reference point as a lens without distortion would show them."""
    du, dv = _displacement(sip, u_px, v_px)
    return u_px + du, v_px + dv


def distorted(sip: Sip, u_px: FloatArray, v_px: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return where straight pixels from the reference point are seen: `straightened` inverted."""
    u, v = u_px, v_px
    for _ in range(INVERSE_STEPS):
        du, dv = _displacement(sip, u, v)
        next_u: FloatArray = u_px - du
        next_v: FloatArray = v_px - dv
        step = np.maximum(np.abs(next_u - u), np.abs(next_v - v))
        u, v = next_u, next_v
        if not np.any(step > INVERSE_TOLERANCE_PX):  # NaN: behind the sky's horizon
            break
    return u, v


def _displacement(sip: Sip, u_px: FloatArray, v_px: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the SIP polynomials at pixels from the reference point, held beyond `reach_px`."""
    inside = np.minimum(1.0, sip.reach_px / np.maximum(np.hypot(u_px, v_px), 1e-9))
    u, v = u_px * inside, v_px * inside
    terms = monomials(u, v, 2, sip.order)
    du, dv = np.einsum("ct,t...->c...", np.array([sip.a, sip.b]), terms)
    return du, dv


def monomials(u: FloatArray, v: FloatArray, lowest: int, highest: int) -> FloatArray:
    """Return u^p v^q in the order of `sip_powers(lowest, highest)`, stacked in front."""
    of_u, of_v = [np.ones_like(u), u], [np.ones_like(v), v]
    for _ in range(highest - 1):
        of_u.append(of_u[-1] * u)
        of_v.append(of_v[-1] * v)
    return np.stack([of_u[p] * of_v[q] for p, q in sip_powers(lowest, highest)])
