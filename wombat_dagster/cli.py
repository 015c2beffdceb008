"""The command ``wombat``.

Everything heavy is imported inside the commands: ``wombat --help`` must answer at once.
"""

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wombat_dagster.commands.comps import comps
from wombat_dagster.commands.curve import curve
from wombat_dagster.commands.inject import inject
from wombat_dagster.commands.transform import transform
from wombat_dagster.terminal import (
    CONFIG_ENV,
    UNREADABLE,
    Refused,
    console,
    count,
    in_one_line,
    open_in_force,
    parse_night,
    printable,
    quoted,
    refuse_no_database,
    settings_in_force,
    table_of,
)

if TYPE_CHECKING:
    from rich.console import Console

    from wombat_dagster import doctor, runs
    from wombat_dagster.domain import RawFrame
    from wombat_dagster.observatory import Observatory
    from wombat_dagster.store.status import TargetRow

OURS = 1  # exit code for failures of wombat itself
STAND_IN_PORT = 8765
CALIBRATIONS_WEIGH = 5.0  # a night's masters take about as long as so many light frames
STAGES = {
    "raw_frames": "sorting frames",
    "master_bias": "master bias",
    "master_darks": "master darks",
    "master_flats": "master flats",
    "bad_pixels": "bad pixels",
    "detector_noise": "detector",
    "calibration_choice": "choosing masters",
    "reduced_frames": "reducing",
    "wcs_solutions": "plate solving",
    "variable": "looking up the variable",
    "comp_list": "choosing comparison stars",
    "photometry_table": "measuring",
    "standard_magnitudes": "standard magnitudes",
    "light_curve": "light curve",
    "diagnostics": "pictures",
}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
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
    logging.basicConfig(format="%(levelname)s %(name)s: %(message)s", level=logging.WARNING)
    logging.getLogger("wombat_dagster").setLevel(logging.INFO if verbose else logging.WARNING)


# ------------------------------------------------------------------------------------------ run


@main.command()
@click.argument("night", required=False)
@click.argument("target", required=False)
@click.option("--dry-run", is_flag=True, help="Say what would be done; write nothing.")
def run(night: str | None, target: str | None, dry_run: bool) -> None:
    """Process what is not finished, or all of NIGHT, or TARGET in NIGHT.

    All nights' masters are made before the first observation.
    """
    observatory = open_in_force()
    from wombat_dagster import runs

    date = parse_night(night) if night else None
    with contextlib.ExitStack() as stack:
        if dry_run:
            observatory = stack.enter_context(runs.rehearsal(observatory.settings))
        with console(stderr=True).status("Looking at the data directory…"):
            planned = runs.plan(observatory, night=date, target=target)
        _check_found(observatory, planned, night, target)
        if dry_run:
            _show_plan(observatory, planned)
            return
        sys.exit(carry_out(observatory, planned))


@main.command()
@click.option("--reason", "word", required=True, metavar="WORD", help="novsp, nocomps, nowcs, …")
def retry(word: str) -> None:
    """Run exactly the observations again whose proc or apphot is WORD."""
    observatory = open_in_force()
    from wombat_dagster import runs
    from wombat_dagster.domain import Apphot, Proc

    words = dict.fromkeys([*(w.value for w in Apphot), *(w.value for w in Proc)])
    if word not in words:
        raise Refused(f'"{word}" is no status word: {", ".join(words)}')
    planned = runs.with_word(observatory, word)
    if not planned.observations:
        console().print(f"No observation is {word}.")
        return
    sys.exit(carry_out(observatory, planned))


