"""``wombat comps``: the chart stars of a target, what became of each, and what a person chose."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from wombat_dagster.terminal import Refused, console, count, open_in_force, printable, table_of

if TYPE_CHECKING:
    import datetime as dt

    from rich.table import Table

    from wombat_dagster.domain import CompStar, LedgerEntry
    from wombat_dagster.observatory import Observatory
    from wombat_dagster.store.status import TargetRow

MEASURED = ("validate", "held")
SHOWN_UNKNOWN = 5


@click.command()
@click.argument("target")
@click.option("--pin", multiple=True, metavar="AUID", help="Use it, whatever the window says.")
@click.option("--ban", multiple=True, metavar="AUID", help="Never use it.")
@click.option("--check", metavar="AUID", help="Make it the check star, T2.")
@click.option("--clear", multiple=True, metavar="AUID", help="Forget what was chosen for it.")
def comps(
    target: str, pin: tuple[str, ...], ban: tuple[str, ...], check: str | None,
    clear: tuple[str, ...],
) -> None:  # fmt: skip
    """List the chart's stars of TARGET: used as what, or why not; pin and ban them.

    A pinned star is used even outside the magnitude window, never when it is saturated or off the
    frame. Choices hold for every night of the target, until cleared; wombat.toml wins where it
    says otherwise. What was measured is measured again by the next wombat run, unless it has been
    approved or submitted.
    """
    observatory = open_in_force()
    rows = _rows(observatory, target)
    name = rows[-1].observation.target
    ledgers, words = _ledgers(observatory, rows)
    stars = _stars(observatory, rows, ledgers)
    if pin or ban or clear or check is not None:
        _change(observatory, rows, stars, ledgers, pin=pin, ban=ban, check=check, clear=clear)
    for line in words:
        console().print(printable(line))
    if not stars and not ledgers:
        raise Refused(f"no chart of {printable(name)} yet: wombat run asks for it")
    _show(observatory, name, stars, ledgers)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ledger:
    """What became of the chart's stars in the newest night of one filter."""

    filter: str
    date: "dt.date"
    chart_id: str
    band: str
    entries: "tuple[LedgerEntry, ...]"
    target_auid: str | None
    is_due: bool  # to be run again: a choice or the frames are newer


def _rows(observatory: "Observatory", target: str) -> "list[TargetRow]":
    """Return the rows of a target by date, whatever the case of its name; SV_Wom is SV Wom."""
    from wombat_dagster.domain import slug

    everything = observatory.status.targets()
    asked = target.casefold()
    rows = [r for r in everything if r.observation.target.casefold() == asked]
    rows = rows or [r for r in everything if slug(r.observation.target).casefold() == asked]
    names = sorted({r.observation.target for r in rows or everything}, key=str.casefold)
    there = ", ".join(map(printable, names)) or "none"
    if not rows:
        raise Refused(f'no target "{printable(target)}"; there are: {there}')
    if len({name.casefold() for name in names}) > 1:
        raise Refused(f'"{printable(target)}" may be each of {there}')
    return rows


def _ledgers(
    observatory: "Observatory", rows: "Sequence[TargetRow]"
) -> tuple[list[_Ledger], list[str]]:
    """Return each filter's newest ledger by the nights that were measured, and words on newer ones.

    What an observation that ended before has on disk may be of a run before its end.
    """
    from wombat_dagster.store.tables import UnreadableProduct

    found: dict[str, _Ledger] = {}
    words = []
    for row in reversed(rows):
        unit = row.observation
        if unit.filter in found:
            continue
        where = f"{unit.target} {unit.filter}, {unit.date}"
        if row.apphot not in MEASURED:
            state = row.apphot or row.proc or "not begun"
            words.append(f"{where}: {state}{f' – {row.reason}' if row.reason else ''}")
            continue
        try:
            found[unit.filter] = _ledger(observatory, row)
        except (FileNotFoundError, UnreadableProduct) as error:
            state = "gone" if isinstance(error, FileNotFoundError) else "damaged"
            words.append(f"{where}: its photometry.npz is {state}; {_made_anew_by(row)}")
    return sorted(found.values(), key=lambda ledger: ledger.filter), words


def _made_anew_by(row: "TargetRow") -> str:
    unit = row.observation
    return f"wombat run {unit.date:%Y%m%d} {shlex.quote(unit.target)} makes it anew"


