"""``wombat lint``: any program's Extended File Format report, judged by the AAVSO's rules."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wombat_dagster.terminal import UNREADABLE, count, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wombat_dagster.domain import LintFinding

UNIX_EPOCH_JD = 2440587.5
SECONDS_PER_DAY = 86400.0
FOUND_ERRORS = 1  # exit code


@click.command()
@click.argument("files", nargs=-1, metavar="FILE…", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Everything that was found, as JSON.")
@click.option("--rules", is_flag=True, help="List the rules and stop.")
def lint(files: tuple[Path, ...], as_json: bool, rules: bool) -> None:
    """Check FILEs in AAVSO's Extended File Format, of wombat or any other program.

    What is found comes as FILE:LINE: error or warning, rule: why. Ends with 1 when there are
    errors, with 2 when a file cannot be read, else with 0: warnings do not keep a file from being
    uploaded. Nothing is changed, and no configuration is wanted.
    """
    if rules:
        _list_rules(as_json=as_json)
        return
    if not files:
        raise click.UsageError("which FILE? (--rules lists what is checked)")
    found: dict[Path, tuple[LintFinding, ...]] = {}
    unreadable: dict[Path, str] = {}
    for file in dict.fromkeys(files):
        try:
            found[file] = _findings(file)
        except OSError as error:
            unreadable[file] = error.strerror or str(error)
    if as_json:
        click.echo(json.dumps(_as_data(found, unreadable), indent=2))
    else:
        _print(found, unreadable)
    if unreadable:
        sys.exit(UNREADABLE)
    if any(one.is_error for one in _all_of(found)):
        sys.exit(FOUND_ERRORS)


def _findings(file: Path) -> "tuple[LintFinding, ...]":
    import time

    from wombat_dagster.reports.aavso_lint import Evidence, lint

    return lint(
        _decoded(file.read_bytes()),
        now_jd=UNIX_EPOCH_JD + time.time() / SECONDS_PER_DAY,
        evidence=Evidence(file_name=file.name),
    )


def _decoded(content: bytes) -> str:
    """Return the text whatever the encoding: only ASCII is right, and both read that alike."""
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        return content.decode("latin-1")


def _all_of(found: "dict[Path, tuple[LintFinding, ...]]") -> "list[LintFinding]":
    return [one for findings in found.values() for one in findings]


def _severity(finding: "LintFinding") -> str:
    return "error" if finding.is_error else "warning"


def _print(found: "dict[Path, tuple[LintFinding, ...]]", unreadable: dict[Path, str]) -> None:
    for file, findings in found.items():
        for one in findings:
            place = str(file) if one.line_number is None else f"{file}:{one.line_number}"
            click.echo(printable(f"{place}: {_severity(one)} {one.rule}: {one.words}"))
    for file, why in unreadable.items():
        click.echo(printable(f"{file}: cannot be read: {why}"), err=True)
    everything = _all_of(found)
    if found:
        words = _summary(everything)
        click.echo(f"{count(len(found), 'file')}: {words}")


def _summary(findings: "Sequence[LintFinding]") -> str:
    errors = sum(one.is_error for one in findings)
    warnings = len(findings) - errors
    if not findings:
        return "clean"
    return f"{count(errors, 'error')}, {count(warnings, 'warning')}"


def _as_data(
    found: "dict[Path, tuple[LintFinding, ...]]", unreadable: dict[Path, str]
) -> list[dict[str, object]]:
    files: list[dict[str, object]] = [
        {
            "file": str(file),
            "errors": sum(one.is_error for one in findings),
            "warnings": sum(not one.is_error for one in findings),
            "findings": [
                {
                    "line": one.line_number,
                    "severity": _severity(one),
                    "rule": one.rule,
                    "words": one.words,
                }
                for one in findings
            ],
        }
        for file, findings in found.items()
    ]
    return files + [{"file": str(file), "unreadable": why} for file, why in unreadable.items()]


def _list_rules(*, as_json: bool) -> None:
    from wombat_dagster.reports.aavso_lint import RULES

    listed = [
        {
            "rule": rule.name,
            "severity": "error" if rule.is_error else "warning",
            "words": rule.words,
        }
        for rule in RULES.values()
    ]
    if as_json:
        click.echo(json.dumps(listed, indent=2))
        return
    for one in listed:
        click.echo(f"{one['rule']:26} {one['severity']:8} {one['words']}")
