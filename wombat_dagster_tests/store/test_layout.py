"""Where files live, what the scan counts, and flats that get sorted without losing one."""

import datetime as dt
import errno
import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from wombat_dagster import config
from wombat_dagster.domain import FrameGroup, FrameKind, Observation, slug
from wombat_dagster.store import frames, layout, raw_frames
from wombat_dagster.store.layout import Layout, scan_data, sort_flats

REFERENCE = os.environ.get("WOMBAT_REFERENCE_DATA")
needs_reference = pytest.mark.skipif(
    not REFERENCE, reason="WOMBAT_REFERENCE_DATA does not name the real frames"
)
GROUP = FrameGroup(width_px=12, height_px=10, binning="1x1", camera="C", readout=None)
SEEDS = iter(range(1, 10**6))


def put(path, *, kind=None, filter="V", shape=(10, 12), exposure_s=60.0, pixels=None, **cards):
    """Write a raw frame with pixels of its own."""
    header = fits.Header()
    header["DATE-OBS"] = "2025-10-15T22:00:00"
    header["EXPTIME"] = exposure_s
    if kind is not None:
        header["IMAGETYP"] = kind
    if filter is not None:
        header["FILTER"] = filter
    header.update(cards)
    if pixels is None:
        pixels = np.random.default_rng(next(SEEDS)).integers(0, 60000, shape).astype(np.uint16)
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.PrimaryHDU(pixels, header).writeto(path)
    return path


def filters(**of_cameras):
    """Return what is configured when only cameras' filters are."""
    return lambda camera: config.InstrumentSettings(filter=of_cameras.get(camera))


def reasons(scan):
    return {frame.path: frame.reason for frame in scan.frames}


# ---------------------------------------------------------------------------------- names of nights


@pytest.mark.parametrize(
    ("name", "date"),
    [
        ("20251015", dt.date(2025, 10, 15)),
        ("2025-10-15", dt.date(2025, 10, 15)),
        ("2025_10_15", dt.date(2025, 10, 15)),
        ("1-20161109", dt.date(2016, 11, 9)),
        ("20251015_b", dt.date(2025, 10, 15)),
        ("night 2025-10-15 (clouds)", dt.date(2025, 10, 15)),
        ("20251345_20251015", dt.date(2025, 10, 15)),
        ("20240229", dt.date(2024, 2, 29)),
        ("20250229", None),
        ("20251301", None),
        ("2025-1015", None),
        ("10292022", None),
        ("120251015", None),
        ("202510151", None),
        ("products", None),
        ("", None),
    ],
)
def test_night_date(name, date):
    assert layout.parse_night_date(name) == date


@given(st.dates(dt.date(1900, 1, 1), dt.date(2099, 12, 31)), st.sampled_from(["", "-", "_"]))
def test_every_date_survives_its_directory_name(date, separator):
    name = date.strftime(f"%Y{separator}%m{separator}%d")
    assert layout.parse_night_date(f"x-{name}_y") == date


# ----------------------------------------------------------------------------------------- the scan


def test_a_night_with_everything(tmp_path):
    night = tmp_path / "20251015"
    for i in range(3):
        put(night / "BIAS" / f"b{i}.FIT", filter=None, exposure_s=0.0)
    put(night / "Darks" / "60s" / "d.fits", filter=None, kind="Dark Frame")
    put(night / "Flat" / "FlatWizard" / "f.fts", filter="B", kind="FLAT")
    put(night / "FlatV" / "f.fits", filter=None)
    put(night / "Flat-R" / "f.fits", filter=None)
    put(night / "lights" / "TX Eri" / "a.fits")
    put(night / "lights" / "TX Eri" / "B" / "a.fits", filter=None)
    put(night / "lights" / "TX Eri" / "set 2" / "deep" / "a.fits")
    for not_raw in ("mbias.fits", "Bias/mbias.fits", "Flat/mflatV.fits", "Bias/.hidden.fits"):
        put(night / not_raw)
    put(night / ".cache" / "Light" / "T" / "a.fits")
    put(night / "reduced" / "a.fits")
    (night / "lights" / "TX Eri" / "log.txt").write_text("clouds")
    put(tmp_path / "no night" / "Light" / "T" / "a.fits")
    scan = scan_data(tmp_path)
    assert reasons(scan) == dict.fromkeys(reasons(scan))
    found = Counter((f.kind.value, f.target, f.filter) for f in scan.frames)
    assert found == {
        ("bias", None, None): 3,
        ("dark", None, None): 1,
        ("flat", None, "B"): 1,
        ("flat", None, "V"): 1,
        ("flat", None, "R"): 1,
        ("light", "TX Eri", "V"): 2,
        ("light", "TX Eri", "B"): 1,
    }
    assert scan.nights[0].has_lights


def test_loose_frames_are_named_not_lost(tmp_path):
    put(tmp_path / "20251015" / "a.fits")
    put(tmp_path / "20251015" / "Light" / "b.fits")
    scan = scan_data(tmp_path)
    assert "1 FITS files lie directly in 20251015" in scan.nights[0].notes[0]
    assert reasons(scan) == {
        "20251015/Light/b.fits": "lies directly in Light, one directory per target is wanted"
    }


def test_no_data_directory_and_an_empty_night_are_no_error(tmp_path):
    assert scan_data(tmp_path / "nowhere").frames == ()
    (tmp_path / "20251015" / "Light" / "T").mkdir(parents=True)
    scan = scan_data(tmp_path)
    assert (len(scan.nights), scan.frames) == (1, ())
    assert not scan.nights[0].has_lights


