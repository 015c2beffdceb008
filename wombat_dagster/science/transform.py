"""Transformation coefficients from standard stars, as TransformGenerator defines them.

Notation (DOMAIN section 6): lower case instrumental, upper case standard magnitudes. ``Tx_yz`` is
the slope of X - x against Y - Z; ``Txy`` is 1 / the slope of x - y against X - Y. Mean magnitudes
of the stars of one field and night come in, made of many frames by `night_means`. First-order
extinction is the same for all of them and goes into the zero point; second-order extinction, a
colour term that grows with the airmass, is part of the slope unless it is known and taken out.
"""

import datetime as dt
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wombat_dagster.domain import BoolArray, Coefficient, FloatArray
from wombat_dagster.science.colour_terms import SINGLE_FILTER_COEFFICIENT

CATALOGUE_BAND: Final[Mapping[str, str]] = {"U": "U", "B": "B", "V": "V", "R": "Rc", "I": "Ic"}
"""Bands of catalogues by the AAVSO's codes."""
AGAINST: Final[Mapping[str, str]] = {"UB": "U", "BV": "BV", "VR": "VR", "RI": "RI", "VI": "VRI"}
"""Bands that have a coefficient against each colour."""
UNKNOWN_ERROR_MAG: Final = 0.05  # of a catalogue magnitude that comes without one (DOMAIN 2)

MIN_STARS: Final = 5
MIN_RANGE_MAG: Final = 0.4  # of the colours
HUBER_K: Final = 1.345
LEFT_OUT_SIGMA: Final = 3.5  # 2.7, a Huber weight of 0.5, makes errors of slopes 15 % too small
MAX_ROUNDS: Final = 50
STEADY_SLOPE: Final = 1e-7
HALVINGS: Final = 30
MAD_TO_SIGMA: Final = 1.4826
FRAME_CLIP_SIGMA: Final = 4.0  # of one star on one frame
STEADY_MAG: Final = 1e-7
MEDIAN_ROUNDS: Final = 3

DRIFT_SIGMA: Final = 3.0
MIN_NIGHTS_OF_TREND: Final = 4
MIN_NIGHTS_OF_SCATTER: Final = 5  # on one field, for their scatter to be an error
ALMOST_NOTHING: Final = 1e-2
DAYS_PER_YEAR: Final = 365.25


