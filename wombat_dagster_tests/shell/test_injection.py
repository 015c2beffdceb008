"""Stars of known magnitude put into raw frames come out of the whole road as they went in."""

import datetime as dt
import hashlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner

from wombat_dagster.commands.inject import MagRange, _print_bins, inject
from wombat_dagster.domain import Observation
from wombat_dagster.injection import (
    InjectedStar,
    NotFinished,
    Recovered,
    as_csv,
    bins,
    finished_filters,
)
from wombat_dagster.observatory import open_observatory
from wombat_dagster.simulate.aavso import StandInAavso
from wombat_dagster.simulate.night import simulate_night
from wombat_dagster.simulate.sky import Telescope, random_field, write_star_table_csv
from wombat_dagster.simulate.world import SITE, write_aavso_answers

NIGHT = dt.date(2025, 10, 15)
N_LIGHTS = 8
TOML = """
[site]
latitude_deg = {site.latitude_deg}
longitude_deg = {site.longitude_deg}
[[instrument]]
filters = {{ B = "B", V = "V" }}
transform = {{ Tb_bv = {telescope.tb_bv}, Tv_bv = {telescope.tv_bv} }}
[astap]
program = "/nowhere/astap_cli"
[solve]
star_table = "stars.csv"
[aavso]
vsx_urls = ["{services.vsx_url}"]
vsp_urls = ["{services.vsp_url}"]
min_interval_s = 0
"""


@pytest.fixture(scope="module")
def night(tmp_path_factory):
    """A finished night in B and V: its root and its target."""
    root = tmp_path_factory.mktemp("night")
    telescope = Telescope(width_px=400, height_px=320)
    field = random_field(21, telescope=telescope, n_stars=150, n_comps=12)
    simulate_night(
        root, field=field, telescope=telescope, date=NIGHT, site=SITE, seed=21,
        filters=("B", "V"), n_lights=N_LIGHTS, n_bias=5, n_flats=5,
        exposure_s={"B": 120.0, "V": 60.0}, cadence_s=200.0,
    )  # fmt: skip
    write_star_table_csv(field, root / "stars.csv")
    write_aavso_answers(field, root / "aavso")
    with StandInAavso.from_directory(root / "aavso") as services:
        (root / "wombat.toml").write_text(
            TOML.format(site=SITE, telescope=telescope, services=services)
        )
        environment = {k: v for k, v in os.environ.items() if k != "DAGSTER_HOME"}
        subprocess.run(
            [sys.executable, "-m", "wombat_dagster.cli", *configured(root), "run"],
            check=True,
            capture_output=True,
            env=environment,
        )
    return root, field.name  # from here on the services are away


def configured(root):
    return ["--config", str(root / "wombat.toml")]


