"""From a rough solution to a least-squares one, against a star table; distortion where it shows.

Shared by the solvers and the ladder's checks. Linear: the stars are projected on the plane that
touches the sky at the reference point, where pixels and degrees are one affine map apart, or, with
a distorting lens, one polynomial (SIP); the reference point then moves to the centre of the image
and the fit is repeated.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from wombat_dagster.domain import (
    Detections,
    FloatArray,
    Sip,
    StarTable,
    WcsSolution,
    sip_powers,
)
from wombat_dagster.tangent import (
    deproject,
    monomials,
    pixel_to_sky,
    project,
    sky_to_pixel,
    straightened,
)

Indices = NDArray[np.intp]

MIN_FIT_STARS = 4  # an affine map has three stars' worth of freedom
MAX_FIT_DETECTIONS = 200  # brightest; more cost time and add nothing to six numbers
MAX_EXPECTED = 100
FIT_ROUNDS = 4  # outliers leave after the first, the reference point settles in two more
SETTLED_PX = 0.01  # of the reference point: changes no star by what could be measured
CLIP_SIGMA = 4.0
CLIP_FLOOR_PX = 0.3  # never clip a star this close: centroids are no better
EDGE_MARGIN_PX = 5.0  # a star nearer to the edge need not be detected
MATCH_RADIUS_PX = 3.0
NEAR_IMAGE = 0.1  # of the longer side: a fit moves stars by less, so does a lens

# A distortion is fitted where it shows. So many stars at least, by the order of the polynomial; and
# stars left out of the fit must fall nearer to their places than without it, by both:
SIP_MIN_STARS = {2: 30, 3: 60}
SIP_MIN_GAIN = 0.15
SIP_MIN_GAIN_PX = 0.05
# ... and each corner of the image must be known to twice the error of one star's place (leverage:
# variance in that unit). Stars that crowd in the middle say nothing of the corners, where
# polynomials run away: there it is hundreds; 60 stars all over the frame leave it at 2 or 3.
SIP_MAX_CORNER_LEVERAGE = 4.0
SIP_STARS = 500  # brightest; twenty numbers need more than six
SIP_ROUNDS = 3  # stars towards the corners are matched only once the distortion is known
INVERSE_GRID = 15  # points per axis that the inverse polynomials are fitted to

# What makes a solution believable (PLATE_SOLVING.md section 3).
MIN_MATCHED = 6
MIN_MATCHED_FRACTION = 0.5
MAX_RMS_PX = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """A solution and how well the frame's stars agree with it.

    `n_expected` counts the brightest table stars on the image, no more than half the detections;
    `n_matched` those of them that were detected, blends and all. `rms_px` is over the `n_fitted`
    stars, bright and faint, that the clip kept.
    """

    solution: WcsSolution
    n_matched: int
    n_expected: int
    n_fitted: int
    rms_px: float

    @property
    def rms_arcsec(self) -> float:
        """Residual in seconds of arc."""
        return self.rms_px * self.solution.scale_arcsec_px


def centred(solution: WcsSolution, *, width_px: int, height_px: int) -> WcsSolution:
    """Return the same solution with its reference point at the image's centre, to first order."""
    x, y = 0.5 * (width_px - 1), 0.5 * (height_px - 1)
    if (solution.crpix_x, solution.crpix_y) == (x + 1.0, y + 1.0):
        return solution
    assert solution.sip is None, "a distortion has its origin at the image's centre"
    ra, dec = pixel_to_sky(solution, np.array([x]), np.array([y]))
    # The plane turns when its point of contact moves: difference along one step in x and in y.
    step = 1.0
    ra_s, dec_s = pixel_to_sky(
        solution, np.array([x + step, x - step, x, x]), np.array([y, y, y + step, y - step])
    )
    xi, eta = project(ra_s, dec_s, ra0_deg=float(ra[0]), dec0_deg=float(dec[0]))
    return WcsSolution(
        ra_deg=float(ra[0]),
        dec_deg=float(dec[0]),
        crpix_x=x + 1.0,
        crpix_y=y + 1.0,
        cd11=float(xi[0] - xi[1]) / (2 * step),
        cd12=float(xi[2] - xi[3]) / (2 * step),
        cd21=float(eta[0] - eta[1]) / (2 * step),
        cd22=float(eta[2] - eta[3]) / (2 * step),
    )


