"""Which observations nothing happened to since their last report."""

import contextlib
from pathlib import Path
from typing import Final

from wombat_dagster.domain import DecisionKind, Submitted
from wombat_dagster.store import schema

_SETTLED: Final = f"""
WITH exported (key, id, utc) AS (
    SELECT key, id, decided_utc FROM decision
    WHERE kind = '{DecisionKind.EXPORT}' AND undone_id IS NULL
    GROUP BY key HAVING id = max(id)
)
SELECT target.key FROM target JOIN exported USING (key)
WHERE submitted IN ('{Submitted.EXPORTED}', '{Submitted.SUBMITTED}')
AND NOT EXISTS (
    SELECT 1 FROM decision WHERE decision.key = target.key
    AND (decision.id > exported.id AND kind <> '{DecisionKind.SUBMIT}'
        OR undone_id > exported.id)
) AND NOT EXISTS (
    SELECT 1 FROM product WHERE product.key = target.key AND made_utc >= exported.utc
    AND asset IN ('variable', 'photometry_table', 'standard_magnitudes')
) AND NOT EXISTS (
    SELECT 1 FROM report_line WHERE origin = 'aavso' AND withdrawn_utc >= exported.utc
)
"""


def settled_since_report(path: Path) -> set[str]:
    """Return the keys of which no product was made and nothing decided since they were reported.

    Nor was anything withdrawn that the AAVSO had from elsewhere. Their lines are those that the
    ledger has. `path` is the database's.
    """
    with contextlib.closing(schema.connect(path)) as connection:
        return {row["key"] for row in connection.execute(_SETTLED)}


def files_to_upload(path: Path) -> list[str]:
    """Return the names of reports with lines that count and were not submitted, by name."""
    with contextlib.closing(schema.connect(path)) as connection:
        rows = connection.execute(
            "SELECT DISTINCT file FROM report_line WHERE origin = 'wombat'"
            " AND submitted_utc IS NULL AND withdrawn_utc IS NULL AND id NOT IN"
            " (SELECT amends FROM report_line WHERE amends IS NOT NULL AND withdrawn_utc IS NULL)"
            " ORDER BY file"
        )
        return [row["file"] for row in rows]
