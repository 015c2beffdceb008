"""What magnitudes made again say otherwise than before, and what went in that differs."""

from collections.abc import Mapping, Sequence

import numpy as np

from wombat_dagster.domain import DecisionKind, StandardMagnitudes, Submitted
from wombat_dagster.observatory import Observatory
from wombat_dagster.products import read_product
from wombat_dagster.stages.decisions import accepts_hold, kept
from wombat_dagster.stages.siblings import COEFFICIENTS
from wombat_dagster.store.decisions import WOMBAT, Decisions, Overtaken
from wombat_dagster.store.remade import Remade, record_remade, utc_now
from wombat_dagster.store.stage_runs import MADE, StageRuns
from wombat_dagster.store.tables import UnreadableProduct

SAME_MAG = 5e-6  # beyond the digits that are written
TOLD_MAG = 5e-5  # of the comps' mean: beyond the digits that are told
MAX_NAMES = 6


def magnitudes_before(observatory: Observatory, key: str) -> StandardMagnitudes | None:
    """Return the magnitudes that an observation has had, None when there are none to be read."""
    try:
        found: StandardMagnitudes = read_product(observatory, "standard_magnitudes", key)
    except (FileNotFoundError, UnreadableProduct):
        return None
    return found


def record_change(
    observatory: Observatory,
    key: str,
    before: StandardMagnitudes | None,
    after: StandardMagnitudes,
    *,
    why: str | None,
) -> Remade | None:
    """Write down how T1 changed on the frames that both have; None, and nothing, when it did not.

    Frames are the same when their pixels are. T1 without a value before or after does not count. Of
    a row that a person has decided on, it says so as well, and an approval that does not fit any
    more is recalled (`recall_if_moved`).
    """
    found = None if before is None else _difference(observatory, key, before, after, why=why)
    if found is not None:
        record_remade(observatory.status.path, found)
    words = recall_if_moved(observatory, key, after, what=found.what if found else None)
    if found is not None and words is None and observatory.status.target_row(key).submitted:
        observatory.status.note_changed_since(key, _since_decided(found))
    return found


def _difference(
    observatory: Observatory,
    key: str,
    before: StandardMagnitudes,
    after: StandardMagnitudes,
    *,
    why: str | None,
) -> Remade | None:
    places = {pixels: i for i, pixels in enumerate(before.raw_hashes)}
    pairs = [(places[p], i) for i, p in enumerate(after.raw_hashes) if p in places]
    old, new = (np.array([pair[side] for pair in pairs], dtype=int) for side in (0, 1))
    change = after.t1_mag[new] - before.t1_mag[old]
    change = change[np.isfinite(change)]
    is_same = bool(np.all(np.abs(change) < SAME_MAG)) and len(pairs) == len(after.raw_hashes)
    if is_same and abs(after.zp_err_mag - before.zp_err_mag) < SAME_MAG:
        return None
    return Remade(
        key=key,
        made_utc=utc_now(),
        why=why,
        what=what_differs(before, after, software=_software(observatory, key)),
        n_frames=len(change),
        t1_median_change_mag=float(np.median(change)) if len(change) else None,
        t1_largest_change_mag=float(change[np.argmax(np.abs(change))]) if len(change) else None,
        zp_err_before_mag=_finite(before.zp_err_mag),
        zp_err_after_mag=_finite(after.zp_err_mag),
    )


