"""Studies and the queue over HTTP: what is told is what the records and the command line say."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from cupel.dashboard import comparing, glance, study_states
from cupel.dashboard.app import create_app
from cupel.dashboard.failing import ADVICE
from cupel.dashboard.glance import MARKS, Glance
from cupel.dashboard.store import Store
from cupel.errors import MissingDependency
from cupel.jobs import attempts, control
from cupel.jobs.workers import Presence
from cupel.record.codec import document
from cupel.record.session import Session
from cupel.studies.manifest import Manifest, freeze
from cupel.studies.outcome import outcome
from cupel.studies.runs import read_runs as read_runs_of
from cupel.studies.state import Look, State, study_state
from plans import Plans
from studied import begin, gridded, planned, write

TOKEN = "a-token-of-some-length"
HEADERS = {
    "authorization": f"Bearer {TOKEN}", "origin": "http://127.0.0.1", "x-cupel": "1",
}  # fmt: skip
ODD = "rates × 50% & more?#"


def told(arm: str, lr: float, width: int, seed: int) -> float | str | None:
    """Of the wave arm one seed is missing at the low rate, at the high one others went wrong."""
    if (arm, lr, seed) == ("wave", 0.1, 3):
        return None
    if arm == "wave" and lr == 0.2 and seed > 1:
        return "failed" if seed == 2 else "diverged"
    return 2.0 + lr + 0.01 * math.sin(7 * seed + lr) - (0.1 if arm == "wave" else 0.0)


@contextmanager
def asking(root: Path, *, writes: bool = False) -> Iterator[TestClient]:
    app = create_app(root, token=TOKEN, hosts=["127.0.0.1"], writes=writes)
    with TestClient(app, base_url="http://127.0.0.1", headers=HEADERS) as client:
        yield client


def got(client: TestClient, address: str, status: int = 200) -> Any:
    answer = client.get(address)
    assert answer.status_code == status, answer.text
    return answer.json()


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    root = tmp_path_factory.mktemp("root")
    return gridded(root, told, widths=(16,), compare={"margin": 0.3, "baseline": "plain"})


@pytest.fixture(scope="module")
def client(study: Manifest) -> Iterator[TestClient]:
    with asking(study.root) as client:
        yield client


@pytest.fixture
def small(tmp_path: Path) -> Manifest:
    """Four runs, of which the first is accepted."""
    first = lambda arm, lr, width, seed: 2.0 if (arm, seed) == ("plain", 1) else None  # noqa: E731
    return gridded(tmp_path, first, lrs=(0.1,), widths=(16,), seeds=(1, 2))


# ---- the list and the plan -----------------------------------------------------------------------


def test_every_state_that_a_run_can_have_has_a_letter_of_its_own() -> None:
    from typing import get_args

    states = {name for part in get_args(State) for name in (get_args(part) or (part,))}
    assert set(MARKS) == states
    assert len(set(MARKS.values())) == len(MARKS)


def test_every_class_of_failure_has_advice() -> None:
    assert set(attempts.CLASSES) <= set(ADVICE)


@pytest.mark.slow
def test_the_list_tells_question_size_and_how_runs_stand(client: TestClient) -> None:
    (row,) = got(client, "/api/v1/studies")
    assert (row["key"], row["cells"], row["runs"]) == ("p/rates", 4, 12)
    assert row["question"].startswith("Does the wave model")
    assert row["counts"] == {"finished": 9, "planned": 1, "failed": 1, "diverged": 1}
    assert row["over"] is False
    assert 0 <= time.time() - row["newest"] < 3600


@pytest.mark.slow
def test_the_plan_tells_each_cell_by_its_coordinates_and_each_run_by_its_state(
    client: TestClient, study: Manifest
) -> None:
    plan = got(client, "/api/v1/studies/rates")
    assert plan == got(client, "/api/v1/studies/rates?project=p")
    assert [(one["name"], one["values"]) for one in plan["parameters"]] == [
        ("lr", [0.1, 0.2]),
        ("width", [16]),
    ]
    assert [(cell["arm"], cell["place"]) for cell in plan["cells"]] == [
        ("plain", [0.1, 16]),
        ("plain", [0.2, 16]),
        ("wave", [0.1, 16]),
        ("wave", [0.2, 16]),
    ]
    assert [run["run"] for run in plan["runs"]] == [run.run_id for run in study.runs]
    states = {state.run.run_id: state for state in study_state(study)}
    for cell in plan["cells"]:
        for number in cell["runs"]:
            run = plan["runs"][number]
            state = states[run["run"]]
            assert (run["state"], run["step"], run["steps"]) == (
                state.status,
                state.step,
                state.steps,
            )
            assert run["value"] == (state.val_loss if state.status == "finished" else run["value"])
    marks = [plan["letters"][mark] for mark in plan["state"]["marks"]]
    assert marks == [run["state"] for run in plan["runs"]]
    assert (plan["margin"], plan["baseline"], plan["parts"]) == (0.3, "plain", 1)


@pytest.mark.slow
def test_a_failed_run_tells_why_and_how_often_it_was_tried(client: TestClient) -> None:
    runs = got(client, "/api/v1/studies/rates")["runs"]
    (failed,) = [run for run in runs if run["state"] == "failed"]
    assert "no such file" in failed["reason"]
    assert failed["attempts"] == 2


def test_what_live_pages_are_told_is_what_the_plan_says(
    client: TestClient, study: Manifest
) -> None:
    sub = quote(json.dumps({"query": {"kind": "study", "study": "p/rates"}}))
    first = got(client, f"/api/v1/delta?sub={sub}")
    assert first["data"] == got(client, "/api/v1/studies/rates")["state"]
    again = quote(
        json.dumps({"query": {"kind": "study", "study": "p/rates"}, "name": first["name"]})
    )
    assert client.get(f"/api/v1/delta?sub={again}").status_code == 204


def test_a_study_of_two_projects_must_be_told_apart(tmp_path: Path) -> None:
    for project in ("a", "b"):
        freeze(planned(tmp_path, name="same", project=project, arms=("plain",), lrs=(0.1,),
                       widths=(16,), seeds=(1,), question="?"))  # fmt: skip
    with asking(tmp_path) as client:
        assert "?project=" in got(client, "/api/v1/studies/same", 400)["error"]
        assert got(client, "/api/v1/studies/same?project=b")["key"] == "b/same"


def test_a_name_with_odd_characters_is_found_and_none_leads_out_of_the_root(
    tmp_path: Path,
) -> None:
    root = tmp_path / "runs"
    gridded(root, lambda *_: None, name=ODD, lrs=(0.1,), widths=(16,), seeds=(1,))
    shutil.copytree(root / "p" / "studies" / ODD, tmp_path / "studies" / "outside")
    with asking(root) as client:
        assert got(client, f"/api/v1/studies/{quote(ODD)}")["name"] == ODD
        assert got(client, f"/api/v1/studies/{quote(ODD)}/comparison")["study"] == f"p/{ODD}"
        assert got(client, f"/api/v1/studies/{quote(ODD)}/cells")["metrics"] == []
        for name, project in (
            ("outside", ".."),
            ("..", "p"),
            (str(root / "p"), "p"),
            ("x\0y", "p"),
        ):
            asked = f"/api/v1/studies/{quote(name, safe='')}?project={quote(project)}"
            assert client.get(asked).status_code == 404, name
        sub = quote(json.dumps({"query": {"kind": "study", "study": "../outside"}}))
        assert client.get(f"/api/v1/delta?sub={sub}").status_code == 404


def test_a_damaged_plan_is_told_in_a_line_and_hides_no_other_study(small: Manifest) -> None:
    broken = small.folder.parent / "broken"
    broken.mkdir()
    (broken / "manifest.json").write_text('{"schema": 1, "cells": [')
    with asking(small.root) as client:
        rows = {row["name"]: row for row in got(client, "/api/v1/studies")}
        assert rows["rates"]["problem"] == ""
        problem = rows["broken"]["problem"]
        assert "p/studies/broken/manifest.json is damaged" in problem
        assert str(small.root) not in problem
        for rest in ("", "/comparison", "/cells"):
            assert got(client, f"/api/v1/studies/broken{rest}", 400)["error"] == problem
        queued = {one["key"]: one for one in got(client, "/api/v1/queue")["studies"]}
        assert queued["p/broken"]["problem"] == problem
        assert queued["p/rates"]["open"] == 3
        (broken / "manifest.json").unlink()
        freeze(replace(small, folder=broken, name="broken"))
        assert len(got(client, "/api/v1/studies/broken")["runs"]) == 4, "restored, it is read again"


def test_a_widened_study_is_told_with_its_new_runs(tmp_path: Path) -> None:
    plan = Plans(tmp_path)
    manifest = freeze(plan("seeds: [1, 2]"))
    address = f"/api/v1/studies/{manifest.name}"
    with asking(plan.root) as client:
        before = got(client, address)
        assert (before["parts"], len(before["runs"]), before["seeds"]) == (1, 4, [1, 2])
        freeze(plan("seeds: [1, 2]", "study.seeds=[1,2,3]"), widen=True)
        after = got(client, address)
    assert (after["parts"], len(after["runs"]), after["seeds"]) == (2, 6, [1, 2, 3])
    assert after["state"]["plan"] != before["state"]["plan"]
    assert after["state"]["total"] == len(after["state"]["marks"]) == 6


def test_a_study_that_was_deleted_is_not_there(small: Manifest) -> None:
    with asking(small.root) as client:
        got(client, "/api/v1/studies/rates")
        shutil.rmtree(small.folder)
        assert "no study is called" in got(client, "/api/v1/studies/rates?project=p", 404)["error"]


def test_deviations_are_named_and_count_in_no_cell(small: Manifest) -> None:
    run = small.runs[0]
    session = Session.start(
        root=small.root, project="p", name="d", config={}, identity="other", run_id="other-run",
        details={"study": small.name, "deviation_of": run.run_id},
    )  # fmt: skip
    session.finish("finished", results={"step": 1, "final": {"val_loss": 0.0}})
    with asking(small.root) as client:
        plan = got(client, "/api/v1/studies/rates")
        cells = got(client, "/api/v1/studies/rates/cells")["cells"]
    assert plan["deviations"] == [{"run": "other-run", "of": run.run_id, "status": "finished"}]
    assert sum(cell["n"] for cell in cells) == 1


# ---- looking again and again ---------------------------------------------------------------------


def fresh(store: Store, key: str = "p/rates") -> Any:
    """How a study stands now, however short ago it was looked at."""
    return glance.desk_of(store).glance(key).seen(no_older=0)


@pytest.mark.slow
def test_whatever_happens_to_runs_a_second_look_is_that_of_a_first_one(small: Manifest) -> None:
    """What is kept between looks is never seen: each state is that of the command line."""
    store = Store(small.root)
    plain2, wave1, wave2 = small.runs[1:]

    def agrees(counted: dict[str, int]) -> None:
        seen = fresh(store)
        assert [one.status for one in seen.states] == [one.status for one in study_state(small)]
        assert [one.step for one in seen.states] == [one.step for one in study_state(small)]
        assert seen.counts == counted

    agrees({"finished": 1, "planned": 3})
    session = begin(small, plain2)
    agrees({"finished": 1, "running": 1, "planned": 2})
    session.log({"loss": 1.0}, step=20)
    agrees({"finished": 1, "running": 1, "planned": 2})
    session.finish("interrupted")
    agrees({"finished": 1, "interrupted": 1, "planned": 2})
    control.append(small.folder, "hold", [wave1.run_id])
    agrees({"finished": 1, "interrupted": 1, "held": 1, "planned": 1})
    resumed = Session.resume(small.run_dir(plain2))
    resumed.begin_at(20)
    agrees({"finished": 1, "running": 1, "held": 1, "planned": 1})
    resumed.finish("finished", results={"step": 40, "final": {"val_loss": 1.5}})
    agrees({"finished": 2, "held": 1, "planned": 1})
    write(small, wave2, lambda *_: "failed")
    agrees({"finished": 2, "held": 1, "failed": 1})
    control.forgive(small.folder, {wave2.run_id: small.run_dir(wave2)})
    assert fresh(store).counts.get("failed") is None
    shutil.rmtree(small.run_dir(plain2))
    seen = fresh(store)
    assert (seen.counts["finished"], seen.counts["planned"]) == (1, 1)
    store.close()


def test_a_look_reads_no_run_that_has_settled_or_not_begun(
    small: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(small.root)
    fresh(store)
    session = begin(small, small.runs[1])
    fresh(store)
    looked: list[str] = []
    real = Look.states

    def states(self: Any, runs: Any = None) -> Any:
        looked.extend(run.run_id for run in runs)
        return real(self, runs)

    monkeypatch.setattr(Look, "states", states)
    fresh(store)
    assert looked == [small.runs[1].run_id]
    session.finish("interrupted")
    store.close()


def test_nothing_is_left_in_the_study_when_the_server_ends(small: Manifest) -> None:
    before = {path.relative_to(small.folder) for path in small.folder.rglob("*.*")}
    begin(small, small.runs[1]).finish("interrupted")
    store = Store(small.root)
    fresh(store)
    glance.desk_of(store).close()
    store.close()
    assert {path.relative_to(small.folder) for path in small.folder.rglob("*.*")} == before


def test_alerts_are_those_that_were_raised_and_those_that_are_seen_from_here(
    tmp_path: Path,
) -> None:
    alerts = {"disk_free": 0.999999}
    gridded(tmp_path, lambda *_: None, lrs=(0.1,), widths=(16,), seeds=(1,), alerts=alerts)
    with asking(tmp_path) as client:
        (alert,) = got(client, "/api/v1/studies/rates")["state"]["alerts"]
        assert alert["key"] == "disk"
        assert got(client, "/api/v1/queue")["alerts"] == [alert]
    assert not (tmp_path / "p/studies/rates/alerts.json").exists(), "a page raises none for others"


# ---- the comparison ------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_comparison_is_that_of_the_command_line(client: TestClient, study: Manifest) -> None:
    found = got(client, "/api/v1/studies/rates/comparison")
    known = outcome(study)
    assert [one["verdict"] for one in found["differences"]] == [
        card.verdict for card in known.cards
    ]
    for told_, card in zip(found["differences"], known.cards, strict=True):
        plain = document(asdict(card))
        low, high = plain.pop("interval") or (None, None)
        plain.pop("narrow"), plain.pop("baseline")
        plain["differences"] = {str(seed): one for seed, one in plain["differences"].items()}
        assert told_ == {**plain, "low": low, "high": high, "n": card.n}
    assert [
        (one["arm"], one["name"], one["baseline"], one["value"]) for one in found["unequal"]
    ] == [(one.arm, one.name, *one.values) for one in known.unequal]
    assert found["problem"] == ""
    assert (found["finished"], found["planned"]) == (9, 12)


def test_missing_and_diverged_seeds_are_named_on_their_side(client: TestClient) -> None:
    found = got(client, "/api/v1/studies/rates/comparison")
    low, high = found["differences"]
    assert (low["n"], low["missing_arm"], low["diverged_arm"]) == (2, [3], [])
    assert (high["n"], high["missing_arm"], high["diverged_arm"]) == (1, [2], [3])
    assert high["verdict"] is None
    assert "one pair" in high["reason"]
    values = {(one["arm"], one["point"]): one for one in found["arms"]}
    wave = values["wave", "lr=0.2,width=16"]
    assert (wave["n"], wave["planned"], wave["low"]) == (1, 3, None)
    assert wave["values"] == {"1": pytest.approx(told("wave", 0.2, 16, 1)), "3": "NaN"}
    assert {(one["seed"], one["status"]) for one in found["without"]} == {
        (3, "planned"),
        (2, "failed"),
        (3, "failed"),
    }


def test_the_interval_of_an_arm_is_the_t_interval(client: TestClient) -> None:
    from scipy import stats

    found = got(client, "/api/v1/studies/rates/comparison")
    plain = next(one for one in found["arms"] if one["arm"] == "plain")
    values = list(plain["values"].values())
    low, high = stats.t.interval(0.95, 2, sum(values) / 3, stats.sem(values))
    assert (plain["low"], plain["high"]) == (pytest.approx(low), pytest.approx(high))


def test_a_comparison_is_computed_again_when_a_run_has_ended_and_not_before(
    small: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[list[str]] = []
    real = read_runs_of

    def read_runs(manifest: Manifest) -> Any:
        read.append([run.run_id for run in manifest.runs])
        return real(manifest)

    monkeypatch.setattr(comparing, "read_runs", read_runs)
    store = Store(small.root)
    study = glance.desk_of(store).glance("p/rates")

    def found() -> Any:
        study.forget()
        return comparing.comparison(study)

    assert found() is found()
    assert read == [[run.run_id for run in small.runs]]
    write(small, small.runs[2], lambda *_: 1.9)
    assert found().finished == 2
    assert read[1:] == [[run.run_id for run in small.runs[1:]]], "what was accepted is read once"
    store.close()


@pytest.mark.slow
def test_without_scipy_values_are_told_and_what_to_type_for_the_rest(
    small: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    for run in small.runs[1:]:
        write(small, run, lambda *_: 1.9)

    def missing(*_: Any) -> None:
        raise MissingDependency("scipy", extra="analysis", purpose="a t interval")

    monkeypatch.setattr(comparing, "compare_points", missing)
    with asking(small.root) as client:
        found = got(client, "/api/v1/studies/rates/comparison")
    assert found["differences"] == []
    assert "pip install 'cupel[analysis]'" in found["problem"]
    assert [one["n"] for one in found["arms"]] == [2, 2]


# ---- cell by cell --------------------------------------------------------------------------------


def test_cells_tell_mean_and_range_of_accepted_runs_and_count_the_others(
    client: TestClient,
) -> None:
    found = got(client, "/api/v1/studies/rates/cells?metric=val_loss&project=p")
    assert "val_loss" in found["metrics"]
    plain, _, low, high = found["cells"]
    values = [told("plain", 0.1, 16, seed) for seed in (1, 2, 3)]
    assert (plain["n"], plain["other"], plain["missing"]) == (3, 0, 0)
    assert plain["mean"] == pytest.approx(sum(map(float, values)) / 3)  # type: ignore[arg-type]
    assert (plain["low"], plain["high"]) == (min(values), max(values))  # type: ignore[type-var]
    assert (low["n"], low["other"], low["missing"]) == (2, 0, 1)
    assert (high["n"], high["other"], high["missing"]) == (1, 1, 1)


def test_a_metric_that_no_run_has_is_refused_with_those_there_are(client: TestClient) -> None:
    error = got(client, "/api/v1/studies/rates/cells?metric=val_los", 404)["error"]
    assert "did you mean 'val_loss'" in error


# ---- the queue -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_queue_tells_what_is_open_who_works_and_what_failed(small: Manifest) -> None:
    plain2, wave1, wave2 = small.runs[1:]
    session = begin(small, plain2, step=12, loss=math.inf)
    write(small, wave1, lambda *_: "failed")
    control.append(small.folder, "hold", [wave2.run_id], why="the node is needed")
    control.append(small.folder, "quarantine", [], why="its driver", host="gpu7", device="cuda:1")
    Presence(small.folder, "worker-1", 2).show([plain2.run_id])
    with asking(small.root) as client:
        found = got(client, "/api/v1/queue")
    session.finish("interrupted")
    (queued,) = found["studies"]
    assert (queued["key"], queued["open"], queued["total"]) == ("p/rates", 2, 4)
    (run,) = found["active"]
    assert (run["run"], run["state"], run["step"], run["steps"]) == (
        plain2.run_id,
        "running",
        12,
        40,
    )
    assert (run["loss"], run["sessions"]) == ("Infinity", 1)
    (worker,) = found["workers"]
    assert (worker["worker"], worker["state"], worker["slots"]) == ("worker-1", "alive", 2)
    assert worker["running"] == [plain2.run_id]
    (failures,) = found["failures"]
    assert (failures["kind"], failures["count"], failures["again"]) == ("unknown", 1, 0)
    assert failures["advice"] == ADVICE["unknown"]
    assert failures["runs"][0]["run"] == wave1.run_id
    (held,) = found["holds"]
    assert (held["why"], held["runs"], held["by_breaker"]) == (
        "the node is needed",
        [wave2.run_id],
        False,
    )
    (place,) = found["quarantined"]
    assert (place["host"], place["device"], place["why"]) == ("gpu7", "cuda:1", "its driver")


def test_a_study_that_is_done_is_counted_and_no_longer_listed(tmp_path: Path) -> None:
    gridded(tmp_path, lambda *_: 2.0, lrs=(0.1,), widths=(16,), seeds=(1,))
    with asking(tmp_path) as client:
        found = got(client, "/api/v1/queue")
        state = got(client, "/api/v1/studies/rates")["state"]
    assert (found["studies"], found["settled"], found["failures"]) == ([], 1, [])
    assert (state["over"], state["eta"], state["unknown"]) == (True, None, "")


def test_a_quiet_study_is_told_the_same_again_and_again(small: Manifest) -> None:
    """Or every page would be sent it once a second."""
    store = Store(small.root)
    first = study_states.state_of(glance.desk_of(store).glance("p/rates"), fresh(store))
    time.sleep(0.05)
    assert study_states.state_of(glance.desk_of(store).glance("p/rates"), fresh(store)) == first
    store.close()


# ---- steering ------------------------------------------------------------------------------------

CONTROL = "/api/v1/studies/rates/control"


def asked(client: TestClient, status: int = 200, **body: Any) -> Any:
    answer = client.post(CONTROL, json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def lines(manifest: Manifest) -> list[dict[str, Any]]:
    """What stands in the control file, without when."""
    path = manifest.folder / control.CONTROL
    found = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [{name: one[name] for name in one if name != "t"} for one in found]


def test_nothing_is_written_unless_it_was_allowed(small: Manifest) -> None:
    with asking(small.root) as client:
        assert asked(client, 403, what="hold", all=True)
    with asking(small.root, writes=True) as client:
        bare = {"x-cupel": ""}
        assert (
            client.post(CONTROL, json={"what": "hold", "all": True}, headers=bare).status_code
            == 403
        )
    assert lines(small) == []


def test_steering_writes_the_lines_that_the_command_line_writes(
    small: Manifest, tmp_path: Path
) -> None:
    from typer.testing import CliRunner

    from cupel.cli.jobs import app

    run = small.runs[1].run_id
    pairs: list[tuple[dict[str, Any], list[str]]] = [
        ({"what": "hold", "runs": [run], "why": "wait"}, ["hold", run, "--why", "wait"]),
        ({"what": "release", "all": True}, ["release", "--all"]),
        ({"what": "boost", "arms": ["wave"], "priority": 500},
         ["boost", "--arm", "wave", "-p", "500"]),
        ({"what": "cancel", "arms": ["wave"]}, ["cancel", "--arm", "wave"]),
        ({"what": "retry", "all": True, "why": "mended"}, ["retry", "--all", "--why", "mended"]),
    ]  # fmt: skip
    with asking(small.root, writes=True) as client:
        for body, _ in pairs:
            asked(client, **body)
    ours = lines(small)
    (small.folder / control.CONTROL).unlink()
    for _, (do, *rest) in pairs:
        found = CliRunner().invoke(app, [do, str(small.folder), *rest, "--root", str(small.root)])
        assert found.exit_code == 0, found.output
    assert ours == lines(small)
    assert [one["do"] for one in ours] == ["hold", "release", "boost", "cancel", "retry"]


def test_what_was_asked_is_seen_at_once(small: Manifest) -> None:
    with asking(small.root, writes=True) as client:
        assert got(client, "/api/v1/studies/rates")["state"]["counts"]["planned"] == 3
        assert asked(client, what="hold", arms=["wave"])["runs"] == 2
        counts = got(client, "/api/v1/studies/rates")["state"]["counts"]
        assert counts == {"finished": 1, "planned": 1, "held": 2}


@pytest.mark.slow
def test_all_that_failed_is_tried_again(small: Manifest) -> None:
    write(small, small.runs[1], lambda *_: "failed")
    with asking(small.root, writes=True) as client:
        assert asked(client, what="retry", failed=True)["runs"] == 1
        counts = got(client, "/api/v1/studies/rates")["state"]["counts"]
        assert "failed" not in counts
        assert "has failed" in asked(client, 400, what="retry", failed=True)["error"]
    (line,) = lines(small)
    assert line["sessions"] == {small.runs[1].run_id: 2}


def test_a_quarantined_host_is_released(small: Manifest) -> None:
    control.append(small.folder, "quarantine", [], why="its driver", host="gpu7", device="")
    with asking(small.root, writes=True) as client:
        assert "gpu7" in asked(client, 404, what="release", host="gpu8")["error"]
        asked(client, what="release", host="gpu7")
        assert got(client, "/api/v1/queue")["quarantined"] == []


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"what": "hold"}, "say of which runs"),
        ({"what": "hold", "all": True, "arms": ["wave"]}, "say of which runs"),
        ({"what": "explode", "all": True}, "this cannot be asked"),
        ({"what": "hold", "all": True, "sudo": 1}, "this cannot be asked"),
        ({"what": "boost", "all": True}, "priority"),
        ({"what": "hold", "all": True, "priority": 1}, "priority"),
        ({"what": "boost", "all": True, "priority": 10**12}, "this cannot be asked"),
        ({"what": "hold", "failed": True}, "failed is for retry"),
        ({"what": "cancel", "host": "gpu7"}, "host is for release"),
        ({"what": "hold", "runs": ["nobody"]}, "no run of study rates is called"),
        ({"what": "hold", "arms": ["nobody"]}, "no arm of study rates is called"),
        ({"what": "hold", "where": ["lr <"]}, "lr <"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_a_line_and_changes_nothing(
    small: Manifest, body: dict[str, Any], said: str
) -> None:
    with asking(small.root, writes=True) as client:
        answer = client.post(CONTROL, json=body)
    assert answer.status_code in (400, 404)
    assert said in answer.json()["error"]
    assert "\n" not in answer.json()["error"]
    assert lines(small) == []


# ---- what it costs -------------------------------------------------------------------------------


@pytest.mark.slow
def test_studies_are_told_without_torch_and_lists_without_scipy(study: Manifest) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from cupel.dashboard import studies, study_plans\n"
        "from cupel.dashboard.store import Store\n"
        "from cupel.dashboard.glance import desk_of\n"
        "store = Store(Path(sys.argv[1])); studies.queue(store)\n"
        "study_plans.plan(store, desk_of(store).glance('p/rates')); store.close()\n"
        "assert not {'torch', 'scipy', 'matplotlib'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code, str(study.root)], check=True)


@pytest.mark.slow
def test_a_look_at_ten_thousand_runs_takes_less_than_half_a_second(tmp_path: Path) -> None:
    """None has begun but two; a bound ten times what it takes on a machine with nothing else."""
    manifest = planned(
        tmp_path, name="rates", project="p", arms=("plain", "wave"),
        lrs=[n / 1000 for n in range(1, 51)], widths=range(16, 36), seeds=(1, 2, 3, 4, 5),
        question="?",
    )  # fmt: skip
    freeze(manifest)
    sessions = [begin(manifest, run) for run in manifest.runs[:2]]
    store = Store(tmp_path)
    fresh(store)
    took = []
    for _ in range(3):
        began = time.perf_counter()
        seen = fresh(store)
        study_states.state_of(Glance(tmp_path, "p/rates"), seen)
        took.append(time.perf_counter() - began)
    assert seen.counts == {"running": 2, "planned": 9998}
    assert min(took) < 0.5
    for session in sessions:
        session.finish("interrupted")
    store.close()
