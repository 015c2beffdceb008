"""A light curve for other programs: CSV, ECSV, VOTable, and the file that transit fits begin with.

Tables carry units and descriptions; what holds for a whole night stands in the metadata. Text and
bytes are returned, the shell writes them.
"""

import csv
import io
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import ArrayLike

from wombat_dagster.domain import (
    BoolArray,
    FloatArray,
    PhotometryTable,
    StandardMagnitudes,
    Transformation,
)
from wombat_dagster.reports.star_curve import CurveNight, StarCurve

if TYPE_CHECKING:
    from astropy.table import QTable

MAG_PER_FLUX: Final = 2.5 / math.log(10)
MIN_POINTS: Final = 2  # of a transit file: fewer have no median to speak of
MIN_POINTS_OF_SCATTER: Final = 5
MAD_TO_SIGMA: Final = 1.4826
FLUX_DIGITS: Final = 8
MAX_INSTRUMENT: Final = 24

# --------------------------------------------------------------------------------------- tables


@dataclass(frozen=True, slots=True, kw_only=True)
class _Column:
    """One column of the table: its name, what it holds, and its unit."""

    name: str
    values: Any
    words: str
    unit: str | None = None


def _columns(curve: StarCurve, phase: FloatArray | None) -> list[_Column]:
    nights = curve.nights
    per_point = curve.per_point
    columns = [
        _Column(
            name="night",
            values=per_point([night.date.isoformat() for night in nights]),
            words="date that the night's directory is called by",
        ),
        _Column(
            name="observation",
            values=per_point([night.key for night in nights]),
            words="key of night, target and filter in wombat",
        ),
        _Column(name="label", values=np.array(curve.labels, dtype=str), words="raw frame"),
        _Column(
            name="filter",
            values=per_point([night.filter for night in nights]),
            words="filter as the FITS header says it",
        ),
        _Column(name="band", values=curve.point_bands, words="AAVSO code of the band"),
        _Column(
            name="jd_utc",
            values=curve.jd_utc,
            unit="d",
            words="JD(UTC) at mid-exposure, geocentric",
        ),
        _Column(
            name="hjd_utc",
            values=curve.hjd_utc,
            unit="d",
            words="heliocentric JD on the UTC scale at mid-exposure",
        ),
        _Column(
            name="bjd_tdb",
            values=curve.bjd_tdb,
            unit="d",
            words="barycentric JD on the TDB scale at mid-exposure",
        ),
        _Column(
            name="mag",
            values=curve.mag,
            unit="mag",
            words="standard magnitude; where fainter_than is true, its limit",
        ),
        _Column(
            name="merr",
            values=curve.merr_mag,
            unit="mag",
            words="1-sigma error as a report quotes it (metadata: merr of the night)",
        ),
        _Column(
            name="random_err",
            values=curve.random_mag,
            unit="mag",
            words="1-sigma error from frame to frame",
        ),
        _Column(
            name="zp_err",
            values=per_point([night.zp_err_mag for night in nights]),
            unit="mag",
            words="1-sigma error of the night's zero point, common to all its points",
        ),
        _Column(name="fainter_than", values=curve.upper_limit, words="true: mag is an upper limit"),
        _Column(name="airmass", values=curve.airmass, words="airmass at mid-exposure"),
        _Column(name="n_comps", values=curve.n_comps, words="comparison stars in this frame"),
        _Column(
            name="transformed",
            values=per_point([night.transformed for night in nights]),
            words="true: transformed with standards (TRANS=YES)",
        ),
        _Column(
            name="check_star",
            values=per_point([night.check_name or "" for night in nights]),
            words="check star T2 of the night",
        ),
        _Column(
            name="check_offset",
            values=per_point([_number(night.check_offset_mag) for night in nights]),
            unit="mag",
            words="median of T2 over the night less its catalogue magnitude",
        ),
        _Column(
            name="chart",
            values=per_point([night.chart_id for night in nights]),
            words="chart of the comparison stars",
        ),
        _Column(
            name="comp_source",
            values=per_point([night.comp_source or "" for night in nights]),
            words="where the chart is from: VSP, or the catalogue that stood in; empty: unrecorded",
        ),
        _Column(
            name="camera",
            values=per_point([night.camera or "" for night in nights]),
            words="camera as the FITS header says it",
        ),
        _Column(
            name="proposed_rejected",
            values=np.array(curve.proposed_rejected, dtype=str),
            words="why the point is proposed to be rejected; empty: it is not",
        ),
        _Column(
            name="held",
            values=per_point([night.is_held for night in nights]),
            words="true: the night's check star is out of control",
        ),
    ]
    if phase is not None:
        columns.append(_Column(name="phase", values=phase, words="phase 0 to 1, see metadata"))
    return columns


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def curve_table(
    curve: StarCurve, *, software: str, phase: FloatArray | None = None, folded: str | None = None
) -> "QTable":
    """Return the curve as an astropy table with units, descriptions and metadata.

    `phase` is a further column, `folded` the words on its period and epoch. What is not known is
    NaN, in text empty (astropy reads that back from ECSV as masked).
    """
    from astropy import units
    from astropy.table import Column, QTable

    table = QTable(meta=_metadata(curve, software, folded))
    for column in _columns(curve, phase):
        if column.unit is None:
            table[column.name] = Column(column.values)
        else:
            table[column.name] = np.asarray(column.values, dtype=float) * units.Unit(column.unit)
        table[column.name].info.description = column.words
    return table


