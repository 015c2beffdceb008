"""Which frames stand for a night, and that they mostly go on doing so when others arrive."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from wombat_dagster.science.sampling import spread

START_JD = 2460963.61


def test_frames_that_stand_for_a_night_are_spread_over_it():
    """1000 frames of a minute: the first of every 11.25 minutes (1/128 day) of the clock."""
    jd_utc = START_JD + np.arange(1000) / 1440
    chosen = spread(jd_utc, 150)
    assert 75 < len(chosen) <= 150
    assert chosen[0] == 0
    assert set(np.diff(chosen[1:])) == {11, 12}
    assert spread(jd_utc[:150], 150) == list(range(150))


@given(st.lists(st.integers(0, 40_000), min_size=1, max_size=300), st.integers(2, 40))
def test_most_frames_that_stand_for_a_night_do_so_whatever_comes_later(seconds, at_most):
    jd_utc = START_JD + np.sort(seconds) / 86400
    chosen = spread(jd_utc, at_most)
    assert chosen == sorted(set(chosen))
    n_apart = len(set(seconds))
    assert min(n_apart, at_most // 2 + 1) <= len(chosen) <= max(at_most, 1)
    later = spread(np.append(jd_utc, jd_utc[-1] + 1 / 86400), at_most)
    assert set(later) - {len(jd_utc)} <= set(chosen)
