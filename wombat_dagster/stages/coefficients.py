"""Which transformation coefficients hold for a camera in a night."""

import datetime as dt
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from wombat_dagster.config import InstrumentSettings
from wombat_dagster.domain import Coefficient
from wombat_dagster.observatory import Observatory
from wombat_dagster.science.transform import drift, pool, thins_with_airmass
from wombat_dagster.store.coefficients import stored_coefficients

FIT = "fit "
"""What the source of a fitted coefficient begins with; the standard field's directory follows."""


def is_fit(coefficient: Coefficient) -> bool:
    """Tell whether a coefficient was fitted here; else it is of a file."""
    return coefficient.source.startswith(FIT)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCoefficients:
    """Coefficients and 1-sigma errors by TG's names; one without a known error has no entry there.

    `version` changes with them, empty when there are none. `left_out` says what is stored and not
    used, and why; `source` does so too.
    """

    values: dict[str, float] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    source: str = "none"
    version: str = ""
    left_out: tuple[str, ...] = ()


class KnownCoefficients:
    """What configuration and database say, read once for many cameras and nights."""

    def __init__(self, observatory: Observatory) -> None:
        self._observatory = observatory
        self._settings = observatory.settings
        self._stored = tuple(stored_coefficients(observatory.status))
        self._found: dict[tuple[str | None, dt.date | None], StoredCoefficients] = {}

    @property
    def is_empty(self) -> bool:
        """Whether no camera has any."""
        return not self._stored and not any(i.transform for i in self._settings.instrument)

    def of(self, camera: str | None, night: dt.date) -> StoredCoefficients:
        """Return the coefficients of `camera` (INSTRUME) in `night`.

        Name by name: what ``[[instrument]]`` says; else the nights' fits, pooled, of the same
        camera and instrument epoch; else the imported file of that epoch that is the newest. Fits
        and files that hold the air of their field count only where ``extinction_colour`` does not
        say it once more, and the others only where it does; `left_out` of the result has the rest.
        """
        instrument = self._settings.for_camera(camera)
        epoch = instrument.epoch_of(night)
        if (camera, epoch) not in self._found:
            self._found[camera, epoch] = _chosen(
                instrument, self.pooled(camera, night), self._left_out(camera, night)
            )
        return self._found[camera, epoch]

    def _left_out(self, camera: str | None, night: dt.date) -> tuple[str, ...]:
        """Return words on what is stored for `camera` in `night` and does not count."""
        instrument = self._settings.for_camera(camera)
        by_words: dict[str, list[str]] = defaultdict(list)
        for one in self._in_epoch(camera, night):
            words = self._why_not(one, camera, instrument)
            if words and one.name not in instrument.transform:
                by_words[f"{_source_words(one)}: {words}"].append(one.name)
        return tuple(f"{', '.join(names)} of {words}" for words, names in by_words.items())

    def pooled(self, camera: str | None, night: dt.date) -> dict[str, Coefficient]:
        """Return what the database alone says of `camera` in `night`, by name."""
        return {name: _pool(ones) for name, ones in self._by_name(camera, night).items()}

    def drift(self, camera: str | None, night: dt.date) -> tuple[str, ...]:
        """Return words on fits of the same epoch that disagree, or that change with time."""
        return tuple(
            words
            for ones in self._by_name(camera, night).values()
            for words in drift([one for one in ones if is_fit(one)])
        )

    def _by_name(self, camera: str | None, night: dt.date) -> dict[str, list[Coefficient]]:
        instrument = self._settings.for_camera(camera)
        by_name: dict[str, list[Coefficient]] = defaultdict(list)
        for one in self._in_epoch(camera, night):
            if self._why_not(one, camera, instrument) is None:
                by_name[one.name].append(one)
        return dict(sorted(by_name.items()))

    def _in_epoch(self, camera: str | None, night: dt.date) -> Iterable[Coefficient]:
        """Yield what is stored of the instrument epoch of `night` and may be of `camera`."""
        instrument = self._settings.for_camera(camera)
        epoch = instrument.epoch_of(night)
        for one in self._stored:
            if one.date is not None and instrument.epoch_of(one.date) != epoch:
                continue
            if is_camera(one.camera, camera) or (not is_fit(one) and is_part(one.camera, camera)):
                yield one

    def _why_not(
        self, one: Coefficient, camera: str | None, instrument: InstrumentSettings
    ) -> str | None:
        """Return why a coefficient that may be of `camera` does not count, None where it does."""
        if not is_camera(one.camera, camera):
            known = {name.casefold(): name for name in {*self._cameras, camera or ""} if name}
            named = sorted(name for name in known.values() if is_part(one.camera, name))
            if len(named) > 1:
                return f"may be of {' or '.join(named)}, import it again with --camera"
        airs = [band for band in thins_with_airmass(one.name) if band in _thinning(instrument)]
        if airs and not one.outside_atmosphere:
            return (
                f"it holds the airmass of its field, and extinction_colour of {', '.join(airs)} "
                "would count it twice: fit it again, or write T + k2 X in [[instrument]] transform"
            )
        if one.outside_atmosphere and not airs:
            return "extinction_colour was taken out of it and is no longer configured: fit it again"
        return None

    @cached_property
    def _cameras(self) -> frozenset[str]:
        return known_cameras(self._observatory)


