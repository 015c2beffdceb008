"""The README lists every word a person can meet."""

from pathlib import Path

import pytest

from wombat_dagster import domain
from wombat_dagster.checks import CHECKS, PRODUCT_CHECK
from wombat_dagster.domain import FaultKind, Unused
from wombat_dagster.remedies import REMEDIES
from wombat_dagster.science import quality
from wombat_dagster.solvers.base import Reason
from wombat_dagster.stages.work import Why

README = Path(__file__).parents[1] / "README.md"
ENDINGS = [
    kind.__name__
    for kind in vars(domain).values()
    if isinstance(kind, type)
    and issubclass(kind, (domain.Shortfall, domain.ServiceUnavailable))
    and kind not in (domain.Shortfall, domain.ServiceUnavailable)
]
REJECTED = (
    quality.SATURATED, quality.EDGE, quality.MASKED, quality.UNMEASURED, quality.NO_ZERO_POINT,
    quality.NO_COLOUR, quality.ALTITUDE, quality.CLOUD, quality.COMPS,
)  # fmt: skip
WORDS = {
    "status": [*REMEDIES],
    "why": [*Why],
    "endings": [*ENDINGS, "made", "failed"],
    "solver": [*Reason],
    "chart star": [*Unused],
    "rejected": REJECTED,
    "triage": [*FaultKind],
    "checks": [PRODUCT_CHECK, *(one.name for checks in CHECKS.values() for one in checks)],
}


@pytest.mark.parametrize("of_what", WORDS)
def test_the_readme_lists_every_word(of_what):
    text = README.read_text(encoding="utf-8")
    assert [str(word) for word in WORDS[of_what] if f"`{word}`" not in text] == []
