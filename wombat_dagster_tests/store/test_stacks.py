import gzip
import os
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits

from wombat_dagster.science.combining import combine
from wombat_dagster.store import stacks
from wombat_dagster.store.frames import UnreadableFrame, read_image
from wombat_dagster.store.stacks import FrameStack

NY, NX = 40, 56
EVERY_TYPE = [np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.float32, np.float64]
PACKINGS = ["fit", "fit.gz", "fit.fz"]


def counts(number, dtype=np.uint16):
    image = np.random.default_rng(number).integers(0, 250, (NY, NX)).astype(dtype)
    if np.dtype(dtype).kind == "f":
        image[3, 4] = np.nan
    return image


def write(path, image, **cards):
    """Write a plain, gzipped or tile-compressed frame, as its name says."""
    header = fits.Header(cards)
    if path.name.endswith(".fz"):
        packed = fits.CompImageHDU(image, header, compression_type="GZIP_2", quantize_level=0)
        fits.HDUList([fits.PrimaryHDU(), packed]).writeto(path)
    else:
        fits.PrimaryHDU(image, header).writeto(path)
    return path


def files_below(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


@pytest.fixture
def scratch(tmp_path):
    return tmp_path / "products" / ".scratch"


@pytest.fixture
def biases(tmp_path):
    return [write(tmp_path / f"{i}.fit", counts(i)) for i in range(4)]


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("dtype", EVERY_TYPE)
def test_frames_of_every_type_and_packing_are_what_read_image_says(
    tmp_path, scratch, dtype, packing
):
    if packing == "fit.fz" and dtype == np.int64:
        pytest.skip("FITS tile compression has no 64-bit integers")
    paths = [write(tmp_path / f"{i}.{packing}", counts(i, dtype)) for i in range(3)]
    expected = [read_image(path)[0] for path in paths]
    with FrameStack(paths, scratch) as stack:
        assert (len(stack), stack.shape, stack.dtype) == (3, (NY, NX), expected[0].dtype)
        for i in range(3):
            assert stack.frame(i).dtype == expected[i].dtype
            np.testing.assert_array_equal(stack.frame(i), expected[i])
        for rows, band in stack.bands():
            assert band.dtype == expected[0].dtype
            np.testing.assert_array_equal(band, np.array(expected)[:, rows])


@pytest.mark.parametrize("bits", [np.int16, np.int32, np.int64, np.float32, np.float64])
@pytest.mark.parametrize(
    "cards", [{"BSCALE": 2.0}, {"BZERO": 7.0}, {"BSCALE": 0.5, "BZERO": -3.0}, {"BLANK": 17}]
)
def test_scaled_frames_and_blank_pixels_are_what_read_image_says(tmp_path, scratch, bits, cards):
    path = tmp_path / "scaled.fit"
    write(path, counts(1, bits))
    content = path.read_bytes()
    header = fits.Header.fromstring(content[:2880].decode())
    header.update(cards)
    path.write_bytes(header.tostring().encode() + content[2880:])
    with FrameStack([path], scratch) as stack:
        expected, _ = read_image(path)
        assert stack.frame(0).dtype == expected.dtype
        np.testing.assert_array_equal(stack.frame(0), expected)


def test_an_image_in_an_extension_is_read_where_it_lies(tmp_path, scratch):
    path = tmp_path / "extension.fit"
    fits.HDUList([fits.PrimaryHDU(), fits.ImageHDU(counts(5))]).writeto(path)
    with FrameStack([path], scratch) as stack:
        np.testing.assert_array_equal(stack.frame(0), counts(5))
        assert files_below(scratch) == []


def test_plain_frames_are_read_without_a_copy_and_packed_ones_are_decoded_once(
    tmp_path, scratch, biases
):
    packed = write(tmp_path / "4.fit.gz", counts(4))
    with FrameStack([*biases, packed], scratch) as stack:
        assert len(files_below(scratch)) == 1
        packed.unlink()
        np.testing.assert_array_equal(stack.frame(4), counts(4))
    assert not scratch.exists()


def test_raw_frames_are_never_written_to(tmp_path, scratch, biases):
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in biases]
    for path in biases:
        path.chmod(0o444)
    with FrameStack(biases, scratch) as stack:
        combine(stack)
        stack.frame(0)[:] = 0
        for _, band in stack.bands():
            band[:] = 0
        np.testing.assert_array_equal(stack.frame(0), counts(0))
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in biases] == before


def test_only_the_frames_that_are_kept_are_in_the_bands(biases, scratch, monkeypatch):
    monkeypatch.setattr(stacks, "BAND_BYTES", 8 * NX * 2 * 7)
    with FrameStack(biases, scratch) as stack:
        found = list(stack.bands(keep=[3, 1]))
    assert [rows.stop - rows.start for rows, _ in found] == [7, 7, 7, 7, 7, 5]
    whole = np.concatenate([band for _, band in found], axis=1)
    np.testing.assert_array_equal(whole, [counts(3), counts(1)])


def test_frames_of_different_types_meet_in_one_that_holds_both(tmp_path, scratch, biases):
    single = write(tmp_path / "single.fit", counts(9, np.float32))
    with FrameStack([biases[0], single, biases[1]], scratch) as stack:
        assert stack.dtype == np.float32
        assert stack.frame(0).dtype == np.uint16
        (_, band), = stack.bands()  # fmt: skip
        np.testing.assert_array_equal(band[0], counts(0))
        np.testing.assert_array_equal(band[1], counts(9, np.float32))
        combined, _ = combine(stack)
    assert combined[3, 4] == (int(counts(0)[3, 4]) + int(counts(1)[3, 4])) / 2  # NaN in the third


