"""``wombat report``: files for the AAVSO, of what was approved and not reported yet."""

import json
import sys
from typing import TYPE_CHECKING

import click

from wombat_dagster.terminal import (
    UNREADABLE,
    Refused,
    console,
    count,
    is_called,
    open_in_force,
    parse_night,
    printable,
    quoted,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wombat_dagster.stages.report import Exported, ObservationReport
    from wombat_dagster.store.status import TargetRow

MAX_TOLD = 5  # points of a kind, by observation


@click.command()
@click.argument("what", nargs=-1, metavar="[KEY... | NIGHT [TARGET]]")
@click.option("--amendments", is_flag=True, help="Also lines that changed, in files of their own.")
@click.option("--dry-run", is_flag=True, help="Check and say what would be written; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
def report(what: tuple[str, ...], amendments: bool, dry_run: bool, as_json: bool) -> None:
    """Write what you approved, and was not reported yet, into files for the AAVSO.

    All of it, or of observations: keys like 20251015__TX_Eri__V, or NIGHT and TARGET. Lines that
    were reported are never written again; where they changed since, they are named, and written
    with --amendments. A file that does not pass wombat lint is not written. wombat uploads nothing:
    you do, and say so with wombat submitted.
    """
    observatory = open_in_force()
    from wombat_dagster.stages.decisions import Refusal, who_decides
    from wombat_dagster.stages.report import export

    keys = _keys(observatory.status.targets(), what) if what else None
    try:
        done = export(
            observatory,
            keys,
            who=who_decides(observatory.settings),
            amendments=amendments,
            dry_run=dry_run,
        )
    except Refusal as refusal:
        raise Refused(printable(str(refusal))) from refusal
    if as_json:
        click.echo(json.dumps(_for_programs(done), indent=1))
    else:
        _show(done, amendments=amendments)
    if done.refused:
        sys.exit(UNREADABLE)


def _keys(rows: "Sequence[TargetRow]", what: "Sequence[str]") -> list[str]:
    """Return the keys that are meant; of a night those that have magnitudes or a decision."""
    if all("__" in word for word in what):
        from wombat_dagster.meant import those

        return [row.observation.key for row in those(rows, what)]
    if len(what) > 2:
        raise Refused(f'"{printable(" ".join(what))}": say keys, or NIGHT [TARGET]')
    date = parse_night(what[0])
    of_night = [row for row in rows if row.observation.date == date]
    if not of_night:
        raise Refused(f"no observation of {date:%Y%m%d} is known")
    if what[1:]:
        of_night = [row for row in of_night if is_called(row.observation, what[1])]
        if not of_night:
            raise Refused(f'no target "{printable(what[1])}" in {date:%Y%m%d}')
    return [
        row.observation.key
        for row in of_night
        if what[1:] or row.submitted or row.apphot in ("validate", "held")
    ]


def _show(done: "Exported", *, amendments: bool) -> None:
    out = console()

    def say(words: str) -> None:
        out.print(printable(words), soft_wrap=True)

    for note in done.notes:
        say(note)
    for one in done.observations:
        for words in _words(one, amendments=amendments):
            say(f"{one.key}: {words}")
    for file in done.files:
        what = "amended line" if file.is_amended else "line"
        verb = "would be written" if done.is_dry_run else "written"
        say(
            f"{count(file.n_lines, what)} of {count(len(file.keys), 'observation')} {verb}:"
            f" {quoted(file.path)}"
        )
        rules = dict.fromkeys(warning.rule for warning in file.warnings)
        for rule in rules:
            own = [warning for warning in file.warnings if warning.rule == rule]
            more = f" (and {len(own) - 1} more)" if own[1:] else ""
            say(f"  warning, {rule}, line {own[0].line_number or '-'}: {own[0].words}{more}")
    _say_what_next(say, done, amendments=amendments)


def _say_what_next(say: "Callable[[str], None]", done: "Exported", *, amendments: bool) -> None:
    from wombat_dagster.stages.report import UPLOAD_URL

    if not done.observations and not done.n_settled:
        say("Nothing is approved yet: wombat review shows what waits, wombat approve takes it.")
    elif not done.files and not done.refused:
        n = sum(one.n_at_aavso for one in done.observations)
        why = f" {count(n, 'line')} at the AAVSO from elsewhere already." if n else ""
        say(f"Nothing new to report.{why}")
    n_amended = sum(one.n_amended for one in done.observations)
    if n_amended and not amendments:
        say(
            f"{count(n_amended, 'line')} changed since reported: --amendments writes"
            f" {'it' if n_amended == 1 else 'them'}."
        )
    if done.files and not done.is_dry_run:
        names = " ".join(file.path.name for file in done.files)
        say(f"Upload at {UPLOAD_URL}, then say: wombat submitted {names}")
        if any(file.is_amended for file in done.files):
            say("Delete at the AAVSO the lines that the amended ones replace: it keeps both.")


def _words(one: "ObservationReport", *, amendments: bool) -> list[str]:
    """Return what is to be said of one observation; nothing when there is nothing new."""
    words = [f"not reported: {why}" for why in one.refused]
    if one.refused and not one.n_amended and not one.gone:
        return words
    if one.n_new and not one.refused:
        parts = [f"{one.n_new} new"]
        parts += [f"{one.n_same} reported before"] if one.n_same else []
        parts += [f"{one.n_at_aavso} at the AAVSO from elsewhere"] if one.n_at_aavso else []
        parts += [f"{one.n_not_reported} left out"] if one.n_not_reported else []
        words.append(", ".join(parts))
    words += one.nearby
    amended = "amended" if amendments else "changed since reported"
    for told, points in ((amended, one.amended), ("", one.gone), ("left out", one.clashes)):
        lead = f"{told}: " if told else ""
        words += [f"{lead}{point}" for point in points[:MAX_TOLD]]
        if points[MAX_TOLD:]:
            words.append(f"{lead}and {len(points) - MAX_TOLD} more like the last")
    return words


def _for_programs(done: "Exported") -> dict[str, object]:
    from dataclasses import asdict

    from wombat_dagster.stages.report import UPLOAD_URL

    return {
        "is_dry_run": done.is_dry_run,
        "files": [
            {
                "path": str(file.path),
                "keys": file.keys,
                "n_lines": file.n_lines,
                "is_amended": file.is_amended,
                "warnings": [asdict(warning) for warning in file.warnings],
            }
            for file in done.files
        ],
        "observations": [asdict(one) for one in done.observations],
        "errors": [asdict(one) for one in done.findings],
        "n_settled": done.n_settled,
        "notes": done.notes,
        "upload_url": UPLOAD_URL,
    }
