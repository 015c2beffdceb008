"""The command ``wombat``.

Everything heavy is imported inside the commands: ``wombat --help`` must answer at once.
"""

import contextlib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wombat_dagster import progress
from wombat_dagster.commands.backfill import backfill
from wombat_dagster.commands.comps import comps
from wombat_dagster.commands.curve import curve
from wombat_dagster.commands.decide import approve, confirm, reject, restore, undo
from wombat_dagster.commands.events import events
from wombat_dagster.commands.explain import explain
from wombat_dagster.commands.inject import inject
from wombat_dagster.commands.lint import lint
from wombat_dagster.commands.reconcile import reconcile
from wombat_dagster.commands.report import report
from wombat_dagster.commands.retry import retry
from wombat_dagster.commands.review import review
from wombat_dagster.commands.run import run
from wombat_dagster.commands.status import status
from wombat_dagster.commands.submitted import submitted
from wombat_dagster.commands.transform import transform
from wombat_dagster.terminal import (
    CONFIG_ENV,
    UNREADABLE,
    Commands,
    Refused,
    console,
    count,
    in_one_line,
    open_in_force,
    printable,
    quoted,
    settings_in_force,
)

if TYPE_CHECKING:
    from rich.console import Console

    from wombat_dagster import doctor

STAND_IN_PORT = 8765


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Configuration file; default: $WOMBAT_CONFIG, else wombat.toml here.",
)
@click.option("-v", "--verbose", is_flag=True, help="Say more about what is being done.")
@click.version_option(package_name="wombat-dagster", prog_name="wombat")
def main(config_file: Path | None, verbose: bool) -> None:
    """Turn nights of raw frames into variable-star magnitudes for the AAVSO."""
    import logging

    if config_file is not None:
        os.environ[CONFIG_ENV] = str(config_file.absolute())
    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    logging.getLogger("wombat_dagster").setLevel(level)
    for handler in logging.getLogger().handlers:
        handler.setLevel(level)  # what a run writes into its own log says more


# --------------------------------------------------------------------------------------- config


@main.command("config")
def show_config() -> None:
    """Print the configuration in force; as a file it would load again."""
    from wombat_dagster.config import config_path
    from wombat_dagster.toml_text import toml_text

    settings = settings_in_force()
    file = config_path()
    source = f"from {file}" if file.exists() else f"all defaults: there is no {file}"
    click.echo(f"# The configuration in force, {source}.")
    click.echo(f"# Relative paths begin at {settings.base}")
    click.echo(toml_text(settings.model_dump(mode="json", exclude={"base"})), nl=False)


# ----------------------------------------------------------------------------- simulated worlds


@main.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--nights", type=click.IntRange(1, 60), default=2, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=1, show_default=True)
@click.option("--port", default=STAND_IN_PORT, show_default=True, help="Of the AAVSO stand-in.")
def simulate(directory: Path, nights: int, seed: int, port: int) -> None:
    """Write synthetic nights with known truth, and their wombat.toml, into DIRECTORY."""
    from wombat_dagster import demo

    try:
        with console(stderr=True).status(f"Simulating {count(nights, 'night')}…"):
            demo.write_world(directory, nights=nights, seed=seed, port=port)
    except OSError as error:
        raise Refused(str(error)) from error
    name = quoted(directory)
    click.echo(
        f"{count(nights, 'night')} in {directory / 'data'}, the truth in {directory / 'truth'}."
    )
    click.echo("In one terminal, in place of the AAVSO's services:")
    click.echo(f"  wombat stand-in {name}")
    click.echo("In another:")
    click.echo(f"  wombat --config {quoted(directory / 'wombat.toml')} run")


@main.command("stand-in")
@click.argument("directory", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--port", type=int, help="Default: the one that DIRECTORY's wombat.toml asks.")
def stand_in(directory: Path, port: int | None) -> None:
    """Serve VSX and VSP answers about a simulated DIRECTORY, until Ctrl-C."""
    from wombat_dagster import demo
    from wombat_dagster.simulate.aavso import StandInAavso

    answers = directory / "aavso" if (directory / "aavso").is_dir() else directory
    wanted = port or demo.stand_in_port(directory / "wombat.toml") or STAND_IN_PORT
    try:
        service = StandInAavso.from_directory(answers, port=wanted)
    except OSError as error:
        raise Refused(f"port {wanted}: {error.strerror}; another stand-in?") from error
    click.echo(f"VSX: {service.vsx_url}\nVSP: {service.vsp_url}")
    click.echo(f"Failures: http://127.0.0.1:{service.port}/control?service=vsp&fail=500 (or none)")
    with contextlib.suppress(KeyboardInterrupt):
        service.serve_forever()


# ---------------------------------------------------------------------------------- doctor and up


@main.command("doctor")
def examine() -> None:
    """Say what is missing on this machine and how to get it."""
    from wombat_dagster import doctor

    out = console()
    found = doctor.configuration(None, in_one_line)
    _print_finding(out, found)
    fatal = found.is_fatal
    if not fatal:
        for one in doctor.examine(settings_in_force()):
            _print_finding(out, one)
            fatal = fatal or one.is_fatal
    if fatal:
        sys.exit(UNREADABLE)


def _print_finding(out: "Console", finding: "doctor.Finding") -> None:
    from rich.table import Table
    from rich.text import Text

    colour = {"OK": "green", "WARN": "yellow", "MISSING": "red"}[finding.verdict]
    words = Text(printable(finding.words))
    if finding.remedy:
        words.append(f"\n→ {printable(finding.remedy)}", style="dim" if out.is_terminal else "")
    line = Table.grid(padding=(0, 1))
    line.add_column(width=7)
    line.add_column(width=14)
    line.add_column(overflow="fold")
    line.add_row(Text(finding.verdict, style=colour), finding.subject, words)
    out.print(line)


@main.command()
@click.option("--port", type=click.IntRange(1, 65535), default=3000, show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True, help="0.0.0.0: the whole network.")
def up(port: int, host: str) -> None:
    """Watch the data directory, serve Dagster's UI and the review page, until Ctrl-C."""
    observatory = open_in_force()
    base = observatory.settings.base
    progress.quieten_dagster()
    from wombat_dagster import orphans, processes, runs
    from wombat_dagster.review.address import is_loopback

    # Database and Dagster's storage are made before two processes would do it at once.
    runs.prepare_home(base)
    assert observatory.status.path.exists()
    with runs.home(base) as instance:
        instance.get_runs_count()

    review_port = observatory.settings.review.port

    def on_ready(url: str, page: str | None) -> None:
        click.echo(f"wombat is up: {url}   (Ctrl-C stops it; logs in {base / orphans.STATE})")
        if page is None:
            click.echo(f"No review page: port {review_port} is in use; set [review] port.")
        else:
            click.echo(f"Review and report: {page}")
        if not is_loopback(host):
            click.echo("Everybody who reaches this machine can use Dagster: it has no password.")

    click.echo("Starting…")
    try:
        processes.up(base, host=host, port=port, review_port=review_port, on_ready=on_ready)
    except processes.NotRunning as error:
        raise click.ClickException(str(error)) from error
    click.echo("Stopped.")


for command in (
    approve, backfill, comps, confirm, curve, events, explain, inject, lint, reconcile, reject,
    report, restore, retry, review, run, status, submitted, transform, undo,
):  # fmt: skip
    main.add_command(command)


if __name__ == "__main__":
    main()
