"""Standard magnitudes: a night's counts of T1, T2, C3… as magnitudes on the catalogue's system.

The night as a whole. Its parts: `instrumental` and `series` (counts to magnitudes), `ensemble` and
`chart_ensemble` (zero points and their level), `colour_terms`, `two_filters`, `two_filter_night`
(colour), `extinction`, `check_star` (T2). All of it is DOMAIN section 6.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from wombat_dagster import domain
from wombat_dagster.domain import BoolArray, FloatArray
from wombat_dagster.science import quality
from wombat_dagster.science.chart_ensemble import Ensemble, chart_zero_points, ensemble_of
from wombat_dagster.science.check_star import Check, check_star, floored, random_error
from wombat_dagster.science.colour_terms import (
    COLOUR_FIT_MIN_COMPS,
    COLOUR_FIT_MIN_RANGE_MAG,
    NO_COEFFICIENTS,
    CompColours,
    Term,
    Terms,
    by_airmass,
    by_airmass_notes,
    fit_colour_term_clipped,
    may_free_colour_term,
    term_error,
)
from wombat_dagster.science.extinction import Extinction
from wombat_dagster.science.instrumental import (
    LIMIT_SNR,
    instrumental_magnitude,
    limiting_source,
)
from wombat_dagster.science.series import Night, night_of, star_name
from wombat_dagster.science.two_filter_night import MeasuredColour, measure_colour


def standardise(
    table: domain.PhotometryTable,
    *,
    transformation: domain.Transformation,
    merr: Literal["random", "total"] = "random",
    ensemble: Literal["chart", "field"] = "chart",
    colour_fit: bool = False,
    siblings: Sequence[domain.PhotometryTable] = (),
    coefficients: Mapping[str, float] = NO_COEFFICIENTS,
    coefficient_errors: Mapping[str, float] = NO_COEFFICIENTS,
    extinction: Extinction | None = None,
    extinction_colour: Mapping[str, float] = NO_COEFFICIENTS,
    earlier: Sequence[domain.CheckNight] = (),
) -> domain.StandardMagnitudes:
    """Return the standard magnitudes of T1 and T2 with both errors (SPEC section 8, DOMAIN 6).

    Stars carry the zero point from frame to frame by how steady they are, the chart's comps set its
    level, never T2. T1 gets the colour term T (colour - mean colour of the comps) with the colour
    that two filters measure (DOMAIN 6c); else with the coefficient and the variable's colour in
    `transformation` (6f); else, when asked for, with a coefficient fitted to the comps (6e); else
    none (6b).

    Parameters
    ----------
    transformation
        The colour term for one filter alone, see `colour_terms.choose_transformation`.
    merr
        What `t1_merr_mag` holds: the random error, or with `zp_err_mag` in quadrature.
    ensemble
        What carries the zero point from frame to frame: the chart's comps, or the field stars too.
    colour_fit
        Fit a colour term to the comps where nothing better is there; not standards-based, TRANS=NO.
    siblings
        The measurements of the same target and night through other filters, in any order.
    coefficients, coefficient_errors
        Stored coefficients by TG's names (``Tv_bv``), from standard fields. An error that is not
        there counts as 0.
    extinction
        Corrects stars to T1's airmass where that differs by more than 0.01.
    extinction_colour
        Second-order extinction by band, see `colour_terms.by_airmass`; applied with any colour
        term, so that a star of the comps' mean colour gets nothing.
    earlier
        Earlier nights of the same T2 (star, band, camera), by date, not held: what it is compared
        with in bands that the catalogue lacks.

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
    - Two filters: see `two_filter_night`.
    - Gain unknown, or a pedestal in the sky that counts as photons: formal errors are taken to be
      right but for a factor, which the comps' scatter gives, T2's where there is but one comp; for
      SNR 3 as well.
    - T2's scatter is used, here, in MERR and to hold the night, from 5 frames on.
    """
    with_field = ensemble == "field"
    night = night_of(table, with_field=with_field, extinction=extinction)
    transformation, fit_notes = _confirmed(table, transformation, siblings)
    measured, failures = measure_colour(
        night,
        siblings,
        coefficients,
        coefficient_errors,
        with_field=with_field,
        extinction=extinction,
        extinction_colour=extinction_colour,
    )
    by_colour = (
        measured.comps if measured else _supplied_colours(table, transformation, extinction_colour)
    )
    if by_colour is None and colour_fit:
        by_colour, why_not = _fitted_colours(night, transformation, extinction_colour)
        fit_notes += why_not
        transformation = _fitted_transformation(transformation, by_colour)
    comps = ensemble_of(night, by_colour)
    terms = measured.terms if measured else _supplied_terms(table, comps, transformation, by_colour)
    rejected = quality.propose_rejections(
        table,
        comps.zero_point_mag,
        comp_deviation_mag=comps.deviation_mag,
        comp_error_mag=comps.error_mag,
        without_colour=~terms.t1.measured,
    )
    check = check_star(night, comps, terms.t2, rejected, earlier)
    t1 = table.star_index("T1")
    assert t1 is not None  # night_of wants it
    snr = LIMIT_SNR * check.error_factor
    limited, t1_mag = _target_magnitude(night, t1, comps, terms.t1, snr)
    random, quoted = _target_errors(table, night.stars.error[:, t1], comps, terms.t1, check)
    without_error = limited | ~np.isfinite(t1_mag)
    zp_err = float(np.hypot(comps.level_error_mag, terms.t1.level_error))
    if merr == "total":
        quoted = np.hypot(quoted, zp_err)
    fitted = by_colour is not None and by_colour.fit is not None
    return domain.StandardMagnitudes(
        target=table.target,
        filter=table.filter,
        band=table.band,
        comp_band=table.comp_band,
        chart_id=table.chart_id,
        comp_source=table.comp_source,
        labels=table.labels,
        raw_hashes=table.raw_hashes,
        jd_utc=table.times.jd_utc,
        hjd_utc=table.times.hjd_utc,
        bjd_tdb=table.times.bjd_tdb,
        airmass=table.times.airmass,
        t1_mag=t1_mag,
        t1_random_mag=np.where(without_error, np.nan, random),
        t1_merr_mag=np.where(without_error, np.nan, quoted),
        t1_instrumental_mag=night.stars.magnitude[:, t1],
        t1_upper_limit=limited,
        t2_mag=check.magnitude,
        t2_random_mag=check.random,
        t2_instrumental_mag=check.instrumental,
        zero_point_mag=comps.zero_point_mag,
        zero_point_random_mag=floored(comps.random_mag),
        n_comps=comps.n_comps,
        proposed_rejected=rejected,
        zp_err_mag=zp_err,
        ensemble_reference_mag=comps.reference_mag,
        check_name=check.name,
        check_catalogue_mag=check.catalogue_mag,
        check_catalogue_error_mag=check.catalogue_error_mag,
        check_offset_mag=check.offset_mag,
        check_scatter_mag=check.scatter_mag,
        transformation=measured.transformation if measured else transformation,
        transformed=comps.mean_colour is not None and not fitted,
        method=_method(comps, measured, fitted=fitted),
        comp_names=tuple(star_name(star) for star in comps.stars),
        held_reason=check.held_reason,
        notes=tuple(
            dict.fromkeys(
                (
                    *table.notes,
                    *failures,
                    *fit_notes,
                    *comps.notes,
                    *terms.notes,
                    *check.notes,
                    *quality.linearity_notes(table),
                )
            )
        ),
        merr=merr,
        comp_residuals=comps.residuals,
        ensemble="field" if comps.n_field_stars else "chart",
        n_field_stars=comps.n_field_stars,
        camera=table.camera,
        check_reference_mag=check.reference_mag,
        check_allowed_mag=check.allowed_mag,
    )


def _method(comps: Ensemble, measured: MeasuredColour | None, *, fitted: bool) -> str:
    if measured:
        return "two-filter"
    if fitted:
        return "colour-fit"
    if len(comps.stars) == 1 and not comps.n_field_stars:
        return "single"
    return "ensemble" if comps.mean_colour is None else "ensemble+colour"


def _confirmed(
    table: domain.PhotometryTable,
    transformation: domain.Transformation,
    siblings: Sequence[domain.PhotometryTable],
) -> tuple[domain.Transformation, list[str]]:
    """Return the colour term, without its coefficient where the band is a guess; what to note."""
    if table.band_confirmed or (transformation.coefficient is None and not siblings):
        return transformation, []
    why = f"filter {table.filter!r} taken for {table.band} is not confirmed"
    without = replace(
        transformation, coefficient=None, coefficient_error=None, source=f"none: {why}"
    )
    return without, [f"not transformed: {why}: say it in [instrument.filters]"]


# ------------------------------------------------------------- one filter with a colour supplied


def _supplied_colours(
    table: domain.PhotometryTable,
    transformation: domain.Transformation,
    extinction_colour: Mapping[str, float],
) -> CompColours | None:
    """Return the comps' colours for a single filter; None without coefficient or T1's colour."""
    if transformation.coefficient is None or transformation.target_colour is None:
        return None
    index = transformation.colour_index or "colour"
    return CompColours(
        coefficient=transformation.coefficient,
        index=index,
        of_comp=_catalogue_colours(table),
        lacking=f"without {index}",
        by_airmass=by_airmass(table.band, table.times.airmass, index, extinction_colour),
    )


def _catalogue_colours(table: domain.PhotometryTable) -> dict[str, float]:
    return {star_name(star): star.colour for star in table.stars if star.colour is not None}


def _fitted_colours(
    night: Night, transformation: domain.Transformation, extinction_colour: Mapping[str, float]
) -> tuple[CompColours | None, list[str]]:
    """Return the colour term that the night's own comps show (DOMAIN 6e), None and why not."""
    index = transformation.colour_index
    if index is None or transformation.target_colour is None:
        return None, [f"no colour fit: no {index or 'colour'} of the variable"]
    of_comp = _catalogue_colours(night.table)
    names = [star_name(night.table.stars[i]) for i in night.seen]
    names = [name for name in names if name in of_comp]
    colours = np.array([of_comp[name] for name in names])
    if not names or not may_free_colour_term(colours):
        spread = f" over {np.ptp(colours):.2f} mag of {index}" if names else f" with {index}"
        return None, [
            f"no colour fit: {len(names)} comps{spread}, at least {COLOUR_FIT_MIN_COMPS} over "
            f"{COLOUR_FIT_MIN_RANGE_MAG:g} wanted"
        ]
    table = night.table
    asked = CompColours(
        coefficient=0.0,
        index=index,
        of_comp=of_comp,
        lacking=f"without {index}",
        by_airmass=by_airmass(table.band, table.times.airmass, index, extinction_colour),
    )
    fit = fit_colour_term_clipped(*chart_zero_points(night, names, asked), colours)
    return replace(asked, coefficient=fit.coefficient, fit=fit), []


