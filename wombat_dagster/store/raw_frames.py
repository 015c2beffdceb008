"""What a raw file says of itself, with the reason when it cannot be used.

What the cards mean is in `headers`, how files are read in `frames`.
"""

import datetime as dt
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from astropy.io import fits

from wombat_dagster.domain import FrameGroup, FrameKind, RawFrame
from wombat_dagster.store import headers
from wombat_dagster.store.frames import (
    HASH_CARD,
    UnreadableFrame,
    array_hash,
    image_size,
    read_header,
    read_image,
)

MAX_EXPOSURE_S = 86400.0
MAX_ABOVE_SET_POINT_C = 3.0  # warmer, the cooler has not arrived or cannot keep up

FilterOfCamera = Callable[[str | None], str | None]
"""The filter that the configuration gives to a camera's frames that name none, or None."""

SectionsOfCamera = Callable[[str | None], tuple[str | None, str | None]]
"""The FITS sections of overscan and trim that the configuration gives to a camera, or None."""

FILTER_ASSUMED = "no FILTER card: "
"""Beginning of the warning on a frame whose filter is not from its header."""
SECTIONS_CONFIGURED = "from the configuration: "
"""Beginning of the warning on a frame whose sections are not its header's."""
ALREADY_CALIBRATED = "already calibrated by another program: "
"""Beginning of the warning on a frame that was calibrated before; the cards stand in brackets."""


def read_raw_frame(
    path: Path,
    *,
    data_root: Path,
    night_directory: str,
    date: dt.date,
    kind: FrameKind,
    target: str | None = None,
    directory_filter: str | None = None,
    filter_of_camera: FilterOfCamera | None = None,
    sections_of_camera: SectionsOfCamera | None = None,
    known_hash: str | None = None,
) -> RawFrame:
    """Return everything a raw file says, with the reason when it cannot be used.

    `kind` and `target` are what the directory says; `directory_filter` is the filter the file's
    directory is named for and, like `filter_of_camera`, serves when the header has none;
    `sections_of_camera` comes before the header. Only what one file alone shows is judged here;
    `layout.scan_data` compares the frames of a night. A bad file never raises: the frame comes back
    with a `reason`. With `known_hash`, the hash of its pixels, only the header is read.
    """
    frame: dict[str, Any] = {
        "path": path.relative_to(data_root).as_posix(),
        "night_directory": night_directory,
        "date": date,
        "kind": kind,
        "target": target,
        "size_bytes": 0,
        "mtime_ns": 0,
    }
    try:
        status = path.stat()
        frame |= {"size_bytes": status.st_size, "mtime_ns": status.st_mtime_ns}
        if known_hash is None:
            pixels, header = read_image(path)
            pixel_hash = array_hash(pixels)
        else:
            header, pixel_hash = read_header(path), known_hash
    except UnreadableFrame as error:
        return RawFrame(**frame, **_nothing_known(), reason=error.reason)
    except OSError as error:
        words = f"cannot be read: {error.strerror or error}"
        return RawFrame(**frame, **_nothing_known(), reason=words)
    filter, assumed = None, None  # of a bias or dark: no light came through one
    if kind in {FrameKind.FLAT, FrameKind.LIGHT}:
        filter, assumed = _filter_of(
            header, directory_filter=directory_filter, filter_of_camera=filter_of_camera
        )
    group = frame_group(header)
    configured = sections_of_camera(group.camera) if sections_of_camera else (None, None)
    overscan, trim, about_sections = _sections(header, group, configured)
    if trim is not None:
        width_px, height_px = headers.section_size(trim)
        group = replace(group, width_px=width_px, height_px=height_px)
    return RawFrame(
        **frame,
        **_facts(header),
        group=group,
        overscan=overscan,
        trim=trim,
        filter=filter,
        pixel_hash=pixel_hash,
        warnings=(*_warnings_of(header, date, assumed), *about_sections),
        reason=_reason_against(header, kind=kind, filter=filter),
    )


def _nothing_known() -> dict[str, Any]:
    """Return None for every field of a RawFrame that only a readable file can fill."""
    known_without = {"path", "night_directory", "date", "kind", "target", "size_bytes", "mtime_ns"}
    with_defaults = {"warnings", "reason", "overscan", "trim"}
    names = {field.name for field in fields(RawFrame)} - known_without - with_defaults
    return dict.fromkeys(names)


def frame_group(header: fits.Header) -> FrameGroup:
    """Return what a frame must share with another to be combined with it, before any trimming.

    `header` is from `read_image` or `read_header`, whose NAXIS1 and NAXIS2 are the image's.
    """
    width_px, height_px = image_size(header)
    readout = (headers.readout(header), headers.subframe_origin(header))
    return FrameGroup(
        width_px=width_px,
        height_px=height_px,
        binning=headers.binning(header),
        camera=headers.camera(header),
        readout=" ".join(words for words in readout if words) or None,
    )


def configured_sections_words(overscan: str | None, trim: str | None) -> str | None:
    """Return the warning on a frame of a camera with configured sections; None without any."""
    sections = {"overscan": overscan, "trim": trim}
    words = ", ".join(f"{name} {section}" for name, section in sections.items() if section)
    return f"{SECTIONS_CONFIGURED}{words}" if words else None