def _finite(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _since_decided(one: Remade) -> str:
    """Return ``2026-11-21T20:50Z after you decided: T1 +0.053 mag (frames 19 → 22)``."""
    change = one.t1_median_change_mag
    words = one.figures if change is None else f"T1 {change:+.3f} mag"
    return f"{one.made_utc[:16]}Z after you decided: {words} ({one.what})"


# ----------------------------------------------------------------------------- against the approval


def recall_if_moved(
    observatory: Observatory, key: str, now: StandardMagnitudes, *, what: str | None = None
) -> str | None:
    """Take an approval back when the magnitudes are `now` others than the person approved.

    That is when T1 of a point that is to be reported moved by more than ``[report] changed_mag``,
    when there are points to be reported that were not there, or none of those that were, and when
    the observation is held that was not. It waits in `validate` again, marked as changed since, and
    the magnitudes as approved stay known. One that waits so already is marked anew. An observation
    that was exported or submitted is left alone: its changes become amendments.

    Parameters
    ----------
    what
        What went in that differs, in words.

    Returns
    -------
    str or None
        How they differ, in words; None: it was not approved, or the approval holds.
    """
    journal, status = Decisions(observatory.status.path), observatory.status
    while True:
        seen = journal.last_id(key)
        submitted, is_recalled = status.target_row(key).submitted, _is_recalled(journal, key)
        if submitted != Submitted.APPROVED and not (submitted is None and is_recalled):
            return None
        words = differs_from_approved(observatory, key, now)
        if words is None:
            return None
        told = f"{utc_now()[:16]}Z after you approved: {words}{f' ({what})' if what else ''}"
        try:
            if not is_recalled:
                journal.record(key, DecisionKind.RECALL, who=WOMBAT, why=told, seen=seen)
        except Overtaken:  # the person decides at this very moment: that counts
            continue
        status.note_changed_since(key, told)
        return told


def _is_recalled(journal: Decisions, key: str) -> bool:
    told = {DecisionKind.APPROVE, DecisionKind.REJECT, DecisionKind.EXPORT, DecisionKind.SUBMIT}
    kinds = [x.kind for x in journal.history(key) if x.undone_utc is None]
    about = [kind for kind in kinds if kind in told | {DecisionKind.RECALL}]
    return bool(about) and about[-1] is DecisionKind.RECALL


def differs_from_approved(
    observatory: Observatory, key: str, now: StandardMagnitudes
) -> str | None:
    """Return why magnitudes are not what the person approved last, None when they are, or never."""
    journal = Decisions(observatory.status.path)
    approved = journal.approved_mag(key)
    if not approved:  # a person wrote the word by hand
        return None
    limit_mag = observatory.settings.report.changed_mag
    chosen = kept(now, journal.points(key))
    there = [i for i in np.flatnonzero(chosen) if now.raw_hashes[i] in approved]
    change = np.array([now.t1_mag[i] - approved[now.raw_hashes[i]] for i in there], dtype=float)
    n_moved = int(np.sum(np.abs(change) > limit_mag))
    n_new = int(chosen.sum()) - len(there)
    words = []
    if n_moved:
        largest = float(change[np.argmax(np.abs(change))])
        words.append(
            f"T1 {np.median(change):+.3f} mag in the median, {largest:+.3f} at most, more than"
            f" {limit_mag:g} on {n_moved} of {len(there)} points"
        )
    if n_new:
        what = "point to be reported that was" if n_new == 1 else "points to be reported that were"
        words.append(f"{n_new} {what} not there")
    if not there:
        words.append(f"none of the {len(approved)} points that you approved is left")
    if now.held_reason and not _was_held(journal, key):
        words.append(f"held: {now.held_reason}")
    return "; ".join(words) or None


def _was_held(journal: Decisions, key: str) -> bool:
    """Tell whether the last approval was given in spite of the check star."""
    given = [
        x for x in journal.history(key) if x.kind is DecisionKind.APPROVE and x.undone_utc is None
    ]
    return accepts_hold(given[-1] if given else None)


# ------------------------------------------------------------------------------------ what differs


def what_differs(
    before: StandardMagnitudes, after: StandardMagnitudes, *, software: Sequence[str] = ()
) -> str:
    """Return in words what went into magnitudes that differs; `software` are words on programs.

    ``bias none → 2025-10-14 (4f5a06); frames 19 → 22``. What cannot be told is "not known".
    """
    old, new = _facts(before), _facts(after)
    names = dict.fromkeys((*old, *new))
    parts = [
        *(f"{n} {old[n]} → {new[n]}" for n in names if n in old and n in new and old[n] != new[n]),
        *_frames(before, after),
        *_comps(before, after),
        *_siblings(before.sibling_versions, after.sibling_versions),
        *_others_coefficients(before, after),
        *software,
    ]
    unknown = ", ".join(name for name in names if name not in old or name not in new)
    if unknown:
        parts.append(f"not known whether other: {unknown}")
    return "; ".join(parts) or "what differs is not known"


def _facts(magnitudes: StandardMagnitudes) -> dict[str, str]:
    """Return what can be compared as words, by name; what was not recorded is not there."""
    used = magnitudes.transformation
    coefficient = "none"
    if used.coefficient is not None:
        coefficient = f"{used.coefficient_name or ''} {used.coefficient:+.4f}".strip()
        if used.coefficient_error is not None:
            coefficient += f" ± {used.coefficient_error:.4f}"
    is_measured = magnitudes.method == "two-filter"  # the night's own result, not what goes in
    has_colour = used.target_colour is not None and not is_measured
    return {
        **magnitudes.made_with,
        "chart": magnitudes.chart_id,
        "check star": magnitudes.check_name or "none",
        "method": magnitudes.method,
        "ensemble": magnitudes.ensemble,
        "TRANS": "YES" if magnitudes.transformed else "NO",
        "coefficient": coefficient,
        **({"colour of T1": f"{used.target_colour:.3f}"} if has_colour else {}),
    }


def _frames(before: StandardMagnitudes, after: StandardMagnitudes) -> list[str]:
    n_old, n_new = len(before.raw_hashes), len(after.raw_hashes)
    n_others = len(set(after.raw_hashes) - set(before.raw_hashes))
    if n_old != n_new:
        return [f"frames {n_old} → {n_new}"]
    return [f"{n_others} of {n_new} frames are other ones"] if n_others else []


def _comps(before: StandardMagnitudes, after: StandardMagnitudes) -> list[str]:
    old, new = before.comp_names, after.comp_names
    if set(old) == set(new):
        means = before.ensemble_reference_mag, after.ensemble_reference_mag
        if abs(means[1] - means[0]) < TOLD_MAG:
            return []
        return [f"catalogue mean of the comps {means[0]:.4f} → {means[1]:.4f}"]
    if not set(old) & set(new):
        return [f"comps {len(old)} → {len(new)}, none in both"]
    added = [name for name in new if name not in old]
    left_out = [name for name in old if name not in new]
    return [
        f"comps {words}: {_few(names)}"
        for words, names in (("added", added), ("left out", left_out))
        if names
    ]


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more


def _siblings(old: Mapping[str, str], new: Mapping[str, str]) -> list[str]:
    """Return which of the other filters' measurements are there now, gone, or made again."""
    words = []
    for key in sorted({*old, *new} - {COEFFICIENTS}):
        if key not in old:
            words.append(f"with {key}")
        elif key not in new:
            words.append(f"without {key}")
        elif old[key] != new[key]:
            words.append(f"{key} measured again")
    return words


def _others_coefficients(before: StandardMagnitudes, after: StandardMagnitudes) -> list[str]:
    """Return that coefficients of the other filters differ, which two filters use as well.

    Their values are not in magnitudes, the version of all that are stored for the camera is.
    """
    versions = [one.sibling_versions.get(COEFFICIENTS) for one in (before, after)]
    is_own = before.transformation.coefficient != after.transformation.coefficient
    is_two = before.method == after.method == "two-filter"
    if None in versions or versions[0] == versions[1] or is_own or not is_two:
        return []
    old, new = (str(version)[:6] for version in versions)
    return [f"coefficients of the camera other than this filter's {old} → {new}"]


def _software(observatory: Observatory, key: str) -> list[str]:
    """Return which programs are of another version than when the magnitudes were last made."""
    runs = [
        run
        for run in StageRuns(observatory.status.path).history(key)
        if run.asset == "standard_magnitudes"
    ]
    last = next((run for run in reversed(runs[:-1]) if run.ending == MADE), None)
    if last is None or last.software is None or runs[-1].software is None:
        return []
    old, new = last.software, runs[-1].software
    return [
        f"{name} {old.get(name, 'none')} → {new.get(name, 'none')}"
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    ]
