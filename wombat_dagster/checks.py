"""What should be true of a product afterwards, as Dagster asset checks that warn."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster_shared.utils.warnings import PreviewWarning

from wombat_dagster.domain import (
    CalibrationChoice,
    CompCandidates,
    DetectorMeasurement,
    FrameSolution,
    PhotometryTable,
    StandardMagnitudes,
    not_of_the_aavso,
)
from wombat_dagster.observatory import Observatory
from wombat_dagster.partitions import NIGHTS, OBSERVATIONS

PRODUCT_CHECK = "has_product"
NIGHTLY = frozenset(
    {"raw_frames", "master_bias", "master_darks", "master_flats", "detector_noise", "bad_pixels"}
)
"""The assets of a night; all others are of an observation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One check: `fault` returns what is wrong with a product in words, or None.

    `known` does so of what the observatory knows of the partition.
    """

    name: str
    description: str
    fault: Callable[[Any], str | None] = lambda _product: None
    known: Callable[[Observatory, str], str | None] = lambda _observatory, _key: None


def _uncalibrated(choice: CalibrationChoice) -> str | None:
    return "; ".join(choice.reasons) if choice.missing else None


def _detector_step(measured: tuple[DetectorMeasurement, ...]) -> str | None:
    return "; ".join(m.step for m in measured if m.step) or None


def _unsolved(solutions: tuple[FrameSolution, ...]) -> str | None:
    unsolved = [f"{s.file}: {s.reason}" for s in solutions if s.solution is None]
    return "; ".join(unsolved) or None


def _unconfirmed_filter(comps: CompCandidates) -> str | None:
    if comps.band_confirmed:
        return None
    return f"filter {comps.filter!r} taken for {comps.band}: say it in [instrument.filters]"


def _no_check_star(table: PhotometryTable) -> str | None:
    return None if table.star_index("T2") is not None else "no check star: too few comps"


def _held(magnitudes: StandardMagnitudes) -> str | None:
    return magnitudes.held_reason


def _events(observatory: Observatory, key: str) -> str | None:
    from wombat_dagster.stages.events import events_words

    return events_words(observatory, key)


CHECKS: dict[str, tuple[Check, ...]] = {
    "detector_noise": (
        Check(
            name="detector_steady",
            description="Read noise, gain and dark current are those of the nights before",
            fault=_detector_step,
        ),
    ),
    "calibration_choice": (
        Check(name="calibrated", description="Bias and flat were found", fault=_uncalibrated),
    ),
    "wcs_solutions": (
        Check(name="every_frame_solved", description="No frame is left out", fault=_unsolved),
    ),
    "frame_triage": (
        Check(
            name="frames_fit",
            description="Most frames are neither clouded nor spoiled",
            fault=lambda report: report.triage.unfit_words,
        ),
        Check(
            name="time_and_site",
            description="Nothing speaks against the times and the site",
            fault=lambda report: report.triage.doubts,
        ),
    ),
    "comp_list": (
        Check(
            name="filter_confirmed",
            description="The filter's band is beyond doubt",
            fault=_unconfirmed_filter,
        ),
    ),
    "photometry_table": (
        Check(name="has_check_star", description="There is a T2", fault=_no_check_star),
    ),
    "standard_magnitudes": (
        Check(name="check_star_in_control", description="T2 is as catalogued", fault=_held),
        Check(
            name="comps_from_aavso",
            description="The comps are from a chart of the AAVSO's",
            fault=lambda magnitudes: not_of_the_aavso(magnitudes.comp_source),
        ),
        Check(
            name="events",
            description="T1 is neither brighter nor fainter than its history and VSX's range",
            known=_events,
        ),
    ),
}
"""The checks of each asset beyond having a product."""


def check_specs(asset: str) -> list[dg.AssetCheckSpec]:
    """Return the specifications of the checks of `asset`, one result kept per partition."""
    partitions_def = NIGHTS if asset in NIGHTLY else OBSERVATIONS
    with warnings.catch_warnings():  # Dagster 1.13 says that it may change: see pyproject.toml
        warnings.simplefilter("ignore", PreviewWarning)
        return [
            dg.AssetCheckSpec(
                name, asset=asset, description=description, partitions_def=partitions_def
            )
            for name, description in _descriptions(asset).items()
        ]


def _descriptions(asset: str) -> dict[str, str]:
    """Return what each check of `asset` is about, by its name."""
    return {
        PRODUCT_CHECK: "The stage ended with a product",
        **{check.name: check.description for check in CHECKS.get(asset, ())},
    }


def no_product_results(asset_key: dg.AssetKey, words: str) -> Iterator[dg.AssetCheckResult]:
    """Yield the results of every check of a product that was not made: Dagster wants them all."""
    for name in _descriptions(asset_key.to_user_string()):
        yield dg.AssetCheckResult(
            asset_key=asset_key,
            check_name=name,
            passed=False,
            severity=dg.AssetCheckSeverity.WARN,
            description=words,
        )


def check_results(
    asset_key: dg.AssetKey, value: Any, observatory: Observatory, key: str
) -> Iterator[dg.AssetCheckResult]:
    """Yield the results of every check of a product that was made for the partition `key`."""
    yield dg.AssetCheckResult(asset_key=asset_key, check_name=PRODUCT_CHECK, passed=True)
    for check in CHECKS.get(asset_key.to_user_string(), ()):
        fault = check.fault(value) or check.known(observatory, key)
        yield dg.AssetCheckResult(
            asset_key=asset_key,
            check_name=check.name,
            passed=fault is None,
            severity=dg.AssetCheckSeverity.WARN,
            description=fault[:2000] if fault else None,
        )