def test_the_same_pixels_count_once_the_shallower_path_first(tmp_path):
    pixels = np.arange(120, dtype=np.uint16).reshape(10, 12)
    target = tmp_path / "20251015" / "Light" / "T"
    put(target / "V" / "a.fits", pixels=pixels)
    put(target / "V" / "V" / "a.fits", pixels=pixels, OBJECT="fewer cards")
    put(target / "V" / "b.fits", pixels=pixels + 1)
    put(tmp_path / "20251015_b" / "Light" / "T" / "c.fits", pixels=pixels + 1)
    put(tmp_path / "20251016" / "Light" / "T" / "a.fits", pixels=pixels)
    assert reasons(scan_data(tmp_path)) == {
        "20251015/Light/T/V/a.fits": None,
        "20251015/Light/T/V/b.fits": None,
        "20251015/Light/T/V/V/a.fits": "same pixels as 20251015/Light/T/V/a.fits",
        "20251015_b/Light/T/c.fits": "same pixels as 20251015/Light/T/V/b.fits",
        "20251016/Light/T/a.fits": None,
    }


def test_two_variables_of_one_field_share_a_frame(tmp_path):
    pixels = np.arange(120, dtype=np.uint16).reshape(10, 12)
    put(tmp_path / "20251015" / "Light" / "TX Eri" / "a.fits", pixels=pixels)
    put(tmp_path / "20251015" / "Light" / "UX Eri" / "a.fits", pixels=pixels)
    assert set(reasons(scan_data(tmp_path)).values()) == {None}


def test_a_duplicate_of_an_unusable_frame_is_used(tmp_path):
    pixels = np.arange(120, dtype=np.uint16).reshape(10, 12)
    put(tmp_path / "20251015" / "Light" / "T" / "a.fits", pixels=pixels, filter=None)
    put(tmp_path / "20251015" / "Light" / "T" / "b.fits", pixels=pixels)
    assert reasons(scan_data(tmp_path))["20251015/Light/T/b.fits"] is None


def test_the_group_with_most_exposure_time_is_the_observation(tmp_path):
    target = tmp_path / "20251015" / "Light" / "T"
    for i in range(4):
        put(target / f"focus{i}.fits", shape=(5, 6), exposure_s=10.0)
    put(target / "a.fits", exposure_s=180.0)
    put(target / "c.fits", exposure_s=60.0, INSTRUME="another")
    put(target / "b.fits", shape=(5, 6), filter="B")  # an observation of its own
    found = reasons(scan_data(tmp_path))
    assert found["20251015/Light/T/focus0.fits"] == "6x5 1x1, observation is 12x10 1x1"
    assert found["20251015/Light/T/c.fits"] == "camera another, observation is None"
    assert found["20251015/Light/T/a.fits"] is None
    assert found["20251015/Light/T/b.fits"] is None


def test_bad_files_stop_nothing(tmp_path):
    target = tmp_path / "20251015" / "Light" / "T"
    put(target / "good.fits")
    whole = put(target / "cut.fits").read_bytes()
    (target / "cut.fits").write_bytes(whole[:2890])
    (target / "empty.fits").write_bytes(b"")
    (target / "text.fits").write_text("seeing 3 arcsec")
    (target / "dangling.fits").symlink_to(target / "gone.fits")
    (target / "directory.fits").mkdir()
    found = reasons(scan_data(tmp_path))
    assert found["20251015/Light/T/good.fits"] is None
    assert found["20251015/Light/T/cut.fits"] == "truncated: 10 of 240 bytes of data"
    assert found["20251015/Light/T/empty.fits"] == "empty file (0 bytes)"
    assert found["20251015/Light/T/text.fits"].startswith("not a FITS file")
    assert found["20251015/Light/T/dangling.fits"].startswith("cannot be read: No such file")
    assert len(found) == 5


@pytest.mark.parametrize(
    "name",
    ["TX Eri", "μ Cep", "a..b", "<x>", "a|b", "it's", 'say "hi"', "a;rm -rf *", "x\ny", "%s"],
)
def test_any_target_name_is_kept_verbatim(tmp_path, name):
    put(tmp_path / "20251015" / "Light" / name / f"{name}.fits")
    (frame,) = scan_data(tmp_path).frames
    assert (frame.target, frame.reason) == (name, None)


def test_a_name_that_is_no_text_is_noted(tmp_path):
    target = tmp_path / "20251015" / "Light" / "T"
    path = put(target / "a.fits")
    path.rename(target / os.fsdecode(b"a\xff.fits"))
    scan = scan_data(tmp_path)
    assert scan.frames == ()
    assert "\\udcff" in scan.nights[0].notes[0]


def test_links_that_lead_round_in_circles_end(tmp_path):
    night = tmp_path / "20251015"
    put(night / "Light" / "T" / "a.fits")
    put(night / "Bias" / "b.fits", filter=None)
    (night / "Light" / "T" / "up").symlink_to(night / "Light")
    (night / "Light" / "T" / "upper").symlink_to(night)
    (night / "Light" / "T" / "top").symlink_to(tmp_path)
    (night / "Light" / "T" / "self").symlink_to("self")
    (night / "Light" / "T" / "again.fits").symlink_to("a.fits")
    assert set(reasons(scan_data(tmp_path))) == {
        "20251015/Light/T/a.fits",
        "20251015/Bias/b.fits",
    }


# ----------------------------------------------------------------------------------- scanning again


def counting(monkeypatch):
    opened = []
    real = raw_frames.read_image

    def read_image(path):
        opened.append(path.name)
        return real(path)

    monkeypatch.setattr(raw_frames, "read_image", read_image)
    return opened


