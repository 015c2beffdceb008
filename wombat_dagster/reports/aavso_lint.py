"""The rules of AAVSO's Extended File Format, each a named check: what is wrong, and where.

Errors are what the format's page forbids, what WebObs refuses, and what must never be reported;
warnings what makes an observation worth less or looks like a slip. Sources: DOMAIN section 3 and
the page it quotes; "wombat's" rules need `Evidence`, which no file holds. Any program's file may be
judged. Nothing is read or written here; the time is told.
"""

import functools
import itertools
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from wombat_dagster.domain import LintFinding, ReportLine
from wombat_dagster.reports.aavso import (
    AIRMASS_LIMITS,
    COLUMNS,
    ENSEMBLE,
    FIELDS,
    MAX_NAME,
    MAX_SOFTWARE,
    MAX_STAR,
    NA,
    REQUIRED,
    ParsedReport,
    ReportRow,
    delimiter_of,
    note_values,
    parse_report,
)

FILTERS: Final = frozenset(
    {
        *("U", "B", "V", "R", "I", "RJ", "IJ", "J", "H", "K", "SU", "SG", "SR", "SI", "SZ"),
        *("STU", "STV", "STB", "STY", "STHBW", "STHBN", "MA", "MB", "MI", "ZS", "Y"),
        *("TB", "TG", "TR", "CV", "CR", "CBB", "HA", "HAC", "O"),
    }
)
SLOAN_FILTERS: Final = frozenset({"SU", "SG", "SR", "SI", "SZ"})
LIKE_SPELLED: Final[Mapping[str, str]] = {
    "U": "Sloan u (SU) or Stromgren u (STU)", "R": "Sloan r (SR)", "I": "Sloan i (SI)",
    "B": "Stromgren b (STB)", "V": "Stromgren v (STV)", "Y": "Stromgren y (STY)",
}  # fmt: skip
"""Other filters that are written as the code is in small letters."""
OBSTYPES: Final = ("CCD", "DSLR", "PEP", "VISDIG")
EXTENSIONS: Final = (".txt", ".csv", ".tsv")
DATE_KINDS: Final = ("JD", "HJD", "EXCEL")

MAX_DATE: Final = 16
MIN_DATE_DECIMALS: Final = 3  # 86 s
MAX_MAG: Final = 8
MAX_ERROR: Final = 6
LARGEST_ERROR_MAG: Final = 1.0
MAX_AIRMASS: Final = 7
MAX_GROUP: Final = 5
MAX_NOTES: Final = 4000  # the page: several thousand
STANDARD_MAGS: Final = (-5.0, 30.0)
DIFFERENTIAL_MAGS: Final = (-30.0, 30.0)
EARLIEST_JD: Final = 2415020.5  # 1900
HELIOCENTRIC_D: Final = 0.0059  # 510 s of light time
MAX_CHECK_OFF_MAG: Final = 3.0  # of a check star's magnitude from its catalogue's
SHOWN: Final = 60  # characters of the offending text
MOST_WARNINGS: Final = 20  # of one rule that are told one by one


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a file alone cannot say. Stars as STARID has them, bands as FILT; values are words why.

    `held_nights`: held by their check star, and nobody approved them as such.
    """

    file_name: str | None = None
    unconfirmed_filters: Mapping[tuple[str, str], str] = field(default_factory=dict)
    unconfirmed_stars: Mapping[str, str] = field(default_factory=dict)
    held_nights: Mapping[tuple[str, str], str] = field(default_factory=dict)
    catalogue_charts: Mapping[tuple[str, str], str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Row:
    """A line of data with the right number of fields; `jd` None: DATE cannot be read."""

    row: ReportRow
    line: ReportLine
    note_values: Mapping[str, str]
    jd: float | None

    @property
    def is_ensemble(self) -> bool:
        return self.line.comp_name.upper() == ENSEMBLE

    @property
    def is_transformed(self) -> bool:
        return self.line.transformed.upper() == "YES"

    @property
    def is_limit(self) -> bool:
        return self.line.magnitude.startswith("<")

    @property
    def star_and_band(self) -> tuple[str, str]:
        return self.line.star_id, self.line.band.upper()

    def note(self, key: str) -> float | None:
        """Return the number that NOTES give for `key`, None where they do not."""
        return _number(self.note_values.get(key, ""))


@dataclass(frozen=True, slots=True)
class _File:
    """A report, its lines of data, and their fields by column."""

    report: ParsedReport
    rows: tuple[_Row, ...]
    columns: Mapping[str, tuple[str, ...]]
    now_jd: float
    evidence: Evidence


_Found = tuple[int | None, str]


@dataclass(frozen=True, slots=True)
class Rule:
    """One check: its name, what it wants in one sentence, and how much it matters."""

    name: str
    words: str
    is_error: bool
    check: Callable[[_File], Iterable[_Found]]


RULES: Final[dict[str, Rule]] = {}
"""All rules by name, in the order in which they are tried."""


def lint(text: str, *, now_jd: float, evidence: Evidence | None = None) -> tuple[LintFinding, ...]:
    """Return what the rules find in the text of a file, by line; () when it is clean.

    `now_jd` is JD(UTC), to tell what lies in the future. A byte order mark is to be left in `text`.
    Every error is told; of more than `MOST_WARNINGS` by a rule the first and their number.
    """
    report = parse_report(text)
    rows = tuple(
        _Row(row, line, note_values(line.notes), _jd(row))
        for row in report.rows
        if (line := row.line) is not None
    )
    columns = zip(*(row.row.fields for row in rows), strict=True) if rows else [()] * len(COLUMNS)
    file = _File(
        report=report,
        rows=rows,
        columns=dict(zip(COLUMNS, columns, strict=True)),
        now_jd=now_jd,
        evidence=evidence or Evidence(),
    )
    rules = [RULES["text"]] if "\0" in text else RULES.values()
    found = [
        LintFinding(rule=rule.name, is_error=rule.is_error, line_number=number, words=words)
        for rule in rules
        for number, words in (rule.check(file) if rule.is_error else _folded(rule.check(file)))
    ]
    return tuple(sorted(found, key=lambda one: one.line_number or 0))


def _folded(found: Iterable[_Found]) -> Iterator[_Found]:
    """Return warnings of one rule; where they are too many the first, and the others' number."""
    told = list(found)
    if len(told) <= MOST_WARNINGS:
        yield from told
        return
    number, words = told[0]
    yield number, f"{words} (and so {len(told) - 1} more lines, the last is {told[-1][0]})"


