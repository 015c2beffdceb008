"""Whole runs on a disk that runs full, in a crash, and with a person in the database meanwhile.

One observation each. ``drills/`` does the same with real kills, real disks and real processes.
"""

import contextlib
import hashlib
import sqlite3
from pathlib import Path

import pytest

from wombat_dagster.domain import Apphot
from wombat_dagster.products import PRODUCTS
from wombat_dagster.store.frames import array_hash, read_master, read_reduced

FULL = Path("/dev/full")
NIGHT = ("20251014/Bias/*", "20251014/Flat/*V.fit", "20251014/Light/SV Wom/*V.fit")
KEY = "20251014__SV_Wom__V"


def sql(place, statement, *values):
    with contextlib.closing(sqlite3.connect(place.observatory.status.path)) as connection:
        rows = connection.execute(statement, values).fetchall()
        connection.commit()
    return rows


def products_without_row_and_rows_without_product(place):
    """Return what is half there: a row whose file is gone, or is other than the row says."""
    found = []
    for key, asset, path, content_hash in sql(
        place, "SELECT key, asset, path, content_hash FROM product"
    ):
        file = place.root / "products" / path
        if not file.exists():
            found.append(f"{key} {asset}: no file")
        elif hashlib.sha256(file.read_bytes()).hexdigest() != content_hash:
            found.append(f"{key} {asset}: other bytes")
    return found


def result_of(place):
    """Return pixels, measurements, magnitudes and words: what no fault may change."""
    masters = {p.name: array_hash(read_master(p)[0]) for p in place.data.rglob("m*.fits")}
    kept = {p.name: p for p in place.root.glob("products/20251014/SV_Wom/V/reduced/*.fits")}
    reduced = {name: [array_hash(a) for a in read_reduced(p)[:2]] for name, p in kept.items()}
    table = place.product("photometry_table", KEY)
    magnitudes = place.product("standard_magnitudes", KEY)
    pictures = {
        asset: PRODUCTS[asset].path(place.observatory.layout, KEY).read_bytes()
        for asset in ("light_curve", "diagnostics")
    }
    row = place.row("SV Wom")
    words = (row.proc, row.apphot, row.reason, row.proc_bias, row.proc_flat, row.submitted)
    return {
        "masters": masters,
        "reduced": reduced,
        "measured": PRODUCTS["photometry_table"].version(table),
        "magnitudes": PRODUCTS["standard_magnitudes"].version(magnitudes),
        "pictures": pictures,
        "words": words,
    }


@pytest.fixture(scope="module")
def undisturbed(open_place, tmp_path_factory):
    """What comes of the night when nothing happens."""
    with open_place(tmp_path_factory.mktemp("quiet") / "obs") as place:
        place.take(*NIGHT)
        assert place.run() == {}
        yield result_of(place)


@pytest.mark.skipif(not FULL.exists(), reason="no /dev/full on this system")
def test_a_disk_that_runs_full_again_and_again_costs_runs_and_nothing_else(
    place, undisturbed, monkeypatch
):
    """Once while a master is written, a first look, a reduced frame, a product."""
    place.take(*NIGHT)
    raw = place.raw_multiset()
    opened = Path.open
    names = {"mflatV.fits": "20251014", "SV_Wom-0002V.fits": KEY, "photometry.npz": KEY}
    for name, key in names.items():

        def to_full(self, *args, name=name, **kwargs):
            is_meant = self.name.startswith(f".{name}.") and self.suffix == ".tmp"
            return opened(FULL if is_meant else self, *args, **kwargs)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "open", to_full)
            failures = place.run()
        assert f"No space left on the disk of {place.root}" in failures[key], name
        assert f"for {name}: " in failures[key]
        assert "MB free of" in failures[key]
        assert products_without_row_and_rows_without_product(place) == []
        assert place.leftovers() == []
        assert place.row("SV Wom").apphot is None
    assert place.run() == {}
    assert result_of(place) == undisturbed
    assert place.raw_multiset() == raw


def test_a_run_killed_before_its_pictures_draws_them_the_next_time(place, undisturbed):
    """What a kill between two stages leaves: apphot says validate, the last products are not there.

    Seen in drills/kill.py, which kills in earnest.
    """
    place.take(*NIGHT)
    assert place.run() == {}
    last = ("light_curve", "diagnostics")
    (begun,) = sql(place, "SELECT max(id) FROM stage_run WHERE asset = 'standard_magnitudes'")
    sql(place, "DELETE FROM stage_run WHERE key = ? AND id > ?", KEY, *begun)
    for asset in last:
        PRODUCTS[asset].path(place.observatory.layout, KEY).unlink()
        sql(place, "DELETE FROM product WHERE key = ? AND asset = ?", KEY, asset)
    assert place.row("SV Wom").apphot == Apphot.VALIDATE
    assert place.run() == {}
    assert result_of(place) == undisturbed