def fit_tan(
    x_px: FloatArray,
    y_px: FloatArray,
    ra_deg: FloatArray,
    dec_deg: FloatArray,
    *,
    start: WcsSolution,
    width_px: int,
    height_px: int,
    order: int = 1,
    clip_floor_px: float = CLIP_FLOOR_PX,
) -> tuple[WcsSolution, FloatArray] | None:
    """Fit a solution to matched stars, outliers clipped; None when they are too few or in a line.

    Parameters
    ----------
    start
        Where to begin. Its distortion, if any, is kept with `order` 1.
    order
        1 fits the linear part; 2 and more a distortion of that order as well.
    clip_floor_px
        A star this close is never clipped.

    Returns
    -------
    tuple[WcsSolution, FloatArray] | None
        The solution, its reference point at the image's centre, and the residual of every star in
        pixels, NaN for those clipped.
    """
    u, v = x_px - 0.5 * (width_px - 1), y_px - 0.5 * (height_px - 1)
    solution = centred(start, width_px=width_px, height_px=height_px)
    reach_px = 0.5 * float(np.hypot(width_px, height_px))
    held = solution.sip if order == 1 else None
    if held is not None:
        u, v = straightened(held, u, v)
    design = _design(u, v, order, unit_px=reach_px)
    n_wanted = max(MIN_FIT_STARS, design.shape[1])
    used = np.ones(len(u), bool)
    residual_px: FloatArray = np.zeros(len(u))
    for _ in range(FIT_ROUNDS):
        if used.sum() < n_wanted:
            return None
        plane = np.stack(
            project(ra_deg, dec_deg, ra0_deg=solution.ra_deg, dec0_deg=solution.dec_deg), axis=1
        )
        coefficients, _, rank, _ = np.linalg.lstsq(design[used], plane[used], rcond=None)
        if rank < design.shape[1]:  # all stars on one line
            return None
        (xi0, eta0), *_ = coefficients
        (cd11, cd21), (cd12, cd22) = coefficients[1:3] / reach_px
        ra0, dec0 = deproject(xi0, eta0, ra0_deg=solution.ra_deg, dec0_deg=solution.dec_deg)
        solution = WcsSolution(
            ra_deg=float(ra0),
            dec_deg=float(dec0),
            crpix_x=0.5 * (width_px + 1),
            crpix_y=0.5 * (height_px + 1),
            cd11=float(cd11),
            cd12=float(cd12),
            cd21=float(cd21),
            cd22=float(cd22),
            sip=held,
        )
        if solution.determinant == 0.0:
            return None
        off_px = _in_pixels(solution, plane - design @ coefficients)
        residual_px = np.hypot(off_px[:, 0], off_px[:, 1])
        typical_px = float(np.sqrt(np.mean(residual_px[used] ** 2)))
        robust_px = 1.2 * float(np.median(residual_px[used]))  # Rayleigh: rms = 1.2 x median
        limit_px = max(CLIP_SIGMA * min(typical_px, robust_px), clip_floor_px)
        before, used = used, residual_px <= limit_px
        moved_px = np.hypot(xi0, eta0) * 3600.0 / solution.scale_arcsec_px
        if moved_px < SETTLED_PX and np.array_equal(before, used):
            break
    if used.sum() < n_wanted:
        return None
    if order > 1:
        bent_px = _in_pixels(solution, coefficients[3:])
        solution = replace(solution, sip=_sip(bent_px.T, order, width_px, height_px))
    return solution, np.where(used, residual_px, np.nan)


def fit_pairs(
    x_px: FloatArray,
    y_px: FloatArray,
    ra_deg: FloatArray,
    dec_deg: FloatArray,
    *,
    start: WcsSolution,
    width_px: int,
    height_px: int,
) -> Fit | None:
    """Fit a solution to stars that somebody else matched, with a distortion where it shows.

    `n_expected` of the answer is how many pairs there were.
    """
    size = {"width_px": width_px, "height_px": height_px}
    fitted = fit_tan(x_px, y_px, ra_deg, dec_deg, start=start, **size)
    if fitted is None:
        return None
    kept = np.isfinite(fitted[1])
    order = distortion_order(
        x_px[kept], y_px[kept], ra_deg[kept], dec_deg[kept], solution=fitted[0], **size
    )
    if order > 1:
        bent = fit_tan(x_px, y_px, ra_deg, dec_deg, start=fitted[0], order=order, **size)
        fitted = bent or fitted
    solution, residual_px = fitted
    kept = np.isfinite(residual_px)
    return Fit(
        solution=solution,
        n_matched=int(kept.sum()),
        n_expected=len(x_px),
        n_fitted=int(kept.sum()),
        rms_px=float(np.sqrt(np.mean(residual_px[kept] ** 2))),
    )


