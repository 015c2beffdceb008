"""What a person may decide of an observation and its points, and what becomes of a point by it.

For the page and the command line alike. What is not allowed is refused in words; the decisions
themselves are kept by `store.decisions`.
"""

import getpass
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from wombat_dagster.config import Settings
from wombat_dagster.domain import (
    Apphot,
    BoolArray,
    Decision,
    DecisionKind,
    PointState,
    StandardMagnitudes,
    Submitted,
    Variable,
)
from wombat_dagster.observatory import Observatory
from wombat_dagster.products import PRODUCTS, read_product
from wombat_dagster.store.decisions import Decisions
from wombat_dagster.store.report_ledger import LedgerLine, ReportLedger
from wombat_dagster.store.status import TargetRow
from wombat_dagster.store.tables import UnreadableProduct

MEASURED = (Apphot.VALIDATE, Apphot.HELD)
KEPT = (PointState.GOOD, PointState.RESTORED)
"""States of the points that are reported."""
REPORTED = (Submitted.EXPORTED, Submitted.SUBMITTED)
BY_OBSERVER = "observer"
"""Why a point is rejected that the person rejected, among the reasons that wombat proposes."""
ALTHOUGH_HELD = "although held: "
"""How the words of an approval begin that was given in spite of the check star."""
FOUND_BY_PLACE = "position"  # of `Variable.match`
FITS_ENDINGS = re.compile(r"(\.(fits?|fts|fz|gz|bz2))+$")
MAX_NAMES = 6


class Refusal(ValueError):
    """What a person asked for cannot be; the message says why, and what can be done."""


def who_decides(settings: Settings) -> str:
    """Return who sits at this computer: the observer code, else the name of the login."""
    if settings.observer.code:
        return settings.observer.code
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # KeyError up to Python 3.12: a uid without a name
        return f"uid {os.getuid()}"


# ---------------------------------------------------------------------------------------- points


def point_states(
    magnitudes: StandardMagnitudes, points: Mapping[str, bool]
) -> tuple[PointState, ...]:
    """Return what becomes of every point of a night, in the order of its frames.

    `points` are the person's decisions by frame hash, True rejected (`Decisions.points`). A point
    that wombat proposes to reject stays so until the person restores it.
    """
    return tuple(
        _state(points.get(raw_hash), is_proposed=bool(reasons))
        for raw_hash, reasons in zip(
            magnitudes.raw_hashes, magnitudes.proposed_rejected, strict=True
        )
    )


def _state(is_rejected: bool | None, *, is_proposed: bool) -> PointState:
    if is_rejected:
        return PointState.REJECTED
    if not is_proposed:
        return PointState.GOOD
    return PointState.PROPOSED if is_rejected is None else PointState.RESTORED


def as_decided(magnitudes: StandardMagnitudes, points: Mapping[str, bool]) -> StandardMagnitudes:
    """Return the night with what the person decided in place of what wombat proposes.

    For whatever leaves out what is in `proposed_rejected`: curves, exports.
    """
    states = point_states(magnitudes, points)
    reasons = zip(states, magnitudes.proposed_rejected, strict=True)
    return replace(
        magnitudes,
        proposed_rejected=tuple(
            BY_OBSERVER if state is PointState.REJECTED else "" if state in KEPT else proposed
            for state, proposed in reasons
        ),
    )


def kept(magnitudes: StandardMagnitudes, points: Mapping[str, bool]) -> BoolArray:
    """Tell of every frame whether its T1 has a value and is not rejected, shape (n_frames,)."""
    states = np.array([state in KEPT for state in point_states(magnitudes, points)], dtype=bool)
    return states & np.isfinite(magnitudes.t1_mag)


def to_report(
    magnitudes: StandardMagnitudes,
    points: Mapping[str, bool],
    approved_mag: Mapping[str, float],
) -> BoolArray:
    """Tell of every frame whether its T1 goes into a report, shape (n_frames,).

    Of the points that are `kept` those that the person approved (`Decisions.approved_mag`): not one
    that came later. Nothing known of an approval (a person wrote the word by hand): all of them.
    """
    chosen = kept(magnitudes, points)
    if approved_mag:
        chosen &= np.array([x in approved_mag for x in magnitudes.raw_hashes], dtype=bool)
    return chosen


