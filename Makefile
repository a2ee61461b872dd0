# `make demo` and `make test` set up everything they need; `make help` lists all targets.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: help demo test test-all chaos lint format clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-10s%s\n", $$1, $$2 }' Makefile

demo: .venv/ready  ## draw a sample, train, score, predict, check; results in runs/demo
	$(BIN)/carvana-ray pipeline --out runs/demo --downscale 8 --base 8 --epochs 12

test: .venv/ready  ## run the tests without the slow ones
	$(BIN)/python -m pytest -m "not slow" --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-all: .venv/ready  ## run all tests
	$(BIN)/python -m pytest

chaos: .venv/ready  ## kill a prediction twenty times (15 minutes); its result must not change
	cd tests && ../$(BIN)/python -m support.chaos

lint: .venv/ready  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/ready  ## format the code and fix what ruff can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Installed again whenever the requirements change.
.venv/ready: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[test]' --constraint requirements.txt
	touch $@

clean:  ## remove the environment and caches, but no results (runs/)
	rm -rf .venv .venv-mitmproxy build *.egg-info .pytest_cache .ruff_cache .mypy_cache
