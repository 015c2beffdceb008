"""The ladder: which attempts a frame gets, in which order, and what is believed of the answers.

PLATE_SOLVING.md section 3. One rung is one row of `RUNGS`; each attempt is recorded; the first
*accepted* solution ends the climb. A rung of a program that failed for a reason no retry can cure
is skipped, the embedded solver and the propagation still get their turn.
"""

import datetime as dt
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

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
from wombat_dagster.solvers.astap import Analysis
from wombat_dagster.solvers.base import (
    Reason,
    Reference,
    RungOptions,
    SolveOutcome,
    Solver,
    SolveRequest,
)
from wombat_dagster.solvers.fitting import MIN_MATCHED, agreement, is_supported
from wombat_dagster.solvers.propagate import Propagator
from wombat_dagster.tangent import project

log = logging.getLogger(__name__)

MAX_SHAPE_ERROR = 0.01  # of square pixels and of right angles
MIN_QUADS = 5
ROTATION_TOLERANCE_DEG = 1.0
VERIFY_RADIUS_PX = 4.0

BLIND_RADIUS_DEG = 180.0
BLIND_TIMEOUT_S = 300.0
MIN_MAX_STARS = 20  # ASTAP needs so many to make quads of
DEFAULT_MAX_STARS = 300  # without a star table to count in: solves the test frames as 500 does

INCURABLE = frozenset(
    {Reason.NO_DATABASE, Reason.BAD_FILE, Reason.NO_STARS, Reason.CRASHED, Reason.TIMEOUT}
)
"""Reasons that the next rung of the same program would only meet again."""


