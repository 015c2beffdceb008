"""Reports to the AAVSO: each line once, changed ones on request, and what is refused in words."""

import dataclasses
import subprocess
import sys
import time

import numpy as np
import pytest

from wombat_dagster.domain import Submitted, Variable
from wombat_dagster.reports.aavso import parse_report
from wombat_dagster.reports.aavso_lint import lint
from wombat_dagster.stages import decisions, report
from wombat_dagster.stages.decisions import Refusal
from wombat_dagster.stages.report import export
from wombat_dagster.store import locks
from wombat_dagster.store.report_ledger import NewLine, ReportLedger
from wombat_dagster_tests.approved_nights import (
    WHO,
    a_night,
    an_observatory,
    approved,
    approved_again,
    measured,
    submitted_word,
)
from wombat_dagster_tests.magnitude_tables import STARS, standardised

KEY = "20251015__TX_Eri__V"


@pytest.fixture
def observatory(tmp_path):
    return an_observatory(tmp_path)


def ledger_of(observatory):
    return ReportLedger(observatory.status.path)


def names_in(observatory):
    return sorted(path.name for path in observatory.layout.reports_dir.glob("[!.]*"))


def rows_of(path):
    return parse_report(path.read_text()).rows


def lines_of(done):
    return [row.text for file in done.files for row in rows_of(file.path)]


def proposed(table, *frames, why="cloud"):
    """Return a night's magnitudes with points that are proposed to be rejected."""
    made = standardised(table)
    words = tuple(why if i in frames else "" for i in range(len(table.labels)))
    return dataclasses.replace(made, proposed_rejected=words)


# --------------------------------------------------------------------------------- what is written


def test_a_night_is_one_file_of_all_targets_and_filters_and_passes_the_lint(observatory):
    keys = [
        approved(observatory, a_night()),
        approved(observatory, a_night(filter="B", band="B", comp_band="B", jd=2460963.5003)),
        approved(observatory, a_night(target="SV Wom", seed=2)),
        approved(observatory, a_night("20251016", jd=2460964.5), date="20251016"),
    ]
    done = export(observatory, who=WHO)
    assert names_in(observatory) == ["XYZ_20251015.txt", "XYZ_20251016.txt"]
    assert [file.n_lines for file in done.files] == [15, 5]
    for file in done.files:
        assert lint(file.path.read_text(), now_jd=2461000.0) == ()
    first = rows_of(done.files[0].path)
    assert [(row.line.star_id, row.line.band, row.line.group != "na") for row in first] == (
        [("SV Wom", "V", False)] * 5 + [("TX Eri", "B", True)] * 5 + [("TX Eri", "V", True)] * 5
    )
    assert {submitted_word(observatory, key) for key in keys} == {Submitted.EXPORTED}
    known = {(one.key, one.line) for one in ledger_of(observatory).lines()}
    assert {line for _, line in known} == set(lines_of(done))
    assert len(known) == 20


def test_an_observation_may_have_a_file_of_its_own(tmp_path):
    observatory = an_observatory(tmp_path, report={"per": "observation"})
    approved(observatory, a_night())
    approved(observatory, a_night(target="SV Wom", seed=2))
    export(observatory, who=WHO)
    assert names_in(observatory) == ["XYZ_20251015_SV_Wom_V.txt", "XYZ_20251015_TX_Eri_V.txt"]


def test_the_file_says_what_made_it_and_of_what(tmp_path):
    observatory = an_observatory(tmp_path, report={"notes": "windy", "obstype": "DSLR"})
    key = approved(observatory, a_night())
    (file,) = export(observatory, who=WHO).files
    text = file.path.read_text()
    assert "#OBSTYPE=DSLR\n" in text
    assert "#SOFTWARE=wombat " in text
    version = report.PRODUCTS["standard_magnitudes"].version(decisions.measured(observatory, key))
    assert f"# {key} (magnitudes {version})\n" in text
    assert all(row.line.notes.startswith("windy|") for row in rows_of(file.path))


