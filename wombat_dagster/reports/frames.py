"""A night's frames on one page: their grades with the reasons, thumbnails, numbers for programs.

The page needs no network and no other file. Names come from directories and headers: everything is
escaped.
"""

import base64
import csv
import datetime as dt
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from wombat_dagster.domain import (
    FaultKind,
    FloatArray,
    FrameGrade,
    FrameTriage,
    Grade,
    Severity,
)
from wombat_dagster.reports.drawing import DPI, QUIET_COLOUR, clean, small_png_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

JPEG_QUALITY: Final = 72
STAR_SIZE_PX: Final = 64  # on the page
SIZE_INCH: Final = (10.0, 8.6)
N_THUMBNAILS: Final = 6  # on the overview
LEAST_DIMMING_MAG: Final = 0.25  # of the axis: clear air is not to look like cloud
CAPTION_WIDTH: Final = 140
MAX_CAPTION_LINES: Final = 3

# Okabe & Ito's colours, with shapes of their own for whoever sees no colours.
MARKS: Final[Mapping[Grade, tuple[str, str]]] = {
    Grade.GOOD: ("#0072b2", "o"),
    Grade.POOR: ("#e69f00", "^"),
    Grade.BAD: ("#d55e00", "X"),
}
PANELS: Final = (
    ("sky_adu", "sky [ADU]"),
    ("fwhm_px", "FWHM [px]"),
    ("n_stars", "stars"),
    ("dimming_mag", "dimming [mag]"),
)
FAULT_WORDS: Final[Mapping[FaultKind, str]] = {
    FaultKind.CLOUD: "cloud",
    FaultKind.FOCUS: "wide stars",
    FaultKind.TRAIL: "elongated",
    FaultKind.SKY: "sky",
    FaultKind.JUMP: "jump",
    FaultKind.STARS: "odd stars",
    FaultKind.UNSOLVED: "unsolved",
    FaultKind.LOW: "low",
    FaultKind.LEFT_OUT: "left out",
}
COLUMNS: Final = (  # of the CSV, as the fields of `FrameGrade` are called
    "start_utc", "exposure_s", "grade", "used", "score", "n_stars", "fwhm_px", "axis_ratio",
    "sky_adu", "sky_rms_adu", "dimming_mag", "n_matched", "offset_x_px", "offset_y_px",
    "altitude_deg", "airmass", "solved",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """Greys of a frame's thumbnail and of one of its stars, upper row first."""

    frame: NDArray[np.uint8]
    star: NDArray[np.uint8] | None


# --------------------------------------------------------------------------------- for programs


def frames_csv(triage: FrameTriage) -> str:
    """Return the frames as CSV: one row each, all numbers, faults as words and in words."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["frame", *COLUMNS, "is_best", "faults", "reason"])
    for one in triage.grades:
        values = [getattr(one, name) for name in COLUMNS]
        writer.writerow(
            [
                one.raw,
                *("" if v is None else _plain(v) for v in values),
                _plain(one.raw == triage.best_frame),
                " ".join(dict.fromkeys(str(fault.kind) for fault in one.faults)),
                one.words,
            ]
        )
    return text.getvalue()


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


# ------------------------------------------------------------------------------------ for people

STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 1.5em; color: #222; }
h1 { font-size: 1.3em; } h2 { font-size: 1.1em; }
table { border-collapse: collapse; } th { text-align: left; position: sticky; top: 0;
 background: #fff; } th, td { padding: 3px 8px; border-bottom: 1px solid #ddd;
 vertical-align: middle; } td.n { text-align: right; font-variant-numeric: tabular-nums;
 white-space: nowrap; } td.t { white-space: nowrap; } details { margin-top: 1em; }
img { display: block; background: #000; } img.star { image-rendering: pixelated; }
.good { border-left: 6px solid #0072b2; } .poor { border-left: 6px solid #e69f00; }
.bad { border-left: 6px solid #d55e00; } .best { background: #eef6ee; }
li.warning { font-weight: bold; color: #a33a00; }
.quiet { color: #666; }
"""
HEADS = (
    "", "frame", "UT", "grade", "why", "stars", "FWHM px", "axis ratio", "sky ADU", "noise ADU",
    "dimmer by mag", "offset px", "altitude deg", "score",
)  # fmt: skip


def frames_html(triage: FrameTriage, pictures: Mapping[str, Picture]) -> str:
    """Return the page; `pictures` by raw path, a frame without one has none."""
    title = f"Frames of {triage.key.replace('__', ' ')}"
    rows = "\n".join(
        _row(one, pictures.get(one.raw), is_best=one.raw == triage.best_frame)
        for one in triage.grades
        if one.used
    )
    heads = "".join(f"<th>{html.escape(words)}</th>" for words in HEADS)
    usual = ", ".join(f"{html.escape(name)} {value:.4g}" for name, value in triage.usual.items())
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'>"
        f"<title>{html.escape(clean(title))}</title><style>{STYLE}</style></head><body>\n"
        f"<h1>{html.escape(clean(title))}</h1>\n<p>{html.escape(counts_words(triage))}</p>\n"
        f"<h2>Time and site</h2>\n{_findings(triage)}\n"
        f"<h2>Frames</h2>\n{_notes(triage)}\n"
        f"<p class='quiet'>The night's usual values: {usual or 'none'}. Flagged frames are kept."
        " Beside each thumbnail the same star, its brightness levelled.</p>\n"
        f"<table><thead><tr>{heads}</tr></thead><tbody>\n{rows}\n</tbody></table>\n"
        f"{_left_out([one for one in triage.grades if not one.used])}</body></html>\n"
    )


