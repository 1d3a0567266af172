"""What runs leave fits docs/record-format.schema.json, and nothing in it is undocumented."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from cupel.cli.worker import write_failure
from cupel.jobs.attempts import Attempt, write_attempt
from cupel.jobs.leases import end_unbegun
from cupel.record import checkpoints, layout
from cupel.record.claims import claim_session
from cupel.record.reader import list_runs
from cupel.record.session import Session

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests/golden/record-v1"
FULL = ROOT / "tests/golden/record-v1-full"
PAGE = ROOT / "docs/record-format.md"
SCHEMA = json.loads((ROOT / "docs/record-format.schema.json").read_text(encoding="utf-8"))
KINDS = SCHEMA["$defs"]

# Where each kind of file lies in a run's folder; `.jsonl` holds one document a line.
PLACES = {
    "run.json": "run",
    "config.json": "config",
    "results.json": "results",
    "sessions/*/session.json": "session",
    "sessions/*/env.json": "environment",
    "sessions/*/heartbeat.r*": "heartbeat",
    "sessions/*/lease.json": "lease",
    "sessions/*/attempt.json": "attempt",
    "sessions/*/failure.json": "failure",
    "sessions/*/metrics.r*.jsonl": "metrics_line",
    "sessions/*/events.r*.jsonl": "event_line",
    "sessions/*/system.r*.jsonl": "system_line",
    "checkpoints/latest.json": "latest",
    "checkpoints/best-*.json": "best",
    "checkpoints/pin.json": "pin",
    "checkpoints/step-*/manifest.json": "manifest",
    "checkpoints/step-*/state.json": "state",
    "artifacts/*/v*/manifest.json": "artifact",
}
OF_A_QUEUE = {"lease", "attempt", "failure"}
# Told by the page in words; the schema has no say in them.
OTHERS = re.compile(
    r"model\.json|tokenizer\.json"
    r"|sessions/\d+/(adopted|dirty\.patch|training\.log|console(\.r\d+)?(\.\d{3,})?\.log)"
    r"|checkpoints/step-\d{9,}/[^/]+\.safetensors|media/.+|artifacts/[^/]+/v\d+/files/.+"
    r"|figures/[^/]+"
)
# Keys are names that people choose.
FREE = {"metrics_line", "system_line", "state", "environment"}
# This one was written by hand before there were checkpoints to keep.
NO_MANIFEST = "checkpoints/step-000000002/manifest.json"
# A line of it is damaged on purpose.
DAMAGED = "sessions/0001/metrics.r0.000.jsonl"


def check(kind: str, document: Any) -> None:
    """Raise jsonschema's ValidationError unless a document is of a kind."""
    whole = {**SCHEMA, "$ref": f"#/$defs/{kind}"}
    jsonschema.Draft202012Validator(whole).validate(document)


def documents(path: Path) -> Iterator[Any]:
    content = path.read_bytes()
    if path.suffix == ".jsonl":
        *whole, _ = content.split(b"\n")
        yield from (json.loads(line) for line in whole if line)
    else:
        yield json.loads(content)


def check_run(run_dir: Path, *, leaving: frozenset[str] = frozenset()) -> set[str]:
    """Validate every JSON file of a run; the kinds there were."""
    kinds = set()
    for place, kind in PLACES.items():
        for path in run_dir.glob(place):
            if path.relative_to(run_dir).as_posix() in leaving:
                continue
            for document in documents(path):
                check(kind, document)
                kinds.add(kind)
    return kinds


def check_nothing_is_new(run_dir: Path) -> None:
    """Every file is of a known kind, and every key of it is in the schema."""
    for path in run_dir.rglob("*"):
        inner = path.relative_to(run_dir)
        kind = next((kind for place, kind in PLACES.items() if inner.match(place)), None)
        if path.is_dir() or (kind is None and OTHERS.fullmatch(inner.as_posix())):
            continue
        assert kind is not None, f"{inner} is not in docs/record-format.md"
        if kind in FREE:
            continue
        for document in documents(path):
            known = properties(kind)
            if kind == "event_line":
                event = document["_event"]
                if event in ("described", "media", "artifact"):
                    continue  # and whatever else it says about the thing
                known |= {key for name, keys in events() if event == name for key in keys}
            assert document.keys() <= known, f"{inner}: {sorted(document.keys() - known)}"


def properties(kind: str) -> set[str]:
    known = set(KINDS[kind].get("properties", ()))
    for base in (*KINDS[kind].get("allOf", ()), *KINDS[kind].get("anyOf", ())):
        if "$ref" in base:
            known |= properties(base["$ref"].removeprefix("#/$defs/"))
    return known