def test_a_second_scan_opens_nothing_and_says_the_same(tmp_path, monkeypatch):
    pixels = np.arange(120, dtype=np.uint16).reshape(10, 12)
    target = tmp_path / "20251015" / "Light" / "T"
    put(target / "a.fits", pixels=pixels, exposure_s=600.0)
    put(target / "a2.fits", pixels=pixels)
    put(target / "focus.fits", shape=(5, 6))
    put(tmp_path / "20251015" / "Light" / "loose.fits")
    first = scan_data(tmp_path)
    opened = counting(monkeypatch)
    known = {frame.path: frame for frame in first.frames}
    assert scan_data(tmp_path, known=known) == first
    assert opened == []
    put(target / "late.fits", exposure_s=60.0)
    again = scan_data(tmp_path, known=known)
    assert opened == ["late.fits"]
    assert len(again.frames) == len(first.frames) + 1


def test_verdicts_against_other_frames_are_passed_anew(tmp_path):
    target = tmp_path / "20251015" / "Light" / "T"
    put(target / "small.fits", shape=(5, 6), exposure_s=10.0)
    put(target / "large.fits", exposure_s=60.0)
    known = {frame.path: frame for frame in scan_data(tmp_path).frames}
    assert known["20251015/Light/T/small.fits"].reason is not None
    (target / "large.fits").unlink()
    assert reasons(scan_data(tmp_path, known=known)) == {"20251015/Light/T/small.fits": None}


def test_a_repaired_file_and_a_filter_configured_later_are_seen(tmp_path):
    target = tmp_path / "20251015" / "Light" / "T"
    put(target / "a.fits", filter=None, INSTRUME="STL")
    (target / "b.fits").write_bytes(b"")
    known = {frame.path: frame for frame in scan_data(tmp_path).frames}
    assert all(frame.reason for frame in known.values())
    (target / "b.fits").unlink()
    put(target / "b.fits")
    configured = scan_data(tmp_path, known=known, settings_of_camera=filters(STL="R"))
    assert {f.path[-6:]: f.filter for f in configured.frames} == {"a.fits": "R", "b.fits": "V"}
    known = {frame.path: frame for frame in configured.frames}
    changed = scan_data(tmp_path, known=known, settings_of_camera=filters(STL="I"))
    assert {f.path[-6:]: f.filter for f in changed.frames} == {"a.fits": "I", "b.fits": "V"}


def test_a_known_file_s_header_is_judged_again_and_its_pixels_are_not_read(tmp_path, monkeypatch):
    """Quarantined for itself, or with a filter that was assumed."""
    target = tmp_path / "20251015" / "Light" / "T"
    for name in ("none.fits", "V/assumed.fits"):
        put(target / name, filter=None, INSTRUME="STL")
    put(target / "dark.fits", kind="Dark Frame")
    first = scan_data(tmp_path)
    known = {frame.path: frame for frame in first.frames}
    opened = counting(monkeypatch)
    assert scan_data(tmp_path, known=known) == first
    configured = scan_data(tmp_path, known=known, settings_of_camera=filters(STL="R"))
    (late,) = [f for f in configured.frames if f.path.endswith("none.fits")]
    assert (late.filter, late.reason, late.pixel_hash) == ("R", None, known[late.path].pixel_hash)
    assert opened == []


@pytest.mark.parametrize("broken", ["scandir", "stat"])
def test_a_failing_disk_is_no_empty_night(tmp_path, monkeypatch, broken):
    for name in ("20251015", "20251016"):
        put(tmp_path / name / "Light" / "T" / "a.fits")
    bad = tmp_path / "20251015" / "Light" / "T"
    real = {"scandir": os.scandir, "stat": Path.stat}[broken]

    def fail(path, *args, **kwargs):
        if Path(path) == bad:
            raise OSError(errno.EIO, "Input/output error")
        return real(path, *args, **kwargs)

    if broken == "scandir":
        monkeypatch.setattr(layout.os, "scandir", fail)
    else:
        monkeypatch.setattr(Path, "stat", fail)
    first, second = scan_data(tmp_path).nights
    assert "Input/output error" in first.unseen
    assert (first.frames, second.unseen, len(second.frames)) == ((), None, 1)


def closed(monkeypatch, name, code):
    """Have every listing of a directory of that name fail: root may list any."""
    real = os.scandir

    def fail(path):
        if Path(path).name == name:
            raise OSError(code, os.strerror(code), str(path))
        return real(path)

    monkeypatch.setattr(layout.os, "scandir", fail)


def test_a_directory_that_is_gone_has_no_frames(tmp_path, monkeypatch):
    for name in ("T", "U"):
        put(tmp_path / "20251015" / "Light" / name / "a.fits")
    closed(monkeypatch, "T", errno.ENOENT)
    (night,) = scan_data(tmp_path).nights
    assert night.unseen is None
    assert [frame.target for frame in night.frames] == ["U"]


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM])
@pytest.mark.parametrize("name", ["20251015", "Light", "T"])
def test_of_a_night_with_a_directory_closed_to_us_nothing_is_known(
    tmp_path, monkeypatch, name, code
):
    put(tmp_path / "20251015" / "Light" / "T" / "a.fits")
    put(tmp_path / "20251016" / "Lights" / "U" / "a.fits")
    closed(monkeypatch, name, code)
    first, second = scan_data(tmp_path).nights
    assert os.strerror(code) in first.unseen
    assert str(tmp_path / "20251015") in first.unseen
    assert (second.unseen, len(second.frames)) == (None, 1)
    with pytest.raises(OSError, match=os.strerror(code)):
        layout.night_signatures(first.directory)


