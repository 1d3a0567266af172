"""A tiny GPT-2 trained by the Trainer of transformers, with its numbers in cupel.

    python examples/hf_trainer.py                          # cupel
    TRACKER=wandb WANDB_MODE=offline python examples/hf_trainer.py

Needs `pip install transformers accelerate`. The model is made from a config and the text is drawn,
so nothing is downloaded. `--logged FILE` also writes what was logged as JSON; a test compares it
with the record.
"""

import argparse
import json
import os
import tempfile
from pathlib import Path

import torch
from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments, set_seed

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=12)
parser.add_argument("--logged")
args = parser.parse_args()

tracker = os.environ.get("TRACKER", "cupel")
if tracker == "cupel":
    import cupel.integrations.huggingface  # noqa: F401  # makes report_to="cupel" known

set_seed(1)
rows = torch.randint(0, 50, (64, 16))
rows = rows.sort(dim=1).values  # something to learn
dataset = [{"input_ids": row, "labels": row} for row in rows]
model = GPT2LMHeadModel(
    GPT2Config(
        vocab_size=50,
        n_positions=16,
        n_embd=16,
        n_layer=1,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
    )
)
with tempfile.TemporaryDirectory() as folder:
    arguments = TrainingArguments(
        folder,
        max_steps=args.steps,
        per_device_train_batch_size=8,
        learning_rate=1e-2,
        logging_steps=3,
        eval_strategy="steps",
        eval_steps=6,
        save_strategy="no",
        report_to=tracker,
        run_name="tiny-gpt2",
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = Trainer(model, arguments, train_dataset=dataset[:48], eval_dataset=dataset[48:])
    trainer.train()

if args.logged:
    Path(args.logged).write_text(json.dumps({"rows": trainer.state.log_history}))
