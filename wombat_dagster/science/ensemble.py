"""Zero points of a night from many stars: frame to frame, their level, and who disagrees.

Two questions, kept apart (DOMAIN 6b). *Frame to frame*: every star that was measured tells how much
dimmer one frame is than another; what it counts for follows from how steady it is. *Level*: where
the night as a whole lies on the catalogue's scale; that only catalogue magnitudes tell, and each of
them may be wrong. Arrays in, arrays out: tables and stars are `series`' and `standard`'s.
"""

from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wombat_dagster.domain import BoolArray, FloatArray
from wombat_dagster.science import quality

ERROR_FLOOR_MAG: Final = 0.001  # no star is steadier than that from frame to frame

HUBER_K: Final = 1.345  # 95 % efficient for Gaussian errors
HUBER_ROUNDS: Final = 100
HUBER_TOLERANCE_MAG: Final = 1e-7

MAD_RELATIVE_ERROR: Final = 1.16  # of a MAD over n Gaussian values, times sqrt(n)
SCATTER_MIN_FRAMES: Final = 5  # a star's scatter over fewer is no evidence of anything
SCATTER_MIN_SIGMA: Final = 2.0  # beyond its formal error, to be believed
FRAME_CHANCE: Final = 0.003  # a frame's comps that scatter more than by this chance have a reason

DISAGREEING_SIGMA: Final = 1.5  # of the MAD's sampling error; 1 costs good nights 3 % more
MANY_SUSPECTS: Final = 0.1  # of the comps, and more than one: their errors are wrong, not they
NAMED_CHANCE: Final = 0.05  # that a night whose comps are all right has one named
NAMED_MIN_MAG: Final = 0.03  # colour terms alone bring that much
RESTLESS_MIN_FRAMES: Final = 10
RESTLESS_FACTOR: Final = 3.0
RESTLESS_MIN_MAG: Final = 0.01


# --------------------------------------------------------------------------------- frame to frame


@dataclass(frozen=True, slots=True, kw_only=True)
class Steadiness:
    """What each star of a night counts for from frame to frame, and its errors by what it does.

    `weight` has shape (n_stars,), its mean is 1; `error_mag` (n_frames, n_stars). `common_factor`
    is what formal errors of an unknown scale lack, None where no two stars tell.
    """

    weight: FloatArray
    error_mag: FloatArray
    common_factor: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class NightZeroPoint:
    """Zero points of a night from a fixed set of stars.

    Arrays of shape (n_frames,), but `weight` and `residual_mag` (n_stars,): the star's zero point
    less the night's, NaN for a star that was never measured; and `deviation_mag`, `error_mag`
    (n_frames, n_stars): what is left of each star, and its formal error. `set_of` (n_stars,) counts
    the sets of stars that never share a frame, 0 for all of a usual night.
    """

    zero_point_mag: FloatArray
    random_mag: FloatArray
    n_comps: NDArray[np.int64]
    weight: FloatArray
    residual_mag: FloatArray
    deviation_mag: FloatArray
    error_mag: FloatArray
    set_of: NDArray[np.int64]

    def levelled(self, level_mag: FloatArray) -> "NightZeroPoint":
        """Return the same on the level of residuals `level_mag`, one for each set of stars."""
        members = np.isfinite(self.deviation_mag)
        which = np.where(members, self.set_of, -1).max(axis=1)  # those of a frame share a set
        shift = np.where(which >= 0, level_mag[which], np.nan)
        return replace(
            self,
            zero_point_mag=self.zero_point_mag + shift,
            residual_mag=self.residual_mag - level_mag[self.set_of],
        )