def points_called(magnitudes: StandardMagnitudes, names: Sequence[str]) -> tuple[str, ...]:
    """Return the frame hashes of `names`: labels of frames, or their stems, or with other endings.

    A raw frame may be ``a.fit`` where its label is ``a.fits``. Raises `Refusal` naming those that
    are no frame of the night, or more than one.
    """
    found: list[str] = []
    unknown: list[str] = []
    unsure: list[str] = []
    for name in names:
        wanted = name.casefold()
        tries = ((str.casefold, wanted), (_stem, wanted), (_stem, _stem(wanted)))
        for spelled, sought in tries:
            fits = [i for i, label in enumerate(magnitudes.labels) if spelled(label) == sought]
            if fits:
                break
        if len(fits) == 1:
            found.append(magnitudes.raw_hashes[fits[0]])
        else:
            (unsure if fits else unknown).append(name)
    if unknown:
        examples = _few(magnitudes.labels[:2])
        raise Refusal(
            f"{_few(unknown)}: no frame of this observation, which has"
            f" {len(magnitudes.labels)} like {examples}"
        )
    if unsure:
        raise Refusal(f"{_few(unsure)}: several frames are called so; say their numbers")
    return tuple(dict.fromkeys(found))


def points_numbered(magnitudes: StandardMagnitudes, numbers: Sequence[int]) -> tuple[str, ...]:
    """Return the frame hashes of points, numbered from 1 in time order. Raises `Refusal`."""
    n_points = len(magnitudes.raw_hashes)
    wrong = [str(number) for number in numbers if not 1 <= number <= n_points]
    if wrong:
        raise Refusal(f"{_few(wrong)}: the points are numbered from 1 to {n_points}")
    return tuple(dict.fromkeys(magnitudes.raw_hashes[number - 1] for number in numbers))


def _stem(name: str) -> str:
    """Return a file's name without what says that it is FITS, or packed: ``a.fit`` is "a"."""
    return FITS_ENDINGS.sub("", name.casefold())


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - MAX_NAMES} more" if len(names) > MAX_NAMES else ""
    return ", ".join(names[:MAX_NAMES]) + more


# --------------------------------------------------------------------------------- the observation


def approve(
    observatory: Observatory,
    key: str,
    *,
    who: str,
    seen: int | None = None,
    why: str | None = None,
) -> Decision:
    """Approve an observation: the points that are not rejected may be reported as they are now.

    `why` is wanted of one that is held: its check star was out of control. It is kept with what
    held it, so that words on a night that was not held accept no later hold (`accepts_hold`). Of
    one that was reported, whose magnitudes are others since, the approved magnitudes are renewed
    and the word stays.

    Raises
    ------
    Refusal
        It has no magnitudes that can be read, no point is left, it is approved already…
    store.decisions.Overtaken
        Somebody decided on it after `seen`.
    """
    row = _row(observatory, key)
    if row.apphot not in MEASURED:
        raise Refusal(f"{key} cannot be approved: {_without_magnitudes(row)}")
    magnitudes = measured(observatory, key)
    journal = Decisions(observatory.status.path)
    version = PRODUCTS["standard_magnitudes"].version(magnitudes)
    why, held = _words(why), _held_words(row, magnitudes)
    if held is not None and why is None:
        raise Refusal(
            f"{key} is held, its check star is out of control: {held}. To approve it all the same"
            " say why"
        )
    if row.submitted == Submitted.APPROVED or row.submitted in REPORTED:
        last = _last(journal, key, DecisionKind.APPROVE)
        is_same = last is not None and last.version == version
        is_accepted = held is None or accepts_hold(last)
        never_approved = last is None and not _reported(observatory, key)
        if never_approved or (is_same and is_accepted):
            raise Refusal(f"{key} is {row.submitted} already{_by(last)}; nothing changed since")
    chosen = kept(magnitudes, journal.points(key))
    if not chosen.any():
        raise Refusal(
            f"{key}: not one of its {len(chosen)} points is left to be reported; restore some, or"
            " reject the observation"
        )
    return _record(
        journal,
        key,
        DecisionKind.APPROVE,
        who=who,
        why=_approving_words(why, held),
        version=version,
        approved_mag=_values(magnitudes, chosen),
        seen=seen,
    )


