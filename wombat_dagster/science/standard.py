"""Standard magnitudes: from counts of T1, T2, C3… to magnitudes on the catalogue's system.

First the formulas of DOMAIN section 6, each by itself; then `standardise`, which applies them to a
night. Notation of the AAVSO's transformation programs (TA, TG): lower case instrumental, upper case
standard, ``s`` star, ``c`` comp; ``Tv_bv`` is the slope of V - v against B - V.

The pair of filters and the colour in time of a two-filter night are in `two_filters`. What stays
out: the fit of a colour term to the night's own comps has its formulas here and is not yet called
by `standardise`; the field ensemble is to come.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from wombat_dagster import domain
from wombat_dagster.domain import BoolArray, FloatArray
from wombat_dagster.science import quality
from wombat_dagster.science.two_filters import (
    MAX_GAP_D,
    ColourCurve,
    FilterPair,
    MagnitudeCurve,
    choose_pairs,
    colour_curve,
)

Number = float | FloatArray

MAG_PER_RELATIVE_ERROR: Final = 2.5 / np.log(10)
UNKNOWN_CATALOGUE_ERROR_MAG: Final = 0.05  # of a chart star whose error the catalogue leaves out
UNKNOWN_COLOUR_ERROR_MAG: Final = 0.1
ERROR_FLOOR_MAG: Final = 0.001
LIMIT_SNR: Final = 3.0

COMP_OFF_MAG: Final = 0.05
COMP_OFF_SIGMA: Final = 3.0
DISAGREEING_CHI2_REDUCED: Final = 3.0

HELD_OFFSET_MAG: Final = 0.05
HELD_OFFSET_SIGMA: Final = 3.0
HELD_OFFSET_NON_STANDARD_MAG: Final = 0.5
HELD_SCATTER_FACTOR: Final = 2.0
SCATTER_MIN_FRAMES: Final = 5  # T2's scatter over fewer is no evidence of anything
NON_STANDARD_BANDS: Final = frozenset({"CV", "CR", "CBB", "TG", "TB", "TR"})

HUBER_K: Final = 1.345  # 95 % efficient for Gaussian errors
HUBER_DROP_WEIGHT: Final = 0.5
HUBER_ROUNDS: Final = 100
COLOUR_FIT_MIN_COMPS: Final = 5
COLOUR_FIT_MIN_RANGE_MAG: Final = 0.4

TWO_FILTER_TOLERANCE_MAG: Final = 1e-4
TWO_FILTER_ROUNDS: Final = 15

EXTINCTION_MIN_AIRMASS_DIFFERENCE: Final = 0.01

NO_COEFFICIENTS: Final[Mapping[str, float]] = MappingProxyType({})

# The coefficient for one filter alone, with a colour supplied (TA help).
SINGLE_FILTER_COEFFICIENT: Final = {
    "B": ("Tb_bv", "B-V"),
    "V": ("Tv_bv", "B-V"),
    "R": ("Tr_vi", "V-I"),
    "I": ("Ti_vi", "V-I"),
}

# ---------------------------------------------------------------------- instrumental magnitudes


def instrumental_magnitude(source_sky_adu: FloatArray, exposure_s: FloatArray) -> FloatArray:
    """Return -2.5 log10(source / exposure), any shape; NaN where the source is not positive."""
    positive = np.where(source_sky_adu > 0, source_sky_adu, np.nan)
    return -2.5 * np.log10(positive / exposure_s)


def instrumental_error(source_sky_adu: FloatArray, source_error_adu: FloatArray) -> FloatArray:
    """Return the 1-sigma error in magnitudes, to first order; NaN where the source is <= 0."""
    positive = np.where(source_sky_adu > 0, source_sky_adu, np.nan)
    return MAG_PER_RELATIVE_ERROR * source_error_adu / positive


def limiting_source(
    source_sky_adu: FloatArray,
    source_error_adu: FloatArray,
    *,
    gain_e_adu: float = 1.0,
    snr: float = LIMIT_SNR,
) -> FloatArray:
    """Return the counts that would have had `snr` in the same aperture, any shape.

    The measured variance less the star's own photons is that of the place; a star of F counts there
    has F / sqrt(F/g + variance) = snr.
    """
    place = np.clip(source_error_adu**2 - np.maximum(source_sky_adu, 0) / gain_e_adu, 0, None)
    per_photon = snr**2 / gain_e_adu
    return (per_photon + np.sqrt(per_photon**2 + 4 * snr**2 * place)) / 2


# ---------------------------------------------------------------------------- one filter, no colour


def single_comp_magnitude(star: Number, comp: Number, comp_catalogue: Number) -> Number:
    """Return V = v - v_c + V_c (DOMAIN 6a)."""
    return star - comp + comp_catalogue


@dataclass(frozen=True, slots=True, kw_only=True)
class EnsembleZeroPoint:
    """Zero points of the comps of one frame, put together in the usual ways; magnitudes."""

    mean: float
    median: float
    weighted: float  # by 1 / (instrumental² + catalogue² error)
    sd: float  # over comps, n - 1; NaN for one comp
    sem: float  # sd / sqrt(n)
    weighted_error: float


def ensemble_zero_point(
    instrumental: FloatArray,
    instrumental_error: FloatArray,
    catalogue: FloatArray,
    catalogue_error: FloatArray,
) -> EnsembleZeroPoint:
    """Return the zero point of one frame from its comps, arrays of shape (n_comps,) (DOMAIN 6b)."""
    zero_points = catalogue - instrumental
    weights = 1 / (instrumental_error**2 + catalogue_error**2)
    n = len(zero_points)
    sd = float(np.std(zero_points, ddof=1)) if n > 1 else float("nan")
    return EnsembleZeroPoint(
        mean=float(zero_points.mean()),
        median=float(np.median(zero_points)),
        weighted=float(np.average(zero_points, weights=weights)),
        sd=sd,
        sem=sd / float(np.sqrt(n)),
        weighted_error=float(1 / np.sqrt(weights.sum())),
    )


def aij_magnitude(
    source_adu: float,
    source_error_adu: float,
    comp_source_adu: FloatArray,
    comp_error_adu: FloatArray,
    comp_catalogue: FloatArray,
) -> tuple[float, float]:
    """Return Source_AMag and Source_AMag_Err as AstroImageJ defines them (DOMAIN 4).

    The comps' fluxes are summed, their catalogue errors left out.
    """
    total = comp_source_adu.sum()
    total_magnitude = -2.5 * np.log10(np.sum(10 ** (-0.4 * comp_catalogue)))
    relative = np.hypot(source_error_adu / source_adu, np.sqrt(np.sum(comp_error_adu**2)) / total)
    magnitude = total_magnitude - 2.5 * np.log10(source_adu / total)
    return float(magnitude), float(2.5 * np.log10(1 + relative))


# ----------------------------------------------------------------------------------- colour terms


def one_filter_magnitude(
    star: Number,
    comp: Number,
    comp_catalogue: Number,
    *,
    coefficient: float,
    colour_difference: Number,
) -> Number:
    """Return V = v - v_c + V_c + T Δ, Δ the catalogue colours star less comp (DOMAIN 6f)."""
    return single_comp_magnitude(star, comp, comp_catalogue) + coefficient * colour_difference


def transformed_error(
    star_error: Number,
    comp_error: Number,
    *,
    coefficient: float,
    coefficient_error: float,
    colour_difference: Number,
    colour_error: Number,
) -> Number:
    """Return the 1-sigma error of a transformed magnitude (DOMAIN 6d).

    σ² = σ_s² + σ_c² + (σ_T Δ)² + T² σ_colour². The comp's catalogue error is left out, as WebObs
    wants it. The expanded form: TA's own code returns 0 where Δ is 0.
    """
    return np.sqrt(
        star_error**2
        + comp_error**2
        + (coefficient_error * colour_difference) ** 2
        + (coefficient * colour_error) ** 2
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Coefficient:
    """One transformation coefficient and its 1-sigma error."""

    value: float
    error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TwoFilterMagnitudes:
    """B and V of a star by two filters and one comp. `rounds` is 0 for the closed form."""

    blue: float
    red: float
    colour_difference: float  # star less comp
    rounds: int


def two_filter_magnitudes(
    star: tuple[float, float],
    comp: tuple[float, float],
    comp_catalogue: tuple[float, float],
    *,
    blue_coefficient: float,
    red_coefficient: float,
    tolerance_mag: float = TWO_FILTER_TOLERANCE_MAG,
) -> TwoFilterMagnitudes:
    """Return B and V by iteration; every pair is (blue, red) (DOMAIN 6c).

    B = b + (B_c - b_c) + Tb_bv Δ, V = v + (V_c - v_c) + Tv_bv Δ, Δ = (B-V) - (B_c-V_c), from
    B = b, V = v until both move less than `tolerance_mag`.
    """
    blue, red = star
    untransformed = [s - c + k for s, c, k in zip(star, comp, comp_catalogue, strict=True)]
    comp_colour = comp_catalogue[0] - comp_catalogue[1]
    difference, rounds = 0.0, 0
    for rounds in range(1, TWO_FILTER_ROUNDS + 1):  # noqa: B007 - told to the caller
        difference = blue - red - comp_colour
        before = blue, red
        blue = untransformed[0] + blue_coefficient * difference
        red = untransformed[1] + red_coefficient * difference
        if max(abs(blue - before[0]), abs(red - before[1])) < tolerance_mag:
            break
    return TwoFilterMagnitudes(
        blue=blue, red=red, colour_difference=blue - red - comp_colour, rounds=rounds
    )


def two_filter_closed_form(
    star: tuple[float, float],
    comp: tuple[float, float],
    comp_catalogue: tuple[float, float],
    *,
    blue_coefficient: float,
    red_coefficient: float,
) -> TwoFilterMagnitudes:
    """Return where `two_filter_magnitudes` converges: Δ = Δ(b-v) / (1 - Tb_bv + Tv_bv)."""
    instrumental_difference = (star[0] - star[1]) - (comp[0] - comp[1])
    difference = instrumental_difference / (1 - blue_coefficient + red_coefficient)
    return TwoFilterMagnitudes(
        blue=star[0] - comp[0] + comp_catalogue[0] + blue_coefficient * difference,
        red=star[1] - comp[1] + comp_catalogue[1] + red_coefficient * difference,
        colour_difference=difference,
        rounds=0,
    )


def guide_form_magnitude(
    star: float,
    comp: float,
    comp_catalogue: float,
    *,
    coefficient: float,
    colour_coefficient: float,
    instrumental_colour_difference: float,
) -> float:
    """Return V = v - v_c + V_c + Tv_bv Tbv Δ(b-v), the AAVSO photometry guide's form (DOMAIN 6c).

    The same as `two_filter_closed_form` when Tbv = 1 / (1 - Tb_bv + Tv_bv).
    """
    colour_difference = colour_coefficient * instrumental_colour_difference
    return star - comp + comp_catalogue + coefficient * colour_difference


def two_filter_errors(
    star_error: tuple[float, float],
    comp_error: tuple[float, float],
    *,
    blue_coefficient: Coefficient,
    red_coefficient: Coefficient,
    colour_difference: float,
) -> tuple[float, float]:
    """Return the errors of B and V (DOMAIN 6d).

    Each error holds T² times the colour's variance, which holds both errors: iterated like the
    values, to 1e-9 mag.
    """
    errors = (0.0, 0.0)
    for _ in range(TWO_FILTER_ROUNDS):
        before, colour_error = errors, float(np.hypot(*errors))
        errors = (
            float(
                transformed_error(
                    star_error[0],
                    comp_error[0],
                    coefficient=blue_coefficient.value,
                    coefficient_error=blue_coefficient.error,
                    colour_difference=colour_difference,
                    colour_error=colour_error,
                )
            ),
            float(
                transformed_error(
                    star_error[1],
                    comp_error[1],
                    coefficient=red_coefficient.value,
                    coefficient_error=red_coefficient.error,
                    colour_difference=colour_difference,
                    colour_error=colour_error,
                )
            ),
        )
        if np.allclose(before, errors, rtol=0, atol=1e-9):
            break
    return errors


@dataclass(frozen=True, slots=True, kw_only=True)
class ColourFit:
    """A line through zero points against colour: zp + T (colour - mean_colour).

    `weights` are the robust ones, 1 for a star that fits, 0 for one that was dropped.
    """

    zero_point: float
    coefficient: float
    zero_point_error: float
    coefficient_error: float
    mean_colour: float
    rms: float  # about the line, n - 2; NaN for two stars
    weights: tuple[float, ...]

    def magnitude(self, star: float, colour: float) -> float:
        """Return V = v + zp + T (colour - mean colour)."""
        return star + self.zero_point + self.coefficient * (colour - self.mean_colour)


def fit_colour_term(
    zero_points: FloatArray,
    errors: FloatArray,
    colours: FloatArray,
    *,
    weights: FloatArray | None = None,
) -> ColourFit:
    """Return the line V_i - v_i = zp + T (colour_i - mean), weighted by 1/σ² (DOMAIN 6e).

    Parameters
    ----------
    zero_points, errors, colours
        V_i - v_i, its error hypot(σ_v, σ_V), and the catalogue colour of each comp; shape (n,).
    weights
        Robust weights 0…1 on top of 1/σ²; a star of weight 0 is out.

    Notes
    -----
    The mean colour is the plain mean of all comps, dropped ones included, so that zero points of
    the same comps compare.
    """
    robust = np.ones(len(colours)) if weights is None else weights
    mean_colour = float(colours.mean())
    design = np.column_stack([np.ones(len(colours)), colours - mean_colour])
    weighted = design.T * (robust / errors**2)
    covariance = np.linalg.inv(weighted @ design)
    zero_point, coefficient = covariance @ weighted @ zero_points
    left = (zero_points - design @ [zero_point, coefficient])[robust > 0]
    rms = np.sqrt(np.sum(left**2) / (len(left) - 2)) if len(left) > 2 else np.nan
    zero_point_error, coefficient_error = np.sqrt(np.diag(covariance))
    return ColourFit(
        zero_point=float(zero_point),
        coefficient=float(coefficient),
        zero_point_error=float(zero_point_error),
        coefficient_error=float(coefficient_error),
        mean_colour=mean_colour,
        rms=float(rms),
        weights=tuple(float(w) for w in robust),
    )


def fit_colour_term_huber(
    zero_points: FloatArray, errors: FloatArray, colours: FloatArray
) -> ColourFit:
    """Return the line by Huber's weights, k = 1.345 (DOMAIN 6e); arguments of `fit_colour_term`.

    Residuals in units of their errors; where these scatter more than they should, by
    1.4826 MAD > 1, that is the unit.
    """
    fit = fit_colour_term(zero_points, errors, colours)
    for _ in range(HUBER_ROUNDS):
        line = fit.zero_point + fit.coefficient * (colours - fit.mean_colour)
        residuals = (zero_points - line) / errors
        deviation = np.median(np.abs(residuals - np.median(residuals)))
        allowed = HUBER_K * max(1.0, quality.MAD_TO_SIGMA * float(deviation))
        weights = allowed / np.maximum(np.abs(residuals), allowed)
        settled = np.allclose(weights, fit.weights, rtol=0, atol=1e-10)
        fit = fit_colour_term(zero_points, errors, colours, weights=weights)
        if settled:
            break
    return fit


def fit_colour_term_clipped(
    zero_points: FloatArray, errors: FloatArray, colours: FloatArray
) -> ColourFit:
    """Return the line without the stars to which Huber gives less than half weight (DOMAIN 6e)."""
    huber = fit_colour_term_huber(zero_points, errors, colours)
    kept = np.asarray(huber.weights) >= HUBER_DROP_WEIGHT
    return fit_colour_term(zero_points, errors, colours, weights=kept.astype(float))


def may_free_colour_term(colours: FloatArray) -> bool:
    """Say whether comps of these colours can hold a free T: at least 5 over 0.4 mag (DOMAIN 6e)."""
    spread = round(float(np.ptp(colours)), 6)  # 0.6 - 0.2 is less than 0.4 in binary
    return len(colours) >= COLOUR_FIT_MIN_COMPS and spread >= COLOUR_FIT_MIN_RANGE_MAG


# -------------------------------------------------------------------------------------- extinction


def first_order_extinction(k1: float, airmass_star: Number, airmass_comp: Number) -> Number:
    """Return the correction -k1 (X_s - X_c) to a magnitude (DOMAIN 6g).

    Within one frame 0 but for wide fields: whoever applies it asks `extinction_matters` first.
    """
    return -k1 * (airmass_star - airmass_comp)


def second_order_extinction(
    k2: float,
    colour_star: Number,
    airmass_star: Number,
    colour_comp: Number,
    airmass_comp: Number,
) -> Number:
    """Return the correction -k2 Δ(colour X) to a B magnitude (DOMAIN 6g)."""
    return -k2 * (colour_star * airmass_star - colour_comp * airmass_comp)


def extinction_matters(airmass_star: Number, airmass_comp: Number) -> bool | BoolArray:
    """Say where star and comp differ by more than 0.01 in airmass (DOMAIN 6g)."""
    return np.abs(airmass_star - airmass_comp) > EXTINCTION_MIN_AIRMASS_DIFFERENCE


# ------------------------------------------------------------------------ the night's zero points


@dataclass(frozen=True, slots=True, kw_only=True)
class NightZeroPoint:
    """Zero points of a night from a fixed set of comps.

    Arrays of shape (n_frames,), but `residual_mag` (n_comps,): the comp's zero point less the
    ensemble's over the night, NaN for a comp that was never measured; and `deviation_mag`,
    `error_mag` (n_frames, n_comps): what is left of each comp, and its formal error.
    """

    zero_point_mag: FloatArray
    random_mag: FloatArray
    n_comps: NDArray[np.int64]
    residual_mag: FloatArray
    deviation_mag: FloatArray
    error_mag: FloatArray


def night_zero_point(
    zero_points: FloatArray, errors: FloatArray, *, errors_known: bool = True
) -> NightZeroPoint:
    """Return the zero point of every frame, without a step where a comp is missing (DOMAIN 6b).

    Parameters
    ----------
    zero_points, errors
        V_i - v_i(t) and the formal error of v_i(t), shape (n_frames, n_comps); NaN: not measured.
    errors_known
        False: the formal errors are right but for a factor.

    Notes
    -----
    Least squares for zp_i(t) = zp(t) + r_i with Σ r_i = 0: where no comp is missing zp(t) is their
    plain mean and r_i + mean(zp) the night mean of zp_i.
    """
    measured = np.isfinite(zero_points)
    n_comps = measured.sum(axis=1)
    residual = _comp_residuals(zero_points, measured)
    levelled = np.where(measured, zero_points - residual, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):  # frames without a comp become NaN
        zero_point = levelled.sum(axis=1) / n_comps
        deviation = zero_points - residual - zero_point[:, None]
    return NightZeroPoint(
        zero_point_mag=zero_point,
        random_mag=_zero_point_random(deviation, errors, errors_known=errors_known),
        n_comps=n_comps.astype(np.int64),
        residual_mag=np.where(measured.any(axis=0), residual, np.nan),
        deviation_mag=deviation,
        error_mag=errors,
    )


def _comp_residuals(zero_points: FloatArray, measured: BoolArray) -> FloatArray:
    """Return r_i of `night_zero_point`, the normal equations after zp(t) is eliminated.

    lstsq takes the shortest solution, hence Σ r_i = 0; where two sets of comps never share a frame
    it leaves each on its own catalogue level.
    """
    seen = measured[measured.any(axis=1)].astype(float)
    values = np.where(measured, zero_points, 0.0)[measured.any(axis=1)]
    per_frame = seen.sum(axis=1, keepdims=True)
    frame_mean = values.sum(axis=1, keepdims=True) / per_frame
    normal = np.diag(seen.sum(axis=0)) - seen.T @ (seen / per_frame)
    right = (seen * (values - frame_mean)).sum(axis=0)
    return np.linalg.lstsq(normal, right, rcond=1e-10)[0]


def _zero_point_random(
    deviation: FloatArray, errors: FloatArray, *, errors_known: bool
) -> FloatArray:
    """Return σ_zp of every frame: sd of the comps about their night means / sqrt(n).

    The night means come from the same frames, so a comp seen on N frames scatters about its own by
    sqrt((N - 1)/N) too little: taken out. Never less than the formal sqrt(Σ σ_i²)/n: three comps
    agree by luck. Formal errors that lack a factor get the one that makes both alike on the median
    frame. Fewer than 3 comps with a night mean: formal.
    """
    measured = np.isfinite(deviation)
    n_comps = measured.sum(axis=1)
    n_frames = measured.sum(axis=0)
    dated = measured & (n_frames > 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        freed = deviation * np.sqrt(n_frames / (n_frames - 1))
        n_dated = dated.sum(axis=1)
        mean = np.where(dated, freed, 0).sum(axis=1) / n_dated
        square = np.where(dated, (freed - mean[:, None]) ** 2, 0).sum(axis=1)
        empirical = np.sqrt(square / (n_dated - 1) / n_comps)
        formal = np.sqrt(np.where(measured, errors**2, 0).sum(axis=1)) / n_comps
    several = n_dated >= 3
    if not errors_known and (formal[several] > 0).any():
        formal = formal * np.median(empirical[several]) / np.median(formal[several])
    random = np.where(several, np.fmax(empirical, formal), formal)
    return np.where(n_comps == 0, np.nan, random)


def level_error(residual_mag: FloatArray, catalogue_error_mag: FloatArray) -> float:
    """Return the error of the night's zero point, one number (DOMAIN 6b).

    sqrt(Σ e_i²)/n, enlarged by sqrt(χ²_red) where the comps' night means disagree by more than
    their catalogue errors e_i allow; shape (n_comps,) both. One comp: e_1.
    """
    formal = float(np.sqrt(np.sum(catalogue_error_mag**2)) / len(residual_mag))
    return formal * max(1.0, float(np.sqrt(chi2_reduced(residual_mag, catalogue_error_mag))))


def chi2_reduced(residual_mag: FloatArray, catalogue_error_mag: FloatArray) -> float:
    """Return χ²_red of the comps' night means about their plain mean; 0 for one comp."""
    n = len(residual_mag)
    if n == 1:
        return 0.0
    deviation = residual_mag - residual_mag.mean()
    return float(np.sum((deviation / catalogue_error_mag) ** 2)) / (n - 1)