def to_csv(curve: StarCurve, *, phase: FloatArray | None = None) -> str:
    """Return the curve as plain CSV: a line of names, one row per point, nothing for not known.

    Units are those of `curve_table`: days and magnitudes.
    """
    columns = _columns(curve, phase)
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([column.name for column in columns])
    for row in zip(*(column.values.tolist() for column in columns), strict=True):
        writer.writerow([_csv_cell(value) for value in row])
    return text.getvalue()


def _csv_cell(value: object) -> object:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else ""
    return value


def to_ecsv(table: "QTable") -> str:
    """Return the table of `curve_table` as ECSV: units, descriptions and metadata included."""
    text = io.StringIO()
    table.write(text, format="ascii.ecsv")
    return text.getvalue()


def to_votable(table: "QTable") -> bytes:
    """Return the table of `curve_table` as a VOTable; its metadata are INFO elements."""
    from astropy.io.votable import from_table
    from astropy.io.votable.tree import Info
    from astropy.table import Table

    plain = Table(table, meta={})
    votable = from_table(plain, table_id="light_curve")
    resource = votable.resources[0]
    for name, value in table.meta.items():
        words = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        resource.infos.append(Info(name=name, value=words))
    data = io.BytesIO()
    # Not the writer in C (astropy 8.0.2): a row that fills its buffer exactly goes one byte beyond.
    votable.to_xml(data, _debug_python_based_parser=True)
    return data.getvalue()


# -------------------------------------------------------------------------------------- metadata


def _metadata(curve: StarCurve, software: str, folded: str | None) -> dict[str, Any]:
    star = curve.variable
    known: dict[str, Any] = {
        "software": software,
        "star": star.name,
        "auid": star.auid,
        "vsx_oid": star.oid,
        "ra_deg": star.ra_deg,
        "dec_deg": star.dec_deg,
        "variability_type": star.variability_type,
        "period_d": star.period_d,
        "epoch_hjd": star.epoch_hjd,
        "star_source": f"{star.source} by {star.match}",
        "folded": folded,
        "charts": sorted({night.chart_id for night in curve.nights}),
        "nights": [_night_metadata(night) for night in curve.nights],
        "left_out": [f"{one.key}: {one.words} ({one.reason})" for one in curve.left_out],
        "notes": list(curve.notes),
    }
    return {name: value for name, value in known.items() if value not in (None, [])}


def _night_metadata(night: CurveNight) -> dict[str, Any]:
    known: dict[str, Any] = {
        "observation": night.key,
        "status": night.status,
        "band": night.band,
        "comp_band": night.comp_band,
        "chart": night.chart_id,
        "comp_source": night.comp_source,
        "comps": list(night.comp_names),
        "check_star": night.check_name,
        "check_scatter_mag": night.check_scatter_mag,
        "zp_err_mag": night.zp_err_mag,
        "merr": night.merr,
        "method": night.method,
        "trans": "YES" if night.transformed else "NO",
        "transformation": transformation_words(night.transformation),
        "held": night.held_reason,
        "notes": list(night.notes),
    }
    return {name: value for name, value in known.items() if value not in (None, [])}


