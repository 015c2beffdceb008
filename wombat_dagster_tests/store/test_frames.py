"""FITS files in and out: every way a file can be bad has words, and no write leaves half a file."""

import datetime as dt
import gzip
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from astropy.io import fits
from hypothesis import given
from hypothesis import strategies as st

from wombat_dagster.domain import FrameKind, MaskBit
from wombat_dagster.store import frames, raw_frames
from wombat_dagster.store.frames import UnreadableFrame

DATE = dt.date(2025, 10, 15)
COUNTS = np.random.default_rng(1).integers(900, 60000, size=(40, 60)).astype(np.uint16)


def raw_header(**cards):
    header = fits.Header()
    header["DATE-OBS"] = "2025-10-15T22:00:00"
    header["EXPTIME"] = 60.0
    header["FILTER"] = "V"
    header.update({key.replace("_", "-"): value for key, value in cards.items()})
    return header


def write_raw(path, pixels=COUNTS, header=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.PrimaryHDU(pixels, header if header is not None else raw_header()).writeto(path)
    return path


def raw_frame(path, root, kind=FrameKind.LIGHT, **more):
    return raw_frames.read_raw_frame(
        path, data_root=root, night_directory="20251015", date=DATE, kind=kind, **more
    )


def test_a_frame_reads_the_same_plain_gzipped_packed_and_in_an_extension(tmp_path):
    plain = write_raw(tmp_path / "a.fits")
    zipped = tmp_path / "a.fits.gz"
    zipped.write_bytes(gzip.compress(plain.read_bytes()))
    packed = tmp_path / "a.fits.fz"
    fits.HDUList(
        [fits.PrimaryHDU(), fits.CompImageHDU(COUNTS, raw_header(), compression_type="RICE_1")]
    ).writeto(packed)
    extended = tmp_path / "a.fts"
    fits.HDUList([fits.PrimaryHDU(header=raw_header()), fits.ImageHDU(COUNTS)]).writeto(extended)
    for path in (plain, zipped, packed, extended):
        pixels, header = frames.read_image(path)
        assert pixels.dtype == np.uint16, path.name
        np.testing.assert_array_equal(pixels, COUNTS)
        assert (header["FILTER"], header["NAXIS1"], header["NAXIS2"]) == ("V", 60, 40)
        assert frames.read_header(path)["EXPTIME"] == 60.0
        assert frames.read_header(path)["NAXIS1"] == 60
    hashes = {frames.pixel_hash(path) for path in (plain, zipped, packed, extended)}
    assert len(hashes) == 1


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "u4", "f4", "f8"])
def test_every_pixel_type_reads_as_astropy_reads_it(tmp_path, dtype):
    path = write_raw(tmp_path / "a.fits", (COUNTS % 200).astype(dtype))
    pixels, _ = frames.read_image(path)
    expected = fits.getdata(path)
    assert pixels.dtype == expected.dtype.newbyteorder("=")
    np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "u4", "f4", "f8"])
@pytest.mark.parametrize("n_rows", [1, 7, 40])
def test_rows_that_are_asked_for_are_those_of_the_whole(tmp_path, dtype, n_rows):
    path = write_raw(tmp_path / "a.fits", (COUNTS % 200).astype(dtype))
    pixels, cards = frames.read_image_and_cards(path)
    with frames.opened_image(path) as (rows, cards_of_rows):
        assert isinstance(rows, frames.StoredRows)
        assert (rows.shape, rows.dtype, cards_of_rows) == (pixels.shape, pixels.dtype, cards)
        for start in range(0, 40, n_rows):
            band = slice(start, min(40, start + n_rows))
            np.testing.assert_array_equal(rows[band], pixels[band])
    assert rows.stream.closed


