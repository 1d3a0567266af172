"""What is logged is on the page: at once, through breaks, and with whatever is left of the page."""

from __future__ import annotations

import csv
import io
import re
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, expect

from browsing import (
    AWAY,
    MARKS,
    Dashboard,
    Seen,
    card,
    ink,
    key_of,
    last_value,
    line_of_sight,
    pointed_at,
    started,
    tip,
)  # fmt: skip
from cupel.record.session import Session

pytestmark = MARKS


def test_the_watch_over_pages_sees_foreign_code_and_foreign_requests(seen: Seen) -> None:
    """Were it blind, no test here would mean anything."""
    tab = seen.open("/")
    tab.evaluate("document.body.append(Object.assign(document.createElement('script'),"
                 " {textContent: 'window.ran = 1'}))")  # fmt: skip
    tab.evaluate("document.body.append(Object.assign(document.createElement('img'),"
                 " {src: 'http://127.0.0.2:9/x.png'}))")  # fmt: skip
    tab.evaluate("setTimeout(() => { throw new Error('planted') })")
    tab.wait_for_timeout(300)
    assert tab.evaluate("window.ran") is None
    told = " ".join(seen.trouble())
    for part in (
        "VIOLATION script-src",
        "VIOLATION img-src",
        "planted",
        "request to http://127.0.0.2",
    ):
        assert part in told, told
    seen.errors.clear()
    seen.requests.clear()


def test_what_is_logged_appears_without_a_reload(root: Path, seen: Seen) -> None:
    run = started(root)
    for step in range(50):
        run.log({"loss": 1.0}, step=step)
    tab = seen.open(f"/run/{key_of(run)}")
    expect(last_value(tab)).to_have_text("1")
    expect(line_of_sight(tab)).to_be_visible()
    flat = ink(tab)
    assert flat
    assert max(high - low for _, high, low in flat) < 0.1
    loads = [url for url in seen.requests if "/run/" in url and "/api/" not in url]
    for step in range(50, 100):
        run.log({"loss": 3.0}, step=step)
    expect(last_value(tab)).to_have_text("3")
    tab.wait_for_timeout(200)
    steps = ink(tab)
    left = [high for x, high, _ in steps if x < 0.45]
    right = [low for x, _, low in steps if x > 0.55]
    assert max(left) < 0.2
    assert min(right) > 0.8
    run.log({"new/metric": 5.0}, step=100)
    expect(last_value(tab, "new/metric")).to_have_text("5")
    run.finish("finished")
    expect(tab.locator("h1 + .pill")).to_have_text("finished")
    again = [url for url in seen.requests if "/run/" in url and "/api/" not in url]
    assert again == loads


def test_a_card_asks_once_for_what_it_shows(root: Path, seen: Seen) -> None:
    run = started(root, name="once")
    for step in range(50):
        run.log({"loss": float(step), "lr": 1.0}, step=step)
    run.finish("finished")
    asked: list[str] = []
    tab = seen.context.new_page()

    def heard(frame: str | bytes) -> None:
        if '"chart"' in str(frame):
            asked.append(str(frame))

    tab.on("websocket", lambda socket: socket.on("framesent", heard))
    tab.goto(seen.served.url(f"/run/{key_of(run)}"))
    for metric in ("loss", "lr"):
        expect(line_of_sight(tab, metric)).to_be_visible()
    tab.wait_for_timeout(300)
    assert len(asked) == 2, asked


def test_a_new_line_is_seen_within_half_a_second(root: Path, seen: Seen) -> None:
    """The median of nine; measured 0.10 s, of which the server's tick is up to 0.1 s."""
    run = started(root)
    run.log({"loss": 0.0}, step=0)
    tab = seen.open(f"/run/{key_of(run)}")
    expect(last_value(tab)).to_have_text("0")
    took = []
    for step in range(1, 10):
        began = time.monotonic()
        run.log({"loss": float(step)}, step=step)
        tab.wait_for_function(
            "step => document.querySelector('.card-last')?.textContent === step", arg=str(step)
        )
        took.append(time.monotonic() - began)
    run.finish("finished")
    assert sorted(took)[4] < 0.5, took


