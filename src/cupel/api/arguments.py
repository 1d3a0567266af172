"""What `cupel.init` is given: checked before anything is written, and wandb's words understood.

Settings are how a run is recorded, not what it trains: `ranks`, `durability`, `console`,
`system_every`, `strict`, `checkpoint`. Words of wandb that mean the same are taken for them; the
others, and arguments without a meaning here, are named once on stderr with what becomes of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from cupel.api.told import tell_ignored, tell_once
from cupel.errors import UsageError, did_you_mean

Mode = Literal["local", "disabled"]

_LOCAL = ("local", "online", "offline", "dryrun", "shared")
_IGNORED = {
    "entity": "there are no accounts; the record is a folder",
    "dir": "the record goes to root=, else $CUPEL_ROOT, else ./runs",
    "save_code": "the git commit and what differs from it are always recorded",
    "tensorboard": "write to cupel.compat.SummaryWriter",
    "sync_tensorboard": "write to cupel.compat.SummaryWriter",
    "monitor_gym": "log videos with log()",
    "allow_val_change": "a config may always change, and every change is recorded",
    "force": "there is no account to log in to",
    "anonymous": "there are no accounts",
    "magic": "nothing is logged but what is asked for",
}
_REFUSED = ("resume_from", "fork_from")
_FILTERS = ("config_exclude_keys", "config_include_keys")


class Settings(dict[str, Any]):
    """How runs are recorded: `Settings(durability="sync")`, for `init(settings=…)`."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"nothing is set for '{name}'") from None

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value


_SYSTEM_EVERY_S = 10.0


@dataclass(frozen=True, slots=True)
class Recording:
    """What the settings say.

    `ranks`: of several processes, whether only rank "zero" or "all" record. `durability`:
    "process" survives kill -9, "sync" waits for the disk in each log. `console` keeps what Python
    prints. `system_every` is the seconds between looks at the machine, 0 for none. `strict` makes
    `log` raise on what cannot be recorded. `checkpoint` are fields of `CheckpointSettings`.
    """

    ranks: Literal["zero", "all"] = "zero"
    durability: Literal["process", "sync"] = "process"
    console: bool = True
    system_every: float = _SYSTEM_EVERY_S
    strict: bool = False
    checkpoint: Mapping[str, Any] = field(default_factory=dict)


_CHOICES: Mapping[str, tuple[str, ...]] = {
    "ranks": ("zero", "all"),
    "durability": ("process", "sync"),
}
_KNOWN = ("ranks", "durability", "console", "system_every", "strict", "checkpoint")


def understood(settings: Any) -> Recording:
    """The settings, wandb's among them. Raises UsageError for a value that cannot be used."""
    if settings is None:
        return Recording()
    if not isinstance(settings, Mapping):
        raise UsageError(
            f"settings must be a dict, as {{'durability': 'sync'}}, not {kind(settings)}"
        )
    found = Recording()
    for name, value in settings.items():
        name, value = _translated(str(name), value)
        if name == "mode":
            continue  # init's own
        if name not in _KNOWN:
            tell_once(
                f"Settings {name}",
                f"the setting {name} has no effect here{did_you_mean(name, _KNOWN)}; there are: "
                f"{', '.join(_KNOWN)}",
            )
            continue
        found = replace(found, **{name: _checked(name, value)})
    return found


def _translated(name: str, value: Any) -> tuple[str, Any]:
    """wandb's settings that mean the same as one of ours."""
    if name == "console" and isinstance(value, str):
        return name, value != "off"
    if name in ("x_disable_stats", "_disable_stats"):
        return "system_every", 0.0 if value else _SYSTEM_EVERY_S
    if name in ("x_stats_sampling_interval", "_stats_sample_rate_seconds"):
        return "system_every", value
    return name, value


def _checked(name: str, value: Any) -> Any:
    if name in _CHOICES:
        if value not in _CHOICES[name]:
            raise UsageError(
                f"settings: {name} is {value!r}; it must be one of {', '.join(_CHOICES[name])}"
            )
        return value
    if name == "system_every":
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e6:
            raise UsageError(f"settings: system_every is {value!r}; it must be seconds, 0 for off")
        return float(value)
    if name == "checkpoint":
        return _of_checkpoints(value)
    if not isinstance(value, bool):
        raise UsageError(f"settings: {name} is {value!r}; it must be True or False")
    return value


