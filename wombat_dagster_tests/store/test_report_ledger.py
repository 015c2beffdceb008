"""The ledger: a line is reported once, and known whatever its star is called."""

import dataclasses
import sqlite3
import threading
from contextlib import closing

import pytest

from wombat_dagster.domain import DecisionKind as Kind
from wombat_dagster.domain import ReportLine
from wombat_dagster.store.decisions import Decisions, Overtaken
from wombat_dagster.store.report_ledger import (
    AlreadyReported,
    NewLine,
    ReportLedger,
    content_hash,
)
from wombat_dagster.store.status import StatusDatabase

KEY, OTHER = "20251015__TX_Eri__V", "20251016__TX_Eri__V"
LINE = ReportLine(
    star_id="TX Eri", date="2460963.50000", magnitude="12.345", error="0.010", band="V",
    transformed="NO", magnitude_type="STD", comp_name="ENSEMBLE", comp_mag="na",
    check_name="000-BBB-123", check_mag="13.001", airmass="1.2", group="na", chart="X1",
    notes="na",
)  # fmt: skip


def new(frame="a", key=KEY, **changes):
    place = sum(frame.encode())
    fields = {
        "observer": "XYZ", "star": "TX Eri", "band": "V", "jd": f"{2460963.5 + place / 1000:.5f}",
        "content_hash": "first", "line": f"TX Eri,{frame}", "key": key, "raw_hash": frame,
    }  # fmt: skip
    return NewLine(**fields | changes)


@pytest.fixture
def status(tmp_path):
    found = StatusDatabase(tmp_path / "wombatpipeline.db")
    with closing(sqlite3.connect(found.path)) as connection, connection:
        connection.executemany(
            "INSERT INTO target (date, target, filter, night, key) VALUES (?,'TX Eri','V',?,?)",
            [(f"2025-10-{key[6:8]}", key[:8], key) for key in (KEY, OTHER)],
        )
    for key in (KEY, OTHER):
        Decisions(found.path).record(key, Kind.APPROVE, who="XYZ")
    return found


@pytest.fixture
def ledger(status):
    return ReportLedger(status.path)


def submitted(status, key=KEY):
    return status.target_row(key).submitted


def test_a_line_s_group_is_no_change_of_it_and_all_else_is():
    same = content_hash(dataclasses.replace(LINE, group="7"))
    assert same == content_hash(LINE)
    for field in dataclasses.fields(ReportLine):
        if field.name not in ("group", "notes"):
            assert content_hash(dataclasses.replace(LINE, **{field.name: "other"})) != same


def test_of_the_notes_what_can_be_computed_with_counts_and_the_words_do_not():
    first, words, value = (
        content_hash(dataclasses.replace(LINE, notes=notes))
        for notes in ("no flat|VMAGINS=-7.1", "stars elongated|VMAGINS=-7.1", "no flat|VMAGINS=-7")
    )
    assert words == first != value


def test_exported_lines_are_known_and_their_observation_is_exported(status, ledger):
    ledger.record([new("a"), new("b"), new("c", key=OTHER)], file="a.txt", who="XYZ")
    assert [(one.raw_hash, one.file) for one in ledger.lines(key=KEY)] == [
        ("a", "a.txt"), ("b", "a.txt"),
    ]  # fmt: skip
    assert len(ledger.lines(observer="xyz")) == 3
    assert ledger.lines(observer="ABC") == ()
    assert (submitted(status), submitted(status, OTHER)) == ("exported", "exported")
    last = Decisions(status.path).history(KEY)[-1]
    assert (last.kind, last.why, last.raw_hashes) == (Kind.EXPORT, "a.txt", ("a", "b"))


def test_no_line_gets_in_twice_and_then_nothing_is_written(status, ledger):
    ledger.record([new("a")], file="a.txt", who="XYZ")
    for lines in (
        [new("b"), new("a", star="000-BCC-123")],  # the same frame, called otherwise
        [new("x", jd=new("a").jd + "0")],  # the same star at the same time, in other pixels
        [new("b"), new("b")],
    ):
        with pytest.raises(AlreadyReported):
            ledger.record(lines, file="b.txt", who="XYZ")
    assert len(ledger.lines()) == 1
    ledger.record([new("a", band="B"), new("b", observer="ABC")], file="b.txt", who="XYZ")


def test_frames_of_half_a_second_are_lines_of_their_own(ledger):
    """0.5 s are 5.8e-6 d: the same fifth decimal of the Julian date, not the same sixth."""
    times = ("2460963.500001", "2460963.500007", "2460963.500012")
    lines = [new(frame, jd=jd) for frame, jd in zip("abc", times, strict=True)]
    ledger.record(lines[:1], file="a.txt", who="XYZ")
    assert list(ledger.known(lines)) == [0]
    ledger.record(lines[1:], file="b.txt", who="XYZ")


