"""How good a series and its frames are: robust scatter, and the points a person should look at.

Nothing is rejected here: the words are proposals, which a person confirms or takes back.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from wombat_dagster import domain
from wombat_dagster.domain import BoolArray, FloatArray

MIN_ALTITUDE_DEG: Final = 15.0
MAX_CLOUD_MAG: Final = 1.0
MAX_COMP_SIGMA: Final = 5.0
COMPS_MIN_FRAMES: Final = 10  # the night's own scatter is too uncertain over fewer
COMPS_MIN_MAG: Final = 0.001  # no comp is steadier than that

CLOUDED_PART: Final = 0.5  # of the usual number of stars
CLOUDED_MIN_FRAMES: Final = 5
MIN_USUAL_STARS: Final = 10

MAD_TO_SIGMA: Final = 1.4826  # of a Gaussian

# The median absolute deviation of a few Gaussian values is too small on average. Factors for
# n = 2…9; beyond that n / (n - 0.8). Croux & Rousseeuw (1992), COMPSTAT 1, 411.
SMALL_SAMPLE: Final = (1.196, 1.495, 1.363, 1.206, 1.200, 1.140, 1.129, 1.107)

SATURATED = "saturated"
EDGE = "edge"
MASKED = "masked"
UNMEASURED = "unmeasured"
NO_ZERO_POINT = "nozeropoint"
NO_COLOUR = "nocolour"
ALTITUDE = "altitude"
CLOUD = "cloud"
COMPS = "comps"


def scatter(values: FloatArray) -> float | None:
    """Return the robust standard deviation of `values` about their median; NaNs are left out.

    1.4826 times the median absolute deviation with its small-sample factor, so that one bad frame
    does not spoil it and three frames do not flatter it. None for fewer than two values.
    """
    found = scatter_of_columns(np.asarray(values, dtype=float).reshape(-1, 1))[0]
    return float(found) if np.isfinite(found) else None


def scatter_of_columns(values: FloatArray) -> FloatArray:
    """Return `scatter` of each column, shape (n_columns,); NaN where it has fewer than two."""
    n = np.isfinite(values).sum(axis=0)
    several = n >= 2
    deviation = median_of_columns(np.abs(values - median_of_columns(values)))
    few = np.array(SMALL_SAMPLE)[np.clip(n, 2, len(SMALL_SAMPLE) + 1) - 2]
    factor = np.where(n < 10, few, n / (n - 0.8))
    return np.where(several, factor * MAD_TO_SIGMA * deviation, np.nan)


def median_of_columns(values: FloatArray) -> FloatArray:
    """Return the median of what is finite in each column, NaN where nothing is.

    By sorting: nanmedian calls Python once per column of a long night.
    """
    n = np.isfinite(values).sum(axis=0)
    if not len(values):
        return np.full(len(n), np.nan)
    ordered = np.sort(np.where(np.isfinite(values), values, np.nan), axis=0)  # NaN comes last
    columns = np.arange(len(n))
    low, high = np.maximum(n - 1, 0) // 2, n // 2
    high = np.minimum(high, len(values) - 1)
    return (ordered[low, columns] + ordered[high, columns]) / 2


def dimming(zero_point_mag: FloatArray) -> FloatArray:
    """Return by how many magnitudes each frame is dimmer than the night's best, shape (n,).

    Dimmer is a smaller zero point. The best is the 95th percentile, so that a single frame with a
    wrong exposure time does not make a whole night cloudy. NaN where a frame has no zero point.
    """
    if not np.isfinite(zero_point_mag).any():
        return np.full(len(zero_point_mag), np.nan)
    return np.nanpercentile(zero_point_mag, 95) - np.asarray(zero_point_mag)


def clouded(n_stars: NDArray[np.int64], exposure_s: FloatArray) -> dict[int, int]:
    """Return the frames with less than half of the usual stars, and how many are usual.

    Usual is the 75th percentile of the frames of one exposure, at least 5 of them, so that half a
    clouded night does not pass for a usual one. Fewer than `MIN_USUAL_STARS` tell nothing.
    """
    found: dict[int, int] = {}
    for exposure in np.unique(exposure_s):
        alike = np.flatnonzero(exposure_s == exposure)
        usual = int(np.percentile(n_stars[alike], 75))
        if len(alike) >= CLOUDED_MIN_FRAMES and usual >= MIN_USUAL_STARS:
            found |= {int(i): usual for i in alike[n_stars[alike] < CLOUDED_PART * usual]}
    return dict(sorted(found.items()))


def clouded_frames(source_sky_adu: FloatArray, exposure_s: FloatArray) -> BoolArray:
    """Return the frames whose stars are more than 1 mag dimmer than on the night's best frames.

    For when there are no zero points yet: the stars together, those measured on every frame, so
    that one that is missing makes no cloud. `source_sky_adu` of shape (n_frames, n_stars),
    `exposure_s` (n_frames,). Over fewer than 5 frames, or without such a star, none is.
    """
    always = np.isfinite(source_sky_adu).all(axis=0)
    if len(source_sky_adu) < CLOUDED_MIN_FRAMES or not always.any():
        return np.zeros(len(source_sky_adu), dtype=bool)
    rate = source_sky_adu[:, always].sum(axis=1) / exposure_s
    return rate < 10 ** (-0.4 * MAX_CLOUD_MAG) * np.percentile(rate, 95)


def disagreeing_comps(deviation_mag: FloatArray, error_mag: FloatArray) -> BoolArray:
    """Return the frames whose comps disagree by more than the night's frames usually do.

    One comp is beyond 5 sigma of its own scatter, or all of at least 3 scatter five times more than
    on the median frame: both in magnitudes and in units of the formal errors, so that a short
    exposure or thin cloud is no disagreement. In those units the comps are alike: one that happens
    to scatter little is judged by the others' median. Deviations of the comps' zero points and
    formal errors of shape (n_frames, n_comps); NaN: not measured. Over fewer than 10 frames none
    is, nor where all comps are within 1 mmag.
    """
    with np.errstate(invalid="ignore", divide="ignore"):  # an error of 0 says nothing
        pulls = deviation_mag / error_mag
    own = scatter_of_columns(pulls)
    known = own[np.isfinite(own)]
    usual = np.maximum(own, np.median(known)) if known.size else own
    beyond = (np.abs(deviation_mag) > COMPS_MIN_MAG).any(axis=1)
    return beyond & _apart(deviation_mag, scatter_of_columns(deviation_mag)) & _apart(pulls, usual)


def _apart(deviation: FloatArray, usual: FloatArray) -> BoolArray:
    """Return the frames far off by the `usual` scatter of each comp, shape (n_comps,)."""
    measured = np.isfinite(deviation)
    judged = (measured.sum(axis=0) >= COMPS_MIN_FRAMES) & (usual > 0)
    apart = (np.abs(deviation[:, judged]) > MAX_COMP_SIGMA * usual[judged]).any(axis=1)
    several = measured.sum(axis=1) >= 3
    if several.sum() >= COMPS_MIN_FRAMES:
        spread = np.nanstd(np.where(measured, deviation, np.nan)[several], axis=1)
        apart[several] |= spread > MAX_COMP_SIGMA * (np.median(spread) or np.inf)
    return apart


def propose_rejections(
    table: domain.PhotometryTable,
    zero_point_mag: FloatArray,
    *,
    comp_deviation_mag: FloatArray | None = None,
    comp_error_mag: FloatArray | None = None,
    without_colour: BoolArray | None = None,
) -> tuple[str, ...]:
    """Return per frame why its point of T1 should be looked at, words joined by ",", "" when fine.

    Words: ``saturated``, ``edge`` (aperture or annulus leaves the frame), ``masked`` (bad pixel in
    the aperture), ``unmeasured``, ``nozeropoint`` (no comp measured), ``nocolour`` (transformed by
    the colour of a distant frame), ``altitude`` (below 15 degrees), ``cloud`` (zero point more than
    1 mag below the night's best), ``comps`` (see `disagreeing_comps`; None: not asked).
    `zero_point_mag` has shape (n_frames,), for counts per second; `without_colour` the same, None:
    no frame.
    """
    t1 = table.star_index("T1")
    if t1 is None:
        raise domain.NoStandard("no aperture T1 in the measurement table")
    flags = table.measured.flags[:, t1]
    missing = ~np.isfinite(table.measured.source_sky_adu[:, t1])
    no_frame = np.zeros(len(missing), dtype=bool)
    apart = no_frame
    if comp_deviation_mag is not None and comp_error_mag is not None:
        apart = disagreeing_comps(comp_deviation_mag, comp_error_mag)
    words = {
        SATURATED: (flags & domain.Flag.SATURATED) != 0,
        EDGE: (flags & domain.Flag.NEAR_EDGE) != 0,
        MASKED: (flags & domain.Flag.BAD_PIXEL) != 0,
        UNMEASURED: ((flags & domain.Flag.UNMEASURED) != 0) | missing,
        NO_ZERO_POINT: ~np.isfinite(zero_point_mag),
        NO_COLOUR: no_frame if without_colour is None else without_colour,
        ALTITUDE: table.times.altitude_deg < MIN_ALTITUDE_DEG,
        CLOUD: dimming(zero_point_mag) > MAX_CLOUD_MAG,
        COMPS: apart,
    }
    return tuple(
        ",".join(word for word, hit in words.items() if hit[frame])
        for frame in range(len(table.labels))
    )


def linearity_notes(table: domain.PhotometryTable) -> list[str]:
    """Return a note when T1 is above the linearity limit: a person decides what that is worth."""
    t1 = table.star_index("T1")
    if t1 is None:
        return []
    n = int(((table.measured.flags[:, t1] & domain.Flag.NON_LINEAR) != 0).sum())
    if not n:
        return []
    return [
        f"T1 is above the linearity limit of {table.linearity_adu:.0f} ADU on {n} of "
        f"{len(table.labels)} frames"
    ]


def under_fair_sky(rejected: Sequence[str]) -> BoolArray:
    """Return the frames fit to judge other stars by: neither low nor clouded.

    `rejected` are the words of `propose_rejections`, one entry per frame.
    """
    spoilt = {ALTITUDE, CLOUD}
    return np.array([spoilt.isdisjoint(words.split(",")) for words in rejected], dtype=bool)
