"""Plate solutions that frames bring along, in the dialects of the programs that write them.

Truth is astropy's reading of the same cards, or a solution of the synthetic sky.
"""

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from wombat_dagster.science.astrometry import separation_deg
from wombat_dagster.solvers.base import Reason, RungOptions
from wombat_dagster.solvers.existing import HeaderSolver, NoHeaderSolution, header_solution
from wombat_dagster.tangent import pixel_to_sky

SIZE = {"width_px": 900, "height_px": 700}
TURN = {"rotation_deg": 25, "east_px": 40, "north_px": 12}


def solve(sky, cards, **changes):
    stars = sky.detections(sky.wcs(**TURN))
    request = sky.request(stars, header=cards, **changes)
    return HeaderSolver().solve(request, RungOptions())


def tan_cards(sky, **aim):
    """Return the cards of a frame of `sky` as ASTAP and astrometry.net write them: CD matrix."""
    wcs = sky.wcs(**(TURN | aim))
    return {
        "CTYPE1": "RA---TAN", "CTYPE2": "DEC--TAN", "EQUINOX": 2000.0,
        "CRPIX1": 450.5, "CRPIX2": 350.5,
        "CRVAL1": float(wcs.wcs.crval[0]), "CRVAL2": float(wcs.wcs.crval[1]),
        **{f"CD{i + 1}_{j + 1}": float(wcs.wcs.cd[i, j]) for i in (0, 1) for j in (0, 1)},
    }  # fmt: skip


def astap(sky):
    """CDELT, CROTA and PC beside CD, which wins: here they say nonsense."""
    return tan_cards(sky) | {
        "CDELT1": 1.0, "CDELT2": 1.0, "CROTA1": 77.0, "CROTA2": 77.0, "CUNIT1": "deg",
        "CUNIT2": "DEGREES", "PLTSOLVD": True, "PC1_1": 0.5, "PC2_2": 0.5,
    }  # fmt: skip


def as_texts(sky):
    return {key: str(value) for key, value in tan_cards(sky).items()}


def maxim(sky):
    """CDELT and CROTA alone: x mirrored, y turned by 25 degrees."""
    cards = {key: value for key, value in tan_cards(sky).items() if not key.startswith("CD")}
    scale = sky.scale_arcsec_px / 3600.0
    return cards | {"CDELT1": -scale, "CDELT2": scale, "CROTA1": 25.0, "CROTA2": 25.0}


def siril(sky):
    """PC and CDELT, other axes' lonpole said aloud, a frame named."""
    cards = tan_cards(sky)
    scale = sky.scale_arcsec_px / 3600.0
    return {
        **{key: value for key, value in cards.items() if not key.startswith("CD")},
        **{f"PC{k[2:]}": value / scale for k, value in cards.items() if k.startswith("CD")},
        "CDELT1": scale, "CDELT2": scale, "RADESYS": "ICRS", "LONPOLE": 180.0,
    }  # fmt: skip


def junk_beside_it(sky):
    return tan_cards(sky) | {
        "OBJECT": "M 51", "CTYPE1A": "PIXEL", "CD1_1A": 7.0, "EPOCH": 2025.8, "NAXIS": 2,
        "RADESYS": "ICRS", "EQUINOX": "J2000", "WCSAXES": 3,
    }  # fmt: skip


@pytest.mark.parametrize("dialect", [tan_cards, astap, as_texts, maxim, siril, junk_beside_it])
def test_a_good_solution_is_honoured_checked_and_refined(sky, dialect):
    outcome = solve(sky, dialect(sky))
    assert outcome.reason is None, outcome.message
    assert sky.worst_error_px(outcome.solution, sky.wcs(**TURN)) < 0.2
    assert (outcome.solution.crpix_x, outcome.solution.crpix_y) == (450.5, 350.5)
    assert outcome.n_matched >= 0.7 * outcome.n_expected
    assert outcome.rms_px < 0.5
    assert outcome.database == "synthetic"
    assert "RA---TAN in the header, as TAN" in outcome.message


