"""Star tables for the embedded solver: out of ASTAP's star database, or out of a CSV file.

ASTAP keeps the sky as small files, one per tile: 290 or 1476 tiles in rings of constant
declination, counted from the south pole, cells eastwards from RA 0 (``h18_0101.1476``). A tile is
a 110-byte header, its last byte the size of a record, then records of 5 bytes: a star is RA as
uint24 and the low 16 bits of Dec as int24; a mark (RA all ones) sets the high byte of Dec and the
magnitude of the stars that follow, bright before faint. Beside such a set, or alone, may stand
``w08_0101.001`` for fields of more than 20 degrees: the count as int32, then 10 times the
magnitude, RA and Dec in radians of each star as float32, bright before faint. J2000. Layout:
ASTAP's own description, and ``make_astap_db.py``, which writes such files.
"""

import csv
import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from wombat_dagster.domain import FloatArray, StarTable

log = logging.getLogger(__name__)

HEADER_BYTES = 110
RECORD_SIZES = (5, 6)  # 6: with a colour byte, which is skipped
GROUP_MARK = 0xFFFFFF
RA_UNIT_DEG = 360.0 / (2**24 - 1)
DEC_UNIT_DEG = 90.0 / (2**23 - 1)

# Deepest first; ASTAP's names (2022 and 2026), which are also the names of the files.
DATABASE_NAMES = {
    "1476": ("d80", "d50", "v50", "h18", "h17", "d20", "d05"),
    "290": ("g18", "v17", "g17", "g05", "v05"),
    "001": ("w08",),
}
TILED = ("1476", "290")
WIDE_FOV_DEG = 6.0  # ASTAP joins four tiles at most: 5.1 degrees of .1476, 9.5 of .290
VERY_WIDE_FOV_DEG = 20.0
FIRST_READ = 4  # times the stars wanted, spread evenly, that are read of every tile at first
MAG_COLUMNS = ("mag", "vt", "vmag", "v", "g", "gmag")


@dataclass(frozen=True, slots=True)
class Tiling:
    """Rings of constant declination, each cut into equal steps of RA.

    `cells` says how many per ring from the south pole, `edges_deg` (one more) where rings begin.
    """

    suffix: str
    cells: tuple[int, ...]
    edges_deg: tuple[float, ...]

    def tiles(self, ra_deg: float, dec_deg: float, radius_deg: float) -> Iterator[str]:
        """Yield ``0101``-like numbers of all tiles that a circle touches."""
        south, north = dec_deg - radius_deg, dec_deg + radius_deg
        for ring, n_cells in enumerate(self.cells):
            if self.edges_deg[ring] > north or self.edges_deg[ring + 1] < south:
                continue
            for cell in _cells_in_reach(ra_deg, dec_deg, radius_deg, n_cells):
                yield f"{ring + 1:02d}{cell + 1:02d}"


def _cells_in_reach(ra_deg: float, dec_deg: float, radius_deg: float, n_cells: int) -> list[int]:
    if abs(dec_deg) + radius_deg >= 90.0:  # a pole inside: every right ascension
        return list(range(n_cells))
    ratio = math.sin(math.radians(radius_deg)) / math.cos(math.radians(dec_deg))
    half_deg = math.degrees(math.asin(min(1.0, ratio)))
    width_deg = 360.0 / n_cells
    first = math.floor((ra_deg - half_deg) / width_deg)
    last = math.floor((ra_deg + half_deg) / width_deg)
    return sorted({cell % n_cells for cell in range(first, min(last, first + n_cells) + 1)})


def _mirrored(south: tuple[float, ...]) -> tuple[float, ...]:
    """Return ring edges for both hemispheres out of those from -90 to just below 0."""
    return (*south, 0.0, *(-edge for edge in reversed(south)))


def _tiling_1476() -> Tiling:
    half = (1, 3, 9, 15, 21, 27, 33, 38, 43, 48, 52, 56, 60, 63, 65, 67, 68, 69)
    step = 90.0 / 17.5  # 17 bands from the equator and half a one, the cap
    south = (-90.0, *(-band * step for band in range(17, 0, -1)))
    return Tiling("1476", half + half[::-1], _mirrored(south))


def _tiling_290() -> Tiling:
    half = (1, 4, 8, 12, 16, 20, 24, 28, 32)
    # Equal areas: ring k of 0..8 ends where (2k + 1)² of the hemisphere's 289 units are passed.
    south = tuple(-math.degrees(math.asin(1.0 - (2 * k + 1) ** 2 / 289.0)) for k in range(8))
    return Tiling("290", half + half[::-1], _mirrored((-90.0, *south)))


