"""A real dashboard seen through a real browser, for tests: `Dashboard`, `Seen`, and where to look.

The page is given no hooks. What it shows is read as a person reads it: words, tooltips, pixels.
`Seen` notes everything that must never happen, whatever a test is about: a page error, a violation
of the policy that forbids foreign code, a request that leaves the machine.
"""

from __future__ import annotations

import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, WebSocket, sync_playwright

from cupel.dashboard import launch, page
from cupel.record.session import Session
from dashboards import environment
from studied import gridded

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
]  # fmt: skip
TOKEN = "a-token-for-the-browser"
# One after the other, in one process: browsers at once would wait for each other's processor.
MARKS = [pytest.mark.slow, pytest.mark.xdist_group("browser")]

_TELL_VIOLATIONS = """
addEventListener("securitypolicyviolation", (event) =>
  console.error(`VIOLATION ${event.violatedDirective} ${event.blockedURI} ${event.sample}`));
"""


def needs(program: Path) -> None:
    """Skip where a browser is not installed, fail where the page is not built."""
    if not program.is_file():
        pytest.skip(f"{program} is not installed; on Debian type: apt-get install {program.name}")
    assert (page.STATIC / "index.html").is_file(), "the page is not built; type: make page"


class Dashboard:
    """A server of a root in a process of its own, on one port, that can be killed and come back."""

    def __init__(self, root: Path, *options: str) -> None:
        self.root, self.options = root, options
        self.port = _free_port()
        self.address = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it if it does not run, and wait until it answers."""
        if self._process is not None:
            return
        command = [
            *(sys.executable, "-m", "cupel", "dashboard", "--root", str(self.root)),
            *("--port", str(self.port), "--no-open", *self.options),
        ]
        self._process = subprocess.Popen(
            command, env=environment(CUPEL_DASHBOARD_TOKEN=TOKEN), stdout=subprocess.DEVNULL
        )
        found = launch.wait(self.root, 30)
        assert found is not None, "the server did not come"
        assert found.port == self.port

    def kill(self) -> None:
        """SIGKILL: it says goodbye to nobody."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def url(self, path: str) -> str:
        """An address with the token in it, as the command prints it."""
        return f"{self.address}{path}#t={TOKEN}"


@contextmanager
def dashboard(root: Path, *options: str) -> Iterator[Dashboard]:
    """One that runs until the end."""
    found = Dashboard(root, *options)
    try:
        found.start()
        yield found
    finally:
        found.kill()


def _free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser. While it is open no other event loop can run in this thread."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


class Seen:
    """Pages of one browser context, and all that went wrong in them."""

    def __init__(self, context: BrowserContext, served: Dashboard) -> None:
        self.context, self.served = context, served
        self.errors: list[str] = []
        self.requests: list[str] = []
        self.frames: list[int] = []  # sizes of what charts were sent
        self.expected: list[str] = []  # patterns of errors that a test brings about
        context.add_init_script(_TELL_VIOLATIONS)
        context.on("request", lambda request: self.requests.append(request.url))
        context.on("weberror", lambda error: self.errors.append(f"page error: {error.error}"))
        context.on("console", self._heard)
        context.on("page", lambda page: page.on("websocket", self._opened))

    def open(self, path: str) -> Page:
        """A new tab at an address of the page."""
        tab = self.context.new_page()
        tab.goto(self.served.url(path))
        return tab

    def trouble(self) -> list[str]:
        """What must never happen and did."""
        own = (self.served.address, self.served.address.replace("http", "ws", 1), "blob:", "data:")
        foreign = [f"request to {url}" for url in self.requests if not url.startswith(own)]
        found = [e for e in self.errors if not any(re.search(p, e) for p in self.expected)]
        return found + foreign

    def _heard(self, message: Any) -> None:
        if message.type == "error":
            self.errors.append(f"console: {message.text} {message.location.get('url', '')}")

    def _opened(self, socket: WebSocket) -> None:
        self.requests.append(socket.url)
        socket.on("framereceived", self._received)

    def _received(self, frame: bytes | str) -> None:
        if isinstance(frame, bytes):
            self.frames.append(len(frame))


AWAY = r"ERR_CONNECTION_REFUSED|WebSocket connection to|ERR_EMPTY_RESPONSE|ERR_CONNECTION_RESET"


# ---- records -------------------------------------------------------------------------------


def started(root: Path, name: str = "one", **given: Any) -> Session:
    """A run that has just begun."""
    given.setdefault("config", {})
    session = Session.start(root=root, project="p", name=name, identity=name, **given)
    session.begin_at(0)
    return session


def key_of(session: Session) -> str:
    """As in all addresses."""
    return f"p/{session.run_id}"