def transformation_words(used: Transformation) -> str:
    """Return how magnitudes were transformed, as NOTES would say it."""
    if used.coefficient is None:
        return "no colour term"
    words = f"{used.coefficient_name or 'coefficient'} {used.coefficient:+.4f}"
    if used.coefficient_error is not None:
        words += f" ± {used.coefficient_error:.4f}"
    if used.colour_index is not None and used.target_colour is not None:
        words += f", {used.colour_index} {used.target_colour:.3f}"
        if used.target_colour_error is not None:
            words += f" ± {used.target_colour_error:.3f}"
    return f"{words} ({used.source})"


# ------------------------------------------------------------------------------- for transit fits


@dataclass(frozen=True, slots=True, kw_only=True)
class NormalisedFlux:
    """One observation's flux of T1 over its median; arrays have shape (n_points,), all finite.

    `detrend` maps names to what a fit may correct with, in the order of the file; `source` says
    what the flux was made of, `left_out` how many frames are not there and why. `error_words` says
    what the errors count; where they are not `errors_known` they are too wrong to be reported.
    """

    bjd_tdb: FloatArray
    flux: FloatArray
    error: FloatArray
    detrend: dict[str, FloatArray]
    source: str
    left_out: dict[str, int]
    error_words: str
    errors_known: bool = True


