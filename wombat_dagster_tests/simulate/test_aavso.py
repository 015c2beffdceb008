"""The stand-in answers in the real formats, and fails in every way it promises."""

import json
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest

from wombat_dagster.simulate.aavso import Failure, Service, StandInAavso, sexagesimal

GOLDEN = Path(__file__).parents[1] / "golden" / "aavso"
XZ_CYG = json.loads((GOLDEN / "vsp_chart_XZ_Cyg_X37313LN.json").read_text())
PHI_PER = json.loads((GOLDEN / "vsx_object_phi_per.json").read_text())["VSXObject"]
XZ_CYG_CENTRE = {"ra": 293.122, "dec": 56.388}


@pytest.fixture
def aavso():
    variable = {"Name": "XZ Cyg", "RA2000": "293.12213", "Declination2000": "56.38819"}
    with StandInAavso([PHI_PER, variable], XZ_CYG["photometry"]) as server:
        yield server


def get(url, **query):
    """Return status and body; no proxy of the environment is asked."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(f"{url}?{urllib.parse.urlencode(query)}", timeout=5) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def chart(aavso, **query):
    status, body = get(aavso.vsp_url, **{**XZ_CYG_CENTRE, "format": "json", **query})
    assert status == 200
    return json.loads(body)


def test_a_known_name_gets_the_object_as_vsx_gives_it(aavso):
    _, body = get(aavso.vsx_url, view="api.object", ident="phi per", format="json")
    assert json.loads(body) == {"VSXObject": PHI_PER}


def test_an_unknown_name_gets_the_real_empty_answers(aavso):
    _, named = get(aavso.vsx_url, view="api.object", ident="WeSb 1", format="json")
    assert json.loads(named) == json.loads((GOLDEN / "vsx_object_unknown.json").read_text())
    _, listed = get(aavso.vsx_url, view="api.list", ra=10, dec=10, radius=0.1, format="json")
    assert json.loads(listed) == json.loads((GOLDEN / "vsx_list_empty.json").read_text())


def test_a_list_holds_the_stars_within_its_radius_in_degrees(aavso):
    near = {"ra": 25.91517, "dec": 50.68872 + 0.01, "view": "api.list", "format": "json"}
    _, inside = get(aavso.vsx_url, **near, radius=0.0101)
    assert [s["Name"] for s in json.loads(inside)["VSXObjects"]["VSXObject"]] == ["phi Per"]
    _, outside = get(aavso.vsx_url, **near, radius=0.0099)
    assert json.loads(outside) == {"VSXObjects": []}


def test_a_list_ends_at_its_faintest_maximum(aavso):
    """phi Per has its maximum at 3.96."""
    near = {"ra": 25.91517, "dec": 50.68872, "radius": 0.1, "view": "api.list"}
    _, bright = get(aavso.vsx_url, **near, tomag=3.9)
    assert json.loads(bright) == {"VSXObjects": []}
    _, all_of_them = get(aavso.vsx_url, **near, tomag=4)
    assert len(json.loads(all_of_them)["VSXObjects"]["VSXObject"]) == 1


def test_further_variables_of_a_field_may_lie_beside_the_answers(tmp_path):
    for name in ("vsx_object_phi_per.json", "vsx_list_m42_trimmed.json"):
        (tmp_path / name).write_bytes((GOLDEN / name).read_bytes())
    with StandInAavso.from_directory(tmp_path) as aavso:
        assert aavso.vsx_object("NSV 2149")["VSXObject"]["Category"] == "Suspected"
        assert aavso.vsx_object("phi Per")["VSXObject"] == PHI_PER


def test_a_chart_has_every_key_of_the_real_one(aavso):
    answer = chart(aavso, fov=120, maglimit=16)
    assert set(answer) == set(XZ_CYG)
    assert answer["photometry"] == XZ_CYG["photometry"]
    assert answer["star"] == "XZ Cyg"
    assert answer["ra"] == "19:32:29.28"
    assert answer["dec"] == "56:23:16.8"


def test_a_chart_stops_at_its_limit_and_at_its_edge(aavso):
    brighter = [s for s in XZ_CYG["photometry"] if s["bands"][0]["mag"] < 11.0]
    assert chart(aavso, fov=120, maglimit=11.0)["photometry"] == brighter
    # 000-BCG-990 is 14' from the centre, 000-BCH-225 38', 000-BMS-017 2'.
    inner = {s["auid"] for s in chart(aavso, fov=10, maglimit=16)["photometry"]}
    assert "000-BMS-017" in inner
    assert not {"000-BCG-990", "000-BCH-225"} & inner


def test_the_same_request_has_the_same_chart_and_it_can_be_fetched_again(aavso):
    first, other = chart(aavso, fov=60, maglimit=16), chart(aavso, fov=90, maglimit=16)
    assert chart(aavso, fov=60, maglimit=16)["chartid"] == first["chartid"] != other["chartid"]
    status, again = get(f"{aavso.vsp_url}{first['chartid']}/", format="json")
    assert (status, json.loads(again)) == (200, first)
    assert get(f"{aavso.vsp_url}X00000AAA/", format="json")[0] == 404


def test_wide_fields_are_refused_unless_the_limit_is_bright(aavso):
    query = {**XZ_CYG_CENTRE, "fov": 181, "format": "json"}
    assert get(aavso.vsp_url, **query, maglimit=12.5)[0] == 400
    assert get(aavso.vsp_url, **query, maglimit=12)[0] == 200
    assert get(aavso.vsp_url, ra=1, dec=1, format="json")[0] == 400


@pytest.mark.parametrize(
    ("failure", "status"),
    [("500", 500), ("403", 403), ("429", 429), ("html", 200), ("empty-body", 200), ("cut", 200)],
)
@pytest.mark.parametrize("service", list(Service))
def test_a_failing_service_gives_no_json_and_the_other_goes_on(aavso, service, failure, status):
    ask = {
        Service.VSX: (aavso.vsx_url, {"view": "api.object", "ident": "phi Per"}),
        Service.VSP: (aavso.vsp_url, {**XZ_CYG_CENTRE, "fov": 60, "maglimit": 16}),
    }
    aavso.fail(service, failure)
    for asked, (url, query) in ask.items():
        code, body = get(url, **query)
        if asked == service:
            assert code == status
            with pytest.raises(json.JSONDecodeError):
                json.loads(body)
        else:
            assert (code, bool(json.loads(body))) == (200, True)
    assert aavso.requests == {Service.VSX: 1, Service.VSP: 1}


def test_a_refused_connection_ends_without_an_answer(aavso):
    aavso.fail("vsp", "refused")
    with pytest.raises(OSError, match=r"reset|closed|without response"):
        get(aavso.vsp_url, **XZ_CYG_CENTRE, fov=60, maglimit=16)


def test_valid_empty_is_a_good_answer_with_nothing_in_it(aavso):
    aavso.fail(Service.VSP, Failure.VALID_EMPTY)
    aavso.fail(Service.VSX, Failure.VALID_EMPTY)
    assert chart(aavso, fov=60, maglimit=16)["photometry"] == []
    _, body = get(aavso.vsx_url, view="api.object", ident="phi Per")
    assert json.loads(body) == {"VSXObject": []}


def test_failures_are_switched_over_http_too(aavso):
    control = aavso.vsp_url.replace("/vsp/api/chart/", "/control")
    state = json.loads(get(control, service="vsp", fail="429")[1])
    assert state["vsp"] == {"fail": "429", "requests": 0}
    assert get(aavso.vsp_url, **XZ_CYG_CENTRE, fov=60, maglimit=16)[0] == 429
    assert json.loads(get(control, service="vsp", fail="none")[1])["vsp"]["fail"] == "none"
    assert chart(aavso, fov=60, maglimit=16)
    assert get(control, service="vsp", fail="melted")[0] == 400


def test_a_directory_of_answers_is_served(tmp_path):
    for name in ("vsx_object_phi_per.json", "vsp_chart_XZ_Cyg_X37313LN.json"):
        (tmp_path / name).write_bytes((GOLDEN / name).read_bytes())
    with StandInAavso.from_directory(tmp_path) as aavso:
        assert aavso.vsx_object("phi Per") == {"VSXObject": PHI_PER}
        assert len(chart(aavso, fov=180, maglimit=16.5)["photometry"]) == 6


@pytest.mark.parametrize(
    ("value", "decimals", "text"),
    [
        (-5.375333, 1, "-05:22:31.2"),
        (-0.1, 1, "-00:06:00.0"),
        (56.388194, 1, "56:23:17.5"),
        (1.9999999, 2, "02:00:00.00"),
    ],
)
def test_sexagesimal_as_vsp_writes_it(value, decimals, text):
    assert sexagesimal(value, decimals) == text


def test_a_chart_of_a_standard_field_holds_the_standards_alone():
    standard = {**XZ_CYG["photometry"][0], "auid": "000-STD-001"}
    with StandInAavso(comps=XZ_CYG["photometry"], standards=[standard]) as server:
        plain = chart(server, fov=60, maglimit=16)
        special = chart(server, fov=60, maglimit=16, special="std_field")
    assert "000-STD-001" not in [star["auid"] for star in plain["photometry"]]
    assert [star["auid"] for star in special["photometry"]] == ["000-STD-001"]
    assert special["special"] == "std_field"
    assert special["chartid"] != plain["chartid"]
