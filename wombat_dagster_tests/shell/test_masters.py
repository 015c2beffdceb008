"""The laws of master frames, through the assets: whose they are, when they are made, from what."""

import dataclasses
import datetime as dt
import json
import re

import numpy as np
import pytest
from astropy.io import fits

from wombat_dagster.domain import DetectorQuantity, FrameKind
from wombat_dagster.partitions import NIGHTS
from wombat_dagster.products import read_product
from wombat_dagster.simulate.night import Conditions, read_truth, simulate_night
from wombat_dagster.simulate.sky import BESSELL, Telescope, random_field
from wombat_dagster.simulate.world import SITE

NIGHT = dt.date(2025, 10, 14)
KEY = "20251014"


@pytest.fixture
def night(place):
    """The first night: five biases, four flats each in B and V, lights."""
    place.take("20251014/*/*.fit", "20251014/Light/SV Wom/*")
    return place


def biases(place):
    return sorted(place.data.glob("20251014/Bias/*.fit"))


def ending_of(place, asset, key=KEY):
    """Return the reason that Dagster shows for an asset that ended without a product."""
    import dagster as dg

    records = place.instance.fetch_observations(
        dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[key]), limit=1
    ).records
    return records[0].asset_observation.metadata["reason"].value


def test_masters_are_made_where_the_owner_looks_for_them(night):
    assert night.run_night(NIGHT) == {}
    assert sorted(p.name for p in (night.data / KEY).glob("*.fits")) == [
        "mbias.fits", "mflatB.fits", "mflatV.fits",
    ]  # fmt: skip
    for asset in ("raw_frames", "master_bias", "master_flats"):
        assert night.materialized(asset) == {KEY}
    assert night.materialized("master_darks") == set()
    assert ending_of(night, "master_darks") == "no usable dark frames on 2025-10-14"


def test_the_master_bias_is_the_median_and_says_what_it_is_made_of(night):
    """Against numpy's median; only where a value was clipped is there another one."""
    night.run_night(NIGHT)
    with fits.open(night.data / KEY / "mbias.fits") as hdus:
        header, image = hdus[0].header, hdus[0].data
    stack = np.array([fits.getdata(path) for path in biases(night)], dtype=float)
    assert np.mean(image == np.median(stack, axis=0)) > 0.8
    assert np.abs(image - np.median(stack, axis=0)).max() < 30
    assert header["NCOMBINE"] == 5
    history = "\n".join(header["HISTORY"])
    assert history.count("input 20251014/Bias/Bias-") == 5
    assert header["RDNMEAS"] == pytest.approx(
        night.sky.telescope.read_noise_e / night.sky.telescope.gain_e_adu, rel=0.03
    )


def test_a_master_flat_is_normalised_and_gives_the_gain(night):
    night.run_night(NIGHT)
    masters = {m.filter: m for m in night.observatory.status.masters(FrameKind.FLAT)}
    assert set(masters) == {"B", "V"}
    bias = night.observatory.status.masters(FrameKind.BIAS)[0]
    for filter, master in masters.items():
        image = fits.getdata(night.data / KEY / f"mflat{filter}.fits")
        assert np.median(image[64:192, 80:240]) == pytest.approx(1.0, abs=1e-5)
        assert master.bias_hash == bias.content_hash
        assert master.gain_e_adu == pytest.approx(night.sky.telescope.gain_e_adu, rel=0.05)


def test_a_person_s_own_master_is_used_and_never_touched(night):
    own = np.full((256, 320), 1234.0, np.float32)
    path = night.data / KEY / "Bias" / "mbias.fits"
    fits.PrimaryHDU(own, _header_like(night)).writeto(path)
    before = path.read_bytes()
    assert night.run_night(NIGHT) == {}
    assert night.run_night(NIGHT) == {}
    assert path.read_bytes() == before
    assert not (night.data / KEY / "mbias.fits").exists()
    (master,) = night.observatory.status.masters(FrameKind.BIAS)
    assert master.path == "20251014/Bias/mbias.fits"
    assert not master.made_by_us


def _header_like(place):
    header = fits.getheader(biases(place)[0])
    for keyword in ("BZERO", "BSCALE"):
        header.remove(keyword, ignore_missing=True)
    return header


def test_a_person_s_master_of_another_shape_is_not_overwritten_by_ours(night):
    """It cannot serve, and the name it has stays its own: ours is told apart by a suffix."""
    path = night.data / KEY / "mbias.fits"
    fits.PrimaryHDU(np.zeros((100, 100), np.float32), _header_like(night)).writeto(path)
    before = path.read_bytes()
    assert night.run_night(NIGHT) == {}
    assert path.read_bytes() == before
    ours = [m.path for m in night.observatory.status.masters(FrameKind.BIAS) if m.made_by_us]
    assert ours == ["20251014/mbias_320x256_bin1.fits"]


