"""How steady the stars of a night are, and how steady they should be: observed against expected.

Every star is compared with the weighted others, its error with the parts of `noise`. T1 is measured
like the others and never part of what they are compared with; T2 is not either.
"""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np

from wombat_dagster import domain
from wombat_dagster.domain import BoolArray, Flag, FloatArray
from wombat_dagster.science import noise, quality
from wombat_dagster.science.photometry import instrumental_mag

MAG_PER_RELATIVE_ERROR: Final = 2.5 / math.log(10)

BIN_MIN: Final = 10.0
MIN_IN_BIN: Final = 2  # frames, in the median bin
MIN_BINS: Final = 4
MIN_FRAMES: Final = 5  # scatter over fewer is no evidence of anything
ROUNDS: Final = 4  # medians, weights and zero point settle in two or three
CLIP_SIGMA: Final = 5.0  # a reference star farther off is out on that frame
CURVE_POINTS: Final = 60
CURVE_MARGIN_MAG: Final = 0.5

ENSEMBLE = "ensemble"  # the noise of the stars compared with, among the parts


@dataclass(frozen=True, slots=True, kw_only=True)
class _Series:
    """Apertures first, then field stars; (n_frames, n_stars). NaN: saturated or not measured.

    `variance` is the relative one of what is known, for weights; `parts` the same by cause.
    """

    magnitude: FloatArray
    variance: FloatArray
    parts: dict[str, FloatArray]
    reference: BoolArray  # (n_stars,): the others are compared with these
    roles: tuple[str, ...]
    names: tuple[str, ...]


def measure_precision(table: domain.PhotometryTable) -> domain.PrecisionReport:
    """Return the observed and the expected scatter of T1, T2, the comps and the field stars.

    Notes
    -----
    Each star's night median is taken away, then on every frame the weighted mean of the reference
    stars (comps and field stars, never the star itself), weights 1/(σ² + x²) with the formal σ of
    the frame and x the star's own scatter beyond it, so that a variable among them counts little;
    the first round takes the median of them instead. A star more than 5 sigma off on a frame is no
    reference there. Frames more than 1 mag below the night's best and below 15 degrees are left
    out, as they are proposed to be rejected.
    """
    series = _series(table)
    clear = _clear(table, series)
    residual, ensemble_variance = _against_the_others(series, clear)
    seen = np.where(clear[:, None], residual, np.nan)
    known = noise.noise_budget(table).total is not None
    parts = dict(series.parts)
    parts[ENSEMBLE] = np.where(np.isfinite(seen), ensemble_variance, np.nan)
    error = MAG_PER_RELATIVE_ERROR * np.sqrt(series.variance + ensemble_variance)
    enough = np.isfinite(seen).sum(axis=0) >= MIN_FRAMES
    rms = np.where(enough, _scatter(seen), np.nan)
    nothing = np.full(len(series.roles), np.nan)
    zero_point = _zero_point(table, series, clear)
    n_in_bin, binned = _binned(seen, table.times.jd_utc)
    bin_expected = nothing if n_in_bin is None else rms / math.sqrt(n_in_bin)
    instrumental = _median(np.where(clear[:, None], series.magnitude, np.nan))
    magnitude = instrumental + (zero_point or 0.0)
    parts_mag = {
        name: MAG_PER_RELATIVE_ERROR * np.sqrt(_median(np.where(np.isfinite(seen), part, np.nan)))
        for name, part in parts.items()
    }
    ensemble_mag = float(_median(parts_mag[ENSEMBLE][:, None])[0])
    curve_mag, curves = _curves(table, clear, magnitude, zero_point or 0.0, ensemble_mag)
    jd = table.times.jd_utc[np.isfinite(table.times.jd_utc)]
    return domain.PrecisionReport(
        target=table.target,
        filter=table.filter,
        band=table.band,
        jd_first=float(jd.min()) if len(jd) else math.nan,
        n_frames=int(clear.sum()),
        n_clouded=int((~clear).sum()),
        roles=series.roles,
        names=series.names,
        magnitude_mag=magnitude,
        zero_point_mag=zero_point,
        rms_mag=rms,
        successive_rms_mag=np.where(
            enough, _scatter(np.diff(seen, axis=0)) / math.sqrt(2.0), np.nan
        ),
        expected_mag=_median(np.where(np.isfinite(seen), error, np.nan)) if known else nothing,
        parts=parts_mag if known else {},
        pull=np.where(enough, _scatter(seen / error), np.nan) if known else nothing,
        n_measured=np.isfinite(seen).sum(axis=0).astype(float),
        bin_min=BIN_MIN,
        n_in_bin=n_in_bin,
        binned_rms_mag=binned,
        bin_expected_mag=bin_expected,
        bin_ratio=binned / bin_expected,
        curve_mag=curve_mag,
        curves=curves if known else {},
        unknown=noise.unknown_parts(table),
    )


