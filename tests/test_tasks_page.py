"""docs/tasks.md shows what the code makes: its examples print what stands under them.

`python tests/test_tasks_page.py` writes it there anew.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
import tempfile
from pathlib import Path

import pytest

from task_kinds import KINDS

PAGE = Path(__file__).parents[1] / "docs" / "tasks.md"
EXAMPLE = re.compile(
    r"^(```python\n(?!# )(.*?)^```\n\n)```text\n(.*?)^```$", re.DOTALL | re.MULTILINE
)
HELPER = re.compile(r"^```python\n# (\w+\.py)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def printed(code: str) -> str:
    """What an example prints, without the blanks that editors take from the ends of lines."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        exec(compile(code, str(PAGE), "exec"), {"__name__": "example"})
    return "".join(f"{line.rstrip()}\n" for line in out.getvalue().rstrip("\n").split("\n"))


def regenerated(text: str) -> str:
    """The page with what its examples print now."""
    with tempfile.TemporaryDirectory() as folder:
        for name, code in HELPER.findall(text):
            (Path(folder) / name).write_text(code)
        sys.path.insert(0, folder)
        try:
            return EXAMPLE.sub(lambda found: f"{found[1]}```text\n{printed(found[2])}```", text)
        finally:
            sys.path.remove(folder)
            sys.modules.pop("show", None)


def test_every_example_prints_what_stands_under_it() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert len(EXAMPLE.findall(text)) == text.count("```python\n") - 1
    assert regenerated(text) == text, "type: python tests/test_tasks_page.py"


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_task_is_on_the_page(kind: str) -> None:
    assert re.search(rf"^\|.*`{kind}`", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


if __name__ == "__main__":
    PAGE.write_text(regenerated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
