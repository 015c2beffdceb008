"""Bad pixels in the cores of stars: trailed stars of known light, one pixel of one masked."""

import math

import numpy as np
import pytest
from scipy.special import erf

from wombat_dagster import domain
from wombat_dagster.domain import Flag, MaskBit
from wombat_dagster.science import photometry

SIDE, SKY_ADU, GAIN = 240, 200.0, 30.0
APERTURE = domain.Aperture(radius_px=5.0, sky_inner_px=10.0, sky_outer_px=20.0)


def trailed(x, y, *, sigma_px, trail_px, angle):
    """Light of a star of 1 ADU, drawn along a line while exposed; a tenth of it in a halo."""
    edges = np.arange(SIDE + 1) - 0.5
    image = np.zeros((SIDE, SIDE))
    parts = 9
    for step in (np.arange(parts) + 0.5) / parts - 0.5:
        for sigma, share in ((sigma_px, 0.9), (2.5 * sigma_px, 0.1)):
            at_x, at_y = (
                x + step * trail_px * math.cos(angle),
                y + step * trail_px * math.sin(angle),
            )
            in_x = np.diff(erf((edges - at_x) / (math.sqrt(2) * sigma))) / 2
            in_y = np.diff(erf((edges - at_y) / (math.sqrt(2) * sigma))) / 2
            image += share / parts * np.outer(in_y, in_x)
    return image


def field(rng, *, sigma_px, trail_px, n_stars=10):
    """A 12-bit camera's frame: the first star peaks at 2,000 ADU, the others below 3,000."""
    angle = rng.uniform(0, math.pi)
    grid = np.stack(np.meshgrid([45.0, 95.0, 145.0, 195.0], [45.0, 95.0, 145.0, 195.0]), -1)
    places = grid.reshape(-1, 2)[:n_stars] + rng.uniform(-3, 3, (n_stars, 2))
    image = np.zeros((SIDE, SIDE))
    for (x, y), peak in zip(places, [1.0, *rng.uniform(0.1, 1.5, n_stars - 1)], strict=True):
        star = trailed(x, y, sigma_px=sigma_px, trail_px=trail_px, angle=angle)
        image += 2000.0 * peak / star.max() * star
    noisy = rng.poisson((image + SKY_ADU) * GAIN) / GAIN + rng.normal(0, 0.5, image.shape)
    return np.rint(noisy), places


def measure(image, mask, places):
    return photometry.measure_stars(
        image, mask, places[:, 0], places[:, 1], aperture=APERTURE, gain_e_adu=GAIN,
        read_noise_e=15.0, recentre_limit_px=2.0, fwhm_px=3.0,
    )  # fmt: skip


def spoilt(image, at, value=900.0):
    """The image with one wrong pixel (x, y), and the mask that says so."""
    mask = np.zeros(image.shape, np.uint8)
    wrong = image.copy()
    wrong[at[1], at[0]] += value
    mask[at[1], at[0]] = MaskBit.BAD
    return wrong, mask


@pytest.mark.parametrize(("sigma_px", "trail_px"), [(0.9, 2.0), (1.0, 3.5), (1.2, 4.0)])
def test_a_bad_pixel_in_the_core_costs_less_than_half_the_photon_error(sigma_px, trail_px):
    """By the star's own Gaussian it cost 1.1, 1.0 and 0.8 of the photon error, here 0.3.

    12 frames, another pixel within 2 px of the centre in each.
    """
    rng = np.random.default_rng(7)
    pulls = []
    for _ in range(12):
        image, places = field(rng, sigma_px=sigma_px, trail_px=trail_px)
        clean = measure(image, None, places)
        offset, angle = rng.uniform(0, 2.0), rng.uniform(0, 2 * math.pi)
        at = np.rint(places[0] + offset * np.array([math.cos(angle), math.sin(angle)])).astype(int)
        mended = measure(*spoilt(image, at), places)
        assert mended.flags[0] == Flag.BAD_PIXEL
        assert mended.x_px[0] == pytest.approx(clean.x_px[0], abs=0.05)
        lost = mended.source_sky_adu[0] - clean.source_sky_adu[0]
        pulls.append(lost / clean.source_error_adu[0])
    assert np.sqrt(np.mean(np.square(pulls))) < 0.5


def test_stars_beside_the_mended_one_are_what_they_were():
    image, places = field(np.random.default_rng(2), sigma_px=1.0, trail_px=2.0)
    clean = measure(image, None, places)
    mended = measure(*spoilt(image, np.rint(places[0]).astype(int)), places)
    assert np.array_equal(mended.source_sky_adu[1:], clean.source_sky_adu[1:])


def test_a_saturated_neighbour_does_not_spoil_the_mended_star():
    """The first star's neighbour, 16 px off and 20 times brighter, bleeds along its column."""
    rng = np.random.default_rng(4)
    image, places = field(rng, sigma_px=1.0, trail_px=2.0)
    beside = places[0] + np.array([16.0, 3.0])
    image += 4e5 * trailed(*beside, sigma_px=1.0, trail_px=2.0, angle=0.3)
    saturated = image > 4000.0
    image[saturated] = 4095.0
    column = int(beside[0])
    image[:, column] = np.maximum(image[:, column], 1500.0)
    stars = np.vstack([places, beside])
    clean = measure(image, saturated * np.uint8(MaskBit.SATURATED), stars)
    wrong, mask = spoilt(image, np.rint(places[0]).astype(int))
    mask[saturated] |= MaskBit.SATURATED
    mended = measure(wrong, mask, stars)
    assert mended.flags[-1] & Flag.SATURATED
    lost = mended.source_sky_adu[0] - clean.source_sky_adu[0]
    assert abs(lost) < clean.source_error_adu[0]


def test_a_lonely_star_is_mended_by_its_own_gaussian():
    image, places = field(np.random.default_rng(5), sigma_px=1.2, trail_px=0.0, n_stars=1)
    clean = measure(image, None, places)
    mended = measure(*spoilt(image, np.rint(places[0]).astype(int)), places)
    assert mended.source_sky_adu[0] == pytest.approx(clean.source_sky_adu[0], rel=0.01)


def test_a_bad_pixel_in_the_wing_takes_the_mean_of_its_neighbours():
    image = np.full((60, 60), 100.0)
    image[20:25, 30:35] = np.arange(25.0).reshape(5, 5) + 100.0
    wrong, mask = spoilt(image, (32, 22))
    got = measure(wrong, mask, np.array([[32.0, 22.0]]))
    whole = measure(image, None, np.array([[32.0, 22.0]]))
    assert got.source_sky_adu[0] == pytest.approx(whole.source_sky_adu[0], rel=0.02)