def test_a_file_that_only_looks_like_a_master_is_not_overwritten(night):
    path = night.data / KEY / "mbias.fits"
    path.write_text("my notes on the bias\n")
    assert night.run_night(NIGHT) == {}
    assert path.read_text() == "my notes on the bias\n"
    assert len(night.observatory.status.masters(FrameKind.BIAS)) == 1


def test_ours_is_made_again_only_when_its_inputs_change(night, edit):
    night.run_night(NIGHT)
    path = night.data / KEY / "mbias.fits"
    first = path.stat().st_mtime_ns
    hashes = [m.content_hash for m in night.observatory.status.masters()]
    night.run_night(NIGHT)
    assert path.stat().st_mtime_ns == first
    edit(
        biases(night)[0],
        night.data / KEY / "Bias" / "late.fit",
        pixels=lambda image: image + 50,
    )
    night.run_night(NIGHT)
    assert path.stat().st_mtime_ns != first
    assert fits.getheader(path)["NCOMBINE"] == 6
    # The flats were made with the old bias: they follow.
    assert not set(hashes) & {m.content_hash for m in night.observatory.status.masters()}


def test_a_damaged_master_of_ours_is_made_again(night):
    night.run_night(NIGHT)
    path = night.data / KEY / "mbias.fits"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert night.run_night(NIGHT) == {}
    assert path.read_bytes() == whole


def test_ours_stays_ours_when_its_frames_fall_below_three(night):
    """The master of frames since removed is neither used nor taken for the observer's own."""
    night.run_night(NIGHT)
    for path in biases(night)[2:]:
        path.unlink()
    for _ in range(2):
        assert night.run_night(NIGHT) == {}
        assert night.observatory.status.masters(FrameKind.BIAS) == []
        assert ending_of(night, "master_bias") == (
            "2 biases on 2025-10-14 (320x256 1x1), at least 3 wanted"
        )


def test_a_crash_between_file_and_row_does_not_make_ours_the_observer_s(night, monkeypatch):
    def crash(_masters):
        raise RuntimeError("power cut")

    with night.in_force() as observatory, monkeypatch.context() as patch:
        patch.setattr(observatory.status, "record_masters", crash)
        assert "power cut" in night.run_night(NIGHT)[KEY]
    assert (night.data / KEY / "mbias.fits").exists()
    assert night.run_night(NIGHT) == {}
    assert all(m.made_by_us for m in night.observatory.status.masters())


def test_two_biases_are_too_few_and_flats_without_bias_are_refused(place):
    place.take("20251014/Flat/*V.fit", "20251014/Light/SV Wom/*V.fit")
    for path in sorted(place.sky.data.glob("20251014/Bias/*"))[:2]:
        place.take(path.relative_to(place.sky.data).as_posix())
    assert place.run() == {}
    assert re.fullmatch(
        r"2 biases on 2025-10-14 \(320x256 1x1\), at least 3 wanted",
        ending_of(place, "master_bias"),
    )
    assert ending_of(place, "master_flats").startswith(
        "flats in V on 2025-10-14 (320x256 1x1) refused: "
    )
    row = place.row("SV Wom")
    assert (row.proc_bias, row.proc_flat, row.proc_dark) == ("nocal", "nocal", "nocal")
    assert row.apphot == "validate"  # goes on with what there is
    table = place.product("photometry_table", row.observation.key)
    assert any("bias, flat" in note for note in table.notes)


def test_calibration_can_be_required(place):
    place.take("20251014/Light/SV Wom/*V.fit")
    place.configure(calibration="require_calibration = true")
    assert place.run() == {}
    row = place.row("SV Wom")
    assert (row.proc, row.apphot) == (None, None)
    assert row.reason.startswith("require_calibration: no ")
    assert place.materialized("calibration_choice") == set()


def test_flats_too_bright_or_too_dark_are_refused_one_by_one(night, edit):
    directory = night.data / KEY / "Flat"
    source = sorted(directory.glob("*V.fit"))[0]
    edit(source, directory / "bright-V.fit", pixels=lambda image: np.full(image.shape, 54000))
    edit(source, directory / "dark-V.fit", pixels=lambda image: np.full(image.shape, 1400))
    assert night.run_night(NIGHT) == {}
    master = next(m for m in night.observatory.status.masters() if m.path.endswith("mflatV.fits"))
    assert (master.n_used, master.n_refused) == (4, 2)
    words = "\n".join(master.notes)
    assert re.search(r"bright-V\.fit: .*54000", words), words
    assert re.search(r"dark-V\.fit: .*\d", words), words


def test_mixed_flats_are_sorted_and_the_moves_written_down(night):
    before = night.raw_multiset()
    assert night.run_night(NIGHT) == {}
    flats = {p.relative_to(night.data / KEY).as_posix() for p in night.data.rglob("Flat-*.fit")}
    assert {path.rsplit("/", 1)[0] for path in flats} == {"Flat/FlatB", "Flat/FlatV"}
    assert night.raw_multiset() == before
    journal = [
        json.loads(line)
        for line in (night.data / ".wombat" / "moves.jsonl").read_text().splitlines()
    ]
    done = [entry for entry in journal if entry["event"] == "done"]
    assert len(done) == 8
    for entry in done:
        assert (night.data / entry["to"]).exists()
        assert not (night.data / entry["from"]).exists()
    assert night.run_night(NIGHT) == {}
    assert len((night.data / ".wombat" / "moves.jsonl").read_text().splitlines()) == len(journal)


