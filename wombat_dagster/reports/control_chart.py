"""The check star over the nights: what it measured, what was allowed, and which nights are held."""

import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from wombat_dagster import domain
from wombat_dagster.domain import FloatArray
from wombat_dagster.reports.drawing import (
    DPI,
    HELD_COLOUR,
    QUIET_COLOUR,
    T2_COLOUR,
    clean,
    png_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SIZE_INCH: Final = (10.0, 5.6)
MARGIN_D: Final = 0.5
MIN_SPAN_MAG: Final = 0.06
FEW_DAYS: Final = 9.0
MMAG: Final = 1000.0


def control_chart_png(nights: Sequence[domain.CheckNight], *, title: str) -> bytes:
    """Return the check stars of one variable, band and camera over the nights as a PNG.

    Above each night's T2 less what it is judged against, with its error and the difference that is
    allowed; held nights are hollow. Below T2's scatter in the night beside its error. A night whose
    check star is another one than the night's before begins a new line, named at its top.

    Raises
    ------
    ValueError
        There is no night.
    """
    from matplotlib.figure import Figure

    if not nights:
        raise ValueError("no night with a check star")
    nights = sorted(nights, key=lambda night: (night.date, night.key))
    dates = _distinct_dates(nights)
    figure = Figure(figsize=SIZE_INCH, dpi=DPI, facecolor="white")
    upper, lower = figure.subplots(
        2,
        1,
        sharex=True,
        gridspec_kw={"hspace": 0.1, "height_ratios": [3, 1.3]}
        | {"left": 0.09, "right": 0.975, "top": 0.88, "bottom": 0.13},
    )
    _draw_offsets(upper, nights, dates)
    _draw_scatter(lower, nights, dates)
    _name_check_stars(upper, nights, dates)
    lower.set_xlim(dates.min() - MARGIN_D, dates.max() + MARGIN_D)
    _label_dates(lower)
    figure.align_ylabels()
    figure.text(0.09, 0.945, clean(title, 90), fontsize=13, weight="bold", parse_math=False)
    return png_of(figure)


def _distinct_dates(nights: Sequence[domain.CheckNight]) -> FloatArray:
    """Return matplotlib's dates, (n,); two nights of one date stand a tenth of a day apart."""
    dates: Any = importlib.import_module("matplotlib.dates")  # it has no types
    days = [float(dates.date2num(night.date)) for night in nights]
    return np.array([day + 0.1 * days[:i].count(day) for i, day in enumerate(days)])


def reference(night: domain.CheckNight) -> float | None:
    """Return what a night's T2 is shown against: what it was judged by, else the catalogue."""
    return night.catalogue_mag if night.reference_mag is None else night.reference_mag


def _draw_offsets(axes: "Axes", nights: Sequence[domain.CheckNight], dates: FloatArray) -> None:
    known = [reference(night) for night in nights]
    level = np.array([np.nan if mag is None else mag for mag in known])
    # nights that nothing is known to judge by stand about the mean of such nights
    unknown = np.isnan(level)
    magnitude = np.array([night.magnitude_mag for night in nights])
    level[unknown] = magnitude[unknown].mean() if unknown.any() else 0.0
    offset = magnitude - level
    error = np.array([night.error_mag for night in nights])
    held = np.array([night.held for night in nights])
    allowed = np.array([np.nan if n.allowed_mag is None else n.allowed_mag for n in nights])
    axes.axhline(0.0, color=QUIET_COLOUR, linestyle="--", linewidth=1.0)
    for sign in (-1.0, 1.0):
        axes.plot(
            dates, sign * allowed, "_", color=QUIET_COLOUR, markersize=18, markeredgewidth=1.5
        )
    for mask, colour, face, words in (
        (~held, T2_COLOUR, T2_COLOUR, "in control"),
        (held, HELD_COLOUR, "white", "held"),
    ):
        if mask.any():
            axes.errorbar(
                dates[mask],
                offset[mask],
                yerr=error[mask],
                fmt="o",
                color=colour,
                markerfacecolor=face,
                markersize=6,
                capsize=2,
                label=words,
            )
    span = max(MIN_SPAN_MAG, 1.25 * float(np.nanmax(np.abs([*(np.abs(offset) + error), *allowed]))))
    axes.set_ylim(span, -span)  # bright at the top
    axes.set_ylabel("T2 − reference (mag)")
    if np.isfinite(allowed).any():
        axes.plot([], [], "_", color=QUIET_COLOUR, markersize=14, label="allowed")
    axes.legend(loc="lower left", fontsize=8, ncols=3, frameon=False)
    axes.grid(alpha=0.25)


def _draw_scatter(axes: "Axes", nights: Sequence[domain.CheckNight], dates: FloatArray) -> None:
    scatter = np.array([np.nan if n.scatter_mag is None else n.scatter_mag for n in nights]) * MMAG
    axes.plot(dates, scatter, "s", color=T2_COLOUR, markersize=5, label="scatter in the night")
    zero_point = np.array([night.zp_err_mag for night in nights]) * MMAG
    axes.plot(dates, zero_point, "x", color=QUIET_COLOUR, markersize=5, label="zero-point error")
    axes.set_ylabel("mmag")
    top = 1.35 * float(np.nanmax([*scatter, *zero_point, 1.0]))
    axes.set_ylim(0.0, top)
    axes.legend(loc="upper left", fontsize=8, ncols=2, frameon=False)
    axes.grid(alpha=0.25)


def _name_check_stars(axes: "Axes", nights: Sequence[domain.CheckNight], dates: FloatArray) -> None:
    before = None
    for night, date in zip(nights, dates, strict=True):
        if night.check_name != before:
            if before is not None:
                axes.axvline(date - MARGIN_D, color=QUIET_COLOUR, linewidth=0.8)
            late = date > dates.min() + 0.75 * (dates.max() - dates.min()) > dates.min()
            axes.text(
                date,
                1.01,
                clean(night.check_name, 24),
                transform=axes.get_xaxis_transform(),
                fontsize=8,
                ha="right" if late else "left",
                va="bottom",
                parse_math=False,
            )
        before = night.check_name


def _label_dates(axes: "Axes") -> None:
    dates: Any = importlib.import_module("matplotlib.dates")  # it has no types
    first, last = axes.get_xlim()
    few = last - first <= FEW_DAYS  # no hours between nights
    locator = dates.DayLocator() if few else dates.AutoDateLocator(minticks=3, maxticks=9)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))
    axes.set_xlabel("night")