def counts_words(triage: FrameTriage) -> str:
    """Return how many frames have which grade, and which is the best."""
    counts = ", ".join(f"{len(triage.of_grade(grade))} {grade}" for grade in Grade)
    left_out = sum(not one.used for one in triage.grades)
    words = f"{sum(one.used for one in triage.grades)} frames used: {counts}"
    if left_out:
        words += f"; {left_out} left out"
    if triage.best_frame is not None:
        words += f"; best frame {_name(triage.best_frame)}"
    return words


def _findings(triage: FrameTriage) -> str:
    if not triage.findings:
        return "<p>Nothing found that contradicts the times and the site.</p>"
    lines = "".join(
        f"<li class='{one.severity}'>{html.escape(clean(f'{one.severity}: {one.words}'))}</li>"
        for one in triage.findings
    )
    return f"<ul>{lines}</ul>"


def _notes(triage: FrameTriage) -> str:
    if not triage.notes:
        return ""
    return "<ul>" + "".join(f"<li>{html.escape(clean(one))}</li>" for one in triage.notes) + "</ul>"


def _left_out(grades: Sequence[FrameGrade]) -> str:
    if not grades:
        return ""
    lines = "".join(
        f"<li>{html.escape(clean(f'{_name(one.raw)} {_clock(one)}: {one.words}'))}</li>"
        for one in grades
    )
    return f"<details><summary>{len(grades)} left out</summary><ul>{lines}</ul></details>\n"


def _row(one: FrameGrade, picture: Picture | None, *, is_best: bool) -> str:
    offset = None
    if one.offset_x_px is not None and one.offset_y_px is not None:
        offset = f"{one.offset_x_px:+.1f}, {one.offset_y_px:+.1f}"
    numbers = (
        _number(one.n_stars, "d"),
        _number(one.fwhm_px, ".2f"),
        _number(one.axis_ratio, ".2f"),
        _number(one.sky_adu, ".1f"),
        _number(one.sky_rms_adu, ".1f"),
        _number(one.dimming_mag, ".2f"),
        offset or "",
        _number(one.altitude_deg, ".1f"),
        _number(one.score, ".2f"),
    )
    grade = f"{one.grade}, best frame" if is_best else str(one.grade)
    cells = "".join(f"<td class='n'>{words}</td>" for words in numbers)
    return (
        f"<tr class='{'best' if is_best else ''}'><td class='{one.grade}'>{_images(picture)}</td>"
        f"<td>{html.escape(clean(_name(one.raw)))}</td>"
        f"<td class='t'>{html.escape(_clock(one))}</td>"
        f"<td>{grade}</td><td>{html.escape(clean(one.words))}</td>{cells}</tr>"
    )


def _images(picture: Picture | None) -> str:
    if picture is None:
        return ""
    star = ""
    if picture.star is not None:
        star = (
            f"<img class='star' width='{STAR_SIZE_PX}' height='{STAR_SIZE_PX}' alt='a star'"
            f" src='data:image/png;base64,{_base64(picture.star, 'PNG')}'>"
        )
    height, width = picture.frame.shape
    return (
        "<div style='display:flex;gap:4px'>"
        f"<img width='{width}' height='{height}' alt='the frame'"
        f" src='data:image/jpeg;base64,{_base64(picture.frame, 'JPEG')}'>{star}</div>"
    )


