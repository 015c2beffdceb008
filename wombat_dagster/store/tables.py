"""Domain values as bytes and text, and back without loss: what the IO manager keeps between stages.

- Values that hold arrays (`domain.PhotometryTable`) become an ``.npz``: one array per field, named
  ``measured.flags``, and the rest as JSON in the array ``metadata``. Nothing is pickled.
- `domain.StandardMagnitudes` becomes a CSV that people, pandas and astropy read: ``# key: value``
  lines (values in JSON), then one row per frame.
- Every other frozen value of the domain becomes JSON.

All of it follows the dataclasses' fields: a field added there is stored here. Files are neither
opened nor written here.
"""

import csv
import datetime as dt
import enum
import io
import json
import types
import typing
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from wombat_dagster import domain

Value = TypeVar("Value")

METADATA: Final = "metadata"
STANDARD_TITLE: Final = "# wombat standard magnitudes, format 1"
N_FRAMES: Final = "n_frames"
COLUMN_TYPES: Final = "column_types"  # the last line of the head

PER_FRAME_WORDS: Final = ("labels", "raw_hashes", "proposed_rejected")
"""The string columns of `domain.StandardMagnitudes`; its other tuples describe the night."""
MARKS: Final = ("comp_source",)
"""Columns for people that repeat a line of the head, so that no row goes without; empty: None."""


DAMAGE: Final = (
    ValueError, KeyError, TypeError, OSError, EOFError, zlib.error, zipfile.BadZipFile,
)  # fmt: skip
"""What numpy and zipfile raise on bytes that are not what they were."""


class UnreadableProduct(ValueError):
    """A stored product is damaged, of another kind, or from another version of wombat."""


# ------------------------------------------------------------------------------------------- JSON


def dump_json(value: object) -> str:
    """Return `value` – a frozen value of the domain without arrays, or tuples of such – as JSON.

    NaN and infinities are written as Python's json does (``NaN``), not as null.
    """
    return json.dumps(_plain(value), ensure_ascii=False)


def load_json(kind: type[Value], text: str) -> Value:
    """Return the value of type `kind` that `dump_json` wrote.

    Raises
    ------
    UnreadableProduct
        `text` is not JSON or does not fit `kind`.
    """
    try:
        return _as(kind, json.loads(text))
    except ValueError as error:  # JSONDecodeError and pydantic's ValidationError are ValueErrors
        raise UnreadableProduct(f"not a stored {kind}: {error}") from error


def _as(hint: Any, plain: Any) -> Any:
    """Return what `_plain` made plain as a value of type `hint`."""
    return _adapter(hint).validate_python(plain)


@cache
def _adapter(hint: Any) -> TypeAdapter[Any]:
    return TypeAdapter(hint)


def _plain(value: Any) -> Any:
    """Return `value` as what json can write; numpy scalars become Python's own numbers.

    Not pydantic's: it turns NaN into null wherever it has to infer a type.
    """
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, enum.Enum):
        return value.value
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, dt.date):
        return value.isoformat()
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    raise TypeError(f"cannot store a {type(value).__name__} as JSON: {value!r}")


# ---------------------------------------------------------------------------------- arrays as .npz


def photometry_to_bytes(table: domain.PhotometryTable) -> bytes:
    """Return a night's measurements as the bytes of an ``.npz``."""
    return arrays_to_bytes(table)


def photometry_from_bytes(data: bytes) -> domain.PhotometryTable:
    """Return the night's measurements that `photometry_to_bytes` wrote, exactly."""
    return arrays_from_bytes(domain.PhotometryTable, data)


def arrays_to_bytes(value: object) -> bytes:
    """Return a dataclass with arrays, nested ones included, as the bytes of an ``.npz``.

    The same value gives the same bytes.
    """
    arrays: dict[str, NDArray[Any]] = {}
    plain = _take_apart(value, "", arrays)
    buffer = io.BytesIO()
    arrays[METADATA] = np.array(json.dumps(plain))
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # its stub mixes up the names
    return buffer.getvalue()


def arrays_from_bytes(kind: type[Value], data: bytes) -> Value:
    """Return the dataclass of type `kind` that `arrays_to_bytes` wrote, exactly.

    Raises
    ------
    UnreadableProduct
        Damaged bytes, or a field is missing that `kind` has no default for.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
        plain = json.loads(str(arrays.pop(METADATA)))
        return _put_together(kind, plain, "", arrays)
    except DAMAGE as error:
        raise UnreadableProduct(f"not a stored {kind.__name__}: {error}") from error


def _take_apart(value: Any, prefix: str, arrays: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """Move the arrays of a dataclass into `arrays` and return its other fields, ready for JSON."""
    plain: dict[str, Any] = {}
    for field in fields(value):
        held, name = getattr(value, field.name), prefix + field.name
        kind: Any = type(held)
        if isinstance(held, np.ndarray):
            if held.dtype.hasobject:
                raise TypeError(f"{name} is an array of Python objects, which would be pickled")
            arrays[name] = held
        elif _with_arrays(kind):
            plain[field.name] = _take_apart(held, f"{name}.", arrays)
        else:
            plain[field.name] = _plain(held)
    return plain


def _put_together(
    kind: type[Value], plain: Mapping[str, Any], prefix: str, arrays: Mapping[str, NDArray[Any]]
) -> Value:
    """Return the dataclass that `_take_apart` took apart."""
    hints = typing.get_type_hints(kind)
    held: dict[str, Any] = {}
    for field in fields(kind):  # type: ignore[arg-type]  # kind is a dataclass: fields() says else
        name, hint = prefix + field.name, hints[field.name]
        nested = next((one for one in _alternatives(hint) if _with_arrays(one)), None)
        if name in arrays:
            held[field.name] = arrays[name]
        elif field.name not in plain:
            if field.default is MISSING and field.default_factory is MISSING:
                raise KeyError(f"no {name}: written by another version")
        elif plain[field.name] is None:
            held[field.name] = None
        elif nested is not None:
            held[field.name] = _put_together(nested, plain[field.name], f"{name}.", arrays)
        else:
            held[field.name] = _as(hint, plain[field.name])
    return kind(**held)


def _alternatives(hint: Any) -> tuple[Any, ...]:
    """Return the types of a union, ``X | None`` included, or the one type itself."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return typing.get_args(hint)
    return (hint,)


