"""Two renderers of one document: nothing is fetched, nothing of a text becomes markup."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from cupel.report.blocks import (
    Bullets,
    Code,
    Figure,
    Heading,
    Maths,
    Paragraph,
    Table,
    plain,
)
from cupel.report.markdown import as_markdown
from cupel.report.page import as_page, inline
from cupel.report.theory import theory_of

# Every value of every setting that a text goes by, in some arm.
EVERYTHING = [
    {
        "model": {
            **{"kind": "wave", "embedding": embedding, "attention": attention, "ratio": ratio},
            **{"bias": bias, "input_norm": True, "mlp": mlp, "pure": {"kernel": kernel}},
        },
        "train": {"optimizer": {"kind": optimizer}},
        "objective": {"kind": objective},
    }
    for embedding, attention, ratio, bias, mlp, kernel, optimizer, objective in (
        ("packet", "interference", "scheduled", True, "gelu_sine", "elu", "rgd", "qfe"),
        ("packet", "pure", "free", False, "sine", "elu", "wave_native", "coherence"),
        ("packet", "pure", "free", False, "sine", "sigmoid", "wave_native", "coherence"),
        ("packet", "pure", "decay", False, "gelu", "exp", "adamw", "cross_entropy"),
        ("physics", "physics", "decay", True, "gelu", "elu", "sgd", "cross_entropy"),
    )
]


class Checker(HTMLParser):
    """Every tag that opens is closed, and no address leads out of the page."""

    VOID = ("meta", "img", "source")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in self.VOID:
            self.open.append(tag)
        self.addresses += [v or "" for k, v in attrs if k in ("src", "srcset", "href")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def checked(page: str) -> Checker:
    checker = Checker()
    checker.feed(page)
    assert not checker.open
    return checker


def test_the_page_is_whole_and_fetches_nothing(tmp_path: Path) -> None:
    for name in ("a.light.svg", "a.dark.svg"):
        (tmp_path / name).write_text(f"<svg xmlns='http://www.w3.org/2000/svg' id='{name}'/>")
    document = [
        Heading(1, "Title"),
        Paragraph("a **lead** with `code` and $x_i^2$", lead=True),
        Bullets(["one", "two"]),
        Table("numbers", ["", "a"], [["b", "1"]]),
        Figure("a.light.svg", "a.dark.svg", 'an "alternative"', "caption"),
        Maths(r"\sum_i x_i"),
        Code("def f():\n    return '<b>'\n", "python", summary="f"),
    ]
    page = as_page(document, title="T & <T>", folder=tmp_path)
    checker = checked(page)
    assert len(checker.addresses) == 2
    assert all(address.startswith("data:image/svg+xml;base64,") for address in checker.addresses)
    assert "http" not in re.sub(r"http://www\.w3\.org/1998/Math/MathML", "", page)
    assert "prefers-color-scheme: dark" in page
    assert "<title>T &amp; &lt;T&gt;</title>" in page
    assert page.count("<math") == 2
    text = as_markdown(document)
    assert '<source media="(prefers-color-scheme: dark)" srcset="a.dark.svg">' in text
    assert "$$\n\\sum_i x_i\n$$" in text


@given(st.text(max_size=40))
@settings(deadline=None)
def test_a_plain_text_means_itself_in_both_renderings(text: str) -> None:
    shown = " ".join(text.split())
    checker = checked(f"<p>{inline(plain(text))}</p>")
    # Markdown replaces NUL, and reads characters that HTML cannot hold as others.
    if shown.isprintable():
        assert checker.text == shown
    rendered = MarkdownIt("commonmark").renderInline(plain(text))
    assert not re.search(r"<(?!/?p)", rendered.replace("&lt;", ""))


@pytest.mark.parametrize("text", ["no ticks", "a ``` fence", "`````` six", "ends in `"])
def test_code_of_any_text_stays_within_its_fence(text: str) -> None:
    (token,) = MarkdownIt("commonmark").parse(as_markdown([Code(text)]))
    assert (token.type, token.content) == ("fence", f"{text}\n")


def test_every_formula_becomes_mathml_without_a_command_left_over(tmp_path: Path) -> None:
    blocks = theory_of(EVERYTHING)
    assert sum(isinstance(block, Maths) for block in blocks) >= 25
    page = as_page(blocks, title="", folder=tmp_path)
    maths = re.findall(r"<math.*?</math>", page, flags=re.S)
    assert len(maths) > 20
    assert not [formula for formula in maths if "\\" in formula]
    assert "$" not in re.sub(r"<style>.*?</style>", "", page, flags=re.S)


def test_theory_is_told_once_and_only_of_what_an_arm_uses() -> None:
    assert theory_of([{"model": {"kind": "gpt"}, "train": {"optimizer": {"kind": "adamw"}}}]) == []
    headings = [b.text for b in theory_of([*EVERYTHING, *EVERYTHING]) if isinstance(b, Heading)]
    assert len(headings) == len(set(headings)) == 11


def test_rows_of_another_length_than_the_head_are_the_programmers_mistake() -> None:
    with pytest.raises(AssertionError):
        Table("", ["a", "b"], [["1"]])
