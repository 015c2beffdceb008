"""Nights of one star made from numbers, and stored as a run would store them."""

import datetime as dt
import typing

import numpy as np

from wombat_dagster import domain
from wombat_dagster.products import PRODUCTS
from wombat_dagster.reports.star_curve import concatenate, curve_night
from wombat_dagster.science.photometry import relative_fluxes
from wombat_dagster.store.frames import write_bytes_atomic

FIRST = dt.date(2025, 10, 14)
TX_ERI = domain.Variable(
    name="TX Eri", ra_deg=64.5, dec_deg=-10.25, oid="11111", auid="000-BBB-111",
    variability_type="EW", period_d=0.25, epoch_hjd=2460900.125,
)  # fmt: skip
HOST = domain.Variable(
    name="WASP-135", ra_deg=267.284, dec_deg=29.8791, oid="22222", variability_type="EP",
    period_d=1.4013794, epoch_hjd=2455230.9902,
)  # fmt: skip


def magnitudes(days, mag, *, band="V", **changes):
    """Return standard magnitudes at HJDs `days`."""
    days, n = np.asarray(days, dtype=float), len(days)
    hints = typing.get_type_hints(domain.StandardMagnitudes)
    arrays = {name: np.full(n, np.nan) for name, h in hints.items() if h == domain.FloatArray}
    arrays |= {
        "jd_utc": days - 0.003, "hjd_utc": days, "bjd_tdb": days + 0.0008,
        "airmass": np.linspace(1.1, 1.6, n), "t1_mag": np.broadcast_to(mag, n).astype(float),
        "t1_random_mag": np.full(n, 0.011), "t1_merr_mag": np.full(n, 0.012),
    }  # fmt: skip
    fields = arrays | {
        "target": "TX Eri", "filter": band, "band": band, "comp_band": band,
        "chart_id": "X41294TE", "labels": tuple(f"{band}{i}.fit" for i in range(n)),
        "raw_hashes": tuple(f"{band}{i}" for i in range(n)), "n_comps": np.full(n, 2),
        "t1_upper_limit": np.zeros(n, dtype=bool), "proposed_rejected": ("",) * n,
        "zp_err_mag": 0.013, "ensemble_reference_mag": 11.5, "check_name": "000-BMS-019",
        "check_catalogue_mag": 12.0, "check_catalogue_error_mag": 0.03,
        "check_offset_mag": 0.021, "check_scatter_mag": 0.0118,
        "transformation": domain.Transformation(), "transformed": False, "method": "ensemble",
        "comp_names": ("000-AAA-001", "000-AAA-002"), "camera": "QHY 600",
    }  # fmt: skip
    return domain.StandardMagnitudes(**fields | changes)


def hours(night=0, n=20, length_d=0.2):
    """Return HJDs of a night, counted from the first."""
    return 2460963.55 + night + np.linspace(0, length_d, n)


def observation(night=0, band="V", target="TX Eri"):
    date = FIRST + dt.timedelta(days=night)
    key = f"{date:%Y%m%d}__{domain.slug(target)}__{band}"
    return domain.Observation(date=date, target=target, filter=band, key=key)


def part(night=0, band="V", *, mag=12.0, n=20, status="validate", length_d=0.2, **changes):
    standard = magnitudes(hours(night, n, length_d), mag, band=band, **changes)
    return curve_night(observation(night, band), standard, status=status), standard


def curve(*parts, star=TX_ERI, **more):
    return concatenate(star, parts or [part()], **more)


