"""What is to be done, and why: the inputs of the present against those that the stages began with.

One answer for the sensors, ``wombat run`` and ``wombat backfill``. Nothing is decided by what was
asked for before: after a crash, a lost cursor or a restart the same question has the same answer.
Nothing is written but confirmations that a change makes no difference to an observation.
"""

import datetime as dt
import hashlib
import json
import time
from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from wombat_dagster.domain import (
    Apphot,
    ChartRequest,
    Master,
    NoComps,
    NoFrames,
    Observation,
    Proc,
    Shortfall,
    UnknownVariable,
    VspUnavailable,
    VsxUnavailable,
)
from wombat_dagster.observatory import Observatory
from wombat_dagster.products import PRODUCTS
from wombat_dagster.stages.bad_pixels import borrows_newer_masters
from wombat_dagster.stages.choice import choose_calibration
from wombat_dagster.stages.inputs import (
    CHART,
    CHART_REQUEST,
    CHART_SOURCE,
    CHOICES,
    CHOSEN,
    FIELD_VARIABLES,
    FILES_OF,
    LIGHTS,
    MASTER_FILES,
    MASTERS,
    NOT_KNOWN,
    SETTINGS,
    SOLVER,
    Inputs,
    NightOnDisk,
    files_of,
    master_files,
    shortfall_version,
)
from wombat_dagster.stages.library import available_masters
from wombat_dagster.stages.masters import outdated_masters
from wombat_dagster.stages.siblings import stale_inputs
from wombat_dagster.stages.work import (
    MAGNITUDES_JOB,
    NIGHT_JOB,
    OBSERVATION_JOB,
    STARS_JOB,
    TRIAGE_JOB,
    Due,
    Why,
)
from wombat_dagster.store.stage_runs import FAILED, MADE, StageRun, StageRuns
from wombat_dagster.store.status import TargetRow

STAGES = (
    "calibration_choice",
    "reduced_frames",
    "wcs_solutions",
    "variable",
    "comp_list",
    "photometry_table",
    "standard_magnitudes",
)
"""The stages of an observation whose inputs count, in their order."""
TRIAGE = "frame_triage"  # hangs on nothing that counts here
LAST_STAGES = {"diagnostics", "light_curve"}
"""A run that reached these, or a shortfall, has come to its end."""
LAST_STAGES_OF_NIGHT = {"bad_pixels", "detector_noise"}
GATES = ("raw_frames", "master_bias", "master_darks", "master_flats", "bad_pixels")
"""Stages of a night without which its observations are not begun."""
_BORROW = ("master_darks", "master_flats", "bad_pixels")
"""Stages of a night that use masters of other nights."""
STARS_STAGES = {"variable", "comp_list", "photometry_table"}
FIRST_WAIT_S = 60.0  # before what broke is tried again; four times as long each time
AGAIN_AFTER_S = 86400.0
MAX_GATED_TRIES = 6  # of a night, most of a day; then observations go on without its masters
ASKED_AGAIN = {UnknownVariable.__name__, NoComps.__name__}
"""Endings that another answer of the AAVSO may change: tried daily, which asks only if it must."""
CHECKING_S = 3.0  # spent at most, per look, on whether other masters make a difference


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """What is due of the observations, and which a person decided on have changed inputs since."""

    due: tuple[Due, ...]
    changed_since: Mapping[str, str]
    """Words by key; such an observation is not made again by itself."""
    waiting: Mapping[str, str]
    """Words by key, of what is not begun yet: measured without masters it would look as if none had
    been taken."""


# ------------------------------------------------------------------------------------------ nights


