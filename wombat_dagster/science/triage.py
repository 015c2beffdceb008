"""How fit each frame of an observation is, against the other frames of its night.

Nothing is rejected here and no pixel is looked at: what the first look at a frame found (its stars,
its sky) is compared with what the night's frames usually show, and every frame gets a grade and the
reasons with numbers. No comparison star and no catalogue is needed: the transparency is that of the
same detected stars followed from frame to frame, so that a night that ends in ``nowcs`` is judged
as any other.

Limits are relative to the night; absolute ones stand only where physics sets them (sky near
saturation, the horizon, a pointing that misses the field).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from wombat_dagster import tangent
from wombat_dagster.domain import (
    Detections,
    FaultKind,
    FloatArray,
    FrameFault,
    FrameGrade,
    Grade,
    WcsSolution,
)
from wombat_dagster.science import quality

FOLLOWED_STARS: Final = 300  # the brightest of a frame: memory stays small over a long night
JUDGED_STARS: Final = 60  # of these, the brightest say how wide and how round the frame's stars are
SHORT_NIGHT: Final = quality.CLOUDED_MIN_FRAMES  # with fewer frames there is no usual

FEW_STARS_BAD: Final = 0.25  # of the usual number; `quality.CLOUDED_PART` is poor
DIM_POOR_MAG: Final = 0.4  # below the night's best; `quality.MAX_CLOUD_MAG` is bad
WIDE_POOR, WIDE_BAD = 1.4, 2.0  # times the usual FWHM
NARROW: Final = 0.6  # times the usual FWHM: no seeing is that much better
LESS_ROUND_POOR: Final = 0.15  # in the axis ratio, below the usual
TRAILED_BAD: Final = 0.5  # axis ratio below which no star profile is fitted
NOISY_POOR, NOISY_BAD = 1.6, 3.0  # times the usual noise of the background
MAX_SKY_OF_SATURATION: Final = 0.5  # above, stars have no room left
MIN_ALIKE: Final = 3  # frames of one exposure to say what is usual
JUMP_STEPS: Final = 5.0  # times the usual step from frame to frame
JUMP_FWHM: Final = 3.0  # a jump is at least that long
LEAST_JUMP_PX: Final = 5.0
ELONGATED_NIGHT: Final = 0.7  # axis ratio of the whole night that is worth a note
MAX_STEPS_NAMED: Final = 5

MIN_MATCHED: Final = 5  # stars found again that show the same dimming
MIN_MATCHED_PART: Final = 0.2  # of the fewer stars, lest a wrong match passes
FEW_MATCHED: Final = 3  # where the neighbours say where the frame points
MAX_MATCH_SCATTER_MAG: Final = 0.6  # of the stars' dimming about its median; wrong matches have 1
EXTINCTION_LIMIT: Final = 0.6  # mag per airmass: more is no clear air
MIN_AIRMASS_RANGE: Final = 0.3
MIN_FOR_EXTINCTION: Final = 10
CLEAR_MAG: Final = 0.75  # dimmer frames do not say what the air takes

# What makes a good reference frame: exponents of what each quantity is worth, relative to the
# night's best. Transparency and sharpness first, as both set the faintest star that is seen.
WEIGHTS: Final[Mapping[str, float]] = {
    "transparency": 0.30,
    "sharpness": 0.25,
    "stars": 0.20,
    "background": 0.15,
    "roundness": 0.10,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameLook:
    """What is known of one frame before it is judged; None: not known.

    `left_out` says why a frame was not reduced: nothing else is known of it then.
    `zero_point_mag` is relative to any one frame; smaller is dimmer.
    """

    raw: str
    start_utc: str | None
    exposure_s: float | None
    left_out: str | None = None
    n_stars: int | None = None
    fwhm_px: float | None = None
    axis_ratio: float | None = None
    sky_adu: float | None = None
    sky_rms_adu: float | None = None
    zero_point_mag: float | None = None
    n_matched: int | None = None
    offset_x_px: float | None = None
    offset_y_px: float | None = None
    altitude_deg: float | None = None
    airmass: float | None = None
    solved: bool = False
    unsolved_words: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FollowedStars:
    """The brightest stars of a frame, to be found again on others; arrays of shape (n,)."""

    x_px: FloatArray
    y_px: FloatArray
    magnitude: FloatArray  # -2.5 log10(ADU/s)

    def __len__(self) -> int:
        return len(self.x_px)


# ------------------------------------------------------------------------ stars from frame to frame


def summary(stars: Detections) -> tuple[int, float | None, float | None]:
    """Return number, median FWHM in px and median axis ratio (minor/major) of a frame's stars."""
    if not len(stars):
        return 0, None, None
    brightest = slice(0, JUDGED_STARS)
    return (
        len(stars),
        float(np.median(stars.fwhm_px[brightest])),
        float(np.median(stars.axis_ratio[brightest])),
    )


