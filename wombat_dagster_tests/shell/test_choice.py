"""What an observation is calibrated with, why not with something else, and the observer's library.

The masters of a night are made once; a library is made of copies of them.
"""

import datetime as dt
import os
import shutil

import numpy as np
import pytest
from astropy.io import fits

from wombat_dagster import runs
from wombat_dagster.domain import FrameKind
from wombat_dagster.products import PRODUCTS
from wombat_dagster.stages import library
from wombat_dagster.stages.choice import choose_calibration
from wombat_dagster.stages.reduction import reduce_observation

NIGHT = dt.date(2025, 10, 14)
NEXT = dt.date(2025, 10, 15)
LIBRARY = 'library = "library"'


@pytest.fixture(scope="session")
def made_masters(open_place, tmp_path_factory):
    """Return a directory with a master bias and a master flat in V that wombat made."""
    root = tmp_path_factory.mktemp("masters")
    with open_place(root / "obs") as place:
        place.take("20251014/Bias/*", "20251014/Flat/*V.fit", "20251014/Light/SV Wom/*V.fit")
        assert place.run_night(NIGHT) == {}
        for name in ("mbias.fits", "mflatV.fits"):
            shutil.copy(place.data / "20251014" / name, root / name)
    return root


def foreign(source, destination, *, change=lambda image: image, remove=(), **cards):
    """Write a master as another program's: without our card and its history."""
    with fits.open(source) as hdus:
        image = change(np.asarray(hdus[0].data, dtype=np.float32))
        header = fits.Header(
            {
                keyword: hdus[0].header[keyword]
                for keyword in (
                    "IMAGETYP",
                    "DATE-OBS",
                    "INSTRUME",
                    "FILTER",
                    "XBINNING",
                    "YBINNING",
                )
                if keyword in hdus[0].header and keyword not in remove
            }
        )
    header.update({key.replace("_", "-"): value for key, value in cards.items()})
    destination.parent.mkdir(exist_ok=True)
    fits.PrimaryHDU(image, header).writeto(destination, overwrite=True)
    return destination


def choice_of(place, *, date=NIGHT):
    with place.in_force() as observatory:
        observatory.scan()
        return choose_calibration(observatory, place.row("SV Wom", date=date).observation)


# -------------------------------------------------------------------------------- the runners-up


def test_the_choice_says_what_was_taken_and_why_not_the_others(place):
    place.take("20251014/*/*V.fit", "20251014/Bias/*", "20251014/Light/SV Wom/*V.fit")
    place.take("20251015/*/*.fit", "20251015/Light/SV Wom/*")
    for night in (NIGHT, NEXT):
        assert place.run_night(night) == {}
    choice = choice_of(place, date=NEXT)
    assert choice.reasons == (
        "bias: 2025-10-14, 1 day away",
        "no master dark on any night",
        "flat in V: 2025-10-15, same night",
    )
    (runner_up,) = choice.runners_up
    assert runner_up.path == "20251014/mflatV.fits"
    assert (runner_up.kind, runner_up.reason) == (FrameKind.FLAT, "1 day further away")
    product = PRODUCTS["calibration_choice"]
    assert product.decode(product.encode(choice)) == choice


# ------------------------------------------------------------------------------------ the library


def test_a_night_without_calibrations_is_calibrated_from_the_library(place, made_masters):
    place.take("20251014/Light/SV Wom/*V.fit")
    place.configure(calibration=LIBRARY)
    folder = place.root / "library"
    bias = foreign(made_masters / "mbias.fits", folder / "mbias_20250101-20251231.fits")
    flat = foreign(made_masters / "mflatV.fits", folder / "mflatV_20250101-.fits")
    assert place.run() == {}
    row = place.row("SV Wom")
    assert row.apphot == "validate"
    assert (row.proc_bias, row.proc_flat) == ("2025-10-14", "2025-10-14")  # of their DATE-OBS
    reduction = place.product("reduced_frames", row.observation.key)
    choice = reduction.choice
    assert choice.missing == ()
    assert choice.reasons[0] == (
        "bias: 2025-10-14 from the library, valid from 2025-01-01 to 2025-12-31"
    )
    assert choice.reasons[2].endswith("from the library, valid from 2025-01-01")
    assert (choice.bias.path, choice.bias.made_by_us) == (bias.as_posix(), False)
    frame = reduction.frames[0]
    with fits.open(place.root / "products" / frame.path) as hdus:
        image, good = hdus[0].data, hdus["MASK"].data == 0
    raw = fits.getdata(place.data / frame.raw).astype(np.float32)
    expected = (raw - fits.getdata(bias)) / fits.getdata(flat)
    np.testing.assert_allclose(image[good], expected[good], rtol=1e-4)


