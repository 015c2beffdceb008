"""Bands of header filters, the choice of comps, T2's score and the roles, worked out by hand."""

import math

import numpy as np
import pytest

from wombat_dagster import domain
from wombat_dagster.domain import Flag, Unused
from wombat_dagster.science import sequence

# ----------------------------------------------------------------------------------- bands


@pytest.mark.parametrize(
    ("header", "code", "comp_band", "confirmed"),
    [
        ("V", "V", "V", True),
        ("'V       '", "V", "V", True),
        ("Bessell V", "V", "V", True),
        ("johnson_b", "B", "B", True),
        ("R", "R", "Rc", False),  # Cousins, or the red of a set
        ("r", "SR", "SR", False),
        ("r'", "SR", "SR", True),
        ("rp", "SR", "SR", True),
        ("g’", "SG", "SG", True),
        ("SDSS g'", "SG", "SG", True),
        ("G", "TG", "V", False),
        ("g", "SG", "SG", False),
        ("Green", "TG", "V", True),
        ("Red", "TR", "Rc", True),
        ("i", "SI", "SI", False),
        ("I", "I", "Ic", False),
        ("Ic", "I", "Ic", True),
        ("B", "B", "B", False),
        ("L", "CV", "V", False),
        ("Luminance", "CV", "V", True),
        ("Lum", "CV", "V", False),
        ("Clear", "CV", "V", True),
        ("z", "SZ", "SZ", True),
        ("Sloan_z", "SZ", "SZ", True),
        ("Rc", "R", "Rc", True),
    ],
)
def test_header_filters_and_their_traps(header, code, comp_band, confirmed):
    assert sequence.band_of(header, {}) == (code, comp_band, confirmed)


def test_the_configuration_decides_and_confirms():
    assert sequence.band_of("R", {"R": "TR"}) == ("TR", "Rc", True)
    assert sequence.band_of(" slot 3 ", {"Slot 3": "V"}) == ("V", "V", True)
    # both spellings configured: the case decides
    assert sequence.band_of("r", {"R": "R", "r": "SR"})[0] == "SR"


@pytest.mark.parametrize(
    ("header", "overrides", "words"),
    [
        ("3", {}, 'filter "3" is no AAVSO band'),
        ("V", {"V": "Q"}, "set to Q"),
        ("Halpha", {}, "is HA, in which charts have no"),
    ],
)
def test_a_filter_without_comps_is_said_so(header, overrides, words):
    with pytest.raises(sequence.UnknownFilter, match=words) as caught:
        sequence.band_of(header, overrides)
    assert caught.value.apphot == domain.Apphot.NOCOMPS


# ------------------------------------------------------------------------------ candidates

WIDTH, HEIGHT, SCALE_DEG = 1000, 800, 0.001  # px, px, deg per px: 1 x 0.8 deg
VARIABLE = domain.Variable(
    name="XY Tst", ra_deg=50.0, dec_deg=0.0, auid="000-VAR-001", mag_bright=10.0, mag_faint=11.0,
    mag_bright_band="V", mag_faint_band="V",
)  # fmt: skip


def solution(dx_px=0.0, dy_px=0.0):
    """North up, east left, the target at the centre of the frame, shifted by (dx, dy)."""
    return domain.WcsSolution(
        ra_deg=50.0, dec_deg=0.0, crpix_x=500.5 + dx_px, crpix_y=400.5 + dy_px,
        cd11=-SCALE_DEG, cd12=0.0, cd21=0.0, cd22=SCALE_DEG,
    )  # fmt: skip


FRAMES = [(f"f{i}.fits", solution()) for i in range(4)]


def comp(number, *, east=0.0, north=0.1, v=10.5, error=0.02, comment="", **bands):
    magnitudes = {"V": v} | bands
    return domain.CompStar(
        auid=f"000-TST-{number:03d}",
        label=f"{number}",
        ra_deg=50.0 + east,
        dec_deg=north,
        bands={b: domain.BandMagnitude(mag=m, error_mag=error) for b, m in magnitudes.items() if m},
        comment=comment,
    )


