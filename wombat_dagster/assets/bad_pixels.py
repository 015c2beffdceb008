"""Asset of a night: its maps of bad pixels."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from wombat_dagster.assets.conclude import Event, conclude
from wombat_dagster.assets.pictures import picture
from wombat_dagster.checks import check_specs
from wombat_dagster.domain import BadPixelMap
from wombat_dagster.partitions import NIGHTS, date_of_night
from wombat_dagster.resources import ObservatoryResource

CALIBRATION = "calibration"
LEGEND = "red: hot; blue: dead or odd; violet: noisy; orange: seen in the lights only"


@dg.asset(
    # After the masters, which it uses if there are any; a dependency would skip it without.
    op_tags={"dagster/priority": "0"},
    partitions_def=NIGHTS,
    group_name=CALIBRATION,
    deps=["raw_frames"],
    output_required=False,
    check_specs=check_specs("bad_pixels"),
)
def bad_pixels(
    context: dg.AssetExecutionContext, observatory: ObservatoryResource
) -> Iterator[Event]:
    """Hot, dead and noisy pixels, by masters, biases and lights; one map per shape and camera."""
    from wombat_dagster.stages.bad_pixels import (
        counts_by_source,
        make_bad_pixel_maps,
        map_png,
        read_map,
    )

    opened = observatory.open()
    date = date_of_night(context.partition_key)

    def describe(maps: tuple[BadPixelMap, ...]) -> dict[str, Any]:
        found = [(one, read_map(opened, one)) for one in maps]
        rows = [
            dg.TableRecord(
                {
                    "file": one.path,
                    "bad": one.n_bad,
                    "percent": f"{100 * one.n_bad / bits.size:.3f}",
                    **counts_by_source(bits),
                    "looked_at": ", ".join(one.sources),
                }
            )
            for one, bits in found
        ]
        notes = [f"{one.path}: {words}" for one in maps for words in one.notes]
        pictures = {
            f"picture of {one.path}": picture(map_png(bits), "bad pixels", legend=LEGEND)
            for one, bits in found
        }
        return {
            "maps": dg.MetadataValue.table(rows),
            "notes": dg.MetadataValue.json(notes),
            **pictures,
        }

    yield from conclude(context, opened, lambda: make_bad_pixel_maps(opened, date), describe)
