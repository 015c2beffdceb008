"""AAVSO's download against the ledger: what is there is submitted, and never reported again."""

import dataclasses
import json

import pytest

from wombat_dagster.domain import Submitted
from wombat_dagster.reports.aavso import parse_report
from wombat_dagster.reports.aavso_download import UnreadableDownload
from wombat_dagster.stages import decisions
from wombat_dagster.stages.decisions import Refusal
from wombat_dagster.stages.reconcile import reconcile
from wombat_dagster.stages.report import export
from wombat_dagster.store.report_ledger import ReportLedger
from wombat_dagster_tests.approved_nights import (
    WHO,
    a_night,
    an_observatory,
    approved,
    approved_again,
    measured,
    submitted_word,
)

KEY, OTHER = "20251015__TX_Eri__V", "20251015__SV_Wom__V"
HEADINGS = "JD,Magnitude,Uncertainty,Band,Observer Code,Comments,Star Name"


@pytest.fixture
def observatory(tmp_path):
    return an_observatory(tmp_path)


def at_aavso(done, *, star=str.upper, decimals=5, code="XYZ"):
    """Return what the AAVSO would have of the exported files, a line of its download each."""
    rows = [row.line for f in done.files for row in parse_report(f.path.read_text()).rows]
    return [
        f"{float(line.date):.{decimals}f},{line.magnitude},{line.error},{line.band},{code},,"
        f"{star(line.star_id)}"
        for line in rows
    ]


def take_over(observatory, rows):
    return reconcile(observatory, "\n".join((HEADINGS, *rows)), file="aavso.csv", who=WHO)


def test_lines_of_ours_that_are_there_are_submitted(observatory):
    for target in ("TX Eri", "SV Wom"):
        approved(observatory, a_night(target=target))
    rows = at_aavso(export(observatory, who=WHO))
    of_one = [row for row in rows if row.endswith("SV WOM")]
    done = take_over(observatory, of_one + [row for row in rows if row not in of_one][:3])
    assert (done.n_submitted, done.n_foreign) == (8, 0)
    assert done.submitted == (OTHER,)
    assert submitted_word(observatory, KEY) == Submitted.EXPORTED
    assert done.missing == {}  # what comes after the last line may not have been asked for
    done = take_over(observatory, rows)
    assert (done.n_submitted, done.n_known, done.submitted) == (2, 8, (KEY,))
    assert export(observatory, who=WHO, amendments=True).files == ()


def test_a_line_that_did_not_arrive_is_missed(observatory):
    approved(observatory, a_night())
    rows = at_aavso(export(observatory, who=WHO))
    done = take_over(observatory, rows[:2] + rows[3:])
    assert done.missing == {"XYZ_20251015.txt": 1}
    assert done.submitted == ()
    assert submitted_word(observatory, KEY) == Submitted.EXPORTED


def test_what_another_program_reported_is_never_reported_by_wombat(observatory, tmp_path):
    """The same nights were reported before there was a ledger; one point was not."""
    elsewhere = an_observatory(tmp_path / "elsewhere")
    approved(elsewhere, a_night())
    rows = at_aavso(export(elsewhere, who="XYZ"))
    measured(observatory, a_night())
    done = take_over(observatory, rows[:4])
    assert (done.n_foreign, done.n_submitted, done.submitted) == (4, 0, ())
    decisions.approve(observatory, KEY, who=WHO)
    first = export(observatory, who=WHO, amendments=True)
    assert (first.n_lines, first.observations[0].n_at_aavso) == (1, 4)
    again = take_over(observatory, rows[:4])
    assert (again.n_foreign, again.n_foreign_known) == (0, 4)


def test_a_star_is_known_by_its_auid_as_by_its_name(observatory):
    approved(observatory, a_night())
    rows = at_aavso(export(observatory, who=WHO), star=lambda _: "000-BBB-492")
    assert take_over(observatory, rows).submitted == (KEY,)


def test_json_is_taken_as_well(observatory):
    approved(observatory, a_night())
    records = []
    for row in at_aavso(export(observatory, who=WHO), decimals=6):
        jd, magnitude, error, band, code, _, star = row.split(",")
        records.append({
            "jd_dbl": float(jd), "magnitude": magnitude, "uncertainty": error, "band": band,
            "obscode": code, "name": star, "auid": "000-BBB-492", "fainterthan": False,
        })  # fmt: skip
    done = reconcile(observatory, json.dumps([{"results": records}]), file="a.json", who=WHO)
    assert done.submitted == (KEY,)


def test_another_magnitude_there_is_named_and_is_no_submission(observatory):
    approved(observatory, a_night())
    first, *rows = at_aavso(export(observatory, who=WHO))
    magnitude = first.split(",")[1]
    wrong = first.replace(magnitude, f"{float(magnitude) + 0.2:.3f}")
    done = take_over(observatory, [wrong, *rows])
    assert done.n_submitted == 4
    (told,) = done.differing
    assert f"the AAVSO has {float(magnitude) + 0.2:.3f}, XYZ_20251015.txt has {magnitude}" in told
    assert done.missing == {}
    assert submitted_word(observatory, KEY) == Submitted.EXPORTED


