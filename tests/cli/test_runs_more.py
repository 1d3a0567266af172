"""Each command of `cupel runs` does what its help says, tells JSON, and refuses in one line."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from cupel.cli.app import obey
from cupel.record import checkpoints, editing, files, layout, manifests
from cupel.record.session import Session

LEARNING_RATES = {"run-a": 0.1, "run-b": 1e-5}


def make(root: Path, run_id: str, **facts: Any) -> Session:
    config = {"train": {"lr": LEARNING_RATES.get(run_id, 1.0), "steps": 3}}
    return Session.start(
        root=root, project="p", name="a", config=config, identity=run_id, run_id=run_id, **facts
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs: one finished, and one failed, whose acc comes to its greatest."""
    root = tmp_path_factory.mktemp("made") / "runs"
    for run_id in LEARNING_RATES:
        session = make(root, run_id, tags=["draft"], notes="first line\nneedle in a note")
        if run_id == "run-b":
            session.define_metric("acc", summary="max")
        printed = session.dir / layout.CONSOLE
        printed.write_text(f"hello\nbar 1%\rbar 99%\nNEEDLE of {run_id}\n")
        for step in (1, 2, 3):
            session.log({"val_loss": 4.0 - step, "acc": 1.0 / step}, step=step)
        results = {"step": 3, "final": {"val_loss": 1.0}}
        session.finish("finished" if run_id == "run-a" else "failed", results=results)
    return root