def known_cameras(observatory: Observatory) -> frozenset[str]:
    """Return the cameras (INSTRUME) of all light frames that are known."""
    return frozenset(filter(None, observatory.status.light_cameras().values()))


def is_camera(stored: str | None, camera: str | None) -> bool:
    """Tell whether a stored camera is `camera`, in any case of letters."""
    return (stored or "").casefold() == (camera or "").casefold()


def is_part(stored: str | None, camera: str | None) -> bool:
    """Tell whether what was said of a camera is a part of its INSTRUME; nothing said is one."""
    return (stored or "").casefold() in (camera or "").casefold()


def coefficients_of(
    observatory: Observatory, camera: str | None, night: dt.date
) -> StoredCoefficients:
    """Return the coefficients of `camera` in `night`, as `KnownCoefficients.of`."""
    return KnownCoefficients(observatory).of(camera, night)


def _pool(ones: Sequence[Coefficient]) -> Coefficient:
    fits = [one for one in ones if is_fit(one)]
    if fits:
        return pool(fits)
    return max(ones, key=lambda one: (one.date or dt.date.min, one.source))


def _thinning(instrument: InstrumentSettings) -> dict[str, float]:
    """Return the bands whose second-order extinction is not nothing."""
    return {band: k2 for band, k2 in instrument.extinction_colour.items() if k2}


def _chosen(
    instrument: InstrumentSettings, pooled: dict[str, Coefficient], left_out: Sequence[str]
) -> StoredCoefficients:
    stored = {name: one for name, one in pooled.items() if name not in instrument.transform}
    values = {name: one.value for name, one in stored.items()} | instrument.transform
    errors = {name: one.error for name, one in stored.items() if one.error is not None}
    of_settings = {n: e for n, e in instrument.transform_error.items() if n in instrument.transform}
    all_errors = errors | of_settings
    parts = []
    if instrument.transform:
        parts.append(f"configuration ({', '.join(sorted(instrument.transform))})")
    by_words: dict[str, list[str]] = defaultdict(list)
    for name, one in stored.items():
        by_words[_source_words(one)].append(name)
    parts += [f"{words} ({', '.join(names)})" for words, names in by_words.items()]
    return StoredCoefficients(
        values=values,
        errors=all_errors,
        source="; ".join([*(parts or ["none"]), *(f"not used: {words}" for words in left_out)]),
        version=_version(values, all_errors),
        left_out=tuple(left_out),
    )


def _source_words(one: Coefficient) -> str:
    if one.n_nights > 1:
        return f"fits of {one.n_nights} nights"
    return f"{one.source} {one.date}" if one.date else one.source


def _version(values: dict[str, float], errors: dict[str, float]) -> str:
    if not values:
        return ""
    content = [(name, values[name], errors.get(name)) for name in sorted(values)]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
