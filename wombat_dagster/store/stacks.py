"""Frames of one shape read a band of rows at a time: memory does not grow with their number."""

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wombat_dagster.store.frames import UnreadableFrame, read_image

BAND_BYTES = 64 * 2**20  # of one band of the stack in float64: bounds the memory of a master


class FrameStack:
    """The images of `paths`, all of one shape; a context manager.

    Each frame is decoded once, into a scratch file of its native type that the system pages in and
    out, so that compressed frames cost no memory either. The files lie in `scratch`, which should
    be a disk: on many systems /tmp is memory. What cannot be read is left out: `unreadable` holds
    the reasons by the index in `paths`.
    """

    def __init__(self, paths: Sequence[Path], scratch: Path) -> None:
        self._paths = paths
        self._scratch = scratch
        self.unreadable: dict[int, str] = {}
        self._stack = contextlib.ExitStack()
        self._frames: list[NDArray[Any]] = []

    def __enter__(self) -> "FrameStack":
        self._scratch.mkdir(parents=True, exist_ok=True)
        scratch = Path(
            self._stack.enter_context(
                tempfile.TemporaryDirectory(prefix="wombat-", dir=self._scratch)
            )
        )
        for number, path in enumerate(self._paths):
            try:
                image, _ = read_image(path)
            except (UnreadableFrame, OSError) as error:
                self.unreadable[number] = str(error)
                continue
            native = image.astype(image.dtype.newbyteorder("="), copy=False)
            frame = np.memmap(scratch / f"{number}", native.dtype, "w+", shape=native.shape)
            frame[:] = native
            self._frames.append(frame)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._frames.clear()
        self._stack.close()
        with contextlib.suppress(OSError):  # another stack is at work there
            self._scratch.rmdir()

    def __len__(self) -> int:
        return len(self._frames)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of every frame."""
        ny, nx = self._frames[0].shape
        return ny, nx

    def frame(self, index: int) -> NDArray[Any]:
        """Return one whole frame."""
        return self._frames[index]

    def bands(self, *, keep: Sequence[int] | None = None) -> Iterator[tuple[slice, NDArray[Any]]]:
        """Yield rows as (slice, array of shape (n, rows, nx)); `keep` picks frames."""
        chosen = [self._frames[i] for i in (range(len(self)) if keep is None else keep)]
        ny, nx = self.shape
        rows = max(1, BAND_BYTES // (8 * nx * len(chosen)))
        for start in range(0, ny, rows):
            band = slice(start, min(start + rows, ny))
            yield band, np.stack([frame[band] for frame in chosen])
