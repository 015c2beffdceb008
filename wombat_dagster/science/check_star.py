"""The check star: T2 reduced like T1, what it says of the night, and of a night among others."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from wombat_dagster import domain
from wombat_dagster.domain import FloatArray
from wombat_dagster.science import quality
from wombat_dagster.science.chart_ensemble import Ensemble
from wombat_dagster.science.colour_terms import Term
from wombat_dagster.science.ensemble import ERROR_FLOOR_MAG, SCATTER_MIN_FRAMES
from wombat_dagster.science.instrumental import MAG_PER_RELATIVE_ERROR
from wombat_dagster.science.noise import relative_extra
from wombat_dagster.science.series import (
    Night,
    catalogue_error,
    errors_known,
    known_error,
    no_error_note,
    star_name,
)

HELD_OFFSET_MAG: Final = 0.05
HELD_OFFSET_SIGMA: Final = 3.0
HELD_OFFSET_NON_STANDARD_MAG: Final = 0.5
HELD_SCATTER_FACTOR: Final = 2.0
EARLIER_MIN_NIGHTS: Final = 3

# Codes of AAVSO whose comps are another band's: the catalogue lacks T2's magnitude in them.
NON_STANDARD_BANDS: Final = frozenset({"CV", "CR", "CBB", "TG", "TB", "TR"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
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
    error_factor: float = 1.0  # what the night's formal errors lack, T1's as well
    reference_mag: float | None = None  # what it was judged against; None: nothing to judge by
    allowed_mag: float | None = None  # by how much it may differ from that
    held_reason: str | None = None
    notes: tuple[str, ...] = ()


def floored(errors: FloatArray) -> FloatArray:
    return np.maximum(errors, ERROR_FLOOR_MAG)  # NaN stays NaN


def check_star(
    night: Night,
    ensemble: Ensemble,
    term: Term,
    rejected: tuple[str, ...],
    earlier: Sequence[domain.CheckNight],
) -> Check:
    """Return T2 standardised like T1, and whether it holds the night back (DOMAIN 6h)."""
    table = night.table
    t2 = table.star_index("T2")
    if t2 is None:
        nothing = np.full(len(table.labels), np.nan)
        return Check(
            magnitude=nothing,
            random=nothing,
            instrumental=nothing,
            error_factor=_error_factor(table, ensemble, None, nothing),
            notes=("nocheck", *_error_notes(table, ensemble, None)),
        )
    star = table.stars[t2]
    own = night.stars.where((table.measured.flags & domain.Flag.SATURATED) == 0)
    formal = own.error[:, t2]
    magnitude = own.magnitude[:, t2] + ensemble.zero_point_mag + term.magnitude
    judged = _judged(magnitude, rejected)
    scatter = quality.scatter(judged)
    telling = scatter if np.isfinite(judged).sum() >= SCATTER_MIN_FRAMES else None
    factor = _error_factor(table, ensemble, telling, formal)
    random = random_error(table, formal, ensemble, term, factor)
    random = np.where(np.isfinite(magnitude), random, np.nan)
    verdict = _judge(table.band, star, ensemble, judged, random, telling, earlier)
    return Check(
        name=star_name(star),
        catalogue_mag=star.catalogue_mag,
        catalogue_error_mag=star.catalogue_error_mag,
        magnitude=magnitude,
        random=random,
        instrumental=own.magnitude[:, t2],
        offset_mag=verdict.offset_mag,
        scatter_mag=scatter,
        scatter_by_error=_scatter_by_error(telling, formal),
        error_factor=factor,
        reference_mag=verdict.reference_mag,
        allowed_mag=verdict.allowed_mag,
        held_reason="; ".join(verdict.reasons) or None,
        notes=(*_error_notes(table, ensemble, telling), *verdict.notes),
    )


def check_night(
    magnitudes: domain.StandardMagnitudes, *, key: str, date: dt.date, star: str
) -> domain.CheckNight | None:
    """Return what the night's T2 adds to the control chart, None where it was not measured.

    `key` and `date` are the observation's, `star` names the variable (``oid:26210``, else its
    position).
    """
    judged = _judged(magnitudes.t2_mag, magnitudes.proposed_rejected)
    used = np.isfinite(judged)
    if magnitudes.check_name is None or not used.any():
        return None
    n = int(used.sum())
    of_median = float(np.median(magnitudes.t2_random_mag[used])) / float(np.sqrt(n))
    return domain.CheckNight(
        key=key,
        date=date,
        star=star,
        band=magnitudes.band,
        camera=magnitudes.camera,
        check_name=magnitudes.check_name,
        magnitude_mag=float(np.median(judged[used])),
        error_mag=float(np.hypot(of_median, magnitudes.zp_err_mag)),
        catalogue_mag=magnitudes.check_catalogue_mag,
        catalogue_error_mag=magnitudes.check_catalogue_error_mag,
        zp_err_mag=magnitudes.zp_err_mag,
        scatter_mag=magnitudes.check_scatter_mag,
        n_frames=n,
        held=magnitudes.held_reason is not None,
        reference_mag=magnitudes.check_reference_mag,
        allowed_mag=magnitudes.check_allowed_mag,
    )


def agreeing(nights: Sequence[domain.CheckNight]) -> list[domain.CheckNight]:
    """Return the nights of one T2 that may judge another night, in their order.

    Not those held for the scatter of T2, nor those beyond 0.5 mag of the catalogue: as many wrong
    nights as one likes make no right one. Of three or more not those off their median by more than
    3 sigma of the night or of what all of them scatter by, 0.05 mag at least. What a night was
    judged by when it was run does not matter, so the order of runs does not.
    """
    steady = [one for one in nights if (not one.held or _departed(one)) and not _beyond_belief(one)]
    if len(steady) < EARLIER_MIN_NIGHTS:
        return steady
    values = np.array([one.magnitude_mag for one in steady])
    median, scatter = float(np.median(values)), quality.scatter(values) or 0.0
    return [
        one
        for one in steady
        if abs(one.magnitude_mag - median) <= _allowed(max(one.error_mag, scatter))
    ]


def _departed(night: domain.CheckNight) -> bool:
    """Say whether T2's magnitude is what the night was held for."""
    if night.reference_mag is None or night.allowed_mag is None:
        return False
    return abs(night.magnitude_mag - night.reference_mag) > night.allowed_mag


