"""Hot, dead and noisy pixels of known place on painted frames, and what must not be taken for one.

On real frames (`WOMBAT_REFERENCE_DATA`): the hot clusters of bsu, told in its data/README.
"""

import os
from pathlib import Path

import numpy as np
import pytest
from scipy.special import erf

from wombat_dagster.domain import BadPsf, Detections
from wombat_dagster.science import bad_pixels
from wombat_dagster.science.bad_pixels import BadPixel
from wombat_dagster.science.detection import detect_stars
from wombat_dagster.science.profile import fit_frame_profile
from wombat_dagster.store.frames import read_image

REFERENCE = Path(os.environ.get("WOMBAT_REFERENCE_DATA", "/nonexistent"))
needs_reference = pytest.mark.skipif(
    not REFERENCE.is_dir(), reason="WOMBAT_REFERENCE_DATA does not name the real frames"
)
SHAPE = (300, 320)
BIAS_ADU, SKY_ADU, READ_NOISE_ADU, STOP_ADU = 1000.0, 300.0, 6.0, 60000.0


def starlight(x, y, flux, *, fwhm_px, shape=SHAPE):
    image = np.zeros(shape)
    width = np.sqrt(2) * fwhm_px / 2.3548
    edges_x, edges_y = np.arange(shape[1] + 1) - 0.5, np.arange(shape[0] + 1) - 0.5
    for x0, y0, f in zip(x, y, flux, strict=True):
        left, low = (max(0, int(c - 6 * width)) for c in (x0, y0))
        right, high = (max(0, int(c + 6 * width) + 2) for c in (x0, y0))
        in_x = np.diff(erf((edges_x[left : right + 1] - x0) / width)) / 2
        in_y = np.diff(erf((edges_y[low : high + 1] - y0) / width)) / 2
        image[low:high, left:right] += f * np.outer(in_y, in_x)
    return image


def field(rng, n):
    """Return x, y, flux of stars on and around the frame, from faint to saturated."""
    return (
        rng.uniform(-100, 420, 3 * n),
        rng.uniform(-100, 400, 3 * n),
        10 ** rng.uniform(2.5, 6, 3 * n),
    )


def lights(rng, stars, *, n=6, fwhm_px=3.0, drift=(0.0, 0.0), defects=None):
    """Return n lights of one field; transparency, seeing and centring change all the time."""
    x, y, flux = stars
    frames = []
    for part in np.linspace(0, 1, n):
        jitter = rng.normal(0, 0.2, 2)
        image = SKY_ADU + starlight(
            x + part * drift[0] + jitter[0],
            y + part * drift[1] + jitter[1],
            flux * rng.uniform(0.4, 1.0),
            fwhm_px=fwhm_px * rng.uniform(0.95, 1.1),
        )
        counts = BIAS_ADU + rng.poisson(image) + rng.normal(0, READ_NOISE_ADU, SHAPE)
        if defects is not None:
            counts += defects
        for _ in range(20):  # cosmic rays
            at_x, at_y = rng.integers(4, SHAPE[1] - 4), rng.integers(4, SHAPE[0] - 4)
            counts[at_y, at_x : at_x + 3] += rng.uniform(300, 5000)
        frames.append(np.clip(np.rint(counts), 0, STOP_ADU).astype(np.uint16))
    return frames


def seen(frames):
    """Return (outliers, lights in different places) as the stage has them, in two bands."""
    noise_adu = [bad_pixels.noise_of(bad_pixels.excess(frame)) for frame in frames]
    stars = [
        detect_stars(frame, threshold_sigma=bad_pixels.POINTING_SIGMAS, max_stars=200)
        for frame in frames
    ]
    limits = bad_pixels.neighbour_limits(stars)
    stack, middle, halo = np.stack(frames), 140, bad_pixels.HALO_PX
    ny = stack.shape[1]
    bands = [
        (stack[:, : middle + halo], slice(0, middle)),
        (stack[:, middle - halo :], slice(halo, halo + ny - middle)),
    ]
    out = bad_pixels.Outliers.joined(
        [
            bad_pixels.always_out(band, noise_adu=noise_adu, rows=rows, neighbour_limits=limits)
            for band, rows in bands
        ]
    )
    return out, bad_pixels.pointings(stars, stack.shape[1:], out.sharp)


def found(frames):
    return bad_pixels.bad_in_lights(*seen(frames)) > 0


def hot_pixels(rng, n=40):
    """Return what single hot pixels add, 300 to 40000 ADU, and where they are."""
    y, x = rng.integers(5, SHAPE[0] - 5, n), rng.integers(5, SHAPE[1] - 5, n)
    added = np.zeros(SHAPE)
    added[y, x] = 10 ** rng.uniform(2.5, 4.6, n)
    return added, added > 0