def steadiness(
    zero_points: FloatArray, errors: FloatArray, *, errors_known: bool = True
) -> Steadiness:
    """Return the weights by which stars carry the zero point through a night.

    Parameters
    ----------
    zero_points, errors
        V_i - v_i(t), for stars without catalogue magnitude on any level, and the formal error of
        v_i(t); shape (n_frames, n_stars). NaN: not measured.
    errors_known
        False: the formal errors are right but for a factor, which the stars' scatter gives.

    Notes
    -----
    The inverse variance of a star over the night: its median formal error, or its robust scatter
    about the others where that is larger by more than 2 sigma of its own sampling error (5 frames
    at least). A frame's mean holds the star itself, so it scatters about it by sqrt(1 - w_i/Σw) too
    little: taken out. Two comps share what they differ by in proportion to their formal variances.
    The weights stay the same all night, so that a star that drops out makes no step.
    """
    n_frames = np.isfinite(zero_points).sum(axis=0)
    formal = quality.median_of_columns(errors)
    noise = np.maximum(formal, ERROR_FLOOR_MAG)
    factor = np.ones(len(formal))
    common: float | None = None
    for _ in range(2):  # the second time unsteady stars no longer shake the others
        weight = _normalised(noise)
        zero = night_zero_point(zero_points, errors, weight=weight)
        observed = _own_scatter(zero)
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = observed / np.maximum(formal, 1e-9)
        judged = np.isfinite(ratio) & (n_frames >= SCATTER_MIN_FRAMES)
        if not errors_known and judged.any():
            common = float(np.median(ratio[judged])) or None
        usual = common or 1.0
        with np.errstate(divide="ignore"):
            chance = 1 + SCATTER_MIN_SIGMA * MAD_RELATIVE_ERROR / np.sqrt(n_frames)
        factor = np.where(judged & (ratio > usual * chance), ratio, usual)
        noise = np.maximum(np.maximum(formal, 1e-9) * factor, ERROR_FLOOR_MAG)
    return Steadiness(weight=_normalised(noise), error_mag=errors * factor, common_factor=common)


def night_zero_point(
    zero_points: FloatArray,
    errors: FloatArray,
    *,
    weight: FloatArray | None = None,
    errors_known: bool = True,
) -> NightZeroPoint:
    """Return the zero point of every frame, without a step where a star is missing (DOMAIN 6b).

    Parameters
    ----------
    zero_points, errors
        V_i - v_i(t) and the formal error of v_i(t), shape (n_frames, n_stars); NaN: not measured.
    weight
        What each star counts for, the whole night; None: all the same.
    errors_known
        False: the formal errors are right but for a factor.

    Notes
    -----
    Least squares for zp_i(t) = zp(t) + r_i with weights w_i and Σ r_i = 0: where no star is missing
    zp(t) is their weighted mean but for a constant, and r_i + mean(zp) the night mean of zp_i. With
    equal weights zp(t) is the plain mean.
    """
    weight = np.ones(zero_points.shape[1]) if weight is None else weight
    measured = np.isfinite(zero_points)
    set_of = _sets(measured)
    residual = _residuals(zero_points, measured, weight, set_of)
    levelled = np.where(measured, zero_points - residual, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):  # frames without a star become NaN
        zero_point = levelled @ weight / (measured @ weight)
        deviation = zero_points - residual - zero_point[:, None]
    return NightZeroPoint(
        zero_point_mag=zero_point,
        random_mag=_random(deviation, errors, weight, errors_known=errors_known),
        n_comps=measured.sum(axis=1).astype(np.int64),
        weight=weight,
        residual_mag=np.where(measured.any(axis=0), residual, np.nan),
        deviation_mag=deviation,
        error_mag=errors,
        set_of=set_of,
    )


def _normalised(noise: FloatArray) -> FloatArray:
    """Return inverse variances of mean 1; 0 for a star that was never measured."""
    weight = np.where(np.isfinite(noise), 1 / noise**2, 0.0)
    return weight / weight.mean()


def _own_scatter(zero: NightZeroPoint) -> FloatArray:
    """Return each star's robust scatter, as if about a zero point without it; shape (n_stars,)."""
    n_frames = np.isfinite(zero.deviation_mag).sum(axis=0)
    total = np.where(np.isfinite(zero.deviation_mag), zero.weight, 0.0).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        left = 1 - zero.weight / total[:, None]
        own = zero.deviation_mag / np.sqrt(left) * np.sqrt(n_frames / (n_frames - 1))
    own = np.where(left > 1e-9, own, np.nan)  # alone in its frame: nothing to scatter about
    return quality.scatter_of_columns(own)


