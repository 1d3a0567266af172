"""A page that is left open: neither hours of lines nor cards that come and go make it grow."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import CDPSession, expect

from browsing import MARKS, Seen, card, key_of, last_value, line_of_sight, settle, started

pytestmark = MARKS

LINES = 18_000  # half an hour at 10 Hz
MOST_MB = 0.2  # of growth for each 1,000 lines
KEPT = 2  # nodes that are held once, whatever has come and gone: the engine's own notes of a chart
MOUNTS = 12  # of all 24 cards, and of a page


def test_a_page_that_follows_18000_lines_does_not_grow(root: Path, seen: Seen) -> None:
    """Half an hour of lines in half a minute: through log, disk, server, socket and canvas.

    The server sends at most ten frames a second, so a frame has some 60 lines here.
    """
    run = started(root, name="long")
    run.log({"loss": 1.0, "lr": 1.0}, step=0)
    tab = seen.open(f"/run/{key_of(run)}")
    expect(line_of_sight(tab)).to_be_visible()
    session = tab.context.new_cdp_session(tab)
    logged, sizes = 1, []
    rng = np.random.default_rng(0)
    for _ in range(9):
        until = logged + LINES // 9
        while logged < until:
            for _ in range(40):
                run.log({"loss": float(rng.normal()), "lr": 1.0 / logged}, step=logged)
                logged += 1
            tab.wait_for_timeout(60)
        run.log({"loss": float(logged), "lr": 0.0}, step=logged)
        logged += 1
        expect(last_value(tab)).to_have_text(f"{logged - 1:,}")
        sizes.append((logged / 1000, heap(session)))
    run.finish("finished")
    assert len(seen.frames) > 200, "the page did not follow"
    # The first thousands fill what has room for a screen's width; growth is what comes after.
    lines, megabytes = np.array(sizes[2:]).T
    slope = float(np.polyfit(lines, megabytes, 1)[0])
    assert slope <= MOST_MB, sizes
    assert len(detached(session)) <= 2 + KEPT


def test_cards_that_come_and_go_leave_nothing_behind(root: Path, seen: Seen) -> None:
    run = started(root, name="many")
    for step in range(30):
        run.log({f"m{n:02d}": float(step * n) for n in range(24)}, step=step)
    run.finish("finished")
    tab = seen.open(f"/run/{key_of(run)}")
    session = tab.context.new_cdp_session(tab)
    wanted = tab.get_by_placeholder("metric …")

    def come_and_go() -> None:
        wanted.fill("m0")
        expect(tab.locator(".card")).to_have_count(10)
        wanted.fill("")
        expect(tab.locator(".card")).to_have_count(24)
        tab.evaluate("scrollTo(0, 1e6)")
        expect(card(tab, "m23").locator("canvas")).to_be_visible()
        expect(card(tab, "m00").locator("canvas")).to_have_count(0)
        tab.evaluate("scrollTo(0, 0)")
        expect(card(tab, "m00").locator("canvas")).to_be_visible()
        expect(card(tab, "m23").locator("canvas")).to_have_count(0)

    for _ in range(5):
        come_and_go()
    before, size = counted(session), heap(session)
    for _ in range(MOUNTS):
        come_and_go()
    # Of a card on the page Preact holds the tree before the last: what it said while it waited.
    assert len(detached(session)) <= 24 + KEPT < 24 * MOUNTS / 2
    after = counted(session)
    assert after["documents"] == before["documents"]
    assert after["nodes"] <= before["nodes"] + 100
    assert after["jsEventListeners"] <= before["jsEventListeners"] + 20
    assert heap(session) <= size + 1.0


def test_pages_that_come_and_go_leave_nothing_behind(root: Path, seen: Seen) -> None:
    run = started(root, name="left")
    for step in range(30):
        run.log({"loss": float(step), "lr": 1.0}, step=step)
    run.finish("finished")
    tab = seen.open(f"/run/{key_of(run)}")
    session = tab.context.new_cdp_session(tab)

    def come_and_go() -> None:
        expect(line_of_sight(tab)).to_be_visible()
        tab.get_by_role("link", name="Studies", exact=True).click()
        expect(line_of_sight(tab)).to_have_count(0)
        tab.go_back()

    for _ in range(5):
        come_and_go()
    expect(line_of_sight(tab)).to_be_visible()
    settle(tab)
    before = counted(session)
    for _ in range(MOUNTS):
        come_and_go()
    expect(line_of_sight(tab)).to_be_visible()
    settle(tab)
    assert len(detached(session)) <= 2 + KEPT
    after = counted(session)
    assert after["nodes"] <= before["nodes"] + 100
    assert after["jsEventListeners"] <= before["jsEventListeners"] + 20


# ---- what the debugger tells ---------------------------------------------------------------


def heap(session: CDPSession) -> float:
    """Megabytes of objects that something still refers to."""
    collect(session)
    return float(session.send("Runtime.getHeapUsage")["usedSize"]) / 2**20


def counted(session: CDPSession) -> dict[str, int]:
    """Documents, nodes and listeners of the page."""
    collect(session)
    found: dict[str, int] = session.send("Memory.getDOMCounters")
    return found


def detached(session: CDPSession) -> list[str]:
    """Nodes that are in no document and that something still holds."""
    collect(session)
    session.send("DOM.enable")
    found = session.send("DOM.getDetachedDomNodes")["detachedNodes"]
    session.send("DOM.disable")
    return [_told(node["treeNode"]) for node in found]


def _told(node: dict[str, Any]) -> str:
    return f"{node['nodeName']} {' '.join(node.get('attributes', []))} {node.get('nodeValue', '')}"


def collect(session: CDPSession) -> None:
    """Collect garbage; more than once, since what is freed first may free more."""
    for _ in range(3):
        session.send("HeapProfiler.collectGarbage")
        time.sleep(0.05)