# --------------------------------------------------------------------------- pixel and surroundings


def test_surroundings_are_the_median_of_medians_and_the_noise_is_the_sigma():
    """Against numpy's median of each 7 columns, then of each 7 rows."""
    rng = np.random.default_rng(1)
    image = rng.normal(1000.0, 10.0, (40, 50)).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(image, (7, 7))
    by_numpy = image[3:-3, 3:-3] - np.median(np.median(windows, axis=3), axis=2)
    above = bad_pixels.excess(image)
    assert above.shape == image.shape
    assert above[3:-3, 3:-3] == pytest.approx(by_numpy, abs=1e-3)
    wide = rng.normal(0.0, 10.0, (300, 300))
    wide[::20, ::20] += 500.0  # stars are left out
    assert bad_pixels.noise_of(wide) == pytest.approx(10.0, rel=0.02)


def test_the_noise_of_whole_counts_does_not_move_in_steps():
    """sigma 1.2 in whole ADU: 1.2² + 1/12, root 1.234; a MAD would say 1.48."""
    counts = np.rint(np.random.default_rng(2).normal(100.0, 1.2, (300, 300)))
    assert bad_pixels.noise_of(counts - 100) == pytest.approx(1.234, rel=0.02)


def test_values_that_are_no_numbers_are_not_outliers_and_spoil_nobody():
    image = np.random.default_rng(3).normal(100.0, 5.0, (60, 60)).astype(np.float32)
    image[30, 30], image[32, 33] = np.nan, 400.0
    above = bad_pixels.excess(image)
    assert np.isnan(above[30, 30])
    assert np.count_nonzero(np.isnan(above)) == 1
    assert above[32, 33] > 250


# ------------------------------------------------------------------------------------ calibrations


def test_a_dark_pixel_is_hot_when_it_is_a_spike_in_the_longest_light():
    """1.5 ADU/s against 10 sigma of 20 ADU: 120 s make 180, too little, 160 s make 240."""
    dark = np.random.default_rng(4).normal(0.0, 2.0, SHAPE)
    dark[100, 200] += 60.0  # in 40 s
    dark += np.linspace(0, 500, SHAPE[1])  # amplifier glow
    facts = {"exposure_s": 40.0, "light_noise_adu": 20.0}
    assert not bad_pixels.hot_in_dark(dark, light_exposure_s=120.0, **facts).any()
    hot = bad_pixels.hot_in_dark(dark, light_exposure_s=160.0, **facts)
    assert np.argwhere(hot).tolist() == [[100, 200]]


def test_noise_of_a_short_dark_is_not_blown_up_into_hot_pixels():
    """1 s against 300 s: 3 sigma of the dark would be 900 ADU in the light."""
    dark = np.random.default_rng(5).normal(0.0, 1.0, SHAPE)
    dark[50, 60] += 12.0
    hot = bad_pixels.hot_in_dark(dark, exposure_s=1.0, light_exposure_s=300.0, light_noise_adu=20.0)
    assert np.argwhere(hot).tolist() == [[50, 60]]


def test_a_dead_pixel_and_a_half_blind_column_are_odd_but_dust_and_corners_are_not():
    rng = np.random.default_rng(6)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    flat = 1.0 - 0.4 * np.hypot(x - 160, y - 150) / 220
    flat *= 1 - 0.3 * np.exp(-(((np.hypot(x - 80, y - 90) - 14) / 4) ** 2))  # a speck of dust
    flat *= rng.normal(1.0, 0.005, SHAPE)
    flat[40, 50] *= 0.1
    flat[:, 222] *= 0.7
    flat[150, 100] *= 0.93  # the flat itself mends it
    unusable = np.hypot(x - 160, y - 150) > 210  # a dark corner
    unusable[200, 30] = True
    odd = bad_pixels.odd_in_flat(np.where(unusable, 1.0, flat), unusable)
    wanted = np.zeros(SHAPE, bool)
    wanted[40, 50] = wanted[200, 30] = wanted[:, 222] = True
    inner = np.hypot(x - 160, y - 150) < 195
    assert np.array_equal(odd[inner], wanted[inner])
    assert odd.sum() < wanted.sum() + 30


def test_a_pixel_that_flickers_between_two_levels_is_noisy_and_a_struck_one_is_not():
    rng = np.random.default_rng(7)
    biases = rng.normal(1000.0, 6.0, (7, *SHAPE))
    biases[[1, 4, 5], 30, 40] += 90.0
    biases[3, 50, 60] += 5000.0  # a cosmic ray
    biases = np.rint(biases).astype(np.uint16)
    read_noise = bad_pixels.read_noise_of(biases[0], biases[1])
    assert read_noise == pytest.approx(6.0, rel=0.03)
    noisy = bad_pixels.flickering(biases, read_noise_adu=read_noise)
    assert np.argwhere(noisy).tolist() == [[30, 40]]


