"""What the review page shows, ready for JSON: the list, one observation's curve, earlier nights.

The list is read from the database alone, so that hundreds of waiting observations cost no file.
Nothing here decides or writes; numbers that are not known are None, never NaN, which is no JSON.
"""

import datetime as dt
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wombat_dagster.domain import (
    Apphot,
    Decision,
    DecisionKind,
    Flag,
    FloatArray,
    FrameTriage,
    Proc,
    Reduction,
    StandardMagnitudes,
    Submitted,
    Variable,
)
from wombat_dagster.observatory import Observatory
from wombat_dagster.products import read_product
from wombat_dagster.reports.frame_pictures import pictured_rows, thumbnails_of
from wombat_dagster.science.ephemeris import phase
from wombat_dagster.stages.curve import same_star
from wombat_dagster.stages.decisions import (
    found_star,
    kept,
    point_states,
    star_to_confirm,
    to_take_back,
)
from wombat_dagster.stages.diagnostics import FINDING_CHART
from wombat_dagster.stages.report import REPORTABLE, UPLOAD_URL, ObservationReport, export
from wombat_dagster.stages.triage import ASSET as TRIAGE
from wombat_dagster.stages.triage import HTML
from wombat_dagster.store.decisions import Decisions
from wombat_dagster.store.events import Events
from wombat_dagster.store.frame_facts import FrameFacts, read_frame_facts
from wombat_dagster.store.report_ledger import LedgerLine, ReportLedger
from wombat_dagster.store.status import TargetRow
from wombat_dagster.store.tables import UnreadableProduct

log = logging.getLogger(__name__)

MAGNITUDES = "standard_magnitudes"
MAX_EARLIER_NIGHTS = 20
MAX_NEWS = 20
MAX_FILES = 20
MAG_DIGITS, DAY_DIGITS, PHASE_DIGITS = 4, 6, 5
NOT_READABLE = (FileNotFoundError, UnreadableProduct, UnicodeDecodeError, OSError)

FLAG_WORDS: Mapping[int, str] = {
    Flag.SATURATED: "saturated",
    Flag.NON_LINEAR: "non-linear",
    Flag.NEAR_EDGE: "near the edge",
    Flag.BAD_PIXEL: "bad pixel",
    Flag.OFF_CENTRE: "off centre",
    Flag.LOW_SNR: "SNR below 3",
    Flag.UNMEASURED: "unmeasured",
    Flag.BLENDED: "blended",
    Flag.ELONGATED: "elongated",
    Flag.CLOUD: "cloud",
}


class View(StrEnum):
    """How far an observation is, as the page sorts them; in the order of its tabs."""

    WAITING = "waiting"  # for the person
    HELD = "held"  # its check star disagrees
    PARKED = "parked"  # it ended without magnitudes, for a reason
    APPROVED = "approved"
    EXPORTED = "exported"  # written into a report, or said to be submitted
    REJECTED = "rejected"
    UNFINISHED = "unfinished"  # not begun, or on its way


VIEW_OF_DECISION = {
    Submitted.APPROVED: View.APPROVED,
    Submitted.REJECTED: View.REJECTED,
    Submitted.EXPORTED: View.EXPORTED,
    Submitted.SUBMITTED: View.EXPORTED,
}


def view_of(row: TargetRow) -> View:
    """Return where the page lists an observation: what the person decided comes first."""
    if row.submitted is not None:
        try:
            return VIEW_OF_DECISION[Submitted(row.submitted)]
        except ValueError:  # a word that an older program or a person wrote
            return View.EXPORTED
    if row.apphot == Apphot.VALIDATE:
        return View.WAITING
    if row.apphot == Apphot.HELD:
        return View.HELD
    if row.apphot is not None or row.proc in (Proc.NOWCS, Proc.NOFRAMES):
        return View.PARKED
    return View.UNFINISHED


# ----------------------------------------------------------------------------------- the list


