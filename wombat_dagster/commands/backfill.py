"""``wombat backfill``: what is due of many nights, by several processes."""

import sys
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

import click

from wombat_dagster import progress
from wombat_dagster.terminal import Refused, console, open_in_force, parse_nights

if TYPE_CHECKING:
    from wombat_dagster.observatory import Observatory
    from wombat_dagster.runs import Plan, Scope


@click.command()
@click.option("--nights", metavar="A..B", help="From night A to night B; A.., ..B or one night.")
@click.option("--target", help="Only this target's observations.")
@click.option("--stage", metavar="S", help="Make again, from stage S on, whatever reached it.")
@click.option(
    "--workers", type=click.IntRange(1), help="Processes; default: one a core, at most 4."
)
@click.option("--dry-run", is_flag=True, help="Say what would be done and why; write nothing.")
def backfill(
    nights: str | None, target: str | None, stage: str | None, workers: int | None, dry_run: bool
) -> None:
    """Process what is due of many nights, with several processes.

    Without --stage this is the work of wombat run, within the nights and the target: a second time
    it finds nothing to do, and after an interruption the same command goes on. What fails in wombat
    itself is tried once more at the end.

    With --stage S everything in the range that came as far as S is made again from there on, due or
    not, what you have decided on too: for when you changed something that wombat cannot see. S is
    a stage's name in Dagster (photometry_table) or in the progress bar ("measuring"). After a stage
    of the nights (master_flats), whatever the new masters make due follows.
    """
    observatory = open_in_force()
    from wombat_dagster import runs
    from wombat_dagster.workers import default_number

    first, last = parse_nights(nights) if nights is not None else (None, None)
    scope = runs.Scope(first=first, last=last, target=target)
    plan_of = _planner(scope, None if stage is None else _stage(stage))
    if dry_run:
        with runs.rehearsal(observatory.settings) as rehearsed:
            with console(stderr=True).status("Looking at the data directory…"):
                planned = plan_of(rehearsed, ())
            _check_found(rehearsed, scope)
            progress.show_plan(rehearsed, planned)
        return

    def plan(busy: Collection[str]) -> "Plan":
        planned = plan_of(observatory, busy)
        _check_found(observatory, scope)
        return planned

    n_workers = workers or default_number()
    sys.exit(progress.carry_out(observatory, plan, n_workers=n_workers))


def _planner(scope: "Scope", stage: str | None) -> "Callable[[Observatory, Collection[str]], Plan]":
    from wombat_dagster import runs

    def plan(observatory: "Observatory", busy: Collection[str]) -> "Plan":
        if stage is None:
            return runs.plan_due(observatory, scope, busy=busy)
        return runs.from_stage(observatory, scope, stage)

    return plan


def _stage(text: str) -> str:
    """Return the asset that a person means by its name or by its words in the progress bar."""
    names = {words.casefold(): asset for asset, words in progress.STAGES.items()}
    names |= {asset: asset for asset in progress.STAGES}
    found = names.get(text.casefold())
    from wombat_dagster.jobs import NIGHT_ASSETS, OBSERVATION_ASSETS

    if found not in (*NIGHT_ASSETS, *OBSERVATION_ASSETS):
        stages = ", ".join((*NIGHT_ASSETS, *OBSERVATION_ASSETS))
        raise Refused(f'"{text}" is no stage: {stages}')
    return found


def _check_found(observatory: "Observatory", scope: "Scope") -> None:
    rows = [row.observation for row in observatory.status.targets()]
    if scope.target is not None and not any(scope.has(one) for one in rows):
        there = sorted({one.target for one in rows if scope.has_night(one.date)})
        raise Refused(f'no target "{scope.target}" in these nights; there: {", ".join(there)}')
    if not any(scope.has_night(one.date) for one in rows):
        known = ", ".join(observatory.status.night_keys()[-5:]) or "none"
        raise Refused(f"no such night in {observatory.layout.data}; the newest: {known}")
