"""Comparison stars while VSP is away: from a chart on disk, from a catalogue, or none yet."""

import datetime as dt

import pytest

from wombat_dagster.catalogs.vsp import chart_request
from wombat_dagster.checks import CHECKS
from wombat_dagster.domain import FrameKind, VspUnavailable
from wombat_dagster.simulate.aavso import Service
from wombat_dagster.stages import (
    choice,
    masters,
    photometry,
    reduction,
    sequence,
    solving,
    standard,
)
from wombat_dagster.stages.finding_chart import chart_stars
from wombat_dagster.stages.remade import what_differs


@pytest.fixture(scope="module")
def solved_place(open_place, tmp_path_factory):
    """One observation, solved; what its stages gave stands in `place.done`."""
    with open_place(tmp_path_factory.mktemp("outage") / "obs") as place:
        place.take("20251014/Bias/*", "20251014/Flat/*V.fit", "20251014/Light/SV Wom/*V.fit")
        observatory = place.observatory
        observatory.scan()
        (row,) = observatory.status.targets()
        for kind in (FrameKind.BIAS, FrameKind.FLAT):
            masters.make_masters(observatory, row.observation.date, kind)
        chosen = choice.choose_calibration(observatory, row.observation)
        reduced = reduction.reduce_observation(observatory, row.observation, chosen)
        solutions = solving.solve_observation(observatory, row.observation, reduced)
        place.done = row.observation, reduced, solutions
        yield place


@pytest.fixture
def outage(solved_place):
    """The place with VSP away, nothing remembered, and a function that chooses its comps."""

    class Outage:
        place, aavso = solved_place, solved_place.aavso

        def configure(self, fallback):
            vizier = f'vizier_url = "{self.aavso.vizier_url}"'
            self.place.configure(aavso=vizier, comps=f'fallback = "{fallback}"')

        def choose(self):
            observatory = self.place.observatory
            observation, reduced, solutions = self.place.done
            variable = sequence.find_variable(observatory, observation)
            return sequence.choose_comps(observatory, observation, reduced, solutions, variable)

    solved_place.forget_services()
    for service in Service:
        solved_place.aavso.fail(service, "none")
    solved_place.aavso.fail("vsp", "500")
    outage = Outage()
    outage.configure("off")
    return outage


def requests(aavso, service):
    return aavso.requests[Service(service)]


def test_without_a_fallback_the_observation_waits_and_the_next_one_asks_nobody(outage):
    before, before_vizier = requests(outage.aavso, "vsp"), requests(outage.aavso, "vizier")
    with pytest.raises(VspUnavailable, match="VSP away at"):
        outage.choose()
    assert requests(outage.aavso, "vsp") == before + 1
    with pytest.raises(VspUnavailable, match="VSP is away since"):
        outage.choose()
    assert requests(outage.aavso, "vsp") == before + 1
    assert requests(outage.aavso, "vizier") == before_vizier


def test_what_was_asked_for_and_its_version_are_written_down(outage):
    outage.aavso.fail("vsp", "none")
    observatory, got = outage.place.observatory, outage.choose()
    assert got.chart_source == "VSP"
    (asked,) = [query for service, query in outage.aavso.queries[-2:] if service == "vsp"]
    request = got.chart_request
    assert f"{request.ra_deg:.3f} {request.fov_arcmin:g}" == f"{asked['ra']} {asked['fov']}"
    assert got.chart_version == sequence.chart_version_now(observatory, request)
    assert sequence.chart_version_now(observatory, chart_request(1.0, 1.0, 10.0, 16.5)) is None
    outage.aavso.fail("vsp", "500")
    assert outage.choose() == got  # the chart on disk hides the outage


@pytest.mark.parametrize(
    ("fallback", "title"), [("apass", "APASS DR9"), ("refcat2", "ATLAS-REFCAT2")]
)
def test_a_catalogue_stands_in_marked_and_its_magnitudes_agree(outage, fallback, title):
    """T1 by catalogue stars and by the chart agrees within the errors of their zero points."""
    outage.configure(fallback)
    got = outage.choose()
    assert (got.chart_source, got.chart_id) == (f"{title} (VizieR)", title)
    said = [note for note in got.notes if note.startswith("VSP")]
    assert said == [f"VSP did not answer on {dt.datetime.now(dt.UTC):%Y-%m-%d} UTC"]
    derived = any("Rc and Ic from" in note for note in got.notes)
    assert derived == (fallback == "refcat2")  # it concerns APASS's Rc and Ic, and REFCAT2's V
    assert any("in place of VSP's" in note for note in got.notes)
    assert all(star.auid.startswith(("APASS_", "REFC2_")) for star in got.ranked)
    observatory = outage.place.observatory
    assert sequence.chart_version_now(observatory, got.chart_request) is None
    answer = chart_stars(observatory, got)  # found on disk: more than those that may serve
    assert {e.auid for e in got.ledger if e.auid} <= answer.keys()
    outage.aavso.fail("vsp", "none")
    observatory.vsp.probe()
    chart = outage.choose()
    assert chart.chart_source == "VSP"
    assert chart.chart_request == got.chart_request
    assert chart.chart_version != got.chart_version

    def measured(candidates):
        observation, reduced, solutions = outage.place.done
        table = photometry.measure_observation(
            observatory, observation, reduced, solutions, candidates
        )
        return standard.standard_magnitudes_of(observatory, observation, reduced, table)

    by_catalogue, by_chart = measured(got), measured(chart)
    assert (by_catalogue.chart_id, by_catalogue.comp_source) == (title, f"{title} (VizieR)")
    assert by_chart.comp_source == "VSP"
    (check,) = [c for c in CHECKS["standard_magnitudes"] if c.name == "comps_from_aavso"]
    assert check.fault(by_chart) is None
    assert check.fault(by_catalogue).startswith(f"comps from {title} (VizieR), not the AAVSO's")
    told = what_differs(by_catalogue, by_chart)
    assert f"chart {title} → {by_chart.chart_id}" in told
    assert "none in both" in told
    assert "bias" not in told
    assert "not known" not in told
    limit = 3.0 * (by_catalogue.zp_err_mag**2 + by_chart.zp_err_mag**2) ** 0.5
    assert by_catalogue.t1_mag == pytest.approx(by_chart.t1_mag, abs=limit)


def test_both_away_says_both(outage):
    outage.configure("apass")
    outage.aavso.fail("vizier", "database")
    with pytest.raises(VspUnavailable, match=r"VSP away at .*HTTP 500; VizieR away at .*database"):
        outage.choose()
    with pytest.raises(VspUnavailable, match=r"VSP is away since .*; VizieR is away since"):
        outage.choose()


def test_a_catalogue_without_fit_stars_is_no_word_on_the_field(outage):
    """Whether the field has comparison stars only VSP can say: parked, not `nocomps`."""
    outage.configure("apass")
    outage.aavso.fail("vizier", "valid-empty")
    with pytest.raises(VspUnavailable, match=r"VSP away at .*none of 0 stars of chart APASS DR9"):
        outage.choose()
