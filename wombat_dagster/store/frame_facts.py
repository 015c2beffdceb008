"""What a stored measurement table says of whole frames, without reading its stars.

The table of a long night holds hundreds of field stars; who only looks at a light curve waits for
none of them.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from wombat_dagster.domain import FloatArray
from wombat_dagster.store.tables import DAMAGE, METADATA, UnreadableProduct

T1, T2 = "T1", "T2"


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameFacts:
    """Of each measured frame, shape (n_frames,): its FWHM, exposure, and the flags of T1 and T2.

    `t1_flags` and `t2_flags` are bits of `domain.Flag`, 0 where the star is not in the table.
    """

    raw_hashes: tuple[str, ...]
    fwhm_px: FloatArray
    exposure_s: FloatArray
    t1_flags: NDArray[np.int64]
    t2_flags: NDArray[np.int64]


def read_frame_facts(path: Path) -> FrameFacts:
    """Return what the measurement table at `path` (``photometry.npz``) says of its frames.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    UnreadableProduct
        It is damaged, or another kind of file.
    """
    try:
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as stored:
            head = json.loads(str(stored[METADATA]))
            flags = stored["measured.flags"]
            roles = [star["role"] for star in head["stars"]]
            none = np.zeros(len(flags), dtype=np.int64)
            return FrameFacts(
                raw_hashes=tuple(head["raw_hashes"]),
                fwhm_px=stored["frame_fwhm_px"],
                exposure_s=stored["exposure_s"],
                t1_flags=flags[:, roles.index(T1)] if T1 in roles else none,
                t2_flags=flags[:, roles.index(T2)] if T2 in roles else none,
            )
    except FileNotFoundError:
        raise
    except DAMAGE as error:
        raise UnreadableProduct(f"{path}: {error}") from error
