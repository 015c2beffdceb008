"""The picture of a star over nights, or folded with its period: bright at the top.

Drawn as `light_curve` draws: without pyplot, and no name is read as mathtext. A few long runs
stand side by side with the gaps between them cut out; many nights share one axis. Bands lie in one
panel, unless that would flatten them.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from wombat_dagster.domain import BoolArray, FloatArray, Variable
from wombat_dagster.reports.drawing import DPI, QUIET_COLOUR, clean, png_of
from wombat_dagster.reports.star_curve import StarCurve

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE_INCH: Final = (10.0, 7.0)

STYLES: Final = {
    "U": ("#7a4fa0", "v"), "B": ("#0072b2", "s"), "V": ("#2b7a4b", "o"), "R": ("#d55e00", "D"),
    "I": ("#7a1f1f", "^"), "SG": ("#009e73", "s"), "SR": ("#e69f00", "D"), "SI": ("#a0522d", "^"),
    "CV": ("#333333", "o"), "CR": ("#8a6d1f", "D"), "TG": ("#2b7a4b", "P"), "TB": ("#0072b2", "P"),
    "TR": ("#d55e00", "P"),
}  # fmt: skip
"""Colour and marker by band, from blue to red; the marker tells where the colour does not."""
OTHER_STYLES: Final = (("#56b4e9", "X"), ("#cc79a7", "p"), ("#000000", "h"), ("#999933", "<"))

RUN_GAP_D: Final = 0.4  # a longer pause begins another run
MAX_RUNS: Final = 6  # that stand side by side
MIN_RUN_POINTS: Final = 5  # median: shorter runs are no curves of their own
MIN_RUN_SHARE: Final = 0.18  # of the longest run's width: the narrowest run drawn
MAX_PANELS: Final = 4  # bands above one another
CROWDED: Final = 0.3  # of the whole range: a band squeezed more than that gets its own panel

MAX_TITLE: Final = 84
CAPTION_WIDTH: Final = 118
MAX_CAPTION_LINES: Final = 5
LINE_HEIGHT: Final = 0.026  # of the figure
MIN_SPAN_MAG: Final = 0.04  # a quiet star is shown quiet
MARGIN: Final = 0.08
ARROW_POINTS: Final = 16.0
FOLD_FROM: Final = -0.5  # two cycles: every point stands twice
FOLD_TO: Final = 1.5
SMALL_STRETCH: Final = 0.35  # of a cycle: what fills no more is drawn once, and large
MIN_TICKS: Final = 2  # of a panel, where all have one step
MAX_TICKS: Final = 12
TICK_ROOM: Final = 0.026  # of the picture: half a tick's label


@dataclass(frozen=True, slots=True, kw_only=True)
class Fold:
    """Period and epoch that a curve is folded with; `words` says where they are from."""

    period_d: float
    epoch_hjd: float
    words: str

    def phase(self, hjd_utc: FloatArray) -> FloatArray:
        """Return phases from 0 to below 1."""
        phase = np.mod((hjd_utc - self.epoch_hjd) / self.period_d, 1.0)
        return np.where(phase < 1.0, phase, 0.0)  # mod of a tiny negative number is 1


@dataclass(frozen=True, slots=True, kw_only=True)
class _Points:
    """What is drawn of one band; `x` days or phases."""

    band: str
    x: FloatArray
    mag: FloatArray
    error: FloatArray
    limit: BoolArray
    doubtful: BoolArray
    colour: str
    marker: str


def curve_png(curve: StarCurve, *, fold: Fold | None = None) -> bytes:
    """Return the light curve as a PNG of 1000 by 700 pixels; with `fold` against the phase.

    Filled points with error bars count; hollow ones are proposed to be rejected or of a night that
    is held; arrows are upper limits.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE_INCH, dpi=DPI, facecolor="white")
    times, scale = _times(curve)
    if fold is not None:
        bands, runs, label = _folded(curve, fold, times)
    else:
        offset = int(np.floor(np.nanmin(times))) if np.isfinite(times).any() else 0
        bands = [_points(curve, band, times - offset) for band in _blue_first(curve)]
        runs = _runs(times - offset)
        label = f"{scale} − {offset}" if offset else scale
    panels = _panels(bands)
    caption = _caption(curve, fold)
    bottom = 0.1 + LINE_HEIGHT * len(caption)
    areas: Any = figure.subplots(
        len(panels),
        len(runs),
        sharex="col",
        sharey="row",
        squeeze=False,
        gridspec_kw={"wspace": 0.04, "hspace": 0.08, "width_ratios": _widths(runs)}
        | {"left": 0.085, "right": 0.975, "top": 0.875, "bottom": bottom},
    )
    for row, panel in zip(areas, panels, strict=True):
        _draw_panel(row, panel)
    _share_tick_step([row[0] for row in areas])
    _set_runs(areas, runs, curve, times, offset=None if fold is not None else offset)
    left, right = areas[-1, 0].get_position().x0, areas[-1, -1].get_position().x1
    figure.text(
        (left + right) / 2, bottom - 0.062, label, ha="center", fontsize=10, parse_math=False
    )
    figure.text(0.085, 0.962, _title(curve.variable), fontsize=14, weight="bold", parse_math=False)
    _legend(figure, bands)
    figure.align_ylabels(areas[:, 0])
    _write_caption(figure, caption)
    return png_of(figure)