def _rule(
    name: str, words: str, *, error: bool
) -> Callable[[Callable[[_File], Iterable[_Found]]], Callable[[_File], Iterable[_Found]]]:
    """Enter a check of the whole file in the table."""

    def entered(check: Callable[[_File], Iterable[_Found]]) -> Callable[[_File], Iterable[_Found]]:
        assert name not in RULES
        RULES[name] = Rule(name, words, error, check)
        return check

    return entered


def _row_rule(
    name: str, words: str, *, error: bool, of: str = ""
) -> Callable[[Callable[[_Row], str | None]], Callable[[_Row], str | None]]:
    """Enter a check of one line of data, which returns what is wrong or None.

    `of` names the columns when the check looks at them alone: then it is made once for all lines
    that agree in them, which is what keeps a file of 300,000 lines short.
    """

    def entered(check: Callable[[_Row], str | None]) -> Callable[[_Row], str | None]:
        def of_rows(file: _File) -> Iterator[_Found]:
            for row in file.rows:
                if (found := check(row)) is not None:
                    yield row.row.line_number, found

        def of_columns(file: _File) -> Iterator[_Found]:
            columns = [file.columns[column] for column in of.split()]
            one_of_each = dict(zip(zip(*columns, strict=True), file.rows, strict=True))
            wrong = {
                values: found
                for values, row in one_of_each.items()
                if (found := check(row)) is not None
            }
            if wrong:
                for values, row in zip(zip(*columns, strict=True), file.rows, strict=True):
                    if values in wrong:
                        yield row.row.line_number, wrong[values]

        _rule(name, words, error=error)(of_columns if of else of_rows)
        return check

    return entered


def _shown(text: str) -> str:
    return f'"{text}"' if len(text) <= SHOWN else f'"{text[:SHOWN]}…"'


def _is_na(text: str) -> bool:
    return text.casefold() == NA


_DECIMAL: Final = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


@functools.lru_cache(maxsize=2**14)
def _number(text: str) -> float | None:
    """Return a finite number, None for anything else (Python alone would take 1_0 and nan)."""
    if not _DECIMAL.fullmatch(text):
        return None
    value = float(text)
    return value if math.isfinite(value) else None


# ---------------------------------------------------------------------------------- the plain text


@_rule("text", "The file is plain text: no NUL characters.", error=True)
def _text(file: _File) -> Iterator[_Found]:
    for number, line in enumerate(file.report.lines, start=1):
        if "\0" in line:
            yield number, "NUL characters: no plain text, or one of two bytes per letter (UTF-16)"
            return


@_rule("byte-order-mark", "No byte order mark stands before #TYPE.", error=False)
def _byte_order_mark(file: _File) -> Iterator[_Found]:
    if file.report.has_byte_order_mark:
        yield 1, "a byte order mark, which is not ASCII, is before the first #: save without BOM"


@_rule("ascii", "All characters are ASCII.", error=True)
def _ascii(file: _File) -> Iterator[_Found]:
    for number, line in enumerate(file.report.lines, start=1):
        if not line.isascii():
            strange = "".join(dict.fromkeys(c for c in line if not c.isascii()))
            yield number, f"{_shown(strange)} in {_shown(line)}: not ASCII"


@_rule("control-character", "No control characters, but tabs.", error=True)
def _control_character(file: _File) -> Iterator[_Found]:
    for number, line in enumerate(file.report.lines, start=1):
        if line.isprintable():  # the quick way, of nearly all lines
            continue
        found = sorted(set(_CONTROL.findall(line)) - {"\t"})
        if found:
            yield number, f"control character {_codes(found)}"


_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")


def _codes(characters: Iterable[str]) -> str:
    return ", ".join(f"0x{ord(c):02x}" for c in characters)


@_rule("line-end", "Lines end with LF or CRLF.", error=False)
def _line_end(file: _File) -> Iterator[_Found]:
    if file.report.cr_line_number is not None:
        yield (
            file.report.cr_line_number,
            "ends with CR alone, as no system of today writes: LF wanted",
        )


@_rule("blank-line", "Blank lines are commented out with #.", error=True)
def _blank_line(file: _File) -> Iterator[_Found]:
    for number in file.report.blank_lines:
        yield number, "blank line: WebObs refuses the file; delete it or begin it with #"