def test_an_amendment_takes_the_place_of_the_line_it_amends(status, ledger):
    ledger.record([new("a"), new("b")], file="a.txt", who="XYZ")
    old = ledger.known([new("a")])[0]
    status.note_changed_since(KEY, "T1 +0.02 mag")
    amended = new("a", content_hash="second", amends=old.id)
    ledger.record([amended], file="b.txt", who="XYZ")
    assert {(x.raw_hash, x.content_hash) for x in ledger.lines()} == {
        ("b", "first"), ("a", "second"),
    }  # fmt: skip
    assert status.target_row(KEY).changed_since is None
    with pytest.raises(AlreadyReported, match=r"b\.txt"):  # it is not the newest any more
        ledger.record([amended], file="c.txt", who="XYZ")
    ledger.withdraw(file="b.txt", who="XYZ")
    assert {x.content_hash for x in ledger.lines()} == {"first"}
    with pytest.raises(AlreadyReported, match="withdrawn"):
        ledger.record([new("z", amends=99)], file="c.txt", who="XYZ")


def test_the_middle_of_three_may_be_withdrawn_without_bringing_the_first_back(status, ledger):
    for number, file in enumerate(("a.txt", "b.txt", "c.txt")):
        known = ledger.known([new("a")])
        amends = known[0].id if known else None
        line = new("a", content_hash=str(number), amends=amends)
        ledger.record([line], file=file, who="XYZ")
    ledger.withdraw(keys=[KEY], who="XYZ")  # the newest: the one before counts again
    assert [x.content_hash for x in ledger.lines()] == ["1"]
    ledger.record([new("a", content_hash="3", amends=2)], file="d.txt", who="XYZ")
    with closing(sqlite3.connect(status.path)) as connection, connection:
        connection.execute("UPDATE report_line SET withdrawn_utc = 'x' WHERE id = 2")
    assert [x.content_hash for x in ledger.lines()] == ["3"]


def test_what_was_decided_since_the_lines_were_collected_counts(status, ledger):
    journal = Decisions(status.path)
    journal.record(KEY, Kind.REJECT_POINTS, who="ABC", raw_hashes=["a"])
    with pytest.raises(Overtaken, match="rejected meanwhile"):
        ledger.record([new("c", key=OTHER), new("a")], file="a.txt", who="XYZ")
    journal.undo(KEY, who="ABC")
    journal.undo(KEY, who="ABC")  # the approval
    with pytest.raises(Overtaken, match="not approved any more"):
        ledger.record([new("c", key=OTHER), new("a")], file="a.txt", who="XYZ")
    assert (ledger.lines(), submitted(status, OTHER)) == ((), "approved")


