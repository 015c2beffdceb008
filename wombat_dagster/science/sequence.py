"""Which chart stars serve: bands, candidates before measuring, roles T1, T2, C3… after it.

A chart star is never dropped silently: it gets a role or exactly one reason of `domain.Unused`,
with the numbers. All numbers are DOMAIN section 7. Asking for the chart is the catalogues' work.
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Literal

import numpy as np

from wombat_dagster import domain
from wombat_dagster.domain import BoolArray, Flag, FloatArray, LedgerEntry, Unused
from wombat_dagster.science import astrometry

IS_TARGET_ARCSEC = 3.0
IS_VARIABLE_ARCSEC = 5.0  # catalogues of bright stars agree better, those of faint ones matter less
WINDOW_BANDS = frozenset({"V", "CV", "g"})  # VSX bands near enough to V
WIDER_MAG = 0.5  # for every magnitude that is not in V, and for a missing MinMag
MEASURED_WINDOW_MAG = 2.0  # about T1's measured magnitude, where VSX gives none
ROUNDING_MAG = 1e-9  # 12.3 + 1.5 is not 13.8 in binary
MAX_COMP_LOSS = 0.20  # by one frame
MAX_FRAME_LOSS = 0.05
SCORE_SHORT_SIDE = 0.25
SCORE_MAG = 0.5
SCORE_COLOUR = 0.3
POOR_ERROR_MAG = 0.05
MIN_COMP_SNR = 20.0
MAX_UNMEASURED = 0.05  # of the frames; also for those on which the annulus is cut off
CROWDING_FWHM = 2.0
CROWDING_MAG = 3.0

_FILTER_MAP = json.loads(
    resources.files("wombat_dagster.science").joinpath("filter_map.json").read_text("utf-8")
)


class UnknownFilter(domain.Shortfall):
    """The header's filter is no AAVSO band, or one that charts have no magnitudes for."""

    apphot = domain.Apphot.NOCOMPS


# ------------------------------------------------------------------------------------ bands


def band_of(header_filter: str, overrides: Mapping[str, str]) -> tuple[str, str, bool]:
    """Return (AAVSO code, band of the comps' magnitudes, confirmed) of a header's filter.

    `overrides` is what ``[instrument.filters]`` says of header filters; it confirms. Names that
    mean different filters to different people (``R``, ``G``, ``L`` …) come back unconfirmed: they
    serve, and a report must wait. The raw spelling decides first (``r`` is Sloan, ``R`` Cousins),
    then the normalised one.

    Raises
    ------
    UnknownFilter
        The name is not in the map, or charts have no magnitudes for its band.
    """
    raw = _unquoted(header_filter)
    override = _override(raw, overrides)
    normal = _normalised(raw)
    code = override or _FILTER_MAP["case_sensitive_first"].get(raw) or _CODE_OF.get(normal)
    if code is None or code not in _FILTER_MAP["codes"]:
        raise UnknownFilter(
            f'filter "{raw}" is {f"set to {code}, which is " if code else ""}no AAVSO band known '
            "here: say which in [instrument.filters]"
        )
    comp_band = _FILTER_MAP["comp_band"].get(code)
    if comp_band is None:
        raise UnknownFilter(f'filter "{raw}" is {code}, in which charts have no magnitudes')
    asks = raw in _FILTER_MAP["ask"] or normal in _FILTER_MAP["ask"]
    return code, comp_band, override is not None or not asks


def _override(raw: str, overrides: Mapping[str, str]) -> str | None:
    if raw in overrides:
        return overrides[raw]
    folded = {name.strip().casefold(): code for name, code in overrides.items()}
    return folded.get(raw.casefold())


def _unquoted(name: str) -> str:
    """Return `name` without padding and without the quotes of a badly written FITS string."""
    name = name.strip()
    while len(name) > 1 and name[0] == name[-1] and name[0] in "'\"":
        name = name[1:-1].strip()
    return name


def _normalised(name: str) -> str:
    """Return `name` as the map spells names; the prime of Sloan's g' becomes a p."""
    name = re.sub(r"(?<=[A-Za-z])['′’`]$", "p", _unquoted(name).casefold())
    return re.sub(r"[\s_\-'\"′’`]", "", name)


_CODE_OF: dict[str, str] = {}
for _code, _names in _FILTER_MAP["codes"].items():
    for _name in _names:
        _CODE_OF.setdefault(_normalised(_name), _code)  # first hit wins


