"""The embedded solver on synthetic frames, truth by astropy's WCS."""

from dataclasses import replace

import numpy as np
import pytest
from astropy.coordinates import SkyCoord

from wombat_dagster.solvers.base import Reason, RungOptions
from wombat_dagster.solvers.catalogue import CatalogueSolver

OPTIONS = RungOptions()


def solve(request):
    return CatalogueSolver().solve(request, OPTIONS)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("rotation_deg", [0.0, 33.0, 90.0, 179.5, -120.0])
def test_any_rotation_and_both_parities_are_solved(sky, rotation_deg, mirrored):
    truth = sky.wcs(rotation_deg=rotation_deg, mirrored=mirrored, east_px=60, north_px=-40)
    outcome = solve(sky.request(sky.detections(truth)))
    assert outcome.reason is None
    assert sky.worst_error_px(outcome.solution, truth) < 0.3
    assert outcome.solution.parity == (1 if mirrored else -1)
    assert outcome.n_matched >= 0.7 * outcome.n_expected
    assert outcome.rms_px == pytest.approx(0.15 * np.sqrt(2), rel=0.3)
    assert outcome.rms_arcsec == pytest.approx(outcome.rms_px * 2.0, rel=0.01)


@pytest.mark.parametrize("stretch", [0.96, 1.04])
def test_a_header_scale_wrong_by_4_percent_is_no_obstacle(sky, stretch):
    truth = sky.wcs(rotation_deg=20, stretch=stretch)
    outcome = solve(sky.request(sky.detections(truth)))
    assert outcome.solution.scale_arcsec_px == pytest.approx(2.0 * stretch, rel=1e-3)


@pytest.mark.parametrize(("east", "north"), [(360, 0), (0, -280), (250, 200)])
def test_a_position_wrong_by_0_4_of_a_frame_is_no_obstacle(sky, east, north):
    truth = sky.wcs(rotation_deg=-70, east_px=east, north_px=north)
    outcome = solve(sky.request(sky.detections(truth)))
    assert sky.worst_error_px(outcome.solution, truth) < 0.3


def test_an_unknown_scale_is_searched_for(sky):
    truth = sky.wcs(rotation_deg=10)
    outcome = solve(sky.request(sky.detections(truth), scale_arcsec_px=None))
    assert sky.worst_error_px(outcome.solution, truth) < 0.3


def test_a_guessed_scale_may_be_off_by_its_tolerance(sky):
    truth = sky.wcs(stretch=1.18)
    outcome = solve(sky.request(sky.detections(truth), scale_tolerance=0.2))
    assert sky.worst_error_px(outcome.solution, truth) < 0.3


def source_of(table):
    """Return a source of stars that knows one patch of sky, and what it was asked for."""
    asked = []

    def around(ra_deg, dec_deg, radius_deg, *, max_stars=None):
        asked.append((ra_deg, dec_deg, radius_deg, max_stars))
        centre = SkyCoord(ra_deg, dec_deg, unit="deg")
        there = SkyCoord(table.ra_deg, table.dec_deg, unit="deg")
        row = np.flatnonzero(centre.separation(there).deg <= radius_deg)
        row = row[np.argsort(table.mag[row])][:max_stars]
        return replace(
            table, ra_deg=table.ra_deg[row], dec_deg=table.dec_deg[row], mag=table.mag[row]
        )

    return around, asked


@pytest.mark.parametrize(("east_deg", "north_deg"), [(0.5, 0.0), (0.0, -2.0), (-3.0, 3.0)])
@pytest.mark.parametrize("mirrored", [False, True])
def test_a_header_that_points_degrees_off_a_half_degree_field(sky, mirrored, east_deg, north_deg):
    """Several whole frames: the quads look the shape up in the whole circle."""
    truth = sky.wcs(rotation_deg=130, mirrored=mirrored)
    around, _ = source_of(sky.table)
    misled = sky.request(
        sky.detections(truth),
        ra_deg=sky.ra_deg + east_deg / np.cos(np.radians(sky.dec_deg)),
        dec_deg=sky.dec_deg + north_deg,
        star_table=None,
    )
    outcome = CatalogueSolver(around).solve(misled, OPTIONS)
    assert outcome.reason is None
    assert sky.worst_error_px(outcome.solution, truth) < 0.3
    assert outcome.solution.parity == (1 if mirrored else -1)


