"""Where a magnitude comes from: the facts from T1 back to raw pixels, with every hash.

Read alone: nothing is made, written or asked for. What is missing, damaged or no longer what it was
is a fault, said where it is met; the rest is told all the same.
"""

import datetime as dt
import tomllib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from wombat_dagster import config
from wombat_dagster.catalogs.base import BadAnswer
from wombat_dagster.catalogs.cache import AnswerCache
from wombat_dagster.catalogs.vsp import read_chart
from wombat_dagster.domain import (
    NOCAL,
    BadPixelMap,
    CalibrationChoice,
    CompCandidates,
    FrameSolution,
    FrameTriage,
    Master,
    PhotometryTable,
    PointState,
    RawFrame,
    ReducedFrame,
    Reduction,
    Shortfall,
    Variable,
)
from wombat_dagster.observatory import Observatory
from wombat_dagster.products import PRODUCTS, read_product
from wombat_dagster.stages.choice import choose_calibration
from wombat_dagster.stages.decisions import point_states
from wombat_dagster.stages.due import STAGES
from wombat_dagster.stages.lineage_words import (
    MAX_NAMED,
    Section,
    and_more,
    check_star_section,
    comparison_section,
    date_of,
    detector_words,
    file_words,
    flat_keys,
    has_pixels,
    is_at_work,
    is_ours,
    last_ended,
    magnitude_words,
    measurement_words,
    not_ended_words,
    only_faults,
    or_unknown,
    raw_words,
    runs_in_words,
    same_hash,
    settings_unknown,
    short_hash,
    solution_words,
    stage_object,
    transformation_section,
)
from wombat_dagster.store import provenance
from wombat_dagster.store.decisions import Decisions, decision_words
from wombat_dagster.store.frames import (
    HASH_CARD,
    UnreadableFrame,
    card_text,
    read_header,
    read_reduced,
)
from wombat_dagster.store.remade import remade
from wombat_dagster.store.report_ledger import ReportLedger
from wombat_dagster.store.software import software_at_work
from wombat_dagster.store.stage_runs import MADE, StageRuns
from wombat_dagster.store.status import TargetRow
from wombat_dagster.store.tables import UnreadableProduct

SETTINGS_FILE = "settings.toml"
MASTER_STAGES = {"bias": "master_bias", "dark": "master_darks", "flat": "master_flats"}


