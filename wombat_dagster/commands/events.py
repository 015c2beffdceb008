"""``wombat events``: what stands out, and what is to come."""

from typing import TYPE_CHECKING

import click

from wombat_dagster.terminal import (
    Refused,
    console,
    count,
    open_in_force,
    printable,
    table_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wombat_dagster.stages.events import Outlook
    from wombat_dagster.store.events import Event


@click.command()
@click.option(
    "--all", "is_all", is_flag=True, help="Those that you have seen or that are over, too."
)
@click.option("--json", "is_json", is_flag=True, help="For programs.")
@click.option("--seen", "is_seen", is_flag=True, help="From now on what is shown counts as seen.")
def events(is_all: bool, is_json: bool, is_seen: bool) -> None:
    """Show stars brighter or fainter than ever, and the eclipses ahead.

    The eclipses are looked for now; what [events] command was not told yet it is told.
    """
    observatory = open_in_force()
    database = observatory.settings.path(observatory.settings.database)
    if not database.exists():
        raise Refused(f"nothing is known yet (no {database}): wombat run")
    import datetime as dt

    from wombat_dagster.stages.events import look
    from wombat_dagster.store.events import Events

    outlook = look(observatory)
    kept = Events(observatory.status.path)
    now = dt.datetime.now(dt.UTC)
    found = kept.all()
    shown = [e for e in found if is_all or not (e.seen_utc or e.is_past(now))]
    if is_json:
        _print_json(shown, outlook)
    else:
        _print_table(shown, outlook, n_others=len(found) - len(shown))
    if is_seen:
        kept.mark_seen([event.id for event in shown], now)


def _print_json(shown: "Sequence[Event]", outlook: "Outlook") -> None:
    import dataclasses
    import json

    content = {
        "events": [dataclasses.asdict(event) for event in shown],
        "not_foretold": list(outlook.not_foretold),
    }
    click.echo(json.dumps(content, indent=1))


def _print_table(shown: "Sequence[Event]", outlook: "Outlook", *, n_others: int) -> None:
    out = console()
    if shown:
        table = table_of("Found (UTC)", "What", "Observation", wide="What")
        for event in shown:
            found = f"{event.made_utc[:16].replace('T', ' ')}{'' if event.seen_utc else ' *'}"
            table.add_row(found, printable(event.words), printable(event.key))
        out.print(table)
        out.print("* not seen yet (--seen).")
    else:
        out.print("Nothing new.")
    if n_others:
        out.print(f"{count(n_others, 'event')} seen or over: --all.")
    for words in outlook.not_foretold:
        out.print(f"Not foretold: {printable(words)}")
