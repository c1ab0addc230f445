# Everything a person does with this project. `make help` lists it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help

.PHONY: help setup run test lint format typecheck unit clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  %-12s %s\n", $$1, $$2}'

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

setup: $(VENV)/.installed ## Make .venv with the command in it, and fetch the servers that the tests run
	$(BIN)/python scripts/fetch_servers.py all

run: setup ## A real QuestDB, a real backup, a real restore, on this machine
	$(BIN)/python -m scripts.demo

lint: $(VENV)/.installed ## Style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

typecheck: $(VENV)/.installed ## Types, strictly
	$(BIN)/mypy

test: setup lint typecheck ## Everything that must pass: style, types, all tests
	$(BIN)/pytest

unit: setup ## The tests that start no server
	$(BIN)/pytest tests/unit tests/workflow tests/template

clean: ## Remove what was built or fetched
	rm -rf $(VENV) .cache .aws-sam .mypy_cache .pytest_cache .ruff_cache

-include template.mk