def _of_checkpoints(given: Any) -> dict[str, Any]:
    """The same words as in a recipe's section `checkpoint`, but for when one is due."""
    from pydantic import ValidationError

    from cupel.checkpoint.settings import CheckpointSettings
    from cupel.wording import worded

    if not isinstance(given, Mapping):
        raise UsageError(
            f"settings: checkpoint must be a dict, as {{'keep_last': 5}}, not {kind(given)}"
        )
    if "every" in given:
        raise UsageError(
            "settings: checkpoint.every has no effect in a loop of your own; type "
            f"run.steps(…, save_every={given['every']})"
        )
    known = [name for name in CheckpointSettings.model_fields if name != "every"]
    try:
        CheckpointSettings.model_validate(dict(given))
    except ValidationError as error:
        wrong = (
            worded(one, ".".join(map(str, ("checkpoint", *one["loc"]))), known=known)
            for one in error.errors(include_url=False)
        )
        raise UsageError(f"settings: {'; '.join(wrong)}") from None
    return dict(given)


def mode_of(mode: Any, settings: Any) -> Mode:
    """$CUPEL_MODE, else `mode`, else the settings' mode: recorded here, or not at all.

    Raises UsageError for another word.
    """
    told = settings.get("mode") if isinstance(settings, Mapping) else None
    mode = os.environ.get("CUPEL_MODE") or mode or told or "local"
    if mode == "disabled":
        return "disabled"
    if mode not in _LOCAL:
        raise UsageError(f"mode is {mode!r}; it must be online, offline (both local) or disabled")
    if mode == "shared":
        tell_ignored("init", {"mode": mode}, "the run is recorded here; see settings ranks='all'")
    return "local"


def take_wandbs(given: Mapping[str, Any]) -> None:
    """Say what becomes of wandb's arguments. Raises UsageError for those nobody knows."""
    for name, value in given.items():
        if name in _REFUSED and value is not None:
            raise UsageError(
                f"init({name}=…) cannot be served: cupel resumes a run at its end or at a "
                'checkpoint; start a new run, or resume one with resume="auto"'
            )
        if name in _IGNORED:
            tell_ignored("init", {name: value}, _IGNORED[name])
        elif name not in _REFUSED and name not in _FILTERS:
            raise UsageError(
                f"init() has no argument '{name}'"
                f"{did_you_mean(name, (*_IGNORED, *_OURS))}; see docs/tracking.md"
            )


_OURS = (
    "project", "name", "config", "tags", "notes", "group", "job_type", "id", "resume", "reinit",
    "root", "mode", "settings",
)  # fmt: skip


def filtered(config: Mapping[str, Any], wandbs: Mapping[str, Any]) -> dict[str, Any]:
    """The config without what `config_exclude_keys` names, or only what the other one names."""
    include, exclude = (
        _keys(name, wandbs.get(name)) for name in ("config_include_keys", "config_exclude_keys")
    )
    return {
        key: value
        for key, value in config.items()
        if (not include or key in include) and key not in exclude
    }


def _keys(name: str, given: Any) -> list[str]:
    if given is None or isinstance(given, str):
        return [given] if given else []
    if not isinstance(given, Iterable):
        raise UsageError(f"{name} must be a list of the config's keys, not {kind(given)}")
    return [str(key) for key in given]


_REINITS = (True, False, None, "default", "finish_previous", "return_previous", "create_new")


def check_reinit(reinit: Any) -> None:
    """Raises UsageError for what says nothing about a run that is open."""
    if reinit not in _REINITS:
        raise UsageError(
            f"reinit is {reinit!r}; it must be True, 'finish_previous', 'return_previous' or "
            "'create_new'"
        )


def check(tags: Any, root: Any, group: Any, **texts: Any) -> None:
    """What is wrong is told before there is a folder. Raises UsageError."""
    for argument, given in texts.items():
        if not isinstance(given, str):
            raise UsageError(f"{argument} must be text, not {kind(given)}")
    if not isinstance(group, str | None):
        raise UsageError(f"group must be text, not {kind(group)}")
    if isinstance(tags, str):
        raise UsageError(f"tags must be a list of texts; type tags=[{tags!r}]")
    if not isinstance(tags, Sequence) or not all(isinstance(tag, str) for tag in tags):
        raise UsageError("tags must be a list of texts, as ['night']")
    if not isinstance(root, str | os.PathLike | None):
        raise UsageError(f"root must be a path, not {kind(root)}")
    if root is not None and "\0" in str(root):
        raise UsageError(f"root is {str(root)!r}; no path holds the character \\0")


def kind(given: Any) -> str:
    """What to call a wrong value in a message."""
    return "None" if given is None else type(given).__name__
