"""The comps of a night put to use: zero points, the level, and what is to be said of each comp."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wombat_dagster import domain
from wombat_dagster.domain import BoolArray, FloatArray
from wombat_dagster.science import quality
from wombat_dagster.science.colour_terms import CompColours
from wombat_dagster.science.ensemble import (
    ERROR_FLOOR_MAG,
    NightZeroPoint,
    Restlessness,
    disagreement,
    level_error,
    night_zero_point,
    restlessness,
    robust_level,
    steadiness,
)
from wombat_dagster.science.series import (
    Night,
    catalogue_error,
    catalogue_mag,
    errors_known,
    known_error,
    no_error_note,
    star_name,
)

DISAGREEING: Final = 1.7  # times their errors
PAIR_SIGMA: Final = 3.0  # two comps that differ by more are said to
FIELD_CLIP_SIGMA: Final = 5.0
FEW_FIELD_STARS: Final = 6
USUAL_COEFFICIENT: Final = 0.06  # of a filter near its standard band; nobody is wrong by that
USUAL_COLOUR_SPREAD_MAG: Final = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class ChartLevel:
    """Zero points on the catalogue's level, and what the comps say of it, shape (n_comps,).

    `zero` holds the comps, then the field stars. `residual_mag` is what the colour term leaves.
    `error_factor` is what formal errors of an unknown scale lack (`Steadiness.common_factor`).
    """

    zero: NightZeroPoint
    residual_mag: FloatArray
    weight: FloatArray
    suspect: BoolArray
    leave_one_out_mag: FloatArray
    leave_one_out_sigma: FloatArray
    restlessness: Restlessness
    disagreement: float
    error_mag: float
    error_factor: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ensemble:
    """The night's comps and the zero points they give.

    `deviation_mag` and `error_mag` are the comps', shape (n_frames, n_comps). `error_factor` is
    what the formal errors of any star lack; None where they are right, or where no two comps tell.
    """

    stars: tuple[domain.ApertureStar, ...]
    zero_point_mag: FloatArray
    random_mag: FloatArray
    n_comps: NDArray[np.int64]
    n_field_stars: int
    deviation_mag: FloatArray
    error_mag: FloatArray
    error_factor: float | None
    level_error_mag: float
    mean_colour: float | None  # None: no colour term
    residuals: tuple[domain.CompResidual, ...]
    notes: tuple[str, ...]

    @property
    def reference_mag(self) -> float:
        """Mean catalogue magnitude."""
        return float(np.mean([catalogue_mag(star) for star in self.stars]))

    @property
    def faintest_mag(self) -> float:
        return max(catalogue_mag(star) for star in self.stars)


def ensemble_of(night: Night, by_colour: CompColours | None) -> Ensemble:
    """Choose the comps, by their colours if there are any, and derive the night's zero points."""
    table = night.table
    chosen, notes = _with_colour(table, night.seen, by_colour)
    transformed = by_colour if chosen else None
    stars = tuple(table.stars[i] for i in chosen or night.seen)
    level = chart_level(night, chosen or night.seen, transformed)
    n = len(stars)
    deviation = level.zero.deviation_mag[:, :n]
    seen = np.isfinite(deviation)
    return Ensemble(
        stars=stars,
        zero_point_mag=level.zero.zero_point_mag,
        random_mag=level.zero.random_mag,
        n_comps=seen.sum(axis=1).astype(np.int64),
        n_field_stars=level.zero.deviation_mag.shape[1] - n,
        deviation_mag=deviation,
        error_mag=level.zero.error_mag[:, :n],
        error_factor=level.error_factor,
        level_error_mag=level.error_mag,
        mean_colour=_mean_colour(stars, transformed) if transformed else None,
        residuals=_comp_residuals(stars, level, seen.sum(axis=0)),
        notes=(
            *night.notes,
            *notes,
            *_ensemble_notes(night, stars),
            *_agreement_notes(stars, level),
            *_field_notes(level.zero.deviation_mag.shape[1] - n),
        ),
    )


