"""``wombat reconcile``: what the AAVSO has of the observer, against the ledger."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from wombat_dagster.terminal import Refused, console, count, open_in_force, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wombat_dagster.stages.reconcile import Reconciled

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
MAX_TOLD = 10


@click.command()
@click.argument("file", type=FILE)
def reconcile(file: Path) -> None:
    """Take over from the AAVSO's download of your data what is there.

    FILE is what the AAVSO's data download gives, comma or tab between the columns, or the JSON of
    its observations. Lines of ours in it are marked as submitted; lines of yours that another
    program reported are remembered, so that wombat never reports them again.
    """
    observatory = open_in_force()
    from wombat_dagster.reports.aavso_download import UnreadableDownload
    from wombat_dagster.stages.decisions import Refusal, who_decides
    from wombat_dagster.stages.reconcile import reconcile as take_over

    content = file.read_bytes()
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")  # comments of observers; what counts is ASCII
    try:
        done = take_over(observatory, text, file=file.name, who=who_decides(observatory.settings))
    except (Refusal, UnreadableDownload) as refusal:
        raise Refused(printable(f"{file.name}: {refusal}")) from refusal
    _show(done)


def _show(done: "Reconciled") -> None:
    out = console()

    def say(words: str) -> None:
        out.print(printable(words), soft_wrap=True)

    def list_some(lead: str, lines: "Sequence[str]") -> None:
        for line in lines[:MAX_TOLD]:
            say(f"{lead}: {line}")
        if lines[MAX_TOLD:]:
            say(f"{lead}: {len(lines) - MAX_TOLD} more")

    say(
        f"{count(done.n_lines, 'line')} read: {done.n_submitted} of ours newly known to be there,"
        f" {done.n_known} known before; {done.n_foreign} reported by other programs remembered,"
        f" {done.n_foreign_known} known before."
    )
    for code, n in sorted(done.other_observers.items()):
        say(f"{count(n, 'line')} of observer {code}: not looked at")
    for key in done.submitted:
        say(f"{key}: submitted")
    for name, n in done.missing.items():
        say(f"{name}: {count(n, 'line')} not at the AAVSO")
    list_some("differs", done.differing)
    list_some("twice", done.twice)
    list_some("left out", done.left_out)