def _residuals(
    zero_points: FloatArray,
    measured: BoolArray,
    weight: FloatArray,
    set_of: NDArray[np.int64],
) -> FloatArray:
    """Return r_i of `night_zero_point`, the normal equations after zp(t) is eliminated.

    They leave a constant free for every set of stars that never share a frame: Σ r_i = 0 in each,
    which leaves it on its own catalogue level.
    """
    seen = measured[measured.any(axis=1)] * weight
    values = np.where(measured, zero_points, 0.0)[measured.any(axis=1)]
    per_frame = seen.sum(axis=1, keepdims=True)
    frame_mean = (seen * values).sum(axis=1, keepdims=True) / per_frame
    normal = np.diag(seen.sum(axis=0)) - seen.T @ (seen / per_frame)
    right = (seen * (values - frame_mean)).sum(axis=0)
    same_set = set_of[:, None] == set_of
    return np.linalg.solve(normal + same_set * max(float(np.trace(normal)), 1.0), right)


def _sets(measured: BoolArray) -> NDArray[np.int64]:
    """Return for each star the number of its set; stars of two sets never share a frame."""
    from scipy.sparse.csgraph import connected_components

    if measured.all(axis=0).any():  # one star holds the night together
        numbers = np.cumsum(~measured.any(axis=0))
        return np.where(measured.any(axis=0), 0, numbers)
    seen = measured.astype(float)
    together = seen.T @ seen > 0
    return connected_components(together, directed=False)[1].astype(np.int64)


def _random(
    deviation: FloatArray, errors: FloatArray, weight: FloatArray, *, errors_known: bool
) -> FloatArray:
    """Return σ_zp of every frame: formal, or what the stars' scatter about their night means says.

    Formal: sqrt(Σ w_i² σ_i²)/Σw. Scatter: sqrt(Σ w_i δ_i² / (n - 1) / Σw), with equal weights
    sd/sqrt(n); the night means come from the same frames, so that a star seen on N of them scatters
    about its own by sqrt((N - 1)/N) too little: taken out. Three comps agree or disagree by luck,
    and their scatter is known to 50 %: it is believed where it is larger than comes by chance in 3
    of 1,000 frames, otherwise the formal error is the better estimate. Formal errors that lack a
    factor get the one that makes both alike on the median frame. Fewer than 3 stars with a night
    mean: formal.
    """
    from scipy.special import chdtri

    measured = np.isfinite(deviation)
    n_frames = measured.sum(axis=0)
    dated = measured & (n_frames > 1) & (weight > 0)
    n_dated = dated.sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        freed = np.where(dated, deviation * np.sqrt(n_frames / (n_frames - 1)), 0.0)
        of_dated = dated @ weight
        mean = freed @ weight / of_dated
        square = np.where(dated, (freed - mean[:, None]) ** 2, 0.0) @ weight
        variance = square / (n_dated - 1) / of_dated
        formal = np.sqrt(np.where(measured, errors**2, 0.0) @ weight**2) / (measured @ weight)
    several = n_dated >= 3
    empirical = np.sqrt(np.where(several, variance, 0.0))
    if not errors_known and (formal[several] > 0).any():
        formal = formal * np.median(empirical[several]) / np.median(formal[several])
    degrees = np.maximum(n_dated - 1, 1)
    by_chance = np.sqrt(chdtri(degrees, FRAME_CHANCE) / degrees)
    believed = several & (empirical > formal * by_chance)
    random = np.where(believed, empirical, formal)
    return np.where(measured.any(axis=1), random, np.nan)


# -------------------------------------------------------------------------------------- the level


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """Where comps put a night on the catalogue's scale, arrays of shape (n_comps,).

    `weight` is Huber's, 0…1, and 0 of the `suspect` ones. `leave_one_out_mag` is the comp's value
    less the level of the others that are not suspect, `leave_one_out_sigma` its size over its
    expected error; NaN where there are no others.
    """

    value_mag: float
    error_mag: float
    weight: FloatArray
    suspect: BoolArray
    leave_one_out_mag: FloatArray
    leave_one_out_sigma: FloatArray


