"""Thumbnails: block means, one stretch for a night, the shape of the sky taken out."""

import numpy as np
import pytest

from wombat_dagster.science.thumbnails import (
    block_means,
    levelled,
    noise_of,
    shape_of_sky,
    stamp,
    star_greys,
    stretched,
)


def test_block_means_are_means_of_blocks():
    image = np.arange(12, dtype=np.float32).reshape(2, 6)
    np.testing.assert_allclose(block_means(image, 3), [[3.5, 5.5, 7.5]])


@pytest.mark.parametrize("shape", [(2048, 2048), (1023, 1536), (500, 650), (40, 30), (1, 700)])
def test_a_thumbnail_is_as_small_as_asked_and_keeps_the_level(shape):
    rng = np.random.default_rng(1)
    blocks = block_means(rng.normal(1000, 10, shape).astype(np.float32), 128)
    assert max(blocks.shape) <= 128
    if blocks.size:
        assert np.mean(blocks) == pytest.approx(1000, abs=2)


def test_vignetting_is_taken_out_and_stars_stay():
    y, x = np.indices((100, 120))
    vignetting = 1 - 0.3 * (((x - 60) / 60) ** 2 + ((y - 50) / 50) ** 2)
    rng = np.random.default_rng(2)
    night = []
    for level in (400.0, 900.0, 450.0):
        blocks = level * vignetting + rng.normal(0, 1, vignetting.shape)
        blocks[30, 40] += 300
        night.append(blocks)
    shape = shape_of_sky(night)
    flat = levelled(night[1], shape)
    assert noise_of(flat) < 5 < noise_of(night[1])
    assert flat[30, 40] - np.median(flat) == pytest.approx(300, abs=20)


def test_a_brighter_sky_is_a_lighter_thumbnail_and_dim_stars_are_dimmer():
    rng = np.random.default_rng(3)
    blocks = 500 + rng.normal(0, 2, (60, 60))
    stars = blocks.copy()
    stars[20, 20] += 100
    greys = stretched(stars, noise_adu=2.0, sky_of_usual=1.0)
    assert greys[::-1][20, 20] > np.median(greys) + 50
    assert np.median(stretched(stars, noise_adu=2.0, sky_of_usual=4.0)) > np.median(greys) + 40
    stars[20, 20] -= 80
    assert stretched(stars, noise_adu=2.0)[::-1][20, 20] < greys[::-1][20, 20] - 20


def test_pixels_without_a_value_do_no_harm():
    blocks = np.full((20, 20), np.nan)
    assert stretched(blocks, noise_adu=np.nan).shape == (20, 20)
    assert stretched(levelled(blocks, np.ones((20, 20))), noise_adu=0.0).max() >= 0


def test_a_stamp_is_cut_inside_the_frame_only():
    image = np.zeros((50, 60), np.float32)
    image[30, 20] = 7
    cut = stamp(image, 20.2, 29.8, 5)
    assert cut.shape == (11, 11)
    assert cut[5, 5] == 7
    assert star_greys(cut).max() == 255
    for x, y in ((3.0, 25.0), (57.0, 25.0), (20.0, 46.0), (np.nan, 3.0)):
        assert stamp(image, x, y, 5) is None