def due_nights(
    observatory: Observatory,
    *,
    on_disk: Mapping[str, NightOnDisk],
    busy: Collection[str] = (),
    now_utc: dt.datetime | None = None,
    by_hand: bool = False,
) -> list[Due]:
    """Return the nights whose frames or masters are to be looked at, oldest first.

    `on_disk`: the nights that may be looked at, by key (`inputs.nights_on_disk`); one whose
    calibrations are unsettled is left alone. `busy`: keys with a run that is not over. `by_hand`:
    a person asks, and what broke is tried again without waiting.
    """
    runs = StageRuns(observatory.status.path)
    latest, broken = runs.latest(), runs.n_in_a_row({None, FAILED})
    inputs = Inputs(observatory)
    known = set(observatory.status.night_keys())
    there = {key: one for key, one in on_disk.items() if "" not in one.unsettled}
    due = []
    for key, night in sorted(there.items()):
        if key in busy:
            continue
        stages = latest.get(key, {})
        wanted = inputs.of_night("raw_frames", _date(key), on_disk=night)
        found = _night_due(observatory, key, night, stages, wanted, is_known=key in known)
        if found is None:
            continue
        why, words = found
        n_tries = max((broken.get((key, asset), 0) for asset in stages), default=0)
        if by_hand or _may_be_tried(why, stages, n_tries, now_utc):
            signature = _digest([wanted, _last_number(stages)])
            due.append(Due(job=NIGHT_JOB, key=key, why=why, words=words, signature=signature))
    skipped = {one.key for one in due} | {*busy}
    return due + _outdated_nights(observatory, latest, skipped, there)


def _night_due(
    observatory: Observatory,
    key: str,
    night: NightOnDisk,
    stages: Mapping[str, StageRun],
    wanted: Mapping[str, str],
    *,
    is_known: bool,
) -> tuple[Why, str] | None:
    first = stages.get("raw_frames")
    if first is None:
        return Why.NEW, "never looked at"
    unsettled = {files_of(unit) for unit in night.unsettled}
    names = [*wanted, *(name for name in first.inputs if name.startswith(FILES_OF))]
    changed = [
        name
        for name in dict.fromkeys(names)
        if name not in unsettled and first.inputs.get(name) != wanted.get(name)
    ]
    if changed:
        return Why.SETTINGS if changed == [SETTINGS] else Why.FILES, ", ".join(changed)
    if first.is_shortfall:
        return None  # a night without lights
    if not is_known:
        return Why.FILES, "its frames are back"
    if broken := _broken(stages, LAST_STAGES_OF_NIGHT):
        return broken
    if gone := _gone(observatory, key, stages, sorted(stages)):
        return Why.GONE, gone
    files = master_files(observatory, _date(key))
    for asset, one in stages.items():
        kept = one.inputs.get(MASTER_FILES)
        if kept is not None and kept != files.get(asset, "none"):
            return Why.MASTER_REPLACED, f"{asset}: the files in the night are others"
    return None


def _outdated_nights(
    observatory: Observatory,
    latest: Mapping[str, Mapping[str, StageRun]],
    skipped: Collection[str],
    on_disk: Collection[str],
) -> list[Due]:
    """Return the nights that borrow a master which is another one by now.

    Looked into only where any master changed since the night was confirmed.
    """
    masters = observatory.masters_signature()
    runs, until_s = StageRuns(observatory.status.path), time.monotonic() + CHECKING_S
    due, confirmed = [], {}
    for key in observatory.status.night_keys():
        row = latest.get(key, {}).get("bad_pixels")
        if row is None or key in skipped or key not in on_disk:
            continue
        if row.inputs.get(MASTERS) == masters or time.monotonic() > until_s:
            continue
        tried = {name: text for a in _BORROW for name, text in _inputs_of(latest[key], a).items()}
        words = outdated_masters(observatory, _date(key), tried=tried)
        if borrows_newer_masters(observatory, _date(key), tried=tried):
            words.append("map of bad pixels: other masters")
        if words:
            signature = f"{masters}:{row.number}"
            due.append(
                Due(
                    job=NIGHT_JOB,
                    key=key,
                    why=Why.MASTERS,
                    words="; ".join(words),
                    signature=signature,
                )
            )
        else:
            confirmed[row.number] = {**row.inputs, MASTERS: masters}
    if confirmed:
        runs.confirm(confirmed)
    return due