def test_a_pixel_off_the_bias_level_by_ten_read_noises_is_bad_but_a_slope_is_not():
    rng = np.random.default_rng(8)
    bias = rng.normal(1000.0, 1.0, SHAPE) + np.linspace(0, 300, SHAPE[0])[:, None]
    bias[70, 80] -= 100.0
    bias[90, 100] += 25.0
    odd = bad_pixels.odd_in_bias(bias, read_noise_adu=6.0)
    assert np.argwhere(odd).tolist() == [[70, 80]]


# ------------------------------------------------------------------------------------------ lights


@pytest.mark.parametrize("n_stars", [40, 600])
@pytest.mark.parametrize("fwhm_px", [1.6, 2.0, 3.0, 5.0])
def test_a_field_that_never_moves_keeps_every_star(fwhm_px, n_stars):
    """Undersampled, crowded and saturated stars in: only the hot pixels are bad."""
    rng = np.random.default_rng(9)
    added, hot = hot_pixels(rng)
    bad = found(lights(rng, field(rng, n_stars), fwhm_px=fwhm_px, defects=added))
    assert not (bad & ~hot).any()
    assert np.count_nonzero(bad & hot) > (0.8 if n_stars < 100 else 0.5) * np.count_nonzero(hot)


def test_a_field_that_creeps_by_less_than_a_star_keeps_every_star():
    rng = np.random.default_rng(10)
    frames = lights(rng, field(rng, 200), n=8, drift=(5.0, 3.0))
    out, moved = seen(frames)
    assert len(moved) == 1
    assert not bad_pixels.bad_in_lights(out, moved).any()


def test_where_the_sky_moves_also_hot_clusters_as_round_as_stars_are_found():
    """A round cluster cannot be told from a star in one pointing; in six it stays where it is."""
    rng = np.random.default_rng(11)
    x, y = np.array([80.2, 200.4, 250.0]), np.array([60.3, 222.1, 90.5])
    clusters = starlight(x, y, np.array([9e3, 6e4, 3e5]), fwhm_px=3.0)
    stars = field(rng, 60)
    at_rest = found(lights(rng, stars, defects=clusters))
    moving = found(lights(rng, stars, defects=clusters, drift=(120.0, 70.0)))
    centre = np.rint(y).astype(int), np.rint(x).astype(int)
    assert moving[centre].all()
    assert not at_rest.any()
    assert not moving[clusters < 1.0].any()


def test_a_dead_pixel_shows_where_the_sky_moves():
    rng = np.random.default_rng(12)
    dead = np.zeros(SHAPE)
    dead[120, 130] = -250.0
    frames = lights(rng, field(rng, 60), defects=dead, drift=(120.0, 70.0))
    bits = bad_pixels.bad_in_lights(*seen(frames))
    assert bits[120, 130] == BadPixel.LIGHT | BadPixel.RESPONSE
    assert np.count_nonzero(bits) == 1


def test_two_saturated_pixels_with_a_bleeding_neighbour_are_found_in_one_pointing():
    """As bsu has them: 49k, 49k and beside them what spills over, in all but the short lights."""
    rng = np.random.default_rng(13)
    cluster = np.zeros(SHAPE)
    cluster[100:102, 150], cluster[100:102, 151] = 48_000.0, (16_000.0, 25_000.0)
    frames = lights(rng, field(rng, 40), fwhm_px=4.0, defects=cluster)
    assert np.array_equal(found(frames), cluster > 0)
    assert np.array_equal(found([frame.T for frame in frames]), cluster.T > 0)


def test_a_line_of_hot_pixels_is_found_whichever_way_it_lies():
    rng = np.random.default_rng(16)
    lines = np.zeros(SHAPE)
    lines[120, 100:108], lines[60:68, 200] = 2_000.0, 2_000.0
    bad = found(lights(rng, field(rng, 40), defects=lines))
    assert np.array_equal(bad, lines > 0)