# ---------------------------------------------------------------------------- the transformation


def choose_transformation(
    band: str,
    coefficients: dict[str, float],
    errors: dict[str, float],
    target_colour: dict[str, float],
    colour_errors: dict[str, float],
) -> domain.Transformation:
    """Return the colour term for one filter alone: stored coefficient and the variable's colour.

    `coefficients` and `errors` by TG's names (``Tv_bv``), colours by index (``B-V``). Only B, V, R
    and I have a recommended one; without it, or without the colour, `coefficient` is None and
    `source` says why. CV, TG and their kind keep their codes and get no colour term.
    """
    if band not in SINGLE_FILTER_COEFFICIENT:
        return domain.Transformation(source=f"none: no coefficient is defined for {band} alone")
    name, index = SINGLE_FILTER_COEFFICIENT[band]
    missing = [
        words
        for known, words in (
            (name in coefficients, f"no coefficient {name}"),
            (index in target_colour, f"no {index} of the variable"),
        )
        if not known
    ]
    if missing:
        return domain.Transformation(
            coefficient_name=name, colour_index=index, source="none: " + ", ".join(missing)
        )
    return domain.Transformation(
        coefficient_name=name,
        coefficient=coefficients[name],
        coefficient_error=errors.get(name),
        colour_index=index,
        target_colour=target_colour[index],
        target_colour_error=colour_errors.get(index, UNKNOWN_COLOUR_ERROR_MAG),
        source="configuration",
    )


