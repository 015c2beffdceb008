"""Transformation coefficients in the database."""

import datetime as dt
from dataclasses import replace

import pytest

from wombat_dagster.domain import Coefficient
from wombat_dagster.store.coefficients import (
    forget_coefficients,
    record_coefficients,
    replace_coefficients,
    stored_coefficients,
)
from wombat_dagster.store.status import StatusDatabase

FIT = Coefficient(
    name="Tv_bv",
    value=-0.06,
    error=0.004,
    n_stars=21,
    r_squared=0.93,
    date=dt.date(2025, 10, 14),
    camera="QHY 600",
    source="fit M67",
)
FILE = Coefficient(name="Tv_bv", value=-0.05, error=None, source="tg.ini")


@pytest.fixture
def status(tmp_path):
    return StatusDatabase(tmp_path / "wombatpipeline.db")


def test_what_is_recorded_comes_back(status):
    record_coefficients(status, [FIT, FILE])
    assert stored_coefficients(status) == [FILE, FIT]


def test_the_same_night_and_field_again_replaces_and_another_field_does_not(status):
    record_coefficients(status, [FIT])
    again = replace(FIT, value=-0.07)
    other = replace(FIT, source="fit SA98")
    record_coefficients(status, [again, other])
    assert stored_coefficients(status) == [again, other]


def test_forgetting_is_by_source_and_if_said_by_camera_and_night(status):
    record_coefficients(status, [FIT, FILE])
    assert forget_coefficients(status, "fit M67", camera="another") == 0
    assert forget_coefficients(status, "fit M67", date=dt.date(2025, 10, 15)) == 0
    assert forget_coefficients(status, "fit M67", date=dt.date(2025, 10, 14)) == 1
    assert forget_coefficients(status, "tg.ini", camera="") == 1
    assert stored_coefficients(status) == []


def test_a_night_fitted_again_keeps_nothing_of_the_former_fit(status):
    """Tb_bv cannot be had any more: the old one must not go on serving."""
    other = replace(FIT, name="Tb_bv", source="fit SA98")
    record_coefficients(status, [FIT, replace(FIT, name="Tb_bv"), other])
    again = replace(FIT, value=-0.07)
    replace_coefficients(
        status, [again], source="fit M67", camera="QHY 600", date=dt.date(2025, 10, 14)
    )
    assert stored_coefficients(status) == [other, again]


def test_a_record_from_before_second_order_extinction_holds_the_air(status):
    record_coefficients(status, [FIT])
    with status._writing() as connection:
        connection.execute(
            "UPDATE coefficient SET record = json_remove(record, '$.outside_atmosphere')"
        )
    assert stored_coefficients(status) == [FIT]
