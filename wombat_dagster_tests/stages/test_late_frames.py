"""Frames that arrive in a finished observation: the products of one clean run, for their own work.

What is counted is what is done with pixels: a frame calibrated, solved, measured, fitted.
"""

from collections import Counter

import numpy as np
import pytest
from astropy.io import fits

from wombat_dagster.stages import calibrator, photometry, reduction, solving
from wombat_dagster.store.frames import read_reduced

KEY = "20251014__SV_Wom__V"
CALIBRATION = ("20251014/Bias/*", "20251014/Flat/*V.fit")
NOTHING = Counter()


@pytest.fixture
def work(monkeypatch):
    """Count what is done, by name."""
    done = Counter()

    def counted(owner, name, label):
        real = getattr(owner, name)

        def call(*arguments, **more):
            done[label] += 1
            return real(*arguments, **more)

        monkeypatch.setattr(owner, name, call)

    counted(calibrator.Calibrator, "reduce", "calibrated")
    counted(calibrator.Calibrator, "finished", "calibrated for the time being")
    counted(photometry, "measure_stars", "measured")
    counted(photometry, "sum_stars", "summed")
    counted(photometry, "fit_frame_profile", "fitted")
    counted(solving._Night, "_solve_one", "solved")
    counted(solving._Night, "_solve_in_full", "solved in full")
    return done


def names(sky):
    return [f"20251014/Light/SV Wom/{frame.name}" for frame in sky.lights_v]


def products(place):
    """What the law is about: table, magnitudes, solutions, pixels, headers, words."""
    below = place.root / "products" / "20251014" / "SV_Wom" / "V"
    files = {
        path.name: path.read_bytes()
        for name in ("photometry.npz", "magnitudes.csv", "*_phot.tbl")
        for path in below.glob(name)
    }
    assert len(files) == 3
    pixels, headers = {}, {}
    for path in below.glob("reduced/*"):
        image, mask, header = read_reduced(path)
        pixels[path.name] = image.tobytes(), mask.tobytes()
        headers[path.name] = {card.keyword: card.value for card in header.cards}
    row = place.row("SV Wom")
    words = (row.proc_bias, row.proc_flat, row.proc, row.apphot)
    solutions = [s.solution for s in place.product("wcs_solutions", KEY)]
    return {
        "files": files,
        "pixels": pixels,
        "headers": headers,
        "words": words,
        "solutions": solutions,
    }


def run(place, work):
    """Do what ``wombat run NIGHT TARGET`` does, finished or not; return what was worked on."""
    work.clear()
    date = place.row("SV Wom").observation.date if place.rows else None
    assert place.run(night=date, target="SV Wom" if date else None, nights=date is None) == {}
    return +Counter(work)


@pytest.fixture(scope="module")
def at_once(open_place, sky, tmp_path_factory):
    """Return the products of a clean run over all four frames, by the lines of configuration."""
    made = {}

    def clean(**tables):
        name = repr(tables)
        if name not in made:
            with open_place(tmp_path_factory.mktemp("clean") / "a place") as place:
                place.configure(**tables)
                place.take(*CALIBRATION, *names(sky))
                assert place.run() == {}
                made[name] = products(place)
        return made[name]

    return clean


@pytest.mark.parametrize("late", [3, 0], ids=["last", "first"])
def test_a_late_frame_is_the_only_one_worked_on(place, sky, work, at_once, late):
    """The first frame is the one whose profile is fitted, and another one's when it is missing."""
    wanted = at_once()
    frames = names(sky)
    place.take(*CALIBRATION, *(f for i, f in enumerate(frames) if i != late))
    assert place.run() == {}
    place.take(frames[late])
    done = run(place, work)
    own = {"calibrated": 1, "measured": 1, "solved": 1}
    assert done == (Counter(own, fitted=1) if late == 0 else Counter(own))
    assert products(place) == wanted


def test_a_night_that_came_frame_by_frame_is_the_night_that_came_at_once(place, sky, work, at_once):
    of_field = {"magnitudes": 'ensemble = "field"'}
    wanted = at_once(**of_field)
    place.configure(**of_field)
    place.take(*CALIBRATION)
    for frame in names(sky):
        place.take(frame)
        assert place.run() == {}
    assert products(place) == wanted
    assert run(place, work) == NOTHING