def test_rejected_and_proposed_points_are_absent_and_restored_ones_there(observatory):
    table = a_night(n_frames=6)
    key = measured(observatory, table, magnitudes=proposed(table, 1, 2))
    decisions.reject_points(observatory, key, [table.raw_hashes[4]], who=WHO)
    decisions.restore_points(observatory, key, [table.raw_hashes[2]], who=WHO)
    decisions.approve(observatory, key, who=WHO)
    done = export(observatory, who=WHO)
    assert done.observations[0].n_not_reported == 2
    dates = [row.line.date for row in rows_of(done.files[0].path)]
    assert dates == [f"{table.times.jd_utc[i]:.6f}" for i in (0, 2, 3, 5)]


def test_a_dry_run_says_the_same_and_writes_nothing(observatory):
    approved(observatory, a_night())
    rehearsed = export(observatory, who=WHO, dry_run=True)
    assert not observatory.layout.reports_dir.exists()
    assert ledger_of(observatory).lines() == ()
    assert submitted_word(observatory, KEY) == Submitted.APPROVED
    done = export(observatory, who=WHO)
    assert rehearsed.files == done.files


# ----------------------------------------------------------------------------- once, and not twice


def history(observatory, n_nights=6):
    """Approve the nights of two stars; the odd nights of TX Eri have another comp in addition."""
    tables = {}
    for number in range(n_nights):
        date, jd = f"202510{number + 1:02d}", 2460949.5 + number
        for target in ("SV Wom", "TX Eri"):
            stars = STARS if target == "SV Wom" or number % 2 else STARS[:-1]
            table = a_night(date, target, seed=number, jd=jd, stars=stars, n_frames=4)
            tables[approved(observatory, table, date=date)] = table
    return tables


def test_after_submission_the_whole_history_exports_not_one_line(observatory):
    keys = history(observatory)
    done = export(observatory, who=WHO)
    assert done.n_lines == 4 * len(keys)
    assert export(observatory, who=WHO).n_lines == 0
    for file in done.files:
        ledger_of(observatory).submit(file=file.path.name, who=WHO)
    assert {submitted_word(observatory, key) for key in keys} == {Submitted.SUBMITTED}
    for which in (None, keys):  # what nothing happened to, and all of it looked at line by line
        again = export(observatory, which, who=WHO, amendments=True)
        assert (again.files, again.notes) == ((), ())
    assert sum(one.n_same for one in again.observations) == done.n_lines
    assert len(names_in(observatory)) == len(done.files)


def test_only_what_something_happened_to_is_looked_at_again(observatory):
    keys = [approved(observatory, a_night(target=target)) for target in ("SV Wom", "TX Eri")]
    with observatory.status._writing() as connection:
        connection.execute("UPDATE product SET made_utc = '2025-10-16T00:00:00+00:00'")
    export(observatory, who=WHO)
    assert export(observatory, who=WHO).n_settled == 2
    (file,) = names_in(observatory)
    ledger_of(observatory).submit(file=file, who=WHO)
    assert export(observatory, who=WHO).n_settled == 2
    measured(observatory, a_night(target="SV Wom", seed=4))
    (told,) = export(observatory, who=WHO).observations
    assert (told.key, told.n_amended) == (keys[0], 5)
    raw_hash = a_night().raw_hashes[0]
    ledger_of(observatory).withdraw(file=file, who=WHO)
    decisions.reject_points(observatory, keys[1], [raw_hash], who=WHO)
    told = {one.key: one for one in export(observatory, who=WHO).observations}
    assert told[keys[1]].n_new == 4


def test_other_words_for_the_notes_amend_nothing(tmp_path):
    approved(an_observatory(tmp_path), a_night())
    export(an_observatory(tmp_path), who=WHO)
    again = export(an_observatory(tmp_path, report={"notes": "windy"}), [KEY], who=WHO)
    assert (again.observations[0].n_same, again.observations[0].n_amended) == (5, 0)


