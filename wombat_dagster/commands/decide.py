"""``wombat approve``, ``reject``, ``restore``, ``undo`` and ``confirm``: what the page can, too.

The rules are in `stages.decisions`.
"""

import re
import sys
from typing import TYPE_CHECKING

import click

from wombat_dagster.terminal import UNREADABLE, Refused, console, count, open_in_force, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from wombat_dagster.domain import StandardMagnitudes
    from wombat_dagster.observatory import Observatory

_OBSERVATIONS = click.argument("observations", nargs=-1, required=True, metavar="OBSERVATION...")
_OBSERVATION = click.argument("observation", nargs=-1, required=True)
_FRAMES = click.option(
    "--frames", multiple=True, metavar="NAMES", help="Points by their frames' names: a.fits,b.fits"
)
_POINTS = click.option("--points", metavar="N,N-N", help="Points by number, from 1 in time order.")


@click.command()
@_OBSERVATIONS
@click.option("--why", metavar="WORDS", help="Wanted of one that is held.")
@click.option("--confirm", "is_confirmed", is_flag=True, help="Its star is the right one, too.")
def approve(observations: tuple[str, ...], why: str | None, is_confirmed: bool) -> None:
    """Approve observations: their points may be reported.

    OBSERVATION is a key like 20251015__TX_Eri__V, several of them, or NIGHT TARGET [FILTER],
    without FILTER all of them. Points that were rejected, or are proposed to be, stay out; wombat
    restore takes them back. What was reported, and has other magnitudes since, is approved as
    it is now.
    """
    observatory = open_in_force()
    from wombat_dagster.stages import decisions
    from wombat_dagster.store.decisions import Decisions

    who = decisions.who_decides(observatory.settings)

    def decide(key: str) -> "Iterator[str]":
        if is_confirmed and decisions.star_to_confirm(observatory, key) is not None:
            yield f"{key}: {decisions.confirm_star(observatory, key, who=who).why} confirmed"
        decisions.approve(observatory, key, who=who, why=why)
        points = Decisions(observatory.status.path).points(key)
        chosen = decisions.kept(decisions.measured(observatory, key), points)
        word = observatory.status.target_row(key).submitted
        renewed = "" if word == "approved" else f" as they are now; it stays {word}"
        yield f"{key}: approved, {int(chosen.sum())} of {count(len(chosen), 'point')}{renewed}"
        star = decisions.star_to_confirm(observatory, key)
        if star is not None:
            yield (
                f"{key}: its star was found by position alone, {star.name}; it is reported after"
                f" wombat confirm {key}"
            )

    _each(observatory, observations, decide, every_filter=True)


@click.command()
@_OBSERVATIONS
@click.option("--why", metavar="WORDS", help="The reason; wanted of whole observations.")
@_FRAMES
@_POINTS
def reject(
    observations: tuple[str, ...], why: str | None, frames: tuple[str, ...], points: str | None
) -> None:
    """Reject observations, or points of one.

    OBSERVATION is a key like 20251015__TX_Eri__V, several of them, or NIGHT TARGET [FILTER],
    without FILTER all of them. Of points that were reported it says what to do at the AAVSO.
    """
    observatory = open_in_force()
    from wombat_dagster.stages import decisions

    who = decisions.who_decides(observatory.settings)

    def whole(key: str) -> "Iterator[str]":
        decisions.reject(observatory, key, who=who, why=why or "")
        yield f"{key}: rejected"

    def some(key: str) -> "Iterator[str]":
        chosen = _points_meant(decisions.measured(observatory, key), frames, points)
        decisions.reject_points(observatory, key, chosen, who=who, why=why)
        yield f"{key}: {count(len(chosen), 'point')} rejected; {_left(observatory, key)}"
        for words in decisions.to_take_back(observatory, key, chosen):
            yield f"{key}: {words}"

    if frames or points is not None:  # an empty name is one, too: of a shell's empty variable
        _each(observatory, observations, some)
    else:
        _each(observatory, observations, whole, every_filter=True)


@click.command()
@_OBSERVATION
@click.option("--why", metavar="WORDS", help="The reason, to be kept with it.")
@_FRAMES
@_POINTS
def restore(
    observation: tuple[str, ...], why: str | None, frames: tuple[str, ...], points: str | None
) -> None:
    """Restore points that were rejected, or are proposed to be.

    OBSERVATION is a key like 20251015__TX_Eri__V, or NIGHT TARGET [FILTER].
    """
    observatory = open_in_force()
    if not frames and not points:
        raise Refused("which points? say --frames or --points; a whole observation: wombat undo")
    from wombat_dagster.stages import decisions

    who = decisions.who_decides(observatory.settings)

    def decide(key: str) -> "Iterator[str]":
        chosen = _points_meant(decisions.measured(observatory, key), frames, points)
        decisions.restore_points(observatory, key, chosen, who=who, why=why)
        yield f"{key}: {count(len(chosen), 'point')} restored; {_left(observatory, key)}"

    _each(observatory, observation, decide)


