"""Judges the frames of an observation and what its headers say of time and place; reports on it.

What the frames show was seen when they were first looked at, so that only thumbnails need pixels.
Clouded and spoiled frames are named, never removed.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from wombat_dagster.domain import (
    FloatArray,
    FrameKind,
    FrameSolution,
    FrameTriage,
    Grade,
    HeaderClaims,
    NoCalibration,
    Observation,
    RawFrame,
    ReducedFrame,
    Reduction,
    Severity,
    Shortfall,
    Site,
    Variable,
)
from wombat_dagster.observatory import Observatory
from wombat_dagster.products import read_product
from wombat_dagster.reports.frames import Picture, frames_csv, frames_html, overview_png
from wombat_dagster.science import thumbnails, triage
from wombat_dagster.science.astrometry import sky
from wombat_dagster.science.audit import Target, audit
from wombat_dagster.science.site import choose_site
from wombat_dagster.science.timing import frame_times
from wombat_dagster.science.triage import FollowedStars, FrameLook
from wombat_dagster.solvers.patterns import shift_votes, similarities
from wombat_dagster.stages.pixels import CalibratedFrames
from wombat_dagster.store.arrays import KeptArrays, content_key
from wombat_dagster.store.disks import is_no_room
from wombat_dagster.store.frames import UnreadableFrame, read_header
from wombat_dagster.store.header_claims import header_claims
from wombat_dagster.store.tables import UnreadableProduct

log = logging.getLogger(__name__)

HTML, CSV, OVERVIEW = "frames.html", "frames.csv", "frames.png"
ASSET = "frame_triage"

VOTING_STARS = 50
TURNED_STARS = 20
MIN_TO_TURN = 8  # stars; fewer lie on one another in many ways
SCALE_RANGE = (0.98, 1.02)  # same telescope: focus and refraction change no more
MATCH_RADIUS_FWHM = 1.5
MIN_MATCH_RADIUS_PX = 4.0

THUMBNAIL_PX = 128
THUMBNAIL_RULES = "1"  # goes up when the same frame would be shown otherwise
MAX_THUMBNAILS = 300
FRAMES_FOR_SHAPE = 9  # that tell what the sky looks like on this night
STAMP_HALF_FWHM = 4.0  # of the star cut out of every frame
STAMP_HALF_RANGE_PX = (8, 20)
STAMP_EDGE_PX = 30.0
MAX_PEAK_OF_SATURATION = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class TriageReport:
    """The triage, and the files that show it to people and programs, by name."""

    triage: FrameTriage
    files: Mapping[str, bytes]


def triage_observation(
    observatory: Observatory, observation: Observation, reduction: Reduction
) -> TriageReport:
    """Return how fit every frame of an observation is, and what its times and place are worth.

    Never in the way of the observation: a triage that cannot be made says why, and grades nothing.
    """
    try:
        return make_triage(observatory, observation, reduction)
    except Exception as error:  # judging frames must not stop their measuring
        if is_no_room(error):
            raise
        log.exception("%s: frames not judged", observation.key)
        words = f"frames not judged: {type(error).__name__}: {error}"
        nothing = FrameTriage(
            key=observation.key, grades=(), findings=(), best_frame=None, usual={}, notes=(words,)
        )
        return _report(nothing, {})


def make_triage(
    observatory: Observatory, observation: Observation, reduction: Reduction
) -> TriageReport:
    """Return what `triage_observation` does; whatever goes wrong is raised.

    Solutions and the variable's place serve when they are there. A frame that cannot be read any
    more is bad for that reason.
    """
    solutions = _solutions(observatory, observation, reduction)
    raw = _frames(observatory, observation)
    night = _Night(observatory, observation, reduction, solutions, raw)
    target = _target(observatory, observation, reduction, solutions, raw)
    usable = [raw[frame.raw] for frame in reduction.frames if frame.raw in raw]
    configured = observatory.settings.site.site() if observatory.settings.site else None
    site, no_site = _site(configured, usable, target)
    looks = [*night.looks(site, target), *_left_out(reduction, raw)]
    looks.sort(key=lambda look: (look.start_utc or "", look.raw))
    group, facts = reduction.group, reduction.detector
    grades, usual, notes = triage.grade_frames(
        looks,
        width_px=group.width_px,
        height_px=group.height_px,
        saturation_adu=facts.saturation_adu.value,
    )
    findings = audit(
        usable,
        _claims(observatory, usable),
        configured=configured,
        target=target,
        no_site=no_site,
    )
    found = FrameTriage(
        key=observation.key,
        grades=grades,
        findings=findings,
        best_frame=triage.best_frame(grades),
        usual=usual,
        notes=notes,
    )
    log.info(
        "%s: %s frames good, %d poor, %d bad; %d warnings on time and place",
        observation.key,
        *(len(found.of_grade(grade)) for grade in Grade),
        sum(one.severity is Severity.WARNING for one in findings),
    )
    return _report(found, night.pictures(found))


def _report(found: FrameTriage, pictures: Mapping[str, Picture]) -> TriageReport:
    return TriageReport(
        triage=found,
        files={
            HTML: frames_html(found, pictures).encode(),
            CSV: frames_csv(found).encode(),
            OVERVIEW: overview_png(found, pictures),
        },
    )


def audit_words(observatory: Observatory, key: str) -> tuple[str, ...]:
    """Return the audit's warnings on an observation, for whoever judges its magnitudes.

    Nothing when it was not triaged: this is a help, no condition.
    """
    try:
        found: FrameTriage = read_product(observatory, ASSET, key)
    except (FileNotFoundError, UnreadableProduct, KeyError):
        return ()
    return tuple(
        f"time and site: {one.words}" for one in found.findings if one.severity is Severity.WARNING
    )


def _frames(observatory: Observatory, observation: Observation) -> dict[str, RawFrame]:
    """Return the light frames of an observation by path, with those that may have been of it.

    A frame that cannot be read has no filter, and so belongs to none of the target's observations.
    """
    nameless = [
        replace(frame, reason=f"{frame.reason} (its filter is not known)")
        for frame in observatory.status.night_frames(observation.date, FrameKind.LIGHT)
        if frame.target == observation.target and frame.filter is None and frame.reason is not None
    ]
    known = observatory.status.light_frames(observation)
    return {frame.path: frame for frame in (*nameless, *known)}


def _solutions(
    observatory: Observatory, observation: Observation, reduction: Reduction
) -> dict[str, FrameSolution]:
    """Return the plate solutions by raw path, of the pixels that were reduced; none if none."""
    try:
        found = read_product(observatory, "wcs_solutions", observation.key)
    except (FileNotFoundError, UnreadableProduct):
        return {}
    hashes = {frame.raw: frame.raw_hash for frame in reduction.frames}
    return {
        one.file: one
        for one in found
        if one.file in hashes and (one.raw_hash or "").startswith(hashes[one.file])
    }


def _target(
    observatory: Observatory,
    observation: Observation,
    reduction: Reduction,
    solutions: Mapping[str, FrameSolution],
    raw: Mapping[str, RawFrame],
) -> Target | None:
    """Return where the frames look: by variable, configuration, plate solution or header."""
    try:
        variable: Variable = read_product(observatory, "variable", observation.key)
        return Target(ra_deg=variable.ra_deg, dec_deg=variable.dec_deg, source=variable.name)
    except (FileNotFoundError, UnreadableProduct):
        pass
    configured = observatory.settings.for_target(observation.target)
    if configured and configured.ra_deg is not None and configured.dec_deg is not None:
        return Target(
            ra_deg=configured.ra_deg, dec_deg=configured.dec_deg, source="wombat.toml [[target]]"
        )
    group = reduction.group
    for one in solutions.values():
        if one.solution is not None:
            ra, dec = sky(one.solution, (group.width_px - 1) / 2, (group.height_px - 1) / 2)
            return Target(ra_deg=float(ra), dec_deg=float(dec), source="plate solution")
    for frame in reduction.frames:
        header = raw.get(frame.raw)
        if header and header.ra_hint_deg is not None and header.dec_hint_deg is not None:
            return Target(
                ra_deg=header.ra_hint_deg, dec_deg=header.dec_hint_deg, source="header's pointing"
            )
    return None


def _site(
    configured: Site | None, usable: Sequence[RawFrame], target: Target | None
) -> tuple[Site | None, str | None]:
    """Return the site that times are made for, or why there is none."""
    if target is None or not usable:
        return configured, None
    try:
        chosen = choose_site(
            configured,
            next((frame.site_hint for frame in usable if frame.site_hint), None),
            [frame.start_utc or "" for frame in usable],
            [frame.exposure_s or 0.0 for frame in usable],
            ra_deg=target.ra_deg,
            dec_deg=target.dec_deg,
            airmass_header=[frame.airmass_header for frame in usable],
        )
    except Shortfall as ending:
        return None, str(ending)
    return chosen, None


def _claims(observatory: Observatory, usable: Sequence[RawFrame]) -> list[HeaderClaims]:
    """Return what the headers of the first, the middle and the last frame say."""
    found = []
    for index in sorted({0, len(usable) // 2, len(usable) - 1}) if usable else []:
        frame = usable[index]
        try:
            header = read_header(observatory.layout.raw_path(frame.path))
        except UnreadableFrame as damage:
            log.warning("%s: %s", frame.path, damage)
            continue
        found.append(header_claims(header, frame.path))
    return found


def _left_out(reduction: Reduction, raw: Mapping[str, RawFrame]) -> Iterator[FrameLook]:
    reduced = {frame.raw for frame in reduction.frames}
    reasons = dict(reduction.left_out)
    for path, frame in raw.items():
        if path not in reduced:
            yield FrameLook(
                raw=path,
                start_utc=frame.start_utc,
                exposure_s=frame.exposure_s,
                left_out=reasons.get(path) or frame.reason or "came after the reduction",
            )


# --------------------------------------------------------------------- stars followed over a night


@dataclass(frozen=True, slots=True, kw_only=True)
class _Map:
    """Where a frame's pixels lie in the reference's, and back: by a similarity or by solutions."""

    there: Callable[[FloatArray, FloatArray], tuple[FloatArray, FloatArray]]
    back: Callable[[FloatArray, FloatArray], tuple[FloatArray, FloatArray]]


def _similarity(turn: complex, shift: complex) -> _Map:
    def there(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        moved = turn * (x + 1j * y) + shift
        return moved.real, moved.imag

    def back(x: FloatArray, y: FloatArray) -> tuple[FloatArray, FloatArray]:
        moved = (x + 1j * y - shift) / turn
        return moved.real, moved.imag

    return _Map(there=there, back=back)


@dataclass(slots=True, kw_only=True)
class _Frame:
    """What is gathered of one frame on the way."""

    frame: ReducedFrame
    look: FrameLook
    stars: FollowedStars | None
    solution: FrameSolution | None
    map: _Map | None = None
    magnitude: FloatArray | None = None


class _Night:
    """The frames of one observation; small tables only, whatever the length of the night."""

    def __init__(
        self,
        observatory: Observatory,
        observation: Observation,
        reduction: Reduction,
        solutions: Mapping[str, FrameSolution],
        raw: Mapping[str, RawFrame],
    ) -> None:
        self._reduction, self._group = reduction, reduction.group
        self._pixels = CalibratedFrames(observatory, observation, reduction)
        self._directory = observatory.layout.observation_dir(observation)
        self._any_solved = any(one.solution is not None for one in solutions.values())
        self._star: tuple[float, float] | None = None
        self._frames = [
            self._first(frame, solutions.get(frame.raw))
            for frame in reduction.frames
            if frame.raw in raw
        ]
        self._follow()

    def _first(self, frame: ReducedFrame, solution: FrameSolution | None) -> _Frame:
        look = FrameLook(raw=frame.raw, start_utc=frame.start_utc, exposure_s=frame.exposure_s)
        solved = solution is not None and solution.solution is not None
        if not solved and self._any_solved:
            reason = "" if solution is None else f"{solution.reason} {solution.message}".strip()
            look = replace(look, unsolved_words=reason or "no solution is known")
        try:
            stars = self._pixels.stars(frame)
        except (UnreadableFrame, NoCalibration, OSError) as error:
            return _Frame(
                frame=frame,
                look=replace(look, left_out=f"cannot be read again: {error}"),
                stars=None,
                solution=None,
            )
        n_stars, fwhm_px, axis_ratio = triage.summary(stars)
        return _Frame(
            frame=frame,
            look=replace(
                look,
                n_stars=n_stars,
                fwhm_px=fwhm_px,
                axis_ratio=axis_ratio,
                sky_adu=stars.sky_adu,
                sky_rms_adu=stars.sky_rms_adu,
                solved=solved,
            ),
            stars=triage.followed(stars, frame.exposure_s),
            solution=solution,
        )

    def _follow(self) -> None:
        """Find the stars of the frame that shows most of them on the others, outwards in time."""
        seen = [i for i, one in enumerate(self._frames) if one.stars is not None]
        if not seen:
            return
        usual_px = float(
            np.median([one.look.fwhm_px for one in self._frames if one.look.fwhm_px] or [0.0])
        )

        def worth(index: int) -> tuple[bool, int]:
            look = self._frames[index].look
            is_sharp = (look.fwhm_px or 0.0) < triage.WIDE_POOR * usual_px
            return (look.solved or not self._any_solved) and is_sharp, look.n_stars or 0

        first = max(seen, key=worth)
        self._reference = self._frames[first]
        self._radius_px = max(MIN_MATCH_RADIUS_PX, MATCH_RADIUS_FWHM * usual_px)
        reference = self._reference.stars
        assert reference is not None
        self._reference.map = _similarity(1.0 + 0j, 0j)
        self._reference.magnitude = reference.magnitude
        for way in (seen[seen.index(first) + 1 :], seen[: seen.index(first)][::-1]):
            beside = self._reference.map
            for index in way:
                one = self._frames[index]
                self._find(one, reference, beside)
                beside = one.map or beside
        magnitude = np.full((len(self._frames), len(reference)), np.nan)
        for row, one in zip(magnitude, self._frames, strict=True):
            if one.magnitude is not None:
                row[:] = one.magnitude
        zero_point = triage.relative_zero_points(magnitude)
        for one, value, row in zip(self._frames, zero_point, magnitude, strict=True):
            offset_x_px, offset_y_px = self._offset(one)
            one.look = replace(
                one.look,
                zero_point_mag=None if np.isnan(value) else float(value),
                n_matched=int(np.isfinite(row).sum()),
                offset_x_px=offset_x_px,
                offset_y_px=offset_y_px,
            )
        self._choose_star(magnitude)

    def _find(self, one: _Frame, reference: FollowedStars, beside: _Map) -> None:
        stars = one.stars
        assert stars is not None
        if (by_wcs := self._by_wcs(one)) is not None:
            one.map = by_wcs
            x, y = by_wcs.there(stars.x_px, stars.y_px)
            one.magnitude = triage.found_again(
                stars, x, y, reference, radius_px=self._radius_px, expected=True
            )
            return
        for expected, candidate in self._candidates(stars, reference, beside):
            x, y = candidate.there(stars.x_px, stars.y_px)
            found = triage.found_again(
                stars, x, y, reference, radius_px=self._radius_px, expected=expected
            )
            if found is not None:
                one.map, one.magnitude = candidate, found
                return

    def _by_wcs(self, one: _Frame) -> _Map | None:
        here = one.solution.solution if one.solution else None
        there = self._reference.solution.solution if self._reference.solution else None
        if here is None or there is None:
            return None
        return _Map(
            there=lambda x, y: triage.placed_by_wcs(here, there, x, y),
            back=lambda x, y: triage.placed_by_wcs(there, here, x, y),
        )

    def _candidates(
        self, stars: FollowedStars, reference: FollowedStars, beside: _Map
    ) -> Iterator[tuple[bool, _Map]]:
        """Yield where the frame may point, and whether that is expected: by its neighbour, or not.

        The neighbour's place is last: an exact one is better, but a cloud leaves nothing else.
        """
        shifts = shift_votes(
            stars.x_px[:VOTING_STARS],
            stars.y_px[:VOTING_STARS],
            reference.x_px[:VOTING_STARS],
            reference.y_px[:VOTING_STARS],
        )
        for dx, dy, _ in shifts:
            yield False, _similarity(1.0 + 0j, complex(dx, dy))
        if min(len(stars), len(reference)) >= MIN_TO_TURN:
            centre = complex(self._group.width_px - 1, self._group.height_px - 1) / 2
            turned = similarities(
                (stars.x_px + 1j * stars.y_px)[:TURNED_STARS] - centre,
                (reference.x_px + 1j * reference.y_px)[:TURNED_STARS] - centre,
                diagonal_px=2 * abs(centre),
                scale_range=SCALE_RANGE,
                centre_limit=0.8 * max(self._group.width_px, self._group.height_px),
                parities=(False,),
            )
            for one in turned:
                yield False, _similarity(one.turn, one.shift + centre - one.turn * centre)
        yield True, beside

    def _offset(self, one: _Frame) -> tuple[float | None, float | None]:
        """Return by how much the frame's centre lies off the reference's, in its pixels."""
        if one.map is None:
            return None, None
        x0, y0 = (self._group.width_px - 1) / 2, (self._group.height_px - 1) / 2
        x, y = one.map.there(np.array([x0]), np.array([y0]))
        return float(x[0] - x0), float(y[0] - y0)

    def looks(self, site: Site | None, target: Target | None) -> list[FrameLook]:
        """Return what is known of the frames, with their altitudes where site and target are."""
        looks = [one.look for one in self._frames]
        if site is None or target is None or not looks:
            return looks
        times = frame_times(
            [one.frame.start_utc for one in self._frames],
            [one.frame.exposure_s for one in self._frames],
            ra_deg=target.ra_deg,
            dec_deg=target.dec_deg,
            site=site,
        )
        return [
            replace(look, altitude_deg=float(altitude), airmass=float(mass) if mass > 0 else None)
            for look, altitude, mass in zip(looks, times.altitude_deg, times.airmass, strict=True)
        ]

    # -------------------------------------------------------------------------------- pictures

    def _choose_star(self, magnitude: FloatArray) -> None:
        """Choose the star that is cut out of every frame: bright, unsaturated, on most of them."""
        reference = self._reference
        stars = self._pixels.stars(reference.frame)
        seen = np.flatnonzero(stars.flux_adu > 0)[: triage.FOLLOWED_STARS]
        width, height = self._group.width_px, self._group.height_px
        x, y = stars.x_px[seen], stars.y_px[seen]
        limit = MAX_PEAK_OF_SATURATION * self._reduction.detector.saturation_adu.value
        fits = (
            (stars.peak_adu[seen] + stars.sky_adu < limit)
            & (np.minimum(x, width - x) > STAMP_EDGE_PX)
            & (np.minimum(y, height - y) > STAMP_EDGE_PX)
        )
        often = np.isfinite(magnitude).mean(axis=0)
        fits &= often >= 0.9 * often[fits].max() if fits.any() else fits
        if fits.any():
            best = int(np.flatnonzero(fits)[0])  # brightest first
            self._star = float(x[best]), float(y[best])

    def pictures(self, found: FrameTriage) -> dict[str, Picture]:
        """Return thumbnails by raw path, of at most 300 frames: the faulty ones come first."""
        frames = {one.frame.raw: one for one in self._frames if one.look.left_out is None}
        grades = [one for one in found.grades if one.raw in frames]
        chosen = _chosen([one.grade is not Grade.GOOD for one in grades], MAX_THUMBNAILS)
        shown = [frames[grades[i].raw] for i in chosen]
        blocks: dict[str, FloatArray] = {}
        stamps: dict[str, FloatArray] = {}
        kept = KeptArrays(self._directory / "thumbnails")
        keys = {one.frame.raw: self._thumbnail_key(one) for one in shown}
        try:
            new = [one for one in shown if kept.get(keys[one.frame.raw]) is None]
            stream = self._pixels.stream([one.frame for one in new])
            for one, (image, _) in zip(new, stream, strict=True):
                stamp = self._stamp(one, image)
                kept.put(
                    keys[one.frame.raw],
                    {
                        "frame": thumbnails.block_means(image, THUMBNAIL_PX).astype(np.float32),
                        **({} if stamp is None else {"star": stamp}),
                    },
                )
        except (UnreadableFrame, NoCalibration, OSError) as error:
            if is_no_room(error):
                raise
            log.warning("%s: no more thumbnails: %s", found.key, error)
        for one in shown:
            if (arrays := kept.get(keys[one.frame.raw])) is not None:
                blocks[one.frame.raw] = arrays["frame"]
                if "star" in arrays:
                    stamps[one.frame.raw] = arrays["star"]
        kept.remove_others()
        if not blocks:
            return {}
        every = max(1, len(blocks) // FRAMES_FOR_SHAPE)
        shape = thumbnails.shape_of_sky(list(blocks.values())[::every][:FRAMES_FOR_SHAPE])
        level = {raw: thumbnails.levelled(one, shape) for raw, one in blocks.items()}
        noise_adu = float(np.median([thumbnails.noise_of(one) for one in level.values()]))
        sky_adu = found.usual.get("sky_adu")
        return {
            raw: Picture(
                frame=thumbnails.stretched(
                    one, noise_adu=noise_adu, sky_of_usual=self._sky_of_usual(frames[raw], sky_adu)
                ),
                star=thumbnails.star_greys(stamps[raw]) if raw in stamps else None,
            )
            for raw, one in level.items()
        }

    def _sky_of_usual(self, one: _Frame, usual_adu: float | None) -> float | None:
        if usual_adu is None or not usual_adu > 0 or one.look.sky_adu is None:
            return None
        return one.look.sky_adu / usual_adu

    def _thumbnail_key(self, one: _Frame) -> str:
        """Return what a frame's thumbnail depends on."""
        place = self._star_on(one)
        rounded = None if place is None else [round(x, 1) for x in place]
        return content_key(THUMBNAIL_RULES, THUMBNAIL_PX, self._pixels.key(one.frame), rounded)

    def _star_on(self, one: _Frame) -> tuple[float, float, int] | None:
        """Return where the star of the stamps is on a frame, and half the side of its stamp."""
        if self._star is None or one.map is None:
            return None
        x, y = one.map.back(np.array([self._star[0]]), np.array([self._star[1]]))
        fwhm_px = self._reference.look.fwhm_px or STAMP_HALF_RANGE_PX[0] / STAMP_HALF_FWHM
        half = int(np.clip(round(STAMP_HALF_FWHM * fwhm_px), *STAMP_HALF_RANGE_PX))
        return float(x[0]), float(y[0]), half

    def _stamp(self, one: _Frame, image: NDArray) -> FloatArray | None:
        place = self._star_on(one)
        return None if place is None else thumbnails.stamp(image, *place)


def _chosen(is_faulty: Sequence[bool], most: int) -> list[int]:
    """Return which frames to show: all if they are few, else faulty ones for half of the places."""
    if len(is_faulty) <= most:
        return list(range(len(is_faulty)))
    faulty = np.flatnonzero(is_faulty)
    good = np.flatnonzero(~np.array(is_faulty, dtype=bool))
    n_faulty = min(len(faulty), max(most // 2, most - len(good)))
    picks = [
        group[np.unique(np.linspace(0, len(group) - 1, n).astype(int))]
        for group, n in ((faulty, n_faulty), (good, most - n_faulty))
        if n and len(group)
    ]
    return sorted(int(i) for i in np.concatenate(picks))
