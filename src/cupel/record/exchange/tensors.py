"""The number that a TensorBoard tensor of one element holds, exactly.

Floats of 16, 32 and 64 bits, bfloat16, integers and booleans, as `tensor_content` or as typed
values; everything else (texts, pictures, tensors of several elements) is None. Integers stay
integers. Source: tensorflow/core/framework/tensor.proto and types.proto.
"""

from __future__ import annotations

import struct

from cupel.record.exchange import protobuf
from cupel.record.exchange.protobuf import Malformed

_DTYPE, _SHAPE, _CONTENT = 1, 2, 4
_FLOAT_VAL, _DOUBLE_VAL, _INT_VAL, _INT64_VAL, _BOOL_VAL, _HALF_VAL = 5, 6, 7, 10, 11, 13
_UINT32_VAL, _UINT64_VAL = 16, 17

# DataType: the form in `tensor_content`, and the field of typed values
_NUMERIC = {
    1: ("<f", _FLOAT_VAL),
    2: ("<d", _DOUBLE_VAL),
    3: ("<i", _INT_VAL),
    4: ("<B", _INT_VAL),
    5: ("<h", _INT_VAL),
    6: ("<b", _INT_VAL),
    9: ("<q", _INT64_VAL),
    10: ("<?", _BOOL_VAL),
    14: ("bfloat16", _HALF_VAL),
    17: ("<H", _INT_VAL),
    19: ("<e", _HALF_VAL),
    22: ("<I", _UINT32_VAL),
    23: ("<Q", _UINT64_VAL),
}


def number_in(tensor: bytes) -> float | int | bool | None:
    """The one number of a TensorProto; None when it holds another thing. Raises Malformed."""
    dtype, size, content = 0, 1, b""
    values: dict[int, list[int | bytes]] = {}
    for number, _, value in protobuf.fields(tensor):
        if number == _DTYPE:
            dtype = protobuf.signed(value)
        elif number == _SHAPE:
            size = _elements(protobuf.inside(value))
        elif number == _CONTENT:
            content = protobuf.inside(value)
        else:
            values.setdefault(number, []).append(value)
    if dtype not in _NUMERIC or size != 1:
        return None
    form, field = _NUMERIC[dtype]
    if content:
        return _unpacked(form, content)
    return _typed(form, field, values.get(field, []))


def _elements(shape: bytes) -> int:
    found = 1
    for number, _, dimension in protobuf.fields(shape):
        if number == 2:
            sizes = [v for n, _, v in protobuf.fields(protobuf.inside(dimension)) if n == 1]
            found *= protobuf.signed(sizes[-1]) if sizes else 0
        elif number == 3:
            return 0  # unknown rank
    return found


def _unpacked(form: str, content: bytes) -> float | int | bool:
    if form == "bfloat16":  # the upper half of a float32
        form, content = "<f", b"\0\0" + content
    if len(content) != struct.calcsize(form):
        raise Malformed("a tensor of another length than its type has")
    found: float | int | bool = struct.unpack(form, content)[0]
    return found


def _typed(form: str, field: int, values: list[int | bytes]) -> float | int | bool:
    if not values:
        # Writers leave out values that are zero: proto3's default.
        return False if form == "<?" else (0.0 if form in ("<f", "<d", "<e", "bfloat16") else 0)
    value = values[-1]
    if field in (_FLOAT_VAL, _DOUBLE_VAL):
        return _unpacked("<f" if field == _FLOAT_VAL else "<d", protobuf.inside(value))
    integers = protobuf.varints(value)
    if len(integers) != 1:
        raise Malformed("a tensor of one element that holds several")
    (integer,) = integers
    if field == _HALF_VAL:
        return _unpacked(form, struct.pack("<H", integer & 0xFFFF))
    if field == _BOOL_VAL:
        return bool(integer)
    return integer if field in (_UINT32_VAL, _UINT64_VAL) else protobuf.signed(integer)
