"""The command line is frozen: a new command or option is a decision, recorded in a golden file.

To accept a change: python tests/cli/test_surface.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer

GOLDEN = Path(__file__).parents[1] / "golden" / "cli.txt"


def surface() -> str:
    from cupel.cli.app import app

    return "\n".join(_lines(typer.main.get_command(app), "cupel")) + "\n"


def _lines(command: Any, path: str) -> list[str]:
    words = [
        p.metavar or p.name if p.param_type_name == "argument" else " ".join(sorted(p.opts))
        for p in command.params
    ]
    lines = [path, *(f"  {word}" for word in sorted(words))]
    for name, inner in sorted(getattr(command, "commands", {}).items()):
        lines += _lines(inner, f"{path} {name}")
    return lines


def test_the_command_line_is_the_frozen_one() -> None:
    assert surface() == GOLDEN.read_text(), "run `python tests/cli/test_surface.py` to accept this"


def test_every_option_and_command_explains_itself() -> None:
    from cupel.cli.app import app

    def check(command: Any, path: str) -> None:
        assert command.help, f"{path} has no help"
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert parameter.help, f"{path} {parameter.opts} has no help"
        for name, inner in getattr(command, "commands", {}).items():
            check(inner, f"{path} {name}")

    check(typer.main.get_command(app), "cupel")


if __name__ == "__main__":
    GOLDEN.write_text(surface())