@_rule("file-extension", "The file's name ends in .txt, .csv or .tsv.", error=True)
def _file_extension(file: _File) -> Iterator[_Found]:
    name = file.evidence.file_name
    if name is not None and not name.casefold().endswith(EXTENSIONS):
        yield None, f"{_shown(name)}: WebObs accepts {', '.join(EXTENSIONS)} only"


# -------------------------------------------------------------------------------------- the header


@_rule("header-missing", "All six header lines are there.", error=True)
def _header_missing(file: _File) -> Iterator[_Found]:
    for name in REQUIRED:
        if file.report.first(name) is None:
            yield None, f"#{name}= is missing"


@_rule("header-first", "The six header lines stand above the data.", error=True)
def _header_first(file: _File) -> Iterator[_Found]:
    data = [row.line_number for row in file.report.rows]
    for name in REQUIRED:
        one = file.report.first(name)
        if one is not None and data and one.line_number > data[0]:
            yield one.line_number, f"#{name}= comes after data, which begin in line {data[0]}"


@_rule("header-order", "The six header lines come in the page's order.", error=False)
def _header_order(file: _File) -> Iterator[_Found]:
    there = [one for name in REQUIRED if (one := file.report.first(name)) is not None]
    for before, after in itertools.pairwise(there):
        if after.line_number < before.line_number:
            yield after.line_number, f"#{after.name}= stands above #{before.name}="


@_rule("header-repeated", "Only #DATE and #OBSCODE are said again.", error=True)
def _header_repeated(file: _File) -> Iterator[_Found]:
    for one in file.report.parameters:
        first = file.report.first(one.name)
        if one is not first and one.name not in ("DATE", "OBSCODE"):
            yield one.line_number, f"{_shown(one.text)}: #{one.name}= was said before"


@_rule("header-spelling", "Header lines are written #NAME=value, without blanks.", error=False)
def _header_spelling(file: _File) -> Iterator[_Found]:
    for one in file.report.parameters:
        if not re.match(r"#[A-Za-z]+=(\S|$)", one.text):
            yield one.line_number, f"{_shown(one.text)}: #{one.name}=… wanted, without blanks"


@_rule("type", "#TYPE is Extended.", error=True)
def _type(file: _File) -> Iterator[_Found]:
    one = file.report.first("TYPE")
    if one is not None and one.value.upper() != "EXTENDED":
        yield one.line_number, f"#TYPE={_shown(one.value)}: Extended wanted"


@_rule("obscode", "#OBSCODE is an observer code: a few letters and digits.", error=True)
def _obscode(file: _File) -> Iterator[_Found]:
    for one in file.report.parameters:
        if one.name == "OBSCODE" and not re.fullmatch(r"[A-Za-z0-9]{1,8}", one.value):
            yield one.line_number, f"#OBSCODE={_shown(one.value)}: no AAVSO observer code"


@_rule("software", "#SOFTWARE says what wrote the file, in at most 255 characters.", error=True)
def _software(file: _File) -> Iterator[_Found]:
    one = file.report.first("SOFTWARE")
    if one is None:
        return
    if not one.value:
        yield one.line_number, '#SOFTWARE="": name and version of the program wanted'
    elif len(one.value) > MAX_SOFTWARE:
        yield one.line_number, f"#SOFTWARE={_shown(one.value)}: {_long(one.value, MAX_SOFTWARE)}"


@_rule(
    "delim", "#DELIM is one ASCII character but # and blank, or the word comma or tab.", error=True
)
def _delim(file: _File) -> Iterator[_Found]:
    one = file.report.first("DELIM")
    if one is not None and delimiter_of(one.value) is None:
        said = "a tab" if one.value == "\t" else _shown(one.value)
        yield one.line_number, f"#DELIM={said}: one ASCII character, comma or tab wanted"


@_rule("date-kind", "#DATE is JD, HJD or EXCEL.", error=True)
def _date_kind(file: _File) -> Iterator[_Found]:
    for one in file.report.parameters:
        if one.name == "DATE" and one.value.upper() not in DATE_KINDS:
            yield one.line_number, f"#DATE={_shown(one.value)}: JD, HJD or EXCEL wanted"


@_rule("obstype", "#OBSTYPE is CCD, DSLR, PEP or VISDIG.", error=False)
def _obstype(file: _File) -> Iterator[_Found]:
    one = file.report.first("OBSTYPE")
    if one is not None and one.value.upper() not in OBSTYPES:
        yield one.line_number, f"#OBSTYPE={_shown(one.value)}: {', '.join(OBSTYPES)} are known"


@_rule("no-data", "There is at least one observation.", error=True)
def _no_data(file: _File) -> Iterator[_Found]:
    if not file.report.rows:
        yield None, "no line of data"


# ------------------------------------------------------------------------------------- the columns


@_rule("columns", "Every line of data has 15 fields.", error=True)
def _columns(file: _File) -> Iterator[_Found]:
    for row in file.report.rows:
        if file.report.delimiter is not None and len(row.fields) < len(FIELDS):
            yield (
                row.line_number,
                f"{len(row.fields)} fields, {len(FIELDS)} wanted: {_shown(row.text)}",
            )


