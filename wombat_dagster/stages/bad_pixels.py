"""Makes the maps of bad pixels of a night: which frames tell, where the map lies, what is believed.

The rules are `science.bad_pixels`'. A map is made again only when its inputs change.
"""

import contextlib
import datetime as dt
import hashlib
import io
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io import fits
from numpy.typing import NDArray

from wombat_dagster.domain import (
    BadPixelMap,
    FrameGroup,
    FrameKind,
    Master,
    NoCalibration,
    RawFrame,
    slug,
)
from wombat_dagster.observatory import Observatory
from wombat_dagster.science import bad_pixels, overscan
from wombat_dagster.science.bad_pixels import BadPixel
from wombat_dagster.science.detection import detect_stars
from wombat_dagster.science.sampling import spread
from wombat_dagster.store import headers
from wombat_dagster.store.frames import (
    HASH_CARD,
    UnreadableFrame,
    array_hash,
    card_text,
    image_size,
    read_header,
    read_image,
    read_master,
    write_fits_atomic,
)
from wombat_dagster.store.stacks import FrameStack

log = logging.getLogger(__name__)

RULES = "1"  # goes up when the rules change, so that maps are made again
INPUTS_CARD = "WOMBINP"
SCRATCH = ".scratch"  # below the products: hidden, and a disk
MAX_LIGHTS = 12
MAX_BIASES = 9
MIN_EXPOSURE_OF_MEDIAN = 0.5  # a hot pixel need not show in a short light
BAND_BYTES = 2**24  # of the lights' rows in float32: bounds the memory
NOISE_STRIPS, NOISE_STRIP_ROWS = 8, 32  # of a frame, to see its noise
MAX_PICTURE_PX = 800

Image = NDArray[Any]
Bits = NDArray[np.uint8]

SOURCES = {
    "hot": BadPixel.HOT,
    "dead_or_odd": BadPixel.RESPONSE,
    "noisy": BadPixel.NOISY,
    "from_lights": BadPixel.LIGHT,
}
COLOURS = {  # in the picture; the later wins
    BadPixel.NOISY: (150, 80, 200),
    BadPixel.LIGHT: (240, 150, 30),
    BadPixel.HOT: (220, 40, 40),
    BadPixel.RESPONSE: (40, 90, 220),
}
EDGE_COLOUR = (160, 160, 160)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Inputs:
    """What the map of one group of a night is made of."""

    date: dt.date
    group: FrameGroup
    lights: tuple[RawFrame, ...]  # a sample of them
    longest_light_s: float | None
    biases: tuple[RawFrame, ...]
    bias: Master | None
    dark: Master | None
    flats: tuple[Master, ...]

    @property
    def masters(self) -> tuple[Master, ...]:
        return tuple(m for m in (self.bias, self.dark, *self.flats) if m is not None)

    @property
    def words(self) -> str:
        """Words for a reason: ``1 light, no biases, no master (1024x1024 1x1)``."""
        n_lights, n_biases = len(self.lights), len(self.biases)
        masters = ", ".join(f"master {m.kind}" for m in self.masters) or "no master"
        return f"{n_lights} lights, {n_biases} biases, {masters} ({self.group.shape_words})"

    @property
    def hash(self) -> str:
        """Hash of everything that the map depends on."""
        frames = [f.pixel_hash or f.path for f in (*self.lights, *self.biases)]
        masters = [f"{m.kind} {m.content_hash} {m.exposure_s}" for m in self.masters]
        words = [RULES, repr(self.longest_light_s), *frames, *masters]
        return hashlib.sha256("\n".join(words).encode()).hexdigest()


def make_bad_pixel_maps(observatory: Observatory, date: dt.date) -> tuple[BadPixelMap, ...]:
    """Make, or find, the night's maps of bad pixels, one per group of frames.

    Raises
    ------
    NoCalibration
        There is not one; the message says why for each group.
    """
    made, shortfalls = [], []
    for path, inputs in _inputs_by_path(observatory, date).items():
        try:
            made.append(_make_map(observatory, inputs, path))
        except NoCalibration as shortfall:
            shortfalls.append(str(shortfall))
    observatory.status.record_bad_pixel_maps(date, made)
    kept = {observatory.layout.product_file(one.path) for one in made}
    for path in _directory(observatory, date).glob("bad_pixels_*.fits"):
        if path not in kept:
            path.unlink(missing_ok=True)
    if not made:
        nothing = f"no usable frames on {date}"
        raise NoCalibration(f"no map of bad pixels: {'; '.join(shortfalls) or nothing}")
    for words in shortfalls:
        log.warning("%s", words)
    return tuple(made)


