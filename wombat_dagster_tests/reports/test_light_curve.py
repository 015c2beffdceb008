"""The light curve's picture: it is drawn for whatever night comes, and bright is at the top."""

import io
import typing

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from wombat_dagster import domain
from wombat_dagster.reports.drawing import ALARM_COLOUR
from wombat_dagster.reports.light_curve import light_curve_png

MAX_BYTES = 200_000


def night(n_frames=60, seed=0, **changes):
    rng = np.random.default_rng(seed)
    arrays = {
        name: np.full(n_frames, np.nan)
        for name, hint in typing.get_type_hints(domain.StandardMagnitudes).items()
        if hint == domain.FloatArray
    }
    days = 2460963.52 + np.linspace(0, 0.3, n_frames)
    arrays |= {
        "jd_utc": days,
        "hjd_utc": days + 0.003,
        "t1_mag": 11.2 + 0.3 * np.sin(20 * days) + rng.normal(0, 0.01, n_frames),
        "t1_merr_mag": np.full(n_frames, 0.01),
        "t2_mag": 12.02 + rng.normal(0, 0.012, n_frames),
        "t2_random_mag": np.full(n_frames, 0.012),
    }
    fields = arrays | {
        "target": "TX Eri",
        "filter": "V",
        "band": "V",
        "comp_band": "V",
        "chart_id": "X41294TE",
        "labels": tuple(f"{i}.fits" for i in range(n_frames)),
        "raw_hashes": tuple(str(i) for i in range(n_frames)),
        "t1_upper_limit": np.zeros(n_frames, dtype=bool),
        "n_comps": np.full(n_frames, 5),
        "proposed_rejected": ("",) * n_frames,
        "zp_err_mag": 0.0124,
        "ensemble_reference_mag": 11.5,
        "check_name": "000-BMS-019",
        "check_catalogue_mag": 12.0,
        "check_catalogue_error_mag": 0.029,
        "check_offset_mag": 0.021,
        "check_scatter_mag": 0.0118,
        "transformation": domain.Transformation(),
        "transformed": False,
        "method": "ensemble",
        "comp_names": ("000-A", "000-B", "000-C", "000-D", "000-E"),
    }
    return domain.StandardMagnitudes(**fields | changes)


@pytest.fixture
def drawn(monkeypatch):
    """The figure as matplotlib had it when it was saved."""
    figures = []
    save = Figure.savefig

    def remember(figure, *args, **kwargs):
        figures.append(figure)
        return save(figure, *args, **kwargs)

    monkeypatch.setattr(Figure, "savefig", remember)
    return figures


def words(figure):
    """Every text in the figure."""
    return " | ".join(text.get_text() for text in figure.findobj(mpl.text.Text))


def assert_is_a_picture(png):
    assert len(png) < MAX_BYTES
    assert imread(io.BytesIO(png)).shape == (700, 1000, 4)


@pytest.mark.parametrize("n_frames", [1, 2, 3, 150, 2000])
def test_a_night_of_any_length_is_a_picture_below_200_kb(n_frames):
    assert_is_a_picture(light_curve_png(night(n_frames)))


def test_bright_is_at_the_top_in_both_panels(drawn):
    light_curve_png(night())
    target, check = drawn[0].axes
    assert target.yaxis_inverted()
    assert check.yaxis_inverted()


def test_the_catalogue_line_is_in_the_check_star_s_panel_even_far_off(drawn):
    light_curve_png(night(check_catalogue_mag=12.6))
    faint, bright = drawn[0].axes[1].get_ylim()
    assert bright < 12.0 < 12.6 < faint
    assert "catalogue 12.600 ± 0.029" in words(drawn[0])


def test_error_bars_are_as_long_as_the_errors(drawn):
    light_curve_png(night(3, t1_merr_mag=np.array([0.01, 0.02, 0.03])))
    (bars,) = drawn[0].axes[0].containers
    lengths = [np.ptp(segment[:, 1]) for segment in bars[2][0].get_segments()]
    assert lengths == pytest.approx([0.02, 0.04, 0.06])


def test_proposed_rejected_points_are_hollow_and_do_not_squeeze_the_others(drawn):
    standard = night()
    standard.t1_mag[5] = 15.0
    rejected = tuple("cloud" if i == 5 else "" for i in range(60))
    light_curve_png(
        night(t1_mag=standard.t1_mag, proposed_rejected=rejected),
    )
    target = drawn[0].axes[0]
    good, bad = target.containers
    assert (len(good[0].get_xdata()), len(bad[0].get_xdata())) == (59, 1)
    assert bad[0].get_markerfacecolor() == "white"
    assert target.get_ylim()[0] < 12
    assert "1 rejected point outside the picture" in words(drawn[0])


def test_upper_limits_are_arrows_down_without_bars(drawn):
    """A rejected one is paler; the sign's path hangs from its limit, 16 points long."""
    limit = np.arange(60) < 3
    rejected = ("", "cloud", *[""] * 58)
    light_curve_png(
        night(
            t1_upper_limit=limit,
            t1_merr_mag=np.where(limit, np.nan, 0.01),
            proposed_rejected=rejected,
        )
    )
    lines = drawn[0].axes[0].get_lines()
    arrows = [line for line in lines if isinstance(line.get_marker(), mpl.path.Path)]
    assert [(len(line.get_xdata()), line.get_alpha()) for line in arrows] == [(2, 1.0), (1, 0.4)]
    for line in arrows:
        ends = line.get_marker().vertices
        assert (ends[:, 1].max(), ends[:, 1].min()) == (0.0, -1.0)
        assert line.get_markersize() == 32
    assert "fainter than (3)" in words(drawn[0])


