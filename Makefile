# Everything is set up on first use, in .venv; only package installs need the network.
SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
DEMO := demo

.PHONY: demo test lint types bench clean

.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "wombat needs Python 3.11 or newer")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch .venv/.ready

demo: .venv/.ready
	$(BIN)/python -m wombat_dagster.demo $(DEMO)

test: .venv/.ready
	$(BIN)/python -m pytest -n 2 --dist loadfile --max-worker-restart 0

lint: .venv/.ready
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m ruff check .

types: .venv/.ready
	$(BIN)/python -m mypy

bench: .venv/.ready
	@for part in startup propagation detection reduction masters photometry magnitudes night; do \
	  echo "== $$part"; $(BIN)/python benchmarks/$$part.py || exit 1; done

clean:
	rm -rf .venv $(DEMO)