@_rule("delimiter-in-field", "The delimiter is in no field, NOTES included.", error=True)
def _delimiter_in_field(file: _File) -> Iterator[_Found]:
    for row in file.report.rows:
        if len(row.fields) > len(FIELDS):
            mark = file.report.delimiter or ""
            tail = mark.join(row.fields[len(FIELDS) - 1 :])
            found = f"{len(row.fields)} fields, {len(FIELDS)} wanted"
            where = f"{_shown(mark)} is inside one, perhaps NOTES {_shown(tail)}"
            yield row.line_number, f"{found}: {where}"


@_row_rule("empty-field", "A field without a value holds na.", error=True)
def _empty_field(row: _Row) -> str | None:
    if "" not in row.row.fields:
        return None
    empty = [c for c, value in zip(COLUMNS, row.row.fields, strict=True) if not value]
    return f"{', '.join(empty)} empty: na wanted where there is no value"


@_row_rule("not-finite", "No value is NaN or infinite.", error=True)
def _not_finite(row: _Row) -> str | None:
    text = row.row.text.lower()
    if "nan" not in text and "inf" not in text:
        return None
    names = ("date", "magnitude", "error", "comp_mag", "check_mag", "airmass", "group")
    values = dict(zip(FIELDS, zip(COLUMNS, row.row.fields, strict=True), strict=True))
    said = [values[name] for name in names] + list(row.note_values.items())
    found = [f"{name} {_shown(value)}" for name, value in said if _NOT_FINITE.fullmatch(value)]
    return f"{', '.join(found)}: no number" if found else None


_NOT_FINITE: Final = re.compile(r"<?[+-]?(nan|inf|infinity)", re.IGNORECASE)


def _long(text: str, limit: int) -> str:
    return f"{len(text)} characters, at most {limit} wanted"


def _length_rule(name: str, column: str, limit: int, *, error: bool = True) -> None:
    attribute = FIELDS[COLUMNS.index(column)]

    @_row_rule(name, f"{column} has at most {limit} characters.", error=error, of=column)
    def _too_long(row: _Row) -> str | None:
        value: str = getattr(row.line, attribute)
        return f"{column} {_shown(value)}: {_long(value, limit)}" if len(value) > limit else None


# ------------------------------------------------------------------------------------------ STARID


@_row_rule("star-missing", "STARID names a star.", error=True, of="STARID")
def _star_missing(row: _Row) -> str | None:
    star = row.line.star_id
    return f"STARID {_shown(star)}: no star" if not star or _is_na(star) else None


_length_rule("star-length", "STARID", MAX_STAR)


@_row_rule(
    "star-character", "STARID holds no tab nor another control character.", error=True, of="STARID"
)
def _star_character(row: _Row) -> str | None:
    found = sorted(set(_CONTROL.findall(row.line.star_id)))
    return f"STARID holds {_codes(found)} (0x09 is a tab): a blank wanted" if found else None


# -------------------------------------------------------------------------------------------- DATE


_CALENDAR: Final = re.compile(
    r"(\d{1,2})/(\d{1,2})/(\d{4})\s+(\d{1,2}):(\d{2})(?::(\d{2}(?:\.\d+)?))?\s*([ap]\.?\s?m\.?)?",
    re.ASCII | re.IGNORECASE,
)


def _calendar_jd(text: str) -> float | None:
    """Return the JD of Excel's 12/31/2007 12:59:59 a.m., None where it is no such date."""
    import datetime as dt

    found = _CALENDAR.fullmatch(text)
    if found is None:
        return None
    month, day, year, hour, minute = (int(found[i]) for i in range(1, 6))
    if found[7] is not None:
        if not 1 <= hour <= 12:
            return None
        hour = hour % 12 + (12 if found[7][0] in "pP" else 0)
    try:
        date = dt.date(year, month, day)
    except ValueError:
        return None
    seconds = float(found[6] or 0)
    if hour > 23 or minute > 59 or seconds >= 60:
        return None
    return date.toordinal() + 1721424.5 + (hour + (minute + seconds / 60) / 60) / 24


def _jd(row: ReportRow) -> float | None:
    """Return the JD or HJD of a line of data, None where it has none that can be read."""
    text = row.fields[COLUMNS.index("DATE")]
    return _calendar_jd(text) if row.date_kind == "EXCEL" else _number(text)


@_row_rule("date-mismatch", "DATE is of the kind that #DATE says.", error=True)
def _date_mismatch(row: _Row) -> str | None:
    text, kind = row.line.date, row.row.date_kind
    if kind == "EXCEL" and _number(text) is not None:
        return f"DATE {_shown(text)} is a number, #DATE={kind} wants 12/31/2007 12:59:59"
    if kind in ("JD", "HJD") and re.search(r"[/:]", text):
        return f"DATE {_shown(text)} is a calendar's, #DATE={kind} wants a Julian date"
    return None


@_row_rule("date-number", "DATE can be read as a date.", error=True)
def _date_number(row: _Row) -> str | None:
    if row.jd is not None or _date_mismatch(row) is not None:
        return None
    return f"DATE {_shown(row.line.date)} cannot be read as {row.row.date_kind or 'a date'}"


@_row_rule("date-length", "DATE has at most 16 characters, unless it is Excel's.", error=True)
def _date_length(row: _Row) -> str | None:
    text = row.line.date  # the page's own example of EXCEL has 23
    if row.row.date_kind == "EXCEL" or len(text) <= MAX_DATE:
        return None
    return f"DATE {_shown(text)}: {_long(text, MAX_DATE)}"


