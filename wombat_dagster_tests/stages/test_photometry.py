"""Which frame gives the profile, which one shows the crowding, which radii, which hot pixels."""

from types import SimpleNamespace

import numpy as np
import pytest

from wombat_dagster import config
from wombat_dagster.domain import (
    Aperture,
    ApertureScan,
    BadPsf,
    Detections,
    Flag,
    Site,
    WcsSolution,
)
from wombat_dagster.science.astrometry import sky
from wombat_dagster.stages import photometry


@pytest.fixture
def tried(monkeypatch):
    """What `night_profile` answers, and how many frames it fits."""

    def run(*axis_ratios):
        """None is a frame whose fit fails, below 0.7 the stars are elongated."""
        fitted = []

        def fit(image, mask, detections, **_):
            fitted.append(detections)
            if axis_ratios[image] is None:
                raise BadPsf(f"frame {image}")
            return SimpleNamespace(elongated=axis_ratios[image] < 0.7, frame=image)

        monkeypatch.setattr(photometry, "fit_frame_profile", fit)
        pixels = SimpleNamespace(read=lambda frame: (frame, 0), stars=lambda frame: frame)
        detector = SimpleNamespace(
            gain_e_adu=None, linearity_adu=SimpleNamespace(value=1.0), stop_adu=None
        )
        solved = [(i, None, None) for i in range(len(axis_ratios))]
        settings = config.PhotometrySettings()
        return photometry.night_profile(pixels, solved, detector, settings), len(fitted)

    return run


@pytest.mark.parametrize(
    ("axis_ratios", "chosen", "n_fitted"),
    [
        ((0.9, 0.95), 0, 1),
        ((None, 0.9, 0.9), 1, 2),
        ((0.6, None, 0.8, 0.9), 2, 3),  # the first that is not elongated
        ((None, 0.6, 0.65), 1, 3),  # all are
        ((0.6,) * 10 + (0.9,), 0, 10),  # no more than ten are tried
    ],
)
def test_an_unelongated_frame_is_preferred(tried, axis_ratios, chosen, n_fitted):
    (profile, index), n = tried(*axis_ratios)
    assert (profile.frame, index, n) == (chosen, chosen, n_fitted)


def test_without_a_good_frame_the_first_failure_is_named(tried):
    with pytest.raises(BadPsf, match=r"none of 2 frames .* frame 0"):
        tried(None, None)


def test_crowding_is_judged_on_a_typical_frame():
    """Median of 9, 3, 2, 2.5, 8 is 3: not the trailed first, not the sharpest."""
    assert photometry.typical_frame(np.array([9.0, 3.0, 2.0, 2.5, 8.0])) == 1


# ------------------------------------------------------------------------------------- radii


def chosen(monkeypatch, scan, **changes):
    """What `_choose_radii` makes of a scan (None: not possible) on frames of 4, 5 and 6 px FWHM."""
    night = SimpleNamespace(
        settings=config.PhotometrySettings(**changes),
        median_fwhm_px=5.0,
        fwhm_px=np.array([4.0, 5.0, 6.0]),
        solved=[None] * 3,
    )
    monkeypatch.setattr(photometry, "_scan", lambda *_: scan)
    return photometry._choose_radii(night, None)


def a_scan(radius_px):
    return ApertureScan(
        radii_px=np.array([4.0, radius_px, 12.0]), scatter_mag=np.array([0.02, 0.01, 0.03]),
        chosen=1, criterion="scatter", n_stars=9, n_frames=3,
    )  # fmt: skip


def test_without_a_scan_the_fwhm_rules(monkeypatch):
    radii = chosen(monkeypatch, None)
    assert (radii.aperture.radius_px, radii.per_frame_px, radii.notes) == (8.5, None, ())


def test_the_radius_of_the_scan_serves_and_is_explained(monkeypatch):
    radii = chosen(monkeypatch, a_scan(7.0), aperture="scan")
    assert radii.aperture.radius_px == 7.0
    assert radii.of_frame(0) == radii.of_frame(2) == radii.aperture
    assert "radius 7.00 px (1.40 FWHM) of 3 from 4.00 to 12.00 px" in radii.notes[0]
    assert "9 stars on 3 of 3 frames" in radii.notes[0]


def test_too_few_stars_to_scan_is_said(monkeypatch):
    radii = chosen(monkeypatch, None, aperture="scan")
    assert radii.aperture.radius_px == 8.5
    assert "too few" in radii.notes[0]


def test_radii_follow_the_seeing(monkeypatch):
    """1.4 FWHM, and the sky from 3.4 to 6.8, but 5 px beyond the aperture at least."""
    radii = chosen(monkeypatch, a_scan(7.0), aperture="scan", follow_fwhm=True)
    assert radii.per_frame_px == pytest.approx(
        np.array([[5.6, 13.6, 27.2], [7.0, 17.0, 34.0], [8.4, 20.4, 40.8]])
    )
    assert radii.of_frame(2).radius_px == pytest.approx(8.4)


def test_fixed_radii_are_not_scanned(monkeypatch):
    fixed = {"radius_px": 4.0, "sky_inner_px": 10.0, "sky_outer_px": 16.0}
    radii = chosen(monkeypatch, a_scan(7.0), **fixed)
    assert (radii.aperture.radius_px, radii.per_frame_px, radii.scan) == (4.0, None, None)


