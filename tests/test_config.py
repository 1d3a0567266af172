"""Recipes as settings: what is valid, what each mistake says, where values come from, identity."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import Field, ValidationError, model_validator

from cupel import compose as composing
from cupel import config, registry
from cupel.config import Choice, Recipe, Settings, differences, from_config, load
from cupel.errors import RecipeError, UsageError
from cupel.record.layout import check_name
from cupel.registry import Entry


class AdamW(Settings):
    kind: Literal["adamw"] = Field("adamw", description="which")
    lr: float = Field(1e-3, gt=0, description="rate")
    betas: tuple[float, float] = Field((0.9, 0.99), description="decays")


class SGD(Settings):
    kind: Literal["sgd"] = Field("sgd", description="which")
    lr: float = Field(0.1, gt=0, description="rate")


class Own(Settings):
    kind: str = Field(description="which")
    power: int = Field(2, description="power")


class OwnOptimizer:
    Settings = Own


class Stopping(Settings):
    patience: int = Field(8, ge=1, description="evaluations")


class Train(Settings):
    steps: int = Field(ge=1, description="updates")
    batch: int = Field(4, description="sequences")
    optimizer: Annotated[Settings, Choice("optimizer")] = Field(AdamW(lr=0.5), description="which")
    stopping: Stopping | None = Field(None, description="early stopping")
    goal: Literal["min", "max"] = Field("min", description="goal")
    clip: int | float | None = Field(None, description="clipping")
    ratio: float = Field(0.5, ge=0, lt=1, description="ratio")
    fused: bool = Field(False, description="fused")
    formats: tuple[Literal["svg", "png"], ...] = Field(("svg",), description="formats")
    weights: dict[str, float] = Field({}, description="weights")
    label: str = Field("", max_length=9, description="label")


class Checkpoint(Settings):
    every: int = Field(250, ge=1, description="steps")


class Norms(Settings):
    every: int = Field(50, ge=1, description="steps")


class OwnMonitor:
    Settings = Norms


class Data(Settings):
    path: str | None = Field(None, description="file")


class Model(Settings):
    width: int = Field(8, description="width")
    heads: int = Field(2, description="heads")

    @model_validator(mode="after")
    def _divides(self) -> Model:
        if self.width % self.heads:
            raise ValueError(f"width {self.width} is no multiple of heads {self.heads}")
        return self


class Toy(Settings):
    data: Data = Field(Data(), description="data")
    model: Model = Field(Model(), description="model")
    dim: int = Field(3, description="a plain number beside the sections")


class Colliding(Settings):
    train: int = Field(1, description="collides")


class Foreign:
    Settings = dict


HERE = __name__


def entry(settings: str) -> Entry:
    return Entry(f"{HERE}:absent", f"{HERE}:{settings}", "")


@pytest.fixture(autouse=True)
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Toy components in the registry, an empty folder to stand in, nothing shipped."""
    kinds = {
        "workload": {"toy": entry("Toy"), "colliding": entry("Colliding")},
        "optimizer": {"adamw": entry("AdamW"), "sgd": entry("SGD")},
        "monitor": {"norms": entry("Norms"), "speed": entry("Norms")},
    }
    sections = {"train": f"{HERE}:Train", "checkpoint": f"{HERE}:Checkpoint"}
    monkeypatch.setattr(registry, "TABLES", kinds)
    monkeypatch.setattr(registry, "SECTIONS", sections)
    monkeypatch.setattr(composing, "shipped_recipes", lambda: tmp_path / "shipped")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipes").mkdir()


def recipe(text: str, *overrides: str) -> Recipe:
    Path("recipes/x.yaml").write_text(text)
    return load("x", overrides)


def problems_of(text: str, *overrides: str) -> list[str]:
    with pytest.raises(RecipeError) as raised:
        recipe(text, *overrides)
    return raised.value.problems


MINIMAL = "workload: toy\ntrain:\n  steps: 10\n"


def test_a_recipe_is_completed_with_defaults() -> None:
    loaded = recipe(MINIMAL)
    assert (loaded.name, loaded.about, loaded.project) == ("x", "", "default")
    assert (loaded.workload, loaded.seed, loaded.monitors) == ("toy", 1, {})
    assert loaded.workload_settings == Toy()
    assert type(loaded.workload_settings) is Toy
    assert loaded.section("train", Train) == Train(steps=10)
    assert loaded.section("checkpoint", Checkpoint).every == 250


