"""The ladder with solvers that answer what the test says, and the acceptance checks alone."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from wombat_dagster.domain import SolveStatus, WcsSolution
from wombat_dagster.solvers.astap import Analysis
from wombat_dagster.solvers.base import Reason, Reference, SolveOutcome
from wombat_dagster.solvers.catalogue import CatalogueSolver
from wombat_dagster.solvers.ladder import (
    check_solution,
    first_good_frame,
    propagate_frame,
    solve_frame,
    with_analysis,
)


@dataclass
class FakeSolver:
    """Answers a list of outcomes in turn, the last for ever; remembers what it was asked."""

    answers: list
    name: str = "astap"
    version: str = "0"
    asked: list = field(default_factory=list)

    def solve(self, request, options):
        self.asked.append(options)
        answer = self.answers[min(len(self.asked), len(self.answers)) - 1]
        return replace(answer, solver=self.name, seconds=0.1)


def failed(reason, message=""):
    return SolveOutcome(solver="", reason=reason, message=message)


def solved(wcs, n_quads=20):
    return SolveOutcome(solver="", solution=solution_of(wcs), n_quads=n_quads)


def solution_of(wcs, **changes):
    (cd11, cd12), (cd21, cd22) = (
        (float(v) for v in wcs.wcs.cd[0]),
        (float(v) for v in wcs.wcs.cd[1]),
    )
    found = WcsSolution(
        ra_deg=float(wcs.wcs.crval[0]),
        dec_deg=float(wcs.wcs.crval[1]),
        crpix_x=float(wcs.wcs.crpix[0]),
        crpix_y=float(wcs.wcs.crpix[1]),
        cd11=cd11,
        cd12=cd12,
        cd21=cd21,
        cd22=cd22,
    )
    return replace(found, **changes)


@pytest.fixture(name="truth")
def _truth(sky):
    return sky.wcs(rotation_deg=20)


@pytest.fixture(name="request_")
def _request(sky, truth):
    return sky.request(sky.detections(truth))


def rungs(frame):
    return [attempt.rung for attempt in frame.attempts]


def test_the_first_accepted_solution_ends_the_climb(request_, truth):
    astap = FakeSolver([solved(truth)])
    frame = solve_frame(request_, astap=astap, embedded=None)
    assert (frame.status, frame.reason, rungs(frame)) == (SolveStatus.SOLVED, None, ["1 hinted"])
    assert astap.asked[0].fov_deg == pytest.approx(700 * 2.0 / 3600)
    assert astap.asked[0].radius_deg == 5.0
    assert frame.n_matched > 0.5 * frame.n_expected
    assert frame.rms_px < 1.0
    assert frame.fwhm_median_px == 3.0


def test_every_rung_is_climbed_in_order_and_recorded(request_):
    astap = FakeSolver([failed(Reason.NO_MATCH)])
    embedded = FakeSolver([failed(Reason.NO_MATCH)], name="catalogue")
    frame = solve_frame(request_, astap=astap, embedded=embedded, blind=True)
    assert [name[0] for name in rungs(frame)] == list("122345678")
    tried = [(o.fov_deg, o.radius_deg, o.tolerance) for o in astap.asked]
    header = pytest.approx(0.38889, abs=1e-4)
    assert tried == [
        (header, 5.0, None),
        (header, 5.0, None),
        (header, 5.0, 0.01),
        (0.0, 10.0, None),
        (10.0, 5.0, None),
        (30.0, 5.0, None),
        (header, 30.0, None),
        (header, 180.0, None),
    ]
    assert astap.asked[1].max_stars == pytest.approx(105, abs=35)  # of the table, on the image
    assert (frame.status, frame.reason) == (SolveStatus.FAILED, "no_match")
    assert frame.seconds == pytest.approx(0.9)


def test_the_blind_rung_is_off_unless_nothing_says_where_the_frame_points(request_):
    astap = FakeSolver([failed(Reason.NO_MATCH)])
    assert "8 blind" not in rungs(solve_frame(request_, astap=astap, embedded=None))
    lost = replace(request_, ra_deg=None, dec_deg=None)
    astap = FakeSolver([failed(Reason.NO_MATCH)])
    assert rungs(solve_frame(lost, astap=astap, embedded=None)) == ["8 blind"]
    assert astap.asked[0].timeout_s == 300.0


@pytest.mark.parametrize(
    "reason",
    [Reason.NO_DATABASE, Reason.BAD_FILE, Reason.CRASHED, Reason.TIMEOUT, Reason.NO_STARS],
)
def test_a_reason_no_retry_can_cure_goes_straight_to_the_embedded_solver(request_, reason):
    astap = FakeSolver([failed(reason, "No star database found.")])
    frame = solve_frame(request_, astap=astap, embedded=CatalogueSolver())
    assert rungs(frame) == ["1 hinted", "7 embedded"]
    assert [attempt.outcome for attempt in frame.attempts] == [str(reason), "solved"]
    assert frame.solver == "catalogue"
    assert frame.message == (
        "ASTAP: No star database found: solved by the embedded catalogue solver"
    )


def test_without_astap_the_embedded_solver_does_it_and_says_so(request_, sky, truth):
    frame = solve_frame(request_, astap=None, embedded=CatalogueSolver())
    assert frame.status is SolveStatus.SOLVED
    assert frame.message == "ASTAP not found: solved by the embedded catalogue solver"
    assert sky.worst_error_px(frame.solution, truth) < 0.3


def test_with_nothing_at_all_the_row_says_what_is_missing(request_):
    bare = replace(request_, star_table=None)
    frame = solve_frame(bare, astap=None, embedded=CatalogueSolver())
    assert (frame.status, frame.reason) == (SolveStatus.FAILED, "no_database")
    assert frame.message == "ASTAP not found; no star table for this field"
    frame = solve_frame(bare, astap=None, embedded=None)
    assert (frame.status, frame.reason) == (SolveStatus.FAILED, "no_database")


def test_a_solution_27_arcsec_off_is_rejected_by_the_stars(request_, truth, sky):
    """ASTAP's false solution: 3 quads; here it even claims 20."""
    wrong = solved(truth)
    wrong = replace(
        wrong, solution=replace(wrong.solution, dec_deg=wrong.solution.dec_deg + 27 / 3600)
    )
    frame = solve_frame(request_, astap=FakeSolver([wrong]), embedded=None)
    assert (frame.status, frame.reason) == (SolveStatus.REJECTED, "rejected:stars")
    assert frame.solution is None
    assert "expected stars found" in frame.message
    frame = solve_frame(request_, astap=FakeSolver([wrong, solved(truth)]), embedded=None)
    assert (frame.status, rungs(frame)) == (SolveStatus.SOLVED, ["1 hinted", "2 star count"])


