"""Fits transformation coefficients to a night's frames of a standard field.

The observations of the field need to be reduced and solved, no more: a standard field is no
variable star, and its runs end with "VSX does not know the name".
"""

import datetime as dt
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from wombat_dagster.domain import (
    BadPsf,
    BadSite,
    Coefficient,
    CompStar,
    Flag,
    FloatArray,
    NoCalibration,
    NoSite,
    NoTime,
    Observation,
    Reduction,
    StarMeasurements,
)
from wombat_dagster.observatory import Observatory
from wombat_dagster.products import read_product
from wombat_dagster.reports.coefficients import (
    FitPanel,
    StarLine,
    coefficients_csv,
    coefficients_png,
    stars_csv,
)
from wombat_dagster.science.astrometry import chart_radius_arcmin, project, sky
from wombat_dagster.science.colour_terms import SINGLE_FILTER_COEFFICIENT
from wombat_dagster.science.photometry import (
    instrumental_mag,
    instrumental_mag_error,
    measure_stars,
)
from wombat_dagster.science.sequence import (
    MIN_COMP_SNR,
    UnknownFilter,
    band_of,
    calls_variable,
    crowded,
)
from wombat_dagster.science.site import choose_site
from wombat_dagster.science.timing import frame_times
from wombat_dagster.science.transform import (
    CATALOGUE_BAND,
    UNKNOWN_ERROR_MAG,
    CoefficientFit,
    NightMeans,
    StandardStars,
    fit_coefficients,
    night_means,
)
from wombat_dagster.stages.coefficients import FIT
from wombat_dagster.stages.photometry import night_profile, typical_frame
from wombat_dagster.stages.pixels import CalibratedFrames
from wombat_dagster.stages.sequence import Solved, aperture_of, solved_frames
from wombat_dagster.store.coefficients import replace_coefficients
from wombat_dagster.store.frames import UnreadableFrame, write_bytes_atomic
from wombat_dagster.store.standard_stars import read_standard_stars
from wombat_dagster.store.tables import UnreadableProduct

log = logging.getLogger(__name__)

NOT_COUNTED = {
    Flag.SATURATED: "saturated",
    Flag.NON_LINEAR: "above linearity",
    Flag.NEAR_EDGE: "at the edge",
    Flag.UNMEASURED: "not measured",
    Flag.BAD_PIXEL: "bad pixels",
    Flag.OFF_CENTRE: "not where it should be",
}
"""Flags of a star that make its magnitude on a frame count for nothing, the gravest first."""


class NoTransform(Exception):
    """No coefficient can be had from these frames; the message says why, in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StandardField:
    """What a night on a standard field gave. `refusals`: by coefficient, why it cannot be had."""

    date: dt.date
    target: str
    camera: str | None
    standards: str  # where the catalogue magnitudes are from
    panels: tuple[FitPanel, ...]
    refusals: dict[str, str]
    stars: tuple[StarLine, ...]
    notes: tuple[str, ...]
    directory: Path  # of the picture and the tables

    @property
    def coefficients(self) -> tuple[Coefficient, ...]:
        """The coefficients, in the order of their colours."""
        return tuple(panel.coefficient for panel in self.panels)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Filter:
    """One filter's solved frames of the field."""

    observation: Observation
    band: str  # AAVSO code
    reduction: Reduction
    solved: Solved


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    """A filter's mean magnitudes of all stars, and a word on each star."""

    means: NightMeans
    words: tuple[str, ...]


