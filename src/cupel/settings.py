"""What every component's settings derive from: `Settings`, and the marks `Choice` and `Choices`.

A component says what can be set in one frozen pydantic model. A field that holds a component out
of several (an optimizer, monitors) is marked with its kind, and the registry's settings classes
validate it. Components import these from `cupel.config`. Nothing here imports torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from pydantic import (
    BaseModel,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
)
from pydantic.config import JsonDict
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, SchemaValidator, core_schema

from cupel import registry
from cupel.errors import UsageError
from cupel.origins import OFF

# Marks a field that changes no number of a run: `Field(…, json_schema_extra=INERT)`.
INERT: JsonDict = {"inert": True}


class Settings(BaseModel):
    """Base of all settings: frozen, unknown names refused, numbers finite.

    Every field carries a description (`Field(description=…)`): it is the help that
    `cupel recipe schema` gives, and a test refuses a field without one.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True
    )


@dataclass(frozen=True, slots=True)
class _Mark(ABC):
    """Marks a field whose value the registered settings of one kind of component validate."""

    component: str

    @abstractmethod
    def validate(self, value: Any) -> Any:
        """What the field holds, from what was given."""

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            self.validate, serialization=_DUMPED_AS_IT_IS
        )


@dataclass(frozen=True, slots=True)
class Choice(_Mark):
    """Marks a field that holds the settings of one component of a kind.

        optimizer: Annotated[Settings, Choice("optimizer")] = Field(AdamWSettings(), description=…)

    In YAML it is `{kind: adamw, lr: 1e-3}`; after validation it is the settings object, whose
    class has `kind: Literal["adamw"] = "adamw"`. With a `default`, a mapping without a kind is of
    that kind.
    """

    default: str | None = None

    def validate(self, value: Any) -> Settings:
        """The settings object for `{kind: name, …}`; an object passes as it is."""
        if isinstance(value, Settings):
            return value
        if not isinstance(value, dict):
            name = value if isinstance(value, str) else registry.names(self.component)[0]
            raise _complaint(f"must be a mapping; write {{kind: {name}}}", value)
        if "kind" not in value and self.default is not None:
            value = {"kind": self.default, **value}
        if "kind" not in value:
            known = ", ".join(registry.names(self.component))
            raise _complaint(f"no kind is given; there are: {known}", value)
        chosen = _settings_or_complaint(self.component, value["kind"], at=("kind",))
        return chosen.model_validate(value)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"anyOf": [handler(one) for one in _registered_schemas(self.component).values()]}


@dataclass(frozen=True, slots=True)
class Choices(_Mark):
    """Marks a field that maps names of components of a kind to their settings.

        monitors: Annotated[dict[str, Settings], Choices("monitor")]

    In YAML it is `{norms: {every: 50}, throughput: {}, noise: off}`; null, false and off leave
    one out (or, in place of the mapping, all). Names may be `package.module:Object`.
    """

    def validate(self, value: Any) -> dict[str, Settings]:
        """Each name's settings object, without those that are switched off."""
        if _is_off(value):
            return {}
        if not isinstance(value, dict):
            example = registry.names(self.component)[0]
            raise _complaint(f"must map names to settings; write {{{example}: {{}}}}", value)
        # A typed dict, one field a name, so that the mistakes of all names are told together.
        fields = {
            name: core_schema.typed_dict_field(
                core_schema.no_info_plain_validator_function(partial(self._one, name))
            )
            for name, given in value.items()
        }
        together = SchemaValidator(core_schema.typed_dict_schema(fields))
        chosen = together.validate_python(value)
        return {name: settings for name, settings in chosen.items() if settings is not None}

    def _one(self, name: str, given: Any) -> Settings | None:
        if isinstance(given, Settings):
            return given
        settings = _settings_or_complaint(self.component, name, at=())
        return None if _is_off(given) else settings.model_validate(given)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        off = {"enum": [None, False, OFF]}
        known = _registered_schemas(self.component)
        properties = {name: {"anyOf": [handler(one), off]} for name, one in known.items()}
        return {"type": "object", "properties": properties}


# Pydantic would write a field by its annotation, which here is only the base of what it holds.
_DUMPED_AS_IT_IS = core_schema.plain_serializer_function_ser_schema(
    lambda held: (
        {name: one.model_dump(mode="json") for name, one in held.items()}
        if isinstance(held, dict)
        else held.model_dump(mode="json")
    )
)


def _is_off(value: Any) -> bool:
    return value is None or value is False or value == OFF


def settings_of(component: str, name: str) -> type[Settings]:
    """The settings class of a component. Raises UsageError when there is none, or it is no class
    that derives from Settings."""
    found = registry.settings_of(component, name)
    if isinstance(found, type) and issubclass(found, Settings):
        return found
    raise UsageError(
        f"the settings of {component} '{name}' do not derive from cupel.config.Settings"
    )


def _settings_or_complaint(component: str, name: Any, *, at: tuple[str, ...]) -> type[Settings]:
    try:
        return settings_of(component, str(name))
    except UsageError as error:
        raise _complaint(str(error), name, at=at) from error


def _complaint(text: str, given: Any, *, at: tuple[str, ...] = ()) -> ValidationError:
    error = PydanticCustomError("cupel", "{text}", {"text": text})
    return ValidationError.from_exception_data(
        "cupel", [{"type": error, "loc": at, "input": given}]
    )


def _registered_schemas(component: str) -> Mapping[str, CoreSchema]:
    return {
        name: settings_of(component, name).__pydantic_core_schema__
        for name in registry.names(component)
    }
