"""The air that standard stars were measured through, where second-order extinction is known."""

from types import SimpleNamespace

import pytest

from wombat_dagster.config import Settings
from wombat_dagster.stages.transform import NoTransform, _colour_extinction

CENTRE = (132.85, 11.8)  # M67


def filters(*airmass_header, band="B"):
    """Return one filter's frames of 2025-01-16, which name no site."""
    frames = [
        SimpleNamespace(
            start_utc="2025-01-16T00:00:00", exposure_s=60.0, site_hint=None, airmass_header=one
        )
        for one in airmass_header
    ]
    group = SimpleNamespace(camera="QHY 600")
    return [
        SimpleNamespace(
            band=band,
            reduction=SimpleNamespace(group=group),
            solved=[(frame, None, None) for frame in frames],
        )
    ]


def observatory(site=None, **k2):
    return SimpleNamespace(
        settings=Settings(instrument=[{"camera": "QHY", "extinction_colour": k2}], site=site)
    )


def test_the_airmass_is_computed_where_the_site_is_known():
    """By hand: sidereal time 8h11.5 at 8 deg E, hour angle -10 deg, cos z 0.8070, 1.239."""
    site = {"latitude_deg": 47.0, "longitude_deg": 8.0, "elevation_m": 400.0}
    notes = []
    (found,) = _colour_extinction(
        observatory(site, B=-0.03), filters(9.0, 9.0), CENTRE, notes
    ).values()
    assert found == pytest.approx(-0.03 * 1.239, abs=0.00005)
    assert "taken out of the B coefficient of B-V: -0.030 at airmass 1.24" in notes[0]


def test_without_a_site_the_header_s_airmass_serves_and_without_both_it_is_refused():
    notes = []
    known = _colour_extinction(observatory(B=-0.03), filters(1.2, None, 1.4), CENTRE, notes)
    assert known == pytest.approx({"B": -0.039})
    assert "airmass 1.30, of the headers" in notes[0]
    with pytest.raises(NoTransform, match=r"says -0\.030 in B, and the airmass .* not known"):
        _colour_extinction(observatory(B=-0.03), filters(None), CENTRE, notes)


def test_a_camera_without_second_order_extinction_leaves_it_in_and_says_so():
    notes = []
    assert _colour_extinction(observatory(), filters(None), CENTRE, notes) == {}
    assert notes == ["the B coefficients hold the second-order extinction of this field"]
