"""A stand-in's VizieR: APASS DR9 and ATLAS-REFCAT2 made of a chart's stars, as VOTables.

It answers what astroquery asks by POST: one ``key=value`` a line. Columns, magnitude limits, circle
and row limit are honoured; 50 rows come when no limit is given, as from the real one. Formats:
DOMAIN section 8, real answers in the reference, and recorded ones of astroquery's tests.

The Sloan and Pan-STARRS magnitudes follow from the stars' B, V and Ic by relations other than
those that wombat goes back by, so that an error in either shows: Jester et al. (2005), AJ 130, 873,
table 1, all stars; the linear columns of Tonry et al. (2012), ApJ 750, 99, table 6.
"""

import datetime as dt
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape

import numpy as np

DEFAULT_ROWS = 50
APASS, REFCAT2 = "II/336/apass9", "J/ApJ/867/105/refcat2"
_CENTRE = re.compile(r"^(\d+\.?\d*) ?([+-]\d+\.?\d*)$")
_RADIUS_DEG = {"-c.rd": 1.0, "-c.rm": 1.0 / 60.0, "-c.rs": 1.0 / 3600.0}
_NOTHING_NEAR_ARCSEC = 99.9  # REFCAT2's word for no neighbour

Row = dict[str, float | int | str | None]


class BadQuery(Exception):
    """What was asked makes no sense; the words for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Star:
    """A star to be catalogued: its place in degrees, its magnitudes and errors by band."""

    ra_deg: float
    dec_deg: float
    mags: Mapping[str, float]
    errors_mag: Mapping[str, float | None]


def parse(body: str) -> dict[str, str]:
    """Return what was asked, from the lines of a POST."""
    pairs = (line.partition("=") for line in body.splitlines() if line.strip())
    return {key.strip(): value.strip() for key, _, value in pairs}


def votable(asked: Mapping[str, str], stars: Iterable[Star]) -> str:
    """Return VizieR's answer. An unknown catalogue is an error inside a good VOTable."""
    table = asked.get("-source", "")
    if table not in _ROW_OF:
        return error_votable(f"***No catalogue (table) {table}")
    ra_deg, dec_deg, radius_deg = _circle(asked)
    rows = [
        _ROW_OF[table](star)
        for star in stars
        if _distance_deg(star, ra_deg, dec_deg) <= radius_deg and "V" in star.mags
    ]
    for column, limit in _limits(asked, table).items():
        rows = [row for row in rows if isinstance(mag := row[column], float) and mag < limit]
    text = asked.get("-out.max", str(DEFAULT_ROWS))
    rows = rows if text == "unlimited" else rows[: int(text)]
    wanted = [name for name in asked.get("-out", "").split(",") if name in _FIELDS[table]]
    return _document(_resource(table, wanted or list(_FIELDS[table]), rows))


def error_votable(words: str) -> str:
    """Return the answer of a VizieR whose database is away: a good VOTable, with status 200."""
    infos = f'<INFO ID="Error" name="Error" value="{escape(words)}"/>\n'
    status = f'<INFO name="QUERY_STATUS" value="ERROR">\n{escape(words)}\n</INFO>\n'
    return _document(f"{infos}{status}<RESOURCE>\n</RESOURCE>\n")


def _document(content: str) -> str:
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds").removesuffix("+00:00")
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<VOTABLE version="1.4" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"\n'
        '  xmlns="http://www.ivoa.net/xml/VOTable/v1.3"\n'
        '  xsi:schemaLocation="http://www.ivoa.net/xml/VOTable/v1.3 '
        'http://www.ivoa.net/xml/VOTable/v1.3">\n'
        f"<DESCRIPTION>\n   VizieR Astronomical Server (a stand-in)\n    Date: {now}\n"
        f"</DESCRIPTION>\n{content}</VOTABLE>\n"
    )


def _resource(table: str, columns: list[str], rows: list[Row]) -> str:
    fields = "".join(
        f'    <FIELD name="{escape(name)}" {_FIELDS[table][name]}>\n'
        f"      <DESCRIPTION>{escape(name)} of the stand-in</DESCRIPTION>\n    </FIELD>\n"
        for name in columns
    )
    lines = "".join(
        "<TR>" + "".join(f"<TD>{_cell(row[name])}</TD>" for name in columns) + "</TR>\n"
        for row in rows
    )
    identifier = re.sub(r"\W", "_", table)
    data = f"<DATA><TABLEDATA>\n{lines}</TABLEDATA></DATA>\n" if rows else ""
    return (
        f'<RESOURCE ID="yCat_{identifier}" name="{table.rpartition("/")[0]}">\n'
        '  <COOSYS ID="H_2000.000" system="ICRS" epoch="2000.000"/>\n'
        f'  <TABLE ID="{identifier}" name="{table}">\n{fields}{data}  </TABLE>\n</RESOURCE>\n'
    )