@pytest.fixture
def root(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    import shutil

    monkeypatch.chdir(tmp_path)
    root = tmp_path / "runs"
    shutil.copytree(made, root)
    monkeypatch.setenv("CUPEL_ROOT", str(root))
    return root


Typed = tuple[int, str, str]


@pytest.fixture
def type_(root: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    def typed(*arguments: str) -> Typed:
        capsys.readouterr()
        code = obey(["runs", *arguments])
        out, err = capsys.readouterr()
        return code, out, err

    return typed


def told(type_: Any, *arguments: str) -> Any:
    code, out, _ = type_(*arguments, "--json")
    assert code == 0
    return json.loads(out)


def refused(type_: Any, *arguments: str) -> str:
    code, out, err = type_(*arguments)
    assert (code, out) == (2, "")
    (line,) = err.splitlines()
    return str(line)


@pytest.mark.slow
def test_ls_looks_at_each_run_once(type_: Any, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told(type_, "ls")
    looked_at, stat = [], os.stat

    def heard(path: Any, *arguments: Any, **options: Any) -> os.stat_result:
        looked_at.append(str(path))
        return stat(path, *arguments, **options)

    monkeypatch.setattr(os, "stat", heard)
    assert len(told(type_, "ls", "acc>0", "--sort", "acc")) == 2
    asked = sorted(path for path in looked_at if path.endswith(layout.RUN))
    assert asked == [str(root / "p" / run / layout.RUN) for run in LEARNING_RATES]


@pytest.mark.parametrize("kind", ["folder", "pipe"])
@pytest.mark.parametrize("name", [layout.metrics_name(), layout.events_name(), layout.CONSOLE])
@pytest.mark.slow
def test_what_is_no_file_costs_nobody_else_its_row_and_is_told_by_verify(
    type_: Any, root: Path, name: str, kind: str
) -> None:
    """A folder ended every listing in a traceback, and a pipe made it wait for ever."""
    path = root / "p" / "run-a" / "sessions" / "0001" / name
    path.unlink()
    if kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    assert [row["run"] for row in told(type_, "ls")] == ["run-b", "run-a"]
    for arguments in (["show", "run-a"], ["tail", "run-a"], ["tail", "run-a", "--console"],
                      ["grep", "xyz"]):  # fmt: skip
        assert type_(*arguments)[0] in (0, 1), arguments
    code, _, err = type_("export", "run-a", "a.csv")  # all of the metrics, or nothing
    assert (code, len(err.splitlines())) == ((2, 1) if name == layout.metrics_name() else (0, 0))
    code, out, err = type_("verify", "run-a")
    assert (code, name in out + err) == ((0, False) if name == layout.CONSOLE else (1, True))


@pytest.mark.slow
def test_ls_filters_sorts_limits_and_shows_the_columns_asked_for(type_: Any) -> None:
    rows = told(type_, "ls", "train.lr<0.01", "--columns", "id,train.lr")
    assert rows == [{"id": "run-b", "train.lr": 1e-5}]
    assert [r["run"] for r in told(type_, "ls", "--sort", "-train.lr")] == ["run-a", "run-b"]
    assert len(told(type_, "ls", "--limit", "1")) == 1
    assert told(type_, "ls", "--status", "silent") == []
    assert "is meant by that" in type_("ls", "val_loss>100")[1]
    assert "did you mean 'val_loss'" in refused(type_, "ls", "vall_loss<1")
    assert "did you mean 'train.lr'" in refused(type_, "ls", "--columns", "trainlr")
    assert "expected" in refused(type_, "ls", "val_loss<")


@pytest.mark.parametrize("empty", [("--sort", ""), ("--sort", "-"), ("--columns", " , ")])
@pytest.mark.slow
def test_ls_refuses_a_column_without_a_name(type_: Any, empty: tuple[str, str]) -> None:
    assert f"{empty[0]} names no column" in refused(type_, "ls", *empty)


@pytest.mark.slow
def test_ls_says_how_to_ask_for_what_is_called_like_a_column(type_: Any, root: Path) -> None:
    session = make(root, "run-c")
    session.log({"step": 7.5}, step=1)
    session.finish("failed")
    assert [row["run"] for row in told(type_, "ls", "summary.step=7.5")] == ["run-c"]
    out = type_("ls", "step=7.5")[1].splitlines()
    assert out[1:] == ["settings and metrics of the same name are asked for as summary.step"]
    assert len(type_("ls", "status=silent")[1].splitlines()) == 1


def test_ls_draws_each_loss_when_asked(type_: Any) -> None:
    assert "█▅▁" in type_("ls", "--spark")[1]
    assert "curve" not in type_("ls")[1]


def test_show_tells_what_a_run_came_to(type_: Any) -> None:
    code, out, _ = type_("show", "run-b", "--spark")
    assert code == 0
    assert "curves" in out
    facts = told(type_, "show", "run-b")
    assert facts["summary"] == {"val_loss": 1.0, "acc": 1.0}
    assert facts["last"]["acc"] == 1 / 3
    assert facts["config"]["train"]["lr"] == 1e-5
    assert facts["sessions"][0]["status"] == "failed"


def test_compare_puts_only_the_same_statistic_side_by_side(type_: Any) -> None:
    found = told(type_, "compare", "run-a", "run-b")
    assert found["settings"] == {"train.lr": [0.1, 1e-5]}
    metrics = {(m["metric"], m["statistic"]): (m["values"], m["steps"]) for m in found["metrics"]}
    assert metrics == {
        ("val_loss", "last"): ([1.0, 1.0], [3, 3]),
        ("val_loss", "accepted"): ([1.0, None], [3, None]),
        ("acc", "last"): ([1 / 3, None], [3, None]),
        ("acc", "max"): ([None, 1.0], [None, 1]),
    }
    out = type_("compare", "run-a", "run-b")[1]
    assert out.index("train.lr") < out.index("val_loss, last")
    assert "1e-05" in out
    assert "give two or more" in refused(type_, "compare", "run-a", "p/run-a")


def test_diff_tells_settings_code_and_packages(root: Path, type_: Any) -> None:
    env = layout.session_dir(root / "p" / "run-b", 1) / layout.ENVIRONMENT
    facts = files.read_json(env)
    packages = {**facts["packages"], "numpy": "0.0.1"}
    git = {"commit": "f" * 40, "branch": "other"}
    files.write_json(env, {**facts, "packages": packages, "git": git, "python": "3.0.0"})
    (env.parent / layout.DIRTY_PATCH).write_text("+changed\n")
    found = told(type_, "diff", "run-a", "run-b")
    assert found["config"] == {"train.lr": [0.1, 1e-5]}
    assert found["packages"] == {"numpy": [facts["packages"]["numpy"], "0.0.1"]}
    assert found["code"]["commit"][1] == "f" * 40
    assert any("changed" in line for line in found["code"]["uncommitted changes"])
    assert found["environment"]["python"][1] == "3.0.0"
    assert "git diff" in type_("diff", "run-a", "run-b")[1]
    assert "nothing differs" in type_("diff", "run-a", "run-a")[1]


@pytest.mark.slow
def test_show_tells_of_lines_that_are_lost_and_of_what_failed_beside_training(
    type_: Any, root: Path
) -> None:
    session = make(root, "run-c")
    session.log({"loss": object()}, step=1)
    session.log({"loss": object()}, step=2)
    assert told(type_, "show", "run-c")["problems"] == {"metric loss": 1}  # while it runs
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))  # what a full disk does
    try:
        for step in range(3, 10):
            session.log({"loss": 1.0}, step=step)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    session.finish("failed")
    facts = told(type_, "show", "run-c")
    assert facts["lost lines"] >= 7
    assert facts["problems"]["metric loss"] == 2
    assert facts["problems"]["writing metrics.r0.000.jsonl"] == 7
    out = type_("show", "run-c")[1]
    assert "lost lines" in out
    assert "metric loss" in out


@pytest.mark.slow
def test_show_is_short_whatever_was_logged(type_: Any, root: Path) -> None:
    session = make(root, "run-c")
    odd = {"two\nlines": 1.0, "k" * 10_000: 2.0, **{f"m{n}": 0.5 for n in range(3000)}}
    session.log(odd, step=1)
    session.finish("finished", results={"step": 1, "final": odd})
    assert told(type_, "show", "run-c")["results"]["final"] == odd
    out = type_("show", "run-c")[1]
    assert len(out) < 10_000
    assert out.count("two\\nlines") == 2
    lines = out.splitlines()
    assert lines.count("  … and 2962 more; --json has all of them") == 1
    assert lines[lines.index("  final") + 1].split() == ["two\\nlines", "1.0"]
    assert "    … and 2962 more; --json has all of them" in lines
    assert len(type_("compare", "run-a", "run-c")[1].splitlines()[-1]) < 300
    assert len(type_("tail", "run-c")[1].splitlines()) == 1


def test_show_says_that_the_clock_was_set_back(type_: Any, root: Path) -> None:
    path = layout.session_dir(root / "p" / "run-a", 1) / layout.SESSION
    fields = files.read_json(path)
    files.write_json(path, {**fields, "ended": fields["started"] - 1e9})
    out = type_("show", "run-a")[1]
    assert "after step 0, ended before it began: the clock was set back" in out
    assert "-1000000000" not in out


@pytest.mark.slow
def test_further_ranks_are_shown_and_followed(type_: Any, root: Path) -> None:
    folder = layout.session_dir(root / "p" / "run-a", 1)
    (folder / layout.metrics_name(2)).write_text('{"_step":7,"_t":1.0,"loss":0.25}\n')
    assert "ranks        0, 2" in type_("show", "run-a")[1].splitlines()
    assert told(type_, "show", "run-a")["ranks"] == [0, 2]
    assert not any(line.startswith("ranks ") for line in type_("show", "run-b")[1].splitlines())
    for follow in ((), ("-f",)):
        out = type_("tail", "run-a", "--rank", "2", *follow)[1]
        assert out == "step 7 rank 2  loss 0.2500\n"
    assert type_("tail", "run-a", "-n", "1", "--rank", "0")[1].startswith("step 3 ")
    assert refused(type_, "tail", "run-a", "--rank", "1").endswith("it has those of: 0, 2")
    assert "rank 0 alone" in refused(type_, "tail", "run-a", "--rank", "2", "--console")


@pytest.mark.slow
def test_tail_shows_the_last_lines_of_numbers_or_of_what_was_printed(type_: Any) -> None:
    for follow in ((), ("-f",)):
        lines = type_("tail", "run-a", "-n", "2", "--json", *follow)[1].splitlines()
        assert [json.loads(line)["_step"] for line in lines] == [2, 3]
    out = type_("tail", "run-a", "--console", "-n", "2")[1]
    assert out.splitlines() == ["bar 99%", "NEEDLE of run-a"]
    assert type_("tail", "run-a", "-n", "0")[1] == ""
    assert type_("tail", "run-a", "-n", "1")[1] == "step 3  val_loss 1.0000  acc 0.3333\n"


FOLLOW = [sys.executable, "-u", "-m", "cupel", "runs", "tail", "live", "-f"]


@pytest.mark.parametrize("console", [False, True])
@pytest.mark.slow
def test_following_tells_every_line_once_and_ends_with_the_run(root: Path, console: bool) -> None:
    session = make(root, "live")
    command = [*FOLLOW, "-n", "100", *(["--console"] if console else [])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for step in range(30):
        session.log({"loss": 1.0}, step=step)
        for text, segment in (("step", step // 7), (f" {step}  loss 1.0000\n", (step + 1) // 7)):
            with (session.dir / layout.console_name(0, segment)).open("a") as file:
                file.write(text)  # of some lines the two halves are in two files
        (session.dir / layout.console_name(1)).write_text("of a further rank\n")
        time.sleep(0.05)
    session.finish("failed")
    out, err = process.communicate(timeout=60)
    assert out.splitlines() == [f"step {step}  loss 1.0000" for step in range(30)]
    assert (process.returncode, err) == (0, "cupel: run live is failed\n")


@pytest.mark.slow
def test_ctrl_c_ends_following_with_130_and_a_closed_pipe_with_141(root: Path) -> None:
    session = make(root, "live")
    session.log({"loss": 1.0}, step=1)
    process = subprocess.Popen(FOLLOW, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "step 1  loss 1.0000\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "cupel: aborted\n")
    process = subprocess.Popen(FOLLOW, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    session.log({"loss": 1.0}, step=2)
    assert process.wait(timeout=60) == 141
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    session.finish("failed")


@pytest.mark.slow
def test_grep_says_where(root: Path, type_: Any) -> None:
    hits = told(type_, "grep", "-i", "needle", "run-a")
    assert [(hit["file"], hit["line"], hit["text"]) for hit in hits] == [
        ("run.json (notes)", 2, "needle in a note"),
        ("sessions/0001/console.log", 3, "NEEDLE of run-a"),
    ]
    out = type_("grep", "1e-05|0.00001")[1]
    where = (root / "p" / "run-b" / layout.CONFIG).read_text().splitlines()
    number = next(n for n, line in enumerate(where, 1) if '"lr"' in line)
    assert out.startswith(f"p/run-b:config.json:{number}: ")
    code, out, err = type_("grep", "xyzzy")
    assert (code, out, err) == (1, "", "cupel: nothing in 2 runs matches 'xyzzy'\n")
    assert "is no regular expression" in refused(type_, "grep", "(")


@pytest.mark.slow
def test_notes_and_tags_are_edited_and_shown(type_: Any) -> None:
    assert told(type_, "note", "run-a", "third")["notes"].splitlines()[-1] == "third"
    assert told(type_, "note", "run-a", "new", "--replace")["notes"] == "new"
    assert type_("note", "run-a")[1] == "new\n"
    assert told(type_, "note", "run-a", "", "--replace")["notes"] == ""
    tags = told(type_, "tag", "run-a", "run-b", "--add", "x", "-r", "draft")
    assert [its["tags"] for its in tags] == [["x"], ["x"]]
    assert type_("tag", "run-a")[1] == "p/run-a  x\n"
    assert "did you mean 'x" not in refused(type_, "tag", "run-a", "-r", "zzz")
    assert "is no tag" in refused(type_, "tag", "run-a", "-a", "two\nlines")
    assert "say one of them" in refused(type_, "tag", "run-a", "-a", "x", "-r", "x")
    assert [row["run"] for row in told(type_, "ls", "tags=x and not tags=draft")] != []


def test_edits_of_a_running_run_survive_its_end(root: Path) -> None:
    session = make(root, "live", tags=["old"])
    editing.add_note(session.run_dir, "while it ran")
    editing.change_tags(session.run_dir, add=["new"], remove=["old"])
    session.finish("finished", results={})
    run = files.read_json(session.run_dir / layout.RUN)
    assert (run["notes"], run["tags"], run["status"]) == ("while it ran", ["new"], "finished")


def test_of_many_editors_at_once_none_is_lost(root: Path) -> None:
    run_dir = root / "p" / "run-a"
    wanted = [f"tag-{number}" for number in range(16)]
    threads = [
        threading.Thread(target=editing.change_tags, args=(run_dir,), kwargs={"add": wanted[n::4]})
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tags = editing.tags_of(files.read_json(run_dir / layout.RUN))
    assert sorted(tags) == sorted(["draft", *wanted])


@pytest.mark.slow
def test_a_removed_run_is_gone_and_comes_back(root: Path, type_: Any) -> None:
    code, out, _ = type_("rm", "run-a", "--yes")
    assert (code, out) == (0, "took p/run-a; back with: cupel runs restore p/run-a\n")
    assert [row["run"] for row in told(type_, "ls")] == ["run-b"]
    assert told(type_, "restore")[0]["run"] == "p/run-a"
    assert type_("restore", "run-a")[:2] == (0, f"restored {root / 'p' / 'run-a'}\n")
    assert type_("verify", "run-a")[0] == 0
    assert "no run in the trash is called" in refused(type_, "restore", "run-a")


@pytest.mark.slow
def test_rm_asks_and_refuses_what_lives_or_belongs_to_a_study(
    root: Path, type_: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import io

    monkeypatch.setattr(sys, "stdin", io.StringIO("n\n"))
    code, out, err = type_("rm", "run-a")
    assert (code, out.strip()) == (1, "nothing is taken")
    assert err.startswith("take 1 run (p/run-a; ")
    session = make(root, "live")
    assert "it is running" in refused(type_, "rm", "live", "run-a", "--yes")
    path = root / "p" / "run-b" / layout.RUN
    files.write_json(path, {**files.read_json(path), "study": "s"})
    assert "the study s" in refused(type_, "rm", "run-b", "--yes")
    assert len(told(type_, "ls")) == 3
    assert type_("rm", "run-b", "--yes", "--force")[0] == 0
    session.finish("failed")


@pytest.mark.slow
def test_gc_says_what_it_frees_and_du_what_is_used(root: Path, type_: Any) -> None:
    before = told(type_, "du")
    assert set(before["run"]) == {"p/run-a", "p/run-b"}
    assert told(type_, "du", "--projects")["project"]["p"]["total"] == before["total"]
    type_("rm", "run-a", "--yes")
    assert "nothing to delete" in type_("gc")[1]
    would = told(type_, "gc", "--days", "0", "--dry-run")
    assert would["bytes"] == before["run"]["p/run-a"]["total"]
    assert "in the trash" in type_("du")[1]
    freed = told(type_, "gc", "--days", "0")
    assert {**freed, "dry_run": True} == would
    assert told(type_, "restore") == []
    assert type_("du", "run-b")[1].splitlines()[1].startswith("p/run-b")


@pytest.mark.slow
def test_an_exported_run_is_imported_again(root: Path, type_: Any) -> None:
    assert type_("export", "run-a", "run.zip")[0] == 0
    assert told(type_, "export", "run-a", "a.csv")["kind"] == "csv"
    assert told(type_, "import", "run.zip", "--project", "q") == [str(root / "q" / "run-a")]
    assert "exists already" in refused(type_, "import", "run.zip", "--project", "q")
    assert "did you mean 'csv'" in refused(type_, "export", "p/run-a", "x", "--to", "cvs")
    assert "say it with --to" in refused(type_, "export", "p/run-a", "x.y")
    assert "did you mean 'wandb'" in refused(type_, "import", "x", "--kind", "wand")


@pytest.mark.slow
def test_import_names_its_options_as_they_are_typed(type_: Any, tmp_path: Path) -> None:
    (tmp_path / "m.txt").write_text("?")
    assert "give --kind, one of: " in refused(type_, "import", "m.txt")
    (tmp_path / "step= 1.csv").write_text("a,b\n1,2\n")
    said = refused(type_, "import", "step= 1.csv")
    assert "step= 1.csv has no column of the step" in said
    assert said.endswith("; name the column with --step")
    (tmp_path / "run.wandb").write_bytes(b"?")
    said = refused(type_, "import", "run.wandb", "--kind", "wandb", "--step", "a")
    assert "--step names a column of a table" in said


@pytest.mark.slow
def test_verify_exits_with_1_and_says_what_is_wrong(root: Path, type_: Any) -> None:
    assert type_("verify", "--all")[0] == 0
    path = layout.session_dir(root / "p" / "run-b", 1) / layout.metrics_name()
    path.write_bytes(b"garbage\n" + path.read_bytes())
    code, out, _ = type_("verify", "run-a", "run-b")
    assert code == 1
    assert "p/run-a: sound" in out
    assert "metrics.r0.000.jsonl: a line cannot be read" in out
    code, out, _ = type_("verify", "--all", "--json")
    assert [one["sound"] for one in sorted(json.loads(out), key=lambda o: o["run"])] == [
        True,
        False,
    ]
    assert "--all" in refused(type_, "verify")


@pytest.mark.slow
def test_checkpoints_are_listed_verified_pinned_and_exported(root: Path, type_: Any) -> None:
    run_dir = root / "p" / "run-a"
    digest = hashlib.sha256(b"tensors").hexdigest()
    for step in (1, 2):
        folder = checkpoints.step_dir(run_dir, step)
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"tensors")
        promised = {"model.safetensors": {"bytes": 7, "sha256": digest}}
        about = {"step": step, "time": 1.0, "metrics": {"val_loss": 0.5 + step}, "parts": {}}
        manifests.write_manifest(folder, {"schema": 1, "files": promised, **about})
    checkpoints.write_best(run_dir, "val_loss", 1.5, goal="min", step=1)
    (one, two) = told(type_, "checkpoints", "run-a", "--pin", "2")
    assert (one["best_of"], one["pinned"], two["pinned"]) == (["val_loss"], False, True)
    line = type_("checkpoints", "run-a", "--verify")[1].splitlines()[2]
    assert line.split() == ["2", "1970-01-01", "00:00", "7", "B", "2.5000", "pinned", "verified"]
    assert told(type_, "checkpoints", "run-a", "--unpin", "2")[1]["pinned"] is False
    assert "there are: 1, 2" in refused(type_, "checkpoints", "run-a", "--pin", "3")
    code, out, _ = type_("checkpoints", "run-a", "--export", "1", "m.safetensors")
    assert (code, Path("m.safetensors").read_bytes()) == (0, b"tensors")
    (checkpoints.step_dir(run_dir, 1) / "model.safetensors").write_bytes(b"changed")
    assert type_("checkpoints", "run-a")[0] == 0  # the size is right
    code, out, _ = type_("checkpoints", "run-a", "--verify")
    assert code == 1
    assert "step 1: step-000000001/model.safetensors has changed" in out.replace("checkpoints/", "")


@pytest.mark.parametrize(
    "command",
    ["ls", "show run-a", "compare run-a run-b", "diff run-a run-b", "tail run-a", "grep x",
     "note run-a", "tag run-a", "verify run-a", "checkpoints run-a", "du", "restore", "gc"],
)  # fmt: skip
@pytest.mark.slow
def test_no_command_loads_what_weighs(root: Path, command: str) -> None:
    code = (
        "import sys\nfrom cupel.cli.main import main\n"
        f"try: main({['runs', *command.split()]!r})\nexcept SystemExit: pass\n"
        "print('LOADED', *[m for m in ('torch', 'numpy', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ}
    )
    assert done.stdout.splitlines()[-1] == "LOADED"
