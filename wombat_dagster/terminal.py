"""What the commands share: refusals, the settings in force, tables on the terminal.

Nothing heavy is imported at the top: ``wombat --help`` must answer at once.
"""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    import datetime as dt

    from rich.console import Console
    from rich.table import Table

    from wombat_dagster import config
    from wombat_dagster.domain import Observation
    from wombat_dagster.observatory import Observatory

CONFIG_ENV = "WOMBAT_CONFIG"  # config.CONFIG_ENV, whose module costs too much for --help
UNREADABLE = 2  # exit code for what the person can mend: configuration, names, directories
WIDTH_WITHOUT_TERMINAL = 160


class Refused(click.ClickException):
    """Something that the person can mend, said in one line."""

    exit_code = UNREADABLE


class Commands(click.Group):
    """A group of commands that end with one line where a database's disk has no room."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except Exception as error:
            from wombat_dagster.config import config_path
            from wombat_dagster.store.disks import DiskFull, database_full

            beside_config = config_path().absolute().parent / "Dagster's databases"
            cause: BaseException | None = error  # SQLAlchemy's, of SQLite's own
            while cause is not None:
                full = cause if isinstance(cause, DiskFull) else database_full(cause, beside_config)
                if full is not None:
                    raise Refused(f"{full.strerror}; make room and run it again") from error
                cause = cause.__cause__ or cause.__context__
            raise


@contextlib.contextmanager
def configured_by(file: Path) -> Iterator[None]:
    """Make `file` the configuration in force, as --config does, for a while."""
    before = os.environ.get(CONFIG_ENV)
    os.environ[CONFIG_ENV] = str(file.absolute())
    try:
        yield
    finally:
        if before is None:
            del os.environ[CONFIG_ENV]
        else:
            os.environ[CONFIG_ENV] = before


def settings_in_force() -> "config.Settings":
    """Return the settings; refuse a broken configuration in one line."""
    from wombat_dagster import config

    try:
        return config.load()
    except (OSError, ValueError) as error:  # a ValidationError and a TOMLDecodeError are values'
        raise Refused(in_one_line(error)) from error


def in_one_line(error: Exception) -> str:
    """Return what is wrong with the configuration file."""
    from pydantic import ValidationError

    from wombat_dagster.config import config_path

    if isinstance(error, FileNotFoundError):
        return str(error)
    if not isinstance(error, ValidationError):
        return f"{config_path()}: {error}"
    words = []
    for problem in error.errors(include_url=False):
        key = ".".join(str(part) for part in problem["loc"]) or "the file"
        unknown = problem["type"] == "extra_forbidden"
        words.append(f"{key}: {'no such key' if unknown else problem['msg']}")
    return f"{config_path()}: {'; '.join(words)}"


def open_in_force() -> "Observatory":
    """Return the observatory of the settings in force; refuse when there is no data directory."""
    settings = settings_in_force()
    data = settings.path(settings.data)
    if not data.is_dir():
        raise Refused(f"no data directory {data}; wombat doctor says more")
    refuse_no_database(settings.path(settings.database))
    from wombat_dagster.observatory import open_observatory

    return open_observatory()


def refuse_no_database(file: Path) -> None:
    """Refuse what stands where the database should be and is none; its absence is no fault."""
    import sqlite3

    if not file.exists():
        return
    try:
        with contextlib.closing(sqlite3.connect(file)) as connection:
            connection.execute("SELECT count(*) FROM sqlite_master")
    except sqlite3.OperationalError as error:  # not to be opened, or locked
        raise Refused(f"{file}: {error}") from error
    except sqlite3.DatabaseError as error:
        backups = sorted(file.parent.glob(f"{file.name}.*.backup"))
        remedy = (
            f"restore the newest *.backup, {backups[-1].name}"
            if backups
            else ("there is no *.backup of it: move it away, and wombat run begins a new one")
        )
        raise Refused(f"{file} is no SQLite database ({error}); {remedy}") from error


def console(*, stderr: bool = False) -> "Console":
    """Return where tables are written: names from disk are never taken for markup."""
    from rich.console import Console

    out = Console(stderr=stderr, markup=False, highlight=False, emoji=False)
    if not out.is_terminal and "COLUMNS" not in os.environ:
        out.width = WIDTH_WITHOUT_TERMINAL
    return out


def table_of(*headings: str, wide: str = "") -> "Table":
    """Return an empty table; what does not fit is wrapped, never cut. `wide` takes the rest."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for heading in headings:
        table.add_column(heading, overflow="fold", ratio=1 if heading == wide else None)
    return table


def printable(text: str) -> str:
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def count(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def parse_night(text: str) -> "dt.date":
    """Return the date of a night said as 20251015 or 2025-10-15, or by its directory's name."""
    from wombat_dagster.store.layout import parse_night_date

    date = parse_night_date(text)
    if date is None:
        raise Refused(f'"{text}" is no night: say 20251015 or 2025-10-15')
    return date


def parse_nights(text: str) -> "tuple[dt.date | None, dt.date | None]":
    """Return the first and the last night of ``A..B``, ``A..``, ``..B`` or ``A``."""
    begin, dots, end = text.partition("..")
    if not begin and not end:
        raise Refused(f'"{printable(text)}" are no nights: say 20251001..20251031')
    first = parse_night(begin) if begin else None
    last = parse_night(end) if end else None
    if not dots:
        return first, first
    if first and last and first > last:
        raise Refused(f"--nights {text}: {last} comes before {first}")
    return first, last


def is_called(observation: "Observation", name: str) -> bool:
    """Tell whether a person means this target: by its name or as its key spells it."""
    slug = observation.key.split("__")[1]
    return name.casefold() in (observation.target.casefold(), slug.casefold())


def quoted(path: Path) -> str:
    import shlex

    return shlex.quote(str(path))
