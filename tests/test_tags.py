"""A mark changes nothing but one attribute, and is refused where it is no id."""

from __future__ import annotations

import pytest

from cupel.errors import UsageError
from cupel.tags import implements, is_id


def test_a_function_is_returned_as_it_is_with_its_ids() -> None:
    def f(x: int) -> int:
        return x + 1

    marked = implements("titans.v1:eq14")(f)
    assert marked is f
    assert marked(1) == 2
    assert f.__implements__ == ("titans.v1:eq14",)  # type: ignore[attr-defined]


def test_marks_add_up_and_classes_do_not_inherit_them() -> None:
    @implements("a.v1:eq1")
    @implements("a.v1:eq2", "a.v1:eq3")
    class Base: ...

    @implements("a.v1:eq4")
    class Derived(Base): ...

    assert Base.__implements__ == ("a.v1:eq2", "a.v1:eq3", "a.v1:eq1")  # type: ignore[attr-defined]
    assert Derived.__implements__ == ("a.v1:eq4",)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "good", ["titans.v1:eq14", "nl.neurips:eq71b", "a-b.v2:alg1", "a.v1:A4", "a.v1:memory_net"]
)
def test_ids_are_known_by_their_form(good: str) -> None:
    assert is_id(good)


@pytest.mark.parametrize(
    "bad", ["", "eq14", "titans:eq14", "titans.v1", "titans.v1:", "Titans.v1:eq1", "a.v1:EQ1",
            "a.v1:eq1 ", "a.v1:eq1\n"]
)  # fmt: skip
def test_what_is_no_id_is_refused_when_the_code_is_imported(bad: str) -> None:
    assert not is_id(bad)
    with pytest.raises(UsageError, match=r"expected paper\.version:part"):
        implements(bad)


def test_a_mark_without_an_id_and_one_that_is_no_text_are_refused() -> None:
    with pytest.raises(UsageError, match="names nothing"):
        implements()
    with pytest.raises(UsageError):
        implements(print)  # type: ignore[arg-type]
