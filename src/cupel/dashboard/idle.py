"""When a dashboard that nobody asked for ends itself: nobody looks, and nothing runs, for long."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

AFTER_S = 30 * 60.0
_HEALTH = "/healthz"  # asked by programs, which look at nothing


class Idle:
    """Tells when a server has been of no use for `after_s` seconds.

    It is of use while a page is open, for as long after a request, and while a run lives. `lives`
    is asked only when no page is, since it costs more.
    """

    def __init__(
        self,
        lives: Callable[[], bool],
        *,
        after_s: float = AFTER_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._lives, self._after_s, self._clock = lives, after_s, clock
        self._used = clock()

    def is_over(self, visits: Visits) -> bool:
        """Whether it has lasted long enough; to be asked now and then."""
        now = self._clock()
        if visits.open:
            self._used = now
        elif visits.last is not None:
            self._used = max(self._used, visits.last)
        if now - self._used >= self._after_s and self._lives():
            self._used = now  # it may be looked at once more when it has ended
        return now - self._used >= self._after_s


class Visits:
    """An application that counts who looks on at `app`: pages open, and the last request."""

    def __init__(self, app: ASGIApp, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._app, self._clock = app, clock
        self.open = 0
        self.last: float | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] != _HEALTH:
            self.last = self._clock()
        if scope["type"] != "websocket":
            await self._app(scope, receive, send)
            return
        self.open += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self.open -= 1
            self.last = self._clock()
