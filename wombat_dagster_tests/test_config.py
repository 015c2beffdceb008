import tomllib
from pathlib import Path

import pydantic
import pytest

from wombat_dagster import config

EXAMPLE = Path(__file__).parents[1] / "wombat.toml.example"
TABLES = {
    "site": config.SiteSettings,
    "observer": config.ObserverSettings,
    "instrument": config.InstrumentSettings,
    "target": config.TargetSettings,
    "calibration": config.CalibrationSettings,
    "astap": config.AstapSettings,
    "solve": config.SolveSettings,
    "aavso": config.AavsoSettings,
    "comps": config.CompSettings,
    "photometry": config.PhotometrySettings,
    "magnitudes": config.MagnitudeSettings,
    "sensors": config.SensorSettings,
}


def uncommented(text: str) -> str:
    """Return the example with its commented-out keys switched on: `#key = value` has no space."""
    return "\n".join(
        line[1:] if line.startswith("#") and line[1:2].strip() else line
        for line in text.splitlines()
    )


def test_the_example_loads_and_changes_nothing():
    document = tomllib.loads(EXAMPLE.read_text())
    assert config.Settings(**document) == config.Settings()


def test_the_example_lists_every_key_and_no_other():
    document = tomllib.loads(uncommented(EXAMPLE.read_text()))
    config.Settings(**document)
    assert set(document) == set(config.Settings.model_fields) - {"base"}
    for name, table in TABLES.items():
        listed = document[name][0] if isinstance(document[name], list) else document[name]
        assert set(listed) == set(table.model_fields), name


def test_a_key_nobody_knows_is_an_error(tmp_path):
    file = tmp_path / "wombat.toml"
    file.write_text("[photometry]\nradius = 4\n")
    with pytest.raises(pydantic.ValidationError, match="radius"):
        config.load(file)


def test_roots_are_relative_to_the_file(tmp_path):
    file = tmp_path / "wombat.toml"
    file.write_text('data = "nights"\n')
    settings = config.load(file)
    assert settings.path(settings.data) == tmp_path / "nights"


def test_a_missing_file_that_was_asked_for_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nowhere\.toml"):
        config.load(tmp_path / "nowhere.toml")


def test_nothing_is_made_up_without_a_file():
    settings = config.Settings()
    assert settings.site is None
    assert settings.observer.code is None
    assert settings.for_camera("any").gain_e_adu is None


def test_a_camera_is_found_by_a_part_of_its_name():
    settings = config.Settings(
        instrument=[{"camera": "STXL", "gain_e_adu": 2.58}, {"camera": "", "gain_e_adu": 1.0}]
    )
    assert settings.for_camera("SBIG stxl-6303 3").gain_e_adu == 2.58
    assert settings.for_camera(None).gain_e_adu == 1.0


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ("scan_fwhm = [2.5, 0.8]", "scan_fwhm: the smaller one first"),
        ("scan_fwhm = [1.0, 1.0]", "scan_fwhm: the smaller one first"),
        ("follow_fwhm = true\n{fixed}", "follow_fwhm and radius_px"),
        ('aperture = "scan"\n{fixed}', 'aperture = "scan" and radius_px'),
    ],
)
def test_radii_that_contradict_each_other_are_refused(tmp_path, keys, words):
    fixed = "radius_px = 5\nsky_inner_px = 10\nsky_outer_px = 15"
    file = tmp_path / "wombat.toml"
    file.write_text(f"[photometry]\n{keys.format(fixed=fixed)}\n")
    with pytest.raises(pydantic.ValidationError, match=words):
        config.load(file)