def events() -> Iterator[tuple[str, set[str]]]:
    """Every event of the schema, with its fields."""
    for rule in KINDS["event_line"]["allOf"]:
        named: Mapping[str, Any] = rule["if"]["properties"]["_event"]
        then = rule["then"]
        for name in named.get("enum", [named.get("const")]):
            yield name, {*then.get("required", ()), *then.get("properties", ())}


def test_the_schema_is_one() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_the_golden_record_fits() -> None:
    kinds = check_run(GOLDEN, leaving=frozenset({NO_MANIFEST}))
    assert kinds >= {"run", "config", "results", "session", "heartbeat", "metrics_line", "latest"}


def test_the_full_golden_record_fits() -> None:
    kinds = check_run(FULL, leaving=frozenset({DAMAGED}))
    assert kinds == set(PLACES.values()) - {"best"} - OF_A_QUEUE
    check_nothing_is_new(FULL)


EVERYTHING = """
import sys, cupel
settings = {"console": True, "system_every": 0.05, "ranks": "all"}
for attempt in (1, 2):
    run = cupel.init("p", "everything", {"lr": 0.1, "top": float("inf")}, tags=["a"], notes="b",
                     group="g", job_type="j", resume="auto", settings=settings)
    run.define_metric("val/*", summary="best", goal="min")
    print("shown")
    for step in range(4):
        run.log({"loss": float("nan"), "val/loss": 1 / (step + 1), "few": [1, 2.5], "on": True,
                 "big": 2**63}, step=step)
    run.log({"loss": 0.0}, step=1)
    run.log({"wrong": object()}, step=5)
    run.log_text("a key/with things", "text", step=2)
    run.log_histogram("h", [1.0, 2.0], step=2)
    run.log_artifact(sys.argv[0], name="the script")
    run.config.late = 3
    run.summary["best"] = 1
    run.alert("title", "text")
    import time; time.sleep(0.3)
    run.finish("interrupted" if attempt == 1 else "finished")
"""


