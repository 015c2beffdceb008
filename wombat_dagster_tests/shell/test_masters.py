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