def _beyond_belief(night: domain.CheckNight) -> bool:
    if night.catalogue_mag is None:
        return False
    return abs(night.magnitude_mag - night.catalogue_mag) > HELD_OFFSET_NON_STANDARD_MAG


def _judged(magnitude: FloatArray, rejected: Sequence[str]) -> FloatArray:
    """Return T2 where the sky was fair; everywhere, when that is nowhere."""
    fair = np.where(quality.under_fair_sky(rejected), magnitude, np.nan)
    return fair if np.isfinite(fair).any() else magnitude


def _scatter_by_error(scatter_mag: float | None, formal: FloatArray) -> float | None:
    """Return sd_T2 / σ_T2, None where T2 has no scatter to scale other stars' errors with."""
    known = formal[np.isfinite(formal)]
    if scatter_mag is None or not len(known) or np.median(known) <= 0:
        return None
    return scatter_mag / float(np.median(known))


def random_error(
    table: domain.PhotometryTable,
    formal: FloatArray,
    ensemble: Ensemble,
    term: Term,
    error_factor: float,
) -> FloatArray:
    """Return the random error of a standardised star of formal errors `formal`, (n_frames,).

    Its own and the zero point's. Formal errors that lack a factor get it; they lack scintillation
    and flat as well, and where those are more, they are taken: a star much brighter than the comps
    is not as quiet as its photons.
    """
    if errors_known(table):
        return floored(term.random(np.hypot(formal, ensemble.random_mag)))
    own = np.fmax(error_factor * formal, MAG_PER_RELATIVE_ERROR * relative_extra(table))
    own = np.where(np.isfinite(formal), own, np.nan)
    of_zero = ensemble.random_mag  # has the comps' factor in it
    if ensemble.error_factor is None:
        of_zero = error_factor * of_zero
    return floored(term.random(np.hypot(own, of_zero)))


def _error_factor(
    table: domain.PhotometryTable,
    ensemble: Ensemble,
    scatter_mag: float | None,
    formal: FloatArray,
) -> float:
    """Return what the formal errors lack: by the comps, else by T2 against the comp; else 1."""
    if errors_known(table):
        return 1.0
    if ensemble.error_factor is not None:
        return ensemble.error_factor
    return _scatter_by_error(scatter_mag, np.hypot(formal, ensemble.random_mag)) or 1.0


def _error_notes(
    table: domain.PhotometryTable, ensemble: Ensemble, scatter_mag: float | None
) -> list[str]:
    """Return what to note of random errors that are not those of the photons."""
    if errors_known(table):
        return []
    why = "gain unknown" if table.gain_e_adu is None else "bias not subtracted"
    if ensemble.error_factor is not None:
        stars = "comps and field stars" if ensemble.n_field_stars else "comps"
        return [
            f"{why}: random errors are {ensemble.error_factor:.2f} times the formal ones, "
            f"from the scatter of {stars}"
        ]
    if scatter_mag is None:
        return [f"{why} and no check star over 5 frames: errors are the formal ones"]
    return [
        f"{why}: random errors from the check star's scatter, {scatter_mag:.4f} mag, against one "
        "comp: whether it varies cannot be told"
    ]


