"""A simulated night: its times, its headers, and that the frames hold what the truth says."""

import dataclasses
import datetime as dt
import json

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from wombat_dagster.domain import Site
from wombat_dagster.science.astrometry import parallactic_angle_deg
from wombat_dagster.simulate.night import (
    Conditions,
    altitudes_deg,
    heliocentric_jd,
    mean_mags,
    observable_start,
    plain_jd,
    read_truth,
    scintillation,
    simulate_night,
    utc_text,
    young_airmass,
)
from wombat_dagster.simulate.sky import BESSELL, LightCurve, Shape, Telescope, random_field

SITE = Site(latitude_deg=41.31, longitude_deg=-72.92, elevation_m=50.0)
SCOPE = Telescope(width_px=320, height_px=256)
DATE = dt.date(2025, 10, 14)
STILL = Conditions(
    seeing_rms=0.0, transparency_rms_mag=0.0, cosmic_rays_mpx_minute=0.0, sky_gradient=0.0
)


def a_field(**changes):
    return random_field(5, telescope=SCOPE, n_stars=60, n_comps=12, **changes)


def night(root, **changes):
    given = {
        "field": a_field(),
        "telescope": SCOPE,
        "date": DATE,
        "site": SITE,
        "seed": 11,
        "filters": ("B", "V"),
        "n_lights": 2,
        "n_bias": 3,
        "n_flats": 2,
        "n_darks": 2,
    }
    return simulate_night(root, **(given | changes))


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("world")
    return root, night(root)


# ------------------------------------------------------------------------------------------- times


def test_times_of_ss_cygni_agree_with_the_reference():
    """reference/time_reference.csv, case 'SS Cyg / Kutztown PA': JD, HJD to 0.02 s, altitude."""
    mid = dt.datetime(2025, 10, 15, 1, 23, 45, 678000, tzinfo=dt.UTC) + dt.timedelta(seconds=30)
    site = Site(latitude_deg=40.515, longitude_deg=-75.785, elevation_m=122.0)
    jd = np.array([plain_jd(mid)])
    assert jd[0] == pytest.approx(2460963.558514792, abs=2e-9)
    hjd = heliocentric_jd(jd, site, 325.678196, 43.586181)
    assert hjd[0] == pytest.approx(2460963.5615056, abs=0.02 / 86400)
    altitude = altitudes_deg(jd, site, 325.678196, 43.586181)
    assert altitude[0] == pytest.approx(86.02814, abs=2 / 3600)


def test_a_julian_date_takes_any_offset():
    """2000 January 1, 12h UT is 2451545.0 by definition."""
    east = dt.timezone(dt.timedelta(hours=9))
    assert plain_jd(dt.datetime(2000, 1, 1, 21, tzinfo=east)) == 2451545.0
    assert utc_text(dt.datetime(2000, 1, 1, 21, tzinfo=east)) == "2000-01-01T12:00:00.000"


def test_airmass_of_the_zenith_of_thirty_degrees_and_of_the_horizon():
    """Young (1994) by hand: cos z = 1/2 gives 0.3344477 / 0.1679181; 0.0096467 / 0.000303978."""
    airmass = young_airmass(np.array([90.0, 30.0, 0.0]))
    assert airmass == pytest.approx([1.0, 1.991731, 31.73486], rel=1e-6)


def test_observing_begins_in_the_dark_with_the_target_up():
    start = observable_start(DATE, SITE, 335.2, 38.1, duration_s=3 * 3600)
    # Nautical dusk on that evening in New Haven was near 23:13 UT (sunset 22:13 UT).
    assert dt.datetime(2025, 10, 14, 23, 5, tzinfo=dt.UTC) <= start
    assert start <= dt.datetime(2025, 10, 14, 23, 25, tzinfo=dt.UTC)
    hours = np.arange(0, 3.01, 0.25)
    altitudes = altitudes_deg(plain_jd(start) + hours / 24, SITE, 335.2, 38.1)
    assert (altitudes > 25).all()


def test_a_rising_target_is_waited_for():
    """RA 100 degrees rises past 25 degrees long after dusk in October."""
    start = observable_start(DATE, SITE, 100.0, 20.0)
    altitude = altitudes_deg(np.array([plain_jd(start)]), SITE, 100.0, 20.0)[0]
    assert 25.0 < altitude < 26.5


