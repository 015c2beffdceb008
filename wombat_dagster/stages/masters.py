"""Makes the master frames of a night: which frames, which are refused, where the result lies.

The pixels are combined in `stacking`. Every master of ours is made of raw counts plus PEDESTAL, or
of raw counts less their overscan, trimmed, so that it can be subtracted from any frame treated
likewise. An existing master that a person made is used and never overwritten; one of ours
is made again only when its inputs change. It lies in the night's directory, or in the products
where that cannot be written: there it stays, since it is the same, until it has to be made again.
"""

import datetime as dt
import errno
import hashlib
import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from astropy.io import fits

from wombat_dagster.domain import FrameKind, Master, NoCalibration, RawFrame
from wombat_dagster.observatory import Observatory
from wombat_dagster.science import calibration, matching
from wombat_dagster.stages.library import available_masters
from wombat_dagster.stages.stacking import (
    MAX_REFUSALS_IN_WORDS,
    SUBTRACTED_BEFORE,
    CombinedUnit,
    Offset,
    PreparedFrames,
    Unit,
    combine_unit,
    twilights_of,
)
from wombat_dagster.store import headers
from wombat_dagster.store.frames import (
    UnreadableFrame,
    array_hash,
    card_text,
    provenance_hash,
    read_header,
    read_master,
    write_master,
)
from wombat_dagster.store.layout import (
    FILTER_DIRECTORIES,
    FoundMaster,
    change_since,
    find_masters,
)
from wombat_dagster.store.stacks import FrameStack

log = logging.getLogger(__name__)

RECIPE = "2"  # another number makes every master of ours again
INPUTS_CARD = "WOMBINP"
SCRATCH = ".scratch"  # below the products: hidden, and a disk
NOISE_NEGLECTED = "gain measured without the read noise, which is not known"
MAX_FLAT_DARK_DIFFERENCE_C = 5.0  # where no limit is configured
NOT_WRITABLE = frozenset((errno.EROFS, errno.EACCES, errno.EPERM))


def units_of(frames: Iterable[RawFrame]) -> list[Unit]:
    """Return the masters that the usable calibration frames of one kind can make."""
    found: dict[tuple[Any, ...], list[RawFrame]] = defaultdict(list)
    for frame in frames:
        if frame.reason is None and frame.group is not None:
            exposure = frame.exposure_s if frame.kind is FrameKind.DARK else None
            filter = frame.filter if frame.kind is FrameKind.FLAT else None
            found[frame.kind, frame.date, frame.group, filter, exposure].append(frame)
    return [
        Unit(kind=kind, date=date, group=group, filter=filter, exposure_s=exposure, frames=tuple(f))
        for (kind, date, group, filter, exposure), f in found.items()
    ]


def make_masters(observatory: Observatory, date: dt.date, kind: FrameKind) -> tuple[Master, ...]:
    """Make, or find, every master of one kind of a night.

    Raises
    ------
    NoCalibration
        There is not one; the message says why for each that was tried.
    """
    frames = observatory.status.night_frames(date, kind)
    theirs = _personal_masters(observatory, date, kind)
    made, shortfalls = list(theirs), []
    units = units_of(frames)
    for unit in units:
        if any(_serves(master, unit) for master in theirs):
            continue
        try:
            made.append(_make_master(observatory, unit))
        except NoCalibration as shortfall:
            shortfalls.append(str(shortfall))
    observatory.status.forget_masters(date, kind, keep=[master.path for master in made])
    observatory.status.record_masters(made)
    if not made:
        nothing = f"no usable {kind.value} frames on {date}"
        raise NoCalibration("; ".join(shortfalls) or nothing)
    for words in shortfalls:
        log.warning("%s", words)
    return tuple(made)


def _serves(master: Master, unit: Unit) -> bool:
    return (
        master.group.shape_words == unit.group.shape_words
        and master.filter == unit.filter
        and (unit.exposure_s is None or master.exposure_s == unit.exposure_s)
    )


def _personal_masters(observatory: Observatory, date: dt.date, kind: FrameKind) -> list[Master]:
    """Return the masters of the night that wombat did not make."""
    found = []
    for place in observatory.layout.master_places(date):
        for file in find_masters(place):
            if file.kind is not kind:
                continue
            if file.our_hash is not None and observatory.status.is_our_master(file.our_hash):
                continue
            try:
                found.append(_as_master(observatory, file, date))
            except (UnreadableFrame, OSError) as error:
                log.warning("%s cannot be used as a master: %s", file.path, error)
    return found


