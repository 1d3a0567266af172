"""`cupel dashboard`: the page on which runs are watched, or word of the one that is served."""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cupel import beside
from cupel.cli.root import Root, runs_root
from cupel.cli.streams import tell
from cupel.cli.tables import print_json, program

if TYPE_CHECKING:
    from cupel.dashboard.launch import Server

_HOST = "127.0.0.1"
_OPENER = beside.FOLDER / "open.html"
_PATIENCE_S = 2.0  # for what starts a browser: a text browser would keep us for ever


def dashboard(
    root: Root = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65535,
            help="The port to listen on; else a free one from 8765 on, the same "
            "one as the last time if it can be.",
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Where to listen, if not for this machine alone; needs a token of "
            "yours. Better: ssh -L 8765:127.0.0.1:8765 MACHINE.",
        ),
    ] = _HOST,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Take the token from a file (or from CUPEL_DASHBOARD_TOKEN); else "
            "one is made, and kept.",
        ),
    ] = None,
    open_: Annotated[
        bool, typer.Option("--open/--no-open", help="Open it in a browser, where there is one.")
    ] = True,
    allow_writes: Annotated[
        bool,
        typer.Option(
            "--allow-writes", help="Let the page change notes and tags, and hold or stop runs."
        ),
    ] = False,
    stop: Annotated[bool, typer.Option("--stop", help="End the one that is served.")] = False,
    status: Annotated[
        bool, typer.Option("--status", help="Say whether one is served, and where.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    automatic: Annotated[
        bool, typer.Option("--automatic", hidden=True, help="As a training starts it.")
    ] = False,
) -> None:
    """Watch runs in a browser, while they train and afterwards.

    A folder of runs has one dashboard; typed again, this shows where it is. It reads what runs
    write and nothing else, so it can be ended and started at any time: training does not notice.
    The address ends in a token, without which nobody is shown a run. A run on a terminal starts
    one by itself (CUPEL_DASHBOARD=0 for never); that one ends half an hour after its last use.

    \b
    cupel dashboard
    cupel dashboard --root other/runs --port 9000
    cupel dashboard --status
    ssh -L 8765:127.0.0.1:8765 gpu1    # then open, here, the address that gpu1 printed
    """
    from cupel.errors import UsageError

    where = runs_root(root)
    if stop and status:
        raise UsageError("--stop and --status are two things; type one of them")
    if stop:
        _stop(where, as_json=json)
    elif status:
        _status(where, as_json=json)
    else:
        token = _token(token_file)
        _check_host(host, token)
        _serve(
            where, host, port, token,
            writes=allow_writes, automatic=automatic, as_json=json, opens=open_ and not automatic,
        )  # fmt: skip


def _serve(
    root: Path, host: str, port: int | None, token: str | None,
    *, writes: bool, automatic: bool, as_json: bool, opens: bool,
) -> None:  # fmt: skip
    from cupel.dashboard.launch import serve

    def ready(server: Server) -> None:
        if automatic:
            return  # nobody reads it, and a log is no place for a token
        _show(root, server, "(Ctrl-C ends it; training does not notice)", as_json=as_json)
        if opens:
            _open(root, server)

    found = serve(
        root, host=host, port=port, token=token, writes=writes, automatic=automatic, ready=ready
    )
    if found is None or automatic:
        return
    _tell_differences(found, host, port, token, writes=writes)
    _show(root, found, "(it runs already)", as_json=as_json)
    if opens:
        _open(root, found)


def _show(root: Path, server: Server, remark: str, *, as_json: bool) -> None:
    if as_json:
        print_json(_facts(root, server))
    else:
        print(f"dashboard of {root}/: {server.url}  {remark}")
    sys.stdout.flush()


def _facts(root: Path, server: Server | None) -> dict[str, Any]:
    if server is None:
        return {"running": False, "root": str(root)}
    return {
        "running": True,
        "root": str(root),
        "address": server.address,
        "url": server.url,
        "port": server.port,
        "pid": server.process.pid,
        "started": server.started,
        "automatic": server.automatic,
        "writes": server.writes,
        "version": server.version,
    }


