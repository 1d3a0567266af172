# Everything a person types, and what CI runs. Each target sets up what it needs.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
READY  := $(VENV)/.ready

# Threads that spin while they wait make a busy machine many times slower.
export OMP_WAIT_POLICY := PASSIVE

.DEFAULT_GOAL := help
.PHONY: help setup quickstart test test-fast check bench bench-record bench-jobs clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(READY) ## make .venv and install cupel with everything it needs

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "cupel needs Python 3.11 or newer; found $$($(PYTHON) --version 2>&1). Type: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 2; }
	@echo "installing into $(VENV) (a few minutes, once) …"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

quickstart: $(READY) ## a study on real text: a GPT against a wave GPT; stop and start it as you like
	@$(BIN)/cupel study run quickstart

test: $(READY) ## run the linters and every test
	@$(MAKE) --no-print-directory check
	$(BIN)/python -m pytest -n auto --dist loadgroup

test-fast: $(READY) ## run the tests that take seconds
	$(BIN)/python -m pytest -n auto --dist loadgroup -m 'not slow'

check: $(READY) ## lint, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY) ## measure what the loop, logging and monitors cost
	$(BIN)/python benchmarks/run.py

bench-record: $(READY) ## measure the record beside wandb, MLflow, Aim, trackio, TensorBoard (25 min)
	$(BIN)/python benchmarks/record/run.py

bench-jobs: $(READY) ## measure sweeps beside submitit, Hydra, Optuna, huey; plans of 100,000 runs (20 min)
	$(BIN)/python benchmarks/jobs/run.py

clean: ## remove .venv and caches; runs/ stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
