"""AAVSO's Extended File Format 1.2: lines from a night's magnitudes, files out of lines, and back.

What is written follows DOMAIN section 3 and the format's page; where those leave a choice:

- ``CMAGINS`` of an ensemble is ``CREFMAG`` less the frame's zero point. The zero point is robust,
  so this is the comps' mean instrumental magnitude with each comp's night-mean residual and weight
  taken into account; what counts is that MAG = VMAGINS - CMAGINS + CREFMAG holds to rounding
  wherever no colour term was applied. Where one was, it is what that sum lacks.
- An upper limit has no ``VMAGINS``: the counts under it are not the star's.
- A frame on which the check star has no value has KNAME and KMAG ``na``.
- Text is made ASCII by `plain`: letters lose their accents, Greek letters are spelled out, signs
  have their usual stand-ins, anything else becomes ``?``, so that a loss is seen.

Whether a file is good is `aavso_lint`'s to say; `parse_report` reads any program's.
"""

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Final

import numpy as np

from wombat_dagster.domain import (
    VSP,
    BoolArray,
    Flag,
    FloatArray,
    PhotometryTable,
    ReportLine,
    StandardMagnitudes,
    Variable,
)

NA: Final = "na"
ENSEMBLE: Final = "ENSEMBLE"
COLUMNS: Final = (
    "STARID", "DATE", "MAG", "MERR", "FILT", "TRANS", "MTYPE", "CNAME", "CMAG", "KNAME", "KMAG",
    "AMASS", "GROUP", "CHART", "NOTES",
)  # fmt: skip
"""The page's names, in the file's order: that of the fields of `ReportLine`."""
FIELDS: Final = tuple(one.name for one in fields(ReportLine))
REQUIRED: Final = ("TYPE", "OBSCODE", "SOFTWARE", "DELIM", "DATE", "OBSTYPE")
HEADING: Final = (
    "#NAME,DATE,MAG,MERR,FILT,TRANS,MTYPE,CNAME,CMAG,KNAME,KMAG,AMASS,GROUP,CHART,NOTES"
)

MAX_STAR: Final = 30
MAX_NAME: Final = 20  # of CNAME, KNAME and CHART
MAX_SOFTWARE: Final = 255
MAX_PERSON_WORDS: Final = 1000
WRITTEN_DELIMITERS: Final = (",", ";", "!", "\t")  # recommended ones; | is what NOTES need
DELIMITER_WORDS: Final[Mapping[str, str]] = {"comma": ",", "tab": "\t"}
SEPARATOR: Final = "|"  # of the KEY=VALUE in NOTES
MAG_DECIMALS: Final = 3
AIRMASS_LIMITS: Final = (0.99, 40.0)  # formulae give 0.9997 at the zenith, 38 at the horizon
MAX_GAP_IN_SET_D: Final = 1 / 48  # between the frames of a multi-filter set
SECONDS_PER_DAY: Final = 86400


# --------------------------------------------------------------------------------------- writing


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportHeader:
    """What stands at the top of a report: who, with what, and how the rest is to be read."""

    obscode: str
    software: str  # "wombat 0.6.0"
    delimiter: str = ","  # one of `WRITTEN_DELIMITERS`
    date: str = "JD"
    obstype: str = "CCD"
    comments: tuple[str, ...] = ()


