"""The ladder with solvers that answer what the test says, and the acceptance checks alone."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from wombat_dagster.domain import SolveStatus, WcsSolution
from wombat_dagster.solvers.astap import Analysis
from wombat_dagster.solvers.base import Reason, Reference, SolveOutcome
from wombat_dagster.solvers.catalogue import CatalogueSolver
from wombat_dagster.solvers.ladder import (
    Patience,
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
    asked_at_ra_deg: list = field(default_factory=list)
    tolerances: list = field(default_factory=list)

    def solve(self, request, options):
        self.asked_at_ra_deg.append(request.ra_deg)
        self.tolerances.append(request.scale_tolerance)
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
    field = FakeSolver([failed(Reason.NO_MATCH)], name="solve-field")
    frame = solve_frame(request_, astap=astap, embedded=embedded, solve_field=field, blind=True)
    assert [name[0] for name in rungs(frame)] == list("1223345677778")
    tried = [(o.fov_deg, o.radius_deg, o.tolerance) for o in astap.asked]
    header = pytest.approx(0.38889, abs=1e-4)
    assert tried == [
        (header, 5.0, None),
        (header, 5.0, None),
        (header, 5.0, 0.01),
        (0.0, 10.0, None),
        (0.0, 10.0, None),
        (10.0, 5.0, None),
        (30.0, 5.0, None),
        (header, 30.0, None),
        (header, 180.0, None),
    ]
    assert astap.asked[4].max_stars == 50
    assert astap.asked[1].max_stars == pytest.approx(105, abs=35)  # of the table, on the image
    assert (frame.status, frame.reason) == (SolveStatus.FAILED, "no_match")
    assert [o.fov_deg for o in embedded.asked] == [header, 0.0]  # 0: any scale
    assert field.tolerances == [0.05, 0.25]
    assert frame.seconds == pytest.approx(1.3)


def test_the_blind_rung_is_off_unless_nothing_says_where_the_frame_points(request_):
    astap = FakeSolver([failed(Reason.NO_MATCH)])
    assert "8 blind" not in rungs(solve_frame(request_, astap=astap, embedded=None))
    lost = replace(request_, ra_deg=None, dec_deg=None)
    astap = FakeSolver([failed(Reason.NO_MATCH)])
    assert rungs(solve_frame(lost, astap=astap, embedded=None)) == ["8 blind"]
    assert astap.asked[0].timeout_s == 300.0


@pytest.mark.parametrize(
    "reason", [Reason.NO_DATABASE, Reason.BAD_FILE, Reason.CRASHED, Reason.TIMEOUT]
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


def test_a_timeout_forbids_neither_other_solvers_nor_a_rung_that_has_more_time(request_):
    astap = FakeSolver([failed(Reason.TIMEOUT)])
    embedded = FakeSolver([failed(Reason.TIMEOUT)], name="catalogue")
    field = FakeSolver([failed(Reason.TIMEOUT)], name="solve-field")
    frame = solve_frame(request_, astap=astap, embedded=embedded, solve_field=field, blind=True)
    field_rungs = ["7 solve-field", "7 solve-field, scale"]
    assert rungs(frame) == ["1 hinted", "7 embedded", *field_rungs, "8 blind"]


def test_a_program_that_hangs_is_left_alone_after_two_frames(request_):
    """Twice a frame, with more time, then never again; the reason stands in the attempts."""
    astap, patience = FakeSolver([failed(Reason.TIMEOUT, "killed after 60 s")]), Patience()
    embedded = FakeSolver([failed(Reason.NO_MATCH)], name="catalogue")
    frames = [
        solve_frame(request_, astap=astap, embedded=embedded, blind=True, patience=patience)
        for _ in range(5)
    ]
    assert [options.timeout_s for options in astap.asked] == [None, 300.0] * 2
    for frame in frames[2:]:
        of_astap = [one for one in frame.attempts if one.solver == "astap"]
        assert [(one.outcome, one.message, one.seconds) for one in of_astap] == [
            ("timeout", "not asked: on 2 frames before it only ran out of time", None)
        ]
        assert len([one for one in frame.attempts if one.solver == "catalogue"]) == 2


def test_an_answer_between_two_time_outs_keeps_a_program_in_the_game(request_, truth):
    astap, patience = FakeSolver([failed(Reason.TIMEOUT)]), Patience()
    slow, other = failed(Reason.TIMEOUT), failed(Reason.NO_MATCH)
    for answers in ([slow], [other, slow], [slow], [solved(truth)], [slow]):
        astap.answers, astap.asked = answers, []
        frame = solve_frame(request_, astap=astap, embedded=None, patience=patience)
        assert len(astap.asked) == len(answers)
        assert "not asked" not in frame.message


def test_an_analysis_that_never_comes_is_not_waited_for_again():
    class Mute:
        n_asked = 0

        def analyse(self, _image, _snr_min):
            self.n_asked += 1

    mute, patience = Mute(), Patience()
    assert [patience.analysis(mute, "a.fits", 10.0) for _ in range(5)] == [None] * 5
    assert mute.n_asked == 2


def test_no_stars_by_astap_is_final_only_where_we_see_none_either(request_, sky):
    """With the header's scale wrong ASTAP's least size of a star is wrong too."""
    astap = FakeSolver([failed(Reason.NO_STARS, "Not enough stars.")])
    assert len(solve_frame(request_, astap=astap, embedded=None).attempts) == 8
    starless = sky.request(sky.detections(sky.wcs(), n_stars=2, n_false=0))
    frame = solve_frame(starless, astap=astap, embedded=CatalogueSolver())
    assert rungs(frame) == ["1 hinted", "7 embedded"]
    assert frame.reason == "no_stars"


def test_a_crash_on_a_frame_without_stars_is_a_lack_of_stars(request_, sky):
    """ASTAP 2022 on float zeros: exit code 0 and no result file (PLATE_SOLVING section 1)."""
    crash = failed(Reason.CRASHED, "exit code 0 and no result file")
    nothing = sky.request(sky.detections(sky.wcs(), n_stars=0, n_false=0))
    frame = solve_frame(nothing, astap=FakeSolver([crash]), embedded=None)
    assert (frame.status, frame.reason) == (SolveStatus.FAILED, "no_stars")
    assert "exit code 0 and no result file" in frame.message
    assert solve_frame(request_, astap=FakeSolver([crash]), embedded=None).reason == "crashed"


def test_a_good_solution_of_the_header_is_believed_and_a_wrong_one_is_not(request_, truth):
    brought = replace(request_, header={"CTYPE1": "RA---TAN"})
    astap = FakeSolver([solved(truth)])
    header = FakeSolver([solved(truth, n_quads=None)], name="header")
    frame = solve_frame(brought, astap=astap, embedded=None, header=header)
    assert (frame.status, rungs(frame), frame.message) == (SolveStatus.SOLVED, ["0 header"], "")
    wrong = replace(solved(truth), solution=solution_of(truth, dec_deg=40.02), n_quads=None)
    frame = solve_frame(brought, astap=astap, embedded=None, header=FakeSolver([wrong]))
    assert rungs(frame) == ["0 header", "1 hinted"]
    assert frame.attempts[0].outcome == "rejected:stars"
    unsaid = replace(request_, header={"OBJECT": "SV Wom"})
    assert rungs(solve_frame(unsaid, astap=astap, embedded=None, header=header)) == ["1 hinted"]


def test_solve_field_is_asked_after_the_embedded_solver_and_said(request_, truth):
    astap = FakeSolver([failed(Reason.NO_DATABASE, "No star database found.")])
    embedded = FakeSolver([failed(Reason.NO_MATCH)], name="catalogue")
    field = FakeSolver([solved(truth, n_quads=None)], name="solve-field")
    frame = solve_frame(request_, astap=astap, embedded=embedded, solve_field=field)
    assert rungs(frame) == ["1 hinted", "7 embedded", "7 any scale", "7 solve-field"]
    assert frame.solver == "solve-field"
    assert frame.message == "ASTAP: No star database found: solved by solve-field"
    lost = replace(request_, ra_deg=None, dec_deg=None)
    frame = solve_frame(lost, astap=None, embedded=None, solve_field=field)
    assert rungs(frame) == ["7 solve-field"]


@pytest.mark.parametrize(("ra_deg", "climbed"), [(6.7, True), (24.1, False), (0.0, False)])
def test_a_small_right_ascension_is_tried_as_hours_too(request_, ra_deg, climbed):
    astap = FakeSolver([failed(Reason.NO_MATCH)])
    embedded = FakeSolver([failed(Reason.NO_MATCH)], name="catalogue")
    hinted = replace(request_, ra_deg=ra_deg)
    names = rungs(solve_frame(hinted, astap=astap, embedded=embedded))
    assert ("2 RA in hours" in names) is climbed
    assert ("7 RA in hours" in names) is climbed
    for solver in (astap, embedded):
        assert (15 * ra_deg in solver.asked_at_ra_deg) is (climbed or ra_deg == 0)


def test_a_solution_far_from_the_header_is_judged_by_the_stars_where_it_is(sky, truth, request_):
    """The request's table is that of the wrong place; the source knows every place."""
    misled = replace(request_, ra_deg=6.667, star_table=replace_table(sky.table, dec_deg=-40.0))

    def around(ra_deg, dec_deg, radius_deg, *, max_stars=None):
        assert (ra_deg, dec_deg) == (pytest.approx(100.0), pytest.approx(40.0))
        return sky.table

    unsupported = solved(truth, n_quads=2)
    frame = solve_frame(misled, astap=FakeSolver([unsupported]), embedded=None)
    assert frame.reason == "rejected:stars"
    frame = solve_frame(misled, astap=FakeSolver([unsupported]), embedded=None, stars=around)
    assert frame.status is SolveStatus.SOLVED
    assert frame.n_matched > 0.5 * frame.n_expected


