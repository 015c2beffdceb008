"""From a solved frame to its neighbours: drift, small turns, a meridian flip, field rotation."""

from dataclasses import replace

import numpy as np
import pytest

from wombat_dagster.domain import WcsSolution
from wombat_dagster.solvers.base import Reason, Reference, RungOptions
from wombat_dagster.solvers.catalogue import CatalogueSolver
from wombat_dagster.solvers.fitting import refine
from wombat_dagster.solvers.propagate import Propagator
from wombat_dagster.tangent import pixel_to_sky


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


def test_a_table_of_another_place_leaves_the_stars_of_the_first_frame(sky, sky_at, reference):
    truth = sky.wcs(rotation_deg=12, east_px=40)
    elsewhere = replace(sky_at(99, ra_deg=sky.ra_deg).table, name="another sky")
    request = sky.request(sky.detections(truth, seed=2), reference=reference, star_table=elsewhere)
    outcome = Propagator().solve(request, RungOptions())
    assert outcome.database == "first.fits"
    assert sky.worst_error_px(outcome.solution, truth) < 0.5


def test_clouds_are_named(sky, reference):
    few = sky.detections(sky.wcs(), n_stars=3, n_false=0)
    outcome = Propagator().solve(sky.request(few, reference=reference), RungOptions())
    assert outcome.reason is Reason.NO_STARS
    assert "3 stars here" in outcome.message


def test_without_a_solved_frame_there_is_nothing_to_carry_over(sky):
    outcome = Propagator().solve(sky.request(sky.detections(sky.wcs())), RungOptions())
    assert outcome.reason is Reason.NO_MATCH
    assert np.isfinite(outcome.seconds)


# ------------------------------------------------------------------------------ a lens that bends


def bent(x, y):
    """Move places outwards by 8 px (r / half diagonal)³ from a centre that is the chip's."""
    u, v = x - 449.5, y - 349.5
    more = 1.0 + 8.0 / 570.0 * (np.hypot(u, v) / 570.0) ** 2
    return 449.5 + u * more, 349.5 + v * more


def seen_through_the_lens(sky, wcs, **how):
    straight = sky.detections(wcs, noise_px=0.1, **how)
    x, y = bent(straight.x_px, straight.y_px)
    return replace(straight, x_px=x, y_px=y)


@pytest.fixture(name="wide")
def _wide(sky_at):
    """A sky of a wide lens, and its first frame with the distortion known."""
    sky = sky_at(3, scale_arcsec_px=30.0, n_stars=8000)
    wcs = sky.wcs(rotation_deg=12)
    stars = seen_through_the_lens(sky, wcs, n_stars=400)
    (cd11, cd12), (cd21, cd22) = wcs.wcs.cd
    start = WcsSolution(
        ra_deg=sky.ra_deg, dec_deg=sky.dec_deg, crpix_x=450.5, crpix_y=350.5,
        cd11=cd11, cd12=cd12, cd21=cd21, cd22=cd22,
    )  # fmt: skip
    fit = refine(start, stars, sky.table, width_px=900, height_px=700)
    return sky, Reference(solution=fit.solution, detections=stars, file="first.fits")


@pytest.mark.parametrize("with_table", [False, True])
@pytest.mark.parametrize(
    "turn",
    [
        {"rotation_deg": 12, "east_px": 130, "north_px": -150},
        {"rotation_deg": 192, "east_px": 80, "north_px": 60},
    ],
    ids=["drift", "meridian flip"],
)
def test_the_distortion_stays_on_the_chip_when_the_sky_moves(wide, turn, with_table):
    """With 60 stars, too few to find it from: it must be the reference's, and at its place."""
    sky, reference = wide
    truth = sky.wcs(**turn)
    stars = seen_through_the_lens(sky, truth, n_stars=50, n_false=10, seed=2)
    table = sky.table if with_table else None
    request = sky.request(stars, reference=reference, star_table=table)
    solution = Propagator().solve(request, RungOptions()).solution
    assert solution.sip == reference.solution.sip
    assert (solution.crpix_x, solution.crpix_y) == (450.5, 350.5)
    x, y = (axis.ravel() for axis in np.meshgrid(np.linspace(0, 899, 9), np.linspace(0, 699, 7)))
    true_x, true_y = bent(*truth.all_world2pix(*pixel_to_sky(solution, x, y), 0))
    assert np.hypot(true_x - x, true_y - y).max() < 0.35
