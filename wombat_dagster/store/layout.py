"""Where every file lives, and what lies in ./data.

The one place that joins paths. A name that a person chose becomes part of a path only after
`domain.slug`; a path that would leave its root is refused. The scan opens each new file once and
decides which frames count; it changes nothing on disk. Only `sort_flats` moves raw files, and never
over another one. What a single file says is in `frames` and `headers`.
"""

import datetime as dt
import errno
import hashlib
import itertools
import json
import os
import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from wombat_dagster.config import InstrumentSettings, MasterSettings, Settings
from wombat_dagster.domain import FrameGroup, FrameKind, Observation, RawFrame, slug
from wombat_dagster.store import headers
from wombat_dagster.store.frames import HASH_CARD, UnreadableFrame, read_header
from wombat_dagster.store.raw_frames import (
    FILTER_ASSUMED,
    SECTIONS_CONFIGURED,
    configured_sections_words,
    frame_group,
    read_raw_frame,
)

FITS_NAME = re.compile(r"\.(fits|fit|fts)(\.(gz|fz))?$", re.IGNORECASE)
MASTER_NAME = re.compile(r"^m(?P<kind>bias|flat|dark)(?P<rest>.*)$", re.IGNORECASE)
GROUP_SUFFIX = re.compile(r"_\d+x\d+_bin\d+(x\d+)?$")
MAX_DEPTH = 10  # directories below the data root; links can multiply paths without end
JOURNAL = PurePosixPath(".wombat/moves.jsonl")  # under the data root
MASTERS = "masters"  # directory of them in a night's products
REPORTS = "reports"  # directory of files for the AAVSO in the products
OF_PRODUCTS = "products"  # begins the path of a master that lies there: no night is called so

# Directory names of the single filters people use; anything else names a program or a series.
# fmt: off
FILTER_DIRECTORIES = frozenset((
    "U", "B", "V", "R", "I", "u", "g", "r", "i", "z", "y", "u'", "g'", "r'", "i'", "z'", "up",
    "gp", "rp", "ip", "zp", "Rc", "Ic", "SU", "SG", "SR", "SI", "SZ", "TB", "TG", "TR", "CV",
    "CR", "Clear", "Open", "L", "Lum", "Luminance", "Red", "Green", "Blue", "Ha", "OIII", "SII",
))
# fmt: on
_KIND_DIRECTORIES = (  # in this order: flat darks are darks
    (FrameKind.DARK, re.compile(r"^(darks?|dark[-_ ]?flats?|flat[-_ ]?darks?)([-_ .].*)?$", re.I)),
    (FrameKind.BIAS, re.compile(r"^bias(es)?([-_ .].*)?$", re.I)),
    (FrameKind.FLAT, re.compile(r"^flats?([-_ .].*|wizard.*)?$", re.I)),
    (FrameKind.LIGHT, re.compile(r"^lights?$", re.I)),
)
_DATE = re.compile(r"(?<!\d)((?:19|20)\d\d)([-_]?)(\d\d)\2(\d\d)(?!\d)")
_NOT_THERE = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ELOOP))  # gone, or leads in a circle
_NOT_FOR_US = frozenset((errno.EACCES, errno.EPERM))  # and will not be the next time
_KEY_PART = re.compile(r"[A-Za-z0-9+-][A-Za-z0-9.+-]*(_[A-Za-z0-9.+-]+)*")


def parse_night_date(directory_name: str) -> dt.date | None:
    """Return the date a night's directory is named for; None when it is no night.

    ``20251015``, ``2025-10-15``, ``2025_10_15``, each with or without prefix or suffix
    (``1-20161109``, ``20251015_b``). Of several the first possible one.
    """
    for year, _, month, day in _DATE.findall(directory_name):
        try:
            return dt.date(int(year), int(month), int(day))
        except ValueError:
            continue
    return None


# ------------------------------------------------------------------------------- walking the disk


def _is_hidden(name: str) -> bool:
    return name.startswith((".", "$")) or name == "System Volume Information"


def _entries(directory: Path) -> list[os.DirEntry[str]]:
    """Return what is visible in a directory, real entries before links, then by name.

    Nothing when it is gone. Any other error is raised: a disk that fails for a moment, or a
    directory that is closed to us, must not look empty.
    """
    try:
        with os.scandir(directory) as listing:
            visible = [entry for entry in listing if not _is_hidden(entry.name)]
    except OSError as error:
        if error.errno in _NOT_THERE:
            return []
        raise
    return sorted(visible, key=lambda entry: (entry.is_symlink(), entry.name))


def _entries_if_open(directory: Path) -> list[os.DirEntry[str]]:
    """Do as `_entries`, with nothing where the directory is closed to us."""
    try:
        return _entries(directory)
    except OSError as error:
        if error.errno in _NOT_FOR_US:
            return []
        raise


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:  # where it cannot be told, listing it says why
        is_closed_file = error.errno in _NOT_FOR_US and FITS_NAME.search(entry.name) is not None
        return not is_closed_file and error.errno not in _NOT_THERE


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what is the same for two names of one file, or None when it cannot be told."""
    try:
        status = path.stat()
    except OSError as error:
        if error.errno in _NOT_THERE:
            return None
        raise
    return (status.st_dev, status.st_ino) if status.st_ino else None


def _files_below(
    directory: Path, *, seen: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[Path]:
    """Yield the raw FITS files of a directory and everything below, in a fixed order.

    Links to directories are followed, but never back to a directory that lies above (`seen`).
    Files of a directory come before those of its sub-directories.
    """
    identity = _identity(directory)
    if identity is None or identity in seen:
        return
    entries = _entries(directory)
    for entry in entries:
        if is_raw_name(entry.name) and not _is_directory(entry):
            yield directory / entry.name
    if len(seen) > MAX_DEPTH:
        return
    for entry in entries:
        if _is_directory(entry):
            yield from _files_below(directory / entry.name, seen=seen | {identity})


def is_raw_name(name: str) -> bool:
    """Return whether a file name is that of a raw frame: FITS, not hidden, not a master."""
    return FITS_NAME.search(name) is not None and not (_is_hidden(name) or MASTER_NAME.match(name))


def _is_storable(path: Path) -> bool:
    """Return whether a path is text: Linux allows names that are none, a database does not."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _printable(path: Path) -> str:
    return str(path).encode(errors="backslashreplace").decode()