# ------------------------------------------------------------------------------- the whole night


@dataclass(frozen=True, slots=True, kw_only=True)
class _Series:
    """Instrumental magnitudes of a night, shape (n_frames, n_stars); NaN: not usable."""

    magnitude: FloatArray
    error: FloatArray

    @classmethod
    def of(cls, table: domain.PhotometryTable) -> "_Series":
        """Take a table's positive, finite measurements; saturated ones too."""
        measured = table.measured
        magnitude = instrumental_magnitude(measured.source_sky_adu, table.exposure_s[:, None])
        error = instrumental_error(measured.source_sky_adu, measured.source_error_adu)
        good = np.isfinite(magnitude) & np.isfinite(error)
        good &= (measured.flags & domain.Flag.UNMEASURED) == 0
        return cls(magnitude=np.where(good, magnitude, np.nan), error=np.where(good, error, np.nan))

    def where(self, kept: BoolArray) -> "_Series":
        """Return the series with NaN where not `kept`."""
        return _Series(
            magnitude=np.where(kept, self.magnitude, np.nan),
            error=np.where(kept, self.error, np.nan),
        )

    def stars(self, indices: list[int]) -> "_Series":
        """Return the columns `indices`."""
        return _Series(magnitude=self.magnitude[:, indices], error=self.error[:, indices])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Comps:
    """The comps of a table that have a catalogue magnitude, and where each of them counts."""

    listed: list[int]
    seen: list[int]  # those that count on some frame
    usable: BoolArray  # shape (n_frames, n_stars)


