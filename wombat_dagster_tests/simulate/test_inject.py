"""Injected stars have the light, the place and the noise that they are said to have."""

import gzip

import numpy as np
import pytest
from astropy.io import fits
from photutils.aperture import CircularAperture, aperture_photometry

from wombat_dagster.domain import Aperture
from wombat_dagster.simulate.inject import (
    Camera,
    Profile,
    added_counts,
    net_share,
    rewrite_image,
    star_stamp,
)

ROUND = Profile(fwhm_px=3.2, beta=3.0)
LONG = Profile(fwhm_px=3.2, beta=2.5, axis_ratio=0.7, angle_deg=30.0)
BRIGHT = Camera(gain_e_adu=1e12, highest_adu=None)  # no noise to speak of


def exact_shares(profile, x_px, y_px, n_fine):
    """Return the shares of the stamp's pixels from `n_fine` x `n_fine` points in each."""
    stamp = star_stamp(x_px, y_px, profile)
    n = len(stamp.shares)
    step = (np.arange(n * n_fine) + 0.5) / n_fine - 0.5
    fine = profile.brightness(
        (stamp.left + step - x_px)[None, :], (stamp.bottom + step - y_px)[:, None]
    )
    shares = fine.reshape(n, n_fine, n, n_fine).sum(axis=(1, 3))
    return stamp, shares / shares.sum()


@pytest.mark.parametrize("profile", [ROUND, LONG, Profile(fwhm_px=1.3, beta=4.0)])
@pytest.mark.parametrize("place", [(40.0, 40.0), (40.5, 40.25), (39.87, 41.49)])
def test_every_pixel_holds_the_light_that_falls_on_it(profile, place):
    """Against 40 x 40 points per pixel: the star is integrated, not sampled at pixel centres."""
    stamp, exact = exact_shares(profile, *place, 40)
    np.testing.assert_allclose(stamp.shares, exact, rtol=0, atol=1e-4)  # of 40 points


@pytest.mark.parametrize("profile", [ROUND, LONG])
@pytest.mark.parametrize("place", [(40.0, 40.0), (40.5, 40.25), (39.87, 41.49)])
def test_a_star_keeps_its_light_and_its_place(profile, place):
    image = added_counts(
        (90, 90), [star_stamp(*place, profile)], [5e4], camera=BRIGHT,
        rng=np.random.default_rng(1),
    )  # fmt: skip
    assert image.sum() == pytest.approx(5e4, rel=1e-4)
    y, x = np.mgrid[:90, :90]
    core = np.hypot(x - place[0], y - place[1]) < 6.0  # a cut stamp's corners are not symmetric
    light = np.where(core, image, 0.0)
    assert (light * x).sum() / light.sum() == pytest.approx(place[0], abs=0.1)
    fitted = fitted_centre(image, profile, place)
    assert np.hypot(*(fitted - np.array(place))) < 0.01


def fitted_centre(image, profile, near):
    """Return the centre of the best pixel-integrated profile, by scipy, from a start nearby."""
    from scipy.optimize import least_squares

    def residual(p):
        stamp = star_stamp(p[0], p[1], profile)
        n = len(stamp.shares)
        cut = image[stamp.bottom : stamp.bottom + n, stamp.left : stamp.left + n]
        return (cut - p[2] * 1e4 * stamp.shares).ravel()

    found = least_squares(residual, [near[0] + 0.1, near[1] - 0.1, 4.0], diff_step=1e-4)
    return found.x[:2]


def test_the_major_axis_points_where_it_is_told():
    stamp = star_stamp(40.0, 40.0, LONG)
    n = len(stamp.shares)
    y, x = np.mgrid[:n, :n] - n // 2
    core = np.where(np.hypot(x, y) < 5, stamp.shares, 0)
    xx, yy, xy = (core * x**2).sum(), (core * y**2).sum(), (core * x * y).sum()
    assert np.degrees(0.5 * np.arctan2(2 * xy, xx - yy)) == pytest.approx(30.0, abs=1.0)


def test_the_width_at_half_the_peak_is_the_fwhm():
    """Along the axes of an ellipse b/a = 0.64, by hand: FWHM/sqrt(0.64) = 4 and 2.56 px of 3.2."""
    profile = Profile(fwhm_px=3.2, beta=3.0, axis_ratio=0.64)
    assert profile.brightness(np.array(2.0), np.array(0.0)) == pytest.approx(0.5)
    assert profile.brightness(np.array(0.0), np.array(1.28)) == pytest.approx(0.5)


@pytest.mark.parametrize("place", [(60.0, 60.0), (60.4, 59.7)])
def test_an_aperture_measures_the_net_share(place):
    """Against photutils' exact overlap and a plain mean of the annulus."""
    aperture = Aperture(radius_px=5.44, sky_inner_px=10.9, sky_outer_px=21.8)
    stamp = star_stamp(*place, LONG)
    image = added_counts((121, 121), [stamp], [1e5], camera=BRIGHT, rng=np.random.default_rng(2))
    y, x = np.mgrid[:121, :121]
    distance = np.hypot(x - place[0], y - place[1])
    sky = image[(distance >= 10.9) & (distance <= 21.8)].mean()
    total = aperture_photometry(image, CircularAperture(place, 5.44))["aperture_sum"][0]
    measured = float(total) - np.pi * 5.44**2 * sky
    assert net_share(stamp, aperture) * 1e5 == pytest.approx(measured, rel=2e-4)


