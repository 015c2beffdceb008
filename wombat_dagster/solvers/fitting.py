"""From a rough TAN solution to a least-squares one, against a star table.

Shared by the embedded solver, the propagation and the ladder's checks. Linear: the stars are
projected on the plane that touches the sky at the reference point, where pixels and degrees are
one affine map apart; the reference point then moves to the centre of the image and the fit is
repeated.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wombat_dagster.domain import Detections, FloatArray, StarTable, WcsSolution
from wombat_dagster.tangent import deproject, pixel_to_sky, project, sky_to_pixel

Indices = NDArray[np.intp]

MIN_FIT_STARS = 4  # an affine map has three stars' worth of freedom
MAX_FIT_DETECTIONS = 200  # brightest; more cost time and add nothing to six numbers
MAX_EXPECTED = 100
FIT_ROUNDS = 4  # outliers leave after the first, the reference point settles in two more
CLIP_SIGMA = 4.0
CLIP_FLOOR_PX = 0.3  # never clip a star this close: centroids are no better
EDGE_MARGIN_PX = 5.0  # a star nearer to the edge need not be detected
MATCH_RADIUS_PX = 3.0

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
) -> tuple[WcsSolution, FloatArray] | None:
    """Fit a TAN solution to matched stars, outliers clipped; None below `MIN_FIT_STARS`.

    Returns the solution, its reference point at the image's centre, and the residual of every
    star in pixels, NaN for those clipped.
    """
    u, v = x_px - 0.5 * (width_px - 1), y_px - 0.5 * (height_px - 1)
    design = np.column_stack([np.ones_like(u), u, v])
    used = np.ones(len(u), bool)
    solution = centred(start, width_px=width_px, height_px=height_px)
    residual_px = np.zeros(len(u))
    for _ in range(FIT_ROUNDS):
        if used.sum() < MIN_FIT_STARS:
            return None
        plane = np.column_stack(
            project(ra_deg, dec_deg, ra0_deg=solution.ra_deg, dec0_deg=solution.dec_deg)
        )
        coefficients, _, rank, _ = np.linalg.lstsq(design[used], plane[used], rcond=None)
        if rank < design.shape[1]:  # all stars on one line
            return None
        (xi0, eta0), (cd11, cd21), (cd12, cd22) = coefficients
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
        )
        if solution.determinant == 0.0:
            return None
        x_fit, y_fit = sky_to_pixel(solution, ra_deg, dec_deg)
        residual_px = np.hypot(x_fit - x_px, y_fit - y_px)
        typical_px = float(np.sqrt(np.mean(residual_px[used] ** 2)))
        robust_px = 1.2 * float(np.median(residual_px[used]))  # Rayleigh: rms = 1.2 x median
        limit_px = max(CLIP_SIGMA * min(typical_px, robust_px), CLIP_FLOOR_PX)
        used = residual_px <= limit_px
    if used.sum() < MIN_FIT_STARS:
        return None
    return solution, np.where(used, residual_px, np.nan)


def pair_nearest(
    x_px: FloatArray, y_px: FloatArray, x_other: FloatArray, y_other: FloatArray, radius_px: float
) -> tuple[Indices, Indices]:
    """Return indices of mutually nearest points of two lists, at most `radius_px` apart."""
    nothing = np.zeros(0, np.intp)
    if len(x_px) == 0 or len(x_other) == 0:
        return nothing, nothing
    distance2 = np.subtract.outer(x_px, x_other) ** 2 + np.subtract.outer(y_px, y_other) ** 2
    nearest = np.argmin(distance2, axis=1)
    back = np.argmin(distance2, axis=0)
    first = np.arange(len(x_px))
    mutual = (back[nearest] == first) & (distance2[first, nearest] <= radius_px**2)
    return first[mutual], nearest[mutual]


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
) -> Fit | None:
    """Match, fit and match again with shrinking radii; None when too few stars match.

    The first, wide matches use the brightest stars only, or chance pairs would outvote true ones.
    """
    n_used = min(len(detections), MAX_FIT_DETECTIONS)
    for step, radius_px in enumerate(radii_px):
        last = step == len(radii_px) - 1
        stars = _on_image(solution, table, len(detections), width_px, height_px)
        n_bright = n_used if last else min(n_used, max(2 * stars.n_expected, 20))
        n_table = len(stars.x_px) if last else max(stars.n_expected, 20)
        x, y = detections.x_px[:n_bright], detections.y_px[:n_bright]
        found, of_star = pair_nearest(x, y, stars.x_px[:n_table], stars.y_px[:n_table], radius_px)
        row = stars.row[of_star]
        fitted = fit_tan(
            x[found],
            y[found],
            table.ra_deg[row],
            table.dec_deg[row],
            start=solution,
            width_px=width_px,
            height_px=height_px,
        )
        if fitted is None:
            return None
        solution, residual_px = fitted
    kept = np.isfinite(residual_px)
    final = _on_image(solution, table, len(detections), width_px, height_px)
    expected_rows = final.row[: final.n_expected]
    return Fit(
        solution=solution,
        n_matched=int(np.isin(expected_rows, row).sum()),
        n_expected=final.n_expected,
        n_fitted=int(kept.sum()),
        rms_px=float(np.sqrt(np.mean(residual_px[kept] ** 2))),
    )


@dataclass(frozen=True, slots=True)
class _OnImage:
    """Table stars inside the image, brightest first; `row` points into the table."""

    row: Indices
    x_px: FloatArray
    y_px: FloatArray
    n_expected: int


def _on_image(
    solution: WcsSolution, table: StarTable, n_detected: int, width_px: int, height_px: int
) -> _OnImage:
    x, y = sky_to_pixel(solution, table.ra_deg, table.dec_deg)
    margin = EDGE_MARGIN_PX
    with np.errstate(invalid="ignore"):  # NaN behind the sky's horizon: not inside
        inside = (
            (x > margin) & (y > margin) & (x < width_px - 1 - margin) & (y < height_px - 1 - margin)
        )
    row = np.flatnonzero(inside)
    row = row[np.argsort(table.mag[row], kind="stable")][:MAX_FIT_DETECTIONS]
    n_expected = min(len(row), (n_detected + 1) // 2, MAX_EXPECTED)
    return _OnImage(row, x[row], y[row], n_expected)