def _base64(greys: NDArray[np.uint8], kind: str) -> str:
    from PIL import Image

    buffer = io.BytesIO()
    options = {"quality": JPEG_QUALITY} if kind == "JPEG" else {"optimize": True}
    Image.fromarray(np.ascontiguousarray(greys)).save(buffer, format=kind, **options)
    return base64.b64encode(buffer.getvalue()).decode()


def _number(value: float | None, form: str) -> str:
    return "" if value is None else f"{value:{form}}"


def _clock(one: FrameGrade) -> str:
    return (one.start_utc or "")[:19].replace("T", " ")


def _name(raw: str) -> str:
    return raw.rpartition("/")[2]


# --------------------------------------------------------------------------------- the overview


def overview_png(triage: FrameTriage, pictures: Mapping[str, Picture]) -> bytes:
    """Return the night at a glance: numbers against time by grade, the faults, the odd frames."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE_INCH, dpi=DPI, facecolor="white")
    title = clean(f"Frames of {triage.key.replace('__', ' ')}", 80)
    figure.text(0.08, 0.968, title, fontsize=14, weight="bold", parse_math=False)
    words = clean(counts_words(triage), 130)
    figure.text(0.08, 0.944, words, fontsize=9, parse_math=False)
    caption = _caption(triage)
    bottom = 0.055 + 0.018 * len(caption)
    for row, (line, colour) in enumerate(reversed(caption)):
        figure.text(0.03, 0.012 + 0.018 * row, line, fontsize=8, color=colour, parse_math=False)
    _draw_pictures(figure, triage, pictures)
    timed = [one for one in triage.grades if one.start_utc is not None]
    if timed:
        _draw_panels(figure, timed, top=0.775, bottom=bottom)
    return small_png_of(figure)


def _caption(triage: FrameTriage) -> list[tuple[str, str]]:
    import textwrap

    loud = [one for one in triage.findings if one.severity is Severity.WARNING]
    lines = [
        (line, MARKS[Grade.BAD][0])
        for one in loud
        for line in textwrap.wrap(clean(f"time and site: {one.words}"), CAPTION_WIDTH)
    ]
    if len(lines) > MAX_CAPTION_LINES:
        last, colour = lines[MAX_CAPTION_LINES - 1]
        lines = [*lines[: MAX_CAPTION_LINES - 1], (f"{last[: CAPTION_WIDTH - 1]}…", colour)]
    return lines


def _draw_panels(
    figure: "Figure", timed: Sequence[FrameGrade], *, top: float, bottom: float
) -> None:
    import importlib

    dates: Any = importlib.import_module("matplotlib.dates")  # it has no types
    moments = np.array(
        [
            dates.date2num(dt.datetime.fromisoformat(one.start_utc or "").replace(tzinfo=dt.UTC))
            for one in timed
        ]
    )
    kinds = [kind for kind in FAULT_WORDS if any(_has(one, kind) for one in timed)]
    ratios = [2.0] * len(PANELS) + [0.28 * max(len(kinds), 1) + 0.2]
    areas = figure.subplots(
        len(PANELS) + 1,
        1,
        sharex=True,
        gridspec_kw={"hspace": 0.1, "height_ratios": ratios}
        | {"left": 0.1, "right": 0.975, "top": top, "bottom": bottom},
    )
    for area, (name, words) in zip(areas, PANELS, strict=False):
        values = np.array([_value(one, name) for one in timed])
        _draw_points(area, moments, values, timed)
        area.set_ylabel(words, fontsize=8)
        if name == "dimming_mag":
            deepest = max([LEAST_DIMMING_MAG, *values[np.isfinite(values)].tolist()])
            area.set_ylim(1.08 * deepest, -0.06 * deepest)
    _draw_faults(areas[-1], moments, timed, kinds)
    handles = [
        areas[0].plot([], [], mark, color=colour, markersize=5, label=str(grade))[0]
        for grade, (colour, mark) in MARKS.items()
    ]
    areas[0].legend(
        handles=handles, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=3, fontsize=8,
        frameon=False, borderaxespad=0.1,
    )  # fmt: skip
    locator = dates.AutoDateLocator(minticks=4, maxticks=10)
    areas[-1].xaxis.set_major_locator(locator)
    areas[-1].xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))
    areas[-1].set_xlabel("start of exposure, UT", fontsize=8)
    figure.align_ylabels()


def _draw_points(
    area: "Axes", moments: FloatArray, values: FloatArray, timed: Sequence[FrameGrade]
) -> None:
    size = 5.0 if len(timed) < 100 else 3.5
    for grade, (colour, mark) in MARKS.items():
        chosen = np.array([one.grade is grade for one in timed]) & np.isfinite(values)
        if chosen.any():
            area.plot(
                moments[chosen], values[chosen], mark, color=colour, markersize=size,
                markeredgewidth=0,
            )  # fmt: skip
    area.tick_params(labelsize=7)
    area.grid(alpha=0.25)
    if not np.isfinite(values).any():
        area.set_yticks([])
        area.text(0.5, 0.5, "not known", transform=area.transAxes, ha="center", color=QUIET_COLOUR)


def _draw_faults(
    area: "Axes", moments: FloatArray, timed: Sequence[FrameGrade], kinds: Sequence[FaultKind]
) -> None:
    for row, kind in enumerate(kinds):
        for grade in (Grade.POOR, Grade.BAD):
            colour, _ = MARKS[grade]
            here = [
                any(fault.kind is kind and fault.grade is grade for fault in one.faults)
                for one in timed
            ]
            chosen = moments[np.array(here)]
            area.plot(chosen, np.full(len(chosen), row), "|", color=colour, markersize=8, mew=2)
    area.set_yticks(range(len(kinds)), [FAULT_WORDS[kind] for kind in kinds], fontsize=7)
    area.set_ylim(max(len(kinds), 1) - 0.4, -0.6)
    area.tick_params(labelsize=7)
    area.grid(alpha=0.25, axis="x")
    if not kinds:
        area.set_yticks([])
        words = "no faults"
        area.text(0.5, 0.4, words, transform=area.transAxes, ha="center", color=QUIET_COLOUR)


def _draw_pictures(figure: "Figure", triage: FrameTriage, pictures: Mapping[str, Picture]) -> None:
    shown = _shown(triage, pictures)
    width = 0.9 / N_THUMBNAILS
    for place, one in enumerate(shown):
        area = figure.add_axes((0.06 + place * width, 0.8, width - 0.012, 0.118))
        picture = pictures[one.raw]
        # the star beside the frame, as high
        area.imshow(picture.frame, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        height, length = picture.frame.shape
        side = 0.42 * height
        if picture.star is not None:
            area.imshow(
                picture.star, cmap="gray", vmin=0, vmax=255, interpolation="nearest",
                extent=(length + 3, length + 3 + side, height, height - side),
            )  # fmt: skip
        area.set_xlim(0, length + 3 + side)
        area.set_ylim(height, 0)
        area.set_axis_off()
        is_best = one.raw == triage.best_frame
        colour = MARKS[one.grade][0]
        kinds = list(dict.fromkeys(FAULT_WORDS[fault.kind] for fault in one.faults))
        why = "best frame" if is_best else ", ".join(kinds[:2]) or str(one.grade)
        area.set_title(
            f"{(one.start_utc or '')[11:16]} {clean(why, 24)}", fontsize=8, color=colour, pad=3,
            parse_math=False,
        )  # fmt: skip


def _shown(triage: FrameTriage, pictures: Mapping[str, Picture]) -> list[FrameGrade]:
    """Return the best frame, then the worst of each kind of fault, then other faulty ones."""
    there = [one for one in triage.grades if one.raw in pictures]
    best = [one for one in there if one.raw == triage.best_frame]
    faulty = sorted(
        (one for one in there if one.faults and one not in best), key=lambda one: one.score or 0.0
    )
    chosen: dict[str, FrameGrade] = {}
    for kind in FAULT_WORDS:
        worst = next((one for one in faulty if one.faults[0].kind is kind), None)
        if worst is not None:
            chosen.setdefault(worst.raw, worst)
    for one in faulty:
        chosen.setdefault(one.raw, one)
    odd = list(chosen.values())[: N_THUMBNAILS - 1]
    odd.sort(key=lambda one: one.start_utc or "")
    return [*best, *odd]


def _has(one: FrameGrade, kind: FaultKind) -> bool:
    return any(fault.kind is kind for fault in one.faults)


def _value(one: FrameGrade, name: str) -> float:
    value = getattr(one, name)
    return np.nan if value is None else float(value)
