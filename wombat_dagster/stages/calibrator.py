"""Calibrates the light frames of an observation, one at a time; what is seen on the first look.

Files in, pixels out; the formula is `science.calibration`'s. What is found when a frame is first
read is kept beside the products, by the content of the frame and of its masters: it need not be
read again for that, not even when more frames of the night arrive.
"""

import datetime as dt
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io.fits.verify import VerifyError
from numpy.typing import NDArray

from wombat_dagster.domain import (
    NOCAL,
    CalibrationChoice,
    Detections,
    DetectorFacts,
    MaskBit,
    Master,
    NoCalibration,
    Observation,
    RawFrame,
)
from wombat_dagster.observatory import Observatory
from wombat_dagster.science import calibration, cosmic_rays, flats, overscan
from wombat_dagster.science.calibration import Calibration
from wombat_dagster.science.detection import detect_stars
from wombat_dagster.science.detector import RawExtremes, raw_extremes
from wombat_dagster.stages.bad_pixels import read_map
from wombat_dagster.store.arrays import content_key, read_arrays, write_arrays
from wombat_dagster.store.frames import (
    STRUCTURE_CARD,
    CardContent,
    Cards,
    UnreadableFrame,
    array_hash,
    card_text,
    in_bands,
    opened_image,
    read_header,
    read_image_and_cards,
    read_master,
    read_reduced,
    with_cards,
    without_wcs,
    write_reduced_bands,
)
from wombat_dagster.store.layout import change_since
from wombat_dagster.store.tables import UnreadableProduct

# Each goes up when the same frame would come out otherwise: looked at, and calibrated.
LOOK_RULES = "1"
CALIBRATION_RULES = "1"
MADE_BY = "REDUKEY"  # card of a reduced frame: what it is made of, and how its header was left
RAW_SECTIONS = ("BIASSEC ", "TRIMSEC ", "DATASEC ", "CCDSEC  ")  # cards that hold no longer
MAX_NOT_NUMBERS = 0.1  # part of the pixels of a usable frame

Image = NDArray[np.float32]
Mask = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, kw_only=True)
class RawPixels:
    """A raw frame as read: its counts, these less the overscan (None: the same), its cards."""

    counts: NDArray[Any]
    less_overscan: NDArray[Any] | None
    cards: Cards