# ----------------------------------------------------------------------------------- the verdict


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reference:
    """What T2 should be, and how far from it a night may be."""

    magnitude_mag: float
    allowed_mag: float
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verdict:
    """T2's offset from its catalogue magnitude, why it holds the night back, what to note.

    `reference_mag` and `allowed_mag` are those of `_Reference`, None where there was none.
    """

    offset_mag: float | None = None
    reference_mag: float | None = None
    allowed_mag: float | None = None
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def _judge(
    band: str,
    star: domain.ApertureStar,
    ensemble: Ensemble,
    judged: FloatArray,
    random: FloatArray,
    scatter_mag: float | None,
    earlier: Sequence[domain.CheckNight],
) -> _Verdict:
    """Return what T2 says of the night (DOMAIN 6h); `judged`, `random` of shape (n_frames,)."""
    used = np.isfinite(judged)
    n = int(used.sum())
    if n == 0:
        return _Verdict(notes=(f"nocheck: check star {star_name(star)} was measured on no frame",))
    median, error = float(np.median(judged[used])), float(np.median(random[used]))
    if scatter_mag is not None:
        # the median deviation of a few good frames may be large by luck: then their sd is not
        scatter_mag = min(scatter_mag, float(np.std(judged[used], ddof=1)))
    steady = _judge_scatter(star, n, error, scatter_mag)
    offset = None if star.catalogue_mag is None else median - star.catalogue_mag
    notes = []
    if offset is None:
        notes.append("check star without catalogue magnitude")
    elif known_error(star) is None:
        notes.append(no_error_note("check star", star))
    if offset is not None and band in NON_STANDARD_BANDS:
        notes.append(f"check star {offset:+.3f} mag from the catalogue, which has no {band}")
    reference = _reference(band, star, ensemble, error, earlier)
    if reference is None:
        return _Verdict(offset_mag=offset, reasons=steady, notes=tuple(notes))
    departure = median - reference.magnitude_mag
    placed: tuple[str, ...] = ()
    if abs(departure) > reference.allowed_mag:
        placed = (
            f"check star {star_name(star)} is {departure:+.3f} mag from {reference.words} "
            f"{reference.magnitude_mag:.3f} (median of {n} frames; at most "
            f"{reference.allowed_mag:.3f} wanted)",
        )
    return _Verdict(
        offset_mag=offset,
        reference_mag=reference.magnitude_mag,
        allowed_mag=reference.allowed_mag,
        reasons=(*placed, *steady),
        notes=tuple(notes),
    )


def _reference(
    band: str,
    star: domain.ApertureStar,
    ensemble: Ensemble,
    error_mag: float,
    earlier: Sequence[domain.CheckNight],
) -> _Reference | None:
    """Return what T2 should be: the catalogue's, in other bands the mean of its earlier nights.

    In bands that are not the catalogue's (CV, TG…) T2 may sit off by its colour: its first three
    nights are held beyond 0.5 mag only.
    """
    nights = [one for one in earlier if one.check_name == star_name(star)]
    if band in NON_STANDARD_BANDS and len(nights) >= EARLIER_MIN_NIGHTS:
        values = np.array([one.magnitude_mag for one in nights])
        formal = float(np.linalg.norm([one.error_mag for one in nights])) / len(nights)
        of_mean = max(formal, float(values.std(ddof=1)) / float(np.sqrt(len(nights))))
        return _Reference(
            magnitude_mag=float(values.mean()),
            allowed_mag=_allowed(error_mag, of_mean, ensemble.level_error_mag),
            words=f"the mean of its {len(nights)} earlier nights,",
        )
    if star.catalogue_mag is None:
        return None
    allowed = _allowed(error_mag, catalogue_error(star), ensemble.level_error_mag)
    if band in NON_STANDARD_BANDS:
        allowed = HELD_OFFSET_NON_STANDARD_MAG
    return _Reference(
        magnitude_mag=star.catalogue_mag, allowed_mag=allowed, words="its catalogue magnitude"
    )


def _allowed(*errors_mag: float) -> float:
    return max(HELD_OFFSET_MAG, HELD_OFFSET_SIGMA * float(np.linalg.norm(errors_mag)))


def _judge_scatter(
    star: domain.ApertureStar, n_frames: int, error_mag: float, scatter_mag: float | None
) -> tuple[str, ...]:
    """Return the reason when T2 scatters by more than twice its median error."""
    if scatter_mag is None or scatter_mag <= HELD_SCATTER_FACTOR * error_mag:
        return ()
    return (
        f"check star {star_name(star)} scatters by {scatter_mag:.4f} mag over {n_frames} frames, "
        f"more than {HELD_SCATTER_FACTOR:g} times its median error {error_mag:.4f}",
    )
