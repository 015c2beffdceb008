"""Observations for the review page, made without pixels or runs: many of them, and odd ones."""

import dataclasses
import datetime as dt
import hashlib
import io
import os

import numpy as np

from wombat_dagster import domain
from wombat_dagster.domain import slug
from wombat_dagster.products import PRODUCTS
from wombat_dagster.reports.frames import Picture, frames_html
from wombat_dagster_tests import curves
from wombat_dagster_tests.magnitude_tables import standardised
from wombat_dagster_tests.series import series_table

FIRST = dt.date(2025, 10, 15)
ODD_NAME = "<b onmouseover=alert(1)>Bold</b> & <script>alert(1)</script>"


def star(name="TX Eri", **changes):
    known = {"name": name, "auid": "000-BBB-001", "ra_deg": 10.0, "dec_deg": 20.0, "oid": "4711"}
    return domain.Variable(
        **known | {"period_d": 0.5439, "epoch_hjd": 2460963.4, "variability_type": "RRAB"} | changes
    )


def a_night(n_frames=20, *, target="TX Eri", filter="V", date=FIRST, variable=None, **changes):
    """Return the measurement table of a night of a star whose brightness changes."""
    table = series_table(n_frames, target=target, filter=filter, **changes)
    first = 2460963.55 + (date - FIRST).days
    times = first + np.arange(n_frames) * 0.2 / max(n_frames, 1)
    hashes = tuple(
        hashlib.sha256(f"{date} {target} {filter} {i}".encode()).hexdigest()
        for i in range(n_frames)
    )
    return dataclasses.replace(
        table,
        raw_hashes=hashes,
        labels=tuple(f"{slug(target)}-{i:04d}{slug(filter)}.fits" for i in range(n_frames)),
        variable=variable or star(target),
        times=dataclasses.replace(table.times, jd_utc=times, hjd_utc=times, bjd_tdb=times),
    )


def key_of(date, target, filter):
    return f"{date:%Y%m%d}__{slug(target)}__{slug(filter)}"


def write_row(observatory, key, *, date=FIRST, target="TX Eri", filter="V", **columns):
    """Write the row of an observation, in `validate` unless `columns` say otherwise."""
    named = {"proc": "solved", "apphot": "validate", "n_frames": 20, **columns}
    values = {"date": date.isoformat(), "target": target, "filter": filter, "key": key}
    values |= {"night": f"{date:%Y%m%d}", **named}
    with observatory.status._writing() as connection:
        connection.execute(
            f"INSERT INTO target ({', '.join(values)}) VALUES ({', '.join('?' * len(values))})",
            [*values.values()],
        )


def write_products(observatory, key, **products):
    """Write products of an observation by asset name, with their versions."""
    for asset, value in products.items():
        product = PRODUCTS[asset]
        path = product.path(observatory.layout, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(product.encode(value))
        observatory.status.record_product(
            key, asset, path=str(path), content_hash="", version=product.version(value),
            inputs={}, status={},
        )  # fmt: skip


def waiting(observatory, table=None, *, date=FIRST, magnitudes=None, **columns):
    """Write a measured observation that waits for the person, and return its key."""
    table = a_night(date=date) if table is None else table
    key = key_of(date, table.target, table.filter)
    columns = {"n_frames": len(table.labels), **columns}
    write_row(observatory, key, date=date, target=table.target, filter=table.filter, **columns)
    write_products(
        observatory,
        key,
        photometry_table=table,
        standard_magnitudes=standardised(table) if magnitudes is None else magnitudes,
        variable=table.variable,
    )
    return key


def write_pictures(observatory, key, table):
    """Write the page of frames with a picture of each but the last, and a finding chart."""
    raws = [f"20251015/Light/{table.target}/{label}" for label in table.labels]
    frames = tuple(
        domain.ReducedFrame(
            raw=raw, path=None, label=label, raw_hash=raw_hash, exposure_s=30.0,
            start_utc="2025-10-15T01:00:00", ccd_temperature_c=None, airmass_header=None,
            site_hint=None,
        )
        for raw, label, raw_hash in zip(raws, table.labels, table.raw_hashes, strict=True)
    )  # fmt: skip
    left_out = domain.FrameGrade(
        raw="20251015/Light/x/first.fits", start_utc=None, exposure_s=None,
        grade=domain.Grade.BAD, faults=(), used=False,
    )  # fmt: skip
    cloud = domain.FrameFault(
        kind=domain.FaultKind.CLOUD, grade=domain.Grade.POOR, words="stars 0.31 mag dimmer"
    )
    grades = tuple(
        domain.FrameGrade(
            raw=raw, start_utc="2025-10-15T01:00:00", exposure_s=30.0,
            grade=domain.Grade.POOR if i == 1 else domain.Grade.GOOD,
            faults=(cloud,) if i == 1 else (), used=True,
        )
        for i, raw in enumerate(raws)
    )  # fmt: skip
    triage = domain.FrameTriage(
        key=key, grades=(left_out, *grades), findings=(), best_frame=raws[0], usual={}
    )
    grey = {
        raw: Picture(frame=np.full((64, 96), 10 * (i % 20), dtype=np.uint8), star=None)
        for i, raw in enumerate(raws[:-1])
    }
    directory = observatory.layout.observation_dir(key)
    reduced = dataclasses.replace(curves.reduction(), frames=frames)
    (directory / "reduction.json").write_bytes(PRODUCTS["reduced_frames"].encode(reduced))
    (directory / "frames.html").write_text(frames_html(triage, grey), encoding="utf-8")
    (directory / "triage.json").write_text(_json(triage), encoding="utf-8")
    (directory / "finding_chart.png").write_bytes(png())


def _json(triage):
    from wombat_dagster.store.tables import dump_json

    return dump_json(triage)


def png():
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("L", (96, 64), 200).save(buffer, format="PNG")
    return buffer.getvalue()


def many_waiting(observatory, *, n_observations=500, n_points=1000, n_stars=25):
    """Write many long observations: one set of files, linked into every directory."""
    table = a_night(n_points, field_mags=np.linspace(11.0, 15.0, 100), target="Star 00")
    first = waiting(observatory, table)
    source = observatory.layout.observation_dir(first)
    write_pictures(observatory, first, table)
    keys = [first]
    for number in range(1, n_observations):
        date = FIRST - dt.timedelta(days=number // n_stars)
        name = f"Star {number % n_stars:02d}"
        key = key_of(date, name, "V")
        write_row(observatory, key, date=date, target=name, n_frames=n_points)
        directory = observatory.layout.observation_dir(key)
        directory.mkdir(parents=True)
        for file in source.iterdir():
            os.link(file, directory / file.name)
        keys.append(key)
    return keys
