"""Drawings: whole XML whatever people write, the page's colours, equal bytes of equal records."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.dashboard.test_chart import make, started
from tests.dashboard.test_hub import serving

from cupel.dashboard import drawing, sheet
from cupel.dashboard.drawing import chart_svg, text_of
from cupel.dashboard.queries import ChartQuery
from cupel.dashboard.store import Store
from cupel.dashboard.ticks import DURATION, LINEAR, LOG, TIME, Axis, nice, number
from cupel.record.session import Session

WEB = Path(__file__).parents[2] / "web" / "src"
SVG = "{http://www.w3.org/2000/svg}"
TEXTS = st.text(max_size=60) | st.sampled_from(
    ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "\x00\x1b]0;x", "&amp;", "]]>"]
)


def drawn(root: Path, keys: list[str], *, title: str = "t", **given: Any) -> ElementTree.Element:
    query = {name: given.pop(name) for name in list(given) if name in ChartQuery.__struct_fields__}
    asked = ChartQuery(runs=keys, **{"metric": "loss", **query})
    return ElementTree.fromstring(chart_svg(Store(root), asked, title=title, **given))


def texts(svg: ElementTree.Element) -> list[str]:
    return [element.text or "" for element in svg.iter(f"{SVG}text")]


def paths(svg: ElementTree.Element, **wanted: str) -> list[ElementTree.Element]:
    return [
        element for element in svg.iter(f"{SVG}path")
        if all(element.get(name.replace("_", "-")) == value for name, value in wanted.items())
    ]  # fmt: skip


def test_colours_and_dashes_are_those_of_the_page() -> None:
    source = (WEB / "core" / "theme.ts").read_text()
    for theme, colours in drawing.COLOURS.items():
        (listed,) = re.findall(rf"^  {theme}: \[(.*)\],$", source, re.MULTILINE)
        assert re.findall(r"#[0-9a-f]{6}", listed) == colours
    (dashes,) = re.findall(r"^const DASHES = (.*);$", source, re.MULTILINE)
    assert json.loads(dashes) == drawing.DASHES


@pytest.mark.parametrize(
    ("theme", "selector"), [("light", ":root {"), ("dark", ':root[data-theme="dark"] {')]
)
def test_inks_are_those_of_the_page(theme: str, selector: str) -> None:
    style = (WEB / "style.css").read_text()
    block = style[style.index(selector) :].split("}")[0]
    held = dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6});", block))
    for name, colour in {**drawing.INKS[theme], **sheet.MORE[theme]}.items():
        assert held[name] == colour, name


def test_how_faint_things_are_is_as_on_the_page() -> None:
    source = (WEB / "core" / "draw.ts").read_text()
    told = {name: float(value) for name, value in re.findall(r"const (\w+) = ([\d.]+);", source)}
    assert (told["DIM"], told["RAW_BESIDE_SMOOTH"]) == (drawing._DIM, drawing._RAW)


@given(title=TEXTS, label=TEXTS, metric=TEXTS.filter(bool))
@pytest.mark.slow
def test_whatever_people_write_is_text(
    tmp_path_factory: pytest.TempPathFactory, title: str, label: str, metric: str
) -> None:
    root = tmp_path_factory.getbasetemp() / "written"
    if not root.exists():
        make(root, [1.0, 2.0])
    key = f"p/{next((root / 'p').iterdir()).name}"
    query = ChartQuery(runs=[key], metric="loss", x=metric[:400])
    svg = chart_svg(Store(root), query, title=title, labels={key: label})
    tree = ElementTree.fromstring(svg)
    assert {element.tag for element in tree.iter()} <= {
        f"{SVG}{name}" for name in ("svg", "title", "rect", "path", "text", "g")
    }
    for element in tree.iter():
        assert not [name for name in element.attrib if name.startswith("on") or "href" in name]
    assert tree[0].text in (ElementTree.fromstring(f"<t>{text_of(title)}</t>").text, None, "")


def test_equal_records_give_equal_bytes(tmp_path: Path) -> None:
    key = make(tmp_path, [math.sin(step / 30) for step in range(2000)])
    query = ChartQuery(runs=[key], metric="loss", smooth=0.9, px=300)
    first, second = (chart_svg(Store(tmp_path), query, title="t") for _ in range(2))
    assert first == second


def test_a_spike_of_one_point_reaches_the_top(tmp_path: Path) -> None:
    values = [1.0] * 20_000
    values[7777] = 9.0
    key = make(tmp_path, values)
    svg = drawn(tmp_path, [key], px=300, width=960)
    (spikes,) = paths(svg, stroke_opacity=str(drawing._SPIKE))
    x, top, bottom = map(float, re.findall(r"[\d.]+", spikes.get("d") or ""))
    clip = svg.find(f"{SVG}svg")
    assert clip is not None
    low, high = float(clip.get("y", "")), float(clip.get("height", ""))
    assert abs(top - (low + high * 0.05 / 1.1)) < 1
    assert abs(bottom - (low + high * 1.05 / 1.1)) < 1
    part = (x - float(clip.get("x", ""))) / float(clip.get("width", ""))
    assert abs(part - 7777 / 20_000) < 0.01


def test_what_is_not_finite_is_a_triangle_with_its_count(tmp_path: Path) -> None:
    key = make(tmp_path, [1.0, math.nan, math.inf, -math.inf, 2.0])
    told = [title.text for title in drawn(tmp_path, [key]).iter(f"{SVG}title")]
    assert told == ["t", "1 × NaN", "1 × +∞", "1 × −∞"]


def test_a_smoothed_line_lies_over_the_faded_raw_one(tmp_path: Path) -> None:
    key = make(tmp_path, [float(step % 5) for step in range(300)])
    svg = drawn(tmp_path, [key], smooth=0.9)
    assert len(paths(svg, stroke_width="1", stroke_opacity=str(drawing._RAW))) == 1
    assert len([p for p in paths(svg, stroke_width="2") if "L" in (p.get("d") or "")]) == 1


@pytest.mark.slow
def test_nine_runs_have_nine_styles_and_a_legend(tmp_path: Path) -> None:
    keys = [make(tmp_path, [float(n), n + 1.0]) for n in range(9)]
    svg = drawn(tmp_path, keys, labels={key: f"run {n}" for n, key in enumerate(keys)})
    samples = [p for p in paths(svg, stroke_width="2") if (p.get("d") or "").endswith("h26")]
    assert len({(p.get("stroke"), p.get("stroke-dasharray")) for p in samples}) == 9
    assert [text for text in texts(svg) if text.startswith("run ")] == [
        f"run {n}" for n in range(9)
    ]


def test_what_a_loss_is_held_against_is_a_dotted_line_where_it_is_in_view(tmp_path: Path) -> None:
    session = started(tmp_path, "a")
    session.describe(references={"bigram": 2.5, "unigram": 9.0})
    for step in range(5):
        session.log({"loss": 4.0 - step, "acc": 4.0 - step}, step=100 * step)
    session.finish("finished")
    key = f"p/{session.run_id}"
    svg = drawn(tmp_path, [key])
    (line,) = paths(svg, stroke_dasharray="2 3")
    assert "bigram entropy" in texts(svg)
    assert "unigram entropy" not in texts(svg)
    marks = {e.text: float(e.get("y", 0)) - 4 for e in svg.iter(f"{SVG}text")}
    at = float(line.get("d", "").split("H")[0].split(" ")[1])
    assert at == pytest.approx((marks["3.0"] + marks["2.0"]) / 2, abs=0.2)
    assert not paths(drawn(tmp_path, [key], metric="acc"), stroke_dasharray="2 3")


def test_outliers_are_left_out_where_that_is_asked_for_and_counted(tmp_path: Path) -> None:
    values = [1.0 + n / 1000 for n in range(200)]
    values[100] = 900.0
    key = make(tmp_path, values)
    whole, clipped = drawn(tmp_path, [key]), drawn(tmp_path, [key], clip=True)
    assert any(text.startswith("800") for text in texts(whole))
    assert not any(text.startswith("800") for text in texts(clipped))
    assert not any("beyond" in text for text in texts(whole))
    assert "step · 1 value beyond the axis (outliers clipped)" in texts(clipped)


def test_where_a_resumed_run_went_on_is_a_tick_and_its_tail_is_dim(tmp_path: Path) -> None:
    session = started(tmp_path)
    for step in range(1, 11):
        session.log({"loss": 1.0}, step=step)
    session.finish("interrupted")
    resumed = Session.resume(session.run_dir)
    resumed.begin_at(5)
    for step in range(6, 15):
        resumed.log({"loss": 2.0}, step=step)
    resumed.finish("finished")
    key = f"p/{session.run_id}"
    svg = drawn(tmp_path, [key], tails=True)
    assert f"session 2 of {key}" in [title.text for title in svg.iter(f"{SVG}title")]
    assert [g.get("opacity") for g in svg.iter(f"{SVG}g")] == [str(drawing._DIM), None]


@pytest.mark.parametrize("x", ["step", "time", "relative", "loss"])
@pytest.mark.parametrize("values", [[], [1.0], [1e300, -1e300], [1e-320], [math.nan], [5.0] * 3])
@pytest.mark.slow
def test_any_run_can_be_drawn(tmp_path: Path, values: list[float], x: str) -> None:
    key = make(tmp_path, values)
    for log_y in (False, True):
        for log_x in (False, True):
            svg = drawn(tmp_path, [key], x=x, log_x=log_x, log_y=log_y, width=320, height=200)
            assert "nan" not in "".join(p.get("d") or "" for p in svg.iter(f"{SVG}path"))


def test_the_largest_numbers_there_are_can_be_drawn(tmp_path: Path) -> None:
    key = make(tmp_path, [1.7e308, -1.7e308, 5e-324])
    for log_y in (False, True):
        assert len(texts(drawn(tmp_path, [key], log_y=log_y))) > 5


def test_the_server_gives_a_drawing_of_a_query(tmp_path: Path) -> None:
    key = make(tmp_path, [3.0, 2.0, 1.0])
    with serving(tmp_path) as client:
        sub = json.dumps({"query": {"kind": "chart", "runs": [key], "metric": "loss"}})
        given = {"sub": sub, "title": "<b>", "theme": "dark", "labels": json.dumps({key: "mine"})}
        found = client.get("/api/v1/chart.svg", params=given)
        assert found.headers["content-type"] == "image/svg+xml"
        assert found.headers["content-disposition"].startswith("attachment")
        tree = ElementTree.fromstring(found.text)
        assert tree[0].text == "<b>"
        assert "mine" in texts(tree)
        assert drawing.COLOURS["dark"][0] in found.text
        scaled = client.get("/api/v1/chart.svg", params={**given, "log_y": "1"})
        assert (scaled.status_code, scaled.text != found.text) == (200, True)
        for wrong in ({**given, "theme": "pink"}, {**given, "sub": "x"}, {**given, "labels": "[]"}):
            assert client.get("/api/v1/chart.svg", params=wrong).status_code == 400


FINITE = st.floats(-1e300, 1e300)


@given(FINITE, FINITE, st.sampled_from([LINEAR, TIME, DURATION]), st.integers(2, 12))
def test_ticks_ascend_inside_of_their_axis(a: float, b: float, kind: str, most: int) -> None:
    low, high = min(a, b), max(a, b)
    if not high - low > 1e-9 * max(abs(low), abs(high), 1e-290):
        return
    found = Axis(kind, low, high, 0, 100).ticks(most=most)
    values = [value for value, _ in found]
    assert values == sorted(set(values))
    assert len(values) <= most + 1
    room = (high / 2 - low / 2) * 1e-6
    assert all(low / 2 - room <= value / 2 <= high / 2 + room for value in values)


@given(st.floats(1e-300, 1e300), st.floats(1.001, 1e100), st.integers(2, 12))
def test_logarithmic_ticks_ascend_inside_of_their_axis(
    low: float, factor: float, most: int
) -> None:
    high = min(low * factor, 1e308)
    values = [value for value, _ in Axis(LOG, low, high, 0, 100).ticks(most=most)]
    assert values == sorted(set(values))
    assert len(values) <= most + 1
    assert all(low * (1 - 1e-6) <= value <= high * (1 + 1e-6) for value in values)


@given(st.floats(1e-300, 1e300))
def test_a_nice_number_is_one_two_or_five_times_a_power_of_ten(span: float) -> None:
    found = nice(span)
    assert span * (1 - 1e-6) <= found <= 10 * span
    assert f"{found:e}"[:8] in ("1.000000", "2.000000", "5.000000")


@pytest.mark.parametrize(
    ("kind", "low", "high", "wanted"),
    [
        (LINEAR, 0, 1, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (LINEAR, -1.5, 1.5, ["−1", "0", "1"]),
        (LINEAR, 0, 20_000, ["0", "5,000", "10,000", "15,000", "20,000"]),
        (LINEAR, 0, 4e-6, ["0", "1e−6", "2e−6", "3e−6", "4e−6"]),
        (LOG, 1e-4, 1, ["0.0001", "0.001", "0.01", "0.1", "1"]),
        (DURATION, 0, 7200, ["0", "30 min", "1 h", "1 h 30 min", "2 h"]),
        (TIME, 1.7e9, 1.7e9 + 7200, ["11-14 22:30", "23:00", "23:30", "11-15 00:00"]),
    ],
)
def test_ticks_are_told_as_people_would(
    kind: str, low: float, high: float, wanted: list[str]
) -> None:
    told = [text for _, text in Axis(kind, low, high, 0, 100).ticks(most=5)]
    assert told == wanted


def test_a_large_value_is_told_from_the_one_beside_it() -> None:
    assert [number(1e6 + n, 1.0) for n in (0, 1)] == ["1e6", "1.000001e6"]
