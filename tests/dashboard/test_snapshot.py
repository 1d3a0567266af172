"""Snapshots: one file that needs nothing else, runs nothing, and says what the record says."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from tests.dashboard.test_hub import serving

from cupel.dashboard import snapshot
from cupel.dashboard.snapshot import run_page, study_page
from cupel.dashboard.store import Store
from cupel.errors import RecordError, UnknownName
from cupel.record.media import store_media
from cupel.record.session import Session
from cupel.studies.manifest import Manifest, freeze
from cupel.studies.spec import plan_study

EVIL = "<img src=x onerror=alert(1)><script>alert(2)</script>\"'&lt;"
NOW = 1_800_000_000.0
PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d4944415478da63f8cfc0"
    "f01f0005000201a5f645400000000049454e44ae426082"
)
ALLOWED = {
    "html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "span", "section",
    "dl", "dt", "dd", "div", "figure", "figcaption", "img", "pre", "table", "thead", "tbody", "tr",
    "th", "td", "svg", "g", "path", "text", "rect",
}  # fmt: skip
CHROMIUM = Path("/usr/bin/chromium")
RECIPE = """\
workload: fakes:Regression
train: {steps: 40}
study:
  question: "Does <b>dropout</b> help?"
  arms: {plain: {}, drop: {dropout: 0.5}}
  seeds: [1, 2]
"""


class Page(HTMLParser):
    """What a browser would make of a file: its elements, addresses and texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.addresses: list[str] = []
        self.attributes: set[str] = set()
        self.texts: list[str] = []
        self.style = ""
        self._at: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._at.append(tag)
        for name, value in attrs:
            self.attributes.add(name)
            if name in ("src", "href", "xlink:href", "action", "data", "srcset", "poster"):
                self.addresses.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        while self._at and self._at.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if self._at and self._at[-1] == "style":
            self.style += data
        else:
            self.texts.append(data)

    @property
    def text(self) -> str:
        return "".join(self.texts)


def evil(root: Path, **given: Any) -> tuple[Session, str]:
    """A run whose every text is an attack."""
    session = Session.start(
        root=root, project="p", name=EVIL, config={EVIL: EVIL, "lr": 0.1, "deep": {"x": [1, 2]}},
        identity="i", tags=[EVIL], notes=EVIL, run_id="evil", **given,
    )  # fmt: skip
    session.begin_at(0)
    for step in range(50):
        session.log({EVIL: step / 7, "loss": 1 / (step + 1)}, step=step)
    for step in range(6):
        keep = {"step": step, "caption": EVIL}
        store_media(session, EVIL, kind="image", suffix="png", data=PNG + bytes([step]), **keep)
    store_media(session, "words", kind="text", suffix="txt", data=EVIL.encode(), step=1)
    store_media(session, "page", kind="html", suffix="html", data=EVIL.encode(), step=1)
    store_media(
        session, "svg", kind="image", suffix="svg", data=b"<svg onload='alert(1)'/>", step=1
    )
    return session, f"p/{session.run_id}"


def assert_is_alone(page: Page) -> None:
    assert page.tags <= ALLOWED
    assert all(address.startswith("data:image/") for address in page.addresses)
    assert not [name for name in page.attributes if name.startswith("on") or name == "style"]
    assert "url(" not in page.style
    assert "@import" not in page.style


def test_a_run_is_one_file_of_text_and_pictures_whatever_its_texts_are(tmp_path: Path) -> None:
    session, key = evil(tmp_path)
    session.finish("failed", error=EVIL)
    text = run_page(Store(tmp_path), key, now=NOW)
    page = Page(text)
    assert_is_alone(page)
    assert page.text.count(EVIL) >= 10  # name, tags, notes, setting and value, metrics, captions …
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "").replace("http-equiv", "")


def test_a_run_is_told_with_the_time_and_the_version(tmp_path: Path) -> None:
    session, key = evil(tmp_path)
    session.finish("finished")
    text = run_page(Store(tmp_path), key, now=NOW)
    page = Page(text).text
    for told in (
        "2027-01-15 08:00:00 UTC",
        f"cupel {version('cupel')}",
        "finished",
        "deep.x",
        "[1, 2]",
    ):
        assert told in page, told
    assert text.count("<svg ") == 2 * 2  # a drawing of each metric, with its clipped plot inside
    assert text == run_page(Store(tmp_path), key, now=NOW)


def test_pictures_are_in_it_up_to_a_bound_and_the_rest_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, key = evil(tmp_path)
    session.finish("finished")
    page = Page(run_page(Store(tmp_path), key))
    assert sum(address.startswith("data:image/png") for address in page.addresses) == 4
    assert "2 of 6 (image) in the record only." in page.text
    assert "1 (html) in the record only." in page.text
    monkeypatch.setattr(snapshot, "MOST_PICTURES", 150)
    page = Page(run_page(Store(tmp_path), key))
    assert 0 < sum(address.startswith("data:image/png") for address in page.addresses) < 4


