"""Reports to the AAVSO: what of the approved observations is new, what changed, and the files.

A line is reported once. The ledger (`store.report_ledger`) knows every line ever written; what is
new is written, what the ledger has with other content is an amendment and written on request only,
into a file of its own. Nothing is uploaded: that is the person's, who says it afterwards.

A file comes about in this order, under a lock: its name is reserved (an empty file), its content is
checked, then lies complete on the disk under a hidden name, then its lines are recorded in one
transaction with the decisions, then the hidden file takes the place of the empty one. Killed before
the transaction, nothing was reported: the next export sweeps up and writes the lines anew. Killed
after it, the hidden file is there and known to the ledger: the next export puts it in place. Where
a disk has no locks, the transaction decides between two that report at once.
"""

import contextlib
import datetime as dt
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from wombat_dagster.config import Settings
from wombat_dagster.domain import (
    Apphot,
    DecisionKind,
    FloatArray,
    LintFinding,
    Observation,
    PhotometryTable,
    PointState,
    ReportLine,
    ReportPoint,
    StandardMagnitudes,
    Submitted,
    not_of_the_aavso,
)
from wombat_dagster.observatory import Observatory
from wombat_dagster.products import PRODUCTS, read_product
from wombat_dagster.reports.aavso import (
    COLUMNS,
    FIELDS,
    NA,
    SEPARATOR,
    ReportHeader,
    format_report,
    group_numbers,
    note_values,
    noted,
    observation_lines,
    star_id_of,
)
from wombat_dagster.reports.aavso_lint import Evidence, lint
from wombat_dagster.stages.decisions import (
    Refusal,
    accepts_hold,
    measured,
    point_states,
    star_to_confirm,
    to_report,
)
from wombat_dagster.stages.remade import differs_from_approved, recall_if_moved
from wombat_dagster.store import report_files
from wombat_dagster.store.decisions import Decisions, Overtaken
from wombat_dagster.store.disks import DiskFull
from wombat_dagster.store.locks import held
from wombat_dagster.store.report_ledger import (
    AlreadyReported,
    LedgerLine,
    NewLine,
    ReportLedger,
    content_hash,
)
from wombat_dagster.store.report_settled import files_to_upload, settled_since_report
from wombat_dagster.store.software import software_at_work
from wombat_dagster.store.status import TargetRow
from wombat_dagster.store.tables import UnreadableProduct

