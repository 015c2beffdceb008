"""The embedded solver: detected stars against a star table, without any external program.

First votes of star pairs, which need a position within about half a frame and a scale within some
per cent, and put up with many false stars. Then quads of stars, looked up in the whole circle in
which the frame may be, at every scale that it may have. Any rotation, both parities.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wombat_dagster.domain import StarTable, WcsSolution
from wombat_dagster.solvers.base import Reason, RungOptions, SolveOutcome, SolveRequest
from wombat_dagster.solvers.fitting import MIN_MATCHED, Fit, is_supported, refine
from wombat_dagster.solvers.patterns import (
    Pointing,
    Similarity,
    SkyQuads,
    pointings,
    similarities,
    unit_vectors,
)
from wombat_dagster.solvers.star_database import StarSource
from wombat_dagster.tangent import project

PATTERN_STARS = (16, 30, 50)  # stars that vote, first few, then more
CENTRE_SEARCH_FRAMES = 0.75  # of the longer side: "within half a frame", and a bit more
STEP_TOLERANCE = 0.06  # scales are searched in steps of +- so much
GUESSED_SCALE_TOLERANCE = 0.25  # a header's scale that proved wrong is mostly wrong by little

QUAD_STARS = (16, 30, 50)
QUAD_SCALE_FACTOR = 1.3  # a step of scales: a quad knows no scale, but how dense stars lie does
MAX_QUAD_STARS = 40_000  # in the circle: a second and 150 MB
SPARE_STARS = 2  # times as many are read as are looked up: some places have too many
MIN_SKY_STARS_PER_FRAME = 8
WELL_FILLED_PERCENT = 90.0  # of the cells of the sky
UNKNOWN_SCALE_ARCSEC_PX = (0.25, 160.0)
MAX_FRAME_DEG = 100.0  # diagonal; wider gnomonic images are not made
DEEPER_IMAGE = 1.3  # more image stars than the table has: they are not all the same ones
TABLE_STARS = 600  # in the circle around a frame: to fit it to
SEARCH_STARS = 3000  # in the circle in which half a frame's error leaves it
EDGE_FACTOR = 1.05
WHOLE_SKY_DEG = 180.0


@dataclass(frozen=True, slots=True)
class CatalogueSolver:
    """Pattern match and least-squares refit against a star table.

    Against the request's, unless `stars` knows those of any place: then a frame is found wherever
    in the circle it is, and a wide one has all the stars it needs.
    """

    stars: StarSource | None = None
    name: str = "catalogue"
    version: str = "2"

    def solve(self, request: SolveRequest, options: RungOptions) -> SolveOutcome:
        """Match the request's detections to catalogue stars.

        `options` say the radius, the time-out, and by a `fov_deg` of 0 that the scale is not to be
        believed.
        """
        begun = time.perf_counter()
        search = _Search(request, options, self.stars)
        fit, reason, message = search.run()
        return SolveOutcome(
            solver=self.name,
            solver_version=self.version,
            database=search.table_name,
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


class _Search:
    """One attempt: where it looks, and how long it has."""

    def __init__(
        self, request: SolveRequest, options: RungOptions, stars: StarSource | None
    ) -> None:
        self._request, self._options, self._stars = request, options, stars
        self._give_up = time.perf_counter() + (options.timeout_s or request.timeout_s)
        table = request.star_table
        self.table_name = table.name if table is not None else None
        self._last_sky: tuple[tuple[int, float], SkyQuads] | None = None
        self._most_stars = 0  # of the table, on a region the size of the frame

    def run(self) -> tuple[Fit | None, Reason | None, str]:
        """Return the fit, or why there is none."""
        request = self._request
        n_detected = len(request.detections)
        if n_detected < MIN_MATCHED:
            return None, Reason.NO_STARS, f"{n_detected} stars detected, {MIN_MATCHED} wanted"
        if self._stars is None and not request.star_table:
            return None, Reason.NO_DATABASE, "no star table for this field"
        if self._stars is None and not request.has_position:
            return None, Reason.NO_MATCH, "no position to search around"
        try:
            for candidate, table in self._candidates():
                fit = _verified(request, table, candidate)
                if fit is not None:
                    self.table_name = table.name
                    return fit, None, ""
                if self._is_late:
                    break
        except (OSError, ValueError) as error:  # of the star database
            return None, Reason.NO_DATABASE, str(error)
        if self._is_late:
            return None, Reason.TIMEOUT, "the pattern search took too long"
        if self._most_stars < MIN_MATCHED:
            message = f"{self._most_stars} table stars in the search field"
            return None, Reason.NO_DATABASE, message
        return None, Reason.NO_MATCH, f"{n_detected} stars match no pattern of the star table"

    @property
    def _is_late(self) -> bool:
        return time.perf_counter() > self._give_up

    # ---------------------------------------------------------------------------- candidates

    def _candidates(self) -> Iterator[tuple[WcsSolution, StarTable]]:
        """Yield rough solutions, likeliest first, each with the stars to judge it by."""
        trusts_scale = self._options.fov_deg != 0.0 and self._request.scale_arcsec_px is not None
        ways = [self._by_pairs, self._by_quads]
        # At many scales the pairs take seconds.
        for way in ways if trusts_scale else reversed(ways):
            yield from way(trusts_scale=trusts_scale)

    def _by_pairs(self, *, trusts_scale: bool) -> Iterator[tuple[WcsSolution, StarTable]]:
        request = self._request
        if request.scale_arcsec_px is None or request.ra_deg is None or request.dec_deg is None:
            return
        tolerance = request.scale_tolerance if trusts_scale else GUESSED_SCALE_TOLERANCE
        longer_px, diagonal_px = _sizes(request)
        reach_px = 0.5 * diagonal_px + CENTRE_SEARCH_FRAMES * longer_px
        for n_pattern in PATTERN_STARS if trusts_scale else PATTERN_STARS[:-1]:
            for scale in _scale_steps(request.scale_arcsec_px, tolerance):
                radius_deg = np.degrees(np.arctan(np.radians(reach_px * scale / 3600.0)))
                table = request.star_table or self._around(
                    request.ra_deg, request.dec_deg, radius_deg, max_stars=SEARCH_STARS
                )
                if not table:
                    return
                field = _field(request, table, scale, n_pattern)
                self._most_stars = max(self._most_stars, len(field))
                for candidate in _candidates(request, field, scale, n_pattern):
                    yield candidate, table
            if n_pattern >= len(request.detections):
                break

    def _by_quads(self, *, trusts_scale: bool) -> Iterator[tuple[WcsSolution, StarTable]]:
        request = self._request
        stars = request.detections
        x0, y0 = 0.5 * (request.width_px - 1), 0.5 * (request.height_px - 1)
        image = (stars.x_px - x0) + 1j * (stars.y_px - y0)
        _, diagonal_px = _sizes(request)
        for n_pattern in QUAD_STARS:
            for scale in self._quad_scales(trusts_scale=trusts_scale):
                scale_rad_px = float(np.radians(scale / 3600.0))
                sky, n_per_frame = self._sky(scale_rad_px, n_pattern)
                self._most_stars = max(self._most_stars, int(n_per_frame))
                if sky is None:
                    continue
                n_bright = min(n_pattern, int(np.ceil(DEEPER_IMAGE * n_per_frame)))
                found = pointings(
                    image[:n_bright],
                    sky,
                    scale_rad_px=scale_rad_px,
                    scale_factor=QUAD_SCALE_FACTOR,
                    diagonal_px=diagonal_px,
                )
                for one in found:
                    candidate = _pointed(request, one)
                    table = self._around_frame(candidate)
                    if table:
                        yield candidate, table
                if self._is_late:
                    return
            if n_pattern >= len(stars):
                break

    def _quad_scales(self, *, trusts_scale: bool) -> list[float]:
        scale = self._request.scale_arcsec_px
        if trusts_scale:
            assert scale is not None
            return [scale]
        _, diagonal_px = _sizes(self._request)
        low, high = UNKNOWN_SCALE_ARCSEC_PX
        widest = np.degrees(2 * np.tan(np.radians(MAX_FRAME_DEG / 2))) * 3600.0 / diagonal_px
        high = min(high, float(widest))
        step = 2 * np.log(QUAD_SCALE_FACTOR)
        middle = scale if scale is not None else float(np.sqrt(low * high))
        below, above = np.log(middle / low) / step, np.log(high / middle) / step
        steps = range(-max(0, int(np.ceil(below))), max(0, int(np.ceil(above))) + 1)
        return [middle * float(np.exp(k * step)) for k in sorted(steps, key=abs)]

    # --------------------------------------------------------------------------------- stars

    def _sky(self, scale_rad_px: float, n_pattern: int) -> tuple[SkyQuads | None, float]:
        """Return quads of the circle to search, its stars as dense as `n_pattern` on the image.

        And how many stars an area like the frame then has; no quads where those are too few, or
        the circle too large. Around a known position the circle shrinks until it is not.
        """
        request = self._request
        width, height = request.width_px * scale_rad_px, request.height_px * scale_rad_px
        half_diagonal = float(np.arctan(0.5 * np.hypot(width, height)))
        frame_sr = 4.0 * float(
            np.arcsin(np.sin(np.arctan(width / 2)) * np.sin(np.arctan(height / 2)))
        )
        most_sr = MAX_QUAD_STARS / n_pattern * frame_sr
        if request.ra_deg is None or request.dec_deg is None:
            ra_deg, dec_deg, radius_deg = 0.0, 0.0, WHOLE_SKY_DEG
            if _circle_sr(np.pi) > most_sr:
                return None, 0.0
        else:
            ra_deg, dec_deg = request.ra_deg, request.dec_deg
            radius = min(np.radians(self._options.radius_deg) + half_diagonal, np.pi)
            radius_deg = float(np.degrees(min(radius, _radius_of(most_sr))))
        n_frames = _circle_sr(np.radians(radius_deg)) / frame_sr
        n_stars = int(np.ceil(SPARE_STARS * n_pattern * n_frames))
        table = self._around(ra_deg, dec_deg, radius_deg, max_stars=n_stars)
        if not table:
            return None, 0.0
        table, n_per_frame = _evened_out(
            _nearest(table, ra_deg, dec_deg, radius_deg), float(np.sqrt(frame_sr)), n_pattern
        )
        if n_per_frame < MIN_SKY_STARS_PER_FRAME:
            return None, n_per_frame
        key = (len(table), radius_deg)
        if self._last_sky is None or self._last_sky[0] != key:
            self._last_sky = key, SkyQuads(unit_vectors(table.ra_deg, table.dec_deg))
        return self._last_sky[1], n_per_frame

    def _around(
        self, ra_deg: float, dec_deg: float, radius_deg: float, *, max_stars: int
    ) -> StarTable | None:
        """Return the stars of a circle; the request's where no others are known."""
        if self._stars is None:
            return self._request.star_table
        return self._stars(ra_deg, dec_deg, radius_deg, max_stars=max_stars)

    def _around_frame(self, solution: WcsSolution) -> StarTable | None:
        _, diagonal_px = _sizes(self._request)
        half = np.radians(0.5 * diagonal_px * solution.scale_arcsec_px / 3600.0)
        radius_deg = float(np.degrees(np.arctan(EDGE_FACTOR * half)))
        return self._around(solution.ra_deg, solution.dec_deg, radius_deg, max_stars=TABLE_STARS)


