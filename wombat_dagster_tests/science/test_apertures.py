"""Which radii are taken: by the FWHM, by signal-to-noise, by a scan; truth is made here."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wombat_dagster import domain
from wombat_dagster.science import apertures

RADII_PX = np.linspace(2.0, 8.0, 13)


def test_aperture_from_the_fwhm():
    """5 px: 1.7, 3.4 and 6.8 times are 8.5, 17 and 34."""
    got = apertures.choose_aperture(5.0)
    assert (got.radius_px, got.sky_inner_px, got.sky_outer_px) == pytest.approx((8.5, 17.0, 34.0))


def test_small_stars_keep_a_gap_and_enough_sky():
    """1 px: radius 2.5, gap 5 gives 7.5; 6.8 is inside that, so √(7.5² + 4·2.5²) = 9.01388."""
    got = apertures.choose_aperture(1.0)
    assert (got.radius_px, got.sky_inner_px) == (2.5, 7.5)
    assert got.sky_outer_px == 9.1


@given(st.floats(0.8, 15.0), st.floats(0.5, 4.0), st.floats(0.5, 12.0))
def test_radii_are_tenths_and_leave_a_gap_and_enough_sky(fwhm_px, radius_fwhm, inner_fwhm):
    got = apertures.choose_aperture(fwhm_px, radius_fwhm=radius_fwhm, sky_inner_fwhm=inner_fwhm)
    radii = np.array([got.radius_px, got.sky_inner_px, got.sky_outer_px])
    assert 10 * radii == pytest.approx(np.round(10 * radii), abs=1e-9)
    assert got.radius_px == pytest.approx(max(radius_fwhm * fwhm_px, 2.5), abs=0.0501)
    assert got.sky_inner_px >= got.radius_px + 5.0 - 1e-9
    assert got.sky_outer_px**2 - got.sky_inner_px**2 >= 4 * got.radius_px**2 - 1e-6


@pytest.mark.parametrize("fwhm_px", [math.nan, math.inf, 0.0])
def test_no_aperture_without_a_fwhm(fwhm_px):
    with pytest.raises(domain.BadPsf, match="no aperture"):
        apertures.choose_aperture(fwhm_px)


def test_fixed_radii_override():
    got = apertures.choose_aperture(math.nan, radius_px=6.0, sky_inner_px=9.0, sky_outer_px=15.0)
    assert got.radius_px == 6.0
    got = apertures.choose_aperture(5.0, radius_px=6.0, sky_inner_px=9.0, sky_outer_px=15.0)
    assert got == domain.Aperture(radius_px=6.0, sky_inner_px=9.0, sky_outer_px=15.0)


# ------------------------------------------------------------------------------------ scans


def night(best_px, *, n_frames=120, flux_adu=(20_000.0,) * 8, noise_mag=0.004, seed=1):
    """Growth curves, (n_frames, n_stars, n_radii), whose noise is least at the radius `best_px`."""
    rng = np.random.default_rng(seed)
    flux = np.broadcast_to(np.asarray(flux_adu), (n_frames, len(flux_adu)))
    best = np.broadcast_to(np.asarray(best_px, float), (len(flux_adu),))
    grows = noise_mag * (1.0 + 2.0 * np.abs(RADII_PX - best[:, None]) / 3.0)
    clouds = 0.3 * rng.random(n_frames)[:, None, None]  # common to all stars
    noise = rng.normal(0.0, 1.0, (n_frames, len(flux_adu), 1)) * grows
    return flux[:, :, None] * 10 ** (-0.4 * (clouds + noise))


def terms(n_frames=120):
    """Time and airmass of a night past the meridian."""
    hours = np.linspace(-3.0, 3.0, n_frames)
    return np.column_stack([hours, 1.0 + 0.05 * hours**2])


def test_the_scan_finds_where_the_comps_are_steadiest():
    scan = apertures.steadiest(RADII_PX, night(5.0), like_adu=20_000.0, terms=terms())
    assert RADII_PX[scan.chosen] == 5.0
    assert scan.scatter_mag[scan.chosen] == pytest.approx(0.004, rel=0.15)
    assert (scan.n_stars, scan.n_frames) == (8, 120)


def test_stars_of_the_variables_brightness_decide():
    """Five of its brightness are steadiest at 4 px, ten faint ones at 7 px."""
    flux = (20_000.0,) * 5 + (2_000.0,) * 10
    light = night([4.0] * 5 + [7.0] * 10, flux_adu=flux)
    bright = apertures.steadiest(RADII_PX, light, like_adu=20_000.0, terms=terms())
    faint = apertures.steadiest(RADII_PX, light, like_adu=2_000.0, terms=terms())
    assert RADII_PX[bright.chosen] == 4.0
    assert RADII_PX[faint.chosen] == 7.0


def test_colours_drift_with_airmass_and_that_is_no_scatter():
    """0.2 mag per airmass more for every second star: 0.09 mag over the night."""
    light = night(5.0)
    light[:, ::2] *= 10 ** (-0.4 * 0.2 * terms()[:, 1])[:, None, None]
    scan = apertures.steadiest(RADII_PX, light, like_adu=20_000.0, terms=terms())
    assert RADII_PX[scan.chosen] == 5.0
    assert scan.scatter_mag[scan.chosen] < 0.006


def test_one_variable_comp_does_not_move_the_radius():
    light = night(5.0)
    light[:, 0] *= 10 ** (-0.4 * 0.3 * np.sin(np.arange(120) / 7.0))[:, None]
    scan = apertures.steadiest(RADII_PX, light, like_adu=20_000.0, terms=terms())
    assert RADII_PX[scan.chosen] == 5.0


def test_two_stars_or_seven_frames_are_too_few_to_scan():
    light = night(5.0)
    assert apertures.steadiest(RADII_PX, light[:, :2], like_adu=1.0, terms=terms()) is None
    few = light[:7]
    assert apertures.steadiest(RADII_PX, few, like_adu=1.0, terms=terms()[:7]) is None
    light[:20, 2:] = np.nan  # six stars lack too many frames
    assert apertures.steadiest(RADII_PX, light, like_adu=1.0, terms=terms()) is None


@pytest.mark.parametrize(("star_adu", "best_fwhm"), [(1e3, 0.67), (3e6, 1.5)])
def test_the_best_signal_of_a_gaussian_star(star_adu, best_fwhm):
    """Where the sky rules the best radius of a Gaussian is 1.585 sigma = 0.673 FWHM.

    (Maximum of (1 - exp(-r²/2s²))/r: King 1983, PASP 95, 163.) A bright star wants more.
    """
    fwhm_px = 5.0
    radii = np.linspace(0.5, 2.0, 31) * fwhm_px
    sigma = fwhm_px / 2.3548
    grown = star_adu * (1.0 - np.exp(-(radii**2) / (2.0 * sigma**2)))
    light = np.broadcast_to(grown, (3, 4, radii.size))
    scan = apertures.best_signal(
        radii,
        light,
        np.full((3, 4), 1e6),
        sky_rms_adu=np.full(3, 10.0),
        gain_e_adu=2.0,
        like_adu=star_adu,
    )
    if star_adu < 1e4:
        assert radii[scan.chosen] / fwhm_px == pytest.approx(best_fwhm, abs=0.05)
    else:
        assert radii[scan.chosen] / fwhm_px > 1.0
    area = math.pi * radii[scan.chosen] ** 2
    noise = math.sqrt(grown[scan.chosen] / 2.0 + area * 100.0)
    assert scan.scatter_mag[scan.chosen] == pytest.approx(1.0857 * noise / grown[scan.chosen], 1e-3)


def test_the_radii_of_a_scan():
    """0.8 to 2.5 FWHM of 5 px: 4 to 12.5 px; a neighbour at 18 px: none beyond 18 - 2·5 = 8 px."""
    got = apertures.scanned_radii(5.0, (0.8, 2.5), min_radius_px=2.5, usual_px=8.5)
    assert (got[0], got[-1], got.size) == (4.0, 12.5, 16)
    near = apertures.scanned_radii(
        5.0, (0.8, 2.5), min_radius_px=2.5, usual_px=7.0, neighbour_px=18.0
    )
    assert near[-1] == 8.0
    nearer = apertures.scanned_radii(
        5.0, (0.8, 2.5), min_radius_px=2.5, usual_px=8.5, neighbour_px=11.0
    )
    assert nearer[-1] == 8.5  # never below what goes without a scan
    small = apertures.scanned_radii(1.0, (0.8, 2.0), min_radius_px=2.5, usual_px=2.5)
    assert small.tolist() == [2.5]


# ------------------------------------------------------------------------------- neighbours


def detections(*stars):
    """Stars (x, y, flux)."""
    x, y, flux = np.array(stars, float).T
    other = np.ones(x.size)
    return domain.Detections(
        x_px=x, y_px=y, flux_adu=flux, peak_adu=flux, fwhm_px=other, axis_ratio=other, snr=other,
        sky_adu=0.0, sky_rms_adu=1.0,
    )  # fmt: skip


def test_the_nearest_neighbour_that_matters():
    """3 mag are a factor of 15.85: 700 is a neighbour of 10000, 600 is none."""
    near = detections((50, 50, 10_000), (58, 50, 600), (50, 62, 700), (90, 90, 1e6))
    got = apertures.neighbour_px(
        np.array([50.2, 20.0]), np.array([50.0, 20.0]), np.array([1.0, np.nan]), near, fwhm_px=4.0
    )
    assert got[0] == pytest.approx(math.hypot(0.2, 12.0))
    assert got[1] == pytest.approx(math.hypot(30.0, 30.0))  # no light of its own: any star
    assert apertures.is_blended(12.0, radius_px=5.0, fwhm_px=4.0)
    assert not apertures.is_blended(13.0, radius_px=5.0, fwhm_px=4.0)
