"""An event on the whole road: found by a run, shown as a check, given to the observer's command."""

import json
import sys

import dagster as dg
import pytest

from wombat_dagster.domain import Apphot
from wombat_dagster.store.events import Events

V = "20251014__SV_Wom__V"

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the command is a shell script")


def last_check(place):
    """Return the newest result of the check `events`."""
    key = dg.AssetCheckKey(dg.AssetKey("standard_magnitudes"), "events")
    record = place.instance.event_log_storage.get_asset_check_execution_history(key, limit=1)[0]
    return record.event.dagster_event.event_specific_data


def test_a_bright_night_is_a_warning_and_is_told_once(services, ending):
    hook = services.root / "hook"
    hook.write_text("#!/bin/sh\ncat >> told\n")
    hook.chmod(0o755)
    services.configure(events=f"command = [{json.dumps(str(hook))}]")
    assert ending(services).apphot == Apphot.VALIDATE
    assert last_check(services).passed
    assert not (services.root / "told").exists()

    median = float(sorted(services.product("standard_magnitudes", V).t1_mag)[1])
    fainter = f"[{median + 0.7:.2f}, {median + 1.0:.2f}]"
    target = f'[[target]]\ndirectory = ["SV Wom"]\nvsx = "SV Wom"\nmag_range = {fainter}'
    services.configure(events=f"command = [{json.dumps(str(hook))}]", tail=target)
    for _ in range(2):  # the second run finds the same event
        assert ending(services).apphot == Apphot.VALIDATE
        result = last_check(services)
        assert not result.passed
        assert result.severity is dg.AssetCheckSeverity.WARN
        assert "mag brighter than the range of" in result.description
    (told,) = (services.root / "told").read_text().splitlines()
    assert json.loads(told)["observation"] == V
    (kept,) = Events(services.observatory.status.path).all()
    assert kept.words == result.description
    assert kept.told_utc is not None