# ------------------------------------------------------------------------------------------ points


def _times(curve: StarCurve) -> tuple[FloatArray, str]:
    """Return HJD, or JD where no HJD is known, and the scale's name."""
    if np.isfinite(curve.hjd_utc).any():
        return curve.hjd_utc, "HJD(UTC)"
    return curve.jd_utc, "JD(UTC)"


def _points(curve: StarCurve, band: str, x: FloatArray) -> _Points:
    colour, marker = _style(curve, band)
    there = (curve.point_bands == band) & np.isfinite(curve.mag) & np.isfinite(x)
    return _Points(
        band=band,
        x=x[there],
        mag=curve.mag[there],
        error=np.nan_to_num(curve.merr_mag[there]),
        limit=curve.upper_limit[there],
        doubtful=curve.doubtful[there],
        colour=colour,
        marker=marker,
    )


def _blue_first(curve: StarCurve) -> list[str]:
    order = [*STYLES, *curve.bands]
    return sorted(curve.bands, key=order.index)


def _style(curve: StarCurve, band: str) -> tuple[str, str]:
    """Return a band's colour and marker."""
    others = [one for one in curve.bands if one not in STYLES]
    return STYLES.get(band) or OTHER_STYLES[others.index(band) % len(OTHER_STYLES)]


def _folded(
    curve: StarCurve, fold: Fold, times: FloatArray
) -> tuple[list[_Points], list[tuple[float, float]], str]:
    phase = fold.phase(times)
    first, last = _phases_shown(phase[np.isfinite(phase) & np.isfinite(curve.mag)])
    bands = []
    for band in _blue_first(curve):
        once = _points(curve, band, phase)
        x = np.concatenate([once.x - 1, once.x, once.x + 1])
        inside = (x >= first) & (x <= last)
        thrice: dict[str, Any] = {
            name: np.tile(getattr(once, name), 3)[inside]
            for name in ("mag", "error", "limit", "doubtful")
        }
        bands.append(replace(once, x=x[inside], **thrice))
    return bands, [(first, last)], "phase"


def _phases_shown(phases: FloatArray) -> tuple[float, float]:
    """Return two cycles, or just the stretch around phases that fill only a small part of one."""
    in_order = np.sort(phases)
    if len(in_order) < MIN_RUN_POINTS:
        return FOLD_FROM, FOLD_TO
    gaps = np.diff(in_order, append=in_order[0] + 1)
    before = int(np.argmax(gaps))
    span = 1 - float(gaps[before])
    if span > SMALL_STRETCH:
        return FOLD_FROM, FOLD_TO
    first = float(in_order[(before + 1) % len(in_order)])
    first -= round(first + span / 2)  # its middle between -0.5 and 0.5
    margin = max(0.05 * span, 0.002)
    return first - margin, first + span + margin


