import itertools
import re

import numpy as np
import pytest

from wombat_dagster.science import detector as cal

RISING_E = np.linspace(500, 3000, 40)


def extremes(maximum, n, level=200.0):
    return cal.RawExtremes(maximum_adu=maximum, n_at_maximum=n, level_adu=level)



def test_read_noise_and_gain_come_back_from_frame_pairs():
    """Photon transfer with gain 1.7 e-/ADU and 8 e- read noise; to 1 %."""
    rng = np.random.default_rng(7)
    gain, noise_e, shape = 1.7, 8.0, (400, 400)

    def frame(level_e):
        electrons = rng.poisson(level_e, shape) + rng.normal(0, noise_e, shape)
        return np.round(electrons / gain + 500).astype(np.uint16)

    biases, flats = (frame(0), frame(0)), (frame(50000), frame(47000))
    assert cal.read_noise_of_biases(*biases) * gain == pytest.approx(noise_e, rel=0.03)
    offset = np.full(shape, 500.0)
    measured = cal.gain_of_flats(*flats, offset=offset, read_noise_adu=noise_e / gain)
    assert measured == pytest.approx(gain, rel=0.03)


def skies(levels_e, *, gain, spread=None, seed=8):
    """Return the noise of every two consecutive skies; `spread` mixes what pixels hold."""
    rng = np.random.default_rng(seed)

    def frame(electrons):
        image = rng.poisson(electrons, (256, 320)) / gain
        return (image if spread is None else spread(image)) + 300

    frames = [frame(electrons) for electrons in levels_e]
    return [cal.sky_noise(a, b) for a, b in itertools.pairwise(frames)]


def test_gain_comes_from_a_sky_that_brightens_and_not_from_one_that_does_not():
    found = cal.gain_of_sky(skies(RISING_E, gain=2.0))
    assert found.value == pytest.approx(2.0, rel=0.06)
    assert re.fullmatch(r"frame differences, [\d.]+ \+- [\d.]+", found.source)
    assert cal.gain_of_sky(skies([900.0] * 40, gain=2.0)) is None
    assert cal.gain_of_sky(skies(RISING_E[:10], gain=2.0)) is None


def test_no_gain_comes_from_frames_whose_pixels_share_their_noise():
    """Neighbours averaged, as an interpolation does: single pixels seem to have twice the gain."""
    shared = skies(RISING_E, gain=2.0, spread=lambda image: (image + np.roll(image, 1, axis=0)) / 2)
    level, pixel, block = np.concatenate(shared).T
    assert np.polyfit(level, pixel, 1)[0] < 0.6 * np.polyfit(level, block, 1)[0]
    assert cal.gain_of_sky(shared) is None


def test_stars_that_stay_or_move_a_little_do_not_change_the_gain():
    rng = np.random.default_rng(9)
    y, x = np.mgrid[:256, :320]
    places = rng.uniform((0, 0), (256, 320), (25, 2))

    def frame(electrons):
        dy, dx = rng.normal(0, 0.5, 2)
        stars = sum(
            20000 * np.exp(-((y - py - dy) ** 2 + (x - px - dx) ** 2) / 8) for py, px in places
        )
        return rng.poisson(electrons + stars) / 2.0 + 300

    frames = [frame(electrons) for electrons in RISING_E]
    found = cal.gain_of_sky([cal.sky_noise(a, b) for a, b in itertools.pairwise(frames)])
    assert found.value == pytest.approx(2.0, rel=0.15)


def test_counts_pile_up_where_the_nights_maximum_recurs():
    assert cal.pile_up_stop([extremes(4095, 9)] * 3 + [extremes(3000, 1)]) == 4095
    assert cal.pile_up_stop([extremes(4095, 9)] * 2) is None  # too few frames
    assert cal.pile_up_stop([extremes(60000 + i, 1) for i in range(9)]) is None