def select(
    *stars, variable=VARIABLE, frames=FRAMES, check=None, pins=(), comps=(), ban=(), **changes
):
    chart = domain.CompSequence(
        chart_id="X123", ra_deg=50.0, dec_deg=0.0, fov_arcmin=60.0, maglimit=16.5, stars=stars,
        fetched_utc="2025-10-15T00:00:00",
    )  # fmt: skip
    choices = sequence.PersonsChoices(
        check=check, pins=tuple(pins), comps=tuple(comps), ban=tuple(ban)
    )
    settings = {"header_filter": "V", "overrides": {}, "margin_px": 30.0, "choices": choices}
    settings |= changes
    return sequence.select_candidates(chart, variable, frames, WIDTH, HEIGHT, **settings)


def numbers(candidates):
    return [int(star.auid[-3:]) for star in candidates.ranked]


def reasons(candidates):
    return {int(entry.auid[-3:]): entry.reason for entry in candidates.ledger}


def test_the_window_reaches_a_magnitude_and_a_half_beyond_the_range():
    """[10 − 1.5, 11 + 1.5], ends included."""
    mags = [8.499, 8.5, 12.5, 12.501]
    got = select(*(comp(i, v=mag) for i, mag in enumerate(mags)))
    assert sorted(numbers(got)) == [1, 2]
    assert reasons(got) == {0: Unused.TOO_BRIGHT, 3: Unused.TOO_FAINT}
    assert got.ledger[0].detail == "V 8.499, window 8.50 to 12.50"


def test_the_literal_window_is_the_owners_sentence():
    """[11 − 1.5, 10 + 1.5]; for an amplitude above 3 it is empty."""
    stars = [comp(i, v=mag) for i, mag in enumerate([9.4, 9.5, 11.5, 11.6])]
    assert sorted(numbers(select(*stars, window="literal"))) == [1, 2]
    wide = domain.Variable(name="SS Cyg", ra_deg=50.0, dec_deg=0.0, mag_bright=8.0, mag_faint=12.0)
    with pytest.raises(domain.NoComps, match="none of 4 stars of chart X123"):
        select(*stars, variable=wide, window="literal")


def variable(**changes):
    values = {name: getattr(VARIABLE, name) for name in VARIABLE.__slots__}
    return domain.Variable(**values | changes)


@pytest.mark.parametrize(
    ("changes", "mags_in", "mags_out"),
    [
        ({"mag_bright_band": "Hp"}, [8.0], [7.99]),
        ({"mag_faint_band": "TESS"}, [13.0], [13.01]),
        ({"mag_bright_band": "CV", "mag_faint_band": "g"}, [8.5, 12.5], [8.4, 12.6]),
        ({"mag_faint": None}, [8.5, 12.0], [8.4, 12.1]),  # faint = bright + 0.5
        ({"mag_bright": None}, [], []),
    ],
)
def test_the_window_widens_where_magnitudes_do_not_compare(changes, mags_in, mags_out):
    stars = [comp(i, v=mag) for i, mag in enumerate([*mags_in, *mags_out, 10.5])]
    got = select(*stars, variable=variable(**changes))
    out = [i for i, reason in reasons(got).items() if reason]
    assert out == list(range(len(mags_in), len(mags_in) + len(mags_out)))


def test_a_comp_without_v_is_compared_in_its_band_half_a_magnitude_wider():
    stars = [comp(i, v=None, Rc=mag) for i, mag in enumerate([7.99, 8.0, 13.0, 13.01])]
    got = select(*stars, header_filter="Rc")
    assert sorted(numbers(got)) == [1, 2]


