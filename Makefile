# `make reproduce` and `make test` do all set-up that is missing. Everything they run is shown in
# README.md as plain commands.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV ?= .venv
BIN := $(VENV)/bin
PORT ?= 5000
AUDIT_FLAGS ?=
# The first interpreter of a supported version: 3.11 or 3.12.
PYTHON ?= $(shell for p in python3.12 python3.11 python3 python; do \
	$$p -c 'import sys, venv, ensurepip; raise SystemExit(sys.version_info[:2] not in ((3, 11), (3, 12)))' \
	>/dev/null 2>&1 && { echo $$p; break; }; done)

.PHONY: help setup reproduce test lint audit ui lock clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(VENV)/.installed ## virtual environment, installed from requirements.lock

$(VENV)/.installed: requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "error: Python 3.11 or 3.12 with venv is needed; on Debian apt install python3-venv; or set PYTHON=/path/to/python" >&2; exit 4; }
	@echo "Setting up $(VENV) with $$($(PYTHON) --version): about 3 minutes, 6.5 GB"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

reproduce: setup ## run the default profile, print the audit's verdict, pack a bundle for other auditors
	. $(BIN)/activate && snakemake
	@$(MAKE) --no-print-directory audit
	. $(BIN)/activate && python -m clsp bundle create

audit: setup ## re-derive every number of the default profile; exit code 1 on a finding
	. $(BIN)/activate && python -m clsp audit $(AUDIT_FLAGS)

test: setup ## all tests, on all processors
	. $(BIN)/activate && OMP_NUM_THREADS=1 python -m pytest -n auto --dist loadfile

lint: setup ## style of Python and Snakemake code, import contracts
	. $(BIN)/activate && ruff format --check . && ruff check . && lint-imports && snakefmt --check Snakefile rules

ui: setup ## MLflow's pages on http://127.0.0.1:$(PORT)
	. $(BIN)/activate && mlflow ui --backend-store-uri sqlite:///mlflow.db --host 127.0.0.1 --port $(PORT)

lock: ## resolve requirements.lock anew from pyproject.toml (needs uv)
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
		--no-header --no-annotate --generate-hashes -o requirements.lock

clean: ## remove results, reports and logs of all profiles (not the environment or downloads)
	rm -rf results logs bundles .clsp/scratch .clsp/locks .snakemake mlflow.db* mlartifacts
	find reports -mindepth 1 -maxdepth 1 ! -name spec -exec rm -rf {} +