def robust_level(
    values_mag: FloatArray,
    catalogue_error_mag: FloatArray,
    measured_error_mag: FloatArray,
    unmodelled_mag: FloatArray | float = 0.0,
) -> Level:
    """Return the level of the comps' night means, and which comp does not belong (DOMAIN 6b, 6e).

    Parameters
    ----------
    values_mag
        Night-mean zero points, on any common level, shape (n_comps,).
    catalogue_error_mag, measured_error_mag
        e_i of the catalogue, and the error of the night mean.
    unmodelled_mag
        What a comp may be off without being wrong: the colour term where none is applied.

    Notes
    -----
    The plain mean, with Huber's weights (k = 1.345) for comps that lie far off in units of u_i, the
    three errors in quadrature; where the comps as a whole scatter by more than u_i, by s = 1.4826
    MAD beyond the MAD's own sampling error, s u_i is the unit. The error is sqrt(Σw²e²)/Σw times
    `disagreement`; for equal weights and comps that agree that is DOMAIN's sqrt(Σe²)/n.

    A comp is suspect when its distance from the others' level is larger than chance brings about in
    5 % of the nights with as many comps, none of them wrong; the farthest first, then the rest
    without it, as long as a majority is left. A suspect one does not count. Two comps that differ
    tell nothing of which is wrong: their plain mean.
    """
    unit = np.hypot(np.hypot(catalogue_error_mag, measured_error_mag), unmodelled_mag)
    unit = unit * _excess(values_mag, unit)
    n = len(values_mag)
    suspect = np.zeros(n, dtype=bool)
    offset, sigma = _against_others(values_mag, unit, ~suspect)
    limit = NormalDist().inv_cdf(1 - NAMED_CHANCE / (2 * n))
    while suspect.sum() < (n - 1) // 2:
        named = np.where(~suspect & (np.abs(offset) > NAMED_MIN_MAG), sigma, -np.inf)
        if named.max() <= limit:
            break
        suspect[int(np.argmax(named))] = True
        offset, sigma = _against_others(values_mag, unit, ~suspect)
    value, weight = _huber_mean(values_mag, unit, ~suspect)
    excess = disagreement(
        values_mag - value, np.hypot(catalogue_error_mag, measured_error_mag), weight, suspect
    )
    return Level(
        value_mag=value,
        error_mag=level_error(catalogue_error_mag, weight, excess),
        weight=weight,
        suspect=suspect,
        leave_one_out_mag=offset,
        leave_one_out_sigma=sigma,
    )


def level_error(catalogue_error_mag: FloatArray, weight: FloatArray, excess: float) -> float:
    """Return sqrt(Σ w² e²)/Σw times the comps' `disagreement` (DOMAIN 6b), the floor at least."""
    formal = float(np.linalg.norm(weight * catalogue_error_mag) / weight.sum())
    return max(formal * excess, ERROR_FLOOR_MAG)


def disagreement(
    residual_mag: FloatArray, error_mag: FloatArray, weight: FloatArray, suspect: BoolArray
) -> float:
    """Return by how many times their errors the comps disagree, 1 at least; shape (n_comps,).

    The largest of what the comps that count say, √χ²_red (DOMAIN 6b), and, as those that were named
    have left the others too much of one mind, of what all of them say: 1.4826 MAD of the pulls
    where it is beyond 1 by more than 1.5 times its own sampling error; and √χ²_red of all where the
    suspects are more than one and more than a tenth: then errors are underquoted rather than stars
    wrong.

    Notes
    -----
    Measured on 3 to 20 comps: right errors cost 5 to 14 % (pulls of the level 0.90 to 0.98), errors
    that are twice the quoted ones have pulls of 1.2 to 1.7 (χ² of the survivors alone: 1.5 to 2.0).
    """
    found = [1.0, float(np.sqrt(chi2_reduced(residual_mag, error_mag, weight)))]
    n = len(residual_mag)
    if n >= 3:
        pulls = residual_mag / error_mag
        spread = quality.scatter(pulls) or 0.0
        if spread > 1 + DISAGREEING_SIGMA * MAD_RELATIVE_ERROR / float(np.sqrt(n)):
            found.append(spread)
        if suspect.sum() > max(1.0, MANY_SUSPECTS * n):
            found.append(float(np.sqrt(np.sum(pulls**2) / (n - 1))))
    return max(found)


def chi2_reduced(residual_mag: FloatArray, error_mag: FloatArray, weight: FloatArray) -> float:
    """Return χ²_red of residuals about their level; 0 where only one comp counts."""
    degrees = float(weight.sum()) - 1
    if degrees < 1e-6:
        return 0.0
    return float(np.sum(weight * (residual_mag / error_mag) ** 2)) / degrees


