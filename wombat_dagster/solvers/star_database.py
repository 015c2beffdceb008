"""Star tables for the embedded solver: out of ASTAP's star database, or out of a CSV file.

ASTAP keeps the sky as small files, one per tile: 290 or 1476 tiles in rings of constant
declination, counted from the south pole, cells eastwards from RA 0 (``h18_0101.1476``). A tile is
a 110-byte header, its last byte the size of a record, then records of 5 bytes: a star is RA as
uint24 and the low 16 bits of Dec as int24; a mark (RA all ones) sets the high byte of Dec and the
magnitude of the stars that follow. J2000. Layout: ASTAP's own description, and
``make_astap_db.py``, which writes such files.
"""

import csv
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

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
}
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


def database_set(folder: Path) -> tuple[str, str] | None:
    """Return name and suffix of the deepest set in `folder`, e.g. ``("h18", "1476")``, or None."""
    for suffix, names in DATABASE_NAMES.items():
        for name in names:
            if (folder / f"{name}_0101.{suffix}").is_file():
                return name, suffix
    return None


def read_star_database(
    folder: Path,
    *,
    ra_deg: float,
    dec_deg: float,
    radius_deg: float,
    max_mag: float | None = None,
) -> StarTable:
    """Return the stars of ASTAP's database in `folder` within a circle, brightest first.

    A missing tile counts as empty sky.

    Raises
    ------
    FileNotFoundError
        There is no database set in `folder`.
    ValueError
        A tile has a record size that is not known here.
    """
    found = database_set(folder)
    if found is None:
        raise FileNotFoundError(f"no ASTAP star database (.1476 or .290) in {folder}")
    name, suffix = found
    parts: list[tuple[FloatArray, FloatArray, FloatArray]] = []
    for number in TILINGS[suffix].tiles(ra_deg, dec_deg, radius_deg):
        path = folder / f"{name}_{number}.{suffix}"
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            log.debug("%s: tile is missing, taken for empty", path)
            continue
        try:
            parts.append(decode_tile(content))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    if not parts:
        nothing = np.zeros(0)
        parts.append((nothing, nothing, nothing))
    ra, dec, mag = (np.concatenate(column) for column in zip(*parts, strict=True))
    return _within(
        StarTable(ra_deg=ra, dec_deg=dec, mag=mag, name=f"ASTAP {name}.{suffix}"),
        ra_deg=ra_deg,
        dec_deg=dec_deg,
        radius_deg=radius_deg,
        max_mag=max_mag,
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
