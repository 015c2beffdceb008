"""What a look of the doctor found: one line each."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """What came out of one look."""

    OK = "OK"
    WARN = "WARN"
    MISSING = "MISSING"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One line of the answer. `is_fatal`: nothing can be done before this is mended."""

    subject: str
    verdict: Verdict
    words: str
    remedy: str = ""
    is_fatal: bool = False


def good(subject: str, words: str) -> Finding:
    """Return a finding that all is well."""
    return Finding(subject=subject, verdict=Verdict.OK, words=words)


def warn(subject: str, words: str, remedy: str = "") -> Finding:
    """Return something to look at; work goes on."""
    return Finding(subject=subject, verdict=Verdict.WARN, words=words, remedy=remedy)


def missing(subject: str, words: str, remedy: str, *, is_fatal: bool = False) -> Finding:
    """Return something that is needed and not there."""
    return Finding(
        subject=subject, verdict=Verdict.MISSING, words=words, remedy=remedy, is_fatal=is_fatal
    )


def looks(*all_looks: tuple[str, Callable[[], Iterable[Finding]]]) -> Iterator[Finding]:
    """Yield what each look finds, by subject; one that fails says so and hides no other."""
    for subject, look in all_looks:
        try:
            yield from look()
        except Exception as error:  # noqa: BLE001 - whatever it is: the doctor shows no traceback
            words = str(error).strip().partition("\n")[0] or type(error).__name__
            yield warn(subject, f"cannot be looked at: {words}")
