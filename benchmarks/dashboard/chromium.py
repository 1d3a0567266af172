"""Chromium as an instrument: what a page costs, when its first chart is seen, when it is redrawn.

One browser for all tools, the same flags, without a GPU. Processor time is what Chromium itself
says of its processes, and bytes are what its network layer says, with what came over WebSockets.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

CHROMIUM = "/usr/bin/chromium"
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
SIZE = {"width": 1440, "height": 900}
# What a page draws its first chart on.
CANVAS = {
    "cupel": ".card .chart canvas",
    "tensorboard": "scalar-card canvas",
    "trackio": ".vega-embed canvas",
}
IDLE_S = 4.0
SETTLED_S, QUIET_S = 20.0, 0.02  # at most; processor seconds in half a second

# Looks whether the canvas holds coloured ink: axes and their texts are grey. It asks for no frames,
# which would cost a page that takes long, and looks less often once it has taken three seconds.
_SEEN = """
(selector => {
  const small = document.createElement("canvas");
  [small.width, small.height] = [240, 120];
  const context = small.getContext("2d", { willReadFrequently: true });
  const inked = canvas => {
    if (!canvas.width || !canvas.height) return false;
    context.clearRect(0, 0, 240, 120);
    context.drawImage(canvas, 0, 0, 240, 120);
    const { data } = context.getImageData(0, 0, 240, 120);
    let found = 0;
    for (let i = 0; i < data.length; i += 4) {
      const [r, g, b, a] = [data[i], data[i + 1], data[i + 2], data[i + 3]];
      if (a > 60 && Math.max(r, g, b) - Math.min(r, g, b) > 40) found++;
    }
    return found > 60;
  };
  const look = () => {
    const canvas = document.querySelector(selector);
    if (canvas && inked(canvas)) window.tellSeen(performance.now());
    else setTimeout(look, performance.now() < 3000 ? 16 : 100);
  };
  look();
})"""


@dataclass
class Wire:
    """What came over the network since it was made: requests, bytes, and those of sockets."""

    requests: int = 0
    http_bytes: float = 0
    socket_bytes: float = 0
    by_name: dict[str, float] = field(default_factory=dict)
    _names: dict[str, str] = field(default_factory=dict)

    @property
    def all_bytes(self) -> float:
        return self.http_bytes + self.socket_bytes

    def listen(self, session: Any) -> None:
        session.on("Network.requestWillBeSent", self._asked)
        session.on("Network.loadingFinished", self._loaded)
        session.on("Network.webSocketFrameReceived", self._framed)
        session.send("Network.enable")

    def _asked(self, event: dict[str, Any]) -> None:
        self.requests += 1
        self._names[event["requestId"]] = event["request"]["url"]

    def _loaded(self, event: dict[str, Any]) -> None:
        self.http_bytes += event["encodedDataLength"]
        name = self._names.get(event["requestId"], "?")
        self.by_name[name] = self.by_name.get(name, 0) + event["encodedDataLength"]

    def _framed(self, event: dict[str, Any]) -> None:
        frame = event["response"]
        text = frame["payloadData"]
        size = len(base64.b64decode(text)) if frame["opcode"] == 2 else len(text.encode())
        self.socket_bytes += size


class Tab:
    """One page of a fresh browser, and what the browser says of it."""

    def __init__(self, browser: Any, page: Any) -> None:
        self.page = page
        self.session = page.context.new_cdp_session(page)
        self.wire = Wire()
        self._browser = browser.new_browser_cdp_session()

    def cpu(self) -> dict[int, tuple[str, float]]:
        """Of each process of the browser its kind and its processor seconds."""
        info = self._browser.send("SystemInfo.getProcessInfo")["processInfo"]
        return {one["id"]: (one["type"], one["cpuTime"]) for one in info}

    def settle(self) -> None:
        """Wait until the browser has started: that takes it a processor second of its own."""
        self.page.goto("about:blank")
        until = time.monotonic() + SETTLED_S
        before = self.cpu()
        while time.monotonic() < until:
            self.page.wait_for_timeout(500)
            now = self.cpu()
            if spent(before, now) <= QUIET_S:
                return
            before = now

    def heap(self) -> tuple[float, float]:
        """MB of the page's JavaScript after a collection, and of what it holds beside."""
        self.session.send("HeapProfiler.enable")
        self.session.send("HeapProfiler.collectGarbage")
        used = self.session.send("Runtime.getHeapUsage")
        return used["usedSize"] / 1e6, used["backingStorageSize"] / 1e6

    def heard(self, name: str) -> list[Any]:
        """What scripts of the page tell by calling a function of this name, as it comes."""
        told: list[Any] = []

        def hear(what: Any) -> None:
            told.append(what)

        self.page.expose_function(name, hear)
        return told

    def wait(self, told: list[Any], seconds: float, *, count: int = 1) -> Any:
        """The last of so many things told; the page is not asked. Raises TimeoutError."""
        until = time.monotonic() + seconds
        while len(told) < count:
            if time.monotonic() > until:
                raise TimeoutError(f"{len(told)} of {count} came within {seconds:g} s")
            self.page.wait_for_timeout(10)
        return told[-1]


def spent(
    before: dict[int, tuple[str, float]], after: dict[int, tuple[str, float]], *kinds: str
) -> float:
    """Processor seconds between two looks, of some kinds of processes or of all."""
    return sum(
        seconds - before.get(number, (kind, 0.0))[1]
        for number, (kind, seconds) in after.items()
        if not kinds or kind in kinds
    )


@contextmanager
def opened(playwright: Any, *scripts: str, size: dict[str, int] | None = None) -> Iterator[Tab]:
    """A tab of a new browser without any cache; the scripts run before those of its pages."""
    browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
    try:
        page = browser.new_page(viewport=size or SIZE)
        page.set_default_timeout(180_000)
        for script in scripts:
            page.add_init_script(script)
        yield Tab(browser, page)
    finally:
        browser.close()


def first_view(playwright: Any, tool: str, url: str, *, patience_s: float = 180) -> dict[str, Any]:
    """What it takes to open a page and see its first chart, and what goes on for 4 s after."""
    with opened(playwright, f"{_SEEN}({CANVAS[tool]!r})") as tab:
        seen = tab.heard("tellSeen")
        tab.settle()
        tab.wire.listen(tab.session)
        before = tab.cpu()
        tab.page.goto(url, wait_until="commit")
        seen_ms = tab.wait(seen, patience_s)
        at_chart, wire_then = tab.cpu(), (tab.wire.requests, tab.wire.all_bytes)
        tab.page.wait_for_timeout(IDLE_S * 1e3)
        after = tab.cpu()
        heap, backing = tab.heap()
        return {
            "chart_s": seen_ms / 1e3,
            "cpu_to_chart_s": spent(before, at_chart, "renderer", "GPU"),
            "cpu_s": spent(before, after, "renderer", "GPU"),
            "cpu_all_s": spent(before, after),
            "requests": wire_then[0],
            "bytes": wire_then[1],
            "bytes_with_idle": tab.wire.all_bytes,
            "heap_mb": heap,
            "backing_mb": backing,
        }
