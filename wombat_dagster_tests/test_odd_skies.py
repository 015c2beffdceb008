"""Nights in which the stars do not stand still: each a simulated one, against its truth.

One night per trouble, taken in V and reduced by the pipeline's own stages, in process.
"""

import datetime as dt
import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
from astropy.io import fits

from wombat_dagster import config
from wombat_dagster.domain import Flag, FrameKind, Reduction, StandardMagnitudes, Unused
from wombat_dagster.observatory import Observatory
from wombat_dagster.reports.aij import format_table, read_table
from wombat_dagster.science.astrometry import separation_deg
from wombat_dagster.simulate.aavso import StandInAavso
from wombat_dagster.simulate.night import Conditions, NightTruth, observable_start, simulate_night
from wombat_dagster.simulate.sky import (
    Field,
    LightCurve,
    Shape,
    Star,
    Telescope,
    frame_wcs,
    mags_of_colour,
    random_field,
    write_star_table_csv,
)
from wombat_dagster.simulate.world import SITE, write_aavso_answers
from wombat_dagster.stages import (
    bad_pixels,
    choice,
    masters,
    photometry,
    reduction,
    sequence,
    solving,
    standard,
)

pytestmark = pytest.mark.slow
NIGHT = dt.date(2025, 10, 15)
N_LIGHTS = 12
MAX_OFF_PX = 0.3
TELESCOPE = Telescope(width_px=416, height_px=384)
STEADY = LightCurve(shape=Shape.CONSTANT, mag_bright=12.4, amplitude_mag=0.0)
TOML = """
[site]
latitude_deg = {site.latitude_deg}
longitude_deg = {site.longitude_deg}
elevation_m = {site.elevation_m}
[[instrument]]
aperture_m = {telescope.aperture_m}
read_noise_e = {telescope.read_noise_e}
transform = {{ Tv_bv = {telescope.tv_bv} }}
[[target]]
directory = ["SV Wom"]
colour = {{ "B-V" = {colour} }}
[astap]
program = "/nowhere/astap_cli"
[solve]
star_table = "stars.csv"
[aavso]
vsx_urls = ["{services.vsx_url}"]
vsp_urls = ["{services.vsp_url}"]
min_interval_s = 0
retries = 0
"""


@dataclass(frozen=True, kw_only=True)
class Night:
    """A reduced night beside its truth."""

    field: Field
    truth: NightTruth
    observatory: Observatory
    observation: object
    reduction: Reduction
    solutions: tuple
    candidates: object
    table: object
    magnitudes: StandardMagnitudes

    def measured_again(self, **settings):
        """Return (table, magnitudes) with other settings of ``[photometry]``."""
        changed = self.observatory.settings.photometry.model_copy(update=settings)
        observatory = Observatory(
            self.observatory.settings.model_copy(update={"photometry": changed})
        )
        return measured(
            observatory, self.observation, self.reduction, self.solutions, self.candidates
        )

    @property
    def statuses(self):
        return [solution.status.value for solution in self.solutions]

    def off_px(self, table=None):
        """Return how far the apertures are from the stars, (n_frames, n_stars)."""
        table = table or self.table
        auids = [star.auid or self.truth.variable_auid for star in table.stars]
        true = np.array([[f.stars_xy[auid] for auid in auids] for f in self.truth.frames])
        found = table.measured
        return np.hypot(found.x_px - true[..., 0], found.y_px - true[..., 1])

    def departures(self, magnitudes=None):
        """Return T1 less the truth in magnitudes, by frame."""
        magnitudes = magnitudes or self.magnitudes
        return magnitudes.t1_mag - np.array([f.t1_mags["V"] for f in self.truth.frames])

    def pulls(self, magnitudes=None):
        """Return the departures from their mean over the random errors."""
        departures = self.departures(magnitudes)
        n = len(departures)
        freed = np.sqrt(n / (n - 1))  # one mean taken out
        return (
            freed * (departures - departures.mean()) / (magnitudes or self.magnitudes).t1_random_mag
        )


def measured(observatory, observation, reduced, solved, candidates):
    table = photometry.measure_observation(observatory, observation, reduced, solved, candidates)
    found = standard.standard_magnitudes_of(observatory, observation, reduced, table)
    return table, found


def a_field(seed, *, n_comps=11):
    """Return a field; one of its comps has a close companion from 12 comps on."""
    return random_field(seed, telescope=TELESCOPE, n_stars=160, n_comps=n_comps, light_curve=STEADY)


