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
import stat
import sys
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from astropy.io import fits
from astropy.io.fits.verify import VerifyError
from numpy.typing import NDArray

from wombat_dagster.store import headers

Image = NDArray[Any]
MaskImage = NDArray[np.uint8]

BLOCK = 2880  # FITS counts in blocks
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
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # odd characters in comments, missing padding
            return fits.Header.fromfile(stream)
    except EOFError:
        return None
    except (OSError, ValueError) as error:
        if begin > 0:
            return None
        raise UnreadableFrame(f"header damaged or cut: {error}") from error


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
    if unit.is_compressed_image:
        _check_complete(stream, unit)
        pixels, header = _decompressed(stream, unit)
    else:
        header = unit.header
        shape = image_size(header)[::-1]
        pixels = _decoded(stream, unit, shape)
    return pixels, _with_primary(header, primary)


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


def _check_complete(stream: BinaryIO, unit: _Unit) -> None:
    size = stream.seek(0, os.SEEK_END)
    there = max(0, min(unit.n_bytes, size - unit.offset))
    if there < unit.n_bytes:
        raise UnreadableFrame(f"truncated: {there} of {unit.n_bytes} bytes of data")


def _decoded(stream: BinaryIO, unit: _Unit, shape: tuple[int, int]) -> Image:
    """Return the pixels of an uncompressed unit."""
    bits = int(headers.number(unit.header, "BITPIX") or 0)
    if bits not in PIXEL_TYPES:
        raise UnreadableFrame(f"BITPIX {bits} is no FITS pixel type")
    _check_complete(stream, unit)
    stream.seek(unit.offset)
    stored = np.empty(shape, dtype=PIXEL_TYPES[bits])
    stream.readinto(stored.data.cast("B"))  # type: ignore[attr-defined]  # all streams here have it
    native = _native(stored)
    scale = headers.number(unit.header, "BSCALE")
    pixels = _physical(
        native,
        scale=1.0 if scale is None else scale,
        zero=headers.number(unit.header, "BZERO") or 0.0,
        blank=headers.number(unit.header, "BLANK") if bits > 0 else None,
    )
    pixels.flags.writeable = False
    return pixels


def _native(stored: Image) -> Image:
    """Return big-endian values in this machine's byte order, in the same memory."""
    if sys.byteorder == "little":
        stored = stored.byteswap(inplace=True)
    return stored.view(stored.dtype.newbyteorder("="))


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
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # oddities of other people's headers
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
def _atomic(path: Path) -> Iterator[BinaryIO]:
    """Write to a hidden file beside `path`, then put it in place in one step.

    A crash leaves the old file or the new one, never half of one. Hidden files are never scanned.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("wb") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
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
    with _atomic(path) as handle, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a comment shortened to fit its card
        hdus.writeto(handle, output_verify="silentfix+ignore")


def carried_header(raw: fits.Header) -> fits.Header:
    """Return a copy of the observation's cards that can be written again.

    What described the old file's storage (BZERO, compression, checksums) is left out, a string
    without quotes gets them, and a card that cannot be read or written is dropped.
    """
    carried = fits.Header()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a comment shortened to fit its card
        for card in raw.cards:
            copied = _carried_card(raw, card)
            if copied is not None:
                carried.append(copied, end=True)
    return carried


def _carried_card(raw: fits.Header, card: fits.Card) -> fits.Card | None:
    keyword = card.keyword
    if STRUCTURE_CARD.match(keyword):
        return None
    try:
        if keyword in {"COMMENT", "HISTORY"}:
            copied = fits.Card(keyword, str(card.value))
        else:
            value = card.value if _is_readable(card) else headers.card_value(raw, keyword)
            copied = fits.Card(keyword, value, str(card.comment))
        str(copied)  # formats the card: NaN, control characters and the like fail here
    except (VerifyError, ValueError, TypeError):
        return None
    return copied


def _is_readable(card: fits.Card) -> bool:
    try:
        _ = card.value
    except VerifyError:
        return False
    return True


def card_text(text: str) -> str:
    """Return `text` as a FITS card can hold it: what is not printable ASCII stands escaped."""
    return "".join(c if " " <= c <= "~" else c.encode("unicode_escape").decode() for c in text)


def without_wcs(header: fits.Header) -> fits.Header:
    """Return a copy of `header` without any card of a world coordinate system."""
    bare = header.copy()
    for keyword in {k for k in bare if WCS_CARD.match(k)}:
        bare.remove(keyword, remove_all=True)
    return bare


def write_reduced(path: Path, image: Image, mask: MaskImage, header: fits.Header) -> None:
    """Write a reduced frame: float32 image with the cards of `header`, and the extension MASK.

    `image` and `mask` have shape (height, width); the mask's bits are `domain.MaskBit`. Cards are
    carried over as `carried_header` says, an old WCS among them: see `without_wcs`.
    """
    write_fits_atomic(path, _image_and_mask(image, mask, carried_header(header)))


def _image_and_mask(image: Image, mask: MaskImage | None, header: fits.Header) -> fits.HDUList:
    if image.ndim != 2 or (mask is not None and mask.shape != image.shape):
        shapes = f"image {image.shape}, mask {None if mask is None else mask.shape}"
        raise ValueError(f"one 2-D image with a mask of its shape is wanted: {shapes}")
    # A big-endian view: astropy would swap the bytes of a native array there and back again.
    hdus = fits.HDUList([fits.PrimaryHDU(image.astype(">f4", copy=False), header)])
    if mask is not None:
        hdus.append(fits.ImageHDU(mask.astype(np.uint8, copy=False), name=MASK_EXTENSION))
    return hdus


def read_reduced(path: Path) -> tuple[NDArray[np.float32], MaskImage, fits.Header]:
    """Return image, mask and header of a reduced frame. Raises `UnreadableFrame`."""
    image, mask, header = read_master(path)
    if mask is None:
        raise UnreadableFrame(f"no extension {MASK_EXTENSION}: not a reduced frame")
    return image, mask, header


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
            return _decoded(stream, unit, image_size(unit.header)[::-1]).astype(np.uint8)
    return None


def provenance_hash(path: Path) -> str | None:
    """Return the content hash that a master of ours carries; None for somebody else's.

    That the pixels still have it is not checked here: `array_hash` of the image does.
    """
    return headers.text(read_header(path), HASH_CARD)


CardContent = str | float | int | bool | tuple[str | float | int | bool, str]


def replace_wcs(path: Path, cards: Mapping[str, CardContent]) -> None:
    """Put a plate solution into a reduced frame's primary header, every older one taken out.

    `cards` map keywords to values or (value, comment). The data are copied byte for byte, so
    pixels and mask stay identical. Raises `UnreadableFrame` when the file is not whole.
    """
    with _opened(path) as stream:
        unit = next(_units(stream))
        _check_complete(stream, unit)
        header = without_wcs(unit.header)
        for keyword, content in cards.items():
            header[keyword] = content
        stream.seek(unit.offset)
        data = stream.read()
    write_bytes_atomic(path, header.tostring().encode("ascii") + data)
