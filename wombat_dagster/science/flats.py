"""Flat fields: which frames are fit for a master, how dusk and dawn are put together.

Arrays in, values out. Counts are ADU unless a name says otherwise; a *signal* is a flat without its
offset, and *normalised* one with median 1 in the central half.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wombat_dagster.domain import FloatArray, Site, Sourced
from wombat_dagster.science.detector import DEFAULT, RawExtremes, block_medians, central_half

FLAT_FLOOR = 0.05  # a normalised flat below this is masked, never divided by

TWILIGHT_DEG = (-20.0, 5.0)  # altitude of the Sun in which the sky is worth a flat
MIN_SUN_RATE_DEG_H = 0.5  # slower it stands at its highest or lowest: neither dusk nor dawn
SUN_STEP_D = 120.0 / 86400.0
J2000 = np.datetime64("2000-01-01T12:00:00", "us")
MICROSECONDS_PER_DAY = 86400e6

SPOILED_BLOCKS = 0.02  # part that a star, its ghost or a satellite may spoil
ODD_SHAPE = 5.0  # times the others' departure, and times the noise
MIN_ODD_SHAPE = 1e-3  # STXL-6303: V against R 0.14 %, two flats of one filter 0.01 %
MIN_HALVES_DIFFERENCE = 0.005

Image = NDArray[Any]


def flat_refusal(
    flat: RawExtremes, *, bias_level_adu: float, saturation: Sourced,
    min_fraction: float, max_fraction: float,
) -> str | None:  # fmt: skip
    """Return why a flat of this raw central level is refused, None when it is fit.

    The fractions are of the range from the bias level to saturation. Where saturation is only a
    default, a flat is not too dark as long as there is light in it: the range is not known.
    """
    level_adu, saturation_adu = flat.level_adu, saturation.value
    if not np.isfinite(level_adu):
        return "pixels that are no numbers in its central half"
    reach = saturation_adu - bias_level_adu
    low = bias_level_adu + (0.0 if saturation.source == DEFAULT else min_fraction) * reach
    high = bias_level_adu + max_fraction * reach
    if level_adu >= flat.maximum_adu:
        return f"level {level_adu:.0f} ADU is its highest count: nothing but a stop"
    if level_adu >= high:
        return (
            f"level {level_adu:.0f} ADU, below {high:.0f} wanted ({saturation_adu:.0f} saturates)"
        )
    if level_adu <= low:
        return f"level {level_adu:.0f} ADU, at least {low:.0f} wanted"
    return None


def normalised_master_flat(combined: Image) -> tuple[Image, Image]:
    """Return the flat with median 1 in its central half, and where it must not be divided by.

    Returns
    -------
    NDArray
        float32, shape (ny, nx); 1 where masked.
    NDArray of bool
        True where the flat is below 5 % or not a number.
    """
    flat = combined / np.nanmedian(central_half(combined))
    unusable = ~(flat > FLAT_FLOOR)
    return np.where(unusable, 1.0, flat).astype(np.float32), unusable


# ----------------------------------------------------------------------------------- dusk and dawn


class Twilight(StrEnum):
    """Which twilight a flat was taken in."""

    DUSK = "dusk"
    DAWN = "dawn"


def twilights(
    start_utc: Sequence[str | None],
    exposure_s: Sequence[float],
    *,
    configured: Site | None,
    header_hint: Site | None,
) -> tuple[Twilight | None, ...]:
    """Return for every flat whether the Sun sank or rose at mid-exposure; None: not known, neither.

    Starts are ISO 8601 on the UTC scale without offset. The UT hour says nothing of that: dusk in
    Australia is a morning in Greenwich.
    `header_hint` has the header's longitude with the sign as written: both are tried, and the one
    that puts the flats into twilight counts. Where both do and disagree, nothing is known.
    """
    known = [i for i, start in enumerate(start_utc) if start is not None]
    if not known:
        return (None,) * len(start_utc)
    starts = [start for start in start_utc if start is not None]
    found: list[Twilight | None] = [None] * len(start_utc)
    for i, twilight in zip(
        known,
        _at_site(starts, [exposure_s[i] for i in known], configured, header_hint),
        strict=True,
    ):
        found[i] = twilight
    return tuple(found)


def _at_site(
    start_utc: Sequence[str],
    exposure_s: Sequence[float],
    configured: Site | None,
    header_hint: Site | None,
) -> list[Twilight | None]:
    if configured is not None:
        return _by_the_sun(start_utc, exposure_s, configured)
    if header_hint is None:
        return [None] * len(start_utc)
    mirrored = replace(header_hint, longitude_deg=-header_hint.longitude_deg)
    tried = [_by_the_sun(start_utc, exposure_s, site) for site in (header_hint, mirrored)]
    in_twilight = [sum(twilight is not None for twilight in found) for found in tried]
    best = tried[int(np.argmax(in_twilight))]
    if in_twilight[0] == in_twilight[1] and tried[0] != tried[1]:
        return [None] * len(start_utc)
    return best


def _by_the_sun(
    start_utc: Sequence[str], exposure_s: Sequence[float], site: Site
) -> list[Twilight | None]:
    altitude, rate = sun_altitude_deg(start_utc, exposure_s, site)
    low, high = TWILIGHT_DEG
    moves = np.abs(rate) >= MIN_SUN_RATE_DEG_H
    return [
        (Twilight.DAWN if hourly > 0 else Twilight.DUSK) if is_twilight else None
        for hourly, is_twilight in zip(
            rate, moves & (altitude >= low) & (altitude <= high), strict=True
        )
    ]


def sun_altitude_deg(
    start_utc: Sequence[str], exposure_s: Sequence[float], site: Site
) -> tuple[FloatArray, FloatArray]:
    """Return the Sun's altitude at mid-exposures, and its rate in degrees an hour, shape (n,)."""
    since_j2000 = np.array(start_utc, dtype="datetime64[us]") - J2000
    days = since_j2000.astype(np.float64) / MICROSECONDS_PER_DAY
    days += np.asarray(exposure_s, dtype=np.float64) / 2 / 86400.0
    before, at, after = (_sun_altitude_deg(days + d, site) for d in (-SUN_STEP_D, 0, SUN_STEP_D))
    return at, (after - before) / (2 * 24 * SUN_STEP_D)