def hashes(root):
    return {
        path.relative_to(root): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted((root / "data").rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def injected(night, tmp_path_factory):
    """The command's result, the raw files' hashes before and after, and the place of the copies."""
    root, target = night
    copies = tmp_path_factory.mktemp("copies")
    before = hashes(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WOMBAT_CONFIG", str(root / "wombat.toml"))
        result = CliRunner().invoke(
            inject,
            ["20251015", target, "--stars", "8", "--mag-range", "11.5:14.5", "--keep", copies],
            catch_exceptions=False,
        )
    return result, before, hashes(root), copies


def points(root):
    """Return the columns of injection.csv as arrays."""
    file = next((root / "products").rglob("injection.csv"))
    return np.genfromtxt(file, delimiter=",", names=True, dtype=None, encoding="utf-8")


@pytest.mark.slow
def test_the_real_night_is_only_read(injected):
    result, before, after, copies = injected
    assert result.exit_code == 0, result.output
    assert before == after
    assert not any(path.is_symlink() for path in copies.rglob("*"))


@pytest.mark.slow
def test_stars_come_out_as_they_went_in(night, injected):
    """128 points of 8 stars in B and V, with the colour term: pull 1 to 4 sigma of its error."""
    found = points(night[0])
    assert len(found) == 8 * 2 * N_LIGHTS
    pull = found["departure_mag"] / found["error_mag"]
    assert 0.7 < np.std(pull) < 1.3
    assert abs(np.mean(pull)) < 0.4
    bright = found["injected_mag"] < 13.0
    assert abs(np.median(found["departure_mag"][bright])) < 0.003


@pytest.mark.slow
def test_headers_of_the_copies_are_those_of_the_night(night, injected):
    root, copies = night[0], injected[3]
    lights = sorted((root / "data" / "20251015" / "Light").rglob("*.fit"))
    assert len(lights) == 2 * N_LIGHTS
    for light in lights:
        copy = copies / light.relative_to(root)
        assert light.read_bytes()[:2880] == copy.read_bytes()[:2880]
        assert light.read_bytes() != copy.read_bytes()


@pytest.mark.slow
def test_the_table_tells_every_bin(injected):
    output = injected[0].output
    assert "Pull" in output
    bins = re.findall(r"1\d\.\d–1\d\.\d", output)
    assert "11.5–12.0" in bins
    assert len(set(bins)) >= 4


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["20251016", "SV Wom"], "no target"),
        (["20251015", "SV Wom", "--filter", "Ic"], "there: B, V"),
        (["20251015", "SV Wom", "--stars", "200"], "empty places"),
        (["20251015", "SV Wom", "--mag-range", "15:11"], "brighter one comes first"),
        (["20251015", "SV Wom", "--keep", "/dev/null/below"], "--keep /dev/null/below: "),
    ],
)
def test_what_cannot_be_done_is_refused_in_words(night, monkeypatch, arguments, words):
    monkeypatch.setenv("WOMBAT_CONFIG", str(night[0] / "wombat.toml"))
    result = CliRunner().invoke(inject, arguments)
    assert result.exit_code == 2
    assert words in result.output


@pytest.mark.parametrize("words", ["nan:14", "11:inf", "11:30", "-9:11", "12:12", "11", "a:b"])
def test_magnitudes_that_no_star_has_are_refused(words):
    with pytest.raises(click.BadParameter, match=r"magnitudes|brighter"):
        MagRange().convert(words, None, None)
    assert MagRange().convert("-1:11.5", None, None) == (-1.0, 11.5)


@pytest.mark.slow
def test_where_the_points_cannot_be_written_nothing_is_begun(night, monkeypatch):
    monkeypatch.setenv("WOMBAT_CONFIG", str(night[0] / "wombat.toml"))
    monkeypatch.setattr(
        "wombat_dagster.commands.inject._run_road", lambda _root: pytest.fail("it began")
    )
    observatory = open_observatory(night[0] / "wombat.toml")
    first = observatory.status.targets()[0].observation
    file = observatory.layout.product_path(first, "injection.csv")
    before = file.read_bytes() if file.exists() else None
    file.unlink(missing_ok=True)
    file.mkdir()
    try:
        result = CliRunner().invoke(inject, ["20251015", night[1]])
    finally:
        file.rmdir()
        if before is not None:
            file.write_bytes(before)
    assert result.exit_code == 2
    assert "injection.csv cannot be written: a directory is there" in result.output


