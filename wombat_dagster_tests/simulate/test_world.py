"""The demo's world: everything a run needs, in place and readable."""

import csv
import json

import pytest

from wombat_dagster import config
from wombat_dagster.simulate.world import demo_world


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    root = tmp_path_factory.mktemp("a world")
    return demo_world(root, seed=2, width_px=320, height_px=256, n_lights=1, n_calibrations=3)


def test_only_the_first_night_has_biases(world):
    data = world.root / "data"
    assert sorted(path.name for path in data.iterdir()) == ["20251014", "20251015"]
    assert len(list((data / "20251014" / "Bias").iterdir())) == 3
    assert not (data / "20251015" / "Bias").exists()
    for night in ("20251014", "20251015"):
        assert len(list((data / night / "Flat").iterdir())) == 6
        assert len(list((data / night / "Light" / "SV Wom").iterdir())) == 2


def test_no_truth_lies_where_wombat_looks(world):
    assert {path.suffix for path in (world.root / "data").rglob("*") if path.is_file()} == {".fit"}
    assert sorted(path.name for path in (world.root / "truth").iterdir()) == [
        "20251014.json",
        "20251015.json",
    ]


def test_the_configuration_is_one_that_wombat_accepts(world):
    text = world.toml(vsx_urls=("http://127.0.0.1:1/vsx",), vsp_urls=("http://127.0.0.1:1/vsp/",))
    path = world.root / "wombat.toml"
    path.write_text(text, encoding="utf-8")
    settings = config.load(path)
    assert settings.aavso.vsx_urls == ["http://127.0.0.1:1/vsx"]
    assert settings.path(settings.solve.star_table or "") == world.star_table
    assert settings.path(settings.astap.database or "") == world.astap_database
    instrument = settings.for_camera(world.telescope.camera)
    assert instrument.transform["Tv_bv"] == world.telescope.tv_bv
    assert settings.site is not None
    assert settings.site.latitude_deg == world.site.latitude_deg


def test_without_addresses_the_services_are_the_real_ones(world):
    assert "[aavso]" not in world.toml()


def test_catalogues_and_answers_are_in_place(world):
    with world.star_table.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == len(world.field.stars)
    assert (world.astap_database / "h18_0101.1476").exists()
    variable = json.loads((world.aavso / "vsx_object_SV_Wom.json").read_text())["VSXObject"]
    chart = json.loads((world.aavso / "vsp_chart_SV_Wom.json").read_text())
    assert variable["Name"] == chart["star"] == "SV Wom"
    assert len(chart["photometry"]) == len(world.field.comps)
