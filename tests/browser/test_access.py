"""For those who do not use a mouse or do not see: keys reach everything, axe finds nothing."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Route, expect

from browsing import MARKS, Dashboard, Seen, furnish, settle

pytestmark = MARKS

AXE = Path(__file__).parents[2] / "web/node_modules/axe-core/axe.min.js"
MOST_TABS = 200


@pytest.fixture(scope="module")
def pages(root: Path, server: Dashboard) -> dict[str, str]:
    return furnish(root)


# ---- axe -----------------------------------------------------------------------------------


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_wrong(seen: Seen, pages: dict[str, str], theme: str) -> None:
    """All rules of WCAG 2 A and AA that a program can check, on every page."""
    tab = seen.open("/")
    tab.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
    wrong = {}
    for name, path in pages.items():
        tab.goto(seen.served.address + path)
        settle(tab)
        assert tab.evaluate("document.documentElement.dataset.theme") == theme
        if found := violations(tab):
            wrong[name] = found
    assert wrong == {}


def test_nothing_is_asked_before_the_token_is_exchanged(seen: Seen, pages: dict[str, str]) -> None:
    """However late that is; what is asked too early is refused, and heard in the console."""

    def late(route: Route) -> None:
        time.sleep(0.5)
        route.continue_()

    for path in pages.values():
        tab = seen.context.new_page()
        tab.route("**/api/v1/session", late)
        tab.context.clear_cookies()
        tab.goto(seen.served.url(path))
        settle(tab)
        tab.close()


def test_axe_sees_what_is_wrong(seen: Seen) -> None:
    """Were it blind, the test above would mean nothing."""
    tab = seen.open("/")
    settle(tab)
    tab.evaluate("document.querySelector('main').append(document.createElement('button'))")
    assert any(found.startswith("button-name") for found in violations(tab))


def violations(tab: Page) -> list[str]:
    """What axe finds, a line for each element."""
    assert AXE.is_file(), "the page's packages are not installed; type: make page"
    # Through the debugger, since the page's policy runs no foreign script.
    tab.evaluate(AXE.read_text())
    found = tab.evaluate(
        "axe.run(document, {runOnly: {type: 'tag', values: ['wcag2a', 'wcag2aa']}})"
        ".then(({violations}) => violations.map(({id, nodes}) =>"
        " [id, nodes.map(({target, failureSummary}) => [target.join(' '), failureSummary])]))"
    )
    return [
        f"{rule}: {target}: {' '.join(why.split())[:200]}"
        for rule, nodes in found
        for target, why in nodes[:5]
    ]


# ---- keys ----------------------------------------------------------------------------------

# Where the focus is, and whether that is seen.
_FOCUSED = """
() => {
  const one = document.activeElement;
  if (!one || one === document.body) return null;
  window.walked ??= [];
  let at = walked.indexOf(one);
  if (at < 0) at = walked.push(one) - 1;
  const style = getComputedStyle(one);
  const box = one.getBoundingClientRect();
  const drawn = one instanceof SVGElement && [...one.querySelectorAll("rect, path, circle")];
  const look = () => JSON.stringify(drawn.map((shape) => ["stroke", "strokeWidth", "fill"].map(
    (part) => getComputedStyle(shape)[part])));
  let ring = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1;
  if (drawn) {  // an outline would be a box around all that a node is connected to
    const focused = look();
    one.blur();
    ring = look() !== focused;
    one.focus();
  }
  const inside = box.width > 0 && box.right > 0 && box.left < innerWidth
    && box.bottom > 0 && box.top < innerHeight;
  const told = one.getAttribute("aria-label") || one.innerText || one.placeholder;
  const name = `${one.tagName.toLowerCase()} ${(told || one.textContent).trim().slice(0, 60)}`;
  return {at, ring, inside, name};
}
"""
# What a person could want to use and keys have not led to. Of what is one widget (a grid, a list of
# tabs) one element is reached by Tab and the others by arrows.
_MISSED = """
() => [...document.querySelectorAll("a[href], button, input, select, summary, [tabindex='0']")]
  .filter((e) => e.checkVisibility({visibilityProperty: true}) && !e.disabled && e.tabIndex >= 0)
  .filter((e) => !window.walked.includes(e))
  .map((e) => `${e.tagName} ${(e.getAttribute("aria-label") ?? e.innerText).slice(0, 60)}`)
"""


@pytest.mark.parametrize(
    "name", ["runs", "run", "compare", "studies", "study", "queue", "model", "models"]
)
def test_tab_reaches_everything_visibly_and_comes_round(
    seen: Seen, pages: dict[str, str], name: str
) -> None:
    tab = seen.open("/")
    tab.goto(seen.served.address + pages[name])
    settle(tab)
    unseen: list[Any] = []
    order: list[str] = []
    for _ in range(MOST_TABS):
        tab.keyboard.press("Tab")
        found: Any = tab.evaluate(_FOCUSED)
        if found is None or found["at"] < len(order):
            break
        order.append(found["name"])
        if not (found["ring"] and found["inside"]):
            unseen.append(found)
    else:
        pytest.fail(f"{MOST_TABS} times Tab did not come round: {order[-5:]}")
    assert order[0] == "a To the content"
    assert unseen == []
    assert tab.evaluate(_MISSED) == []
    if name == "run":
        for wanted in ("a Runs", "button Configuration", "summary Export", "button log x"):
            assert any(one.startswith(wanted) for one in order), order
        assert any(one.startswith("div loss over step") for one in order), order


def test_the_skip_link_leads_past_the_frame(seen: Seen, pages: dict[str, str]) -> None:
    tab = seen.open("/")
    tab.goto(seen.served.address + pages["run"])
    settle(tab)
    tab.keyboard.press("Tab")
    link = tab.locator("a.skip")
    expect(link).to_be_focused()
    box = link.bounding_box()
    assert box is not None
    assert box["x"] >= 0
    tab.keyboard.press("Enter")
    tab.keyboard.press("Tab")
    assert tab.evaluate("document.querySelector('main').contains(document.activeElement)")
    expect(tab.locator("h1")).to_be_visible()


def test_a_run_can_be_opened_and_left_with_keys_alone(seen: Seen, pages: dict[str, str]) -> None:
    tab = seen.open("/")
    tab.goto(seen.served.address + pages["run"])
    settle(tab)
    tab.get_by_role("button", name="Configuration").focus()
    tab.keyboard.press("Enter")
    expect(tab.get_by_role("cell", name="train.lr")).to_be_visible()
    tab.locator("summary", has_text="Export").focus()
    tab.keyboard.press("Enter")
    expect(tab.get_by_role("link", name="All numbers as CSV")).to_be_visible()
    tab.keyboard.press("Escape")
    expect(tab.get_by_role("link", name="All numbers as CSV")).to_be_hidden()
    expect(tab.locator("summary", has_text="Export")).to_be_focused()
    tab.get_by_role("link", name="Runs", exact=True).focus()
    tab.keyboard.press("Enter")
    expect(tab.get_by_text("seed 0").first).to_be_visible()