class NoSuchFrame(LookupError):
    """The observation has no such frame, or several that could be meant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """One light frame of an observation.

    `number` counts the measured frames from 1, in time order, as the measurement table does;
    `index` is its place there. None: it was not measured.
    """

    raw: str
    label: str
    number: int | None

    @property
    def index(self) -> int | None:
        """Its place in the arrays of the measurements."""
        return None if self.number is None else self.number - 1


def lineage_of(
    observatory: Observatory,
    row: TargetRow,
    *,
    frame: str | None = None,
    verify: bool = False,
    cause: str | None = None,
    remedy: str | None = None,
) -> Section:
    """Return where the magnitudes of an observation come from, from the top down.

    Parameters
    ----------
    frame
        A number from 1, or the name of a frame or a part of it; None: the observation as a whole.
    verify
        Read the pixels of raw frames and masters again and compare their hashes.
    cause, remedy
        What the row's status word means and what helps (`remedies`).

    Raises
    ------
    NoSuchFrame
        With words that name what there is.
    """
    return _Lineage(observatory, row, frame=frame, verify=verify).root(cause, remedy)


def masters_now(
    observatory: Observatory, row: TargetRow, *, available: Sequence[Master] | None = None
) -> list[str]:
    """Return which masters would be taken now in place of those that were, by night.

    As in ``bias 2025-10-14 → 2025-10-16``; empty where other files of the same nights would be.
    `available`: as of `choice.choose_calibration`.
    """
    if not (row.proc_bias or row.proc_dark or row.proc_flat):
        return []  # none was chosen yet
    try:
        now = choose_calibration(observatory, row.observation, available=available)
    except Shortfall as shortfall:
        return [str(shortfall)]
    nights = (
        ("bias", row.proc_bias, now.bias),
        ("dark", row.proc_dark, now.dark),
        ("flat", row.proc_flat, now.flat),
    )
    return [
        f"{kind} {before} → {after}"
        for kind, before, master in nights
        if before is not None and before != (after := master.date.isoformat() if master else NOCAL)
    ]


class _Lineage:
    """What is looked up once for all sections."""

    def __init__(
        self, observatory: Observatory, row: TargetRow, *, frame: str | None, verify: bool
    ) -> None:
        self.observatory, self.row, self.verify = observatory, row, verify
        self.layout, self.key = observatory.layout, row.observation.key
        self.lights = {f.path: f for f in observatory.status.light_frames(row.observation)}
        self.made = provenance.product_rows(observatory.status.path, self.key)
        self.history = StageRuns(observatory.status.path).history(self.key)
        self.night_key = f"{row.observation.date:%Y%m%d}"
        self.ended_at = last_ended(self.history)
        self.stored: dict[str, tuple[Any, tuple[str, ...], dict[str, Any]]] = {}
        self.told: set[str] = set()  # masters, by path
        self.frame = None if frame is None else self._find_frame(frame)

    def root(self, cause: str | None, remedy: str | None) -> Section:
        """Return the observation."""
        row, unit = self.row, self.row.observation
        names = (
            "proc", "apphot", "submitted", "reason", "proc_bias", "proc_dark", "proc_flat",
            "n_frames", "n_quarantined", "updated_utc", "changed_since", "retired_utc",
        )  # fmt: skip
        facts = {name: getattr(row, name) for name in names}
        frame = self.frame
        about = "" if frame is None else f", frame {frame.number or '–'}: {frame.label}"
        sections = [
            self._ending(cause, remedy),
            self._time_and_site(),
            self._magnitudes(),
            self._how(),
            self._variable(),
            self._measurement(),
            self._solution(),
            self._reduced(),
            *self._masters(),
            self._raw(),
            self._settings(),
            self._software(),
            self._decisions(),
            self._history(),
        ]
        lines = [
            f"{row.n_frames} frames, {row.n_quarantined} quarantined",
            f"products: {self.layout.observation_dir(self.key)}",
        ]
        if row.submitted:
            lines.append(f"decided: {row.submitted}")
        faults = []
        if row.changed_since:
            words = f"changed since it was decided on: {row.changed_since}"
            if others := masters_now(self.observatory, row):
                words += f" ({', '.join(others)})"
            faults.append(words)
        if row.retired_utc:
            faults.append(f"retired {row.retired_utc}: its frames are gone from the data")
        return Section(
            name="observation",
            title=f"{unit.date} {unit.target} {unit.filter} ({self.key}){about}",
            lines=tuple(lines),
            facts={
                "key": self.key,
                "date": unit.date,
                "target": unit.target,
                "filter": unit.filter,
                **facts,
                "frame": None if frame is None else asdict(frame),
            },
            faults=tuple(faults),
            sections=tuple(one for one in sections if one is not None),
        )

    # ----------------------------------------------------------------------------- what is stored

    def product(self, asset: str) -> tuple[Any, tuple[str, ...], dict[str, Any]]:
        """Return a product (None: not to be had), what is wrong with it, and its file's facts."""
        if asset not in self.stored:
            self.stored[asset] = self._product(asset)
        return self.stored[asset]

    def _product(self, asset: str) -> tuple[Any, tuple[str, ...], dict[str, Any]]:
        path, known = PRODUCTS[asset].path(self.layout, self.key), self.made.get(asset)
        facts: dict[str, Any] = {
            "file": str(path),
            "sha256_recorded": known.content_hash if known else None,
            "sha256_now": None,
            "made_utc": known.made_utc if known else None,
        }
        if known is None and not path.exists():
            return None, (), facts  # never made: the ending says why
        faults = []
        try:
            facts["sha256_now"] = provenance.file_hash(path)
            value = read_product(self.observatory, asset, self.key)
        except FileNotFoundError:
            return None, (f"{path.name} is gone: {self._made_anew}",), facts
        except OSError as error:
            return None, (f"{path} cannot be read: {error.strerror or error}",), facts
        except UnreadableProduct as error:
            return None, (f"{path.name} is damaged: {error}; {self._made_anew}",), facts
        if known is None:
            faults.append(f"{path.name} is not in the database: a run was interrupted")
        elif known.content_hash != facts["sha256_now"]:
            faults.append(
                f"{path.name} is not what was written {known.made_utc}: SHA-256"
                f" {short_hash(facts['sha256_now'])}, {short_hash(known.content_hash)} recorded"
            )
        if self._is_of_before(asset):
            assert self.ended_at is not None
            faults.append(
                f"{path.name} is of an earlier run: the last one came to"
                f" {self.ended_at.asset} ({self.ended_at.ending or 'not ended'})"
            )
        return value, tuple(faults), facts

    @property
    def _made_anew(self) -> str:
        return f'wombat run {self.night_key} "{self.row.observation.target}" makes it anew'

    def _is_of_before(self, asset: str) -> bool:
        """Tell whether the last run ended before it came to the end of `asset`."""
        ended = self.ended_at
        if ended is None or asset not in STAGES or not (ended.is_shortfall or ended.is_broken):
            return False
        return STAGES.index(asset) >= STAGES.index(ended.asset)

    def _find_frame(self, wanted: str) -> Frame:
        frames = self._frames()
        numbered = {frame.number: frame for frame in frames}
        if wanted.isdecimal() and int(wanted) in numbered:
            return numbered[int(wanted)]
        name = wanted.casefold()
        exact = [one for one in frames if name in {one.label.casefold(), one.raw.casefold()}]
        for found in (exact, [one for one in frames if name in one.raw.casefold()]):
            if len(found) == 1:
                return found[0]
            if found and not wanted.isdecimal():
                names = ", ".join(frame.label for frame in found[:MAX_NAMED])
                raise NoSuchFrame(f'"{wanted}" may be each of {len(found)} frames: {names}, …')
        last = sum(frame.number is not None for frame in frames)
        lost = [*self.product("photometry_table")[1], *self.product("reduced_frames")[1]]
        there = f"1 to {last}, or a part of a file's name"
        if not last:
            there = "; ".join(lost) or "none was measured"
        raise NoSuchFrame(f'{self.key} has no frame "{wanted}"; there are: {there}')

    def _frames(self) -> list[Frame]:
        """Return every light frame; those measured have their number in the table."""
        table: PhotometryTable | None = self.product("photometry_table")[0]
        reduction: Reduction | None = self.product("reduced_frames")[0]
        reduced = reduction.frames if reduction else ()
        raw_of = {frame.label: frame.raw for frame in reduced}
        measured = [] if table is None else [label for label in table.labels if label in raw_of]
        frames = [
            Frame(raw=raw_of[label], label=label, number=number)
            for number, label in enumerate(measured, start=1)
        ]
        known = {frame.raw for frame in frames}
        labels = {frame.raw: frame.label for frame in reduced}
        others = [path for path in (*labels, *self.lights) if path not in known]
        return frames + [
            Frame(raw=path, label=labels.get(path, Path(path).name), number=None)
            for path in dict.fromkeys(others)
        ]

    # --------------------------------------------------------------------------- how it has ended

    def _ending(self, cause: str | None, remedy: str | None) -> Section:
        row = self.row
        word = row.apphot or row.proc
        lines = []
        if row.reason:
            lines.append(row.reason)
        if cause:
            lines.append(cause + (f" → {remedy}" if remedy else ""))
        faults: list[str] = []
        if (ended := self.ended_at) is not None and ended.is_broken:
            at_work = is_at_work(self.layout, self.key) if ended.ending is None else False
            how = f"{ended.asset} failed {ended.ended_utc}: {ended.reason}"
            if ended.ending is None:
                how = not_ended_words(ended, at_work)
            log = self.layout.observation_dir(self.key) / "log.txt"
            how += f" (run {ended.run_id}; {log})"
            (lines if at_work else faults).append(how)
        if self.frame is not None and (why := self._why_not_measured(self.frame)):
            faults.append(f"{self.frame.label} is not measured: {why}")
        return Section(
            name="status",
            title=f"Status: {word or 'new: never begun'}",
            lines=tuple(lines),
            facts={
                "word": word,
                "reason": row.reason,
                "cause": cause,
                "remedy": remedy,
                "ended_at": None if self.ended_at is None else self.ended_at.asset,
                "ending": None if self.ended_at is None else self.ended_at.ending,
            },
            faults=tuple(faults),
        )

    def _why_not_measured(self, frame: Frame) -> str | None:
        if frame.number is not None:
            return None
        light = self.lights.get(frame.raw)
        if light is None:
            return "its file is gone from the data"
        if light.reason:
            return light.reason
        reduction: Reduction | None = self.product("reduced_frames")[0]
        if reduction is None:
            return "the observation did not come so far"
        if why := dict(reduction.left_out).get(frame.raw):
            return why
        solution = self._solution_of(frame)
        if solution is not None and solution.solution is None:
            return f"not solved: {solution.reason} {solution.message}".strip()
        return "the observation did not come so far"

    def _time_and_site(self) -> Section | None:
        """Return what the audit of times and place found, loudest first."""
        triage, faults, file = self.product("frame_triage")
        if triage is None:
            return only_faults("time_and_site", "Time and site", faults, file)
        assert isinstance(triage, FrameTriage)
        verdict = "in doubt" if triage.doubts else "nothing speaks against them"
        return Section(
            name="time_and_site",
            title=f"Time and site: {verdict}",
            lines=tuple(f"{one.severity}: {one.words}" for one in triage.findings),
            facts={"findings": [asdict(one) for one in triage.findings], **file},
            faults=faults,
        )

    # --------------------------------------------------------------------------------- magnitudes

    def _magnitudes(self) -> Section | None:
        magnitudes, faults, file = self.product("standard_magnitudes")
        if magnitudes is None:
            return only_faults("magnitude", "Magnitudes", faults, file)
        lines, facts = magnitude_words(magnitudes, self._index(magnitudes.labels))
        return Section(
            name="magnitude",
            title=f"Magnitude of T1 in {magnitudes.band}",
            lines=(*lines, file_words(file)),
            facts={**facts, **file},
            faults=faults,
        )

    def _index(self, labels: Sequence[str]) -> int | None:
        """Return the place of the frame asked for in a table of these labels."""
        if self.frame is None or self.frame.label not in labels:
            return None
        return labels.index(self.frame.label)

    def _how(self) -> Section | None:
        magnitudes = self.product("standard_magnitudes")[0]
        comps, faults, file = self.product("comp_list")
        if magnitudes is None and comps is None:
            return only_faults("made_by", "Made by", faults, file)
        sections = []
        if magnitudes is not None:
            table: PhotometryTable | None = self.product("photometry_table")[0]
            sections.append(comparison_section(magnitudes, table, self._index(magnitudes.labels)))
            sections.append(check_star_section(magnitudes, self._index(magnitudes.labels)))
            sections.append(transformation_section(magnitudes))
        if comps is not None:
            sections.append(self._chart(comps))
        notes = tuple(magnitudes.notes if magnitudes is not None else comps.notes)
        method = magnitudes.method if magnitudes is not None else None
        return Section(
            name="made_by",
            title=f"Made by: {method or 'no magnitudes'}",
            lines=(*notes, file_words(file)),
            facts={"method": method, "notes": notes, **file},
            faults=faults,
            sections=tuple(sections),
        )

    def _chart(self, comps: CompCandidates) -> Section:
        used = Counter(entry.reason.value for entry in comps.ledger if entry.reason is not None)
        facts: dict[str, Any] = {
            "chart_id": comps.chart_id,
            "source": comps.chart_source,
            "fetched_utc": comps.chart_fetched_utc,
            "version": comps.chart_version,
            "request": None if comps.chart_request is None else asdict(comps.chart_request),
            "band": comps.band,
            "comp_band": comps.comp_band,
            "candidates": [star.auid for star in comps.ranked],
            "not_used": {entry.auid: f"{entry.reason}: {entry.detail}" for entry in comps.ledger
                         if entry.reason is not None},
            "file": None,
            "sha256_now": None,
        }  # fmt: skip
        faults = []
        file = self._chart_file(comps.chart_id)
        if file is not None:
            facts |= {"file": str(file), "sha256_now": provenance.file_hash(file)}
        elif comps.chart_source == "VSP":
            faults.append(f"the answer with chart {comps.chart_id} is gone from the cache")
        lines = [
            f"{comps.chart_id} from {comps.chart_source}, fetched {comps.chart_fetched_utc},"
            f" version {comps.chart_version or 'not recorded'}",
            f"{len(comps.ranked)} candidates in {comps.comp_band}; not used: "
            + (", ".join(f"{n} {word}" for word, n in used.most_common()) or "none"),
        ]
        if file is not None:
            lines.append(file_words(facts))
        return Section(
            name="chart",
            title=f"Chart {comps.chart_id}",
            lines=tuple(lines),
            facts=facts,
            faults=tuple(faults),
        )

    def _chart_file(self, chart_id: str) -> Path | None:
        cache = AnswerCache(self.layout.cache / "vsp")
        for name, kept in cache.all():
            try:
                if read_chart(kept.content)[0] == chart_id:
                    return cache.directory / f"{name}.json"
            except BadAnswer:
                continue
        return None

    def _variable(self) -> Section | None:
        star, faults, file = self.product("variable")
        if star is None:
            return only_faults("variable", "Variable", faults, file)
        assert isinstance(star, Variable)
        lines = [
            f"{star.name} at {star.ra_deg:.5f} {star.dec_deg:+.5f}, by {star.match}"
            f" ({star.source}); type {star.variability_type or 'not known'},"
            f" {or_unknown(star.mag_bright)} to {or_unknown(star.mag_faint)}",
            file_words(file),
        ]
        return Section(
            name="variable",
            title=f"Variable {star.name}",
            lines=tuple(lines),
            facts={**asdict(star), **file},
            faults=faults,
        )

    # -------------------------------------------------------------------------------- measurement

    def _measurement(self) -> Section | None:
        table, faults, file = self.product("photometry_table")
        if table is None:
            return only_faults("measurement", "Measurement", faults, file)
        reduction: Reduction | None = self.product("reduced_frames")[0]
        lines, facts = measurement_words(table, self._index(table.labels))
        detector, detector_facts = detector_words(table, reduction)
        return Section(
            name="measurement",
            title=f"Measurement: {len(table.labels)} frames, {len(table.stars)} stars",
            lines=(*lines, *detector, file_words(file)),
            facts={**facts, **detector_facts, "notes": table.notes, **file},
            faults=faults,
        )

    # ----------------------------------------------------------------------------- plate solution

    def _solution_of(self, frame: Frame) -> FrameSolution | None:
        solutions: tuple[FrameSolution, ...] = self.product("wcs_solutions")[0] or ()
        return next((one for one in solutions if one.file == frame.raw), None)

    def _solution(self) -> Section | None:
        solutions, faults, file = self.product("wcs_solutions")
        if solutions is None:
            return only_faults("plate_solution", "Plate solution", faults, file)
        if self.frame is not None and (one := self._solution_of(self.frame)) is not None:
            lines, facts = solution_words(one)
            sections: tuple[Section, ...] = ()
            reference = next((s for s in solutions if s.file == one.reference_file), None)
            if reference is not None:
                words, of_reference = solution_words(reference)
                sections = (
                    Section(
                        name="reference",
                        title=f"Its reference: {reference.file}",
                        lines=tuple(words),
                        facts=of_reference,
                    ),
                )
            return Section(
                name="plate_solution",
                title=f"Plate solution: {one.status}",
                lines=(*lines, file_words(file)),
                facts={**facts, **file},
                faults=faults,
                sections=sections,
            )
        by = Counter((s.status.value, s.solver, s.solver_version, s.database) for s in solutions)
        failed = {s.file: f"{s.reason} {s.message}".strip() for s in solutions if not s.solution}
        lines = [
            f"{n} {status} by {solver} {version or ''}".rstrip()
            + (f", {database}" if database else "")
            for (status, solver, version, database), n in by.most_common()
            if solver
        ]
        lines += [f"{path}: {why}" for path, why in [*failed.items()][:MAX_NAMED]]
        lines += and_more([*failed])
        return Section(
            name="plate_solution",
            title=f"Plate solutions: {len(solutions) - len(failed)} of {len(solutions)} frames",
            lines=(*lines, file_words(file)),
            facts={
                "n_frames": len(solutions),
                "not_solved": failed,
                "by": [
                    dict(zip(("status", "solver", "version", "database", "n_frames"), (*one, n),
                             strict=True))
                    for one, n in by.most_common()
                ],
                **file,
            },
            faults=faults,
        )  # fmt: skip

    # ------------------------------------------------------------------------------ reduced frames

    def _reduced(self) -> Section | None:
        reduction, faults, file = self.product("reduced_frames")
        if reduction is None:
            return only_faults("reduced_frame", "Reduced frames", faults, file)
        one = None
        if self.frame is not None:
            one = next((f for f in reduction.frames if f.raw == self.frame.raw), None)
        if one is not None:
            return self._reduced_frame(reduction, one, faults, file)
        kept = [f for f in reduction.frames if f.path is not None]
        problems = [words for f in kept for words in self._check_reduced(reduction, f)]
        left_out = dict(reduction.left_out)
        lines = [f"{path}: left out: {why}" for path, why in [*left_out.items()][:MAX_NAMED]]
        lines += [*and_more([*left_out]), *reduction.notes]
        return Section(
            name="reduced_frame",
            title=f"Reduced frames: {len(reduction.frames)}, {len(kept)} kept on disk",
            lines=(*lines, file_words(file)),
            facts={"frames": [asdict(f) for f in reduction.frames], "left_out": left_out, **file},
            faults=(*faults, *problems[:MAX_NAMED], *and_more(problems)),
        )

    def _reduced_frame(
        self,
        reduction: Reduction,
        one: ReducedFrame,
        faults: tuple[str, ...],
        file: Mapping[str, Any],
    ) -> Section:
        facts: dict[str, Any] = {"raw": one.raw, "raw_hash": one.raw_hash, "path": one.path, **file}
        lines = ["not kept on disk: it is calibrated again whenever its pixels are wanted"]
        if one.path is not None:
            path = self.layout.product_file(one.path)
            lines = [f"{path}"]
            try:
                facts["reduced_file"], facts["reduced_sha256"] = (
                    str(path),
                    provenance.file_hash(path),
                )
                cards = read_header(path)
            except (OSError, UnreadableFrame):
                cards = None
            if cards is not None:
                names = ("RAWHASH", "BIASFILE", "BIASHASH", "DARKFILE", "DARKHASH", "FLATFILE",
                         "FLATHASH", "BADPHASH", "NCOSMIC", "PEDADDED", "REDUKEY")  # fmt: skip
                facts["cards"] = {name: cards[name] for name in names if name in cards}
                lines.append(f"SHA-256 {short_hash(facts['reduced_sha256'])}; its header says:")
                lines += [f"{name} = {value}" for name, value in facts["cards"].items()]
        return Section(
            name="reduced_frame",
            title=f"Reduced frame {one.label}: mid-exposure from {one.start_utc} + "
            f"{one.exposure_s:g} s / 2",
            lines=tuple(lines),
            facts=facts,
            faults=(*faults, *self._check_reduced(reduction, one)),
        )

    def _check_reduced(self, reduction: Reduction, one: ReducedFrame) -> list[str]:
        """Return what is wrong with a reduced frame on disk; its pixels only when verifying."""
        if one.path is None:
            return []
        path = self.layout.product_file(one.path)
        if not path.exists():
            return [f"{one.path} is gone: it is calibrated again when its pixels are wanted"]
        choice = reduction.choice
        made_with = {
            "BIASHASH": choice.bias,
            "DARKHASH": choice.dark,
            "FLATHASH": choice.flat,
            "BADPHASH": choice.bad_pixels,
        }
        try:
            if self.verify:
                read_reduced(path)
            if self.verify or self.frame is not None:
                cards = read_header(path)
                said = {"RAWHASH": one.raw_hash}
                said |= {card: m.content_hash for card, m in made_with.items() if m is not None}
                return [
                    f"{one.path}: {card} {short_hash(cards.get(card))},"
                    f" {short_hash(value)} recorded"
                    for card, value in said.items()
                    if cards.get(card) != value
                ]
        except UnreadableFrame as error:
            return [f"{one.path}: {error}; it is calibrated again when its pixels are wanted"]
        return []

    # ------------------------------------------------------------------------------------- masters

    def _masters(self) -> list[Section]:
        reduction: Reduction | None = self.product("reduced_frames")[0]
        choice: CalibrationChoice | None = (
            reduction.choice if reduction else self.product("calibration_choice")[0]
        )
        if choice is None:
            return []
        sections = []
        for kind, master in (("bias", choice.bias), ("dark", choice.dark), ("flat", choice.flat)):
            if master is not None:
                sections.append(self._master(kind, master, seen=frozenset()))
            elif kind in choice.already_done:
                sections.append(
                    Section(
                        name=kind,
                        title=f"Master {kind}: none, the frames come with that done",
                        facts={"already_done": True},
                    )
                )
            else:
                why = [words for words in choice.reasons if kind in words]
                if (of_night := self._why_no_master(kind)) is not None:
                    why.append(of_night)
                sections.append(
                    Section(
                        name=kind,
                        title=f"Master {kind}: nocal",
                        lines=tuple(why),
                        facts={"path": None, "reasons": why},
                    )
                )
        if choice.bad_pixels is not None:
            sections.append(self._bad_pixels(choice.bad_pixels))
        return sections

    def _why_no_master(self, kind: str) -> str | None:
        """Return why the night of the observation has no master of this kind, if it has none."""
        asset = MASTER_STAGES[kind]
        stage = StageRuns(self.observatory.status.path).latest(self.night_key)
        one = stage.get(self.night_key, {}).get(asset)
        if one is None or not (one.is_shortfall or one.is_broken) or one.reason is None:
            return None
        return f"{asset} of the night itself: {one.reason}"

    def _master(self, kind: str, master: Master, *, seen: frozenset[str]) -> Section:
        facts = {name: value for name, value in asdict(master).items() if name != "group"}
        if master.path in self.told:
            return Section(
                name=kind,
                title=f"Master {kind} {master.path}: as above",
                facts={**facts, "file": str(self._raw_path(master.path))},
            )
        self.told.add(master.path)
        made = "by wombat" if master.made_by_us else "by the observer"
        lines = [
            f"{master.n_used} frames of the night {master.date}, {master.n_refused} refused,"
            f" made {made}; pixels SHA-256 {master.content_hash}",
        ]
        if master.noise is not None:
            unit = "relative" if kind == "flat" else "ADU"
            lines.append(f"random error of a pixel {master.noise:.3g} ({unit})")
        lines += list(master.notes)
        return self._frame_file(
            kind,
            f"Master {kind} {master.path}",
            self._raw_path(master.path),
            master.content_hash,
            lines=lines,
            facts=facts,
            date=master.date,
            seen=seen | {master.path},
        )

    def _bad_pixels(self, found: BadPixelMap) -> Section:
        sources = ", ".join(kind.value for kind in found.sources)
        facts = {name: value for name, value in asdict(found).items() if name != "group"}
        return self._frame_file(
            "bad_pixels",
            f"Bad pixel map {found.path}",
            self.layout.product_file(found.path),
            found.content_hash,
            lines=[
                f"{found.n_bad} pixels, from {sources or 'nothing'} of {found.date}",
                f"pixels SHA-256 {found.content_hash}",
                *found.notes,
            ],
            facts=facts,
            date=found.date,
            seen=frozenset(),
        )

    def _frame_file(
        self,
        name: str,
        title: str,
        path: Path | None,
        wanted_hash: str,
        *,
        lines: Sequence[str],
        facts: Mapping[str, Any],
        date: dt.date,
        seen: frozenset[str],
    ) -> Section:
        """Return a file that was combined of others, and those."""
        now: dict[str, Any] = {**facts, "file": str(path), "verified": None, "inputs": []}
        words, faults, sections = list(lines), [], []
        header = None
        if path is None:
            faults.append(f"{facts.get('path')} lies outside the data directory")
        else:
            try:
                header = read_header(path)
            except UnreadableFrame as error:
                faults.append(f"{path}: {error}")
        if header is not None and path is not None:
            stated = header.get(HASH_CARD)
            if stated is not None and not same_hash(stated, wanted_hash):
                faults.append(
                    f"{path.name} was made again since: pixels {short_hash(stated)} now,"
                    f" {short_hash(wanted_hash)} were used"
                )
            now["inputs"], input_words, input_faults = self._inputs(header, date)
            words, faults = [*words, *input_words], [*faults, *input_faults]
            for one in provenance.offsets(header):
                if one.path not in seen:
                    sections.append(self._offset(one, seen))
            if self.verify:
                now["verified"] = has_pixels(path, wanted_hash, faults)
                if now["verified"]:
                    words.append("verified: its pixels have this hash now")
        return Section(
            name=name,
            title=title,
            lines=tuple(words),
            facts=now,
            faults=tuple(faults),
            sections=tuple(sections),
        )

    def _offset(self, one: provenance.Ingredient, seen: frozenset[str]) -> Section:
        """Return a master that was subtracted from the frames of another."""
        known = {card_text(m.path): m for m in self.observatory.status.masters()}
        master = known.get(one.path)
        if master is not None and same_hash(master.content_hash, one.pixel_hash):
            return self._master(master.kind.value, master, seen=seen)
        words = "is not known any more" if master is None else "was made again since"
        return Section(
            name="subtracted",
            title=f"Subtracted: {one.path}",
            facts=asdict(one),
            faults=(f"{one.path}, pixels {short_hash(one.pixel_hash)}, {words}",),
        )

    def _inputs(self, header: Any, date: dt.date) -> tuple[list[Any], list[str], list[str]]:
        """Return the frames that HISTORY names, in words, and what is wrong with them."""
        named = provenance.ingredients(header)
        dates = {date, *(d for one in named if (d := date_of(one.path)))}
        known = {card_text(f.path): f for f in self.observatory.status.known_frames(dates).values()}
        inputs, faults = [], []
        for one in named:
            frame = known.get(one.path)
            is_master = frame is None and Path(one.path).name.startswith(
                ("mbias", "mdark", "mflat")
            )
            inputs.append({**asdict(one), "is_master": is_master, "verified": None})
            if is_master:
                continue
            if frame is None:
                faults.append(f"{one.path} is gone from the data")
            elif frame.pixel_hash != one.pixel_hash:
                faults.append(
                    f"{one.path} is another one now: pixels {short_hash(frame.pixel_hash)},"
                    f" {short_hash(one.pixel_hash)} were used"
                )
            elif self.verify:
                path = self._raw_path(frame.path)
                inputs[-1]["verified"] = path is not None and has_pixels(
                    path, one.pixel_hash or "", faults
                )
        if not named:
            return [], [], []
        shown = [f"input {one.path} {short_hash(one.pixel_hash)}" for one in named[:MAX_NAMED]]
        more = [f"… and {len(named) - MAX_NAMED} more (--json)"] if len(named) > MAX_NAMED else []
        return (
            inputs,
            [f"{len(named)} inputs, with the hashes of their pixels:", *shown, *more],
            ([*faults[:MAX_NAMED], *and_more(faults)]),
        )

    # ---------------------------------------------------------------------------------- raw frames

    def _raw_path(self, relative: str) -> Path | None:
        try:
            return self.layout.raw_path(relative)
        except ValueError:
            return None

    def _raw(self) -> Section:
        lights = list(self.lights.values())
        if self.frame is not None:
            lights = [light for light in lights if light.path == self.frame.raw]
        reduction: Reduction | None = self.product("reduced_frames")[0]
        used = {f.raw: f.raw_hash for f in reduction.frames} if reduction else {}
        if self.frame is not None:
            used = {path: digest for path, digest in used.items() if path == self.frame.raw}
        faults: list[str] = []
        facts = []
        for light in lights:
            facts.append(self._raw_frame(light, used.get(light.path), faults))
        gone = [path for path in used if path not in self.lights]
        faults += [f"{path}, which was used, is gone from the data" for path in gone]
        verified = sum(bool(one["verified"]) for one in facts)
        lines = []
        for light in lights if len(lights) <= MAX_NAMED else (lights[0], lights[-1]):
            lines.append(f"{light.path} pixels SHA-256 {light.pixel_hash}")
            lines += [f"warning: {words}" for words in light.warnings]
        if len(lights) > MAX_NAMED:
            lines.append(f"the first and the last of {len(lights)}; --json has all")
        if self.frame is not None and lights:
            lines.append(raw_words(lights[0]))
        if self.verify:
            lines.append(f"verified: {verified} of {len(lights)} have these pixels now")
        else:
            lines.append("hashes are those recorded; --verify reads the pixels again")
        return Section(
            name="raw_frame",
            title="Raw frame" if self.frame is not None else f"Raw frames: {len(lights)}",
            lines=tuple(lines),
            facts={"frames": facts},
            faults=(*faults[:MAX_NAMED], *and_more(faults)),
        )

    def _raw_frame(self, light: RawFrame, used_hash: str | None, faults: list[str]) -> Any:
        facts: dict[str, Any] = {
            "path": light.path,
            "pixel_hash": light.pixel_hash,
            "pixel_hash_used": used_hash,
            "size_bytes": light.size_bytes,
            "exposure_s": light.exposure_s,
            "start_utc": light.start_utc,
            "reason": light.reason,
            "warnings": light.warnings,
            "verified": None,
        }
        path = self._raw_path(light.path)
        if used_hash is not None and used_hash != light.pixel_hash:
            faults.append(
                f"{light.path} has other pixels now, {short_hash(light.pixel_hash)}, than were"
                f" used, {short_hash(used_hash)}"
            )
        if path is None or not path.exists():
            faults.append(f"{light.path} is gone from the data")
        elif self.verify and light.pixel_hash is not None:
            facts["verified"] = has_pixels(path, light.pixel_hash, faults)
        elif path.stat().st_size != light.size_bytes:
            faults.append(
                f"{light.path} has {path.stat().st_size} bytes, {light.size_bytes} when it was read"
            )
        return facts

    # ------------------------------------------------------------------------ settings and software

    def _settings(self) -> Section:
        path = self.layout.product_path(self.key, SETTINGS_FILE)
        facts: dict[str, Any] = {"file": str(path), "sha256_now": None}
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
            facts["sha256_now"] = provenance.file_hash(path)
        except FileNotFoundError:
            return settings_unknown(facts, f"no {path}: not recorded")
        except (OSError, ValueError) as error:
            return settings_unknown(facts, f"{path} cannot be read: {error}")
        used = flat_keys(values)
        defaults = flat_keys(config.Settings().model_dump(mode="json", exclude={"base"}))
        now = flat_keys(self.observatory.settings.model_dump(mode="json", exclude={"base"}))
        differ = {k: v for k, v in used.items() if v != defaults.get(k) and is_ours(k)}
        other = sorted(k for k in used | now if used.get(k) != now.get(k) and is_ours(k))
        lines = [f"{key} = {value!r}" for key, value in differ.items()]
        faults = []
        if other:
            faults.append(
                "wombat.toml says otherwise now: "
                + ", ".join(f"{k} = {now.get(k)!r}, was {used.get(k)!r}" for k in other[:MAX_NAMED])
            )
        return Section(
            name="settings",
            title=f"Settings: {len(differ)} differ from the defaults",
            lines=(*lines, file_words(facts)),
            facts={**facts, "not_default": differ, "other_now": other},
            faults=tuple(faults),
        )

    def _software(self) -> Section:
        solutions: tuple[FrameSolution, ...] = self.product("wcs_solutions")[0] or ()
        solvers = sorted({f"{s.solver} {s.solver_version}" for s in solutions if s.solver})
        now = software_at_work()
        made = {one.asset: one for one in self.history if one.ending == MADE}
        kept = {asset: one.software for asset, one in made.items()}
        by: dict[str, list[str]] = defaultdict(list)
        for asset, software in kept.items():
            by[_software_words(software)].append(asset)
        lines = [f"solvers: {', '.join(solvers) or 'none'}"]
        lines += [f"{words}: {', '.join(assets)}" for words, assets in by.items()]
        others = [asset for asset, software in kept.items() if software and software != now]
        if others:
            lines.append(f"at work now: {_software_words(now)}")
        return Section(
            name="software",
            title="Software",
            lines=tuple(lines),
            facts={"recorded": {"solvers": solvers, "stages": kept}, "now": now},
        )

    # ------------------------------------------------------------------------------------- history

    def _decisions(self) -> Section | None:
        """Return what the person decided and what was reported; None: nothing yet."""
        path = self.observatory.status.path
        journal = Decisions(path)
        history, reported = journal.history(self.key), ReportLedger(path).lines(key=self.key)
        lines = [decision_words(one) for one in history]
        facts: dict[str, Any] = {"decisions": [asdict(one) for one in history]}
        magnitudes = self.product("standard_magnitudes")[0]
        if magnitudes is not None:
            states = point_states(magnitudes, journal.points(self.key))
            facts["points"] = {x.value: states.count(x) for x in PointState if x in states}
            if self.frame is not None and self.frame.index is not None:
                here = magnitudes.raw_hashes[self.frame.index]
                lines.append(f"this point is {states[self.frame.index]}")
                reported = tuple(one for one in reported if one.raw_hash == here)
                lines += [f"reported as {one.line}" for one in reported]
            elif history:
                said = ", ".join(f"{n} {state}" for state, n in facts["points"].items())
                lines.append(f"points: {said}")
        for file in dict.fromkeys(one.file for one in reported):
            own = [one for one in reported if one.file == file]
            n_submitted = sum(one.submitted_utc is not None for one in own)
            lines.append(f"reported in {file}: {len(own)} lines, {n_submitted} of them submitted")
        facts["reported"] = [asdict(one) for one in reported]
        if not lines:
            return None
        return Section(
            name="decisions", title="Decisions and reports", lines=tuple(lines), facts=facts
        )

    def _history(self) -> Section:
        changes = remade(self.observatory.status.path, self.key)
        night = StageRuns(self.observatory.status.path).history(self.night_key)
        lines = [*runs_in_words(self.history)]
        lines += [f"{one.made_utc} magnitudes remade ({one.why}): {one.words}" for one in changes]
        return Section(
            name="history",
            title=f"History, runs: {len({one.run_id for one in self.history})}",
            lines=tuple(lines),
            facts={
                "stages": [stage_object(one) for one in self.history],
                "remade": [{**asdict(one), "words": one.words} for one in changes],
            },
            sections=(
                Section(
                    name="night",
                    title=f"Of the night {self.night_key}, its masters:",
                    lines=tuple(runs_in_words(night)),
                    facts={"stages": [stage_object(one) for one in night]},
                ),
            ),
        )


def _software_words(software: Mapping[str, str] | None) -> str:
    if software is None:
        return "not recorded"
    return ", ".join(f"{name} {number}" for name, number in software.items())