def _as_master(observatory: Observatory, file: FoundMaster, date: dt.date) -> Master:
    """Return the observer's master. Raises `UnreadableFrame` when it cannot serve as one."""
    if file.group is None or file.reason is not None:
        raise UnreadableFrame(file.reason or "no image")
    if file.kind is FrameKind.DARK and not file.exposure_s:
        raise UnreadableFrame("a dark without an exposure time")
    image, _, header = read_master(file.path)
    n_stated = headers.number(header, "NCOMBINE")
    notes = ["supplied by the observer"]
    if n_stated is None:
        notes.append("NCOMBINE not stated: counted as one frame")
    return Master(
        kind=file.kind,
        date=date,
        filter=file.filter,
        group=replace(file.group, readout=None),  # its header need not be a raw frame's
        path=observatory.layout.master_words(file.path),
        content_hash=array_hash(image),
        n_used=int(n_stated or 1),
        n_refused=0,
        exposure_s=file.exposure_s,
        made_by_us=False,
        pedestal_adu=headers.pedestal_adu(header),
        notes=tuple(notes),
    )


def _make_master(observatory: Observatory, unit: Unit) -> Master:
    settings = observatory.settings.calibration
    unit, refusals, offset = _begun(observatory, unit)
    path = _free_path(observatory, unit)
    known = {master.path: master for master in observatory.status.masters(unit.kind)}
    inputs = _inputs_hash(observatory, unit, offset)
    for place in (path, _in_products(observatory, unit.date, path)):
        before = known.get(observatory.layout.master_words(place))
        is_same = before is not None and _inputs_card(place) == inputs
        if before is not None and is_same and _holds(place, before.content_hash):
            return before
    whole = unit
    unit, changed = _without_changed(observatory, unit)
    refusals += changed
    paths = [observatory.layout.data / frame.path for frame in unit.frames]
    try:
        with FrameStack(paths, observatory.layout.products / SCRATCH) as stack:
            refusals += [
                f"{Path(unit.frames[i].path).name}: {w}" for i, w in stack.unreadable.items()
            ]
            left = tuple(f for i, f in enumerate(unit.frames) if i not in stack.unreadable)
            unit = replace(unit, frames=left)
            calibration.refuse_too_few(
                len(left), settings.min_frames, _words_without(unit, refusals)
            )
            made = combine_unit(observatory, PreparedFrames(stack, left), unit, offset, refusals)
    except (UnreadableFrame, ValueError) as error:
        raise NoCalibration(f"{unit.words}: {error}") from error
    if changed := _without_changed(observatory, unit)[1]:  # while they were read
        raise NoCalibration(f"{unit.words}: {changed[0]}")
    if made.gain is not None and offset.frame_noise_adu is None:
        made = replace(made, notes=(*made.notes, NOISE_NEGLECTED))
    if unit != whole:  # the next run takes the frames that can be read by then
        inputs = _inputs_hash(observatory, unit, offset)
    header = _provenance(unit, offset, made, inputs)
    # Before the file: a crash between the two must not make ours look like the observer's.
    observatory.status.remember_our_master(array_hash(made.image.astype(np.float32)))
    place, content_hash, note = _written(observatory, unit, path, header, made)
    return Master(
        kind=unit.kind,
        date=unit.date,
        filter=unit.filter,
        group=unit.group,
        path=observatory.layout.master_words(place),
        content_hash=content_hash,
        n_used=made.n_used,
        n_refused=len(made.refusals),
        exposure_s=unit.exposure_s,
        ccd_temperature_c=_temperature_c(unit),
        rejected_fraction=made.rejected_fraction,
        noise=made.noise,
        bias_hash=offset.bias_hash,
        pedestal_adu=0.0,  # that of the frames is in the counts
        notes=(*made.refusals, *made.notes, *note),
        **{
            name: value
            for quantity, names in _MEASURED_FIELDS.items()
            if (measured := getattr(made, quantity)) is not None
            for name, value in zip(names, (measured.value, measured.error), strict=True)
        },
    )