class Calibrator:
    """Calibrates the lights of one observation with the masters that were chosen, read once.

    Raises
    ------
    NoCalibration
        A file is no longer what was chosen.
    """

    def __init__(self, observatory: Observatory, choice: CalibrationChoice) -> None:
        self._observatory, self.choice = observatory, choice
        self._bias, self._dark_per_s, self._flat = None, None, None
        self._unusable: Mask | None = None
        done = choice.already_done
        if choice.bias is not None and "bias" not in done:
            self._bias = self._read(choice.bias)
        if choice.dark is not None and "dark" not in done:
            dark = self._read(choice.dark)
            if choice.bias is None and "bias" not in done:
                self._bias = dark  # bias+dark of the lights' own exposure
            else:
                assert choice.dark.exposure_s
                self._dark_per_s = dark / np.float32(choice.dark.exposure_s)
        if choice.flat is not None and "flat" not in done:
            self._flat = self._read_flat(choice.flat)
        if choice.bad_pixels is not None:
            self._forbid(read_map(observatory, choice.bad_pixels) != 0, MaskBit.BAD)

    def _read(self, master: Master) -> Image:
        image, _ = self._pixels_of(master)
        self._forbid(np.isnan(image), MaskBit.BAD | MaskBit.EDGE)
        return image

    def _read_flat(self, master: Master) -> Image:
        flat, mask = self._pixels_of(master)
        without_data = np.isnan(flat)
        if not master.made_by_us:  # may have any level, and dark corners
            flat, unusable = flats.normalised_master_flat(flat)
            if mask is not None:
                unusable = unusable | (mask > 0)
        else:
            unusable = ~(flat > 0) if mask is None else mask > 0
        self._forbid(unusable, MaskBit.BAD)
        self._forbid(without_data, MaskBit.EDGE)
        return np.where(unusable, np.float32(1.0), flat)

    def _pixels_of(self, master: Master) -> tuple[Image, Mask | None]:
        try:
            image, mask, _ = read_master(self._observatory.layout.raw_path(master.path))
        except (UnreadableFrame, OSError) as error:
            words = f"{master.path}, chosen as master {master.kind}: {error}"
            raise NoCalibration(words) from error
        if array_hash(image) != master.content_hash:
            raise NoCalibration(
                f"{master.path} is not the master {master.kind} that was chosen:"
                f" it was changed since the night {master.date} was run"
            )
        return image, mask

    def _forbid(self, where: NDArray[np.bool_], bits: int) -> None:
        """Mark pixels that nothing can be said of, in any frame."""
        if not where.any():
            return
        if self._unusable is None:
            self._unusable = np.zeros(where.shape, np.uint8)
        self._unusable[where] |= np.uint8(bits)

    def read(self, frame: RawFrame, path: Path) -> RawPixels:
        """Return a raw frame, trimmed, from `path`: its own or that of a copy.

        Raises
        ------
        UnreadableFrame, OSError
            It cannot be read, is another than was looked at, or has no such sections.
        """
        counts, cards = read_image_and_cards(path)
        self._refuse_changed(frame)
        if frame.overscan is None and frame.trim is None:
            return RawPixels(counts=counts, less_overscan=None, cards=cards)
        try:
            trimmed = overscan.prepare(counts, overscan=None, trim=frame.trim)
            less_overscan = None
            if frame.overscan is not None:
                less_overscan = overscan.prepare(counts, overscan=frame.overscan, trim=frame.trim)
        except ValueError as error:
            raise UnreadableFrame(str(error)) from error
        return RawPixels(counts=trimmed, less_overscan=less_overscan, cards=cards)

    def _refuse_changed(self, frame: RawFrame) -> None:
        """Raise UnreadableFrame for what was read of a file that was replaced after the scan.

        Asked after the reading, which may take its time or be of a copy.
        """
        change = change_since(frame, self._observatory.layout.raw_path(frame.path))
        if change is not None:
            raise UnreadableFrame(change)

    def _unchanged(self, frame: RawFrame, bands: Iterable[Image]) -> Iterator[Image]:
        """Yield the bands of a frame, and refuse it after the last if its file was replaced."""
        yield from bands
        self._refuse_changed(frame)

    def _calibration(self, frame: RawFrame, facts: DetectorFacts | None) -> Calibration:
        assert frame.exposure_s is not None
        return Calibration(
            bias=self._bias,
            dark_per_s=self._dark_per_s,
            exposure_s=frame.exposure_s,
            flat=self._flat,
            unusable=self._unusable,
            offset_adu=offset_adu(frame, self.choice),
            saturation_adu=facts.saturation_adu.value if facts else None,
            linearity_adu=facts.linearity_adu.value if facts else None,
        )

    def calibrate(
        self, frame: RawFrame, raw: RawPixels, facts: DetectorFacts | None
    ) -> tuple[Image, Mask]:
        """Return image and mask; without `facts` no pixel is marked for its count."""
        by = self._calibration(frame, facts)
        return calibration.calibrate(raw.counts, by, less_overscan=raw.less_overscan)

    def finished(
        self, frame: RawFrame, raw: RawPixels, facts: DetectorFacts
    ) -> tuple[Image, Mask, int | None]:
        """Return image, mask, and how many pixels were cleaned of cosmic rays (None: not done)."""
        image, mask = self.calibrate(frame, raw, facts)
        gain, noise = facts.gain_e_adu, facts.read_noise_e
        if gain is None or noise is None or not self._is_cleaned(facts):
            return image, mask, None
        image, hit = cosmic_rays.clean(
            image,
            mask,
            gain_e_adu=gain.value,
            read_noise_e=noise.value,
            saturation_adu=facts.saturation_adu.value,
        )
        return image, mask, int(np.count_nonzero(hit))

    def _is_cleaned(self, facts: DetectorFacts) -> bool:
        is_wanted = self._observatory.settings.calibration.cosmic_rays
        return is_wanted and why_not_cleaned(facts) is None

    def cards(
        self, frame: RawFrame, of_raw: Cards, facts: DetectorFacts, n_cleaned: int | None
    ) -> Cards:
        """Return the raw frame's cards with those that say how it was reduced."""
        made = self._made_cards(frame, facts)
        if has_zero(self.choice) and any(card.startswith("PEDESTAL=") for card in of_raw):
            made["PEDESTAL"] = (0.0, "adu, removed")
        if frame.overscan is not None or frame.trim is not None:
            of_raw = tuple(card for card in of_raw if not card.startswith(RAW_SECTIONS))
        if n_cleaned is not None:
            made["NCOSMIC"] = (n_cleaned, "pixels cleaned of cosmic rays")
        cards = with_cards(without_wcs(of_raw), made)
        key = (self._frame_key(frame, facts, cards), "what it is made of, and this header")
        return with_cards(cards, {MADE_BY: key})

    def _made_cards(self, frame: RawFrame, facts: DetectorFacts) -> dict[str, CardContent]:
        """Return the cards that say how a frame is reduced, as far as the masters tell."""
        assert frame.start_utc is not None
        assert frame.pixel_hash is not None
        cards: dict[str, CardContent] = {}
        start = dt.datetime.fromisoformat(frame.start_utc)
        middle = start + dt.timedelta(seconds=(frame.exposure_s or 0.0) / 2)
        cards["BUNIT"] = "adu"
        cards["RAWFILE"] = card_text(frame.path)
        cards["RAWHASH"] = (frame.pixel_hash, "SHA-256 of the raw pixels")
        cards["DATE-BEG"] = (frame.start_utc, "start of exposure, UTC")
        cards["DATE-AVG"] = (middle.isoformat(timespec="milliseconds"), "mid-exposure, UTC")
        choice = self.choice
        for name, master in (("BIAS", choice.bias), ("DARK", choice.dark), ("FLAT", choice.flat)):
            cards[f"{name}FILE"] = card_text(master.path) if master else NOCAL
            if master:
                cards[f"{name}HASH"] = master.content_hash
                noise = master.noise
                if name == "DARK" and self._dark_per_s is not None and noise is not None:
                    assert master.exposure_s
                    noise *= (frame.exposure_s or 0.0) / master.exposure_s
                if noise is not None:
                    words = "relative" if name == "FLAT" else "adu"
                    cards[f"{name}NOIS"] = (noise, f"{words}, random error of a master's pixel")
        if choice.already_done:
            cards["CALDONE"] = (", ".join(choice.already_done), "applied before wombat")
        if choice.bad_pixels is not None:
            cards["BADPHASH"] = choice.bad_pixels.content_hash
        if offset := offset_adu(frame, self.choice):
            cards["PEDADDED"] = (offset, "adu, to have the bias's zero")
        for name, section in (("OVERUSED", frame.overscan), ("TRIMUSED", frame.trim)):
            if section is not None:
                cards[name] = (section, "of the raw frame")
        for name, fact, unit in (
            ("GAIN", facts.gain_e_adu, "e-/adu"),
            ("RDN", facts.read_noise_e, "e-"),
            ("SAT", facts.saturation_adu, "raw adu"),
            ("LIN", facts.linearity_adu, "raw adu"),
        ):
            if fact is not None:
                cards[f"{name}USED"] = (fact.value, unit)
                cards[f"{name}SRC"] = fact.source
        return cards

    def _frame_key(self, frame: RawFrame, facts: DetectorFacts, cards: Cards) -> str:
        """Return what says that a reduced frame with `cards` is the one that would be written.

        The digits of a gain that was measured stand in the words on its source too, where they
        change with every frame more.
        """
        cleans = self._observatory.settings.calibration.cosmic_rays
        pixels = pixels_key(frame, self.choice, facts, cleans=cleans)
        made = self._made_cards(frame, facts)
        sources = {
            name: str(words).partition(",")[0] for name, words in made.items() if "SRC" in name
        }
        raw_file = (frame.size_bytes, frame.mtime_ns)
        return content_key(CALIBRATION_RULES, pixels, raw_file, made | sources, cards)

    def has_made(self, frame: RawFrame, path: Path, facts: DetectorFacts) -> bool:
        """Tell whether the file at `path` is, undamaged, what `reduce` would write there.

        But for a plate solution in its header, which belongs to the same pixels.
        """
        try:
            header = read_header(path)
            cards = without_wcs(
                tuple(
                    str(card)
                    for card in header.cards
                    if card.keyword != MADE_BY and not STRUCTURE_CARD.match(card.keyword)
                )
            )
            if header.get(MADE_BY) != self._frame_key(frame, facts, cards):
                return False
            read_reduced(path)
        except (UnreadableFrame, VerifyError):
            return False
        return True

    def write(self, frame: RawFrame, raw: RawPixels, path: Path, facts: DetectorFacts) -> None:
        """Write a frame as a reduced one."""
        if not self._is_cleaned(facts):
            self._write(frame, raw.counts, raw.less_overscan, raw.cards, path, facts)
            return
        image, mask, n_cleaned = self.finished(frame, raw, facts)
        cards = self.cards(frame, raw.cards, facts, n_cleaned)
        write_reduced_bands(path, in_bands(image), mask, cards)

    def _write(
        self,
        frame: RawFrame,
        counts: calibration.Rows,
        less_overscan: NDArray[Any] | None,
        of_raw: Cards,
        path: Path,
        facts: DetectorFacts,
    ) -> None:
        """Write a frame that is not cleaned, some rows at a time."""
        by, mask = self._calibration(frame, facts), np.empty(counts.shape, np.uint8)
        bands = calibration.calibrated_bands(counts, by, mask, less_overscan=less_overscan)
        cards = self.cards(frame, of_raw, facts, None)
        write_reduced_bands(path, self._unchanged(frame, bands), mask, cards)

    def reduce(self, frame: RawFrame, source: Path, path: Path, facts: DetectorFacts) -> None:
        """Write the raw frame at `source` as a reduced one: as `write` does what `read` returns.

        The raw frame is never whole in memory where that can be.

        Raises
        ------
        UnreadableFrame
            It cannot be read, is another than was looked at, or has no such sections. Whatever else
            is raised is of the writing.
        """
        if frame.overscan is not None or frame.trim is not None or self._is_cleaned(facts):
            self.write(frame, self.read(frame, source), path, facts)
            return
        with opened_image(source) as (counts, cards):
            self._write(frame, counts, None, cards, path, facts)


