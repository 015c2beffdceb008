"""What the AAVSO gives back of an observer's data: its delimited download, and its JSON.

Two layouts are read: the delimited file of the AAVSO's data download, comma or tab, with headings
such as ``JD``, ``Magnitude``, ``Uncertainty``, ``Band``, ``Observer Code``, ``Star Name``; and the
answers of ``apps.aavso.org/v2/api/observations/photometry``, one page or a list of them (DOMAIN
section 3). **Neither layout was checked against a live download**: headings and field names are
from descriptions and clients, so they are matched loosely, and a file that lacks one that is needed
is refused with the headings that it has.
"""

import csv
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from wombat_dagster.reports.aavso_lint import FILTERS

MAX_WORDS = 40  # characters of a field that are told

_HEADINGS: Final[Mapping[str, tuple[str, ...]]] = {
    "jd": ("jd", "juliandate", "jddbl", "jdutc", "date"),
    "magnitude": ("magnitude", "mag"),
    "error": ("uncertainty", "error", "merr", "magnitudeuncertainty"),
    "band": ("band", "filter", "filt"),
    "observer": ("observercode", "obscode", "observer"),
    "star": ("starname", "name", "star", "starid", "object", "objectname"),
    "auid": ("auid", "objectauid"),
    "comments": ("comments", "comment", "notes"),
    "fainter": ("fainterthan",),
}
"""By our name what a heading may be: letters and digits alone, lower case, the best first."""
VISUAL: Final = "Vis."
_SPELLED_OUT: Final[Mapping[str, str]] = {
    **{f"johnson {letter.casefold()}": letter for letter in "UBVJHK"},
    **{f"{system} {x.casefold()}": x for system in ("cousins", "johnson cousins") for x in "RI"},
    **{f"johnson cousins {x.casefold()}": x for x in "UBV"},
    **{f"sloan {letter}": f"S{letter.upper()}" for letter in "ugriz"},
    **{f"sdss {letter}": f"S{letter.upper()}" for letter in "ugriz"},
    **{f"tri color {name}": f"T{name[0].upper()}" for name in ("blue", "green", "red")},
}
"""AAVSO's codes by names in plain words, lower case."""
_NEEDED = ("jd", "magnitude", "band", "observer")


