"""The browser's part of `review_page.py`: needs Playwright, and nothing of wombat."""

import contextlib
import json
import os
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

SIZE = {"width": 1366, "height": 800}
PLACE = """([name, i]) => {
    const plot = document.getElementById("plot"), full = plot._fullLayout;
    const box = plot.getBoundingClientRect();
    const axis = name === "T1" ? full.yaxis : full.yaxis2;
    for (const trace of plot.data) {
        const at = trace.meta === "own" && trace.name === name ? trace.customdata.indexOf(i) : -1;
        if (at >= 0) return [box.left + full.xaxis._offset + full.xaxis.d2p(trace.x[at]),
                             box.top + axis._offset + axis.d2p(trace.y[at])];
    }
    return null;
}"""
STATES = """async (key) => (await (await fetch("/api/observation/" + key)).json()).points.state"""


class Page:
    """The page, with its clicks counted."""

    def __init__(self, browser, address, **context):
        self.page = browser.new_context(
            viewport=context.pop("viewport", SIZE), **context
        ).new_page()
        self.clicks, self.errors = 0, []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self.hear)
        self.page.on("dialog", lambda dialog: self.errors.append(f"dialog: {dialog.message}"))
        self.page.goto(address)
        self.drawn()

    def hear(self, message):
        if message.type == "error" and "409" not in message.text:
            self.errors.append(message.text)

    def drawn(self):
        self.page.wait_for_selector("#plot[data-drawn]")
        self.page.wait_for_timeout(600)

    def click(self, selector, **options):
        self.clicks += 1
        self.page.click(selector, **options)
        self.page.wait_for_timeout(700)

    def key(self, *keys):
        for key in keys:
            self.page.keyboard.press(key)
            self.page.wait_for_timeout(500)

    def place(self, i, star="T1"):
        return self.page.evaluate(PLACE, [star, i])

    def box(self, first, last):
        """Drag a box over points that follow one another."""
        places = [self.place(i) for i in range(first, last + 1)]
        xs, ys = zip(*places, strict=True)
        mouse = self.page.mouse
        mouse.move(min(xs) - 8, min(ys) - 14)
        mouse.down()
        mouse.move(sum(xs) / len(xs), sum(ys) / len(ys), steps=5)
        mouse.move(max(xs) + 8, max(ys) + 14, steps=5)
        mouse.up()
        self.page.wait_for_timeout(500)

    def width(self):
        begin, end = self.page.evaluate(
            "document.getElementById('plot')._fullLayout.xaxis.range.map(x => +new Date(x))"
        )
        return end - begin

    @property
    def shown(self):
        return self.page.evaluate("decodeURIComponent(location.hash.slice(1))")

    def states(self):
        return self.page.evaluate(STATES, self.shown)

    def columns(self):
        asked = "async (key) => (await (await fetch('/api/observation/' + key)).json()).points"
        return self.page.evaluate(asked, self.shown)


def minute(browser, address, _pictures):
    page = Page(browser, address)
    while page.page.locator("#list [data-key]").count():
        page.click("#approve")
        page.drawn()
    page.click("#report")
    page.click("#report-write")
    page.page.wait_for_selector("#report-body .clean")
    return {"clicks": page.clicks, "errors": page.errors}


def points(browser, address, _pictures):
    page = Page(browser, address)
    page.click("[data-mode=zoom]")
    whole = page.width()
    page.box(2, 9)
    assert page.width() < whole, "not zoomed"
    page.click("#reset")
    assert page.width() == whole, "not reset"
    page.click("[data-mode=select]")
    page.box(3, 5)
    page.click("#reject-points")
    after_box = page.states()[3:6]
    page.click("#undo")
    after_undo = page.states()[3:6]
    page.box(3, 5)
    page.click("#reject-points")
    page.page.mouse.click(*page.place(10))  # one by one
    page.page.wait_for_timeout(400)
    page.click("#reject-points")
    columns = page.columns()
    gone = [i for i, state in enumerate(page.states()) if state == "rejected"]
    page.click("#approve")
    page.click("#report")
    page.click("#report-write")
    page.page.wait_for_selector("#report-body .clean")
    return {
        "after_box": after_box,
        "after_undo": after_undo,
        "rejected_jd": [columns["jd"][i] for i in gone],
        "kept_jd": [jd for i, jd in enumerate(columns["jd"]) if i not in gone],
        "errors": page.errors,
    }


def keys(browser, address, _pictures):
    """Not one click."""
    page = Page(browser, address)
    whole = page.width()
    page.key("+")
    zoomed = page.width()
    page.key("]", "-", "z")
    reset = page.width()
    page.key("p")
    title = page.page.evaluate("document.getElementById('plot').layout.xaxis.title.text")
    page.key("p", "j", "k", "e", "e")
    page.key("ArrowRight", "Shift+ArrowRight", "Shift+ArrowRight", "x", "u")
    page.key("ArrowRight", "Shift+ArrowRight", "x")
    assert page.states().count("rejected") == 2, page.states()
    page.key("?", "Escape", "t", "t")
    page.key("a", "w", "Enter")
    page.page.wait_for_selector("#report-body .clean")
    return {
        "whole": whole, "zoomed": zoomed, "reset": reset, "phase_title": title,
        "errors": page.errors,
    }  # fmt: skip


def tabs(browser, address, _pictures):
    first, second = Page(browser, address), Page(browser, address)
    key = first.shown
    first.key("r")
    first.page.keyboard.type("clouds")
    first.key("Enter")
    second.page.evaluate("document.getElementById('approve').click()")
    second.page.wait_for_timeout(900)
    told = second.page.inner_text("#banners") + second.page.inner_text("#toast-words")
    return {"key": key, "told": told, "errors": first.errors + second.errors}


def names(browser, address, _pictures):
    page = Page(browser, address)
    page.page.mouse.move(*page.place(8))
    page.page.wait_for_timeout(500)
    hover = page.page.evaluate("document.querySelector('#plot .hoverlayer').textContent")
    page.click("#report")
    page.key("Escape")
    foreign = page.page.locator("#shown [onmouseover], #list img, #shown h1 img, script:not([src])")
    return {
        "heading": page.page.inner_text("#target"), "hover": hover,
        "foreign_elements": foreign.count(), "errors": page.errors,
    }  # fmt: skip


def pictures(browser, address, directory):
    sizes = {
        "light": ({"width": 1366, "height": 860}, "light"),
        "dark": ({"width": 1366, "height": 860}, "dark"),
        "tablet": ({"width": 820, "height": 1180}, "light"),
    }
    errors = []
    for number, (name, (viewport, scheme)) in enumerate(sizes.items()):
        page = Page(browser, address, viewport=viewport, color_scheme=scheme)
        if number == 0:
            page.box(3, 5)
            page.click("#reject-points")
            with contextlib.suppress(Exception):
                page.page.evaluate("document.getElementById('toast').hidden = true")
        page.page.mouse.move(*page.place(19))
        page.page.wait_for_timeout(900)
        page.page.screenshot(path=Path(directory) / f"review-{name}.png")
        errors += page.errors
    return {"errors": errors}


def main():
    part, address, directory = sys.argv[1:]
    with sync_playwright() as play:
        browser = play.chromium.launch(
            executable_path=os.environ.get("CHROMIUM") or None, args=["--no-sandbox"]
        )
        parts = {f.__name__: f for f in (minute, points, keys, tabs, names, pictures)}
        print(json.dumps(parts[part](browser, address, directory)))
        browser.close()


if __name__ == "__main__":
    main()