def overview(observatory: Observatory) -> dict[str, Any]:
    """Return every observation that is not retired, newest night first, and how many are where."""
    rows = [row for row in observatory.status.targets() if row.retired_utc is None]
    versions = observatory.status.product_versions(MAGNITUDES)
    seen = Decisions(observatory.status.path).last_ids()
    listed = [
        {
            **_listed(row, versions.get(row.observation.key)),
            "seen": seen.get(row.observation.key, 0),
        }
        for row in reversed(rows)
    ]
    return {
        "observations": listed,
        "counts": {view: sum(one["view"] == view for one in listed) for view in View},
        "changed": sum(one["changed"] is not None for one in listed),
        "parked": dict(Counter(one["word"] for one in listed if one["view"] == View.PARKED)),
        "events": news(observatory),
    }


def news(observatory: Observatory) -> list[dict[str, Any]]:
    """Return the events that no person has seen yet and that are not over, newest first."""
    now = dt.datetime.now(dt.UTC)
    return [
        {"id": one.id, "key": one.key, "kind": one.kind, "words": one.words}
        for one in Events(observatory.status.path).all()
        if one.seen_utc is None and not one.is_withdrawn and not one.is_past(now)
    ][:MAX_NEWS]


def mark_seen(observatory: Observatory, numbers: Sequence[int]) -> int:
    """Write down that a person has seen events; return of how many that is new."""
    return Events(observatory.status.path).mark_seen(numbers, dt.datetime.now(dt.UTC))


def _listed(row: TargetRow, version: str | None) -> dict[str, Any]:
    unit = row.observation
    return {
        "key": unit.key,
        "target": unit.target.replace("_", " "),
        "filter": unit.filter,
        "night": unit.date.isoformat(),
        "view": view_of(row),
        "word": row.apphot or row.proc or "new",
        "submitted": row.submitted,
        "reason": row.reason,
        "changed": row.changed_since,
        "n_frames": row.n_frames,
        "n_quarantined": row.n_quarantined,
        "updated": row.updated_utc,
        "version": version,
    }


# --------------------------------------------------------------------------- one observation


def observation(observatory: Observatory, key: str) -> dict[str, Any]:
    """Return all that the page shows of an observation.

    ``points`` is None where there are no magnitudes, and ``no_points`` says why.

    Raises
    ------
    LookupError
        There is no such observation.
    """
    row = observatory.status.target_row(key)
    version = observatory.status.product_version(key, MAGNITUDES)
    star = found_star(observatory, key)
    shown: dict[str, Any] = {
        **_listed(row, version),
        **decided(observatory, key),
        "no_points": None,
        "points": None,
        "facts": [],
        "notes": [],
        "star": None if star is None else _star_facts(star),
        "to_confirm": star_to_confirm(observatory, key) is not None,
        "fold": None,
        "check": None,
        "has_chart": _chart_path(observatory, key).is_file(),
    }
    magnitudes = _magnitudes(observatory, key)
    if isinstance(magnitudes, str):
        return {**shown, "no_points": row.reason or magnitudes}
    fold = _fold(observatory, row, star, magnitudes)
    return {
        **shown,
        "band": magnitudes.band,
        "held": magnitudes.held_reason,
        "notes": [*_to_take_back(observatory, key, magnitudes), *magnitudes.notes],
        "facts": _facts(magnitudes),
        "check": _check(magnitudes),
        "fold": fold,
        "points": _points(observatory, key, magnitudes, fold),
    }


def _to_take_back(
    observatory: Observatory, key: str, magnitudes: StandardMagnitudes
) -> tuple[str, ...]:
    """Return what is to be done of points that were reported, and rejected since."""
    points = Decisions(observatory.status.path).points(key)
    gone = [one for one in magnitudes.raw_hashes if points.get(one, False)]
    words = to_take_back(observatory, key, gone)
    return tuple(f"Rejected after it was reported: {one}" for one in words)


def decided(observatory: Observatory, key: str) -> dict[str, Any]:
    """Return what a person decided of an observation: what a page must know before it decides."""
    decisions = Decisions(observatory.status.path)
    seen = decisions.last_id(key)  # first: what comes meanwhile was not seen
    return {"seen": seen, "history": [_decision(one) for one in decisions.history(key)]}


def _decision(one: Decision) -> dict[str, Any]:
    return {
        "id": one.id,
        "kind": one.kind,
        "n_points": len(one.raw_hashes),
        "who": one.who,
        "why": one.why,
        "when": one.decided_utc,
        "undone": one.undone_utc,
        "may_undo": one.undone_utc is None
        and one.kind not in (DecisionKind.EXPORT, DecisionKind.SUBMIT, DecisionKind.RECALL),
    }