def _runs(x: FloatArray) -> list[tuple[float, float]]:
    """Return the stretches of time that get an axis of their own, with margins.

    One for all where the nights are many, or hold too few points to be looked at one by one.
    """
    known = np.sort(x[np.isfinite(x)])
    if not len(known):
        return [(0.0, 1.0)]
    starts = np.flatnonzero(np.diff(known) > RUN_GAP_D) + 1
    runs = np.split(known, starts)
    single = len(runs) > MAX_RUNS or np.median([len(run) for run in runs]) < MIN_RUN_POINTS
    if single:
        runs = [known]
    longest = max(float(np.ptp(run)) for run in runs)
    margin = max(0.03 * longest, 0.002)
    return [(float(run[0]) - margin, float(run[-1]) + margin) for run in runs]


def _widths(runs: Sequence[tuple[float, float]]) -> list[float]:
    spans = [last - first for first, last in runs]
    return [max(span, MIN_RUN_SHARE * max(spans)) for span in spans]


def _panels(bands: Sequence[_Points]) -> list[list[_Points]]:
    """Return the bands of each panel: one for all, or one each where one would flatten them."""
    drawn = [band for band in bands if len(band.x)] or list(bands[:1])
    limits = [found for band in drawn if (found := _limits([band])) is not None]
    if 1 < len(drawn) <= MAX_PANELS and len(limits) == len(drawn):
        spans = [faint - bright for faint, bright in limits]
        whole = max(faint for faint, _ in limits) - min(bright for _, bright in limits)
        if max(spans) < CROWDED * whole:
            return [[band] for band in drawn]
    return [drawn]


def _limits(bands: Sequence[_Points]) -> tuple[float, float] | None:
    """Return (faint, bright) around what counts, else around all; None where there is nothing."""
    for counted in (True, False):
        values = np.concatenate(
            [np.array([])]
            + [
                np.concatenate([band.mag - bar, band.mag + bar])[np.tile(keep, 2)]
                for band in bands
                for keep in [~band.doubtful if counted else np.ones_like(band.doubtful)]
                for bar in [np.where(band.limit, 0.0, band.error)]
            ]
        )
        if len(values):
            bright, faint = float(values.min()), float(values.max())
            margin = max(MARGIN * (faint - bright), (MIN_SPAN_MAG - (faint - bright)) / 2)
            return faint + margin, bright - margin
    return None


# ------------------------------------------------------------------------------------------ panels


def _draw_panel(row: "Sequence[Axes]", bands: Sequence[_Points]) -> None:
    limits = _limits(bands)
    for area in row:
        area.grid(visible=True, color="#dddddd", linewidth=0.6)
        area.set_axisbelow(True)
        for band in bands:
            _draw_band(area, band)
    first = row[0]
    if limits is None:
        first.text(0.5, 0.5, "no magnitude", transform=first.transAxes, ha="center", color="grey")
        limits = (1.0, 0.0)
    else:
        _tell_outside(row[-1], bands, limits)
    first.set_ylim(*limits)
    first.set_ylabel(f"magnitude  [{' '.join(band.band for band in bands)}]", parse_math=False)
    first.yaxis.get_major_formatter().set_useOffset(False)  # type: ignore[attr-defined]  # a ScalarFormatter


def _share_tick_step(areas: "Sequence[Axes]") -> None:
    """Give the panels' magnitudes one tick step: the finest of theirs, or the coarsest.

    Panels so unlike that neither serves all keep their own.
    """
    from matplotlib.ticker import MultipleLocator

    steps = [float(np.diff(area.get_yticks())[0]) for area in areas]
    spans = [abs(float(np.diff(area.get_ylim())[0])) for area in areas]
    for step in (abs(min(steps, key=abs)), abs(max(steps, key=abs))):
        if max(spans) <= MAX_TICKS * step and min(spans) >= MIN_TICKS * step:
            for area in areas if len(areas) > 1 else ():
                area.yaxis.set_major_locator(MultipleLocator(step))
            return


