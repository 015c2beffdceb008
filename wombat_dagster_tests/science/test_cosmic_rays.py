"""Cosmic-ray tracks of known charge among stars of known light, undersampled ones too."""

import numpy as np
import pytest
from scipy.special import erf

from wombat_dagster.domain import MaskBit
from wombat_dagster.science import cosmic_rays

SHAPE = (300, 300)
GAIN_E_ADU, READ_NOISE_E, SKY_E, STOP_ADU = 1.6, 8.0, 300.0, 60000.0


def frame(rng, *, fwhm_px, n_side=9):
    """Return (image in ADU, x, y, flux in ADU) of stars all over the frame, faint to bright."""
    step = SHAPE[0] / n_side
    x, y = np.meshgrid((np.arange(n_side) + 0.5) * step, (np.arange(n_side) + 0.5) * step)
    x, y = (v.ravel() + rng.uniform(-3, 3, v.size) for v in (x, y))
    flux = 10 ** rng.uniform(2.7, 5.3, x.size)
    edges, width = np.arange(SHAPE[0] + 1) - 0.5, np.sqrt(2) * fwhm_px / 2.3548
    expected = np.full(SHAPE, SKY_E)
    for x0, y0, f in zip(x, y, flux, strict=True):
        in_x, in_y = (np.diff(erf((edges - c) / width)) / 2 for c in (x0, y0))
        expected += f * GAIN_E_ADU * np.outer(in_y, in_x)
    electrons = rng.poisson(expected) + rng.normal(0, READ_NOISE_E, SHAPE)
    return (electrons / GAIN_E_ADU).astype(np.float32), x, y, flux


def with_tracks(rng, image, n=60):
    """Return the image with straight tracks of 800 to 20000 electrons, and where they are."""
    struck, where = image.copy(), np.zeros(SHAPE, bool)
    for _ in range(n):
        length = int(rng.integers(1, 7))
        angle, electrons = rng.uniform(0, 2 * np.pi), 10 ** rng.uniform(2.9, 4.3)
        x0, y0 = rng.uniform(6, SHAPE[1] - 6), rng.uniform(6, SHAPE[0] - 6)
        for step in range(length):
            x, y = int(x0 + step * np.cos(angle)), int(y0 + step * np.sin(angle))
            struck[y, x] += electrons / length / GAIN_E_ADU
            where[y, x] = True
    return struck, where


def clean(image, mask=None, **changes):
    facts = {
        "gain_e_adu": GAIN_E_ADU, "read_noise_e": READ_NOISE_E, "saturation_adu": STOP_ADU,
    } | changes  # fmt: skip
    return cosmic_rays.clean(image, np.zeros(SHAPE, np.uint8) if mask is None else mask, **facts)


@pytest.mark.parametrize("fwhm_px", [1.5, 2.0, 3.5])
def test_stars_keep_their_light_also_undersampled_ones(fwhm_px):
    rng = np.random.default_rng(3)
    image, x, y, flux = frame(rng, fwhm_px=fwhm_px)
    cleaned, _ = clean(image)
    for x0, y0, f in zip(np.rint(x).astype(int), np.rint(y).astype(int), flux, strict=True):
        core = np.s_[y0 - 3 : y0 + 4, x0 - 3 : x0 + 4]
        assert abs(float((cleaned - image)[core].sum())) <= 1e-3 * f


@pytest.mark.parametrize("fwhm_px", [2.0, 3.5])
def test_tracks_lose_at_least_90_percent_of_their_charge(fwhm_px):
    rng = np.random.default_rng(4)
    image, *_ = frame(rng, fwhm_px=fwhm_px)
    struck, where = with_tracks(rng, image)
    cleaned, hit = clean(struck)
    left = np.clip(cleaned - image, 0, None)[where].sum() / (struck - image)[where].sum()
    assert left < 0.1
    assert np.count_nonzero(hit & where) > 0.9 * np.count_nonzero(where)


def test_pixels_that_were_not_hit_are_bit_by_bit_what_they_were():
    rng = np.random.default_rng(5)
    struck, _ = with_tracks(rng, frame(rng, fwhm_px=3.0)[0])
    struck[10, 10] = np.nan
    cleaned, hit = clean(struck)
    assert cleaned.dtype == np.float32
    assert np.array_equal(cleaned[~hit], struck[~hit], equal_nan=True)
    assert hit.any()


def test_masked_pixels_are_neither_hit_nor_changed():
    rng = np.random.default_rng(6)
    image, *_ = frame(rng, fwhm_px=3.0)
    image[50, 60] += 9000.0
    mask = np.zeros(SHAPE, np.uint8)
    assert clean(image, mask)[1][50, 60]
    mask[50, 60] = MaskBit.BAD
    cleaned, hit = clean(image, mask)
    assert not hit[50, 60]
    assert cleaned[50, 60] == image[50, 60]


@pytest.mark.parametrize(
    ("gain", "read_noise", "words"),
    [
        (None, 8.0, "cosmic rays left in: gain not known"),
        (1.6, None, "cosmic rays left in: read noise not known"),
        (None, None, "cosmic rays left in: gain and read noise not known"),
        (1.6, 8.0, None),
    ],
)
def test_without_gain_or_read_noise_it_is_said_that_nothing_is_cleaned(gain, read_noise, words):
    assert cosmic_rays.why_not(gain_e_adu=gain, read_noise_e=read_noise) == words


def test_a_gain_that_is_none_is_refused():
    with pytest.raises(ValueError, match="gain not known"):
        clean(np.zeros(SHAPE, np.float32), gain_e_adu=0.0)