def test_another_comp_magnitude_makes_exactly_the_lines_with_that_comp_amendments(observatory):
    tables = history(observatory)
    done = export(observatory, who=WHO)
    for file in done.files:
        ledger_of(observatory).submit(file=file.path.name, who=WHO)
    changed = dataclasses.replace(STARS[-1], catalogue_mag=STARS[-1].catalogue_mag + 0.03)
    with_it = {k for k, table in tables.items() if "TX_Eri" in k and len(table.stars) == len(STARS)}
    for key in with_it:
        other = dataclasses.replace(tables[key], stars=(*STARS[:-1], changed))
        measured(observatory, other, date=key[:8])
        approved_again(observatory, key)
    named = export(observatory, tables, who=WHO)
    assert named.files == ()
    assert {one.key for one in named.observations if one.n_amended} == with_it
    assert sum(one.n_amended for one in named.observations) == 4 * len(with_it) == 12
    amended = export(observatory, who=WHO, amendments=True)
    assert {key for file in amended.files for key in file.keys} == with_it
    assert [file.path.name for file in amended.files] == [
        f"XYZ_{key[:8]}_amended.txt" for key in sorted(with_it)
    ]
    hashes = {one.raw_hash for one in ledger_of(observatory).lines() if "amended" in one.file}
    assert hashes == {raw_hash for key in with_it for raw_hash in tables[key].raw_hashes}
    old = {row.line.date: row.line for file in done.files for row in rows_of(file.path)
           if row.line.star_id == "TX Eri"}  # fmt: skip
    for file in amended.files:
        for row in rows_of(file.path):
            before = old[row.line.date]
            assert row.line.magnitude != before.magnitude
            assert f"with MAG {before.magnitude}" in row.line.notes
    assert export(observatory, who=WHO, amendments=True).files == ()


def test_a_point_restored_later_goes_into_a_file_of_its_own_beside_the_first(observatory):
    table = a_night(n_frames=6)
    key = measured(observatory, table, magnitudes=proposed(table, 3))
    decisions.approve(observatory, key, who=WHO)
    (first,) = export(observatory, who=WHO).files
    before = first.path.read_bytes()
    decisions.restore_points(observatory, key, [table.raw_hashes[3]], who=WHO)
    (second,) = export(observatory, who=WHO).files
    assert (second.path.name, second.n_lines) == ("XYZ_20251015_2.txt", 1)
    assert first.path.read_bytes() == before


def test_the_name_of_a_deleted_file_is_not_used_again_and_its_absence_is_told(observatory):
    table = a_night(n_frames=6)
    key = measured(observatory, table, magnitudes=proposed(table, 3))
    decisions.approve(observatory, key, who=WHO)
    (first,) = export(observatory, who=WHO).files
    first.path.unlink()
    decisions.restore_points(observatory, key, [table.raw_hashes[3]], who=WHO)
    done = export(observatory, who=WHO)
    assert done.files[0].path.name == "XYZ_20251015_2.txt"
    (told,) = done.notes
    assert told.startswith("XYZ_20251015.txt is not submitted yet, and not there any more")
    assert export(observatory, who=WHO).notes == (told,)  # also when nothing is new
    ledger_of(observatory).withdraw(file=first.path.name, who=WHO)
    assert export(observatory, who=WHO).n_lines == 5


def test_a_file_that_lies_there_is_never_written_over(observatory):
    observatory.layout.reports_dir.mkdir(parents=True)
    own = observatory.layout.report_path("XYZ_20251015.txt")
    own.write_text("the person's own")
    approved(observatory, a_night())
    (second,) = export(observatory, who=WHO).files
    ledger_of(observatory).withdraw(file=second.path.name, who=WHO)
    (third,) = export(observatory, who=WHO).files
    assert names_in(observatory) == [
        "XYZ_20251015.txt",
        "XYZ_20251015_2.txt",
        "XYZ_20251015_3.txt",
    ]
    assert own.read_text() == "the person's own"
    assert third.path.read_text() == second.path.read_text()


def test_points_reported_and_now_rejected_or_gone_are_named(observatory):
    table = a_night(n_frames=5)
    approved(observatory, table)
    export(observatory, who=WHO)
    hashes = (*table.raw_hashes[:4], "another")
    later = dataclasses.replace(table, raw_hashes=hashes, times=dataclasses.replace(
        table.times, jd_utc=table.times.jd_utc + np.array([0, 0, 0, 0, 0.01])
    ))  # fmt: skip
    measured(observatory, later, magnitudes=proposed(later, 1))
    (told,) = export(observatory, who=WHO).observations
    assert told.n_amended == told.n_new == 0
    first, second = told.gone
    assert f"JD {table.times.jd_utc[1]:.6f} V was reported (XYZ_20251015.txt)" in first
    assert "now proposed to be rejected (cloud): delete it at the AAVSO" in first
    assert "now its frame is not there any more" in second


