"""``wombat lint``: what it prints and how it ends, without any configuration."""

import json

import pytest
from click.testing import CliRunner

from wombat_dagster import config
from wombat_dagster.commands.lint import lint
from wombat_dagster.reports.aavso_lint import RULES

GOOD = """\
#TYPE=Extended
#OBSCODE=TST01
#SOFTWARE=by hand
#DELIM=,
#DATE=JD
#OBSTYPE=CCD
SS Cyg,2459001.500,11.1,0.02,V,NO,STD,000-BCP-220,-9.4,na,na,1.1,na,X16382L,na
"""
BAD = GOOD.replace(",V,", ",Rc,").replace("11.1,0.02", "<11.1,0.02")


@pytest.fixture
def wombat_lint(tmp_path, monkeypatch):
    """Return the command where there is no configuration, and a broken one would be told."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(config.CONFIG_ENV, str(tmp_path / "nowhere" / "wombat.toml"))

    def run(*arguments, **files):
        for name, content in files.items():
            path = tmp_path / f"{name}.txt"
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return CliRunner().invoke(lint, list(arguments))

    return run


def test_a_clean_file_ends_with_0(wombat_lint):
    got = wombat_lint("a.txt", a=GOOD)
    assert (got.output, got.exit_code) == ("1 file: clean\n", 0)


def test_errors_say_file_line_rule_and_why_and_end_with_1(wombat_lint):
    got = wombat_lint("a.txt", "b.txt", a=GOOD, b=BAD)
    assert got.output.splitlines() == [
        'b.txt:7: warning error-of-limit: MERR "0.02" with the limit "<11.1"',
        'b.txt:7: error filter: FILT "Rc" is no code of the AAVSO\'s',
        "2 files: 1 error, 1 warning",
    ]
    assert got.exit_code == 1


def test_warnings_alone_end_with_0(wombat_lint):
    got = wombat_lint("a.txt", a=GOOD.replace("STD", "ABS"))
    assert got.output.endswith("1 file: 0 errors, 1 warning\n")
    assert got.exit_code == 0


def test_what_is_wrong_with_the_whole_file_has_no_line(wombat_lint):
    got = wombat_lint("a.txt", a=GOOD.replace("#OBSTYPE=CCD\n", ""))
    assert got.output.startswith("a.txt: error header-missing: #OBSTYPE= is missing\n")


def test_a_file_that_cannot_be_read_ends_with_2_and_the_others_are_judged(wombat_lint):
    got = wombat_lint("away.txt", "b.txt", ".", b=BAD)
    assert got.exit_code == 2
    assert "away.txt: cannot be read: No such file or directory" in got.stderr
    assert ".: cannot be read: Is a directory" in got.stderr
    assert "b.txt:7: error filter" in got.stdout


def test_any_bytes_are_judged(wombat_lint):
    latin = GOOD.replace(",na\n", ",Größe\n").encode("latin-1")
    got = wombat_lint("a.txt", "b.txt", a=latin, b=GOOD.encode("utf-16"))
    assert 'a.txt:7: error ascii: "öß"' in got.output
    assert "b.txt:1: error text: NUL" in got.output
    assert got.exit_code == 1


def test_line_ends_of_cr_alone_are_read_and_told(wombat_lint):
    got = wombat_lint("a.txt", a=GOOD.replace("\n", "\r").encode())
    assert got.output.startswith("a.txt:1: warning line-end: ends with CR alone")
    assert got.output.endswith("1 file: 0 errors, 1 warning\n")
    assert got.exit_code == 0


def test_a_terminal_s_control_sequences_are_not_passed_on(wombat_lint):
    got = wombat_lint("a.txt", a=GOOD.replace(",V,", ",\x1b[31mV,"))
    assert "filter" in got.output
    assert "\x1b" not in got.output


def test_the_name_of_the_file_counts(wombat_lint, tmp_path):
    (tmp_path / "night.dat").write_text(GOOD)
    assert "night.dat: error file-extension" in wombat_lint("night.dat").output


def test_json_holds_all_of_it(wombat_lint):
    got = wombat_lint("--json", "b.txt", "away.txt", b=BAD)
    judged, away = json.loads(got.stdout)
    assert (judged["file"], judged["errors"], judged["warnings"]) == ("b.txt", 1, 1)
    assert judged["findings"][1] == {
        "line": 7,
        "severity": "error",
        "rule": "filter",
        "words": 'FILT "Rc" is no code of the AAVSO\'s',
    }
    assert away == {"file": "away.txt", "unreadable": "No such file or directory"}
    assert got.exit_code == 2


def test_the_rules_can_be_listed(wombat_lint):
    got = wombat_lint("--rules")
    assert [line.split()[0] for line in got.output.splitlines()] == list(RULES)
    assert {one["rule"] for one in json.loads(wombat_lint("--rules", "--json").output)} == set(
        RULES
    )


def test_without_a_file_the_person_is_told(wombat_lint):
    got = wombat_lint()
    assert got.exit_code == 2
    assert "which FILE?" in got.output