def chart_level(night: Night, chosen: list[int], by_colour: CompColours | None) -> ChartLevel:
    """Return the zero points by the comps `chosen` of those seen, and by the field stars if any.

    The level is that of a star of the comps' mean colour.
    """
    stars = [night.table.stars[i] for i in chosen]
    carried = _carried(night, chosen, by_colour)
    zero = carried.zero
    n = len(chosen)
    values = zero.residual_mag[:n]
    if by_colour:
        colours = np.array([by_colour.of_comp[star_name(star)] for star in stars])
        values = values - by_colour.coefficient * (colours - colours.mean())
    of_catalogue = np.array([catalogue_error(star) for star in stars])
    n_frames = np.isfinite(zero.deviation_mag[:, :n]).sum(axis=0)
    measured = np.sqrt(np.nanmean(zero.error_mag[:, :n] ** 2, axis=0) / n_frames)
    unmodelled = np.zeros(n) if by_colour else _unmodelled_colour(stars)
    level_mag = np.full(int(zero.set_of.max()) + 1, np.nan)
    weight, offset, sigma = (np.full(n, np.nan) for _ in range(3))
    suspect = np.zeros(n, dtype=bool)
    for one in np.unique(zero.set_of[:n]):
        these = np.flatnonzero(zero.set_of[:n] == one)
        level = robust_level(values[these], of_catalogue[these], measured[these], unmodelled[these])
        level_mag[one] = level.value_mag
        weight[these], suspect[these] = level.weight, level.suspect
        offset[these], sigma[these] = level.leave_one_out_mag, level.leave_one_out_sigma
    fit = by_colour.fit if by_colour else None
    if fit is not None:
        weight = np.asarray(fit.weights)
        level_mag[:] = fit.zero_point
    residual = values - level_mag[zero.set_of[:n]]
    excess = disagreement(residual, np.hypot(of_catalogue, measured), weight, suspect)
    error = level_error(of_catalogue, weight, excess)
    if fit is not None:
        error = max(fit.zero_point_error * excess, ERROR_FLOOR_MAG)
    return ChartLevel(
        zero=zero.levelled(level_mag),
        residual_mag=residual,
        weight=weight,
        suspect=suspect,
        leave_one_out_mag=offset,
        leave_one_out_sigma=sigma,
        restlessness=carried.restlessness,
        disagreement=excess,
        error_mag=error,
        error_factor=carried.error_factor,
    )


def chart_zero_points(
    night: Night, names: Sequence[str], by_colour: CompColours
) -> tuple[FloatArray, FloatArray]:
    """Return night-mean zero points of the comps `names` and their errors, without any level.

    Of `by_colour` only what changes with the airmass is taken out of them.
    """
    places = {star_name(night.table.stars[i]): i for i in night.seen}
    chosen = [places[name] for name in names]
    zero = _carried(night, chosen, by_colour).zero
    n_frames = np.isfinite(zero.deviation_mag).sum(axis=0)[: len(names)]
    errors = np.sqrt(np.nanmean(zero.error_mag[:, : len(names)] ** 2, axis=0) / n_frames)
    catalogue = np.array([catalogue_error(night.table.stars[i]) for i in chosen])
    return zero.residual_mag[: len(names)], np.hypot(errors, catalogue)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Carried:
    """Zero points from frame to frame; `restlessness` is that of the comps."""

    zero: NightZeroPoint
    restlessness: Restlessness
    error_factor: float | None


def _carried(night: Night, chosen: list[int], by_colour: CompColours | None) -> _Carried:
    """Return the zero points from frame to frame, and how restless the comps are.

    They hold for a star of the comps' mean colour at every airmass; field stars have no colour, and
    the mean of theirs is taken for that of the comps.
    """
    comps = night.stars.stars(chosen).where(night.usable[:, chosen])
    stars = [night.table.stars[i] for i in chosen]
    catalogue = np.array([catalogue_mag(star) for star in stars])
    zero_points, errors = catalogue - comps.magnitude, comps.error
    if by_colour:
        colours = np.array([by_colour.of_comp[star_name(star)] for star in stars])
        zero_points = zero_points - np.outer(by_colour.by_airmass, colours - colours.mean())
    known = errors_known(night.table)
    if night.field is not None:
        # any level does: the chart sets it; near the comps' the equations are well-conditioned
        typical = float(np.nanmedian(zero_points))
        own = typical - night.field.magnitude
        own = own - quality.median_of_columns(own) + typical
        zero_points = np.hstack([zero_points, own])
        errors = np.hstack([errors, night.field.error])
        zero_points = _clipped(zero_points, errors, errors_known=known)
    steady = steadiness(zero_points, errors, errors_known=known)
    zero = night_zero_point(zero_points, steady.error_mag, weight=steady.weight, errors_known=known)
    restless = restlessness(zero, errors)
    n = len(chosen)
    return _Carried(
        zero=zero,
        restlessness=Restlessness(
            scatter_mag=restless.scatter_mag[:n],
            expected_mag=restless.expected_mag[:n],
            restless=restless.restless[:n],
        ),
        error_factor=steady.common_factor,
    )


def _clipped(zero_points: FloatArray, errors: FloatArray, *, errors_known: bool) -> FloatArray:
    """Return the zero points without those far off: among many stars some have a cosmic ray.

    Far from the median of their frame, so that one bright star does not condemn all the others. A
    star that is far off on every frame stays: it varies, and is the chart's only comp perhaps.
    """
    steady = steadiness(zero_points, errors, errors_known=errors_known)
    zero = night_zero_point(zero_points, steady.error_mag, weight=steady.weight)
    seen = np.isfinite(zero.deviation_mag).any(axis=1)
    apart = zero.deviation_mag.copy()
    apart[seen] -= quality.median_of_columns(apart[seen].T)[:, None]
    with np.errstate(invalid="ignore"):
        far = np.abs(apart) > FIELD_CLIP_SIGMA * np.maximum(steady.error_mag, ERROR_FLOOR_MAG)
    always = np.isfinite(zero_points).any(axis=0) & (far | ~np.isfinite(zero_points)).all(axis=0)
    return np.where(far & ~always, np.nan, zero_points)