def _star_facts(star: Variable) -> dict[str, Any]:
    return {
        "name": star.name,
        "auid": star.auid,
        "type": star.variability_type,
        "period_d": star.period_d,
        "bright": star.mag_bright,
        "faint": star.mag_faint,
        "source": star.source,
        "match": star.match,
    }


def _magnitudes(observatory: Observatory, key: str) -> StandardMagnitudes | str:
    """Return an observation's magnitudes, or why there are none to show."""
    try:
        found: StandardMagnitudes = read_product(observatory, MAGNITUDES, key)
    except FileNotFoundError:
        return "no magnitudes yet"
    except NOT_READABLE as error:
        log.warning("%s: magnitudes not readable: %s", key, error)
        return "its magnitudes.csv is damaged: run it again"
    return found


def _points(
    observatory: Observatory, key: str, magnitudes: StandardMagnitudes, fold: dict[str, Any] | None
) -> dict[str, Any]:
    """Return the points of the curve, one list per column, in the order of the magnitudes."""
    facts = _frame_facts(observatory, key)
    places = {pixels: i for i, pixels in enumerate(facts.raw_hashes)} if facts else {}
    order = [places.get(pixels) for pixels in magnitudes.raw_hashes]
    triage = _triage(observatory, key)
    grades = {one.raw: one.words for one in triage.grades} if triage is not None else {}
    raws = _raw_paths(observatory, key)
    decided_points = Decisions(observatory.status.path).points(key)
    pictured = _pictured(observatory, key, triage, raws)
    faults = [grades.get(raws.get(pixels, ""), "") for pixels in magnitudes.raw_hashes]
    return {
        "label": list(magnitudes.labels),
        "raw_hash": list(magnitudes.raw_hashes),
        "jd": _numbers(magnitudes.jd_utc, DAY_DIGITS),
        "phase": None if fold is None else _phases(magnitudes.hjd_utc, fold),
        "airmass": _numbers(magnitudes.airmass, 3),
        "t1": _numbers(magnitudes.t1_mag, MAG_DIGITS),
        "t1_error": _numbers(magnitudes.t1_merr_mag, MAG_DIGITS),
        "t1_limit": magnitudes.t1_upper_limit.tolist(),
        "t2": _numbers(magnitudes.t2_mag, MAG_DIGITS),
        "t2_error": _numbers(magnitudes.t2_random_mag, MAG_DIGITS),
        "n_comps": magnitudes.n_comps.tolist(),
        "state": list(point_states(magnitudes, decided_points)),
        "proposed": list(magnitudes.proposed_rejected),
        "fwhm": _in_order(facts.fwhm_px if facts else None, order, 2),
        "exposure": _in_order(facts.exposure_s if facts else None, order, 3),
        "flags": _flags(facts, order),
        "faults": faults,
        "picture": [pixels in pictured for pixels in magnitudes.raw_hashes],
    }


def _frame_facts(observatory: Observatory, key: str) -> FrameFacts | None:
    try:
        return read_frame_facts(observatory.layout.product_path(key, "photometry.npz"))
    except NOT_READABLE:
        return None


def _flags(facts: FrameFacts | None, order: Sequence[int | None]) -> list[str]:
    if facts is None:
        return [""] * len(order)
    return [
        ""
        if i is None
        else "; ".join(
            f"{role}: {words}"
            for role, bits in (("T1", facts.t1_flags[i]), ("T2", facts.t2_flags[i]))
            if (words := flag_words(int(bits)))
        )
        for i in order
    ]


def flag_words(bits: int) -> str:
    """Return what the bits of `domain.Flag` say, in words; empty for none."""
    return ", ".join(words for bit, words in FLAG_WORDS.items() if bits & bit)


def _triage(observatory: Observatory, key: str) -> FrameTriage | None:
    try:
        found: FrameTriage = read_product(observatory, TRIAGE, key)
    except NOT_READABLE:
        return None
    return found


def _raw_paths(observatory: Observatory, key: str) -> dict[str, str]:
    """Return where raw frames lie, relative to the data root, by the hash of their pixels."""
    try:
        found: Reduction = read_product(observatory, "reduced_frames", key)
    except NOT_READABLE:
        return {}
    return {one.raw_hash: one.raw for one in found.frames}