def test_the_night_s_own_come_first_unless_the_library_is_forced(place, made_masters):
    place.take("20251014/Bias/*", "20251014/Flat/*V.fit", "20251014/Light/SV Wom/*V.fit")
    kept = foreign(made_masters / "mflatV.fits", place.root / "kept.fits", DATE_OBS="2025-01-01")
    entry = '[[master]]\nfile = "kept.fits"\nkind = "flat"\nvalid_from = 2025-01-01\n'
    assert place.run_night(NIGHT) == {}
    place.configure(tail=entry)
    choice = choice_of(place)
    assert not choice.flat.from_library
    assert [r.reason for r in choice.runners_up] == [
        "from the library: masters of the nights come first"
    ]
    place.configure(tail=f"{entry}forced = true\n")
    choice = choice_of(place)
    assert choice.flat.path == kept.as_posix()
    assert [r.reason for r in choice.runners_up] == ["forced library master preferred"]
    assert not choice.bias.from_library
    place.configure(tail=f"{entry}forced = true\nvalid_until = 2025-10-13\n")
    choice = choice_of(place)
    assert not choice.flat.from_library
    assert choice.runners_up == ()  # valid for other nights, and further away


def test_a_library_of_wombat_s_own_masters_keeps_what_was_measured_on_them(place, made_masters):
    place.take("20251014/Light/SV Wom/*V.fit")
    place.configure(calibration=LIBRARY)
    shutil.copytree(made_masters, place.root / "library", ignore=shutil.ignore_patterns("obs"))
    choice = choice_of(place)
    telescope = place.sky.telescope
    assert choice.bias.read_noise_adu == pytest.approx(
        telescope.read_noise_e / telescope.gain_e_adu, rel=0.05
    )
    assert choice.flat.gain_e_adu == pytest.approx(telescope.gain_e_adu, rel=0.05)
    assert (choice.bias.n_used, choice.flat.date) == (5, NIGHT)


def test_what_cannot_serve_is_told_and_stops_nothing(place, made_masters, caplog):
    place.take("20251014/Light/SV Wom/*V.fit")
    place.configure(calibration=LIBRARY, tail='[[master]]\nfile = "gone.fits"\nkind = "bias"\n')
    folder = place.root / "library"
    whole = foreign(made_masters / "mbias.fits", folder / "mbias.fits")
    (folder / "mbias_20250101-.fits").write_bytes(whole.read_bytes()[:9000])
    foreign(made_masters / "mbias.fits", folder / "mflatV.fits")
    foreign(made_masters / "mflatV.fits", folder / "mflat.fits", remove=("FILTER",))
    foreign(made_masters / "mbias.fits", folder / "mdark.fits", IMAGETYP="Dark")
    (folder / "mbias_20251301-.fits").write_bytes(b"")
    (folder / "readme.txt").write_text("my masters")
    choice = choice_of(place)
    assert choice.bias.path == whole.as_posix()
    assert (choice.dark, choice.flat) == (None, None)
    warnings = [r.getMessage() for r in caplog.records if "of the library" in r.getMessage()]
    for name, words in (
        ("gone.fits", "No such file"),
        ("mbias_20250101-.fits", "truncated"),
        ("mflatV.fits", "header says bias frame, name or [[master]] says flat"),
        ("mflat.fits", "a flat without a filter"),
        ("mdark.fits", "a dark without an exposure time"),
        ("mbias_20251301-.fits", "no range of dates"),
    ):
        (warning,) = [w for w in warnings if f"/{name} of" in w]
        assert words in warning
    assert len(warnings) == 6


def test_a_library_s_master_of_another_shape_is_a_runner_up(place, made_masters):
    place.take("20251014/Light/SV Wom/*V.fit")
    place.configure(calibration=LIBRARY)
    foreign(
        made_masters / "mbias.fits", place.root / "library" / "mbias.fits",
        change=lambda image: image[:100, :100],
    )  # fmt: skip
    choice = choice_of(place)
    assert choice.bias is None
    assert choice.runners_up[0].reason == "same night, but 100x100 1x1, 320x256 1x1 wanted"
    assert choice.missing == ("bias", "flat")


