"""The ladder: which attempts a frame gets, in which order, and what is believed of the answers.

PLATE_SOLVING.md section 3. One rung is one row of `RUNGS`; each attempt is recorded; the first
*accepted* solution ends the climb. A program that failed for a reason no retry can cure is not
asked again; the other solvers still get their turn. One that ran out of time is asked again only
with more of it, so at most twice a frame; after `MAX_FRAMES_TIMED_OUT` frames in a row of nothing
else it is left alone for the rest of the observation (`Patience`).
"""

import datetime as dt
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import numpy as np

from wombat_dagster.domain import (
    Detections,
    FloatArray,
    FrameSolution,
    SolveAttempt,
    SolveStatus,
    StarTable,
    WcsSolution,
)
from wombat_dagster.solvers.astap import Analysis, Astap
from wombat_dagster.solvers.base import (
    Reason,
    Reference,
    RungOptions,
    SolveOutcome,
    Solver,
    SolveRequest,
)
from wombat_dagster.solvers.fitting import MIN_MATCHED, agreement, is_supported, refine
from wombat_dagster.solvers.propagate import Propagator
from wombat_dagster.solvers.star_database import StarSource
from wombat_dagster.tangent import project

log = logging.getLogger(__name__)

MAX_SHAPE_ERROR = 0.01  # of square pixels and of right angles
MIN_QUADS = 5
ROTATION_TOLERANCE_DEG = 1.0
VERIFY_RADIUS_PX = 4.0

BLIND_RADIUS_DEG = 180.0
BLIND_TIMEOUT_S = 300.0
SOLVE_FIELD_TIMEOUT_S = 10.0  # near a right position a second does; on a wrong one it never ends
MIN_MAX_STARS = 20  # ASTAP needs so many to make quads of
MOST_MAX_STARS = 1000
DEFAULT_MAX_STARS = 300  # without a star table to count in: solves the test frames as 500 does

VERIFY_STARS = 600  # of the circle around a frame
EDGE_FACTOR = 1.05
REFITTED_FOV_DEG = 6.0  # frames higher than that need not be right before they are fitted
GUESSED_SCALE_TOLERANCE = 0.25  # to which solve-field opens a scale: any would take half a minute
MAX_FRAMES_TIMED_OUT = 2  # in a row: a program that hangs would cost its time limit every frame
HOURS_OF_RA = 24.0  # a bare number below may be hours that somebody took for degrees

INCURABLE = frozenset({Reason.NO_DATABASE, Reason.BAD_FILE, Reason.CRASHED})
"""Reasons that the next rung of the same program would only meet again.

Not a time-out, where the next rung has more time; nor a lack of stars, where we see some.
"""


