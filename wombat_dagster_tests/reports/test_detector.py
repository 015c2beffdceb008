"""The picture of the detector over the nights: drawn for whatever was measured."""

import datetime as dt
import io
from dataclasses import replace

import matplotlib as mpl
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from wombat_dagster.domain import DetectorMeasurement, DetectorQuantity, FrameGroup
from wombat_dagster.reports.detector import STEP_COLOUR, detector_png

MAX_BYTES = 200_000
GROUP = FrameGroup(width_px=1024, height_px=1024, binning="1x1", camera="Cam", readout="GAIN=1")
READ_NOISE, GAIN, DARK = DetectorQuantity


def nights(n=30, *, quantities=tuple(DetectorQuantity), group=GROUP, step_on=None):
    return [
        DetectorMeasurement(
            date=dt.date(2025, 8, 1) + dt.timedelta(days=3 * number), group=group,
            quantity=quantity, value=1.0 + 0.01 * (number % 3), error=0.01, n_frames=10,
            step="gain 2" if number == step_on and quantity is GAIN else None,
        )
        for number in range(n)
        for quantity in quantities
    ]  # fmt: skip


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
    image = imread(io.BytesIO(png))
    assert image.shape[:2] == (700, 1000)
    assert image.std() > 0.01


def test_every_quantity_that_was_measured_has_a_panel_with_its_unit(drawn):
    assert_is_a_picture(detector_png(nights()))
    assert len(drawn[0].axes) == 3
    for label in ("read noise [ADU]", "gain [e⁻/ADU]", "dark current [ADU/s]", "30 nights"):
        assert label in words(drawn[0])
    detector_png(nights(quantities=(READ_NOISE,)))
    assert len(drawn[1].axes) == 1


@pytest.mark.parametrize("n", [0, 1, 2, 400])
def test_any_number_of_nights_makes_a_picture(n):
    assert_is_a_picture(detector_png(nights(n)))


def test_a_step_has_a_ring(drawn):
    for step_on in (None, 7):
        detector_png(nights(step_on=step_on))
    rings = [
        [
            line
            for area in figure.axes
            for line in area.lines
            if line.get_markeredgecolor() == STEP_COLOUR
        ]
        for figure in drawn
    ]
    assert [len(lines) for lines in rings] == [0, 1]
    assert list(rings[1][0].get_ydata()) == [pytest.approx(1.01)]


def test_cameras_and_readouts_are_told_apart_and_names_are_never_mathtext(drawn):
    odd = replace(GROUP, camera="ASI $_{1600}$ \n 相机", readout="GAIN=139")
    assert_is_a_picture(detector_png([*nights(), *nights(group=odd)]))
    assert "ASI $_{1600}$ ?? 1024x1024 1x1 GAIN=139" in words(drawn[0])
    colours = {line.get_color() for line in drawn[0].axes[0].lines if len(line.get_xdata()) > 2}
    assert len(colours) == 2


def test_very_many_groups_still_leave_room_for_the_picture():
    many = [m for i in range(20) for m in nights(3, group=replace(GROUP, readout=f"GAIN={i}"))]
    assert_is_a_picture(detector_png(many))


def test_a_value_of_zero_and_a_negative_one_are_drawn():
    dark = nights(3, quantities=(DARK,))
    assert_is_a_picture(detector_png([replace(m, value=0.0, error=0.0) for m in dark]))
    assert_is_a_picture(detector_png([replace(m, value=-0.01) for m in dark]))