def test_flats_stay_where_they_are_when_asked_to(night):
    night.configure(calibration='organise_flats = "off"')
    before = night.raw_files()
    assert night.run_night(NIGHT) == {}
    assert night.raw_files() == before
    assert {m.filter for m in night.observatory.status.masters(FrameKind.FLAT)} == {"B", "V"}


def test_a_night_s_directory_may_have_any_letters(place, sky, hard_link):
    """FITS headers are ASCII; directories are not."""
    name = "20251014 Żółw ★"
    for path in sky.data.glob("20251014/*/*V.fit"):
        hard_link(path, place.data / name / path.parent.name / path.name)
    for path in [*sky.data.glob("20251014/Bias/*.fit"), *sky.lights_v[:2]]:
        hard_link(path, place.data / name / path.relative_to(sky.data / KEY))
    assert place.run() == {}
    row = place.row("SV Wom")
    assert row.night == name
    assert (row.proc_flat, row.apphot) == ("2025-10-14", "validate")


def test_an_empty_night_ends_green_and_without_products(place):
    (place.data / KEY / "Light").mkdir(parents=True)
    place.instance.add_dynamic_partitions(NIGHTS.name, [KEY])  # by hand, in the UI
    assert place.run_night(NIGHT) == {}
    assert ending_of(place, "raw_frames") == (
        "2025-10-14: no frames, or no lights among them: the night is ignored"
    )
    assert place.materialized("master_bias") == set()
    with pytest.raises(FileNotFoundError):
        read_product(place.observatory, "raw_frames", KEY)


def test_darks_are_made_per_exposure_and_used(place, sky, tmp_path):
    """Scaled to the light's exposure: bias-subtracted when there is a bias."""
    simulate_night(
        tmp_path / "dark", field=sky.field, telescope=sky.telescope, date=NIGHT, site=SITE,
        seed=9, filters=("V",), n_lights=1, n_bias=3, n_flats=0, n_darks=3, exposure_s=60.0,
    )  # fmt: skip
    place.take("20251014/Light/SV Wom/*V.fit", "20251014/Bias/*")
    for path in (tmp_path / "dark" / "data" / KEY / "Dark").iterdir():
        target = place.data / KEY / "Dark" / path.name
        target.parent.mkdir(exist_ok=True)
        path.rename(target)
    assert place.run_night(NIGHT) == {}
    (master,) = place.observatory.status.masters(FrameKind.DARK)
    assert master.path == "20251014/mdark60.fits"
    assert master.exposure_s == 60.0
    assert master.bias_hash is not None
    assert abs(np.median(fits.getdata(place.data / master.path))) < 3


# -------------------------------------------------------------- what is not as it should be


def own_flat(place, image):
    header = _header_like(place)
    header["FILTER"], header["IMAGETYP"] = "V", "Flat Field"
    path = place.data / KEY / "mflatV.fits"
    fits.PrimaryHDU(image.astype(np.float32), header).writeto(path)
    return path


def test_a_flat_of_ones_own_may_have_any_level(place):
    """It is divided by its median; dark corners are masked. 1.0 everywhere changes nothing."""
    place.take("20251014/Bias/*", "20251014/Light/SV Wom/*V.fit")
    flat = np.full((256, 320), 25000.0)
    flat[:3, :3] = 100.0
    own_flat(place, flat)
    assert place.run() == {}
    row = place.row("SV Wom")
    assert row.apphot == "validate"
    reduction = place.product("reduced_frames", row.observation.key)
    frame = reduction.frames[0]
    with fits.open(place.root / "products" / frame.path) as hdus:
        image, mask = hdus[0].data, hdus["MASK"].data
    bias = fits.getdata(place.data / KEY / "mbias.fits")
    raw = fits.getdata(place.data / frame.raw)
    assert np.median(image) == pytest.approx(np.median(raw - bias), rel=1e-3)
    assert (mask[:3, :3] & 1).all()
    assert (mask[100:200, 100:200] & 1).mean() < 0.005  # single pixels: hot or dead


def test_a_master_of_ones_own_that_is_cut_short_is_left_alone_and_does_without(night, caplog):
    path = night.data / KEY / "Bias" / "mbias.fits"
    fits.PrimaryHDU(np.zeros((256, 320), np.float32), _header_like(night)).writeto(path)
    path.write_bytes(path.read_bytes()[:10000])
    assert night.run_night(NIGHT) == {}
    assert "mbias.fits cannot be used as a master: " in caplog.text
    (master,) = night.observatory.status.masters(FrameKind.BIAS)
    assert master.made_by_us


