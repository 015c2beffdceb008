"""The embedded solver: detected stars against a star table, without any external program.

Needs a position within about half a frame and, unless told otherwise, a scale within some per
cent; any rotation, both parities. All sky it does not search.
"""

import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wombat_dagster.domain import StarTable, WcsSolution
from wombat_dagster.solvers.base import Reason, RungOptions, SolveOutcome, SolveRequest
from wombat_dagster.solvers.fitting import MIN_MATCHED, Fit, is_supported, refine
from wombat_dagster.solvers.patterns import Similarity, similarities
from wombat_dagster.tangent import project

PATTERN_STARS = (16, 30, 50)  # stars that vote, first few, then more
CENTRE_SEARCH_FRAMES = 0.75  # of the longer side: "within half a frame", and a bit more
STEP_TOLERANCE = 0.06  # scales are searched in steps of +- so much
UNKNOWN_SCALE_ARCSEC_PX = (0.25, 20.0)


@dataclass(frozen=True, slots=True)
class CatalogueSolver:
    """Pattern match and least-squares refit against the request's star table."""

    name: str = "catalogue"
    version: str = "1"

    def solve(self, request: SolveRequest, options: RungOptions) -> SolveOutcome:
        """Match the request's detections to its star table; `options` limit the time only."""
        begun = time.perf_counter()
        fit, reason, message = self._search(request, options)
        return SolveOutcome(
            solver=self.name,
            solver_version=self.version,
            database=request.star_table.name if request.star_table is not None else None,
            solution=fit.solution if fit else None,
            reason=reason,
            message=message,
            n_stars=len(request.detections),
            n_matched=fit.n_matched if fit else None,
            n_expected=fit.n_expected if fit else None,
            rms_px=fit.rms_px if fit else None,
            rms_arcsec=fit.rms_arcsec if fit else None,
            seconds=time.perf_counter() - begun,
        )

    def _search(
        self, request: SolveRequest, options: RungOptions
    ) -> tuple[Fit | None, Reason | None, str]:
        n_detected = len(request.detections)
        if n_detected < MIN_MATCHED:
            return None, Reason.NO_STARS, f"{n_detected} stars detected, {MIN_MATCHED} wanted"
        if request.star_table is None or len(request.star_table) == 0:
            return None, Reason.NO_DATABASE, "no star table for this field"
        if not request.has_position:
            return None, Reason.NO_MATCH, "no position to search around"
        give_up = time.perf_counter() + (options.timeout_s or request.timeout_s)
        most_table_stars = 0
        for n_pattern in PATTERN_STARS:
            for scale in _scale_steps(request):
                field = _field(request, request.star_table, scale, n_pattern)
                most_table_stars = max(most_table_stars, len(field))
                for candidate in _candidates(request, field, scale, n_pattern):
                    fit = _verified(request, request.star_table, candidate)
                    if fit is not None:
                        return fit, None, ""
                    if time.perf_counter() > give_up:
                        return None, Reason.TIMEOUT, "the pattern search took too long"
            if n_pattern >= n_detected:
                break
        if most_table_stars < MIN_MATCHED:
            return None, Reason.NO_DATABASE, f"{most_table_stars} table stars in the search field"
        return None, Reason.NO_MATCH, f"{n_detected} stars match no pattern of the star table"


def _scale_steps(request: SolveRequest) -> list[float]:
    """Return scales, likeliest first, whose +-`STEP_TOLERANCE` cover what the header allows."""
    if request.scale_arcsec_px is None:
        low, high = UNKNOWN_SCALE_ARCSEC_PX
        middle = float(np.sqrt(low * high))
        reach = np.log(high / low) / 2
    else:
        middle = request.scale_arcsec_px
        reach = np.log1p(request.scale_tolerance)
    step = 2 * np.log1p(STEP_TOLERANCE)
    n_each_side = max(0, int(np.ceil((reach - step / 2) / step)))
    steps = sorted(range(-n_each_side, n_each_side + 1), key=abs)
    return [middle * float(np.exp(k * step)) for k in steps]


