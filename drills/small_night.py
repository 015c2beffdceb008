"""A small simulated night to do harm to, and what it has to look like afterwards.

Two filters, 4 frames of 320x256 each, 5 biases, 4 flats a filter, the AAVSO's stand-in. What the
drills share: making places to run in, running ``wombat run`` in a forked child, looking whether
disk and database are whole, and comparing two places.
"""

import contextlib
import datetime as dt
import hashlib
import io
import json
import os
import re
import shutil
import signal
import sqlite3
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np

from wombat_dagster import cli
from wombat_dagster.config import CONFIG_NAME
from wombat_dagster.observatory import open_observatory
from wombat_dagster.products import PRODUCTS, read_product
from wombat_dagster.simulate.aavso import StandInAavso
from wombat_dagster.simulate.astap_database import write_astap_database
from wombat_dagster.simulate.night import simulate_night
from wombat_dagster.simulate.sky import Telescope, random_field, star_table, write_star_table_csv
from wombat_dagster.simulate.world import SITE, write_aavso_answers
from wombat_dagster.store.frames import (
    array_hash,
    provenance_hash,
    read_image,
    read_master,
    read_reduced,
)
from wombat_dagster.store.layout import is_raw_name

FIRST_NIGHT = dt.date(2025, 10, 14)
FILTERS = ("B", "V")
EXPOSURE_S = {"B": 90.0, "V": 60.0}
TOML = """\
[site]
latitude_deg = {latitude}
longitude_deg = {longitude}
elevation_m = {elevation}
[solve]
star_table = {stars}
[astap]
{astap}
[aavso]
vsx_urls = [{vsx}]
vsp_urls = [{vsp}]
min_interval_s = 0.0
retries = 0
"""
OF_THE_CLOCK = re.compile(r"(_utc|_at|seconds)$")
"""Fields that say when, or how long: no two runs agree in them."""
UNCAUGHT = 70  # exit code of a child that ended by an exception
LITTER = re.compile(r"\.tmp$|\.tmp\.fits$|\.part$|^wombat_|^\.scratch$")


# ---------------------------------------------------------------------------------- places to run


@dataclass(frozen=True, slots=True, kw_only=True)
class Sky:
    """The raw frames, which no drill writes to, and what the services know."""

    root: Path

    @property
    def data(self) -> Path:
        return self.root / "data"


def simulate(root: Path, *, nights: int = 1, n_lights: int = 4) -> Sky:
    """Write `nights` nights; biases are in the first only, as observers do."""
    telescope = Telescope(width_px=320, height_px=256)
    stars = random_field(3, telescope=telescope, n_stars=150, n_comps=12)
    for night in range(nights):
        simulate_night(
            root,
            field=stars,
            telescope=telescope,
            site=SITE,
            date=FIRST_NIGHT + dt.timedelta(days=night),
            seed=5 + night,
            filters=FILTERS,
            n_lights=n_lights,
            n_bias=5 if night == 0 else 0,
            n_flats=4,
            exposure_s=EXPOSURE_S,
            cadence_s=400.0,
        )
    write_star_table_csv(stars, root / "stars.csv")
    table = star_table(stars)
    write_astap_database(
        root / "astap",
        table.ra_deg,
        table.dec_deg,
        table.mag,
        field=(stars.ra_deg, stars.dec_deg, 1.0),
    )
    write_aavso_answers(stars, root / "aavso")
    return Sky(root=root)


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """Where VSX and VSP are to be found."""

    vsx_url: str
    vsp_url: str


