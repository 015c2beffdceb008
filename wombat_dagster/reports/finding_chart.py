"""The finding chart: the field as a frame shows it, with T1, T2, C3… and why others are not used.

Drawn as `light_curve` draws: without pyplot, and no name is read as mathtext. Pixels come in as an
array and places as 0-based pixels of it; nothing is projected or read here.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np

from wombat_dagster.domain import Aperture, FloatArray, WcsSolution
from wombat_dagster.reports.drawing import (
    ALARM_COLOUR,
    DPI,
    T1_COLOUR,
    T2_COLOUR,
    clean,
    small_png_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_BYTES: Final = 200_000
MAX_PICTURE_PX: Final = 900  # of the frame, binned
AREA_PX: Final = (920, 920)  # the frame is fitted into it
BORDER_PX: Final = 20
HEAD_PX: Final = 40
FOOT_PX: Final = 64
ALARM_PX: Final = 19
SKY_TILES: Final = 8  # along each side
GREYS: Final = 24  # so that noise does not fill the file
BLACK_PERCENTILE: Final = 99.7
ASINH_SOFTENING: Final = 0.05
WHITE_SIGMA: Final = 0.7  # above the sky: what is darker is noise
MIN_RING_PX: Final = 5.0  # of the picture: smaller apertures get a ring of this radius instead
MAX_WORDS: Final = 28
MAX_TITLE: Final = 88
MAX_NOTE: Final = 150
BAR_ARCSEC: Final = (5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200)
BAR_SHARE: Final = 0.22  # of the frame's width, at most
ARROW_PX: Final = 44.0
CORNER_PX: Final = (130.0, 150.0)  # width and height of the box with arrows and bar


class MarkKind(StrEnum):
    """What a marked star is; in this order they are drawn last, and named first."""

    TARGET = "T1, the variable"
    CHECK = "T2, check star"
    COMP = "comparison star"
    VARIABLE = "other known variable"
    REJECTED = "of the chart, not used"


COLOURS: Final = {
    MarkKind.TARGET: T1_COLOUR,
    MarkKind.CHECK: T2_COLOUR,
    MarkKind.COMP: "#2a7a2a",
    MarkKind.VARIABLE: "#8a2be2",
    MarkKind.REJECTED: "#b06000",
}
FONT_SIZES: Final = {
    MarkKind.TARGET: 10.0,
    MarkKind.CHECK: 10.0,
    MarkKind.COMP: 9.0,
    MarkKind.VARIABLE: 7.0,
    MarkKind.REJECTED: 7.0,
}
MARKER_POINTS: Final = {MarkKind.REJECTED: (7.0, 1.3), MarkKind.VARIABLE: (9.0, 1.2)}
"""Size and line width of the crosses and diamonds."""
MUST_BE_NAMED: Final = {MarkKind.TARGET, MarkKind.CHECK, MarkKind.COMP}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """One star to mark, at a 0-based pixel of the frame, and the words beside it."""

    kind: MarkKind
    x_px: float
    y_px: float
    words: str


class _Box(NamedTuple):
    """A rectangle of the picture, in its pixels, y upwards."""

    left: float
    low: float
    right: float
    high: float


def finding_chart_png(
    image: FloatArray,
    marks: Sequence[Mark],
    *,
    solution: WcsSolution,
    aperture: Aperture,
    title: str,
    note: str = "",
    alarm: str = "",
) -> bytes:
    """Return the frame with its marked stars as a PNG of about 960 px and less than 200 kB.

    `image` of shape (height, width) in ADU, NaN where nothing is known; row 0 is below, as FITS
    viewers show it. Measured stars have their aperture and annulus drawn to scale, stars not used
    a cross, known variables a diamond; marks beyond the frame are left out, and counted where they
    are of stars not used. Words that find no free place beside a star not used, or a known
    variable, are left out. `note` is the last line, `alarm` stands in orange above the legend.
    """
    inside = [
        mark
        for mark in marks
        if -0.5 <= mark.x_px <= image.shape[1] - 0.5 and -0.5 <= mark.y_px <= image.shape[0] - 0.5
    ]
    n_outside = sum(m.kind is MarkKind.REJECTED and m not in inside for m in marks)
    factor = math.ceil(max(image.shape) / MAX_PICTURE_PX)
    while True:
        binned = _binned(image, factor)
        png = small_png_of(
            _figure(
                image.shape,
                binned,
                factor,
                inside,
                n_outside,
                solution,
                aperture,
                title,
                note,
                alarm,
            )
        )
        if len(png) < MAX_BYTES or min(binned.shape) < 100:
            return png
        factor *= 2


def _binned(image: FloatArray, factor: int) -> FloatArray:
    """Return the means of squares of `factor` pixels; rows and columns left over are dropped."""
    if factor == 1:
        return image
    height, width = (n // factor for n in image.shape)
    blocks = image[: height * factor, : width * factor].reshape(height, factor, width, factor)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Mean of empty slice", category=RuntimeWarning)
        means: FloatArray = np.nanmean(blocks, axis=(1, 3))
    return means


def _greys(image: FloatArray) -> FloatArray:
    """Return 0 (sky) to 1 (black), asinh between sky and the brightest stars, in a few steps."""
    above_sky = image - _sky(image)
    finite = above_sky[np.isfinite(above_sky)]
    if not finite.size:
        return np.zeros(image.shape)
    noise = 1.4826 * float(np.median(np.abs(finite)))
    low = WHITE_SIGMA * noise
    high = max(float(np.percentile(finite, BLACK_PERCENTILE)), low + 20.0 * noise, low + 1e-9)
    share = np.clip((above_sky - low) / (high - low), 0.0, 1.0)
    grey = np.arcsinh(share / ASINH_SOFTENING) / np.arcsinh(1.0 / ASINH_SOFTENING)
    return np.round(np.nan_to_num(grey) * (GREYS - 1)) / (GREYS - 1)


def _sky(image: FloatArray) -> FloatArray:
    """Return the medians of a few by a few tiles, interpolated between their middles."""
    rows, columns = (np.array_split(np.arange(n), SKY_TILES) for n in image.shape)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="All-NaN slice", category=RuntimeWarning)
        medians = np.array(
            [
                [np.nanmedian(image[r[0] : r[-1] + 1, c[0] : c[-1] + 1]) for c in columns]
                for r in rows
            ]
        )
        medians = np.where(np.isfinite(medians), medians, np.nanmedian(image))
    y, x = (np.array([np.mean(part) for part in parts]) for parts in (rows, columns))
    across = np.array([np.interp(np.arange(image.shape[1]), x, row) for row in medians])
    return np.array([np.interp(np.arange(image.shape[0]), y, column) for column in across.T]).T


# ------------------------------------------------------------------------------------- the figure


def _figure(
    shape: tuple[int, ...],
    binned: FloatArray,
    factor: int,
    marks: Sequence[Mark],
    n_outside: int,
    solution: WcsSolution,
    aperture: Aperture,
    title: str,
    note: str,
    alarm: str,
) -> "Figure":
    from matplotlib.figure import Figure

    height, width = shape
    zoom = min(AREA_PX[0] / width, AREA_PX[1] / height)  # picture pixels per frame pixel
    area_w, area_h = width * zoom, height * zoom
    foot = FOOT_PX + (ALARM_PX if alarm else 0)
    total_w, total_h = AREA_PX[0] + 2 * BORDER_PX, area_h + HEAD_PX + foot
    figure = Figure(figsize=(total_w / DPI, total_h / DPI), dpi=DPI, facecolor="white")
    left = (total_w - area_w) / 2
    area = figure.add_axes((left / total_w, foot / total_h, area_w / total_w, area_h / total_h))
    n_rows, n_columns = binned.shape
    area.imshow(
        _greys(binned),
        origin="lower",
        cmap="gray_r",
        vmin=0.0,
        vmax=1.12,  # the blackest star is not black: rings and words stay to be seen
        interpolation="nearest",
        extent=(-0.5, n_columns * factor - 0.5, -0.5, n_rows * factor - 0.5),
    )
    area.set_xlim(-0.5, width - 0.5)
    area.set_ylim(-0.5, height - 0.5)
    area.set_xticks([])
    area.set_yticks([])
    for mark in sorted(marks, key=lambda m: list(MarkKind).index(m.kind), reverse=True):
        _draw(area, mark, aperture, zoom)
    corner = _free_corner(marks, zoom, area_w, area_h)
    _draw_corner(area, corner, solution, zoom, width)
    picture = _Box(2.0, 2.0, area_w - 2.0, area_h - 2.0)
    words = place_words(marks, aperture=aperture, zoom=zoom, picture=picture, taken=[corner])
    _write_words(area, words, zoom)
    figure.text(
        BORDER_PX / total_w,
        1.0 - 27 / total_h,
        clean(title, MAX_TITLE),
        fontsize=13,
        weight="bold",
        parse_math=False,
    )
    _legend(figure, marks, n_outside, total_h)
    if alarm:
        figure.text(
            BORDER_PX / total_w,
            (FOOT_PX - 1) / total_h,
            clean(alarm, MAX_NOTE),
            fontsize=10,
            weight="bold",
            color=ALARM_COLOUR,
            parse_math=False,
        )
    facts = (
        f"aperture {aperture.radius_px:.1f} px, sky {aperture.sky_inner_px:.1f} to"
        f" {aperture.sky_outer_px:.1f} px; {width} × {height} px,"
        f" {solution.scale_arcsec_px:.2f}″/px"
    )
    figure.text(
        BORDER_PX / total_w,
        9 / total_h,
        clean(f"{facts}; {note}" if note else facts, MAX_NOTE),
        fontsize=8.5,
        color="#555555",
        parse_math=False,
    )
    return figure


def _draw(area: "Axes", mark: Mark, aperture: Aperture, zoom: float) -> None:
    from matplotlib.patches import Circle

    colour = COLOURS[mark.kind]
    place = (mark.x_px, mark.y_px)
    if mark.kind is MarkKind.REJECTED:
        size, edge = MARKER_POINTS[mark.kind]
        area.plot(*place, marker="x", markersize=size, markeredgewidth=edge, color=colour)
        return
    if mark.kind is MarkKind.VARIABLE:
        size, edge = MARKER_POINTS[mark.kind]
        area.plot(
            *place, marker="D", markersize=size, markerfacecolor="none", markeredgewidth=edge,
            color=colour,
        )  # fmt: skip
        return
    radius_px = max(aperture.radius_px, MIN_RING_PX / zoom)
    area.add_patch(Circle(place, radius_px, fill=False, edgecolor=colour, linewidth=1.5))
    for annulus_px in (aperture.sky_inner_px, aperture.sky_outer_px):
        if annulus_px * zoom > MIN_RING_PX + 2.0:
            area.add_patch(
                Circle(place, annulus_px, fill=False, edgecolor=colour, linewidth=0.6, alpha=0.8)
            )


def legend_words(marks: Sequence[Mark], n_outside: int) -> dict[MarkKind, str]:
    """Return what the legend says of each kind there is; `n_outside` are not used and not shown."""
    words: dict[MarkKind, str] = {}
    for kind in MarkKind:
        n = sum(mark.kind is kind for mark in marks)
        if kind is MarkKind.REJECTED and n_outside:
            words[kind] = f"{n + n_outside} not used, {n_outside} of them outside"
        elif n:
            words[kind] = f"{kind} ({n})" if n > 1 else str(kind)
    return words


def _legend(figure: "Figure", marks: Sequence[Mark], n_outside: int, total_h: float) -> None:
    from matplotlib.lines import Line2D

    styles: dict[MarkKind, dict[str, Any]] = {
        MarkKind.REJECTED: {"marker": "x", "markersize": 7, "markeredgewidth": 1.3},
        MarkKind.VARIABLE: {"marker": "D", "markersize": 8, "markerfacecolor": "none"},
    }
    ring: dict[str, Any] = {
        "marker": "o",
        "markersize": 10,
        "markerfacecolor": "none",
        "markeredgewidth": 1.5,
    }
    handles = [
        Line2D([], [], linestyle="none", color=COLOURS[kind], label=words, **styles.get(kind, ring))
        for kind, words in legend_words(marks, n_outside).items()
    ]
    if handles:
        figure.legend(
            handles=handles,
            loc="lower left",
            bbox_to_anchor=(0.012, 22 / total_h),
            ncols=len(handles),
            frameon=False,
            fontsize=9.2,
            handletextpad=0.2,
            columnspacing=1.1,
        )


# --------------------------------------------------------------------------- north, east, the scale


def _free_corner(marks: Sequence[Mark], zoom: float, area_w: float, area_h: float) -> _Box:
    """Return the corner of the picture that hides the fewest and least important marks."""
    w, h = CORNER_PX
    corners = [
        _Box(left, low, left + w, low + h)
        for low in (8.0, area_h - h - 8.0)
        for left in (8.0, area_w - w - 8.0)
    ]

    def hidden(box: _Box) -> int:
        return sum(
            10 if mark.kind in MUST_BE_NAMED else 1
            for mark in marks
            if box.left - 20 <= mark.x_px * zoom <= box.right + 20
            and box.low - 20 <= mark.y_px * zoom <= box.high + 20
        )

    return min(corners, key=hidden)


def directions(solution: WcsSolution) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the unit vectors north and east in pixels (x, y upwards) at the reference point."""
    d = solution.determinant
    north = (-solution.cd12 / d, solution.cd11 / d)
    east = (solution.cd22 / d, -solution.cd21 / d)
    (nx, ny), (ex, ey) = north, east
    return (
        (nx / math.hypot(nx, ny), ny / math.hypot(nx, ny)),
        (ex / math.hypot(ex, ey), ey / math.hypot(ex, ey)),
    )