def furnish(root: Path) -> dict[str, str]:
    """A root in which every page has something to show; the pages' addresses by name."""
    from torch import nn

    from cupel.record.model import describe_model

    runs = []
    for seed in range(2):
        blocks = [nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8)) for _ in range(3)]
        model = nn.Sequential(
            nn.Embedding(10, 8), *blocks, nn.LayerNorm(8), nn.Linear(8, 10 + seed)
        )
        config = {"seed": seed, "train": {"lr": 0.1 * (seed + 1)}, "data": "text"}
        run = started(root, name=f"seed {seed}", tags=["small", f"s{seed}"], config=config)
        run.write_run_json("model.json", describe_model(model))
        for step in range(120):
            # One value is not finite and one stands out, so that there are anomalies.
            loss = {60: float("nan"), 100: 40.0}.get(step, 3.0 / (1 + step) + 0.01 * (step % 3))
            run.log({"loss": loss, "val_loss": loss + 0.1, "lr": 0.001 * step}, step=step)
        run.finish("finished" if seed else "failed")
        runs.append(run)

    def told(arm: str, lr: float, width: int, seed: int) -> float:
        return 1.0 + lr + seed / 100 + (arm == "wave") / 10

    gridded(root, told, widths=(16,), seeds=(1, 2))
    first, second = (key_of(run) for run in runs)
    tabs = ("config", "media", "console", "sessions", "anomalies")
    return {
        "runs": "/",
        "run": f"/run/{first}",
        **{tab: f"/run/{first}?tab={tab}" for tab in tabs},
        "compare": f"/compare?run={quote(first, safe='')}&run={quote(second, safe='')}",
        "studies": "/studies",
        "study": "/study/p/rates",
        "queue": "/queue",
        "models": f"/models?a={quote(first, safe='')}&b={quote(second, safe='')}",
        "model": f"/model/{first}",
    }  # fmt: skip


def settle(tab: Page) -> None:
    """Wait until a page has fetched what it shows."""
    tab.wait_for_function(
        "() => document.querySelector('main')?.innerText.trim()"
        " && !document.querySelector('.loading') && !document.body.innerText.includes('fetching …')"
    )
    tab.wait_for_timeout(150)


# ---- where to look -------------------------------------------------------------------------


def card(tab: Page, metric: str) -> Locator:
    """The card of a metric."""
    return tab.locator(f'.card[data-metric="{metric}"]')


def last_value(tab: Page, metric: str = "loss") -> Locator:
    """The newest value, beside the metric's name."""
    return card(tab, metric).locator(".card-last")


def tip(tab: Page, metric: str = "loss") -> Locator:
    """The tooltip."""
    return card(tab, metric).locator(".tip")


def pointed_at(tab: Page, metric: str = "loss") -> tuple[int, float] | None:
    """Step and value of the first row that the tooltip has, read at one moment; None before."""
    told = tip(tab, metric).evaluate(
        "tip => ['.tip-head', 'td.number'].map((part) => tip.querySelector(part).innerText)"
    )
    step = re.match(r"step ([\d,]+)(?: ·|$)", told[0])
    return (int(number(step[1])), number(told[1])) if step else None


def line_of_sight(tab: Page, metric: str = "loss") -> Locator:
    """What the mouse moves over: the area of the chart within its axes."""
    return card(tab, metric).locator(".u-over")


# Where on a canvas a curve's colour is, as columns of pixels: for each the highest and the lowest.
_INK = """
(card) => {
  const canvas = card.querySelector("canvas");
  const over = card.querySelector(".u-over").getBoundingClientRect();
  const outer = canvas.getBoundingClientRect();
  const ratio = canvas.width / outer.width;
  const [left, top] = [(over.left - outer.left) * ratio, (over.top - outer.top) * ratio];
  const [width, height] = [Math.floor(over.width * ratio), Math.floor(over.height * ratio)];
  const pixels = canvas.getContext("2d").getImageData(left, top, width, height).data;
  const columns = [];
  for (let x = 0; x < width; x++) {
    let highest = null, lowest = null;
    for (let y = 0; y < height; y++) {
      const at = 4 * (y * width + x);
      const [r, g, b, a] = pixels.subarray(at, at + 4);
      // Axes and grid are grey; curves are not.
      if (a > 60 && Math.max(r, g, b) - Math.min(r, g, b) > 40) { highest ??= y; lowest = y; }
    }
    if (highest !== null) columns.push([x / width, 1 - highest / height, 1 - lowest / height]);
  }
  return columns;
}
"""


def ink(tab: Page, metric: str = "loss") -> list[tuple[float, float, float]]:
    """Where a curve is seen: across, its highest and its lowest, each from 0 to 1."""
    found = card(tab, metric).evaluate(_INK)
    return [(x, high, low) for x, high, low in found]


def number(text: str) -> float:
    """A number as the page writes it."""
    return float(text.replace(",", "").replace("−", "-"))
