# The workshop's first commands. `make` alone lists them.
SHELL := /bin/sh
PYTHON ?= python3
BIN := .venv/bin
JUPYTER_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help install lab up down test tests models coverage lint format lock slides clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: ## create .venv and install the locked packages
	@$(PYTHON) workshop/bootstrap.py

lab: up ## start everything and open JupyterLab
	@exec $(BIN)/python -m workshop.lab $(JUPYTER_ARGS) notebooks

up: install ## start everything; the first time, index the handbook
	@$(BIN)/workshop up

down: ## stop everything
	@if [ -x $(BIN)/workshop ]; then $(BIN)/workshop down; else echo "Nothing is installed."; fi

test: lint tests ## everything that CI runs

# One worker has the lessons and the system as processes, the other the rest, then containers.
tests: models
	$(BIN)/pytest -n 2 --dist loadgroup --no-loadscope-reorder --durations=25

models: install
	$(BIN)/workshop models fetch

coverage: install ## the lines that the unit tests run
	$(BIN)/pytest -n 2 services workshop --cov=services --cov=workshop --cov-report=term:skip-covered

lint: install ## formatting, style, types and import rules
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: install ## format the code and fix what can be fixed
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

slides: install slides/node_modules ## build the instructor's decks: slides/dist/*.html and *.pdf
	@$(BIN)/workshop slides

slides/node_modules: slides/package-lock.json slides/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r slides/requirements.txt
	PATH="$(CURDIR)/$(BIN):$$PATH" npm ci --prefix slides --loglevel=error
	@touch slides/node_modules

lock: install ## resolve pyproject.toml anew into requirements.lock
	$(BIN)/uv pip compile pyproject.toml --quiet --universal --python-version 3.11 --group dev \
		--excludes workshop/cuda_packages.txt --upgrade \
		--custom-compile-command "make lock" --output-file requirements.lock

clean: down ## stop, and remove what was installed, indexed and logged; models stay
	rm -rf .venv .workshop/data .workshop/run .workshop/logs .workshop/first_start
	rm -rf slides/dist slides/node_modules
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis .coverage