def _check_found(
    observatory: "Observatory", planned: "runs.Plan", night: str | None, target: str | None
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


def _show_plan(observatory: "Observatory", planned: "runs.Plan") -> None:
    """Print what a run would do, and which flats it would move."""
    from collections import Counter

    from wombat_dagster.store.layout import parse_night_date

    out = console()
    nights = table_of("Night", "Masters from", wide="Masters from")
    mixed: list[str] = []
    for key in planned.nights:
        date = parse_night_date(key)
        assert date is not None
        frames = observatory.status.night_frames(date)
        mixed += _mixed_flats(frames)
        counts = Counter(
            f"{frame.kind} {frame.filter or ''}".strip()
            for frame in frames
            if frame.kind != "light" and not frame.reason
        )
        words = ", ".join(f"{n} {kind}" for kind, n in sorted(counts.items()))
        nights.add_row(date.isoformat(), words or "nothing of its own")
    out.print(nights)
    n = len(planned.observations)
    if n:
        _print_statuses(out, planned.observations)
    if mixed and observatory.settings.calibration.organise_flats == "move":
        out.print(f"Flats would be sorted by filter in {', '.join(mixed)}.")
    nights_and_more = f"{count(len(planned.nights), 'night')}, {count(n, 'observation')}"
    out.print(f"Dry run: {nights_and_more}; nothing was written.")


def _mixed_flats(frames: Iterable["RawFrame"]) -> list[str]:
    """Return the directories with flats of more than one filter."""
    filters: dict[str, set[str]] = {}
    for frame in frames:
        if frame.kind == "flat" and frame.filter:
            filters.setdefault(frame.path.rpartition("/")[0], set()).add(frame.filter)
    return [directory for directory, found in filters.items() if len(found) > 1]


def carry_out(observatory: "Observatory", planned: "runs.Plan") -> int:
    """Run a plan with a progress bar, print how it ended and return the exit code."""
    from wombat_dagster import runs

    if not planned.nights and not planned.observations:
        console().print("Nothing to do.")
        return 0
    _quieten_dagster()
    with runs.home(observatory.settings.base) as instance:
        runs.register(instance, observatory)
        with progress_of(planned) as (on_step, on_done):
            done = runs.execute(instance, planned, on_step=on_step, on_done=on_done)
    _print_endings(observatory, planned, done)
    return OURS if any(one.error for one in done) else 0


def _quieten_dagster() -> None:
    """Leave the terminal to us: Dagster's own record of the runs is in its event log."""
    import logging

    for name in ("dagster", "alembic", "httpx", "matplotlib"):
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("wombat_dagster.runs").setLevel(logging.CRITICAL)  # in our table


@contextlib.contextmanager
def progress_of(
    planned: "runs.Plan",
) -> Iterator[tuple[Callable[[str, str], None], Callable[["runs.Done"], None]]]:
    """Show a plan's progress with the time left; give the two listeners of `runs.execute`.

    A unit weighs as many light frames as it has. Without a terminal each end is one line.
    """
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
    from rich.progress import TimeRemainingColumn as TimeLeft

    from wombat_dagster.jobs import NIGHT_ASSETS, OBSERVATION_ASSETS

    weights = dict.fromkeys(planned.nights, CALIBRATIONS_WEIGH)
    weights |= {r.observation.key: CALIBRATIONS_WEIGH + r.n_frames for r in planned.observations}
    order, ahead = list(weights), set(weights)
    starts = {key: sum(weights[k] for k in order[:i]) for i, key in enumerate(order)}
    out = console(stderr=True)
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeLeft(),
        console=out,
        expand=True,
        transient=True,
        speed_estimate_period=24 * 3600.0,
    )
    task = bar.add_task("starting", total=sum(weights.values()))

    def on_step(key: str, asset: str) -> None:
        stages = OBSERVATION_ASSETS if asset in OBSERVATION_ASSETS else NIGHT_ASSETS
        words = STAGES.get(asset, asset)
        if key not in ahead:  # standard magnitudes once more, with another filter's colour
            bar.update(task, description=f"{key}: {words}, once more")
            return
        share = stages.index(asset) / len(stages)
        place = f"{order.index(key) + 1}/{len(order)}"
        bar.update(
            task,
            description=f"{place} {key}: {words}",
            completed=starts[key] + share * weights[key],
        )

    def on_done(done: "runs.Done") -> None:
        place = "+"  # not planned: masters made in this run reopened it
        if done.key in starts:
            place = f"{order.index(done.key) + 1}/{len(order)}"
            bar.update(task, completed=starts[done.key] + weights[done.key])
        ahead.discard(done.key)
        if not out.is_terminal:
            ending = "failed" if done.error else "done"
            out.print(f"{place} {done.key}: {ending}")

    if not out.is_terminal:
        yield on_step, on_done
        return
    with bar:
        yield on_step, on_done