def test_a_frame_that_is_cut_while_its_rows_are_read_is_unreadable(tmp_path):
    path, reduced = write_raw(tmp_path / "a.fits"), tmp_path / "reduced.fits"

    def bands(rows):
        yield rows[0:20].astype(np.float32)
        path.write_bytes(path.read_bytes()[:6000])
        yield rows[20:40].astype(np.float32)

    with frames.opened_image(path) as (rows, cards), pytest.raises(UnreadableFrame) as caught:
        frames.write_reduced_bands(reduced, bands(rows), np.zeros((40, 60), np.uint8), cards)
    assert caught.value.reason == "truncated: 3120 of 4800 bytes of data"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["a.fits", "a.fits.gz"])
def test_a_full_disk_is_no_fault_of_the_frame_that_is_read(tmp_path, name):
    path = write_raw(tmp_path / "a.fits")
    zipped = tmp_path / "a.fits.gz"
    zipped.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(OSError, match="No space left"), frames.opened_image(tmp_path / name):
        raise OSError(28, "No space left on device")


def test_scaled_integers_and_blanks_become_physical_values(tmp_path):
    stored = np.array([[0, 10], [-32768, 30]], dtype=np.int16)
    hdu = fits.PrimaryHDU(stored)
    hdu.header["BLANK"] = -32768
    path = tmp_path / "a.fits"
    hdu.writeto(path)
    text = path.read_bytes().replace(
        b"END".ljust(80), b"BSCALE  =                  0.5".ljust(80) + b"END".ljust(80), 1
    )
    path.write_bytes(text[:2800] + b" " * 80 + text[2960:])
    pixels, _ = frames.read_image(path)
    np.testing.assert_array_equal(pixels, [[0.0, 5.0], [np.nan, 15.0]])


def test_the_hash_tells_shapes_and_single_counts_apart():
    other = COUNTS.copy()
    other[3, 4] += 1
    assert frames.array_hash(COUNTS) != frames.array_hash(COUNTS.reshape(60, 40))
    assert frames.array_hash(COUNTS) != frames.array_hash(other)
    assert frames.array_hash(COUNTS) == frames.array_hash(COUNTS.astype(">u2"))


def truncated(path):
    write_raw(path)
    path.write_bytes(path.read_bytes()[: 2880 + 1024])


def cut_in_the_header(path):
    write_raw(path)
    path.write_bytes(path.read_bytes()[:1000])


def packed_and_cut(path):
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(COUNTS)]).writeto(path)
    path.write_bytes(path.read_bytes()[:9000])


def gzip_cut(path):
    write_raw(path.with_suffix(".tmp"))
    path.write_bytes(gzip.compress(path.with_suffix(".tmp").read_bytes())[:900])


BAD_FILES = {
    "truncated: 1024 of 4800 bytes of data": truncated,
    "header damaged or cut": cut_in_the_header,
    "truncated: ": packed_and_cut,
    "gzip file damaged or cut": gzip_cut,
    "empty file (0 bytes)": lambda path: path.write_bytes(b""),
    "not a FITS file: it begins with b'Observing log": lambda path: path.write_text(
        "Observing log of 2025-10-15\n" * 300
    ),
    "cube of 60x40x3": lambda path: write_raw(path, np.zeros((3, 40, 60), np.int16)),
    "1-dimensional (60)": lambda path: write_raw(path, np.zeros(60, np.int16)),
    "no image in the file": lambda path: fits.HDUList(
        [fits.PrimaryHDU(), fits.BinTableHDU.from_columns([fits.Column("x", "E", array=[1.0])])]
    ).writeto(path),
    "BITPIX 7 is no FITS pixel type": lambda path: path.write_bytes(
        write_raw(path.with_suffix(".tmp"))
        .read_bytes()
        .replace(b"BITPIX  =                   16", b"BITPIX  =                    7")
    ),
    "cannot be read: No such file": lambda path: None,
    "not a regular file": lambda path: path.mkdir(),
}