def test_magnitudes_that_were_rounded_are_no_others(observatory):
    approved(observatory, a_night())
    rows = []
    for row in at_aavso(export(observatory, who=WHO)):
        jd, magnitude, *rest = row.split(",")
        rows.append(",".join((jd, f"{float(magnitude):.2f}", *rest)))
    assert take_over(observatory, rows).submitted == (KEY,)


def test_an_amendment_beside_the_line_it_replaces_is_told(observatory):
    approved(observatory, a_night())
    old = at_aavso(export(observatory, who=WHO))
    ReportLedger(observatory.status.path).submit(file="XYZ_20251015.txt", who=WHO)
    table = a_night()
    moved = decisions.measured(observatory, KEY)
    moved = dataclasses.replace(moved, t1_mag=moved.t1_mag + 0.1)
    measured(observatory, table, magnitudes=moved)
    approved_again(observatory, KEY)
    new = at_aavso(export(observatory, who=WHO, amendments=True))
    assert len(new) == 5
    done = take_over(observatory, old)  # the new ones were not uploaded yet
    assert (done.n_submitted, len(done.differing), done.n_foreign) == (0, 5, 0)
    done = take_over(observatory, [*old, *new])
    assert (done.n_submitted, done.submitted, len(done.twice)) == (5, (KEY,), 5)
    assert "XYZ_20251015_amended.txt has" in done.twice[0]
    assert done.n_foreign == 0


def test_frames_of_less_than_a_second_are_told_apart(observatory):
    table = a_night(n_frames=8)
    times = table.times.jd_utc[0] + [0, 4e-6, 8e-6, 12e-6, 16e-6, 20e-6, 24e-6, 28e-6]
    table = dataclasses.replace(table, times=dataclasses.replace(table.times, jd_utc=times))
    approved(observatory, table)
    rows = at_aavso(export(observatory, who=WHO), decimals=6)
    done = take_over(observatory, rows)
    assert (done.n_submitted, done.twice, done.differing) == (8, (), ())


def test_other_observers_lines_are_not_ours(observatory):
    approved(observatory, a_night())
    rows = at_aavso(export(observatory, who=WHO), code="ABC")
    done = take_over(observatory, rows)
    assert (done.n_submitted, done.n_foreign, done.other_observers) == (0, 0, {"ABC": 5})


def test_nothing_is_taken_over_without_a_code_or_from_another_file(tmp_path, observatory):
    with pytest.raises(Refusal, match="observer"):
        reconcile(an_observatory(tmp_path / "b", observer={}), HEADINGS, file="a", who=WHO)
    with pytest.raises(UnreadableDownload):
        reconcile(observatory, "#TYPE=Extended", file="a", who=WHO)


@pytest.mark.parametrize("decimals", [4, 5])
def test_times_that_were_cut_are_the_same(observatory, decimals):
    approved(observatory, a_night())
    rows = []
    for row in at_aavso(export(observatory, who=WHO), decimals=6):
        jd, rest = row.split(",", 1)
        whole, _, fraction = jd.partition(".")
        rows.append(f"{whole}.{fraction[:decimals]},{rest}")
    done = take_over(observatory, rows)
    assert (done.n_submitted, done.n_foreign, done.missing) == (5, 0, {})


def test_a_time_or_band_that_cannot_be_is_left_out_with_words(observatory):
    approved(observatory, a_night())
    first, second, *rows = at_aavso(export(observatory, who=WHO))
    _, rest = first.split(",", 1)
    done = take_over(
        observatory,
        [
            *(f"{jd},{rest}" for jd in ("1e305", "-5", "2999999.5")),
            first.replace(",V,", ",Johnson V,"),
            second.replace(",V,", ",Quux,"),
            *rows,
        ],
    )
    assert (done.n_submitted, done.n_foreign, done.n_lines) == (4, 0, 7)
    assert done.left_out == (
        "line 6: band 'Quux' is none that is known",
        "line 2: no observation was made at JD 1e305",
        "line 3: no observation was made at JD -5",
        "line 4: no observation was made at JD 2999999.5",
    )


def test_what_was_taken_over_from_a_wrong_download_can_be_withdrawn(observatory, tmp_path):
    elsewhere = an_observatory(tmp_path / "elsewhere")
    approved(elsewhere, a_night())
    rows = at_aavso(export(elsewhere, who="XYZ"))
    approved(observatory, a_night())
    with observatory.status._writing() as connection:
        connection.execute("UPDATE product SET made_utc = '2025-10-16T00:00:00+00:00'")
    take_over(observatory, rows[:4])
    export(observatory, who=WHO)
    assert export(observatory, who=WHO).n_settled == 1
    assert ReportLedger(observatory.status.path).withdraw(file="aavso.csv", who=WHO) == 4
    assert export(observatory, who=WHO).n_lines == 4