def test_a_dark_of_the_library_holds_the_bias_and_serves_its_own_exposure(place, made_masters):
    place.take("20251014/Light/SV Wom/*V.fit")  # 60 s
    place.configure(calibration=LIBRARY)
    folder = place.root / "library"
    source = made_masters / "mbias.fits"
    for exposure_s in (30, 61):
        foreign(source, folder / f"mdark{exposure_s}.fits", IMAGETYP="Dark")
    choice = choice_of(place)
    assert (choice.bias, choice.dark.exposure_s) == (None, 61.0)
    assert choice.missing == ("flat",)
    (folder / "mdark61.fits").unlink()
    choice = choice_of(place)
    assert choice.dark is None
    assert "exposure 30 s, 60 s wanted; without a bias it cannot be scaled" in choice.reasons[1]


def test_lights_of_two_exposures_take_no_dark_that_holds_the_bias(place, edit, made_masters):
    for cards, source in zip(({}, {"EXPTIME": 120.0}), place.sky.lights_v, strict=False):
        edit(source, place.data / source.relative_to(place.sky.data), cards=cards)
    place.configure(calibration=LIBRARY)
    source = made_masters / "mbias.fits"
    foreign(source, place.root / "library" / "mdark60.fits", IMAGETYP="Dark")
    choice = choice_of(place)
    assert choice.dark is None
    assert choice.reasons[1] == "no dark without a bias: 2 different exposures"
    assert [r.reason for r in choice.runners_up] == [
        "same night, but it holds the bias and cannot be scaled"
    ]


def test_a_library_s_file_is_read_once_until_it_changes(place, made_masters, monkeypatch):
    place.take("20251014/Light/SV Wom/*V.fit")
    place.configure(calibration=LIBRARY)
    path = foreign(made_masters / "mbias.fits", place.root / "library" / "mbias.fits")
    read = []
    real = library.read_master
    monkeypatch.setattr(library, "read_master", lambda p: read.append(p) or real(p))
    first = choice_of(place)
    assert choice_of(place) == first
    assert read == [path]
    foreign(made_masters / "mbias.fits", path, change=lambda image: image + 1)
    os.utime(path, (1_700_000_000, 1_700_000_000))
    assert choice_of(place).bias.content_hash != first.bias.content_hash
    assert read == [path, path]


def test_a_changed_library_reopens_the_observations_that_use_it(place, made_masters):
    place.take("20251014/Light/SV Wom/*V.fit")
    place.configure(calibration=LIBRARY)
    bias = foreign(made_masters / "mbias.fits", place.root / "library" / "mbias.fits")

    def planned():
        with place.in_force() as observatory:
            return [row.observation.key for row in runs.plan(observatory).observations]

    assert place.run() == {}
    key = place.row("SV Wom").observation.key
    assert planned() == []
    foreign(made_masters / "mflatV.fits", place.root / "library" / "mflatB.fits", FILTER="B")
    assert planned() == []  # there is more, and nothing else would be chosen
    foreign(made_masters / "mbias.fits", bias, change=lambda image: image + 100)
    assert planned() == [key]
    foreign(made_masters / "mbias.fits", bias)
    assert planned() == []  # the same pixels as before
    bias.unlink()
    assert planned() == [key]


def test_a_library_s_master_that_changed_after_the_choice_is_chosen_again(place, made_masters):
    place.take("20251014/Light/SV Wom/*V.fit")
    place.configure(calibration=LIBRARY)
    path = foreign(made_masters / "mbias.fits", place.root / "library" / "mbias.fits")
    choice = choice_of(place)
    foreign(made_masters / "mbias.fits", path, change=lambda image: image + 100)
    os.utime(path, (1_700_000_000, 1_700_000_000))
    with place.in_force() as observatory:
        reduction = reduce_observation(observatory, place.row("SV Wom").observation, choice)
    assert reduction.choice.bias.content_hash != choice.bias.content_hash


def test_the_night_s_own_map_of_bad_pixels_goes_along(place):
    place.take("20251014/Bias/*", "20251014/Flat/*V.fit", "20251014/Light/SV Wom/*V.fit")
    assert place.run_night(NIGHT) == {}
    maps = place.observatory.status.bad_pixel_maps()
    if not maps:
        pytest.skip("no map of bad pixels was made")
    choice = choice_of(place)
    assert choice.bad_pixels in maps
    assert choice.bad_pixels.content_hash[:12] in choice.version