@_row_rule("date-decimals", "DATE has the decimals of the day.", error=False)
def _date_decimals(row: _Row) -> str | None:
    text = row.line.date
    _, _, decimals = text.partition(".")
    if row.row.date_kind == "EXCEL" or row.jd is None or len(decimals) >= MIN_DATE_DECIMALS:
        return None
    step_min = 1440 * 10.0 ** -len(decimals)
    return f"DATE {_shown(text)} is to {step_min:g} min only: {MIN_DATE_DECIMALS} decimals or more"


@_row_rule("date-range", "DATE is a full Julian date, of this century or the last.", error=True)
def _date_range(row: _Row) -> str | None:
    jd = row.jd
    if jd is None or jd >= EARLIEST_JD:
        return None
    cut = " (cut by 2400000?)" if 0 < jd < 100000 else ""
    return f"DATE {_shown(row.line.date)} is before {EARLIEST_JD:.1f}{cut}"


@_rule("date-future", "DATE is not in the future.", error=True)
def _date_future(file: _File) -> Iterator[_Found]:
    for row in file.rows:
        jd = row.jd
        allowed = HELIOCENTRIC_D if row.row.date_kind == "HJD" else 0.0
        if jd is not None and jd > file.now_jd + allowed:
            yield (
                row.row.line_number,
                f"DATE {_shown(row.line.date)} is {jd - file.now_jd:.4f} d in the future, "
                f"now is {file.now_jd:.4f}",
            )


@_rule("hjd-as-jd", "Under #DATE=JD no DATE is said to be heliocentric.", error=False)
def _hjd_as_jd(file: _File) -> Iterator[_Found]:
    if file.report.delimiter is not None and {row.row.date_kind for row in file.rows} == {"JD"}:
        for number, text in file.report.comments:
            names = [one.strip().upper() for one in text.lstrip("# ").split(file.report.delimiter)]
            if len(names) > 1 and names[1] in ("HJD", "BJD", "BJD_TDB"):
                yield number, f"the columns' heading calls DATE {names[1]}, #DATE=JD"
    for row in file.rows:
        for key in ("HJD", "BJD"):
            said = row.note(key) if key in row.note_values else None
            if row.row.date_kind == "JD" and said is not None and said == row.jd:
                yield (
                    row.row.line_number,
                    f"DATE {row.line.date} is what NOTES call {key}, #DATE=JD",
                )


# ------------------------------------------------------------------------------------ MAG and MERR


def _mag(row: _Row) -> float | None:
    return _number(row.line.magnitude.removeprefix("<").strip())


@_row_rule(
    "mag-number",
    "MAG is a number, with < before it where the star is fainter.",
    error=True,
    of="MAG",
)
def _mag_number(row: _Row) -> str | None:
    return None if _mag(row) is not None else f"MAG {_shown(row.line.magnitude)} is no number"


@_row_rule("mag-point", "MAG has a decimal point.", error=True, of="MAG")
def _mag_point(row: _Row) -> str | None:
    text = row.line.magnitude
    if _mag(row) is None or "." in text:
        return None
    return f"MAG {_shown(text)} has no decimal point, 9.0 wanted rather than 9"


@_row_rule("mag-range", "MAG is a magnitude that a star can have.", error=True, of="MAG MTYPE")
def _mag_range(row: _Row) -> str | None:
    value = _mag(row)
    differential = row.line.magnitude_type.upper() == "DIF"
    low, high = DIFFERENTIAL_MAGS if differential else STANDARD_MAGS
    if value is None or low <= value <= high:
        return None
    return f"MAG {_shown(row.line.magnitude)} is outside {low:g} to {high:g}"


_length_rule("mag-length", "MAG", MAX_MAG)


@_row_rule("error-number", "MERR is a number that is not negative, or na.", error=True, of="MERR")
def _error_number(row: _Row) -> str | None:
    text = row.line.error
    value = _number(text)
    if _is_na(text) or (value is not None and value >= 0):
        return None
    return f"MERR {_shown(text)}: a positive number or na wanted"


@_row_rule("error-zero", "MERR is not 0.", error=True, of="MERR")
def _error_zero(row: _Row) -> str | None:
    if _number(row.line.error) == 0:
        return f"MERR {_shown(row.line.error)}: nothing is measured without error; na if not known"
    return None


@_row_rule("error-large", "MERR is not above 1.", error=False, of="MERR MAG")
def _error_large(row: _Row) -> str | None:
    value = _number(row.line.error)
    if value is None or value <= LARGEST_ERROR_MAG:
        return None
    return f"MERR {_shown(row.line.error)} mag says next to nothing of MAG {row.line.magnitude}"


@_row_rule("error-of-limit", "An upper limit has no MERR.", error=False, of="MERR MAG")
def _error_of_limit(row: _Row) -> str | None:
    if row.is_limit and not _is_na(row.line.error):
        return f"MERR {_shown(row.line.error)} with the limit {_shown(row.line.magnitude)}"
    return None


_length_rule("error-length", "MERR", MAX_ERROR)


# ----------------------------------------------------------------------------- FILT, TRANS, MTYPE


@_row_rule("filter", "FILT is one of the page's codes.", error=True, of="FILT")
def _filter(row: _Row) -> str | None:
    band = row.line.band
    return None if band.upper() in FILTERS else f"FILT {_shown(band)} is no code of the AAVSO's"


