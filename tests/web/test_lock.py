"""The lock of the page's packages is complete: `npm ci` works everywhere and runs no scripts.

npm leaves an optional package that it could not find out of the lock without a word, and `npm ci`
then refuses the lock, on some machines only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

WEB = Path(__file__).parents[2] / "web"
PACKAGE: dict[str, Any] = json.loads((WEB / "package.json").read_text())
LOCK: dict[str, dict[str, Any]] = json.loads((WEB / "package-lock.json").read_text())["packages"]
GROUPS = ("dependencies", "devDependencies")
# What the built page is made of, besides the builder; a new one is a decision.
BUNDLED = {
    "@dagrejs/dagre", "@dagrejs/graphlib", "@preact/signals", "@preact/signals-core", "d3-color",
    "d3-dispatch", "d3-drag", "d3-ease", "d3-interpolate", "d3-selection", "d3-timer",
    "d3-transition", "d3-zoom", "preact", "uplot",
}  # fmt: skip


def locked() -> dict[str, dict[str, Any]]:
    """Every package of the lock by its folder; the page itself aside."""
    return {folder: found for folder, found in LOCK.items() if folder}


def name_of(folder: str) -> str:
    return folder.rpartition("node_modules/")[2]


def places(folder: str, name: str) -> Iterator[str]:
    """Where a package in `folder` finds another one: below itself, then ever further out."""
    while folder:
        yield f"{folder}/node_modules/{name}"
        folder = folder.rpartition("/node_modules/")[0]
    yield f"node_modules/{name}"


def missing(packages: dict[str, dict[str, Any]], group: str) -> list[str]:
    """The packages of a group that somebody names and that are not in the lock."""
    return [
        f"{folder} → {name}"
        for folder, package in packages.items()
        for name in package.get(group, {})
        if not any(place in packages for place in places(folder, name))
    ]


@pytest.mark.parametrize("group", ["dependencies", "optionalDependencies"])
def test_whatever_a_package_names_is_in_the_lock(group: str) -> None:
    assert missing(locked(), group) == []


def test_a_platform_that_is_left_out_is_noticed() -> None:
    packages = locked()
    del packages["node_modules/@esbuild/win32-arm64"]
    assert missing(packages, "optionalDependencies") == [
        "node_modules/esbuild → @esbuild/win32-arm64"
    ]


def test_the_builder_is_there_for_every_platform() -> None:
    named = LOCK["node_modules/esbuild"]["optionalDependencies"]
    platforms = {"linux-x64", "linux-arm64", "darwin-x64", "darwin-arm64", "win32-x64"}
    assert {f"@esbuild/{platform}" for platform in platforms} < set(named)
    assert set(named.values()) == {LOCK["node_modules/esbuild"]["version"]}


@pytest.mark.parametrize("group", GROUPS)
def test_versions_are_exact_and_those_of_the_lock(group: str) -> None:
    for name, version in PACKAGE[group].items():
        assert re.fullmatch(r"\d+\.\d+\.\d+", version), f"{name}: {version}"
        assert LOCK[f"node_modules/{name}"]["version"] == version
    assert LOCK[""][group] == PACKAGE[group]


def test_every_package_has_its_checksum() -> None:
    weak = [it for it, found in locked().items() if "sha512-" not in found.get("integrity", "")]
    assert weak == []


def test_the_lock_names_no_registry() -> None:
    """So that it works behind a mirror; npm then asks the registry that it is set up with."""
    assert [folder for folder, found in locked().items() if "resolved" in found] == []


def test_only_the_builder_would_run_a_script_and_does_without() -> None:
    """esbuild's script only replaces a shim by its binary; a build with --ignore-scripts works."""
    scripted = {name_of(it) for it, found in locked().items() if found.get("hasInstallScript")}
    assert scripted == {"esbuild"}


def test_a_build_installs_the_builder_and_what_it_bundles_and_nothing_else() -> None:
    needed = {name_of(it) for it, found in locked().items() if not found.get("dev")}
    assert {name for name in needed if not name.startswith("@esbuild/")} == {*BUNDLED, "esbuild"}


def test_all_that_is_bundled_may_be() -> None:
    licenses = {LOCK[f"node_modules/{name}"]["license"] for name in BUNDLED}
    assert licenses <= {"MIT", "ISC", "BSD-3-Clause"}
