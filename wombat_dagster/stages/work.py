"""The words for what is to be done: jobs, reasons. What is due, `due` finds out."""

from dataclasses import dataclass
from enum import StrEnum

NIGHT_JOB = "night_job"
OBSERVATION_JOB = "observation_job"
STARS_JOB = "stars_job"
"""From the variable on: what was reduced and solved stays."""
MAGNITUDES_JOB = "magnitudes_job"
TRIAGE_JOB = "triage_job"
REPORT_JOB = "report_job"

WHY_TAG = "wombat/why"
"""Tag of a run: why it was asked for."""
MAX_TAG = 200  # characters of it: tags are shown in lists


class Why(StrEnum):
    """Why something is to be done; reaches people."""

    NEW = "new"
    FILES = "files changed"
    INTERRUPTED = "interrupted"
    GONE = "a product is gone"
    RESET = "set to not done"
    FAILED = "failed before"
    LATE_FRAMES = "light frames changed"
    MASTERS = "other masters"
    MASTER_REPLACED = "masters replaced"
    SOLVER = "plate solver changed"
    SETTINGS = "wombat.toml changed"
    CHOICES = "comps chosen by a person"
    CHART = "chart revised"
    SIBLING = "another filter or other coefficients"
    AGAIN = "asked again daily"


NEW_ON_DISK = frozenset(
    {Why.NEW, Why.FILES, Why.INTERRUPTED, Why.GONE, Why.RESET, Why.FAILED, Why.LATE_FRAMES}
)
"""Reasons that the data sensor acts on; the recalibration sensor acts on the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """One thing to do: `job` for the partition `key`. `signature` is new when the reason is."""

    job: str
    key: str
    why: Why
    words: str
    signature: str

    @property
    def reason(self) -> str:
        """``other masters: masters (calibration_choice)``."""
        return f"{self.why}: {self.words}"
