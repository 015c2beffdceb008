import datetime as dt
import json
import subprocess
import sys
import tomllib

import pytest
from click.testing import CliRunner

from wombat_dagster import config
from wombat_dagster.cli import main
from wombat_dagster.domain import Coefficient, FrameKind
from wombat_dagster.jobs import OBSERVATION_ASSETS
from wombat_dagster.products import PRODUCTS, read_product
from wombat_dagster.simulate.aavso import Service
from wombat_dagster.store.coefficients import record_coefficients
from wombat_dagster.store.status import StatusDatabase
from wombat_dagster.store.tables import UnreadableProduct
from wombat_dagster.toml_text import toml_text

FIRST_V = "20251014__SV_Wom__V"
LONG_REASON = (
    "none of 10 frames has a good star profile; first: 2 stars with peaks between 5000 and 30000"
    " counts, at least 3 wanted, and the brighter of them stands at the very edge"
)
REASON = f"{LONG_REASON}; {'x' * 150}"  # a path, say: nowhere to break the line


@pytest.fixture
def wombat(tmp_path, monkeypatch):
    """Return a function that runs the command in an empty directory of its own."""
    empty = tmp_path / "elsewhere"
    empty.mkdir()
    monkeypatch.chdir(empty)
    monkeypatch.delenv(config.CONFIG_ENV, raising=False)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments, config_file=None):
        before = () if config_file is None else ("--config", str(config_file))
        # The command sets these for itself and its children: they end with the test.
        for name in (config.CONFIG_ENV, "DAGSTER_HOME"):
            monkeypatch.setenv(name, "")
            monkeypatch.delenv(name)
        return CliRunner().invoke(main, [*before, *map(str, arguments)])

    return run


def everything_below(root):
    return {
        path.relative_to(root).as_posix(): (path.stat().st_mtime_ns, path.stat().st_size)
        for path in root.rglob("*")
    }


# ------------------------------------------------------------------------------------- start-up


def test_help_loads_nothing_heavy():
    code = (
        "import sys\n"
        "from click.testing import CliRunner\n"
        "before = set(sys.modules)\n"
        "from wombat_dagster.cli import main\n"
        "CliRunner().invoke(main, ['--help'])\n"
        "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before}))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    heavy = {"dagster", "astropy", "numpy", "pydantic", "rich", "sqlite3", "sqlite_utils", "httpx"}
    assert "wombat_dagster" in loaded
    assert not loaded & heavy


# -------------------------------------------------------------------------------- configuration


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[photometry]\nradius = 4\n", "photometry.radius: no such key"),
        ("[site]\nlatitude_deg = 100\nlongitude_deg = 0\n", "site.latitude_deg"),
        ("data = [", "wombat.toml: "),
    ],
    ids=["unknown key", "impossible value", "no TOML"],
)
@pytest.mark.parametrize("command", ["run", "status", "config", "up"])
def test_a_broken_configuration_is_said_in_one_line(wombat, tmp_path, command, text, words):
    file = tmp_path / "wombat.toml"
    file.write_text(text)
    ended = wombat(command, config_file=file)
    assert ended.exit_code == 2
    assert words in ended.output
    assert len(ended.output.splitlines()) == 1


def test_a_configuration_file_that_was_asked_for_must_be_there(wombat, tmp_path):
    ended = wombat("status", config_file=tmp_path / "none.toml")
    assert ended.exit_code == 2
    assert str(tmp_path / "none.toml") in ended.output


def test_the_configuration_printed_loads_as_the_same(wombat, tmp_path):
    file = tmp_path / "wombat.toml"
    file.write_text(
        r"""
products = "made \"here\" \\ \u00fc \U0001F52D \u007f"
[site]
latitude_deg = -1.5e-7
longitude_deg = 359
[[instrument]]
camera = "SBIG"
filters = { "Bessell V" = "V", "r'" = "SR" }
gain_e_adu = 1e22
[[instrument]]
[[target]]
directory = ["TX Eri", "a\tb"]
mag_range = [10.1, 11]
colour = { B-V = 0.4 }
[calibration]
max_age_days = 60
require_calibration = true
""",
        encoding="utf-8",
    )
    ended = wombat("config", config_file=file)
    assert ended.exit_code == 0
    assert str(file) in ended.stdout
    again = tmp_path / "again.toml"
    again.write_text(ended.stdout, encoding="utf-8")
    assert config.load(again) == config.load(file)


def test_the_defaults_printed_are_the_defaults(wombat):
    ended = wombat("config")
    assert "all defaults" in ended.stdout
    assert config.Settings(**tomllib.loads(ended.stdout)) == config.Settings()


def test_what_is_not_set_is_named():
    assert toml_text({"observer": {"code": None}}) == "\n[observer]\n# code is not set\n"


