"""Two pictures of how good a night is: scatter against magnitude, and the series of the stars.

Drawn as `light_curve` draws: without pyplot, and no name is read as mathtext.
"""

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from wombat_dagster.domain import BoolArray, Flag, FloatArray, PhotometryTable, PrecisionReport
from wombat_dagster.reports.drawing import (
    DPI,
    QUIET_COLOUR,
    T1_COLOUR,
    T2_COLOUR,
    clean,
    small_png_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from numpy.typing import NDArray

SIZE_INCH: Final = (10.0, 7.0)
SERIES_SIZE_INCH: Final = (10.0, 10.0)

COMP_COLOUR: Final = "#111111"
FIELD_COLOUR: Final = "#9a9a9a"
GRID_COLOUR: Final = "#dddddd"

# Okabe & Ito's colours, told apart without red and green; every line has its own dashes as well.
PARTS: Final[Mapping[str, tuple[str, str, Any]]] = {
    "photon": ("photons", "#e69f00", (0, (5, 1.5))),
    "sky": ("sky", "#56b4e9", (0, (3, 1.5))),
    "scintillation": ("scintillation", "#cc79a7", (0, (6, 1.5, 1.5, 1.5))),
    "read": ("read noise", "#009e73", (0, (1.2, 1.2))),
    "flat": ("flat", "#8c6d31", (0, (3, 1, 1, 1, 1, 1))),
    "dark": ("dark", "#6a51a3", (0, (1.2, 2.5))),
    "rounding": ("rounding", "#999999", (0, (1, 3))),
    "ensemble": ("comparison", "#d55e00", (0, (8, 1.5, 1, 1.5, 1, 1.5))),
}
# Comps unlike the others, by name: the same colour in every panel.
ODD_COLOURS: Final = ("#e69f00", "#cc79a7", "#56b4e9", "#111111", "#8c6d31", "#6a51a3")
MAX_ODD: Final = 3  # in a panel
FWHM_COLOUR: Final = "#009e73"  # of the frame's fitted profile
DRIFT_COLOURS: Final = ("#111111", "#e69f00")  # x and y

MMAG: Final = 1000.0
LOUD_FACTOR: Final = 1.5  # a comp's pull beyond which it is named
MAX_NAMED: Final = 4
NARROW_SPAN: Final = 20.0  # a scatter axis below that gets more numbers
CAPTION_WIDTH: Final = 118
MAX_CAPTION_LINES: Final = 4
LINE_HEIGHT: Final = 0.026
LABEL_PX: Final = (9.0, 13.0)  # of a letter of the role beside a point
LABEL_PLACES: Final = (  # in x and y, times the half height of point and letter; far ones last
    *((0, 1), (0, -1), (1.5, 0), (-1.5, 0), (1.3, 1), (-1.3, 1), (1.3, -1), (-1.3, -1)),
    *((0, 2.4), (0, -2.4), (2, 2.4), (-2, 2.4), (2, -2.4), (-2, -2.4), (0, 3.8), (0, -3.8)),
)
INNER_PART: Final = (1.0, 99.0)  # percent of the points that set a panel's height
ODD_OFFSET: Final = 6.0  # robust sigmas of the comps' own medians
ODD_SCATTER: Final = 3.0  # times the comps' usual one
MIN_COMPS_TO_JUDGE: Final = 4
LEAST_ROUND: Final = 0.98  # a night of round stars is shown round
FEW_FRAMES: Final = 30  # drawn as points as well
TINY: Final = 1e-12
SMOOTH_POINTS: Final = 60  # medians along a night of more than SMOOTH_FROM frames
SMOOTH_FROM: Final = 120
BAND_COLOUR: Final = "#e6e6e6"
LINE_COLOUR: Final = "#b0b0b0"


# ------------------------------------------------------------------------ scatter against magnitude


def rms_plot_png(report: PrecisionReport) -> bytes:
    """Return scatter against magnitude, as a PNG of 1000 by 700 pixels.

    Filled signs are the observed scatter from frame to frame, hollow ones that of the means of ten
    minutes; lines the expected error by its parts. T1 has two signs, its whole scatter and that of
    neighbouring frames, for it varies.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE_INCH, dpi=DPI, facecolor="white")
    caption = _caption(report)
    bottom = 0.115 + LINE_HEIGHT * len(caption)
    area = figure.add_axes((0.085, bottom, 0.69, 0.925 - bottom))
    area.set_yscale("log")
    shown = np.isfinite(report.magnitude_mag) & np.isfinite(report.rms_mag)
    if shown.any():
        _set_scatter_axes(area, report, shown)
        _draw_scatter(area, report)
        _draw_curves(area, report)
        _name_points(area, report)
        _scatter_legend(area)
    else:
        area.set_yticks([])
        words = f"no scatter: {report.n_frames} clear frames, at least 5 wanted"
        area.text(0.5, 0.5, words, transform=area.transAxes, ha="center", color="grey")
    scale = "from the comps' zero point" if report.zero_point_mag is not None else "instrumental"
    area.set_xlabel(f"{report.band} [mag], {scale}", parse_math=False)
    area.set_ylabel("scatter (robust rms) [mmag]")
    day = f", JD {int(report.jd_first)}" if np.isfinite(report.jd_first) else ""
    title = f"Precision of {clean(report.target, 40)} in {report.band}{day}"
    figure.text(0.085, 0.955, title, fontsize=14, weight="bold", parse_math=False)
    for row, line in enumerate(reversed(caption)):
        figure.text(0.085, 0.018 + LINE_HEIGHT * row, line, fontsize=9, parse_math=False)
    return small_png_of(figure)


def _caption(report: PrecisionReport) -> list[str]:
    frames = f"{report.n_frames} frames"
    if report.n_clouded:
        frames += f" ({report.n_clouded} clouded or low ones left out)"
    words = [frames]
    if report.n_in_bin is None:
        words.append(f"no {report.bin_min:g}-minute bins: too few frames in them or too short")
    else:
        steady = [i for i, role in enumerate(report.roles) if role != "T1"]
        ratio = report.bin_ratio[steady]
        words.append(f"{report.bin_min:g}-minute bins of {report.n_in_bin:g} frames")
        if np.isfinite(ratio).any():
            median = float(np.median(ratio[np.isfinite(ratio)]))
            words.append(f"their scatter over rms/√n: {median:.2f} (median; 1: white noise)")
    pulls = {role: pull for role, pull in zip(report.roles, report.pull, strict=True) if role}
    if np.isfinite(pulls.get("T2", np.nan)):
        words.append(f"scatter over expected error: T2 {pulls['T2']:.2f}")
    comps = np.array([p for role, p in pulls.items() if role[0] == "C" and np.isfinite(p)])
    if len(comps):
        named = "comps" if np.isfinite(pulls.get("T2", np.nan)) else "scatter over error: comps"
        words.append(f"{named} {comps.min():.2f} to {comps.max():.2f}")
    loud = [role for role, pull in pulls.items() if role != "T1" and pull > LOUD_FACTOR]
    if loud:
        more = f" and {len(loud) - MAX_NAMED} more" if len(loud) > MAX_NAMED else ""
        beyond = f"scatter beyond {LOUD_FACTOR:g} times the expected error"
        words.append(f"{beyond}: {', '.join(loud[:MAX_NAMED])}{more}")
    words += report.unknown
    lines = textwrap.wrap(clean(" · ".join(words)), CAPTION_WIDTH)
    if len(lines) > MAX_CAPTION_LINES:
        lines = [*lines[: MAX_CAPTION_LINES - 1], lines[MAX_CAPTION_LINES - 1][:-1] + "…"]
    return lines


def _set_scatter_axes(area: "Axes", report: PrecisionReport, shown: BoolArray) -> None:
    from matplotlib import ticker

    mags = report.magnitude_mag[shown]
    margin = max(0.05 * float(np.ptp(mags)), 0.25)
    area.set_xlim(float(mags.min()) - margin, float(mags.max()) + margin)
    series = [report.rms_mag, report.binned_rms_mag, report.expected_mag, report.successive_rms_mag]
    values = np.concatenate([one[shown] for one in series])
    values = values[np.isfinite(values) & (values > 0)] * MMAG
    if len(values):
        area.set_ylim(float(values.min()) / 1.6, float(values.max()) * 1.7)
    low, high = area.get_ylim()
    subs = (1.0, 2.0, 5.0) if high > NARROW_SPAN * low else (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0)
    area.yaxis.set_major_locator(ticker.LogLocator(base=10.0, subs=subs))
    area.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
    area.yaxis.set_minor_formatter(ticker.NullFormatter())
    area.grid(visible=True, color=GRID_COLOUR, linewidth=0.6)
    area.set_axisbelow(True)


def _draw_curves(area: "Axes", report: PrecisionReport) -> None:
    for name, (words, colour, dashes) in PARTS.items():
        curve = report.curves.get(name)
        if curve is not None:
            bottom = area.get_ylim()[0]
            label = words if curve.max() * MMAG > bottom else f"{words}, below {bottom:.1f}"
            area.plot(
                report.curve_mag, curve * MMAG, color=colour, dashes=dashes[1], lw=1.4, label=label
            )
    total = report.curves.get("total")
    if total is None:
        return
    area.plot(report.curve_mag, total * MMAG, color=COMP_COLOUR, lw=1.8, label="expected, total")
    if report.n_in_bin is not None:
        area.plot(
            report.curve_mag,
            total * MMAG / np.sqrt(report.n_in_bin),
            color=COMP_COLOUR,
            lw=0.9,
            label=f"total/√{report.n_in_bin:g}",
        )


def _draw_scatter(area: "Axes", report: PrecisionReport) -> None:
    roles = np.array(report.roles)
    groups = (
        ("field stars", roles == "", FIELD_COLOUR, "o", 4.0),
        ("comps", np.char.startswith(roles, "C"), COMP_COLOUR, "o", 6.5),
        ("T2, check star", roles == "T2", T2_COLOUR, "D", 7.5),
        ("T1, variable", roles == "T1", T1_COLOUR, "*", 12.0),
    )
    bins = f"{report.bin_min:g}-minute means"
    for words, ours, colour, sign, size in groups:
        if not ours.any():
            continue
        mags = report.magnitude_mag[ours]
        look: dict[str, Any] = {"linestyle": "none", "color": colour, "clip_on": True}
        if words.startswith("T1"):
            _draw_variable(area, report, ours, look)
            continue
        rms = report.rms_mag[ours] * MMAG
        area.plot(mags, rms, marker=sign, markersize=size, label=words, zorder=4, **look)
        binned = report.binned_rms_mag[ours] * MMAG
        if np.isfinite(binned).any():
            area.plot(
                mags,
                binned,
                marker=sign,
                markersize=0.75 * size,
                markerfacecolor="none",
                markeredgewidth=0.9,
                zorder=3,
                label=bins if words == "comps" else "_same",
                **look,
            )


def _draw_variable(
    area: "Axes", report: PrecisionReport, ours: BoolArray, look: Mapping[str, Any]
) -> None:
    """Draw T1's whole scatter hollow, as it varies, and under it that of neighbouring frames."""
    mags = report.magnitude_mag[ours]
    whole, near = report.rms_mag[ours] * MMAG, report.successive_rms_mag[ours] * MMAG
    area.vlines(mags, near, whole, color=look["color"], linestyle=(0, (1, 2)), linewidth=1.0)
    words = "T1, variable: in all"
    area.plot(mags, whole, marker="*", markersize=13, mfc="white", label=words, zorder=5, **look)
    words = "T1, frame to next"
    area.plot(mags, near, marker="*", markersize=13, label=words, zorder=5, **look)


def _name_points(area: "Axes", report: PrecisionReport) -> None:
    """Write the roles beside their points, where no other name or point is in the way."""
    taken: list[tuple[float, float, float, float]] = []
    places = {}
    for index, role in enumerate(report.roles):
        x, y = report.magnitude_mag[index], report.rms_mag[index] * MMAG
        if np.isfinite(x) and np.isfinite(y) and y > 0:
            px, py = area.transData.transform((x, y))
            half = 9 if role == "T1" else 4
            taken.append((px - half, py - half, px + half, py + half))
            if role:
                places[index] = (float(px), float(py), half)
    width, height = LABEL_PX
    for index, (px, py, half) in places.items():
        role = report.roles[index]
        wide = width * len(role)
        reach = half + 1 + height / 2
        for right, up in LABEL_PLACES:
            x0, y0 = px + right * reach - wide / 2, py + up * reach - height / 2
            box = (x0, y0, x0 + wide, y0 + height)
            if any(_overlap(box, other) for other in taken):
                continue
            taken.append(box)
            colour = {"T1": T1_COLOUR, "T2": T2_COLOUR}.get(role, COMP_COLOUR)
            far = abs(up) > 1
            area.annotate(
                role,
                (px, py),
                xytext=(px + right * reach, py + up * reach),
                xycoords="figure pixels",
                textcoords="figure pixels",
                arrowprops={"arrowstyle": "-", "color": QUIET_COLOUR, "lw": 0.6} if far else None,
                ha="center",
                va="center",
                fontsize=9,
                color=colour,
                weight="bold" if role[0] == "T" else "normal",
                zorder=6,
            )
            break


def _overlap(one: Sequence[float], other: Sequence[float]) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _scatter_legend(area: "Axes") -> None:
    handles, labels = area.get_legend_handles_labels()
    area.legend(
        handles,
        labels,
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        borderaxespad=0.0,
        fontsize=9,
        frameon=False,
        handlelength=2.6,
        labelspacing=0.6,
    )


# ------------------------------------------------------------------------------ series of the stars


def series_plot_png(table: PhotometryTable) -> bytes:
    """Return where the stars are, how wide and how round, and the sky, frame by frame; PNG.

    1000 by 1000 pixels: the field's drift in x and y; every star's place less the catalogue's, to
    the east and the north, about its night's median; width; sky; roundness. T1 and T2 frame by
    frame, comps by their range and as medians of some frames; up to three in a panel that are
    unlike the others have a colour and a name. A few wild points do not set a panel's height: they
    are counted in its corner.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=SERIES_SIZE_INCH, dpi=DPI, facecolor="white")
    areas: Any = figure.subplots(
        6,
        1,
        sharex=True,
        gridspec_kw={"hspace": 0.09, "left": 0.095, "right": 0.865, "top": 0.94, "bottom": 0.055},
    )
    jd = table.times.jd_utc
    first = int(np.floor(np.nanmin(jd))) if np.isfinite(jd).any() else 0
    times = jd - first
    stars = table.measured
    measured = (stars.flags & Flag.UNMEASURED) == 0
    guessed = measured & ((stars.flags & Flag.OFF_CENTRE) != 0)
    east, north = _off_place(table)
    _draw_drift(areas[0], table, times)
    colours: dict[str, str] = {}
    panels = {
        "east of place\n[arcsec]": east,
        "north of place\n[arcsec]": north,
        "width [px]": stars.width_px,
        "sky [ADU/px]": stars.sky_adu_px,
        "roundness": stars.roundness,
    }
    for area, (words, values) in zip(areas[1:], panels.items(), strict=True):
        values = np.where(measured, values, np.nan)
        limits = _inner_limits(values)
        if words.startswith("width") and limits is not None:
            area.plot(times, table.frame_fwhm_px, "-", color=FWHM_COLOUR, lw=0.8, label="FWHM")
            limits = _together(limits, _inner_limits(table.frame_fwhm_px))
        if words == "roundness" and limits is not None:
            limits = min(limits[0], LEAST_ROUND), limits[1] + 0.001
        _draw_stars(area, table, times, values, colours=colours, named=area is areas[1])
        if "place" in words and guessed.any():
            row, star = np.nonzero(guessed)
            look: dict[str, Any] = {"linestyle": "none", "marker": "x", "markersize": 5}
            area.plot(times[row], values[row, star], color="#000000", label="off centre", **look)
        _set_height(area, values, limits)
        area.set_ylabel(words)
    for area in areas:
        area.grid(visible=True, color=GRID_COLOUR, linewidth=0.6)
        area.set_axisbelow(True)
        area.tick_params(labelsize=9)
        area.yaxis.get_major_formatter().set_useOffset(False)
        _series_legend(area)
    areas[-1].set_xlabel(f"JD(UTC) − {first}" if first else "JD(UTC)")
    areas[-1].xaxis.get_major_formatter().set_useOffset(False)
    figure.align_ylabels()
    day = f", JD {first}" if first else ""
    title = f"Series of {clean(table.target, 40)} in {table.band}{day}"
    figure.text(0.095, 0.962, title, fontsize=14, weight="bold", parse_math=False)
    return small_png_of(figure)


def _turned(table: PhotometryTable) -> BoolArray:
    """Return the frames turned by more than a right angle against the first, shape (n_frames,)."""
    x, y = table.measured.x_px, table.measured.y_px
    both = np.isfinite(x) & np.isfinite(y) & np.isfinite(x[0]) & np.isfinite(y[0])
    n = np.maximum(both.sum(axis=1), 1)[:, None]
    product = np.zeros(len(x))
    for values in (x, y):
        here, there = np.where(both, values, 0.0), np.where(both, values[0], 0.0)
        here = np.where(both, here - here.sum(axis=1, keepdims=True) / n, 0.0)
        product += (here * there).sum(axis=1)
    return product < 0


def _draw_drift(area: "Axes", table: PhotometryTable, times: FloatArray) -> None:
    """Draw the median over the stars of their way since the first frame of the same orientation."""
    turned = _turned(table)
    sign = "." if len(times) < FEW_FRAMES else "None"
    both = (table.measured.x_px, table.measured.y_px)
    for values, words, colour in zip(both, "xy", DRIFT_COLOURS, strict=True):
        way = np.full(len(times), np.nan)
        for side in (~turned, turned):
            if side.any():
                way[side] = _row_median(values[side] - values[side][0])
        for number, run in enumerate(np.split(np.arange(len(times)), _changes(turned))):
            label = words if number == 0 else "_again"
            area.plot(times[run], way[run], color=colour, marker=sign, linewidth=1.0, label=label)
    for change in _changes(turned):
        between = float(times[change - 1 : change + 1].mean())
        area.axvline(between, color=QUIET_COLOUR, linestyle="--", linewidth=1.0)
        area.annotate(
            "turned by half a turn",
            (between, 0.95),
            xycoords=("data", "axes fraction"),
            xytext=(4, 0),
            textcoords="offset points",
            va="top",
            fontsize=8,
            color=QUIET_COLOUR,
        )
    area.set_ylabel("drift of the\nfield [px]")


def _changes(turned: BoolArray) -> "NDArray[np.intp]":
    """Return the frames before which the orientation changes."""
    return np.flatnonzero(np.diff(turned)) + 1


def _row_median(values: FloatArray) -> FloatArray:
    """Return the median over the stars, NaN where none is measured."""
    found = np.full(len(values), np.nan)
    known = np.isfinite(values).any(axis=1)
    found[known] = np.nanmedian(values[known], axis=1)
    return found


def _off_place(table: PhotometryTable) -> tuple[FloatArray, FloatArray]:
    """Return arcseconds east and north of the catalogue's place, about each star's median."""
    ra = np.array([star.ra_deg for star in table.stars])
    dec = np.array([star.dec_deg for star in table.stars])
    turn = (table.measured.ra_deg - ra + 180.0) % 360.0 - 180.0
    east = turn * np.cos(np.radians(dec)) * 3600.0
    north = (table.measured.dec_deg - dec) * 3600.0
    return east - _row_median(east.T), north - _row_median(north.T)


def _draw_stars(
    area: "Axes",
    table: PhotometryTable,
    times: FloatArray,
    values: FloatArray,
    *,
    colours: dict[str, str],
    named: bool,
) -> None:
    """Draw the comps' range, every comp smoothed, odd ones by name; T2 and T1 frame by frame.

    `colours` are those of the odd ones, by role, and grow; `named` False leaves the legend to them.
    """
    run = max(3, len(times) // SMOOTH_POINTS) if len(times) > SMOOTH_FROM else 1
    moments = _smoothed(times[:, None], run)[:, 0]
    smooth = _smoothed(values, run)
    comps = np.array(table.ensemble, dtype=int)
    odd = comps[_odd(values[:, comps])] if len(times) >= FEW_FRAMES else comps[:0]
    if len(comps):
        low, high = _range(values[:, comps])
        words = "comps, range" if named else "_range"
        area.fill_between(times, low, high, color=BAND_COLOUR, linewidth=0, label=words, zorder=1)
        words = _smooth_words("comps", run) if named else "_comps"
        runs = np.vstack([smooth[:, comps], np.full(len(comps), np.nan)])  # one line, with gaps
        line_times = np.tile(np.append(moments, np.nan), len(comps))
        look: dict[str, Any] = {"color": LINE_COLOUR, "linewidth": 0.8, "zorder": 2}
        area.plot(line_times, runs.T.ravel(), label=words, **look)
    for index in odd:
        role = table.stars[index].role
        if role not in colours and len(colours) < len(ODD_COLOURS):
            colours[role] = ODD_COLOURS[len(colours)]
        if role in colours:
            look = {"color": colours[role], "linewidth": 1.4, "zorder": 2.5}
            area.plot(moments, smooth[:, index], label=role, **look)
    size = float(np.clip(70 / np.sqrt(max(len(times), 1)), 2.5, 8.0))
    for role, colour in (("T2", T2_COLOUR), ("T1", T1_COLOUR)):
        star = table.star_index(role)
        if star is None:
            continue
        words = role if named else "_named"
        look = {"linestyle": "none", "marker": ".", "markeredgewidth": 0.0, "markersize": size}
        area.plot(times, values[:, star], color=colour, label=words, zorder=3, **look)
        if run > 1:
            area.plot(moments, smooth[:, star], color="white", linewidth=3.0, zorder=3.1)
            words = _smooth_words(role, run) if named else "_smooth"
            area.plot(moments, smooth[:, star], color=colour, lw=1.6, label=words, zorder=3.2)


def _smooth_words(role: str, run: int) -> str:
    return f"{role}, medians\nof {run} frames" if run > 1 else role


def _smoothed(values: FloatArray, run: int) -> FloatArray:
    """Return the medians of `run` frames after each other, shape (n_frames / run, n_stars)."""
    whole = len(values) // run * run
    groups = values[:whole].reshape(-1, run, values.shape[1]).transpose(0, 2, 1)
    return _row_median(groups.reshape(-1, run)).reshape(-1, values.shape[1])


def _range(values: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the least and the greatest of each row, NaN where it is empty."""
    known = np.isfinite(values)
    low = np.where(known, values, np.inf).min(axis=1)
    high = np.where(known, values, -np.inf).max(axis=1)
    return np.where(known.any(axis=1), low, np.nan), np.where(known.any(axis=1), high, np.nan)


def _odd(values: FloatArray) -> "NDArray[np.intp]":
    """Return the stars, at most three, that lie off the others' run or scatter about it far more.

    `values` of shape (n_frames, n_stars).
    """
    if values.shape[1] < MIN_COMPS_TO_JUDGE:
        return np.zeros(0, dtype=np.intp)
    off = values - _row_median(values)[:, None]
    level = _row_median(off.T)
    scatter = _row_median(np.abs(off - level).T)
    offset = np.abs(level - _row_median(level[None])[0])
    usual_offset = 1.4826 * _row_median(offset[None])[0]
    usual_scatter = _row_median(scatter[None])[0]
    score = np.fmax(
        offset / max(ODD_OFFSET * usual_offset, usual_scatter, TINY),  # to be seen at all
        scatter / max(ODD_SCATTER * usual_scatter, TINY),
    )
    score = np.nan_to_num(score)
    worst = np.argsort(-score, kind="stable")[:MAX_ODD]
    return worst[score[worst] > 1.0]


def _set_height(area: "Axes", values: FloatArray, limits: tuple[float, float] | None) -> None:
    """Fit a panel's height to the inner points, and say how many lie outside."""
    if limits is None:
        area.text(0.5, 0.5, "not measured", transform=area.transAxes, ha="center", color="grey")
        return
    area.set_ylim(*limits)
    outside = int(((values < limits[0]) | (values > limits[1])).sum())
    if outside:
        area.text(
            0.995,
            0.05,
            f"{outside} of {np.isfinite(values).sum()} points outside",
            transform=area.transAxes,
            ha="right",
            fontsize=8,
            color=QUIET_COLOUR,
            bbox={"facecolor": "white", "alpha": 0.8, "edgecolor": "none", "pad": 1.0},
            zorder=6,
        )


def _inner_limits(values: FloatArray) -> tuple[float, float] | None:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return None
    low, high = np.percentile(finite, INNER_PART)
    span = max(float(high - low), 1e-3 * max(abs(float(low)), abs(float(high))), 1e-3)
    least, most = float(low) - 0.35 * span, float(high) + 0.35 * span
    margin = 0.06 * span
    return max(least, float(finite.min()) - margin), min(most, float(finite.max()) + margin)


def _together(one: tuple[float, float], other: tuple[float, float] | None) -> tuple[float, float]:
    return one if other is None else (min(one[0], other[0]), max(one[1], other[1]))


def _series_legend(area: Any) -> None:
    """Name what a panel shows, beside it."""
    if area.get_legend_handles_labels()[0]:
        area.legend(
            loc="upper left",
            bbox_to_anchor=(1.005, 1.03),
            borderaxespad=0.0,
            frameon=False,
            fontsize=8.5,
            handlelength=1.4,
            handletextpad=0.4,
            labelspacing=0.25,
            markerscale=2.0,
        )


# --------------------------------------------------------------------------------------------- both