def _design(u: FloatArray, v: FloatArray, order: int, *, unit_px: float) -> FloatArray:
    """Return the columns u^p v^q, pixels counted in `unit_px`, shape (n, terms)."""
    return monomials(u / unit_px, v / unit_px, 0, order).T


def _in_pixels(solution: WcsSolution, plane_deg: FloatArray) -> FloatArray:
    """Return steps on the plane, shape (n, 2), in pixels by the inverse of the CD matrix."""
    one = solution
    inverse = np.array([[one.cd22, -one.cd12], [-one.cd21, one.cd11]]) / one.determinant
    in_pixels: FloatArray = plane_deg @ inverse.T
    return in_pixels


def _sip(bent_px: FloatArray, order: int, width_px: int, height_px: int) -> Sip:
    """Return the distortion whose coefficients, for pixels counted in half diagonals, are given.

    `bent_px` has shape (2, terms). The inverse polynomials are two orders higher, which makes
    them good to a hundredth of the distortion or better.
    """
    reach_px = 0.5 * float(np.hypot(width_px, height_px))
    per_pixel = reach_px ** -np.array([p + q for p, q in sip_powers(2, order)], float)
    a, b = bent_px * per_pixel
    nothing = (0.0,) * len(sip_powers(0, order + 2))
    sip = Sip(
        order=order,
        a=tuple(a.tolist()),
        b=tuple(b.tolist()),
        inverse_order=order + 2,
        ap=nothing,
        bp=nothing,
        reach_px=reach_px,
    )
    grid_u, grid_v = np.meshgrid(
        np.linspace(-0.5 * width_px, 0.5 * width_px, INVERSE_GRID),
        np.linspace(-0.5 * height_px, 0.5 * height_px, INVERSE_GRID),
    )
    u, v = grid_u.ravel(), grid_v.ravel()
    straight_u, straight_v = straightened(sip, u, v)
    design = _design(straight_u, straight_v, order + 2, unit_px=reach_px)
    back = np.column_stack([u - straight_u, v - straight_v])
    coefficients = np.linalg.solve(design.T @ design, design.T @ back)
    per_pixel = reach_px ** -np.array([p + q for p, q in sip_powers(0, order + 2)], float)
    ap, bp = coefficients.T * per_pixel
    return replace(sip, ap=tuple(ap.tolist()), bp=tuple(bp.tolist()))


def distortion_order(
    x_px: FloatArray,
    y_px: FloatArray,
    ra_deg: FloatArray,
    dec_deg: FloatArray,
    *,
    solution: WcsSolution,
    width_px: int,
    height_px: int,
) -> int:
    """Return the order of the distortion that matched stars show: 1 (none), 2 or 3.

    Each star's residual is that of a fit without it (leave-one-out, by the leverages of a linear
    fit): more terms always bring stars nearer that were fitted, and only right ones the others.
    """
    u, v = x_px - 0.5 * (width_px - 1), y_px - 0.5 * (height_px - 1)
    reach_px = 0.5 * float(np.hypot(width_px, height_px))
    plane_deg = np.column_stack(
        project(ra_deg, dec_deg, ra0_deg=solution.ra_deg, dec0_deg=solution.dec_deg)
    )
    corner_u = 0.5 * width_px * np.array([-1.0, -1.0, 1.0, 1.0])
    corner_v = 0.5 * height_px * np.array([-1.0, 1.0, -1.0, 1.0])
    best = 1
    best_deg, _ = _left_out_rms_deg(_design(u, v, 1, unit_px=reach_px), plane_deg)
    pixel_deg = solution.scale_arcsec_px / 3600.0
    for order, n_wanted in SIP_MIN_STARS.items():
        if len(u) < n_wanted:
            break
        design = _design(u, v, order, unit_px=reach_px)
        rms_deg, triangle = _left_out_rms_deg(design, plane_deg)
        at_corners = _design(corner_u, corner_v, order, unit_px=reach_px)
        leverage = np.sum(np.linalg.solve(triangle.T, at_corners.T) ** 2, axis=0)
        if leverage.max() > SIP_MAX_CORNER_LEVERAGE:
            break
        gain_deg = best_deg - rms_deg
        if gain_deg >= max(SIP_MIN_GAIN * best_deg, SIP_MIN_GAIN_PX * pixel_deg):
            best, best_deg = order, rms_deg
    return best


