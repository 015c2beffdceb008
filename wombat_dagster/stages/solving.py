"""Finds where every frame of an observation points, and writes it into the reduced frames.

The solvers are in `solvers`, the detection in `science`; here they meet files and the database.
"""

import datetime as dt
import logging
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from wombat_dagster.domain import (
    Detections,
    FrameSolution,
    NoWcs,
    Observation,
    RawFrame,
    ReducedFrame,
    Reduction,
    SolveStatus,
    StarTable,
    UnknownVariable,
    WcsSolution,
)
from wombat_dagster.observatory import Observatory
from wombat_dagster.products import read_product
from wombat_dagster.science import overscan
from wombat_dagster.science.astrometry import parallactic_angle_deg, separation_deg, sky
from wombat_dagster.solvers.base import Reason, Reference, SolveRequest
from wombat_dagster.solvers.catalogue import CatalogueSolver
from wombat_dagster.solvers.existing import HeaderSolver
from wombat_dagster.solvers.ladder import (
    ROTATION_TOLERANCE_DEG,
    Patience,
    first_good_frame,
    propagate_frame,
    solve_frame,
    with_analysis,
)
from wombat_dagster.stages.calibrator import look_path
from wombat_dagster.stages.pixels import CalibratedFrames, in_order
from wombat_dagster.store import headers
from wombat_dagster.store.arrays import content_key
from wombat_dagster.store.frames import UnreadableFrame, read_header
from wombat_dagster.store.tables import UnreadableProduct

log = logging.getLogger(__name__)

JD_OF_ORDINAL_0 = 1721424.5
SCALE_TOLERANCE = 0.05
TABLE_RADIUS_DIAGONALS = 1.5  # the header may point half a frame off
TABLE_RADIUS_UNKNOWN_SCALE_DEG = 5.0
# Where so many frames, the best first, had no solution and none had one, the others are only tried
# in the ways that take a second: the slow ones take half a minute a frame.
HOPELESS_FRAMES = 2
MAX_TABLE_RADIUS_DEG = 90.0
MAX_TABLE_STARS = 4000
GOOD_FRAME_CANDIDATES = 100  # frames looked at to choose the one solved in full
NO_IMAGE = Path(os.devnull)  # who carries a solution over reads no pixels
KEPT_DETECTIONS = GOOD_FRAME_CANDIDATES  # so that memory does not grow with the night


def solve_observation(
    observatory: Observatory, observation: Observation, reduction: Reduction
) -> tuple[FrameSolution, ...]:
    """Solve every reduced frame, in time order, and write rows of ``WCS`` and header cards.

    A frame solved before, with the same calibrated pixels, is not solved again.

    Raises
    ------
    NoWcs
        Not one frame could be solved.
    VsxUnavailable
        The headers say no position and VSX, which knows the target's, is away.
    """
    night = _Night(observatory, observation, reduction)
    solved = night.solve()
    _record(observatory, observation, reduction, solved)
    if all(s.solution is None for s in solved) and night.asks_vsx():
        solved = night.solve_around_target()
        _record(observatory, observation, reduction, solved)
    unsolved = [s for s in solved if s.solution is None]
    if len(unsolved) == len(solved):
        raise NoWcs(not_solved_words(unsolved))
    return solved


def not_solved_words(unsolved: Sequence[FrameSolution]) -> str:
    """Return what an observation without one solved frame says, the commonest reason first.

    As in ``0 of 5 frames solved (no_match 3, timeout 2); solve-field: no pattern fits``.
    """
    reasons = Counter(str(one.reason) for one in unsolved)
    words = ", ".join(f"{reason} {n}" for reason, n in reasons.most_common())
    commonest = next(iter(reasons.most_common(1)))[0]
    told = next((one for one in unsolved if str(one.reason) == commonest and one.message), None)
    remark = "" if told is None else f"; {_with_its_solver(told)}"
    return f"0 of {len(unsolved)} frames solved ({words}){remark}"


def _with_its_solver(one: FrameSolution) -> str:
    """Return a frame's message with the name of the program whose words are at its end."""
    last = next((a.message for a in reversed(one.attempts) if a.outcome == one.reason), "")
    if one.solver is None or not last or not one.message.endswith(last):
        return one.message
    return f"{one.message.removesuffix(last)}{one.solver}: {last}"