def _draw_corner(
    area: "Axes", box: _Box, solution: WcsSolution, zoom: float, width_px: int
) -> None:
    """Draw the arrows and the scale bar into `box`, on a light ground."""
    from matplotlib.patches import Rectangle

    area.add_patch(
        Rectangle(
            (box.left / zoom, box.low / zoom),
            (box.right - box.left) / zoom,
            (box.high - box.low) / zoom,
            facecolor="white",
            edgecolor="#999999",
            linewidth=0.6,
            alpha=0.88,
            zorder=4,
        )
    )
    north, east = directions(solution)
    # Both arrows lie in a square about its middle, whichever way they point.
    middle = ((box.left + box.right) / 2, box.high - 58.0)
    start = (
        middle[0] - ARROW_PX * (north[0] + east[0]) / 2,
        middle[1] - ARROW_PX * (north[1] + east[1]) / 2,
    )
    for letter, (dx, dy) in (("N", north), ("E", east)):
        end = (start[0] + ARROW_PX * dx, start[1] + ARROW_PX * dy)
        area.annotate(
            "",
            xy=(end[0] / zoom, end[1] / zoom),
            xytext=(start[0] / zoom, start[1] / zoom),
            arrowprops={"arrowstyle": "-|>", "color": "black", "linewidth": 1.2, "shrinkA": 0}
            | {"shrinkB": 0},
            zorder=5,
        )
        area.text(
            (end[0] + 9 * dx) / zoom,
            (end[1] + 9 * dy) / zoom,
            letter,
            ha="center",
            va="center",
            fontsize=10,
            weight="bold",
            zorder=5,
        )
    room_px = min(BAR_SHARE * width_px, (box.right - box.left - 16) / zoom)
    fitting = [a for a in BAR_ARCSEC if a / solution.scale_arcsec_px <= room_px]
    bar_arcsec = fitting[-1] if fitting else BAR_ARCSEC[0]
    bar_px = bar_arcsec / solution.scale_arcsec_px
    x0, y0 = (box.left + box.right) / 2 / zoom - bar_px / 2, (box.low + 12) / zoom
    area.plot([x0, x0 + bar_px], [y0, y0], color="black", linewidth=2.0, zorder=5)
    area.text(
        x0 + bar_px / 2,
        y0 + 5 / zoom,
        f"{bar_arcsec}″" if bar_arcsec < 60 else f"{bar_arcsec // 60}′",
        ha="center",
        va="bottom",
        fontsize=9,
        zorder=5,
    )


