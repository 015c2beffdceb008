"""Where the calibrated pixels of an observation come from.

The one place where the stages get them. A frame that is kept on disk is read from there; one that
is not, or whose file is missing or damaged, is calibrated again from the raw frame, with the same
result to the bit.
"""

import contextlib
import logging
import secrets
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from wombat_dagster.domain import Detections, Observation, ReducedFrame, Reduction
from wombat_dagster.observatory import Observatory
from wombat_dagster.stages.calibrator import (
    Calibrator,
    Image,
    Mask,
    known_look,
    look_at,
    look_path,
    pixels_key,
)
from wombat_dagster.store.frames import (
    CardContent,
    UnreadableFrame,
    read_header,
    read_reduced,
    replace_wcs,
    with_cards,
    without_wcs,
)
from wombat_dagster.store.layout import change_since
from wombat_dagster.store.staging import Staging, staged

log = logging.getLogger(__name__)

N_THREADS = 2
REMEMBERED = 2  # frames kept in memory: the first, which gives the profile, is measured next

Result = TypeVar("Result")


def in_order(work: Callable[..., Result], *items: Iterable[Any]) -> Iterator[Result]:
    """Yield what `work` makes of each item, in their order, from two threads; as `map` does.

    Only a few results are made ahead, so that memory does not grow with the number of items.
    """
    with ThreadPoolExecutor(N_THREADS, thread_name_prefix="wombat") as threads:
        waiting: deque[Future[Result]] = deque()
        try:
            for arguments in zip(*items, strict=True):
                waiting.append(threads.submit(work, *arguments))
                if len(waiting) > N_THREADS:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def staging_of(
    observatory: Observatory, paths: Sequence[Path]
) -> contextlib.AbstractContextManager[Staging]:
    """Return the staging of raw frames that are about to be read, as configured."""
    settings = observatory.settings.staging
    scratch = observatory.settings.path(settings.directory) if settings.directory else None
    return staged(paths, settings, scratch)


# --------------------------------------------------------------------------------- reduced frames