@pytest.mark.parametrize(
    ("tables", "again"),
    [
        ({"photometry": "radius_fwhm = 2.0"}, {"measured": 4}),
        ({"magnitudes": "max_field_stars = 100"}, {}),
    ],
    ids=["radii", "nothing that is measured"],
)
def test_all_frames_are_measured_again_where_something_in_force_changed(
    place, sky, work, at_once, tables, again
):
    place.take(*CALIBRATION, *names(sky))
    assert place.run() == {}
    assert run(place, work) == NOTHING
    place.configure(**tables)
    assert run(place, work) == Counter(again)
    assert products(place) == at_once(**tables)
    kept = list(place.root.glob("products/20251014/SV_Wom/V/measured/*"))
    assert len(kept) == 4 + 1  # a profile; nothing of the former settings


def damage_pixels(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def damage_header(path):
    with fits.open(path, mode="update") as hdus:
        hdus[0].header["GAINUSED"] = 99.0


def cut(path):
    path.write_bytes(path.read_bytes()[:-3000])


def lose_solution(path):
    with fits.open(path, mode="update") as hdus:
        hdus[0].header["CRVAL1"] = 12.0


@pytest.mark.parametrize(
    ("name", "harm", "again"),
    [
        ("reduced/*.fits", damage_pixels, {"calibrated": 1}),
        ("reduced/*.fits", damage_header, {"calibrated": 1}),
        ("reduced/*.fits", cut, {"calibrated": 1}),
        ("reduced/*.fits", lose_solution, {}),
        ("measured/*.npz", cut, None),
        ("measured/*.npz", damage_pixels, None),
    ],
)
def test_what_is_damaged_is_made_again(place, sky, work, at_once, name, harm, again):
    place.take(*CALIBRATION, *names(sky))
    assert place.run() == {}
    file = sorted(place.root.glob(f"products/20251014/SV_Wom/V/{name}"))[1]
    harm(file)
    done = run(place, work)
    assert done == Counter(again) if again is not None else done.total() == 1
    assert products(place) == at_once()


def test_frames_that_are_not_kept_are_calibrated_only_to_be_measured(place, sky, work, at_once):
    frames = names(sky)
    place.configure(calibration="keep_reduced = false\ncosmic_rays = true")
    place.take(*CALIBRATION, *frames[:3])
    assert place.run() == {}
    place.take(frames[3])
    of_chart = {"calibrated for the time being": 1}  # the frame that the finding chart shows
    # For its thumbnail, and to be measured.
    own = {"calibrated for the time being": 2, "measured": 1, "solved": 1}
    assert run(place, work) == Counter(of_chart) + Counter(own)
    assert run(place, work) == Counter(of_chart)
    wanted = at_once(calibration="keep_reduced = false\ncosmic_rays = true")
    assert products(place) == wanted


def test_a_revised_chart_measures_nothing(place, sky, work):
    """Other magnitudes of the same stars: another order of them, and the same light."""
    place.take(*CALIBRATION, *names(sky))
    assert place.run() == {}
    before = place.product("photometry_table", KEY)
    place.forget_services()
    for number, star in enumerate(place.aavso._comps.values()):
        for band in star["bands"]:
            band["mag"] += 0.01 * (number % 3)
    assert run(place, work) == NOTHING
    after = place.product("photometry_table", KEY)
    mags = [{s.auid: s.catalogue_mag for s in table.stars} for table in (before, after)]
    assert mags[0] != mags[1]
    np.testing.assert_array_equal(
        before.measured.source_sky_adu[:, 0], after.measured.source_sky_adu[:, 0]
    )


def test_a_raw_frame_of_other_pixels_is_worked_on_anew(place, sky, work, at_once, edit):
    frames = names(sky)
    place.take(*CALIBRATION, *frames[1:])
    edit(sky.data / frames[0], place.data / frames[0], pixels=lambda counts: counts + 1)
    assert place.run() == {}
    (place.data / frames[0]).unlink()
    place.take(frames[0])
    done = run(place, work)
    assert (done["calibrated"], done["measured"], done["solved"]) == (1, 1, 1)
    assert products(place) == at_once()


@pytest.mark.parametrize(
    ("gain_e_adu", "used"),
    [(33.6, 35.0), (34.6, 35.0), (1.83, 1.8), (1.0, 1.0), (0.37, 0.35), (9.9, 10.0), (2.07, 2.0)],
)
def test_a_gain_of_the_sky_is_a_round_number_near_it(gain_e_adu, used):
    """Steps of 1, 2, 5 of no more than 15 %, by hand: 33.6 has steps of 5 (15 % are 5.04)."""
    assert reduction.in_round_steps(gain_e_adu, 0.15) == used
