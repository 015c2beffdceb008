"""Which master frame an observation is calibrated with, and why the others are not taken."""

import datetime as dt
from collections.abc import Iterable

from wombat_dagster.domain import FrameGroup, FrameKind, Master


def closest_master(
    masters: Iterable[Master],
    *,
    kind: FrameKind,
    date: dt.date,
    group: FrameGroup,
    filter: str | None = None,
    exposure_s: float | None = None,
    exposure_tolerance: float = 0.05,
    max_age_days: int | None = None,
    ccd_temperature_c: float | None = None,
    max_temperature_difference_c: float | None = None,
) -> tuple[Master | None, str]:
    """Return the matching master nearest in whole days, and why (or why none).

    Forwards or backwards in time; of two equally near the earlier. It matches when shape, binning,
    camera and readout are the same, for flats also the filter, and with `exposure_s` also the
    exposure within `exposure_tolerance`. The limits on age and temperature hold when given; a
    temperature that is not known passes.
    """
    of_kind = [m for m in masters if m.kind is kind]
    fits, misfits = [], []
    for master in of_kind:
        reason = _mismatch(master, group, filter, exposure_s, exposure_tolerance)
        age_days = abs((master.date - date).days)
        if reason is None and max_age_days is not None and age_days > max_age_days:
            reason = f"{age_days} days away, at most {max_age_days} allowed"
        if (
            reason is None
            and max_temperature_difference_c is not None
            and ccd_temperature_c is not None
            and master.ccd_temperature_c is not None
            and abs(master.ccd_temperature_c - ccd_temperature_c) > max_temperature_difference_c
        ):
            reason = f"at {master.ccd_temperature_c:.1f} C, {ccd_temperature_c:.1f} C wanted"
        if reason is None:
            fits.append(master)
        else:
            misfits.append((age_days, master, reason))
    words = f"{kind.value}{f' in {filter}' if filter is not None else ''}"
    if fits:
        best = min(fits, key=lambda m: (abs((m.date - date).days), m.date, m.path))
        return best, f"{words}: {best.date}, {abs((best.date - date).days)} days away"
    if misfits:
        _, master, reason = min(misfits, key=lambda m: (m[0], m[1].date, m[1].path))
        return None, f"no master {words}: nearest of {len(misfits)} is {master.date}, {reason}"
    return None, f"no master {words} on any night"


def _mismatch(
    master: Master,
    group: FrameGroup,
    filter: str | None,
    exposure_s: float | None,
    tolerance: float,
) -> str | None:
    theirs = master.group
    if theirs.shape_words != group.shape_words:
        return f"{theirs.shape_words}, {group.shape_words} wanted"
    if theirs.camera and group.camera and theirs.camera != group.camera:
        return f"camera {theirs.camera}, {group.camera} wanted"
    if theirs.readout and group.readout and theirs.readout != group.readout:
        return f"readout {theirs.readout}, {group.readout} wanted"
    if filter is not None and master.filter != filter:
        return f"filter {master.filter}"
    if exposure_s is not None and (
        master.exposure_s is None or abs(master.exposure_s - exposure_s) > tolerance * exposure_s
    ):
        return f"exposure {master.exposure_s} s, {exposure_s} s wanted"
    return None
