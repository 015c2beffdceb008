"""Which turn, scale and shift lays one list of stars on another? Votes of star pairs, and quads.

Pairs, when position and scale are known within about half a frame and some per cent; they put up
with many false and missing stars. Every pair of bright detected stars is laid on every table pair
of about the same length, both ways round and, when the parity is unknown, mirrored too; each says
where the image's centre would be. True pairs agree in turn, scale and centre, false ones scatter
over the whole four-dimensional space, so that a handful of common stars stands out without any
threshold. Magnitudes only choose who may vote.

Quads of neighbouring stars, when they are not: the shape of four stars knows no position, scale or
turn, so that a whole region of the sky is looked up at once. All of it happens on the sphere, so a
frame 40 degrees wide, or one with the pole on it, is a frame like any other. The idea is that of
Lang et al. (2010), AJ 139, 1782.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from wombat_dagster.domain import FloatArray

if TYPE_CHECKING:
    from scipy.spatial import cKDTree

ROTATION_BIN_DEG = 2.0
LOG_SCALE_BIN = 0.02
MIN_PAIR_OF_DIAGONAL = 0.12  # shorter pairs do not know their direction well enough
MIN_VOTES = 3
MAX_VOTES_AT_ONCE = 1_000_000  # bounds time to half a second, memory to some 100 MB

SKY_NEIGHBOURS = 6  # 20 quads per star, most of them shared
IMAGE_NEIGHBOURS = 8  # more on the image, for false stars stand between the true ones
CODE_TOLERANCE = 0.012  # a pixel of error over a quad of 150 px, on both sides
MAX_QUAD_MATCHES = 30_000
SCALE_ROUNDS = 3
MIN_QUAD_VOTES = 6  # the quad's own four and two more
MAX_VOTING_STARS = 40
VOTE_RADIUS_OF_DIAGONAL = 0.006  # a small quad does not know the far corner better
MIN_VOTE_RADIUS_PX = 3.0
VOTES_CHUNK = 500  # candidates at once: bounds memory


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
) -> Iterator[tuple[float, float, int]]:
    """Yield the shifts other - first that most pairs of stars agree on: dx, dy, votes."""
    dx = np.subtract.outer(x_other, x_px).ravel()
    dy = np.subtract.outer(y_other, y_px).ravel()
    if dx.size == 0:
        return
    i = np.floor((dx - dx.min()) / bin_px).astype(np.int64)
    j = np.floor((dy - dy.min()) / bin_px).astype(np.int64)
    # A peak on a bin's edge is shared by up to four bins: count blocks of 2 x 2, by their first
    # corner. Of millions of blocks that the frame's size allows, only those with votes are listed.
    columns = int(j.max()) + 2
    bins = np.sort((i + 1) * columns + j + 1)
    blocks = np.concatenate([bins, bins - 1, bins - columns, bins - columns - 1])
    blocks.sort(kind="stable")  # merges the four, each sorted already
    edge = np.flatnonzero(np.r_[True, blocks[1:] != blocks[:-1], True])
    votes = np.diff(edge)
    block_i, block_j = np.divmod(blocks[edge[:-1]], columns)
    for _ in range(max_candidates):
        best = int(np.argmax(votes))
        n_votes = int(votes[best])
        if n_votes < MIN_VOTES:
            return
        di, dj = i + 1 - block_i[best], j + 1 - block_j[best]
        here = (di >= 0) & (di <= 1) & (dj >= 0) & (dj <= 1)
        yield float(np.median(dx[here])), float(np.median(dy[here])), n_votes
        beside = (np.abs(block_i - block_i[best]) <= 1) & (np.abs(block_j - block_j[best]) <= 1)
        votes[beside] = 0


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


# -------------------------------------------------------------------------------- quads of stars


@dataclass(frozen=True, slots=True, kw_only=True)
class Pointing:
    """sky = rotation @ direction of the pixel, as unit vectors; `scale_rad_px` at the centre.

    A `mirrored` image is turned over (y to -y) first. `votes`: how many of the image's bright
    stars then lie on a star of the sky.
    """

    rotation: NDArray[np.float64]
    scale_rad_px: float
    mirrored: bool
    votes: int


@dataclass(frozen=True, slots=True)
class Quads:
    """Groups of four neighbouring stars: codes that turn and scale leave alone, and who they are.

    `codes` (n, 4): the two inner stars where the outer two are 0 and 1; `stars` (n, 4): rows of
    outer, outer, inner, inner; `size_rad` (n,): between the outer two.
    """

    codes: FloatArray
    stars: NDArray[np.intp]
    size_rad: FloatArray


def unit_vectors(ra_deg: FloatArray, dec_deg: FloatArray) -> FloatArray:
    """Return directions on the sky, shape (n, 3)."""
    ra, dec = np.radians(ra_deg), np.radians(dec_deg)
    return np.column_stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])


def pixel_vectors(image: NDArray[np.complex128], scale_rad_px: float) -> FloatArray:
    """Return directions in the camera's frame of a gnomonic image, shape (n, 3)."""
    rays = np.column_stack([image.real, image.imag]) * scale_rad_px
    return _normalized(np.column_stack([rays, np.ones(len(image))]))