def test_without_a_star_table_quads_decide(request_, truth):
    bare = replace(request_, star_table=None)
    few = solve_frame(bare, astap=FakeSolver([solved(truth, n_quads=3)]), embedded=None)
    enough = solve_frame(bare, astap=FakeSolver([solved(truth, n_quads=5)]), embedded=None)
    assert (few.reason, enough.reason) == ("rejected:stars", None)
    assert "3 quads matched, 5 wanted" in few.message


def test_a_header_scale_15_percent_wrong_is_caught_by_rung_3_and_flagged(request_, truth):
    misled = replace(request_, scale_arcsec_px=2.3)
    frame = solve_frame(misled, astap=FakeSolver([solved(truth)]), embedded=None)
    assert frame.status is SolveStatus.SOLVED
    assert rungs(frame)[-1] == "3 any field"
    assert frame.attempts[0].outcome == "rejected:scale"
    assert 'scale 2.000"/px, header 2.300 (-13 %)' in frame.message


def test_the_last_rung_propagates(request_, sky, truth):
    reference = Reference(
        solution=solution_of(truth), detections=request_.detections, file="first.fits"
    )
    drifted = sky.wcs(rotation_deg=20, east_px=100)
    request = sky.request(sky.detections(drifted, seed=3), reference=reference, star_table=None)
    frame = solve_frame(request, astap=None, embedded=CatalogueSolver())
    assert (frame.status, rungs(frame)[-1]) == (SolveStatus.PROPAGATED, "9 propagated")
    assert frame.reference_file == "first.fits"
    assert sky.worst_error_px(frame.solution, drifted) < 0.5


