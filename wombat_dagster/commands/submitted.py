"""``wombat submitted``: what the person uploaded to the AAVSO, or took back there."""

from pathlib import PurePath
from typing import TYPE_CHECKING

import click

from wombat_dagster.terminal import Refused, console, count, open_in_force, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wombat_dagster.store.report_ledger import ReportLedger

MAX_FILES = 6


@click.command()
@click.argument("what", nargs=-1, required=True, metavar="FILE|OBSERVATION...")
@click.option(
    "--withdraw",
    is_flag=True,
    help="Never uploaded, or deleted at the AAVSO: the lines are new in the next report.",
)
def submitted(what: tuple[str, ...], withdraw: bool) -> None:
    """Say that reports were uploaded: wombat does not do so by itself.

    FILE is a report that wombat report wrote; OBSERVATION, a key like 20251015__TX_Eri__V or NIGHT
    TARGET [FILTER], means all that was written of it. A report that was withdrawn by mistake counts
    again. --withdraw takes the name of a download that wombat reconcile read as well.
    """
    observatory = open_in_force()
    from wombat_dagster.meant import those
    from wombat_dagster.stages.decisions import who_decides
    from wombat_dagster.store.decisions import Overtaken
    from wombat_dagster.store.report_ledger import ReportLedger

    ledger = ReportLedger(observatory.status.path)
    who = who_decides(observatory.settings)
    files, words = _files(ledger, what)
    rows = those(observatory.status.targets(), words) if words else []
    keys = [row.observation.key for row in rows]
    change, verb = (
        (ledger.withdraw, "withdrawn") if withdraw else (ledger.submit, "marked as submitted")
    )
    for name in (*files, *keys):
        try:
            n = change(file=name, who=who) if name in files else change(keys=[name], who=who)
        except (KeyError, Overtaken) as error:
            raise Refused(printable(error.args[0])) from error
        told = f"{count(n, 'line')} {verb}" if n else f"every line was {verb} before"
        console().print(printable(f"{name}: {told}"), soft_wrap=True)


def _files(ledger: "ReportLedger", what: "Sequence[str]") -> tuple[list[str], list[str]]:
    """Return the ledger's names of the files among `what`, and the other words."""
    known = ledger.all_files()
    files: list[str] = []
    words: list[str] = []
    for name in what:
        fits = [file for file in known if file == name] or [
            file for file in known if PurePath(file).name == PurePath(name).name
        ]
        if len(fits) > 1:
            raise Refused(printable(f"{name}: may be each of {', '.join(fits)}"))
        if not fits and ("/" in name or PurePath(name).suffix in (".txt", ".csv", ".tsv")):
            there = ", ".join(known[-MAX_FILES:]) or "none"
            raise Refused(
                printable(f"{name}: no report in the ledger is called so; the newest: {there}")
            )
        (files if fits else words).append(fits[0] if fits else name)
    return files, words
