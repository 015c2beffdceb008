"""Standard stars of a table that the observer supplies (Landolt's, for one), read from CSV.

Columns are found by their names, in any order and case: ``Name``; ``RA`` and ``DEC``, in hours and
degrees when sexagesimal, in degrees when decimal; magnitudes ``V``, ``B``, ``U``, ``R`` or ``Rc``,
``I`` or ``Ic``, or colours ``B-V``, ``U-B``, ``V-R``, ``R-I``, ``V-I`` to make them of; errors as
``e_V``, ``e_B-V`` and so on.
"""

import csv
import re
from collections.abc import Mapping
from pathlib import Path

from wombat_dagster.domain import BandMagnitude, CompStar

_SEXAGESIMAL = re.compile(r"^([+-]?)(\d+)[: ](\d+)[: ](\d+(?:\.\d*)?)$")
_NAMES = {
    "name": ("name", "star", "id"),
    "ra": ("ra", "ra_deg", "raj2000"),
    "dec": ("dec", "dec_deg", "dej2000"),
}
_BANDS = {"V": ("v",), "B": ("b",), "U": ("u",), "Rc": ("rc", "r"), "Ic": ("ic", "i")}
# A band by a colour and the other band of it, in the order in which they can be made.
_BY_COLOUR = (
    ("B", "b-v", "V", 1),
    ("U", "u-b", "B", 1),
    ("Rc", "v-r", "V", -1),
    ("Ic", "v-i", "V", -1),
    ("Ic", "r-i", "Rc", -1),
)


class UnreadableStandards(ValueError):
    """The file is no table of standard stars; the message says why, in words for the person."""


def read_standard_stars(path: Path) -> tuple[CompStar, ...]:
    """Return the stars of a table. One without V is left out; bands that are empty are absent.

    A band made of a colour has both errors in quadrature, which counts V's twice in that colour:
    a little too much.

    Raises
    ------
    UnreadableStandards
        The columns are not there, or a position or a number is none; the line is named.
    OSError
        The file cannot be read.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UnreadableStandards(f"{path.name} is no CSV: {error}") from error
    if not rows:
        raise UnreadableStandards(f"{path.name} has no stars")
    stars = []
    for number, row in enumerate(rows, start=2):
        cells = {
            (key or "").strip().casefold(): (value or "").strip()
            for key, value in row.items()
            if not isinstance(value, list)
        }
        try:
            star = _star(cells)
        except ValueError as error:
            raise UnreadableStandards(f"{path.name}, line {number}: {error}") from error
        if star is not None:
            stars.append(star)
    return tuple(stars)


def _star(cells: Mapping[str, str]) -> CompStar | None:
    name = _cell(cells, "name")
    bands = _bands(cells)
    if "V" not in bands:
        return None
    return CompStar(
        auid=name,
        label=name,
        ra_deg=_angle(_cell(cells, "ra"), "RA", 15.0),
        dec_deg=_angle(_cell(cells, "dec"), "DEC", 1.0),
        bands=bands,
    )


def _cell(cells: Mapping[str, str], what: str) -> str:
    for column in _NAMES[what]:
        if cells.get(column):
            return cells[column]
    raise ValueError(f"no {what.upper()} among the columns {', '.join(c for c in cells if c)}")


def _bands(cells: Mapping[str, str]) -> dict[str, BandMagnitude]:
    bands: dict[str, BandMagnitude] = {}
    for band, columns in _BANDS.items():
        for column in columns:
            if cells.get(column) and band not in bands:
                bands[band] = BandMagnitude(
                    mag=_number(cells, column), error_mag=_error(cells, column)
                )
    for band, colour, other, sign in _BY_COLOUR:
        if band in bands or other not in bands or not cells.get(colour):
            continue
        known, error = bands[other], _error(cells, colour)
        whole = (
            None
            if error is None or known.error_mag is None
            else (error**2 + known.error_mag**2) ** 0.5
        )
        bands[band] = BandMagnitude(mag=known.mag + sign * _number(cells, colour), error_mag=whole)
    return bands


def _error(cells: Mapping[str, str], column: str) -> float | None:
    """Return a 1-sigma error; one of 0 is not known."""
    name = f"e_{column}"
    return (_number(cells, name) or None) if cells.get(name) else None


def _number(cells: Mapping[str, str], column: str) -> float:
    try:
        return float(cells[column])
    except ValueError as error:
        raise ValueError(f"{column} is {cells[column]!r}, no number") from error


def _angle(text: str, what: str, degrees_per_unit: float) -> float:
    """Return degrees of a sexagesimal (`degrees_per_unit`: 15 for hours) or decimal text."""
    found = _SEXAGESIMAL.match(text)
    if found is None:
        try:
            return float(text)
        except ValueError as error:
            raise ValueError(f"{what} is {text!r}, no angle") from error
    sign, whole, minutes, seconds = found.groups()
    value = int(whole) + int(minutes) / 60.0 + float(seconds) / 3600.0
    return degrees_per_unit * (-value if sign == "-" else value)
