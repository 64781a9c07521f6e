# Each target sets up what it needs in .venv; the only requirements are python3 (3.11 or later) and make.
# Another interpreter: make PYTHON=python3.12 demo

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && echo $$p && exit; done; echo python3)
BIN := .venv/bin
PHOTO ?= --sample
WORKERS ?= auto
# More for pytest: make test ARGS='tests/core -k conv'
ARGS ?=
# One thread per test process: the processes already fill the cores.
ONE_THREAD := OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 MKL_NUM_THREADS=1
PYTEST := $(ONE_THREAD) $(BIN)/python -m pytest -n $(WORKERS) --maxprocesses 8 --dist loadgroup

.PHONY: help demo test test-slow test-all bench lint format docs wheels clean venv-demo venv-test venv-peers

help:
	@echo 'make demo       segment the sample photos (PHOTO=mine.jpg for your own) -> demo/'
	@echo 'make test       the quick tests'
	@echo 'make test-slow  the slow ones and the comparisons with other libraries (installs those)'
	@echo 'make test-all   both'
	@echo 'make lint       ruff and mypy            make format   rewrite in the house style'
	@echo 'make docs       check the links and run the examples of the documents'
	@echo 'make bench      workloads beside PyTorch where it is installed (make venv-peers)'
	@echo 'make wheels     build every wheel into dist/ and install each alone in an empty environment'
	@echo 'make clean      remove all that these commands wrote'

venv-demo venv-test venv-peers:
	@command -v $(PYTHON) >/dev/null 2>&1 || { echo "error: there is no '$(PYTHON)' here" >&2; \
		echo "  install Python 3.11 or later, or name yours: make PYTHON=/path/to/python3 ..." >&2; exit 1; }
	@$(PYTHON) tools/venv.py $(@:venv-%=%)

demo: venv-demo
	@mkdir -p demo
	@$(BIN)/flambeau-segment $(PHOTO) -o demo/
	@echo 'Look at the pictures in demo/: each photo, its classes in colour, and their legend.'

test: venv-test
	@$(PYTEST) -m 'not slow and not peer' $(ARGS)

test-slow: venv-peers
	@$(BIN)/python -c 'import torch' || { echo 'error: PyTorch does not import, so nothing can be compared with it' >&2; exit 1; }
	@$(PYTEST) -m 'slow or peer' $(ARGS)

test-all: test test-slow

bench: venv-test
	@$(BIN)/python benchmarks/run.py --compile

lint: venv-test
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

format: venv-test
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format .

docs: venv-test
	@$(BIN)/python -m pytest -q tests/repo/test_docs.py

wheels: venv-test
	@$(BIN)/python tools/wheels.py

clean:
	rm -rf .venv dist build demo .pytest_cache .mypy_cache .ruff_cache .hypothesis benchmarks/results
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
