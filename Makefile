# The one task runner; `make` alone is what a change has to pass. `PYTHON=…/python make` uses an environment of yours.
PYTHON ?= .venv/bin/python
ENVIRONMENT = $(filter .venv/%,$(PYTHON))

check: lint test

.venv/bin/python:
	python3 -m venv .venv
	.venv/bin/pip install -q -c constraints.txt -e '.[test]'

lint: | $(ENVIRONMENT)
	$(PYTHON) -m ruff check
	$(PYTHON) -m ruff format --check
	$(PYTHON) -m mypy

test: | $(ENVIRONMENT)
	$(PYTHON) -m pytest -q -n 2

format: | $(ENVIRONMENT)
	$(PYTHON) -m ruff check --fix
	$(PYTHON) -m ruff format

.PHONY: check lint test format