def test_a_bias_that_went_bad_after_the_scan_is_left_out_and_named(night, monkeypatch):
    from wombat_dagster.store import stacks

    bad = biases(night)[1]
    stored = stacks._stored_pixels

    def failing(path, *where):
        if path == bad:
            raise stacks.UnreadableFrame("disk says no")
        return stored(path, *where)

    monkeypatch.setattr(stacks, "_stored_pixels", failing)
    assert night.run_night(NIGHT) == {}
    (master,) = night.observatory.status.masters(FrameKind.BIAS)
    assert (master.n_used, master.n_refused) == (4, 1)
    assert master.notes == (f"{bad.name}: disk says no",)
    monkeypatch.undo()
    assert night.run_night(NIGHT) == {}
    assert night.observatory.status.masters(FrameKind.BIAS)[0].n_used == 5


def test_a_dark_of_ones_own_without_an_exposure_is_no_master(night, caplog):
    header = _header_like(night)
    for keyword in ("EXPTIME", "EXPOSURE"):
        header.remove(keyword, ignore_missing=True)
    path = night.data / KEY / "mdark.fits"
    fits.PrimaryHDU(np.zeros((256, 320), np.float32), header).writeto(path)
    assert night.run_night(NIGHT) == {}
    assert "a dark without an exposure time" in caplog.text
    assert night.observatory.status.masters(FrameKind.DARK) == []


def test_the_gain_says_when_the_read_noise_behind_it_is_not_known(night):
    own = fits.getdata(biases(night)[0]).astype(np.float32)
    fits.PrimaryHDU(own, _header_like(night)).writeto(night.data / KEY / "mbias.fits")
    assert night.run_night(NIGHT) == {}
    (bias,) = night.observatory.status.masters(FrameKind.BIAS)
    assert any("NCOMBINE" in note for note in bias.notes)
    for flat in night.observatory.status.masters(FrameKind.FLAT):
        assert flat.gain_e_adu is not None
        assert any("without the read noise" in note for note in flat.notes)


@pytest.mark.parametrize(
    ("lines", "again"),
    [
        ("", set()),
        ("flat_max_fraction = 0.9", {"mflatB.fits", "mflatV.fits"}),
        ("flat_min_fraction = 0.06", {"mflatB.fits", "mflatV.fits"}),
        ("min_frames = 4", {"mbias.fits", "mflatB.fits", "mflatV.fits"}),
    ],
)
def test_other_settings_make_the_masters_again(night, lines, again):
    def times():
        return {p.name: p.stat().st_mtime_ns for p in (night.data / KEY).glob("m*.fits")}

    night.run_night(NIGHT)
    before = times()
    night.configure(calibration=lines)
    night.run_night(NIGHT)
    assert {name for name, mtime_ns in times().items() if before[name] != mtime_ns} == again


def test_of_two_directories_of_a_date_the_first_by_name_gets_the_master(place, sky, hard_link):
    for number, path in enumerate(sorted(sky.data.glob("20251014/Bias/*.fit"))):
        name = "20251014_b" if number < 3 else "20251014_a"  # the first in time lie in the second
        hard_link(path, place.data / name / "Bias" / path.name)
    hard_link(sky.lights_v[0], place.data / "20251014_b" / "Light" / "SV Wom" / "one.fit")
    assert place.run_night(NIGHT) == {}
    (master,) = place.observatory.status.masters(FrameKind.BIAS)
    assert (master.path, master.n_used) == ("20251014_a/mbias.fits", 5)


def test_flats_do_not_take_a_bias_that_is_too_old_for_lights(place):
    place.take("20251014/Bias/*", "20251014/Light/SV Wom/*V.fit", "20251015/*/*.fit")
    place.take("20251015/Light/*/*")
    place.configure(calibration="max_age_days = 0")
    assert place.run_night(NIGHT) == {}
    assert place.run_night(dt.date(2025, 10, 15)) == {}
    assert place.observatory.status.masters(FrameKind.FLAT) == []
    assert "1 days away, at most 0 allowed" in ending_of(place, "master_flats", "20251015")


def test_biases_are_made_before_darks_and_darks_before_flats(night):
    """All three hang on the raw frames alone, and the later ones look for the earlier."""
    import dagster as dg

    night.run_night(NIGHT)
    (run,) = night.instance.get_runs()
    records = night.instance.get_records_for_run(run.run_id, of_type=dg.DagsterEventType.STEP_START)
    order = [record.event_log_entry.step_key for record in records.records]
    assert order[:4] == ["raw_frames", "master_bias", "master_darks", "master_flats"]
    assert "detector_noise" in order[4:]


def test_scratch_lies_on_the_products_disk_and_is_removed(night, monkeypatch):
    from wombat_dagster.store import stacks

    made = []
    real = stacks.tempfile.TemporaryDirectory

    def watched(**where):
        made.append(where["dir"])
        return real(**where)

    monkeypatch.setattr(stacks.tempfile, "TemporaryDirectory", watched)
    night.run_night(NIGHT)
    scratch = night.root / "products" / ".scratch"
    assert set(made) == {scratch}
    assert not scratch.exists()