def _inputs_of(stages: Mapping[str, StageRun], asset: str) -> Mapping[str, str]:
    return stages[asset].inputs if asset in stages else {}


# ------------------------------------------------------------------------------------ observations


def due_observations(
    observatory: Observatory,
    *,
    busy: Collection[str] = (),
    now_utc: dt.datetime | None = None,
    check_for_s: float | None = CHECKING_S,
    by_hand: bool = False,
) -> Outlook:
    """Return which observations are to be made, or made again, by date, target and filter.

    `check_for_s` bounds what is spent on finding out whether other masters make a difference; the
    rest is left to the next look. None: all of it now. `by_hand`: as of `due_nights`.
    """
    runs = StageRuns(observatory.status.path)
    latest, broken = runs.latest(), runs.n_in_a_row({None, FAILED})
    inputs = Inputs(observatory)
    siblings = stale_inputs(observatory)
    until_s = None if check_for_s is None else time.monotonic() + check_for_s
    masters = _Masters(observatory, until_s)
    is_vsp_well = observatory.vsp.away() is None
    due, changed_since, waiting = [], {}, {}
    broken_nights = _broken_nights(latest, broken)
    for row in observatory.status.targets():
        one = row.observation
        if one.key in busy or row.retired_utc is not None:
            continue
        stages = latest.get(one.key, {})
        found = _observation_due(observatory, row, stages, inputs, masters, now_utc)
        if found is None and one in siblings:
            found = Why.SIBLING, "standard magnitudes", MAGNITUDES_JOB
        if row.submitted is not None and found is None and _fell_back(stages) and is_vsp_well:
            changed_since[one.key] = f"VSP is back: made with {_source(stages)}, not AAVSO's comps"
        if found is None:
            continue
        why, words, job = found
        if row.submitted is not None and stages:
            changed_since[one.key] = f"{why}: {words}"
            continue
        if night := masters.waits_for(one, broken_nights):
            waiting[one.key] = (
                f"waits for the masters of {night}, whose run did not come to its end"
            )
            continue
        n_tries = max((broken.get((one.key, asset), 0) for asset in stages), default=0)
        if by_hand or _may_be_tried(why, stages, n_tries, now_utc):
            due.append(
                Due(
                    job=job,
                    key=one.key,
                    why=why,
                    words=words,
                    signature=_signature(stages, inputs, one, siblings.get(one)),
                )
            )
    masters.confirm(runs)
    return Outlook(due=tuple(due), changed_since=changed_since, waiting=waiting)


def _broken_nights(
    latest: Mapping[str, Mapping[str, StageRun]], broken: Mapping[tuple[str, str], int]
) -> list[str]:
    """Return the keys of nights whose masters are at work, or could not be made by our fault.

    Not those where it was tried often enough: observations do not wait for ever.
    """
    return [
        key
        for key, stages in latest.items()
        if "__" not in key
        and _lacks_masters(stages)
        and max((broken.get((key, asset), 0) for asset in GATES), default=0) <= MAX_GATED_TRIES
    ]


def _lacks_masters(stages: Mapping[str, StageRun]) -> bool:
    first = stages.get("raw_frames")
    if first is None or first.is_shortfall:
        return False
    made = [stages.get(asset) for asset in GATES]
    return any(one is None or one.is_broken or one.number < first.number for one in made)


