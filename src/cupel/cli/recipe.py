"""`cupel recipe list | show | check | schema`: look at recipes without running them, nor torch.

Results go to stdout, as aligned text or as JSON. Mistakes are raised as CupelError, whose lines
`cupel.cli.app` prints to stderr before it ends with exit code 2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from cupel.cli.tables import print_json, print_table

app = typer.Typer(
    no_args_is_help=True,
    help="Look at recipes without running them: list, show, check, schema.",
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
SOURCE = "A .yaml file, or the name of a recipe (`cupel recipe list` shows them)."
OVERRIDES = "Changes, as section.name=value; the value is YAML."


@app.command("list")
def list_recipes(as_json: AsJson = False) -> None:
    """List the recipes of ./recipes and those that come with cupel.

    Example: cupel recipe list
    """
    from cupel.compose import recipe_folders

    # A recipe of ./recipes hides the shipped one of the same name, as it does in `cupel run`.
    found = {path.stem: path for folder in reversed(recipe_folders()) for path in _files(folder)}
    rows = [_summary(path) for _, path in sorted(found.items())]
    if as_json:
        print_json(rows)
    else:
        print_table(rows)


@app.command()
def show(
    recipe: Annotated[str, typer.Argument(help=SOURCE)],
    overrides: Annotated[list[str] | None, typer.Argument(help=OVERRIDES)] = None,
    as_json: AsJson = False,
) -> None:
    """Show every setting of a recipe with its value and where it comes from.

    Of a study: the recipe that its arms change, and the section study as it is written.

    Examples:

      cupel recipe show gpt-tiny

      cupel recipe show gpt-tiny train.steps=200 model.dropout=0.1
    """
    from cupel.compose import STUDY, compose
    from cupel.config import validate
    from cupel.origins import DEFAULT, Branch, planted
    from cupel.studies.spec import without_study
    from cupel.wording import as_yaml

    composed = compose(recipe, overrides or [])
    loaded = validate(without_study(composed))
    study = composed.children.get(STUDY, Branch({}, DEFAULT))
    config, origins = loaded.resolved(), loaded.origins
    if isinstance(study, Branch) and study.children:
        config[STUDY] = study.values()
        origins |= {".".join((STUDY, *path)): str(leaf.origin) for path, leaf in study.leaves()}
    if as_json:
        print_json({"config": config, "origins": origins, "identity": loaded.identity()})
        return
    leaves = ((".".join(path), leaf.value) for path, leaf in planted(config, DEFAULT).leaves())
    print_table(
        [
            {"setting": name, "value": as_yaml(value), "from": origins[name]}
            for name, value in leaves
        ]
    )


@app.command()
def check(
    recipes: Annotated[
        list[str], typer.Argument(help=f"{SOURCE} Several may be given. {OVERRIDES}")
    ],
    as_json: AsJson = False,
) -> None:
    """Check recipes: every mistake in a line of its own, with its file and line.

    Examples:

      cupel recipe check recipes/mine.yaml

      cupel recipe check gpt-tiny train.steps=200

      cupel recipe check recipes/*.yaml
    """
    from cupel.errors import RecipeError

    overrides = [text for text in recipes if "=" in text]
    sources = [text for text in recipes if "=" not in text]
    if not sources:
        raise RecipeError("no recipe is given to check; type cupel recipe check RECIPE")
    results = [_checked(source, overrides) for source in sources]
    problems = [line for result in results for line in result["problems"]]
    if as_json:
        print_json(results)
        raise typer.Exit(RecipeError.exit_code if problems else 0)
    for result in results:
        if not result["problems"]:
            print(f"{result['recipe']}: fine ({_sort_of(result)})")
    if problems:
        raise RecipeError(problems)


@app.command()
def schema(
    workload: Annotated[str, typer.Argument(help="A workload, as `workload:` in a recipe.")],
) -> None:
    """Print the JSON schema of a workload's recipes, for completion in an editor.

    Example: cupel recipe schema gpt > recipe.schema.json
    """
    from cupel.config import schema as schema_of

    print_json(schema_of(workload))


def _files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.yaml"))


def _summary(path: Path) -> dict[str, str]:
    """What the listing says of one recipe; one that cannot be read says why."""
    from cupel.compose import compose, shown
    from cupel.errors import RecipeError

    row = {"name": path.stem, "workload": "", "about": "", "file": shown(path)}
    try:
        values = compose(path).values()
    except RecipeError as error:
        return row | {"about": error.problems[0]}
    return row | {name: str(values.get(name, "")) for name in ("workload", "about")}


def _checked(source: str, overrides: Sequence[str]) -> dict[str, Any]:
    """What is wrong with a recipe, or with any cell of a study."""
    from cupel.errors import RecipeError, UsageError

    result: dict[str, Any] = {"recipe": source, "identity": None, "runs": 0, "problems": []}
    try:
        return result | _facts(source, overrides)
    except RecipeError as error:
        return result | {"problems": error.problems}
    except UsageError as error:
        return result | {"problems": [str(error)]}


def _facts(source: str, overrides: Sequence[str]) -> dict[str, Any]:
    """A recipe's identity, which a study has none of, and its number of runs. Raises UsageError."""
    from cupel.compose import STUDY, compose
    from cupel.config import validate
    from cupel.studies.spec import plan_study

    composed = compose(source, overrides)
    if STUDY in composed.children:
        return {"runs": len(plan_study(source, overrides, root=Path()).runs)}
    return {"identity": validate(composed).identity(), "runs": 1}


def _sort_of(result: Mapping[str, Any]) -> str:
    return result["identity"][:8] if result["identity"] else f"a study of {result['runs']} runs"
