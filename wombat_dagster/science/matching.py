"""Which master frame an observation is calibrated with, and why the others are not taken."""

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass

from wombat_dagster.domain import BadPixelMap, FrameGroup, FrameKind, Master, RunnerUp

MAX_RUNNERS_UP = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What a master has to match.

    `exposure_s`: a dark of this exposure, within the fraction `exposure_tolerance`, that holds the
    bias. `scaled_to_s`: a dark without the bias, which can be scaled to this exposure. The limits
    on age and temperature hold when given.
    """

    kind: FrameKind
    date: dt.date
    group: FrameGroup
    filter: str | None = None
    exposure_s: float | None = None
    scaled_to_s: float | None = None
    exposure_tolerance: float = 0.05
    max_age_days: int | None = None
    ccd_temperature_c: float | None = None
    max_temperature_difference_c: float | None = None

    @property
    def words(self) -> str:
        """Words for a reason: ``flat in V``."""
        return f"{self.kind.value}{f' in {self.filter}' if self.filter is not None else ''}"

    def days_away(self, other: Master | BadPixelMap) -> int:
        """Return the whole days between the nights."""
        return abs((other.date - self.date).days)


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """The master that is taken, why (or why none), and those that were not, nearest first."""

    master: Master | None
    words: str
    runners_up: tuple[RunnerUp, ...] = ()


def match_master(masters: Iterable[Master], wanted: Wanted) -> Match:
    """Return the matching master nearest in whole days, why (or why none), and the runners-up.

    Forwards or backwards in time; of two equally near the earlier. It matches when shape, binning,
    camera and readout are the same, for flats also the filter, for darks the exposure; what one
    side does not state matches, and the words say so. A temperature that is not known passes.

    A library's master is taken on the nights that it is valid for, whatever its age: when no night
    has one, or first when it is forced; of several the one valid since last, then the nearest. Of
    equally near darks to be scaled the one of the nearest exposure not shorter: scaling up
    multiplies the noise.

    The runners-up, at most `MAX_RUNNERS_UP`, are all the others that match, and those that do not
    match but are no further away than the one taken (all when there is none). Flats in other
    filters are named only when there is no flat to take.
    """
    fits: list[Master] = []
    misfits: list[tuple[Master, str]] = []
    for master in masters:
        if master.kind is not wanted.kind:
            continue
        reason = _mismatch(master, wanted)
        if reason is None:
            fits.append(master)
        else:
            misfits.append((master, reason))
    if fits:
        best = min(fits, key=lambda master: _rank(master, wanted))
        lost = [(m, _why_not(m, best, wanted)) for m in fits if m is not best]
        lost += [
            (m, f"{_distance(m, best, wanted)}, but {reason}")
            for m, reason in misfits
            if m.filter == best.filter and wanted.days_away(m) <= wanted.days_away(best)
        ]
        words = f"{wanted.words}: {_chosen(best, wanted)}"
        return Match(master=best, words=words, runners_up=_runners_up(lost, wanted))
    words = f"no master {wanted.words} on any night"
    if misfits:
        nearest, reason = min(misfits, key=lambda misfit: _order(misfit[0], wanted))
        words = f"no master {wanted.words}: nearest of {len(misfits)} is {nearest.date}, {reason}"
    lost = [(m, f"{_away(wanted.days_away(m))}, but {reason}") for m, reason in misfits]
    return Match(master=None, words=words, runners_up=_runners_up(lost, wanted))


def closest_map(
    maps: Iterable[BadPixelMap], *, date: dt.date, group: FrameGroup
) -> BadPixelMap | None:
    """Return the map of bad pixels nearest in time to a night, of the same shape and camera.

    Of two equally near the earlier. Whatever the readout: a pixel is bad in every mode.
    """
    of_chip = [
        one
        for one in maps
        if one.group.shape_words == group.shape_words
        and (not one.group.camera or not group.camera or one.group.camera == group.camera)
    ]
    return min(of_chip, key=lambda m: (abs((m.date - date).days), m.date, m.path), default=None)


def _mismatch(master: Master, wanted: Wanted) -> str | None:
    """Return why a master of the kind cannot be taken, None when it can."""
    if master.from_library and (reason := _out_of_validity(master, wanted.date)) is not None:
        return reason
    theirs, group = master.group, wanted.group
    if theirs.shape_words != group.shape_words:
        return f"{theirs.shape_words}, {group.shape_words} wanted"
    if theirs.camera and group.camera and theirs.camera != group.camera:
        return f"camera {theirs.camera}, {group.camera} wanted"
    if theirs.readout and group.readout and theirs.readout != group.readout:
        return f"readout {theirs.readout}, {group.readout} wanted"
    if wanted.filter is not None and master.filter != wanted.filter:
        return f"filter {master.filter}"
    if (reason := _exposure_mismatch(master, wanted)) is not None:
        return reason
    age_days = wanted.days_away(master)
    limit_days = None if master.from_library else wanted.max_age_days  # valid is valid
    if limit_days is not None and age_days > limit_days:
        return f"{age_days} days away, at most {limit_days} allowed"
    return _temperature_mismatch(master, wanted)


def _out_of_validity(master: Master, date: dt.date) -> str | None:
    first, last = master.valid_from, master.valid_until
    if (first is not None and date < first) or (last is not None and date > last):
        return f"valid {_validity(master)}"
    return None


def _validity(master: Master) -> str:
    """Return ``from 2025-01-01 to 2025-04-30`` of a library's master."""
    first = f"from {master.valid_from}" if master.valid_from else ""
    last = f"to {master.valid_until}" if master.valid_until else ""
    return " ".join(words for words in (first, last) if words) or "always"


