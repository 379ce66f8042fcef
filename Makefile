# Every target sets up .venv from constraints.txt by itself, and only when something changed.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
STAMP := .venv/.installed
PYTEST_ARGS ?=
PYTEST := $(BIN)/python -m pytest --no-loadscope-reorder

.PHONY: help demo test campaigns stress check lint unit bench docs lock clean

help:           ## this list
	@grep -E '^[a-z]+: .*##' Makefile | sed -E 's/: .*## /\t/'

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "orchctl needs Python 3.11 or newer; set PYTHON=")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv (constraints.txt)"
	@PIP_CONSTRAINT=constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 $(BIN)/python -m pip install --quiet -e '.[dev]'
	@touch $(STAMP)

demo: $(STAMP)  ## the whole story in a temporary folder, in about three minutes
	@$(BIN)/orchctl demo

test: $(STAMP)  ## every test but the campaigns, also those with a real Prefect server, worker and systemd
	@$(PYTEST) -n 3 -m "not campaign" $(PYTEST_ARGS)

campaigns: $(STAMP) ## hundreds of kills, faults, switches and backfilled dates: half an hour; CI runs them too
	@$(PYTEST) -n 2 -m "campaign and not stress" $(PYTEST_ARGS)

stress: $(STAMP) ## the campaigns at full length: every kill, every fault, 16 operators with 500 commands each; hours
	@ORCHCTL_STRESS=1 $(PYTEST) -n 2 -m campaign $(PYTEST_ARGS)

check: lint unit  ## lint, types, layers and the unit tests: what to run before each commit

lint: $(STAMP)  ## ruff, mypy --strict, import-linter
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo

unit: $(STAMP)
	@$(PYTEST) -n 2 tests/unit $(PYTEST_ARGS)

bench: $(STAMP)  ## the benchmarks behind docs/performance.md
	@$(BIN)/python -m benchmarks

docs: $(STAMP)  ## write everything that is generated: schemas, command reference, completions
	@$(BIN)/python -m tests.generated --write

lock: $(STAMP)  ## write constraints.txt from what is installed now
	@$(BIN)/python -m pip freeze --exclude-editable | sort -f > constraints.txt

clean:          ## remove .venv and caches
	@rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