def _record(
    observatory: Observatory,
    observation: Observation,
    reduction: Reduction,
    solved: tuple[FrameSolution, ...],
) -> None:
    """Write the solutions into the reduced frames' headers and into ``WCS``.

    What an earlier run found of a frame that now has none is taken out.
    """
    width, height = reduction.group.width_px, reduction.group.height_px
    pixels = CalibratedFrames(observatory, observation, reduction)
    centres = {}

    def write(record: FrameSolution, frame: ReducedFrame) -> None:
        found = record.solution
        pixels.write_solution(frame, {} if found is None else found.header_cards())

    for record, _ in zip(solved, in_order(write, solved, reduction.frames), strict=True):
        if record.solution is not None:
            ra, dec = sky(record.solution, (width - 1) / 2, (height - 1) / 2)
            centres[record.file] = (float(ra), float(dec))
    observatory.status.record_solutions(observation, solved, centres=centres)


class _Night:
    """The frames of one observation on their way to solutions."""

    def __init__(
        self, observatory: Observatory, observation: Observation, reduction: Reduction
    ) -> None:
        self._observatory, self._observation = observatory, observation
        self._reduction = reduction
        self._frames = reduction.frames
        self._pixels = CalibratedFrames(observatory, observation, reduction)
        self._raw = {f.path: f for f in observatory.status.light_frames(observation)}
        self._solutions: dict[int, FrameSolution] = self._known()
        self._detections: dict[int, Detections] = {}
        self._trust_headers = True
        self._position = self._fallback_position()
        self._n_failed_in_full = 0
        self._patience = Patience()
        self._centre: tuple[float, float] | None = None  # of the table's stars
        self._table = self._star_table()
        self._embedded = CatalogueSolver(observatory.stars_around)

    def _known(self) -> dict[int, FrameSolution]:
        """Return the solutions that an earlier run found for the same pixels."""
        try:
            before = read_product(self._observatory, "wcs_solutions", self._observation.key)
        except (FileNotFoundError, UnreadableProduct):
            return {}
        by_pixels = {s.raw_hash: s for s in before if s.solution is not None and s.raw_hash}
        return {
            i: replace(by_pixels[key], file=frame.raw)
            for i, frame in enumerate(self._frames)
            if (key := self._pixels_key(frame)) in by_pixels
        }

    def _pixels_key(self, frame: ReducedFrame) -> str:
        """Return what is the same for the same calibrated pixels, solved in the same way."""
        raw, choice = self._raw[frame.raw], self._reduction.choice
        look = look_path(self._observatory, self._observation, choice, raw)
        settings = self._observatory.settings.solve
        how = content_key(settings.mode, settings.snr_min, settings.radius_deg, self._scale(raw))
        return f"{frame.raw_hash} {look.stem} {how[:8]}"

    def _fallback_position(self) -> tuple[float, float] | None:
        """Return the target's place when a frame's header names none."""
        if all(self._raw[f.raw].ra_hint_deg is not None for f in self._frames):
            return None
        if len(self._solutions) == len(self._frames):
            return None
        return self._target_position()

    def _target_position(self) -> tuple[float, float] | None:
        """Return where the target is, by configuration or VSX; None when VSX has no such star."""
        target = self._observatory.settings.for_target(self._observation.target)
        if target is not None and target.ra_deg is not None and target.dec_deg is not None:
            return target.ra_deg, target.dec_deg
        try:
            variable = self._observatory.vsx.variable(self._observation.target, target)
        except UnknownVariable as unknown:
            log.warning("no position to be had: %s", unknown)
            return None
        return variable.ra_deg, variable.dec_deg

    def _hints(self, raw: RawFrame) -> tuple[float | None, float | None]:
        hinted = raw.ra_hint_deg is not None and raw.dec_hint_deg is not None
        if hinted and self._trust_headers:
            return raw.ra_hint_deg, raw.dec_hint_deg
        return self._position or (None, None)

    def _scale(self, raw: RawFrame) -> float | None:
        configured = self._observatory.settings.for_camera(
            self._reduction.group.camera
        ).pixel_scale_arcsec
        return configured or raw.scale_hint_arcsec_px

    def _star_table(self) -> StarTable | None:
        raw = self._raw[self._frames[0].raw]
        ra_deg, dec_deg = self._hints(raw)
        if ra_deg is None or dec_deg is None or len(self._solutions) == len(self._frames):
            return None
        self._centre = (ra_deg, dec_deg)
        return self._stars_around(ra_deg, dec_deg, self._scale(raw))

    def _stars_around(
        self, ra_deg: float, dec_deg: float, scale_arcsec_px: float | None
    ) -> StarTable | None:
        radius_deg = TABLE_RADIUS_UNKNOWN_SCALE_DEG
        if scale_arcsec_px is not None:
            radius_deg = TABLE_RADIUS_DIAGONALS * self._diagonal_deg(scale_arcsec_px)
        radius_deg = min(radius_deg, MAX_TABLE_RADIUS_DEG)
        try:
            return self._observatory.stars_around(
                ra_deg, dec_deg, radius_deg, max_stars=MAX_TABLE_STARS
            )
        except ValueError as damage:
            log.warning("the star table cannot be used: %s", damage)
            return None

    def _diagonal_deg(self, scale_arcsec_px: float) -> float:
        group = self._reduction.group
        return float(np.hypot(group.width_px, group.height_px)) * scale_arcsec_px / 3600

    def _stars(self, index: int) -> Detections:
        if index not in self._detections:
            if len(self._detections) >= KEPT_DETECTIONS:
                del self._detections[next(iter(self._detections))]  # the oldest
            self._detections[index] = self._pixels.stars(self._frames[index])
        return self._detections[index]

    def _request(self, index: int, reference: Reference | None, image: Path) -> SolveRequest:
        frame = self._frames[index]
        raw = self._raw[frame.raw]
        ra_deg, dec_deg = self._hints(raw)
        settings = self._observatory.settings
        return SolveRequest(
            file=frame.raw,
            image_path=image,
            width_px=self._reduction.group.width_px,
            height_px=self._reduction.group.height_px,
            scale_arcsec_px=self._scale(raw),
            scale_tolerance=SCALE_TOLERANCE,
            ra_deg=ra_deg,
            dec_deg=dec_deg,
            radius_deg=settings.solve.radius_deg,
            detections=self._stars(index),
            star_table=self._table,
            reference=reference,
            timeout_s=settings.astap.timeout_s,
            snr_min=settings.solve.snr_min,
        )

    def _raw_cards(self, raw: RawFrame) -> dict[str, str | bool | int | float]:
        """Return the raw header's cards, for the solution that may stand there.

        Their pixels are those of the trimmed frame.
        """
        try:
            header = read_header(self._observatory.layout.raw_path(raw.path))
        except UnreadableFrame:
            return {}
        cards = {
            keyword: value
            for keyword in header
            if keyword and (value := headers.card_value(header, keyword)) is not None
        }
        if raw.trim is not None:
            rows, columns = overscan.window_of(raw.trim, (header["NAXIS2"], header["NAXIS1"]))
            for keyword, start in (("CRPIX1", columns.start), ("CRPIX2", rows.start)):
                place = headers.as_number(cards.get(keyword))
                if place is not None:
                    cards[keyword] = place - start
        return cards

    def solve(self) -> tuple[FrameSolution, ...]:
        """Return one record per frame, in time order.

        In mode auto a good frame is solved in full, then its neighbours outwards in time, so that
        each is propagated from the one beside it.
        """
        todo = [i for i in range(len(self._frames)) if i not in self._solutions]
        if todo and self._is_auto and not self._solutions:
            candidates = todo[:GOOD_FRAME_CANDIDATES]
            best = first_good_frame([self._stars(i) for i in candidates])
            if best is not None:
                first = candidates[best]
                self._solve_in_full(first)
                todo = [i for i in todo if i > first] + [i for i in reversed(todo) if i < first]
        alone = []
        for index in todo:
            if self._reference(index) is None:
                alone.append(index)
            self._solve_one(index)
        # Those tried before there was anything to propagate from get that chance now.
        for index in alone:
            if self._solutions[index].solution is None:
                self._propagate(index)
        n_solved = sum(s.solution is not None for s in self._solutions.values())
        log.info("%s: %d of %d frames solved", self._observation.key, n_solved, len(self._frames))
        return tuple(
            replace(self._solutions[i], raw_hash=self._pixels_key(frame))
            for i, frame in enumerate(self._frames)
        )

    def asks_vsx(self) -> bool:
        """Tell whether a failure is worth another try around the target's own position.

        A header that names no scale does not deserve to be believed about the position either.
        """
        return self._position is None and any(
            self._scale(self._raw[frame.raw]) is None for frame in self._frames
        )

    def solve_around_target(self) -> tuple[FrameSolution, ...]:
        """Solve again, every frame hinted at where the target is. Raises VsxUnavailable."""
        position = self._target_position()
        if position is not None:
            self._position, self._trust_headers = position, False
            self._n_failed_in_full = 0
            self._solutions.clear()
            self._table = self._star_table()
        return self.solve()

    @property
    def _is_auto(self) -> bool:
        return self._observatory.settings.solve.mode == "auto"

    def _solve_one(self, index: int) -> None:
        if not (self._is_auto and self._propagate(index)):
            self._solve_in_full(index)

    def _propagate(self, index: int) -> bool:
        """Carry the nearest frame's solution over; False, and nothing noted, when that fails."""
        reference = self._reference(index)
        if reference is None:
            return False
        carried = propagate_frame(
            self._request(index, reference, NO_IMAGE),
            reference,
            rotation_tolerance_deg=self._rotation_tolerance_deg(index),
        )
        if carried.solution is None:
            return False
        self._solutions[index] = self._with_fov(carried)
        return True

    def _solve_in_full(self, index: int) -> None:
        """Solve a frame by its own pixels; one whose pixels are gone is unsolved for that."""
        gone = self._pixels.why_gone(self._frames[index])
        if gone is not None:
            self._solutions[index] = FrameSolution(
                file=self._frames[index].raw,
                status=SolveStatus.FAILED,
                solution=None,
                reason=str(Reason.BAD_FILE),
                message=gone,
            )
            return
        observatory, raw = self._observatory, self._raw[self._frames[index].raw]
        with self._pixels.file(self._frames[index]) as image:
            request = self._request(index, self._reference(index), image)
            request = replace(request, header=self._raw_cards(raw))
            astap = observatory.astap
            hopeful = self._n_failed_in_full < HOPELESS_FRAMES or self._is_any_solved
            solved = solve_frame(
                request,
                astap=astap,
                embedded=self._embedded if hopeful else None,
                solve_field=observatory.solve_field if hopeful else None,
                header=HeaderSolver(),
                stars=observatory.stars_around,
                blind=observatory.settings.solve.blind and hopeful,
                rotation_tolerance_deg=self._rotation_tolerance_deg(index),
                patience=self._patience,
            )
            if astap is not None:
                analysis = self._patience.analysis(astap, request.image_path, request.snr_min)
                solved = with_analysis(solved, analysis, request.snr_min)
        self._solutions[index] = self._with_fov(solved)
        if solved.solution is None:
            self._n_failed_in_full += 1
        else:
            self._follow(solved.solution)

    @property
    def _is_any_solved(self) -> bool:
        return any(s.solution is not None for s in self._solutions.values())

    def _follow(self, solution: WcsSolution) -> None:
        """Take the stars around where a frame is, should the header have said another place."""
        group = self._reduction.group
        ra, dec = sky(solution, (group.width_px - 1) / 2, (group.height_px - 1) / 2)
        here = (float(ra), float(dec))
        diagonal_deg = self._diagonal_deg(solution.scale_arcsec_px)
        if self._centre is not None:
            away_deg = float(separation_deg(*here, *self._centre))
            if away_deg < diagonal_deg / 2 and self._table is not None:
                return
        self._centre = here
        self._table = self._stars_around(*here, solution.scale_arcsec_px)

    def _with_fov(self, solved: FrameSolution) -> FrameSolution:
        if solved.solution is None:
            return solved
        height_deg = solved.solution.scale_y_arcsec_px * self._reduction.group.height_px / 3600
        return replace(solved, fov_used_deg=height_deg)

    def _nearest_solved(self, index: int) -> int | None:
        """Return the solved frame nearest in time, None when there is none yet."""
        solved = [i for i, s in self._solutions.items() if s.solution is not None]
        return min(solved, key=lambda i: abs(i - index), default=None)

    def _rotation_tolerance_deg(self, index: int) -> float:
        """Return how far a frame may be turned against the nearest solved one.

        On a mount without a third axis the field has turned in between: by how much, the site
        tells. Where that is not known, only a mount that follows the sky is expected.
        """
        nearest = self._nearest_solved(index)
        configured = self._observatory.settings.site
        site = configured.site() if configured else self._frames[index].site_hint
        if nearest is None or site is None:
            return ROTATION_TOLERANCE_DEG
        solution = self._solutions[nearest].solution
        assert solution is not None
        here_deg, there_deg = parallactic_angle_deg(
            [_jd_utc(self._frames[i]) for i in (index, nearest)],
            site,
            solution.ra_deg,
            solution.dec_deg,
        )
        turned_deg = abs((here_deg - there_deg + 180.0) % 360.0 - 180.0)
        return ROTATION_TOLERANCE_DEG + float(turned_deg)

    def _reference(self, index: int) -> Reference | None:
        """Return the solved frame nearest in time, None when there is none yet."""
        nearest = self._nearest_solved(index)
        if nearest is None:
            return None
        record = self._solutions[nearest]
        assert record.solution is not None
        assert record.status in (SolveStatus.SOLVED, SolveStatus.PROPAGATED)
        return Reference(
            solution=record.solution, detections=self._stars(nearest), file=record.file
        )


def _jd_utc(frame: ReducedFrame) -> float:
    """Return the Julian date at mid-exposure."""
    start = dt.datetime.fromisoformat(frame.start_utc)
    into_day = start - start.replace(hour=0, minute=0, second=0, microsecond=0)
    seconds = into_day.total_seconds() + frame.exposure_s / 2
    return start.toordinal() + JD_OF_ORDINAL_0 + seconds / 86400.0