def twinkling(**conditions):
    """Return conditions with the scintillation that the stated errors count."""
    return Conditions(scintillation=True, **conditions)


def reduced_night(root, field, conditions, *, spoil=None, start=None, toml=""):
    """Simulate a night in V, spoil raw frames (by their truth) if asked to, and reduce it."""
    truth = simulate_night(
        root, field=field, telescope=TELESCOPE, date=NIGHT, site=SITE, seed=field.seed,
        n_lights=N_LIGHTS, n_bias=5, n_flats=5, cadence_s=400.0, start=start,
        conditions=conditions,
    )  # fmt: skip
    if spoil is not None:
        spoil(root / "data" / truth.night, truth)
    write_star_table_csv(field, root / "stars.csv")
    write_aavso_answers(field, root / "aavso")
    with StandInAavso.from_directory(root / "aavso") as services:
        text = TOML.format(
            site=SITE, telescope=TELESCOPE, services=services, colour=STEADY.colours["B"]
        )
        (root / "wombat.toml").write_text(text + toml)
        observatory = Observatory(config.load(root / "wombat.toml"))
        observatory.scan()
        for kind in (FrameKind.BIAS, FrameKind.FLAT):
            masters.make_masters(observatory, NIGHT, kind)
        bad_pixels.make_bad_pixel_maps(observatory, NIGHT)
        (row,) = observatory.status.targets()
        observation = row.observation
        chosen = choice.choose_calibration(observatory, observation)
        reduced = reduction.reduce_observation(observatory, observation, chosen)
        solved = solving.solve_observation(observatory, observation, reduced)
        variable = sequence.find_variable(observatory, observation)
        candidates = sequence.choose_comps(observatory, observation, reduced, solved, variable)
        table, magnitudes = measured(observatory, observation, reduced, solved, candidates)
    return Night(
        field=field, truth=truth, observatory=observatory, observation=observation,
        reduction=reduced, solutions=solved, candidates=candidates, table=table,
        magnitudes=magnitudes,
    )  # fmt: skip


def is_well_measured(night):
    """Tell that every frame is solved and measured where the stars are, and rightly."""
    assert set(night.statuses) <= {"solved", "propagated"}
    assert len(night.table.labels) == N_LIGHTS
    assert night.off_px().max() < MAX_OFF_PX
    assert np.isfinite(night.table.measured.source_sky_adu[:, :2]).all()  # T1, T2
    assert night.magnitudes.held_reason is None
    assert abs(night.departures().mean()) < 3 * night.magnitudes.zp_err_mag
    pulls = night.pulls()
    assert 0.4 < np.std(pulls) < 1.65  # 12 frames: 3 sigma either way
    return True


# ------------------------------------------------------------------------------------ meridian flip


@pytest.fixture(scope="module")
def flipped(tmp_path_factory):
    conditions = twinkling(flip_after_hours=0.55, drift_px_hour=(25.0, -15.0))
    return reduced_night(tmp_path_factory.mktemp("flipped"), a_field(51), conditions)


def test_a_meridian_flip_loses_no_frame_and_no_star(flipped):
    assert is_well_measured(flipped)
    rotation_deg = np.array([one.solution.rotation_deg for one in flipped.solutions])
    assert np.ptp(rotation_deg[:5]) < 0.1
    assert np.ptp(rotation_deg[5:]) < 0.1
    assert rotation_deg[0] - rotation_deg[-1] == pytest.approx(180.0, abs=0.1)


def test_there_is_no_step_at_the_flip(flipped):
    """T1 lies on other pixels: what the flat leaves there, in each of the apertures, is allowed."""
    departures, random = flipped.departures(), flipped.magnitudes.t1_random_mag
    step = departures[5:].mean() - departures[:5].mean()
    n_px = math.pi * flipped.table.aperture.radius_px**2
    flat_mag = 1.0857 * flipped.table.flat_noise / math.sqrt(n_px / 2)  # half the pixels count
    error = math.hypot(np.mean(random) * math.sqrt(1 / 5 + 1 / 7), 2 * flat_mag)
    assert abs(step) < 3 * error < 0.01


# ----------------------------------------------------------------------------------- field rotation


@pytest.fixture(scope="module")
def turning(tmp_path_factory):
    """A mount without a third axis, the target passing near the zenith."""
    field = a_field(52)
    up = observable_start(NIGHT, SITE, field.ra_deg, field.dec_deg)
    return reduced_night(
        tmp_path_factory.mktemp("turning"), field, twinkling(altazimuth=True),
        start=up + dt.timedelta(minutes=85),
    )  # fmt: skip