# --------------------------------------------------------------------------------------- status


def test_status_makes_no_database(wombat, tmp_path):
    file = tmp_path / "wombat.toml"
    file.write_text("")
    assert "Nothing is known yet" in wombat("status", config_file=file).stdout
    assert wombat("status", "--json", config_file=file).stdout == "[]\n"
    assert list(tmp_path.glob("*.db*")) == []


@pytest.fixture
def known(place):
    """A place that was scanned: one observation ended with a long reason."""
    place.take("20251014/*/**/*.fit")
    light = next((place.data / "20251014/Light").glob("*"))
    light.rename(light.with_name("[red]SV[b] <i>"))
    (light.with_name("[red]SV[b] <i>") / "broken V.fit").write_bytes(b"SIMPLE")
    place.observatory.scan()
    place.observatory.status.set_status(
        next(row.observation.key for row in place.rows if row.observation.filter == "V"),
        {"proc": "solved", "apphot": "badpsf", "reason": REASON, "proc_flat": "nocal"},
    )
    return place


@pytest.mark.parametrize("columns", ["80", "160"])
def test_status_cuts_no_reason_and_takes_no_name_for_markup(wombat, monkeypatch, known, columns):
    monkeypatch.setenv("COLUMNS", columns)
    ended = wombat("status", config_file=known.root / "wombat.toml")
    assert ended.exit_code == 0
    assert max(map(len, ended.stdout.splitlines())) <= int(columns)
    assert ended.stdout.count("x") >= 150
    for word in LONG_REASON.split():
        assert word in ended.stdout
    assert "[red]SV[b] <i>" in ended.stdout
    assert "nocal: no matching flat" in ended.stdout.replace("\n", " ") or columns == "80"


def test_status_as_json_has_every_column(wombat, known):
    found = json.loads(wombat("status", "--json", config_file=known.root / "wombat.toml").stdout)
    by_filter = {row["filter"]: row for row in found}
    assert by_filter["V"]["reason"] == REASON
    assert by_filter["V"]["apphot"] == "badpsf"
    assert by_filter["B"]["apphot"] is None
    assert {row["target"] for row in found} == {"[red]SV[b] <i>"}
    assert sum(row["n_quarantined"] for row in found) == 1


# ------------------------------------------------------------------------------------------ run


def test_a_dry_run_writes_nothing(wombat, known):
    flats = known.data / "20251014/Flat"
    for flat in list(flats.rglob("*.fit")):
        flat.rename(flats / flat.name)  # both filters in one directory: a run would sort them
    before = everything_below(known.root)
    ended = wombat("run", "--dry-run", config_file=known.root / "wombat.toml")
    assert ended.exit_code == 0, ended.output
    assert "5 bias, 4 flat B, 4 flat V" in ended.stdout
    assert "Flats would be sorted by filter in 20251014/Flat." in ended.stdout
    assert "1 night, " in ended.stdout
    assert everything_below(known.root) == before


def test_a_dry_run_makes_no_database(wombat, place):
    place.take("20251014/Light/**/*.fit")
    before = everything_below(place.root)
    ended = wombat("run", "--dry-run", "2025-10-14", config_file=place.root / "wombat.toml")
    assert "1 night, 2 observations" in ended.stdout
    assert everything_below(place.root) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["20240101"], "no night 20240101"),
        (["tonight"], '"tonight" is no night'),
        (["20251014", "TX Eri"], "there: "),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(wombat, known, arguments, words):
    ended = wombat("run", "--dry-run", *arguments, config_file=known.root / "wombat.toml")
    assert ended.exit_code == 2
    assert words in ended.output


def test_without_data_there_is_nothing_to_run(wombat):
    ended = wombat("run")
    assert ended.exit_code == 2
    assert "no data directory" in ended.output


def test_what_was_parked_is_run_again_by_its_word(wombat, place):
    """VSP is away, then back: the parked observation ends in validation, only it is run."""
    place.take("20251014/Bias/*.fit", "20251014/Flat/**/*V*.fit", "20251014/Light/*/*V.fit")
    place.aavso.fail(Service.VSP, "500")
    file = place.root / "wombat.toml"
    ended = wombat("run", config_file=file)
    assert ended.exit_code == 0, ended.output  # an outage is nobody's failure
    assert place.row("SV Wom").apphot == "novsp"
    assert "novsp" in ended.stdout

    place.aavso.fail(Service.VSP, "none")
    assert (
        "No observation is nocomps"
        in wombat("retry", "--reason", "nocomps", config_file=file).stdout
    )
    assert place.row("SV Wom").apphot == "novsp"
    ended = wombat("retry", "--reason", "novsp", config_file=file)
    assert ended.exit_code == 0, ended.output
    assert place.row("SV Wom").apphot == "validate"
    assert "1 of 1 observation waiting for validation" in ended.stdout
    assert "20251014:" not in ended.output  # no night was run, only the observation


