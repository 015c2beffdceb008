"""A night through two filters: what their colour makes of T1, T2 and the comps (DOMAIN 6c).

Where DOMAIN is silent:

- Only comps used in all filters concerned count, if they are at least half of those used in the
  one to transform. The colour is interpolated in time (`two_filters.colour_curve`) between frames
  whose point is not proposed to be rejected. Its noise is in the random error, less or more by what
  it shares with the frame's own magnitude; a colour that is the same all night has its noise in
  `zp_err_mag`, where the errors of the coefficients are as well, for the root mean square of T1's
  Δ. Catalogue errors of the comps' colours cancel: Δ is instrumental.
- A frame farther than 0.1 d from either filter's frames keeps the nearest colour, with 0.1 mag as
  its error, and is proposed to be rejected (``nocolour``): neither a hole nor a step. When that is
  more than half of them, two filters are not used.
- Filters in blocks one after the other: what T1 changes by in between, by the slope of its curves,
  is in the error of its colour; above 0.1 mag two filters are not used.
- A filter whose band is a guess (`band_confirmed`) transforms nothing.
- Second-order extinction goes with each coefficient of the pair, at the airmass of the frame to
  transform: the colour of the other filter is interpolated to its time.
- T2 is transformed by its own measured colour, so that it checks both filters; where that was not
  measured by its catalogue colour.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from wombat_dagster import domain
from wombat_dagster.domain import BoolArray, FloatArray
from wombat_dagster.science import quality
from wombat_dagster.science.chart_ensemble import chart_level, enough
from wombat_dagster.science.colour_terms import (
    UNKNOWN_COLOUR_ERROR_MAG,
    CompColours,
    Term,
    Terms,
    by_airmass,
    by_airmass_notes,
)
from wombat_dagster.science.ensemble import NightZeroPoint
from wombat_dagster.science.extinction import Extinction
from wombat_dagster.science.instrumental import LIMIT_SNR
from wombat_dagster.science.series import (
    Night,
    catalogue_error,
    catalogue_mag,
    night_of,
    star_name,
)
from wombat_dagster.science.two_filters import (
    MAX_DRIFT_MAG,
    MAX_GAP_D,
    ColourCurve,
    FilterPair,
    MagnitudeCurve,
    choose_pairs,
    colour_curve,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredColour:
    """A night transformed by two filters: what the comps and T1 and T2 are transformed by."""

    comps: CompColours
    terms: Terms
    transformation: domain.Transformation


@dataclass(frozen=True, slots=True, kw_only=True)
class _FilterNight:
    """One filter's night without a colour term, on the comps that all filters concerned share.

    Its zero points hold for a star of the comps' mean colour.
    """

    night: Night
    zero: NightZeroPoint
    error_factor: float  # what formal errors of an unknown scale lack
    rejected: tuple[str, ...]

    @property
    def table(self) -> domain.PhotometryTable:
        return self.night.table

    def target_curve(self) -> MagnitudeCurve:
        """Return T1 on frames that are not proposed to be rejected, above SNR 3."""
        t1 = self.table.star_index("T1")
        if t1 is None:
            raise domain.NoStandard(f"no T1 through filter {self.table.filter}")
        measured = self.table.measured
        error_adu = self.error_factor * measured.source_error_adu[:, t1]
        bright = measured.source_sky_adu[:, t1] >= LIMIT_SNR * error_adu
        return self._curve(t1, bright & np.array([not words for words in self.rejected]))

    def check_curve(self, name: str) -> MagnitudeCurve | None:
        """Return the star `name`, unsaturated, under a fair sky; None where it has no aperture."""
        places = [i for i, star in enumerate(self.table.stars) if star_name(star) == name]
        if not places:
            return None
        flags = self.table.measured.flags[:, places[0]]
        unsaturated = (flags & domain.Flag.SATURATED) == 0
        return self._curve(places[0], unsaturated & quality.under_fair_sky(self.rejected))

    def catalogue_mag(self, name: str) -> float | None:
        """Return the catalogue magnitude of the star `name`, None where it is not known."""
        known = (star.catalogue_mag for star in self.table.stars if star_name(star) == name)
        return next(known, None)

    def _curve(self, star: int, fit: BoolArray) -> MagnitudeCurve:
        return MagnitudeCurve.of(
            self.table.times.jd_utc,
            self.night.stars.magnitude[:, star] + self.zero.zero_point_mag,
            np.hypot(self.error_factor * self.night.stars.error[:, star], self.zero.random_mag),
            fit,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _PairNight:
    """A night through the two filters of a pair, and which of them is the one to transform."""

    pair: FilterPair
    blue: _FilterNight
    red: _FilterNight
    own: domain.PhotometryTable
    colours: Mapping[str, float]  # catalogue colours of the comps, by name
    mean_colour_error: float
    by_airmass: Mapping[str, FloatArray]  # of own, blue and red band, at the frames of `own`

    @property
    def mean_colour(self) -> float:
        return float(np.mean(list(self.colours.values())))

    @property
    def of_own(self) -> FloatArray:
        """The coefficient of the band to transform, on every frame of it."""
        return self.pair.own.value + self.by_airmass[self.own.band]

    @property
    def divisor(self) -> FloatArray:
        """Untransformed over standard colour difference, on every frame of the filter."""
        return self.pair.divisor - self.by_airmass[self.pair.blue] + self.by_airmass[self.pair.red]

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
        return (colour.colour - self.mean_colour) / self.divisor


def measure_colour(
    night: Night,
    siblings: Sequence[domain.PhotometryTable],
    coefficients: Mapping[str, float],
    errors: Mapping[str, float],
    *,
    with_field: bool,
    extinction: Extinction | None,
    extinction_colour: Mapping[str, float],
) -> tuple[MeasuredColour | None, tuple[str, ...]]:
    """Return the colour by the best pair of filters that gives one, and why better ones do not."""
    table = night.table
    for sibling in siblings:
        if sibling.target != table.target:
            raise ValueError(f"sibling of {table.target} is of another target, {sibling.target}")
    if not table.band_confirmed:
        return None, ()
    tables = _by_band(table, siblings)
    failures: list[str] = []
    for pair in choose_pairs(table.band, tables, coefficients, errors):
        try:
            for band in (pair.blue, pair.red):
                refuse_unconfirmed(tables[band])
            blue, red = (
                night
                if tables[band] is table
                else night_of(tables[band], with_field=with_field, extinction=extinction)
                for band in (pair.blue, pair.red)
            )
            return _colour_of(_pair_night(night, pair, blue, red, extinction_colour)), tuple(
                failures
            )
        except domain.NoStandard as reason:
            failures.append(f"no {pair.index} from two filters: {reason}")
    return None, tuple(failures)


def refuse_unconfirmed(table: domain.PhotometryTable) -> None:
    """Raise NoStandard for a filter whose band nobody has confirmed: its colour is anything."""
    if not table.band_confirmed:
        raise domain.NoStandard(
            f"filter {table.filter!r} taken for {table.band} is not confirmed: say it in "
            "[instrument.filters]"
        )


def _by_band(
    table: domain.PhotometryTable, siblings: Sequence[domain.PhotometryTable]
) -> dict[str, domain.PhotometryTable]:
    """Return one table per band; of two filters of one band the one with more frames."""
    ordered = sorted(siblings, key=lambda one: (len(one.labels), one.filter))
    return {one.band: one for one in ordered} | {table.band: table}


def _pair_night(
    night: Night, pair: FilterPair, blue: Night, red: Night, extinction_colour: Mapping[str, float]
) -> _PairNight:
    """Reduce both filters on the comps used in all, this one included. Raises NoStandard."""
    used, used_blue, used_red = (_used_comps(one) for one in (night, blue, red))
    shared = [name for name in used if name in used_blue and name in used_red]
    if not enough(len(shared), len(used)):
        _refuse_other_sources(pair, blue.table, red.table)
        raise domain.NoStandard(
            f"{len(shared)} of {len(used)} comps were used in {pair.blue} and {pair.red}, "
            "at least half wanted"
        )
    comps = [(used_blue[name], used_red[name]) for name in shared]
    colours = {
        name: catalogue_mag(one) - catalogue_mag(other)
        for name, (one, other) in zip(shared, comps, strict=True)
    }
    errors = [catalogue_error(star) for both in comps for star in both]
    own = night.table
    return _PairNight(
        pair=pair,
        blue=_filter_night(blue, colours, pair.of_blue.value, pair.index, extinction_colour),
        red=_filter_night(red, colours, pair.of_red.value, pair.index, extinction_colour),
        own=own,
        colours=colours,
        mean_colour_error=float(np.linalg.norm(errors)) / len(comps),
        by_airmass={
            band: by_airmass(band, own.times.airmass, pair.index, extinction_colour)
            for band in (own.band, pair.blue, pair.red)
        },
    )


def _refuse_other_sources(
    pair: FilterPair, blue: domain.PhotometryTable, red: domain.PhotometryTable
) -> None:
    """Raise NoStandard where comps have other names because they are from another source."""
    sources = blue.comp_source, red.comp_source
    if None not in sources and sources[0] != sources[1]:
        raise domain.NoStandard(
            f"comps are from {sources[0]} in {pair.blue}, from {sources[1]} in {pair.red}"
        )


def _used_comps(night: Night) -> dict[str, domain.ApertureStar]:
    """Return by name the comps that count on some frame."""
    return {star_name(night.table.stars[i]): night.table.stars[i] for i in night.seen}


def _filter_night(
    night: Night,
    colours: Mapping[str, float],
    coefficient: float,
    index: str,
    extinction_colour: Mapping[str, float],
) -> _FilterNight:
    """Return one filter's night on the comps in `colours`, all of which it has."""
    place = {star_name(night.table.stars[i]): i for i in night.seen}
    chosen = [place[name] for name in colours]
    table = night.table
    level = chart_level(
        night,
        chosen,
        CompColours(
            coefficient=coefficient,
            index=index,
            of_comp=colours,
            lacking="",
            by_airmass=by_airmass(table.band, table.times.airmass, index, extinction_colour),
        ),
    )
    zero, n = level.zero, len(chosen)
    rejected = quality.propose_rejections(
        night.table,
        zero.zero_point_mag,
        comp_deviation_mag=zero.deviation_mag[:, :n],
        comp_error_mag=zero.error_mag[:, :n],
    )
    return _FilterNight(
        night=night, zero=zero, error_factor=level.error_factor or 1.0, rejected=rejected
    )


