"""Keeps what every night's masters say of the detector, and tells steps from night to night."""

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from wombat_dagster.domain import (
    DetectorMeasurement,
    DetectorQuantity,
    FrameGroup,
    FrameKind,
    Master,
    NoCalibration,
)
from wombat_dagster.observatory import Observatory
from wombat_dagster.science.detector import Measured, step_words, weighted_mean
from wombat_dagster.stages.masters import NOISE_NEGLECTED


def measure_detector(observatory: Observatory, date: dt.date) -> tuple[DetectorMeasurement, ...]:
    """Return, and record, read noise, gain and dark current of the detectors used in a night.

    Raises
    ------
    NoCalibration
        The night's masters say nothing of them.
    """
    by_group: dict[FrameGroup, list[Master]] = defaultdict(list)
    for master in observatory.status.masters():
        if master.date == date and master.made_by_us:
            by_group[master.group].append(master)
    history = observatory.status.detector_measurements()
    measured = tuple(
        replace(found, step=step_words(found, history))
        for group, masters in by_group.items()
        for found in _measurements(date, group, masters)
    )
    observatory.status.record_detector(date, measured)
    if not measured:
        raise NoCalibration(
            f"nothing is known of the detector on {date}: no master bias, no flat with an offset of"
            " known noise, and no dark without bias was made"
        )
    return measured


def _measurements(
    date: dt.date, group: FrameGroup, masters: Sequence[Master]
) -> Iterable[DetectorMeasurement]:
    for quantity, sources in (
        (DetectorQuantity.READ_NOISE, _of_kind(masters, FrameKind.BIAS)),
        (DetectorQuantity.GAIN, [m for m in masters if NOISE_NEGLECTED not in m.notes]),
        (DetectorQuantity.DARK_CURRENT, _longest(_of_kind(masters, FrameKind.DARK))),
    ):
        values = {
            master.path: found
            for master in sources
            if (found := _measured(master, quantity)) is not None
        }
        if values:
            mean = weighted_mean(list(values.values()))
            temperatures_c = [
                m.ccd_temperature_c
                for m in sources
                if m.path in values and m.ccd_temperature_c is not None
            ]
            yield DetectorMeasurement(
                date=date,
                group=group,
                quantity=quantity,
                value=mean.value,
                error=mean.error,
                n_frames=mean.n_frames,
                ccd_temperature_c=sum(temperatures_c) / len(temperatures_c)
                if temperatures_c
                else None,
            )


def _of_kind(masters: Iterable[Master], kind: FrameKind) -> list[Master]:
    return [master for master in masters if master.kind is kind]


def _longest(darks: Sequence[Master]) -> list[Master]:
    """Return the dark of the longest exposure, in which the current stands out most."""
    known = [dark for dark in darks if dark.dark_current_adu_s is not None]
    return sorted(known, key=lambda dark: dark.exposure_s or 0.0)[-1:]


_FIELDS = {
    DetectorQuantity.READ_NOISE: ("read_noise_adu", "read_noise_error_adu"),
    DetectorQuantity.GAIN: ("gain_e_adu", "gain_error_e_adu"),
    DetectorQuantity.DARK_CURRENT: ("dark_current_adu_s", "dark_current_error_adu_s"),
}


def _measured(master: Master, quantity: DetectorQuantity) -> Measured | None:
    value, error = (getattr(master, name) for name in _FIELDS[quantity])
    if value is None or error is None or not error > 0:  # also when NaN
        return None
    return Measured(value=value, error=error, n_frames=master.n_used)


def dark_current_e_s(
    measured: DetectorMeasurement, night: Iterable[DetectorMeasurement]
) -> float | None:
    """Return a dark current in electrons, by the gain of the same detector and night."""
    if measured.quantity is not DetectorQuantity.DARK_CURRENT:
        return None
    for other in night:
        if (other.group, other.quantity) == (measured.group, DetectorQuantity.GAIN):
            return measured.value * other.value
    return None