def _print_endings(
    observatory: "Observatory", planned: "runs.Plan", done: Sequence["runs.Done"]
) -> None:
    """Print done, parked by reason, and failed with where to look."""
    out = console()
    failed = {one.key: one for one in done if one.error}
    anew = {one.key for one in done if one.only_magnitudes}
    keys = {one.key for one in done if not one.only_magnitudes} - set(planned.nights)
    rows = [
        row for row in observatory.status.targets() if row.observation.key in keys - failed.keys()
    ]
    again = [
        row for row in observatory.status.targets() if row.observation.key in anew - failed.keys()
    ]
    if rows or again:
        table = table_of("Ended", "Night", "Target", "Filter", "Frames", "Why", wide="Why")
        for row in sorted([*rows, *again], key=lambda r: (_word(r) != "validate", _word(r))):
            table.add_row(_word(row), *_unit(row), str(row.n_frames), printable(row.reason or ""))
        out.print(table)
    if failed:
        table = table_of("Failed", "What went wrong", "Run", wide="What went wrong")
        for one in failed.values():
            table.add_row(one.key, printable(one.error or ""), one.run_id[:8])
        out.print(table)
        out.print("Tracebacks: wombat up, then Runs in the UI, by the beginning of the run's id.")
    waiting = sum(_word(row) == "validate" for row in rows)
    words = [f"{waiting} of {count(len(keys), 'observation')} waiting for validation"]
    if not keys:
        words = [] if anew else ["No observation is unfinished"]
    words += [f"magnitudes made anew: {count(len(again), 'observation')}"][: bool(again)]
    words += [f"{len(rows) - waiting} ended before, for the reasons above"][: len(rows) > waiting]
    words += [f"{len(failed)} failed in wombat itself"][: bool(failed)]
    out.print("; ".join(words) + ".")
    if waiting or again:
        out.print(f"Light curves and tables: {observatory.layout.products}")


def _word(row: "TargetRow") -> str:
    return row.apphot or row.proc or "new"


def _unit(row: "TargetRow") -> tuple[str, str, str]:
    unit = row.observation
    return unit.date.isoformat(), printable(unit.target), printable(unit.filter)


# --------------------------------------------------------------------------------------- status


@main.command()
@click.option("--json", "as_json", is_flag=True, help="For programs: a list of objects.")
def status(as_json: bool) -> None:
    """Show every observation: how far it is, and why no further."""
    settings = settings_in_force()
    database = settings.path(settings.database)
    if not database.exists():
        click.echo("[]" if as_json else f"Nothing is known yet (no {database}): wombat run")
        return
    refuse_no_database(database)
    from wombat_dagster.store.status import StatusDatabase

    rows = StatusDatabase(database).targets()
    if as_json:
        click.echo(json.dumps([_as_object(row) for row in rows], indent=1, ensure_ascii=False))
        return
    out = console()
    _print_statuses(out, rows)
    nights = len({row.observation.date for row in rows})
    words = f"{count(len(rows), 'observation')} in {count(nights, 'night')}"
    refused = sum(row.n_quarantined for row in rows)
    if refused:
        words += (
            f"; {count(refused, 'quarantined light frame')} (why: {database.name}, table frame)"
        )
    out.print(words + ".")


def _print_statuses(out: "Console", rows: Iterable["TargetRow"]) -> None:
    table = table_of(
        "Night", "Target", "Filter", "Frames", "proc", "apphot", "Reason, masters, decision",
        wide="Reason, masters, decision",
    )  # fmt: skip
    before = ""
    for row in rows:
        night, target, filter = _unit(row)
        frames = f"{row.n_frames}" + (f" −{row.n_quarantined}" if row.n_quarantined else "")
        table.add_row(
            night if night != before else "",
            target,
            filter,
            frames,
            row.proc or "–",
            row.apphot or "–",
            "\n".join(_details(row)) or "–",
        )
        before = night
    out.print(table)


