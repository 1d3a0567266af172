"""Files that are whole or not there: temporary name, fsync, rename, fsync of the folder.

A reader sees the old file or the new one, also after a kill or a power loss. Each write waits for
the disk (about 5 ms on an SSD, far more on a busy one), so this is for files written a few times
in a run; lines of metrics go through `cupel.record.writer`. Failures are plain OSErrors: only the
caller knows whether they may stop anything. Values are encoded as `cupel.record.codec` says.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import stat
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from io import FileIO
from pathlib import Path
from typing import Any

from cupel.errors import RecordError
from cupel.record import codec, processes

TEMPORARY = ".tmp-"
TRASH = ".trash-"

# A temporary of another machine, whose writer cannot be asked: no write of one file takes longer.
_FOREIGN_AGE_S = 3600.0
_BLOCK = 64 * 1024
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC  # of a regular file no read ever waits


def write_json(
    path: Path, fields: Mapping[str, Any], *, lasting: bool = True, named: bool = True
) -> None:
    """Replace a JSON file at once. Raises OSError, and TypeError for what is not JSON.

    One that is not `lasting` is as whole for whoever looks, but a power loss may take it: for what
    ends with the machine anyway. It costs no wait for the disk. One that is not `named` may be the
    old one after a power loss, whole, until the caller syncs the folder: for several files at once.
    """
    write_bytes(path, codec.encode_document(fields), lasting=lasting, named=named)


def write_bytes(path: Path, content: bytes, *, lasting: bool = True, named: bool = True) -> None:
    """Replace any file at once. Raises OSError, and leaves nothing behind then."""
    temporary = _written_beside(path, content, lasting=lasting)
    try:
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    if lasting and named:
        sync_folder(path.parent)


def create_json_exclusively(
    path: Path, fields: Mapping[str, Any], *, lasting: bool = True, named: bool = True
) -> bool:
    """Create a JSON file, whole, unless it exists; whether it was this call that created it.

    Of any number of processes that try, exactly one is told True. Raises OSError.
    """
    temporary = _written_beside(path, codec.encode_document(fields), lasting=lasting)
    try:
        os.link(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS):
            raise
        return _created_without_links(path, temporary.read_bytes())
    finally:
        temporary.unlink(missing_ok=True)
    if lasting and named:
        sync_folder(path.parent)
    return True


def read_json(path: Path) -> dict[str, Any]:
    """The mapping in a JSON file. Raises RecordError that names a missing or damaged file."""
    try:
        return codec.decode_line(_content(path))
    except OSError as error:
        raise RecordError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise RecordError(
            f"{path} is damaged: {error}; cupel writes such files whole, so something else "
            "changed it: restore it from a copy"
        ) from error


def _content(path: Path) -> bytes:
    """What `path.read_bytes` gives, by half as many calls of the system: a table reads 40,000."""
    fd = _opened_regular(path)
    try:
        parts = [os.read(fd, _BLOCK)]
        while parts[-1]:
            parts.append(os.read(fd, _BLOCK))
    finally:
        os.close(fd)
    return b"".join(parts)


def open_regular(path: Path) -> FileIO:
    """A file of the record, open for reading, unbuffered. Raises OSError, also for what is none.

    Whoever opens a pipe waits until somebody writes into it, for ever.
    """
    return FileIO(_opened_regular(path), "rb")


def _opened_regular(path: Path) -> int:
    fd = os.open(path, _READ)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise OSError(errno.EINVAL, "it is no regular file", str(path))


def temporary_name(name: str) -> str:
    """A new `.tmp-…` name that tells `sweep` whose it is; for files and for whole folders."""
    me = processes.this_process()
    return f"{TEMPORARY}{name}~{me.place.token()}~{me.pid}~{me.start}~{secrets.token_hex(4)}"


def sync_folder(folder: Path) -> None:
    """Make the names in a folder survive a power loss."""
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def open_folder(folder: Path) -> int:
    """A descriptor that stays with a folder wherever it is moved to. Raises OSError."""
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY)


def place_of(folder: int, last: Path) -> Path:
    """Where an open folder lies: `last` while it is there, else what the system says of it.

    Linux and macOS can tell; elsewhere, and when the folder was deleted, it is `last` all the same.
    """
    for path in (last, *_names_of(folder)):
        try:
            if os.path.samestat(path.stat(), os.fstat(folder)):
                return path
        except OSError:
            continue
    return last


def _names_of(folder: int) -> Iterator[Path]:
    if sys.platform == "darwin":
        import fcntl

        with contextlib.suppress(OSError):
            named = fcntl.fcntl(folder, fcntl.F_GETPATH, bytes(1024))
            yield Path(os.fsdecode(named.rstrip(b"\0")))
    else:
        with contextlib.suppress(OSError):
            yield Path(f"/proc/self/fd/{folder}").readlink()


def move_to_trash(path: Path) -> None:
    """Delete a folder so that a kill leaves it whole under its name, or gone from its name."""
    trash = path.with_name(f"{TRASH}{path.name}~{secrets.token_hex(4)}")
    path.rename(trash)
    sync_folder(path.parent)
    shutil.rmtree(trash, ignore_errors=True)  # what is left over, `sweep` takes


def sweep(folder: Path) -> list[Path]:
    """Remove trash, and temporaries whose writers are dead; returns what was removed.

    A temporary of another machine (or of no known form) goes when nothing in it changed for an
    hour. A link is removed itself, never what it leads to.
    """
    removed = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.name.startswith(TRASH) or (path.name.startswith(TEMPORARY) and is_stale(path)):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
            removed.append(path)
    return removed


def _written_beside(path: Path, content: bytes, *, lasting: bool = True) -> Path:
    temporary = path.with_name(temporary_name(path.name))
    try:
        _write_new(temporary, content, lasting=lasting)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    return temporary


def _created_without_links(path: Path, content: bytes) -> bool:
    # Disks without hard links (FAT, some FUSE mounts): still only once, but a kill in these
    # milliseconds leaves a damaged file, which `read_json` will name.
    try:
        _write_new(path, content)
    except FileExistsError:
        return False
    sync_folder(path.parent)
    return True


def _write_new(path: Path, content: bytes, *, lasting: bool = True) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        if lasting:
            os.fsync(file.fileno())


def is_stale(path: Path) -> bool:
    """Whether a temporary is left over: its writer is dead, or nobody has touched it for long."""
    parts = path.name.split("~")
    if len(parts) == 5 and parts[1] == processes.this_place().token() and parts[2].isdecimal():
        return not processes.lives(int(parts[2]), parts[3])
    inside: Iterable[Path] = () if path.is_symlink() else path.rglob("*")
    changed = [entry.lstat().st_mtime for entry in (path, *inside)]
    return time.time() - max(changed) > _FOREIGN_AGE_S