@pytest.mark.parametrize("words", BAD_FILES)
def test_a_bad_file_has_words_and_is_quarantined(tmp_path, words):
    path = tmp_path / "20251015" / "Light" / "T" / "a.fits"
    path.parent.mkdir(parents=True)
    BAD_FILES[words](path)
    with pytest.raises(UnreadableFrame) as caught:
        frames.read_image(path)
    assert caught.value.reason.startswith(words)
    frame = raw_frame(path, tmp_path, target="T")
    assert frame.reason == caught.value.reason
    assert (frame.target, frame.group, frame.pixel_hash) == ("T", None, None)


@given(st.integers(0, 14000), st.binary(min_size=1, max_size=40))
def test_damage_anywhere_never_raises_anything_else(tmp_path_factory, position, damage):
    path = tmp_path_factory.mktemp("d") / "a.fits.fz"
    fits.HDUList([fits.PrimaryHDU(), fits.CompImageHDU(COUNTS, raw_header())]).writeto(path)
    content = bytearray(path.read_bytes())
    content[position : position + len(damage)] = damage
    path.write_bytes(bytes(content))
    frame = raw_frame(path, path.parent)
    assert frame.reason is not None or frame.pixel_hash is not None


@pytest.mark.parametrize(
    ("cards", "drop", "kind", "words"),
    [
        ({}, "EXPTIME", FrameKind.LIGHT, "no exposure time"),
        ({"EXPTIME": 0.0}, "", FrameKind.LIGHT, "exposure time is 0 s"),
        ({}, "DATE-OBS", FrameKind.LIGHT, "notime: "),
        ({"DATE_OBS": "2025-10-15"}, "", FrameKind.LIGHT, "notime: "),
        ({}, "FILTER", FrameKind.LIGHT, "no FILTER"),
        ({"FILTER": "   "}, "", FrameKind.FLAT, "no FILTER"),
        ({"BAYERPAT": "RGGB"}, "", FrameKind.LIGHT, "colour-matrix frame (RGGB)"),
        ({"IMAGETYP": "Dark Frame"}, "", FrameKind.LIGHT, "header says dark frame, directory says"),
        ({"NCOMBINE": 20}, "", FrameKind.FLAT, "already combined (NCOMBINE 20)"),
        ({"WOMBHASH": "ab"}, "", FrameKind.LIGHT, "made by wombat"),
        ({}, "FILTER", FrameKind.DARK, None),
        ({}, "DATE-OBS", FrameKind.BIAS, None),
        ({}, "", FrameKind.LIGHT, None),
    ],
)
def test_what_one_file_can_be_quarantined_for(tmp_path, cards, drop, kind, words):
    header = raw_header(**cards)
    if drop:
        del header[drop]
    frame = raw_frame(write_raw(tmp_path / "a.fits", header=header), tmp_path, kind)
    assert frame.reason is None if words is None else frame.reason.startswith(words)


def test_a_missing_filter_comes_from_the_directory_then_the_configuration(tmp_path):
    header = raw_header(INSTRUME="STL")
    del header["FILTER"]
    path = write_raw(tmp_path / "a.fits", header=header)
    cameras = {"STL": "Clear"}
    both = raw_frame(path, tmp_path, directory_filter="V", filter_of_camera=cameras.get)
    configured = raw_frame(path, tmp_path, filter_of_camera=cameras.get)
    assert (both.filter, both.reason) == ("V", None)
    assert both.warnings == ("no FILTER card: V from the directory's name",)
    assert (configured.filter, configured.reason) == ("Clear", None)


def test_warnings_an_observer_should_see(tmp_path):
    header = raw_header(CALSTAT="BDF", DATE_OBS="2025-10-18T01:00:00")
    frame = raw_frame(write_raw(tmp_path / "a.fits", header=header), tmp_path)
    assert frame.reason is None
    assert any("CALSTAT 'BDF'" in words for words in frame.warnings)
    assert any("3 days from the night's 2025-10-15" in words for words in frame.warnings)


# ---------------------------------------------------------------------------------------- writing