def replace_table(table, *, dec_deg):
    return replace(table, dec_deg=np.full(len(table), dec_deg))


def test_an_accepted_solution_is_fitted_to_the_stars(sky, truth, request_):
    """ASTAP's is good to some tenths of a pixel; here it is one pixel off."""
    near = replace(solved(truth), solution=solution_of(truth, crpix_x=451.3, crpix_y=350.9))
    frame = solve_frame(request_, astap=FakeSolver([near]), embedded=None)
    assert sky.worst_error_px(near.solution, truth) > 0.8
    assert sky.worst_error_px(frame.solution, truth) < 0.3


def test_a_narrow_solution_five_pixels_off_is_not_healed_but_rejected(truth, request_):
    """The 27 arcsec of the false solution were five pixels of that telescope."""
    wrong = replace(solved(truth), solution=solution_of(truth, crpix_x=450.5 + 5.3))
    frame = solve_frame(request_, astap=FakeSolver([wrong]), embedded=None)
    assert frame.reason == "rejected:stars"


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


def test_without_astap_a_wrong_scale_is_caught_by_the_embedded_solver_too(sky, request_, truth):
    frame = solve_frame(
        replace(request_, scale_arcsec_px=2.3), astap=None, embedded=CatalogueSolver()
    )
    assert (frame.status, rungs(frame)[-1]) == (SolveStatus.SOLVED, "7 any scale")
    assert "header 2.300 (-13 %)" in frame.message
    assert sky.worst_error_px(frame.solution, truth) < 0.3


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
