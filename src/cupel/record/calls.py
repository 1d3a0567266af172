"""What a model did in its first training pass: `trace(model)`, by hooks that are gone after it.

Each module's calls, their order, the shapes and dtypes of what it took and gave, and (`flow`) whose
results it took. It is the real pass: branches that depend on data, loops and modules that are
called twice are told as they were, and what was not called is not told.

It observes only: no tensor is copied, kept alive or handed back, and no random number drawn. A pass
without gradients, in evaluation mode, within a backward pass (checkpointed modules run again there)
or seen by a compiler is none that counts. What is compiled is left alone, since hooks would break
its graph. A failure in a hook ends the trace, which says so, and never reaches training.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from cupel.record.flow import Flow
from cupel.record.model import dtype_name, paths_of, unwrapped

MOST_MODULES = 5_000
_MOST_TENSORS = 16  # that are told of one side of a call
_MOST_VALUES = 512  # that are looked at for tensors
_DEEPEST = 8


def trace(model: Any) -> Tracer:
    """Watch the next training pass of a model. Never raises: see `Tracer.problem`."""
    tracer = Tracer()
    try:
        tracer.start(model)
    except Exception as error:
        tracer.fail(error)
    return tracer


@dataclass(slots=True)
class _Called:
    """What is told of one module."""

    order: int
    calls: int = 0
    taken: list[dict[str, Any]] = field(default_factory=list)
    given: list[dict[str, Any]] | None = None
    varies: bool = False

    def told(self) -> dict[str, Any]:
        told = {"calls": self.calls, "order": self.order, "in": self.taken, "out": self.given or []}
        return {**told, "varies": True} if self.varies else told


class Tracer:
    """Hooks on a model until its first training pass has ended; `finish` says what they saw.

    `done` is true when that pass has ended, or there is nothing to wait for; `problem` is what
    went wrong in a hook, if anything did.
    """

    def __init__(self) -> None:
        self.done = False
        self.problem: Exception | None = None
        self._reason: str | None = None
        self._whole = False  # the model's own pass was seen from beginning to end
        self._left_out = 0
        self._root, self._names = "", dict[int, list[str]]()
        self._root_id = 0
        self._called: dict[str, _Called] = {}
        self._flow = Flow("")
        self._thread: int | None = None
        self._handles: list[Any] = []
        self._torch: Any = None

    def start(self, model: Any) -> None:
        """Register the hooks. Raises whatever an odd model does."""
        self._torch = sys.modules.get("torch")
        self._root, model = unwrapped(model)
        if reason := _why_not(model, self._torch):
            self.done, self._reason = True, reason
            return
        self._flow, self._root_id = Flow(self._root), id(model)
        found: dict[int, Any] = {}
        compiled: list[str] = []
        for path, module in paths_of(model):
            if any(path == one or path.startswith(f"{one}.") for one in compiled):
                continue
            if path and _is_compiled(module):
                compiled.append(path)
                continue
            full = f"{self._root}.{path}".strip(".")
            if id(module) in found or len(found) < MOST_MODULES:
                found[id(module)] = module
                self._names.setdefault(id(module), []).append(full)
            else:
                self._left_out += 1
        if compiled:
            self._reason = f"compiled, so not looked into: {', '.join(compiled[:8])}"
        compiling = self._torch.compiler.is_compiling
        for module in found.values():
            self._handles += [
                module.register_forward_pre_hook(_Hook(self.begins, compiling), with_kwargs=True),
                module.register_forward_hook(
                    _Hook(self.ends, compiling), with_kwargs=True, always_call=module is model
                ),
            ]

    # ---- what the hooks call -----------------------------------------------------------------

    def begins(self, module: Any, args: Any, kwargs: Any) -> None:
        """A module is called; nothing that goes wrong here leaves it."""
        try:
            if self._looks(module):
                if id(module) == self._root_id:
                    self._flow.forget()
                self._begin(self._name(module), tensors_in((args, kwargs), self._tensor))
        except Exception as error:
            self.fail(error)

    def ends(self, module: Any, args: Any, kwargs: Any, result: Any) -> None:
        """A module returns, or the whole model does without a result, by an exception."""
        try:
            if not self.done and self._thread == threading.get_ident() and not self._elsewhere():
                self._end(module, tensors_in(result, self._tensor))
        except Exception as error:
            self.fail(error)

    def _looks(self, module: Any) -> bool:
        """Whether a call belongs to a training pass, which the first such call of all begins."""
        if self.done or id(module) not in self._names or self._elsewhere():
            return False
        here = threading.get_ident()
        if not self._flow.depth:
            if not (module.training and self._torch.is_grad_enabled()):
                return False
            self._thread = here
        return self._thread == here

    def _elsewhere(self) -> bool:
        """Whether this is no pass of training: a look of `torch.jit`'s, or during backward."""
        torch = self._torch
        return bool(torch.jit.is_tracing()) or torch._C._current_graph_task_id() != -1

    def _name(self, module: Any) -> str:
        """Of a shared module's paths the first inside of who calls it, else its first."""
        names = self._names[id(module)]
        above = f"{self._flow.path}."
        return next((name for name in names if name.startswith(above)), names[0])

    def _begin(self, path: str, tensors: list[Any]) -> None:
        taken = [_told(tensor) for tensor in tensors]
        called = self._called.get(path)
        if called is None:
            called = self._called[path] = _Called(len(self._called), taken=taken)
        called.varies |= called.taken != taken
        called.calls += 1
        self._flow.begin(path, tensors)

    def _end(self, module: Any, tensors: list[Any]) -> None:
        path = self._flow.end(self._names.get(id(module), ()), tensors)
        if path is None:
            return
        called, given = self._called[path], [_told(tensor) for tensor in tensors]
        if called.given is None:
            called.given = given
        called.varies |= called.given != given
        if id(module) == self._root_id:
            self._end_of_pass(bool(tensors))

    def _end_of_pass(self, gave: bool) -> None:
        self.done = self._whole = True
        if not gave:  # by an exception, whose handler goes through the model's hooks just now
            self._reason, self._whole = "the pass gave no tensor, or ended by an exception", False
        self._remove(but=None if gave else self._handles[1])

    # ---- the end -----------------------------------------------------------------------------

    def fail(self, error: Exception) -> None:
        """A hook went wrong: nothing more is looked at. The hooks go with `finish`."""
        error.__context__ = error.__cause__ = None  # they, and tracebacks, would hold tensors
        self.problem, self.done, self._whole = error.with_traceback(None), True, False
        self._reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"

    def finish(self, step: int | None = None) -> dict[str, Any]:
        """Remove what hooks are left, and tell what was seen: `calls` of model.json."""
        self.done = True
        self._remove()
        reason = self._reason or self._missing()
        return {
            "complete": self._whole and reason is None,
            "reason": reason,
            "step": step,
            "modules": {path: called.told() for path, called in self._called.items()},
            "edges": self._flow.edges(),
        }

    def _missing(self) -> str | None:
        """What keeps the trace from being whole, in words."""
        if not self._called:
            return "no pass in training mode was seen"
        if self._root not in self._called:
            return "the model itself was not called, only parts of it"
        if not self._whole:
            return "the pass did not end"
        if self._left_out:
            return f"{self._left_out} modules beyond {MOST_MODULES} were not looked at"
        return "there were more connections than are kept" if self._flow.cut else None

    def _remove(self, but: Any = None) -> None:
        handles, self._handles = self._handles, [] if but is None else [but]
        for handle in handles:
            if handle is not but:
                handle.remove()

    def _tensor(self, value: Any) -> bool:
        return isinstance(value, self._torch.Tensor)


