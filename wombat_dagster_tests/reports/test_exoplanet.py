"""The AAVSO's exoplanet report: its rules, and that nothing is said which is not known.

Rules and limits: AAVSO Exoplanet WebObs Users Guide, revision 1.0 (apps.aavso.org/exosite/doc).
"""

import dataclasses

import numpy as np
import pytest

from wombat_dagster.reports import exoplanet, export
from wombat_dagster.reports.exoplanet import NoReport, TransitFacts, exoplanet_report
from wombat_dagster_tests.curves import HOST, TX_ERI, photometry


def facts(**changes):
    known = {
        "observer_code": "ABC", "software": "wombat 9.9", "star": HOST, "planet": "WASP-135 b",
        "binning": "2x2", "exposure_s": np.full(12, 60.0), "band": "R", "camera": "QHY 600",
        "chart_id": "X1", "comp_names": ("000-C3", "000-C4"),
    }  # fmt: skip
    return TransitFacts(**known | changes)


def flux(**changes):
    return export.relative_flux(photometry(12, **changes), extra=0.0)


def header(text):
    lines = [line[1:].partition("=") for line in text.splitlines() if line.startswith("#")]
    return {name: value for name, equals, value in lines if equals}


def rows(text):
    return [line.split(",") for line in text.splitlines() if not line.startswith("#")]


def test_the_header_holds_what_the_guide_requires():
    got = header(exoplanet_report(facts(), flux()))
    notes = got.pop("NOTES")
    assert got == {
        "TYPE": "EXOPLANET", "OBSCODE": "ABC", "SECONDARY_OBSCODES": "na",
        "SOFTWARE": "wombat 9.9", "DELIM": ",", "DATE_TYPE": "BJD_TDB", "OBSTYPE": "CCD",
        "STAR_NAME": "WASP-135", "EXOPLANET_NAME": "WASP-135 b", "BINNING": "2x2",
        "EXPOSURE_TIME": "60", "FILTER": "R", "DETREND_PARAMETERS": "AIRMASS,X,SKY",
        "MEASUREMENT_TYPE": "Rnflux",
        "PRIORS": "Period=1.4013794,Tc(HJD)=2455230.9902 (VSX)", "RESULTS": "na",
    }  # fmt: skip
    assert "normalised to the median of all points" in notes
    assert "000-C3 000-C4, chart X1" in notes


def test_rows_are_bjd_flux_error_and_airmass_first():
    measured = flux()
    text = exoplanet_report(facts(), measured)
    assert "#DATE,DIFF,ERR,DETREND_1,DETREND_2,DETREND_3\n" in text
    got = np.array(rows(text), dtype=float)
    assert got[:, 0] == pytest.approx(measured.bjd_tdb, abs=1e-8)
    assert got[:, 1] == pytest.approx(measured.flux, abs=1e-8)
    assert got[:, 2] == pytest.approx(measured.error, abs=1e-6)
    assert got[:, 3] == pytest.approx(np.linspace(1.1, 1.6, 12), abs=1e-6)


def test_nothing_is_said_of_a_star_that_vsx_knows_little_of():
    bare = dataclasses.replace(HOST, period_d=None, epoch_hjd=None)
    got = header(exoplanet_report(facts(star=bare), flux()))
    assert (got["PRIORS"], got["RESULTS"]) == ("na", "na")


@pytest.mark.parametrize(
    ("kind", "hosts"),
    [("EP", True), ("DSCT+EP", True), ("EP:", True), ("ROT|EP", True), ("CEP", False),
     ("EW", False), ("DCEP", False), (None, False)],
)  # fmt: skip
def test_which_types_host_a_planet(kind, hosts):
    assert exoplanet.hosts_planet(kind) is hosts


