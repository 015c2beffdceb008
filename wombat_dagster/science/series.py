"""A measurement table as instrumental magnitudes, and which of its comps count on which frame."""

from dataclasses import dataclass
from typing import Final

import numpy as np

from wombat_dagster import domain
from wombat_dagster.domain import BoolArray, FloatArray
from wombat_dagster.science.extinction import Extinction, extinction_to_target
from wombat_dagster.science.instrumental import (
    MAG_PER_RELATIVE_ERROR,
    instrumental_error,
    instrumental_magnitude,
)
from wombat_dagster.science.noise import relative_extra

UNKNOWN_CATALOGUE_ERROR_MAG: Final = 0.05  # of a chart star whose error the catalogue leaves out
FIELD_MIN_SNR: Final = 10.0  # a logarithm of less is biased
UNFIT: Final = domain.Flag.UNMEASURED | domain.Flag.SATURATED
BLENDED_PART: Final = 0.2  # of the frames; a comp blended on more is left out
BLENDED_MIN_OTHERS: Final = 3
UNCLEAN: Final = domain.Flag.BAD_PIXEL | domain.Flag.NEAR_EDGE


# ----------------------------------------------------------------------------------- stars' values


def star_name(star: domain.ApertureStar) -> str:
    return star.auid or star.name


def catalogue_mag(star: domain.ApertureStar) -> float:
    """Return the catalogue magnitude of a star that has been chosen because it has one."""
    assert star.catalogue_mag is not None
    return star.catalogue_mag


def known_error(star: domain.ApertureStar) -> float | None:
    """Return the catalogue error; an error of 0 is no error."""
    error = star.catalogue_error_mag
    return error if error is not None and np.isfinite(error) and error > 0 else None


def catalogue_error(star: domain.ApertureStar) -> float:
    return known_error(star) or UNKNOWN_CATALOGUE_ERROR_MAG


def no_error_note(role: str, star: domain.ApertureStar) -> str:
    name = star_name(star)
    return f"{role} without catalogue error: {name}, {UNKNOWN_CATALOGUE_ERROR_MAG} mag taken"


def errors_known(table: domain.PhotometryTable) -> bool:
    """Say whether the measured errors are those of the photons."""
    return table.gain_e_adu is not None and table.pedestal_removed


# ------------------------------------------------------------------------------------- the series


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Instrumental magnitudes of a night, shape (n_frames, n_stars); NaN: not usable.

    At the airmass of T1 where extinction matters. The errors hold what every star carries beyond
    photons and detector: scintillation and the flat field.
    """

    magnitude: FloatArray
    error: FloatArray

    def where(self, kept: BoolArray) -> "Series":
        """Return the series with NaN where not `kept`."""
        return Series(
            magnitude=np.where(kept, self.magnitude, np.nan),
            error=np.where(kept, self.error, np.nan),
        )

    def stars(self, indices: list[int]) -> "Series":
        """Return the columns `indices`."""
        return Series(magnitude=self.magnitude[:, indices], error=self.error[:, indices])


@dataclass(frozen=True, slots=True, kw_only=True)
class Night:
    """A measurement table with its series; saturated stars are still in `stars`.

    `listed` are the comps with a catalogue magnitude but those often blended, `seen` those that
    count on some frame, `usable` where each star of the table counts as one, shape (n_frames,
    n_stars). `field`, shape (n_frames, n_field_stars): None where chart comps alone carry the zero
    point.
    """

    table: domain.PhotometryTable
    stars: Series
    field: Series | None
    listed: list[int]
    seen: list[int]
    usable: BoolArray
    notes: tuple[str, ...]


def night_of(
    table: domain.PhotometryTable, *, with_field: bool, extinction: Extinction | None
) -> Night:
    """Return the night of a table. Raises NoStandard when no comp counts on any frame."""
    t1 = table.star_index("T1")
    if t1 is None:
        raise domain.NoStandard("no aperture T1 in the measurement table")
    stars, corrected = _star_series(table, t1, extinction)
    field = _field_series(table, t1, extinction) if with_field else None
    notes = []
    if corrected and extinction is not None:
        notes.append(
            f"extinction within the frame corrected by {extinction.mag_per_airmass[table.band]:g} "
            "mag per airmass"
        )
    if with_field and field is None:
        notes.append("no field stars measured: the chart's comps carry the zero point")
    listed = [i for i in table.ensemble if table.stars[i].catalogue_mag is not None]
    if not listed:
        raise domain.NoStandard(
            f"no comp of {len(table.ensemble)} has a catalogue magnitude in {table.comp_band}"
        )
    listed, blended_notes = _without_blended(table, listed)
    notes += blended_notes
    usable = np.zeros(stars.magnitude.shape, dtype=bool)
    usable[:, listed] = _usable_comps(table, stars, listed)
    seen = [i for i in listed if usable[:, i].any()]
    if not seen:
        raise domain.NoStandard(
            f"none of {len(listed)} comps was measured unsaturated on any of "
            f"{len(table.labels)} frames"
        )
    return Night(
        table=table,
        stars=stars,
        field=field,
        listed=listed,
        seen=seen,
        usable=usable,
        notes=tuple(notes),
    )


def _star_series(
    table: domain.PhotometryTable, t1: int, extinction: Extinction | None
) -> tuple[Series, bool]:
    """Return the table's positive, finite measurements, and whether extinction was corrected."""
    measured = table.measured
    magnitude, error = _magnitudes(table, measured.source_sky_adu, measured.source_error_adu)
    shift = _extinction_shift(
        table,
        t1,
        extinction,
        np.array([star.ra_deg for star in table.stars]),
        np.array([star.dec_deg for star in table.stars]),
    )
    if shift is not None:
        magnitude = magnitude + shift
    good = np.isfinite(magnitude) & np.isfinite(error)
    good &= (measured.flags & domain.Flag.UNMEASURED) == 0
    return Series(magnitude=magnitude, error=error).where(good), shift is not None


