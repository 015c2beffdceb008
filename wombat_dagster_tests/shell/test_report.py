"""``wombat report``, ``wombat reconcile`` and the asset, as a person meets them."""

import json
import warnings

import dagster as dg
import pytest
from click.testing import CliRunner

from wombat_dagster import config
from wombat_dagster.assets.report import aavso_report
from wombat_dagster.commands.reconcile import reconcile
from wombat_dagster.commands.report import report
from wombat_dagster.domain import Variable
from wombat_dagster.observatory import open_observatory
from wombat_dagster.partitions import OBSERVATIONS
from wombat_dagster.resources import ObservatoryResource
from wombat_dagster.stages.decisions import approve as approve_now
from wombat_dagster.store.report_ledger import NewLine, ReportLedger
from wombat_dagster_tests.approved_nights import WHO, a_night, approved, measured, submitted_word

KEY, OTHER = "20251015__TX_Eri__V", "20251016__SV_Wom__V"


@pytest.fixture
def observatory(tmp_path, monkeypatch):
    """Two nights, the one approved, the other waiting, and their configuration in force."""
    (tmp_path / "data").mkdir()
    file = tmp_path / config.CONFIG_NAME
    file.write_text('[observer]\ncode = "XYZ"\n')
    monkeypatch.setenv(config.CONFIG_ENV, str(file))
    opened = open_observatory()
    approved(opened, a_night())
    measured(opened, a_night("20251016", "SV Wom", jd=2460964.5, seed=2), date="20251016")
    return opened


def say(*arguments, command=report, code=0):
    done = CliRunner().invoke(command, [str(one) for one in arguments])
    assert done.exit_code == code, done.output
    return done.output


def test_a_report_is_written_and_what_to_do_next_is_said(observatory):
    said = say()
    path = observatory.layout.report_path("XYZ_20251015.txt")
    assert f"{KEY}: 5 new" in said
    assert f"5 lines of 1 observation written: {path}" in said
    assert "https://www.aavso.org/webobs/file" in said
    assert "wombat submitted XYZ_20251015.txt" in said
    assert "Nothing new to report." in say()
    assert len(list(path.parent.glob("*.txt"))) == 1


def test_with_nothing_approved_it_says_what_to_do(observatory):
    with observatory.status._writing() as connection:
        connection.execute("UPDATE target SET submitted = NULL")
    assert "Nothing is approved yet: wombat review" in say()


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        ((KEY,), 0, f"{KEY}: 5 new"),
        (("20251015",), 0, f"{KEY}: 5 new"),
        (("2025-10-15", "tx eri"), 0, f"{KEY}: 5 new"),
        (("20251016",), 2, f"not reported: it is not approved yet: wombat approve {OTHER}"),
        ((KEY, OTHER), 2, f"{KEY}: 5 new"),
        (("20251017",), 2, "no observation of 20251017 is known"),
        (("20251015", "U Cep"), 2, 'no target "U Cep" in 20251015'),
        (("yesterday",), 2, '"yesterday" is no night'),
        (("20251015", "TX", "Eri"), 2, "say keys, or NIGHT [TARGET]"),
    ],
)
def test_what_is_meant_is_reported_and_the_rest_refused_in_words(observatory, words, code, told):
    assert told in say(*words, "--dry-run", code=code)


def test_without_an_observer_code_the_remedy_is_said(observatory):
    config.config_path().write_text("")
    assert "[observer] code" in say(code=2)


def test_names_of_stars_reach_the_terminal_as_names(observatory):
    """A control sequence in a name of VSX must not reach the terminal."""
    star = Variable(name="\x1b[31mred", ra_deg=10.0, dec_deg=20.0)
    table = a_night("20251018", star.name, jd=2460966.5, variable=star)
    key = approved(observatory, table, date="20251018")
    said = say(key, code=2)
    assert "\x1b" not in said
    assert "not reported" in said


def test_json_holds_what_the_words_say(observatory):
    found = json.loads(say("--json", "--dry-run"))
    assert [(file["n_lines"], file["keys"]) for file in found["files"]] == [(5, [KEY])]
    assert found["observations"][0]["n_new"] == 5
    assert found["is_dry_run"] is True