# ------------------------------------------------------------------------------------ the series


def _series(table: domain.PhotometryTable) -> _Series:
    blocks = [(table.measured.source_sky_adu, table.measured.source_error_adu)]
    flags, budgets = [table.measured.flags], [noise.noise_budget(table)]
    n_field = 0
    if table.field is not None:
        n_field = table.field.flags.shape[1]
        blocks.append((table.field.source_sky_adu, table.field.source_error_adu))
        flags.append(table.field.flags)
        budgets.append(noise.noise_budget(table, field=True))
    source = np.concatenate([block[0] for block in blocks], axis=1)
    formal = np.concatenate([block[1] for block in blocks], axis=1)
    unusable = (np.concatenate(flags, axis=1) & (Flag.SATURATED | Flag.UNMEASURED)) != 0
    source = np.where(unusable, np.nan, source)
    source = np.where(source > 0, source, np.nan)
    variance = (formal / source) ** 2 + noise.relative_extra(table)[:, None] ** 2
    return _Series(
        magnitude=instrumental_mag(source, table.exposure_s[:, None]),
        variance=np.where(variance > 0, variance, np.nan),
        parts={
            name: np.concatenate([budget.parts[name] for budget in budgets], axis=1)
            for name in budgets[0].parts
        },
        reference=np.array([s.role.startswith("C") for s in table.stars] + [True] * n_field),
        roles=(*(star.role for star in table.stars), *[""] * n_field),
        names=(*(star.auid or star.name for star in table.stars), *[""] * n_field),
    )


def _clear(table: domain.PhotometryTable, series: _Series) -> BoolArray:
    """Return the frames to judge by, shape (n_frames,); all of them where no star can tell."""
    references = series.magnitude[:, series.reference]
    if not np.isfinite(references).any():
        return np.ones(len(table.labels), dtype=bool)
    level = -_median((references - _median(references)).T)
    clouded = quality.dimming(level) > quality.MAX_CLOUD_MAG
    low = table.times.altitude_deg < quality.MIN_ALTITUDE_DEG
    return ~clouded & ~low & np.isfinite(level)


def _against_the_others(series: _Series, clear: BoolArray) -> tuple[FloatArray, FloatArray]:
    """Return residuals in magnitudes and the relative variance of what was compared with.

    Both (n_frames, n_stars), NaN where a star was not measured or had nothing to compare with.
    """
    magnitude = np.where(clear[:, None], series.magnitude, np.nan)
    variance = MAG_PER_RELATIVE_ERROR**2 * series.variance
    references = np.where(series.reference, magnitude, np.nan)
    common = _median((references - _median(references)).T)[:, None]
    level, others = common, np.zeros(magnitude.shape)
    for _ in range(ROUNDS):
        residual = magnitude - level
        residual = residual - _median(residual)
        own = _scatter(residual)
        beyond = np.maximum(np.nan_to_num(own**2 - _median(variance)), 0.0)
        weight = 1.0 / (variance + beyond)
        wild = np.abs(residual) > CLIP_SIGMA * np.sqrt(variance + beyond)
        weight = np.where(np.isfinite(references) & np.isfinite(weight) & ~wild, weight, 0.0)
        shown = np.nan_to_num(magnitude - _median(magnitude - common))
        total = _without_self(weight, series.reference)
        light = _without_self(weight * shown, series.reference)
        spread = _without_self(weight**2 * np.nan_to_num(variance), series.reference)
        with np.errstate(divide="ignore", invalid="ignore"):
            common = ((weight * shown).sum(axis=1) / weight.sum(axis=1))[:, None]
            level = np.where(total > 0, light / total, np.nan)
            others = np.where(total > 0, spread / total**2, np.nan)
    residual = magnitude - level
    return residual - _median(residual), others / MAG_PER_RELATIVE_ERROR**2


def _without_self(values: FloatArray, reference: BoolArray) -> FloatArray:
    """Return, for every star, the sum over the reference stars but itself; 0 where none is."""
    values = np.where(reference, values, 0.0)
    others = values.sum(axis=1, keepdims=True) - values
    return np.where(((values != 0).sum(axis=1, keepdims=True) - (values != 0)) > 0, others, 0.0)


