"""The parts of a lineage in words for people and facts for programs. What is told: `lineage`."""

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from wombat_dagster.domain import (
    ApertureStar,
    Flag,
    FrameSolution,
    PhotometryTable,
    RawFrame,
    Reduction,
    Sourced,
    StandardMagnitudes,
)
from wombat_dagster.stages.due import STAGES
from wombat_dagster.store.frames import UnreadableFrame, array_hash, read_image
from wombat_dagster.store.layout import Layout, parse_night_date
from wombat_dagster.store.locks import is_held
from wombat_dagster.store.stage_runs import StageRun

PLACES_OF_THE_MACHINE = {"data", "products", "database", "cache"}
"""Settings that say where things lie: of no magnitude's business."""
MAX_NAMED = 6  # frames or keys in one line for people; JSON has all
FLAGS = {name.lower(): bit for name, bit in vars(Flag).items() if name.isupper()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One part of the answer.

    `lines` are for people, `facts` say the same, and more, for programs; `faults` what is missing,
    damaged or has changed.
    """

    name: str
    title: str
    lines: tuple[str, ...] = ()
    facts: Mapping[str, Any]
    faults: tuple[str, ...] = ()
    sections: "tuple[Section, ...]" = ()

    def as_object(self) -> dict[str, Any]:
        """Return the section for JSON; the names in it stay what they are."""
        return {
            "name": self.name,
            "title": self.title,
            "facts": _plain(self.facts),
            "faults": list(self.faults),
            "sections": [one.as_object() for one in self.sections],
        }

    def all_faults(self) -> list[str]:
        """Return the faults of this section and of all below it."""
        return [*self.faults, *(fault for one in self.sections for fault in one.all_faults())]


def only_faults(
    name: str, title: str, faults: Sequence[str], file: Mapping[str, Any]
) -> Section | None:
    """Return a section of what should be there and is not; None when it was never made."""
    if not faults:
        return None
    return Section(name=name, title=f"{title}: not to be had", facts=file, faults=tuple(faults))


def magnitude_words(
    magnitudes: StandardMagnitudes, index: int | None
) -> tuple[list[str], dict[str, Any]]:
    m = magnitudes
    zp_err = f"zp_err {m.zp_err_mag:.4f} (the night's, the same for every frame)"
    common = {"band": m.band, "zp_err_mag": m.zp_err_mag, "merr": m.merr, "held": m.held_reason}
    held = [f"held: {m.held_reason}"] if m.held_reason else []
    if index is None:
        seen = m.t1_mag[np.isfinite(m.t1_mag) & ~m.t1_upper_limit]
        proposed = Counter(
            word for words in m.proposed_rejected for word in words.split(",") if word
        )
        words = ", ".join(f"{n} {word}" for word, n in proposed.most_common())
        return [
            f"median {_number(_median(seen), 4)}, random {_number(_median(m.t1_random_mag), 4)}"
            f" in the median, {zp_err}",
            f"{len(m.labels)} frames, {int(m.t1_upper_limit.sum())} upper limits, proposed to be"
            f" rejected: {words or 'none'}",
            *held,
        ], {
            **common,
            "t1_median_mag": _median(seen),
            "t1_random_median_mag": _median(m.t1_random_mag),
            "n_frames": len(m.labels),
            "n_upper_limits": int(m.t1_upper_limit.sum()),
            "proposed_rejected": dict(proposed),
        }
    facts = {
        name: float(getattr(m, name)[index])
        for name in (
            "jd_utc", "hjd_utc", "bjd_tdb", "airmass", "t1_mag", "t1_random_mag", "t1_merr_mag",
            "t1_instrumental_mag", "zero_point_mag", "zero_point_random_mag",
        )
    }  # fmt: skip
    limit = bool(m.t1_upper_limit[index])
    rejected = m.proposed_rejected[index]
    return [
        f"T1 {'fainter than ' if limit else ''}{facts['t1_mag']:.4f}, random"
        f" {_number(facts['t1_random_mag'], 4)}, {zp_err}; MERR ({m.merr})"
        f" {_number(facts['t1_merr_mag'], 4)}",
        f"= instrumental {facts['t1_instrumental_mag']:.4f} + zero point"
        f" {facts['zero_point_mag']:.4f} ± {facts['zero_point_random_mag']:.4f} of"
        f" {int(m.n_comps[index])} comps"
        + _rest_words(facts["t1_mag"], facts["t1_instrumental_mag"], facts["zero_point_mag"]),
        f"JD {facts['jd_utc']:.6f}, HJD {facts['hjd_utc']:.6f}, BJD_TDB {facts['bjd_tdb']:.6f},"
        f" airmass {facts['airmass']:.4f}",
        f"proposed to be rejected: {rejected or 'no'}",
        *held,
    ], {
        **common,
        **facts,
        "t1_upper_limit": limit,
        "n_comps": int(m.n_comps[index]),
        "proposed_rejected": [word for word in rejected.split(",") if word],
    }


def _rest_words(t1_mag: float, instrumental_mag: float, zero_point_mag: float) -> str:
    """Return what the colour term and the extinction add, where they do."""
    rest = t1_mag - instrumental_mag - zero_point_mag
    return "" if not abs(rest) >= 5e-5 else f" {rest:+.4f} (colour, extinction)"


def comparison_section(
    magnitudes: StandardMagnitudes, table: PhotometryTable | None, index: int | None
) -> Section:
    stars = (
        {} if table is None else {_name_of(star): (i, star) for i, star in enumerate(table.stars)}
    )
    lines, comps = [], []
    for one in magnitudes.comp_residuals:
        place, star = stars.get(one.name, (None, None))
        facts: dict[str, Any] = {
            **asdict(one),
            "role": star.role if star else None,
            "catalogue_mag": star.catalogue_mag if star else None,
        }
        words = (
            f"{facts['role'] or '?'} {one.name}: catalogue {_number(facts['catalogue_mag'], 3)}"
            f" ± {_number(one.catalogue_error_mag, 3)}, residual {one.residual_mag:+.4f},"
            f" weight {one.weight:.2f}"
        )
        if index is not None and table is not None and place is not None:
            facts["snr"] = float(table.measured.snr[index, place])
            facts["source_sky_adu"] = float(table.measured.source_sky_adu[index, place])
            words += f", SNR {facts['snr']:.0f} on this frame"
        if one.suspect:
            words += " – suspect"
        lines.append(words)
        comps.append(facts)
    if magnitudes.n_field_stars:
        lines.append(f"and {magnitudes.n_field_stars} field stars, which steady the zero point")
    return Section(
        name="comparison_stars",
        title=f"Comparison stars: {len(magnitudes.comp_names)} ({magnitudes.ensemble})",
        lines=tuple(lines),
        facts={
            "comps": comps,
            "ensemble": magnitudes.ensemble,
            "n_field_stars": magnitudes.n_field_stars,
            "reference_mag": magnitudes.ensemble_reference_mag,
        },
    )


def _name_of(star: ApertureStar) -> str:
    return star.auid or star.name


def check_star_section(magnitudes: StandardMagnitudes, index: int | None) -> Section:
    m = magnitudes
    if m.check_name is None:
        return Section(name="check_star", title="Check star: none", facts={"name": None})
    facts: dict[str, Any] = {
        "name": m.check_name,
        "catalogue_mag": m.check_catalogue_mag,
        "catalogue_error_mag": m.check_catalogue_error_mag,
        "offset_mag": m.check_offset_mag,
        "scatter_mag": m.check_scatter_mag,
        "judged_against_mag": m.check_reference_mag,
        "allowed_mag": m.check_allowed_mag,
    }
    lines = [
        f"catalogue {_number(m.check_catalogue_mag, 3)}"
        f" ± {_number(m.check_catalogue_error_mag, 3)}, median off by"
        f" {_number(m.check_offset_mag, 4)}, scatter {_number(m.check_scatter_mag, 4)};"
        f" judged against {_number(m.check_reference_mag, 4)}, {_number(m.check_allowed_mag, 4)}"
        " allowed"
    ]
    if index is not None:
        facts |= {"t2_mag": float(m.t2_mag[index]), "t2_random_mag": float(m.t2_random_mag[index])}
        lines.append(
            f"on this frame {_number(facts['t2_mag'], 4)} ± {_number(facts['t2_random_mag'], 4)}"
        )
    return Section(
        name="check_star", title=f"Check star T2: {m.check_name}", lines=tuple(lines), facts=facts
    )


def transformation_section(magnitudes: StandardMagnitudes) -> Section:
    t = magnitudes.transformation
    lines = [f"source: {t.source}"]
    if t.coefficient is not None:
        lines.insert(
            0,
            f"{t.coefficient_name} = {t.coefficient:.4f} ± {_number(t.coefficient_error, 4)};"
            f" {t.colour_index} of T1 {_number(t.target_colour, 3)}"
            f" ± {_number(t.target_colour_error, 3)}",
        )
    lines += [f"{key}: version {version}" for key, version in magnitudes.sibling_versions.items()]
    return Section(
        name="transformation",
        title=f"Transformed: {'yes' if magnitudes.transformed else 'no'}",
        lines=tuple(lines),
        facts={
            "transformed": magnitudes.transformed,
            **asdict(t),
            "versions": dict(magnitudes.sibling_versions),
        },
    )


def measurement_words(
    table: PhotometryTable, index: int | None
) -> tuple[list[str], dict[str, Any]]:
    radii = table.aperture
    facts: dict[str, Any] = {
        "radius_px": radii.radius_px,
        "sky_inner_px": radii.sky_inner_px,
        "sky_outer_px": radii.sky_outer_px,
        "follows_fwhm": table.radii_px is not None,
        "scan": table.scan.criterion if table.scan is not None else None,
        "fwhm_px": _median(table.frame_fwhm_px),
    }
    if index is not None and table.radii_px is not None:
        own = ("radius_px", "sky_inner_px", "sky_outer_px")
        facts |= dict(zip(own, map(float, table.radii_px[index]), strict=True))
    if index is not None:
        facts["fwhm_px"] = float(table.frame_fwhm_px[index])
    lines = [
        f"aperture {facts['radius_px']:.2f} px, sky from {facts['sky_inner_px']:.2f} to"
        f" {facts['sky_outer_px']:.2f} px, FWHM {_number(facts['fwhm_px'], 2)} px"
        + (" in the median" if index is None else "")
    ]
    t1 = table.star_index("T1")
    if index is None or t1 is None:
        return lines, facts
    m = table.measured
    names = ("x_px", "y_px", "source_sky_adu", "source_error_adu", "snr", "peak_adu", "sky_adu_px",
             "n_source_px", "n_sky_px", "n_bad_px")  # fmt: skip
    of_t1 = {name: float(getattr(m, name)[index, t1]) for name in names}
    bits = int(m.flags[index, t1])
    of_t1["flags"] = flags = [name for name, bit in FLAGS.items() if bits & bit]  # type: ignore[assignment]  # words, not a number
    facts |= {"t1": of_t1, "exposure_s": float(table.exposure_s[index])}
    lines += [
        f"T1 at x {of_t1['x_px']:.2f}, y {of_t1['y_px']:.2f} (0-based): "
        f"{of_t1['source_sky_adu']:.1f} ± {of_t1['source_error_adu']:.1f} ADU in"
        f" {facts['exposure_s']:g} s, SNR {of_t1['snr']:.1f}, peak {of_t1['peak_adu']:.0f} ADU,"
        f" sky {of_t1['sky_adu_px']:.2f} ADU",
        f"flags of T1: {', '.join(flags) or 'none'}; bad pixels in the aperture:"
        f" {_number(of_t1['n_bad_px'], 0)}",
    ]
    return lines, facts


def detector_words(
    table: PhotometryTable, reduction: Reduction | None
) -> tuple[list[str], dict[str, Any]]:
    if reduction is None:
        return [], {}
    d = reduction.detector
    stated: dict[str, Sourced | None] = {
        "gain_e_adu": d.gain_e_adu,
        "read_noise_e": d.read_noise_e,
        "saturation_adu": d.saturation_adu,
        "linearity_adu": d.linearity_adu,
    }
    words = ", ".join(
        f"{name} {one.value:g} ({one.source})" if one else f"{name} not known"
        for name, one in stated.items()
    )
    return [words], {
        "detector": {name: asdict(one) if one else None for name, one in stated.items()},
        "camera": table.camera,
        "flat_noise": table.flat_noise,
        "pedestal_removed": table.pedestal_removed,
    }


def solution_words(one: FrameSolution) -> tuple[list[str], dict[str, Any]]:
    facts = asdict(one)
    lines = [
        f"{one.solver or 'no solver'} {one.solver_version or ''}, {one.database or 'no database'},"
        f" {one.solved_at_utc or 'time not known'}"
    ]
    if one.command:
        lines.append(f"command: {one.command}")
    if one.solution is None:
        lines.append(f"no solution: {one.reason} {one.message}".rstrip())
    else:
        w = one.solution
        lines.append(
            f"{or_unknown(one.n_matched)} of {or_unknown(one.n_expected)} stars matched, rms"
            f" {_number(one.rms_px, 3)} px = {_number(one.rms_arcsec, 3)}″; scale"
            f" {w.scale_arcsec_px:.4f}″/px, rotation {w.rotation_deg:.3f}°, centre"
            f" {w.ra_deg:.5f} {w.dec_deg:+.5f}"
        )
        facts |= {"scale_arcsec_px": w.scale_arcsec_px, "rotation_deg": w.rotation_deg}
    if one.attempts:
        lines.append("tried: " + "; ".join(f"{a.rung}: {a.outcome}" for a in one.attempts))
    if one.reference_file:
        lines.append(f"from the solution of {one.reference_file}")
    return lines, facts


def raw_words(light: RawFrame) -> str:
    group = light.group.shape_words if light.group else "size not known"
    hint = light.site_hint
    place = (
        "none" if hint is None else (f"{hint.latitude_deg} {hint.longitude_deg} ({hint.source})")
    )
    return (
        f"{light.size_bytes} bytes, {group}, {or_unknown(light.exposure_s)} s from"
        f" {light.start_utc} UTC, CCD {or_unknown(light.ccd_temperature_c)} °C;"
        f" place in the header: {place}"
    )


def settings_unknown(facts: Mapping[str, Any], words: str) -> Section:
    return Section(name="settings", title="Settings: not known", facts=facts, faults=(words,))


def file_words(file: Mapping[str, Any]) -> str:
    """Return what is to be said of a file of the products, which is named without its directory."""
    made = f", made {file['made_utc']}" if file.get("made_utc") else ""
    name = Path(file["file"]).name
    return f"file {name}, SHA-256 {short_hash(file['sha256_now'])}{made}"


def runs_in_words(history: Sequence[StageRun]) -> list[str]:
    """Return one line a run, oldest first: when, why, what was made and how it ended."""
    lines = []
    for run_id in dict.fromkeys(one.run_id for one in history):
        stages = [one for one in history if one.run_id == run_id]
        made = [one.asset for one in stages if one.ending == "made"]
        others = [one for one in stages if one.ending != "made"]
        why = next((one.why for one in stages if one.why), "reason not recorded")
        words = f"{stages[0].begun_utc} run {run_id[:8] or 'of an older version'} ({why}): "
        words += f"made {', '.join(made)}" if made else "made nothing"
        for one in others:
            words += f"; {one.asset}: {one.ending or 'not ended'}"
            words += f": {one.reason}" if one.reason else ""
        lines.append(words)
    return lines


def stage_object(one: StageRun) -> dict[str, Any]:
    return {field.name: getattr(one, field.name) for field in fields(StageRun)}


def is_at_work(layout: Layout, key: str) -> bool | None:
    """Tell whether a process works on a partition now; None where that cannot be seen."""
    place = layout.observation_dir(key) if "__" in key else layout.night_products_dir(key)
    try:
        return is_held(place / ".lock")
    except OSError:  # of another user, who may be at work
        return None


def not_ended_words(one: StageRun, at_work: bool | None) -> str:
    """Return what is to be said of a stage that began and has no end."""
    since = f"{one.begun_utc[:16].replace('T', ' ')} UTC"
    if at_work:
        return f"{one.asset} is at work since {since}"
    if at_work is None:
        return f"{one.asset} began {since} and has not ended: at work, or killed"
    return f"{one.asset} began {since} and did not end: killed, or the machine went down"


def last_ended(history: Sequence[StageRun]) -> StageRun | None:
    """Return the stage begun last, of those that hang on each other."""
    chain = [one for one in history if one.asset in STAGES]
    return chain[-1] if chain else None


def has_pixels(path: Path, wanted_hash: str, faults: list[str]) -> bool:
    """Tell whether the pixels of a file have a hash now; if not, `faults` get the reason."""
    try:
        pixels, _ = read_image(path)
        found = array_hash(pixels)
        if not same_hash(found, wanted_hash):  # an observer's master is taken as float32
            as_master = array_hash(pixels.astype(np.float32, copy=False))
            found = as_master if same_hash(as_master, wanted_hash) else found
    except (UnreadableFrame, OSError) as error:
        faults.append(f"{path}: {error}")
        return False
    if not same_hash(found, wanted_hash):
        faults.append(f"{path}: pixels {short_hash(found)} now, {short_hash(wanted_hash)} recorded")
        return False
    return True


def same_hash(one: str | None, other: str | None) -> bool:
    """Tell whether two hashes agree; one may be the beginning of the other (in headers)."""
    if not one or not other:
        return False
    n = min(len(one), len(other))
    return one[:n] == other[:n]


def and_more(words: Sequence[str]) -> tuple[str, ...]:
    n = len(words) - MAX_NAMED
    return (f"… and {n} more (--json)",) if n > 0 else ()


def date_of(path: str) -> dt.date | None:
    return parse_night_date(path.partition("/")[0])


def flat_keys(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested tables as ``{"photometry.radius_fwhm": 1.7}``; what is not set is left out."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= flat_keys(value, f"{prefix}{key}.")
        elif value not in (None, [], {}):
            found[f"{prefix}{key}"] = _without_none(value)
    return found


def _without_none(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _without_none(v) for k, v in value.items() if v not in (None, [], {})}
    return [_without_none(one) for one in value] if isinstance(value, list | tuple) else value


def is_ours(key: str) -> bool:
    return key not in PLACES_OF_THE_MACHINE


def _median(values: Iterable[float] | np.ndarray[Any, Any]) -> float | None:
    numbers = np.asarray(values, float)
    numbers = numbers[np.isfinite(numbers)]
    return float(np.median(numbers)) if numbers.size else None


def _number(value: float | None, digits: int) -> str:
    return "not known" if value is None or not np.isfinite(value) else f"{value:.{digits}f}"


def or_unknown(value: object) -> str:
    return "not known" if value is None else str(value)


def short_hash(digest: object) -> str:
    return str(digest)[:16] if digest else "not known"


def _plain(value: Any) -> Any:
    """Return `value` as JSON can have it; no number at all (NaN) is null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(one) for one in value]
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    if isinstance(value, np.integer | np.bool_):
        return value.item()
    if value is None or isinstance(value, str | int | bool):
        return value
    return str(value)