# ------------------------------------------------------------------------------ a straight line


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A straight line y = intercept + slope * x through n points with errors in both.

    `used` of shape (n,) marks the points it goes through; `residual` their and the others' y less
    the line. `scatter` is the 1-sigma scatter beyond the points' own errors, which the errors
    count in; `r_squared` the squared correlation of the used points, weighted.
    """

    slope: float
    slope_error: float
    intercept: float
    intercept_error: float
    scatter: float
    r_squared: float
    used: BoolArray
    residual: FloatArray


def fit_line(
    x: FloatArray,
    y: FloatArray,
    x_variance: FloatArray,
    y_variance: FloatArray,
    covariance: FloatArray,
) -> Line:
    """Fit a straight line to points with correlated errors in x and y; all of shape (n,), n > 2.

    Notes
    -----
    York et al. (2004), Am. J. Phys. 72, 367: the maximum-likelihood line, which errors in x do not
    flatten. Where points scatter by more than their errors, a constant variance is added to each:
    flat fields and odd spectra are such errors, and the brightest stars would else decide alone.
    Robust: it begins at the median of the slopes between all pairs (Theil and Sen), goes on with
    Huber's weights, k = 1.345, the added variance such that 1.4826 MAD of the residuals over their
    errors is 1, then leaves out what lies beyond 3.5 sigma (never half of them) and fits the rest
    without weights, the added variance such that chi-squared equals the degrees of freedom; what
    that brings back within 3.5 sigma takes part again.
    """
    everything = _York(x, y, x_variance, y_variance, covariance)
    slope = _median_slope(x, y)
    weights = np.ones(len(x))
    for _ in range(MAX_ROUNDS):
        wider = everything.with_scatter(everything.typical_scatter_variance(slope, weights))
        pull = np.abs(wider.centred(slope, weights)) / np.sqrt(wider.variance(slope))
        weights = HUBER_K / np.maximum(pull, HUBER_K)
        previous, slope = slope, wider.slope(slope, weights)
        if abs(slope - previous) < STEADY_SLOPE:
            break
    used = _near(pull)
    for _ in range(MAX_ROUNDS):
        slope, scatter_variance = everything.of(used).settled(slope)
        wider = everything.with_scatter(scatter_variance)
        pull = np.abs(wider.centred(slope, used.astype(float))) / np.sqrt(wider.variance(slope))
        before, used = used, _near(pull)
        if (used == before).all():
            break
    used = before
    final = everything.of(used).with_scatter(scatter_variance)
    ones = np.ones(int(used.sum()))
    slope_error, intercept, intercept_error = final.rest_of(slope, ones)
    return Line(
        slope=slope,
        slope_error=slope_error,
        intercept=intercept,
        intercept_error=intercept_error,
        scatter=math.sqrt(scatter_variance),
        r_squared=_r_squared(x[used], y[used], 1.0 / final.variance(slope)),
        used=used,
        residual=y - intercept - slope * x,
    )


@dataclass(frozen=True, slots=True)
class _York:
    """Points with their errors, and the sums of York et al. (2004) over them."""

    x: FloatArray
    y: FloatArray
    x_variance: FloatArray
    y_variance: FloatArray
    covariance: FloatArray

    def of(self, used: BoolArray) -> "_York":
        return _York(
            self.x[used],
            self.y[used],
            self.x_variance[used],
            self.y_variance[used],
            self.covariance[used],
        )

    def with_scatter(self, variance: float) -> "_York":
        return _York(self.x, self.y, self.x_variance, self.y_variance + variance, self.covariance)

    def variance(self, slope: float) -> FloatArray:
        """Return the variances of y - slope x, the 1/W of the paper."""
        return self.y_variance + slope**2 * self.x_variance - 2 * slope * self.covariance

    def centred(self, slope: float, weights: FloatArray) -> FloatArray:
        """Return y - slope x less its weighted mean."""
        offset = self.y - slope * self.x
        return offset - np.average(offset, weights=weights / self.variance(slope))

    def _sums(
        self, slope: float, weights: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        w = weights / self.variance(slope)
        u = self.x - np.average(self.x, weights=w)
        v = self.y - np.average(self.y, weights=w)
        beta = (
            u * self.y_variance + slope * v * self.x_variance - (slope * u + v) * self.covariance
        ) / self.variance(slope)
        return w, u, v, beta

    def slope(self, slope: float, weights: FloatArray) -> float:
        """Return the next approximation to the slope after `slope`."""
        w, u, v, beta = self._sums(slope, weights)
        return float(np.sum(w * beta * v) / np.sum(w * beta * u))

    def settled(self, slope: float) -> tuple[float, float]:
        """Return the slope and the variance beyond the errors, both from where they rest."""
        extra, freedom, ones = 0.0, len(self.x) - 2, np.ones(len(self.x))
        for _ in range(MAX_ROUNDS):
            wider = self.with_scatter(extra)
            previous, slope = slope, wider.slope(slope, ones)
            previous_extra, extra = extra, self._extra(slope, freedom)
            if abs(slope - previous) + abs(extra - previous_extra) < STEADY_SLOPE:
                break
        return slope, extra

    def _extra(self, slope: float, freedom: int) -> float:
        """Return what must be added to the variances for chi-squared to be `freedom`."""
        ones = np.ones(len(self.x))

        def excess(extra: float) -> float:
            wider = self.with_scatter(extra)
            residual = wider.centred(slope, ones)
            return float(np.sum(residual**2 / wider.variance(slope))) - freedom

        return _root(excess, float(np.ptp(self.y) ** 2)) if freedom > 0 else 0.0

    def typical_scatter_variance(self, slope: float, weights: FloatArray) -> float:
        """Return what must be added to the variances for 1.4826 MAD of the pulls to be 1.

        A few points far off do not change it. Two numbers were fitted: residuals are a little
        smaller than errors.
        """
        n = len(self.x)
        factor = MAD_TO_SIGMA * math.sqrt(n / (n - 2))

        def excess(extra: float) -> float:
            wider = self.with_scatter(extra)
            pull = np.abs(wider.centred(slope, weights)) / np.sqrt(wider.variance(slope))
            return factor * float(np.median(pull)) - 1.0

        return _root(excess, float(np.ptp(self.y) ** 2))

    def rest_of(self, slope: float, weights: FloatArray) -> tuple[float, float, float]:
        """Return the slope's error, the intercept and its error."""
        w, _, _, beta = self._sums(slope, weights)
        mean_x, mean_y = np.average(self.x, weights=w), np.average(self.y, weights=w)
        adjusted = mean_x + beta
        centre = np.average(adjusted, weights=w)
        slope_variance = 1.0 / np.sum(w * (adjusted - centre) ** 2)
        return (
            float(math.sqrt(slope_variance)),
            float(mean_y - slope * mean_x),
            float(math.sqrt(1.0 / np.sum(w) + centre**2 * slope_variance)),
        )


