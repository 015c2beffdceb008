"""Assets of an observation up to calibrated frames: the choice of masters, the reduction."""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from wombat_dagster.assets.conclude import Event, conclude
from wombat_dagster.checks import check_specs
from wombat_dagster.domain import CalibrationChoice, Reduction
from wombat_dagster.observatory import Observatory
from wombat_dagster.partitions import OBSERVATIONS
from wombat_dagster.resources import ObservatoryResource

CALIBRATION = "calibration"
MASTERS = ("master_bias", "master_darks", "master_flats", "bad_pixels")


@dg.asset(
    partitions_def=OBSERVATIONS,
    group_name=CALIBRATION,
    # Between two dynamic partitions the default mapping is Identity and silently wrong.
    deps=[dg.AssetDep(name, partition_mapping=dg.AllPartitionMapping()) for name in MASTERS],
    output_required=False,
    check_specs=check_specs("calibration_choice"),
)
def calibration_choice(
    context: dg.AssetExecutionContext, observatory: ObservatoryResource
) -> Iterator[Event]:
    """The closest matching masters, forwards or backwards in time."""
    from wombat_dagster.stages.choice import choose_calibration

    def describe(choice: CalibrationChoice) -> dict[str, Any]:
        used = {
            name: master.path if master else "nocal"
            for name, master in (
                ("bias", choice.bias), ("dark", choice.dark), ("flat", choice.flat)
            )
        }  # fmt: skip
        lost = [f"{r.kind} {r.date} {r.path}: {r.reason}" for r in choice.runners_up]
        return {
            **used,
            "bad_pixels": choice.bad_pixels.path if choice.bad_pixels else "no map",
            "already_done": ", ".join(choice.already_done) or "nothing",
            "reasons": dg.MetadataValue.json(list(choice.reasons)),
            "runners_up": dg.MetadataValue.json(lost),
        }

    opened = observatory.open()
    observation = opened.status.target_row(context.partition_key).observation
    yield from conclude(context, opened, lambda: choose_calibration(opened, observation), describe)


@dg.asset(
    partitions_def=OBSERVATIONS,
    group_name=CALIBRATION,
    output_required=False,
    check_specs=check_specs("reduced_frames"),
)
def reduced_frames(
    context: dg.AssetExecutionContext,
    observatory: ObservatoryResource,
    calibration_choice: CalibrationChoice,
) -> Iterator[Event]:
    """The light frames, calibrated: (raw - bias - dark·t) / flat, with masks."""
    from wombat_dagster.stages.reduction import reduce_observation

    def describe(reduction: Reduction) -> dict[str, Any]:
        facts = reduction.detector
        sources = {
            name: f"{sourced.value:g} ({sourced.source})" if sourced else "not known"
            for name, sourced in (
                ("gain_e_adu", facts.gain_e_adu),
                ("read_noise_e", facts.read_noise_e),
                ("saturation_adu", facts.saturation_adu),
                ("linearity_adu", facts.linearity_adu),
            )
        }
        left_out = [f"{path}: {reason}" for path, reason in reduction.left_out]
        return {
            "frames": len(reduction.frames),
            **sources,
            "left_out": dg.MetadataValue.json(left_out),
            "notes": dg.MetadataValue.json(list(reduction.notes)),
        }

    opened: Observatory = observatory.open()
    observation = opened.status.target_row(context.partition_key).observation
    yield from conclude(
        context,
        opened,
        lambda: reduce_observation(opened, observation, calibration_choice),
        describe,
    )
