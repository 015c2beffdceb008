"""Assets of a night: what lies on disk, and its master frames."""

import datetime as dt
from collections.abc import Iterator
from typing import Any

import dagster as dg

from wombat_dagster.assets.conclude import Event, conclude
from wombat_dagster.checks import check_specs
from wombat_dagster.domain import FrameKind, Master, RawFrame
from wombat_dagster.partitions import NIGHTS
from wombat_dagster.resources import ObservatoryResource
from wombat_dagster.stages.nights import organise_night

CALIBRATION = "calibration"


def _night(context: dg.AssetExecutionContext) -> dt.date:
    return dt.datetime.strptime(context.partition_key, "%Y%m%d").date()  # noqa: DTZ007 - a date


@dg.asset(
    partitions_def=NIGHTS,
    group_name=CALIBRATION,
    output_required=False,
    check_specs=check_specs("raw_frames"),
)
def raw_frames(
    context: dg.AssetExecutionContext, observatory: ObservatoryResource
) -> Iterator[Event]:
    """What lies on disk for the night; flats of several filters are sorted first."""

    def describe(frames: tuple[RawFrame, ...]) -> dict[str, Any]:
        refused = [f"{frame.path}: {frame.reason}" for frame in frames if frame.reason]
        usable = {
            kind.value: sum(f.kind is kind and f.reason is None for f in frames)
            for kind in FrameKind
        }
        return {**usable, "quarantined": len(refused), "reasons": dg.MetadataValue.json(refused)}

    opened = observatory.open()
    yield from conclude(context, opened, lambda: organise_night(opened, _night(context)), describe)


def _number(value: float | None, factor: float = 1.0) -> str:
    return "not known" if value is None else f"{factor * value:.4g}"


def _describe_masters(masters: tuple[Master, ...]) -> dict[str, Any]:
    rows = [
        dg.TableRecord(
            {
                "file": master.path,
                "used": master.n_used,
                "refused": master.n_refused,
                "rejected_percent": _number(master.rejected_fraction, 100.0),
                "read_noise_adu": _number(master.read_noise_adu),
                "gain_e_adu": _number(master.gain_e_adu),
                "made_by_us": master.made_by_us,
            }
        )
        for master in masters
    ]
    return {"masters": dg.MetadataValue.table(rows)} if rows else {}


def _master_asset(name: str, kind: FrameKind, *, priority: int, words: str) -> dg.AssetsDefinition:
    @dg.asset(
        name=name,
        # Darks want the night's bias and flats both; a dependency would skip them without.
        op_tags={"dagster/priority": str(priority)},
        description=words,
        partitions_def=NIGHTS,
        group_name=CALIBRATION,
        deps=[raw_frames],
        output_required=False,
        check_specs=check_specs(name),
    )
    def master(
        context: dg.AssetExecutionContext, observatory: ObservatoryResource
    ) -> Iterator[Event]:
        from wombat_dagster.stages.masters import make_masters

        opened = observatory.open()
        yield from conclude(
            context,
            opened,
            lambda: make_masters(opened, _night(context), kind),
            _describe_masters,
        )

    return master


master_bias = _master_asset(
    "master_bias", FrameKind.BIAS, priority=3, words="Clipped median of the night's biases."
)
master_darks = _master_asset(
    "master_darks",
    FrameKind.DARK,
    priority=2,
    words="Clipped median of the night's darks, one per exposure time, without bias if possible.",
)
master_flats = _master_asset(
    "master_flats",
    FrameKind.FLAT,
    priority=1,
    words="Clipped median of the night's flats, one per filter, with median 1 in the central half.",
)
