"""The parts of a report that say what was done: rules, arms, architectures, code, how to repeat."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from cupel.errors import RecordError
from cupel.record.files import read_json
from cupel.record.reader import RunRecord
from cupel.report.blocks import Block, Bullets, Code, Heading, Paragraph, Table, plain
from cupel.report.excerpts import Excerpt, excerpt
from cupel.report.theory import theory_of, uses
from cupel.studies.outcome import Outcome
from cupel.studies.runs import RunOutcome

_MOST_ROWS = 60  # of the table of shapes
# What else of an arm is worth reading; model.json has the hashes of modules only.
_OPTIM, _LOSS = "cupel.models.wave.optim", "cupel.models.wave.loss"
_BESIDES_MODELS: dict[tuple[str, str], tuple[str, ...]] = {
    ("train.optimizer.kind", "rgd"): (f"{_OPTIM}:RGD", f"{_OPTIM}:_resonant"),
    ("train.optimizer.kind", "wave_native"): (f"{_OPTIM}:WaveNative", f"{_OPTIM}:_modes"),
    ("objective.kind", "qfe"): (f"{_LOSS}:QFE",),
    ("objective.kind", "coherence"): (f"{_LOSS}:Coherence", f"{_LOSS}:harmonic_deviation"),
}


def decided(found: Outcome) -> list[Block]:
    """What was declared before the first run, and by which rules verdicts are given."""
    study = found.manifest.study
    plan, primary = study.compare, study.primary
    statistic = {
        "last": "of a run's final evaluation",
        "best": f"the {primary.better[:-2]}est over all evaluations of a run",
    }[primary.statistic]
    seeds = ", ".join(map(str, study.seeds))
    names = {"tests": "paired t tests", "exact": "exact sign-flip tests of the pairs"}
    tests = (
        f"; {names[plan.kind]} as one family, correction: {plan.correction}"
        if plan.kind in names
        else ""
    )
    margin = "none declared, so no verdict can be *equivalent*"
    if plan.margin is not None:
        margin = f"differences within ±{plan.margin:g} do not matter"
    grid = "; ".join(f"`{path}`: {', '.join(map(str, v))}" for path, v in study.grid.items())
    items = [
        f"primary metric: `{primary.metric}`, {statistic}; {primary.better} values are better",
        f"baseline: {plain(found.baseline)}; comparisons are paired by seed",
        f"seeds: {seeds}",
        *([f"grid, at every point of which all arms run: {grid}"] if grid else []),
        f"intervals: t intervals of the mean difference at {100 * plan.confidence:g} %{tests}",
        f"margin: {margin}",
    ]
    decides = {
        "interval": "the interval excludes 0",
        "tests": "the corrected p is below α",
        "exact": "the corrected p is at most α",
    }
    rules = (
        "Verdicts, in this order: with fewer than two pairs there is none; *equivalent* when the "
        "interval at 1 − 2α lies inside the margin (two one-sided tests; α/m for m comparisons "
        "when tests are corrected); *better* or *worse* when "
        f"{decides[plan.kind]}; "
        "else *undecided*: the data leave it open. Runs that diverge are counted and named, not "
        "paired."
    )
    return [
        Paragraph("Declared in the manifest, which was frozen before the first run:"),
        Bullets(items),
        Paragraph(rules),
    ]


def methods(found: Outcome) -> list[Block]:
    """Arms and architectures side by side, the mathematics that they use, their code."""
    configs = [cell.config for cell in found.manifest.cells]
    blocks: list[Block] = [Heading(3, "Arms"), _changes(found)]
    models = _models(found)
    if models:
        blocks += [Heading(3, "Architectures"), _architecture(models), *_shapes(models)]
    blocks += theory_of(configs)
    if excerpts := _code(models, configs):
        blocks += [Heading(3, "Code"), *excerpts]
    return blocks


def _changes(found: Outcome) -> Table:
    rows = []
    for cell in found.manifest.cells:
        changes = "; ".join(f"`{path}`: {plain(v)}" for path, v in _flat(cell.changes).items())
        told = changes or "nothing: the recipe as it is"
        rows.append([plain(cell.arm), *([plain(cell.point)] if cell.point else []), told])
    head = ["arm", *(["point"] if len(rows[0]) > 2 else []), "what it changes in the recipe"]
    return Table("What each arm changes; all else is shared.", head, rows, numbers=False)


def _flat(changes: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in changes.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _models(found: Outcome) -> dict[str, dict[str, Any]]:
    """model.json of one run of each arm, those of equal architecture under one heading."""
    alike: list[tuple[list[str], dict[str, Any]]] = []
    for arm in found.arms:
        model = next((m for run in found.of(arm) if (m := _model(run))), None)
        if model is None:
            continue
        names = next((names for names, known in alike if _equal(known, model)), None)
        if names is None:
            alike.append(([arm], model))
        else:
            names.append(arm)
    return {", ".join(names): model for names, model in alike}


def _model(run: RunOutcome) -> dict[str, Any] | None:
    try:
        return read_json(run.run_dir / "model.json")
    except RecordError:
        return None


def _equal(one: Mapping[str, Any], two: Mapping[str, Any]) -> bool:
    return all(one.get(key) == two.get(key) for key in ("modules", "tensors", "parameters"))


def _architecture(models: Mapping[str, Mapping[str, Any]]) -> Table:
    def classes(model: Mapping[str, Any]) -> str:
        modules = (model.get("modules") or {}).values()
        own = [name.split(":")[-1] for name in modules if not str(name).startswith("torch.")]
        return ", ".join(f"{own.count(name)} × `{name}`" for name in dict.fromkeys(own)) or "–"

    rows = [
        ["model", *(f"`{str(m.get('class', '–')).split(':')[-1]}`" for m in models.values())],
        ["parameters", *(f"{m['parameters']:,}" for m in models.values())],
        ["its modules", *(classes(m) for m in models.values())],
    ]
    caption = "From model.json of one run of each arm; torch's own modules are left out."
    return Table(caption, ["", *(plain(name) for name in models)], rows, numbers=False)


def _shapes(models: Mapping[str, Mapping[str, Any]]) -> list[Block]:
    """Parameters by layer; layers that differ by their number only are counted together."""
    grouped = [_groups(model) for model in models.values()]
    names = list(dict.fromkeys(name for groups in grouped for name in groups))
    if not names:
        return []
    rows = [[f"`{n}`", *(groups.get(n, "–") for groups in grouped)] for n in names[:_MOST_ROWS]]
    if len(names) > _MOST_ROWS:
        rows.append([f"and {len(names) - _MOST_ROWS} more", *("…" for _ in models)])
    caption = "Shapes of all parameters; `*` stands for the numbers of layers, × for how many."
    return [Table(caption, ["parameter", *(plain(name) for name in models)], rows)]


def _groups(model: Mapping[str, Any]) -> dict[str, str]:
    groups: dict[str, list[str]] = {}
    for name, tensor in (model.get("tensors") or {}).items():
        shape = " × ".join(map(str, tensor.get("shape") or [1]))
        groups.setdefault(re.sub(r"(?<=\.)\d+(?=\.)|^\d+(?=\.)", "*", name), []).append(shape)
    return {
        name: (f"{len(shapes)} × " if len(shapes) > 1 else "")
        + " | ".join(f"({shape})" for shape in dict.fromkeys(shapes))
        for name, shapes in groups.items()
    }


def _code(
    models: Mapping[str, Mapping[str, Any]], configs: Sequence[Mapping[str, Any]]
) -> list[Block]:
    """Source of the classes that not all arms have in common, and whether it is still the same."""
    sources = [model.get("sources") or {} for model in models.values()]
    common = set.intersection(*(set(one) for one in sources)) if len(sources) > 1 else set()
    hashes: dict[str, str | None] = {name: sha for one in sources for name, sha in one.items()}
    for (path, kind), symbols in _BESIDES_MODELS.items():
        if uses(configs, {path: kind}):
            hashes |= dict.fromkeys(symbols)
    blocks: list[Block] = []
    for symbol, sha in sorted(hashes.items()):
        if symbol in common or symbol.startswith("torch."):
            continue
        found = excerpt(symbol)
        if found is None:
            blocks.append(Paragraph(f"`{symbol}`: its source is not where this report is made."))
        else:
            blocks += _excerpt(found, sha)
    if blocks:
        told = "Classes that not all arms share, as they stand in the installed package."
        blocks.insert(0, Paragraph(told))
    return blocks


def _excerpt(found: Excerpt, recorded: str | None) -> list[Block]:
    where = f"{found.symbol.split(':')[-1]} ({found.file}, line {found.line})"
    block = Code(found.code, "python", summary=where)
    if recorded == found.sha256:
        return [block]
    name = found.symbol.split(":")[-1]
    told = f"**The code of `{name}` has changed since the runs**; what is shown is the newer one."
    if recorded is None:
        told = (
            f"`{name}` is no part of a model, so its hash was not recorded; the commit below was."
        )
    return [Paragraph(told), block]


def repeat(found: Outcome) -> list[Block]:
    """Commands, the machine and versions, and how to go further."""
    name = found.manifest.name
    commands = (
        f"cupel study run {name}       # goes on where it stopped; finished runs stay\n"
        f"cupel study compare {name}\n"
        f"cupel report {name}\n"
        f"cupel runs show {found.runs[0].run.run_id}\n"
    )
    return [
        Code(commands, "console"),
        *_environment(found),
        Paragraph(
            "To extend it: another arm is a few lines under `study.arms` of the recipe; a model, "
            "objective or optimizer of your own is named as `package.module:Object`; "
            "`docs/workloads.md` and `docs/monitors.md` say what each must offer, and "
            "`cupel.testing` tests that it does."
        ),
    ]


def _environment(found: Outcome) -> list[Block]:
    for run in found.runs:
        sessions = RunRecord(run.run_dir).sessions if run.run_dir.exists() else []
        try:
            facts = sessions[0].environment
        except (IndexError, RecordError):
            continue
        git = facts.get("git") or {}
        dirty = ", with uncommitted changes" if git.get("dirty") else ""
        cpu = facts.get("cpu") or {}
        items = [
            f"code: {git.get('commit') or 'no git commit recorded'}{dirty}",
            f"Python {facts.get('python', '–')}, torch {facts.get('torch', 'not recorded')}",
            f"machine: {cpu.get('model') or '–'}, {cpu.get('count', '–')} CPUs, "
            f"{facts.get('platform', '–')}",
        ]
        return [Paragraph("The first run was made with:"), Bullets([plain(i) for i in items])]
    return []


def references(found: Outcome) -> list[Block]:
    """Only what this report rests on."""
    configs = [cell.config for cell in found.manifest.cells]
    models = {str((config.get("model") or {}).get("kind")) for config in configs}
    kinds = {str(((c.get("train") or {}).get("optimizer") or {}).get("kind")) for c in configs}
    items = [
        "Student (1908). The probable error of a mean. *Biometrika* 6(1), 1–25.",
        "Schuirmann, D. J. (1987). A comparison of the two one-sided tests procedure and the power "
        "approach for assessing the equivalence of average bioavailability. *Journal of "
        "Pharmacokinetics and Biopharmaceutics* 15, 657–680.",
    ]
    if found.manifest.study.compare.correction == "holm":
        items.append(
            "Holm, S. (1979). A simple sequentially rejective multiple test procedure. "
            "*Scandinavian Journal of Statistics* 6(2), 65–70."
        )
    if kinds & {"adamw", "rgd"}:
        items.append(
            "Loshchilov, I., Hutter, F. (2019). Decoupled weight decay regularization. ICLR. "
            "arXiv:1711.05101."
        )
    if models & {"gpt", "wave"}:
        items.append(
            "Radford, A., Wu, J., Child, R., Luan, D., Amodei, D., Sutskever, I. (2019). Language "
            "models are unsupervised multitask learners. OpenAI."
        )
    if uses(configs, {"model.kind": "wave", "model.attention": "pure"}):
        items.append(
            "Katharopoulos, A., Vyas, A., Pappas, N., Fleuret, F. (2020). Transformers are RNNs: "
            "fast autoregressive transformers with linear attention. ICML. arXiv:2006.16236."
        )
    return [Bullets(items)]
