"""``wombat status``: every observation, how far it is, why no further, and what is to be done.

Nothing is written and nobody is asked: it reads the database and what is known of outages.
"""

import json
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wombat_dagster.terminal import (
    Refused,
    console,
    is_called,
    parse_nights,
    printable,
    refuse_no_database,
    settings_in_force,
)

if TYPE_CHECKING:
    from rich.console import Console

    from wombat_dagster.catalogs.breaker import Away
    from wombat_dagster.config import Settings
    from wombat_dagster.observatory import Observatory
    from wombat_dagster.remedies import Remedy
    from wombat_dagster.stages.work import Due
    from wombat_dagster.store.stage_runs import StageRun
    from wombat_dagster.store.status import TargetRow

COLUMNS = ("Night", "Target", "Filter", "Frames", "proc", "apphot", "Reason, masters, decision")
GAP = 2  # blanks between columns
MAX_NAME = 24  # cells of a column other than the last, beyond which it is folded
MIN_LAST = 36  # cells of the last column, below which it stands under the others
INDENT = 12
MAX_COMPARED = 20  # rows whose masters are chosen again, to say which are others now
NEW, FAILED, DUE, CHANGED = "new", "failed", "due", "changed"
SERVICES = {"vsxdown": "VSX", "novsp": "VSP"}
"""Which service an observation of that word waits for."""


@click.command()
@click.option("--nights", metavar="A..B", help="Only these nights: 20251001..20251031, A.., A.")
@click.option("--target", metavar="T", help="Only this target, whatever its case.")
@click.option(
    "--reason",
    "word",
    metavar="WORD",
    help="Only novsp, nocal, held, … or: new, failed, due, changed.",
)
@click.option("--all", "everything", is_flag=True, help="Also those whose frames are gone.")
@click.option("--json", "as_json", is_flag=True, help="For programs: a list of objects.")
def status(
    nights: str | None, target: str | None, word: str | None, everything: bool, as_json: bool
) -> None:
    """Show every observation: how far it is, and why no further.

    "due" is what the next run would take up, and why. With --json every observation, also a
    retired one, is an object with the columns of the table target and: word (apphot, else proc,
    else new), cause and remedy of that word, due (why, words, job), broken and night_broken (stages
    that failed or did not end: asset, ending, reason, run_id, begun_utc), waits_for (service,
    since_utc, next_try_utc, words), products and log (paths).
    """
    first, last = parse_nights(nights) if nights is not None else (None, None)
    if word is not None:
        _check_word(word)
    settings = settings_in_force()
    database = settings.path(settings.database)
    if not database.exists():
        click.echo("[]" if as_json else f"Nothing is known yet (no {database}): wombat run")
        return
    refuse_no_database(database)
    known = _everything(settings, database)
    wanted = [
        one
        for one in known.observations
        if (first is None or one.row.observation.date >= first)
        and (last is None or one.row.observation.date <= last)
        and (target is None or is_called(one.row.observation, target))
        and (word is None or one.matches(word))
    ]
    if target is not None and not any(
        is_called(one.row.observation, target) for one in known.observations
    ):
        names = sorted({one.row.observation.target for one in known.observations})
        there = ", ".join(map(printable, names)) or "none"
        raise Refused(f'no target "{printable(target)}"; there are: {there}')
    if as_json:
        click.echo(json.dumps([one.as_object() for one in wanted], indent=1, ensure_ascii=False))
        return
    shown = [one for one in wanted if everything or one.row.retired_utc is None]
    out = console()
    shown = _with_masters_now(shown, known.observatory)
    if shown:
        _print_table(out, shown)
    _print_beside(out, shown, known)
    _print_sums(out, shown, n_hidden=len(wanted) - len(shown), database=database)


# ------------------------------------------------------------------------------------ what is known


