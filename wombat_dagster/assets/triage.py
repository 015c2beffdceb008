"""The asset that says how fit an observation's frames are, and whether time and place can be right.

Nothing depends on it: frames are flagged here, never removed.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from wombat_dagster.assets.conclude import Event, conclude
from wombat_dagster.assets.pictures import picture
from wombat_dagster.checks import check_specs
from wombat_dagster.domain import Finding, FrameGrade, Grade, Reduction
from wombat_dagster.partitions import OBSERVATIONS
from wombat_dagster.resources import ObservatoryResource

MAX_ROWS = 100  # of the table in the metadata; the file has them all


def _table(flagged: list[FrameGrade]) -> dg.TableMetadataValue | str:
    if not flagged:
        return "none"
    return dg.MetadataValue.table(
        [
            dg.TableRecord({"frame": one.raw, "grade": str(one.grade), "why": one.words})
            for one in flagged[:MAX_ROWS]
        ]
    )


def _findings(findings: tuple[Finding, ...]) -> list[str]:
    return [f"{one.severity}: {one.words}" for one in findings]


@dg.asset(
    # After the solutions and the variable, which it uses if there are any (a dependency would skip
    # it without), and before the photometry, which passes its warnings on.
    op_tags={"dagster/priority": "1"},
    partitions_def=OBSERVATIONS,
    group_name="photometry",
    output_required=False,
    check_specs=check_specs("frame_triage"),
)
def frame_triage(
    context: dg.AssetExecutionContext,
    observatory: ObservatoryResource,
    reduced_frames: Reduction,
) -> Iterator[Event]:
    """Each frame good, poor or bad with the reason; what speaks against the times and the site."""
    from wombat_dagster.stages.triage import HTML, OVERVIEW, TriageReport, triage_observation

    opened = observatory.open()
    observation = opened.status.target_row(context.partition_key).observation

    def describe(report: TriageReport) -> dict[str, Any]:
        found = report.triage
        return {
            **{str(grade): len(found.of_grade(grade)) for grade in Grade},
            "best_frame": found.best_frame or "none",
            "flagged": _table([one for one in found.grades if one.used and one.faults]),
            "time_and_site": dg.MetadataValue.json(_findings(found.findings)),
            "notes": dg.MetadataValue.json(list(found.notes)),
            "overview": picture(report.files[OVERVIEW], "frames of the night"),
            "page": dg.MetadataValue.path(str(opened.layout.product_path(observation, HTML))),
        }

    yield from conclude(
        context,
        opened,
        lambda: triage_observation(opened, observation, reduced_frames),
        describe,
    )