def test_a_target_that_never_rises_is_refused_with_numbers():
    with pytest.raises(ValueError, match="for 0 minutes on 2025-10-14, 60 wanted"):
        observable_start(DATE, SITE, 100.0, -70.0)


# ------------------------------------------------------------------------------------------- files


def test_the_night_lies_as_an_observer_keeps_it(written):
    root, _ = written
    found = sorted(
        path.relative_to(root / "data").as_posix() for path in (root / "data").rglob("*.fit")
    )
    expected = [
        *(f"20251014/Bias/Bias-{n:04d}.fit" for n in (1, 2, 3)),
        *(f"20251014/Dark/Dark-{n:04d}-60s.fit" for n in (1, 2)),
        *(f"20251014/Flat/Flat-{n:04d}{f}.fit" for n in (1, 2) for f in "BV"),
        *(f"20251014/Light/SV Wom/SV_Wom-{n:04d}{f}.fit" for n in (1, 2) for f in "BV"),
    ]
    assert found == expected


def test_headers_speak_maxims_dialect(written):
    root, truth = written
    frame = truth.frames[1]
    path = root / "data" / truth.night / frame.file
    with fits.open(path, do_not_scale_image_data=True) as hdus:
        header = hdus[0].header
        assert (header["BITPIX"], header["BZERO"]) == (16, 32768)
        assert hdus[0].data.dtype.kind == "i"
    header = fits.getheader(path)
    assert header["IMAGETYP"] == "Light Frame"
    assert (header["FILTER"], header["EXPTIME"]) == ("V", 60.0)
    assert header["INSTRUME"] == SCOPE.camera
    assert header["EGAIN"] == SCOPE.gain_e_adu
    assert "SITELAT" not in header
    scale = 206.264806 * header["XPIXSZ"] / header["FOCALLEN"]
    assert scale == pytest.approx(SCOPE.scale_arcsec_px, rel=0.01)
    start = dt.datetime.fromisoformat(header["DATE-OBS"]).replace(tzinfo=dt.UTC)
    assert plain_jd(start) + 30 / 86400 == pytest.approx(frame.jd_utc, abs=1e-9)
    kinds = {
        "Bias/Bias-0001.fit": ("Bias Frame", 0.0, None),
        "Flat/Flat-0001B.fit": ("Flat Field", 3.0, "B"),
        "Dark/Dark-0001-60s.fit": ("Dark Frame", 60.0, None),
    }
    for name, (kind, exposure_s, filter) in kinds.items():
        header = fits.getheader(root / "data" / truth.night / name)
        assert header["IMAGETYP"] == kind
        assert header["EXPTIME"] == exposure_s
        assert header.get("FILTER") == filter


def test_raw_headers_hold_no_wcs_and_a_pointing_that_is_off(written):
    root, truth = written
    field = a_field()
    header = fits.getheader(root / "data" / truth.night / truth.frames[0].file)
    assert not {"CTYPE1", "CRVAL1", "CD1_1", "CDELT1"} & set(header)
    degrees, minutes, seconds = (float(part) for part in header["OBJCTDEC"].split())
    off_arcmin = abs(degrees + minutes / 60 + seconds / 3600 - field.dec_deg) * 60
    assert 2.4 < off_arcmin < 3.6


def test_gain_and_site_cards_can_be_left_out_or_given(tmp_path):
    truth = night(
        tmp_path,
        n_lights=1,
        n_bias=0,
        n_flats=0,
        n_darks=0,
        filters=("V",),
        gain_in_header=False,
        site_in_header=True,
    )
    header = fits.getheader(tmp_path / "data" / truth.night / truth.frames[0].file)
    assert "EGAIN" not in header
    assert (header["SITELAT"], header["SITELONG"]) == ("+41 18 36", "-72 55 12")
    assert not (tmp_path / "data" / truth.night / "Bias").exists()


def test_flats_of_the_morning_come_after_the_lights_with_the_sun_at_six_degrees(tmp_path):
    """New Haven, 2025 October 15: sunrise 11:05 UT, civil dawn 10:38 UT."""
    night(tmp_path, n_dawn_flats=2, n_lights=1, n_bias=0, n_darks=0, filters=("V",))
    starts = [
        fits.getheader(path)["DATE-OBS"]
        for path in sorted((tmp_path / "data" / "20251014" / "Flat").glob("*V.fit"))
    ]
    assert len(starts) == 4
    assert starts[1] < "2025-10-15T00:00" < "2025-10-15T10:30" < starts[2] < "2025-10-15T10:50"