def test_a_reduced_frame_survives_its_round_trip(tmp_path):
    image = np.random.default_rng(2).normal(1000, 30, (40, 60)).astype(np.float32)
    mask = np.zeros((40, 60), np.uint8)
    mask[3, 5] = MaskBit.BAD | MaskBit.SATURATED
    path = tmp_path / "deep" / "a.fits"
    frames.write_reduced(path, image, mask, raw_header())
    again, mask_again, header = frames.read_reduced(path)
    np.testing.assert_array_equal(again, image)
    np.testing.assert_array_equal(mask_again, mask)
    assert (again.dtype, mask_again.dtype, header["FILTER"]) == (np.float32, np.uint8, "V")
    with fits.open(path) as hdus:
        hdus.verify("exception")
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "MASK"]
    assert list(path.parent.iterdir()) == [path]


def reduced(path, shape=(40, 60), seed=2, header=None):
    rng = np.random.default_rng(seed)
    image = rng.normal(1000, 30, shape).astype(np.float32)
    mask = (image > 1050).astype(np.uint8)
    frames.write_reduced(path, image, mask, raw_header() if header is None else header)
    return image, mask


@pytest.mark.parametrize("shape", [(40, 60), (130, 7), (1, 3), (64, 1), (200, 333), (3, 5000)])
def test_the_checksums_of_a_reduced_frame_are_those_that_astropy_computes(tmp_path, shape):
    path = tmp_path / "a.fits"
    image, _ = reduced(path, shape)
    with fits.open(path, checksum=True) as hdus:  # warns, which is an error here, when they differ
        for hdu in hdus:
            stated = hdu.header["DATASUM"]
            hdu.add_datasum()
            assert hdu.header["DATASUM"] == stated
        np.testing.assert_array_equal(hdus[0].data, image)


def zeroed(content):
    return content[:4000] + bytes(4096) + content[8096:]


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (zeroed, "damaged: checksum"),  # what a power cut may leave where nothing was waited for
        (lambda content: content[:9000], "no extension MASK"),
        (lambda content: content[:-1000], "truncated: "),
        (lambda content: b"", "empty file"),
        (lambda content: content[:-2880] + bytes([1]) * 2880, "damaged: checksum"),  # in the mask
    ],
)
def test_a_damaged_reduced_frame_is_noticed(tmp_path, damage, words):
    path = tmp_path / "a.fits"
    reduced(path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UnreadableFrame, match=words):
        frames.read_reduced(path)


def test_a_solution_that_cannot_be_written_leaves_the_frame_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "a.fits"
    reduced(path)
    before = path.read_bytes()

    def full(source, destination, length):
        destination.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(frames.shutil, "copyfileobj", full)
    with pytest.raises(OSError, match="No space left"):
        frames.replace_wcs(path, NEW_WCS)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_new_solution_leaves_the_checksums_right(tmp_path):
    path = tmp_path / "a.fits"
    image, _ = reduced(path)
    frames.replace_wcs(path, NEW_WCS)
    assert frames.read_reduced(path)[0].tobytes() == image.tobytes()
    with fits.open(path, checksum=True) as hdus:
        assert hdus[0].header["CRVAL1"] == NEW_WCS["CRVAL1"]


def test_threads_that_read_frames_leave_the_warnings_as_they_were(tmp_path):
    """Python's filters belong to the process: two threads could restore each other's."""
    paths = [tmp_path / f"{i}.fits" for i in range(4)]
    for path in paths:
        reduced(path)
    before = list(warnings.filters)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(frames.read_image, paths * 50))
    assert list(warnings.filters) == before


