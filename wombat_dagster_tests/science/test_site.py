"""The site: configured, or out of a header whose longitude has an unknown sign."""

import numpy as np
import pytest

from wombat_dagster.domain import BadSite, NoSite, Site
from wombat_dagster.science.site import choose_site, sky_at
from wombat_dagster.science.timing import frame_times

# Two real headers (see shared data README): both count longitude positive to the west.
MICROOBSERVATORY = Site(latitude_deg=31.68, longitude_deg=110.88, source="header")
WALLACE = Site(
    latitude_deg=42 + 36 / 60 + 36 / 3600, longitude_deg=71 + 29 / 60 + 6 / 3600, source="header"
)
HAT_P_32 = {"ra_deg": 31.04271, "dec_deg": 46.68785}
LUXEMBOURG = {
    "ra_deg": 15 * (4 + 12 / 60 + 12.262 / 3600),
    "dec_deg": 22 + 53 / 60 + 1.76 / 3600,
}
WALLACE_START, WALLACE_AIRMASS = ["2018-10-13T02:03:10.984"], [2.83]


def test_microobservatory_stands_in_arizona_because_the_star_is_up_there():
    site = choose_site(None, MICROOBSERVATORY, ["2017-12-20T01:33:43.317"], [60.0], **HAT_P_32)
    assert (site.latitude_deg, site.longitude_deg) == (31.68, -110.88)
    assert "west" in site.source


def test_wallace_stands_in_massachusetts_because_header_airmass_says_so():
    """The target is up from either longitude; AIRMASS 2.83 at exposure start fits the west."""
    site = choose_site(
        None, WALLACE, WALLACE_START, [180.0], **LUXEMBOURG, airmass_header=WALLACE_AIRMASS
    )
    assert site.longitude_deg == -WALLACE.longitude_deg


def test_a_longitude_that_fits_either_way_is_not_guessed():
    with pytest.raises(NoSite, match=r"either sign.*71\.48"):
        choose_site(None, WALLACE, WALLACE_START, [180.0], **LUXEMBOURG)


def test_an_airmass_that_fits_neither_sign_is_badsite_with_numbers():
    with pytest.raises(BadSite, match=r"off by 10\.\d%.*off by 4\d\.\d%"):
        choose_site(None, WALLACE, WALLACE_START, [180.0], **LUXEMBOURG, airmass_header=[1.5])


def test_airmasses_that_say_not_known_do_not_count():
    for unknown in ([None], [0.0], [-1.0], [float("nan")]):
        with pytest.raises(NoSite, match="no header airmass"):
            choose_site(None, WALLACE, WALLACE_START, [180.0], **LUXEMBOURG, airmass_header=unknown)


def test_a_header_site_counts_only_with_the_target_above_10_degrees_in_every_frame():
    """HAT-P-32 sets to 8 degrees in Arizona at 11 UT; with the other sign it is lower or higher."""
    starts = ["2017-12-20T01:33:43", "2017-12-20T11:00:00"]
    site = Site(latitude_deg=31.68, longitude_deg=-110.88)
    lowest = frame_times(starts, [60.0, 60.0], **HAT_P_32, site=site).altitude_deg.min()
    assert 0 < lowest < 10
    with pytest.raises(BadSite, match="above 10 deg"):
        choose_site(None, MICROOBSERVATORY, starts, [60.0, 60.0], **HAT_P_32)


def test_the_configuration_wins_over_the_header():
    configured = Site(latitude_deg=31.68, longitude_deg=-110.88, elevation_m=1268.0)
    start = ["2017-12-20T01:33:43.317"]
    assert choose_site(configured, WALLACE, start, [60.0], **HAT_P_32) == configured


def test_a_configured_site_with_the_target_below_the_horizon_is_badsite():
    wrong_sign = Site(latitude_deg=31.68, longitude_deg=110.88)
    starts = ["2017-12-20T01:33:43.317", "2017-12-20T02:33:43.317"]
    with pytest.raises(BadSite, match=r"site or time wrong.*configuration.*-10\.8 deg"):
        choose_site(wrong_sign, None, starts, [60.0, 60.0], **HAT_P_32)


def test_no_site_anywhere_is_nosite():
    for nothing in (None, Site(latitude_deg=0.0, longitude_deg=0.0, source="header")):
        with pytest.raises(NoSite, match=r"no \[site\]"):
            choose_site(None, nothing, ["2017-12-20T01:33:43"], [60.0], **HAT_P_32)


def test_greenwich_needs_no_sign():
    greenwich = Site(latitude_deg=51.4769, longitude_deg=0.0005, source="header")
    start = ["2017-12-20T20:00:00"]
    assert choose_site(None, greenwich, start, [60.0], **HAT_P_32).longitude_deg == 0.0005


@pytest.mark.parametrize("moment", [0.0, 0.5, 1.0])
def test_header_airmass_may_be_of_start_middle_or_end(moment):
    """An hour low in the east: between start and end the airmass changes by a third."""
    site = Site(latitude_deg=31.68, longitude_deg=-110.88)
    star = {"ra_deg": 120.0, "dec_deg": 10.0}
    start, exposure = ["2017-12-20T04:00:00"], np.array([3600.0])
    meant = frame_times(start, 2 * moment * exposure, **star, site=site).airmass
    sky = sky_at(site, start, exposure, **star, airmass_header=list(meant))
    assert sky.airmass_departure == pytest.approx(0.0, abs=1e-9)
    assert (
        sky_at(site, start, exposure, **star, airmass_header=[3 * meant[0]]).airmass_departure > 0.2
    )


def test_a_small_longitude_is_decided_only_by_an_airmass_that_clearly_prefers_one_sign():
    """5 degrees east or west: both fit within 5 %, the header's airmass is that of the east."""
    east, west = (Site(latitude_deg=48.0, longitude_deg=sign * 5.0) for sign in (1, -1))
    star, start = {"ra_deg": 31.0, "dec_deg": 30.0}, ["2017-12-20T21:30:00"]
    airmass_east, airmass_west = (
        frame_times(start, [60.0], **star, site=site).airmass[0] for site in (east, west)
    )
    assert 0.03 < abs(airmass_east / airmass_west - 1) < 0.05
    header = Site(latitude_deg=48.0, longitude_deg=5.0, source="header")
    chosen = choose_site(None, header, start, [60.0], **star, airmass_header=[airmass_east])
    assert chosen.longitude_deg == 5.0
    chosen = choose_site(None, header, start, [60.0], **star, airmass_header=[airmass_west])
    assert chosen.longitude_deg == -5.0
    between = [(airmass_east + airmass_west) / 2]
    with pytest.raises(NoSite, match="either sign"):
        choose_site(None, header, start, [60.0], **star, airmass_header=between)