@pytest.mark.parametrize(
    ("directory", "planet"),
    [("WASP-135b", "WASP-135b"), ("HAT-P-32_b", "HAT-P-32 b"), ("WASP-135", None),
     ("TX Eri b", None)],
)  # fmt: skip
def test_a_directory_that_ends_in_a_planet_s_letter_names_it(directory, planet):
    assert exoplanet.planet_of_directory(directory) == planet


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"star": TX_ERI}, "the type of TX Eri is EW, EP"),
        ({"observer_code": "abc"}, "observer code 'abc'"),
        ({"observer_code": "TOOLONG"}, "observer code 'TOOLONG'"),
        ({"binning": "5x5"}, "binning 5x5, one of 1x1 2x2 3x3 4x4"),
        ({"band": "Clear"}, "'Clear' is no AAVSO filter code"),
        ({"exposure_s": np.array([60.0, 900.0])}, "exposures 60 to 900 s, up to 600 s"),
        ({"exposure_s": np.array([np.nan, 60.0])}, "exposures nan to nan s"),
        ({"planet": "x" * 101}, "EXOPLANET_NAME has 101 characters, at most 100"),
        ({"planet": " "}, "EXOPLANET_NAME is empty"),
        ({"star": dataclasses.replace(HOST, name="β Pic")}, "only ASCII .* β"),
    ],
)
def test_what_breaks_the_rules_is_refused_in_words(changes, words):
    with pytest.raises(NoReport, match=words):
        exoplanet_report(facts(**changes), flux())


def test_errors_of_unknown_size_are_no_report_and_what_they_count_is_noted():
    unknown = dataclasses.replace(flux(), errors_known=False, error_words="gain not known")
    with pytest.raises(NoReport, match="gain not known"):
        exoplanet_report(facts(), unknown)
    assert (
        "errors count photons, sky, read-out; not known and left out: dark"
        in header(exoplanet_report(facts(), flux()))["NOTES"]
    )


def test_a_name_with_a_line_break_cannot_make_a_line_of_its_own():
    text = exoplanet_report(facts(camera="QHY\n2460000,nan,nan", planet="WASP-135\n b"), flux())
    assert len(rows(text)) == 12
    assert header(text)["EXOPLANET_NAME"] == "WASP-135 b"


def test_a_detrend_value_that_is_not_known_is_na():
    measured = flux()
    measured.detrend["X"][3] = np.nan
    assert rows(exoplanet_report(facts(), measured))[3][4] == "na"


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ("#OBSCODE=ABC\n", "", "#OBSCODE= stands 0 times"),
        ("#TYPE=EXOPLANET\n", "#TYPE=EXOPLANET\n#TYPE=EXOPLANET\n", "#TYPE= stands 2 times"),
        ("AIRMASS,X,SKY", "A,B,C,D,E", "5 detrend parameters, at most 4"),
        ("AIRMASS,X,SKY", "AIRMASS,X", "fields, 5 wanted"),
        ("\n2460", "\n\n2460", "has 1 fields"),
        ("\n2460", "\nnan,", "fields, 6 wanted"),
    ],
)
def test_a_report_that_breaks_a_rule_is_caught(before, after, words):
    text = exoplanet_report(facts(), flux())
    with pytest.raises(NoReport, match=words):
        exoplanet.check_report(text.replace(before, after, 1))


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [(1, "nan", "NaN or an infinity"), (1, "inf", "NaN or an infinity"),
     (2, "0.000000", "positive"), (0, "2460000.5", "earlier"), (3, "high", "no number")],
)  # fmt: skip
def test_a_row_that_breaks_a_rule_is_caught(field, value, words):
    lines = exoplanet_report(facts(), flux()).splitlines()
    cells = lines[-1].split(",")
    cells[field] = value
    with pytest.raises(NoReport, match=words):
        exoplanet.check_report("\n".join([*lines[:-1], ",".join(cells)]) + "\n")


def test_the_guide_s_own_example_passes_but_for_its_old_row_of_na():
    """Appendix A of the guide, one row, with the fields its header promises."""
    text = (
        "#TYPE=EXOPLANET\n#OBSCODE=CDEC\n#SOFTWARE=AstroImageJ\n#DELIM=,\n#DATE_TYPE=BJD_TDB\n"
        "#OBSTYPE=CCD\n#STAR_NAME=Wasp-12\n#EXOPLANET_NAME=Wasp-12b\n#BINNING=2x2\n"
        "#EXPOSURE_TIME=45\n#FILTER=V\n#DETREND_PARAMETERS=Airmass\n#MEASUREMENT_TYPE=Rnflux\n"
        "2457393.50269,0.515620,0.001884,1.867946\n"
    )
    exoplanet.check_report(text)