def test_valid_cards_are_carried_over_and_bad_ones_are_not_fatal(tmp_path):
    path = write_raw(tmp_path / "raw.fits", header=raw_header(OBJECT="TX Eri"))
    content = path.read_bytes()
    end = content.index(b"END" + b" " * 77)
    bad = [b"TELESCOP= Cecilia / not quoted", b"BROKEN  = 'never closed", b"HUM     = NaN"]
    cards = b"".join(card.ljust(80) for card in [*bad, b"COMMENT clouds", b"END"])
    path.write_bytes((content[:end] + cards).ljust(2880) + content[2880:])
    pixels, header = frames.read_image(path)
    reduced = tmp_path / "reduced.fits"
    frames.write_reduced(reduced, pixels.astype(np.float32), np.zeros((40, 60), np.uint8), header)
    again = frames.read_reduced(reduced)[2]
    assert (again["OBJECT"], again["TELESCOP"], again["BITPIX"]) == ("TX Eri", "Cecilia", -32)
    assert "BZERO" not in again
    assert str(again["COMMENT"]) == "clouds"
    with fits.open(reduced) as hdus:
        hdus.verify("exception")


@pytest.mark.parametrize(
    "card",
    [
        "OBJECT  = 'TX Eri  '           / a comment",
        "TELESCOP= Cecilia / not quoted",
        "BROKEN  = 'never closed",
        "HUM     = NaN",
        "AIRMASS = 1.20",
        "object  = 'small'",
        "BZERO   =                32768",
        "HIERARCH ESO DET NAME = 'ccd' / long keyword",
        "COMMENT clouds = many",
        "HISTORY = 3",
        "NO VALUE HERE",
        "DP1     = 'AXIS.1: 1' / record-valued",
        "LONG    = 'a string that is so long that a single card cannot hold it, there &'".ljust(80)
        + "CONTINUE  'is more of it' / really",
        "N\xc4CHTE  = 'odd'",
        "SITE    = 'Z\xfcrich'",
    ],
)
def test_cards_come_from_the_text_of_a_header_as_from_its_parts(tmp_path, card):
    path = write_raw(tmp_path / "raw.fits", header=raw_header(OBSERVER="A. N."))
    content = path.read_bytes()
    end = content.index(b"END" + b" " * 77)
    odd = card.encode("latin-1").ljust(-(-len(card) // 80) * 80) + b"END".ljust(80)
    path.write_bytes((content[:end] + odd).ljust(2880) + content[2880:])
    pixels, cards = frames.read_image_and_cards(path)
    np.testing.assert_array_equal(pixels, COUNTS)
    assert cards == frames.carried_cards(frames.read_image(path)[1])
    assert any(card.startswith("OBSERVER") for card in cards)


def test_cards_of_a_packed_frame_are_those_of_the_plain_one(tmp_path):
    plain, packed = write_raw(tmp_path / "a.fits"), tmp_path / "a.fits.fz"
    fits.HDUList(
        [fits.PrimaryHDU(), fits.CompImageHDU(COUNTS, raw_header(), compression_type="RICE_1")]
    ).writeto(packed)
    zipped = tmp_path / "a.fits.gz"
    zipped.write_bytes(gzip.compress(plain.read_bytes()))
    cards = frames.read_image_and_cards(plain)[1]
    assert len(cards) == len(raw_header())
    assert frames.read_image_and_cards(packed)[1] == cards == frames.read_image_and_cards(zipped)[1]


def test_a_header_of_many_blocks_is_read_whole(tmp_path):
    header = raw_header()
    header.update({f"CARD{i}": i for i in range(36 * 3)})
    header["COMMENT"] = "END" + " " * 60
    path = write_raw(tmp_path / "a.fits", header=header)
    again = frames.read_image(path)[1]
    assert [again[f"CARD{i}"] for i in range(36 * 3)] == list(range(36 * 3))


OLD_WCS = {
    "CTYPE1": "RA---TAN-SIP", "CTYPE2": "DEC--TAN-SIP", "CRVAL1": 1.0, "CRVAL2": 2.0,
    "CDELT1": 0.1, "CDELT2": 0.1, "CROTA1": 5.0, "CROTA2": 5.0, "PC1_1": 0.9, "PC001002": 0.1,
    "CD1_1": 9.0, "CD1_2": 9.0, "A_ORDER": 2, "A_0_2": 1e-5, "AP_ORDER": 2, "BP_1_0": 1e-5,
    "PV1_1": 0.2, "PV2_10": 0.2, "LONPOLE": 180.0, "CRPIX1A": 3.0, "WAT1_001": "wtype=tnx",
    "RADECSYS": "FK5", "PLTSOLVD": True, "WCSAXES": 2,
}  # fmt: skip
NEW_WCS = {
    "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "CRPIX1": 30.5, "CRPIX2": 20.5, "CRVAL1": 31.0,
    "CRVAL2": 46.0, "CD1_1": -1e-3, "CD1_2": 0.0, "CD2_1": 0.0, "CD2_2": 1e-3, "RADESYS": "ICRS",
}  # fmt: skip


def test_a_new_solution_replaces_every_card_of_the_old_one_and_no_pixel(tmp_path):
    image = np.random.default_rng(3).normal(0, 1, (40, 60)).astype(np.float32)
    mask = (image > 2).astype(np.uint8)
    path = tmp_path / "a.fits"
    header = raw_header(A_SKY=12.0)
    header.update(OLD_WCS)
    frames.write_reduced(path, image, mask, header)
    frames.replace_wcs(path, NEW_WCS | {"SOLVER": ("ASTAP", "program")})
    frames.replace_wcs(path, NEW_WCS | {"SOLVER": ("ASTAP", "program")})  # again: the same
    again, mask_again, solved = frames.read_reduced(path)
    assert again.tobytes() == image.tobytes()
    assert mask_again.tobytes() == mask.tobytes()
    assert set(OLD_WCS) & set(solved) == set(OLD_WCS) & set(NEW_WCS)
    assert {key: solved[key] for key in NEW_WCS} == NEW_WCS
    assert (solved["SOLVER"], solved["A-SKY"], solved["FILTER"]) == ("ASTAP", 12.0, "V")
    with fits.open(path) as hdus:
        hdus.verify("exception")


def test_cards_that_only_look_like_a_wcs_stay():
    kept = ["EXPTIME", "DATE-OBS", "MJD-OBS", "RA", "DEC", "OBJCTRA", "CCD-TEMP", "PVT", "CDS",
            "AIRMASS", "BITPIX", "APTDIA", "BPM", "DPI", "EPOCH"]  # fmt: skip
    assert [key for key in kept if frames.WCS_CARD.match(key)] == []


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.fits"
    frames.write_bytes_atomic(path, b"old")

    class Broken(fits.HDUList):
        def writeto(self, fileobj, **more):
            fileobj.write(b"half")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        frames.write_fits_atomic(path, Broken())
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_master_of_ours_carries_its_hash_and_a_persons_does_not(tmp_path):
    image = np.full((40, 60), 1000.5, np.float32)
    ours, theirs = tmp_path / "mbias.fits", tmp_path / "theirs.fits"
    content_hash = frames.write_master(ours, image, raw_header(), None)
    write_raw(theirs)
    again, mask, _ = frames.read_master(ours)
    assert frames.provenance_hash(ours) == content_hash == frames.array_hash(again)
    assert mask is None
    assert frames.provenance_hash(theirs) is None
    assert frames.read_master(theirs)[0].dtype == np.float32


def test_a_mask_of_another_shape_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"mask \(3, 3\)"):
        frames.write_reduced(
            tmp_path / "a.fits", COUNTS.astype(np.float32), np.zeros((3, 3), np.uint8), raw_header()
        )


def test_a_written_file_has_the_permissions_of_any_other(tmp_path):
    """Temporary files are often private (0600); a product is for everyone the umask allows."""
    path, beside = tmp_path / "a.bin", tmp_path / "b.bin"
    frames.write_bytes_atomic(path, b"x")
    beside.write_bytes(b"x")
    assert path.stat().st_mode == beside.stat().st_mode