def test_a_data_directory_closed_to_us_is_taken_for_an_empty_one(tmp_path, monkeypatch):
    put(tmp_path / "20251015" / "Light" / "T" / "a.fits")
    closed(monkeypatch, tmp_path.name, errno.EACCES)
    assert not layout.has_entries(tmp_path)
    assert layout.night_directories(tmp_path) == ()


def test_only_one_night_is_scanned_with_the_others_of_its_date(tmp_path):
    for name in ("20251015", "2025-10-15", "20251016"):
        put(tmp_path / name / "Light" / "T" / "a.fits")
    scan = scan_data(tmp_path, only={"20251015"})
    assert [night.directory.name for night in scan.nights] == ["2025-10-15", "20251015"]


def test_signatures_change_with_a_file_and_not_with_a_master(tmp_path):
    night_path = tmp_path / "20251015"
    put(night_path / "Flat" / "f.fits")
    light = put(night_path / "Light" / "T" / "a.fits")
    put(night_path / "Light" / "U" / "a.fits")
    (night,) = layout.night_directories(tmp_path)
    first = layout.night_signatures(night)
    put(night_path / "mflatV.fits")
    assert layout.night_signatures(night) == first
    (night_path / "Flat" / "FlatV").mkdir()
    (night_path / "Flat" / "f.fits").rename(night_path / "Flat" / "FlatV" / "f.fits")
    assert layout.night_signatures(night) == first  # sorted flats are the same flats
    with light.open("ab") as growing:
        growing.write(b" " * 2880)
    grown = layout.night_signatures(night)
    assert grown.targets["T"] != first.targets["T"]
    assert grown.targets["U"] == first.targets["U"]
    assert grown.calibration == first.calibration


# -------------------------------------------------------------------------------------------- paths


@pytest.fixture
def places(tmp_path):
    return Layout(data=tmp_path / "data", products=tmp_path / "products", cache=tmp_path / "cache")


def test_master_names(places):
    def name(kind, *, main=True, **more):
        path = places.master_path("20251015", kind, group=GROUP, is_main_group=main, **more)
        assert path.parent == places.data / "20251015"
        return path.name

    assert name(FrameKind.BIAS) == "mbias.fits"
    assert name(FrameKind.FLAT, filter="V") == "mflatV.fits"
    assert name(FrameKind.FLAT, filter="../../x") == "mflatx.fits"
    assert name(FrameKind.DARK, exposure_s=180.0) == "mdark180.fits"
    assert name(FrameKind.DARK, exposure_s=1.5) == "mdark1.5.fits"
    assert name(FrameKind.BIAS, main=False) == "mbias_12x10_bin1.fits"
    both = {"filters_of_night": ["r", "R", "V"]}
    assert name(FrameKind.FLAT, filter="R", **both) == "mflatR.fits"
    assert name(FrameKind.FLAT, filter="r", **both) == "mflatr_lc.fits"
    assert name(FrameKind.FLAT, filter="r", filters_of_night=["r"]) == "mflatr.fits"
    with pytest.raises(ValueError, match="no master of flat"):
        name(FrameKind.FLAT)


@given(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=6, unique=True))
def test_no_two_filters_share_a_file_on_any_disk(filters):
    names = [layout.filter_part(name, filters).casefold() for name in filters]
    assert len(set(names)) == len(names)


def test_products_of_an_observation(places):
    observation = Observation(
        date=dt.date(2025, 10, 15), target="TX Eri", filter="V", key="20251015__TX_Eri__V"
    )
    directory = places.products / "20251015" / "TX_Eri" / "V"
    assert places.observation_dir(observation) == directory
    assert places.phot_table_path(observation) == directory / "TX_Eri_20251015_phot.tbl"
    assert places.reduced_path(observation, "a b") == directory / "reduced" / "a_b.fits"
    assert places.product_path(observation.key, "light_curve.png").parent == directory
    assert places.relative_to_products(directory) == "20251015/TX_Eri/V"


@pytest.mark.parametrize(
    "key",
    ["../../x", "20251015__..__V", "20251015__a/b__V", "20251015__a__", "a__b", "", "a__b__c__d",
     "20251015__.hidden__V", "20251015__a\\b__V", "20251015__a b__V", "a__b__c\n"],
)  # fmt: skip
def test_a_made_up_key_never_becomes_a_path(places, key):
    with pytest.raises(ValueError, match="is no observation's key"):
        places.observation_dir(key)


@pytest.mark.parametrize("path", ["../x", "20251015/../../x", "/etc/passwd", "", "a\0b", "a/.."])
def test_a_path_that_leaves_its_root_is_refused(places, path):
    with pytest.raises(ValueError, match="does not lie below"):
        places.raw_path(path)


@pytest.mark.parametrize("name", ["../20251015", "20251015/x", "..", "products", "/20251015"])
def test_a_night_is_one_directory_named_for_a_date(places, name):
    with pytest.raises(ValueError, match=r"is no name of a directory|is not named for a date"):
        places.night_dir(name)


@given(st.text(max_size=30), st.text(max_size=30), st.text(max_size=30))
def test_nothing_a_person_names_escapes_the_products(target, filter, label):
    places = Layout(data=Path("/d"), products=Path("/p"), cache=Path("/c"))
    key = f"20251015__{slug(target)}__{slug(filter)}"
    path = places.reduced_path(key, label)
    assert path.parts[:3] == ("/", "p", "20251015")
    assert len(path.parts) == 7
    assert not {"..", "."} & set(path.parts)
    assert path == Path(os.path.normpath(path))


