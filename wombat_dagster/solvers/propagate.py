"""The solution of a frame out of that of another frame of the night: drift, turn, flip, refit."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from wombat_dagster.domain import StarTable, WcsSolution
from wombat_dagster.solvers.base import (
    Reason,
    Reference,
    RungOptions,
    SolveOutcome,
    SolveRequest,
)
from wombat_dagster.solvers.fitting import MIN_MATCHED, Fit, centred, is_supported, refine
from wombat_dagster.solvers.patterns import shift_votes, similarities
from wombat_dagster.tangent import pixel_to_sky

VOTING_STARS = 50
TURNED_STARS = 30
MAX_DRIFT_FRAMES = 0.8  # of the longer side; a fifth of the stars must remain
RADII_PX = (8.0, 4.0, 2.5)
NEAR_RADII_PX = RADII_PX[1:]  # once the frame's stars lie on those of the reference
SCALE_RANGE = (0.98, 1.02)  # same telescope: focus and refraction change no more


@dataclass(frozen=True, slots=True)
class Propagator:
    """Lays the stars of the request's reference frame on this frame's, then refits.

    Against the request's star table where that suffices, which keeps errors of the reference
    frame out; else against the reference frame's own stars.
    """

    name: str = "propagate"
    version: str = "1"

    def solve(self, request: SolveRequest, options: RungOptions) -> SolveOutcome:
        """Carry the reference's solution over; `options` change nothing, it takes milliseconds."""
        begun = time.perf_counter()
        fit, database, reason, message = _propagated(request)
        return SolveOutcome(
            solver=self.name,
            solver_version=self.version,
            database=database,
            solution=fit.solution if fit else None,
            reason=reason,
            message=message,
            n_stars=len(request.detections),
            n_matched=fit.n_matched if fit else None,
            n_expected=fit.n_expected if fit else None,
            rms_px=fit.rms_px if fit else None,
            rms_arcsec=fit.rms_arcsec if fit else None,
            reference_file=request.reference.file if request.reference else None,
            seconds=time.perf_counter() - begun,
        )


def _propagated(
    request: SolveRequest,
) -> tuple[Fit | None, str | None, Reason | None, str]:
    """Return the fit and the name of the stars it rests on, or why there is none."""
    reference = request.reference
    if reference is None:
        return None, None, Reason.NO_MATCH, "no solved frame to start from"
    n_here, n_there = len(request.detections), len(reference.detections)
    if min(n_here, n_there) < MIN_MATCHED:
        message = f"{n_here} stars here, {n_there} on {reference.file}, {MIN_MATCHED} wanted"
        return None, None, Reason.NO_STARS, message
    for candidate in _candidates(request, reference):
        found = _from_table(request, candidate, RADII_PX) or _from_stars(
            request, candidate, reference
        )
        if found is not None:
            fit, database = found
            return fit, database, None, ""
    message = f"{n_here} stars do not match the {n_there} of {reference.file}"
    return None, None, Reason.NO_MATCH, message


def _from_table(
    request: SolveRequest, start: WcsSolution, radii_px: tuple[float, ...]
) -> tuple[Fit, str] | None:
    """Return the fit to the request's star table and its name."""
    table = request.star_table
    if table is None:
        return None
    fit = _refined(request, start, table, radii_px, find_distortion=True)
    return (fit, table.name) if fit is not None else None


def _from_stars(
    request: SolveRequest, start: WcsSolution, reference: Reference
) -> tuple[Fit, str] | None:
    """Return the fit to the reference frame's stars, or to the table once they have led there."""
    stars = _sky_of(reference)
    fit = _refined(request, start, stars, RADII_PX, find_distortion=False)
    if fit is None:
        return None
    return _from_table(request, fit.solution, NEAR_RADII_PX) or (fit, stars.name)


def _refined(
    request: SolveRequest,
    start: WcsSolution,
    table: StarTable,
    radii_px: tuple[float, ...],
    *,
    find_distortion: bool,
) -> Fit | None:
    fit = refine(
        start,
        request.detections,
        table,
        width_px=request.width_px,
        height_px=request.height_px,
        radii_px=radii_px,
        find_distortion=find_distortion,
    )
    if fit is None or not is_supported(fit.n_matched, fit.n_expected, fit.rms_px):
        return None
    return fit


def _sky_of(reference: Reference) -> StarTable:
    """Return the reference frame's stars as a table; magnitudes are instrumental."""
    stars = reference.detections
    ra, dec = pixel_to_sky(reference.solution, stars.x_px, stars.y_px)
    return StarTable(
        ra_deg=ra,
        dec_deg=dec,
        mag=-2.5 * np.log10(np.maximum(stars.flux_adu, 1e-9)),
        name=reference.file,
    )


def _candidates(request: SolveRequest, reference: Reference) -> Iterator[WcsSolution]:
    """Yield rough solutions: shifted, as frames of a night mostly are; then turned anyhow."""
    here, there, old = request.detections, reference.detections, reference.solution
    shifts = shift_votes(
        there.x_px[:VOTING_STARS],
        there.y_px[:VOTING_STARS],
        here.x_px[:VOTING_STARS],
        here.y_px[:VOTING_STARS],
    )
    for dx, dy, _ in shifts:
        yield _moved(request, old, crpix_x=old.crpix_x + dx, crpix_y=old.crpix_y + dy)
    yield from _turned(request, reference)


def _turned(request: SolveRequest, reference: Reference) -> Iterator[WcsSolution]:
    """Yield solutions for any turn: meridian flips, alt-azimuth mounts, people at the camera."""
    here, there = request.detections, reference.detections
    x0, y0 = 0.5 * (request.width_px - 1), 0.5 * (request.height_px - 1)
    longer_px = float(max(request.width_px, request.height_px))
    found = similarities(
        (here.x_px[:TURNED_STARS] - x0) + 1j * (here.y_px[:TURNED_STARS] - y0),
        (there.x_px[:TURNED_STARS] - x0) + 1j * (there.y_px[:TURNED_STARS] - y0),
        diagonal_px=float(np.hypot(request.width_px, request.height_px)),
        scale_range=SCALE_RANGE,
        centre_limit=MAX_DRIFT_FRAMES * longer_px,
        parities=(False,),
    )
    old = reference.solution
    for one in found:
        # Old pixel = turn * new pixel + shift: chain the old CD matrix behind it.
        c, s = one.turn.real, one.turn.imag
        back = (x0 + 1.0) + 1j * (y0 + 1.0)
        old_reference = complex(old.crpix_x, old.crpix_y)
        new_reference = (old_reference - back - one.shift) / one.turn + back
        yield _moved(
            request,
            old,
            crpix_x=new_reference.real,
            crpix_y=new_reference.imag,
            cd11=old.cd11 * c + old.cd12 * s,
            cd12=-old.cd11 * s + old.cd12 * c,
            cd21=old.cd21 * c + old.cd22 * s,
            cd22=-old.cd21 * s + old.cd22 * c,
        )


def _moved(request: SolveRequest, old: WcsSolution, **linear: float) -> WcsSolution:
    """Return `old` with new values of its linear part, its distortion where it was on the chip."""
    moved = replace(old, sip=None, **linear)
    if old.sip is None:
        return moved
    moved = centred(moved, width_px=request.width_px, height_px=request.height_px)
    return replace(moved, sip=old.sip)
