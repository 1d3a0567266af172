"""How far each equation of the notes is proven, by what was found and run, not by check boxes.

    0  noted: the notes have it
    1  code is marked with it
    2  a test is marked with it that imports this code
    3  all of its tests pass
    4  a test of its value, gradient or against an oracle is among them
    5  and such a test fails on each small wrong version of the code

A test of a shape, of causality, of speed or of a claim never lifts an equation above 3.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cupel.errors import CupelError
from cupel.notes.code import Evidence, Mark, TestMark
from cupel.notes.evidence import Keys, Known, Store
from cupel.notes.model import Equation, Paper
from cupel.notes.mutants import Mutant, mutants

PROVING = frozenset({"value", "gradient", "oracle"})
LIMIT_S, LEAST_S = 600.0, 5.0
LEVELS = (
    "noted", "code", "a test imports it", "tests pass", "value, gradient or oracle",
    "every mutant fails",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Status:
    """Where one equation stands, and what keeps it from the next level."""

    equation: Equation
    level: int
    why: str  # what is missing for the next level; "" at 5
    marks: tuple[Mark, ...]
    tests: dict[str, list[str]] = field(default_factory=dict)
    mutants: int = 0
    survived: tuple[str, ...] = ()
    exempt: tuple[str, ...] = ()
    stale: bool = False


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be found out, and from what."""

    papers: Sequence[Paper]
    found: Evidence
    code: Sequence[Path]  # files
    store: Path
    workers: int = 1
    try_mutants: bool = True
    run: bool = True  # else what is known already is all that counts


def status(request: Request, tell: Callable[[str], None] = lambda text: None) -> list[Status]:
    """Where every equation stands, after running what is not known yet.

    Raises CupelError when the tests cannot be run at all.
    """
    whole = _Survey(request)
    if request.run:
        whole.prove(tell)
    return [whole.of(equation) for paper in request.papers for equation in paper.equations]


