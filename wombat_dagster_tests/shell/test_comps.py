"""``wombat comps``: a person pins and bans comps, and the next run does so."""

import dataclasses
import datetime as dt

import numpy as np
import pytest
from click.testing import CliRunner

from wombat_dagster import config, runs
from wombat_dagster.commands.comps import comps
from wombat_dagster.domain import Unused
from wombat_dagster.products import PRODUCTS
from wombat_dagster.reports.finding_chart import MarkKind
from wombat_dagster.stages.finding_chart import chart_stars, finding_chart, marks_on
from wombat_dagster.stages.photometry import _words_on_check
from wombat_dagster.stages.pixels import CalibratedFrames
from wombat_dagster.stages.sequence import solved_frames

KEY = "20251014__SV_Wom__V"
NIGHT = dt.date(2025, 10, 14)


@pytest.fixture(scope="module")
def place(open_place, tmp_path_factory):
    with open_place(tmp_path_factory.mktemp("comps") / "obs") as opened:
        opened.take("20251014/Bias/*", "20251014/Flat/*V.fit", "20251014/Light/SV Wom/*V.fit")
        assert opened.run() == {}
        yield opened


@pytest.fixture
def wombat_comps(place, monkeypatch):
    """Return the command on the place's configuration, with nothing chosen before or after."""
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setenv(config.CONFIG_ENV, str(place.root / config.CONFIG_NAME))

    def run(*arguments):
        return CliRunner().invoke(comps, ["sv wom", *arguments])

    yield run
    for auid in ledger(place):
        run("--clear", auid)
    place.configure()


def ledger(place):
    return {entry.auid: entry for entry in place.product("photometry_table", KEY).ledger}


def due(place):
    with place.in_force() as observatory:
        return [row.observation.key for row in runs.plan(observatory).observations]


def of(place, *, role=None, reason=None):
    found = [a for a, e in ledger(place).items() if (e.role, e.reason) == (role, reason)]
    assert found
    return found[0]


def test_every_chart_star_is_listed_once_with_its_role_or_its_reason(place, wombat_comps):
    output = wombat_comps().output
    entries = ledger(place)
    assert len(entries) == 12
    lines = [line.strip() for line in output.splitlines()]
    for auid, entry in entries.items():
        (line,) = [line for line in lines if line.startswith(auid)]
        assert entry.label in line
        assert (entry.role or str(entry.reason)) in line
    in_order = [line.split()[0] for line in lines if line[:4] == "999-"]
    assert in_order[0] == of(place, role="T2")


def test_a_ban_and_a_pin_reach_the_next_run_and_stick(place, wombat_comps):
    first_check, faint = of(place, role="T2"), of(place, reason=Unused.TOO_BRIGHT)
    best_comp = of(place, role="C3")
    assert due(place) == []
    answer = wombat_comps("--ban", first_check.lower(), "--pin", faint)
    assert answer.exit_code == 0
    assert "1 observation of SV Wom: to be run again by wombat run." in answer.output
    assert due(place) == [KEY]
    for _ in range(2):
        assert place.run(night=NIGHT, nights=False) == {}
        entries = ledger(place)
        assert entries[first_check].detail == "banned by the observer"
        assert entries[best_comp].role == "T2"
        assert entries[faint].reason is not Unused.TOO_BRIGHT  # used, or saturated
        assert due(place) == []
    lines = [line.split() for line in wombat_comps().output.splitlines()]
    assert [words[-1] for words in lines if words[:1] == [first_check]] == ["ban"]


def test_a_check_star_that_was_chosen_is_t2(place, wombat_comps):
    chosen = of(place, role="C5")
    wombat_comps("--check", chosen)
    assert place.run() == {}
    assert ledger(place)[chosen].role == "T2"