def test_added_light_has_its_own_photon_noise():
    """Variance = counts / gain, over 400 frames of a star of 20000 ADU and 2 e-/ADU."""
    rng = np.random.default_rng(3)
    camera = Camera(gain_e_adu=2.0, highest_adu=None)
    stamp = star_stamp(30.0, 30.0, ROUND)
    sums = [
        added_counts((61, 61), [stamp], [2e4], camera=camera, rng=rng).sum() for _ in range(400)
    ]
    assert np.mean(sums) == pytest.approx(2e4, abs=4 * np.sqrt(1e4 / 400))
    assert np.var(sums) == pytest.approx(1e4, rel=0.25)  # 3.5 sigma of 400 draws


def test_a_flat_takes_light_and_stars_over_the_edge_are_cut():
    flat = np.full((61, 61), 0.5)
    camera = Camera(gain_e_adu=1e12, highest_adu=None, flat=flat)
    stamps = [star_stamp(30.0, 30.0, ROUND), star_stamp(-0.5, 30.0, ROUND)]
    rng = np.random.default_rng(4)
    assert added_counts((61, 61), stamps[:1], [1e4], camera=camera, rng=rng).sum() == pytest.approx(
        5e3, rel=1e-4
    )
    half = added_counts((61, 61), stamps[1:], [1e4], camera=camera, rng=rng).sum()
    assert half == pytest.approx(2.5e3, rel=0.01)  # and the flat takes half of that half


def raw_file(path, counts, **cards):
    header = fits.Header({"FILTER": "V", "OBJECT": "SV Wom", **cards})
    path.parent.mkdir(parents=True, exist_ok=True)
    fits.PrimaryHDU(counts, header).writeto(path)
    return path


def test_only_the_bytes_of_changed_pixels_change(tmp_path):
    counts = np.random.default_rng(5).integers(900, 1100, (20, 30)).astype(np.uint16)
    source = raw_file(tmp_path / "raw.fit", counts)
    before = source.read_bytes()

    def brighter(image):
        image[3, 4] += 7.4
        return image

    rewrite_image(source, tmp_path / "copy" / "raw.fit", brighter)
    after = (tmp_path / "copy" / "raw.fit").read_bytes()
    assert source.read_bytes() == before
    assert len(after) == len(before)
    differing = [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
    place = 2880 + 2 * (3 * 30 + 4)
    assert set(differing) <= {place, place + 1}
    assert fits.getdata(tmp_path / "copy" / "raw.fit")[3, 4] == counts[3, 4] + 7
    assert fits.getdata(tmp_path / "copy" / "raw.fit").dtype.kind == "u"


@pytest.mark.parametrize(
    ("kind", "highest_adu", "expected"),
    [(np.uint16, None, 65535), (np.int16, None, 32767), (np.uint16, 4095.0, 4095)],
)
def test_counts_stop_where_the_camera_does(tmp_path, kind, highest_adu, expected):
    source = raw_file(tmp_path / "raw.fit", np.full((8, 8), 3000, dtype=kind))
    rewrite_image(source, tmp_path / "copy.fit", lambda image: image + 1e6, highest_adu=highest_adu)
    assert np.all(fits.getdata(tmp_path / "copy.fit") == expected)


def test_a_gzipped_frame_stays_one(tmp_path):
    source = raw_file(tmp_path / "raw.fit", np.full((8, 8), 1000, dtype=np.uint16))
    packed = tmp_path / "raw.fit.gz"
    packed.write_bytes(gzip.compress(source.read_bytes()))
    rewrite_image(packed, tmp_path / "copy.fit.gz", lambda image: image + 5)
    assert (tmp_path / "copy.fit.gz").read_bytes()[:2] == b"\x1f\x8b"
    assert np.all(fits.getdata(tmp_path / "copy.fit.gz") == 1005)


@pytest.mark.parametrize("kind", [np.int16, np.uint16])
def test_a_frame_compressed_inside_is_written_uncompressed(tmp_path, kind):
    data = np.full((64, 64), 1000, dtype=kind)
    data[0, 0] = 7
    packed = fits.CompImageHDU(data)
    packed.header["FILTER"] = "V"
    fits.HDUList([fits.PrimaryHDU(), packed]).writeto(tmp_path / "raw.fits.fz")
    rewrite_image(tmp_path / "raw.fits.fz", tmp_path / "copy.fits.fz", lambda image: image + 5)
    with fits.open(tmp_path / "copy.fits.fz") as (copy,):
        np.testing.assert_array_equal(copy.data, data + 5)
        assert copy.header["FILTER"] == "V"
