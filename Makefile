# The commands of this project. `make help` lists them.

PYTHON ?= python3
BIN := .venv/bin
KAFKA_LIB := deploy/kafka/lib
PROTO := $(wildcard schemas/proto/pool/v1/*.proto)
SEED ?=
JOBS ?= 1
PARALLEL = $(if $(filter-out 1,$(JOBS)),--numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder)
SEEDED = $(if $(SEED),--seed $(SEED))

.DEFAULT_GOAL := help
.PHONY: help setup kafka demo test check bench bench-large bundle load torture format proto lock clean

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: .venv/.ready ## Make .venv with the pinned dependencies and this package

.venv/.ready: requirements.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps --editable .
	touch $@

kafka: $(KAFKA_LIB)/.complete ## Fetch Apache Kafka's jars (Maven) into deploy/kafka/lib

$(KAFKA_LIB)/.complete: deploy/kafka/pom.xml
	rm -rf $(KAFKA_LIB)
	cd deploy/kafka && mvn --quiet --batch-mode dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory=lib
	touch $@

demo: setup ## Three departments, 20,000 persons, one grant, changes followed: the whole line on the embedded default
	$(BIN)/pool demo

# With JOBS, a module's tests stay in one process, with the pool or Kafka that they share; the long modules come first.
test: setup kafka ## Every test: unit, contract, property, attack, PostgreSQL, Kafka, processes; a share of the large counts
	$(BIN)/python -m pytest $(PARALLEL) $(SEEDED)

check: setup ## Types, lint, import contracts, generated code
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python deploy/checks/generated.py

bench: setup kafka ## Speed as ratios to named baselines, on Kafka; writes docs/benchmarks.md and build/bench.json
	$(BIN)/python -m tests.bench

bench-large: setup kafka ## The same with 1,000,000 records a run, 500,000 rows of the line, 100,000 subjects, 10,000,000 records, rows and changes for memory: hours
	$(BIN)/python -m tests.bench --records 1000000 --line 500000 --subjects 100000 --memory 10000000
	$(BIN)/python -m tests.bench --only line_memory,line_cdc_memory --line 10000000
	$(BIN)/python -m tests.bench.searches
	$(BIN)/python -m tests.bench.tasks

load: setup ## Attacks of one department, a minute each, and what they cost the others: a table; fails beyond the bounds
	$(BIN)/python -m tests.load

torture: setup kafka ## 200 faults on unacknowledged batches, two controls; every counted test whole (SEED=n repeats)
	$(BIN)/python -m tests.torture --faults 200 --controls $(SEEDED)
	$(BIN)/python -m pytest -m counted --share full $(SEEDED)

bundle: setup ## One archive that installs the connectors on a machine without a network: build/bundle
	$(BIN)/python deploy/bundle/build.py

format: setup ## Format and mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: setup ## Generate the protobuf modules again
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. --grpc_python_out=. $(PROTO)

lock: setup ## Pin dependencies again (needs uv)
	uv pip compile pyproject.toml --all-extras --generate-hashes --no-emit-index-url --no-header --no-annotate \
		--python-version 3.11 --output-file requirements.lock

clean: ## Remove what was built; the environment and Kafka's jars too
	rm -rf .venv build dist $(KAFKA_LIB) .mypy_cache .ruff_cache .pytest_cache .hypothesis