def test_a_check_star_that_cannot_serve_is_in_the_notes_of_the_magnitudes(place, wombat_comps):
    """One that the chart does not have, and one whose light shows that it cannot serve."""
    place.configure(tail='[[target]]\ndirectory = ["SV Wom"]\ncheck = "000-XXX-999"')
    assert place.run(night=NIGHT, nights=False) == {}
    notes = place.product("standard_magnitudes", KEY).notes
    assert "the check star asked for, 000-XXX-999, is not usable" in notes
    place.configure()
    t2 = of(place, role="T2")
    wombat_comps("--check", t2)
    lost = dataclasses.replace(
        ledger(place)[t2], role=None, reason=Unused.SATURATED, detail="saturated on 3 of 8 frames"
    )
    assert _words_on_check(
        place.observatory, place.row("SV Wom").observation, place.product("comp_list", KEY), [lost]
    ) == [f"the check star asked for, {t2}, is not usable: saturated on 3 of 8 frames"]


def test_wombat_toml_wins_where_both_speak(place, wombat_comps):
    chosen, other = of(place, role="C4"), of(place, role="C5")
    place.configure(tail=f'[[target]]\ndirectory = ["SV Wom"]\ncheck = "{other}"')
    answer = wombat_comps("--check", chosen, "--ban", other)
    assert f"{chosen}: wombat.toml says otherwise, and wins" in answer.output
    assert f"{other}: wombat.toml says otherwise, and wins" in answer.output
    assert place.run() == {}
    assert ledger(place)[other].role == "T2"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--pin", "000-XXX-999"], "000-XXX-999: not on the chart of SV Wom, which has 12 stars"),
        (["--clear", "000-XXX-999"], "nothing was chosen for 000-XXX-999"),
        (["--pin", "000-A", "--ban", "000-a"], "000-A: one choice a star"),
        (["--pin", ""], "an empty AUID is no star"),
        (["--check", " "], "an empty AUID is no star"),
        (["--pin", "000-\x1b[2J"], "000-\N{REPLACEMENT CHARACTER}[2J: not on the chart"),
        (["--pin", "no-such"], "wombat comps 'SV Wom' lists them"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_changes(place, wombat_comps, arguments, words):
    before = due(place)
    answer = wombat_comps(*arguments)
    assert answer.exit_code == 2
    assert words in answer.output
    assert due(place) == before


def test_an_unknown_target_is_refused_with_those_there_are(wombat_comps):
    answer = CliRunner().invoke(comps, ["RZ Abc"])
    assert answer.exit_code == 2
    assert 'no target "RZ Abc"; there are: SV Wom' in answer.output


def test_the_target_itself_is_no_comp(place, wombat_comps):
    itself = place.product("variable", KEY).auid
    answer = wombat_comps("--pin", itself)
    assert answer.exit_code == 2
    assert f"{itself} is SV Wom itself" in answer.output


def test_the_name_of_a_directory_of_products_serves_too(place, wombat_comps):
    answer = CliRunner().invoke(comps, ["sv_wom"])
    assert answer.exit_code == 0
    assert answer.output == wombat_comps().output


@pytest.fixture
def row_as_it_was(place):
    row = place.row("SV Wom")
    yield
    words = {"proc": row.proc, "apphot": row.apphot, "reason": row.reason}
    place.observatory.status.set_status(KEY, words)


def test_what_ended_before_shows_its_word_and_nothing_that_was_measured_before(
    place, wombat_comps, row_as_it_was
):
    """All comps are banned and the run ends with nocomps: the old table is not believed."""
    roles = {auid: entry.role for auid, entry in ledger(place).items() if entry.role}
    bans = [word for auid in roles for word in ("--ban", auid)]
    answer = wombat_comps(*bans)
    assert f"Every star that served is banned ({len(roles)})" in answer.output
    place.observatory.status.set_status(
        KEY, {"apphot": "nocomps", "reason": "none of 12 stars is usable"}
    )
    output = wombat_comps().output
    assert "SV Wom V, 2025-10-14: nocomps – none of 12 stars is usable" in output
    lines = [line.split() for line in output.splitlines()]
    for auid, role in roles.items():
        (line,) = [words for words in lines if words[:1] == [auid]]
        assert line[-1] == "ban"
        assert role not in line


def test_a_damaged_table_is_said_with_what_makes_it_anew(place, wombat_comps):
    path = PRODUCTS["photometry_table"].path(place.observatory.layout, KEY)
    content = path.read_bytes()
    try:
        path.write_bytes(content[: len(content) // 2])
        output = wombat_comps().output
    finally:
        path.write_bytes(content)
    assert "its photometry.npz is damaged; wombat run 20251014 'SV Wom' makes it anew" in output


def test_the_finding_chart_marks_the_stars_where_the_frame_shows_them(place):
    """Within 2 px of the mark of every measured star lies the highest pixel of its surroundings."""
    observatory = place.observatory
    observation = place.row("SV Wom").observation
    reduction, solutions, table, candidates = (
        place.product(asset, KEY)
        for asset in ("reduced_frames", "wcs_solutions", "photometry_table", "comp_list")
    )
    stars = chart_stars(observatory, candidates)
    assert set(stars) == {entry.auid for entry in table.ledger}
    frame, _, wcs = solved_frames(reduction, solutions)[0]
    assert frame.label == table.labels[0]
    image, _ = CalibratedFrames(observatory, observation, reduction).read(frame)
    marks = marks_on(0, wcs, table, candidates, stars)
    measured = [m for m in marks if m.kind not in (MarkKind.REJECTED, MarkKind.VARIABLE)]
    assert [m.words.split()[0] for m in measured] == [star.role for star in table.stars]
    for m in measured:
        x, y = round(m.x_px), round(m.y_px)
        part = image[y - 5 : y + 6, x - 5 : x + 6]
        assert np.abs(np.array(np.unravel_index(np.argmax(part), part.shape)) - 5).max() <= 2
    n_unused = sum(e.reason not in (None, Unused.IS_TARGET) for e in table.ledger)
    assert sum(m.kind is MarkKind.REJECTED for m in marks) == n_unused
    png = finding_chart(observatory, observation, reduction, solutions, table, candidates)
    assert png.startswith(b"\x89PNG")
    assert len(png) < 200_000


# ---------------------------------------------------------------------- the variables of the field


def test_with_vsx_away_the_comments_alone_decide_and_the_night_goes_on(place):
    for path in (place.root / "cache").rglob("*.json"):
        if path.name.startswith("field"):
            path.unlink()
    place.aavso.fail("vsx", "500")
    try:
        assert place.run(night=NIGHT, nights=False) == {}
    finally:
        place.aavso.fail("vsx", "none")
    assert place.row("SV Wom").apphot == "validate"
    candidates = place.product("comp_list", KEY)
    assert candidates.known_variables is None
    assert any(
        "not compared with VSX's variables: VSX did not answer" in n for n in candidates.notes
    )
    assert place.run(night=NIGHT, nights=False) == {}
    assert place.product("comp_list", KEY).known_variables == ()  # T1 is not counted


def test_a_comp_that_vsx_lists_is_in_the_ledger_as_variable(place):
    comp = next(c for c in place.sky.field.comps if c.auid == of(place, role="C3"))
    for path in (place.root / "cache").rglob("field*.json"):
        path.unlink()
    place.aavso.add(
        [
            {
                "Name": "NSV 77777", "RA2000": f"{comp.ra_deg:.5f}", "Category": "Suspected",
                "Declination2000": f"{comp.dec_deg:.5f}", "MaxMag": "12.1 V", "OID": "77",
            }
        ]
    )  # fmt: skip
    assert place.run(night=NIGHT, nights=False) == {}
    entry = ledger(place)[comp.auid]
    assert entry.reason is Unused.VARIABLE
    assert entry.detail.startswith("NSV 77777 of VSX (suspected)")