def _cell(value: float | int | str | None) -> str:
    return "" if value is None else str(value)


def _circle(asked: Mapping[str, str]) -> tuple[float, float, float]:
    """Return RA, Dec and radius in degrees."""
    centre = _CENTRE.match(asked.get("-c", ""))
    radii = [float(asked[key]) * unit for key, unit in _RADIUS_DEG.items() if key in asked]
    if centre is None or len(radii) != 1:
        raise BadQuery(f"no circle in {dict(asked)}")
    return float(centre[1]), float(centre[2]), radii[0]


def _limits(asked: Mapping[str, str], table: str) -> dict[str, float]:
    return {
        column: float(asked[column].removeprefix("<"))
        for column in _FIELDS[table]
        if column in asked and asked[column].startswith("<")
    }


def _distance_deg(star: Star, ra_deg: float, dec_deg: float) -> float:
    ra, dec, ra0, dec0 = np.radians([star.ra_deg, star.dec_deg, ra_deg, dec_deg])
    half = np.sin((dec - dec0) / 2) ** 2 + np.cos(dec) * np.cos(dec0) * np.sin((ra - ra0) / 2) ** 2
    return float(np.degrees(2.0 * np.arcsin(np.sqrt(half))))


# --------------------------------------------------------------------------------------- catalogues


def _apass_row(star: Star) -> Row:
    m = star.mags
    sloan: dict[str, float | None] = {"Vmag": m["V"], "Bmag": m.get("B"), "g'mag": None}
    sloan |= {"r'mag": None, "i'mag": None}
    if "B" in m:
        sloan["g'mag"] = m["V"] + 0.60 * (m["B"] - m["V"]) - 0.12
        sloan["r'mag"] = red = m["V"] - 0.42 * (m["B"] - m["V"]) + 0.11
        if "Rc" in m and "Ic" in m:
            sloan["i'mag"] = red - 0.91 * (m["Rc"] - m["Ic"]) + 0.20
    row: Row = {"RAJ2000": round(star.ra_deg, 6), "DEJ2000": round(star.dec_deg, 6), "nobs": 5}
    for column, mag in sloan.items():
        error_mag = star.errors_mag.get("B" if column == "Bmag" else "V")
        row[column] = None if mag is None else round(mag, 3)
        row[f"e_{column}"] = None if mag is None else round(error_mag or 0.0, 3)
        row[f"u_e_{column}"] = None if mag is None else int(not error_mag)
    return row


def _refcat2_row(star: Star) -> Row:
    m = star.mags
    row: Row = {"RA_ICRS": round(star.ra_deg, 8), "DE_ICRS": round(star.dec_deg, 8)}
    row |= {"e_pmRA": 0.05, "dupvar": 2, "rp1": _NOTHING_NEAR_ARCSEC}
    mags: dict[str, float | None] = {"g": None, "r": None, "i": None}
    if "B" in m:
        colour = (m["B"] - m["V"] - 0.213 + 0.006) / (1.0 + 0.587 - 0.474)
        mags["r"] = red = m["V"] - 0.006 - 0.474 * colour
        mags["g"] = red + colour
        mags["i"] = m["Ic"] + 0.367 + 0.149 * colour if "Ic" in m else None
    for band, mag in mags.items():
        row[f"{band}mag"] = None if mag is None else round(mag, 3)
        row[f"e_{band}mag"] = None if mag is None else round(star.errors_mag.get("V") or 0.01, 3)
    return row


_MAG = 'ucd="phot.mag" datatype="float" width="6" precision="3" unit="mag"'
_FLAG = 'ucd="meta.code" datatype="unsignedByte" width="1"'
_SHORT = 'ucd="meta.number" datatype="short" width="3"'


def _place(ucd: str, precision: int) -> str:
    return f'ucd="{ucd};meta.main" datatype="double" precision="{precision}" unit="deg"'


_FIELDS = {
    APASS: {
        "RAJ2000": _place("pos.eq.ra", 6),
        "DEJ2000": _place("pos.eq.dec", 6),
        "nobs": _SHORT,
        **{
            f"{of}{column}": _FLAG if of == "u_e_" else _MAG
            for column in ("Vmag", "Bmag", "g'mag", "r'mag", "i'mag")
            for of in ("", "e_", "u_e_")
        },
    },
    REFCAT2: {
        "RA_ICRS": _place("pos.eq.ra", 8),
        "DE_ICRS": _place("pos.eq.dec", 8),
        "e_pmRA": 'ucd="stat.error" datatype="float" width="5" precision="2" unit="mas/yr"',
        "dupvar": _SHORT,
        "rp1": 'ucd="pos" datatype="float" width="4" precision="1" unit="arcsec"',
        **{f"{of}{band}mag": _MAG for band in ("g", "r", "i") for of in ("", "e_")},
    },
}
_ROW_OF = {APASS: _apass_row, REFCAT2: _refcat2_row}