# ---------------------------------------------------------------------------- what cannot be used


def damaged(tmp_path):
    """Files that are no frames, by the words that the observer shall read."""
    content = write(tmp_path / "whole.fit", counts(1)).read_bytes()
    cut = gzip.compress(content)
    cube = fits.PrimaryHDU(np.zeros((3, 4, 5), np.uint16))
    cube.writeto(tmp_path / "cube.fit")
    files = {
        "truncated: 1120 of 4480 bytes of data": content[: 2880 + 1120],
        "not a FITS file": b"GIF89a" * 1000,
        "empty file (0 bytes)": b"",
        "gzip file damaged or cut": cut[: len(cut) // 2],
        "BITPIX 12 is no FITS pixel type": content.replace(
            b"BITPIX  =                   16", b"BITPIX  =                   12"
        ),
        "cube of 5x4x3": (tmp_path / "cube.fit").read_bytes(),
    }
    for number, (words, bad) in enumerate(files.items()):
        path = tmp_path / f"bad{number}.fit"
        path.write_bytes(bad)
        yield path, words
    yield tmp_path / "away.fit", "cannot be read: No such file"
    yield tmp_path, "not a regular file"


def test_files_that_are_no_frames_are_left_out_with_words(tmp_path, scratch, biases):
    bad = list(damaged(tmp_path))
    paths = [bad[0][0], biases[0], *[path for path, _ in bad[1:]], *biases[1:]]
    with FrameStack(paths, scratch) as stack:
        assert len(stack) == 4
        assert sorted(stack.unreadable) == [0, *range(2, 1 + len(bad))]
        for (_, words), said in zip(bad, stack.unreadable.values(), strict=True):
            assert words in said
        np.testing.assert_array_equal(stack.frame(3), counts(3))


def test_a_frame_of_another_shape_is_left_out(tmp_path, scratch, biases):
    odd = write(tmp_path / "odd.fit", np.zeros((10, 20), np.uint16))
    with FrameStack([biases[0], odd, biases[1]], scratch) as stack:
        assert stack.unreadable == {1: "20x10, the first frame is 56x40"}
        assert len(stack) == 2


def test_a_file_that_is_cut_while_it_is_read_raises_and_names_it(scratch, biases):
    with FrameStack(biases, scratch) as stack:
        os.truncate(biases[2], 2880 + 500)
        with pytest.raises(UnreadableFrame, match=r"2\.fit: cut short while it was read: 500 of"):
            combine(stack)
        with pytest.raises(UnreadableFrame, match=r"2\.fit"):
            list(stack.bands())


def test_nothing_is_left_on_the_disk_or_open_after_an_error(tmp_path, scratch, biases):
    packed = write(tmp_path / "4.fit.gz", counts(4))
    open_before = open_files()
    with pytest.raises(ZeroDivisionError), FrameStack([*biases, packed], scratch):
        raise ZeroDivisionError
    assert not scratch.exists()
    assert open_files() == open_before


# --------------------------------------------------------------------------------- many and large


def open_files():
    descriptors = Path("/proc/self/fd")
    if not descriptors.exists():
        pytest.skip("no /proc to count open files in")
    return len(list(descriptors.iterdir()))


def test_hundreds_of_frames_do_not_use_up_the_files_a_process_may_open(
    biases, scratch, monkeypatch
):
    monkeypatch.setattr(stacks, "MAX_OPEN_FILES", 2)
    before = open_files()
    with FrameStack(biases, scratch) as stack:
        assert open_files() == before + 2
        np.testing.assert_array_equal([stack.frame(i) for i in range(4)], [*map(counts, range(4))])
        combined, _ = combine(stack)
    monkeypatch.undo()
    with FrameStack(biases, scratch) as stack:
        np.testing.assert_array_equal(combine(stack)[0], combined)
    assert open_files() == before


def test_bands_and_strips_bound_what_is_held_of_many_frames(biases, scratch, monkeypatch):
    monkeypatch.setattr(stacks, "BAND_BYTES", 2**14)
    with FrameStack(biases * 20, scratch) as stack:
        assert max(8 * band.size for _, band in stack.bands()) <= max(2**14, 8 * NX * 80)


# ------------------------------------------------------------------------------------------ window


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize(
    "window",
    [
        (slice(None), slice(50, None)),
        (slice(2, 38), slice(None)),
        (slice(4, 5), slice(0, 1)),
        (slice(0, 40), slice(3, 53)),
    ],
)
def test_a_window_makes_every_frame_that_part_of_itself(
    tmp_path, scratch, packing, window, monkeypatch
):
    monkeypatch.setattr(stacks, "STRIP_BYTES", 5 * NX * 2)
    paths = [write(tmp_path / f"{i}.{packing}", counts(i)) for i in range(3)]
    expected = np.array([counts(i) for i in range(3)])[:, *window]
    with FrameStack(paths, scratch, window=window) as stack:
        assert stack.shape == expected.shape[1:]
        np.testing.assert_array_equal(stack.frame(1), expected[1])
        np.testing.assert_array_equal(np.concatenate([b for _, b in stack.bands()], 1), expected)
        np.testing.assert_array_equal(combine(stack, clip_sigma=1e9)[0], np.median(expected, 0))


@pytest.mark.parametrize(
    "window", [(slice(0, 41), slice(None)), (slice(5, 5), slice(None)), (slice(-3, None), slice(9))]
)
def test_a_window_that_a_frame_does_not_have_leaves_it_out(biases, scratch, window):
    with FrameStack(biases[:1], scratch, window=window) as stack:
        assert len(stack) == 0
        assert stack.unreadable[0].startswith("56x40 has no window [")
