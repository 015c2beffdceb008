"""Adds stars of known light to raw frames that a camera took: for injection and recovery.

The light comes as a profile integrated over the pixels, through the master flat, with Poisson noise
of its own, and leaves whole counts that the camera could have written. Which light belongs to which
magnitude is the caller's: `net_share` says how much of a star an aperture with its sky annulus
measures. Headers stay as they are, to the byte.
"""

import gzip
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits

from wombat_dagster.domain import Aperture, FloatArray

NODES, WEIGHTS = np.polynomial.legendre.leggauss(6)  # of a pixel's width, each way
HALF_STAMP_FWHM = 8.0  # light beyond lies below the sky's noise of any star worth injecting
MIN_HALF_STAMP_PX = 8
OVERLAP_STEPS = 16  # of a pixel's width, each way: a circle's area to 1e-4
SCALING = ("BSCALE", "BZERO")  # how stored counts become numbers


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """An elliptical Moffat profile.

    `fwhm_px` is the geometric mean of its two, `axis_ratio` minor over major, `angle_deg` that of
    the major axis from +x towards +y.
    """

    fwhm_px: float
    beta: float
    axis_ratio: float = 1.0
    angle_deg: float = 0.0

    @property
    def half_stamp_px(self) -> int:
        """Half the width of the stamp that holds the light taken into account."""
        return max(int(np.ceil(HALF_STAMP_FWHM * self.fwhm_px)), MIN_HALF_STAMP_PX)

    def brightness(self, dx_px: FloatArray, dy_px: FloatArray) -> FloatArray:
        """Return the surface brightness at places from the centre, 1 in the middle."""
        turn = np.radians(self.angle_deg)
        along = dx_px * np.cos(turn) + dy_px * np.sin(turn)
        across = dy_px * np.cos(turn) - dx_px * np.sin(turn)
        scale_px = self.fwhm_px / (2 * np.sqrt(2 ** (1 / self.beta) - 1))
        radius2 = along**2 * self.axis_ratio + across**2 / self.axis_ratio
        return (1 + radius2 / scale_px**2) ** -self.beta


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """The shares of a star's light in the pixels around it, ``[y, x]``, which sum to 1.

    `left`, `bottom` is the pixel of the first share; (`x_px`, `y_px`) the star's centre.
    """

    x_px: float
    y_px: float
    left: int
    bottom: int
    shares: FloatArray


def star_stamp(x_px: float, y_px: float, profile: Profile) -> Stamp:
    """Return the light of a star at (`x_px`, `y_px`), each pixel's share integrated over it."""
    half = profile.half_stamp_px
    left, bottom = round(x_px) - half, round(y_px) - half
    nodes = np.arange(2 * half + 1)[:, None] + NODES[None, :] / 2  # pixel centres are integers
    dx = (left + nodes - x_px).ravel()
    dy = (bottom + nodes - y_px).ravel()
    fine = profile.brightness(dx[None, :], dy[:, None])
    n = 2 * half + 1
    weights = WEIGHTS / 2
    shares = np.einsum("yixj,i,j->yx", fine.reshape(n, len(NODES), n, len(NODES)), weights, weights)
    return Stamp(x_px=x_px, y_px=y_px, left=left, bottom=bottom, shares=shares / shares.sum())