@dataclass(frozen=True, slots=True, kw_only=True)
class _CompColours:
    """What the comps are transformed by; `of_comp` holds the catalogue colours by comp."""

    coefficient: float
    index: str
    of_comp: Mapping[str, float]
    lacking: str  # words for a comp that is not in `of_comp`


@dataclass(frozen=True, slots=True, kw_only=True)
class _Term:
    """The colour term T Δ of one star and what it adds to the star's errors; shape (n_frames,).

    `own_weight` is how often the frame's own magnitude is in the term, `other_error` the noise that
    other frames bring in, `level_error` what is the same on every frame. `measured`: not borrowed
    from a distant frame.
    """

    magnitude: FloatArray
    own_weight: FloatArray
    other_error: FloatArray
    level_error: float
    measured: BoolArray

    @classmethod
    def constant(cls, n_frames: int, magnitude: float, level_error: float = 0.0) -> "_Term":
        """Return the same term on every frame."""
        nothing = np.zeros(n_frames)
        return cls(
            magnitude=nothing + magnitude,
            own_weight=nothing,
            other_error=nothing,
            level_error=level_error,
            measured=np.ones(n_frames, dtype=bool),
        )

    def random(self, own_error: FloatArray) -> FloatArray:
        """Return the random error of a star whose untransformed magnitudes have `own_error`."""
        return np.hypot(own_error * (1 + self.own_weight), self.other_error)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Terms:
    """The colour terms of T1 and T2 and what to note about them."""

    t1: _Term
    t2: _Term
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _MeasuredColour:
    """A night transformed by two filters: what the comps and T1 and T2 are transformed by."""

    comps: _CompColours
    terms: _Terms
    transformation: domain.Transformation


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ensemble:
    """The night's comps and the zero points they give."""

    stars: tuple[domain.ApertureStar, ...]
    zero: NightZeroPoint
    level_error_mag: float
    mean_colour: float | None  # None: no colour term
    residuals: tuple[domain.CompResidual, ...]
    notes: tuple[str, ...]

    @property
    def reference_mag(self) -> float:
        """Mean catalogue magnitude."""
        return float(np.mean([_catalogue(star) for star in self.stars]))

    @property
    def faintest_mag(self) -> float:
        return max(_catalogue(star) for star in self.stars)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Check:
    """T2 standardised, and what it says of the night; arrays of shape (n_frames,)."""

    name: str | None = None
    catalogue_mag: float | None = None
    catalogue_error_mag: float | None = None
    magnitude: FloatArray
    random: FloatArray
    instrumental: FloatArray
    offset_mag: float | None = None
    scatter_mag: float | None = None
    scatter_by_error: float | None = None  # by the median formal error; None over too few frames
    held_reason: str | None = None
    notes: tuple[str, ...] = ()


def standardise(
    table: domain.PhotometryTable,
    *,
    transformation: domain.Transformation,
    merr: Literal["random", "total"] = "random",
    siblings: Sequence[domain.PhotometryTable] = (),
    coefficients: Mapping[str, float] = NO_COEFFICIENTS,
    coefficient_errors: Mapping[str, float] = NO_COEFFICIENTS,
) -> domain.StandardMagnitudes:
    """Return the standard magnitudes of T1 and T2 with both errors (SPEC section 8, DOMAIN 6).

    Per frame the plain mean of the ensemble's zero points, never with T2. T1 gets the colour term
    T (colour - mean colour of the comps) with the colour that two filters measure (DOMAIN 6c); else
    with the coefficient and the variable's colour in `transformation` (6f); else none (6b).

    Parameters
    ----------
    transformation
        The colour term for one filter alone, see `choose_transformation`.
    merr
        What `t1_merr_mag` holds: the random error, or with `zp_err_mag` in quadrature.
    siblings
        The measurements of the same target and night through other filters, in any order.
    coefficients, coefficient_errors
        Stored coefficients by TG's names (``Tv_bv``), from standard fields. An error that is not
        there counts as 0.

    Raises
    ------
    domain.NoStandard
        No comp with a catalogue magnitude was measured, or T1 on no frame together with one.
    ValueError
        A sibling is of another target.

    Notes
    -----
    Where DOMAIN is silent:

    - Saturated and unmeasured comps are out in that frame; masked ones and those at the edge are
      out where another comp is clean.
    - Comps without a catalogue colour are left out of a transformed ensemble if at least half of
      the comps have one; otherwise nothing is transformed. `zero_point_mag` holds for a star of the
      comps' mean colour: T1 = instrumental + zero_point + T (colour - mean).
    - The errors of T and of the variable's colour are the same on every frame: they are in
      `zp_err_mag`, not in the random error. T2's colour is the catalogue's: it has no such part.
    - Two filters: only comps used in all filters concerned count, if they are at least half of
      those used in this one. The colour is interpolated in time (`two_filters.colour_curve`)
      between frames whose point is not proposed to be rejected. Its noise is in the random error,
      less or more by what it shares with the frame's own magnitude; a colour that is the same all
      night has its noise in `zp_err_mag`, where the errors of the coefficients are as well, for the
      root mean square of T1's Δ. Catalogue errors of the comps' colours cancel: Δ is instrumental.
    - A frame farther than 0.1 d from either filter's frames keeps the nearest colour, with 0.1 mag
      as its error, and is proposed to be rejected (``nocolour``): neither a hole nor a step. When
      that is more than half of them, two filters are not used.
    - T2 is transformed like T1, by its own measured colour, so that it checks both filters; where
      that was not measured by its catalogue colour.
    - Gain unknown, or a pedestal in the sky that counts as photons: the formal errors mean nothing,
      T2's scatter scaled to each frame's formal error replaces them, for SNR 3 as well.
    - T2's scatter is used, here, in MERR and to hold the night, from 5 frames on.
    """
    t1 = table.star_index("T1")
    if t1 is None:
        raise domain.NoStandard("no aperture T1 in the measurement table")
    series = _Series.of(table)
    measured, failures = _measure_colour(table, siblings, coefficients, coefficient_errors)
    ensemble = _ensemble(
        table, series, measured.comps if measured else _supplied_colours(table, transformation)
    )
    terms = measured.terms if measured else _supplied_terms(table, ensemble, transformation)
    rejected = quality.propose_rejections(
        table,
        ensemble.zero.zero_point_mag,
        comp_deviation_mag=ensemble.zero.deviation_mag,
        comp_error_mag=ensemble.zero.error_mag,
        without_colour=~terms.t1.measured,
    )
    check = _check_star(table, series, ensemble, terms.t2, rejected)
    snr = LIMIT_SNR if _errors_known(table) else LIMIT_SNR * (check.scatter_by_error or 1.0)
    limited, t1_mag = _target_magnitude(table, series, t1, ensemble, terms.t1, snr)
    random, quoted = _target_errors(table, series.error[:, t1], ensemble, terms.t1, check)
    without_error = limited | ~np.isfinite(t1_mag)
    zp_err = float(np.hypot(ensemble.level_error_mag, terms.t1.level_error))
    if merr == "total":
        quoted = np.hypot(quoted, zp_err)
    return domain.StandardMagnitudes(
        target=table.target,
        filter=table.filter,
        band=table.band,
        comp_band=table.comp_band,
        chart_id=table.chart_id,
        labels=table.labels,
        raw_hashes=table.raw_hashes,
        jd_utc=table.times.jd_utc,
        hjd_utc=table.times.hjd_utc,
        bjd_tdb=table.times.bjd_tdb,
        airmass=table.times.airmass,
        t1_mag=t1_mag,
        t1_random_mag=np.where(without_error, np.nan, random),
        t1_merr_mag=np.where(without_error, np.nan, quoted),
        t1_instrumental_mag=series.magnitude[:, t1],
        t1_upper_limit=limited,
        t2_mag=check.magnitude,
        t2_random_mag=check.random,
        t2_instrumental_mag=check.instrumental,
        zero_point_mag=ensemble.zero.zero_point_mag,
        zero_point_random_mag=_floored(ensemble.zero.random_mag),
        n_comps=ensemble.zero.n_comps,
        proposed_rejected=rejected,
        zp_err_mag=zp_err,
        ensemble_reference_mag=ensemble.reference_mag,
        check_name=check.name,
        check_catalogue_mag=check.catalogue_mag,
        check_catalogue_error_mag=check.catalogue_error_mag,
        check_offset_mag=check.offset_mag,
        check_scatter_mag=check.scatter_mag,
        transformation=measured.transformation if measured else transformation,
        transformed=ensemble.mean_colour is not None,
        method=_method(ensemble, measured),
        comp_names=tuple(_name(star) for star in ensemble.stars),
        held_reason=check.held_reason,
        notes=tuple(
            dict.fromkeys((*table.notes, *failures, *ensemble.notes, *terms.notes, *check.notes))
        ),
        merr=merr,
        comp_residuals=ensemble.residuals,
    )