def _exposure_mismatch(master: Master, wanted: Wanted) -> str | None:
    if wanted.exposure_s is not None:
        if is_scalable(master):
            return "bias-subtracted, and there is no bias to go with it"
        if master.exposure_s is None or not _is_exposure(master, wanted.exposure_s, wanted):
            return f"exposure {_seconds(master)}, {wanted.exposure_s:g} s wanted"
    elif wanted.scaled_to_s is not None and not is_scalable(master):
        return "it holds the bias and cannot be scaled"
    return None


def is_scalable(dark: Master) -> bool:
    """Tell whether a dark can be scaled to any exposure: wombat took the bias out of it.

    A dark of the observer's own is taken to hold the bias: it does not say otherwise.
    """
    return dark.bias_hash is not None and bool(dark.exposure_s)


def _is_exposure(master: Master, exposure_s: float, wanted: Wanted) -> bool:
    difference_s = abs((master.exposure_s or 0.0) - exposure_s)
    return difference_s <= wanted.exposure_tolerance * exposure_s


def _seconds(master: Master) -> str:
    return "not known" if master.exposure_s is None else f"{master.exposure_s:g} s"


def _temperature_mismatch(master: Master, wanted: Wanted) -> str | None:
    limit_c, at_c = wanted.max_temperature_difference_c, wanted.ccd_temperature_c
    if limit_c is None or at_c is None or master.ccd_temperature_c is None:
        return None
    if abs(master.ccd_temperature_c - at_c) <= limit_c:
        return None
    return f"at {master.ccd_temperature_c:.1f} C, {at_c:.1f} C wanted (within {limit_c:g} C)"


# ------------------------------------------------------------------------------- which is preferred


def _order(master: Master, wanted: Wanted) -> tuple[int, dt.date, str]:
    """Return what orders masters in time: the nearest first, then the earlier."""
    return wanted.days_away(master), master.date, master.path


def _rank(master: Master, wanted: Wanted) -> tuple[object, ...]:
    """Return what orders the masters that match, the best first."""
    place = 0 if master.forced else 2 if master.from_library else 1
    since = -master.valid_from.toordinal() if master.valid_from is not None else 0
    days, date, path = _order(master, wanted)
    return place, since, days, _exposure_rank(master, wanted), date, path


def _exposure_rank(dark: Master, wanted: Wanted) -> tuple[int, float]:
    """Return what orders darks: to be scaled, as long or longer first; then the nearest."""
    if dark.exposure_s is not None and wanted.exposure_s is not None:
        return 0, abs(dark.exposure_s - wanted.exposure_s)
    if wanted.scaled_to_s is None or dark.exposure_s is None:
        return 0, 0.0
    if _is_exposure(dark, wanted.scaled_to_s, wanted):
        return 0, 0.0
    longer_s = dark.exposure_s - wanted.scaled_to_s
    return (0, longer_s) if longer_s > 0.0 else (1, -longer_s)


# -------------------------------------------------------------------------------------------- words


def _chosen(best: Master, wanted: Wanted) -> str:
    """Return the words on the master taken."""
    words = [f"{best.date}, {_away(wanted.days_away(best))}"]
    if best.from_library:
        forced = ", forced" if best.forced else ""
        words = [f"{best.date} from the library, valid {_validity(best)}{forced}"]
    if wanted.scaled_to_s is not None and not _is_exposure(best, wanted.scaled_to_s, wanted):
        words.append(f"{_seconds(best)} scaled to {wanted.scaled_to_s:g} s")
    theirs, group = best.group, wanted.group
    for name, one, other in (
        ("camera", theirs.camera, group.camera),
        # A person's master need not have the cards of a raw frame.
        ("readout", theirs.readout if best.made_by_us else group.readout, group.readout),
    ):
        if bool(one) != bool(other):
            side = "the frames do" if one else "the master does"
            words.append(f"{name} {one or other} taken on trust: {side} not state it")
    return "; ".join(words)


def _away(days: int) -> str:
    return f"{_days(days)} away" if days else "same night"


def _days(days: int) -> str:
    return f"{days} day{'' if days == 1 else 's'}"


def _distance(master: Master, best: Master, wanted: Wanted) -> str:
    """Return how near a master lies beside the best one: ``2 days closer``."""
    days = wanted.days_away(master)
    if not days:
        return "same night"
    closer = wanted.days_away(best) - days
    if not closer:
        return "equally near"
    return f"{closer} night{'' if closer == 1 else 's'} closer"


def _why_not(master: Master, best: Master, wanted: Wanted) -> str:
    """Return why a master that matches is not the one taken."""
    if best.forced and not master.forced:
        return "forced library master preferred"
    if master.from_library and not best.from_library:
        return "from the library: masters of the nights come first"
    if master.from_library and master.valid_from != best.valid_from:
        return f"valid {_validity(master)}: the one taken, {_validity(best)}, is newer"
    further = wanted.days_away(master) - wanted.days_away(best)
    if further:
        return f"{_days(further)} further away"
    near = _distance(master, best, wanted)
    if _exposure_rank(master, wanted) != _exposure_rank(best, wanted):
        if wanted.scaled_to_s is None:
            return f"{near}, but {_seconds(master)}: {_seconds(best)} is nearer to the frames'"
        better = f"{_seconds(best)} is better scaled to {wanted.scaled_to_s:g} s"
        return f"{near}, but {_seconds(master)}: {better}"
    return f"{near}, but later" if master.date != best.date else f"{near}, but later by name"


def _runners_up(lost: Iterable[tuple[Master, str]], wanted: Wanted) -> tuple[RunnerUp, ...]:
    in_order = sorted(lost, key=lambda one: _order(one[0], wanted))[:MAX_RUNNERS_UP]
    return tuple(
        RunnerUp(kind=master.kind, path=master.path, date=master.date, reason=reason)
        for master, reason in in_order
    )