def test_propagate_frame_is_that_rung_alone_and_checks_the_turn(sky, truth, request_):
    reference = Reference(
        solution=solution_of(truth), detections=request_.detections, file="first.fits"
    )
    flipped = sky.request(sky.detections(sky.wcs(rotation_deg=200.4)), star_table=None)
    frame = propagate_frame(flipped, reference)
    assert (frame.status, rungs(frame)) == (SolveStatus.PROPAGATED, ["9 propagated"])
    turned = sky.request(sky.detections(sky.wcs(rotation_deg=25)), star_table=None)
    assert propagate_frame(turned, reference).reason == "rejected:rotation"
    allowed = propagate_frame(turned, reference, rotation_tolerance_deg=10.0)
    assert allowed.status is SolveStatus.PROPAGATED


GOOD = WcsSolution(
    ra_deg=10, dec_deg=10, crpix_x=1, crpix_y=1, cd11=-1e-3, cd12=0, cd21=0, cd22=1e-3
)
EVIDENCE = {"scale_arcsec_px": 3.6, "scale_tolerance": 0.05, "n_quads": 5}


@pytest.mark.parametrize(
    ("solution", "evidence", "verdict"),
    [
        (GOOD, {}, None),
        (GOOD, {"scale_arcsec_px": 3.44}, None),
        (GOOD, {"scale_arcsec_px": 3.42}, "rejected:scale"),
        (GOOD, {"scale_arcsec_px": 3.42, "scale_tolerance": 0.2}, None),
        (GOOD, {"scale_arcsec_px": None}, None),
        (replace(GOOD, cd22=1.009e-3), {}, None),
        (replace(GOOD, cd22=1.011e-3), {}, "rejected:shape"),
        (replace(GOOD, cd12=1.1e-5), {}, "rejected:shape"),
        (replace(GOOD, cd12=0.0, cd22=0.0), {"scale_arcsec_px": None}, "rejected:shape"),
        (GOOD, {"parity": -1}, None),
        (GOOD, {"parity": 1}, "rejected:parity"),
        (GOOD, {"n_quads": 4}, "rejected:stars"),
        (GOOD, {"n_quads": None}, "rejected:stars"),
        (GOOD, {"n_matched": 39, "n_expected": 41, "rms_px": 0.33, "n_quads": None}, None),
        (GOOD, {"n_matched": 20, "n_expected": 41, "rms_px": 0.33}, "rejected:stars"),
        (GOOD, {"n_matched": 39, "n_expected": 41, "rms_px": 2.0}, "rejected:stars"),
        (GOOD, {"n_matched": 5, "n_expected": 8, "rms_px": 0.3}, "rejected:stars"),
        (GOOD, {"n_matched": 0, "n_expected": 3, "rms_px": None}, None),
        (GOOD, {"rotation_deg": 0.9}, None),
        (GOOD, {"rotation_deg": -179.2}, None),
        (GOOD, {"rotation_deg": 1.1}, "rejected:rotation"),
        (GOOD, {"rotation_deg": 90.0}, "rejected:rotation"),
    ],
)
def test_the_checks(solution, evidence, verdict):
    """PLATE_SOLVING section 3; 39 of 41 and 0.33 px are its HAT-P-32 figures."""
    assert check_solution(solution, **(EVIDENCE | evidence)) == verdict


def test_the_first_good_frame_skips_trails_and_clouds(stars_at):
    rng = np.random.default_rng(0)

    def frame(n_stars, fwhm_px=3.0, axis_ratio=0.95):
        stars = stars_at(rng.uniform(0, 9, n_stars), rng.uniform(0, 9, n_stars), np.ones(n_stars))
        return replace(
            stars, fwhm_px=np.full(n_stars, fwhm_px), axis_ratio=np.full(n_stars, axis_ratio)
        )

    night = [frame(0), frame(100, axis_ratio=0.4), frame(30), frame(95), frame(100), frame(98)]
    assert first_good_frame(night) == 3
    assert first_good_frame([frame(0)]) is None
    assert first_good_frame([]) is None


def test_astaps_analysis_replaces_our_width_and_says_whose_it_is(request_, truth):
    frame = solve_frame(request_, astap=FakeSolver([solved(truth)]), embedded=None)
    assert frame.hfd_source == "detections"
    told = with_analysis(frame, Analysis(2.7, 512), 10.0)
    assert (told.hfd_median_px, told.hfd_source, told.n_stars) == (2.7, "astap -analyse 10", 512)
    assert with_analysis(frame, None, 10.0) is frame
    assert with_analysis(frame, Analysis(None, 0), 10.0) is frame
