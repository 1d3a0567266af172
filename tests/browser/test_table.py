"""The table of runs while one scrolls: no element is made or moved, and every line is right."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from browsing import MARKS, Seen, started

pytestmark = MARKS

RUNS = 600

# Everything that comes into the table or goes while it is scrolled, as a list of words.
_WATCH = """
(grid) => {
  const found = [];
  const note = (list) => {
    for (const one of list)
      for (const node of [...one.addedNodes, ...one.removedNodes])
        if (node.nodeType === 1) found.push(node.className || node.tagName);
  };
  const observer = new MutationObserver(note);
  observer.observe(grid.querySelector(".body"), { childList: true, subtree: true });
  window.told = () => { note(observer.takeRecords()); observer.disconnect(); return found; };
}
"""


@pytest.fixture(scope="module", autouse=True)
def many(root: Path) -> None:
    """Of every third run nothing is known of what the others logged."""
    for n in range(RUNS):
        config = {"lr": 0.5 if n == 7 else 0.1, "n": n}
        run = started(root, name=f"number {n:03d}", config=config)
        if n % 3:
            run.log({"loss": float(n)}, step=1)
        run.finish("failed" if n % 50 == 0 else "finished")


def test_scrolling_makes_and_moves_no_elements(seen: Seen) -> None:
    tab = seen.open("/?sort=name&columns=status,loss")
    grid = scrolled(tab, to=2000)
    tab.wait_for_timeout(600)  # at rest
    grid.evaluate(_WATCH)
    for top in (*range(2100, 9000, 400), *range(9000, 3000, -700), 12_000, 2500):
        scroll(tab, top)
        tab.wait_for_timeout(30)
    assert tab.evaluate("told()") == []


def test_every_line_says_its_run_wherever_one_stops(seen: Seen) -> None:
    tab = seen.open("/?sort=name&columns=status,loss")
    scrolled(tab, to=0)
    for top in (5000, 19_000, 0, 333, 11_111, 11_000, 32 * RUNS):
        scroll(tab, top)
        expect(tab.locator(f"#line-{min(top // 32 + 1, RUNS - 1)}")).to_be_attached()
        expect(tab.locator(".body [aria-busy=true]")).to_have_count(0)
        found = tab.locator(".body .line").evaluate_all(
            "lines => lines.map((line) => [+line.ariaRowIndex, line.style.top, line.innerText])"
        )
        assert len(found) > 20
        for row, place, text in found:
            n = row - 2
            assert place == f"{32 * n}px"
            assert f"number {n:03d}" in text
            assert ("failed" if n % 50 == 0 else "finished") in text
            loss = f"{n}" if n % 3 else "–"
            assert text.split()[-1] == loss


def test_at_rest_lines_stand_in_their_order_for_those_who_read_them_one_by_one(seen: Seen) -> None:
    tab = seen.open("/?sort=name&columns=status,loss")
    scrolled(tab, to=0)
    for top in (700, 6000, 1300):
        scroll(tab, top)
        tab.wait_for_timeout(500)
        rows = tab.locator(".body .line").evaluate_all("lines => lines.map((l) => +l.ariaRowIndex)")
        assert rows == sorted(rows)


def test_a_cell_that_is_pointed_at_tells_what_does_not_fit(seen: Seen) -> None:
    tab = seen.open("/?sort=name&differ=1&columns=status,lr")
    scrolled(tab, to=0)
    line = tab.locator("#line-7")
    expect(line.locator(".cell").first).not_to_have_attribute("title", re.compile("."))
    line.locator(".cell").first.hover()
    expect(line.locator(".cell").first).to_have_attribute("title", re.compile("^p/.*number-007"))
    line.locator(".differs").first.hover()
    expect(line.locator(".differs").first).to_have_attribute("title", "0.5 (most have 0.1)")
    # The element is another run's after a while; what it says then is that one's.
    scroll(tab, 9000)
    tab.wait_for_timeout(500)
    shown = tab.locator(".body .line").nth(20)
    shown.locator(".cell").first.hover()
    n = int((shown.get_attribute("id") or "").removeprefix("line-"))
    told = shown.locator(".cell").first
    expect(told).to_have_attribute("title", re.compile(f"number-{n:03d}"))


def scrolled(tab: Page, to: int) -> Any:
    grid = tab.locator(".runs")
    expect(tab.locator(".body .line").first).to_contain_text("number")
    scroll(tab, to)
    return grid


def scroll(tab: Page, top: int) -> None:
    tab.locator(".runs").evaluate("(grid, top) => { grid.scrollTop = top; }", top)