def format_report(header: ReportHeader, lines: Sequence[ReportLine]) -> str:
    """Return the file, LF at line ends. Comments are made `plain`, data must be already.

    Raises
    ------
    ValueError
        Something cannot be written as it stands: a field that is empty, that begins or ends with a
        blank, or that holds the delimiter, a control or non-ASCII character; such a header; a
        delimiter other than the recommended ones.
    """
    if header.delimiter not in WRITTEN_DELIMITERS:
        raise ValueError(f"delimiter {header.delimiter!r}: one of , ; ! and tab wanted")
    delimiter = {",": ",", "\t": "tab"}.get(header.delimiter, header.delimiter)
    values = ("Extended", header.obscode, header.software, delimiter, header.date, header.obstype)
    head = []
    for name, value in zip(REQUIRED, values, strict=True):
        if not value or value != plain(value):
            raise ValueError(f"#{name}={value!r} cannot be written: plain ASCII words wanted")
        head.append(f"#{name}={value}")
    head += [f"# {plain(words).replace('=', ':')}" for words in header.comments]
    head.append(HEADING.replace(",", header.delimiter))
    return "".join(
        f"{line}\n" for line in (*head, *(_row(line, header.delimiter) for line in lines))
    )


def _row(line: ReportLine, delimiter: str) -> str:
    values = [getattr(line, name) for name in FIELDS]
    for column, value in zip(COLUMNS, values, strict=True):
        if not value or value != value.strip() or not (value.isascii() and value.isprintable()):
            raise ValueError(f"{column} {value!r} of {line.star_id}: printable ASCII wanted")
        if delimiter in value:
            raise ValueError(f"{column} {value!r} of {line.star_id} holds the delimiter")
    if line.star_id.startswith("#"):
        raise ValueError(f"STARID {line.star_id!r} would make the line a comment")
    return delimiter.join(values)


_STAND_INS: Final = str.maketrans(
    {
        "ß": "ss", "æ": "ae", "Æ": "AE", "ø": "o", "Ø": "O", "œ": "oe", "Œ": "OE", "ł": "l",
        "Ł": "L", "đ": "d", "Đ": "D", "ð": "d", "þ": "th", "ı": "i", "–": "-", "—": "-", "−": "-",
        "‐": "-", "‑": "-", "°": " deg", "′": "'", "″": "''", "‘": "'", "’": "'", "“": '"',
        "”": '"', "±": "+/-", "×": "x", "·": ".", "µ": "u", "≤": "<=", "≥": ">=", "…": "...",
    }
)  # fmt: skip


def plain(text: str) -> str:
    """Return `text` as one line of printable ASCII, blanks collapsed; see the top of the module."""
    made = []
    for character in unicodedata.normalize("NFKD", text.translate(_STAND_INS)):
        if character.isascii():
            made.append(character if character.isprintable() else " ")
        elif not unicodedata.combining(character):
            made.append(_spelled_out(character))
    return " ".join("".join(made).split())


def _spelled_out(character: str) -> str:
    name = unicodedata.name(character, "")
    greek = re.fullmatch(r"GREEK (SMALL|CAPITAL) LETTER (?:FINAL )?([A-Z]+)", name)
    if greek:
        size, letter = greek.groups()
        return letter.capitalize() if size == "CAPITAL" else letter.lower()
    return " " if character.isspace() else "?"


def note_words(text: str, delimiter: str = ",") -> str:
    """Return words for the free part of NOTES: no delimiter, and nothing that reads as KEY=VALUE.

    A comma becomes a semicolon (``;`` a comma where that is the delimiter), ``|`` a slash, ``=`` a
    colon, and ``"``, which readers of CSV may take for the begin of a field, an apostrophe.
    """
    made = plain(text).replace(SEPARATOR, "/").replace("=", ":").replace('"', "'")
    return plain(made.replace(delimiter, "," if delimiter == ";" else ";"))


def noted(line: ReportLine, words: str, *, delimiter: str = ",") -> ReportLine:
    """Return the line with further words at the beginning of its NOTES."""
    free, bar, keys = line.notes.partition(SEPARATOR)
    before = "" if free.strip().casefold() == NA else free.strip()
    return replace(
        line, notes=_joined((note_words(words, delimiter), before), delimiter) + bar + keys
    )


def _joined(words: Iterable[str], delimiter: str) -> str:
    mark = ", " if delimiter == ";" else "; "
    return mark.join(filter(None, words)) or NA