def _fitted_transformation(
    transformation: domain.Transformation, by_colour: CompColours | None
) -> domain.Transformation:
    if by_colour is None or by_colour.fit is None:
        return transformation
    fit = by_colour.fit
    n = sum(weight > 0 for weight in fit.weights)
    return domain.Transformation(
        coefficient_name=transformation.coefficient_name,
        coefficient=fit.coefficient,
        coefficient_error=fit.coefficient_error,
        colour_index=transformation.colour_index,
        target_colour=transformation.target_colour,
        target_colour_error=transformation.target_colour_error,
        source=f"fit to {n} comps of the night, not to standards",
    )


def _supplied_terms(
    table: domain.PhotometryTable,
    comps: Ensemble,
    transformation: domain.Transformation,
    by_colour: CompColours | None,
) -> Terms:
    """Return T1's term by its supplied colour, T2's by its catalogue colour, 0 without a colour.

    T σ_colour and σ_T Δ of T1 are of the whole night.
    """
    n_frames = len(table.labels)
    colour = transformation.target_colour
    if comps.mean_colour is None or by_colour is None or colour is None:
        return Terms(t1=Term.certain(n_frames, 0.0), t2=Term.certain(n_frames, 0.0))
    error = term_error(
        coefficient=float(np.nanmedian(by_colour.on_frames)),
        coefficient_error=transformation.coefficient_error,
        colour_difference=colour - comps.mean_colour,
        colour_error=transformation.target_colour_error,
    )
    term = by_colour.on_frames * (colour - comps.mean_colour)
    t2 = table.star_index("T2")
    check_colour = None if t2 is None else table.stars[t2].colour
    check_term: FloatArray = np.zeros(n_frames)
    notes = by_airmass_notes(by_colour.by_airmass, table, by_colour.index)
    if transformation.coefficient_error is None:
        name = transformation.coefficient_name or "the coefficient"
        notes.append(f"error of {name} not known: left out of the zero-point error")
    if check_colour is not None:
        check_term = by_colour.on_frames * (check_colour - comps.mean_colour)
    elif t2 is not None:
        notes.append(f"check star without {transformation.colour_index}: no colour term for it")
    return Terms(
        t1=Term.certain(n_frames, term, error),
        t2=Term.certain(n_frames, check_term),
        notes=tuple(notes),
    )


