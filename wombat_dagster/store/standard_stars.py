"""Standard stars of a table that the observer supplies (Landolt's, for one), read from CSV.

Columns are found by their names, in any order and case: ``Name``; ``RA`` and ``DEC``, in hours and
degrees when sexagesimal, in degrees when decimal; magnitudes ``V``, ``B``, ``U``, ``R`` or ``Rc``,
``I`` or ``Ic``, or colours ``B-V``, ``U-B``, ``V-R``, ``R-I``, ``V-I`` to make them of; errors as
``e_V``, ``e_B-V`` and so on. Between them stand commas, semicolons or tabs.
"""

import csv
import math
import re
from collections.abc import Mapping, Sequence
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
        Columns are not there, a position or a number is none or impossible, or a star stands there
        twice; the line is named.
    OSError
        The file cannot be read.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            heading = file.readline()
            file.seek(0)
            rows = list(csv.DictReader(file, delimiter=max(",;\t", key=heading.count)))
    except (UnicodeDecodeError, csv.Error) as error:
        raise UnreadableStandards(f"{path.name} is no CSV: {error}") from error
    if not rows:
        raise UnreadableStandards(f"{path.name} has no stars")
    _refuse_missing_columns(path.name, [key for key in rows[0] if key])
    stars = []
    lines: dict[str, int] = {}
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
        if star is None:
            continue
        if (before := lines.setdefault(star.label, number)) != number:
            words = f"line {number}: {star.label} stands in line {before} already"
            raise UnreadableStandards(f"{path.name}, {words}")
        stars.append(star)
    return tuple(stars)


def _refuse_missing_columns(file_name: str, columns: Sequence[str]) -> None:
    there = {column.strip().casefold() for column in columns}
    wanted = {**_NAMES, "v": _BANDS["V"]}
    lacking = [name.upper() for name, names in wanted.items() if there.isdisjoint(names)]
    if lacking:
        raise UnreadableStandards(
            f"{file_name} has no column{'s' if len(lacking) > 1 else ''} {', '.join(lacking)}; "
            f"there {'are' if len(columns) > 1 else 'is'} {', '.join(columns)}"
        )


def _star(cells: Mapping[str, str]) -> CompStar | None:
    name = _cell(cells, "name")
    bands = _bands(cells)
    if "V" not in bands:
        return None
    return CompStar(
        auid=name,
        label=name,
        ra_deg=_angle(_cell(cells, "ra"), "RA", 15.0, lowest=0.0, highest=360.0),
        dec_deg=_angle(_cell(cells, "dec"), "DEC", 1.0, lowest=-90.0, highest=90.0),
        bands=bands,
    )


def _cell(cells: Mapping[str, str], what: str) -> str:
    for column in _NAMES[what]:
        if cells.get(column):
            return cells[column]
    raise ValueError(f"no {what.upper()}")


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
    error = _number(cells, name) if cells.get(name) else 0.0
    if error < 0:
        raise ValueError(f"{name} is {cells[name]}: an error is not negative")
    return error or None


def _number(cells: Mapping[str, str], column: str) -> float:
    try:
        number = float(cells[column])
    except ValueError as error:
        raise ValueError(f"{column} is {cells[column]!r}, no number") from error
    if not math.isfinite(number):
        raise ValueError(f"{column} is {cells[column]!r}, no number")
    return number


def _angle(
    text: str, what: str, degrees_per_unit: float, *, lowest: float, highest: float
) -> float:
    """Return degrees of a sexagesimal (`degrees_per_unit`: 15 for hours) or decimal text."""
    found = _SEXAGESIMAL.match(text)
    if found is None:
        try:
            angle = float(text)
        except ValueError as error:
            raise ValueError(f"{what} is {text!r}, no angle") from error
    else:
        sign, whole, minutes, seconds = found.groups()
        value = int(whole) + int(minutes) / 60.0 + float(seconds) / 3600.0
        angle = degrees_per_unit * (-value if sign == "-" else value)
    if not lowest <= angle <= highest:  # NaN is neither
        raise ValueError(f"{what} is {text!r}, not from {lowest:g} to {highest:g} degrees")
    return angle
