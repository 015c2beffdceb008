"""Response of the review page with many long observations waiting, measured in the browser.

    python benchmarks/review.py                       500 waiting observations of 1000 points
    python benchmarks/review.py --observations 100 --points 300 --repeats 3

Chromium by Playwright, which is no dependency: run it with a Python that has both, or with
PLAYWRIGHT_PYTHON naming one that has it. The list: from asking for it to its last line on the page.
The curve: from pressing j to the drawn curve of the next observation. Machines are noisy: compare
only figures of one run.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import uvicorn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from wombat_dagster.review.server import make_app
from wombat_dagster_tests.approved_nights import an_observatory  # not installed
from wombat_dagster_tests.review_nights import many_waiting

LIST_GOAL_S, CURVE_GOAL_S = 0.3, 0.5
BROWSER = r'''
import json, sys
from playwright.sync_api import sync_playwright
address, repeats = sys.argv[1], int(sys.argv[2])
with sync_playwright() as play:
    browser = play.chromium.launch(executable_path=sys.argv[3] or None, args=["--no-sandbox"])
    page = browser.new_page(viewport={"width": 1366, "height": 800})
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    page.wait_for_selector("#plot[data-drawn]")
    page.wait_for_timeout(1500)
    lists, curves = [], []
    for _ in range(repeats):
        page.reload()
        page.wait_for_selector("body[data-listed]")
        found = page.evaluate("performance.getEntriesByName('list')[0].duration")
        lists.append(found / 1000)
        page.wait_for_selector("#plot[data-drawn]")
        page.wait_for_timeout(1200)
    n = page.locator("#list li").count()
    for _ in range(repeats):
        curves.append(page.evaluate("""() => new Promise((done) => {
            const plot = document.getElementById("plot"), begin = performance.now();
            setTimeout(() => done(NaN), 20000);
            const before = plot.dataset.drawn;
            const watch = new MutationObserver(() => {
                if (plot.dataset.drawn === before) return;
                watch.disconnect();
                const tell = () => done((performance.now() - begin) / 1000);
                requestAnimationFrame(() => setTimeout(tell));
            });
            watch.observe(plot, {attributes: true});
            document.body.dispatchEvent(new KeyboardEvent("keydown", {key: "j", bubbles: true}));
        })"""))
        page.wait_for_timeout(1500)
    points = page.evaluate("document.getElementById('plot').data.filter(t => t.name === 'T1')"
                           ".reduce((n, t) => n + t.x.length, 0)")
    print(json.dumps({"list": lists, "curve": curves, "n": n, "points": points, "errors": errors}))
    browser.close()
'''


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--observations", type=int, default=500)
    parser.add_argument("--points", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--port", type=int, default=3977)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        observatory = an_observatory(Path(root))
        begin = time.perf_counter()
        many_waiting(observatory, n_observations=options.observations, n_points=options.points)
        print(f"{options.observations} observations made in {time.perf_counter() - begin:.1f} s")
        app = make_app(lambda: observatory, token=None, port=options.port)
        server = uvicorn.Server(
            uvicorn.Config(app, port=options.port, log_level="warning", lifespan="off")
        )
        thread = threading.Thread(target=server.run)
        thread.start()
        while not server.started:
            time.sleep(0.05)
        try:
            found = in_the_browser(f"http://127.0.0.1:{options.port}/", options.repeats)
        finally:
            server.should_exit = True
            thread.join()
    assert found["errors"] == [], found["errors"]
    assert found["n"] == options.observations, found["n"]
    print(f"on the page: {found['n']} lines, {found['points']} points of T1")
    tell("list", found["list"], LIST_GOAL_S)
    tell("curve", found["curve"], CURVE_GOAL_S)


def in_the_browser(address: str, repeats: int) -> dict:
    python = os.environ.get("PLAYWRIGHT_PYTHON", sys.executable)
    chromium = os.environ.get("CHROMIUM", "")
    done = subprocess.run(
        [python, "-c", BROWSER, address, str(repeats), chromium],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def tell(what: str, seconds: list[float], goal_s: float) -> None:
    middle = statistics.median(seconds)
    verdict = "" if middle <= goal_s else "   TOO SLOW"
    each = " ".join(f"{one:.2f}" for one in seconds)
    print(f"{what:6s} {middle:.3f} s in the middle (goal {goal_s} s): {each}{verdict}")


if __name__ == "__main__":
    main()