# --------------------------------------------------------------------------- nights and their parts


@dataclass(frozen=True, slots=True, kw_only=True)
class NightDirectory:
    """A night's directory: its name verbatim, its date, its path."""

    name: str
    date: dt.date
    path: Path


def night_directories(data_root: Path) -> tuple[NightDirectory, ...]:
    """Return the nights directly below the data root, by date, then name."""
    nights = [
        NightDirectory(name=entry.name, date=date, path=data_root / entry.name)
        for entry in _entries_if_open(data_root)
        if (date := parse_night_date(entry.name)) is not None
        and _is_directory(entry)
        and _is_storable(data_root / entry.name)
    ]
    return tuple(sorted(nights, key=lambda night: (night.date, night.name)))


def has_entries(data_root: Path) -> bool:
    """Return whether anything lies in the data root: not so where a disk is not mounted."""
    return bool(_entries_if_open(data_root))


def kind_of_directory(name: str) -> FrameKind | None:
    """Return what the frames of ``Bias``, ``Flats``, ``FlatV``, ``Light`` … in a night are."""
    for kind, pattern in _KIND_DIRECTORIES:
        if pattern.match(name):
            return kind
    return FrameKind.FLAT if _filter_after_flat(name) else None


def _filter_after_flat(name: str) -> str | None:
    """Return V for ``FlatV``, ``Flat-V`` and ``Flat_V``; None for ``Flat`` and ``Flats``."""
    found = re.match(r"^flats?[-_ .]?(?P<filter>.+)$", name, re.IGNORECASE)
    return found["filter"] if found and found["filter"] in FILTER_DIRECTORIES else None


def _directory_filter(parts: Sequence[str]) -> str | None:
    """Return the filter that the innermost filter-named directory of a path names."""
    for part in reversed(parts):
        if part in FILTER_DIRECTORIES:
            return part
        if (filter := _filter_after_flat(part)) is not None:
            return filter
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class _RawFile:
    """A file in a night, and what its place says of it."""

    path: Path
    kind: FrameKind
    target: str | None
    directory_filter: str | None
    misplaced: str | None = None  # the reason, when the place itself is wrong


def _night_files(night: NightDirectory) -> Iterator[_RawFile]:
    """Yield the raw files of one night by kind; what lies outside the kinds is not yielded."""
    above = (_identity(night.path.parent), _identity(night.path))
    seen = frozenset(identity for identity in above if identity is not None)
    for entry in _entries(night.path):
        kind = kind_of_directory(entry.name)
        if kind is None or not _is_directory(entry):
            continue
        directory = night.path / entry.name
        for path in _files_below(directory, seen=seen):
            inside = path.relative_to(directory).parts[:-1]
            if kind is FrameKind.LIGHT:
                yield _light_file(path, inside)
            else:
                filter = _directory_filter((entry.name, *inside))
                is_flat = kind is FrameKind.FLAT
                yield _RawFile(
                    path=path,
                    kind=kind,
                    target=None,
                    directory_filter=filter if is_flat else None,
                )


def _light_file(path: Path, inside: tuple[str, ...]) -> _RawFile:
    """Return a light frame: the first directory inside Light is its target."""
    return _RawFile(
        path=path,
        kind=FrameKind.LIGHT,
        target=inside[0] if inside else None,
        directory_filter=_directory_filter(inside[1:]),
        misplaced=None if inside else "lies directly in Light, one directory per target is wanted",
    )


# ----------------------------------------------------------------------------------------- the scan

SettingsOfCamera = Callable[[str | None], InstrumentSettings]
"""What the configuration says of a camera (`config.Settings.for_camera`)."""

_SAME_PIXELS = "same pixels as "
_OTHER_GROUP = ", observation is "
_TOO_WARM = "CCD at "


def _nothing_configured(_camera: str | None) -> InstrumentSettings:
    return InstrumentSettings()