class CalibratedFrames:
    """The pixels and the stars of the frames of a reduction, whether kept or not.

    Raises
    ------
    NoCalibration
        By any reading: a frame has to be calibrated again and a master is not what it was.
    UnreadableFrame, OSError
        By any reading: the raw frame is gone or damaged as well.
    """

    def __init__(
        self, observatory: Observatory, observation: Observation, reduction: Reduction
    ) -> None:
        self._observatory, self._observation = observatory, observation
        self._reduction = reduction
        self._raw = {f.path: f for f in observatory.status.light_frames(observation)}
        self._lock = threading.Lock()
        self._loaded: Calibrator | None = None
        self._remembered: OrderedDict[str, tuple[Image, Mask]] = OrderedDict()

    @property
    def _calibrator(self) -> Calibrator:
        with self._lock:
            if self._loaded is None:
                self._loaded = Calibrator(self._observatory, self._reduction.choice)
            return self._loaded

    def read(self, frame: ReducedFrame) -> tuple[Image, Mask]:
        """Return image and mask of a frame; the last few are remembered."""
        with self._lock:
            if frame.raw in self._remembered:
                return self._remembered[frame.raw]
        pixels = self._read(frame, self._raw_path(frame))
        with self._lock:
            self._remembered[frame.raw] = pixels
            while len(self._remembered) > REMEMBERED:
                self._remembered.popitem(last=False)
        return pixels

    def stream(self, frames: Sequence[ReducedFrame]) -> Iterator[tuple[Image, Mask]]:
        """Yield image and mask of each frame, in order, read ahead by two threads."""
        with self._lock:
            at_hand, self._remembered = dict(self._remembered), OrderedDict()
        to_calibrate = [f for f in frames if f.path is None and f.raw not in at_hand]
        if to_calibrate:
            _ = self._calibrator  # here, where nobody else waits for it

        with staging_of(self._observatory, [self._raw_path(f) for f in to_calibrate]) as staging:

            def pixels(frame: ReducedFrame) -> tuple[Image, Mask]:
                if frame.raw in at_hand:
                    return at_hand.pop(frame.raw)
                if frame.path is not None:
                    return self._read(frame, self._raw_path(frame))
                with staging.take(self._raw_path(frame)) as source:
                    return self._read(frame, source)

            yield from in_order(pixels, frames)

    def stars(self, frame: ReducedFrame) -> Detections:
        """Return the stars that were detected on a frame."""
        raw = self._raw[frame.raw]
        path = look_path(self._observatory, self._observation, self._reduction.choice, raw)
        look = known_look(path)
        if look is None:
            pixels = self._calibrator.read(raw, self._raw_path(frame))
            look = look_at(self._calibrator, raw, pixels, path)
        return look.stars

    def why_gone(self, frame: ReducedFrame) -> str | None:
        """Return why the pixels of a frame cannot be had any more; None: they can, by all signs."""
        if frame.path is not None and self._kept(frame).exists():
            return None
        raw, path = self._raw.get(frame.raw), self._raw_path(frame)
        if raw is None or not path.exists():
            return "gone from the data since it was reduced"
        return change_since(raw, path)

    def key(self, frame: ReducedFrame) -> str:
        """Return a name for the pixels of a frame and their mask, by all that they depend on."""
        raw = replace(self._raw[frame.raw], pixel_hash=frame.raw_hash)
        cleans = self._observatory.settings.calibration.cosmic_rays
        return pixels_key(raw, self._reduction.choice, self._reduction.detector, cleans=cleans)

    @contextlib.contextmanager
    def file(self, frame: ReducedFrame) -> Iterator[Path]:
        """Give a file of a frame for a program to read: the kept one, or one for the time being.

        No earlier plate solution is in it, which the program might start from.
        """
        if frame.path is not None:
            path = self._kept(frame)
            if not path.exists():
                self._make_again(frame, f"{path.name} is gone")
            self.write_solution(frame, {})
            yield path
            return
        directory = self._observatory.layout.observation_dir(self._observation)
        path = directory / f".{secrets.token_hex(4)}.tmp.fits"
        try:
            self._write(frame, path)
            yield path
        finally:
            path.unlink(missing_ok=True)

    def write_solution(self, frame: ReducedFrame, cards: Mapping[str, CardContent]) -> None:
        """Put a plate solution into the header of a frame that is kept; no cards: take it out.

        A header that says the same is left alone: the whole file would have to be copied.
        """
        if frame.path is None:
            return
        try:
            if not _says(self._kept(frame), cards):
                replace_wcs(self._kept(frame), cards)
        except UnreadableFrame as damage:
            self._make_again(frame, str(damage))
            replace_wcs(self._kept(frame), cards)

    def _read(self, frame: ReducedFrame, source: Path) -> tuple[Image, Mask]:
        if frame.path is None:
            calibrator, raw = self._calibrator, self._raw[frame.raw]
            image, mask, _ = calibrator.finished(
                raw, calibrator.read(raw, source), self._reduction.detector
            )
            return image, mask
        try:
            image, mask, _ = read_reduced(self._kept(frame))
        except UnreadableFrame as damage:
            self._make_again(frame, str(damage))
            image, mask, _ = read_reduced(self._kept(frame))
        return image, mask

    def _make_again(self, frame: ReducedFrame, why: str) -> None:
        log.warning("%s: %s; reduced again", frame.path, why)
        self._write(frame, self._kept(frame))

    def _write(self, frame: ReducedFrame, path: Path) -> None:
        raw = self._raw[frame.raw]
        self._calibrator.reduce(raw, self._raw_path(frame), path, self._reduction.detector)

    def _kept(self, frame: ReducedFrame) -> Path:
        assert frame.path is not None
        return self._observatory.layout.product_file(frame.path)

    def _raw_path(self, frame: ReducedFrame) -> Path:
        return self._observatory.layout.raw_path(frame.raw)


def _says(path: Path, cards: Mapping[str, CardContent]) -> bool:
    """Tell whether the plate solution in a frame's header is that of `cards`."""
    stored = [str(card) for card in read_header(path).cards]
    others = Counter(without_wcs(tuple(stored)))
    return Counter(stored) - others == Counter(with_cards((), cards))
