"""Small arrays by name in a file: what is kept of a frame beside its pixels."""

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from wombat_dagster.store.frames import replacing
from wombat_dagster.store.tables import DAMAGE, UnreadableProduct

TOGETHER = "+"  # between the names of arrays that lie in one


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


# ------------------------------------------------------------------------ by what they depend on


def content_key(*parts: object) -> str:
    """Return a name for what follows from `parts` alone: numbers, words, frozen values, arrays.

    Numbers are to be Python's: NumPy's have another name for the same value.
    """
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, np.ndarray):
            digest.update(f"{part.shape}{part.dtype.str}".encode())
            digest.update(np.ascontiguousarray(part).data.cast("B"))
        else:
            digest.update(repr(part).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:32]


class KeptArrays:
    """What was made of single frames, by the `content_key` of all it depends on, in a directory.

    A file is whole or absent; a damaged one counts as absent.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._asked: set[str] = set()

    def get(self, key: str) -> dict[str, NDArray[Any]] | None:
        """Return the arrays kept under `key`, None where there are none."""
        self._asked.add(key)
        try:
            stored = read_arrays(self._path(key))
        except (FileNotFoundError, UnreadableProduct):
            return None
        return {
            name: array
            for names, arrays in stored.items()
            for name, array in zip(names.split(TOGETHER), arrays, strict=True)
        }

    def put(self, key: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Keep `arrays`. Those of one shape and type lie together: a file is opened in no time."""
        self._asked.add(key)
        alike: dict[tuple[tuple[int, ...], str], list[str]] = {}
        for name, array in arrays.items():
            alike.setdefault((array.shape, array.dtype.str), []).append(name)
        write_arrays(
            self._path(key),
            **{
                TOGETHER.join(names): np.stack([arrays[n] for n in names])
                for names in alike.values()
            },
        )

    def remove_others(self) -> None:
        """Remove what was neither asked for nor kept since this object was made."""
        for path in self._directory.glob("*.npz"):
            if path.stem not in self._asked:
                path.unlink(missing_ok=True)

    def _path(self, key: str) -> Path:
        return self._directory / f"{key}.npz"
