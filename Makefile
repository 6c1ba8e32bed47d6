# The only entry point: people and CI run the same targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCK := $(BIN)/uv pip compile --generate-hashes --universal --python-version 3.11 --no-emit-index-url --quiet \
	--custom-compile-command "make lock"

.DEFAULT_GOAL := help

.PHONY: help
help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: run
run: setup ## set everything up and run the main job (ARGS="--for 60s" and more: k2 up --help)
	@$(BIN)/k2 up $(ARGS)

.PHONY: setup
setup: $(VENV)/.run-stamp ## prepare .venv with the k2 command in it

$(VENV)/.run-stamp: requirements/build.txt requirements/run.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "k2 needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 ...")'
	@test -x $(BIN)/python -a -e $(BIN)/activate || { echo "creating $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@test -x $(BIN)/uv || { echo "installing the installer"; \
		$(BIN)/python -m pip --disable-pip-version-check install --require-hashes --requirement requirements/build.txt; }
	@echo "installing the packages of requirements/run.txt"
	@$(BIN)/uv pip install --python $(BIN)/python --require-hashes --requirement requirements/build.txt --requirement requirements/run.txt
	@$(BIN)/uv pip install --python $(BIN)/python --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev-stamp: $(VENV)/.run-stamp requirements/dev.txt
	@echo "installing the packages of requirements/dev.txt"
	@$(BIN)/uv pip install --python $(BIN)/python --require-hashes --requirement requirements/dev.txt
	@touch $@

.PHONY: test
test: $(VENV)/.dev-stamp ## run unit, simulation and integration tests, these on a real Kafka; two side by side, with ARGS one
	@$(BIN)/python -m pytest $(or $(ARGS),--numprocesses 2 --dist worksteal)

.PHONY: test-system
test-system: $(VENV)/.dev-stamp ## install Debian's Prometheus, Alertmanager, Chromium, logrotate, jq; run what needs them, and the longer tests
	@bash scripts/install_debian_packages.sh
	@$(BIN)/python -m pytest $(or $(ARGS),tests/system tests/soak -m "soak or not soak")
	$(if $(ARGS),,@$(BIN)/python -m pytest tests/runbooks --numprocesses 2 --dist worksteal)

.PHONY: contract
contract: $(VENV)/.dev-stamp ## which row of the operations contract has which test
	@PYTHONPATH=tests $(BIN)/python -m contract

.PHONY: soak
soak: $(VENV)/.dev-stamp ## run everything for a while; judge memory, rate and proof (ARGS="1h --out docs/soak")
	@PYTHONPATH=tests $(BIN)/python -m soak $(ARGS)

.PHONY: docs
docs: $(VENV)/.dev-stamp ## write what is made from the code: reference pages, dashboards
	@$(BIN)/python scripts/reference_pages.py
	@$(BIN)/python -m scripts.dashboards

.PHONY: faults
faults: $(VENV)/.dev-stamp ## break everything, compare with the ledger, write docs/reliability.md (an hour)
	@PYTHONPATH=tests $(BIN)/python -m faults $(ARGS)

.PHONY: simulate
simulate: $(VENV)/.dev-stamp ## run seeds of the deterministic simulation (SEEDS=100000 FIRST=0), or one with its log (SEED=123)
	@PYTHONPATH=tests $(BIN)/python -m simulation.run $(if $(SEED),--seed $(SEED) --log,--seeds $(or $(SEEDS),1000) --first $(or $(FIRST),0))

.PHONY: check
check: $(VENV)/.dev-stamp ## lint, format, spelling, types, import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: audit
audit: $(VENV)/.dev-stamp ## look for known vulnerabilities in the locked packages, and for secrets in the tracked files
	@$(BIN)/python scripts/audit.py

.PHONY: fmt
fmt: $(VENV)/.dev-stamp ## format and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: lock
lock: $(VENV)/.run-stamp ## write requirements/*.txt anew from pyproject.toml
	$(LOCK) requirements/build.in --output-file requirements/build.txt
	$(LOCK) pyproject.toml --constraint requirements/build.txt --output-file requirements/run.txt
	$(LOCK) pyproject.toml --extra dev --constraint requirements/run.txt --constraint requirements/build.txt --output-file requirements/dev.txt

.PHONY: clean
clean: ## remove .venv and caches (not var/: that is k2 down --delete)
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