def test_a_changed_line_is_named_and_written_on_request(observatory):
    say()
    ReportLedger(observatory.status.path).submit(file="XYZ_20251015.txt", who=WHO)
    measured(observatory, a_night(seed=3))
    said = say()
    assert "5 lines changed since reported: --amendments writes them." in said
    assert "changed since reported: frame0.fits, JD 2460963.600000: MAG " in said
    assert f"first: wombat approve {KEY}" in say("--amendments", code=2)
    approve_now(observatory, KEY, who=WHO)
    said = say("--amendments")
    assert "5 amended lines of 1 observation written: " in said
    assert "XYZ_20251015_amended.txt" in said
    assert "Delete at the AAVSO" in said


def test_why_nothing_is_new_is_said_when_the_aavso_has_it(observatory):
    times = a_night().times.jd_utc
    foreign = [
        NewLine(observer="XYZ", star="TX Eri", band="V", jd=f"{jd:.5f}", content_hash="", line="")
        for jd in times
    ]
    ReportLedger(observatory.status.path).add_foreign(foreign[:4], file="aavso.csv")
    assert "the AAVSO has" not in say("--dry-run")
    ReportLedger(observatory.status.path).add_foreign(foreign, file="more.csv")
    assert "Nothing new to report. 5 lines at the AAVSO from elsewhere already." in say()


def test_what_the_aavso_has_is_taken_over(observatory, tmp_path):
    say()
    text = observatory.layout.report_path("XYZ_20251015.txt").read_text()
    rows = [line.split(",") for line in text.splitlines() if not line.startswith("#")]
    file = tmp_path / "aavso.csv"
    body = "".join(f"{jd},{mag},{band},XYZ,{star}\n" for star, jd, mag, _, band, *_ in rows)
    file.write_text(f"JD,Magnitude,Band,Observer Code,HJD,Star Name\n{body}")
    said = say(file, command=reconcile, code=2)
    assert "not one of its 5 lines can be read: line 2: 5 fields, 6 headings" in said
    heading = "JD,Magnitude,Band,Observer Code,Star Name,Comments"
    file.write_bytes(f"{heading}\n{body}2460963.7,9.1,V,ABC,x,K\xf6ln\n".encode("latin-1"))
    said = say(file, command=reconcile)
    assert "5 of ours newly known to be there" in said
    assert "1 line of observer ABC: not looked at" in said
    assert f"{KEY}: submitted" in said
    assert submitted_word(observatory, KEY) == "submitted"
    said = say(observatory.layout.report_path("XYZ_20251015.txt"), command=reconcile, code=2)
    assert "this is a report to the AAVSO" in said


@pytest.fixture
def materialise(observatory):
    """Return the function that materialises the asset for a key, as a click in the UI does."""
    with dg.DagsterInstance.ephemeral() as instance, warnings.catch_warnings():
        instance.add_dynamic_partitions(OBSERVATIONS.name, [KEY, OTHER])

        def run(key):
            return dg.materialize(
                [aavso_report],
                partition_key=key,
                instance=instance,
                resources={"observatory": ObservatoryResource()},
            )

        yield run


def test_the_asset_reports_an_approved_observation_once(observatory, materialise):
    (event,) = materialise(KEY).get_asset_materialization_events()
    facts = {name: one.value for name, one in event.materialization.metadata.items()}
    assert facts["lines"] == 5
    assert facts["then"] == "wombat submitted XYZ_20251015.txt"
    assert submitted_word(observatory, KEY) == "exported"
    again = materialise(KEY)
    assert again.success
    assert not again.get_asset_materialization_events()


def test_the_asset_of_what_is_not_approved_is_green_and_says_why(observatory, materialise):
    done = materialise(OTHER)
    assert done.success
    assert not done.get_asset_materialization_events()
    (event,) = done.get_asset_observation_events()
    told = event.asset_observation_data.asset_observation.description
    assert told == f"it is not approved yet: wombat approve {OTHER}"
    assert observatory.status.target_row(OTHER).apphot == "validate"
    assert not observatory.layout.report_path("XYZ_20251016.txt").exists()