def test_without_a_maximum_the_measured_magnitude_opens_the_window():
    stars = [comp(i, v=mag) for i, mag in enumerate([6.9, 7.0, 11.0, 11.1])]
    no_range = variable(mag_bright=None, mag_faint=None)
    got = select(*stars, variable=no_range, measured_mag=9.0)
    assert sorted(numbers(got)) == [1, 2]
    assert "comps within 2 mag of 9.00" in got.notes[0]
    assert "any magnitude" in select(*stars, variable=no_range).notes[0]


def test_the_variables_magnitude_by_the_chart_stars_around_it():
    """T1 half as bright as the star of 10.0: 10.753, by hand; the median shrugs off a bad one.

    Places by the frame of 0.001 deg per px, the target at (499.5, 399.5), east to the left.
    """
    found = detections(
        (499.5, 399.5, 500.0), (399.5, 399.5, 1000.0), (599.5, 399.5, 398.1), (499.5, 599.5, 10.0)
    )  # fmt: skip
    stars = [
        comp(1, east=0.1, north=0.0, v=10.0),
        comp(2, east=-0.1, north=0.0, v=11.0),
        comp(3, north=0.2, v=9.0),  # fainter in the frame than it is
        comp(4, north=-0.2, v=5.0),  # not detected
    ]
    arguments = {"fwhm_px": 3.0, "comp_band": "V"}
    got = sequence.measured_magnitude(found, solution(), (50.0, 0.0), stars, **arguments)
    assert got == pytest.approx(10.753, abs=2e-3)
    assert sequence.measured_magnitude(found, solution(), (50.1, 0.3), stars, **arguments) is None
    nobody = sequence.measured_magnitude(found, solution(), (50.0, 0.0), stars[3:], **arguments)
    assert nobody is None


def test_every_unused_star_has_its_one_reason():
    got = select(
        comp(1),
        comp(2, v=None, B=10.0),
        comp(3, north=0.0, east=2.9 / 3600),
        comp(4, comment="Eclipsing binary, do not use"),
        comp(5, comment="Suspected variable NSV 2386. Acceptable to use."),
        comp(6),
        comp(7, north=0.38),  # 20 px from the edge, 30 wanted
        comp(8, north=0.36),
        ban=["000-TST-006"],
    )
    assert sorted(numbers(got)) == [1, 5, 8]
    assert reasons(got) == {
        2: Unused.NO_BAND,
        3: Unused.IS_TARGET,
        4: Unused.VARIABLE,
        6: Unused.BANNED,
        7: Unused.OFF_IMAGE,
    }
    assert len(got.ledger) == 5
    assert {e.auid: e.detail for e in got.ledger}["000-TST-002"] == "no V, only B"


@pytest.mark.parametrize(
    ("comment", "variable"),
    [
        ("", False),
        ("Suspected variable NSV 2386. Acceptable to use.", False),  # chart X42585ESI (M 42)
        ("not variable", False),
        ("non-variable in ASAS", False),
        ("no variability found", False),
        ("Variable star!", True),
        ("var?", True),
        ("NSV 1234", True),
        ("various sources", False),
    ],
)
def test_comments_that_call_a_star_variable(comment, variable):
    assert sequence.calls_variable(comment) is variable


def test_the_persons_stars_go_before_the_window():
    stars = [comp(1), comp(2, v=14.0), comp(3, v=6.0), comp(4)]
    got = select(*stars, comps=["000-TST-001", "000-TST-002"], check="000-TST-003")
    assert numbers(got) == [3, 1, 2]
    assert reasons(got) == {4: Unused.BANNED}
    assert "000-TST-099, is not usable" in select(*stars, check="000-TST-099").notes[-1]


def test_a_pin_opens_the_window_for_one_star_and_shuts_nobody_out():
    stars = [comp(1), comp(2, v=14.0), comp(3, v=6.0), comp(4)]
    got = select(*stars, pins=["000-TST-002"])
    assert sorted(numbers(got)) == [1, 2, 4]
    assert reasons(got) == {3: Unused.TOO_BRIGHT}