# ------------------------------------------------------------------------------- candidates


@dataclass(frozen=True, slots=True, kw_only=True)
class PersonsChoices:
    """AUIDs that a person chose: T2; stars used whatever the window says; the only comps; never."""

    check: str | None = None
    pins: tuple[str, ...] = ()
    comps: tuple[str, ...] = ()  # empty: all of the chart
    ban: tuple[str, ...] = ()

    @property
    def asked_for(self) -> frozenset[str]:
        """All stars that the person wants to see used."""
        return frozenset(filter(None, (self.check, *self.pins, *self.comps)))


NO_CHOICES = PersonsChoices()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Window:
    """The magnitudes a comp may have, and what was assumed; None: any."""

    bright: float | None
    faint: float | None
    notes: tuple[str, ...] = ()


def select_candidates(
    sequence: domain.CompSequence,
    variable: domain.Variable,
    solutions: Sequence[tuple[str, domain.WcsSolution]],
    width_px: int,
    height_px: int,
    *,
    header_filter: str,
    overrides: Mapping[str, str],
    margin_px: float,
    window: Literal["wide", "literal"] = "wide",
    window_mag: float = 1.5,
    choices: PersonsChoices = NO_CHOICES,
    known_variables: Sequence[domain.KnownVariable] | None = None,
    target_place: tuple[float, float] | None = None,
    target_colour: float | None = None,
    measured_mag: float | None = None,
    other_bands: Sequence[str] = (),
) -> domain.CompCandidates:
    """Return the chart stars that may be used, best check star first, and why the others may not.

    Parameters
    ----------
    solutions
        (label, solution) of every solved frame of the observation.
    margin_px
        Least distance of a comp from the edges: the annulus and 5 px. An estimate where the annulus
        is: it follows from the fitted FWHM only when the stars are measured.
    choices
        What a person chose. The stars asked for need not lie in the magnitude window, and one that
        VSX lists as variable serves, with a note; what the frames show they must stand.
    known_variables
        The variables of the field by VSX, T1 itself among them or not; None when VSX could not be
        asked. A comp at such a place is out, unless the chart calls it acceptable to use.
    target_place
        (ra_deg, dec_deg) of the variable at the night; its J2000 place when not given.
    target_colour
        B-V of the variable, for the choice of T2.
    measured_mag
        T1's measured magnitude; serves only where VSX gives no range.
    other_bands
        Bands that the target's other filters need: stars without them make the poorer T2.

    Raises
    ------
    UnknownFilter
        See `band_of`.
    OffImage
        The variable is on none of the frames.
    NoComps
        Nothing of the chart is left; the message counts the reasons.

    Notes
    -----
    The comps of a night are one set, on every kept frame. A frame without the variable, or one that
    alone costs more than 20 % of the set, is left out instead (of the latter at most 5 % of the
    frames, one in a short night).
    """
    band, comp_band, confirmed = band_of(header_filter, overrides)
    place = target_place or (variable.ra_deg, variable.dec_deg)
    magnitudes = _window(variable, window, window_mag, measured_mag)
    others = None if known_variables is None else _without_target(known_variables, variable)
    usable: list[domain.CompStar] = []
    ledger: list[LedgerEntry] = []
    for star in sequence.stars:
        refusal = _refusal(star, variable, place, comp_band, magnitudes, choices, others or ())
        if refusal is None:
            usable.append(star)
        else:
            ledger.append(_unused(star, *refusal))
    size = (width_px, height_px)
    frames = _choose_frames(solutions, place, usable, size, margin_px)
    for index, star in enumerate(usable):
        if frames.n_off[index]:
            words = f"off {frames.n_off[index]} of {frames.n_kept} frames"
            words = f"{words} (estimated margin {margin_px:.1f} px)"
            ledger.append(_unused(star, Unused.OFF_IMAGE, words))
    survivors = [star for star, n_off in zip(usable, frames.n_off, strict=True) if not n_off]
    if not survivors:
        raise domain.NoComps(_nothing_left(sequence, comp_band, ledger))
    middle = _middle(variable, measured_mag)
    short_side_deg = min(size) * frames.scale_arcsec_px / 3600.0
    chart_place = (variable.ra_deg, variable.dec_deg)  # the ranking must not move with the star
    scores = {
        star.auid: check_score(star, chart_place, short_side_deg, middle, target_colour, comp_band)
        for star in survivors
    }
    survivors.sort(
        key=lambda star: (
            star.auid != choices.check,
            any(other not in star.bands for other in other_bands),
            scores[star.auid],
            star.auid,
        )
    )
    notes = [*magnitudes.notes, *frames.notes]
    if middle is None:
        notes.append(f"no magnitude of {variable.name} is known: T2 by distance alone")
    if choices.check is not None and choices.check not in scores:
        notes.append(f"the check star asked for, {choices.check}, is not usable")
    notes += _asked_for_but_variable(survivors, choices, others or ())
    return domain.CompCandidates(
        variable=variable,
        chart_id=sequence.chart_id,
        chart_source=sequence.source,
        chart_fetched_utc=sequence.fetched_utc,
        filter=header_filter,
        band=band,
        comp_band=comp_band,
        band_confirmed=confirmed,
        ranked=tuple(survivors),
        scores=tuple(scores[star.auid] for star in survivors),
        ledger=tuple(ledger),
        dropped_frames=frames.dropped,
        notes=tuple(notes),
        known_variables=None if others is None else tuple(others),
    )