def _observation_due(
    observatory: Observatory,
    row: TargetRow,
    stages: Mapping[str, StageRun],
    inputs: Inputs,
    masters: "_Masters",
    now_utc: dt.datetime | None,
) -> tuple[Why, str, str] | None:
    one = row.observation
    if not stages:
        return Why.NEW, "never begun", OBSERVATION_JOB
    if broken := _broken(stages, LAST_STAGES):
        return (*broken, OBSERVATION_JOB)
    if not stages.keys() & set(STAGES):
        return Why.INTERRUPTED, "not begun at its beginning", OBSERVATION_JOB
    last_stage, ended = _end(stages)
    if row.proc == Proc.NOFRAMES and row.n_frames and ended.ending != NoFrames.__name__:
        return Why.LATE_FRAMES, "its frames are back", OBSERVATION_JOB
    if word := _unset(row, stages):
        return Why.RESET, word, OBSERVATION_JOB
    if row.submitted is None and (gone := _gone(observatory, one.key, stages, STAGES)):
        return Why.GONE, gone, _job_from(gone)
    for asset in STAGES:
        stage = stages.get(asset)
        if stage is None:
            continue
        changed = _changed(stage, inputs.of_observation(asset, one))
        if SOLVER in changed and not _wants_solver(row, stage):
            changed.remove(SOLVER)
        if asset == "comp_list" and _is_chart_revised(observatory, stage):
            changed.append(CHART)
        if MASTERS in changed and not masters.make_a_difference(one, stage, inputs):
            changed.remove(MASTERS)
        if changed:
            return _why(changed), f"{', '.join(changed)} ({asset})", _job_from(asset)
        if asset == last_stage and stage.is_shortfall:
            break
    if last_stage == "standard_magnitudes" and row.apphot is None:
        return Why.INTERRUPTED, "apphot says that it is not done", MAGNITUDES_JOB
    if (triage := stages.get(TRIAGE)) is not None:
        changed = _changed(triage, inputs.of_observation(TRIAGE, one))
        if changed:
            return _why(changed), f"{', '.join(changed)} ({TRIAGE})", TRIAGE_JOB
    if ended.ending in ASKED_AGAIN and _age_s(ended, now_utc) > AGAIN_AFTER_S:
        return Why.AGAIN, f"{ended.ending} a day ago", STARS_JOB
    comps = stages.get("comp_list")
    is_unsure = comps is not None and comps.inputs.get(FIELD_VARIABLES) == NOT_KNOWN
    if is_unsure and _age_s(ended, now_utc) > AGAIN_AFTER_S and observatory.vsx.away() is None:
        return Why.AGAIN, "the variables of the field were not known", STARS_JOB
    return None


def _unset(row: TargetRow, stages: Mapping[str, StageRun]) -> str | None:
    """Return the column that says "not done" of what was done: a person wants it again."""
    words = {"calibration_choice": ("proc_bias", "proc_flat"), "reduced_frames": ("proc",)}
    for asset, columns in words.items():
        if asset in stages and stages[asset].ending == MADE:
            unset = [name for name in columns if getattr(row, name) is None]
            if unset:
                return unset[0]
    return None


def _gone(
    observatory: Observatory, key: str, stages: Mapping[str, StageRun], assets: Sequence[str]
) -> str | None:
    """Return the first of `assets` whose product was made and is not there any more."""
    for asset in assets:
        is_made = asset in stages and stages[asset].ending == MADE
        if is_made and not PRODUCTS[asset].path(observatory.layout, key).exists():
            return asset
    return None


def _is_chart_revised(observatory: Observatory, stage: StageRun) -> bool:
    """Tell whether the chart on disk has other stars than an observation was made with."""
    from wombat_dagster.stages.sequence import chart_version_now

    asked, made_with = stage.inputs.get(CHART_REQUEST), stage.inputs.get(CHART)
    if asked is None or stage.inputs.get(CHART_SOURCE) != VSP:
        return False
    now = chart_version_now(observatory, ChartRequest(**json.loads(asked)))
    return now not in (None, made_with)


def _end(stages: Mapping[str, StageRun]) -> tuple[str, StageRun]:
    """Return the stage that was begun last, of those that hang on each other."""
    chain = [(asset, stages[asset]) for asset in STAGES if asset in stages]
    return max(chain, key=lambda pair: pair[1].number)


def _wants_solver(row: TargetRow, stage: StageRun) -> bool:
    return stage.is_shortfall or row.proc == "partial"


def _job_from(asset: str) -> str:
    if asset in STARS_STAGES:
        return STARS_JOB
    return MAGNITUDES_JOB if asset == "standard_magnitudes" else OBSERVATION_JOB


