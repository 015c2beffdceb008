"""What is kept of single frames: whole or absent, by what it depends on, and no more of it."""

import numpy as np
import pytest

from wombat_dagster.domain import Aperture
from wombat_dagster.store.arrays import KeptArrays, content_key

COLUMNS = {
    "x_px": np.array([1.5, np.nan]),
    "y_px": np.array([0.1, 3.0]),
    "flags": np.array([4, 0]),
    "sums": np.arange(6.0).reshape(2, 3),
    "words": np.array(["a star", "another"]),
}


@pytest.fixture
def kept(tmp_path):
    return KeptArrays(tmp_path / "measured")


def test_arrays_come_back_as_they_were(kept):
    kept.put("frame", COLUMNS)
    again = kept.get("frame")
    assert again.keys() == COLUMNS.keys()
    for name, values in COLUMNS.items():
        np.testing.assert_array_equal(again[name], values)
        assert again[name].dtype == values.dtype
    assert kept.get("another frame") is None


@pytest.mark.parametrize("harm", ["cut", "empty", "a bit"])
def test_a_damaged_file_is_as_good_as_none(kept, tmp_path, harm):
    kept.put("frame", COLUMNS)
    (file,) = tmp_path.glob("measured/*")
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 4
    file.write_bytes({"cut": content[:-20], "empty": b"", "a bit": content}[harm])
    assert kept.get("frame") is None


def test_what_nobody_asked_for_goes(kept, tmp_path):
    for key in ("asked", "forgotten"):
        kept.put(key, COLUMNS)
    later = KeptArrays(tmp_path / "measured")
    later.get("asked")
    later.put("new", COLUMNS)
    later.remove_others()
    assert {path.stem for path in tmp_path.glob("measured/*")} == {"asked", "new"}


def test_a_key_changes_with_whatever_it_is_made_of():
    aperture = Aperture(radius_px=5.0, sky_inner_px=10.0, sky_outer_px=17.0)
    places = np.array([30.0, 31.0])
    keys = {
        content_key("stars", aperture, places),
        content_key("sums", aperture, places),
        content_key("stars", Aperture(radius_px=5.1, sky_inner_px=10.0, sky_outer_px=17.0), places),
        content_key("stars", aperture, np.nextafter(places, 40.0)),
        content_key("stars", aperture, places.astype(np.float32)),
        content_key("stars", aperture, places, None),
        content_key("stars", aperture, places[:, None]),
    }
    assert len(keys) == 7
    assert content_key("stars", aperture, places.copy()) in keys