def _colour_of(night: _PairNight) -> MeasuredColour:
    """Return the terms of T1 and T2. Raises NoStandard where T1's colour is known too rarely."""
    pair = night.pair
    blue, red = night.blue.target_curve(), night.red.target_curve()
    for curve, one in ((blue, night.blue.table), (red, night.red.table)):
        if not len(curve):
            raise domain.NoStandard(f"T1 is good on none of {len(one.labels)} {one.filter} frames")
    colour = night.colour(blue, red)
    n_near, n_frames = int(colour.near.sum()), len(colour.near)
    if not enough(n_near, n_frames):
        raise domain.NoStandard(
            f"{n_near} of {n_frames} frames have both filters within {MAX_GAP_D:g} d, "
            "at least half wanted"
        )
    if colour.drift_mag > MAX_DRIFT_MAG:
        raise domain.NoStandard(
            f"T1 changes by {colour.drift_mag:.2f} mag between the frames of {pair.blue} and "
            f"those of {pair.red}, at most {MAX_DRIFT_MAG:g} wanted"
        )
    t1_colour = (night.difference(colour) + night.mean_colour)[colour.near]
    t2, check_notes = _check_term(night)
    noise = float(np.median(colour.error / night.divisor))
    of_own = night.by_airmass[night.own.band]
    return MeasuredColour(
        comps=CompColours(
            coefficient=pair.own.value,
            index=pair.index,
            of_comp=night.colours,
            lacking=f"not used in {pair.blue} and {pair.red}",
            by_airmass=of_own,
        ),
        terms=Terms(
            t1=_target_term(night, colour),
            t2=t2,
            notes=(
                *_two_filter_notes(night, t1_colour, len(colour.near)),
                *by_airmass_notes(of_own, night.own, pair.index),
                *check_notes,
            ),
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


def _target_term(night: _PairNight, colour: ColourCurve) -> Term:
    """Return T1's term; a frame that has to borrow its colour gets 0.1 mag of colour error."""
    term = _measured_term(night, colour)
    borrowed = np.where(colour.near, 0.0, night.of_own * UNKNOWN_COLOUR_ERROR_MAG)
    return replace(term, other_error=np.hypot(term.other_error, borrowed), measured=colour.near)


def _measured_term(night: _PairNight, colour: ColourCurve) -> Term:
    """Return the term of a star by its colour through the pair, at every frame."""
    pair, difference = night.pair, night.difference(colour)
    slope = night.of_own / night.divisor
    noise = np.abs(slope) * colour.other_error
    coefficients = pair.magnitude_error(float(np.sqrt(np.mean(difference**2))))
    common = float(np.median(noise)) if colour.constant else 0.0
    return Term(
        magnitude=night.of_own * difference,
        own_weight=slope * colour.own_weight,
        other_error=np.zeros_like(noise) if colour.constant else noise,
        level_error=float(np.hypot(common, coefficients)),
        measured=np.ones(len(difference), dtype=bool),
    )


def _check_term(night: _PairNight) -> tuple[Term, list[str]]:
    """Return T2's term by its measured colour, else by the catalogue's, and what to note."""
    n_frames = len(night.own.labels)
    t2 = night.own.star_index("T2")
    if t2 is None:
        return Term.certain(n_frames, 0.0), []
    name, pair = star_name(night.own.stars[t2]), night.pair
    blue, red = night.blue.check_curve(name), night.red.check_curve(name)
    if blue and red:  # neither without an aperture nor empty
        return _measured_term(night, night.colour(blue, red)), []
    unmeasured = f"check star not measured in {pair.blue} and {pair.red}"
    blue_mag, red_mag = night.blue.catalogue_mag(name), night.red.catalogue_mag(name)
    if blue_mag is None or red_mag is None:
        return Term.certain(n_frames, 0.0), [f"{unmeasured}: no colour term for it"]
    term = night.of_own * (blue_mag - red_mag - night.mean_colour)
    return Term.certain(n_frames, term), [f"{unmeasured}: catalogue {pair.index} taken for it"]


def _two_filter_source(night: _PairNight) -> str:
    filters = " and ".join(repr(one.filter) for one in night.others)
    names = ", ".join(one.name for one in night.pair.coefficients)
    return f"two filters: {names}; {night.pair.index} with filter {filters} of the same night"


def _two_filter_notes(night: _PairNight, t1_colour: FloatArray, n_frames: int) -> tuple[str, ...]:
    """Return what to note: T1's colour, frames without one, what was taken for granted."""
    notes = [
        f"{night.pair.index} of T1 measured, {t1_colour.min():.3f} to {t1_colour.max():.3f}, "
        f"against {len(night.colours)} comps of mean {night.mean_colour:.3f}"
    ]
    if len(t1_colour) < n_frames:
        notes.append(
            f"{n_frames - len(t1_colour)} of {n_frames} frames without {night.pair.index} "
            f"within {MAX_GAP_D:g} d: nearest one taken, proposed to be rejected"
        )
    unknown = [one.name for one in night.pair.coefficients if one.error is None]
    if unknown:
        notes.append(f"error of {', '.join(unknown)} not known: left out of the zero-point error")
    return tuple(notes)