def _method(ensemble: _Ensemble, measured: _MeasuredColour | None) -> str:
    if measured:
        return "two-filter"
    if len(ensemble.stars) == 1:
        return "single"
    return "ensemble" if ensemble.mean_colour is None else "ensemble+colour"


def _name(star: domain.ApertureStar) -> str:
    return star.auid or star.name


def _catalogue(star: domain.ApertureStar) -> float:
    """Return the catalogue magnitude of a star that has been chosen because it has one."""
    assert star.catalogue_mag is not None
    return star.catalogue_mag


def _known_error(star: domain.ApertureStar) -> float | None:
    """Return the catalogue error; an error of 0 is no error."""
    error = star.catalogue_error_mag
    return error if error is not None and np.isfinite(error) and error > 0 else None


def _catalogue_error(star: domain.ApertureStar) -> float:
    return _known_error(star) or UNKNOWN_CATALOGUE_ERROR_MAG


def _no_error_note(role: str, star: domain.ApertureStar) -> str:
    return f"{role} without catalogue error: {_name(star)}, {UNKNOWN_CATALOGUE_ERROR_MAG} mag taken"


def _floored(errors: FloatArray) -> FloatArray:
    return np.maximum(errors, ERROR_FLOOR_MAG)  # NaN stays NaN


def _comps(table: domain.PhotometryTable, series: _Series) -> _Comps:
    """Return the comps that can give zero points. Raises NoStandard when there is none."""
    listed = [i for i in table.ensemble if table.stars[i].catalogue_mag is not None]
    if not listed:
        raise domain.NoStandard(
            f"no comp of {len(table.ensemble)} has a catalogue magnitude in {table.comp_band}"
        )
    usable = np.zeros(series.magnitude.shape, dtype=bool)
    usable[:, listed] = _usable_comps(table, series, listed)
    seen = [i for i in listed if usable[:, i].any()]
    if not seen:
        raise domain.NoStandard(
            f"none of {len(listed)} comps was measured unsaturated on any of "
            f"{len(table.labels)} frames"
        )
    return _Comps(listed=listed, seen=seen, usable=usable)


def _zero_point(
    table: domain.PhotometryTable, series: _Series, comps: _Comps, chosen: list[int]
) -> NightZeroPoint:
    """Return the night's zero points from the comps `chosen` of those seen."""
    instrumental = series.stars(chosen).where(comps.usable[:, chosen])
    catalogue = np.array([_catalogue(table.stars[i]) for i in chosen])
    return night_zero_point(
        catalogue - instrumental.magnitude, instrumental.error, errors_known=_errors_known(table)
    )


def _errors_known(table: domain.PhotometryTable) -> bool:
    """Say whether the measured errors are those of the photons."""
    return table.gain_e_adu is not None and table.pedestal_removed


def _ensemble(
    table: domain.PhotometryTable, series: _Series, by_colour: _CompColours | None
) -> _Ensemble:
    """Choose the comps, by their colours if there are any, and derive the night's zero points."""
    comps = _comps(table, series)
    chosen, notes = _with_colour(table, comps.seen, by_colour)
    transformed = by_colour if chosen else None
    chosen = chosen or comps.seen
    zero = _zero_point(table, series, comps, chosen)
    stars = tuple(table.stars[i] for i in chosen)
    residual, mean_colour = zero.residual_mag, None
    if transformed:
        colours = np.array([transformed.of_comp[_name(star)] for star in stars])
        mean_colour = float(colours.mean())
        residual = residual - transformed.coefficient * (colours - mean_colour)
    errors = np.array([_catalogue_error(s) for s in stars])
    return _Ensemble(
        stars=stars,
        zero=zero,
        level_error_mag=max(level_error(residual, errors), ERROR_FLOOR_MAG),
        mean_colour=mean_colour,
        residuals=tuple(
            domain.CompResidual(
                name=_name(star),
                residual_mag=-float(one),  # a comp measured too faint wants a larger zero point
                catalogue_error_mag=star.catalogue_error_mag,
                n_frames=int(n_frames),
            )
            for star, one, n_frames in zip(
                stars, residual, np.isfinite(zero.deviation_mag).sum(axis=0), strict=True
            )
        ),
        notes=(
            *notes,
            *_ensemble_notes(table, comps, stars),
            *_agreement_notes(stars, residual, errors, zero.deviation_mag),
        ),
    )