@pytest.mark.slow
def test_a_run_with_everything_on_fits(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(EVERYTHING)
    command = [sys.executable, "script.py"]
    variables = {"CUPEL_ROOT": "runs", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    done = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (run,) = list_runs(tmp_path / "runs")
    kinds = check_run(run.run_dir)
    checkpointed = {"latest", "best", "pin", "manifest", "state"}
    assert kinds == set(PLACES.values()) - checkpointed - OF_A_QUEUE
    check_nothing_is_new(run.run_dir)
    told = {event["_event"] for event in run.events()}
    assert told >= {"begin", "summary", "config", "media", "artifact", "alert", "define_metric"}
    assert told >= {"steps_went_back", "problem", "finish"}


def test_a_further_rank_and_a_living_session_fit(tmp_path: Path) -> None:
    zero = Session.start(root=tmp_path, project="p", name="n", config={}, identity="i")
    one = Session.join(zero.run_dir, 1, 1, system_every=0.05, console=True)
    one.log({"loss": 1.0}, step=1)
    one.note("a note")
    one.describe(threads=3)
    check_run(zero.run_dir)
    one.finish("finished")
    zero.finish("failed", error="why")
    check_run(zero.run_dir)
    check_nothing_is_new(zero.run_dir)


def test_a_queued_run_fits(tmp_path: Path) -> None:
    """Its first session was claimed and refused, its second one trained."""
    run_dir = tmp_path / "p" / "r"
    lease = {"worker": "w", "lease_s": 60.0, "changes": {"train.accumulate": 2}, "priority": 100}
    first = claim_session(run_dir, 1, lease)
    write_failure(first, ValueError("no such corpus"))
    end_unbegun(run_dir, 1, status="failed", error="no such corpus", started=1.0)
    write_attempt(run_dir, Attempt(1, "configuration", "no such corpus", code=2))
    second = claim_session(run_dir, 2, lease)
    session = Session.start(
        root=tmp_path, project="p", name="n", config={}, identity="i", run_id="r", claim=second
    )
    session.event("deviation", changes=lease["changes"])
    session.log({"loss": 1.0}, step=1)
    session.finish("finished", results={"step": 1, "final": {"val_loss": 1.0}})
    write_attempt(run_dir, Attempt(2, "finished", begun=True, last_step=1, cpu_s=1.5, code=0))
    assert check_run(run_dir) >= OF_A_QUEUE | {"session", "results"}
    check_nothing_is_new(run_dir)


@pytest.mark.slow
def test_a_recipes_run_fits(tmp_path: Path) -> None:
    words = (
        "gpt-tiny train.steps=20 train.evaluate_every=10 data.max_bytes=300000 data.val_batches=2 "
        "model.width=32 checkpoint.every=7 --root runs"
    )
    command = [str(Path(sys.executable).with_name("cupel")), "run", *words.split()]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (run,) = list_runs(tmp_path / "runs")
    checkpoints.pin(run.run_dir, run.checkpoints()[-1])
    assert check_run(run.run_dir) >= {"latest", "best", "pin", "manifest", "state", "results"}
    check_nothing_is_new(run.run_dir)


@pytest.mark.parametrize(
    ("kind", "document"),
    [
        ("run", {"schema": 2}),
        ("metrics_line", {"loss": 1.0}),
        ("metrics_line", {"_step": 1, "loss": "nan"}),
        ("metrics_line", {"_step": 1, "loss": None}),
        ("event_line", {"_event": "finish", "_t": 1.0}),
        ("heartbeat", {"schema": 1, "pid": "1"}),
        ("session", {"schema": 1, "number": 1, "status": "crashed"}),
        ("manifest", {"schema": 1, "step": 2, "files": []}),
    ],
)
def test_what_does_not_fit_is_refused(kind: str, document: Any) -> None:
    with pytest.raises(jsonschema.ValidationError):
        check(kind, document)


def test_every_event_of_the_code_is_told() -> None:
    source = "".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    named = set(re.findall(r"\.event\(\s*\"(\w+)\"", source))
    assert len(named) > 15
    assert named <= {name for name, _ in events()}
    page = PAGE.read_text(encoding="utf-8")
    page = page[page.index("### `events") : page.index("### `system")]
    for name, fields in events():
        (row,) = re.findall(rf"^\| `{name}` \|.*$", page, re.MULTILINE) or [""]
        assert row, f"the page does not tell of the event {name}"
        for field in fields:
            assert f"`{field}`" in row, f"the page's event {name} lacks {field}"


def test_the_page_names_every_file_and_field_of_the_schema() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for kind in set(PLACES.values()) | {"study"}:
        for key in properties(kind) - {"schema"}:
            assert f"`{key}`" in page, f"{kind}: the page does not tell of {key}"
    for name in (layout.RUN, layout.CONFIG, layout.RESULTS, layout.SESSION, layout.ENVIRONMENT):
        assert f"`{name}`" in page


def test_a_study_fits(tmp_path: Path) -> None:
    from cupel.studies.manifest import freeze
    from cupel.studies.spec import plan_study

    recipe = tmp_path / "sine.yaml"
    recipe.write_text(
        "workload: fakes:Regression\ntrain: {steps: 40}\nstudy: {question: Which?, arms: {a: {}}}\n"
    )
    frozen = freeze(plan_study(recipe, (), root=tmp_path / "runs"))
    (document,) = documents(frozen.folder / "manifest.json")
    check("study", document)
    assert document.keys() <= properties("study")


def test_the_hash_of_a_part_is_what_the_page_says(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from cupel.checkpoint import folder

    weights = torch.arange(6.0).reshape(2, 3)
    part = {"w": weights, "tied": weights, "b": torch.ones(2, dtype=torch.bool), "n": 2**70}
    state = {"part": {**part, "none": (None, float("-inf"), b"x", 0.5)}}
    folder.write(tmp_path / "c", 1, folder.packed(state), metrics={}, about={})
    (manifest,) = documents(tmp_path / "c/manifest.json")
    (structure,) = documents(tmp_path / "c/state.json")
    check("manifest", manifest)
    check("state", structure)

    content = (tmp_path / "c/part.safetensors").read_bytes()
    length = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    dtypes = {"F32": "torch.float32", "BOOL": "torch.bool"}

    def canonical(node: Any) -> Any:
        if isinstance(node, list):
            return [canonical(one) for one in node]
        if not isinstance(node, dict):
            return node
        if "dict" in node:
            pairs = sorted(node["dict"], key=lambda pair: json.dumps(pair[0]))
            return {"dict": [[key, canonical(value)] for key, value in pairs]}
        if "tuple" in node:
            return {"tuple": canonical(node["tuple"])}
        if "tensor" not in node:
            return node
        about = header[node["tensor"]]
        digest = sha256(data[slice(*about["data_offsets"])]).hexdigest()
        return {"tensor": [dtypes[about["dtype"]], about["shape"], digest]}

    told = json.dumps(canonical(structure["parts"]["part"]))
    assert manifest["parts"] == {"part": sha256(told.encode()).hexdigest()}
