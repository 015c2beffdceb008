"""Write a star database that the plate solver ASTAP reads, for a field that no catalogue knows.

The layout is that of ASTAP's own sets, as its program reads them (checked against the CLIs of 2022
and 2026): 1476 tiles for fields of up to 5 degrees, or 290 for wider ones. One file per tile,
``h18_RRCC.1476`` or ``g18_RRCC.290``, ring RR and cell CC counted from 01, rings from the south
pole, cells eastwards from RA 0. All numbers little-endian, J2000:

======  ==========================================================================================
bytes   a header of 110 bytes: printable text, and in the last byte the size of a record, 5
======  ==========================================================================================
0-2     RA / 360° · (2²⁴ − 1); the value 0xFFFFFF marks the head of a group instead of a star
3-4     of a star: the low 16 bits of Dec / 90° · (2²³ − 1)
3       of a group's head: the high byte of the declinations that follow, plus 128
4       of a group's head: 10 · magnitude of the stars that follow, plus 16
======  ==========================================================================================

Groups run from bright to faint, for the reader takes the first stars it finds. Every tile inside
the search circle must exist, be it empty, or the solver stops; and ``h18_0101.1476`` must, for by
that file ASTAP notices the set.

For fields of more than 20 degrees one file is the whole sky, ``w08_0101.001``: the number of stars
as int32, then of each, bright before faint, 10 times the magnitude, RA and Dec in radians, float32.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from wombat_dagster.domain import FloatArray

WIDE_FILE = "w08_0101.001"
WIDE_MAX_MAG = 8.0
HEADER_BYTES = 110
RECORD_BYTES = 5
RA_UNITS = 2**24 - 1
DEC_UNITS = 2**23 - 1
GROUP_MARK = 0xFFFFFF
SEARCH_MARGIN_DEG = 15.0  # tiles so far outside the circle exist too: -r 5 and -r 10 stay inside


@dataclass(frozen=True)
class _Tiling:
    """Rings of constant declination, `cells` of each; `edges_deg` from the south pole."""

    name: str  # of the set: one that ASTAP knows from 2022 to 2026
    cells: NDArray[np.int64]
    edges_deg: FloatArray

    @property
    def first(self) -> NDArray[np.int64]:
        """Number of the first tile of each ring, and of all tiles."""
        return np.concatenate([[0], np.cumsum(self.cells)])

    def tile_of(self, ra_deg: FloatArray, dec_deg: FloatArray) -> NDArray[np.int64]:
        # A star exactly on an edge belongs to the ring south of it.
        ring = np.searchsorted(self.edges_deg, dec_deg, side="left") - 1
        ring = np.clip(ring, 0, len(self.cells) - 1)
        cells = self.cells[ring]
        cell = (np.mod(ra_deg, 360.0) / 360.0 * cells).astype(np.int64)
        return self.first[ring] + np.minimum(cell, cells - 1)

    def centres(self) -> tuple[FloatArray, FloatArray]:
        tile = np.arange(self.first[-1])
        ring = np.searchsorted(self.first, tile, side="right") - 1
        ra_deg = (tile - self.first[ring] + 0.5) * 360.0 / self.cells[ring]
        return ra_deg, 0.5 * (self.edges_deg[ring] + self.edges_deg[ring + 1])

    def file(self, tile: int) -> str:
        ring = int(np.searchsorted(self.first, tile, side="right")) - 1
        suffix = int(self.first[-1])
        return f"{self.name}_{ring + 1:02d}{tile - self.first[ring] + 1:02d}.{suffix}"


def _both_hemispheres(name: str, half: tuple[int, ...], south_edges_deg: FloatArray) -> _Tiling:
    """Return a tiling out of the cells and the edges of the rings from -90 to below 0."""
    edges = np.concatenate([south_edges_deg, [0.0], -south_edges_deg[::-1]])
    return _Tiling(name, np.array([*half, *half[::-1]]), edges)


def _tiling_1476() -> _Tiling:
    half = (1, 3, 9, 15, 21, 27, 33, 38, 43, 48, 52, 56, 60, 63, 65, 67, 68, 69)
    bands = -np.arange(17, 0, -1) * 90.0 / 17.5  # and half a one, the cap
    return _both_hemispheres("h18", half, np.concatenate([[-90.0], bands]))


def _tiling_290() -> _Tiling:
    # Of equal areas: a hemisphere is 17 * 17 units, of which rings 0..k hold (2k + 1) squared.
    half = (1, 4, 8, 12, 16, 20, 24, 28, 32)
    ends = -np.degrees(np.arcsin(1.0 - (2 * np.arange(8) + 1) ** 2 / 289.0))
    return _both_hemispheres("g18", half, np.concatenate([[-90.0], ends]))


_TILINGS = {"1476": _tiling_1476(), "290": _tiling_290()}


def write_astap_database(
    directory: Path,
    ra_deg: FloatArray,
    dec_deg: FloatArray,
    mag: FloatArray,
    *,
    field: tuple[float, float, float],
    tiles: Literal["1476", "290"] = "1476",
    title: str = "Simulated stars, J2000",
) -> int:
    """Write the stars as a set ``h18_*.1476`` or ``g18_*.290``; return the number of files.

    `ra_deg`, `dec_deg`, `mag` have shape (n,). `field` is RA, Dec and radius in degrees of the
    region in which stars are known: tiles within it and a margin are written, stars elsewhere are
    left out.
    """
    tiling = _TILINGS[tiles]
    directory.mkdir(parents=True, exist_ok=True)
    ra_centre, dec_centre, radius = field
    near = _separation_deg(ra_deg, dec_deg, ra_centre, dec_centre) <= radius
    ra_deg, dec_deg, mag = ra_deg[near], dec_deg[near], mag[near]
    tile = tiling.tile_of(ra_deg, dec_deg)
    order = np.argsort(tile, kind="stable")
    bounds = np.searchsorted(tile[order], np.arange(tiling.first[-1] + 1))
    apart_deg = _separation_deg(*tiling.centres(), ra_centre, dec_centre)
    wanted = apart_deg <= radius + SEARCH_MARGIN_DEG
    wanted[0] = True
    wanted[tile] = True
    for number in np.flatnonzero(wanted):
        chosen = order[bounds[number] : bounds[number + 1]]
        data = encode_tile(ra_deg[chosen], dec_deg[chosen], mag[chosen], title=title)
        (directory / tiling.file(int(number))).write_bytes(data)
    return int(wanted.sum())


def write_wide_database(
    directory: Path,
    ra_deg: FloatArray,
    dec_deg: FloatArray,
    mag: FloatArray,
    *,
    max_mag: float = WIDE_MAX_MAG,
) -> int:
    """Write the stars to `max_mag` as ``w08_0101.001``; return how many. Arrays have shape (n,)."""
    directory.mkdir(parents=True, exist_ok=True)
    rows = np.flatnonzero(mag <= max_mag)
    rows = rows[np.argsort(mag[rows], kind="stable")]
    ra, dec = np.radians(np.mod(ra_deg[rows], 360.0)), np.radians(dec_deg[rows])
    stars = np.column_stack([10.0 * mag[rows], ra, dec]).astype("<f4")
    (directory / WIDE_FILE).write_bytes(len(rows).to_bytes(4, "little") + stars.tobytes())
    return len(rows)


def encode_tile(ra_deg: FloatArray, dec_deg: FloatArray, mag: FloatArray, *, title: str) -> bytes:
    """Return the bytes of one tile file holding these stars, given in any order; none is fine."""
    text = title.encode("ascii", "replace")[: HEADER_BYTES - 1].ljust(HEADER_BYTES - 1)
    head = text + bytes([RECORD_BYTES])
    if len(ra_deg) == 0:
        return head
    ra = np.rint(np.mod(ra_deg, 360.0) / 360.0 * RA_UNITS).astype(np.int64) % GROUP_MARK
    dec = np.rint(dec_deg / 90.0 * DEC_UNITS).astype(np.int64)
    high, low = dec >> 16, dec & 0xFFFF  # the shift floors: -128..127
    tenths = np.clip(np.rint(mag * 10).astype(np.int64) + 16, 0, 255)
    order = np.lexsort((mag, high, tenths))
    ra, high, low, tenths = ra[order], high[order], low[order], tenths[order]
    opens_group = np.ones(len(ra), dtype=bool)
    opens_group[1:] = (np.diff(tenths) != 0) | (np.diff(high) != 0)
    slot = np.arange(len(ra)) + np.cumsum(opens_group)  # each group's head goes before its stars
    records = np.zeros((len(ra) + int(opens_group.sum()), RECORD_BYTES), dtype=np.uint8)
    records[slot] = np.column_stack([ra & 255, ra >> 8 & 255, ra >> 16, low & 255, low >> 8])
    mark = slot[opens_group] - 1
    records[mark, :3] = 255
    records[mark, 3] = high[opens_group] + 128
    records[mark, 4] = tenths[opens_group]
    return head + records.tobytes()


def _separation_deg(
    ra_deg: FloatArray, dec_deg: FloatArray, ra_centre_deg: float, dec_centre_deg: float
) -> FloatArray:
    """Return the angle to one point (haversine)."""
    ra, dec = np.radians(ra_deg), np.radians(dec_deg)
    ra_0, dec_0 = np.radians(ra_centre_deg), np.radians(dec_centre_deg)
    half = np.sin((dec - dec_0) / 2) ** 2 + (
        np.cos(dec) * np.cos(dec_0) * np.sin((ra - ra_0) / 2) ** 2
    )
    return np.degrees(2 * np.arcsin(np.sqrt(np.clip(half, 0.0, 1.0))))
