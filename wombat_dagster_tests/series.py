"""A night's measurement table made from numbers alone, with every noise known: no pixels.

The noise is written here a second time, in electrons, so that what judges it is not asked for it.
"""

import typing

import numpy as np

from wombat_dagster import domain
from wombat_dagster.science.photometry import source_error

GAIN_E_ADU, READ_NOISE_E = 1.4, 7.0
TELESCOPE_M, ELEVATION_M, EXPOSURE_S, FLAT_NOISE = 0.35, 500.0, 30.0, 0.003
SKY_E, DARK_E = 300.0, 2.0
ZERO_POINT_MAG = 21.0  # of a count per second
RADIUS_PX, N_SKY_PX = 6.0, 1300.0
PIXEL_DEG = 1.2 / 3600.0
MAGS = (11.3, 11.9, 10.4, 10.9, 11.2, 11.6, 12.2, 12.7, 13.2, 13.9)


def star_named(index: int, mag: float) -> domain.ApertureStar:
    """Return T1, T2, C3… by its place."""
    role = f"{'T' if index < 2 else 'C'}{index + 1}"
    return domain.ApertureStar(
        role=role,
        name="TX Eri" if index == 0 else f"000-BMS-{index:03d}",
        auid=f"000-BMS-{index:03d}",
        ra_deg=90.29 + 0.01 * index,
        dec_deg=-15.2 + 0.004 * index,
        catalogue_mag=None if index == 0 else mag,
        catalogue_error_mag=None if index == 0 else 0.02,
        colour=0.6,
    )


def scintillation_by_hand(airmass: np.ndarray) -> np.ndarray:
    """Return √(10e-6)·1.5·D^(-2/3)·t^(-1/2)·X^1.5·e^(-h/8000)."""
    by_telescope = TELESCOPE_M ** (-2 / 3) * np.exp(-ELEVATION_M / 8000.0)
    return 3.16228e-3 * 1.5 * by_telescope * airmass**1.5 / np.sqrt(EXPOSURE_S)