def test_a_line_that_the_aavso_has_from_elsewhere_is_never_reported(observatory):
    """AAVSO's times have 5 decimals: to either side of ours, under the AUID or another case."""
    table = a_night(n_frames=4)
    jd = [f"{value:.6f}" for value in table.times.jd_utc]
    there = [
        ("TX ERI", f"{float(jd[0]):.5f}"),
        ("000-BBB-492", f"{float(jd[1]) + 5e-6:.5f}"),
        ("TX Eri", f"{float(jd[2]) - 5e-6:.5f}"),
    ]
    ledger_of(observatory).add_foreign(
        [
            NewLine(observer="XYZ", star=s, band="V", jd=t, content_hash="", line="")
            for s, t in there
        ],
        file="aavso.csv",
    )
    approved(observatory, table)
    done = export(observatory, who=WHO, amendments=True)
    assert done.observations[0].n_at_aavso == 3
    assert [row.line.date for row in rows_of(done.files[0].path)] == [jd[3]]


def test_of_two_frames_at_one_time_to_the_last_digit_one_is_reported(observatory):
    """The AAVSO cannot tell them apart; the others are not kept back by it."""
    table = a_night(n_frames=4)
    times = table.times.jd_utc.copy()
    times[2] = times[1]
    table = dataclasses.replace(table, times=dataclasses.replace(table.times, jd_utc=times))
    approved(observatory, table)
    done = export(observatory, who=WHO)
    assert done.n_lines == 3
    assert done.observations[0].clashes == (
        f"frame2.fits at JD {times[2]:.6f}: so is frame1.fits of {KEY}",
    )
    again = export(observatory, [KEY], who=WHO)
    assert again.n_lines == 0
    assert "another frame is in XYZ_20251015.txt" in again.observations[0].clashes[0]


def test_two_variables_on_the_same_frames_are_reported_each_once(observatory):
    """Both are in the field: the directory is there under two targets."""
    table = a_night()
    other = dataclasses.replace(a_night(target="SV Wom", seed=2), raw_hashes=table.raw_hashes)
    first = approved(observatory, table)
    export(observatory, who=WHO)
    second = approved(observatory, other)
    done = {one.key: one for one in export(observatory, who=WHO).observations}
    assert (done[second].n_new, done[second].n_amended) == (5, 0)
    again = export(observatory, [first, second], who=WHO, amendments=True)
    assert [one.n_same for one in again.observations] == [5, 5]
    for file in ledger_of(observatory).files():
        ledger_of(observatory).withdraw(file=file, who=WHO)
    assert export(observatory, who=WHO).n_lines == 10


def test_a_night_that_is_there_twice_amends_nothing_of_itself(observatory):
    approved(observatory, a_night())
    export(observatory, who=WHO)
    ledger_of(observatory).submit(file="XYZ_20251015.txt", who=WHO)
    copied = dataclasses.replace(a_night(seed=4), raw_hashes=a_night().raw_hashes)
    copy = approved(observatory, copied, date="20251016")
    (told,) = export(observatory, [copy], who=WHO, amendments=True).observations
    assert (told.n_new, told.n_amended) == (0, 0)
    assert f"the same frame is in XYZ_20251015.txt, of {KEY}" in told.clashes[0]


def test_frames_that_were_saved_anew_are_to_be_looked_at_and_their_lines_not_deleted(observatory):
    table = a_night()
    approved(observatory, table)
    export(observatory, who=WHO)
    ledger_of(observatory).submit(file="XYZ_20251015.txt", who=WHO)
    again = dataclasses.replace(table, raw_hashes=tuple(x[::-1] for x in table.raw_hashes))
    measured(observatory, again)
    (told,) = export(observatory, who=WHO).observations
    assert len(told.gone) == 5
    assert "saved anew since, with other pixels" in told.gone[0]
    assert f"look, and wombat approve {KEY}" in told.gone[0]
    assert not any("delete" in words for words in told.gone)
    decisions.approve(observatory, KEY, who=WHO)
    (told,) = export(observatory, [KEY], who=WHO).observations
    assert (told.n_same, told.gone) == (5, ())