def _near(pull: FloatArray) -> BoolArray:
    """Return where points lie within `LEFT_OUT_SIGMA`, for more than half of them at least."""
    used: BoolArray = pull <= max(LEFT_OUT_SIGMA, float(np.sort(pull)[len(pull) // 2]))
    return used


def _root(excess: Callable[[float], float], high: float) -> float:
    """Return where a falling `excess` is 0, looked for from 0 to `high` and beyond; 0 if never."""
    if excess(0.0) <= 0 or high <= 0:
        return 0.0
    while excess(high) > 0:
        high *= 4
    low = 0.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return (low + high) / 2


def _median_slope(x: FloatArray, y: FloatArray) -> float:
    first, second = np.triu_indices(len(x), 1)
    run = x[second] - x[first]
    apart = np.abs(run) > 0
    if not apart.any():
        return 0.0
    return float(np.median((y[second] - y[first])[apart] / run[apart]))


def _r_squared(x: FloatArray, y: FloatArray, w: FloatArray) -> float:
    u, v = x - np.average(x, weights=w), y - np.average(y, weights=w)
    both = float(np.sum(w * u**2) * np.sum(w * v**2))
    return float(np.sum(w * u * v)) ** 2 / both if both > 0 else math.nan


# ----------------------------------------------------------------------- many frames of a field


@dataclass(frozen=True, slots=True, kw_only=True)
class NightMeans:
    """Mean magnitudes of n stars over the frames of a filter, shape (n_stars,).

    NaN where a star has no value. `n_frames` counts those that a star's mean is of, `scatter` is
    how much more the frames scatter than their errors say, at least 1: the errors hold it.
    """

    mag: FloatArray
    error_mag: FloatArray
    n_frames: NDArray[np.int64]
    scatter: float


def night_means(mag: FloatArray, error_mag: FloatArray) -> NightMeans:
    """Return the means of magnitudes of shape (n_frames, n_stars), NaN where one does not count.

    The frames' zero points relative to each other are taken out: m = star + frame, by weighted
    least squares, so that a star may be missing from some. A magnitude beyond 4 sigma (1.4826 MAD)
    of the star's median is left out.
    """
    usable = np.isfinite(mag) & np.isfinite(error_mag) & (error_mag > 0)
    pull = _from_medians(mag, usable) / np.where(usable, error_mag, 1.0)
    typical = MAD_TO_SIGMA * float(np.median(np.abs(pull[usable]))) if usable.any() else 0.0
    kept = usable & (np.abs(pull) <= FRAME_CLIP_SIGMA * max(typical, 1.0))
    star, scatter = _two_way(mag, error_mag, kept)
    weight = np.where(kept, 1.0 / np.where(kept, error_mag, 1.0) ** 2, 0.0)
    with np.errstate(divide="ignore"):
        error = scatter / np.sqrt(weight.sum(axis=0))
    n_frames = kept.sum(axis=0)
    return NightMeans(
        mag=np.where(n_frames > 0, star, np.nan),
        error_mag=np.where(n_frames > 0, error, np.nan),
        n_frames=n_frames.astype(np.int64),
        scatter=scatter,
    )


def _two_way(mag: FloatArray, error_mag: FloatArray, usable: BoolArray) -> tuple[FloatArray, float]:
    """Return the stars' magnitudes and the rms of residuals over errors, at least 1."""
    weight = np.where(usable, 1.0 / np.where(usable, error_mag, 1.0) ** 2, 0.0)
    values = np.where(usable, mag, 0.0)
    of_frame, of_star = weight.sum(axis=1), weight.sum(axis=0)
    frame: FloatArray = np.zeros(len(mag))
    star: FloatArray = np.zeros(mag.shape[1])
    for _ in range(MAX_ROUNDS):
        before = star
        star = _ratio((weight * (values - frame[:, None])).sum(axis=0), of_star)
        frame = _ratio((weight * (values - star)).sum(axis=1), of_frame)
        frame = frame - (frame[of_frame > 0].mean() if (of_frame > 0).any() else 0.0)
        if np.abs(star - before).max(initial=0.0) < STEADY_MAG:
            break
    pull = np.where(usable, (mag - star - frame[:, None]) / np.where(usable, error_mag, 1.0), 0.0)
    freedom = int(usable.sum() - (of_frame > 0).sum() - (of_star > 0).sum() + 1)
    chi_squared = float(np.sum(pull**2))
    return star, max(1.0, math.sqrt(chi_squared / freedom)) if freedom > 0 else 1.0


def _from_medians(mag: FloatArray, usable: BoolArray) -> FloatArray:
    """Return what remains of magnitudes less each star's and frame's median; 0 where not usable."""
    rest = np.ma.masked_array(mag, ~usable)
    for _ in range(MEDIAN_ROUNDS):
        rest = rest - np.ma.median(rest, axis=0)  # type: ignore[no-untyped-call]  # numpy.ma
        rest = rest - np.ma.median(rest, axis=1)[:, None]  # type: ignore[no-untyped-call]
    return np.asarray(rest.filled(0.0))


def _ratio(above: FloatArray, below: FloatArray) -> FloatArray:
    return np.where(below > 0, above / np.where(below > 0, below, 1.0), 0.0)


# ---------------------------------------------------------------------------- the coefficients


@dataclass(frozen=True, slots=True, kw_only=True)
class StandardStars:
    """What was measured of standard stars, and what the catalogue says; arrays of shape (n,).

    By AAVSO code (U, B, V, R, I): mean instrumental magnitudes of the night and the catalogue's,
    each with its 1-sigma error. NaN where a star has none in a band. `colour_extinction` is k2 X by
    band, magnitudes per magnitude of the colour that transforms the band alone, of the air that the
    instrumental magnitudes were measured through; a band without it keeps its air.
    """

    names: tuple[str, ...]
    instrumental_mag: Mapping[str, FloatArray]
    instrumental_error_mag: Mapping[str, FloatArray]
    catalogue_mag: Mapping[str, FloatArray]
    catalogue_error_mag: Mapping[str, FloatArray]
    colour_extinction: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class CoefficientFit:
    """One coefficient, and the line it comes from: `colour` against `ordinate`, shape (n,).

    `stars` are places in `StandardStars.names`; `error_mag` is each point's 1-sigma error across
    the line, without `line.scatter`. For a ``Txy`` the line's slope is 1 / `value`.
    """

    name: str
    value: float
    error: float
    ordinate_words: str  # "V - v"
    colour_words: str  # "B - V"
    stars: tuple[int, ...]
    colour: FloatArray
    ordinate: FloatArray
    error_mag: FloatArray
    line: Line
    outside_atmosphere: bool = False  # second-order extinction was taken out

    @property
    def n_stars(self) -> int:
        """Stars that the line goes through."""
        return int(self.line.used.sum())

    @property
    def left_out(self) -> tuple[int, ...]:
        """Places in `StandardStars.names` of the stars that lie off the line."""
        return tuple(s for s, used in zip(self.stars, self.line.used, strict=True) if not used)


def coefficient_names(bands: Sequence[str]) -> tuple[str, ...]:
    """Return the names of all coefficients that measurements in `bands` (AAVSO codes) can give.

    Neighbouring colours and V-I, as TransformGenerator's: Tbv, Tb_bv, Tv_bv, … Tvi, Tv_vi, …
    """
    names = []
    there = set(bands)
    for pair, against in AGAINST.items():
        if {*pair} <= there:
            names.append(f"T{pair.lower()}")
        # Against a colour of the catalogue one filter is enough.
        names += [f"T{band.lower()}_{pair.lower()}" for band in against if band in there]
    return tuple(names)


def fit_coefficients(
    stars: StandardStars,
) -> tuple[tuple[CoefficientFit, ...], dict[str, str]]:
    """Return the coefficients that the stars give, and by name why the others cannot be had."""
    fits, refusals = [], {}
    for name in coefficient_names(tuple(stars.instrumental_mag)):
        found = fit_coefficient(stars, name)
        if isinstance(found, str):
            refusals[name] = found
        else:
            fits.append(found)
    return tuple(fits), refusals


def fit_coefficient(stars: StandardStars, name: str) -> CoefficientFit | str:
    """Return the coefficient `name` (``Tv_bv``, ``Tbv``), or in words why it cannot be had.

    Notes
    -----
    Errors in the colour are shared with those of the ordinate: in V - v against B - V the
    catalogue's error of V moves a star down and to the left at once. `fit_line` is told so, and
    also where second-order extinction is taken out by that colour: m - k2 X (colour), DOMAIN 6g.
    """
    band, _, pair = name[1:].rpartition("_")
    blue, red = pair[0].upper(), pair[1].upper()
    measured = {band.upper(): -1} if band else {blue: 1, red: -1}
    catalogued = {band.upper(): 1} if band else {}
    lacking = sorted(
        {one for one in measured if one not in stars.instrumental_mag}
        | {one for one in (*catalogued, blue, red) if one not in stars.catalogue_mag}
    )
    if lacking:
        return f"no magnitudes in {', '.join(lacking)}"
    colour = stars.catalogue_mag[blue] - stars.catalogue_mag[red]
    ordinate = sum(
        [sign * stars.instrumental_mag[one] for one, sign in measured.items()]
        + [sign * stars.catalogue_mag[one] for one, sign in catalogued.items()],
        start=np.zeros(len(stars.names)),
    )
    in_colour = {blue: 1, red: -1}
    variance_of = {one: stars.catalogue_error_mag[one] ** 2 for one in {blue, red, *catalogued}}
    x_variance = variance_of[blue] + variance_of[red]
    y_variance = sum(
        [stars.instrumental_error_mag[one] ** 2 for one in measured]
        + [variance_of[one] for one in catalogued],
        start=np.zeros(len(stars.names)),
    )
    covariance = sum(
        [sign * in_colour.get(one, 0) * variance_of[one] for one, sign in catalogued.items()],
        start=np.zeros(len(stars.names)),
    )
    words = f"{blue}-{red}"
    out = [one for one in thins_with_airmass(name) if one in stars.colour_extinction]
    air = -sum(measured[one] * stars.colour_extinction[one] for one in out)
    ordinate = ordinate + air * colour
    y_variance = y_variance + air * (2 * covariance + air * x_variance)
    covariance = covariance + air * x_variance
    whole = np.flatnonzero(np.isfinite(colour + ordinate + x_variance + y_variance))
    if len(whole) < MIN_STARS:
        return f"{len(whole)} stars with {words}, at least {MIN_STARS} wanted"
    refusal = _too_narrow(colour[whole], words)
    if refusal:
        return refusal
    x, y = colour[whole], ordinate[whole]
    line = fit_line(x, y, x_variance[whole], y_variance[whole], covariance[whole])
    if line.used.sum() < MIN_STARS:
        return (
            f"{line.used.sum()} of {len(whole)} stars lie on one line, at least {MIN_STARS} wanted"
        )
    refusal = _too_narrow(x[line.used], words)
    if refusal:
        return refusal
    value, error = line.slope, line.slope_error
    if not band:
        if abs(line.slope) < DRIFT_SIGMA * line.slope_error:
            return f"the slope of {pair[0]}-{pair[1]} is {value:.3f}±{error:.3f}: no filters differ"
        value, error = 1.0 / line.slope, line.slope_error / line.slope**2
    slope = line.slope
    return CoefficientFit(
        name=name,
        value=value,
        error=error,
        ordinate_words=(f"{band.upper()} - {band}" if band else f"{pair[0]} - {pair[1]}")
        + (" outside the atmosphere" if out else ""),
        colour_words=f"{blue} - {red}",
        stars=tuple(int(one) for one in whole),
        colour=x,
        ordinate=y,
        error_mag=np.sqrt(
            y_variance[whole] + slope**2 * x_variance[whole] - 2 * slope * covariance[whole]
        ),
        line=line,
        outside_atmosphere=bool(out),
    )


def thins_with_airmass(name: str) -> tuple[str, ...]:
    """Return the bands of a coefficient whose second-order extinction is by the same colour.

    Those of which `colour_terms.by_airmass` adds k2 X to it: B and V of ``Tbv``, none of ``Tv_vi``.
    """
    band, _, pair = name[1:].upper().rpartition("_")
    index = f"{pair[0]}-{pair[1]}"
    return tuple(
        one
        for one in (band or pair)
        if one in SINGLE_FILTER_COEFFICIENT and SINGLE_FILTER_COEFFICIENT[one][1] == index
    )


def _too_narrow(colour: FloatArray, words: str) -> str | None:
    span = float(np.ptp(colour))
    if span >= MIN_RANGE_MAG:
        return None
    return (
        f"{len(colour)} stars from {words} = {colour.min():.2f} to {colour.max():.2f}, a range of "
        f"{MIN_RANGE_MAG} mag wanted"
    )


# -------------------------------------------------------------------------------- over the nights


def pool(fits: Sequence[Coefficient]) -> Coefficient:
    """Return the weighted mean of the fits of one coefficient, camera and instrument epoch.

    Nights on the same field (`field_of`) share the catalogue's errors: their mean is no more
    certain than the best of them. Means of several fields are. Where fits scatter by more than
    their errors, the mean's error is by that scatter (Birge's ratio). Nothing is left out; `drift`
    says what is odd. Fits without an error count only where none has one.

    Raises
    ------
    ValueError
        There is none, or they are of several names.
    """
    if not fits or len({one.name for one in fits}) > 1:
        raise ValueError(f"{len(fits)} fits of {sorted({one.name for one in fits})} to be pooled")
    used, value, error = _in_time_order([one for one in fits if one.error] or fits)
    fields = np.array([field_of(one) for one in used])
    mean, mean_error = _mean_of_fields(value, error, fields)
    newest = used[-1]
    return Coefficient(
        name=newest.name,
        value=mean,
        error=mean_error if newest.error else None,
        n_stars=sum(one.n_stars or 0 for one in used) or None,
        camera=newest.camera,
        epoch=newest.epoch,
        source="pooled" if len(used) > 1 else newest.source,
        r_squared=newest.r_squared if len(used) == 1 else None,
        date=newest.date if len(used) == 1 else None,
        n_nights=len({one.date for one in used}),
        outside_atmosphere=newest.outside_atmosphere,
    )


def field_of(fit: Coefficient) -> str:
    """Return what the field of a fit goes by: ``SA 98``, ``sa_98`` and ``SA98`` are one."""
    return "".join(fit.source.casefold().replace("_", " ").split())


def drift(fits: Sequence[Coefficient]) -> tuple[str, ...]:
    """Return words on what is odd about the fits that `pool` takes together.

    A night beyond 3 sigma of the others' mean, and a change with time.
    """
    used, value, error = _in_time_order([one for one in fits if one.error])
    odd = _odd_nights(used, value, error)
    rest = [index for index in range(len(used)) if index not in odd]
    trend = _trend([used[index] for index in rest], value[rest], error[rest])
    return (*odd.values(), *trend)


def _in_time_order(
    fits: Sequence[Coefficient],
) -> tuple[list[Coefficient], FloatArray, FloatArray]:
    """Return the fits with their values and errors; 1 stands for an error where none is known."""
    used = sorted(fits, key=lambda one: (one.date or dt.date.min, one.source))
    value = np.array([one.value for one in used])
    return used, value, np.array([one.error or 1.0 for one in used])


def _mean_of_fields(
    value: FloatArray, error: FloatArray, fields: NDArray[np.str_]
) -> tuple[float, float]:
    """Return the mean of the fields' means, each no better than its best night."""
    means = []
    for name in dict.fromkeys(fields.tolist()):
        ours = fields == name
        mean, mean_error = _weighted_mean(value[ours], error[ours])
        means.append((mean, max(mean_error, float(error[ours].min()))))
    values, errors = np.array(means).T
    return _weighted_mean(values, errors)


def _weighted_mean(value: FloatArray, error: FloatArray) -> tuple[float, float]:
    weight = 1.0 / error**2
    mean = float(np.average(value, weights=weight))
    internal = 1.0 / math.sqrt(float(weight.sum()))
    return mean, internal * max(1.0, _birge(value, error, mean))


def _birge(value: FloatArray, error: FloatArray, mean: float) -> float:
    """Return by how much values scatter more than their errors; 1 for a single one."""
    if len(value) < 2:
        return 1.0
    return math.sqrt(float(np.sum(((value - mean) / error) ** 2)) / (len(value) - 1))


def _odd_nights(
    used: Sequence[Coefficient], value: FloatArray, error: FloatArray
) -> dict[int, str]:
    """Return, by place, words on each fit beyond 3 sigma of the others' mean.

    Of the others on the same field, where there are enough.

    The catalogue's errors are the same in all nights on a field: with `MIN_NIGHTS_OF_SCATTER`
    others what they scatter is the error, though it be less than what each quotes.
    """
    words: dict[int, str] = {}
    fields = np.array([field_of(one) for one in used])
    for index, one in enumerate(used):
        others = np.arange(len(used)) != index
        alike = others & (fields == field_of(one))
        is_own = bool(alike.sum() >= MIN_NIGHTS_OF_SCATTER)
        if is_own:
            others = alike
        if not others.any():
            return {}
        mean, mean_error = _weighted_mean(value[others], error[others])
        ratio = _birge(value[others], error[others], mean)
        expected = math.hypot(error[index] * max(1.0, ratio), mean_error)
        if is_own and ratio < 1.0:
            expected = error[index] * ratio * math.sqrt(1 + 1 / others.sum())
        sigma = abs(value[index] - mean) / expected if expected > 0 else 0.0
        if sigma > DRIFT_SIGMA:
            words[index] = (
                f"{one.name} of {_night(one)} is {value[index]:+.4f}±{error[index]:.4f}, "
                f"{sigma:.1f} sigma from the others' {mean:+.4f}±{mean_error:.4f}"
            )
            if len(used) == 2:
                break
    return words


def _trend(used: Sequence[Coefficient], value: FloatArray, error: FloatArray) -> tuple[str, ...]:
    """Return words on a change with time, of more than 3 sigma over at least four nights."""
    dated = np.array([one.date is not None for one in used])
    days = np.array([one.date.toordinal() for one in used if one.date is not None], dtype=float)
    if len(set(days)) < MIN_NIGHTS_OF_TREND:
        return ()
    years = (days - days.mean()) / DAYS_PER_YEAR
    nothing = np.zeros(len(years))
    one_field = len({field_of(one) for one in used}) == 1 and len(used) > MIN_NIGHTS_OF_SCATTER
    # On one field what the nights scatter about the line is the error, as in `_odd_nights`.
    variance = (error[dated] * (ALMOST_NOTHING if one_field else 1.0)) ** 2
    line = fit_line(years, value[dated], nothing, variance, nothing)
    if abs(line.slope) <= DRIFT_SIGMA * line.slope_error:
        return ()
    first, last = (dt.date.fromordinal(int(day)) for day in (days.min(), days.max()))
    change = line.slope * (days.max() - days.min()) / DAYS_PER_YEAR
    return (
        f"{used[0].name} runs with time: {change:+.4f} from {first} to {last} "
        f"({abs(line.slope) / line.slope_error:.1f} sigma over {len(set(days))} nights); "
        "a new epoch may have begun",
    )


def _night(one: Coefficient) -> str:
    return one.date.isoformat() if one.date else one.source