def check_score(
    star: domain.CompStar,
    target_place: tuple[float, float],
    short_side_deg: float,
    target_mag: float | None,
    target_colour: float | None,
    comp_band: str,
) -> float:
    """Return how unlike the variable a star is; the lowest makes the best T2.

    √((separation/S)² + (ΔV/0.5)² + (Δ(B−V)/0.3)²), S a quarter of the short side; an unknown term
    is 0. One more for a catalogue error above 0.05 mag or none. One unit does equal harm, 1-2 %.
    """
    separation = float(astrometry.separation_deg(star.ra_deg, star.dec_deg, *target_place))
    terms = [separation / (SCORE_SHORT_SIDE * short_side_deg)]
    if target_mag is not None:
        terms.append((_window_mag(star, comp_band) - target_mag) / SCORE_MAG)
    colour = star.colour("B", "V")
    if colour is not None and target_colour is not None:
        terms.append((colour - target_colour) / SCORE_COLOUR)
    error = star.bands[comp_band].error_mag
    poor = error is None or error > POOR_ERROR_MAG
    return math.hypot(*terms) + (1.0 if poor else 0.0)


def measured_magnitude(
    detections: domain.Detections,
    solution: domain.WcsSolution,
    place: tuple[float, float],
    stars: Sequence[domain.CompStar],
    comp_band: str,
    *,
    fwhm_px: float,
) -> float | None:
    """Return about how bright the variable at `place` (degrees) is on a frame, in V where possible.

    Good to some tenths of a magnitude, which is enough for a window of two: detected light against
    the median of the chart's stars that were detected. None where the variable or all of those were
    not, within one FWHM.
    """
    listed = [star for star in stars if "V" in star.bands or comp_band in star.bands]
    mags = np.array([_window_mag(star, comp_band) for star in listed])
    x_px, y_px = astrometry.project(
        solution,
        [place[0], *(star.ra_deg for star in listed)],
        [place[1], *(star.dec_deg for star in listed)],
    )
    distance_px = np.hypot(x_px[:, None] - detections.x_px, y_px[:, None] - detections.y_px)
    if not listed or not len(detections):
        return None
    nearest = np.argmin(np.where(np.isfinite(distance_px), distance_px, np.inf), axis=1)
    found = distance_px[np.arange(len(x_px)), nearest] <= fwhm_px
    if not found[0] or not found[1:].any():
        return None
    instrumental = -2.5 * np.log10(detections.flux_adu[nearest])
    return float(instrumental[0] + np.median((mags - instrumental[1:])[found[1:]]))


def _window_mag(star: domain.CompStar, comp_band: str) -> float:
    """Return V, or the band needed where the chart has no V."""
    return star.bands["V" if "V" in star.bands else comp_band].mag


def _middle(variable: domain.Variable, measured_mag: float | None) -> float | None:
    known = [m for m in (variable.mag_bright, variable.mag_faint) if m is not None]
    return sum(known) / len(known) if known else measured_mag