def accepts_hold(approval: Decision | None) -> bool:
    """Tell whether an approval was given in spite of the check star; None: there is none."""
    return approval is not None and (approval.why or "").startswith(ALTHOUGH_HELD)


def _held_words(row: TargetRow, magnitudes: StandardMagnitudes) -> str | None:
    """Return why an observation is held, None when it is not."""
    if row.apphot == Apphot.HELD:
        return row.reason or magnitudes.held_reason or "no reason is known"
    return magnitudes.held_reason


def _approving_words(why: str | None, held: str | None) -> str | None:
    if held is not None:
        return f"{ALTHOUGH_HELD}{held}; {why}"
    # nobody accepts by chance a hold that there is not
    return f'"{why}"' if why is not None and why.startswith(ALTHOUGH_HELD) else why


def reject(
    observatory: Observatory, key: str, *, who: str, why: str, seen: int | None = None
) -> Decision:
    """Reject an observation as a whole, for a reason. Raises as `approve` does.

    Refused whenever it has lines in a report, whatever is said of it.
    """
    row, journal = _row(observatory, key), Decisions(observatory.status.path)
    if seen is None:  # an export of this very moment counts
        seen = journal.last_id(key)
    words = _words(why)
    if words is None:
        raise Refusal(f"{key}: rejecting an observation needs a reason")
    if row.apphot not in MEASURED and row.submitted is None:
        raise Refusal(f"{key} cannot be rejected: {_without_magnitudes(row)}")
    if lines := _reported(observatory, key):
        raise Refusal(_withdraw_words(observatory, key, lines))
    if row.submitted in REPORTED:
        raise Refusal(
            f"{key} is {row.submitted}, it says, and wombat has reported nothing of it. If the"
            " AAVSO has nothing of it either, set submitted to NULL in its row of target, then"
            " reject it"
        )
    if row.submitted == Submitted.REJECTED:
        raise Refusal(f"{key} is rejected already{_by(_last(journal, key, DecisionKind.REJECT))}")
    return _record(journal, key, DecisionKind.REJECT, who=who, why=words, seen=seen)


def reject_points(
    observatory: Observatory,
    key: str,
    raw_hashes: Sequence[str],
    *,
    who: str,
    why: str | None = None,
    seen: int | None = None,
) -> Decision:
    """Reject points of an observation, by the hashes of their frames. Raises as `approve` does.

    Those that are in reports, too: no line of a report takes one back, `to_take_back` says what is
    to be done.
    """
    row, magnitudes = _row(observatory, key), measured(observatory, key)
    journal, chosen = Decisions(observatory.status.path), _of(magnitudes, key, raw_hashes)
    points = journal.points(key)
    if all(points.get(one) for one in chosen):
        raise Refusal(f"{key}: {_points(len(chosen))} rejected already")
    after = points | dict.fromkeys(chosen, True)
    is_left = kept(magnitudes, after).any()
    if row.submitted == Submitted.APPROVED and not is_left and not _reported(observatory, key):
        raise Refusal(f"{key} is {row.submitted} and would have no point left: reject it instead")
    return _record(
        journal,
        key,
        DecisionKind.REJECT_POINTS,
        who=who,
        raw_hashes=chosen,
        why=_words(why),
        seen=seen,
    )


