"""What is taken away from the page: the lines as they were logged, and a drawing with ink in it."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Download, Page, expect

from browsing import MARKS, Seen, card, key_of, last_value, line_of_sight, started
from cupel.record.session import Session

pytestmark = MARKS

VALUES = [0.1 + 0.2, 1e-300, -3.5, math.nan, math.inf, 1 / 3, 12345678.901234567, 0.0]


def made(root: Path) -> Session:
    run = started(root, name="to share")
    for step, value in enumerate(VALUES):
        run.log({"loss": value, "lr": 0.001 * step}, step=step)
    run.log({"other": 1.0}, step=len(VALUES))
    run.finish("finished")
    return run


def test_the_menu_of_a_run_gives_every_line_with_all_its_digits(root: Path, seen: Seen) -> None:
    run = made(root)
    tab = seen.open(f"/run/{key_of(run)}")
    rows = [*csv.DictReader(io.StringIO(text(exported(tab, "All numbers as CSV"))))]
    assert [row["step"] for row in rows] == [str(n) for n in range(len(VALUES) + 1)]
    assert [repr(float(row["loss"])) for row in rows[:-1]] == [repr(value) for value in VALUES]
    assert (rows[-1]["loss"], rows[-1]["other"]) == ("", "1.0")
    found = json.loads(text(exported(tab, "All numbers as JSON")))
    at = found["columns"].index("loss")
    assert [repr(float(row[at])) for row in found["rows"][:-1]] == [repr(v) for v in VALUES]
    assert len(found["rows"]) == len(rows)


def test_the_menu_of_a_chart_gives_its_lines(root: Path, seen: Seen) -> None:
    run = made(root)
    tab = seen.open(f"/run/{key_of(run)}")
    expect(last_value(tab, "loss")).to_be_visible()
    rows = [*csv.DictReader(io.StringIO(text(shared(tab, "CSV"))))]
    assert [(int(row["step"]), repr(float(row["loss"]))) for row in rows] == [
        (step, repr(value)) for step, value in enumerate(VALUES)
    ]


def test_a_chart_as_a_picture_has_the_curve_in_it(root: Path, seen: Seen) -> None:
    run = started(root, name="drawn")
    for step in range(200):
        run.log({"loss": math.sin(step / 20)}, step=step)
    run.finish("finished")
    tab = seen.open(f"/run/{key_of(run)}")
    expect(line_of_sight(tab)).to_be_visible()
    svg = text(shared(tab, "SVG"))
    assert svg.startswith("<svg") or svg.startswith("<?xml")
    assert "loss" in svg
    with Image.open(shared(tab, "PNG").path()) as picture:
        pixels = picture.convert("RGB")
    colours = np.asarray(pixels).astype(int)
    height, width, _ = colours.shape
    assert width >= 600
    assert len(np.unique(colours.reshape(-1, 3), axis=0)) > 20  # text has edges in many shades
    # A curve: something coloured in most columns of the picture, and never in most of a column.
    coloured = colours.max(axis=2) - colours.min(axis=2) > 60
    assert coloured.any(axis=0).mean() > 0.6
    assert coloured.sum(axis=0).max() < 0.5 * height
    heights = coloured.argmax(axis=0)[coloured.any(axis=0)]
    assert heights.max() - heights.min() > 0.4 * height


def test_a_drawing_has_the_scale_that_its_card_has(root: Path, seen: Seen) -> None:
    run = started(root, name="scaled")
    for step in range(300):
        run.log({"loss": 10.0 + step / 300 if step != 150 else 1e6}, step=step)
    run.finish("finished")
    tab = seen.open(f"/run/{key_of(run)}")
    expect(line_of_sight(tab)).to_be_visible()
    assert ">800,000<" in text(shared(tab, "SVG"))
    tab = seen.open(f"/run/{key_of(run)}?clip=1")
    expect(card(tab, "loss").get_by_text("1 value beyond the axis")).to_be_visible()
    clipped = text(shared(tab, "SVG"))
    assert "1 value beyond the axis" in clipped
    assert ">800,000<" not in clipped
    tab = seen.open(f"/run/{key_of(run)}?logy=1")
    expect(line_of_sight(tab)).to_be_visible()
    logarithmic = text(shared(tab, "SVG"))
    assert ">1,000<" in logarithmic
    assert ">800,000<" not in logarithmic


def exported(tab: Page, what: str) -> Download:
    tab.locator("summary", has_text="Export").click()
    with tab.expect_download() as download:
        tab.get_by_role("link", name=what).click()
    return download.value


def shared(tab: Page, kind: str) -> Download:
    """What the chart's own menu gives."""
    button = card(tab, "loss").get_by_role("button", name="Share loss")
    if button.get_attribute("aria-expanded") != "true":
        button.click()
    with tab.expect_download() as download:
        card(tab, "loss").locator(".share-menu button", has_text=kind).first.click()
    return download.value


def text(download: Download) -> str:
    return download.path().read_text()