def test_a_thousand_upper_limits_are_a_handful_of_artists(drawn):
    """One sign each made the picture ten times as slow."""
    light_curve_png(night(1000, t1_upper_limit=np.ones(1000, dtype=bool)))
    assert len(drawn[0].axes[0].get_children()) < 40


def test_missing_frames_are_left_out(drawn):
    standard = night()
    for values in (standard.t1_mag, standard.t2_mag, standard.t1_merr_mag, standard.hjd_utc):
        values[10:20] = np.nan
    assert_is_a_picture(light_curve_png(standard))
    assert len(drawn[0].axes[0].containers[0][0].get_xdata()) == 50


@pytest.mark.parametrize(
    ("merr", "said"), [("random", "not in the bars"), ("total", "in the bars of T1")]
)
def test_the_caption_says_whether_the_bars_hold_the_zero_point_error(drawn, merr, said):
    light_curve_png(night(merr=merr))
    assert f"zero-point error 0.012 mag, {said} ·" in words(drawn[0])


def test_without_a_check_star_there_is_one_panel_that_says_so(drawn):
    standard = night(
        t2_mag=np.full(60, np.nan),
        check_name=None,
        check_catalogue_mag=None,
        check_catalogue_error_mag=None,
        check_offset_mag=None,
        check_scatter_mag=None,
    )
    assert_is_a_picture(light_curve_png(standard))
    assert len(drawn[0].axes) == 1
    assert "no check star" in words(drawn[0])


def test_a_check_star_without_a_catalogue_error_has_a_line_and_no_band(drawn):
    light_curve_png(night(check_catalogue_error_mag=None))
    assert "catalogue 12.000 |" in words(drawn[0])


def test_without_any_value_there_is_still_a_picture(drawn):
    nothing = np.full(3, np.nan)
    standard = night(3, t1_mag=nothing, t2_mag=nothing, hjd_utc=nothing, jd_utc=nothing)
    assert_is_a_picture(light_curve_png(standard))
    assert "no magnitude" in words(drawn[0])


def test_a_night_of_rejected_points_only_is_shown(drawn):
    standard = night(proposed_rejected=("altitude",) * 60)
    assert_is_a_picture(light_curve_png(standard))
    faint, bright = drawn[0].axes[0].get_ylim()
    assert bright < np.min(standard.t1_mag)
    assert faint > np.max(standard.t1_mag)


def test_the_caption_tells_errors_comps_method_and_what_is_missing(drawn):
    light_curve_png(
        night(
            n_comps=np.append(np.full(59, 5), 4),
            held_reason="check star 0.3 mag off",
            notes=("not calibrated for: flat",),
        )
    )
    text = words(drawn[0])
    for part in ("0.012 mag", "5 comps (4 on some frames)", "X41294TE", "ensemble", "TRANS=NO",
                 "HELD: check star 0.3 mag off", "not calibrated for: flat",
                 "HJD(UTC) − 2460963"):  # fmt: skip
        assert part in text


def test_without_hjd_the_axis_is_jd(drawn):
    light_curve_png(night(hjd_utc=np.full(60, np.nan)))
    assert "JD(UTC) − 2460963" in words(drawn[0])
    assert "HJD" not in words(drawn[0])


@pytest.mark.parametrize(
    "name",
    ["$\\frac{", "a_b^c $x$",
     "<b>&amp;</b>", "Ünïcode 変光星 𝛼", "", "two\nlines\x00\x07", "x" * 500,
     "\udc80", "_hidden", "100% {0} %s"],
)  # fmt: skip
def test_odd_names_are_drawn_as_they_are(name, drawn):
    standard = night(
        3,
        target=name,
        check_name=name,
        chart_id=name[:20],
        held_reason=name or None,
        comp_names=(name,),
        notes=(name,),
    )
    assert_is_a_picture(light_curve_png(standard, title=name))
    for text in drawn[0].findobj(mpl.text.Text):
        if "$" in text.get_text():
            assert not text.get_parse_math()


def test_the_same_night_gives_the_same_picture_and_leaves_no_trace():
    before = dict(mpl.rcParams)
    assert light_curve_png(night()) == light_curve_png(night())
    assert dict(mpl.rcParams) == before


def test_the_notes_end_the_caption_without_reaching_into_the_picture(drawn):
    notes = tuple(f"comp 000-ABC-{i:03d} is 0.23 mag off its catalogue" for i in range(30))
    light_curve_png(night(held_reason="check star " * 60, notes=notes))
    figure = drawn[0]
    assert notes[0] in words(figure)
    assert "more in the magnitudes' file" in words(figure)
    axis = figure.axes[-1].get_tightbbox()
    boxes = [text.get_window_extent() for text in figure.texts if text.get_position()[1] < 0.5]
    assert max(box.y1 for box in boxes) < axis.y0
    assert max(box.x1 for box in boxes) < figure.bbox.x1
    assert min(box.y0 for box in boxes) > 0


def test_the_check_star_s_axis_tells_both_bands_where_they_differ(drawn):
    light_curve_png(night(band="CV"))
    light_curve_png(night())
    labels = [figure.axes[-1].get_ylabel() for figure in drawn]
    assert labels == ["T2  000-BMS-019  [CV against V]", "T2  000-BMS-019  [V]"]


def test_comps_that_are_not_the_aavso_s_are_said_in_orange_first(drawn):
    light_curve_png(night(comp_source="APASS DR9 (VizieR)", held_reason="T2 is off"))
    (said,) = [t for t in drawn[0].texts if "not the AAVSO's chart" in t.get_text()]
    assert said.get_color() == ALARM_COLOUR
    light_curve_png(night(comp_source="VSP"))
    light_curve_png(night(comp_source=None))
    assert not any("AAVSO" in words(one) for one in drawn[1:])
