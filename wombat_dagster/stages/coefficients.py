"""Which transformation coefficients hold for a camera in a night."""

import datetime as dt
import hashlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from wombat_dagster.config import InstrumentSettings
from wombat_dagster.domain import Coefficient
from wombat_dagster.observatory import Observatory
from wombat_dagster.science.transform import drift, pool
from wombat_dagster.store.coefficients import stored_coefficients

FIT = "fit "
"""What the source of a fitted coefficient begins with; the standard field's directory follows."""


def is_fit(coefficient: Coefficient) -> bool:
    """Tell whether a coefficient was fitted here; else it is of a file."""
    return coefficient.source.startswith(FIT)


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredCoefficients:
    """Coefficients and 1-sigma errors by TG's names; one without a known error has no entry there.

    `version` changes with whatever is used of the database; empty when nothing is.
    """

    values: dict[str, float] = field(default_factory=dict)
    errors: dict[str, float] = field(default_factory=dict)
    source: str = "none"
    version: str = ""


class KnownCoefficients:
    """What configuration and database say, read once for many cameras and nights."""

    def __init__(self, observatory: Observatory) -> None:
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
        camera and instrument epoch; else the imported file of that epoch that is the newest.
        """
        instrument = self._settings.for_camera(camera)
        epoch = instrument.epoch_of(night)
        if (camera, epoch) not in self._found:
            self._found[camera, epoch] = _chosen(instrument, self.pooled(camera, night))
        return self._found[camera, epoch]

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
        epoch = instrument.epoch_of(night)
        by_name: dict[str, list[Coefficient]] = defaultdict(list)
        for one in self._stored:
            if _serves(one, camera) and _in_epoch(one, instrument, epoch):
                by_name[one.name].append(one)
        return dict(sorted(by_name.items()))


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


def _serves(one: Coefficient, camera: str | None) -> bool:
    """Tell whether a coefficient is of a camera: a fit of exactly it, a file's like [[instrument]].

    A file may name a part of INSTRUME, or no camera when there is only one.
    """
    if is_fit(one):
        return (one.camera or "") == (camera or "")
    return (one.camera or "").casefold() in (camera or "").casefold()


def _in_epoch(one: Coefficient, instrument: InstrumentSettings, epoch: dt.date | None) -> bool:
    return one.date is None or instrument.epoch_of(one.date) == epoch


def _chosen(instrument: InstrumentSettings, pooled: dict[str, Coefficient]) -> StoredCoefficients:
    stored = {name: one for name, one in pooled.items() if name not in instrument.transform}
    values = {name: one.value for name, one in stored.items()} | instrument.transform
    errors = {name: one.error for name, one in stored.items() if one.error is not None}
    of_settings = {n: e for n, e in instrument.transform_error.items() if n in instrument.transform}
    parts = []
    if instrument.transform:
        parts.append(f"configuration ({', '.join(sorted(instrument.transform))})")
    by_words: dict[str, list[str]] = defaultdict(list)
    for name, one in stored.items():
        by_words[_source_words(one)].append(name)
    parts += [f"{words} ({', '.join(names)})" for words, names in by_words.items()]
    return StoredCoefficients(
        values=values,
        errors=errors | of_settings,
        source="; ".join(parts) or "none",
        version=_version(stored),
    )


def _source_words(one: Coefficient) -> str:
    if one.n_nights > 1:
        return f"fits of {one.n_nights} nights"
    return f"{one.source} {one.date}" if one.date else one.source


def _version(stored: dict[str, Coefficient]) -> str:
    if not stored:
        return ""
    content = [(name, one.value, one.error) for name, one in sorted(stored.items())]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
