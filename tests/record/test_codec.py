"""What goes into a line comes out of it, and garbage is refused by name."""

from __future__ import annotations

import contextlib
import math
import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cupel.record.codec import (
    MOST_NUMBERS,
    decode_line,
    encode_document,
    encode_event,
    encode_line,
    encode_step,
    shortened,
)

NUMBERS = st.one_of(st.floats(), st.booleans(), st.integers(-(2**63), 2**64 - 1))
LISTS = st.recursive(NUMBERS, lambda inner: st.lists(inner, max_size=4), max_leaves=20)
KEYS = st.text(st.characters(exclude_categories=["Cs"]))


def same(one: object, other: object) -> bool:
    """Equal in type and in every bit, except that all NaNs are one."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and isinstance(other, float):
        if math.isnan(one) or math.isnan(other):
            return math.isnan(one) and math.isnan(other)
        return struct.pack("d", one) == struct.pack("d", other)
    return type(one) is type(other) and one == other


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(KEYS, LISTS, max_size=8))
@pytest.mark.slow
def test_a_line_of_metrics_comes_back_bit_for_bit(metrics: dict[str, object]) -> None:
    line = encode_line(metrics)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    decoded = decode_line(line)
    assert list(decoded) == list(metrics)
    assert all(same(decoded[key], value) for key, value in metrics.items())


ANY = LISTS | st.integers() | st.none() | st.text(max_size=3) | st.just(Fraction(1, 2))


@settings(deadline=None, max_examples=200)
@given(
    st.dictionaries(KEYS | st.sampled_from(["_step", "_t", "null", "NaN"]), ANY, max_size=4),
    st.integers(-(2**40), 2**40),
    st.floats(0, 1e10),
)
@pytest.mark.slow
def test_the_quick_way_of_a_step_writes_and_refuses_what_the_careful_one_does(
    metrics: dict[str, object], step: int, now: float
) -> None:
    def line_or_error(encode: Callable[[], bytes]) -> bytes | str:
        try:
            return encode()
        except (TypeError, ValueError) as error:
            return str(error)

    quick = line_or_error(lambda: encode_step(step, now, metrics))
    if {"_step", "_t"} & metrics.keys():
        assert "are the record's own" in str(quick)
    else:
        fields = {"_step": step, "_t": now, **metrics}
        assert quick == line_or_error(lambda: encode_line(fields))


@pytest.mark.parametrize(
    "metrics",
    [{"a": 2**70, "b": -(2**70)}, {1: 2.0}, {"\udcff": 1.0}, {"a": None}, {"a": 10**5000}],
)
def test_nothing_slips_through_the_quick_way(metrics: dict[str, object]) -> None:
    with pytest.raises((TypeError, ValueError)):
        encode_step(1, 2.0, metrics)


def test_what_looks_too_large_in_sum_is_kept() -> None:
    metrics = {"a": 1e308, "b": 1e308, "c": 2**64 - 1, "d": True, "e": -math.inf}
    assert decode_line(encode_step(1, 2.0, metrics)) == {"_step": 1, "_t": 2.0, **metrics}


def test_a_message_shows_the_beginning_of_a_very_long_name() -> None:
    with pytest.raises(TypeError, match=r"the metric 'x+…': None") as raised:
        encode_step(1, 2.0, {"x" * 10_000: None})
    assert len(str(raised.value)) < 300
    assert shortened("loss") == "loss"


@settings(deadline=None, max_examples=60)
@given(st.floats(width=32))
def test_numpy_and_tensor_scalars_are_numbers(value: float) -> None:
    torch = pytest.importorskip("torch")
    scalars = {
        "f32": np.float32(value),
        "f64": np.float64(value),
        "0d": np.array(value),
        "tensor": torch.tensor(value, requires_grad=True),
    }
    decoded = decode_line(encode_line(scalars))
    assert all(same(decoded[key], float(value)) for key in scalars)


def test_small_arrays_and_lists_are_kept_and_large_ones_refused_by_name() -> None:
    line = encode_line({"h": np.arange(MOST_NUMBERS), "m": [np.float32(1), [2, math.nan]]})
    decoded = decode_line(line)
    assert decoded["h"] == list(range(MOST_NUMBERS))
    assert same(decoded["m"], [1.0, [2, math.nan]])
    for large in (np.zeros(1025), np.zeros((33, 32)), [0.0] * 1025, [[0.0] * 600] * 2):
        with pytest.raises(TypeError, match="grad/hist"):
            encode_line({"loss": 1.0, "grad/hist": large})


@pytest.mark.parametrize(
    "value",
    [
        "0.5",
        None,
        1j,
        Fraction(1, 2),
        2**64,
        -(2**63) - 1,
        {"a": 1},
        object(),
        np.array(["x"]),
        [1.0, "x"],
        [[None]],
    ],
)
def test_what_is_no_number_is_refused_by_name(value: object) -> None:
    with pytest.raises(TypeError, match="val_loss"):
        encode_line({"loss": 1.0, "val_loss": value})


@pytest.mark.parametrize("key", [3, None, "\udcff"])
def test_a_name_that_is_no_text_is_refused(key: object) -> None:
    with pytest.raises(TypeError, match="name"):
        encode_line({key: 1.0 if isinstance(key, str) else 1})  # type: ignore[dict-item]


DOCUMENTS = st.recursive(
    st.one_of(st.none(), NUMBERS, KEYS.filter(lambda t: t not in ("NaN", "Infinity", "-Infinity"))),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=12,
)


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(KEYS, DOCUMENTS, max_size=4))
def test_documents_and_events_come_back(fields: dict[str, object]) -> None:
    for encoded in (encode_document(fields), encode_event(fields)):
        assert repr(decode_line(encoded)) == repr(fields)


def test_documents_take_paths_tuples_and_broken_text() -> None:
    encoded = encode_document({"path": Path("/a"), "pair": (1, 2), "bad": "x\udcff", 3: np.int8(1)})
    assert decode_line(encoded) == {"path": "/a", "pair": [1, 2], "bad": "x\\udcff", "3": 1}
    with pytest.raises(TypeError, match="object"):
        encode_document({"a": object()})


@settings(deadline=None, max_examples=60)
@given(st.binary())
def test_garbage_is_a_value_error(garbage: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(decode_line(garbage), dict)


@pytest.mark.parametrize("garbage", [b"", b"[1]", b"1", b'{"a":', b"{" * 9, b'{"a":1}{', b"\xff"])
def test_what_is_no_mapping_is_a_value_error(garbage: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (the reader shows the words, nobody parses them)
        decode_line(garbage)


def test_deep_nesting_is_a_value_error_not_a_crash() -> None:
    with pytest.raises(ValueError, match="deep"):
        decode_line(b'{"a":' + b"[" * 100_000)


@pytest.mark.parametrize("dtype", [np.longdouble, np.float16, np.float32, np.float64])
def test_every_float_of_numpy_is_recorded_as_one(dtype: type[np.floating]) -> None:
    value = dtype(0.5)
    for given_ in (value, np.array(value), [value], np.array([value])):
        listed = [0.5] if isinstance(given_, list) or given_.shape else 0.5
        assert decode_line(encode_line({"x": given_})) == {"x": listed}
        assert decode_line(encode_event({"x": {"y": given_}})) == {"x": {"y": listed}}


def test_a_complex_longdouble_is_refused_and_its_imaginary_part_not_dropped() -> None:
    for encode in (encode_line, encode_event):
        with pytest.raises(TypeError, match="no number"):
            encode({"x": np.clongdouble(1 + 2j)})
