"""Colour terms by themselves: stored coefficients, fits to a night's own comps, their errors.

Notation of the AAVSO's transformation programs (TA, TG): lower case instrumental, upper case
standard; ``Tv_bv`` is the slope of V - v against B - V. Two filters are `two_filters`' and
`two_filter_night`'s.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

import numpy as np

from wombat_dagster import domain
from wombat_dagster.domain import BoolArray, FloatArray
from wombat_dagster.science import quality
from wombat_dagster.science.ensemble import HUBER_K, HUBER_ROUNDS, disagreement
from wombat_dagster.science.extinction import second_order_extinction

UNKNOWN_COLOUR_ERROR_MAG: Final = 0.1
NO_COEFFICIENTS: Final[Mapping[str, float]] = MappingProxyType({})

# The coefficient for one filter alone, with a colour supplied (TA help).
SINGLE_FILTER_COEFFICIENT: Final = {
    "B": ("Tb_bv", "B-V"),
    "V": ("Tv_bv", "B-V"),
    "R": ("Tr_vi", "V-I"),
    "I": ("Ti_vi", "V-I"),
}

HUBER_DROP_WEIGHT: Final = 0.5
COLOUR_FIT_MIN_COMPS: Final = 5
COLOUR_FIT_MIN_RANGE_MAG: Final = 0.4


def choose_transformation(
    band: str,
    coefficients: Mapping[str, float],
    errors: Mapping[str, float],
    target_colour: Mapping[str, float],
    colour_errors: Mapping[str, float],
    *,
    source: str,
) -> domain.Transformation:
    """Return the colour term for one filter alone: stored coefficient and the variable's colour.

    `coefficients` and `errors` by TG's names (``Tv_bv``), `source` says where they come from;
    colours by index (``B-V``). Only B, V, R and I have a recommended one; without it, or without
    the colour, `coefficient` is None and the result's source says why. CV, TG and their kind keep
    their codes and get no colour term.
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
    colour = target_colour.get(index)
    error = None if colour is None else colour_errors.get(index, UNKNOWN_COLOUR_ERROR_MAG)
    if missing:
        return domain.Transformation(
            coefficient_name=name,
            colour_index=index,
            target_colour=colour,
            target_colour_error=error,
            source="none: " + ", ".join(missing),
        )
    return domain.Transformation(
        coefficient_name=name,
        coefficient=coefficients[name],
        coefficient_error=errors.get(name),
        colour_index=index,
        target_colour=colour,
        target_colour_error=error,
        source=source,
    )


def by_airmass(
    band: str, airmass: FloatArray, index: str, extinction_colour: Mapping[str, float]
) -> FloatArray:
    """Return what second-order extinction adds to a colour term on every frame (DOMAIN 6g).

    -k2 X in magnitudes per magnitude of the colour, shape (n_frames,): for stars at one airmass
    -k2 Δ(colour X) is a colour term -k2 X. 0 where nothing is known for the band and `index`.

    Notes
    -----
    DOMAIN's formula as it stands, so the stored coefficients T belong outside the atmosphere. One
    fitted to a standard field at airmass X0 without regard to k2 has -k2 X0 in it already: T + k2
    X0 is the one to store. The airmass is T1's for all stars; their differences are first order's,
    and times colour less than 1 mmag in a field of 1 deg.

    Parameters
    ----------
    band, airmass
        A night through one filter, shape (n_frames,).
    index
        The colour that transforms it.
    extinction_colour
        k2 by band, magnitudes per airmass and per magnitude of the colour that transforms the band
        alone (`SINGLE_FILTER_COEFFICIENT`): other indices get nothing.
    """
    known = SINGLE_FILTER_COEFFICIENT.get(band)
    if known is None or known[1] != index or band not in extinction_colour:
        return np.zeros(len(airmass))
    return second_order_extinction(extinction_colour[band], airmass)


def by_airmass_notes(
    by_airmass: FloatArray, table: domain.PhotometryTable, index: str
) -> list[str]:
    """Return what to note where `by_airmass` is not nothing."""
    if not by_airmass.any():
        return []
    low, high = float(np.nanmin(by_airmass)), float(np.nanmax(by_airmass))
    return [
        f"second-order extinction in {table.band}: {low:+.4f} to {high:+.4f} mag per magnitude of "
        f"{index}, for airmass {np.nanmin(table.times.airmass):.2f} to "
        f"{np.nanmax(table.times.airmass):.2f}"
    ]


def term_error(
    *,
    coefficient: float,
    coefficient_error: float | None,
    colour_difference: float,
    colour_error: float | None,
) -> float:
    """Return the 1-sigma error of a colour term T Δ, hypot(σ_T Δ, T σ_colour) (DOMAIN 6d).

    An unknown error of T counts as 0, one of the colour as 0.1 mag. The expanded form: TA's own
    code returns 0 where Δ is 0.
    """
    colour_error = UNKNOWN_COLOUR_ERROR_MAG if colour_error is None else colour_error
    return float(
        np.hypot((coefficient_error or 0.0) * colour_difference, coefficient * colour_error)
    )


# ------------------------------------------------------------------ fitted to the night's own comps


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
    """Return the line without the stars to which Huber gives less than half weight (DOMAIN 6e).

    The coefficient's error is enlarged where the stars scatter about the line by more than their
    errors: by √χ²_red of those kept, or by what `ensemble.disagreement` finds of all.
    """
    huber = fit_colour_term_huber(zero_points, errors, colours)
    kept = np.asarray(huber.weights) >= HUBER_DROP_WEIGHT
    fit = fit_colour_term(zero_points, errors, colours, weights=kept.astype(float))
    residual = zero_points - fit.zero_point - fit.coefficient * (colours - fit.mean_colour)
    excess = disagreement(residual, errors, kept.astype(float), ~kept)
    if kept.sum() > 2:
        excess = max(
            excess, float(np.sqrt(np.sum((residual / errors)[kept] ** 2) / (kept.sum() - 2)))
        )
    return replace(fit, coefficient_error=fit.coefficient_error * excess)


def may_free_colour_term(colours: FloatArray) -> bool:
    """Say whether comps of these colours can hold a free T: at least 5 over 0.4 mag (DOMAIN 6e)."""
    spread = round(float(np.ptp(colours)), 6)  # 0.6 - 0.2 is less than 0.4 in binary
    return len(colours) >= COLOUR_FIT_MIN_COMPS and spread >= COLOUR_FIT_MIN_RANGE_MAG


# --------------------------------------------------------------------- what a term is to one star


@dataclass(frozen=True, slots=True, kw_only=True)
class CompColours:
    """What the comps are transformed by; `of_comp` holds the catalogue colours by comp.

    The term is `coefficient` + `by_airmass`, shape (n_frames,). `fit` is given where the
    coefficient was fitted to the comps themselves.
    """

    coefficient: float
    index: str
    of_comp: Mapping[str, float]
    lacking: str  # words for a comp that is not in `of_comp`
    by_airmass: FloatArray  # second-order extinction, 0 without
    fit: ColourFit | None = None

    @property
    def on_frames(self) -> FloatArray:
        """The coefficient on every frame, shape (n_frames,)."""
        return self.coefficient + self.by_airmass


@dataclass(frozen=True, slots=True, kw_only=True)
class Term:
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
    def certain(
        cls, n_frames: int, magnitude: float | FloatArray, level_error: float = 0.0
    ) -> "Term":
        """Return a term without noise of its own, one for all frames or for each."""
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
class Terms:
    """The colour terms of T1 and T2 and what to note about them."""

    t1: Term
    t2: Term
    notes: tuple[str, ...] = ()