class Kind(StrEnum):
    """Who climbs a rung."""

    HEADER = "header"
    ASTAP = "astap"
    EMBEDDED = "embedded"
    SOLVE_FIELD = "solve-field"
    PROPAGATE = "propagate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """One kind of attempt. `fov_deg` None: the header's, 0: all; `radius_deg` None: request's."""

    name: str
    kind: Kind
    fov_deg: float | None = None
    radius_deg: float | None = None
    count_stars: bool = False  # -s from the star table
    max_stars: int | None = None
    tolerance: float | None = None
    any_scale: bool = False  # the field of view is searched, so the header's scale is not binding
    in_hours: bool = False  # the header's right ascension, a number, was hours and not degrees
    blind: bool = False
    timeout_s: float | None = None


RUNGS = (
    Rung(name="0 header", kind=Kind.HEADER, any_scale=True),
    Rung(name="1 hinted", kind=Kind.ASTAP),
    Rung(name="2 star count", kind=Kind.ASTAP, count_stars=True),
    Rung(name="2 tolerance", kind=Kind.ASTAP, count_stars=True, tolerance=0.01),
    Rung(name="2 RA in hours", kind=Kind.ASTAP, in_hours=True),
    Rung(name="3 any field", kind=Kind.ASTAP, fov_deg=0.0, radius_deg=10.0, any_scale=True),
    Rung(
        name="3 few stars",  # for a catalogue that is shallower than the frame
        kind=Kind.ASTAP,
        fov_deg=0.0,
        radius_deg=10.0,
        max_stars=50,
        any_scale=True,
    ),
    Rung(name="4 fov 10", kind=Kind.ASTAP, fov_deg=10.0, any_scale=True),
    Rung(name="5 fov 30", kind=Kind.ASTAP, fov_deg=30.0, any_scale=True),
    Rung(name="6 radius 30", kind=Kind.ASTAP, radius_deg=30.0),
    Rung(name="7 embedded", kind=Kind.EMBEDDED),
    Rung(name="7 RA in hours", kind=Kind.EMBEDDED, in_hours=True),
    Rung(name="7 any scale", kind=Kind.EMBEDDED, fov_deg=0.0, any_scale=True),
    Rung(name="7 solve-field", kind=Kind.SOLVE_FIELD, timeout_s=SOLVE_FIELD_TIMEOUT_S),
    Rung(
        name="7 solve-field, scale",
        kind=Kind.SOLVE_FIELD,
        any_scale=True,
        timeout_s=2 * SOLVE_FIELD_TIMEOUT_S,
    ),
    Rung(
        name="8 blind",
        kind=Kind.ASTAP,
        radius_deg=BLIND_RADIUS_DEG,
        blind=True,
        timeout_s=BLIND_TIMEOUT_S,
    ),
    Rung(name="9 propagated", kind=Kind.PROPAGATE),
)


class Patience:
    """Which programs are still asked about the frames of one observation.

    One that did nothing but run out of time on `MAX_FRAMES_TIMED_OUT` frames in a row is not; an
    answer of whatever kind sets the count back.
    """

    def __init__(self) -> None:
        self._n_timed_out: Counter[Kind] = Counter()
        self._n_without_analysis = 0

    def asks(self, kind: Kind) -> bool:
        """Tell whether a program may have its turn."""
        return self._n_timed_out[kind] < MAX_FRAMES_TIMED_OUT

    def learn(self, answers: Sequence[tuple[Kind, SolveOutcome]]) -> None:
        """Take note of all that was answered about a frame."""
        for kind in {kind for kind, _ in answers}:
            is_in_vain = all(o.reason is Reason.TIMEOUT for k, o in answers if k is kind)
            self._n_timed_out[kind] = self._n_timed_out[kind] + 1 if is_in_vain else 0

    def analysis(self, astap: Astap, image: Path, snr_min: float) -> Analysis | None:
        """Return ASTAP's verdict on a frame; None when it fails, or is not asked any more."""
        if not self.asks(Kind.ASTAP) or self._n_without_analysis >= MAX_FRAMES_TIMED_OUT:
            return None
        found = astap.analyse(image, snr_min)
        self._n_without_analysis = self._n_without_analysis + 1 if found is None else 0
        return found


def solve_frame(
    request: SolveRequest,
    *,
    astap: Solver | None,
    embedded: Solver | None,
    solve_field: Solver | None = None,
    header: Solver | None = None,
    propagator: Solver | None = None,
    stars: StarSource | None = None,
    blind: bool = False,
    rotation_tolerance_deg: float = ROTATION_TOLERANCE_DEG,
    patience: Patience | None = None,
) -> FrameSolution:
    """Climb the ladder with one frame and return everything known of its solution.

    A solver that is None is not there; without `astap` the message says who did it instead.
    `header` looks at the solution that the frame brought along. `stars` says which stars there
    are wherever a solution puts the frame; without it the request's table must testify. `blind`
    searches the whole sky when all else failed; it is switched on by itself when nothing says
    where the frame points. `propagator` defaults to the one of this package; it and the checks of
    parity and rotation need `request.reference`. `patience` is that of the frame's observation.
    """
    solvers: dict[Kind, Solver | None] = {
        Kind.HEADER: header,
        Kind.ASTAP: astap,
        Kind.EMBEDDED: embedded,
        Kind.SOLVE_FIELD: solve_field,
        Kind.PROPAGATE: propagator or Propagator(),
    }
    patience = patience or Patience()
    climb = _climb(
        request,
        solvers,
        stars,
        blind=blind,
        rotation_tolerance_deg=rotation_tolerance_deg,
        patience=patience,
    )
    tries = list(climb)
    patience.learn([(one.rung.kind, one.outcome) for one in tries])
    return _frame_solution(request, tries, _remark(astap, tries))