def star_id_of(variable: Variable, *, delimiter: str = ",") -> str:
    """Return what STARID calls the star: its VSX name, its AUID where that cannot be written.

    Raises
    ------
    ValueError
        Neither can.
    """
    name = " ".join(variable.name.split())
    if _is_star_id(name, delimiter):
        return name
    auid = (variable.auid or "").strip()
    if _is_star_id(auid, delimiter):
        return auid
    raise ValueError(
        f"{name!r} cannot stand in a report (at most {MAX_STAR} characters of ASCII without "
        f"{delimiter!r}), and the star has no AUID"
    )


def _is_star_id(name: str, delimiter: str) -> bool:
    return (
        0 < len(name) <= MAX_STAR
        and name.isascii()
        and name.isprintable()
        and not {delimiter, '"'} & set(name)
        and not name.startswith("#")
        and name.casefold() != NA
    )


# ----------------------------------------------------------------------- lines out of magnitudes


def observation_lines(
    magnitudes: StandardMagnitudes,
    table: PhotometryTable,
    *,
    rejected: BoolArray,
    star_id: str,
    groups: Sequence[str] | None = None,
    notes: str = "",
    delimiter: str = ",",
) -> tuple[tuple[int, ReportLine], ...]:
    """Return (index of the frame, line) of every point that has a magnitude and is not rejected.

    Parameters
    ----------
    magnitudes, table
        One observation; both of the same frames in the same order.
    rejected
        Points that are not reported, shape (n_frames,): proposals and the person's decisions
        already put together. A proposal that the person took back is told in NOTES.
    star_id
        See `star_id_of`.
    groups
        GROUP of each frame, see `group_numbers`; None: ``na``.
    notes
        The person's own words for NOTES.

    Raises
    ------
    ValueError
        The table is not of these frames.
    """
    if magnitudes.raw_hashes != table.raw_hashes:
        raise ValueError(
            f"{magnitudes.target}: {len(magnitudes.raw_hashes)} magnitudes are not of the "
            f"{len(table.raw_hashes)} frames of the measurement table"
        )
    night = _NightWords.of(magnitudes, table, notes=notes, delimiter=delimiter)
    reported = np.isfinite(magnitudes.t1_mag) & np.isfinite(magnitudes.jd_utc) & ~rejected
    return tuple(
        (
            i,
            _line(magnitudes, night, i, star_id=star_id, group=groups[i] if groups else NA),
        )
        for i in np.flatnonzero(reported).tolist()
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _NightWords:
    """What is the same in all lines of an observation, ready to be written.

    `of_frame` are each frame's own words.
    """

    delimiter: str
    is_single: bool
    chart: str
    comp_name: str
    check_name: str | None
    check_reference_mag: float | None
    words: tuple[str, ...]
    of_frame: tuple[tuple[str, ...], ...]
    keys: tuple[str, ...]

    @classmethod
    def of(
        cls, magnitudes: StandardMagnitudes, table: PhotometryTable, *, notes: str, delimiter: str
    ) -> "_NightWords":
        single = is_single(magnitudes)
        name = magnitudes.comp_names[0] if single else ENSEMBLE
        chart = magnitudes.chart_id
        if magnitudes.comp_source not in (None, VSP):
            chart = str(magnitudes.comp_source).removesuffix(" (VizieR)")
        return cls(
            delimiter=delimiter,
            is_single=single,
            chart=_name(chart, delimiter),
            comp_name=_name(name, delimiter),
            check_name=_check_name(magnitudes, table, delimiter),
            check_reference_mag=magnitudes.check_catalogue_mag,
            words=_words(magnitudes, notes),
            of_frame=tuple(_frame_words(magnitudes, table, i) for i in range(len(table.labels))),
            keys=_coefficient_keys(magnitudes),
        )


def is_single(magnitudes: StandardMagnitudes) -> bool:
    """Tell whether one comp alone gives every frame its zero point, so that CNAME is its name."""
    return len(magnitudes.comp_names) == 1 and magnitudes.n_field_stars == 0


def _line(
    magnitudes: StandardMagnitudes, night: _NightWords, i: int, *, star_id: str, group: str
) -> ReportLine:
    limit = bool(magnitudes.t1_upper_limit[i])
    comp_instrumental = magnitudes.ensemble_reference_mag - float(magnitudes.zero_point_mag[i])
    check = (magnitudes.t2_instrumental_mag if night.is_single else magnitudes.t2_mag)[i]
    has_check = night.check_name is not None and math.isfinite(check)
    error = magnitudes.t1_merr_mag[i]
    return ReportLine(
        star_id=star_id,
        date=f"{magnitudes.jd_utc[i]:.6f}",
        magnitude=("<" if limit else "") + _mag(magnitudes.t1_mag[i]),
        error=NA if limit or not math.isfinite(error) else error_text(float(error)),
        band=magnitudes.band,
        transformed="YES" if magnitudes.transformed else "NO",
        magnitude_type="STD",
        comp_name=night.comp_name,
        comp_mag=_mag(comp_instrumental) if night.is_single else NA,
        check_name=night.check_name if has_check and night.check_name else NA,
        check_mag=_mag(check) if has_check else NA,
        airmass=airmass_text(float(magnitudes.airmass[i])),
        group=group,
        chart=night.chart,
        notes=_notes(magnitudes, night, i, comp_instrumental=comp_instrumental, limit=limit),
    )


def _notes(
    magnitudes: StandardMagnitudes,
    night: _NightWords,
    i: int,
    *,
    comp_instrumental: float,
    limit: bool,
) -> str:
    """Return words, then ``|KEY=VALUE`` of what makes the line transformable later."""
    instrumental = float(magnitudes.t1_instrumental_mag[i])
    check = float(magnitudes.t2_instrumental_mag[i])
    known: list[tuple[str, float | None]] = [
        ("VMAGINS", None if limit else instrumental),
        ("CMAGINS", comp_instrumental),
        ("CREFMAG", magnitudes.ensemble_reference_mag),
        ("KMAGINS", check if night.check_name else None),
        ("KREFMAG", night.check_reference_mag if night.check_name else None),
    ]
    keys = [
        f"{k}={_mag(value)}" for k, value in known if value is not None and math.isfinite(value)
    ]
    if math.isfinite(magnitudes.zp_err_mag):
        keys.append(f"ZPERR={error_text(magnitudes.zp_err_mag)}")
    words = [note_words(one, night.delimiter) for one in (*night.words, *night.of_frame[i])]
    return SEPARATOR.join([_joined(words, night.delimiter), *keys, *night.keys])


def _words(magnitudes: StandardMagnitudes, notes: str) -> tuple[str, ...]:
    """Return what is to be said of all points of the night, the person's words first."""
    words = [plain(notes)[:MAX_PERSON_WORDS]]
    for note in magnitudes.notes:
        if note.startswith("not calibrated for: "):
            missing = note.removeprefix("not calibrated for: ").split(", ")
            words.append(", ".join(f"no {name}" for name in missing))
    if magnitudes.comp_source not in (None, VSP):
        words.append(f"comps from {magnitudes.comp_source}, not of an AAVSO sequence")
    if magnitudes.n_field_stars:
        words.append(f"zero point steadied by {magnitudes.n_field_stars} field stars")
    if magnitudes.merr == "total":
        words.append("MERR holds ZPERR")
    if magnitudes.held_reason:
        words.append(f"check star: {magnitudes.held_reason}")
    used = magnitudes.transformation
    if magnitudes.transformed:
        colour = "" if used.target_colour is None else f" {used.target_colour:.3f}"
        words.append(
            f"transformed with {used.coefficient_name or 'a stored coefficient'} and "
            f"{used.colour_index or 'colour'}{colour} ({used.source})"
        )
    elif _has_colour_term(magnitudes):
        words.append(f"colour term in MAG is no transformation: {used.source}")
    return tuple(filter(None, words))


def _has_colour_term(magnitudes: StandardMagnitudes) -> bool:
    return magnitudes.transformed or magnitudes.method == "colour-fit"


def _coefficient_keys(magnitudes: StandardMagnitudes) -> tuple[str, ...]:
    """Return ``Tv_bv=-0.0600`` and its error, where it is in the magnitudes."""
    used = magnitudes.transformation
    if not _has_colour_term(magnitudes) or used.coefficient is None:
        return ()
    name = re.sub(r"\W", "", plain(used.coefficient_name or "")) or "T"
    keys = [f"{name}={used.coefficient:.4f}"]
    if used.coefficient_error is not None and math.isfinite(used.coefficient_error):
        keys.append(f"{name}Err={used.coefficient_error:.4f}")
    return tuple(keys)


_FLAG_WORDS: Final[Mapping[int, str]] = {
    Flag.NON_LINEAR: "beyond linearity",
    Flag.BLENDED: "another star in the aperture",
    Flag.ELONGATED: "stars elongated",
}


def _frame_words(magnitudes: StandardMagnitudes, table: PhotometryTable, i: int) -> tuple[str, ...]:
    """Return what is to be said of one point: why it was doubted, and T1's flags."""
    words = []
    if magnitudes.proposed_rejected[i]:
        words.append(f"kept by the observer although: {magnitudes.proposed_rejected[i]}")
    t1 = table.star_index("T1")
    if t1 is not None:
        flags = int(table.measured.flags[i, t1])
        words += [said for bit, said in _FLAG_WORDS.items() if flags & bit]
    return tuple(words)


def _check_name(
    magnitudes: StandardMagnitudes, table: PhotometryTable, delimiter: str
) -> str | None:
    if magnitudes.check_name is None:
        return None
    t2 = table.star_index("T2")
    auid = None if t2 is None else table.stars[t2].auid
    return _name(auid or magnitudes.check_name, delimiter)


_PLACE: Final = re.compile(r"(.*?)(\d{6})\d*(?:\.\d*)?([+-])(\d{6})\d*(?:\.\d*)?", re.ASCII)
_PLACE_DIGITS: Final = ((6, 6), (6, 4), (4, 4))  # of hhmmss and ddmmss


def _name(text: str, delimiter: str) -> str:
    """Return a name or chart cut to what the column takes.

    A name that is a place keeps both coordinates, each with fewer of its units: cut inside the
    declination ``APASS J060112.34-151223.4`` would be another star's.
    """
    name = note_words(text, delimiter)
    place = _PLACE.fullmatch(name)
    if len(name) > MAX_NAME and place is not None:
        catalogue, ra, sign, dec = place.groups()
        places = (f"{catalogue}{ra[:of_ra]}{sign}{dec[:of_dec]}" for of_ra, of_dec in _PLACE_DIGITS)
        name = next((one for one in places if len(one) <= MAX_NAME), name)
    return name[:MAX_NAME].strip() or NA


def _mag(value: float) -> str:
    text = f"{value:.{MAG_DECIMALS}f}"
    return text.lstrip("-") if float(text) == 0 else text


def error_text(error_mag: float) -> str:
    """Return an error with 3 decimals, rounded up: never smaller than it is, and never 0."""
    steps = math.ceil(error_mag * 10**MAG_DECIMALS - 1e-6)
    return f"{max(steps, 1) / 10**MAG_DECIMALS:.{MAG_DECIMALS}f}"


def airmass_text(airmass: float) -> str:
    """Return the airmass in at most 7 characters; na below the horizon and where not known.

    What the formula gives below 1, near the zenith, is 1.
    """
    low, high = AIRMASS_LIMITS
    return f"{max(airmass, 1.0):.4f}" if low <= airmass <= high else NA  # NaN is not


# ----------------------------------------------------------------------------------------- GROUP


def group_numbers(
    times: Mapping[str, FloatArray], bands: Mapping[str, str]
) -> dict[str, tuple[str, ...]]:
    """Return GROUP of every frame of one star and night, by the key of its observation.

    Parameters
    ----------
    times
        JD(UTC) at mid-exposure by observation, each of shape (n_frames,); NaN: in no set.
    bands
        AAVSO code by observation.

    Notes
    -----
    A set is a run of frames, in time, no two of them in one band, each within 30 min of the one
    before; a band that comes again begins the next set. A set of a single frame is none: ``na``,
    as for a night through one filter. All frames count, rejected ones too, so that decisions do not
    regroup what is reported.

    The page wants an integer that is unique for observer, star and Julian date, of at most 5
    characters. It is the second of the Julian day (1 to 86400) of the set's first frame: of two
    nights that share a Julian date, as in Australia, no numbers meet, and nothing is counted that
    could be counted otherwise the next time.
    """
    frames = sorted(
        (float(jd), key, i)
        for key, of_one in times.items()
        for i, jd in enumerate(of_one)
        if math.isfinite(jd)
    )
    groups = {key: [NA] * len(of_one) for key, of_one in times.items()}
    for one in _sets(frames, bands):
        if len(one) > 1:
            number = str(int((one[0][0] % 1) * SECONDS_PER_DAY) + 1)
            for _, key, i in one:
                groups[key][i] = number
    return {key: tuple(of_one) for key, of_one in groups.items()}


_Frame = tuple[float, str, int]


def _sets(frames: Iterable[_Frame], bands: Mapping[str, str]) -> list[list[_Frame]]:
    sets: list[list[_Frame]] = []
    seen: set[str] = set()
    for frame in frames:
        jd, key, _ = frame
        if not sets or bands[key] in seen or jd - sets[-1][-1][0] > MAX_GAP_IN_SET_D:
            sets.append([])
            seen = set()
        sets[-1].append(frame)
        seen.add(bands[key])
    return sets


# --------------------------------------------------------------------------------------- reading


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One ``#NAME=value`` of the six; `text` is the line as it stands."""

    line_number: int
    name: str  # upper case
    value: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportRow:
    """One line of data, its fields without blanks around them, and what holds for it.

    `date_kind` (``JD``, ``HJD``, ``EXCEL``, or what stands there, upper case) and `obscode` are
    those last said above it: both may change within a file.
    """

    line_number: int
    text: str
    fields: tuple[str, ...]
    date_kind: str | None
    obscode: str | None

    @property
    def line(self) -> ReportLine | None:
        """The fields by name; None where their number is wrong."""
        if len(self.fields) != len(FIELDS):
            return None
        return ReportLine(**dict(zip(FIELDS, self.fields, strict=True)))


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedReport:
    """A report as it was read, good or bad. Line numbers begin at 1.

    `delimiter` None: none, or none that is legal, and no row has fields. `cr_line_number`: of the
    first line that ends with CR alone; None: no line does.
    """

    lines: tuple[str, ...]
    has_byte_order_mark: bool
    cr_line_number: int | None
    parameters: tuple[Parameter, ...]
    comments: tuple[tuple[int, str], ...]
    blank_lines: tuple[int, ...]
    delimiter: str | None
    rows: tuple[ReportRow, ...]

    def first(self, name: str) -> Parameter | None:
        """Return the first ``#NAME=``, None where there is none."""
        return next((one for one in self.parameters if one.name == name), None)


_PARAMETER: Final = re.compile(r"#\s*([A-Za-z]+)\s*=(.*)", re.DOTALL)
BYTE_ORDER_MARK: Final = "\N{ZERO WIDTH NO-BREAK SPACE}"


def parse_report(text: str) -> ParsedReport:
    """Return what stands in a file of any program; what is wrong with it is `aavso_lint`'s to say.

    Accepted: any case, CRLF or CR at line ends, a byte order mark, comments anywhere, ``#DATE`` and
    ``#OBSCODE`` that change further down, blanks around values, a tab itself as the delimiter, and
    what spreadsheets leave at the ends of header lines.
    """
    marked = text.startswith(BYTE_ORDER_MARK)
    text = text.removeprefix(BYTE_ORDER_MARK).replace("\r\n", "\n")
    before_cr, cr, _ = text.partition("\r")
    lines = text.replace("\r", "\n").split("\n")
    if lines[-1] == "":
        lines.pop()
    parameters, comments, blank, data = [], [], [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            blank.append(number)
        elif not line.lstrip().startswith("#"):
            data.append((number, line))
        elif (one := _parameter(number, line)) is not None:
            parameters.append(one)
        else:
            comments.append((number, line))
    said = next((one.value for one in parameters if one.name == "DELIM"), None)
    delimiter = said if said in (None, "\t") else delimiter_of(said)
    return ParsedReport(
        lines=tuple(lines),
        has_byte_order_mark=marked,
        cr_line_number=before_cr.count("\n") + 1 if cr else None,
        parameters=tuple(parameters),
        comments=tuple(comments),
        blank_lines=tuple(blank),
        delimiter=delimiter,
        rows=tuple(_rows(data, parameters, delimiter)),
    )


def _parameter(number: int, line: str) -> Parameter | None:
    found = _PARAMETER.fullmatch(line.strip("\v\f "))
    if found is None or found[1].upper() not in REQUIRED:
        return None
    value = found[2].strip(" ")
    # a tab itself is none of a header's values but DELIM's, and a spreadsheet's rest of the line
    value = value.rstrip(",; \t") or value[:1]
    return Parameter(line_number=number, name=found[1].upper(), value=value, text=line)


def _rows(
    data: Iterable[tuple[int, str]], parameters: Iterable[Parameter], delimiter: str | None
) -> Iterable[ReportRow]:
    changes = [one for one in parameters if one.name in ("DATE", "OBSCODE")]
    holds: dict[str, str] = {}
    for number, line in data:
        while changes and changes[0].line_number < number:
            one = changes.pop(0)
            holds[one.name] = one.value
        parts = () if delimiter is None else tuple(p.strip() for p in line.split(delimiter))
        kind = holds.get("DATE")
        yield ReportRow(
            line_number=number,
            text=line,
            fields=parts,
            date_kind=None if kind is None else kind.upper(),
            obscode=holds.get("OBSCODE"),
        )


def delimiter_of(value: str) -> str | None:
    """Return the character that ``#DELIM=`` means, None where it is none that the format allows.

    ``comma`` and ``tab`` are words for it; so is the number of a character, 32 to 126 (44: comma).
    """
    if value.casefold() in DELIMITER_WORDS:
        return DELIMITER_WORDS[value.casefold()]
    if re.fullmatch(r"\d{2,3}", value, re.ASCII):
        value = chr(int(value))
    if len(value) == 1 and " " < value <= "~" and value != "#":
        return value
    return None


_ANNOUNCED: Final = re.compile(r"DELIM=(.)", re.IGNORECASE)


def note_values(notes: str) -> dict[str, str]:
    """Return the KEY=VALUE of NOTES, keys in upper case; of a repeated key the first.

    Another separator than ``|`` is announced by ``DELIM=`` right before it first comes.
    """
    separator = SEPARATOR
    if "DELIM=" in notes.upper() and (announced := _ANNOUNCED.search(notes)):
        separator = announced[1]
        notes = notes[announced.end() :]
    values: dict[str, str] = {}
    for part in notes.split(separator):
        key, equals, value = part.partition("=")
        if equals:
            values.setdefault(key.strip().upper(), value.strip())
    return values
