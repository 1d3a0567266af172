"""`cupel.init`: one run at a time, resumed when asked, refused in one line when it cannot be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cupel
from cupel.api import current
from cupel.errors import RecordError, ResumeError, UnknownName, UsageError
from cupel.record import layout
from cupel.record.reader import RunRecord, list_runs

Init = Callable[..., cupel.Run]

NESTED: list[Any] = []
for _ in range(10_000):
    NESTED = [NESTED]


def stopped(init: Init, **changes: Any) -> cupel.Run:
    """A run that can be resumed."""
    run = init(**changes)
    run.log({"loss": 1.0})
    run.finish("interrupted")
    return run


def test_a_run_leaves_its_files(init: Init, root: Path) -> None:
    with init(tags=["a", "b"], notes="why", config={"lr": 0.1, "betas": (0.9, 0.99)}) as run:
        run.log({"loss": 0.5})
    assert run.dir.parent == root / "p"
    assert (run.dir.name, run.project, run.name) == (run.id, "p", "n")
    names = {path.name for path in run.dir.iterdir()}
    assert names == {"run.json", "config.json", "results.json", "sessions"}
    record = RunRecord(run.dir)
    assert record.config == run.config == {"lr": 0.1, "betas": [0.9, 0.99]}
    assert (record.run["tags"], record.run["notes"]) == (["a", "b"], "why")
    assert record.status == "finished"


def test_the_record_goes_where_it_is_told(init: Init, tmp_path: Path) -> None:
    with init(root=tmp_path / "elsewhere") as run:
        pass
    assert run.dir.parent == tmp_path / "elsewhere" / "p"


def test_a_second_init_without_finish_is_one_clear_line(init: Init) -> None:
    run = init()
    with pytest.raises(UsageError, match=rf"run {run.id} is still open .*call cupel.finish\(\)"):
        init()
    cupel.finish()
    cupel.finish()
    with init() as second:
        assert second.id != run.id


def test_without_a_run_there_is_nothing_to_log_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(current, "_current", None)
    with pytest.raises(UsageError, match=r"cupel.log\(\) needs a run; call cupel.init\(\) first"):
        cupel.log({"loss": 1.0})
    for call in (cupel.define_metric, cupel.log_artifact, cupel.watch, cupel.alert, cupel.save):
        with pytest.raises(UsageError, match=r"\(\) needs a run; call cupel.init\(\) first"):
            call("x")
    cupel.finish()  # as in wandb: without a run there is nothing to end
    assert cupel.run is None
    with pytest.raises(AttributeError, match=r"cupel.config needs a run"):
        _ = cupel.config
    assert not hasattr(cupel, "summary")


@pytest.mark.parametrize(
    "wrong,told",
    [
        ({"config": 3}, "config must be a dict or a namespace, not an int; type config="),
        ({"config": [1, 2]}, "config must be a dict or a namespace, not a list; type config="),
        ({"tags": "night"}, r"tags must be a list of texts; type tags=\['night'\]"),
        ({"config": {"seed": 2**70}}, "config.json cannot be written: 1180591620717411303424"),
        ({"config": {"x": NESTED}}, "config must be plain data .*recursion"),
        ({"tags": [object()]}, r"tags must be a list of texts, as \['night'\]"),
        ({"tags": 5}, r"tags must be a list of texts, as \['night'\]"),
        ({"notes": object()}, "notes must be text, not object"),
        ({"project": "../x"}, "'../x' cannot be the name of a project"),
        ({"project": 5}, "project must be text, not int"),
        ({"group": 5}, "group must be text, not int"),
        ({"id": 5}, "id must be text, not int"),
        ({"id": "a/b"}, "'a/b' cannot be the name of a run"),
        ({"mode": "onlin"}, "mode is 'onlin'; it must be online, offline"),
        ({"settings": "fast"}, "settings must be a dict, as .* not str"),
        ({"settings": {"durability": "fsync"}}, "durability is 'fsync'; it must be one of process"),
        ({"settings": {"system_every": -1}}, "system_every is -1; it must be seconds, 0 for off"),
        ({"settings": {"strict": 1}}, "strict is 1; it must be True or False"),
        ({"resume": "must"}, 'resume="must" needs the id of the run; type id='),
        ({"resume": "must", "id": "gone"}, "there is no run gone in .* to resume"),
        ({"resume_from": "a?_step=3"}, "resume_from=…. cannot be served"),
        ({"entiti": "me"}, r"init\(\) has no argument 'entiti'; did you mean 'entity'"),
        ({"name": 5}, "name must be text, not int"),
        ({"resume": 5}, "resume must be text, not int"),
        ({"root": 5}, "root must be a path, not int"),
        ({"root": "\0"}, "root is '.x00'; no path holds the character"),
        ({"reinit": "bogus"}, "reinit is 'bogus'; it must be True, 'finish_previous'"),
        ({"reinit": []}, "reinit is \\[\\]; it must be True, 'finish_previous'"),
    ],
)
def test_arguments_that_cannot_be_used_are_refused_before_anything_is_written(
    init: Init, root: Path, wrong: dict[str, Any], told: str
) -> None:
    with pytest.raises(UsageError, match=told) as raised:
        init(**wrong)
    assert len(str(raised.value).splitlines()) == 1
    assert not root.exists()


@pytest.mark.slow
def test_never_starts_a_new_run_and_auto_goes_on_with_the_unfinished_one(init: Init) -> None:
    first = stopped(init)
    with init(resume="never") as second:
        assert second.id != first.id
    with init(resume="auto") as resumed:
        assert resumed.id == first.id
        assert len(RunRecord(first.dir).sessions) == 2
    with init(resume="auto") as third:
        assert third.id not in (first.id, second.id)


@pytest.mark.parametrize("other", [{"name": "m"}, {"config": {"lr": 0.2}}, {"project": "q"}])
def test_auto_leaves_runs_with_another_project_name_or_config_alone(
    init: Init, other: dict[str, Any]
) -> None:
    first = stopped(init)
    with init(resume="auto", **other) as second:
        assert second.id != first.id


@pytest.mark.slow
def test_auto_does_not_start_beside_a_run_that_is_alive(
    init: Init, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = init()
    current._current = None  # as another process would see it
    monkeypatch.delenv("CUPEL_RUN_ID")
    with pytest.raises(ResumeError, match=rf"run {run.id}, .* is running now"):
        init(resume="auto")
    with pytest.raises(ResumeError, match=r"is running: pid \d+ on "):
        init(resume=run.id)
    assert len(list_runs(root)) == 1
    run.finish("interrupted")


@pytest.mark.slow
def test_an_id_goes_on_with_that_run(init: Init) -> None:
    older, newer = stopped(init), stopped(init)
    for run in (older, newer):
        with init(resume=run.id) as resumed:
            assert resumed.id == run.id


@pytest.mark.parametrize(
    "other,told",
    [
        ({"config": {"lr": 0.2, "new": True}}, "config.lr: 0.1 -> 0.2; config.new: absent -> true"),
        ({"name": "m"}, "name: n -> m"),
        ({"project": "q"}, "project: p -> q"),
    ],
)
def test_an_id_with_other_settings_is_refused_and_the_changes_named(
    init: Init, other: dict[str, Any], told: str
) -> None:
    run = stopped(init)
    with pytest.raises(ResumeError) as raised:
        init(resume=run.id, **other)
    assert f"was started with other settings ({told}); give it the same" in str(raised.value)
    assert len(RunRecord(run.dir).sessions) == 1


def test_runs_that_cannot_be_resumed_are_refused_in_one_line(init: Init) -> None:
    with init() as finished:
        pass
    with pytest.raises(ResumeError, match="is finished and its results are accepted"):
        init(resume=finished.id)
    with pytest.raises(UnknownName, match="no run is called 'absent'"):
        init(resume="absent")
    damaged = stopped(init)
    (damaged.dir / "run.json").write_text("{")
    with pytest.raises(RecordError, match=r"run.json is damaged"):
        init(resume=damaged.id)


@pytest.mark.slow
def test_the_variable_overrules_the_argument(init: Init, monkeypatch: pytest.MonkeyPatch) -> None:
    first = stopped(init)
    monkeypatch.setenv("CUPEL_RESUME", "auto")
    with init(resume="never") as resumed:
        assert resumed.id == first.id
    second = stopped(init)
    monkeypatch.setenv("CUPEL_RESUME", "never")
    with init(resume=second.id) as new:
        assert new.id != second.id
    monkeypatch.setenv("CUPEL_RESUME", "")
    with init(resume="auto") as resumed:
        assert resumed.id == second.id


def test_a_session_without_checkpoints_begins_where_its_first_line_says(init: Init) -> None:
    """A script with checkpoints of its own says by its first step what of the past still counts."""
    run = init()
    for step in (1, 2, 3):
        run.log({"loss": -step}, step=step)
    run.finish("interrupted")
    with init(resume="auto") as resumed:
        resumed.log({"loss": 20}, step=2)
    record = RunRecord(run.dir)
    assert [(row["_step"], row["loss"]) for row in record.history()] == [(1, -1), (2, 20)]
    assert record.sessions[1].start_step == 1


def test_a_session_that_was_overtaken_before_its_first_line_goes_on_and_voids_nothing(
    init: Init,
) -> None:
    run = init()
    for step in (1, 2, 3):
        run.log({"loss": -step}, step=step)
    run.finish("interrupted")
    with init(resume="auto") as resumed:
        layout.session_dir(run.dir, 3).mkdir()  # somebody thinks that it has died
        resumed.log({"loss": 20}, step=2)
    record = RunRecord(run.dir)
    assert [row["_step"] for row in record.history()] == [1, 2, 3]
    assert record.sessions[1].start_step is None
    told = (record.sessions[1].dir / layout.TRAINING_LOG).read_text()
    assert "has a successor" in told
    assert "the lines of the newer one count" in told


@pytest.mark.slow
def test_the_name_is_by_default_the_scripts(script: Callable[..., Any], root: Path) -> None:
    done = script("import cupel\nprint(cupel.init(config={'b': 1, 'a': 2}).name)")
    assert (done.returncode, done.stdout.strip()) == (0, "my_script")
    (run,) = list_runs(root)
    assert json.loads((run.run_dir / "config.json").read_text())["config"] == {"b": 1, "a": 2}
