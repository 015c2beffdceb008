"""The picture a person validates: T1 above T2 over one night, bright at the top."""

import textwrap
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from wombat_dagster import domain
from wombat_dagster.domain import BoolArray, FloatArray
from wombat_dagster.reports.drawing import (
    ALARM_COLOUR,
    DPI,
    HELD_COLOUR,
    QUIET_COLOUR,
    T1_COLOUR,
    T2_COLOUR,
    clean,
    png_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE_INCH: Final = (10.0, 7.0)
MAX_TITLE: Final = 64
CAPTION_WIDTH: Final = 112
MAX_ALARM_LINES: Final = 3
MAX_FACT_LINES: Final = 3
MAX_NOTE_LINES: Final = 6
NOTE_WIDTH: Final = 128
LINE_HEIGHT: Final = 0.026  # of the figure

MIN_SPAN_MAG: Final = 0.04  # a quiet star is shown quiet
MARGIN: Final = 0.08
ARROW_POINTS: Final = 16.0
ARROW: Final = ((0, 0), (0, -0.7), (0, -1), (-0.17, -0.65), (0.17, -0.65), (0, -1))  # 1 long


def light_curve_png(
    standard: domain.StandardMagnitudes,
    *,
    title: str | None = None,
) -> bytes:
    """Return the light curve of T1, and of T2 below it, as a PNG of 1000 by 700 pixels.

    Filled points with error bars count; hollow ones are proposed to be rejected; arrows are upper
    limits. T2 comes with its catalogue magnitude, dashed, and that one's error. `title` is the
    first line (target, filter and JD when None). The night's notes end the caption; comps that are
    not from the AAVSO's chart begin it, in orange.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE_INCH, dpi=DPI, facecolor="white")
    times, offset, scale = _times(standard)
    has_check = bool(np.isfinite(standard.t2_mag).any())
    caption = _caption(standard, has_check)
    bottom = 0.105 + LINE_HEIGHT * len(caption)
    areas: Any = figure.subplots(
        2 if has_check else 1,
        1,
        sharex=True,
        squeeze=False,
        gridspec_kw={"hspace": 0.18, "height_ratios": [3, 2] if has_check else [1]}
        | {"left": 0.085, "right": 0.975, "top": 0.915, "bottom": bottom},
    )
    rejected = np.array([bool(words) for words in standard.proposed_rejected], dtype=bool)
    _draw_target(areas[0, 0], standard, times, rejected)
    if has_check:
        _draw_check(areas[1, 0], standard, times, rejected)
    lowest = areas[-1, 0]  # x is shared
    lowest.set_xlim(*_time_limits(times))
    lowest.set_xlabel(f"{scale} − {offset}" if offset else scale)
    lowest.xaxis.get_major_formatter().set_useOffset(False)
    heading = clean(title or _default_title(standard), MAX_TITLE)
    figure.text(0.085, 0.962, heading, fontsize=14, weight="bold", parse_math=False)
    figure.align_ylabels()
    _write_caption(figure, caption)
    return png_of(figure)


# ------------------------------------------------------------------------------------------- words


def _default_title(standard: domain.StandardMagnitudes) -> str:
    days = standard.jd_utc[np.isfinite(standard.jd_utc)]
    when = f", JD {int(days.min())}" if len(days) else ""
    return f"{clean(standard.target, 50)} in {standard.band}{when}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    """One line below the picture."""

    words: str
    colour: str = "black"  # any other is bold
    small: bool = False


def _caption(standard: domain.StandardMagnitudes, has_check: bool) -> list[_Line]:
    """Return the lines below the picture: what to beware of, the facts, the notes."""
    bars = "in the bars of T1" if standard.merr == "total" else "not in the bars"
    parts = [
        f"zero-point error {standard.zp_err_mag:.3f} mag, {bars}",
        f"{_comp_count(standard)}, chart {standard.chart_id}",
        standard.method,
        f"TRANS={'YES' if standard.transformed else 'NO'}",
    ]
    if not has_check:
        parts.append("no check star")
    held = f"HELD: {standard.held_reason}" if standard.held_reason else ""
    alarm = [_Line(words=words, colour=HELD_COLOUR) for words in _wrap(held)]
    source = domain.not_of_the_aavso(standard.comp_source) or ""
    beware = [_Line(words=words, colour=ALARM_COLOUR) for words in _wrap(source)]
    facts = [_Line(words=words) for words in _wrap(" · ".join(parts))]
    notes = _wrap(" · ".join(standard.notes), NOTE_WIDTH)
    if len(notes) > MAX_NOTE_LINES:
        notes[MAX_NOTE_LINES - 1] = "… more in the magnitudes' file"
    small = [_Line(words=words, small=True) for words in notes[:MAX_NOTE_LINES]]
    return beware + alarm[:MAX_ALARM_LINES] + facts[:MAX_FACT_LINES] + small


def _wrap(text: str, width: int = CAPTION_WIDTH) -> list[str]:
    return textwrap.wrap(clean(text), width)


def _comp_count(standard: domain.StandardMagnitudes) -> str:
    counts = standard.n_comps[standard.n_comps > 0]
    n = len(standard.comp_names)
    comps = "1 comp" if n == 1 else f"{n} comps"
    if len(counts) and counts.min() < n:
        comps += f" ({counts.min()} on some frames)"
    if standard.ensemble == "field":
        comps += f" and {standard.n_field_stars} field stars"
    return comps


def _write_caption(figure: "Figure", lines: list[_Line]) -> None:
    for row, line in enumerate(reversed(lines)):
        figure.text(
            0.085,
            0.018 + LINE_HEIGHT * row,
            line.words,
            fontsize=8 if line.small else 9,
            color=line.colour,
            weight="normal" if line.colour == "black" else "bold",
            parse_math=False,
        )


def _legend(area: "Axes") -> None:
    """Put the legend above the panel, where it covers no point."""
    area.legend(
        loc="lower right",
        bbox_to_anchor=(1.0, 0.995),
        ncols=4,
        fontsize=9,
        frameon=False,
        handletextpad=0.3,
        columnspacing=1.4,
    )


# ------------------------------------------------------------------------------------------- points


def _times(standard: domain.StandardMagnitudes) -> tuple[FloatArray, int, str]:
    """Return times less a whole day, that day (0 when no time is known), and the scale's name."""
    known = np.isfinite(standard.hjd_utc).any()
    days, scale = (standard.hjd_utc, "HJD(UTC)") if known else (standard.jd_utc, "JD(UTC)")
    if not np.isfinite(days).any():
        return np.full(len(days), np.nan), 0, scale
    offset = int(np.floor(np.nanmin(days)))
    return days - offset, offset, scale


def _time_limits(times: FloatArray) -> tuple[float, float]:
    known = times[np.isfinite(times)]
    if not len(known):
        return 0.0, 1.0
    margin = max(0.03 * float(np.ptp(known)), 0.002)
    return float(known.min()) - margin, float(known.max()) + margin


def _magnitude_limits(
    magnitudes: FloatArray, errors: FloatArray, reach: FloatArray
) -> tuple[float, float] | None:
    """Return (faint, bright) around magnitudes with their bars and the values of `reach`.

    None where nothing is finite.
    """
    bars = np.nan_to_num(errors)
    values = np.concatenate([magnitudes - bars, magnitudes + bars, reach])
    values = values[np.isfinite(values)]
    if not len(values):
        return None
    bright, faint = float(values.min()), float(values.max())
    margin = max(MARGIN * (faint - bright), (MIN_SPAN_MAG - (faint - bright)) / 2)
    return faint + margin, bright - margin


def _set_magnitudes(area: "Axes", limits: tuple[float, float] | None, name: str) -> None:
    """Turn the axis so that bright is at the top, and label it."""
    if limits is None:
        area.text(0.5, 0.5, "no magnitude", transform=area.transAxes, ha="center", color="grey")
        limits = (1.0, 0.0)
    area.set_ylim(*limits)
    area.set_ylabel(name, parse_math=False)
    area.yaxis.get_major_formatter().set_useOffset(False)  # type: ignore[attr-defined]  # a ScalarFormatter
    area.grid(visible=True, color="#dddddd", linewidth=0.6)
    area.set_axisbelow(True)


def _marker_size(n_points: int) -> float:
    return float(np.clip(40 / np.sqrt(max(n_points, 1)), 2.5, 5.0))


def _draw_points(
    area: "Axes",
    times: FloatArray,
    magnitudes: FloatArray,
    errors: FloatArray,
    rejected: BoolArray,
    *,
    colour: str,
    label: str,
) -> None:
    """Draw what counts filled with bars, and what is proposed to be rejected hollow and pale."""
    size = _marker_size(len(times))
    finite = np.isfinite(times) & np.isfinite(magnitudes)
    for kept, fill, alpha, words in (
        (finite & ~rejected, colour, 1.0, label),
        (finite & rejected, "white", 0.55, "proposed to be rejected"),
    ):
        if kept.any():
            area.errorbar(
                times[kept],
                magnitudes[kept],
                yerr=np.nan_to_num(errors[kept]),
                fmt="o",
                markersize=size,
                color=colour,
                markerfacecolor=fill,
                elinewidth=0.8,
                alpha=alpha,
                linestyle="none",
                label=f"{words} ({kept.sum()})",
            )


def _draw_limits(
    area: "Axes", times: FloatArray, magnitudes: FloatArray, rejected: BoolArray
) -> None:
    """Draw an arrow down from every limit: signs of one line, a thousand cost no more than one."""
    from matplotlib.path import Path

    shaft, head = [Path.MOVETO, Path.LINETO], [Path.MOVETO, *[Path.LINETO] * 2, Path.CLOSEPOLY]
    arrow = Path(ARROW, [*shaft, *head])
    for kept, alpha in ((~rejected, 1.0), (rejected, 0.4)):
        if kept.any():
            area.plot(
                times[kept],
                magnitudes[kept],
                linestyle="none",
                marker=arrow,
                markersize=2 * ARROW_POINTS,  # matplotlib's size is that of a sign to both sides
                color=T1_COLOUR,
                alpha=alpha,
                label="_arrows",
            )
    area.plot(
        times,
        magnitudes,
        linestyle="none",
        marker="_",
        markersize=8,
        color=T1_COLOUR,
        label=f"fainter than ({len(times)})",
    )


def _draw_target(
    area: "Axes", standard: domain.StandardMagnitudes, times: FloatArray, rejected: BoolArray
) -> None:
    limit = standard.t1_upper_limit & np.isfinite(times) & np.isfinite(standard.t1_mag)
    point = np.where(standard.t1_upper_limit, np.nan, standard.t1_mag)
    counted = np.where(rejected, np.nan, point)
    if not (np.isfinite(counted).any() or (limit & ~rejected).any()):
        counted = point
    limits = _magnitude_limits(counted, standard.t1_merr_mag, standard.t1_mag[limit])
    _set_magnitudes(area, limits, f"T1  {clean(standard.target, 24)}  [{standard.band}]")
    _draw_points(area, times, point, standard.t1_merr_mag, rejected, colour=T1_COLOUR, label="T1")
    if limit.any():
        _draw_limits(area, times[limit], standard.t1_mag[limit], rejected[limit])
    if limits is not None:
        _tell_outside(area, point, limits)
        _legend(area)


def _draw_check(
    area: "Axes", standard: domain.StandardMagnitudes, times: FloatArray, rejected: BoolArray
) -> None:
    magnitudes, errors = standard.t2_mag, standard.t2_random_mag
    counted = np.where(rejected, np.nan, magnitudes)
    if not np.isfinite(counted).any():
        counted = magnitudes
    catalogue = standard.check_catalogue_mag
    reach = np.array([] if catalogue is None else [catalogue])
    limits = _magnitude_limits(counted, errors, reach)
    name = clean(standard.check_name or "", 20)
    band = standard.band
    if standard.comp_band != band:
        band += f" against {standard.comp_band}"
    _set_magnitudes(area, limits, f"T2  {name}  [{band}]")
    _draw_points(area, times, magnitudes, errors, rejected, colour=T2_COLOUR, label=_t2(standard))
    if catalogue is not None:
        _draw_catalogue(area, catalogue, standard.check_catalogue_error_mag)
    if limits is not None:
        _tell_outside(area, magnitudes, limits)
        _legend(area)


def _t2(standard: domain.StandardMagnitudes) -> str:
    words = "T2"
    if standard.check_offset_mag is not None:
        words += f", median {standard.check_offset_mag:+.3f} from the catalogue"
    if standard.check_scatter_mag is not None:
        words += f", scatter {standard.check_scatter_mag:.4f}"
    return words


def _draw_catalogue(area: "Axes", magnitude: float, error: float | None) -> None:
    words = f"catalogue {magnitude:.3f}"
    if error is not None:
        words += f" ± {error:.3f}"
        area.axhspan(magnitude - error, magnitude + error, color=T2_COLOUR, alpha=0.1, linewidth=0)
    area.axhline(magnitude, color=T2_COLOUR, linestyle="--", linewidth=1.2, label=words)


def _tell_outside(area: "Axes", magnitudes: FloatArray, limits: tuple[float, float]) -> None:
    """Say how many points lie outside: rejected ones do not squeeze the others."""
    faint, bright = limits
    outside = int(((magnitudes > faint) | (magnitudes < bright)).sum())
    if outside:
        area.text(
            0.008,
            0.025,
            f"{outside} rejected point{'s' if outside > 1 else ''} outside the picture",
            transform=area.transAxes,
            fontsize=8,
            color=QUIET_COLOUR,
        )
