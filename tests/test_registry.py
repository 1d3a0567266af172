"""Names lead to their components, wrong names to one line; settings never bring in torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cupel import registry
from cupel.errors import CupelError, MissingDependency, UnknownName, UsageError

REGISTERED = [(kind, name) for kind in registry.TABLES for name in registry.names(kind)]


@pytest.mark.parametrize("kind,name", REGISTERED)
def test_every_registered_name_leads_to_a_component_and_its_settings(kind: str, name: str) -> None:
    assert callable(registry.resolve(kind, name))
    assert registry.settings_of(kind, name).model_fields
    assert registry.entry(kind, name).about


@pytest.mark.slow
def test_no_settings_class_brings_in_torch() -> None:
    code = (
        "import sys; from cupel import registry\n"
        "for kind in registry.TABLES:\n"
        "    for name in registry.names(kind): registry.settings_of(kind, name)\n"
        "for path in registry.SECTIONS.values(): registry.import_object(path)\n"
        "assert not {'torch', 'numpy'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UnknownName, match=r"did you mean 'adamw'\?.*package.module:Object"):
        registry.resolve("optimizer", "adamv")
    with pytest.raises(UnknownName, match="no kind of component is called 'optimiser'"):
        registry.names("optimiser")


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of the user's own on Python's path."""
    package = tmp_path / "own_package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "parts.py").write_text("class Mine:\n    class Settings:\n        x = 1\n")
    (package / "broken.py").write_text("import surely_not_installed\n")
    (package / "torchy.py").write_text("import torch\n")
    monkeypatch.syspath_prepend(tmp_path)
    return package


def test_an_object_of_ones_own_brings_its_settings(own: Path) -> None:
    name = "own_package.parts:Mine"
    assert registry.resolve("monitor", name).__name__ == "Mine"
    assert registry.settings_of("monitor", name).x == 1


@pytest.mark.parametrize(
    "path,told",
    [
        ("own_package.parts:Mien", "nothing called 'Mien' in own_package.parts; did you"),
        ("own_package.parts:Mine.Settingz", "nothing called 'Settingz'.*did you mean 'Settings'"),
        ("own_package.absent:X", "no module 'own_package.absent' on Python's path; write it as"),
        ("own_pakage.parts:X", "no module 'own_pakage' on Python's path"),
        ("own_package.broken:X", "importing own_package.broken failed: No module named 'surely_"),
        (":X", "is no import path; write it as package.module:Object"),
        (".parts:X", "is no import path"),
        ("own_package.parts:", "is no import path"),
    ],
)  # fmt: skip
def test_a_wrong_path_says_which_part_was_not_found(own: Path, path: str, told: str) -> None:
    with pytest.raises(UsageError, match=told) as raised:
        registry.import_object(path)
    assert len(str(raised.value).splitlines()) == 1


def test_without_torch_the_command_that_installs_it_is_told(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingDependency, match=r"torch.*type: pip install 'cupel\[train\]'"):
        registry.import_object("own_package.torchy:X")


@given(st.text().filter(lambda text: "\0" not in text))
def test_garbage_for_a_name_is_refused_in_one_line(text: str) -> None:
    for name in (text, f"{text}:x", f"own_{text}:{text}"):
        with pytest.raises(CupelError):
            registry.resolve("monitor", name)