def _tell_differences(
    found: Server, host: str, port: int | None, token: str | None, *, writes: bool
) -> None:
    """Say what was asked for that the one which runs is not."""
    differing = {
        f"--port {port}": port not in (None, found.port),
        f"--host {host}": host not in (_HOST, found.host),
        "this token": token not in (None, found.token),
        "--allow-writes": writes and not found.writes,
    }
    asked = [name for name, differs in differing.items() if differs]
    if asked:
        tell(
            f"cupel: it runs without {' and '.join(asked)}; to have that, end it first: "
            f"{program()} dashboard --stop"
        )


def _status(root: Path, *, as_json: bool) -> None:
    from cupel.dashboard.launch import running

    found = running(root)
    if as_json:
        print_json(_facts(root, found))
    elif found is None:
        print(f"no dashboard of {root}/ runs; start it with: {program()} dashboard")
    else:
        how = "started by a run; ends by itself" if found.automatic else "started by hand"
        print(f"dashboard of {root}/: {found.url}  (process {found.process.pid}, {how})")


def _stop(root: Path, *, as_json: bool) -> None:
    from cupel.dashboard.launch import stop

    found = stop(root)
    if as_json:
        print_json({"stopped": found is not None, "root": str(root)})
    elif found is None:
        print(f"no dashboard of {root}/ runs")
    else:
        print(f"ended the dashboard of {root}/ (process {found.process.pid})")


def _token(file: Path | None) -> str | None:
    """The token that was given, if one was. Raises UsageError."""
    from cupel.dashboard.launch import check_token
    from cupel.errors import UsageError

    if file is None:
        given = os.environ.get(beside.TOKEN) or None
    else:
        try:
            mode = stat.S_IMODE(file.stat().st_mode)
            given = file.read_text(encoding="ascii", errors="replace").strip()
        except OSError as error:
            raise UsageError(f"cannot read the token in {file}: {error.strerror}") from error
        if mode & 0o077:
            raise UsageError(f"others may read the token in {file}; type: chmod 600 {file}")
    if given is not None:
        check_token(given)
    return given


def _check_host(host: str, token: str | None) -> None:
    """Refuse, or warn of, what other machines could read. Raises UsageError."""
    from cupel.dashboard.ports import is_loopback
    from cupel.errors import UsageError

    if is_loopback(host):
        return
    tunnel = "ssh -L 8765:127.0.0.1:8765 MACHINE"
    if token is None:
        raise UsageError(
            f"--host {host} lets other machines ask, and needs a token of yours: --token-file FILE "
            f"or {beside.TOKEN}; without --host, {tunnel} reaches it as well, and encrypted"
        )
    tell(
        "cupel: without TLS whoever is on the network between can read the token and all runs; "
        f"safer is {tunnel}, without --host"
    )


def _open(root: Path, server: Server) -> None:
    """Open a browser, by a file of ours: of a command's words everybody on the machine can see
    the token. Where there is none, nothing happens; the address is printed anyway."""
    if not _has_browser():
        return
    import threading
    import webbrowser

    page = (
        '<!doctype html><meta charset="utf-8"><meta name="referrer" content="no-referrer">'
        f'<meta http-equiv="refresh" content="0;url={server.url}"><a href="{server.url}">'
        "The dashboard</a>\n"
    )
    path = (root / _OPENER).absolute()
    try:
        path.unlink(missing_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(page)
    except OSError as error:
        tell(f"cupel: no browser was opened: cannot write {path}: {error.strerror}")
        return
    opening = threading.Thread(target=webbrowser.open, args=(path.as_uri(),), daemon=True)
    opening.start()
    opening.join(_PATIENCE_S)


def _has_browser() -> bool:
    """Whether a browser would open where the person is: not over SSH, not without a display."""
    if any(os.environ.get(name) for name in ("SSH_CONNECTION", "SSH_TTY", "SSH_CLIENT")):
        return False
    has_display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return sys.platform != "linux" or bool(has_display)