def _circle_sr(radius_rad: float) -> float:
    """Return the solid angle of a circle on the sky."""
    return float(2.0 * np.pi * (1.0 - np.cos(radius_rad)))


def _radius_of(circle_sr: float) -> float:
    """Return the radius, in radians, of a circle on the sky."""
    return float(np.arccos(max(-1.0, 1.0 - circle_sr / (2.0 * np.pi))))


def _nearest(table: StarTable, ra_deg: float, dec_deg: float, radius_deg: float) -> StarTable:
    """Return the part of a table in a circle."""
    centre = unit_vectors(np.array([ra_deg]), np.array([dec_deg]))[0]
    cosine = unit_vectors(table.ra_deg, table.dec_deg) @ centre
    return _rows(table, np.flatnonzero(cosine >= np.cos(np.radians(radius_deg))))


def _evened_out(table: StarTable, cell_rad: float, n_most: int) -> tuple[StarTable, float]:
    """Return the brightest `n_most` of each cell of the sky, and how many a well-filled one has.

    A table may be that of one field only, or of a sky with a Milky Way.
    """
    if not len(table):
        return table, 0.0
    cell_deg = np.degrees(cell_rad)
    ring = np.floor((table.dec_deg + 90.0) / cell_deg).astype(np.int64)
    middle = np.radians(np.clip((ring + 0.5) * cell_deg - 90.0, -90.0, 90.0))
    n_cells = np.maximum(1, np.rint(360.0 * np.cos(middle) / cell_deg)).astype(np.int64)
    column = (np.mod(table.ra_deg, 360.0) / 360.0 * n_cells).astype(np.int64)
    cell = ring * (int(360.0 / cell_deg) + 2) + np.minimum(column, n_cells - 1)
    order = np.lexsort((table.mag, cell))
    first = np.flatnonzero(np.r_[True, np.diff(cell[order]) != 0])
    n_each = np.diff(np.r_[first, len(order)])
    rank = np.arange(len(order)) - np.repeat(first, n_each)
    n_per_cell = float(np.percentile(np.minimum(n_each, n_most), WELL_FILLED_PERCENT))
    return _rows(table, np.sort(order[rank < n_most])), n_per_cell


