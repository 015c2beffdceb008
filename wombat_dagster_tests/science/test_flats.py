import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import AltAz, EarthLocation, get_sun
from astropy.time import Time

from wombat_dagster.domain import Site, Sourced
from wombat_dagster.science import detector as cal
from wombat_dagster.science import flats
from wombat_dagster.science.flats import Twilight
from wombat_dagster.science.timing import stay_offline
from wombat_dagster.simulate.camera import expose, make_detector
from wombat_dagster.simulate.sky import Telescope


def test_a_master_flat_has_median_one_in_its_central_half_and_masks_dark_corners():
    flat = np.full((40, 40), 20000.0)
    flat[:2, :2] = 100.0
    flat[20, 20] = 24000.0
    normalised, unusable = flats.normalised_master_flat(flat)
    assert np.median(normalised[10:30, 10:30]) == 1.0
    assert normalised[20, 20] == np.float32(1.2)
    assert unusable.sum() == 4
    assert normalised[0, 0] == 1.0  # never divided by


def extremes(maximum, n, level=200.0):
    return cal.RawExtremes(maximum_adu=maximum, n_at_maximum=n, level_adu=level)


def refusal(level, saturation, *, maximum=65000.0):
    return flats.flat_refusal(
        extremes(maximum, 1, level), bias_level_adu=1000, saturation=saturation,
        min_fraction=0.05, max_fraction=0.95,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("level", "words"),
    [(30000.0, None), (64000.0, "64000 ADU, below"), (1100.0, "1100 ADU, at least")],
)
def test_flats_too_bright_or_too_dark_are_refused_with_their_level(level, words):
    found = refusal(level, Sourced(value=60000.0, source="header"))
    assert (found is None) if words is None else (words in found)


def test_a_flat_of_a_12_bit_camera_is_not_too_dark_for_a_range_nobody_stated():
    unknown = cal.saturation_of([], configured_adu=None, header_adu=None)
    assert unknown.value == cal.DEFAULT_SATURATION_ADU
    assert refusal(2048.0, unknown, maximum=3000.0) is None
    assert "1000 ADU, at least" in refusal(1000.0, unknown)  # no light


def test_a_flat_at_the_stop_of_its_camera_is_too_bright():
    """One alone by its own counts, the others by where they pile up."""
    unknown = cal.saturation_of([], configured_adu=None, header_adu=None)
    assert "highest count" in refusal(4095.0, unknown, maximum=4095.0)
    piled = cal.saturation_of(
        [extremes(4095.0, 9, 2000.0)] * 4, configured_adu=None, header_adu=None
    )
    assert piled.source == "pile-up at 4095.0 ADU"
    assert "below" in refusal(4000.0, piled, maximum=4095.0)
    assert refusal(2000.0, piled, maximum=4095.0) is None


# ----------------------------------------------------------------------------------- dusk and dawn

LA_SILLA = Site(latitude_deg=-29.26, longitude_deg=-70.73, elevation_m=2400.0)
CRACOW = Site(latitude_deg=50.05, longitude_deg=19.83, elevation_m=314.0)
SIDING_SPRING = Site(latitude_deg=-31.27, longitude_deg=149.06, elevation_m=1165.0)
ABERDEEN = Site(latitude_deg=57.15, longitude_deg=-2.1)

# Some twenty minutes after sunset and before sunrise, in UT.
EVENING_AND_MORNING = [
    pytest.param(LA_SILLA, "2025-12-16T00:02:00", "2025-12-15T09:10:00", id="Chile"),
    pytest.param(CRACOW, "2025-10-15T16:05:00", "2025-10-16T04:30:00", id="Europe"),
    pytest.param(SIDING_SPRING, "2025-06-21T07:35:00", "2025-06-21T20:40:00", id="Australia"),
]


def of_site(site, *starts, hint=None):
    return flats.twilights(starts, [5.0] * len(starts), configured=site, header_hint=hint)


@pytest.mark.parametrize(("site", "evening", "morning"), EVENING_AND_MORNING)
def test_dusk_and_dawn_are_told_apart_by_the_sun_at_the_site(site, evening, morning):
    """In Chile dusk lies past midnight UT, in Australia dusk and dawn on one UT day."""
    assert of_site(site, evening, morning) == (Twilight.DUSK, Twilight.DAWN)


@pytest.mark.parametrize(("site", "evening", "morning"), EVENING_AND_MORNING)
def test_a_header_longitude_of_either_sign_tells_the_same(site, evening, morning):
    for longitude_deg in (site.longitude_deg, -site.longitude_deg):
        hint = Site(latitude_deg=site.latitude_deg, longitude_deg=longitude_deg)
        found = of_site(None, evening, morning, hint=hint)
        assert found == (Twilight.DUSK, Twilight.DAWN)


@pytest.mark.parametrize("site", [LA_SILLA, CRACOW, SIDING_SPRING, ABERDEEN])
def test_the_sun_stands_where_astropy_has_it(site):
    """The Almanac's low-precision formulas, 0.01 degrees, against ERFA's Earth and rotation."""
    stay_offline()
    hours = np.linspace(0, 365.25 * 24 * 3, 400)
    times = Time("2024-01-01T00:00:00", scale="utc") + hours * u.hour
    place = EarthLocation.from_geodetic(site.longitude_deg * u.deg, site.latitude_deg * u.deg)
    truth = get_sun(times).transform_to(AltAz(obstime=times, location=place)).alt.deg
    altitude, rate = flats.sun_altitude_deg(list(times.isot), np.zeros(len(times)), site)
    assert np.abs(altitude - truth).max() < 0.03
    later = times + 1 * u.minute
    after = get_sun(later).transform_to(AltAz(obstime=later, location=place)).alt.deg
    assert np.abs(rate - (after - truth) * 60).max() < 0.3