def _sun_altitude_deg(days: FloatArray, site: Site) -> FloatArray:
    """Return the Sun's altitude without refraction, `days` of UT after 2000 January 1, 12 h.

    Notes
    -----
    Low-precision formulas of the Astronomical Almanac (page C5), 0.01 degrees between 1950 and
    2050: enough to tell which way the Sun moves, without tables of the Earth's rotation.
    """
    anomaly = np.radians(357.528 + 0.9856003 * days)
    longitude = np.radians(
        280.460 + 0.9856474 * days + 1.915 * np.sin(anomaly) + 0.020 * np.sin(2 * anomaly)
    )
    obliquity = np.radians(23.439 - 4e-7 * days)
    right_ascension = np.arctan2(np.cos(obliquity) * np.sin(longitude), np.cos(longitude))
    declination = np.arcsin(np.sin(obliquity) * np.sin(longitude))
    sidereal = np.radians(280.46061837 + 360.98564736629 * days + site.longitude_deg)
    latitude = np.radians(site.latitude_deg)
    sine = np.sin(latitude) * np.sin(declination)
    sine += np.cos(latitude) * np.cos(declination) * np.cos(sidereal - right_ascension)
    return np.degrees(np.arcsin(sine))


def sets_of(
    keep: Sequence[int], twilight: Sequence[Twilight | None], *, min_frames: int
) -> tuple[tuple[Sequence[int], ...], str]:
    """Return the flats that are combined apart, dusk before dawn, and how many there are in words.

    One set where either half has fewer than `min_frames`, or where a flat is of neither.
    """
    halves = [[i for i in keep if twilight[i] is half] for half in Twilight]
    n_other = len(keep) - sum(len(half) for half in halves)
    numbers = ", ".join(f"{len(h)} {name}" for name, h in zip(Twilight, halves, strict=True))
    if n_other == 0 and all(len(half) >= min_frames for half in halves):
        return tuple(halves), f"flats: {numbers}, combined apart"
    other = f", {n_other} other" if n_other else ""
    return (list(keep),), f"flats: {numbers}{other}, combined in one set"


