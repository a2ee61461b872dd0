# `make demo` and `make test` set up everything they need; `make help` lists all targets.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: help demo test test-all chaos lint format clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-10s%s\n", $$1, $$2 }' Makefile

demo: .venv/ready  ## draw a sample, train, score, predict, check; results in runs/demo
	$(BIN)/carvana-ray pipeline --out runs/demo --downscale 8 --base 8 --epochs 4 --batch-size 4 --sample-test-cars 2

test: .venv/tests  ## run the tests without the slow ones
	$(BIN)/python -m pytest -m "not slow" --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-all: .venv/tests  ## run all tests
	$(BIN)/python -m pytest

chaos: .venv/tests  ## kill a prediction twenty times (15 minutes); its result must not change
	cd tests && ../$(BIN)/python -m support.chaos

lint: .venv/tests  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/tests  ## format the code and fix what ruff can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Installed again whenever the requirements change. pip would compile all modules of all packages on
# one core; the last line imports what the program uses, which compiles a tenth of them.
.venv/tests: EXTRA = [test]
.venv/ready .venv/tests: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --no-compile --editable '.$(EXTRA)' --constraint requirements.txt
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -c 'import carvana_ray.stages.pipeline, carvana_ray.report.charts, ray.dashboard.agent, ray.train.torch'
	touch .venv/ready $@

clean:  ## remove the environment and caches, but no results (runs/)
	rm -rf .venv .venv-mitmproxy build *.egg-info .pytest_cache .ruff_cache .mypy_cache
