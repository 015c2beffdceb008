"""What is written down of how things were made: rows of the table `product`, HISTORY of masters."""

import contextlib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from astropy.io import fits

from wombat_dagster.store import headers, schema

HISTORY_CHARACTERS = 72  # of one card; longer words go on in the next
PIXELS = "  pixels sha256 "
SHA256_DIGITS = 64
MAX_OFFSETS = 9


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductRow:
    """One row of the table `product`; `path` is relative to the products."""

    asset: str
    path: str
    content_hash: str  # SHA-256 of the file
    version: str
    inputs: Mapping[str, str]
    made_utc: str


def product_rows(database: Path, key: str) -> dict[str, ProductRow]:
    """Return what the database at `database` knows of a partition's products, by asset."""
    with contextlib.closing(schema.connect(database)) as connection:
        rows = connection.execute("SELECT * FROM product WHERE key = ?", (key,)).fetchall()
    return {
        row["asset"]: ProductRow(
            asset=row["asset"],
            path=row["path"],
            content_hash=row["content_hash"],
            version=row["version"],
            inputs=json.loads(row["inputs"] or "{}"),
            made_utc=row["made_utc"],
        )
        for row in rows
    }


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file's bytes. Raises OSError."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingredient:
    """A frame or a master that went into a file of ours.

    `path` as the header has it: what is not printable ASCII stands escaped (`frames.card_text`).
    `pixel_hash` may be the beginning of one; None: it was not known.
    """

    path: str
    pixel_hash: str | None


def ingredients(header: fits.Header) -> list[Ingredient]:
    """Return the frames, and of a map of bad pixels the masters, that HISTORY names."""
    lines = [str(line) for line in header.get("HISTORY", [])]
    found, begun = [], None
    for number, line in enumerate(lines):
        if line.startswith(("input ", "master ")):
            begun = number
        elif line.startswith(PIXELS) and begun is not None:
            words = _joined(lines[begun:number]).partition(" ")[2]
            digits = line.removeprefix(PIXELS).strip()
            following = lines[number + 1] if number + 1 < len(lines) else ""
            if len(digits) < SHA256_DIGITS and len(line) == HISTORY_CHARACTERS:
                digits += following.strip()
            found.append(Ingredient(path=words, pixel_hash=None if digits == "None" else digits))
            begun = None
    return found


def offsets(header: fits.Header) -> list[Ingredient]:
    """Return the masters that were subtracted from every frame of a master of ours."""
    found = []
    for number in range(1, MAX_OFFSETS + 1):
        path = headers.text(header, f"OFFSET{number}")
        if path is None:
            break
        digest = headers.text(header, f"OFFHASH{number}")
        found.append(Ingredient(path=path, pixel_hash=digest))
    return found


def _joined(pieces: Sequence[str]) -> str:
    """Return the words of several cards; blanks at the end of a full one were lost."""
    return "".join(piece.ljust(HISTORY_CHARACTERS) for piece in pieces[:-1]) + pieces[-1]