def test_a_killed_server_is_told_of_and_comes_back_to_exactly_the_record(
    root: Path, served: Dashboard, seen: Seen
) -> None:
    seen.expected.append(AWAY)
    run = started(root)
    logged: list[float] = []

    def log(count: int) -> None:
        for _ in range(count):
            logged.append(len(logged) * 7 % 1000 / 4)  # at most five digits
            run.log({"loss": logged[-1]}, step=len(logged) - 1)

    log(40)
    tab = seen.open(f"/run/{key_of(run)}")
    expect(last_value(tab)).to_have_text(shown(logged[-1]))
    for _ in range(2):
        log(10)
        served.kill()
        log(10)
        expect(connection(tab)).to_contain_text("Offline")
        served.start()
        log(10)
        expect(connection(tab)).to_have_text("Connected")
        expect(last_value(tab)).to_have_text(shown(logged[-1]))
    log(5)
    expect(last_value(tab)).to_have_text(shown(logged[-1]))
    assert tooltips(tab) == dict(enumerate(logged))
    run.finish("finished")
    rows = exported(tab)
    assert [(int(row["step"]), float(row["loss"])) for row in rows] == list(enumerate(logged))


def test_without_its_drawing_part_a_page_shows_tables_that_live(root: Path, seen: Seen) -> None:
    run = started(root)
    for step in range(20):
        run.log({"loss": 20.0 - step}, step=step)
    seen.context.route(re.compile(r"/assets/plot-"), lambda route: route.abort())
    seen.expected.append("ERR_FAILED.*plot-")
    tab = seen.open(f"/run/{key_of(run)}")
    found = card(tab, "loss")
    expect(found).to_contain_text("Charts are not available")
    cells = found.locator("tbody td.number")
    expect(cells).to_have_text(["1", "1", "20"])
    before = found.locator("svg path").last.get_attribute("d")
    run.log({"loss": 30.0}, step=20)
    expect(cells).to_have_text(["30", "1", "30"])
    assert found.locator("svg path").last.get_attribute("d") != before
    run.finish("finished")


def test_without_a_socket_a_page_polls_and_says_so(
    root: Path, served: Dashboard, seen: Seen
) -> None:
    seen.context.route_web_socket(re.compile("/ws$"), lambda socket: socket.close())
    seen.expected.append(AWAY)
    run = started(root)
    run.log({"loss": 4.0}, step=0)
    tab = seen.open(f"/run/{key_of(run)}")
    expect(connection(tab)).to_have_text("Polling")
    expect(last_value(tab)).to_have_text("4")
    for step, value in enumerate((5.0, 6.0), 1):
        run.log({"loss": value}, step=step)
        expect(last_value(tab)).to_have_text(f"{value:.0f}")
    served.kill()
    expect(connection(tab)).to_contain_text("Offline")
    run.log({"loss": 7.0}, step=3)
    served.start()
    expect(connection(tab)).to_have_text("Polling")
    expect(last_value(tab)).to_have_text("7")
    assert tooltips(tab, timed=False) == {0: 4.0, 1: 5.0, 2: 6.0, 3: 7.0}
    run.finish("finished")


def test_twelve_pages_at_once_show_the_same(root: Path, browser: Browser, seen: Seen) -> None:
    """Six tabs of one person, six of another."""
    run = started(root)
    run.log({"loss": 1.0}, step=0)
    path = f"/run/{key_of(run)}"
    other = Seen(browser.new_context(timezone_id="UTC"), seen.served)
    tabs = [one.open(path) for one in (seen, other) for _ in range(6)]
    for step in range(1, 300):
        run.log({"loss": float(step * 13 % 97)}, step=step)
    for tab in tabs:
        expect(last_value(tab)).to_have_text(f"{299 * 13 % 97}")
    run.finish("finished")
    drawn = []
    for tab in (tabs[0], tabs[1], tabs[-1]):
        tab.bring_to_front()
        expect(tab.locator("h1 + .pill")).to_have_text("finished")
        drawn.append(tooltips(tab, every=60))
    assert drawn[0] == drawn[1] == drawn[2] != {}
    other.context.close()
    assert other.trouble() == []


def test_a_hidden_tab_is_sent_nothing_and_catches_up_with_one_frame(root: Path, seen: Seen) -> None:
    run = started(root)
    run.log({"loss": 0.0}, step=0)
    tab = seen.open(f"/run/{key_of(run)}")
    expect(last_value(tab)).to_have_text("0")
    hide(tab, True)
    tab.wait_for_timeout(500)
    assert seen.frames
    seen.frames.clear()
    for step in range(1, 31):
        run.log({"loss": float(step)}, step=step)
        tab.wait_for_timeout(50)
    assert seen.frames == []
    expect(last_value(tab)).to_have_text("0")
    hide(tab, False)
    expect(last_value(tab)).to_have_text("30")
    tab.wait_for_timeout(500)
    assert len(seen.frames) == 1
    assert tooltips(tab) == {step: float(step) for step in range(31)}
    run.finish("finished")


