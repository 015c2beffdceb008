"""From a solved frame to its neighbours: drift, small turns, a meridian flip, field rotation."""

import numpy as np
import pytest

from wombat_dagster.solvers.base import Reason, Reference, RungOptions
from wombat_dagster.solvers.catalogue import CatalogueSolver
from wombat_dagster.solvers.propagate import Propagator


@pytest.fixture(name="reference")
def _reference(sky):
    stars = sky.detections(sky.wcs(rotation_deg=12), seed=1)
    solution = CatalogueSolver().solve(sky.request(stars), RungOptions()).solution
    return Reference(solution=solution, detections=stars, file="first.fits")


@pytest.mark.parametrize("with_table", [False, True])
@pytest.mark.parametrize(
    "turn",
    [
        {"rotation_deg": 12},
        {"rotation_deg": 12, "east_px": 230, "north_px": -150},
        {"rotation_deg": 12.8, "east_px": -40},
        {"rotation_deg": 192, "east_px": 80, "north_px": 60},
        {"rotation_deg": 47, "north_px": 100},
    ],
    ids=["same", "276 px of drift", "a little turn", "meridian flip", "field rotation"],
)
def test_the_next_frame_is_solved_from_the_first(sky, reference, turn, with_table):
    truth = sky.wcs(**turn)
    table = sky.table if with_table else None
    request = sky.request(sky.detections(truth, seed=2), reference=reference, star_table=table)
    outcome = Propagator().solve(request, RungOptions())
    assert sky.worst_error_px(outcome.solution, truth) < 0.5
    assert outcome.reference_file == "first.fits"
    assert outcome.database == ("synthetic" if with_table else "first.fits")
    assert outcome.n_matched >= 0.6 * outcome.n_expected
    assert outcome.rms_px < 0.5


def test_another_field_is_not_taken_for_a_drift(sky, sky_at, reference):
    elsewhere = sky_at(99)
    request = sky.request(elsewhere.detections(elsewhere.wcs()), reference=reference)
    outcome = Propagator().solve(request, RungOptions())
    assert (outcome.solution, outcome.reason) == (None, Reason.NO_MATCH)


def test_clouds_are_named(sky, reference):
    few = sky.detections(sky.wcs(), n_stars=3, n_false=0)
    outcome = Propagator().solve(sky.request(few, reference=reference), RungOptions())
    assert outcome.reason is Reason.NO_STARS
    assert "3 stars here" in outcome.message


def test_without_a_solved_frame_there_is_nothing_to_carry_over(sky):
    outcome = Propagator().solve(sky.request(sky.detections(sky.wcs())), RungOptions())
    assert outcome.reason is Reason.NO_MATCH
    assert np.isfinite(outcome.seconds)
