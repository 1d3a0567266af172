"""Recipes put together from files and overrides, every value with its origin.

    extends: other             starts from recipes/other.yaml, or from several files, in order
    model: gpt-52m             a group: the section is recipes/model/gpt-52m.yaml
    model: {extends: gpt-52m, dropout: 0.1}    … and something changed
    study: {arms: {wide: {model: gpt-52m}}}    an arm of a study names groups like a recipe
    seed: ???                  must be given by whoever extends or runs this
    train.steps=200            an override, typed on the command line; overrides come last

A file that extends is laid over what it extends; a group replaces what the section inherited.
Nothing is validated here: `cupel.config` does that. There is no interpolation and no reading of
the environment, so the same files and overrides always mean the same run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cupel.errors import RecipeError, UnknownName
from cupel.origins import (
    COMMAND_LINE,
    DEFAULT,
    OFF,
    Branch,
    Leaf,
    Node,
    Origin,
    Problem,
    Reader,
    overlay,
    placed,
)

# The top-level settings that are plain values; any other is a section, and a string there a group.
PLAIN = frozenset({"name", "about", "project", "workload", "seed", "extends"})
MISSING = "???"
# The section that makes a recipe a study: many runs, of which `cupel.studies` plans each.
STUDY = "study"


def compose(source: str | Path, overrides: Sequence[str] = ()) -> Branch:
    """Put a recipe together: `source` is a .yaml file, or the name of one in a recipes folder.

    The recipe's name is the file's unless it gives another. Raises RecipeError with a line for
    everything that cannot be read, UnknownName for a recipe that does not exist.
    """
    recipe, above = layers(source, overrides)
    return Branch(overlay(recipe, above).children, recipe.origin)


def layers(source: str | Path, overrides: Sequence[str] = ()) -> tuple[Branch, Branch]:
    """The two trees that `compose` lays one over the other: the files', and the overrides'."""
    path = find_recipe(source)
    composer = _Composer()
    recipe = composer.read(path)
    above = composer.read_overrides(overrides, folder=path.parent)
    if composer.problems:
        raise recipe_error(composer.problems)
    nameless = Branch({"name": Leaf(path.stem, DEFAULT)}, recipe.origin)
    return Branch(overlay(nameless, recipe).children, Origin(shown(path))), above


def read_overrides(overrides: Sequence[str]) -> Branch:
    """What was typed, as one tree, for settings that were composed before; groups are looked for in
    the folders of recipes. Raises RecipeError."""
    composer = _Composer()
    above = composer.read_overrides(overrides, folder=shipped_recipes())
    if composer.problems:
        raise recipe_error(composer.problems)
    return above


def with_groups(recipe: Branch, *, source: str | Path) -> Branch:
    """Settings for the recipe at `source`, in which a section may name a group, as in its file.

    Raises RecipeError.
    """
    composer = _Composer()
    read = composer._with_groups(recipe, find_recipe(source).parent, ())
    if composer.problems:
        raise recipe_error(composer.problems)
    return read


def recipe_error(problems: Iterable[Problem]) -> RecipeError:
    """All problems as one error, a line each, in the order of files and lines."""
    return RecipeError([str(problem) for problem in sorted(set(problems))])


def recipe_folders() -> list[Path]:
    """Where recipes are looked for by name: ./recipes, then those that cupel ships."""
    own, shipped = Path("recipes"), shipped_recipes()
    return [own] if own.resolve() == shipped.resolve() else [own, shipped]


def shipped_recipes() -> Path:
    """The folder of the recipes that come with cupel: in the package, or in a checkout's root."""
    packaged = Path(__file__).parent / "recipes"
    return packaged if packaged.is_dir() else Path(__file__).parents[2] / "recipes"


def find_recipe(source: str | Path) -> Path:
    """The file of a recipe that is given by path or by name. Raises UnknownName."""
    name = str(source)
    if isinstance(source, Path) or _is_file_name(name) or "/" in name:
        path = Path(source)
        if _is_file(path):
            return path
        raise UnknownName("recipe file", name, map(str, _recipes_in(path.parent)))
    for folder in recipe_folders():
        if _is_file(folder / f"{name}.yaml"):
            return folder / f"{name}.yaml"
    known = _names_in(recipe_folders())
    raise UnknownName("recipe", name, known, hint="or give the path of a .yaml file")


def shown(path: Path) -> str:
    """A path as messages and origins name it: relative, when it lies below this folder."""
    absolute, here = path.absolute(), Path.cwd()
    return str(absolute.relative_to(here) if absolute.is_relative_to(here) else path)