def test_the_frames_of_the_usual_seeing_are_those_for_the_best_signal():
    seeing = np.array([3.0, 9.0, 3.1, 5.0, 3.2, 3.05, 2.0, 3.15])
    night = SimpleNamespace(
        settings=config.PhotometrySettings(aperture="snr"),
        fwhm_px=seeing,
        median_fwhm_px=float(np.median(seeing)),
        solved=[None] * 8,
    )
    assert photometry._scanned_frames(night) == [0, 2, 4, 5, 7]


def test_a_night_has_one_midnight_whichever_of_its_frames_are_there():
    """Local midnight in Japan, 135° east, is 15 h UT: JD .125 of the day that begins at noon."""
    japan = Site(latitude_deg=35.0, longitude_deg=135.0)
    evening, morning = 2460963.0 + 9.5 / 24 - 0.5, 2460963.0 + 20.5 / 24 - 0.5
    midnight_jd = 2460963.0 + 15.0 / 24 - 0.5
    for jd_utc in ([evening], [morning], [evening, morning]):
        assert photometry._midnight_jd(np.array(jd_utc), japan) == pytest.approx(midnight_jd)


# --------------------------------------------------------------------------------- flags


def stars_at(*x_px):
    n = len(x_px)
    return Detections(
        x_px=np.array(x_px), y_px=np.full(n, 50.0), flux_adu=np.full(n, 1e4),
        peak_adu=np.full(n, 1e3), fwhm_px=np.full(n, 3.0), axis_ratio=np.ones(n),
        snr=np.full(n, 100.0), sky_adu=0.0, sky_rms_adu=1.0,
    )  # fmt: skip


def a_night(frames, *, typical=0, sharpest=0, fwhm_px=(3.0, 5.0)):
    """Two frames with the same pointing, of which `frames` says which stars they show."""
    wcs = WcsSolution(
        ra_deg=30.0, dec_deg=20.0, crpix_x=1.0, crpix_y=1.0,
        cd11=-4e-4, cd12=0.0, cd21=0.0, cd22=4e-4,
    )  # fmt: skip
    ra_deg, dec_deg = sky(wcs, [50.0, 150.0], [50.0, 50.0])
    return photometry._Night(
        pixels=SimpleNamespace(stars=lambda frame: frame), kept=None,
        solved=[
            (frame, SimpleNamespace(axis_ratio_median=ratio), wcs)
            for frame, ratio in zip(frames, (0.9, 0.6), strict=True)
        ],
        facts=None, settings=None, times=None,
        fwhm_px=np.array(fwhm_px), typical=typical, sharpest=sharpest, dark_e_px=np.zeros(2),
        ra_deg=ra_deg, dec_deg=dec_deg, field=(np.empty(0), np.empty(0)),
    )  # fmt: skip


RADII = photometry._Radii(aperture=Aperture(radius_px=6.0, sky_inner_px=11.0, sky_outer_px=16.0))


def test_neighbours_and_trails_flag_every_star_they_concern():
    """A neighbour at 14 px: within 2 FWHM + 6 px where the FWHM is 5 px, not where it is 3 px."""
    night = a_night([stars_at(50.0, 64.0, 150.0)] * 2)
    blended = night._blended((night.ra_deg, night.dec_deg), np.full((2, 2), 1e4), RADII)
    assert blended.tolist() == [[0, 0], [Flag.BLENDED, 0]]
    assert night._elongated().tolist() == [[0], [Flag.ELONGATED]]


@pytest.mark.parametrize("sharpest", [0, 1])
def test_a_neighbour_that_only_the_sharpest_frame_parts_blends_on_all(sharpest):
    merged, parted = stars_at(50.0, 150.0), stars_at(50.0, 57.0, 150.0)
    night = a_night([parted, merged], typical=1, sharpest=sharpest)
    blended = night._blended((night.ra_deg, night.dec_deg), np.full((2, 2), 1e4), RADII)
    assert (blended[:, 0] == Flag.BLENDED).tolist() == [sharpest == 0] * 2
    assert not blended[:, 1].any()


def test_the_sharpest_frame_shows_the_usual_stars():
    """Narrow things on a frame of few stars are what the clouds left, or no stars."""
    many, few = stars_at(*np.arange(50.0)), stars_at(*np.arange(30.0))
    pixels = SimpleNamespace(stars=lambda frame: frame)
    fwhm_px = np.array([3.0, 4.0, 2.0, 3.5, 2.9])
    assert photometry._sharpest_frame(pixels, [many, many, few, many, many], fwhm_px) == 4
    assert photometry._sharpest_frame(pixels, [many] * 5, fwhm_px) == 2


def test_a_clouded_frame_is_flagged_by_what_constant_stars_lose():
    night = SimpleNamespace(solved=[(SimpleNamespace(exposure_s=60.0), None, None)] * 6)
    counts = np.outer([1.0, 1.0, 0.3, 1.0, 1.0, 0.5], [1e5, 2e4])
    got = photometry._Night._clouded(night, counts)
    assert got.tolist() == [[0], [0], [Flag.CLOUD], [0], [0], [0]]


def test_an_elevation_that_nobody_stated_is_not_taken_for_sea_level():
    place = {"latitude_deg": 42.6, "longitude_deg": -71.5}
    unsaid, at_sea = config.SiteSettings(**place), config.SiteSettings(**place, elevation_m=0.0)
    assert photometry.known_elevation_m(unsaid, unsaid.site()) is None
    assert photometry.known_elevation_m(at_sea, at_sea.site()) == 0.0
    assert photometry.known_elevation_m(None, unsaid.site()) is None  # of a header without one
    header = Site(**place, elevation_m=2200.0, source="header")
    assert photometry.known_elevation_m(None, header) == 2200.0
