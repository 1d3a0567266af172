"""The files of a frozen study: hashed, readable, small enough for 100,000 runs, and old ones."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from cupel.errors import RecordError
from cupel.studies.manifest import MANIFEST, Cell, Manifest, PlannedRun, freeze, load_manifest
from cupel.studies.planned import StoredConfig, compact
from cupel.studies.settings import StudySettings
from cupel.studies.stored import known
from plans import Plans

STUDY = "seeds: [1, 2]\ngrid: {train.optimizer.lr: [0.1, 0.2]}\ntag_by: [lr]\npriority: 7\n"


@pytest.fixture
def plan(tmp_path: Path) -> Plans:
    return Plans(tmp_path)


def document(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
    return found


# ---- what is written ---------------------------------------------------------------------------


def test_every_cell_and_every_run_stands_on_a_line(plan: Plans) -> None:
    folder = freeze(plan(STUDY)).folder
    lines = (folder / MANIFEST).read_text().splitlines()
    assert len([line for line in lines if '"config":' in line]) == 4
    assert len([line for line in lines if '"run_id":' in line]) == 8


def test_what_is_as_usual_is_not_written_and_what_is_not_is_read_back(plan: Plans) -> None:
    plain = document(freeze(plan("", "name=usual")).folder)["runs"][0]
    assert plain.keys() == {"run_id", "arm", "point", "seed", "identity", "cell"}
    folds = "folds: {count: 2, setting: train.schedule.warmup, total: null}"
    frozen = freeze(plan(STUDY + folds))
    run = document(frozen.folder)["runs"][1]
    assert (run["priority"], run["tags"], run["fold"]) == (7, ["lr=0.1"], 1)
    assert load_manifest(frozen.folder).runs == frozen.runs


def test_a_run_is_taken_for_a_dataclass(plan: Plans) -> None:
    run = plan(STUDY).runs[0]
    assert PlannedRun(**asdict(run)) == run
    assert replace(run, seed=9).seed == 9
    assert json.dumps(asdict(run))


def test_a_cells_settings_are_a_mapping_like_any(plan: Plans) -> None:
    cell = load_manifest(freeze(plan(STUDY)).folder).cells[0]
    plain = json.loads(cell.stored)
    assert dict(cell.config) == {**cell.config} == plain
    assert cell.config == plain
    assert cell.config == StoredConfig(compact(plain))
    assert cell.config != {**plain, "seed": 99}
    assert len(cell.config) == len(plain)
    assert cell.config["train"]["steps"] == 40
    assert "nothing" not in cell.config
    assert json.dumps(asdict(cell)["config"]) == json.dumps(plain)


# ---- the hash ----------------------------------------------------------------------------------


def test_the_hash_is_that_of_the_plan_and_is_stored(plan: Plans) -> None:
    planned = plan(STUDY)
    frozen = freeze(planned)
    loaded = load_manifest(frozen.folder)
    assert document(frozen.folder)["hash"] == planned.hash == frozen.hash == loaded.hash
    assert len(planned.hash) == 64


def test_the_hash_is_what_the_page_on_the_format_says(plan: Plans) -> None:
    folder = freeze(plan(STUDY)).folder
    found, lines = document(folder), (folder / MANIFEST).read_text().splitlines()
    configs = [
        line.rstrip(",").removesuffix("}").partition('"config":')[2]
        for line in lines
        if '"config":' in line
    ]
    decides = {name: found["study"][name] for name in ("question", "seeds", "primary", "compare")}
    text = f"manifest 1\n\n{json.dumps(decides, separators=(',', ':'))}\n"
    for cell, config in zip(found["cells"], configs, strict=True):
        named = json.dumps([cell["arm"], cell["point"]], separators=(",", ":"))
        text += f"{named}\n{config}\n"
    for run in found["runs"]:
        text += f"{run['run_id']} {run['seed']} {run['cell']} {run['identity']}\n"
    assert found["hash"] == hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize(
    "override",
    [
        "study.seeds=[1,3]", "study.question=Why?", "study.primary.metric=loss", "train.steps=41",
        "study.compare.margin=0.5", "study.arms.more.batch=3", "figures.every=3", "name=other",
    ],
)  # fmt: skip
def test_what_decides_changes_the_hash(plan: Plans, override: str) -> None:
    assert plan(STUDY, override).hash != plan(STUDY).hash


@pytest.mark.parametrize(
    "override",
    ["study.workers=9", "study.priority=1", "study.tags=[x]", "study.lease_s=9", "study.hung_s=9"],
)
def test_what_decides_nothing_does_not_change_the_hash(plan: Plans, override: str) -> None:
    assert plan(STUDY, override).hash == plan(STUDY).hash


Damage = Callable[[dict[str, Any]], object]


@pytest.mark.parametrize(
    "damage",
    [
        lambda found: found["study"].update(question="Another?"),
        lambda found: found["study"]["compare"].update(margin=0.5),
        lambda found: found["cells"][1]["config"]["train"].update(steps=41),
        lambda found: found["cells"].reverse(),
        lambda found: found["runs"][0].update(run_id="another"),
        lambda found: found["runs"][0].update(seed=2),
        lambda found: found["runs"].pop(),
        lambda found: found.update(hash="0" * 64),
    ],
)
def test_whatever_else_than_the_plan_is_damage(plan: Plans, damage: Damage) -> None:
    folder = freeze(plan(STUDY)).folder
    found = document(folder)
    damage(found)
    (folder / MANIFEST).write_text(json.dumps(found))
    with pytest.raises(RecordError, match=r"manifest.json is damaged"):
        load_manifest(folder)


def test_a_manifest_that_was_laid_out_anew_is_the_same(plan: Plans) -> None:
    frozen = freeze(plan(STUDY))
    (frozen.folder / MANIFEST).write_text(json.dumps(document(frozen.folder), indent=4))
    assert load_manifest(frozen.folder) == frozen
    assert load_manifest(frozen.folder).hash == frozen.hash


def test_every_beginning_of_a_manifest_is_damage(plan: Plans) -> None:
    path = freeze(plan("seeds: [1]")).folder / MANIFEST
    whole = path.read_bytes()
    for size in range(0, len(whole.rstrip()) - 1, 97):
        path.write_bytes(whole[:size])
        with pytest.raises(RecordError, match=r"manifest.json is damaged"):
            load_manifest(path.parent)


# ---- old and new -------------------------------------------------------------------------------


def test_a_manifest_from_before_there_was_a_hash_is_read(plan: Plans) -> None:
    """As it was: indented, runs of six fields, a study without what came since."""
    frozen = freeze(plan("seeds: [1, 2]"))
    found = document(frozen.folder)
    names = ("question", "arms", "seeds", "grid", "primary", "compare", "workers", "threads")
    found["study"] = {name: found["study"][name] for name in names}
    del found["hash"]
    (frozen.folder / MANIFEST).write_text(json.dumps(found, indent=2))
    assert load_manifest(frozen.folder) == frozen
    assert load_manifest(frozen.folder).hash == frozen.hash
    assert freeze(plan("seeds: [1, 2]")) == frozen
    wide = freeze(plan("seeds: [1, 2, 3]"), widen=True)
    assert load_manifest(frozen.folder) == wide


def test_what_a_newer_cupel_says_within_settings_is_passed_over() -> None:
    given = {
        "question": "?", "novel": 1, "arms": {"a": {"novel": 1}},
        "random": {"draws": 1, "space": {"x": [1]}, "novel": 1},
        "priorities": [{"where": "a=1", "add": 1, "novel": 1}],
        "quality": {"loss": {"low": 0, "novel": 1}},
        "ablation": None, "alerts": {"novel": 1},
    }  # fmt: skip
    study = StudySettings.model_validate(known(StudySettings, given))
    assert study.arms == {"a": {"novel": 1}}
    assert study.random is not None
    assert study.random.draws == 1
    assert study.quality["loss"].low == 0


# ---- many --------------------------------------------------------------------------------------

MEASURED = """
import sys, time
from pathlib import Path
from cupel.studies.manifest import load_manifest