def propagate_frame(
    request: SolveRequest,
    reference: Reference,
    *,
    propagator: Solver | None = None,
    rotation_tolerance_deg: float = ROTATION_TOLERANCE_DEG,
) -> FrameSolution:
    """Carry the solution of `reference` over to a frame, with the ladder's checks.

    FAILED or REJECTED mean: climb the ladder with this frame.
    """
    asked = replace(request, reference=reference)
    solver = propagator or Propagator()
    rung = RUNGS[-1]
    one = _attempt(asked, rung, solver, RungOptions(), None, rotation_tolerance_deg)
    return _frame_solution(asked, [one], "")


def check_solution(
    solution: WcsSolution,
    *,
    scale_arcsec_px: float | None,
    scale_tolerance: float,
    n_quads: int | None = None,
    n_matched: int | None = None,
    n_expected: int | None = None,
    rms_px: float | None = None,
    parity: int | None = None,
    rotation_deg: float | None = None,
    rotation_tolerance_deg: float = ROTATION_TOLERANCE_DEG,
) -> str | None:
    """Return None for a believable solution, else ``rejected:<check>``.

    Parameters
    ----------
    scale_arcsec_px, scale_tolerance
        What the header says and how far, relatively, it may be off; None: any scale will do.
    n_quads
        Star patterns that ASTAP matched.
    n_matched, n_expected, rms_px
        Bright table stars found of those expected on the image. They decide when enough are
        expected; the quads only when no star table can testify.
    parity, rotation_deg
        Of the night's solved frame nearest in time; None when there is none. A rotation counts
        modulo 180 degrees (meridian flip).
    """
    found = [
        (
            "scale",
            scale_arcsec_px is None or _scale_fits(solution, scale_arcsec_px, scale_tolerance),
        ),
        ("shape", _is_square(solution)),
        ("parity", parity is None or solution.parity == parity),
        ("stars", _is_supported(n_quads, n_matched, n_expected, rms_px)),
        (
            "rotation",
            rotation_deg is None
            or _turn_modulo_180(solution.rotation_deg - rotation_deg) <= rotation_tolerance_deg,
        ),
    ]
    return next((f"rejected:{check}" for check, passed in found if not passed), None)


def first_good_frame(detections: Sequence[Detections]) -> int | None:
    """Return which frame to solve in full: the first, in time, that is as good as most.

    Good: at least 70 % of the night's usual bright star count (90th percentile), and no wider nor
    more trailed than its worst third. None when no frame has stars.
    """
    counts = np.array([len(stars) for stars in detections])
    if not len(counts) or counts.max() == 0:
        return None
    fwhm_px = np.array([_median(stars.fwhm_px) for stars in detections])
    axis_ratio = np.array([_median(stars.axis_ratio) for stars in detections])
    seen = counts > 0
    good = (
        (counts >= 0.7 * np.percentile(counts, 90))
        & (fwhm_px <= np.percentile(fwhm_px[seen], 67) + 1e-9)
        & (axis_ratio >= np.percentile(axis_ratio[seen], 33) - 1e-9)
    )
    return int(np.argmax(good)) if good.any() else int(np.argmax(counts))


def with_analysis(
    solved: FrameSolution, analysis: Analysis | None, snr_min: float
) -> FrameSolution:
    """Return `solved` with ASTAP's half-flux diameter and star count, unchanged without any."""
    if analysis is None or analysis.hfd_median_px is None:
        return solved
    return replace(
        solved,
        hfd_median_px=analysis.hfd_median_px,
        hfd_source=f"astap -analyse {snr_min:g}",
        n_stars=analysis.n_stars,
    )


# ------------------------------------------------------------------------------------- the climb


@dataclass(frozen=True, slots=True, kw_only=True)
class _Try:
    """One attempt with the solver's full answer and the verdict on it (None: accepted)."""

    rung: Rung
    options: RungOptions
    outcome: SolveOutcome
    rejected: str | None
    why: str  # the numbers behind `rejected`, or a flag

    @property
    def accepted(self) -> bool:
        return self.outcome.solution is not None and self.rejected is None

    @property
    def word(self) -> str:
        if self.accepted:
            return "solved"
        return self.rejected or str(self.outcome.reason or Reason.NO_MATCH)