def test_overscan_columns_saw_no_light_and_nothing_else_changes(written, tmp_path):
    root, _ = written
    night(tmp_path, overscan_px=16)
    name = "data/20251014/Flat/Flat-0001V.fit"
    header, wide = fits.getheader(tmp_path / name), fits.getdata(tmp_path / name).astype(int)
    assert wide.shape == (256, 336)
    assert (header["TRIMSEC"], header["BIASSEC"]) == ("[1:320,1:256]", "[321:336,1:256]")
    shift = wide[:, :320] - fits.getdata(root / name)
    assert np.ptp(shift) == 0  # the level of the whole frame, and only that
    assert np.median(wide[:, 320:]) - shift[0, 0] == pytest.approx(SCOPE.bias_adu, abs=3)


def test_a_night_follows_from_its_seed(written, tmp_path):
    root, truth = written
    again = night(tmp_path / "again")
    assert again == truth
    other = night(tmp_path / "other", seed=12)
    assert other != truth
    for path in sorted((root / "data").rglob("*.fit")):
        name = path.relative_to(root)
        assert path.read_bytes() == (tmp_path / "again" / name).read_bytes()
        assert path.read_bytes() != (tmp_path / "other" / name).read_bytes()


def test_no_two_frames_share_their_noise(written):
    root, _ = written
    night_directory = root / "data" / "20251014"
    one, two = (fits.getdata(night_directory / f"Bias/Bias-000{n}.fit") for n in (1, 2))
    # Two draws of 6 ADU rms, rounded, agree in 5 % of the pixels.
    assert np.mean(one == two) < 0.1


def test_a_frame_does_not_depend_on_how_many_others_are_written(written, tmp_path):
    root, _ = written
    night(tmp_path, n_bias=1, n_flats=1, n_darks=0)
    for name in ("Bias/Bias-0001.fit", "Flat/Flat-0001V.fit"):
        path = f"data/20251014/{name}"
        assert np.array_equal(fits.getdata(root / path), fits.getdata(tmp_path / path))


def test_the_truth_survives_its_file(written):
    root, truth = written
    assert read_truth(root / "truth" / "20251014.json") == truth
    plain = json.loads((root / "truth" / "20251014.json").read_text())
    assert plain["transform"]["Tv_bv"] == -0.06


# ------------------------------------------------------------------------------------------- truth


def test_positions_are_those_of_the_wcs_that_the_truth_gives(written):
    """An astropy WCS made from the stored cards alone; 25.8 years of 12.34, -7.89 mas included."""
    _, truth = written
    field = a_field()
    for frame in truth.frames:
        wcs = WCS(fits.Header(frame.wcs))
        for comp in field.comps:
            x, y = wcs.all_world2pix(comp.ra_deg, comp.dec_deg, 0)
            assert frame.stars_xy[comp.auid] == pytest.approx((float(x), float(y)), abs=1e-6)
        years = 2000.0 + (frame.jd_utc - 2451545.0) / 365.25 - 2000.0
        star = field.variable
        x, y = wcs.all_world2pix(
            star.ra_deg + 12.34e-3 / 3600 * years / np.cos(np.radians(star.dec_deg)),
            star.dec_deg - 7.89e-3 / 3600 * years,
            0,
        )
        assert frame.stars_xy[star.auid] == pytest.approx((float(x), float(y)), abs=1e-6)


def test_the_field_drifts_and_turns_as_told(tmp_path):
    conditions = Conditions(
        drift_px_hour=(12.0, -6.0), jitter_px=0.0, rotation_deg_hour=0.5, cosmic_rays_mpx_minute=0
    )
    truth = night(
        tmp_path,
        filters=("V",),
        n_bias=0,
        n_flats=0,
        n_darks=0,
        cadence_s=3600.0,
        conditions=conditions,
    )
    first, second = truth.frames
    assert second.jd_utc - first.jd_utc == pytest.approx(1 / 24, abs=1e-8)
    wcs = WCS(fits.Header(first.wcs))
    moved = wcs.all_world2pix(second.wcs["CRVAL1"], second.wcs["CRVAL2"], 0)
    # The field moves by +12, -6: the frame's centre looks 12 px left and 6 px up of its old place.
    assert np.array(moved) == pytest.approx([159.5 - 12, 127.5 + 6], abs=1e-3)
    angle = [np.degrees(np.arctan2(f.wcs["CD1_2"], f.wcs["CD2_2"])) for f in truth.frames]
    assert angle[1] - angle[0] == pytest.approx(0.5, abs=1e-6)


