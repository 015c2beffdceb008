"""The width that the margin at the edges follows from, and a person's choices."""

from types import SimpleNamespace

import numpy as np
import pytest

from wombat_dagster.config import Settings
from wombat_dagster.observatory import Observatory
from wombat_dagster.science.sequence import PersonsChoices
from wombat_dagster.stages.sequence import detected_fwhm_px, persons_choices
from wombat_dagster.store.comp_choices import Choice, CompChoices


def solved(*widths_px):
    return [(None, SimpleNamespace(fwhm_median_px=width), None) for width in widths_px]


def test_frames_without_a_width_do_not_take_it_from_the_others():
    assert detected_fwhm_px(solved(3.0, None, 5.0, np.nan, 4.0)) == pytest.approx(4.0)


def test_no_frame_with_a_width_is_no_width():
    assert np.isnan(detected_fwhm_px(solved(None, np.nan)))
    assert np.isnan(detected_fwhm_px([]))


# ------------------------------------------------------------------------- what a person chose


def observatory_with(tmp_path, **target):
    sections = [{"directory": ["SV Wom", "svwom"], **target}] if target else []
    settings = Settings(target=sections)
    return Observatory(settings.model_copy(update={"database": tmp_path / "wombatpipeline.db"}))


def choose(observatory, **choices):
    CompChoices(observatory.status.path).change(
        ["SV Wom"], choose={auid: Choice(word) for auid, word in choices.items()}
    )


def test_choices_of_the_database_serve_where_the_configuration_is_silent(tmp_path):
    observatory = observatory_with(tmp_path)
    assert persons_choices(observatory, "SV Wom") == PersonsChoices()
    choose(observatory, A="pin", B="ban", C="check")
    got = persons_choices(observatory, "sv wom")
    assert got == PersonsChoices(check="C", pins=("A",), ban=("B",))


def test_the_configuration_wins_on_the_stars_it_speaks_of(tmp_path):
    observatory = observatory_with(tmp_path, check="C", ban=["A"])
    choose(observatory, A="pin", B="pin", C="ban", D="check")
    got = persons_choices(observatory, "svwom")  # the other directory of the same star
    assert got == PersonsChoices(check="C", pins=("B",), ban=("A",))


def test_only_these_comps_means_no_pins(tmp_path):
    observatory = observatory_with(tmp_path, comps=["A", "B"])
    choose(observatory, B="ban", C="pin", D="ban")
    assert persons_choices(observatory, "SV Wom") == PersonsChoices(comps=("A", "B"), ban=("D",))