def _without_changed(observatory: Observatory, unit: Unit) -> tuple[Unit, list[str]]:
    """Return the unit without the frames that became others since they were looked at, and which.

    Of one that is gone nothing is said here: it cannot be read.
    """
    changes = [change_since(f, observatory.layout.raw_path(f.path)) for f in unit.frames]
    both = list(zip(unit.frames, changes, strict=True))
    left = tuple(frame for frame, change in both if change is None)
    words = [f"{Path(f.path).name}: {change}" for f, change in both if change is not None]
    return replace(unit, frames=left), words


def _written(
    observatory: Observatory, unit: Unit, path: Path, header: fits.Header, made: CombinedUnit
) -> tuple[Path, str, tuple[str, ...]]:
    """Write a master; return where it lies, its content hash, and a note if not at `path`.

    Where the data cannot be written it goes to the products, with one warning a night.

    Raises
    ------
    NoCalibration
        The observer's own file has its name there.
    """
    aside = _in_products(observatory, unit.date, path)
    try:
        content_hash = write_master(path, made.image, header, made.mask)
    except OSError as error:
        if error.errno not in NOT_WRITABLE:
            raise
        why = os.strerror(error.errno)
    else:
        if aside.exists() and _is_ours(observatory, aside):
            aside.unlink()  # of when the data could not be written
        return path, content_hash, ()
    if aside.exists() and not _is_ours(observatory, aside):
        raise NoCalibration(f"{unit.words}: the observer's {aside} stays as it is")
    told = aside.parent.exists()
    content_hash = write_master(aside, made.image, header, made.mask)
    words = f"{path.parent} cannot be written ({why}): its masters are put into {aside.parent}"
    log.log(logging.DEBUG if told else logging.WARNING, "%s", words)
    note = f"lies in the products: {path.parent.name} in the data cannot be written ({why})"
    return aside, content_hash, (note,)


def _in_products(observatory: Observatory, date: dt.date, path: Path) -> Path:
    """Return where the master goes that would lie at `path`, if that cannot be written."""
    return observatory.layout.masters_dir(date) / path.name


def _begun(observatory: Observatory, unit: Unit) -> tuple[Unit, list[str], Offset]:
    """Return what a master begins with: the frames that go together, what is subtracted.

    Raises
    ------
    NoCalibration
        There are too few, or nothing can be subtracted from them.
    """
    least = observatory.settings.calibration.min_frames
    calibration.refuse_too_few(len(unit.frames), least, unit.words)
    unit, refusals = _alike(unit)
    calibration.refuse_too_few(len(unit.frames), least, _words_without(unit, refusals))
    return unit, refusals, _offset_of(observatory, unit)


def outdated_masters(
    observatory: Observatory, date: dt.date, *, tried: Mapping[str, str]
) -> list[str]:
    """Return what of a night's masters would be made otherwise now, in words.

    They are when a bias or dark of another night that would be subtracted is another than then.
    `tried` is what they were last begun with, as `inputs_of_masters` said then: of the same nothing
    else comes, as of flats that are saturated. Headers alone are read.
    """
    outdated, layout = [], observatory.layout
    for kind in (FrameKind.DARK, FrameKind.FLAT):
        made = {master.path for master in observatory.status.masters(kind)}
        for path, inputs in inputs_of_masters(observatory, date, kind).items():
            if tried.get(path) == inputs:
                continue
            name = PurePosixPath(path).name
            aside = layout.master_words(layout.masters_dir(date) / name)
            lies = [place for place in (path, aside) if place in made]
            if not lies:
                outdated.append(f"{name} can be combined now")
            elif all(_inputs_card(layout.raw_path(place)) != inputs for place in lies):
                outdated.append(f"{name}: another bias or dark to subtract")
    return outdated


def inputs_of_masters(observatory: Observatory, date: dt.date, kind: FrameKind) -> dict[str, str]:
    """Return the hash of all that each master of a night would be made of now, by its path.

    That is the one in the data, wherever it lies. Without those that the observer's own masters
    stand for, and those that have too few frames or nothing to be subtracted.
    """
    theirs = [m for m in observatory.status.masters(kind) if m.date == date and not m.made_by_us]
    found = {}
    for unit in units_of(observatory.status.night_frames(date, kind)):
        if any(_serves(master, unit) for master in theirs):
            continue
        try:
            begun, _, offset = _begun(observatory, unit)
            path = _free_path(observatory, begun)
        except NoCalibration:
            continue
        inputs = _inputs_hash(observatory, begun, offset)
        found[observatory.layout.relative_to_data(path)] = inputs
    return found