def _window(
    variable: domain.Variable,
    window: Literal["wide", "literal"],
    window_mag: float,
    measured_mag: float | None,
) -> _Window:
    bright, faint = variable.mag_bright, variable.mag_faint
    notes = []
    if bright is None:
        if measured_mag is None:
            words = f"VSX gives no maximum of {variable.name}: comps of any magnitude"
            return _Window(bright=None, faint=None, notes=(words,))
        words = f"VSX gives no maximum of {variable.name}: comps within 2 mag of {measured_mag:.2f}"
        return _Window(
            bright=measured_mag - MEASURED_WINDOW_MAG,
            faint=measured_mag + MEASURED_WINDOW_MAG,
            notes=(words,),
        )
    if faint is None:
        faint = bright + WIDER_MAG
        notes.append(f"VSX gives no minimum of {variable.name}: {faint:.2f} assumed")
    if window == "literal":
        bright, faint = faint, bright  # the owner's sentence, as it is written
    low, high = bright - window_mag, faint + window_mag
    if not _near_v(variable.mag_bright_band):
        low -= WIDER_MAG
    if not _near_v(variable.mag_faint_band):
        high += WIDER_MAG
    return _Window(bright=low, faint=high, notes=tuple(notes))


def _near_v(band: str | None) -> bool:
    """Return whether a VSX band compares with V; a range from the configuration is in V."""
    return band is None or band in WINDOW_BANDS


def _refusal(
    star: domain.CompStar,
    variable: domain.Variable,
    place: tuple[float, float],
    comp_band: str,
    window: _Window,
    choices: PersonsChoices,
    others: Sequence[domain.KnownVariable],
) -> tuple[Unused, str] | None:
    """Return why a star cannot be used whatever the frames show, None when it can."""
    separation = 3600.0 * float(astrometry.separation_deg(star.ra_deg, star.dec_deg, *place))
    if star.auid == variable.auid or separation < IS_TARGET_ARCSEC:
        return Unused.IS_TARGET, f'{separation:.1f}" from {variable.name}'
    if star.auid in choices.ban:
        return Unused.BANNED, "banned by the observer"
    asked_for = star.auid in choices.asked_for
    if choices.comps and not asked_for:
        return Unused.BANNED, "not among the comps of the configuration"
    if calls_variable(star.comment):
        return Unused.VARIABLE, star.comment
    known = None if asked_for else listed_variable(star, others)
    if known is not None:
        return Unused.VARIABLE, known
    if comp_band not in star.bands:
        return Unused.NO_BAND, f"no {comp_band}, only {', '.join(sorted(star.bands)) or 'nothing'}"
    return None if asked_for else _outside_window(star, comp_band, window)


def _outside_window(
    star: domain.CompStar, comp_band: str, window: _Window
) -> tuple[Unused, str] | None:
    if window.bright is None or window.faint is None:
        return None
    band = "V" if "V" in star.bands else comp_band
    wider = (0.0 if band == "V" else WIDER_MAG) + ROUNDING_MAG
    mag, bright, faint = star.bands[band].mag, window.bright - wider, window.faint + wider
    words = f"{band} {mag:.3f}, window {bright:.2f} to {faint:.2f}"
    if mag < bright:
        return Unused.TOO_BRIGHT, words
    return (Unused.TOO_FAINT, words) if mag > faint else None


def _without_target(
    known: Sequence[domain.KnownVariable], variable: domain.Variable
) -> list[domain.KnownVariable]:
    """Return the variables of the field that are not T1."""
    separations = astrometry.separation_deg(
        [v.ra_deg for v in known], [v.dec_deg for v in known], variable.ra_deg, variable.dec_deg
    )
    return [
        other
        for other, separation in zip(known, separations, strict=True)
        if 3600.0 * separation >= IS_TARGET_ARCSEC
        and other.name != variable.name
        and (other.auid is None or other.auid != variable.auid)
    ]


def listed_variable(star: domain.CompStar, others: Sequence[domain.KnownVariable]) -> str | None:
    """Return which variable of VSX a chart star is, in words; None when it may serve.

    Acceptable is what the chart's makers, who know VSX, call acceptable to use.
    """
    if not others or _acceptable(star.comment):
        return None
    separations = 3600.0 * astrometry.separation_deg(
        [v.ra_deg for v in others], [v.dec_deg for v in others], star.ra_deg, star.dec_deg
    )
    separations[[other.auid == star.auid for other in others]] = 0.0
    nearest = int(np.argmin(separations))
    if separations[nearest] >= IS_VARIABLE_ARCSEC:
        return None
    other = others[nearest]
    words = f"{other.name} of VSX ({other.variability_type or 'type not known'})"
    if other.auid == star.auid:
        return words
    return f'{words} at {separations[nearest]:.1f}"'


