"""Where the chart puts its marks, arrows and words; what it looks like was looked at."""

import io
import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from wombat_dagster.domain import Aperture, WcsSolution
from wombat_dagster.reports.drawing import ALARM_COLOUR
from wombat_dagster.reports.finding_chart import (
    ALARM_PX,
    AREA_PX,
    BORDER_PX,
    COLOURS,
    HEAD_PX,
    MAX_BYTES,
    Mark,
    MarkKind,
    _Box,
    directions,
    finding_chart_png,
    legend_words,
    overlap,
    place_words,
)
from wombat_dagster.tangent import sky_to_pixel

APERTURE = Aperture(radius_px=5.0, sky_inner_px=10.0, sky_outer_px=20.0)


def solution(*, cd=(-4e-4, 0.0, 0.0, 4e-4), ra_deg=50.0, dec_deg=10.0):
    cd11, cd12, cd21, cd22 = cd
    return WcsSolution(
        ra_deg=ra_deg, dec_deg=dec_deg, crpix_x=400.0, crpix_y=300.0,
        cd11=cd11, cd12=cd12, cd21=cd21, cd22=cd22,
    )  # fmt: skip


def mark(kind, x_px, y_px, words=""):
    return Mark(kind=kind, x_px=x_px, y_px=y_px, words=words)


def drawn(image, marks, **changes):
    arguments = {"solution": solution(), "aperture": APERTURE, "title": "SV Wom V"} | changes
    png = finding_chart_png(image, marks, **arguments)
    with Image.open(io.BytesIO(png)) as picture:
        return png, np.asarray(picture.convert("RGB"), dtype=float)


def where(picture, colour):
    """Return the pixels (x, y) of the picture, y downwards, that are nearly of `colour`."""
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    head = picture[: int(HEAD_PX + AREA_PX[1] * 600 / 800)]  # without the legend
    y, x = np.nonzero(np.abs(head - wanted).max(axis=2) < 40)
    return x, y


def test_a_star_is_marked_where_it_is_with_row_0_below():
    """At (200, 450) of 800 × 600: a quarter from the left, a quarter from the top."""
    blank = np.full((600, 800), 1000.0)
    _, picture = drawn(blank, [mark(MarkKind.TARGET, 199.5, 449.5)])
    x, y = where(picture, COLOURS[MarkKind.TARGET])
    assert np.ptp(x) == pytest.approx(2 * 5 * 920 / 800, abs=2)  # the aperture, to scale
    assert (x.max() + x.min()) / 2 == pytest.approx(BORDER_PX + 920 / 4, abs=1.5)
    assert (y.max() + y.min()) / 2 == pytest.approx(HEAD_PX + 690 / 4, abs=1.5)


def test_marks_beyond_the_frame_are_left_out():
    blank = np.full((600, 800), 1000.0)
    _, picture = drawn(
        blank, [mark(MarkKind.TARGET, 900.0, 300.0, "T1"), mark(MarkKind.COMP, 400.0, -9.0)]
    )
    assert not len(where(picture, COLOURS[MarkKind.TARGET])[0])
    assert not len(where(picture, COLOURS[MarkKind.COMP])[0])


def test_the_star_in_the_pixels_stands_inside_its_mark():
    y, x = np.mgrid[:600, :800]
    image = 1000.0 + 20000.0 * np.exp(-((x - 640) ** 2 + (y - 100) ** 2) / (2 * 4.0**2))
    _, picture = drawn(image, [])
    dark_y, dark_x = np.nonzero(picture[45:725, 30:930].max(axis=2) < 60)
    spot = dark_x > 200  # the box with the arrows is on the left
    assert np.median(dark_x[spot]) + 30 == pytest.approx(BORDER_PX + 640.5 * 1.15, abs=1.5)
    assert np.median(dark_y[spot]) + 45 == pytest.approx(HEAD_PX + 690 - 100.5 * 1.15, abs=1.5)


