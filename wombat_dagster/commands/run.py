"""``wombat run``: what is due, or a night, or a target in it."""

import sys
from typing import TYPE_CHECKING

import click

from wombat_dagster import progress
from wombat_dagster.terminal import Refused, console, open_in_force, parse_night

if TYPE_CHECKING:
    from collections.abc import Collection

    from wombat_dagster.observatory import Observatory
    from wombat_dagster.runs import Plan


@click.command()
@click.argument("night", required=False)
@click.argument("target", required=False)
@click.option("--dry-run", is_flag=True, help="Say what would be done and why; write nothing.")
def run(night: str | None, target: str | None, dry_run: bool) -> None:
    """Process what is due, or all of NIGHT, or TARGET in NIGHT.

    Due is what is new, was interrupted or failed, and what other frames, masters, settings, charts
    or choices make different by now. A second run finds nothing to do. What you have decided on
    (submitted) is made again only when NIGHT is given.
    """
    observatory = open_in_force()
    from wombat_dagster import runs

    date = parse_night(night) if night else None
    if dry_run:
        with runs.rehearsal(observatory.settings) as rehearsed:
            with console(stderr=True).status("Looking at the data directory…"):
                planned = runs.plan(rehearsed, night=date, target=target)
            _check_found(rehearsed, planned, night, target)
            progress.show_plan(rehearsed, planned)
        return

    def plan(busy: "Collection[str]") -> "Plan":
        if date is None:
            return runs.plan_due(observatory, runs.Scope(), busy=busy)
        planned = runs.plan(observatory, night=date, target=target)
        _check_found(observatory, planned, night, target)
        return planned

    sys.exit(progress.carry_out(observatory, plan))


def _check_found(
    observatory: "Observatory", planned: "Plan", night: str | None, target: str | None
) -> None:
    known = observatory.status.night_keys()
    if night and not planned.nights:
        nights = ", ".join(known[-5:]) or "none"
        raise Refused(
            f"no night {night} with lights in {observatory.layout.data}; the newest: {nights}"
        )
    if target and not planned.observations:
        targets = {
            row.observation.target
            for row in observatory.status.targets()
            if f"{row.observation.date:%Y%m%d}" in planned.nights
        }
        raise Refused(f'no target "{target}" in {night}; there: {", ".join(sorted(targets))}')