def _asked_for_but_variable(
    stars: Sequence[domain.CompStar],
    choices: PersonsChoices,
    others: Sequence[domain.KnownVariable],
) -> list[str]:
    return [
        f"{star.auid}, asked for by the observer, is {words}"
        for star in stars
        if star.auid in choices.asked_for and (words := listed_variable(star, others))
    ]


def _acceptable(comment: str) -> bool:
    return bool(re.search(r"acceptable\s+to\s+use", comment, re.IGNORECASE)) and not re.search(
        r"\bnot\s+acceptable\b", comment, re.IGNORECASE
    )


def calls_variable(comment: str) -> bool:
    """Return whether a chart's comment calls its star variable.

    "Suspected variable NSV 2386. Acceptable to use." (a real one) does not, nor does "not
    variable".
    """
    if _acceptable(comment):
        return False
    denied = re.sub(r"\b(not|non|no)[\s-]+(a\s+|known\s+)*varia\w*", "", comment, flags=re.I)
    return bool(re.search(r"\bvariab\w*|\bvar\b|\bNSV\b|\beclips\w*", denied, re.IGNORECASE))


def _unused(star: domain.CompStar, reason: Unused, detail: str) -> LedgerEntry:
    return LedgerEntry(auid=star.auid, label=star.label, role=None, reason=reason, detail=detail)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Frames:
    """Which frames are kept, and on how many of those each usable star is missing."""

    n_kept: int
    n_off: list[int]
    scale_arcsec_px: float
    dropped: tuple[str, ...]
    notes: tuple[str, ...]


def _choose_frames(
    solutions: Sequence[tuple[str, domain.WcsSolution]],
    place: tuple[float, float],
    stars: Sequence[domain.CompStar],
    size_px: tuple[int, int],
    margin_px: float,
) -> _Frames:
    """Leave out frames without the variable (OffImage when all are), and the costly few."""
    places = [astrometry.project(solution, *place) for _, solution in solutions]
    with_target = [
        named
        for named, (x, y) in zip(solutions, places, strict=True)
        if astrometry.inside_frame(x, y, *size_px)
    ]
    if not with_target:
        first = ", ".join(f"x {float(x):.0f} y {float(y):.0f}" for x, y in places[:1])
        raise domain.OffImage(
            f"the variable is on none of {len(solutions)} solved frames of "
            f"{size_px[0]}x{size_px[1]} px (first: {first or 'no frame'})"
        )
    inside = _inside(with_target, stars, *size_px, margin_px)
    keep = _kept_frames(inside)
    kept = [named for named, good in zip(with_target, keep, strict=True) if good]
    without = [label for label, _ in solutions if label not in {name for name, _ in with_target}]
    costly = [label for (label, _), good in zip(with_target, keep, strict=True) if not good]
    notes = []
    if without:
        notes.append(f"the variable is off {len(without)} of {len(solutions)} frames")
    if costly:
        notes.append(f"left out, costing over 20 % of the comps: {', '.join(costly)}")
    return _Frames(
        n_kept=len(kept),
        n_off=np.count_nonzero(~inside[keep], axis=0).tolist(),
        scale_arcsec_px=float(np.median([wcs.scale_arcsec_px for _, wcs in kept])),
        dropped=(*without, *costly),
        notes=tuple(notes),
    )


def _inside(
    frames: Sequence[tuple[str, domain.WcsSolution]],
    stars: Sequence[domain.CompStar],
    width_px: int,
    height_px: int,
    margin_px: float,
) -> BoolArray:
    """Return which star is inside which frame, shape (n_frames, n_stars)."""
    ra, dec = np.array([s.ra_deg for s in stars]), np.array([s.dec_deg for s in stars])
    rows = [
        astrometry.inside_frame(
            *astrometry.project(solution, ra, dec), width_px, height_px, margin_px=margin_px
        )
        for _, solution in frames
    ]
    return np.array(rows, dtype=bool).reshape(len(frames), len(stars))