@dataclass(frozen=True, slots=True, kw_only=True)
class NightScan:
    """One night's directory with its raw frames, quarantined ones included (`reason`).

    `unseen` says why the directory could not be looked through: nothing is known of its frames.
    """

    directory: NightDirectory
    frames: tuple[RawFrame, ...]
    notes: tuple[str, ...] = ()
    unseen: str | None = None

    @property
    def has_lights(self) -> bool:
        """True when there is a light frame, usable or not: a night without is ignored."""
        return any(frame.kind is FrameKind.LIGHT for frame in self.frames)

    def usable(self, kind: FrameKind) -> tuple[RawFrame, ...]:
        """Return the frames of a kind that are not quarantined."""
        return tuple(f for f in self.frames if f.kind is kind and f.reason is None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScanResult:
    """Everything below ./data."""

    nights: tuple[NightScan, ...]

    @property
    def frames(self) -> tuple[RawFrame, ...]:
        """All raw frames of all nights."""
        return tuple(frame for night in self.nights for frame in night.frames)

    @property
    def quarantined(self) -> tuple[RawFrame, ...]:
        """The frames that cannot be used, each with its reason."""
        return tuple(frame for frame in self.frames if frame.reason is not None)


def scan_data(
    data_root: Path,
    *,
    known: Mapping[str, RawFrame] | None = None,
    settings_of_camera: SettingsOfCamera = _nothing_configured,
    only: Collection[str] | None = None,
) -> ScanResult:
    """Return the nights below `data_root` with every raw frame, usable or quarantined.

    Parameters
    ----------
    known
        Frames of an earlier scan by `RawFrame.path`: of a file of unchanged size and time the
        pixels are not read again, and the header only when it was quarantined, its filter was
        not its own, or other sections are configured now.
    settings_of_camera
        By camera: the filter of frames that name none, the sections of overscan and trim, and how
        warm the chip may be.
    only
        Names of night directories; the other nights are left out. Directories of the same date
        are scanned with them, because the same pixels count once in a night.

    Notes
    -----
    Order decides between equals and is fixed: by night directory, then shallower paths first, then
    by name. Nothing on disk is changed and no file makes the scan fail. A night whose directories
    cannot be listed is `NightScan.unseen`; when the root itself cannot be, OSError is raised.
    """
    nights = night_directories(data_root)
    if only is not None:
        dates = {night.date for night in nights if night.name in only}
        nights = tuple(night for night in nights if night.date in dates)
    scans = []
    for night in nights:
        try:
            scan = _read_night(
                night, data_root, known=known or {}, settings_of_camera=settings_of_camera
            )
        except OSError as error:
            scan = NightScan(directory=night, frames=(), unseen=str(error))
        scans.append(scan)
    judged = _judged_together(
        [frame for scan in scans for frame in scan.frames], settings_of_camera
    )
    return ScanResult(
        nights=tuple(
            replace(scan, frames=tuple(judged[frame.path] for frame in scan.frames))
            for scan in scans
        )
    )


def _read_night(
    night: NightDirectory,
    data_root: Path,
    *,
    known: Mapping[str, RawFrame],
    settings_of_camera: SettingsOfCamera,
) -> NightScan:
    """Return a night's frames, each judged alone; a file reached by two ways is listed once."""
    raw_files = sorted(_night_files(night), key=lambda raw: (len(raw.path.parts), str(raw.path)))
    read: list[RawFrame] = []
    notes: list[str] = []
    seen: set[tuple[FrameKind, str | None, tuple[int, int]]] = set()
    for raw in raw_files:
        if not _is_storable(raw.path):
            notes.append(f"{_printable(raw.path)}: the name is no text (UTF-8), file ignored")
            continue
        identity = _identity(raw.path)
        if identity is not None:
            if (raw.kind, raw.target, identity) in seen:
                continue  # a link to a file that is listed already
            seen.add((raw.kind, raw.target, identity))
        read.append(
            _frame(raw, night, data_root, known=known, settings_of_camera=settings_of_camera)
        )
    loose = [entry.name for entry in _entries(night.path) if is_raw_name(entry.name)]
    if loose:
        notes.append(
            f"{len(loose)} FITS files lie directly in {night.name}, not in Bias, Dark, Flat or"
            " Light: ignored"
        )
    return NightScan(directory=night, frames=tuple(read), notes=tuple(notes))


def _frame(
    raw: _RawFile,
    night: NightDirectory,
    data_root: Path,
    *,
    known: Mapping[str, RawFrame],
    settings_of_camera: SettingsOfCamera,
) -> RawFrame:
    """Return one file's frame: the known one when the file has not changed, else read anew."""
    before = known.get(raw.path.relative_to(data_root).as_posix())
    is_unchanged = before is not None and _is_unchanged(before, raw, night)
    if (
        before is not None
        and is_unchanged
        and not _was_judged_alone(before, raw)
        and _has_sections_of(before, settings_of_camera)
    ):
        return replace(before, reason=raw.misplaced)
    frame = read_raw_frame(
        raw.path,
        data_root=data_root,
        night_directory=night.name,
        date=night.date,
        kind=raw.kind,
        target=raw.target,
        directory_filter=raw.directory_filter,
        filter_of_camera=lambda camera: settings_of_camera(camera).filter,
        sections_of_camera=lambda camera: _sections_of(settings_of_camera(camera)),
        known_hash=before.pixel_hash if before is not None and is_unchanged else None,
    )
    return replace(frame, reason=frame.reason or raw.misplaced)


def _was_judged_alone(before: RawFrame, raw: _RawFile) -> bool:
    """Return whether a frame was quarantined for itself, or its filter was assumed.

    The configuration may have changed since. Verdicts against others are passed anew in any case.
    """
    reason = before.reason or ""
    is_ours = (
        reason.startswith((_SAME_PIXELS, _TOO_WARM))
        or _OTHER_GROUP in reason
        or reason == raw.misplaced
    )
    is_assumed = any(words.startswith(FILTER_ASSUMED) for words in before.warnings)
    return (bool(reason) and not is_ours) or is_assumed


def _sections_of(instrument: InstrumentSettings) -> tuple[str | None, str | None]:
    return instrument.overscan, instrument.trim


def _has_sections_of(before: RawFrame, settings_of_camera: SettingsOfCamera) -> bool:
    """Return whether a frame was read with the sections that are configured now."""
    camera = before.group.camera if before.group else None
    words = configured_sections_words(*_sections_of(settings_of_camera(camera)))
    if words is not None:
        return words in before.warnings
    return not any(words.startswith(SECTIONS_CONFIGURED) for words in before.warnings)


def _is_unchanged(before: RawFrame, raw: _RawFile, night: NightDirectory) -> bool:
    """Return whether a known frame is of this very file, in the same place."""
    if (before.date, before.kind, before.target) != (night.date, raw.kind, raw.target):
        return False
    try:
        status = raw.path.stat()
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (before.size_bytes, before.mtime_ns)


def change_since(frame: RawFrame, path: Path) -> str | None:
    """Return in words what became of a raw file since it was looked at; None: it is the same.

    Nor is anything said of one that cannot be seen: reading it tells why.
    """
    try:
        status = path.stat()
    except OSError:
        return None
    if status.st_size != frame.size_bytes:
        words = f"size {frame.size_bytes} → {status.st_size} bytes"
    elif frame.mtime_ns not in {0, status.st_mtime_ns}:  # 0: a migration has forgotten it
        words = f"written {_utc(frame.mtime_ns)} → {_utc(status.st_mtime_ns)}"
    else:
        return None
    return f"changed since it was looked at ({words}); the next look takes the new file"


def _utc(time_ns: int) -> str:
    when = dt.datetime.fromtimestamp(time_ns / 1e9, tz=dt.UTC)
    return when.isoformat(sep=" ", timespec="milliseconds").replace("+00:00", " UTC")


def _judged_together(
    frames: Sequence[RawFrame], settings_of_camera: SettingsOfCamera
) -> dict[str, RawFrame]:
    """Return the frames by path, with the verdicts that take more than the file."""
    judged = {frame.path: frame for frame in frames}
    judged |= {frame.path: frame for frame in _too_warm(frames, settings_of_camera)}
    judged |= {frame.path: frame for frame in _duplicates(list(judged.values()))}
    judged |= {frame.path: frame for frame in _odd_groups(list(judged.values()))}
    return judged


def _too_warm(
    frames: Iterable[RawFrame], settings_of_camera: SettingsOfCamera
) -> Iterator[RawFrame]:
    """Yield, quarantined, the usable frames whose chip was warmer than its camera may be."""
    for frame in frames:
        if frame.reason is not None or frame.group is None or frame.ccd_temperature_c is None:
            continue
        limit_c = settings_of_camera(frame.group.camera).max_ccd_temperature_c
        if limit_c is not None and frame.ccd_temperature_c > limit_c:
            words = f"{_TOO_WARM}{frame.ccd_temperature_c:+.1f} C, at most {limit_c:g} wanted"
            yield replace(frame, reason=words)


def _duplicates(frames: Iterable[RawFrame]) -> Iterator[RawFrame]:
    """Yield, quarantined, every usable frame whose pixels an earlier one has.

    The same pixels count once among the calibrations of a kind, and once in a target. Two targets
    may share a frame: two variables in one field.
    """
    first: dict[tuple[object, ...], str] = {}
    for frame in frames:
        if frame.reason is not None or frame.pixel_hash is None:
            continue
        identity = (frame.date, frame.kind, frame.target, frame.pixel_hash)
        original = first.setdefault(identity, frame.path)
        if original != frame.path:
            yield replace(frame, reason=f"{_SAME_PIXELS}{original}")


_Alike = tuple[FrameGroup, frozenset[str]]  # and what was done to the frames before


def _odd_groups(frames: Iterable[RawFrame]) -> Iterator[RawFrame]:
    """Yield, quarantined, the lights that cannot be calibrated with the others of an observation.

    Those of another shape, binning or camera, and those already calibrated in another way. The
    group with most exposure time is the observation; of equals the one with more frames, then with
    more pixels.
    """
    observations: dict[tuple[object, ...], dict[_Alike, list[RawFrame]]]
    observations = defaultdict(lambda: defaultdict(list))
    for frame in frames:
        if frame.kind is FrameKind.LIGHT and frame.reason is None and frame.group is not None:
            alike = (frame.group, frame.steps_done)
            observations[frame.date, frame.target, frame.filter][alike].append(frame)
    for groups in observations.values():
        main = max(groups, key=lambda alike: _weight(alike, groups[alike]))
        for alike, members in groups.items():
            if alike != main:
                words = _difference(alike, main)
                yield from (replace(frame, reason=words) for frame in members)


def _weight(alike: _Alike, members: Sequence[RawFrame]) -> tuple[float, int, int, str]:
    group, done = alike
    exposure_s = sum(frame.exposure_s or 0.0 for frame in members)
    n_px = group.width_px * group.height_px
    return exposure_s, len(members), n_px, f"{group} {sorted(done)}"


def _difference(alike: _Alike, main: _Alike) -> str:
    """Return in words what sets two groups apart: ``256x256 1x1, observation is …``."""
    (group, done), (main_group, main_done) = alike, main
    if group.shape_words != main_group.shape_words:
        return f"{group.shape_words}{_OTHER_GROUP}{main_group.shape_words}"
    if group.camera != main_group.camera:
        return f"camera {group.camera}{_OTHER_GROUP}{main_group.camera}"
    if group.readout != main_group.readout:
        return f"readout {group.readout}{_OTHER_GROUP}{main_group.readout}"
    return f"{_done_words(done)}{_OTHER_GROUP}{_done_words(main_done)}"


def _done_words(done: frozenset[str]) -> str:
    """Return what was done to a frame before: ``calibrated for bias, dark``, or ``raw``."""
    steps = [step for step in ("bias", "dark", "flat") if step in done]
    return f"calibrated for {', '.join(steps)}" if steps else "raw"


# --------------------------------------------------------------------- has a directory settled yet


@dataclass(frozen=True, slots=True, kw_only=True)
class NightSignatures:
    """Signatures of a night's parts: names, sizes and times of their raw files.

    `calibration` is None without calibration frames. `targets` is by target directory.
    """

    calibration: str | None
    targets: Mapping[str, str]

    def by_unit(self) -> dict[str, str]:
        """Return the signatures by target; the calibrations' under the empty name."""
        return {"": self.calibration or "none", **self.targets}


def signature(files: Iterable[Path], *, root: Path | None = None) -> str:
    """Return a short hash of names, sizes and times: equal while nothing is being copied.

    With `root` the directories below it count, too: frames that were moved are looked at again.
    """
    lines: set[str] = set()
    for path in files:
        try:
            status = path.stat()
        except OSError:
            continue  # gone between listing and looking: the next tick sees it gone
        name = path.name if root is None else path.relative_to(root)
        lines.add(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n")
    digest = hashlib.sha256("".join(sorted(lines)).encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def night_signatures(night: NightDirectory) -> NightSignatures:
    """Return the signatures of a night's calibrations and of each of its targets.

    No file is opened. Masters do not count, nor do directories of calibrations, so that making
    masters and sorting flats do not unsettle the night. The night's own name does.
    """
    calibration: list[Path] = []
    targets: dict[str, list[Path]] = defaultdict(list)
    for raw in _night_files(night):
        if raw.kind is not FrameKind.LIGHT:
            calibration.append(raw.path)
        elif raw.target is not None and _is_storable(raw.path):
            targets[raw.target].append(raw.path)
    return NightSignatures(
        calibration=f"{night.name}: {signature(calibration)}" if calibration else None,
        targets={
            target: signature(files, root=night.path.parent) for target, files in targets.items()
        },
    )


# -------------------------------------------------------------------------------- paths of products


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The roots, and the path of every file below them."""

    data: Path
    products: Path
    cache: Path
    supplied: tuple[Path, ...] = ()  # files and directories of masters that lie anywhere

    @classmethod
    def of(cls, settings: Settings) -> "Layout":
        """Return the layout that ``wombat.toml`` asks for, with absolute roots."""
        return cls(
            data=settings.path(settings.data),
            products=settings.path(settings.products),
            cache=settings.path(settings.cache),
            supplied=_supplied(settings),
        )

    def raw_path(self, relative: str) -> Path:
        """Return the file of `RawFrame.path` or `Master.path`.

        Raises ValueError when it would leave the root, and is no master that the observer supplies.
        """
        path = Path(relative)
        if relative.startswith(f"{OF_PRODUCTS}/"):
            return self.product_file(relative.removeprefix(f"{OF_PRODUCTS}/"))
        is_supplied = any(path.is_relative_to(place) for place in self.supplied)
        if is_supplied and ".." not in path.parts and "\0" not in relative:
            return path
        return _below(self.data, relative)

    def master_words(self, path: Path) -> str:
        """Return a master's path as the database holds it.

        Relative to the data; ``products/20251015/masters/mbias.fits`` where the data cannot be
        written; absolute when it is neither.
        """
        if path.parent.name == MASTERS and path.is_relative_to(self.products):
            return f"{OF_PRODUCTS}/{self.relative_to_products(path)}"
        return self.relative_to_data(path) if path.is_relative_to(self.data) else path.as_posix()

    def masters_dir(self, date: dt.date) -> Path:
        """Return where the masters of a night go whose directory cannot be written."""
        return self.night_products_dir(f"{date:%Y%m%d}") / MASTERS

    def master_places(self, date: dt.date) -> tuple[Path, ...]:
        """Return where masters of a night may lie, for `find_masters`: its directories first."""
        nights = [night.path for night in night_directories(self.data) if night.date == date]
        return (*nights, self.masters_dir(date))

    def product_file(self, relative: str) -> Path:
        """Return the file of a path relative to the products, `ReducedFrame.path` for one."""
        return _below(self.products, relative)

    def night_dir(self, night_directory: str) -> Path:
        """Return a night's directory in the data. Raises ValueError when the name is no night."""
        if len(PurePosixPath(night_directory).parts) != 1 or "\\" in night_directory:
            raise ValueError(f"{night_directory!r} is no name of a directory")
        if parse_night_date(night_directory) is None:
            raise ValueError(f"{night_directory!r} is not named for a date")
        return _below(self.data, night_directory)

    def master_path(
        self,
        night_directory: str,
        kind: FrameKind,
        *,
        group: FrameGroup,
        is_main_group: bool,
        filter: str | None = None,
        exposure_s: float | None = None,
        filters_of_night: Iterable[str] = (),
    ) -> Path:
        """Return where a master goes: ``mbias.fits``, ``mflatV.fits``, ``mdark1.5.fits``.

        Outside the night's main group the name ends in ``_{nx}x{ny}_bin{b}``. `filters_of_night`
        settles a clash: on a Mac ``mflatr`` and ``mflatR`` are one file, so r becomes ``r_lc``.
        """
        if kind is FrameKind.BIAS:
            stem = "mbias"
        elif kind is FrameKind.FLAT and filter is not None:
            stem = f"mflat{filter_part(filter, filters_of_night)}"
        elif kind is FrameKind.DARK and exposure_s is not None:
            stem = f"mdark{slug(f'{exposure_s:.6g}')}"
        else:
            raise ValueError(f"no master of {kind} with filter {filter}, exposure {exposure_s} s")
        if not is_main_group:
            across, _, down = group.binning.partition("x")
            binning = across if across == down else group.binning
            stem += f"_{group.width_px}x{group.height_px}_bin{slug(binning)}"
        return self.night_dir(night_directory) / f"{stem}.fits"

    def observation_dir(self, observation: Observation | str) -> Path:
        """Return ``products/<night>/<target>/<filter>`` of an observation or its partition key.

        The key's parts are slugs already. Raises ValueError when they are not: a name that a
        person or a program made up never becomes a path.
        """
        key = observation if isinstance(observation, str) else observation.key
        return self.products.joinpath(*_key_parts(key))

    def night_products_dir(self, key: str) -> Path:
        """Return the directory of what is made of a night, by its partition key."""
        return self.products / slug(key)

    def product_path(self, observation: Observation | str, name: str) -> Path:
        """Return a file in an observation's directory: ``light_curve.png``, ``settings.toml``."""
        return self.observation_dir(observation) / slug(name)

    def reduced_path(self, observation: Observation | str, label: str) -> Path:
        """Return the reduced frame of a raw one. `label` is from `frame_labels`."""
        return self.observation_dir(observation) / "reduced" / f"{slug(label)}.fits"

    def phot_table_path(self, observation: Observation | str) -> Path:
        """Return ``{target}_{YYYYMMDD}_phot.tbl``, the owner's name for the measurement table."""
        directory = self.observation_dir(observation)
        night, target = directory.parts[-3], directory.parts[-2]
        return directory / f"{target}_{night}_phot.tbl"

    @property
    def reports_dir(self) -> Path:
        """Where the files for the AAVSO lie."""
        return self.products / REPORTS

    def report_path(self, name: str) -> Path:
        """Return a file for the AAVSO by its name, as the ledger of reported lines has it."""
        return self.reports_dir / slug(name)

    def report_paths(self, observer: str, unit: str, *, is_amended: bool = False) -> Iterator[Path]:
        """Yield where a report of a night, or of an observation's key, may go, without an end.

        ``XYZ_20251015.txt``, then ``XYZ_20251015_2.txt``: a name that is taken is left alone.
        """
        stem = f"{slug(observer)}_{slug(unit)}{'_amended' if is_amended else ''}"
        yield self.report_path(f"{stem}.txt")
        yield from (self.report_path(f"{stem}_{number}.txt") for number in itertools.count(2))

    def relative_to_products(self, path: Path) -> str:
        """Return a product's path as the database holds it."""
        return path.relative_to(self.products).as_posix()

    def relative_to_data(self, path: Path) -> str:
        """Return a path below the data root as the database holds it."""
        return path.relative_to(self.data).as_posix()


def _below(root: Path, relative: str) -> Path:
    """Return a path below `root`; ValueError for one that is absolute or goes up."""
    parts = PurePosixPath(relative).parts
    if not parts or parts[0].startswith("/") or ".." in parts or "\0" in relative:
        raise ValueError(f"{relative!r} does not lie below {root}")
    return root.joinpath(*parts)


def _key_parts(key: str) -> list[str]:
    parts = key.split("__")
    if len(parts) != 3 or not all(_KEY_PART.fullmatch(part) for part in parts):
        raise ValueError(f"{key!r} is no observation's key (20251015__TX_Eri__V)")
    return parts


def filter_part(filter: str, others: Iterable[str] = ()) -> str:
    """Return a filter as a part of a file name, distinct from the `others` on any disk.

    Where names differ only in case, or in what a slug drops, the first in ASCII order, the
    upper-case one, keeps its name and the others get ``_lc``, ``_lc2``, …
    """
    plain = slug(filter)
    rivals = {name for name in others if slug(name).casefold() == plain.casefold()} | {filter}
    rank = sorted(rivals).index(filter)
    return plain if rank == 0 else f"{plain}_lc{rank if rank > 1 else ''}"


def frame_labels(paths: Iterable[str]) -> dict[str, str]:
    """Return a distinct file-name-safe label for each raw frame's path: its name without suffix.

    Where two frames of an observation have the same name, all but the first (shallower, then by
    name) get six digits of their path's hash.
    """
    labels: dict[str, str] = {}
    taken: set[str] = set()
    for path in sorted(set(paths), key=lambda p: (p.count("/"), p)):
        label = slug(FITS_NAME.sub("", PurePosixPath(path).name))
        if label.casefold() in taken:
            label = f"{label}-{hashlib.sha256(path.encode()).hexdigest()[:6]}"
        taken.add(label.casefold())
        labels[path] = label
    return labels


# ------------------------------------------------------------------------- masters that are there


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundMaster:
    """A master frame on disk, ours or a person's.

    `our_hash` is the content hash in its header, None when wombat did not make it: then it is
    theirs and never overwritten. `reason` says why it cannot be used.
    """

    path: Path
    kind: FrameKind
    filter: str | None
    exposure_s: float | None
    group: FrameGroup | None
    our_hash: str | None
    reason: str | None = None


def find_masters(night_dir: Path) -> tuple[FoundMaster, ...]:
    """Return the masters of a night: in its directory, and in Bias, Flat and Dark.

    `night_dir` is one of `Layout.master_places`. Filter and exposure are the header's, else what
    the name says (``mflatV``, ``mdark180``). Raises OSError when a directory is closed to us.
    """
    return tuple(_found_master(path) for path in _master_files(night_dir))


def master_signatures(night_dir: Path) -> dict[FrameKind, str]:
    """Return, by kind, what files of masters lie in a night: names, sizes and times.

    No file is opened. A kind without any has no entry.
    """
    files: dict[FrameKind, list[Path]] = defaultdict(list)
    for path in _master_files(night_dir):
        parsed = _parsed_master_name(FITS_NAME.sub("", path.name))
        assert parsed is not None
        files[parsed[0]].append(path)
    return {kind: signature(paths) for kind, paths in files.items()}


def _master_files(night_dir: Path) -> Iterator[Path]:
    directories = [night_dir]
    for entry in _entries(night_dir):
        kind = kind_of_directory(entry.name)
        if kind not in {None, FrameKind.LIGHT} and _is_directory(entry):
            directories.append(night_dir / entry.name)
    for directory in directories:
        for entry in _entries(directory):
            is_master = MASTER_NAME.match(entry.name) and FITS_NAME.search(entry.name)
            if is_master and not _is_directory(entry):
                yield directory / entry.name


def _found_master(path: Path) -> FoundMaster:
    parsed = _parsed_master_name(FITS_NAME.sub("", path.name))
    assert parsed is not None
    kind, filter, exposure_s = parsed
    try:
        header = read_header(path)
    except UnreadableFrame as error:
        return FoundMaster(
            path=path,
            kind=kind,
            filter=filter,
            exposure_s=exposure_s,
            group=None,
            our_hash=None,
            reason=error.reason,
        )
    stated_s = headers.exposure_s(header)
    return FoundMaster(
        path=path,
        kind=kind,
        filter=(headers.filter_name(header) or filter) if kind is FrameKind.FLAT else None,
        exposure_s=exposure_s if stated_s is None else stated_s,
        group=frame_group(header),
        our_hash=headers.text(header, HASH_CARD),
    )


def _parsed_master_name(stem: str) -> tuple[FrameKind, str | None, float | None] | None:
    """Return kind, filter and exposure in seconds that ``mflatV``, ``mdark180`` say."""
    found = MASTER_NAME.match(stem)
    if found is None:
        return None
    kind = FrameKind(found["kind"].lower())
    words = GROUP_SUFFIX.sub("", found["rest"]).strip("-_ ") or None
    exposure_s = headers.as_number((words or "").rstrip("s")) if kind is FrameKind.DARK else None
    return kind, words if kind is FrameKind.FLAT else None, exposure_s


# --------------------------------------------------------------------- the observer's own library

_VALIDITY = re.compile(r"[-_ ]?(?P<first>\d{8})?-(?P<last>\d{8})?$")
_DATE_AT_END = re.compile(r"\d{8}$")


@dataclass(frozen=True, slots=True, kw_only=True)
class LibraryFile:
    """A master that the observer supplies, as its name and ``wombat.toml`` describe it.

    None is not said: the header tells. `reason` says why it cannot be used.
    """

    path: Path
    kind: FrameKind | None
    filter: str | None = None
    exposure_s: float | None = None
    valid_from: dt.date | None = None
    valid_until: dt.date | None = None
    forced: bool = False
    reason: str | None = None


def library_files(settings: Settings) -> tuple[LibraryFile, ...]:
    """Return the masters of the ``[[master]]`` entries and of the library's directory.

    Names are ``mbias``, ``mdark60`` or ``mflatV``, with the nights they are for:
    ``mflatV_20250101-20250430.fits``, ``mbias_20250101-.fits``; without, they are for every night.
    What an entry says comes before the name. No file is opened.
    """
    entries = [_library_entry(settings.path(entry.file), entry) for entry in settings.master]
    named = {file.path for file in entries}
    directory = _library_directory(settings)
    if directory is None:
        return tuple(entries)
    if not directory.is_dir():
        gone = "directory of the library is not there"
        return (*entries, LibraryFile(path=directory, kind=None, reason=gone))
    found = [
        _named_master(directory / entry.name)
        for entry in _entries_if_open(directory)
        if FITS_NAME.search(entry.name)
        and not _is_directory(entry)
        and directory / entry.name not in named
    ]
    return (*entries, *found)


def library_signature(settings: Settings) -> str:
    """Return a text that changes with the files of the library and what is said of them.

    Empty without a library. No file is opened.
    """
    lines = []
    for file in library_files(settings):
        try:
            status = file.path.stat()
            state = f"{status.st_size}\0{status.st_mtime_ns}"
        except OSError:
            state = "gone"
        lines.append(f"{file}\0{state}\n")
    if not lines:
        return ""
    return hashlib.sha256("".join(sorted(lines)).encode(errors="surrogateescape")).hexdigest()[:16]


def _library_directory(settings: Settings) -> Path | None:
    library = settings.calibration.library
    return settings.path(library) if library is not None else None


def _supplied(settings: Settings) -> tuple[Path, ...]:
    directory = _library_directory(settings)
    files = [settings.path(entry.file) for entry in settings.master]
    return (*files, *(() if directory is None else (directory,)))


def _library_entry(path: Path, entry: MasterSettings) -> LibraryFile:
    """Return what ``wombat.toml`` says of a master, and its name where the entry is silent."""
    named = _named_master(path)
    says_when = entry.valid_from is not None or entry.valid_until is not None
    kind = FrameKind(entry.kind) if entry.kind is not None else named.kind
    is_of_that_kind = kind is named.kind
    reason = None if says_when or named.kind is None else named.reason
    if kind is None:
        reason = f"[[master]] says no kind, and neither does the name {path.name}"
    return LibraryFile(
        path=path,
        kind=kind,
        filter=entry.filter or (named.filter if is_of_that_kind else None),
        exposure_s=entry.exposure_s or (named.exposure_s if is_of_that_kind else None),
        valid_from=entry.valid_from if says_when else named.valid_from,
        valid_until=entry.valid_until if says_when else named.valid_until,
        forced=entry.forced,
        reason=reason,
    )


def _named_master(path: Path) -> LibraryFile:
    """Return what the name of a library's file says: ``mflatV_20250101-20250430.fits``."""
    stem = FITS_NAME.sub("", path.name)
    validity = _VALIDITY.search(stem)
    if validity is not None and not (validity["first"] or validity["last"]):
        validity = None
    parsed = _parsed_master_name(stem[: validity.start()] if validity else stem)
    if parsed is None:
        return LibraryFile(
            path=path, kind=None, reason="not named mbias, mdark or mflat: not taken for a master"
        )
    kind, filter, exposure_s = parsed
    first, last, reason = None, None, None
    if validity is not None:
        try:
            first, last = (
                dt.datetime.strptime(day, "%Y%m%d").date() if day else None  # noqa: DTZ007 - a date
                for day in (validity["first"], validity["last"])
            )
        except ValueError:
            reason = f"{validity[0].lstrip('-_ ')} is no range of dates"
        if first is not None and last is not None and first > last:
            reason = f"valid from {first} until {last}: the wrong way round"
    elif _DATE_AT_END.search(stem):
        reason = f"{stem[-8:]} is no range of dates, {stem[-8:]}- is one"
    return LibraryFile(
        path=path,
        kind=kind,
        filter=filter,
        exposure_s=exposure_s,
        valid_from=first,
        valid_until=last,
        reason=reason,
    )


# -------------------------------------------------------------------------------- sorting the flats

Journal = Callable[[Mapping[str, str]], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class SortedFlats:
    """What `sort_flats` did: pairs of old and new path below the data root, and what it met."""

    moved: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()


def sort_flats(
    night_dir: Path,
    frames: Iterable[RawFrame],
    *,
    mode: Literal["move", "link", "off"],
    journal: Journal | Path | None = None,
) -> SortedFlats:
    """Sort the flats of several filters in one directory into ``Flat/FlatV``, ``Flat/FlatB``, …

    `frames` are the night's (others are ignored). Only flats whose own header names the filter are
    touched, and only in a directory that holds more than one filter. A move is a rename on the
    same volume; a place that is taken stays as it is, with a warning. Every move is journalled
    before and after (default: ``.wombat/moves.jsonl`` below the data root). Interrupted, it can be
    run again; on a disk that cannot be written it does nothing and says so. Scan again afterwards.
    """
    if mode == "off":
        return SortedFlats()
    data_root = night_dir.parent
    moves = _planned_moves(night_dir, frames)
    if not moves:
        return SortedFlats()
    record = journal if callable(journal) else _journal_file(journal or data_root / JOURNAL)
    moved: list[tuple[str, str]] = []
    warnings: list[str] = []
    for source, destination in moves:
        old, new = (p.relative_to(data_root).as_posix() for p in (source, destination))
        entry = {"mode": mode, "from": old, "to": new}
        try:
            if _is_done(source, destination, mode=mode):
                continue
            _check_writable(source.parent)
            record({"event": "intended", **entry})
            _place(source, destination, mode=mode)
            record({"event": "done", **entry})
        except FileExistsError:
            warnings.append(f"{old} not moved: {new} is there already")
        except FileNotFoundError:
            warnings.append(f"{old} not moved: it is no longer there")
        except OSError as error:
            warnings.append(f"flats left where they are: {error.strerror} ({old})")
            break  # a disk that refuses one will refuse all
        else:
            moved.append((old, new))
    return SortedFlats(moved=tuple(moved), warnings=tuple(warnings))


def _planned_moves(night_dir: Path, frames: Iterable[RawFrame]) -> list[tuple[Path, Path]]:
    """Return (from, to) for every flat that lies mixed with other filters."""
    by_directory: dict[Path, list[tuple[Path, str]]] = defaultdict(list)
    below_root: dict[Path, set[str]] = defaultdict(set)
    for frame in frames:
        names_filter = not any(words.startswith(FILTER_ASSUMED) for words in frame.warnings)
        if frame.night_directory != night_dir.name or frame.kind is not FrameKind.FLAT:
            continue
        path = night_dir.parent / frame.path
        # A relative link would lead nowhere from another directory: it stays.
        if frame.filter is None or not names_filter or path.is_symlink():
            continue
        root = night_dir / path.relative_to(night_dir).parts[0]
        by_directory[path.parent].append((path, frame.filter))
        below_root[root].add(frame.filter)
    moves = []
    for directory, members in sorted(by_directory.items()):
        root = night_dir / directory.relative_to(night_dir).parts[0]
        filters = {filter for _, filter in members}
        # The root itself counts as mixed while sorted ones lie below it: a killed run goes on.
        is_mixed = len(filters) > 1 or (directory == root and len(below_root[root]) > 1)
        for path, filter in sorted(members) if is_mixed else ():
            place = root / f"Flat{filter_part(filter, below_root[root])}"
            if place != directory:
                moves.append((path, place / path.name))
    return moves


def _is_done(source: Path, destination: Path, *, mode: str) -> bool:
    """Return whether an earlier run has linked this flat already."""
    return mode == "link" and destination.exists() and source.samefile(destination)


def _check_writable(directory: Path) -> None:
    """Raise OSError for a read-only disk or directory, before anything is journalled."""
    if not os.access(directory, os.W_OK):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(directory))


def _place(source: Path, destination: Path, *, mode: str) -> None:
    """Give `source` its new name, keeping the old one in mode link; never replaces a file.

    Raises FileExistsError when the place is taken by another file.
    """
    destination.parent.mkdir(exist_ok=True)
    try:
        os.link(source, destination)  # unlike a rename, this fails when the place is taken
    except FileExistsError:
        if mode == "link" or not source.samefile(destination):
            raise
        # The same file under both names: an earlier run was killed before the last step.
    except (OSError, NotImplementedError) as error:
        if isinstance(error, FileNotFoundError):
            raise
        _place_without_hard_links(source, destination, mode=mode)
        return
    if mode == "move":
        source.unlink()


def _place_without_hard_links(source: Path, destination: Path, *, mode: str) -> None:
    """Do as `_place` on a volume that knows no hard links (exFAT, many network shares)."""
    if os.path.lexists(destination):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(destination))
    if mode == "move":
        source.rename(destination)  # fails across volumes, which is wanted: nothing is copied
    else:
        destination.symlink_to(os.path.relpath(source, destination.parent))


def _journal_file(path: Path) -> Journal:
    """Return a journal that appends one JSON line per event, on the disk before it returns."""

    def record(entry: Mapping[str, str]) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        time = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
        with path.open("a", encoding="utf-8") as handle:
            handle.write(json.dumps({"time": time, **entry}, ensure_ascii=False) + "\n")
            handle.flush()
            os.fsync(handle.fileno())

    return record