def followed(stars: Detections, exposure_s: float) -> FollowedStars:
    """Return the stars of a frame that are looked for on the others."""
    seen = np.flatnonzero(stars.flux_adu > 0)[:FOLLOWED_STARS]
    return FollowedStars(
        x_px=stars.x_px[seen],
        y_px=stars.y_px[seen],
        magnitude=-2.5 * np.log10(stars.flux_adu[seen] / exposure_s),
    )


def placed_by_wcs(
    solution: WcsSolution, reference: WcsSolution, x_px: FloatArray, y_px: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return where pixels of a solved frame lie in those of another solved frame."""
    ra_deg, dec_deg = tangent.pixel_to_sky(solution, x_px, y_px)
    return tangent.sky_to_pixel(reference, ra_deg, dec_deg)


def found_again(
    stars: FollowedStars,
    x_px: FloatArray,
    y_px: FloatArray,
    reference: FollowedStars,
    *,
    radius_px: float,
    expected: bool,
) -> FloatArray | None:
    """Return the magnitudes of the reference's stars on this frame, NaN where one is not seen.

    `x_px`, `y_px` are the stars' places in the reference frame's pixels. None when the two do not
    show the same stars: too few within `radius_px`, or dimmed by different amounts. `expected`: the
    places are sure (by plate solutions, or by the frames beside), so that a few stars will do.
    """
    from scipy.spatial import cKDTree

    magnitude = np.full(len(reference), np.nan)
    if not len(stars) or not len(reference):
        return None
    tree = cKDTree(np.column_stack([x_px, y_px]))
    distance, nearest = tree.query(
        np.column_stack([reference.x_px, reference.y_px]), distance_upper_bound=radius_px
    )
    near = np.isfinite(distance)
    # two stars of the reference may have one nearest: the brighter, which comes first, keeps it
    _, first = np.unique(nearest[near], return_index=True)
    seen = np.flatnonzero(near)[first]
    least = FEW_MATCHED if expected else max(
        MIN_MATCHED, int(MIN_MATCHED_PART * min(len(stars), len(reference)))
    )  # fmt: skip
    if len(seen) < least:
        return None
    magnitude[seen] = stars.magnitude[nearest[seen]]
    spread = quality.scatter(magnitude[seen] - reference.magnitude[seen])
    if spread is None or spread > MAX_MATCH_SCATTER_MAG:
        return None
    return magnitude


def relative_zero_points(magnitude: FloatArray) -> FloatArray:
    """Return each frame's zero point against the others, shape (n_frames,); smaller is dimmer.

    `magnitude` of shape (n_frames, n_stars) holds -2.5 log10(flux per second) of the same stars,
    NaN where one is not seen. By turns the stars' magnitudes and the frames' zero points are the
    medians of what the other leaves (Tukey's median polish), so that variables and blends do not
    matter. NaN for a frame without stars.
    """
    zero_point: FloatArray = np.zeros(len(magnitude))
    for _ in range(4):
        level = quality.median_of_columns(magnitude + zero_point[:, np.newaxis])
        zero_point = quality.median_of_columns((level - magnitude).T)
        zero_point = np.where(np.isfinite(zero_point), zero_point, np.nan)
    return zero_point


def without_extinction(zero_point_mag: FloatArray, airmass: FloatArray) -> tuple[FloatArray, float]:
    """Return zero points as they would be at the night's smallest airmass, and mag per airmass.

    The slope is the median over pairs of clear frames (Theil-Sen), never negative and never more
    than clear air takes; 0 where the night does not tell.
    """
    clear = (quality.dimming(zero_point_mag) < CLEAR_MAG) & (airmass > 0)
    if clear.sum() < MIN_FOR_EXTINCTION or np.ptp(airmass[clear]) < MIN_AIRMASS_RANGE:
        return zero_point_mag, 0.0
    x, z = airmass[clear], zero_point_mag[clear]
    i, j = np.triu_indices(len(x), k=1)
    apart = np.abs(x[j] - x[i]) > MIN_AIRMASS_RANGE / 3
    slope = -float(np.median((z[j] - z[i])[apart] / (x[j] - x[i])[apart]))
    slope = min(max(slope, 0.0), EXTINCTION_LIMIT)
    with_sky = np.where(airmass > 0, airmass, np.nan)
    corrected = zero_point_mag + slope * (with_sky - x.min())
    return np.where(np.isfinite(corrected), corrected, zero_point_mag), slope


# ------------------------------------------------------------------------------------------ grades


def grade_frames(
    looks: Sequence[FrameLook],
    *,
    width_px: int,
    height_px: int,
    saturation_adu: float | None = None,
) -> tuple[tuple[FrameGrade, ...], dict[str, float], tuple[str, ...]]:
    """Return the grades of the frames, in their order, the night's usual values, and notes.

    `looks` in time order. With fewer than 5 used frames only what is gross is named, and no grade
    is worse than poor but for what physics says.
    """
    used = [look for look in looks if look.left_out is None]
    usual = _Usual(used)
    dimming_mag = _dimming(used)
    steps = _Steps(used, usual.fwhm_px)
    faults = {
        look.raw: _faults(
            look, usual, dimming, steps.of(index), width_px, height_px, saturation_adu
        )
        for index, (look, dimming) in enumerate(zip(used, dimming_mag, strict=True))
    }
    if len(used) < SHORT_NIGHT:
        faults = {
            raw: [_softened(f) for f in found if _is_gross(f)] for raw, found in faults.items()
        }
    grades = []
    dimming_of = dict(zip((look.raw for look in used), dimming_mag, strict=True))
    for look in looks:
        found = faults.get(look.raw, [])
        if look.left_out is not None:
            words = f"left out: {look.left_out}"
            found = [FrameFault(kind=FaultKind.LEFT_OUT, grade=Grade.BAD, words=words)]
        dimming = dimming_of.get(look.raw, np.nan)
        grades.append(_graded(look, found, None if np.isnan(dimming) else float(dimming)))
    grades = _scored(grades)
    notes = (*_night_notes(used, usual), *steps.notes)
    return tuple(grades), usual.as_mapping(), notes


def best_frame(grades: Iterable[FrameGrade]) -> str | None:
    """Return the raw path of the frame to take for a reference: the best grade's highest score."""
    order = {Grade.GOOD: 2, Grade.POOR: 1, Grade.BAD: 0}
    scored = [(order[one.grade], one.score, one.raw) for one in grades if one.score is not None]
    return max(scored, key=lambda one: one[:2])[2] if scored else None


class _Usual:
    """What the night's frames usually show; sky and noise by exposure."""

    def __init__(self, used: Sequence[FrameLook]) -> None:
        self.fwhm_px = _median(look.fwhm_px for look in used)
        self.axis_ratio = _median(look.axis_ratio for look in used)
        n_stars = np.array([look.n_stars or 0 for look in used], dtype=np.int64)
        exposure_s = np.array([look.exposure_s or 0.0 for look in used])
        few = quality.clouded(n_stars, exposure_s)
        self.few_stars = {used[i].raw: usual for i, usual in few.items()}
        self.n_stars = float(np.percentile(n_stars, 75)) if len(used) else None
        if 2 <= len(used) < SHORT_NIGHT and n_stars.max() >= quality.MIN_USUAL_STARS:
            most = int(n_stars.max())
            limit = FEW_STARS_BAD * most
            self.few_stars = {
                look.raw: most for look in used if (look.n_stars or 0) < limit
            }  # fmt: skip
        self.sky_adu, self.sky_rms_adu = {}, {}
        for exposure in {look.exposure_s for look in used}:
            alike = [look for look in used if look.exposure_s == exposure]
            sky, rms = (
                _median(getattr(look, name) for look in alike)
                for name in ("sky_adu", "sky_rms_adu")
            )
            if len(alike) >= MIN_ALIKE and sky is not None and rms is not None and rms > 0:
                self.sky_adu[exposure], self.sky_rms_adu[exposure] = sky, rms

    def as_mapping(self) -> dict[str, float]:
        values = {
            "n_stars": self.n_stars,
            "fwhm_px": self.fwhm_px,
            "axis_ratio": self.axis_ratio,
        }
        if len(self.sky_adu) == 1:
            values["sky_adu"] = next(iter(self.sky_adu.values()))
            values["sky_rms_adu"] = next(iter(self.sky_rms_adu.values()))
        return {name: value for name, value in values.items() if value is not None}


def _dimming(used: Sequence[FrameLook]) -> FloatArray:
    """Return by how much each frame is dimmer than the night's best, extinction taken out."""
    zero_point = _array(look.zero_point_mag for look in used)
    if not np.isfinite(zero_point).any():
        return zero_point
    corrected, _ = without_extinction(zero_point, _array(look.airmass for look in used))
    return np.maximum(quality.dimming(corrected), 0.0)


def _faults(
    look: FrameLook,
    usual: _Usual,
    dimming_mag: float,
    step: "_Step | None",
    width_px: int,
    height_px: int,
    saturation_adu: float | None,
) -> list[FrameFault]:
    found: list[FrameFault | None] = [
        _cloud(look, dimming_mag),
        _width(look, usual),
        _shape(look, usual),
        *_sky(look, usual, saturation_adu),
        _pointing(step, width_px, height_px),
    ]
    known = [fault for fault in found if fault is not None]
    known += _star_count(look, usual, known, dimming_mag)
    if not look.solved and look.unsolved_words:
        words = f"not solved: {look.unsolved_words}"
        known.append(FrameFault(kind=FaultKind.UNSOLVED, grade=Grade.POOR, words=words))
    if look.altitude_deg is not None and look.altitude_deg < quality.MIN_ALTITUDE_DEG:
        words = f"low: altitude {look.altitude_deg:.0f} deg, {quality.MIN_ALTITUDE_DEG:g} wanted"
        known.append(FrameFault(kind=FaultKind.LOW, grade=Grade.POOR, words=words))
    return sorted(known, key=lambda fault: fault.grade is not Grade.BAD)


def _cloud(look: FrameLook, dimming_mag: float) -> FrameFault | None:
    if not dimming_mag > DIM_POOR_MAG:  # also when NaN
        return None
    words = (
        f"clouded: zero point {dimming_mag:.1f} mag below the night's best"
        f" ({look.n_matched} stars followed)"
    )
    grade = Grade.BAD if dimming_mag > quality.MAX_CLOUD_MAG else Grade.POOR
    return FrameFault(kind=FaultKind.CLOUD, grade=grade, words=words)


def _width(look: FrameLook, usual: _Usual) -> FrameFault | None:
    if look.fwhm_px is None or not usual.fwhm_px:
        return None
    ratio = look.fwhm_px / usual.fwhm_px
    if ratio > 1 and look.axis_ratio and usual.axis_ratio and _shape(look, usual) is not None:
        # a trail is as wide across as a star; the FWHM is about the mean of both its axes
        ratio *= float(np.sqrt(look.axis_ratio / usual.axis_ratio))
    numbers = f"FWHM {look.fwhm_px:.1f} px of usually {usual.fwhm_px:.1f}"
    if ratio > WIDE_POOR:
        grade = Grade.BAD if ratio > WIDE_BAD else Grade.POOR
        return FrameFault(kind=FaultKind.FOCUS, grade=grade, words=f"wide stars: {numbers}")
    if ratio < NARROW:
        words = f"narrow stars: {numbers}, perhaps no stars at all"
        return FrameFault(kind=FaultKind.STARS, grade=Grade.POOR, words=words)
    return None


def _shape(look: FrameLook, usual: _Usual) -> FrameFault | None:
    if look.axis_ratio is None or usual.axis_ratio is None:
        return None
    if look.axis_ratio > usual.axis_ratio - LESS_ROUND_POOR:
        return None
    words = f"elongated stars: axis ratio {look.axis_ratio:.2f} of usually {usual.axis_ratio:.2f}"
    grade = Grade.BAD if look.axis_ratio < TRAILED_BAD else Grade.POOR
    return FrameFault(kind=FaultKind.TRAIL, grade=grade, words=words)


def _sky(
    look: FrameLook, usual: _Usual, saturation_adu: float | None
) -> tuple[FrameFault | None, ...]:
    if look.sky_adu is None or look.sky_rms_adu is None:
        return ()
    found: list[FrameFault] = []
    if saturation_adu and look.sky_adu > MAX_SKY_OF_SATURATION * saturation_adu:
        words = (
            f"sky at {100 * look.sky_adu / saturation_adu:.0f} % of saturation"
            f" ({look.sky_adu:.0f} of {saturation_adu:.0f} ADU)"
        )
        found.append(FrameFault(kind=FaultKind.SKY, grade=Grade.BAD, words=words))
    if look.exposure_s in usual.sky_rms_adu:
        level, noise = usual.sky_adu[look.exposure_s], usual.sky_rms_adu[look.exposure_s]
        ratio = look.sky_rms_adu / noise
        if ratio > NOISY_POOR:
            # noise that no brighter sky explains is the camera's, or a veil of scattered light
            is_bright = look.sky_adu - level > noise
            words = (
                f"{'bright sky' if is_bright else 'noisy background'}: {look.sky_adu:.0f} ADU of"
                f" usually {level:.0f}, noise {ratio:.1f} times the usual"
            )
            grade = Grade.BAD if ratio > NOISY_BAD else Grade.POOR
            found.append(FrameFault(kind=FaultKind.SKY, grade=grade, words=words))
    return tuple(found)


def _star_count(
    look: FrameLook, usual: _Usual, known: Sequence[FrameFault], dimming_mag: float
) -> list[FrameFault]:
    """Return the fault of having few stars, named for the cause that the others tell."""
    n_usual = usual.few_stars.get(look.raw)
    n_stars = look.n_stars or 0
    if n_usual is None:
        return []
    grades = {fault.kind: fault.grade for fault in known}
    if FaultKind.CLOUD in grades:
        kind = FaultKind.CLOUD
    elif FaultKind.FOCUS in grades or FaultKind.TRAIL in grades:
        kind = FaultKind.FOCUS if FaultKind.FOCUS in grades else FaultKind.TRAIL
    elif grades.get(FaultKind.SKY) is Grade.BAD:
        kind = FaultKind.SKY
    elif np.isnan(dimming_mag):
        # where not even the brightest stars are found again, nothing but cloud is left
        kind = FaultKind.CLOUD
    else:
        kind = FaultKind.SKY if FaultKind.SKY in grades else FaultKind.STARS
    words = (
        f"few stars: {n_stars} of usually {n_usual}" if n_stars else f"no stars: usually {n_usual}"
    )
    if np.isnan(dimming_mag) and n_stars and look.n_matched == 0:
        words += ", none of the night's bright ones among them"
    grade = Grade.BAD if n_stars < FEW_STARS_BAD * n_usual else Grade.POOR
    return [FrameFault(kind=kind, grade=grade, words=words)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    """How a frame points: off the night's middle, and off the frames beside it (None: it fits)."""

    away_x_px: float
    away_y_px: float
    jump_px: float | None
    usual_px: float


class _Steps:
    """The pointing from frame to frame; `notes` name the moves that stay."""

    def __init__(self, used: Sequence[FrameLook], fwhm_px: float | None) -> None:
        self._steps: dict[int, _Step] = {}
        self.notes: list[str] = []
        known = [i for i, look in enumerate(used) if look.offset_x_px is not None]
        if len(known) < MIN_ALIKE:
            return
        x = np.array([used[i].offset_x_px for i in known], dtype=float)
        y = np.array([used[i].offset_y_px for i in known], dtype=float)
        step = np.hypot(np.diff(x), np.diff(y))
        usual = float(np.median(step))
        limit = max(JUMP_STEPS * usual, JUMP_FWHM * (fwhm_px or 0.0), LEAST_JUMP_PX)
        moved = []
        for place, index in enumerate(known):
            jump = None
            if 0 < place < len(known) - 1:
                before, after = step[place - 1], step[place]
                across = np.hypot(x[place + 1] - x[place - 1], y[place + 1] - y[place - 1])
                if min(before, after) > limit and across < 0.5 * min(before, after):
                    jump = float(min(before, after))
            self._steps[index] = _Step(
                away_x_px=float(abs(x[place] - np.median(x))),
                away_y_px=float(abs(y[place] - np.median(y))),
                jump_px=jump,
                usual_px=usual,
            )
        outliers = {place for place, i in enumerate(known) if self._steps[i].jump_px is not None}
        for place in np.flatnonzero(step > limit).tolist():
            if place not in outliers and place + 1 not in outliers:
                name = used[known[place + 1]].raw.rpartition("/")[2]
                moved.append(f"{step[place]:.0f} px before {name}")
        if moved:
            more = (
                f" and {len(moved) - MAX_STEPS_NAMED} more" if len(moved) > MAX_STEPS_NAMED else ""
            )
            named = ", ".join(moved[:MAX_STEPS_NAMED])
            self.notes.append(
                f"the pointing moves and stays there (usually {usual:.1f} px): {named}{more}"
            )

    def of(self, index: int) -> _Step | None:
        return self._steps.get(index)


def _pointing(step: _Step | None, width_px: int, height_px: int) -> FrameFault | None:
    if step is None:
        return None
    if step.away_x_px > 0.5 * width_px or step.away_y_px > 0.5 * height_px:
        away = float(np.hypot(step.away_x_px, step.away_y_px))
        words = f"points {away:.0f} px off: less than half of the night's field is on it"
        return FrameFault(kind=FaultKind.JUMP, grade=Grade.BAD, words=words)
    if step.jump_px is None:
        return None
    words = (
        f"tracking jump: points {step.jump_px:.0f} px off the frames before and after"
        f" (usually {step.usual_px:.1f} px from frame to frame)"
    )
    return FrameFault(kind=FaultKind.JUMP, grade=Grade.POOR, words=words)


def _is_gross(fault: FrameFault) -> bool:
    return fault.grade is Grade.BAD or fault.kind in {FaultKind.UNSOLVED, FaultKind.LOW}


def _softened(fault: FrameFault) -> FrameFault:
    """Return the fault as a short night allows to say it; the sky's saturation is no comparison."""
    if "of saturation" in fault.words:
        return fault
    return replace(fault, grade=Grade.POOR)


def _graded(look: FrameLook, found: Sequence[FrameFault], dimming_mag: float | None) -> FrameGrade:
    grades = {fault.grade for fault in found}
    grade = next((one for one in (Grade.BAD, Grade.POOR) if one in grades), Grade.GOOD)
    return FrameGrade(
        raw=look.raw,
        start_utc=look.start_utc,
        exposure_s=look.exposure_s,
        grade=grade,
        faults=tuple(found),
        used=look.left_out is None,
        n_stars=look.n_stars,
        fwhm_px=look.fwhm_px,
        axis_ratio=look.axis_ratio,
        sky_adu=look.sky_adu,
        sky_rms_adu=look.sky_rms_adu,
        dimming_mag=dimming_mag,
        n_matched=look.n_matched,
        offset_x_px=look.offset_x_px,
        offset_y_px=look.offset_y_px,
        altitude_deg=look.altitude_deg,
        airmass=look.airmass,
        solved=look.solved,
    )


def _scored(grades: Sequence[FrameGrade]) -> list[FrameGrade]:
    """Return the grades with the scores of the frames that are used.

    The weighted geometric mean of what each frame has of the night's best: a frame that lacks one
    thing is not made up for by another. What is not known of a frame does not count; without a
    zero point 1/airmass stands for the transparency.
    """
    used = [one for one in grades if one.used]
    if not used:
        return list(grades)
    transparency = 10 ** (-0.4 * _array(one.dimming_mag for one in used))
    if not np.isfinite(transparency).any():
        transparency = _of_best(1.0 / _array(one.airmass for one in used))
    # Background noise per second; of unequal exposures the longer has the better ratio.
    noise = _array(one.sky_rms_adu for one in used)
    exposure_s = _array(one.exposure_s for one in used)
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = {
            "transparency": transparency,
            "sharpness": _of_best(1.0 / _array(one.fwhm_px for one in used)),
            "stars": _of_best(_array(one.n_stars for one in used)),
            "background": _of_best(exposure_s / noise),
            "roundness": _of_best(_array(one.axis_ratio for one in used)),
        }
    total, weight = np.zeros(len(used)), np.zeros(len(used))
    for name, part in parts.items():
        known = np.isfinite(part)
        logarithm = np.log(np.clip(np.where(known, part, 1.0), 1e-6, 1.0))
        total += np.where(known, WEIGHTS[name] * logarithm, 0.0)
        weight += np.where(known, WEIGHTS[name], 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
        score = np.exp(total / weight)
    score_of = {
        one.raw: float(value) for one, value in zip(used, score, strict=True) if np.isfinite(value)
    }
    return [replace(one, score=score_of.get(one.raw)) for one in grades]


def _of_best(values: FloatArray) -> FloatArray:
    """Return values as a fraction of the night's best, its 95th percentile; at most 1."""
    finite = values[np.isfinite(values)]
    best = float(np.percentile(finite, 95)) if len(finite) else np.nan
    return np.minimum(values / best, 1.0) if best > 0 else np.full(len(values), np.nan)


def _night_notes(used: Sequence[FrameLook], usual: _Usual) -> list[str]:
    notes = []
    if 0 < len(used) < SHORT_NIGHT:
        notes.append(
            f"{len(used)} frames: too few to say what is usual, only gross faults are named"
        )
    if usual.axis_ratio is not None and usual.axis_ratio < ELONGATED_NIGHT:
        notes.append(f"stars elongated all night: axis ratio {usual.axis_ratio:.2f} in the median")
    if used and not any(look.solved for look in used):
        notes.append("no frame has a plate solution")
    return notes


def _median(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None and np.isfinite(value)]
    return float(np.median(known)) if known else None


def _array(values: Iterable[float | None]) -> FloatArray:
    return np.array([np.nan if value is None else value for value in values], dtype=float)