def _kept_frames(inside: BoolArray) -> BoolArray:
    """Return which frames stay, shape (n_frames,): the few that cost too many comps do not.

    At risk are the stars that leaving out the allowed number of frames could still save; a slow
    drift out of the field, which no few frames could mend, costs nobody a frame.
    """
    n_frames = len(inside)
    keep = np.ones(n_frames, dtype=bool)
    allowed = max(1, int(MAX_FRAME_LOSS * n_frames)) if n_frames > 2 else 0
    while allowed:
        at_risk = np.count_nonzero(~inside[keep], axis=0) <= allowed
        if not at_risk.any():
            break
        cost = np.where(keep, np.mean(~inside[:, at_risk], axis=1), 0.0)
        worst = int(np.argmax(cost))
        if cost[worst] <= MAX_COMP_LOSS:
            break
        keep[worst] = False
        allowed -= 1
    return keep


def _nothing_left(
    sequence: domain.CompSequence, comp_band: str, ledger: Sequence[LedgerEntry]
) -> str:
    counts = {reason: sum(e.reason == reason for e in ledger) for reason in Unused}
    words = ", ".join(f"{number} {reason}" for reason, number in counts.items() if number)
    return (
        f"none of {len(sequence.stars)} stars of chart {sequence.chart_id} is usable in "
        f"{comp_band}: {words or 'the chart is empty'}"
    )


# ----------------------------------------------------------------------------------- roles


def crowded(
    x_px: FloatArray,
    y_px: FloatArray,
    flux_adu: FloatArray,
    neighbours: domain.Detections,
    *,
    radius_px: float,
    fwhm_px: float,
) -> list[str | None]:
    """Return, for each star of one frame, what stands too near it, or None.

    Too near: within 2 FWHM + the aperture radius and less than 3 mag fainter. The detection within
    one FWHM of a place is the star itself; one that was not detected is judged by its measured
    `flux_adu`, shape (n_stars,), and with no light measured any neighbour is too near. Two of the
    places within one FWHM share one light, which no detection tells apart.
    """
    words: list[str | None] = []
    for index, (x, y, flux) in enumerate(zip(x_px, y_px, flux_adu, strict=True)):
        distance = np.hypot(neighbours.x_px - x, neighbours.y_px - y)
        among = np.hypot(x_px - x, y_px - y)
        among[index] = np.inf
        if among.min() <= fwhm_px:
            words.append(f"another star of the chart at {among.min():.1f} px")
        else:
            words.append(_neighbour(distance, neighbours.flux_adu, float(flux), radius_px, fwhm_px))
    return words


def _neighbour(
    distance_px: FloatArray,
    flux_adu: FloatArray,
    own_flux_adu: float,
    radius_px: float,
    fwhm_px: float,
) -> str | None:
    near = distance_px < CROWDING_FWHM * fwhm_px + radius_px
    detected = bool(distance_px.size) and distance_px.min() <= fwhm_px
    if detected:
        itself = int(np.argmin(distance_px))
        near[itself], own_flux_adu = False, float(flux_adu[itself])
    own_flux_adu = own_flux_adu if own_flux_adu > 0 else 0.0  # NaN: no light measured
    others = np.flatnonzero(near & (flux_adu > own_flux_adu * 10 ** (-0.4 * CROWDING_MAG)))
    if not others.size:
        return None
    nearest = int(others[np.argmin(distance_px[others])])
    where = f"at {distance_px[nearest]:.1f} px{'' if detected else ', itself not detected'}"
    if own_flux_adu == 0:
        return f"a star {where}, no light of its own measured"
    fainter = -2.5 * math.log10(flux_adu[nearest] / own_flux_adu)
    return f"a star {abs(fainter):.1f} mag {'fainter' if fainter >= 0 else 'brighter'} {where}"


