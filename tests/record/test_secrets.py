"""Keys do not get into a record by a command, a variable or a patch; what tells of a run does."""

from __future__ import annotations

import base64
import random
import string
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cupel.record import secrets
from cupel.record.secrets import MASK

LETTERS = string.ascii_letters + string.digits
KEYS = [
    "sk-proj-Ab3dEf6hIj9kLmN0pQrStUvWxYz",
    "sk-ant-api03-abcDEF123456-ghiJKL789",
    "hf_" + "aB3dE6gH9j" * 3 + "kLmN",
    "ghp_" + "aB3dE6gH9j" * 3 + "kLmNoP",
    "github_pat_11ABCDEFG0abcdefghij_klmnopqrstuvwx",
    "glpat-aBcDeFgHiJkLmNoPqRsT",
    "xoxb-123456789012-abcdefGHIJ",
    "AKIAIOSFODNN7EXAMPLE",
    "AIza" + "Sy0123456789abcdefghijklmnopqrs-_AB",
    "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dBjftJeZ4CVP",
    "0123456789abcdef0123456789abcdef01234567",  # wandb
    "wJ4lrX7tnF9MI/K7MD2nG/bPx8fiCY3zX5aQ1L0k",  # of Amazon, with an id above
]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize(
    "place", ["{}", "--x={}", "a b {} c", "'{}'", "https://host/p?q={}", "https://{}@host/x.git"]
)
def test_no_known_form_of_a_key_is_left_anywhere_in_a_word(key: str, place: str) -> None:
    (shown,) = secrets.arguments([place.format(key)])
    assert MASK in shown
    assert all(piece not in shown for piece in (key, key[4:-1], key[:-4]))


def test_random_texts_are_masked() -> None:
    """A rare one looks like a name by chance: what is found is a sign, and no proof."""
    missed = []
    for seed in range(1000):
        chosen = random.Random(seed)
        keys = (
            "".join(chosen.choices(LETTERS, k=64)),
            base64.urlsafe_b64encode(chosen.randbytes(48)).decode(),
            chosen.randbytes(20).hex(),
        )
        tried = [key for key in keys if not key.startswith(("-", "_"))]
        missed += [key for key in tried if secrets.masked(key) != MASK]
    assert len(missed) <= 1, missed


@pytest.mark.parametrize(
    "argv,shown",
    [
        (["--api-key=x1", "--lr=1"], ["--api-key=***", "--lr=1"]),
        (["--password", "hunter2", "go"], ["--password", "***", "go"]),
        (["--use-auth-token", "--lr=1"], ["--use-auth-token", "--lr=1"]),
        (["db.passwd=a b=c"], ["db.passwd=a b=c"]),  # a sentence, no setting
        (["db.passwd=abc"], ["db.passwd=***"]),
        (["accessKey=abc", "WANDB_API_KEY=abc"], ["accessKey=***", "WANDB_API_KEY=***"]),
        (["postgresql://me:pw@host/db"], ["postgresql://me:***@host/db"]),
        (["https://h/x?token=abcdef&n=2"], ["https://h/x?token=***"]),
        (
            ["--header", "Authorization: Bearer abc123def"],
            ["--header", "Authorization: Bearer ***"],
        ),
    ],
)
def test_what_is_named_like_a_secret_is_masked(argv: list[str], shown: list[str]) -> None:
    assert secrets.arguments(argv) == shown


@pytest.mark.parametrize(
    "word",
    [
        "--max-tokens=100000",
        "--tokenizer=gpt2",
        "model.pad_token=<|endoftext|>",
        "--eos-token=50256",
        "model.key_size=64",
        "train.tokens_per_step=524288",
        "--use-token=none",
        "--author=somebody",
        "train.optimizer.lr=0.00003",
        "runs/default/20261121-015422-gpt-tiny-7522327-c3e8",
        "/scratch/Users/ABC123/Projects/LanguageModels2026/CheckpointsOfMarch/run12",
        "Experiment-2026-11-21-WaveModel-seed12-bs256-lr3e-4",
        "--data-sha256=" + "0123456789abcdef" * 4,
        "sha256:" + "0123456789abcdef" * 4,
        "sk-learn-compatible-estimators-of-the-lot",
        "GPU-8f3c1b2a-1234-9abc-def0-123456789abc",
        "--name=💧" * 5,
        "",
    ],
)
def test_ordinary_words_stay_as_they_are(word: str) -> None:
    assert secrets.arguments([word]) == [word]


@given(st.lists(st.text()))
def test_any_command_is_taken_and_keeps_its_length(argv: list[str]) -> None:
    assert len(secrets.arguments(argv)) == len(argv)


