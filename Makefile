PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

PEERS  := .venv-bench/.ready

.PHONY: demo lessons test lint format docs bench peers sweep clean

demo: $(READY)
	$(BIN)/pullback demo --out demo-out

test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

lessons: $(READY)
	$(BIN)/pullback learn --notebook --out lessons
	$(BIN)/pullback learn --notebook --worked --out lessons

sweep: $(READY)
	$(BIN)/python -m tests.sparse.sweep
	$(BIN)/python -m tests.sparse.random_programs --count 2000 --seed 0
	$(BIN)/python -m tests.sparse.hessian.sweep
	$(BIN)/python -m tests.sparse.hessian.random_programs --count 1000 --seed 0

bench: $(READY)
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks jacobians --threads 2

peers: $(PEERS)

$(PEERS): benchmarks/peers/requirements.txt
	test -x .venv-bench/bin/python || $(PYTHON) -m venv .venv-bench
	.venv-bench/bin/python -m pip install --quiet -r benchmarks/peers/requirements.txt
	touch $(PEERS)

$(READY): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) demo-out build dist site
