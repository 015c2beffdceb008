import json
import re
import socket
from types import SimpleNamespace

import numpy as np
import pytest

from wombat_dagster import config, demo, terminal
from wombat_dagster.observatory import open_observatory
from wombat_dagster.solvers.astap import PROGRAM_ENV


def free_port():
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return trial.getsockname()[1]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A simulated world of one short night, in a directory with a blank in its name."""
    root = tmp_path_factory.mktemp("a demo") / "of wombat"
    demo.write_world(root, port=free_port(), nights=1, n_lights=5)
    return root


@pytest.fixture(scope="module")
def demonstrated(world):
    """The same after the demo, which ran without ASTAP: its exit code and what it said."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(PROGRAM_ENV, "/nowhere/astap_cli")
        patch.setenv("DAGSTER_HOME", "")  # set by the demo, ends with the fixture
        patch.setenv("COLUMNS", "120")
        patch.setenv(config.CONFIG_ENV, "")
        patch.delenv(config.CONFIG_ENV)
        out = world.parent / "out.txt"
        with out.open("w", encoding="utf-8") as stream:
            patch.setattr("sys.stdout", stream)
            code = demo.main([str(world)])
    return code, out.read_text(encoding="utf-8")


def test_the_demo_ends_with_light_curves_that_agree_with_the_truth(world, demonstrated):
    code, said = demonstrated
    assert code == 0, said
    assert "used again" in said
    assert "embedded" in said
    for filter in "BV":
        products = world / f"products/20251014/SV_Wom/{filter}"
        for path in (products / "light_curve.png", products / "SV_Wom_20251014_phot.tbl"):
            assert path.stat().st_size > 1000
            assert str(path) in said
    assert (world / "wombatpipeline.db").exists()
    assert re.search(r"wombat'? --config ", said)  # quoted where the path has blanks
    assert f"'{world}'" in said  # quoted for the shell


def test_a_wrong_truth_does_not_agree(world, demonstrated, tmp_path):
    """The same magnitudes against a truth half a magnitude away."""
    truth = json.loads((world / "truth/20251014.json").read_text(encoding="utf-8"))
    for frame in truth["frames"]:
        frame["t1_mags"] = {band: mag + 0.5 for band, mag in frame["t1_mags"].items()}
    (tmp_path / "truth").mkdir()
    (tmp_path / "truth/20251014.json").write_text(json.dumps(truth), encoding="utf-8")
    observatory = open_observatory(world / "wombat.toml")
    assert demo.judge(observatory, world, terminal.console())
    assert not demo.judge(observatory, tmp_path, terminal.console())


def test_an_observation_that_is_not_to_be_validated_fails_the_demo(world, demonstrated):
    observatory = open_observatory(world / "wombat.toml")
    key = observatory.status.targets()[0].observation.key
    observatory.status.set_status(key, {"apphot": "held"})
    try:
        assert not demo.judge(observatory, world, terminal.console())
    finally:
        observatory.status.set_status(key, {"apphot": "validate"})


def magnitudes(t1_mag, random_mag, zp_err_mag):
    t1_mag = np.array(t1_mag, float)
    return SimpleNamespace(
        t1_mag=t1_mag,
        t1_random_mag=np.array(random_mag, float),
        zp_err_mag=zp_err_mag,
        jd_utc=2_460_000.0 + np.arange(len(t1_mag)) / 100,
        band="V",
    )


def truth_of(*mags):
    return tuple(
        SimpleNamespace(jd_utc=2_460_000.0 + i / 100, t1_mags={"V": mag, "B": 99.0})
        for i, mag in enumerate(mags)
    )


def test_the_offset_is_weighted_by_the_random_errors():
    """Differences 0.1 ± 0.1 and 0.4 ± 0.2: (10 + 10) / (100 + 25) = 0.16, error 125^-½, by hand."""
    found = demo.compare(magnitudes([10.1, 11.4], [0.1, 0.2], 0.03), truth_of(10.0, 11.0))
    assert found.offset_mag == pytest.approx(0.16)
    assert found.mean_error_mag == pytest.approx(125**-0.5)
    assert found.pull == pytest.approx(0.16 / np.hypot(0.03, 125**-0.5))
    assert found.scatter_mag == pytest.approx(0.3 / np.sqrt(2))
    assert found.agrees


def test_frames_without_a_magnitude_are_left_out_and_none_at_all_never_agrees():
    found = demo.compare(magnitudes([np.nan, 11.0], [0.1, 0.1], 0.03), truth_of(10.0, 11.0))
    assert (found.n_frames, found.offset_mag) == (1, 0.0)
    assert not demo.compare(magnitudes([np.nan], [0.1], 0.03), truth_of(10.0)).agrees


def test_a_directory_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/mine.fit").write_text("mine")
    assert demo.main([str(tmp_path)]) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["data"]


def test_a_port_that_is_taken_is_replaced_in_the_configuration(world, tmp_path):
    for name in ("wombat.toml", "aavso"):
        (tmp_path / name).symlink_to(world / name)
    text = (world / "wombat.toml").read_text(encoding="utf-8")
    (tmp_path / "wombat.toml").unlink()
    (tmp_path / "wombat.toml").write_text(text, encoding="utf-8")
    with demo.serving(tmp_path) as first:
        assert first.port == demo.stand_in_port(world / "wombat.toml")
        with demo.serving(tmp_path) as second:
            assert second.port != first.port
            settings = config.load(tmp_path / "wombat.toml")
            assert settings.aavso.vsx_urls == [second.vsx_url]
            assert settings.aavso.vsp_urls == [second.vsp_url]