def test_a_section_of_another_type_is_the_programmer_s_mistake() -> None:
    with pytest.raises(AssertionError):
        recipe(MINIMAL).section("train", Checkpoint)


def test_workload_fields_stand_beside_the_sections() -> None:
    loaded = recipe(MINIMAL + "model: {width: 16}\ndim: 5\n", "data.path=corpus.txt")
    own = Toy(model=Model(width=16), dim=5, data=Data(path="corpus.txt"))
    assert loaded.workload_settings == own


def test_every_value_has_an_origin() -> None:
    loaded = recipe(MINIMAL + "monitors: {norms: {}}\n", "train.optimizer.kind=sgd")
    assert loaded.origins["train.steps"] == "recipes/x.yaml:3"
    assert loaded.origins["train.optimizer.kind"] == "command line"
    assert loaded.origins["train.optimizer.lr"] == "default"
    assert loaded.origins["name"] == "default"
    assert loaded.origins["monitors.norms.every"] == "default"
    leaves = _flat(loaded.resolved())
    assert loaded.origins.keys() == leaves.keys()


def _flat(values: dict[str, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        path = f"{above}{name}"
        flat.update(_flat(value, f"{path}.") if isinstance(value, dict) else {path: value})
    return flat


def test_a_setting_of_the_default_component_can_be_changed_alone() -> None:
    optimizer = (
        recipe(MINIMAL, "train.optimizer.betas=[0.8, 0.9]").section("train", Train).optimizer
    )
    assert optimizer == AdamW(lr=0.5, betas=(0.8, 0.9))


def test_another_component_starts_from_its_own_defaults() -> None:
    optimizer = recipe(MINIMAL, "train.optimizer.kind=sgd").section("train", Train).optimizer
    assert optimizer == SGD()


def test_components_of_one_s_own_are_given_by_their_path() -> None:
    own = f"{{kind: '{HERE}:OwnOptimizer', power: 3}}"
    monitors = f"monitors: {{'{HERE}:OwnMonitor': {{every: 3}}}}\n"
    loaded = recipe(MINIMAL + monitors, f"train.optimizer={own}")
    optimizer = loaded.section("train", Train).optimizer
    assert optimizer == Own(kind=f"{HERE}:OwnOptimizer", power=3)
    assert loaded.monitors == {f"{HERE}:OwnMonitor": Norms(every=3)}


@pytest.mark.parametrize("off", ["null", "off", "false"])
def test_monitors_are_switched_off_singly_or_all(off: str) -> None:
    text = MINIMAL + "monitors: {norms: {every: 5}, speed: {}}\n"
    assert recipe(text).monitors == {"norms": Norms(every=5), "speed": Norms()}
    assert recipe(text, f"monitors.norms={off}").monitors == {"speed": Norms()}
    assert recipe(text, f"monitors={off}").monitors == {}


# Each mistake, on line 4 of a recipe, and the line that it gives.
MISTAKES = {
    "train: {stesp: 3}": "train.stesp: no such setting; did you mean 'steps'?",
    "model: {xyz: 3}": "model.xyz: no such setting; there are: heads, width",
    "trian: {steps: 3}": "trian: no such setting; did you mean 'train'?",
    "train: {steps: many}": "train.steps: 'many' is not a whole number",
    "train: {steps: 1.5}": "train.steps: 1.5 is not a whole number",
    "train: {steps: true}": "train.steps: true is not a number",
    "train: {steps: 0}": "train.steps: 0 is out of range; it must be 1 or more",
    "train: {steps: null}": "train.steps: null is not a whole number",
    "train: {ratio: 1}": "train.ratio: 1 is out of range; it must be below 1.0",
    "train: {ratio: [1]}": "train.ratio: [1] is not a number",
    "train: {fused: 7}": "train.fused: 7 is not true or false",
    "train: {goal: mx}": "train.goal: 'mx' is not 'min' or 'max'",
    "train: {label: 3}": "train.label: 3 is not text",
    "train: {formats: svg}": "train.formats: 'svg' is not a list",
    "train: {formats: [svg, pdf]}": "train.formats: 'pdf' is not 'svg' or 'png'",
    "train: {weights: [1]}": "train.weights: [1] is not a mapping of names to values",
    "train: {stopping: {patince: 1}}": (
        "train.stopping.patince: no such setting; did you mean 'patience'?"
    ),
    "train: {stopping: 3}": "train.stopping: 3 is not a mapping of names to values",
    "train: {optimizer: {kind: adamv}}": (
        "train.optimizer.kind: no optimizer is called 'adamv'; did you mean 'adamw'? "
        "(there are: adamw, sgd); or give your own as package.module:Object"
    ),
    "train: {optimizer: {lr: -1}}": (
        "train.optimizer.lr: -1 is out of range; it must be above 0.0"
    ),
    "train: {optimizer: {bets: 1}}": (
        "train.optimizer.bets: no such setting; did you mean 'betas'?"
    ),
    "train: {optimizer: {betas: [0.9]}}": "train.optimizer.betas: [0.9] is too short",
    "train: {optimizer: sgd}": "train.optimizer: must be a mapping; write {kind: sgd}",
    "train: {optimizer: {kind: 'no.such:Thing'}}": (
        "train.optimizer.kind: 'no.such:Thing.Settings': there is no module 'no' on Python's path; "
        "write it as package.module:Object, and start cupel where `import package` works"
    ),
    "monitors: {nrms: {}}": (
        "monitors.nrms: no monitor is called 'nrms'; did you mean 'norms'? "
        "(there are: norms, speed); or give your own as package.module:Object"
    ),
    "monitors: {nrms: off}": (
        "monitors.nrms: no monitor is called 'nrms'; did you mean 'norms'? "
        "(there are: norms, speed); or give your own as package.module:Object"
    ),
    "monitors: {norms: {evry: 3}}": "monitors.norms.evry: no such setting; did you mean 'every'?",
    "monitors: [norms]": "monitors: must map names to settings; write {norms: {}}",
    "model: {heads: 3}": "model: width 8 is no multiple of heads 3",
    "model: 3": "model: 3 is not a mapping of names to values",
    "data: {path: '???'}": "data.path must be given; type data.path=VALUE",
    "data: {path: ???}": (
        "expected the node content, but found '?'; put ??? in quotes between braces"
    ),
    "data: ???": "data must be given; type data=VALUE",
    "seed: -1": "seed: -1 is out of range; it must be 0 or more",
    "seed: 1e3": None,
    "train: {clip: x}": "train.clip: 'x' is not a number",
}


@pytest.mark.parametrize(("mistake", "says"), MISTAKES.items())
def test_a_mistake_gives_its_line(mistake: str, says: str | None) -> None:
    section = mistake.partition(":")[0]
    base = {"train": "train: {steps: 10}"}
    Path("recipes/base.yaml").write_text("\n".join(base.values()))
    text = f"extends: base\nworkload: toy\n# {section}\n{mistake}\n"
    if says is None:
        assert recipe(text).seed == 1000
    else:
        assert f"recipes/x.yaml:4: {says}" in problems_of(text)


def test_all_mistakes_are_told_together_by_file_and_line() -> None:
    Path("recipes/base.yaml").write_text("model: {xyz: 1}\n")
    text = "extends: base\nworkload: toy\nseed: x\ntrain:\n  ratio: 2\ndata: {path: '???'}\n"
    assert problems_of(text, "train.batch=b", "checkpoint.evry=3") == [
        "command line: checkpoint.evry: no such setting; did you mean 'every'?",
        "command line: train.batch: 'b' is not a whole number",
        "command line: train.steps must be given; type train.steps=VALUE",
        "recipes/base.yaml:1: model.xyz: no such setting; there are: heads, width",
        "recipes/x.yaml:3: seed: 'x' is not a whole number",
        "recipes/x.yaml:5: train.ratio: 2 is out of range; it must be below 1.0",
        "recipes/x.yaml:6: data.path must be given; type data.path=VALUE",
    ]


def test_a_section_that_must_be_given_is_asked_for_in_the_recipe_s_name() -> None:
    problems = ["recipes/x.yaml: train.steps must be given; type train.steps=VALUE"]
    assert problems_of("workload: toy\n") == problems


def test_messages_carry_no_jargon() -> None:
    for mistake in MISTAKES:
        for line in problems_of(f"{mistake}\nworkload: toy\nlabel: 1") if MISTAKES[mistake] else ():
            assert not re.search("pydantic|https?:|Input should|type=", line)


def test_a_workload_must_be_named_and_exist() -> None:
    (missing,) = problems_of("train: {steps: 1}")
    assert missing == (
        "recipes/x.yaml: workload must be given; type workload=NAME (there are: colliding, toy)"
    )
    (unknown,) = problems_of("about: x\nworkload: tyo")
    assert unknown.startswith(
        "recipes/x.yaml:2: workload: no workload is called 'tyo'; did you mean 'toy'?"
    )
    (mapping,) = problems_of("workload: {a: b}")
    assert mapping.startswith("recipes/x.yaml:1: workload must be given")


def test_settings_that_do_not_derive_from_settings_are_refused() -> None:
    assert problems_of(f"workload: '{HERE}:Foreign'") == [
        f"recipes/x.yaml:1: workload: the settings of workload '{HERE}:Foreign' "
        "do not derive from cupel.config.Settings"
    ]


def test_a_workload_whose_fields_collide_with_a_section_is_refused() -> None:
    with pytest.raises(UsageError, match="'colliding' use train"):
        recipe("workload: colliding")


def test_unions_are_told_by_their_path_alone() -> None:
    assert all(
        "clip" in line and ".int" not in line for line in problems_of(MINIMAL, "train.clip=x")
    )


@pytest.mark.parametrize(
    "change",
    ["train.steps=11", "seed=2", "train.optimizer.kind=sgd", "model.width=16", "dim=4"],
)
def test_identity_changes_with_whatever_can_change_a_number(change: str) -> None:
    assert recipe(MINIMAL, change).identity() != recipe(MINIMAL).identity()


@pytest.mark.parametrize(
    "change",
    ["name=n", "about=a", "project=p", "monitors.norms={}", "checkpoint.every=3"],
)
def test_identity_is_the_same_whatever_only_looks(change: str) -> None:
    assert recipe(MINIMAL, change).identity() == recipe(MINIMAL).identity()


def test_identity_does_not_depend_on_how_a_value_is_written() -> None:
    written = recipe("train: {optimizer: {lr: 1}, steps: 1_0}\nworkload: toy\n")
    assert written.identity() == recipe(MINIMAL, "train.optimizer.lr=1.0").identity()
    assert re.fullmatch("[0-9a-f]{64}", written.identity())


def test_a_resolved_recipe_is_plain_json_and_gives_the_recipe_back() -> None:
    loaded = recipe(MINIMAL, "monitors.norms.every=3", "train.optimizer.kind=sgd")
    stored = json.loads(json.dumps(loaded.resolved(), allow_nan=False))
    again = from_config(stored, where="runs/r/config.json")
    assert again.resolved() == stored == loaded.resolved()
    assert again.identity() == loaded.identity()
    assert again.monitors == {"norms": Norms(every=3)}
    assert set(again.origins.values()) == {"runs/r/config.json"}


def test_changes_are_validated_and_leave_the_recipe_as_it_was() -> None:
    loaded = recipe(MINIMAL + "monitors: {norms: {}}\n")
    changed = loaded.with_changes({"train.steps": 2, "model": {"width": 4}, "monitors": None})
    assert changed.section("train", Train).steps == 2
    assert changed.workload_settings == Toy(model=Model(width=4))
    assert changed.monitors == {}
    assert loaded.section("train", Train).steps == 10
    with pytest.raises(RecipeError, match=r"changed by cupel: train\.steps: 0 is out of range"):
        loaded.with_changes({"train.steps": 0})


def test_differences_name_every_setting_that_differs_with_both_values() -> None:
    old = recipe(MINIMAL).resolved()
    new = recipe(MINIMAL, "train.steps=20", "train.optimizer.kind=sgd").resolved()
    assert differences(old, new) == [
        "train.optimizer.betas: [0.9, 0.99] -> absent",
        "train.optimizer.kind: adamw -> sgd",
        "train.optimizer.lr: 0.5 -> 0.1",
        "train.steps: 10 -> 20",
    ]
    assert differences(old, old) == []


def test_settings_are_frozen_and_finite() -> None:
    with pytest.raises(ValidationError):
        Train(steps=1).steps = 2  # type: ignore[misc]
    with pytest.raises(ValidationError):
        AdamW(lr=float("inf"))


def test_a_choice_without_kind_lists_what_there_is() -> None:
    class Holder(Settings):
        optimizer: Annotated[Settings, Choice("optimizer")] = Field(description="which")

    with pytest.raises(ValidationError, match="no kind is given; there are: adamw, sgd"):
        Holder.model_validate({"optimizer": {"lr": 1}})


def test_the_schema_describes_recipe_files() -> None:
    schema = config.schema("toy")
    text = json.dumps(schema)
    optimizer = schema["$defs"]["Train"]["properties"]["optimizer"]["anyOf"]
    assert [one["properties"]["kind"]["const"] for one in optimizer] == ["adamw", "sgd"]
    assert {"extends", "train", "model", "monitors", "seed"} <= schema["properties"].keys()
    assert '"required"' not in text
    assert "updates" in text


@settings(
    deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False)
        | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=2)
            | st.dictionaries(
                st.sampled_from(
                    ["train", "steps", "optimizer", "kind", "lr", "monitors", "norms", "every", "a"]
                ),
                inner,
                max_size=3,
            )
        ),
        max_leaves=8,
    )
)
@pytest.mark.slow
def test_any_tree_of_values_is_a_recipe_or_gives_lines(values: Any) -> None:
    text = json.dumps(
        {"workload": "toy", **(values if isinstance(values, dict) else {"x": values})}
    )
    problems: list[str] = []
    try:
        loaded = recipe(text)
    except RecipeError as error:
        problems = error.problems
    assert all(line.startswith("recipes/x.yaml") for line in problems)
    if not problems:
        assert from_config(loaded.resolved(), where="x").resolved() == loaded.resolved()