# ------------------------------------------------------------------------------ facts in words


def _facts(magnitudes: StandardMagnitudes) -> list[dict[str, str]]:
    """Return what the page says beside the curve: label, words, and whether to be alarmed."""
    kept = ~magnitudes.t1_upper_limit & np.isfinite(magnitudes.t1_mag)
    random = magnitudes.t1_random_mag[kept]
    chart = magnitudes.chart_id
    if magnitudes.comp_source and magnitudes.comp_source != "VSP":
        chart = f"{chart} ({magnitudes.comp_source})"
    suspects = [one.name for one in magnitudes.comp_residuals if one.suspect]
    found = [
        _fact("Zero-point error", f"{magnitudes.zp_err_mag:.3f} mag"),
        _fact("Random error", f"{np.median(random):.3f} mag" if len(random) else "not known"),
        *_check_facts(magnitudes),
        _fact("Comps", f"{len(magnitudes.comp_names)}: {', '.join(magnitudes.comp_names)}"),
        _fact("Suspect comps", ", ".join(suspects), "warn") if suspects else None,
        _fact("Chart", chart),
        _fact("Transformation", _transformation(magnitudes)),
        _fact("Method", _method(magnitudes)),
        _fact("Camera", magnitudes.camera) if magnitudes.camera else None,
        *(_fact(name.capitalize(), words) for name, words in magnitudes.made_with.items()),
    ]
    return [one for one in found if one is not None]


def _fact(label: str, words: str, tone: str = "") -> dict[str, str]:
    return {"label": label, "words": words, "tone": tone}


def _check_facts(magnitudes: StandardMagnitudes) -> list[dict[str, str]]:
    offset, scatter = magnitudes.check_offset_mag, magnitudes.check_scatter_mag
    if magnitudes.check_name is None or offset is None:
        return [_fact("Check star", magnitudes.check_name or "none", "warn")]
    allowed = magnitudes.check_allowed_mag
    reference = magnitudes.check_reference_mag
    catalogue = magnitudes.check_catalogue_mag
    against = offset
    if reference is not None and catalogue is not None:
        against = offset + catalogue - reference
    words = f"{offset:+.3f} mag from the catalogue"
    if allowed is not None:
        words += f" (allowed {allowed:.3f})"
    tone = "warn" if allowed is not None and abs(against) > allowed else "good"
    name = magnitudes.check_name
    if catalogue is not None:
        name += f", {catalogue:.3f} mag"
    return [
        _fact("Check star", name),
        _fact("Check offset", words, tone),
        _fact("Check scatter", f"{scatter:.3f} mag" if scatter is not None else "not known"),
    ]


def _transformation(magnitudes: StandardMagnitudes) -> str:
    found = magnitudes.transformation
    yes = "yes" if magnitudes.transformed else "no"
    if found.coefficient_name is None or found.coefficient is None:
        return yes
    words = f"{yes}: {found.coefficient_name} {found.coefficient:+.3f}"
    if found.coefficient_error is not None:
        words += f" ± {found.coefficient_error:.3f}"
    if found.colour_index is not None and found.target_colour is not None:
        words += f", {found.colour_index} of T1 {found.target_colour:.3f}"
    return words


def _method(magnitudes: StandardMagnitudes) -> str:
    if magnitudes.ensemble == "field":
        return f"{magnitudes.method}, steadied by {magnitudes.n_field_stars} field stars"
    return magnitudes.method


def _check(magnitudes: StandardMagnitudes) -> dict[str, Any]:
    return {
        "name": magnitudes.check_name,
        "catalogue": _number(magnitudes.check_catalogue_mag, MAG_DIGITS),
        "error": _number(magnitudes.check_catalogue_error_mag, MAG_DIGITS),
    }


# --------------------------------------------------------------------------------------- reports


def reports(observatory: Observatory) -> list[dict[str, Any]]:
    """Return the files written for the AAVSO, newest first, and how much of each was submitted."""
    by_file: dict[str, list[LedgerLine]] = {}
    for line in ReportLedger(observatory.status.path).lines():
        if line.origin == "wombat":
            by_file.setdefault(line.file, []).append(line)
    return [
        {
            "file": name,
            "n_lines": len(lines),
            "n_submitted": sum(line.submitted_utc is not None for line in lines),
            "written": min(line.exported_utc for line in lines),
            "keys": sorted({line.key for line in lines}),
        }
        for name, lines in list(by_file.items())[: -MAX_FILES - 1 : -1]
    ]