def test_a_field_that_turns_by_ten_degrees_between_frames_is_solved_and_measured(turning):
    assert is_well_measured(turning)
    rotation_deg = np.unwrap([s.solution.rotation_deg for s in turning.solutions], period=360.0)
    assert np.ptp(rotation_deg) > 90.0
    assert np.abs(np.diff(rotation_deg)).max() > 10.0


# -------------------------------------------------------------------------------------------- drift


@pytest.fixture(scope="module")
def drifting(tmp_path_factory):
    conditions = twinkling(drift_px_hour=(-80.0, 70.0))
    return reduced_night(tmp_path_factory.mktemp("drifting"), a_field(53), conditions)


def test_a_drift_of_more_than_a_hundred_pixels(drifting):
    assert is_well_measured(drifting)
    x, y = drifting.table.measured.x_px[:, 0], drifting.table.measured.y_px[:, 0]
    assert np.hypot(np.ptp(x), np.ptp(y)) > 100.0


def test_comps_that_drift_off_the_frame_are_left_out_with_the_number_of_frames(drifting):
    left_out = [e for e in drifting.table.ledger if e.reason is Unused.OFF_IMAGE]
    some = [e for e in left_out if not e.detail.startswith(f"off {N_LIGHTS} of")]
    assert some
    assert all(f"of {N_LIGHTS} frames" in e.detail for e in left_out)


# ------------------------------------------------------------------------------------------- trails


TRAILS_PX = {4: (7.0, 3.0), 5: (7.0, 3.0), 9: (-3.0, 9.0), 10: (12.0, 0.0)}


@pytest.fixture(scope="module")
def trailed(tmp_path_factory):
    conditions = twinkling(trails_px=TRAILS_PX)
    return reduced_night(tmp_path_factory.mktemp("trailed"), a_field(54), conditions)


def test_trailed_frames_are_flagged_and_kept(trailed):
    assert is_well_measured(trailed)
    elongated = (trailed.table.measured.flags & Flag.ELONGATED) != 0
    assert (np.flatnonzero(elongated.all(axis=1)) + 1).tolist() == list(TRAILS_PX)
    assert (np.flatnonzero(elongated.any(axis=1)) + 1).tolist() == list(TRAILS_PX)
    assert "stars elongated (4 of 12 frames)" in trailed.magnitudes.notes
    t1_masked = (trailed.table.measured.flags[:, 0] & Flag.BAD_PIXEL) != 0
    assert [r for r, m in zip(trailed.magnitudes.proposed_rejected, t1_masked, strict=True)
            if r and not m] == []  # fmt: skip


def test_the_width_of_the_round_frames_makes_the_aperture(trailed):
    true_px = np.array([f.fwhm_px for f in trailed.truth.frames])
    kept = ~np.isin(np.arange(1, N_LIGHTS + 1), list(TRAILS_PX))
    assert trailed.table.frame_fwhm_px[kept] == pytest.approx(true_px[kept], rel=0.06)
    assert (trailed.table.frame_fwhm_px[~kept] > 1.25 * true_px[~kept]).all()
    assert trailed.table.aperture.radius_px == pytest.approx(1.7 * np.median(true_px), rel=0.08)


def test_frames_with_long_trails_spoil_no_other_frame(tmp_path):
    """On the longest, comps run into their neighbours, one by a quarter of a magnitude."""
    trails_px = {4: (25.0, 3.0), 5: (17.0, 13.0), 9: (-3.0, 35.0), 10: (20.0, 0.0)}
    night = reduced_night(tmp_path, a_field(34), twinkling(trails_px=trails_px))
    assert set(night.statuses) <= {"solved", "propagated"}
    magnitudes = night.magnitudes
    good = ~np.isin(np.arange(1, N_LIGHTS + 1), list(trails_px))
    assert not any(np.array(magnitudes.proposed_rejected)[good])
    assert (night.off_px()[good] < MAX_OFF_PX).all()
    assert magnitudes.t1_random_mag[good].max() < 1.1 * magnitudes.t1_random_mag.min()
    departures = night.departures() - night.departures()[good].mean()
    assert 0.3 < np.std((departures / magnitudes.t1_random_mag)[good]) < 1.8  # 8 frames: 3 sigma
    assert np.abs(departures[~good]).max() < 0.03
    assert abs(night.departures()[good].mean()) < 3 * magnitudes.zp_err_mag


