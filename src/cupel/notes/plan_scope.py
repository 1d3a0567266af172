"""What a plan is of: the intent, the machine, and the equations and modules that are then in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cupel.errors import UnknownName, UsageError
from cupel.notes import graph, ids
from cupel.notes.graph import Graph
from cupel.notes.model import Algorithm, Equation, Module, Paper
from cupel.notes.project import Project, project_of

INTENTS = {
    "validate": "Validate understanding: equations and their tests, no training",
    "full": "Full reproduction: everything, up to the reported results",
    "component": "Specific component: some modules and all that they need",
    "extend": "Extend: everything, and where further work may be attached",
    "benchmark": "Benchmark only: what the reported results need, and how they are compared",
}


@dataclass(frozen=True, slots=True)
class Environment:
    """A kind of machine: how torch is installed there, what runs on it, and what limits it."""

    title: str
    device: str
    dtype: str
    install: str
    check: str
    width: int
    length: int
    batch: int
    limits: tuple[str, ...]

    @property
    def is_notebook(self) -> bool:
        return self.title.startswith("Colab")


_CUDA = 'python -c "import torch; print(torch.cuda.get_device_name())"'  # fails without a GPU
ENVIRONMENTS = {
    "local-cpu": Environment(
        "Local CPU", "cpu", "float32",
        "pip install torch --index-url https://download.pytorch.org/whl/cpu",
        'python -c "import torch; print(torch.get_num_threads())"',
        64, 256, 4,
        (
            "sizes of tests and smoke runs only: reported results are not to be reached here",
            "threads are set by OMP_NUM_THREADS; timings on a shared machine are ratios at best",
        ),
    ),
    "local-gpu": Environment(
        "Local GPU", "cuda", "bfloat16, states and inner gradients in float32",
        "pip install torch",
        _CUDA,
        512, 4096, 8,
        (
            "memory of the card: state that is held for each token grows with the sequence",
            "tests that compare exactly run in float64 on the CPU; the GPU is for speed",
        ),
    ),
    "colab-free": Environment(
        "Colab Free", "cuda", "float16 with a gradient scaler, states in float32",
        "pip install torch",
        _CUDA,
        256, 1024, 8,
        (
            "the usual card (T4) has about 15 GB and no bfloat16",
            "a session may end at any moment: checkpoints go to the drive, and every run resumes",
            "what is installed is gone with the session; the first cell installs it again",
        ),
    ),
    "colab-pro": Environment(
        "Colab Pro", "cuda", "bfloat16 where the card has it, states in float32",
        "pip install torch",
        _CUDA,
        512, 2048, 16,
        (
            "which card a session gets differs (T4, L4, A100): the check below decides the sizes",
            "compute units run out: smoke runs on the CPU come before anything on the card",
            "checkpoints go to the mounted drive, and every run resumes",
        ),
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Scope:
    """What one plan is of; entries and modules are those that are to be built, in order."""

    intent: str
    environment: Environment
    date: str | None
    project: Project
    papers: tuple[Paper, ...]
    entries: tuple[Equation | Algorithm, ...]
    listed: tuple[str, ...]  # ids of the equations' table, context included
    modules: tuple[Module, ...]
    components: tuple[str, ...]
    equations: Graph
    parts: Graph

    def of_paper(self, paper: Paper) -> list[Equation | Algorithm]:
        """The entries of a paper."""
        return [entry for entry in self.entries if ids.split(entry.id)[0] == paper.id]

    def of_module(self, module: Module) -> list[Equation | Algorithm]:
        """The entries that a module carries out."""
        return [entry for entry in self.entries if graph.module_of(entry) == module.id]

    @property
    def module_levels(self) -> list[list[Module]]:
        """The modules by level, what needs nothing first; levels without any are left out."""
        by_id = {module.id: module for module in self.modules}
        found = [[by_id[n] for n in level if n in by_id] for level in self.parts.levels()]
        return [level for level in found if level]

    @property
    def models(self) -> list[Module]:
        """What is assembled in the end: modules that no other one needs, the largest first.

        One that needs nothing either is a part without a whole, and counts where all are so.
        """
        parts = self.parts.only(module.id for module in self.modules)
        users = parts.used_by()
        last = [module for module in self.modules if not users[module.id]]
        whole = [module for module in last if parts.needs[module.id]]
        return sorted(whole or last, key=lambda module: -len(parts.required([module.id])))

    @property
    def trains(self) -> bool:
        return self.intent != "validate"

    @property
    def criteria(self) -> int:
        """How many test criteria there are."""
        return sum(len(entry.tests) for entry in self.entries)


def scope_of(
    papers: Sequence[Paper],
    *,
    intent: str = "full",
    environment: str = "local-cpu",
    components: Sequence[str] = (),
    name: str | None = None,
    package: str | None = None,
    date: str | None = None,
) -> Scope:
    """What a plan for sound notes is of. Raises UnknownName and UsageError."""
    for kind, given, known in (
        ("intent", intent, INTENTS), ("environment", environment, ENVIRONMENTS)
    ):  # fmt: skip
        if given not in known:
            raise UnknownName(kind, given, known)
    if bool(components) != (intent == "component"):
        raise UsageError(
            "--component names modules, and belongs to --intent component; type both, as: "
            "--intent component --component memory"
        )
    whole = graph.graph_of(papers)
    parts = graph.graph_of(papers, "modules")
    modules = {module.id: module for paper in papers for module in paper.modules}
    chosen = _modules(modules, components, parts) if components else list(parts.nodes)
    found = graph.entries(papers)
    wanted = {n for n, e in found.items() if graph.module_of(e) in chosen}
    listed = whole.required(wanted) if components else list(whole.nodes)
    entries = [found[n] for n in listed if whole.nodes[n].main]
    return Scope(
        intent=intent,
        environment=ENVIRONMENTS[environment],
        date=date,
        project=project_of(papers, name=name, package=package),
        papers=tuple(papers),
        entries=tuple(entries),
        listed=tuple(listed),
        modules=tuple(modules[n] for n in chosen),
        components=tuple(components),
        equations=whole,
        parts=parts,
    )


def _modules(modules: dict[str, Module], names: Sequence[str], parts: Graph) -> list[str]:
    """The modules that are named, by name or id, with all that they need."""
    found = []
    for name in names:
        meant = [m.id for m in modules.values() if name in (m.id, m.name)]
        if not meant:
            raise UnknownName("module", name, [module.name for module in modules.values()])
        if len(meant) > 1:
            raise UsageError(
                f"'{name}' is a module of several papers; type one of {', '.join(meant)}"
            )
        found += meant
    return parts.required(found)
