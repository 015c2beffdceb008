import os
import time

import pytest

from wombat_dagster import litter
from wombat_dagster.store.frames import replacing

NIGHT = "20251014"
OLD_S = time.time() - 2 * litter.MIN_AGE_S


def put(path, *, age=True):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"half a")
    if age:
        os.utime(path, (OLD_S, OLD_S))
    return path


@pytest.fixture
def apart(monkeypatch, tmp_path):
    """A temporary directory of this test's own, where others leave nothing."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def test_what_a_killed_writer_left_is_found_by_the_name_it_writes_to(place, apart):
    """The name comes from the writer itself: the two cannot drift apart."""
    frame = place.root / "products" / NIGHT / "SV_Wom" / "V" / "frame.fits"
    with replacing(frame) as handle:
        handle.write(b"half a")
        handle.flush()
        (hidden,) = frame.parent.iterdir()
        assert litter.find_litter(place.observatory) == []  # young: somebody is writing it
        os.utime(hidden, (OLD_S, OLD_S))
        assert [one.path for one in litter.find_litter(place.observatory)] == [hidden]


def test_only_our_own_half_written_files_are_deleted(place, apart):
    place.take("20251014/Light/*/*V.fit")
    products, night, cache = place.root / "products", place.data / NIGHT, place.root / "cache"
    ours = [
        put(products / NIGHT / "SV_Wom" / "V" / ".SV_Wom_20251014_phot.tbl.0123abcd.tmp"),
        put(products / NIGHT / "SV_Wom" / "V" / ".89abcdef.tmp.fits"),
        put(night / ".mbias.fits.0123abcd.tmp"),
        put(cache / "vsp" / ".abcd_123.part"),
    ]
    stack = put(products / "scratch" / "wombat-abcd1234" / "0").parent
    folder = put(apart / "wombat_astap_abcd1234" / "frame.fits").parent
    for directory in (stack, folder):
        os.utime(directory, (OLD_S, OLD_S))
    kept = [
        put(products / NIGHT / "SV_Wom" / "V" / ".frame.fits.89abcdef.tmp", age=False),
        put(products / NIGHT / "SV_Wom" / "V" / "notes.tmp"),
        put(products / NIGHT / "SV_Wom" / "V" / ".notes.tmp"),
        put(night / "Light" / "SV Wom" / ".frame.fit.0123abcd.tmp"),
        put(night / ".thesis.doc.0123abcd.tmp"),
        put(place.data / ".mbias.fits.0123abcd.tmp"),
        put(cache / "download.part"),
        put(apart / "wombat_astap_notes" / "x"),
        put(apart / "other_abcd1234" / "x"),
    ]
    raw = place.raw_files()
    assert litter.clean_litter(place.observatory) == 6
    assert [path for path in (*ours, stack, folder) if path.exists()] == []
    assert [path for path in kept if not path.exists()] == []
    assert place.raw_files() == raw
    assert litter.clean_litter(place.observatory) == 0