@pytest.mark.parametrize("header_arcsec_px", [0.4, 1.7, 2.3, 9.0, None])
def test_any_scale_is_found_when_the_headers_is_not_believed(sky, header_arcsec_px):
    truth = sky.wcs(rotation_deg=-40)
    around, _ = source_of(sky.table)
    request = sky.request(sky.detections(truth), scale_arcsec_px=header_arcsec_px)
    outcome = CatalogueSolver(around).solve(request, RungOptions(fov_deg=0.0))
    assert sky.worst_error_px(outcome.solution, truth) < 0.3


def test_no_more_stars_are_asked_for_than_are_needed(sky):
    """The deepest database has thousands per square degree."""
    around, asked = source_of(sky.table)
    nowhere = sky.request(sky.detections(sky.wcs()), dec_deg=-60.0, star_table=None)
    assert CatalogueSolver(around).solve(nowhere, OPTIONS).reason is Reason.NO_DATABASE
    assert max(n for *_, n in asked) <= 80_002  # to be evened out to half
    assert max(radius for _, _, radius, _ in asked) < 6.0


def test_a_search_ends_in_time(sky):
    elsewhere = sky.request(
        sky.detections(sky.wcs()), star_table=replace(sky.table, mag=-sky.table.mag)
    )
    outcome = solve_within(elsewhere, 0.001)
    assert outcome.reason is Reason.TIMEOUT
    assert outcome.seconds < 3.0


def solve_within(request, timeout_s):
    return CatalogueSolver().solve(request, RungOptions(timeout_s=timeout_s))


def test_a_database_that_cannot_be_read_is_a_reason(sky):
    def broken(ra_deg, dec_deg, radius_deg, *, max_stars=None):
        raise ValueError("h18_2804.1476: records of 11 bytes")

    request = sky.request(sky.detections(sky.wcs()), star_table=None)
    outcome = CatalogueSolver(broken).solve(request, OPTIONS)
    assert outcome.reason is Reason.NO_DATABASE
    assert "11 bytes" in outcome.message


@pytest.mark.parametrize("seed", range(4))
def test_few_stars_suffice(sky_at, seed):
    """Fourteen stars and two false ones."""
    sky = sky_at(seed)
    truth = sky.wcs(rotation_deg=50, east_px=100)
    stars = sky.detections(truth, seed=seed, n_stars=14, n_false=2)
    assert sky.worst_error_px(solve(sky.request(stars)).solution, truth) < 1.0


def test_as_many_hot_pixels_as_stars_are_no_obstacle(sky):
    truth = sky.wcs(rotation_deg=50)
    stars = sky.detections(truth, n_stars=60, n_false=60)
    outcome = solve(sky.request(stars))
    assert sky.worst_error_px(outcome.solution, truth) < 0.4


@pytest.mark.parametrize(("ra_deg", "dec_deg"), [(0.01, -30.0), (359.99, 10.0), (200.0, 84.0)])
def test_right_ascension_zero_and_high_declination_are_sky_like_any_other(sky_at, ra_deg, dec_deg):
    sky = sky_at(5, ra_deg=ra_deg, dec_deg=dec_deg)
    truth = sky.wcs(rotation_deg=15, east_px=30)
    assert sky.worst_error_px(solve(sky.request(sky.detections(truth))).solution, truth) < 0.3


@pytest.mark.parametrize("seed", range(3))
def test_noise_is_not_solved(sky, stars_at, seed):
    rng = np.random.default_rng(seed)
    noise = stars_at(rng.uniform(0, 900, 100), rng.uniform(0, 700, 100), rng.uniform(1, 9, 100))
    outcome = solve(sky.request(noise))
    assert outcome.solution is None
    assert outcome.reason is Reason.NO_MATCH


def test_another_field_is_not_solved(sky, sky_at):
    elsewhere = sky_at(77)
    stars = elsewhere.detections(elsewhere.wcs())
    assert solve(sky.request(stars)).reason is Reason.NO_MATCH


def test_what_is_missing_is_named(sky):
    stars = sky.detections(sky.wcs())
    none = sky.detections(sky.wcs(), n_stars=3, n_false=0)
    assert solve(sky.request(none)).reason is Reason.NO_STARS
    assert solve(sky.request(stars, star_table=None)).reason is Reason.NO_DATABASE
    assert solve(sky.request(stars, ra_deg=280.0)).reason is Reason.NO_DATABASE
    assert solve(sky.request(stars, ra_deg=None, dec_deg=None)).reason is Reason.NO_MATCH
