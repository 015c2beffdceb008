"""Every status word has its cause, what helps is said, and the README lists it."""

from pathlib import Path

import pytest

from wombat_dagster.domain import (
    NOCAL,
    Apphot,
    FrameSolution,
    Proc,
    SolveAttempt,
    SolveStatus,
)
from wombat_dagster.remedies import NOT_SOLVED_BY, REMEDIES, RETIRED, remedy_of
from wombat_dagster.solvers.base import Reason
from wombat_dagster.stages.solving import not_solved_words

README = Path(__file__).parents[1] / "README.md"
WORDS = {*(word.value for word in Proc), *(word.value for word in Apphot), NOCAL}
DONE = {Proc.CALIBRATED, Proc.PARTIAL, Proc.SOLVED}
"""Words of stages that went well, where nothing is to be mended."""


def test_every_status_word_has_its_cause():
    assert {str(word) for word in REMEDIES} == WORDS
    assert all(said.cause for said in REMEDIES.values())


@pytest.mark.parametrize("word", sorted(WORDS - DONE))
def test_of_every_word_that_ends_an_observation_it_is_said_what_helps(word):
    assert REMEDIES[word].remedy


def test_the_readme_lists_every_word():
    text = README.read_text(encoding="utf-8")
    assert [word for word in sorted(WORDS) if f"`{word}`" not in text] == []


def test_a_measured_word_comes_before_that_of_the_solution():
    assert remedy_of("solved", "novsp") == REMEDIES["novsp"]
    assert remedy_of("calibrated", None) == REMEDIES["calibrated"]
    assert remedy_of(None, None) is None


def unsolved(reason, message="", solver=None, remark=""):
    attempt = SolveAttempt(rung="7", solver=solver or "", outcome=reason, message=message)
    return FrameSolution(
        file="a.fits",
        status=SolveStatus.FAILED,
        solution=None,
        reason=reason,
        message="; ".join(filter(None, (remark, message))),
        solver=solver,
        attempts=(attempt,) if solver else (),
    )


@pytest.mark.parametrize("reason", [*map(str, Reason), "rejected:scale"])
def test_what_helps_goes_by_what_most_frames_could_not_be_solved_of(reason):
    words = not_solved_words([unsolved("other"), *[unsolved(reason)] * 2])
    expected = NOT_SOLVED_BY[reason.partition(":")[0]]
    assert remedy_of("nowcs", "nowcs", reason=words) == expected
    assert remedy_of("nowcs", None, reason=words) == expected
    assert expected.remedy


def test_what_is_retired_is_helped_by_its_frames_alone():
    assert remedy_of("noframes", None, retired_utc="2025-11-01T00:00:00Z") == RETIRED


def test_the_program_is_named_whose_words_are_the_reason():
    slow = unsolved("timeout", "killed after 20 s", "solve-field", remark="ASTAP not found")
    none = unsolved("no_database", remark="no star table")
    assert not_solved_words([slow]) == (
        "0 of 1 frames solved (timeout 1); ASTAP not found; solve-field: killed after 20 s"
    )
    assert not_solved_words([slow, none, none]) == (
        "0 of 3 frames solved (no_database 2, timeout 1); no star table"
    )