@dataclass
class _Composer:
    """Reads files and what they extend; what is wrong with them gathers in `problems`."""

    problems: list[Problem] = field(default_factory=list)

    def read(self, path: Path, *, group: str = "", reading: tuple[Path, ...] = ()) -> Branch:
        """One file laid over all that it extends; `group` is the section that it is for, if any."""
        reader = Reader(Origin(shown(path)))
        own = reader.read_file(path)
        self.problems += reader.problems
        reading = (*reading, path.resolve())
        if not group:
            self._refuse_dots(own)
            own = self._with_groups(own, path.parent, reading)
            own = self._with_arms(own, path.parent, reading)
        return self._extended(own, [path.parent, shipped_recipes() / group], group, reading)

    def read_overrides(self, overrides: Sequence[str], *, folder: Path) -> Branch:
        """All overrides as one branch, in which `a.b=1 a=group` is the same as `a=group a.b=1`."""
        above = Branch({}, COMMAND_LINE)
        for text in overrides:
            if given := self._read_override(text):
                self._refuse_taking_away(text, given)
                above = overlay(above, _spelled_out(given))
        return self._with_arms(self._with_groups(above, folder, ()), folder, ())

    def _read_override(self, text: str) -> Branch | None:
        key, equals, value = text.partition("=")
        path = key.strip().split(".")
        if not equals or not all(path):
            self._problem(f"'{text}' is no override; type name=value or section.name=value")
        elif not value.strip():
            self._problem(f"'{text}' has no value; type {key}=VALUE, or {key}=null for none")
        else:
            reader = Reader(COMMAND_LINE, numbered=False)
            node = reader.read(value)
            for problem in reader.problems:
                self._problem(f"'{text}': {problem.text}")
            return None if node is None else placed(path, node)
        return None

    def _with_groups(self, own: Branch, folder: Path, reading: tuple[Path, ...]) -> Branch:
        """The recipe with every section that names a group read from the group's file."""
        children = dict(_spelled_out(own).children)
        for name, child in children.items():
            if name not in PLAIN and isinstance(child, Branch) and "extends" in child.children:
                folders = [folder / name, shipped_recipes() / name]
                read = self._extended(child, folders, name, reading)
                children[name] = Branch(read.children, read.origin, replaces=True)
        return Branch(children, own.origin)

    def _with_arms(self, own: Branch, folder: Path, reading: tuple[Path, ...]) -> Branch:
        """The recipe with the groups that its study's arms name read, too: an arm is written like
        a recipe."""
        study = own.children.get(STUDY)
        arms = study.children.get("arms") if isinstance(study, Branch) else None
        if not isinstance(study, Branch) or not isinstance(arms, Branch):
            return own
        read = {
            name: self._with_groups(arm, folder, reading) if isinstance(arm, Branch) else arm
            for name, arm in arms.children.items()
        }
        full = replace(study, children={**study.children, "arms": replace(arms, children=read)})
        return replace(own, children={**own.children, STUDY: full})

    def _extended(
        self, own: Branch, folders: list[Path], group: str, reading: tuple[Path, ...]
    ) -> Branch:
        """The branch laid over the files that its `extends` names, the last one uppermost."""
        children = dict(own.children)
        extends = children.pop("extends", None)
        if extends is None:
            return own
        base = Branch({}, own.origin)
        for name in self._file_names(extends):
            if path := self._find(name, folders, group, extends.origin, reading):
                base = overlay(base, self.read(path, group=group, reading=reading))
        return overlay(base, Branch(children, own.origin))

    def _file_names(self, extends: Node) -> list[str]:
        given = extends.value if isinstance(extends, Leaf) else None
        names = given if isinstance(given, list) else [given]
        if not names or not all(isinstance(name, str) for name in names):
            self._problem("extends takes a name, or a list of names: [a, b]", extends.origin)
        return [name for name in names if isinstance(name, str)]

    def _find(
        self,
        name: str,
        folders: list[Path],
        group: str,
        origin: Origin,
        reading: tuple[Path, ...],
    ) -> Path | None:
        """The file that a name stands for, unless it is being read already (a circle)."""
        file_name = name if _is_file_name(name) else f"{name}.yaml"
        found = [folder / file_name for folder in folders if _is_file(folder / file_name)]
        for path in found:
            # Passing over what is being read lets ./recipes/x.yaml extend the shipped x.
            if path.resolve() not in reading:
                return path
        if found:
            circle = " -> ".join(shown(path) for path in (*reading, found[0].resolve()))
            self._problem(f"extends goes in a circle: {circle}", origin)
        else:
            kind, known = f"{group} group" if group else "recipe", _names_in(folders)
            hint = f"it would be the file {shown(folders[0] / file_name)}"
            self._problem(str(UnknownName(kind, name, known, hint=hint)), origin)
        return None

    def _refuse_taking_away(self, text: str, given: Branch) -> None:
        """Refuse `study.arms={}`, which laid over a study's arms would change nothing, silently."""
        for name, one, value in (("arms", "arm", "{…}"), ("grid", "axis", "[…]")):
            depth, node = given.nearest((STUDY, name))
            if depth == 2 and isinstance(node, Branch) and not node.children:
                told = f"'{text}' takes no {one} away, because what is typed is added to the recipe"
                self._problem(f"{told}; type study.{name}.NAME={value} to add or change one")

    def _refuse_dots(self, own: Branch) -> None:
        for name, child in own.children.items():
            if "." in name:
                section, _, rest = name.partition(".")
                written = f"{section}: {{{rest}: …}}"
                self._problem(f"'{name}': dots are for overrides; write {written}", child.origin)

    def _problem(self, text: str, origin: Origin = COMMAND_LINE) -> None:
        self.problems.append(Problem(origin, text))


def _spelled_out(recipe: Branch) -> Branch:
    """The recipe with each `model: gpt-52m` written as `model: {extends: gpt-52m}`."""
    children: dict[str, Node] = {}
    for name, child in recipe.children.items():
        if isinstance(child, Leaf) and _is_group(name, child.value):
            child = Branch({"extends": child}, child.origin)
        children[name] = child
    return Branch(children, recipe.origin)


def _is_group(name: str, value: object) -> bool:
    return name not in PLAIN and isinstance(value, str) and value not in (MISSING, OFF)


def _is_file_name(name: str) -> bool:
    return name.endswith((".yaml", ".yml"))


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name too long for the file system
        return False


def _recipes_in(folder: Path) -> list[Path]:
    try:
        return sorted(folder.glob("*.yaml"))
    except (OSError, ValueError):  # too long, or with a zero byte
        return []


def _names_in(folders: Iterable[Path]) -> set[str]:
    return {path.stem for folder in folders for path in _recipes_in(folder)}
