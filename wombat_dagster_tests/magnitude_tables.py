"""Measurement tables made by hand for the tests of standard magnitudes: counts, no pixels."""

import dataclasses

import numpy as np

from wombat_dagster import domain
from wombat_dagster.science import standard

NO_COLOUR = domain.Transformation()


def star(role, mag=None, error=0.02, colour=None):
    return domain.ApertureStar(
        role=role,
        name=role,
        auid=f"000-{role}",
        ra_deg=10.0,
        dec_deg=20.0,
        catalogue_mag=mag,
        catalogue_error_mag=error,
        colour=colour,
    )


def table(stars, source_adu, error_adu, *, exposure_s=None, altitude_deg=60.0, **changes):
    """A night of `source_adu`, shape (n_frames, n_stars), gain 2 unless `changes` say so."""
    source = np.asarray(source_adu, dtype=float)
    n_frames = len(source)
    error = np.broadcast_to(np.asarray(error_adu, dtype=float), source.shape)
    quiet = {name: np.ones(source.shape) for name in domain.StarMeasurements.__slots__}
    measured = domain.StarMeasurements(
        **quiet
        | {
            "source_sky_adu": source,
            "source_error_adu": error,
            "snr": source / np.where(error > 0, error, np.nan),
            "flags": np.zeros(source.shape, dtype=np.int64),
        }
    )
    jd = 2460963.5 + np.arange(n_frames) / 1000
    times = domain.FrameTimes(
        jd_start_utc=jd,
        jd_utc=jd,
        hjd_utc=jd,
        bjd_tdb=jd,
        altitude_deg=np.full(n_frames, altitude_deg),
        airmass=np.full(n_frames, 1.2),
    )
    fields = {
        "target": "TX Eri",
        "filter": "V",
        "band": "V",
        "comp_band": "V",
        "band_confirmed": True,
        "chart_id": "X12345ABC",
        "variable": domain.Variable(name="TX Eri", ra_deg=10.0, dec_deg=20.0),
        "labels": tuple(f"frame{i}.fits" for i in range(n_frames)),
        "raw_hashes": tuple(f"hash{i}" for i in range(n_frames)),
        "times": times,
        "exposure_s": np.full(n_frames, 30.0) if exposure_s is None else exposure_s,
        "ccd_temperature_c": np.full(n_frames, -20.0),
        "frame_fwhm_px": np.full(n_frames, 3.0),
        "stars": tuple(stars),
        "measured": measured,
        "aperture": domain.Aperture(radius_px=5.0, sky_inner_px=10.0, sky_outer_px=20.0),
        "frame_height_px": 1024,
        "gain_e_adu": 2.0,
        "read_noise_e": 8.0,
        "saturation_adu": 60000.0,
        "linearity_adu": 30000.0,
        "ledger": (),
    }
    return domain.PhotometryTable(**fields | changes)


def with_flag(night, frame, index, flag):
    flags = night.measured.flags.copy()
    flags[frame, index] |= flag
    measured = dataclasses.replace(night.measured, flags=flags)
    return dataclasses.replace(night, measured=measured)


def with_source(night, source):
    measured = dataclasses.replace(night.measured, source_sky_adu=source)
    return dataclasses.replace(night, measured=measured)


STARS = (
    star("T1"),
    star("T2", 12.0),
    star("C3", 11.0, 0.01, 0.4),
    star("C4", 11.5, 0.02, 0.6),
    star("C5", 12.3, 0.03, 1.1),
)
ZERO_POINT = 21.0


def noisy_night(n_frames=60, seed=1, stars=STARS, **changes):
    """A night with drifting transparency, 5 mmag noise, comps off their catalogue magnitudes."""
    rng = np.random.default_rng(seed)
    truth = np.array([11.2] + [s.catalogue_mag for s in stars[1:]])
    truth = truth + np.where([s.role.startswith("C") for s in stars], rng.normal(0, 0.02), 0)
    dim = 0.3 * np.sin(np.linspace(0, 3, n_frames))[:, None]
    flux = 30.0 * 10 ** (-0.4 * (truth + dim - ZERO_POINT))
    error = np.full(flux.shape, 0.005) * flux / 1.0857
    return table(stars, flux + rng.normal(size=flux.shape) * error, error, **changes)


def standardised(night, transformation=NO_COLOUR, **options):
    return standard.standardise(night, transformation=transformation, **options)


# ------------------------------------------------------------------ a night that sinks, by colour

K2_B = -0.03
RISING = np.linspace(1.1, 2.2, 12)  # airmasses
AIR_FIELD = {  # B, V of T1, T2 and the comps; T1 is much bluer than the comps, T2 redder
    "T1": (11.1, 11.0),
    "T2": (13.2, 12.0),
    "C3": (11.4, 11.0),
    "C4": (12.1, 11.5),
    "C5": (13.2, 12.3),
    "C6": (13.4, 12.2),
    "C7": (12.9, 12.1),
}
UNEVEN_MAG = np.array([4, 4, 4, 4, 20, 4, 4]) / 1000  # C5 counts for less from frame to frame
AIR_TERMS = {"B": 0.09, "V": -0.06}


def through_the_air(band, *, k2=K2_B, k1=0.25, n_frames=12, error_mag=UNEVEN_MAG):
    """Noise-free: M - m = 21 + T (B-V) - k1 X - k2 (B-V) X, T outside the atmosphere."""
    colours = np.array([blue - red for blue, red in AIR_FIELD.values()])
    mags = np.array([both["BV".index(band)] for both in AIR_FIELD.values()])
    sec_z = RISING[:n_frames, None]
    slope = AIR_TERMS[band] - (k2 if band == "B" else 0.0) * sec_z
    flux = 30.0 * 10 ** (-0.4 * (mags - ZERO_POINT - slope * colours + k1 * sec_z))
    stars = [
        star(name, None if name == "T1" else float(mag), 0.02, float(colour))
        for name, mag, colour in zip(AIR_FIELD, mags, colours, strict=True)
    ]
    night = table(stars, flux, flux * error_mag / 1.0857, band=band, comp_band=band, filter=band)
    return dataclasses.replace(
        night, times=dataclasses.replace(night.times, airmass=RISING[:n_frames])
    )