# -------------------------------------------------------------------------------------------- words


def _write_words(area: "Axes", words: "Sequence[_Words]", zoom: float) -> None:
    from matplotlib.patheffects import withStroke

    for mark, text, box in words:
        written = area.text(
            (box.left + box.right) / 2 / zoom,
            (box.low + box.high) / 2 / zoom,
            text,
            ha="center",
            va="center",
            fontsize=FONT_SIZES[mark.kind],
            color=COLOURS[mark.kind],
            weight="bold" if mark.kind in MUST_BE_NAMED else "normal",
            parse_math=False,
            zorder=6,
        )
        written.set_path_effects([withStroke(linewidth=2.2, foreground="white")])


class _Words(NamedTuple):
    """A mark's words and where they stand."""

    mark: Mark
    text: str
    box: _Box


def place_words(
    marks: Sequence[Mark], *, aperture: Aperture, zoom: float, picture: _Box, taken: Sequence[_Box]
) -> list[_Words]:
    """Return each mark's words at the first place beside it that nothing else takes.

    T1, T2 and C3… come first and have a place in any case: if need be, the one that hides least.
    `zoom` is pixels of the picture per pixel of the frame, `taken` what else is in the picture.
    """
    busy = [*taken, *(_mark_box(mark, aperture, zoom) for mark in marks)]
    words = []
    for mark in sorted(marks, key=lambda m: list(MarkKind).index(m.kind)):
        text = clean(mark.words, MAX_WORDS)
        if not text:
            continue
        places = _places(mark, text, FONT_SIZES[mark.kind], aperture, zoom)
        costs = _costs(places, picture, busy)
        best = int(np.argmin(costs))
        if costs[best] == 0 or mark.kind in MUST_BE_NAMED:
            busy.append(places[best])
            words.append(_Words(mark, text, places[best]))
    return words