_MEASURED_FIELDS = {
    "read_noise": ("read_noise_adu", "read_noise_error_adu"),
    "gain": ("gain_e_adu", "gain_error_e_adu"),
    "dark_current": ("dark_current_adu_s", "dark_current_error_adu_s"),
}


# ------------------------------------------------------------------------ which frames are combined


def _alike(unit: Unit) -> tuple[Unit, list[str]]:
    """Return the unit without the frames that cannot go with the others, and why they cannot."""
    refusals: list[str] = []

    def refuse(reason_of: Callable[[RawFrame], str | None]) -> None:
        nonlocal unit
        reasons = [reason_of(frame) for frame in unit.frames]
        refusals.extend(
            f"{Path(frame.path).name}: {reason}"
            for frame, reason in zip(unit.frames, reasons, strict=True)
            if reason is not None
        )
        left = (f for f, reason in zip(unit.frames, reasons, strict=True) if reason is None)
        unit = replace(unit, frames=tuple(left))

    refuse(lambda frame: _done_before(frame, unit.kind))
    refuse(_unlike_most(unit.frames, lambda f: f.steps_done, lambda f: _calstat_words(f)))
    refuse(_unlike_most(unit.frames, lambda f: (f.overscan, f.trim), _section_words))
    if unit.kind is FrameKind.FLAT:
        contradicted = [f for f in unit.frames if _contradiction(f) is not None]
        if 2 * len(contradicted) < len(unit.frames):
            refuse(_contradiction)
    return unit, refusals


_DONE_WORDS = {"bias": "bias-subtracted", "dark": "dark-subtracted", "flat": "flat-fielded"}
_NOT_BEFORE = {
    FrameKind.BIAS: ("bias", "dark", "flat"),
    FrameKind.DARK: ("dark", "flat"),
    FrameKind.FLAT: ("flat",),
}
"""What must not have been done to a frame that a master of the kind is made of."""


def _done_before(frame: RawFrame, kind: FrameKind) -> str | None:
    for step in _NOT_BEFORE[kind]:
        if step in frame.steps_done:
            return f"already {_DONE_WORDS[step]} ({_calstat_words(frame)})"
    return None


def _calstat_words(frame: RawFrame) -> str:
    return f"CALSTAT {frame.calibration_status or 'not stated'}"


def _section_words(frame: RawFrame) -> str:
    return f"overscan {frame.overscan or 'none'}, trim {frame.trim or 'none'}"


def _unlike_most(
    frames: Sequence[RawFrame],
    property_of: Callable[[RawFrame], Hashable],
    words_of: Callable[[RawFrame], str],
) -> Callable[[RawFrame], str | None]:
    """Return what says why a frame differs from most of `frames`; of equals the first is right."""
    counts = Counter(property_of(frame) for frame in frames)
    if len(counts) < 2:
        return lambda _frame: None
    right, n = counts.most_common(1)[0]
    usual = words_of(next(frame for frame in frames if property_of(frame) == right))
    return lambda frame: (
        None if property_of(frame) == right else f"{words_of(frame)}; {n} others: {usual}"
    )


def _contradiction(frame: RawFrame) -> str | None:
    """Return why the directory of a flat speaks of another filter than its header."""
    for part in reversed(PurePosixPath(frame.path).parts[1:-1]):
        after_flat = re.match(r"flats?[-_ .]?(.+)$", part, re.IGNORECASE)
        named = after_flat[1] if after_flat else part
        if named in FILTER_DIRECTORIES:
            letters = _passband_letter(named), _passband_letter(frame.filter or "")
            if None not in letters and letters[0] != letters[1]:
                return f"FILTER says {frame.filter}, the directory {part}"
            return None
    return None


def _passband_letter(filter: str) -> str | None:
    """Return the letter of B, g', Rc, SR; None for a name that may mean more than one filter."""
    found = re.fullmatch(r"s?([ubvrigz])['pc]?", filter, re.IGNORECASE)
    return found[1].casefold() if found else None


def _holds(path: Path, content_hash: str) -> bool:
    """Tell whether a master's file still has the pixels that were written."""
    try:
        return array_hash(read_master(path)[0]) == content_hash
    except (UnreadableFrame, OSError):
        return False


def _words_without(unit: Unit, refusals: Sequence[str]) -> str:
    left_out = "; ".join(refusals[:MAX_REFUSALS_IN_WORDS])
    return f"{unit.words}, left out {left_out}" if refusals else unit.words