def test_an_amendment_names_what_differs_and_by_what_the_old_line_is_found(observatory):
    table = a_night(n_frames=3)
    approved(observatory, table)
    export(observatory, who=WHO)
    ledger_of(observatory).submit(file="XYZ_20251015.txt", who=WHO)
    jd = table.times.jd_utc
    later = dataclasses.replace(
        table,
        times=dataclasses.replace(table.times, jd_utc=jd + 1 / 24),
        variable=dataclasses.replace(table.variable, name="ZZ Eri"),
    )
    measured(observatory, later)
    done = export(observatory, who=WHO, amendments=True)
    notes = rows_of(done.files[0].path)[0].line.notes
    was = f"MAG 11.189 at JD {jd[0]:.6f} of TX Eri"
    assert f"with {was}; changed: STARID DATE|" in notes
    (told,) = done.observations
    assert told.amended[0] == (
        f"frame0.fits, JD {jd[0] + 1 / 24:.6f}: {was} in XYZ_20251015.txt, now 11.189;"
        " changed: STARID DATE"
    )


def test_a_filter_that_comes_later_makes_no_group_of_its_own(observatory):
    """The V lines are at the AAVSO without a number: one that B alone has says nothing."""
    approved(observatory, a_night())
    export(observatory, who=WHO)
    approved(observatory, a_night(filter="B", band="B", comp_band="B", jd=2460963.5003))
    (file,) = export(observatory, who=WHO).files
    assert {row.line.group for row in rows_of(file.path)} == {"na"}


def test_lines_from_elsewhere_at_other_times_of_the_night_are_named(observatory):
    """They may be of the same frames: another program took their beginnings."""
    table = a_night()
    half_a_minute_d = 30 / 86400
    foreign = [
        NewLine(observer="XYZ", star="tx eri", band=band, jd=f"{jd + half_a_minute_d:.5f}",
                content_hash="", line="")
        for band in ("V", "B") for jd in table.times.jd_utc
    ]  # fmt: skip
    ledger_of(observatory).add_foreign(foreign, file="aavso.csv")
    approved(observatory, table)
    (told,) = export(observatory, who=WHO).observations
    assert told.n_new == 5
    (words,) = told.nearby
    assert "the AAVSO has 4 more lines of TX Eri V within this night" in words
    assert f"(aavso.csv), the first at JD {foreign[0].jd}" in words


# --------------------------------------------------------------------------------- what is refused


def moved(table, by_mag=0.5):
    made = standardised(table)
    return dataclasses.replace(made, t1_mag=made.t1_mag + by_mag)


@pytest.mark.parametrize("word", [Submitted.EXPORTED, Submitted.SUBMITTED])
def test_magnitudes_that_were_not_approved_never_go_out(observatory, word):
    """Neither as an amendment nor as what is new beside it; approved as they are, they do."""
    table = a_night(n_frames=6)
    measured(observatory, table)
    decisions.reject_points(observatory, KEY, [table.raw_hashes[3]], who=WHO)
    decisions.approve(observatory, KEY, who=WHO)
    export(observatory, who=WHO)
    ledger_of(observatory).submit(file="XYZ_20251015.txt", who=WHO)
    decisions.restore_points(observatory, KEY, [table.raw_hashes[3]], who=WHO)
    if word == Submitted.EXPORTED:
        export(observatory, who=WHO)
    assert submitted_word(observatory, KEY) == word
    measured(observatory, table, magnitudes=moved(table))
    done = export(observatory, who=WHO, amendments=True)
    assert done.files == ()
    assert "T1 +0.500 mag in the median" in done.refused[0].refused[0]
    assert f"approve it as it is now first: wombat approve {KEY}" in done.refused[0].refused[0]
    decisions.approve(observatory, KEY, who=WHO)
    assert submitted_word(observatory, KEY) == word
    done = export(observatory, who=WHO, amendments=True)
    assert [file.is_amended for file in done.files] == (
        [True] if word == Submitted.EXPORTED else [False, True]
    )


