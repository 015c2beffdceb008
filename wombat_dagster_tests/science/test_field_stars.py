"""Which of the field's stars serve, and which vary; truth is made here."""

import numpy as np
import pytest

from wombat_dagster import domain
from wombat_dagster.domain import Flag
from wombat_dagster.science import field_stars

SIZE = 400
N_FRAMES = 100


def pointing(ra_deg=120.0):
    return domain.WcsSolution(
        ra_deg=ra_deg, dec_deg=0.0, crpix_x=200.5, crpix_y=200.5,
        cd11=-0.0005, cd12=0.0, cd21=0.0, cd22=0.0005,
    )  # fmt: skip


def found(*stars):
    """Stars (x, y, flux, peak above a sky of 100)."""
    x, y, flux, peak = np.array(stars, float).T
    other = np.ones(x.size)
    return domain.Detections(
        x_px=x, y_px=y, flux_adu=flux, peak_adu=peak, fwhm_px=4 * other, axis_ratio=other,
        snr=np.sqrt(flux), sky_adu=100.0, sky_rms_adu=2.0,
    )  # fmt: skip


def chosen(detections, *, solutions=None, avoid=((1.0,), (1.0,)), max_stars=10):
    """Return the places chosen, in pixels of the first frame, as whole numbers."""
    solution = pointing()
    ra, dec = field_stars.select_field_stars(
        detections,
        solution,
        solutions or [solution],
        width_px=SIZE,
        height_px=SIZE,
        margin_px=20.0,
        radius_px=6.8,
        fwhm_px=4.0,
        linearity_adu=30_000.0,
        avoid_ra_deg=np.array(avoid[0]),
        avoid_dec_deg=np.array(avoid[1]),
        max_stars=max_stars,
    )
    x, y = field_stars.astrometry.project(solution, ra, dec)
    return [(round(float(a)), round(float(b))) for a, b in zip(x, y, strict=True)]


def test_bright_stars_first_without_those_near_the_stop_the_edge_and_each_other():
    detections = found(
        (100, 100, 9e4, 5_000),
        (300, 300, 2e5, 9_000),
        (200, 100, 5e5, 26_950),  # 27050 with the sky: above 0.9 · 30000
        (15, 200, 9e4, 5_000),  # 15 px from the edge
        (200, 300, 5e4, 3_000),
        (210, 300, 5e4, 3_000),  # 10 px: within 2 · 4 + 6.8
        (300, 100, 90.0, 20),  # SNR 9.5
    )
    assert chosen(detections) == [(300, 300), (100, 100)]
    assert chosen(detections, max_stars=1) == [(300, 300)]


def test_known_variables_and_chart_stars_do_not_serve():
    detections = found((100, 100, 9e4, 5_000), (300, 300, 2e5, 9_000))
    ra, dec = field_stars.astrometry.sky(pointing(), np.array([305.0]), np.array([303.0]))
    assert chosen(detections, avoid=(ra, dec)) == [(100, 100)]


def test_a_star_must_stay_on_every_frame():
    """The second frame points 0.06 deg, 120 px, further east: the stars move to larger x."""
    detections = found((100, 100, 9e4, 5_000), (300, 300, 2e5, 9_000))
    got = chosen(detections, solutions=[pointing(), pointing(120.06)])
    assert got == [(100, 100)]


# ------------------------------------------------------------------------------ steadiness


def night(n_stars=30, *, seed=1, noise_mag=0.005):
    """Light (n_frames, n_stars) under clouds, fainter stars noisier."""
    rng = np.random.default_rng(seed)
    flux = 10 ** rng.uniform(3.5, 5.0, n_stars)
    noise = noise_mag * np.sqrt(1e5 / flux)
    clouds = 0.5 * rng.random((N_FRAMES, 1))
    return flux * 10 ** (-0.4 * (clouds + rng.normal(0.0, 1.0, (N_FRAMES, n_stars)) * noise)), noise


def steady(light, flags=None):
    flags = np.zeros(light.shape, np.int64) if flags is None else flags
    return field_stars.steady_field_stars(light, np.full(light.shape, 100.0), flags)


def test_clouds_do_not_make_the_stars_scatter():
    light, noise = night()
    residual = field_stars.against_the_others(field_stars.instrumental(light))
    assert residual.std(axis=0) == pytest.approx(noise, rel=0.35)


def test_steady_stars_are_kept():
    assert steady(night(60)[0]).sum() >= 59


@pytest.mark.parametrize("curve", ["eclipse", "slow", "waves"])
def test_a_variable_that_vsx_does_not_know_is_found(curve):
    light, noise = night()
    star = int(np.argsort(noise)[10])
    time = np.linspace(0.0, 1.0, N_FRAMES)
    dimming_mag = {
        "eclipse": 0.2 * (np.abs(time - 0.5) < 0.06),
        "slow": 0.1 * time,
        "waves": 0.05 * np.sin(40.0 * time),
    }[curve]
    light[:, star] *= 10 ** (-0.4 * dimming_mag)
    keep = steady(light)
    assert not keep[star]
    assert keep.sum() >= 28


def test_a_cosmic_ray_makes_no_variable():
    light, noise = night()
    star = int(np.argsort(noise)[10])
    light[[20, 60], star] *= 1.5
    assert steady(light)[star]


def test_stars_often_too_bright_or_missing_are_left_out():
    light, _ = night()
    flags = np.zeros(light.shape, np.int64)
    flags[:5, 0] = Flag.SATURATED  # 5 % are borne
    flags[:6, 1] = Flag.NON_LINEAR
    light[10:16, 2] = np.nan
    keep = steady(light, flags)
    assert keep[[0, 1, 2]].tolist() == [True, False, False]


def test_faint_stars_are_left_out_and_short_nights_judge_no_variability():
    light, _ = night()
    snr = np.full(light.shape, 100.0)
    snr[:, 3] = 19.0
    light[:, 4] *= 1.0 + 0.5 * (np.arange(N_FRAMES) % 2)[:]
    none = np.zeros(light.shape, np.int64)
    keep = field_stars.steady_field_stars(light[:9], snr[:9], none[:9])
    assert not keep[3]
    assert keep[4]
    assert not field_stars.steady_field_stars(light, snr, none)[4]
