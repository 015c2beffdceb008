"""FITS files in and out: pixels, headers, hashes, and writing that never leaves half a file.

Reading takes a plain file, a ``.gz``, or an ``fpack`` file, with the image in the first unit that
holds one; everything that is wrong with a file ends as `UnreadableFrame` with words. What the cards
mean is in `headers`; where files lie is in `layout`.
"""

import gzip
import hashlib
import io
import math
import os
import re
import secrets
import shutil
import stat
import threading
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from astropy.io import fits
from astropy.io.fits.verify import VerifyError
from numpy.typing import NDArray

from wombat_dagster.store import headers
from wombat_dagster.store.disks import disk_full, is_no_room

Image = NDArray[Any]
MaskImage = NDArray[np.uint8]
Cards = tuple[str, ...]  # as they stand in a file: each 80 characters, or more when continued
CardContent = str | float | int | bool | tuple[str | float | int | bool, str]

BLOCK = 2880  # FITS counts in blocks...
CARD = 80  # ...of so many characters a card
END_CARD = b"END".ljust(CARD)
PAGE = 4096  # bytes, of the system's cache of files
BAND_ROWS = 64  # of an image turned into FITS's byte order at a time: they stay in the cache
COPY_BYTES = 2**20  # quicker than copy_file_range and sendfile
SUM_TO_COME = "##########"  # as long as the longest checksum, which is known after the data
MAX_UNPACKED_BYTES = 2**30  # of a gzipped frame: no camera's are so large
MASK_EXTENSION = "MASK"
HASH_CARD = "WOMBHASH"  # marks a file as ours; the `array_hash` of its image
PIXEL_TYPES = {8: ">u1", 16: ">i2", 32: ">i4", 64: ">i8", -32: ">f4", -64: ">f8"}

# Cards that describe how the old file was stored, not what was observed.
STRUCTURE_CARD = re.compile(
    r"^(SIMPLE|XTENSION|BITPIX|NAXIS\d*|EXTEND|PCOUNT|GCOUNT|GROUPS|BSCALE|BZERO|BLANK|EXTNAME|EXTVER"
    r"|INHERIT|CHECKSUM|DATASUM|Z(IMAGE|TENSION|BITPIX|NAXIS\d*|PCOUNT|GCOUNT|TILE\d+|CMPTYPE"
    r"|NAME\d+|VAL\d+|QUANTIZ|DITHER\d|SIMPLE|EXTEND|BLOCKED|HECKSUM|DATASUM|SCALE|ZERO|BLANK)"
    r"|TFIELDS|TTYPE\d+|TFORM\d+|THEAP|END|WOMBHASH|)$"
)
# Every card of a world coordinate system, of whatever program and generation, with the distortions
# (SIP, PV, TNX, DSS plate), so that nothing of an old solution bends a new one.
WCS_CARD = re.compile(
    r"^(WCSAXES|WCSNAME|CTYPE\d|CUNIT\d|CRPIX\d|CRVAL\d|CDELT\d|CROTA\d|CRDER\d|CSYER\d|CNAME\d"
    r"|CD\d_\d|PC\d_\d|PV\d_\d+|PS\d_\d+|LONPOLE|LATPOLE|RADESYS|EQUINOX)[A-Z]?$"
    r"|^(CD\d{6}|PC\d{6}|RADECSYS|PLTSOLVD|WAT\d_\d{3}|PROJP\d+|(AMD|PPO|PLTRA|PLTDEC)[XYHMS]?\d*"
    r"|[AB]P?_(ORDER|DMAX|\d_\d)|(CPDIS|CPERR|CQDIS|DP|DQ|D2IM\w*)\d*(\..*)?)$"
)


_warning_filters = threading.RLock()  # they belong to the process


