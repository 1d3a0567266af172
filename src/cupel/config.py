"""Recipes as validated settings: `Settings`, `Choice`, `Choices`, `load(recipe) -> Recipe`.

Every component says what can be set in one frozen pydantic model derived from `Settings`; a
recipe is YAML over those models. `cupel.compose` puts its files and overrides together; this file
validates them, completes them with defaults and knows every value's origin. Checking a recipe
never imports torch, unless a component of the user's own does; it costs pydantic and ruamel.yaml.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, TypeGuard, TypeVar, get_args

from pydantic import AfterValidator, Field, ValidationError, create_model
from pydantic_core import ErrorDetails, to_jsonable_python

from cupel import registry
from cupel.compose import MISSING, PLAIN, STUDY, compose, read_overrides, recipe_error
from cupel.errors import UsageError
from cupel.names import refusal
from cupel.origins import DEFAULT, Branch, Leaf, Origin, Problem, overlay, placed, planted
from cupel.settings import INERT, Choice, Choices, Settings, settings_of
from cupel.wording import as_yaml, worded

__all__ = [
    "INERT",
    "Choice",
    "Choices",
    "Header",
    "Recipe",
    "Settings",
    "differences",
    "from_config",
    "load",
    "recipe_model",
    "schema",
    "validate",
    "validate_section",
]

# What cannot change a number of the run: names, and observers, which do not disturb (a promise
# that `cupel verify monitors` checks). Checkpoints and figures only look, too.
NOT_IDENTITY = ("name", "about", "project", "monitors", "figures", "checkpoint")


def _folder_name(name: str) -> str:
    if why := refusal(name):
        raise ValueError(f"{name!r} cannot be a folder's name: {why}")  # as pydantic wants it
    return name


FolderName = Annotated[str, AfterValidator(_folder_name)]


class Header(Settings):
    """The settings at the top of every recipe."""

    name: FolderName = Field(description="name of the run; by default the file's name")
    about: str = Field("", description="one line on what the recipe is for")
    project: FolderName = Field(
        "default", description="folder below the runs that the run belongs to"
    )
    workload: str = Field(description="what is trained: a name, or package.module:Object")
    seed: int = Field(1, ge=0, lt=2**63, description="of every random draw of the run")


S = TypeVar("S", bound=Settings)
M = TypeVar("M", bound=Settings)


@dataclass(frozen=True)
class Recipe:
    """A validated recipe. `settings` holds everything, the workload's own part once more apart.

    `composed` is what was written, without defaults; `origins` and `with_changes` come from it.
    """

    settings: Header
    workload_settings: Settings
    composed: Branch

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def about(self) -> str:
        return self.settings.about

    @property
    def project(self) -> str:
        return self.settings.project

    @property
    def workload(self) -> str:
        return self.settings.workload

    @property
    def seed(self) -> int:
        return self.settings.seed

    @property
    def monitors(self) -> dict[str, Settings]:
        """Each monitor's settings by its name, without those that are switched off."""
        # A field of every model that `recipe_model` makes, which the annotation does not know.
        return dict(self.settings.monitors)  # type: ignore[attr-defined]

    def section(self, name: str, expected: type[S]) -> S:
        """The settings of one section: `recipe.section("train", TrainSettings)`."""
        found = getattr(self.settings, name)
        assert isinstance(found, expected), (name, type(found), expected)
        return found

    @property
    def origins(self) -> dict[str, str]:
        """Where each resolved value comes from: `file:line`, `command line` or `default`."""
        resolved = planted(self.resolved(), DEFAULT)
        return {".".join(path): str(self._origin(path)) for path, _ in resolved.leaves()}

    def resolved(self) -> dict[str, Any]:
        """The complete configuration as plain JSON values."""
        return self.settings.model_dump(mode="json")

    def identity(self) -> str:
        """SHA-256 (hex) of all settings that can change a number of the run.

        Left out are `NOT_IDENTITY`: names, and the observers, because observers do not disturb;
        and fields marked `json_schema_extra=INERT`, such as the place of a cache.
        """
        left_out = {**_inert(self.settings), **dict.fromkeys(NOT_IDENTITY, True)}
        numbers = self.settings.model_dump(mode="json", exclude=left_out)
        canonical = json.dumps(numbers, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(canonical.encode()).hexdigest()

    def with_changes(self, changes: Mapping[str, Any]) -> Recipe:
        """The recipe with dotted settings changed, validated anew. Raises RecipeError."""
        origin = Origin("changed by cupel")
        composed = self.composed
        for path, value in changes.items():
            node = planted({"": value}, origin).children[""]
            composed = overlay(composed, placed(path.split("."), node))
        return validate(composed)

    def with_overrides(self, overrides: Sequence[str]) -> Recipe:
        """The recipe with what was typed laid over it, validated anew. Raises RecipeError."""
        return validate(overlay(self.composed, read_overrides(overrides)))

    def _origin(self, path: tuple[str, ...]) -> Origin:
        depth, node = self.composed.nearest(path)
        return node.origin if depth == len(path) or isinstance(node, Leaf) else DEFAULT


def load(source: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Compose and validate a recipe: a .yaml file or a name, and `a.b=value` overrides.

    Raises RecipeError with one line for each mistake, in the order of files and lines;
    UnknownName for a recipe that does not exist; UsageError for one that is a study.
    """
    composed = compose(source, overrides)
    if study := composed.children.get(STUDY):
        raise UsageError(
            f"{source} is a study{_size_of(study)}, not one run; type: cupel study run {source}"
        )
    return validate(composed)


def from_config(config: Mapping[str, Any], *, where: str) -> Recipe:
    """The recipe that `Recipe.resolved()` was taken from, as a run folder keeps it.

    `where` names the origin of its values. Raises RecipeError when this cupel refuses a setting.
    """
    return validate(planted(config, Origin(where)))


def validate(composed: Branch) -> Recipe:
    """Complete a composed recipe with defaults and check it. Raises RecipeError."""
    workload = _workload_of(composed)
    settings = _validated(recipe_model(workload), composed)
    own = settings_of("workload", workload)
    part = own.model_validate({name: getattr(settings, name) for name in own.model_fields})
    return Recipe(settings, part, composed)


def validate_section(name: str, model: type[S], composed: Branch) -> S:
    """Check one section of a composed recipe on its own, as `validate` does with all of them.

    For sections that no single run has. Raises RecipeError.
    """
    field: Any = (model, Field(description=f"the section {name}"))
    whole = create_model("Section", __base__=Settings, **{name: field})
    only = Branch({name: composed.children[name]}, composed.origin)
    section = getattr(_validated(whole, only), name)
    assert isinstance(section, model), (name, type(section), model)
    return section


def _validated(model: type[M], composed: Branch) -> M:
    complete = overlay(planted(_defaults(model), DEFAULT), composed).values()
    problems = [
        Problem(leaf.origin, f"{'.'.join(path)} must be given; type {'.'.join(path)}=VALUE")
        for path, leaf in composed.leaves()
        if leaf.value == MISSING
    ]
    try:
        settings = model.model_validate(complete)
    except ValidationError as error:
        mistakes = [one for one in error.errors(include_url=False) if one["input"] != MISSING]
        problems += [_problem(one, model, complete, composed) for one in mistakes]
        raise recipe_error(problems) from None
    if problems := problems + _booleans_as_numbers(composed, settings):
        raise recipe_error(problems)
    return settings


def _inert(settings: Settings) -> dict[str, Any]:
    """The fields marked INERT, nested as pydantic's `exclude` wants them."""
    found: dict[str, Any] = {}
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if field.json_schema_extra == INERT:
            found[name] = True
        elif isinstance(value, Settings) and (inner := _inert(value)):
            found[name] = inner
    return found


def recipe_model(workload: str) -> type[Header]:
    """The settings model of all recipes of a workload: its own fields beside the sections.

    Raises UnknownName for the workload, UsageError when its fields and the sections collide.
    """
    sections = {name: registry.import_object(path) for name, path in registry.SECTIONS.items()}
    return _recipe_model(workload, settings_of("workload", workload), tuple(sections.items()))


@lru_cache(maxsize=64)
def _recipe_model(
    workload: str, own: type[Settings], sections: tuple[tuple[str, type[Settings]], ...]
) -> type[Header]:
    """Made once for all cells of a study: pydantic takes longer to make it than to use it."""
    monitors = Annotated[dict[str, Settings], Choices("monitor")]
    fields: dict[str, Any] = {
        name: (section, Field(description=f"the section {name}")) for name, section in sections
    }
    fields["monitors"] = (monitors, Field({}, description="what measures during training"))
    if taken := own.model_fields.keys() & (fields.keys() | Header.model_fields.keys()):
        raise UsageError(
            f"the settings of workload '{workload}' use {', '.join(sorted(taken))}, "
            "which every recipe has; give them other names"
        )
    # Pydantic's annotations want bases of one class; two settings bases are what it can do.
    return create_model("Recipe", __base__=(own, Header), **fields)  # type: ignore[arg-type]


def schema(workload: str) -> dict[str, Any]:
    """JSON schema of a workload's recipe files, for editors.

    Nothing is required in it, because what is extended may give it; a section may be the name of
    a group.
    """
    whole = _without_required(recipe_model(workload).model_json_schema())
    names = {"type": "string"}
    for name, section in whole["properties"].items():
        if name not in PLAIN:
            whole["properties"][name] = {"anyOf": [section, names]}
    extends = {"anyOf": [names, {"type": "array", "items": names}]}
    whole["properties"]["extends"] = extends | {"description": "recipes that this one starts from"}
    # Its own settings are not known at this level; `cupel recipe check` checks them.
    whole["properties"][STUDY] = {"type": "object", "description": "makes the recipe a study"}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **whole}


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs between two resolved configurations: `train.steps: 1000 -> 2000`."""
    before, after = (
        {".".join(path): as_yaml(leaf.value) for path, leaf in planted(one, DEFAULT).leaves()}
        for one in (old, new)
    )
    return [
        f"{key}: {before.get(key, 'absent')} -> {after.get(key, 'absent')}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def _size_of(study: Branch | Leaf) -> str:
    """` of 6 runs`, or nothing where what is written does not tell; nothing is validated here."""
    if not isinstance(study, Branch):
        return ""
    if study.children.keys() & {"zip", "points", "random", "folds", "where", "ablation", "search"}:
        return ""
    arms, seeds = study.children.get("arms"), study.children.get("seeds")
    grid = study.children.get("grid")
    axes = [*(leaf for _, leaf in grid.leaves()), seeds] if isinstance(grid, Branch) else [seeds]
    lists = [axis.value for axis in axes if isinstance(axis, Leaf) and isinstance(axis.value, list)]
    if not isinstance(arms, Branch) or len(lists) < len(axes):
        return ""
    return f" of {len(arms.children) * math.prod(map(len, lists))} runs"


def _workload_of(composed: Branch) -> str:
    leaf = composed.children.get("workload", composed)
    name = leaf.value if isinstance(leaf, Leaf) else None
    if not isinstance(name, str) or name == MISSING:
        known = ", ".join(registry.names("workload"))
        missing = f"workload must be given; type workload=NAME (there are: {known})"
        raise recipe_error([Problem(leaf.origin, missing)])
    try:
        settings_of("workload", name)
    except UsageError as error:
        raise recipe_error([Problem(leaf.origin, f"workload: {error}")]) from error
    return name


def _defaults(model: type[Settings]) -> dict[str, Any]:
    """The model's defaults as plain values; required sections hold what they have."""
    defaults: dict[str, Any] = {}
    for name, one in model.model_fields.items():
        if not one.is_required():
            defaults[name] = to_jsonable_python(one.get_default(call_default_factory=True))
        elif _is_settings(one.annotation):
            defaults[name] = _defaults(one.annotation)
    return defaults


def _problem(
    error: ErrorDetails, model: type[Settings], complete: dict[str, Any], composed: Branch
) -> Problem:
    path = _path(error, complete)
    _, node = composed.nearest(path)
    # Only then is the mapping around the name known to have its settings class.
    known = _names_at(model, path[:-1], complete) if error["type"] == "extra_forbidden" else ()
    return Problem(node.origin, worded(error, ".".join(path), known=known))


def _path(error: ErrorDetails, complete: Any) -> tuple[str, ...]:
    """Where the error is, without the names that pydantic gives to the members of a union."""
    path, value = [], complete
    for name in error["loc"]:
        if isinstance(value, dict) and name in value:
            value = value[name]
            path.append(str(name))
    if error["type"] == "missing" and isinstance(value, dict):
        path.append(str(error["loc"][-1]))
    return tuple(path)


def _names_at(model: type[Settings], path: Sequence[str], values: Any) -> list[str]:
    """The names of settings that could stand in the mapping at a path."""
    if not path:
        return list(model.model_fields)
    (name, *rest), inner = path, values[path[0]]
    one = model.model_fields.get(name)
    for mark in one.metadata if one else ():
        if isinstance(mark, Choice):
            return _names_at(
                settings_of(mark.component, inner.get("kind", mark.default)), rest, inner
            )
        if isinstance(mark, Choices) and rest:
            below = settings_of(mark.component, rest[0])
            return _names_at(below, rest[1:], inner[rest[0]])
    parts = (one.annotation, *get_args(one.annotation)) if one else ()
    found = (_names_at(part, rest, inner) for part in parts if _is_settings(part))
    return list(dict.fromkeys(known for names in found for known in names))


def _booleans_as_numbers(composed: Branch, settings: Settings) -> list[Problem]:
    """What pydantic lets pass: `steps: true`, which it takes for 1."""
    resolved = planted(settings.model_dump(mode="json"), DEFAULT)
    return [
        Problem(leaf.origin, f"{'.'.join(path)}: {as_yaml(leaf.value)} is not a number")
        for path, leaf in composed.leaves()
        if isinstance(leaf.value, bool) and _is_number(resolved.nearest(path)[1])
    ]


def _is_number(node: Branch | Leaf) -> bool:
    return isinstance(node, Leaf) and type(node.value) in (int, float)


def _is_settings(annotation: Any) -> TypeGuard[type[Settings]]:
    return isinstance(annotation, type) and issubclass(annotation, Settings)


def _without_required(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {
            k: _without_required(v)
            for k, v in schema.items()
            if not (k == "required" and isinstance(v, list))
        }
    return [_without_required(one) for one in schema] if isinstance(schema, list) else schema
