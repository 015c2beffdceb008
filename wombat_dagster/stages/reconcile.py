"""AAVSO's own download of an observer's data against the ledger of reported lines.

A line of ours that is there is submitted, whoever forgot to say so. One that is there and not in
the ledger was reported by another program, or before there was a ledger: it is entered, so that it
is never reported again. How the download is laid out was not checked against a live one
(`reports.aavso_download`).
"""

import time
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from wombat_dagster.domain import Variable
from wombat_dagster.observatory import Observatory
from wombat_dagster.products import read_product
from wombat_dagster.reports.aavso import star_id_of
from wombat_dagster.reports.aavso_download import DownloadedLine, parse_download
from wombat_dagster.stages.report import observer_code
from wombat_dagster.store.report_ledger import (
    LedgerLine,
    NewLine,
    ReportLedger,
    time_reach_d,
)
from wombat_dagster.store.tables import UnreadableProduct

FIRST_JD: Final = 2415020.0  # 1900
MAX_TOLD: Final = 20  # characters of a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciled:
    """What a download says of the ledger.

    `n_submitted` lines of ours were found and not known to be there, `n_known` were; `n_foreign`
    were entered anew as another program's, `n_foreign_known` before. `submitted` are observations
    that are all there now. `missing` counts by report file the lines that are not there.
    """

    n_lines: int
    n_submitted: int
    n_known: int
    n_foreign: int
    n_foreign_known: int
    other_observers: Mapping[str, int]
    submitted: tuple[str, ...]
    differing: tuple[str, ...]
    twice: tuple[str, ...]
    missing: Mapping[str, int]
    left_out: tuple[str, ...]


def reconcile(observatory: Observatory, text: str, *, file: str, who: str) -> Reconciled:
    """Enter what the AAVSO has, by the text of its download, into the ledger.

    `file` is the download's name, by which its lines are known later.

    Raises
    ------
    Refusal
        No observer code is configured.
    UnreadableDownload
        The text is no such download.
    """
    code = observer_code(observatory.settings)
    download = parse_download(text)
    told = [one for one in download.lines if one.observer.casefold() == code.casefold()]
    own = [one for one in told if _is_possible(one)]
    ledger = ReportLedger(observatory.status.path)
    names = star_names(observatory)
    reported = _Reported(ledger.lines(observer=code), names)
    matched: dict[int, list[DownloadedLine]] = defaultdict(list)
    lines_by_id: dict[int, LedgerLine] = {}
    foreign = []
    for one in own:
        line = reported.of(one)
        if line is None:
            foreign.append(_foreign(one, code, names))
        else:
            matched[line.id].append(one)
            lines_by_id[line.id] = line
    ours = {i: lines_by_id[i] for i in matched if lines_by_id[i].origin == "wombat"}
    agreeing = [i for i, line in ours.items() if any(_agrees(line, x) for x in matched[i])]
    before = {row.observation.key: row.submitted for row in observatory.status.targets()}
    ledger.submit_lines(agreeing, who=who)
    n_foreign = ledger.add_foreign(foreign, file=file)
    after = {row.observation.key: row.submitted for row in observatory.status.targets()}
    return Reconciled(
        n_lines=len(download.lines),
        n_submitted=sum(ours[i].submitted_utc is None for i in agreeing),
        n_known=sum(ours[i].submitted_utc is not None for i in agreeing),
        n_foreign=n_foreign,
        n_foreign_known=len(matched) - len(ours) + len(foreign) - n_foreign,
        other_observers=Counter(
            one.observer for one in download.lines if one.observer.casefold() != code.casefold()
        ),
        submitted=tuple(
            key
            for key, word in after.items()
            if word == "submitted" and before.get(key) != "submitted"
        ),
        differing=tuple(
            _differing_words(line, matched[i]) for i, line in ours.items() if i not in agreeing
        ),
        twice=tuple(_twice_words(line, matched[i]) for i, line in ours.items() if matched[i][1:]),
        missing=reported.missing(ours, own),
        left_out=(
            *download.left_out,
            *(
                f"line {one.number}: no observation was made at JD {one.jd[:MAX_TOLD]}"
                for one in told
                if not _is_possible(one)
            ),
        ),
    )


def _is_possible(one: DownloadedLine) -> bool:
    """Tell whether a time lies between 1900 and tomorrow."""
    return FIRST_JD <= one.jd_utc <= time.time() / 86400 + 2440587.5 + 1