def borrows_newer_masters(
    observatory: Observatory, date: dt.date, *, tried: Mapping[str, str]
) -> bool:
    """Tell whether a map of a night stands on other masters of other nights than there are now.

    `tried`: what the maps were last begun with (`inputs_of_maps`), made or not.
    """
    for path, inputs in _inputs_by_path(observatory, date).items():
        borrows = any(master.date != date for master in inputs.masters)
        was_tried = tried.get(observatory.layout.relative_to_products(path)) == inputs.hash
        if borrows and not was_tried and _inputs_card(path) != inputs.hash:
            return True
    return False


def inputs_of_maps(observatory: Observatory, date: dt.date) -> dict[str, str]:
    """Return the hash of all that each map of a night would be made of now, by its path."""
    return {
        observatory.layout.relative_to_products(path): inputs.hash
        for path, inputs in _inputs_by_path(observatory, date).items()
    }


def _inputs_by_path(observatory: Observatory, date: dt.date) -> "dict[Path, _Inputs]":
    groups = _groups(observatory.status.night_frames(date))
    shapes = Counter(group.shape_words for group in groups)
    return {
        _path(observatory, date, group, is_alone=shapes[group.shape_words] == 1): _inputs(
            observatory, date, group
        )
        for group in groups
    }


def read_map(observatory: Observatory, one: BadPixelMap) -> Bits:
    """Return the bits of a map, `science.bad_pixels.BadPixel`, shape (ny, nx).

    Raises
    ------
    NoCalibration
        The file is no longer what the night's run recorded.
    """
    path = observatory.layout.product_file(one.path)
    try:
        bits, _ = read_image(path)
    except (UnreadableFrame, OSError) as error:
        raise NoCalibration(f"{one.path}, chosen as map of bad pixels: {error}") from error
    if array_hash(bits) != one.content_hash:
        raise NoCalibration(f"{one.path} is not the map of bad pixels that was recorded")
    return bits


# ----------------------------------------------------------------------------------- what goes in


def _groups(frames: Iterable[RawFrame]) -> list[FrameGroup]:
    """Return the groups of a night's usable frames, the lights' first."""
    in_order = sorted(frames, key=lambda frame: frame.kind is not FrameKind.LIGHT)
    return list(dict.fromkeys(f.group for f in in_order if f.group and f.reason is None))


def _inputs(observatory: Observatory, date: dt.date, group: FrameGroup) -> _Inputs:
    usable = [
        frame
        for frame in observatory.status.night_frames(date)
        if frame.reason is None and frame.group == group
    ]
    lights = [frame for frame in usable if frame.kind is FrameKind.LIGHT]
    masters = [m for m in observatory.status.masters() if _is_of(m.group, group)]
    by_filter: dict[str | None, list[Master]] = defaultdict(list)
    for master in masters:
        if master.kind is FrameKind.FLAT:
            by_filter[master.filter].append(master)
    max_age_days = observatory.settings.calibration.max_age_days
    nearest = [_nearest(flats, date, max_age_days) for flats in by_filter.values()]
    return _Inputs(
        date=date,
        group=group,
        lights=_sample(lights),
        longest_light_s=max((f.exposure_s for f in lights if f.exposure_s), default=None),
        biases=tuple(_evenly([f for f in usable if f.kind is FrameKind.BIAS], MAX_BIASES)),
        bias=_nearest([m for m in masters if m.kind is FrameKind.BIAS], date, max_age_days),
        dark=_nearest([m for m in masters if m.kind is FrameKind.DARK], date, max_age_days),
        flats=tuple(flat for flat in nearest if flat is not None),
    )


def _is_of(theirs: FrameGroup, group: FrameGroup) -> bool:
    """Tell whether a master is of a group; what its header does not say does not part them."""
    return (
        theirs.shape_words == group.shape_words
        and (theirs.camera or group.camera) == (group.camera or theirs.camera)
        and (theirs.readout or group.readout) == (group.readout or theirs.readout)
    )


