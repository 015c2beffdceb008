"""``wombat explain``: from a magnitude back to raw pixels. The facts are in `stages.lineage`."""

import json
from typing import TYPE_CHECKING

import click

from wombat_dagster.meant import the_one
from wombat_dagster.terminal import (
    Refused,
    console,
    count,
    printable,
    refuse_no_database,
    settings_in_force,
)

if TYPE_CHECKING:
    from rich.tree import Tree

    from wombat_dagster.stages.lineage_words import Section


@click.command()
@click.argument("observation", nargs=-1, required=True)
@click.option(
    "--frame", metavar="N|LABEL", help="One frame: by number, or part of its file's name."
)
@click.option("--verify", is_flag=True, help="Read raw frames and masters again, compare hashes.")
@click.option("--json", "as_json", is_flag=True, help="For programs: nested objects.")
def explain(observation: tuple[str, ...], frame: str | None, verify: bool, as_json: bool) -> None:
    """Show where the magnitudes of OBSERVATION come from, down to the raw pixels.

    OBSERVATION is a key like 20251015__TX_Eri__V, or NIGHT TARGET [FILTER]; any part may be
    shortened as long as one observation is meant. What is missing, damaged or has changed since
    stands behind an exclamation mark; nothing is written.
    """
    settings = settings_in_force()
    database = settings.path(settings.database)
    if not database.exists():
        raise Refused(f"nothing is known yet (no {database}): wombat run")
    refuse_no_database(database)
    from wombat_dagster.observatory import Observatory
    from wombat_dagster.remedies import remedy_of
    from wombat_dagster.stages.lineage import NoSuchFrame, lineage_of

    observatory = Observatory(settings)
    row = the_one(observatory.status.targets(), observation)
    said = remedy_of(row.proc, row.apphot, reason=row.reason, retired_utc=row.retired_utc)
    cause, remedy = (said.cause, said.remedy or None) if said else (None, None)
    try:
        found = lineage_of(observatory, row, frame=frame, verify=verify, cause=cause, remedy=remedy)
    except NoSuchFrame as error:
        raise Refused(printable(str(error))) from error
    if as_json:
        click.echo(json.dumps(found.as_object(), indent=1, ensure_ascii=False))
        return
    out = console()
    out.print(_tree(found))
    faults = found.all_faults()
    if faults:
        out.print(f"{count(len(faults), 'thing')} missing, damaged or changed: behind the !")


def _tree(section: "Section") -> "Tree":
    from rich.text import Text
    from rich.tree import Tree

    def grown(one: "Section", tree: Tree) -> Tree:
        for fault in one.faults:
            tree.add(Text(f"! {printable(fault)}", style="red"))
        for line in one.lines:
            tree.add(Text(printable(line)))
        for below in one.sections:
            grown(below, tree.add(Text(printable(below.title), style="bold")))
        return tree

    return grown(section, Tree(Text(printable(section.title), style="bold")))
