"""A state comes back from its skeleton and tensors bit for bit, or is refused by its path."""

from __future__ import annotations

import collections
import copy
import enum
import hashlib
import json
import math
import struct
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cupel.checkpoint.codec import DTYPES, collect, flatten, skeleton_hash, state_hash, unflatten
from cupel.errors import CheckpointDamaged

# Not "too slow": that measures how busy the machine is.
quick = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def same(one: Any, other: Any) -> bool:
    """Bit-for-bit equality, written down independently of the codec."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        alike = one.dtype == other.dtype and one.shape == other.shape
        return alike and one.stride() == other.stride() and raw(one) == raw(other)
    if isinstance(one, dict):
        keys = zip(one, other, strict=False)
        return len(one) == len(other) and all(
            same(a, b) and same(one[a], other[b]) for a, b in keys
        )
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return struct.pack("d", one) == struct.pack("d", other) if type(one) is float else one == other


def round_trip(state: Any) -> Any:
    skeleton, tensors = flatten(state)
    return unflatten(json.loads(json.dumps(skeleton)), tensors)


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    shape = draw(st.lists(st.integers(0, 3), max_size=4))
    dtype = draw(st.sampled_from(sorted(DTYPES, key=str)))
    content = draw(st.binary(min_size=16 * 81, max_size=16 * 81))
    count = math.prod(shape) * dtype.itemsize
    limit = 1 if dtype == torch.bool else 255
    data = torch.tensor([min(b, limit) for b in content[:count]], dtype=torch.uint8)
    return data.view(dtype).reshape(shape) if count else torch.empty(shape, dtype=dtype)


scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(2**200), 2**200)
    | st.floats()
    | st.text(st.characters())
    | st.text(st.characters(categories=["Cs", "Lu"]))
    | st.binary(max_size=8)
)
keys = st.text(max_size=6) | st.integers(-3, 3) | st.floats(allow_nan=False) | st.none()
states = st.recursive(
    scalars | tensors(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(keys, inner, max_size=3)
    ),
    max_leaves=12,
)


@quick
@given(states)
@pytest.mark.slow
def test_every_state_comes_back_bit_for_bit(state: Any) -> None:
    assert same(round_trip(state), state)


@quick
@given(states)
@pytest.mark.slow
def test_the_hash_does_not_change_by_the_round_trip(state: Any) -> None:
    assert state_hash(round_trip(state)) == state_hash(state)


def plain_hash(state: Any) -> str:
    """The hash by its definition, written down independently: what old manifests hold."""

    def node(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            digest = hashlib.sha256(raw(value)).hexdigest()
            return {"tensor": [str(value.dtype), list(value.shape), digest]}
        if isinstance(value, dict):
            pairs = [[node(key), node(held)] for key, held in value.items()]
            return {"dict": sorted(pairs, key=lambda pair: json.dumps(pair[0]).encode())}
        if isinstance(value, list):
            return [node(item) for item in value]
        if isinstance(value, tuple):
            return {"tuple": [node(item) for item in value]}
        return flatten(value)[0]

    return hashlib.sha256(json.dumps(node(state)).encode()).hexdigest()


@quick
@given(states)
@pytest.mark.slow
def test_the_hash_is_what_it_always_was(state: Any) -> None:
    assert state_hash(state) == plain_hash(state)


@quick
@given(states)
def test_the_hash_can_be_put_together_from_those_of_the_tensors(state: Any) -> None:
    skeleton, held = collect(state)
    skeleton = json.loads(json.dumps(skeleton))
    digests = {name: hashlib.sha256(raw(tensor)).hexdigest() for name, tensor in held.items()}
    assert skeleton_hash(skeleton, held, digests) == state_hash(state)


confusable = st.recursive(
    st.sampled_from([None, False, 0, 0.0, -0.0, "", "0", b"", torch.zeros(1), -torch.zeros(1)]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.lists(inner, max_size=2).map(tuple)
        | st.dictionaries(st.sampled_from(["", "0", 0, None]), inner, max_size=2)
    ),
    max_leaves=3,
)


@settings(quick, max_examples=300)
@given(confusable, confusable)
@pytest.mark.slow
def test_hashes_are_equal_only_for_equal_states(one: Any, other: Any) -> None:
    def sorted_keys(state: Any) -> Any:  # the one liberty that the hash takes
        if isinstance(state, dict):
            return {key: sorted_keys(state[key]) for key in sorted(state, key=lambda k: repr(k))}
        return type(state)(map(sorted_keys, state)) if isinstance(state, list | tuple) else state

    assert (state_hash(one) == state_hash(other)) == same(sorted_keys(one), sorted_keys(other))


def test_the_tensors_are_ones_that_safetensors_takes(tmp_path: Any) -> None:
    base = torch.arange(6.0).reshape(2, 3)
    image = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    odd = {"": base, 0: base + 2, "0": base + 3, "\udc80\n": base + 4}
    state = {"t": base.t(), "row": base[1], "again": base, "image": image, "odd": odd}
    state["__metadata__"] = base + 1
    state |= {str(d): torch.zeros(4, dtype=torch.uint8).view(d) for d in DTYPES if d.itemsize <= 4}
    skeleton, held = flatten(state)
    safetensors.torch.save_file(held, tmp_path / "x")
    loaded = unflatten(skeleton, safetensors.torch.load_file(tmp_path / "x"))
    assert all(torch.equal(loaded[key], state[key]) for key in ("t", "again", "__metadata__"))
    assert torch.equal(loaded["row"], base[1])
    assert torch.equal(loaded["image"], image)
    assert all(torch.equal(loaded["odd"][key], odd[key]) for key in odd)
    assert all(raw(loaded[str(d)]) == raw(state[str(d)]) for d in DTYPES if d.itemsize <= 4)


def test_every_dtype_of_safetensors_is_known() -> None:
    assert {dtype for dtype in safetensors.torch._SIZE if dtype is not None} == DTYPES


def test_names_in_a_module_are_the_names_in_the_file() -> None:
    module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    assert list(flatten(module.state_dict())[1]) == list(module.state_dict())


def test_tied_tensors_are_stored_once_and_come_back_tied() -> None:
    weight = torch.randn(3, 4)
    state = {"embed": weight, "head": weight, "alias": weight.view(3, 4), "t": weight.t()}
    assert list(flatten(state)[1]) == ["embed", "t"]
    loaded = round_trip(state)
    assert loaded["embed"] is loaded["head"] is loaded["alias"]
    assert loaded["t"].data_ptr() != loaded["embed"].data_ptr()
    assert same(loaded["t"].contiguous(), weight.t().contiguous())


def test_empty_tensors_are_not_taken_for_tied() -> None:
    loaded = round_trip([torch.empty(0), torch.empty(0)])
    assert loaded[0] is not loaded[1]


def test_overlapping_views_become_copies_with_their_values() -> None:
    base = torch.arange(10.0)
    _, held = flatten([base[:6], base[4:], base[::2], base.expand(2, 10)])
    starts = [tensor.untyped_storage().data_ptr() for tensor in held.values()]
    assert len(set(starts)) == len(starts) == 4
    expected = [base[:6], base[4:], base[::2], base.expand(2, 10)]
    assert all(map(torch.equal, round_trip(expected), expected))


def test_lazy_conjugates_and_negatives_are_carried_out() -> None:
    z = torch.tensor([1 + 2j, 3 - 4j], dtype=torch.complex64)
    loaded = round_trip({"z": z, "conjugate": z.conj(), "negative": z.conj().imag})
    assert raw(loaded["conjugate"]) == raw(z.conj().resolve_conj())
    assert raw(loaded["negative"]) == raw(z.conj().imag.resolve_neg())
    assert state_hash(z.conj()) == state_hash(z.conj().resolve_conj()) != state_hash(z)


def test_a_fused_optimizer_goes_on_exactly_after_the_round_trip() -> None:
    # Its kernel walks weight and moments as flat memory: contiguous moments of a channels_last
    # weight would go to other elements, without an error.
    def build() -> tuple[torch.nn.Parameter, torch.optim.Optimizer]:
        weight = torch.linspace(-1, 1, 300).reshape(4, 3, 5, 5)
        parameter = torch.nn.Parameter(weight.to(memory_format=torch.channels_last))
        return parameter, torch.optim.AdamW([parameter], lr=0.1, fused=True)

    def step(parameter: torch.nn.Parameter, optimizer: torch.optim.Optimizer) -> None:
        parameter.grad = torch.sin(parameter.detach() * 7)
        optimizer.step()

    (one, optimizer), (two, resumed) = build(), build()
    step(one, optimizer)
    with torch.no_grad():
        two.copy_(one)
    resumed.load_state_dict(round_trip(copy.deepcopy(optimizer.state_dict())))
    for _ in range(3):
        step(one, optimizer)
        step(two, resumed)
    assert same(one.detach(), two.detach())


def test_what_was_on_an_accelerator_goes_to_map_location_and_the_rest_stays() -> None:
    skeleton = [{"tensor": "moment", "device": "cuda"}, {"tensor": "step"}]
    held = {"moment": torch.ones(2), "step": torch.ones(())}
    moment, step = unflatten(skeleton, held, map_location="meta")
    assert (moment.device.type, step.device.type) == ("meta", "cpu")


def test_an_ordered_dict_comes_back_as_a_dict() -> None:
    state = collections.OrderedDict(b=1, a=2)
    assert list(round_trip(state).items()) == [("b", 1), ("a", 2)]
    assert type(round_trip(state)) is dict


class Color(enum.IntEnum):
    RED = 1


Pair = collections.namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    "value",
    [
        np.zeros(2),
        np.float64(1.0),
        np.int64(1),
        Color.RED,
        Pair(1, 2),
        torch.Size([1]),
        torch.float32,
        {1},
        1j,
        object(),
        len,
        torch.zeros(1, dtype=torch.complex128),
        torch.zeros(1, device="meta"),
        torch.zeros(2, 2).to_sparse(),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_be_held_is_refused_with_its_path(value: Any) -> None:
    for refuse in (flatten, state_hash):
        with pytest.raises(TypeError, match=r"'outer/1' .*cannot be checkpointed"):
            refuse({"outer": [0, value]})


def test_a_key_that_cannot_be_held_is_refused() -> None:
    with pytest.raises(TypeError, match=r"tuple at 'outer'.*cannot be checkpointed"):
        flatten({"outer": {(1, 2): 0}})


@pytest.mark.parametrize("one, other", [
    (1, 1.0), (0.0, -0.0), (1, True), ("1", 1), ([1], (1,)), ({"1": 0}, {1: 0}), (None, "null"),
    ("a", b"a"), ([], {}), (torch.zeros(2), torch.zeros(2, 1)), (torch.zeros(1), torch.zeros(())),
    (torch.zeros(2), torch.zeros(2, dtype=torch.int32)), (torch.zeros(1), -torch.zeros(1)),
    (torch.zeros(1), [0.0]), ({"tensor": "x"}, {"dict": [["tensor", "x"]]}),
])  # fmt: skip
def test_the_hash_sees_types_shapes_and_signs_of_zero(one: Any, other: Any) -> None:
    assert state_hash(one) != state_hash(other)


def test_the_hash_does_not_see_layout_tying_and_order_of_keys() -> None:
    weight = torch.randn(2, 3, 4, 4)
    last = weight.to(memory_format=torch.channels_last)
    assert state_hash([weight, weight]) == state_hash([last, weight.clone()])
    assert state_hash({"a": 1, "b": [{"c": 2, 3: 4}]}) == state_hash(
        {"b": [{3: 4, "c": 2}], "a": 1}
    )


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["dict", "tuple", "tensor", "int", "float", "str", "bytes", "stride"]),
            inner,
            max_size=2,
        )
    ),
    max_leaves=8,
)


@quick
@given(json_values)
def test_a_garbage_skeleton_is_called_damaged(skeleton: Any) -> None:
    with pytest.raises(CheckpointDamaged, match=r"^the structure of the state [^\n]*$"):
        unflatten(skeleton, {"weight": torch.zeros(2)})


@pytest.mark.parametrize("stride", [[1, 1], [-1], [1.5], "1", 1, {}])
def test_garbage_strides_are_called_damaged(stride: Any) -> None:
    with pytest.raises(CheckpointDamaged, match="the structure of the state cannot be read"):
        unflatten({"tensor": "x", "stride": stride}, {"x": torch.zeros(2)})


def test_a_tensor_that_is_missing_or_left_over_is_called_damaged() -> None:
    skeleton, held = flatten({"a": torch.zeros(1), "b": torch.ones(1)})
    with pytest.raises(CheckpointDamaged, match="KeyError: 'b'"):
        unflatten(skeleton, {"a": held["a"]})
    with pytest.raises(CheckpointDamaged, match=r"no place for \['c'\]"):
        unflatten(skeleton, {**held, "c": torch.zeros(1)})