def test_bands_of_the_frame_say_what_the_whole_frame_says():
    rng = np.random.default_rng(15)
    added, _ = hot_pixels(rng, 4000)
    frames = lights(rng, field(rng, 200), defects=added)
    how = {"noise_adu": [15.0] * len(frames), "neighbour_limits": (0.2, 0.1, 0.05)}
    whole = bad_pixels.always_out(np.stack(frames), rows=slice(0, SHAPE[0]), **how)
    halo, parts = bad_pixels.HALO_PX, []
    for start in range(0, SHAPE[0], 20):
        first, last = max(0, start - halo), min(SHAPE[0], start + 20 + halo)
        band = np.stack([frame[first:last] for frame in frames])
        rows = slice(start - first, start - first + 20)
        parts.append(bad_pixels.always_out(band, rows=rows, **how))
    joined = bad_pixels.Outliers.joined(parts)
    assert whole.sharp.any()
    for name in ("high", "low", "sharp", "n_out"):
        assert np.array_equal(getattr(joined, name), getattr(whole, name)), name


def test_a_clouded_light_does_not_make_the_sky_seem_to_move():
    rng = np.random.default_rng(14)
    frames = lights(rng, field(rng, 80))
    x, y = rng.uniform(10, 290, 6), rng.uniform(10, 290, 6)
    clouded = SKY_ADU + starlight(x, y, np.full(6, 8e3), fwhm_px=3.0)
    frames.append((BIAS_ADU + rng.poisson(clouded)).astype(np.uint16))
    assert len(seen(frames)[1]) == 1


def test_stars_that_would_lie_on_a_pixel_in_every_pointing_by_chance_are_counted():
    """100 x 100 pixels, a tenth of them in stars: 10 pixels in three pointings, 0.1 in five."""
    nothing = np.zeros((100, 100), bool)
    out = bad_pixels.Outliers(
        high=nothing, low=nothing, sharp=nothing, n_out=np.full(6, 1000, np.int64)
    )
    assert bad_pixels.expected_by_chance(out, [0, 1, 2]) == pytest.approx(10.0)
    assert bad_pixels.expected_by_chance(out, [0, 1, 2, 4, 5]) == pytest.approx(0.1)
    assert bad_pixels.expected_by_chance(out, [0, 1]) == np.inf  # too few to be sure they moved


def test_neighbours_of_a_star_by_hand():
    """FWHM 5 px, the narrowest star 3: sigma 1.274; erf by table: 0.3, 0.3 and 0.105 at most."""
    stars = Detections(
        **{
            name: np.zeros(3)
            for name in ("x_px", "y_px", "flux_adu", "peak_adu", "axis_ratio", "snr")
        },
        fwhm_px=np.array([4.0, 5.0, 9.0]),
        sky_adu=0.0,
        sky_rms_adu=1.0,
    )
    one, two, three = bad_pixels.neighbour_limits([stars])
    s = 1.2740 * np.sqrt(2)
    by_hand = [
        0.5 * (erf((h + 1) / s) - erf(h / s)) / (erf(h / s) - erf((h - 1) / s))
        for h in (0.5, 1.0, 1.5)
    ]
    assert (one, two, three) == pytest.approx((0.3, by_hand[1], by_hand[2]), rel=1e-3)
    assert by_hand[0] > 0.3
    assert one > two > three


# ------------------------------------------------------------------------------------- real frames


@pytest.fixture(scope="module")
def bsu():
    """Ten of the real lights of bsu and the map that they give."""
    paths = sorted((REFERENCE / "bsu").rglob("Light/**/*.fz"))
    frames = [read_image(path)[0] for path in paths[::2]]
    return frames, found(frames)


@needs_reference
def test_the_hot_clusters_of_bsu_are_no_stars_once_they_are_masked(bsu):
    """Peaks of 47 to 50 thousand near x, y = 375, 898 and 978, 153 in every light."""
    frames, bad = bsu
    assert np.count_nonzero(bad) < 400
    assert bad[897:899, 375:377].all()
    assert bad[153, 978]
    for frame in frames:
        stars = detect_stars(frame, bad)
        assert len(stars)
        for x, y in ((375.5, 897.5), (978.3, 152.8)):
            assert np.hypot(stars.x_px - x, stars.y_px - y).min() > 6


@needs_reference
def test_the_hot_clusters_of_bsu_do_not_say_how_wide_its_stars_are(bsu):
    """Masked they are not among the stars of the profile, whose FWHM is that of the detections."""
    frames, bad = bsu
    frame = frames[-1]
    stars = detect_stars(frame, bad)
    try:
        profile = fit_frame_profile(
            frame.astype(np.float32), bad.astype(np.uint8), stars,
            gain_e_adu=None, linearity_adu=60_000.0, peak_min_adu=2000.0, peak_max_adu=60_000.0,
            stop_adu=None,
        )  # fmt: skip
    except BadPsf as failure:
        pytest.skip(f"no star of this light allows a fit: {failure}")
    assert profile.fwhm_px == pytest.approx(np.median(stars.fwhm_px), rel=0.3)