def test_a_pinned_star_off_the_frame_or_without_the_band_has_its_reason():
    stars = [comp(1), comp(2, v=14.0, north=0.38), comp(3, v=None, B=10.0), comp(4)]
    pins = [f"000-TST-00{i}" for i in (2, 3)]
    assert reasons(select(*stars, pins=pins)) == {2: Unused.OFF_IMAGE, 3: Unused.NO_BAND}
    assert reasons(select(*stars, pins=pins, ban=pins))[2] is Unused.BANNED


# ----------------------------------------------------------------------------- known variables


def known(name, *, east=0.0, north=0.1, auid=None, kind="EA"):
    return domain.KnownVariable(
        name=name, ra_deg=50.0 + east, dec_deg=north, auid=auid, variability_type=kind
    )


def test_a_comp_that_vsx_lists_as_variable_is_refused_with_name_and_type():
    """4.9" and 5.1" from a listed star; VSX's own AUID needs no place."""
    got = select(
        comp(1, north=0.1 + 4.9 / 3600),
        comp(2, north=0.1 + 5.1 / 3600),
        comp(3, north=0.2),
        comp(4, north=0.3),
        known_variables=[
            known("AB Tst"),
            known("CD Tst", north=-0.2, auid="000-TST-003", kind="RRAB, suspected"),
            known("EF Tst", north=0.3, kind=None),
        ],
    )
    assert numbers(got) == [2]
    assert [(e.reason, e.detail) for e in got.ledger] == [
        (Unused.VARIABLE, 'AB Tst of VSX (EA) at 4.9"'),
        (Unused.VARIABLE, "CD Tst of VSX (RRAB, suspected)"),
        (Unused.VARIABLE, 'EF Tst of VSX (type not known) at 0.0"'),
    ]
    assert got.known_variables is not None
    assert [v.name for v in got.known_variables] == ["AB Tst", "CD Tst", "EF Tst"]


def test_what_the_chart_calls_acceptable_serves_although_vsx_lists_it():
    words = "Suspected variable NSV 2386. Acceptable to use."
    listed = [known("NSV 2386", kind="suspected")]
    assert numbers(select(comp(1, comment=words), known_variables=listed)) == [1]
    words = "NSV 2386, not acceptable to use"
    with pytest.raises(domain.NoComps, match="1 variable"):
        select(comp(1, comment=words), known_variables=listed)


def test_the_target_itself_is_no_variable_of_the_field():
    """Under its name, its AUID or at its place; its proper motion may have led it elsewhere."""
    itself = [
        known("XY Tst", north=0.1),
        known("other", north=0.1, auid="000-VAR-001"),
        known("third", north=2 / 3600),
    ]
    got = select(comp(1), comp(2, north=5 / 3600), known_variables=itself)
    assert got.known_variables == ()
    assert sorted(numbers(got)) == [1, 2]


def test_without_an_answer_of_vsx_the_comments_alone_decide():
    got = select(comp(1), comp(2, comment="var?"), known_variables=None)
    assert numbers(got) == [1]
    assert got.known_variables is None


def test_a_star_the_person_asks_for_serves_with_a_note_that_vsx_lists_it():
    got = select(comp(1), comp(2), pins=["000-TST-001"], known_variables=[known("AB Tst")])
    assert numbers(got) == [1]  # both stand at that place
    assert got.notes[-1] == (
        '000-TST-001, asked for by the observer, is AB Tst of VSX (EA) at 0.0"'
    )


def test_the_target_off_every_frame_is_off_image():
    with pytest.raises(domain.OffImage, match="none of 2 solved frames of 1000x800"):
        select(comp(1), frames=[("a", solution(dx_px=600)), ("b", solution(dy_px=-900))])


def test_a_frame_without_the_target_is_left_out():
    got = select(comp(1), frames=[*FRAMES, ("off.fits", solution(dx_px=600))])
    assert got.dropped_frames == ("off.fits",)
    assert numbers(got) == [1]