def _agreement_notes(
    stars: tuple[domain.ApertureStar, ...],
    residual: FloatArray,
    errors: FloatArray,
    deviation: FloatArray,
) -> list[str]:
    """Return a note for each comp off its catalogue magnitude, and one when they all disagree.

    A residual's error holds the comp's own catalogue error, the mean's, by all of them, and that of
    its night mean.
    """
    n_frames = np.isfinite(deviation).sum(axis=0)
    of_mean = np.sqrt(np.nanmean(deviation**2, axis=0) / n_frames)
    level = np.linalg.norm(errors) / len(errors)
    allowed = np.maximum(COMP_OFF_MAG, COMP_OFF_SIGMA * np.sqrt(errors**2 + level**2 + of_mean**2))
    notes = [
        f"comp {_name(star)} is {abs(one):.2f} mag off its catalogue"
        for star, one, most in zip(stars, residual, allowed, strict=True)
        if abs(one) > most
    ]
    chi2 = chi2_reduced(residual, errors)
    if chi2 > DISAGREEING_CHI2_REDUCED:
        notes.append(
            f"{len(stars)} comps disagree by more than their catalogue errors, reduced chi-square "
            f"{chi2:.1f}: the zero-point error is enlarged"
        )
    return notes


def _usable_comps(table: domain.PhotometryTable, series: _Series, indices: list[int]) -> BoolArray:
    """Return where each comp counts, shape (n_frames, len(indices))."""
    flags = table.measured.flags[:, indices]
    measured = np.isfinite(series.magnitude[:, indices])
    measured &= (flags & domain.Flag.SATURATED) == 0
    clean = measured & ((flags & (domain.Flag.BAD_PIXEL | domain.Flag.NEAR_EDGE)) == 0)
    return np.where(clean.any(axis=1, keepdims=True), clean, measured)


def _with_colour(
    table: domain.PhotometryTable, indices: list[int], by_colour: _CompColours | None
) -> tuple[list[int], list[str]]:
    """Return the comps that can be transformed, none when too few can, and what to note."""
    if by_colour is None:
        return [], []
    coloured = [i for i in indices if _name(table.stars[i]) in by_colour.of_comp]
    if not _enough(len(coloured), len(indices)):
        return [], [
            f"not transformed: {len(coloured)} of {len(indices)} comps have {by_colour.index}, "
            "at least half wanted"
        ]
    left_out = [_name(table.stars[i]) for i in indices if i not in coloured]
    return coloured, [f"comp {by_colour.lacking} left out: {name}" for name in left_out]


def _enough(n: int, n_all: int) -> bool:
    """Say whether at least half are there, and at least one."""
    return n > 0 and 2 * n >= n_all


def _ensemble_notes(
    table: domain.PhotometryTable, comps: _Comps, stars: tuple[domain.ApertureStar, ...]
) -> list[str]:
    notes = [
        f"comp saturated or not measured on any frame: {_name(table.stars[i])}"
        for i in comps.listed
        if i not in comps.seen
    ]
    notes += [_no_error_note("comp", star) for star in stars if _known_error(star) is None]
    return notes


# ------------------------------------------------------------- one filter with a colour supplied


def _supplied_colours(
    table: domain.PhotometryTable, transformation: domain.Transformation
) -> _CompColours | None:
    """Return the comps' colours for a single filter; None without coefficient or T1's colour."""
    if transformation.coefficient is None or transformation.target_colour is None:
        return None
    index = transformation.colour_index or "colour"
    return _CompColours(
        coefficient=transformation.coefficient,
        index=index,
        of_comp={_name(star): star.colour for star in table.stars if star.colour is not None},
        lacking=f"without {index}",
    )


def _supplied_terms(
    table: domain.PhotometryTable, ensemble: _Ensemble, transformation: domain.Transformation
) -> _Terms:
    """Return T1's term by its supplied colour, T2's by its catalogue colour, 0 without a colour.

    T σ_colour and σ_T Δ of T1 are of the whole night.
    """
    n_frames = len(table.labels)
    coefficient, colour = transformation.coefficient, transformation.target_colour
    if ensemble.mean_colour is None or coefficient is None or colour is None:
        return _Terms(t1=_Term.constant(n_frames, 0.0), t2=_Term.constant(n_frames, 0.0))
    colour_error = transformation.target_colour_error
    error = transformed_error(
        0.0,
        0.0,
        coefficient=coefficient,
        coefficient_error=transformation.coefficient_error or 0.0,
        colour_difference=colour - ensemble.mean_colour,
        colour_error=UNKNOWN_COLOUR_ERROR_MAG if colour_error is None else colour_error,
    )
    term = coefficient * (colour - ensemble.mean_colour)
    t2 = table.star_index("T2")
    check_colour = None if t2 is None else table.stars[t2].colour
    check_term, notes = 0.0, []
    if check_colour is not None:
        check_term = coefficient * (check_colour - ensemble.mean_colour)
    elif t2 is not None:
        notes.append(f"check star without {transformation.colour_index}: no colour term for it")
    return _Terms(
        t1=_Term.constant(n_frames, term, float(error)),
        t2=_Term.constant(n_frames, check_term),
        notes=tuple(notes),
    )


# ----------------------------------------------------------------- the colour through two filters


