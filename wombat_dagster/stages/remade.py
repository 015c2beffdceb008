"""What magnitudes made again say otherwise than before."""

import numpy as np

from wombat_dagster.domain import StandardMagnitudes
from wombat_dagster.observatory import Observatory
from wombat_dagster.products import read_product
from wombat_dagster.store.remade import Remade, record_remade, utc_now
from wombat_dagster.store.tables import UnreadableProduct

SAME_MAG = 5e-6  # beyond the digits that are written


def magnitudes_before(observatory: Observatory, key: str) -> StandardMagnitudes | None:
    """Return the magnitudes that an observation has had, None when there are none to be read."""
    try:
        found: StandardMagnitudes = read_product(observatory, "standard_magnitudes", key)
    except (FileNotFoundError, UnreadableProduct):
        return None
    return found


def record_change(
    observatory: Observatory,
    key: str,
    before: StandardMagnitudes | None,
    after: StandardMagnitudes,
    *,
    why: str | None,
) -> Remade | None:
    """Write down how T1 changed on the frames that both have; None, and nothing, when it did not.

    Frames are the same when their pixels are. T1 without a value before or after does not count.
    """
    if before is None:
        return None
    places = {pixels: i for i, pixels in enumerate(before.raw_hashes)}
    pairs = [(places[p], i) for i, p in enumerate(after.raw_hashes) if p in places]
    old, new = (np.array([pair[side] for pair in pairs], dtype=int) for side in (0, 1))
    change = after.t1_mag[new] - before.t1_mag[old]
    change = change[np.isfinite(change)]
    is_same = bool(np.all(np.abs(change) < SAME_MAG)) and len(pairs) == len(after.raw_hashes)
    if is_same and abs(after.zp_err_mag - before.zp_err_mag) < SAME_MAG:
        return None
    found = Remade(
        key=key,
        made_utc=utc_now(),
        why=why,
        n_frames=len(change),
        t1_median_change_mag=float(np.median(change)) if len(change) else None,
        t1_largest_change_mag=float(change[np.argmax(np.abs(change))]) if len(change) else None,
        zp_err_before_mag=_finite(before.zp_err_mag),
        zp_err_after_mag=_finite(after.zp_err_mag),
    )
    record_remade(observatory.status.path, found)
    return found


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