def memory():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024

before, began = memory(), time.process_time()
manifest = load_manifest(Path(sys.argv[1]))
print(len(manifest.runs), time.process_time() - began, memory() - before)
"""


@pytest.mark.slow
def test_a_hundred_thousand_runs_are_loaded_in_little_time_and_memory(plan: Plans) -> None:
    small = plan("seeds: [1]")
    config, seeds = small.cells[0].config, range(10)
    cells = tuple(Cell("plain", f"lr={n}", {"lr": n}, config) for n in range(10_000))
    runs = tuple(
        PlannedRun(
            f"sine-plain-lr-{n}-s{s}-0123abcd", "plain", f"lr={n}", s, f"{n:032d}{s:032d}", n
        )
        for s in seeds
        for n in range(10_000)
    )
    many = Manifest(
        small.folder, "sine", "default", "", small.study, cells, runs, created=small.created
    )
    freeze(many)
    code = subprocess.run(
        [sys.executable, "-c", MEASURED, str(many.folder)],
        capture_output=True,
        text=True,
        check=True,
    )
    count, seconds, megabytes = map(float, code.stdout.split())
    assert count == 100_000
    assert seconds < 0.7  # of the processor; measured 0.2 to 0.4
    assert megabytes < 100  # at its highest; measured 85