def star_names(observatory: Observatory) -> dict[str, str]:
    """Return what our reports call a star, by its name and its AUID, casefolded, of all known."""
    names: dict[str, str] = {}
    for row in observatory.status.targets():
        try:
            star: Variable = read_product(observatory, "variable", row.observation.key)
            star_id = star_id_of(star)
        except (FileNotFoundError, UnreadableProduct, ValueError):
            continue
        names |= {name.casefold(): star_id for name in (star.name, star.auid, star_id) if name}
    return names


class _Reported:
    """The ledger's lines of one observer, to be found by star, band and time."""

    def __init__(self, lines: Sequence[LedgerLine], names: Mapping[str, str]) -> None:
        self.lines = lines
        self._names = names
        self._places: dict[tuple[str, str], list[tuple[float, int]]] = defaultdict(list)
        self._by_id = {line.id: line for line in lines}
        for line in lines:
            place = self._star(line.star), line.band.casefold()
            self._places[place].append((float(line.jd), line.id))
        for own in self._places.values():
            own.sort()

    def of(self, one: DownloadedLine) -> LedgerLine | None:
        """Return the line that is nearest in time, one of ours before another program's."""
        found = [
            (line.origin != "wombat", abs(float(line.jd) - one.jd_utc), line.id, line)
            for name in dict.fromkeys((one.star, one.auid or one.star))
            for line in self._near(self._star(name), one)
        ]
        return min(found)[3] if found else None

    def _near(self, star: str, one: DownloadedLine) -> Iterator[LedgerLine]:
        own = self._places.get((star, one.band.casefold()), [])
        reach_d = time_reach_d(one.jd)
        first = bisect_left(own, (one.jd_utc - reach_d, 0))
        for jd, number in own[first:]:
            if jd > one.jd_utc + reach_d:
                return
            yield self._by_id[number]

    def missing(
        self, found: Mapping[int, LedgerLine], own: Sequence[DownloadedLine]
    ) -> dict[str, int]:
        """Count by file the lines of ours that are not there, between others of the same star."""
        times: dict[str, list[float]] = defaultdict(list)
        for one in own:
            for name in (one.star, one.auid or one.star):
                times[self._star(name)].append(one.jd_utc)
        return dict(
            Counter(
                line.file
                for line in self.lines
                if line.origin == "wombat"
                and line.id not in found
                and (of_star := times.get(self._star(line.star)))
                and min(of_star) <= float(line.jd) <= max(of_star)
            )
        )

    def _star(self, name: str) -> str:
        return self._names.get(name.casefold(), name).casefold()


def _foreign(one: DownloadedLine, code: str, names: Mapping[str, str]) -> NewLine:
    """Return a line of another program, under the star's name in our reports where it has one."""
    star = names.get(one.star.casefold()) or names.get((one.auid or "").casefold()) or one.star
    sign = "<" if one.is_fainter_than else ""
    return NewLine(
        observer=code,
        star=star,
        band=one.band,
        jd=one.jd,
        content_hash="",
        line=f"{one.star},{one.jd},{sign}{one.magnitude}",
    )


def _told(line: LedgerLine) -> str:
    """Return MAG of a line that wombat wrote."""
    return line.line.split(",")[2]


def _agrees(line: LedgerLine, one: DownloadedLine) -> bool:
    told = _told(line)
    is_same = abs(float(told.removeprefix("<")) - float(one.magnitude)) <= one.resolution_mag + 1e-9
    return is_same and told.startswith("<") == one.is_fainter_than


def _at_aavso(one: DownloadedLine) -> str:
    return f"{'<' if one.is_fainter_than else ''}{one.magnitude}"


def _differing_words(line: LedgerLine, found: Sequence[DownloadedLine]) -> str:
    there = ", ".join(_at_aavso(one) for one in found)
    return (
        f"{line.star} {line.band} at JD {line.jd}: the AAVSO has {there},"
        f" {line.file} has {_told(line)}"
    )


def _twice_words(line: LedgerLine, found: Sequence[DownloadedLine]) -> str:
    there = ", ".join(_at_aavso(one) for one in found)
    return (
        f"{line.star} {line.band} at JD {line.jd} is there {len(found)} times ({there}),"
        f" {line.file} has {_told(line)}: delete the others at the AAVSO"
    )