def _left_out_rms_deg(design: FloatArray, plane_deg: FloatArray) -> tuple[float, FloatArray]:
    """Return the rms of residuals each against a fit of the others, and R of the design's QR."""
    basis, triangle = np.linalg.qr(design)
    residual = plane_deg - basis @ (basis.T @ plane_deg)
    left_out = residual / (1.0 - np.sum(basis**2, axis=1))[:, np.newaxis]
    return float(np.sqrt(np.mean(np.sum(left_out**2, axis=1)))), triangle


def pair_nearest(
    x_px: FloatArray, y_px: FloatArray, x_other: FloatArray, y_other: FloatArray, radius_px: float
) -> tuple[Indices, Indices]:
    """Return indices of mutually nearest points of two lists, at most `radius_px` apart.

    Distances are taken inside a strip of x only: of all pairs of 500 stars, one in a hundred.
    """
    by_x = np.argsort(x_other)
    ordered = x_other[by_x]
    low = np.searchsorted(ordered, x_px - radius_px, side="left")
    count = np.searchsorted(ordered, x_px + radius_px, side="right") - low
    first = np.repeat(np.arange(len(x_px)), count)
    within = np.arange(len(first)) - np.repeat(np.cumsum(count) - count, count)
    other = by_x[within + low[first]]
    distance2 = (x_px[first] - x_other[other]) ** 2 + (y_px[first] - y_other[other]) ** 2
    near = np.flatnonzero(distance2 <= radius_px**2)
    near = near[np.argsort(-distance2[near])]  # nearest last: it is what stays written
    first, other = first[near], other[near]
    nearest, back = np.full(len(x_px), -1), np.full(len(x_other), -1)
    nearest[first], back[other] = other, first
    found = np.flatnonzero(nearest >= 0)
    found = found[back[nearest[found]] == found]
    return found, nearest[found]


def is_supported(n_matched: int, n_expected: int, rms_px: float) -> bool:
    """Whether enough of the stars expected on the image are where a solution puts them."""
    wanted = max(MIN_MATCHED, MIN_MATCHED_FRACTION * n_expected)
    return n_matched >= wanted and rms_px < MAX_RMS_PX


def agreement(
    solution: WcsSolution,
    detections: Detections,
    table: StarTable,
    *,
    width_px: int,
    height_px: int,
    radius_px: float = MATCH_RADIUS_PX,
) -> Fit:
    """Return how well `solution`, as it stands, puts the table's stars on the detected ones."""
    stars = _on_image(solution, table, len(detections), width_px, height_px)
    n_used = min(len(detections), MAX_FIT_DETECTIONS)
    x, y = detections.x_px[:n_used], detections.y_px[:n_used]
    found, of_star = pair_nearest(x, y, stars.x_px, stars.y_px, radius_px)
    offset = np.hypot(x[found] - stars.x_px[of_star], y[found] - stars.y_px[of_star])
    return Fit(
        solution=solution,
        n_matched=int(np.sum(of_star < stars.n_expected)),
        n_expected=stars.n_expected,
        n_fitted=len(found),
        rms_px=float(np.sqrt(np.mean(offset**2))) if len(offset) else float("inf"),
    )


def refine(
    solution: WcsSolution,
    detections: Detections,
    table: StarTable,
    *,
    width_px: int,
    height_px: int,
    radii_px: tuple[float, ...] = (10.0, 5.0, MATCH_RADIUS_PX),
    find_distortion: bool = True,
) -> Fit | None:
    """Match, fit and match again with shrinking radii; None when too few stars match.

    The first, wide matches use the brightest stars only, or chance pairs would outvote true ones.
    A distortion of `solution` is kept as it is; without one it is looked for, unless
    `find_distortion` is False, as it must be for a table that is another frame's stars: what they
    would show is how the two frames differ.
    """
    near = _near_image(solution, table, width_px, height_px)
    frame = _Frame(detections, near, width_px, height_px)
    for radius_px in radii_px[:-1]:
        matched = frame.matched(solution, radius_px, bright_only=True)
        fitted = frame.fitted(matched, solution)
        if fitted is None:
            return None
        solution, _ = fitted
    matched = frame.matched(solution, radii_px[-1], bright_only=False)
    fitted = frame.fitted(matched, solution)
    if fitted is None:
        return None
    solution, residual_px = fitted
    if find_distortion and solution.sip is None:
        kept = np.isfinite(residual_px)
        order = frame.distortion_order((matched[0][kept], matched[1][kept]), solution)
        for n_done in range(SIP_ROUNDS if order > 1 else 0):
            pairs = frame.matched(solution, radii_px[-1], bright_only=False, n_most=SIP_STARS)
            if n_done and np.array_equal(pairs, matched):
                break
            bent = frame.fitted(pairs, solution, order)
            if bent is None:
                break
            matched, (solution, residual_px) = pairs, bent
    kept = np.isfinite(residual_px)
    final = frame.on_image(solution)
    return Fit(
        solution=solution,
        n_matched=int(np.isin(final.row[: final.n_expected], matched[1]).sum()),
        n_expected=final.n_expected,
        n_fitted=int(kept.sum()),
        rms_px=float(np.sqrt(np.mean(residual_px[kept] ** 2))),
    )