def test_of_the_variables_only_listed_ones_are_recorded_and_these_without_keys() -> None:
    told = secrets.variables(
        {
            "CUDA_VISIBLE_DEVICES": "GPU-8f3c1b2a-1234-9abc-def0-123456789abc,1",
            "SLURM_JOB_ID": "17",
            "SLURM_JOB_USER": "somebody",
            "SLURM_JWT": "eyJhbGciOiJIUzI1NiJ9.x",
            "OMP_NUM_THREADS": "2",
            "CUPEL_ROOT": "s3://key:secret@host/runs",
            "NCCL_TOKEN_FILE": "hf_" + "a1B2" * 9,
            "HF_TOKEN": "hf_x",
            "AWS_SECRET_ACCESS_KEY": "x",
            "HOME": "/home/somebody",
            "PATH": "/bin",
            "RANK": "1",
        }
    )
    assert told == {
        "CUDA_VISIBLE_DEVICES": "GPU-8f3c1b2a-1234-9abc-def0-123456789abc,1",
        "CUPEL_ROOT": "s3://key:***@host/runs",
        "NCCL_TOKEN_FILE": "***",
        "OMP_NUM_THREADS": "2",
        "RANK": "1",
        "SLURM_JOB_ID": "17",
        "SLURM_JWT": "***",
    }


PRIVATE = "\n".join(
    ["-----BEGIN RSA PRIVATE KEY-----", "MIIEpAIBAAKCAQEA0Z3VS5JJ", "-----END RSA PRIVATE KEY-----"]
)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q")
    (tmp_path / "code.py").write_text(f'a = 1\nold = "{KEYS[2]}"\nb = 2\n')
    git(tmp_path, "add", ".")
    git(tmp_path, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "first")
    return tmp_path


def git(folder: Path, *words: str, given: bytes | None = None) -> bytes:
    done = subprocess.run(["git", *words], cwd=folder, input=given, check=True, capture_output=True)
    return done.stdout


def test_a_patch_whose_added_lines_held_keys_applies_and_holds_none(repository: Path) -> None:
    code = repository / "code.py"
    (repository / "other.py").write_text("x = 1\n")
    git(repository, "add", ".")
    git(repository, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "second")
    lines = [
        f'key = "{KEYS[3]}"',
        'password = "hunter2!"',
        'field = {"password": "user_password", "token": "[MASK]"}',
        'url = "postgres://me:pw1234@host/db"',
        'checksum = "' + "0123456789abcdef" * 4 + '"',
        "# basic understanding of a bearer of news",
        *PRIVATE.splitlines(),
    ]
    (repository / "other.py").write_text("\n".join(["x = 1", *lines]) + "\n")
    patch, count = secrets.masked_patch(git(repository, "diff", "HEAD"))
    assert count == 4
    git(repository, "checkout", "-q", "other.py")
    git(repository, "apply", given=patch)
    assert (repository / "other.py").read_text().splitlines() == [
        "x = 1",
        'key = "***"',
        'password = "***"',
        lines[2],
        'url = "postgres://me:***@host/db"',
        lines[4],
        lines[5],
        PRIVATE.splitlines()[0],
        "***",
        PRIVATE.splitlines()[2],
    ]
    assert code.exists()


def test_a_key_in_a_line_that_was_there_is_masked_too(repository: Path) -> None:
    (repository / "code.py").write_text(f'a = 1\nold = "{KEYS[2]}"\nb = 3\n')
    patch, count = secrets.masked_patch(git(repository, "diff", "HEAD"))
    assert count == 1
    assert KEYS[2].encode() not in patch


@given(st.binary())
def test_a_patch_without_keys_stays_as_it_is_bit_for_bit(garbage: bytes) -> None:
    patch = b"diff --git a/x b/x\n@@ -1 +1 @@\n" + garbage
    assert secrets.masked_patch(patch) == (patch, 0)


def test_this_very_code_passes_unmasked() -> None:
    source = Path(secrets.__file__).read_text()
    patch = "diff\n@@ -0,0 +1 @@\n" + "".join(f"+{line}\n" for line in source.splitlines())
    assert secrets.masked_patch(patch.encode()) == (patch.encode(), 0)


@given(st.text(alphabet=LETTERS + "-_.~", min_size=16, max_size=60))
def test_the_address_of_a_dashboard_is_kept_without_its_token(token: str) -> None:
    for host in ("127.0.0.1:8765", "[::1]:9000", "gpu1"):
        shown = secrets.certain(f"cupel: dashboard: http://{host}/#t={token}\n")
        assert shown == f"cupel: dashboard: http://{host}/#t={MASK}\n"