@pytest.mark.slow
def test_a_night_that_ended_before_is_refused_with_its_word(night, monkeypatch):
    monkeypatch.setenv("WOMBAT_CONFIG", str(night[0] / "wombat.toml"))
    status = open_observatory(night[0] / "wombat.toml").status
    key, was = status.targets()[0].observation.key, status.targets()[0].apphot
    status.set_status(key, {"apphot": "nocomps", "reason": "all are banned"})
    try:
        result = CliRunner().invoke(inject, ["20251015", night[1]])
    finally:
        status.set_status(key, {"apphot": was, "reason": None})
    assert result.exit_code == 2
    assert "is nocomps: no magnitudes to inject by (all are banned)" in result.output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_ends_it_takes_the_copies_and_their_run_away(tmp_path, number):
    """The command waits for its child, which never ends; then it is told to end."""
    code = (
        "import signal, subprocess, sys, wombat_dagster.commands.inject as c\n"
        "signal.signal(signal.SIGHUP, signal.SIG_DFL)  # these tests may run under nohup\n"
        "def popen(_arguments, **options):\n"
        "    words = [sys.executable, '-c', 'import time; time.sleep(600)']\n"
        "    child = real(words, **options)\n"
        "    wait = child.communicate\n"
        "    child.communicate = lambda: print(child.pid, flush=True) or wait()\n"
        "    return child\n"
        "real, c.subprocess.Popen = subprocess.Popen, popen\n"
        "with c._ended_by_signals(), c._place(None) as root:\n"
        "    c._run_road(root)\n"
    )
    command = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    child = int(command.stdout.readline())
    assert list(tmp_path.iterdir())
    command.send_signal(number)
    command.communicate(timeout=60)
    assert list(tmp_path.iterdir()) == []
    until_s = time.monotonic() + 20.0  # who adopts it has to be waited for
    while Path(f"/proc/{child}").exists() and time.monotonic() < until_s:
        time.sleep(0.1)
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_what_is_not_known_is_a_dash_in_the_table(capsys):
    lost = recovered(12.2, [np.nan, np.nan], error=np.nan)
    _print_bins(bins([lost]))
    output = capsys.readouterr().out
    assert "nan" not in output
    (row,) = [line for line in output.splitlines() if "12.0–12.5" in line]
    assert row.split()[-4:] == ["–"] * 4


@pytest.mark.slow
def test_an_unfinished_night_gives_nothing_to_inject_by(night):
    observatory = open_observatory(night[0] / "wombat.toml")
    row = observatory.status.targets()[0].observation
    missing = Observation(date=row.date, target=row.target, filter=row.filter, key=row.key + "X")
    with pytest.raises((NotFinished, LookupError)):
        finished_filters(observatory, [missing])


def recovered(mag, departure, error=0.01, limited=False):
    n = len(departure)
    return Recovered(
        star=InjectedStar(name="injected 1", ra_deg=10.0, dec_deg=20.0, mags={"V": mag}),
        filter="V",
        labels=tuple(f"{i}.fit" for i in range(n)),
        departure_mag=np.array(departure),
        error_mag=np.full(n, error),
        limited=np.full(n, limited),
    )


def test_a_bin_holds_the_stars_of_its_magnitudes():
    """Median distance from the median of (0, 0.01, 0.02) is 0.01: scatter 0.0148, pull 1.48."""
    stars = [recovered(12.1, [0.0, 0.01, 0.02]), recovered(12.6, [np.nan, 0.03, 0.03])]
    first, second = bins(stars)
    assert (first.bright_mag, first.faint_mag) == (12.0, 12.5)
    assert (first.n_points, first.n_lost) == (3, 0)
    assert first.offset_mag == pytest.approx(0.01)
    assert first.offset_error_mag == pytest.approx(0.01 / np.sqrt(3))
    assert first.scatter_mag == pytest.approx(0.014826)
    assert first.pull == pytest.approx(1.4826)
    assert (second.n_points, second.n_lost) == (2, 1)


def test_limits_are_counted_as_lost():
    (only,) = bins([recovered(19.0, [0.5, 0.4, 0.6], limited=True)])
    assert (only.n_points, only.n_lost) == (0, 3)
    assert np.isnan(only.offset_mag)


def test_the_csv_leaves_empty_what_is_not_known():
    lines = as_csv([recovered(12.0, [np.nan, 0.01])]).splitlines()
    assert lines[1].split(",")[5:] == ["0.fit", "", "", "0.01000", ""]
    assert lines[2].split(",")[5:] == ["1.fit", "12.01000", "0.01000", "0.01000", ""]