def pixels_key(
    frame: RawFrame, choice: CalibrationChoice, facts: DetectorFacts, *, cleans: bool
) -> str:
    """Return a name for the calibrated pixels of a frame and their mask, wherever they lie.

    `cleans`: cosmic rays are looked for, where they can be told.
    """
    gain, noise = facts.gain_e_adu, facts.read_noise_e
    by = None
    if cleans and gain is not None and noise is not None and why_not_cleaned(facts) is None:
        by = (float(gain.value), float(noise.value))
    masters = (choice.bias, choice.dark, choice.flat)
    return content_key(
        CALIBRATION_RULES,
        (frame.pixel_hash, frame.exposure_s, frame.overscan, frame.trim),
        [None if m is None else (m.content_hash, m.made_by_us) for m in masters],
        None if choice.bad_pixels is None else choice.bad_pixels.content_hash,
        choice.dark.exposure_s if choice.dark else None,
        choice.already_done,
        float(offset_adu(frame, choice)),
        (float(facts.saturation_adu.value), float(facts.linearity_adu.value)),
        by,
    )


def why_not_cleaned(facts: DetectorFacts) -> str | None:
    """Return why cosmic rays cannot be told on frames of this detector, None when they can."""
    gain, noise = facts.gain_e_adu, facts.read_noise_e
    return cosmic_rays.why_not(
        gain_e_adu=gain.value if gain else None, read_noise_e=noise.value if noise else None
    )