def _draw_band(area: "Axes", band: _Points) -> None:
    colour = band.colour
    size = float(np.clip(60 / np.sqrt(max(len(band.x), 1)), 2.2, 5.0))
    for kept, fill, alpha in (
        (~band.limit & ~band.doubtful, colour, 1.0),
        (~band.limit & band.doubtful, "white", 0.45),
    ):
        if kept.any():
            area.errorbar(
                band.x[kept],
                band.mag[kept],
                yerr=band.error[kept],
                fmt=band.marker,
                markersize=size,
                color=colour,
                markerfacecolor=fill,
                elinewidth=0.8,
                alpha=alpha,
                linestyle="none",
            )
    for kept, alpha in ((band.limit & ~band.doubtful, 1.0), (band.limit & band.doubtful, 0.4)):
        for x, mag in zip(band.x[kept], band.mag[kept], strict=True):
            area.annotate(
                "",
                xy=(x, mag),
                xytext=(0, -ARROW_POINTS),
                textcoords="offset points",
                arrowprops={"arrowstyle": "<|-", "color": colour, "alpha": alpha},
                annotation_clip=True,
            )
        area.plot(band.x[kept], band.mag[kept], "_", color=colour, alpha=alpha, markersize=8)


def _tell_outside(area: "Axes", bands: Sequence[_Points], limits: tuple[float, float]) -> None:
    faint, bright = limits
    outside = sum(int(((band.mag > faint) | (band.mag < bright)).sum()) for band in bands)
    if outside:
        area.text(
            0.992,
            0.025,
            f"{outside} point{'s' if outside > 1 else ''} outside the picture",
            transform=area.transAxes,
            ha="right",
            fontsize=8,
            color=QUIET_COLOUR,
        )


def _set_runs(
    areas: Any,
    runs: Sequence[tuple[float, float]],
    curve: StarCurve,
    times: FloatArray,
    *,
    offset: int | None,
) -> None:
    """Set the time axes; side by side, cut edges are marked and each run says its nights."""
    from matplotlib.ticker import MaxNLocator

    widths = _widths(runs)
    for column, (first, last) in enumerate(runs):
        lowest, highest = areas[-1, column], areas[0, column]
        middle, width = (first + last) / 2, max(last - first, widths[column])
        lowest.set_xlim(middle - width / 2, middle + width / 2)
        n_ticks = max(1, round(9 * widths[column] / sum(widths)))
        locator = MaxNLocator(nbins=n_ticks, min_n_ticks=1)
        lowest.xaxis.set_major_locator(locator)
        lowest.xaxis.get_major_formatter().set_useOffset(False)
        if len(runs) == 1 or offset is None:
            continue
        ticks = np.asarray(locator.tick_values(*lowest.get_xlim()))
        room = np.abs(ticks - middle) <= width / 2 - TICK_ROOM * sum(widths)
        nearest = np.abs(ticks - middle) == np.abs(ticks - middle).min()
        lowest.set_xticks(ticks[room if room.any() else nearest])
        inside = (times - offset >= first) & (times - offset <= last)
        dates = sorted({curve.nights[i].date.isoformat() for i in curve.night_index[inside]})
        words = dates[0] if len(dates) == 1 else f"{dates[0]} …"
        highest.set_title(words, fontsize=8, color=QUIET_COLOUR, pad=3)
    for row in areas:
        for column, area in enumerate(row):
            if column:
                area.spines["left"].set_visible(False)
                area.tick_params(axis="y", left=False)
                _cut(area, 0.0)
            if column < len(runs) - 1:
                area.spines["right"].set_visible(False)
                _cut(area, 1.0)


def _cut(area: "Axes", x: float) -> None:
    """Mark where the axis is cut, by slanted strokes on its lower and upper line."""
    area.plot(
        [x, x],
        [0, 1],
        transform=area.transAxes,
        marker=[(-0.5, -1), (0.5, 1)],
        markersize=8,
        linestyle="none",
        color="black",
        markeredgewidth=0.9,
        clip_on=False,
    )