def _ledger(observatory: "Observatory", row: "TargetRow") -> _Ledger:
    """Return the ledger of a measured night. Raises what `read_product` does."""
    from wombat_dagster.products import read_product

    observation = row.observation
    table = read_product(observatory, "photometry_table", observation.key)
    return _Ledger(
        filter=observation.filter,
        date=observation.date,
        chart_id=table.chart_id,
        band=table.comp_band,
        entries=tuple(table.ledger),
        target_auid=table.variable.auid,
        is_due=row.lights is None,
    )


def _stars(
    observatory: "Observatory", rows: "Sequence[TargetRow]", ledgers: Sequence[_Ledger]
) -> "dict[str, CompStar]":
    """Return the stars of the target's charts on disk, by AUID."""
    from wombat_dagster.stages.sequence import charts_on_disk

    charts = {ledger.chart_id for ledger in ledgers}
    place = None if charts else _place(observatory, rows)
    return {
        star.auid: star
        for chart in charts_on_disk(observatory, chart_ids=charts, place=place)
        for star in chart.stars
    }


def _place(observatory: "Observatory", rows: "Sequence[TargetRow]") -> tuple[float, float] | None:
    """Return where the variable is, by the newest night that found it; say which are damaged."""
    from wombat_dagster.products import read_product
    from wombat_dagster.store.tables import UnreadableProduct

    for row in reversed(rows):
        try:
            variable = read_product(observatory, "variable", row.observation.key)
        except FileNotFoundError:
            continue
        except UnreadableProduct:
            words = f"{row.observation.key}: its variable.json is damaged; {_made_anew_by(row)}"
            console(stderr=True).print(printable(words))
            continue
        return variable.ra_deg, variable.dec_deg
    return None


# ----------------------------------------------------------------------------------------- change


def _change(
    observatory: "Observatory",
    rows: "Sequence[TargetRow]",
    stars: "Mapping[str, CompStar]",
    ledgers: Sequence[_Ledger],
    *,
    pin: Sequence[str],
    ban: Sequence[str],
    check: str | None,
    clear: Sequence[str],
) -> None:
    from wombat_dagster.domain import Unused
    from wombat_dagster.stages.sequence import names_of
    from wombat_dagster.store.comp_choices import Choice, CompChoices

    name = rows[-1].observation.target
    asked = [(auid.strip().upper(), Choice.PIN) for auid in pin]
    asked += [(auid.strip().upper(), Choice.BAN) for auid in ban]
    asked += [(check.strip().upper(), Choice.CHECK)] if check is not None else []
    cleared = [auid.strip().upper() for auid in clear]
    mentioned = [auid for auid, _ in asked] + cleared
    if "" in mentioned:
        raise Refused("an empty AUID is no star: say 000-BBB-123")
    twice = sorted({auid for auid in mentioned if mentioned.count(auid) > 1})
    if twice:
        raise Refused(printable(f"{', '.join(twice)}: one choice a star"))
    itself = {e.auid for one in ledgers for e in one.entries if e.reason is Unused.IS_TARGET}
    itself |= {one.target_auid for one in ledgers if one.target_auid}
    for auid, _ in asked:
        if auid in itself:
            raise Refused(printable(f"{auid} is {name} itself, which is no comparison star"))
    choices, names = CompChoices(observatory.status.path), names_of(observatory, name)
    known = {*stars, *(entry.auid for ledger in ledgers for entry in ledger.entries)}
    unknown = [auid for auid, _ in asked if auid not in known]
    if unknown:
        raise Refused(printable(_unknown_words(unknown, name, known)))
    never_chosen = [auid for auid in cleared if auid not in choices.of(names)]
    if never_chosen:
        raise Refused(printable(f"nothing was chosen for {', '.join(never_chosen)}"))
    n_due = choices.change(names, choose=dict(asked), clear=cleared)
    for words in _overruled(observatory, name, asked):
        console(stderr=True).print(words)
    if warning := _all_banned(observatory, name, stars, ledgers):
        console(stderr=True).print(printable(warning))
    if n_due:
        due = f"{count(n_due, 'observation')} of {name}: to be run again by wombat run."
        console().print(printable(due))