def test_what_changed_is_told_and_no_refusal_while_nothing_of_it_is_asked_for(observatory):
    approved(observatory, a_night())
    export(observatory, who=WHO)
    measured(observatory, a_night(), magnitudes=moved(a_night()))
    (told,) = export(observatory, who=WHO).observations
    assert (told.n_amended, told.refused) == (5, ())


def test_lines_that_were_not_submitted_are_not_amended(observatory):
    table = a_night()
    approved(observatory, table)
    export(observatory, who=WHO)
    measured(observatory, table, magnitudes=moved(table))
    decisions.approve(observatory, KEY, who=WHO)
    done = export(observatory, who=WHO, amendments=True)
    assert done.files == ()
    (words,) = done.refused[0].refused
    assert "XYZ_20251015.txt is not submitted" in words
    assert "wombat submitted --withdraw XYZ_20251015.txt and report again" in words
    ledger_of(observatory).submit(file="XYZ_20251015.txt", who=WHO)
    assert export(observatory, who=WHO, amendments=True).n_lines == 5


@pytest.mark.parametrize("word", [Submitted.EXPORTED, Submitted.SUBMITTED])
def test_what_a_person_wrote_as_reported_is_not_reported_again(observatory, word):
    """By another program, before there was a ledger: wombat cannot know."""
    approved(observatory, a_night())
    with observatory.status._writing() as connection:
        connection.execute("UPDATE target SET submitted = ?", (word,))
    words = f"it says {word}, and wombat has reported nothing of it; set approved to report it"
    done = export(observatory, who=WHO)
    assert (done.files, done.observations, done.notes) == ((), (), (f"{KEY}: {words}",))
    (told,) = export(observatory, [KEY], who=WHO).observations
    assert told.refused == (words,)


def test_a_word_written_by_hand_approves_no_later_magnitudes(observatory):
    measured(observatory, a_night())
    with observatory.status._writing() as connection:
        connection.execute("UPDATE target SET submitted = 'approved'")
    export(observatory, who=WHO)
    ledger_of(observatory).submit(file="XYZ_20251015.txt", who=WHO)
    measured(observatory, a_night(), magnitudes=moved(a_night()))
    done = export(observatory, who=WHO, amendments=True)
    assert done.refused[0].refused == (f"how it is now was never approved: wombat approve {KEY}",)
    decisions.approve(observatory, KEY, who=WHO)
    assert export(observatory, who=WHO, amendments=True).n_lines == 5


def test_words_on_a_night_that_was_not_held_accept_no_later_hold(observatory):
    table = a_night()
    measured(observatory, table)
    decisions.approve(observatory, KEY, who=WHO, why="a fine night")
    measured(observatory, table, apphot="held")  # the charts say so by now
    (told,) = export(observatory, who=WHO).observations
    assert told.refused[0].startswith("held-night: ")
    measured(observatory, table)
    export(observatory, who=WHO)
    ledger_of(observatory).submit(file="XYZ_20251015.txt", who=WHO)
    held = dataclasses.replace(moved(table, 0.005), held_reason="T2 0.31 mag off")
    measured(observatory, table, apphot="held", magnitudes=held)
    done = export(observatory, who=WHO, amendments=True)
    assert done.files == ()
    assert "held: T2 0.31 mag off" in done.refused[0].refused[0]


def test_a_directory_that_cannot_be_written_to_is_refused_in_words(observatory, monkeypatch):
    approved(observatory, a_night())
    place = str(observatory.layout.reports_dir / ".lock")

    def forbidden(_path):
        raise PermissionError(13, "Permission denied", place)

    monkeypatch.setattr(report, "held", forbidden)
    with pytest.raises(Refusal, match=r"cannot be written: .*\.lock: Permission denied"):
        export(observatory, who=WHO)


def test_without_an_observer_code_nothing_is_reported(tmp_path):
    observatory = an_observatory(tmp_path, observer={})
    approved(observatory, a_night())
    with pytest.raises(Refusal, match=r"\[observer\] code"):
        export(observatory, who=WHO)


