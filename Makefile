# make demo | test | test-all | bench | lint | readme; `make venv` is part of each.

VENV := .venv
PYTHON := $(VENV)/bin/python
STAMP := $(VENV)/.installed
WORKERS ?= $(shell nproc)
CODE := src tests benchmarks scripts

.DELETE_ON_ERROR:
.PHONY: help venv demo test test-all bench lint format readme clean

help:  ## what each target does
	@sed -nE 's/^([a-z-]+):.*## (.*)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 12

venv: $(STAMP)  ## .venv with the locked versions and this package, editable

# torch goes first and alone, under the lock's constraints, so that what it needs is decided by the build that the
# machine's own index offers (with or without CUDA), and nothing else pulls it in.
$(STAMP): requirements.lock pyproject.toml
	test -x $(PYTHON) || python3 -m venv $(VENV)
	$(PYTHON) -m pip install --quiet --constraint requirements.lock torch
	$(PYTHON) -m pip install --quiet --requirement requirements.lock
	$(PYTHON) -m pip install --quiet --no-deps --no-build-isolation --editable .
	$(PYTHON) -m pip check
	touch $(STAMP)

demo: venv  ## a synthetic market: log, fit, evaluation, recommendations
	$(VENV)/bin/macrorec demo

lint: venv  ## ruff (rules and format) and mypy (strict)
	$(VENV)/bin/ruff check $(CODE)
	$(VENV)/bin/ruff format --check $(CODE)
	$(VENV)/bin/mypy

# One thread per worker: pools of four threads in each of four workers only wait for each other.
test test-all: export OMP_NUM_THREADS ?= 1
test test-all: export OPENBLAS_NUM_THREADS ?= 1
test test-all: export MKL_NUM_THREADS ?= 1
test test-all: export POLARS_MAX_THREADS ?= 2
test test-all: export NUMBA_NUM_THREADS ?= 2

test: lint  ## lint, then all tests but the slow ones
	$(VENV)/bin/pytest -n $(WORKERS) --dist worksteal -m "not slow"

test-all: lint  ## lint, then all tests
	$(VENV)/bin/pytest -n $(WORKERS) --dist worksteal

bench: venv  ## every script in benchmarks/; one JSON line each
	@for script in $$(grep -l '__main__' benchmarks/*.py | sort); do \
		$(PYTHON) -m benchmarks.$$(basename $$script .py) || exit 1; \
	done

format: venv  ## rewrite the code in ruff's format
	$(VENV)/bin/ruff check --fix $(CODE)
	$(VENV)/bin/ruff format $(CODE)

readme: venv  ## rewrite the tree in README.md from the modules' docstrings
	$(PYTHON) scripts/readme_tree.py

clean:  ## remove caches (the virtual environment and runs stay)
	rm -rf .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
