"""The picture over nights: drawn for whatever is there, bright at the top, nothing hidden."""

import dataclasses
import io

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.image import imread

from wombat_dagster.reports.curve_plot import Fold, curve_png
from wombat_dagster_tests.curves import TX_ERI, curve, part

MAX_BYTES = 200_000
FOLD = Fold(period_d=0.25, epoch_hjd=2460900.125, words="P = 0.25 d (VSX)")


@pytest.fixture
def drawn(monkeypatch):
    """The figures as matplotlib had them when they were saved."""
    figures = []
    save = Figure.savefig

    def remember(figure, *args, **kwargs):
        figures.append(figure)
        return save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", remember)
    return figures


def words(figure):
    return " | ".join(text.get_text() for text in figure.findobj(mpl.text.Text))


def assert_is_a_picture(png):
    assert len(png) < MAX_BYTES
    assert imread(io.BytesIO(png)).shape == (700, 1000, 4)


def drawn_points(area):
    """Return (x, magnitude) of every point with an error bar."""
    return [tuple(xy) for c in area.containers for xy in zip(*c[0].get_data(), strict=True)]


@pytest.mark.parametrize("n_nights", [1, 2, 6, 7, 40])
@pytest.mark.parametrize("fold", [None, FOLD])
def test_any_number_of_nights_is_a_picture_below_200_kb(n_nights, fold):
    nights = [part(3 * i, mag=12 + 0.1 * np.sin(np.arange(40)), n=40) for i in range(n_nights)]
    assert_is_a_picture(curve_png(curve(*nights), fold=fold))


@pytest.mark.parametrize(
    "changes",
    [
        {"n": 1},
        {"mag": np.nan},
        {"t1_merr_mag": np.full(20, np.nan)},
        {"t1_upper_limit": np.ones(20, bool)},
        {"proposed_rejected": ("cloud",) * 20},
        {"hjd_utc": np.full(20, np.nan)},
        {"band": "nonesuch"},
    ],
    ids=["one point", "no magnitude", "no errors", "limits", "all rejected", "no HJD", "odd band"],
)
def test_whatever_is_there_is_drawn(changes):
    for fold in (None, FOLD):
        assert_is_a_picture(curve_png(curve(part(**changes)), fold=fold))


def test_a_curve_without_a_time_or_a_point_is_drawn():
    nowhen = part(hjd_utc=np.full(20, np.nan), jd_utc=np.full(20, np.nan))
    assert_is_a_picture(curve_png(curve(nowhen)))
    assert_is_a_picture(curve_png(curve(part()).where(np.zeros(20, dtype=bool))))


def test_bright_is_at_the_top_in_every_panel(drawn):
    curve_png(curve(part(0), part(1), part(0, "B", mag=14.0)))
    areas = drawn[0].axes
    assert len(areas) == 4  # two runs by two bands that one panel would flatten
    assert all(area.yaxis_inverted() for area in areas)


@pytest.mark.parametrize(("span_mag", "n_steps"), [(0.06, 1), (0.15, 1), (3.0, 2)])
def test_panels_have_one_tick_step_unless_too_unlike(drawn, span_mag, n_steps):
    """A band of 0.06 mag above one of up to 0.15 mag; one of 3 mag would have 60 ticks."""
    quiet = np.linspace(12.0, 12.06, 20)
    far = np.linspace(30.0, 30.0 + span_mag, 20)
    curve_png(curve(part(0, mag=quiet), part(0, "B", mag=far)))
    steps = [np.diff(area.get_yticks())[0] for area in drawn[0].axes]
    assert len(steps) == 2
    assert len(np.unique(np.round(np.abs(steps), 6))) == n_steps
    for area in drawn[0].axes:
        low, high = sorted(area.get_ylim())
        assert 2 <= sum(low <= tick <= high for tick in area.get_yticks()) <= 13


def test_bands_that_fit_share_a_panel_and_differ_in_colour_and_marker(drawn):
    wave = np.linspace(12.0, 12.6, 20)
    curve_png(curve(part(0, mag=wave), part(0, "B", mag=wave + 0.5)))
    (area,) = drawn[0].axes
    lines = [container[0] for container in area.containers]
    assert len({line.get_color() for line in lines}) == 2
    assert len({line.get_marker() for line in lines}) == 2


def test_few_runs_stand_side_by_side_with_the_gap_cut_out(drawn):
    curve_png(curve(part(0), part(30)))
    first, second = drawn[0].axes
    assert first.get_xlim()[1] < 1
    assert second.get_xlim()[0] > 30
    assert "2025-10-14" in words(drawn[0])
    assert "2025-11-13" in words(drawn[0])
    assert "HJD(UTC) − 2460963" in words(drawn[0])


