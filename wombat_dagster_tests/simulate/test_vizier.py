"""The stand-in's VizieR: real HTTP, real VOTables, and what it refuses."""

import json
from io import BytesIO
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest
from astropy.io.votable import parse

from wombat_dagster.simulate.aavso import VIZIER_PATH, StandInAavso
from wombat_dagster.simulate.vizier import APASS, REFCAT2

GOLDEN = Path(__file__).parents[1] / "golden" / "aavso"
STARS = json.loads((GOLDEN / "vsp_chart_XZ_Cyg_X37313LN.json").read_text())["photometry"]
AROUND = "-c=293.12200000+56.38800000\n-c.rd=1"


@pytest.fixture(scope="module")
def aavso():
    with StandInAavso(comps=STARS) as server:
        yield server


def post(aavso, *lines):
    with urlopen(aavso.vizier_url + VIZIER_PATH, data="\n".join(lines).encode()) as answer:
        return answer.read()


def rows(answer):
    return [row for table in parse(BytesIO(answer)).iter_tables() for row in table.array]


def test_columns_limits_and_rows_are_those_asked_for(aavso):
    asked = [f"-source={APASS}", AROUND, "-out=RAJ2000,Vmag,g'mag"]
    answer = post(aavso, *asked, "-out.max=unlimited")
    assert len(rows(answer)) == len(STARS)
    (table,) = parse(BytesIO(answer)).iter_tables()
    assert table.name == APASS
    assert [field.name for field in table.fields] == ["RAJ2000", "Vmag", "g'mag"]
    bright = rows(post(aavso, *asked, "-out.max=unlimited", "Vmag=<11"))
    assert sorted(round(float(row["Vmag"]), 3) for row in bright) == [8.204, 8.685, 10.935]
    assert len(rows(post(aavso, *asked, "-out.max=2"))) == 2


def test_without_a_limit_there_are_50_rows(aavso, monkeypatch):
    monkeypatch.setattr("wombat_dagster.simulate.vizier.DEFAULT_ROWS", 3)
    assert len(rows(post(aavso, f"-source={REFCAT2}", AROUND))) == 3


def test_what_vizier_does_not_have_is_an_error_inside_a_good_answer(aavso):
    answer = post(aavso, "-source=II/999", AROUND)
    assert b'name="QUERY_STATUS" value="ERROR"' in answer
    assert rows(answer) == []


def test_a_question_without_a_place_is_refused(aavso):
    with pytest.raises(HTTPError) as refusal:
        post(aavso, f"-source={APASS}")
    with refusal.value as answer:  # closes its connection
        assert answer.code == 400
        assert b"no circle" in answer.read()


def test_only_vizier_has_a_database_to_lose(aavso):
    with pytest.raises(ValueError, match="does not fail by database"):
        aavso.fail("vsp", "database")
