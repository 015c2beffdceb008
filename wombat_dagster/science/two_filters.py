"""A colour measured through two filters of one night, to transform magnitudes by (DOMAIN 6c).

Which pair of filters, and the colour of a star at every frame of one of them. Everything here is
about instrumental magnitudes and times; comps, zero points and catalogues are `standard`'s.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from wombat_dagster.domain import BoolArray, FloatArray

# The colours that may transform each band, the preferred one first (TA's recommended sets).
COLOURS: Final[Mapping[str, tuple[tuple[str, str], ...]]] = {
    "B": (("B", "V"),),
    "V": (("B", "V"), ("V", "I"), ("V", "R")),
    "R": (("V", "I"), ("V", "R")),
    "I": (("V", "I"),),
}

MAX_GAP_D: Final = 0.1  # a colour older than this is not the frame's
MAX_DRIFT_MAG: Final = 0.1  # that a star may change by between the filters of its colour
DRIFT_SIGMA: Final = 3.0  # a slope of less is noise
HELD_COLOUR_ERROR_MAG: Final = 0.1  # at most: a colour that nobody measured has no more
COLOUR_PART: Final = 0.3  # of a change in magnitude: a pulsating star's B moves 1.3 times its V
DIVISOR_LIMITS: Final = (0.5, 2.0)  # of 1 - Ty + Tz: real coefficients are a few hundredths


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedCoefficient:
    """A transformation coefficient by TG's name; `error` None: not known."""

    name: str
    value: float
    error: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterPair:
    """Two bands whose colour transforms a third (or one of the two), with the coefficients.

    `own` is the coefficient of the band that is transformed, `of_blue` and `of_red` those of the
    pair, all against blue - red.
    """

    blue: str
    red: str
    own: NamedCoefficient
    of_blue: NamedCoefficient
    of_red: NamedCoefficient

    @property
    def index(self) -> str:
        """Colour index, ``B-V``."""
        return f"{self.blue}-{self.red}"

    @property
    def divisor(self) -> float:
        """Untransformed over standard colour difference, 1 - Ty_yz + Tz_yz."""
        return 1 - self.of_blue.value + self.of_red.value

    @property
    def slope(self) -> float:
        """Change of the transformed magnitude with the untransformed colour difference."""
        return self.own.value / self.divisor

    @property
    def coefficients(self) -> tuple[NamedCoefficient, ...]:
        """The two or three different ones."""
        return tuple({c.name: c for c in (self.of_blue, self.of_red, self.own)}.values())

    def magnitude_error(self, difference: float) -> float:
        """Return what the coefficients' errors make of a standard colour difference Δ.

        X = x + T_x Δ' / (1 - Ty + Tz): ∂X/∂T_x = Δ, ∂X/∂Ty = -∂X/∂Tz = T_x Δ / (1 - Ty + Tz),
        added up where T_x is itself one of the pair's. An unknown error counts as 0.
        """
        change = dict.fromkeys((c.name for c in self.coefficients), 0.0)
        change[self.own.name] += difference
        change[self.of_blue.name] += self.slope * difference
        change[self.of_red.name] -= self.slope * difference
        parts = [change[c.name] * (c.error or 0.0) for c in self.coefficients]
        return float(np.linalg.norm(parts))


def choose_pairs(
    band: str,
    others: Collection[str],
    coefficients: Mapping[str, float],
    errors: Mapping[str, float],
) -> tuple[FilterPair, ...]:
    """Return the pairs that can transform `band`, the preferred first; none for CV, TG, SR….

    `others` are the bands of the other filters, `coefficients` and `errors` by TG's names. A pair
    needs both its bands measured, and the coefficients of both and of `band` against its colour.
    """
    bands = {band, *others}
    pairs = []
    for blue, red in COLOURS.get(band, ()):
        names = [f"T{one.lower()}_{blue.lower()}{red.lower()}" for one in (band, blue, red)]
        if {blue, red} <= bands and all(name in coefficients for name in names):
            own, of_blue, of_red = (
                NamedCoefficient(name=name, value=coefficients[name], error=errors.get(name))
                for name in names
            )
            pair = FilterPair(blue=blue, red=red, own=own, of_blue=of_blue, of_red=of_red)
            if DIVISOR_LIMITS[0] < pair.divisor < DIVISOR_LIMITS[1]:
                pairs.append(pair)
    return tuple(pairs)