@dataclass(frozen=True, slots=True, kw_only=True)
class _Observation:
    """One row of the table `target`, and what else is known of it."""

    row: "TargetRow"
    due: "Due | None"
    broken: "tuple[StageRun, ...]"
    at_work: "StageRun | None"
    night_broken: "tuple[StageRun, ...]"
    no_masters: Mapping[str, str]  # why its night has none, by kind
    masters_now: tuple[str, ...] = ()  # that differ from those used, where that changed
    waits_for: "Away | None"
    products: Path

    @property
    def word(self) -> str:
        return self.row.apphot or self.row.proc or NEW

    @property
    def said(self) -> "Remedy | None":
        from wombat_dagster.remedies import remedy_of

        row = self.row
        return remedy_of(row.proc, row.apphot, reason=row.reason, retired_utc=row.retired_utc)

    @property
    def log(self) -> Path:
        return self.products / "log.txt"

    def matches(self, word: str) -> bool:
        row = self.row
        columns = {row.proc, row.apphot, row.submitted, row.proc_bias, row.proc_dark, row.proc_flat}
        return (
            word in columns
            or (word == NEW and self.word == NEW)
            or (word == FAILED and bool(self.broken or self.night_broken))
            or (word == DUE and self.due is not None)
            or (word == CHANGED and row.changed_since is not None)
        )

    def as_object(self) -> dict[str, Any]:
        row, unit = self.row, self.row.observation
        names = (
            "night", "proc_bias", "proc_flat", "proc_dark", "proc", "apphot", "submitted", "reason",
            "n_frames", "n_quarantined", "updated_utc", "changed_since", "retired_utc",
        )  # fmt: skip
        said, due, away = self.said, self.due, self.waits_for
        return {
            "date": unit.date.isoformat(),
            "target": unit.target,
            "filter": unit.filter,
            "key": unit.key,
            **{name: getattr(row, name) for name in names},
            "word": self.word,
            "cause": said.cause if said else None,
            "remedy": (said.remedy or None) if said else None,
            "due": {"why": due.why, "words": due.words, "job": due.job} if due else None,
            "broken": [_broken_object(one) for one in self.broken],
            "at_work": _broken_object(self.at_work) if self.at_work else None,
            "night_broken": [_broken_object(one) for one in self.night_broken],
            "waits_for": asdict(away) if away else None,
            "products": str(self.products),
            "log": str(self.log),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """All observations, and what is to be said beside them."""

    observations: tuple[_Observation, ...]
    at_work: "Mapping[str, StageRun]"  # nights, by key
    away: "tuple[Away, ...]"
    why_not_due: str | None  # why it is not known what is due
    observatory: "Observatory"


def _broken_object(one: "StageRun") -> dict[str, Any]:
    names = ("asset", "ending", "reason", "run_id", "begun_utc")
    return {name: getattr(one, name) for name in names}


def _everything(settings: "Settings", database: Path) -> _Known:
    from wombat_dagster.catalogs.breaker import away
    from wombat_dagster.observatory import Observatory
    from wombat_dagster.stages.lineage_words import is_at_work
    from wombat_dagster.store.stage_runs import StageRuns

    observatory = Observatory(settings)
    layout = observatory.layout
    latest = StageRuns(database).latest()
    broken, at_work = {}, {}
    for key, stages in latest.items():
        found = _broken(stages)
        if found and found[-1].ending is None and is_at_work(layout, key) is not False:
            at_work[key] = found[-1]
            found = found[:-1]
        if found:
            broken[key] = found
    due, why_not_due = _due(observatory, at_work)
    services = {name: away(layout.cache, name) for name in ("VSX", "VSP", "VizieR")}
    observations = []
    for row in observatory.status.targets():
        unit = row.observation
        night = f"{unit.date:%Y%m%d}"
        service = SERVICES.get(row.apphot or "")
        observations.append(
            _Observation(
                row=row,
                due=due.get(unit.key),
                broken=broken.get(unit.key, ()),
                at_work=at_work.get(unit.key),
                night_broken=broken.get(night, ()),
                no_masters=_no_masters(latest.get(night, {})),
                waits_for=services[service] if service else None,
                products=layout.observation_dir(unit),
            )
        )
    return _Known(
        observations=tuple(observations),
        at_work={key: one for key, one in at_work.items() if "__" not in key},
        away=tuple(one for one in services.values() if one is not None),
        why_not_due=why_not_due,
        observatory=observatory,
    )


def _with_masters_now(
    shown: Sequence[_Observation], observatory: "Observatory"
) -> list[_Observation]:
    """Return the rows with the masters that other ones are by now; of the first few such rows."""
    changed = [one for one in shown if one.row.changed_since and one.row.retired_utc is None]
    if not changed:
        return list(shown)
    from wombat_dagster.stages.library import available_masters
    from wombat_dagster.stages.lineage import masters_now

    try:
        available = available_masters(observatory)
        now = {
            one.row.observation.key: masters_now(observatory, one.row, available=available)
            for one in changed[:MAX_COMPARED]
        }
    except OSError:  # said where it is asked what is due
        return list(shown)
    return [replace(one, masters_now=tuple(now.get(one.row.observation.key, ()))) for one in shown]


def _no_masters(stages: "Mapping[str, StageRun]") -> dict[str, str]:
    """Return why a night has no master of its own, by kind, where its stage said so."""
    kinds = {"bias": "master_bias", "flat": "master_flats"}
    return {
        kind: one.reason
        for kind, asset in kinds.items()
        if (one := stages.get(asset)) is not None and one.is_shortfall and one.reason
    }


def _broken(stages: "Mapping[str, StageRun]") -> "tuple[StageRun, ...]":
    """Return what broke in the last run of a partition, in its order."""
    newest = max(stages.values(), key=lambda one: one.number)
    found = [one for one in stages.values() if one.is_broken and one.run_id == newest.run_id]
    return tuple(sorted(found, key=lambda one: one.number))


def _due(observatory: Any, at_work: Iterable[str]) -> "tuple[dict[str, Due], str | None]":
    """Return what is due by key, or why that is not known.

    Whether other masters make a difference is left to the runs: that takes time, and is written
    down once found out.
    """
    from wombat_dagster.stages.due import due_observations

    try:
        outlook = due_observations(observatory, busy=set(at_work), check_for_s=0.0)
    except OSError as error:  # a directory of masters or tables that cannot be read
        return {}, str(error)
    return {one.key: one for one in outlook.due}, None


# -------------------------------------------------------------------------------------- what to see


def _check_word(word: str) -> None:
    from wombat_dagster.domain import NOCAL, Apphot, Proc

    decisions = ("approved", "usrrej", "exported", "submitted")
    words = dict.fromkeys([*Proc, *Apphot, NOCAL, *decisions, NEW, FAILED, DUE, CHANGED])
    if word not in words:
        raise Refused(f'"{printable(word)}" is no status word: {", ".join(words)}')


def _details(one: _Observation) -> list[str]:
    row = one.row
    lines = [printable(row.reason)] if row.reason else []
    masters = {"bias": row.proc_bias, "dark": row.proc_dark, "flat": row.proc_flat}
    found = [f"{kind} {date}" for kind, date in masters.items() if date and date != "nocal"]
    lacking = [kind for kind in ("bias", "flat") if masters[kind] == "nocal"]
    if found:
        lines.append(", ".join(found))
    if lacking:
        lines.append(f"nocal: no matching {', no '.join(lacking)}")
        lines += [
            printable(f"{kind}s of the night: {one.no_masters[kind]}")
            for kind in lacking
            if kind in one.no_masters
        ]
    if row.submitted:
        lines.append(printable(row.submitted))
    if row.changed_since:
        others = f" ({', '.join(one.masters_now)})" if one.masters_now else ""
        lines.append(f"changed since: {printable(row.changed_since)}{others}")
    if row.retired_utc:
        lines.append(f"retired {row.retired_utc}: its frames are gone")
    return lines


def _more(one: _Observation) -> list[str]:
    lines = [_broken_words(stage, one.log) for stage in one.broken]
    if one.at_work is not None:
        lines.append(_at_work_words(one.at_work))
    if one.due is not None:
        lines.append(printable(f"due: {one.due.why}: {one.due.words}"))
    return lines


def _at_work_words(stage: "StageRun") -> str:
    from wombat_dagster.progress import STAGES

    doing = STAGES.get(stage.asset, stage.asset)
    return f"at work: {doing}, since {stage.begun_utc[:16].replace('T', ' ')} UTC"


def _broken_words(stage: "StageRun", log: Path) -> str:
    from wombat_dagster.stages.lineage_words import not_ended_words

    where = f"{log}; run {stage.run_id[:8]} in the UI"
    if stage.ending is None:
        return printable(f"{not_ended_words(stage, False)} ({where})")
    return printable(f"{stage.asset} failed {stage.ended_utc}: {stage.reason} ({where})")


def _print_table(out: "Console", shown: Sequence[_Observation]) -> None:
    cells = []
    before = None
    for one in shown:
        row, unit = one.row, one.row.observation
        cells.append(
            (
                unit.date.isoformat() if unit.date != before else "",
                printable(unit.target),
                printable(unit.filter),
                f"{row.n_frames}" + (f" −{row.n_quarantined}" if row.n_quarantined else ""),
                row.proc or "–",
                row.apphot or "–",
                "\n".join([*_details(one), *_more(one)]) or "–",
            )
        )
        before = unit.date
    click.echo("\n".join(_laid_out(COLUMNS, cells, width=out.width)))


def _laid_out(
    headings: tuple[str, ...], rows: Sequence[tuple[str, ...]], *, width: int
) -> list[str]:
    """Return a table as lines: what does not fit is folded, never cut.

    The last column takes what is left; where that is little it stands below the others. Rich's own
    tables take half a millisecond a row, which thousands of rows are too many for.
    """
    from rich.cells import cell_len

    texts = [headings, *rows]
    wide = [min(MAX_NAME, max(cell_len(row[i]) for row in texts)) for i in range(len(headings) - 1)]
    last = width - sum(wide) - GAP * len(wide)
    is_below = last < MIN_LAST

    def lines_of(row: tuple[str, ...]) -> Iterator[str]:
        beside = row[:-1] if is_below else row
        columns = wide if is_below else [*wide, last]
        folded = [_folded(cell, n) for cell, n in zip(beside, columns, strict=True)]
        for parts in zip_longest(*folded, fillvalue=""):
            padded = (
                part + " " * (n - cell_len(part) + GAP)
                for part, n in zip(parts, columns, strict=True)
            )
            yield "".join(padded).rstrip()
        if is_below:
            yield from (" " * INDENT + line for line in _folded(row[-1], width - INDENT))

    rule = (" " * GAP).join("─" * n for n in (wide if is_below else (*wide, MIN_LAST)))
    return [*lines_of(headings), rule, *(line for row in rows for line in lines_of(row))]


def _folded(text: str, width: int) -> list[str]:
    if len(text) <= width and "\n" not in text:
        return [text]
    lines = []
    for paragraph in text.split("\n"):
        lines += textwrap.wrap(paragraph, width, break_on_hyphens=False) or [""]
    return lines


def _print_beside(out: "Console", shown: Sequence[_Observation], known: _Known) -> None:
    """Print what concerns more than one observation: nights that broke, services, the words."""
    from wombat_dagster.doubts import doubts_in_words

    nights = {stage.key: one.night_broken for one in shown for stage in one.night_broken[:1]}
    for key, stages in nights.items():
        log = known.observatory.layout.night_products_dir(key) / "log.txt"
        for stage in stages:
            out.print(f"Night {key}: {_broken_words(stage, log)}")
    dates = {f"{one.row.observation.date:%Y%m%d}" for one in shown}
    for key, stage in known.at_work.items():
        if key in dates:
            out.print(f"Night {key}: {_at_work_words(stage)}")
    keys = [one.row.observation.key for one in shown if one.row.retired_utc is None]
    for line in doubts_in_words(known.observatory, keys):
        out.print(printable(line))
    for service in known.away:
        out.print(printable(service.sentence()))
    due = Counter(one.due.why for one in shown if one.due is not None)
    if due:
        words = ", ".join(f"{n:,} {why}" for why, n in due.most_common())
        out.print(f"Due now ({due.total():,}): {words}. → wombat run; by itself under wombat up")
    if known.why_not_due:
        out.print(printable(f"What is due is not known: {known.why_not_due}"))
    for word, said in _remedies(shown):
        out.print(f"{word}: {said.cause}. → {said.remedy}")


def _remedies(shown: Sequence[_Observation]) -> "list[tuple[str, Remedy]]":
    """Return what helps against the words met, in the order of the stages."""
    from wombat_dagster.remedies import REMEDIES

    met: dict[str, dict[Remedy, None]] = {}
    for one in shown:
        row = one.row
        if row.retired_utc is not None:
            words = ["retired"]
        else:
            nocal = "nocal" in (row.proc_bias, row.proc_flat)
            words = [one.word, *["partial"] * (row.proc == "partial"), *["nocal"] * nocal]
        for word in words:
            said = one.said if word in (one.word, "retired") else REMEDIES[word]
            if said is not None and said.remedy and word != "validate":
                met.setdefault(word, {})[said] = None
    order = [*REMEDIES, "retired"]
    return [(word, said) for word in sorted(met, key=order.index) for said in met[word]]


def _print_sums(
    out: "Console", shown: Sequence[_Observation], *, n_hidden: int, database: Path
) -> None:
    words = Counter(one.word for one in shown)
    nights = len({one.row.observation.date for one in shown})
    sums = ", ".join(f"{n:,} {printable(word)}" for word, n in words.most_common())
    line = f"{_count(len(shown), 'observation')} in {_count(nights, 'night')}"
    line += f": {sums}" if sums else ""
    for n, what in (
        (sum(one.at_work is not None for one in shown), "at work"),
        (sum(bool(one.broken) for one in shown), "failed or did not end"),
        (sum(one.row.changed_since is not None for one in shown), "changed since decided"),
        (n_hidden, "retired and hidden (--all)"),
    ):
        line += f"; {n:,} {what}" if n else ""
    if refused := sum(one.row.n_quarantined for one in shown):
        where = f"frames.html beside the products, or {database.name}, table frame"
        line += f"; {_count(refused, 'quarantined light frame')} (why: {where})"
    out.print(f"{line}.")


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"
