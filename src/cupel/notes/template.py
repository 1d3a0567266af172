"""Notes to begin with: every section, one equation that closes, and TODO where something is due."""

from __future__ import annotations

from pathlib import Path

from cupel.errors import UsageError
from cupel.notes import front
from cupel.notes.load import SUFFIX

_TEMPLATE = """\
---
paper_id: {name}
version: {version}
title: {title}
authors: [TODO]
arxiv: {arxiv}
year: TODO
contribution: TODO
builds_on: []                       # papers that this one needs, as [titans.v1]
extraction_version: 1
extracted_at: TODO
extractor: TODO
source: TODO
confidence: A                       # A read in print, B two transcriptions agree, C one, D derived
needs_clarification: [A1]
---
# {heading}

## Quick Reference

| what | count |
|---|---|
| equations | 1 |
| algorithms | 1 |
| modules | 1 |
| hyperparameters | 1 |
| benchmarks | 1 |
| ambiguities | 1 |

## Symbols

| symbol | name | type | shape | description |
|---|---|---|---|---|
| t | step | index | scalar | position in the sequence |
| x_t | input | tensor | [d_in] | TODO |

## 1. Equations

### Equation 1: TODO
- Location: TODO
- Confidence: A
- Module: layer
- Requires: none
- Priority: P0
- Role: main

```latex
y_t = W x_t
```

```form
y_t = W @ x_t
```

TODO: what the equation says, in plain words.

| symbol | name | type | shape | description |
|---|---|---|---|---|
| W | weights | parameter | [d_out, d_in] | TODO |
| y_t | output | tensor | [d_out] | TODO |

Notes: TODO

Tests:
- [value] TODO
- [gradient] TODO

## 2. Algorithms

### Algorithm 1: TODO
- Location: TODO
- Module: layer
- Requires: eq1
- Purpose: TODO

```pseudocode
1: y = W x
```

| line | equation | module |
|---|---|---|
| 1 | eq1 | layer |

Tests:
- [value] TODO

## 3. Architecture

```diagram
x ──► layer ──► y
```

| module | path | input | output | parameters | description |
|---|---|---|---|---|---|
| layer | src/{package}/layer.py | [N, d_in] | [N, d_out] | d_out d_in | TODO |

## 4. Hyperparameters

| name | value | group | source | description |
|---|---|---|---|---|
| width | TODO | model | assumed | TODO |

## 5. Benchmarks

| id | dataset | metric | value | setup | source |
|---|---|---|---|---|---|
| B1 | TODO | TODO | TODO | TODO | TODO |

## 6. Dependencies

| kind | name | description |
|---|---|---|
| prior work | TODO | TODO |

## 7. Checklist

- Outputs do not depend on later inputs

## 8. Notes

### Ambiguity A1: TODO
- Readings: `one` TODO; `other` TODO
- Chosen: one
- Reason: TODO
- Switch: reading
- Equations: eq1

### Limits

TODO: what the paper does not say.
"""


def template(
    name: str, *, arxiv: str | None = None, title: str | None = None, version: str = "v1"
) -> str:
    """The text. Raises UsageError for a name, a version or a number that no notes could have."""
    for key, value in (("paper_id", name), ("version", version), ("arxiv", arxiv or "none")):
        fits, expected = front.KEYS[key]
        if not fits(value):
            raise UsageError(f"'{value}' cannot be the {key} of notes; expected {expected}")
    title = " ".join((title or "TODO").split())
    return _TEMPLATE.format(
        name=name, version=version, package=name.replace("-", "_"), heading=title,
        title=front.quoted(title), arxiv=arxiv or "TODO",
    )  # fmt: skip


def write_template(
    folder: Path, name: str, *, arxiv: str | None, title: str | None, version: str
) -> Path:
    """Write `<name>.context.md` into a folder. Raises UsageError where one is there already."""
    text = template(name, arxiv=arxiv, title=title, version=version)
    path = folder / f"{name}{SUFFIX}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(
            f"{path} is there already, and is not overwritten; choose another name"
        ) from None
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
    return path