def has_zero(choice: CalibrationChoice) -> bool:
    """Tell whether the frames come to an absolute zero: by a master or before wombat."""
    return _zero_of(choice) is not None or "bias" in choice.already_done


def _zero_of(choice: CalibrationChoice) -> Master | None:
    """Return the master that takes the bias level away."""
    if "bias" in choice.already_done:
        return None
    return choice.bias or (None if "dark" in choice.already_done else choice.dark)


def offset_adu(frame: RawFrame, choice: CalibrationChoice) -> float:
    """Return what brings a frame's zero to that of its bias: raw + PEDESTAL is absolute.

    A frame without the card has no pedestal: 0. A person's master without it is taken to have that
    of the frames it is meant for. With an overscan both zeros are the overscan's, and without a
    bias there is none to come to, unless the capture program has subtracted one.
    """
    if frame.overscan is not None or not has_zero(choice):
        return 0.0
    pedestal_adu, zero = frame.pedestal_adu or 0.0, _zero_of(choice)
    if zero is None:
        return pedestal_adu
    return 0.0 if zero.pedestal_adu is None else pedestal_adu - zero.pedestal_adu


# -------------------------------------------------------------------------------------- first looks


def look_path(
    observatory: Observatory,
    observation: Observation,
    choice: CalibrationChoice,
    frame: RawFrame,
) -> Path:
    """Return where the first look at a frame is kept: by its content and its masters'."""
    of_frame = (frame.pixel_hash, frame.exposure_s, frame.overscan, frame.trim)
    of_masters = (choice.version, choice.already_done, offset_adu(frame, choice))
    name = hashlib.sha256(repr((LOOK_RULES, *of_frame, *of_masters)).encode()).hexdigest()[:32]
    return looks_directory(observatory, observation) / f"{name}.npz"