@click.command()
@_OBSERVATIONS
def undo(observations: tuple[str, ...]) -> None:
    """Undo the last decision on observations; what was before it holds again.

    OBSERVATION is a key like 20251015__TX_Eri__V, several of them, or NIGHT TARGET [FILTER].
    """
    observatory = open_in_force()
    from wombat_dagster.stages import decisions

    who = decisions.who_decides(observatory.settings)

    def decide(key: str) -> "Iterator[str]":
        gone = decisions.undo(observatory, key, who=who)
        points = f", {count(len(gone.raw_hashes), 'point')}" if gone.raw_hashes else ""
        word = observatory.status.target_row(key).submitted or "not decided on"
        yield (
            f"{key}: undone is {gone.kind}{points} ({gone.who}, {gone.decided_utc[:16]}Z);"
            f" it is {word}"
        )

    _each(observatory, observations, decide)


@click.command()
@_OBSERVATIONS
def confirm(observations: tuple[str, ...]) -> None:
    """Confirm that a star found by its position alone is the one you observed.

    It holds for the same target's other filters and nights. OBSERVATION is a key like
    20251015__TX_Eri__V, several of them, or NIGHT TARGET [FILTER], without FILTER all of them.
    """
    observatory = open_in_force()
    from wombat_dagster.stages import decisions

    who = decisions.who_decides(observatory.settings)

    done: list[str] = []

    def decide(key: str) -> "Iterator[str]":
        star = decisions.found_star(observatory, key)
        is_by_place = star is not None and star.match == decisions.FOUND_BY_PLACE
        if done and is_by_place and decisions.star_to_confirm(observatory, key) is None:
            yield f"{key}: confirmed with {done[0]}"
            return
        yield f"{key}: {decisions.confirm_star(observatory, key, who=who).why} confirmed"
        done.append(key)

    _each(observatory, observations, decide, every_filter=True)


# ------------------------------------------------------------------------------------------ common


def _each(
    observatory: "Observatory",
    words: "Sequence[str]",
    decide: "Callable[[str], Iterator[str]]",
    *,
    every_filter: bool = False,
) -> None:
    """Decide on each observation that is meant; refuse at the end when one could not be.

    `every_filter`: of a night and a target all are, each named in what is said.
    """
    from wombat_dagster.meant import those
    from wombat_dagster.stages.decisions import Refusal
    from wombat_dagster.store.decisions import Overtaken

    out, is_refused = console(), False
    for row in those(observatory.status.targets(), words, every_filter=every_filter):
        try:
            for line in decide(row.observation.key):
                out.print(printable(line), soft_wrap=True)
        except (Refusal, Overtaken) as error:
            is_refused = True
            click.echo(f"Error: {printable(str(error))}", err=True)
    if is_refused:
        sys.exit(UNREADABLE)


def _points_meant(
    magnitudes: "StandardMagnitudes", frames: "Sequence[str]", points: str | None
) -> tuple[str, ...]:
    """Return the frame hashes of the points that are named, or numbered."""
    from wombat_dagster.stages.decisions import points_called, points_numbered

    labels = {label.casefold() for label in magnitudes.labels}
    names = [
        name.strip()
        for text in frames
        for name in ([text] if text.casefold() in labels else text.split(","))
        if name.strip()
    ]
    found = [*points_called(magnitudes, names), *points_numbered(magnitudes, _numbers(points))]
    return tuple(dict.fromkeys(found))


def _numbers(text: str | None) -> list[int]:
    """Return the numbers of ``3,7-9``."""
    numbers: list[int] = []
    for part in (text or "").split(","):
        if not part.strip():
            continue
        said = re.fullmatch(r"\s*(\d{1,6})\s*(?:-\s*(\d{1,6})\s*)?", part)
        if said is None:
            raise Refused(f'--points: "{printable(part)}" is no number; say 3,7-9')
        first, last = int(said[1]), int(said[2] or said[1])
        if last < first:
            raise Refused(f"--points: {first}-{last} goes backwards")
        numbers += range(first, last + 1)
    return numbers


def _left(observatory: "Observatory", key: str) -> str:
    """Return how many points are left to be reported."""
    from wombat_dagster.stages.decisions import kept, measured
    from wombat_dagster.store.decisions import Decisions

    chosen = kept(measured(observatory, key), Decisions(observatory.status.path).points(key))
    return f"{int(chosen.sum())} of {count(len(chosen), 'point')} to be reported"
