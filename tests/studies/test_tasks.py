"""A study's runs as tasks of a queue, from planned studies and without a process."""

from __future__ import annotations

import os
import socket
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cupel.jobs.backend import Resources
from cupel.studies.manifest import freeze
from cupel.studies.tasks import queue_of, split_of, tasks_of, worker_name
from plans import Plans


@pytest.fixture
def plans(tmp_path: Path) -> Plans:
    return Plans(tmp_path)


def test_every_run_is_a_task_in_the_order_of_the_plan(plans: Plans) -> None:
    manifest = plans("seeds: [1, 2]")
    tasks = tasks_of(manifest)
    assert [task.name for task in tasks] == [run.run_id for run in manifest.runs]
    assert [task.run_dir for task in tasks] == [manifest.run_dir(run) for run in manifest.runs]
    assert {task.resources for task in tasks} == {Resources(cpus=1)}
    assert {(task.priority, task.not_before) for task in tasks} == {(100, 0.0)}


def test_some_runs_or_none_of_them_can_be_meant(plans: Plans) -> None:
    manifest = plans("seeds: [1, 2]")
    chosen = manifest.runs[1:3]
    assert [task.name for task in tasks_of(manifest, chosen)] == [run.run_id for run in chosen]
    assert tasks_of(manifest, []) == []
    assert queue_of(manifest, []).is_settled()


def test_runs_of_one_cell_are_kin_and_those_of_other_points_are_not(plans: Plans) -> None:
    tasks = tasks_of(plans("seeds: [1, 2]\ngrid: {batch: [4, 8]}"))
    kins: dict[str, int] = {}
    for task in tasks:
        kins[task.kin] = kins.get(task.kin, 0) + 1
    assert len(kins) == 4
    assert set(kins.values()) == {2}


def test_tasks_take_priorities_resources_and_the_first_moment_from_the_study(plans: Plans) -> None:
    manifest = plans(
        'seeds: [1]\npriorities: [{where: "arm=drop", add: 50}]\n'
        "not_before: 2026-12-01T08:00\n"
        "resources: {cpus: 2, gpus: 0.25, memory_mb: 500, gpu_memory_mb: 900, time_min: 1.5}"
    )
    plain, drop = tasks_of(manifest)
    assert (plain.priority, drop.priority) == (100, 150)
    assert plain.not_before == datetime(2026, 12, 1, 8, tzinfo=UTC).timestamp()
    assert plain.resources == Resources(
        cpus=2, gpus=0.25, memory_mb=500, gpu_memory_mb=900, time_s=90.0
    )


def test_the_queue_gives_the_most_urgent_run_first_and_waits_for_its_moment(plans: Plans) -> None:
    rule = 'seeds: [1, 2]\npriorities: [{where: "arm=drop", add: 50}]'
    manifest = freeze(plans(rule))
    claimed = queue_of(manifest, worker="w").claim()
    assert claimed is not None
    assert manifest.run(claimed.task.name).arm == "drop"

    later = plans(f"{rule}\nnot_before: 2999-01-01T00:00")
    assert queue_of(later, later.runs[:1], worker="w").claim() is None


def test_a_queue_is_of_this_process_and_of_the_studys_lease(plans: Plans) -> None:
    queue = queue_of(plans("lease_s: 7"))
    here = f"{socket.gethostname()}-{os.getpid()}"
    assert queue.worker.startswith(here)
    assert worker_name().startswith(here)
    assert (queue.host, queue.lease_s) == (socket.gethostname(), 7)


@pytest.mark.parametrize(
    ("overrides", "split"),
    [((), (1, 8)), (("train.accumulate=4", "batch=16"), (4, 16))],
)
def test_the_split_of_a_step_is_read_from_the_runs_settings(
    plans: Plans, overrides: tuple[str, ...], split: tuple[int, int]
) -> None:
    manifest = plans("", *overrides)
    assert split_of(manifest, manifest.runs[0].run_id) == split


def test_a_batch_of_the_section_data_counts_where_there_is_one(tmp_path: Path) -> None:
    from planted import Arm, plant

    manifest = plant(tmp_path, {"plain": Arm({1: 1.0})}, seeds=(1,))
    assert split_of(manifest, manifest.runs[0].run_id) == (1, 4)
