"""The main path in Firefox, which speaks WebDriver BiDi: open, draw, follow; nothing forbidden."""

from __future__ import annotations

import base64
import io
import itertools
import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from websockets.sync.client import ClientConnection, connect

from browsing import MARKS, TOKEN, Dashboard, dashboard, key_of, needs, started

pytestmark = MARKS

FIREFOX = Path("/usr/bin/firefox-esr")
# Nothing of what a new profile looks for on the network.
QUIET = """
user_pref("app.update.enabled", false);
user_pref("browser.aboutwelcome.enabled", false);
user_pref("browser.shell.checkDefaultBrowser", false);
user_pref("datareporting.policy.dataSubmissionEnabled", false);
user_pref("network.captive-portal-service.enabled", false);
user_pref("network.connectivity-service.enabled", false);
user_pref("services.settings.server", "data:,");
user_pref("toolkit.telemetry.enabled", false);
"""


class Firefox:
    """A tab, by messages of WebDriver BiDi; it notes what the page requests and complains of."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.send("session.new", {"capabilities": {}})
        self.send("session.subscribe", {"events": ["network.beforeRequestSent", "log.entryAdded"]})
        self.tab = self.send("browsingContext.getTree", {})["contexts"][0]["context"]
        self.send("script.addPreloadScript", {"functionDeclaration": (
            "() => addEventListener('securitypolicyviolation',"
            " (event) => console.error('VIOLATION ' + event.violatedDirective))"
        )})  # fmt: skip

    def send(self, method: str, params: dict[str, Any]) -> dict[str, Any]:
        """Send a command, and its result; events that come before it are noted."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            found = json.loads(self._socket.recv(timeout=60))
            if found.get("id") == number:
                assert found["type"] == "success", found
                result: dict[str, Any] = found["result"]
                return result
            self._note(found)

    def open(self, url: str) -> None:
        self.send("browsingContext.navigate", {"context": self.tab, "url": url, "wait": "complete"})

    def evaluate(self, expression: str) -> Any:
        """What an expression of plain values comes to in the page."""
        found = self.send("script.evaluate", {
            "expression": f"JSON.stringify({expression})", "target": {"context": self.tab},
            "awaitPromise": True,
        })  # fmt: skip
        assert found["type"] == "success", found
        return json.loads(found["result"].get("value", "null"))

    def eventually(self, expression: str, holds: Callable[[Any], bool]) -> Any:
        until = time.monotonic() + 30
        while not holds(found := self.evaluate(expression)):
            assert time.monotonic() < until, (expression, found, self.errors)
            time.sleep(0.05)
        return found

    def picture(self) -> Any:
        """The page as it is seen: rows of pixels."""
        found = self.send("browsingContext.captureScreenshot", {"context": self.tab})
        with Image.open(io.BytesIO(base64.b64decode(found["data"]))) as image:
            return np.asarray(image.convert("RGB")).astype(int)

    def move(self, x: float, y: float) -> None:
        """Move the mouse."""
        self.send("input.performActions", {"context": self.tab, "actions": [{
            "type": "pointer", "id": "mouse",
            "actions": [{"type": "pointerMove", "x": round(x), "y": round(y)}],
        }]})  # fmt: skip

    def _note(self, event: dict[str, Any]) -> None:
        params = event.get("params", {})
        if event.get("method") == "network.beforeRequestSent":
            self.requests.append(params["request"]["url"])
        elif event.get("method") == "log.entryAdded" and params["level"] == "error":
            self.errors.append(str(params.get("text")))


@contextmanager
def firefox(profile: Path) -> Iterator[Firefox]:
    profile.mkdir()
    (profile / "user.js").write_text(QUIET)
    log = profile / "said"
    with log.open("w") as said:
        process = subprocess.Popen(
            [str(FIREFOX), "--headless", "--no-remote", "--profile", str(profile),
             "--remote-debugging-port", "0", "--width", "1200", "--height", "900", "about:blank"],
            env={"PATH": "/usr/bin:/bin", "HOME": str(profile), "TZ": "UTC"},
            stdout=said, stderr=said,
        )  # fmt: skip
    try:
        until = time.monotonic() + 60
        while not (found := re.search(r"WebDriver BiDi listening on (ws://\S+)", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.1)
        with connect(f"{found[1]}/session", max_size=None, proxy=None) as socket:
            yield Firefox(socket)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        shutil.rmtree(profile, ignore_errors=True)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Dashboard]:
    needs(FIREFOX)
    with dashboard(tmp_path / "runs") as found:
        yield found


_LAST = "document.querySelector('.card-last')?.innerText ?? null"
_BOX = (
    "(({x, y, width, height}) => [x, y, width, height])"
    "(document.querySelector('.u-over').getBoundingClientRect())"
)


def test_a_run_is_drawn_followed_and_pointed_at_in_firefox(
    served: Dashboard, tmp_path: Path
) -> None:
    run = started(served.root)
    for step in range(50):
        run.log({"loss": 1.0}, step=step)
    with firefox(tmp_path / "profile") as tab:
        tab.open(served.url(f"/run/{key_of(run)}"))
        tab.eventually(_LAST, lambda text: text == "1")
        assert TOKEN not in tab.evaluate("location.href")
        tab.eventually("!!document.querySelector('.u-over')", bool)
        time.sleep(0.3)
        assert across(tab)[1] - across(tab)[0] < 0.1  # a flat line

        for step in range(50, 100):
            run.log({"loss": 3.0}, step=step)
        tab.eventually(_LAST, lambda text: text == "3")
        time.sleep(0.3)
        low, high = across(tab)
        assert high - low > 0.5  # a step

        x, y, width, height = tab.evaluate(_BOX)
        tab.move(x + 20 / 99 * width, y + height / 2)
        tip = "document.querySelector('.tip')?.innerText ?? ''"
        told = tab.eventually(tip, lambda text: " in" in text)
        assert re.match(r"step (19|20|21) · \d{4}-\d\d-\d\d \d\d:\d\d:\d\d · ", told), told
        assert told.split(" in")[1].split()[0] == "1", told

        for path in ("/", "/studies", "/queue", "/models"):
            tab.open(served.address + path)
            tab.eventually("document.querySelector('main').innerText.trim()", bool)
            time.sleep(0.3)
        assert "Connected" in tab.evaluate("document.querySelector('header.bar').innerText")
        own = (served.address, served.address.replace("http", "ws"), "about:", "data:", "blob:")
        assert len(tab.requests) > 10
        assert [url for url in tab.requests if not url.startswith(own)] == []
        assert tab.errors == []

        # The watch is not blind.
        tab.evaluate("(document.body.append(Object.assign(document.createElement('script'),"
                     " {textContent: 'window.ran = 1'})), 1)")  # fmt: skip
        tab.eventually("1", lambda _: any("VIOLATION script-src" in said for said in tab.errors))
        assert tab.evaluate("window.ran ?? null") is None
    run.finish("finished")


def across(tab: Firefox) -> tuple[float, float]:
    """Between which heights of the chart a curve is seen, from 0 to 1."""
    x, y, width, height = (round(at) for at in tab.evaluate(_BOX))
    ratio = tab.evaluate("devicePixelRatio")
    assert ratio == 1
    pixels = tab.picture()[y : y + height, x : x + width]
    rows = np.flatnonzero((pixels.max(axis=2) - pixels.min(axis=2) > 40).any(axis=1))
    assert len(rows), "no curve is seen"
    return 1 - rows[-1] / height, 1 - rows[0] / height