def _mark_box(mark: Mark, aperture: Aperture, zoom: float) -> _Box:
    half = _half_px(mark, aperture, zoom)
    x, y = mark.x_px * zoom, mark.y_px * zoom
    return _Box(x - half, y - half, x + half, y + half)


def _half_px(mark: Mark, aperture: Aperture, zoom: float) -> float:
    """Return how far words keep from a mark's centre, in pixels of the picture."""
    if mark.kind in MUST_BE_NAMED:
        return max(aperture.radius_px * zoom, MIN_RING_PX) + 2.0
    size_points, edge_points = MARKER_POINTS[mark.kind]
    half_points = size_points / math.sqrt(2) if mark.kind is MarkKind.VARIABLE else size_points / 2
    return (half_points + edge_points / 2) * DPI / 72.0 + 2.0


def _places(mark: Mark, words: str, font: float, aperture: Aperture, zoom: float) -> list[_Box]:
    """Return where the words could stand, the best place first, nearest ones before others."""
    em = font * DPI / 72.0
    bold = 0.66 if mark.kind in MUST_BE_NAMED else 0.56
    w, h = bold * em * len(words) + 2.0, 1.15 * em
    x, y = mark.x_px * zoom, mark.y_px * zoom
    annulus = aperture.sky_outer_px * zoom if mark.kind in MUST_BE_NAMED else 0.0
    half = _half_px(mark, aperture, zoom)
    beyond = max(half, annulus + 2.0)
    distances = [beyond, beyond + 7.0, half, beyond + 20.0]
    boxes = []
    for distance in distances:
        for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1)):
            slant = 0.75 if dx and dy else 1.0
            cx = x + dx * (slant * distance + w / 2)
            cy = y + dy * (slant * distance + h / 2)
            boxes.append(_Box(cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2))
    return boxes


def overlap(boxes: FloatArray, others: FloatArray) -> FloatArray:
    """Return the common areas, shape (n, m), of rectangles (n, 4) and (m, 4): `_Box` in rows."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    areas: FloatArray = np.prod(np.clip(high - low, 0.0, None), axis=2)
    return areas


def _costs(places: Sequence[_Box], picture: _Box, taken: Sequence[_Box]) -> FloatArray:
    """Return, for each place, the area that is outside the picture or already taken."""
    boxes = np.array(places)
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    outside = areas - overlap(boxes, np.array([picture]))[:, 0]
    costs: FloatArray = 4.0 * np.round(outside, 6) + overlap(boxes, np.array(taken)).sum(axis=1)
    return costs