def test_dome_flats_are_of_no_twilight():
    """At noon, at midnight, and in a northern midsummer night when the Sun stands at its lowest."""
    assert of_site(CRACOW, "2025-10-15T10:40:00", "2025-10-15T22:40:00") == (None, None)
    assert of_site(ABERDEEN, "2025-06-21T00:10:00") == (None,)
    assert of_site(ABERDEEN, "2025-06-20T22:00:00") == (Twilight.DUSK,)


def test_without_a_site_or_a_time_nothing_is_known():
    assert of_site(None, "2025-10-15T16:05:00") == (None,)
    assert of_site(CRACOW, None, "2025-10-15T16:05:00") == (None, Twilight.DUSK)
    assert of_site(CRACOW, None) == (None,)


def test_a_longitude_whose_signs_disagree_is_not_guessed():
    """At 90 degrees the one sign's dusk is the other one's dawn."""
    hint = Site(latitude_deg=0.0, longitude_deg=90.0)
    assert of_site(None, "2025-03-21T12:07:00", hint=hint) == (None,)
    assert of_site(hint, "2025-03-21T12:07:00") == (Twilight.DUSK,)


DUSK, DAWN = Twilight.DUSK, Twilight.DAWN


def test_flats_are_combined_apart_only_where_both_halves_are_enough():
    twilight = (DAWN, DUSK, DUSK, DAWN, DUSK, DAWN, None)
    assert flats.sets_of(range(6), twilight, min_frames=3) == (
        ([1, 2, 4], [0, 3, 5]), "flats: 3 dusk, 3 dawn, combined apart",
    )  # fmt: skip
    assert flats.sets_of([0, 1, 2, 4, 5], twilight, min_frames=3) == (
        ([0, 1, 2, 4, 5],), "flats: 3 dusk, 2 dawn, combined in one set",
    )  # fmt: skip
    sets, words = flats.sets_of(range(7), twilight, min_frames=3)
    assert len(sets) == 1
    assert words == "flats: 3 dusk, 3 dawn, 1 other, combined in one set"


def test_halves_count_by_their_light():
    """Three flats of 10000 and six of 20000 ADU: one part in five and four."""
    combined = flats.together([np.full((4, 4), 1.0), np.full((4, 4), 1.1)], [30000.0, 120000.0])
    assert combined == pytest.approx(np.full((4, 4), 1.08))


def test_halves_that_differ_by_a_percent_are_named_and_noise_is_not():
    rng = np.random.default_rng(1)
    dusk, dawn = 1 + rng.normal(0, 0.004, (2, 256, 320))
    assert flats.halves_difference(dusk, dawn) is None
    slope = np.linspace(-0.02, 0.02, 320)
    assert flats.halves_difference(dusk * (1 + slope), dawn).startswith(
        "dusk and dawn flats differ by 1.9%"
    )


# ---------------------------------------------------------------------------------- wrong filters

SCOPE = Telescope(width_px=320, height_px=256)


@pytest.fixture(scope="module")
def chip():
    return make_detector(SCOPE, ["B", "V"])


def signals(chip, filters, *, seed=1, slope=0.0):
    """Return flats without offset; the sky's slope differs from one to the next by `slope`."""
    rng = np.random.default_rng(seed)
    found = []
    for filter in filters:
        tilt = 1 + slope * rng.uniform(-1, 1) * np.linspace(-1, 1, 320)
        level_e = rng.uniform(20000, 40000)
        counts, _ = expose(chip, rng, level_e * tilt, filter=filter, exposure_s=3.0)
        found.append(counts - chip.bias_adu)
    return {i: flats.shape_of(signal) for i, signal in enumerate(found)}


def test_a_flat_through_another_filter_is_told_by_its_dust(chip):
    odd = flats.odd_shapes(signals(chip, "VVVBVV"))
    assert set(odd) == {3}
    assert odd[3].startswith("shape departs by 0.")
    assert odd[3].endswith(": another filter?")


@pytest.mark.parametrize("filters", ["VVV", "VVVVVVV"])
def test_flats_of_one_filter_pass_whatever_the_slope_of_the_sky(chip, filters):
    for seed in range(4):
        assert flats.odd_shapes(signals(chip, filters, seed=seed, slope=0.03)) == {}


@pytest.mark.parametrize("filters", ["VVBB", "VB", "VBVBVB"])
def test_never_half_of_the_flats_is_taken_for_wrong(chip, filters):
    assert flats.odd_shapes(signals(chip, filters)) == {}


def test_a_bright_star_in_one_flat_is_the_clips_business(chip):
    rng = np.random.default_rng(2)
    y, x = np.mgrid[:256, :320]
    shapes = {}
    for number in range(5):
        counts, _ = expose(chip, rng, 30000.0, filter="V", exposure_s=3.0)
        signal = counts - chip.bias_adu
        if number == 2:
            signal = signal + 20000 * np.exp(-((y - 90) ** 2 + (x - 200) ** 2) / 60)
        shapes[number] = flats.shape_of(signal)
    assert flats.odd_shapes(shapes) == {}


def test_a_flat_without_numbers_in_its_centre_is_refused():
    assert "no numbers" in refusal(float("nan"), Sourced(value=60000.0, source="header"))
