"""The plate solution that a frame brings along in its header, translated and checked.

Whoever wrote it (ASTAP, astrometry.net, MaxIm, Siril, SWarp, a remote observatory), it is read by
astropy and fitted anew as a TAN or TAN-SIP solution about the image's centre. That some program
wrote it proves nothing: mounts and planetarium programs write where they believe to point. So the
frame's own stars must lie where it puts the stars of the table.
"""

import math
import re
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from wombat_dagster.domain import FloatArray, WcsSolution
from wombat_dagster.solvers.base import Reason, RungOptions, SolveOutcome, SolveRequest
from wombat_dagster.solvers.fitting import MIN_MATCHED, agreement, fit_tan, is_supported, refine
from wombat_dagster.tangent import project

if TYPE_CHECKING:
    from astropy.wcs import WCS

Cards = Mapping[str, str | bool | int | float]

GRID = 15  # points per axis, edges included, at which the two descriptions are compared
MAX_TRANSLATION_PX = 0.1
TRANSLATION_ORDERS = (1, 2, 3, 4, 5)
VERIFY_RADIUS_PX = 4.0
EQUINOX_CARDS = ("EQUINOX", "EPOCH")
UNITS = {"": "deg", "DEG": "deg"}  # DEGREES and the like; others as astropy knows them
IRAF_ONLY = ("-TNX", "-ZPX")  # bent by WAT cards, which astropy does not read
OLD_EPOCHS = (1950.0, 2000.0)  # the equinox in old headers; other numbers: the observation's date

_NUMBER_CARD = re.compile(
    r"(CRPIX|CRVAL|CDELT|CROTA)[12]|(CD|PC)[12]_[12]|PV[12]_\d+|LONPOLE|LATPOLE|EQUINOX|EPOCH"
    r"|[AB]P?_(ORDER|\d_\d)"
)
_SIP_CARD = re.compile(r"[AB]P?_(ORDER|\d_\d)")
_TEXT_CARD = re.compile(r"(CTYPE|CUNIT)[12]|RADESYS|RADECSYS")
_CELESTIAL = re.compile(r"(RA--|DEC-|[GEHS]L(ON|AT))-")


class NoHeaderSolution(ValueError):
    """A header has no plate solution that can be used; the message says why."""


@dataclass(frozen=True, slots=True)
class HeaderSolver:
    """Takes the solution out of the request's `header`, and the star table's word on it.

    Where that table cannot judge (none, or it knows too few stars at that place) the solution
    comes without a count: it is for the caller to find other evidence or to reject it.
    """

    name: str = "header"
    version: str = "1"

    def solve(self, request: SolveRequest, options: RungOptions) -> SolveOutcome:
        """Translate and check; `options` change nothing, it takes milliseconds."""
        begun = time.perf_counter()
        outcome = self._judged(request)
        return SolveOutcome(
            solver=self.name,
            solver_version=self.version,
            n_stars=len(request.detections),
            seconds=time.perf_counter() - begun,
            **outcome,
        )

    def _judged(self, request: SolveRequest) -> dict:
        size = {"width_px": request.width_px, "height_px": request.height_px}
        try:
            solution, words = header_solution(request.header or {}, **size)
        except NoHeaderSolution as error:
            return {"reason": Reason.NO_MATCH, "message": str(error)}
        stars, table = request.detections, request.star_table
        unchecked = {
            "solution": solution,
            "message": f"{words}; not checked: no stars are known there",
        }
        if table is None:
            return unchecked
        fit = agreement(solution, stars, table, radius_px=VERIFY_RADIUS_PX, **size)
        if fit.n_expected < MIN_MATCHED:
            return unchecked
        if not is_supported(fit.n_matched, fit.n_expected, fit.rms_px):
            found = f"{fit.n_matched} of {fit.n_expected} expected stars are where it puts them"
            return {"reason": Reason.NO_MATCH, "message": f"{words}, but only {found}"}
        better = refine(
            solution, stars, table, width_px=request.width_px, height_px=request.height_px
        )
        if better is not None and is_supported(better.n_matched, better.n_expected, better.rms_px):
            fit = better
        return {
            "solution": fit.solution,
            "message": words,
            "database": table.name,
            "n_matched": fit.n_matched,
            "n_expected": fit.n_expected,
            "rms_px": fit.rms_px,
            "rms_arcsec": fit.rms_arcsec,
        }


def header_solution(cards: Cards, *, width_px: int, height_px: int) -> tuple[WcsSolution, str]:
    """Return the plate solution that a header describes, and what it was, in words.

    TAN, SIP, TPV, ZPN and whatever else astropy reads, in any celestial frame; a CD matrix goes
    before CDELT, CROTA and PC beside it. Numbers may be written as texts.

    Raises
    ------
    NoHeaderSolution
        None there, it is not celestial, its numbers are no numbers, or it bends more than a fifth
        order can follow to 0.1 px.
    """
    wcs, kind = _astropy_wcs(cards)
    x, y = (
        axis.ravel()
        for axis in np.meshgrid(
            np.linspace(-0.5, width_px - 0.5, GRID), np.linspace(-0.5, height_px - 0.5, GRID)
        )
    )
    ra_deg, dec_deg = _icrs(wcs, x, y)
    start = _start(wcs, width_px=width_px, height_px=height_px)
    worst_px = math.inf
    for order in TRANSLATION_ORDERS:
        fitted = fit_tan(
            x, y, ra_deg, dec_deg,
            start=start, width_px=width_px, height_px=height_px, order=order,
            clip_floor_px=math.inf,
        )  # fmt: skip
        if fitted is None:
            break
        solution, residual_px = fitted
        worst_px = float(residual_px.max())
        if worst_px <= MAX_TRANSLATION_PX:
            as_what = "TAN" if order == 1 else f"TAN-SIP of order {order}"
            return solution, f"{kind} in the header, as {as_what} to {worst_px:.2g} px"
    raise NoHeaderSolution(
        f"{kind} in the header bends more than a polynomial follows: {worst_px:.2g} px off, "
        f"{MAX_TRANSLATION_PX:g} wanted"
    )