def test_an_empty_chart_has_no_comps():
    with pytest.raises(domain.NoComps, match=r"none of 0 stars of chart X123 .* chart is empty"):
        select()


def test_no_comps_counts_the_reasons():
    with pytest.raises(domain.NoComps, match=r"none of 3 .* in V: 2 too_bright, 1 too_faint"):
        select(comp(1, v=3.0), comp(2, v=4.0), comp(3, v=15.0))


def spread():
    """Ten comps in a row from south to north, 0.035 deg apart, the last 20 px inside the margin."""
    return [comp(i, north=-0.35 + 0.35 * i / 4.5 + 1e-4) for i in range(10)]


def test_a_frame_that_alone_costs_many_comps_is_left_out():
    """Shifted by 200 px it loses 3 of 10 comps; 40 frames would go with 7."""
    frames = [(f"f{i}", solution()) for i in range(40)]
    frames[17] = ("jump", solution(dy_px=200.0))
    got = select(*spread(), frames=frames)
    assert got.dropped_frames == ("jump",)
    assert len(got.ranked) == 10


def test_a_frame_that_costs_little_stays_and_the_comp_goes():
    """Shifted by 40 px it loses 1 of 10."""
    got = select(*spread(), frames=[*FRAMES, ("bit", solution(dy_px=40.0))])
    assert got.dropped_frames == ()
    assert reasons(got) == {9: Unused.OFF_IMAGE}
    assert got.ledger[0].detail == "off 1 of 5 frames (estimated margin 30.0 px)"


def test_at_most_a_twentieth_of_the_frames_is_left_out():
    """3 of 40 frames jump, 2 may go: the comps go instead, and no frame."""
    frames = [(f"f{i}", solution(dy_px=200.0 if i in (3, 9, 30) else 0.0)) for i in range(40)]
    got = select(*spread(), frames=frames)
    assert got.dropped_frames == ()
    assert len(got.ranked) == 7
    two = [(f"f{i}", solution(dy_px=200.0 if i in (3, 9) else 0.0)) for i in range(40)]
    assert select(*spread(), frames=two).dropped_frames == ("f3", "f9")


# ----------------------------------------------------------------------------------- score


def test_score_by_hand():
    """0.1 deg over a quarter of 0.8: 0.5; V 10.75 − 10.5 over 0.5: 0.5; B−V 0.9 − 0.6 over 0.3: 1.

    √(0.25 + 0.25 + 1) = 1.224745; without the colour √0.5; a poor error costs 1.
    """
    star = comp(1, v=10.75, B=11.65)
    terms = {"target_place": (50.0, 0.0), "short_side_deg": 0.8, "target_mag": 10.5}
    known = sequence.check_score(star, target_colour=0.6, comp_band="V", **terms)
    assert known == pytest.approx(math.sqrt(1.5), abs=1e-6)
    unknown = sequence.check_score(star, target_colour=None, comp_band="V", **terms)
    assert unknown == pytest.approx(math.sqrt(0.5), abs=1e-6)
    for error in (0.051, None):
        poor = comp(1, v=10.75, error=error)
        assert sequence.check_score(
            poor, target_colour=None, comp_band="V", **terms
        ) == pytest.approx(1 + math.sqrt(0.5), abs=1e-6)


def test_the_best_check_star_comes_first_and_ties_go_to_the_lower_auid():
    """The mid-point of 10 to 11 is 10.5."""
    got = select(comp(4, v=11.0), comp(3, v=10.5), comp(2, v=10.5), comp(1, v=10.4, north=0.3))
    assert numbers(got) == [2, 3, 4, 1]
    assert list(got.scores) == sorted(got.scores)


def test_stars_without_the_other_filters_bands_make_the_poorer_check():
    got = select(comp(1, v=10.5), comp(2, v=11.5, B=12.0), other_bands=["B"])
    assert numbers(got) == [2, 1]


