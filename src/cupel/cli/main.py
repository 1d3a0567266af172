"""The command `cupel`: one file a command, each importing what it needs when it runs.

`cupel --help` therefore loads neither torch nor numpy. Exit codes: 0 done, 1 it failed, 2 wrong
input, 75 interrupted and resumable (EX_TEMPFAIL), 130 aborted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

import typer

from cupel.cli import recipe, run, runs, sample, verify
from cupel.errors import CupelError

app = typer.Typer(
    name="cupel",
    help="A laboratory for training experiments: run, resume exactly, look, sample, verify.",
    epilog="Begin with: cupel run quickstart",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run.run)
app.command("sample")(sample.sample)
app.add_typer(runs.app, name="runs")
app.add_typer(recipe.app, name="recipe")
app.add_typer(verify.app, name="verify")


@app.callback(invoke_without_command=True)
def _version(
    version: bool = typer.Option(False, "--version", help="Print the version and leave."),
) -> None:
    if version:
        from importlib.metadata import version as version_of

        print(f"cupel {version_of('cupel')}")
        raise typer.Exit


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line; what goes wrong becomes one line on stderr and an exit code.

    The current folder is on Python's path, as with `python -m`: a recipe may name a workload or
    monitor of a module that lies there.
    """
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    sys.exit(_run(list(sys.argv[1:] if arguments is None else arguments)))


def _run(arguments: list[str]) -> int:
    command = typer.main.get_command(app)
    try:
        code = command.main(arguments, prog_name="cupel", standalone_mode=False)
        return code if isinstance(code, int) else 0
    except CupelError as error:
        _complain(*str(error).splitlines())
        return error.exit_code
    except typer.TyperException as error:
        return _wrong_usage(error)
    except (typer.Abort, KeyboardInterrupt):
        _complain("aborted")
        return 130
    except BrokenPipeError:
        # The reader of a pipe has gone (`cupel runs ls | head`); spare Python's own complaint.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _wrong_usage(error: typer.TyperException) -> int:
    """One line on what was typed wrongly; a command that needs more shows its help."""
    message = error.format_message()
    if message.startswith("Usage:"):
        print(message)
        return 2
    context = getattr(error, "ctx", None)
    more = f"; see: {context.command_path} --help" if context is not None else ""
    _complain(" ".join(message.split()).rstrip(".?") + more)
    return error.exit_code


def _complain(*lines: str) -> None:
    for line in lines:
        print(f"cupel: {line}", file=sys.stderr)