def _climb(
    request: SolveRequest,
    solvers: dict[Kind, Solver | None],
    stars: StarSource | None,
    *,
    blind: bool,
    rotation_tolerance_deg: float,
    patience: Patience,
) -> Iterator[_Try]:
    """Yield the attempts, the accepted one last."""
    given_up: dict[Kind, float] = {}  # since which time-out; infinite: for good
    done: set[tuple[Kind, RungOptions, float | None, float]] = set()
    for rung in RUNGS:
        solver = solvers[rung.kind]
        if solver is None or not _applies(rung, request, blind=blind):
            continue
        options = _options(rung, request, stars)
        if (options.timeout_s or request.timeout_s) <= given_up.get(rung.kind, 0.0):
            continue
        if not patience.asks(rung.kind):
            given_up[rung.kind] = np.inf
            yield _not_asked(rung, solver, options)
            continue
        asked = _hinted(rung, request)
        question = (rung.kind, options, asked.ra_deg, asked.scale_tolerance)
        if question in done:  # without a scale in the header several rungs are one
            continue
        done.add(question)
        one = _attempt(request, rung, solver, options, stars, rotation_tolerance_deg)
        log.debug("%s: rung %s: %s", request.file, rung.name, one.word)
        yield one
        if one.accepted:
            return
        if _is_final(rung, request, one.outcome):
            given_up[rung.kind] = np.inf
        elif one.outcome.reason is Reason.TIMEOUT:
            given_up[rung.kind] = options.timeout_s or request.timeout_s


def _not_asked(rung: Rung, solver: Solver, options: RungOptions) -> _Try:
    """Return what stands for all attempts of a program that has lost our patience."""
    outcome = SolveOutcome(
        solver=solver.name,
        solver_version=solver.version,
        reason=Reason.TIMEOUT,
        message=f"not asked: on {MAX_FRAMES_TIMED_OUT} frames before it only ran out of time",
    )
    return _Try(rung=rung, options=options, outcome=outcome, rejected=None, why="")


def _is_final(rung: Rung, request: SolveRequest, outcome: SolveOutcome) -> bool:
    """Whether the solver would say the same on every other rung."""
    if outcome.solution is not None:
        return False
    if outcome.reason is Reason.NO_STARS:
        return rung.kind is not Kind.ASTAP or len(request.detections) < MIN_MATCHED
    if outcome.reason is Reason.NO_DATABASE and rung.kind is Kind.EMBEDDED:
        return False  # too few stars here, or for this scale
    return outcome.reason in INCURABLE


def _applies(rung: Rung, request: SolveRequest, *, blind: bool) -> bool:
    if rung.in_hours:
        return request.has_position and 0.0 < (request.ra_deg or 0.0) < HOURS_OF_RA
    if rung.blind:
        return blind or not request.has_position
    if rung.kind is Kind.HEADER:
        return request.header is not None and "CTYPE1" in request.header
    if rung.kind is Kind.PROPAGATE:
        return request.reference is not None
    return rung.kind is not Kind.ASTAP or request.has_position


def _hinted(rung: Rung, request: SolveRequest) -> SolveRequest:
    """Return the request as a rung reads it: RA in hours, or a scale that is but a guess."""
    if rung.in_hours and request.ra_deg is not None:  # and no stars of the wrong place
        return replace(request, ra_deg=15.0 * request.ra_deg, star_table=None)
    if rung.kind is Kind.SOLVE_FIELD and rung.any_scale and request.scale_arcsec_px is not None:
        return replace(request, scale_tolerance=GUESSED_SCALE_TOLERANCE)
    return request


def _options(rung: Rung, request: SolveRequest, stars: StarSource | None) -> RungOptions:
    fov_deg = (request.fov_deg or 0.0) if rung.fov_deg is None else rung.fov_deg
    return RungOptions(
        fov_deg=fov_deg,
        radius_deg=request.radius_deg if rung.radius_deg is None else rung.radius_deg,
        max_stars=_stars_on_image(request, stars) if rung.count_stars else rung.max_stars,
        tolerance=rung.tolerance,
        timeout_s=rung.timeout_s if rung.blind or request.has_position else None,
    )