def turned_deg(truth):
    """Return by how much each frame is turned against the first."""
    angle = [np.degrees(np.arctan2(f.wcs["CD1_2"], f.wcs["CD2_2"])) for f in truth.frames]
    return np.array(angle) - angle[0]


FEW = {"filters": ("V",), "n_bias": 0, "n_flats": 0, "n_darks": 0, "cadence_s": 3600.0}


def test_after_a_meridian_flip_the_field_stands_on_its_head(tmp_path):
    conditions = Conditions(rotation_deg_hour=0.0, flip_after_hours=1.5)
    truth = night(tmp_path, n_lights=3, conditions=conditions, **FEW)
    assert np.abs(turned_deg(truth)) == pytest.approx([0.0, 0.0, 180.0], abs=1e-6)


def test_without_a_third_axis_the_field_turns_as_the_zenith_does(tmp_path):
    """By the parallactic angle of the textbooks; precession counts so near the zenith."""
    conditions = Conditions(rotation_deg_hour=0.0, altazimuth=True)
    truth = night(tmp_path, n_lights=3, conditions=conditions, **FEW)
    field = a_field()
    jd_utc = [frame.jd_utc for frame in truth.frames]
    angle = parallactic_angle_deg(jd_utc, SITE, field.ra_deg, field.dec_deg)
    assert abs(angle[2] - angle[0]) > 10.0
    assert turned_deg(truth) == pytest.approx(angle - angle[0], abs=0.1)


def test_only_the_lights_that_trail_do(tmp_path):
    conditions = Conditions(trails_px={2: (9.0, 0.0)}, seeing_rms=0.0)
    truth = night(tmp_path, n_lights=2, conditions=conditions, **FEW)
    still = night(tmp_path / "still", n_lights=2, conditions=Conditions(seeing_rms=0.0), **FEW)
    frames = [
        [fits.getdata(root / "data" / one.night / frame.file).astype(float) for frame in one.frames]
        for root, one in ((tmp_path, truth), (tmp_path / "still", still))
    ]
    assert (frames[0][0] == frames[1][0]).all()
    x, y = (round(place) for place in truth.frames[1].stars_xy[truth.variable_auid])
    assert frames[0][1][y, x] < 0.6 * frames[1][1][y, x]


def test_the_frames_hold_the_light_that_the_truth_says(tmp_path):
    """T1 in a 31 px box against the local sky, without flat-field structure, in its own noise."""
    scope = Telescope(
        width_px=320,
        height_px=256,
        vignetting=0.0,
        pixel_response_rms=0.0,
        dead_fraction=0.0,
        hot_fraction=0.0,
        bias_column_adu=0.0,
        passbands=tuple(dataclasses.replace(passband, dust=0) for passband in BESSELL),
    )
    field = random_field(5, telescope=scope, n_stars=1, n_comps=8)
    truth = simulate_night(
        tmp_path,
        field=field,
        telescope=scope,
        date=DATE,
        site=SITE,
        seed=3,
        filters=("B", "V"),
        n_lights=4,
        n_bias=0,
        n_flats=0,
        conditions=STILL,
    )
    for frame in truth.frames:
        counts = fits.getdata(tmp_path / "data" / truth.night / frame.file).astype(float)
        x, y = (round(value) for value in frame.stars_xy[truth.variable_auid])
        box = counts[y - 15 : y + 16, x - 15 : x + 16]
        ring = counts[y - 22 : y + 23, x - 22 : x + 23].copy()
        ring[7:38, 7:38] = np.nan
        net_e = (box.sum() - np.nanmean(ring) * box.size) * scope.gain_e_adu
        # Noise of 961 pixels and of the sky they are compared with, and of the star.
        n_ring = np.isfinite(ring).sum()
        pixel_variance = frame.sky_e_px + scope.read_noise_e**2
        sigma = np.sqrt(frame.t1_e + box.size * pixel_variance * (1 + box.size / n_ring))
        assert abs(net_e - frame.t1_e) < 4 * sigma + 0.002 * frame.t1_e