def _excess(values: FloatArray, unit: FloatArray) -> float:
    """Return by how much the values scatter more than they should, 1 at least.

    1.4826 MAD of n values is itself known to 1.16/sqrt(n): only what is beyond counts. Of two
    nobody knows which lies off: 1.
    """
    if len(values) < 3:
        return 1.0
    deviation = float(np.median(np.abs(values - np.median(values)) / unit))
    return max(
        1.0,
        quality.MAD_TO_SIGMA * deviation / (1 + MAD_RELATIVE_ERROR / float(np.sqrt(len(values)))),
    )


def _huber_mean(values: FloatArray, unit: FloatArray, kept: BoolArray) -> tuple[float, FloatArray]:
    """Return the mean of the `kept` values with Huber's weights, from their median; the weights."""
    weight = kept.astype(float)
    if kept.sum() < 3:  # no majority
        return float(values[kept].mean()), weight
    value = float(np.median(values[kept]))
    for _ in range(HUBER_ROUNDS):
        allowed = HUBER_K * unit
        weight = np.where(kept, allowed / np.maximum(np.abs(values - value), allowed), 0.0)
        before, value = value, float(np.sum(weight * values) / weight.sum())
        if abs(value - before) < HUBER_TOLERANCE_MAG:
            break
    return value, weight


def _against_others(
    values: FloatArray, unit: FloatArray, kept: BoolArray
) -> tuple[FloatArray, FloatArray]:
    """Return each value less the level of the other `kept` ones, and that over its error."""
    offset = np.full(len(values), np.nan)
    sigma = np.full(len(values), np.nan)
    for i in range(len(values)):
        others = kept.copy()
        others[i] = False
        if not others.any():
            continue
        level, weight = _huber_mean(values, unit, others)
        error = np.linalg.norm(weight * unit) / weight.sum()
        offset[i] = values[i] - level
        sigma[i] = abs(offset[i]) / np.hypot(unit[i], error)
    return offset, sigma


# ------------------------------------------------------------------------------- restless comps


def against_the_others(zero: NightZeroPoint) -> tuple[FloatArray, FloatArray]:
    """Return how far each star is from the others on every frame, and the error of that.

    Magnitudes of shape (n_frames, n_stars), the deviation from the zero point without the star
    itself; NaN where it was not measured or was alone.
    """
    measured = np.isfinite(zero.deviation_mag)
    of_each = np.where(measured, zero.weight, 0.0)
    others = of_each.sum(axis=1, keepdims=True) - of_each
    square = np.where(measured, zero.error_mag**2, 0.0) * zero.weight**2
    with np.errstate(invalid="ignore", divide="ignore"):
        apart = zero.deviation_mag * (of_each + others) / others
        of_others = (square.sum(axis=1, keepdims=True) - square) / others**2
        error = np.sqrt(zero.error_mag**2 + of_others)
    alone = others <= 1e-9
    return np.where(alone, np.nan, apart), np.where(alone, np.nan, error)


@dataclass(frozen=True, slots=True, kw_only=True)
class Restlessness:
    """How much each star scatters against the others, shape (n_stars,); NaN: not known."""

    scatter_mag: FloatArray
    expected_mag: FloatArray
    restless: BoolArray


def restlessness(zero: NightZeroPoint, formal_error_mag: FloatArray) -> Restlessness:
    """Return which stars vary from frame to frame, three times more than they and the others do.

    Against its formal error and against what is usual among the night's stars; 10 frames and 3
    stars at least (of two nobody knows which one it is).

    Parameters
    ----------
    zero
        The night with the weights of `steadiness`.
    formal_error_mag
        Errors as measured, shape (n_frames, n_stars).
    """
    apart, error = against_the_others(replace(zero, error_mag=formal_error_mag))
    scatter = quality.scatter_of_columns(apart)
    expected = quality.median_of_columns(error)
    n_frames = np.isfinite(apart).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = scatter / expected
    judged = np.isfinite(ratio) & (n_frames >= RESTLESS_MIN_FRAMES)
    restless = np.zeros(len(scatter), dtype=bool)
    if judged.sum() >= 3:
        usual = max(1.0, float(np.median(ratio[judged])))
        restless = judged & (ratio > RESTLESS_FACTOR * usual) & (scatter > RESTLESS_MIN_MAG)
    return Restlessness(scatter_mag=scatter, expected_mag=expected, restless=restless)