def _stars_on_image(request: SolveRequest, stars: StarSource | None) -> int:
    """Return how many stars are known on an area like the image's where the header points."""
    table, scale = request.star_table, request.scale_arcsec_px
    if scale is None or request.ra_deg is None or request.dec_deg is None:
        return DEFAULT_MAX_STARS
    radius_px = np.sqrt(request.width_px * request.height_px / np.pi)
    radius_deg = float(np.degrees(np.arctan(radius_px * np.radians(scale / 3600.0))))
    if table is None:
        table = _known_stars(
            stars, request.ra_deg, request.dec_deg, radius_deg, max_stars=MOST_MAX_STARS
        )
        return DEFAULT_MAX_STARS if table is None else max(MIN_MAX_STARS, len(table))
    xi, eta = project(table.ra_deg, table.dec_deg, ra0_deg=request.ra_deg, dec0_deg=request.dec_deg)
    with np.errstate(invalid="ignore"):  # NaN: other side of the sky
        near = np.hypot(xi, eta) <= np.degrees(np.tan(np.radians(radius_deg)))
    return min(MOST_MAX_STARS, max(MIN_MAX_STARS, int(np.sum(near))))


def _attempt(
    request: SolveRequest,
    rung: Rung,
    solver: Solver,
    options: RungOptions,
    stars: StarSource | None,
    rotation_tolerance_deg: float,
) -> _Try:
    outcome = solver.solve(_hinted(rung, request), options)
    if outcome.reason is Reason.CRASHED and not len(request.detections):
        # ASTAP 2022 divides by zero where there is nothing to see, and leaves with exit code 0.
        message = f"no stars detected; {solver.name}: {outcome.message}"
        outcome = replace(outcome, reason=Reason.NO_STARS, message=message)
    outcome = _testified(outcome, request, stars)
    rejected = None
    if outcome.solution is not None:
        reference = request.reference.solution if request.reference else None
        rejected = check_solution(
            outcome.solution,
            scale_arcsec_px=None if rung.any_scale else request.scale_arcsec_px,
            scale_tolerance=request.scale_tolerance,
            n_quads=outcome.n_quads,
            n_matched=outcome.n_matched,
            n_expected=outcome.n_expected,
            rms_px=outcome.rms_px,
            parity=reference.parity if reference else None,
            rotation_deg=reference.rotation_deg if reference else None,
            rotation_tolerance_deg=rotation_tolerance_deg,
        )
    why = _numbers(outcome, rejected, request, request.reference)
    if rung.in_hours and outcome.solution is not None and rejected is None:
        hours = f"the header's RA {request.ra_deg:g} is hours, not degrees"
        why = "; ".join(filter(None, (hours, why)))
    return _Try(rung=rung, options=options, outcome=outcome, rejected=rejected, why=why)


def _testified(
    outcome: SolveOutcome, request: SolveRequest, stars: StarSource | None
) -> SolveOutcome:
    """Return the outcome with what the stars say of a solution that brought no count.

    Fitted to them, where it is right already: ASTAP's is good to some tenths of a pixel, and to
    some pixels in the corners of a wide frame, more near a pole.
    """
    solution = outcome.solution
    if solution is None or outcome.n_matched is not None:
        return outcome
    table = _stars_around(solution, request, stars)
    if table is None:
        return outcome
    width_px, height_px = request.width_px, request.height_px
    fit = agreement(
        solution,
        request.detections,
        table,
        width_px=width_px,
        height_px=height_px,
        radius_px=VERIFY_RADIUS_PX,
    )
    if fit.n_expected < MIN_MATCHED:  # table or frame too poor to testify
        return outcome
    height_deg = height_px * solution.scale_arcsec_px / 3600.0
    if is_supported(fit.n_matched, fit.n_expected, fit.rms_px) or height_deg > REFITTED_FOV_DEG:
        better = refine(solution, request.detections, table, width_px=width_px, height_px=height_px)
        if better is not None and better.n_matched >= fit.n_matched:
            fit = better
    matched = bool(np.isfinite(fit.rms_px))
    return replace(
        outcome,
        solution=fit.solution,
        n_matched=fit.n_matched,
        n_expected=fit.n_expected,
        rms_px=fit.rms_px if matched else None,
        rms_arcsec=fit.rms_arcsec if matched else None,
    )


