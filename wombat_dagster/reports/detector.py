"""The picture of a detector over the nights: read noise, gain and dark current with their errors.

Drawn as `light_curve` draws: without pyplot, and no name is read as mathtext.
"""

import datetime as dt
import io
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from wombat_dagster.domain import DetectorMeasurement, DetectorQuantity, FrameGroup

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE_INCH: Final = (10.0, 7.0)
DPI: Final = 100
COLOURS: Final = ("#1f5fa8", "#b3312c", "#3a7d34", "#7a4fa0", "#8a6d1f", "#2d8a8a")
STEP_COLOUR: Final = "#d08000"
MAX_NAME: Final = 60
MAX_NAMES: Final = 8  # groups in the legend
MIN_SPAN: Final = 0.04  # of the value: a steady detector is shown steady
MARGIN: Final = 0.12
SINGLE_NIGHT_D: Final = 3.0  # shown on either side of a lone night

LABELS: Final = {
    DetectorQuantity.READ_NOISE: "read noise [ADU]",
    DetectorQuantity.GAIN: "gain [e⁻/ADU]",
    DetectorQuantity.DARK_CURRENT: "dark current [ADU/s]",
}


def detector_png(measured: Sequence[DetectorMeasurement]) -> bytes:
    """Return read noise, gain and dark current against the date as a PNG of 1000 by 700 pixels.

    One panel for each quantity that was ever measured, one colour per camera and readout, 1-sigma
    bars; steps have a ring.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE_INCH, dpi=DPI, facecolor="white")
    quantities = [q for q in DetectorQuantity if any(m.quantity is q for m in measured)]
    groups = list(dict.fromkeys(m.group for m in measured))
    figure.text(0.085, 0.962, _title(measured), fontsize=14, weight="bold", parse_math=False)
    if quantities:
        areas: Any = figure.subplots(
            len(quantities),
            1,
            sharex=True,
            squeeze=False,
            gridspec_kw={"hspace": 0.1, "left": 0.085, "right": 0.975}
            | {"top": 0.925 - 0.03 * min(len(groups), MAX_NAMES), "bottom": 0.075},
        )
        for area, quantity in zip(areas[:, 0], quantities, strict=True):
            _draw(area, [m for m in measured if m.quantity is quantity], groups)
            area.set_ylabel(LABELS[quantity])
        _set_dates(areas[-1, 0], measured)
        _legend(areas[0, 0])
        figure.align_ylabels()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _title(measured: Sequence[DetectorMeasurement]) -> str:
    days = sorted({m.date for m in measured})
    if not days:
        return "Detector: nothing measured"
    if len(days) == 1:
        return f"Detector on {days[0]}"
    return f"Detector on {len(days)} nights, {days[0]} to {days[-1]}"


def _name(group: FrameGroup) -> str:
    words = " ".join((group.camera or "camera not known", group.shape_words, group.readout or ""))
    line = "".join(
        c if c.isprintable() and ord(c) < 0x250 else "?" for c in " ".join(words.split())
    )
    return line if len(line) <= MAX_NAME else f"{line[: MAX_NAME - 1]}…"


def _draw(
    area: "Axes", measured: Sequence[DetectorMeasurement], groups: Sequence[FrameGroup]
) -> None:
    for number, group in enumerate(groups):
        ours = sorted((m for m in measured if m.group == group), key=lambda m: m.date)
        colour = COLOURS[number % len(COLOURS)]
        days = [_day(m.date) for m in ours]
        area.errorbar(
            days,
            [m.value for m in ours],
            yerr=[m.error for m in ours],
            fmt="o-",
            color=colour,
            markersize=4.0,
            linewidth=0.6,
            elinewidth=0.9,
            capsize=2.0,
            label=_name(group) if number < MAX_NAMES else "_unnamed",
        )
        steps = [(day, m.value) for day, m in zip(days, ours, strict=True) if m.step]
        if steps:
            area.plot(
                *zip(*steps, strict=True),
                linestyle="none",
                marker="o",
                markersize=13,
                markeredgewidth=1.8,
                markerfacecolor="none",
                markeredgecolor=STEP_COLOUR,
            )
    area.set_ylim(*_limits(measured))
    area.yaxis.get_major_formatter().set_useOffset(False)  # type: ignore[attr-defined]  # a ScalarFormatter
    area.grid(visible=True, color="#dddddd", linewidth=0.6)
    area.set_axisbelow(True)


def _limits(measured: Iterable[DetectorMeasurement]) -> tuple[float, float]:
    ends = [m.value + sign * m.error for m in measured for sign in (-1, 1)]
    low, high = min(ends), max(ends)
    span = max(high - low, MIN_SPAN * max(abs(low), abs(high)))
    if not span > 0:
        span = 1.0
    middle = (low + high) / 2
    return middle - (0.5 + MARGIN) * span, middle + (0.5 + MARGIN) * span


def _set_dates(area: "Axes", measured: Sequence[DetectorMeasurement]) -> None:
    from matplotlib import dates

    first, last = (_day(end(m.date for m in measured)) for end in (min, max))
    margin = max(0.03 * (last - first), SINGLE_NIGHT_D if first == last else 0.5)
    area.set_xlim(first - margin, last + margin)
    locator = dates.AutoDateLocator(minticks=2, maxticks=9)  # type: ignore[no-untyped-call]  # matplotlib.dates has no types
    locator.intervald["HOURLY"] = [24]  # nights are whole days
    area.xaxis.set_major_locator(locator)
    area.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]  # as above


def _day(date: dt.date) -> float:
    """Return a date as matplotlib counts days: from 1970."""
    return float((date - dt.date(1970, 1, 1)).days)


def _legend(area: "Axes") -> None:
    """Name the groups, and what a ring is, above the panel, where nothing is covered."""
    from matplotlib.lines import Line2D

    handles, labels = area.get_legend_handles_labels()
    ring = Line2D(
        [],
        [],
        linestyle="none",
        marker="o",
        markersize=9,
        markeredgewidth=1.6,
        markerfacecolor="none",
        markeredgecolor=STEP_COLOUR,
    )
    legend = area.legend(
        [*handles, ring],
        [*labels, "step from the nights before"],
        loc="lower left",
        bbox_to_anchor=(0.0, 1.0),
        ncols=2,
        fontsize=9,
        frameon=False,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