def net_share(stamp: Stamp, aperture: Aperture) -> float:
    """Return the share of a star's light that an aperture about its centre, less the sky, measures.

    What the annulus holds of the star's own wings counts as sky, as it does when it is measured.
    """
    n = stamp.shares.shape[0]
    dx, dy = stamp.left - stamp.x_px + np.arange(n), stamp.bottom - stamp.y_px + np.arange(n)
    distance = np.hypot(dx[None, :], dy[:, None])
    step = (np.arange(OVERLAP_STEPS) + 0.5) / OVERLAP_STEPS - 0.5
    edge = np.abs(distance - aperture.radius_px) < 1.0
    overlap = (distance < aperture.radius_px).astype(float)
    for row, one in np.argwhere(edge):
        inside = np.hypot((dx[one] + step)[None, :], (dy[row] + step)[:, None])
        overlap[row, one] = np.mean(inside < aperture.radius_px)
    annulus = (distance >= aperture.sky_inner_px) & (distance <= aperture.sky_outer_px)
    sky = float(stamp.shares[annulus].mean()) if annulus.any() else 0.0
    return float((stamp.shares * overlap).sum()) - sky * float(overlap.sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class Camera:
    """What turns light into counts; `flat` (``[y, x]``, None: even) as it will be divided out."""

    gain_e_adu: float
    highest_adu: float | None  # where the converter stops; None: where the file's type does
    flat: FloatArray | None = None


def added_counts(
    shape: tuple[int, int],
    stamps: Sequence[Stamp],
    light_adu: Sequence[float],
    *,
    camera: Camera,
    rng: np.random.Generator,
) -> FloatArray:
    """Return the counts that stars of `light_adu`, on an even frame, add to one of `shape`.

    Every pixel has the Poisson noise of its added electrons; 0 where no star shines.
    """
    expected = np.zeros(shape)
    for stamp, light in zip(stamps, light_adu, strict=True):
        height, width = stamp.shares.shape
        x_from, y_from = max(stamp.left, 0), max(stamp.bottom, 0)
        x_to, y_to = min(stamp.left + width, shape[1]), min(stamp.bottom + height, shape[0])
        if x_from < x_to and y_from < y_to:
            cut = stamp.shares[
                y_from - stamp.bottom : y_to - stamp.bottom, x_from - stamp.left : x_to - stamp.left
            ]
            expected[y_from:y_to, x_from:x_to] += light * cut
    if camera.flat is not None:
        expected *= np.where(np.isfinite(camera.flat), camera.flat, 0.0)
    lit = expected > 0
    counts = np.zeros(shape)
    counts[lit] = rng.poisson(expected[lit] * camera.gain_e_adu) / camera.gain_e_adu
    return counts


def rewrite_image(
    source: Path,
    copy: Path,
    change: Callable[[FloatArray], FloatArray],
    *,
    highest_adu: float | None = None,
) -> None:
    """Write a copy of a FITS file with other counts in its first image and every other byte alike.

    `change` gets the counts as numbers, shape ``[y, x]``, and returns them anew. Where they differ
    they are rounded if the file holds whole numbers, and cut at `highest_adu` and at what the
    file's type can hold; the other pixels, blank ones too, keep their bytes. An image compressed
    inside its file (``.fz``) is written uncompressed, under the same name.

    Raises
    ------
    ValueError
        There is no image in the file.
    """
    content = source.read_bytes()
    is_packed = content[:2] == b"\x1f\x8b"
    if is_packed:
        content = gzip.decompress(content)
    content = _uncompressed(content)
    with fits.open(io.BytesIO(content), do_not_scale_image_data=True, memmap=False) as hdus:
        unit = next((u for u in hdus if u.is_image and u.header.get("NAXIS", 0) >= 2), None)
        if unit is None:
            raise ValueError(f"{source.name}: no image in it")
        stored = np.array(unit.data)
        start = unit.fileinfo()["datLoc"]
        scale, zero = float(unit.header.get("BSCALE", 1.0)), float(unit.header.get("BZERO", 0.0))
        blank = unit.header.get("BLANK")
    image = stored.reshape(stored.shape[-2:])
    changed = _stored_anew(image, change, scale, zero, blank, highest_adu)
    big_endian = changed.astype(changed.dtype.newbyteorder(">")).tobytes()
    content = content[:start] + big_endian + content[start + len(big_endian) :]
    copy.parent.mkdir(parents=True, exist_ok=True)
    copy.write_bytes(gzip.compress(content, mtime=0) if is_packed else content)


def _uncompressed(content: bytes) -> bytes:
    """Return a FITS file's bytes with a compressed image as the plain primary one."""
    with fits.open(io.BytesIO(content), do_not_scale_image_data=True, memmap=False) as hdus:
        packed = next((u for u in hdus if isinstance(u, fits.CompImageHDU)), None)
        if packed is None:
            return content
        plain = io.BytesIO()
        scaling = {name: packed.header[name] for name in SCALING if name in packed.header}
        unit = fits.PrimaryHDU(data=packed.data, header=packed.header)
        unit.header.update(scaling)  # the counts are as stored, which astropy does not know
        unit.writeto(plain, output_verify="ignore")
        return plain.getvalue()


def _stored_anew(
    stored: np.ndarray[Any, Any],
    change: Callable[[FloatArray], FloatArray],
    scale: float,
    zero: float,
    blank: int | None,
    highest_adu: float | None,
) -> np.ndarray[Any, Any]:
    """Return the numbers of the file, of their own type, after `change` of the counts."""
    before = stored.astype(np.float64) * scale + zero
    after = change(before.copy())
    touched = after != before
    if blank is not None:
        touched &= stored != blank
    if highest_adu is not None:  # what was higher than the converter's stop stays
        after = np.minimum(after, np.maximum(highest_adu, before))
    numbers = (after - zero) / scale
    if np.issubdtype(stored.dtype, np.integer):
        limits = np.iinfo(stored.dtype)
        numbers = np.clip(np.rint(numbers), limits.min, limits.max)
    result = stored.copy()
    result[touched] = numbers[touched].astype(stored.dtype)
    return result
