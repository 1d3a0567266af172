"""The commands of `cupel`, one file each, and what becomes of an error: one line, an exit code.

Each command imports what it needs when it runs; `cupel --help` therefore loads neither torch nor
numpy. Exit codes: 0 done, 1 it failed, 2 wrong input, 75 interrupted and resumable (EX_TEMPFAIL),
130 aborted, 141 the reader of a pipe has gone.
"""

from __future__ import annotations

import typer

from cupel.cli import dashboard, jobs, notes, recipe, report, run, runs, sample, study, verify
from cupel.cli.streams import keep_refused, printing, tell
from cupel.errors import CupelError

app = typer.Typer(
    name="cupel",
    help="A laboratory for training experiments: run, resume exactly, look, sample, verify.",
    epilog="Begin with: cupel study run quickstart",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run.run)
app.command("sample")(sample.sample)
app.command("dashboard")(dashboard.dashboard)
app.add_typer(study.app, name="study")
app.add_typer(jobs.app, name="jobs")
app.command("report")(report.report)
app.add_typer(runs.app, name="runs")
app.add_typer(recipe.app, name="recipe")
app.add_typer(notes.app, name="notes")
app.add_typer(verify.app, name="verify")


@app.callback(invoke_without_command=True)
def _version(
    version: bool = typer.Option(False, "--version", help="Print the version and leave."),
) -> None:
    if version:
        from importlib.metadata import version as version_of

        print(f"cupel {version_of('cupel')}")
        raise typer.Exit


def obey(arguments: list[str]) -> int:
    """Run one command line to its exit code. Raises KeyboardInterrupt when it is aborted."""
    keep_refused()
    try:
        with printing():
            return _obeyed(arguments)
    except CupelError as error:
        _complain(*str(error).splitlines())
        return error.exit_code
    except BrokenPipeError:  # `cupel runs ls | head`
        return 141


def _obeyed(arguments: list[str]) -> int:
    command = typer.main.get_command(app)
    try:
        # Not `command.main`, which answers for Ctrl-C and broken pipes itself, without a word.
        with command.make_context("cupel", arguments) as context:
            command.invoke(context)
        return 0
    except typer.Exit as end:
        return end.exit_code
    except typer.TyperException as error:
        return _wrong_usage(error)
    except typer.Abort:  # Ctrl-C or Ctrl-D at a question
        raise KeyboardInterrupt from None


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
    tell(*(f"cupel: {line}" for line in lines))
