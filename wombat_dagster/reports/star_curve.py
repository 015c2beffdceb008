"""What a star's light curve over nights holds: the value that pictures and files are made of."""

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from wombat_dagster.domain import (
    BoolArray,
    FloatArray,
    Observation,
    StandardMagnitudes,
    Transformation,
    Variable,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class CurveNight:
    """One observation's part of a curve: what holds for all of its points."""

    key: str
    date: dt.date
    target: str  # directory
    filter: str
    band: str
    comp_band: str
    camera: str | None
    chart_id: str
    comp_source: str | None  # VSP, APASS DR9 (VizieR); None: not recorded
    comp_names: tuple[str, ...]
    check_name: str | None
    check_offset_mag: float | None
    check_scatter_mag: float | None
    zp_err_mag: float
    merr: str
    method: str
    transformed: bool
    transformation: Transformation
    status: str  # validate, held, approved…
    held_reason: str | None
    notes: tuple[str, ...]

    @property
    def is_held(self) -> bool:
        """Tell whether the check star was out of control."""
        return self.held_reason is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class LeftOut:
    """An observation of the star without a part in the curve: its status words and the reason."""

    key: str
    date: dt.date
    filter: str
    words: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StarCurve:
    """Standard magnitudes of one star over nights, in time order; arrays have shape (n_points,).

    `night_index` says which of `nights` a point belongs to. `mag` of an upper limit is the limit.
    NaN where a point has no value. `random_mag` and the night's `zp_err_mag` are kept apart.
    """

    variable: Variable
    nights: tuple[CurveNight, ...]
    left_out: tuple[LeftOut, ...]
    night_index: NDArray[np.int64]
    labels: tuple[str, ...]
    raw_hashes: tuple[str, ...]
    jd_utc: FloatArray
    hjd_utc: FloatArray
    bjd_tdb: FloatArray
    airmass: FloatArray
    mag: FloatArray
    random_mag: FloatArray
    merr_mag: FloatArray
    upper_limit: BoolArray
    n_comps: NDArray[np.int64]
    proposed_rejected: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def bands(self) -> tuple[str, ...]:
        """The bands of the nights, by name."""
        return tuple(sorted({night.band for night in self.nights}))

    @property
    def point_bands(self) -> NDArray[np.str_]:
        """The band of each point."""
        return self.per_point([night.band for night in self.nights])

    @property
    def doubtful(self) -> BoolArray:
        """Which points are proposed to be rejected, or belong to a night that is held."""
        held = self.per_point([night.is_held for night in self.nights]).astype(bool)
        rejected = np.array([bool(words) for words in self.proposed_rejected], dtype=bool)
        return held | rejected

    def per_point(self, values: Sequence[Any]) -> NDArray[Any]:
        """Return one value per point out of one per night."""
        return np.asarray(values)[self.night_index] if len(values) else np.array([])

    def where(self, kept: BoolArray) -> "StarCurve":
        """Return the curve of the points in `kept`; every night stays listed."""
        picked: dict[str, Any] = {}
        for field in fields(self):
            held = getattr(self, field.name)
            if isinstance(held, np.ndarray):
                picked[field.name] = held[kept]
            elif field.name in ("labels", "raw_hashes", "proposed_rejected"):
                picked[field.name] = tuple(
                    one for one, keep in zip(held, kept, strict=True) if keep
                )
        return replace(self, **picked)


def curve_night(
    observation: Observation, standard: StandardMagnitudes, *, status: str
) -> CurveNight:
    """Return what holds for all points of an observation."""
    return CurveNight(
        key=observation.key,
        date=observation.date,
        target=observation.target,
        filter=observation.filter,
        status=status,
        **{
            name: getattr(standard, name)
            for name in (
                "band", "comp_band", "camera", "chart_id", "comp_source", "comp_names",
                "check_name", "check_offset_mag", "check_scatter_mag", "zp_err_mag", "merr",
                "method", "transformed", "transformation", "held_reason", "notes",
            )
        },
    )  # fmt: skip


def concatenate(
    variable: Variable,
    parts: Sequence[tuple[CurveNight, StandardMagnitudes]],
    *,
    left_out: Sequence[LeftOut] = (),
    notes: Sequence[str] = (),
) -> StarCurve:
    """Return the curve of all points of `parts`, in time order; those without a time come last."""
    order = np.argsort(_joined([s.jd_utc for _, s in parts]), kind="stable")
    index = _joined([np.full(len(s.labels), i) for i, (_, s) in enumerate(parts)])
    columns: dict[str, Any] = {
        name: _joined([getattr(s, source) for _, s in parts])[order]
        for name, source in {
            "jd_utc": "jd_utc",
            "hjd_utc": "hjd_utc",
            "bjd_tdb": "bjd_tdb",
            "airmass": "airmass",
            "mag": "t1_mag",
            "random_mag": "t1_random_mag",
            "merr_mag": "t1_merr_mag",
            "upper_limit": "t1_upper_limit",
            "n_comps": "n_comps",
        }.items()
    }
    columns["upper_limit"] = columns["upper_limit"].astype(bool)
    for name in ("labels", "raw_hashes", "proposed_rejected"):
        words = [word for _, s in parts for word in getattr(s, name)]
        columns[name] = tuple(words[i] for i in order)
    return StarCurve(
        variable=variable,
        nights=tuple(night for night, _ in parts),
        left_out=tuple(left_out),
        night_index=index[order].astype(np.int64),
        notes=tuple(notes),
        **columns,
    )


def _joined(arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(arrays) if arrays else np.array([])