def _zero_point(table: domain.PhotometryTable, series: _Series, clear: BoolArray) -> float | None:
    """Return the median over the comps of catalogue less instrumental magnitude."""
    ours = _median(np.where(clear[:, None], series.magnitude, np.nan))
    offsets = [
        star.catalogue_mag - ours[index]
        for index, star in enumerate(table.stars)
        if star.role.startswith("C") and star.catalogue_mag is not None
    ]
    finite = [offset for offset in offsets if np.isfinite(offset)]
    return float(np.median(finite)) if finite else None


# -------------------------------------------------------------------------------------- scatters


def _median(values: FloatArray) -> FloatArray:
    """Return the median of each column, NaN where it is empty."""
    n = np.isfinite(values).sum(axis=0)
    ordered = np.sort(values, axis=0)  # NaN comes last
    if not len(ordered):
        return np.full(values.shape[1:], np.nan)
    low = np.take_along_axis(ordered, np.maximum((n - 1) // 2, 0)[None], axis=0)[0]
    high = np.take_along_axis(ordered, np.minimum(n // 2, len(ordered) - 1)[None], axis=0)[0]
    return np.where(n > 0, (low + high) / 2, np.nan)


def _scatter(values: FloatArray) -> FloatArray:
    """Return `quality.scatter` of each column, NaN where it has none."""
    found = [quality.scatter(column) for column in values.T]
    return np.array([math.nan if one is None else one for one in found], dtype=float)


def _binned(residual: FloatArray, jd_utc: FloatArray) -> tuple[float | None, FloatArray]:
    """Return the median number of frames in a bin, None without bins, and the means' scatter.

    A bin counts that has at least half of the median number.
    """
    nothing = np.full(residual.shape[1], np.nan)
    usable = np.isfinite(jd_utc) & np.isfinite(residual).any(axis=1)
    if usable.sum() < MIN_BINS * MIN_IN_BIN:
        return None, nothing
    times = jd_utc[usable]
    number = np.floor((times - times.min()) * 1440.0 / BIN_MIN + 1e-6).astype(int)
    bins, place, counts = np.unique(number, return_inverse=True, return_counts=True)
    n_in_bin = float(np.median(counts))
    if n_in_bin < MIN_IN_BIN or len(bins) < MIN_BINS:
        return None, nothing
    values = residual[usable]
    finite = np.isfinite(values)
    n, total = np.zeros((2, len(bins), values.shape[1]))
    np.add.at(n, place, finite)
    np.add.at(total, place, np.where(finite, values, 0.0))
    means = np.where(n >= n_in_bin / 2, total / np.maximum(n, 1), np.nan)
    scatter = _scatter(means)
    return n_in_bin, np.where(np.isfinite(means).sum(axis=0) >= MIN_BINS, scatter, np.nan)


# -------------------------------------------------------------------------------------- the curves


def _curves(
    table: domain.PhotometryTable,
    clear: BoolArray,
    magnitude_mag: FloatArray,
    zero_point: float,
    ensemble_mag: float,
) -> tuple[FloatArray, dict[str, FloatArray]]:
    """Return magnitudes and, by cause and in total, the expected error of one star of each.

    On the median of the clear frames; `ensemble_mag` is the noise of the stars compared with.
    """
    shown = magnitude_mag[np.isfinite(magnitude_mag)]
    if not len(shown) or table.gain_e_adu is None or not clear.any():
        return np.array([]), {}
    mags = np.linspace(shown.min() - CURVE_MARGIN_MAG, shown.max() + CURVE_MARGIN_MAG, CURVE_POINTS)
    stars = table.measured
    exposure = float(np.median(table.exposure_s[clear]))
    source = exposure * 10 ** (-0.4 * (mags - zero_point))
    n, n_sky, sky = (
        float(np.nanmedian(values[clear]))
        for values in (stars.n_source_px, stars.n_sky_px, stars.sky_adu_px)
    )
    variances = noise.aperture_variances(
        source,
        sky,
        n_source_px=n,
        n_sky_px=n_sky,
        gain_e_adu=table.gain_e_adu,
        read_noise_e=table.read_noise_e,
        dark_e_px=None if table.dark_e_px is None else np.median(table.dark_e_px[clear]),
    )
    for name, part in noise.noise_budget(table).parts.items():
        if name not in variances and np.isfinite(part[clear]).any():  # the same for every star
            variances[name] = np.full(len(mags), np.nanmedian(part[clear]))
    if np.isfinite(ensemble_mag):
        variances[ENSEMBLE] = np.full(len(mags), (ensemble_mag / MAG_PER_RELATIVE_ERROR) ** 2)
    variances["total"] = np.sum(list(variances.values()), axis=0)
    return mags, {
        name: MAG_PER_RELATIVE_ERROR * np.sqrt(variance) for name, variance in variances.items()
    }
