"""The pictures of precision: drawn for whatever night comes, small, and nobody left out."""

import dataclasses
import io

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from wombat_dagster.domain import Flag
from wombat_dagster.reports import precision
from wombat_dagster.reports.precision import rms_plot_png, series_plot_png
from wombat_dagster.science.precision import measure_precision
from wombat_dagster_tests.series import series_table

MAX_BYTES = 200_000
THIRTY = (11.3, 11.9, *np.linspace(10.0, 14.0, 28))


@pytest.fixture
def drawn(monkeypatch):
    """The figures as they were turned into bytes."""
    figures = []
    turn = precision.small_png_of

    def remember(figure):
        figures.append(figure)
        return turn(figure)

    monkeypatch.setattr(precision, "small_png_of", remember)
    return figures


def words(figure: Figure) -> str:
    return " | ".join(text.get_text() for text in figure.findobj(mpl.text.Text))


def rms_plot(**options):
    return rms_plot_png(measure_precision(series_table(**options)))


def without_stars(night, role):
    """The same night with one star never measured."""
    index = night.star_index(role)
    night.measured.source_sky_adu[:, index] = np.nan
    night.measured.flags[:, index] |= Flag.UNMEASURED
    return night


NIGHTS = {
    "one frame": {"n_frames": 1},
    "four frames": {"n_frames": 4},
    "many field stars": {"n_frames": 300, "field_mags": tuple(np.linspace(11, 15, 200))},
    "a thousand frames of thirty stars": {"n_frames": 1000, "mags": THIRTY},
    "T1 alone": {"n_frames": 60, "mags": (11.0,)},
    "one comp": {"n_frames": 60, "mags": (11.0, 11.4, 12.0)},
    "no gain": {"n_frames": 60, "gain_e_adu": None},
    "an odd name": {"n_frames": 60, "target": "V* $x_1$ \x00 Ω"},
}


@pytest.mark.parametrize("options", NIGHTS.values(), ids=NIGHTS)
def test_any_night_is_two_pictures_below_200_kb(options):
    night = series_table(**options)
    for png, height in (
        (rms_plot_png(measure_precision(night)), 700),
        (series_plot_png(night), 1000),
    ):
        assert len(png) < MAX_BYTES
        assert imread(io.BytesIO(png)).shape[:2] == (height, 1000)


# ------------------------------------------------------------------------ scatter against magnitude


def test_every_star_stands_where_its_scatter_is(drawn):
    night = series_table(200, field_mags=(12.5, 13.5))
    report = measure_precision(night)
    rms_plot_png(report)
    shown = {line.get_label(): line for line in drawn[0].axes[0].get_lines()}
    for label, indices in (
        ("comps", range(2, 10)),
        ("T2, check star", [1]),
        ("field stars", [10, 11]),
        ("T1, variable: in all", [0]),
    ):
        line = shown[label]
        assert line.get_xdata() == pytest.approx(report.magnitude_mag[list(indices)])
        assert line.get_ydata() == pytest.approx(1000 * report.rms_mag[list(indices)])
    near = shown["T1, frame to next"].get_ydata()
    assert near == pytest.approx(1000 * report.successive_rms_mag[:1])


def test_all_points_lie_in_the_picture_and_all_roles_are_named(drawn):
    rms_plot(n_frames=300, mags=THIRTY)
    area = drawn[0].axes[0]
    low, high = area.get_ylim()
    for line in area.get_lines():
        if line.get_marker() not in ("None", None):
            assert np.all((line.get_ydata() > low) & (line.get_ydata() < high))
    named = {text.get_text() for text in area.texts}
    assert named == {"T1", "T2", *(f"C{i}" for i in range(3, 31))}


def test_names_cover_no_other_name(drawn):
    rms_plot(n_frames=300, mags=THIRTY)
    figure = drawn[0]
    renderer = figure.canvas.get_renderer()
    boxes = [mpl.text.Text.get_window_extent(text, renderer) for text in figure.axes[0].texts]
    pairs = [(a, b) for i, a in enumerate(boxes) for b in boxes[:i]]
    overlaps = [mpl.transforms.Bbox.intersection(a, b) for a, b in pairs]
    assert all(both is None or both.width * both.height < 12 for both in overlaps)  # of 200 px


