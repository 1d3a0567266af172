"""`cupel sample RUN`: text from a trained GPT."""

from __future__ import annotations

from typing import Annotated

import typer

from cupel.cli.root import Root, runs_root
from cupel.cli.streams import tell
from cupel.cli.tables import printable


def sample(
    run: Annotated[str, typer.Argument(help="A run's id, the beginning of one, or its folder.")],
    prompt: Annotated[str | None, typer.Option(help="What the text begins with.")] = None,
    tokens: Annotated[int | None, typer.Option(min=1, help="Tokens to write.")] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0.0, help="0 takes the likeliest token always.")
    ] = None,
    top_k: Annotated[
        int | None, typer.Option(min=1, help="Draw from the k likeliest only.")
    ] = None,
    top_p: Annotated[
        float | None, typer.Option(min=0.0, max=1.0, help="Draw from those that hold this mass.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the draws; equal seeds write equal text.")] = 1,
    step: Annotated[
        int | None, typer.Option(help="The checkpoint of this step; else the best, else the last.")
    ] = None,
    root: Root = None,
) -> None:
    """Write text with a run's model; what is not given is as in its recipe.

    Control characters, newline and tab aside, are written out as \\x1b.

    \b
    cupel sample 20261121 --prompt 'class ' --temperature 0.7 --top-p 0.95
    """
    from cupel.errors import needing_torch
    from cupel.record.layout import find_run

    run_dir = find_run(runs_root(root), run)
    from cupel.workloads.text import write_text

    given = {
        "prompt": prompt,
        "tokens": tokens,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    with needing_torch("sampling"):
        write_text(run_dir, changes, seed=seed, step=step, tell=_write, warn=tell)
    print()


def _write(text: str) -> None:
    print(printable(text), end="", flush=True)