@cache
def _with_arrays(kind: Any) -> bool:
    """Say whether `kind` is a dataclass with an array somewhere below."""
    if not (isinstance(kind, type) and is_dataclass(kind)):
        return False
    return any(
        typing.get_origin(one) is np.ndarray or _with_arrays(one)
        for hint in typing.get_type_hints(kind).values()
        for one in _alternatives(hint)
    )


# ------------------------------------------------------------------------- standard magnitudes, CSV


def standard_to_text(standard: domain.StandardMagnitudes) -> str:
    """Return standard magnitudes as CSV with ``# key: value`` lines on top.

    ``pandas.read_csv(path, comment="#")`` and ``Table.read(path, format="ascii.csv",
    comment="#")`` read it. Floats are written with as many digits as it takes to get them back.
    """
    columns: dict[str, list[Any]] = {}
    dtypes: dict[str, str] = {}
    lines = [STANDARD_TITLE]
    for field in fields(standard):
        held = getattr(standard, field.name)
        if isinstance(held, np.ndarray):
            columns[field.name] = held.tolist()
            dtypes[field.name] = held.dtype.str
        elif field.name in PER_FRAME_WORDS:
            columns[field.name] = list(held)
        else:
            lines.append(f"# {field.name}: {json.dumps(_plain(held))}")
    for name in MARKS:
        columns[name] = [getattr(standard, name) or ""] * len(standard.labels)
    lines.append(f"# {N_FRAMES}: {len(standard.labels)}")
    lines.append(f"# {COLUMN_TYPES}: {json.dumps(dtypes)}")
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    return "\n".join(lines) + "\n" + buffer.getvalue()


def standard_from_text(text: str) -> domain.StandardMagnitudes:
    """Return the standard magnitudes that `standard_to_text` wrote, exactly.

    Raises
    ------
    UnreadableProduct
        Another kind of file, cut short, or from another version.
    """
    try:
        return _parse_standard(text)
    except (ValueError, KeyError, TypeError, StopIteration) as error:
        raise UnreadableProduct(f"not stored standard magnitudes: {error!r}") from error


def _parse_standard(text: str) -> domain.StandardMagnitudes:
    head, rows = _split_head(text)
    dtypes = head.pop(COLUMN_TYPES)
    table = list(csv.reader(io.StringIO(rows, newline=""), strict=True))
    names, body = table[0], table[1:]
    if len(body) != head[N_FRAMES]:
        raise ValueError(f"{len(body)} rows, {head[N_FRAMES]} wanted")
    if any(len(row) != len(names) for row in body):
        raise ValueError(f"rows of other than {len(names)} columns")
    columns = dict(zip(names, zip(*body, strict=True), strict=True)) if body else {}
    hints = typing.get_type_hints(domain.StandardMagnitudes)
    held: dict[str, Any] = {}
    for field in fields(domain.StandardMagnitudes):
        if field.name in dtypes:
            held[field.name] = _column(columns.get(field.name, ()), np.dtype(dtypes[field.name]))
        elif field.name in PER_FRAME_WORDS:
            held[field.name] = columns.get(field.name, ())
        elif field.name in head:
            held[field.name] = _as(hints[field.name], head[field.name])
    return domain.StandardMagnitudes(**held)


def _split_head(text: str) -> tuple[dict[str, Any], str]:
    """Return the values of the ``# key: value`` lines, and the CSV below them."""
    title, _, rest = text.partition("\n")
    if title.rstrip("\r") != STANDARD_TITLE:
        raise ValueError(f"first line is {title[:60]!r}, {STANDARD_TITLE!r} wanted")
    head: dict[str, Any] = {}
    while COLUMN_TYPES not in head:  # the last of them: a label may begin with "#" as well
        line, end, rest = rest.partition("\n")
        if not end:
            raise ValueError("the file ends within its head")
        key, _, value = line.removeprefix("# ").partition(": ")
        head[key] = json.loads(value)
    return head, rest


def _column(words: tuple[str, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    if dtype.kind == "b":
        return np.array([{"True": True, "False": False}[word] for word in words], dtype=dtype)
    number = int if dtype.kind in "iu" else float
    return np.array([number(word) for word in words], dtype=dtype)
