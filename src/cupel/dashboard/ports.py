"""The port that a dashboard listens on: `listen(host)` takes one, and it stays taken.

A socket is bound and listening when it is chosen, and handed to the server as it is: nobody can
come between. On the loopback both 127.0.0.1 and ::1 are taken, where there are both, since a
browser may mean either by `localhost`, and another program there would be given our requests.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cupel.errors import CupelError, UsageError

LOOPBACK = "127.0.0.1"
BASE, MOST = 8765, 100
_LOOPBACKS = ("localhost", "127.0.0.1", "::1", "[::1]")
_EVERYWHERE = ("", "0.0.0.0", "::", "[::]")
_ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_BACKLOG = 128


@dataclass(slots=True)
class Listening:
    """Sockets that listen on one port; `close` them, or hand them to who will."""

    sockets: list[socket.socket]
    port: int

    def close(self) -> None:
        for one in self.sockets:
            one.close()


def is_loopback(host: str) -> bool:
    """Whether only this machine can ask a server there."""
    return host.lower() in _LOOPBACKS


def hosts_of(host: str, port: int) -> list[str]:
    """The names by which a browser may call a server that listens there.

    Those of the loopback hold at any port, as `ssh -L` may give it another one.
    """
    names = ["localhost", "127.0.0.1", "[::1]"]
    if is_loopback(host):
        return names
    others = [host] if host not in _EVERYWHERE else [socket.gethostname(), *_own_addresses()]
    return [*names, *(f"{_bracketed(name)}:{port}" for name in others)]


def address_of(host: str, port: int, *, tls: bool = False) -> str:
    """The address to open, without the token."""
    if host in _EVERYWHERE:
        host = socket.gethostname()
    elif is_loopback(host):
        host = LOOPBACK
    return f"http{'s' if tls else ''}://{_bracketed(host)}:{port}"


def listen(
    host: str = LOOPBACK, *, port: int | None = None, before: int | None = None
) -> Listening:
    """Listen on a port: the one that is asked for, else the one of before, else a free one.

    Raises UsageError when the one asked for is not free, CupelError when none of a hundred is.
    """
    if port is not None:
        try:
            return _listening(host, port)
        except OSError as error:
            raise UsageError(_refused(host, port, error)) from error
    wanted = [BASE + n for n in range(MOST)]
    for one in [before, *wanted] if before is not None else wanted:
        try:
            return _listening(host, one)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise UsageError(_refused(host, one, error)) from error
    raise CupelError(
        f"no port from {BASE} to {BASE + MOST - 1} is free on {host}; choose another with --port"
    )


def _refused(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is in use; type another after --port, or leave it out for a free one"
    if error.errno == errno.EACCES:
        return f"port {port} may not be used by you; type one from 1024 on after --port"
    why = error.strerror or str(error)
    return f"cannot listen on {host}, port {port}: {why}; --host must name this machine"


def _listening(host: str, port: int) -> Listening:
    """Sockets on all addresses of a host. Raises OSError, and leaves none open then."""
    addresses = [LOOPBACK, "::1"] if is_loopback(host) else list(_resolved(host))
    with contextlib.ExitStack() as opened:
        sockets: list[socket.socket] = []
        missing: OSError | None = None
        for address in addresses:
            try:
                one = _bound(address, port)
            except OSError as error:
                if error.errno not in _ABSENT:
                    raise
                missing = error  # a machine without the one or the other
                continue
            sockets.append(opened.enter_context(one))
            port = one.getsockname()[1]
        if not sockets:
            raise missing or OSError(errno.EADDRNOTAVAIL, "it has no address")
        opened.pop_all()
        return Listening(sockets, port)


def _bound(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    one = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A server that ended a moment ago leaves its port blocked for a minute otherwise. Two may
        # bind with this, but only one of them can listen.
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        one.bind((address, port))
        one.listen(_BACKLOG)
    except OSError:
        one.close()
        raise
    return one


def _resolved(host: str) -> Iterator[str]:
    if host in _EVERYWHERE:
        yield from ("0.0.0.0", "::") if host in ("", "::", "[::]") else ("0.0.0.0",)
        return
    found = socket.getaddrinfo(host.strip("[]"), None, type=socket.SOCK_STREAM)
    yield from dict.fromkeys(str(place[4][0]) for place in found)


def _own_addresses() -> Sequence[str]:
    """The addresses of this machine's interfaces, but for those that need their interface named."""
    import psutil

    found = [place for places in psutil.net_if_addrs().values() for place in places]
    kinds = (socket.AF_INET, socket.AF_INET6)
    return [one.address for one in found if one.family in kinds and "%" not in one.address]


def _bracketed(name: str) -> str:
    return f"[{name}]" if ":" in name and not name.startswith("[") else name
