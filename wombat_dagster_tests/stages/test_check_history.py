"""T2 over the nights: which nights judge another, whatever order they were run in."""

import dataclasses
import datetime as dt
import itertools
from types import SimpleNamespace

import numpy as np
import pytest

from wombat_dagster.config import Settings
from wombat_dagster.domain import Apphot, CalibrationChoice, Observation
from wombat_dagster.observatory import Observatory
from wombat_dagster.stages.standard import standard_magnitudes_of
from wombat_dagster_tests.magnitude_tables import STARS, noisy_night, star, with_source

CAMERA = "QSI 583"
OFF_MAG = 0.3  # T2 in this instrument, whatever the night: no CV in the catalogue


class Season:
    """Nights of one variable and camera, T2 as far from the catalogue as a test wants it."""

    def __init__(self, root, **instrument):
        settings = Settings(instrument=[{"camera": "QSI", **instrument}])
        self.observatory = Observatory(
            settings.model_copy(update={"database": root / "wombatpipeline.db"})
        )

    def run(
        self, day, off_mag=OFF_MAG, *, band="CV", check="000-T2", camera=CAMERA, restless_mag=0.0
    ):
        """Run one night of October as the pipeline does, and return its magnitudes."""
        date = dt.date(2025, 10, day)
        key = f"{date:%Y%m%d}__TX_Eri__{band}"
        observation = Observation(date=date, target="TX Eri", filter=band, key=key)
        with self.observatory.status._writing() as connection:
            connection.execute(
                "INSERT OR IGNORE INTO target (date, target, filter, night, key)"
                " VALUES (?,?,?,?,?)",
                (date.isoformat(), "TX Eri", band, f"{date:%Y%m%d}", key),
            )
        t2 = dataclasses.replace(star("T2", 12.0, 0.02), auid=check)
        night = noisy_night(
            n_frames=40, seed=7, stars=(STARS[0], t2, *STARS[2:]), band=band, camera=camera
        )
        shaken_mag = off_mag + restless_mag * np.random.default_rng(3).normal(size=40)
        source = night.measured.source_sky_adu.copy()
        source[:, 1] *= 10 ** (-0.4 * shaken_mag)
        reduction = SimpleNamespace(
            group=SimpleNamespace(camera=camera),
            frames=(),
            choice=CalibrationChoice(bias=None, dark=None, flat=None, reasons=()),
        )
        got = standard_magnitudes_of(
            self.observatory, observation, reduction, with_source(night, source)
        )
        word = Apphot.HELD if got.held_reason else Apphot.VALIDATE
        self.observatory.status.set_status(key, {"apphot": word})
        return got

    def nights(self, band="CV"):
        star_identity = noisy_night(n_frames=1).variable.identity
        return self.observatory.status.check_nights(star_identity, band, CAMERA)


@pytest.fixture
def season(tmp_path):
    return Season(tmp_path)


def test_after_three_nights_a_fourth_that_is_off_is_held_and_says_why(season):
    for day in (1, 2, 3):
        assert season.run(day).held_reason is None
    got = season.run(4, OFF_MAG - 0.2)
    assert "check star 000-T2 is -0.200 mag from the mean of its 3 earlier nights" in (
        got.held_reason
    )
    assert "(median of 40 frames; at most 0.0" in got.held_reason
    assert season.run(5).held_reason is None  # by the three, not by the fourth as well


def test_two_nights_before_are_not_enough(season):
    for day in (1, 2):
        season.run(day)
    assert season.run(3, OFF_MAG - 0.2).held_reason is None


def test_in_a_standard_band_the_catalogue_holds_the_first_night_already(season):
    got = season.run(1, 0.2, band="V")
    assert "mag from its catalogue magnitude 12.000" in got.held_reason


@pytest.mark.parametrize("other", [{"band": "CR"}, {"check": "000-T9"}, {"camera": "ST-8"}])
def test_nights_of_another_band_check_star_or_camera_say_nothing(season, other):
    for day in (1, 2, 3):
        season.run(day, **other)
    assert season.run(4, OFF_MAG - 0.2).held_reason is None


def test_nights_before_the_optics_changed_say_nothing(tmp_path):
    season = Season(tmp_path, epochs=[dt.date(2025, 10, 4)])
    for day in (1, 2, 3):
        season.run(day)
    assert season.run(4, OFF_MAG - 0.2).held_reason is None


def test_a_night_that_is_run_again_does_not_judge_itself(season):
    """Two nights are before it, three would be a mean to judge by."""
    for day in (1, 2):
        season.run(day)
    for _ in range(3):
        again = season.run(3)
        assert (again.check_reference_mag, again.check_allowed_mag) == (12.0, 0.5)
    assert [night.date.day for night in season.nights()] == [1, 2, 3]


@pytest.mark.parametrize("order", list(itertools.permutations([1, 2, 3, 4]))[::5])
def test_the_order_of_runs_changes_nothing_for_a_night_judged_afterwards(tmp_path, season, order):
    """The fourth is 0.2 mag off: run first, nothing holds it, and still it does not count."""
    off_mag = {4: OFF_MAG - 0.2}
    for day in (1, 2, 3, 4):
        season.run(day, off_mag.get(day, OFF_MAG))
    other = Season(tmp_path / "other")
    for day in order:
        other.run(day, off_mag.get(day, OFF_MAG))
    got, want = (one.run(5, OFF_MAG + 0.1) for one in (other, season))
    assert got.held_reason == want.held_reason
    assert "+0.100 mag from the mean of its 3 earlier nights" in got.held_reason


def test_an_older_night_that_arrives_late_is_judged_by_those_before_it(season):
    for day in (2, 3, 4):
        season.run(day)
    assert season.run(1, OFF_MAG - 0.2).held_reason is None
    assert season.run(4).held_reason is None  # 1, 2 and 3 judge it: the first is the odd one


def test_a_restless_night_judges_nobody(season):
    for day in (1, 2):
        season.run(day)
    assert "scatters by" in season.run(3, restless_mag=0.05).held_reason
    assert season.run(4, OFF_MAG - 0.2).held_reason is None  # two nights are not enough


def test_a_night_that_the_person_rejected_judges_nobody(season):
    for day in (1, 2, 3):
        season.run(day)
    with season.observatory.status._writing() as connection:
        connection.execute("UPDATE target SET submitted = 'usrrej' WHERE date = '2025-10-03'")
    assert season.run(4, OFF_MAG - 0.2).held_reason is None


def test_another_check_star_than_on_the_last_night_is_noted(season):
    assert not [note for note in season.run(1).notes if note.startswith("check star is")]
    season.run(2, check="000-T9")
    assert "check star is 000-T2, on 2025-10-02 it was 000-T9" in season.run(3).notes


def test_the_control_chart_knows_what_a_night_was_judged_by(season):
    for day in (1, 2, 3):
        season.run(day)
    got = season.run(4)
    first, *_, last = season.nights()
    assert (first.reference_mag, first.allowed_mag) == (12.0, 0.5)
    assert last.reference_mag == pytest.approx(np.mean([n.magnitude_mag for n in season.nights()]))
    assert 0.05 <= last.allowed_mag < 0.1
    assert (last.reference_mag, last.allowed_mag) == (
        got.check_reference_mag,
        got.check_allowed_mag,
    )
