"""Which turn, scale and shift lays one list of stars on another? Votes of star pairs.

Every pair of bright detected stars is laid on every table pair of about the same length, both ways
round and, when the parity is unknown, mirrored too; each says where the image's centre would be.
True pairs agree in turn, scale and centre, false ones scatter over the whole four-dimensional
space, so that a handful of common stars stands out without any threshold. Magnitudes only choose
who may vote.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from wombat_dagster.domain import FloatArray

ROTATION_BIN_DEG = 2.0
LOG_SCALE_BIN = 0.02
MIN_PAIR_OF_DIAGONAL = 0.12  # shorter pairs do not know their direction well enough
MIN_VOTES = 3
MAX_VOTES_AT_ONCE = 1_000_000  # bounds time to half a second, memory to some 100 MB


@dataclass(frozen=True, slots=True, kw_only=True)
class Similarity:
    """plane = scale * turn(conj?(pixel)) + shift, all as complex numbers x + iy.

    `turn` is a complex number of length `scale`; `mirrored` conjugates the pixel first. `votes`:
    how many star pairs said so.
    """

    turn: complex
    shift: complex
    mirrored: bool
    votes: int


def similarities(
    image: NDArray[np.complex128],
    plane: NDArray[np.complex128],
    *,
    diagonal_px: float,
    scale_range: tuple[float, float],
    centre_limit: float,
    parities: tuple[bool, ...] = (False, True),
    shift_bin_px: float = 10.0,
    max_candidates: int = 12,
) -> Iterator[Similarity]:
    """Yield the maps from `image` to `plane` with most votes, best first.

    Parameters
    ----------
    image
        Star positions from the image's centre, x + iy in pixels, shape (n,).
    plane
        Star positions in any unit, from where the image's centre should be, shape (m,).
    scale_range
        Smallest and largest length of a pixel in the plane's unit.
    centre_limit
        How far in the plane's unit the image's centre may be from the origin.
    parities
        Which of unmirrored (False) and mirrored (True) to try.
    """
    a, b = _pairs(image)
    length = np.abs(image[b] - image[a])
    long = length >= MIN_PAIR_OF_DIAGONAL * diagonal_px
    # Mixed, always in the same way: should there be too many votes, a fair sample of pairs votes.
    mixed = np.random.default_rng(0).permutation(np.flatnonzero(long))
    a, b, length = a[mixed], b[mixed], length[mixed]
    c, d = _pairs(plane)
    plane_length = np.abs(plane[d] - plane[c])
    order = np.argsort(plane_length)
    c, d, plane_length = c[order], d[order], plane_length[order]
    low = np.searchsorted(plane_length, length * scale_range[0], side="left")
    high = np.searchsorted(plane_length, length * scale_range[1], side="right")
    count = high - low
    fits = np.cumsum(count) <= MAX_VOTES_AT_ONCE
    low, count, a, b = low[fits], count[fits], a[fits], b[fits]
    if count.sum() == 0:
        return
    which = np.repeat(np.arange(len(a)), count)
    other = np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count) + low[which]
    middle_scale = float(np.sqrt(scale_range[0] * scale_range[1]))
    along, middle = (plane[d] - plane[c])[other], (0.5 * (plane[c] + plane[d]))[other]
    found: list[Similarity] = []
    for mirrored in parities:
        points = np.conj(image) if mirrored else image
        turn = along * (1.0 / (points[b] - points[a]))[which]
        offset = turn * (0.5 * (points[a] + points[b]))[which]
        for way_round in (1, -1):  # which star of the one pair is which of the other
            shift = middle - way_round * offset
            near = shift.real**2 + shift.imag**2 <= centre_limit**2
            found += _peaks(
                way_round * turn[near],
                shift[near],
                mirrored=mirrored,
                shift_bin=shift_bin_px * middle_scale,
                n_peaks=max_candidates,
            )
    found.sort(key=lambda one: -one.votes)
    yield from found[:max_candidates]


def shift_votes(
    x_px: FloatArray,
    y_px: FloatArray,
    x_other: FloatArray,
    y_other: FloatArray,
    *,
    bin_px: float = 6.0,
    max_candidates: int = 3,
) -> list[tuple[float, float, int]]:
    """Return the shifts other - first that most pairs of stars agree on: dx, dy, votes."""
    dx = np.subtract.outer(x_other, x_px).ravel()
    dy = np.subtract.outer(y_other, y_px).ravel()
    if dx.size == 0:
        return []
    i = np.floor((dx - dx.min()) / bin_px).astype(np.int64)
    j = np.floor((dy - dy.min()) / bin_px).astype(np.int64)
    rows, columns = int(i.max()) + 2, int(j.max()) + 2
    votes = np.bincount(i * columns + j, minlength=rows * columns).reshape(rows, columns)
    # A peak on a bin's edge is shared by up to four bins: count blocks of 2 x 2.
    block = votes[:-1, :-1] + votes[1:, :-1] + votes[:-1, 1:] + votes[1:, 1:]
    shifts: list[tuple[float, float, int]] = []
    for _ in range(max_candidates):
        best_i, best_j = divmod(int(np.argmax(block)), block.shape[1])
        n_votes = int(block[best_i, best_j])
        if n_votes < MIN_VOTES:
            break
        here = (i >= best_i) & (i <= best_i + 1) & (j >= best_j) & (j <= best_j + 1)
        shifts.append((float(np.median(dx[here])), float(np.median(dy[here])), n_votes))
        block[max(best_i - 1, 0) : best_i + 2, max(best_j - 1, 0) : best_j + 2] = 0
    return shifts


def _pairs(points: NDArray) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    first, second = np.triu_indices(len(points), k=1)
    return first, second


def _peaks(
    turn: NDArray[np.complex128],
    shift: NDArray[np.complex128],
    *,
    mirrored: bool,
    shift_bin: float,
    n_peaks: int,
) -> list[Similarity]:
    """Return the fullest bins of (rotation, scale, shift), each with its members' median."""
    if len(turn) < MIN_VOTES:
        return []
    rotation = np.degrees(np.angle(turn))
    bins = np.stack(
        [
            np.floor((rotation + 180.0) / ROTATION_BIN_DEG),
            np.floor(np.log(np.abs(turn)) / LOG_SCALE_BIN),
            np.floor(shift.real / shift_bin),
            np.floor(shift.imag / shift_bin),
        ]
    ).astype(np.int64)
    bins -= bins.min(axis=1, keepdims=True)
    sizes = bins.max(axis=1) + 1
    key = ((bins[0] * sizes[1] + bins[1]) * sizes[2] + bins[2]) * sizes[3] + bins[3]
    order = np.argsort(key)
    ordered = key[order]
    edge = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1], True])
    votes = np.diff(edge)
    fullest = np.argsort(-votes, kind="stable")[:n_peaks]
    found = []
    for k in fullest[votes[fullest] >= MIN_VOTES]:
        members = order[edge[k] : edge[k + 1]]
        found.append(
            Similarity(
                turn=_middle(turn[members]),
                shift=_middle(shift[members]),
                mirrored=mirrored,
                votes=len(members),
            )
        )
    return found


def _middle(values: NDArray[np.complex128]) -> complex:
    return complex(float(np.median(values.real)), float(np.median(values.imag)))