def test_labels_are_distinct_and_the_first_keeps_its_name():
    labels = layout.frame_labels(["n/L/T/x/a.fits", "n/L/T/a.FIT.fz", "n/L/T/A.fits", "n/b c.fts"])
    assert labels["n/L/T/A.fits"] == "A"
    assert labels["n/b c.fts"] == "b_c"
    assert len({label.casefold() for label in labels.values()}) == 4


def test_layout_of_settings_is_absolute(tmp_path):
    places = Layout.of(config.Settings(base=tmp_path, data=Path("nights")))
    assert places.data == tmp_path / "nights"


# --------------------------------------------------------------------------- masters that are there


def test_masters_are_found_in_the_night_and_its_calibration_directories(tmp_path):
    night = tmp_path / "20251015"
    header = fits.Header({"EXPTIME": 180.0, "INSTRUME": "STL"})
    image = np.ones((10, 12), np.float32)
    ours = frames.write_master(night / "mbias.fits", image, header, None)
    put(night / "Flat" / "mflat_V_12x10_bin1.fits", filter=None)
    put(night / "flats" / "mflatX.fits", filter="Halpha")
    frames.write_master(night / "Dark" / "mdark180.fits", image, header, None)
    (night / "Bias").mkdir()
    (night / "Bias" / "mbias.fit").write_bytes(b"")
    put(night / "Light" / "T" / "mflatR.fits")
    put(night / "Bias" / "raw.fits")
    found = {str(m.path.relative_to(night)): m for m in layout.find_masters(night)}
    assert set(found) == {
        "mbias.fits", "Flat/mflat_V_12x10_bin1.fits", "flats/mflatX.fits", "Dark/mdark180.fits",
        "Bias/mbias.fit",
    }  # fmt: skip
    assert found["mbias.fits"].our_hash == ours
    assert found["mbias.fits"].group == replace(GROUP, camera="STL")
    assert found["Flat/mflat_V_12x10_bin1.fits"].filter == "V"
    assert found["Flat/mflat_V_12x10_bin1.fits"].our_hash is None
    assert found["flats/mflatX.fits"].filter == "Halpha"
    assert found["Dark/mdark180.fits"].exposure_s == 180.0
    assert found["Bias/mbias.fit"].reason == "empty file (0 bytes)"


# ------------------------------------------------------------------------------ guards of the scan


def instrument(**values):
    return lambda _camera: config.InstrumentSettings(**values)


def test_frames_of_a_warm_chip_are_left_out_with_both_temperatures(tmp_path, monkeypatch):
    night = tmp_path / "20251015"
    put(night / "Light" / "T" / "warm.fits", **{"CCD-TEMP": 3.2})
    put(night / "Light" / "T" / "cold.fits", **{"CCD-TEMP": -19.9})
    put(night / "Light" / "T" / "unknown.fits")
    put(night / "Bias" / "warm.fits", filter=None, **{"CCD-TEMP": -4.0})
    limited = scan_data(tmp_path, settings_of_camera=instrument(max_ccd_temperature_c=-5.0))
    assert reasons(limited) == {
        "20251015/Light/T/warm.fits": "CCD at +3.2 C, at most -5 wanted",
        "20251015/Light/T/cold.fits": None,
        "20251015/Light/T/unknown.fits": None,
        "20251015/Bias/warm.fits": "CCD at -4.0 C, at most -5 wanted",
    }
    # Another limit is another verdict, and no file is opened for it.
    known = {frame.path: frame for frame in limited.frames}
    opened = counting(monkeypatch)
    monkeypatch.setattr(raw_frames, "read_header", None)
    again = scan_data(tmp_path, known=known, settings_of_camera=instrument())
    assert set(reasons(again).values()) == {None}
    known = {frame.path: frame for frame in again.frames}
    limited_again = scan_data(
        tmp_path, known=known, settings_of_camera=instrument(max_ccd_temperature_c=-5.0)
    )
    assert (limited_again, opened) == (limited, [])


def test_the_warm_group_is_not_the_observation(tmp_path):
    target = tmp_path / "20251015" / "Light" / "T"
    for i in range(3):
        put(target / f"warm{i}.fits", shape=(20, 24), **{"CCD-TEMP": 10.0})
    put(target / "cold.fits", **{"CCD-TEMP": -20.0})
    scan = scan_data(tmp_path, settings_of_camera=instrument(max_ccd_temperature_c=0.0))
    assert reasons(scan)["20251015/Light/T/cold.fits"] is None


def test_lights_already_calibrated_in_another_way_are_left_out_by_exposure_time(tmp_path):
    target = tmp_path / "20251015" / "Light" / "T"
    put(target / "a.fits", CALSTAT="BD", exposure_s=300.0)
    put(target / "b.fits", exposure_s=60.0)
    put(target / "c.fits", CALSTAT="BDF", exposure_s=90.0)
    put(target / "d.fits", CALSTAT="D", exposure_s=60.0)  # a subtracted dark holds the bias
    assert reasons(scan_data(tmp_path)) == {
        "20251015/Light/T/a.fits": None,
        "20251015/Light/T/b.fits": "raw, observation is calibrated for bias, dark",
        "20251015/Light/T/c.fits": (
            "calibrated for bias, dark, flat, observation is calibrated for bias, dark"
        ),
        "20251015/Light/T/d.fits": None,
    }
    (target / "a.fits").unlink()
    (target / "d.fits").unlink()
    known = {frame.path: frame for frame in scan_data(tmp_path).frames}
    assert set(reasons(scan_data(tmp_path, known=known)).values()) == {
        None,
        "raw, observation is calibrated for bias, dark, flat",
    }