def pointed(dx_px, dy_px, *, turn_deg=0.0, stretch=1.0):
    """A frame elsewhere: shifted, turned about the target and at another focus."""
    c, s = np.cos(np.radians(turn_deg)), np.sin(np.radians(turn_deg))
    scale = SCALE_DEG * stretch
    return domain.WcsSolution(
        ra_deg=50.0, dec_deg=0.0, crpix_x=500.5 + dx_px, crpix_y=400.5 + dy_px,
        cd11=-scale * c, cd12=scale * s, cd21=scale * s, cd22=scale * c,
    )  # fmt: skip


def test_nights_that_point_elsewhere_choose_the_same_check_star_in_any_order():
    """Forty nights up to 40 px off, turned, at other focus, with the star moving 3" a year.

    Stars 1 and 2 stand west and east of it, of scores 0.601 and 0.605; their order would change on
    the way if the score followed the star.
    """
    rng = np.random.default_rng(7)
    moving = variable(pm_ra_mas_yr=3000.0, pm_dec_mas_yr=-1000.0)
    stars = [
        comp(i + 3, east=x, north=y, v=10.5 + 6 * dv, B=11.2 + 6 * dv)
        for i, (x, y, dv) in enumerate(rng.uniform(-0.25, 0.25, (25, 3)))
        if np.hypot(x, y) > 0.1
    ]
    stars += [comp(1, east=-0.1, north=0.0, B=11.2)]
    stars += [comp(2, east=0.1, north=0.0, v=10.5355, B=11.2355)]
    chosen = set()
    for night in range(40):
        dx_px, dy_px = rng.uniform(-40, 40, 2)
        turn_deg = rng.uniform(-3, 3) + 180 * (night % 2)
        frame = pointed(dx_px, dy_px, turn_deg=turn_deg, stretch=1 + rng.normal(0, 1e-4))
        rng.shuffle(stars)
        place = (50.0 + 3.0 * night / 12 / 3600, -1.0 * night / 12 / 3600)
        got = select(
            *stars,
            variable=moving,
            frames=[("f", frame)],
            target_place=place,
            target_colour=0.6,
            known_variables=[],
        )
        chosen.add(tuple(numbers(got)[:3]))
    assert [ranking[:2] for ranking in chosen] == [(1, 2)]


def test_a_check_star_the_person_chose_stays_on_every_night():
    stars = [comp(1, v=12.4, north=0.3), comp(2), comp(3)]
    for dx_px in (-60, 0, 60):
        frames = [("f", pointed(dx_px, 0))]
        assert numbers(select(*stars, frames=frames, check="000-TST-001"))[0] == 1
        assert numbers(select(*stars, frames=frames))[0] == 2


def test_candidates_say_where_they_come_from():
    got = select(comp(1, v=None, Rc=10.5), header_filter="R")
    assert (got.filter, got.band, got.comp_band, got.band_confirmed) == ("R", "R", "Rc", False)
    assert (got.chart_id, got.chart_source) == ("X123", "VSP")


# ----------------------------------------------------------------------------------- roles


def measured(n_stars, n_frames=20, **changes):
    """Equal good stars; `changes` maps star number to its flags, SNR or missing frames."""
    shape = (n_frames, n_stars + 1)
    columns = {name: np.full(shape, 1000.0) for name in domain.StarMeasurements.__slots__}
    columns |= {"snr": np.full(shape, 100.0), "flags": np.zeros(shape, np.int64)}
    for name, stars in changes.items():
        for star, (frames, value) in stars.items():
            columns[name][frames, star] = value
    return domain.StarMeasurements(**columns)


def candidates(n):
    return select(*(comp(i + 1, v=10.5 + 0.1 * i, B=11.0 + 0.1 * i) for i in range(n)))


def roles(stars):
    return [(star.role, star.name[-3:]) for star in stars]


