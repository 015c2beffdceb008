"""Small arrays by name in a file: what is kept of a frame beside its pixels."""

import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wombat_dagster.store.frames import replacing
from wombat_dagster.store.tables import DAMAGE, UnreadableProduct


def write_arrays(path: Path, **arrays: ArrayLike) -> None:
    """Write an ``.npz``, old or new but never half; the disk is not waited for."""
    with replacing(path) as handle, zipfile.ZipFile(handle, "w", zipfile.ZIP_STORED) as packed:
        for name, array in arrays.items():
            with packed.open(f"{name}.npy", "w") as entry:
                np.lib.format.write_array(entry, np.asarray(array), allow_pickle=False)


def read_arrays(path: Path) -> dict[str, NDArray]:
    """Return what `write_arrays` wrote.

    Raises
    ------
    FileNotFoundError
        There is no such file.
    UnreadableProduct
        It is damaged: every array carries a checksum.
    """
    try:
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except FileNotFoundError:
        raise
    except DAMAGE as error:
        raise UnreadableProduct(f"{path.name}: {error}") from error
