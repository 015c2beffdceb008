"""The report to the AAVSO of one observation, made when a person materialises it."""

from collections.abc import Iterator

import dagster as dg

from wombat_dagster.partitions import OBSERVATIONS
from wombat_dagster.resources import ObservatoryResource


@dg.asset(
    partitions_def=OBSERVATIONS,
    group_name="report",
    deps=["standard_magnitudes"],
    output_required=False,
)
def aavso_report(
    context: dg.AssetExecutionContext, observatory: ObservatoryResource
) -> Iterator[dg.MaterializeResult | dg.AssetObservation]:
    """What is new of an approved observation, as a file for the AAVSO; on a person's wish alone."""
    from wombat_dagster.stages.decisions import Refusal, who_decides
    from wombat_dagster.stages.report import UPLOAD_URL, export

    opened, key = observatory.open(), context.partition_key
    try:
        done = export(opened, [key], who=who_decides(opened.settings))
        words = [why for one in done.refused for why in one.refused] or ["nothing new to report"]
    except Refusal as refusal:
        done, words = None, [str(refusal)]
    if done is None or not done.files:
        context.log.warning("%s: %s", key, "; ".join(words))
        yield dg.AssetObservation(
            asset_key=context.asset_key,
            partition=key,
            description="; ".join(words),
            metadata={"reason": "; ".join(words)},
        )
        return
    (file,) = done.files
    yield dg.MaterializeResult(
        metadata={
            "file": dg.MetadataValue.path(str(file.path)),
            "lines": file.n_lines,
            "upload": dg.MetadataValue.url(UPLOAD_URL),
            "then": f"wombat submitted {file.path.name}",
            "warnings": dg.MetadataValue.json([one.words for one in file.warnings]),
        }
    )