@contextmanager
def _quiet() -> Iterator[None]:
    """Say nothing of the oddities of other people's headers; one thread at a time."""
    with _warning_filters, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class UnreadableFrame(Exception):
    """A file holds no usable 2-D image; `reason` says why, in words for the person."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


# ------------------------------------------------------------------------------------ reading FITS


@dataclass(frozen=True, slots=True, kw_only=True)
class _Unit:
    """One header-and-data unit in a stream: its header, and where its data lie."""

    header: fits.Header
    offset: int
    n_bytes: int

    @property
    def is_compressed_image(self) -> bool:
        return headers.card_value(self.header, "ZIMAGE") is True

    @property
    def is_image(self) -> bool:
        """True for a primary array or an IMAGE extension that has axes."""
        kind = headers.text(self.header, "XTENSION") or "IMAGE"
        return kind == "IMAGE" and len(_axes(self.header)) > 0

    @property
    def name(self) -> str:
        return (headers.text(self.header, "EXTNAME") or "").upper()


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Open a file, through gunzip when it is gzipped; failures of the disk become words."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a FIFO would wait for ever
            raise UnreadableFrame("not a regular file")
        with path.open("rb") as plain:
            magic = plain.read(2)
            plain.seek(0)
            if not magic:
                raise UnreadableFrame("empty file (0 bytes)")
            if magic == b"\x1f\x8b":
                with gzip.GzipFile(fileobj=plain) as packed:
                    content = packed.read(MAX_UNPACKED_BYTES + 1)
                if len(content) > MAX_UNPACKED_BYTES:
                    raise UnreadableFrame(f"unpacks to more than {MAX_UNPACKED_BYTES} bytes")
                yield io.BytesIO(content)
            else:
                yield plain
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UnreadableFrame(f"gzip file damaged or cut: {error}") from error
    except OSError as error:
        raise UnreadableFrame(f"cannot be read: {error.strerror or error}") from error


def _units(stream: BinaryIO) -> Iterator[_Unit]:
    """Yield the units of a FITS stream, without reading their data."""
    start = stream.read(30)
    if not start.startswith(b"SIMPLE"):
        raise UnreadableFrame(f"not a FITS file: it begins with {start[:16]!r}")
    stream.seek(0)
    while (header := _read_header_block(stream)) is not None:
        unit = _Unit(header=header, offset=stream.tell(), n_bytes=_data_bytes(header))
        yield unit
        stream.seek(unit.offset + -(-unit.n_bytes // BLOCK) * BLOCK)


def _read_header_block(stream: BinaryIO) -> fits.Header | None:
    """Return the header that begins here, None at the end of the file or in trailing rubbish."""
    begin = stream.tell()
    try:
        with _quiet():  # odd characters in comments, missing padding
            if (text := _flawless_block(stream)) is not None:
                return fits.Header.fromstring(text)
            stream.seek(begin)
            return fits.Header.fromfile(stream)
    except EOFError:
        return None
    except (OSError, ValueError) as error:
        if begin > 0:
            return None
        raise UnreadableFrame(f"header damaged or cut: {error}") from error


def _flawless_block(stream: BinaryIO) -> str | None:
    """Return the text of a header block without any oddity: astropy takes it twice as quickly."""
    content = b""
    while len(block := stream.read(BLOCK)) == BLOCK and block.isascii():
        content += block
        if (end := block.find(END_CARD)) >= 0:
            is_last = end % CARD == 0 and not block[end + CARD :].strip(b" ")
            return content.decode("ascii") if is_last else None
    return None


def _data_bytes(header: fits.Header) -> int:
    """Return the size of a unit's data, FITS standard 4.0 equation 2; 0 when it says nonsense."""
    axes = _axes(header)
    if not axes:
        return 0
    n_elements = math.prod(axes)
    groups = int(headers.number(header, "GCOUNT") or 1)
    parameters = int(headers.number(header, "PCOUNT") or 0)
    bits = abs(int(headers.number(header, "BITPIX") or 0))
    return max(0, bits // 8 * groups * (parameters + n_elements))


def _axes(header: fits.Header) -> tuple[int, ...]:
    """Return NAXIS1, NAXIS2, … as stored; FITS allows 999 of them."""
    n_axes = min(999, int(headers.number(header, "NAXIS") or 0))
    return tuple(int(headers.number(header, f"NAXIS{i + 1}") or 0) for i in range(n_axes))


def read_image(path: Path) -> tuple[Image, fits.Header]:
    """Return the image of a FITS file in its native type, and its header.

    The image is the first 2-D one of the file, shape (height, width): unsigned and signed integers
    stay what they are, BSCALE and BZERO of any other kind give float32 (float64 from 32 bits on),
    BLANK becomes NaN. When the image is in an extension, the header has the primary one's cards
    too. Read-only, native byte order.

    Raises
    ------
    UnreadableFrame
        No file, not FITS, cut short, damaged, or no single 2-D image in it.
    """
    with _opened(path) as stream:
        return _image_of(stream, _first_image)


def read_image_and_cards(path: Path) -> tuple[Image, Cards]:
    """Return what `read_image` does, and `carried_cards` of the header: much quicker to be had.

    Raises `UnreadableFrame`.
    """
    with _opened(path) as stream:
        primary, unit = _first_image(stream)
        pixels, header = _pixels_of(stream, unit)
        return pixels, _cards_of(stream, header, primary, unit)


@contextmanager
def opened_image(path: Path) -> Iterator[tuple["Image | StoredRows", Cards]]:
    """Give what `read_image_and_cards` returns, or rows that are read when they are asked for.

    Raises `UnreadableFrame`, also when rows are asked for.
    """
    with _opened(path) as stream:
        primary, unit = _first_image(stream)
        pixels, header, rows = None, unit.header, None
        if isinstance(stream, io.BytesIO) or unit.is_compressed_image:
            pixels, header = _pixels_of(stream, unit)
        else:
            rows = StoredRows(io.FileIO(os.dup(stream.fileno())), unit)
        cards = _cards_of(stream, header, primary, unit)
    if rows is None:
        assert pixels is not None
        yield pixels, cards
        return
    with rows.stream:
        yield rows, cards


def _cards_of(stream: BinaryIO, header: fits.Header, primary: fits.Header, unit: _Unit) -> Cards:
    if header is not primary:
        return carried_cards(_with_primary(header, primary))
    with _quiet():  # a comment shortened to fit its card
        cards = _stored_cards(stream, unit)
        return tuple(text for card in cards if (text := _carried_text(card)))


def read_header(path: Path) -> fits.Header:
    """Return the header of the file's image as `read_image` does, without reading the pixels.

    The image's width and height stand in NAXIS1 and NAXIS2. Raises `UnreadableFrame`.
    """
    with _opened(path) as stream:
        primary, unit = _first_image(stream)
        header = unit.header
        if unit.is_compressed_image:
            with _astropy_opened(stream) as hdus:
                header = hdus[_index_of(stream, unit)].header.copy()
        image_size(header)
        return _with_primary(header, primary)


def _image_of(
    stream: BinaryIO, find: Callable[[BinaryIO], tuple[fits.Header, _Unit]]
) -> tuple[Image, fits.Header]:
    primary, unit = find(stream)
    pixels, header = _pixels_of(stream, unit)
    return pixels, _with_primary(header, primary)


def _pixels_of(stream: BinaryIO, unit: _Unit) -> tuple[Image, fits.Header]:
    if unit.is_compressed_image:
        _check_complete(stream, unit)
        return _decompressed(stream, unit)
    return StoredRows(stream, unit).all(), unit.header


def _stored_cards(stream: BinaryIO, unit: _Unit) -> Cards:
    """Return the cards of the first unit as they stand in the file, long ones in one piece."""
    stream.seek(0)
    text = stream.read(unit.offset).decode("ascii", errors="replace").replace("\ufffd", "?")
    cards: list[str] = []
    for begin in range(0, len(text), CARD):
        card = text[begin : begin + CARD]
        keyword = _keyword(card)
        if keyword == "END":
            break
        if keyword == "CONTINUE" and cards:
            cards[-1] += card
        else:
            cards.append(card)
    return tuple(cards)


def _first_image(stream: BinaryIO) -> tuple[fits.Header, _Unit]:
    """Return the primary header and the first unit with an image in it."""
    primary: fits.Header | None = None
    for unit in _units(stream):
        primary = unit.header if primary is None else primary
        if unit.is_image or unit.is_compressed_image:
            return primary, unit
    raise UnreadableFrame("no image in the file")


def image_size(header: fits.Header) -> tuple[int, int]:
    """Return (width, height); an image of more axes passes when these are all 1 long."""
    axes = _axes(header)
    words = "x".join(str(n) for n in axes)
    if len(axes) < 2:
        raise UnreadableFrame(f"{len(axes)}-dimensional ({words}), an image is wanted")
    if any(n != 1 for n in axes[2:]):
        raise UnreadableFrame(f"cube of {words}, a single image is wanted")
    if axes[0] < 1 or axes[1] < 1:
        raise UnreadableFrame(f"no pixels: {words}")
    return axes[0], axes[1]


def _check_complete(stream: BinaryIO | io.FileIO, unit: _Unit) -> None:
    size = stream.seek(0, os.SEEK_END)
    there = max(0, min(unit.n_bytes, size - unit.offset))
    if there < unit.n_bytes:
        raise UnreadableFrame(f"truncated: {there} of {unit.n_bytes} bytes of data")


class StoredRows:
    """The pixels of an uncompressed unit; rows are read when they are asked for.

    Closing the stream is for others.
    """

    def __init__(self, stream: BinaryIO | io.FileIO, unit: _Unit) -> None:
        header = unit.header
        self.shape = image_size(header)[::-1]
        bits = int(headers.number(header, "BITPIX") or 0)
        if bits not in PIXEL_TYPES:
            raise UnreadableFrame(f"BITPIX {bits} is no FITS pixel type")
        _check_complete(stream, unit)
        self.stream, self._offset, self._n_bytes = stream, unit.offset, unit.n_bytes
        scale = headers.number(header, "BSCALE")
        self._physical = partial(
            _physical,
            scale=1.0 if scale is None else scale,
            zero=headers.number(header, "BZERO") or 0.0,
            blank=headers.number(header, "BLANK") if bits > 0 else None,
        )
        self._stored = np.empty((0, self.shape[1]), PIXEL_TYPES[bits])
        self._native = self._stored.astype(self._stored.dtype.newbyteorder("="))
        self.dtype = self._physical(self._native).dtype

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> Image:
        """Return rows, which the next ones overwrite."""
        n_rows = len(range(*rows.indices(len(self))))
        if len(self._native) < n_rows:
            self._native = np.empty((n_rows, self.shape[1]), self._native.dtype)
        return self._read(rows, self._native[:n_rows])

    def all(self) -> Image:
        """Return all rows in an array of their own, read-only."""
        pixels = np.empty(self.shape, self.dtype)
        is_as_wide = self.dtype.kind in "iu" and self.dtype.itemsize == self._native.itemsize
        for start in range(0, len(self), BAND_ROWS):  # a band stays in the cache
            rows = slice(start, min(start + BAND_ROWS, len(self)))
            if is_as_wide:
                self._read(rows, pixels[rows].view(self._native.dtype))
            else:
                pixels[rows] = self[rows]
        pixels.flags.writeable = False
        return pixels

    def _read(self, rows: slice, native: Image) -> Image:
        """Return rows as physical values, in `native` where they are of its width."""
        if len(self._stored) < len(native):
            self._stored = np.empty(native.shape, self._stored.dtype)
        stored = self._stored[: len(native)]
        begin = self._offset + rows.start * stored.shape[1] * stored.itemsize
        try:
            self.stream.seek(begin)
            n_bytes = self.stream.readinto(stored.data.cast("B"))  # type: ignore[union-attr]
        except OSError as error:
            raise UnreadableFrame(f"cannot be read: {error.strerror or error}") from error
        if n_bytes != stored.nbytes:  # cut while it was read
            there = begin - self._offset + (n_bytes or 0)
            raise UnreadableFrame(f"truncated: {there} of {self._n_bytes} bytes of data")
        np.copyto(native, stored)
        return self._physical(native)


def _physical(native: Image, *, scale: float, zero: float, blank: float | None) -> Image:
    """Return stored values as physical ones; may write into `native`."""
    if scale == 1.0 and zero == 0.0 and blank is None:
        return native
    if scale == 1.0 and native.dtype.kind == "i" and blank is None:
        unsigned = np.dtype(f"u{native.dtype.itemsize}")
        if zero == 2.0 ** (8 * native.dtype.itemsize - 1):  # FITS's way to say unsigned
            counts = native.view(unsigned)
            return np.bitwise_xor(counts, unsigned.type(zero), out=counts)
    physical = native.astype(np.float64) * scale + zero
    if blank is not None:
        physical[native == int(blank)] = np.nan
    is_short = native.dtype.itemsize < 4 or native.dtype == np.float32
    with np.errstate(over="ignore"):  # an absurd BSCALE gives infinities: no numbers, seen later
        return physical.astype(np.float32) if is_short else physical


@contextmanager
def _astropy_opened(stream: BinaryIO) -> Iterator[fits.HDUList]:
    stream.seek(0)
    with _quiet():
        try:
            with fits.open(stream, memmap=False, lazy_load_hdus=True) as hdus:
                yield hdus
        except UnreadableFrame:
            raise
        # On a damaged file the decoder raises whatever it stumbles over, private classes too.
        except Exception as error:
            raise UnreadableFrame(f"compressed image damaged: {error}") from error


def _index_of(stream: BinaryIO, wanted: _Unit) -> int:
    stream.seek(0)
    return next(i for i, unit in enumerate(_units(stream)) if unit.offset == wanted.offset)


def _decompressed(stream: BinaryIO, unit: _Unit) -> tuple[Image, fits.Header]:
    """Return pixels and restored header of a tile-compressed image (fpack)."""
    index = _index_of(stream, unit)
    with _astropy_opened(stream) as hdus:
        header = hdus[index].header.copy()
        width, height = image_size(header)
        pixels = np.asarray(hdus[index].data).reshape(height, width)
    pixels = pixels.astype(pixels.dtype.newbyteorder("="), copy=False)
    pixels.flags.writeable = False
    return pixels, header


def _with_primary(header: fits.Header, primary: fits.Header) -> fits.Header:
    """Return an extension's header with the cards that only the primary header has."""
    if header is primary:
        return header
    merged = header.copy()
    for card in primary.cards:
        keyword = card.keyword
        if keyword in {"COMMENT", "HISTORY", ""} or STRUCTURE_CARD.match(keyword):
            continue
        if keyword not in merged:
            merged.append(card, end=True)
    return merged


def array_hash(pixels: Image) -> str:
    """Return the SHA-256 of an array's shape, type and values, whatever its byte order."""
    little = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("<"))
    digest = hashlib.sha256(f"{pixels.shape}{little.dtype.str}".encode())
    digest.update(little.data.cast("B"))
    return digest.hexdigest()


