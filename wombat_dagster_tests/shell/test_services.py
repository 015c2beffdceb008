"""The example service files: read by those who will read them, as far as they are here."""

import plistlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import wombat_dagster

SERVICES = Path(wombat_dagster.__file__).parent.parent / "services"
UNITS = sorted(SERVICES.glob("*.service"))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_takes_the_unit_also_with_blanks_in_paths(unit, tmp_path):
    place = tmp_path / "my observatory"
    program = place / "bin" / "wombat"
    program.parent.mkdir(parents=True)
    program.symlink_to(sys.executable)
    text = unit.read_text()
    for venv in ("%h/wombat-dagster/.venv", "/opt/wombat/.venv"):
        text = text.replace(f'ExecStart="{venv}/bin/wombat"', f'ExecStart="{program}"')
    for home in ("%h/observatory", "WorkingDirectory=/srv/wombat"):
        text = text.replace(home, f"{'WorkingDirectory=' if '=' in home else ''}{place}")
    text = text.replace("User=wombat\n", "User=root\n")
    assert str(program) in text
    copy = tmp_path / unit.name
    copy.write_text(text)
    told = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True
    )
    assert (told.returncode, told.stderr) == (0, "")


def test_launchd_would_read_the_agent():
    agent = plistlib.loads((SERVICES / "org.wombat.up.plist").read_bytes())
    assert agent["ProgramArguments"][1] == "up"
    assert agent["KeepAlive"] == {"SuccessfulExit": False}
    assert agent["EnvironmentVariables"]["WOMBAT_CONFIG"].endswith("wombat.toml")
