# `make run` and `make test` do everything on a fresh machine with Python 3.11 or later.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: run test check lint types oracle bench native stubs clean

run: $(READY)
	$(BIN)/python run_cluster.py

test: $(READY)
	$(BIN)/python -m pytest

check: lint types test

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
	$(BIN)/python tools/native.py

stubs: $(READY)
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. --grpc_python_out=. proto/*.proto

$(READY): requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "lobmesh needs Python 3.11 or later")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt
	touch $(READY)

clean:
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find engine bus proto tools -name '*.so' -delete
	find . -maxdepth 1 -name '*__mypyc*.so' -delete
