"""AstroImageJ's measurement table, written and read as text.

Columns, their order and their conventions are DOMAIN section 4. Nothing is computed here but those
conventions: relative fluxes come with the `PhotometryTable`. The shell writes the file.
"""

import csv
import io
import math
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from wombat_dagster import domain
from wombat_dagster.domain import FloatArray

if TYPE_CHECKING:
    import pandas as pd
    from astropy.table import QTable

DEG_PER_HOUR = 15.0
JD_OFFSET = 2400000.0
TIME_COLUMNS = ("J.D.-2400000", "JD_UTC", "JD_SOBS", "HJD_UTC", "BJD_TDB")

Column = tuple[str, Iterable[object]]


def format_table(table: domain.PhotometryTable) -> str:
    """Return the table that AstroImageJ opens: tab separated, full precision, NaN for no value.

    Notes
    -----
    ``Saturated`` is 0 or the highest *reduced* peak of the saturated apertures: which ones are, the
    raw counts decided when the frame was reduced. ``FWHM_Mean`` is the frame's fitted FWHM,
    ``RAOBJ2K`` (hours) and ``DECOBJ2K`` the variable's catalogue place. A comp's ``Source_AMag`` is
    its catalogue value.

    Raises
    ------
    ValueError
        The table's relative fluxes have not been computed.
    """
    if table.relative is None:
        raise ValueError(f"{table.target} {table.filter}: the relative fluxes are not computed")
    names, columns = zip(*_columns(table, table.relative), strict=True)
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE)
    writer.writerow(names)
    for row in zip(*columns, strict=True):
        writer.writerow([_cell(value) for value in row])
    return text.getvalue()


def read_table(text: str) -> "pd.DataFrame":
    """Return AstroImageJ's table, ours or real, old or new, tab or comma separated.

    Newer tables begin with ``# AIJ_…`` lines, many have a first, blank-named column of row numbers:
    both are left out. Times of 0 or less, and an airmass of 0 or -1, mean "none" to AstroImageJ and
    become NaN.

    Raises
    ------
    ValueError
        There is no measurement table in `text`.
    """
    import pandas as pd

    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("# AIJ_")]
    if not lines or "Source-Sky" not in lines[0]:
        raise ValueError("not an AstroImageJ measurement table: no column Source-Sky")
    tabs = "\t" in lines[0]
    frame = pd.read_csv(
        io.StringIO("\n".join(lines)),
        sep="\t" if tabs else ",",
        quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL,
        index_col=False,
        dtype={"Label": str, "FILTER": str},
    )
    frame = frame.rename(columns=lambda name: str(name).strip())
    blank = [name for name in frame.columns if not name or name.startswith("Unnamed:")]
    frame = frame.drop(columns=blank)
    for name in (*TIME_COLUMNS, "AIRMASS"):
        if name in frame:
            frame[name] = frame[name].where(frame[name] > 0)
    return frame


# ----------------------------------------------------------------------------------- columns


def _columns(table: domain.PhotometryTable, relative: domain.RelativeFluxes) -> list[Column]:
    """Return (name, values of all frames) in AstroImageJ's order."""
    n_frames, n_stars = table.measured.x_px.shape
    # a single aperture has neither a suffix nor anything to be compared with
    suffixes = [f"_{star.role}" for star in table.stars] if n_stars > 1 else [""]
    columns = [*_frame_columns(table, n_frames)]
    if n_stars > 1:
        columns += _relative_columns(relative, suffixes)
    for index, suffix in enumerate(suffixes):
        columns += _star_columns(table, relative, index, suffix)
    for index, suffix in enumerate(suffixes[1:], start=1):
        columns += _pixel_numbers(table.measured, index, suffix)
    return columns


def _frame_columns(table: domain.PhotometryTable, n_frames: int) -> list[Column]:
    times, ones = table.times, np.ones(n_frames)
    return [
        ("Label", table.labels),
        ("slice", range(1, n_frames + 1)),
        ("Saturated", _saturated(table)),
        ("J.D.-2400000", times.jd_utc - JD_OFFSET),
        ("JD_UTC", times.jd_utc),
        ("JD_SOBS", times.jd_start_utc),
        ("HJD_UTC", times.hjd_utc),
        ("BJD_TDB", times.bjd_tdb),
        ("AIRMASS", times.airmass),
        ("ALT_OBJ", times.altitude_deg),
        ("CCD-TEMP", table.ccd_temperature_c),
        ("EXPTIME", table.exposure_s),
        ("FILTER", [table.filter] * n_frames),
        ("RAOBJ2K", table.variable.ra_deg / DEG_PER_HOUR * ones),
        ("DECOBJ2K", table.variable.dec_deg * ones),
        ("FWHM_Mean", table.frame_fwhm_px),
        *_radius_columns(table, ones),
    ]


def _radius_columns(table: domain.PhotometryTable, ones: FloatArray) -> list[Column]:
    """Return the radii; where they follow each frame's FWHM, by what factor, and the night's."""
    aperture = table.aperture
    if table.radii_px is None:
        return [
            ("Source_Radius", aperture.radius_px * ones),
            ("Sky_Rad(min)", aperture.sky_inner_px * ones),
            ("Sky_Rad(max)", aperture.sky_outer_px * ones),
        ]
    radius_px, inner_px, outer_px = table.radii_px.T
    return [
        ("Source_Radius", radius_px),
        ("FWHM_Mult", radius_px / table.frame_fwhm_px),
        ("Source_Rad(base)", aperture.radius_px * ones),
        ("Sky_Rad(min)", inner_px),
        ("Sky_Rad(max)", outer_px),
    ]


