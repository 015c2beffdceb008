"""The page, the table and the picture of a night's frames."""

import csv
import io
import re

import numpy as np
import pytest
from PIL import Image

from wombat_dagster.domain import (
    FaultKind,
    Finding,
    FrameFault,
    FrameGrade,
    FrameTriage,
    Grade,
    Severity,
)
from wombat_dagster.reports.frames import Picture, frames_csv, frames_html, overview_png
from wombat_dagster.store.tables import dump_json, load_json

NASTY = "20251014/Light/<b>&$x^2$/f<script>.fit"


def grade(raw, minute, grade=Grade.GOOD, faults=(), **changes):
    facts = {
        "raw": raw, "start_utc": f"2025-10-15T01:{minute:02d}:00.000000", "exposure_s": 60.0,
        "grade": grade, "faults": faults, "used": True, "n_stars": 80, "fwhm_px": 3.0,
        "axis_ratio": 0.9, "sky_adu": 400.0, "sky_rms_adu": 20.0, "dimming_mag": 0.1,
        "n_matched": 60, "offset_x_px": 1.0, "offset_y_px": -2.0, "altitude_deg": 50.0,
        "airmass": 1.3, "solved": True, "score": 0.9,
    }  # fmt: skip
    return FrameGrade(**facts | changes)


CLOUD = FrameFault(
    kind=FaultKind.CLOUD,
    grade=Grade.BAD,
    words="clouded: zero point 1.4 mag below the night's best",
)
FEW = FrameFault(kind=FaultKind.CLOUD, grade=Grade.POOR, words="few stars: 12 of usually 80")


@pytest.fixture
def triage():
    unknown = dict.fromkeys(
        ("n_stars", "fwhm_px", "sky_adu", "dimming_mag", "score", "altitude_deg"), None
    )
    cut = FrameFault(kind=FaultKind.LEFT_OUT, grade=Grade.BAD, words="left out: truncated")
    return FrameTriage(
        key="20251014__SV_Wom__V",
        grades=(
            grade("a/f1.fit", 1),
            grade(NASTY, 2, Grade.BAD, (CLOUD, FEW), n_stars=12, dimming_mag=1.4),
            grade("a/f3.fit", 3, Grade.BAD, (cut,), used=False, start_utc=None, **unknown),
        ),
        findings=(
            Finding(severity=Severity.WARNING, about="sun", words="the Sun stands at +12 deg"),
        ),
        best_frame="a/f1.fit",
        usual={"fwhm_px": 3.0},
    )


@pytest.fixture
def pictures():
    greys = np.arange(80 * 100, dtype=np.uint8).reshape(80, 100)
    return {
        "a/f1.fit": Picture(frame=greys, star=greys[:21, :21]),
        NASTY: Picture(frame=greys, star=None),
    }


def test_a_triage_survives_being_stored(triage):
    assert load_json(FrameTriage, dump_json(triage)) == triage


def test_names_from_directories_are_never_markup(triage, pictures):
    page = frames_html(triage, pictures)
    assert "<script>" not in page
    assert "f&lt;script&gt;.fit" in page


def test_the_page_shows_grades_reasons_findings_and_the_best_frame(triage, pictures):
    page = frames_html(triage, pictures)
    assert "2 frames used: 1 good, 0 poor, 1 bad; 1 left out; best frame f1.fit" in page
    assert "clouded: zero point 1.4 mag below the night&#x27;s best; few stars: 12" in page
    assert "warning: the Sun stands at +12 deg" in page
    assert page.count("data:image/jpeg") == 2
    assert page.count("data:image/png") == 1
    assert len(re.findall("good, best frame", page)) == 1
    assert "left out: truncated" in page
    assert not re.search("(src|href)='(?!data:)", page)


def test_the_table_has_every_frame_with_numbers_and_words(triage):
    rows = list(csv.DictReader(io.StringIO(frames_csv(triage))))
    assert [row["grade"] for row in rows] == ["good", "bad", "bad"]
    assert rows[1]["frame"] == NASTY
    assert (rows[1]["faults"], rows[1]["dimming_mag"], rows[0]["is_best"]) == (
        "cloud",
        "1.4",
        "yes",
    )
    assert rows[1]["reason"].endswith("few stars: 12 of usually 80")
    assert (rows[2]["used"], rows[2]["fwhm_px"]) == ("no", "")


def test_the_overview_is_a_small_picture_also_of_nothing(triage, pictures):
    nothing = FrameTriage(key="x", grades=(), findings=(), best_frame=None, usual={}, notes=("no",))
    for one, shown in ((triage, pictures), (triage, {}), (nothing, {})):
        png = overview_png(one, shown)
        assert len(png) < 200_000
        assert Image.open(io.BytesIO(png)).size == (1000, 860)


def test_the_overview_shows_the_grades_colours(triage, pictures):
    """A bad frame's mark is there, and is not when the frame is good."""

    def n_of(colour, one):
        image = np.asarray(Image.open(io.BytesIO(overview_png(one, {}))).convert("RGB"), int)
        return int((np.abs(image - np.array(colour)).sum(axis=-1) < 60).sum())

    bad = (0xD5, 0x5E, 0x00)
    good = FrameTriage(key="x", grades=triage.grades[:1], findings=(), best_frame=None, usual={})
    cloudy = FrameTriage(key="x", grades=triage.grades[:2], findings=(), best_frame=None, usual={})
    assert n_of(bad, cloudy) > n_of(bad, good) + 30