def restore_points(
    observatory: Observatory,
    key: str,
    raw_hashes: Sequence[str],
    *,
    who: str,
    why: str | None = None,
    seen: int | None = None,
) -> Decision:
    """Restore points, be they rejected by a person or proposed to be. Raises as `approve` does."""
    row, magnitudes = _row(observatory, key), measured(observatory, key)
    journal, chosen = Decisions(observatory.status.path), _of(magnitudes, key, raw_hashes)
    points = journal.points(key)
    before, after = (
        kept(magnitudes, decided) for decided in (points, points | dict.fromkeys(chosen, False))
    )
    places = [magnitudes.raw_hashes.index(one) for one in chosen]
    if all(before[place] for place in places):
        raise Refusal(f"{key}: {_points(len(chosen))} not rejected")
    empty = [magnitudes.labels[place] for place in places if not after[place]]
    if empty:
        raise Refusal(f"{_few(empty)}: T1 has no value there, nothing can be restored")
    is_approved = row.submitted == Submitted.APPROVED or row.submitted in REPORTED
    values = _values(magnitudes, after & np.isin(magnitudes.raw_hashes, chosen))
    return _record(
        journal,
        key,
        DecisionKind.RESTORE_POINTS,
        who=who,
        raw_hashes=chosen,
        why=_words(why),
        version=PRODUCTS["standard_magnitudes"].version(magnitudes),
        approved_mag=values if is_approved else None,
        seen=seen,
    )


def to_take_back(observatory: Observatory, key: str, raw_hashes: Sequence[str]) -> tuple[str, ...]:
    """Return in words what is to be done of points that are in reports: rejected ones, mostly.

    What was submitted is to be deleted at the AAVSO, by star, band and time; a file that was not is
    to be withdrawn. Empty: none of them is in a report.
    """
    wanted = set(raw_hashes)
    lines = [line for line in _reported(observatory, key) if line.raw_hash in wanted]
    uploaded = _uploaded(observatory, lines)
    there = [line for line in lines if line.file in uploaded]
    words = []
    for star, band in dict.fromkeys((line.star, line.band) for line in there):
        times = [line.jd for line in there if (line.star, line.band) == (star, band)]
        words.append(f"delete at the AAVSO: {star}, {band}, JD {', '.join(times)}")
    for file in dict.fromkeys(line.file for line in lines if line.file not in uploaded):
        own = [line for line in lines if line.file == file]
        many = "s" if len(own) > 1 else ""
        amended = " The line before it is to be deleted at the AAVSO, too."
        words.append(
            f"not submitted yet: {len(own)} line{many} in {file}. Do not upload it: wombat"
            f" submitted --withdraw {file}, then wombat report writes the others anew."
            + (amended if any(line.amends is not None for line in own) else "")
        )
    return tuple(words)


def undo(observatory: Observatory, key: str, *, who: str, seen: int | None = None) -> Decision:
    """Undo the last decision on an observation that holds, and return it. Raises as `approve`."""
    _row(observatory, key)
    try:
        undone = Decisions(observatory.status.path).undo(key, who=who, seen=seen)
    except ValueError as error:
        raise Refusal(str(error)) from error
    if undone is None:
        raise Refusal(f"{key}: nothing was decided that could be undone")
    return undone


def confirm_star(
    observatory: Observatory, key: str, *, who: str, seen: int | None = None
) -> Decision:
    """Say that the star which was found by its position alone is the one meant.

    It holds for the same target's other filters and nights (`Decisions.is_confirmed`). Raises as
    `approve` does.
    """
    _row(observatory, key)
    star = found_star(observatory, key)
    if star is None:
        raise Refusal(f"{key}: there is no star yet, or its file cannot be read")
    if star.match != FOUND_BY_PLACE:
        raise Refusal(f"{key}: {star.name} was found by its {star.match}, nothing is to confirm")
    journal = Decisions(observatory.status.path)
    if journal.is_confirmed(key, star.identity):
        raise Refusal(f"{key}: {star.name} is confirmed already")
    called = f"{star.name} ({star.auid})" if star.auid else star.name
    return _record(
        journal,
        key,
        DecisionKind.CONFIRM_STAR,
        who=who,
        why=called,
        version=star.identity,
        seen=seen,
    )


def star_to_confirm(observatory: Observatory, key: str) -> Variable | None:
    """Return the star that was found by position and no person has confirmed; None: all is well."""
    star = found_star(observatory, key)
    if star is None or star.match != FOUND_BY_PLACE:
        return None
    confirmed = Decisions(observatory.status.path).is_confirmed(key, star.identity)
    return None if confirmed else star