def pixel_hash(path: Path) -> str:
    """Return the hash of a file's decoded pixels: equal for a frame packed, gzipped or plain."""
    return array_hash(read_image(path)[0])


# ---------------------------------------------------------------------------------------- writing


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Write to a hidden file beside `path`, then put it in place in one step.

    A killed program leaves the old file or the new one, never half of one; hidden files are never
    scanned. Nothing waits for the disk: after a power cut the file may be empty or damaged, so this
    is for what can be made again and shows its damage when read. Raises `DiskFull` for a disk
    without room.
    """
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as handle:
                yield handle
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        if is_no_room(error):
            raise disk_full(path) from None
        raise


@contextmanager
def _atomic(path: Path) -> Iterator[BinaryIO]:
    """Do as `replacing`, on the disk before it returns: holds through a power cut as well."""
    with replacing(path) as handle:
        yield handle
        handle.flush()
        os.fsync(handle.fileno())
    _sync_directory(path.parent)


def _sync_directory(directory: Path) -> None:
    """Make a rename durable; Windows cannot open directories and does not need it."""
    if os.name == "nt":
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes_atomic(path: Path, content: bytes) -> None:
    """Write `content` so that `path` holds the old bytes or the new ones, never a part."""
    with _atomic(path) as handle:
        handle.write(content)


def write_fits_atomic(path: Path, hdus: fits.HDUList) -> None:
    """Write a FITS file so that `path` holds the old file or the new one, never a part."""
    with _atomic(path) as handle, _quiet():  # a comment shortened to fit its card
        hdus.writeto(handle, output_verify="silentfix+ignore")


def carried_header(raw: fits.Header) -> fits.Header:
    """Return a header of the `carried_cards` of an observation."""
    return fits.Header.fromstring("".join(carried_cards(raw)))


def carried_cards(raw: fits.Header) -> Cards:
    """Return the observation's cards that can be written again.

    What described the old file's storage (BZERO, compression, checksums) is left out, a string
    without quotes gets them, and a card that cannot be read or written is dropped.
    """
    with _quiet():  # a comment shortened to fit its card
        return tuple(text for card in raw.cards if (text := _carried(card)))


def _carried(card: fits.Card) -> str:
    """Return a card as it is written again, nothing when it is not. To be called in `_quiet`."""
    keyword = card.keyword
    if STRUCTURE_CARD.match(keyword):
        return ""
    value: Any = None
    if keyword in {"COMMENT", "HISTORY"}:
        value, comment = str(card.value), ""
    elif _is_readable(card):
        value, comment = card.value, str(card.comment)
    else:
        value, comment = headers.card_value(fits.Header([card]), keyword), str(card.comment)
    try:
        return _card(keyword, value, comment)
    except (VerifyError, ValueError, TypeError):
        return ""  # NaN, control characters and the like


@lru_cache(maxsize=4096)  # most cards are the same in every frame of a night
def _carried_text(card: str) -> str:
    return _carried(fits.Card.fromstring(card))


@lru_cache(maxsize=4096, typed=True)
def _card(keyword: str, value: Any, comment: str = "") -> str:
    """Return a card as it stands in a file. To be called in `_quiet`."""
    return str(fits.Card(keyword, value, comment))


def _keyword(card: str) -> str:
    return card[:8].rstrip()


def _is_readable(card: fits.Card) -> bool:
    try:
        _ = card.value
    except VerifyError:
        return False
    return True


def card_text(text: str) -> str:
    """Return `text` as a FITS card can hold it: what is not printable ASCII stands escaped."""
    return "".join(c if " " <= c <= "~" else c.encode("unicode_escape").decode() for c in text)


def without_wcs(cards: Cards) -> Cards:
    """Return `cards` without any of a world coordinate system."""
    return tuple(card for card in cards if not _is_of_wcs(_keyword(card)))


@lru_cache(maxsize=4096)
def _is_of_wcs(keyword: str) -> bool:
    return WCS_CARD.match(keyword) is not None


def with_cards(cards: Cards, made: Mapping[str, CardContent]) -> Cards:
    """Return `cards` with those `made`: a value, or (value, comment), by keyword.

    They take the place of any of the same name. Raises ValueError when one cannot be written.
    """
    with _quiet():  # a comment shortened to fit its card
        new = [_card(key, *(c if isinstance(c, tuple) else (c,))) for key, c in made.items()]
    return (*(card for card in cards if _keyword(card) not in made), *new)


def write_reduced(path: Path, image: Image, mask: MaskImage, header: fits.Header) -> None:
    """Write a reduced frame: float32 image with the cards of `header`, and the extension MASK.

    `image` and `mask` have shape (height, width); the mask's bits are `domain.MaskBit`. Cards are
    carried over as `carried_cards` says, an old WCS among them: see `without_wcs`. The disk is not
    waited for: `read_reduced` notices damage by the checksums, and the frame can be made again.
    """
    _check_shapes(image, mask)
    write_reduced_bands(path, in_bands(image), mask, carried_cards(header))


def in_bands(image: Image) -> Iterator[Image]:
    """Yield some rows at a time."""
    for start in range(0, len(image), BAND_ROWS):
        yield image[start : start + BAND_ROWS]


def write_reduced_bands(path: Path, bands: Iterable[Image], mask: MaskImage, cards: Cards) -> None:
    """Do as `write_reduced` with rows of the image as they come: it is never whole.

    There may be any number of rows in a band, and the same array in each. The mask is looked at
    after the last of them. The cards are written as they are; those of the storage must not be
    among them, see `carried_cards`.
    """
    height, width = mask.shape
    axes = (("NAXIS", 2), ("NAXIS1", width), ("NAXIS2", height))
    checksum = ("DATASUM", SUM_TO_COME, "data unit checksum")
    primary = (
        ("SIMPLE", True, "conforms to FITS standard"),
        ("BITPIX", -32),
        *axes,
        ("EXTEND", True),
        checksum,
    )
    extension = (
        ("XTENSION", "IMAGE", "image extension"),
        ("BITPIX", 8),
        *axes,
        ("PCOUNT", 0),
        ("GCOUNT", 1),
        ("EXTNAME", MASK_EXTENSION),
        checksum,
    )
    head = _header_bytes([*(_card(*content) for content in primary), *cards])
    mask_head = _header_bytes([_card(*content) for content in extension])
    data_bytes = sum(-(-n // BLOCK) * BLOCK for n in (4 * mask.size, mask.size))
    total = 0
    with replacing(path) as handle:
        _reserve(handle, len(head) + data_bytes + len(mask_head))
        pages = _Pages(handle, head)
        for band in bands:
            rows = band.astype(np.float32, copy=False)
            total += _word_sum(rows)
            pages.add(rows, ">f4")
        pages.end()
        handle.write(_with_sum(mask_head, _datasum(mask)))
        handle.write(np.ascontiguousarray(mask, np.uint8).data.cast("B"))
        handle.write(bytes(-mask.nbytes % BLOCK))
        handle.seek(0)
        handle.write(_with_sum(head, _folded(total)))


def _reserve(handle: BinaryIO, n_bytes: int) -> None:
    """Have the disk give the room for a file at once: it costs less than block by block.

    Where a file system cannot, the C library writes a byte into every block instead: milliseconds.
    """
    with suppress(AttributeError, OSError):  # not everywhere; a full disk is told by the writing
        os.posix_fallocate(handle.fileno(), 0, n_bytes)


class _Pages:
    """A header and its data on their way into a file, in whole pages of the system's cache.

    FITS's blocks end anywhere in a page, and one that is written half and half costs it twice.
    """

    def __init__(self, handle: BinaryIO, head: bytes) -> None:
        self._handle = handle
        self._buffer = np.frombuffer(bytearray(head), np.uint8)
        self._n_held, self._n_data = len(head), 0

    def add(self, pixels: Image, stored: str) -> None:
        """Write `pixels` as values of the type `stored`, but for the last part of a page."""
        begin, end = self._n_held, self._n_held + pixels.size * np.dtype(stored).itemsize
        if end > len(self._buffer):
            held, self._buffer = self._buffer[:begin], np.empty(end + PAGE, np.uint8)
            self._buffer[:begin] = held
        np.copyto(self._buffer[begin:end].view(stored).reshape(pixels.shape), pixels)
        n_whole = end // PAGE * PAGE
        self._handle.write(self._buffer[:n_whole].data)
        self._n_held, self._n_data = end - n_whole, self._n_data + end - begin
        self._buffer[: self._n_held] = self._buffer[n_whole:end].copy()

    def end(self) -> None:
        """Write the rest, and fill the last block."""
        self._handle.write(self._buffer[: self._n_held].data)
        self._handle.write(bytes(-self._n_data % BLOCK))


def _header_bytes(cards: Iterable[str]) -> bytes:
    text = f"{''.join(cards)}{'END':<{CARD}}".encode("ascii")
    return text + b" " * (-len(text) % BLOCK)


def _with_sum(header: bytes, checksum: int) -> bytes:
    return header.replace(SUM_TO_COME.encode(), f"{checksum:<{len(SUM_TO_COME)}}".encode(), 1)


def _datasum(pixels: Image) -> int:
    """Return FITS's checksum of float32 or byte pixels (standard 4.0, appendix J)."""
    if pixels.dtype == np.float32:
        bands = range(0, len(pixels), BAND_ROWS)
        return _folded(sum(_word_sum(pixels[start : start + BAND_ROWS]) for start in bands))
    stored = np.ravel(pixels)
    if stored.size % 4:
        stored = np.pad(stored, (0, -stored.size % 4))
    words = stored.view(np.uint32)
    marked = words[words != 0]  # hardly any
    return _folded(int(marked.byteswap().sum(dtype=np.uint64)))


