"""Bad pixels in apertures: what a star lets expect there.

In a star's core that is, in this order, the shape which the other stars of the frame have, fitted
to its good pixels; the Gaussian through its good pixels; elsewhere the mean of the good neighbours.
Left alone a hot pixel would stay in the sum, left out the star would lose light, and the neighbours
of a core are far fainter than it.
"""

import dataclasses

import numpy as np
from numpy.typing import NDArray

from wombat_dagster.domain import BoolArray, FloatArray
from wombat_dagster.science.cutouts import Cutouts

CORE_FLOOR = 0.1  # of the brightest good pixel: fainter ones are wings, or noise
CORE_MAX_OF_PEAK = 3.0  # of the brightest good pixel: more is no interpolation
CORE_MIN_PX = 8  # six numbers are fitted
NEIGHBOURS = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if (i, j) != (0, 0)]
HALF_DIAGONAL_PX = 0.71  # of a pixel: one whose centre lies further outside is not in a circle
# The shape that the stars of a frame share.
SHAPE_ORDERS = (6, 4, 2)  # of its polynomial: the first that has enough pixels
SHAPE_PX_PER_TERM = 4
SHAPE_FLOOR = 0.02  # of its height: beyond lie wings, which the neighbours tell as well
SHAPE_REACH = 3.0  # sigmas of its Gaussian, as far as it is fitted
SHAPE_ERROR = 0.01  # of a pixel, so that one very bright star does not have all the say
SHAPE_PASSES = 2
OUTLIER_SIGMAS = 5.0
FIT_PASSES = 3
MAX_OFFSET_PX = 1.5  # of a star's centre from where its aperture is
MIN_LIGHT_SIGMAS = 10.0  # a fainter star says too little about where its own centre is


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StarShape:
    """Light per pixel of a star of 1 ADU by the distance of the pixel from it, in one frame.

    A Gaussian times a polynomial: `terms`, (k, k), are its factors in Hermite's functions of the
    two coordinates z = (d − centre) · whitening, in which the Gaussian is round with sigma 1. It is
    the light that pixels *have*, so fitting it to pixels needs no integral over them.
    """

    centre: FloatArray  # (2,)
    whitening: FloatArray  # (2, 2)
    terms: FloatArray
    height: float

    def light(self, x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return the shape at offsets (x, y) in pixels, and how it changes when the star moves.

        Shaped as the offsets; the changes are those per pixel of the star's way along x and y.
        """
        order = len(self.terms) - 1
        along_x, along_y = _functions(x, y, self.centre, self.whitening, order + 1)
        falling = np.sqrt(np.arange(1.0, order + 2.0))  # of each function, by the next one
        by_terms = along_x[..., :-1] @ self.terms
        light = (by_terms * along_y[..., :-1]).sum(axis=-1)
        to_x = ((falling * along_x[..., 1:]) @ self.terms * along_y[..., :-1]).sum(axis=-1)
        to_y = (by_terms * (falling * along_y[..., 1:])).sum(axis=-1)
        by = self.whitening
        return light, by[0, 0] * to_x + by[0, 1] * to_y, by[1, 0] * to_x + by[1, 1] * to_y


def _functions(
    x: FloatArray, y: FloatArray, centre: FloatArray, whitening: FloatArray, order: int
) -> tuple[FloatArray, FloatArray]:
    """Return Hermite's polynomials times the Gaussian, to `order`, along both coordinates.

    Normalised, He_n(z) exp(−z²/2) / √n!, so that none outgrows the others; one more, last, axis.
    """
    z = np.stack([x - centre[0], y - centre[1]], axis=-1) @ whitening
    functions = np.empty((*z.shape, order + 1))
    functions[..., 0] = np.exp(-0.5 * z**2)
    if order:
        functions[..., 1] = z * functions[..., 0]
    for n in range(1, order):
        functions[..., n + 1] = z * functions[..., n] - np.sqrt(n) * functions[..., n - 1]
        functions[..., n + 1] /= np.sqrt(n + 1)
    return functions[..., 0, :], functions[..., 1, :]


def mended(
    cut: Cutouts, sky_adu: FloatArray, radius_px: float, shape: StarShape | None = None
) -> Cutouts:
    """Return the cut-outs with the value of every bad pixel replaced by what is expected there.

    The sky where a bad pixel outside the core has no good neighbour.
    """
    if not cut.bad.any():
        return cut
    counts = cut.values.copy()
    star, row, column = np.nonzero(cut.bad)
    counts[star, row, column] = _neighbours(cut, star, row, column, sky_adu)
    reached = np.hypot(cut.dx[star, column], cut.dy[star, row]) < radius_px + HALF_DIAGONAL_PX
    for one in np.unique(star[reached]):
        bad, excess = cut.bad[one], cut.values[one] - sky_adu[one]
        place = (cut.dx[one], cut.dy[one])
        expected = (
            None
            if shape is None
            else _core_by_shape(shape, excess, bad, *place, sky_adu[one], radius_px)
        )
        if expected is None:
            expected = _core_gaussian(excess, bad, *place, radius_px=radius_px)
        if expected is not None:
            _replace(counts[one], bad, sky_adu[one] + expected)
    return dataclasses.replace(cut, values=counts)


def _replace(values: FloatArray, bad: BoolArray, expected: FloatArray) -> None:
    """Replace in place the bad pixels of one star for which something is expected, not NaN."""
    values[bad] = np.where(np.isnan(expected), values[bad], expected)


def _core_by_shape(
    shape: StarShape,
    excess: FloatArray,
    bad: BoolArray,
    dx: FloatArray,
    dy: FloatArray,
    sky_adu: float,
    radius_px: float,
) -> FloatArray | None:
    """Return what the frame's shape, fitted to a star's good pixels, has in the bad ones, (n,).

    NaN outside the core. None when the star is too faint, or does not follow the shape.
    """
    x, y = np.broadcast_to(dx, excess.shape), np.broadcast_to(dy[:, None], excess.shape)
    used = (x**2 + y**2 <= radius_px**2) & ~bad
    variance = max(sky_adu, 1.0) + np.maximum(excess[used], 0.0)
    only = np.zeros(variance.size, np.intp)
    lights, places = _fit_stars(
        shape, x[used], y[used], excess[used], variance, only, np.zeros((1, 2))
    )
    light, place = lights[0], places[0]
    if not light > MIN_LIGHT_SIGMAS * np.sqrt(variance.sum()):
        return None
    expected, _, _ = shape.light(x[bad] - place[0], y[bad] - place[1])
    return np.where(expected > SHAPE_FLOOR * shape.height, light * expected, np.nan)


def mended_by_gaussian(cut: Cutouts, excess: FloatArray, radius_px: float) -> FloatArray:
    """Return the counts above the sky, (n, k, k), with the bad pixels of the cores mended."""
    if not cut.bad.any():
        return excess
    for star in np.flatnonzero(cut.bad.any(axis=(1, 2))):
        expected = _core_gaussian(
            excess[star], cut.bad[star], cut.dx[star], cut.dy[star], radius_px=radius_px
        )
        if expected is not None:
            _replace(excess[star], cut.bad[star], expected)
    return excess


def _neighbours(
    cut: Cutouts,
    star: NDArray[np.intp],
    row: NDArray[np.intp],
    column: NDArray[np.intp],
    sky_adu: FloatArray,
) -> FloatArray:
    """Return the mean of the good neighbours of each of n pixels, the sky where there is none."""
    last = cut.values.shape[1] - 1
    number, total = np.zeros(star.size), np.zeros(star.size)
    for down, right in NEIGHBOURS:
        i, j = row + down, column + right
        inside = (i >= 0) & (j >= 0) & (i <= last) & (j <= last)
        at = star[inside], i[inside], j[inside]
        good = ~cut.bad[at]
        number[inside] += good
        total[inside] += np.where(good, cut.values[at], 0.0)
    return np.where(number > 0, total / np.maximum(number, 1.0), sky_adu[star])


def _core_gaussian(
    excess: FloatArray, bad: BoolArray, dx: FloatArray, dy: FloatArray, *, radius_px: float
) -> FloatArray | None:
    """Return the elliptical Gaussian through a star's bright good pixels in the bad ones, (n,).

    NaN outside the core. None when the pixels show no star.
    """
    x, y = np.broadcast_to(dx, excess.shape), np.broadcast_to(dy[:, None], excess.shape)
    near = (x**2 + y**2 <= radius_px**2) & ~bad
    if not near.any():
        return None
    peak = float(excess[near].max())
    used = near & (excess > CORE_FLOOR * peak)
    if peak <= 0 or used.sum() < CORE_MIN_PX:
        return None
    fit = _gaussian(x[used], y[used], excess[used])
    if fit is None:
        return None
    with np.errstate(over="ignore"):
        expected = np.exp(_parabola(x[bad], y[bad]) @ fit)
    believable = (expected > CORE_FLOOR * peak) & (expected < CORE_MAX_OF_PEAK * peak)
    return np.where(believable, expected, np.nan)


def _gaussian(x: FloatArray, y: FloatArray, light: FloatArray) -> FloatArray | None:
    """Return the factors of 1, x, y, x², xy, y² in the logarithm of a Gaussian; None: it is none.

    A parabola through the logarithms of the light, all (n,) and positive, each weighted by its
    light: the weight that equal noise in the light has there.
    """
    terms = _parabola(x, y)
    fit, _, rank, _ = np.linalg.lstsq(terms * light[:, None], np.log(light) * light, rcond=None)
    falls = fit[3] < 0 and fit[5] < 0 and 4 * fit[3] * fit[5] > fit[4] ** 2
    return fit if rank == terms.shape[-1] and falls else None


def _parabola(x: FloatArray, y: FloatArray) -> FloatArray:
    return np.stack([np.ones_like(x), x, y, x**2, x * y, y**2], axis=-1)


# --------------------------------------------------------------- the shape of a frame's stars


def fit_shape(cut: Cutouts, sky_adu: FloatArray, radius_px: float) -> StarShape | None:
    """Return the shape that good stars of a frame share, None where they show none.

    `cut`: stars of which nothing is masked, on apertures of `radius_px`. Their pixels lie at many
    offsets from their centres, so together they sample the shape finer than any single star does.
    The stars' lights and centres are fitted in turn with the shape.
    """
    excess = cut.values - sky_adu[:, None, None]
    x = np.broadcast_to(cut.dx[:, None, :], excess.shape)
    y = np.broadcast_to(cut.dy[:, :, None], excess.shape)
    near = (x**2 + y**2 <= radius_px**2) & ~cut.bad
    light = np.where(near, excess, 0.0).sum(axis=(1, 2))
    if not (light > 0).all():
        return None
    star = np.nonzero(near)[0]
    x, y, excess = x[near], y[near], excess[near]
    variance = np.maximum(sky_adu, 1.0)[star] + np.maximum(excess, 0.0)
    place = np.zeros((len(light), 2))
    shape = None
    for _ in range(SHAPE_PASSES):
        u, v = x - place[star, 0], y - place[star, 1]
        shape = _fit_terms(u, v, excess, light[star], variance)
        if shape is None:
            return None
        new_light, new_place = _fit_stars(shape, x, y, excess, variance, star, place)
        fitted = np.isfinite(new_light)
        light[fitted], place[fitted] = new_light[fitted], new_place[fitted]
        # what all stars' centres have in common belongs to the shape
        place -= np.average(place, axis=0, weights=light)
    return shape


def _fit_terms(
    x: FloatArray, y: FloatArray, excess: FloatArray, light: FloatArray, variance: FloatArray
) -> StarShape | None:
    """Return the shape through the pixels of many stars, all (n,); `light` of each one's star."""
    share = excess / light
    bright = share > CORE_FLOOR * float(np.quantile(share, 0.99))
    if bright.sum() < CORE_MIN_PX:
        return None
    gaussian = _gaussian(x[bright], y[bright], share[bright])
    if gaussian is None:
        return None
    curvature = -np.array([[2 * gaussian[3], gaussian[4]], [gaussian[4], 2 * gaussian[5]]])
    centre = np.linalg.solve(curvature, gaussian[1:3])
    whitening = np.linalg.cholesky(curvature)
    z = np.stack([x - centre[0], y - centre[1]], axis=-1) @ whitening
    core = (z**2).sum(axis=-1) < SHAPE_REACH**2
    x, y, share = x[core], y[core], share[core]
    error = np.sqrt(variance[core] / light[core] ** 2 + (SHAPE_ERROR * share) ** 2)
    for order in SHAPE_ORDERS:
        if x.size < SHAPE_PX_PER_TERM * (order + 1) * (order + 2) / 2:
            continue
        along_x, along_y = _functions(x, y, centre, whitening, order)
        a, b = np.nonzero(np.add.outer(np.arange(order + 1), np.arange(order + 1)) <= order)
        design, wanted = along_x[:, a] * along_y[:, b] / error[:, None], share / error
        kept = np.ones(x.size, bool)
        for _ in range(2):
            # einsum, not @: BLAS would wake its threads, which cost more than the sums
            used = design * kept[:, None]
            normal = np.einsum("ni,nj->ij", used, used)
            normal[np.diag_indices_from(normal)] *= 1.0 + 1e-9
            factors = np.linalg.solve(normal, np.einsum("ni,n->i", used, wanted))
            model = np.einsum("ni,i->n", design, factors)
            pull = np.abs(wanted - model)
            kept = pull < OUTLIER_SIGMAS * max(1.0, 1.4826 * float(np.median(pull)))
        terms = np.zeros((order + 1, order + 1))
        terms[a, b] = factors
        height = float((model * error).max())
        return StarShape(centre=centre, whitening=whitening, terms=terms, height=height)
    return None


def _fit_stars(
    shape: StarShape,
    x: FloatArray,
    y: FloatArray,
    excess: FloatArray,
    variance: FloatArray,
    star: NDArray[np.intp],
    place: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Return (lights in ADU, offsets (n, 2) in pixels) of stars by the shape fitted to them.

    NaN for a star that does not follow the shape. `star` tells whose the pixels are.
    """
    n_stars = len(place)
    place = place.copy()
    light = np.full(n_stars, np.nan)
    weight = 1.0 / (variance + (SHAPE_ERROR * np.maximum(excess, 0.0)) ** 2)
    for _ in range(FIT_PASSES):
        u, v = x - place[star, 0], y - place[star, 1]
        terms = shape.light(u, v)
        core = np.where(terms[0] > SHAPE_FLOOR * shape.height, weight, 0.0)
        normal = np.empty((n_stars, 3, 3))
        right = np.empty((n_stars, 3, 1))
        for i, one in enumerate(terms):
            right[:, i, 0] = np.bincount(star, core * one * excess, n_stars)
            for j, other in enumerate(terms):
                normal[:, i, j] = np.bincount(star, core * one * other, n_stars)
        solvable = np.bincount(star, core > 0, n_stars) >= CORE_MIN_PX
        solvable &= np.abs(np.linalg.det(normal)) > 0
        normal[~solvable] = np.eye(3)
        fit = np.linalg.solve(normal, right)[..., 0]
        good = solvable & (fit[:, 0] > 0)
        light = np.where(good, fit[:, 0], np.nan)
        step = np.divide(fit[:, 1:], fit[:, :1], where=good[:, None], out=np.zeros((n_stars, 2)))
        place += np.clip(step, -0.5, 0.5)
        lost = np.hypot(place[:, 0], place[:, 1]) > MAX_OFFSET_PX
        light[lost], place[lost] = np.nan, 0.0
    return light, place