@pytest.mark.parametrize("shape", [(4096, 4096), (300, 1200), (1200, 300)])
def test_a_noisy_field_with_hundreds_of_marks_is_below_200_kb(shape):
    rng = np.random.default_rng(3)
    image = rng.normal(500.0, 12.0, shape)
    for x, y in zip(rng.uniform(0, shape[1], 900), rng.uniform(0, shape[0], 900), strict=True):
        image[int(y), int(x)] += rng.pareto(1.0) * 200
    image[: shape[0] // 10] = np.nan
    marks = [
        mark(kind, rng.uniform(0, shape[1]), rng.uniform(0, shape[0]), f"C{i} 1{i}")
        for i, kind in enumerate(itertools.islice(itertools.cycle(MarkKind), 300))
    ]
    png, picture = drawn(image, marks)
    assert len(png) < MAX_BYTES
    assert picture.shape[1] == 960


def test_a_frame_of_nothing_is_still_drawn():
    png, _ = drawn(np.full((50, 40), np.nan), [mark(MarkKind.TARGET, 20, 20, "T1 $x^2$ \N{BELL}")])
    assert png.startswith(b"\x89PNG")


@given(
    angle_deg=st.floats(0, 360),
    mirrored=st.booleans(),
    ra_deg=st.floats(0, 359),
    dec_deg=st.floats(-80, 80),
)
def test_the_arrows_point_where_the_sky_does(angle_deg, mirrored, ra_deg, dec_deg):
    c, s = np.cos(np.radians(angle_deg)), np.sin(np.radians(angle_deg))
    parity = -1 if mirrored else 1
    wcs = solution(
        cd=(-4e-4 * c * parity, 4e-4 * s, 4e-4 * s * parity, 4e-4 * c),
        ra_deg=ra_deg,
        dec_deg=dec_deg,
    )
    step_deg = 0.001
    ra = np.array([ra_deg, ra_deg + step_deg / np.cos(np.radians(dec_deg))])
    dec = np.array([dec_deg + step_deg, dec_deg])
    x_px, y_px = sky_to_pixel(wcs, ra, dec)
    for (dx, dy), x, y in zip(directions(wcs), x_px - 399.0, y_px - 299.0, strict=True):
        assert np.hypot(dx, dy) == pytest.approx(1.0)
        assert (dx, dy) == pytest.approx((x / 2.5, y / 2.5), abs=1e-3)


def placed(marks, size=(920.0, 690.0)):
    picture = _Box(0.0, 0.0, *size)
    return place_words(marks, aperture=APERTURE, zoom=1.15, picture=picture, taken=[])


@pytest.mark.parametrize(("kind", "reach_px"), [(MarkKind.REJECTED, 5.8), (MarkKind.VARIABLE, 9.7)])
def test_words_keep_2_px_off_their_cross_or_diamond(kind, reach_px):
    """A cross of 7 points reaches 4.9 px at 100 dots an inch, its line 0.9 more."""
    ((_, _, box),) = placed([mark(kind, 400.0, 300.0, "faint")])
    x, y = 400.0 * 920 / 800, 300.0 * 920 / 800
    off = np.hypot(max(box.left - x, x - box.right, 0), max(box.low - y, y - box.high, 0))
    assert off >= reach_px + 2.0 - 0.1


def test_the_legend_counts_what_is_not_used_inside_and_outside():
    marks = [mark(MarkKind.COMP, 1.0, 1.0)] * 3 + [mark(MarkKind.REJECTED, 1.0, 1.0)] * 4
    assert legend_words(marks, 2) == {
        MarkKind.COMP: "comparison star (3)",
        MarkKind.REJECTED: "6 not used, 2 of them outside",
    }
    assert legend_words(marks, 0)[MarkKind.REJECTED] == "of the chart, not used (4)"


def test_words_overlap_no_other_words_and_stay_in_the_picture():
    rng = np.random.default_rng(4)
    kinds = [MarkKind.TARGET, MarkKind.CHECK, *[MarkKind.COMP] * 12, *[MarkKind.REJECTED] * 25]
    marks = [
        mark(kind, *rng.uniform((10, 10), (790, 590)), f"{kind.name[0]}{i} saturated"[:12])
        for i, kind in enumerate(kinds)
    ]
    words = placed(marks)
    assert len(words) >= 35
    boxes = np.array([word.box for word in words])
    assert np.count_nonzero(overlap(boxes, boxes)) == len(words)  # each with itself alone
    for word in words:
        assert word.box.left >= 0
        assert word.box.right <= 920


def test_in_a_crowd_the_measured_stars_have_their_names_and_the_others_may_not():
    crowd = [
        mark(MarkKind.REJECTED, 400 + 4 * i, 300 + 4 * j, "saturated")
        for i in range(12)
        for j in range(12)
    ]
    words = placed([mark(MarkKind.TARGET, 422, 322, "T1 SV Wom"), *crowd])
    assert words[0].text == "T1 SV Wom"
    assert len(words) < 100


def test_an_alarm_is_written_in_orange_below_the_frame():
    def orange(**changes):
        _, picture = drawn(np.full((600, 800), 100.0), [], **changes)
        return len(where(picture[::-1], ALARM_COLOUR)[0]), picture.shape[0]

    n_pixels, height = orange(alarm="comps from APASS DR9 (VizieR)")
    assert n_pixels > 100
    assert orange() == (0, height - ALARM_PX)