def _legend(figure: "Figure", bands: Sequence[_Points]) -> None:
    """Put one legend above the panels, with what every kind of point means."""
    from matplotlib.lines import Line2D

    entries = [(b.colour, b.marker, b.colour, b.band) for b in bands if len(b.x)]
    if any(band.doubtful.any() for band in bands):
        entries.append((QUIET_COLOUR, "o", "white", "proposed to be rejected, or held"))
    if any(band.limit.any() for band in bands):
        entries.append((QUIET_COLOUR, r"$\downarrow$", QUIET_COLOUR, "fainter than"))
    handles = [
        Line2D([], [], color=colour, marker=marker, markerfacecolor=fill, markersize=6,
               linestyle="none", label=words)
        for colour, marker, fill, words in entries
    ]  # fmt: skip
    if handles:
        legend = figure.legend(
            handles=handles,
            loc="upper right",
            bbox_to_anchor=(0.98, 0.955),
            ncols=6,
            fontsize=9,
            frameon=False,
            handletextpad=0.1,
            columnspacing=1.2,
        )
        for text in legend.get_texts():
            text.set_parse_math(False)


# ------------------------------------------------------------------------------------------- words


def _title(star: Variable) -> str:
    words = [clean(star.name, 40)]
    if star.variability_type:
        words.append(clean(star.variability_type, 20))
    if star.period_d:
        words.append(f"P = {star.period_d:.8g} d")
    return clean(", ".join(words), MAX_TITLE)


def _caption(curve: StarCurve, fold: Fold | None) -> list[str]:
    parts = [f"folded with {fold.words}"] if fold is not None else []
    parts += [_dates(curve), _counts(curve), *_standards(curve)]
    if curve.left_out:
        n = len(curve.left_out)
        parts.append(f"{n} observation{'s' if n > 1 else ''} left out")
    lines = _filled([clean(part) for part in parts])
    if len(lines) > MAX_CAPTION_LINES:
        lines = [*lines[: MAX_CAPTION_LINES - 1], "… more in the table"]
    return lines


def _filled(parts: Sequence[str]) -> list[str]:
    """Return lines of parts with dots between; a part is broken only when longer than a line."""
    lines: list[str] = []
    for part in parts:
        if lines and len(lines[-1]) + len(part) + 3 <= CAPTION_WIDTH:
            lines[-1] += f" · {part}"
        else:
            lines += textwrap.wrap(part, CAPTION_WIDTH)
    return lines


def _dates(curve: StarCurve) -> str:
    days = sorted({night.date for night in curve.nights})
    if not days:
        return "no night"
    if len(days) == 1:
        return f"night {days[0]}"
    return f"{len(days)} nights, {days[0]} to {days[-1]}"


def _counts(curve: StarCurve) -> str:
    n = int(np.isfinite(curve.mag).sum())
    words = f"{n} point{'' if n == 1 else 's'}"
    extra = []
    if limits := int(curve.upper_limit.sum()):
        extra.append(f"{limits} upper limit{'s' if limits > 1 else ''}")
    if rejected := sum(bool(words) for words in curve.proposed_rejected):
        extra.append(f"{rejected} proposed to be rejected")
    if held := sum(night.is_held for night in curve.nights):
        extra.append(f"{held} observation{'s' if held > 1 else ''} held")
    return f"{words} ({', '.join(extra)})" if extra else words


def _standards(curve: StarCurve) -> list[str]:
    """Return the words on zero points, charts, cameras, and what was transformed."""
    if not curve.nights:
        return []
    zero_points = [night.zp_err_mag for night in curve.nights]
    low, high = min(zero_points), max(zero_points)
    span = f"{low:.3f}" if f"{low:.3f}" == f"{high:.3f}" else f"{low:.3f} to {high:.3f}"
    inside = {night.merr for night in curve.nights}
    bars = "in the bars" if inside == {"total"} else "not in the bars"
    if len(inside) > 1:
        bars = "in the bars of some nights"
    transformed = {night.transformed for night in curve.nights}
    trans = "mixed" if len(transformed) > 1 else ("YES" if True in transformed else "NO")
    charts = sorted({night.chart_id for night in curve.nights})
    words = [
        f"zero-point error {span} mag, {bars}",
        f"chart{'s' if len(charts) > 1 else ''} {' '.join(charts)}",
        f"TRANS={trans}",
    ]
    cameras = {night.camera for night in curve.nights}
    if len(cameras) > 1:
        words.append(f"{len(cameras)} cameras")
    return words


def _write_caption(figure: "Figure", lines: Sequence[str]) -> None:
    for row, words in enumerate(reversed(lines)):
        figure.text(0.085, 0.016 + LINE_HEIGHT * row, words, fontsize=9, parse_math=False)
