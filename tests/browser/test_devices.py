"""Phones and tablets: nothing sticks out, everything can be hit, a finger scrolls and scrubs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import CDPSession, Page, expect

from browsing import (
    MARKS,
    Dashboard,
    Seen,
    card,
    furnish,
    key_of,
    line_of_sight,
    pointed_at,
    settle,
    started,
    tip,
)  # fmt: skip

pytestmark = MARKS

PHONE = {"width": 390, "height": 844}
TABLET = {"width": 820, "height": 1180}
LEAST = 44  # CSS pixels: Apple's and WCAG's measure for a finger

# What is meant to be hit in the frame and in toolbars, and too small for it. What lies within a
# label is hit by the label.
_SMALL = """
(least) => {
  const within = "header.bar, .tabs, [role=toolbar], .controls, .card-head, .toolbar, .menu";
  const found = [];
  for (const place of document.querySelectorAll(within)) {
    for (const one of place.querySelectorAll("button, a[href], input, select, summary")) {
      if (!one.checkVisibility({visibilityProperty: true})) continue;
      const target = one.closest("label") ?? one;
      const {width, height, right} = target.getBoundingClientRect();
      if (right <= 0 || !width) continue;
      if (width < least - 0.5 || height < least - 0.5) {
        const name = (one.getAttribute("aria-label") ?? one.innerText).trim()
          || one.outerHTML.slice(0, 80);
        found.push(`${one.tagName} "${name}" ${Math.round(width)} x ${Math.round(height)}`);
      }
    }
  }
  return [...new Set(found)];
}
"""
_WIDE = """
() => {
  const {scrollWidth, clientWidth} = document.documentElement;
  if (scrollWidth <= clientWidth) return null;
  const out = [...document.querySelectorAll("body *")].filter(
    (e) => e.getBoundingClientRect().right > clientWidth + 0.5 && e.checkVisibility());
  return `${scrollWidth} > ${clientWidth}: ` + out.slice(0, 4).map(
    (e) => `${e.tagName.toLowerCase()}.${e.className}`).join(", ");
}
"""


@pytest.fixture(params=[PHONE, TABLET], ids=["phone", "tablet"])
def device(request: pytest.FixtureRequest) -> dict[str, Any]:
    return {"viewport": request.param, "has_touch": True, "is_mobile": True,
            "device_scale_factor": 2}  # fmt: skip


@pytest.fixture(scope="module")
def pages(root: Path, server: Dashboard) -> dict[str, str]:
    return furnish(root)


def test_nothing_sticks_out_and_everything_can_be_hit(seen: Seen, pages: dict[str, str]) -> None:
    tab = seen.open("/")
    wide, small = {}, {}
    for name, path in pages.items():
        tab.goto(seen.served.address + path)
        settle(tab)
        if found := tab.evaluate(_WIDE):
            wide[name] = found
        for more in tab.locator("button.more:visible").all():
            more.click()
        if found := tab.evaluate(_SMALL, LEAST):
            small[name] = found
    assert (wide, small) == ({}, {})


def test_a_finger_scrolls_the_page_over_a_chart_and_scrubs_along_it(root: Path, seen: Seen) -> None:
    run = started(root)
    for step in range(40):
        run.log({name: float(step) for name in ("loss", *"abcdefgh")}, step=step)
    run.finish("finished")
    tab = seen.open(f"/run/{key_of(run)}")
    line_of_sight(tab).evaluate("chart => chart.scrollIntoView({block: 'center'})")
    settle(tab)
    finger = Finger(tab)
    box = line_of_sight(tab).bounding_box()
    assert box is not None
    x, y = box["x"] + box["width"] * 0.4, box["y"] + box["height"] * 0.8
    before = tab.evaluate("scrollY")
    finger.swipe((x, y), (x + 3, y - 150))
    tab.wait_for_function("before => scrollY > before + 80", arg=before)
    stopped(tab)
    line_of_sight(tab).evaluate("chart => chart.scrollIntoView({block: 'center'})")
    before = stopped(tab)
    box = line_of_sight(tab).bounding_box()
    assert box is not None
    y = box["y"] + box["height"] * 0.8

    # Along the chart the cursor follows the finger, and nothing is zoomed or scrolled.
    told = []
    finger.down((box["x"] + box["width"] * 0.2, y))
    for share in (0.25, 0.35, 0.5, 0.7, 0.8):
        finger.move((box["x"] + box["width"] * share, y))
        expect(tip(tab).locator(".tip-head")).to_contain_text("step")
        tab.wait_for_timeout(150)
        point = pointed_at(tab)
        assert point is not None
        told.append(point[0])
    finger.up()
    assert told == sorted(set(told)), told
    assert [abs(step - 39 * share) < 3 for step, share in
            zip(told, (0.25, 0.35, 0.5, 0.7, 0.8), strict=True)] == [True] * 5, told  # fmt: skip
    assert tab.evaluate("scrollY") == before
    assert "from=" not in tab.url


def test_two_fingers_zoom(root: Path, seen: Seen) -> None:
    run = started(root)
    for step in range(200):
        run.log({"loss": float(step)}, step=step)
    run.finish("finished")
    tab = seen.open(f"/run/{key_of(run)}")
    line_of_sight(tab).evaluate("chart => chart.scrollIntoView({block: 'center'})")
    settle(tab)
    box = line_of_sight(tab).bounding_box()
    assert box is not None
    y, middle = box["y"] + 80, box["x"] + box["width"] / 2
    finger = Finger(tab)
    finger.down((middle - 30, y), (middle + 30, y))
    for apart in (40, 60, 90, 120):
        finger.move((middle - apart, y), (middle + apart, y))
        tab.wait_for_timeout(50)
    finger.up()
    expect(card(tab, "loss").get_by_text("Reset zoom")).to_be_visible()
    asked = dict(part.split("=") for part in tab.url.partition("?")[2].split("&"))
    low, high = float(asked["from"]), float(asked["to"])
    assert high - low == pytest.approx(199 / 4, rel=0.15)
    assert (low + high) / 2 == pytest.approx(99.5, abs=8)
    assert tab.evaluate("visualViewport.scale") == 1, "the chart is zoomed, not the page"


def stopped(tab: Page) -> float:
    """How far down a page is, once it has stopped scrolling."""
    before = None
    while (now := tab.evaluate("scrollY")) != before:
        before = now
        tab.wait_for_timeout(250)
    return float(now)


class Finger:
    """Touches of the screen, as the browser has them from the hardware."""

    def __init__(self, tab: Page) -> None:
        self.tab = tab
        self.session: CDPSession = tab.context.new_cdp_session(tab)

    def down(self, *points: tuple[float, float]) -> None:
        self._send("touchStart", points)

    def move(self, *points: tuple[float, float]) -> None:
        self._send("touchMove", points)

    def up(self) -> None:
        self._send("touchEnd", ())

    def swipe(self, begin: tuple[float, float], end: tuple[float, float]) -> None:
        self.down(begin)
        for n in range(1, 11):
            self.move(tuple(a + (b - a) * n / 10 for a, b in zip(begin, end, strict=True)))  # type: ignore[arg-type]
            self.tab.wait_for_timeout(16)
        self.up()

    def _send(self, kind: str, points: tuple[tuple[float, float], ...]) -> None:
        touches = [{"x": x, "y": y, "id": n} for n, (x, y) in enumerate(points)]
        self.session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": touches})