def _details(row: "TargetRow") -> list[str]:
    lines = [printable(row.reason)] if row.reason else []
    masters = {"bias": row.proc_bias, "dark": row.proc_dark, "flat": row.proc_flat}
    found = [f"{kind} {date}" for kind, date in masters.items() if date and date != "nocal"]
    lacking = [kind for kind in ("bias", "flat") if masters[kind] == "nocal"]
    if found:
        lines.append(", ".join(found))
    if lacking:
        lines.append(f"nocal: no matching {', no '.join(lacking)}")
    if row.submitted:
        lines.append(row.submitted)
    return lines


def _as_object(row: "TargetRow") -> dict[str, Any]:
    unit = row.observation
    names = (
        "night", "proc_bias", "proc_flat", "proc_dark", "proc", "apphot", "submitted", "reason",
        "n_frames", "n_quarantined", "updated_utc",
    )  # fmt: skip
    return {
        "date": unit.date.isoformat(),
        "target": unit.target,
        "filter": unit.filter,
        "key": unit.key,
        **{name: getattr(row, name) for name in names},
    }


# --------------------------------------------------------------------------------------- config


@main.command("config")
def show_config() -> None:
    """Print the configuration in force; as a file it would load again."""
    from wombat_dagster.config import config_path

    settings = settings_in_force()
    file = config_path()
    source = f"from {file}" if file.exists() else f"all defaults: there is no {file}"
    click.echo(f"# The configuration in force, {source}.")
    click.echo(f"# Relative paths begin at {settings.base}")
    click.echo(toml_text(settings.model_dump(mode="json", exclude={"base"})), nl=False)


def toml_text(values: Mapping[str, Any]) -> str:
    """Return TOML for keys, tables and arrays of tables; what is None is named in a comment."""
    plain, tables = [], []
    for key, value in values.items():
        if isinstance(value, Mapping):
            tables.append(f"\n[{key}]\n{_toml_keys(value)}")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            tables += [f"\n[[{key}]]\n{_toml_keys(item)}" for item in value]
        elif value != []:  # an empty array and an empty array of tables look the same
            plain.append(_toml_keys({key: value}))
    return "".join(plain + tables)


def _toml_keys(values: Mapping[str, Any]) -> str:
    return "".join(
        f"# {key} is not set\n" if value is None else f"{_toml_key(key)} = {_toml_value(value)}\n"
        for key, value in values.items()
    )


def _toml_key(key: str) -> str:
    is_bare = key.isascii() and key.replace("-", "").replace("_", "").isalnum()
    return key if is_bare else _toml_value(key)


def _toml_value(value: Any) -> str:
    if isinstance(value, Mapping):
        items = [f"{_toml_key(k)} = {_toml_value(v)}" for k, v in value.items()]
        return f"{{ {', '.join(items)} }}" if items else "{}"
    if isinstance(value, list):
        return f"[{', '.join(map(_toml_value, value))}]"
    # JSON's other values are TOML's, but for DEL, which TOML wants escaped.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


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
    """Watch the data directory and serve Dagster's UI, until Ctrl-C."""
    observatory = open_in_force()
    base = observatory.settings.base
    _quieten_dagster()
    from wombat_dagster import processes, runs

    # Database and Dagster's storage are made before two processes would do it at once.
    runs.prepare_home(base)
    assert observatory.status.path.exists()
    with runs.home(base) as instance:
        instance.get_runs_count()

    def on_ready(url: str) -> None:
        click.echo(f"wombat is up: {url}   (Ctrl-C stops it; logs in {base / processes.STATE})")
        if host not in ("127.0.0.1", "localhost", "::1"):
            click.echo("Everybody who reaches this machine can use it: there is no password.")

    click.echo("Starting…")
    try:
        processes.up(base, host=host, port=port, on_ready=on_ready)
    except processes.NotRunning as error:
        raise click.ClickException(str(error)) from error
    click.echo("Stopped.")


for command in (comps, curve, inject, transform):
    main.add_command(command)


if __name__ == "__main__":
    main()
