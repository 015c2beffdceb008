"""What the stages begin with, as signatures by name: what makes a product stale when it changes.

`assets.conclude` writes down the inputs of every stage that begins, `stages.due` compares them with
those of the present. Names are few and words for people: "light frames", "masters", "settings".
What goes into standard magnitudes beside their table is in `siblings`.
"""

import datetime as dt
import hashlib
import json
import logging
from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from wombat_dagster import config
from wombat_dagster.domain import (
    CalibrationChoice,
    ChartRequest,
    CompCandidates,
    FrameKind,
    Observation,
    Shortfall,
)
from wombat_dagster.observatory import Observatory
from wombat_dagster.stages.sequence import names_of
from wombat_dagster.store.comp_choices import CompChoices
from wombat_dagster.store.status import UNKNOWN_FILTER

log = logging.getLogger(__name__)

LIGHTS = "light frames"
MASTERS = "masters"
SETTINGS = "settings"
TARGET = "[[target]]"
SOLVER = "plate solver"
CHOICES = "comps chosen by a person"
MASTER_FILES = "files of masters"
CHOSEN = "masters chosen"
"""Of an ended `calibration_choice`: the version of what was chosen, or why nothing was."""
CHART = "chart"
"""Of an ended `comp_list`: the version of the stars of the chart."""
CHART_REQUEST = "chart request"
CHART_SOURCE = "chart source"
OTHER_FILTERS = "other filters of the target"
FIELD_VARIABLES = "variables of the field"
NOT_KNOWN = "not known"
SITE = "[site]"
KINDS_OF_MASTERS = {
    "master_bias": FrameKind.BIAS,
    "master_darks": FrameKind.DARK,
    "master_flats": FrameKind.FLAT,
}


