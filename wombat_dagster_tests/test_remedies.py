"""Every status word has its cause, what helps is said, and the README lists it."""

from pathlib import Path

import pytest

from wombat_dagster.domain import NOCAL, Apphot, Proc
from wombat_dagster.remedies import REMEDIES, remedy_of

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