@_row_rule(
    "filter-case", "FILT is written in capitals: R is not Sloan's r.", error=False, of="FILT"
)
def _filter_case(row: _Row) -> str | None:
    band = row.line.band
    code = band.upper()
    if band == code or code not in FILTERS or code in SLOAN_FILTERS:
        return None
    others = f"; if it is {LIKE_SPELLED[code]} it wants that code" if code in LIKE_SPELLED else ""
    return f"FILT {_shown(band)} is read as {code}{others}"


@_row_rule("trans", "TRANS is YES or NO.", error=True, of="TRANS")
def _trans(row: _Row) -> str | None:
    said = row.line.transformed
    return None if said.upper() in ("YES", "NO") else f"TRANS {_shown(said)}: YES or NO wanted"


_COEFFICIENT: Final = re.compile(r"T[A-Z]{1,2}_?[A-Z]{2}|T[A-Z]{2}")


@_row_rule("trans-how", "TRANS=YES says how in NOTES: the coefficients, or words.", error=False)
def _trans_how(row: _Row) -> str | None:
    if not row.is_transformed or "transf" in row.line.notes.casefold() or _names_coefficient(row):
        return None
    return f"TRANS YES, and NOTES {_shown(row.line.notes)} do not say how"


def _names_coefficient(row: _Row) -> bool:
    return any(key[0:1] == "T" and _COEFFICIENT.fullmatch(key) for key in row.note_values)


@_row_rule("mtype", "MTYPE is STD or DIF (or ABS, which is old).", error=True, of="MTYPE")
def _mtype(row: _Row) -> str | None:
    said = row.line.magnitude_type
    known = said.upper() in ("STD", "DIF", "ABS")
    return None if known else f"MTYPE {_shown(said)}: STD or DIF wanted"


@_row_rule("mtype-old", "MTYPE is not ABS.", error=False, of="MTYPE")
def _mtype_old(row: _Row) -> str | None:
    said = row.line.magnitude_type
    return f"MTYPE {_shown(said)} is old: STD wanted" if said.upper() == "ABS" else None


# -------------------------------------------------------------------------- comps and check star


@_row_rule("dif-without-comp", "MTYPE=DIF names its comparison star.", error=True, of="MTYPE CNAME")
def _dif_without_comp(row: _Row) -> str | None:
    if row.line.magnitude_type.upper() == "DIF" and _is_na(row.line.comp_name):
        return f"MTYPE DIF with CNAME {_shown(row.line.comp_name)}: differs from what?"
    return None


_length_rule("comp-name-length", "CNAME", MAX_NAME)
_length_rule("comp-mag-length", "CMAG", MAX_MAG)
_length_rule("check-name-length", "KNAME", MAX_NAME)
_length_rule("check-mag-length", "KMAG", MAX_MAG)


def _number_rule(name: str, column: str) -> None:
    attribute = FIELDS[COLUMNS.index(column)]

    @_row_rule(name, f"{column} is a number or na.", error=True, of=column)
    def _no_number(row: _Row) -> str | None:
        value: str = getattr(row.line, attribute)
        if _is_na(value) or not value or _number(value) is not None:
            return None
        return f"{column} {_shown(value)}: a number or na wanted"


_number_rule("comp-mag-number", "CMAG")
_number_rule("check-mag-number", "KMAG")


@_row_rule("ensemble-comp-mag", "An ensemble has CMAG na.", error=True, of="CNAME CMAG")
def _ensemble_comp_mag(row: _Row) -> str | None:
    if row.is_ensemble and not _is_na(row.line.comp_mag):
        return f"CMAG {_shown(row.line.comp_mag)} with CNAME {row.line.comp_name}: na wanted"
    return None


@_row_rule(
    "comp-without-mag", "A single comparison star has its CMAG.", error=False, of="CNAME CMAG"
)
def _comp_without_mag(row: _Row) -> str | None:
    single = not row.is_ensemble and not _is_na(row.line.comp_name)
    if single and _is_na(row.line.comp_mag):
        return f"CNAME {_shown(row.line.comp_name)} with CMAG na: its instrumental magnitude wanted"
    return None


@_row_rule("comp-mag-without-name", "CMAG comes with a CNAME.", error=False, of="CNAME CMAG")
def _comp_mag_without_name(row: _Row) -> str | None:
    if _is_na(row.line.comp_name) and not _is_na(row.line.comp_mag):
        return f"CMAG {_shown(row.line.comp_mag)} with CNAME na: of which star?"
    return None


@_row_rule("comp-mag-of-catalogue", "CMAG is instrumental, not the catalogue's.", error=False)
def _comp_mag_of_catalogue(row: _Row) -> str | None:
    value, reference = _number(row.line.comp_mag), row.note("CREFMAG")
    if value is None or reference is None or row.note("CMAGINS") == value or value != reference:
        return None
    return f"CMAG {_shown(row.line.comp_mag)} is CREFMAG: the instrumental magnitude wanted"


@_row_rule("check-without-mag", "A check star has its KMAG.", error=False, of="KNAME KMAG")
def _check_without_mag(row: _Row) -> str | None:
    if not _is_na(row.line.check_name) and _is_na(row.line.check_mag):
        return f"KNAME {_shown(row.line.check_name)} with KMAG na"
    return None