class Inputs:
    """The inputs of every stage at present; what many observations share is looked up once.

    With `only` those of the observation of that key alone.
    """

    def __init__(self, observatory: Observatory, *, only: str | None = None) -> None:
        self._observatory, self._only = observatory, only
        self._settings = observatory.settings
        self._of_target: dict[str, dict[str, str]] = {}
        self._of_camera: dict[str | None, dict[str, str]] = {}

    def of_observation(self, asset: str, observation: Observation) -> dict[str, str]:
        """Return the inputs of a stage of an observation, beside the stages before it."""
        match asset:
            case "calibration_choice":
                return {
                    LIGHTS: self._lights.get(observation.key, ""),
                    MASTERS: self._masters,
                    SETTINGS: self._camera_part(observation, "calibration"),
                }
            case "reduced_frames":
                return {SETTINGS: self._camera_part(observation, "reduction")}
            case "wcs_solutions":
                return {
                    SOLVER: self._solver,
                    SETTINGS: self._camera_part(observation, "solving"),
                    TARGET: self._target_part(observation, "star"),
                }
            case "variable":
                return {TARGET: self._target_part(observation, "star")}
            case "comp_list":
                return {
                    TARGET: self._target_part(observation, "comps"),
                    CHOICES: self._target_part(observation, "chosen"),
                    SETTINGS: self._camera_part(observation, "comps"),
                    OTHER_FILTERS: self._filters.get(observation.target, ""),
                }
            case "photometry_table":
                return {SETTINGS: self._camera_part(observation, "photometry")}
            case "frame_triage":
                return {SITE: _digest(self._settings.site)}
            case "standard_magnitudes":
                return {
                    SETTINGS: self._camera_part(observation, "magnitudes"),
                    TARGET: self._target_part(observation, "colour"),
                }
        return {}

    def of_night(
        self, asset: str, date: dt.date, *, on_disk: "NightOnDisk | None" = None
    ) -> dict[str, str]:
        """Return the inputs of a stage of a night; `on_disk` where it was looked at already."""
        if asset != "raw_frames":
            return self._of_masters(asset, date)
        if on_disk is None:
            on_disk = night_on_disk(self._observatory, date)
        files = {files_of(unit): signature for unit, signature in on_disk.units.items()}
        return {**files, SETTINGS: self._scanning}

    def _of_masters(self, asset: str, date: dt.date) -> dict[str, str]:
        """Return what a night's masters and maps that borrow from other nights are made of."""
        from wombat_dagster.stages.bad_pixels import inputs_of_maps
        from wombat_dagster.stages.masters import inputs_of_masters

        match asset:
            case "bad_pixels":
                return inputs_of_maps(self._observatory, date)
            case "master_darks" | "master_flats":
                return inputs_of_masters(self._observatory, date, KINDS_OF_MASTERS[asset])
        return {}

    def found_in_night(self, asset: str, date: dt.date) -> dict[str, str]:
        """Return what an ended stage of a night adds to its inputs, of what it left."""
        if asset not in KINDS_OF_MASTERS:
            return {}
        return {MASTER_FILES: master_files(self._observatory, date).get(asset, "none")}

    # --------------------------------------------------------------------------- shared by many

    @cached_property
    def _lights(self) -> dict[str, str]:
        return self._observatory.status.light_signatures(self._only)

    @cached_property
    def _masters(self) -> str:
        return self._observatory.masters_signature()

    @cached_property
    def _filters(self) -> dict[str, str]:
        """Return the filters of every target, of all nights: comps that have them all are best."""
        found: dict[str, set[str]] = defaultdict(set)
        for row in self._observatory.status.targets():
            if row.retired_utc is None and row.observation.filter != UNKNOWN_FILTER:
                found[row.observation.target].add(row.observation.filter)
        return {target: ", ".join(sorted(filters)) for target, filters in found.items()}

    @cached_property
    def _cameras(self) -> dict[str, str | None]:
        return self._observatory.status.light_cameras(self._only)

    @cached_property
    def _scanning(self) -> str:
        """Return what decides which frames count and how masters are made of them."""
        settings = self._settings
        of_cameras = [
            _of(one, "camera", "filter", "overscan", "trim", "max_ccd_temperature_c")
            for one in settings.instrument
        ]
        lights_only = {"discard_first_n", "cosmic_rays", "keep_reduced", "require_calibration"}
        return _digest([of_cameras, settings.calibration.model_dump(exclude=lights_only)])

    @cached_property
    def _solver(self) -> str:
        """Return what could solve frames that were not solved before."""
        astap, other = self._observatory.astap, self._observatory.solve_field
        tables = [astap.database if astap else None, self._settings.solve.star_table]
        states = [_state(self._settings.path(table)) for table in tables if table is not None]
        return _digest([repr(astap), repr(other), states])

    def _camera_part(self, observation: Observation, part: str) -> str:
        camera = self._cameras.get(observation.key)
        if camera not in self._of_camera:
            self._of_camera[camera] = self._parts_of_camera(camera)
        return self._of_camera[camera][part]

    def _parts_of_camera(self, camera: str | None) -> dict[str, str]:
        settings, own = self._settings, self._settings.for_camera(camera)
        limits = ("gain_e_adu", "read_noise_e", "saturation_adu", "linearity_adu")
        reduction = {"cosmic_rays", "keep_reduced"}
        parts = {
            "calibration": [settings.calibration.model_dump(exclude=reduction)],
            "reduction": [
                settings.calibration.model_dump(include=reduction),
                _of(own, "overscan", "trim", *limits),
            ],
            "solving": [
                settings.solve.model_dump(exclude={"star_table", "solve_field"}),
                own.pixel_scale_arcsec,
            ],
            "comps": [settings.comps.model_dump(), own.filters, settings.aavso.maglimit],
            "photometry": [
                settings.photometry.model_dump(),
                settings.site,
                own.aperture_m,
                _of(settings.magnitudes, "ensemble", "max_field_stars"),
            ],
            "magnitudes": [
                settings.magnitudes.model_dump(),
                _of(own, "extinction", "extinction_colour", "epochs"),
            ],
        }
        return {name: _digest(values) for name, values in parts.items()}

    def _target_part(self, observation: Observation, part: str) -> str:
        name = observation.target
        if name not in self._of_target:
            self._of_target[name] = self._parts_of_target(name)
        return self._of_target[name][part]

    def _parts_of_target(self, name: str) -> dict[str, str]:
        settings = self._settings.for_target(name) or config.TargetSettings(directory=[])
        chosen = CompChoices(self._observatory.status.path).of(names_of(self._observatory, name))
        parts = {
            "star": [_of(settings, "vsx", "ra_deg", "dec_deg", "mag_range", "period_d")],
            "comps": [_of(settings, "check", "comps", "ban"), settings.colour],
            "chosen": [{auid: choice.value for auid, choice in chosen.items()}],
            "colour": [_of(settings, "colour", "colour_error")],
        }
        return {part: _digest(values) for part, values in parts.items()}


