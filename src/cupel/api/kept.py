"""What a run keeps besides numbers: pictures, texts, tables, histograms, and artifacts.

A part of `Run`. Media that cannot be made or written are counted and told once; only an artifact
that is not there raises, since the script has named it.
"""

from __future__ import annotations

import glob as globs
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cupel.api.arguments import kind
from cupel.api.facts import Facts
from cupel.api.images import Figure, Image, is_figure
from cupel.api.logged import taken_apart
from cupel.api.media import Histogram, Media, Table, Text
from cupel.api.told import tell_ignored
from cupel.errors import RecordError, Superseded, UsageError
from cupel.record.media import FILES, store_artifact, store_files, store_media

Source = str | os.PathLike[str]
_SHOWN = 100  # letters of a key in a message


class Artifact:
    """Files to be kept together under one name: `add_file`, `add_dir`, then `log_artifact`."""

    def __init__(
        self,
        name: str,
        type: str = "artifact",
        description: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        **others: Any,
    ) -> None:
        tell_ignored("Artifact", others, "an artifact is files, a name and a type")
        self.name, self.type = name, type
        self.description, self.metadata = description, dict(metadata or {})
        self.files: dict[str, Path] = {}

    def add_file(self, local_path: Source, name: str | None = None, **_: Any) -> None:
        """Add a file, under its own name or another. Raises UsageError when it is not there."""
        path = Path(local_path)
        if not path.is_file():
            raise UsageError(f"there is no file at {path}; give one that exists")
        self.files[name or path.name] = path

    def add_dir(self, local_path: Source, name: str | None = None, **_: Any) -> None:
        """Add all files of a folder. Raises UsageError when it is not there."""
        folder = Path(local_path)
        if not folder.is_dir():
            raise UsageError(f"there is no folder at {folder}; give one that exists")
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                inner = path.relative_to(folder).as_posix()
                self.files[f"{name}/{inner}" if name else inner] = path