class _Survey:
    """All equations with their marks, their tests, and what is known of them."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.keys = Keys(request.code)
        self.store = Store(request.store)
        self.marks: dict[str, list[Mark]] = {}
        self.tests: dict[str, list[TestMark]] = {}
        for mark in request.found.marks:
            self.marks.setdefault(mark.id, []).append(mark)
        for test in request.found.tests:
            self.tests.setdefault(test.id, []).append(test)
        self.limit_s = LIMIT_S
        self.equations = [one for paper in request.papers for one in paper.equations]

    def key(self, equation: Equation) -> str:
        files = {Path(test.path) for test in self.tests.get(equation.id, ())}
        return self.keys.of(equation, self.marks.get(equation.id, ()), files)

    def known(self, equation: Equation) -> Known | None:
        """What the file of evidence says, if nothing has changed since."""
        found = self.store.known.get(equation.id)
        return found if found is not None and found.key == self.key(equation) else None

    def of(self, equation: Equation) -> Status:
        marks = tuple(self.marks.get(equation.id, ()))
        tests = self.tests.get(equation.id, ())
        nothing = Status(equation, 0, "no code is marked with it", marks)
        if not marks:
            return nothing
        code = {Path(mark.path) for mark in marks}
        if not any(code & self.keys.imported(Path(test.path)) for test in tests):
            missing = "no test imports its code" if tests else "no test is marked with it"
            return replace(nothing, level=1, why=missing)
        known = self.known(equation)
        if known is None:
            stale = equation.id in self.store.known
            why = "something has changed since its tests ran" if stale else "its tests have not run"
            return replace(nothing, level=2, why=why, stale=stale)
        return _judged(replace(nothing, level=2), known, mutated=self.request.try_mutants)

    # ---- trials ------------------------------------------------------------------------------

    def prove(self, tell: Callable[[str], None]) -> None:
        """Run the tests of all equations of which something is not known, then their mutants."""
        open_ones = [one for one in self.equations if self._is_open(one)]
        if not open_ones:
            return
        tell(f"tests of {len(open_ones)} equations")
        files = sorted({test.path for one in open_ones for test in self.tests[one.id]})
        begun = time.monotonic()
        (first,) = self._trial(files, [], baseline=True)
        # A mutant that takes far longer than all tests together will not come to an end.
        self.limit_s = max(LEAST_S, 3 * (time.monotonic() - begun))
        if "!" in first["tests"] or first["ended"]:
            said = first["tests"].get("!", {}).get("said", "") or first["ended"]
            raise CupelError(f"the tests cannot be run: {_last_line(said)}")
        for one in open_ones:
            self.store.known[one.id] = Known(self.key(one), _outcomes(first["tests"], one.id))
        if self.request.try_mutants:
            self._try_mutants(open_ones, first["tests"], tell)
        self.store.write()

    def _is_open(self, equation: Equation) -> bool:
        marks, tests = self.marks.get(equation.id), self.tests.get(equation.id)
        if not marks or not tests:
            return False
        known = self.known(equation)
        if known is None:
            return True
        return self.request.try_mutants and _judged_level(known) == 4 and not known.mutants

    def _try_mutants(
        self, open_ones: Sequence[Equation], outcomes: Any, tell: Callable[[str], None]
    ) -> None:
        """One run for each mutant of each function that an equation of level 4 is marked on."""
        ready = {one.id for one in open_ones if _judged_level(self.store.known[one.id]) >= 4}
        jobs, exempt = self._mutants(ready)
        runs = []
        for number, (mutant, ids) in enumerate(jobs):
            nodes = [
                node for node, test in outcomes.items()
                if any(i in ids and kind in PROVING for i, kind in test["marks"])
            ]  # fmt: skip
            runs.append({
                "number": number, "path": mutant.path, "text": mutant.text, "ids": sorted(ids),
                "nodes": nodes, "files": sorted({outcomes[node]["file"] for node in nodes}),
            })  # fmt: skip
        made: dict[str, int] = dict.fromkeys(ready, 0)
        survived: dict[str, list[str]] = {identity: [] for identity in ready}
        for done, answer in enumerate(self._trial([], runs, baseline=False), 1):
            tell(f"mutant {done} of {len(runs)}")
            mutant, ids = jobs[answer["number"]]
            for identity in ids:
                made[identity] += 1
                if not _is_red(answer, identity):
                    survived[identity].append(f"{mutant.path}:{mutant.line}: {mutant.what}")
        for identity in ready:
            self.store.known[identity] = replace(
                self.store.known[identity],
                mutants=made[identity],
                survived=tuple(sorted(survived[identity])),
                exempt=tuple(exempt.get(identity, ())),
            )

    def _mutants(
        self, ready: set[str]
    ) -> tuple[list[tuple[Mutant, set[str]]], dict[str, list[str]]]:
        """Each wrong version of each marked function, with the equations that it is wrong for."""
        where: dict[tuple[str, int, int], set[str]] = {}
        for identity in sorted(ready):
            for mark in self.marks[identity]:
                where.setdefault((mark.path, mark.line, mark.end), set()).add(identity)
        jobs: list[tuple[Mutant, set[str]]] = []
        exempt: dict[str, list[str]] = {}
        for (path, first, last), ids in sorted(where.items()):
            found = mutants(Path(path).read_text(encoding="utf-8"), path, first, last)
            jobs += [(mutant, ids) for mutant in found.made]
            for line, reason in found.exempt:
                for identity in ids:
                    exempt.setdefault(identity, []).append(f"{path}:{line}: {reason}")
        return jobs, exempt

    def _trial(
        self, files: Sequence[str], runs: Sequence[Any], *, baseline: bool
    ) -> Iterator[dict[str, Any]]:
        """Answers of `cupel.notes.trial`, as they come."""
        if not runs and not baseline:
            return
        imports = {
            name.partition(".")[0] for test in self.request.found.tests for name in test.imports
        }
        own = {Path(mark.path).resolve() for mark in self.request.found.marks}
        ours = {name.partition(".")[0] for name in self.keys.names(own)}
        job = {
            "preload": sorted(imports - ours - {"conftest"}), "baseline": baseline,
            "files": list(files), "mutants": list(runs), "workers": self.request.workers,
            "limit_s": self.limit_s,
        }  # fmt: skip
        surroundings = {"OMP_NUM_THREADS": "1", **os.environ, "CUPEL_DASHBOARD": "0"}
        with subprocess.Popen(
            [sys.executable, "-m", "cupel.notes.trial"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env=surroundings,
        ) as process:  # fmt: skip
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            try:
                process.stdin.write(json.dumps(job))
                process.stdin.close()
                for line in process.stdout:
                    yield json.loads(line)
                if process.wait():
                    raise CupelError(
                        f"the tests cannot be run: {_last_line(process.stderr.read())}"
                    )
            finally:
                process.kill()


def _judged(at: Status, known: Known, *, mutated: bool) -> Status:
    """Level and reason by what trials have shown."""
    told = replace(
        at, tests=known.tests, mutants=known.mutants, survived=known.survived, exempt=known.exempt
    )
    level = _judged_level(known)
    if level == 2:
        wrong = [node for node, (_, outcome) in known.tests.items() if outcome != "passed"]
        why = (
            f"{wrong[0]} {known.tests[wrong[0]][1]}" if wrong else "no test of it was found to run"
        )
    elif level == 3:
        why = "no test of its value, its gradient or against an oracle"
    elif level == 4 and known.survived:
        why = (
            f"{len(known.survived)} of {known.mutants} mutants pass its tests: {known.survived[0]}"
        )
    elif level == 4:
        why = "no mutant of its code could be made" if mutated else "mutants were not tried"
    else:
        why = ""
    return replace(told, level=level, why=why)


def _judged_level(known: Known) -> int:
    outcomes = [outcome for _, outcome in known.tests.values()]
    if not outcomes or any(outcome != "passed" for outcome in outcomes):
        return 2
    if not any(kind in PROVING for kind, _ in known.tests.values()):
        return 3
    return 5 if known.mutants and not known.survived else 4


def _outcomes(tests: Any, identity: str) -> dict[str, list[str]]:
    """Of one equation: node id → kind and outcome; the strongest kind where a test has several."""
    found: dict[str, list[str]] = {}
    for node, test in tests.items():
        kinds = [kind for one, kind in test["marks"] if one == identity]
        if kinds:
            best = next((kind for kind in kinds if kind in PROVING), kinds[0])
            found[node] = [best, test["outcome"]]
    return found


def _is_red(answer: Any, identity: str) -> bool:
    """Whether a proving test of the equation failed, or nothing came to an end."""
    if answer["ended"] or "*" in answer["tests"]:
        return True
    return any(
        test["outcome"] == "failed"
        and any(one == identity and kind in PROVING for one, kind in test["marks"])
        for test in answer["tests"].values()
    )


def _last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if line.strip()]
    return lines[-1][:200] if lines else "nothing was said"
