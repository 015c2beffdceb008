"""The masters that the observer supplies, with the nights they are valid for.

Where they lie is in `store.layout`; here they are opened. A file that cannot serve is said in a
warning and is no master: the road goes on without it.
"""

import datetime as dt
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from wombat_dagster.domain import FrameGroup, FrameKind, Master
from wombat_dagster.observatory import Observatory
from wombat_dagster.store import headers
from wombat_dagster.store.frames import HASH_CARD, UnreadableFrame, array_hash, read_master
from wombat_dagster.store.layout import LibraryFile, library_files, parse_night_date
from wombat_dagster.store.raw_frames import frame_group

log = logging.getLogger(__name__)

FILES_REMEMBERED = 256
MEASURED = {
    "read_noise_adu": "RDNMEAS",
    "read_noise_error_adu": "RDNERR",
    "gain_e_adu": "GAINMEAS",
    "gain_error_e_adu": "GAINERR",
    "dark_current_adu_s": "DARKMEAS",
    "dark_current_error_adu_s": "DARKERR",
    "noise": "NOISE",
}
"""What a master of wombat's own, kept for other nights, says in which cards."""


def available_masters(observatory: Observatory, kind: FrameKind | None = None) -> list[Master]:
    """Return the masters of every night, oldest first, and then those of the library."""
    return [*observatory.status.masters(kind), *library_masters(observatory, kind)]


def library_masters(observatory: Observatory, kind: FrameKind | None = None) -> list[Master]:
    """Return the masters of ``[[master]]`` and the library's directory that can be used.

    A file is read once for as long as its size and time stay the same. What cannot be used is a
    warning in the log.
    """
    masters = []
    for file in library_files(observatory.settings):
        if kind is not None and file.kind not in {kind, None}:
            continue
        try:
            masters.append(_as_master(observatory, file))
        except (UnreadableFrame, OSError) as error:
            log.warning("%s of the library cannot be used: %s", file.path, error)
    return masters


@dataclass(frozen=True, slots=True, kw_only=True)
class _Supplied:
    """What the pixels and the header of a master say."""

    content_hash: str
    group: FrameGroup
    filter: str | None
    exposure_s: float | None
    date: dt.date | None
    ccd_temperature_c: float | None
    pedestal_adu: float | None
    n_used: int | None
    kind: FrameKind | None
    bias_hash: str | None
    measured: Mapping[str, float | None]


@lru_cache(maxsize=FILES_REMEMBERED)
def _read(path: Path, size_bytes: int, mtime_ns: int) -> _Supplied:
    """Return what a file says; read again when its size or time is another."""
    image, _, header = read_master(path)
    is_ours = HASH_CARD in header
    n_used = headers.number(header, "NCOMBINE")
    night = (headers.text(header, "NIGHT") if is_ours else None) or headers.start_utc(header)
    return _Supplied(
        content_hash=array_hash(image),
        group=frame_group(header),
        filter=headers.filter_name(header),
        exposure_s=headers.exposure_s(header),
        date=parse_night_date(night) if night else None,
        ccd_temperature_c=headers.ccd_temperature_c(header),
        pedestal_adu=headers.pedestal_adu(header),
        n_used=None if n_used is None else int(n_used),
        kind=headers.kind(header),
        bias_hash=headers.text(header, "OFFHASH1") if is_ours else None,
        measured={name: headers.number(header, card) for name, card in MEASURED.items()}
        if is_ours
        else {},
    )


def _as_master(observatory: Observatory, file: LibraryFile) -> Master:
    """Return a file of the library as a master. Raises `UnreadableFrame` when it cannot be one."""
    if file.reason is not None or file.kind is None:
        raise UnreadableFrame(file.reason or "it is not known what it is")
    status = file.path.stat()
    said = _read(file.path, status.st_size, status.st_mtime_ns)
    if said.kind not in {file.kind, None}:
        raise UnreadableFrame(f"header says {said.kind} frame, name or [[master]] says {file.kind}")
    filter = file.filter or said.filter if file.kind is FrameKind.FLAT else None
    exposure_s = file.exposure_s or said.exposure_s
    if file.kind is FrameKind.FLAT and filter is None:
        raise UnreadableFrame("a flat without a filter in its name, header or [[master]]")
    if file.kind is FrameKind.DARK and not exposure_s:
        raise UnreadableFrame("a dark without an exposure time in its name, header or [[master]]")
    made = dt.datetime.fromtimestamp(status.st_mtime, tz=dt.UTC).date()
    notes = ["from the observer's library"]
    if said.n_used is None:
        notes.append("NCOMBINE not stated: counted as one frame")
    return Master(
        kind=file.kind,
        date=said.date or file.valid_from or file.valid_until or made,
        filter=filter,
        group=replace(said.group, readout=None),  # its header need not be a raw frame's
        path=observatory.layout.master_words(file.path),
        content_hash=said.content_hash,
        n_used=said.n_used or 1,
        n_refused=0,
        exposure_s=exposure_s if file.kind is FrameKind.DARK else None,
        ccd_temperature_c=said.ccd_temperature_c,
        made_by_us=False,
        **said.measured,
        bias_hash=said.bias_hash,
        pedestal_adu=said.pedestal_adu,
        valid_from=file.valid_from,
        valid_until=file.valid_until,
        from_library=True,
        forced=file.forced,
        notes=tuple(notes),
    )
