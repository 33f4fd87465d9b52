# `make run` and `make test` do everything on a fresh machine with Python 3.11 or later.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUNS := $(VENV)/.runs
READY := $(VENV)/.ready
JOBS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist worksteal
NIGHTLY := LOBMESH_SEEDS=200 LOBMESH_ORACLE_COMMANDS=1000000 LOBMESH_MESSAGES=10000 LOBMESH_PLANTED=all
PYTHONS ?= 3.11 3.12 3.13 3.14

.PHONY: run test test-extras check check-all nightly plants soak-runs lint types oracle bench native stubs clean

run: $(RUNS)
	$(BIN)/python run_cluster.py

# What starts no process comes first: a verdict on nine tenths of it after half a minute.
test: $(READY)
	$(PYTEST) -m "not processes and not extras"
	$(PYTEST) -m "processes and not extras"

# What takes minutes, the network or other programs: the compiled build, an installation in an environment of its own.
# What Debian has of it is installed where it is missing.
test-extras: $(READY)
	.ci/packages $(BIN)/python
	$(BIN)/python -m pytest -m extras

check: lint types test

# The suite with each version of Python that is installed, in an environment of its own.
check-all: check
	for version in $(PYTHONS); do \
	    if python$$version -c "" 2> /dev/null; then \
	        echo "make: with Python $$version"; \
	        $(MAKE) --no-print-directory PYTHON=python$$version VENV=.venv-$$version types test || exit 1; \
	    else echo "make: Python $$version is not installed"; fi; \
	done

# Many seeds, many commands, every part of the benchmark: hours. Before a release, and each night.
nightly: $(READY)
	$(NIGHTLY) $(PYTEST) -m "" --timeout 14400
	$(BIN)/python -m tools.bench all --quick
	$(BIN)/python -m tests.plants
	$(BIN)/python -m tests.soak_runs

# Bugs planted in a copy of the tree, one at a time: each must make a run's verdict fail. Five minutes.
plants: $(READY)
	$(BIN)/python -m tests.plants

# Thirty runs with random markets and trouble beside two busy processes: every verdict must hold. A quarter of an hour.
soak-runs: $(READY)
	$(BIN)/python -m tests.soak_runs

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

# A million random commands against the slow obvious matcher: eight minutes of one core.
oracle: $(READY)
	LOBMESH_ORACLE_COMMANDS=1000000 $(BIN)/python -m pytest tests/engine/core/test_oracle.py --timeout 3600

bench: $(READY)
	$(BIN)/python -m tools.bench all --peers --write BENCHMARKS.md

# Compile the pure cores from the same source; they are used when present. `make clean` goes back.
native: $(READY)
	$(BIN)/python -m tools.native

stubs: $(READY)
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. --grpc_python_out=. proto/*.proto

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "lobmesh needs Python 3.11 or later")'
	$(PYTHON) -m venv $(VENV)

# What running needs.
$(RUNS): requirements.txt | $(BIN)/python
	@echo "make: installing what running needs into $(VENV); once, a minute or less"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@touch $(RUNS)

# And what testing needs beside it.
$(READY): requirements-dev.txt requirements.txt | $(BIN)/python
	@echo "make: installing what the tests need into $(VENV); once, a minute or two"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
	@touch $(RUNS) $(READY)

clean:
	rm -rf .venv .venv-* build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find engine bus proto tools -name '*.so' -delete
	find . -maxdepth 1 -name '*__mypyc*.so' -delete
