"""Reads the event files of TensorBoard, torch's SummaryWriter, tensorboardX and TensorFlow.

Scalars come exactly as they lie there, as `simple_value` or as a tensor of any numeric type, with
step and wall time; images come as files, hyperparameters become the configuration. Histograms,
audio and texts are counted, not taken. All files of one folder are one run, read in the order of
their names, as TensorBoard does. No package of TensorBoard is needed; about 15 µs an event.
Sources: tensorboard/compat/proto/{event,summary}.proto, plugins/hparams/plugin_data.proto.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cupel.errors import RecordError
from cupel.record.exchange import foreign, protobuf, tensors
from cupel.record.exchange.foreign import Foreign, Item, Picture, Point, Restart, SourceFile
from cupel.record.exchange.protobuf import Malformed
from cupel.record.exchange.tfrecord import Frames

MARK = "tfevents"  # in the name of every event file, and TensorBoard's own way to know them
EXACT = 20011  # see tensorboard_export

_WALL_TIME, _STEP, _SUMMARY, _SESSION_LOG, _SOURCE = 1, 2, 5, 7, 10
_TAG, _SIMPLE, _METADATA, _TENSOR = 1, 2, 9, 8
_IMAGE = 4
_MEDIA = {3: "histograms", _IMAGE: "images", 5: "histograms", 6: "audio"}
_PLUGIN_MEDIA = {"text": "texts", "histograms": "histograms", "images": "images", "audio": "audio"}
_START = 1  # SessionLog.SessionStatus
_FAILED = 2  # hparams.Status; TensorBoard's own tools write 1 for success, 3 for running


@dataclass
class _Taken:
    """What an event gave."""

    metrics: dict[str, Any] = field(default_factory=dict)
    pictures: list[Picture] = field(default_factory=list)


@dataclass
class _Event:
    """One event, as far as it is of use."""

    t: float | None = None
    step: int = 0
    summaries: list[bytes] = field(default_factory=list)
    session: bytes | None = None
    writer: str | None = None


def is_event_file(path: Path) -> bool:
    """Whether TensorBoard would take this for one of its files."""
    return MARK in path.name and path.is_file()


def runs_in(path: Path) -> list[Foreign]:
    """The run of a file, or those of all folders below one that hold event files."""
    if path.is_file():
        return [_run([SourceFile(path)], path.parent.name or path.stem, path.name)]
    folders: dict[Path, list[SourceFile]] = {}
    for file in sorted(path.rglob(f"*{MARK}*")):
        if is_event_file(file):
            folders.setdefault(file.parent, []).append(SourceFile(file))
    return [
        _run(files, _name(path, folder), path.resolve().name) for folder, files in folders.items()
    ]


def _name(path: Path, folder: Path) -> str:
    relative = folder.relative_to(path).as_posix()
    return path.resolve().name if relative == "." else relative


def _run(files: list[SourceFile], name: str, source: str) -> Foreign:
    return Foreign(
        tool="tensorboard",
        name=name,
        source=source,
        sha256=foreign.sha256_of(files),
        points=lambda run: _points(run, files),
        created=_first_time(files),
    )


def _first_time(files: list[SourceFile]) -> float | None:
    for file in files:
        with file.open() as opened:
            for payload in Frames(opened):
                try:
                    return _event(payload).t
                except Malformed:
                    continue
    return None


def _points(run: Foreign, files: list[SourceFile]) -> Iterator[Item]:
    plugins: dict[str, str] = {}  # of each tag: many writers say it once
    readable = 0
    begun = False
    for file in files:
        with file.open() as opened:
            frames = Frames(opened)
            for payload in frames:
                try:
                    event = _event(payload)
                    taken = _taken(run, event, plugins)
                    restart = event.session is not None and _is_start(event.session)
                except Malformed:
                    run.damaged += 1
                    continue
                readable += 1
                run.version = run.version or event.writer
                if restart and begun:
                    yield Restart(event.step - 1)
                begun = begun or bool(taken.metrics)
                if taken.metrics:
                    yield Point(event.step, event.t, taken.metrics)
                yield from taken.pictures
            run.damaged += frames.damaged
            run.unread += frames.unread
    if not readable:
        raise RecordError(f"{run.source} ({run.name}) holds no readable event of TensorBoard")


def _event(payload: bytes) -> _Event:
    event = _Event()
    for number, _, value in protobuf.fields(payload):
        if number == _WALL_TIME:
            t = protobuf.double(value)
            event.t = t if math.isfinite(t) else None
        elif number == _STEP:
            event.step = protobuf.signed(value)
        elif number == _SUMMARY:
            event.summaries.append(protobuf.inside(value))
        elif number == _SESSION_LOG:
            event.session = protobuf.inside(value)
        elif number == _SOURCE:
            event.writer = next(
                (protobuf.text(v) for n, _, v in protobuf.fields(protobuf.inside(value)) if n == 1),
                None,
            )
    return event


def _taken(run: Foreign, event: _Event, plugins: dict[str, str]) -> _Taken:
    taken = _Taken()
    for summary in event.summaries:
        for number, _, value in protobuf.fields(summary):
            if number == 1:
                _take(run, event, protobuf.inside(value), plugins, taken)
    return taken


def _take(
    run: Foreign, event: _Event, message: bytes, plugins: dict[str, str], taken: _Taken
) -> None:
    """Take what one Summary.Value holds, or count it."""
    parts = {number: value for number, _, value in protobuf.fields(message)}
    tag = protobuf.text(parts.get(_TAG, b""))
    plugin, content = _plugin(protobuf.inside(parts.get(_METADATA, b"")))
    if plugin:
        plugins.setdefault(tag, plugin)
    plugin = plugins.get(tag, "")
    if plugin == "hparams":
        _take_hparams(run, content)
        return
    key, value = foreign.own_key(tag), _value(parts, plugin)
    if value is not None:
        if key in taken.metrics:
            run.left_out["values of a name that is there already"] += 1
        taken.metrics.setdefault(key, value)
        return
    images = _images(parts, plugin)
    for image in images:
        if suffix := foreign.suffix_of(image):
            taken.pictures.append(Picture(event.step, event.t, tag, suffix, image))
        else:
            run.left_out["images of an unknown form"] += 1
    if not images and (kind := _left_out(parts, plugin)):
        run.left_out[kind] += 1


def _images(parts: dict[int, int | bytes], plugin: str) -> list[bytes]:
    """The encoded images of an Image, or of a tensor: width, height and images, all as text."""
    if _IMAGE in parts:
        image = protobuf.fields(protobuf.inside(parts[_IMAGE]))
        return [protobuf.inside(value) for number, _, value in image if number == 4]
    if _TENSOR in parts and plugin == "images":
        tensor = protobuf.fields(protobuf.inside(parts[_TENSOR]))
        return [protobuf.inside(value) for number, _, value in tensor if number == 8][2:]
    return []


def _value(parts: dict[int, int | bytes], plugin: str) -> float | int | bool | None:
    if _SIMPLE in parts:
        simple = protobuf.single(parts[_SIMPLE])
        exact = parts.get(EXACT)
        return _exact(simple, exact) if isinstance(exact, bytes) else simple
    if _TENSOR in parts and plugin in ("", "scalars"):
        return tensors.number_in(protobuf.inside(parts[_TENSOR]))
    return None


def _left_out(parts: dict[int, int | bytes], plugin: str) -> str | None:
    for number, kind in _MEDIA.items():
        if number in parts:
            return kind
    if _TENSOR in parts:
        return _PLUGIN_MEDIA.get(plugin) or f"tensors of {plugin or 'no'} plugin"
    return None


def _exact(simple: float, text: bytes) -> float | int | bool:
    """The number that was rounded to `simple`; `simple` when someone changed that meanwhile."""
    try:
        value = foreign.parsed(text)
    except ValueError:
        return simple
    if isinstance(value, bool | int | float) and foreign.recordable(value):
        rounded = protobuf.rounded(value)
        if rounded == simple or (math.isnan(rounded) and math.isnan(simple)):
            return value
    return simple


def _plugin(metadata: bytes) -> tuple[str, bytes]:
    name, content = "", b""
    for number, _, data in protobuf.fields(metadata):
        if number == 1:
            for inner, _, value in protobuf.fields(protobuf.inside(data)):
                if inner == 1:
                    name = protobuf.text(value)
                elif inner == 2:
                    content = protobuf.inside(value)
    return name, content


def _take_hparams(run: Foreign, content: bytes) -> None:
    for number, _, value in protobuf.fields(content):
        if number == 3:
            for inner, _, entry in protobuf.fields(protobuf.inside(value)):
                if inner == 1:
                    run.config.update(_hparam(protobuf.inside(entry)))
                elif inner == 4 and protobuf.text(entry):
                    run.facts["hparams_group"] = protobuf.text(entry)
        elif number == 4:
            ended = {n: v for n, _, v in protobuf.fields(protobuf.inside(value))}
            if protobuf.signed(ended.get(1, 0)) == _FAILED:
                run.status, run.error = "failed", "TensorBoard's hyperparameters say so"


def _hparam(entry: bytes) -> dict[str, Any]:
    """One entry of map<string, google.protobuf.Value>; what is no number, text or bool is None."""
    key = ""
    found: float | str | bool | None = None
    for number, _, value in protobuf.fields(entry):
        if number == 1:
            key = protobuf.text(value)
        elif number == 2:
            for kind, _, inner in protobuf.fields(protobuf.inside(value)):
                if kind == 2:
                    found = protobuf.double(inner)
                elif kind == 3:
                    found = protobuf.text(inner)
                elif kind == 4:
                    found = bool(protobuf.signed(inner))
    return {key: found}


def _is_start(session: bytes) -> bool:
    return any(
        number == 1 and protobuf.signed(value) == _START
        for number, _, value in protobuf.fields(session)
    )