def test_a_live_and_a_damaged_run_have_snapshots_too(tmp_path: Path) -> None:
    session, key = evil(tmp_path)
    assert "running" in Page(run_page(Store(tmp_path), key)).text
    session.finish("finished")
    (session.run_dir / "config.json").write_text("{")
    page = Page(run_page(Store(tmp_path), key))
    assert_is_alone(page)
    assert "Damaged" in page.text


def test_drawings_take_their_colours_from_the_page_in_both_themes(tmp_path: Path) -> None:
    session, key = evil(tmp_path)
    session.finish("finished")
    page = Page(text := run_page(Store(tmp_path), key))
    assert 'stroke="var(--c0)"' in text
    light, dark = page.style.split("prefers-color-scheme:dark")
    for variable in ("--c0:", "--panel:", "--ink:", "--soft:", "--line:", "--paper:"):
        assert variable in light
        assert variable in dark


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    path = tmp_path / "sine.yaml"
    path.write_text(RECIPE)
    return freeze(plan_study(path, root=tmp_path / "runs"))


@pytest.mark.slow
def test_a_study_is_one_file_from_before_its_first_run_on(manifest: Manifest) -> None:
    store, key = Store(manifest.root), f"{manifest.project}/{manifest.name}"
    page = Page(study_page(store, key, now=NOW))
    assert_is_alone(page)
    for told in ("Does <b>dropout</b> help?", "2 planned", "plain", "drop", "2027-01-15"):
        assert told in page.text, told
    for run, loss in zip(manifest.runs, (1.0, 2.0, 3.0, 5.0), strict=True):
        session = Session.start(
            root=manifest.root, project=manifest.project, name="n", config={},
            identity=run.identity, run_id=run.run_id,
            details={"arm": run.arm, "study": manifest.name},
        )  # fmt: skip
        session.begin_at(0)
        session.log({"loss": loss, "val_loss": loss}, step=40)
        (session.run_dir / "results.json").write_text(json.dumps({
            "schema": 1, "run": run.run_id, "accepted_session": 1, "step": 40,
            "final": {"val_loss": loss},
        }))  # fmt: skip
        session.finish("finished")
    page = Page(text := study_page(Store(manifest.root), key))
    assert_is_alone(page)
    assert "4 of 4 finished" in page.text
    assert "Differences from plain" in page.text
    assert "<svg " in text
    assert "plain (2 runs)" in page.text
    assert "drop (2 runs)" in page.text


def test_what_is_not_there_has_no_snapshot(tmp_path: Path) -> None:
    with pytest.raises(UnknownName):
        run_page(Store(tmp_path), "p/none")
    with pytest.raises((UnknownName, RecordError)):
        study_page(Store(tmp_path), "p/none")


def test_the_server_gives_snapshots_to_keep_and_not_to_show(manifest: Manifest) -> None:
    session, _ = evil(manifest.root)
    session.finish("finished")
    with serving(manifest.root) as client:
        for where in ("runs/evil", f"studies/{manifest.name}"):
            found = client.get(f"/api/v1/{where}/snapshot.html")
            assert found.status_code == 200, found.text
            assert found.headers["content-disposition"].startswith("attachment")
            assert found.text.startswith("<!doctype html>")
        for where in ("runs/none", "studies/none"):
            assert client.get(f"/api/v1/{where}/snapshot.html").status_code == 404


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM.exists(), reason="needs /usr/bin/chromium")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_opens_without_a_network_asks_for_nothing_and_fits_a_phone(
    tmp_path: Path, scheme: str
) -> None:
    sync_api = pytest.importorskip("playwright.sync_api")
    session, key = evil(tmp_path / "root")
    session.finish("finished")
    path = tmp_path / "page.html"
    path.write_text(run_page(Store(tmp_path / "root"), key))
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
             "--disable-background-networking", "--disable-component-update"]  # fmt: skip
    with sync_api.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=str(CHROMIUM), args=quiet)
        context = browser.new_context(
            viewport={"width": 390, "height": 844}, color_scheme=scheme, offline=True
        )
        page = context.new_page()
        asked: list[str] = []
        said: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.on("dialog", lambda dialog: said.append("a dialog"))
        page.goto(path.as_uri())
        outside = [address for address in asked if not address.startswith("data:image/")]
        assert outside == [path.as_uri()]
        assert not said
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        assert page.evaluate(
            "[...document.images].every(i => i.naturalWidth > 0 || i.src.includes('svg'))"
        )
        colour = page.evaluate("getComputedStyle(document.querySelector('figure g')).stroke")
        assert colour == {"light": "rgb(11, 111, 179)", "dark": "rgb(86, 180, 233)"}[scheme]
        browser.close()