# ----------------------------------------------------------------------------- the colour in time


@dataclass(frozen=True, slots=True, kw_only=True)
class MagnitudeCurve:
    """Untransformed magnitudes of a star through one filter, in time order, shape (n,).

    Only those that are fit to measure a colour with. `frame` is each one's place among all frames
    of its filter.
    """

    jd_utc: FloatArray
    magnitude: FloatArray
    error: FloatArray
    frame: NDArray[np.int64]

    @classmethod
    def of(
        cls, jd_utc: FloatArray, magnitude: FloatArray, error: FloatArray, fit: BoolArray
    ) -> "MagnitudeCurve":
        """Take the frames that are `fit` and finite; arrays of shape (n_frames,)."""
        finite = np.isfinite(jd_utc) & np.isfinite(magnitude) & np.isfinite(error)
        frames = np.flatnonzero(fit & finite)
        frames = frames[np.argsort(jd_utc[frames], kind="stable")]
        return cls(
            jd_utc=jd_utc[frames],
            magnitude=magnitude[frames],
            error=error[frames],
            frame=frames.astype(np.int64),
        )

    def __len__(self) -> int:
        return len(self.jd_utc)


@dataclass(frozen=True, slots=True, kw_only=True)
class ColourCurve:
    """blue - red of untransformed magnitudes at the frames of one filter, shape (n_frames,).

    `near` marks the frames that have both filters within `MAX_GAP_D`; elsewhere the nearest colour
    stands. `error` is the 1-sigma noise. `own_weight` says how much of the frame's own magnitude is
    in its colour (1 in a B-V at a B frame, -1 at a V frame, 0 where only other frames are),
    `other_error` is the noise of the rest. `constant`: one colour for the whole night, whose noise
    is all in `other_error`. Both hold what the star's slope says of a colour that is held.
    `drift_mag` is by how much the star changed between the last frame of one filter and the first
    of the other, where the filters have no time in common; 0 where they have.
    """

    colour: FloatArray
    error: FloatArray
    near: BoolArray
    own_weight: FloatArray
    other_error: FloatArray
    constant: bool
    drift_mag: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Interpolated:
    """A magnitude curve at other times, from the frames on either side; shape (n_times,)."""

    magnitude: FloatArray
    variance: FloatArray
    own_weight: FloatArray  # of the frame at the same place, when the times are the curve's own
    own_variance: FloatArray  # its part of `variance`