def test_a_new_unused_night_is_no_other_choice(night):
    from dataclasses import replace

    from wombat_dagster.products import PRODUCTS

    night.run_night(NIGHT)
    with night.in_force() as observatory:
        from wombat_dagster.stages.choice import choose_calibration

        choice = choose_calibration(observatory, night.row("SV Wom").observation)
    version = PRODUCTS["calibration_choice"].version
    assert version(choice) == choice.version
    assert version(replace(choice, reasons=("another runner-up",))) == version(choice)
    assert version(replace(choice, flat=None)) != version(choice)


@pytest.mark.parametrize("is_known", [True, False])
def test_a_master_made_again_after_the_choice_is_chosen_again(night, is_known):
    """The headers tell the bias that was subtracted, or there is no frame at all."""
    from wombat_dagster.domain import NoCalibration
    from wombat_dagster.stages.choice import choose_calibration
    from wombat_dagster.stages.reduction import reduce_observation

    night.run_night(NIGHT)
    with night.in_force() as observatory:
        observation = night.row("SV Wom").observation
        choice = choose_calibration(observatory, observation)
        if is_known:
            biases(night)[0].unlink()
            night.run_night(NIGHT)
            reduction = reduce_observation(observatory, observation, choice)
            (bias,) = observatory.status.masters(FrameKind.BIAS)
            assert reduction.choice.bias == bias != choice.bias
            header = fits.getheader(night.root / "products" / reduction.frames[0].path)
            assert header["BIASHASH"] == bias.content_hash
        else:
            with fits.open(night.data / KEY / "mbias.fits", mode="update") as hdus:
                hdus[0].data += 1
            with pytest.raises(NoCalibration, match=r"mbias\.fits is not the master bias"):
                reduce_observation(observatory, observation, choice)


def test_frames_without_any_master_say_that_nothing_was_done(place):
    place.take("20251014/Light/SV Wom/*V.fit")
    assert place.run() == {}
    key = place.row("SV Wom").observation.key
    assert place.product("reduced_frames", key).notes[0] == "nothing to calibrate with"


# -------------------------------------------------------- against what was put into the detector

SCOPE = Telescope(
    width_px=320,
    height_px=256,
    dark_e_s=0.5,
    hot_fraction=2e-3,
    passbands=tuple(dataclasses.replace(band, sky_mag_arcsec2=16.5) for band in BESSELL),
)
STILL = Conditions(sky_gradient=0.0, cosmic_rays_mpx_minute=0.0)


@pytest.fixture(scope="module")
def studio(tmp_path_factory):
    """Return a function that writes the night as it is told to, once, and gives its data."""
    field = random_field(3, telescope=SCOPE, n_stars=1, n_comps=8)
    written = {}

    def write(name, **changes):
        if name not in written:
            given = {
                "field": field, "telescope": SCOPE, "date": NIGHT, "site": SITE, "seed": 17,
                "filters": ("V",), "n_lights": 6, "n_bias": 9, "n_flats": 5, "n_dawn_flats": 4,
                "n_darks": 5, "conditions": STILL, "gain_in_header": False,
            }  # fmt: skip
            root = tmp_path_factory.mktemp(name)
            simulate_night(root, **given | changes)
            written[name] = root / "data"
        return written[name]

    return write


@pytest.fixture
def full(place, studio, hard_link):
    """A night with biases, darks, flats of dusk and dawn, and lights of a bright sky."""
    return filled(place, studio("plain"), hard_link)


def filled(place, source, hard_link):
    for path in sorted(source.rglob("*.fit")):
        hard_link(path, place.data / path.relative_to(source))
    return place


def master_of(place, kind):
    (master,) = place.observatory.status.masters(kind)
    return master


def reduced(place):
    """Return the lights of the night, calibrated, with their masks."""
    from wombat_dagster.stages.choice import choose_calibration
    from wombat_dagster.stages.reduction import reduce_observation

    with place.in_force() as observatory:
        (row,) = place.rows
        choice = choose_calibration(observatory, row.observation)
        reduction = reduce_observation(observatory, row.observation, choice)
    found = []
    for frame in reduction.frames:
        with fits.open(place.root / "products" / frame.path) as hdus:
            found.append((hdus[0].data.astype(float), hdus["MASK"].data))
    return found


