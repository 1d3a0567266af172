"""Some clients in one process: each subscribes to one chart of some runs and reads all it is sent.

listening.py ADDRESS TOKEN COUNT SECONDS KEY…     prints JSON: of each client a list of
                                                  [ms of the clock, newest value by run]
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

import websockets

from cupel.dashboard import frames

_NAME_BYTES = 64


async def listen(address: str, token: str, seconds: float, keys: list[str]) -> list[Any]:
    """What one client was sent."""
    log: list[Any] = []
    query = {"kind": "chart", "runs": keys, "metric": "count", "px": 500}
    async with websockets.connect(
        address.replace("http", "ws", 1) + "/ws",
        subprotocols=[websockets.Subprotocol("cupel.v1")],
        additional_headers={"Authorization": f"Bearer {token}"},
        origin=websockets.Origin(address),
        compression=None,
        max_size=None,
    ) as socket:
        await socket.send(json.dumps({"type": "hello", "proto": "cupel.v1"}))
        await socket.send(json.dumps({"type": "sub", "id": "s1", "query": query}))
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            try:
                message = await asyncio.wait_for(socket.recv(), left)
            except TimeoutError:
                break
            if isinstance(message, bytes):
                log.append([time.time() * 1e3, newest(message[_NAME_BYTES:])])
    return log


def newest(frame: bytes) -> dict[str, float]:
    """The last value of each run in a frame."""
    header, columns = frames.unpack(frame)
    found, at = {}, 1
    for facts in header["curves"]:
        last = columns[at]
        finite = last[last == last]
        if len(finite):
            found[facts["run"]] = float(finite[-1])
        at += 1 + 2 * facts["band"] + facts["smooth"]
    return found


async def all_of_them(
    address: str, token: str, count: int, seconds: float, keys: list[str]
) -> None:
    """All clients at once."""
    logs = await asyncio.gather(*(listen(address, token, seconds, keys) for _ in range(count)))
    print(json.dumps(logs))


if __name__ == "__main__":
    where, key, many, long, *runs = sys.argv[1:]
    asyncio.run(all_of_them(where, key, int(many), float(long), runs))