def registered_settings() -> Iterator[tuple[str, type[Settings]]]:
    """Every settings class that the real registry reaches, with the nested ones."""
    real = registry.__dict__["TABLES"]
    for kind, table in real.items():
        for name in table:
            yield from nested(f"{kind} {name}", registry.settings_of(kind, name))
    for name, path in registry.SECTIONS.items():
        yield from nested(f"section {name}", registry.import_object(path))


def nested(where: str, model: type[Settings]) -> Iterator[tuple[str, type[Settings]]]:
    yield where, model
    for name, field in model.model_fields.items():
        for part in (field.annotation, *get_args(field.annotation)):
            if isinstance(part, type) and issubclass(part, Settings):
                yield from nested(f"{where}.{name}", part)


def test_every_setting_has_a_description(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the real registry
    undescribed = [
        f"{where}: {model.__name__}.{name}"
        for where, model in [*registered_settings(), ("header", config.Header)]
        for name, field in model.model_fields.items()
        if not field.description
    ]
    assert undescribed == []


def test_plain_top_level_settings_are_those_of_the_header() -> None:
    assert {*config.Header.model_fields, "extends"} == composing.PLAIN


def test_observers_left_out_of_the_identity_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    known = {*config.Header.model_fields, *registry.SECTIONS, "monitors"}
    assert known.issuperset(config.NOT_IDENTITY)


@pytest.mark.slow
def test_checking_a_recipe_imports_nothing_heavy() -> None:
    script = (
        "import sys; from cupel.compose import shipped_recipes; from cupel.config import load\n"
        "for path in shipped_recipes().glob('*tiny.yaml'): load(path).identity()\n"
        "print(*{'torch', 'numpy', 'matplotlib', 'scipy'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.stderr, done.stdout.strip()) == ("", "")


@given(
    st.text(st.characters(codec="utf-8"))
    | st.sampled_from(["studies", "é" * 60, "é" * 60 + "a", ".x", "a\n", "a\ud800"])
)
@settings(deadline=None)
def test_a_project_or_name_is_valid_exactly_when_a_folder_can_have_it(name: str) -> None:
    def accepts(make: Callable[[], object]) -> bool:
        try:
            make()
        except (UsageError, ValidationError):
            return False
        return True

    possible = accepts(lambda: check_name("project", name))
    for field in ("project", "name"):
        header = partial(config.Header.model_validate, {"name": "n", "workload": "w", field: name})
        assert accepts(header) == possible


def test_a_whole_number_too_large_to_keep_is_refused_with_the_range() -> None:
    (problem,) = problems_of(MINIMAL, "seed=99999999999999999999999")
    assert problem.endswith(f"a whole number must lie between {-(2**63)} and {2**63 - 1}")