class Kind(StrEnum):
    """Who climbs a rung."""

    ASTAP = "astap"
    EMBEDDED = "embedded"
    PROPAGATE = "propagate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """One kind of attempt. `fov_deg` None: the header's, 0: all; `radius_deg` None: request's."""

    name: str
    kind: Kind
    fov_deg: float | None = None
    radius_deg: float | None = None
    count_stars: bool = False  # -s from the star table
    tolerance: float | None = None
    any_scale: bool = False  # the field of view is searched, so the header's scale is not binding
    blind: bool = False
    timeout_s: float | None = None


RUNGS = (
    Rung(name="1 hinted", kind=Kind.ASTAP),
    Rung(name="2 star count", kind=Kind.ASTAP, count_stars=True),
    Rung(name="2 tolerance", kind=Kind.ASTAP, count_stars=True, tolerance=0.01),
    Rung(name="3 any field", kind=Kind.ASTAP, fov_deg=0.0, radius_deg=10.0, any_scale=True),
    Rung(name="4 fov 10", kind=Kind.ASTAP, fov_deg=10.0, any_scale=True),
    Rung(name="5 fov 30", kind=Kind.ASTAP, fov_deg=30.0, any_scale=True),
    Rung(name="6 radius 30", kind=Kind.ASTAP, radius_deg=30.0),
    Rung(name="7 embedded", kind=Kind.EMBEDDED),
    Rung(
        name="8 blind",
        kind=Kind.ASTAP,
        radius_deg=BLIND_RADIUS_DEG,
        blind=True,
        timeout_s=BLIND_TIMEOUT_S,
    ),
    Rung(name="9 propagated", kind=Kind.PROPAGATE),
)


def solve_frame(
    request: SolveRequest,
    *,
    astap: Solver | None,
    embedded: Solver | None,
    propagator: Solver | None = None,
    blind: bool = False,
    rotation_tolerance_deg: float = ROTATION_TOLERANCE_DEG,
) -> FrameSolution:
    """Climb the ladder with one frame and return everything known of its solution.

    `astap` None: not found; the embedded solver then does it and the message says so. `blind`
    searches the whole sky when all else failed; it is switched on by itself when nothing says
    where the frame points. `propagator` defaults to the one of this package; it and the checks of
    parity and rotation need `request.reference`.
    """
    solvers: dict[Kind, Solver | None] = {
        Kind.ASTAP: astap,
        Kind.EMBEDDED: embedded,
        Kind.PROPAGATE: propagator or Propagator(),
    }
    climb = _climb(request, solvers, blind=blind, rotation_tolerance_deg=rotation_tolerance_deg)
    tries = list(climb)
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
    one = _attempt(asked, rung, solver, RungOptions(), rotation_tolerance_deg)
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
    *,
    blind: bool,
    rotation_tolerance_deg: float,
) -> Iterator[_Try]:
    """Yield the attempts, the accepted one last."""
    given_up: set[Kind] = set()
    done: set[tuple[Kind, RungOptions]] = set()
    for rung in RUNGS:
        solver = solvers[rung.kind]
        if solver is None or rung.kind in given_up or not _applies(rung, request, blind=blind):
            continue
        options = _options(rung, request)
        if (rung.kind, options) in done:  # no scale in the header: rung 1 was rung 3 already
            continue
        done.add((rung.kind, options))
        one = _attempt(request, rung, solver, options, rotation_tolerance_deg)
        log.debug("%s: rung %s: %s", request.file, rung.name, one.word)
        yield one
        if one.accepted:
            return
        if one.outcome.solution is None and one.outcome.reason in INCURABLE:
            given_up.add(rung.kind)


def _applies(rung: Rung, request: SolveRequest, *, blind: bool) -> bool:
    if rung.blind:
        return blind or not request.has_position
    if rung.kind is Kind.PROPAGATE:
        return request.reference is not None
    return rung.kind is Kind.EMBEDDED or request.has_position


def _options(rung: Rung, request: SolveRequest) -> RungOptions:
    fov_deg = (request.fov_deg or 0.0) if rung.fov_deg is None else rung.fov_deg
    return RungOptions(
        fov_deg=fov_deg,
        radius_deg=request.radius_deg if rung.radius_deg is None else rung.radius_deg,
        max_stars=_stars_on_image(request) if rung.count_stars else None,
        tolerance=rung.tolerance,
        timeout_s=rung.timeout_s,
    )


def _stars_on_image(request: SolveRequest) -> int:
    """Return how many stars of the table an image of this size holds where the header points."""
    table, scale = request.star_table, request.scale_arcsec_px
    if table is None or scale is None or request.ra_deg is None or request.dec_deg is None:
        return DEFAULT_MAX_STARS
    xi, eta = project(table.ra_deg, table.dec_deg, ra0_deg=request.ra_deg, dec0_deg=request.dec_deg)
    radius_deg = np.sqrt(request.width_px * request.height_px / np.pi) * scale / 3600.0
    with np.errstate(invalid="ignore"):  # NaN: other side of the sky
        return max(MIN_MAX_STARS, int(np.sum(np.hypot(xi, eta) <= radius_deg)))


def _attempt(
    request: SolveRequest,
    rung: Rung,
    solver: Solver,
    options: RungOptions,
    rotation_tolerance_deg: float,
) -> _Try:
    outcome = _testified(solver.solve(request, options), request)
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
    return _Try(rung=rung, options=options, outcome=outcome, rejected=rejected, why=why)


def _testified(outcome: SolveOutcome, request: SolveRequest) -> SolveOutcome:
    """Return the outcome with what the star table says of a solution that brought no count."""
    table: StarTable | None = request.star_table
    if outcome.solution is None or outcome.n_matched is not None or table is None:
        return outcome
    fit = agreement(
        outcome.solution,
        request.detections,
        table,
        width_px=request.width_px,
        height_px=request.height_px,
        radius_px=VERIFY_RADIUS_PX,
    )
    if fit.n_expected < MIN_MATCHED:  # table or frame too poor to testify
        return outcome
    matched = bool(np.isfinite(fit.rms_px))
    return replace(
        outcome,
        n_matched=fit.n_matched,
        n_expected=fit.n_expected,
        rms_px=fit.rms_px if matched else None,
        rms_arcsec=fit.rms_arcsec if matched else None,
    )


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
    if astap is None:
        why = "ASTAP not found"
    elif of_astap and not of_astap[-1].accepted:
        last = of_astap[-1]
        why = f"ASTAP: {(last.outcome.message or last.word).rstrip('. ')}"
    else:
        return ""
    if tries and tries[-1].accepted:
        how: dict[Kind, str] = {
            Kind.EMBEDDED: "solved by the embedded catalogue solver",
            Kind.PROPAGATE: "propagated from a solved frame",
        }
        return f"{why}: {how.get(tries[-1].rung.kind, 'solved')}"
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
