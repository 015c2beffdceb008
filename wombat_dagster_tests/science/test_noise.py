"""The parts of an error: each by hand, all together as AstroImageJ's, and against pixels."""

import numpy as np
import pytest

from wombat_dagster import domain
from wombat_dagster.science.noise import (
    effective_px,
    noise_budget,
    relative_extra,
    scintillation,
    unknown_parts,
)
from wombat_dagster_tests.series import series_table

IN_AIJ = ("photon", "sky", "read", "dark", "rounding")


def sigma(airmass=1.0, exposure_s=10.0, aperture_m=1.0, elevation_m=0.0):
    return float(
        scintillation(
            airmass, exposure_s, telescope_aperture_m=aperture_m, site_elevation_m=elevation_m
        )
    )


# ------------------------------------------------------------------------------- scintillation


def test_a_metre_at_the_zenith_and_sea_level_by_hand():
    """√(10e-6 · 2.25 / 10) = √2.25e-6."""
    assert sigma() == pytest.approx(1.5e-3, rel=1e-12)


def test_a_small_telescope_on_a_mountain_by_hand():
    """0.35 m, 60 s, X 1.5, 2387 m: 2.25e-5 · 4.05424 / 60 · 3.375 · 0.550598 = 2.82520e-6.

    0.35^(-4/3) = e^(1.3333 · 1.049822); e^(-2·2387/8000) = e^(-0.59675).
    """
    assert sigma(1.5, 60.0, 0.35, 2387.0) ** 2 == pytest.approx(2.82520e-6, rel=2e-5)


def test_young_s_own_law_is_1_5_times_smaller():
    """Young's 0.09 D^(-2/3) [cm] X^1.75 e^(-h/8000) / √(2t): Osborn et al.'s abstract says 1.5."""
    young = 0.09 * 100.0 ** (-2 / 3) / np.sqrt(2 * 10.0)
    assert sigma() / young == pytest.approx(1.5, rel=0.08)


def test_how_scintillation_scales():
    assert sigma(airmass=2.0) / sigma() == pytest.approx(2**1.5)
    assert sigma(exposure_s=40.0) / sigma() == pytest.approx(0.5)
    assert sigma(aperture_m=8.0) / sigma() == pytest.approx(0.25)
    assert sigma(elevation_m=8000.0) / sigma() == pytest.approx(np.exp(-1))


@pytest.mark.parametrize("airmass", [-1.0, 0.0, np.nan, np.inf])
def test_a_frame_without_airmass_gets_no_scintillation(airmass):
    assert sigma(airmass=airmass) == 0.0


# ------------------------------------------------------------------------------------ the flat


def test_a_flat_s_noise_in_simulated_pixels():
    """Star and flat pixel by pixel, 4000 flats: rms known to 1.1 %, the law exact for a Gaussian.

    Aperture 5.4 px, FWHM 3.2 px, star off the pixel's middle.
    """
    rng = np.random.default_rng(8)
    y, x = np.mgrid[-9:10, -9:10]
    s = 3.2 / 2.3548
    star = np.exp(-((x - 0.3) ** 2 + (y + 0.2) ** 2) / 2 / s**2)
    star *= np.hypot(x - 0.3, y + 0.2) <= 5.4
    flats = 1 + 0.01 * rng.normal(size=(4000, *star.shape))
    got = np.std((star / flats).sum(axis=(1, 2)) / star.sum())
    assert got == pytest.approx(0.01 / np.sqrt(effective_px(3.2, 5.4)), rel=0.04)


def test_a_tiny_aperture_spreads_the_light_evenly_and_a_large_one_as_the_star():
    assert effective_px(40.0, 2.0) == pytest.approx(np.pi * 4, rel=1e-3)
    assert effective_px(3.0, 60.0) == pytest.approx(np.pi * 9 / (2 * np.log(2)), rel=1e-6)
    assert effective_px(0.3, 5.0) == 1.0


# ------------------------------------------------------------------------------- relative_extra


def test_the_extra_is_scintillation_and_flat_in_quadrature():
    night = series_table(5)
    apart = [
        relative_extra(series_table(5, flat_noise=None)),
        relative_extra(series_table(5, telescope_aperture_m=None)),
    ]
    assert all((part > 0).all() for part in apart)
    assert relative_extra(night) == pytest.approx(np.hypot(*apart))


def test_what_is_not_known_is_left_out_and_named():
    bare = series_table(
        4,
        flat_noise=None,
        telescope_aperture_m=None,
        site_elevation_m=None,
        dark_e_px=None,
        gain_e_adu=None,
        read_noise_e=None,
        pedestal_removed=False,
    )
    assert (relative_extra(bare) == 0).all()
    words = " | ".join(unknown_parts(bare))
    for name in ("gain", "bias", "read noise", "dark", "flat", "scintillation"):
        assert name in words
    assert unknown_parts(series_table(4)) == ()


def test_the_extra_follows_apertures_that_follow_the_seeing():
    radii = np.array([[1.0, 9.0, 15.0], [9.0, 15.0, 25.0]])
    night = series_table(2, telescope_aperture_m=None, radii_px=radii)
    narrow, wide = relative_extra(night)
    assert narrow > wide