def test_many_nights_or_single_points_share_one_axis(drawn):
    curve_png(curve(*(part(2 * i) for i in range(9))))
    curve_png(curve(*(part(2 * i, n=1) for i in range(4))))
    assert [len(figure.axes) for figure in drawn] == [1, 1]


def test_every_point_lies_where_it_belongs(drawn):
    points = curve(part(0, n=3, mag=np.array([12.0, 12.1, 12.2])))
    curve_png(points)
    (area,) = drawn[0].axes
    expected = np.column_stack([points.hjd_utc - 2460963, points.mag])
    assert np.array(drawn_points(area)) == pytest.approx(expected)


def test_a_folded_point_is_drawn_at_its_phase_and_one_cycle_on(drawn):
    """HJD 2460963.55 with P = 0.25 d from 2460900.125: 253.7 cycles, phase 0.7 and -0.3."""
    curve_png(curve(part(0, n=1)), fold=FOLD)
    (area,) = drawn[0].axes
    assert [x for x, _ in drawn_points(area)] == pytest.approx([-0.3, 0.7], abs=1e-6)
    assert "folded with P = 0.25 d (VSX)" in words(drawn[0])


def test_a_transit_is_drawn_once_and_large(drawn):
    """0.2 d of a period of 2 d around the epoch: phases -0.05 to 0.05 of the cycle."""
    fold = Fold(period_d=2.0, epoch_hjd=2460963.65, words="")
    curve_png(curve(part(0)), fold=fold)
    (area,) = drawn[0].axes
    assert len(drawn_points(area)) == 20
    first, last = area.get_xlim()
    assert (first, last) == pytest.approx((-0.055, 0.055), abs=1e-6)


@settings(deadline=None)
@given(st.floats(-1e6, 1e6), st.floats(0.001, 1000))
def test_a_phase_lies_from_0_to_below_1_and_repeats(days, period_d):
    fold = Fold(period_d=period_d, epoch_hjd=0.0, words="")
    (phase,) = fold.phase(np.array([days]))
    assert 0 <= phase < 1
    (later,) = fold.phase(np.array([days + period_d]))
    difference = abs(later - phase)
    assert min(difference, 1 - difference) < 1e-6 * max(1, abs(days) / period_d)


def test_rejected_points_are_hollow_do_not_set_the_scale_and_are_counted(drawn):
    mag = np.full(20, 12.0)
    mag[4] = 15.0
    rejected = tuple("cloud" if i == 4 else "" for i in range(20))
    curve_png(curve(part(mag=mag, proposed_rejected=rejected)))
    (area,) = drawn[0].axes
    faint, _ = area.get_ylim()
    assert faint < 13
    hollow = [c[0] for c in area.containers if c[0].get_markerfacecolor() == "white"]
    assert len(hollow) == 1
    assert "1 point outside the picture" in words(drawn[0])
    assert "1 proposed to be rejected" in words(drawn[0])


def test_upper_limits_are_arrows_not_points(drawn):
    limits = np.arange(20) >= 18
    curve_png(curve(part(t1_upper_limit=limits)))
    (area,) = drawn[0].axes
    assert len(drawn_points(area)) == 18
    arrows = [a for a in area.texts if getattr(a, "arrow_patch", None) is not None]
    assert len(arrows) == 2
    assert "2 upper limits" in words(drawn[0])


def test_the_title_says_star_type_and_period_and_nothing_is_read_as_mathtext(drawn):
    star = dataclasses.replace(TX_ERI, name="V$_1$ \\frac Eri\x07\n$", variability_type="EW$")
    png = curve_png(curve(part(chart_id="X$^2$"), star=star))
    assert_is_a_picture(png)
    assert "V$_1$ \\frac Eri $, EW$, P = 0.25 d" in words(drawn[0])


def test_what_differs_between_nights_is_said(drawn):
    curve_png(
        curve(
            part(0), part(1, camera="B", transformed=True, zp_err_mag=0.05),
            part(2, held_reason="T2 off", chart_id="X9"),
        )
    )  # fmt: skip
    caption = words(drawn[0])
    for said in ("TRANS=mixed", "2 cameras", "0.013 to 0.050 mag", "charts X41294TE X9",
                 "1 observation held", "3 nights, 2025-10-14 to 2025-10-16"):  # fmt: skip
        assert said in caption