def test_the_total_and_its_parts_are_drawn_and_in_the_legend(drawn):
    rms_plot(n_frames=100)
    for name in (
        "photons",
        "sky",
        "scintillation",
        "read noise",
        "comparison",
        "expected, total",
        "total/√15",
    ):
        assert name in words(drawn[0])


def test_the_caption_tells_the_figures_and_names_who_is_loud(drawn):
    night = series_table(100)
    night.measured.source_sky_adu[:, 4] *= 1 + 0.02 * np.random.default_rng(1).normal(size=100)
    report = measure_precision(dataclasses.replace(night, flat_noise=None))
    rms_plot_png(report)
    lines = [text.get_text() for text in drawn[0].texts[1:]]  # from below; the title is first
    caption = " ".join(reversed(lines))
    assert caption.startswith("100 frames")
    assert f"T2 {report.pull[1]:.2f}" in caption
    assert "scatter beyond 1.5 times the expected error: C5 ·" in caption
    assert "left out: noise of the master flat" in caption


def test_a_night_too_short_for_a_scatter_says_so(drawn):
    rms_plot(n_frames=4)
    assert "no scatter: 4 clear frames, at least 5 wanted" in words(drawn[0])


# ------------------------------------------------------------------------------ series of the stars


def test_the_drift_starts_again_after_the_mount_is_turned(drawn):
    """Turned frames lie hundreds of pixels away; shown is their way since the first of them."""
    series_plot_png(series_table(100, flip_at=40))
    area = drawn[0].axes[0]
    assert "turned by half a turn" in words(drawn[0])
    runs = [line.get_ydata() for line in area.get_lines() if len(line.get_xdata()) > 2]
    assert sorted(len(run) for run in runs) == [40, 40, 60, 60]
    assert all(run[0] == 0 for run in runs)
    assert max(np.abs(run).max() for run in runs) < 10


def test_t1_and_t2_are_shown_frame_by_frame(drawn):
    night = series_table(100)
    series_plot_png(night)
    for panel, column in ((3, "width_px"), (4, "sky_adu_px"), (5, "roundness")):
        points = [
            line.get_ydata()
            for line in drawn[0].axes[panel].get_lines()
            if line.get_marker() == "."
        ]
        assert len(points) == 2
        for index in (0, 1):
            wanted = getattr(night.measured, column)[:, index]
            assert any(np.array_equal(wanted, run) for run in points)


def test_a_comp_unlike_the_others_is_named(drawn):
    night = series_table(100)
    night.measured.width_px[:, 6] *= 1.5
    series_plot_png(night)
    by_panel = [[line.get_label() for line in area.get_lines()] for area in drawn[0].axes]
    assert [("C7" in labels) for labels in by_panel] == [False, False, False, True, False, False]


def test_centroids_that_were_not_found_are_marked(drawn):
    night = series_table(100)
    night.measured.flags[[3, 9], 4] |= Flag.OFF_CENTRE
    series_plot_png(night)
    for area in drawn[0].axes[1:3]:
        (marks,) = [line for line in area.get_lines() if line.get_label() == "off centre"]
        assert len(marks.get_xdata()) == 2


def test_a_wild_point_does_not_squeeze_the_panel_and_is_counted(drawn):
    night = series_table(100)
    night.measured.width_px[5, 3] = 40.0
    series_plot_png(night)
    assert drawn[0].axes[3].get_ylim()[1] < 6
    assert "1 of 1000 points outside" in words(drawn[0])


def test_a_star_that_was_never_measured_is_no_fault():
    assert len(series_plot_png(without_stars(series_table(50), "T1"))) > 1000
    empty = series_table(20)
    for role in [star.role for star in empty.stars]:
        without_stars(empty, role)
    for values in (empty.measured.x_px, empty.measured.y_px, empty.measured.ra_deg):
        values[:] = np.nan
    assert len(series_plot_png(empty)) > 1000
    assert len(rms_plot_png(measure_precision(empty))) > 1000
