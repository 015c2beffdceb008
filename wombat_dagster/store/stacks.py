"""Frames of one shape read a few rows at a time: memory does not grow with their number."""

import contextlib
import io
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from wombat_dagster.store import frames, headers
from wombat_dagster.store.disks import is_no_room
from wombat_dagster.store.frames import UnreadableFrame

Image = NDArray[Any]
Window = tuple[slice, slice]

BAND_BYTES = 64 * 2**20  # of one band of the stack in float64: bounds the memory of a master
STRIP_BYTES = 2**20  # of whole rows of one frame, read at once
MAX_OPEN_FILES = 64  # a process on a Mac may have 256; further ones are opened for every read


@dataclass(frozen=True, slots=True, kw_only=True)
class _StoredPixels:
    """Where the pixels of a frame lie, uncompressed, and how they are stored there.

    Safe to read from several threads: a read moves no file position that another one uses.
    """

    path: Path
    descriptor: int | None
    offset: int
    shape: tuple[int, int]
    stored: np.dtype[Any]
    decode: Callable[[Image], Image]  # native byte order to physical, in its place if it can
    dtype: np.dtype[Any]  # of the physical values

    def read(self, rows: slice, columns: slice, out: Image, scratch: Image) -> None:
        """Put a rectangle of the frame into `out`, whatever its type; `scratch` has `strip_bytes`.

        Raises `UnreadableFrame`.
        """
        is_whole = columns.stop - columns.start == self.shape[1]
        n_rows = self._strip_rows(rows.stop - rows.start)
        for start in range(rows.start, rows.stop, n_rows):
            stop = min(start + n_rows, rows.stop)
            part = out[start - rows.start : stop - rows.start]
            if is_whole:
                self._read_rows(start, part, scratch)
            else:
                strip = np.empty((stop - start, self.shape[1]), self.dtype)
                self._read_rows(start, strip, scratch)
                part[:] = strip[:, columns]

    def strip_bytes(self, n_rows: int) -> int:
        """Return how many bytes are read at once of so many rows."""
        return self._strip_rows(n_rows) * self.shape[1] * self.stored.itemsize

    def _strip_rows(self, n_rows: int) -> int:
        return max(1, min(n_rows, STRIP_BYTES // (self.shape[1] * self.stored.itemsize)))

    def _read_rows(self, start: int, out: Image, scratch: Image) -> None:
        as_native = self.stored.newbyteorder("=")
        fits_in = out.dtype == self.dtype and out.dtype.itemsize == as_native.itemsize
        native = out.view(as_native) if fits_in else np.empty(out.shape, as_native)
        offset = self.offset + start * self.shape[1] * self.stored.itemsize
        if self.stored == as_native:
            self._fill(native, offset)
        else:  # turned on the way: numpy takes six times as long to do it in place
            stored = scratch[: out.size * self.stored.itemsize].view(self.stored)
            self._fill(stored, offset)
            native[:] = stored.reshape(out.shape)
        pixels = self.decode(native)
        if not np.may_share_memory(pixels, out):
            out[:] = pixels

    def _fill(self, stored: Image, offset: int) -> None:
        wanted = stored.data.cast("B")
        n_read = 0
        try:
            while n_read < len(wanted):
                n = self._read_at(wanted[n_read:], offset + n_read)
                if n == 0:
                    raise UnreadableFrame(
                        f"{self.path.name}: cut short while it was read: {n_read} of"
                        f" {len(wanted)} bytes at {offset}"
                    )
                n_read += n
        except OSError as error:
            reason = f"{self.path.name} cannot be read: {error.strerror or error}"
            raise UnreadableFrame(reason) from error

    def _read_at(self, wanted: memoryview, offset: int) -> int:
        if self.descriptor is not None:
            return os.preadv(self.descriptor, [wanted], offset)
        with self.path.open("rb", buffering=0) as file:
            file.seek(offset)
            return file.readinto(wanted) or 0


class FrameStack:
    """The images of `paths`, all of one shape; a context manager.

    Plain files are read where they lie. Compressed frames are decoded once, into scratch files of
    their native type, so that they cost no memory either. These lie in `scratch`, which should be
    a disk: on many systems /tmp is memory. `window` (rows, columns) makes every frame that part of
    itself. What cannot be read, is not of the first frame's shape, or does not reach as far as the
    window is left out: `unreadable` holds the reasons by the index in `paths`, and all other
    indices count the frames that are left.

    A file that is cut or taken away later, while its bands are read, raises `UnreadableFrame`.
    """

    def __init__(
        self, paths: Sequence[Path], scratch: Path, *, window: Window | None = None
    ) -> None:
        self._paths = paths
        self._scratch = scratch
        self._wanted_window = window
        self._window = (slice(0), slice(0))
        self.unreadable: dict[int, str] = {}
        self._stack = contextlib.ExitStack()
        self._frames: list[_StoredPixels] = []

    def __enter__(self) -> "FrameStack":
        with contextlib.ExitStack() as stack:
            self._scratch.mkdir(parents=True, exist_ok=True)
            stack.callback(self._remove_scratch)
            made = tempfile.TemporaryDirectory(prefix="wombat-", dir=self._scratch)
            scratch = Path(stack.enter_context(made))
            for number, path in enumerate(self._paths):
                descriptors = stack if number < MAX_OPEN_FILES else None
                try:
                    frame = _stored_pixels(path, scratch / f"{number}", descriptors)
                    self._frames.append(self._checked(frame))
                except (UnreadableFrame, OSError) as error:
                    if is_no_room(error):  # of the scratch disk: says nothing of the frame
                        raise
                    self.unreadable[number] = str(error)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._frames.clear()
        self._stack.close()

    def _remove_scratch(self) -> None:
        with contextlib.suppress(OSError):  # another stack is at work there
            self._scratch.rmdir()

    def _checked(self, frame: _StoredPixels) -> _StoredPixels:
        if self._frames and frame.shape != self._frames[0].shape:
            found, wanted = (f"{nx}x{ny}" for ny, nx in (frame.shape, self._frames[0].shape))
            raise UnreadableFrame(f"{found}, the first frame is {wanted}")
        if not self._frames:
            self._window = _window_of(frame.shape, self._wanted_window)
        return frame

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of every frame, of the window if there is one."""
        rows, columns = self._window
        return rows.stop - rows.start, columns.stop - columns.start

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type that holds the values of every frame."""
        return np.result_type(*(frame.dtype for frame in self._frames))

    def frame(self, index: int) -> Image:
        """Return one whole frame in its native type, read anew."""
        frame = self._frames[index]
        rows, columns = self._window
        image = np.empty(self.shape, frame.dtype)
        frame.read(rows, columns, image, np.empty(frame.strip_bytes(len(image)), np.uint8))
        return image

    def read(self, rows: slice, keep: Sequence[int], out: Image) -> None:
        """Put `rows` of the frames `keep` into `out`, shape (len(keep), rows, nx).

        Several threads may read at the same time. Raises `UnreadableFrame`.
        """
        all_rows, columns = self._window
        there = slice(all_rows.start + rows.start, all_rows.start + rows.stop)
        n_rows = rows.stop - rows.start
        chosen = [self._frames[index] for index in keep]
        n_bytes = max((frame.strip_bytes(n_rows) for frame in chosen), default=0)
        scratch = np.empty(n_bytes, np.uint8)  # fresh for every frame it would cost page faults
        for frame, band in zip(chosen, out, strict=True):
            frame.read(there, columns, band, scratch)

    def bands(self, *, keep: Sequence[int] | None = None) -> Iterator[tuple[slice, Image]]:
        """Yield rows as (slice, array of shape (n, rows, nx)); `keep` picks frames."""
        chosen = range(len(self)) if keep is None else keep
        ny, nx = self.shape
        dtype = np.result_type(*(self._frames[i].dtype for i in chosen))
        n_rows = max(1, BAND_BYTES // (8 * nx * len(chosen)))
        for start in range(0, ny, n_rows):
            rows = slice(start, min(start + n_rows, ny))
            band = np.empty((len(chosen), rows.stop - rows.start, nx), dtype)
            self.read(rows, chosen, band)
            yield rows, band


def _window_of(shape: tuple[int, int], window: Window | None) -> Window:
    """Return the window with both ends of its slices known. Raises `UnreadableFrame`."""
    ends = []
    for part, n in zip(window or (slice(None), slice(None)), shape, strict=True):
        start = 0 if part.start is None else part.start
        stop = n if part.stop is None else part.stop
        if not 0 <= start < stop <= n or part.step not in {None, 1}:
            raise UnreadableFrame(f"{shape[1]}x{shape[0]} has no window {_words(window)}")
        ends.append(slice(start, stop))
    rows, columns = ends
    return rows, columns


def _words(window: Window | None) -> str:
    parts = (slice(None), slice(None)) if window is None else window
    words = [":".join("" if end is None else str(end) for end in (p.start, p.stop)) for p in parts]
    return f"[{', '.join(words)}]"


def _stored_pixels(
    path: Path, scratch: Path, descriptors: contextlib.ExitStack | None
) -> _StoredPixels:
    """Return where a frame's pixels lie: in the file itself, or decoded in the new file `scratch`.

    Raises
    ------
    UnreadableFrame
        As `read_image` does, but without reading the pixels of a plain file.
    """
    with frames._opened(path) as stream:
        _, unit = frames._first_image(stream)
        is_unpacked = isinstance(stream, io.BytesIO)  # by gunzip, in memory
        if not is_unpacked and not unit.is_compressed_image:
            return _in_the_file(path, stream, unit, descriptors)
        stream.seek(0)
        image, _ = frames._image_of(stream, frames._first_image)
    image.tofile(scratch)
    ny, nx = image.shape
    return _StoredPixels(
        path=scratch,
        descriptor=_descriptor(scratch, descriptors),
        offset=0,
        shape=(ny, nx),
        stored=image.dtype,
        decode=_as_stored,
        dtype=image.dtype,
    )


def _in_the_file(
    path: Path,
    stream: BinaryIO,
    unit: frames._Unit,
    descriptors: contextlib.ExitStack | None,
) -> _StoredPixels:
    bits = int(headers.number(unit.header, "BITPIX") or 0)
    if bits not in frames.PIXEL_TYPES:
        raise UnreadableFrame(f"BITPIX {bits} is no FITS pixel type")
    nx, ny = frames.image_size(unit.header)
    frames._check_complete(stream, unit)
    stored = np.dtype(frames.PIXEL_TYPES[bits])
    scale = headers.number(unit.header, "BSCALE")
    zero = headers.number(unit.header, "BZERO")
    blank = headers.number(unit.header, "BLANK") if bits > 0 else None

    def decode(values: Image) -> Image:
        return frames._physical(
            values,
            scale=1.0 if scale is None else scale,
            zero=zero or 0.0,
            blank=blank,
        )

    return _StoredPixels(
        path=path,
        descriptor=_descriptor(path, descriptors),
        offset=unit.offset,
        shape=(ny, nx),
        stored=stored,
        decode=decode,
        dtype=decode(np.zeros(1, stored.newbyteorder("="))).dtype,
    )


def _as_stored(values: Image) -> Image:
    return values


def _descriptor(path: Path, descriptors: contextlib.ExitStack | None) -> int | None:
    """Return the open file, which `descriptors` closes; None when every read shall open it."""
    if descriptors is None or not hasattr(os, "preadv"):  # Windows
        return None
    descriptor = os.open(path, os.O_RDONLY)
    descriptors.callback(os.close, descriptor)
    return descriptor
