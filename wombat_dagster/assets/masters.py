"""Assets of a night: what lies on disk, and its master frames."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from wombat_dagster.assets.conclude import Event, conclude
from wombat_dagster.assets.pictures import picture
from wombat_dagster.checks import check_specs
from wombat_dagster.domain import DetectorMeasurement, FrameKind, Master, RawFrame
from wombat_dagster.partitions import NIGHTS, date_of_night
from wombat_dagster.resources import ObservatoryResource

CALIBRATION = "calibration"


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
    from wombat_dagster.stages.nights import organise_night

    def describe(frames: tuple[RawFrame, ...]) -> dict[str, Any]:
        refused = [f"{frame.path}: {frame.reason}" for frame in frames if frame.reason]
        usable = {
            kind.value: sum(f.kind is kind and f.reason is None for f in frames)
            for kind in FrameKind
        }
        return {**usable, "quarantined": len(refused), "reasons": dg.MetadataValue.json(refused)}

    opened = observatory.open()
    yield from conclude(
        context,
        opened,
        lambda: organise_night(opened, date_of_night(context.partition_key)),
        describe,
    )


def _number(value: float | None, factor: float = 1.0) -> str:
    return "not known" if value is None else f"{factor * value:.4g}"


def _with_error(value: float | None, error: float | None) -> str:
    return f"{_number(value)} ± {error:.2g}" if value is not None and error else _number(value)


def _describe_masters(masters: tuple[Master, ...]) -> dict[str, Any]:
    rows = [
        dg.TableRecord(
            {
                "file": master.path,
                "used": master.n_used,
                "refused": master.n_refused,
                "rejected_percent": _number(master.rejected_fraction, 100.0),
                "noise": _number(master.noise),
                "read_noise_adu": _with_error(master.read_noise_adu, master.read_noise_error_adu),
                "gain_e_adu": _with_error(master.gain_e_adu, master.gain_error_e_adu),
                "dark_current_adu_s": _with_error(
                    master.dark_current_adu_s, master.dark_current_error_adu_s
                ),
                "made_by_us": master.made_by_us,
            }
        )
        for master in masters
    ]
    notes = [f"{master.path}: {words}" for master in masters for words in master.notes]
    table = {"masters": dg.MetadataValue.table(rows)} if rows else {}
    return {**table, "notes": dg.MetadataValue.json(notes)}


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
            lambda: make_masters(opened, date_of_night(context.partition_key), kind),
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


@dg.asset(
    # After the masters, whose numbers it keeps; a dependency would skip it when one is missing.
    op_tags={"dagster/priority": "0"},
    partitions_def=NIGHTS,
    group_name=CALIBRATION,
    deps=[raw_frames],
    output_required=False,
    check_specs=check_specs("detector_noise"),
)
def detector_noise(
    context: dg.AssetExecutionContext, observatory: ObservatoryResource
) -> Iterator[Event]:
    """Read noise, gain and dark current of the night's detectors, against the nights before."""
    from wombat_dagster.stages.detector import dark_current_e_s, measure_detector

    opened = observatory.open()

    def describe(measured: tuple[DetectorMeasurement, ...]) -> dict[str, Any]:
        from wombat_dagster.reports.detector import detector_png

        rows = [
            dg.TableRecord(
                {
                    "camera": m.group.camera or "not known",
                    "shape": m.group.shape_words,
                    "quantity": m.quantity.value,
                    "value": _with_error(m.value, m.error),
                    "electrons": _number(dark_current_e_s(m, measured)),
                    "frames": m.n_frames,
                    "ccd_temperature_c": _number(m.ccd_temperature_c),
                    "step": m.step or "",
                }
            )
            for m in measured
        ]
        groups = {m.group for m in measured}
        history = [m for m in opened.status.detector_measurements() if m.group in groups]
        return {
            "measured": dg.MetadataValue.table(rows),
            "nights": len({m.date for m in history}),
            "plot": picture(detector_png(history), "detector"),
        }

    yield from conclude(
        context,
        opened,
        lambda: measure_detector(opened, date_of_night(context.partition_key)),
        describe,
    )