def _near_image(
    solution: WcsSolution, table: StarTable, width_px: int, height_px: int
) -> StarTable:
    """Return the stars of the table on the image and a tenth of it around: all that may matter."""
    x, y = sky_to_pixel(replace(solution, sip=None), table.ra_deg, table.dec_deg)
    margin_px = NEAR_IMAGE * max(width_px, height_px)
    with np.errstate(invalid="ignore"):  # NaN behind the sky's horizon: not near
        near = (np.abs(x - 0.5 * width_px) < 0.5 * width_px + margin_px) & (
            np.abs(y - 0.5 * height_px) < 0.5 * height_px + margin_px
        )
    return StarTable(
        ra_deg=table.ra_deg[near],
        dec_deg=table.dec_deg[near],
        mag=table.mag[near],
        name=table.name,
    )


@dataclass(frozen=True, slots=True)
class _Frame:
    """A frame's detections and the star table, on their way to a fit."""

    detections: Detections
    table: StarTable
    width_px: int
    height_px: int

    def on_image(self, solution: WcsSolution, n_most: int = MAX_FIT_DETECTIONS) -> "_OnImage":
        size = self.width_px, self.height_px
        return _on_image(solution, self.table, len(self.detections), *size, n_most)

    def matched(
        self,
        solution: WcsSolution,
        radius_px: float,
        *,
        bright_only: bool,
        n_most: int = MAX_FIT_DETECTIONS,
    ) -> tuple[Indices, Indices]:
        """Return which detections are which rows of the table."""
        stars = self.on_image(solution, n_most)
        n_found = min(len(self.detections), n_most)
        n_table = len(stars.x_px)
        if bright_only:
            n_found = min(n_found, max(2 * stars.n_expected, 20))
            n_table = max(stars.n_expected, 20)
        found, of_star = pair_nearest(
            self.detections.x_px[:n_found],
            self.detections.y_px[:n_found],
            stars.x_px[:n_table],
            stars.y_px[:n_table],
            radius_px,
        )
        return found, stars.row[of_star]

    def fitted(
        self, matched: tuple[Indices, Indices], start: WcsSolution, order: int = 1
    ) -> tuple[WcsSolution, FloatArray] | None:
        found, row = matched
        return fit_tan(
            self.detections.x_px[found],
            self.detections.y_px[found],
            self.table.ra_deg[row],
            self.table.dec_deg[row],
            start=start,
            width_px=self.width_px,
            height_px=self.height_px,
            order=order,
        )

    def distortion_order(self, matched: tuple[Indices, Indices], solution: WcsSolution) -> int:
        found, row = matched
        return distortion_order(
            self.detections.x_px[found],
            self.detections.y_px[found],
            self.table.ra_deg[row],
            self.table.dec_deg[row],
            solution=solution,
            width_px=self.width_px,
            height_px=self.height_px,
        )


@dataclass(frozen=True, slots=True)
class _OnImage:
    """Table stars inside the image, brightest first; `row` points into the table."""

    row: Indices
    x_px: FloatArray
    y_px: FloatArray
    n_expected: int


def _on_image(
    solution: WcsSolution,
    table: StarTable,
    n_detected: int,
    width_px: int,
    height_px: int,
    n_most: int = MAX_FIT_DETECTIONS,
) -> _OnImage:
    x, y = sky_to_pixel(solution, table.ra_deg, table.dec_deg)
    margin = EDGE_MARGIN_PX
    with np.errstate(invalid="ignore"):  # NaN behind the sky's horizon: not inside
        inside = (
            (x > margin) & (y > margin) & (x < width_px - 1 - margin) & (y < height_px - 1 - margin)
        )
    row = np.flatnonzero(inside)
    row = row[np.argsort(table.mag[row], kind="stable")][:n_most]
    n_expected = min(len(row), (n_detected + 1) // 2, MAX_EXPECTED)
    return _OnImage(row, x[row], y[row], n_expected)