def without_stars(image, stars_xy):
    """Return `image` with NaN where the variable and the comps shine."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    lit = [np.hypot(x - star_x, y - star_y) < 14 for star_x, star_y in stars_xy.values()]
    return np.where(np.any(lit, axis=0), np.nan, image)


def blocks(image, size=32):
    ny, nx = (n // size for n in image.shape)
    return np.nanmedian(
        image[: ny * size, : nx * size].reshape(ny, size, nx, size).swapaxes(1, 2).reshape(
            ny, nx, -1
        ),
        axis=-1,
    )  # fmt: skip


def test_read_noise_gain_and_dark_current_come_back_within_3_percent(full):
    """With errors that hold: each is within four of its own."""
    assert full.run_night(NIGHT) == {}
    measured = {m.quantity: m for m in full.product("detector_noise", KEY)}
    for quantity, truth in (
        (DetectorQuantity.READ_NOISE, np.hypot(SCOPE.read_noise_e / SCOPE.gain_e_adu, 12**-0.5)),
        (DetectorQuantity.GAIN, SCOPE.gain_e_adu),
        (DetectorQuantity.DARK_CURRENT, SCOPE.dark_e_s / SCOPE.gain_e_adu),
    ):
        found = measured[quantity]
        assert found.value == pytest.approx(truth, rel=0.03), quantity
        assert abs(found.value - truth) < 4 * found.error, quantity
        assert found.error < 0.02 * truth, quantity
    assert full.materialized("detector_noise") == {KEY}


def test_a_flat_fielded_background_is_flat_to_two_parts_in_a_thousand(full, studio):
    """Vignetting takes 15 % and dust 7 % of the raw sky; 9 flats of 34000 e- know it."""
    assert full.run_night(NIGHT) == {}
    stars_xy = read_truth(studio("plain").parent / "truth" / f"{KEY}.json").frames[0].stars_xy
    sky = np.mean([np.where(mask & 1, np.nan, image) for image, mask in reduced(full)], axis=0)
    background = blocks(without_stars(sky, stars_xy))
    raw = np.mean(
        [fits.getdata(path) for path in full.data.rglob("Light/*/*.fit")], axis=0
    ) - fits.getdata(full.data / KEY / "mbias.fits")
    assert np.std(blocks(raw)) / np.median(raw) > 0.02
    # Six lights of 13000 e-, blocks of 1024 pixels: their own noise is 0.015 %.
    assert np.std(background) / np.median(background) < 0.0005
    assert np.abs(background / np.median(background) - 1).max() < 0.002


def test_dusk_and_dawn_are_combined_apart_and_counted(full):
    assert full.run_night(NIGHT) == {}
    flat = master_of(full, FrameKind.FLAT)
    assert flat.notes == ("flats: 5 dusk, 4 dawn, combined apart",)
    assert flat.notes[0] in list(fits.getheader(full.data / flat.path)["HISTORY"])


def test_a_master_knows_its_noise(full, studio):
    """Against the pattern that the simulated chip has: scatter of the difference, to 10 %."""
    from wombat_dagster.simulate.camera import make_detector

    assert full.run_night(NIGHT) == {}
    chip = make_detector(SCOPE, ["V"])
    quiet = ~(chip.hot | chip.dead)
    flat_truth = chip.response["V"] / np.median(chip.response["V"][64:192, 80:240])
    for kind, truth in (
        (FrameKind.BIAS, chip.bias_adu),
        (FrameKind.DARK, chip.dark_e_s * 60.0 / SCOPE.gain_e_adu),
        (FrameKind.FLAT, flat_truth),
    ):
        master = master_of(full, kind)
        departure = (fits.getdata(full.data / master.path) - truth)[quiet]
        scatter = 1.4826 * np.median(np.abs(departure - np.median(departure)))
        # Counts are whole numbers, and so are a bias's medians: the MAD is coarse, the rms is not.
        scatter = max(scatter, np.std(departure[np.abs(departure) < 5 * scatter]))
        assert master.noise == pytest.approx(scatter, rel=0.1), kind
        assert fits.getheader(full.data / master.path)["NOISE"] == pytest.approx(master.noise)


def test_half_flats_too_few_are_combined_with_the_others(full):
    for path in sorted(full.data.glob(f"{KEY}/Flat/*"))[-2:]:
        path.unlink()
    assert full.run_night(NIGHT) == {}
    words = "flats: 5 dusk, 2 dawn, combined in one set"
    assert master_of(full, FrameKind.FLAT).notes == (words,)


def test_without_a_site_flats_are_one_set(full):
    full.configure(site=False)
    assert full.run_night(NIGHT) == {}
    words = "flats: 0 dusk, 0 dawn, 9 other, combined in one set"
    assert master_of(full, FrameKind.FLAT).notes == (words,)
    full.configure()
    assert full.run_night(NIGHT) == {}  # another site tells them apart: made again
    assert "combined apart" in master_of(full, FrameKind.FLAT).notes[0]


def test_dusk_and_dawn_that_differ_are_said(full, edit, caplog):
    slope = 1 + 0.03 * np.linspace(-1, 1, 320)
    for path in sorted(full.data.glob(f"{KEY}/Flat/*"))[-4:]:
        other = path.with_name(f"sloped-{path.name}")
        edit(path, other, pixels=lambda image: 1000 + (image - 1000.0) * slope)
        path.unlink()
    assert full.run_night(NIGHT) == {}
    assert re.search(r"dusk and dawn flats differ by [23]\.\d%", "\n".join(caplog.messages))
    assert any("dusk and dawn flats differ" in n for n in master_of(full, FrameKind.FLAT).notes)


def test_a_flat_through_another_filter_is_refused_with_numbers(full, studio, edit):
    blue = next(iter(sorted(studio("blue", filters=("B",), n_lights=0).glob("*/Flat/*B.fit"))))
    wrong = full.data / KEY / "Flat" / "wrong-V.fit"
    edit(blue, wrong, cards={"FILTER": "V"})
    assert full.run_night(NIGHT) == {}
    flat = master_of(full, FrameKind.FLAT)
    assert (flat.n_used, flat.n_refused) == (9, 1)
    pattern = (
        r"wrong-V\.fit: shape departs by 0\.\d\d% from the others', which depart by 0\.0\d%: .*"
    )
    assert re.fullmatch(pattern, flat.notes[0]), flat.notes


def test_a_flat_in_the_directory_of_another_filter_is_refused(full, edit):
    full.configure(calibration='organise_flats = "off"')
    source = sorted(full.data.glob(f"{KEY}/Flat/*"))[0]
    strange = full.data / KEY / "Flat" / "FlatB" / "strange.fit"
    edit(source, strange, pixels=lambda image: image + 1)
    assert full.run_night(NIGHT) == {}
    notes = master_of(full, FrameKind.FLAT).notes
    assert notes[0] == "strange.fit: FILTER says V, the directory FlatB"


def test_one_bias_full_of_cosmic_rays_changes_the_master_by_its_noise_only(full, edit):
    for path in biases(full)[5:]:
        path.unlink()
    assert full.run_night(NIGHT) == {}
    clean = fits.getdata(full.data / KEY / "mbias.fits").astype(float)
    noise = master_of(full, FrameKind.BIAS).noise
    hit = biases(full)[2]
    rng = np.random.default_rng(5)
    struck = rng.random(clean.shape) < 0.02
    edit(hit, hit.with_name("struck.fit"), pixels=lambda i: np.where(struck, 40000, i))
    hit.unlink()
    assert full.run_night(NIGHT) == {}
    change = fits.getdata(full.data / KEY / "mbias.fits") - clean
    assert np.std(change[struck]) < 1.2 * noise
    assert np.abs(change[struck]).max() < 6 * noise
    assert not change[~struck].any()
    again = master_of(full, FrameKind.BIAS)
    assert again.noise == pytest.approx(noise, rel=0.02)
    assert again.rejected_fraction >= 0.9 * 0.02 / 5


def test_overscan_takes_out_a_level_that_drifts(place, studio, hard_link):
    """The level wanders by 5 ADU rms from frame to frame; 16 columns tell it in every row."""
    filled(place, studio("overscan", overscan_px=16), hard_link)
    assert place.run_night(NIGHT) == {}
    bias = master_of(place, FrameKind.BIAS)
    assert (bias.group.width_px, bias.group.height_px) == (320, 256)
    image = fits.getdata(place.data / bias.path)
    assert image.shape == (256, 320)
    assert np.median(image) == pytest.approx(0.0, abs=0.5)
    truth = SCOPE.dark_e_s / SCOPE.gain_e_adu
    dark = master_of(place, FrameKind.DARK)
    assert dark.dark_current_adu_s == pytest.approx(truth, rel=0.03)
    assert bias.read_noise_adu == pytest.approx(SCOPE.read_noise_e / SCOPE.gain_e_adu, rel=0.03)
    flat = master_of(place, FrameKind.FLAT)
    assert flat.gain_e_adu == pytest.approx(SCOPE.gain_e_adu, rel=0.03)


@pytest.fixture
def recorded(full):
    """A way to change what the scan said of the frames of a kind, and make the masters alone."""

    def make(kind, change):
        from wombat_dagster.stages.masters import make_masters

        with full.in_force() as observatory:
            if not observatory.status.night_frames(NIGHT):
                observatory.scan()
            frames = observatory.status.night_frames(NIGHT)
            of_kind = [f for f in frames if f.kind is kind]
            changed = {f.path: change(number, f) for number, f in enumerate(of_kind)}
            observatory.status.record_scan([changed.get(f.path, f) for f in frames], [NIGHT])
            (master,) = make_masters(observatory, NIGHT, kind)
            return master, fits.getdata(full.data / master.path).astype(float)

    return make


def as_it_is(_number, frame):
    return frame


def calstat(status, *numbers):
    return lambda number, frame: dataclasses.replace(
        frame, calibration_status=status if number in numbers else None
    )


def test_a_bias_that_is_already_subtracted_is_refused(recorded):
    master, _ = recorded(FrameKind.BIAS, calstat("B", 0))
    assert (master.n_used, master.n_refused) == (8, 1)
    assert master.notes == ("Bias-0001.fit: already bias-subtracted (CALSTAT B)",)


def test_the_capture_program_s_subtraction_is_not_done_again(recorded):
    """Flats of CALSTAT B: no bias, nor the same frames with and without."""
    recorded(FrameKind.BIAS, as_it_is)
    usual, _ = recorded(FrameKind.FLAT, as_it_is)
    assert usual.bias_hash is not None
    few, _ = recorded(FrameKind.FLAT, calstat("BD", 1))
    assert few.notes[0] == "Flat-0002V.fit: CALSTAT BD; 8 others: CALSTAT not stated"
    assert few.bias_hash == usual.bias_hash
    most, _ = recorded(FrameKind.FLAT, calstat("BD", *range(1, 9)))
    assert most.n_refused == 1
    assert most.notes[0].startswith("Flat-0001V.fit: CALSTAT not stated; 8 others: CALSTAT BD")
    assert most.bias_hash == "CALSTAT"
    done, _ = recorded(FrameKind.FLAT, calstat("BDF", 1))
    assert done.notes[0] == "Flat-0002V.fit: already flat-fielded (CALSTAT BDF)"


def test_darks_without_their_bias_can_be_scaled_whoever_took_it_out(recorded):
    recorded(FrameKind.BIAS, as_it_is)
    ours, image = recorded(FrameKind.DARK, as_it_is)
    theirs, raw = recorded(FrameKind.DARK, calstat("B", *range(5)))
    assert theirs.bias_hash == "CALSTAT"
    assert np.median(raw - image) == pytest.approx(1000.0, abs=10.0)  # nothing subtracted
    assert ours.dark_current_adu_s == pytest.approx(0.5 / 1.3, rel=0.03)
    assert theirs.dark_current_adu_s is not None


def test_frames_of_different_pedestals_are_brought_to_one(recorded):
    """-100 where 100 were added; -250 where the camera added 250: the same zero."""
    plain, image = recorded(FrameKind.BIAS, as_it_is)
    assert plain.pedestal_adu == 0.0
    _, shifted = recorded(
        FrameKind.BIAS,
        lambda number, frame: dataclasses.replace(frame, pedestal_adu=-100.0),
    )
    assert np.array_equal(shifted, image - 100.0)
    master, mixed = recorded(
        FrameKind.BIAS,
        lambda number, frame: dataclasses.replace(frame, pedestal_adu=-3.0 if number % 2 else None),
    )
    assert -3.0 < np.median(mixed - image) < 0.0
    assert master.read_noise_adu == pytest.approx(plain.read_noise_adu)


def test_the_dark_of_the_night_is_taken_out_of_its_flats(recorded, full):
    """A hot pixel of 60 e-/s has 180 e- in a flat of 3 s: 0.5 %, which is no light.

    The slope of the flat against the pixels' dark current: 1 where it stays in, +- 0.1.
    """
    from wombat_dagster.simulate.camera import make_detector

    recorded(FrameKind.BIAS, as_it_is)
    recorded(FrameKind.DARK, as_it_is)
    flat, image = recorded(FrameKind.FLAT, as_it_is)
    header = fits.getheader(full.data / flat.path)
    assert header["OFFSET1"].endswith("mbias.fits")
    assert header["OFFSET2"].endswith("mdark60.fits")
    chip = make_detector(SCOPE, ["V"])
    truth = chip.response["V"] / np.median(chip.response["V"][64:192, 80:240])
    current = chip.dark_e_s[chip.hot] * 3.0 / (26000.0 * SCOPE.gain_e_adu)
    slope = np.sum((image - truth)[chip.hot] * current) / np.sum(current**2)
    assert abs(slope) < 0.4


def test_flats_with_darks_of_their_own_exposure_tell_the_gain_too(recorded):
    """No bias: the noise of a frame without light is that of the darks."""
    recorded(FrameKind.DARK, lambda _, frame: dataclasses.replace(frame, exposure_s=3.0))
    flat, _ = recorded(FrameKind.FLAT, as_it_is)
    assert flat.gain_e_adu == pytest.approx(SCOPE.gain_e_adu, rel=0.03)
    assert not any("without the read noise" in note for note in flat.notes)


def test_a_step_of_the_detector_is_a_warning_that_blocks_nothing(full):
    import dagster as dg

    with full.in_force() as observatory:
        observatory.scan()
        assert full.run_night(NIGHT) == {}
        measured = full.product("detector_noise", KEY)
        before = NIGHT - dt.timedelta(days=3)
        old = [dataclasses.replace(m, date=before, value=1.2 * m.value) for m in measured]
        observatory.status.record_detector(before, old)
        assert full.run_night(NIGHT) == {}
    steps = [m.step for m in full.product("detector_noise", KEY)]
    assert all("(-16.7%" in step for step in steps)
    record = full.instance.get_latest_asset_check_evaluation_record(
        dg.AssetCheckKey(dg.AssetKey("detector_noise"), "detector_steady")
    )
    evaluation = record.event.dagster_event.event_specific_data
    assert not evaluation.passed
    assert evaluation.severity is dg.AssetCheckSeverity.WARN
    assert "gain 1." in evaluation.description
    event = full.instance.get_latest_materialization_event(dg.AssetKey("detector_noise"))
    plot = event.asset_materialization.metadata["plot"].value
    assert plot.startswith("![detector](data:image/png;base64,")
    assert len(plot) < 270_000