def quads_of(vectors: FloatArray, tree: "cKDTree", *, n_neighbours: int) -> Quads:
    """Return the quads of each star and three of its nearest neighbours.

    Each is measured on the plane that touches the sky at its own middle, so that neither the pole
    nor the stretched edges of a wide image change a code.
    """
    n_neighbours = min(n_neighbours, len(vectors) - 1)
    if n_neighbours < 3:
        return Quads(np.zeros((0, 4)), np.zeros((0, 4), np.intp), np.zeros(0))
    _, near = tree.query(vectors, n_neighbours + 1)
    triples = np.array(list(itertools.combinations(range(1, n_neighbours + 1), 3)))
    own = np.broadcast_to(near[:, :1, None], (len(near), len(triples), 1))
    stars = np.sort(np.concatenate([own, near[:, triples]], axis=2).reshape(-1, 4), axis=1)
    n = len(vectors)
    key = stars[:, 0].astype(np.int64)
    for column in (1, 2, 3):
        key = key * n + stars[:, column]  # 55 000 stars before this overflows
    stars = stars[np.unique(key, return_index=True)[1]]
    return _coded(vectors, stars)


def _coded(vectors: FloatArray, stars: NDArray[np.intp]) -> Quads:
    corners = vectors[stars]
    middle = _normalized(corners.sum(axis=1))
    # Any tangent will do; away from the axis to which the middle is nearest.
    axis = np.eye(3)[np.argmin(np.abs(middle), axis=1)]
    east = _normalized(np.cross(axis, middle))
    north = np.cross(middle, east)
    depth = np.einsum("nij,nj->ni", corners, middle)
    at = np.einsum("nij,nj->ni", corners, east) + 1j * np.einsum("nij,nj->ni", corners, north)
    at /= depth
    pairs = np.array(list(itertools.combinations(range(4), 2)))
    rest = pairs[::-1]  # the complement of the k-th pair is the k-th from the end
    widest = np.argmax(np.abs(at[:, pairs[:, 0]] - at[:, pairs[:, 1]]), axis=1)
    order = np.concatenate([pairs[widest], rest[widest]], axis=1)
    at, stars = np.take_along_axis(at, order, 1), np.take_along_axis(stars, order, 1)
    span = at[:, 1] - at[:, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        inner = (at[:, 2:] - at[:, :1]) / span[:, None]
    turned = inner.real.sum(axis=1) > 1.0  # which outer star is 0: the one nearer to the inner two
    inner[turned] = 1.0 - inner[turned]
    stars[turned] = stars[turned][:, [1, 0, 2, 3]]
    swapped = inner[:, 0].real > inner[:, 1].real
    inner[swapped] = inner[swapped][:, ::-1]
    stars[swapped] = stars[swapped][:, [0, 1, 3, 2]]
    codes = np.column_stack([inner.real, inner.imag])
    good = np.isfinite(codes).all(axis=1)
    return Quads(codes[good], stars[good], np.abs(span)[good])


class SkyQuads:
    """The quads of a piece of sky, ready to be looked up."""

    def __init__(self, vectors: FloatArray) -> None:
        from scipy.spatial import cKDTree

        self.vectors = vectors
        self.star_tree = cKDTree(vectors)
        self.quads = quads_of(vectors, self.star_tree, n_neighbours=SKY_NEIGHBOURS)
        self.code_tree = cKDTree(self.quads.codes) if len(self.quads.codes) else None


def pointings(
    image: NDArray[np.complex128],
    sky: SkyQuads,
    *,
    scale_rad_px: float,
    scale_factor: float,
    diagonal_px: float,
    parities: tuple[bool, ...] = (False, True),
    max_candidates: int = 12,
) -> list[Pointing]:
    """Return where an image may point in a piece of sky, those with most votes first.

    Needs no position; `scale_rad_px` may be wrong by a factor of `scale_factor`.

    Parameters
    ----------
    image
        Positions of the brightest stars from the image's centre, x + iy in pixels, shape (n,);
        about as many for an area as `sky` has.
    """
    from scipy.spatial import cKDTree

    rays = pixel_vectors(image, scale_rad_px)
    here = quads_of(rays, cKDTree(rays), n_neighbours=IMAGE_NEIGHBOURS)
    if sky.code_tree is None or not len(here.codes):
        return []
    vote_radius_px = max(VOTE_RADIUS_OF_DIAGONAL * diagonal_px, MIN_VOTE_RADIUS_PX)
    found: list[Pointing] = []
    for mirrored in parities:
        # Turned over, a code's imaginary parts change their sign and nothing else.
        codes = here.codes * np.array([1.0, 1.0, -1.0, -1.0]) if mirrored else here.codes
        lists = sky.code_tree.query_ball_point(codes, CODE_TOLERANCE)
        n_each = np.array([len(one) for one in lists])
        if not n_each.sum():
            continue
        mine = np.repeat(np.arange(len(codes)), n_each)
        theirs = np.concatenate([np.array(one, np.intp) for one in lists if one])
        ratio = sky.quads.size_rad[theirs] / here.size_rad[mine]
        fits = np.flatnonzero(np.abs(np.log(ratio)) <= np.log(scale_factor))[:MAX_QUAD_MATCHES]
        mine, theirs = mine[fits], theirs[fits]
        if len(mine):
            points = np.conj(image) if mirrored else image
            scale, rotation = _turned(points[here.stars[mine]], sky, theirs, scale_rad_px)
            votes = _agreeing(points[:MAX_VOTING_STARS], sky, scale, rotation, vote_radius_px)
            found += [
                Pointing(
                    rotation=rotation[k],
                    scale_rad_px=float(scale[k]),
                    mirrored=mirrored,
                    votes=int(votes[k]),
                )
                for k in np.flatnonzero(votes >= MIN_QUAD_VOTES)
            ]
    found.sort(key=lambda one: -one.votes)
    return found[:max_candidates]


def _turned(
    corners: NDArray[np.complex128],
    sky: SkyQuads,
    theirs: NDArray[np.intp],
    scale_rad_px: float,
) -> tuple[FloatArray, FloatArray]:
    """Return scale (n,) and rotation (n, 3, 3) that lay quads of pixels (n, 4) on those of the sky.

    By Kabsch's method: W. Kabsch (1976), Acta Cryst. A32, 922.
    """
    of_sky = sky.vectors[sky.quads.stars[theirs]]
    scale = np.full(len(theirs), scale_rad_px)
    for _ in range(SCALE_ROUNDS):  # far from the centre the plane is stretched, by the scale
        scale = scale * _extent(of_sky) / _extent(_rays(corners, scale))
    u, _, vt = np.linalg.svd(np.einsum("nki,nkj->nij", of_sky, _rays(corners, scale)))
    u[:, :, 2] *= np.linalg.det(u @ vt)[:, None]  # no mirror
    return scale, u @ vt


def _agreeing(
    points: NDArray[np.complex128],
    sky: SkyQuads,
    scale: FloatArray,
    rotation: FloatArray,
    radius_px: float,
) -> NDArray[np.intp]:
    """Return on how many stars of the sky each of the candidates (n,) puts one of the pixels."""
    votes = np.zeros(len(scale), np.intp)
    for start in range(0, len(scale), VOTES_CHUNK):
        part = slice(start, start + VOTES_CHUNK)
        limit = radius_px * scale[part]
        rays = _rays(np.broadcast_to(points, (len(limit), len(points))), scale[part])
        places = np.einsum("nij,nkj->nki", rotation[part], rays)
        apart, _ = sky.star_tree.query(places, distance_upper_bound=float(limit.max()))
        votes[part] = (apart <= limit[:, None]).sum(axis=1)
    return votes


def _rays(corners: NDArray[np.complex128], scale_rad_px: FloatArray) -> FloatArray:
    """Return directions (n, k, 3) of pixels (n, k), each row with a scale of its own."""
    flat = corners * scale_rad_px[:, None]
    return _normalized(np.stack([flat.real, flat.imag, np.ones(flat.shape)], axis=-1))


def _extent(vectors: FloatArray) -> FloatArray:
    """Return the rms distance of groups of directions (n, k, 3) from their middle."""
    return np.sqrt(vectors.var(axis=1).sum(axis=1))


def _normalized(vectors: FloatArray) -> FloatArray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