def assign_roles(
    candidates: domain.CompCandidates,
    measured: domain.StarMeasurements,
    *,
    crowding: Sequence[str | None] | None = None,
    colour_index: tuple[str, str] | None = None,
    target_colour: float | None = None,
) -> tuple[list[domain.ApertureStar], list[int], tuple[LedgerEntry, ...]]:
    """Return T1, T2, C3… with their positions in `measured`, and the ledger of the whole chart.

    Parameters
    ----------
    candidates, measured
        `measured` has shape (n_frames, 1 + n): T1, then the candidates in their ranking, on the
        kept frames.
    crowding
        Words of `crowded` for the n candidates.
    colour_index, target_colour
        Bands of the colour that each star gets as `colour`, e.g. ``("B", "V")``; T1's own.

    Raises
    ------
    NoComps
        No candidate passes; the message counts the reasons.

    Notes
    -----
    Out are stars saturated or beyond linearity on any frame (if that leaves none: saturated ones
    only), those whose annulus leaves more than 5 % of the frames, crowded ones, a median SNR below
    20, and more than 5 % of the frames without a value. T2
    is the best-ranked star left; with a single one left it is the comp, C2, and nobody checks.
    """
    n_stars = len(candidates.ranked)
    if measured.flags.shape[-1] != n_stars + 1:
        raise ValueError(f"{measured.flags.shape[-1]} stars measured, {n_stars + 1} wanted")
    crowding = crowding or [None] * n_stars
    refusals = [_unfit(measured, i + 1, crowding[i], strict=True) for i in range(n_stars)]
    detail = ""
    if None not in refusals:
        refusals = [_unfit(measured, i + 1, crowding[i], strict=False) for i in range(n_stars)]
        detail = "beyond linearity, kept because no other star is left"
    chosen = [i for i in range(n_stars) if refusals[i] is None]
    unused = [
        _unused(star, *refusal)
        for star, refusal in zip(candidates.ranked, refusals, strict=True)
        if refusal is not None
    ]
    ledger = [*candidates.ledger, *unused]
    if not chosen:
        words = "; ".join(f"{entry.auid} {entry.reason}: {entry.detail}" for entry in unused[:5])
        raise domain.NoComps(f"none of {n_stars} comp stars measured is usable: {words}")
    variable = candidates.variable
    target = domain.ApertureStar(
        role="T1",
        name=variable.name,
        auid=variable.auid,
        ra_deg=variable.ra_deg,
        dec_deg=variable.dec_deg,
        catalogue_mag=None,
        catalogue_error_mag=None,
        colour=target_colour,
    )
    stars, indices = [target], [0]
    for index in chosen:
        number = len(stars) + 1
        role = f"T{number}" if number == 2 and len(chosen) > 1 else f"C{number}"
        star = candidates.ranked[index]
        stars.append(_aperture_star(star, role, candidates.comp_band, colour_index))
        indices.append(index + 1)
        words = detail or f"score {candidates.scores[index]:.2f}"
        ledger.append(
            LedgerEntry(auid=star.auid, label=star.label, role=role, reason=None, detail=words)
        )
    return stars, indices, tuple(ledger)


def _aperture_star(
    star: domain.CompStar, role: str, comp_band: str, colour_index: tuple[str, str] | None
) -> domain.ApertureStar:
    magnitude = star.bands[comp_band]
    return domain.ApertureStar(
        role=role,
        name=star.auid,
        auid=star.auid,
        ra_deg=star.ra_deg,
        dec_deg=star.dec_deg,
        catalogue_mag=magnitude.mag,
        catalogue_error_mag=magnitude.error_mag,
        colour=star.colour(*colour_index) if colour_index else None,
    )


def _unfit(
    measured: domain.StarMeasurements, index: int, crowding: str | None, *, strict: bool
) -> tuple[Unused, str] | None:
    """Return why a measured star cannot be used, None when it can."""
    flags = measured.flags[:, index]
    n_frames = len(flags)
    saturated = int(np.count_nonzero(flags & Flag.SATURATED))
    too_high = int(np.count_nonzero(flags & (Flag.SATURATED | Flag.NON_LINEAR)))
    if saturated:
        return Unused.SATURATED, f"saturated on {saturated} of {n_frames} frames"
    if strict and too_high:
        return Unused.SATURATED, f"beyond linearity on {too_high} of {n_frames} frames"
    cut_off = int(np.count_nonzero(flags & Flag.NEAR_EDGE))
    if cut_off > MAX_UNMEASURED * n_frames:
        return Unused.OFF_IMAGE, f"annulus beyond the edge on {cut_off} of {n_frames} frames"
    if crowding is not None:
        return Unused.CROWDED, crowding
    has_value = np.isfinite(measured.source_sky_adu[:, index])
    missing = n_frames - int(np.count_nonzero(has_value))
    if missing > MAX_UNMEASURED * n_frames:
        return Unused.NOT_MEASURED, f"no value on {missing} of {n_frames} frames"
    snr = float(np.median(measured.snr[has_value, index]))
    if not snr >= MIN_COMP_SNR:
        return Unused.LOW_SNR, f"median SNR {snr:.1f}, at least {MIN_COMP_SNR:.0f} wanted"
    return None