def report_text(observatory: Observatory, name: str) -> bytes | None:
    """Return a file for the AAVSO by the name that the ledger has, None when it is not there."""
    if name not in ReportLedger(observatory.status.path).files():
        return None
    try:
        return observatory.layout.report_path(name).read_bytes()
    except OSError:
        return None


def write_report(
    observatory: Observatory, keys: Sequence[str], *, amendments: bool, who: str
) -> dict[str, Any]:
    """Write what is new of approved observations for the AAVSO, and say what came of it.

    `amendments`: also what was reported before is looked at, and lines that changed are written.

    Raises
    ------
    decisions.Refusal
        No observer code is configured.
    """
    wanted = list(keys)
    if amendments:
        rows = observatory.status.targets()
        wanted += [row.observation.key for row in rows if row.submitted in REPORTABLE]
    found = export(observatory, list(dict.fromkeys(wanted)), who=who, amendments=amendments)
    return {
        "files": [
            {
                "file": one.path.name,
                "path": str(one.path),
                "n_lines": one.n_lines,
                "is_amended": one.is_amended,
                "warnings": [finding.words for finding in one.warnings],
            }
            for one in found.files
        ],
        "observations": [_reported(one) for one in found.observations],
        "notes": list(found.notes),
        "upload": UPLOAD_URL,
    }


def _reported(one: ObservationReport) -> dict[str, Any]:
    return {
        "key": one.key,
        "n_new": one.n_new,
        "n_amended": one.n_amended,
        "n_same": one.n_same,
        "n_at_aavso": one.n_at_aavso,
        "n_not_reported": one.n_not_reported,
        "amended": list(one.amended),
        "gone": list(one.gone),
        "clashes": list(one.clashes),
        "refused": list(one.refused),
    }


# ------------------------------------------------------------------------- phase, other nights


def _fold(
    observatory: Observatory,
    row: TargetRow,
    star: Variable | None,
    magnitudes: StandardMagnitudes,
) -> dict[str, Any] | None:
    """Return the period and epoch to fold with: of ``[[target]]``, else VSX's; None if unknown."""
    target = observatory.settings.for_target(row.observation.target)
    period_d, source = (target.period_d if target else None), "wombat.toml"
    if period_d is None and star is not None:
        period_d, source = star.period_d, star.source
    if not period_d:
        return None
    words = f"P = {period_d:.8g} d ({source})"
    epoch = star.epoch_hjd if star else None
    if epoch is None:
        known = magnitudes.hjd_utc[np.isfinite(magnitudes.hjd_utc)]
        if not len(known):
            return None
        epoch = float(known.min())
        words += "; no epoch known: phase 0 is the first point"
    else:
        words += f", epoch HJD {epoch:.5f}"
    return {"period_d": period_d, "epoch_hjd": epoch, "words": words}


def _phases(hjd_utc: FloatArray, fold: Mapping[str, Any]) -> list[float | None]:
    found = phase(hjd_utc, epoch_jd=fold["epoch_hjd"], period_d=fold["period_d"])
    return _numbers(found, PHASE_DIGITS)


def earlier_nights(observatory: Observatory, key: str) -> list[dict[str, Any]]:
    """Return the magnitudes of the same star in the same band on the nights before, newest first.

    Without what was rejected, by the person or as proposed. At most 20 nights.

    Raises
    ------
    LookupError
        There is no such observation.
    """
    row = observatory.status.target_row(key)
    star, own = found_star(observatory, key), _magnitudes(observatory, key)
    if star is None or isinstance(own, str):
        return []
    fold = _fold(observatory, row, star, own)
    found: list[dict[str, Any]] = []
    for other in _may_be_earlier(observatory, row, star, own):
        its_star, its = found_star(observatory, other), _magnitudes(observatory, other)
        if its_star is None or isinstance(its, str) or not same_star(its_star, star):
            continue
        if its.band == own.band:
            found.append(_earlier(observatory, other, its, fold))
        if len(found) == MAX_EARLIER_NIGHTS:
            break
    return found