def _stars_around(
    solution: WcsSolution, request: SolveRequest, stars: StarSource | None
) -> StarTable | None:
    """Return the stars where a solution puts the frame, be it far from where the header did."""
    half_px = 0.5 * float(np.hypot(request.width_px, request.height_px))
    half = float(np.arctan(half_px * np.radians(solution.scale_arcsec_px / 3600.0)))
    found = _known_stars(
        stars,
        solution.ra_deg,
        solution.dec_deg,
        EDGE_FACTOR * float(np.degrees(half)),
        max_stars=VERIFY_STARS,
    )
    return request.star_table if found is None else found


def _known_stars(
    stars: StarSource | None, ra_deg: float, dec_deg: float, radius_deg: float, *, max_stars: int
) -> StarTable | None:
    """Return the stars of a circle; None where nobody or no readable database knows them."""
    if stars is None:
        return None
    try:
        return stars(ra_deg, dec_deg, radius_deg, max_stars=max_stars)
    except (OSError, ValueError) as error:
        log.debug("no stars to judge by: %s", error)
        return None


# ------------------------------------------------------------------------------------ the checks


def _scale_fits(solution: WcsSolution, scale_arcsec_px: float, tolerance: float) -> bool:
    return abs(solution.scale_arcsec_px / scale_arcsec_px - 1.0) <= tolerance


def _is_square(solution: WcsSolution) -> bool:
    """Whether pixels are as high as wide and the axes at right angles, both within 1 %."""
    x_scale, y_scale = solution.scale_x_arcsec_px, solution.scale_y_arcsec_px
    if not (x_scale > 0 and y_scale > 0):
        return False
    along = solution.cd11 * solution.cd12 + solution.cd21 * solution.cd22
    cosine = abs(along) * 3600.0**2 / (x_scale * y_scale)
    return abs(x_scale / y_scale - 1.0) < MAX_SHAPE_ERROR and cosine < MAX_SHAPE_ERROR


def _is_supported(
    n_quads: int | None, n_matched: int | None, n_expected: int | None, rms_px: float | None
) -> bool:
    """Whether stars of the table, or failing those the quads, support a solution."""
    if n_matched is not None and n_expected is not None and n_expected >= MIN_MATCHED:
        return rms_px is not None and is_supported(n_matched, n_expected, rms_px)
    return n_quads is not None and n_quads >= MIN_QUADS


def _turn_modulo_180(angle_deg: float) -> float:
    return abs((angle_deg + 90.0) % 180.0 - 90.0)


# ----------------------------------------------------------------------------------- the record


def _frame_solution(request: SolveRequest, tries: Sequence[_Try], remark: str) -> FrameSolution:
    stars = request.detections
    common = FrameSolution(
        file=request.file,
        status=SolveStatus.FAILED,
        solution=None,
        reason=str(Reason.NO_DATABASE),
        message=remark,
        attempts=tuple(_recorded(one) for one in tries),
        ra_hint_deg=request.ra_deg,
        dec_hint_deg=request.dec_deg,
        scale_header_arcsec_px=request.scale_arcsec_px,
        n_stars=len(stars),
        hfd_median_px=_known(_median(stars.fwhm_px)),
        hfd_source="detections" if len(stars) else None,  # a Gaussian's HFD is its FWHM
        fwhm_median_px=_known(_median(stars.fwhm_px)),
        axis_ratio_median=_known(_median(stars.axis_ratio)),
        sky_adu=_known(stars.sky_adu),
        seconds=sum(one.outcome.seconds or 0.0 for one in tries),
        solved_at_utc=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    )
    if not tries:
        return common
    told = _telling(tries)
    outcome = told.outcome
    return replace(
        common,
        status=_status(told),
        solution=outcome.solution if told.accepted else None,
        reason=None if told.accepted else told.word,
        message="; ".join(filter(None, (remark, told.why, outcome.message))),
        solver=outcome.solver,
        solver_version=outcome.solver_version,
        database=outcome.database,
        command=outcome.command,
        exit_code=outcome.exit_code,
        fov_tried_deg=told.options.fov_deg if told.rung.kind is Kind.ASTAP else None,
        n_stars=outcome.n_stars if outcome.n_stars is not None else len(stars),
        n_quads=outcome.n_quads,
        n_matched=outcome.n_matched,
        n_expected=outcome.n_expected,
        rms_arcsec=outcome.rms_arcsec,
        rms_px=outcome.rms_px,
        reference_file=outcome.reference_file,
    )