class Kept(Facts, ABC):
    """The keeping half of a run.

    Without `step`, what these log is of the step of the next line.
    """

    def log_image(
        self, key: str, image: Any, *, step: int | None = None, caption: str | None = None
    ) -> None:
        """Log a picture: an array, a tensor, a figure, a PIL picture or a file; see `Image`."""
        self._log_media(key, lambda: Image(image, caption=caption), step)

    def log_figure(
        self,
        key: str,
        figure: Any,
        *,
        step: int | None = None,
        caption: str | None = None,
        suffix: str = "png",
    ) -> None:
        """Log a figure of matplotlib, as png, svg or pdf, or one of plotly, as a page."""

        def made() -> Media:
            return Figure(figure, suffix=suffix, caption=caption) if is_figure(figure) else figure

        self._log_media(key, made, step)

    def log_text(self, key: str, text: str, *, step: int | None = None) -> None:
        """Log a text of any length."""
        self._log_media(key, lambda: Text(text), step)

    def log_table(
        self,
        key: str,
        columns: Any = None,
        data: Any = None,
        *,
        dataframe: Any = None,
        step: int | None = None,
    ) -> None:
        """Log a table: columns and rows, a dataframe, or a `Table`."""
        ready = columns if isinstance(columns, Table) else None
        self._log_media(key, lambda: ready or Table(columns, data, dataframe=dataframe), step)

    def log_histogram(
        self, key: str, values: Any, *, step: int | None = None, bins: int = 64
    ) -> None:
        """Log how numbers are distributed: an array or tensor of any shape, or a `Histogram`."""
        ready = values if isinstance(values, Histogram) else None
        self._log_media(key, lambda: ready or Histogram(values, num_bins=bins), step)

    def log_artifact(
        self,
        artifact_or_path: Artifact | Source,
        name: str | None = None,
        type: str | None = None,
        aliases: Any = None,
        tags: Any = None,
    ) -> Path | None:
        """Keep a copy of a file or a folder with the run; the folder that holds it.

        A name's copies are versions, v0, v1, …; one that equals the newest is not kept twice.
        None when the disk refuses or the run has ended, which is told once. Raises UsageError when
        there is nothing to keep.
        """
        tell_ignored(
            "log_artifact", {"aliases": aliases, "tags": tags}, "versions are v0, v1, … by time"
        )
        if not isinstance(artifact_or_path, Artifact | str | os.PathLike):
            raise UsageError(
                "log_artifact() takes an Artifact, or the path of a file or folder, not "
                f"{kind(artifact_or_path)}"
            )
        if self._is_over("artifact") or self._is_childs("artifact"):
            return None
        try:
            return self._stored(artifact_or_path, name, type) / FILES
        except (RecordError, Superseded) as error:
            self._session.problem("artifact", error)
            return None

    def _is_childs(self, what: str) -> bool:
        """Whether a forked child calls: it writes nothing into its parent's run, which is told."""
        if self._session.in_child:
            self._session.event(what)  # lost, counted, and told
        return bool(self._session.in_child)

    def _stored(self, given: Artifact | Source, name: str | None, type: str | None) -> Path:
        if not isinstance(given, Artifact):
            path = Path(given)
            return store_artifact(
                self._session, path, name=name or path.name, kind=type or "artifact"
            )
        return store_files(
            self._session,
            given.files,
            name=name or given.name,
            kind=type or given.type,
            description=given.description,
            metadata=given.metadata,
        )

    def log_model(
        self,
        path: Source,
        name: str | None = None,
        aliases: Any = None,
        **others: Any,
    ) -> Path | None:
        """Keep a model's file or folder: `log_artifact` with the type "model"."""
        tell_ignored("log_model", others, "an artifact is files, a name and a type")
        return self.log_artifact(path, name=name, type="model", aliases=aliases)

    def save(
        self,
        glob_str: Source,
        base_path: Source | None = None,
        policy: str = "now",
        glob: bool = True,
    ) -> list[str]:
        """Keep the files that a pattern names as they are now, each as an artifact "file".

        wandb's word; there is no later upload, so `policy` changes nothing.
        """
        if not isinstance(glob_str, str | os.PathLike):
            raise UsageError(f"save() takes a path or a pattern, as '*.py', not {kind(glob_str)}")
        if self._is_over("save"):
            return []
        pattern = os.fspath(glob_str)
        if policy not in ("now", "end"):
            tell_ignored("save", {"policy": policy}, "files are kept as they are now")
        found = sorted(globs.glob(pattern)) if glob else [pattern]  # noqa: PTH207  # or absolute
        base = Path(base_path or ".")
        for path in found:
            inside = Path(path).is_relative_to(base)
            name = Path(path).relative_to(base).as_posix() if inside else Path(path).name
            self.log_artifact(path, name=name, type="file")
        return found

    def _log_media(self, key: str, makes: Any, step: int | None) -> None:
        """Make a medium, unless nothing is recorded, and log it under one name."""
        try:
            made = makes()
        except Exception as error:  # whatever libraries raise, training goes on
            self._session.problem(f"media {str(key)[:_SHOWN]}", error)
            return
        self.log({key: made}, step, None if step is not None else False)

    @abstractmethod
    def log(
        self,
        metrics: Mapping[str, Any] | None = None,
        step: int | None = None,
        commit: bool | None = None,
        sync: bool | None = None,
        *,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        """`Run.log`."""

    def _numbers_of(self, metrics: Mapping[Any, Any], step: int, **about: Any) -> Mapping[Any, Any]:
        """Keep the media of a line, and return what is left of it."""
        found = taken_apart(metrics)
        for name, error in found.wrong.items():
            self._session.problem(name, error)
        for key, media in found.media:
            self._keep(key, media, step, **about)
        return found.numbers

    def _keep(self, key: str, media: Media, step: int, **about: Any) -> str:
        """Write one medium; where, relative to the run, or nothing."""
        if self._is_childs("media"):
            return ""

        def inner(one: Media) -> str:
            return self._keep(f"{key}/media", one, step, **about)

        try:
            made = media.encode(inner)
            path = store_media(
                self._session,
                key,
                step=step,
                kind=made.kind,
                suffix=made.suffix,
                data=made.data,
                **made.about,
                **about,
            )
        except Exception as error:  # whatever libraries raise, training goes on
            self._session.problem(f"media {key[:_SHOWN]}", error)
            return ""
        return path.relative_to(self.dir).as_posix()
