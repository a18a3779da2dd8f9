# make run    an environment, Ravine in it, and a network trained on handwritten digits
# make test   the same environment with the test tools, and the whole test suite
#
# Packages come from the index that pip is configured with. Any build of torch will do. PyPI's build for
# Linux brings the CUDA libraries (some 3 GB); for the small CPU build, name PyTorch's index as well:
#     PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make run
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
PYTEST := $(BIN)/python -m pytest -n 2 --dist worksteal
unexport PYTHONDONTWRITEBYTECODE # tests start Python a hundred times, and each would compile Ravine anew

.PHONY: run test test-slow test-all promises lint docs site clean mutants mutants-map fuzz audit locks install-locked

run: .venv/.ravine
	$(BIN)/ravine train

test: .venv/.dev
	$(PYTEST)

test-slow: .venv/.dev
	$(PYTEST) -m slow

test-all: .venv/.dev
	$(PYTEST) -m "slow or not slow"

promises: .venv/.dev # every matrix of docs/reliability.md, counted: some hours of two cores
	RAVINE_COUNTS=docs/reliability.json $(PYTEST) -m slow tests/promises
	$(BIN)/python docs/build.py --pages

lint: .venv/.dev
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: .venv/.dev
	$(BIN)/python docs/build.py

site: .venv/.dev
	$(BIN)/python docs/publish.py

# The versions of constraints.txt: their files by sha256, their licences, their known weaknesses (bench/locks.py)
locks: .venv/.dev
	$(BIN)/python bench/locks.py

install-locked: | $(BIN)/python
	$(INSTALL) torch
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps -e .

audit: .venv/.dev
	$(INSTALL) -e '.[audit]'
	$(BIN)/python -m pip_audit --skip-editable

# Every group of readers for five minutes; findings are kept in tests/safety/findings
fuzz: .venv/.dev
	$(INSTALL) -e '.[fuzz]'
	for group in idx npz recipe csv image text weights json shards parquet; do $(BIN)/python bench/fuzz.py $$group || exit 1; done

# Mutation testing: a sample of changes to the code, each of which some test has to see. COUNT and SEED choose
# another sample; the map of what each test touches is made once (about an hour), and again when tests change. A
# sample that was interrupted goes on; the counts of docs/reliability.md are stored by bench/mutants.py --store.
COUNT ?= 300
SEED ?= 0
mutants: .venv/.dev | .mutants/map
	$(INSTALL) -e '.[mutants]'
	$(BIN)/python bench/mutants.py --count $(COUNT) --seed $(SEED)

mutants-map .mutants/map: .venv/.dev
	$(INSTALL) -e '.[mutants]'
	$(BIN)/python bench/mutants.py --map

clean:
	rm -rf .venv dist site

$(BIN)/python:
	$(PYTHON) -m venv .venv

.venv/.ravine: pyproject.toml constraints.txt | $(BIN)/python
	$(INSTALL) -e .
	touch $@

.venv/.dev: .venv/.ravine
	$(INSTALL) -e '.[dev,docs,web,tensorboard,mlflow,wandb,onnx,optuna,interop,frames,parquet,ray]'
	touch $@
