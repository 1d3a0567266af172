"""What changes something: runs held by buttons, ranges brushed, sound and films played."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

import cupel
from browsing import MARKS, Dashboard, Seen, dashboard
from cupel.jobs.control import Control
from cupel.studies.manifest import Manifest
from studied import gridded

pytestmark = MARKS


@pytest.fixture(scope="module")
def server(browser: Browser, root: Path) -> Iterator[Dashboard]:
    """One that may write."""
    with dashboard(root, "--allow-writes") as found:
        yield found


def study(root: Path, name: str) -> Manifest:
    """Eight runs, of which half are still to do."""

    def told(arm: str, lr: float, width: int, seed: int) -> float | None:
        return 1.0 + lr if seed == 1 else None

    return gridded(root, told, name=name, widths=(16,), seeds=(1, 2))


def test_all_runs_of_a_study_are_held_and_released_by_buttons(root: Path, seen: Seen) -> None:
    manifest = study(root, "held")
    tab = seen.open("/queue")
    asked: list[str] = []
    tab.on("dialog", lambda dialog: (asked.append(dialog.message), dialog.accept()))
    card = tab.locator(".study-card", has_text="p/held")
    card.get_by_role("button", name="Hold all").click()
    expect(card.get_by_text("hold: 8 runs of held")).to_be_visible()
    assert asked == [
        "Hold all runs of p/held? What runs goes on; nothing begins until they are released."
    ]
    assert held(manifest) == {run.run_id for run in manifest.runs}
    back = tab.get_by_role("region", name="Held back")
    expect(back).to_contain_text("from the dashboard")
    back.get_by_role("button", name="Release").click()
    expect(back).to_have_count(0)
    expect(tab.get_by_role("region", name="Studies with open work")).to_contain_text("4 not begun")
    assert not held(manifest) - {run.run_id for run in manifest.runs if run.seed == 1}


def held(manifest: Manifest) -> set[str]:
    control = Control.of(manifest.folder)
    return {run.run_id for run in manifest.runs if control.word(run.run_id).held}


def test_who_says_no_changes_nothing(root: Path, seen: Seen) -> None:
    manifest = study(root, "kept")
    tab = seen.open("/queue")
    tab.on("dialog", lambda dialog: dialog.dismiss())
    card = tab.locator(".study-card", has_text="p/kept")
    card.get_by_role("button", name="Hold all").click()
    tab.wait_for_timeout(300)
    assert not (manifest.folder / "control.jsonl").exists()


def test_a_range_that_is_brushed_keeps_the_cells_within_it(root: Path, seen: Seen) -> None:
    def told(arm: str, lr: float, width: int, seed: int) -> float:
        return 1.0 + lr + (arm == "wave") / 10

    gridded(root, told, name="brushed", widths=(16,), seeds=(1,), lrs=(0.1, 0.2, 0.3))
    tab = seen.open("/study/p/brushed?tab=lines")
    expect(tab.get_by_text("6 of 6 cells.")).to_be_visible()
    names = tab.locator(".parallel .axis .name").all_text_contents()
    at = next(n for n, name in enumerate(names) if name.endswith("lr"))
    handle = tab.locator(".parallel .handle").nth(at)
    box = handle.bounding_box()
    assert box is not None
    x = box["x"] + box["width"] / 2
    tab.mouse.move(x, box["y"] + 0.35 * box["height"])
    tab.mouse.down()
    tab.mouse.move(x, box["y"] + 0.8 * box["height"], steps=5)
    tab.mouse.move(x, box["y"] + box["height"], steps=5)
    tab.mouse.up()
    expect(tab.get_by_text("4 of 6 cells.")).to_be_visible()  # without the largest rate
    expect(tab.locator(".parallel path.out")).to_have_count(2)
    tab.locator(".parallel").focus()
    tab.keyboard.press("ArrowDown")
    expect(tab.locator(".told")).to_contain_text("1.1")
    tab.get_by_role("button", name="Clear the ranges").click()
    expect(tab.get_by_text("6 of 6 cells.")).to_be_visible()


# A film of some frames, made by the browser's own encoder.
_FILM = """
async () => {
  const canvas = Object.assign(document.createElement("canvas"), { width: 64, height: 48 });
  const pen = canvas.getContext("2d");
  const recorder = new MediaRecorder(canvas.captureStream(25), { mimeType: "video/webm" });
  const parts = [];
  recorder.ondataavailable = (event) => parts.push(event.data);
  const ended = new Promise((resolve) => (recorder.onstop = resolve));
  recorder.start();
  for (let n = 0; n < 20; n++) {
    pen.fillStyle = `hsl(${n * 18} 80% 50%)`;
    pen.fillRect(0, 0, 64, 48);
    await new Promise((resolve) => setTimeout(resolve, 40));
  }
  recorder.stop();
  await ended;
  const bytes = new Uint8Array(await new Blob(parts).arrayBuffer());
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
}
"""


def test_sound_and_films_that_were_logged_are_played(
    root: Path, tmp_path: Path, seen: Seen
) -> None:
    rate = 8000
    tone = [0.3 * math.sin(2 * math.pi * 440 * n / rate) for n in range(rate // 2)]
    with cupel.init("p", "heard", root=root) as run:
        run.log({"tone": cupel.Audio(tone, sample_rate=rate)}, step=1)
        run.log({"film": cupel.Video(film(seen, tmp_path))}, step=2)
    tab = seen.open(f"/run/p/{run.id}?tab=media")
    for kind in ("audio", "video"):
        player = tab.locator(kind)
        expect(player).to_be_visible()
        assert player.evaluate(
            """async (media) => {
              media.muted = true;
              await media.play();
              while (media.currentTime === 0) await new Promise((later) => setTimeout(later, 20));
              return media.error === null && media.currentTime > 0;
            }"""
        )
    assert tab.locator("audio").evaluate("media => media.duration") == 0.5
    assert tab.locator("video").evaluate("film => [film.videoWidth, film.videoHeight]") == [64, 48]


def film(seen: Seen, folder: Path) -> Path:
    blank: Page = seen.context.new_page()
    made = folder / "film.webm"
    made.write_bytes(base64.b64decode(blank.evaluate(_FILM)))
    blank.close()
    return made