def _telling(tries: Sequence[_Try]) -> _Try:
    """Return the attempt that the row is about.

    The accepted one; else the last that had a solution; else the last that looked at stars and
    found no match, before one that lacked a database to look into.
    """

    def weight(one: _Try) -> int:
        if one.accepted:
            return 3
        if one.rejected:
            return 2
        return 0 if one.outcome.reason is Reason.NO_DATABASE else 1

    return max(enumerate(tries), key=lambda item: (weight(item[1]), item[0]))[1]


def _status(told: _Try) -> SolveStatus:
    if told.accepted:
        propagated = told.rung.kind is Kind.PROPAGATE
        return SolveStatus.PROPAGATED if propagated else SolveStatus.SOLVED
    return SolveStatus.REJECTED if told.rejected else SolveStatus.FAILED


def _recorded(one: _Try) -> SolveAttempt:
    from_astap = one.rung.kind is Kind.ASTAP
    return SolveAttempt(
        rung=one.rung.name,
        solver=one.outcome.solver,
        outcome=one.word,
        fov_deg=one.options.fov_deg if from_astap else None,
        radius_deg=one.options.radius_deg if from_astap else None,
        max_stars=one.options.max_stars,
        seconds=one.outcome.seconds,
        message="; ".join(filter(None, (one.why, one.outcome.message))),
    )


def _remark(astap: Solver | None, tries: Sequence[_Try]) -> str:
    """Return why another solver than ASTAP had to do it, "" when ASTAP did or nobody could."""
    of_astap = [one for one in tries if one.rung.kind is Kind.ASTAP]
    last_kind = tries[-1].rung.kind if tries else None
    if last_kind is Kind.HEADER and tries[-1].accepted:
        return ""
    if astap is None:
        why = "ASTAP not found"
    elif of_astap and not of_astap[-1].accepted:
        last = of_astap[-1]
        why = f"ASTAP: {(last.outcome.message or last.word).rstrip('. ')}"
    else:
        return ""
    if last_kind is not None and tries[-1].accepted:
        how = {
            Kind.EMBEDDED: "solved by the embedded catalogue solver",
            Kind.SOLVE_FIELD: "solved by solve-field",
            Kind.PROPAGATE: "propagated from a solved frame",
        }
        return f"{why}: {how.get(last_kind, 'solved')}"
    return why if astap is None else ""


def _numbers(
    outcome: SolveOutcome, rejected: str | None, request: SolveRequest, reference: Reference | None
) -> str:
    """Return the numbers behind a rejection, or the flag of a scale that is not the header's.

    Rungs 3 to 5 accept any scale, and say so.
    """
    solution, header = outcome.solution, request.scale_arcsec_px
    if solution is None:
        return ""
    check = (rejected or "").removeprefix("rejected:")
    if check == "shape":
        x_scale, y_scale = solution.scale_x_arcsec_px, solution.scale_y_arcsec_px
        return f'pixels of {x_scale:.3f}" x {y_scale:.3f}", or axes not at right angles'
    if check == "stars":
        if outcome.n_expected is None:
            return f"{outcome.n_quads or 0} quads matched, {MIN_QUADS} wanted"
        rms = f" with rms {outcome.rms_px:.1f} px" if outcome.rms_px is not None else ""
        return f"{outcome.n_matched} of {outcome.n_expected} expected stars found{rms}"
    if check in ("rotation", "parity") and reference is not None:
        here, there = solution, reference.solution
        return (
            f"rotation {here.rotation_deg:.2f} deg parity {here.parity:+d}, "
            f"{there.rotation_deg:.2f} deg {there.parity:+d} on {reference.file}"
        )
    if header is None or _scale_fits(solution, header, request.scale_tolerance):
        return ""
    percent = 100.0 * (solution.scale_arcsec_px / header - 1.0)
    return f'scale {solution.scale_arcsec_px:.3f}"/px, header {header:.3f} ({percent:+.0f} %)'


def _median(values: FloatArray) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else float("nan")


def _known(value: float) -> float | None:
    return value if np.isfinite(value) else None