def test_odd_binning_is_left_out_of_the_observation_and_told(tmp_path):
    target = tmp_path / "20251015" / "Light" / "T"
    for i in range(3):
        put(target / f"a{i}.fits", XBINNING=2, YBINNING=2)
    put(target / "odd.fits", shape=(5, 12), XBINNING=2, YBINNING=4)
    put(target / "same_shape.fits", XBINNING=3, YBINNING=3)
    found = reasons(scan_data(tmp_path))
    assert found["20251015/Light/T/odd.fits"] == "12x5 2x4, observation is 12x10 2x2"
    assert found["20251015/Light/T/same_shape.fits"] == "12x10 3x3, observation is 12x10 2x2"


def test_sections_configured_later_or_no_longer_are_read_anew_and_no_pixels(tmp_path, monkeypatch):
    path = put(tmp_path / "20251015" / "Light" / "T" / "a.fits", TRIMSEC="[1:10,1:10]")
    (frame,) = scan_data(tmp_path).frames
    assert (frame.trim, frame.group.width_px) == ("[1:10,1:10]", 10)
    opened = counting(monkeypatch)
    for settings, trim, width_px in (
        ({"trim": "[1:8,1:10]"}, "[1:8,1:10]", 8),
        ({"trim": "[1:8,1:10]", "overscan": "[11:12,1:10]"}, "[1:8,1:10]", 8),
        ({"trim": "[1:9,1:10]"}, "[1:9,1:10]", 9),
        ({"trim": "[1:900,1:10]"}, "[1:10,1:10]", 10),  # outside: the header's
        ({}, "[1:10,1:10]", 10),
    ):
        known = {frame.path: frame}
        (frame,) = scan_data(
            tmp_path, known=known, settings_of_camera=instrument(**settings)
        ).frames
        assert (frame.trim, frame.group.width_px) == (trim, width_px)
        assert frame.overscan == settings.get("overscan")
        # The same configuration again: nothing is opened.
        headers_read = []
        with monkeypatch.context() as patch:
            patch.setattr(raw_frames, "read_header", headers_read.append)
            known = {frame.path: frame}
            same = scan_data(tmp_path, known=known, settings_of_camera=instrument(**settings))
        assert (same.frames, headers_read) == ((frame,), [])
    assert opened == []
    assert path.exists()


# --------------------------------------------------------------------------------- the library


def library_of(tmp_path, *names, **settings):
    directory = tmp_path / "library"
    directory.mkdir()
    for name in names:
        (directory / name).write_bytes(b"")
    calibration = config.CalibrationSettings(library="library")
    return config.Settings(base=tmp_path, calibration=calibration, **settings)


@pytest.mark.parametrize(
    ("name", "kind", "filter", "exposure_s", "first", "last"),
    [
        ("mbias.fits", "bias", None, None, None, None),
        ("mbias_20250101-20250430.fits", "bias", None, None, "2025-01-01", "2025-04-30"),
        ("mflatV_20250101-.fit.gz", "flat", "V", None, "2025-01-01", None),
        ("mflatV_-20250430.fits.fz", "flat", "V", None, None, "2025-04-30"),
        ("mflat_V 20250101-20250101.fits", "flat", "V", None, "2025-01-01", "2025-01-01"),
        ("mdark60_20250101-20250430.FIT", "dark", None, 60.0, "2025-01-01", "2025-04-30"),
        ("mdark1.5.fits", "dark", None, 1.5, None, None),
        ("mflatV_1024x1024_bin2_20250101-.fits", "flat", "V", None, "2025-01-01", None),
    ],
)
def test_the_name_of_a_library_s_file_says_what_it_is_and_when_it_counts(
    tmp_path, name, kind, filter, exposure_s, first, last
):
    (file,) = layout.library_files(library_of(tmp_path, name))
    assert file.reason is None
    assert (file.kind, file.filter, file.exposure_s) == (kind, filter, exposure_s)
    days = [None if day is None else dt.date.fromisoformat(day) for day in (first, last)]
    assert [file.valid_from, file.valid_until] == days


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("flatV.fits", "not named mbias, mdark or mflat"),
        ("mflatV_20251301-.fits", "20251301- is no range of dates"),
        ("mflatV_20250430-20250101.fits", "the wrong way round"),
        ("mflatV_20250101.fits", "20250101 is no range of dates, 20250101- is one"),
    ],
)
def test_a_name_that_says_nothing_clear_is_told_and_not_guessed(tmp_path, name, words):
    (file,) = layout.library_files(library_of(tmp_path, name, "notes.txt", ".hidden.fits"))
    assert words in file.reason


def test_a_library_that_is_not_there_is_told(tmp_path):
    calibration = config.CalibrationSettings(library="library")
    settings = config.Settings(base=tmp_path, calibration=calibration)
    (file,) = layout.library_files(settings)
    assert (file.path, file.reason) == (
        tmp_path / "library",
        "directory of the library is not there",
    )


def test_what_wombat_toml_says_of_a_master_comes_before_its_name(tmp_path):
    entries = [
        {"file": "library/mflatV_20250101-20250430.fits", "forced": True},
        {"file": "good.fits", "kind": "flat", "filter": "V", "valid_from": dt.date(2025, 1, 1)},
        {"file": "mdark60_20250101-.fits", "exposure_s": 61.0, "valid_until": "2025-02-01"},
        {"file": "mflatV.fits", "kind": "dark", "exposure_s": 5.0},
        {"file": "what.fits"},
        {"file": "mbias_20250101.fits", "valid_from": dt.date(2025, 1, 1)},
    ]
    settings = library_of(tmp_path, "mflatV_20250101-20250430.fits", master=entries)
    flat, good, dark, odd, unknown, dated = layout.library_files(settings)  # listed once
    assert (flat.filter, flat.valid_until, flat.forced) == ("V", dt.date(2025, 4, 30), True)
    assert (good.kind, good.filter, good.valid_from) == ("flat", "V", dt.date(2025, 1, 1))
    assert (dark.exposure_s, dark.valid_from, dark.valid_until) == (
        61.0, None, dt.date(2025, 2, 1),
    )  # fmt: skip
    assert (odd.kind, odd.filter, odd.exposure_s) == ("dark", None, 5.0)
    assert "says no kind" in unknown.reason
    assert (dated.reason, dated.valid_from) == (None, dt.date(2025, 1, 1))