def test_a_reference_point_off_the_image_is_no_trouble(sky):
    """As SWarp and cut-outs of mosaics have it."""
    whole = WCS(fits.Header(tan_cards(sky)))
    ra, dec = whole.all_pix2world(-300, 1100, 1)
    cards = tan_cards(sky) | {
        "CRPIX1": -300.0, "CRPIX2": 1100.0, "CRVAL1": float(ra), "CRVAL2": float(dec),
        "RADESYS": "FK5",
    }  # fmt: skip
    truth = WCS(fits.Header(cards))
    request = sky.request(sky.detections(truth), header=cards)
    outcome = HeaderSolver().solve(request, RungOptions())
    assert sky.worst_error_px(outcome.solution, truth) < 0.2
    assert (outcome.solution.crpix_x, outcome.solution.crpix_y) == (450.5, 350.5)


SIP = {
    "A_ORDER": 3, "B_ORDER": 3, "A_2_0": 1e-5, "A_1_1": -4e-6, "A_3_0": 2e-8, "A_1_2": 2e-8,
    "B_0_2": -8e-6, "B_2_1": 2e-8, "B_0_3": 2e-8, "A_0_1": 1e-4,
}  # fmt: skip
TPV = {
    "PV1_0": 1e-4, "PV1_1": 1.001, "PV1_2": 2e-4, "PV1_7": 0.05, "PV1_4": 1e-3,
    "PV2_1": 0.999, "PV2_7": 0.04, "PV2_6": -2e-3,
}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "distortion", "as_what"),
    [
        ("-TAN-SIP", SIP, "TAN-SIP"),
        ("-TAN", SIP, "TAN-SIP"),
        ("-TAN-SIP", {}, "as TAN to"),
        ("-TPV", TPV, "TAN-SIP"),
        ("-TAN", TPV, "TAN-SIP"),
        ("-ZPN", {"PV2_1": 1.0, "PV2_3": -0.4}, "TAN-SIP"),
        ("-SIN", {}, "TAN-SIP"),
        ("-STG", {}, "TAN-SIP"),
    ],
    ids=["SIP", "SIP unsaid", "SIP said, not there", "TPV", "SCAMP", "ZPN", "SIN", "STG"],
)
def test_any_projection_becomes_ours_to_a_tenth_of_a_pixel(sky_at, kind, distortion, as_what):
    sky = sky_at(1, scale_arcsec_px=20.0)  # 5 degrees wide
    stem = kind.lstrip("-")
    cards = tan_cards(sky) | {"CTYPE1": f"RA---{stem}", "CTYPE2": f"DEC--{stem}"} | distortion
    solution, words = header_solution(cards, **SIZE)
    assert as_what in words
    truth = fits.Header(cards)
    if stem == "TAN" and "A_ORDER" in distortion:
        truth["CTYPE1"], truth["CTYPE2"] = "RA---TAN-SIP", "DEC--TAN-SIP"
    if stem == "TAN-SIP" and not distortion:
        truth["CTYPE1"], truth["CTYPE2"] = "RA---TAN", "DEC--TAN"
    if stem == "TAN" and "PV1_1" in distortion:
        truth["CTYPE1"], truth["CTYPE2"] = "RA---TPV", "DEC--TPV"
    x, y = (axis.ravel() for axis in np.meshgrid(np.linspace(0, 899, 23), np.linspace(0, 699, 19)))
    true_places = WCS(truth).all_pix2world(x, y, 0)
    off_deg = separation_deg(*pixel_to_sky(solution, x, y), *true_places)
    assert off_deg.max() * 3600 / 20.0 < 0.1


@pytest.mark.parametrize(("ra", "dec"), [("GLON-TAN", "GLAT-TAN"), ("DEC--TAN", "RA---TAN")])
def test_galactic_axes_and_axes_the_other_way_round_are_read(sky, ra, dec):
    from astropy.coordinates import SkyCoord

    cards = tan_cards(sky) | {"CTYPE1": ra, "CTYPE2": dec, "CRVAL1": 40.0, "CRVAL2": 30.0}
    solution, _ = header_solution(cards, **SIZE)
    centre = {
        "GLON-TAN": SkyCoord(40, 30, frame="galactic", unit="deg").icrs,
        "DEC--TAN": SkyCoord(30, 40, unit="deg"),
    }[ra]
    off = separation_deg(solution.ra_deg, solution.dec_deg, centre.ra.deg, centre.dec.deg)
    assert off * 3600 < 0.05


