# Everything sets itself up: Python 3.11, make and a package index are all it takes.
# pip's own configuration (PIP_FIND_LINKS, PIP_EXTRA_INDEX_URL, pip.conf) decides where packages come from, and so
# whether the CPU or the CUDA build of torch is installed.

TORCH  := torch==2.13.0
VENV   := .venv
PY     := $(VENV)/bin/python
PIP    := $(PY) -m pip --disable-pip-version-check
STAMPS := $(VENV)/.stamps
# The first of these that is Python 3.11.
PYTHON := $(shell for p in python3.11 python3 python; do \
	$$p -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' >/dev/null 2>&1 && echo $$p && break; done)

.DEFAULT_GOAL := help
.PHONY: help demo test check ui bench soak lock clean
.DELETE_ON_ERROR:

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

demo: $(STAMPS)/local  ## build a real drop and run the whole pipeline on it
	@$(VENV)/bin/mm demo

ui: $(STAMPS)/local  ## the Dagster UI on the demo's store, until Ctrl-C
	@$(VENV)/bin/mm ui

check: $(STAMPS)/dev  ## lint, format, types, import contracts, manifests
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/basedpyright
	$(VENV)/bin/lint-imports
	@if [ -d mm_assets_tests/k8s ]; then $(PY) -m pytest -q mm_assets_tests/k8s; fi

test: $(STAMPS)/dev  ## all tests but the slow proofs
	$(PY) -m pytest -m "not slow" -n 3 --dist loadfile --no-loadscope-reorder

soak: $(STAMPS)/dev  ## the slow proofs
	$(PY) -m pytest -m slow

bench: $(STAMPS)/local  ## figures of every stage on a fresh store, JSON last (WRITE=1: docs/benchmarks.md, FULL=1: 10 million samples)
	@$(PY) -m mm_assets.demo.bench $(if $(WRITE),--write) $(if $(FULL),--full)

clean:  ## stop the embedded store, remove .mm (its data!) and caches; keeps .venv
	@if [ -x $(VENV)/bin/mm ] && [ -d .mm ]; then env -u MM_STORE_URI $(VENV)/bin/mm store stop; fi
	rm -rf .mm build .pytest_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info

# The environment. torch comes first and alone: its build depends on the machine, so no hash can name it.

$(STAMPS)/venv:
	@if [ -z "$(PYTHON)" ]; then \
		echo "make: no Python 3.11 found: expected python3.11, python3 or python to be version 3.11. Install it" \
			"(Debian: apt-get install python3.11-venv) or put it on PATH." >&2; exit 1; fi
	@echo "Creating $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV)
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/torch: $(STAMPS)/venv Makefile
	@echo "Installing $(TORCH)"
	@$(PIP) install -qq $(TORCH)
	@touch $@

$(STAMPS)/local: $(STAMPS)/torch locks/local.txt pyproject.toml
	@if [ $(STAMPS)/dev -nt locks/dev.txt ] && [ $(STAMPS)/dev -nt pyproject.toml ]; then :; else \
		echo "Installing locks/local.txt"; \
		$(PIP) install -qq --no-deps --require-hashes -r locks/local.txt && \
		$(PIP) install -qq --no-deps --no-build-isolation -e .; fi
	@touch $@

$(STAMPS)/dev: $(STAMPS)/torch locks/dev.txt pyproject.toml
	@echo "Installing locks/dev.txt"
	@$(PIP) install -qq --no-deps --require-hashes -r locks/dev.txt
	@$(PIP) install -qq --no-deps --no-build-isolation -e .
	@touch $@

# uv reads its own configuration (UV_FIND_LINKS, UV_EXTRA_INDEX_URL); point it at a CPU build of torch.
COMPILE = $(VENV)/bin/uv pip compile --quiet --generate-hashes --no-emit-package torch --python-version 3.11 \
	--no-header --no-annotate $(UPGRADE) pyproject.toml

lock: $(STAMPS)/dev  ## compile the hashed lock files anew (UPGRADE=--upgrade: to the newest versions)
	$(COMPILE) --extra orchestrator --extra stage --extra embedded --extra dev -o locks/dev.txt
	$(COMPILE) --extra orchestrator -c locks/dev.txt -o locks/code_server.txt
	$(COMPILE) --extra stage -c locks/dev.txt -o locks/stage.txt
	$(COMPILE) --extra orchestrator --extra stage --extra embedded -c locks/dev.txt -o locks/local.txt
