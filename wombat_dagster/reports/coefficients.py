"""Transformation coefficients of a night on a standard field: the picture, the tables.

Drawn as `light_curve` draws: without pyplot, and no name is read as mathtext.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from wombat_dagster.domain import BoolArray, Coefficient, FloatArray
from wombat_dagster.reports.drawing import DPI, T1_COLOUR, T2_COLOUR, png_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANEL_INCH: Final = (4.6, 3.3)
MARGIN_INCH: Final = 0.6  # above, for the title
COLUMNS: Final = 3
LINE_COLOUR: Final = "#333333"
MAX_NAMED: Final = 6  # stars off the line, in a panel
MAX_NAME: Final = 14
MARGIN: Final = 0.07


@dataclass(frozen=True, slots=True, kw_only=True)
class FitPanel:
    """One coefficient's line: `ordinate` against `colour` of n stars, arrays of shape (n,).

    `error_mag` is across the line; `used` marks the stars it goes through. `scatter_mag` is the
    stars' scatter beyond their errors.
    """

    coefficient: Coefficient
    ordinate_words: str
    colour_words: str
    names: tuple[str, ...]
    colour: FloatArray
    ordinate: FloatArray
    error_mag: FloatArray
    used: BoolArray
    slope: float
    intercept: float
    scatter_mag: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StarLine:
    """What became of one standard star: per band the mean instrumental magnitude, or the reason.

    `bands` are AAVSO codes, in which `mags` and `errors_mag` (NaN: none) and `words` (why none, or
    how many frames) stand. `left_out` names the coefficients whose line it is off.
    """

    name: str
    ra_deg: float
    dec_deg: float
    v_mag: float
    bands: tuple[str, ...]
    mags: tuple[float, ...]
    errors_mag: tuple[float, ...]
    words: tuple[str, ...]
    left_out: tuple[str, ...]


def coefficients_png(title: str, panels: Sequence[FitPanel]) -> bytes:
    """Return every coefficient's stars and line as a PNG, 460 by 330 pixels a panel.

    Stars with 1-sigma bars of measurement and catalogue together; those that the line leaves out
    are crosses, the farthest named.
    """
    from matplotlib.figure import Figure

    columns = max(1, min(COLUMNS, len(panels)))
    rows = max(1, -(-len(panels) // columns))
    width, height = PANEL_INCH[0] * columns, PANEL_INCH[1] * rows + MARGIN_INCH
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white")
    figure.text(
        0.07 / columns, 1 - 0.36 / height, title, fontsize=13, weight="bold", parse_math=False
    )
    areas: Any = figure.subplots(
        rows,
        columns,
        squeeze=False,
        gridspec_kw={
            "left": 0.19 / columns,
            "right": 1 - 0.04 / columns,
            "top": 1 - (MARGIN_INCH + 0.28) / height,
            "bottom": 0.5 / height,
            "wspace": 0.3,
            "hspace": 0.48,
        },
    )
    for number, area in enumerate(areas.flat):
        if number < len(panels):
            _draw(area, panels[number])
        else:
            area.set_axis_off()
    return png_of(figure)


def _draw(area: "Axes", panel: FitPanel) -> None:
    used = panel.used
    for marks, colour, marker in ((used, T1_COLOUR, "o"), (~used, T2_COLOUR, "x")):
        area.errorbar(
            panel.colour[marks],
            panel.ordinate[marks],
            yerr=panel.error_mag[marks],
            fmt=marker,
            color=colour,
            markersize=4.0 if marker == "o" else 6.0,
            elinewidth=0.7,
        )
    ends = np.array([panel.colour.min(), panel.colour.max()])
    area.plot(ends, panel.intercept + panel.slope * ends, color=LINE_COLOUR, linewidth=1.1)
    away = np.abs(panel.ordinate - panel.intercept - panel.slope * panel.colour)
    farthest = sorted(np.flatnonzero(~used), key=lambda i: -away[i])[:MAX_NAMED]
    for index in farthest:
        area.annotate(
            _name(panel.names[index]),
            (float(panel.colour[index]), float(panel.ordinate[index])),
            xytext=(5, 3),
            textcoords="offset points",
            fontsize=7,
            color=T2_COLOUR,
            parse_math=False,
        )
    area.set_title(_heading(panel), fontsize=9.5, parse_math=False)
    area.set_xlabel(f"{panel.colour_words} [mag]", fontsize=9)
    area.set_ylabel(f"{panel.ordinate_words} [mag]", fontsize=9)
    area.tick_params(labelsize=8)
    area.margins(MARGIN)
    area.yaxis.get_major_formatter().set_useOffset(False)  # type: ignore[attr-defined]  # a ScalarFormatter
    area.grid(visible=True, color="#dddddd", linewidth=0.6)
    area.set_axisbelow(True)


def _heading(panel: FitPanel) -> str:
    one = panel.coefficient
    error = f" ± {one.error:.4f}" if one.error is not None else ""
    squared = f", r² {one.r_squared:.3f}" if one.r_squared is not None else ""
    return f"{one.name} = {one.value:+.4f}{error}   {one.n_stars} stars{squared}"


def _name(name: str) -> str:
    line = "".join(c if c.isprintable() and ord(c) < 0x250 else "?" for c in name)
    return line if len(line) <= MAX_NAME else f"{line[: MAX_NAME - 1]}…"


def coefficients_csv(panels: Sequence[FitPanel]) -> str:
    """Return the coefficients as CSV."""
    rows = [
        [
            one.name,
            f"{one.value:.5f}",
            f"{one.error:.5f}" if one.error is not None else "",
            str(one.n_stars),
            str(len(panel.names)),
            f"{one.r_squared:.4f}" if one.r_squared is not None else "",
            f"{panel.scatter_mag:.4f}",
            f"{panel.intercept:.4f}",
        ]
        for panel in panels
        for one in [panel.coefficient]
    ]
    heading = ["coefficient", "value", "error", "stars", "stars_measured", "r_squared"]
    return _csv([[*heading, "extra_scatter_mag", "intercept_mag"], *rows])


def stars_csv(stars: Sequence[StarLine]) -> str:
    """Return the ledger of the standard stars as CSV: used with what, or why not."""
    bands = stars[0].bands if stars else ()
    heading = ["star", "ra_deg", "dec_deg", "catalogue_V_mag"]
    for band in bands:
        heading += [f"{band.lower()}_mag", f"{band.lower()}_error_mag", f"{band.lower()}_words"]
    rows = [
        [
            star.name,
            f"{star.ra_deg:.6f}",
            f"{star.dec_deg:.6f}",
            _number(star.v_mag),
            *(
                cell
                for mag, error, words in zip(star.mags, star.errors_mag, star.words, strict=True)
                for cell in (_number(mag), _number(error), words)
            ),
            " ".join(star.left_out),
        ]
        for star in stars
    ]
    return _csv([[*heading, "off_the_line_of"], *rows])


def _number(value: float) -> str:
    return f"{value:.4f}" if np.isfinite(value) else ""


def _csv(rows: Sequence[Sequence[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()