def test_the_library_s_signature_changes_with_a_file_and_with_what_is_said_of_it(tmp_path):
    assert layout.library_signature(config.Settings(base=tmp_path)) == ""
    settings = library_of(tmp_path, "mbias.fits", "mflatV_20250101-.fits")
    first = layout.library_signature(settings)
    assert layout.library_signature(settings) == first
    (tmp_path / "library" / "mbias.fits").write_bytes(b"other")
    second = layout.library_signature(settings)
    (tmp_path / "library" / "mflatV_20250101-.fits").rename(tmp_path / "library" / "mflatV.fits")
    third = layout.library_signature(settings)
    entry = config.MasterSettings(file="library/mbias.fits", forced=True)
    fourth = layout.library_signature(settings.model_copy(update={"master": [entry]}))
    assert len({first, second, third, fourth}) == 4


def test_only_masters_that_are_supplied_are_read_from_outside_the_data(tmp_path):
    entry = config.MasterSettings(file="else/good.fits", kind="bias")
    places = Layout.of(library_of(tmp_path, "mbias.fits", master=[entry]))
    for inside in (tmp_path / "library" / "mbias.fits", tmp_path / "else" / "good.fits"):
        assert places.raw_path(places.master_words(inside)) == inside
    own = places.data / "20251015" / "mbias.fits"
    assert places.master_words(own) == "20251015/mbias.fits"
    assert places.raw_path("20251015/mbias.fits") == own
    aside = places.masters_dir(dt.date(2025, 10, 15)) / "mbias.fits"
    assert aside == places.products / "20251015" / "masters" / "mbias.fits"
    assert places.master_words(aside) == "products/20251015/masters/mbias.fits"
    assert places.raw_path(places.master_words(aside)) == aside
    for outside in (
        "/etc/passwd",
        f"{tmp_path}/else/other.fits",
        f"{tmp_path}/library/../secret",
        f"{tmp_path}/library_of_others/mbias.fits",
    ):
        with pytest.raises(ValueError, match="does not lie below"):
            places.raw_path(outside)


# -------------------------------------------------------------------------------- sorting the flats


def mixed_night(root):
    night = root / "20251015"
    for filter in ("B", "V", "V"):
        put(night / "Flat" / f"{filter}{next(SEEDS)}.fits", filter=filter)
    put(night / "Flat" / "FlatWizard" / "w_V.fits", filter="V")
    put(night / "Flat" / "FlatWizard" / "w_B.fits", filter="B")
    put(night / "Flat" / "unknown.fits", filter=None)
    return night


def all_flats(root):
    """Return the hashes of all flats on disk: none may get lost."""
    return sorted(frames.pixel_hash(path) for path in root.rglob("*.fits"))


def flat_places(night):
    return Counter(path.parent.relative_to(night).as_posix() for path in night.rglob("*.fits"))