# -------------------------------------------------------------------------------------- a fast star


@pytest.fixture(scope="module")
def fast(tmp_path_factory):
    """T1 moves by 4.0 arcsec a year; where the catalogue has it, another star stands now."""
    field = a_field(55)
    here = field.variable
    decoy = Star(ra_deg=0.0, dec_deg=0.0, mags=mags_of_colour(12.9, 0.6))
    years = 25.79  # from J2000.0 to the night
    pm_ra, pm_dec = 3300.0, -2300.0
    dec_deg = here.dec_deg - pm_dec / 3.6e6 * years
    ra_deg = here.ra_deg - pm_ra / 3.6e6 * years / math.cos(math.radians(dec_deg))
    variable = replace(
        here, ra_deg=round(ra_deg, 5), dec_deg=round(dec_deg, 5),
        pm_ra_mas_yr=pm_ra, pm_dec_mas_yr=pm_dec,
    )  # fmt: skip
    decoy = replace(decoy, ra_deg=variable.ra_deg, dec_deg=variable.dec_deg)
    field = replace(field, variable=variable, others=(*field.others, decoy))
    return reduced_night(tmp_path_factory.mktemp("fast"), field, twinkling())


def test_a_fast_star_is_measured_where_it_stands_on_the_night(fast):
    assert is_well_measured(fast)
    variable = fast.field.variable
    away_deg = separation_deg(
        fast.table.measured.ra_deg[:, 0], fast.table.measured.dec_deg[:, 0],
        variable.ra_deg, variable.dec_deg,
    )  # fmt: skip
    assert away_deg * 3600 == pytest.approx(25.79 * math.hypot(3.3, 2.3), abs=0.5)


def test_comps_do_not_move_with_the_variable(fast):
    known = {comp.auid: comp for comp in fast.field.comps}
    measured_at = fast.table.measured
    for index, star in enumerate(fast.table.stars[1:], start=1):
        truth = known[star.auid]
        away_deg = separation_deg(
            measured_at.ra_deg[:, index], measured_at.dec_deg[:, index],
            truth.ra_deg, truth.dec_deg,
        )  # fmt: skip
        assert (away_deg * 3600).max() < MAX_OFF_PX * TELESCOPE.scale_arcsec_px


# --------------------------------------------------------------------------------------- neighbours


RAYS = {8: 40_000}  # frame: ADU of a cosmic ray beside T1
LIMIT_PX = 0.5


def add_rays(night, truth):
    for index, adu in RAYS.items():
        frame = truth.frames[index]
        x, y = frame.stars_xy[truth.variable_auid]
        with fits.open(night / frame.file) as hdus:
            header, counts = hdus[0].header.copy(), hdus[0].data.astype(int)
        counts[round(y) + 2, round(x) + 2] += adu
        counts = np.clip(counts, 0, 65535).astype(np.uint16)
        fits.PrimaryHDU(counts, header).writeto(night / frame.file, overwrite=True)


@pytest.fixture(scope="module")
def beside(tmp_path_factory):
    """A star 1.5 mag brighter than T1 stands 7 pixels from it."""
    field = a_field(41)
    wcs = frame_wcs(TELESCOPE, ra_deg=field.ra_deg, dec_deg=field.dec_deg)
    x, y = wcs.all_world2pix(field.variable.ra_deg, field.variable.dec_deg, 0)
    ra, dec = wcs.all_pix2world(x + 5.6, y + 4.2, 0)
    neighbour = Star(
        ra_deg=float(ra), dec_deg=float(dec), mags=mags_of_colour(STEADY.mag_bright - 1.5, 0.6)
    )
    field = replace(field, others=(*field.others, neighbour))
    toml = f"[photometry]\nrecentre_limit_px = {LIMIT_PX}\n"
    return reduced_night(
        tmp_path_factory.mktemp("beside"), field, twinkling(), spoil=add_rays, toml=toml
    )


def test_recentring_does_not_jump_to_a_brighter_neighbour(beside):
    assert set(beside.statuses) <= {"solved", "propagated"}
    assert beside.off_px().max() < MAX_OFF_PX
    assert ((beside.table.measured.flags[:, 0] & Flag.BLENDED) != 0).all()
    assert "another star shines into T1's aperture (12 of 12 frames)" in beside.magnitudes.notes


