.PHONY: demo test test-all docs page mutants

PY ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(BIN)/pytest --numprocesses auto --maxprocesses 8

demo: $(VENV)/.installed
	@n=1; while grep -qs '"finished": true' runs/demo-$$n/metrics.jsonl; do n=$$((n + 1)); done; \
	$(BIN)/ptarmigan train --time 2m --out runs/demo-$$n

test: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(PYTEST) -m "not slow"

test-all: $(VENV)/.installed-dev
	$(PYTEST)

docs: $(VENV)/.installed-dev
	$(BIN)/python -m sphinx -b html -W --keep-going -q docs docs/_build/html
	@echo docs/_build/html/index.html

page: $(VENV)/.installed-dev
	cd tools && OMP_NUM_THREADS=1 ../$(BIN)/python -m losses_page.build

mutants: $(VENV)/.installed-dev
	$(BIN)/python tools/mutate.py

$(BIN)/python:
	$(PY) -m venv $(VENV)

$(VENV)/.installed: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.installed-dev: $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,bench]'
	@touch $@ $(VENV)/.installed