def _field_series(
    table: domain.PhotometryTable, t1: int, extinction: Extinction | None
) -> Series | None:
    """Return the field stars, clean on every frame they count on; None when there is none."""
    field = table.field
    if field is None:
        return None
    magnitude, error = _magnitudes(table, field.source_sky_adu, field.source_error_adu)
    shift = _extinction_shift(table, t1, extinction, field.ra_deg, field.dec_deg)
    if shift is not None:
        magnitude = magnitude + shift
    good = np.isfinite(magnitude) & np.isfinite(error) & ((field.flags & (UNFIT | UNCLEAN)) == 0)
    bright = np.array(
        [
            bool(kept.any()) and float(np.median(snr[kept])) >= FIELD_MIN_SNR
            for snr, kept in zip(field.snr.T, good.T, strict=True)
        ],
        dtype=bool,
    )
    if not bright.any():
        return None
    series = Series(magnitude=magnitude, error=error).where(good)
    return series.stars(np.flatnonzero(bright).tolist())


def _magnitudes(
    table: domain.PhotometryTable, source_adu: FloatArray, error_adu: FloatArray
) -> tuple[FloatArray, FloatArray]:
    magnitude = instrumental_magnitude(source_adu, table.exposure_s[:, None])
    error = instrumental_error(source_adu, error_adu)
    if errors_known(table):  # otherwise they lack a factor, and the night's scatter holds it all
        error = np.hypot(error, MAG_PER_RELATIVE_ERROR * relative_extra(table)[:, None])
    return magnitude, error


def _extinction_shift(
    table: domain.PhotometryTable,
    t1: int,
    extinction: Extinction | None,
    ra_deg: FloatArray,
    dec_deg: FloatArray,
) -> FloatArray | None:
    if extinction is None:
        return None
    target = table.stars[t1]
    return extinction_to_target(
        extinction,
        table.band,
        table.times.jd_utc,
        target=(target.ra_deg, target.dec_deg),
        ra_deg=ra_deg,
        dec_deg=dec_deg,
    )


def _without_blended(
    table: domain.PhotometryTable, indices: list[int]
) -> tuple[list[int], list[str]]:
    """Return the comps without those blended on many frames, if 3 others remain; what to note."""
    blended = (table.measured.flags & domain.Flag.BLENDED) != 0
    often = [i for i in indices if blended[:, i].mean() > BLENDED_PART]
    left_out = len(indices) - len(often) >= BLENDED_MIN_OTHERS
    what = "left out" if left_out else f"kept, without {BLENDED_MIN_OTHERS} others"
    notes = [
        f"comp {star_name(table.stars[i])} is blended on {int(blended[:, i].sum())} of "
        f"{len(blended)} frames: {what}"
        for i in often
    ]
    return [i for i in indices if not (left_out and i in often)], notes


def _usable_comps(table: domain.PhotometryTable, series: Series, indices: list[int]) -> BoolArray:
    """Return where each comp counts, shape (n_frames, len(indices)).

    Not where it is saturated; masked, at the edge or blended (by a trail, or worse seeing than the
    chart's stars were chosen by) only where no other comp is clean.
    """
    flags = table.measured.flags[:, indices]
    measured = np.isfinite(series.magnitude[:, indices])
    measured &= (flags & domain.Flag.SATURATED) == 0
    clean = measured & ((flags & (UNCLEAN | domain.Flag.BLENDED)) == 0)
    return np.where(clean.any(axis=1, keepdims=True), clean, measured)