def test_of_two_reports_at_the_same_time_one_is_written(ledger):
    ended = []

    def export(file):
        try:
            ledger.record([new(str(i)) for i in range(9)], file=file, who="XYZ")
            ended.append("written")
        except AlreadyReported:
            ended.append("refused")

    threads = [threading.Thread(target=export, args=(f"{n}.txt",)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(ended) == ["refused", "refused", "written"]
    assert len(ledger.lines()) == 9


def test_an_observation_is_submitted_when_all_of_its_lines_are(status, ledger):
    ledger.record([new("a"), new("c", key=OTHER)], file="a.txt", who="XYZ")
    ledger.record([new("b")], file="b.txt", who="XYZ")
    assert ledger.submit(file="a.txt", who="XYZ") == 2
    assert (submitted(status), submitted(status, OTHER)) == ("exported", "submitted")
    assert ledger.submit(file="b.txt", who="XYZ") == 1
    assert ledger.submit(keys=[KEY], who="XYZ") == 0  # said before
    assert submitted(status) == "submitted"
    with pytest.raises(KeyError, match="no report"):
        ledger.submit(file="c.txt", who="XYZ")


def test_uploading_does_not_bring_back_what_the_person_looks_at_anew(status, ledger):
    """Submitted, approved anew with later frames, and recalled: it waits, whatever is uploaded."""
    ledger.record([new("a")], file="a.txt", who="XYZ")
    Decisions(status.path).record(KEY, Kind.RECALL, who="wombat")
    assert ledger.submit(file="a.txt", who="XYZ") == 1
    assert submitted(status) is None


def test_a_withdrawn_report_leaves_its_observations_approved_and_its_lines_new(status, ledger):
    ledger.record([new("a"), new("c", key=OTHER)], file="a.txt", who="XYZ")
    ledger.record([new("b")], file="b.txt", who="XYZ")
    ledger.submit(file="a.txt", who="XYZ")
    assert ledger.withdraw(file="a.txt", who="XYZ") == 2
    assert (submitted(status), submitted(status, OTHER)) == ("exported", "approved")
    assert (ledger.files(), ledger.known([new("a")])) == (("b.txt",), {})
    ledger.withdraw(keys=[KEY], who="XYZ")
    assert submitted(status) == "approved"
    ledger.record([new("a"), new("b")], file="c.txt", who="XYZ")
    assert submitted(status) == "exported"


def test_lines_of_other_programs_are_known_by_star_band_and_time(status, ledger):
    jd = new("a").jd
    foreign = new("a", key="", raw_hash="", jd=jd + "1", star="tx eri", line="AAVSO's")
    assert ledger.add_foreign([foreign, foreign], file="download.txt") == 1
    assert ledger.add_foreign([foreign], file="download.txt") == 0
    assert ledger.known([new("a"), new("b")])[0].origin == "aavso"
    assert list(ledger.known([foreign, new("b", key="", raw_hash="")])) == [0]
    with pytest.raises(AlreadyReported, match=r"download\.txt"):
        ledger.record([new("a")], file="a.txt", who="XYZ")
    ledger.record([new("b")], file="a.txt", who="XYZ")
    (ours,) = ledger.lines(key=KEY)
    cut = new("b", key="", raw_hash="", jd=f"{float(ours.jd) - 0.6e-5:.6f}")
    assert ledger.known([cut]) == {0: ours}
    assert ledger.submit_lines([ours.id], who="XYZ") == 1
    assert submitted(status) == "submitted"


def test_a_frame_has_a_line_for_each_variable_in_its_field(ledger):
    """The frames of one field, under two targets: neither is an amendment of the other."""
    other = new("a", key=OTHER, star="SV Wom")
    ledger.record([new("a")], file="a.txt", who="XYZ")
    assert ledger.known([other]) == {}
    ledger.record([other], file="b.txt", who="XYZ")
    assert {i: line.key for i, line in ledger.known([new("a"), other]).items()} == {
        0: KEY,
        1: OTHER,
    }


def test_a_file_whose_lines_were_amended_since_is_known_still(status, ledger):
    ledger.record([new("a")], file="a.txt", who="XYZ")
    ledger.record([new("a", content_hash="second", amends=1)], file="b.txt", who="XYZ")
    assert ledger.submit(file="a.txt", who="XYZ") == 1
    assert submitted(status) == "exported"  # b.txt is not there yet
    assert ledger.submit(file="b.txt", who="XYZ") == 1
    assert submitted(status) == "submitted"


def test_a_withdrawal_by_mistake_is_taken_back(status, ledger):
    ledger.record([new("a"), new("c", key=OTHER)], file="a.txt", who="XYZ")
    ledger.submit(file="a.txt", who="XYZ")
    ledger.withdraw(file="a.txt", who="XYZ")
    assert (ledger.files(), ledger.all_files()) == ((), ("a.txt",))
    with pytest.raises(KeyError, match=r"every line of a\.txt was withdrawn"):
        ledger.withdraw(file="a.txt", who="XYZ")
    ledger.record([new("c", key=OTHER)], file="b.txt", who="XYZ")  # reported anew meanwhile
    assert ledger.submit(file="a.txt", who="XYZ") == 1
    assert (submitted(status), submitted(status, OTHER)) == ("submitted", "exported")
    assert {one.file: one.key for one in ledger.lines()} == {"a.txt": KEY, "b.txt": OTHER}
    ledger.withdraw(file="a.txt", who="XYZ")
    ledger.record([new("a")], file="c.txt", who="XYZ")
    with pytest.raises(KeyError, match=r"its lines were reported anew in b\.txt, c\.txt"):
        ledger.submit(file="a.txt", who="XYZ")


def test_what_was_decided_after_a_withdrawal_stays_when_it_is_taken_back(status, ledger):
    ledger.record([new("a")], file="a.txt", who="XYZ")
    ledger.withdraw(file="a.txt", who="XYZ")
    Decisions(status.path).record(KEY, Kind.RECALL, who="wombat")
    assert ledger.submit(file="a.txt", who="XYZ") == 1
    assert submitted(status) is None
    ledger.withdraw(file="a.txt", who="XYZ")
    Decisions(status.path).record(KEY, Kind.REJECT, who="XYZ", why="cloud")
    with pytest.raises(Overtaken, match="was rejected since"):
        ledger.submit(file="a.txt", who="XYZ")


def test_an_observation_whose_lines_are_all_there_is_submitted_whoever_says_it(status, ledger):
    """The last of its files was withdrawn; the other was submitted before."""
    ledger.record([new("a")], file="a.txt", who="XYZ")
    ledger.record([new("b")], file="b.txt", who="XYZ")
    ledger.submit(file="a.txt", who="XYZ")
    ledger.withdraw(file="b.txt", who="XYZ")
    assert submitted(status) == "exported"
    assert ledger.submit(file="a.txt", who="XYZ") == 0
    assert submitted(status) == "submitted"


def test_a_download_may_be_withdrawn_and_not_submitted(status, ledger):
    foreign = new("a", key="", raw_hash="", content_hash="")
    ledger.add_foreign([foreign], file="aavso.csv")
    with pytest.raises(KeyError, match="no report"):
        ledger.submit(file="aavso.csv", who="XYZ")
    assert ledger.withdraw(file="aavso.csv", who="XYZ") == 1
    assert ledger.known([new("a")]) == {}


def test_a_time_with_four_decimals_from_elsewhere_is_the_same(ledger):
    jd = new("a").jd
    foreign = new("x", key="", raw_hash="", content_hash="", jd=f"{float(jd) + 4e-5:.4f}")
    ledger.add_foreign([foreign], file="aavso.csv")
    near = [new("a", jd=f"{float(foreign.jd) + off:.6f}") for off in (9.9e-5, -9.9e-5, 1.1e-4)]
    assert list(ledger.known(near)) == [0, 1]