def together(sets: Sequence[Image], weights: Sequence[float] | Image) -> Image:
    """Return the mean of the sets' normalised medians, by the light in each: number times level."""
    shares = np.asarray(weights) / np.sum(weights)
    combined = shares[0] * sets[0]
    for share, image in zip(shares[1:], sets[1:], strict=True):
        combined += share * image
    return combined


# --------------------------------------------------------------------------------- shapes of flats


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """A normalised flat in 16 x 16 blocks: their medians, and the noise of one of them."""

    medians: Image
    noise: float


def shape_of(signal: Image) -> Shape:
    """Return the shape of a flat without its offset, of any level."""
    medians, noise = block_medians(signal)
    level = np.median(central_half(medians))
    return Shape(medians=medians / level, noise=float(noise / level))


def odd_shapes(shapes: Mapping[int, Shape]) -> dict[int, str]:
    """Return which flats are not of the shape of the others, with the reason.

    Dust sits on filters, and every filter lights the detector in its own way: a flat through
    another one departs from the median of its fellows by some parts in a thousand, where those
    depart by parts in ten thousand. A slope or curve of the sky is taken out before, and the two
    per cent of the blocks that depart most do not count, so that a star does not.

    Never half of them: then nobody knows which are right, and nothing is refused.
    """
    if len(shapes) < 3:
        return {}
    usual = np.median([shape.medians for shape in shapes.values()], axis=0)
    departures = {i: _departure(shape.medians / usual) for i, shape in shapes.items()}
    typical = float(np.median(list(departures.values())))
    odd = {
        i: departure
        for i, departure in departures.items()
        if departure > max(ODD_SHAPE * max(typical, shapes[i].noise), MIN_ODD_SHAPE)
    }
    if 2 * len(odd) >= len(shapes):
        return {}
    return {
        i: f"shape departs by {departure:.2%} from the others', which depart by {typical:.2%}:"
        " another filter?"
        for i, departure in odd.items()
    }


def _departure(ratio: Image) -> float:
    """Return the rms of `ratio` about the best second-order surface, without the worst blocks."""
    ny, nx = ratio.shape
    y, x = (axis.ravel() for axis in np.mgrid[-1 : 1 : ny * 1j, -1 : 1 : nx * 1j])
    terms = np.column_stack([np.ones_like(x), x, y, x * x, x * y, y * y])
    known = np.isfinite(ratio.ravel())
    values = ratio.ravel()[known]
    n_left = len(values) - int(np.ceil(SPOILED_BLOCKS * len(values)))
    if n_left <= terms.shape[1]:
        return 0.0
    kept = np.ones(len(values), dtype=bool)
    for _ in range(2):
        surface = np.linalg.lstsq(terms[known][kept], values[kept], rcond=None)[0]
        rest = np.abs(values - terms[known] @ surface)
        kept = rest <= np.partition(rest, n_left - 1)[n_left - 1]
    return float(np.sqrt(np.mean(rest[kept] ** 2)))


def halves_difference(dusk: Image, dawn: Image) -> str | None:
    """Return in words by how much two normalised medians differ, None when by nothing that counts.

    The 98th percentile of the blocks' departures: more than five times the noise, and 0.5 %.
    """
    shapes = shape_of(dusk), shape_of(dawn)
    departures = np.abs(shapes[0].medians / shapes[1].medians - 1)
    largest = float(np.nanquantile(departures, 1 - SPOILED_BLOCKS))
    noise = float(np.hypot(shapes[0].noise, shapes[1].noise))
    if largest <= max(5 * noise, MIN_HALVES_DIFFERENCE):
        return None
    return f"dusk and dawn flats differ by {largest:.1%} (noise {noise:.2%})"
