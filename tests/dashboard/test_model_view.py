"""The tree of a model: its numbers, its folds, two of them side by side, and the text of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.testclient import TestClient
from torch import Tensor, nn

from cupel.dashboard import models
from cupel.dashboard.model_diff import DiffNode, compare
from cupel.dashboard.model_folds import fold, unfold
from cupel.dashboard.model_tree import Described, Edge, Node, layer_of, tree
from cupel.dashboard.model_view import ModelView, as_text, norm_keys, view
from cupel.dashboard.replies import encode, refused
from cupel.dashboard.store import Store
from cupel.errors import CupelError
from cupel.models.gpt.model import GPT
from cupel.models.gpt.settings import GPTModelSettings
from cupel.models.resnet.model import ResNet
from cupel.models.resnet.settings import ResNetModelSettings
from cupel.models.wave.model import WaveGPT
from cupel.models.wave.settings import WaveModelSettings
from cupel.monitors import norms
from cupel.record.calls import trace
from cupel.record.model import describe_model
from cupel.record.session import Session


def gpt(layers: int = 4, **more: Any) -> GPT:
    return GPT(GPTModelSettings(layers=layers, heads=2, width=16, block=8, vocabulary=11, **more))


def wave() -> WaveGPT:
    settings = WaveModelSettings(layers=4, heads=2, width=16, waves=4, block=8, vocabulary=11)
    return WaveGPT(settings)


def resnet() -> ResNet:
    return ResNet(ResNetModelSettings(stages=(8, 16), blocks=3, channels_in=3, classes=10))


def described(model: nn.Module, *given: Any) -> dict[str, Any]:
    """model.json of a model, with the calls of one pass if something is given."""
    told = describe_model(model)
    if given:
        tracer = trace(model)
        model(*given)
        told["calls"] = tracer.finish(1)
        assert told["calls"]["complete"]
    return msgspec.json.decode(msgspec.json.encode(told))


def tokens() -> Tensor:
    return torch.arange(16).reshape(2, 8) % 11


def root(found: ModelView | dict[str, Any]) -> Node:
    shown = view(found) if isinstance(found, dict) else found
    assert shown.root is not None, shown.reason
    return shown.root


def at(node: Node, path: str) -> Node:
    """A node of a folded or unfolded tree."""
    every = [*nodes(node)]
    return next(one for one in every if one.path == path and not one.members)


def nodes(node: Node) -> list[Node]:
    inside = [found for child in (*node.children, *node.members) for found in nodes(child)]
    return [node, *inside]


def plain(model: dict[str, Any]) -> Node:
    return tree(msgspec.convert(model, Described))


# ---- the tree ----------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [gpt(), gpt(tied=True), wave(), resnet()])
def test_every_parameter_is_counted_once(model: nn.Module) -> None:
    told = described(model)
    numbers = sum(p.numel() for p in model.parameters())
    shown = view(told)
    assert root(shown).total == shown.n_params == numbers
    every = nodes(plain(told))
    assert sum(one.own for one in every) == numbers
    assert {one.path for one in every} == {p for p, _ in model.named_modules()}
    for one in every:
        assert one.total == one.own + sum(child.total for child in one.children)
        assert one.share == pytest.approx(one.total / numbers)


def test_a_gpt_is_shown_with_its_blocks_as_one() -> None:
    shown = view(described(gpt(12), tokens(), tokens()))
    assert {size.name: size.value for size in shown.sizes}["layers"] == 12
    blocks = at(root(shown), "blocks")
    (group,) = blocks.children
    assert (group.name, group.kind, group.folds) == ("0–11", "Block", 12)
    assert group.paths == [f"blocks.{i}" for i in range(12)]
    assert group.total == blocks.total == 12 * group.members[0].total
    assert blocks.edges == [Edge("", "0–11", False), Edge("0–11", "", False)]
    assert blocks.unfolded_edges is not None
    assert len(blocks.unfolded_edges) == 13
    first = group.members[0]
    assert first.inputs == first.outputs
    assert first.inputs is not None
    assert first.inputs[0].shape == [2, 8, 16]
    assert shown.seen is not None
    assert (shown.seen.complete, shown.seen.step) == (True, 1)


def test_a_tied_head_has_no_parameters_of_its_own_and_says_whose_they_are() -> None:
    head = at(root(described(gpt(tied=True))), "head")
    assert (head.own, head.total, head.trainable) == (0, 0, "all")
    assert [(t.name, t.tied_to) for t in head.tensors] == [("weight", "tokens.weight")]


def test_what_is_frozen_shows_from_the_leaf_to_the_root() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2)), nn.ReLU())
    for parameter in model[1].parameters():
        parameter.requires_grad_(False)
    found = root(described(model))
    assert [found.trainable, *(child.trainable for child in found.children)] == [
        "some", "all", "none", None
    ]  # fmt: skip


def test_buffers_are_shown_and_not_counted() -> None:
    norm = at(root(described(resnet())), "stem.norm")
    assert [t.name for t in norm.tensors if t.buffer] == [
        "running_mean", "running_var", "num_batches_tracked"
    ]  # fmt: skip
    assert norm.own == 16
    assert norm.dtypes == ["float32"]


def test_a_shared_module_stands_where_it_is_used_and_counts_once() -> None:
    shared = nn.Linear(3, 3)
    model = nn.Sequential(shared, nn.ReLU(), shared, nn.Tanh())
    found = root(described(model, torch.ones(1, 3)))
    assert [child.name for child in found.children] == ["0", "1", "2", "3"]
    assert [child.total for child in found.children] == [12, 0, 0, 0]
    assert found.children[0].also == ["2"]
    assert found.children[2].shared_with == "0"
    assert found.children[0].calls == 2


def test_what_was_never_called_is_told_apart_from_what_is_not_known() -> None:
    class Half(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(2, 2), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.used(x)
            return y

    told = described(Half(), torch.ones(1, 2))
    assert [child.calls for child in root(told).children] == [1, 0]
    assert "idle: Linear" in as_text(view(told))
    assert "not called" in as_text(view(told))
    told["calls"]["complete"] = False
    assert [child.calls for child in root(told).children] == [1, None]
    del told["calls"]
    assert [child.calls for child in root(told).children] == [None, None]
    assert "not called" not in as_text(view(told))


def test_norms_are_shown_at_the_layers_that_they_are_of() -> None:
    model = gpt(3)
    told = described(model, tokens())
    keys = [key for name, _ in model.named_parameters() for key in [norms.layer_of(name)]]
    assert [layer_of(name) for name, _ in model.named_parameters()] == keys
    assert {"grad_norm/blocks.2", "weight_norm/head", "grad_norm/total"} <= set(norm_keys(told))
    found = view(told, {"grad_norm/blocks.2": (9, 0.5), "weight_norm/total": (9, 3.0)})
    block = at(root(found), "blocks.2").grad_norm
    assert block is not None
    assert (block.step, block.value) == (9, 0.5)
    assert at(root(found), "blocks.1").grad_norm is None
    assert root(found).weight_norm is not None


def test_without_a_file_or_with_a_strange_one_there_is_a_reason_and_no_tree() -> None:
    assert "run.watch(model)" in view(None).reason
    for strange in (
        {"modules": 3},
        {"tensors": {"a": 1}},
        {"class": None},
        {"modules": {".".join("a" * 200): "x:Y"}},
    ):
        shown = view(strange)
        assert not shown.available
        assert shown.root is None
        assert shown.reason.startswith("model.json is not as cupel writes it")
        assert as_text(shown) == shown.reason


def test_a_file_of_an_older_version_gives_its_tree() -> None:
    new = ("shared_modules", "buffers", "sizes", "extra", "calls")
    told = {key: value for key, value in described(gpt(3)).items() if key not in new}
    found = root(told)
    assert found.total == told["parameters"]
    assert at(found, "blocks").children[0].folds == 3
    assert root({"parameters": 7}).path == ""


# ---- folding -----------------------------------------------------------------------------------


def test_what_differs_is_not_folded() -> None:
    model = gpt(6)
    model.blocks[2].mlp.up = nn.Linear(16, 64, bias=False)
    blocks = at(root(described(model)), "blocks")
    assert [child.name for child in blocks.children] == ["0–1", "2", "3–5"]


@pytest.mark.slow
def test_blocks_that_were_called_otherwise_are_not_folded() -> None:
    class Growing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList(nn.ReLU() for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            for i, layer in enumerate(self.layers):
                x = layer(x if i < 2 else torch.cat([x, x]))
            return x

    layers = at(root(described(Growing(), torch.ones(1, 2))), "layers")
    assert [child.name for child in layers.children] == ["0–1", "2", "3"]


def test_ties_within_a_block_fold_and_ties_to_elsewhere_only_when_they_are_equal() -> None:
    class Tied(nn.Module):
        def __init__(self, weight: nn.Parameter | None) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(2, 2), nn.Linear(2, 2)
            self.b.weight = self.a.weight if weight is None else weight

    inside = nn.ModuleList(Tied(None) for _ in range(3))
    assert root(described(inside)).children[0].folds == 3
    weight = nn.Parameter(torch.ones(2, 2))
    across = nn.ModuleList(Tied(weight) for _ in range(3))
    assert [child.name for child in root(described(across)).children] == ["0", "1–2"]


@pytest.mark.slow
def test_a_group_that_is_only_inferred_to_follow_says_so() -> None:
    class Adding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers, self.end = nn.ModuleList(nn.Linear(2, 2) for _ in range(3)), nn.Tanh()

        def forward(self, x: Tensor) -> Tensor:
            for layer in self.layers:
                x = x + layer(x)
            y: Tensor = self.end(x)
            return y

    found = root(described(Adding(), torch.ones(1, 2)))
    assert Edge("layers", "end", True) in found.edges
    # The first one is given what the container is given; that is known.
    assert at(found, "layers").edges == [Edge("", "0–2", False), Edge("0–2", "", True)]


_CHILDREN = st.sampled_from(
    [(), ("0", "1"), ("0", "1", "2"), ("a", "0", "1"), ("0", "2", "3"), ("1", "2", "a", "b")]
)
_LINKS = st.sampled_from([(), ((0, 1), (1, 2)), ((1, 1), (2, 0)), ((0, 2), (1, 0))])


@st.composite
def trees(draw: st.DrawFn, path: str = "", depth: int = 2) -> Node:
    """Trees with many equal neighbours, by drawing from few possibilities."""
    names = draw(_CHILDREN) if depth else ()
    children = [draw(trees(f"{path}.{name}".strip("."), depth - 1)) for name in names]
    ends = ["", *names]
    inferred = draw(st.booleans())
    edges = [
        Edge(ends[a % len(ends)], ends[b % len(ends)], inferred != (b == 0))
        for a, b in draw(_LINKS)
    ]
    return Node(
        path=path,
        name=path.rpartition(".")[2],
        kind="A",
        module=draw(st.sampled_from(["m:A", "m:B"])) if not depth else "m:C",
        own=1,
        total=1 + sum(child.total for child in children),
        share=0.0,
        order=len(path) + int(f"0{path[-1:]}") if path[-1:].isdigit() else None,
        children=children,
        edges=edges,
    )


@settings(max_examples=60)
@given(trees())
def test_unfolding_takes_folding_back_and_nothing_is_lost(node: Node) -> None:
    before = msgspec.json.encode(node)
    folded = fold(node)
    assert unfold(folded) == node
    assert msgspec.json.encode(node) == before
    for one in nodes(folded):
        assert sum(child.total for child in one.children) in (one.total - 1, 0)
        assert one.folds == max(1, len(one.members)) == max(1, len(one.paths))
        names = {child.name for child in one.children} | {""}
        if not one.members:
            assert all(e.source in names and e.target in names for e in one.edges)


@given(trees())
@pytest.mark.slow
def test_no_two_neighbours_that_are_left_could_be_folded(node: Node) -> None:
    folded = fold(node)
    assert fold(unfold(folded)) == folded
    for one in nodes(folded):
        for a, b in zip(one.children, one.children[1:], strict=False):
            if not a.members and not b.members and a.name.isdigit() and b.name.isdigit():
                assert int(a.name) + 1 != int(b.name) or _differ(a, b)


def _differ(a: Node, b: Node) -> bool:
    same = (a.module, a.total, a.edges) == (b.module, b.total, b.edges)
    inner = [c.name for c in unfold(a).children] == [c.name for c in unfold(b).children]
    pairs = zip(unfold(a).children, unfold(b).children, strict=False)
    return (
        not (same and inner)
        or unfold(a).edges != unfold(b).edges
        or any(_differ(*pair) for pair in pairs)
    )


# ---- two of them -------------------------------------------------------------------------------


def pairs(node: DiffNode) -> list[DiffNode]:
    return [node, *(found for child in node.children for found in pairs(child))]


def pair(node: DiffNode, name: str) -> DiffNode:
    every = pairs(node)
    return next(p for p in every if name in {s.name for s in (p.left, p.right) if s is not None})


@pytest.mark.parametrize("model", [gpt(), wave(), resnet()])
def test_a_model_is_the_same_as_itself(model: nn.Module) -> None:
    shown = view(described(model))
    diff = compare(shown, shown)
    assert diff.available
    assert diff.same
    assert diff.root is not None
    assert {one.status for one in pairs(diff.root)} == {"same"}


def test_more_layers_are_only_on_one_side() -> None:
    diff = compare(view(described(gpt(4))), view(described(gpt(6))))
    assert diff.root is not None
    assert not diff.same
    blocks = pair(diff.root, "blocks")
    assert [(child.status, child.folds) for child in blocks.children] == [("same", 4), ("right", 2)]
    assert blocks.children[1].rights == ["blocks.4", "blocks.5"]
    assert [change.what for change in blocks.changes] == ["params"]
    assert pair(diff.root, "head").status == "same"


def test_a_gpt_and_a_wave_gpt_differ_where_they_do() -> None:
    diff = compare(view(described(gpt())), view(described(wave())))
    assert diff.root is not None
    assert "class" in {change.what for change in diff.root.changes}
    blocks = pair(diff.root, "blocks")
    (block,) = blocks.children
    assert block.folds == 4
    attention = pair(block, "attention")
    assert attention.status == "changed"
    assert pair(block, "mlp_norm").status == "same"
    statuses = {one.status for one in pairs(diff.root)}
    assert statuses == {"same", "changed", "left", "right"}


def test_a_renamed_module_is_found_again_by_its_class() -> None:
    a = nn.ModuleDict({"mlp": nn.Linear(2, 2), "norm": nn.LayerNorm(2)})
    b = nn.ModuleDict({"norm": nn.LayerNorm(2), "ffn": nn.Linear(2, 2)})
    diff = compare(view(described(a)), view(described(b)))
    assert diff.root is not None
    assert [change.what for change in pair(diff.root, "ffn").changes] == ["name"]


def test_frozen_tied_and_reshaped_parameters_are_changes() -> None:
    def changes(other: nn.Module) -> set[str]:
        diff = compare(view(described(nn.Sequential(nn.Linear(2, 3)))), view(described(other)))
        assert diff.root is not None
        return {change.what for change in diff.root.children[0].changes}

    frozen = nn.Sequential(nn.Linear(2, 3).requires_grad_(False))
    assert changes(frozen) == {"shapes"}
    assert changes(nn.Sequential(nn.Linear(3, 2))) == {"shapes", "settings", "params"}
    assert changes(nn.Sequential(nn.Bilinear(1, 1, 3))) >= {"class"}


@settings(max_examples=40)
@given(trees(), trees())
def test_of_any_two_trees_every_module_stands_in_exactly_one_place(a: Node, b: Node) -> None:
    left, right = (ModelView(True, root=fold(node)) for node in (a, b))
    diff = compare(left, right)
    assert diff.root is not None
    there = pairs(diff.root)
    assert len({one.path for one in nodes(a)}) >= sum(one.left is not None for one in there)
    whole: dict[str, int] = {"left": 0, "right": 0}
    for one, times in _unfolded(diff.root, 1):
        whole["left"] += times * (one.left is not None)
        whole["right"] += times * (one.right is not None)
    assert whole == {"left": len(nodes(a)), "right": len(nodes(b))}
    back = compare(right, left)
    assert back.same == diff.same == (not any(one.status != "same" for one in there))


def _unfolded(node: DiffNode, times: int) -> list[tuple[DiffNode, int]]:
    here = times * node.folds
    return [(node, here), *(found for child in node.children for found in _unfolded(child, here))]


def test_what_cannot_be_shown_is_not_compared() -> None:
    diff = compare(view(None), view(described(gpt())))
    assert not diff.available
    assert diff.reason.startswith("left: this run has no model.json")
    assert diff.root is None


# ---- as text, and as served --------------------------------------------------------------------


def test_the_text_has_the_tree_with_its_numbers() -> None:
    text = as_text(view(described(gpt(12, tied=True), tokens(), tokens())))
    lines = text.split("\n")
    assert lines[0].startswith("GPT · ")
    assert lines[0].endswith("(2, 8), (2, 8) → (2, 8, 11), ()")
    assert any(line.startswith("│  └─ 0–11: Block ×12 · ") for line in lines)
    assert "└─ head: Linear(in_features=16, out_features=11, bias=False)" in lines[-1]
    assert "weight tied to tokens.weight" in lines[-1]
    assert len(lines) < 20


def test_a_view_goes_through_json_as_it_is() -> None:
    shown = view(described(resnet(), torch.randn(2, 3, 8, 8)), {"grad_norm/head": (1, 2.0)})
    assert msgspec.json.decode(encode(shown), type=ModelView) == shown


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    tmp_path = tmp_path_factory.mktemp("runs")
    for run_id, model in (("one", gpt(2)), ("two", gpt(3)), ("none", None)):
        session = Session.start(
            root=tmp_path, project="p", name="n", config={}, identity="i", run_id=run_id
        )
        if model is not None:
            session.write_run_json("model.json", described(model, tokens()))
            session.log({"grad_norm/blocks.1": 0.25, "weight_norm/head": float("nan")}, step=3)
            session.log({"grad_norm/blocks.1": 0.5}, step=4)
        session.finish("finished")
    session = Session.start(
        root=tmp_path, project="q", name="n", config={}, identity="i", run_id="damaged"
    )
    (session.run_dir / "model.json").write_text("{")
    session.finish("finished")
    app = Starlette(routes=models.routes(), exception_handlers={CupelError: refused})
    app.state.store = Store(tmp_path)
    yield TestClient(app)
    app.state.store.close()


@pytest.mark.slow
def test_the_model_of_a_run_is_served_with_its_newest_norms(client: TestClient) -> None:
    reply = client.get("/api/v1/runs/one/model").json()
    assert reply["available"]
    assert reply["seen"] == {"complete": True, "reason": None, "step": 1}
    blocks = next(child for child in reply["root"]["children"] if child["name"] == "blocks")
    members = blocks["children"][0]["members"]
    assert [one.get("grad_norm") for one in members] == [None, {"step": 4, "value": 0.5}]
    head = reply["root"]["children"][-1]
    assert head["weight_norm"] == {"step": 3, "value": "NaN"}


def test_a_run_without_a_model_and_one_with_a_damaged_file_say_so(client: TestClient) -> None:
    assert "run.watch(model)" in client.get("/api/v1/runs/none/model").json()["reason"]
    reply = client.get("/api/v1/runs/damaged/model?project=q")
    assert reply.json()["reason"] == "model.json of this run is damaged: it cannot be read"
    assert client.get("/api/v1/runs/nobody/model").status_code == 404


@pytest.mark.slow
def test_two_runs_are_served_side_by_side(client: TestClient) -> None:
    reply = client.get("/api/v1/models/compare?a=p/one&b=p/two").json()
    assert reply["available"]
    assert not reply["same"]
    assert client.get("/api/v1/models/compare?a=p/one").status_code == 400
    assert client.get("/api/v1/models/compare?a=p/one&b=p/nobody").status_code == 404
    assert client.get("/api/v1/models/compare?a=p/one&b=../../etc").status_code == 404