def test_a_constant_star_fades_by_the_extinction(tmp_path):
    """k of 0.21 mag per airmass between two airmasses, and nothing else."""
    truth = night(
        tmp_path,
        field=a_field(light_curve=LightCurve(shape=Shape.CONSTANT)),
        filters=("V",),
        n_bias=0,
        n_flats=0,
        n_darks=0,
        cadence_s=2.5 * 3600.0,
        conditions=STILL,
    )
    first, last = truth.frames
    assert first.airmass - last.airmass > 0.1
    fading = -2.5 * np.log10(last.t1_e / first.t1_e)
    assert fading == pytest.approx(0.21 * (last.airmass - first.airmass), abs=1e-9)


def test_a_long_exposure_averages_flux_not_magnitudes():
    """Over a whole period of a sine of 1 mag the mean flux beats the mean magnitude.

    By hand: <10^(-0.2 (1 - cos))> = e^-0.4605 I0(0.4605) = 0.63095 * 1.05373, or 0.4432 mag.
    """
    curve = LightCurve(shape=Shape.SINE, period_d=0.1, mag_bright=12.0, amplitude_mag=1.0)
    field = a_field(light_curve=curve)
    assert mean_mags(field, 2460000.5, 8640.0)["V"] == pytest.approx(12.4432, abs=2e-3)
    still = mean_mags(field, 2460000.5, 1e-3)["V"]
    assert still == pytest.approx(float(curve.mag(np.array(2460000.5), "V")), abs=1e-6)


def test_scintillation_is_off_unless_asked_for(tmp_path):
    quiet = night(tmp_path / "a", n_bias=0, n_flats=0, n_darks=0)
    loud = night(
        tmp_path / "b", n_bias=0, n_flats=0, n_darks=0, conditions=Conditions(scintillation=True)
    )
    name = f"data/{quiet.night}/{quiet.frames[0].file}"
    assert not np.array_equal(
        fits.getdata(tmp_path / "a" / name), fits.getdata(tmp_path / "b" / name)
    )
    assert quiet.frames[0].t1_e == loud.frames[0].t1_e


def test_scintillation_by_hand():
    """0.25 m, 40 s, X 1.2, 800 m: 4.743e-3 · 2.51984 / 6.32456 · 1.31453 · 0.904837."""
    sigma = scintillation(Telescope(aperture_m=0.25), 1.2, 40.0, 800.0)
    assert sigma == pytest.approx(2.2477e-3, rel=1e-4)


def test_two_stars_do_not_twinkle_alike(tmp_path):
    """Bright stars through a 2 cm telescope: about 3 % each, no two alike."""
    tiny = dataclasses.replace(SCOPE, aperture_m=0.02)
    conditions = dataclasses.replace(STILL, scintillation=True)
    common = {"filters": ("V",), "n_bias": 0, "n_flats": 0, "n_darks": 0, "n_lights": 30}
    common |= {"telescope": tiny, "field": a_field(), "exposure_s": 5.0}
    truth = night(tmp_path, conditions=conditions, **common)
    runs = {auid: [] for auid in truth.comps}
    for frame in truth.frames:
        counts = fits.getdata(tmp_path / f"data/{truth.night}/{frame.file}").astype(float)
        for auid, run in runs.items():
            x, y = (round(value) for value in frame.stars_xy[auid])
            box = counts[max(y - 6, 0) : y + 7, max(x - 6, 0) : x + 7]
            run.append(np.sum(box - np.median(counts)) if box.size == 169 else np.nan)
    light = np.array([run for run in runs.values() if np.isfinite(run).all()])
    bright = light[np.argsort(light.mean(axis=1))[-4:]]
    relative = bright / bright.mean(axis=1, keepdims=True)
    sigma = scintillation(tiny, truth.frames[0].airmass, 5.0, SITE.elevation_m)
    assert np.median(relative.std(axis=1)) == pytest.approx(sigma, rel=0.3)
    alike = np.corrcoef(relative)[np.triu_indices(4, 1)]
    assert np.abs(np.mean(alike)) < 0.3  # six of rms 0.18


def test_exposures_may_differ_by_filter_and_directories_by_name(tmp_path):
    truth = night(
        tmp_path,
        exposure_s={"B": 90.0, "V": 40.0},
        night_directory="1-20251014",
        target_directory="v_target 'x'",
        n_bias=0,
        n_flats=0,
        n_darks=0,
    )
    assert [frame.exposure_s for frame in truth.frames] == [90.0, 40.0, 90.0, 40.0]
    assert truth.of_filter("V") == truth.frames[1::2]
    assert (tmp_path / "data/1-20251014/Light/v_target 'x'/v_target__x_-0001B.fit").exists()
    assert (tmp_path / "truth/1-20251014.json").exists()
