"""What each asset makes: where its product lies, how it is stored, which words it writes."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from wombat_dagster.domain import (
    NOCAL,
    Apphot,
    BadPixelMap,
    CalibrationChoice,
    CompCandidates,
    DetectorMeasurement,
    FrameSolution,
    FrameTriage,
    Master,
    Proc,
    RawFrame,
    Reduction,
    StandardMagnitudes,
    Variable,
)
from wombat_dagster.observatory import Observatory
from wombat_dagster.reports.aij import format_table
from wombat_dagster.store import tables
from wombat_dagster.store.layout import Layout

StatusWords = Mapping[str, str | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Product:
    """How the product of one asset is stored, and which status words its success writes."""

    file: str  # name inside the directory of the partition
    encode: Callable[[Any], bytes]
    decode: Callable[[bytes], Any]
    status: Callable[[Observatory, str, Any], StatusWords] = field(
        default=lambda _observatory, _key, _value: {}
    )
    beside: Callable[[Layout, str, Any], Mapping[Path, bytes]] = field(
        default=lambda _layout, _key, _value: {}
    )
    """Further files for people and other programs, written before the product itself."""
    inputs: Callable[[Observatory, str, Any], Mapping[str, str]] = field(
        default=lambda _observatory, _key, _value: {}
    )
    """Versions of what went into this one beside the products of its own partition, by name."""
    version_of: Callable[[Any], str] | None = None
    """What says that two products are the same; None: their bytes."""

    def path(self, layout: Layout, key: str) -> Path:
        """Return where the product of the partition `key` lies."""
        if "__" in key:
            return layout.observation_dir(key) / self.file
        return layout.night_products_dir(key) / self.file

    def version(self, value: Any) -> str:
        """Return the content version: equal products are one version."""
        if self.version_of is not None:
            return self.version_of(value)
        return hashlib.sha256(self.encode(value)).hexdigest()[:16]


def _no_words(_value: Any) -> StatusWords:
    return {}


def _json(file: str, kind: Any, words: Callable[[Any], StatusWords] = _no_words) -> Product:
    return Product(
        file=file,
        encode=lambda value: tables.dump_json(value).encode(),
        decode=lambda data: tables.load_json(kind, data.decode()),
        status=lambda _observatory, _key, value: words(value),
    )


def _choice_words(choice: CalibrationChoice) -> StatusWords:
    masters = {"proc_bias": choice.bias, "proc_flat": choice.flat, "proc_dark": choice.dark}
    return {name: m.date.isoformat() if m else NOCAL for name, m in masters.items()}


def _choice_inputs(observatory: Observatory, key: str, _choice: Any) -> Mapping[str, str]:
    """Return what an observation's run begins with: its light frames and the masters there are."""
    lights = observatory.status.light_signatures(key).get(key, "")
    return {"lights": lights, "masters": observatory.masters_signature()}


def _reduction_words(reduction: Reduction) -> StatusWords:
    return {**_choice_words(reduction.choice), "proc": Proc.CALIBRATED}


def _solution_words(solutions: tuple[FrameSolution, ...]) -> StatusWords:
    unsolved = sum(s.solution is None for s in solutions)
    if not unsolved:
        return {"proc": Proc.SOLVED, "reason": None}
    words = f"{unsolved} of {len(solutions)} frames not solved"
    return {"proc": Proc.PARTIAL, "reason": words}


def _magnitude_words(
    observatory: Observatory, key: str, magnitudes: StandardMagnitudes
) -> StatusWords:
    if magnitudes.held_reason:
        return {"apphot": Apphot.HELD, "reason": magnitudes.held_reason}
    solutions = read_product(observatory, "wcs_solutions", key)
    return {"apphot": Apphot.VALIDATE, "reason": _solution_words(solutions)["reason"]}


def _picture_hashes(pictures: Mapping[str, bytes]) -> bytes:
    hashes = {name: hashlib.sha256(png).hexdigest() for name, png in pictures.items()}
    return json.dumps(hashes, indent=1).encode()


PRODUCTS: dict[str, Product] = {
    "raw_frames": _json("frames.json", tuple[RawFrame, ...]),
    "master_bias": _json("master_bias.json", tuple[Master, ...]),
    "master_darks": _json("master_darks.json", tuple[Master, ...]),
    "master_flats": _json("master_flats.json", tuple[Master, ...]),
    "detector_noise": _json("detector.json", tuple[DetectorMeasurement, ...]),
    "bad_pixels": _json("bad_pixels.json", tuple[BadPixelMap, ...]),
    "calibration_choice": replace(
        _json("calibration.json", CalibrationChoice, _choice_words),
        inputs=_choice_inputs,
        version_of=lambda choice: choice.version,  # not the reasons: these name unused nights
    ),
    "reduced_frames": _json("reduction.json", Reduction, _reduction_words),
    "wcs_solutions": _json("solutions.json", tuple[FrameSolution, ...], _solution_words),
    "frame_triage": Product(  # for people and programs beside it: a page, a table, a picture
        file="triage.json",
        encode=lambda report: tables.dump_json(report.triage).encode(),
        decode=lambda data: tables.load_json(FrameTriage, data.decode()),
        beside=lambda layout, key, report: {
            layout.product_path(key, name): content for name, content in report.files.items()
        },
    ),
    "variable": _json("variable.json", Variable),
    "comp_list": _json("comps.json", CompCandidates),
    "photometry_table": Product(
        file="photometry.npz",
        encode=tables.photometry_to_bytes,
        decode=tables.photometry_from_bytes,
        beside=lambda layout, key, table: {
            layout.phot_table_path(key): format_table(table).encode()
        },
    ),
    "standard_magnitudes": Product(
        file="magnitudes.csv",
        encode=lambda value: tables.standard_to_text(value).encode(),
        decode=lambda data: tables.standard_from_text(data.decode()),
        status=_magnitude_words,
        inputs=lambda _observatory, _key, magnitudes: magnitudes.sibling_versions,
    ),
    "light_curve": Product(file="light_curve.png", encode=bytes, decode=bytes),
    "diagnostics": Product(  # the pictures lie beside it, one file each
        file="diagnostics.json",
        encode=_picture_hashes,
        decode=json.loads,
        beside=lambda layout, key, pictures: {
            layout.product_path(key, f"{name}.png"): png for name, png in pictures.items()
        },
    ),
}
"""Every asset's product, by asset name."""


def read_product(observatory: Observatory, asset: str, key: str) -> Any:
    """Return the product of `asset` for the partition `key`.

    Raises
    ------
    FileNotFoundError
        It was not made, or its file is gone.
    UnreadableProduct
        Its file is damaged; the message names it.
    """
    product = PRODUCTS[asset]
    path = product.path(observatory.layout, key)
    data = path.read_bytes()
    try:
        return product.decode(data)
    except ValueError as error:  # of text and of JSON: not only those the tables name
        words = next(iter(str(error).splitlines()), "")
        raise tables.UnreadableProduct(f"{path}: {words}") from error
