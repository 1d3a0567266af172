"""What starting cupel loads: neither torch nor numpy, until something needs them."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = (
    "torch", "numpy", "matplotlib", "safetensors", "tokenizers", "starlette", "uvicorn",
    "websockets",
)  # fmt: skip
ROOT = Path(__file__).parents[1]


def loaded_after(code: str) -> set[str]:
    """The heavy packages that a fresh Python has loaded after running some code."""
    report = f"\nimport sys; print('LOADED', *[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code + report], capture_output=True, text=True, cwd=ROOT, check=True
    )
    return set(done.stdout.splitlines()[-1].split()[1:])


def cli(*arguments: str) -> str:
    return (
        "import sys\nfrom cupel.cli.main import main\n"
        f"try: main({list(arguments)!r})\nexcept SystemExit as end: assert end.code in (0, None)"
    )


@pytest.mark.parametrize(
    "code",
    [
        "import cupel",
        "import cupel; cupel.init, cupel.log, cupel.finish, cupel.Run",
        cli("--help"),
        cli("--version"),
        cli("run", "--help"),
        cli("verify", "resume", "--help"),
        cli("recipe", "check", "gpt-tiny"),
        cli("recipe", "show", "gpt-tiny"),
        cli("runs", "ls"),
        cli("notes", "lint", str(ROOT / "notes")),
        cli("notes", "plan", str(ROOT / "notes")),
        cli("dashboard", "--help"),
        cli("dashboard", "--status"),
        cli("dashboard", "--stop"),
    ],
)  # fmt: skip
@pytest.mark.slow
def test_starting_loads_nothing_heavy(
    code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUPEL_ROOT", str(tmp_path))
    assert loaded_after(code) == set()


@pytest.mark.slow
def test_tracking_a_run_loads_nothing_heavy(tmp_path: Path) -> None:
    code = f"import cupel\nwith cupel.init(root={str(tmp_path)!r}) as run: run.log({{'loss': 1.0}})"
    assert loaded_after(code) == set()


@pytest.mark.slow
def test_help_takes_less_than_a_third_of_a_cpu_second() -> None:
    """The least of five, so that a busy machine does not decide; measured 0.12 to 0.2 s."""
    seconds = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "cupel", "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.3, seconds


def test_the_public_names_are_these() -> None:
    import cupel

    classes = ["AlertLevel", "Artifact", "Audio", "Histogram", "Html", "Image", "Run", "Settings"]
    classes += ["Table", "Text", "Video"]
    calls = ["alert", "define_metric", "finish", "init", "load_checkpoint", "log", "log_artifact"]
    calls += ["log_figure", "log_histogram", "log_image", "log_model", "log_table", "log_text"]
    calls += ["login", "register", "runs", "save", "save_checkpoint", "steps", "unwatch", "watch"]
    assert cupel.__all__ == [*classes, *calls]
    assert all(getattr(cupel, name) for name in cupel.__all__)
    assert set(dir(cupel)) == {*cupel.__all__, "config", "run", "summary"}