UPLOAD_URL: Final = "https://www.aavso.org/webobs/file"
REPORTABLE: Final = (Submitted.APPROVED, Submitted.EXPORTED, Submitted.SUBMITTED)
_LOCK = ".lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservationReport:
    """What becomes of one observation's points; `refused` says why none of them is reported.

    `n_same` were reported before as they are now, `n_at_aavso` by another program. `n_amended` have
    changed since; they are in a file only where amendments were asked for. `gone` names points that
    were reported and are to be no more, `clashes` those that another frame of the same time keeps
    out. `nearby` says what the AAVSO has of the star within the night at other times.
    """

    key: str
    n_new: int = 0
    n_amended: int = 0
    n_same: int = 0
    n_at_aavso: int = 0
    n_not_reported: int = 0  # rejected, proposed to be, not approved, or without a value
    amended: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()
    clashes: tuple[str, ...] = ()
    nearby: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportFile:
    """One file for the AAVSO; of a dry run it was not written. `warnings` are the lint's."""

    path: Path
    keys: tuple[str, ...]
    n_lines: int
    is_amended: bool
    text: str
    warnings: tuple[LintFinding, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What an export came to.

    `n_settled` observations were not looked at: nothing happened to them since they were reported.
    `findings` are the lint's on what was not written.
    """

    files: tuple[ReportFile, ...]
    observations: tuple[ObservationReport, ...]
    n_settled: int = 0
    findings: tuple[LintFinding, ...] = ()
    notes: tuple[str, ...] = ()
    is_dry_run: bool = False

    @property
    def n_lines(self) -> int:
        """How many lines were written."""
        return sum(file.n_lines for file in self.files)

    @property
    def refused(self) -> tuple[ObservationReport, ...]:
        """The observations that could not be reported."""
        return tuple(one for one in self.observations if one.refused)


def observer_code(settings: Settings) -> str:
    """Return the AAVSO's code of the observer. Raises `Refusal` where none is configured."""
    code = (settings.observer.code or "").strip()
    if not code:
        raise Refusal(
            "no AAVSO observer code is configured: put yours into wombat.toml, [observer] code ="
            ' "XYZ"; the AAVSO gives one to everybody who asks'
        )
    return code


def export(
    observatory: Observatory,
    keys: Collection[str] | None = None,
    *,
    who: str,
    amendments: bool = False,
    dry_run: bool = False,
) -> Exported:
    """Write what is new of approved observations into files for the AAVSO, and into the ledger.

    Parameters
    ----------
    keys
        Only these observations; None: all that are approved and not `settled_since_report`. One
        that is not approved is refused, the others are written.
    amendments
        Also write lines that changed since they were reported, into files of their own.
    dry_run
        Write nothing: say what would be written, with the text of the files.

    Raises
    ------
    Refusal
        No observer code is configured, or the reports' directory cannot be written to.
    """
    code = observer_code(observatory.settings)
    ledger = ReportLedger(observatory.status.path)
    known = observatory.status.targets()
    siblings: dict[tuple[dt.date, str], list[Observation]] = defaultdict(list)
    for row in known:
        siblings[row.observation.date, row.observation.target].append(row.observation)
    writer = _Writer(
        observatory=observatory,
        ledger=ledger,
        code=code,
        who=who,
        amendments=amendments,
        dry_run=dry_run,
        siblings=siblings,
    )
    rows, refused = _chosen(known, keys)
    rows, by_hand = _reported_by_wombat(rows, ledger.keys())
    if keys is not None:
        refused += [
            ObservationReport(key=row.observation.key, refused=(_by_hand_words(row),))
            for row in by_hand
        ]
    settled = settled_since_report(observatory.status.path) if keys is None else set()
    left = [row for row in rows if row.observation.key not in settled]
    with contextlib.ExitStack() as open_now:
        open_now.enter_context(_refusing(observatory.layout.reports_dir))
        notes: list[str] = []
        if not dry_run and (left or observatory.layout.reports_dir.is_dir()):
            open_now.enter_context(held(observatory.layout.reports_dir / _LOCK))
            notes += finish_interrupted(observatory, ledger)
        found = [writer.unit(unit, own) for unit, own in _units(observatory.settings, left)]
    return Exported(
        files=tuple(one for unit in found for one in unit.files),
        observations=(*refused, *(one for unit in found for one in unit.observations)),
        n_settled=len(rows) - len(left),
        findings=tuple(one for unit in found for one in unit.findings),
        notes=(*notes, *_lost(observatory), *([] if keys is not None else _hand_notes(by_hand))),
        is_dry_run=dry_run,
    )


@contextlib.contextmanager
def _refusing(directory: Path) -> Iterator[None]:
    """Turn what a disk says of the reports' directory into a refusal; that it is full stays so."""
    try:
        yield
    except DiskFull:
        raise
    except OSError as error:
        there = Path(error.filename or ".")
        if not (there.is_relative_to(directory) or directory.is_relative_to(there)):
            raise
        raise Refusal(
            f"the report cannot be written: {error.filename}: {error.strerror}"
        ) from error


def _lost(observatory: Observatory) -> Iterator[str]:
    """Yield which files are to be uploaded and are not there."""
    for name in files_to_upload(observatory.status.path):
        path = observatory.layout.report_path(name)
        if not path.exists() or not path.stat().st_size:
            yield (
                f"{name} is not submitted yet, and not there any more: wombat submitted"
                f" --withdraw {name}, then report again"
            )


def _chosen(
    known: Sequence[TargetRow], keys: Collection[str] | None
) -> tuple[list[TargetRow], list[ObservationReport]]:
    """Return the rows to be reported, and what is said of the other `keys`."""
    if keys is None:
        return [row for row in known if row.submitted in REPORTABLE], []
    rows = {row.observation.key: row for row in known}
    chosen, refused = [], []
    for key in dict.fromkeys(keys):
        row = rows.get(key)
        if row is not None and row.submitted in REPORTABLE:
            chosen.append(row)
        else:
            words = "there is no such observation" if row is None else _not_approved(row)
            refused.append(ObservationReport(key=key, refused=(words,)))
    return chosen, refused


def _reported_by_wombat(
    rows: Sequence[TargetRow], reported: Collection[str]
) -> tuple[list[TargetRow], list[TargetRow]]:
    """Return the rows of which a line may be new, and those that a person wrote as reported."""
    by_hand = [
        row
        for row in rows
        if row.submitted != Submitted.APPROVED and row.observation.key not in reported
    ]
    return [row for row in rows if row not in by_hand], by_hand


def _by_hand_words(row: TargetRow) -> str:
    return (
        f"it says {row.submitted}, and wombat has reported nothing of it; set approved to report it"
    )


def _hand_notes(by_hand: Sequence[TargetRow]) -> Iterator[str]:
    """Yield one note of all that a person wrote as reported: it may well have been, elsewhere."""
    if by_hand:
        more = f" and {len(by_hand) - 1} more" if by_hand[1:] else ""
        yield f"{by_hand[0].observation.key}{more}: {_by_hand_words(by_hand[0])}"


def _not_approved(row: TargetRow) -> str:
    if row.submitted == Submitted.REJECTED:
        return "you rejected it"
    if row.apphot in (Apphot.VALIDATE, Apphot.HELD):
        since = f" ({row.changed_since})" if row.changed_since else ""
        return f"it is not approved yet{since}: wombat approve {row.observation.key}"
    word = row.apphot or row.proc
    return "it is not measured yet" if word is None else f"it has no magnitudes, it is {word}"


def _units(
    settings: Settings, rows: Sequence[TargetRow]
) -> Iterator[tuple[str, Sequence[TargetRow]]]:
    """Yield what goes into one file each, with what the file is called for."""
    units: dict[str, list[TargetRow]] = defaultdict(list)
    for row in rows:
        is_nightly = settings.report.per == "night"
        key = row.observation.key
        units[f"{row.observation.date:%Y%m%d}" if is_nightly else key].append(row)
    yield from units.items()


# ------------------------------------------------------------------- what an observation comes to


@dataclass(frozen=True, slots=True, kw_only=True)
class _Collected:
    """An observation's lines as they would be written now, and what else is known of its points."""

    row: TargetRow
    points: tuple[ReportPoint, ...]
    names: tuple[str, ...]  # what the star may be called in AAVSO's own download
    fates: Mapping[str, str]  # by frame hash: why a point is not reported
    fates_at: Mapping[str, str]  # the same by DATE
    span_jd: tuple[float, float]
    evidence: Evidence
    doubts: tuple[str, ...]  # why none of it may be written now
    version: str  # of the magnitudes

    @property
    def key(self) -> str:
        return self.row.observation.key


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """A line to be written, and the ledger's line that it amends."""

    point: ReportPoint
    content_hash: str
    amends: LedgerLine | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Difference:
    """An observation's lines against the ledger."""

    new: tuple[_Entry, ...] = ()
    amended: tuple[_Entry, ...] = ()
    n_same: int = 0
    n_at_aavso: int = 0
    gone: tuple[str, ...] = ()
    clashes: tuple[str, ...] = ()
    nearby: tuple[str, ...] = ()

    @property
    def not_submitted(self) -> tuple[str, ...]:
        """The files of lines that changed before they were submitted."""
        olds = [one.amends for one in self.amended if one.amends is not None]
        return tuple(sorted({old.file for old in olds if old.submitted_utc is None}))


def _difference(
    ledger: ReportLedger, code: str, found: _Collected, taken: dict[tuple[str, ...], str]
) -> _Difference:
    """Return which lines are new, which changed, and which are to be no more.

    `taken` are the frames by star, band and time that this export has lines of already; those of
    this observation are added.
    """
    entries = [_Entry(point=p, content_hash=content_hash(p.line)) for p in found.points]
    asked = [_new_line(code, entry, line="") for entry in entries]
    known = _known(ledger, asked, found.names)
    own_hashes = {point.raw_hash for point in found.points} | found.fates.keys()
    new, amended, clashes = list[_Entry](), list[_Entry](), list[str]()
    n_same = n_at_aavso = 0
    for i, entry in enumerate(entries):
        old, point = known.get(i), entry.point
        rival = taken.setdefault(_at(point.line), f"{point.label} of {point.key}")
        if old is not None and old.origin == "aavso":
            n_at_aavso += 1
        elif old is not None and (
            old.key != point.key or (old.raw_hash != point.raw_hash and old.raw_hash in own_hashes)
        ):
            which = "the same" if old.raw_hash == point.raw_hash else "another"
            of = f", of {old.key}" if old.key != point.key else ""
            clashes.append(
                f"{point.label} at JD {point.line.date}: {which} frame is in {old.file}{of}"
            )
        elif old is not None and old.content_hash == entry.content_hash:
            n_same += 1
        elif old is not None:
            amended.append(replace(entry, amends=old))
        elif rival != f"{point.label} of {point.key}":
            clashes.append(f"{point.label} at JD {point.line.date}: so is {rival}")
        else:
            new.append(entry)
    return _Difference(
        new=tuple(new),
        amended=tuple(amended),
        n_same=n_same,
        n_at_aavso=n_at_aavso,
        gone=tuple(_gone(ledger.lines(key=found.key), found)),
        clashes=tuple(clashes),
        nearby=tuple(_nearby(ledger, found, {old.id for old in known.values()})) if new else (),
    )


def _nearby(ledger: ReportLedger, found: _Collected, known: Collection[int]) -> Iterator[str]:
    """Yield what the AAVSO has of the star and band within this night, at none of our times."""
    line = found.points[0].line
    others = {
        one.id: one
        for name in (line.star_id, *found.names)
        for one in ledger.foreign(name, line.band, between=found.span_jd)
        if one.id not in known
    }
    if others:
        files = ", ".join(sorted({one.file for one in others.values()}))
        yield (
            f"the AAVSO has {len(others)} more {'line' if len(others) == 1 else 'lines'} of"
            f" {line.star_id} {line.band} within this night, from elsewhere ({files}), the first at"
            f" JD {min(others.values(), key=lambda one: float(one.jd)).jd}, at none of these times:"
            " look whether the same frames were reported before"
        )


def _at(line: ReportLine) -> tuple[str, ...]:
    """Return what two lines must not share."""
    return line.star_id.casefold(), line.band, line.date


def _known(
    ledger: ReportLedger, asked: Sequence[NewLine], names: Sequence[str]
) -> dict[int, LedgerLine]:
    """Return the ledger's line of each of `asked`; the AAVSO may have it under another name."""
    aliases = [(i, replace(line, star=name)) for name in names for i, line in enumerate(asked)]
    found = ledger.known([*asked, *(line for _, line in aliases)])
    known = {i: old for i, old in found.items() if i < len(asked)}
    for j, (i, _) in enumerate(aliases, start=len(asked)):
        if i not in known and j in found and found[j].origin == "aavso":
            known[i] = found[j]
    return known


def _gone(reported: Sequence[LedgerLine], found: _Collected) -> Iterator[str]:
    """Yield in words the lines that were reported and would not be now.

    A frame that was saved again is another one, to be approved, and no reason to delete its line.
    """
    there = {(point.raw_hash, point.line.band) for point in found.points}
    places = {_at(point.line)[1:] for point in found.points}
    for old in reported:
        is_there = (old.raw_hash, old.band) in there or (old.band, old.jd) in places
        if old.origin != "wombat" or is_there:
            continue
        if old.raw_hash not in found.fates and old.jd in found.fates_at:
            yield (
                f"JD {old.jd} {old.band} was reported ({old.file}); its frame was saved anew since,"
                f" with other pixels ({found.fates_at[old.jd]}): look, and wombat approve"
                f" {found.key}"
            )
        else:
            why = found.fates.get(old.raw_hash, "its frame is not there any more")
            yield (
                f"JD {old.jd} {old.band} was reported ({old.file}), now {why}:"
                " delete it at the AAVSO, no line of a report can"
            )


def _new_line(code: str, entry: _Entry, *, line: str) -> NewLine:
    told = entry.point.line
    return NewLine(
        observer=code,
        star=told.star_id,
        band=told.band,
        jd=told.date,
        content_hash=entry.content_hash,
        line=line,
        key=entry.point.key,
        raw_hash=entry.point.raw_hash,
        amends=None if entry.amends is None else entry.amends.id,
    )


def _collected(
    observatory: Observatory, row: TargetRow, siblings: Sequence[Observation], *, dry_run: bool
) -> _Collected | str:
    """Return the lines of an observation as they would be now, or why there are none.

    `siblings` are the same target's observations of the night, through any filter.
    """
    key = row.observation.key
    try:
        magnitudes = measured(observatory, key)
        table = read_product(observatory, "photometry_table", key)
        star_id = star_id_of(table.variable)
    except FileNotFoundError as error:
        return f"its measurement table is not there: {error.filename}; wombat run makes it anew"
    except (Refusal, UnreadableProduct, ValueError) as error:
        return str(error)
    moved = differs_from_approved(observatory, key, magnitudes)
    if moved and row.submitted == Submitted.APPROVED:
        if not dry_run:
            recall_if_moved(observatory, key, magnitudes)
        return f"its magnitudes are not those that you approved: {moved}"
    if magnitudes.raw_hashes != table.raw_hashes:
        return "its magnitudes and its measurement table are not of the same frames: wombat run"
    journal = Decisions(observatory.status.path)
    points, approved = journal.points(key), journal.approved_mag(key)
    chosen = to_report(magnitudes, points, approved)
    lines = observation_lines(
        magnitudes,
        table,
        rejected=~chosen,
        star_id=star_id,
        groups=_groups(observatory, row.observation, magnitudes, siblings),
    )
    reported = {i for i, _ in lines}
    states = point_states(magnitudes, points)
    return _Collected(
        row=row,
        points=tuple(
            ReportPoint(
                key=key, raw_hash=magnitudes.raw_hashes[i], label=magnitudes.labels[i], line=line
            )
            for i, line in lines
        ),
        names=tuple({table.variable.name, table.variable.auid or star_id} - {star_id}),
        fates={
            raw_hash: _fate(magnitudes, i, states[i])
            for i, raw_hash in enumerate(magnitudes.raw_hashes)
            if i not in reported
        },
        evidence=_evidence(observatory, row, magnitudes, table, star_id=star_id),
        fates_at={
            f"{magnitudes.jd_utc[i]:.6f}": _fate(magnitudes, i, states[i])
            for i in range(len(states))
            if i not in reported
        },
        span_jd=_span(magnitudes.jd_utc),
        doubts=tuple(_doubts(row, moved, is_approved=bool(approved))),
        version=PRODUCTS["standard_magnitudes"].version(magnitudes),
    )


def _span(jd_utc: FloatArray) -> tuple[float, float]:
    """Return the first and the last of the times that are known; (0, 0): none is."""
    known = jd_utc[np.isfinite(jd_utc)]
    return (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)


def _fate(magnitudes: StandardMagnitudes, i: int, state: PointState) -> str:
    """Return why a point is not reported."""
    if state is PointState.REJECTED:
        return "rejected"
    if state is PointState.PROPOSED:
        return f"proposed to be rejected ({magnitudes.proposed_rejected[i]})"
    if not np.isfinite(magnitudes.t1_mag[i]):
        return "without a magnitude"
    return "not among the points that were approved"


def _groups(
    observatory: Observatory,
    observation: Observation,
    magnitudes: StandardMagnitudes,
    siblings: Sequence[Observation],
) -> tuple[str, ...]:
    """Return GROUP of every frame, by the night's other filters; decisions do not matter.

    A set of which a line was reported without its number, before the other filter came, has none: a
    number that one line alone has says nothing.
    """
    nights = {observation.key: magnitudes}
    for sibling in siblings:
        if sibling.key != observation.key:
            with contextlib.suppress(Refusal):  # it was not measured
                nights[sibling.key] = measured(observatory, sibling.key)
    groups = group_numbers(
        {key: night.jd_utc for key, night in nights.items()},
        {key: night.band for key, night in nights.items()},
    )
    own = groups[observation.key]
    if set(own) <= {NA}:
        return own
    ledger, broken = ReportLedger(observatory.status.path), set[str]()
    for key, night in nights.items():
        told = {one.raw_hash: _group_of(one.line) for one in ledger.lines(key=key)}
        frames = zip(night.raw_hashes, groups[key], strict=True)
        broken |= {group for pixels, group in frames if told.get(pixels, group) != group}
    return tuple(NA if group in broken else group for group in own)


def _group_of(line: str) -> str:
    """Return GROUP of a line that wombat wrote."""
    return line.split(",")[COLUMNS.index("GROUP")]


def _doubts(row: TargetRow, moved: str | None, *, is_approved: bool) -> Iterator[str]:
    """Yield why nothing of an approved observation may be written now."""
    if row.apphot not in (Apphot.VALIDATE, Apphot.HELD):
        word = row.apphot or row.proc or "without magnitudes"
        yield f"it is {word} since it was approved; wombat explain {row.observation.key} says more"
    elif moved:
        yield (
            f"its magnitudes are not those that you approved: {moved}; approve it as it is now"
            f" first: wombat approve {row.observation.key}"
        )
    elif row.submitted != Submitted.APPROVED and not is_approved:  # a person wrote the word by hand
        yield f"how it is now was never approved: wombat approve {row.observation.key}"


def _evidence(
    observatory: Observatory,
    row: TargetRow,
    magnitudes: StandardMagnitudes,
    table: PhotometryTable,
    *,
    star_id: str,
) -> Evidence:
    """Return what the lint cannot read off the lines of one observation."""
    key, place = row.observation.key, (star_id, magnitudes.band)
    unconfirmed = star_to_confirm(observatory, key)
    is_held = row.apphot == Apphot.HELD or magnitudes.held_reason is not None
    source = not_of_the_aavso(magnitudes.comp_source)
    return Evidence(
        unconfirmed_filters={}
        if table.band_confirmed
        else {
            place: f'the header says "{table.filter}"; say it in wombat.toml, [[instrument]]'
            f' filters = {{ "{table.filter}" = "{table.band}" }}'
        },
        unconfirmed_stars={}
        if unconfirmed is None
        else {star_id: f"if it is the one you mean: wombat confirm {key}"},
        held_nights={place: _held_words(row, magnitudes)}
        if is_held and not _approved_with_words(observatory, key)
        else {},
        catalogue_charts={} if source is None else {place: source},
    )


def _approved_with_words(observatory: Observatory, key: str) -> bool:
    approvals = [
        one
        for one in Decisions(observatory.status.path).history(key)
        if one.kind is DecisionKind.APPROVE and one.undone_utc is None
    ]
    return accepts_hold(approvals[-1] if approvals else None)


def _held_words(row: TargetRow, magnitudes: StandardMagnitudes) -> str:
    words = magnitudes.held_reason or row.reason or "its check star is out of control"
    return f"{words}; undo the approval, and approve it with a reason if it is to be reported"


# -------------------------------------------------------------------------------------- the files


@dataclass(frozen=True, slots=True, kw_only=True)
class _Unit:
    """What became of the observations that share a file."""

    files: tuple[ReportFile, ...]
    observations: tuple[ObservationReport, ...]
    findings: tuple[LintFinding, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Writer:
    """Writes the files of one export."""

    observatory: Observatory
    ledger: ReportLedger
    code: str
    who: str
    amendments: bool
    dry_run: bool
    siblings: Mapping[tuple[dt.date, str], Sequence[Observation]]

    def unit(self, unit: str, rows: Sequence[TargetRow]) -> _Unit:
        """Write what is new of observations that share a file, and what changed if it is wanted."""
        told, taken = dict[str, ObservationReport](), dict[tuple[str, ...], str]()
        collected: dict[str, _Collected] = {}
        differences: dict[str, _Difference] = {}
        for row in rows:
            key, found = (
                row.observation.key,
                _collected(
                    self.observatory,
                    row,
                    self.siblings[row.observation.date, row.observation.target],
                    dry_run=self.dry_run,
                ),
            )
            if isinstance(found, str):
                told[key] = ObservationReport(key=key, refused=(found,))
                continue
            difference = _difference(self.ledger, self.code, found, taken)
            told[key] = _told(found, difference)
            if self.amendments:
                told[key] = replace(told[key], refused=_not_submitted(difference))
            if difference.new or difference.amended:
                if found.doubts:
                    if not (difference.new or self.amendments):
                        continue  # nothing of it was to be written
                    told[key] = replace(told[key], n_new=0, nearby=(), refused=found.doubts)
                    continue
                collected[key], differences[key] = found, difference
        files, findings = list[ReportFile](), list[LintFinding]()
        wanted = [(False, {key: one.new for key, one in differences.items() if one.new})]
        if self.amendments:
            amended = {key: _submitted_ones(one.amended) for key, one in differences.items()}
            wanted.append((True, {key: own for key, own in amended.items() if own}))
        for is_amended, entries in wanted:
            file = self._file(unit, entries, collected, is_amended=is_amended)
            files += [] if file.written is None else [file.written]
            findings += file.findings
            for key, words in file.refused.items():
                told[key] = replace(told[key], refused=(*told[key].refused, *words))
        return _Unit(
            files=tuple(files),
            observations=tuple(told.values()),
            findings=tuple(findings),
        )

    def _file(
        self,
        unit: str,
        entries: Mapping[str, Sequence[_Entry]],
        collected: Mapping[str, _Collected],
        *,
        is_amended: bool,
    ) -> "_Outcome":
        """Write one file of what passes the lint, observation by observation."""
        left, refused, findings = dict(entries), dict[str, tuple[str, ...]](), list[LintFinding]()
        for key, own in entries.items():
            words, errors = self._faults(own, collected[key], is_amended=is_amended)
            findings += errors
            if words:
                refused[key] = words
                del left[key]
        text, found = "", tuple[LintFinding, ...]()
        while left:  # all together: what one observation says may forbid what another does
            text = self._text(left, collected, is_amended=is_amended)
            charts = [collected[key].evidence.catalogue_charts for key in left]
            joint = Evidence(catalogue_charts={k: v for one in charts for k, v in one.items()})
            found = lint(text, now_jd=_now_jd(), evidence=joint)
            errors = [one for one in found if one.is_error]
            if not errors:
                break
            findings += errors
            at_fault = _at_fault(text, left, errors)
            refused |= {key: _lint_words(own) for key, own in at_fault.items()}
            left = {key: own for key, own in left.items() if key not in at_fault}
        if not left:
            return _Outcome(refused=refused, findings=tuple(findings))
        lines = [
            _new_line(self.code, one, line=line)
            for one, line in zip(_flat(left), _data_lines(text).values(), strict=True)
        ]
        paths = self.observatory.layout.report_paths(self.code, unit, is_amended=is_amended)
        if self.dry_run:
            path = report_files.free_path(paths, is_known=self._is_known)
        else:
            path = report_files.reserve(paths, is_known=self._is_known)
            versions = {key: collected[key].version for key in left}
            overtaken = self._write(path, text, lines, versions)
            if overtaken is not None:
                refused |= dict.fromkeys(left, (overtaken,))
                return _Outcome(refused=refused, findings=tuple(findings))
        written = ReportFile(
            path=path,
            keys=tuple(left),
            n_lines=len(lines),
            is_amended=is_amended,
            text=text,
            warnings=found,
        )
        return _Outcome(written=written, refused=refused, findings=tuple(findings))

    def _faults(
        self, entries: Sequence[_Entry], found: _Collected, *, is_amended: bool
    ) -> tuple[tuple[str, ...], list[LintFinding]]:
        """Return why an observation's lines must not be written, in words and as findings."""
        try:
            text = self._text({found.key: entries}, {found.key: found}, is_amended=is_amended)
        except ValueError as error:
            return (str(error),), []
        findings = lint(text, now_jd=_now_jd(), evidence=found.evidence)
        errors = [one for one in findings if one.is_error]
        return _lint_words(errors), errors

    def _write(
        self, path: Path, text: str, lines: Sequence[NewLine], versions: Mapping[str, str]
    ) -> str | None:
        """Write the file and its lines' records; return why not, when somebody was faster.

        After any other failure nothing is cleaned away: whether the lines are recorded is not known
        here, and the next export finds out.
        """
        hidden = report_files.write_hidden(path, text)
        try:
            self.ledger.record(lines, file=path.name, who=self.who, versions=versions)
        except (Overtaken, AlreadyReported, KeyError) as overtaken:
            report_files.abandon(path, hidden)
            return f"{overtaken.args[0]}; {path.name} was not written, report it again"
        report_files.publish(hidden, path, text)
        return None

    def _is_known(self, name: str) -> bool:
        return bool(self.ledger.lines(file=name))

    def _text(
        self,
        entries: Mapping[str, Sequence[_Entry]],
        collected: Mapping[str, _Collected],
        *,
        is_amended: bool,
    ) -> str:
        header = self._header([collected[key] for key in entries], is_amended=is_amended)
        notes = self.observatory.settings.report.notes
        return format_report(header, [_line_of(one, notes) for one in _flat(entries)])

    def _header(self, collected: Sequence[_Collected], *, is_amended: bool) -> ReportHeader:
        settings = self.observatory.settings.report
        version = software_at_work().get("wombat-dagster")
        software = f"wombat {version}" if version else "wombat"
        amended = (
            "These lines replace ones that were reported before: see NOTES. Delete the old ones at"
            " the AAVSO, it would keep both.",
        )
        return ReportHeader(
            obscode=self.code,
            software=software,
            obstype=settings.obstype,
            comments=(
                f"by {software} for {self.who}, one file per {settings.per}",
                *(amended if is_amended else ()),
                *(f"{one.key} (magnitudes {one.version})" for one in collected),
            ),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    """What became of one file; `refused` says why by observation."""

    written: ReportFile | None = None
    refused: Mapping[str, tuple[str, ...]]
    findings: tuple[LintFinding, ...]


def _flat(entries: Mapping[str, Sequence[_Entry]]) -> list[_Entry]:
    return [one for own in entries.values() for one in own]


def _line_of(entry: _Entry, notes: str) -> ReportLine:
    """Return the line as it is written, with the person's words; an amendment says of what.

    Neither is what a line is compared by: other words in the configuration amend nothing.
    """
    line, old = noted(entry.point.line, notes), entry.amends
    if old is None:
        return line
    words = f"amends the line of {old.exported_utc[:10]} with {_was(old, line)}"
    return noted(line, words + _changed_words(old, line))


def _submitted_ones(amended: Sequence[_Entry]) -> tuple[_Entry, ...]:
    """Return the entries that amend a line which the AAVSO has: there is nothing else to amend."""
    return tuple(
        one for one in amended if one.amends is not None and one.amends.submitted_utc is not None
    )


def _not_submitted(difference: _Difference) -> tuple[str, ...]:
    return tuple(
        f"{file} is not submitted, so its lines are not amended: wombat submitted {file} if you"
        f" uploaded it, else wombat submitted --withdraw {file} and report again"
        for file in difference.not_submitted
    )


def _mag_of(line: str) -> str:
    """Return MAG of a line that wombat wrote."""
    return line.split(",")[2]


def _was(old: LedgerLine, line: ReportLine) -> str:
    """Return MAG of the line that is amended, and by what it is found where that differs now."""
    words = [f"MAG {_mag_of(old.line)}"]
    if old.jd != line.date:
        words.append(f"at JD {old.jd}")
    if old.star != line.star_id:
        words.append(f"of {old.star}")
    return " ".join(words)


def _changed_words(old: LedgerLine, line: ReportLine) -> str:
    changed = _changed(old.line, line)
    return f"; changed: {' '.join(changed)}" if changed else ""


def _changed(old: str, line: ReportLine) -> list[str]:
    """Return the columns, and the KEY= in NOTES, in which a line differs from one of wombat's."""
    before = dict(zip(COLUMNS, old.split(","), strict=False))
    now = dict(zip(COLUMNS, (getattr(line, name) for name in FIELDS), strict=True))
    compared = [name for name in COLUMNS if name not in ("GROUP", "NOTES")]
    keys = [note_values(one.get("NOTES", "").partition(SEPARATOR)[2]) for one in (before, now)]
    names = dict.fromkeys((*keys[1], *keys[0]))
    return [
        *(name for name in compared if before.get(name) != now[name]),
        *(name for name in names if keys[0].get(name) != keys[1].get(name)),
    ]


def _data_lines(text: str) -> dict[int, str]:
    """Return the lines of a file that are data, by their number from 1."""
    return {
        number: line
        for number, line in enumerate(text.splitlines(), start=1)
        if not line.startswith("#")
    }


def _at_fault(
    text: str, entries: Mapping[str, Sequence[_Entry]], errors: Sequence[LintFinding]
) -> dict[str, list[LintFinding]]:
    """Return the errors by observation; one that is of no line of data is everybody's."""
    keys = dict(zip(_data_lines(text), (one.point.key for one in _flat(entries)), strict=True))
    found: dict[str, list[LintFinding]] = defaultdict(list)
    for error in errors:
        key = None if error.line_number is None else keys.get(error.line_number)
        for one in entries if key is None else (key,):
            found[one].append(error)
    return found


def _lint_words(errors: Sequence[LintFinding]) -> tuple[str, ...]:
    """Return one sentence by rule."""
    words = []
    for rule in dict.fromkeys(error.rule for error in errors):
        own = [error.words for error in errors if error.rule == rule]
        words.append(f"{rule}: {own[0]}{f' (and {len(own) - 1} more lines)' if own[1:] else ''}")
    return tuple(words)


def _told(found: _Collected, difference: _Difference) -> ObservationReport:
    amended = [
        f"{one.point.label}, JD {one.point.line.date}: {_was(one.amends, one.point.line)} in"
        f" {one.amends.file}{'' if one.amends.submitted_utc else ' (not submitted yet)'},"
        f" now {one.point.line.magnitude}{_changed_words(one.amends, one.point.line)}"
        for one in difference.amended
        if one.amends is not None
    ]
    return ObservationReport(
        key=found.key,
        n_new=len(difference.new),
        n_amended=len(difference.amended),
        n_same=difference.n_same,
        n_at_aavso=difference.n_at_aavso,
        n_not_reported=len(found.fates),
        amended=tuple(amended),
        gone=difference.gone,
        clashes=difference.clashes,
        nearby=difference.nearby,
    )


def _now_jd() -> float:
    return time.time() / 86400 + 2440587.5


# ------------------------------------------------------------------------------ after interruptions


def finish_interrupted(observatory: Observatory, ledger: ReportLedger) -> list[str]:
    """Put in place what a killed export had recorded, sweep up the rest; return it in words.

    To be called by whoever holds the lock of the reports.
    """
    directory, notes = observatory.layout.reports_dir, []
    for hidden, path in report_files.unfinished(directory):
        recorded = ledger.lines(file=path.name)
        there = set(hidden.read_text(encoding="ascii", errors="replace").splitlines())
        is_free = not path.exists() or not path.stat().st_size
        if recorded and is_free and all(line.line in there for line in recorded):
            hidden.replace(path)
            notes.append(f"{path.name} was written to the end: the export before was interrupted")
        else:
            report_files.abandon(path, hidden)
    for path in report_files.empty_ones(directory):
        if not ledger.lines(file=path.name):
            path.unlink()
    return notes
