"""Transformation coefficients as AAVSO's TransformGenerator keeps them: an ``.ini`` file.

Sections ``[Setup]`` (a description), ``[Coefficients]``, ``[Error]``, ``[R Squared Values]`` and
``[Extinction]`` (DOMAIN section 6); names of sections and keys in any case, values as text. A real
file's description reads ``TG - Version 5.10, Telescope= …, Time created (UT) =
2016_07_25_00:09:44``.
"""

import configparser
import datetime as dt
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from wombat_dagster.domain import Coefficient

_NAME = re.compile(r"^T([ubvri]_)?[ubvri]{2}$")
_CREATED = re.compile(r"created[^=:]*[=:]\s*(\d{4})[_-](\d\d)[_-](\d\d)", re.IGNORECASE)
MAX_LISTED = 5
MAX_MAGNITUDE_TERM = 0.5  # of a T_x_yz, either way, with filters that are near the standard ones
MIN_COLOUR_SCALE, MAX_COLOUR_SCALE = 0.5, 2.0  # of a Txy


class UnreadableIni(ValueError):
    """The file is none of TransformGenerator's; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TgFile:
    """What such a file says.

    `created` is the day in its description, `notes` what is not taken, `warnings` which of the
    coefficients taken are none that a filter set should have.
    """

    description: str
    created: dt.date | None
    coefficients: tuple[Coefficient, ...]
    extinction: Mapping[str, str]  # as the file words it
    notes: tuple[str, ...]
    warnings: tuple[str, ...] = ()


def read_tg_ini(content: bytes, *, source: str, camera: str | None, date: dt.date | None) -> TgFile:
    """Return the coefficients of a file's `content`, each with `source`, `camera` and `date`.

    An error that is missing or 0 is not known: None. A coefficient of 0 without an error is one
    that was not determined, and left out, as is what is no number; `notes` say so.

    Raises
    ------
    UnreadableIni
        It has no section [Coefficients], or none of them is a number.
    """
    parser = configparser.ConfigParser(
        interpolation=None, strict=False, allow_no_value=True, delimiters=("=",)
    )
    try:
        parser.read_string(content.decode("utf-8-sig", errors="replace"))
    except configparser.Error as damage:
        raise UnreadableIni(
            f"{source} is no .ini file: {damage.message.splitlines()[0]}"
        ) from damage
    sections = {
        name.strip().casefold(): {k.strip(): (v or "").strip() for k, v in parser[name].items()}
        for name in parser.sections()
    }
    if "coefficients" not in sections:
        there = ", ".join(f"[{name}]" for name in parser.sections()) or "no section at all"
        raise UnreadableIni(f"{source} has no section [Coefficients] but {there}")
    errors, squares = (
        _numbers(sections.get("error", {})),
        _numbers(sections.get("r squared values", {})),
    )
    found, not_taken = [], []
    for key, text in sections["coefficients"].items():
        name, value = "T" + key[1:].lower(), _number(text)
        error = abs(errors.get(key, 0.0)) or None
        if _NAME.match(name) is None or value is None:
            not_taken.append(f"{name} = {text}")
            continue
        if value == 0.0 and error is None:
            continue  # the program writes 0 for what was not determined
        found.append(
            Coefficient(
                name=name,
                value=value,
                error=error,
                r_squared=squares.get(key),
                date=date,
                camera=camera,
                source=source,
            )
        )
    if not found:
        raise UnreadableIni(f"not one coefficient in {source} is a number other than 0")
    notes = []
    if not_taken:
        more = f" and {len(not_taken) - MAX_LISTED} more" if len(not_taken) > MAX_LISTED else ""
        notes.append(f"not taken: {', '.join(not_taken[:MAX_LISTED])}{more}")
    without = [one.name for one in found if one.error is None]
    if without:
        notes.append(f"no error in the file: {', '.join(without)}")
    description = sections.get("setup", {}).get("description", "")
    return TgFile(
        description=description,
        created=_created(description),
        coefficients=tuple(found),
        extinction=sections.get("extinction", {}),
        notes=tuple(notes),
        warnings=(
            *_odd_values(found),
            *(
                f"{one.name}: its error is negative in the file, {error:g}"
                for one in found
                if (error := errors.get(one.name.casefold(), 0.0)) < 0
            ),
        ),
    )


def _odd_values(coefficients: Sequence[Coefficient]) -> list[str]:
    """Return words on each value that is far from 0 (T_x_yz), or from 1 (Txy)."""
    words = []
    for one in coefficients:
        if "_" in one.name and abs(one.value) > MAX_MAGNITUDE_TERM:
            words.append(
                f"{one.name} = {one.value:+.4f} is odd: from -{MAX_MAGNITUDE_TERM} to "
                f"{MAX_MAGNITUDE_TERM} is usual"
            )
        elif "_" not in one.name and not MIN_COLOUR_SCALE <= one.value <= MAX_COLOUR_SCALE:
            words.append(
                f"{one.name} = {one.value:+.4f} is odd: from {MIN_COLOUR_SCALE} to "
                f"{MAX_COLOUR_SCALE} is usual"
            )
    return words


def _numbers(section: Mapping[str, str]) -> dict[str, float]:
    numbers = {key: _number(text) for key, text in section.items()}
    return {key: number for key, number in numbers.items() if number is not None}


def _number(text: str) -> float | None:
    """Return a number, also one with a decimal comma; None when it is none."""
    try:
        number = float(text.replace(",", "."))
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _created(description: str) -> dt.date | None:
    found = _CREATED.search(description)
    if found is None:
        return None
    try:
        return dt.date(*(int(part) for part in found.groups()))
    except ValueError:
        return None
