"""What a plate solver is asked and what it answers. The solvers themselves have files of their own.

A solver never raises for a frame it cannot solve: it returns the reason, one of the words of
`Reason`. None of them may touch the science file: the request names a private copy.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from wombat_dagster.domain import Detections, StarTable, WcsSolution


class Reason(StrEnum):
    """Why a solver has no solution; ``rejected:<check>`` of the ladder comes on top of these."""

    NO_STARS = "no_stars"
    NO_DATABASE = "no_database"
    BAD_FILE = "bad_file"
    NO_MATCH = "no_match"
    TIMEOUT = "timeout"
    CRASHED = "crashed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A frame of the same night that is solved already."""

    solution: WcsSolution
    detections: Detections
    file: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SolveRequest:
    """One frame to solve, with everything known before.

    `file` is what the row in ``WCS`` is called; `image_path` a private, uncompressed, 2-D primary
    HDU that a program may read. `scale_tolerance` is relative: 0.05 for a header that says its
    scale, 0.2 when that is a guess. `ra_deg`, `dec_deg` are where the frame's centre should be.
    `header` are the raw frame's cards, as far as they can be read, for the solution that it may
    have brought along; their pixels must be those of the image (a trimmed one's CRPIX moved).
    """

    file: str
    image_path: Path
    width_px: int
    height_px: int
    scale_arcsec_px: float | None
    ra_deg: float | None
    dec_deg: float | None
    detections: Detections
    scale_tolerance: float = 0.05
    radius_deg: float = 5.0
    star_table: StarTable | None = None
    reference: Reference | None = None
    header: Mapping[str, str | bool | int | float] | None = None
    timeout_s: float = 60.0
    snr_min: float = 10.0

    @property
    def fov_deg(self) -> float | None:
        """Height of the image by the header's scale."""
        if self.scale_arcsec_px is None:
            return None
        return self.height_px * self.scale_arcsec_px / 3600.0

    @property
    def has_position(self) -> bool:
        """Whether anything says where the frame points."""
        return self.ra_deg is not None and self.dec_deg is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class RungOptions:
    """How hard and where one attempt searches; None: as the solver does by itself.

    `fov_deg` is the image height, 0 for "try all"; `tolerance` that of ASTAP's quads.
    """

    fov_deg: float | None = None
    radius_deg: float = 5.0
    max_stars: int | None = None
    tolerance: float | None = None
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SolveOutcome:
    """What one attempt came to: a solution, or the `reason` why not, and the evidence."""

    solver: str
    solution: WcsSolution | None = None
    reason: Reason | None = None
    message: str = ""
    solver_version: str | None = None
    database: str | None = None
    command: str | None = None
    exit_code: int | None = None
    n_stars: int | None = None
    n_quads: int | None = None
    n_matched: int | None = None
    n_expected: int | None = None
    rms_px: float | None = None
    rms_arcsec: float | None = None
    reference_file: str | None = None
    seconds: float | None = None


class Solver(Protocol):
    """A program or an algorithm that finds where a frame points."""

    @property
    def name(self) -> str:
        """Word for the column ``solver``."""

    @property
    def version(self) -> str | None:
        """Version as the solver reports it."""

    def solve(self, request: SolveRequest, options: RungOptions) -> SolveOutcome:
        """Try once; a frame without solution is an outcome with a reason, never an exception."""