def fit_standard_field(
    observatory: Observatory, date: dt.date, target: str, *, standards: Path | None = None
) -> StandardField:
    """Measure the standard stars on a night's frames of `target` and fit what they allow.

    The stars are those of VSP's standard-field chart, or of a table (`read_standard_stars`).
    Nothing is stored: `keep` does.

    Raises
    ------
    NoTransform
        There are no solved frames, no standard stars on them, or none can be measured; or the air
        they were measured through is not known and has to be.
    VspUnavailable
        VSP is away and no chart on disk covers the field.
    UnreadableStandards, OSError
        The table of standards.
    """
    notes: list[str] = []
    filters = _filters(observatory, date, target, notes)
    centre = _centre(filters)
    wanted, words = _standards(observatory, filters, centre, standards, notes)
    through = _colour_extinction(observatory, filters, centre, notes)
    ra_deg = np.array([star.ra_deg for star in wanted])
    dec_deg = np.array([star.dec_deg for star in wanted])
    measured = {}
    for one in filters:
        try:
            measured[one.band] = _measure(observatory, one, ra_deg, dec_deg)
        except (BadPsf, NoCalibration, UnreadableFrame, OSError) as failure:
            notes.append(f"{one.observation.filter} left out: {failure}")
    if not measured:
        raise NoTransform("; ".join(notes))
    fits, refusals = fit_coefficients(_as_standard_stars(wanted, measured, through))
    camera = filters[0].reduction.group.camera
    any_key = filters[0].observation.key
    return StandardField(
        date=date,
        target=filters[0].observation.target,
        camera=camera,
        standards=words,
        panels=tuple(
            _panel(
                fit,
                wanted,
                Coefficient(
                    name=fit.name,
                    value=fit.value,
                    error=fit.error,
                    n_stars=fit.n_stars,
                    r_squared=fit.line.r_squared,
                    date=date,
                    camera=camera,
                    epoch=observatory.settings.for_camera(camera).epoch_of(date),
                    source=FIT + filters[0].observation.target,
                    outside_atmosphere=fit.outside_atmosphere,
                ),
            )
            for fit in fits
        ),
        refusals=refusals,
        stars=_star_lines(wanted, measured, fits),
        notes=tuple(notes),
        directory=observatory.layout.observation_dir(any_key).parent,
    )


def keep(observatory: Observatory, field: StandardField) -> tuple[Path, ...]:
    """Store the coefficients and write picture and tables; return the files.

    They replace all that the same field gave in the same night before.
    """
    title = f"{field.target} {field.date}: {len(field.panels)} coefficients by {field.standards}"
    files = {
        "transform.csv": coefficients_csv(field.panels).encode(),
        "transform_stars.csv": stars_csv(field.stars).encode(),
    }
    if field.panels:
        files["transform.png"] = coefficients_png(title, field.panels)
    for name, content in files.items():
        write_bytes_atomic(field.directory / name, content)
    if field.panels:
        replace_coefficients(
            observatory.status,
            field.coefficients,
            source=field.coefficients[0].source,
            camera=field.camera,
            date=field.date,
        )
    dropped = [star.name for star in field.stars if not np.isfinite(star.mags).any()]
    log.info(
        "%s %s: %d coefficients of %d standard stars, %d not usable",
        field.date,
        field.target,
        len(field.panels),
        len(field.stars),
        len(dropped),
    )
    return tuple(field.directory / name for name in files)


# ------------------------------------------------------------------------------ frames and stars


def _filters(
    observatory: Observatory, date: dt.date, target: str, notes: list[str]
) -> list[_Filter]:
    """Return the field's filters that are reduced and solved, one for each band, of one camera."""
    rows = [
        row.observation
        for row in observatory.status.targets()
        if row.observation.date == date and row.observation.target.casefold() == target.casefold()
    ]
    if not rows:
        raise NoTransform(f"no light frames of {target} in the night {date}")
    found: list[_Filter] = []
    for one in rows:
        try:
            reduction = read_product(observatory, "reduced_frames", one.key)
            solutions = read_product(observatory, "wcs_solutions", one.key)
        except (FileNotFoundError, UnreadableProduct):
            notes.append(f"{one.filter} left out: not reduced and solved; wombat run does it")
            continue
        settings = observatory.settings.for_camera(reduction.group.camera)
        try:
            band, _, is_confirmed = band_of(one.filter, settings.filters)
        except UnknownFilter as unknown:
            notes.append(f"{one.filter} left out: {unknown}")
            continue
        solved = solved_frames(reduction, solutions)
        if band not in CATALOGUE_BAND:
            notes.append(f"{one.filter} left out: it is {band}, and coefficients are of UBVRI")
        elif not solved:
            notes.append(f"{one.filter} left out: no frame is solved")
        else:
            if not is_confirmed:
                notes.append(f"{one.filter} is taken for {band}: say so in [instrument.filters]")
            found.append(_Filter(observation=one, band=band, reduction=reduction, solved=solved))
    if not found:
        raise NoTransform("; ".join(notes))
    return _one_camera(found, notes)


