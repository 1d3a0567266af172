"""Notes as data hold everything; a rubric's leaves are equations, criteria and results."""

from __future__ import annotations

import json

from cupel.notes.export import as_data, as_rubric, leaves
from papers import papers

CATEGORIES = {"Code Development", "Code Execution", "Result Analysis"}
FINER = {  # those of the published rubrics that are used here
    "Method Implementation", "Experimental Setup", "Evaluation, Metrics & Benchmarking",
}  # fmt: skip


def test_data_hold_every_entity_with_its_place() -> None:
    data = json.loads(json.dumps(as_data(papers())))
    lasso, ridge = data["papers"]
    assert (data["schema"], lasso["id"], ridge["id"]) == (1, "lasso.v2", "ridge.v1")
    assert ridge["equations"][1]["form"]["text"].startswith("M_t = (1 - alpha_t)")
    assert ridge["equations"][1]["at"] == {"path": "ridge.context.md", "line": 64}
    assert ridge["ambiguities"][0]["options"] == ["before", "after"]


def test_a_rubric_has_a_leaf_for_each_equation_criterion_and_result() -> None:
    rubric = as_rubric(papers())
    found = leaves(rubric)
    by_category = {
        name: sum(leaf["task_category"] == name for leaf in found) for name in CATEGORIES
    }
    assert by_category == {"Code Development": 6, "Code Execution": 9, "Result Analysis": 1}
    assert {leaf["finegrained_task_category"] for leaf in found} <= FINER
    assert len({leaf["id"] for leaf in found}) == len(found)


def test_every_node_of_a_rubric_has_the_same_keys_and_a_weight() -> None:
    keys = {"id", "requirements", "weight", "sub_tasks", "task_category",
            "finegrained_task_category"}  # fmt: skip
    waiting = [as_rubric(papers())]
    while waiting:
        node = waiting.pop()
        assert node.keys() == keys
        assert node["weight"] > 0
        assert node["requirements"]
        assert bool(node["sub_tasks"]) == (node["task_category"] is None)
        waiting += node["sub_tasks"]