def _astropy_wcs(cards: Cards) -> tuple["WCS", str]:
    """Return astropy's reading of the cards, and the names of the projection."""
    from astropy.io import fits
    from astropy.wcs import WCS

    if str(cards.get("PLTSOLVD", "T")).strip().upper() in ("F", "FALSE"):
        raise NoHeaderSolution("PLTSOLVD = F: the solution in the header is an older one's")
    header = fits.Header(_cleaned(cards))
    kinds = [str(header.get(f"CTYPE{axis}", "")) for axis in (1, 2)]
    if not all(map(_CELESTIAL.match, kinds)):
        raise NoHeaderSolution(f"no plate solution in the header: CTYPE {kinds}")
    if kinds[0].endswith(IRAF_ONLY):
        raise NoHeaderSolution(f"{kinds[0]} in the header cannot be read, nor its WAT cards")
    missing = [card for card in ("CRPIX1", "CRPIX2", "CRVAL1", "CRVAL2") if card not in header]
    if not any(card in header for card in ("CD1_1", "CD1_2", "CDELT1")):
        missing.append("CD1_1 or CDELT1")
    if missing:
        raise NoHeaderSolution(f"the plate solution in the header lacks {', '.join(missing)}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # dialects that astropy mends
            wcs = WCS(header, naxis=2)
            wcs.wcs.set()
    except (ValueError, TypeError, KeyError, MemoryError) as error:  # wcslib's are ValueErrors
        words = " ".join(str(error).split())
        raise NoHeaderSolution(
            f"the plate solution in the header cannot be read: {words}"[:300]
        ) from error
    if not wcs.has_celestial:
        raise NoHeaderSolution(f"no plate solution in the header: CTYPE {kinds}")
    return wcs, kinds[0]


def _cleaned(cards: Cards) -> dict[str, str | float]:
    """Return the cards that describe the world coordinates, numbers as numbers, without doubles."""
    cleaned: dict[str, str | float] = {}
    for keyword, value in cards.items():
        if _NUMBER_CARD.fullmatch(keyword):
            try:
                cleaned[keyword] = float(value)
            except ValueError:
                if keyword in EQUINOX_CARDS:
                    continue  # 'J2000': what is taken without it
                raise NoHeaderSolution(
                    f"{keyword} = {value!r} in the header is no number"
                ) from None
            if not math.isfinite(float(value)):
                raise NoHeaderSolution(f"{keyword} = {value} in the header is no number")
        elif _TEXT_CARD.fullmatch(keyword):
            text = str(value).strip().upper()
            is_unit = keyword.startswith("CUNIT")
            cleaned[keyword] = UNITS.get(text[:3], text.lower()) if is_unit else text
    if cleaned.get("EPOCH") not in OLD_EPOCHS:
        cleaned.pop("EPOCH", None)
    if any(keyword.startswith("CD") and "_" in keyword for keyword in cleaned):
        for keyword in [k for k in cleaned if re.match(r"CDELT|CROTA|PC\d", k)]:
            del cleaned[keyword]
    kinds = [str(cleaned.get(f"CTYPE{axis}", "")).removesuffix("-SIP") for axis in (1, 2)]
    has_sip = "A_ORDER" in cleaned and "B_ORDER" in cleaned
    if has_sip and all(kind.endswith("-TAN") for kind in kinds):
        kinds = [f"{kind}-SIP" for kind in kinds]
    else:  # half of a distortion, or one that is none of this projection's
        for keyword in [k for k in cleaned if _SIP_CARD.fullmatch(k)]:
            del cleaned[keyword]
    cleaned |= {"CTYPE1": kinds[0], "CTYPE2": kinds[1]}
    for order in [k for k in cleaned if k.endswith("_ORDER")]:
        cleaned[order] = int(float(cleaned[order]))
    return cleaned


def _icrs(wcs: "WCS", x_px: FloatArray, y_px: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return ICRS degrees of 0-based pixels. Raises NoHeaderSolution where they are none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            places = wcs.pixel_to_world(x_px, y_px).icrs
    except (ValueError, TypeError, AttributeError) as error:
        raise NoHeaderSolution(
            f"the plate solution in the header cannot be used: {error}"
        ) from error
    ra_deg, dec_deg = places.ra.deg, places.dec.deg
    if not (np.isfinite(ra_deg).all() and np.isfinite(dec_deg).all()):
        raise NoHeaderSolution("the plate solution in the header puts pixels nowhere on the sky")
    return ra_deg, dec_deg


def _start(wcs: "WCS", *, width_px: int, height_px: int) -> WcsSolution:
    """Return the header's solution near the image's centre, by steps of one pixel."""
    x, y = 0.5 * (width_px - 1), 0.5 * (height_px - 1)
    ra, dec = _icrs(wcs, np.array([x, x + 1, x]), np.array([y, y, y + 1]))
    xi, eta = project(ra, dec, ra0_deg=float(ra[0]), dec0_deg=float(dec[0]))
    return WcsSolution(
        ra_deg=float(ra[0]), dec_deg=float(dec[0]), crpix_x=x + 1.0, crpix_y=y + 1.0,
        cd11=float(xi[1]), cd12=float(xi[2]), cd21=float(eta[1]), cd22=float(eta[2]),
    )  # fmt: skip
