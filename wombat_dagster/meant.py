"""Which observation a person means: a key, or night, target and filter, shortened as they like."""

from typing import TYPE_CHECKING

from wombat_dagster.terminal import Refused, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wombat_dagster.store.status import TargetRow

MAX_NAMED = 12  # observations in one refusal


def those(
    rows: "Sequence[TargetRow]", words: "Sequence[str]", *, every_filter: bool = False
) -> "list[TargetRow]":
    """Return the rows that are meant: by one key each, else by the words of one observation.

    `every_filter`: a night and a target without a filter mean all filters of that one target.
    """
    if all("__" in word for word in words):
        return list(
            {row.observation.key: row for w in words for row in [the_one(rows, [w])]}.values()
        )
    if every_filter and len(words) == 2:
        left = _left(rows, words)
        if len({(row.observation.date, row.observation.target) for row in left}) == 1:
            return left
    return [the_one(rows, words)]


def the_one(rows: "Sequence[TargetRow]", words: "Sequence[str]") -> "TargetRow":
    """Return the row that is meant; refuse with the names of those that could be."""
    said = printable(" ".join(words))
    if len(words) > 3:
        raise Refused(f'"{said}": say a key, or NIGHT TARGET [FILTER]; quote names with blanks')
    parts = words[0].split("__") if len(words) == 1 else words
    left = _left(rows, parts)
    if len(left) == 1:
        return left[0]
    if not left:
        there = ", ".join(sorted({f"{r.observation.date:%Y%m%d}" for r in rows})[-5:]) or "none"
        raise Refused(f'no observation "{said}"; the newest nights: {there}')
    names = ", ".join(row.observation.key for row in left[:MAX_NAMED])
    more = f" and {len(left) - MAX_NAMED} more" if len(left) > MAX_NAMED else ""
    raise Refused(printable(f'"{said}" may be each of {names}{more}'))


def _left(rows: "Sequence[TargetRow]", parts: "Sequence[str]") -> "list[TargetRow]":
    """Return the rows that night, target and filter leave, as far as they are said."""
    left = list(rows)
    for part, names_of in zip(parts, (_night_names, _target_names, _filter_names), strict=False):
        left = _meant(left, part, names_of)
    return [row for row in left if row.retired_utc is None] or left


def _meant(
    rows: "list[TargetRow]", part: str, names_of: "Callable[[TargetRow], set[str]]"
) -> "list[TargetRow]":
    """Return the rows of that very name, else those whose name begins so, else with it inside."""
    wanted = part.casefold()
    tests: tuple[Callable[[str], bool], ...] = (
        lambda name: name == wanted,
        lambda name: name.startswith(wanted),
        lambda name: wanted in name,
    )
    for fits in tests:
        found = [row for row in rows if any(fits(name.casefold()) for name in names_of(row))]
        if found:
            return found
    return []


def _night_names(row: "TargetRow") -> set[str]:
    date = row.observation.date
    return {f"{date:%Y%m%d}", date.isoformat()}


def _target_names(row: "TargetRow") -> set[str]:
    return {row.observation.target, row.observation.key.split("__")[1]}


def _filter_names(row: "TargetRow") -> set[str]:
    return {row.observation.filter, row.observation.key.split("__")[2]}