def test_the_best_star_left_is_the_check_and_the_rest_the_ensemble():
    stars, indices, ledger = sequence.assign_roles(candidates(4), measured(4))
    assert roles(stars) == [
        ("T1", "Tst"),
        ("T2", "001"),
        ("C3", "002"),
        ("C4", "003"),
        ("C5", "004"),
    ]
    assert indices == [0, 1, 2, 3, 4]
    assert [entry.role for entry in ledger] == ["T2", "C3", "C4", "C5"]
    assert (stars[1].catalogue_mag, stars[1].catalogue_error_mag) == (10.5, 0.02)
    assert stars[0].catalogue_mag is None


def test_two_comps_are_a_check_and_one_comp():
    stars, _, _ = sequence.assign_roles(candidates(2), measured(2))
    assert roles(stars) == [("T1", "Tst"), ("T2", "001"), ("C3", "002")]


def test_a_single_comp_is_the_comp_and_nobody_checks():
    stars, indices, ledger = sequence.assign_roles(candidates(1), measured(1))
    assert roles(stars) == [("T1", "Tst"), ("C2", "001")]
    assert indices == [0, 1]
    assert ledger[0].role == "C2"


def test_stars_that_fail_on_the_night_have_their_reason_and_numbers():
    flags = {
        1: ([3], Flag.SATURATED | Flag.NON_LINEAR),
        2: ([0, 4], Flag.NON_LINEAR),
        7: ([5], Flag.BAD_PIXEL | Flag.OFF_CENTRE),  # no harm
    }
    night = measured(
        8, flags=flags, snr={3: (slice(0, 11), 19.9)},
        source_sky_adu={4: ([1, 2], np.nan), 6: ([1], np.nan)},
    )  # fmt: skip
    crowding = [None] * 4 + ["a star 1.2 mag fainter at 4.0 px"] + [None] * 3
    stars, indices, ledger = sequence.assign_roles(candidates(8), night, crowding=crowding)
    assert roles(stars)[1:] == [("T2", "006"), ("C3", "007"), ("C4", "008")]
    assert indices == [0, 6, 7, 8]
    assert [(e.reason, e.detail) for e in ledger if e.reason] == [
        (Unused.SATURATED, "saturated on 1 of 20 frames"),
        (Unused.SATURATED, "beyond linearity on 2 of 20 frames"),
        (Unused.LOW_SNR, "median SNR 19.9, at least 20 wanted"),
        (Unused.NOT_MEASURED, "no value on 2 of 20 frames"),
        (Unused.CROWDED, "a star 1.2 mag fainter at 4.0 px"),
    ]


def test_the_whole_chart_is_in_the_ledger_once():
    chosen = select(comp(1), comp(2, v=14.0), comp(3), comp(4))
    _, _, ledger = sequence.assign_roles(chosen, measured(3, flags={3: ([0], Flag.SATURATED)}))
    assert sorted(entry.auid for entry in ledger) == [f"000-TST-{i:03d}" for i in (1, 2, 3, 4)]
    assert all((entry.role is None) != (entry.reason is None) for entry in ledger)


def test_beyond_linearity_serves_when_nothing_else_is_left_but_saturated_never():
    flags = {1: ([0], Flag.NON_LINEAR), 2: ([0], Flag.NON_LINEAR | Flag.SATURATED)}
    stars, _, ledger = sequence.assign_roles(candidates(2), measured(2, flags=flags))
    assert roles(stars) == [("T1", "Tst"), ("C2", "001")]
    assert "beyond linearity, kept" in ledger[-1].detail
    flags = {1: ([0], Flag.SATURATED), 2: ([0], Flag.SATURATED)}
    with pytest.raises(domain.NoComps, match=r"none of 2 comp stars .* saturated on 1 of 20"):
        sequence.assign_roles(candidates(2), measured(2, flags=flags))