def _light(
    rng: np.random.Generator, mags: np.ndarray, dim_mag: np.ndarray, extra: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return noisy source counts and sky counts per pixel, (n_frames, n_stars)."""
    n_px = np.pi * RADIUS_PX**2
    shape = (len(dim_mag), len(mags))
    star_e = GAIN_E_ADU * EXPOSURE_S * 10 ** (-0.4 * (mags + dim_mag[:, None] - ZERO_POINT_MAG))
    per_px = SKY_E + DARK_E + READ_NOISE_E**2 + 0.289**2 * GAIN_E_ADU**2
    variance = star_e + n_px * (1 + n_px / N_SKY_PX) * per_px + (extra[:, None] * star_e) ** 2
    got_e = star_e + np.sqrt(variance) * rng.normal(size=shape)
    sky_e = SKY_E * (1 + 0.02 * rng.normal(size=shape) / 10)
    return got_e / GAIN_E_ADU, sky_e / GAIN_E_ADU


def series_table(
    n_frames: int = 200,
    *,
    mags: typing.Sequence[float] = MAGS,
    field_mags: typing.Sequence[float] = (),
    amplitude_mag: float = 0.3,
    cadence_s: float = 40.0,
    clouds_mag: np.ndarray | None = None,
    flat_noise: float | None = FLAT_NOISE,
    flip_at: int | None = None,
    seed: int = 0,
    **changes: typing.Any,
) -> domain.PhotometryTable:
    """Return a table of T1 (varying by `amplitude_mag`), T2, C3… and of field stars.

    `clouds_mag`, shape (n_frames,), dims all alike; from frame `flip_at` on the mount is turned by
    half a turn. The mount drifts, the seeing wanders, the airmass rises.
    """
    rng = np.random.default_rng(seed)
    jd = 2460963.5 + np.arange(n_frames) * cadence_s / 86400.0
    phase = np.linspace(0, 1, n_frames) if n_frames > 1 else np.zeros(1)
    airmass = 1.1 + 0.8 * phase**2
    dim_mag = 0.2 * airmass + (0 if clouds_mag is None else clouds_mag)
    fwhm_px = 3.4 * (1 + 0.08 * np.sin(9 * phase) + 0.02 * rng.normal(size=n_frames))
    pixel = (flat_noise or 0.0) / np.sqrt(2.266 * fwhm_px**2)
    extra = np.hypot(scintillation_by_hand(airmass), pixel)
    n_stars = len(mags)
    source, sky = _light(rng, np.array(mags, dtype=float), dim_mag, extra)
    if n_stars:
        source[:, 0] *= 10 ** (-0.4 * amplitude_mag * np.sin(2 * np.pi * jd / 0.07))
    x0, y0 = rng.uniform(80, 940, (2, n_stars))
    drift_x = 6.0 * phase + 0.3 * rng.normal(size=n_frames)
    drift_y = -3.0 * phase + 0.8 * np.sin(jd * 2 * np.pi / 0.006) + 0.2 * rng.normal(size=n_frames)
    scale = 0.02 + 0.6 / np.sqrt(np.clip(source, 1, None))
    x = x0 + drift_x[:, None] + scale * rng.normal(size=source.shape)
    y = y0 + drift_y[:, None] + scale * rng.normal(size=source.shape)
    if flip_at is not None:
        x[flip_at:], y[flip_at:] = 1023.0 - x[flip_at:], 1023.0 - y[flip_at:]
    width = fwhm_px[:, None] * 1.05 * (1 + 3 * scale * rng.normal(size=source.shape) / 3)
    errors = {"gain_e_adu": GAIN_E_ADU, "read_noise_e": READ_NOISE_E, "dark_e_px": DARK_E}
    n_px = np.pi * RADIUS_PX**2
    error = source_error(source, sky, n_source_px=n_px, n_sky_px=N_SKY_PX, **errors)
    ones = np.ones(source.shape)
    stars = tuple(star_named(i, mag) for i, mag in enumerate(mags))
    star_ra, star_dec = (np.array([getattr(s, a) for s in stars]) for a in ("ra_deg", "dec_deg"))
    measured = domain.StarMeasurements(
        x_px=x,
        y_px=y,
        ra_deg=star_ra + scale * rng.normal(size=source.shape) * PIXEL_DEG / np.cos(0.265),
        dec_deg=star_dec + scale * rng.normal(size=source.shape) * PIXEL_DEG,
        source_sky_adu=source,
        n_source_px=ones * n_px,
        source_error_adu=error,
        snr=source / error,
        peak_adu=source / 12,
        mean_adu=source / n_px,
        sky_adu_px=sky,
        n_sky_px=ones * N_SKY_PX,
        fwhm_px=width * 0.97,
        width_px=width,
        x_width_px=width * 1.02,
        y_width_px=width * 0.98,
        angle_deg=rng.uniform(0, 360, source.shape),
        roundness=np.clip(1 - (0.02 + scale * rng.normal(size=source.shape)) ** 2, 0, 1),
        flags=np.zeros(source.shape, dtype=np.int64),
        n_bad_px=np.zeros(source.shape),
    )
    field = None
    if len(field_mags):
        got, field_sky = _light(rng, np.array(field_mags, dtype=float), dim_mag, extra)
        err = source_error(got, field_sky, n_source_px=n_px, n_sky_px=N_SKY_PX, **errors)
        field = domain.FieldStars(
            ra_deg=np.full(len(field_mags), 90.3),
            dec_deg=np.full(len(field_mags), -15.1),
            x_px=np.full(got.shape, 300.0),
            y_px=np.full(got.shape, 300.0),
            source_sky_adu=got,
            source_error_adu=err,
            snr=got / err,
            sky_adu_px=field_sky,
            n_sky_px=np.full(got.shape, N_SKY_PX),
            flags=np.zeros(got.shape, dtype=np.int64),
        )
    fields: dict[str, typing.Any] = {
        "target": "TX Eri",
        "filter": "Bessell V",
        "band": "V",
        "comp_band": "V",
        "band_confirmed": True,
        "chart_id": "X41294TE",
        "variable": domain.Variable(name="TX Eri", ra_deg=90.29, dec_deg=-15.2),
        "labels": tuple(f"TX_Eri-{i + 1:04d}V.fit" for i in range(n_frames)),
        "raw_hashes": tuple(f"hash{i}" for i in range(n_frames)),
        "times": domain.FrameTimes(
            jd_start_utc=jd - EXPOSURE_S / 2 / 86400,
            jd_utc=jd,
            hjd_utc=jd + 0.003,
            bjd_tdb=jd + 0.004,
            altitude_deg=np.degrees(np.arcsin(1 / airmass)),
            airmass=airmass,
        ),
        "exposure_s": np.full(n_frames, EXPOSURE_S),
        "ccd_temperature_c": np.full(n_frames, -20.0),
        "frame_fwhm_px": fwhm_px,
        "stars": stars,
        "measured": measured,
        "aperture": domain.Aperture(radius_px=RADIUS_PX, sky_inner_px=12.0, sky_outer_px=24.0),
        "frame_height_px": 1024,
        "gain_e_adu": GAIN_E_ADU,
        "read_noise_e": READ_NOISE_E,
        "saturation_adu": 60000.0,
        "linearity_adu": 50000.0,
        "ledger": (),
        "field": field,
        "flat_noise": flat_noise,
        "dark_e_px": np.full(n_frames, DARK_E),
        "telescope_aperture_m": TELESCOPE_M,
        "site_elevation_m": ELEVATION_M,
        "frame_axis_ratio": np.full(n_frames, 0.95),
    }
    return domain.PhotometryTable(**fields | changes)
