# Every target sets up what it needs: a virtual environment with pinned versions, and for pages a Chromium and fonts.
# The set-up is redone only when pyproject.toml or constraints.txt change. Another Python: `make test PYTHON=python3.12`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready-$(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)
TORCH := $(shell grep '^torch==' constraints.txt)
BENCHMARKS := $(basename $(notdir $(shell grep -ls '^if __name__ == .__main__.' benchmarks/*.py)))

.PHONY: help setup browser check test test-all bench demo format

help:
	@echo 'make demo      screenshot to HTML and back, in demo/report.html'
	@echo 'make test      the tests that take seconds     make test-all   the slow ones too'
	@echo 'make check     format, lint, types, import contracts, shape, docs'
	@echo 'make format    rewrite the code in the one format'
	@echo 'make bench     all benchmarks'

$(READY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "lensmith needs Python 3.11 or newer: make PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo 'Installing what pyproject.toml names, at the versions in constraints.txt; this takes some minutes.'
	@# torch first and by its exact version, so that the resolver never considers (and downloads) a newer build.
	$(BIN)/python -m pip install --quiet --constraint constraints.txt $(TORCH)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@rm -f $(VENV)/.ready-* && touch $@

setup: $(READY)

browser: setup
	@$(BIN)/python -W ignore::RuntimeWarning:runpy -m lensmith.render.browser --install
	@scripts/install_fonts

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/python scripts/check_shape.py
	$(BIN)/python scripts/check_writes.py
	$(BIN)/python scripts/cli_docs.py --check
	$(BIN)/python scripts/field_docs.py --check

test: setup browser
	$(BIN)/python -m pytest -m 'not slow'

test-all: setup browser
	$(BIN)/python -m pytest

bench: setup browser
	@status=0; for name in $(BENCHMARKS); do echo "== $$name"; $(BIN)/python -m benchmarks.$$name || status=1; done; exit $$status

demo: setup browser
	$(BIN)/lensmith demo --out demo

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/python scripts/cli_docs.py
	$(BIN)/python scripts/field_docs.py