def _rows(table: StarTable, rows: NDArray[np.intp]) -> StarTable:
    return StarTable(
        ra_deg=table.ra_deg[rows], dec_deg=table.dec_deg[rows], mag=table.mag[rows], name=table.name
    )


def _scale_steps(scale_arcsec_px: float, tolerance: float) -> list[float]:
    """Return scales, likeliest first, whose +-`STEP_TOLERANCE` cover what the header allows."""
    step = 2 * np.log1p(STEP_TOLERANCE)
    n_each_side = max(0, int(np.ceil((np.log1p(tolerance) - step / 2) / step)))
    steps = sorted(range(-n_each_side, n_each_side + 1), key=abs)
    return [scale_arcsec_px * float(np.exp(k * step)) for k in steps]


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


def _pointed(request: SolveRequest, found: Pointing) -> WcsSolution:
    """Return the TAN solution of a pointing; its reference point is the image's centre."""
    x_axis, y_axis, centre = found.rotation.T
    ra, dec = np.arctan2(centre[1], centre[0]), np.arctan2(centre[2], np.hypot(*centre[:2]))
    east = np.array([-np.sin(ra), np.cos(ra), 0.0])
    north = np.cross(centre, east)
    scale_deg = np.degrees(found.scale_rad_px)
    up = -scale_deg if found.mirrored else scale_deg
    return WcsSolution(
        ra_deg=float(np.degrees(ra) % 360.0),
        dec_deg=float(np.degrees(dec)),
        crpix_x=0.5 * (request.width_px + 1),
        crpix_y=0.5 * (request.height_px + 1),
        cd11=float(scale_deg * (x_axis @ east)),
        cd12=float(up * (y_axis @ east)),
        cd21=float(scale_deg * (x_axis @ north)),
        cd22=float(up * (y_axis @ north)),
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