def _free_path(observatory: Observatory, unit: Unit) -> Path:
    """Return where the master of `unit` goes: never over a file that wombat did not make.

    Raises
    ------
    NoCalibration
        Every name it could have is taken by the observer's own files.
    """
    is_main_group = unit.group.shape_words == _main_shape(observatory, unit.date)
    taken = []
    for plain_name in (True, False) if is_main_group else (False,):
        path = observatory.layout.master_path(
            min(frame.night_directory for frame in unit.frames),
            unit.kind,
            filter=unit.filter,
            exposure_s=unit.exposure_s,
            group=unit.group,
            is_main_group=plain_name,
            filters_of_night=_filters(observatory, unit.date),
        )
        if not path.exists() or _is_ours(observatory, path):
            return path
        taken.append(path.name)
    raise NoCalibration(f"{unit.words}: the observer's {' and '.join(taken)} stay as they are")


def _is_ours(observatory: Observatory, path: Path) -> bool:
    try:
        content_hash = provenance_hash(path)
    except UnreadableFrame:
        return False
    return content_hash is not None and observatory.status.is_our_master(content_hash)


def _main_shape(observatory: Observatory, date: dt.date) -> str | None:
    """Return the shape of most lights of a night (of most frames, when it has no lights)."""
    for kind in (FrameKind.LIGHT, None):
        shapes = Counter(
            frame.group.shape_words
            for frame in observatory.status.night_frames(date, kind)
            if frame.group is not None and frame.reason is None
        )
        if shapes:
            return min(shapes, key=lambda shape: (-shapes[shape], shape))
    return None


def _filters(observatory: Observatory, date: dt.date) -> set[str]:
    flats = observatory.status.night_frames(date, FrameKind.FLAT)
    return {flat.filter for flat in flats if flat.filter is not None}


# ------------------------------------------------------------------------------ what is subtracted


def _offset_of(observatory: Observatory, unit: Unit) -> Offset:
    """Return what is subtracted from the frames of `unit`.

    A dark without any bias stays bias+dark. A flat with neither is refused. The dark current of
    flats is subtracted when the same night has a dark that need not be scaled up.
    """
    if unit.kind is FrameKind.BIAS:
        return Offset()
    done = unit.frames[0].steps_done  # `_alike`
    if "dark" in done:
        return Offset(is_done=True)
    if "bias" in done:
        dark = _dark_of_flats(observatory, unit) if unit.kind is FrameKind.FLAT else None
        return Offset(dark=dark, is_done=True)
    settings = observatory.settings.calibration
    wanted = matching.Wanted(
        kind=FrameKind.BIAS,
        date=unit.date,
        group=unit.group,
        exposure_tolerance=settings.dark_exposure_tolerance,
        max_age_days=settings.max_age_days,
        ccd_temperature_c=_temperature_c(unit),
        max_temperature_difference_c=settings.max_temperature_difference_c,
    )
    bias = matching.match_master(available_masters(observatory, FrameKind.BIAS), wanted)
    if unit.kind is FrameKind.DARK:
        return Offset(level=bias.master)
    if bias.master is not None:
        return Offset(level=bias.master, dark=_dark_of_flats(observatory, unit))
    exposures = {frame.exposure_s for frame in unit.frames}
    exposure_s = exposures.pop() if len(exposures) == 1 else None
    if exposure_s is None:
        raise NoCalibration(f"{unit.words}: {bias.words}, and their exposures differ")
    own = matching.match_master(
        available_masters(observatory, FrameKind.DARK),
        replace(wanted, kind=FrameKind.DARK, exposure_s=exposure_s),
    )
    if own.master is None:
        raise NoCalibration(f"{unit.words} refused: {bias.words}; {own.words}")
    return Offset(level=own.master)


def _dark_of_flats(observatory: Observatory, unit: Unit) -> Master | None:
    """Return the night's dark for the flats of `unit`: of their exposure, else of a longer one.

    Of the same night only: another one's would make old flats again whenever a dark comes.
    """
    settings = observatory.settings.calibration
    longest_s = max(frame.exposure_s or 0.0 for frame in unit.frames)
    long_enough_s = (1 - settings.dark_exposure_tolerance) * longest_s
    wanted = matching.Wanted(
        kind=FrameKind.DARK,
        date=unit.date,
        group=unit.group,
        scaled_to_s=longest_s,
        exposure_tolerance=settings.dark_exposure_tolerance,
        max_age_days=0,
        ccd_temperature_c=_temperature_c(unit),
        max_temperature_difference_c=settings.max_temperature_difference_c
        or MAX_FLAT_DARK_DIFFERENCE_C,
    )
    darks = observatory.status.masters(FrameKind.DARK)
    fit = [dark for dark in darks if dark.exposure_s and dark.exposure_s >= long_enough_s]
    return matching.match_master(fit, wanted).master