def _one_camera(found: Sequence[_Filter], notes: list[str]) -> list[_Filter]:
    """Return the filters of the camera with the most frames; of two of one band the fuller."""
    frames: Counter[str | None] = Counter()
    for one in found:
        frames[one.reduction.group.camera] += len(one.solved)
    camera = max(frames, key=lambda name: (frames[name], name or ""))
    kept: dict[str, _Filter] = {}
    for one in sorted(found, key=lambda one: -len(one.solved)):
        if one.reduction.group.camera != camera:
            notes.append(
                f"{one.observation.filter} left out: taken with {one.reduction.group.camera}"
            )
        elif one.band in kept:
            other = kept[one.band].observation.filter
            notes.append(f"{one.observation.filter} left out: {other} is {one.band} too")
        else:
            kept[one.band] = one
    order = list(CATALOGUE_BAND)
    return sorted(kept.values(), key=lambda one: order.index(one.band))


def _centre(filters: Sequence[_Filter]) -> tuple[float, float]:
    """Return the mean RA and Dec of the frames' centres, degrees."""
    group = filters[0].reduction.group
    solutions = [wcs for one in filters for _, _, wcs in one.solved]
    centres = np.radians(
        [sky(wcs, (group.width_px - 1) / 2, (group.height_px - 1) / 2) for wcs in solutions]
    )
    ra, dec = centres[:, 0], centres[:, 1]
    mean = np.stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)]).mean(axis=1)
    return (
        float(np.degrees(np.arctan2(mean[1], mean[0]))) % 360.0,
        float(np.degrees(np.arctan2(mean[2], np.hypot(mean[0], mean[1])))),
    )


def _standards(
    observatory: Observatory,
    filters: Sequence[_Filter],
    centre: tuple[float, float],
    table: Path | None,
    notes: list[str],
) -> tuple[tuple[CompStar, ...], str]:
    """Return the standard stars on the frames, by brightness, and where they are from."""
    group = filters[0].reduction.group
    solutions = [wcs for one in filters for _, _, wcs in one.solved]
    ra_deg, dec_deg = centre
    if table is not None:
        stars, words = read_standard_stars(table), table.name
    else:
        radius = chart_radius_arcmin(solutions, group.width_px, group.height_px, ra_deg, dec_deg)
        chart = observatory.vsp.chart(
            ra_deg, dec_deg, 2 * radius, observatory.settings.aavso.maglimit, standard_field=True
        )
        notes += chart.notes
        stars, words = chart.stars, f"{chart.source} {chart.chart_id}"
        if not stars:
            raise NoTransform(
                f"VSP knows no standard stars within {2 * radius:.0f}' of RA {ra_deg:.4f} "
                f"Dec {dec_deg:.4f}: not a standard field, or name a table with --standards"
            )
    for star in stars:
        if calls_variable(star.comment):
            notes.append(f"{star.auid} left out: {star.comment}")
    stars = tuple(star for star in stars if not calls_variable(star.comment))
    if not stars:
        raise NoTransform(f"{words} has no star with a V magnitude that is not called variable")
    places = [(star.ra_deg, star.dec_deg) for star in stars]
    there = np.zeros(len(stars), dtype=bool)
    for wcs in solutions:
        x_px, y_px = project(wcs, *np.array(places).T)
        with np.errstate(invalid="ignore"):
            there |= (x_px > 0) & (x_px < group.width_px) & (y_px > 0) & (y_px < group.height_px)
    if not there.any():
        raise NoTransform(
            f"not one of the {len(stars)} standard stars of {words} is on the frames, which are "
            f"around RA {ra_deg:.4f} Dec {dec_deg:.4f}"
        )
    on_frames = [star for star, is_there in zip(stars, there, strict=True) if is_there]
    without = sum(any(one.error_mag is None for one in s.bands.values()) for s in on_frames)
    if without:
        notes.append(
            f"{without} of {len(on_frames)} standard stars lack an error: {UNKNOWN_ERROR_MAG} mag"
        )
    on_frames.sort(key=lambda star: star.bands["V"].mag if "V" in star.bands else np.inf)
    return tuple(on_frames), words


