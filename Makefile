# Every target sets up what it needs: a virtual environment with pinned versions, and for pages a Chromium and fonts.
# The set-up is redone only when pyproject.toml or constraints.txt change. Another Python: `make test PYTHON=python3.12`.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready-$(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)
TORCH := $(shell grep '^torch==' constraints.txt)
BENCHMARKS := $(basename $(notdir $(shell grep -ls '^if __name__ == .__main__.' benchmarks/*.py)))

PIP_LOG := $(VENV)/pip.log
# pip warns of much that is no fault of ours; what it says is shown where it fails.
PIP_INSTALL = $(BIN)/python -m pip install --constraint constraints.txt
TESTS := $(BIN)/python -m pytest
ALONE = $(shell grep -rls 'mark\.alone' tests)
DIST := dist

.PHONY: help setup browser app check test test-all bench demo dist format

help:
	@echo 'make app       a screenshot of yours becomes a page, in your browser'
	@echo 'make demo      screenshot to HTML and back, in demo/report.html; PICTURE=shot.png: yours'
	@echo 'make test      the tests that take seconds     make test-all   the slow ones too'
	@echo 'make check     format, lint, types, import contracts, shape, docs'
	@echo 'make format    rewrite the code in the one format'
	@echo 'make bench     all benchmarks            make dist     a wheel, in dist/'

$(READY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "lensmith needs Python 3.11 or newer: make PYTHON=python3.12")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo 'Installing what pyproject.toml names, at the versions in constraints.txt; this takes some minutes.'
	@# torch first and by its exact version, so that the resolver never considers (and downloads) a newer build.
	@{ $(PIP_INSTALL) $(TORCH) && $(PIP_INSTALL) --editable '.[dev]'; } >$(PIP_LOG) 2>&1 || { cat $(PIP_LOG) >&2; exit 1; }
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
	$(BIN)/python scripts/architecture_picture.py --check

test: setup browser
	$(TESTS) -m 'not slow and not alone' --numprocesses 2 --dist loadfile --no-loadscope-reorder
	$(TESTS) -m 'not slow and alone' $(ALONE)

test-all: test
	$(TESTS) -m slow

bench: setup browser
	@scripts/install_chromium $(BIN)/python
	@status=0; for name in $(BENCHMARKS); do echo "== $$name"; $(BIN)/python -m benchmarks.$$name || status=1; done; exit $$status

dist: setup
	@$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir $(DIST) . 2>$(PIP_LOG) || { cat $(PIP_LOG) >&2; exit 1; }
	@echo $(DIST)/*.whl

app: setup browser
	$(BIN)/lensmith app

demo: setup browser
	$(BIN)/lensmith demo --out demo $(if $(PICTURE),--picture '$(PICTURE)')

format: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	$(BIN)/python scripts/cli_docs.py
	$(BIN)/python scripts/field_docs.py
	$(BIN)/python scripts/architecture_picture.py