@pytest.mark.parametrize("centroid", ["windowed", "howell"])
def test_a_centroid_beyond_the_limit_is_flagged_and_the_prediction_taken(beside, centroid):
    """The plain centre of gravity goes to the neighbour on every frame."""
    table, _ = beside.measured_again(centroid=centroid)
    off_centre = (table.measured.flags & Flag.OFF_CENTRE) != 0
    expected = set(RAYS) if centroid == "windowed" else set(range(N_LIGHTS))
    assert set(np.flatnonzero(off_centre[:, 0])) == expected
    assert not off_centre[:, 1:].any()
    assert beside.off_px(table)[sorted(expected), 0].max() < 0.05  # the plate solution's error


def test_with_the_limit_of_a_frame_s_own_width_a_ray_is_not_followed(beside):
    """It pulls the centroid farther than a star is wide: the prediction is taken, and flagged."""
    table, _ = beside.measured_again(recentre_limit_px=None)
    off_centre = np.flatnonzero(table.measured.flags[:, 0] & Flag.OFF_CENTRE)
    assert set(off_centre) == set(RAYS)
    assert beside.off_px(table)[:, 0].max() < MAX_OFF_PX


def test_without_recentring_the_predictions_are_measured(beside):
    for settings in ({"recentre_limit_px": 0.0}, {"centroid": "off"}):
        table, _ = beside.measured_again(**settings)
        assert not (table.measured.flags & Flag.OFF_CENTRE).any()
        assert beside.off_px(table)[:, 0].max() < 0.05
        assert beside.off_px(table).max() < 0.1  # the chart's places end at 0.01 s and 0.1"


# ------------------------------------------------------------------------------------------- seeing


@pytest.fixture(scope="module")
def blurring(tmp_path_factory):
    """The seeing doubles; a comp has a companion that only the first frames show."""
    conditions = twinkling(seeing_growth_hour=0.85, seeing_rms=0.02)
    return reduced_night(tmp_path_factory.mktemp("blurring"), a_field(36, n_comps=14), conditions)


def test_a_companion_that_only_the_sharpest_frame_shows_keeps_a_comp_out(blurring):
    assert is_well_measured(blurring)
    (crowded,) = [auid for auid, kinds in blurring.field.kinds.items() if "crowded" in kinds]
    (entry,) = [e for e in blurring.table.ledger if e.auid == crowded]
    assert entry.reason is Unused.CROWDED, entry.detail


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"follow_fwhm": True},
        {"aperture": "scan"},
        {"aperture": "snr"},
        {"aperture": "scan", "follow_fwhm": True},
    ],
    ids=["fixed", "following", "scan", "snr", "scan, following"],
)
def test_a_seeing_that_doubles_leaves_the_variable_flat(blurring, how):
    table, magnitudes = blurring.measured_again(**how)
    fwhm_px = np.array([f.fwhm_px for f in blurring.truth.frames])
    assert fwhm_px.max() / fwhm_px.min() > 1.9
    assert 0.4 < np.std(blurring.pulls(magnitudes)) < 1.65
    centred = fwhm_px - fwhm_px.mean()
    slope = centred @ blurring.departures(magnitudes) / (centred @ centred)
    slope_error = np.mean(magnitudes.t1_random_mag) / math.sqrt(centred @ centred)
    assert abs(slope) < 3 * slope_error
    columns = read_table(format_table(table)).columns
    assert ("FWHM_Mult" in columns) == ("follow_fwhm" in how)
    if "follow_fwhm" in how:
        multiple = table.radii_px[:, 0] / table.frame_fwhm_px
        assert multiple == pytest.approx(multiple[0], rel=1e-9)
        usual = table.aperture.radius_px / np.median(table.frame_fwhm_px)
        assert multiple[0] == pytest.approx(usual, rel=0.02)  # radii are in tenths of a pixel
    if "aperture" in how:
        assert table.scan is not None
        low, high = 0.8 * np.median(table.frame_fwhm_px), 2.5 * np.median(table.frame_fwhm_px)
        assert low - 1e-6 <= table.aperture.radius_px <= high + 1e-6


# --------------------------------------------------------------------------------- all of them


def test_the_scatter_of_odd_nights_is_the_random_error(flipped, turning, drifting, trailed, fast):
    """60 points: the sd of pulls is known to 9 %; three times that either way."""
    pulls = np.concatenate([n.pulls() for n in (flipped, turning, drifting, trailed, fast)])
    assert len(pulls) == 5 * N_LIGHTS
    assert 0.73 < np.std(pulls) < 1.27
