"""The GPT workload keeps the contract, and a run folder alone is enough to write text from."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from cupel.checkpoint import folder
from cupel.config import load
from cupel.data.tokenizer import Tokenizer
from cupel.errors import (
    CheckpointDamaged,
    CheckpointError,
    DataError,
    TrainingFailed,
    UsageError,
)
from cupel.models.gpt.generate import generate
from cupel.models.gpt.model import GPT
from cupel.randomness import Streams
from cupel.record.checkpoints import step_dir
from cupel.testing.workload import WorkloadContract
from cupel.workloads.gpt import GPTWorkload
from cupel.workloads.settings import GPTSettings
from cupel.workloads.text import write_text
from cupel.workloads.training import Trained, train

TEXT = "Wer reitet so spät durch Nacht und Wind? It is the father with his child. 雨。\n" * 40
MODEL = {"layers": 1, "heads": 2, "width": 8, "block": 8}
DATA = {"batch": 4, "val_batches": 2, "val_batch": 3}


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUPEL_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def text(tmp_path: Path) -> Path:
    path = tmp_path / "text.txt"
    path.write_text(TEXT)
    return path


class TestGPT(WorkloadContract):
    workload = "gpt"

    @pytest.fixture(autouse=True)
    def _small(self, text: Path) -> None:
        self.settings = {"data": {**DATA, "path": str(text)}, "model": MODEL}


class TestGPTWithEverythingOn(WorkloadContract):
    workload = "gpt"
    model: ClassVar[dict[str, Any]] = {
        **MODEL,
        "dropout": 0.1,
        "tied": True,
        "activation_checkpointing": True,
    }

    @pytest.fixture(autouse=True)
    def _small(self, text: Path) -> None:
        self.settings = {"data": {**DATA, "path": str(text)}, "model": self.model}


def build(text: Path, **model: Any) -> GPTWorkload:
    settings = {"data": {**DATA, "path": str(text)}, "model": {**MODEL, **model}}
    return GPTWorkload.build(GPTSettings.model_validate(settings), seed=1)


def test_the_loss_is_that_of_the_model_on_the_next_token(text: Path) -> None:
    workload = build(text)
    x_BT, y_BT = workload.batch(3)
    assert torch.equal(x_BT[:, 1:], y_BT[:, :-1])
    with torch.no_grad():
        logits_BTV, _ = workload.model(x_BT)
        loss, _ = workload.loss((x_BT, y_BT))
    logp_BTV = logits_BTV.double().log_softmax(2)
    by_hand = -logp_BTV.gather(2, y_BT[:, :, None]).mean()
    assert float(loss) == pytest.approx(float(by_hand), abs=1e-6)


def test_validation_does_not_depend_on_the_seed(text: Path) -> None:
    settings = GPTSettings.model_validate({"data": {**DATA, "path": str(text)}, "model": MODEL})
    one, two = (GPTWorkload.build(settings, seed=seed) for seed in (1, 2))
    two.model.load_state_dict(one.model.state_dict())
    for workload in (one, two):
        workload.model.eval()
    with torch.no_grad():
        assert one.evaluate() == two.evaluate()
    assert one.val_name == two.val_name == "val-2x3x8"


def test_a_vocabulary_smaller_than_the_data_has_is_refused(text: Path) -> None:
    with pytest.raises(UsageError, match=r"model.vocabulary is 9, but the data has 256") as caught:
        build(text, vocabulary=9)
    assert "\n" not in str(caught.value)
    assert build(text, vocabulary=300).model.settings.vocabulary == 300


def test_a_text_shorter_than_a_block_is_refused(text: Path) -> None:
    text.write_text("short")
    with pytest.raises(DataError, match="a block of 8 needs 9"):
        build(text)


@pytest.mark.slow
def test_a_sample_is_the_same_for_the_same_weights_and_leaves_them_training(text: Path) -> None:
    workload = build(text, dropout=0.5)
    before = torch.get_rng_state()
    assert workload.samples() == workload.samples()
    assert workload.model.training
    assert torch.equal(torch.get_rng_state(), before)


def test_a_physics_model_is_made_with_ranks_by_count_in_the_training_text(text: Path) -> None:
    workload = build(text, kind="wave", embedding="physics")
    counts_V = np.bincount(workload.tokens.train, minlength=256)
    ranks_V = workload.model.embedding.ranks.numpy()
    # Ids of one count, as those that never occur, keep their own order.
    expected = sorted(range(256), key=lambda token: (-counts_V[token], token))
    assert np.argsort(ranks_V).tolist() == expected
    assert counts_V[ranks_V == 0] == counts_V.max()


def test_ids_beyond_the_data_are_the_rarest(text: Path) -> None:
    model = build(text, kind="wave", embedding="physics", vocabulary=300).model
    assert model.embedding.ranks[256:].tolist() == list(range(256, 300))


OWN_MODEL = """
from typing import ClassVar, Literal
from cupel.models.gpt.model import GPT
from cupel.models.gpt.settings import GPTModelSettings

