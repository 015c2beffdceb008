"""The laws of master frames, through the assets: whose they are, when they are made, from what."""

import datetime as dt
import json
import re

import numpy as np
import pytest
from astropy.io import fits

from wombat_dagster.domain import FrameKind
from wombat_dagster.partitions import NIGHTS
from wombat_dagster.products import read_product

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
    from wombat_dagster.simulate.night import simulate_night
    from wombat_dagster.simulate.world import SITE

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
    assert not (mask[100:200, 100:200] & 1).any()


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
    read = stacks.read_image

    def failing(path):
        if path == bad:
            raise stacks.UnreadableFrame("disk says no")
        return read(path)

    monkeypatch.setattr(stacks, "read_image", failing)
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
    assert order == ["raw_frames", "master_bias", "master_darks", "master_flats"]


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
