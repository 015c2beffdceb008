"""``wombat inject``: stars of known magnitude through the whole road, into copies of raw frames."""

import contextlib
import os
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
        if not bright <= faint:
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

    observations = _observations(observatory, night, target, filter_name)
    try:
        filters = injection.finished_filters(observatory, observations)
        with _place(keep) as root, console(stderr=True).status("Injecting…") as status:
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
    except injection.NotFinished as reason:
        raise Refused(str(reason)) from reason
    except ValueError as reason:  # frames compressed inside the file
        raise Refused(str(reason)) from reason
    file = observatory.layout.product_path(observations[0], "injection.csv")
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
        raise Refused(f'no target "{target}" on {date}; there: {there}')
    if filter_name is None:
        return mine
    chosen = [one for one in mine if one.filter.casefold() == filter_name.casefold()]
    if not chosen:
        there = ", ".join(one.filter for one in mine)
        raise Refused(f'no filter "{filter_name}" on {date} of {target}; there: {there}')
    return chosen


@contextlib.contextmanager
def _place(keep: Path | None) -> Iterator[Path]:
    """Give the directory to work in: `keep`, which must be new or empty, or one that goes away."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="wombat_inject_") as folder:
            yield Path(folder)
        return
    if keep.exists() and any(keep.iterdir()):
        raise Refused(f"{keep} is not empty")
    keep.mkdir(parents=True, exist_ok=True)
    yield keep.absolute()


def _scratch(root: Path, settings: "Settings") -> "Observatory":
    """Write `settings` below `root` and return the observatory they make."""
    from wombat_dagster.cli import toml_text
    from wombat_dagster.observatory import open_observatory

    file = root / CONFIG_NAME
    values = settings.model_dump(mode="json", exclude={"base"})
    file.write_text(toml_text(values), encoding="utf-8")
    return open_observatory(file)


def _run_road(root: Path) -> None:
    """Run `wombat run` on the scratch world, as a program of its own."""
    environment = {k: v for k, v in os.environ.items() if k not in (CONFIG_ENV, "DAGSTER_HOME")}
    done = subprocess.run(
        [sys.executable, "-m", "wombat_dagster.cli", "--config", str(root / CONFIG_NAME), "run"],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    if done.returncode:
        said = printable((done.stderr or done.stdout).strip().splitlines()[-1])
        raise click.ClickException(f"the run on the copies ended with {done.returncode}: {said}")


def _write(file: Path, text: str) -> None:
    from wombat_dagster.store.frames import write_bytes_atomic

    write_bytes_atomic(file, text.encode())


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
            f"{1000 * one.offset_mag:+.1f} ± {1000 * one.offset_error_mag:.1f}",
            f"{1000 * one.scatter_mag:.1f}",
            f"{1000 * one.stated_mag:.1f}",
            f"{one.pull:.2f}",
        )
    console().print(table)