class _Hook:
    """What a module holds of a tracer. A copy of the module, or a pickled one, gets an idle one.

    `compiling` is torch's own function, by which a compiler sees that there is nothing to compile.
    """

    def __init__(
        self,
        does: Callable[..., None] | None = None,
        compiling: Callable[[], bool] = lambda: False,
    ) -> None:
        self._does, self._compiling = does, compiling

    def __call__(self, *given: Any) -> None:
        if self._compiling():
            return
        if self._does is not None:
            self._does(*given)

    def __reduce__(self) -> tuple[type[_Hook], tuple[()]]:
        return _Hook, ()


def tensors_in(value: Any, is_tensor: Callable[[Any], bool]) -> list[Any]:
    """The tensors within arguments or a result, in order, each once; the first sixteen.

    Tuples, lists, mappings and dataclasses are followed, eight deep and 512 values at most.
    """
    found: dict[int, Any] = {}
    waiting = [(value, 0)]  # no function that calls itself: as a cycle it would keep the tensors
    for _ in range(_MOST_VALUES):
        if not waiting or len(found) == _MOST_TENSORS:
            break
        value, depth = waiting.pop()
        if is_tensor(value):
            found[id(value)] = value
        elif depth < _DEEPEST:
            inside = islice(_inside(value), _MOST_VALUES)
            waiting += [(one, depth + 1) for one in reversed(list(inside))]
    return list(found.values())


def _inside(value: Any) -> Any:
    if isinstance(value, tuple | list):
        return value
    if isinstance(value, Mapping):  # Hugging Face's outputs are mappings, too
        return value.values()
    fields = getattr(type(value), "__dataclass_fields__", None)
    return () if fields is None else [getattr(value, name, None) for name in fields]


def _told(tensor: Any) -> dict[str, Any]:
    try:
        shape = [int(size) for size in tensor.shape]
    except Exception:  # a nested tensor has no shape to tell
        shape = None
    return {"shape": shape, "dtype": dtype_name(tensor)}


def _why_not(model: Any, torch: Any) -> str | None:
    """Why a model is not traced, if it is not."""
    if torch is None or not hasattr(model, "register_forward_pre_hook"):
        return "the model is no module of torch"
    if _is_compiled(model):
        return "the model is compiled; hooks would break its graph"
    return None


def _is_compiled(module: Any) -> bool:
    """By `torch.compile(module)` or `module.compile()`, or scripted."""
    return (
        type(module).__name__ == "OptimizedModule"
        or getattr(module, "_compiled_call_impl", None) is not None
        or any(kind.__name__ == "ScriptModule" for kind in type(module).__mro__)
    )