def _measure(
    observatory: Observatory, one: _Filter, ra_deg: FloatArray, dec_deg: FloatArray
) -> _Measured:
    """Return the mean magnitudes of stars through a filter."""
    facts, settings = one.reduction.detector, observatory.settings.photometry
    pixels = CalibratedFrames(observatory, one.observation, one.reduction)
    profile, reference = night_profile(pixels, one.solved, facts, settings)
    detected = np.array([record.fwhm_median_px or np.nan for _, record, _ in one.solved])
    fwhm_px = profile.fwhm_px * detected / detected[reference]
    fwhm_px = np.where(np.isfinite(fwhm_px), fwhm_px, profile.fwhm_px)
    typical, typical_fwhm_px = typical_frame(fwhm_px), float(np.median(fwhm_px))
    aperture = aperture_of(settings, typical_fwhm_px)
    limit_px = settings.recentre_limit_px
    frames = [frame for frame, _, _ in one.solved]
    series: list[StarMeasurements] = []
    crowding: list[str | None] = [None] * len(ra_deg)
    for index, ((_, _, wcs), (image, mask)) in enumerate(
        zip(one.solved, pixels.stream(frames), strict=True)
    ):
        x_px, y_px = project(wcs, ra_deg, dec_deg)
        series.append(
            measure_stars(
                image,
                mask,
                x_px,
                y_px,
                aperture=aperture,
                gain_e_adu=facts.gain_e_adu.value if facts.gain_e_adu else None,
                read_noise_e=facts.read_noise_e.value if facts.read_noise_e else None,
                recentre_limit_px=limit_px if limit_px is not None else float(fwhm_px[index]),
                fwhm_px=float(fwhm_px[index]),
            )
        )
        if index == typical:
            crowding = crowded(
                x_px,
                y_px,
                series[-1].source_sky_adu,
                pixels.stars(frames[index]),
                radius_px=aperture.radius_px,
                fwhm_px=typical_fwhm_px,
            )
    night = StarMeasurements.stack(series)
    exposure_s = np.array([frame.exposure_s for frame in frames])
    mag = instrumental_mag(night.source_sky_adu, exposure_s[:, None])
    error_mag = instrumental_mag_error(night.source_sky_adu, night.source_error_adu)
    fit = (night.flags & sum(NOT_COUNTED)) == 0
    fit &= night.snr >= MIN_COMP_SNR
    fit &= np.array([words is None for words in crowding])
    means = night_means(np.where(fit, mag, np.nan), error_mag)
    words = [
        f"{means.n_frames[star]} of {len(frames)} frames"
        if means.n_frames[star]
        else _why_not(night, star, crowding[star])
        for star in range(len(ra_deg))
    ]
    return _Measured(means=means, words=tuple(words))


def _why_not(night: StarMeasurements, star: int, crowding: str | None) -> str:
    """Return why not one magnitude of a star counts."""
    if crowding is not None:
        return f"crowded: {crowding}"
    flags, n_frames = night.flags[:, star], len(night.flags)
    for flag, words in NOT_COUNTED.items():
        times = int(((flags & flag) != 0).sum())
        if times > n_frames // 2:
            return f"{words} on {times} of {n_frames} frames"
    snr = night.snr[:, star]
    if np.isfinite(snr).any():
        return f"SNR {np.nanmax(snr):.0f} at best, {MIN_COMP_SNR:.0f} wanted"
    return "not measured"


# ------------------------------------------------------------------------------------------ the air


def _colour_extinction(
    observatory: Observatory,
    filters: Sequence[_Filter],
    centre: tuple[float, float],
    notes: list[str],
) -> dict[str, float]:
    """Return k2 X by band, where the camera's k2 is known; `notes` say what is in the coefficients.

    Raises NoTransform where k2 is known and X is not: the coefficients would hold an unknown part
    of it, and standard magnitudes count it a second time.
    """
    camera = filters[0].reduction.group.camera
    k2 = observatory.settings.for_camera(camera).extinction_colour
    found = {}
    for one in filters:
        is_wanted = bool(k2.get(one.band)) and one.band in SINGLE_FILTER_COEFFICIENT
        if not is_wanted and one.band not in ("U", "B"):
            continue
        airmass, words = _mean_airmass(observatory, one, centre)
        if not is_wanted:
            at = f" (airmass {airmass:.2f}{words})" if airmass is not None else ""
            notes.append(
                f"the {one.band} coefficients hold the second-order extinction of this field{at}"
            )
            continue
        if airmass is None:
            raise NoTransform(
                f"extinction_colour says {k2[one.band]:+.3f} in {one.band}, and the airmass it is "
                f"to be taken out for is not known: {words}; [site] in wombat.toml says it"
            )
        found[one.band] = k2[one.band] * airmass
        notes.append(
            f"second-order extinction is taken out of the {one.band} coefficient of "
            f"{SINGLE_FILTER_COEFFICIENT[one.band][1]}: {k2[one.band]:+.3f} at airmass "
            f"{airmass:.2f}{words}"
        )
    return found


