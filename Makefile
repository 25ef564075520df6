# memrun's own commands. `make` alone explains itself.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
READY = $(VENV)/.ready
PYTEST = $(BIN)/python -m pytest

.DEFAULT_GOAL := help

.PHONY: help
help:  ## what can be made
	@awk -F ':.*## ' '/^[a-z -]+:.*## /{printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

.PHONY: setup
setup: $(READY)  ## a virtual environment in .venv with all that memrun needs

examples/mem-allocate: examples/mem-allocate.c
	$(CC) -O2 -Wall -o $@ $<

.PHONY: demo
demo: $(READY) examples/mem-allocate  ## set up, then run the main job: memrun --limit 5M on the example
	@echo '$$ memrun --limit 5M -- ./mem-allocate'
	@cd examples && ../$(BIN)/memrun --limit 5M -- ./mem-allocate; status=$$?; echo "(exit status $$status)"; test $$status = 137

.PHONY: check
check: $(READY)  ## seconds: ruff, mypy --strict, the house rules, unit tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(PYTEST) tests/unit

.PHONY: test
test: $(READY) examples/mem-allocate  ## set up, then pass every test that this machine's kernel can run
	$(PYTEST) $(if $(PROMISE),--promise $(PROMISE)) $(TESTS)

# Two guests side by side, each with about half of the work: one has one CPU, and most machines have two.
VM_GUEST = $(BIN)/python tests/vm/guest.py --timeout 1500 --env MEMRUN_TEST_FAULTS=3 --env MEMRUN_TEST_SOAK=0.05 -- $(PYTEST) --promise v2
VM_SECOND = tests/kernel/test_batch.py tests/kernel/test_gauges.py tests/kernel/test_hooks.py

.PHONY: test-vm
test-vm: $(READY) examples/mem-allocate  ## the kernel and command-line tests in guests with cgroup v2
	@$(BIN)/python -m compileall -q memrun  # what a guest compiles is forgotten with it, at each of hundreds of starts
	@$(MAKE) --no-print-directory -j2 test-vm-kernel test-vm-cli

.PHONY: test-vm-kernel test-vm-cli
test-vm-kernel test-vm-cli: SHELL = /bin/bash
test-vm-kernel:
	@set -o pipefail; $(VM_GUEST) tests/contract tests/kernel $(VM_SECOND:%=--ignore=%) 2>&1 | sed -u 's/^/kernel: /'
test-vm-cli:
	@set -o pipefail; $(VM_GUEST) tests/cli tests/faults $(VM_SECOND) 2>&1 | sed -u 's/^/cli: /'

SYSTEMD_GUEST = $(BIN)/python tests/vm/guest.py --systemd --timeout 300

.PHONY: test-systemd
test-systemd: $(READY) examples/mem-allocate  ## users without root, cron, containers: in a guest with systemd and cgroup v2
	$(SYSTEMD_GUEST) -- $(PYTEST) tests/systemd
	$(SYSTEMD_GUEST) --legacy -- $(PYTEST) tests/systemd/test_legacy.py

$(VENV)/.dist: $(READY)
	$(BIN)/python -m pip install --quiet --editable '.[dist]'
	@touch $@

.PHONY: dist
dist: $(VENV)/.dist  ## wheel and sdist in dist/ (the wheel is built from the sdist)
	rm -rf dist
	$(BIN)/python -m build >/dev/null

.PHONY: zipapp
zipapp: dist  ## dist/memrun.pyz: one file with all that it needs, for machines without pip
	$(BIN)/python tools/onefile.py dist/*.whl dist/memrun.pyz

.PHONY: completions man
completions man: $(VENV)/.dist  ## shell completions and the man pages in build/share
	$(BIN)/python tools/papers.py build $@

.PHONY: check-dist
check-dist: zipapp examples/mem-allocate  ## build all that is shipped, install it into empty environments, and run the example there
	$(BIN)/python tools/check_dist.py dist

.PHONY: bench
bench: $(READY)  ## ratios against the bare interpreter, a C program and the peers; BENCH="starting reacting many rate scope"
	$(BIN)/python tests/bench/bench.py $(BENCH)

SECONDS ?= 30

.PHONY: fuzz
fuzz: $(READY)  ## all that reads texts from outside, SECONDS=30 for each kind, with atheris where there is one for this Python
	-$(BIN)/python -m pip install --quiet atheris
	$(BIN)/python tests/fuzz/run.py $(SECONDS) $(TARGETS)

MINUTES ?= 10

.PHONY: soak
soak: $(READY)  ## mixed jobs for MINUTES=10, then: open files, memory, groups, processes and sockets as before
	MEMRUN_TEST_SOAK=$(MINUTES) $(PYTEST) tests/faults/test_soak.py -s

.PHONY: format
format: $(READY)  ## put the code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

.PHONY: clean
clean:  ## remove what was built
	rm -rf $(VENV) build dist examples/mem-allocate examples/logs examples/work tests/hog .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