@contextlib.contextmanager
def serving(sky: Sky) -> Iterator[Services]:
    """Serve VSX and VSP from a process of their own: who forks must have no threads."""
    reading, writing = os.pipe()
    process = os.fork()
    if not process:
        try:
            with StandInAavso.from_directory(sky.root / "aavso") as service:
                os.write(writing, json.dumps([service.vsx_url, service.vsp_url]).encode())
                signal.pause()
        finally:
            os._exit(0)
    try:
        vsx_url, vsp_url = json.loads(os.read(reading, 4096))
        yield Services(vsx_url=vsx_url, vsp_url=vsp_url)
    finally:
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
        os.close(reading)
        os.close(writing)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A directory with a configuration and frames of its own."""

    root: Path
    database: Path

    @property
    def config(self) -> Path:
        return self.root / CONFIG_NAME

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def products(self) -> Path:
        return self.root / "products"

    @property
    def scratch(self) -> Path:
        """What the run takes for /tmp."""
        return self.root / "tmp"


def prepare(
    root: Path,
    sky: Sky,
    services: Services,
    *,
    database: str = "wombatpipeline.db",
    astap: str = "",
    tail: str = "",
) -> Place:
    """Make a place with a copy of the raw frames; `astap` and `tail` are lines of wombat.toml."""
    place = Place(root=root, database=root / database)
    shutil.copytree(sky.data, place.data)
    place.scratch.mkdir(exist_ok=True)
    text = f"database = {json.dumps(database)}\n{TOML}"
    text = text.format(
        latitude=SITE.latitude_deg,
        longitude=SITE.longitude_deg,
        elevation=SITE.elevation_m,
        stars=json.dumps(str(sky.root / "stars.csv")),
        astap=astap or f"database = {json.dumps(str(sky.root / 'astap'))}",
        vsx=json.dumps(services.vsx_url),
        vsp=json.dumps(services.vsp_url),
    )
    place.config.write_text(f"{text}{tail}\n", encoding="utf-8")
    return place


# --------------------------------------------------------------------------------------- running


@dataclass(slots=True)
class Child:
    """A forked ``wombat run``: leads its own group; what it prints is in `log`."""

    process: int
    log: Path
    exit_code: int | None = field(default=None)

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal, None while it runs."""
        if self.exit_code is None:
            found, status = os.waitpid(self.process, os.WNOHANG)
            if found:
                self.exit_code = os.waitstatus_to_exitcode(status)
        return self.exit_code

    def wait(self) -> int:
        """Return the exit code when it has ended."""
        if self.exit_code is None:
            self.exit_code = os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])
        return self.exit_code

    @property
    def words(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")


def warm() -> None:
    """Import what a run imports, so that children begin with it."""
    from wombat_dagster import definitions, runs  # noqa: F401
    from wombat_dagster.stages import (  # noqa: F401
        curve,
        diagnostics,
        masters,
        photometry,
        reduction,
        sequence,
        solving,
        standard,
    )


def begin(place: Place, *arguments: str, before: Callable[[], object] | None = None) -> Child:
    """Fork this process and do ``wombat ARGUMENTS`` there, by default ``run``.

    Fresh interpreters would spend most of the time on imports, which write nothing. `before` is
    called in the child first. This process must have no threads of its own while it forks.
    """
    log = place.root.with_suffix(".log")  # not on the place's own disk, which may be full
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process:
        return Child(process=process, log=log)
    code = UNCAUGHT
    try:
        os.setsid()
        with log.open("ab") as out:
            os.dup2(out.fileno(), 1)
            os.dup2(out.fileno(), 2)
        tempfile.tempdir = str(place.scratch)
        os.environ["TMPDIR"] = tempfile.tempdir
        os.environ["WOMBAT_CONFIG"] = str(place.config)
        os.environ["COLUMNS"] = "500"  # each failure on one line
        os.chdir(place.root)
        if before is not None:
            before()
        cli.main(["--config", str(place.config), *(arguments or ("run",))], standalone_mode=False)
        code = 0
    except click.ClickException as refused:
        refused.show()
        code = refused.exit_code
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001 - a forked child must never return
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def run(place: Place, *arguments: str, before: Callable[[], object] | None = None) -> Child:
    """Do as `begin`, to the end."""
    child = begin(place, *arguments, before=before)
    child.wait()
    return child


# ------------------------------------------------------------------------ whole, and in agreement


def faults_of(place: Place) -> list[str]:
    """Return what is half-written, missing or in disagreement; nothing when all is well.

    Every file below the products, and every master, must decode, and agree with its own checksum;
    every row of `product` must have its file; words of success must have the rows they speak of;
    the databases must be whole, Dagster's too. Products that are newer than their rows are not
    counted here: see `ahead_of_rows`.
    """
    faults: list[str] = []
    for path in (place.root / ".dagster_state").rglob("*.db"):
        with contextlib.closing(sqlite3.connect(path, timeout=10.0)) as connection:
            (verdict,) = connection.execute("PRAGMA integrity_check").fetchone()
            if verdict != "ok":
                faults.append(f"{path.name}: integrity_check: {verdict}")
    if not place.database.exists():
        return faults
    with contextlib.closing(sqlite3.connect(place.database, timeout=10.0)) as connection:
        (verdict,) = connection.execute("PRAGMA integrity_check").fetchone()
        if verdict != "ok":
            return [f"integrity_check: {verdict}"]
        try:
            rows = connection.execute("SELECT key, asset, path FROM product")
            products = rows.fetchall()
            masters = connection.execute("SELECT path, content_hash FROM master").fetchall()
            rows = connection.execute("SELECT key, proc, apphot FROM target")
            targets = rows.fetchall()
        except sqlite3.OperationalError as error:  # killed before the tables were made
            return [] if "no such table" in str(error) else [f"database: {error}"]
    faults += [words for row in products if (words := _fault_of_row(place, *row))]
    for path, content_hash in masters:
        file = place.data / path
        if not file.exists():
            faults.append(f"master {path}: a row without a file")
        elif array_hash(read_master(file)[0]) not in (content_hash, provenance_hash(file)):
            # A newer file whose row did not come any more would be all right: it names itself.
            faults.append(f"master {path}: neither the row's pixels nor its own")
    have = {(key, asset) for key, asset, _ in products}
    for key, proc, apphot in targets:
        if proc in {"calibrated", "solved", "partial"} and (key, "reduced_frames") not in have:
            faults.append(f"{key}: {proc} without a row of reduced_frames")
        if proc in {"solved", "partial"} and (key, "wcs_solutions") not in have:
            faults.append(f"{key}: {proc} without a row of wcs_solutions")
        if apphot in {"validate", "held"} and (key, "standard_magnitudes") not in have:
            faults.append(f"{key}: {apphot} without a row of standard_magnitudes")
    return faults + _broken_files(place)


def _fault_of_row(place: Place, key: str, asset: str, path: str) -> str | None:
    file = place.products / path
    if not file.exists():
        return f"{key} {asset}: a row without {path}"
    try:
        PRODUCTS[asset].decode(file.read_bytes())
    except Exception as error:  # noqa: BLE001 - whatever it is, it is told
        return f"{key} {asset}: {path} cannot be decoded: {error}"
    return None


def ahead_of_rows(place: Place) -> set[str]:
    """Return the products whose bytes are not those of their rows.

    A killed run may leave one: the file is put in place first, its row is written after it.
    """
    if not place.database.exists():
        return set()
    with contextlib.closing(sqlite3.connect(place.database, timeout=10.0)) as connection:
        try:
            rows = connection.execute("SELECT key, asset, path, content_hash FROM product")
            return {
                f"{key} {asset}"
                for key, asset, path, content_hash in rows
                if hashlib.sha256((place.products / path).read_bytes()).hexdigest() != content_hash
            }
        except sqlite3.OperationalError:  # no tables yet
            return set()


def _broken_files(place: Place) -> list[str]:
    broken = []
    for path in sorted(place.products.rglob("*")):
        if path.is_dir() or path.name.startswith(".") or ".scratch" in path.parts:
            continue
        try:
            _decode(path)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is told
            broken.append(f"{path.relative_to(place.root)}: {type(error).__name__}: {error}")
    return broken


def _decode(path: Path) -> None:
    """Read a file to its end, whatever it is."""
    if path.parent.name == "reduced":
        read_reduced(path)
    elif path.suffix in {".fits", ".fit"}:
        read_image(path)
    elif path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as stored:
            for name in stored.files:
                _ = stored[name]
    elif path.suffix == ".json":
        json.loads(path.read_bytes())
    elif path.suffix == ".png":
        from PIL import Image

        with Image.open(path) as picture:
            picture.load()
    elif path.suffix == ".txt":
        path.read_text(encoding="utf-8")  # a log: its last line may have no end
    elif path.suffix in {".html", ".csv", ".tbl", ".toml"}:
        if not path.read_text(encoding="utf-8").endswith("\n"):
            raise ValueError("the last line has no end")
    else:
        raise ValueError(f"a file of a kind the drill does not know: {path.suffix}")


def litter_of(place: Place) -> list[Path]:
    """Return the temporary files and directories that lie about."""
    found = [p for p in place.root.rglob("*") if LITTER.search(p.name)]
    return [p for p in found if not any(parent in found for parent in p.parents)]


def raw_hashes(place: Place) -> dict[str, str]:
    """Return the hash of every raw file by its name, wherever sorting has put it."""
    files = [p for p in place.data.rglob("*") if p.is_file() and is_raw_name(p.name)]
    return {f"{p.name}": hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


# -------------------------------------------------------------------------- equal to another place


def fingerprint(place: Place) -> dict[str, str]:
    """Return a digest of every pixel, table value and status word, by what it is of.

    What says when, or how long something took, is left out; nothing else is.
    """
    observatory = open_observatory(place.config)
    prints: dict[str, str] = {}
    for path in sorted(place.data.rglob("m*.fits")):
        image, mask, _ = read_master(path)
        words = array_hash(image) + (array_hash(mask) if mask is not None else "")
        prints[f"master {path.relative_to(place.data)}"] = words
    for path in sorted(place.products.rglob("reduced/*.fits")):
        image, mask, header = read_reduced(path)
        cards = "\n".join(card.image for card in header.cards)
        text = array_hash(image) + array_hash(mask) + hashlib.sha256(cards.encode()).hexdigest()
        prints[f"reduced {path.relative_to(place.products)}"] = text
    with contextlib.closing(sqlite3.connect(place.database)) as connection:
        connection.row_factory = sqlite3.Row
        rows = connection.execute("SELECT key, asset FROM product ORDER BY key, asset").fetchall()
        for row in rows:
            key, asset = row["key"], row["asset"]
            name = f"product {key} {asset}"
            if asset in {"light_curve", "diagnostics", "frame_triage"}:
                prints[name] = _content(PRODUCTS[asset].path(observatory.layout, key).read_bytes())
            else:
                value = read_product(observatory, asset, key)
                prints[name] = _content(PRODUCTS[asset].encode(value))
        for table in ("target", "cal", "cal_group", "WCS", "master", "detector", "bad_pixels"):
            prints[f"table {table}"] = _table(connection, table)
    for path in sorted(place.products.rglob("*.tbl")):
        prints[f"table {path.relative_to(place.products)}"] = _content(path.read_bytes())
    return prints


def _table(connection: sqlite3.Connection, table: str) -> str:
    rows = connection.execute(f'SELECT * FROM "{table}"').fetchall()
    texts = []
    for row in rows:
        values = {k: row[k] for k in row.keys() if k != "id" and not OF_THE_CLOCK.search(k)}  # noqa: SIM118 - a Row
        for name in ("record", "attempts"):
            if values.get(name):
                values[name] = _timeless(json.loads(values[name]))
        texts.append(json.dumps(values, sort_keys=True))
    return hashlib.sha256("\n".join(sorted(texts)).encode()).hexdigest()


def _content(data: bytes) -> str:
    """Return the digest of a product's bytes without what is of the clock."""
    with contextlib.suppress(ValueError):
        data = json.dumps(_timeless(json.loads(data)), sort_keys=True).encode()
    if data.startswith(b"PK"):
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            parts = {name: array_hash(np.atleast_1d(stored[name])) for name in stored.files}
        data = json.dumps(parts, sort_keys=True).encode()
    return hashlib.sha256(data).hexdigest()


def _timeless(plain: Any) -> Any:
    if isinstance(plain, dict):
        return {k: _timeless(v) for k, v in plain.items() if not OF_THE_CLOCK.search(k)}
    if isinstance(plain, list):
        return [_timeless(one) for one in plain]
    return plain


def differences(one: dict[str, str], other: dict[str, str]) -> list[str]:
    """Return the names of what is not equal in two fingerprints."""
    return sorted(name for name in {*one, *other} if one.get(name) != other.get(name))


def words_of(place: Place) -> list[tuple[str, ...]]:
    """Return key, proc, apphot, submitted and reason of every observation."""
    with contextlib.closing(sqlite3.connect(place.database)) as connection:
        rows = connection.execute(
            "SELECT key, proc, apphot, submitted, reason FROM target ORDER BY key"
        )
        return [tuple(str(cell) for cell in row) for row in rows]
