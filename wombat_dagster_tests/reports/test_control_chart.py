import datetime as dt
import io

import pytest
from PIL import Image

from wombat_dagster.domain import CheckNight
from wombat_dagster.reports.control_chart import control_chart_png


def night(day, magnitude_mag, **changes):
    facts = {
        "key": f"202510{day:02d}__TX_Eri__V",
        "date": dt.date(2025, 10, day),
        "star": "oid:26210",
        "band": "V",
        "camera": "QHW",
        "check_name": "000-BCD-123",
        "magnitude_mag": magnitude_mag,
        "error_mag": 0.012,
        "catalogue_mag": 11.234,
        "catalogue_error_mag": 0.02,
        "zp_err_mag": 0.009,
        "scatter_mag": 0.006,
        "n_frames": 40,
        "held": False,
        "reference_mag": 11.234,
        "allowed_mag": 0.075,
    }
    return CheckNight(**(facts | changes))


NIGHTS = [
    night(3, 11.241),
    night(4, 11.228),
    night(4, 11.230, key="20251004b__TX_Eri__V"),
    night(9, 11.251, scatter_mag=None),
    night(12, 11.402, held=True),
    night(20, 12.01, check_name="000-BCD-456", catalogue_mag=12.0, reference_mag=12.0),
    night(21, 12.02, check_name="000-BCD-456", catalogue_mag=None, reference_mag=None,
          allowed_mag=None),
]  # fmt: skip


def test_the_chart_is_a_picture_small_enough_for_the_ui():
    png = control_chart_png(NIGHTS, title="TX Eri in V, QHW")
    assert Image.open(io.BytesIO(png)).size == (1000, 560)
    assert len(png) < 200_000


def test_the_order_in_which_nights_come_does_not_matter():
    title = "TX Eri in V"
    assert control_chart_png(NIGHTS[::-1], title=title) == control_chart_png(NIGHTS, title=title)


def test_one_night_alone_can_be_shown():
    assert control_chart_png(NIGHTS[:1], title="one")


def test_no_night_is_no_chart():
    with pytest.raises(ValueError, match="no night"):
        control_chart_png([], title="none")