# ---------------------------------------------------------------------------------- the budget


def test_without_flat_and_scintillation_the_parts_are_astroimagej_s_error_to_the_digit():
    night = series_table(20, field_mags=(12.0, 14.5))
    for stars, field in ((night.measured, False), (night.field, True)):
        budget = noise_budget(night, field=field)
        together = sum(budget.parts[name] for name in IN_AIJ)
        relative = stars.source_error_adu / stars.source_sky_adu
        assert np.sqrt(together) == pytest.approx(relative, rel=1e-12)


def test_the_total_is_the_error_with_the_extra():
    night = series_table(6)
    relative = night.measured.source_error_adu / night.measured.source_sky_adu
    wanted = relative**2 + relative_extra(night)[:, None] ** 2
    assert noise_budget(night).total == pytest.approx(wanted, rel=1e-12)


def test_one_star_by_hand():
    """1e4 ADU, g 2, b 100, n 100, n_b 400, RN 6, D 5: photon 5e-5; 125 px, 1.25e-6 per ADU².

    sky 1.25e-6·50, read 1.25e-6·9, dark 1.25e-6·1.25, rounding 1.25e-6·0.083521.
    """
    night = series_table(1, mags=(12.0,), gain_e_adu=2.0, read_noise_e=6.0)
    night.dark_e_px[:] = 5.0
    for name, value in (
        ("source_sky_adu", 1e4),
        ("sky_adu_px", 100.0),
        ("n_source_px", 100.0),
        ("n_sky_px", 400.0),
    ):
        getattr(night.measured, name)[:] = value
    budget = noise_budget(night)
    got = {name: float(budget.parts[name][0, 0]) for name in IN_AIJ}
    assert got == pytest.approx(
        {
            "photon": 5e-5,
            "sky": 6.25e-5,
            "read": 1.125e-5,
            "dark": 1.5625e-6,
            "rounding": 1.0440125e-7,
        },
        rel=1e-9,
    )


def test_without_the_gain_only_what_needs_none_is_told():
    budget = noise_budget(series_table(3, gain_e_adu=None))
    assert set(budget.parts) == {"rounding", "flat", "scintillation"}
    assert budget.total is None
    assert any("gain" in words for words in budget.unknown)


def test_a_star_without_light_has_no_relative_error():
    night = series_table(3)
    night.measured.source_sky_adu[1, 2] = -5.0
    assert np.isnan(noise_budget(night).total[1, 2])
    assert np.isfinite(np.delete(noise_budget(night).total.ravel(), 12)).all()


def test_a_table_without_field_stars_has_no_budget_of_them():
    with pytest.raises(ValueError, match="no field stars"):
        noise_budget(series_table(2), field=True)


def test_the_whole_budget_in_simulated_pixels():
    """600 frames of one star drawn pixel by pixel; rms known to 3 %, the law to 1 %.

    Poisson star, sky and dark, Gaussian read noise, rounding, a flat of its own and scintillation
    on every frame; the sky is the annulus' mean.
    """
    rng = np.random.default_rng(4)
    gain, read_noise, sky_e, dark_e, star_e, fwhm = 2.0, 9.0, 150.0, 20.0, 60_000.0, 3.0
    radius, flat_noise = 6.0, 0.012
    y, x = np.mgrid[-24:25, -24:25]
    distance = np.hypot(x, y)
    inside, annulus = distance <= radius, (distance >= 12) & (distance <= 22)
    shape = np.exp(-(distance**2) / 2 / (fwhm / 2.3548) ** 2)
    shape /= shape.sum()
    n, n_sky = float(inside.sum()), float(annulus.sum())
    twinkle = sigma(1.3, 20.0, 0.2, 300.0)
    sources = []
    for _ in range(600):
        light = star_e * (1 + twinkle * rng.normal()) * shape + sky_e
        counted = rng.poisson(light + dark_e) + read_noise * rng.normal(size=shape.shape) - dark_e
        adu = np.round(counted / gain) / (1 + flat_noise * rng.normal(size=shape.shape))
        sky = adu[annulus].mean()
        sources.append(adu[inside].sum() - n * sky)
    night = series_table(
        1,
        mags=(12.0,),
        gain_e_adu=gain,
        read_noise_e=read_noise,
        dark_e_px=np.array([dark_e]),
        flat_noise=flat_noise,
        telescope_aperture_m=0.2,
        site_elevation_m=300.0,
        exposure_s=np.array([20.0]),
        frame_fwhm_px=np.array([fwhm]),
        aperture=domain.Aperture(radius_px=radius, sky_inner_px=12.0, sky_outer_px=22.0),
    )
    night.times.airmass[:] = 1.3
    night.measured.source_sky_adu[:] = star_e / gain
    night.measured.sky_adu_px[:] = sky_e / gain
    night.measured.n_source_px[:], night.measured.n_sky_px[:] = n, n_sky
    expected = float(np.sqrt(noise_budget(night).total[0, 0]))
    parts = {
        name: float(part[0, 0]) / expected**2 for name, part in noise_budget(night).parts.items()
    }
    assert parts["scintillation"] > 0.2
    assert parts["flat"] > 0.1
    assert np.std(sources) / np.mean(sources) == pytest.approx(expected, rel=0.09)
