# Everything a person does with this project. `make help` lists it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help

.PHONY: help setup run run-ebs test lint format typecheck unit s3-gateway soak clean

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

run-ebs: setup ## The EBS route on a loop-mounted volume, with a stand-in for AWS (root)
	$(BIN)/python -m scripts.demo_ebs

lint: $(VENV)/.installed ## Style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed ## Format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

typecheck: $(VENV)/.installed ## Types, strictly
	$(BIN)/mypy

# A second real S3 server beside moto's, for the stores' contract suite; it is built from source.
ifneq ($(shell command -v go 2>/dev/null),)
s3-gateway: .cache/bin/versitygw
.cache/bin/versitygw:
	GOBIN=$(CURDIR)/.cache/bin go install github.com/versity/versitygw/cmd/versitygw@v1.8.0
else
s3-gateway:
	@echo "*** SKIPPED: versitygw needs Go to be built; the S3 contract is tested against moto's server only ***" >&2
endif

# Two files at a time, but for what runs whole databases: those have clocks of their own, and a mounted volume that is
# synced holds up every other's disk.
WITH_CLOCKS := tests/contract/test_databases.py
test: setup s3-gateway lint typecheck validate ## Everything that must pass: style, types, template, all tests
	$(BIN)/pytest --numprocesses 2 --dist loadfile tests/unit tests/workflow tests/template tests/contract --ignore $(WITH_CLOCKS)
	$(BIN)/pytest $(WITH_CLOCKS) tests/crash tests/integration

unit: setup ## The tests that start no server
	$(BIN)/pytest tests/unit tests/workflow tests/template

soak: setup ## Longer: thousands of damaged images, busy volumes and torn journals against the kernel (root)
	EXT4_FUZZ_IMAGES=1500 VOLUME_COPIES=6 VOLUME_TEARS=30 $(BIN)/pytest --timeout=3600 \
		tests/unit/test_ext4_fuzz.py tests/unit/test_xfs_fuzz.py tests/unit/test_volume_layout_fuzz.py \
		tests/integration/test_ext4_kernel.py tests/integration/test_xfs_kernel.py

clean: ## Remove what was built or fetched
	rm -rf $(VENV) .cache .aws-sam .mypy_cache .pytest_cache .ruff_cache

include template.mk
include bench.mk