@dataclass(frozen=True, slots=True, kw_only=True)
class _FilterNight:
    """One filter's night without a colour term, on the comps that all filters concerned share."""

    table: domain.PhotometryTable
    series: _Series
    zero: NightZeroPoint
    rejected: tuple[str, ...]

    def target_curve(self) -> MagnitudeCurve:
        """Return T1 on frames that are not proposed to be rejected, above SNR 3."""
        t1 = self.table.star_index("T1")
        if t1 is None:
            raise domain.NoStandard(f"no T1 through filter {self.table.filter}")
        measured = self.table.measured
        bright = measured.source_sky_adu[:, t1] >= LIMIT_SNR * measured.source_error_adu[:, t1]
        return self._curve(t1, bright & np.array([not words for words in self.rejected]))

    def check_curve(self, name: str) -> MagnitudeCurve | None:
        """Return the star `name`, unsaturated, under a fair sky; None where it has no aperture."""
        places = [i for i, star in enumerate(self.table.stars) if _name(star) == name]
        if not places:
            return None
        flags = self.table.measured.flags[:, places[0]]
        unsaturated = (flags & domain.Flag.SATURATED) == 0
        return self._curve(places[0], unsaturated & _clear(self.rejected))

    def catalogue_mag(self, name: str) -> float | None:
        """Return the catalogue magnitude of the star `name`, None where it is not known."""
        known = (star.catalogue_mag for star in self.table.stars if _name(star) == name)
        return next(known, None)

    def _curve(self, star: int, fit: BoolArray) -> MagnitudeCurve:
        return MagnitudeCurve.of(
            self.table.times.jd_utc,
            self.series.magnitude[:, star] + self.zero.zero_point_mag,
            np.hypot(self.series.error[:, star], self.zero.random_mag),
            fit,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _PairNight:
    """A night through the two filters of a pair, and which of them is the one to transform."""

    pair: FilterPair
    blue: _FilterNight
    red: _FilterNight
    own: domain.PhotometryTable
    comps: tuple[tuple[domain.ApertureStar, domain.ApertureStar], ...]  # in blue and in red

    @property
    def colours(self) -> dict[str, float]:
        """Catalogue colours of the comps, by name."""
        return {_name(blue): _catalogue(blue) - _catalogue(red) for blue, red in self.comps}

    @property
    def mean_colour(self) -> float:
        return float(np.mean(list(self.colours.values())))

    @property
    def mean_colour_error(self) -> float:
        errors = [_catalogue_error(star) for both in self.comps for star in both]
        return float(np.linalg.norm(errors)) / len(self.comps)

    @property
    def others(self) -> list[domain.PhotometryTable]:
        """The tables of the pair that are not the one to transform."""
        return [one.table for one in (self.blue, self.red) if one.table is not self.own]

    def colour(self, blue: MagnitudeCurve, red: MagnitudeCurve) -> ColourCurve:
        """Return blue - red at the frames of the filter to transform."""
        own: Literal["blue", "red"] | None = None
        if self.own is self.blue.table:
            own = "blue"
        elif self.own is self.red.table:
            own = "red"
        return colour_curve(self.own.times.jd_utc, blue, red, own=own)

    def difference(self, colour: ColourCurve) -> FloatArray:
        """Return Δ, the standard colour less the comps' mean (DOMAIN 6c, closed form)."""
        return (colour.colour - self.mean_colour) / self.pair.divisor


def _measure_colour(
    table: domain.PhotometryTable,
    siblings: Sequence[domain.PhotometryTable],
    coefficients: Mapping[str, float],
    errors: Mapping[str, float],
) -> tuple[_MeasuredColour | None, tuple[str, ...]]:
    """Return the colour by the best pair of filters that gives one, and why better ones do not."""
    for sibling in siblings:
        if sibling.target != table.target:
            raise ValueError(f"sibling of {table.target} is of another target, {sibling.target}")
    tables = _by_band(table, siblings)
    failures: list[str] = []
    for pair in choose_pairs(table.band, tables, coefficients, errors):
        try:
            night = _pair_night(table, pair, tables[pair.blue], tables[pair.red])
            return _colour_of(night), tuple(failures)
        except domain.NoStandard as reason:
            failures.append(f"no {pair.index} from two filters: {reason}")
    return None, tuple(failures)


def _by_band(
    table: domain.PhotometryTable, siblings: Sequence[domain.PhotometryTable]
) -> dict[str, domain.PhotometryTable]:
    """Return one table per band; of two filters of one band the one with more frames."""
    ordered = sorted(siblings, key=lambda one: (len(one.labels), one.filter))
    return {one.band: one for one in ordered} | {table.band: table}


def _pair_night(
    table: domain.PhotometryTable,
    pair: FilterPair,
    blue: domain.PhotometryTable,
    red: domain.PhotometryTable,
) -> _PairNight:
    """Reduce both filters on the comps used in all, this one included. Raises NoStandard."""
    used, used_blue, used_red = (_used_comps(one) for one in (table, blue, red))
    shared = [name for name in used if name in used_blue and name in used_red]
    if not _enough(len(shared), len(used)):
        raise domain.NoStandard(
            f"{len(shared)} of {len(used)} comps were used in {pair.blue} and {pair.red}, "
            "at least half wanted"
        )
    return _PairNight(
        pair=pair,
        blue=_filter_night(blue, shared),
        red=_filter_night(red, shared),
        own=table,
        comps=tuple((used_blue[name], used_red[name]) for name in shared),
    )


def _used_comps(table: domain.PhotometryTable) -> dict[str, domain.ApertureStar]:
    """Return by name the comps that count on some frame. Raises NoStandard when there is none."""
    comps = _comps(table, _Series.of(table))
    return {_name(table.stars[i]): table.stars[i] for i in comps.seen}


def _filter_night(table: domain.PhotometryTable, names: list[str]) -> _FilterNight:
    """Return one filter's night on the comps `names`, all of which it has."""
    series = _Series.of(table)
    comps = _comps(table, series)
    place = {_name(table.stars[i]): i for i in comps.seen}
    zero = _zero_point(table, series, comps, [place[name] for name in names])
    rejected = quality.propose_rejections(
        table,
        zero.zero_point_mag,
        comp_deviation_mag=zero.deviation_mag,
        comp_error_mag=zero.error_mag,
    )
    return _FilterNight(table=table, series=series, zero=zero, rejected=rejected)


def _colour_of(night: _PairNight) -> _MeasuredColour:
    """Return the terms of T1 and T2. Raises NoStandard where T1's colour is known too rarely."""
    pair = night.pair
    blue, red = night.blue.target_curve(), night.red.target_curve()
    for curve, one in ((blue, night.blue.table), (red, night.red.table)):
        if not len(curve):
            raise domain.NoStandard(f"T1 is good on none of {len(one.labels)} {one.filter} frames")
    colour = night.colour(blue, red)
    n_near, n_frames = int(colour.near.sum()), len(colour.near)
    if not _enough(n_near, n_frames):
        raise domain.NoStandard(
            f"{n_near} of {n_frames} frames have both filters within {MAX_GAP_D:g} d, "
            "at least half wanted"
        )
    t1_colour = (night.difference(colour) + night.mean_colour)[colour.near]
    t2, check_notes = _check_term(night)
    noise = float(np.median(colour.error)) / pair.divisor
    return _MeasuredColour(
        comps=_CompColours(
            coefficient=pair.own.value,
            index=pair.index,
            of_comp=night.colours,
            lacking=f"not used in {pair.blue} and {pair.red}",
        ),
        terms=_Terms(
            t1=_target_term(night, colour),
            t2=t2,
            notes=(*_two_filter_notes(night, t1_colour, len(colour.near)), *check_notes),
        ),
        transformation=domain.Transformation(
            coefficient_name=pair.own.name,
            coefficient=pair.own.value,
            coefficient_error=pair.own.error,
            colour_index=pair.index,
            target_colour=float(np.median(t1_colour)),
            target_colour_error=float(np.hypot(noise, night.mean_colour_error)),
            source=_two_filter_source(night),
        ),
    )


def _target_term(night: _PairNight, colour: ColourCurve) -> _Term:
    """Return T1's term; a frame that has to borrow its colour gets 0.1 mag of colour error."""
    term = _measured_term(night, colour)
    borrowed = np.where(colour.near, 0.0, night.pair.own.value * UNKNOWN_COLOUR_ERROR_MAG)
    return replace(term, other_error=np.hypot(term.other_error, borrowed), measured=colour.near)


def _measured_term(night: _PairNight, colour: ColourCurve) -> _Term:
    """Return the term of a star by its colour through the pair, at every frame."""
    pair, difference = night.pair, night.difference(colour)
    noise = abs(pair.slope) * colour.other_error
    coefficients = pair.magnitude_error(float(np.sqrt(np.mean(difference**2))))
    common = float(noise[0]) if colour.constant else 0.0
    return _Term(
        magnitude=pair.own.value * difference,
        own_weight=pair.slope * colour.own_weight,
        other_error=np.zeros_like(noise) if colour.constant else noise,
        level_error=float(np.hypot(common, coefficients)),
        measured=np.ones(len(difference), dtype=bool),
    )


def _check_term(night: _PairNight) -> tuple[_Term, list[str]]:
    """Return T2's term by its measured colour, else by the catalogue's, and what to note."""
    n_frames = len(night.own.labels)
    t2 = night.own.star_index("T2")
    if t2 is None:
        return _Term.constant(n_frames, 0.0), []
    name, pair = _name(night.own.stars[t2]), night.pair
    blue, red = night.blue.check_curve(name), night.red.check_curve(name)
    if blue and red:  # neither without an aperture nor empty
        return _measured_term(night, night.colour(blue, red)), []
    unmeasured = f"check star not measured in {pair.blue} and {pair.red}"
    blue_mag, red_mag = night.blue.catalogue_mag(name), night.red.catalogue_mag(name)
    if blue_mag is None or red_mag is None:
        return _Term.constant(n_frames, 0.0), [f"{unmeasured}: no colour term for it"]
    term = pair.own.value * (blue_mag - red_mag - night.mean_colour)
    return _Term.constant(n_frames, term), [f"{unmeasured}: catalogue {pair.index} taken for it"]


def _two_filter_source(night: _PairNight) -> str:
    filters = " and ".join(repr(one.filter) for one in night.others)
    names = ", ".join(one.name for one in night.pair.coefficients)
    return f"two filters: {names}; {night.pair.index} with filter {filters} of the same night"


def _two_filter_notes(night: _PairNight, t1_colour: FloatArray, n_frames: int) -> tuple[str, ...]:
    """Return what to note: T1's colour, frames without one, what was taken for granted."""
    notes = [
        f"{night.pair.index} of T1 measured, {t1_colour.min():.3f} to {t1_colour.max():.3f}, "
        f"against {len(night.comps)} comps of mean {night.mean_colour:.3f}"
    ]
    if len(t1_colour) < n_frames:
        notes.append(
            f"{n_frames - len(t1_colour)} of {n_frames} frames without {night.pair.index} "
            f"within {MAX_GAP_D:g} d: nearest one taken, proposed to be rejected"
        )
    notes += [
        f"filter {one.filter} taken for {one.band}, which is not confirmed"
        for one in night.others
        if not one.band_confirmed
    ]
    unknown = [one.name for one in night.pair.coefficients if one.error is None]
    if unknown:
        notes.append(f"error of {', '.join(unknown)} not known: left out of the zero-point error")
    return tuple(notes)


# ------------------------------------------------------------------------------------ T1 and T2


def _target_magnitude(
    table: domain.PhotometryTable,
    series: _Series,
    t1: int,
    ensemble: _Ensemble,
    term: _Term,
    snr: float,
) -> tuple[BoolArray, FloatArray]:
    """Return where T1 is only an upper limit (formal SNR below `snr`), its magnitude or limit."""
    source = table.measured.source_sky_adu[:, t1]
    error = table.measured.source_error_adu[:, t1]
    measured = np.isfinite(source) & np.isfinite(error)
    measured &= (table.measured.flags[:, t1] & domain.Flag.UNMEASURED) == 0
    zero_point = ensemble.zero.zero_point_mag + term.magnitude
    limited = measured & (source < snr * error) & np.isfinite(zero_point)
    limiting = limiting_source(source, error, gain_e_adu=table.gain_e_adu or 1.0, snr=snr)
    limit = instrumental_magnitude(limiting, table.exposure_s) + zero_point
    magnitude = np.where(
        limited,
        np.minimum(limit, ensemble.faintest_mag),
        series.magnitude[:, t1] + zero_point,
    )
    if not np.isfinite(magnitude).any():
        raise domain.NoStandard(
            f"T1 was measured together with a comp on none of {len(table.labels)} frames"
        )
    return limited, magnitude


def _target_errors(
    table: domain.PhotometryTable,
    formal: FloatArray,
    ensemble: _Ensemble,
    term: _Term,
    check: _Check,
) -> tuple[FloatArray, FloatArray]:
    """Return T1's random error and what a report quotes, shape (n_frames,) (DOMAIN 6b)."""
    random = _floored(term.random(np.hypot(formal, ensemble.zero.random_mag)))
    if check.scatter_by_error is None:
        return random, random
    scaled = check.scatter_by_error * formal
    if not _errors_known(table):
        random = _floored(scaled)
    return random, np.fmax(random, scaled)


def _scatter_by_error(scatter_mag: float | None, formal: FloatArray) -> float | None:
    """Return sd_T2 / σ_T2, None where T2 has no scatter to scale other stars' errors with."""
    known = formal[np.isfinite(formal)]
    if scatter_mag is None or not len(known) or np.median(known) <= 0:
        return None
    return scatter_mag / float(np.median(known))


def _check_star(
    table: domain.PhotometryTable,
    series: _Series,
    ensemble: _Ensemble,
    term: _Term,
    rejected: tuple[str, ...],
) -> _Check:
    """Return T2 standardised like T1, and whether it holds the night back (DOMAIN 6h)."""
    t2 = table.star_index("T2")
    if t2 is None:
        nothing = np.full(len(table.labels), np.nan)
        return _Check(
            magnitude=nothing,
            random=nothing,
            instrumental=nothing,
            notes=("nocheck", *_error_notes(table, None)),
        )
    star = table.stars[t2]
    own = series.where((table.measured.flags & domain.Flag.SATURATED) == 0)
    formal = own.error[:, t2]
    magnitude = own.magnitude[:, t2] + ensemble.zero.zero_point_mag + term.magnitude
    judged = np.where(_clear(rejected), magnitude, np.nan)
    if not np.isfinite(judged).any():
        judged = magnitude
    scatter = quality.scatter(judged)
    telling = scatter if np.isfinite(judged).sum() >= SCATTER_MIN_FRAMES else None
    random = term.random(np.hypot(formal, ensemble.zero.random_mag))
    scatter_by_error = _scatter_by_error(telling, formal)
    if scatter_by_error is not None and not _errors_known(table):
        random = scatter_by_error * formal
    random = np.where(np.isfinite(magnitude), _floored(random), np.nan)
    verdict = _judge_check(table.band, star, ensemble, judged, random, telling)
    return _Check(
        name=_name(star),
        catalogue_mag=star.catalogue_mag,
        catalogue_error_mag=star.catalogue_error_mag,
        magnitude=magnitude,
        random=random,
        instrumental=own.magnitude[:, t2],
        offset_mag=verdict.offset_mag,
        scatter_mag=scatter,
        scatter_by_error=scatter_by_error,
        held_reason="; ".join(verdict.reasons) or None,
        notes=(*_error_notes(table, telling), *verdict.notes),
    )


def _error_notes(table: domain.PhotometryTable, scatter_mag: float | None) -> list[str]:
    """Return what to note of random errors that are not those of the photons."""
    if _errors_known(table):
        return []
    why = "gain unknown" if table.gain_e_adu is None else "bias not subtracted"
    if scatter_mag is None:
        return [f"{why} and no check star over 5 frames: errors are the formal ones"]
    return [f"{why}: random errors from the check star's scatter, {scatter_mag:.4f} mag"]


def _clear(rejected: tuple[str, ...]) -> BoolArray:
    """Return the frames whose sky is fit to judge T2 by: neither low nor clouded."""
    spoilt = {quality.ALTITUDE, quality.CLOUD}
    return np.array([spoilt.isdisjoint(words.split(",")) for words in rejected], dtype=bool)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verdict:
    """T2's offset from its catalogue magnitude, why it holds the night back, what to note."""

    offset_mag: float | None = None
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def _judge_check(
    band: str,
    star: domain.ApertureStar,
    ensemble: _Ensemble,
    judged: FloatArray,
    random: FloatArray,
    scatter_mag: float | None,
) -> _Verdict:
    """Return what T2 says of the night (DOMAIN 6h); `judged`, `random` of shape (n_frames,).

    In bands that are not the catalogue's (CV, TG…) T2 may sit off by its colour: until its earlier
    nights are compared, every night counts as one of the first three, held beyond 0.5 mag only.
    """
    used = np.isfinite(judged)
    n = int(used.sum())
    if n == 0:
        return _Verdict(notes=(f"nocheck: check star {_name(star)} was measured on no frame",))
    error = float(np.median(random[used]))
    steady = _judge_scatter(star, n, error, scatter_mag)
    if star.catalogue_mag is None:
        return _Verdict(reasons=steady, notes=("check star without catalogue magnitude",))
    offset = float(np.median(judged[used])) - star.catalogue_mag
    parts = (error, _catalogue_error(star), ensemble.level_error_mag)
    allowed = max(HELD_OFFSET_MAG, HELD_OFFSET_SIGMA * float(np.linalg.norm(parts)))
    notes = []
    if _known_error(star) is None:
        notes.append(_no_error_note("check star", star))
    if band in NON_STANDARD_BANDS:
        allowed = HELD_OFFSET_NON_STANDARD_MAG
        notes.append(f"check star {offset:+.3f} mag from the catalogue, which has no {band}")
    placed: tuple[str, ...] = ()
    if abs(offset) > allowed:
        placed = (
            f"check star {_name(star)} is {offset:+.3f} mag from its catalogue magnitude "
            f"{star.catalogue_mag:.3f} (median of {n} frames; at most {allowed:.3f} wanted)",
        )
    return _Verdict(offset_mag=offset, reasons=(*placed, *steady), notes=tuple(notes))


def _judge_scatter(
    star: domain.ApertureStar, n_frames: int, error_mag: float, scatter_mag: float | None
) -> tuple[str, ...]:
    """Return the reason when T2 scatters by more than twice its median error."""
    if scatter_mag is None or scatter_mag <= HELD_SCATTER_FACTOR * error_mag:
        return ()
    return (
        f"check star {_name(star)} scatters by {scatter_mag:.4f} mag over {n_frames} frames, more "
        f"than {HELD_SCATTER_FACTOR:g} times its median error {error_mag:.4f}",
    )