def test_only_what_is_approved_is_reported_and_the_others_are_refused_in_words(observatory):
    waiting = measured(observatory, a_night(target="SV Wom", seed=2))
    parked = measured(observatory, a_night(target="U Cep", seed=3), apphot="novsp")
    approved(observatory, a_night())
    assert [one.key for one in export(observatory, who=WHO, dry_run=True).observations] == [KEY]
    done = export(observatory, [waiting, parked, KEY, "20250101__X__V"], who=WHO)
    assert done.files[0].keys == (KEY,)
    words = {one.key: one.refused[0] for one in done.refused}
    assert words[waiting] == f"it is not approved yet: wombat approve {waiting}"
    assert words[parked] == "it has no magnitudes, it is novsp"
    assert words["20250101__X__V"] == "there is no such observation"


def test_an_observation_that_fails_the_lint_is_refused_whole_and_the_others_go_on(observatory):
    """One frame of the future, of which the other four of that observation know nothing."""
    table = a_night(target="SV Wom", seed=2)
    times = table.times.jd_utc.copy()
    times[4] = time.time() / 86400 + 2440587.5 + 30
    table = dataclasses.replace(table, times=dataclasses.replace(table.times, jd_utc=times))
    bad, good = approved(observatory, table), approved(observatory, a_night())
    done = export(observatory, who=WHO)
    assert [file.keys for file in done.files] == [(good,)]
    assert [one.key for one in done.refused] == [bad]
    assert done.findings[0].is_error
    assert submitted_word(observatory, bad) == Submitted.APPROVED
    assert ledger_of(observatory).lines(key=bad) == ()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"band_confirmed": False}, r'the header says "V"; say it in wombat\.toml'),
        ({"variable": Variable(name="TX Eri", ra_deg=10.0, dec_deg=20.0, match="position")},
         "wombat confirm 20251015__TX_Eri__V"),
        ({"variable": Variable(name="A star of too long a name for it", ra_deg=1.0, dec_deg=2.0)},
         "cannot stand in a report"),
    ],
)  # fmt: skip
def test_what_nobody_confirmed_is_refused(observatory, changes, words):
    table = dataclasses.replace(a_night(), **changes)
    approved(observatory, table)
    done = export(observatory, who=WHO)
    assert done.files == ()
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(*done.observations[0].refused)


def test_a_held_night_goes_out_only_when_it_was_approved_with_words(observatory):
    table = a_night()
    held = dataclasses.replace(standardised(table), held_reason="T2 0.31 mag off")
    approved(observatory, table)
    measured(observatory, table, apphot="held", magnitudes=held)  # made again since
    (told,) = export(observatory, who=WHO).observations
    assert told.refused == (
        "its magnitudes are not those that you approved: held: T2 0.31 mag off",
    )
    assert submitted_word(observatory, KEY) is None  # it waits again
    decisions.approve(observatory, KEY, who=WHO, why="T2 is a new variable")
    assert export(observatory, who=WHO).n_lines == 5


def test_what_cannot_be_read_is_refused_and_the_others_go_on(observatory):
    lost, good = approved(observatory, a_night(target="SV Wom", seed=2)), approved(
        observatory, a_night()
    )  # fmt: skip
    report.PRODUCTS["photometry_table"].path(observatory.layout, lost).unlink()
    done = export(observatory, who=WHO)
    assert [file.keys for file in done.files] == [(good,)]
    assert "its measurement table is not there" in done.refused[0].refused[0]


def test_an_approved_observation_that_was_parked_since_waits(observatory):
    approved(observatory, a_night())
    measured(observatory, a_night(), apphot="novsp")
    (told,) = export(observatory, who=WHO).observations
    assert told.refused[0].startswith("it is novsp since it was approved")


def test_a_point_that_is_rejected_in_this_moment_stops_the_file(observatory, monkeypatch):
    table = a_night()
    approved(observatory, table)
    real = ReportLedger.record

    def record(self, lines, **more):
        decisions.reject_points(observatory, KEY, [table.raw_hashes[0]], who="another tab")
        real(self, lines, **more)

    monkeypatch.setattr(ReportLedger, "record", record)
    done = export(observatory, who=WHO)
    assert done.files == ()
    assert "was rejected meanwhile" in done.observations[0].refused[0]
    assert names_in(observatory) == []
    monkeypatch.undo()
    assert export(observatory, who=WHO).n_lines == 4


