"""A dashboard and a browser for each test; in the end nothing may have gone wrong in any page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser

from browsing import CHROMIUM, Dashboard, Seen, chromium, dashboard, needs


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium, started once for a module."""
    needs(CHROMIUM)
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the runs of a module's tests are; each test looks at its own."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def server(browser: Browser, root: Path) -> Iterator[Dashboard]:
    """The real server of that root."""
    with dashboard(root) as found:
        yield found


@pytest.fixture
def served(server: Dashboard) -> Dashboard:
    """The server, which a test may kill: the next one has it again."""
    server.start()
    return server


@pytest.fixture
def device() -> dict[str, Any]:
    """What kind of screen; tests of phones say another."""
    return {"viewport": {"width": 1200, "height": 900}}


@pytest.fixture
def seen(browser: Browser, served: Dashboard, device: dict[str, Any]) -> Iterator[Seen]:
    """Pages in which nothing may go wrong."""
    context = browser.new_context(timezone_id="UTC", **device)
    context.set_default_timeout(15_000)
    found = Seen(context, served)
    yield found
    context.close()
    assert found.trouble() == []