def found_by(asset: str, value: Any) -> dict[str, str]:
    """Return what an ended stage adds to its inputs, of what it found.

    `value` is its product, or the exception that it ended with.
    """
    match value:
        case CalibrationChoice():
            return {CHOSEN: value.version}
        case Shortfall() if asset == "calibration_choice":
            return {CHOSEN: shortfall_version(value)}
        case CompCandidates(chart_request=ChartRequest() as request, chart_version=str() as found):
            return {
                CHART: found,
                CHART_REQUEST: json.dumps(asdict(request)),
                CHART_SOURCE: value.chart_source,
                **({FIELD_VARIABLES: NOT_KNOWN} if value.known_variables is None else {}),
            }
    return {}


def shortfall_version(shortfall: Shortfall) -> str:
    """Return what stands for the version of masters where none could be chosen."""
    return f"{type(shortfall).__name__}: {shortfall}"


# ------------------------------------------------------------------------------ what lies on disk


@dataclass(frozen=True, slots=True, kw_only=True)
class NightOnDisk:
    """The signatures of a night's units: its calibrations ("") and its targets, by directory.

    `unsettled` are units that may still be copied: they have no signature yet.
    """

    units: Mapping[str, str]
    unsettled: frozenset[str] = frozenset()


FILES_OF = "files of "


def files_of(unit: str) -> str:
    """Return the name of the input that a unit's files are."""
    return f"{FILES_OF}{unit or 'calibrations'}"


def nights_on_disk(
    observatory: Observatory, dates: Collection[dt.date] | None = None
) -> dict[str, NightOnDisk]:
    """Return every night (of `dates`) with lights, or whose calibrations may be lent, by its key.

    So is one that had lights when it was last looked at: they are gone. No file is opened; masters
    do not count; directories of one date are one night. One that cannot be read is left out, with a
    warning: it stays as it was.
    """
    from wombat_dagster.store.layout import night_directories, night_signatures

    units: dict[str, dict[str, str]] = {}
    unreadable = set()
    for night in night_directories(observatory.layout.data):
        if dates is not None and night.date not in dates:
            continue
        key = f"{night.date:%Y%m%d}"
        of_night = units.setdefault(key, {})
        try:
            found = night_signatures(night)
        except OSError as error:  # a disk that fails for a moment: the next look sees
            log.warning("%s cannot be read: %s", night.name, error)
            unreadable.add(key)
            continue
        for unit, text in found.by_unit().items():
            of_night[unit] = f"{of_night[unit]}+{text}" if unit in of_night else text
    lend = observatory.settings.calibration.use_calibration_only_nights
    known = set(observatory.status.night_keys())
    return {
        key: NightOnDisk(units=of_night)
        for key, of_night in units.items()
        if key not in unreadable and (lend or of_night.keys() > {""} or key in known)
    }


def night_on_disk(observatory: Observatory, date: dt.date) -> NightOnDisk:
    """Return what lies on disk of one night; nothing when it is gone or cannot be read."""
    found = nights_on_disk(observatory, {date})
    return found.get(f"{date:%Y%m%d}", NightOnDisk(units={}))


def master_files(observatory: Observatory, date: dt.date) -> dict[str, str]:
    """Return the signatures of the files of masters that lie in a night, by asset."""
    from wombat_dagster.store.layout import master_signatures

    found = [master_signatures(place) for place in observatory.layout.master_places(date)]
    return {
        asset: "+".join(signatures)
        for asset, kind in KINDS_OF_MASTERS.items()
        if (signatures := [one[kind] for one in found if kind in one])
    }


def _state(path: Path) -> str:
    """Return what changes with a file, or with the entries of a directory."""
    try:
        status = path.stat()
    except OSError:
        return f"{path} is not there"
    return f"{path} {status.st_size} {status.st_mtime_ns}"


def _of(model: BaseModel, *names: str) -> dict[str, Any]:
    return model.model_dump(include=set(names))


def _digest(values: Any) -> str:
    text = json.dumps(values, default=_plain, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return str(value)