def looks_directory(observatory: Observatory, observation: Observation) -> Path:
    """Return where the first looks at the frames of an observation are kept."""
    return observatory.layout.observation_dir(observation) / "looks"


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What the first reading of a frame tells. `stars` are those of the frame without limits."""

    extremes: RawExtremes
    stars: Detections


def look_at(calibrator: Calibrator, frame: RawFrame, raw: RawPixels, path: Path) -> Look:
    """Look at a frame for the first time and keep in `path` what is seen.

    Raises
    ------
    UnreadableFrame
        Too much of it is no image.
    """
    if raw.counts.dtype.kind == "f":
        not_numbers = 1.0 - float(np.mean(np.isfinite(raw.counts)))
        if not_numbers > MAX_NOT_NUMBERS:
            raise UnreadableFrame(f"{100 * not_numbers:.0f} % of the pixels are no numbers")
    extremes = raw_extremes(raw.counts)
    image, mask = calibrator.calibrate(frame, raw, None)
    stars = detect_stars(image, (mask & MaskBit.BAD) != 0)
    write_arrays(
        path,
        **{f"extremes.{f.name}": getattr(extremes, f.name) for f in fields(RawExtremes)},
        **{f"stars.{f.name}": getattr(stars, f.name) for f in fields(Detections)},
    )
    return Look(extremes=extremes, stars=stars)


def known_look(path: Path) -> Look | None:
    """Return what was seen when the frame was looked at; None when it was not."""
    try:
        kept = read_arrays(path)
        extremes = {f.name: kept[f"extremes.{f.name}"].item() for f in fields(RawExtremes)}
        stars: dict[str, Any] = {f.name: kept[f"stars.{f.name}"] for f in fields(Detections)}
    except (FileNotFoundError, UnreadableProduct, KeyError):
        return None
    numbers = {name: a if a.ndim else a.item() for name, a in stars.items()}
    return Look(extremes=RawExtremes(**extremes), stars=Detections(**numbers))