def _mean_airmass(
    observatory: Observatory, one: _Filter, centre: tuple[float, float]
) -> tuple[float | None, str]:
    """Return the mean airmass of a filter's frames and where it is from, or None and why not.

    Computed, by site and times; the headers' only where that cannot be.
    """
    frames = [frame for frame, _, _ in one.solved]
    starts, exposure_s = [f.start_utc for f in frames], [f.exposure_s for f in frames]
    headers = [frame.airmass_header for frame in frames]
    ra_deg, dec_deg = centre
    configured = observatory.settings.site
    try:
        site = choose_site(
            configured.site() if configured else None,
            next((frame.site_hint for frame in frames if frame.site_hint), None),
            starts,
            exposure_s,
            ra_deg=ra_deg,
            dec_deg=dec_deg,
            airmass_header=headers,
        )
        times = frame_times(starts, exposure_s, ra_deg=ra_deg, dec_deg=dec_deg, site=site)
        return float(np.mean(times.airmass)), ""
    except (NoSite, BadSite, NoTime) as reason:
        known = [airmass for airmass in headers if airmass is not None and airmass >= 1.0]
        if known:
            return float(np.mean(known)), ", of the headers"
        return None, f"{reason}, and the headers have none"


# ------------------------------------------------------------------------------------ what it says


def _as_standard_stars(
    stars: Sequence[CompStar],
    measured: dict[str, _Measured],
    colour_extinction: Mapping[str, float],
) -> StandardStars:
    catalogue: dict[str, FloatArray] = {}
    errors: dict[str, FloatArray] = {}
    for code, band in CATALOGUE_BAND.items():
        known = [star.bands.get(band) for star in stars]
        catalogue[code] = np.array([np.nan if k is None else k.mag for k in known])
        errors[code] = np.array(
            [
                np.nan if k is None else UNKNOWN_ERROR_MAG if k.error_mag is None else k.error_mag
                for k in known
            ]
        )
    return StandardStars(
        names=tuple(star.auid for star in stars),
        instrumental_mag={band: one.means.mag for band, one in measured.items()},
        instrumental_error_mag={band: one.means.error_mag for band, one in measured.items()},
        catalogue_mag=catalogue,
        catalogue_error_mag=errors,
        colour_extinction=colour_extinction,
    )


def _panel(fit: CoefficientFit, stars: Sequence[CompStar], coefficient: Coefficient) -> FitPanel:
    return FitPanel(
        coefficient=coefficient,
        ordinate_words=fit.ordinate_words,
        colour_words=fit.colour_words,
        names=tuple(stars[index].auid for index in fit.stars),
        colour=fit.colour,
        ordinate=fit.ordinate,
        error_mag=fit.error_mag,
        used=fit.line.used,
        slope=fit.line.slope,
        intercept=fit.line.intercept,
        scatter_mag=fit.line.scatter,
    )


def _star_lines(
    stars: Sequence[CompStar], measured: dict[str, _Measured], fits: Sequence[CoefficientFit]
) -> tuple[StarLine, ...]:
    return tuple(
        StarLine(
            name=star.auid,
            ra_deg=star.ra_deg,
            dec_deg=star.dec_deg,
            v_mag=star.bands["V"].mag if "V" in star.bands else np.nan,
            bands=tuple(measured),
            mags=tuple(float(one.means.mag[index]) for one in measured.values()),
            errors_mag=tuple(float(one.means.error_mag[index]) for one in measured.values()),
            words=tuple(one.words[index] for one in measured.values()),
            left_out=tuple(fit.name for fit in fits if index in fit.left_out),
        )
        for index, star in enumerate(stars)
    )