def _may_be_earlier(
    observatory: Observatory, row: TargetRow, star: Variable, own: StandardMagnitudes
) -> list[str]:
    """Return earlier observations that may be of the star, newest first: by directory, by T2."""
    by_check = {
        night.key for night in observatory.status.check_nights(star.identity, own.band, own.camera)
    }
    name = row.observation.target.casefold()
    return [
        one.observation.key
        for one in reversed(observatory.status.targets())
        if one.observation.date < row.observation.date
        and view_of(one) not in (View.REJECTED, View.PARKED, View.UNFINISHED)
        and (one.observation.target.casefold() == name or one.observation.key in by_check)
    ]


def _earlier(
    observatory: Observatory, key: str, magnitudes: StandardMagnitudes, fold: dict[str, Any] | None
) -> dict[str, Any]:
    chosen = kept(magnitudes, Decisions(observatory.status.path).points(key))
    chosen &= ~magnitudes.t1_upper_limit
    return {
        "key": key,
        "night": key[:4] + "-" + key[4:6] + "-" + key[6:8],
        "jd": _numbers(magnitudes.jd_utc[chosen], DAY_DIGITS),
        "mag": _numbers(magnitudes.t1_mag[chosen], MAG_DIGITS),
        "phase": None if fold is None else _phases(magnitudes.hjd_utc[chosen], fold),
    }


# -------------------------------------------------------------------------------------- pictures


def chart_png(observatory: Observatory, key: str) -> bytes | None:
    """Return the finding chart of a known observation, None when there is none."""
    try:
        return _chart_path(observatory, key).read_bytes()
    except OSError:
        return None


def _chart_path(observatory: Observatory, key: str) -> Path:
    return observatory.layout.product_path(key, f"{FINDING_CHART}.png")


def thumbnail_jpeg(observatory: Observatory, key: str, raw_hash: str) -> bytes | None:
    """Return the picture of the frame whose raw pixels have this hash, None when there is none.

    Of a known observation: only such a key becomes a path.
    """
    return _pictures(observatory, key).get(raw_hash)


def _pictures(observatory: Observatory, key: str) -> Mapping[str, bytes]:
    """Return the thumbnails of an observation by the hashes of the raw pixels."""
    try:
        path = observatory.layout.product_path(key, HTML)
        return _pictures_at(observatory, key, path, path.stat().st_mtime_ns)
    except NOT_READABLE:
        return {}


def _pictured(
    observatory: Observatory, key: str, triage: FrameTriage | None, raws: Mapping[str, str]
) -> set[str]:
    """Return of which raw pixels there is a picture; none is read for it."""
    try:
        page = observatory.layout.product_path(key, HTML).read_text(encoding="utf-8")
    except NOT_READABLE:
        return set()
    shown = [one.raw for one in triage.grades if one.used] if triage is not None else []
    has = pictured_rows(page)
    if len(has) != len(shown):
        return set()
    there = {raw for raw, is_there in zip(shown, has, strict=True) if is_there}
    return {pixels for pixels, raw in raws.items() if raw in there}


@lru_cache(maxsize=16)
def _pictures_at(
    observatory: Observatory, key: str, path: Path, _mtime_ns: int
) -> Mapping[str, bytes]:
    triage = _triage(observatory, key)
    shown = [one.raw for one in triage.grades if one.used] if triage is not None else []
    pictures = thumbnails_of(path.read_text(encoding="utf-8"))
    if len(pictures) != len(shown):  # the page and the table are of two runs: one is half written
        return {}
    by_raw = {raw: jpeg for raw, jpeg in zip(shown, pictures, strict=True) if jpeg is not None}
    hashes = _raw_paths(observatory, key)
    return {pixels: by_raw[raw] for pixels, raw in hashes.items() if raw in by_raw}


# --------------------------------------------------------------------------------- numbers as JSON


def _number(value: float | None, digits: int) -> float | None:
    return None if value is None or not np.isfinite(value) else round(float(value), digits)


def _numbers(values: NDArray[Any], digits: int) -> list[float | None]:
    return [round(v, digits) if v - v == 0 else None for v in values.tolist()]


def _in_order(
    values: NDArray[Any] | None, order: Sequence[int | None], digits: int
) -> list[float | None]:
    if values is None:
        return [None] * len(order)
    known = _numbers(values, digits)
    return [None if i is None else known[i] for i in order]
