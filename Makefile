# Everything sets itself up: a virtual environment in .venv with the package and its tools.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
STAMP = $(VENV)/.installed
# Four at a time on two cores, for tests of real processes wait more than they work
PYTEST = $(BIN)/python -m pytest --numprocesses 4 --dist loadfile

.PHONY: help demo test faults check soak lint types format versions bench-throughput bench-failover bench-cluster \
	bench-membership bench-startup bench-memory bench-fleet clean

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 20

demo: $(STAMP)  ## walk through a member, see a cluster lose its leader and grow, compare the policies
	@$(BIN)/python examples/demo.py

test: $(STAMP)  ## run every test (differential ones against a real etcd included)
	$(PYTEST) -m "not exhaustive"

faults: $(STAMP)  ## every policy under every fault, on every kind of server: all cells of the tables
	$(PYTEST) tests/client/test_faults_*.py

check: lint types  ## lint, types and the fast tests: before every commit
	$(PYTEST) -q -m "not process and not differential and not slow"

SEEDS ?= 2000
FIRST ?= 0
soak: $(STAMP)  ## run SEEDS simulated clusters from seed FIRST on, on all cores (SEEDS=0: for ever)
	$(BIN)/python -m tests.simulation --first $(FIRST) --seeds $(SEEDS)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy
	$(BIN)/basedpyright --pythonpath $(BIN)/python

format: $(STAMP)  ## format and sort imports
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

versions: $(STAMP)  ## test the client with the oldest grpcio and protobuf; make test has the newest
	$(BIN)/python tests/versions.py

bench-throughput: $(STAMP)  ## what a call costs, beside other clients and beside etcd
	$(BIN)/python -m benchmarks.throughput

bench-failover: $(STAMP)  ## what each policy does when a member fails, claim by claim
	$(BIN)/python -m benchmarks.failover

bench-cluster: $(STAMP)  ## what a cluster of three does a second, beside etcd's
	$(BIN)/python -m benchmarks.cluster

bench-membership: $(STAMP)  ## what adding a member does to a cluster: voter or learner
	$(BIN)/python -m benchmarks.membership

bench-startup: $(STAMP)  ## how long three members take to start, beside etcd's
	$(BIN)/python -m benchmarks.startup

bench-fleet: $(STAMP)  ## what ten thousand simulated clients do to a cluster, policy by policy
	$(BIN)/python -m benchmarks.fleet

bench-memory: $(STAMP)  ## what a store of a million keys takes
	$(BIN)/python -m benchmarks.memory

clean:  ## remove what the targets above made
	rm -rf $(VENV) .venvs build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "etcd-pinwheel needs Python 3.11 or newer: make PYTHON=python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $(STAMP)
