# Everything starts from python3 (with venv) and make. The targets build .venv themselves, from
# the hashed locks in requirements/; PYTHON=python3.13 picks another interpreter for it.

PYTHON ?= python3
VENV := .venv
# Most tests wait for servers and windows more than they compute.
JOBS ?= 4
BIN := $(VENV)/bin
# Wheels only: building an sdist would fetch build requirements that no lock names.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps
LOCKED := $(INSTALL) --require-hashes --only-binary :all:
COMPILE := $(BIN)/uv pip compile --quiet --no-config --universal --python-version 3.11 \
	--generate-hashes --no-header

.DELETE_ON_ERROR:
.PHONY: help demo test test-long check bench simulate docs lock clean

help: ## show this text
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.runtime ## watch the main job on loopback, in under a minute
	@$(BIN)/prefetch demo

test: check ## check, then every test that is not long
	$(BIN)/python -m pytest -m "not long" -n $(JOBS) --dist worksteal

test-long: $(VENV)/.dev ## the long tests: soaks, simulations, installs from the wheel
	$(BIN)/python -m pytest -m long -n 2 --dist loadfile

check: $(VENV)/.dev ## lint, format, types, layers, docs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tools/check_docs.py

bench: $(VENV)/.dev ## measure against the peers, in one run
	$(BIN)/python benchmarks/run.py

simulate: $(VENV)/.dev ## weeks beside other users of a limit, 200 times; some 15 minutes
	PYTHONPATH=tests $(BIN)/python -m simulation.table

docs: $(VENV)/.dev ## write --help into the docs again
	$(BIN)/python tools/check_docs.py --write

lock: $(VENV)/.dev ## renew requirements/; UPGRADE=--upgrade moves versions
	$(COMPILE) $(UPGRADE) pyproject.toml -o requirements/runtime.txt
	$(COMPILE) $(UPGRADE) requirements/build.in -c requirements/runtime.txt \
		-o requirements/build.txt
	$(COMPILE) $(UPGRADE) pyproject.toml --extra cluster -c requirements/runtime.txt \
		-o requirements/cluster.txt
	$(COMPILE) $(UPGRADE) pyproject.toml --extra dev --extra cluster -c requirements/cluster.txt \
		-c requirements/build.txt -o requirements/dev.txt

clean: ## remove .venv, builds and caches
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis \
		.import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and \
		"prefetch needs Python 3.11 or later: make PYTHON=python3.x names another")'
	$(PYTHON) -m venv $(VENV)

# A stamp stands for an install that went through; a newer lock makes it stale.
$(VENV)/.runtime: requirements/runtime.txt requirements/build.txt pyproject.toml | $(BIN)/python
	$(LOCKED) -r requirements/runtime.txt -r requirements/build.txt
	$(INSTALL) --no-index --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements/dev.txt $(VENV)/.runtime
	$(LOCKED) -r requirements/dev.txt
	@touch $@