def found_star(observatory: Observatory, key: str) -> Variable | None:
    """Return T1 of an observation, None when it was not found or its file cannot be read."""
    try:
        found: Variable = read_product(observatory, "variable", key)
    except (FileNotFoundError, UnreadableProduct):
        return None
    return found


def measured(observatory: Observatory, key: str) -> StandardMagnitudes:
    """Return the magnitudes of an observation. Raises `Refusal` when they cannot be read."""
    try:
        found: StandardMagnitudes = read_product(observatory, "standard_magnitudes", key)
    except FileNotFoundError as error:
        raise Refusal(f"{key} has no magnitudes: {error.filename} is not there") from error
    except UnreadableProduct as error:
        raise Refusal(f"{key}: its magnitudes cannot be read: {error}") from error
    return found


# ------------------------------------------------------------------------------------------ inside


def _row(observatory: Observatory, key: str) -> TargetRow:
    try:
        return observatory.status.target_row(key)
    except LookupError as error:
        raise Refusal(str(error)) from error


def _record(journal: Decisions, key: str, kind: DecisionKind, **facts: Any) -> Decision:
    """Write a decision; refuse when the observation's row was deleted at this very moment."""
    try:
        return journal.record(key, kind, **facts)
    except KeyError as error:
        raise Refusal(str(error.args[0])) from error


def _without_magnitudes(row: TargetRow) -> str:
    word = row.apphot or row.proc
    state = "it is not measured yet" if word is None else f"it has no magnitudes, it is {word}"
    return f"{state} ({row.reason})" if row.reason else state


def _words(text: str | None) -> str | None:
    return (text or "").strip() or None


def _of(magnitudes: StandardMagnitudes, key: str, raw_hashes: Sequence[str]) -> tuple[str, ...]:
    chosen = tuple(dict.fromkeys(raw_hashes))
    if not chosen:
        raise Refusal(f"{key}: no point is named")
    unknown = sorted(set(chosen) - set(magnitudes.raw_hashes))
    if unknown:
        raise Refusal(f"{key} has no point of the frame {_few([one[:12] for one in unknown])}")
    return chosen


def _values(magnitudes: StandardMagnitudes, chosen: BoolArray) -> dict[str, float]:
    return {magnitudes.raw_hashes[i]: float(magnitudes.t1_mag[i]) for i in np.flatnonzero(chosen)}


def _last(journal: Decisions, key: str, kind: DecisionKind) -> Decision | None:
    held = [x for x in journal.history(key) if x.kind is kind and x.undone_utc is None]
    return held[-1] if held else None


def _by(one: Decision | None) -> str:
    return "" if one is None else f" ({one.who}, {one.decided_utc[:16]}Z)"


def _points(n: int) -> str:
    return f"{n} point{' is' if n == 1 else 's are'}"


def _reported(observatory: Observatory, key: str) -> tuple[LedgerLine, ...]:
    """Return the lines of an observation that wombat wrote and nobody withdrew."""
    lines = ReportLedger(observatory.status.path).lines(key=key)
    return tuple(line for line in lines if line.origin == "wombat")


def _uploaded(observatory: Observatory, lines: Sequence[LedgerLine]) -> set[str]:
    """Return the files of `lines` of which any line was submitted: they were uploaded."""
    ledger = ReportLedger(observatory.status.path)
    files = {line.file for line in lines}
    return {x.file for file in files for x in ledger.lines(file=file) if x.submitted_utc}


def _withdraw_words(observatory: Observatory, key: str, lines: Sequence[LedgerLine]) -> str:
    """Return what is to be done before a reported observation can be rejected."""
    uploaded = _uploaded(observatory, lines)
    words = []
    if there := sorted({line.file for line in lines} & uploaded):
        words.append(
            f"its lines in {_few(there)} were submitted: delete them at the AAVSO, then say"
            f" wombat submitted --withdraw {key}"
        )
    for file in sorted({line.file for line in lines} - uploaded):
        words.append(
            f"its lines in {file} are not submitted: do not upload it, say wombat submitted"
            f" --withdraw {file}"
        )
    return f"{key} was reported. {'; '.join(words)}. Single points can be rejected all the same"
