"""Turns a measurement table into standard magnitudes, with what the sibling filters tell."""

from collections.abc import Iterable
from dataclasses import replace

from wombat_dagster.domain import (
    Observation,
    PhotometryTable,
    Reduction,
    StandardMagnitudes,
    Transformation,
)
from wombat_dagster.observatory import Observatory
from wombat_dagster.products import read_product
from wombat_dagster.science.colour_terms import choose_transformation
from wombat_dagster.science.extinction import Extinction
from wombat_dagster.science.site import choose_site
from wombat_dagster.science.standard import standardise
from wombat_dagster.stages.check_history import (
    change_of_check_star,
    nights_before,
    remember,
    same_check_star,
)
from wombat_dagster.stages.coefficients import StoredCoefficients, coefficients_of
from wombat_dagster.stages.siblings import COEFFICIENTS, sibling_versions
from wombat_dagster.stages.triage import audit_words
from wombat_dagster.store.tables import UnreadableProduct


def transformation_of(
    observatory: Observatory, observation: Observation, reduction: Reduction, band: str
) -> Transformation:
    stored = coefficients_of(observatory, reduction.group.camera, observation.date)
    return _transformation(observatory, observation, stored, band)


def standard_magnitudes_of(
    observatory: Observatory,
    observation: Observation,
    reduction: Reduction,
    table: PhotometryTable,
) -> StandardMagnitudes:
    """Return the standard magnitudes of T1 and T2, with the colour of what siblings there are.

    A sibling whose table is gone or damaged is none, and noted. What T2 says is remembered for the
    nights after. Raises NoStandard.
    """
    settings = observatory.settings.magnitudes
    instrument = observatory.settings.for_camera(reduction.group.camera)
    stored = coefficients_of(observatory, reduction.group.camera, observation.date)
    versions = sibling_versions(observatory, observation) if stored.values else {}
    siblings, lost = _readable(observatory, versions)
    before = nights_before(observatory, observation, table)
    magnitudes = standardise(
        table,
        transformation=_transformation(observatory, observation, stored, table.band),
        merr=settings.merr,
        ensemble=settings.ensemble,
        colour_fit=settings.colour_fit,
        siblings=list(siblings.values()),
        coefficients=stored.values,
        coefficient_errors=stored.errors,
        extinction=_extinction(observatory, reduction, table),
        extinction_colour=instrument.extinction_colour,
        earlier=same_check_star(before, table, since=instrument.epoch_of(observation.date)),
    )
    inputs = {key: versions[key] for key in siblings}
    if stored.version:
        inputs[COEFFICIENTS] = stored.version
    remember(observatory, observation, table, magnitudes)
    return replace(
        magnitudes,
        sibling_versions=inputs,
        made_with=_made_with(reduction, table),
        notes=(
            *magnitudes.notes,
            *audit_words(observatory, observation.key),
            *lost,
            *(f"coefficient not used: {words}" for words in stored.left_out),
            *change_of_check_star(before, table),
        ),
    )


def _made_with(reduction: Reduction, table: PhotometryTable) -> dict[str, str]:
    """Return by name what went in that the magnitudes do not tell otherwise, as words."""
    choice, radii = reduction.choice, table.aperture
    masters = {
        "bias": choice.bias,
        "dark": choice.dark,
        "flat": choice.flat,
        "bad pixels": choice.bad_pixels,
    }
    none = dict.fromkeys(masters, "none") | dict.fromkeys(choice.already_done, "in the frames")
    gain, noise = table.gain_e_adu, table.read_noise_e
    per_frame = "" if table.radii_px is None else ", by each frame's FWHM"
    return {
        **{
            name: f"{master.date} ({master.content_hash[:6]})" if master else none[name]
            for name, master in masters.items()
        },
        "gain": "none" if gain is None else f"{gain:.4g} e/ADU",
        "read noise": "none" if noise is None else f"{noise:.4g} e",
        "radii": f"{radii.radius_px:.2f} {radii.sky_inner_px:.2f} {radii.sky_outer_px:.2f} px"
        + per_frame,
    }


def _transformation(
    observatory: Observatory, observation: Observation, stored: StoredCoefficients, band: str
) -> Transformation:
    target = observatory.settings.for_target(observation.target)
    return choose_transformation(
        band,
        stored.values,
        stored.errors,
        target.colour if target else {},
        target.colour_error if target else {},
        source=stored.source,
    )


def _extinction(
    observatory: Observatory, reduction: Reduction, table: PhotometryTable
) -> Extinction | None:
    """Return the camera's extinction at the site that the night's times were made for."""
    settings, frames = observatory.settings, reduction.frames
    of_camera = settings.for_camera(reduction.group.camera).extinction
    if not of_camera:
        return None
    site = choose_site(
        settings.site.site() if settings.site else None,
        next((frame.site_hint for frame in frames if frame.site_hint), None),
        [frame.start_utc for frame in frames],
        [frame.exposure_s for frame in frames],
        ra_deg=table.variable.ra_deg,
        dec_deg=table.variable.dec_deg,
        airmass_header=[frame.airmass_header for frame in frames],
    )
    return Extinction(mag_per_airmass=of_camera, site=site)


def _readable(
    observatory: Observatory, keys: Iterable[str]
) -> tuple[dict[str, PhotometryTable], list[str]]:
    """Return the tables that can be read, by their keys, and a note for each that cannot."""
    tables, notes = {}, []
    for key in keys:
        try:
            tables[key] = read_product(observatory, "photometry_table", key)
        except FileNotFoundError:
            notes.append(f"no colour from {key}: its measurements are gone")
        except UnreadableProduct:
            notes.append(f"no colour from {key}: its measurements are damaged")
    return tables, notes
