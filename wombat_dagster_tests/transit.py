"""A fixed transit model: a dark disc before a limb-darkened star, integrated in rings."""

import numpy as np

N_RINGS = 1000


def transit_flux(
    bjd_tdb,
    *,
    mid_bjd_tdb,
    period_d,
    radius_ratio,
    axis_ratio,
    inclination_deg,
    limb_darkening,
):
    """Return the flux, 1 outside transit, by summing rings of a quadratically darkened star."""
    phase = 2 * np.pi * (np.asarray(bjd_tdb) - mid_bjd_tdb) / period_d
    tilt = np.cos(np.radians(inclination_deg))
    distance = axis_ratio * np.hypot(np.sin(phase), tilt * np.cos(phase))
    radius = (np.arange(N_RINGS) + 0.5) / N_RINGS
    mu = np.sqrt(1 - radius**2)
    light = (1 - limb_darkening[0] * (1 - mu) - limb_darkening[1] * (1 - mu) ** 2) * radius
    z = distance[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        cosine = (radius**2 + z**2 - radius_ratio**2) / (2 * radius * z)
    covered = np.arccos(np.clip(cosine, -1, 1)) / np.pi
    in_front = (np.cos(phase) > 0) & (distance < 1 + radius_ratio)
    return 1 - np.where(in_front, (covered * light).sum(axis=1) / light.sum(), 0.0)