@_row_rule("check-mag-without-name", "KMAG comes with a KNAME.", error=False, of="KNAME KMAG")
def _check_mag_without_name(row: _Row) -> str | None:
    if _is_na(row.line.check_name) and not _is_na(row.line.check_mag):
        return f"KMAG {_shown(row.line.check_mag)} with KNAME na: of which star?"
    return None


@_row_rule(
    "check-is-comp", "The check star is not the comparison star.", error=True, of="KNAME CNAME"
)
def _check_is_comp(row: _Row) -> str | None:
    if _is_na(row.line.check_name) or _spelled(row.line.check_name) != _spelled(row.line.comp_name):
        return None
    return f"KNAME {_shown(row.line.check_name)} is CNAME: a star cannot check itself"


@_row_rule("check-is-star", "The check star is not the star itself.", error=True, of="KNAME STARID")
def _check_is_star(row: _Row) -> str | None:
    if _is_na(row.line.check_name) or _spelled(row.line.check_name) != _spelled(row.line.star_id):
        return None
    return f"KNAME {_shown(row.line.check_name)} is STARID: a constant star wanted"


def _spelled(name: str) -> str:
    """Return a name without what spellings of it differ in: case and blanks."""
    return "".join(name.split()).casefold()


@_row_rule("ensemble-check-mag", "With an ensemble KMAG is standardised.", error=False)
def _ensemble_check_mag(row: _Row) -> str | None:
    value, reference = _number(row.line.check_mag), row.note("KREFMAG")
    if not row.is_ensemble or value is None:
        return None
    if reference is not None and abs(value - reference) > MAX_CHECK_OFF_MAG + 1e-9:
        return f"KMAG {_shown(row.line.check_mag)} is {value - reference:+.3f} from KREFMAG"
    if reference is None and value < 0:
        return f"KMAG {_shown(row.line.check_mag)} looks instrumental, standardised wanted"
    return None


# --------------------------------------------------------------------------- AMASS, GROUP, CHART


@_row_rule("airmass-number", "AMASS is a number or na.", error=True, of="AMASS")
def _airmass_number(row: _Row) -> str | None:
    text = row.line.airmass
    if not text or _is_na(text) or _number(text) is not None:
        return None
    return f"AMASS {_shown(text)}: a number or na wanted"


@_row_rule("airmass-range", "AMASS is between 1 and 40.", error=True, of="AMASS")
def _airmass_range(row: _Row) -> str | None:
    value = _number(row.line.airmass)
    low, high = AIRMASS_LIMITS
    if value is None or low <= value <= high:
        return None
    return f"AMASS {_shown(row.line.airmass)} is no airmass, 1 to {high:g} wanted; na if not known"


_length_rule("airmass-length", "AMASS", MAX_AIRMASS, error=False)  # is cut, says the page


@_row_rule("group", "GROUP is an integer of at most 5 characters, or na.", error=True, of="GROUP")
def _group(row: _Row) -> str | None:
    text = row.line.group
    if not text or _is_na(text) or re.fullmatch(rf"\d{{1,{MAX_GROUP}}}", text, re.ASCII):
        return None
    return f"GROUP {_shown(text)}: an integer of at most {MAX_GROUP} digits or na wanted"


@_rule("group-repeats-filter", "Within a GROUP a filter comes once.", error=False)
def _group_repeats_filter(file: _File) -> Iterator[_Found]:
    first: dict[tuple[str | None, str, int, str, str], int] = {}
    for row in file.rows:
        jd, group = row.jd, row.line.group
        if jd is None or not group or _is_na(group):
            continue
        place = (row.row.obscode, row.line.star_id, math.floor(jd), group, row.line.band.upper())
        before = first.setdefault(place, row.row.line_number)
        if before != row.row.line_number:
            yield (
                row.row.line_number,
                f"GROUP {_shown(group)} has {row.line.band} in line {before} already: na wanted "
                "for a time series",
            )


_length_rule("chart-length", "CHART", MAX_NAME)


@_row_rule(
    "chart-missing",
    "CHART says which sequence the comparison stars are of.",
    error=False,
    of="CHART CNAME",
)
def _chart_missing(row: _Row) -> str | None:
    if _is_na(row.line.chart) and not _is_na(row.line.comp_name):
        return f"CHART {_shown(row.line.chart)}: the chart's ID, or words on the sequence, wanted"
    return None


# ------------------------------------------------------------------------------------------ NOTES


_length_rule("notes-length", "NOTES", MAX_NOTES, error=False)

_NUMBERS: Final = frozenset(
    {
        *("VMAGINS", "VERR", "CMAGINS", "CREFMAG", "CREFERR", "KMAGINS", "KREFMAG", "KREFERR"),
        *("KMAGSTD", "ZPERR", "VX", "CX", "KX"),
    }
)


@_row_rule("notes-number", "VMAGINS, CREFMAG and their kind are numbers in NOTES.", error=False)
def _notes_number(row: _Row) -> str | None:
    wrong = [
        f"{key}={_shown(value)}"
        for key, value in row.note_values.items()
        if key in _NUMBERS and not _is_na(value) and _number(value) is None
    ]
    return f"NOTES {', '.join(wrong)}: numbers wanted" if wrong else None