def colour_curve(
    jd_utc: FloatArray,
    blue: MagnitudeCurve,
    red: MagnitudeCurve,
    *,
    own: Literal["blue", "red"] | None,
) -> ColourCurve:
    """Return the colour at the times `jd_utc`, shape (n_frames,), of the frames of one filter.

    Both curves are interpolated linearly. Outside the time that both cover the colour, not the
    magnitude, is held; where they have no time in common it is the one between the last of the
    earlier and the first of the later. `own` says which of the two curves was taken from the frames
    at `jd_utc` (None: neither). Neither curve may be empty.
    """
    start = max(blue.jd_utc[0], red.jd_utc[0])
    end = min(blue.jd_utc[-1], red.jd_utc[-1])
    held = np.minimum(np.maximum(jd_utc, start), end)  # `end` throughout where it is before `start`
    constant = bool(end <= start) and len(jd_utc) > 1
    of_blue = _interpolate(blue, held, own == "blue" and not constant)
    of_red = _interpolate(red, held, own == "red" and not constant)
    slopes = [max(_slope(blue, edge), _slope(red, edge)) for edge in (start, end)]
    slope = np.where(held == start, slopes[0], max(slopes) if constant else slopes[1])
    gap_d = max(float(start - end), 0.0)
    drift = gap_d * max(slopes)
    nearest = np.clip(jd_utc, min(start, end), max(start, end))
    held_mag = np.minimum(COLOUR_PART * slope * np.abs(jd_utc - nearest), HELD_COLOUR_ERROR_MAG)
    drifted = np.hypot(drift, held_mag)
    variance = of_blue.variance + of_red.variance + drifted**2
    other = variance - of_blue.own_variance - of_red.own_variance
    return ColourCurve(
        colour=of_blue.magnitude - of_red.magnitude,
        error=np.sqrt(variance),
        near=(_distance(blue, jd_utc) <= MAX_GAP_D) & (_distance(red, jd_utc) <= MAX_GAP_D),
        own_weight=of_blue.own_weight - of_red.own_weight,
        other_error=np.sqrt(np.maximum(other, 0.0)),
        constant=constant,
        drift_mag=drift,
    )


def _slope(curve: MagnitudeCurve, jd_utc: float) -> float:
    """Return how fast a star changes within 0.1 d of the curve's point next to `jd_utc`, mag/d.

    A weighted line; 0 where its slope is within the noise, or where there are not two times.
    """
    place = curve.jd_utc[np.argmin(np.abs(curve.jd_utc - jd_utc))]
    near = np.abs(curve.jd_utc - place) <= MAX_GAP_D
    weight = 1 / np.maximum(curve.error[near], 1e-6) ** 2
    time_d = curve.jd_utc[near] - np.average(curve.jd_utc[near], weights=weight)
    square = float(np.sum(weight * time_d**2))
    if square <= 0:
        return 0.0
    slope = float(np.sum(weight * time_d * curve.magnitude[near])) / square
    return abs(slope) if abs(slope) * np.sqrt(square) > DRIFT_SIGMA else 0.0


def _interpolate(curve: MagnitudeCurve, jd_utc: FloatArray, own: bool) -> _Interpolated:
    left, right, fraction = _bracket(curve, jd_utc)
    variance = curve.error**2
    here = np.arange(len(jd_utc))
    own_left = np.where(own & (curve.frame[left] == here), 1 - fraction, 0.0)
    own_right = np.where(own & (curve.frame[right] == here), fraction, 0.0)
    return _Interpolated(
        magnitude=(1 - fraction) * curve.magnitude[left] + fraction * curve.magnitude[right],
        variance=(1 - fraction) ** 2 * variance[left] + fraction**2 * variance[right],
        own_weight=own_left + own_right,
        own_variance=own_left**2 * variance[left] + own_right**2 * variance[right],
    )


def _bracket(
    curve: MagnitudeCurve, jd_utc: FloatArray
) -> tuple[NDArray[Any], NDArray[Any], FloatArray]:
    """Return the points before and at or after each time, and how far on it is from the first.

    1 at a point itself and beyond either end.
    """
    right = np.minimum(np.searchsorted(curve.jd_utc, jd_utc), len(curve) - 1)
    left = np.maximum(right - 1, 0)
    span = curve.jd_utc[right] - curve.jd_utc[left]
    with np.errstate(invalid="ignore", divide="ignore"):
        fraction = np.where(span > 0, (jd_utc - curve.jd_utc[left]) / span, 1.0)
    return left, right, np.clip(fraction, 0.0, 1.0)


def _distance(curve: MagnitudeCurve, jd_utc: FloatArray) -> FloatArray:
    """Return the days from each time to the nearest point of the curve."""
    left, right, _ = _bracket(curve, jd_utc)
    before, after = np.abs(jd_utc - curve.jd_utc[left]), np.abs(jd_utc - curve.jd_utc[right])
    return np.minimum(before, after)
