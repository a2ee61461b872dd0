# Two commands on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: demo test test-all chaos lint format clean

demo: .venv/ready  ## draw a sample, train, score, predict, check; results in runs/demo
	$(BIN)/python jobs/pipeline.py --out runs/demo --downscale 8 --base 8 --epochs 12

test: .venv/ready  ## the tests, without the slow suites
	$(BIN)/python -m pytest -m "not slow" --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-all: .venv/ready  ## all tests
	$(BIN)/python -m pytest

chaos: .venv/ready  ## kill a prediction twenty times (a quarter of an hour); it must cost nothing
	cd tests && ../$(BIN)/python -m support.chaos

lint: .venv/ready  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Made again whenever what it holds changes; a second call costs nothing.
.venv/ready: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@

clean:  ## leaves results (runs/) alone
	rm -rf .venv .venv-mitmproxy build *.egg-info .pytest_cache .ruff_cache .mypy_cache