def test_what_late_masters_reopen_is_listed_too(wombat, place):
    """Everything was finished when the run began: the reopened observation was not planned."""
    place.take("20251014/Light/*/*V.fit")
    file = place.root / "wombat.toml"
    wombat("run", config_file=file)
    place.take("20251014/Bias/*.fit", "20251014/Flat/**/*V*.fit")
    ended = wombat("run", config_file=file)
    assert ended.exit_code == 0, ended.output
    assert place.row("SV Wom").proc_bias == "2025-10-14"
    assert "1 of 1 observation waiting for validation" in ended.stdout


def test_a_word_that_is_none_is_refused_with_those_that_are(wombat, known):
    ended = wombat("retry", "--reason", "novps", config_file=known.root / "wombat.toml")
    assert ended.exit_code == 2
    assert "novsp" in ended.output


def test_a_failure_of_ours_is_told_with_where_to_look(wombat, place):
    """A file stands where the products' directory should be made."""
    place.take("20251014/Light/*/*V.fit")
    (place.root / "products").write_text("in the way")
    ended = wombat("run", config_file=place.root / "wombat.toml")
    assert ended.exit_code == 1
    assert FIRST_V in ended.stdout
    assert "failed in wombat itself" in ended.stdout
    assert "Tracebacks: wombat up" in ended.stdout
    assert place.row("SV Wom").apphot is None


def test_the_rehearsal_knows_what_the_database_knows(known):
    from wombat_dagster import runs

    frames = known.observatory.status.night_frames(known.rows[0].observation.date, FrameKind.LIGHT)
    with runs.rehearsal(known.observatory.settings) as observatory:
        assert isinstance(observatory.status, StatusDatabase)
        assert observatory.status.path != known.observatory.status.path
        date = frames[0].date
        assert observatory.status.night_frames(date, FrameKind.LIGHT) == frames
        observatory.status.set_status(known.rows[0].observation.key, {"apphot": "held"})
    assert "held" not in {row.apphot for row in known.rows}


@pytest.mark.parametrize("command", [["status"], ["run"], ["comps", "SV Wom"]])
def test_a_database_that_is_none_is_refused_with_the_backup_to_restore(wombat, tmp_path, command):
    file = tmp_path / "wombat.toml"
    file.write_text("")
    (tmp_path / "data").mkdir()
    (tmp_path / "wombatpipeline.db").write_bytes(b"not a database " * 100)
    (tmp_path / "wombatpipeline.db.20251015T101010Z.backup").write_bytes(b"")
    ended = wombat(*command, config_file=file)
    assert ended.exit_code == 2
    assert "is no SQLite database" in ended.output
    assert "wombatpipeline.db.20251015T101010Z.backup" in ended.output


def test_a_damaged_product_is_named_by_its_file_and_made_anew_when_asked_for(wombat, place):
    """Every product of the observation is damaged in turn at once: nothing of it is believed."""
    place.take("20251014/Bias/*.fit", "20251014/Flat/**/*V*.fit", "20251014/Light/*/*V.fit")
    file = place.root / "wombat.toml"
    wombat("run", config_file=file)
    for asset in OBSERVATION_ASSETS:
        product = PRODUCTS[asset]
        path = product.path(place.observatory.layout, FIRST_V)
        path.write_bytes(b"\xff\xfe" + path.read_bytes()[:50])
        if not path.name.endswith(".png"):
            with pytest.raises(UnreadableProduct, match=path.name):
                read_product(place.observatory, asset, FIRST_V)
    assert wombat("run", config_file=file).exit_code == 0
    ended = wombat("run", "20251014", "SV Wom", config_file=file)
    assert ended.exit_code == 0, ended.output
    for asset in OBSERVATION_ASSETS:
        read_product(place.observatory, asset, FIRST_V)


def test_magnitudes_made_anew_are_counted_and_shown(wombat, place):
    """A coefficient changes: nothing is measured again, the magnitudes of the night are made."""
    place.take("20251014/Bias/*.fit", "20251014/Flat/**/*V*.fit", "20251014/Light/*/*V.fit")
    file = place.root / "wombat.toml"
    wombat("run", config_file=file)
    record_coefficients(
        place.observatory.status,
        [
            Coefficient(
                name="Tv_bv", value=-0.05, error=0.01, date=dt.date(2025, 10, 1), camera=None,
                source="tg.ini",
            )
        ],
    )  # fmt: skip
    ended = wombat("run", config_file=file)
    assert ended.exit_code == 0, ended.output
    assert "magnitudes made anew: 1 observation." in ended.stdout
    assert "SV Wom" in ended.stdout
    assert wombat("run", config_file=file).stdout == "Nothing to do.\n"