def photometry(n=12, *, star=HOST, band="V", night=0, depth=0.02, **changes):
    """Return a measurement table of T1, T2, C3, C4 with a box-shaped dip of T1 in the middle."""
    rng = np.random.default_rng(4)
    shape = (n, 4)
    level = np.array([80_000.0, 50_000.0, 120_000.0, 60_000.0])
    source = np.tile(level, (n, 1)) * np.linspace(1.0, 0.8, n)[:, None]
    source[n // 3 : 2 * n // 3, 0] *= 1 - depth
    names = [name for name in domain.StarMeasurements.__slots__ if name != "flags"]
    columns = {name: rng.uniform(3, 4, shape) for name in names}
    columns |= {"source_sky_adu": source, "source_error_adu": np.sqrt(source)}
    columns |= {"snr": np.sqrt(source), "x_px": 100 + np.cumsum(rng.normal(0, 0.1, shape), axis=0)}
    columns |= {"y_px": np.full(shape, 50.0)}  # constant: guided well
    columns |= changes.pop("columns", {})
    measured = domain.StarMeasurements(flags=np.zeros(shape, np.int64), **columns)
    stars = tuple(
        domain.ApertureStar(
            role=role, name=name, auid=None, ra_deg=1.0, dec_deg=2.0, catalogue_mag=None,
            catalogue_error_mag=None,
        )
        for role, name in zip(("T1", "T2", "C3", "C4"), ("T", "K", "000-C3", "000-C4"), strict=True)
    )  # fmt: skip
    days = hours(night, n)
    values = {
        "target": star.name, "filter": band, "band": band, "comp_band": band,
        "band_confirmed": True, "chart_id": "X1", "variable": star,
        "labels": tuple(f"{band}{i}.fit" for i in range(n)),
        "raw_hashes": tuple(f"{band}{i}" for i in range(n)),
        "times": domain.FrameTimes(
            jd_start_utc=days - 0.0033, jd_utc=days - 0.003, hjd_utc=days, bjd_tdb=days + 0.0008,
            altitude_deg=np.full(n, 60.0), airmass=np.linspace(1.1, 1.6, n),
        ),
        "exposure_s": np.full(n, 60.0), "ccd_temperature_c": np.full(n, -10.0),
        "frame_fwhm_px": rng.uniform(3, 4, n), "stars": stars, "measured": measured,
        "aperture": domain.Aperture(radius_px=5.5, sky_inner_px=11.0, sky_outer_px=22.0),
        "frame_height_px": 500, "gain_e_adu": 1.0, "read_noise_e": 5.0, "saturation_adu": 55000.0,
        "linearity_adu": 30000.0, "ledger": (), "camera": "QHY 600",
        "relative": relative_fluxes(measured, stars),
    }  # fmt: skip
    return domain.PhotometryTable(**values | changes)


def reduction(binning="2x2"):
    """Return the record of a reduction whose frames are not looked at."""
    sourced = domain.Sourced(value=1.0, source="test")
    return domain.Reduction(
        frames=(),
        group=domain.FrameGroup(
            width_px=320, height_px=256, binning=binning, camera="QHY 600", readout=None
        ),
        detector=domain.DetectorFacts(
            gain_e_adu=None, read_noise_e=None, saturation_adu=sourced, linearity_adu=sourced
        ),
        choice=domain.CalibrationChoice(bias=None, dark=None, flat=None, reasons=()),
        left_out=(),
    )


def light(one, number=0):
    """Return a light frame of an observation, as the scan records it."""
    unknown = dict.fromkeys(
        (
            "ccd_temperature_c", "ra_hint_deg", "dec_hint_deg", "scale_hint_arcsec_px",
            "site_hint", "airmass_header", "gain_header_e_adu", "gain_header_source",
            "read_noise_header_e", "saturation_header_adu", "pedestal_adu", "bayer_pattern",
            "calibration_status", "group",
        )
    )  # fmt: skip
    night = f"{one.date:%Y%m%d}"
    path = f"{night}/Light/{one.target}/{one.filter}{number}.fit"
    return domain.RawFrame(
        path=path, night_directory=night, date=one.date, kind=domain.FrameKind.LIGHT,
        target=one.target, filter=one.filter, size_bytes=10, mtime_ns=1, pixel_hash=path,
        exposure_s=60.0, start_utc=f"{one.date}T23:00:00.{number}", **unknown,
    )  # fmt: skip


def store(observatory, one, *, apphot="validate", reason=None, **products):
    """Record an observation as found and finished with `apphot`, and write its products."""
    status = observatory.status
    same_night = [f for f in status.known_frames().values() if f.date == one.date]
    status.record_scan([*same_night, light(one)], {one.date})
    key = next(r.observation.key for r in status.targets() if _unit(r.observation) == _unit(one))
    for asset, value in products.items():
        product = PRODUCTS[asset]
        write_bytes_atomic(product.path(observatory.layout, key), product.encode(value))
    status.set_status(key, {"apphot": apphot, "reason": reason})
    return key


def _unit(one):
    return one.date, one.target, one.filter