class Asking(GPT):
    class Settings(GPTModelSettings):
        kind: Literal["own_models:Asking"] = "own_models:Asking"
        needs_ranks: ClassVar[bool] = True

    def __init__(self, settings, *, ranks_V):
        super().__init__(settings)
        self.register_buffer("ranks", ranks_V)

class Silent(GPT):
    class Settings(GPTModelSettings):
        kind: Literal["own_models:Silent"] = "own_models:Silent"
        embedding: Literal["physics"] = "physics"
"""


def test_any_model_whose_settings_ask_for_ranks_is_made_with_them_and_no_other(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_models.py").write_text(OWN_MODEL)
    monkeypatch.syspath_prepend(tmp_path)
    asked = build(text, kind="own_models:Asking").model
    physics = build(text, kind="wave", embedding="physics").model
    assert torch.equal(asked.ranks, physics.embedding.ranks)
    assert not list(build(text, kind="own_models:Silent").model.buffers())


# ---- from the run folder alone -----------------------------------------------------------------


def trained(text: Path, *overrides: str) -> Trained:
    """A run of eight steps with checkpoints at 3, 6 and 8."""
    settings = [
        f"data.path={text}",
        *(f"data.{name}={value}" for name, value in DATA.items()),
        *(f"model.{name}={value}" for name, value in MODEL.items()),
        *("train.steps=8", "train.evaluate_every=8", "train.threads=1", "train.device=cpu"),
        *("checkpoint.every=3", "checkpoint.keep_last=3", "sample.tokens=6"),
        *("figures.formats=[]", "monitors=off"),
        *overrides,
    ]
    return train(load("gpt-tiny", settings), root=text.parent / "runs")


def written(
    run_dir: Path,
    *,
    seed: int = 1,
    step: int | None = None,
    warnings: list[str] | None = None,
    **changes: Any,
) -> str:
    pieces, told = [], []
    write_text(run_dir, changes, seed=seed, step=step, tell=pieces.append, warn=told.append)
    assert told if warnings is not None else not told
    if warnings is not None:
        warnings += told
    return "".join(pieces)


@pytest.mark.slow
def test_text_is_written_from_the_run_folder_alone(text: Path, tmp_path: Path) -> None:
    """Without the corpus and its cache, and in another place; as the run itself would write."""
    run = trained(text, "sample.prompt=It is")
    assert run.run_dir is not None
    moved = tmp_path / "elsewhere"
    shutil.move(run.run_dir, moved)
    text.unlink()
    shutil.rmtree(tmp_path / "cache")
    assert written(moved) == "It is" + run.results["samples"][0]["text"].rstrip("\ufffd")


@pytest.mark.parametrize("tokens", ["byte", "bpe"])
@pytest.mark.slow
def test_the_pieces_make_up_the_text(text: Path, tokens: str) -> None:
    """Bytes that are half a character wait for the other half."""
    pytest.importorskip("tokenizers")
    vocabulary = ["data.vocabulary=270"] if tokens == "bpe" else []
    run_dir = trained(text, f"data.tokens={tokens}", *vocabulary).run_dir
    assert run_dir is not None
    tokenizer = Tokenizer.from_state(json.loads((run_dir / "tokenizer.json").read_text()))
    config = {**MODEL, "vocabulary": tokenizer.vocabulary}
    model = GPT(GPTSettings.model_validate({"model": config}).model)
    model.load_state_dict(folder.load_part(step_dir(run_dir, 8), "model"))
    for seed in range(3):
        ids = generate(
            model,
            torch.tensor(tokenizer.encode("spät")),
            tokens=60,
            temperature=1.5,
            key=Streams(seed).key("sample"),
        )
        expected = "spät" + tokenizer.decode(ids).rstrip("\ufffd")
        found = written(run_dir, seed=seed, step=8, prompt="spät", tokens=60, temperature=1.5)
        assert found == expected


@pytest.mark.slow
def test_the_step_the_best_or_the_newest_checkpoint_writes(text: Path) -> None:
    run_dir = trained(text, "train.schedule.warmup=0", "train.optimizer.lr=0.1").run_dir
    assert run_dir is not None
    hot = {"tokens": 40, "temperature": 1.0}
    by_step = {step: written(run_dir, step=step, **hot) for step in (3, 6, 8)}
    assert len(set(by_step.values())) == 3, by_step
    assert written(run_dir, **hot) == by_step[8]
    (run_dir / "checkpoints" / "best-val_loss.json").write_text(
        json.dumps({"schema": 1, "step": 6})
    )
    assert written(run_dir, **hot) == by_step[6]
    (run_dir / "checkpoints" / "best-val_loss.json").unlink()
    assert written(run_dir, **hot) == by_step[8]


def test_a_step_that_was_not_kept_is_refused_with_those_that_were(text: Path) -> None:
    run_dir = trained(text).run_dir
    assert run_dir is not None
    with pytest.raises(UsageError, match=r"no checkpoint of step 4 \(there are: 3, 6, 8\)"):
        written(run_dir, step=4)
    shutil.rmtree(run_dir / "checkpoints")
    with pytest.raises(CheckpointError, match="has no checkpoint yet"):
        written(run_dir)


def damage(run_dir: Path, step: int) -> None:
    path = step_dir(run_dir, step) / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.slow
def test_a_damaged_checkpoint_is_passed_over_with_a_warning_unless_it_was_asked_for(
    text: Path,
) -> None:
    run_dir = trained(text, "train.schedule.warmup=0", "train.optimizer.lr=0.1").run_dir
    assert run_dir is not None
    by_step = {step: written(run_dir, step=step, tokens=40) for step in (3, 6)}
    damage(run_dir, 8)
    warnings: list[str] = []
    assert written(run_dir, tokens=40, warnings=warnings) == by_step[6]
    assert "the checkpoint of step 8 is passed over" in warnings[0]
    with pytest.raises(UsageError, match=r"take another step \(there are: 3, 6, 8\)") as caught:
        written(run_dir, step=8)
    assert "\n" not in str(caught.value)
    damage(run_dir, 6)
    assert written(run_dir, tokens=40, warnings=[]) == by_step[3]
    damage(run_dir, 3)
    with pytest.raises(CheckpointDamaged, match="has no intact checkpoint"):
        written(run_dir, warnings=[])


@pytest.mark.slow
def test_a_best_pointer_that_leads_nowhere_is_told_and_the_newest_is_taken(text: Path) -> None:
    run_dir = trained(text).run_dir
    assert run_dir is not None
    pointer, newest = run_dir / "checkpoints" / "best-val_loss.json", written(run_dir, step=8)
    for content in ("{", json.dumps({"schema": 1, "step": 5})):
        pointer.write_text(content)
        assert written(run_dir, warnings=[]) == newest


@pytest.mark.parametrize(
    "changes, told",
    [
        ({"top_p": 0.0}, "top_p: 0.0 is out of range; it must be above 0.0"),
        ({"temperature": float("nan")}, "temperature: NaN is not a finite number"),
        ({"prompt": "\udcff\udcfe"}, "prompt: '\\udcff\\udcfe' is not UTF-8 text"),
        ({"prompt": ""}, "the prompt is empty; give at least one character to continue"),
    ],
)
def test_a_change_that_does_not_fit_is_refused_in_one_line(
    text: Path, changes: dict[str, Any], told: str
) -> None:
    run_dir = trained(text, "train.steps=2").run_dir
    assert run_dir is not None
    with pytest.raises(UsageError) as caught:
        written(run_dir, **changes)
    assert str(caught.value) == told


def test_a_model_that_gives_nan_is_named_with_its_step_and_writes_nothing(text: Path) -> None:
    run = trained(
        text, "train.nonfinite=continue", "train.optimizer.lr=1e30", "train.schedule.warmup=0"
    )
    assert run.run_dir is not None
    pieces: list[str] = []
    with pytest.raises(TrainingFailed, match=r"step 8: the model's logits are NaN or infinite"):
        write_text(run.run_dir, {}, seed=1, step=8, tell=pieces.append, warn=pieces.append)
    assert not pieces


def test_a_run_of_another_workload_writes_no_text(tmp_path: Path) -> None:
    recipe = tmp_path / "other.yaml"
    recipe.write_text(
        "workload: fakes:Regression\ntrain: {steps: 2, device: cpu}\nfigures: {formats: []}\n"
    )
    run_dir = train(load(recipe), root=tmp_path / "runs").run_dir
    assert run_dir is not None
    with pytest.raises(UsageError, match="trained 'fakes:Regression', which writes no text"):
        written(run_dir)