def _sections(
    header: fits.Header, group: FrameGroup, configured: tuple[str | None, str | None]
) -> tuple[str | None, str | None, tuple[str, ...]]:
    """Return overscan and trim, the configured before the header's, and what to say of them.

    What lies outside the image is no section of it. An overscan that the trimmed image would hold
    has seen light.
    """
    size = {"width_px": group.width_px, "height_px": group.height_px}
    overscan, trim = (headers.section(words, **size) for words in configured)
    about = configured_sections_words(*configured)
    words = [] if about is None else [about]
    for name, stated, usable in zip(
        ("overscan", "trim"), configured, (overscan, trim), strict=True
    ):
        if stated is not None and usable is None:
            words.append(
                f"configured {name} {stated} is no part of the image of"
                f" {group.width_px}x{group.height_px}: ignored"
            )
    overscan = overscan or headers.overscan(header, **size)
    trim = trim or headers.trim(header, **size)
    if trim == f"[1:{group.width_px},1:{group.height_px}]":
        trim = None
    if overscan is not None and trim is not None and headers.sections_overlap(overscan, trim):
        words.append(f"overscan {overscan} overlaps with the image kept, {trim}: ignored")
        overscan = None
    return overscan, trim, tuple(words)


def _facts(header: fits.Header) -> dict[str, Any]:
    """Return the fields of a RawFrame that the header alone gives."""
    position = headers.position_hint_deg(header)
    gain = headers.gain_e_adu(header)
    return {
        "exposure_s": headers.exposure_s(header),
        "start_utc": headers.start_utc(header),
        "ccd_temperature_c": headers.ccd_temperature_c(header),
        "ra_hint_deg": position[0] if position else None,
        "dec_hint_deg": position[1] if position else None,
        "scale_hint_arcsec_px": headers.scale_hint_arcsec_px(header),
        "site_hint": headers.site_hint(header),
        "airmass_header": headers.airmass(header),
        "gain_header_e_adu": gain.value if gain else None,
        "gain_header_source": gain.source if gain else None,
        "read_noise_header_e": headers.read_noise_e(header),
        "saturation_header_adu": headers.saturation_adu(header),
        "pedestal_adu": headers.pedestal_adu(header),
        "bayer_pattern": headers.bayer_pattern(header),
        "calibration_status": headers.calibration_status(header),
    }


def _filter_of(
    header: fits.Header,
    *,
    directory_filter: str | None,
    filter_of_camera: FilterOfCamera | None,
) -> tuple[str | None, str | None]:
    """Return the filter, and the warning when it is not from the header."""
    if (stated := headers.filter_name(header)) is not None:
        return stated, None
    if directory_filter is not None:
        return directory_filter, f"{FILTER_ASSUMED}{directory_filter} from the directory's name"
    configured = filter_of_camera(headers.camera(header)) if filter_of_camera else None
    if configured is not None:
        return configured, f"{FILTER_ASSUMED}{configured} from the configuration"
    return None, None


def _reason_against(header: fits.Header, *, kind: FrameKind, filter: str | None) -> str | None:
    """Return why a readable frame cannot be used as the `kind` its directory says, or None."""
    if HASH_CARD in header:
        return f"made by wombat ({HASH_CARD} card), not a raw frame"
    if (combined := headers.combined_words(header)) is not None:
        return f"already combined ({combined}), not a raw frame"
    stated = headers.kind(header)
    if stated is not None and stated is not kind:
        return f"header says {stated} frame, directory says {kind}"
    if (pattern := headers.bayer_pattern(header)) is not None:
        return f"colour-matrix frame ({pattern}), never measured as mono"
    if kind in {FrameKind.FLAT, FrameKind.LIGHT} and filter is None:
        return "no FILTER in header, directory name or configuration; never taken for clear"
    exposure_s = headers.exposure_s(header)
    if kind is not FrameKind.BIAS and exposure_s is None:
        return "no exposure time in header (EXPTIME, EXPOSURE, EXP_TIME, TM-START)"
    if exposure_s is not None and exposure_s > MAX_EXPOSURE_S:
        return f"exposure time is {exposure_s:g} s"
    if kind is FrameKind.LIGHT and exposure_s == 0.0:
        return "exposure time is 0 s"
    if kind is FrameKind.LIGHT and headers.start_utc(header) is None:
        return f"notime: no usable date and time in header ({_time_cards(header)})"
    return None


def _time_cards(header: fits.Header) -> str:
    words = [
        f"{keyword}={value!r}"
        for keyword in ("DATE-OBS", "TIME-OBS", "UT", "JD", "MJD-OBS")
        if (value := headers.card_value(header, keyword)) is not None
    ]
    return ", ".join(words) or "no DATE-OBS, JD or MJD"


def _warnings_of(header: fits.Header, date: dt.date, assumed: str | None) -> tuple[str, ...]:
    """Return what an observer should know of a usable frame."""
    words = [assumed] if assumed else []
    if (done := headers.calibration_status(header)) is not None:
        steps, source = headers.calibration_words(done), headers.calibration_source(header)
        words.append(f"{ALREADY_CALIBRATED}{steps} ({source})")
    if done is None and (stated := headers.strange_calstat(header)) is not None:
        words.append(f"CALSTAT {stated!r} is not understood: taken for a raw frame")
    at_c, wanted_c = headers.ccd_temperature_c(header), headers.set_temperature_c(header)
    if at_c is not None and wanted_c is not None and at_c - wanted_c > MAX_ABOVE_SET_POINT_C:
        words.append(
            f"CCD at {at_c:+.1f} C, {at_c - wanted_c:.1f} above its set point of {wanted_c:+.1f} C"
        )
    start = headers.start_utc(header)
    if start is None:
        return tuple(words)
    source = headers.start_source(header)
    if source in headers.MJD_CARDS:
        words.append(f"start of exposure from {source}, which may be rounded")
    days = (dt.date.fromisoformat(start[:10]) - date).days
    if abs(days) > 1:
        words.append(f"taken {start[:10]}, {abs(days)} days from the night's {date.isoformat()}")
    return tuple(words)
