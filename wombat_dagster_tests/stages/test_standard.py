"""What the configuration of a camera makes of its magnitudes."""

import datetime as dt
from types import SimpleNamespace

import pytest

from wombat_dagster.config import Settings
from wombat_dagster.domain import CalibrationChoice, Observation
from wombat_dagster.observatory import Observatory
from wombat_dagster.stages.standard import standard_magnitudes_of
from wombat_dagster_tests.magnitude_tables import AIR_TERMS, K2_B, through_the_air

NO_MASTERS = CalibrationChoice(bias=None, dark=None, flat=None, reasons=())


def magnitudes(root, **instrument):
    settings = Settings(
        instrument=[{"camera": "QSI", "transform": {"Tb_bv": AIR_TERMS["B"]}, **instrument}],
        target=[{"directory": ["TX Eri"], "colour": {"B-V": 0.1}}],
    )
    observatory = Observatory(settings.model_copy(update={"database": root / "wombatpipeline.db"}))
    observation = Observation(
        date=dt.date(2025, 10, 15), target="TX Eri", filter="B", key="20251015__TX_Eri__B"
    )
    reduction = SimpleNamespace(
        group=SimpleNamespace(camera="QSI 583"), frames=(), choice=NO_MASTERS
    )
    return standard_magnitudes_of(observatory, observation, reduction, through_the_air("B"))


def test_second_order_extinction_is_the_camera_s(tmp_path):
    got = magnitudes(tmp_path, extinction_colour={"B": K2_B})
    assert got.t1_mag == pytest.approx([11.1] * 12, abs=1e-9)
    assert any(note.startswith("second-order extinction in B") for note in got.notes)


def test_without_it_a_blue_star_drifts(tmp_path):
    got = magnitudes(tmp_path)
    assert got.t1_mag.max() - got.t1_mag.min() > 0.01
    assert not any("second-order" in note for note in got.notes)