def _unmodelled_colour(stars: Sequence[domain.ApertureStar]) -> FloatArray:
    """Return what a usual colour term would make of each comp, where none is applied."""
    colours = np.array([np.nan if star.colour is None else star.colour for star in stars])
    if not np.isfinite(colours).any():
        return np.zeros(len(stars))
    away = np.abs(colours - np.nanmedian(colours))
    return USUAL_COEFFICIENT * np.where(np.isfinite(away), away, USUAL_COLOUR_SPREAD_MAG)


def _mean_colour(stars: Sequence[domain.ApertureStar], by_colour: CompColours) -> float:
    return float(np.mean([by_colour.of_comp[star_name(star)] for star in stars]))


def _with_colour(
    table: domain.PhotometryTable, indices: list[int], by_colour: CompColours | None
) -> tuple[list[int], list[str]]:
    """Return the comps that can be transformed, none when too few can, and what to note."""
    if by_colour is None:
        return [], []
    coloured = [i for i in indices if star_name(table.stars[i]) in by_colour.of_comp]
    if not enough(len(coloured), len(indices)):
        return [], [
            f"not transformed: {len(coloured)} of {len(indices)} comps have {by_colour.index}, "
            "at least half wanted"
        ]
    left_out = [star_name(table.stars[i]) for i in indices if i not in coloured]
    if not left_out:
        return coloured, []
    comps = "comp" if len(left_out) == 1 else "comps"
    return coloured, [f"{comps} {by_colour.lacking} left out: {', '.join(left_out)}"]


def enough(n: int, n_all: int) -> bool:
    """Say whether at least half are there, and at least one."""
    return n > 0 and 2 * n >= n_all


# ------------------------------------------------------------------------- what is said of comps


def _comp_residuals(
    stars: Sequence[domain.ApertureStar], level: ChartLevel, n_frames: FloatArray
) -> tuple[domain.CompResidual, ...]:
    """Return the residuals as magnitudes: a comp measured too faint wants a larger zero point."""
    return tuple(
        domain.CompResidual(
            name=star_name(star),
            residual_mag=-float(level.residual_mag[i]),
            catalogue_error_mag=star.catalogue_error_mag,
            n_frames=int(n_frames[i]),
            weight=float(level.weight[i]),
            leave_one_out_mag=_known(-level.leave_one_out_mag[i]),
            leave_one_out_sigma=_known(level.leave_one_out_sigma[i]),
            scatter_mag=_known(level.restlessness.scatter_mag[i]),
            suspect=bool(level.suspect[i] or level.restlessness.restless[i]),
        )
        for i, star in enumerate(stars)
    )


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _ensemble_notes(night: Night, stars: Sequence[domain.ApertureStar]) -> list[str]:
    notes = [
        f"comp saturated or not measured on any frame: {star_name(night.table.stars[i])}"
        for i in night.listed
        if i not in night.seen
    ]
    return notes + [no_error_note("comp", star) for star in stars if known_error(star) is None]


def _field_notes(n_field_stars: int) -> list[str]:
    if not 0 < n_field_stars < FEW_FIELD_STARS:
        return []
    return [
        f"only {n_field_stars} field stars: one that varies shakes the zero point, "
        f"{FEW_FIELD_STARS} or more wanted"
    ]


def _agreement_notes(stars: Sequence[domain.ApertureStar], level: ChartLevel) -> list[str]:
    """Return a note for each comp off its catalogue magnitude or restless, and on their accord."""
    notes = []
    for i, star in enumerate(stars):
        if level.suspect[i]:
            faint = "fainter" if level.leave_one_out_mag[i] < 0 else "brighter"
            others = "comps" if len(stars) - level.suspect.sum() > 1 else "comp"
            notes.append(
                f"comp {star_name(star)} is {abs(level.leave_one_out_mag[i]):.3f} mag {faint} than "
                f"its catalogue by the other {others} ({level.leave_one_out_sigma[i]:.1f} sigma): "
                "left out of the level"
            )
        if level.restlessness.restless[i]:
            notes.append(
                f"comp {star_name(star)} varies: {level.restlessness.scatter_mag[i]:.3f} mag from "
                f"frame to frame against the others, {level.restlessness.expected_mag[i]:.3f} "
                "expected"
            )
    if len(stars) == 2 and level.leave_one_out_sigma[0] > PAIR_SIGMA:
        names = " and ".join(star_name(star) for star in stars)
        notes.append(
            f"comps {names} differ by {abs(level.leave_one_out_mag[0]):.3f} mag "
            f"({level.leave_one_out_sigma[0]:.1f} sigma): which of them is wrong cannot be told"
        )
    if level.disagreement > DISAGREEING:
        notes.append(
            f"{len(stars)} comps disagree by {level.disagreement:.1f} times their catalogue "
            "errors: the zero-point error is enlarged by that"
        )
    return notes
