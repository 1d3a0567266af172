"""Columns of some keys are those that decoding every line gives, or there are none."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from arbitrary_logs import KEYS, RUNS, Log, lines_of
from cupel.record import growing, lines
from cupel.record.growing import Growing
from cupel.record.picking import ABSENT, Picker, revived

NAMES = ["loss", "a/b", "größe", "損失", "metric_1", "e5", "", "_t", "ende", "a.b"]
ODD_NAMES = ['quo"te', "back\\slash", "tab\t", "\ud800", "_step"]
NUMBERS = st.sampled_from(
    [
        "0", "-0.0", "1.5", "1e5", "1E5", "1e+16", "1e22", "9.43e-06", "1e308", "1e+308", "1e309",
        "1E999", "-1e+400", "0e999", "1e-999", "9007199254740993", "18446744073709551616",
        "9" * 150, "9" * 250, "9" * 300 + ".5", "9" * 400, "9" * 5000, "9" * 250 + "e99",
        "0." + "1" * 400, "01", "1.", "-", "NaN", "1e", "1.5.5",
    ]
) | st.floats(allow_nan=False, allow_infinity=False).map(repr)  # fmt: skip
TEXTS = st.sampled_from(
    ['"NaN"', '"Infinity"', '"-Infinity"', '"nan"', '"text"', '"\\u004eaN"', '"\\ud800"', '"\\q"',
     '"a\tb"', '"é"', '"損"', '"e5"', '"1e999"', '"' + "1" * 300 + '"', '"NaN', '"}\n{"']
)  # fmt: skip
OTHERS = st.sampled_from(
    ["null", "true", "false", "[]", "{}", '["NaN"]', "[1,[2,{}]]", '{"a":{"NaN":"NaN"}}', "[1,]",
     '{"a":1e999}', "nul", "", "[" * 5000 + "]" * 5000]
)  # fmt: skip
VALUES = st.one_of(NUMBERS, NUMBERS, TEXTS, OTHERS)
STEPS = st.one_of(
    st.integers(-9, 99).map(str),
    st.sampled_from(["true", "1.0", "1e2", '"NaN"', "null", str(2**63), str(-(2**63)), "9" * 400]),
)


@st.composite
def _lines(draw: st.DrawFn) -> bytes:
    """Lines that mostly are plain, with what may be hidden in a value that nobody asked for."""
    found = []
    usual = draw(st.lists(st.sampled_from(NAMES), max_size=5))
    for number in range(draw(st.integers(1, 12))):
        names = usual if draw(st.integers(0, 3)) else draw(st.lists(st.sampled_from(NAMES)))
        odd = draw(st.integers(0, 11)) == 0
        step = draw(STEPS) if odd else str(number)
        fields = [f'"_step":{step}']
        for name in names:  # a name may come twice
            value = draw(VALUES) if odd else repr(draw(st.floats(-1e6, 1e6)))
            fields.append(f'"{name}":{value}')
        if draw(st.integers(0, 9)) == 0:
            fields.reverse()
        line = "{" + ",".join(fields) + "}"
        if odd:
            line = draw(
                st.sampled_from([line, f" {line}", f"{line}\r", line[:-1], f"{line}{line}"])
            )
        content = line.encode()
        if draw(st.integers(0, 30)) == 0:
            content = content.replace(b"e", b"\xff")
        found.append(content + b"\n")
    return b"".join(found)


def plainly(content: bytes, keys: set[str]) -> dict[str, list[Any]] | None:
    """What decoding every line says of some keys; None where a line is damaged."""
    told = lines_of(content)
    if len(told) != content.count(b"\n"):
        return None
    return {key: [line.get(key, ABSENT) for line in told] for key in ["_step", "_t", *keys]}


def shown(values: list[Any]) -> list[str]:
    """Values to compare; words inside of lists stay words, where no column has a use for them."""
    return [repr(type(v) if isinstance(v, list | dict) else v) for v in values]


@settings(deadline=None, max_examples=400)
@given(_lines(), st.sets(st.sampled_from(NAMES[:-1]), max_size=4), st.booleans())
@example(b'{"_step":1,"a":1e999,"loss":2.0}\n', {"loss"}, True)
@example(b'{"_step":1,"a":"\xff","loss":2.0}\n', {"loss"}, True)
@example(b'{"_step":1,"\xed\xa0\x80":1,"loss":2.0}\n', {"loss"}, True)
@example(b'{"_step":1,"a":' + b"9" * 5000 + b',"loss":2.0}\n', {"loss"}, True)
@example(b'{"_step":1,"loss":1.0,"loss":"NaN"}\n', {"loss"}, True)
@example(b'{"_step":1} {"_step":2}\n{"_step":3,\n"a":{}\n}\n', {"a"}, True)
@pytest.mark.slow
def test_what_is_picked_is_what_the_lines_say(content: bytes, keys: set[str], skips: bool) -> None:
    picker = Picker(keys - {"_t"})
    if skips:
        picker.learn([{"_step": 1, "some other key": 1}])
    found = picker.pick(content)
    if found is not None:
        assert list(found) == ["_step", "_t", *sorted(keys - {"_t"})]
        expected = plainly(content, keys) or {}
        for key, values in found.items():
            assert shown(revived(values)) == shown(expected[key])


def test_plain_lines_are_picked_and_not_only_given_back() -> None:
    content = "".join(
        f'{{"_step":{n},"_t":{n}.25,"größe":{n}e-07,"val":1e16,"loss":{n / 7},"e5":17.5}}\n'
        for n in range(1000)
    ).encode()
    for keys, known in ((["loss"], True), (["loss", "absent"], True), (None, False)):
        picker = Picker(keys)
        picker.learn(lines_of(content))
        assert picker.skips is known
        found = picker.pick(content)
        assert found is not None
        assert found["loss"] == [n / 7 for n in range(1000)]
        assert found.get("absent", [ABSENT]) == [ABSENT] * len(found.get("absent", [ABSENT]))
        words = content.replace(b'"loss":0.0,', b'"loss":"-Infinity",')
        assert (picker.pick(words) or {})["loss"][0] == "-Infinity"
    assert revived(["-Infinity", "NaN"])[0] == -math.inf


@settings(deadline=None, max_examples=60)
@given(RUNS, st.lists(_lines(), max_size=2), st.sets(st.sampled_from([*KEYS, *NAMES, *ODD_NAMES])))
@pytest.mark.slow
def test_a_table_of_some_keys_is_the_table_of_all_as_far_as_it_goes(
    tmp_path_factory: pytest.TempPathFactory, run: list[Log], more: list[bytes], keys: set[str]
) -> None:
    path = tmp_path_factory.mktemp("table") / "metrics.jsonl"
    path.write_bytes(b"".join([*more, *(segment for log in run for segment in log.segments)]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lines, "PIECE", 60)
        patch.setattr(growing, "_MOST_PIECES", 3)
        some = Growing(path, keys)
        some.refresh()
        whole = Growing(path)
        whole.refresh()
    told = lines_of(path.read_bytes())
    assert whole.lines == some.lines == len(told)
    assert whole.damaged == some.damaged
    assert (whole.whole, some.version) == (some.whole, whole.version)
    every = dict.fromkeys(key for line in told for key in line if key != "_step")
    assert list(whole.kinds) == list(every)
    assert whole.covers(None)
    assert some.covers(keys)
    assert some.covers(None) == (set(every) <= {*keys, "_t"})
    assert list(some.kinds.items()) == [
        (key, kind) for key, kind in whole.kinds.items() if key in {*keys, "_t"}
    ]
    for key in {*keys, "_t"}:
        assert repr(some.ends(key)) == repr(whole.ends(key))
        one, other = some.column(key), whole.column(key)
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert one.values.tobytes() == other.values.tobytes()
            assert one.rows.times.tobytes() == other.rows.times.tobytes()
            assert one.rows.steps.array().tolist() == other.rows.steps.array().tolist()
            assert (one.kind, one.ascending) == (other.kind, other.ascending)


def test_keys_that_come_later_are_not_taken_for_absent(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"_step":1,"loss":1.0}\n')
    table = Growing(path, ["loss"])
    table.refresh()
    assert table.covers(None)
    with path.open("ab") as file:
        file.write(b'{"_step":2,"loss":1.0,"late":2.0}\n')
    table.refresh()
    assert not table.covers(["late"])
    assert table.covers(["loss"])