def _field(
    request: SolveRequest, table: StarTable, scale_arcsec_px: float, n_pattern: int
) -> NDArray[np.complex128]:
    """Return the table stars that may vote, xi + i eta in degrees about the header's position.

    As many per area as `n_pattern` on the image, brightest first.
    """
    assert request.ra_deg is not None
    assert request.dec_deg is not None
    xi, eta = project(table.ra_deg, table.dec_deg, ra0_deg=request.ra_deg, dec0_deg=request.dec_deg)
    scale_deg = scale_arcsec_px / 3600.0
    longer_px, diagonal_px = _sizes(request)
    reach_px = 0.5 * diagonal_px + CENTRE_SEARCH_FRAMES * longer_px
    with np.errstate(invalid="ignore"):  # NaN: other side of the sky
        near = np.flatnonzero(np.hypot(xi, eta) <= reach_px * scale_deg)
    frames = np.pi * reach_px**2 / (request.width_px * request.height_px)
    brightest = near[np.argsort(table.mag[near], kind="stable")][: int(n_pattern * frames)]
    return xi[brightest] + 1j * eta[brightest]


def _candidates(
    request: SolveRequest, field: NDArray[np.complex128], scale_arcsec_px: float, n_pattern: int
) -> list[WcsSolution]:
    longer_px, diagonal_px = _sizes(request)
    stars = request.detections
    x0, y0 = 0.5 * (request.width_px - 1), 0.5 * (request.height_px - 1)
    image = (stars.x_px[:n_pattern] - x0) + 1j * (stars.y_px[:n_pattern] - y0)
    scale_deg = scale_arcsec_px / 3600.0
    maps = similarities(
        image,
        field,
        diagonal_px=diagonal_px,
        scale_range=(scale_deg / (1 + STEP_TOLERANCE), scale_deg * (1 + STEP_TOLERANCE)),
        centre_limit=CENTRE_SEARCH_FRAMES * longer_px * scale_deg,
    )
    return [_solution(request, one) for one in maps]


def _solution(request: SolveRequest, found: Similarity) -> WcsSolution:
    """Return the TAN solution about the header's position that a similarity describes."""
    assert request.ra_deg is not None
    assert request.dec_deg is not None
    # d(xi + i eta)/dx = turn; d/dy = i turn, or -i turn when the pixel was conjugated.
    along_x = found.turn
    along_y = found.turn * (-1j if found.mirrored else 1j)
    determinant = along_x.real * along_y.imag - along_y.real * along_x.imag
    # The shift is where the centre lies on the plane touching at the header's position.
    u = (along_y.imag * found.shift.real - along_y.real * found.shift.imag) / determinant
    v = (along_x.real * found.shift.imag - along_x.imag * found.shift.real) / determinant
    return WcsSolution(
        ra_deg=request.ra_deg,
        dec_deg=request.dec_deg,
        crpix_x=0.5 * (request.width_px + 1) - u,
        crpix_y=0.5 * (request.height_px + 1) - v,
        cd11=along_x.real,
        cd12=along_y.real,
        cd21=along_x.imag,
        cd22=along_y.imag,
    )


def _verified(request: SolveRequest, table: StarTable, candidate: WcsSolution) -> Fit | None:
    fit = refine(
        candidate,
        request.detections,
        table,
        width_px=request.width_px,
        height_px=request.height_px,
    )
    if fit is None or not is_supported(fit.n_matched, fit.n_expected, fit.rms_px):
        return None
    return fit


def _sizes(request: SolveRequest) -> tuple[float, float]:
    """Return the longer side and the diagonal of the image in pixels."""
    longer = float(max(request.width_px, request.height_px))
    return longer, float(np.hypot(request.width_px, request.height_px))