TILINGS = {"1476": _tiling_1476(), "290": _tiling_290()}


class StarSource(Protocol):
    """Whatever knows the stars of any place, e.g. `StarDatabase.around`."""

    def __call__(
        self, ra_deg: float, dec_deg: float, radius_deg: float, *, max_stars: int | None = None
    ) -> StarTable | None:
        """Return the brightest `max_stars` within a circle; None when there is no table."""


@dataclass(frozen=True, slots=True)
class StarDatabase:
    """ASTAP's star database in a folder."""

    folder: Path

    def around(
        self, ra_deg: float, dec_deg: float, radius_deg: float, *, max_stars: int | None = None
    ) -> StarTable:
        """Return the stars of a circle; see `read_star_database` for what it raises."""
        return read_star_database(
            self.folder,
            ra_deg=ra_deg,
            dec_deg=dec_deg,
            radius_deg=radius_deg,
            max_stars=max_stars,
        )


def database_sets(folder: Path) -> list[tuple[str, str]]:
    """Return name and suffix of every set in `folder`, e.g. ``("h18", "1476")``, deepest first."""
    return [
        (name, suffix)
        for suffix, names in DATABASE_NAMES.items()
        for name in names
        if (folder / f"{name}_0101.{suffix}").is_file()
    ]


def database_set(folder: Path) -> tuple[str, str] | None:
    """Return name and suffix of the deepest set in `folder`; w08 only when it is alone."""
    return next(iter(database_sets(folder)), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class SetReport:
    """What is in a folder; `problem` says why it cannot serve, "" when it can."""

    folder: Path
    name: str | None = None
    suffix: str | None = None
    n_tiles: int = 0
    problem: str = ""

    @property
    def is_whole_sky(self) -> bool:
        """Whether no tile is missing."""
        return self.suffix not in TILED or self.n_tiles >= int(self.suffix or 0)

    @property
    def words(self) -> str:
        """The set in a phrase."""
        if self.suffix not in TILED:
            return f"{self.name} in {self.folder}"
        return f"{self.name} in {self.folder}: {self.n_tiles} of {self.suffix} tiles"


def examine_set(folder: Path) -> SetReport:
    """Look at the deepest set in `folder`, the head of every tile, and say what is wrong."""
    try:
        if not folder.is_dir():
            return SetReport(folder=folder, problem=f"{folder}: no such folder")
        files = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        return SetReport(folder=folder, problem=f"{folder}: {error.strerror or error}")
    found = database_set(folder)
    if found is None:
        problem = f"{folder}: no set of .1476 or .290 tiles there"
        marks = {name.rpartition("_")[0] for name in files if name.endswith(TILED)}
        if marks:  # by that file ASTAP notices a set
            first = min(marks)
            problem = f"{folder}: tiles of {first}, but no {first}_0101, half a set"
        return SetReport(folder=folder, problem=problem)
    name, suffix = found
    tiles = [folder / one for one in files if one.startswith(f"{name}_") and one.endswith(suffix)]
    report = SetReport(folder=folder, name=name, suffix=suffix, n_tiles=len(tiles))
    fault = _fault(folder, report, tiles)
    return replace(report, problem=f"{report.words}, not usable: {fault}") if fault else report


def _fault(folder: Path, report: SetReport, tiles: Sequence[Path]) -> str:
    """Return why the files of a set are of no use, "" when they are."""
    try:
        if report.suffix not in TILED:
            return "" if len(_read_wide(folder, str(report.name))) else "no stars in it"
        has_stars = False
        for tile in tiles:
            content, is_whole = _read_start(tile, 0)
            if len(content) < HEADER_BYTES or content[HEADER_BYTES - 1] not in RECORD_SIZES:
                try:
                    decode_tile(content)
                except ValueError as error:
                    return f"{tile.name}: {error}"
            has_stars = has_stars or not is_whole
    except (OSError, ValueError) as error:
        return str(error)
    return "" if has_stars else "all of them empty"


def set_for_field(folder: Path, fov_deg: float) -> str | None:
    """Return the name of the set that suits images of that height; None when there is no set.

    PLATE_SOLVING.md section 1: w08 above 20 degrees, .290 above 6, else .1476; failing that, the
    deepest there is.
    """
    sets = database_sets(folder)
    wanted = [suffix for _, suffix in sets]
    if fov_deg > VERY_WIDE_FOV_DEG:
        wanted = ["001", "290"]
    elif fov_deg > WIDE_FOV_DEG:
        wanted = ["290"]
    for suffix in wanted:
        for name, has in sets:
            if has == suffix:
                return name
    return sets[0][0] if sets else None


def read_star_database(
    folder: Path,
    *,
    ra_deg: float,
    dec_deg: float,
    radius_deg: float,
    max_mag: float | None = None,
    max_stars: int | None = None,
) -> StarTable:
    """Return the stars of ASTAP's database in `folder` within a circle, brightest first.

    A missing tile counts as empty sky. Of `max_stars` the brightest are returned, and not much
    more than those is read: a circle of 40 degrees in the deepest set has tens of millions.

    Raises
    ------
    FileNotFoundError
        There is no database set in `folder`.
    ValueError
        A file of the set is not what it should be.
    """
    sets = database_sets(folder)
    if not sets:
        raise FileNotFoundError(f"no ASTAP star database (.1476, .290 or w08 .001) in {folder}")
    within = partial(
        _within, ra_deg=ra_deg, dec_deg=dec_deg, radius_deg=radius_deg, max_mag=max_mag
    )
    wide = [one for one in sets if one[1] not in TILED]
    if wide and (sets == wide or (max_stars is not None and radius_deg > VERY_WIDE_FOV_DEG)):
        table = within(_read_wide(folder, wide[0][0]))
        if sets == wide or (max_stars is not None and len(table) >= max_stars):
            return _brightest(table, max_stars)
    name, suffix = sets[0]
    paths = [
        folder / f"{name}_{number}.{suffix}"
        for number in TILINGS[suffix].tiles(ra_deg, dec_deg, radius_deg)
    ]
    n_read = None if max_stars is None else FIRST_READ * (max_stars // len(paths) + 1)
    while True:
        (ra, dec, mag), complete_mag = _read_tiles(paths, n_read)
        name_of_set = f"ASTAP {name}.{suffix}"
        table = within(StarTable(ra_deg=ra, dec_deg=dec, mag=mag, name=name_of_set))
        if n_read is None or complete_mag is None:
            return _brightest(table, max_stars)
        assert max_stars is not None
        if np.searchsorted(table.mag, complete_mag) >= max_stars:
            return _brightest(table, max_stars)
        n_read *= FIRST_READ


def _brightest(table: StarTable, max_stars: int | None) -> StarTable:
    """Return the first rows of a sorted table."""
    if max_stars is None or len(table) <= max_stars:
        return table
    return StarTable(
        ra_deg=table.ra_deg[:max_stars],
        dec_deg=table.dec_deg[:max_stars],
        mag=table.mag[:max_stars],
        name=table.name,
    )


def _read_tiles(
    paths: Sequence[Path], n_records: int | None
) -> tuple[tuple[FloatArray, FloatArray, FloatArray], float | None]:
    """Return RA, Dec, magnitude of the first `n_records` of each tile (None: all of them).

    And the magnitude below which no star is missing; None when all were read.
    """
    parts: list[tuple[FloatArray, FloatArray, FloatArray]] = [(np.zeros(0),) * 3]
    complete_mag: float | None = None
    for path in paths:
        try:
            content, is_whole = _read_start(path, n_records)
        except FileNotFoundError:
            log.debug("%s: tile is missing, taken for empty", path)
            continue
        try:
            part = decode_tile(content)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        parts.append(part)
        if not is_whole:
            faintest = float(part[2][-1]) if len(part[2]) else -math.inf
            complete_mag = faintest if complete_mag is None else min(complete_mag, faintest)
    ra, dec, mag = (np.concatenate(column) for column in zip(*parts, strict=True))
    return (ra, dec, mag), complete_mag


def _read_start(path: Path, n_records: int | None) -> tuple[bytes, bool]:
    """Return the header and the first records of a tile, and whether that is all of it."""
    with path.open("rb") as handle:
        if n_records is None:
            return handle.read(), True
        content = handle.read(HEADER_BYTES + max(RECORD_SIZES) * n_records)
        return content, not handle.read(1)


def _read_wide(folder: Path, name: str) -> StarTable:
    """Return all stars of a file for wide fields."""
    path = folder / f"{name}_0101.001"
    content = path.read_bytes()
    n_stars = int.from_bytes(content[:4], "little")
    if len(content) < 4 + 12 * n_stars:
        raise ValueError(f"{path}: {len(content)} bytes, {4 + 12 * n_stars} wanted")
    stars = np.frombuffer(content, "<f4", 3 * n_stars, offset=4).reshape(-1, 3).astype(float)
    return StarTable(
        ra_deg=np.mod(np.degrees(stars[:, 1]), 360.0),
        dec_deg=np.degrees(stars[:, 2]),
        mag=stars[:, 0] / 10.0,
        name=f"ASTAP {name}",
    )


def decode_tile(content: bytes) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return RA, Dec in degrees (J2000) and magnitude of one tile's stars.

    Raises ValueError for a file shorter than its header or with records of unknown size.
    """
    if len(content) < HEADER_BYTES:
        raise ValueError(f"{len(content)} bytes, at least {HEADER_BYTES} wanted")
    size = content[HEADER_BYTES - 1]
    if size not in RECORD_SIZES:
        raise ValueError(f"records of {size} bytes, {RECORD_SIZES} are known")
    raw: NDArray = np.frombuffer(content, np.uint8, offset=HEADER_BYTES)
    records = raw[: len(raw) // size * size].reshape(-1, size).astype(np.int64)
    ra_units = records[:, 0] | records[:, 1] << 8 | records[:, 2] << 16
    is_mark = ra_units == GROUP_MARK
    mark_before = np.maximum.accumulate(np.where(is_mark, np.arange(len(records)), -1))
    star = ~is_mark & (mark_before >= 0)
    mark = records[mark_before[star]]
    dec_units = ((mark[:, 3] - 128) << 16) + (records[star, 4] << 8) + records[star, 3]
    return ra_units[star] * RA_UNIT_DEG, dec_units * DEC_UNIT_DEG, (mark[:, 4] - 16) / 10.0


def read_star_table_csv(path: Path) -> StarTable:
    """Return the stars of a CSV file with columns ``ra_deg``, ``dec_deg`` and ``mag``.

    The magnitude's column may also be called VT, Vmag, V, G or Gmag, in any case. Rows without a
    number in one of the three are left out.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    ValueError
        A column is missing.
    """
    with path.open(newline="", encoding="utf-8-sig") as handle:
        rows = csv.reader(line for line in handle if not line.startswith("#"))
        header = [column.strip().casefold() for column in next(rows, [])]
        mag_column = next((name for name in MAG_COLUMNS if name in header), None)
        if "ra_deg" not in header or "dec_deg" not in header or mag_column is None:
            raise ValueError(f"{path}: columns {header}, wanted ra_deg, dec_deg, mag")
        wanted = [header.index(name) for name in ("ra_deg", "dec_deg", mag_column)]
        values = [[_number(row, column) for column in wanted] for row in rows if row]
    stars = np.array(values, float).reshape(-1, 3)
    stars = stars[np.isfinite(stars).all(axis=1)]
    return StarTable(
        ra_deg=np.mod(stars[:, 0], 360.0), dec_deg=stars[:, 1], mag=stars[:, 2], name=path.name
    )


def stars_within(
    table: StarTable,
    *,
    ra_deg: float,
    dec_deg: float,
    radius_deg: float,
    max_stars: int | None = None,
) -> StarTable:
    """Return the stars of a table in a circle, brightest first; of `max_stars` the brightest."""
    found = _within(table, ra_deg=ra_deg, dec_deg=dec_deg, radius_deg=radius_deg, max_mag=None)
    return _brightest(found, max_stars)


def _number(row: list[str], column: int) -> float:
    try:
        return float(row[column])
    except (ValueError, IndexError):
        return math.nan


def _within(
    table: StarTable,
    *,
    ra_deg: float,
    dec_deg: float,
    radius_deg: float,
    max_mag: float | None,
) -> StarTable:
    """Return the stars in the circle, brightest first."""
    dec, dec0 = np.radians(table.dec_deg), math.radians(dec_deg)
    d_ra = np.radians(table.ra_deg - ra_deg)
    haversine = np.sin((dec - dec0) / 2) ** 2 + np.cos(dec) * math.cos(dec0) * np.sin(d_ra / 2) ** 2
    keep = haversine <= math.sin(math.radians(min(radius_deg, 180.0)) / 2) ** 2
    if max_mag is not None:
        keep &= table.mag <= max_mag
    rows = np.flatnonzero(keep)
    rows = rows[np.argsort(table.mag[rows], kind="stable")]
    return StarTable(
        ra_deg=table.ra_deg[rows], dec_deg=table.dec_deg[rows], mag=table.mag[rows], name=table.name
    )
