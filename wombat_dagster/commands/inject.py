"""``wombat inject``: stars of known magnitude through the whole road, into copies of raw frames."""

import contextlib
import math
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wombat_dagster.terminal import (
    CONFIG_ENV,
    Refused,
    console,
    count,
    open_in_force,
    parse_night,
    printable,
    table_of,
)

if TYPE_CHECKING:
    from wombat_dagster.config import Settings
    from wombat_dagster.domain import Observation
    from wombat_dagster.injection import Bin
    from wombat_dagster.observatory import Observatory

CONFIG_NAME = "wombat.toml"
BRIGHTEST_MAG, FAINTEST_MAG = -5.0, 25.0  # of a star that anybody would inject
CHILD_PATIENCE_S = 10.0  # with a run that was told to end


class MagRange(click.ParamType[tuple[float, float]]):
    """Two magnitudes, the brighter one first: ``11:15``."""

    name = "A:B"

    def convert(
        self,
        value: str | tuple[float, float],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> tuple[float, float]:
        """Return the two numbers of `value`."""
        if isinstance(value, tuple):
            return value
        try:
            bright, faint = (float(part) for part in value.split(":"))
        except ValueError:
            self.fail(f"{value!r} is not two magnitudes: say 11:15", param, ctx)
        if not all(BRIGHTEST_MAG <= mag <= FAINTEST_MAG for mag in (bright, faint)):
            words = f"magnitudes are from {BRIGHTEST_MAG:g} to {FAINTEST_MAG:g}"
            self.fail(f"{value}: {words}", param, ctx)
        if not bright < faint:
            self.fail(f"{value}: the brighter one comes first", param, ctx)
        return bright, faint


@click.command()
@click.argument("night")
@click.argument("target")
@click.option("--filter", "filter_name", help="Only this one; default: all of the night.")
@click.option("--stars", default=10, show_default=True, type=click.IntRange(1, 200))
@click.option(
    "--mag-range", type=MagRange(), help="In the first filter; default: from the brightest comp."
)
@click.option("--seed", default=1, show_default=True, type=click.IntRange(0))
@click.option(
    "--keep",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Leave the frames with the stars and their products there.",
)
def inject(
    night: str,
    target: str,
    filter_name: str | None,
    stars: int,
    mag_range: tuple[float, float] | None,
    seed: int,
    keep: Path | None,
) -> None:
    """Put stars of known magnitude into NIGHT's frames of TARGET and measure them.

    The raw frames are copied, the real ones only read; the copies go through the same road as
    `wombat run`, with the AAVSO's answers of the cache. Printed is recovered less injected by
    magnitude; every star and frame goes to injection.csv among the products.
    """
    observatory = open_in_force()
    from wombat_dagster import injection
    from wombat_dagster.domain import Shortfall
    from wombat_dagster.store.frames import UnreadableFrame

    observations = _observations(observatory, night, target, filter_name)
    file = observatory.layout.product_path(observations[0], "injection.csv")
    try:
        filters = injection.finished_filters(observatory, observations)
        _refuse_unwritable(file)
        with (
            _ended_by_signals(),
            _place(keep) as root,
            console(stderr=True).status("Injecting…") as status,
        ):
            scratch = _scratch(root, injection.scratch_settings(observatory.settings, root))
            chosen = injection.choose_stars(
                observatory, filters, n_stars=stars, mag_range=mag_range, seed=seed
            )
            injection.copy_world(observatory, filters, scratch)
            injection.inject(observatory, filters, chosen, data=scratch.layout.data, seed=seed)
            status.update("Running the road on the copies…")
            _run_road(root)
            status.update("Measuring the stars…")
            recovered = injection.recover(scratch, filters, chosen)
    except (injection.NotFinished, UnreadableFrame, Shortfall) as reason:
        raise Refused(printable(str(reason))) from reason
    _write(file, injection.as_csv(recovered))
    _print_bins(injection.bins(recovered))
    console().print(
        f"{count(stars, 'star')} on {count(sum(len(f.table.labels) for f in filters), 'frame')}, "
        f"recovered less injected; every point in {file}."
    )
    if keep is not None:
        console().print(f"Frames and products of the copies: {keep}.")


def _observations(
    observatory: "Observatory", night: str, target: str, filter_name: str | None
) -> "list[Observation]":
    date = parse_night(night)
    rows = [row.observation for row in observatory.status.targets() if row.observation.date == date]
    mine = [one for one in rows if one.target.casefold() == target.casefold()]
    if not mine:
        there = ", ".join(sorted({one.target for one in rows})) or "nothing"
        raise Refused(f'no target "{printable(target)}" on {date}; there: {there}')
    if filter_name is None:
        return mine
    chosen = [one for one in mine if one.filter.casefold() == filter_name.casefold()]
    if not chosen:
        there = ", ".join(one.filter for one in mine)
        raise Refused(
            f'no filter "{printable(filter_name)}" on {date} of {printable(target)}; there: {there}'
        )
    return chosen


@contextlib.contextmanager
def _place(keep: Path | None) -> Iterator[Path]:
    """Give the directory to work in: `keep`, which must be new or empty, or one that goes away."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="wombat_inject_") as folder:
            yield Path(folder)
        return
    try:
        keep.mkdir(parents=True, exist_ok=True)
        is_empty = not any(keep.iterdir())
        with tempfile.TemporaryFile(dir=keep):  # may we write there?
            pass
    except OSError as error:
        raise Refused(f"--keep {keep}: {error.strerror or error}") from error
    if not is_empty:
        raise Refused(f"{keep} is not empty")
    yield keep.absolute()


def _refuse_unwritable(file: Path) -> None:
    """Refuse before the long run what could not be written after it."""
    try:
        with tempfile.TemporaryFile(dir=file.parent):
            pass
    except OSError as error:
        raise Refused(f"{file} cannot be written: {error.strerror or error}") from error
    if file.is_dir():
        raise Refused(f"{file} cannot be written: a directory is there")


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Make SIGTERM and SIGHUP what Ctrl-C is: the copies, and the run on them, must go away."""
    before = {
        number: handler
        for number in (signal.SIGTERM, signal.SIGHUP)
        if (handler := signal.getsignal(number)) is not signal.SIG_IGN  # nohup
    }

    def interrupt(_number: int, _frame: object) -> None:
        for number in before:  # clearing away is not to be interrupted again
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    for number in before:
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _scratch(root: Path, settings: "Settings") -> "Observatory":
    """Write `settings` below `root` and return the observatory they make."""
    from wombat_dagster.observatory import open_observatory
    from wombat_dagster.toml_text import toml_text

    file = root / CONFIG_NAME
    values = settings.model_dump(mode="json", exclude={"base"})
    file.write_text(toml_text(values), encoding="utf-8")
    return open_observatory(file)


def _run_road(root: Path) -> None:
    """Run `wombat run` on the scratch world, as a program of its own."""
    environment = {k: v for k, v in os.environ.items() if k not in (CONFIG_ENV, "DAGSTER_HOME")}
    child = subprocess.Popen(
        [sys.executable, "-m", "wombat_dagster.cli", "--config", str(root / CONFIG_NAME), "run"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    try:
        out, error = child.communicate()
    finally:
        _end(child)
    if child.returncode:
        lines = (error or out).strip().splitlines() or ["nothing was said"]
        raise click.ClickException(
            f"the run on the copies ended with {child.returncode}: {printable(lines[-1])}"
        )


def _end(child: "subprocess.Popen[str]") -> None:
    """End a child that still runs: it is asked, then killed."""
    if child.poll() is not None:
        return
    child.terminate()
    try:
        child.wait(timeout=CHILD_PATIENCE_S)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _write(file: Path, text: str) -> None:
    from wombat_dagster.store.frames import write_bytes_atomic

    try:
        write_bytes_atomic(file, text.encode())
    except OSError as error:  # the disk is full by now
        raise Refused(f"{file} cannot be written: {error.strerror or error}") from error


def _print_bins(bins: "tuple[Bin, ...]") -> None:
    table = table_of(
        "Filter", "Magnitude", "Stars", "Points", "Lost", "Offset mmag", "Scatter mmag",
        "Stated mmag", "Pull",
    )  # fmt: skip
    for one in bins:
        table.add_row(
            one.filter,
            f"{one.bright_mag:.1f}–{one.faint_mag:.1f}",
            str(one.n_stars),
            str(one.n_points),
            str(one.n_lost),
            f"{_number(1000 * one.offset_mag, '+.1f')} ± {_number(1000 * one.offset_error_mag)}"
            if one.n_points
            else "–",
            _number(1000 * one.scatter_mag),
            _number(1000 * one.stated_mag),
            _number(one.pull, ".2f"),
        )
    console().print(table)


def _number(value: float, form: str = ".1f") -> str:
    return "–" if math.isnan(value) else f"{value:{form}}"
