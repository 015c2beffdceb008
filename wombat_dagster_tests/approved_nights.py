"""Observations with magnitudes and an approval, made without pixels or runs, for reports."""

import dataclasses
import hashlib

import numpy as np

from wombat_dagster import domain
from wombat_dagster.config import Settings
from wombat_dagster.domain import DecisionKind, slug
from wombat_dagster.observatory import Observatory
from wombat_dagster.products import PRODUCTS
from wombat_dagster.stages import decisions
from wombat_dagster.store.decisions import Decisions
from wombat_dagster_tests.magnitude_tables import noisy_night, standardised

WHO = "XYZ"
CODE = {"observer": {"code": "XYZ"}}


def an_observatory(root, **tables):
    """Return an observatory of its own below `root`, with an observer code."""
    return Observatory(
        Settings(
            **CODE
            | {
                "data": root / "data",
                "products": root / "products",
                "database": root / "wombatpipeline.db",
            }
            | tables
        )
    )


def a_night(
    date="20251015", target="TX Eri", filter="V", *, n_frames=5, seed=1, jd=None, **changes
):
    """Return the measurement table of a night: its frames' hashes are its own."""
    jd = 2460963.5 if jd is None else jd
    night = noisy_night(n_frames=n_frames, seed=seed, target=target, filter=filter, **changes)
    times = jd + 0.1 + np.arange(n_frames) * 60 / 86400
    hashes = [
        hashlib.sha256(f"{date} {target} {filter} {i}".encode()).hexdigest()[:16]
        for i in range(n_frames)
    ]
    number = sum(target.encode())
    star = domain.Variable(
        name=target, auid=f"000-BBB-{number}", ra_deg=10.0, dec_deg=20.0, oid=f"{number}"
    )
    return dataclasses.replace(
        night,
        raw_hashes=tuple(hashes),
        times=dataclasses.replace(night.times, jd_utc=times, hjd_utc=times, bjd_tdb=times),
        variable=changes.get("variable", star),
        filter=filter,
    )


def measured(observatory, table, *, date="20251015", apphot="validate", magnitudes=None):
    """Write an observation's products and its row, and return its key."""
    key = f"{date}__{slug(table.target)}__{slug(table.filter)}"
    made = standardised(table) if magnitudes is None else magnitudes
    products = {
        "photometry_table": table,
        "standard_magnitudes": made,
        "variable": table.variable,
    }
    for asset, value in products.items():
        path = PRODUCTS[asset].path(observatory.layout, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PRODUCTS[asset].encode(value))
    with observatory.status._writing() as connection:
        connection.execute(
            "INSERT INTO target (date, target, filter, night, key, apphot, n_frames)"
            " VALUES (?,?,?,?,?,?,?) ON CONFLICT (key) DO UPDATE SET apphot = excluded.apphot",
            (f"{date[:4]}-{date[4:6]}-{date[6:]}", table.target, table.filter, date, key, apphot,
             len(table.labels)),
        )  # fmt: skip
    for asset, value in products.items():
        version = PRODUCTS[asset].version(value)
        observatory.status.record_product(
            key, asset, path="", content_hash="", version=version, inputs={}, status={}
        )
    return key


def approved(observatory, table, **options):
    """Do as `measured`, and approve the observation."""
    key = measured(observatory, table, **options)
    decisions.approve(observatory, key, who=WHO)
    return key


def approved_again(observatory, key):
    """Take the approval back, as wombat does when magnitudes moved, and approve anew."""
    Decisions(observatory.status.path).record(key, DecisionKind.RECALL, who="wombat")
    decisions.approve(observatory, key, who=WHO)


def submitted_word(observatory, key):
    return observatory.status.target_row(key).submitted