def test_mixed_flats_are_sorted_by_their_headers_and_journalled(tmp_path):
    night = mixed_night(tmp_path)
    before = all_flats(tmp_path)
    done = sort_flats(night, scan_data(tmp_path).frames, mode="move")
    assert done.warnings == ()
    assert flat_places(night) == {"Flat/FlatB": 2, "Flat/FlatV": 3, "Flat": 1}
    assert all_flats(tmp_path) == before
    lines = (tmp_path / ".wombat" / "moves.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    assert [event["event"] for event in events] == ["intended", "done"] * 5
    assert [(event["from"], event["to"]) for event in events[::2]] == list(done.moved)
    again = scan_data(tmp_path)
    assert sort_flats(night, again.frames, mode="move").moved == ()
    assert Counter(f.filter for f in again.nights[0].usable(FrameKind.FLAT)) == {"B": 2, "V": 3}


def test_flats_of_one_filter_and_sorted_ones_stay(tmp_path):
    night = tmp_path / "20251015"
    put(night / "Flat" / "a.fits")
    put(night / "Flat" / "FlatWizard" / "b.fits")
    put(night / "FlatB" / "c.fits", filter="B")
    other = tmp_path / "20251016"
    put(other / "Flat" / "B" / "a.fits", filter="B")
    put(other / "Flat" / "V" / "b.fits")
    found = scan_data(tmp_path).frames
    assert sort_flats(night, found, mode="move").moved == ()
    assert sort_flats(other, found, mode="move").moved == ()


def test_nothing_is_ever_overwritten(tmp_path):
    night = mixed_night(tmp_path)
    put(night / "Flat" / "FlatV" / "w_V.fits", filter="V")
    before = all_flats(tmp_path)
    done = sort_flats(night, scan_data(tmp_path).frames, mode="move")
    assert len(done.warnings) == 1
    assert done.warnings[0].endswith("20251015/Flat/FlatV/w_V.fits is there already")
    assert all_flats(tmp_path) == before
    assert (night / "Flat" / "FlatWizard" / "w_V.fits").exists()


@pytest.mark.parametrize("after_events", range(10))
def test_a_run_killed_anywhere_can_be_run_again(tmp_path, after_events):
    class Killed(BaseException):
        pass

    night = mixed_night(tmp_path)
    before = all_flats(tmp_path)
    events = []

    def journal(entry):
        if len(events) == after_events:
            raise Killed
        events.append(entry)

    with pytest.raises(Killed):
        sort_flats(night, scan_data(tmp_path).frames, mode="move", journal=journal)
    assert all_flats(tmp_path) == before
    sort_flats(night, scan_data(tmp_path).frames, mode="move")
    assert all_flats(tmp_path) == before
    assert flat_places(night)["Flat"] == 1  # the one whose filter nobody knows
    assert Counter(f.filter for f in scan_data(tmp_path).nights[0].usable(FrameKind.FLAT)) == {
        "B": 2,
        "V": 3,
    }


def test_a_kill_between_the_new_name_and_the_old_one_is_finished(tmp_path):
    night = mixed_night(tmp_path)
    scan = scan_data(tmp_path)
    (night / "Flat" / "FlatB").mkdir()
    os.link(night / "Flat" / "FlatWizard" / "w_B.fits", night / "Flat" / "FlatB" / "w_B.fits")
    assert sort_flats(night, scan.frames, mode="move").warnings == ()
    assert not (night / "Flat" / "FlatWizard" / "w_B.fits").exists()
    assert (night / "Flat" / "FlatB" / "w_B.fits").exists()


def test_without_hard_links_a_rename_does_it_and_overwrites_nothing(tmp_path, monkeypatch):
    night = mixed_night(tmp_path)
    put(night / "Flat" / "FlatV" / "w_V.fits", filter="V")
    before = all_flats(tmp_path)

    def link(source, destination):
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(layout.os, "link", link)
    done = sort_flats(night, scan_data(tmp_path).frames, mode="move")
    assert len(done.moved) == 4
    assert len(done.warnings) == 1
    assert all_flats(tmp_path) == before


def test_linked_flats_count_once_and_the_originals_stay(tmp_path):
    night = mixed_night(tmp_path)
    first = scan_data(tmp_path)
    done = sort_flats(night, first.frames, mode="link")
    assert len(done.moved) == 5
    assert (night / "Flat" / "FlatV" / "w_V.fits").samefile(
        night / "Flat" / "FlatWizard" / "w_V.fits"
    )
    assert {f.path for f in scan_data(tmp_path).frames if f.reason is None} >= {
        f.path for f in first.frames if f.reason is None and f.path.count("/") == 2
    }
    flats = scan_data(tmp_path).nights[0].usable(FrameKind.FLAT)
    assert Counter(f.filter for f in flats) == {"B": 2, "V": 3}
    assert sort_flats(night, scan_data(tmp_path).frames, mode="link").moved == ()


def test_off_does_nothing(tmp_path):
    night = mixed_night(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    assert sort_flats(night, scan_data(tmp_path).frames, mode="off").moved == ()
    assert sorted(tmp_path.rglob("*")) == before


def test_a_read_only_disk_behaves_as_off(tmp_path, monkeypatch):
    """Root may write anywhere, so the answer of a read-only disk is given for it."""
    night = mixed_night(tmp_path)
    found = scan_data(tmp_path).frames
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setattr(layout.os, "access", lambda path, mode: False)
    done = sort_flats(night, found, mode="move")
    assert done.moved == ()
    assert done.warnings[0].startswith("flats left where they are: Read-only file system")
    assert sorted(tmp_path.rglob("*")) == before


# ---------------------------------------------------------------------------------- the real frames


def reference(name):
    return scan_data(Path(REFERENCE) / name)


@needs_reference
def test_the_microobservatory_night():
    scan = reference("microobservatory")
    assert Counter((f.kind, f.target, f.filter, f.exposure_s, f.reason) for f in scan.frames) == {
        (FrameKind.LIGHT, "HAT-P-32", "Clear", 60.0, None): 142
    }
    assert min(f.start_utc for f in scan.frames) == "2017-12-20T01:33:43.317000"
    assert not any(f.warnings for f in scan.frames)


@needs_reference
def test_the_wallace_night():
    scan = reference("wallace")
    assert Counter((f.kind.value, f.exposure_s, f.reason) for f in scan.frames) == {
        ("bias", 0.0, None): 10,
        ("dark", 180.0, None): 5,
        ("light", 180.0, None): 25,
        ("light", 10.0, "256x256 1x1, observation is 1024x1024 1x1"): 14,
    }
    assert {round(f.site_hint.longitude_deg, 6) for f in scan.frames} == {71.485}


@needs_reference
def test_the_bsu_night():
    scan = reference("bsu")
    night = scan.nights[0]
    assert Counter(f.filter for f in night.usable(FrameKind.FLAT)) == {"B": 3, "V": 4, "R": 3}
    assert Counter(f.exposure_s for f in night.usable(FrameKind.DARK)) == {1.0: 4, 1.5: 4}
    lights = Counter((f.target, f.filter) for f in night.usable(FrameKind.LIGHT))
    assert lights == {
        ("SN2022yid", "B"): 4, ("SN2022yid", "V"): 5, ("SN2022yid", "R"): 3, ("SN2022yid", "L"): 2,
        ("NGC6760", "B"): 2, ("NGC6760", "V"): 3,
    }  # fmt: skip
    (duplicate,) = scan.quarantined
    assert duplicate.path.endswith("V/V/SN2022yid_10292022-0002_V_120s.fit.fz")
    assert duplicate.reason == (
        "same pixels as 20221029/Light/SN2022yid/V/SN2022yid_10292022-0002_V_120s.fit.fz"
    )
