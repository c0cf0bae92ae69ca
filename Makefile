# Everything starts here: `make serve`, `make test`. The environment is made in .venv on first use.
PYTHON ?= $(or $(shell command -v python3.11),$(shell command -v python3),python3)
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed

# Which PyTorch build: `cpu` takes the small CPU build where PyTorch offers one apart (Linux on x86), `default` what the
# package index gives, which on Linux is the CUDA build. A folder of wheels in PIP_FIND_LINKS goes before either. A torch
# that .venv has already stays, if pyproject.toml allows it.
TORCH     ?= cpu
TORCH_CPU := https://download.pytorch.org/whl/cpu

# A waiting thread should sleep, not spin: two processes on few cores are many times slower otherwise.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: help install serve test check types lint format train bench gpu browser clean

help:
	@echo "make serve    set up, and serve the bundled models on http://127.0.0.1:8000"
	@echo "make test     set up, and pass all tests (lint, types and the browser tests among them)"
	@echo "make check    what CI runs; the same as make test"
	@echo "make install  only set .venv up"
	@echo "make format   format and mend what can be mended"
	@echo "make train    train the bundled model anew (RECIPE=training/recipes/adult.toml)"
	@echo "make gpu      with a CUDA device: its tests and figures, by PYTHON as it is (nothing is installed, no network)"
	@echo "make bench    print the figures of docs/results.md (BENCHMARKS=tables: one of them; QUICK=1: minutes)"

install: $(STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo "error: Unveil needs Python 3.11 or newer; set PYTHON=/path/to/python3.11" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
ifeq ($(TORCH)$(PIP_FIND_LINKS),cpu)
	$(BIN)/python -c 'import sys; from importlib.util import find_spec; sys.exit(find_spec("torch") is None)' || \
	  $(BIN)/python -m pip install -q --extra-index-url $(TORCH_CPU) 'torch>=2.13,<2.14'
endif
	$(BIN)/python -m pip install -q -e '.[dev]'
	@touch $@

serve: install
	$(BIN)/unveil serve

test check: lint types browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: install
	$(BIN)/mypy

# The browser tests drive Debian's Chromium; elsewhere they skip, saying so.
browser: install
	@command -v chromium >/dev/null || [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null || { \
	  apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	  apt-get install -qq -y --no-install-recommends chromium fonts-dejavu-core >/dev/null; }

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

RECIPE ?= training/recipes/adult.toml
train: install
	$(BIN)/unveil train $(RECIPE)

BENCHMARKS ?= attention tables fidelity prompts capacity spread pair_bias known_order ablation estimators parallel regret selector molecules sudoku text imported imputation late_queries engine growth http training
bench: install
	for name in $(BENCHMARKS); do $(BIN)/python -m benchmarks $$name $(if $(QUICK),--quick) || exit 1; done

# The Python that is given, else .venv's where there is one, else python3; with the torch that it has, which is not
# replaced. tests/gpu runs on the device, then benchmarks/results/gpu-NAME.json is written and printed.
GPU_PYTHON = $(if $(filter file,$(origin PYTHON)),$(or $(wildcard $(BIN)/python),$(PYTHON)),$(PYTHON))
gpu:
	@code=0; $(GPU_PYTHON) benchmarks/common/gpu_ready.py || code=$$?; \
	[ $$code != 3 ] || exit 0; [ $$code = 0 ] || exit $$code; \
	OMP_NUM_THREADS=1 $(GPU_PYTHON) -m pytest -m gpu -W default -p no:cacheprovider tests/gpu && \
	$(GPU_PYTHON) -m benchmarks gpu --json --results benchmarks/results

clean:
	rm -rf $(VENV) *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