def _word_sum(pixels: Image) -> int:
    """Return the sum of float32 pixels as the 32-bit numbers that their stored bytes spell.

    Pairs of words are added at a time: their upper words apart, and the lower ones are what is
    left of the sum of the pairs. That is exact, and takes half the time of a sum of words.
    """
    words = np.ravel(pixels).view(np.uint32)
    pairs = words[: len(words) // 2 * 2].view(np.uint64)
    upper = int((pairs >> np.uint64(32)).sum())
    lower = (int(pairs.sum()) - (upper << 32)) % 2**64
    return upper + lower + (int(words[-1]) if len(words) % 2 else 0)


def _folded(total: int) -> int:
    """Return a sum of 32-bit words in ones' complement."""
    while total >> 32:
        total = (total & 0xFFFFFFFF) + (total >> 32)
    return total


def _check_shapes(image: Image, mask: MaskImage | None) -> None:
    if image.ndim != 2 or (mask is not None and mask.shape != image.shape):
        shapes = f"image {image.shape}, mask {None if mask is None else mask.shape}"
        raise ValueError(f"one 2-D image with a mask of its shape is wanted: {shapes}")


def _image_and_mask(image: Image, mask: MaskImage | None, header: fits.Header) -> fits.HDUList:
    _check_shapes(image, mask)
    # A big-endian view: astropy would swap the bytes of a native array there and back again.
    hdus = fits.HDUList([fits.PrimaryHDU(image.astype(">f4", copy=False), header)])
    if mask is not None:
        hdus.append(fits.ImageHDU(mask.astype(np.uint8, copy=False), name=MASK_EXTENSION))
    return hdus


def read_reduced(path: Path) -> tuple[NDArray[np.float32], MaskImage, fits.Header]:
    """Return image, mask and header of a reduced frame.

    Raises
    ------
    UnreadableFrame
        No reduced frame, or one that its checksums say is damaged.
    """
    with _opened(path) as stream:
        units = list(_units(stream))
        if len(units) != 2 or units[1].name != MASK_EXTENSION:
            raise UnreadableFrame(f"no extension {MASK_EXTENSION}: not a reduced frame")
        image, mask = (_undamaged(stream, unit) for unit in units)
    if image.dtype != np.float32 or mask.dtype != np.uint8 or mask.shape != image.shape:
        words = f"image {image.dtype} {image.shape}, mask {mask.dtype} {mask.shape}"
        raise UnreadableFrame(f"not a reduced frame: {words}")
    return image, mask, units[0].header


def _undamaged(stream: BinaryIO, unit: _Unit) -> Image:
    """Return the pixels of a unit that `write_reduced` wrote."""
    pixels = StoredRows(stream, unit).all()
    wanted = headers.text(unit.header, "DATASUM")
    if wanted is not None and wanted != str(_datasum(pixels)):
        raise UnreadableFrame(f"damaged: checksum {_datasum(pixels)}, {wanted} wanted")
    return pixels


def write_master(path: Path, image: Image, header: fits.Header, mask: MaskImage | None) -> str:
    """Write a master frame and return its content hash, which also stands in its header.

    The card WOMBHASH marks the master as ours: see `provenance_hash`.
    """
    stored = image.astype(np.float32, copy=False)
    content_hash = array_hash(stored)
    cards = carried_header(header)
    cards[HASH_CARD] = (content_hash, "SHA-256 of the pixels")
    write_fits_atomic(path, _image_and_mask(stored, mask, cards))
    return content_hash


def read_master(path: Path) -> tuple[NDArray[np.float32], MaskImage | None, fits.Header]:
    """Return image (float32), mask if there is one, and header of a master, ours or a person's.

    A master without a mask of its own has NaN where it knows nothing. Raises `UnreadableFrame`.
    """
    with _opened(path) as stream:
        image, header = _image_of(stream, _first_image)
        mask = _mask_of(stream)
    if mask is not None and mask.shape != image.shape:
        raise UnreadableFrame(f"mask {mask.shape} is not of the image's shape {image.shape}")
    return image.astype(np.float32, copy=False), mask, header


def _mask_of(stream: BinaryIO) -> MaskImage | None:
    stream.seek(0)
    for unit in _units(stream):
        if unit.name == MASK_EXTENSION and unit.is_image:
            return StoredRows(stream, unit).all().astype(np.uint8)
    return None


def provenance_hash(path: Path) -> str | None:
    """Return the content hash that a master of ours carries; None for somebody else's.

    That the pixels still have it is not checked here: `array_hash` of the image does.
    """
    return headers.text(read_header(path), HASH_CARD)


def replace_wcs(path: Path, cards: Mapping[str, CardContent]) -> None:
    """Put a plate solution into a reduced frame's primary header, every older one taken out.

    `cards` map keywords to values or (value, comment). The data are copied byte for byte, so
    pixels, mask and checksums stay identical. Raises `UnreadableFrame` when the file is not whole.
    """
    with _opened(path) as stream:
        unit = next(_units(stream))
        _check_complete(stream, unit)
        solved = with_cards(without_wcs(_stored_cards(stream, unit)), cards)
    with replacing(path) as handle, path.open("rb") as old:
        old.seek(unit.offset)
        head = _header_bytes(solved)
        handle.write(head + old.read(-len(head) % PAGE))  # whole pages from here on
        shutil.copyfileobj(old, handle, COPY_BYTES)