# ----------------------------------------------------------------------------------------- T1


def _target_magnitude(
    night: Night, t1: int, comps: Ensemble, term: Term, snr: float
) -> tuple[BoolArray, FloatArray]:
    """Return where T1 is only an upper limit (formal SNR below `snr`), its magnitude or limit."""
    table = night.table
    source = table.measured.source_sky_adu[:, t1]
    error = table.measured.source_error_adu[:, t1]
    measured = np.isfinite(source) & np.isfinite(error)
    measured &= (table.measured.flags[:, t1] & domain.Flag.UNMEASURED) == 0
    zero_point = comps.zero_point_mag + term.magnitude
    limited = measured & (source < snr * error) & np.isfinite(zero_point)
    limiting = limiting_source(source, error, gain_e_adu=table.gain_e_adu or 1.0, snr=snr)
    limit = instrumental_magnitude(limiting, table.exposure_s) + zero_point
    magnitude = np.where(
        limited,
        np.minimum(limit, comps.faintest_mag),
        night.stars.magnitude[:, t1] + zero_point,
    )
    if not np.isfinite(magnitude).any():
        raise domain.NoStandard(
            f"T1 was measured together with a comp on none of {len(table.labels)} frames"
        )
    return limited, magnitude


def _target_errors(
    table: domain.PhotometryTable,
    formal: FloatArray,
    comps: Ensemble,
    term: Term,
    check: Check,
) -> tuple[FloatArray, FloatArray]:
    """Return T1's random error and what a report quotes, shape (n_frames,) (DOMAIN 6b)."""
    random = random_error(table, formal, comps, term, check.error_factor)
    if check.scatter_by_error is None:
        return random, random
    return random, np.fmax(random, check.scatter_by_error * formal)