class UnreadableDownload(ValueError):
    """The file is none of the AAVSO's downloads; the message says what was found."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DownloadedLine:
    """One observation as the AAVSO has it. `jd` is the text of its time; `auid` None: not said."""

    number: int  # line of the file, or place in the JSON, from 1
    star: str
    auid: str | None
    observer: str
    band: str
    jd: str
    magnitude: str  # without "<"
    is_fainter_than: bool
    error_mag: float | None

    @property
    def jd_utc(self) -> float:
        """The Julian date as a number."""
        return float(self.jd)

    @property
    def resolution_mag(self) -> float:
        """Half of the last decimal that the magnitude is given with."""
        return 0.5 * 10.0 ** -len(self.magnitude.partition(".")[2])


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """What a file holds, and in words which of its lines say nothing that can be used."""

    lines: tuple[DownloadedLine, ...]
    left_out: tuple[str, ...] = ()


def parse_download(text: str) -> Download:
    """Return the observations of a download of the AAVSO's, in the file's order.

    Raises
    ------
    UnreadableDownload
        It is neither of the two layouts. A single line that cannot be read is left out with words.
    """
    text = text.removeprefix("\ufeff")
    body = text.lstrip()
    if not body:
        raise UnreadableDownload("the file is empty")
    if re.match(r"#\s*TYPE\s*=", body, re.IGNORECASE):
        raise UnreadableDownload(
            "this is a report to the AAVSO (#TYPE=…), not what the AAVSO gives back"
        )
    if body.startswith("<"):
        raise UnreadableDownload("this is a web page (HTML), not the data")
    return _collected(_json_records(body) if body[0] in "[{" else _delimited_records(text))


def _collected(records: Iterable[tuple[int, Mapping[str, str] | str]]) -> Download:
    """Return the records read; one that is words already could not be taken apart."""
    lines, left_out = [], []
    for number, record in records:
        found = record if isinstance(record, str) else _line(number, record)
        if isinstance(found, str):
            left_out.append(f"line {number}: {found}")
        else:
            lines.append(found)
    if left_out and not lines:
        raise UnreadableDownload(f"not one of its {len(left_out)} lines can be read: {left_out[0]}")
    return Download(lines=tuple(lines), left_out=tuple(left_out))


def _line(number: int, record: Mapping[str, str]) -> DownloadedLine | str:
    """Return a line of `record`, by our names, or why it is none."""
    told = record.get("magnitude", "").strip()
    magnitude = told.removeprefix("<").strip()
    for name, value in (("magnitude", magnitude), ("jd", record.get("jd", ""))):
        if not _is_number(value):
            return f"{name} {_short(value)} is no number"
    star, auid = record.get("star", "").strip(), record.get("auid", "").strip()
    if not (star or auid):
        return "no star"
    for name in ("band", "observer"):
        if not record.get(name, "").strip():
            return f"no {name}"
    told_band = record["band"].strip()
    band = band_code(told_band)
    if band is None:
        return f"band {_short(told_band)} is none that is known"
    error = record.get("error", "").strip()
    flagged = record.get("fainter", "").strip().casefold() in ("1", "true", "yes", "y", "<")
    return DownloadedLine(
        number=number,
        star=star or auid,
        auid=auid or None,
        observer=record["observer"].strip(),
        band=band,
        jd=record["jd"].strip(),
        magnitude=magnitude,
        is_fainter_than=told.startswith("<") or flagged,
        error_mag=float(error) if _is_number(error) else None,
    )


def band_code(told: str) -> str | None:
    """Return AAVSO's code of a band that may be spelled out, None where it is not known.

    ``Johnson V`` is V. ``Vis.``, what is seen by eye, stays as it is: it is no filter's.
    """
    words = " ".join(re.sub(r"[-_/]", " ", told).casefold().split())
    if words.rstrip(".") in ("vis", "visual"):
        return VISUAL
    code = told if len(told) == 1 else told.upper()  # r and i are Sloan's, v Stromgren's
    return code if code in FILTERS else _SPELLED_OUT.get(words)


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _short(text: str) -> str:
    return repr(text if len(text) <= MAX_WORDS else f"{text[:MAX_WORDS]}…")


# ------------------------------------------------------------------------------------- delimited


def _delimited_records(text: str) -> Iterator[tuple[int, Mapping[str, str] | str]]:
    lines = text.splitlines()
    first = next(i for i, line in enumerate(lines) if line.strip())
    delimiter = "\t" if "\t" in lines[first] else ","
    headings = [cell.strip().lstrip("#").strip() for cell in _cells(lines[first], delimiter)]
    places = _places(headings)
    for number, line in enumerate(lines[first + 1 :], start=first + 2):
        if line.strip():
            yield number, _record(line, delimiter, headings, places)


def _cells(line: str, delimiter: str) -> list[str]:
    """Return the fields of one line; a quotation mark that is never closed is a character."""
    try:
        return next(csv.reader([line], delimiter=delimiter, strict=True))
    except csv.Error:
        return line.split(delimiter)


def _places(headings: Sequence[str]) -> dict[str, int]:
    """Return which column holds what, by our names."""
    plain = [_plain(heading) for heading in headings]
    places = {
        name: plain.index(found)
        for name, words in _HEADINGS.items()
        if (found := next((word for word in words if word in plain), None)) is not None
    }
    missing = [name for name in _NEEDED if name not in places]
    if not {"star", "auid"} & places.keys():
        missing.append("star name")
    if missing:
        seen = ", ".join(_short(heading) for heading in headings[:12])
        raise UnreadableDownload(f"no column for {', '.join(missing)}; the headings are {seen}")
    return places


def _plain(heading: str) -> str:
    return re.sub(r"[^a-z0-9]", "", heading.casefold())


def _record(
    line: str, delimiter: str, headings: Sequence[str], places: Mapping[str, int]
) -> Mapping[str, str] | str:
    """Return a line by our names; what it has too much of are delimiters within the comments."""
    cells = _cells(line, delimiter)
    too_many = len(cells) - len(headings)
    if max(place for name, place in places.items() if name != "comments") >= len(cells):
        return f"{len(cells)} fields, {len(headings)} headings"
    if too_many > 0:
        if "comments" not in places:
            return f"{len(cells)} fields, {len(headings)} headings"
        del cells[places["comments"] + 1 : places["comments"] + 1 + too_many]
    return {name: cells[place] for name, place in places.items() if name != "comments"}


# ------------------------------------------------------------------------------------------ JSON


def _json_records(text: str) -> Iterator[tuple[int, Mapping[str, str] | str]]:
    try:
        # Numbers stay the text that they are: a Julian date loses no decimals.
        read = json.loads(text, parse_float=str, parse_int=str, parse_constant=str)
    except (ValueError, RecursionError) as error:
        raise UnreadableDownload(f"no JSON: {error}") from error
    for number, one in enumerate(_results(read), start=1):
        if not isinstance(one, Mapping):
            yield number, "no observation"
            continue
        fields = {_plain(str(name)): value for name, value in one.items()}
        record = {}
        for name, words in _HEADINGS.items():
            value = next((fields[w] for w in words if fields.get(w) is not None), None)
            if value is not None and not isinstance(value, Mapping | list):
                record[name] = str(value)
        yield number, record


def _results(read: Any) -> list[Any]:
    """Return the observations of one page, of a list of pages, or of a bare list."""
    if isinstance(read, Mapping):
        if not isinstance(read.get("results"), list):
            names = ", ".join(_short(str(name)) for name in list(read)[:8]) or "nothing"
            raise UnreadableDownload(f'JSON without a list "results": it has {names}')
        return list(read["results"])
    pages = [one["results"] for one in read if isinstance(one, Mapping) and "results" in one]
    if not pages:
        return list(read)
    if len(pages) != len(read) or not all(isinstance(page, list) for page in pages):
        raise UnreadableDownload('a list in which not every page has a list "results"')
    return [one for page in pages for one in page]