def _relative_columns(relative: domain.RelativeFluxes, suffixes: list[str]) -> list[Column]:
    named = (
        ("rel_flux", relative.rel_flux),
        ("rel_flux_err", relative.rel_flux_err),
        ("rel_flux_SNR", relative.rel_flux_snr),
    )
    columns: list[Column] = [
        (name + suffix, values[:, index])
        for name, values in named
        for index, suffix in enumerate(suffixes)
    ]
    return [*columns, ("tot_C_cnts", relative.tot_c_adu), ("tot_C_err", relative.tot_c_err_adu)]


def _star_columns(
    table: domain.PhotometryTable, relative: domain.RelativeFluxes, index: int, suffix: str
) -> list[Column]:
    star = table.measured.stars([index])
    x, y = star.x_px[:, 0], star.y_px[:, 0]
    numbers = _pixel_numbers(table.measured, index, "") if index == 0 else []
    named: list[Column] = [
        # AstroImageJ's pixel i spans i to i + 1, its first row is the frame's top
        ("X(IJ)", x + 0.5),
        ("Y(IJ)", table.frame_height_px - y - 0.5),
        ("X(FITS)", x + 1.0),
        ("Y(FITS)", y + 1.0),
        ("RA", star.ra_deg[:, 0] / DEG_PER_HOUR),
        ("DEC", star.dec_deg[:, 0]),
        ("Source-Sky", star.source_sky_adu[:, 0]),
        *numbers[:1],
        ("Source_Error", star.source_error_adu[:, 0]),
        ("Source_AMag", relative.source_amag[:, index]),
        ("Source_AMag_Err", relative.source_amag_err[:, index]),
        ("Source_SNR", star.snr[:, 0]),
        ("Peak", star.peak_adu[:, 0]),
        ("Mean", star.mean_adu[:, 0]),
        ("Sky/Pixel", star.sky_adu_px[:, 0]),
        *numbers[1:],
        ("FWHM", star.fwhm_px[:, 0]),
        ("Width", star.width_px[:, 0]),
        ("X-Width", star.x_width_px[:, 0]),
        ("Y-Width", star.y_width_px[:, 0]),
        ("Angle", star.angle_deg[:, 0]),
        ("Roundness", star.roundness[:, 0]),
    ]
    return [(name + suffix, values) for name, values in named]


def _pixel_numbers(measured: domain.StarMeasurements, index: int, suffix: str) -> list[Column]:
    return [
        (f"N_Src_Pixels{suffix}", measured.n_source_px[:, index]),
        (f"N_Sky_Pixels{suffix}", measured.n_sky_px[:, index]),
    ]


def _saturated(table: domain.PhotometryTable) -> FloatArray:
    """Return the highest peak of each frame's saturated apertures, 0 where none is."""
    peak_adu = table.measured.peak_adu
    saturated = (table.measured.flags & domain.Flag.SATURATED) != 0
    # an aperture too damaged to be measured has no peak, and is saturated all the same
    height = np.where(np.isfinite(peak_adu), peak_adu, table.saturation_adu)
    return np.where(saturated, height, 0.0).max(axis=1)


def _cell(value: object) -> str:
    """Return a cell: as many digits as it takes, whole numbers without a point, no tab in text."""
    if isinstance(value, str):
        return " ".join(value.split()).replace('"', "'")
    number = float(value)  # type: ignore[arg-type]  # the columns hold text and numbers only
    if math.isnan(number):
        return "NaN"
    return str(int(number)) if number.is_integer() and abs(number) < 1e15 else repr(number)


# ------------------------------------------------------------------------------------ with units

_UNITS = {
    "J.D.-2400000": "d", "JD_UTC": "d", "JD_SOBS": "d", "HJD_UTC": "d", "BJD_TDB": "d",
    "ALT_OBJ": "deg", "DECOBJ2K": "deg", "DEC": "deg", "Angle": "deg",
    "RAOBJ2K": "hourangle", "RA": "hourangle", "EXPTIME": "s", "CCD-TEMP": "deg_C",
    "Saturated": "adu", "tot_C_cnts": "adu", "tot_C_err": "adu", "Source-Sky": "adu",
    "Source_Error": "adu", "Peak": "adu", "Mean": "adu / pix", "Sky/Pixel": "adu / pix",
    "Variance": "adu2", "Source_AMag": "mag", "Source_AMag_Err": "mag",
    "FWHM_Mean": "pix", "Source_Radius": "pix", "Source_Rad(base)": "pix", "Sky_Rad(min)": "pix",
    "Sky_Rad(max)": "pix", "X(IJ)": "pix", "Y(IJ)": "pix", "X(FITS)": "pix", "Y(FITS)": "pix",
    "N_Src_Pixels": "pix", "N_Sky_Pixels": "pix", "FWHM": "pix", "Width": "pix", "X-Width": "pix",
    "Y-Width": "pix",
}  # fmt: skip
"""Units by column, suffixes left off; what is not named here is a ratio, a number or a word."""
_SUFFIX = re.compile(r"_[TC]\d+$")


def as_qtable(table: "pd.DataFrame | str") -> "QTable":
    """Return a measurement table, read or as text, as an astropy table with units.

    Numbers without a unit (relative fluxes, SNR, airmass…) are plain columns, NaN where there is
    no value.

    Raises
    ------
    ValueError
        There is no measurement table in the text.
    """
    from astropy import units
    from astropy.table import QTable

    frame = read_table(table) if isinstance(table, str) else table
    columns = QTable()
    for name in frame.columns:
        unit = _UNITS.get(_SUFFIX.sub("", name))
        if frame[name].dtype.kind not in "biuf":
            columns[name] = ["" if value != value else str(value) for value in frame[name]]
        elif unit is None:
            columns[name] = frame[name].to_numpy()
        else:
            columns[name] = frame[name].to_numpy(dtype=float) * units.Unit(unit)
    return columns
