"""What the audit of times and place has against observations, loudly: for the commands."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from wombat_dagster.observatory import Observatory

MAX_READ = 100  # files of the newest observations asked about: 2 ms each of 500 frames
MAX_NAMED = 5


def doubts_in_words(observatory: "Observatory", keys: Sequence[str]) -> list[str]:
    """Return one line an observation whose times or site are in doubt, the newest first.

    Of many `keys` only the newest are looked at.
    """
    from wombat_dagster.products import read_product
    from wombat_dagster.store.tables import UnreadableProduct

    doubts = {}
    newest = sorted(keys, reverse=True)[:MAX_READ]
    for key in newest:
        try:
            found = read_product(observatory, "frame_triage", key).doubts
        except (OSError, UnreadableProduct):
            continue  # not made yet; `wombat explain` says what is damaged
        if found:
            doubts[key] = found
    lines = [f"Time and site: {key}: {words}" for key, words in [*doubts.items()][:MAX_NAMED]]
    n_more = len(doubts) - len(lines)
    if n_more:
        looked = "" if len(newest) == len(keys) else f" of the {len(newest)} newest"
        lines.append(f"Time and site: {n_more} more{looked} in doubt; wombat explain says why")
    return lines
