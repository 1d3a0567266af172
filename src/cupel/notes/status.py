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

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from cupel.errors import CupelError
from cupel.notes.code import Evidence, Mark, TestMark
from cupel.notes.evidence import Keys, Known, Store
from cupel.notes.model import Equation, Paper
from cupel.notes.mutants import Mutant, mutants

PROVING = frozenset({"value", "gradient", "oracle"})
LIMIT_S, LEAST_S = 600.0, 30.0  # of all tests, and at least of a mutant's
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
    only: frozenset[str] = frozenset()  # ids of equations, or all

    @property
    def equations(self) -> list[Equation]:
        """Those that are asked for."""
        every = [one for paper in self.papers for one in paper.equations]
        return [one for one in every if not self.only or one.id in self.only]


def status(request: Request, tell: Callable[[str], None] = lambda text: None) -> list[Status]:
    """Where every equation stands, after running what is not known yet.

    Raises CupelError when the tests cannot be run at all.
    """
    whole = _Survey(request)
    if request.run:
        whole.prove(tell)
    return [whole.of(equation) for equation in request.equations]


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
        open_ones = [one for one in self.request.equations if self._is_open(one)]
        if not open_ones:
            return
        tell(f"tests of {len(open_ones)} equations")
        files = sorted({test.path for one in open_ones for test in self.tests[one.id]})
        with self._trial(files, kept=True) as trial:
            tests = trial.first()
            for one in open_ones:
                self.store.known[one.id] = Known(self.key(one), _outcomes(tests, one.id))
            try:
                if self.request.try_mutants:
                    self._try_mutants(trial, open_ones, tests, tell)
            finally:
                self.store.write()  # what is known so far, if somebody ends it

    def _is_open(self, equation: Equation) -> bool:
        marks, tests = self.marks.get(equation.id), self.tests.get(equation.id)
        if not marks or not tests:
            return False
        known = self.known(equation)
        if known is None:
            return True
        return self.request.try_mutants and _judged_level(known) == 4 and not known.mutants

    def _try_mutants(
        self, trial: _Trial, open_ones: Sequence[Equation], tests: Any, tell: Callable[[str], None]
    ) -> None:
        """One run for each mutant of each function that an equation of level 4 is marked on."""
        ready = {one.id for one in open_ones if _judged_level(self.store.known[one.id]) >= 4}
        jobs, exempt = self._mutants(ready)
        runs = [_run(number, job, tests) for number, job in enumerate(jobs)]
        made = Counter(identity for job in jobs for identity in job.ids)
        left = made.copy()
        survived: dict[str, list[str]] = {identity: [] for identity in ready}
        for done, answer in enumerate(self._answers(trial, runs), 1):
            passed = len({line for lines in survived.values() for line in lines})
            tell(f"mutant {done} of {len(runs)}, {passed} passed")
            job = jobs[answer["number"]]
            for identity in job.ids:
                left[identity] -= 1
                if not _is_red(answer, identity):
                    mutant = job.mutant
                    place = f"{mutant.path}:{mutant.line}:{mutant.column}"
                    survived[identity].append(f"{place}: {mutant.what}")
                if not left[identity]:
                    self.store.known[identity] = replace(
                        self.store.known[identity],
                        mutants=made[identity],
                        survived=tuple(sorted(survived[identity])),
                        exempt=tuple(exempt.get(identity, ())),
                    )

    def _answers(self, trial: _Trial, runs: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Of all mutants: those that can be exchanged in place first, the others afterwards."""
        later = [run for run in runs if not run["in_place"]]
        for answer in trial.answers([run for run in runs if run["in_place"]]):
            if answer.get("unchanged"):
                later.append(runs[answer["number"]])
            else:
                yield answer
        if later:
            with self._trial([], kept=False) as other:
                yield from other.answers(later)

    def _mutants(self, ready: set[str]) -> tuple[list[_Job], dict[str, list[str]]]:
        """Each wrong version of each marked function, with the equations that it is wrong for."""
        where: dict[tuple[str, int, int, str], set[str]] = {}
        for identity in sorted(ready):
            for mark in self.marks[identity]:
                place = (mark.path, mark.line, mark.end, mark.name)
                where.setdefault(place, set()).add(identity)
        jobs: list[_Job] = []
        exempt: dict[str, list[str]] = {}
        for (path, first, last, name), ids in sorted(where.items()):
            found = mutants(Path(path).read_text(encoding="utf-8"), path, first, last)
            jobs += [_Job(mutant, ids, name, found.in_place) for mutant in found.made]
            for line, reason in found.exempt:
                for identity in ids:
                    exempt.setdefault(identity, []).append(f"{path}:{line}: {reason}")
        return jobs, exempt

    def _trial(self, files: Sequence[str], *, kept: bool) -> _Trial:
        imports = {
            name.partition(".")[0] for test in self.request.found.tests for name in test.imports
        }
        own = {Path(mark.path).resolve() for mark in self.request.found.marks}
        ours = {name.partition(".")[0] for name in self.keys.names(own)}
        preload = sorted(imports - ours - {"conftest"})
        return _Trial(
            {
                "preload": preload, "kept": kept, "files": list(files),
                "workers": self.request.workers, "limit_s": LIMIT_S,
            }
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Job:
    """A mutant, the equations that its function is marked with, and that function's name."""

    mutant: Mutant
    ids: set[str]
    name: str
    in_place: bool


def _run(number: int, job: _Job, tests: Any) -> dict[str, Any]:
    """What the trial is told of a mutant: its text, and its equations' tests, quick ones first."""
    nodes = {
        node: test["cpu_s"] for node, test in tests.items()
        if any(i in job.ids and kind in PROVING for i, kind in test["marks"])
    }  # fmt: skip
    nodes = dict(sorted(nodes.items(), key=lambda pair: pair[1]))
    return {
        "number": number, "path": job.mutant.path, "text": job.mutant.text, "name": job.name,
        "ids": sorted(job.ids), "in_place": job.in_place, "nodes": nodes,
        "files": sorted({tests[node]["file"] for node in nodes}),
        # Of a test that takes much CPU time the trial takes care; this is for one that sleeps.
        "limit_s": min(LIMIT_S, LEAST_S + 20 * sum(nodes.values())),
    }  # fmt: skip


class _Trial:
    """A process of `cupel.notes.trial`; a context, which ends it.

    Raises CupelError when the tests cannot be run.
    """

    def __init__(self, job: dict[str, Any]) -> None:
        surroundings = {
            "OMP_NUM_THREADS": "1",
            # Else a test that asks whether there is a GPU would open it before the forks.
            "PYTORCH_NVML_BASED_CUDA_CHECK": "1",
            **os.environ,
            "CUPEL_DASHBOARD": "0",
        }
        # A pipe that nobody reads would stop what writes a lot of warnings.
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed in __exit__)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cupel.notes.trial"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True,
            env=surroundings,
        )  # fmt: skip
        self._send(job)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def first(self) -> Any:
        """How each test of the code as it is went."""
        answer = self._heard()
        if answer["ended"] or not answer["tests"]:
            raise CupelError(f"the tests cannot be run: {answer['ended'] or 'there are none'}")
        return answer["tests"]

    def answers(self, runs: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """One for each mutant, in whatever order they come."""
        if runs:
            self._send({"mutants": runs})
        for _ in runs:
            yield self._heard()

    def _send(self, job: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the answer says why
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()

    def _heard(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._errors.seek(0)
            raise CupelError(f"the tests cannot be run: {_last_line(self._errors.read())}")
        answer = json.loads(line)
        if "error" in answer:
            raise CupelError(f"the tests cannot be run: {answer['error']}")
        return answer


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