def test_old_equinoxes_are_precessed(sky):
    """B1950 (0, 0) is (0.64069, 0.27841) in J2000 (Seidelmann 1992: 0h 2m 33.77s, +16' 42.2")."""
    cards = tan_cards(sky) | {"CRVAL1": 0.0, "CRVAL2": 0.0, "EQUINOX": 1950.0, "RADESYS": "FK4"}
    solution, _ = header_solution(cards, **SIZE)
    assert (solution.ra_deg, solution.dec_deg) == pytest.approx((0.64069, 0.27841), abs=1e-4)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"CTYPE1": None, "CTYPE2": None}, "no plate solution in the header"),
        ({"CTYPE1": "LINEAR", "CTYPE2": "LINEAR"}, "no plate solution in the header"),
        ({"CTYPE1": "RA---TNX", "CTYPE2": "DEC--TNX"}, "WAT cards"),
        ({"CTYPE2": "GLAT-TAN"}, "header cannot be"),
        ({"CRVAL1": None}, "lacks CRVAL1"),
        ({"CRVAL1": "12:34:56"}, "CRVAL1 = '12:34:56' in the header is no number"),
        ({"CRVAL2": 140.0}, "header"),
        ({"CD1_1": float("nan")}, "CD1_1 = nan"),
        ({"CD1_1": 0.0, "CD1_2": 0.0}, "header cannot be"),
        ({f"CD{i}_{j}": None for i in (1, 2) for j in (1, 2)}, "lacks CD1_1 or CDELT1"),
        ({"PLTSOLVD": False}, "PLTSOLVD = F"),
        ({"PLTSOLVD": "F"}, "PLTSOLVD = F"),
        ({"A_ORDER": 9, "B_ORDER": 9, "A_9_0": 1e-20, "A_2_0": 1e-2}, "header"),
    ],
)
def test_what_is_no_solution_is_told_and_never_raised(sky, change, words):
    cards = {key: value for key, value in (tan_cards(sky) | change).items() if value is not None}
    outcome = solve(sky, cards)
    assert outcome.solution is None
    assert outcome.reason is Reason.NO_MATCH
    assert words in outcome.message


@pytest.mark.parametrize("cards", [None, {}, {"SIMPLE": True}])
def test_a_frame_without_any_says_so(sky, cards):
    outcome = solve(sky, cards)
    assert (outcome.solution, outcome.reason) == (None, Reason.NO_MATCH)


@pytest.mark.parametrize("off_px", [13.5, 900.0], ids=['27"', "half a degree"])
def test_a_wrong_solution_is_rejected_with_numbers(sky, off_px):
    """27" is what ASTAP's false solution was off, half a degree what a mount may be."""
    outcome = solve(sky, tan_cards(sky, north_px=12 + off_px))
    assert (outcome.solution, outcome.reason) == (None, Reason.NO_MATCH)
    found, expected = map(int, outcome.message.split("but only ")[1].split()[0:3:2])
    assert found < 0.3 * expected
    assert expected > 20


def test_where_nothing_is_known_the_solution_comes_unchecked_and_says_so(sky, sky_at):
    for table in (None, sky_at(3, ra_deg=200.0).table):
        outcome = solve(sky, tan_cards(sky), star_table=table)
        assert sky.worst_error_px(outcome.solution, sky.wcs(**TURN)) < 0.05
        assert outcome.n_matched is None
        assert "not checked" in outcome.message


def test_the_message_names_what_was_found_and_how_well_it_was_translated(sky):
    with pytest.raises(NoHeaderSolution, match="CTYPE"):
        header_solution({}, **SIZE)
    _, words = header_solution(tan_cards(sky), **SIZE)
    assert words.startswith("RA---TAN in the header, as TAN to ")