def _why(changed: Sequence[str]) -> Why:
    known = {
        LIGHTS: Why.LATE_FRAMES,
        MASTERS: Why.MASTERS,
        SOLVER: Why.SOLVER,
        CHOICES: Why.CHOICES,
        CHART: Why.CHART,
    }
    return known.get(changed[0], Why.SETTINGS)


class _Masters:
    """Whether other masters make a difference to an observation; found out once per look."""

    def __init__(self, observatory: Observatory, until_s: float | None) -> None:
        self._observatory, self._until_s = observatory, until_s
        self._available = available_masters(observatory)
        self._confirmed: dict[int, Mapping[str, str]] = {}

    def make_a_difference(self, one: Observation, stage: StageRun, inputs: Inputs) -> bool:
        if self._until_s is not None and time.monotonic() > self._until_s:
            return False  # the next look finds out
        version = _version_of_choice(self._observatory, one, self._available)
        if version != stage.inputs.get(CHOSEN):
            return True
        wanted = inputs.of_observation(stage.asset, one)
        self._confirmed[stage.number] = {**stage.inputs, MASTERS: wanted[MASTERS]}
        return False

    def waits_for(self, one: Observation, broken_nights: Sequence[str]) -> str | None:
        """Return the night whose masters may be the ones that an observation wants."""
        own = f"{one.date:%Y%m%d}"
        if not broken_nights:
            return None
        if own in broken_nights:
            return own
        try:
            choice = choose_calibration(self._observatory, one, available=self._available)
        except Shortfall:
            return None
        return broken_nights[0] if choice.missing else None

    def confirm(self, runs: StageRuns) -> None:
        if self._confirmed:
            runs.confirm(self._confirmed)


def _version_of_choice(
    observatory: Observatory, observation: Observation, available: Sequence[Master]
) -> str:
    try:
        return choose_calibration(observatory, observation, available=available).version
    except Shortfall as shortfall:
        return shortfall_version(shortfall)


# ------------------------------------------------------------------------------- parked, released


def parked(observatory: Observatory, word: Apphot, *, patiently: bool = False) -> list[Observation]:
    """Return the observations that wait for a service, by date: `NOVSP` for VSP, `VSXDOWN` for VSX.

    Those measured by a catalogue's stars while VSP was away wait for it, too. What a person has
    decided on, and what is retired, waits for nothing. `patiently`: without those that were
    released in vain a moment ago (a service that answers a probe and nothing else); from the second
    time on the wait doubles.
    """
    runs = StageRuns(observatory.status.path)
    latest, in_vain = runs.latest(), runs.n_in_a_row(UNAVAILABLE)
    settings = observatory.settings.aavso

    def waits_on(key: str) -> bool:
        asset = _parked_stage(latest.get(key, {}))
        n = in_vain.get((key, asset), 0) if asset else 0
        if asset is None or n < 2:
            return False
        wait_s = min(settings.probe_s * 2 ** (n - 1), AGAIN_AFTER_S)
        return 0 <= _age_s(latest[key][asset], None) < wait_s

    return [
        row.observation
        for row in observatory.status.targets()
        if row.submitted is None
        and row.retired_utc is None
        and (
            row.apphot == word
            or (word is Apphot.NOVSP and _fell_back(latest.get(row.observation.key, {})))
        )
        and not _is_broken(latest.get(row.observation.key, {}))
        and not (patiently and waits_on(row.observation.key))
    ]


def parked_stages(observatory: Observatory, keys: Collection[str]) -> dict[str, str]:
    """Return the assets from which parked observations are to be taken up again, by key."""
    latest = StageRuns(observatory.status.path).latest()
    return {key: _parked_stage(latest.get(key, {})) or STAGES[0] for key in keys}


def _is_broken(stages: Mapping[str, StageRun]) -> bool:
    """Tell whether the last run did not come to its end: that is the data sensor's business."""
    return bool(stages) and _broken(stages, LAST_STAGES) is not None