def _all_banned(
    observatory: "Observatory",
    name: str,
    stars: "Mapping[str, CompStar]",
    ledgers: Sequence[_Ledger],
) -> str | None:
    """Return a warning when no star that could serve is left, by the newest ledgers."""
    from wombat_dagster.stages.sequence import persons_choices

    now = persons_choices(observatory, name)
    serving = {e.auid for one in ledgers for e in one.entries if e.role and e.role != "T1"}
    if not ledgers:
        serving = set(stars)
    if not serving or (serving | now.asked_for) - set(now.ban):
        return None
    return (
        f"Every star that served is banned ({len(serving)}): unless others come into the window, "
        "the next run ends with nocomps."
    )


def _unknown_words(unknown: Sequence[str], name: str, known: set[str]) -> str:
    words = f"{', '.join(unknown[:SHOWN_UNKNOWN])}: not on the chart of {name}"
    if not known:
        return f"{words}: there is none yet, wombat run asks for it"
    hint = f"wombat comps {shlex.quote(name)} lists them"
    return f"{words}, which has {count(len(known), 'star')}; {hint}"


def _overruled(
    observatory: "Observatory", name: str, asked: "Sequence[tuple[str, str]]"
) -> list[str]:
    """Return which choices wombat.toml overrules."""
    from wombat_dagster.stages.sequence import persons_choices
    from wombat_dagster.store.comp_choices import Choice

    now = persons_choices(observatory, name)
    serve = {Choice.PIN: now.pins, Choice.BAN: now.ban, Choice.CHECK: (now.check,)}
    return [
        f"{auid}: wombat.toml says otherwise, and wins"
        for auid, choice in asked
        if auid not in serve[Choice(choice)]
    ]


# ------------------------------------------------------------------------------------------- show


def _show(
    observatory: "Observatory",
    name: str,
    stars: "Mapping[str, CompStar]",
    ledgers: Sequence[_Ledger],
) -> None:
    out = console()
    chosen = _chosen(observatory, name)
    if not ledgers:
        out.print(printable(f"{name}: no measured night; the chart on disk:"))
        table = table_of("AUID", "label", "bands", "chosen", wide="bands")
        for star in sorted(stars.values(), key=lambda star: (star.label, star.auid)):
            bands = ", ".join(f"{band} {star.bands[band].mag:.3f}" for band in sorted(star.bands))
            cells = (star.auid, star.label, bands, chosen.get(star.auid, ""))
            table.add_row(*map(printable, cells))
        out.print(table)
    for ledger in ledgers:
        due = "; as it was measured, to be run again" if ledger.is_due else ""
        where = f"{name} {ledger.filter}, {ledger.date}, chart {ledger.chart_id}{due}"
        out.print(printable(where))
        out.print(_table(ledger, stars, chosen))


def _table(ledger: _Ledger, stars: "Mapping[str, CompStar]", chosen: Mapping[str, str]) -> "Table":
    headings = ("AUID", "label", ledger.band, "used as", "why", "chosen")
    table = table_of(*headings, wide="why")
    for entry in sorted(ledger.entries, key=_order):
        star = stars.get(entry.auid)
        magnitude = star.bands.get(ledger.band) if star else None
        error = "" if magnitude is None or magnitude.error_mag is None else magnitude.error_mag
        why = f"{entry.reason}: {entry.detail}" if entry.reason else entry.detail
        table.add_row(
            printable(entry.auid),
            printable(entry.label),
            f"{magnitude.mag:.3f} {f'± {error:.3f}' if error else ''}" if magnitude else "",
            entry.role or "",
            printable(why),
            chosen.get(entry.auid, ""),
        )
    return table


def _order(entry: "LedgerEntry") -> tuple[bool, int, str, str]:
    number = int(entry.role[1:]) if entry.role else 0
    return entry.role is None, number, str(entry.reason or ""), entry.auid


def _chosen(observatory: "Observatory", name: str) -> dict[str, str]:
    """Return what a person chose for each star, and where it says so."""
    from wombat_dagster.stages.sequence import names_of
    from wombat_dagster.store.comp_choices import CompChoices

    settings = observatory.settings.for_target(name)
    words = {
        auid: choice.value
        for auid, choice in CompChoices(observatory.status.path)
        .of(names_of(observatory, name))
        .items()
    }
    if settings is not None:
        words |= dict.fromkeys(settings.comps, "comp (wombat.toml)")
        words |= dict.fromkeys(settings.ban, "ban (wombat.toml)")
        words |= {settings.check: "check (wombat.toml)"} if settings.check else {}
    return words
