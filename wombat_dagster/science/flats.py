"""Flat fields: which frames are fit for a master, and what a master flat is normalised by.

Arrays in, values out. Counts are ADU unless a name says otherwise.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from wombat_dagster.domain import Sourced
from wombat_dagster.science.detector import DEFAULT, RawExtremes, central_half

FLAT_FLOOR = 0.05  # a normalised flat below this is masked, never divided by

Image = NDArray[Any]


def flat_refusal(
    flat: RawExtremes, *, bias_level_adu: float, saturation: Sourced,
    min_fraction: float, max_fraction: float,
) -> str | None:  # fmt: skip
    """Return why a flat of this raw central level is refused, None when it is fit.

    The fractions are of the range from the bias level to saturation. Where saturation is only a
    default, a flat is not too dark as long as there is light in it: the range is not known.
    """
    level_adu, saturation_adu = flat.level_adu, saturation.value
    reach = saturation_adu - bias_level_adu
    low = bias_level_adu + (0.0 if saturation.source == DEFAULT else min_fraction) * reach
    high = bias_level_adu + max_fraction * reach
    if level_adu >= flat.maximum_adu:
        return f"level {level_adu:.0f} ADU is its highest count: nothing but a stop"
    if level_adu >= high:
        return (
            f"level {level_adu:.0f} ADU, below {high:.0f} wanted ({saturation_adu:.0f} saturates)"
        )
    if level_adu <= low:
        return f"level {level_adu:.0f} ADU, at least {low:.0f} wanted"
    return None


def normalised_master_flat(combined: Image) -> tuple[Image, Image]:
    """Return the flat with median 1 in its central half, and where it must not be divided by.

    Returns
    -------
    NDArray
        float32, shape (ny, nx); 1 where masked.
    NDArray of bool
        True where the flat is below 5 % or not a number.
    """
    flat = combined / np.nanmedian(central_half(combined))
    unusable = ~(flat > FLAT_FLOOR)
    return np.where(unusable, 1.0, flat).astype(np.float32), unusable