def _temperature_c(unit: Unit) -> float | None:
    known = [f.ccd_temperature_c for f in unit.frames if f.ccd_temperature_c is not None]
    return float(np.median(known)) if known else None


def _inputs_hash(observatory: Observatory, unit: Unit, offset: Offset) -> str:
    """Return the hash of all that the master depends on: frames, offset and settings."""
    settings = observatory.settings.calibration
    words = [RECIPE, *sorted(_input_words(frame) for frame in unit.frames)]
    words += [master.content_hash for master in offset.masters] or [offset.bias_hash or "none"]
    words += [repr(settings.clip_sigma), repr(settings.min_frames)]
    if unit.kind is FrameKind.FLAT:
        saturation_adu = observatory.settings.for_camera(unit.group.camera).saturation_adu
        words += [repr(settings.flat_min_fraction), repr(settings.flat_max_fraction)]
        words.append(repr(saturation_adu))
        words += [str(twilight) for twilight in twilights_of(observatory, unit)]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


def _input_words(frame: RawFrame) -> str:
    return f"{frame.pixel_hash or frame.path} {frame.pedestal_adu} {_section_words(frame)}"


def _inputs_card(path: Path) -> str | None:
    if not path.exists():
        return None
    card: str | None = read_header(path).get(INPUTS_CARD)
    return card


def _provenance(unit: Unit, offset: Offset, made: CombinedUnit, inputs: str) -> fits.Header:
    header = fits.Header()
    header["IMAGETYP"] = f"Master {unit.kind.value.title()}"
    header["DATE-OBS"] = (unit.frames[0].start_utc or unit.date.isoformat(), "first frame, UTC")
    header["NIGHT"] = unit.date.isoformat()
    header["NCOMBINE"] = (made.n_used, "frames combined")
    header["NREFUSED"] = (len(made.refusals), "frames refused")
    header["REJFRAC"] = (made.rejected_fraction, "part of the pixel values rejected")
    header["BUNIT"] = "adu" if unit.kind is not FrameKind.FLAT else ""
    header["PEDESTAL"] = (0.0, "that of the frames is in the counts")
    header["XBINNING"], header["YBINNING"] = (int(n) for n in unit.group.binning.split("x"))
    if unit.group.camera:
        header["INSTRUME"] = card_text(unit.group.camera)
    if unit.filter is not None:
        header["FILTER"] = card_text(unit.filter)
    if unit.exposure_s is not None:
        header["EXPTIME"] = unit.exposure_s
    if (temperature_c := _temperature_c(unit)) is not None:
        header["CCD-TEMP"] = (temperature_c, "C, median of the frames")
    for measured, keyword, words in (
        (made.read_noise, "RDN", "adu, from all consecutive pairs"),
        (made.gain, "GAIN", "e-/adu, from all consecutive pairs"),
        (made.dark_current, "DARK", "adu/s per pixel"),
    ):
        if measured is not None:
            header[f"{keyword}MEAS"] = (measured.value, words)
            header[f"{keyword}ERR"] = (measured.error, "1 sigma")
    if made.noise is not None:
        header["NOISE"] = (made.noise, "of a pixel, 1 sigma, in units of the image")
    for number, master in enumerate(offset.masters, start=1):
        header[f"OFFSET{number}"] = (card_text(master.path), "subtracted from every frame")
        header[f"OFFHASH{number}"] = master.content_hash[:32]
    if offset.is_done:
        header["OFFHASH1"] = (SUBTRACTED_BEFORE, "bias subtracted by the capture program")
    header[INPUTS_CARD] = (inputs, "inputs and settings")
    for frame in unit.frames:
        header["HISTORY"] = card_text(f"input {frame.path}")
        header["HISTORY"] = f"  pixels sha256 {frame.pixel_hash}"
    for words in made.refusals:
        header["HISTORY"] = card_text(f"refused {words}")
    for words in made.notes:
        header["HISTORY"] = card_text(words)
    return header
