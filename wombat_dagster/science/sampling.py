"""Which frames stand for a night where not all of them are read."""

import numpy as np

from wombat_dagster.domain import FloatArray

LONGEST_SLOT_D = 512.0
SHORTEST_SLOT_D = 1e-6  # frames nearer to each other are one


def spread(jd_utc: FloatArray, at_most: int) -> list[int]:
    """Return at most so many frames, spread over the night, and more than half of it if there are.

    The first of every so many minutes of the clock: a later frame hardly ever displaces another.
    """
    slot_d = LONGEST_SLOT_D
    _, firsts = np.unique(np.floor(jd_utc / slot_d), return_index=True)
    while firsts.size < len(jd_utc):
        slot_d /= 2.0
        _, finer = np.unique(np.floor(jd_utc / slot_d), return_index=True)
        if finer.size > at_most or slot_d < SHORTEST_SLOT_D:
            break
        firsts = finer
    return sorted(int(index) for index in firsts)
