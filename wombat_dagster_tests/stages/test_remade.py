"""What magnitudes made again changed, and what went in that differs."""

import dataclasses
import datetime as dt

import numpy as np
import pytest

from wombat_dagster.config import Settings
from wombat_dagster.domain import StandardMagnitudes, Transformation
from wombat_dagster.observatory import Observatory
from wombat_dagster.stages.remade import record_change, what_differs
from wombat_dagster.store.remade import remade
from wombat_dagster.store.stage_runs import MADE, StageRuns
from wombat_dagster_tests.magnitude_tables import noisy_night, standardised

KEY = "20251015__TX_Eri__V"
MADE_WITH = {"bias": "none", "flat": "2025-10-14 (4f5a06)", "radii": "5.00 9.00 14.00 px"}


@pytest.fixture(scope="module")
def before() -> StandardMagnitudes:
    night = standardised(noisy_night(n_frames=6))
    return dataclasses.replace(
        night, raw_hashes=tuple(f"{i:08x}" for i in range(6)), made_with=MADE_WITH
    )


@pytest.fixture
def observatory(tmp_path):
    opened = Observatory(Settings(database=tmp_path / "wombatpipeline.db"))
    with opened.status._writing() as connection:
        connection.execute(
            "INSERT INTO target (date, target, filter, night, key) VALUES (?,?,?,?,?)",
            ("2025-10-15", "TX Eri", "V", "20251015", KEY),
        )
    return opened


def again(before, *, by_mag=0.053, **changes):
    return dataclasses.replace(before, t1_mag=before.t1_mag + by_mag, **changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"made_with": {**MADE_WITH, "bias": "2025-10-14 (ab12cd)"}},
         "bias none → 2025-10-14 (ab12cd)"),
        ({"made_with": {**MADE_WITH, "radii": "6.00 9.00 14.00 px"}},
         "radii 5.00 9.00 14.00 px → 6.00 9.00 14.00 px"),
        ({"made_with": {}}, "not known whether other: bias, flat, radii"),
        ({"chart_id": "X24397MFI"}, "chart X1 → X24397MFI"),
        ({"raw_hashes": ("a", "b")}, "frames 6 → 2"),
        ({"raw_hashes": tuple("abcdef")}, "6 of 6 frames are other ones"),
        ({"check_name": None}, "check star {check} → none"),
        ({"method": "single"}, "method ensemble → single"),
        ({"transformation": Transformation(
            coefficient_name="Tv_bv", coefficient=-0.06, coefficient_error=0.002)},
         "coefficient none → Tv_bv -0.0600 ± 0.0020"),
        ({"sibling_versions": {"20251015__TX_Eri__B": "1", "coefficients": "2"}},
         "with 20251015__TX_Eri__B"),
        ({}, "what differs is not known"),
    ],
)  # fmt: skip
def test_what_differs_is_said_and_nothing_else(before, changes, words):
    old = dataclasses.replace(before, chart_id="X1")
    got = what_differs(old, dataclasses.replace(old, **changes))
    assert got == words.format(check=before.check_name)


def test_another_filter_s_coefficients_are_told_of_where_both_go_in(before):
    def made(method, version, value=-0.06):
        return dataclasses.replace(
            before,
            method=method,
            sibling_versions={"coefficients": version},
            transformation=Transformation(coefficient_name="Tv_bv", coefficient=value),
        )

    def differs(method, value=-0.06):
        return what_differs(made(method, "aaaaaaaa"), made(method, "bbbbbbbb", value))

    assert differs("two-filter") == (
        "coefficients of the camera other than this filter's aaaaaa → bbbbbb"
    )
    assert differs("two-filter", -0.07) == "coefficient Tv_bv -0.0600 → Tv_bv -0.0700"
    assert differs("ensemble") == "what differs is not known"


def test_comps_that_came_and_went_are_named(before):
    first, *others = before.comp_names
    got = what_differs(before, dataclasses.replace(before, comp_names=(*others, "000-NEW")))
    assert got == f"comps added: 000-NEW; comps left out: {first}"
    assert "none in both" in what_differs(before, dataclasses.replace(before, comp_names=("x",)))
    moved = dataclasses.replace(
        before, ensemble_reference_mag=before.ensemble_reference_mag + 0.002
    )
    assert what_differs(before, moved).startswith("catalogue mean of the comps ")


def test_a_change_is_kept_with_what_differs_apart_from_why_it_was_run(observatory, before):
    after = again(before, made_with={**MADE_WITH, "bias": "2025-10-14 (ab12cd)"})
    assert record_change(observatory, KEY, before, before, why="any") is None
    found = record_change(observatory, KEY, before, after, why="interrupted")
    assert remade(observatory.status.path) == [found]
    assert (found.why, found.what) == ("interrupted", "bias none → 2025-10-14 (ab12cd)")
    assert found.t1_median_change_mag == pytest.approx(0.053)
    assert found.words.startswith("T1 +0.0530 mag in the median")
    assert found.words.endswith(f"; {found.what}")
    assert observatory.status.target_row(KEY).changed_since is None


def test_a_row_that_was_decided_on_says_what_changed_since(observatory, before):
    with observatory.status._writing() as connection:
        connection.execute("UPDATE target SET submitted = 'approved'")
    after = again(before, raw_hashes=(*before.raw_hashes[:5], "other"))
    found = record_change(observatory, KEY, before, after, why=None)
    said = observatory.status.target_row(KEY).changed_since
    made = dt.datetime.fromisoformat(found.made_utc)
    assert said.endswith(
        f"{made:%Y-%m-%dT%H:%MZ} after you decided: T1 +0.053 mag (1 of 6 frames are other ones)"
    )


def test_other_programs_are_named(observatory, before):
    runs = StageRuns(observatory.status.path)
    for _ in range(2):
        number = runs.begin(KEY, "standard_magnitudes", inputs={}, run_id="1", why=None)
        runs.end(number, MADE, inputs={})
    found = record_change(observatory, KEY, before, again(before), why=None)
    assert found.what == "what differs is not known"
    with observatory.status._writing() as connection:
        connection.execute(
            "UPDATE stage_run SET software = json_set(software, '$.numpy', '1.0') WHERE id = 1"
        )
    found = record_change(observatory, KEY, before, again(before), why=None)
    assert found.what == f"numpy 1.0 → {np.__version__}"