def _parked_stage(stages: Mapping[str, StageRun]) -> str | None:
    asset, ended = _end(stages) if stages.keys() & set(STAGES) else (None, None)
    if ended is not None and ended.ending in UNAVAILABLE:
        return asset
    return "comp_list" if _fell_back(stages) else None


def _fell_back(stages: Mapping[str, StageRun]) -> bool:
    """Tell whether an observation was made with the stars of another catalogue than VSP's."""
    comps = stages.get("comp_list")
    return comps is not None and not comps.is_broken and comps.inputs.get(CHART_SOURCE, VSP) != VSP


def _source(stages: Mapping[str, StageRun]) -> str:
    return stages["comp_list"].inputs[CHART_SOURCE]


def charts_in_use(observatory: Observatory) -> set[ChartRequest]:
    """Return what the charts of finished observations were asked for."""
    latest = StageRuns(observatory.status.path).latest()
    asked = {
        stages["comp_list"].inputs[CHART_REQUEST]
        for stages in latest.values()
        if "comp_list" in stages and CHART_REQUEST in stages["comp_list"].inputs
    }
    return {ChartRequest(**json.loads(text)) for text in asked}


# ---------------------------------------------------------------------------------- common to both

VSP = "VSP"
UNAVAILABLE = {VsxUnavailable.__name__, VspUnavailable.__name__}
_BROKEN = {Why.INTERRUPTED, Why.FAILED}


def _changed(stage: StageRun, wanted: Mapping[str, str]) -> list[str]:
    """Return the names of inputs that are others now; of those alone that were written down."""
    return [name for name, now in wanted.items() if stage.inputs.get(name, now) != now]


def _broken(stages: Mapping[str, StageRun], last: AbstractSet[str]) -> tuple[Why, str] | None:
    """Return why the last run of a partition did not come to its end, None when it did."""
    stages = {a: one for a, one in stages.items() if a != TRIAGE} or stages
    newest = max(stages.values(), key=lambda one: one.number)
    of_run = {a: one for a, one in stages.items() if one.run_id == newest.run_id}
    for asset, one in of_run.items():
        if one.is_broken:
            why = Why.INTERRUPTED if one.ending is None else Why.FAILED
            return why, f"{asset}: {one.reason or 'did not end'}"
    if not newest.run_id or of_run.keys() >= last:  # of before this was written down
        return None
    if any(one.is_shortfall for one in of_run.values()):
        return None
    asset = next(a for a, one in of_run.items() if one.number == newest.number)
    return Why.INTERRUPTED, f"ended after {asset}"


def _may_be_tried(
    why: Why, stages: Mapping[str, StageRun], n_tries: int, now_utc: dt.datetime | None
) -> bool:
    """Tell whether something broken may be tried again by now; anything else may."""
    if why not in _BROKEN:
        return True
    last = max(stages.values(), key=lambda one: one.number)
    return not 0 <= _age_s(last, now_utc) < wait_s(n_tries)  # the clock may be set back


def wait_s(n_tries: int) -> float:
    """Return how long to wait after so many tries in vain: longer every time, at most a day."""
    return min(FIRST_WAIT_S * 4.0 ** (min(max(n_tries, 1), 20) - 1), AGAIN_AFTER_S)


def _age_s(one: StageRun, now_utc: dt.datetime | None) -> float:
    now = now_utc or dt.datetime.now(dt.UTC)
    return (now - dt.datetime.fromisoformat(one.ended_utc or one.begun_utc)).total_seconds()


def _signature(
    stages: Mapping[str, StageRun],
    inputs: Inputs,
    one: Observation,
    siblings: Mapping[str, str] | None,
) -> str:
    """Return a text that is new when there is a new reason to make an observation again."""
    now = [inputs.of_observation(asset, one) for asset in STAGES]
    return _digest([now, siblings, _last_number(stages)])


def _digest(values: object) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def _last_number(stages: Mapping[str, StageRun]) -> int:
    return max((one.number for one in stages.values()), default=0)


def _date(key: str) -> dt.date:
    return dt.datetime.strptime(key, "%Y%m%d").date()  # noqa: DTZ007 - a date