def relative_flux(
    table: PhotometryTable, *, extra: ArrayLike, rejected: Sequence[str] = ()
) -> NormalisedFlux:
    """Return T1's AstroImageJ relative flux over its median, with the usual detrend parameters.

    Parameters
    ----------
    extra
        1-sigma error of every star, relative to its flux, that AstroImageJ's does not count, shape
        (n_frames,): `science.noise.relative_extra`.
    rejected
        For each frame why it is left out, "" when it is not; () leaves out none.

    Raises
    ------
    ValueError
        The relative fluxes were never computed, or fewer than 2 points are usable.
    """
    if table.relative is None:
        raise ValueError("the table has no relative fluxes")
    first = table.star_index("T1")
    if first is None:
        raise ValueError("the table has no T1")
    star = table.measured.stars([first])
    errors = _flux_errors(table, np.asarray(extra, dtype=float), rejected)
    return _normalised(
        table.times.bjd_tdb,
        table.relative.rel_flux[:, first],
        errors.of_star[:, first],
        detrend={
            "AIRMASS": table.times.airmass,
            "SKY": star.sky_adu_px[:, 0],
            "X": star.x_px[:, 0] + 1.0,  # FITS counts pixels from 1
            "Y": star.y_px[:, 0] + 1.0,
            "X_WIDTH": star.x_width_px[:, 0],
            "Y_WIDTH": star.y_width_px[:, 0],
            "FWHM": table.frame_fwhm_px,
        },
        source=f"relative flux of T1 against {len(table.ensemble)} comparison stars "
        "(AstroImageJ's rel_flux_T1)",
        error_words=errors.words,
        errors_known=errors.known,
        rejected=rejected,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _FluxErrors:
    """1-sigma errors of all stars' relative fluxes, shape (n_frames, n_stars)."""

    of_star: FloatArray
    words: str
    known: bool = True


def _flux_errors(table: PhotometryTable, extra: FloatArray, rejected: Sequence[str]) -> _FluxErrors:
    """Return the errors of the relative fluxes; by a steady star's scatter where they must be.

    Without the gain, or over a bias that counts as sky, the formal ones say how errors go from
    frame to frame and star to star, not how great they are.
    """
    formal = _formal_errors(table, extra)
    if table.gain_e_adu is not None and table.pedestal_removed:
        return _FluxErrors(of_star=formal, words=_counted_words(table))
    why = "gain not known" if table.gain_e_adu is None else "bias not subtracted"
    clear = ~_is_rejected(rejected, len(formal))
    second = table.star_index("T2")
    by_check = None if second is None else _scatter_by_error(table, formal, second, clear)
    if by_check is not None:
        words = f"{why}: errors scaled by {by_check:.3g}, so that T2's are its scatter"
        return _FluxErrors(of_star=formal * by_check, words=words)
    found = [_scatter_by_error(table, formal, i, clear) for i in table.ensemble]
    ratios = [ratio for ratio in found if ratio is not None]
    if ratios:
        scale = float(np.median(ratios))
        words = f"{why}: errors scaled by {scale:.3g}, so that the comparison stars' are their"
        return _FluxErrors(of_star=formal * scale, words=f"{words} scatter")
    return _FluxErrors(
        of_star=formal,
        words=f"{why} and no T2 or two comparison stars over {MIN_POINTS_OF_SCATTER} frames to"
        " scale by: how great the errors are is not known",
        known=False,
    )


def _formal_errors(table: PhotometryTable, extra: FloatArray) -> FloatArray:
    """Return AstroImageJ's errors with what they do not count, shape (n_frames, n_stars).

    `extra` is independent from star to star: of S / ΣS_C it is extra √(1 + ΣS_C²/(ΣS_C)²), over the
    comps that the star is compared with.
    """
    assert table.relative is not None  # `relative_flux` looked
    rel, error = table.relative.rel_flux, table.relative.rel_flux_err.copy()
    for star in range(rel.shape[1]):
        comps = table.measured.source_sky_adu[:, [i for i in table.ensemble if i != star]]
        with np.errstate(divide="ignore", invalid="ignore"):
            of_comps = np.sum(comps**2, axis=1) / np.sum(comps, axis=1) ** 2
        error[:, star] = np.hypot(error[:, star], rel[:, star] * extra * np.sqrt(1 + of_comps))
    return error


def _scatter_by_error(
    table: PhotometryTable, formal: FloatArray, star: int, clear: BoolArray
) -> float | None:
    """Return how many times its median error a star's relative flux scatters; None: not known."""
    assert table.relative is not None  # `relative_flux` looked
    flux, error = table.relative.rel_flux[clear, star], formal[clear, star]
    known = np.isfinite(flux) & np.isfinite(error) & (flux > 0) & (error > 0)
    if known.sum() < MIN_POINTS_OF_SCATTER:
        return None
    flux, error = flux[known], error[known]
    scatter = MAD_TO_SIGMA * float(np.median(np.abs(flux - np.median(flux))))
    return scatter / float(np.median(error)) or None


def _counted_words(table: PhotometryTable) -> str:
    """Return what the errors count, and what they do not as nobody knows it."""
    inputs = {
        "read-out": table.read_noise_e is not None,
        "dark": table.dark_e_px is not None,
        "the master flat's noise": table.flat_noise is not None,
        "scintillation": None not in (table.telescope_aperture_m, table.site_elevation_m),
    }
    words = "errors count photons, sky" + "".join(
        f", {name}" for name, is_in in inputs.items() if is_in
    )
    without = [name for name, is_in in inputs.items() if not is_in]
    return f"{words}; not known and left out: {', '.join(without)}" if without else words


def magnitude_flux(standard: StandardMagnitudes, *, keep_rejected: bool = False) -> NormalisedFlux:
    """Return the flux of T1's standard magnitudes over its median; only airmass goes with it.

    For an observation whose measurement table is gone. Upper limits are left out.

    Raises
    ------
    ValueError
        Fewer than 2 points are usable.
    """
    mag = np.where(standard.t1_upper_limit, np.nan, standard.t1_mag)
    flux = 10.0 ** (-0.4 * (mag - np.nanmedian(mag) if np.isfinite(mag).any() else mag))
    return _normalised(
        standard.bjd_tdb,
        flux,
        flux * standard.t1_random_mag / MAG_PER_FLUX,
        detrend={"AIRMASS": standard.airmass},
        source="standard magnitudes of T1",
        error_words="errors are the random ones of the magnitudes",
        rejected=() if keep_rejected else standard.proposed_rejected,
    )


def _normalised(
    bjd_tdb: FloatArray,
    flux: FloatArray,
    error: FloatArray,
    *,
    detrend: dict[str, FloatArray],
    source: str,
    error_words: str,
    rejected: Sequence[str],
    errors_known: bool = True,
) -> NormalisedFlux:
    n = len(bjd_tdb)
    out = _is_rejected(rejected, n)
    usable = np.isfinite(bjd_tdb) & np.isfinite(flux) & np.isfinite(error) & (flux > 0)
    usable &= error > 0
    left_out = {
        "not measured": int((~usable).sum()),
        "proposed rejected": int((usable & out).sum()),
    }
    kept: BoolArray = usable & ~out
    if kept.sum() < MIN_POINTS:
        raise ValueError(
            f"{int(kept.sum())} of {n} frames usable, at least {MIN_POINTS} wanted: "
            + ", ".join(f"{count} {words}" for words, count in left_out.items())
        )
    level = float(np.median(flux[kept]))
    return NormalisedFlux(
        bjd_tdb=bjd_tdb[kept],
        flux=flux[kept] / level,
        error=error[kept] / level,
        detrend={name: values[kept] for name, values in detrend.items()},
        source=source,
        left_out={words: count for words, count in left_out.items() if count},
        error_words=error_words,
        errors_known=errors_known,
    )


def _is_rejected(rejected: Sequence[str], n: int) -> BoolArray:
    return np.array([bool(words) for words in rejected] if rejected else [False] * n, dtype=bool)


def scaled(values: FloatArray) -> FloatArray | None:
    """Return `values` from -1 at their smallest to 1 at their greatest.

    None where they are constant, or one is not known: a fit has no use for such a column.
    """
    low, high = float(values.min()), float(values.max())
    if not (math.isfinite(low) and math.isfinite(high)) or high - low <= 1e-9 * abs(high + low):
        return None
    return 2 * (values - low) / (high - low) - 1


def transit_text(
    flux: NormalisedFlux, *, star: str, observation: str, software: str, instrument: str | None
) -> str:
    """Return the light-curve file that transit fits read: columns with blanks between them.

    BJD_TDB, flux, error, the instrument's name when there is one, then the detrend parameters,
    each from -1 to 1. Lines with ``#`` say what is what, and which parameters are left out.

    Notes
    -----
    The order of columns is that of juliet's light curves with one instrument and its regressors
    (Espinoza et al. 2019, MNRAS 490, 2262), which Bandersnatch writes as well.
    """
    columns = {name: scaled(values) for name, values in flux.detrend.items()}
    regressors = {name: values for name, values in columns.items() if values is not None}
    without = [name for name, values in columns.items() if values is None]
    name = one_word(instrument) if instrument else None
    head = [
        f"{_line(star)}, observation {_line(observation)}, {_line(software)}",
        f"flux: {flux.source}, over the median of its {len(flux.flux)} points",
        flux.error_words,
        "time: BJD_TDB at mid-exposure; detrend parameters scaled to -1 ... 1",
    ]
    if flux.left_out:
        words = ", ".join(f"{n} {why}" for why, n in flux.left_out.items())
        head.append(f"frames left out: {words}")
    if without:
        head.append(f"left out, constant or not known on every frame: {' '.join(without)}")
    titles = ["BJD_TDB", "FLUX", "ERROR"] + (["INSTRUMENT"] if name else []) + list(regressors)
    lines = [f"# {words}" for words in (*head, " ".join(titles))]
    for row, bjd in enumerate(flux.bjd_tdb):
        cells = [f"{bjd:.8f}"]
        cells += [f"{value:.{FLUX_DIGITS}f}" for value in (flux.flux[row], flux.error[row])]
        cells += [name] if name else []
        cells += [f"{values[row]:.6f}" for values in regressors.values()]
        lines.append(" ".join(cells))
    return "\n".join(lines) + "\n"


def one_word(text: str) -> str:
    """Return a name without blanks: fitting programs split lines at them."""
    word = re.sub(r"[^A-Za-z0-9.+-]+", "_", text).strip("_")[:MAX_INSTRUMENT].strip("_")
    return word or "instrument"


def _line(text: str) -> str:
    return " ".join(text.split())
