"""Pictures of every page in both themes and three widths: `make screenshots`.

They show the study `quickstart` as it was run here (it is run first, if it was not), go to
build/screenshots, and are for people to look at. Two of them are those of the README.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from playwright.sync_api import Browser, sync_playwright

HOUSE = Path(__file__).parents[1]
OUT = HOUSE / "build" / "screenshots"
CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
SIZES = {"phone": (390, 844), "tablet": (820, 1180), "desktop": (1440, 900)}
THEMES = ("light", "dark")
STUDY = "quickstart"
README = ("run", "desktop")


def main() -> None:
    """Take all pictures; the arguments choose some, by a part of their names."""
    root = Path(os.environ.get("CUPEL_ROOT", HOUSE / "runs"))
    if not list(root.glob(f"*/studies/{STUDY}/report")):
        print(f"the study {STUDY} is run first (about four minutes)", flush=True)
        cupel("study", "run", STUDY, "--root", str(root))
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    with serving(root) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        for theme in THEMES:
            for size in SIZES:
                take(browser, address, pages(root), theme=theme, size=size)
        browser.close()
    print(f"{len(list(OUT.glob('*.png')))} pictures in {OUT.relative_to(HOUSE)}")


def pages(root: Path) -> dict[str, str]:
    """Name and address of every page, of the runs that there are."""
    study = next(root.glob(f"*/studies/{STUDY}"))
    project = study.parents[1]
    runs = sorted(p.name for p in project.iterdir() if p.name.startswith(f"{STUDY}-"))
    standard = next(run for run in runs if "-standard-" in run)
    wave = next(run for run in runs if "-wave-" in run)
    both = "&".join(f"run={quote(f'{project.name}/{run}', safe='')}" for run in (standard, wave))
    a, b = (quote(f"{project.name}/{run}", safe="") for run in (standard, wave))
    sides = f"a={a}&b={b}"
    return {
        "runs": "/",
        "run": f"/run/{project.name}/{wave}",
        "smoothed": f"/run/{project.name}/{wave}?smooth=0.95&x=relative",
        "settings": f"/run/{project.name}/{wave}?tab=config",
        "compare": f"/compare?{both}",
        "studies": "/studies",
        "study": f"/study/{project.name}/{STUDY}",
        "queue": "/queue",
        "model": f"/model/{project.name}/{standard}",
        "models": f"/models?{sides}",
    }


def take(browser: Browser, address: str, places: dict[str, str], *, theme: str, size: str) -> None:
    """The pictures of one theme and one width."""
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if theme == "dark" else "light",
        has_touch=size != "desktop",
    )
    page = context.new_page()
    base = address.split("#")[0].rstrip("/")
    page.goto(address)
    page.get_by_text("Connected").first.wait_for()
    for name, place in places.items():
        title = f"{name}-{size}-{theme}"
        if sys.argv[1:] and not any(part in title for part in sys.argv[1:]):
            continue
        page.goto(base + place)
        page.get_by_text("Connected").first.wait_for()
        page.wait_for_timeout(500)
        while page.locator(".loading").count():
            page.wait_for_timeout(200)
        page.wait_for_timeout(1000)  # charts come by the socket, and are drawn in the next frame
        page.screenshot(path=OUT / f"{title}.png", full_page=True)
        if (name, size) == README:
            page.screenshot(path=HOUSE / "docs" / f"dashboard.{theme}.png")
        print(title, flush=True)
    context.close()


@contextmanager
def serving(root: Path) -> Iterator[str]:
    """A dashboard of a copy of its own, so that one that is open stays as it is; its address."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "runs"
        shutil.copytree(root, copy, ignore=shutil.ignore_patterns(".cache"))
        process = subprocess.Popen(
            [sys.executable, "-m", "cupel", "dashboard", "--root", str(copy), "--no-open"],
            stdout=subprocess.DEVNULL,
        )
        try:
            for _ in range(200):
                told = json.loads(cupel("dashboard", "--status", "--json", "--root", str(copy)))
                if told.get("url"):
                    break
            yield told["url"]
        finally:
            process.terminate()
            process.wait()


def cupel(*words: str) -> str:
    """What a command prints."""
    asked = [sys.executable, "-m", "cupel", *words]
    done = subprocess.run(asked, stdout=subprocess.PIPE, text=True, check=False)
    return done.stdout


if __name__ == "__main__":
    main()