def test_a_tab_that_is_hidden_while_the_server_comes_back_is_sent_nothing(
    root: Path, served: Dashboard, seen: Seen
) -> None:
    seen.expected.append(AWAY)
    run = started(root)
    run.log({"loss": 0.0}, step=0)
    tab = seen.open(f"/run/{key_of(run)}")
    expect(last_value(tab)).to_have_text("0")
    hide(tab, True)
    served.kill()
    expect(connection(tab)).to_contain_text("Offline")
    served.start()
    expect(connection(tab)).to_have_text("Connected")
    tab.wait_for_timeout(500)
    run.log({"loss": 1.0}, step=1)
    tab.wait_for_timeout(1000)
    expect(last_value(tab)).to_have_text("0")
    hide(tab, False)
    expect(last_value(tab)).to_have_text("1")
    run.finish("finished")


# ---- what a person sees --------------------------------------------------------------------


def connection(tab: Page) -> Any:
    """The pill in the bar."""
    return tab.locator("header.bar .pill")


def shown(value: float) -> str:
    """A value of at most five digits as the page writes it."""
    digits = 5 - len(str(int(value)))
    return f"{value:.0f}" if value == int(value) else f"{value:.{digits}f}"


def tooltips(tab: Page, every: int = 1, *, timed: bool = True) -> dict[int, float]:
    """All steps and values that the arrow keys lead to, as the tooltip has them. That it tells the
    time is the sign that it is exact; while a page polls, it does not."""
    found: dict[int, float] = {}
    chart = card(tab, "loss").locator(".chart")
    chart.focus()
    tab.keyboard.press("Home")
    before = None
    while (now := _settled(tab, before, timed)) != before:
        step, value = now
        assert step not in found, "a point is there twice"
        found[step] = value
        before = now
        for _ in range(every):
            tab.keyboard.press("ArrowRight")
    return found


def _settled(tab: Page, before: tuple[int, float] | None, timed: bool) -> tuple[int, float]:
    """The tooltip when it says a step, and another one than before unless there is none."""
    until = time.monotonic() + 0.5
    while True:
        expect(tip(tab).locator(".tip-head")).to_contain_text(" in" if timed else "step")
        now = pointed_at(tab)
        if (now is not None and now != before) or time.monotonic() > until:
            assert now is not None
            return now
        tab.wait_for_timeout(20)


def exported(tab: Page) -> list[dict[str, str]]:
    """The rows of the file behind "All numbers as CSV" in the page's menu."""
    tab.get_by_text("Export", exact=True).first.click()
    with tab.expect_download() as download:
        tab.get_by_role("link", name="All numbers as CSV").click()
    return list(csv.DictReader(io.StringIO(download.value.path().read_text())))


def hide(tab: Page, hidden: bool) -> None:
    """What the browser does when a person turns to another tab, and back."""
    tab.evaluate(
        "hidden => {"
        " Object.defineProperty(document, 'hidden', {configurable: true, get: () => hidden});"
        " document.dispatchEvent(new Event('visibilitychange')); }",
        hidden,
    )


def test_runs_side_by_side_follow_one_that_trains(root: Path, seen: Seen) -> None:
    done, going = started(root, name="done"), started(root, name="going")
    for run in (done, going):
        run.log({"loss": 0.5}, step=1)
    done.finish("finished")
    tab = seen.open(f"/compare?run={key_of(done)}&run={key_of(going)}")
    numbers = tab.get_by_role("region", name="Table of metrics")
    expect(numbers.get_by_text("0.5", exact=False)).to_have_count(2)
    for step, loss in ((2, 0.25), (3, 0.125)):
        going.log({"loss": loss}, step=step)
        expect(numbers.get_by_text(str(loss), exact=False)).to_be_visible(timeout=20_000)
    going.finish("finished")
    expect(tab.locator(".sides").get_by_text("finished")).to_have_count(2, timeout=20_000)


def test_what_is_compared_may_be_there_later(root: Path, seen: Seen) -> None:
    tab = seen.open("/compare?run=p/not-yet")
    expect(tab.get_by_role("alert")).to_contain_text("not-yet")
    run = Session.start(root=root, project="p", name="n", config={}, identity="i", run_id="not-yet")
    run.log({"loss": 0.5}, step=1)
    expect(tab.get_by_role("heading", name="One run")).to_be_visible(timeout=20_000)
    run.finish("finished")
    assert {"404" in told for told in seen.errors} == {True}, "as long as it was not there"
    seen.errors.clear()
