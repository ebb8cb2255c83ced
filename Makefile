# `make demo` and `make test` do all the set-up: they need Python 3.11 or newer, pip and make, nothing else.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PLUGINS := $(sort $(wildcard plugins/*))
MANIFESTS := pyproject.toml $(wildcard plugins/*/pyproject.toml)
EDITABLE := $(foreach plugin,$(PLUGINS),-e ./$(plugin))
ARGS ?=
# Most tests wait for other processes, so a few more workers than cores cost nothing.
WORKERS ?= 3

.DEFAULT_GOAL := help
.PHONY: help demo test soak check format docs dashboards bench bench-receiver dist clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3"; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: $(BIN)/python $(MANIFESTS)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet -e '.[demo,receiver,redis]' $(EDITABLE)
	@touch $@

$(VENV)/.test: $(VENV)/.run
	$(BIN)/python -m pip install --quiet --group test
	@touch $@

$(VENV)/.dev: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --group dev
	@touch $@

demo: $(VENV)/.run ## the main job on this machine: PKI, receiver, agent, neighbours (ARGS="--for 30 --json")
	@$(BIN)/openclaw-exporter demo $(ARGS)

test: $(VENV)/.test ## all tests but the long ones, with branch coverage (ARGS="-k name")
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest -m 'not slow' -n $(WORKERS) --dist loadfile $(ARGS)
	@$(BIN)/python -m coverage combine --quiet
	@$(if $(ARGS),,$(BIN)/python -m coverage report)

soak: $(VENV)/.test ## the long tests: kill loops, 10 000 fuzzed bodies, 1 000 nodes for 3 minutes
	$(BIN)/python -m pytest -m slow --timeout 1500 -s $(ARGS)

check: $(VENV)/.dev ## lint, format, types, rooms
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@set -e; for plugin in $(PLUGINS); do echo "mypy $$plugin"; $(BIN)/mypy --strict --config-file pyproject.toml $$plugin; done
	$(BIN)/lint-imports

format: $(VENV)/.dev ## mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.run ## regenerate the generated pages of docs/
	$(BIN)/python docs/generate.py

dashboards: $(VENV)/.test ## regenerate dashboards/*.json
	$(BIN)/python -m dashboards

# A million nodes and a herd take a quarter of an hour and gigabytes: they are run by themselves.
LARGE := tests/benchmarks/bench_million.py tests/benchmarks/bench_herd.py

bench: $(VENV)/.test ## CPU per operation, with ratios against named peers (medians of three or more)
	@set -e; for bench in $(filter-out $(LARGE),$(sort $(wildcard tests/benchmarks/bench_*.py))); do echo "== $$bench"; $(BIN)/python $$bench; done

bench-receiver: $(VENV)/.test ## CPU of one heartbeat, beside nginx, etcd and Pushgateway (ARGS="--million")
	$(BIN)/python tests/benchmarks/bench_receiver.py $(ARGS)

dist: $(VENV)/.dev ## wheel and source distribution of the exporter and of each plugin, in dist/
	$(BIN)/python -m build --outdir dist .
	@set -e; for plugin in $(PLUGINS); do $(BIN)/python -m build --outdir dist $$plugin; done

clean: ## remove everything that make made
	rm -rf $(VENV) dist build .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache
