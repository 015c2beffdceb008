"""How a night's frames help each other to their plate solutions."""

import numpy as np
import pytest

from wombat_dagster.stages import solving
from wombat_dagster.tangent import sky_to_pixel

KEY = "20251014__SV_Wom__V"


def starless(pixels):
    """Return sky without stars: a frame no solver can do anything with."""
    rng = np.random.default_rng(1)
    return rng.normal(np.median(pixels), 5.0, pixels.shape).clip(0).astype(np.uint16)


@pytest.fixture
def solved_in_full(monkeypatch):
    """The files that climbed the ladder, in order."""
    climbed = []
    real = solving.solve_frame

    def counted(request, **options):
        climbed.append(request.file.rpartition("/")[2])
        return real(request, **options)

    monkeypatch.setattr(solving, "solve_frame", counted)
    return climbed


def test_one_frame_is_solved_in_full_and_the_rest_propagated(place, solved_in_full):
    place.take("20251014/*/*.fit", "20251014/Light/SV Wom/*V.fit")
    place.configure()
    assert place.run() == {}
    solutions = place.product("wcs_solutions", KEY)
    assert sorted(s.status for s in solutions) == ["propagated"] * 3 + ["solved"]
    assert len(solved_in_full) == 1


def test_a_frame_nobody_can_solve_climbs_the_ladder_once(place, solved_in_full, edit):
    place.take("20251014/*/*.fit", "20251014/Light/SV Wom/*V.fit")
    spoilt = place.data / "20251014" / "Light" / "SV Wom" / "zz_V.fit"
    edit(place.sky.lights_v[0], spoilt, pixels=starless)
    place.configure()
    assert place.run() == {}
    assert solved_in_full.count("zz_V.fit") == 1
    row = place.row("SV Wom", filter="V")
    assert row.proc == "partial"


def test_solutions_are_kept_when_the_same_pixels_are_reduced_again(place, solved_in_full):
    place.take("20251014/*/*.fit", "20251014/Light/SV Wom/*V.fit")
    place.configure()
    place.run()
    solved_in_full.clear()
    place.run(night=place.row("SV Wom", filter="V").observation.date)
    assert solved_in_full == []


def test_frames_that_are_trimmed_otherwise_are_solved_anew(place, solved_in_full):
    place.take("20251014/*/*.fit", "20251014/Light/SV Wom/*V.fit")
    place.configure()
    place.run()
    before = place.product("wcs_solutions", KEY)[0].solution
    place.configure(tail='[[instrument]]\ntrim = "[21:320,1:256]"\n')
    assert place.run(night=place.row("SV Wom", filter="V").observation.date) == {}
    after = place.product("wcs_solutions", KEY)[0].solution
    x, y = sky_to_pixel(before, np.array([after.ra_deg]), np.array([after.dec_deg]))
    assert x[0] - (after.crpix_x - 1) == pytest.approx(20.0, abs=0.2)
    assert y[0] - (after.crpix_y - 1) == pytest.approx(0.0, abs=0.2)


def test_a_damaged_record_of_solutions_is_taken_for_none(place, solved_in_full):
    place.take("20251014/*/*.fit", "20251014/Light/SV Wom/*V.fit")
    place.configure()
    place.run()
    (record,) = place.root.glob("products/*/*/*/solutions.json")
    record.write_text("{")
    solved_in_full.clear()
    date = place.row("SV Wom", filter="V").observation.date
    assert place.run(night=date) == {}
    assert len(solved_in_full) == 1