@_row_rule(
    "ensemble-untransformable",
    "An untransformed ensemble line has VMAGINS, CMAGINS and CREFMAG in NOTES.",
    error=False,
)
def _ensemble_untransformable(row: _Row) -> str | None:
    if not row.is_ensemble or row.is_transformed or row.is_limit:
        return None
    lacking = [key for key in ("VMAGINS", "CMAGINS", "CREFMAG") if row.note(key) is None]
    if not lacking:
        return None
    return f"NOTES without {', '.join(lacking)}: nobody can transform it later"


@_row_rule(
    "ensemble-sum",
    "MAG of an untransformed ensemble line is VMAGINS - CMAGINS + CREFMAG.",
    error=False,
)
def _ensemble_sum(row: _Row) -> str | None:
    if not row.is_ensemble or row.is_transformed or row.is_limit or _names_coefficient(row):
        return None
    mag = _mag(row)
    instrumental, comp, reference = (row.note(k) for k in ("VMAGINS", "CMAGINS", "CREFMAG"))
    if mag is None or instrumental is None or comp is None or reference is None:
        return None
    texts = [row.line.magnitude, *(row.note_values[k] for k in ("VMAGINS", "CMAGINS", "CREFMAG"))]
    rounding = sum(_half_a_step(text) for text in texts)
    total = instrumental - comp + reference
    if abs(mag - total) <= rounding + 1e-9:
        return None
    return f"MAG {_shown(row.line.magnitude)} is not VMAGINS - CMAGINS + CREFMAG = {total:.3f}"


def _half_a_step(text: str) -> float:
    """Return by how much a number may be off by its rounding."""
    _, _, decimals = text.partition(".")
    return 0.5 * 10.0 ** -len(decimals)


# ------------------------------------------------------------------------------------- all together


_Place = tuple[str | None, str, float | str, str]


def _place(row: _Row, star: str) -> _Place:
    """Return what lines of one observation have in common; dates count by value, not by text."""
    return row.row.obscode, star, row.line.date if row.jd is None else row.jd, row.line.band.upper()


@_rule("duplicate", "Nobody reports a star at one time through one filter twice.", error=True)
def _duplicate(file: _File) -> Iterator[_Found]:
    first: dict[_Place, int] = {}
    for row in file.rows:
        before = first.setdefault(_place(row, row.line.star_id), row.row.line_number)
        if before != row.row.line_number:
            yield (
                row.row.line_number,
                f"{row.line.star_id} {row.line.date} {row.line.band} is in line {before} already",
            )


@_rule("duplicate-spelling", "A star is spelled in one way.", error=False)
def _duplicate_spelling(file: _File) -> Iterator[_Found]:
    """Return lines that are duplicates but for case and blanks of STARID."""
    stars = set(file.columns["STARID"])
    if len({_spelled(star) for star in stars}) == len(stars):
        return
    first: dict[_Place, tuple[str, int]] = {}
    for row in file.rows:
        star = row.line.star_id
        before, number = first.setdefault(_place(row, _spelled(star)), (star, row.row.line_number))
        if before != star:
            yield (
                row.row.line_number,
                f"{_shown(star)} {row.line.date} {row.line.band} is in line {number} as "
                f"{_shown(before)}",
            )


# ---------------------------------------------------------------------------------- wombat's own


def _first_lines(
    rows: Iterable[_Row], known: Mapping[tuple[str, str], str]
) -> Iterator[tuple[int, tuple[str, str], str, int]]:
    """Return the first line of each star and band of `known`, the words, and how many lines."""
    if not known:
        return
    counts = Counter(row.star_and_band for row in rows)
    told = set()
    for row in rows:
        place = row.star_and_band
        if place in known and place not in told:
            told.add(place)
            yield row.row.line_number, place, known[place], counts[place]


def _lines(n: int) -> str:
    return f"{n} line{'' if n == 1 else 's'}"


@_rule("unconfirmed-filter", "Somebody confirmed which filter it is (wombat's).", error=True)
def _unconfirmed_filter(file: _File) -> Iterator[_Found]:
    for number, (star, band), why, n in _first_lines(file.rows, file.evidence.unconfirmed_filters):
        yield number, f"FILT {band} of {star} is a guess ({_lines(n)}): {why}"


@_rule("unconfirmed-star", "Somebody confirmed a star found by position (wombat's).", error=True)
def _unconfirmed_star(file: _File) -> Iterator[_Found]:
    known = {
        row.star_and_band: file.evidence.unconfirmed_stars[row.line.star_id]
        for row in file.rows
        if row.line.star_id in file.evidence.unconfirmed_stars
    }
    told = set()
    for number, (star, _), why, _n in _first_lines(file.rows, known):
        if star not in told:
            told.add(star)
            yield number, f"STARID {_shown(star)} was found by position alone: {why}"


@_rule("held-night", "The night's check star is in control (wombat's).", error=True)
def _held_night(file: _File) -> Iterator[_Found]:
    for number, (star, band), why, n in _first_lines(file.rows, file.evidence.held_nights):
        yield number, f"{star} {band} is held ({_lines(n)}): {why}"


@_rule("catalogue-chart", "Comparison stars are of an AAVSO chart (wombat's).", error=False)
def _catalogue_chart(file: _File) -> Iterator[_Found]:
    for number, (star, band), why, n in _first_lines(file.rows, file.evidence.catalogue_charts):
        yield number, f"{star} {band} ({_lines(n)}): {why}"