def _nearest(masters: Sequence[Master], date: dt.date, max_age_days: int | None) -> Master | None:
    """Return the nearest in days, of darks the longest of that night.

    Another night's serves too: a map of the lights alone would be nearer to the observations of its
    night than the better one that the night with the darks has.
    """
    fit = [m for m in masters if max_age_days is None or abs((m.date - date).days) <= max_age_days]
    key = {m.path: (abs((m.date - date).days), m.date, -(m.exposure_s or 0.0), m.path) for m in fit}
    return min(fit, key=lambda m: key[m.path], default=None)


def _sample(lights: Sequence[RawFrame]) -> tuple[RawFrame, ...]:
    """Return lights spread over the night and the targets, in time order, without short ones."""
    if not lights:
        return ()
    shortest_s = MIN_EXPOSURE_OF_MEDIAN * float(np.median([f.exposure_s or 0.0 for f in lights]))
    targets: dict[str | None, list[RawFrame]] = defaultdict(list)
    long = [frame for frame in lights if (frame.exposure_s or 0.0) >= shortest_s]
    for frame in long:
        if frame.trim == long[0].trim:
            targets[frame.target].append(frame)
    share = -(-MAX_LIGHTS // len(targets))
    chosen = [frame for frames in targets.values() for frame in _in_time(frames, share)]
    in_order = sorted(chosen, key=lambda frame: (frame.start_utc or "", frame.path))
    return tuple(_in_time(in_order, MAX_LIGHTS))


def _in_time(frames: Sequence[RawFrame], at_most: int) -> list[RawFrame]:
    """Return frames spread over the night: mostly the same ones when late frames arrive."""
    days = np.array([f.start_utc for f in frames], "datetime64[ms]").astype(float) / 864e5
    return [frames[i] for i in spread(days, at_most)]


def _evenly(frames: Sequence[RawFrame], at_most: int) -> list[RawFrame]:
    if len(frames) <= at_most:
        return list(frames)
    return [frames[i] for i in np.linspace(0, len(frames) - 1, at_most).round().astype(int)]


# ------------------------------------------------------------------------------- where it goes to


def _directory(observatory: Observatory, date: dt.date) -> Path:
    return observatory.layout.products / slug(f"{date:%Y%m%d}")


def _path(observatory: Observatory, date: dt.date, group: FrameGroup, *, is_alone: bool) -> Path:
    across, _, down = group.binning.partition("x")
    binning = across if across == down else group.binning
    stem = f"bad_pixels_{group.width_px}x{group.height_px}_bin{slug(binning)}"
    if not is_alone:  # several cameras or readouts of one shape
        stem += f"_{slug(f'{group.camera} {group.readout}')}"
    return _directory(observatory, date) / f"{stem}.fits"


def _make_map(observatory: Observatory, inputs: _Inputs, path: Path) -> BadPixelMap:
    relative = observatory.layout.relative_to_products(path)
    known = {one.path: one for one in observatory.status.bad_pixel_maps()}
    is_same = relative in known and _inputs_card(path) == inputs.hash
    if is_same and _holds(observatory, known[relative]):
        return known[relative]
    try:
        found = _Found(observatory, inputs)
    except (UnreadableFrame, OSError, ValueError) as error:  # gone or cut since the scan
        raise NoCalibration(f"{inputs.date}: {inputs.words}: {error}") from error
    if not found.sources:
        reasons = f" ({'; '.join(found.notes)})" if found.notes else ""
        raise NoCalibration(
            f"{inputs.date}: {inputs.words}: {bad_pixels.MIN_LIGHTS} lights or a master wanted"
            f"{reasons}"
        )
    n_bad = int(np.count_nonzero(found.bits))
    if n_bad > bad_pixels.MAX_BAD_FRACTION * found.bits.size:
        raise NoCalibration(f"{inputs.date}: {_too_many(n_bad, found.bits.size)}, no map made")
    content_hash = array_hash(found.bits)
    header = _cards(inputs, found, content_hash)
    write_fits_atomic(path, fits.HDUList([fits.PrimaryHDU(found.bits, header)]))
    log.info("%s: %d bad pixels of %s", inputs.date, n_bad, inputs.group.shape_words)
    return BadPixelMap(
        date=inputs.date,
        group=inputs.group,
        path=relative,
        content_hash=content_hash,
        n_bad=n_bad,
        sources=tuple(found.sources),
        notes=tuple(found.notes),
    )


def _holds(observatory: Observatory, one: BadPixelMap) -> bool:
    """Tell whether a map's file still has the pixels that were recorded."""
    try:
        read_map(observatory, one)
    except NoCalibration:
        return False
    return True


def _inputs_card(path: Path) -> str | None:
    try:
        return headers.text(read_header(path), INPUTS_CARD)
    except (UnreadableFrame, OSError):
        return None


def _too_many(n_bad: int, n_px: int) -> str:
    most = 100 * bad_pixels.MAX_BAD_FRACTION
    return f"{n_bad} pixels would be bad, {100 * n_bad / n_px:.1f} %, at most {most:g} % believed"


def _cards(inputs: _Inputs, found: "_Found", content_hash: str) -> fits.Header:
    header = fits.Header()
    header["IMAGETYP"] = "Bad pixel map"
    header["NIGHT"] = inputs.date.isoformat()
    header["XBINNING"], header["YBINNING"] = (int(n) for n in inputs.group.binning.split("x"))
    if inputs.group.camera:
        header["INSTRUME"] = card_text(inputs.group.camera)
    header["NBAD"] = (int(np.count_nonzero(found.bits)), "pixels that are not 0")
    for number, (name, n) in enumerate(counts_by_source(found.bits).items()):
        header[f"NBAD{SOURCES[name]}"] = (n, f"bit {number}: {name.replace('_', ' ')}")
    header[INPUTS_CARD] = (inputs.hash, "inputs and rules")
    header[HASH_CARD] = (content_hash, "SHA-256 of the pixels")
    for master in inputs.masters:
        header["HISTORY"] = card_text(f"master {master.path}")
        header["HISTORY"] = f"  pixels sha256 {master.content_hash}"
    for frame in (*inputs.lights, *inputs.biases):
        header["HISTORY"] = card_text(f"input {frame.path}")
    for words in found.notes:
        header["HISTORY"] = card_text(words)
    return header


# ---------------------------------------------------------------------------------- what is found


class _Found:
    """The bits of a map, what they were found in, and what was learnt on the way."""

    def __init__(self, observatory: Observatory, inputs: _Inputs) -> None:
        self._observatory, self._inputs = observatory, inputs
        self.bits: Bits = np.zeros((inputs.group.height_px, inputs.group.width_px), np.uint8)
        self.sources: list[FrameKind] = []
        self.notes: list[str] = []
        bias = self._pixels(inputs.bias)
        flats = {flat.filter: pixels for flat in inputs.flats if (pixels := self._pixels(flat))}
        dark = self._pixels(inputs.dark)
        offset = bias[0] if bias else None
        if offset is None and inputs.dark and inputs.dark.bias_hash is None and dark:
            offset = dark[0]  # it holds the bias
        with self._opened(inputs.lights) as stack:
            lights = _Lights(self._observatory, inputs, stack, offset=offset, flats=flats)
            self._look_at_biases(bias[0] if bias else None)
            if dark is not None and inputs.dark is not None:
                hot = bad_pixels.hot_in_dark(
                    dark[0],
                    exposure_s=inputs.dark.exposure_s or 0.0,
                    light_exposure_s=inputs.longest_light_s,
                    light_noise_adu=lights.noise_of_longest_adu,
                )
                self._add(FrameKind.DARK, hot * np.uint8(BadPixel.HOT))
            for flat, unusable in flats.values():
                odd = bad_pixels.odd_in_flat(flat, unusable)
                self._add(FrameKind.FLAT, odd * np.uint8(BadPixel.RESPONSE))
            if len(stack) >= bad_pixels.MIN_LIGHTS:
                bits, words = lights.bad_pixels()
                self.notes.append(words)
                self._add(FrameKind.LIGHT, bits)

    def _add(self, kind: FrameKind, bits: Bits) -> None:
        """Take over what was found in frames of a kind, unless it is too much to be true."""
        n_bad = int(np.count_nonzero(bits))
        if n_bad > bad_pixels.MAX_BAD_FRACTION * bits.size:
            self.notes.append(f"{kind}: {_too_many(n_bad, bits.size)}: left out")
            return
        self.bits |= bits
        if kind not in self.sources:
            self.sources.append(kind)

    def _pixels(self, master: Master | None) -> tuple[Image, Image | None] | None:
        """Return a master's pixels and where they are unusable, None when it cannot serve."""
        if master is None:
            return None
        try:
            image, mask, _ = read_master(self._observatory.layout.raw_path(master.path))
        except (UnreadableFrame, OSError) as error:
            self.notes.append(f"{master.path} left out: {error}")
            return None
        if array_hash(image) != master.content_hash or image.shape != self.bits.shape:
            self.notes.append(f"{master.path} left out: changed since its night was run")
            return None
        unusable = ~np.isfinite(image) | (image <= 0) if master.kind is FrameKind.FLAT else None
        if unusable is not None and mask is not None:
            unusable |= mask > 0
        return image, unusable

    @contextlib.contextmanager
    def _opened(self, frames: Sequence[RawFrame]) -> Iterator[FrameStack]:
        layout = self._observatory.layout
        paths = [layout.raw_path(frame.path) for frame in frames]
        window = None
        if frames and frames[0].trim is not None:
            nx, ny = image_size(read_header(paths[0]))
            window = overscan.window_of(frames[0].trim, (ny, nx))
        with FrameStack(paths, layout.products / SCRATCH, window=window) as stack:
            self.notes += [f"{frames[i].path} left out: {w}" for i, w in stack.unreadable.items()]
            yield stack

    def _look_at_biases(self, master: Image | None) -> None:
        frames = [f for f in self._inputs.biases if f.trim == self._inputs.biases[0].trim]
        if len(frames) < 2:
            return
        with self._opened(frames) as stack:
            if len(stack) < 2:
                return
            noise_adu = bad_pixels.read_noise_of(stack.frame(0), stack.frame(1))
            if not noise_adu > 0:
                self.notes.append("bias: no noise in them, left out")
                return
            if master is not None:
                odd = bad_pixels.odd_in_bias(master, read_noise_adu=noise_adu)
                self._add(FrameKind.BIAS, odd * np.uint8(BadPixel.HOT))
            if len(stack) >= bad_pixels.MIN_FLICKERING_BIASES:
                noisy = [
                    bad_pixels.flickering(band, read_noise_adu=noise_adu)
                    for _, band in stack.bands()
                ]
                self._add(FrameKind.BIAS, np.concatenate(noisy) * np.uint8(BadPixel.NOISY))


class _Lights:
    """The sample of lights, bias and flat taken out as far as there are any, read in bands.

    Without that a bright sky would show every pixel's response, which the flat takes care of.
    """

    def __init__(
        self,
        observatory: Observatory,
        inputs: _Inputs,
        stack: FrameStack,
        *,
        offset: Image | None,
        flats: dict[str | None, tuple[Image, Image | None]],
    ) -> None:
        self._stack, self._offset = stack, offset
        self._flats = {
            filter: flat if unusable is None else np.where(unusable, np.float32(1.0), flat)
            for filter, (flat, unusable) in flats.items()
        }
        self._frames = [f for i, f in enumerate(inputs.lights) if i not in stack.unreadable]
        self._levels_adu = [_level_adu(observatory, frame) for frame in self._frames]
        self._noise_adu = [self._noise(index) for index in range(len(stack))]
        longest = [
            noise
            for noise, frame in zip(self._noise_adu, self._frames, strict=True)
            if frame.exposure_s == inputs.longest_light_s
        ] or self._noise_adu
        self.noise_of_longest_adu = float(np.median(longest)) if longest else None

    def bad_pixels(self) -> tuple[Bits, str]:
        """Return the bits that the lights give, and in words what they are based on."""
        shape = self._stack.shape
        stars = [
            detect_stars(
                self._band(index, slice(0, shape[0])),
                threshold_sigma=bad_pixels.POINTING_SIGMAS,
                max_stars=2 * bad_pixels.MAX_STARS_OF_POINTING,
            )
            for index in range(len(self._stack))
        ]
        limits = bad_pixels.neighbour_limits(stars)
        out = bad_pixels.Outliers.joined(
            [
                bad_pixels.always_out(
                    np.stack([self._band(index, band) for index in range(len(self._stack))]),
                    noise_adu=self._noise_adu,
                    rows=rows,
                    neighbour_limits=limits,
                )
                for band, rows in self._bands()
            ]
        )
        moved = bad_pixels.pointings(stars, shape, out.sharp)
        n_pointings = "one pointing" if len(moved) < 2 else f"at least {len(moved)} pointings"
        words = f"{len(self._stack)} lights in {n_pointings}"
        if bad_pixels.expected_by_chance(out, moved) > bad_pixels.MAX_EXPECTED_BY_CHANCE:
            words += ": only what is sharper than a star"
        return bad_pixels.bad_in_lights(out, moved), words

    def _bands(self) -> Iterator[tuple[slice, slice]]:
        """Yield rows of the frame, and which of them are wanted: the others are their halo."""
        ny, nx = self._stack.shape
        step = max(1, BAND_BYTES // (4 * nx * len(self._stack)))
        for start in range(0, ny, step):
            stop = min(start + step, ny)
            first, last = max(0, start - bad_pixels.HALO_PX), min(ny, stop + bad_pixels.HALO_PX)
            yield slice(first, last), slice(start - first, stop - first)

    def _band(self, index: int, rows: slice) -> Image:
        """Return rows of a light."""
        frame = self._frames[index]
        raw = np.empty((1, rows.stop - rows.start, self._stack.shape[1]), self._stack.dtype)
        self._stack.read(rows, [index], raw)
        pixels = raw[0].astype(np.float32) - np.float32(self._levels_adu[index])
        if self._offset is None or "bias" in frame.steps_done:
            return pixels
        pixels -= self._offset[rows]
        flat = self._flats.get(frame.filter, next(iter(self._flats.values()), None))
        if flat is not None and "flat" not in frame.steps_done:
            pixels /= flat[rows]
        return pixels

    def _noise(self, index: int) -> float:
        """Return the noise of a pixel of the sky, from strips all over the frame."""
        ny, _ = self._stack.shape
        n_rows = min(NOISE_STRIP_ROWS, ny)
        starts = np.linspace(0, ny - n_rows, NOISE_STRIPS).astype(int).tolist()
        strips = [self._band(index, slice(start, start + n_rows)) for start in starts]
        return bad_pixels.noise_of(np.stack([bad_pixels.excess(strip) for strip in strips]))


def _level_adu(observatory: Observatory, frame: RawFrame) -> float:
    """Return the level that a light has above one that the master bias is of."""
    if frame.overscan is None:
        return -(frame.pedestal_adu or 0.0)
    raw, _ = read_image(observatory.layout.raw_path(frame.path))
    return float(np.median(overscan.overscan_levels(raw, frame.overscan)))


# -------------------------------------------------------------------------------------- to look at


def counts_by_source(bits: Bits) -> dict[str, int]:
    """Return how many pixels of a map are bad for which reason; one may be for several."""
    return {name: int(np.count_nonzero(bits & bit)) for name, bit in SOURCES.items()}


def map_png(bits: Bits) -> bytes:
    """Return a picture of a map, upright as the sky is shown: red hot, blue dead or odd.

    Orange is what only the lights show, violet what only flickers. At most 800 pixels wide or
    high: a pixel of the picture has the colour of the worst below it, and its neighbours too, or
    nobody would see it. The frame's edge is grey.
    """
    from matplotlib.image import imsave

    block = -(-max(bits.shape) // MAX_PICTURE_PX)
    ny, nx = (-(-n // block) for n in bits.shape)
    padded = np.zeros((ny * block, nx * block), np.uint8)
    padded[: bits.shape[0], : bits.shape[1]] = bits
    blocks = padded.reshape(ny, block, nx, block)
    picture = np.full((ny, nx, 3), 255, np.uint8)
    picture[[0, -1]] = picture[:, [0, -1]] = EDGE_COLOUR
    for bit, colour in COLOURS.items():
        picture[_widened(((blocks & bit) != 0).any(axis=(1, 3)))] = colour
    buffer = io.BytesIO()
    imsave(buffer, picture[::-1], format="png")
    return buffer.getvalue()


def _widened(marks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return marks with the eight neighbours of each."""
    wide = marks.copy()
    wide[1:] |= marks[:-1]
    wide[:-1] |= marks[1:]
    tall = wide.copy()
    tall[:, 1:] |= wide[:, :-1]
    tall[:, :-1] |= wide[:, 1:]
    return tall
