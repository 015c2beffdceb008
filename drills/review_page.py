"""Drives the real review page in headless Chromium over the demo's two nights.

    python drills/review_page.py                      simulates and runs the demo first: 2 minutes
    python drills/review_page.py --world DIRECTORY    over a copy of a demo that was run before
    python drills/review_page.py --pictures docs      writes the README's pictures, too

Playwright is no dependency of wombat: run it with a Python that has both, or let PLAYWRIGHT_PYTHON
name one that has it, and CHROMIUM the browser where it is not Playwright's own.

First a newcomer's minute, with clicks counted: from the open page to a linted report. Then, over
another copy: zoom, reject three points by box, undo, reject one, approve, report; the file has to
hold exactly the other points. Everything again by keys alone, two tabs at once, and what the page
says of a script in a name.
"""

import argparse
import contextlib
import json
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

MAX_CLICKS = 6
MAX_PICTURE_BYTES = 300_000
BROWSER = Path(__file__).with_name("review_browser.py")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--world", type=Path)
    parser.add_argument("--pictures", type=Path)
    parser.add_argument("--port", type=int, default=3978)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        world = options.world or made_demo(Path(temporary) / "demo")
        for part in ("minute", "points", "keys", "tabs", "names"):
            copy = Path(temporary) / part
            shutil.copytree(world, copy)
            if part == "names":
                rename_a_target(copy)
            with served(copy, options.port) as address:
                found = in_the_browser(part, address, Path(temporary))
            globals()[f"check_{part}"](found, copy)
            print(f"{part}: as it should be")
        if options.pictures:
            copy = Path(temporary) / "pictures"
            shutil.copytree(world, copy)
            with served(copy, options.port) as address:
                in_the_browser("pictures", address, Path(temporary))
            keep_pictures(Path(temporary), options.pictures)


def made_demo(root: Path) -> Path:
    subprocess.run([sys.executable, "-m", "wombat_dagster.demo", str(root)], check=True)
    return root


@contextlib.contextmanager
def served(world: Path, port: int) -> Iterator[str]:
    """Run the command itself, as a person does."""
    command = [sys.executable, "-m", "wombat_dagster.cli", "--config", str(world / "wombat.toml")]
    process = subprocess.Popen([*command, "review", "--no-open", "--port", str(port)])
    try:
        until_s = time.monotonic() + 60
        while True:
            assert process.poll() is None, "wombat review has ended"
            assert time.monotonic() < until_s, "wombat review does not answer"
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/"
    finally:
        process.terminate()
        process.wait(20)


def in_the_browser(part: str, address: str, pictures: Path) -> dict:
    python = os.environ.get("PLAYWRIGHT_PYTHON", sys.executable)
    done = subprocess.run(
        [python, str(BROWSER), part, address, str(pictures)],
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["errors"] == [], found["errors"]
    return found


def report_lines(world: Path) -> list[str]:
    files = sorted((world / "products" / "reports").glob("*.txt"))
    text = "".join(file.read_text(encoding="ascii") for file in files)
    return [line for line in text.splitlines() if not line.startswith("#")]


def lint(world: Path) -> None:
    for file in sorted((world / "products" / "reports").glob("*.txt")):
        command = [sys.executable, "-m", "wombat_dagster.cli", "lint", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def check_minute(found: dict, world: Path) -> None:
    """Six clicks: four observations approved, Report…, Write."""
    assert found["clicks"] <= MAX_CLICKS, found
    assert len(report_lines(world)) == 4 * 22
    lint(world)
    print(f"  {found['clicks']} clicks to {len(report_lines(world))} linted lines")


def check_points(found: dict, world: Path) -> None:
    """Three rejected by box and one by a click, one decision undone: three are missing."""
    assert found["after_box"] == ["rejected"] * 3
    assert found["after_undo"] == ["good"] * 3
    lines = report_lines(world)
    assert len(lines) == 22 - 4, len(lines)
    reported = {line.split(",")[1] for line in lines}
    for jd in found["rejected_jd"]:
        assert not any(abs(float(date) - jd) < 1e-5 for date in reported), jd
    for jd in found["kept_jd"]:
        assert any(abs(float(date) - jd) < 1e-5 for date in reported), jd
    lint(world)


def check_keys(found: dict, world: Path) -> None:
    assert found["zoomed"] < 0.7 * found["whole"]
    assert found["reset"] == found["whole"]
    assert found["phase_title"].startswith("phase")
    assert len(report_lines(world)) == 22 - 2, len(report_lines(world))


def check_tabs(found: dict, world: Path) -> None:
    """The second tab's approval is refused, and says what the first did; then all is shown."""
    assert "rejected it" in found["told"], found
    with contextlib.closing(sqlite3.connect(world / "wombatpipeline.db")) as connection:
        words = connection.execute("SELECT submitted FROM target WHERE key = ?", (found["key"],))
        assert words.fetchone() == ("usrrej",)


ODD_NAME = "<img src=x onerror=alert(1)><script>alert(2)</script>"


def rename_a_target(world: Path) -> None:
    """Call a star so in all that the page shows of it: rows, headers' labels, VSX's answer."""
    with contextlib.closing(sqlite3.connect(world / "wombatpipeline.db")) as connection:
        connection.execute("UPDATE target SET target = ?, reason = ?", (ODD_NAME, ODD_NAME))
        connection.commit()
    for file in (world / "products").rglob("variable.json"):
        star = json.loads(file.read_text())
        file.write_text(json.dumps(star | {"name": ODD_NAME}))
    for file in (world / "products").rglob("magnitudes.csv"):
        text = file.read_text().replace('"SV_Wom-0', '"<b onmouseover=alert(3)>SV-0')
        file.write_text(text.replace("# notes: [", f"# notes: [{json.dumps(ODD_NAME)}, "))


def check_names(found: dict, _world: Path) -> None:
    assert found["heading"].startswith(ODD_NAME)
    assert "<b onmouseover=alert(3)>SV-0" in found["hover"]
    assert found["foreign_elements"] == 0


def keep_pictures(source: Path, target: Path) -> None:
    from PIL import Image

    for name in ("light", "dark", "tablet"):
        picture = Image.open(source / f"review-{name}.png").convert("RGB")
        path = target / f"review-{name}.png"
        picture.quantize(256, dither=Image.Dither.NONE).save(path, optimize=True)
        n_bytes = path.stat().st_size
        assert n_bytes < MAX_PICTURE_BYTES, f"{path}: {n_bytes} bytes"
        print(f"{path}: {n_bytes / 1000:.0f} kB")


if __name__ == "__main__":
    main()
