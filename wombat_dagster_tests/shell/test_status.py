"""The status row through re-runs: parked and released, never losing what a person decided."""

import datetime as dt

from wombat_dagster import runs
from wombat_dagster.domain import Apphot

SV_WOM = "20251014__SV_Wom__V"


def test_a_parked_observation_goes_on_when_vsp_is_back(services, ending):
    services.aavso.fail("vsp", "500")
    assert ending(services).apphot == Apphot.NOVSP
    services.aavso.fail("vsp", "none")
    row = ending(services)
    assert (row.apphot, row.reason) == (Apphot.VALIDATE, None)
    assert SV_WOM in services.materialized("light_curve")


def test_a_person_s_word_survives_every_re_run(services, ending):
    """`submitted` is never erased, whatever the run ends in."""
    database = services.observatory.status
    with database._writing() as connection:
        connection.execute("UPDATE target SET submitted = 'approved' WHERE key = ?", (SV_WOM,))
    try:
        services.aavso.fail("vsp", "500")
        assert ending(services).submitted == "approved"
        services.aavso.fail("vsp", "none")
        row = ending(services)
        assert (row.apphot, row.submitted) == (Apphot.VALIDATE, "approved")
    finally:
        with database._writing() as connection:
            connection.execute("UPDATE target SET submitted = NULL WHERE key = ?", (SV_WOM,))


def test_our_own_mistake_is_red_and_leaves_the_status_alone(services, ending):
    assert ending(services).apphot == Apphot.VALIDATE
    before = services.row("SV Wom")
    with services.in_force() as observatory:
        observatory.__dict__["vsx"] = object()  # an AttributeError, deep inside the run
        try:
            failures = services.run(nights=False, night=dt.date(2025, 10, 14))
        finally:
            del observatory.__dict__["vsx"]
    assert list(failures) == [SV_WOM]
    assert "variable: AttributeError" in failures[SV_WOM]
    row = services.row("SV Wom")
    assert (row.apphot, row.submitted, row.reason) == (before.apphot, None, before.reason)


def test_a_killed_run_is_made_good_by_the_next(services, ending):
    """Products without rows, as a crash leaves them, are made again with their rows."""
    assert ending(services).apphot == Apphot.VALIDATE
    database = services.observatory.status
    with database._writing() as connection:
        connection.execute("DELETE FROM product WHERE key = ?", (SV_WOM,))
        connection.execute("UPDATE target SET apphot = 0, proc = 0 WHERE key = ?", (SV_WOM,))
    assert services.row("SV Wom").apphot is None
    assert ending(services).apphot == Apphot.VALIDATE
    assert database.product_version(SV_WOM, "light_curve") is not None


def test_plans_hold_what_is_not_finished(services, ending):
    """0 and NULL both mean not done yet; a finished observation is left alone."""
    assert ending(services).apphot == Apphot.VALIDATE
    observatory = services.observatory
    assert runs.plan(observatory).observations == ()
    for value in (None, 0, "0", "novsp"):
        with observatory.status._writing() as connection:
            connection.execute("UPDATE target SET apphot = ? WHERE key = ?", (value, SV_WOM))
        assert [row.observation.key for row in runs.plan(observatory).observations] == [SV_WOM]
