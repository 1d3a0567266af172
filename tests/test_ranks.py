"""torchrun's variables are read, and what no process could work with is refused in one line."""

from __future__ import annotations

import pytest

from cupel import ranks
from cupel.errors import UsageError
from cupel.ranks import Place

NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def surround(monkeypatch: pytest.MonkeyPatch, variables: str) -> None:
    for pair in variables.split():
        monkeypatch.setenv(*pair.split("="))


@pytest.mark.parametrize(
    "variables, place",
    [
        ("", Place(0, 1, 0)),
        ("RANK=0 WORLD_SIZE=1 LOCAL_RANK=0", Place(0, 1, 0)),
        ("RANK=5 WORLD_SIZE=8 LOCAL_RANK=1 MASTER_ADDR=a MASTER_PORT=1", Place(5, 8, 1)),
    ],
)
def test_a_place_is_what_torchrun_says(
    monkeypatch: pytest.MonkeyPatch, variables: str, place: Place
) -> None:
    surround(monkeypatch, variables)
    assert ranks.place() == place
    assert ranks.rank() == place.rank


@pytest.mark.parametrize(
    "variables, told",
    [
        ("RANK=1", "RANK is set but WORLD_SIZE is not: start with torchrun"),
        ("WORLD_SIZE=2", "WORLD_SIZE is set but RANK is not: start with torchrun"),
        ("RANK=0 WORLD_SIZE=2", "RANK is set but MASTER_ADDR is not: start with torchrun"),
        ("RANK=x", "RANK is 'x', which is no number"),
        ("RANK=-1", "RANK is '-1', which is no number"),
        ("RANK=2 WORLD_SIZE=2 MASTER_ADDR=a MASTER_PORT=1", "RANK is 2 and WORLD_SIZE 2"),
    ],
)
def test_what_no_process_could_work_with_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, variables: str, told: str
) -> None:
    surround(monkeypatch, variables)
    with pytest.raises(UsageError) as caught:
        ranks.place()
    assert str(caught.value).startswith(told)
    assert "\n" not in str(caught.value)