# -------------------------------------------------------------------------- killed, and two at once

CHILD = """
import os, sys, time
from pathlib import Path
from wombat_dagster.stages import report
from wombat_dagster.store import locks, report_files
from wombat_dagster.store.report_ledger import ReportLedger
from wombat_dagster_tests.approved_nights import an_observatory
where = sys.argv[2]
def dies(real, *, after):
    def call(*args, **kwargs):
        if after:
            real(*args, **kwargs)
        os._exit(9)
    return call
if where == "name taken":
    report_files.write_hidden = dies(report_files.write_hidden, after=False)
elif where == "not recorded":
    ReportLedger.record = dies(ReportLedger.record, after=False)
elif where == "recorded":
    ReportLedger.record = dies(ReportLedger.record, after=True)
elif where == "no locks":
    locks._taken = lambda handle: True
    real = ReportLedger.record
    def record(self, *args, **kwargs):
        (Path(sys.argv[1]) / f"{os.getpid()}.ready").touch()
        until = time.monotonic() + 20
        while len(list(Path(sys.argv[1]).glob("*.ready"))) < 2 and time.monotonic() < until:
            time.sleep(0.01)
        return real(self, *args, **kwargs)
    ReportLedger.record = record
done = report.export(an_observatory(Path(sys.argv[1])), who="XYZ")
print(done.n_lines, len(done.refused))
"""


def child(root, where):
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(root), where], stdout=subprocess.PIPE, text=True
    )


@pytest.mark.parametrize("where", ["name taken", "not recorded", "recorded"])
def test_an_export_that_was_killed_is_finished_or_begun_anew(observatory, tmp_path, where):
    approved(observatory, a_night())
    with child(tmp_path, where) as killed:
        assert killed.wait() == 9
    assert len(list(observatory.layout.reports_dir.iterdir())) > 1  # the lock, and something
    done = export(observatory, who=WHO)
    assert names_in(observatory) == ["XYZ_20251015.txt"]
    assert [path.name for path in observatory.layout.reports_dir.glob(".*")] == [".lock"]
    written = [row.text for row in rows_of(observatory.layout.report_path("XYZ_20251015.txt"))]
    assert sorted(one.line for one in ledger_of(observatory).lines()) == sorted(written)
    assert len(written) == 5
    assert submitted_word(observatory, KEY) == Submitted.EXPORTED
    if where == "recorded":
        assert done.n_lines == 0
        (told,) = done.notes
        assert told.startswith("XYZ_20251015.txt was written to the end")
    else:
        assert (done.n_lines, done.notes) == (5, ())


@pytest.mark.parametrize("where", ["", "no locks"])
def test_two_exports_at_once_report_every_line_once(observatory, tmp_path, where):
    """Where the disk has no locks both come to the ledger, which lets one through."""
    approved(observatory, a_night())
    with child(tmp_path, where) as one, child(tmp_path, where) as other:
        told = sorted(process.communicate()[0].split() for process in (one, other))
    assert told == ([["0", "1"], ["5", "0"]] if where else [["0", "0"], ["5", "0"]])
    rows = [row for path in observatory.layout.reports_dir.glob("*.txt") for row in rows_of(path)]
    assert len(rows) == len(ledger_of(observatory).lines()) == 5


def test_a_full_disk_leaves_nothing_behind(observatory, monkeypatch):
    from wombat_dagster.store import report_files
    from wombat_dagster.store.disks import DiskFull

    approved(observatory, a_night())

    def full(_handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(report_files.os, "fsync", full)
    with pytest.raises(DiskFull):
        export(observatory, who=WHO)
    assert names_in(observatory) == []
    assert ledger_of(observatory).lines() == ()
    monkeypatch.undo()
    assert not locks.is_held(observatory.layout.reports_dir / ".lock")
    assert export(observatory, who=WHO).n_lines == 5