def test_a_star_never_measured_is_not_measured():
    night = measured(2, source_sky_adu={1: (slice(None), np.nan)}, snr={1: (slice(None), np.nan)})
    _, _, ledger = sequence.assign_roles(candidates(2), night)
    assert ledger[0].detail == "no value on 20 of 20 frames"


def test_an_annulus_beyond_the_edge_on_many_frames_is_off_image():
    """One frame of twenty is let pass: 5 %."""
    flags = {1: ([0, 1], Flag.NEAR_EDGE), 2: ([7], Flag.NEAR_EDGE)}
    stars, _, ledger = sequence.assign_roles(candidates(3), measured(3, flags=flags))
    assert roles(stars)[1:] == [("T2", "002"), ("C3", "003")]
    assert (ledger[0].reason, ledger[0].detail) == (
        Unused.OFF_IMAGE,
        "annulus beyond the edge on 2 of 20 frames",
    )


def test_stars_carry_the_colour_of_the_transformation():
    stars, _, _ = sequence.assign_roles(
        candidates(2), measured(2), colour_index=("B", "V"), target_colour=0.4
    )
    assert [star.colour for star in stars] == [0.4, pytest.approx(0.5), pytest.approx(0.5)]


def detections(*rows):
    x, y, flux = np.array(rows, float).T
    ones = np.ones(len(rows))
    return domain.Detections(
        x_px=x, y_px=y, flux_adu=flux, peak_adu=flux, fwhm_px=3 * ones, axis_ratio=ones,
        snr=ones, sky_adu=0.0, sky_rms_adu=1.0,
    )  # fmt: skip


def test_crowding_by_distance_and_brightness():
    """r + 2 FWHM = 5 + 6 = 11 px; 3 mag is a factor 15.85."""
    found = detections(
        (100, 100, 1000.0), (110, 100, 64.0),  # 10 px, 2.98 mag fainter
        (200, 100, 1000.0), (210, 100, 63.0),  # 3.002 mag
        (300, 100, 1000.0), (311.5, 100, 900.0),  # beyond 11 px
        (400, 100, 10.0), (405, 100, 1000.0),  # a bright neighbour
    )  # fmt: skip
    x = np.array([100.5, 200.0, 300.0, 400.0, 500.0])
    dark = np.full(5, np.nan)  # the detections say how bright these are
    got = sequence.crowded(x, np.full(5, 100.0), dark, found, radius_px=5.0, fwhm_px=3.0)
    assert got[0] == "a star 3.0 mag fainter at 9.5 px"
    assert got[1:3] == [None, None]
    assert got[3] == "a star 5.0 mag brighter at 5.0 px"
    assert got[4] is None


def test_two_chart_stars_in_one_light_are_both_crowded():
    """2 px apart at a FWHM of 3: one detection, twice as bright as either."""
    found = detections((101, 100, 2000.0), (300, 100, 1000.0))
    x = np.array([100.0, 102.0, 300.0])
    got = sequence.crowded(x, np.full(3, 100.0), x, found, radius_px=5.0, fwhm_px=3.0)
    assert got == ["another star of the chart at 2.0 px"] * 2 + [None]


def test_a_star_not_detected_is_judged_by_its_measured_light():
    found = detections((105, 100, 1000.0), (205, 100, 10.0), (305, 100, 1.0))
    x, flux = np.array([100.0, 200.0, 300.0, 400.0]), np.array([100.0, 1000.0, np.nan, np.nan])
    got = sequence.crowded(x, np.full(4, 100.0), flux, found, radius_px=5.0, fwhm_px=3.0)
    assert got == [
        "a star 2.5 mag brighter at 5.0 px, itself not detected",
        None,  # 5 mag fainter
        "a star at 5.0 px, itself not detected, no light of its own measured",
        None,
    ]
    none = sequence.crowded(x, x, flux, detections((900, 900, 1.0)), radius_px=5.0, fwhm_px=3.0)
    assert none == [None] * 4
